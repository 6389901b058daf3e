"""Inverses and linear equations: what is made of the inverse of a matrix.

Owns the rows `inv`, `solve`, `det`, `cofactors`, `slogdet`, `pinv` and `lstsq`, and what is composed of them. Cotangents are
solutions with the adjoint matrix: no pullback forms an inverse to multiply it with a right-hand side.

References
----------
M. Giles, "An extended collection of matrix derivative results for forward and reverse mode algorithmic differentiation",
2008 (inverse, solution, determinant).
G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
separate", 1973 (pseudo-inverse, least squares).
"""

import math
import operator
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError
from numpy.linalg._linalg import SlogdetResult

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.contractions import array
from nbad.rules.decompositions import adjoint, column, of_triangle, row, triangle
from nbad.rules.reductions import ABSENT, conjugate
from nbad.table import binds, operation
from nbad.trace import apply, plain

Shape = tuple[int, ...]


# Inverses and solutions ---------------------------------------------------------------------------
def inv_forward(x: Any) -> Any:
    """Return the inverse of each matrix."""
    return np.linalg.inv(x)


def inv_x(g: Any, y: Any) -> Any:
    y = adjoint(y)
    return -(y @ g @ y)


def solve_forward(a: Any, b: Any) -> Any:
    """Return the solutions of ``a @ y == b``; the columns of each matrix `b` are right-hand sides."""
    return np.linalg.solve(a, b)


def solve_back(g: Any, a: Any) -> Any:
    """Return the solutions with the adjoint matrices."""
    return np.linalg.solve(adjoint(a), g)


def solve_a(back: Any, y: Any, a_shape: Shape) -> Any:
    if len(a_shape) == 2 and y.ndim > 2:  # one matrix for all right-hand sides
        rest = (*range(y.ndim - 2), y.ndim - 1)
        return -np.tensordot(back, conjugate(y), axes=(rest, rest))
    return -(back @ adjoint(y))


def solve_b(back: Any) -> Any:
    return back


# Determinants -------------------------------------------------------------------------------------
def det_forward(x: Any) -> Any:
    """Return the determinant of each matrix."""
    return np.linalg.det(x)


def det_x(g: Any, x: Any, y: Any) -> Any:
    return column(column(g)) * conjugate(apply(COFACTORS, x, y))


def cofactors_forward(x: Any, d: Any) -> Any:
    """Return the matrix of cofactors, ``d * inv(x).T`` with the determinant `d`; of singular matrices too."""
    try:
        return column(column(d)) * np.swapaxes(np.linalg.inv(x), -1, -2)
    except LinAlgError:
        u, s, vh = np.linalg.svd(x)
        others = np.prod(np.where(np.eye(s.shape[-1], dtype=bool), 1, row(s)), axis=-1)
        turn = np.linalg.det(u) * np.linalg.det(vh)
        return column(column(turn)) * ((conjugate(u) * row(others)) @ conjugate(vh))


def adjoint_inverse(x: Any) -> Any:
    """Return the inverse of each adjoint matrix."""
    return adjoint(np.linalg.inv(x))


def cofactors_x(g: Any, d: Any, inverse: Any) -> Any:
    return -column(column(conjugate(d))) * (inverse @ np.swapaxes(g, -1, -2) @ inverse)


def cofactors_d(g: Any, inverse: Any) -> Any:
    return np.sum(inverse * g, axis=(-2, -1))


def slogdet_forward(x: Any) -> Any:
    """Return the sign, or phase, and the logarithm of the modulus of each determinant."""
    return tuple(np.linalg.slogdet(x))


def slogdet_x(g: Any, x: Any, y: Any) -> Any:
    # The sign of a real determinant is constant; the phase of a complex one moves with the imaginary part.
    g_sign, g_log = g
    sign, _ = y
    turned = g_sign is not None and np.iscomplexobj(sign)
    if g_log is None and not turned:
        return None
    both = 0 if g_log is None else g_log
    if turned:
        both = both + 1j * np.imag(g_sign * np.conjugate(sign))
    return column(column(both)) * adjoint_inverse(x)


# Rectangular matrices -----------------------------------------------------------------------------
def pinv_forward(x: Any, cutoff: Any, *, hermitian: bool) -> Any:
    """Return the pseudo-inverse of each matrix; singular values up to `cutoff` times the largest count as zero."""
    return np.linalg.pinv(x, cutoff, hermitian)


def check_cutoff(x: Any, y: Any) -> None:
    """Raise if singular values that are not zero were cut off: the formulas are for ``x @ y @ x == x``."""
    x, y = plain(x), plain(y)
    rest = np.linalg.norm(x - x @ y @ x, axis=(-2, -1))
    if np.any(rest > np.sqrt(np.finfo(x.dtype).eps) * np.linalg.norm(x, axis=(-2, -1))):
        raise NoRuleError.of(
            "np.linalg.pinv or lstsq that cuts off singular values that are not zero",
            at=user_line(),
            instead="Write what it does: u, s, vh = np.linalg.svd(a, full_matrices=False), then multiply u.T, 1/s where s is "
            "above the cutoff, 0 elsewhere, and vh.T.",
        )


def pinv_x(g: Any, x: Any, y: Any, hermitian: bool) -> Any:
    # Golub and Pereyra 1973; the rank is constant.
    if not x.size:
        return None
    if hermitian:
        x = triangle(x)
        x = x + adjoint(x)
    check_cutoff(x, y)
    yh, gh = adjoint(y), adjoint(g)
    first = gh @ y @ yh
    second = yh @ y @ gh
    found = -(yh @ g @ yh) + first - x @ (y @ first) + second - (second @ y) @ x
    return of_triangle(found) if hermitian else found


def lstsq_forward(a: Any, b: Any, *, rcond: Any) -> Any:
    """Return the solutions of least squares (a column for each of `b`), sums of squares left, rank, singular values."""
    y, left, rank, s = np.linalg.lstsq(a, b, rcond)
    return y, left, np.asarray(rank), s


def lstsq_inverse(g: Any, a: Any, rcond: Any) -> Any:
    """Return the pseudo-inverse, if the cotangent of the solutions is there."""
    if g[0] is None:
        return None
    inverse = np.linalg.pinv(a, np.finfo(a.dtype).eps * max(a.shape) if rcond is None else rcond)
    check_cutoff(a, inverse)
    return inverse


def lstsq_rest(a: Any, b: Any, y: Any) -> Any:
    """Return what the solutions leave."""
    return b - a @ y[0]


def lstsq_a(g: Any, a: Any, y: Any, inverse: Any, rest: Any) -> Any:
    g_y, g_left, _, g_s = g
    found: Any = 0
    if g_y is not None:
        back = adjoint(inverse) @ g_y
        found = rest @ adjoint(inverse @ back) - back @ adjoint(y[0])
        found = found + (adjoint(inverse) @ y[0]) @ adjoint(g_y - adjoint(a) @ back)
    if g_left is not None and g_left.shape[0]:
        found = found - 2 * (rest * g_left) @ adjoint(y[0])
    if g_s is not None:
        u, _, vh = np.linalg.svd(a, False)
        found = found + (u * row(g_s)) @ vh
    return found if np.ndim(found) else None


def lstsq_b(g: Any, inverse: Any, rest: Any) -> Any:
    g_y, g_left, _, _ = g
    found = None if g_y is None else adjoint(inverse) @ g_y
    if g_left is not None and g_left.shape[0]:
        through = 2 * rest * g_left
        found = through if found is None else found + through
    return found


INV = operation(inv_forward, x=inv_x)
SOLVE = operation(solve_forward, a=solve_a, b=solve_b, shared={"back": solve_back})
DET = operation(det_forward, x=det_x)
COFACTORS = operation(cofactors_forward, x=cofactors_x, d=cofactors_d, shared={"inverse": adjoint_inverse})
SLOGDET = operation(slogdet_forward, outputs=2, x=slogdet_x)
PINV = operation(pinv_forward, x=pinv_x)
LSTSQ = operation(
    lstsq_forward, outputs=4, a=lstsq_a, b=lstsq_b, shared={"inverse": lstsq_inverse, "rest": lstsq_rest}
)


# What NumPy's functions do ------------------------------------------------------------------------
@binds(np.linalg.inv)
def inv(a: Any) -> Any:
    return apply(INV, array(a))


@binds(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    if b.ndim == 1:
        return np.squeeze(apply(SOLVE, a, column(b)), -1)
    return apply(SOLVE, a, b)


@binds(np.linalg.det)
def det(a: Any) -> Any:
    return apply(DET, array(a))


@binds(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    return SlogdetResult(*apply(SLOGDET, array(a)))


@binds(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = ABSENT) -> Any:
    a = array(a)
    if rcond is None:
        rcond = 1e-15 if rtol is ABSENT else rtol
        if rcond is None:
            rcond = max(a.shape[-2:]) * np.finfo(a.dtype).eps
    elif rtol is not ABSENT:
        raise ValueError("`rtol` and `rcond` can't be both set.")
    return apply(PINV, a, plain(rcond), hermitian=bool(hermitian))


@binds(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    a, b = array(a), array(b)
    rcond = None if rcond is None else float(rcond)
    y, left, rank, s = apply(LSTSQ, a, column(b) if b.ndim == 1 else b, rcond=rcond)
    return np.squeeze(y, -1) if b.ndim == 1 else y, left, rank[()], s


@binds(np.linalg.matrix_power)
def matrix_power(a: Any, n: Any) -> Any:
    a = array(a)
    n = operator.index(n)
    if n == 0 or a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        return np.linalg.matrix_power(np.zeros(a.shape, a.dtype), n)  # identities, or NumPy's own error
    if n < 0:
        a, n = np.linalg.inv(a), -n
    if n == 3:
        return a @ a @ a
    result = None
    while True:
        n, odd = divmod(n, 2)
        if odd:
            result = a if result is None else result @ a
        if not n:
            return result
        a = a @ a


@binds(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    a = array(a)
    if ind <= 0:
        raise ValueError("Invalid ind argument.")
    rows, columns = a.shape[:ind], a.shape[ind:]
    return np.reshape(np.linalg.inv(np.reshape(a, (math.prod(columns), -1))), columns + rows)


@binds(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    a, b = array(a), array(b)
    if axes is not None:
        order = list(range(a.ndim))
        for k in axes:
            order.remove(k)
            order.insert(a.ndim, k)
        a = np.transpose(a, order)
    shape = a.shape[b.ndim - a.ndim :]
    n = math.prod(shape)
    if math.prod(a.shape) != n * n:
        raise LinAlgError("tensorsolve: prod(a.shape[b.ndim:]) is not prod(a.shape[:b.ndim])")
    return np.reshape(np.linalg.solve(np.reshape(a, (n, n)), np.ravel(b)), shape)
