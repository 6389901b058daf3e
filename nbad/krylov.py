"""Solving linear equations from products with the matrix alone.

Owns conjugate gradients and GMRES on vectors of float64. Must not know where the products come from.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["conjugate_gradients", "gmres"]

Product = Callable[[np.ndarray], np.ndarray]

#: Vectors that GMRES keeps before it starts again.
_RESTART = 50


def conjugate_gradients(product: Product, b: np.ndarray, tolerance: float, maxiter: int) -> np.ndarray:
    """Return an approximate solution of ``A x = b`` for a symmetric definite matrix, one product for each step.

    Parameters
    ----------
    product : callable
        ``A v`` of shape (n,) for `v` of shape (n,).
    b : ndarray of float64, shape (n,)
        The right side.
    tolerance : float
        Ends when the residual is at most `tolerance` times `b`, in Euclidean norms.
    maxiter : int
        Ends after so many steps in any case.

    Returns
    -------
    ndarray of float64, shape (n,)
        The last iterate: whether it is a solution is for the caller to check.

    References
    ----------
    M. R. Hestenes, E. Stiefel, Methods of conjugate gradients for solving linear systems, J. Res. NBS 49 (1952).
    """
    x = np.zeros_like(b)
    r, p = b.copy(), b.copy()
    before = float(r @ r)
    goal = tolerance**2 * before
    for _ in range(maxiter):
        if before <= goal:
            break
        q = product(p)
        curvature = float(p @ q)
        if curvature == 0.0 or not np.isfinite(curvature):
            break
        alpha = before / curvature
        x += alpha * p
        r -= alpha * q
        now = float(r @ r)
        p = r + (now / before) * p
        before = now
    return x


def gmres(product: Product, b: np.ndarray, tolerance: float, maxiter: int) -> np.ndarray:
    """Return an approximate solution of ``A x = b`` for any matrix, one product for each step and one for each restart.

    Parameters, and what is returned, are those of `conjugate_gradients`; up to 50 vectors of the length of `b` are kept.

    References
    ----------
    Y. Saad, M. H. Schultz, GMRES, SIAM J. Sci. Stat. Comput. 7 (1986); the small least-squares problem is solved as a whole.
    """
    x = np.zeros_like(b)
    goal = tolerance * float(np.linalg.norm(b))
    r = b
    while maxiter > 0:
        beta = float(np.linalg.norm(r))
        if beta <= goal or not np.isfinite(beta):
            break
        count = min(_RESTART, maxiter, b.size)
        basis = [r / beta]
        hessenberg = np.zeros((count + 1, count))
        start = np.zeros(count + 1)
        start[0] = beta
        y = np.zeros(0)
        for k in range(count):
            q = product(basis[k])
            for _ in range(2):  # once is not enough where the vectors are nearly dependent
                for j, v in enumerate(basis):
                    part = float(v @ q)
                    hessenberg[j, k] += part
                    q = q - part * v
            hessenberg[k + 1, k] = length = float(np.linalg.norm(q))
            if not np.isfinite(length):
                break
            small = hessenberg[: k + 2, : k + 1]
            y = np.linalg.lstsq(small, start[: k + 2], rcond=None)[0]
            left = float(np.linalg.norm(small @ y - start[: k + 2]))
            if left <= goal or length <= 1e-14 * beta:
                break
            basis.append(q / length)
        maxiter -= count
        for v, part in zip(basis, y, strict=False):
            x = x + part * v
        if y.size == b.size or (y.size and left <= goal):
            break
        r = b - product(x)
    return x
