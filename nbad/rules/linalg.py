"""Linear algebra: norms and condition numbers.

Owns the rows `norm` and `p_norm`; other norms are composed of reductions, and of singular values. At zero, where a norm
has no derivative, the choice is 0; in the nuclear norm a singular value of 0 counts as a positive one.
"""

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from nbad.keeping import operand
from nbad.rules.contractions import array
from nbad.rules.reductions import axes_of, kept_shape
from nbad.table import binds, operation
from nbad.trace import apply, cast, plain

Shape = tuple[int, ...]


def norm_forward(x: Any, *, axis: Any, keepdims: Any) -> Any:
    """Return the root of the sum of squared moduli over `axis`."""
    if len(axis) == len(getattr(x, "shape", ())):
        return np.linalg.norm(x, keepdims=keepdims)
    if len(axis) < 3:
        return np.linalg.norm(x, axis=axis, keepdims=keepdims)
    return np.linalg.vector_norm(x, axis=axis, keepdims=keepdims)


def norm_x(g: Any, x: Any, y: Any, axis: Any, x_shape: Shape) -> Any:  # 0 at 0
    kept = kept_shape(x_shape, axis)
    y = np.reshape(y, kept)
    return np.reshape(g, kept) / np.where(y == 0, 1, y) * x


def p_norm_forward(x: Any, *, p: float, axis: Any, keepdims: Any) -> Any:
    """Return ``sum(abs(x)**p)**(1/p)`` over `axis`."""
    return np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=p)


def p_norm_x(g: Any, x: Any, y: Any, p: float, axis: Any, x_shape: Shape) -> Any:
    # 0 where an element is 0, also for p <= 1, whose derivative is infinite or undefined there.
    kept = kept_shape(x_shape, axis)
    y = np.reshape(y, kept)
    modulus = np.absolute(x)
    zero = plain(modulus) == 0
    ratio = np.where(zero, 1, modulus) / np.where(y == 0, 1, y)
    return np.reshape(g, kept) * np.where(zero, 0, ratio ** (p - 1)) * np.sign(x)


NORM = operation(norm_forward, x=norm_x)
P_NORM = operation(p_norm_forward, x=p_norm_x)


def _largest(x: Any, axis: Any, keepdims: bool = False) -> Any:
    """Return the largest of moduli; 0 of none."""
    reduce: Any = np.sum if 0 in [x.shape[d] for d in axis] else np.max
    return reduce(x, axis=axis, keepdims=keepdims)


def _vector_norm(x: Any, order: Any, axes: Any, keepdims: Any) -> Any:
    if order is None or order == 2:
        return apply(NORM, x, axis=axes, keepdims=keepdims)
    if order == 1:
        return np.sum(np.absolute(x), axis=axes, keepdims=keepdims)
    if order == np.inf:
        return _largest(np.absolute(x), axes, keepdims)
    if order == -np.inf:
        return np.min(np.absolute(x), axis=axes, keepdims=keepdims)
    if order == 0:
        return np.sum(cast(plain(x) != 0, np.zeros(0, x.dtype).real.dtype), axis=axes, keepdims=keepdims)
    return apply(P_NORM, x, p=float(order), axis=axes, keepdims=keepdims)


def _matrix_norm(x: Any, order: Any, axes: Any, keepdims: Any) -> Any:
    if order in (None, "fro", "f"):
        return apply(NORM, x, axis=tuple(sorted(axes)), keepdims=keepdims)
    if order in ("nuc", 2, -2):
        s = np.linalg.svdvals(np.moveaxis(x, axes, (-2, -1)))
        reduce: Any = {"nuc": np.sum, 2: _largest, -2: np.min}[order]
        found = reduce(s, axis=(-1,))
        return np.expand_dims(found, tuple(sorted(axes))) if keepdims else found
    if order not in (1, -1, np.inf, -np.inf):
        raise ValueError("Invalid norm order for matrices.")
    inner, outer = axes if abs(order) == 1 else axes[::-1]
    sums = np.sum(np.absolute(x), axis=inner, keepdims=keepdims)
    place = outer if keepdims or outer < inner else outer - 1
    return _largest(sums, (place,), keepdims) if order > 0 else np.min(sums, axis=place, keepdims=keepdims)


@binds(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = operand(x)
    if axis is None:
        axes = tuple(range(x.ndim))
        if ord is None or (ord == 2 and x.ndim == 1) or (ord in ("f", "fro") and x.ndim == 2):
            return apply(NORM, x, axis=axes, keepdims=keepdims)
    else:
        axes = normalize_axis_tuple(axis, x.ndim)
    if len(axes) == 1:
        if isinstance(ord, str):
            raise ValueError(f"Invalid norm order {ord!r} for vectors")
        return _vector_norm(x, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, ord, axes, keepdims)
    raise ValueError("Improper number of dimensions to norm.")


@binds(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    x = operand(x)
    return _vector_norm(x, ord, axes_of(x, axis), keepdims)


@binds(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    x = operand(x)
    return _matrix_norm(x, ord, normalize_axis_tuple((-2, -1), x.ndim), keepdims)


@binds(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    x = array(x)
    if x.ndim < 2 or 0 in x.shape[-2:]:
        return np.linalg.cond(np.zeros(x.shape), p)  # NumPy's own error
    if p is None or p in (2, -2):
        s = np.linalg.svdvals(x)
        with np.errstate(all="ignore"):
            found = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    else:
        found = np.linalg.norm(x, p, axis=(-2, -1)) * np.linalg.norm(np.linalg.inv(x), p, axis=(-2, -1))
    # 0/0 is infinity, unless x has a NaN; of one matrix the result is a number.
    return np.positive(np.where(np.isnan(found) & ~np.isnan(x).any(axis=(-2, -1)), np.inf, found))
