"""Convolutions in graphs: found in products of transforms.

Owns two rewrites, which put real transforms and `filter` where a formula is written with complex transforms, or with halves
of spectra. They agree with it to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.replay.graph import ARRAY, Graph, Node
from nbad.replay.simplify import Walk, single_readers
from nbad.rules.convolution import FILTER
from nbad.rules.elementwise import ABSOLUTE, ADD, ASTYPE, COMPLEX_ABSOLUTE, CONJUGATE, DIVIDE, MULTIPLY, REAL
from nbad.rules.fourier import C2C, C2R, C2R_FULL, R2C, R2C_FULL, RESIZE
from nbad.rules.shaping import RESHAPE
from nbad.table import Op

__all__ = ["with_filters", "with_real_transforms"]

Extents = tuple[int, ...]


# Real transforms ----------------------------------------------------------------------------------
def with_real_transforms(graph: Graph) -> Graph:
    """Return the graph with real transforms where real arrays were cast to complex, or a result to real.

    The transform of a real array cast to complex (``astype``, or plus ``0j``) is that of the array; the real part of a
    transform that nothing else reads is one operation, whose adjoint is real-to-complex.
    """
    walk = Walk(graph)
    only = single_readers(graph)
    for node in graph.nodes:
        operands = walk.operands(node)
        op, attributes = node.op, node.attributes
        if op is C2C and (source := _real_source(walk, operands[0], node.line)) is not None:
            op, operands = R2C_FULL, (source,)
        elif op is REAL and node.operands[0] in only:
            inner = walk.made.get(operands[0])
            if inner is not None and inner.op is C2C:
                op, operands, attributes = C2R_FULL, inner.operands, inner.attributes
        walk.keep(Node(op, operands, node.outputs, attributes, node.line))
    return walk.finish()


def _real_source(walk: Walk, slot: int, line: int) -> int | None:
    """Return a real slot of the precision of the complex `slot` that has its values, or None."""
    node, graph = walk.made.get(slot), walk.graph
    if node is None:
        return None
    source = None
    if node.op is ASTYPE:
        source = node.operands[0]
    elif node.op is ADD:
        for k in (0, 1):
            other = graph.constants.get(node.operands[1 - k])
            if other is not None and not isinstance(other, np.ndarray) and other == 0:
                source = node.operands[k]
    if source is None or graph.forms[source] != ARRAY:
        return None
    dtype, shape = graph.avals[source]
    wanted = np.empty((), graph.avals[slot][0]).real.dtype
    if dtype.kind != "f" or shape != graph.avals[slot][1]:
        return None
    if dtype == wanted:
        return source
    return walk.emit(ASTYPE, (source,), {"dtype": wanted.str}, wanted, shape, line)


# Finding convolutions -----------------------------------------------------------------------------
@dataclass(slots=True)
class _Factor:
    """One factor of a product of spectra: the transform of something, or a spectrum that is not made here."""

    slot: int  # what is transformed, or the spectrum itself
    made: Node | None  # the transform
    conj: bool
    chain: tuple[int, ...]  # the slots from the product to the spectrum
    scale: float


@dataclass(slots=True)
class _Match:
    """A convolution: the node that is replaced, and what it is made of."""

    root: int
    product: int  # position of the product
    back: Node  # the transform back
    u: _Factor
    v: _Factor
    scale: float  # what the product is multiplied by
    magnitude: bool = False  # the root takes the absolute value of what `back` makes


def with_filters(graph: Graph, masks: Sequence[int] | None = None) -> Graph:
    """Return the graph with a `filter` for each product of two spectra that is transformed back.

    Parameters
    ----------
    graph : Graph
        Pruned. Not modified.
    masks : sequence of int, optional
        Masks of the slots. With them a spectrum that is at hand, and not volatile, is transformed back once, so that the rest
        is a filter of real arrays.

    Returns
    -------
    Graph
        Not pruned: what the filters replace is dead.

    Notes
    -----
    The product and what is between may have no other reader, and the transforms none but such products: no transform is
    done that was not done before.
    """
    finder = _Finder(graph, masks)
    found = {match.root: match for match in finder.matches()}
    if not found:
        return graph
    walk = Walk(graph)
    for i, node in enumerate(graph.nodes):
        operands = walk.operands(node)
        if i in found:
            _emit_filter(walk, found[i], node)
        else:
            walk.keep(Node(node.op, operands, node.outputs, node.attributes, node.line))
    return walk.finish()


class _Finder:
    """What looks for convolutions in a graph."""

    def __init__(self, graph: Graph, masks: Sequence[int] | None) -> None:
        self.graph = graph
        self.masks = masks
        self.makers = graph.makers()
        self.readers = graph.readers()
        self.held = {*graph.outputs, *(guard.slot for guard in graph.guards)}

    def maker(self, slot: int) -> Node | None:
        """Return the node that makes a slot."""
        at = self.makers.get(slot)
        return None if at is None else self.graph.nodes[at]

    def matches(self) -> list[_Match]:
        """Return all convolutions whose parts nothing else reads."""
        found = [m for i, node in enumerate(self.graph.nodes) if (m := self.match(i, node)) is not None]
        while True:
            inner = {m.product for m in found}
            for m in found:
                inner.update(self.makers[slot] for f in (m.u, m.v) for slot in f.chain[:-1])
            kept = [m for m in found if self.own(m, inner)]
            if len(kept) == len(found):
                return found
            found = kept

    def own(self, match: _Match, inner: set[int]) -> bool:
        """Return whether the transforms of a match are read by nothing but the nodes `inner`."""
        for factor in (match.u, match.v):
            if factor.made is None:
                continue  # a spectrum that exists anyway
            for slot in factor.chain:
                if slot in self.held or not inner.issuperset(self.readers[slot]):
                    return False
        return True

    def match(self, root: int, node: Node) -> _Match | None:
        """Return the convolution that ends in `node`, if there is one."""
        graph = self.graph
        if node.op not in (C2C, C2R_FULL, C2R, COMPLEX_ABSOLUTE):
            return None
        back = node
        if node.op is COMPLEX_ABSOLUTE:
            made = self.maker(node.operands[0])
            if made is None or made.op is not C2C or not self.alone(made.outputs[0]):
                return None
            back = made
        slot, scale = back.operands[0], 1.0
        while self.alone(slot) and (inner := self.scaled(slot)) is not None:
            slot, scale = inner[0], scale * inner[1]
        product = self.maker(slot)
        if product is None or product.op is not MULTIPLY or not self.alone(slot):
            return None
        if 0 in graph.avals[back.outputs[0]][1]:
            return None
        u, v = (self.factor(slot, back, product) for slot in product.operands)
        if u is None or v is None or (u.conj and v.conj) or (u.made is None and v.made is None):
            return None
        match = _Match(root, self.makers[slot], back, u, v, scale, node is not back)
        return match if self.consistent(match) else None

    def alone(self, slot: int) -> bool:
        """Return whether one node reads a slot, and nothing else."""
        return len(self.readers[slot]) == 1 and slot not in self.held

    def factor(self, slot: int, back: Node, product: Node) -> _Factor | None:
        """Return what a factor of `product` is to the transform `back`, or None if it does not fit."""
        graph = self.graph
        chain, conj, scale = [slot], False, 1.0
        while True:
            node = self.maker(chain[-1])
            if node is not None and node.op is CONJUGATE:
                conj = not conj
                chain.append(node.operands[0])
            elif (inner := self.scaled(chain[-1])) is not None:
                scale *= inner[1]
                chain.append(inner[0])
            else:
                break
        inverse = not _direction(back)
        fits = node is not None and (node.op is R2C if back.op is C2R else node.op in (R2C_FULL, C2C))
        if fits and node is not None and _placed(graph, node.operands[0], node, back) == _box(graph, back):
            if node.op is R2C_FULL:
                # Of a real array the transform the other way is the conjugate.
                conj ^= node.attributes["forward"] != inverse
            elif node.op is C2C and node.attributes["forward"] != inverse:
                return None
            source = node.operands[0]
            return _Factor(source, node, conj, tuple(chain), scale)
        return self.at_hand(chain, conj, scale, back, product)

    def scaled(self, slot: int) -> tuple[int, float] | None:
        """Return what a slot is times which number, if a number scales it."""
        node = self.maker(slot)
        if node is None or node.op not in (MULTIPLY, DIVIDE):
            return None
        for k in (0, 1) if node.op is MULTIPLY else (0,):
            number = _number(self.graph, node.operands[1 - k])
            if number is not None and self.graph.forms[node.operands[k]] == ARRAY:
                return node.operands[k], number if node.op is MULTIPLY else 1 / number
        return None

    def at_hand(
        self, chain: list[int], conj: bool, scale: float, back: Node, product: Node
    ) -> _Factor | None:
        """Return a factor for a whole spectrum that is fixed while the product is not."""
        graph, masks, slot = self.graph, self.masks, chain[-1]
        if masks is None or masks[slot] & 1 or not masks[product.outputs[0]] & 1:
            return None
        shape = graph.avals[slot][1]
        wanted = [graph.avals[product.outputs[0]][1][axis] for axis in back.attributes["axes"]]
        axes = _from_end(back.attributes["axes"], len(graph.avals[back.outputs[0]][1]))
        if graph.forms[slot] != ARRAY or len(shape) < -min(axes) or [shape[axis] for axis in axes] != wanted:
            return None
        if np.result_type(graph.avals[slot][0], np.complex64) != graph.avals[product.outputs[0]][0]:
            return None
        return _Factor(slot, None, conj, tuple(chain), scale)

    def consistent(self, match: _Match) -> bool:
        """Return whether dtypes and kinds of halves of the parts go together."""
        graph, back = self.graph, match.back
        made = [f.made for f in (match.u, match.v) if f.made is not None]
        kinds = {graph.avals[node.operands[0]][0].kind for node in made}
        wanted = {np.dtype(np.complex64), np.dtype(np.complex128)} & {graph.avals[back.operands[0]][0]}
        if {np.result_type(graph.avals[node.operands[0]][0], np.complex64) for node in made} != wanted:
            return False
        if not kinds <= {"f", "c"}:
            return False
        if back.op is C2R:
            # Either the halves as they are and the mirror at the end, or one of them weighted, which undoes the other.
            weighted = [bool(node.attributes["mirrored"]) for node in made]
            return sum(weighted) == (0 if back.attributes["mirrored"] else 1)
        if back.op is C2C:
            if match.magnitude:
                return kinds == {"f"} and len(made) == 2
            return kinds == {"c"}
        return True


def _number(graph: Graph, slot: int) -> float | None:
    """Return the real number that a slot always holds, if it can be divided by."""
    value = graph.constants.get(slot)
    if value is None or isinstance(value, (np.ndarray, bool, np.bool_)) or np.iscomplexobj(value):
        return None
    number = float(value)
    return number if math.isfinite(number) and number != 0 else None


def _direction(back: Node) -> bool:
    return bool(back.attributes.get("forward", False))


def _from_end(axes: Sequence[int], ndim: int) -> Extents:
    return tuple(axis - ndim for axis in axes)


def _box(graph: Graph, back: Node) -> Any:
    """Return the axes from the end, the halved one last, and the lengths of the result of a transform back."""
    shape, axes = graph.avals[back.outputs[0]][1], back.attributes["axes"]
    return _from_end(axes, len(shape)), tuple(shape[axis] for axis in axes)


def _placed(graph: Graph, source: int, node: Node, back: Node) -> Any:
    """Return the axes from the end and the lengths of what a transform takes."""
    shape, axes = graph.avals[source][1], node.attributes["axes"]
    return _from_end(axes, len(shape)), tuple(shape[axis] for axis in axes)


def _emit_filter(walk: Walk, match: _Match, node: Node) -> None:
    """Append the filter of a match, whose result takes the place of the output of `node`."""
    graph, back, line = walk.graph, match.back, node.line
    shape = graph.avals[back.outputs[0]][1]
    axes = tuple(sorted(back.attributes["axes"]))
    lengths = tuple(shape[axis] for axis in axes)
    u, v = (match.v, match.u) if match.u.conj else (match.u, match.v)
    made = [f.made for f in (u, v) if f.made is not None]
    real = back.op is not C2C or match.magnitude
    if real and back.op is C2R_FULL:
        real = any(graph.avals[m.operands[0]][0].kind == "f" for m in made)
    first, second = (_operand(walk, f, match, real, len(shape), axes, lengths, line) for f in (u, v))
    dtype = graph.avals[first][0]
    zeros = (0,) * len(axes)
    attributes = {
        "lengths": lengths, "axes": axes, "real": real, "u_start": zeros, "v_start": zeros,
        "out_start": zeros, "out_shape": lengths, "conj": u.conj or v.conj,
    }  # fmt: skip
    last = walk.emit(FILTER, (first, second), attributes, dtype, shape, line)
    scale = u.scale * v.scale * match.scale * back.attributes["factor"] * math.prod(lengths)
    scale *= math.prod(m.attributes["factor"] for m in made)
    if abs(scale - 1) > 1e-12:
        last = walk.emit(MULTIPLY, (last, graph.add_constant(float(scale))), {}, dtype, shape, line)
    if match.magnitude:
        last = walk.emit(ABSOLUTE, (last,), {}, dtype, shape, line)
    elif back.op is C2R_FULL and not real:
        last = walk.emit(REAL, (last,), {}, *graph.avals[node.outputs[0]], line)
    if not walk.replace(node.outputs[0], last):
        raise AssertionError(f"{node} is not what {graph.avals[last]} stands for")


def _operand(
    walk: Walk, factor: _Factor, match: _Match, real: bool, ndim: int, axes: Extents, lengths: Extents, line: int
) -> int:  # fmt: skip
    """Return the operand of the filter that a factor is the spectrum of, with `ndim` dimensions."""
    graph, back = walk.graph, match.back
    slot = walk.same.get(factor.slot, factor.slot)
    dtype, shape = graph.avals[slot]
    if factor.made is None:
        slot = _kernel_of(walk, slot, back, lengths, real, line)
    elif (node := walk.made.get(slot)) is not None and node.op is RESIZE:
        own = graph.avals[node.operands[0]][1]
        there = {axis - ndim + len(own) for axis in axes}
        if all(a <= b and (a == b or k in there) for k, (a, b) in enumerate(zip(own, shape, strict=True))):
            slot = node.operands[0]  # the filter pads with zeros itself
    dtype, shape = graph.avals[slot]
    if real and dtype.kind == "c":
        dtype = np.empty((), dtype).real.dtype
        slot = walk.emit(REAL, (slot,), {}, dtype, shape, line)
    if len(shape) < ndim:
        shape = (1,) * (ndim - len(shape)) + shape
        slot = walk.emit(RESHAPE, (slot,), {"shape": shape}, dtype, shape, line)
    return slot


def _kernel_of(walk: Walk, slot: int, back: Node, lengths: Extents, real: bool, line: int) -> int:
    """Return the slot of the kernel that has this spectrum (of its real part, if the result is real)."""
    dtype, shape = walk.graph.avals[slot]
    if dtype.kind != "c":
        dtype = walk.graph.avals[back.operands[0]][0]
        slot = walk.emit(ASTYPE, (slot,), {"dtype": dtype.str}, dtype, shape, line)
    ndim = len(walk.graph.avals[back.outputs[0]][1])
    axes = tuple(axis - ndim + len(shape) for axis in back.attributes["axes"])
    attributes: dict[str, Any] = {"axes": axes, "factor": 1 / math.prod(lengths)}
    if back.op is C2R:
        n = walk.graph.avals[back.outputs[0]][1][back.attributes["axes"][-1]]
        attributes |= {"n": n, "mirrored": True}
        shape = tuple(n if axis == axes[-1] else m for axis, m in enumerate(shape))
    else:
        attributes["forward"] = _direction(back)
    if real:
        dtype = np.empty((), dtype).real.dtype
    op: Op = C2R if back.op is C2R else C2R_FULL if real else C2C
    return walk.emit(op, (slot,), attributes, dtype, shape, line)
