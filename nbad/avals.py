"""Whether the dtypes and shapes that a graph states are those that its operations give.

Owns the check of graphs that come from outside: elementwise operations, reductions and views become addresses and lengths
without asking again, and some operations hand attributes to compiled code, which `nbad.kernel_avals` knows; what NumPy performs
is compared when it has run. Nothing is computed on values, and no large memory is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from nbad.errors import TapeError
from nbad.keeping import run_forward
from nbad.kernel_avals import GIVES, NEVER_SAVED
from nbad.replay.graph import ARRAY, PYTHON, Graph, Node

__all__ = ["check_avals"]

Aval = tuple[np.dtype[Any], tuple[int, ...]]

_REDUCTIONS = frozenset({"sum_all", "sum", "prod", "max", "min", "norm"})
_RUNNING = frozenset({"cumsum", "cumprod"})
_PRODUCTS = frozenset({"vecdot", "matmul", "tensordot"})
#: What gives a view of its operand, whatever its lengths.
_VIEWS = frozenset({"getitem", "transpose", "broadcast_to", "flip", "diagonal"})
_ELEMENTWISE = frozenset({"astype", "complex_absolute", "real", "imag"})


def check_avals(graph: Graph) -> None:
    """Check what each node that runs without NumPy states of its output, and that it can run.

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
            if node.op.foreign:
                continue
            if node.op.name in NEVER_SAVED or node.op.together is not None:
                raise TapeError(f"the saved tape is damaged: {node.op.name} stands in no recording")
            if len(node.outputs) == 1:
                _check(graph, node)


def _check(graph: Graph, node: Node) -> None:
    name = node.op.name
    stated = graph.avals[node.outputs[0]]
    operands = [graph.avals[slot] for slot in node.operands]
    forms = [graph.forms[slot] for slot in node.operands]
    try:
        _check_dtype(node.attributes.get("dtype"))
        if name in GIVES:
            given = GIVES[name](node.attributes, *operands)
        elif name in _REDUCTIONS:
            given = _reduced(node, operands[0])
        elif name in _RUNNING:
            given = _dtype_given(node, operands), operands[0][1]
        elif name in _PRODUCTS:
            given = _dtype_given(node, operands), _product(node, *(shape for _, shape in operands))
        elif name in _VIEWS:
            if name == "getitem":
                _check_index(node.attributes["index"])
            given = _given(node, [_array(aval) for aval in operands])
        elif name == "reshape":
            given = operands[0][0], _reshaped(operands[0][1], node.attributes["shape"])
        elif name == "scatter_add":
            given = operands[0][0], _lengths(node.attributes["shape"])
        elif name in ("write", "write_at"):
            given = operands[0]
        elif name == "scatter":
            given = _scattered(node, operands[0])
        elif _is_pythons(graph, node) and (name == "power" or stated[0].kind in "iub"):
            # Python computes by rules of its own: (-1.0) ** 0.5 is complex, True + True is 2.
            given = stated[0], ()
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


def _is_pythons(graph: Graph, node: Node) -> bool:
    """Return whether a number of Python's was computed from numbers."""
    return graph.forms[node.outputs[0]] == PYTHON and not any(graph.avals[slot][1] for slot in node.operands)


def _check_dtype(name: Any) -> None:
    """Raise for the name of a dtype that is not numeric: its elements could be of any size."""
    if name is not None and (type(name) is not str or np.dtype(name).kind not in "fciub"):
        raise ValueError(f"a dtype of {name!r}")


def _array(aval: Aval) -> np.ndarray:
    """Return an array of this dtype and shape that takes the memory of one element."""
    dtype, shape = aval
    return np.broadcast_to(np.ones((), dtype), shape)


def _given(node: Node, values: list[Any]) -> Aval:
    result = run_forward(node.op, values, node.attributes, ())[0]
    return np.result_type(result), np.shape(result)


def _dtype_given(node: Node, operands: list[Aval]) -> np.dtype[Any]:
    """Return the dtype that an operation gives for operands of as many dimensions, all of length 1."""
    return _given(node, [np.ones((1,) * len(shape), dtype) for dtype, shape in operands])[0]


def _reduced(node: Node, operand: Aval) -> Aval:
    shape, a = operand[1], node.attributes
    axis = range(len(shape)) if node.op.name == "sum_all" else normalize_axis_tuple(a["axis"], len(shape))
    kept = bool(a.get("keepdims"))
    left = tuple(1 if d in axis else n for d, n in enumerate(shape) if kept or d not in axis)
    return _dtype_given(node, [operand]), left


def _product(node: Node, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a product of matrices and the like."""
    if node.op.name == "tensordot":
        summed = [
            normalize_axis_tuple(axes, len(x))
            for axes, x in zip(node.attributes["axes"], (a, b), strict=True)
        ]
        if summed != list(node.attributes["axes"]):
            raise ValueError(f"axes of {node.attributes['axes']!r}")
        inner, other = ([x[axis] for axis in axes] for axes, x in zip(summed, (a, b), strict=True))
        shape = [n for axes, x in zip(summed, (a, b), strict=True) for d, n in enumerate(x) if d not in axes]
    elif node.op.name == "vecdot":
        inner, other = [a[-1]], [b[-1]]
        shape = list(np.broadcast_shapes(a[:-1], b[:-1]))
    else:
        rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
        inner, other = [a[-1]], [b[-2:][0]]
        shape = [*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns]
    if inner != other:
        raise ValueError(f"shapes {a} and {b} do not fit")
    return tuple(shape)


def _elementwise(node: Node, operands: list[Aval], forms: list[int]) -> Aval:
    values: list[Any] = []
    for (dtype, shape), form in zip(operands, forms, strict=True):
        one = np.ones((1,) * len(shape) if form == ARRAY else (), dtype)
        values.append(one if form == ARRAY else one.item() if form == PYTHON else one[()])
    dtype, ones = _given(node, values)
    shape = np.broadcast_shapes(*(shape for _, shape in operands))
    return dtype, shape if len(ones) == len(shape) else ones


def _lengths(shape: Any, least: int = 0) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or any(type(n) is not int or n < least for n in shape):
        raise ValueError(f"a shape of {shape!r}")
    return tuple(shape)


def _reshaped(shape: tuple[int, ...], asked: Any) -> tuple[int, ...]:
    asked = _lengths(asked if isinstance(asked, tuple) else (asked,), -1)
    if asked.count(-1) > 1:
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
    full = _lengths(node.attributes["shape"])
    place = _array((dtype, full))[node.attributes["index"]]
    if np.broadcast_shapes(np.shape(place), shape) != np.shape(place):
        raise ValueError(f"shape {shape} does not fit the place of shape {np.shape(place)}")
    return dtype, full
