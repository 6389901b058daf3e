"""Norms and condition numbers: every one under the laws, and the choice at zero."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, REAL, Case, laws

import nbad

S = (3, 4, 2)
VECTOR_ORDERS = [None, 2, 1, np.inf, -np.inf, 3, 2.5, 0.5, -1]
MATRIX_ORDERS = [None, "fro", 1, -1, np.inf, -np.inf]


def signed(shape: tuple[int, ...]) -> Callable[..., np.ndarray]:
    """Return an argument whose elements have moduli 0.25, 0.5, 0.75 and so on: none is zero, and no two tie."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        size = int(np.prod(shape))
        moduli = 0.25 * (1 + rng.permutation(size)).reshape(shape)
        phases = rng.uniform(0, 2 * np.pi, shape)
        turn = np.exp(1j * phases) if dtype.kind == "c" else np.sign(np.cos(phases))
        return np.asarray(moduli * turn).astype(dtype)

    return draw


def norm(**options: Any) -> Callable[..., Any]:
    """Return ``np.linalg.norm`` with options."""

    def of(x: Any) -> Any:
        return np.linalg.norm(x, **options)

    return of


def vector_norm(**options: Any) -> Callable[..., Any]:
    """Return ``np.linalg.vector_norm`` with options."""

    def of(x: Any) -> Any:
        return np.linalg.vector_norm(x, **options)

    return of


def matrix_norm(**options: Any) -> Callable[..., Any]:
    """Return ``np.linalg.matrix_norm`` with options."""

    def of(x: Any) -> Any:
        return np.linalg.matrix_norm(x, **options)

    return of


def normed(
    name: str, function: Callable[..., Any], shape: tuple[int, ...], dtypes: tuple[str, ...] = ("f4", "c16")
) -> Case:
    """Return the case of a norm; NumPy takes other routes to the same number."""
    return Case(name, function, [signed(shape)], dtypes=dtypes, exact=False)


def cond(p: Any) -> Callable[..., Any]:
    """Return ``np.linalg.cond`` with an order."""

    def of(x: Any) -> Any:
        return np.linalg.cond(x, p)

    return of


def apart(shape: tuple[int, ...]) -> Callable[..., np.ndarray]:
    """Return an argument: matrices whose singular values are far apart; columns and rows differ in their sums."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        x = rng.uniform(0.1, 0.4, shape)
        if dtype.kind == "c":
            x = x * np.exp(1j * rng.uniform(0, 2 * np.pi, shape))
        for i in range(min(shape[-2:])):
            x[..., i, i] += [1.5, -3.0, 5.0][i % 3]
        return np.asarray(x).astype(dtype)

    return draw


def spectral(
    name: str, function: Callable[..., Any], shape: tuple[int, ...], dtypes: Any = ("f4", "c16")
) -> Case:
    """Return the case of a function of singular values."""
    return Case(name, function, [apart(shape)], dtypes=dtypes, exact=False)


def axes_norm(p: Any, *, keepdims: bool) -> Callable[..., Any]:
    """Return a norm over the last and the first axis."""

    def of(x: Any) -> Any:
        return np.linalg.norm(np.transpose(x, (2, 1, 0)), p, axis=(2, 0), keepdims=keepdims)

    return of


def normalized(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


OLD = np.lib.NumpyVersion(np.__version__) < "2.2.0"

CASES = [
    *(normed(f"norm {p}", norm(ord=p), (5,), REAL + COMPLEX) for p in VECTOR_ORDERS),
    *(normed(f"norm {p} axis", norm(ord=p, axis=1), S) for p in VECTOR_ORDERS),
    *(normed(f"norm {p} kept", norm(ord=p, axis=-1, keepdims=True), (3, 4)) for p in VECTOR_ORDERS),
    *(normed(f"matrix {p}", norm(ord=p), (3, 4)) for p in MATRIX_ORDERS),
    *(normed(f"matrix {p} axes", norm(ord=p, axis=(2, 0), keepdims=p != 1), S) for p in MATRIX_ORDERS),
    *(normed(f"matrix_norm {p}", matrix_norm(ord=p), S) for p in MATRIX_ORDERS[1:]),
    *(normed(f"vector_norm {p}", vector_norm(ord=p, axis=(0, 2)), S) for p in VECTOR_ORDERS[1:]),
    normed("norm of all", norm(), S),
    normed("norm of all kept", norm(keepdims=True), S),
    normed("vector_norm of all", vector_norm(), S),
    normed("vector_norm of three", vector_norm(axis=(0, 1, 3), keepdims=True), (2, 3, 2, 2)),
    normed("normalized", normalized, (3, 4)),
    *(spectral(f"matrix {p}", norm(ord=p), (3, 4), REAL + COMPLEX) for p in ("nuc", 2, -2)),
    *(spectral(f"matrix {p} axes", axes_norm(p, keepdims=p != 2), (3, 2, 3)) for p in ("nuc", 2, -2)),
    *(spectral(f"matrix_norm {p}", matrix_norm(ord=p, keepdims=True), (2, 3, 3)) for p in ("nuc", 2, -2)),
    # NumPy before 2.2 gives most condition numbers of complex matrices as complex numbers.
    *(
        spectral(f"cond {p}", cond(p), (2, 3, 3), REAL if OLD and p not in (None, 2, -2) else REAL + COMPLEX)
        for p in (None, 2, -2, "fro", "nuc", 1, -1, np.inf, -np.inf)
    ),
    spectral("cond tall", cond(None), (4, 3)),
]

TestLaws = laws(CASES)


# The choice at zero -------------------------------------------------------------------------------
@pytest.mark.parametrize("p", [None, 2, 1, np.inf, 3, 2.5, 0.5])
def test_a_norm_at_zero_has_gradient_zero(p: Any) -> None:
    value, gradient = nbad.value_and_grad(norm(ord=p))(np.zeros(3))
    assert value == 0.0
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_one_zero_row_does_not_disturb_the_others() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.linalg.norm(x, axis=1))

    gradient = nbad.grad(loss)(np.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-15)


def test_a_zero_element_of_a_norm_below_one() -> None:
    # (sqrt(1) + sqrt(4))**2: the derivative in the first element is infinite, the choice 0.
    assert nbad.grad(norm(ord=0.5))(np.array([0.0, 1.0, 4.0])).tolist() == [0.0, 3.0, 1.5]


def test_the_largest_elements_share() -> None:
    assert nbad.grad(norm(ord=np.inf))(np.array([2.0, -2.0, 1.0])).tolist() == [0.5, -0.5, 0.0]


def test_the_number_of_nonzero_elements_is_constant() -> None:
    def loss(x: Any) -> Any:
        count = np.linalg.norm(x, 0)
        assert type(count) is np.float64
        return count * x.sum()

    assert nbad.grad(loss)(np.array([0.0, 2.0, 3.0])).tolist() == [2.0, 2.0, 2.0]


def test_equal_singular_values_share() -> None:
    np.testing.assert_allclose(nbad.grad(norm(ord=2))(np.eye(2)), np.eye(2) / 2, atol=1e-15)
    np.testing.assert_allclose(nbad.grad(norm(ord="nuc"))(np.eye(2)), np.eye(2), atol=1e-15)


def test_the_condition_of_a_singular_matrix() -> None:
    with np.errstate(all="ignore"):
        value, gradient = nbad.value_and_grad(cond(None))(np.diag([1.0, 0.0]))
        assert value == np.inf
        assert not np.isfinite(gradient).all()
        assert nbad.vjp(cond(None), np.zeros((2, 2)))[0] == np.inf
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        nbad.vjp(cond(1), np.diag([1.0, 0.0]))
    with pytest.raises(np.linalg.LinAlgError, match="empty"):
        nbad.vjp(cond(None), np.zeros((0, 2)))


# Sizes and what is kept ---------------------------------------------------------------------------
def test_norms_of_nothing_and_of_numbers() -> None:
    value, gradient = nbad.value_and_grad(norm())(np.zeros((0, 3)))
    assert value == 0.0 and gradient.shape == (0, 3)
    assert nbad.value_and_grad(norm())(-3.0) == (3.0, -1.0)
    assert nbad.value_and_grad(vector_norm())(np.float32(-3.0)) == (3.0, -1.0)
    for p in (1, 2, np.inf, "fro", "nuc"):
        value, gradient = nbad.value_and_grad(norm(ord=p))(np.zeros((0, 3)))
        assert value == 0.0 and gradient.shape == (0, 3)


def test_a_norm_keeps_the_array_and_the_norm() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.linalg.norm(x, axis=1))

    with nbad.report() as account:
        nbad.grad(loss)(np.ones((100, 3)))
    # Minimum: the caller's own array, and a hundred norms.
    assert (account.bytes_kept, account.bytes_borrowed) == (100 * 8, 300 * 8)


# Refusals -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "match", "function"),
    [
        (ValueError, "Invalid norm order", norm(ord=3)),
        (ValueError, "Invalid norm order", norm(ord="fro", axis=0)),
        (ValueError, "Improper number", norm(axis=(0, 1, 2), ord=1)),
        (np.exceptions.AxisError, "axis 2", norm(axis=2)),
    ],
)
def test_what_is_wrong_or_has_no_rule(
    error: type[Exception], match: str, function: Callable[..., Any]
) -> None:
    x = np.ones((2, 2, 2)) if "Improper" in match else np.ones((2, 2))
    with pytest.raises(error, match=match):
        nbad.grad(function)(x)
