"""Own cutting a long axis into segments that may overlap, and adding such segments up again: each the adjoint of the other.

Both see their arrays as (outer, length), with all that lies inside the axis counted into lengths and steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import memory, pieces

__all__ = ["overlap_add", "segments"]

Array = np.ndarray[Any, Any]


@jit
def _segments(x: Array, y: Array, step: int, start: int, lo: int, hi: int) -> int:
    """Fill y, shape (outer, count, width), from x, shape (outer, n); a chunk is one segment, zeros where x has ended."""
    count, width, n = y.shape[1], y.shape[2], x.shape[1]
    for chunk in range(lo, hi):
        o, b = chunk // count, chunk % count
        shift = b * step - start
        left = min(max(0, -shift), width)
        right = max(left, min(width, n - shift))
        for i in range(left):
            y[o, b, i] = 0
        for i in range(left, right):
            y[o, b, i] = x[o, i + shift]
        for i in range(right, width):
            y[o, b, i] = 0
    return 1


@jit
def _overlap_add(w: Array, y: Array, step: int, start: int, piece: int, lo: int, hi: int) -> int:
    """Sum segments w, shape (outer, count, width), into y, shape (outer, n); a chunk is one piece of y."""
    count, width, n = w.shape[1], w.shape[2], y.shape[1]
    pieces = -(-n // piece)
    for chunk in range(lo, hi):
        o, begin = chunk // pieces, chunk % pieces * piece
        end = min(begin + piece, n)
        for i in range(begin, end):
            y[o, i] = 0
        first = max(0, (begin + start - width) // step + 1)
        last = min(count - 1, (end + start - 1) // step)
        for b in range(first, last + 1):
            shift = b * step - start
            for i in range(max(begin, shift), min(end, shift + width)):
                y[o, i] += w[o, b, i - shift]
    return 1


def segments(x: Array, axis: int, step: int, start: int, count: int, width: int) -> Array:
    """Cut an axis into segments.

    Parameters
    ----------
    x : ndarray, shape (..., n, ...)
        Any strides. Not modified.
    axis : int
        The axis: non-negative.
    step : int
        Samples from one segment to the next, at least 1.
    start : int
        How far the first segment begins before `x`, in samples.
    count, width : int
        Number of segments and their length in samples.

    Returns
    -------
    ndarray of the dtype of `x`, shape (..., count, width, ...)
        ``y[..., b, p, ...] = x[..., b * step + p - start, ...]``, zero where there is no such sample.
    """
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    y = memory.empty((*x.shape[:axis], count, width, *x.shape[axis + 1 :]), x.dtype.newbyteorder("="))
    if y.size == 0:
        return y
    source = pieces.contiguous(x).reshape(outer, x.shape[axis] * inner)
    result = y.reshape(outer, count, width * inner)

    def task(lo: int, hi: int) -> int:
        return _segments(source, result, step * inner, start * inner, lo, hi)

    pieces.run(task, outer * count, 2 * y.nbytes)
    return y


def overlap_add(w: Array, axis: int, step: int, start: int, length: int) -> Array:
    """Add segments up: the adjoint of `segments`.

    Parameters
    ----------
    w : ndarray, shape (..., count, width, ...)
        Any strides. Not modified.
    axis : int
        The axis of the segments: non-negative.
    step, start : int
        As for `segments`.
    length : int
        Length of the result, in samples.

    Returns
    -------
    ndarray of the dtype of `w`, shape (..., length, ...)
        ``y[..., i, ...]`` is the sum of ``w[..., b, p, ...]`` over ``b * step + p - start == i``, in the order of the segments:
        the same bits for any number of threads.
    """
    outer, inner = math.prod(w.shape[:axis]), math.prod(w.shape[axis + 2 :])
    y = memory.empty((*w.shape[:axis], length, *w.shape[axis + 2 :]), w.dtype.newbyteorder("="))
    if y.size == 0:
        return y
    source = pieces.contiguous(w).reshape(outer, w.shape[axis], w.shape[axis + 1] * inner)
    result = y.reshape(outer, length * inner)
    piece = max(1, pieces.GROUP // y.itemsize)

    def task(lo: int, hi: int) -> int:
        return _overlap_add(source, result, step * inner, start * inner, piece, lo, hi)

    pieces.run(task, outer * -(-length * inner // piece), w.nbytes + y.nbytes)
    return y
