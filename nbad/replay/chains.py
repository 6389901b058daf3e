"""Chains: a convolution, the run on its result and the convolution of what the run makes, taken slab by slab.

Owns the search for such three steps, and their execution. Neither the result of the first nor the operand of the second
ever exists as a whole: each thread has a few slabs of them, which stay in its cache (`nbad.kernels.through`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.kernels import convolution
from nbad.kernels.through import slabs, through
from nbad.replay import loop
from nbad.replay.fusing import Schedule, Step, stripped
from nbad.replay.graph import Node
from nbad.replay.lowering import ELEMENT, HOST, REDUCE, Item
from nbad.replay.steps import Environment, HostStep
from nbad.replay.storage import is_contiguous
from nbad.rules.convolution import (
    FILTER_BY_SPECTRUM,
    FILTER_KEEPING,
    SPECTRA_PRODUCT,
    SPECTRUM,
    TIMES,
    TIMES_CONJ,
)

#: Elements of the smallest slab: a part of a run never crosses its border.
_SMALLEST = 64


@dataclass(slots=True)
class Chain:
    """Three steps that follow each other and are executed together.

    Attributes
    ----------
    first, run, second : int
        The steps.
    result, operand : int
        Slots: what the first makes, what the second takes.
    slab : int
        Elements of a slab of either.
    """

    first: int
    run: int
    second: int
    result: int
    operand: int
    slab: int


def arrange(schedule: Schedule, is_large: Callable[[Step], bool]) -> dict[int, Chain]:
    """Find chains and put the steps of each side by side.

    Parameters
    ----------
    schedule : Schedule
        Its steps are reordered.
    is_large : callable
        Whether a run is split over threads.

    Returns
    -------
    dict of int to Chain
        By their first step.
    """
    chains: list[Chain] = []
    for step in [step for step in schedule.steps if step.is_run and step.mask & 1 and is_large(step)]:
        run = next(at for at, other in enumerate(schedule.steps) if other is step)
        taken = {at for chain in chains for at in (chain.first, chain.second)}
        chain = _chain(schedule, run, _readers(schedule), taken)
        if chain is None:
            continue
        order = [at for at in range(len(schedule.steps)) if at not in (chain.first, chain.second)]
        at = order.index(run)
        order[at : at + 1] = [chain.first, run, chain.second]
        moved = {old: new for new, old in enumerate(order)}
        schedule.steps = [schedule.steps[old] for old in order]
        schedule.home = {slot: moved[home] for slot, home in schedule.home.items()}
        for c in (*chains, chain):
            c.first, c.run, c.second = moved[c.first], moved[c.run], moved[c.second]
        chains.append(chain)
    return {chain.first: chain for chain in chains}


def _readers(schedule: Schedule) -> dict[int, set[int]]:
    """Return which steps read each slot with memory; results are read by a step after the last."""
    readers: dict[int, set[int]] = {}
    for at, step in enumerate(schedule.steps):
        slots = [slot for item in step.items for slot in item.operands]
        if step.guard is not None:
            slots.append(step.guard.slot)
        for slot in slots:
            readers.setdefault(schedule.base(slot), set()).add(at)
    for slot in schedule.graph.outputs:
        readers.setdefault(schedule.base(slot), set()).add(len(schedule.steps))
    return readers


def _chain(schedule: Schedule, run: int, readers: dict[int, set[int]], taken: set[int]) -> Chain | None:
    """Return the chain around a run; its other steps are none of those that are taken."""
    step = schedule.steps[run]
    if not all(_is_plain(schedule, item) for item in step.items):
        return None
    firsts = {
        home: slot
        for slot in (slot for item in step.items for slot in item.operands)
        if (home := schedule.home.get(slot, run)) < run and readers.get(slot) == {run}
    }
    for first in sorted(firsts, reverse=True):
        result = firsts[first]
        node = _node(schedule, first)
        if first in taken or node is None or not _leaves(node) or node.outputs[0] != result:
            continue
        if any(readers.get(slot, set()) & set(range(first, run)) for slot in node.outputs):
            continue
        for operand in sorted(step.made):
            found = readers.get(operand, set()) - {run}
            if len(found) != 1 or operand not in schedule.stored or schedule.home[operand] != run:
                continue
            second = found.pop()
            slab = _slab(schedule, first, second, result, operand)
            between = schedule.steps[first:second]
            if (
                slab
                and run < second
                and second not in taken
                and all(other.guard is None for other in between)
            ):
                return Chain(first, run, second, result, operand, slab)
    return None


def _node(schedule: Schedule, at: int) -> Node | None:
    """Return the node of a step of Python that runs at each call."""
    if at >= len(schedule.steps):
        return None
    step = schedule.steps[at]
    if not step.mask & 1 or not step.items or step.items[0].kind != HOST:
        return None
    return schedule.graph.nodes[step.items[0].node]


def _leaves(node: Node) -> bool:
    """Return whether a node ends with pass (c)."""
    if node.op is SPECTRA_PRODUCT:
        return not node.attributes["reduced"]
    return node.op is FILTER_KEEPING or _filters(node)


def _filters(node: Node) -> bool:
    return node.op is FILTER_BY_SPECTRUM and node.attributes["how"] in (TIMES, TIMES_CONJ)


def _is_plain(schedule: Schedule, item: Item) -> bool:
    """Return whether an item goes through its arrays from one end to the other."""
    if item.kind not in (ELEMENT, REDUCE):
        return False
    avals, lowering = schedule.lowering.avals, schedule.lowering
    whole = stripped(avals[item.operands[0] if item.kind == REDUCE else item.outputs[0]][1])
    for slot in item.operands:
        dtype, shape = avals[slot]
        value = lowering.constants.get(slot)
        strides = value.strides if isinstance(value, np.ndarray) else lowering.view(slot).strides
        number = not any(stride for stride, n in zip(strides, shape, strict=True) if n != 1)
        if not number and (stripped(shape) != whole or not is_contiguous(shape, strides, dtype.itemsize)):
            return False
    return True


def _slab(schedule: Schedule, first: int, second: int, result: int, operand: int) -> int:
    """Return the elements of a slab if a step can go on from the slabs of another one, else 0."""
    avals = schedule.lowering.avals
    one, two = _node(schedule, first), _node(schedule, second)
    if one is None or two is None or not (two.op in (SPECTRUM, FILTER_KEEPING) or _filters(two)):
        return 0
    if two.operands[0] != operand or avals[result] != avals[operand]:
        return 0
    dtype, shape = avals[operand]
    a, b = one.attributes, two.attributes
    if a["axes"] != b["axes"] or a["real"] != b["real"] or (dtype.kind != "c") != a["real"]:
        return 0
    for slot in two.operands[1:]:
        batch = avals[slot][1][:-1]
        own = shape[: len(shape) - len(b["axes"])]
        if avals[slot][0] != np.result_type(dtype, np.complex64) or np.broadcast_shapes(batch, own) != own:
            return 0
        if schedule.home.get(schedule.base(slot), -1) >= first:
            return 0
    sizes = slabs(shape, a["lengths"], a["axes"], a["real"], dtype)
    slab = math.prod(sizes[1:])
    if sizes != slabs(shape, b["lengths"], b["axes"], b["real"], dtype) or slab < _SMALLEST or sizes[0] < 2:
        return 0
    return slab


# Execution ------------------------------------------------------------------------------------------
@dataclass(slots=True, frozen=True)
class Linked:
    """A chain in the tables.

    Attributes
    ----------
    first, second : HostStep
        Its convolutions.
    run : int
        Number of its run.
    parts : int
        Parts of the run on one slab.
    buffers : tuple of int
        Those of the result of the first and of the operand of the second, which have other addresses in each thread.
    shape : tuple of int
        Of both.
    """

    first: HostStep
    second: HostStep
    run: int
    parts: int
    buffers: tuple[int, int]
    shape: tuple[int, ...]

    def execute(self, env: Environment, ids: Any, begin: Callable[[], tuple[Any, ...]]) -> bool:
        """Execute the chain but for the sums of its run; return False if a result is not of the recorded kind.

        Parameters
        ----------
        env, ids
            Of the workspace.
        begin : callable
            Returns a frame, its addresses and scratch memory for one thread.
        """
        given = [reader.read(env) for reader in self.first.readers]
        made = _leave(self.first.node, given)
        work = loop.execute_address()

        def prepare() -> tuple[Any, ...]:
            frame, addresses, scratch = begin()
            return work, frame, addresses, *self.buffers, self.run, scratch

        node = self.second.node
        a = node.attributes
        entered = through(made[0], a["lengths"], a["axes"], a["start"], self.shape, self.parts, prepare)
        values = [reader.read(env) for reader in self.second.readers[1:]]
        results = node.op.forward(entered, *values, **a)
        kept = self.second.keep(results if node.op.outputs > 1 else (results,), values, env, ids)
        return self.first.keep(made, given, env, ids) and kept


def _leave(node: Node, values: list[Any]) -> tuple[Any, ...]:
    """Perform a convolution up to pass (c)."""
    a = node.attributes
    if node.op is SPECTRA_PRODUCT:
        a_hat, b_hat = values
        y = convolution.filter_from_spectrum(
            a_hat, b_hat, a["conj"], a["lengths"], a["axes"], a["real"], a["out_start"], a["out_shape"], True
        )
        return (y,)
    keeping = node.op is FILTER_KEEPING
    x, h_hat = values
    made = convolution.filter(
        x, a["start"], a["lengths"], h_hat, a["conj"] if keeping else a["how"] == TIMES_CONJ,
        a["out_start"], a["out_shape"], a["axes"], a["real"], keep_spectrum=keeping, leave=True,
    )  # fmt: skip
    return made if keeping else made[:1]
