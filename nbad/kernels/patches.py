"""Own cutting windows out of an array, and adding windows into it in place.

An array is seen as (outer, size), its windowed axes flattened; a window is a number of lines, contiguous pieces of the last
axis at fixed distances from its first element. Windows that are added may overlap: a chunk of that task owns a band of the
target and takes from every window what falls into the band, in the order of the windows. So no two threads write to one
element, and a sum does not depend on their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import memory, pieces

__all__ = ["add", "cut"]

Array = np.ndarray[Any, Any]

BAND = 1 << 18
"""Bytes of one band of the target."""


@jit
def _cut(x: Array, first: Array, lines: Array, width: int, y: Array, lo: int, hi: int) -> int:
    """Copy windows of x, shape (outer, size), into y, shape (outer * k, l * width); a chunk is one window."""
    count = first.shape[0]
    for chunk in range(lo, hi):
        o, base = chunk // count, first[chunk % count]
        for line in range(lines.shape[0]):
            start, place = base + lines[line], line * width
            for i in range(width):
                y[chunk, place + i] = x[o, start + i]
    return 1


@jit
def _add(g: Array, first: Array, lines: Array, width: int, band: int, target: Array, lo: int, hi: int) -> int:
    """Add windows g, shape (outer * k, l * width), into target, shape (outer, size); a chunk is one band of it."""
    count, size = first.shape[0], target.shape[1]
    bands = -(-size // band)
    extent = lines[lines.shape[0] - 1] + width
    for chunk in range(lo, hi):
        o, begin = chunk // bands, chunk % bands * band
        end = min(begin + band, size)
        for window in range(count):
            base = first[window]
            if base >= end or base + extent <= begin:
                continue
            row = o * count + window
            for line in range(lines.shape[0]):
                start = base + lines[line]
                left, right = max(begin - start, 0), min(end - start, width)
                place = line * width
                for i in range(left, right):
                    target[o, start + i] += g[row, place + i]
    return 1


def _plan(shape: Sequence[int], positions: Array, window: Sequence[int]) -> tuple[Array, Array]:
    """Return the first element of each window and the distance of its lines from it, in a flattened `shape`."""
    strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    first = (positions.astype(np.int64) * np.array(strides, np.int64)).sum(axis=1)
    lines = np.zeros(1, np.int64)
    for n, stride in zip(window[:-1], strides[:-1], strict=True):
        lines = (lines[:, None] + stride * np.arange(n)).reshape(-1)
    return np.ascontiguousarray(first), np.ascontiguousarray(lines)


def cut(x: Array, positions: Array, window: Sequence[int]) -> Array:
    """Copy windows out of an array.

    Parameters
    ----------
    x : ndarray, shape (..., n_1, ..., n_d)
        Any strides. Not modified.
    positions : ndarray of integers, shape (k, d)
        First element of each window along the last d axes; all windows lie inside.
    window : sequence of int
        Their shape, ``(s_1, ..., s_d)``.

    Returns
    -------
    ndarray of the dtype of `x`, shape (..., k, s_1, ..., s_d)
        In C order, the only buffer that is made (and a copy of `x` where that is not in C order).
    """
    d = len(window)
    batch, shape = x.shape[: x.ndim - d], x.shape[x.ndim - d :]
    y = memory.empty((*batch, len(positions), *window), x.dtype.newbyteorder("="))
    if y.size == 0:
        return y
    outer = math.prod(batch)
    source, result = pieces.contiguous(x).reshape(outer, -1), y.reshape(outer * len(positions), -1)
    first, lines = _plan(shape, positions, window)

    def task(lo: int, hi: int) -> int:
        return _cut(source, first, lines, window[-1], result, lo, hi)

    pieces.run(task, result.shape[0], 2 * y.nbytes)
    return y


def add(g: Array, positions: Array, target: Array) -> None:
    """Add windows into an array, in place; where they overlap, all of them.

    Parameters
    ----------
    g : ndarray, shape (..., k, s_1, ..., s_d)
        Any strides. Not modified.
    positions : ndarray of integers, shape (k, d)
        First element of each window along the last d axes of `target`; all windows lie inside.
    target : ndarray of the dtype of `g`, shape (..., n_1, ..., n_d)
        Writable.

    Notes
    -----
    Every element takes its contributions in the order of the windows: the same bits for any number of threads.
    """
    d = positions.shape[1]
    window, shape = g.shape[g.ndim - d :], target.shape[target.ndim - d :]
    if g.size == 0:
        return
    if not (target.flags.c_contiguous and target.flags.aligned and target.dtype.isnative):
        for k, place in enumerate(positions):
            inside: tuple[Any, ...] = tuple(slice(p, p + n) for p, n in zip(place, window, strict=True))
            target[(..., *inside)] += np.moveaxis(g, g.ndim - d - 1, 0)[k]
        return
    outer = math.prod(target.shape[: target.ndim - d])
    sums = target.reshape(outer, -1)
    windows = pieces.contiguous(g).reshape(outer * len(positions), -1)
    first, lines = _plan(shape, positions, window)
    band = max(BAND // target.itemsize, 1)

    def task(lo: int, hi: int) -> int:
        return _add(windows, first, lines, window[-1], band, sums, lo, hi)

    pieces.run(task, outer * -(-sums.shape[1] // band), g.nbytes + target.nbytes)
