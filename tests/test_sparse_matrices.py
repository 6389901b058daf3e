"""jacobian and hessian with sparse=True."""

import builtins
from typing import Any

import numpy as np
import pytest

import nbad
from nbad import jacobians, tree
from nbad.errors import InputTypeError

sparse = pytest.importorskip("scipy.sparse")

X = np.linspace(0.5, 1.5, 9)
BY_COLUMNS, BY_ROWS = 0.0, 1e9

FUNCTIONS = [
    np.sin,
    np.sum,
    lambda x: (x[1:] - x[:-1] ** 2) * np.exp(x[1:]),
    lambda x: np.outer(x, x[:3]).ravel(),
    lambda x: np.concatenate([x * x[0], x[2:4] ** 2]),
    lambda x: np.tile(x * np.roll(x, 1), 5),
    lambda x: nbad.convolve(x, np.array([1.0, 2.0, 1.0]), mode="wrap") * x,
    lambda x: np.exp(1j * x[1:]) * x[:-1],
    lambda x: np.cumsum(x) ** 2,
    lambda x: np.fft.rfft(x),
    lambda x: np.zeros(3),
    lambda x: np.reshape(x, (3, 3)) @ np.diag([1.0, 2.0, 3.0]),
    lambda x: x[:0],
]


def dense(matrix: Any) -> np.ndarray:
    assert isinstance(matrix, sparse.csr_array)
    assert matrix.has_canonical_format
    return matrix.toarray()


@pytest.mark.parametrize("cost", [BY_COLUMNS, BY_ROWS, jacobians.COLUMN_COST])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_a_sparse_jacobian_is_the_dense_one(f: Any, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    found = nbad.jacobian(f, sparse=True)(X)
    expected = nbad.jacobian(f)(X)
    assert found.shape == (np.size(f(X)), 9)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(dense(found), expected.reshape(found.shape), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_dtypes(dtype: str) -> None:
    found = nbad.jacobian(lambda x: x[1:] * x[:-1], sparse=True)(X.astype(dtype))
    assert found.dtype == np.dtype(dtype)
    assert nbad.hessian(lambda x: np.sum(x[1:] * x[:-1]), sparse=True)(X.astype(dtype)).dtype == np.dtype(
        dtype
    )


def test_containers_and_blocks() -> None:
    def f(p: Any, y: Any, s: Any) -> Any:
        return {"u": p["a"] * y[:, None], "v": [np.sum(y) * s, 2.0]}, "aux"

    args = {"a": np.ones((3, 2)), "b": np.ones(2)}, X[:3], 2.0
    for g in (f, nbad.compile(f)):
        found, aux = nbad.jacobian(g, wrt=("p", "y", "s"), sparse=True, has_aux=True)(*args)
        expected, _ = nbad.jacobian(f, wrt=("p", "y", "s"), has_aux=True)(*args)
        assert aux == "aux"
        assert tree.structure(found) == tree.structure(expected)
        for one, other in zip(tree.leaves(found), tree.leaves(expected), strict=True):
            np.testing.assert_allclose(dense(one), np.reshape(other, one.shape), rtol=1e-13)
        assert found["u"][0]["a"].nnz == 6
        assert found["u"][0]["b"].nnz == 0


@pytest.mark.parametrize("cost", [BY_COLUMNS, BY_ROWS])
def test_holomorphic(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobians, "COLUMN_COST", cost)
    z = X + 1j * X[::-1]
    f = lambda z: z[1:] ** 2 * z[:-1] * 1j  # noqa: E731
    found = nbad.jacobian(f, sparse=True, holomorphic=True)(z)
    np.testing.assert_allclose(dense(found), nbad.jacobian(f, holomorphic=True)(z), rtol=1e-13)


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


SCALARS = [
    rosenbrock,
    lambda x: np.sum(np.sin(x)),
    lambda x: np.sum(x[0] * x**3),
    lambda x: np.sum(x) ** 2,
    lambda x: np.sum(2.0 * x),
    lambda x: np.sum(np.diff(x, 2) ** 4) + np.prod(x[2:4]),
    lambda x: np.linalg.norm(np.reshape(x, (3, 3))[0]),
    lambda x: np.sum(np.where(x > 1.0, x**3, x)),
]


@pytest.mark.parametrize("f", SCALARS)
def test_a_sparse_hessian_is_the_dense_one(f: Any) -> None:
    expected = nbad.hessian(f)(X)
    for g in (f, nbad.compile(f)):
        found = nbad.hessian(g, sparse=True)(X)
        np.testing.assert_allclose(dense(found), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(found.toarray(), found.toarray().T)


def test_blocks_of_a_sparse_hessian() -> None:
    def f(x: Any, p: Any) -> Any:
        return np.sum(x**2 * p["w"]) + np.sum(p["b"] ** 3)

    args = X[:3], {"w": X[3:6], "b": X[:2]}
    (xx, xp), p = nbad.hessian(f, wrt=("x", "p"), sparse=True)(*args)
    np.testing.assert_allclose(dense(xx), np.diag(2 * X[3:6]))
    np.testing.assert_allclose(dense(xp["w"]), np.diag(2 * X[:3]))
    np.testing.assert_array_equal(dense(p["w"][0]), dense(xp["w"]))
    assert (xp["b"].shape, xp["b"].nnz) == ((3, 2), 0)
    np.testing.assert_allclose(dense(p["b"][1]["b"]), np.diag(6 * X[:2]))


# The pattern belongs to the call --------------------------------------------------------------------
def test_a_branch_has_a_pattern_of_its_own() -> None:
    def f(x: Any) -> Any:
        return x * np.roll(x, 1) if x[0] > 0 else x * np.sum(x)

    function = nbad.jacobian(f, sparse=True)
    for x in (X, -X, X, -X, X[:4]):
        np.testing.assert_allclose(dense(function(x)), nbad.jacobian(f)(x), rtol=1e-13)
    assert function(X).nnz == 18


def test_indices_that_depend_on_the_data() -> None:
    def f(x: Any) -> Any:
        return x[np.argsort(x)] * x[x > 1.0][0]

    function = nbad.jacobian(f, sparse=True)
    for x in (X, X[::-1].copy(), np.roll(X, 4)):
        np.testing.assert_allclose(dense(function(x)), nbad.jacobian(f)(x), rtol=1e-13)


def test_the_colouring_is_kept_while_the_pattern_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return color(*args)

    color = nbad.sparse_matrices.color_symmetric
    monkeypatch.setattr(nbad.sparse_matrices, "color_symmetric", counted)
    function = nbad.hessian(rosenbrock, sparse=True)
    for x in (X, 2 * X, X + 1.0):
        np.testing.assert_allclose(dense(function(x)), nbad.hessian(rosenbrock)(x), rtol=1e-12)
    assert len(calls) == 1
    function(X[:5])
    assert len(calls) == 2


# Counts ---------------------------------------------------------------------------------------------
def test_a_banded_function_of_a_hundred_thousand_variables_costs_a_handful_of_sweeps() -> None:
    x = np.linspace(0.0, 1.0, 100_000)
    with nbad.report() as account:
        found = nbad.jacobian(lambda x: (x[2:] - x[1:-1] * x[:-2]) ** 2, sparse=True)(x)
    assert account.sweeps == 3  # minimum: three entries a row
    assert found.nnz == 3 * 99_998
    with nbad.report() as account:
        found = nbad.hessian(rosenbrock, sparse=True)(x)
    assert account.sweeps == 1 + 3  # minimum: that of the gradient, and three for a tridiagonal matrix
    np.testing.assert_allclose(found.diagonal()[1:-1], (1200 * x**2 + 202)[1:-1] - 400 * x[2:], rtol=1e-12)
    with nbad.report() as account:
        found = nbad.hessian(lambda x: np.sum(x[0] * x**2), sparse=True)(x)
    assert account.sweeps == 1 + 2  # minimum: two colours, though a row is full
    assert found.nnz == 3 * x.size - 2


def test_a_tall_or_wide_matrix_is_compressed_the_short_way() -> None:
    with nbad.report() as account:
        nbad.jacobian(lambda x: np.sum(x.reshape(100, 100), axis=1), sparse=True)(np.ones(10_000))
    assert account.sweeps == 1  # rows do not overlap
    with nbad.report() as account:
        nbad.jacobian(lambda x: np.repeat(np.sin(x), 100), sparse=True)(np.ones(100))
    assert account.sweeps == 1 + 1  # columns do not overlap; the pullback is recorded first


# What is refused ------------------------------------------------------------------------------------
def test_a_sparse_matrix_carries_no_derivative() -> None:
    with pytest.raises(
        InputTypeError, match=r"(x|argument 0) is traced.*\n.*test_sparse_matrices.*\n.*sparse=False"
    ):
        nbad.grad(lambda x: nbad.jacobian(np.sin, sparse=True)(x).sum())(X)
    with pytest.raises(InputTypeError, match="hessian: sparse=True"):
        nbad.grad(lambda x: nbad.hessian(rosenbrock, sparse=True)(x).sum())(X)


def test_scipy_is_needed_only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_scipy(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    assert nbad.jacobian(np.sin)(X).shape == (9, 9)
    with pytest.raises(
        InputTypeError, match=r"sparse=True needs SciPy.*\n.*test_sparse.*\n.*pip install scipy"
    ):
        nbad.jacobian(np.sin, sparse=True)(X)
    with pytest.raises(InputTypeError, match="needs SciPy"):
        nbad.hessian(rosenbrock, sparse=True)(X)
