"""Pictures of a graph: text and Graphviz.

Owns spelling only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbad.replay.graph import PYTHON, Graph

__all__ = ["Listing", "to_dot"]


class Listing:
    """A graph for reading; ``print`` shows one node a line.

    Attributes
    ----------
    graph : Graph
        What is shown.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.graph.nodes)

    def __str__(self) -> str:
        """Return inputs, nodes with their source lines, guards and outputs."""
        graph = self.graph
        rows = [f"input     %{slot}: {_aval(graph, slot)}" for slot in graph.inputs]
        rows += [
            f"constant  %{slot}: {_aval(graph, slot)}{_value(graph.constants[slot])}"
            for slot in graph.constants
        ]
        waiting = list(graph.guards)
        for i, node in enumerate(graph.nodes):
            while waiting and waiting[0].after <= i:
                rows.append(_guard(graph, waiting.pop(0)))
            results = ", ".join(f"%{slot}: {_aval(graph, slot)}" for slot in node.outputs)
            operands = ", ".join(f"%{slot}" for slot in node.operands)
            options = "".join(f", {name}={value!r}" for name, value in node.attributes.items())
            rows.append(f"{results} = {node.op.name}({operands}{options}){_place(graph, node.line)}")
        rows += [_guard(graph, guard) for guard in waiting]
        rows.append("return    " + ", ".join(f"%{slot}" for slot in graph.outputs))
        return "\n".join(rows)

    __repr__ = __str__


def to_dot(graph: Graph) -> str:
    """Return the graph in Graphviz's dot language.

    Examples
    --------
    >>> print(to_dot(Graph()))
    digraph tape {
      node [shape=box];
    }
    """
    rows = ["digraph tape {", "  node [shape=box];"]
    rows += [f'  s{slot} [label="input {_aval(graph, slot)}", shape=ellipse];' for slot in graph.inputs]
    rows += [
        f'  s{slot} [label="{_aval(graph, slot)}{_value(v)}", style=dashed];'
        for slot, v in graph.constants.items()
    ]
    maker = {slot: f"s{slot}" for slot in (*graph.inputs, *graph.constants)}
    for i, node in enumerate(graph.nodes):
        label = f"{node.op.name} {_aval(graph, node.outputs[0])}"
        rows.append(f'  n{i} [label="{label}"];')
        rows += [f"  {maker[slot]} -> n{i};" for slot in node.operands]
        maker.update({slot: f"n{i}" for slot in node.outputs})
    for k, slot in enumerate(graph.outputs):
        rows += [f'  o{k} [label="output {k}", shape=ellipse];', f"  {maker[slot]} -> o{k};"]
    return "\n".join([*rows, "}"])


def _aval(graph: Graph, slot: int) -> str:
    dtype, shape = graph.avals[slot]
    if graph.forms[slot] == PYTHON:
        return f"Python {dtype}"
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _value(value: Any) -> str:
    return f" = {value!r}" if np.size(value) == 1 else ""


def _guard(graph: Graph, guard: Any) -> str:
    seen = guard.seen if np.size(guard.seen) == 1 else f"{np.shape(guard.seen)} contents"
    return f"guard     {guard.kind} of %{guard.slot} is {seen}{_place(graph, guard.line)}"


def _place(graph: Graph, line: int) -> str:
    if not 0 <= line < len(graph.lines):
        return ""
    file, number = graph.lines[line]
    return f"    # {file.replace(chr(92), '/').rpartition('/')[2]}:{number}"
