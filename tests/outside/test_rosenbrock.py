"""Gradient, Hessian and their products of SciPy's Rosenbrock function, against those that SciPy has in closed form."""

import numpy as np
import pytest

import nbad

optimize = pytest.importorskip("scipy.optimize")
SIZES = (2, 3, 10, 100)


def drawn(n):
    return np.random.default_rng(n).uniform(-2, 2, (2, n))


def rosen(x):  # SciPy's own converts its argument to a plain array
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


FUNCTIONS = pytest.mark.parametrize("function", [rosen, nbad.compile(rosen)], ids=["eager", "compiled"])


@pytest.mark.parametrize("n", SIZES)
@FUNCTIONS
def test_gradient(function, n):
    x, _ = drawn(n)
    value, gradient = nbad.value_and_grad(function)(x)
    np.testing.assert_allclose(value, optimize.rosen(x), rtol=1e-14)
    np.testing.assert_allclose(gradient, optimize.rosen_der(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
@FUNCTIONS
def test_hessian(function, n):
    x, v = drawn(n)
    expected = optimize.rosen_hess(x)
    np.testing.assert_allclose(nbad.hessian(function)(x), expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(nbad.jacobian(nbad.grad(function))(x), expected, rtol=1e-12, atol=1e-10)
    sparse = nbad.hessian(function, sparse=True)(x)
    assert sparse.nnz == 3 * n - 2
    np.testing.assert_allclose(sparse.toarray(), expected, rtol=1e-12, atol=1e-10)
    found = nbad.hvp(function)(x, v)
    np.testing.assert_allclose(found, optimize.rosen_hess_prod(x, v), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("method", ["BFGS", "Newton-CG", "trust-ncg", "trust-exact"])
def test_minimum(method):
    needs = {"Newton-CG": {"hessp": nbad.hvp(rosen)}, "trust-ncg": {"hessp": nbad.hvp(rosen)}}
    options = needs.get(method, {"hess": nbad.hessian(rosen)} if method == "trust-exact" else {})
    found = optimize.minimize(
        nbad.value_and_grad(rosen), np.full(5, -0.5), jac=True, method=method, tol=1e-10, **options
    )
    np.testing.assert_allclose(found.x, np.ones(5), rtol=1e-6)
