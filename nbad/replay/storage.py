"""Storage: where the value of each slot is while a program runs.

Owns places (a buffer, a byte offset, strides), the views that cost nothing, and the arena: one block of memory in which
every planned value has an offset of its own while it lives.
"""

import bisect
import heapq
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
VIEWS = {"getitem", "reshape", "transpose", "broadcast_to", "flip", "diagonal", "real", "imag"}


@dataclass(slots=True, frozen=True)
class Place:
    """Where a value is: the address of a buffer, plus an offset, with a stride in bytes for each dimension."""

    buffer: int
    offset: int
    strides: tuple[int, ...]


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
    if op.name not in VIEWS or op.foreign or 0 in aval[1]:
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
        """Return an offset for each (first step, last step, bytes)."""
        offsets = [0] * len(requests)
        free: list[tuple[int, int]] = []  # (offset, bytes), ascending, no two adjacent
        living: list[tuple[int, int, int]] = []  # (last step, offset, bytes)
        order = sorted(range(len(requests)), key=lambda i: (requests[i][0], -requests[i][1], -requests[i][2]))
        for i in order:
            first, last, nbytes = requests[i]
            nbytes += -nbytes % ALIGNMENT
            while living and living[0][0] < first:
                _, offset, size = heapq.heappop(living)
                _release(free, offset, size)
            fitting = [(size, offset) for offset, size in free if size >= nbytes]
            if fitting:
                size, offset = min(fitting)
                at = bisect.bisect_left(free, (offset, 0))
                free[at : at + 1] = [(offset + nbytes, size - nbytes)] if size > nbytes else []
            else:
                # A gap at the end grows.
                offset = self.size
                if free and sum(free[-1]) == self.size:
                    offset = free.pop()[0]
                self.size = offset + nbytes
            offsets[i] = offset
            heapq.heappush(living, (last, offset, nbytes))
        return offsets


def _release(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Put a gap into the list, merged with its neighbours."""
    at = bisect.bisect_left(free, (offset, 0))
    if at < len(free) and free[at][0] == offset + size:
        size += free.pop(at)[1]
    if at > 0 and sum(free[at - 1]) == offset:
        offset, before = free.pop(at - 1)
        size += before
        at -= 1
    free.insert(at, (offset, size))
