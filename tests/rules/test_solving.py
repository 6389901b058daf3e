"""Inverses and linear equations: laws, singular matrices, work done for each operand, NumPy's own errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, REAL, Case, laws

import nbad
from nbad.testing import assert_only

ALL = REAL + COMPLEX


def regular(shape: tuple[int, ...], spread: float = 0.4) -> Callable[..., np.ndarray]:
    """Return an argument: matrices that are small numbers around 1.5, -2 and 2.5 on the diagonal, in turn."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        x = rng.uniform(-spread, spread, shape)
        if dtype.kind == "c":
            x = x + 1j * rng.uniform(-spread, spread, shape)
        for i in range(min(shape[-2:])):
            x[..., i, i] += [1.5, -2.0, 2.5][i % 3]
        return np.asarray(x).astype(dtype)

    return draw


def lacking(shape: tuple[int, ...]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return arguments of two factors: their product, of `shape`, has rank 2."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        m, n = shape[-2:]
        return regular((*shape[:-2], m, 2))(rng, dtype), regular((*shape[:-2], 2, n))(rng, dtype)

    return draw


def cut_pinv(a: Any, b: Any) -> Any:
    return np.linalg.pinv(a @ b, rtol=1e-4)


def hermitian_pinv(x: Any) -> Any:
    return np.linalg.pinv(x, hermitian=True)


def least_squares(a: Any, b: Any) -> Any:
    x, left, _, s = np.linalg.lstsq(a, b)
    return x, left, s


def lacking_least_squares(a: Any, b: Any, c: Any) -> Any:
    return np.linalg.lstsq(a @ b, c, rcond=1e-4)[0]


def left_over(a: Any, b: Any) -> Any:
    return np.linalg.lstsq(a, b)[1]


def power(n: int) -> Callable[[Any], Any]:
    """Return ``np.linalg.matrix_power`` with an exponent."""

    def of(x: Any) -> Any:
        return np.linalg.matrix_power(x, n)

    return of


def solved(name: str, a: tuple[int, ...], b: tuple[int, ...], dtypes: Any = ("f8", "c16")) -> Case:
    return Case(name, np.linalg.solve, [regular(a), (b, -1.0, 1.0)], dtypes=dtypes)


def made(
    name: str, function: Any, shape: tuple[int, ...], dtypes: Any = ("f8", "c16"), **options: Any
) -> Case:
    return Case(name, function, [regular(shape)], dtypes=dtypes, **options)


def mixed(
    rng: np.random.Generator, dtype: np.dtype[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a real matrix and right-hand side, and complex ones."""
    real = np.zeros(0, dtype).real.dtype
    a, c = regular((4, 3))(rng, real), regular((4, 3))(rng, dtype)
    return a, rng.uniform(-1, 1, (4, 2)).astype(real), c, regular((4, 2))(rng, dtype)


def mixed_solutions(a: Any, b: Any, c: Any, d: Any) -> Any:
    return (
        np.linalg.solve(a[:3], d[:3]),
        np.linalg.solve(c[:3], b[:3]),
        *np.linalg.lstsq(a, d)[:2],
        *np.linalg.lstsq(c, b)[:2],
    )


def phase(x: Any) -> Any:
    return np.linalg.slogdet(x).sign


def modulus(x: Any) -> Any:
    return np.linalg.slogdet(x).logabsdet


def tensor_inverse(x: Any) -> Any:
    return np.linalg.tensorinv(np.reshape(x, (2, 3, 6)), 2), np.linalg.tensorinv(np.reshape(x, (6, 3, 2)), 1)


def tensor_solution(x: Any, b: Any) -> Any:
    return np.linalg.tensorsolve(np.reshape(x, (3, 2, 3, 2)), b)


def tensor_solution_of_axes(x: Any, b: Any) -> Any:
    x = np.transpose(np.reshape(x, (3, 2, 3, 2)), (2, 0, 3, 1))
    return np.linalg.tensorsolve(x, b, axes=(0, 2))


CASES = [
    made("inv", np.linalg.inv, (3, 3), ALL),
    made("inv stacked", np.linalg.inv, (2, 2, 3, 3)),
    solved("solve", (3, 3), (3, 2), ALL),
    solved("solve vector", (3, 3), (3,), ALL),
    solved("solve stacked", (2, 3, 3), (2, 3, 1)),
    solved("solve vector of a stack", (2, 3, 3), (3,)),
    solved("solve with one matrix", (3, 3), (2, 2, 3, 4)),
    solved("solve spread", (2, 1, 3, 3), (4, 3, 2)),
    made("det", np.linalg.det, (3, 3), ALL),
    made("det stacked", np.linalg.det, (2, 2, 3, 3)),
    made("slogdet", np.linalg.slogdet, (3, 3), ALL),
    made("slogdet stacked", np.linalg.slogdet, (2, 3, 3)),
    made("slogdet sign", phase, (3, 3), ("c16",)),
    made("slogdet modulus", modulus, (2, 3, 3)),
    made("pinv", np.linalg.pinv, (3, 3), ALL, exact=False),
    made("pinv tall", np.linalg.pinv, (2, 4, 3), exact=False),
    made("pinv wide", np.linalg.pinv, (3, 4), exact=False),
    made("pinv hermitian", hermitian_pinv, (2, 3, 3), exact=False),
    Case("pinv of rank 2", cut_pinv, lacking((2, 4, 3)), dtypes=("f8", "c16"), exact=False),
    Case("lstsq", least_squares, [regular((5, 3)), ((5, 2), -1.0, 1.0)], complex_ok=True, exact=False),
    Case(
        "lstsq vector", least_squares, [regular((5, 3)), ((5,), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False
    ),
    Case(
        "lstsq wide", least_squares, [regular((3, 5)), ((3, 2), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False
    ),
    Case("lstsq left", left_over, [regular((5, 3)), ((5, 2), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False),
    Case(
        "lstsq of rank 2",
        lacking_least_squares,
        [regular((4, 2)), regular((2, 3)), ((4, 2), -1.0, 1.0)],
        dtypes=("f8", "c16"),
        exact=False,
    ),
    Case("real and complex", mixed_solutions, mixed, dtypes=("c8", "c16"), exact=False),
    *(made(f"matrix_power {n}", power(n), (2, 3, 3), ("f4", "c16")) for n in (2, 3, 4, 5, 6, -1, -3)),
    made("tensorinv", tensor_inverse, (6, 6)),
    Case("tensorsolve", tensor_solution, [regular((6, 6)), ((3, 2), -1.0, 1.0)], dtypes=("f8", "c16")),
    Case("tensorsolve axes", tensor_solution_of_axes, [regular((6, 6)), ((3, 2), -1.0, 1.0)], dtypes=("f8",)),
]

TestLaws = laws(CASES)


# Singular matrices --------------------------------------------------------------------------------
def test_a_determinant_of_zero_has_the_cofactors_for_gradient() -> None:
    x = np.array([[1.0, 2.0], [2.0, 4.0]])
    np.testing.assert_allclose(nbad.grad(np.linalg.det)(x), [[4.0, -2.0], [-2.0, 1.0]], rtol=1e-13)
    np.testing.assert_array_equal(nbad.grad(np.linalg.det)(np.zeros((3, 3))), np.zeros((3, 3)))
    z = np.array([[1.0, 1j], [1j, -1.0]])

    def real_part(z: Any) -> Any:
        return np.real(np.linalg.det(z))

    np.testing.assert_allclose(nbad.grad(real_part)(z), [[-1.0, 1j], [1j, 1.0]], rtol=1e-13)


def test_one_singular_matrix_does_not_disturb_the_others() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.linalg.det(x))

    x = np.array([[[1.0, 2.0], [2.0, 4.0]], [[2.0, 1.0], [0.5, 3.0]]])
    expected = [[[4.0, -2.0], [-2.0, 1.0]], [[3.0, -0.5], [-1.0, 2.0]]]
    for f in (loss, nbad.compile(loss)):
        np.testing.assert_allclose(nbad.grad(f)(x), expected, rtol=1e-13)


def test_singular_matrices_raise_what_numpy_raises() -> None:
    x = np.ones((2, 2))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        nbad.vjp(np.linalg.inv, x)
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        nbad.vjp(np.linalg.solve, x, x)
    _, pullback = nbad.vjp(modulus, x)
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        pullback(np.float64(1.0))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        nbad.hvp(np.linalg.det)(x, x)


def test_the_sign_of_a_real_determinant_is_constant() -> None:
    assert nbad.grad(phase)(np.zeros((2, 2))).tolist() == [[0.0, 0.0], [0.0, 0.0]]


# What is kept, and what is done -------------------------------------------------------------------
N = 8 * 9


@pytest.mark.parametrize(
    ("function", "kept", "borrowed"),
    [(np.linalg.inv, N, 0), (np.linalg.det, 8, N), (modulus, 16, N), (np.linalg.pinv, N, N)],
)
def test_as_little_as_possible_is_kept(function: Any, kept: int, borrowed: int) -> None:
    assert_only(function, np.diag([1.0, 2.0, 4.0]), kept=kept, borrowed=borrowed, pullbacks=1)


@pytest.mark.parametrize(
    ("wrt", "rules", "kept"),
    [
        ("b", {("solve", "b"): 1}, 0),
        ("a", {("solve", "a"): 1}, N),
        (("a", "b"), {("solve", "a"): 1, ("solve", "b"): 1}, N),
    ],
)
def test_equations_are_solved_once_in_the_sweep(
    wrt: Any, rules: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    solve, inv = np.linalg.solve, np.linalg.inv

    def counted(*args: Any) -> Any:
        done.append("solve")
        return solve(*args)

    def inverted(*args: Any) -> Any:
        done.append("inv")
        return inv(*args)

    def equations(a: Any, b: Any) -> Any:
        return solve(a, b)

    monkeypatch.setattr(np.linalg, "solve", counted)
    monkeypatch.setattr(np.linalg, "inv", inverted)
    assert_only(
        equations, np.diag([1.0, 2.0, 4.0]), np.ones((3, 3)), wrt=wrt, rules=rules, kept=kept, borrowed=N
    )
    assert done == ["solve", "solve"]


def test_what_is_left_of_least_squares_needs_no_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.vander(np.arange(4.0), 2), np.array([1.0, 3.0, 2.0, 5.0])
    expected = nbad.grad(left_of_first)(a, b)
    monkeypatch.delattr(np.linalg, "pinv")
    np.testing.assert_array_equal(nbad.grad(left_of_first)(a, b), expected)


def left_of_first(a: Any, b: Any) -> Any:
    return left_over(a, b)[0]


def test_a_directional_derivative_of_an_inverse() -> None:
    x, v = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([[1.0, -1.0], [2.0, 0.5]])
    value, along = nbad.jvp(np.linalg.inv, (x,), (v,))
    np.testing.assert_allclose(along, -value @ v @ value, rtol=1e-14)
    value, along = nbad.jvp(np.linalg.det, (np.ones((2, 2)),), (v,))
    np.testing.assert_allclose((value, along), (0.0, 1.0 + 0.5 - 2.0 + 1.0), atol=1e-14)


# What NumPy's functions give ----------------------------------------------------------------------
def test_the_rank_of_least_squares_is_a_plain_integer() -> None:
    def loss(a: Any) -> Any:
        x, left, rank, _ = np.linalg.lstsq(a, np.ones(3))
        assert type(rank) is type(np.linalg.lstsq(np.eye(3), np.ones(3))[2])
        assert left.shape == (0,)
        return rank * np.sum(x)

    np.testing.assert_allclose(nbad.grad(loss)(np.eye(3)), -3 * np.ones((3, 3)), rtol=1e-13)


def test_powers_zero_and_one() -> None:
    x = np.array([[2.0, 1.0], [0.5, 3.0]])

    def loss(x: Any) -> Any:
        return np.sum(np.linalg.matrix_power(x, 1) * np.linalg.matrix_power(x, 0))

    assert nbad.grad(loss)(x).tolist() == np.eye(2).tolist()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 0)])
@pytest.mark.parametrize(
    "function", [np.linalg.inv, np.linalg.det, np.linalg.slogdet, np.linalg.pinv, power(-2)]
)
def test_matrices_without_elements(function: Any, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    value, pullback = nbad.vjp(function, x)
    for found, expected in zip(nbad.tree.leaves(value), nbad.tree.leaves(function(x)), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    gradient = pullback(value)
    assert (gradient.shape, gradient.dtype) == (shape, np.float32)


@pytest.mark.parametrize(
    ("error", "match", "function"),
    [
        (np.linalg.LinAlgError, "must be square", np.linalg.inv),
        (np.linalg.LinAlgError, "must be square", np.linalg.det),
        (np.linalg.LinAlgError, "must be square", power(2)),
        (np.linalg.LinAlgError, "must be square", power(0)),
        (ValueError, "Invalid ind", lambda x: np.linalg.tensorinv(x, 0)),
        (ValueError, "can't be both set", lambda x: np.linalg.pinv(x, 1e-3, rtol=1e-3)),
        (np.linalg.LinAlgError, "Incompatible", lambda x: np.linalg.lstsq(x, np.ones(3))),
        (np.linalg.LinAlgError, "prod", lambda x: np.linalg.tensorsolve(x, np.ones(2))),
        (ValueError, "mismatch", lambda x: np.linalg.solve(np.eye(3), x)),
    ],
)
def test_what_is_wrong(error: type[Exception], match: str, function: Any) -> None:
    with pytest.raises(error, match=match):
        nbad.vjp(function, np.ones((2, 3)))


def test_a_truncated_pseudo_inverse_is_refused_in_the_sweep() -> None:
    """The formula of Golub and Pereyra is for cutoffs that cut nothing but zeros: the gradient was another one."""
    a = np.diag([3.0, 2.0, 0.1])
    for function in (
        lambda a: np.linalg.pinv(a, rcond=0.5),
        lambda a: np.linalg.pinv(a, rtol=0.5, hermitian=True),
        lambda a: np.linalg.lstsq(a, np.ones(3), rcond=0.5)[0],
    ):
        assert np.array_equal(nbad.vjp(function, a)[0], function(a))
        for f in (function, nbad.compile(function)):
            with pytest.raises(nbad.NoRuleError, match="cuts off singular values"):
                nbad.grad(lambda a: np.sum(f(a)))(a)  # noqa: B023
    singular = np.diag([3.0, 2.0, 0.0])
    assert np.isfinite(nbad.grad(lambda a: np.sum(np.linalg.pinv(a)))(singular)).all()


def test_the_residuals_of_a_wide_matrix_are_none_and_so_is_their_gradient() -> None:
    """They are an empty array; its pullback returned a number instead of a matrix."""
    a, b = np.arange(15.0).reshape(3, 5) ** 2, np.ones(3)
    gradients = nbad.grad(lambda a, b: np.sum(np.linalg.lstsq(a, b)[1]), wrt=("a", "b"))(a, b)
    assert not gradients[0].any() and not gradients[1].any()
