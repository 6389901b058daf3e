"""Derivatives of an answer through the equation that it solves.

Owns `implicit_root`: the node of a solver's call, and the adjoint equation that its pull solves. The solver is never
differentiated, and the adjoint equation is an implicit root itself, so every order costs linear solves only.
"""

import functools
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nbad import tree
from nbad.errors import ConvergenceError, DetachError, InputTypeError
from nbad.krylov import conjugate_gradients, gmres
from nbad.methods import user_line
from nbad.packing import ravel
from nbad.recorder import dtype_of
from nbad.regions import RowsByOutputs, closed_over, is_array, members, restored
from nbad.replay.graph import form_of
from nbad.table import Keep
from nbad.tape import Opaque
from nbad.trace import apply, carries_derivative, is_traced, underlying
from nbad.transforms import vjp

__all__ = ["Equations", "implicit_root"]

Leaves = Sequence[Any]
#: How linear equations are solved, by name.
_SOLVERS = {"cg": conjugate_gradients, "gmres": gmres}
#: Steps of a linear solver at most, by default.
_STEPS = 10000
#: The answer is no root if a Newton step would change what is differentiated by this part of its size.
_ROUGH = 1e-3


class Equations:
    """The linear equations of one pull, as a linear operator on vectors that `nbad.ravel` packs.

    The matrix is the adjoint of the derivative of the optimality condition in the solution.

    Attributes
    ----------
    shape : tuple of int
        (n, n).
    dtype : dtype
        float64.
    tolerance : float
        How small the residual of a solution is to be, relative to the right side.
    products : int
        How many products were computed.
    """

    dtype = np.dtype(np.float64)
    tolerance = 0.0

    def __init__(self, residual: Callable[[Leaves], Leaves], x: Leaves) -> None:
        self.value, self._pullback = vjp(residual, list(x), wrt=0)
        if any(map(is_traced, self.value)):
            raise _hidden("the optimality condition")
        packed, self._unpack = ravel(list(self.value))
        self.shape = (packed.size, packed.size)
        self.products = 0
        self._residual, self._x = residual, x
        self._push: Any = None

    def matvec(self, v: Any) -> np.ndarray:
        """Return the product with a packed vector."""
        self.products += 1
        return ravel(self._pullback(self._unpack(np.reshape(v, -1))))[0]

    def rmatvec(self, v: Any) -> np.ndarray:
        """Return the product of the transposed matrix with a packed vector."""
        self.products += 1
        if self._push is None:
            back = Equations._transposed(self._residual, self._x)
            _, self._push = vjp(back, list(self.value), wrt=0)
        return ravel(self._push(ravel(list(self._x))[1](np.reshape(v, -1))))[0]

    @staticmethod
    def _transposed(residual: Callable[[Leaves], Leaves], x: Leaves) -> Callable[[Leaves], Leaves]:
        def back(w: Leaves) -> Any:
            return vjp(residual, list(x), wrt=0)[1](list(w))

        return back


class Root(Opaque):
    """A solver and the equation that its answer solves, as functions of lists of leaves.

    Attributes
    ----------
    residual : callable
        ``residual(x, operands)``: a list like `x`, zero at the solution.
    solver : callable
        ``solver(operands)``: the solution, a list of plain leaves.
    linear : callable
        ``linear(equations, b)`` solves linear equations.
    tolerance : float or None
        The residual of their solution may be ten times this part of the right side.
    looks : list
        dtype and form of each operand.
    """

    __slots__ = ("_lock", "_made", "linear", "looks", "outputs", "pending", "residual", "solver", "tolerance")

    def __init__(
        self,
        residual: Callable[[Leaves, Leaves], Leaves],
        solver: Callable[[Leaves], list[Any]],
        linear: Callable[[Equations, np.ndarray], Any],
        tolerance: float | None,
    ) -> None:
        self.residual = residual
        self.solver = solver
        self.linear = linear
        self.tolerance = tolerance
        self.looks: list[tuple[np.dtype[Any], int]] = []
        self.outputs = 0
        self.pending: list[Any] | None = None
        self._made: Root | None = None
        self._lock = threading.Lock()

    def answer(self, operands: Leaves) -> list[Any]:
        """Return the solution; that of the call that made the node is at hand the first time."""
        found, self.pending = self.pending, None
        return self.solver(operands) if found is None else found

    def pull(self, asked: Sequence[int], g: Leaves, operands: Leaves, x: Leaves) -> Any:
        """Return the cotangents of the operands at `asked`: one linear solve, and one pull of the residual."""
        pairs = zip(operands, self.looks, strict=True)
        operands = [restored(value, dtype, form) for value, (dtype, form) in pairs]
        given = [np.zeros_like(a) if c is None else c for a, c in zip(x, g, strict=True)]
        w = run_root(self._adjoint(), [*x, *operands, *given])

        def residual(values: Leaves) -> Leaves:
            filled = list(operands)
            for k, value in zip(asked, values, strict=True):
                filled[k] = value
            return self.residual(x, filled)

        _, pullback = vjp(residual, [operands[k] for k in asked], wrt=0)
        return pullback(w)

    def _adjoint(self) -> "Root":
        """Return the root that pulls solve for: ``w`` with ``(dF/dx)* w + g = 0``; its operands are `x`, ours, and `g`."""
        with self._lock:
            if self._made is None:
                self._made = Root(self._adjoint_residual, self._solve_adjoint, self.linear, self.tolerance)
            return self._made

    def _split(self, operands: Leaves) -> tuple[Leaves, Leaves, Leaves]:
        n = self.outputs
        return operands[:n], operands[n : len(operands) - n], operands[len(operands) - n :]

    def _adjoint_residual(self, w: Leaves, operands: Leaves) -> Leaves:
        x, given, g = self._split(operands)
        _, pullback = vjp(functools.partial(_swapped, self.residual, given), list(x), wrt=0)
        return [a + b for a, b in zip(pullback(list(w)), g, strict=True)]

    def _solve_adjoint(self, operands: Leaves) -> list[Any]:
        """Solve the adjoint equation on plain values, and check the solution."""
        x, given, g = self._split(operands)
        equations = Equations(functools.partial(_swapped, self.residual, given), x)
        b = -ravel(list(g))[0]
        size = float(np.linalg.norm(b))
        if size == 0.0:
            return [np.zeros_like(a) for a in x]
        tolerance = equations.tolerance = self._tolerance(x)
        w = np.reshape(np.asarray(self.linear(equations, b), np.float64), -1)
        if w.shape != b.shape:
            raise InputTypeError(
                f"implicit_root: the linear solver returned {w.size} numbers for {b.size} equations",
                at=user_line(),
            )
        left = float(np.linalg.norm(equations.matvec(w) - b))
        if not left <= 10 * tolerance * size:
            raise ConvergenceError.of("implicit_root", left / size, tolerance, at=user_line())
        self._check_root(x, equations.value, w, size)
        return list(ravel(list(x))[1](w))

    def _tolerance(self, x: Leaves) -> float:
        if self.tolerance is not None:
            return self.tolerance
        single = any(dtype_of(leaf).itemsize < (16 if np.iscomplexobj(leaf) else 8) for leaf in x)
        return 1e-5 if single else 1e-10

    def _check_root(self, x: Leaves, value: Leaves, w: np.ndarray, size: float) -> None:
        """Warn if the answer is no root: to first order its error changes <g, x> by <w, F>, which costs nothing to know."""
        packed = ravel(list(value))[0]
        change = abs(float(w @ packed))
        rounding = float(np.abs(w).sum()) * float(np.finfo(np.float32).eps) ** 2
        if not change <= _ROUGH * size * float(np.linalg.norm(ravel(list(x))[0])) + rounding:
            warnings.warn(
                "implicit_root: the solver's answer does not solve the optimality condition, so the derivative is rough: "
                f"the residual has norm {float(np.linalg.norm(packed)):.3g}\n  at {user_line()}",
                RuntimeWarning,
                stacklevel=2,
            )


def _swapped(residual: Callable[[Leaves, Leaves], Leaves], operands: Leaves, x: Leaves) -> Leaves:
    """Return a residual as a function of `x`."""
    return list(residual(x, operands))


def _hidden(what: str) -> DetachError:
    return DetachError(
        f"implicit_root: {what} uses a traced value that is not among its arguments, whose derivative would be lost",
        at=user_line(),
        fix="Pass it as an argument.",
    )


# The rows ---------------------------------------------------------------------------------------
def implicit_root_forward(*xs: Any, root: Root) -> Any:
    """Return the solution."""
    if any(map(is_traced, xs)):
        return apply(_row(root.outputs), *xs, root=root)
    found = root.answer(xs)
    return found[0] if len(found) == 1 else tuple(found)


def implicit_root_xs(g: Any, k: int, xs: tuple[Any, ...], y: Any, root: Root) -> Any:
    return root.pull((k,), members(g), xs, members(y))[0]


class _Together:
    """The pull of a root for all operands that are asked for: one linear solve."""

    def keep(self, varied: Sequence[int], attributes: Mapping[str, Any]) -> Keep:
        """Return what to keep: all operands, and the solution."""
        return Keep(tuple(range(len(attributes["root"].looks))), True, ())

    def pull(
        self, asked: Sequence[int], g: Any, operands: Leaves, y: Leaves, attributes: Mapping[str, Any]
    ) -> Any:
        """Return the cotangents of the operands at `asked`."""
        return attributes["root"].pull(asked, members(g), operands, members(y))


_row = RowsByOutputs("implicit_root", implicit_root_forward, implicit_root_xs, _Together())


def run_root(root: Root, operands: Leaves) -> list[Any]:
    """Return the solution for operands, traced where one of these is."""
    plainly = [underlying(x) for x in operands]
    found = root.solver(plainly)
    if not any(map(is_traced, operands)):
        return found
    root = Root(root.residual, root.solver, root.linear, root.tolerance)
    root.looks = [(dtype_of(x), form_of(x)) for x in plainly]
    root.outputs, root.pending = len(found), found
    made = apply(_row(root.outputs), *operands, root=root)
    return list(made) if root.outputs > 1 else [made]


# What a user calls ------------------------------------------------------------------------------
def implicit_root(
    optimality: Callable[..., Any],
    solver: Callable[..., Any] | None = None,
    /,
    *,
    solve: str | Callable[[Equations, np.ndarray], Any] = "gmres",
    tolerance: float | None = None,
    maxiter: int = _STEPS,
) -> Any:
    """Return a solver whose answer is differentiated through the equation that it solves, not through the steps it takes.

    Parameters
    ----------
    optimality : callable
        ``optimality(x, *args)``: of the structure and shapes of `x`, zero where `x` is the answer for `args`. For a minimum it
        is the gradient; for a fixed point ``x = T(x)`` it is ``x - T(x)``.
    solver : callable, optional
        ``solver(*args, **kwargs)``: the answer, a floating-point or complex array or number, or a container of these. It is
        called with plain arrays and may do anything. Left out, a decorator is returned.
    solve : {"gmres", "cg"} or callable
        How linear equations are solved. "cg" needs a symmetric definite matrix, as the Hessian of a minimum is; "gmres" takes
        any. ``solve(equations, b)`` gets a `nbad.Equations`, which SciPy takes as a linear operator, and a packed vector.
    tolerance : float, optional
        Residual of the linear equations relative to their right side; default 1e-10, and 1e-5 in single precision.
    maxiter : int
        Steps that "cg" and "gmres" may take.

    Returns
    -------
    callable
        ``solution(*args, **kwargs)``, called as `solver`. Keywords are the solver's alone (a start, a number of steps).

    Raises
    ------
    ConvergenceError
        In the sweep: the linear equations were not solved to ten times the tolerance.
    DetachError
        At a call: a keyword carries a derivative, or the functions use a traced value that is no argument. Also in the sweep.
    InputTypeError
        The answer holds something else than floating-point or complex numbers, or `optimality` returns other shapes.

    Warns
    -----
    RuntimeWarning
        The answer is not a root: a Newton step would change what is differentiated by more than a thousandth.

    Notes
    -----
    From ``F(x, a) = 0`` follows ``dx = -(dF/dx)^-1 (dF/da) da``. The pullback of a cotangent ``g`` solves ``(dF/dx)* w = -g``,
    which takes one product with the adjoint of dF/dx a step, and pulls ``w`` back through `optimality` to those of the
    arguments that were asked for. A derivative of it, and `jvp`, takes more linear solves of the same kind; no step of
    the solver is ever differentiated. Complex numbers are pairs of real ones here.

    References
    ----------
    M. Blondel et al., Efficient and modular implicit differentiation, NeurIPS (2022).

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> A, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([1.0, 2.0])
    >>> def optimality(x, weight):  # the gradient of (x A x + weight x x) / 2 - b x
    ...     return A @ x + weight * x - b
    >>> @nbad.implicit_root(optimality, solve="cg")
    ... def smallest(weight):
    ...     return np.linalg.solve(A + weight * np.eye(2), b)
    >>> round(nbad.grad(lambda weight: np.sum(smallest(weight)))(0.0), 9)
    -0.2
    """
    if solver is None:
        return functools.partial(implicit_root, optimality, solve=solve, tolerance=tolerance, maxiter=maxiter)
    linear = _linear(solve, maxiter)

    @functools.wraps(solver, updated=())
    def solution(*args: Any, **kwargs: Any) -> Any:
        skeleton, leaves = tree.take_apart((args, kwargs))
        if any(map(carries_derivative, tree.leaves(kwargs))):
            raise DetachError.of(
                "implicit_root: a keyword, which only the solver gets,",
                at=user_line(),
                instead="Pass it by position if the optimality condition takes it.",
            )
        if any(map(is_traced, [*closed_over(optimality), *closed_over(solver)])):
            raise _hidden("the solver or the optimality condition")
        places = [i for i, leaf in enumerate(leaves) if is_traced(leaf) or is_array(leaf)]
        form: list[Any] = []

        def filled(operands: Leaves) -> Any:
            new = list(leaves)
            for i, value in zip(places, operands, strict=True):
                new[i] = value
            return tree.assemble(skeleton, new)

        def answer(operands: Leaves) -> list[Any]:
            given, named = filled(operands)
            tokens, found = tree.take_apart(solver(*given, **named))
            form[:] = [tokens]
            return [_checked(leaf) for leaf in found]

        def residual(x: Leaves, operands: Leaves) -> list[Any]:
            found = tree.leaves(optimality(tree.assemble(form[0], list(x)), *filled(operands)[0]))
            shapes = [(np.shape(a), np.iscomplexobj(a)) for a in map(underlying, x)]
            if shapes != [(np.shape(a), np.iscomplexobj(a)) for a in map(underlying, found)]:
                raise InputTypeError(
                    "implicit_root: the optimality condition does not return arrays of the shapes of the solution",
                    at=user_line(),
                )
            return found

        operands = [leaves[i] for i in places]
        if not any(map(is_traced, operands)):
            return solver(*args, **kwargs)
        found = run_root(Root(residual, answer, linear, tolerance), operands)
        return tree.assemble(form[0], found)

    return solution


def _linear(solve: Any, maxiter: int) -> Callable[[Equations, np.ndarray], Any]:
    """Return what solves linear equations."""
    if callable(solve):
        return solve  # type: ignore[no-any-return]
    if solve not in _SOLVERS:
        raise ValueError(f"implicit_root: solve is 'cg', 'gmres' or a function, not {solve!r}")

    def linear(equations: Equations, b: np.ndarray) -> np.ndarray:
        return _SOLVERS[solve](equations.matvec, b, equations.tolerance, maxiter)

    return linear


def _checked(leaf: Any) -> Any:
    """Return a leaf of the solution, an array as a copy: the solver may use its memory again."""
    if is_traced(leaf):
        raise _hidden("the solver")
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc":
        return np.array(leaf)
    if isinstance(leaf, (float, complex, np.inexact)):
        return leaf
    raise InputTypeError(
        f"implicit_root: the solver returned a leaf of type {type(leaf).__name__} that has no derivative",
        at=user_line(),
        fix="Return floating-point numbers or arrays only.",
    )
