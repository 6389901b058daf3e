"""Reductions and running reductions.

Owns sums, products, extrema, means, variances and running forms of them. The rules of products do not
divide, so they are right where factors are zero. Choices at kinks stand beside the rule.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nbad._jit import jit
from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.table import BINDINGS, binds, constant, operation
from nbad.trace import apply, cast, is_traced, plain

Shape = tuple[int, ...]

ABSENT: Any = np._NoValue  # NumPy's default of keepdims=, initial= and where=


def kept_shape(shape: Shape, axis: Shape) -> Shape:
    """Return `shape` with 1 in place of the reduced axes."""
    return tuple(1 if d in axis else n for d, n in enumerate(shape))


def count_of(shape: Shape, axis: Shape) -> int:
    """Return how many elements one result is made of."""
    return math.prod(shape[d] for d in axis)


def real_dtype(dtype: Any) -> Any:
    """Return the real dtype of the precision of `dtype`."""
    return np.finfo(dtype).dtype


def conjugate(x: Any) -> Any:
    """Return the conjugate of `x`, and `x` itself where it is real (NumPy's function copies it)."""
    return x.conjugate() if np.iscomplexobj(x) else x


def turned(x: Any, axis: int) -> Any:
    """Return `x` in reverse along `axis`."""
    return x[(slice(None),) * axis + (slice(None, None, -1),)]


def shifted(x: Any, axis: int, first: float) -> Any:
    """Return `x` moved by one place along `axis`, with `first` at the start and without its last element."""
    shape = x.shape
    if shape[axis] == 0:
        return x
    start = np.full((*shape[:axis], 1, *shape[axis + 1 :]), first, x.dtype)
    return np.concatenate([start, x[(slice(None),) * axis + (slice(None, -1),)]], axis=axis)


# Sums ---------------------------------------------------------------------------------------------
def sum_all_forward(x: Any) -> Any:
    """Return the sum of all elements."""
    return np.sum(x)


def sum_all_x(g: Any, x_shape: Shape) -> Any:
    return np.broadcast_to(g, x_shape)


def sum_forward(x: Any, *, axis: Any, dtype: Any, keepdims: Any) -> Any:
    """Return the sum over `axis`."""
    return np.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)


def sum_x(g: Any, axis: Shape, x_shape: Shape) -> Any:
    return np.broadcast_to(np.reshape(g, kept_shape(x_shape, axis)), x_shape)


def cumsum_forward(x: Any, *, axis: int) -> Any:
    """Return the running sum along `axis`."""
    return np.cumsum(x, axis=axis)


def cumsum_x(g: Any, axis: int) -> Any:
    return turned(np.cumsum(turned(g, axis), axis=axis), axis)


# Products -----------------------------------------------------------------------------------------
def prod_forward(x: Any, *, axis: Any, dtype: Any, keepdims: Any) -> Any:
    """Return the product over `axis`."""
    return np.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)


def prod_x(g: Any, x: Any, axis: Shape, x_shape: Shape) -> Any:
    # The product of the others is the one before times the one after: no division, so zeros need no care.
    free = tuple(d for d in range(len(x_shape)) if d not in axis)
    order = (*free, *axis)
    last = len(free)
    line = np.reshape(np.transpose(x, order), (*(x_shape[d] for d in free), count_of(x_shape, axis)))
    before = np.cumprod(shifted(line, last, 1), axis=last)
    after = turned(np.cumprod(shifted(turned(line, last), last, 1), axis=last), last)
    others = np.reshape(before * after, tuple(x_shape[d] for d in order))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return np.reshape(g, kept_shape(x_shape, axis)) * conjugate(np.transpose(others, back))


def cumprod_forward(x: Any, *, axis: int) -> Any:
    """Return the running product along `axis`."""
    return np.cumprod(x, axis=axis)


def cumprod_x(g: Any, x: Any, axis: int) -> Any:
    # dL/dx_k = (x_0 ... x_{k-1}) * s_k with s_k = g_k + x_{k+1} s_{k+1}: no division.
    factor = conjugate(x)
    before = np.cumprod(shifted(factor, axis, 1), axis=axis)
    return before * apply(RECURRENCE, factor, g, axis=axis, reverse=True)


@jit()
def _recur(a: Any, b: Any, out: Any, reverse: Any) -> None:
    """Fill out with the recurrence of `recurrence_forward`; all of shape (outer, n, inner), n > 0."""
    outer, n, inner = b.shape
    for o in range(outer):
        if reverse:
            for i in range(inner):
                out[o, n - 1, i] = b[o, n - 1, i]
            for k in range(n - 2, -1, -1):
                for i in range(inner):
                    out[o, k, i] = b[o, k, i] + a[o, k + 1, i] * out[o, k + 1, i]
        else:
            for i in range(inner):
                out[o, 0, i] = b[o, 0, i]
            for k in range(1, n):
                for i in range(inner):
                    out[o, k, i] = b[o, k, i] + a[o, k, i] * out[o, k - 1, i]


def recurrence_forward(a: Any, b: Any, *, axis: int, reverse: Any) -> Any:
    """Return ``s[k] = b[k] + a[k] s[k-1]``, or ``s[k] = b[k] + a[k+1] s[k+1]``; ``a[0]`` is not read."""
    if is_traced(a) or is_traced(b):
        return apply(RECURRENCE, a, b, axis=axis, reverse=reverse)
    dtype = np.result_type(a, b).newbyteorder("=")
    out = np.empty(b.shape, dtype)
    if out.size:
        shape = (math.prod(b.shape[:axis]), b.shape[axis], math.prod(b.shape[axis + 1 :]))
        one, two = (np.ascontiguousarray(x, dtype).reshape(shape) for x in (a, b))
        _recur(one, two, out.reshape(shape), reverse)
    return out


def recurrence_t(g: Any, a: Any, axis: int, reverse: Any) -> Any:
    return apply(RECURRENCE, conjugate(a), g, axis=axis, reverse=not reverse)


def recurrence_a(t: Any, y: Any, axis: int, reverse: Any) -> Any:
    if reverse:
        return shifted(t, axis, 0) * conjugate(y)
    return t * conjugate(shifted(y, axis, 0))


def recurrence_b(t: Any) -> Any:
    return t


# Extrema ------------------------------------------------------------------------------------------
def max_forward(x: Any, *, axis: Any, keepdims: Any) -> Any:
    """Return the largest element over `axis`."""
    return np.max(x, axis=axis, keepdims=keepdims)


def min_forward(x: Any, *, axis: Any, keepdims: Any) -> Any:
    """Return the smallest element over `axis`."""
    return np.min(x, axis=axis, keepdims=keepdims)


def extremum_x(g: Any, x: Any, y: Any, axis: Any, x_shape: Shape, x_dtype: Any) -> Any:
    # Ties share the cotangent equally; a nan, which the result then is, counts as chosen.
    kept = kept_shape(x_shape, axis)
    chosen = (plain(x) == np.reshape(plain(y), kept)) | np.isnan(plain(x))
    count = np.sum(chosen, axis=axis, keepdims=True, dtype=real_dtype(x_dtype))
    return np.where(chosen, np.reshape(g, kept) / count, 0)


def logaddexp_reduce_forward(x: Any, *, axis: Any, keepdims: Any) -> Any:
    """Return log(sum(exp(x))) over one axis."""
    return np.logaddexp.reduce(x, axis=axis[0], keepdims=keepdims)


def logaddexp_reduce_x(g: Any, x: Any, y: Any, axis: Shape, x_shape: Shape) -> Any:
    # 1 for each where all are -inf, as for logaddexp.
    kept = kept_shape(x_shape, axis)
    y = np.reshape(y, kept)
    same = x == y
    return np.reshape(g, kept) * np.exp(np.where(same, 0, x) - np.where(same, 0, y))


# Variances ----------------------------------------------------------------------------------------
def mean_kept(x: Any, axis: Any) -> Any:
    return np.mean(x, axis=axis, keepdims=True)


def var_forward(x: Any, *, axis: Any, ddof: float, keepdims: Any, middle: Any) -> Any:
    """Return the variance over `axis`, given the mean."""
    return np.var(x, axis=axis, ddof=ddof, keepdims=keepdims, mean=middle)


def var_x(g: Any, x: Any, middle: Any, axis: Any, ddof: Any, x_shape: Shape) -> Any:
    # The mean moves too, but the deviations from it sum to zero.
    scale = 2 * _inverse(count_of(x_shape, axis) - ddof)
    return np.reshape(g, kept_shape(x_shape, axis)) * scale * (x - middle)


def std_forward(x: Any, *, axis: Any, ddof: float, keepdims: Any, middle: Any) -> Any:
    """Return the standard deviation over `axis`, given the mean."""
    return np.std(x, axis=axis, ddof=ddof, keepdims=keepdims, mean=middle)


def std_x(g: Any, x: Any, y: Any, middle: Any, axis: Any, ddof: Any, x_shape: Shape) -> Any:
    # 0 where y is 0.
    kept = kept_shape(x_shape, axis)
    y = np.reshape(y, kept)
    scale = np.reshape(g, kept) * _inverse(count_of(x_shape, axis) - ddof)
    return scale / np.where(y == 0, 1, y) * (x - middle)


def _inverse(count: float) -> float:
    return 1 / count if count > 0 else float("nan")


SUM_ALL = operation(sum_all_forward, x=sum_all_x, linear=True)
SUM = operation(sum_forward, x=sum_x, linear=True)
CUMSUM = operation(cumsum_forward, x=cumsum_x, linear=True)
PROD = operation(prod_forward, x=prod_x)
CUMPROD = operation(cumprod_forward, x=cumprod_x)
RECURRENCE = operation(recurrence_forward, shared={"t": recurrence_t}, a=recurrence_a, b=recurrence_b)
MAX = operation(max_forward, x=extremum_x)
MIN = operation(min_forward, x=extremum_x)
LOGADDEXP_REDUCE = operation(logaddexp_reduce_forward, x=logaddexp_reduce_x)
VAR = operation(var_forward, shared={"middle": mean_kept}, x=var_x)
STD = operation(std_forward, shared={"middle": mean_kept}, x=std_x)


# What NumPy's functions do ------------------------------------------------------------------------
def axes_of(a: Any, axis: Any) -> Shape:
    """Return the axes that `axis` (None, an int or a tuple) names, in ascending order."""
    if axis is None:
        return tuple(range(a.ndim))
    if a.ndim == 0 and axis in (0, -1):  # NumPy's exception for numbers
        return ()
    return tuple(sorted(normalize_axis_tuple(axis, a.ndim)))


def refuse_out(name: str, out: Any) -> None:
    """Raise `NoRuleError` if the caller wants the result in an array of their own."""
    if out is not None:
        raise NoRuleError.of(f"{name} with out=", at=user_line(), instead="Use the array it returns.")


def _flag(keepdims: Any) -> Any:
    return keepdims is not ABSENT and bool(keepdims)


def _mask(a: Any, where: Any) -> Any:
    """Return `where` in the shape of `a`, or None if it leaves nothing out."""
    everything = where is ABSENT or where is True
    return None if everything else np.broadcast_to(cast(plain(where), np.dtype(np.bool_)), a.shape)


def _selected(a: Any, where: Any, neutral: float) -> Any:
    """Return `a` with `neutral` where the mask is false."""
    return a if (mask := _mask(a, where)) is None else np.where(mask, a, neutral)


def _cast(a: Any, dtype: Any) -> Any:
    """Return `a` in `dtype`, if that is given."""
    return a if dtype is None or np.dtype(dtype) == a.dtype else cast(a, np.dtype(dtype))


def _in_dtype(a: Any, dtype: Any) -> tuple[Any, str | None]:
    """Return what to reduce, and the dtype to reduce it in if that is a wider one than its own."""
    if dtype is not None and np.dtype(dtype) != a.dtype and np.can_cast(a.dtype, dtype, "safe"):
        return a, np.dtype(dtype).str
    return _cast(a, dtype), None


def _from(initial: Any, y: Any, function: Callable[..., Any]) -> Any:
    """Return `function` of a result and the start value, which takes the result's dtype as in NumPy."""
    return y if initial is ABSENT or initial is None else function(y, cast(initial, y.dtype))


@binds(np.sum)
def sum_(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = ABSENT,
         initial: Any = ABSENT, where: Any = ABSENT) -> Any:  # fmt: skip
    refuse_out("np.sum", out)
    a, wide = _in_dtype(_selected(a, where, 0), dtype)
    axes = axes_of(a, axis)
    if len(axes) == a.ndim and wide is None and not _flag(keepdims):
        return _from(initial, apply(SUM_ALL, a), np.add)
    return _from(initial, apply(SUM, a, axis=axes, dtype=wide, keepdims=_flag(keepdims)), np.add)


@binds(np.prod)
def prod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = ABSENT,
         initial: Any = ABSENT, where: Any = ABSENT) -> Any:  # fmt: skip
    refuse_out("np.prod", out)
    a, wide = _in_dtype(_selected(a, where, 1), dtype)
    y = apply(PROD, a, axis=axes_of(a, axis), dtype=wide, keepdims=_flag(keepdims))
    return _from(initial, y, np.multiply)


@binds(np.mean)
def mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = ABSENT, *,
         where: Any = ABSENT) -> Any:  # fmt: skip
    dtype = np.float64 if dtype is None and a.dtype.kind in "iu" else dtype
    total = sum_(a, axis, dtype, out, keepdims, where=where)
    return total / _count(a, axes_of(a, axis), _flag(keepdims), where, total.dtype)


def _count(a: Any, axes: Any, keepdims: Any, where: Any, dtype: Any) -> Any:
    """Return how many elements each result is made of: an int, or an array if a mask leaves some out."""
    if (mask := _mask(a, where)) is None:
        return count_of(a.shape, axes)
    return np.sum(mask, axis=axes, keepdims=keepdims, dtype=real_dtype(dtype))


def _spread(op: Any, a: Any, axis: Any, dtype: Any, out: Any, ddof: Any, keepdims: Any,
            where: Any, mean: Any, correction: Any) -> Any:  # fmt: skip
    """Return the variance or, if `op` is STD, the standard deviation."""
    refuse_out(f"np.{op.name}", out)
    if correction is not ABSENT:
        if ddof != 0:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        ddof = correction
    a = _cast(a, dtype)
    axes: Any = axes_of(a, axis)
    keep = _flag(keepdims)
    if mean is ABSENT and _mask(a, where) is None:
        return apply(op, a, axis=axes, ddof=ddof, keepdims=keep)
    middle = np.mean(a, axis=axes, keepdims=True, where=where) if mean is ABSENT else mean
    deviation = _selected(a - middle, where, 0)
    squares = np.square(np.real(deviation))
    if deviation.dtype.kind == "c":
        squares = squares + np.square(np.imag(deviation))
    total = np.sum(squares, axis=axes, keepdims=keep)
    freedom = _count(a, axes, keep, where, total.dtype) - ddof
    found = total / (max(freedom, 0) if isinstance(freedom, (int, float)) else np.maximum(freedom, 0))
    return found if op is VAR else np.sqrt(np.where(plain(found) == 0, 1, found)) * (plain(found) != 0)


@binds(np.var)
def var(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = ABSENT,
        *, where: Any = ABSENT, mean: Any = ABSENT, correction: Any = ABSENT) -> Any:  # fmt: skip
    return _spread(VAR, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


@binds(np.std)
def std(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = ABSENT,
        *, where: Any = ABSENT, mean: Any = ABSENT, correction: Any = ABSENT) -> Any:  # fmt: skip
    return _spread(STD, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


def _extremum(op: Any, worst: float, pick: Any, a: Any, axis: Any, out: Any, keepdims: Any,
              initial: Any, where: Any) -> Any:  # fmt: skip
    refuse_out(f"np.{op.name}", out)
    mask = _mask(a, where)
    if mask is not None and initial is ABSENT:
        raise ValueError(f"reduction operation '{op.name}' with where= needs initial=")
    axes: Any = axes_of(a, axis)
    if initial is not ABSENT and count_of(a.shape, axes) == 0:
        shape = np.sum(np.zeros(a.shape), axis=axes, keepdims=_flag(keepdims)).shape
        return np.broadcast_to(cast(initial, a.dtype), shape)
    neutral = initial if a.dtype.kind in "iub" else worst
    chosen = a if mask is None else np.where(mask, a, neutral)
    return _from(initial, apply(op, chosen, axis=axes, keepdims=_flag(keepdims)), pick)


@binds(np.max, np.amax)
def max_(a: Any, axis: Any = None, out: Any = None, keepdims: Any = ABSENT, initial: Any = ABSENT,
         where: Any = ABSENT) -> Any:  # fmt: skip
    return _extremum(MAX, -np.inf, np.maximum, a, axis, out, keepdims, initial, where)


@binds(np.min, np.amin)
def min_(a: Any, axis: Any = None, out: Any = None, keepdims: Any = ABSENT, initial: Any = ABSENT,
         where: Any = ABSENT) -> Any:  # fmt: skip
    return _extremum(MIN, np.inf, np.minimum, a, axis, out, keepdims, initial, where)


@binds(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = ABSENT) -> Any:
    refuse_out("np.ptp", out)
    return np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims)


@binds(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *,
            keepdims: Any = ABSENT) -> Any:  # fmt: skip
    a = operand(a)
    if weights is None:
        result = np.mean(a, axis=axis, keepdims=keepdims)
        total: Any = np.asarray(count_of(a.shape, axes_of(a, axis)), result.dtype)
    else:
        weights = _fitted_weights(a, axis, operand(weights))
        dtype = np.result_type(a.dtype, weights.dtype, *((np.float64,) if a.dtype.kind in "iub" else ()))
        total = np.sum(weights, axis=axis, dtype=dtype, keepdims=keepdims)
        if np.any(plain(total) == 0):
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
        result = np.sum(cast(a, dtype) * weights, axis=axis, keepdims=keepdims) / total
    return (result, np.broadcast_to(total, result.shape)) if returned else result


def _fitted_weights(a: Any, axis: Any, weights: Any) -> Any:
    """Return the weights of an average with as many dimensions as `a`."""
    if weights.shape == a.shape:
        return weights
    if axis is None:
        raise TypeError("Axis must be specified when shapes of a and weights differ.")
    axes = normalize_axis_tuple(axis, a.ndim)
    if weights.shape != tuple(a.shape[d] for d in axes):
        raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
    weights = np.transpose(weights, tuple(sorted(range(len(axes)), key=axes.__getitem__)))
    weights = np.reshape(weights, tuple(n if d in axes else 1 for d, n in enumerate(a.shape)))
    return np.broadcast_to(weights, a.shape)


def _running(op: Any, a: Any, axis: Any, dtype: Any, out: Any) -> Any:
    refuse_out(f"np.{op.name}", out)
    a = _cast(a, dtype)
    if axis is None or a.ndim == 0:
        a, axis = np.ravel(a), 0
    return apply(op, a, axis=normalize_axis_index(axis, a.ndim))


@binds(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    return _running(CUMSUM, a, axis, dtype, out)


@binds(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    return _running(CUMPROD, a, axis, dtype, out)


# A nan does not count -----------------------------------------------------------------------------
def _bind_without_nan(nan_function: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Bind `nan_function`: `function` with a mask that leaves nan out."""

    def without_nan(a: Any, *args: Any, where: Any = True, **kwargs: Any) -> Any:
        return function(a, *args, where=plain(where) & ~np.isnan(plain(a)), **kwargs)

    BINDINGS[nan_function] = without_nan


_bind_without_nan(np.nansum, sum_)
_bind_without_nan(np.nanprod, prod)
_bind_without_nan(np.nanmean, mean)
_bind_without_nan(np.nanvar, var)
_bind_without_nan(np.nanstd, std)


# Methods of ufuncs --------------------------------------------------------------------------------
def _bind_reduce(ufunc: np.ufunc, function: Callable[..., Any]) -> None:
    """Bind ``ufunc.reduce``, which reduces the first axis by default."""

    def reduce(array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: Any = False,
               initial: Any = ABSENT, where: Any = True) -> Any:  # fmt: skip
        refuse_out(f"np.{ufunc.__name__}.reduce", out)
        return function(_cast(array, dtype), axis, keepdims=keepdims, initial=initial, where=where)

    BINDINGS[ufunc, "reduce"] = reduce  # type: ignore[index]


def _bind_accumulate(ufunc: np.ufunc, function: Callable[..., Any]) -> None:
    """Bind ``ufunc.accumulate``, which runs along the first axis by default."""

    def accumulate(array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        refuse_out(f"np.{ufunc.__name__}.accumulate", out)
        return function(array, axis, dtype)

    BINDINGS[ufunc, "accumulate"] = accumulate  # type: ignore[index]


def _logaddexp_reduce(a: Any, axis: Any, *, keepdims: Any, initial: Any, where: Any) -> Any:
    axes = axes_of(a, axis)
    if len(axes) != 1:
        raise ValueError("reduction operation 'logaddexp' is not reorderable: give it one axis")
    y = apply(LOGADDEXP_REDUCE, _selected(a, where, -np.inf), axis=axes, keepdims=bool(keepdims))
    return _from(initial, y, np.logaddexp)


_bind_reduce(np.add, sum_)
_bind_reduce(np.multiply, prod)
_bind_reduce(np.maximum, max_)
_bind_reduce(np.minimum, min_)
_bind_reduce(np.logaddexp, _logaddexp_reduce)
_bind_accumulate(np.add, cumsum)
_bind_accumulate(np.multiply, cumprod)

constant(np.argmax, np.argmin, np.nanargmax, np.nanargmin, np.any, np.all, np.count_nonzero)
