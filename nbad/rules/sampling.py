"""Sampled functions: their interpolation, slopes, areas and running sums, and the points at which one samples.

Owns the rows `i0` and `i1`, Bessel functions, and NumPy's functions composed of indexing and arithmetic.
"""

import operator
from typing import Any

import numpy as np

from nbad.constants import plainly
from nbad.recorder import dtype_of
from nbad.rules.reductions import refuse_out
from nbad.rules.shaping import along, as_operand, axis_index, axis_tuple, shape_of
from nbad.table import binds, elementwise, forward_only
from nbad.trace import apply, cast, is_traced, plain, underlying

UNWRAP = forward_only(np.unwrap)


# Running sums -------------------------------------------------------------------------------------
def _cumulative(
    name: str, run: Any, first: int, x: Any, axis: Any, dtype: Any, out: Any, initial: bool
) -> Any:
    refuse_out(name, out)
    x = as_operand(x)
    ndim = len(shape_of(x))
    if ndim == 0:
        x, ndim = np.reshape(x, (1,)), 1
    if axis is None:
        if ndim > 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
        axis = 0
    found = run(x, axis=axis, dtype=dtype)
    if not initial:
        return found
    shape = list(found.shape)
    shape[axis] = 1
    return np.concatenate([np.full(shape, first, found.dtype), found], axis=axis)


@binds(np.cumulative_sum)
def cumulative_sum(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Any:
    return _cumulative("np.cumulative_sum", np.cumsum, 0, x, axis, dtype, out, include_initial)


@binds(np.cumulative_prod)
def cumulative_prod(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Any:
    return _cumulative("np.cumulative_prod", np.cumprod, 1, x, axis, dtype, out, include_initial)


@binds(np.nancumsum)
def nancumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    return np.cumsum(np.where(np.isnan(plain(a)), 0, a), axis, dtype, out)


@binds(np.nancumprod)
def nancumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    return np.cumprod(np.where(np.isnan(plain(a)), 1, a), axis, dtype, out)


# Slopes and areas ---------------------------------------------------------------------------------
@binds(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = as_operand(y)
    axis = axis_index(axis, len(shape_of(y)))
    if x is not None:
        x = as_operand(x)
        if len(shape_of(x)) == 1:
            dx = np.reshape(np.diff(x), (-1,) + (1,) * (len(shape_of(y)) - 1 - axis))
        else:
            dx = np.diff(x, axis=axis)
    heights = y[along(axis, slice(1, None))] + y[along(axis, slice(None, -1))]
    return np.sum(dx * heights / 2.0, axis=axis)


def _spacings(f: Any, varargs: tuple[Any, ...], axes: tuple[int, ...]) -> list[Any]:
    """Return the spacing along each axis: a number, or the differences of coordinates."""
    given = [as_operand(v) for v in varargs]
    if not given:
        return [1.0] * len(axes)
    if len(given) == 1 and shape_of(given[0]) == ():
        return given * len(axes)
    if len(given) != len(axes):
        raise TypeError("invalid number of arguments")
    found = []
    for x, axis in zip(given, axes, strict=True):
        if len(shape_of(x)) > 1:
            raise ValueError("distances must be either scalars or 1d")
        if shape_of(x) and shape_of(x)[0] != shape_of(f)[axis]:
            raise ValueError("when 1d, distances must match the length of the corresponding dimension")
        if shape_of(x):
            x = np.diff(x.astype(np.float64) if x.dtype.kind in "iu" else x)
            if not is_traced(x) and np.all(x == x[0]):
                x = x[0]
        found.append(x)
    return found


def _slope(f: Any, dx: Any, axis: int, edge_order: int) -> Any:
    """Return the slope of `f` along `axis`: of second order inside, of `edge_order` at the ends."""

    def at(start: int | None, end: int | None) -> Any:
        return f[along(axis, slice(start, end))]

    even = shape_of(dx) == ()
    if even:
        inner = (at(2, None) - at(None, -2)) / (2.0 * dx)
    else:
        column = (-1,) + (1,) * (len(shape_of(f)) - 1 - axis)
        h, k = np.reshape(dx[:-1], column), np.reshape(dx[1:], column)
        inner = (
            -k / (h * (h + k)) * at(None, -2)
            + (k - h) / (h * k) * at(1, -1)
            + h / (k * (h + k)) * at(2, None)
        )
    if edge_order == 1:
        first = (at(1, 2) - at(0, 1)) / (dx if even else dx[0])
        last = (at(-1, None) - at(-2, -1)) / (dx if even else dx[-1])
    else:
        h, k = (dx, dx) if even else (dx[0], dx[1])
        first = (
            -(2.0 * h + k) / (h * (h + k)) * at(0, 1)
            + (h + k) / (h * k) * at(1, 2)
            - h / (k * (h + k)) * at(2, 3)
        )
        h, k = (dx, dx) if even else (dx[-2], dx[-1])
        last = (
            k / (h * (h + k)) * at(-3, -2) - (k + h) / (h * k) * at(-2, -1)
            + (2.0 * k + h) / (k * (h + k)) * at(-1, None)
        )  # fmt: skip
    return np.concatenate([first, inner, last], axis=axis)


@binds(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    f = as_operand(f)
    if f.dtype.kind not in "fc":
        f = cast(f, np.dtype(np.float64))
    ndim = len(shape_of(f))
    axes = tuple(range(ndim)) if axis is None else axis_tuple(axis, ndim)
    spacings = _spacings(f, varargs, axes)
    if edge_order not in (1, 2):
        raise ValueError("'edge_order' greater than 2 not supported")
    if any(shape_of(f)[d] < edge_order + 1 for d in axes):
        raise ValueError(
            "Shape of array too small to calculate a numerical gradient, at least (edge_order + 1) elements are required."
        )
    # The result has the dtype of f, whatever that of the spacing is.
    found = tuple(cast(_slope(f, dx, d, edge_order), f.dtype) for d, dx in zip(axes, spacings, strict=True))
    return found[0] if len(found) == 1 else found


# Interpolation ------------------------------------------------------------------------------------
@binds(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    fp = as_operand(fp)
    kind = np.dtype(np.complex128 if dtype_of(fp).kind == "c" else np.float64)
    x, xp = (cast(as_operand(v), np.dtype(np.float64)) for v in (x, xp))
    fp = cast(fp, kind)
    if len(shape_of(xp)) != 1 or len(shape_of(fp)) != 1:
        raise ValueError("Data points must be 1-D sequences")
    if shape_of(xp) != shape_of(fp):
        raise ValueError("fp and xp are not of the same length.")
    if shape_of(xp)[0] == 0:
        raise ValueError("array of sample points is empty")
    if period is not None:
        if plain(period) == 0:
            raise ValueError("period must be a non-zero value")
        period, left, right = np.absolute(period), None, None
        x, xp = np.remainder(x, period), np.remainder(xp, period)
        order = np.argsort(plain(xp))
        xp, fp = xp[order], fp[order]
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    # At a point of the data the slope is that of the piece on its right; at the last one of the piece on its left.
    count, at = shape_of(xp)[0], plain(x)
    piece = np.clip(np.searchsorted(plain(xp), at, side="right") - 1, 0, max(count - 2, 0))
    if count > 1:
        width = np.diff(xp)
        slopes = np.diff(fp) / np.where(plain(width) == 0, 1, width)
        start = np.where(at == plain(xp)[-1], count - 1, piece)
        found = slopes[piece] * (x - xp[start]) + fp[start]
    else:
        found = fp[0] + 0 * x
    low = fp[0] if left is None else left
    high = fp[-1] if right is None else right
    return np.where(at < plain(xp)[0], low, np.where(at > plain(xp)[-1], high, found))


@binds(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Any:
    p = as_operand(p)
    if p.dtype.kind not in "f":
        return plainly(np.unwrap, UNWRAP, p, discont, axis, period=period)
    axis = axis_index(axis, len(shape_of(p)))
    turn = plain(period)
    half = turn / 2
    steps = np.diff(plain(p), axis=axis)
    wrapped = np.mod(steps + half, turn) - half
    wrapped = np.where((wrapped == -half) & (steps > 0), half, wrapped)
    turns = np.where(
        np.absolute(steps) < (half if discont is None else plain(discont)),
        0,
        np.rint((wrapped - steps) / turn),
    )
    turns = np.cumsum(cast(turns, p.dtype), axis=axis)
    none = np.zeros(tuple(1 if d == axis else n for d, n in enumerate(shape_of(p))), p.dtype)
    if turns.shape[axis] == 0 and shape_of(p)[axis] == 0:
        return np.positive(p)
    return p + np.concatenate([none, turns], axis=axis) * period


# Points -------------------------------------------------------------------------------------------
@binds(np.linspace)
def linspace(start: Any, stop: Any, num: Any = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
             axis: int = 0, *, device: Any = None) -> Any:  # fmt: skip
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    start, stop = as_operand(start), as_operand(stop)
    kind = np.result_type(underlying(start), underlying(stop), 0.0)
    start, stop = cast(start, kind), cast(stop, kind)
    parts = num - 1 if endpoint else num
    delta = stop - start
    step = delta / parts if parts > 0 else np.nan
    numbers = np.arange(num).astype(kind).reshape((-1,) + (1,) * len(shape_of(delta)))
    found = numbers * (step if parts > 0 else delta) + start
    if endpoint and num > 1:
        found = np.concatenate([found[:-1], np.broadcast_to(stop, found.shape[1:])[None]])
    found = np.moveaxis(found, 0, axis)
    if dtype is not None:
        whole = np.dtype(dtype).kind in "iu"
        found = cast(np.floor(found) if whole else found, np.dtype(dtype))
    return (found, step) if retstep else found


@binds(np.logspace)
def logspace(start: Any, stop: Any, num: Any = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None,
             axis: int = 0) -> Any:  # fmt: skip
    if shape_of(base):
        start, stop, base = map(as_operand, (start, stop, base))
        ndim = max(len(shape_of(v)) for v in (start, stop, base))
        start, stop, base = (
            np.reshape(v, (1,) * (ndim - len(shape_of(v))) + shape_of(v)) for v in (start, stop, base)
        )
        base = np.expand_dims(base, axis)
    found = np.power(base, linspace(start, stop, num, endpoint, axis=axis))
    return found if dtype is None else cast(found, np.dtype(dtype))


@binds(np.geomspace)
def geomspace(
    start: Any, stop: Any, num: Any = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Any:
    start, stop = as_operand(start), as_operand(stop)
    if np.any(plain(start) == 0) or np.any(plain(stop) == 0):
        raise ValueError("Geometric sequence cannot include zero")
    kind = np.result_type(underlying(start), underlying(stop), np.zeros((), dtype))
    start, stop = cast(start, kind), cast(stop, kind)
    sign = np.sign(start)
    ends = np.log10(start / sign), np.log10(stop / sign)
    found = logspace(*ends, num, endpoint) * sign
    shape = found.shape[1:]
    parts = [np.broadcast_to(start, shape)[None], found[1 : -1 if endpoint else None]]
    parts += [np.broadcast_to(stop, shape)[None]] if endpoint and num > 1 else []
    found = np.moveaxis(np.concatenate(parts) if num > 0 else found, 0, axis)
    return found if dtype is None else cast(found, np.dtype(dtype))


# Bessel functions ---------------------------------------------------------------------------------
def i0_x(g: Any, x: Any) -> Any:
    return g * apply(I1, x)


def i1_forward(x: Any) -> Any:
    """Return the modified Bessel function I1 of real numbers, from I0 and the continued fraction of their ratio."""
    x = np.asarray(x)
    # The error of a start at order n shrinks to (I_n / I_0)**2, which is about exp(-n**2 / x).
    orders = 16 + int(6 * np.sqrt(np.max(np.abs(x), initial=0, where=np.isfinite(x))))
    ratio = np.sign(x)
    with np.errstate(divide="ignore", over="ignore"):
        for order in range(orders, 0, -1):
            ratio = 1 / (2 * order / x + ratio)
    return np.i0(x) * ratio


def i1_x(g: Any, x: Any) -> Any:
    zero = plain(x) == 0
    return g * (np.i0(x) - np.where(zero, 0.5, apply(I1, x) / np.where(zero, 1, x)))


I0 = elementwise(np.i0, x=i0_x)
I1 = elementwise(i1_forward, name="i1", x=i1_x)


@binds(np.i0)
def i0(x: Any) -> Any:
    x = as_operand(x)
    if x.dtype.kind == "c":
        raise TypeError("i0 not supported for complex values")
    return apply(I0, x if x.dtype.kind == "f" else cast(x, np.dtype(np.float64)))
