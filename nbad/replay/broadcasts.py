"""Broadcasts of numbers: as late as possible.

Owns the rewrite by which arithmetic is done on a number before it is broadcast, and by which an operation that broadcasts its
operands anyway gets the number itself.
"""

from __future__ import annotations

import numpy as np

from nbad.replay.graph import ARRAY, PYTHON, Graph, Node
from nbad.replay.simplify import Walk
from nbad.rules.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, SUBTRACT
from nbad.rules.shaping import BROADCAST_TO

__all__ = ["with_late_broadcasts"]

#: Correctly rounded, so a number has the same bits alone and in an array.
_ROUNDED = frozenset({ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATIVE})


def with_late_broadcasts(graph: Graph) -> Graph:
    """Return a graph that computes the same bits, in which numbers stay numbers for longer.

    Parameters
    ----------
    graph : Graph
        Not modified.

    Returns
    -------
    Graph
        Not pruned.
    """
    walk = Walk(graph)
    for node in graph.nodes:
        operands = walk.operands(node)
        if node.op in _ROUNDED and not node.attributes:
            node = _late(walk, node, operands)
        walk.keep(node)
    return walk.finish()


def _late(walk: Walk, node: Node, operands: tuple[int, ...]) -> Node:
    """Return the node that makes the result of real arithmetic."""
    avals, forms = walk.graph.avals, walk.graph.forms
    (out,) = node.outputs
    dtype, shape = avals[out]
    if dtype.kind != "f" or forms[out] != ARRAY or any(avals[slot][0] != dtype for slot in operands):
        return node
    sources = [_source(walk, slot) for slot in operands]
    if sources == list(operands):
        return node
    if all(avals[slot][1] == () for slot in sources):
        number = walk.emit(node.op, tuple(sources), {}, dtype, (), node.line)
        return Node(BROADCAST_TO, (number,), node.outputs, {"shape": shape}, node.line)
    if np.broadcast_shapes(*(avals[slot][1] for slot in sources)) != shape:
        return node
    return Node(node.op, tuple(sources), node.outputs, {}, node.line)


def _source(walk: Walk, slot: int) -> int:
    """Return the number that a slot is broadcast from, if it is one that keeps the dtype of what it meets, else the slot."""
    node = walk.made.get(slot)
    if node is None or node.op is not BROADCAST_TO:
        return slot
    (number,) = node.operands
    (dtype, shape), form = walk.graph.avals[number], walk.graph.forms[number]
    return number if shape == () and dtype == walk.graph.avals[slot][0] and form != PYTHON else slot
