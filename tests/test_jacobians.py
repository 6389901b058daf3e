"""jacobian and hessian, and nestings of all transformations."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbad
from nbad import jacobians, tree
from nbad.errors import InputTypeError, NonScalarOutputError, WrtError

X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])
Z = np.array([1.0 + 2.0j, 0.5 - 1.0j])
ROWS, COLUMNS = math.inf, 0.0


class Pair(NamedTuple):
    a: Any
    b: Any


def differences(f: Any, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the Jacobian of a function of one array, by central differences."""
    columns = []
    for place in range(x.size):
        dx = np.zeros_like(x)
        dx.flat[place] = step
        columns.append((np.asarray(f(x + dx)) - np.asarray(f(x - dx))) / (2 * step))
    return np.reshape(np.stack(columns, -1), np.shape(f(x)) + x.shape)


FUNCTIONS = [
    np.sin,
    np.sum,
    lambda x: x * x[::-1] + np.exp(x),
    lambda x: np.cumsum(x) / np.sum(x),
    lambda x: np.outer(x, x) @ x,
    lambda x: np.outer(x, np.ones(7)) * np.sum(x * x),
    lambda x: np.abs(np.fft.fft(x)) ** 2,
    lambda x: np.fft.rfft(x) * (1.0 + 2.0j),
    lambda x: np.exp(1j * np.concatenate([x, x, x, x])),
    lambda x: np.where(x > 0.7, x**3, np.sqrt(x)),
    lambda x: np.sort(x)[..., None] * np.max(x),
    lambda x: nbad.convolve(x, np.array([1.0, 2.0])),
    lambda x: np.linalg.norm(x) * np.var(x),
    lambda x: np.zeros((2, 0)) * np.sum(x),
]


@pytest.mark.parametrize("cost", [ROWS, COLUMNS, jacobians.COLUMN_COST])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_a_jacobian_is_that_of_differences(f: Any, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    found = nbad.jacobian(f)(X)
    assert found.shape == np.shape(f(X)) + X.shape
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_allclose(found, differences(f, X), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("cost", [ROWS, COLUMNS])
@pytest.mark.parametrize("f", FUNCTIONS[:-1])
def test_the_jacobian_of_a_compiled_function_is_the_same(
    f: Any, cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    compiled = nbad.compile(f)
    for x in (X, X, X + 0.01):
        found = nbad.jacobian(compiled)(x)
        assert found.dtype == nbad.jacobian(f)(x).dtype
        np.testing.assert_allclose(found, nbad.jacobian(f)(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cost", [ROWS, COLUMNS])
@pytest.mark.parametrize("f", FUNCTIONS[:-1])
def test_replays_give_the_same(f: Any, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "SMALL", 1)
    test_the_jacobian_of_a_compiled_function_is_the_same(f, cost, monkeypatch)


def test_a_loaded_function_is_replayed(tmp_path: Any) -> None:
    f = nbad.compile(lambda x: np.sum(np.sin(x) * x[::-1]))
    f(X)
    f.save(tmp_path / "f.npz")
    loaded = nbad.load(tmp_path / "f.npz")
    np.testing.assert_allclose(nbad.jacobian(loaded)(X), nbad.jacobian(f)(X), rtol=1e-12)
    np.testing.assert_allclose(nbad.hessian(loaded)(X), nbad.hessian(f)(X), rtol=1e-12)


@pytest.mark.parametrize("f", FUNCTIONS[:-1])
def test_rows_and_columns_agree(f: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cost in (ROWS, COLUMNS):
        monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
        found.append(nbad.jacobian(f)(X))
    assert found[0].dtype == found[1].dtype
    np.testing.assert_allclose(found[0], found[1], rtol=1e-13, atol=1e-14)


shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@settings(deadline=None, max_examples=25)
@given(a=shapes, b=shapes, dtype=st.sampled_from(["f4", "f8"]), by_rows=st.booleans())
def test_shapes_and_dtypes(a: Any, b: Any, dtype: str, by_rows: bool) -> None:
    x, y = np.full(a, 0.5, dtype), np.full(b, 2.0, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jacobians, "COLUMN_COST", ROWS if by_rows else COLUMNS)
        dx, dy = nbad.jacobian(lambda x, y: np.multiply.outer(x * x, y), wrt=(0, 1))(x, y)
    assert (dx.shape, dy.shape) == (a + b + a, a + b + b)
    assert dx.dtype == dy.dtype == np.dtype(dtype)
    expected = np.multiply.outer(np.eye(x.size) * 1.0, y.ravel()).transpose(0, 2, 1)
    np.testing.assert_array_equal(dx.ravel(), expected.ravel())
    np.testing.assert_array_equal(dy.ravel(), np.multiply.outer(x.ravel() ** 2, np.eye(y.size)).ravel())


def test_a_scalar_output_gives_the_gradient() -> None:
    def f(x: Any) -> Any:
        return np.sum(x**3)

    np.testing.assert_array_equal(nbad.jacobian(f)(X), nbad.grad(f)(X))
    found = nbad.jacobian(lambda x: x * x)(3.0)
    assert (found, type(found)) == (6.0, float)
    assert type(nbad.jacobian(lambda x: x * x)(np.float32(3.0))) is np.float32
    assert nbad.jacobian(lambda x: x * x)(np.array(3.0)).shape == ()
    assert nbad.jacobian(lambda x: np.exp(1j * x))(0.0) == 1j


def test_containers_in_and_out() -> None:
    def f(p: Any, y: Any) -> Any:
        return {"product": p["a"] * y, "pair": Pair(np.sum(p["b"][0]), None)}

    found = nbad.jacobian(f, wrt=("p", "y"))({"a": X, "b": [Y[:2]]}, Y)
    assert tree.paths(found) == [
        ("product", 0, "a"), ("product", 0, "b", 0), ("product", 1),
        ("pair", "a", 0, "a"), ("pair", "a", 0, "b", 0), ("pair", "a", 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(found["product"][0]["a"], np.diag(Y))
    np.testing.assert_array_equal(found["product"][0]["b"][0], np.zeros((3, 2)))
    np.testing.assert_array_equal(found["product"][1], np.diag(X))
    np.testing.assert_array_equal(found["pair"].a[0]["b"][0], np.ones(2))


def test_keywords_defaults_aux_and_paths() -> None:
    def f(x: Any, *, scale: Any = 2.0) -> Any:
        return scale * x["u"] ** 2, "note"

    for g in (f, nbad.compile(f)):
        found, aux = nbad.jacobian(g, wrt="x.u", has_aux=True)({"u": X, "v": "any"}, scale=3.0)
        np.testing.assert_allclose(found, np.diag(6.0 * X))
        assert aux == "note"
    found, _ = nbad.jacobian(f, wrt="scale", has_aux=True)({"u": X})
    np.testing.assert_allclose(found, X**2)


@pytest.mark.parametrize("small", [1, jacobians.SMALL])
@pytest.mark.parametrize("cost", [ROWS, COLUMNS])
def test_keywords_of_compiled_functions(cost: float, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    monkeypatch.setattr(jacobians, "SMALL", small)
    f = nbad.compile(lambda p, y, *, scale: scale * p["a"] * y)
    found = nbad.jacobian(f, wrt=("p", "scale"))({"a": X, "b": Y}, Y, scale=2.0)
    np.testing.assert_allclose(found[0]["a"], 2.0 * np.diag(Y))
    np.testing.assert_array_equal(found[0]["b"], np.zeros((3, 3)))
    np.testing.assert_allclose(found[1], X * Y)
    found = nbad.jacobian(f, wrt="p.b")({"a": X, "b": Y}, Y, scale=2.0)
    np.testing.assert_array_equal(found, np.zeros((3, 3)))


def test_blocks_share_no_memory() -> None:
    one, other = nbad.jacobian(lambda x: x * x, wrt=(0, 0))(X)
    assert not np.shares_memory(one, other)
    blocks = tree.leaves(nbad.hessian(lambda x, y: np.sum(x) * np.sum(y * y), wrt=(0, 1, 0))(X[:1], Y))
    assert len(blocks) == 9
    for i, block in enumerate(blocks):
        assert not any(np.shares_memory(block, other) for other in blocks[:i])


# Complex numbers ------------------------------------------------------------------------------------
@pytest.mark.parametrize("cost", [ROWS, COLUMNS])
@pytest.mark.parametrize(
    "f",
    [
        lambda z: z * z * (1.0 + 2.0j),
        lambda z: np.fft.fft(z) * z[0],
        lambda z: np.outer(np.exp(z), np.ones(4)),
        lambda z: np.sum(1 / z),
    ],
)
def test_holomorphic(f: Any, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    for g in (f, nbad.compile(f)):
        found = nbad.jacobian(g, holomorphic=True)(Z)
        np.testing.assert_allclose(found, differences(f, Z), rtol=1e-7, atol=1e-8)
    found = nbad.jacobian(f, holomorphic=True)(Z.astype("c8"))
    assert found.dtype == np.complex64


@pytest.mark.parametrize(
    "f", [np.conj, lambda z: z * np.conj(z), lambda z: z + 1e-3 * np.real(z), lambda z: np.abs(z) * z]
)
def test_what_is_not_holomorphic_is_refused(f: Any) -> None:
    with pytest.raises(InputTypeError, match=r"not holomorphic in ([xz]|argument 0).*\n.*test_jacobians"):
        nbad.jacobian(f, holomorphic=True)(Z)


def test_complex_inputs_need_a_word() -> None:
    with pytest.raises(InputTypeError, match="holomorphic=True if it is"):
        nbad.jacobian(lambda z: z * z)(Z)
    with pytest.raises(InputTypeError, match="is real"):
        nbad.jacobian(lambda z: z * z, holomorphic=True)(X)
    with pytest.raises(InputTypeError, match="returned real numbers"):
        nbad.jacobian(np.abs, holomorphic=True)(Z)
    with pytest.raises(InputTypeError, match=r"nbad\.hvp"):
        nbad.hessian(lambda z: np.sum(np.abs(z) ** 2))(Z)


def test_the_real_view_of_a_complex_function_is_taken_with_ravel() -> None:
    vector, unravel = nbad.ravel(Z)

    def f(v: Any) -> Any:
        z = unravel(v)
        w = z * np.conj(z) * z
        return np.stack([np.real(w), np.imag(w)], -1)

    np.testing.assert_allclose(nbad.jacobian(f)(vector), differences(f, vector), rtol=1e-7, atol=1e-8)


# What is refused ------------------------------------------------------------------------------------
def test_bad_input_is_named() -> None:
    with pytest.raises(InputTypeError, match=r"jacobian: .*int"):
        nbad.jacobian(np.sin)(np.arange(3))
    with pytest.raises(WrtError, match="jacobian"):
        nbad.jacobian(np.sin, wrt=2)(X)
    with pytest.raises(InputTypeError, match=r"an array of dtype int.*\n.*test_jacobians.*\n.*has_aux"):
        nbad.jacobian(lambda x: (x, np.argsort(x)))(X)
    with pytest.raises(InputTypeError, match="no derivative: str"):
        nbad.jacobian(lambda x: (x, "text"))(X)
    with pytest.raises(NonScalarOutputError, match="hessian"):
        nbad.hessian(np.sin)(X)
    with pytest.raises(NonScalarOutputError):
        nbad.hessian(nbad.compile(np.sin))(X)


def test_a_write_inside_the_function_is_found() -> None:
    def f(x: Any, c: Any) -> Any:
        y = x * c
        c[0] = 7.0
        return y * y

    with pytest.raises(nbad.MutationError):
        nbad.jacobian(f)(X, Y.copy())


# Hessians -------------------------------------------------------------------------------------------
SCALARS = [
    lambda x: np.sum(x**3) * x[0],
    lambda x: np.sum(np.sin(x)) * np.prod(x),
    lambda x: np.linalg.norm(x) * np.var(x),
    lambda x: np.log(np.sum(np.exp(x))),
    lambda x: np.sum(np.abs(np.fft.rfft(x)) ** 4),
    lambda x: np.sum(nbad.convolve(x, x) ** 2),
    lambda x: np.sum(2.0 * x),
    lambda x: np.einsum("i,j,i->", x, x, np.tanh(x)),
]


@pytest.mark.parametrize("f", SCALARS)
def test_a_hessian_is_the_jacobian_of_the_gradient(f: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = nbad.hessian(f)(X)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, nbad.jacobian(nbad.grad(f))(X), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found, differences(nbad.grad(f), X), rtol=1e-6, atol=1e-7)
    compiled = nbad.compile(f)
    for small in (jacobians.SMALL, 1):  # recorded, and replayed
        monkeypatch.setattr(jacobians, "SMALL", small)
        for x in (X, X, X[::-1]):
            np.testing.assert_allclose(nbad.hessian(compiled)(x), nbad.hessian(f)(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("small", [1, jacobians.SMALL])
def test_blocks_of_several_arguments(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "SMALL", small)

    def f(p: Any, y: Any, s: Any) -> Any:
        return np.sum(p["w"] * y) ** 2 * s + np.sum(p["b"] ** 3)

    args = {"w": X, "b": Y[:2]}, Y, 2.0
    for g in (f, nbad.compile(f)):
        (ww, wb), (bw, bb) = ((row["w"], row["b"]) for row in nbad.hessian(g, wrt="p")(*args).values())
        np.testing.assert_allclose(ww, 4.0 * np.outer(Y, Y))
        np.testing.assert_array_equal(wb, np.zeros((3, 2)))
        np.testing.assert_array_equal(bw, np.zeros((2, 3)))
        np.testing.assert_allclose(bb, np.diag(6.0 * Y[:2]))
        (yy, ys), (sy, ss) = nbad.hessian(g, wrt=("y", "s"))(*args)
        assert (yy.shape, ys.shape, sy.shape, ss, type(ss)) == ((3, 3), (3,), (3,), 0.0, float)
        np.testing.assert_allclose(ys, 2.0 * np.sum(X * Y) * X)
        np.testing.assert_array_equal(sy, ys)


def test_float32_and_numbers() -> None:
    found = nbad.hessian(lambda x: np.sum(x**3))(X.astype("f4"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.diag(6 * X), rtol=1e-6)
    found = nbad.hessian(lambda x: x**3)(2.0)
    assert (found, type(found)) == (12.0, float)


# Counts ---------------------------------------------------------------------------------------------
def test_the_sweeps_of_a_jacobian_are_the_fewest() -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append(x)
        return np.sin(x) * np.sum(x)

    with nbad.report() as account:
        nbad.jacobian(f)(np.ones(6))
    assert (len(calls), account.sweeps) == (1, 1)  # minimum: all rows at once
    with nbad.report() as account:
        nbad.jacobian(lambda x: np.outer(f(x), np.ones(40)))(np.ones(6))
    assert (len(calls), account.sweeps) == (2, 1 + 1)  # one that is recorded, then all columns at once
    size = 5000  # too large for a batch
    with nbad.report() as account:
        nbad.jacobian(lambda x: np.array([1.0, 0.0, 0.0])[:, None] * f(x[:1]) + np.sum(x))(np.ones(size))
    assert account.sweeps == 3  # minimum: as many as rows
    with nbad.report() as account:
        nbad.jacobian(lambda x: np.sum(x) * np.ones(size))(np.ones(2))
    assert account.sweeps == 1 + 2  # one that is recorded, and the minimum: as many as columns


def test_a_block_that_does_not_exist_costs_nothing() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sin(x), np.exp(y), np.ones(50)

    with nbad.report() as account:
        nbad.jacobian(f, wrt=(0, 1))(X, Y)
    assert account.rules_run == {("sin", "x"): 1, ("exp", "x"): 1}


def test_half_of_a_hessian_is_computed() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(np.sin(x) * np.exp(y))

    with nbad.report() as account:
        nbad.hessian(f, wrt=(0, 1))(X, Y)
    assert account.sweeps == 1 + 2  # the gradient's own, and one for the rows of each leaf
    # Rows of x pull back through d sin / dx and exp, rows of y through exp only (twice: as value and as derivative).
    assert account.run("cos", "x") == 1
    with nbad.report() as only:
        nbad.hessian(f, wrt=1)(X, Y)
    assert ("sin", "x") not in only.rules_run
    assert ("cos", "x") not in only.rules_run


def test_a_hessian_vector_product_of_a_convolution_never_runs_a_pullback_of_the_kernel() -> None:
    def f(u: Any, v: Any) -> Any:
        return np.sum(nbad.convolve(u, v, mode="wrap") ** 3)

    u, v = np.linspace(0.1, 1.0, 8), np.array([1.0, 2.0, 0.5])
    for g in (nbad.hvp(f, wrt="u"), nbad.hvp(nbad.compile(f), wrt="u")):
        with nbad.report() as account:
            g(u, v, np.ones(8))
        assert account.run("filter", "v") == 0
    with nbad.report() as account:
        nbad.hessian(f, wrt="u")(u, v)
    assert account.run("filter", "v") == 0


# Nestings -------------------------------------------------------------------------------------------
def cubic(x: Any, y: Any) -> Any:
    return np.sum(x**3 * y) + np.prod(x) * np.sum(y * y)


def test_grad_of_a_function_of_an_inner_grad() -> None:
    def f(w: Any, x: Any) -> Any:  # a loss over parameters of the derivative in x
        inner = nbad.grad(lambda x: np.sum(np.tanh(w * x) * w))(x)
        return np.sum((inner - 1.0) ** 2)

    nbad.testing.check_grads(f, (X, Y / 4), wrt=(0, 1), order=2)
    np.testing.assert_allclose(nbad.grad(nbad.compile(f))(X, Y), nbad.grad(f)(X, Y), rtol=1e-12)


NESTINGS = [
    lambda x, v: nbad.jvp(nbad.grad(lambda x: cubic(x, Y)), (x,), (v,))[1],
    lambda x, v: nbad.vjp(nbad.grad(lambda x: cubic(x, Y)), x)[1](v),
    lambda x, v: nbad.vjp(lambda x: nbad.jvp(lambda x: cubic(x, Y), (x,), (v,))[1], x)[1](np.float64(1.0)),
    lambda x, v: nbad.grad(lambda x: nbad.jvp(lambda x: cubic(x, Y), (x,), (v,))[1])(x),
    lambda x, v: nbad.grad(lambda x: np.sum(nbad.grad(lambda x: cubic(x, Y))(x) * v))(x),
    lambda x, v: nbad.jvp(
        lambda t: nbad.grad(lambda x: cubic(x, Y))(x + t * v), (0.0,), (1.0,)
    )[1],
    lambda x, v: nbad.hessian(lambda x: cubic(x, Y))(x) @ v,
    lambda x, v: nbad.jacobian(lambda x: nbad.vjp(lambda x: cubic(x, Y), x)[1](np.float64(1.0)))(x) @ v,
    lambda x, v: nbad.jacobian(lambda t: nbad.grad(lambda x: cubic(x, Y))(x + t * v))(0.0),
    lambda x, v: nbad.hvp(lambda x: cubic(x, Y))(x, v),
]  # fmt: skip


@pytest.mark.parametrize("nesting", NESTINGS)
def test_every_way_to_a_hessian_vector_product(nesting: Any) -> None:
    v = np.array([1.0, -2.0, 0.5])
    gradient = nbad.grad(lambda x: cubic(x, Y))
    expected = differences(gradient, X) @ v
    np.testing.assert_allclose(nesting(X, v), expected, rtol=1e-7)
    np.testing.assert_allclose(nbad.compile(nesting)(X, v), expected, rtol=1e-7)


@pytest.mark.parametrize("nesting", NESTINGS)
def test_one_order_more(nesting: Any) -> None:
    v = np.array([1.0, -2.0, 0.5])
    found = nbad.jacobian(nesting)(X, v)
    np.testing.assert_allclose(found, differences(lambda x: nesting(x, v), X), rtol=1e-7, atol=1e-7)
    found = nbad.grad(lambda x: np.sum(nesting(x, v) * Y))(X)
    np.testing.assert_allclose(found, nbad.jacobian(nesting)(X, v).T @ Y, rtol=1e-11)


def test_third_derivatives() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.sin(x) * x**2)

    third = nbad.jacobian(nbad.hessian(f))(X)
    assert third.shape == (3, 3, 3)
    expected = (6 - X**2) * np.cos(X) - 6 * X * np.sin(X)
    np.testing.assert_allclose(np.einsum("iii->i", third), expected, rtol=1e-12)
    assert np.count_nonzero(third) == 3
    np.testing.assert_allclose(nbad.grad(nbad.grad(nbad.grad(lambda x: np.sin(x) * x**2)))(0.5), expected[0])


def test_tangents_of_different_orders_are_not_confused() -> None:
    inner = nbad.grad(lambda x: x * nbad.grad(lambda y: x + y)(2.0))
    assert inner(3.0) == 1.0
    assert nbad.jacobian(lambda x: x * nbad.jacobian(lambda y: x * y)(2.0))(3.0) == 6.0


def test_second_order_through_sin_squared_at_zero() -> None:
    assert nbad.hessian(lambda x: np.sin(x) ** 2)(0.0) == 2.0
    np.testing.assert_array_equal(nbad.jacobian(lambda x: np.sin(x) ** 2)(np.zeros(2)), np.zeros((2, 2)))


def test_compiling_a_matrix_of_derivatives() -> None:
    for function in (
        nbad.jacobian(lambda x: np.sin(x) * np.sum(x)),
        nbad.jacobian(lambda x: np.outer(np.sin(x), np.ones(9)) * np.sum(x)),
        nbad.hessian(lambda x: np.prod(x) ** 2),
    ):
        compiled = nbad.compile(lambda x, function=function: function(x))
        for x in (X, Y, X):
            np.testing.assert_allclose(compiled(x), function(x), rtol=1e-12)
        assert compiled.report().recordings == 1
