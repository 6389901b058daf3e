"""The graph: a recorded program, as what rewrites it and plans it wants to see it.

Owns nodes, slots and guards in the order of execution, what depends on what, and the removal of nodes that nobody reads.
A graph knows rows of the op table but no values except constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbad.table import Op

#: What the value of a slot is to Python: an ndarray, a NumPy scalar, or a Python number (weak in promotion).
ARRAY, SCALAR, PYTHON = range(3)

#: Kinds of guards: the truth of a value, or all of its bits.
TRUTH, CONTENTS = "truth", "contents"


@dataclass(slots=True, eq=False)
class Node:
    """One operation: slots in, slots out."""

    op: Op
    operands: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Any]
    line: int = -1

    def __repr__(self) -> str:
        return f"{self.outputs} = {self.op.name}{self.operands} {self.attributes or ''}"


@dataclass(slots=True, eq=False)
class Guard:
    """What Python code saw of a value while it was recorded; a replay is valid only if it sees the same.

    Attributes
    ----------
    slot : int
        The value.
    kind : str
        TRUTH or CONTENTS.
    seen : bool or ndarray
        The truth, or the contents (an array of the slot's own dtype and shape).
    line : int
        Index into the graph's source lines.
    after : int
        Number of nodes recorded before it: later nodes may rely on it.
    """

    slot: int
    kind: str
    seen: Any
    line: int
    after: int


@dataclass(slots=True, eq=False)
class Graph:
    """A program: nodes in an order of execution.

    Attributes
    ----------
    nodes : list of Node
        Operands are inputs, constants, or outputs of earlier nodes.
    avals : list of (dtype, shape)
        What each slot is; dtypes are native.
    forms : list of int
        ARRAY, SCALAR or PYTHON for each slot.
    inputs : list of int
        Slots that a call fills.
    constants : dict of int to ndarray or number
        Values of slots that are the same in every call; an array may have strides of 0.
    outputs : list of int
        Slots that a call returns; inputs, constants and repetitions are allowed.
    guards : list of Guard
        In the order of recording.
    lines : list of (str, int)
        Source file and line number.
    """

    nodes: list[Node] = field(default_factory=list)
    avals: list[tuple[np.dtype[Any], tuple[int, ...]]] = field(default_factory=list)
    forms: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    lines: list[tuple[str, int]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """Number of slots."""
        return len(self.avals)

    def add_slot(self, dtype: np.dtype[Any], shape: tuple[int, ...], form: int = ARRAY) -> int:
        """Append a slot and return its number."""
        self.avals.append((dtype, shape))
        self.forms.append(form)
        return len(self.avals) - 1

    def add_constant(self, value: Any) -> int:
        """Append a slot that holds the constant `value` and return its number."""
        form = form_of(value)
        slot = self.add_slot(np.result_type(value), np.shape(value), form)
        self.constants[slot] = value
        return slot

    def makers(self) -> dict[int, int]:
        """Return, for each slot that a node makes, the position of the node."""
        return {slot: i for i, node in enumerate(self.nodes) for slot in node.outputs}

    def readers(self) -> list[list[int]]:
        """Return, for each slot, the positions of the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.avals]
        for i, node in enumerate(self.nodes):
            for slot in set(node.operands):
                found[slot].append(i)
        return found

    def copy(self) -> Graph:
        """Return a graph of its own; nodes, guards and constant values are shared."""
        return Graph(
            list(self.nodes),
            list(self.avals),
            list(self.forms),
            list(self.inputs),
            dict(self.constants),
            list(self.outputs),
            list(self.guards),
            self.lines,
        )


def form_of(value: Any) -> int:
    """Return ARRAY, SCALAR or PYTHON for a value."""
    if isinstance(value, np.generic):
        return SCALAR
    return PYTHON if isinstance(value, (bool, int, float, complex)) else ARRAY


def masks_of(graph: Graph, input_masks: Iterable[int]) -> list[int]:
    """Return, for each slot, the union of the masks of the inputs that it depends on; 0 for constants."""
    masks = [0] * graph.slots
    for slot, mask in zip(graph.inputs, input_masks, strict=True):
        masks[slot] = mask
    for node in graph.nodes:
        mask = 0
        for slot in node.operands:
            mask |= masks[slot]
        for slot in node.outputs:
            masks[slot] = mask
    return masks


def pruned(graph: Graph) -> Graph:
    """Return the graph without nodes that neither an output nor a guard needs, and with its guards moved accordingly."""
    wanted = set(graph.outputs) | {guard.slot for guard in graph.guards}
    kept = [False] * len(graph.nodes)
    for i in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[i]
        if not wanted.isdisjoint(node.outputs):
            kept[i] = True
            wanted.update(node.operands)
    before = [0]
    for keep in kept:
        before.append(before[-1] + keep)
    result = graph.copy()
    result.nodes = [node for node, keep in zip(graph.nodes, kept, strict=True) if keep]
    result.constants = {slot: value for slot, value in graph.constants.items() if slot in wanted}
    result.guards = [Guard(g.slot, g.kind, g.seen, g.line, before[g.after]) for g in graph.guards]
    return result
