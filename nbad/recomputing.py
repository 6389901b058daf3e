"""What to compute again for a pull through a graph.

Owns the tape that stands for a graph, without values until a sweep is to run; the choice of the nodes and shared values that
make what the pullbacks of this sweep read; and where these go. Must not run anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbad.activity import TABLES, Activity
from nbad.replay.graph import Graph, Node
from nbad.table import Shared
from nbad.tape import Frozen, Tape, freeze, new_tape
from nbad.trace import Traced

__all__ = ["Plan"]


class Plan:
    """How to pull from some outputs of a graph back to some inputs: a tape without values, and what to compute for it.

    Parameters
    ----------
    graph : Graph
        What was recorded; it has no guards.
    positions : list
        The source positions that its nodes name.
    watched : mapping
        Its constants that are checked for changes.
    asked, outs : sequence of int
        Positions of inputs and outputs.

    Attributes
    ----------
    reads : tuple of int
        Positions of the operands that it reads.
    """

    def __init__(
        self,
        graph: Graph,
        positions: list[tuple[Any, int]],
        watched: Mapping[int, Any],
        asked: Sequence[int],
        outs: Sequence[int],
    ) -> None:
        self.slot_of: dict[int, int] = {}
        self.hidden: dict[int, tuple[int, int]] = {}  # tape slot -> (node, position of the shared value)
        self.constants: dict[int, int] = {}
        self._scalars: dict[int, int] = {}
        self.frozen = self._frozen(graph, [graph.inputs[k] for k in asked], positions)
        self.seeds = {i: self.slot_of[s] for i in outs if (s := graph.outputs[i]) in self.slot_of}
        self.activity = Activity(self.frozen, list(range(len(asked))), list(set(self.seeds.values())))
        self._choose(graph)
        reads = {*self.values, *(slot for i in self.steps for slot in self.operands[i])}
        self.reads = tuple(k for k, slot in enumerate(graph.inputs) if slot in reads)
        self.watched = [slot for slot in watched if slot in reads]

    def _frozen(self, graph: Graph, asked: list[int], positions: list[tuple[Any, int]]) -> Frozen:
        """Return the tape that recording the region for these operands would have given, without values."""
        tape = new_tape()
        tape.inputs = len(asked)
        tape.lines = positions
        for slot in asked:
            self.slot_of[slot] = tape.add_slot(*graph.avals[slot])
        self.made: list[int] = []
        for i, node in enumerate(graph.nodes):
            op = node.op
            varied = any(
                slot in self.slot_of and op.pullback_of(k) is not None for k, slot in enumerate(node.operands)
            )
            if varied and any(graph.avals[slot][0].kind in "fc" for slot in node.outputs):
                self._append(tape, graph, i, node)
                self.made.append(i)
        places = {
            slot: self._reserve(tape) for slot, (_, shape) in self._zero_dimensional(graph) if shape == ()
        }
        self._scalars = places
        TABLES.cover()
        return freeze(tape, TABLES.arity)

    def _zero_dimensional(self, graph: Graph) -> list[tuple[int, Any]]:
        both = [*self.slot_of.items(), *self.constants.items()]
        return [(mine, graph.avals[slot]) for slot, mine in both]

    @staticmethod
    def _reserve(tape: Tape) -> int:
        """Make room for a scalar: the arrays of a frozen tape do not grow."""
        tape.scalar.extend((0.0, 0.0))
        return len(tape.scalar) - 2

    def _append(self, tape: Tape, graph: Graph, i: int, node: Node) -> None:
        op = node.op
        if op.attributes:
            tape.add_attributes(tuple(node.attributes[name] for name in op.attributes))
        if op.variadic:
            tape.variadic_node.append(len(tape.op))
            tape.variadic_count.append(len(node.operands))
        for slot in node.operands:
            mine = self.slot_of.get(slot, self.constants.get(slot))
            if mine is None:
                dtype, shape = graph.avals[slot]
                if shape == ():  # kept as a number, as `keep_constant` does
                    dtype = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
                mine = self.constants[slot] = tape.add_slot(dtype, shape)
            tape.add_edge(mine)
        tape.add_op(op.opcode)
        tape.add_line(max(node.line, -1))
        tape.add_out(len(tape.objects))
        for slot in node.outputs:
            mine = tape.add_slot(*graph.avals[slot])
            if graph.avals[slot][0].kind in "fc":
                self.slot_of[slot] = mine
        for position in op.hidden:
            self.hidden[tape.add_slot(np.dtype(np.float64), ())] = i, position

    def _choose(self, graph: Graph) -> None:
        """Find what the pullbacks that will run read, and which nodes must be run for that."""
        read = self.activity.read
        mine = {**self.constants, **self.slot_of}
        #: slots of the graph whose values the sweep reads -> slots of the tape
        self.values = {slot: mine[slot] for slot in mine if read[mine[slot]]}
        self.shared: dict[
            int, list[tuple[int, int]]
        ] = {}  # node -> (position of a shared value, slot of the tape)
        for slot, (i, position) in self.hidden.items():
            if read[slot]:
                self.shared.setdefault(i, []).append((position, slot))
        wanted = set(self.values)
        self.steps: list[int] = []
        self.operands: dict[int, set[int]] = {}  # node -> the slots that it reads
        self.executed: set[int] = set()
        for i in range(len(graph.nodes) - 1, -1, -1):
            node = graph.nodes[i]
            runs = not wanted.isdisjoint(node.outputs)
            if not runs and i not in self.shared:
                continue
            self.steps.append(i)
            if runs:
                self.executed.add(i)
                found = set(node.operands)
            else:
                positions = _operands_of(node.op.shared, [p for p, _ in self.shared[i]], len(node.operands))
                found = {node.operands[k] for k in positions}
            self.operands[i] = found
            wanted |= found
        self.steps.reverse()
        last = {slot: i for i in self.steps for slot in self.operands[i]}
        self.releases: dict[int, list[int]] = {}
        for slot, i in last.items():
            if slot not in self.values:
                self.releases.setdefault(i, []).append(slot)

    def fill(self, slot: int, value: Any, *, constant: bool) -> None:
        """Put a value where the sweep finds it; see `keep_value` and `keep_constant`."""
        frozen = self.frozen
        objects = frozen.tape.objects
        if constant and type(value) is np.ndarray and value.ndim == 0:
            value = value.item()
        elif isinstance(value, np.ndarray) and not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        objects[slot] = value
        if isinstance(value, (np.ndarray, Traced)):
            frozen.ref[slot] = id(value)
            return
        place = self._scalars[slot]
        number = complex(value)
        frozen.scalar[place], frozen.scalar[place + 1] = number.real, number.imag
        frozen.ref[slot] = place + 1

    def fill_shared(self, slot: int, value: Any) -> None:
        """Put a shared value where the pullbacks find it."""
        self.frozen.tape.objects[slot] = value
        self.frozen.ref[slot] = id(value) if isinstance(value, (np.ndarray, Traced)) else 1

    def clear(self) -> None:
        """Let go of all values."""
        self.frozen.ref[:] = 0
        objects = self.frozen.tape.objects
        objects[:] = [None] * len(objects)


def _operands_of(shared: Sequence[Shared], positions: list[int], count: int) -> set[int]:
    """Return which operands some shared values are computed from."""
    found: set[int] = set()
    todo = list(positions)
    while todo:
        for read in shared[todo.pop()].reads:
            if read.kind == "operand":
                found.add(read.index)
            elif read.kind == "operands":
                found.update(range(count))
            elif read.kind == "shared":
                todo.append(read.index)
    return found
