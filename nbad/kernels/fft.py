"""Own the Fourier transforms of whole arrays, split over the threads in pieces that stay in cache.

A transform over several axes takes few passes over memory: one over slabs (contiguous blocks, all their axes
at once) and, where a slab of everything would not fit, one over columns for each leading axis. Every pass
sees its array as three-dimensional, ``(outer, n, inner)``, so each dtype is compiled once and for all shapes.
What normalisation means, and what the axes may be, is settled by the caller.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from rocket_fft import c2c as _c2c
from rocket_fft import c2r as _c2r
from rocket_fft import r2c as _r2c

from nbad._jit import jit
from nbad.kernels import memory, threads
from nbad.report import count_ffts

__all__ = [
    "c2c",
    "c2r",
    "contiguous",
    "count",
    "lines",
    "r2c",
    "r2c_full",
    "run",
    "scratch",
    "transform",
    "transforms_run",
]

Array = np.ndarray[Any, Any]

SLAB = 1 << 20
"""Bytes up to which a slab is transformed over all its axes in one go."""

GROUP = 1 << 16
"""Bytes of one chunk of small slabs, and of one block of columns."""

INLINE = 1 << 17
"""Bytes of work below which waking a second thread costs more than it saves."""


class _Counter:
    """How many transforms of whole arrays have run in this process."""

    def __init__(self) -> None:
        self.total = 0
        self.lock = threading.Lock()


_COUNTER = _Counter()


def count(n: int = 1) -> None:
    """Add to the number of transforms that have run, here and in the reports that are listening.

    Parameters
    ----------
    n : int
        Number of transforms of whole arrays.
    """
    with _COUNTER.lock:
        _COUNTER.total += n
    count_ffts(n)


def transforms_run() -> int:
    """Return how many transforms of whole arrays have run in this process.

    Returns
    -------
    int
        The total; a report takes the difference of two.
    """
    return _COUNTER.total


def run(task: Callable[[int, int], int | None], n_chunks: int, nbytes: int) -> None:
    """Run a task on all chunks, in this thread alone where ``nbytes`` of work are too few to share.

    Parameters
    ----------
    task : callable
        As for `nbad.kernels.threads.fan_out`.
    n_chunks : int
        Number of chunks.
    nbytes : int
        Bytes that the task reads and writes.
    """
    if nbytes < INLINE:
        task(0, n_chunks)
    else:
        threads.fan_out(task, n_chunks)


def scratch(size: int, dtype: Any) -> Array:
    """Return a buffer for one call of a task: recycled memory where it is large.

    Parameters
    ----------
    size : int
        Number of elements.
    dtype : dtype
        Their type.

    Returns
    -------
    ndarray of dtype, shape (size,)
        With arbitrary contents.
    """
    if size * dtype.itemsize < memory.SMALLEST_BLOCK:
        return np.empty(size, dtype)
    return memory.empty(size, dtype)


class _Writable:
    """The memory of a read-only array as if it could be written, for kernels that only read it."""

    def __init__(self, x: Array) -> None:
        self.source = x
        interface = dict(x.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def contiguous(x: Array) -> Array:
    """Return an array in C order, native byte order and aligned, for a kernel that reads it.

    Parameters
    ----------
    x : ndarray
        Any strides.

    Returns
    -------
    ndarray of the dtype of `x` in native byte order, shape of `x`
        `x`, or the same memory, where it is so already. Not to be written, though it looks writable: a
        read-only array would have every kernel compiled once more.
    """
    if x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative:
        return x if x.flags.writeable else np.asarray(_Writable(x))
    y = memory.empty(x.shape, x.dtype.newbyteorder("="))
    if x.ndim == 0 or x.nbytes < INLINE:
        y[...] = x
    else:

        def task(lo: int, hi: int) -> None:
            y[lo:hi] = x[lo:hi]

        threads.fan_out(task, x.shape[0])
    return y


def transform(source: Any, target: Any, axes: Any, forward: bool, factor: float) -> None:
    """Transform in jitted code, between complex or real arrays as their dtypes say.

    Parameters
    ----------
    source, target : array
        Of equal dimension and precision; lengths are those of `target` (of `source` padded or cut).
    axes : array of int64
        The transformed axes.
    forward : bool
        The sign of the exponent; it says nothing where one side is real.
    factor : float
        The scale.

    Raises
    ------
    TypeError
        Outside jitted code.
    """
    raise TypeError("transform can only be called from jitted code")


@overload(transform)
def _overload_transform(source: Any, target: Any, axes: Any, forward: Any, factor: Any) -> Any:
    """Choose rocket-fft's entry by the two dtypes."""
    if not isinstance(source.dtype, types.Complex):

        def from_real(source: Any, target: Any, axes: Any, forward: Any, factor: Any) -> Any:
            _r2c(source, target, axes, True, factor, 1)

        return from_real
    if not isinstance(target.dtype, types.Complex):

        def to_real(source: Any, target: Any, axes: Any, forward: Any, factor: Any) -> Any:
            _c2r(source, target, axes, False, factor, 1)

        return to_real

    def between_complex(source: Any, target: Any, axes: Any, forward: Any, factor: Any) -> Any:
        _c2c(source, target, axes, forward, factor, 1)

    return between_complex


@jit
def lines(
    source: Array, target: Array, outer: int, n_in: int, n_out: int, inner: int, forward: bool, factor: float
) -> None:
    """Transform source, seen as (outer, n_in, inner), into target, seen as (outer, n_out, inner).

    Both are contiguous and at least so long; complex ones may be the same, and a complex target with
    n_out > n_in is that of the source padded with zeros at its end.
    """
    before = source[: outer * n_in * inner].reshape((outer, n_in, inner))
    after = target[: outer * n_out * inner].reshape((outer, n_out, inner))
    transform(before, after, np.array([1]), forward, factor)


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
def _mirror(half: Array, full: Array, partner: Array, lo: int, hi: int) -> int:
    """Fill full, shape (l, n, inner), from half, shape (l, n // 2 + 1, inner), and its conjugate mirrored."""
    n = full.shape[1]
    for row in range(lo, hi):
        for j in range(half.shape[1]):
            for i in range(full.shape[2]):
                full[row, j, i] = half[row, j, i]
        for j in range(half.shape[1], n):
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
    """Transform contiguous x, real or complex, into y, complex."""
    leading = _leading(y.shape, axes, y.itemsize)
    if leading < len(axes):
        begin = axes[leading - 1] + 1 if leading else axes[0]
        _run_slabs_out(x, y, axes[leading:], begin, forward, factor)
    else:
        leading -= 1
        _run_columns(x, y, axes[leading], forward, factor)
    for axis in reversed(axes[:leading]):
        _run_columns(y, y, axis, forward, 1.0)


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
    source = contiguous(x)
    y = memory.empty(source.shape, source.dtype)
    _forward(source, y, axes, forward, factor)
    return y


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
    shape = list(x.shape)
    shape[axes[-1]] = shape[axes[-1]] // 2 + 1
    y = memory.empty(shape, np.result_type(x.dtype, np.complex64))
    _forward(x, y, axes, True, factor)
    return y


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

    def task(lo: int, hi: int) -> int:
        return _mirror(source, target, partner, lo, hi)

    run(task, rows, half.nbytes + full.nbytes)
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
