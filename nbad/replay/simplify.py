"""Simplification of graphs: what is equal is computed once, what is constant not at all, what does nothing is left out.

Owns the walk that rebuilds a graph node by node, value numbering, the folding of constants and the local simplifications. All
are exact to the bit, sign of zero and nan included, with two exceptions that concern cotangents only (see `simplified`).

A constant whose elements are all the same is held with strides of 0, whatever its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.keeping import run_forward
from nbad.replay.graph import ARRAY, PYTHON, SCALAR, Graph, Guard, Node
from nbad.rules.contractions import EINSUM, MATMUL, OUTER, TENSORDOT, VECDOT
from nbad.rules.convolution import FILTER, FILTER_BY_SPECTRUM
from nbad.rules.elementwise import (
    ADD,
    ASTYPE,
    CONJUGATE,
    DIVIDE,
    MULTIPLY,
    NEGATIVE,
    POSITIVE,
    REAL,
    SUBTRACT,
    WHERE,
)
from nbad.rules.reductions import SUM, SUM_ALL
from nbad.rules.shaping import BROADCAST_TO, RESHAPE, TRANSPOSE
from nbad.table import Op

__all__ = ["Walk", "simplified", "single_readers"]

#: Bytes up to which results are folded, and up to which operands are read for it.
SMALL, READ = 4096, 65536
#: Up to which whole numbers are exact, by size of the element.
WHOLE = {2: 2**11, 4: 2**24, 8: 2**53}
#: Products: zero where one factor is.
PRODUCTS = frozenset({MULTIPLY, MATMUL, TENSORDOT, OUTER, VECDOT, EINSUM, FILTER, FILTER_BY_SPECTRUM})
#: Shape without arithmetic.
SHAPING = frozenset({BROADCAST_TO, RESHAPE, TRANSPOSE})
#: Operations of reals whose operands may be swapped without another bit.
COMMUTATIVE = frozenset({ADD, MULTIPLY})

Array = np.ndarray[Any, Any]


class Walk:
    """A graph that is rebuilt from another one, in the order of its nodes.

    Attributes
    ----------
    graph : Graph
        What has been built so far: slots keep their numbers, new ones are appended.
    same : dict of int to int
        By slot of the old graph, the slot that stands for it now; others stand for themselves.
    made : dict of int to Node
        By slot, the node that makes it.
    """

    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.graph = graph.copy()
        self.graph.nodes = []
        self.same: dict[int, int] = {}
        self.made: dict[int, Node] = {}
        self._before: list[int] = []

    def operands(self, node: Node) -> tuple[int, ...]:
        """Return what the operands of a node of the old graph are now; call it once for each node, in order."""
        self._before.append(len(self.graph.nodes))
        same = self.same
        return tuple([same.get(slot, slot) for slot in node.operands])

    def keep(self, node: Node) -> None:
        """Append a node."""
        self.graph.nodes.append(node)
        for slot in node.outputs:
            self.made[slot] = node

    def emit(
        self, op: Op, operands: tuple[int, ...], attributes: dict[str, Any], dtype: Any, shape: tuple[int, ...], line: int
    ) -> int:  # fmt: skip
        """Append a node of one output, an array, and return its slot."""
        slot = self.graph.add_slot(np.dtype(dtype), tuple(shape))
        self.keep(Node(op, operands, (slot,), attributes, line))
        return slot

    def replace(self, old: int, new: int) -> bool:
        """Let `new` stand for `old`, if it is the same to every reader: dtype, shape and form."""
        graph = self.graph
        if graph.avals[old] != graph.avals[new] or graph.forms[old] != graph.forms[new]:
            return False
        self.same[old] = new
        return True

    def finish(self) -> Graph:
        """Return the graph; its outputs and guards follow their slots."""
        graph, same = self.graph, self.same
        self._before.append(len(graph.nodes))
        graph.outputs = [same.get(slot, slot) for slot in graph.outputs]
        graph.guards = [
            Guard(same.get(g.slot, g.slot), g.kind, g.seen, g.line, self._before[g.after])
            for g in graph.guards
        ]
        return graph


def single_readers(graph: Graph) -> set[int]:
    """Return the slots that one node reads, and nothing else."""
    count = [0] * graph.slots
    for node in graph.nodes:
        for slot in set(node.operands):
            count[slot] += 1
    for slot in (*graph.outputs, *(guard.slot for guard in graph.guards)):
        count[slot] += 2
    return {slot for slot, n in enumerate(count) if n == 1}


def simplified(
    graph: Graph, enabled: frozenset[str], sweep_from: int | None = None, *, opaque: bool = False
) -> Graph:
    """Return a graph that computes the same with fewer nodes.

    Parameters
    ----------
    graph : Graph
        Not modified.
    enabled : frozenset of str
        Which of "subexpressions", "constants", "identities" and "zeros" to apply.
    sweep_from : int, optional
        Position of the first node that a sweep made; the nodes from there on compute cotangents. None: there are none.
    opaque : bool
        Do not look into constant arrays: somebody may change one, which is noticed as long as the graph refers to it.

    Returns
    -------
    Graph
        Not pruned.

    Notes
    -----
    Linear in the number of nodes, apart from reading each constant once. "zeros" concerns cotangents only, and
    differs from arithmetic there: a cotangent that is zero whatever the inputs are means that the output does not depend on
    something, so zero times anything is 0.0, infinities, nans and negative numbers included, and zero added to -0.0 is -0.0.
    """
    walk = _Simplifying(graph, enabled, opaque)
    for i, node in enumerate(graph.nodes):
        walk.step(node, sweep_from is not None and i >= sweep_from)
    return walk.finish()


class _Simplifying(Walk):
    """The walk of `simplified`."""

    def __init__(self, graph: Graph, enabled: frozenset[str], opaque: bool) -> None:
        super().__init__(graph)
        self.enabled = enabled
        self.opaque = opaque
        # By slot of a constant whose elements are all the same: one of them, 0-d.
        self.uniform: dict[int, Any] = {}
        self.numbers: dict[Any, tuple[int, ...]] = {}
        self.constants: dict[Any, int] = {}
        for slot in list(graph.constants):
            self.same[slot] = self.constant(graph.constants[slot], slot)

    def constant(self, value: Any, slot: int | None = None) -> int:
        """Return the slot of a constant, the one that has it already if there is one."""
        one = None if self.opaque and isinstance(value, np.ndarray) else _repeated(value)
        if one is not None and isinstance(value, np.ndarray) and value.size > 1:
            value = np.broadcast_to(one, value.shape)
        if slot is None:
            slot = self.graph.add_constant(value)
        self.graph.constants[slot] = value
        if one is None:
            return slot
        self.uniform[slot] = one
        if "subexpressions" not in self.enabled:
            return slot
        key = (self.graph.forms[slot], one.dtype.str, np.shape(value), one.tobytes())
        return self.constants.setdefault(key, slot)

    def step(self, node: Node, sweep: bool) -> None:
        """Take over a node of the old graph, as it is or simplified."""
        operands = self.operands(node)
        if "constants" in self.enabled and self.fold(node, operands):
            return
        if sweep and "zeros" in self.enabled and self.vanish(node, operands):
            return
        attributes, op = node.attributes, node.op
        if "identities" in self.enabled and len(node.outputs) == 1:
            rule = IDENTITIES.get(op)
            found = None if rule is None else rule(self, node, operands)
            if isinstance(found, int):
                if self.replace(node.outputs[0], found):
                    return
            elif found is not None:
                op, operands, attributes = found
        if "subexpressions" in self.enabled and not op.foreign:
            key = self.number(op, operands, attributes, node.outputs)
            known = self.numbers.setdefault(key, node.outputs)
            if known is not node.outputs:
                self.same.update(zip(node.outputs, known, strict=True))
                return
        self.keep(Node(op, operands, node.outputs, attributes, node.line))

    def number(
        self, op: Op, operands: tuple[int, ...], attributes: dict[str, Any], outputs: tuple[int, ...]
    ) -> Any:
        """Return a key that nodes share if and only if they compute the same in the same form."""
        graph = self.graph
        avals, forms = graph.avals, graph.forms
        if op in COMMUTATIVE and operands[0] > operands[1] and all(avals[s][0].kind != "c" for s in operands):
            operands = operands[::-1]
        named: tuple[Any, ...] = ()
        if attributes:
            named = tuple((name, _hashable(value)) for name, value in sorted(attributes.items()))
        return op.opcode, operands, named, tuple([(forms[o], avals[o]) for o in outputs])

    def is_constant(self, slot: int, number: float) -> bool:
        """Return whether all elements of `slot` are that number, of that sign."""
        one = self.uniform.get(slot)
        return (
            one is not None and bool(one == number) and np.signbit(one.real) == (math.copysign(1, number) < 0)
        )

    # Constants --------------------------------------------------------------------------------------
    def fold(self, node: Node, operands: tuple[int, ...]) -> bool:
        """Make constants of the outputs, if the operands are constants and it is cheap."""
        constants, op = self.graph.constants, node.op
        if op.foreign or len(node.outputs) != 1 or not all(slot in constants for slot in operands):
            return False
        if self.opaque and any(isinstance(constants[slot], np.ndarray) for slot in operands):
            return False
        out = node.outputs[0]
        dtype, shape = self.graph.avals[out]
        repeated = all(slot in self.uniform for slot in operands)
        if repeated and op in SHAPING and shape != ():
            value: Any = np.broadcast_to(self.uniform[operands[0]], shape)
        elif repeated and op in (SUM, SUM_ALL):
            value = self._total(operands[0], dtype, shape)
        elif repeated and (op.elementwise or op is ASTYPE):
            value = _computed(op, [self._point(slot) for slot in operands], node.attributes)
            if value is not None:
                value = np.broadcast_to(np.asarray(value).reshape(()), shape)
        elif dtype.itemsize * math.prod(shape) <= SMALL and self._read(operands) <= READ:
            value = _computed(op, [constants[slot] for slot in operands], node.attributes)
        else:
            return False
        if value is None or np.result_type(value) != dtype or np.shape(value) != shape:
            return False
        return self.replace(out, self.constant(_formed(value, self.graph.forms[out])))

    def _point(self, slot: int) -> Any:
        """Return a constant of one element that stands for a repeated one: of the same form and number of dimensions."""
        value = self.graph.constants[slot]
        return self.uniform[slot].reshape((1,) * value.ndim) if isinstance(value, np.ndarray) else value

    def _read(self, operands: tuple[int, ...]) -> int:
        avals = (self.graph.avals[slot] for slot in operands)
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in avals)

    def _total(self, slot: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        """Return the sum of a repeated constant, if it does not depend on the order: whole numbers that are exact."""
        one, size = self.uniform[slot], math.prod(self.graph.avals[slot][1])
        count = size // max(1, math.prod(shape)) if size else 0
        if dtype.kind != "f" or one.dtype.kind not in "fiub" or not float(one).is_integer():
            return None
        total = float(one) * count
        return np.full(shape, total, dtype) if abs(total) <= WHOLE.get(dtype.itemsize, 0) else None

    # Zeros in the sweep -----------------------------------------------------------------------------
    def vanish(self, node: Node, operands: tuple[int, ...]) -> bool:
        """Make zeros of what is linear in a zero; drop zeros from sums."""
        op, graph = node.op, self.graph
        zero = [self._is_zero(slot) for slot in operands]
        if not any(zero):
            return False
        gone = op in PRODUCTS or (op is DIVIDE and zero[0]) or (op is WHERE and all(zero[1:]))
        if op.linear and not op.foreign:
            gone = all(z for k, z in enumerate(zero) if op.pullback_of(k) is not None)
        if gone and all(graph.forms[out] == ARRAY or graph.avals[out][1] == () for out in node.outputs):
            for out in node.outputs:
                dtype, shape = graph.avals[out]
                value = np.broadcast_to(np.zeros((), dtype), shape)
                self.replace(out, self.constant(_formed(value, graph.forms[out])))
            return all(out in self.same for out in node.outputs)
        if op is ADD or (op is SUBTRACT and zero[1]):
            return self.replace(node.outputs[0], operands[0 if zero[1] else 1])
        return False

    def _is_zero(self, slot: int) -> bool:
        one = self.uniform.get(slot)
        return one is not None and not one.any()


# Constants ----------------------------------------------------------------------------------------
def _repeated(value: Any) -> Any:
    """Return the element, 0-d, that all elements of a constant are to the bit, or None."""
    if not isinstance(value, np.ndarray):
        return np.asarray(value)
    if value.size == 0 or value.dtype.kind not in "biufc":
        return None
    one = value[(0,) * value.ndim]
    one = np.asarray(one)
    if value.size == 1 or not any(s for s, n in zip(value.strides, value.shape, strict=True) if n > 1):
        return one
    bits = one.tobytes()
    if np.asarray(value[(-1,) * value.ndim]).tobytes() != bits:
        return None
    parts = (value.real, value.imag) if value.dtype.kind == "c" else (value,)
    ones = (one.real, one.imag) if value.dtype.kind == "c" else (one,)
    for part, single in zip(parts, ones, strict=True):
        if single != single:
            return None  # nans have many patterns
        if not (part == single).all():
            return None
        if part.dtype.kind == "f" and single == 0 and (np.signbit(part) != np.signbit(single)).any():
            return None
    return one


def _computed(op: Op, values: list[Any], attributes: dict[str, Any]) -> Any:
    """Return the output of `op`, or None if it raises: then a replay does."""
    try:
        with np.errstate(all="ignore"):
            return run_forward(op, values, attributes, ())[0]
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _formed(value: Any, form: int) -> Any:
    """Return a value as an array, a NumPy scalar or a Python number."""
    if form == PYTHON:
        return value.item() if hasattr(value, "item") else value
    array = np.asarray(value)
    return array[()] if form == SCALAR else array


def _hashable(value: Any) -> Any:
    """Return a key for an attribute that tells apart what is different to an operation."""
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_hashable, value))
    if isinstance(value, slice):
        return slice, _hashable((value.start, value.stop, value.step))
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, np.ndarray):
        if value.nbytes > READ or value.dtype.hasobject:
            return np.ndarray, id(value)
        return np.ndarray, value.dtype.str, value.shape, value.tobytes()
    return (
        (type(value), value) if isinstance(value, (int, str, bool, type(None), type(...))) else (id(value),)
    )


# Identities: what a node of one output is, given its operands: a slot, another node, or None -----------
Found = int | tuple[Op, tuple[int, ...], dict[str, Any]] | None
Identity = Callable[[_Simplifying, Node, tuple[int, ...]], Found]


def _maker(walk: _Simplifying, slot: int, *ops: Op) -> Node | None:
    """Return the node that makes `slot`, if it is one of `ops`."""
    node = walk.made.get(slot)
    return node if node is not None and node.op in ops else None


def _operand(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    return operands[0]  # `replace` refuses where the form differs


def _multiply(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    """By 1; not of complex numbers, where infinities and zeros come out otherwise."""
    if walk.graph.avals[node.outputs[0]][0].kind == "c":
        return None
    for k in (0, 1):
        if walk.is_constant(operands[1 - k], 1.0):
            return _spread(walk, operands[k], node.outputs[0])
    return None


def _divide(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    if walk.graph.avals[node.outputs[0]][0].kind != "c" and walk.is_constant(operands[1], 1.0):
        return _spread(walk, operands[0], node.outputs[0])
    return None


def _add(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    """Add -0.0, which changes nothing; 0.0 would change -0.0."""
    if walk.graph.avals[node.outputs[0]][0].kind != "c":
        for k in (0, 1):
            if walk.is_constant(operands[1 - k], -0.0):
                return _spread(walk, operands[k], node.outputs[0])
    return None


def _subtract(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    if walk.graph.avals[node.outputs[0]][0].kind != "c" and walk.is_constant(operands[1], 0.0):
        return _spread(walk, operands[0], node.outputs[0])
    return None


def _spread(walk: _Simplifying, slot: int, out: int) -> Found:
    """Return `slot`, broadcast to the shape of `out` if need be; None if it is of another dtype."""
    (dtype, shape), (wanted, target) = walk.graph.avals[slot], walk.graph.avals[out]
    if dtype != wanted or (dtype.kind not in "fc" and shape != target):
        return None
    if shape == target:
        return slot if walk.graph.forms[slot] == walk.graph.forms[out] else None
    return (BROADCAST_TO, (slot,), {"shape": target}) if walk.graph.forms[slot] == ARRAY else None


def _negative(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    inner = _maker(walk, operands[0], NEGATIVE)
    return None if inner is None else inner.operands[0]


def _conjugate(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    if walk.graph.avals[operands[0]][0].kind == "f":
        return operands[0]
    inner = _maker(walk, operands[0], CONJUGATE)
    return None if inner is None else inner.operands[0]


def _real(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    if walk.graph.avals[operands[0]][0].kind == "f":
        return operands[0]
    inner = _maker(walk, operands[0], CONJUGATE, ASTYPE)
    if inner is None:
        return None
    if inner.op is CONJUGATE:
        return REAL, inner.operands, {}
    source = inner.operands[0]
    if walk.graph.avals[source][0].kind != "f":
        return None
    dtype = walk.graph.avals[node.outputs[0]][0]
    return source if walk.graph.avals[source][0] == dtype else (ASTYPE, (source,), {"dtype": dtype.str})


def _astype(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    graph, source = walk.graph, operands[0]
    if graph.avals[source] == graph.avals[node.outputs[0]]:
        return source
    inner = _maker(walk, source, ASTYPE)
    if inner is None:
        return None
    start = inner.operands[0]
    if not np.can_cast(graph.avals[start][0], graph.avals[source][0], "safe") or graph.forms[start] != ARRAY:
        return None
    if graph.avals[start] == graph.avals[node.outputs[0]]:
        return start
    return (ASTYPE, (start,), node.attributes) if graph.avals[start][0].kind == "f" else None


def _transpose(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    axes = node.attributes["axes"]
    inner = _maker(walk, operands[0], TRANSPOSE)
    if inner is not None:
        axes, operands = tuple(inner.attributes["axes"][axis] for axis in axes), inner.operands
    if axes == tuple(range(len(axes))):
        return operands[0]
    return TRANSPOSE, operands, {"axes": axes}


def _reshape(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    inner = _maker(walk, operands[0], RESHAPE)
    source = operands[0] if inner is None else inner.operands[0]
    aval, form = walk.graph.avals[source], walk.graph.forms[source]
    if aval == walk.graph.avals[node.outputs[0]] and form == walk.graph.forms[node.outputs[0]]:
        return source
    return (RESHAPE, (source,), node.attributes) if inner is not None else None


def _broadcast_to(walk: _Simplifying, node: Node, operands: tuple[int, ...]) -> Found:
    if walk.graph.avals[operands[0]] == walk.graph.avals[node.outputs[0]]:
        return operands[0]
    inner = _maker(walk, operands[0], BROADCAST_TO)
    return None if inner is None else (BROADCAST_TO, inner.operands, node.attributes)


IDENTITIES: dict[Op, Identity] = {
    POSITIVE: _operand,
    MULTIPLY: _multiply,
    DIVIDE: _divide,
    ADD: _add,
    SUBTRACT: _subtract,
    NEGATIVE: _negative,
    CONJUGATE: _conjugate,
    REAL: _real,
    ASTYPE: _astype,
    TRANSPOSE: _transpose,
    RESHAPE: _reshape,
    BROADCAST_TO: _broadcast_to,
}
