"""linearize, and SciPy's optimisers and solvers on what nbad gives."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import nbad
from nbad import tree
from nbad.errors import InputTypeError, MutationError

X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])
Z = np.array([1.0 + 2.0j, 0.5 - 1.0j])


class Pair(NamedTuple):
    a: Any
    b: Any


def model(p: Any, y: Any) -> Any:
    return {"u": p["a"] * y * np.sum(p["b"]), "v": Pair(np.sum(y * y), p["b"][0] * 2.0)}


PRIMALS = {"a": X, "b": np.array([[1.0, 2.0]])}, Y
TANGENTS = {"a": Y, "b": np.array([[0.5, -1.0]])}, X


def same(found: Any, expected: Any) -> None:
    assert tree.structure(found) == tree.structure(expected)
    for one, other in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        assert type(one) is type(other)
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_products_are_those_of_jvp_and_vjp(compiled: bool) -> None:
    f = nbad.compile(model) if compiled else model
    value, linear = nbad.linearize(f, *PRIMALS)
    same(value, model(*PRIMALS))
    for scale in (1.0, 2.0):
        tangents = tree.map_leaves(lambda leaf, scale=scale: scale * leaf, TANGENTS)
        same(linear.jvp(*tangents), nbad.jvp(model, PRIMALS, tangents)[1])
        same(linear.vjp(value), nbad.vjp(model, *PRIMALS)[1](value))


@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_a_matrix_to_scipy(compiled: bool) -> None:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    f = nbad.compile(model) if compiled else model
    _, linear = nbad.linearize(f, *PRIMALS)
    operator = linalg.aslinearoperator(linear)
    assert operator.shape == linear.shape == (3 + 1 + 2, 3 + 2 + 3)
    assert operator.dtype == linear.dtype == np.float64
    matrix = operator @ np.eye(8)
    np.testing.assert_allclose(operator.T @ np.eye(6), matrix.T, rtol=1e-12)
    vector, unravel = nbad.ravel(PRIMALS)
    expected = nbad.jacobian(lambda v: np.concatenate([
        np.ravel(leaf) for leaf in tree.leaves(model(*unravel(v)))
    ]))(vector)  # fmt: skip
    np.testing.assert_allclose(matrix, expected, rtol=1e-12)
    b = np.arange(6.0)
    solution = linalg.lsmr(linear, b, atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(solution, np.linalg.lstsq(expected, b)[0], rtol=1e-7, atol=1e-9)


def test_complex_numbers_are_pairs_of_real_ones() -> None:
    def f(z: Any) -> Any:
        return z * np.conj(z[::-1]) * (1.0 + 2.0j)

    _, linear = nbad.linearize(f, Z)
    assert linear.shape == (4, 4)
    matrix = np.stack([linear.matvec(e) for e in np.eye(4)], -1)
    np.testing.assert_allclose(np.stack([linear.rmatvec(e) for e in np.eye(4)]), matrix, rtol=1e-12)
    step = 1e-6
    for e, column in zip(np.eye(4), matrix.T, strict=True):
        dz = nbad.ravel(Z)[1](e)
        expected = (f(Z + step * dz) - f(Z - step * dz)) / (2 * step)
        np.testing.assert_allclose(nbad.ravel(Z)[1](column), expected, rtol=1e-8, atol=1e-9)


def test_wrt_keywords_aux_and_float32() -> None:
    def f(x: Any, *, scale: Any) -> Any:
        return x["u"] * scale, "aux"

    for g in (f, nbad.compile(f)):
        value, linear, aux = nbad.linearize(
            g, {"u": X.astype("f4"), "n": 3}, wrt=("x.u", "scale"), scale=2.0, has_aux=True
        )
        assert (aux, value.dtype, linear.shape) == ("aux", np.float32, (3, 4))
        found = linear.jvp(np.ones(3, np.float32), 1.0)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 2.0 + X, rtol=1e-6)
        assert linear.matvec(np.ones((4, 1))).dtype == np.float64
        du, dscale = linear.vjp(np.ones(3, np.float32))
        assert du.dtype == np.float32
        assert (dscale, type(dscale)) == (3.0, float)
    _, linear = nbad.linearize(np.sin, 0.0)
    assert (linear.jvp(2.0), linear.vjp(3.0), linear.shape) == (2.0, 3.0, (1, 1))


def test_a_leaf_asked_for_twice_moves_once_for_each() -> None:
    _, linear = nbad.linearize(lambda x: x * x, X, wrt=(0, 0))
    np.testing.assert_allclose(linear.jvp(X, Y), 2 * X * (X + Y))


def test_the_function_runs_once_and_a_product_is_a_sweep() -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append(1)
        return np.sin(x) * np.sum(x)

    with nbad.report() as account:
        _, linear = nbad.linearize(f, X)
    assert account.sweeps == 0
    counts = []
    for product in (linear.jvp, linear.jvp, linear.vjp, linear.vjp):
        with nbad.report() as account:
            product(Y)
        counts.append(account.sweeps)
    assert counts == [2, 1, 1, 1]  # the pullback is recorded once; then the minimum
    assert calls == [1]


def test_gauss_newton_never_touches_what_is_not_asked_for() -> None:
    def f(u: Any, v: Any) -> Any:
        return nbad.convolve(u, v, mode="wrap") ** 2

    _, linear = nbad.linearize(f, np.linspace(0.1, 1.0, 8), np.array([1.0, 2.0, 0.5]), wrt="u")
    with nbad.report() as account:
        linear.vjp(linear.jvp(np.ones(8)))
    assert account.run("filter", "v") == 0


def test_it_can_be_used_inside_other_transformations() -> None:
    def f(x: Any) -> Any:
        value, linear = nbad.linearize(lambda x: x**3, x)
        return np.sum(linear.vjp(linear.jvp(value)))

    np.testing.assert_allclose(nbad.grad(f)(X), 9 * 7 * X**6, rtol=1e-12)
    np.testing.assert_allclose(nbad.grad(nbad.compile(f))(X), 9 * 7 * X**6, rtol=1e-12)


def test_what_does_not_fit_is_named() -> None:
    _, linear = nbad.linearize(model, *PRIMALS)
    with pytest.raises(InputTypeError, match="not of the structure of the primals"):
        linear.jvp(X)
    with pytest.raises(InputTypeError, match=r"tangent of shape \(2,\) was given for p.a of shape \(3,\)"):
        linear.jvp({"a": X[:2], "b": PRIMALS[0]["b"]}, Y)
    with pytest.raises(InputTypeError, match="not of the structure of the function's value"):
        linear.vjp(X)
    with pytest.raises(ValueError, match=r"vector of shape \(8,\)"):
        linear.matvec(np.ones(3))
    with pytest.raises(InputTypeError, match=r"linearize: .*no derivative"):
        nbad.linearize(lambda x: (x, 3), X)


@pytest.mark.parametrize("place", ["argument", "value"])
def test_writes_between_products_are_found(place: str) -> None:
    x = X.copy()
    _, linear = nbad.linearize(lambda x: np.exp(x) * x, x)
    value, after = nbad.linearize(np.exp, x)
    (x if place == "argument" else value)[0] = 7.0
    with pytest.raises(MutationError):
        (linear if place == "argument" else after).vjp(X)
    with pytest.raises(MutationError):
        (linear if place == "argument" else after).jvp(X)


# SciPy's optimisers ---------------------------------------------------------------------------------
def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "trust-krylov", "L-BFGS-B"])
def test_minimize_rosenbrock(method: str, compiled: bool) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    f = nbad.compile(rosenbrock) if compiled else rosenbrock
    second = {} if method == "L-BFGS-B" else {"hessp": nbad.hvp(f)}
    answer = optimize.minimize(nbad.value_and_grad(f), np.zeros(8), jac=True, method=method, **second)
    np.testing.assert_allclose(answer.x, np.ones(8), atol=1e-3)


def test_minimize_with_a_sparse_hessian() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    answer = optimize.minimize(
        nbad.value_and_grad(rosenbrock), np.zeros(50), jac=True, hess=nbad.hessian(rosenbrock, sparse=True),
        method="trust-constr", options={"maxiter": 400},
    )  # fmt: skip
    np.testing.assert_allclose(answer.x, np.ones(50), atol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "L-BFGS-B"])
def test_minimize_over_a_container_with_complex_leaves(method: str, compiled: bool) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    target = {"w": np.array([[1.0, -2.0]]), "z": np.array([1.0 + 2.0j]), "b": np.float32(0.5), "s": 3.0}

    def loss(p: Any) -> Any:
        return (
            np.sum((p["w"] - target["w"]) ** 2)
            + np.sum(np.abs(p["z"] ** 2 - target["z"] ** 2) ** 2)
            + (p["b"] - target["b"]) ** 2
            + (p["s"] - 3.0) ** 4
        )

    f = nbad.compile(loss) if compiled else loss
    start, unravel = nbad.ravel(
        {"w": np.zeros((1, 2)), "z": np.array([0.5 + 0.5j]), "b": np.float32(0.0), "s": 2.0}
    )

    def value_and_gradient(v: Any) -> Any:
        value, gradient = nbad.value_and_grad(f)(unravel(v))
        return value, nbad.ravel(gradient)[0]

    def product(v: Any, direction: Any) -> Any:
        return nbad.ravel(nbad.hvp(f)(unravel(v), unravel(direction)))[0]

    second = {} if method == "L-BFGS-B" else {"hessp": product}
    answer = optimize.minimize(value_and_gradient, start, jac=True, method=method, **second)
    found = unravel(answer.x)
    assert type(found["b"]) is np.float32
    np.testing.assert_allclose(found["w"], target["w"], atol=1e-3)
    np.testing.assert_allclose(found["z"], target["z"], atol=1e-3)
    np.testing.assert_allclose(found["b"], 0.5, atol=1e-3)
    np.testing.assert_allclose(found["s"], 3.0, atol=0.1)


def test_the_whole_of_it_may_be_differentiated_in_the_packed_vector() -> None:
    start, unravel = nbad.ravel({"w": X, "z": Z})

    def f(v: Any) -> Any:
        p = unravel(v)
        return np.sum(p["w"] ** 3) + np.sum(np.abs(p["z"]) ** 4)

    def loss(p: Any) -> Any:
        return np.sum(p["w"] ** 3) + np.sum(np.abs(p["z"]) ** 4)

    direction = np.linspace(-1.0, 1.0, start.size)
    np.testing.assert_allclose(
        nbad.grad(f)(start), nbad.ravel(nbad.grad(loss)(unravel(start)))[0], rtol=1e-12
    )
    product = nbad.hvp(loss)(unravel(start), unravel(direction))
    np.testing.assert_allclose(nbad.hessian(f)(start) @ direction, nbad.ravel(product)[0], rtol=1e-12)


def residual(x: Any) -> Any:
    return np.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])


@pytest.mark.parametrize("form", ["dense", "sparse", "operator"])
def test_least_squares(form: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    linalg = pytest.importorskip("scipy.sparse.linalg")

    def operator(x: Any) -> Any:
        return linalg.aslinearoperator(nbad.linearize(residual, x)[1])

    jac = {
        "dense": nbad.jacobian(residual),
        "sparse": nbad.jacobian(residual, sparse=True),
        "operator": operator,
    }[form]
    answer = optimize.least_squares(
        residual, np.zeros(20), jac=jac, tr_solver=None if form == "dense" else "lsmr"
    )
    np.testing.assert_allclose(answer.x, np.ones(20), atol=1e-6)
