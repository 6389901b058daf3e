"""Storage: where the value of each slot is while a program runs.

Owns places (a buffer, a byte offset, strides), the views that cost nothing, and the arena: one block of memory in which
every planned value has an offset of its own while it lives.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.keeping import run_forward
from nbad.table import Op

#: Buffers of every program: the arena of the workspace and the pool of constant numbers. Others follow.
ARENA, POOL, FIRST_BUFFER = range(3)

ALIGNMENT = 64

#: Ops whose result is a view of their operand where NumPy can make one.
_VIEWS = {"getitem", "reshape", "transpose", "broadcast_to", "flip", "diagonal", "real", "imag"}


@dataclass(slots=True, frozen=True)
class Place:
    """Where a value is: the address of a buffer, plus an offset, with a stride in bytes for each dimension.

    `window` holds, for each dimension, the first and the last-but-one index that exist in memory; outside the value is 0. None
    means that everything exists.
    """

    buffer: int
    offset: int
    strides: tuple[int, ...]
    window: tuple[tuple[int, int], ...] | None = None


@dataclass(slots=True, frozen=True)
class View:
    """A slot that needs no memory: part of another one's, which is C-contiguous."""

    base: int
    offset: int
    strides: tuple[int, ...]


def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a C-contiguous array."""
    strides = []
    step = itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def nbytes_of(aval: tuple[np.dtype[Any], tuple[int, ...]]) -> int:
    """Return the bytes of a C-contiguous array of a dtype and shape."""
    return int(aval[0].itemsize * math.prod(aval[1]))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Return whether strides are those of a C-contiguous array, where a dimension has more than one element."""
    return all(n == 1 or s == t for n, s, t in zip(shape, strides, c_strides(shape, itemsize), strict=True))


def view_of(
    op: Op, attributes: dict[str, Any], aval: tuple[np.dtype[Any], tuple[int, ...]], view: View
) -> View | None:
    """Return the result of an op as a view, if it is one; `aval` and `view` say what and where its operand is.

    NumPy itself is asked, on memory that is mapped but never touched.
    """
    if op.name not in _VIEWS or op.foreign or 0 in aval[1]:
        return None
    dtype, shape = aval
    if op.name == "imag" and dtype.kind != "c":
        return None
    low = sum(min(0, (n - 1) * s) for n, s in zip(shape, view.strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(shape, view.strides, strict=True)) + dtype.itemsize
    if (
        op.name == "reshape"
        and not is_contiguous(shape, view.strides, dtype.itemsize)
        and high - low > 1 << 20
    ):
        return None  # NumPy might copy it; a host step does when it has to
    memory = np.empty(high - low, np.uint8)
    start = memory.__array_interface__["data"][0]
    operand = np.ndarray(shape, dtype, memory, -low, view.strides)
    result = run_forward(op, (operand,), attributes, ())[0]
    if type(result) is not np.ndarray:
        if np.shape(result) != () or op.name != "getitem":
            return None
        result = run_forward(op, (operand,), {"index": (*attributes["index"], Ellipsis)}, ())[0]
    address = result.__array_interface__["data"][0]
    if not start <= address < start + memory.nbytes:
        return None
    return View(view.base, view.offset + address - start + low, result.strides)


@dataclass(slots=True)
class Arena:
    """Offsets for values that live from one step to another, best fit, each aligned to a cache line."""

    size: int = 0

    def plan(self, requests: list[tuple[int, int, int]]) -> list[int]:
        """Return an offset for each (first step, last step, bytes); larger ones are placed first."""
        offsets = [0] * len(requests)
        placed: list[tuple[int, int, int, int]] = []
        for i in sorted(range(len(requests)), key=lambda i: (-requests[i][2], requests[i][0])):
            first, last, nbytes = requests[i]
            nbytes += -nbytes % ALIGNMENT
            busy = sorted((o, o + n) for f, la, o, n in placed if f <= last and first <= la)
            best, best_gap, at = -1, -1, 0
            for low, high in busy:
                gap = low - at
                if gap >= nbytes and (best < 0 or gap < best_gap):
                    best, best_gap = at, gap
                at = max(at, high)
            offsets[i] = at if best < 0 else best
            placed.append((first, last, offsets[i], nbytes))
            self.size = max(self.size, offsets[i] + nbytes)
        return offsets
