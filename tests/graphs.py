"""Graphs for tests: built by hand, run by the plainest interpreter, and counted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import nbad
from nbad.keeping import run_forward
from nbad.replay.graph import ARRAY, CONTENTS, TRUTH, Graph, Guard, Node, form_of
from nbad.table import Op


class Building:
    """A graph that grows with the values of its slots."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.values: list[Any] = []

    def input(self, value: Any) -> int:
        """Add an input that has this value now."""
        self.graph.inputs.append(self._slot(value))
        return self.graph.inputs[-1]

    def constant(self, value: Any) -> int:
        """Add a constant."""
        self.values.append(value)
        return self.graph.add_constant(value)

    def __call__(self, op: Op, *operands: int, form: int | None = None, **attributes: Any) -> Any:
        """Add a node and return its output, or outputs."""
        with np.errstate(all="ignore"):
            y = run_forward(op, [self.values[slot] for slot in operands], attributes, ())[0]
        outputs = tuple(self._slot(part) for part in (y if op.outputs > 1 else (y,)))
        self.graph.nodes.append(Node(op, operands, outputs, attributes))
        return outputs if op.outputs > 1 else outputs[0]

    def guard(self, slot: int) -> None:
        """Let Python see a slot here."""
        value = self.values[slot]
        kind, seen = (TRUTH, bool(value)) if np.ndim(value) == 0 else (CONTENTS, np.asarray(value))
        self.graph.guards.append(Guard(slot, kind, seen, -1, len(self.graph.nodes)))

    def done(self, *outputs: int) -> Graph:
        """Return the graph with these outputs."""
        self.graph.outputs = list(outputs)
        return self.graph

    def inputs(self) -> list[Any]:
        """Return the values of the inputs."""
        return [self.values[slot] for slot in self.graph.inputs]

    def _slot(self, value: Any) -> int:
        self.values.append(value)
        return self.graph.add_slot(np.result_type(value), np.shape(value), form_of(value))


def naive(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a graph: each node run by itself, in order, each value and guard checked."""
    values: dict[int, Any] = dict(graph.constants)
    values.update(zip(graph.inputs, inputs, strict=True))
    guards = sorted(graph.guards, key=lambda guard: guard.after)
    for at, node in enumerate(graph.nodes):
        for guard in guards:
            if guard.after <= at:
                assert guard.slot in values, f"{guard} is checked before its value exists"
        y = run_forward(node.op, [values[slot] for slot in node.operands], node.attributes, ())[0]
        for slot, part in zip(node.outputs, y if node.op.outputs > 1 else (y,), strict=True):
            dtype, shape = graph.avals[slot]
            assert (np.result_type(part), np.shape(part)) == (dtype, shape), (
                f"{node}: {np.result_type(part)} {np.shape(part)}"
            )
            assert graph.forms[slot] != ARRAY or isinstance(part, np.ndarray) or shape == (), f"{node}"
            values[slot] = part
    return [values[slot] for slot in graph.outputs]


def transforms(graph: Graph, inputs: Sequence[Any], skipped: Sequence[int] = ()) -> int:
    """Return how many transforms a run takes, without nodes that depend only on inputs `skipped` and constants."""
    fixed = {*graph.constants, *(graph.inputs[k] for k in skipped)}
    values: dict[int, Any] = dict(graph.constants)
    values.update(zip(graph.inputs, inputs, strict=True))
    total = 0
    for node in graph.nodes:
        with nbad.report() as account:
            y = run_forward(node.op, [values[slot] for slot in node.operands], node.attributes, ())[0]
        values.update(zip(node.outputs, y if node.op.outputs > 1 else (y,), strict=True))
        if fixed.issuperset(node.operands):
            fixed.update(node.outputs)
        else:
            total += account.ffts
    return total


def ops(graph: Graph) -> list[str]:
    """Return the names of the operations of a graph, in order."""
    return [node.op.name for node in graph.nodes]
