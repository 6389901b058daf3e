"""Functions that move or choose elements of arrays of active numbers: nothing is written on the tape.

Owns what joins arrays, of which some may be plain, what chooses by conditions, and what sorts by values.
"""

from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload, register_jitable

from nbad._jit import intrinsic
from nbad.scalar.creation import dtype_among, zeros
from nbad.scalar.fields import active_array, complex_array, method
from nbad.scalar.reductions import none_like, plain_all
from nbad.scalar.types import Active, Dual, is_active

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


# Arrays of one type -----------------------------------------------------------------------------
@intrinsic
def _sample(context: Any, arrays: Any) -> Any:
    """Return a constant of the type that holds the elements of all arrays and numbers of a tuple."""
    kind = dtype_among(arrays)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant_null(kind)

    return kind(arrays), emit


def _like(x: Any, sample: Any) -> Any:
    """Return an array with elements of the type of a number; a copy where it has another."""


@overload(_like)
def _like_overload(x: Any, sample: Any) -> Any:
    def same(x: Any, sample: Any) -> Any:
        return x

    def converted(x: Any, sample: Any) -> Any:
        made = zeros(x.shape, sample)
        made[...] = x
        return made

    def one(x: Any, sample: Any) -> Any:
        made = zeros((), sample)
        made[()] = x
        return made

    if not isinstance(x, types.Array):
        return one
    return same if x.dtype == sample else converted


def _all_like(arrays: Any, sample: Any) -> Any:
    """Return a tuple of arrays with elements of one type."""


@overload(_all_like)
def _all_like_overload(arrays: Any, sample: Any) -> Any:
    def last(arrays: Any, sample: Any) -> Any:
        return (_like(arrays[0], sample),)

    def several(arrays: Any, sample: Any) -> Any:
        return (_like(arrays[0], sample),) + _all_like(arrays[1:], sample)

    return last if len(arrays) == 1 else several


def _mixed(arrays: Any) -> bool:
    """Return whether there are active arrays among others, or of several types."""
    if not isinstance(arrays, types.BaseTuple) or not all(isinstance(x, types.Array) for x in arrays):
        return False
    active = any(active_array(x) or complex_array(x) for x in arrays)
    return active and any(x.dtype != arrays[0].dtype for x in arrays)


def _join(function: Any) -> None:
    def joined(tup: Any) -> Any:
        return function(_all_like(tup, _sample(tup)))

    @overload(function, target="CPU")
    def of_active(tup: Any) -> Any:
        return joined if _mixed(tup) else None


def _join_along(function: Any) -> None:
    def joined(arrays: Any, axis: Any = 0) -> Any:
        return function(_all_like(arrays, _sample(arrays)), axis)

    @overload(function, target="CPU")
    def of_active(arrays: Any, axis: Any = 0) -> Any:
        return joined if _mixed(arrays) else None


for _function in (np.hstack, np.vstack, np.dstack, np.column_stack):
    _join(_function)
_join_along(np.concatenate)
_join_along(np.stack)


# Choices ----------------------------------------------------------------------------------------
@overload(np.where, target="CPU")
def _where(condition: Any, x: Any, y: Any) -> Any:
    def where(condition: Any, x: Any, y: Any) -> Any:
        sample = _sample((x, y))
        a, b = _like(x, sample), _like(y, sample)
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
        made = zeros(shape, sample)
        chosen = np.broadcast_to(plain_all(condition), shape)
        first, second = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
        for place in np.ndindex(shape):
            if chosen[place]:
                made[place] = first[place]
            else:
                made[place] = second[place]
        return made

    def where_at_once(condition: Any, x: Any, y: Any) -> Any:
        return np.where(np.asarray(plain_all(condition)), x, y)

    if not any(is_active(getattr(kind, "dtype", kind)) for kind in (x, y)):
        return None
    return where if isinstance(condition, types.Array) else where_at_once


@overload(np.clip, target="CPU")
def _clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    def both(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
        return np.minimum(np.maximum(a, a_min), a_max)

    def above(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
        return np.maximum(a, a_min)

    def below(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
        return np.minimum(a, a_max)

    active = any(active_array(kind) or isinstance(kind, (Active, Dual)) for kind in (a, a_min, a_max))
    if not active or not none_like(out):
        return None
    if none_like(a_min):
        return None if none_like(a_max) else below
    return above if none_like(a_max) else both


method("clip", np.clip)


# Order ------------------------------------------------------------------------------------------
@overload(np.sort, target="CPU")
def _sort(a: Any) -> Any:
    def sort(a: Any) -> Any:
        return _gathered(a, np.argsort(plain_all(a)))

    return sort if active_array(a) and a.ndim == 1 else None


@register_jitable
def _gathered(a: Any, places: Any) -> Any:
    made = a.copy()
    for k in range(places.size):
        made[k] = a[places[k]]
    return made


def _sort_in_place(a: Any) -> None:
    """Sort a line."""


@overload(_sort_in_place)
def _sort_in_place_overload(a: Any) -> Any:
    def sort(a: Any) -> None:
        a[:] = np.sort(a)

    return sort if a.ndim == 1 else None


method("sort", _sort_in_place)
