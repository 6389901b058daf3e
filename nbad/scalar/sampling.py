"""Numbers in a row and between others: arrays of even steps, and interpolation, of active numbers."""

from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload, register_jitable

from nbad.scalar.creation import element_of, zeros
from nbad.scalar.fields import active_array, line, with_value
from nbad.scalar.reductions import none_like, plain_all
from nbad.scalar.types import Active, Dual

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


def _active(kind: Any) -> bool:
    return isinstance(kind, (Active, Dual))


# Even steps -------------------------------------------------------------------------------------
@overload(np.linspace, target="CPU")
def _linspace(start: Any, stop: Any, num: Any = 50) -> Any:
    def linspace(start: Any, stop: Any, num: Any = 50) -> Any:
        given = np.linspace(plain_all(start), plain_all(stop), num)
        made = zeros(num, 1.0 * (start + stop))
        for i in range(num):
            part = i / max(num - 1, 1)
            made[i] = with_value((1.0 - part) * start + part * stop, given[i])
        return made

    return linspace if _active(start) or _active(stop) else None


@overload(np.arange, target="CPU")
def _arange(start: Any, stop: Any = None, step: Any = None) -> Any:
    def from_zero(start: Any, stop: Any = None, step: Any = None) -> Any:
        # As many as there are, each of them a constant.
        return np.arange(plain_all(start))

    def by_one(start: Any, stop: Any = None, step: Any = None) -> Any:
        return np.arange(start, stop, 1)

    def arange(start: Any, stop: Any = None, step: Any = None) -> Any:
        given = np.arange(plain_all(start), plain_all(stop), plain_all(step))
        made = zeros(given.size, 1.0 * (start + step))
        for i in range(given.size):
            made[i] = with_value(start + i * step, given[i])
        return made

    def constants(start: Any, stop: Any = None, step: Any = None) -> Any:
        return np.arange(start, plain_all(stop), plain_all(step))

    if not any(map(_active, (start, stop, step))):
        return None
    if none_like(stop):
        return from_zero if none_like(step) else None
    if none_like(step):
        return by_one
    return arange if _active(start) or _active(step) else constants


# Interpolation ----------------------------------------------------------------------------------
@register_jitable
def _between(x: Any, xp: Any, fp: Any) -> Any:
    """Return the interpolated number: at a point of the data its slope is that on its right, at the last that on its left."""
    at, places = plain_all(x), plain_all(xp)
    last = places.size - 1
    k = min(max(np.searchsorted(places, at, "right") - 1, 0), max(last - 1, 0))
    edge = last if at >= places[last] else k
    if last > 0 and places[0] <= at <= places[last] and places[k] < places[k + 1]:
        slope = (1.0 * fp[k + 1] - fp[k]) / (1.0 * xp[k + 1] - xp[k])
        return fp[edge] + slope * (x - xp[edge])
    return 1.0 * fp[edge]


@overload(np.interp, target="CPU")
def _interp(x: Any, xp: Any, fp: Any) -> Any:
    def of_number(x: Any, xp: Any, fp: Any) -> Any:
        y = np.interp(plain_all(x), plain_all(xp), plain_all(fp))
        return with_value(1.0 * _between(x, xp, fp), y)

    def of_array(x: Any, xp: Any, fp: Any) -> Any:
        y = np.interp(plain_all(x), plain_all(xp), plain_all(fp))
        places, to = line(x), line(y)
        made = zeros(to.size, 1.0 * (element_of(x) + element_of(xp) + element_of(fp)))
        for i in range(to.size):
            made[i] = with_value(_between(places[i], xp, fp), to[i])
        return made.reshape(y.shape)

    if not any(active_array(kind) or _active(kind) for kind in (x, xp, fp)):
        return None
    if not all(isinstance(kind, types.Array) and kind.ndim == 1 for kind in (xp, fp)):
        return None
    return of_array if isinstance(x, types.Array) else of_number
