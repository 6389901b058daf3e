"""Applying: the user's functions along axes and in pieces, choices, and what depends on which elements are zero or negative.

Owns no rows. What decides (conditions, indices, signs, zeros) is a constant of the derivative.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.recorder import dtype_of
from nbad.rules.filling import unravelled
from nbad.rules.indexing import integer_places
from nbad.rules.reductions import refuse_out
from nbad.rules.shaping import as_operand, axis_index, axis_tuple, shape_of
from nbad.table import BINDINGS, binds
from nbad.trace import cast, is_traced, plain


# The user's functions -----------------------------------------------------------------------------
@binds(np.apply_along_axis)
def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    arr = as_operand(arr)
    lines = np.moveaxis(arr, axis_index(axis, len(shape_of(arr))), -1)
    outer = shape_of(lines)[:-1]
    found = [as_operand(func1d(lines[place], *args, **kwargs)) for place in np.ndindex(outer)]
    if not found:
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    inner = shape_of(found[0])
    joined = np.reshape(np.stack(found), (*outer, *inner))
    axis = axis_index(axis, len(shape_of(arr)))
    return np.moveaxis(joined, range(len(outer), len(outer) + len(inner)), range(axis, axis + len(inner)))


@binds(np.apply_over_axes)
def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    a = as_operand(a)
    for axis in axes if np.ndim(axes) else (axes,):
        place = axis_index(axis, len(shape_of(a)))
        found = func(a, place)
        if len(shape_of(found)) != len(shape_of(a)):
            found = np.expand_dims(found, place)
        if len(shape_of(found)) != len(shape_of(a)):
            raise ValueError("function is not returning an array of the correct shape")
        a = found
    return a


@binds(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Any:
    x = as_operand(x)
    one = (
        not isinstance(condlist, (list, tuple))
        and len(shape_of(condlist)) <= 1
        and not (len(shape_of(condlist)) == 1 and shape_of(x) == ())
    )
    if isinstance(condlist, (list, tuple)) and shape_of(x) != ():
        one = not isinstance(condlist[0], (list, np.ndarray)) and not is_traced(condlist[0])
    conditions = [cast(plain(c), np.dtype(np.bool_)) for c in ([condlist] if one else condlist)]
    if len(conditions) == len(funclist) - 1:
        rest = conditions[0]
        for c in conditions[1:]:
            rest = rest | c
        conditions.append(~rest)
    if len(conditions) != len(funclist):
        n = len(conditions)
        raise ValueError(f"with {n} condition(s), either {n} or {n + 1} functions are expected")
    found = np.zeros_like(x)
    for c, function in zip(conditions, funclist, strict=True):
        if not callable(function):
            found[c] = function
        elif (values := x[c]).size:
            found[c] = function(values, *args, **kw)
    return found


# Choices ------------------------------------------------------------------------------------------
@binds(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    refuse_out("np.choose", out)
    number: Any = integer_places(a)
    parts = [as_operand(c) for c in choices]
    if mode == "wrap":
        number = np.mod(number, len(parts))
    elif mode == "clip":
        number = np.clip(number, 0, len(parts) - 1)
    elif mode != "raise":
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    elif np.any((number < 0) | (number >= len(parts))):
        raise ValueError("invalid entry in choice array")
    shape = np.broadcast_shapes(shape_of(number), *map(shape_of, parts))
    stacked = np.stack([np.broadcast_to(part, shape) for part in parts])
    return np.take_along_axis(stacked, np.broadcast_to(number, shape)[None], 0)[0]


@binds(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    a = as_operand(filt)
    ndim = len(shape_of(a))
    trim = trim.lower()
    if trim not in ("fb", "bf", "f", "b"):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}")
    axes = tuple(range(ndim)) if axis is None else axis_tuple(axis, ndim)
    places = np.argwhere(plain(a))
    index = [slice(None)] * ndim
    for d in axes:
        if places.shape[0]:
            first, last = int(np.min(places[:, d])), int(np.max(places[:, d]))
            index[d] = slice(first if "f" in trim else None, last + 1 if "b" in trim else None)
        else:
            index[d] = slice(0, 0)
    return a[tuple(index)]


@binds(np.ix_)
def ix_(*args: Any) -> Any:
    found = []
    for d, value in enumerate(args):
        value = as_operand(value)
        if len(shape_of(value)) != 1:
            raise ValueError("Cross index must be 1 dimensional")
        if value.dtype.kind == "b":
            value = np.flatnonzero(value)
        found.append(np.reshape(value, (1,) * d + (-1,) + (1,) * (len(args) - 1 - d)))
    return tuple(found)


@binds(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> Any:
    places: Any = integer_places(indices)
    lengths = tuple(map(operator.index, shape if np.ndim(shape) else (shape,)))
    size = int(np.prod(lengths, dtype=np.intp))
    if np.any((places < 0) | (places >= size)):
        raise ValueError(f"an index is out of bounds for array with size {size}")
    return unravelled(places, lengths) if order == "C" else unravelled(places, lengths[::-1])[::-1]


@binds(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    x = as_operand(x)
    window = tuple(map(operator.index, window_shape if np.ndim(window_shape) else (window_shape,)))
    if any(n < 0 for n in window):
        raise ValueError("`window_shape` cannot contain negative values")
    ndim = len(shape_of(x))
    axes = (
        tuple(range(ndim))
        if axis is None
        else tuple(axis_index(d, ndim) for d in (axis if np.ndim(axis) else (axis,)))
    )
    if len(axes) != len(window):
        raise ValueError(
            f"Must provide matching length window_shape and axis; got {len(window)} and {len(axes)}."
        )
    # NumPy's windows of the numbers of elements say where each element of the result is.
    numbers = np.arange(int(np.prod(shape_of(x), dtype=np.intp))).reshape(shape_of(x))
    return np.take(x, np.lib.stride_tricks.sliding_window_view(numbers, window, axes))


# Complex results where real ones do not exist -----------------------------------------------------
def _negative(x: Any) -> Any:
    return x < 0


def _beyond_one(x: Any) -> Any:
    return np.absolute(x) > 1


def _widened(x: Any, beyond: Callable[[Any], Any]) -> Any:
    """Return `x`, as complex numbers if `beyond` holds for an element."""
    x = as_operand(x)
    if dtype_of(x).kind == "c" or not np.any(beyond(plain(x))):
        return x
    return cast(x, np.dtype(np.complex64 if dtype_of(x) == np.float32 else np.complex128))


def _bind_widening(name: str, beyond: Callable[[Any], Any]) -> None:
    function, plain_function = getattr(np.emath, name), getattr(np, name)

    def widening(x: Any) -> Any:
        return plain_function(_widened(x, beyond))

    BINDINGS[function] = widening


for _name in ("sqrt", "log", "log10", "log2"):
    _bind_widening(_name, _negative)
for _name in ("arccos", "arcsin", "arctanh"):
    _bind_widening(_name, _beyond_one)


@binds(np.emath.logn)
def logn(n: Any, x: Any) -> Any:
    return np.log(_widened(x, _negative)) / np.log(_widened(n, _negative))


@binds(np.emath.power)
def power(x: Any, p: Any) -> Any:
    p = as_operand(p)
    if dtype_of(p).kind in "iu" and np.any(p < 0):
        p = cast(p, np.dtype(np.float64))
    return np.power(_widened(x, _negative), p)
