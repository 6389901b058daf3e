"""Whether the dtypes and shapes that a graph states are those that its operations give.

Owns the check of graphs that come from outside: elementwise operations, reductions and views become addresses and lengths
without asking again, while what Python performs is compared when it has run. Nothing is computed on values, and no large memory
is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbad.errors import TapeError
from nbad.keeping import run_forward
from nbad.replay.graph import ARRAY, PYTHON, Graph, Node

__all__ = ["check_avals"]

Aval = tuple[np.dtype[Any], tuple[int, ...]]

#: What depends on the lengths of an operand's dimensions only by which of them are equal or 1.
_BY_DIMENSION = frozenset({"sum_all", "sum", "max", "min", "norm", "vecdot", "matmul", "tensordot"})
#: What gives a view of its operand, whatever its lengths.
_VIEWS = frozenset({"getitem", "transpose", "broadcast_to", "flip", "diagonal", "real", "imag"})
_ELEMENTWISE = frozenset({"astype", "complex_absolute"})
#: Lengths that stand for others. Larger products are not tried.
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
_MOST = 1 << 20
#: Bytes of the elements that transforms take.
_SIZES = {"f": (4, 8), "c": (8, 16)}


def check_avals(graph: Graph) -> None:
    """Check what each node that runs without Python states of its output.

    Parameters
    ----------
    graph : Graph
        Its indices are right already.

    Raises
    ------
    TapeError
        Naming the operation, what it states and what it gives.
    """
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if not node.op.foreign and len(node.outputs) == 1:
                _check(graph, node)


def _check(graph: Graph, node: Node) -> None:
    name = node.op.name
    stated = graph.avals[node.outputs[0]]
    operands = [graph.avals[slot] for slot in node.operands]
    forms = [graph.forms[slot] for slot in node.operands]
    try:
        if "axes" in node.attributes and name not in ("tensordot", "transpose"):
            _check_transform(node, operands)
        if name in _BY_DIMENSION:
            lengths = _short_lengths(operands)
            if lengths is None:
                return
            short = [(dtype, tuple(lengths[n] for n in shape)) for dtype, shape in operands]
            given = _given(node, [_array(aval) for aval in short])
            kept = {short: n for n, short in lengths.items()}
            given = given[0], tuple(kept.get(n, -1) for n in given[1])
        elif name in _VIEWS:
            if name == "getitem":
                _check_index(node.attributes["index"])
            given = _given(node, [_array(aval) for aval in operands])
        elif name == "reshape":
            given = operands[0][0], _reshaped(operands[0][1], node.attributes["shape"])
        elif name == "scatter":
            given = _scattered(node, operands[0])
        elif graph.forms[node.outputs[0]] == PYTHON and (name == "power" or stated[0].kind in "iub"):
            # Python computes by rules of its own: (-1.0) ** 0.5 is complex, True + True is 2.
            given = stated[0], np.broadcast_shapes(*(shape for _, shape in operands))
        elif node.op.elementwise or name in _ELEMENTWISE or isinstance(node.op.forward, np.ufunc):
            given = _elementwise(node, operands, forms)
        else:
            return
    except TapeError:
        raise
    except Exception as error:
        raise TapeError(f"the saved tape is damaged: {name} cannot run on what it reads: {error}") from None
    if given != stated:
        raise TapeError(
            f"the saved tape is damaged: {name} states {stated[0]} {stated[1]} and gives {given[0]} {given[1]}"
        )


def _check_transform(node: Node, operands: list[Aval]) -> None:
    """Raise unless axes are axes and lengths are lengths: transforms hand them to compiled code as they are."""
    axes, shape = node.attributes["axes"], operands[0][1]
    if not isinstance(axes, tuple) or not axes or len(set(axes)) != len(axes):
        raise ValueError(f"axes of {axes!r}")
    if any(type(axis) is not int or not 0 <= axis < len(shape) for axis in axes):
        raise ValueError(f"axes of {axes!r} for shape {shape}")
    if any(dtype.kind not in "fc" or dtype.itemsize not in _SIZES[dtype.kind] for dtype, _ in operands):
        raise ValueError(f"operands of {[str(dtype) for dtype, _ in operands]}")
    for key in ("lengths", "n"):
        lengths = node.attributes.get(key, ())
        for n in lengths if isinstance(lengths, tuple) else (lengths,):
            if type(n) is not int or not 0 < n < 1 << 40:
                raise ValueError(f"{key} of {lengths!r}")
    if "lengths" in node.attributes and len(node.attributes["lengths"]) != len(axes):
        raise ValueError("another number of lengths than axes")
    if node.op.name == "c2r" and shape[axes[-1]] != node.attributes["n"] // 2 + 1:
        raise ValueError(f"half a spectrum of length {shape[axes[-1]]} for {node.attributes['n']}")


def _array(aval: Aval) -> np.ndarray:
    """Return an array of this dtype and shape that takes the memory of one element."""
    dtype, shape = aval
    return np.broadcast_to(np.ones((), dtype), shape)


def _given(node: Node, values: list[Any]) -> Aval:
    result = run_forward(node.op, values, node.attributes, ())[0]
    return np.result_type(result), np.shape(result)


def _short_lengths(operands: list[Aval]) -> dict[int, int] | None:
    """Return a short length for each length that occurs, or None where even these make large arrays."""
    lengths = {0: 0, 1: 1}
    for _, shape in operands:
        for n in shape:
            if n not in lengths:
                if len(lengths) - 2 == len(_PRIMES):
                    return None
                lengths[n] = _PRIMES[len(lengths) - 2]
    if any(math.prod(lengths[n] for n in shape) > _MOST for _, shape in operands):
        return None
    return lengths


def _elementwise(node: Node, operands: list[Aval], forms: list[int]) -> Aval:
    values: list[Any] = []
    for (dtype, shape), form in zip(operands, forms, strict=True):
        one = np.ones((1,) * len(shape) if form == ARRAY else (), dtype)
        values.append(one if form == ARRAY else one.item() if form == PYTHON else one[()])
    dtype, ones = _given(node, values)
    shape = np.broadcast_shapes(*(shape for _, shape in operands))
    return dtype, shape if len(ones) == len(shape) else ones


def _reshaped(shape: tuple[int, ...], asked: Any) -> tuple[int, ...]:
    asked = asked if isinstance(asked, tuple) else (asked,)
    if any(type(n) is not int or n < -1 for n in asked) or asked.count(-1) > 1:
        raise ValueError(f"a shape of {asked}")
    size, known = math.prod(shape), math.prod(n for n in asked if n != -1)
    if -1 in asked:
        missing = size // known if known else -1
        asked = tuple(missing if n == -1 else n for n in asked)
    if math.prod(asked) != size:
        raise ValueError(f"an array of shape {shape} has no shape {asked}")
    return tuple(asked)


def _check_index(index: Any) -> None:
    """Raise for an index that is no tuple of ints, slices, None and Ellipsis."""
    fits = isinstance(index, tuple) and all(
        type(item) is int or isinstance(item, slice) or item is None or item is Ellipsis for item in index
    )
    if not fits:
        raise ValueError(f"an index of {index!r}")


def _scattered(node: Node, operand: Aval) -> Aval:
    """Return what the adjoint of an index gives; the operand must fit the place that the index leaves."""
    _check_index(node.attributes["index"])
    dtype, shape = operand
    full = tuple(node.attributes["shape"])
    place = _array((dtype, full))[node.attributes["index"]]
    if np.broadcast_shapes(np.shape(place), shape) != np.shape(place):
        raise ValueError(f"shape {shape} does not fit the place of shape {np.shape(place)}")
    return dtype, full
