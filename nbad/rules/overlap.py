"""Overlapping segments of a long axis, and their sum: what convolution by blocks is made of.

Owns that adjoint pair, and how long the blocks are. A convolution of a long array with a short kernel is the sum of those of
its blocks, each of which fits the cache; the blocks are a batch axis to the op `filter`, so gradients and counts of transforms
are its own.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad.kernels import overlap
from nbad.kernels.convolution import fast_length
from nbad.table import operation
from nbad.trace import apply, is_traced

#: Samples of a box that fits the cache with all that its convolution needs, and of the smallest one that is worth its calls.
CACHED_BOX, SMALLEST_BOX = 1 << 13, 1 << 9
#: `auto` cuts the only transformed axis into blocks from so many samples on, if the kernel is so many times as short and has
#: at most so many: with longer ones the blocks leave the cache, and whole transforms in four steps are as fast (measured).
LONG, SHORTER, LONGEST_KERNEL = 1 << 16, 8, CACHED_BOX // 4


def segments_forward(x: Any, *, axis: int, step: int, start: int, count: int, width: int) -> Any:
    """Return segments of `x` along `axis`."""
    if is_traced(x):
        return apply(SEGMENTS, x, axis=axis, step=step, start=start, count=count, width=width)
    return overlap.segments(x, axis, step, start, count, width)


def segments_x(g: Any, x_shape: tuple[int, ...], axis: int, step: int, start: int) -> Any:
    return apply(OVERLAP_ADD, g, axis=axis, step=step, start=start, length=x_shape[axis])


def overlap_add_forward(w: Any, *, axis: int, step: int, start: int, length: int) -> Any:
    """Return the sum of the segments `w`, which follow each other along `axis`."""
    if is_traced(w):
        return apply(OVERLAP_ADD, w, axis=axis, step=step, start=start, length=length)
    return overlap.overlap_add(w, axis, step, start, length)


def overlap_add_w(g: Any, w_shape: tuple[int, ...], axis: int, step: int, start: int) -> Any:
    return apply(SEGMENTS, g, axis=axis, step=step, start=start, count=w_shape[axis], width=w_shape[axis + 1])


SEGMENTS = operation(segments_forward, x=segments_x, linear=True)
OVERLAP_ADD = operation(overlap_add_forward, w=overlap_add_w, linear=True)


def block_length(n: int, m: int, axes: int, halved: bool) -> int:
    """Return how many of `n` samples to convolve at a time with a kernel of `m`, along one of `axes` axes.

    The cost of a block of the result, of ``N - m + 1`` samples, is about ``N (4 + log2 N)``, and one more step of the logarithm
    for each by which it outgrows the cache (measured). It is `n` where the kernel is so long that no block is shorter.
    """
    box = fast_length(max(2 * m - 1, SMALLEST_BOX if axes == 1 else 2), halved)
    best, least = n, math.inf
    for size in (box, 2 * box, 4 * box, 8 * box, 16 * box):
        length = size - m + 1
        outgrown = max(0.0, math.log2(size / CACHED_BOX))
        cost = size * (4 + math.log2(size) + outgrown) / length
        if length < n and cost < least:
            best, least = length, cost
    return best


def pays(n: Sequence[int], m: Sequence[int]) -> bool:
    """Return whether blocks are faster than whole transforms of `n` and `m` samples along the transformed axes."""
    long = [(a, b) for a, b in zip(n, m, strict=True) if (a, b) != (1, 1)]
    if len(long) != 1:
        return False  # several axes: the passes of a convolution stay in the cache by themselves
    a, b = max(long[0]), min(long[0])
    return a >= LONG and SHORTER * b <= a and b <= LONGEST_KERNEL


def split(x: Any, axis: int, length: int) -> Any:
    """Return `x` with `axis` cut into blocks of `length`, the last one padded with zeros: one axis more."""
    n = x.shape[axis]
    count = -(-n // length)
    if count * length == n:
        return np.reshape(x, (*x.shape[:axis], count, length, *x.shape[axis + 1 :]))
    return apply(SEGMENTS, x, axis=axis, step=length, start=0, count=count, width=length)
