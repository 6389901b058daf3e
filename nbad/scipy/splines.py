"""Interpolation by splines, as ``scipy.ndimage`` does it, with derivatives in the image and in the coordinates.

Owns the rows `prefilter` (samples to spline coefficients), `sample` (the spline, or one of its derivatives, at points) and
`spread` (the adjoint of `sample`); the last two are the pullbacks of each other, with one derivative more for the coordinates.
"""

import functools
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np

from nbad.scipy import required
from nbad.scipy.extending import extended, mode_of
from nbad.table import operation
from nbad.trace import apply, cast

ndimage = required("ndimage")

#: Samples put before and after, where the boundary mode has no exact spline coefficients.
PADDING = 12
#: SciPy before 1.18 begins the recursion at a reflected edge with an error that only axes shorter than this see.
SHORT = 32
#: How SciPy's prefilter continues the image, by boundary mode: "mirror" for the others.
PREFILTERS = {"nearest": "reflect", "reflect": "reflect", "grid-mirror": "reflect", "grid-wrap": "grid-wrap"}


MODES = ("constant", "grid-constant", "nearest", "reflect", "grid-mirror", "mirror", "wrap", "grid-wrap")


# B-splines ----------------------------------------------------------------------------------------
@functools.lru_cache(32)
def pieces(order: int, slope: int) -> tuple[tuple[float, ...], ...]:
    """Return the polynomial of each tap of the B-spline's derivative `slope`, in the distance of the point from the middle.

    The distance is from the sample at or before the point for odd orders, from the nearest sample for even ones. Exact:
    ``sum_k (-1)^k C(n + 1, k) max(t + (n + 1) / 2 - k, 0)^n / n!``, expanded where the terms do not vanish.
    """
    found = []
    for tap in range(order + 1):
        shift = Fraction(
            order // 2 - tap
        )  # t = u + shift; u in [0, 1) for odd orders, [-1/2, 1/2) for even ones
        low = shift if order % 2 else shift - Fraction(1, 2)
        coefficients = [Fraction(0)] * (order + 1)
        for k in range(order + 2):
            start = Fraction(order + 1, 2) - k
            if low + start >= 0:
                sign = (-1) ** k * math.comb(order + 1, k)
                for j in range(order + 1):
                    coefficients[j] += sign * math.comb(order, j) * (shift + start) ** (order - j)
        coefficients = [c / math.factorial(order) for c in coefficients]
        for _ in range(slope):
            coefficients = [j * c for j, c in enumerate(coefficients)][1:] or [Fraction(0)]
        found.append(tuple(map(float, coefficients)))
    return tuple(found)


def taps(p: np.ndarray, n: int, order: int, mode: str, slope: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for points `p` on one axis which of `n` coefficients count, and how much: shapes (order + 1, points).

    Index -1 stands for the constant beyond the edges.
    """
    inside: Any = True
    if mode == "constant":
        inside = (p >= 0) & (p <= n - 1)
        p = np.where(inside, p, 0.0)
    elif mode == "wrap" and n > 1:  # of both ends, which are one point, SciPy reads the one that it comes to
        turns = np.trunc(p / (n - 1))
        p = np.where(p < 0, p + (n - 1) * (1 - turns), np.where(p > n - 1, p - (n - 1) * turns, p))
    elif (
        order == 0 and n > 1
    ):  # halves are rounded up inside, so points outside are first mirrored, as SciPy does
        if mode in ("reflect", "grid-mirror"):
            p = p % (2 * n)
            p = np.where(p >= n, 2 * n - 1 - p, p)
        elif mode == "mirror":
            edge = np.where(p < 0, n - 1, n)
            p = np.abs(p) % (2 * n - 2)
            p = np.where(p >= edge, 2 * n - 2 - p, p)
    first = np.floor(p if order % 2 else p + 0.5)
    u = p - first
    weights = np.stack([np.polynomial.polynomial.polyval(u, c) for c in pieces(order, slope)])
    index = first.astype(np.intp) - order // 2 + np.arange(order + 1).reshape(-1, *(1,) * p.ndim)
    if mode == "grid-constant":
        return np.where((index >= 0) & (index < n), index, -1), weights
    if mode == "grid-wrap":
        index %= n
    elif mode in ("reflect", "grid-mirror"):
        index %= 2 * n
        index = np.minimum(index, 2 * n - 1 - index)
    elif mode == "nearest":
        index = np.clip(index, 0, n - 1)
        inside = not slope or index[0] < index[-1]  # where all taps read the edge, the slope is 0 exactly
    else:
        period = max(2 * n - 2, 1)
        index %= period
        index = np.minimum(index, (period - index) % period) if n > 1 else index
    return np.where(inside, index, -1), weights


def each_tap(p: Any, shape: Any, order: int, mode: str, slopes: Any) -> Any:
    """Yield (index, weights, inside) of each product of taps: the points read ``c[index]``, of which there is none outside."""
    axes = [taps(p[k], shape[k], order, mode, slope) for k, slope in enumerate(slopes)]
    for chosen in itertools.product(range(order + 1), repeat=len(axes)):
        index = tuple(axes[k][0][tap] for k, tap in enumerate(chosen))
        weight = math.prod([axes[k][1][tap] for k, tap in enumerate(chosen)], start=np.ones(()))
        inside = np.logical_and.reduce([i >= 0 for i in index])
        yield index, weight, inside


def widened(weight: Any, c: Any, count: int) -> Any:
    """Return `weight` with dimensions for the axes of `c` that are not interpolated."""
    return np.reshape(weight, (*np.shape(weight), *(1,) * (np.ndim(c) - count)))


# The rows -----------------------------------------------------------------------------------------
def sample_forward(c, p, *, order, mode, cval, slopes):
    """Return the spline of coefficients `c`, or its derivative of order `slopes`, at the points `p`."""
    count = len(slopes)
    if not any(slopes) and count == c.ndim:
        return ndimage.map_coordinates(c, p, order=order, mode=mode, cval=cval, prefilter=False)
    y = np.zeros((*p.shape[1:], *c.shape[count:]), c.dtype)
    outside = cval if mode == "grid-constant" else 0.0
    for index, weight, inside in each_tap(p, c.shape, order, mode, slopes):
        inside = widened(inside, c, count)
        y += widened(weight, c, count) * np.where(inside, c[index], outside)
    if mode == "constant" and cval and not any(slopes):
        beyond = np.any([(x < 0) | (x > n - 1) for x, n in zip(p, c.shape, strict=False)], axis=0)
        y[beyond] = cval
    return y


def sample_c(g, p, c_shape, order, mode, slopes):
    return apply(SPREAD, g, p, shape=c_shape, order=order, mode=mode, slopes=slopes)


def sample_p(g, c, p, order, mode, cval, slopes):
    return along_axes(g, c, p, order, mode, cval, slopes)


def along_axes(w, c, p, order, mode, cval, slopes):
    """Return `w` times the derivative along each axis, summed over the axes that are not interpolated."""
    count = len(slopes)
    last = tuple(range(np.ndim(p) - 1, np.ndim(p) - 1 + np.ndim(c) - count))
    parts = []
    for k in range(count):
        more = tuple(slope + (k == j) for j, slope in enumerate(slopes))
        part = np.real(w * np.conj(apply(SAMPLE, c, p, order=order, mode=mode, cval=cval, slopes=more)))
        parts.append(np.sum(part, axis=last) if last else part)
    return np.stack(parts)


def spread_forward(w, p, *, shape, order, mode, slopes):
    """Return coefficients of `shape`, to which the points `p` give their values `w`."""
    count = len(slopes)
    c = np.zeros(shape, w.dtype)
    for index, weight, inside in each_tap(p, shape, order, mode, slopes):
        np.add.at(c, index, np.where(widened(inside, c, count), widened(weight, c, count) * w, 0))
    return c


def spread_w(g, p, order, mode, slopes):
    return apply(SAMPLE, g, p, order=order, mode=mode, cval=0.0, slopes=slopes)


def spread_p(g, w, p, order, mode, slopes):
    return along_axes(w, g, p, order, mode, 0.0, slopes)


def prefilter_forward(x, *, axis, order, mode):
    """Return the spline coefficients along `axis`, in double precision."""
    kind = np.complex128 if x.dtype.kind == "c" else np.float64
    return ndimage.spline_filter1d(x, order, axis, kind, mode)


def prefilter_x(g, x_shape, axis, order, mode):
    n = x_shape[axis]
    if n < SHORT and PREFILTERS.get(mode) == "reflect":
        matrix = prefilter_forward(np.eye(n), axis=0, order=order, mode=mode)
        return np.moveaxis(np.tensordot(matrix, g, ((0,), (axis,))), 0, axis)
    # The matrix of the samples is symmetric; where the edges are mirrored, once the samples at the edges count half.
    ends = np.ones(x_shape[axis])
    if PREFILTERS.get(mode, "mirror") == "mirror" and x_shape[axis] > 1:
        ends[[0, -1]] = 0.5
    ends = ends.reshape(-1, *(1,) * (len(x_shape) - 1 - axis))
    return apply(PREFILTER, g / ends, axis=axis, order=order, mode=mode) * ends


SAMPLE = operation(sample_forward, name="scipy.splines.sample", c=sample_c, p=sample_p)
SPREAD = operation(spread_forward, name="scipy.splines.spread", w=spread_w, p=spread_p)
PREFILTER = operation(prefilter_forward, name="scipy.splines.prefilter", linear=True, x=prefilter_x)


# What the functions of `nbad.scipy.ndimage` are made of ------------------------------------------------
def interpolated(x: Any, p: Any, order: int, mode: str, cval: Any, prefilter: bool) -> Any:
    """Return `x` at the points `p`, shape (axes, ...), of its leading axes.

    Raises
    ------
    RuntimeError
        An order that SciPy does not have, or an unknown mode.
    """
    if not 0 <= order <= 5:
        raise RuntimeError("spline order not supported")
    if mode not in MODES:
        raise RuntimeError(f"boundary mode not supported: {mode!r}")
    count = p.shape[0]
    c = (
        x
        if x.dtype.itemsize >= 8 and x.dtype != np.complex64
        else cast(x, np.result_type(x.dtype, np.float64))
    )
    if prefilter and order > 1:
        if mode in ("nearest", "grid-constant"):
            for axis in range(count):
                c = extended(c, axis, PADDING, PADDING, mode_of(mode), cval)
            p = p + float(PADDING)
        for axis in range(count):
            c = apply(PREFILTER, c, axis=axis, order=order, mode=mode)
    y = apply(SAMPLE, c, p, order=order, mode=mode, cval=cval, slopes=(0,) * count)
    return y if y.dtype == x.dtype else cast(y, x.dtype)
