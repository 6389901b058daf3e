"""Decompositions of matrices: Cholesky, QR, singular values, eigenvalues.

Owns the rows `cholesky`, `qr`, `svd`, `svdvals`, `eigh`, `eigvalsh` and `eig`. Where a matrix is taken as Hermitian, NumPy
reads one triangle of it, and the cotangent lies in that triangle. Eigenvectors and singular vectors are not unique: the
rules are right for every function that does not depend on the choice. Gaps between equal values are divided by, as they
are: infinity, and NumPy's warning.

References
----------
M. Giles, "An extended collection of matrix derivative results for forward and reverse mode algorithmic differentiation",
2008 (Cholesky, eigenvalues, singular values, real).
S. F. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum
experimental design", 2010 (QR).
C. Boeddeker, P. Hanebrink, L. Drude, J. Heymann and R. Haeb-Umbach, "On the computation of complex-valued gradients with
application to statistically optimum beamforming", 2017 (eigenvalues of complex matrices).
Z.-Q. Wan and S.-X. Zhang, "Automatic differentiation for complex valued SVD", 2019.
"""

from typing import Any

import numpy as np
from numpy.linalg._linalg import EighResult, EigResult, QRResult, SVDResult

from nbad.constants import plainly
from nbad.conversions import depends
from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.refusals import refusal
from nbad.rules.contractions import array
from nbad.rules.reductions import conjugate, real_dtype
from nbad.table import binds, forward_only, operation
from nbad.trace import apply, is_traced, plain

Shape = tuple[int, ...]


def adjoint(x: Any) -> Any:
    """Return the conjugate transpose of each matrix."""
    return conjugate(np.swapaxes(x, -1, -2))


def row(x: Any) -> Any:
    """Return vectors as matrices of one row: they scale columns."""
    return np.expand_dims(x, -2)


def column(x: Any) -> Any:
    """Return vectors as matrices of one column: they scale rows."""
    return np.expand_dims(x, -1)


def triangle(x: Any, lower: bool = True) -> Any:
    """Return one triangle of `x`, with half of the diagonal."""
    part = np.tril(x) if lower else np.triu(x)
    return part * (1 - np.eye(x.shape[-1], dtype=real_dtype(x.dtype)) / 2)


def of_triangle(g: Any, lower: bool = True) -> Any:
    """Return the cotangent of a matrix of which one triangle is read, from that of the Hermitian matrix it stands for."""
    return triangle(g + adjoint(g), lower)


def _first(x: Any, k: int) -> Any:
    """Return the first `k` columns."""
    return x if x.shape[-1] == k else x[..., :k]


def _plus_diagonal(matrix: Any, diagonal: Any) -> Any:
    """Return `matrix` with `diagonal` added; None stands for nothing."""
    if diagonal is None:
        return matrix
    return np.where(np.eye(matrix.shape[-1], dtype=bool), matrix + row(diagonal), matrix)


def _inverse_off_diagonal(gaps: Any) -> Any:
    """Return the reciprocals of `gaps`, and 0 on the diagonal."""
    same = np.eye(gaps.shape[-1], dtype=bool)
    return np.where(same, 0, 1 / np.where(same, 1, gaps))


def _turns(u: Any, g: Any, k: int) -> tuple[Any, Any]:
    """Return what the cotangent of orthonormal columns says of turns among the first `k`, and out of their span.

    Columns after these complete a basis. Which one is a choice; that they turn among each other is taken to be nothing.
    """
    first, g_first = _first(u, k), _first(g, k)
    among = adjoint(first) @ g_first
    if u.shape[-2] == k:
        return among, None
    outside = g_first - first @ among
    if u.shape[-1] > k:
        outside = outside - u[..., k:] @ (adjoint(g[..., k:]) @ first)
    return among, outside


# Cholesky and QR ----------------------------------------------------------------------------------
def cholesky_forward(x: Any, *, upper: bool) -> Any:
    """Return the triangular factor of `x`, of which one triangle is read."""
    return np.linalg.cholesky(x, upper=upper)


def cholesky_x(g: Any, y: Any, upper: bool) -> Any:
    # With L the factor and M the lower triangle of L^H g, half its diagonal: L^-H M L^-1.
    right = y if upper else adjoint(y)
    half = np.linalg.solve(right, triangle(right @ (adjoint(g) if upper else g)))
    return of_triangle(np.linalg.solve(right, adjoint(half)), not upper)


def qr_forward(x: Any, *, mode: Any) -> Any:
    """Return Q and R."""
    return tuple(np.linalg.qr(x, mode))


def qr_x(g: Any, y: Any, x_shape: Shape) -> Any:
    # The diagonal of R is real, as LAPACK makes it.
    g_q, g_r = g
    q, r = y
    k, n = min(x_shape[-2:]), x_shape[-1]
    first = _first(q, k)
    found: Any = 0
    late = None
    if r.shape[-2] > k:  # rows of zeros
        r, g_r = r[..., :k, :], None if g_r is None else g_r[..., :k, :]
    if n > k:  # columns of x after the square part: R has Q^H times them
        if g_r is not None:
            late = first @ g_r[..., k:]
            through = first @ (r[..., k:] @ adjoint(g_r[..., k:]))
            g_q = through if g_q is None else g_q + through
            g_r = g_r[..., :k]
        r = r[..., :k]
    inner = 0 if g_r is None else g_r @ adjoint(r)
    turn = -inner
    if g_q is not None:
        among, outside = _turns(q, g_q, k)
        turn = turn + among
        found = 0 if outside is None else outside
    found = found + first @ (inner + triangle(turn - adjoint(turn)))
    found = adjoint(np.linalg.solve(r, adjoint(found)))
    if n == k:
        return found
    late = np.zeros((*x_shape[:-1], n - k), found.dtype) if late is None else late
    return np.concatenate([found, late], axis=-1)


# Singular values ----------------------------------------------------------------------------------
def svd_forward(x: Any, *, full: bool) -> Any:
    """Return U, the singular values and V^H."""
    return tuple(np.linalg.svd(x, full))


def svd_x(g: Any, y: Any) -> Any:
    # The phase of a pair of complex singular vectors is a choice: what turns them is given to U.
    g_u, g_s, g_vh = g
    u, s, vh = y
    k = s.shape[-1]
    left, right = _first(u, k), vh if vh.shape[-2] == k else vh[..., :k, :]
    if g_u is None and g_vh is None:
        return (left * row(g_s)) @ right
    factors = _inverse_off_diagonal((row(s) - column(s)) * (row(s) + column(s)))
    middle: Any = 0
    outside_u = outside_v = None
    if g_u is not None:
        among, outside_u = _turns(u, g_u, k)
        scaled = _plus_diagonal(factors, 0.5 / np.square(s)) if np.iscomplexobj(among) else factors
        middle = scaled * (among - adjoint(among)) * row(s)
    if g_vh is not None:
        among, outside_v = _turns(adjoint(vh), adjoint(g_vh), k)
        middle = middle + factors * (among - adjoint(among)) * column(s)
    found = left @ _plus_diagonal(middle, g_s) @ right
    if outside_u is not None:
        found = found + (outside_u / row(s)) @ right
    if outside_v is not None:
        found = found + (left / row(s)) @ adjoint(outside_v)
    return found


def svdvals_forward(x: Any) -> Any:
    """Return the singular values."""
    return np.linalg.svdvals(x)


def svdvals_x(g: Any, x: Any) -> Any:
    u, _, vh = np.linalg.svd(x, False)
    return (u * row(g)) @ vh


# Eigenvalues --------------------------------------------------------------------------------------
def eigh_forward(x: Any, *, uplo: Any) -> Any:
    """Return eigenvalues and eigenvectors of the Hermitian matrix of which `x` holds one triangle."""
    return tuple(np.linalg.eigh(x, uplo))


def eigh_x(g: Any, y: Any, uplo: Any) -> Any:
    g_w, g_v = g
    w, v = y
    if g_v is None:
        found = (v * row(g_w)) @ adjoint(v)
    else:
        middle = _inverse_off_diagonal(row(w) - column(w)) * (adjoint(v) @ g_v)
        found = v @ _plus_diagonal(middle, g_w) @ adjoint(v)
    return of_triangle(found, uplo in "Ll")


def eigvalsh_forward(x: Any, *, uplo: Any) -> Any:
    """Return the eigenvalues of the Hermitian matrix of which `x` holds one triangle."""
    return np.linalg.eigvalsh(x, uplo)


def eigvalsh_x(g: Any, x: Any, uplo: Any) -> Any:
    _, v = np.linalg.eigh(x, uplo)
    return of_triangle((v * row(g)) @ adjoint(v), uplo in "Ll")


def eig_forward(x: Any) -> Any:
    """Return eigenvalues and eigenvectors."""
    return tuple(np.linalg.eig(x))


def eig_x(g: Any, y: Any) -> Any:
    # LAPACK's eigenvectors have norm 1, and their largest element is real: both conditions are differentiated.
    g_w, g_v = g
    w, v = y
    vh = adjoint(v)
    if g_v is None:
        return np.linalg.solve(vh, column(g_w) * vh)
    along = np.sum(np.conjugate(v) * g_v, axis=-2, keepdims=True)
    g_v = g_v - v * np.real(along)
    if np.iscomplexobj(v) and v.size:
        fixed = plain(v)
        size = np.where(np.imag(fixed) == 0, np.absolute(fixed), -1)
        largest = row(np.argmax(size, axis=-2)) == np.arange(v.shape[-2])[:, None]
        g_v = g_v - 1j * largest * (np.imag(along) / np.sum(np.real(v) * largest, axis=-2, keepdims=True))
    middle = np.conjugate(_inverse_off_diagonal(row(w) - column(w))) * (vh @ g_v)
    return np.linalg.solve(vh, _plus_diagonal(middle, g_w) @ vh)


CHOLESKY = operation(cholesky_forward, x=cholesky_x)
QR = operation(qr_forward, outputs=2, x=qr_x)
SVD = operation(svd_forward, outputs=3, x=svd_x)
SVDVALS = operation(svdvals_forward, x=svdvals_x)
EIGH = operation(eigh_forward, outputs=2, x=eigh_x)
EIGVALSH = operation(eigvalsh_forward, x=eigvalsh_x)
EIG = operation(eig_forward, outputs=2, x=eig_x)


# What NumPy's functions do ------------------------------------------------------------------------
@binds(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    return apply(CHOLESKY, array(a), upper=bool(upper))


@binds(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete", "r"):
        if mode in ("raw", "f", "full", "e", "economic"):
            raise NoRuleError.of(
                f"np.linalg.qr with mode={mode!r}", at=user_line(), instead="Use mode='reduced'."
            )
        raise ValueError(f"Unrecognized mode '{mode}'")
    found = QRResult(*apply(QR, array(a), mode="complete" if mode == "complete" else "reduced"))
    return found.R if mode == "r" else found


@binds(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    a = array(a)
    if hermitian:
        return _hermitian_svd(a) if compute_uv else _moduli(apply(EIGVALSH, a, uplo="L"))[0]
    if not compute_uv:
        return apply(SVDVALS, a)
    return SVDResult(*apply(SVD, a, full=bool(full_matrices)))


def _moduli(w: Any) -> tuple[Any, Any]:
    """Return the moduli of eigenvalues, the largest first, and the order."""
    s = np.absolute(w)
    order = np.argsort(s)[..., ::-1]
    return np.take_along_axis(s, order, axis=-1), order


def _hermitian_svd(a: Any) -> Any:
    w, u = apply(EIGH, a, uplo="L")
    s, order = _moduli(w)
    sign = np.take_along_axis(np.copysign(1.0, plain(w)), order, axis=-1)
    u = np.take_along_axis(u, row(order), axis=-1)
    return SVDResult(u, s, adjoint(u * row(sign)))


@binds(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    return apply(SVDVALS, array(x))


@binds(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    return EighResult(*apply(EIGH, array(a), uplo=UPLO))


@binds(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    return apply(EIGVALSH, array(a), uplo=UPLO)


@binds(np.linalg.eig)
def eig(a: Any) -> Any:
    return EigResult(*apply(EIG, array(a)))


@binds(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    return eig(a).eigenvalues  # of eigvals alone, the order is not always that of eig


MATRIX_RANK = forward_only(np.linalg.matrix_rank)


@binds(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """Return the rank of what no derivative passes through, such as ``nbad.stop_gradient(x)``; refuse anything else."""
    if any(map(_varies, (A, tol, rtol))):
        raise refusal(np.linalg.matrix_rank)
    return plainly(np.linalg.matrix_rank, MATRIX_RANK, A, tol, hermitian, rtol=rtol)


def _varies(x: Any) -> bool:
    """Return whether `x` depends on an input of the function that is differentiated or recorded."""
    plain(x)  # raises if its call has ended
    while is_traced(x):
        if depends(x._tape, x._slot):
            return True
        x = x._value
    return False
