"""Tiles: two large runs taken together, so that what the first makes for the second never travels to memory.

Owns the search for such pairs and the size of their tiles. The second run reads results of the first one through windows
(sums of shifted differences and the like); for each tile of it, the rows of the first run that it needs are made in a small
buffer of the thread. Rows at the border of two tiles are made twice, with the same bits.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from nbad.replay.fusing import Schedule, Step, stripped
from nbad.replay.lowering import PAD
from nbad.replay.registers import Block

#: Bytes of the buffers of one tile: they stay in the second-level cache.
_TILE_BYTES = 3 << 17
#: How far apart windows may lie, in rows.
_FARTHEST = 8

#: A pair in the table: runs, elements of a row, rows of the first run, shifts, parts of a tile, buffers; then, for each buffer,
#: its number, bytes of an element and offset in the tile.
PAIR_WIDTH = 9
BUFFER_WIDTH = 3


@dataclass(slots=True)
class Pair:
    """Two runs executed together at the place of the first.

    Attributes
    ----------
    first, second : int
        Their steps.
    slots : list of int
        Results of the first that live in the tile only.
    nearest, farthest : int
        Shifts of the windows, in rows.
    """

    first: int
    second: int
    slots: list[int]
    nearest: int
    farthest: int

    def row(
        self, schedule: Schedule, blocks: dict[int, Block], runs: tuple[int, int], buffers: dict[int, int]
    ) -> "Tile":
        """Return the tile as the loop wants it."""
        shapes = [_shape(schedule.steps[at]) for at in (self.first, self.second)]
        widths = [math.prod(shape[1:]) for shape in shapes]
        block, other = blocks[self.second], blocks[self.first]
        sizes = {slot: schedule.lowering.avals[slot][0].itemsize for slot in self.slots}
        elements = _TILE_BYTES // sum(sizes.values())
        parts = max(1, elements // block.lanes)
        segments = -(-block.shape[-1] // block.lanes)
        if len(block.shape) > 1 and parts >= segments:
            parts -= parts % segments
        # Rows of the first run that a tile may touch, rounded to its parts on both sides.
        rows = -(-parts * block.lanes // widths[1]) + 2 + self.farthest - self.nearest
        longest = rows * widths[0] + 2 * max(other.lanes, other.shape[-1] if len(other.shape) > 1 else 0)
        longest = min(longest, math.prod(shapes[0]) + 2 * other.lanes)
        detail, offset = [], 0
        for slot in self.slots:
            detail += [buffers[slot], sizes[slot], offset]
            offset += longest * sizes[slot]
            offset += -offset % 64
        head = [*runs, *widths, shapes[0][0], self.nearest, self.farthest, parts, len(self.slots)]
        return Tile([*head, *detail], parts, offset)


@dataclass(slots=True)
class Tile:
    """A pair in numbers: its row of the table, parts of a tile, bytes of its buffers."""

    row: list[int]
    parts: int
    nbytes: int


def _shape(step: Step) -> tuple[int, ...]:
    assert step.key is not None
    shape: tuple[int, ...] = step.key[0]
    return shape


def bring_together(schedule: Schedule, is_large: Callable[[Step], bool]) -> None:
    """Reorder steps so that what a run needs besides the results of an earlier run is there before that one.

    The two can then be a pair. Nothing is moved across a guard.

    Parameters
    ----------
    schedule : Schedule
        Its steps are reordered.
    is_large : callable
        Whether a run is split over threads.
    """
    for step in [step for step in schedule.steps if step.is_run and step.mask & 1 and is_large(step)]:
        at = next(k for k, other in enumerate(schedule.steps) if other is step)
        windowed = {schedule.home.get(i.operands[0], -1) for i in step.items if i.kind == PAD} - {at}
        first = windowed.pop() if len(windowed) == 1 else -1
        if first < 0 or not schedule.steps[first].is_run or not is_large(schedule.steps[first]):
            continue
        waiting = [first]
        for k in range(first + 1, at):
            if _homes(schedule, k) & set(waiting):
                waiting.append(k)
        between = [k for k in range(first + 1, at) if k not in waiting]
        guarded = any(schedule.steps[k].guard is not None for k in range(first, at))
        if guarded or not between or _homes(schedule, at) & set(waiting[1:]):
            continue
        order = [*range(first), *between, *waiting, *range(at, len(schedule.steps))]
        moved = {old: new for new, old in enumerate(order)}
        schedule.steps = [schedule.steps[old] for old in order]
        schedule.home = {slot: moved[home] for slot, home in schedule.home.items()}


def _homes(schedule: Schedule, at: int) -> set[int]:
    """Return the steps that make what a step reads."""
    slots = (schedule.base(slot) for item in schedule.steps[at].items for slot in item.operands)
    return {schedule.home[slot] for slot in slots if slot in schedule.home} - {at}


def find_pairs(
    schedule: Schedule, is_large: Callable[[Step], bool], last: dict[int, int], kept: Collection[int]
) -> dict[int, Pair]:
    """Return pairs by their first step.

    Parameters
    ----------
    schedule : Schedule
        The steps.
    is_large : callable
        Whether a run is split over threads.
    last : dict of int to int
        The last step that reads each slot with memory.
    kept : collection of int
        Slots whose memory is decided already.
    """
    readers: dict[int, set[int]] = {}
    for at, step in enumerate(schedule.steps):
        slots = [slot for item in step.items for slot in item.operands]
        if step.guard is not None:
            slots.append(step.guard.slot)
        for slot in slots:
            readers.setdefault(schedule.base(slot), set()).add(at)
    pairs: dict[int, Pair] = {}
    taken: set[int] = set()
    for at, step in enumerate(schedule.steps):
        if at in taken or not step.is_run or not step.mask & 1 or not is_large(step):
            continue
        found = _reads(schedule, at)
        if found is None:
            continue
        first, windows = found
        maker = schedule.steps[first]
        if first in taken or not maker.is_run or not maker.mask & 1 or not is_large(maker):
            continue
        shape, own = _shape(maker), _shape(step)
        fits = len(shape) == len(own)
        shifts = []
        for slot, window in windows:
            fits = fits and stripped(schedule.lowering.avals[slot][1]) == shape and len(window) == len(own)
            fits = fits and all(w[2] >= 0 for w in window)
            shifts.append(window[0][0] if window else 0)
        if not fits or max(shifts) - min(shifts) > _FARTHEST:
            continue
        slots = sorted(
            {s for s, _ in windows if readers[s] - {first} == {at} and last[s] == at and s not in kept}
        )
        if slots:
            pairs[first] = Pair(first, at, slots, min(shifts), max(shifts))
            taken.update((first, at))
    return pairs


def _reads(schedule: Schedule, at: int) -> tuple[int, list[Any]] | None:
    """Return the latest step whose results a run reads and the (slot, window) of each; None if it reads them otherwise."""
    step = schedule.steps[at]
    reads = []
    for item in step.items:
        for slot in item.operands:
            base = schedule.base(slot)
            home = schedule.home.get(base, -1)
            if home >= 0 and (base not in step.made or item.kind == PAD):
                reads.append((home, slot, base, item))
    first = max((home for home, *_ in reads), default=-1)
    if first < 0 or first >= at:
        return None
    windows = []
    for home, slot, base, item in reads:
        if home != first:
            continue
        if item.kind != PAD or slot != base:
            return None
        whole = schedule.lowering.avals[item.outputs[0]][1]
        windows.append((slot, [w for w, n in zip(item.window, whole, strict=True) if n != 1]))
    return first, windows
