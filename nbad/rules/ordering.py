"""Order: parts of sorted arrays, medians and quantiles, extrema that pass over nan.

Owns no rows: all are composed of a plain `argsort` or `argpartition` and of taking elements at the places that it found, so
only the elements that a result is made of get a cotangent; of equal ones, those that NumPy's partition puts there.

References
----------
R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", 1996 (the methods of quantiles).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.constants import plainly
from nbad.methods import user_level
from nbad.rules.indexing import take_along
from nbad.rules.reductions import ABSENT, axes_of, kept_shape, max_, mean, min_, refuse_out
from nbad.rules.shaping import as_operand, ravel, shape_of
from nbad.table import BINDINGS, binds, forward_only
from nbad.trace import cast, plain

Shape = tuple[int, ...]

QUANTILE = forward_only(np.quantile)
NANQUANTILE = forward_only(np.nanquantile)


# Parts --------------------------------------------------------------------------------------------
@binds(np.partition)
def partition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Any:
    a = as_operand(a)
    if axis is None:
        a, axis = ravel(a), 0
    return take_along(a, np.argpartition(plain(a), kth, axis), axis, unique=True)


@binds(np.sort_complex)
def sort_complex(a: Any) -> Any:
    found = np.sort(a, -1)
    return found if found.dtype.kind == "c" else cast(found, np.dtype(np.complex128))


# Medians ------------------------------------------------------------------------------------------
def _lined(a: Any, axis: Any) -> tuple[Any, Shape]:
    """Return `a` with the axes that are reduced as one last axis, and the axes."""
    axes = axes_of(a, axis)
    free = tuple(d for d in range(a.ndim) if d not in axes)
    line = np.transpose(a, (*free, *axes)) if axes else a
    return np.reshape(line, (*(a.shape[d] for d in free), math.prod(a.shape[d] for d in axes))), axes


def _ordered(line: Any, numbers: Any) -> Any:
    """Return an order of each line in which the elements of `numbers` are where sorting puts them.

    Every place of a line with a nan is that of a nan.
    """
    if line.dtype.kind not in "fc":
        return np.argpartition(plain(line), numbers, axis=-1)
    # Sorting puts nan last.
    order = np.argpartition(plain(line), np.concatenate([numbers, [line.shape[-1] - 1]]), axis=-1)
    last = order[..., -1:]
    return np.where(np.isnan(np.take_along_axis(plain(line), last, -1)), last, order)


def _count(line: Any) -> Any:
    """Return how many elements of each line are not nan, and warn where none is."""
    found = np.count_nonzero(~np.isnan(plain(line)), axis=-1, keepdims=True)
    if np.any(found == 0):
        warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=user_level())
    return found


def _kept(found: Any, a: Any, axes: Shape, keepdims: Any) -> Any:
    """Return a result in the shape that `keepdims` asks for."""
    keep = keepdims is not ABSENT and keepdims
    return np.reshape(found, kept_shape(a.shape, axes)) if keep else found


@binds(np.median)
def median(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False
) -> Any:
    refuse_out("np.median", out)
    a = as_operand(a)
    line, axes = _lined(a, axis)
    n = line.shape[-1]
    if n == 0:
        return mean(a, axes, keepdims=keepdims)
    middle: Any = [n // 2] if n % 2 else [n // 2 - 1, n // 2]
    found = np.mean(np.take_along_axis(line, _ordered(line, middle)[..., middle], -1), axis=-1)
    return _kept(found, a, axes, keepdims)


@binds(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = ABSENT
) -> Any:
    refuse_out("np.nanmedian", out)
    a = as_operand(a)
    line, axes = _lined(a, axis)
    if line.shape[-1] == 0:
        return np.nanmean(a, axis=axes, keepdims=keepdims)
    count = _count(line)
    middle = np.concatenate([np.maximum(count - 1, 0) // 2, count // 2], axis=-1)
    order = np.argsort(plain(line), axis=-1)
    places = np.take_along_axis(order, middle, -1)
    return _kept(np.mean(np.take_along_axis(line, places, -1), axis=-1), a, axes, keepdims)


# Quantiles ----------------------------------------------------------------------------------------
#: Alpha and beta of Hyndman and Fan.
_CONTINUOUS = {
    "interpolated_inverted_cdf": (0, 1), "hazen": (0.5, 0.5), "weibull": (0, 0),
    "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8),
}  # fmt: skip
_DISCRETE: dict[str, Callable[..., Any]] = {"lower": np.floor, "higher": np.ceil, "nearest": np.around}
_METHODS = (
    "linear", *_CONTINUOUS, *_DISCRETE, "midpoint", "inverted_cdf", "averaged_inverted_cdf", "closest_observation",
)  # fmt: skip


def _stepped(method: str, n: Any, q: Any) -> Any:
    """Return the place that a method without interpolation takes among `n` sorted elements; None for other methods."""
    if method in _DISCRETE:
        return _DISCRETE[method]((n - 1) * q)
    if method == "inverted_cdf":
        return np.maximum(np.ceil(n * q - 1), 0)
    if method == "closest_observation":
        place = n * q - 1.5
        down = (np.floor(place) == place) & (np.floor(place) % 2 == 1)
        return np.maximum(np.where(down, place, np.floor(place) + 1), 0)
    return None


def _between(method: str, n: Any, q: Any) -> tuple[Any, Any]:
    """Return the place between two sorted elements, and how far it is from the one below as a method counts it."""
    if method == "midpoint":
        place = 0.5 * (np.floor((n - 1) * plain(q)) + np.ceil((n - 1) * plain(q)))
        return place, np.where(place % 1 == 0, 0, 0.5)
    if method == "averaged_inverted_cdf":
        place = n * plain(q) - 1
        return place, np.where(place % 1 == 0, 0.5, 1)
    if method == "linear":
        place = (n - 1) * q
    else:
        alpha, beta = _CONTINUOUS[method]
        place = n * q + (alpha + q * (1 - alpha - beta)) - 1
    return place, place - np.floor(plain(place))


def _interpolated(line: Any, n: Any, q: Any, method: str) -> Any:
    """Return the quantiles of lines along the last axis; `n` counts the elements that are not nan, if they may be some."""
    shape = (*line.shape[:-1], q.shape[0])
    step = _stepped(method, n, plain(q))
    if step is None:
        place, t = _between(method, n, q)
        below = np.floor(plain(place))
        wanted = [below, below + 1]
    else:
        wanted = [step]
    wanted = [np.clip(number, 0, np.maximum(n - 1, 0)).astype(np.intp) for number in wanted]
    if isinstance(n, int):
        order = _ordered(line, np.concatenate(wanted))
    else:
        order = np.argsort(plain(line), axis=-1)
    places = [np.take_along_axis(order, np.broadcast_to(number, shape), -1) for number in wanted]
    low, *rest = [np.take_along_axis(line, place, -1) for place in places]
    if not rest:
        return low
    high = rest[0]
    t = cast(t, place.dtype)
    difference = high - low
    return np.where(plain(t) >= 0.5, high - difference * (1 - t), low + difference * t)


def _weighted(name: str, line: Any, q: Any, weights: Any, a: Any, axis: Any) -> Any:
    """Return weighted quantiles, which are elements of the lines: those that NumPy's values are equal to."""
    function, op = (np.nanquantile, NANQUANTILE) if name.startswith("np.nan") else (np.quantile, QUANTILE)
    found = plainly(function, op, plain(a), plain(q), axis, method="inverted_cdf", weights=plain(weights))
    found = np.moveaxis(found, 0, -1)[..., None]
    lines = plain(line)[..., None, :]
    places = np.argmax((lines == found) | (np.isnan(lines) & np.isnan(found)), axis=-1)
    return np.take_along_axis(line, places, -1)


def _quantile(
    name: str, a: Any, q: Any, unit: float, axis: Any, out: Any, method: str, keepdims: Any, weights: Any
) -> Any:
    refuse_out(name, out)
    a = as_operand(a)
    if a.dtype.kind == "c":
        raise TypeError("a must be an array of real numbers")
    # A plain number has the dtype of the array, as in NumPy.
    kind = a.dtype.type if a.dtype.kind == "f" else np.float64
    q = kind(q) if type(q) in (int, float) else as_operand(q)
    q = q / kind(unit) if unit != 1 else q
    if not np.all((plain(q) >= 0) & (plain(q) <= 1)):
        what = (
            "Percentiles must be in the range [0, 100]"
            if unit != 1
            else "Quantiles must be in the range [0, 1]"
        )
        raise ValueError(what)
    if method not in _METHODS:
        raise ValueError(f"{method!r} is not a valid method. Use one of: {_METHODS}")
    line, axes = _lined(a, axis)
    flat = np.reshape(q, (-1,))
    if weights is not None:
        if method != "inverted_cdf":
            raise ValueError(f"Only method 'inverted_cdf' supports weights. Got: {method}.")
        found = _weighted(name, line, flat, weights, a, axis)
    elif name.startswith("np.nan"):
        found = _interpolated(line, cast(_count(line), flat.dtype), flat, method)
    else:
        found = _interpolated(line, line.shape[-1], flat, method)
    keep = keepdims is not ABSENT and keepdims
    rest = kept_shape(a.shape, axes) if keep else found.shape[:-1]
    return np.reshape(np.moveaxis(found, -1, 0), (*shape_of(q), *rest))


def _bind_quantiles(function: Callable[..., Any], name: str, unit: float, keepdims_default: Any) -> None:
    def bound(a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
              keepdims: Any = keepdims_default, *, weights: Any = None) -> Any:  # fmt: skip
        return _quantile(name, a, q, unit, axis, out, method, keepdims, weights)

    BINDINGS[function] = bound


_bind_quantiles(np.quantile, "np.quantile", 1, False)
_bind_quantiles(np.percentile, "np.percentile", 100, False)
_bind_quantiles(np.nanquantile, "np.nanquantile", 1, ABSENT)
_bind_quantiles(np.nanpercentile, "np.nanpercentile", 100, ABSENT)


# Extrema that pass over nan -----------------------------------------------------------------------
def _nan_extremum(name: str, function: Callable[..., Any], worst: float, a: Any, axis: Any, out: Any, keepdims: Any,
                  initial: Any, where: Any) -> Any:  # fmt: skip
    refuse_out(name, out)
    a = as_operand(a)
    if a.dtype.kind not in "fc":
        return function(a, axis, keepdims=keepdims, initial=initial, where=where)
    missing = np.isnan(plain(a))
    found = function(np.where(missing, worst, a), axis, keepdims=keepdims, initial=initial, where=where)
    options = {"keepdims": keepdims, "where": where}
    lost = np.all(missing, axis=axis, **{key: x for key, x in options.items() if x is not ABSENT})
    if initial is ABSENT and np.any(lost):
        warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=user_level())
        return np.where(lost, np.nan, found)
    return found


@binds(np.nanmax)
def nanmax(a: Any, axis: Any = None, out: Any = None, keepdims: Any = ABSENT, initial: Any = ABSENT,
           where: Any = ABSENT) -> Any:  # fmt: skip
    return _nan_extremum("np.nanmax", max_, -np.inf, a, axis, out, keepdims, initial, where)


@binds(np.nanmin)
def nanmin(a: Any, axis: Any = None, out: Any = None, keepdims: Any = ABSENT, initial: Any = ABSENT,
           where: Any = ABSENT) -> Any:  # fmt: skip
    return _nan_extremum("np.nanmin", min_, np.inf, a, axis, out, keepdims, initial, where)
