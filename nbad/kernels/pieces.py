"""Own what every transform is made of: the count of them, chunks and buffers, and rocket-fft's entries in jitted code.

What normalisation means, and what the axes may be, is settled by the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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
    "contiguous",
    "count",
    "lines",
    "run",
    "scratch",
    "transform",
    "transforms_run",
]

Array = np.ndarray[Any, Any]

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
    """Return a buffer for one call of a task, on a boundary of cache lines: recycled memory where it is large.

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
    if size * dtype.itemsize >= memory.SMALLEST_BLOCK:
        return memory.empty(size, dtype)
    raw = np.empty(size * dtype.itemsize + memory.ALIGNMENT, np.uint8)
    return np.ndarray(size, dtype, raw, -raw.__array_interface__["data"][0] % memory.ALIGNMENT)


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
    same = source.dtype == target.dtype
    if outer * inner == 1 and (n_in == n_out or not same):
        # One line, which rocket-fft transforms in place where it sees that there are no others.
        transform(source[:n_in], target[:n_out], np.array([0]), forward, factor)
        return
    before = source[: outer * n_in * inner].reshape((outer, n_in, inner))
    after = target[: outer * n_out * inner].reshape((outer, n_out, inner))
    transform(before, after, np.array([1]), forward, factor)
