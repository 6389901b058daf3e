"""jvp and hvp."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbad
from nbad import tree
from nbad.errors import InputTypeError, NonScalarOutputError, WrtError
from nbad.trace import is_traced

X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])
DX = np.array([1.0, -2.0, 0.5])
Z = np.array([1.0 + 2.0j, 0.5 - 1.0j])
DZ = np.array([0.3 + 0.1j, 1.0j])


class Pair(NamedTuple):
    a: Any
    b: Any


def difference(f: Any, x: Any, dx: Any, step: float = 1e-6) -> Any:
    return (f(x + step * dx) - f(x - step * dx)) / (2 * step)


# jvp ----------------------------------------------------------------------------------------------
FUNCTIONS = [
    np.sin,
    lambda x: x * x[::-1] + np.exp(x),
    lambda x: np.cumsum(x) / np.sum(x),
    lambda x: np.outer(x, x) @ x,
    lambda x: np.abs(np.fft.fft(x)) ** 2,
    lambda x: np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(x[::-1]), n=3),
    lambda x: np.linalg.norm(x) * np.var(x) + x @ np.outer(x, x),
    lambda x: np.where(x > 0.7, x**3, np.sqrt(x)),
    lambda x: np.concatenate([x, x[1:] * 2.0, np.ones(1)]),
    lambda x: np.sort(x)[..., None] * np.max(x),
    lambda x: nbad.convolve(x, np.array([1.0, 2.0])),
    lambda x: np.einsum("i,j->ij", x, np.tanh(x)),
]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_jvp_is_the_derivative_in_the_direction(f: Any) -> None:
    value, tangent = nbad.jvp(f, (X,), (DX,))
    np.testing.assert_allclose(value, f(X))
    np.testing.assert_allclose(tangent, difference(f, X, DX), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_jvp_and_vjp_are_adjoint(f: Any) -> None:
    value, tangent = nbad.jvp(f, (X,), (DX,))
    weight = np.cos(np.arange(value.size)).reshape(value.shape)
    _, pullback = nbad.vjp(f, X)
    np.testing.assert_allclose(np.sum(weight * tangent), np.sum(pullback(weight) * DX), rtol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda z: z * np.conj(z) * z,
        lambda z: np.abs(z) ** 2,
        lambda z: np.real(z) + 1j * np.real(z * z),
        lambda z: np.fft.ifft(np.fft.fft(z) ** 2),
        np.conj,
    ],
)
def test_complex_directions_are_real_linear(f: Any) -> None:
    for direction in (DZ, 1j * DZ):
        value, tangent = nbad.jvp(f, (Z,), (direction,))
        assert tangent.dtype == value.dtype
        np.testing.assert_allclose(tangent, difference(f, Z, direction), rtol=1e-7, atol=1e-8)


def test_a_real_input_of_a_complex_function() -> None:
    value, tangent = nbad.jvp(lambda x: np.exp(1j * x), (X,), (DX,))
    assert tangent.dtype == np.complex128
    np.testing.assert_allclose(tangent, 1j * DX * value)


def test_several_arguments_move_together() -> None:
    value, tangent = nbad.jvp(lambda x, y: x * y, (X, Y), (DX, X))
    np.testing.assert_array_equal(value, X * Y)
    np.testing.assert_allclose(tangent, DX * Y + X * X)


def test_lists_do_as_well_as_tuples() -> None:
    np.testing.assert_array_equal(nbad.jvp(lambda x: 2.0 * x, [X], [DX])[1], 2 * DX)


def test_containers_in_and_out() -> None:
    def f(p: Any, y: Any) -> Any:
        return {"product": p["a"] * y, "pair": Pair(np.sum(p["b"][0]), p["a"])}

    primals = ({"a": X, "b": [Y]}, Y)
    value, tangent = nbad.jvp(f, primals, ({"a": DX, "b": [X]}, X))
    assert tree.structure(value) == tree.structure(tangent) == tree.structure(f(*primals))
    np.testing.assert_allclose(tangent["product"], DX * Y + X * X)
    assert tangent["pair"].a == pytest.approx(np.sum(X))
    assert type(tangent["pair"].a) is np.float64
    np.testing.assert_array_equal(tangent["pair"].b, DX)


def test_what_has_no_tangent_stays_plain_and_may_be_anything() -> None:
    seen = []

    def f(p: Any, n: Any, mode: Any) -> Any:
        seen.append((is_traced(p["a"]), is_traced(p["b"]), n, mode))
        return p["a"] * p["b"] * n

    _, tangent = nbad.jvp(f, ({"a": X, "b": Y}, 3, "text"), ({"a": None, "b": DX}, None, None))
    np.testing.assert_allclose(tangent, 3 * X * DX)
    _, tangent = nbad.jvp(
        f, ({"a": X, "b": Y, "c": [1, {"d": "e"}]}, 2, ()), ({"a": DX, "b": None, "c": None}, None, None)
    )
    np.testing.assert_allclose(tangent, 2 * DX * Y)
    assert seen == [(False, True, 3, "text"), (True, False, 2, ())]


def test_none_in_a_container_is_a_container() -> None:
    _, tangent = nbad.jvp(lambda p: p[1] * 2.0, ((None, X),), ((None, DX),))
    np.testing.assert_array_equal(tangent, 2 * DX)


def test_numbers_give_numbers_of_their_kind() -> None:
    value, tangent = nbad.jvp(lambda x: x * x, (2.0,), (3.0,))
    assert (value, tangent, type(tangent)) == (4.0, 12.0, float)
    _, tangent = nbad.jvp(lambda z: z * z, (1.0j,), (1.0,))
    assert (tangent, type(tangent)) == (2.0j, complex)
    _, tangent = nbad.jvp(lambda x: x * x, (np.float32(2.0),), (1.0,))
    assert (tangent, type(tangent)) == (4.0, np.float32)
    _, tangent = nbad.jvp(lambda x: x * x, (np.array(2.0),), (np.array(1.0),))
    assert (float(tangent), tangent.shape) == (4.0, ())


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_tangents_have_the_dtype_of_the_value(dtype: str) -> None:
    value, tangent = nbad.jvp(lambda x: np.sin(x) * 2.0, (X.astype(dtype),), (DX.astype(dtype),))
    assert value.dtype == tangent.dtype == np.dtype(dtype)
    np.testing.assert_allclose(tangent, 2 * DX * np.cos(X), rtol=1e-5)


def test_tangents_of_integers_or_another_precision_are_cast() -> None:
    for direction in (np.array([1, 0, 2]), np.array([1, 0, 2], np.float32), [1.0, 0.0, 2.0]):
        if isinstance(direction, list):
            direction = np.array(direction)
        np.testing.assert_allclose(nbad.jvp(np.sin, (X,), (direction,))[1], np.cos(X) * [1, 0, 2])


def test_outputs_that_do_not_move_have_zero_tangents() -> None:
    def f(x: Any, y: Any) -> Any:
        return y * 1.0, x > 1.0, 3, 2.5, True, "text", None, Y.astype("c8"), np.float32(1)

    value, tangent = nbad.jvp(f, (X, Y), (DX, None))
    np.testing.assert_array_equal(tangent[0], np.zeros(3))
    np.testing.assert_array_equal(tangent[1], np.zeros(3, bool))
    assert tangent[2:7] == (0, 0.0, False, "text", None)
    assert tree.structure(tangent) == tree.structure(value)
    assert [type(t) for t in tangent[2:5]] == [int, float, bool]
    assert tangent[7].dtype == np.complex64
    assert type(tangent[8]) is np.float32
    np.testing.assert_array_equal(value[1], X > 1.0)


def test_the_value_may_be_the_argument_and_the_tangent_is_its_own_array() -> None:
    dx = DX.copy()
    value, tangent = nbad.jvp(lambda x: (x, x, x.reshape(1, 3)), (X,), (dx,))
    answers = list(tangent)
    for i, answer in enumerate(answers):
        assert answer.flags.writeable
        for other in [X, dx, *value, *answers[:i]]:
            assert not np.shares_memory(answer, other)
        np.testing.assert_array_equal(np.ravel(answer), DX)
        answer[...] = 9.0
    np.testing.assert_array_equal(dx, DX)


def test_unusual_layouts() -> None:
    base = np.arange(24.0).reshape(4, 6)
    read_only = base.copy()
    read_only.flags.writeable = False
    for x in (
        base[::2, ::3],
        base.T,
        base[::-1],
        np.asfortranarray(base),
        base[:, :0],
        base.astype(">f8"),
        read_only,
    ):
        value, tangent = nbad.jvp(lambda x: x * x, (x,), (x[::-1],))
        np.testing.assert_array_equal(tangent, 2 * x * x[::-1])
        np.testing.assert_array_equal(value, x * x)


def test_jvp_with_aux() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0
        return np.sum(y), {"y": y, "n": 3}

    value, tangent, aux = nbad.jvp(f, (X,), (DX,), has_aux=True)
    assert value == np.sum(2 * X)
    assert tangent == pytest.approx(np.sum(2 * DX))
    assert type(aux["y"]) is np.ndarray
    np.testing.assert_array_equal(aux["y"], 2 * X)
    with pytest.raises(InputTypeError, match=r"jvp: .*pair"):
        nbad.jvp(np.sum, (X,), (DX,), has_aux=True)


def test_a_jvp_in_one_operand_never_touches_the_other() -> None:
    u, v = np.ones((8, 8)), np.ones((3, 3))
    for call in (
        lambda: nbad.jvp(lambda u: nbad.convolve(u, v), (u,), (u,)),
        lambda: nbad.jvp(nbad.convolve, (u, v), (u, None)),
    ):
        with nbad.report() as report:
            call()
        assert report.rules_run["filter", "u"] == 1
        assert report.rules_run["filter", "v"] == 0


def test_a_jvp_runs_two_sweeps_and_no_rule_off_the_path() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sin(x) * y, np.exp(y)

    with nbad.report() as report:
        nbad.jvp(f, (X, Y), (DX, None))
    assert report.sweeps == 2
    assert report.rules_run["sin", "x"] == 1
    assert report.rules_run["exp", "x"] == 0


def test_the_sweep_of_zeros_gives_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, tangent = nbad.jvp(lambda x: x * np.sqrt(x), (np.array([0.25, 1.0]),), (np.ones(2),))
    np.testing.assert_allclose(tangent, [0.75, 1.5])


def test_a_vanishing_gradient_does_not_hide_the_second_derivative() -> None:
    # No rule may look at the value of a cotangent: here all of them are zeros in the first sweep.
    _, tangent = nbad.jvp(nbad.grad(lambda x: np.sin(x) ** 2), (0.0,), (1.0,))
    assert tangent == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("primals", "tangents", "words"),
    [
        ((X,), (1.0,), ["tangent", "x", "shape ()", "shape (3,)"]),
        ((X,), (DX * 1j,), ["complex128", "float64", "real part"]),
        ((X,), (np.array(["a", "b", "c"]),), ["<U1", "float64"]),
        ((X,), ([DX],), ["structure"]),
        ((X,), (), ["structure"]),
        ((X,), (DX, DX), ["structure"]),
        (({"a": X},), ({"b": DX},), ["structure"]),
        ((X,), (None,), ["no tangent"]),
        ((), (), ["no tangent"]),
        (X, DX, ["tuples", "(x,)"]),
        ((X,), DX, ["tuples"]),
        ((np.arange(3),), (DX,), ["int64", "x"]),
        (("text",), (DX,), ["str"]),
    ],
)
def test_wrong_tangents_are_refused(primals: Any, tangents: Any, words: list[str]) -> None:
    with pytest.raises(InputTypeError) as caught:
        nbad.jvp(lambda x: x, primals, tangents)
    for word in ["jvp: ", "test_directional.py", *words]:
        assert word in str(caught.value)


# Nesting ------------------------------------------------------------------------------------------
def test_gradient_of_a_jvp() -> None:
    got = nbad.grad(lambda x: nbad.jvp(lambda y: np.sum(y**3), (x,), (DX,))[1])(X)
    np.testing.assert_allclose(got, 6 * X * DX)
    got = nbad.grad(lambda d: nbad.jvp(lambda y: np.sum(y**3), (X,), (d,))[1])(DX)
    np.testing.assert_allclose(got, 3 * X**2)


def test_jvp_of_a_jvp() -> None:
    def inner(x: Any) -> Any:
        return nbad.jvp(np.sin, (x,), (Y,))[1]

    value, tangent = nbad.jvp(inner, (X,), (DX,))
    np.testing.assert_allclose(value, np.cos(X) * Y)
    np.testing.assert_allclose(tangent, -np.sin(X) * Y * DX)


def test_perturbations_are_not_confused() -> None:
    # d/dx x * (d/dy (x + y)) = 1, not 2
    _, tangent = nbad.jvp(lambda x: x * nbad.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))
    assert tangent == 1.0
    _, tangent = nbad.jvp(lambda x: x * nbad.jvp(lambda y: x * y, (2.0,), (1.0,))[1], (3.0,), (1.0,))
    assert tangent == 6.0


def test_third_order_in_directions() -> None:
    def first(x: float) -> Any:
        return nbad.jvp(lambda x: np.sin(2.0 * x), (x,), (1.0,))[1]

    def second(x: float) -> Any:
        return nbad.jvp(first, (x,), (1.0,))[1]

    assert nbad.jvp(second, (0.3,), (1.0,))[1] == pytest.approx(-8.0 * np.cos(0.6))


def test_vjp_of_a_jvp_and_of_an_hvp() -> None:
    _, pullback = nbad.vjp(lambda x, d: nbad.jvp(np.exp, (x,), (d,))[1], X, DX)
    gx, gd = pullback(Y)
    np.testing.assert_allclose(gx, np.exp(X) * DX * Y)
    np.testing.assert_allclose(gd, np.exp(X) * Y)
    _, pullback = nbad.vjp(lambda x, v: nbad.hvp(lambda x: np.sum(x**4))(x, v), X, DX)
    gx, gv = pullback(Y)
    np.testing.assert_allclose(gx, 24 * X * DX * Y)
    np.testing.assert_allclose(gv, 12 * X**2 * Y)


# hvp ----------------------------------------------------------------------------------------------
def quartic(x: Any, y: Any) -> Any:
    return np.sum(x**2 * y**2) + np.sum(x) * np.sum(y)


def test_hvp_in_one_argument() -> None:
    np.testing.assert_allclose(nbad.hvp(quartic)(X, Y, DX), 2 * Y**2 * DX)
    np.testing.assert_allclose(nbad.hvp(quartic, "y")(X, Y, DX), 2 * X**2 * DX)
    np.testing.assert_allclose(nbad.hvp(quartic, -1)(X, Y, DX), 2 * X**2 * DX)


def test_hvp_in_several_arguments() -> None:
    hx, hy = nbad.hvp(quartic, (0, 1))(X, Y, (DX, X))
    np.testing.assert_allclose(hx, 2 * Y**2 * DX + 4 * X * Y * X + np.sum(X))
    np.testing.assert_allclose(hy, 2 * X**2 * X + 4 * X * Y * DX + np.sum(DX))


def test_hvp_of_containers_and_paths() -> None:
    def f(p: Any, scale: Any = 2.0) -> Any:
        return np.sum(p["a"] ** 2 * p["b"][0]) * scale

    p = {"a": X, "b": [Y, "text"]}
    np.testing.assert_allclose(nbad.hvp(f, "p.a")(p, DX), 4 * Y * DX)
    np.testing.assert_allclose(nbad.hvp(f, "p.a")(p, DX, scale=1.0), 2 * Y * DX)
    ha, hb = nbad.hvp(f, ("p.a", "p.b.0"))(p, (DX, X))
    np.testing.assert_allclose(ha, 4 * Y * DX + 4 * X * X)
    np.testing.assert_allclose(hb, 4 * X * DX)
    got = nbad.hvp(lambda q: np.sum(q["a"] ** 3))({"a": X}, {"a": DX})
    np.testing.assert_allclose(got["a"], 6 * X * DX)


def test_hvp_of_numbers() -> None:
    got = nbad.hvp(lambda x: x**3)(2.0, 1.0)
    assert (got, type(got)) == (12.0, float)
    assert nbad.hvp(lambda x: np.sin(x) ** 2)(0.0, 1.0) == pytest.approx(2.0)


def test_hvp_of_a_linear_function_is_zero() -> None:
    np.testing.assert_array_equal(nbad.hvp(lambda x: np.sum(3.0 * x))(X, DX), np.zeros(3))
    np.testing.assert_array_equal(nbad.hvp(lambda x: 3.0)(X, DX), np.zeros(3))


def test_hvp_of_complex_leaves_is_real_linear() -> None:
    def f(z: Any) -> Any:
        return np.sum(np.abs(z * z + 1.0) ** 2)

    for direction in (DZ, 1j * DZ):
        got = nbad.hvp(f)(Z, direction)
        np.testing.assert_allclose(got, difference(nbad.grad(f), Z, direction), rtol=1e-6, atol=1e-7)
        product = nbad.grad(lambda z: np.sum(np.real(np.conj(nbad.grad(f)(z)) * direction)))(Z)  # noqa: B023
        np.testing.assert_allclose(got, product)


def test_hvp_is_the_jvp_of_the_gradient() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.exp(np.sin(x) * x[::-1])) + np.linalg.norm(x)

    _, expected = nbad.jvp(nbad.grad(f), (X,), (DX,))
    np.testing.assert_allclose(nbad.hvp(f)(X, DX), expected, rtol=1e-12)
    np.testing.assert_allclose(expected, difference(nbad.grad(f), X, DX), rtol=1e-7)


def test_gradient_of_an_hvp() -> None:
    got = nbad.grad(lambda x: np.sum(nbad.hvp(lambda y: np.sum(y**4))(x, DX)))(X)
    np.testing.assert_allclose(got, 24 * X * DX)


def test_hvp_skips_what_is_not_asked_for() -> None:
    u, v = np.ones((8, 8)), np.ones((3, 3))

    def loss(u: Any, v: Any) -> Any:
        return np.sum(nbad.convolve(u, v) ** 2)

    with nbad.report() as report:
        nbad.hvp(loss)(u, v, u)
    assert report.rules_run["filter", "u"] > 0
    assert report.rules_run["filter", "v"] == 0


def test_wrapped_functions_keep_their_name() -> None:
    assert nbad.hvp(quartic).__name__ == "quartic"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((X, Y, 1.0), ["direction", "x", "shape ()", "shape (3,)"]),
        ((X, Y, DX * 1j), ["complex128", "float64"]),
        ((X, Y, [DX]), ["structure", "hvp(f)(*args, v)"]),
        ((np.arange(3), Y, DX), ["int64"]),
        ((), ["direction is missing"]),
    ],
)
def test_wrong_directions_are_refused(args: Any, words: list[str]) -> None:
    with pytest.raises(InputTypeError) as caught:
        nbad.hvp(quartic)(*args)
    for word in ["hvp: ", "test_directional.py", *words]:
        assert word in str(caught.value)


def test_other_errors_name_hvp() -> None:
    with pytest.raises(NonScalarOutputError, match=r"hvp: .*shape"):
        nbad.hvp(np.sin)(X, DX)
    with pytest.raises(WrtError, match=r"hvp: .*'z'"):
        nbad.hvp(quartic, "z")(X, Y, DX)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=6), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
def test_polynomials(coefficients: list[float], x: float, dx: float) -> None:
    def f(x: Any) -> Any:
        total = 0.0 * x
        for c in coefficients:
            total = total * x + c
        return total

    first = np.polyder(np.array(coefficients))
    assert nbad.jvp(f, (x,), (dx,))[1] == pytest.approx(float(np.polyval(first, x)) * dx, abs=1e-9)
    assert nbad.hvp(f)(x, dx) == pytest.approx(float(np.polyval(np.polyder(first), x)) * dx, abs=1e-9)


# Functions that do something else than being transformed ------------------------------------------
class Hooked:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __nbad_transform__(self, kind: str, **details: Any) -> Any:
        self.asked.append((kind, details))
        return lambda *args, **kwargs: (kind, args, kwargs)


def test_a_function_is_asked_first_what_it_does_instead() -> None:
    f = Hooked()
    g: Any = f
    assert nbad.grad(g, "x")(X, y=1) == ("grad", (X,), {"y": 1})
    assert nbad.value_and_grad(g, has_aux=True)(1.0) == ("value_and_grad", (1.0,), {})
    assert nbad.vjp(g, 1.0, 2.0, y=3) == ("vjp", (1.0, 2.0), {"y": 3})
    assert nbad.vjp(g, 1.0, wrt="x", has_aux=True) == ("vjp", (1.0,), {})
    assert nbad.jvp(g, (1.0,), (2.0,)) == ("jvp", ((1.0,), (2.0,)), {})
    assert nbad.hvp(g, 1)(1.0, 2.0) == ("hvp", (1.0, 2.0), {})
    assert f.asked == [
        ("grad", {"wrt": "x", "has_aux": False}),
        ("value_and_grad", {"wrt": 0, "has_aux": True}),
        ("vjp", {"wrt": ((0,), (1,)), "has_aux": False}),
        ("vjp", {"wrt": "x", "has_aux": True}),
        ("jvp", {"has_aux": False}),
        ("hvp", {"wrt": 1}),
    ]
