"""Arrays within kernels: elementwise expressions, reductions, products, what is made of arrays."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from tests.test_njit import copied, difference

RNG = np.random.default_rng(7)
X = RNG.random(6) + 0.5
C = RNG.random(6) + 0.3


@numba.njit
def elementwise(x, c):
    s = x[0] * 2.0
    y = s * x + c[0] - (x > 0.8) * x
    y += x
    y[1:3] *= 2
    y[2] += x[1]
    y[1:] -= x[:-1]
    z = np.zeros(6)
    z[1:] = x[:-1]
    z[:] += y
    w = np.empty((2, 6))
    w[:] = x
    w[1] = 3.0
    w[1, 2:4] = s
    w *= z
    np.multiply(w, x, w)
    v = np.empty(6)
    np.add(x, w[0], v)
    w[0] = v
    a = x.reshape(2, 3)
    b = a.T * c.reshape(3, 2) + a[0, 1] + np.fmax(a[0].reshape(3, 1), 0.9)
    u = np.maximum(w, 0.7 * y) + np.arctan2(w[0], x) + np.hypot(x, c) + np.minimum(x, c) + (-x)
    u[0, 1:] += u[0, :-1]
    u[1] += b.ravel() ** 3 + x**-2
    return u


@numba.njit
def fused(x, c):
    return x * c + np.sin(x) - 2.0 / x**2


@numba.njit
def reductions(x, c):
    m = x.reshape(2, 3)
    y = np.empty(15)
    y[0] = np.sum(x * c)
    y[1] = x.mean()
    y[2] = np.prod(x)
    y[3] = x.max() + np.min(x)
    y[4] = np.var(x)
    y[5] = m.T.std()
    y[6] = np.median(x)
    y[7] = np.nansum(m[:, 1:])
    y[8] = np.ptp(m)
    y[9] = np.linalg.norm(m)
    y[10] = np.linalg.norm(x[::2])
    y[11] = sum(x)
    y[12:] = np.sum(m, 0) * np.sum(m.T, axis=1) + np.cumsum(m)[:3] + x.cumprod()[3:] + m.sum(axis=1)[0]
    return y


@numba.njit
def curved(x, c):
    y = np.empty(2)
    y[0] = np.var(x) * np.prod(x)
    y[1] = x.max() * np.linalg.norm(x) + np.sum(x)
    return y * (np.cumsum(x) @ c)


@numba.njit
def products(x, c):
    m = x.reshape(2, 3)
    n = c.reshape(3, 2)
    p = np.zeros((2, 2))
    np.dot(m, n, p)
    q = np.dot(n, m)
    z = np.dot(x, c) + x @ x + np.vdot(x, x) + np.trace(m.T @ m) + np.trace(m, 1)
    v = m @ c[:3] + c[:2] @ p + np.dot(n.T, x[1:4])
    return np.outer(v, q[0]).ravel() * z + np.kron(m[:1], x[:2].reshape(2, 1)).ravel() + np.kron(x[:2], c[:3])


@numba.njit
def places(x, c):
    y = np.zeros(6)
    y[np.argmax(x)] = x[x.argmin()]
    y[np.searchsorted(np.sort(c), x[0]) - 1] += x[1]
    if np.any(x > 1) and (x > 0).all():
        y[2] += x[2]
    order = np.argsort(x)
    for k in range(3):
        y[order[k]] += x[k] * k
    if np.allclose(x, x):
        y[1] *= x[0]
    y[0] += np.count_nonzero(x) * x[0]
    return y


@numba.njit
def long_sums(x, c):
    return np.sum(x) * np.dot(x, c)


@numba.njit
def joined(x, c):
    y = np.concatenate((x, c))
    y[0] = 3.0 * x[1]
    y[7] = x[2] * 2.0
    y[1:] += y[:-1]
    z = np.zeros(2)
    z[0] = np.sum(y) * np.dot(y, y)
    z[1] = np.max(y)
    return z


@numba.njit
def made(x, c):
    y = np.empty_like(x)
    y[0] = x[1]
    f = np.full(6, 2.0 * x[0]) + np.full_like(x, 0.5) + np.full_like(c, x[1])
    w = np.where(x > 0.8, x, c) + np.where(c > 0.5, 1.0, x) + np.clip(x, 0.6, 0.9) + x.clip(0.7, None)
    v = np.sort(x)
    u = x.astype(np.float64) * (3.0 * x).astype(np.int64) * float(x[2])
    y[1:] = 1.0
    return np.concatenate((y * f, w, v, u, np.hstack((x, c)), np.append(x, 1.0)))


def weighed(kernel: Any, shape: Any) -> Any:
    weights = np.random.default_rng(1).normal(size=shape)

    def loss(*args: Any) -> Any:
        return np.sum(kernel(*args) * weights)

    return loss


def check(kernel: Any, args: Any = (X, C), asked: Any = (0,), second: bool = False) -> None:
    """Compare value, gradient and perhaps second derivative with the plain kernel and differences of it.

    The gradient comes first: what numba compiles for it is not optimised by itself, and serves the plain kernel too.
    """
    shape = kernel.py_func(*copied(args)).shape
    taken = nbad.njit(kernel)
    for k in asked:
        value, gradient = nbad.value_and_grad(weighed(taken, shape), k)(*copied(args))
        assert value == weighed(kernel, shape)(*copied(args))
        np.testing.assert_allclose(
            gradient, difference(weighed(kernel, shape), args, k), rtol=1e-6, atol=1e-7
        )
    if second:
        direction = RNG.normal(size=args[0].shape)

        def along(t: float) -> Any:
            moved = args[0] + t * direction
            return nbad.grad(weighed(taken, shape))(moved, *copied(args[1:]))

        found = nbad.hvp(weighed(taken, shape))(*copied(args), direction)
        expected = (along(1e-6) - along(-1e-6)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "second"),
    [
        (elementwise, True),
        # Where compiling takes longest.
        pytest.param(reductions, False, marks=pytest.mark.slow),
        pytest.param(curved, True, marks=pytest.mark.slow),
        pytest.param(products, False, marks=pytest.mark.slow),
        (places, False),
        (joined, False),
        (made, False),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_gradients_agree_with_differences(kernel: Any, second: bool) -> None:
    check(kernel, second=second)


def entries(kernel: Any, *args: Any) -> int:
    shape = np.shape(kernel(*copied(args)))
    with nbad.report() as account:
        nbad.grad(weighed(nbad.njit(kernel), shape))(*copied(args))
    return account.entries


def test_an_expression_is_one_entry_for_an_element() -> None:
    assert entries(fused, X, C) == X.size


def test_long_sums_are_long_entries() -> None:
    """5 entries of up to 1,024 pairs for each of the sum and the dot, and their product."""
    x = np.linspace(0.0, 1.0, 5000)
    assert entries(long_sums, x, x.copy()) == 11
    np.testing.assert_allclose(
        nbad.grad(long_sums)(x, x.copy()), np.dot(x, x) + x.sum() * x, rtol=1e-12, atol=0
    )
