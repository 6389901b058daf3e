"""Reductions of arrays of active numbers, and what looks at their values only.

Owns sums, products, extrema and their like, each of numba's own value and one formula for its partial derivatives: one
entry, whatever the length. Functions that return places or truth values are called on the values.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload, register_jitable

from nbad.scalar.fields import active_array, combined, complex_array, line, method, plain, room
from nbad.scalar.types import Active, Dual

#: numba has no annotations.
types: Any = numba_types

__all__ = ["none_like"]


def none_like(kind: Any) -> bool:
    """Return whether an argument is left out, or None."""
    return kind is None or (
        isinstance(kind, (types.NoneType, types.Omitted)) and getattr(kind, "value", None) is None
    )


# Partial derivatives ----------------------------------------------------------------------------
@register_jitable
def of_sum(v: Any, y: Any) -> Any:
    return 1.0


@register_jitable
def of_mean(v: Any, y: Any) -> Any:
    return 1.0 / v.size


@register_jitable
def of_prod(v: Any, y: Any) -> Any:
    # The product of all others: a zero is not divided by.
    given = line(v)
    others = np.empty(given.size, given.dtype)
    if given.size:
        others[0] = 1.0
    for i in range(1, given.size):
        others[i] = others[i - 1] * given[i - 1]
    after = others[:1].copy()
    for i in range(given.size - 1, -1, -1):
        if i == given.size - 1:
            after[0] = 1.0
        else:
            after[0] = after[0] * given[i + 1]
        others[i] = others[i] * after[0]
    return others


@register_jitable
def of_extremum(v: Any, y: Any) -> Any:
    # Ties share the derivative equally.
    given = line(v)
    shares = np.zeros(given.size)
    for i in range(given.size):
        if given[i] == y:
            shares[i] = 1.0
    return shares / max(1.0, shares.sum())


@register_jitable
def of_var(v: Any, y: Any) -> Any:
    given = line(v)
    return (given - np.mean(given)) * (2.0 / v.size)


@register_jitable
def of_std(v: Any, y: Any) -> Any:
    given = line(v)
    return (given - np.mean(given)) / (y * v.size)


@register_jitable
def of_norm(v: Any, y: Any) -> Any:
    # 0 at 0, where a norm has no derivative.
    return line(v) / y if y != 0.0 else line(v) * 0.0


@register_jitable
def of_median(v: Any, y: Any) -> Any:
    order = np.argsort(plain_all(line(v)))
    shares = np.zeros(order.size)
    if order.size:
        shares[order[order.size // 2]] += 0.5
        shares[order[(order.size - 1) // 2]] += 0.5
    return shares


@register_jitable
def of_nansum(v: Any, y: Any) -> Any:
    return (~np.isnan(line(v))) * 1.0


@register_jitable
def of_nanmean(v: Any, y: Any) -> Any:
    counted = of_nansum(v, y)
    return counted / counted.sum()


def plain_all(x: Any) -> Any:
    """Return the values of an array or of a number without any tangents."""


@overload(plain_all)
def _plain_all_overload(x: Any) -> Any:
    def again(x: Any) -> Any:
        return plain_all(plain(x))

    def same(x: Any) -> Any:
        return x

    return again if active_array(x) or isinstance(x, (Active, Dual)) else same


# One number of all elements ---------------------------------------------------------------------
def _implementation(function: Any, partials: Any) -> Callable[..., Any]:
    def reduced(a: Any) -> Any:
        v = plain(a)
        y = function(v)
        return combined(y, a, partials(v, y))

    return reduced


def _reduction(partials: Any, *functions: Any) -> None:
    for function in functions:
        overload(function, target="CPU")(_typed(_implementation(function, partials)))


def _typed(reduced: Any) -> Any:
    def of_active(a: Any) -> Any:
        return reduced if active_array(a) else None

    return of_active


_reduction(of_mean, np.mean)
method("mean", np.mean)
_reduction(of_prod, np.prod)
method("prod", np.prod)
_reduction(of_extremum, np.max, np.amax)
method("max", np.max)
_reduction(of_extremum, np.min, np.amin)
method("min", np.min)
_reduction(of_extremum, np.nanmax)
_reduction(of_extremum, np.nanmin)
_reduction(of_var, np.var)
method("var", np.var)
_reduction(of_std, np.std)
method("std", np.std)
_reduction(of_median, np.median)
_reduction(of_nansum, np.nansum)
_reduction(of_nanmean, np.nanmean)
_summed = register_jitable(_implementation(np.sum, of_sum))
_normed = register_jitable(_implementation(np.linalg.norm, of_norm))


@overload(np.linalg.norm, target="CPU")
def _norm(x: Any, ord: Any = None) -> Any:
    if not active_array(x) or not none_like(ord):
        return None

    def norm(x: Any, ord: Any = None) -> Any:
        return _normed(x)

    return norm


@overload(np.ptp, target="CPU")
def _ptp(a: Any) -> Any:
    def ptp(a: Any) -> Any:
        return np.max(a) - np.min(a)

    return ptp if active_array(a) else None


@overload(max, target="CPU")
def _max(*numbers: Any) -> Any:
    # As Python chooses: the first of those that are equal.
    def of_two(*numbers: Any) -> Any:
        return numbers[1] if numbers[1] > numbers[0] else numbers[0]

    def of_several(*numbers: Any) -> Any:
        return max(max(numbers[0], numbers[1]), *numbers[2:])

    if len(numbers) < 2 or not any(isinstance(kind, (Active, Dual)) for kind in numbers):
        return None
    return of_two if len(numbers) == 2 else of_several


@overload(min, target="CPU")
def _min(*numbers: Any) -> Any:
    def of_two(*numbers: Any) -> Any:
        return numbers[1] if numbers[1] < numbers[0] else numbers[0]

    def of_several(*numbers: Any) -> Any:
        return min(min(numbers[0], numbers[1]), *numbers[2:])

    if len(numbers) < 2 or not any(isinstance(kind, (Active, Dual)) for kind in numbers):
        return None
    return of_two if len(numbers) == 2 else of_several


@overload(divmod, target="CPU")
def _divmod(x: Any, y: Any) -> Any:
    def both(x: Any, y: Any) -> Any:
        return x // y, x % y

    return both if isinstance(x, (Active, Dual)) or isinstance(y, (Active, Dual)) else None


@overload(sum, target="CPU")
def _builtin_sum(iterable: Any, start: Any = 0) -> Any:
    def summed(iterable: Any, start: Any = 0) -> Any:
        return np.sum(iterable)

    left_out = isinstance(start, types.Omitted) or start == 0
    return summed if active_array(iterable) and iterable.ndim == 1 and left_out else None


method("sum", np.sum)
method("argsort", np.argsort)


# Along an axis ----------------------------------------------------------------------------------
@overload(np.sum, target="CPU")
def _sum(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    if not active_array(a) or not none_like(dtype):
        return None
    if none_like(axis) or (isinstance(axis, types.Integer) and a.ndim == 1):

        def all_summed(a: Any, axis: Any = None, dtype: Any = None) -> Any:
            return _summed(a)

        return all_summed

    def lines_summed(a: Any, axis: Any = None, dtype: Any = None) -> Any:
        y = np.sum(plain(a), axis)
        made = room(y, a, a)
        cube = _cube(a, axis)
        to, given = line(made), line(y)
        for i in range(cube.shape[0]):
            for j in range(cube.shape[2]):
                k = i * cube.shape[2] + j
                to[k] = combined(given[k], cube[i, :, j], 1.0)
        return made

    return lines_summed if isinstance(axis, types.Integer) else None


@register_jitable
def _cube(a: Any, axis: int) -> Any:
    """Return an array as one of three dimensions: those before an axis, the axis, and those behind."""
    place = axis % a.ndim
    before = behind = 1
    for k in range(a.ndim):
        if k < place:
            before *= a.shape[k]
        elif k > place:
            behind *= a.shape[k]
    return a.copy().reshape((before, a.shape[place], behind))


def _cumulative(function: Any, name: str, together: Any) -> None:
    @register_jitable
    def cumulated(a: Any, axis: int) -> Any:
        made = a.copy()
        cube = _cube(a, axis)
        to = line(made)
        n, behind = cube.shape[1], cube.shape[2]
        for i in range(cube.shape[0]):
            for k in range(1, n):
                for j in range(behind):
                    at = (i * n + k) * behind + j
                    to[at] = together(to[at - behind], cube[i, k, j])
        return made

    def flat_of_any(a: Any, axis: Any = None) -> Any:
        return cumulated(line(a), 0)

    def along(a: Any, axis: Any = None) -> Any:
        return cumulated(a, axis)

    def of_active(a: Any, axis: Any = None) -> Any:
        if not active_array(a) and not complex_array(a):
            return None
        return flat_of_any if none_like(axis) else along

    overload(function, target="CPU")(of_active)
    method(name, function)


_cumulative(np.cumsum, "cumsum", operator.add)
_cumulative(np.cumprod, "cumprod", operator.mul)


# Values only ------------------------------------------------------------------------------------
def _holds_numbers(kind: Any) -> bool:
    return isinstance(kind, (Active, Dual)) or active_array(kind)


def _values_only(function: Any, parameters: str, looked_at: str, name: str = "") -> None:
    """Let a function of these parameters look at the values of some of them."""
    names = [part.split("=")[0].strip() for part in parameters.split(",")]
    passed = ", ".join(f"plain({name})" if name in looked_at.split() else name for name in names)
    active = " or ".join(f"holds_numbers({name})" for name in looked_at.split())
    text = (
        f"def of_active({parameters}):\n"
        f"    def of_values({parameters}):\n"
        f"        return function({passed})\n"
        f"    return of_values if {active} else None\n"
    )
    space: dict[str, Any] = {"plain": plain, "holds_numbers": _holds_numbers, "function": function}
    exec(text, space)
    overload(function, target="CPU")(space["of_active"])
    if name:
        method(name, function)


_values_only(np.around, "a, decimals=0", "a")
_values_only(np.round, "a, decimals=0", "a")
_values_only(np.argmax, "a, axis=None", "a", "argmax")
_values_only(np.argmin, "a, axis=None", "a", "argmin")
_values_only(np.any, "a", "a", "any")
_values_only(np.all, "a", "a", "all")
_values_only(np.nonzero, "a", "a", "nonzero")
_values_only(np.count_nonzero, "a, axis=None", "a")
_values_only(np.flatnonzero, "a", "a")
_values_only(np.argwhere, "a", "a")
_values_only(np.searchsorted, "a, v, side='left'", "a v")
_values_only(np.digitize, "x, bins, right=False", "x bins")
_values_only(np.array_equal, "a1, a2", "a1 a2")
_values_only(np.allclose, "a, b, rtol=1e-05, atol=1e-08, equal_nan=False", "a b")
_values_only(np.isclose, "a, b, rtol=1e-05, atol=1e-08, equal_nan=False", "a b")


@overload(np.argsort, target="CPU")
def _argsort(a: Any, kind: Any = "quicksort") -> Any:
    chosen = getattr(kind, "literal_value", None) or getattr(kind, "value", kind)

    def sorted_places(a: Any, kind: Any = "quicksort") -> Any:
        return np.argsort(plain_all(a), kind=chosen)

    return sorted_places if active_array(a) else None
