"""Kernels that write into their arguments: nothing is silently detached, nothing is lost."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.scalar.writes import arguments_written

X = np.array([1.0, 2.0, 3.0])


@numba.njit
def into(x, out, count):
    total = 0.0
    for i in range(x.size):
        out[i] = x[i] ** 2
        total += out[i] * x[i]
    count[0] += 1
    return total


@numba.njit
def scaled(x, w):
    w[0] *= 2.0
    return x[0] * x[1] * w[0]


@numba.njit
def itself(x):
    for i in range(1, x.size):
        x[i] += x[i - 1]
    return x[x.size - 1] ** 2


@numba.njit
def complex_into(z, out):
    out[0] = z[0] * z[1]
    return out[0].real


@numba.njit
def reads(x, y):
    return x[0] * y[1] + x[2] * y[0]


def test_a_kernel_by_itself_leaves_what_the_plain_call_leaves() -> None:
    for kernel in (into, nbad.njit(into)):
        out, count = np.zeros(3), np.zeros(1, int)
        np.testing.assert_allclose(nbad.grad(kernel)(X, out, count), 3 * X**2)
        np.testing.assert_array_equal(out, X**2)
        assert count[0] == 1


def test_an_argument_that_is_asked_for_is_not_changed() -> None:
    x = X.copy()
    np.testing.assert_allclose(nbad.grad(itself)(x), np.full(3, 12.0))
    np.testing.assert_allclose(nbad.hvp(itself)(x, np.array([1.0, 0.0, 0.0])), np.full(3, 2.0))
    np.testing.assert_array_equal(x, X)


def test_complex_numbers_written_into_arguments() -> None:
    z, out = np.array([1.0 + 2.0j, 3.0]), np.zeros(1, complex)
    np.testing.assert_allclose(nbad.grad(complex_into)(z, out), [3.0, 1.0 - 2.0j])
    assert out[0] == z[0] * z[1]
    kernel = nbad.njit(complex_into)
    with pytest.raises(nbad.DetachError, match="'out'"):
        nbad.grad(lambda z: kernel(2 * z, out))(z)
    found = nbad.grad(lambda z: kernel(2 * z, 0 * out + z[:1]))
    with pytest.raises(nbad.DetachError, match="'out'"):
        found(z)


def test_a_derivative_in_an_argument_is_refused_in_traced_code() -> None:
    kernel = nbad.njit(into)

    def plain(x: Any) -> Any:
        out = np.zeros(3)
        return kernel(2 * x, out, np.zeros(1, int)) + np.sum(out)

    def traced(x: Any) -> Any:
        out = 0 * x
        return kernel(2 * x, out, np.zeros(1, int)) + np.sum(out)

    def own(x: Any) -> Any:
        x = 2 * x
        return nbad.njit(itself)(x) + x[1]

    for function in (plain, traced, own):
        for transform in (nbad.grad(function), lambda x, f=function: nbad.hvp(f)(x, x)):  # type: ignore[misc]
            with pytest.raises(nbad.DetachError, match=r"writes into its argument '(out|x)'"):
                transform(X)


def test_plain_numbers_written_into_an_argument_reach_the_caller_once() -> None:
    kernel = nbad.njit(scaled)
    w = np.array([1.5, 0.0])

    def function(x: Any) -> Any:
        return kernel(2 * x, w)

    expected = np.array([[0.0, 12.0, 0.0], [12.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(nbad.hessian(function)(X), expected)
    assert w[0] == 3.0


def test_arguments_that_share_memory_are_refused_where_one_is_written() -> None:
    x = X.copy()
    for y in (x, x[::-1]):
        with pytest.raises(nbad.InputTypeError, match=r"'(x|out)', which shares memory"):
            nbad.grad(into)(x, y, np.zeros(1, int))
    for wrt, expected in ((0, [2.0, 0.0, 1.0]), ((0, 1), None)):
        found = nbad.grad(reads, wrt)(x, x)
        if expected is not None:
            np.testing.assert_allclose(found, expected)
        else:
            np.testing.assert_allclose(found[1], [3.0, 1.0, 0.0])


def helped(x, y, z):
    into(x, y, z)
    v = z.reshape(-1)[1:]
    v[:] = 1
    y = np.sin(x)
    y[0] = 1.0
    return y


def methods(x, y, z):
    pair = (x, z)
    p, q = pair
    q.sort()
    s = 0.0
    for one in y:
        s += one
    np.add(y, 1.0, p)
    return s


def recursive(x, n):
    if n > 0:
        x[0] = 1.0
        return recursive(x, n - 1)
    return 0.0


def listed(x, y):
    rows = [x]
    rows[0][0] = 1.0
    return y + 1.0


@pytest.mark.parametrize(
    ("function", "expected"), [(helped, {1, 2}), (methods, {0, 2}), (recursive, {0}), (listed, {0})]
)
def test_the_arguments_that_may_be_written_are_found(function: Any, expected: set[int]) -> None:
    assert expected <= arguments_written(numba.njit(function))
    if function is not methods:
        assert arguments_written(numba.njit(function)) == expected
