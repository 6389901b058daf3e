"""Polynomials by their coefficients, highest power first: NumPy's functions, composed of arithmetic and linear algebra.

Owns no rows. Leading zeros that NumPy drops are dropped: which coefficients are zero is a constant.
"""

import operator
import warnings
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_level, user_line
from nbad.recorder import dtype_of
from nbad.rules.shaping import as_operand, shape_of
from nbad.table import binds
from nbad.trace import cast, plain


def _coefficients(p: Any) -> Any:
    """Return coefficients as an array of at least one dimension."""
    if isinstance(p, np.poly1d):
        raise NoRuleError.of("np.poly1d", at=user_line(), instead="Take its coefficients, p.coeffs.")
    return np.atleast_1d(as_operand(p))


def _floating(x: Any) -> Any:
    """Return an array of floating or complex numbers."""
    x = as_operand(x)
    return x if x.dtype.kind in "fc" else cast(x, np.dtype(np.float64))


def _trimmed(p: Any) -> Any:
    """Return coefficients without leading zeros; at least one is left."""
    nonzero = np.flatnonzero(plain(p))
    return p[int(nonzero[0]) :] if nonzero.shape[0] else p[-1:]


@binds(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    p = _coefficients(p)
    if isinstance(x, np.poly1d):
        _coefficients(x)  # raises
    x = as_operand(x)
    found = np.zeros(shape_of(x), dtype_of(x)) + (p[0] if shape_of(p)[0] else 0)
    for k in range(1, shape_of(p)[0]):
        found = found * x + p[k]
    return found


@binds(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    return _aligned(a1, a2, operator.add)


@binds(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    return _aligned(a1, a2, operator.sub)


def _aligned(a: Any, b: Any, by: Any) -> Any:
    a, b = _coefficients(a), _coefficients(b)
    n, m = shape_of(a)[0], shape_of(b)[0]
    if n < m:
        a = np.concatenate([np.zeros(m - n, a.dtype), a])
    elif m < n:
        b = np.concatenate([np.zeros(n - m, b.dtype), b])
    return by(a, b)


@binds(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    return np.convolve(_trimmed(_coefficients(a1)), _trimmed(_coefficients(a2)))


@binds(np.polydiv)
def polydiv(u: Any, v: Any) -> Any:
    u, v = (_floating(_coefficients(p)) for p in (u, v))
    kind = np.result_type(u.dtype, v.dtype)
    n, m = shape_of(u)[0], shape_of(v)[0]
    rest, quotient = cast(u, kind), []
    for _ in range(n - m + 1):
        quotient.append(rest[0] / v[0])
        rest = np.concatenate([rest[1:m] - quotient[-1] * v[1:], rest[m:]])
    # NumPy keeps the eliminated coefficients, which are zero, until it drops what is small.
    while shape_of(rest)[0] > 1 and np.allclose(plain(rest[0]), 0, rtol=1e-14):
        rest = rest[1:]
    if not shape_of(rest)[0]:
        rest = np.zeros(1, kind)
    return np.stack(quotient) if quotient else np.zeros(1, kind), rest


@binds(np.polyder)
def polyder(p: Any, m: Any = 1) -> Any:
    m = int(m)
    if m < 0:
        raise ValueError("Order of derivative must be positive (see polyint)")
    p = _coefficients(p)
    for _ in range(m):
        n = shape_of(p)[0]
        p = p[:-1] * np.arange(n - 1, 0, -1)
    return p


@binds(np.polyint)
def polyint(p: Any, m: Any = 1, k: Any = None) -> Any:
    m = int(m)
    if m < 0:
        raise ValueError("Order of integral must be positive (see polyder)")
    k = np.zeros(m) if k is None else np.atleast_1d(as_operand(k))
    if shape_of(k)[0] == 1 and m > 1:
        k = k[0] * np.ones(m)
    if shape_of(k)[0] < m:
        raise ValueError("k must be a scalar or a rank-1 array of length 1 or >m.")
    p = _coefficients(p)
    for i in range(m):
        p = np.concatenate([p / np.arange(shape_of(p)[0], 0, -1), k[i : i + 1]])
    return p


@binds(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    zeros = np.atleast_1d(as_operand(seq_of_zeros))
    shape = shape_of(zeros)
    if len(shape) == 2 and shape[0] == shape[1] and shape[0]:
        zeros = np.linalg.eigvals(zeros)
    elif len(shape) != 1:
        raise ValueError("input must be 1d or non-empty square 2d array.")
    zeros = _floating(zeros)
    if shape_of(zeros)[0] == 0:
        return 1.0
    found: Any = np.ones(1, zeros.dtype)
    for k in range(shape_of(zeros)[0]):
        found = np.convolve(found, np.stack([np.ones((), zeros.dtype), -zeros[k]]))
    if found.dtype.kind == "c":
        given = plain(zeros)
        if np.all(np.sort(given) == np.sort(np.conjugate(given))):
            found = np.real(found)
    return found


@binds(np.roots)
def roots(p: Any) -> Any:
    p = _coefficients(p)
    if len(shape_of(p)) != 1:
        raise ValueError("Input must be a rank-1 array.")
    nonzero = np.flatnonzero(plain(p))
    if nonzero.shape[0] == 0:
        return np.array([])
    first, last = int(nonzero[0]), int(nonzero[-1])
    zeros = shape_of(p)[0] - last - 1
    p = _floating(p[first : last + 1])
    n = shape_of(p)[0]
    if n == 1:
        return np.zeros(zeros)
    below = np.eye(n - 2, n - 1, dtype=p.dtype)
    found = np.linalg.eigvals(np.concatenate([(-p[1:] / p[0])[None], below]))
    if found.dtype.kind == "c" and p.dtype.kind != "c" and np.all(plain(np.imag(found)) == 0):
        found = np.real(found)
    return np.concatenate([found, np.zeros(zeros, found.dtype)])


@binds(np.vander)
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    x = as_operand(x)
    if len(shape_of(x)) != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    rows = shape_of(x)[0]
    columns = rows if N is None else operator.index(N)
    kind = np.promote_types(x.dtype, int)
    powers = np.cumprod(np.broadcast_to(cast(x, kind)[:, None], (rows, max(columns - 1, 0))), axis=1)
    found = np.concatenate([np.ones((rows, min(columns, 1)), kind), powers], axis=1)
    return found if increasing else found[:, ::-1]


@binds(np.polyfit)
def polyfit(
    x: Any, y: Any, deg: Any, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False
) -> Any:
    order = int(deg) + 1
    x, y = as_operand(x) + 0.0, as_operand(y) + 0.0
    if order < 1:
        raise ValueError("expected deg >= 0")
    if len(shape_of(x)) != 1:
        raise TypeError("expected 1D vector for x")
    if shape_of(x)[0] == 0:
        raise TypeError("expected non-empty vector for x")
    if len(shape_of(y)) not in (1, 2):
        raise TypeError("expected 1D or 2D array for y")
    if shape_of(x)[0] != shape_of(y)[0]:
        raise TypeError("expected x and y to have same length")
    if rcond is None:
        rcond = float(shape_of(x)[0] * np.finfo(x.dtype).eps)
    left, right = np.vander(x, order), y
    if w is not None:
        w = as_operand(w) + 0.0
        if len(shape_of(w)) != 1:
            raise TypeError("expected a 1-d array for weights")
        if shape_of(w)[0] != shape_of(y)[0]:
            raise TypeError("expected w and y to have the same length")
        left = left * w[:, None]
        right = right * (w[:, None] if len(shape_of(y)) == 2 else w)
    scale = np.sqrt(np.sum(left * left, axis=0))
    left = left / scale
    c, rest, rank, s = np.linalg.lstsq(left, right, rcond)
    c = (c.T / scale).T
    if not full and rank != order:
        warnings.warn("Polyfit may be poorly conditioned", np.exceptions.RankWarning, stacklevel=user_level())
    if full:
        return c, rest, rank, s, rcond
    if not cov:
        return c
    base = np.linalg.inv(np.dot(left.T, left)) / np.outer(scale, scale)
    factor: Any = 1
    if not isinstance(cov, str) or cov != "unscaled":
        if shape_of(x)[0] <= order:
            raise ValueError("the number of data points must exceed order to scale the covariance matrix")
        factor = rest / (shape_of(x)[0] - order)
    return c, (base if len(shape_of(y)) == 1 else base[:, :, None]) * factor
