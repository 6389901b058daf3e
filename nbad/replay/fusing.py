"""Fusing: from items to steps, elementwise ones together in runs.

Owns the order of execution: which instructions share a run, what is computed again in a later run rather than stored, and
what therefore needs memory.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from nbad.kernels.block import ID, KERNELS
from nbad.replay.graph import Guard
from nbad.replay.lowering import ALIAS, ELEMENT, HOST, PAD, REDUCE, VIEW, Item, Lowering

#: Instructions of one run at the most.
RUN_LIMIT = 1500

#: What one instruction costs, in the time of an addition; other kernels cost 1.
_COSTS = {"div": 2, "sqrt": 3, "recip": 2, "pow": 16, "arctan2": 12, "hypot": 8, "mod": 20, "fmod": 20}
_VECTOR_COST, _SCALAR_COST = 6, 20

#: Cost up to which a value is computed again instead of being stored and read: in the caches, and beyond them.
_NEAR, _FAR = 3, 11
_CACHE = 1 << 16  # elements


@dataclass(eq=False)
class Step:
    """A run, a step of Python, or a guard.

    Attributes
    ----------
    key : tuple or None
        What runs must have in common to be one: iteration shape without ones, and group of masks. None for other steps.
    items : list of Item
        In order of execution; one for a host step, none for a guard.
    mask : int
        Union of the masks of its nodes.
    guard : Guard or None
        What to check.
    """

    key: tuple[Any, ...] | None
    mask: int
    items: list[Item] = field(default_factory=list)
    guard: Guard | None = None
    made: set[int] = field(default_factory=set)

    @property
    def is_run(self) -> bool:
        """Return whether it is a run."""
        return self.key is not None


def stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its ones."""
    return tuple(n for n in shape if n != 1)


def _group(mask: int) -> int:
    return 1 if mask & 1 else mask


class Schedule:
    """The steps of a program.

    Attributes
    ----------
    steps : list of Step
        In order.
    home : dict of int to int
        The step that makes each slot; inputs and constants are missing.
    stored : set of int
        Slots that need memory.
    """

    def __init__(self, lowering: Lowering, masks: list[int]) -> None:
        self.lowering = lowering
        self.graph = lowering.graph
        # Slots that the lowering added are constants, or made by an item.
        self.masks = masks + [0] * (len(lowering.avals) - len(masks))
        self.steps: list[Step] = []
        self.home: dict[int, int] = {}
        self._register: set[int] = set()
        self._latest: dict[tuple[Any, ...], int] = {}
        early = self._early()
        for position in early:
            self._add_node(position)
        guards = sorted(self.graph.guards, key=lambda g: g.after)
        at = 0
        for position in range(len(self.graph.nodes) + 1):
            while at < len(guards) and guards[at].after <= position:
                guard = guards[at]
                self.steps.append(Step(None, masks[guard.slot], guard=guard))
                at += 1
            if position < len(self.graph.nodes) and position not in early:
                self._add_node(position)
        self._recompute()
        self._drop_dead()
        self.stored = self._find_stored()

    # Scheduling -----------------------------------------------------------------------------------
    def _early(self) -> dict[int, None]:
        """Return the nodes that come before all others, in order, so that no run is split in two by waiting for them.

        They need no Python, so they cannot raise what a guard before them would have prevented, and they depend on nothing
        that changes at each call.
        """
        known = {*self.graph.inputs, *self.lowering.constants}
        early: dict[int, None] = {}
        for position, node in enumerate(self.graph.nodes):
            items = self._items(position)
            still = all(slot in known and not self.masks[slot] & 1 for slot in node.operands)
            if still and all(item.kind != HOST for item in items):
                known.update(node.outputs)
                early[position] = None
        return early

    def _items(self, position: int) -> list[Item]:
        starts = self.lowering.starts
        return self.lowering.items[starts[position] : starts[position + 1]]

    def _add_node(self, position: int) -> None:
        for item in self._items(position):
            self._add(item)

    def _add(self, item: Item) -> None:
        mask = 0
        for slot in item.operands:
            mask |= self.masks[slot]
        for slot in item.outputs:
            self.masks[slot] = mask
        if item.kind in (VIEW, ALIAS):
            base = self.lowering.view(item.outputs[0]).base
            if base in self.home:
                self.home[item.outputs[0]] = self.home[base]
                if item.kind == ALIAS and item.operands[0] in self._register:
                    self._register.add(item.outputs[0])
            return
        if item.kind == HOST:
            self._place(item, len(self.steps), Step(None, mask))
            return
        shape = self.lowering.avals[item.operands[0] if item.kind == REDUCE else item.outputs[0]][1]
        key = (stripped(shape), _group(mask))
        latest = self._latest.get(key, -1)
        if latest >= 0 and not self._fits(item, latest):
            latest = -1
        if latest < 0:
            latest = len(self.steps)
            self._latest[key] = latest
            self._place(item, latest, Step(key, mask))
        else:
            self._place(item, latest, None)
        if item.kind != REDUCE:
            self._register.update(item.outputs)

    def _fits(self, item: Item, run: int) -> bool:
        if len(self.steps[run].items) >= RUN_LIMIT:
            return False
        for slot in item.operands:
            home = self.home.get(slot, -1)
            if home > run:
                return False
            if home == run and (slot not in self._register or item.kind == PAD):
                return False
        return True

    def _place(self, item: Item, at: int, new: Step | None) -> None:
        if new is not None:
            self.steps.append(new)
        step = self.steps[at]
        step.items.append(item)
        step.made.update(item.outputs)
        for slot in item.operands:
            step.mask |= self.masks[slot]
        for slot in item.outputs:
            self.home[slot] = at

    # What is read across steps --------------------------------------------------------------------
    def base(self, slot: int) -> int:
        """Return the slot whose memory `slot` is a view of."""
        view = self.lowering.views.get(slot)
        return slot if view is None else view.base

    def _find_stored(self) -> set[int]:
        stored = {self.base(slot) for slot in self.graph.outputs}
        stored.update(self.base(guard.slot) for guard in self.graph.guards)
        for step in self.steps:
            for item in step.items:
                if item.kind in (HOST, REDUCE):
                    stored.update(item.outputs)
                for slot in item.operands:
                    base = self.base(slot)
                    inside = (
                        step.is_run and base in step.made and item.kind != PAD and self._same_register(slot)
                    )
                    if not inside:
                        stored.add(base)
        return {slot for slot in stored if slot in self.home}

    def _same_register(self, slot: int) -> bool:
        return slot not in self.lowering.views or slot in self._register

    # Computing again ------------------------------------------------------------------------------
    def _recompute(self) -> None:
        """Copy cheap instructions into later runs that read their results."""
        maker: dict[int, Item] = {}
        for step in self.steps:
            if step.is_run:
                maker.update((i.outputs[0], i) for i in step.items if i.kind in (ELEMENT, PAD))
        forced = self._forced()
        for at, step in enumerate(self.steps):
            if step.key is None or not step.key[0]:
                continue
            far = math.prod(step.key[0]) > _CACHE
            limit = _FAR if far else _NEAR
            copies: list[Item] = []
            seen: set[int] = set()
            for item in step.items:
                if item.kind == PAD:
                    continue
                for slot in item.operands:
                    source = self._source(slot)
                    if source is None or source in step.made or source in seen or source not in maker:
                        continue
                    if self.home[source] >= at or self.steps[self.home[source]].key != step.key:
                        continue
                    found: list[Item] = []
                    bound = 1 if source in forced else limit
                    if self._cost(source, at, maker, bound, found, seen) <= bound:
                        for copy in found:
                            if copy.outputs[0] not in seen:
                                seen.add(copy.outputs[0])
                                copies.append(copy)
            if copies:
                step.items[:0] = copies
                step.made.update(i.outputs[0] for i in copies)

    def _forced(self) -> set[int]:
        """Return the slots that need memory whatever is computed again."""
        forced = {self.base(slot) for slot in self.graph.outputs}
        forced.update(self.base(guard.slot) for guard in self.graph.guards)
        for step in self.steps:
            for item in step.items:
                for slot in item.operands:
                    base = self.base(slot)
                    home = self.home.get(base, -1)
                    if home < 0:
                        continue
                    plain = step.is_run and item.kind != PAD and self._same_register(slot)
                    if not plain or self.steps[home].key != step.key:
                        forced.add(base)
        return forced

    def _source(self, slot: int) -> int | None:
        """Return the register that `slot` is another name of."""
        if slot in self.lowering.views:
            return self.base(slot) if slot in self._register else None
        return slot

    def _cost(
        self, slot: int, at: int, maker: dict[int, Item], limit: float, found: list[Item], seen: set[int]
    ) -> float:
        """Return what it costs to make a register before step `at`, and collect the instructions in `found`."""
        item = maker[slot]
        if slot in seen or item in found:
            return 0.0
        kernel = item.kernel
        cost = float(_COSTS.get(kernel, 1))
        if kernel in ID and kernel not in _COSTS:
            row = KERNELS[ID[kernel]]
            if row.vector is not None:
                cost = _VECTOR_COST if item.code < 2 else _SCALAR_COST
        if cost > limit:
            return cost
        for operand in item.operands if item.kind == ELEMENT else ():
            source = self._source(operand)
            if (
                source is None
                or source not in maker
                or self.steps[self.home[source]].key != self.steps[at].key
            ):
                continue
            cost += self._cost(source, at, maker, limit - cost, found, seen)
            if cost > limit:
                return cost
        found.append(item)
        return cost

    def _drop_dead(self) -> None:
        """Remove instructions whose results nobody reads any more."""
        wanted = {self.base(slot) for slot in self.graph.outputs}
        wanted.update(self.base(guard.slot) for guard in self.graph.guards)
        for step in reversed(self.steps):
            local: set[int] = set()
            kept: list[Item] = []
            for item in reversed(step.items):
                if item.kind != HOST and not any(o in wanted or o in local for o in item.outputs):
                    continue
                kept.append(item)
                for slot in item.operands:
                    base = self.base(slot)
                    if base in step.made and step.is_run and item.kind != PAD and self._same_register(slot):
                        local.add(base)
                    else:
                        wanted.add(base)
            step.items = kept[::-1]
            # What this step computed again is still wanted from the one that made it first, if others read it.
            step.made = {slot for item in step.items for slot in item.outputs}
