"""Sparse Jacobians and Hessians of kernels."""

from typing import Any

import numba
import numpy as np

import nbad

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


def test_a_sparse_hessian_of_a_kernel_is_right() -> None:
    found = nbad.hessian(energy, sparse=True)(X[:6])
    np.testing.assert_allclose(found.toarray(), nbad.hessian(energy)(X[:6]), rtol=1e-12)
