"""Own the Fourier transforms of whole arrays, split over the threads in pieces that stay in cache.

A transform over several axes takes few passes over memory: one over slabs (contiguous blocks, all their axes
at once) and, where a slab of everything would not fit, one over columns for each leading axis. Every pass
sees its array as three-dimensional, ``(outer, n, inner)``, so each dtype is compiled once and for all shapes.
What normalisation means, and what the axes may be, is settled by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import long_transforms, memory
from nbad.kernels.pieces import GROUP, contiguous, count, lines, run, scratch, transform

__all__ = ["c2c", "c2r", "r2c", "r2c_full"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]

SLAB = 1 << 20
"""Bytes up to which a slab is transformed over all its axes in one go."""


@jit
def _columns(x: Array, y: Array, width: int, forward: bool, factor: float, lo: int, hi: int) -> int:
    """Transform axis 1 of x, shape (b, n, r), into y, shape (b, m, r); a chunk is one b and width columns."""
    middle = np.array([1])
    blocks = -(-x.shape[2] // width)
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        stop = min(start + width, x.shape[2])
        transform(x[b : b + 1, :, start:stop], y[b : b + 1, :, start:stop], middle, forward, factor)
    return 1


@jit
def _slabs_out(
    x: Array, y: Array, steps: Array, group: int, forward: bool, factor: float, lo: int, hi: int
) -> int:
    """Transform slabs x, shape (l, p), into y, shape (l, q): the last axis first, then the others in place.

    steps, shape (k, 3), holds (n of the input, n of the output, inner) of each axis, the last axis first.
    """
    p, q = x.shape[1], y.shape[1]
    flat, result = x.reshape(x.size), y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        target = result[start * q : (start + size) * q]
        n_in, n_out, inner = steps[0, 0], steps[0, 1], steps[0, 2]
        outer = size * (p // (n_in * inner))
        lines(flat[start * p : (start + size) * p], target, outer, n_in, n_out, inner, forward, factor)
        for k in range(1, steps.shape[0]):
            n, inner = steps[k, 1], steps[k, 2]
            lines(target, target, size * (q // (n * inner)), n, n, inner, forward, 1.0)
    return 1


@jit
def _slabs_back(
    x: Array, y: Array, work: Array, steps: Array, group: int, factor: float, lo: int, hi: int
) -> int:
    """Undo `_slabs_out` for real y: x, shape (l, q), to y, shape (l, p); work holds one chunk of x."""
    q, p = x.shape[1], y.shape[1]
    flat, result = x.reshape(x.size), y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        source = flat[start * q : (start + size) * q]
        for k in range(steps.shape[0] - 1, 0, -1):
            n, inner = steps[k, 1], steps[k, 2]
            lines(source, work, size * (q // (n * inner)), n, n, inner, False, 1.0)
            source = work
        n_out, n_in, inner = steps[0, 0], steps[0, 1], steps[0, 2]
        target = result[start * p : (start + size) * p]
        lines(source, target, size * (q // (n_in * inner)), n_in, n_out, inner, False, factor)
    return 1


@jit
def _mirror(half: Array, full: Array, partner: Array, piece: int, lo: int, hi: int) -> int:
    """Fill full, shape (l, n, inner), from half, shape (l, n // 2 + 1, inner), and its conjugate mirrored.

    A chunk is `piece` bins of one row.
    """
    n, bins = full.shape[1], half.shape[1]
    count = -(-n // piece)
    for chunk in range(lo, hi):
        row, start = chunk // count, chunk % count * piece
        stop = min(start + piece, n)
        for j in range(start, min(stop, bins)):
            for i in range(full.shape[2]):
                full[row, j, i] = half[row, j, i]
        for j in range(max(start, bins), stop):
            for i in range(full.shape[2]):
                full[row, j, i] = np.conj(half[partner[row], n - j, i])
    return 1


def _leading(shape: Sequence[int], axes: Sequence[int], itemsize: int) -> int:
    """Return how many leading axes get a pass over columns each; the others share one over slabs."""
    for k in range(len(axes)):
        begin = axes[k] if k == 0 else axes[k - 1] + 1
        if math.prod(shape[begin:]) * itemsize <= SLAB:
            return k
    # No slab fits. Lines that are contiguous still make a slab each, strided ones do not.
    return len(axes) - 1 if axes[-1] == len(shape) - 1 else len(axes)


def _run_columns(x: Array, y: Array, axis: int, forward: bool, factor: float) -> None:
    """Transform one axis of contiguous x into contiguous y of equal shape but for that axis."""
    b, r = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    source, target = x.reshape(b, x.shape[axis], r), y.reshape(b, y.shape[axis], r)
    line = max(x.shape[axis] * x.itemsize, y.shape[axis] * y.itemsize)
    width = max(8, GROUP // line // 8 * 8)

    def task(lo: int, hi: int) -> int:
        return _columns(source, target, width, forward, factor, lo, hi)

    run(task, b * -(-r // width), x.nbytes + y.nbytes)


def _slab_steps(shape: Sequence[int], axes: Sequence[int], n_real: int) -> Array:
    """Return (n of the input, n of the output, inner) of the axes, the last first; shape: the spectrum's."""
    steps = [(shape[axis], shape[axis], math.prod(shape[axis + 1 :])) for axis in reversed(axes)]
    steps[0] = (n_real, steps[0][1], steps[0][2])
    return np.array(steps, np.int64)


def _run_slabs_out(x: Array, y: Array, axes: Sequence[int], begin: int, forward: bool, factor: float) -> None:
    """Transform contiguous x into contiguous y over axes that lie in the slabs ``shape[begin:]``."""
    slabs = math.prod(y.shape[:begin])
    source, target = x.reshape(slabs, -1), y.reshape(slabs, -1)
    steps = _slab_steps(y.shape, axes, x.shape[axes[-1]])
    group = max(1, GROUP // (target.shape[1] * y.itemsize))

    def task(lo: int, hi: int) -> int:
        return _slabs_out(source, target, steps, group, forward, factor, lo, hi)

    run(task, -(-slabs // group), x.nbytes + y.nbytes)


def _forward(x: Array, y: Array, axes: Sequence[int], forward: bool, factor: float) -> None:
    """Transform contiguous x, real or complex, into y, complex; no axis is long."""
    leading = _leading(y.shape, axes, y.itemsize)
    if leading < len(axes):
        begin = axes[leading - 1] + 1 if leading else axes[0]
        _run_slabs_out(x, y, axes[leading:], begin, forward, factor)
    else:
        leading -= 1
        _run_columns(x, y, axes[leading], forward, factor)
    for axis in reversed(axes[:leading]):
        _run_columns(y, y, axis, forward, 1.0)


def _lines_of(x: Array, axis: int) -> tuple[Array, Extents]:
    """Return the lines of x along an axis, shape (b, n), in C order, and the shape of the other axes."""
    moved = np.moveaxis(x, axis, -1)
    return contiguous(moved).reshape(-1, x.shape[axis]), moved.shape[:-1]


def _from_lines(y: Array, others: Extents, axis: int) -> Array:
    """Undo `_lines_of`."""
    return contiguous(np.moveaxis(y.reshape(*others, y.shape[1]), -1, axis))


def _long(x: Array, axes: Sequence[int]) -> list[int]:
    """Return which of the axes of complex lines are long."""
    itemsize = 2 * x.real.itemsize
    return [axis for axis in axes if long_transforms.is_long(x.shape[axis], False, itemsize)]


def _complex(x: Array, axes: Sequence[int], forward: bool, factor: float) -> Array:
    """Transform contiguous complex x over axes, long or not."""
    long = _long(x, axes)
    short = [axis for axis in axes if axis not in long]
    if short:
        y = memory.empty(x.shape, x.dtype)
        _forward(x, y, short, forward, factor)
        x, factor = y, 1.0
    for axis in long:
        given, others = _lines_of(x, axis)
        x = _from_lines(long_transforms.c2c(given, forward, factor), others, axis)
        factor = 1.0
    return x


def c2c(x: Array, axes: Sequence[int], forward: bool, factor: float) -> Array:
    """Transform a complex array.

    Parameters
    ----------
    x : ndarray of complex64 or complex128, shape (...)
        Any strides, no axis of length 0. Not modified.
    axes : sequence of int
        The transformed axes: non-negative, ascending, at least one.
    forward : bool
        Whether the exponent is negative.
    factor : float
        The scale.

    Returns
    -------
    ndarray of the dtype of `x`, shape of `x`
        The same bits for any number of threads.
    """
    count()
    return _complex(contiguous(x), axes, forward, factor)


def r2c(x: Array, axes: Sequence[int], factor: float) -> Array:
    """Transform a real array to the non-negative half of its spectrum.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., n, ...)
        Any strides, no axis of length 0. Not modified.
    axes : sequence of int
        The transformed axes: non-negative, ascending, at least one. The last one is halved.
    factor : float
        The scale.

    Returns
    -------
    ndarray of complex, shape (..., n // 2 + 1, ...)
        The same bits for any number of threads.
    """
    count()
    return _half(contiguous(x), axes, factor)


def _half(x: Array, axes: Sequence[int], factor: float) -> Array:
    """Transform contiguous real x to half its spectrum."""
    long = _long(x, axes[:-1])
    if long_transforms.is_long(x.shape[axes[-1]], True, 2 * x.itemsize):
        given, others = _lines_of(x, axes[-1])
        y = _from_lines(long_transforms.r2c(given, factor), others, axes[-1])
        return _complex(y, axes[:-1], True, 1.0)
    shape = list(x.shape)
    shape[axes[-1]] = shape[axes[-1]] // 2 + 1
    y = memory.empty(shape, np.result_type(x.dtype, np.complex64))
    _forward(x, y, [axis for axis in axes if axis not in long], True, factor)
    return _complex(y, long, True, 1.0)


def r2c_full(x: Array, axes: Sequence[int], factor: float) -> Array:
    """Transform a real array to its whole spectrum; half of it is computed, the rest is mirrored.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (...)
        Any strides, no axis of length 0. Not modified.
    axes : sequence of int
        The transformed axes: non-negative, ascending, at least one.
    factor : float
        The scale.

    Returns
    -------
    ndarray of complex, shape of `x`
        The same bits for any number of threads.
    """
    count()
    half = _half(contiguous(x), axes, factor)
    last = axes[-1]
    rows, inner = math.prod(x.shape[:last]), math.prod(x.shape[last + 1 :])
    full = memory.empty(x.shape, half.dtype)
    partner = np.zeros((1,) * last, np.int64)
    stride = 1
    for axis in range(last - 1, -1, -1):
        index = np.arange(x.shape[axis])
        if axis in axes:
            index = -index % x.shape[axis]
        partner = partner + (stride * index).reshape((-1,) + (1,) * (last - axis - 1))
        stride *= x.shape[axis]
    partner = partner.reshape(-1)
    source, target = half.reshape(rows, half.shape[last], inner), full.reshape(rows, x.shape[last], inner)
    piece = max(1, GROUP // (inner * full.itemsize))

    def task(lo: int, hi: int) -> int:
        return _mirror(source, target, partner, piece, lo, hi)

    run(task, rows * -(-x.shape[last] // piece), half.nbytes + full.nbytes)
    return full


def c2r(x: Array, axes: Sequence[int], n_last: int, factor: float) -> Array:
    """Transform half a spectrum back to a real array.

    Parameters
    ----------
    x : ndarray of complex64 or complex128, shape (..., n_last // 2 + 1, ...)
        Any strides. Not modified. Imaginary parts where the spectrum of a real array has none are ignored.
    axes : sequence of int
        The transformed axes: non-negative, ascending, at least one. The last one is halved.
    n_last : int
        Length of the last transformed axis of the result; at least 1.
    factor : float
        The scale.

    Returns
    -------
    ndarray of float, shape (..., n_last, ...)
        The same bits for any number of threads.
    """
    count()
    source = contiguous(x)
    last_is_long = long_transforms.is_long(n_last, True, source.itemsize)
    if last_is_long or _long(source, axes[:-1]):
        source, axes = _complex(source, axes[:-1], False, 1.0), axes[-1:]
    if last_is_long:
        given, others = _lines_of(source, axes[0])
        return _from_lines(long_transforms.c2r(given, n_last, factor), others, axes[0])
    shape = list(x.shape)
    shape[axes[-1]] = n_last
    y = memory.empty(shape, source.real.dtype)
    leading = _leading(x.shape, axes, source.itemsize)
    work = source
    for axis in axes[: min(leading, len(axes) - 1)]:
        target = work if work is not source else memory.empty(source.shape, source.dtype)
        _run_columns(work, target, axis, False, 1.0)
        work = target
    if leading == len(axes):
        _run_columns(work, y, axes[-1], False, factor)
        return y
    begin = axes[leading - 1] + 1 if leading else axes[0]
    slabs = math.prod(x.shape[:begin])
    steps = _slab_steps(x.shape, axes[leading:], n_last)
    spectrum, result = work.reshape(slabs, -1), y.reshape(slabs, -1)
    group = max(1, GROUP // (spectrum.shape[1] * work.itemsize))
    buffer_size = group * spectrum.shape[1] if len(steps) > 1 else 1

    def task(lo: int, hi: int) -> int:
        buffer = scratch(buffer_size, work.dtype)
        return _slabs_back(spectrum, result, buffer, steps, group, factor, lo, hi)

    run(task, -(-slabs // group), work.nbytes + y.nbytes)
    return y
