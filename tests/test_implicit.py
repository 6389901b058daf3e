"""implicit_root: the derivative of a solver's answer, for one linear solve, and for nothing that was not asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import outputs_of

import nbad
from nbad import implicit_root

RNG = np.random.default_rng(0)
N = 12
B = RNG.standard_normal((20, N))
DATA = RNG.standard_normal(20)
WEIGHT = 0.3
STEP = 1e-6


def optimality(x: Any, weight: Any, data: Any) -> Any:
    """The gradient of (|B x - data|^2 + e^weight |x|^2) / 2 + 0.025 sum(x^4)."""
    return B.T @ (B @ x - data) + np.exp(weight) * x + 0.1 * x**3


def newton(weight: Any, data: Any, start: Any = None) -> Any:
    assert not isinstance(weight, nbad.trace.Traced)
    assert type(data) is np.ndarray
    x = np.zeros(N) if start is None else start
    for _ in range(30):
        jacobian = B.T @ B + np.exp(weight) * np.eye(N) + np.diag(0.3 * x**2)
        x = x - np.linalg.solve(jacobian, optimality(x, weight, data))
    return x


def differences(f: Callable[[float], Any], x: float, step: float = STEP) -> Any:
    return (f(x + step) - f(x - step)) / (2 * step)


def by_scipy(equations: Any, b: np.ndarray) -> np.ndarray:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    x, info = linalg.cg(linalg.aslinearoperator(equations), b, rtol=1e-12)
    assert info == 0
    return x


def by_least_squares(equations: Any, b: np.ndarray) -> np.ndarray:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    return linalg.lsmr(linalg.aslinearoperator(equations), b, atol=1e-14, btol=1e-14, conlim=0, maxiter=1000)[
        0
    ]


each_solve = pytest.mark.parametrize("solve", ["cg", "gmres", by_scipy, by_least_squares])


def squared(solution: Callable[..., Any]) -> Callable[..., Any]:
    return lambda weight, data: np.sum(np.sin(solution(weight, data)))


# Right ----------------------------------------------------------------------------------------------
@each_solve
def test_gradients(solve: Any) -> None:
    loss, plain = squared(implicit_root(optimality, newton, solve=solve)), squared(newton)
    weight, data = nbad.grad(loss, (0, 1))(WEIGHT, DATA)
    assert type(weight) is float
    np.testing.assert_allclose(weight, differences(lambda w: plain(w, DATA), WEIGHT), rtol=1e-7)
    for v in RNG.standard_normal((3, 20)):
        np.testing.assert_allclose(
            data @ v, differences(lambda t, v=v: plain(WEIGHT, DATA + t * v), 0.0), rtol=1e-6
        )


@each_solve
def test_jvp_is_the_adjoint(solve: Any) -> None:
    solution = implicit_root(optimality, newton, solve=solve)
    v, w = RNG.standard_normal(20), RNG.standard_normal(N)
    _, tangent = nbad.jvp(lambda d: solution(WEIGHT, d), (DATA,), (v,))
    _, pullback = nbad.vjp(lambda d: solution(WEIGHT, d), DATA)
    np.testing.assert_allclose(tangent @ w, v @ pullback(w), rtol=1e-8)
    np.testing.assert_allclose(
        tangent, differences(lambda t: newton(WEIGHT, DATA + t * v), 0.0), rtol=1e-5, atol=1e-8
    )


@each_solve
def test_higher_orders(solve: Any) -> None:
    loss = squared(implicit_root(optimality, newton, solve=solve))
    first = nbad.grad(loss)
    second = nbad.grad(first)
    np.testing.assert_allclose(
        second(WEIGHT, DATA), differences(lambda w: first(w, DATA), WEIGHT, 1e-4), rtol=1e-6
    )
    third = nbad.grad(second)(WEIGHT, DATA)
    np.testing.assert_allclose(third, differences(lambda w: second(w, DATA), WEIGHT, 1e-4), rtol=1e-5)
    v = RNG.standard_normal(20)
    found = nbad.hvp(loss, 1)(WEIGHT, DATA, v)
    expected = differences(lambda t: nbad.grad(loss, 1)(WEIGHT, DATA + t * v), 0.0, 1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_check_grads() -> None:
    nbad.testing.check_grads(squared(implicit_root(optimality, newton, tolerance=1e-13)), (WEIGHT, DATA))


def test_jacobians_and_hessians() -> None:
    solution = implicit_root(optimality, newton)
    found = nbad.jacobian(solution, 1)(WEIGHT, DATA)
    x = newton(WEIGHT, DATA)
    expected = np.linalg.solve(B.T @ B + np.exp(WEIGHT) * np.eye(N) + np.diag(0.3 * x**2), B.T)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    assert nbad.hessian(squared(solution), 1)(WEIGHT, DATA).shape == (20, 20)


def test_equations_that_are_not_symmetric() -> None:
    matrix = RNG.standard_normal((70, 70)) + 12 * np.eye(70)  # more than one restart

    def root(x: Any, a: Any) -> Any:
        return matrix @ x + 0.1 * np.sin(x[::-1]) - a

    @implicit_root(root)
    def solution(a: Any) -> Any:
        x = np.zeros(70)
        for _ in range(60):
            x = np.linalg.solve(matrix, a - 0.1 * np.sin(x[::-1]))
        return x

    a, w = RNG.standard_normal((2, 70))
    found = nbad.grad(lambda a: np.sum(w * solution(a)))(a)
    x = solution(a)
    jacobian = matrix + 0.1 * np.eye(70)[::-1] * np.cos(x[::-1])[:, None]
    np.testing.assert_allclose(found, np.linalg.solve(jacobian.T, w), rtol=1e-8)
    again = nbad.grad(lambda a: np.sum(w * implicit_root(root, solution, solve=by_least_squares)(a)))(a)
    np.testing.assert_allclose(again, found, rtol=1e-8)
    with pytest.raises(nbad.ConvergenceError, match="residual is"):
        nbad.grad(lambda a: np.sum(w * implicit_root(root, solution, solve="cg", maxiter=100)(a)))(a)


def test_a_fixed_point() -> None:
    def step(x: Any, a: Any) -> Any:
        return 0.5 * np.cos(x) + a

    @implicit_root(lambda x, a: x - step(x, a))
    def solution(a: Any) -> Any:
        x = a
        for _ in range(100):
            x = step(x, a)
        return x

    a = RNG.standard_normal(5)
    found = nbad.grad(lambda a: np.sum(solution(a)))(a)
    np.testing.assert_allclose(found, 1 / (1 + 0.5 * np.sin(solution(a))), rtol=1e-9)


def test_complex_numbers_are_pairs() -> None:
    # z + 0.3 conj(z) = a has the solution (a - 0.3 conj(a)) / 0.91.
    solution = implicit_root(lambda z, a: z + 0.3 * np.conj(z) - a, lambda a: (a - 0.3 * np.conj(a)) / 0.91)
    a, w = (RNG.standard_normal((2, 4)) + 1j * RNG.standard_normal((2, 4)) for _ in range(2))

    def loss(f: Callable[[Any], Any], a: Any) -> Any:
        return np.sum(np.abs(f(a) - w) ** 3)

    def plain(a: Any) -> Any:
        return (a - 0.3 * np.conj(a)) / 0.91

    np.testing.assert_allclose(
        nbad.grad(lambda a: loss(solution, a))(a), nbad.grad(lambda a: loss(plain, a))(a)
    )
    found, expected = (nbad.hvp(lambda a, f=f: loss(f, a))(a, w) for f in (solution, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_containers_and_numbers() -> None:
    def root(p: Any, q: Any) -> Any:
        return {"a": p["a"] - q["s"] * np.array([1.0, 2.0]), "b": (p["b"] ** 2 - q["t"][0],)}

    def solver(q: Any) -> Any:
        return {"a": q["s"] * np.array([1.0, 2.0]), "b": float(np.sqrt(q["t"][0]))}

    solution = implicit_root(root, solver)
    q = {"s": 3.0, "t": (np.float64(4.0), "name")}
    value, found = nbad.value_and_grad(lambda q: np.sum(solution(q)["a"]) + solution(q)["b"] ** 3, "q.s")(q)
    np.testing.assert_allclose((value, found), (17.0, 3.0))
    found = nbad.grad(lambda q: solution(q)["b"] ** 3, ((0, "t", 0),))(q)[0]
    np.testing.assert_allclose(found, 3.0)  # 1.5 sqrt(t)
    assert solution(q)["b"] == 2.0


def test_single_precision() -> None:
    solution = implicit_root(optimality, lambda w, d: newton(w, d.astype("f8")).astype("f4"), solve="cg")
    found = nbad.grad(squared(solution), 1)(WEIGHT, DATA.astype("f4"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, nbad.grad(squared(implicit_root(optimality, newton)), 1)(WEIGHT, DATA), atol=1e-4
    )


def test_a_minimum_found_by_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")

    def loss(x: Any, a: Any) -> Any:
        return np.sum((x[1:] - x[:-1] ** 2) ** 2) + np.sum((x - a) ** 2)

    gradient = nbad.grad(loss)

    def minimum(a: Any) -> Any:
        return optimize.minimize(nbad.value_and_grad(loss), np.zeros(6), args=(a,), jac=True, tol=1e-12).x

    solution = implicit_root(gradient, minimum, solve="cg")
    a = 0.5 * RNG.standard_normal(6)
    found = nbad.grad(lambda a: np.sum(solution(a) ** 2))(a)
    expected = [
        differences(lambda t, e=e: np.sum(minimum(a + t * 100 * e) ** 2) / 100, 0.0) for e in np.eye(6)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


# Counts ---------------------------------------------------------------------------------------------
def three_eigenvalues() -> np.ndarray:
    q, _ = np.linalg.qr(RNG.standard_normal((30, 30)))
    return (q * np.repeat([1.0, 2.0, 5.0], 10)) @ q.T


@pytest.mark.parametrize("solve", ["cg", "gmres"])
def test_the_derivative_in_the_weight_costs_one_linear_solve(solve: str) -> None:
    hessian, data = three_eigenvalues(), RNG.standard_normal(30)

    def condition(x: Any, weight: Any) -> Any:
        return hessian @ x + weight * x - data

    calls = []

    @implicit_root(condition, solve=solve)
    def reconstruct(weight: Any) -> Any:
        calls.append(weight)
        return np.linalg.solve(hessian + weight * np.eye(30), data)

    with nbad.report() as account:
        found = nbad.grad(lambda weight: np.sum(reconstruct(weight) ** 2))(0.5)
    x = reconstruct(0.5)
    np.testing.assert_allclose(found, -2 * x @ np.linalg.solve(hessian + 0.5 * np.eye(30), x))
    # Least: one product for each different eigenvalue; one more checks the solution.
    assert account.run("matmul", "b") == 3 + 1
    assert account.run("implicit_root", "xs") == 1
    assert calls == [0.5, 0.5]


def test_a_second_derivative_costs_a_few_linear_solves() -> None:
    hessian, data = three_eigenvalues(), RNG.standard_normal(30)
    sizes = []

    def solve(equations: nbad.Equations, b: np.ndarray) -> np.ndarray:
        sizes.append(equations.shape)
        return np.linalg.solve(hessian + 0.5 * np.eye(30), b)

    solution = implicit_root(
        lambda x, w: hessian @ x + w * x - data,
        lambda w: np.linalg.solve(hessian + w * np.eye(30), data),
        solve=solve,
    )
    nbad.grad(lambda w: np.sum(solution(w) ** 2))(0.5)
    assert sizes == [(30, 30)]
    sizes.clear()
    nbad.grad(nbad.grad(lambda w: np.sum(solution(w) ** 2)))(0.5)
    assert sizes == [(30, 30)] * 3  # the adjoint; back through it; back through the answer
    sizes.clear()
    nbad.jvp(solution, (0.5,), (1.0,))
    assert sizes == [(30, 30)]


def test_arguments_that_are_not_asked_for_are_not_pulled_to() -> None:
    def condition(x: Any, weight: Any, psf: Any) -> Any:
        return x * np.exp(weight) - np.tanh(psf)

    solution = implicit_root(condition, lambda weight, psf: np.tanh(psf) / np.exp(weight), solve="cg")
    psf = RNG.standard_normal(8)
    with nbad.report() as account:
        nbad.grad(lambda weight, psf: np.sum(solution(weight, psf)))(0.5, psf)
    assert account.run("exp", "x") == 1
    assert account.run("tanh", "x") == 0
    with nbad.report() as account:
        nbad.grad(lambda weight, psf: np.sum(solution(weight, psf)), 1)(0.5, psf)
    assert account.run("exp", "x") == 0
    assert account.run("tanh", "x") == 1


def test_nothing_is_solved_for_a_cotangent_of_zero() -> None:
    def solve(equations: Any, b: np.ndarray) -> np.ndarray:
        raise AssertionError

    solution = implicit_root(optimality, newton, solve=solve)
    _, pullback = nbad.vjp(lambda d: solution(WEIGHT, d), DATA)
    assert not pullback(np.zeros(N)).any()


def test_the_solver_alone_gets_keywords() -> None:
    solution = implicit_root(optimality, newton, solve="cg")
    start = np.ones(N)
    expected = nbad.grad(squared(newton_like(solution)))(WEIGHT, DATA)
    found = nbad.grad(lambda w, d: np.sum(np.sin(solution(w, d, start=start))))(WEIGHT, DATA)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(nbad.DetachError, match="keyword"):
        nbad.grad(lambda d: np.sum(solution(WEIGHT, DATA, start=d[:N])))(DATA)


def newton_like(solution: Callable[..., Any]) -> Callable[..., Any]:
    return lambda weight, data: solution(weight, data)


# With the rest --------------------------------------------------------------------------------------
def test_compiled() -> None:
    loss = squared(implicit_root(optimality, newton, solve="cg"))
    compiled = nbad.compile(loss)
    for weight in (0.3, 0.4, 0.5):
        found, expected = (nbad.grad(f, (0, 1))(weight, DATA) for f in (compiled, loss))
        for a, b in zip(outputs_of(found), outputs_of(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
        np.testing.assert_allclose(
            nbad.hvp(compiled)(weight, DATA, 1.0), nbad.hvp(loss)(weight, DATA, 1.0), rtol=1e-8
        )


def test_compiled_with_hidden_arrays() -> None:
    scale = np.ones(3)
    solution = implicit_root(lambda x, a: scale * x - a, lambda a: a / scale)
    compiled = nbad.grad(nbad.compile(lambda a: np.sum(solution(a))))
    for k in (1.0, 2.0, 4.0):
        scale[:] = k
        np.testing.assert_allclose(compiled(np.ones(3)), np.full(3, 1 / k))


def test_within_a_checkpoint_and_of_one() -> None:
    solution = implicit_root(optimality, newton, solve="cg")
    expected = nbad.grad(squared(solution))(WEIGHT, DATA)
    inside = nbad.checkpoint(lambda w, d: 2 * solution(w, d) / 2)
    np.testing.assert_allclose(nbad.grad(squared(inside))(WEIGHT, DATA), expected, rtol=1e-9)
    outside = implicit_root(nbad.checkpoint(optimality), newton, solve="cg")
    np.testing.assert_allclose(nbad.grad(squared(outside))(WEIGHT, DATA), expected, rtol=1e-9)


def test_a_solver_that_uses_its_memory_again() -> None:
    memory = np.zeros(3)

    def solver(a: Any) -> Any:
        memory[...] = np.sqrt(a)
        return memory

    solution = implicit_root(lambda x, a: x * x - a, solver)
    a = np.array([1.0, 4.0, 9.0])
    found = nbad.grad(lambda a: np.sum(solution(a)) + np.sum(solution(4 * a)))(a)
    np.testing.assert_allclose(found, 1.5 / np.sqrt(a))


# Refused --------------------------------------------------------------------------------------------
def test_equations_that_are_not_solved_are_an_error() -> None:
    with pytest.raises(nbad.ConvergenceError, match="residual is"):
        nbad.grad(squared(implicit_root(optimality, newton, maxiter=2)))(WEIGHT, DATA)
    with pytest.raises(nbad.ConvergenceError, match="residual is"):
        nbad.grad(squared(implicit_root(optimality, newton, solve=lambda equations, b: 0 * b)))(WEIGHT, DATA)
    singular = implicit_root(lambda x, a: x * 0 + a, lambda a: 0 * a)
    with pytest.raises(nbad.ConvergenceError, match="residual is"):
        nbad.grad(lambda a: np.sum(singular(a)))(np.ones(3))


def test_an_answer_that_is_no_root_warns() -> None:
    solution = implicit_root(optimality, lambda w, d: newton(w, d) + 0.1)
    with pytest.warns(RuntimeWarning, match="does not solve the optimality condition"):
        nbad.grad(squared(solution))(WEIGHT, DATA)


def test_an_answer_of_zero_does_not_warn() -> None:
    solution = implicit_root(lambda x, a: x - a, lambda a: np.full(3, 1e-18))
    np.testing.assert_allclose(nbad.grad(lambda a: np.sum(solution(a)))(np.zeros(3)), np.ones(3))


@pytest.mark.parametrize("place", ["solver", "optimality", "deep"])
def test_a_traced_value_that_is_no_argument_is_refused(place: str) -> None:
    def loss(a: Any) -> Any:
        hidden = 2 * a
        holder = {"deep": [hidden]}

        class Held:
            value = hidden

        solver = (lambda b: b / hidden) if place == "solver" else (lambda b: b / 2)
        root = (lambda x, b: x * hidden - b) if place == "optimality" else (lambda x, b: x * 2 - b)
        if place == "deep":
            root = lambda x, b: x * Held.value - b  # noqa: E731
            holder.clear()
        return np.sum(implicit_root(root, solver)(a))

    with pytest.raises((nbad.DetachError, nbad.EscapedTraceError)):
        nbad.grad(loss)(np.ones(3))
    with pytest.raises((nbad.DetachError, nbad.EscapedTraceError)):
        nbad.hvp(loss)(np.ones(3), np.ones(3))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(nbad.InputTypeError, match="shapes of the solution"):
        nbad.grad(lambda a: np.sum(implicit_root(lambda x, a: x[1:] - a, lambda a: np.ones(4))(a)))(
            np.ones(3)
        )
    with pytest.raises(nbad.InputTypeError, match="no derivative"):
        nbad.grad(lambda a: np.sum(implicit_root(lambda x, a: x - a, lambda a: 3)(a)))(np.ones(3))
    with pytest.raises(nbad.InputTypeError, match="linear solver"):
        nbad.grad(squared(implicit_root(optimality, newton, solve=lambda equations, b: b[1:])))(WEIGHT, DATA)
    with pytest.raises(ValueError, match="'cg', 'gmres'"):
        implicit_root(optimality, newton, solve="lu")
