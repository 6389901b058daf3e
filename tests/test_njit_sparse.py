"""Sparse Jacobians and Hessians of kernels."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.scalar import interacting

X = np.linspace(0.5, 1.5, 150)


@numba.njit
def neighbours(x, w):
    y = np.zeros(x.size)
    for i in range(1, x.size):
        y[i] = x[i] * x[i - 1] ** 2 + w[0]
        if x[i] > 1.0:
            y[i] += w[i]
    return y


@numba.njit
def energy(x):
    total = 0.0
    for i in range(1, x.size):
        total += x[i] * x[i - 1] ** 2
    return total


def test_the_pattern_of_a_jacobian_is_that_of_the_tape() -> None:
    w = np.sin(X)
    for wrt, nonzeros in ((0, 2 * 149), (1, 149 + int(np.sum(X[1:] > 1.0)))):
        sparse = nbad.jacobian(neighbours, wrt, sparse=True)(X, w)
        np.testing.assert_allclose(sparse.toarray(), nbad.jacobian(neighbours, wrt)(X, w), rtol=1e-12)
        assert sparse.nnz == nonzeros
    kernel = nbad.njit(neighbours)

    def within(x: Any) -> Any:
        return np.flip(kernel(2 * x, x[::-1]))[:75] ** 2

    sparse = nbad.jacobian(within, sparse=True)(X)
    np.testing.assert_allclose(sparse.toarray(), nbad.jacobian(within)(X), rtol=1e-12)
    assert sparse.nnz < 5 * 75


@numba.njit
def bending(x, w):
    y = np.zeros(x.size)
    for i in range(x.size):
        y[i] = np.sin(x[i]) * w[i]
    total = 0.0
    for i in range(1, x.size - 1):
        d = y[i + 1] - 2 * y[i] + y[i - 1]
        if d > 0:
            total += d * d
        else:
            total += np.exp(-d) + x[i] * w[0]
    return total


def test_the_pattern_of_a_hessian_is_that_of_the_tape() -> None:
    found = nbad.hessian(energy, sparse=True)(X)
    np.testing.assert_allclose(found.toarray(), nbad.hessian(energy)(X), rtol=1e-12)
    # Three diagonals, but the first number of the diagonal; that of the last is not known to be zero.
    assert found.nnz == 3 * 150 - 2
    x, w = X[:40], np.cos(3 * X[:40])
    for wrt in (0, 1):
        found = nbad.hessian(bending, wrt, sparse=True)(x, w)
        expected = nbad.hessian(bending, wrt)(x, w)
        np.testing.assert_allclose(found.toarray(), expected, rtol=1e-10, atol=1e-12)
        assert found.nnz == np.count_nonzero(expected) < 5 * 40


def test_a_hessian_of_array_code_has_the_pattern_of_the_kernel_in_it() -> None:
    kernel = nbad.njit(bending)
    x = X[:40]

    def within(x: Any) -> Any:
        return kernel(2 * x, 2 * np.cos(3 * X[:40])) + np.sum(x**3)

    def both_ways(x: Any) -> Any:
        return kernel(x, x[::-1]) ** 2

    for f, most in ((within, 5 * 40), (both_ways, 40 * 40)):
        found = nbad.hessian(f, sparse=True)(x)
        np.testing.assert_allclose(found.toarray(), nbad.hessian(f)(x), rtol=1e-9, atol=1e-11)
        assert found.nnz <= most


@numba.njit
def one_for_all(x):
    product, linear = 1.0, 0.0
    for i in range(x.size):
        product *= x[i]
        linear += x[i]
    return product * np.sum(x[:3] * x[1:4]) + 3 * linear


def test_what_every_number_reaches_has_a_full_hessian() -> None:
    found = nbad.hessian(one_for_all, sparse=True)(X[:6])
    np.testing.assert_allclose(found.toarray(), nbad.hessian(one_for_all)(X[:6]), rtol=1e-12)
    assert found.nnz == 36


@numba.njit
def with_block(x):
    return np.sum(np.abs(np.fft.rfft(x)) ** 4)


def test_the_hessian_of_what_the_tape_has_no_pairs_for_is_dense() -> None:
    found = nbad.hessian(with_block, sparse=True)(X[:6])
    np.testing.assert_allclose(found.toarray(), nbad.hessian(with_block)(X[:6]), rtol=1e-9, atol=1e-12)


@numba.njit
def spread(x):
    return np.var(x)


@numba.njit
def product_of_halves(x):
    n = x.size // 2
    return np.dot(x[:n], x[n:])


@numba.njit
def solved(x):
    a = np.eye(2)
    a[0, 1] = x[0]
    return np.linalg.solve(a, x[1:])[0]


@numba.njit
def inverted(x):
    a = np.eye(3)
    a[0, 1], a[1, 2] = x[0], x[1]
    return np.linalg.inv(a)[0, 2] + x[2] ** 2


@pytest.mark.parametrize(
    ("kernel", "size"), [(spread, 1030), (product_of_halves, 2200), (solved, 3), (inverted, 3)]
)
def test_numbers_that_met_in_another_entry_did_not_interact(kernel: Any, size: int) -> None:
    x, v = np.linspace(0.5, 1.5, size), np.cos(np.arange(size))
    found = nbad.hessian(kernel, sparse=True)(x)
    np.testing.assert_allclose(found @ v, nbad.hvp(kernel)(x, v), rtol=1e-9, atol=1e-9)


@numba.njit
def power(x, n, m):
    z = np.fft.rfft(x, n)
    s = 0.0
    for i in range(m):
        s += z[i].real * z[i].real + z[i].imag * z[i].imag
    return s


def test_reading_a_tape_with_a_block_wrote_in_front_of_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    read, before, written = interacting._read, 20_000, []

    def guarded(chunk: int, end: int, entry: int, starts: Any, operands: Any, moves: Any) -> bool:
        longer = np.full(operands.size + before, -7, np.int64)
        flags = np.zeros(moves.size + before, bool)
        found = read(chunk, end, entry, starts, longer[before:], flags[before:])
        written.append(np.count_nonzero(longer[:before] != -7))
        return bool(found)

    monkeypatch.setattr(interacting, "_read", guarded)
    for n in (40_000, 40_002, 40_004, 40_006, 40_008):
        nbad.hessian(lambda x, n=n: nbad.njit(power)(x, n, 3000), sparse=True)(X[:6])
    assert written
    assert not any(written)
