"""Run the pullbacks of one node on values.

Owns how the parameters of a rule are filled and that shared values are computed at most once. Used by the host steps of the
sweep (on ndarrays) and by the sweep of nested transformations (on traced values).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nbad.table import Op, Read
from nbad.tape import Frozen


class Scattered:
    """A cotangent that is zero except at an index; the engine adds it in place.

    Parameters
    ----------
    index : tuple
        A NumPy index.
    values : ndarray
        What to add there.
    unique : bool
        No element is addressed twice (basic indexing), so ``target[index] += values`` is right.
    """

    __slots__ = ("index", "unique", "values")

    def __init__(self, index: Any, values: np.ndarray, unique: bool) -> None:
        self.index = index
        self.values = values
        self.unique = unique

    def add_to(self, target: np.ndarray) -> None:
        """Add the values into `target`."""
        values = self.values
        if values.dtype.kind == "c" and target.dtype.kind == "f":
            values = values.real
        if self.unique:
            target[self.index] += values
        else:
            np.add.at(target, self.index, values)


class Cleared:
    """The cotangent of an array before a write: that of the array after it, zero where it was written.

    Parameters
    ----------
    put : callable
        ``put(target, path, index, 0)`` writes zeros.
    path, index : tuple
        Where: an index of a view.
    """

    __slots__ = ("index", "path", "put")

    def __init__(self, put: Callable[..., None], path: Any, index: Any) -> None:
        self.put = put
        self.path = path
        self.index = index

    def clear(self, target: np.ndarray) -> np.ndarray:
        """Write the zeros into `target` and return it."""
        self.put(target, self.path, self.index, 0)
        return target


class _Node:
    """The values that the rules of one node may read, each fetched on demand."""

    __slots__ = ("attributes", "edges", "frozen", "g", "memo", "node", "op", "out")

    def __init__(self, op: Op, frozen: Frozen, node: int, g: Any, edges: list[int]) -> None:
        self.op = op
        self.frozen = frozen
        self.node = node
        self.g = g
        self.edges = edges
        self.out = int(frozen.out_start[node])
        self.attributes = frozen.attributes(node) if op.attributes else ()
        self.memo: dict[int, Any] = {}

    def operand(self, k: int) -> Any:
        slot = self.edges[k]
        return None if slot < 0 else self.frozen.tape.objects[slot]

    def shared(self, i: int) -> Any:
        if i not in self.memo:
            row = self.op.shared[i]
            kept = None
            if row.at_forward:
                kept = self.frozen.tape.objects[self.out + self.op.outputs + self.op.hidden.index(i)]
            self.memo[i] = row.function(*(self.read(r, -1) for r in row.reads)) if kept is None else kept
        return self.memo[i]

    def read(self, read: Read, k: int) -> Any:
        kind = read.kind
        if kind == "g":
            return self.g
        if kind == "operand":
            return self.operand(read.index)
        if kind == "y":
            objects = self.frozen.tape.objects
            if self.op.outputs == 1:
                return objects[self.out]
            return tuple(objects[self.out : self.out + self.op.outputs])
        if kind == "attribute":
            return self.attributes[read.index]
        if kind == "shared":
            return self.shared(read.index)
        if kind == "shape":
            return self.frozen.shape(self.out if read.index < 0 else self.edges[read.index])
        if kind == "dtype":
            return self.frozen.dtype(self.out if read.index < 0 else self.edges[read.index])
        if kind == "k":
            return k
        if kind == "others":
            return tuple(None if j == k else self.operand(j) for j in range(len(self.edges)))
        if kind == "operands":
            return tuple(self.operand(j) for j in range(len(self.edges)))
        if kind == "shapes":
            return tuple(self.frozen.shape(slot) for slot in self.edges)
        return tuple(self.frozen.dtype(slot) for slot in self.edges)


def pull_node(
    op: Op, frozen: Frozen, node: int, g: Any, asked: list[int], edges: list[int], *, traced: bool = False
) -> Iterator[tuple[int, Any]]:
    """Yield (operand position, cotangent) for each asked operand of `node`.

    Parameters
    ----------
    op : Op
        The row of the node.
    frozen : Frozen
        The tape.
    node : int
        Position of the node.
    g : ndarray, Traced or tuple of these
        Cotangent of the output; a tuple (None where unused) for ops with several.
    asked : list of int
        Positions of the operands whose pullback is needed.
    edges : list of int
        Operand slots of the node.
    traced : bool
        Use the rules even where a jitted kernel exists, because values may be traced.
    """
    values = _Node(op, frozen, node, g, edges)
    if op.kernel is not None and not traced:
        kept = {}
        for place, i in enumerate(op.hidden):
            value = frozen.tape.objects[values.out + op.outputs + place]
            if value is not None:
                kept[op.shared[i].name] = value
        attributes = dict(zip(op.attributes, values.attributes, strict=True))
        shapes = tuple(frozen.shape(slot) if slot >= 0 else () for slot in edges)
        yield from op.kernel.pullback(tuple(asked), g, kept, shapes, attributes).items()
        return
    if op.together is not None:
        attributes = dict(zip(op.attributes, values.attributes, strict=True))
        operands = [values.operand(k) for k in range(len(edges))]
        y = tuple(frozen.tape.objects[values.out : values.out + op.outputs])
        yield from zip(asked, op.together.pull(asked, g, operands, y, attributes), strict=True)
        return
    # What was written is read before it is cleared, so that a replay may clear it where it stands.
    for k in asked[::-1] if op.name in ("write", "write_at") else asked:
        pullback = op.pullback_of(k)
        if pullback is None:
            continue
        yield k, pullback.rule(*[values.read(read, k) for read in pullback.reads])
