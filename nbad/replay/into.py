"""Results in place: host steps that write into memory which the plan gave them.

Owns, for each op of which NumPy can write the result into an array exactly, the function that does so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad.pulling import Scattered
from nbad.replay.graph import Node
from nbad.replay.products import multiply
from nbad.replay.sums import sum_of
from nbad.rules.indexing import filled
from nbad.rules.updating import put

Aval = tuple[np.dtype[Any], tuple[int, ...]]
Into = Callable[..., Any]

__all__ = ["Into", "Write", "into_of"]


class _Ufunc:
    """A ufunc without a block kernel."""

    def __init__(self, node: Node) -> None:
        self.ufunc: Any = node.op.forward

    def __call__(self, out: np.ndarray, *operands: Any) -> None:
        self.ufunc(*operands, out=out)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
}
_JOINS: dict[str, Callable[..., Any]] = {"concatenate": np.concatenate, "stack": np.stack}


class _Reduction:
    """A reduction or a running one over some axes."""

    def __init__(self, node: Node) -> None:
        self.function = _REDUCTIONS[node.op.name]
        self.attributes = node.attributes

    def __call__(self, out: np.ndarray, x: np.ndarray) -> None:
        self.function(x, out=out, **self.attributes)


class _Join:
    """Arrays joined along an axis."""

    def __init__(self, node: Node) -> None:
        self.function = _JOINS[node.op.name]
        self.axis = node.attributes["axis"]

    def __call__(self, out: np.ndarray, *operands: np.ndarray) -> None:
        self.function(operands, axis=self.axis, out=out)


class _Tensordot:
    """A tensordot as the matrix product that NumPy makes of it."""

    def __init__(self, axes: Any, shapes: Sequence[tuple[int, ...]]) -> None:
        (summed_a, summed_b), (shape_a, shape_b) = axes, shapes
        free_a = [d for d in range(len(shape_a)) if d not in summed_a]
        free_b = [d for d in range(len(shape_b)) if d not in summed_b]
        self.order_a, self.order_b = (*free_a, *summed_a), (*summed_b, *free_b)
        count = int(np.prod([shape_a[d] for d in summed_a], dtype=np.int64))
        self.rows = int(np.prod([shape_a[d] for d in free_a], dtype=np.int64))
        self.columns = int(np.prod([shape_b[d] for d in free_b], dtype=np.int64))
        self.shape_a, self.shape_b = (self.rows, count), (count, self.columns)

    def __call__(self, out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        left = a.transpose(self.order_a).reshape(self.shape_a)
        right = b.transpose(self.order_b).reshape(self.shape_b)
        multiply(out.reshape(self.rows, self.columns), left, right)


class _Scatter:
    """Zeros with an array at an index."""

    def __init__(self, node: Node) -> None:
        self.index = node.attributes["index"]

    def __call__(self, out: np.ndarray, x: Any) -> None:
        out[...] = 0
        out[self.index] = x


class _ScatterAdd:
    """Zeros to which an array is added at an index with arrays."""

    def __init__(self, node: Node) -> None:
        self.template, self.unique = node.attributes["template"], node.attributes["unique"]

    def __call__(self, out: np.ndarray, x: np.ndarray, *places: Any) -> None:
        out[...] = 0
        Scattered(filled(self.template, places), np.asarray(x), self.unique).add_to(out)


class Write:
    """An array that is written at an index of one of its views, where the array after the write is to stand.

    Attributes
    ----------
    in_place : bool
        The array before the write stands there already.
    """

    def __init__(self, node: Node) -> None:
        self.attributes = node.attributes
        self.in_place = False

    def __call__(self, out: np.ndarray, x: np.ndarray, v: Any, *places: Any) -> None:
        """Write."""
        a = self.attributes
        if not self.in_place:
            bring(out, x)
        index = filled(a["template"], places) if "template" in a else a["index"]
        put(out, a["path"], index, v, add=a.get("add", False))


def bring(out: np.ndarray, x: np.ndarray) -> None:
    """Copy the whole array before a write."""
    out[...] = x


def _reshape(out: np.ndarray, x: Any) -> None:
    out.reshape(np.shape(x))[...] = x


def _copy(out: np.ndarray, x: np.ndarray) -> None:
    out[...] = x


def into_of(node: Node, avals: Sequence[Aval]) -> Into | None:
    """Return ``into(out, *operands)`` for a node, or None where only its forward can make the result.

    Parameters
    ----------
    node : Node
        An operation with one result.
    avals : sequence of (dtype, shape)
        Of all slots.

    Returns
    -------
    callable or None
        Writes exactly what the forward returns into a C-contiguous array of the recorded dtype and shape.
    """
    op = node.op
    if op.foreign or op.outputs != 1:
        return None
    operands = [avals[s] for s in node.operands]
    dtype = avals[node.outputs[0]][0]
    name = op.name
    if isinstance(op.forward, np.ufunc):
        return _Ufunc(node) if op.forward.nout == 1 and not node.attributes else None
    if name == "sum" and (found := sum_of(node.attributes, operands[0], dtype)) is not None:
        return found
    if name in _REDUCTIONS:
        return _Reduction(node)
    if name in _JOINS:
        return _Join(node) if all(d == dtype for d, _ in operands) else None
    numeric = dtype.kind in "fc" and all(d == dtype for d, _ in operands)
    if name == "matmul" and numeric:
        return multiply
    if name == "tensordot" and numeric and 0 not in [n for _, shape in operands for n in shape]:
        return _Tensordot(node.attributes["axes"], [shape for _, shape in operands])
    if name == "scatter":
        return _Scatter(node) if operands[0][0] == dtype else None
    if name == "scatter_add":
        return _ScatterAdd(node) if operands[0][0] == dtype else None
    if name in ("write", "write_at"):
        return Write(node) if operands[0] == avals[node.outputs[0]] else None
    if name == "reshape":
        return _reshape
    if name in ("transpose", "broadcast_to", "flip"):
        return None
    if name == "astype" and operands[0][0].kind != "c":
        return _copy if operands[0][1] == avals[node.outputs[0]][1] and dtype.kind in "fcb" else None
    return None
