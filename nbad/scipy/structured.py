"""Matrices of ``scipy.linalg`` with a structure, and equations with them: Toeplitz and its kin, bands, Sylvester's equation.

Owns the rows `solve_banded` and `solve_sylvester`, and the small helpers that equations share. Structured matrices are
indexed out of their parameters.
"""

from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.convolution import floating
from nbad.scipy import required
from nbad.scipy.extending import extended
from nbad.scipy.passing import stands_for
from nbad.table import operation
from nbad.trace import apply

linalg = required("linalg")


def adjoint(a: Any) -> Any:
    """Return the conjugate transpose."""
    return np.conj(np.swapaxes(a, -1, -2))


def triangle(a: Any, lower: bool, unit: bool = False) -> Any:
    """Return one triangle, without its diagonal if that is known to be 1."""
    return np.tril(a, -int(unit)) if lower else np.triu(a, int(unit))


def square(a: Any, name: str) -> Any:
    """Return `a` as one square matrix of floats or complex numbers."""
    a = floating(a)
    if a.ndim != 2:
        raise NoRuleError.of(
            f"scipy.linalg.{name} of a stack of matrices", at=user_line(), instead="Loop over it."
        )
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, not one of shape {a.shape}")
    return a


def columns(b: Any) -> tuple[Any, bool]:
    """Return `b` as a matrix, and whether it was a vector."""
    b = floating(b)
    return (np.reshape(b, (-1, 1)), True) if b.ndim == 1 else (b, False)


def common(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays in one dtype."""
    dtype = np.result_type(*(x.dtype for x in arrays))
    return tuple(x if x.dtype == dtype else x.astype(dtype) for x in arrays)


def hermitian(a: Any, lower: bool, conj: bool = True) -> Any:
    """Return the Hermitian (or symmetric) matrix that one triangle stands for."""
    strict = triangle(a, lower, True)
    other = np.swapaxes(strict, -1, -2)
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)[..., None] * np.eye(a.shape[-1], dtype=a.dtype)
    if a.dtype.kind == "c" and conj:
        return strict + np.conj(other) + np.real(diagonal)
    return strict + other + diagonal


# Structured matrices ------------------------------------------------------------------------------
def vector(c: Any, name: str) -> Any:
    """Return `c` as a vector of floats or complex numbers."""
    c = floating(c)
    if c.ndim > 1:
        raise NoRuleError.of(
            f"scipy.linalg.{name} of a stack of vectors", at=user_line(), instead="Loop over it."
        )
    return np.reshape(c, (-1,))


@stands_for(linalg)
def block_diag(*arrs: Any) -> Any:
    """Return the matrix with these blocks on its diagonal."""
    blocks = common(*(np.atleast_2d(floating(a)) for a in arrs))
    if any(a.ndim > 2 for a in blocks):
        raise NoRuleError.of(
            "scipy.linalg.block_diag of stacks of matrices", at=user_line(), instead="Loop over them."
        )
    width = sum(a.shape[1] for a in blocks)
    rows, start = [], 0
    for a in blocks:
        rows.append(extended(a, 1, start, width - start - a.shape[1], "constant"))
        start += a.shape[1]
    return np.concatenate(rows)


@stands_for(linalg)
def toeplitz(c: Any, r: Any = None) -> Any:
    """Return the matrix with first column `c` and first row `r`, constant along diagonals."""
    c = vector(c, "toeplitz")
    r = np.conj(c) if r is None else vector(r, "toeplitz")
    m, n = c.shape[0], r.shape[0]
    return np.concatenate([np.flip(c), r[1:]])[m - 1 - np.arange(m)[:, None] + np.arange(n)]


@stands_for(linalg)
def hankel(c: Any, r: Any = None) -> Any:
    """Return the matrix with first column `c` and last row `r`, constant along anti-diagonals."""
    c = vector(c, "hankel")
    r = np.zeros(c.shape, c.dtype) if r is None else vector(r, "hankel")
    m, n = c.shape[0], r.shape[0]
    return np.concatenate([c, r[1:]])[np.arange(m)[:, None] + np.arange(n)]


@stands_for(linalg)
def circulant(c: Any) -> Any:
    """Return the matrix with first column `c`, the next ones turned round."""
    c = vector(c, "circulant")
    n = c.shape[0]
    return c[(np.arange(n)[:, None] - np.arange(n)) % n]


@stands_for(linalg)
def companion(a: Any) -> Any:
    """Return the companion matrix of a polynomial."""
    a = vector(a, "companion")
    if a.shape[0] < 2:
        raise ValueError("The length of `a` along the last axis must be at least 2.")
    first = np.reshape(-a[1:] / a[0], (1, -1))
    return np.concatenate([first, np.eye(a.shape[0] - 2, a.shape[0] - 1, dtype=a.dtype)])


# Bands: ab[u + i - j, j] = a[i, j] ------------------------------------------------------------------
def solve_banded_forward(ab, b, *, lower, upper):
    """Solve with the banded matrix `ab` of `lower` and `upper` diagonals."""
    return linalg.solve_banded((lower, upper), ab, b)


def moved(row: Any, by: int) -> Any:
    """Return a row (or the rows of a matrix along the first axis) with element ``j + by`` at place j, 0 beyond."""
    n = row.shape[0]
    if abs(by) >= n:
        return row * 0
    cut = row[by:] if by >= 0 else row[: n + by]
    return extended(cut, 0, max(-by, 0), max(by, 0), "constant")


def banded_cotangent(g, ab, lower, upper):
    """Return the cotangent of the right side: the solution with the adjoint bands."""
    rows = [np.conj(moved(ab[upper - d], d)) for d in range(-lower, upper + 1)]
    return apply(SOLVE_BANDED, np.stack(rows), g, lower=upper, upper=lower)


def solve_banded_b(cotangent):
    return cotangent


def solve_banded_ab(cotangent, y, lower, upper):
    return -np.stack([np.sum(moved(cotangent, d) * np.conj(y), axis=1) for d in range(-upper, lower + 1)])


SOLVE_BANDED = operation(
    solve_banded_forward, name="scipy.structured.solve_banded", shared={"cotangent": banded_cotangent},
    ab=solve_banded_ab, b=solve_banded_b,
)  # fmt: skip


@stands_for(linalg)
def solve_banded(
    l_and_u: Any, ab: Any, b: Any, overwrite_ab: bool = False, overwrite_b: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """Solve with a banded matrix; derivatives in `ab` and `b`."""
    lower, upper = map(int, l_and_u)
    ab, (b, flat) = floating(ab), columns(b)
    ab, b = common(ab, b)
    if ab.ndim != 2:
        raise NoRuleError.of("scipy.linalg.solve_banded of a stack", at=user_line(), instead="Loop over it.")
    x = apply(SOLVE_BANDED, ab, b, lower=lower, upper=upper)
    return x[:, 0] if flat else x


@stands_for(linalg)
def solveh_banded(
    ab: Any, b: Any, overwrite_ab: bool = False, overwrite_b: bool = False, lower: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """Solve with a positive definite banded matrix; derivatives in `ab` and `b`."""
    ab = floating(ab)
    u = ab.shape[0] - 1
    own = [ab[d] for d in range(u + 1)] if lower else [ab[u - d] for d in range(u + 1)]
    # Diagonal d below the main one starts at place 0, above it at place d.
    own = [row if lower else moved(row, d) for d, row in enumerate(own)]
    own[0] = np.real(own[0])
    above = (
        [np.conj(moved(row, -d)) for d, row in enumerate(own)]
        if lower
        else [moved(row, -d) for d, row in enumerate(own)]
    )
    below = own if lower else [np.conj(row) for row in own]
    return solve_banded((u, u), np.stack([*above[:0:-1], *below]), b)


@stands_for(linalg)
def solve_toeplitz(c_or_cr: Any, b: Any, check_finite: bool = True) -> Any:
    """Solve with a Toeplitz matrix (as one without structure); derivatives in its parameters and `b`."""
    c, r = c_or_cr if isinstance(c_or_cr, tuple) else (c_or_cr, None)
    return np.linalg.solve(toeplitz(c, r), floating(b))


# Sylvester's equation -----------------------------------------------------------------------------
def solve_sylvester_forward(a, b, q):
    """Return x with ``a x + x b = q``."""
    return linalg.solve_sylvester(a, b, q)


def sylvester_cotangent(g, a, b):
    return apply(SOLVE_SYLVESTER, adjoint(a), adjoint(b), g)


def solve_sylvester_a(cotangent, y):
    return -cotangent @ adjoint(y)


def solve_sylvester_b(cotangent, y):
    return -adjoint(y) @ cotangent


def solve_sylvester_q(cotangent):
    return cotangent


SOLVE_SYLVESTER = operation(
    solve_sylvester_forward, name="scipy.structured.solve_sylvester", shared={"cotangent": sylvester_cotangent},
    a=solve_sylvester_a, b=solve_sylvester_b, q=solve_sylvester_q,
)  # fmt: skip


@stands_for(linalg)
def solve_sylvester(a: Any, b: Any, q: Any) -> Any:
    """Solve ``a x + x b = q``; derivatives in all three."""
    return apply(
        SOLVE_SYLVESTER, *common(square(a, "solve_sylvester"), square(b, "solve_sylvester"), floating(q))
    )


@stands_for(linalg)
def solve_continuous_lyapunov(a: Any, q: Any) -> Any:
    """Solve ``a x + x a^H = q``; derivatives in both."""
    a = square(a, "solve_continuous_lyapunov")
    return solve_sylvester(a, adjoint(a), q)
