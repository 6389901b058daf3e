"""Writes in place: which writes of a program may change their array where it stands.

Owns the proof: nothing reads the array after the write, and whatever makes the write run again makes the array again.
"""

from collections.abc import Callable, Mapping

from nbad.replay.fusing import Schedule
from nbad.replay.into import Write
from nbad.replay.storage import is_contiguous

__all__ = ["overwritten"]


def overwritten(
    schedule: Schedule, writes: Mapping[int, Write], last: Mapping[int, int], free: Callable[[int], bool]
) -> dict[int, int]:
    """Return, for each array after a write in place, the array before.

    Parameters
    ----------
    schedule : Schedule
        The steps.
    writes : mapping of int to Write
        The writes, by step; those that are found are told so.
    last : mapping of int to int
        The step that reads each memory last.
    free : callable
        Whether a slot lies in the arena, for no longer than it is read, and is made again whenever a reader runs again.

    Returns
    -------
    dict of int to int
        Slots: both share one place.
    """
    lowering = schedule.lowering
    found: dict[int, int] = {}
    for at, write in sorted(writes.items()):
        item = schedule.steps[at].items[0]
        x, *others = item.operands
        out, source = item.outputs[0], schedule.base(x)
        view = lowering.view(x)
        dtype, shape = lowering.avals[x]
        whole = view.offset == 0 and is_contiguous(shape, view.strides, dtype.itemsize)
        if (
            lowering.avals[x] == lowering.avals[source] == lowering.avals[out]
            and whole
            and last[source] == at
            and all(schedule.base(slot) != source for slot in others)
            and free(source)
            and free(out)
        ):
            found[out] = source
            write.in_place = True
    return found
