"""Functions within kernels: extrema, even steps, interpolation, linear equations, complex arrays, precision."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from tests.test_njit_arrays import C, X, check
from tests.test_njit_complex import difference, loss_of


@numba.njit
def extrema(x, c):
    """Two, three and more numbers, of several kinds."""
    y = np.empty(10)
    y[0] = max(x[0], x[1]) * min(x[0], 0.1)
    y[1] = max(x[0], c[1], 1, x[2]) + min(x[3], 7, x[4])
    y[2] = max(1, 2, x[0], x[1] + 2.5) * min(x[5], 2)
    y[3], y[4] = divmod(x[0], 0.3)
    y[5] = divmod(3.0, x[1])[1] * x[0]
    y[6:8] = np.where(x[0] > 0.2, x[:2], c[:2])
    y[8] = np.where(c[0] > 0.2, x[2], 1.0)[()]
    y[9] = np.sum(np.round(x, 1) * x) + np.around(x[0], 1) * x[1]
    return y


@numba.njit
def sampled(x, c):
    points = np.cumsum(c)
    first = np.linspace(c[0], x[0], 4) + np.linspace(x[1], x[0] * x[2], 4)
    second = np.arange(x[0], 9.0, x[1])[:4] + np.arange(0, x[0] * 9, 1)[1] + np.arange(x[0], 20.0)[2]
    third = np.interp(x * 2.0, points, c) * np.interp(
        np.array([-1.0, 0.7, 1.1, 1.6, 9.0, 2.2]), np.cumsum(x), x
    )
    return np.concatenate(
        (first, second * np.arange(x[0] * 9).size, third, x * np.interp(x[0] * 1.3, points, x))
    )


@numba.njit
def solved(x, c):
    a = x[:4].reshape((2, 2))
    b = c[:4].reshape((2, 2))
    y = np.linalg.solve(a, c[4:]) + np.linalg.solve(b, x[4:])
    z = np.linalg.solve(a, x[2:].reshape((2, 2))) @ np.linalg.inv(a)
    y[0] *= np.linalg.det(a) + np.linalg.slogdet(a)[1]
    return np.concatenate((y, z.ravel()))


@numba.njit
def determinant(x, corner):
    a = np.zeros((3, 3))
    a[0, 0] = x[0]
    a[1, 1] = x[1]
    a[2, 2] = corner
    return np.linalg.det(a)


@pytest.mark.parametrize(
    ("kernel", "second"),
    [
        (extrema, False),
        pytest.param(sampled, False, marks=pytest.mark.slow),
        pytest.param(solved, False, marks=pytest.mark.slow),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_gradients_agree_with_differences(kernel: Any, second: bool) -> None:
    check(kernel, second=second)


def test_the_determinant_of_a_singular_matrix_has_its_cofactors_for_derivatives() -> None:
    assert nbad.grad(determinant, 1)(np.array([2.0, 3.0]), 0.0) == 6.0


@numba.njit
def curved(x, c):
    a = x[:4].reshape((2, 2))
    z = x[:4] + 1j * c[:4]
    y = np.linalg.solve(a, x[4:])[0] + np.linalg.det(a) * np.linalg.inv(a)[0, 1]
    return y * np.interp(x[2], x[:2], x[4:]) + (np.dot(z, z) * np.prod(z)).imag


@pytest.mark.slow
def test_second_derivatives_of_equations_interpolation_and_complex_products_agree_with_differences() -> None:
    direction = np.array([0.3, -0.2, 0.5, 0.1, -0.4, 0.7])
    found = nbad.hvp(curved)(X, C, direction)
    plain, v, step = curved.py_func, 1e-4 * direction, 1e-4 * np.eye(6)
    moves = [
        plain(X + e + v, C) - plain(X + e - v, C) - plain(X - e + v, C) + plain(X - e - v, C) for e in step
    ]
    np.testing.assert_allclose(found, np.array(moves) / 4e-8, rtol=1e-5, atol=1e-5)


@numba.njit
def joined(x, c):
    """Variables that are first plain arrays and then active ones, and perhaps views."""
    y = np.ones(6)
    for _ in range(2):
        y = y * x + c
    z = c[::-1]
    if x[0] > 0.1:
        z = x[1:] * 2.0
    w = np.zeros(6)
    u = w[1:]
    if x[0] > 10.0:
        u = x[1:] * 3.0
    u[0] = 3.0
    y[:5] += z * u
    return y + w * x


def test_a_variable_is_a_plain_array_before_it_is_an_active_one() -> None:
    check(joined)


@numba.njit
def running(x):
    return np.nancumsum(x)  # here


def test_what_numba_does_not_implement_is_refused_in_a_sentence() -> None:
    with pytest.raises(nbad.NoRuleError, match="numba fails on something in it"):
        nbad.jacobian(running)(X)


# Complex arrays ---------------------------------------------------------------------------------
@numba.njit
def complex_elements(z, x):
    y = z * z + np.exp(z) * x - (2j * z) / x + z**2 + 1j * x
    y[1:] -= np.conj(z[:-1]) * np.abs(z[0])
    y *= z
    y += x
    return np.where(z.real > x - 0.5, y, 1j * z) * (1j * x[0]), np.abs(y) ** 2 + y.imag


@numba.njit
def complex_reductions(z, x):
    a = z.reshape((2, 2))
    y = np.zeros(8, np.complex128)
    y[0] = np.sum(z * x) + z.mean() * np.prod(z)
    y[1] = np.dot(z, z) + np.vdot(z, 1j * z) * (z @ (x * (1 + 0j)))
    y[2:4] = np.sum(a, axis=1) * np.linalg.norm(a)
    y[4:] = (a @ a).ravel() + np.cumsum(z)
    return y


Z = np.array([0.4 + 0.3j, -0.6 + 0.8j, 0.7 - 0.2j, 0.1 + 0.9j])


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(complex_elements, marks=pytest.mark.slow),
        pytest.param(complex_reductions, marks=pytest.mark.slow),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_expressions_of_complex_arrays_agree_with_differences(kernel: Any) -> None:
    """Such as ``np.sum(z)``, which took half of the indices for values."""
    args = Z, X[:4]
    value, gradients = nbad.value_and_grad(loss_of(nbad.njit(kernel)), (0, 1))(*args)
    assert value == loss_of(kernel)(*args)
    for k, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, difference(loss_of(kernel), args, k), rtol=1e-6, atol=1e-8)


# Single precision -------------------------------------------------------------------------------
@numba.njit
def single(x, c):
    half = np.float32(0.5)
    y = x**2 + np.sin(x) * half - np.maximum(x, c) / c
    y[0] = max(x[0], x[1], c[0]) * np.sum(x * c)
    y[1:3] += np.sort(x)[:2] * np.max(x)
    return np.concatenate((y, np.cumsum(x))), x[0] * half, np.dot(x, c), x.mean()


def test_single_precision_stays() -> None:
    x, c = X.astype(np.float32), C.astype(np.float32)
    kinds = [np.asarray(leaf).dtype for leaf in nbad.tree.leaves(single(x, c))]
    seen = []

    def loss(x: Any, c: Any) -> Any:
        leaves = nbad.tree.leaves(nbad.njit(single)(x, c))
        seen.extend(leaf.dtype for leaf in leaves)
        return sum(np.sum(leaf**2) for leaf in leaves)

    for k in (0, 1):
        found = nbad.grad(loss, k)(x, c)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, nbad.grad(loss, k)(X, C), rtol=1e-4)
    assert kinds[0] == seen[0] == np.float32
    assert kinds[1:] == seen[1:4]


@numba.njit
def late(x, q):
    s = total = 0.0
    for i in range(3):
        m = np.exp(q * s + 1.0)
        total += m[i] * m.sum()
        s = s * 0.5 + x[i]
    return total


def test_an_array_may_be_computed_with_a_number_that_the_loop_makes_active() -> None:
    x, q = np.array([0.3, 0.2, 0.5]), np.array([1.0, 2.0, 0.5])
    step = 1e-5
    moves = [late(x + step * e, q) - late(x - step * e, q) for e in np.eye(3)]
    np.testing.assert_allclose(nbad.grad(late)(x, q), np.array(moves) / (2 * step), rtol=1e-7, atol=1e-7)
    steps = [nbad.grad(late)(x + step * e, q) - nbad.grad(late)(x - step * e, q) for e in np.eye(3)]
    np.testing.assert_allclose(nbad.hessian(late)(x, q), np.array(steps) / (2 * step), rtol=1e-6, atol=1e-5)
