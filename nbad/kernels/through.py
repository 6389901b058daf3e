"""Own the way from one convolution to the next, slab by slab: pass (c), elementwise work, pass (a).

Where a cotangent is computed from a residual element by element, and the residual from a convolution, neither of
the two has to exist as a whole: each slab of one is transformed back, worked on, and transformed again while it is in
the cache. The first convolution leaves its pass (c), `through` performs the three, the next one starts from what pass
(a) made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad.kernels import boxes, passes, pieces
from nbad.kernels.slabs import Entered, Left

__all__ = ["Entered", "Left", "slabs", "through"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]


def slabs(
    shape: Sequence[int], lengths: Sequence[int], axes: Sequence[int], real: bool, dtype: Any
) -> Extents:
    """Return the slabs of an array that a convolution makes or takes.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    lengths : sequence of int
        Lengths of the box along `axes`.
    axes : sequence of int
        The transformed axes: non-negative, ascending.
    real : bool
        Whether the data are real.
    dtype : dtype
        Of the array.

    Returns
    -------
    tuple of int
        How many slabs there are, and the lengths of one; empty if the array has none: its transformed axes are not
        the last ones, or only one of them is longer than 1.
    """
    box = boxes.box(tuple(lengths), real, np.result_type(dtype, np.complex64).itemsize)
    if len(box.n) < 2 or axes[0] != len(shape) - len(axes):
        return ()
    sizes = [shape[axes[k]] for k in box.keep]
    return math.prod(shape[: axes[0]]) * sizes[0], *sizes[1:]


def through(
    left: Left,
    lengths: Sequence[int],
    axes: Sequence[int],
    start: Sequence[int],
    shape: Extents,
    parts: int,
    begin: Callable[[], tuple[int, Array, Array, int, int, int, int]],
) -> Entered:
    """Run pass (c) of one convolution, work on its result, and run pass (a) of the next one.

    Parameters
    ----------
    left : Left
        From ``convolution.filter(..., leave=True)``; used up.
    lengths, axes, start : sequence of int
        As of the next one; it has the same slabs, realness and precision.
    shape : tuple of int
        Of the array in between.
    parts : int
        Parts of the work on one slab.
    begin : callable
        Returns, for one thread, the address of an ``int64 work(frame, number, lo, hi, scratch)`` that performs parts, the
        array that is its `frame`, an array of addresses and which two of them are those of the result and of what is made
        of it, `number`, and the address of its scratch memory.

    Returns
    -------
    Entered
        What the next one takes in place of the array.
    """
    box = left.box
    complex_type = left.rows.dtype
    after = boxes.box(tuple(lengths), left.real, complex_type.itemsize)
    element = boxes.element(complex_type, left.real)
    count = left.rows.shape[0] * left.rows.shape[1]
    size = math.prod(left.sizes[1:])
    rows = left.rows.reshape(count, -1)
    target = rows
    if after.columns != box.columns:
        target = boxes.rows_for(1, count, after, complex_type)[0]
    group = min(boxes.group_of(count, b, complex_type) for b in (box, after))
    array = boxes.extents
    p, n, q, o, t = (array(v) for v in ((group, *left.sizes[1:]), box.n, box.q, left.start, left.turns))
    s = array([start[k] for k in after.keep])
    n2, q2 = array(after.n), array(after.q)
    outer = group * math.prod(left.sizes[1:-1])
    last = max(outer * b.n[-1] if left.sizes[-1] != b.n[-1] else 0 for b in (box, after))
    padded = left.sizes[1:-1] != after.n[1:-1]
    back = group * box.columns if group > 1 else 0
    forth = group * after.columns if padded or group > 1 else 0

    def task(lo: int, hi: int) -> int:
        work, frame, addresses, at_y, at_g, number, scratch = begin()
        y, g = (pieces.scratch(group * size, element).reshape(group, size) for _ in range(2))
        middle, other = pieces.scratch(back, complex_type), pieces.scratch(forth, complex_type)
        spare, pad = pieces.scratch(forth if padded else 0, complex_type), pieces.scratch(last, element)
        room = pieces.scratch(max(box.ways.spare, after.ways.spare), complex_type)
        return passes.through(
            rows, target, y, g, p, n, q, o, t, box.factor, box.ways.rows, n2, q2, s, after.ways.rows, group,
            middle, other, spare, pad, room,
            work, frame.ctypes.data, number, parts, scratch, addresses, at_y, at_g, lo, hi,
        )  # fmt: skip

    pieces.run(task, -(-count // group), 4 * count * size * element.itemsize)
    return Entered(target.reshape(*left.rows.shape[:2], -1), shape, element)
