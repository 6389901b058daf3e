"""Lowering: each node as items that the executor knows.

Owns the question what a node is to the machine: instructions over block kernels (with the dtype in which they compute), a
reduction of everything to one number, a view that needs no work, another name for the same value, or a step of Python.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.keeping import run_forward
from nbad.kernels.block import C8, C16, DTYPES, F4, F8, ID, KERNELS
from nbad.program import KERNEL_OF
from nbad.replay.casts import BOOL, kind_of
from nbad.replay.graph import ARRAY, PYTHON, Graph, Node
from nbad.replay.storage import VIEWS, View, c_strides, nbytes_of, view_of

#: What an item is.
ELEMENT, REDUCE, ALIAS, VIEW, PAD, HOST = "element", "reduce", "alias", "view", "pad", "host"

Aval = tuple[np.dtype[Any], tuple[int, ...]]

_LOGICAL = {"logical_and", "logical_or", "logical_not"}
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
_TESTS = {"isnan", "isfinite", "isinf", "signbit"}
_ON_BOOLS = {
    np.bitwise_and: "logical_and",
    np.bitwise_or: "logical_or",
    np.bitwise_xor: "ne",
    np.invert: "logical_not",
}
_SAME_ON_REALS = {"real", "conjugate"}
_FACTORS = {
    np.degrees: 180.0 / np.pi,
    np.rad2deg: 180.0 / np.pi,
    np.radians: np.pi / 180.0,
    np.deg2rad: np.pi / 180.0,
}
#: Bytes from which on copying an array costs more than a step of Python.
_LARGE = 1 << 16
_SHORT_POWERS = {2.0: "square", 1.0: "copy", 0.5: "sqrt", -1.0: "recip"}
#: What Python numbers do exactly as the kernels do, without raising.
_PYTHON_EXACT = {"add", "sub", "mul", "neg", "abs", "copy", *_COMPARISONS}


@dataclass(slots=True, eq=False)
class Item:
    """One thing to do.

    Attributes
    ----------
    kind : str
        ELEMENT, REDUCE, ALIAS, VIEW, PAD or HOST.
    node : int
        Position in the graph of the node it belongs to.
    operands, outputs : tuple of int
        Slots; those from ``graph.slots`` on are made here.
    kernel : str
        ELEMENT: the block kernel, or "real" and "imag" for parts of a complex operand; REDUCE: "sum", "maximum" or "minimum".
    code : int
        The dtype in which it computes.
    window : tuple
        PAD: for each dimension, where the operand lies in the zeros, and along which of its own (first, end, own or -1).
    """

    kind: str
    node: int
    operands: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: str = ""
    code: int = 0
    window: tuple[tuple[int, int, int], ...] = ()


class Lowering:
    """Items of a graph, with the slots that they add and the views among them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.avals: list[Aval] = list(graph.avals)
        self.constants: dict[int, Any] = dict(graph.constants)
        self.views: dict[int, View] = {}
        self.items: list[Item] = []
        self.starts: list[int] = []
        made = {slot for node in graph.nodes for slot in node.outputs}
        writes = [node for node in graph.nodes if node.op.name in ("write", "write_at")]
        self.written = {node.operands[0] for node in writes} & made
        for position, node in enumerate(graph.nodes):
            self.starts.append(len(self.items))
            if not self._lower(position, node):
                self.items.append(Item(HOST, position, node.operands, node.outputs))
        self.starts.append(len(self.items))

    # Tools ----------------------------------------------------------------------------------------
    def view(self, slot: int) -> View:
        """Return where `slot` is, in terms of a slot with memory of its own."""
        found = self.views.get(slot)
        if found is None:
            dtype, shape = self.avals[slot]
            value = self.constants.get(slot)
            strides = value.strides if isinstance(value, np.ndarray) else c_strides(shape, dtype.itemsize)
            found = View(slot, 0, strides)
        return found

    def _new(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
        self.avals.append((dtype, shape))
        return len(self.avals) - 1

    def _constant(self, value: float) -> int:
        slot = self._new(np.dtype(np.float64), ())
        self.constants[slot] = value
        return slot

    def _form(self, slot: int) -> int:
        return self.graph.forms[slot] if slot < len(self.graph.forms) else 0

    def _number(self, slot: int) -> float | None:
        """Return the value of a slot that holds one constant real number."""
        value = self.constants.get(slot)
        if value is None or math.prod(self.avals[slot][1]) != 1 or self.avals[slot][0].kind not in "fiu":
            return None
        return float(np.reshape(np.asarray(value), -1)[0])

    def _element(self, position: int, kernel: str, code: int, operands: tuple[int, ...], out: int) -> bool:
        self.items.append(Item(ELEMENT, position, operands, (out,), kernel, code))
        return True

    def _inner(
        self, position: int, kernel: str, code: int, operands: tuple[int, ...], shape: tuple[int, ...]
    ) -> int:
        """Append an instruction whose result is a new slot."""
        out = self._new(DTYPES[code], shape)
        self._element(position, kernel, code, operands, out)
        return out

    # One node -------------------------------------------------------------------------------------
    def _lower(self, position: int, node: Node) -> bool:
        """Append the items of a node; return False if it is a host step."""
        if node.op.foreign or len(node.outputs) != 1:
            return False
        out = node.outputs[0]
        dtype, shape = self.avals[out]
        if 0 in shape or any(0 in self.avals[s][1] for s in node.operands):
            return False
        name = node.op.name
        if len(node.operands) == 1:
            x = node.operands[0]
            x_dtype, x_shape = self.avals[x]
            if isinstance(self.constants.get(x), np.ndarray) and (
                name in VIEWS or name in ("positive", "astype")
            ):
                made = run_forward(node.op, (self.constants[x],), node.attributes, ())[0]
                self.constants[out] = np.asarray(made) if self._form(out) == ARRAY else made
                return True
            if name == "getitem" and self._is_written_soon(x, out):
                return False
            unchanged = name in ("positive", "astype") or (name in _SAME_ON_REALS and x_dtype.kind in "fiub")
            if unchanged and x_dtype == dtype and x_shape == shape:
                return self._alias(position, x, out)
            if name in ("real", "imag"):
                if x_dtype.kind == "c" and kind_of(dtype) >= 0 and self._made_here(x):
                    return self._element(position, name, kind_of(dtype), (x,), out)
            elif name == "astype":
                return self._astype(position, x, out)
            view = (
                view_of(node.op, node.attributes, self.avals[x], self.view(x))
                if x_dtype.kind in "fciub"
                else None
            )
            if view is not None and self._form(x) == 0:
                self.views[out] = view
                self.items.append(Item(VIEW, position, (x,), (out,)))
                return True
            if name == "scatter" and self._pad(position, node, x, out):
                return True
        return self._reduction(position, node, out) or self._elementwise(position, node, out)

    def _is_written_soon(self, x: int, out: int) -> bool:
        """Return whether a part is better copied than viewed: the array around it is large, and written later."""
        base = self.view(x).base
        whole = nbytes_of(self.avals[base])
        return base in self.written and whole >= _LARGE and 2 * nbytes_of(self.avals[out]) <= whole

    def _made_here(self, slot: int) -> bool:
        """Return whether an instruction makes the slot."""
        return any(i.kind == ELEMENT and slot in i.outputs for i in reversed(self.items[-64:]))

    def _alias(self, position: int, x: int, out: int) -> bool:
        self.views[out] = self.view(x)
        self.items.append(Item(ALIAS, position, (x,), (out,)))
        return True

    def _astype(self, position: int, x: int, out: int) -> bool:
        source, target = kind_of(self.avals[x][0]), kind_of(self.avals[out][0])
        if source < 0 or not 0 <= target <= C16 or (source in (C8, C16) and target < C8):
            return False
        return self._element(position, "copy", target, (x,), out)

    def _pad(self, position: int, node: Node, x: int, out: int) -> bool:
        dtype, shape = self.avals[out]
        index = node.attributes["index"]
        if not 0 <= kind_of(dtype) <= C16 or self.avals[x][0] != dtype:
            return False
        count = sum(item is not None and item is not Ellipsis for item in index)
        if Ellipsis not in index:
            index = (*index, Ellipsis)
        at = index.index(Ellipsis)
        index = (*index[:at], *(slice(None),) * (len(shape) - count), *index[at + 1 :])
        window: list[tuple[int, int, int]] = []
        kept: list[int | None] = []
        turned: list[int] = []
        for item in index:
            if item is None:
                kept.append(None)
                continue
            n = shape[len(window)]
            if isinstance(item, slice):
                places = range(n)[item]
                length = len(places)
                if abs(places.step) != 1 or length == 0:
                    return False
                kept.append(len(window))
                first = min(places[0], places[-1])
                window.append((first, first + length, len(kept) - 1))
                if places.step < 0:
                    turned.append(len(kept) - 1)
            else:
                place = item + n if item < 0 else item
                window.append((place, place + 1, -1))
        # x is broadcast to the place; here only the plain case: one dimension of x for each slice, in order.
        lengths = tuple(1 if d is None else window[d][1] - window[d][0] for d in kept)
        if self.avals[x][1] != lengths:
            return False
        source = self._flipped(position, x, turned) if turned else x
        self.items.append(Item(PAD, position, (source,), (out,), "copy", kind_of(dtype), tuple(window)))
        return True

    def _flipped(self, position: int, x: int, axes: list[int]) -> int:
        """Return a slot that is a view of `x`, backwards along some axes."""
        dtype, shape = self.avals[x]
        view, out = self.view(x), self._new(dtype, shape)
        offset = view.offset + sum((shape[axis] - 1) * view.strides[axis] for axis in axes)
        strides = tuple(-stride if axis in axes else stride for axis, stride in enumerate(view.strides))
        self.views[out] = View(view.base, offset, strides)
        self.items.append(Item(VIEW, position, (x,), (out,)))
        return out

    # Reductions -----------------------------------------------------------------------------------
    def _reduction(self, position: int, node: Node, out: int) -> bool:
        name = node.op.name
        dtype = self.avals[out][0]
        code = kind_of(dtype)
        if not 0 <= code <= C16 or math.prod(self.avals[out][1]) != 1:
            return False
        x = node.operands[0]
        x_dtype, shape = self.avals[x]
        if name in ("vecdot", "matmul", "tensordot") and len(node.operands) == 2:
            return self._dot(position, node, out, code)
        if len(node.operands) != 1 or kind_of(x_dtype) < 0 or (x_dtype.kind == "c" and dtype.kind != "c"):
            return False
        kernel = {"sum_all": "sum", "sum": "sum", "max": "maximum", "min": "minimum"}.get(name)
        if name == "norm" and x_dtype.kind == "f" and code == kind_of(x_dtype):
            total = self._new(dtype, self.avals[out][1])
            square = self._inner(position, "square", code, (x,), shape)
            self.items.append(Item(REDUCE, position, (square,), (total,), "sum", code))
            return self._element(position, "sqrt", code, (total,), out)
        if kernel is None or x_dtype.kind not in "fc" or (kernel != "sum" and x_dtype.kind == "c"):
            return False
        if math.prod(shape) == 1 and x_dtype == dtype:
            return self._element(position, "copy", code, (x,), out)
        self.items.append(Item(REDUCE, position, (x,), (out,), kernel, code))
        return True

    def _dot(self, position: int, node: Node, out: int, code: int) -> bool:
        a, b = node.operands
        shape = self.avals[a][1]
        if shape != self.avals[b][1] or not shape or self.avals[out][1] != ():
            return False
        if any(self.avals[s][0].kind not in "fc" or kind_of(self.avals[s][0]) < 0 for s in (a, b)):
            return False
        if node.op.name == "tensordot":
            axes = node.attributes["axes"]
            if tuple(axes[0]) != tuple(axes[1]) or len(axes[0]) != len(shape):
                return False
        elif len(shape) != 1:
            return False
        if node.op.name == "vecdot" and self.avals[a][0].kind == "c":
            a = self._inner(position, "conj", code, (a,), shape)
        product = self._inner(position, "mul", code, (a, b), shape)
        self.items.append(Item(REDUCE, position, (product,), (out,), "sum", code))
        return True

    # Elementwise ----------------------------------------------------------------------------------
    def _elementwise(self, position: int, node: Node, out: int) -> bool:
        if node.attributes or not all(kind_of(self.avals[s][0]) >= 0 for s in (*node.operands, out)):
            return False
        op = node.op
        function = op.forward
        operands = node.operands
        dtype = self.avals[out][0]
        if op.name in ("where", "clip") and len(operands) == 3 and op.elementwise:
            return self._where_or_clip(position, op.name, operands, out)
        if op.name == "complex_absolute":
            return self._modulus(position, operands[0], out)
        if op.name == "absolute" and op.elementwise:
            function = np.absolute
        if not isinstance(function, np.ufunc) or len(operands) != function.nin or function.nout != 1:
            return False
        kinds = {self.avals[s][0].kind for s in operands}
        if function in _FACTORS:
            if dtype.kind != "f":
                return False
            return self._element(
                position, "mul", kind_of(dtype), (operands[0], self._constant(_FACTORS[function])), out
            )
        kernel = KERNEL_OF.get(function)
        if function in _ON_BOOLS:
            kernel = _ON_BOOLS[function] if kinds == {"b"} else None
        if function is np.absolute and kinds == {"c"}:
            return self._modulus(position, operands[0], out)
        if kernel is None:
            return False
        code = self._code(kernel, operands, out)
        if code < 0 or code not in KERNELS[ID[kernel]].dtypes:
            return False
        if kernel == "pow":
            exponent = self._number(operands[1])
            if exponent in _SHORT_POWERS:
                kernel, operands = _SHORT_POWERS[exponent], operands[:1]
            elif exponent in (3.0, 4.0) and self._form(out) != PYTHON:
                square = self._inner(position, "square", code, operands[:1], self.avals[out][1])
                kernel, operands = "mul", (square, operands[0] if exponent == 3.0 else square)
        if self._form(out) == PYTHON and kernel not in _PYTHON_EXACT:
            divisor = self._number(operands[1]) if kernel == "div" else None
            if not divisor:
                return False
        return self._element(position, kernel, code, operands, out)

    def _code(self, kernel: str, operands: tuple[int, ...], out: int) -> int:
        """Return the dtype code in which NumPy computes, or -1 where no block kernel has it."""
        dtype = self.avals[out][0]
        if dtype.kind != "b":
            found = kind_of(dtype)
            # A ufunc of small integers or truth values may compute in a dtype that is not here (float16).
            return found if 0 <= found <= C16 and kernel not in _COMPARISONS else -1
        if kernel in _LOGICAL or kernel in _TESTS:
            codes = [kind_of(self.avals[s][0]) for s in operands]
            if kernel in _TESTS and codes[0] > C16:
                return -1
            return kind_of(
                np.result_type(*(DTYPES[F8 if c > BOOL else (F4 if c == BOOL else c)] for c in codes))
            )
        if kernel not in _COMPARISONS:
            return -1
        examples = []
        for slot in operands:
            kind = self.avals[slot][0]
            weak = self._form(slot) == PYTHON
            examples.append(kind.type(0).item() if weak else kind)
        common = np.result_type(*examples)
        if common.kind == "b":
            return F4
        if common.kind in "iu":
            return F8 if common.itemsize <= 4 else -1
        found = kind_of(common)
        return found if 0 <= found <= C16 else -1

    def _modulus(self, position: int, x: int, out: int) -> bool:
        dtype, shape = self.avals[out]
        code = kind_of(dtype)
        if not 0 <= code <= F8 or kind_of(self.avals[x][0]) not in (C8, C16):
            return False
        real = self._inner(position, "real", code, (x,), shape)
        imag = self._inner(position, "imag", code, (x,), shape)
        return self._element(position, "hypot", code, (real, imag), out)

    def _where_or_clip(self, position: int, name: str, operands: tuple[int, ...], out: int) -> bool:
        dtype, shape = self.avals[out]
        code = kind_of(dtype)
        if not 0 <= code <= C16:
            return False
        if name == "where":
            if self.avals[operands[0]][0].kind != "b":
                return False
            return self._element(position, "where", code, operands, out)
        if code > F8 or any(0 in self.avals[s][1] for s in operands):
            return False
        raised = self._inner(position, "maximum", code, operands[:2], shape)
        return self._element(position, "minimum", code, (raised, operands[2]), out)
