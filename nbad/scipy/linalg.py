"""``scipy.linalg`` on traced values.

Owns the rows of what NumPy does not have: triangular equations, the LU decomposition, functions of matrices; more stand in
`nbad.scipy.structured`. The rest goes to `np.linalg`, which knows traced values. Where SciPy reads one triangle, the gradient
lies in that triangle.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> from nbad.scipy import linalg
>>> nbad.grad(lambda t: linalg.expm(t * np.array([[0.0, 1.0], [-1.0, 0.0]]))[0, 1])(0.0)
1.0
"""

from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.convolution import floating
from nbad.scipy import required
from nbad.scipy.passing import refuse, rest_of, stands_for
from nbad.scipy.structured import (
    adjoint,
    block_diag,
    circulant,
    columns,
    common,
    companion,
    hankel,
    hermitian,
    solve_banded,
    solve_continuous_lyapunov,
    solve_sylvester,
    solve_toeplitz,
    solveh_banded,
    square,
    toeplitz,
    triangle,
)
from nbad.table import operation
from nbad.trace import apply

linalg = required("linalg")

__all__ = [
    "block_diag",
    "circulant",
    "companion",
    "hankel",
    "solve_banded",
    "solve_continuous_lyapunov",
    "solve_sylvester",
    "solve_toeplitz",
    "solveh_banded",
    "toeplitz",
]

#: All names with derivatives.
DIFFERENTIABLE = sorted(
    ["block_diag", "cho_factor", "cho_solve", "cholesky", "circulant", "companion", "cosm", "det", "eigh", "eigvalsh"]
    + ["expm", "hankel", "inv", "logm", "lstsq", "lu", "lu_factor", "lu_solve", "norm", "pinv", "qr", "sinm", "solve"]
    + ["solve_banded", "solve_continuous_lyapunov", "solve_sylvester", "solve_toeplitz", "solve_triangular"]
    + ["solveh_banded", "sqrtm", "svd", "svdvals", "toeplitz"]
)  # fmt: skip


# Triangular equations -----------------------------------------------------------------------------
def solve_triangular_forward(a, b, *, trans, lower, unit):
    """Solve with one triangle of `a`, transposed (1) or adjoint (2)."""
    return linalg.solve_triangular(a, b, trans, lower, unit)


def triangular_cotangent(g, a, trans, lower, unit):
    """Return the cotangent of the right side: the solution with the adjoint matrix."""
    if trans == 1:
        a, trans = np.conj(a), 2
    back = 0 if trans == 2 else 2
    return apply(SOLVE_TRIANGULAR, a, g, trans=back, lower=lower, unit=unit)


def solve_triangular_b(cotangent):
    return cotangent


def solve_triangular_a(cotangent, y, trans, lower, unit):
    if trans == 0:
        g = cotangent @ adjoint(y)
    else:
        g = np.conj(y @ adjoint(cotangent)) if trans == 1 else y @ adjoint(cotangent)
    return -triangle(g, lower, unit)


SOLVE_TRIANGULAR = operation(
    solve_triangular_forward, name="scipy.linalg.solve_triangular", shared={"cotangent": triangular_cotangent},
    a=solve_triangular_a, b=solve_triangular_b,
)  # fmt: skip


@stands_for(linalg)
def solve_triangular(
    a: Any, b: Any, trans: Any = 0, lower: bool = False, unit_diagonal: bool = False, overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:  # fmt: skip
    """Solve with a triangular matrix; derivatives in `a` and `b`."""
    a, (b, vector) = square(a, "solve_triangular"), columns(b)
    a, b = common(a, b)
    kind = {"N": 0, "T": 1, "C": 2}.get(trans, trans)
    x = apply(SOLVE_TRIANGULAR, a, b, trans=int(kind), lower=bool(lower), unit=bool(unit_diagonal))
    return x[:, 0] if vector else x


# General equations --------------------------------------------------------------------------------
def read(a: Any, assume_a: str | None, lower: bool) -> Any:
    """Return the matrix that SciPy takes `a` for."""
    if assume_a in ("sym", "symmetric"):
        return hermitian(a, lower, conj=False)
    if assume_a in ("her", "hermitian", "pos", "positive definite"):
        return hermitian(a, lower)
    if assume_a == "diagonal":
        return np.tril(np.triu(a))
    if assume_a == "tridiagonal":
        return np.tril(np.triu(a, -1), 1)
    if assume_a in ("upper triangular", "lower triangular"):
        return triangle(a, assume_a == "lower triangular")
    if assume_a not in (None, "gen", "general", "banded"):
        raise ValueError(f"{assume_a!r} is not a recognized matrix structure")
    return a


@stands_for(linalg)
def solve(
    a: Any, b: Any, lower: bool = False, overwrite_a: bool = False, overwrite_b: bool = False,
    check_finite: bool = True, assume_a: str | None = None, transposed: bool = False,
) -> Any:  # fmt: skip
    """Solve equations; derivatives in `a` (in the part that `assume_a` says is read) and `b`."""
    a, b = floating(a), floating(b)
    if a.ndim != 2 or b.ndim > 2:
        raise NoRuleError.of("scipy.linalg.solve of a stack", at=user_line(), instead="Use np.linalg.solve.")
    a = read(a, assume_a, lower)
    return np.linalg.solve(a.T if transposed else a, b)


@stands_for(linalg)
def inv(
    a: Any, overwrite_a: bool = False, check_finite: bool = True, *, assume_a: str | None = None, lower: bool = False
) -> Any:  # fmt: skip
    """Invert a matrix."""
    return np.linalg.inv(read(floating(a), assume_a, lower))


@stands_for(linalg)
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Return the determinant."""
    return np.linalg.det(floating(a))


@stands_for(linalg)
def lstsq(
    a: Any, b: Any, cond: Any = None, overwrite_a: bool = False, overwrite_b: bool = False,
    check_finite: bool = True, lapack_driver: str | None = None,
) -> Any:  # fmt: skip
    """Solve equations in the sense of least squares; derivatives in `a` and `b`."""
    refuse("linalg.lstsq", lapack_driver=None if lapack_driver in ("gelsd", "gelss") else lapack_driver)
    a, b = floating(a), floating(b)
    x, residues, rank, s = np.linalg.lstsq(a, b, cond)
    return x, np.reshape(residues, ()) if b.ndim == 1 and residues.shape[0] == 1 else residues, rank, s


@stands_for(linalg)
def pinv(
    a: Any, *, atol: Any = None, rtol: Any = None, return_rank: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """Return the pseudo-inverse."""
    refuse("linalg.pinv", atol=atol, return_rank=return_rank or None)
    a = floating(a)
    rtol = max(a.shape[-2:]) * np.finfo(a.dtype).eps if rtol is None else rtol
    return np.linalg.pinv(a, rtol=rtol)


@stands_for(linalg)
def norm(a: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, check_finite: bool = True) -> Any:
    """Return a norm of vectors or matrices."""
    return np.linalg.norm(floating(a), ord, axis, keepdims)


# Decompositions -----------------------------------------------------------------------------------
@stands_for(linalg)
def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Return the Cholesky factor; the gradient lies in the triangle that is read."""
    return np.linalg.cholesky(floating(a), upper=not lower)


@stands_for(linalg)
def cho_factor(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Return the Cholesky factor for `cho_solve`, with zeros in the other triangle."""
    return np.linalg.cholesky(floating(a), upper=not lower), lower


@stands_for(linalg)
def cho_solve(c_and_lower: Any, b: Any, overwrite_b: bool = False, check_finite: bool = True) -> Any:
    """Solve with a Cholesky factor; derivatives in the factor and `b`."""
    c, lower = c_and_lower
    first, second = (0, 2) if lower else (2, 0)
    return solve_triangular(c, solve_triangular(c, b, first, lower), second, lower)


@stands_for(linalg)
def eigh(
    a: Any, b: Any = None, *, lower: bool = True, eigvals_only: bool = False, overwrite_a: bool = False,
    overwrite_b: bool = False, type: int = 1, check_finite: bool = True, subset_by_index: Any = None,
    subset_by_value: Any = None, driver: str | None = None,
) -> Any:  # fmt: skip
    """Return eigenvalues and vectors of a Hermitian matrix, or of a pair of them (type 1), up to the signs of the vectors."""
    refuse("linalg.eigh", subset_by_index=subset_by_index, subset_by_value=subset_by_value, driver=driver)
    a = floating(a)
    uplo: Any = "L" if lower else "U"
    if b is None:
        return np.linalg.eigvalsh(a, uplo) if eigvals_only else tuple(np.linalg.eigh(a, uplo))
    refuse("linalg.eigh", type=None if type == 1 else type)
    factor = np.linalg.cholesky(floating(b), upper=not lower)
    factor = factor if lower else adjoint(factor)
    half = np.linalg.solve(factor, hermitian(a, lower))
    reduced = np.linalg.solve(factor, adjoint(half))
    if eigvals_only:
        return np.linalg.eigvalsh(reduced)
    values, vectors = np.linalg.eigh(reduced)
    return values, np.linalg.solve(adjoint(factor), vectors)


@stands_for(linalg)
def eigvalsh(
    a: Any, b: Any = None, *, lower: bool = True, overwrite_a: bool = False, overwrite_b: bool = False,
    type: int = 1, check_finite: bool = True, subset_by_index: Any = None, subset_by_value: Any = None,
    driver: str | None = None,
) -> Any:  # fmt: skip
    """Return the eigenvalues that `eigh` does."""
    return eigh(
        a, b, lower=lower, eigvals_only=True, type=type, subset_by_index=subset_by_index,
        subset_by_value=subset_by_value, driver=driver,
    )  # fmt: skip


@stands_for(linalg)
def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, overwrite_a: bool = False,
    check_finite: bool = True, lapack_driver: str = "gesdd",
) -> Any:  # fmt: skip
    """Return the singular value decomposition."""
    a = floating(a)
    return tuple(np.linalg.svd(a, full_matrices)) if compute_uv else np.linalg.svdvals(a)


@stands_for(linalg)
def svdvals(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Return the singular values."""
    return np.linalg.svdvals(floating(a))


@stands_for(linalg)
def qr(
    a: Any, overwrite_a: bool = False, lwork: Any = None, mode: str = "full", pivoting: bool = False,
    check_finite: bool = True,
) -> Any:  # fmt: skip
    """Return the QR decomposition, without pivoting."""
    refuse("linalg.qr", pivoting=pivoting or None)
    a = floating(a)
    m, n = a.shape[-2:]
    if mode == "r":
        r = np.linalg.qr(a, "r")
        rest = np.zeros((*a.shape[:-2], max(m - n, 0), n), a.dtype)
        return (np.concatenate([r, rest], axis=-2),)
    if mode not in ("full", "economic"):
        raise NoRuleError.of(
            f"scipy.linalg.qr with mode={mode!r}", at=user_line(), instead="Use 'full' or 'economic'."
        )
    return tuple(np.linalg.qr(a, "complete" if mode == "full" else "reduced"))


def lu_factor_forward(a):
    """Return both triangular factors in one matrix, and the rows swapped with each row."""
    return linalg.lu_factor(a)


def lu_factor_a(g, y):
    # With rows swapped already: A = L U, so dL = L tril(F, -1) and dU = triu(F) U with F = L^-1 dA U^-1.
    if g[0] is None:
        return None
    factors, pivots = y
    lower, upper = parts(factors)
    inner = np.tril(adjoint(lower) @ np.tril(g[0], -1), -1) + np.triu(np.triu(g[0]) @ adjoint(upper))
    inner = apply(SOLVE_TRIANGULAR, factors, inner, trans=2, lower=True, unit=True)
    outer = apply(SOLVE_TRIANGULAR, factors, adjoint(inner), trans=0, lower=False, unit=False)
    return apply(SWAPPED, adjoint(outer), pivots, back=True)


def swapped_forward(x, pivots, *, back):
    """Return `x` with row k swapped with row ``pivots[k]``, one after the other, or swapped back."""
    x = np.array(x)
    order = list(enumerate(np.asarray(pivots).tolist()))
    for k, other in reversed(order) if back else order:
        x[[k, other]] = x[[other, k]]
    return x


def swapped_x(g, pivots, back):
    return apply(SWAPPED, g, pivots, back=not back)


LU_FACTOR = operation(lu_factor_forward, name="scipy.linalg.lu_factor", outputs=2, a=lu_factor_a)
SWAPPED = operation(swapped_forward, name="scipy.linalg.swapped", x=swapped_x)


def parts(factors: Any) -> tuple[Any, Any]:
    """Return the two triangular factors."""
    return np.tril(factors, -1) + np.eye(factors.shape[0], dtype=factors.dtype), np.triu(factors)


@stands_for(linalg)
def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """Return the LU decomposition of a square matrix for `lu_solve`."""
    return apply(LU_FACTOR, square(a, "lu_factor"))


@stands_for(linalg)
def lu_solve(
    lu_and_piv: Any, b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True
) -> Any:  # fmt: skip
    """Solve with an LU decomposition; derivatives in the factors and `b`."""
    factors, pivots = lu_and_piv
    b, vector = columns(b)
    if trans == 0:
        x = solve_triangular(factors, apply(SWAPPED, b, pivots, back=False), 0, True, True)
        x = solve_triangular(factors, x)
    else:
        x = solve_triangular(factors, solve_triangular(factors, b, trans), trans, True, True)
        x = apply(SWAPPED, x, pivots, back=True)
    return x[:, 0] if vector else x


@stands_for(linalg)
def lu(
    a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True, p_indices: bool = False
) -> Any:  # fmt: skip
    """Return the LU decomposition of a square matrix."""
    a = square(a, "lu")
    factors, pivots = apply(LU_FACTOR, a)
    lower, upper = parts(factors)
    if permute_l:
        return apply(SWAPPED, lower, pivots, back=True), upper
    if p_indices:
        order = apply(SWAPPED, np.arange(a.shape[0]), pivots, back=False)
        return np.argsort(order), lower, upper
    return (
        apply(SWAPPED, np.eye(a.shape[0], dtype=np.zeros(0, a.dtype).real.dtype), pivots, back=True),
        lower,
        upper,
    )


# Functions of matrices ----------------------------------------------------------------------------
def function_forward(a, *, name):
    """Return the function of SciPy called `name` of a square matrix."""
    state = np.random.get_state()  # noqa: NPY002 (logm estimates norms with numbers from there: not a user's draw)
    found = getattr(linalg, name)(np.asarray(a, a.dtype.newbyteorder("=")))  # sqrtm takes no other byte order
    np.random.set_state(state)  # noqa: NPY002
    return found


def derivative_forward(a, *, name):
    """Return the function of a matrix of blocks; its double eigenvalues part, so none may lie where the function jumps."""
    values = np.linalg.eigvals(a) if name == "logm" else np.zeros(0)
    if np.any((values.real < 0) & (np.abs(values.imag) <= 1e-3 * np.abs(values))):
        raise np.linalg.LinAlgError(
            "the logarithm of a matrix has no derivative at a negative eigenvalue, where it jumps; "
            "take that of a Hermitian matrix with np.linalg.eigh"
        )
    return function_forward(a, name=name)


def function_a(g, a, name):
    # The derivative of f at a along e is the upper right block of f([[a, e], [0, a]]), and its adjoint is that at the
    # adjoint matrix: N. Higham, Functions of Matrices (SIAM, 2008), theorems 3.6 and 3.9.
    n = np.shape(a)[-1]
    a = adjoint(a)
    g = g + np.zeros_like(a)
    rows = [
        np.concatenate([a, g], axis=-1),
        np.concatenate([np.zeros_like(g), a + np.zeros_like(g)], axis=-1),
    ]
    return apply(DERIVATIVE, np.concatenate(rows, axis=-2), name=name)[..., :n, n:]


FUNCTION = operation(function_forward, name="scipy.linalg.function", a=function_a)
DERIVATIVE = operation(derivative_forward, name="scipy.linalg.derivative", a=function_a)


def sqrtm_forward(a):
    """Return the principal square root of a matrix."""
    return function_forward(a, name="sqrtm")


def sqrtm_a(g, y):  # of y y = a; matrices of blocks would cross the cut of the root at negative eigenvalues
    y = adjoint(y)
    return solve_sylvester(y, y, g)


SQRTM = operation(sqrtm_forward, name="scipy.linalg.sqrtm", a=sqrtm_a)


@stands_for(linalg)
def expm(A: Any) -> Any:
    """Return the exponential of a matrix."""
    return apply(FUNCTION, floating(A), name="expm")


@stands_for(linalg)
def logm(A: Any, disp: bool = True) -> Any:
    """Return the principal logarithm of a matrix."""
    refuse("linalg.logm", disp=None if disp else disp)
    return apply(FUNCTION, square(A, "logm"), name="logm")


@stands_for(linalg)
def sqrtm(A: Any, disp: bool = True, blocksize: int = 64) -> Any:
    """Return the principal square root of a matrix."""
    refuse("linalg.sqrtm", disp=None if disp else disp)
    return apply(SQRTM, square(A, "sqrtm"))


@stands_for(linalg)
def sinm(A: Any) -> Any:
    """Return the sine of a matrix."""
    return apply(FUNCTION, square(A, "sinm"), name="sinm")


@stands_for(linalg)
def cosm(A: Any) -> Any:
    """Return the cosine of a matrix."""
    return apply(FUNCTION, square(A, "cosm"), name="cosm")


def __getattr__(name: str) -> Any:
    """Return what else SciPy has, for plain arrays."""
    return rest_of(linalg, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted(linalg.__all__)
