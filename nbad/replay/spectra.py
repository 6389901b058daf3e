"""The spectra of filters: taken apart, so that equal ones are made once, and joined again where only one filter reads them.

Owns two rewrites. `with_spectra` puts for each filter the transforms that it is made of; what computes equal values once then
merges equal spectra; `with_fused_filters` joins what is left over to passes that stay in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad.kernels import boxes
from nbad.replay.graph import Graph, Node, masks_of
from nbad.replay.simplify import Walk, single_readers
from nbad.rules.convolution import FILTER, FILTER_BY_SPECTRUM, FILTER_KEEPING, SPECTRA_PRODUCT, SPECTRUM
from nbad.rules.reductions import SUM

__all__ = ["bins_of", "with_fused_filters", "with_spectra"]

Extents = tuple[int, ...]

#: How a spectrum enters `filter_by_spectrum`, by whether it is conjugated.
HOW = {False: "x h", True: "x conj(h)"}


# Taking filters apart -----------------------------------------------------------------------------
def bins_of(lengths: Sequence[int], real: bool, dtype: Any) -> int:
    """Return how many bins the spectrum of a box has in the layout of the passes, for spectra of this complex dtype."""
    found: int = boxes.box(tuple(lengths), real, np.dtype(dtype).itemsize).bins
    return found


def with_spectra(graph: Graph) -> Graph:
    """Return the graph with the transforms of each filter as nodes of their own.

    A sum over batch axes of a correlation is done before it is transformed back.
    """
    walk = Walk(graph)
    only = single_readers(graph)
    for node in graph.nodes:
        operands = walk.operands(node)
        if node.op is FILTER:
            _take_apart(walk, node, operands)
        elif node.op is FILTER_BY_SPECTRUM and _same_precision(walk, operands):
            _take_apart_by_spectrum(walk, node, operands)
        elif node.op is SUM and (product := walk.made.get(operands[0])) is not None and (
            product.op is SPECTRA_PRODUCT and node.operands[0] in only and _sums(node, product)
        ):  # fmt: skip
            gone = node.attributes["axis"]
            batch = [
                axis for axis in range(_ndim(walk, operands[0])) if axis not in product.attributes["axes"]
            ]
            left = [axis for axis in range(_ndim(walk, operands[0])) if axis not in gone]
            attributes = {
                **product.attributes,
                "reduced": tuple(batch.index(axis) for axis in gone),
                "axes": tuple(left.index(axis) for axis in product.attributes["axes"]),
            }
            walk.keep(Node(SPECTRA_PRODUCT, product.operands, node.outputs, attributes, node.line))
        else:
            walk.keep(Node(node.op, operands, node.outputs, node.attributes, node.line))
    return walk.finish()


def _ndim(walk: Walk, slot: int) -> int:
    return len(walk.graph.avals[slot][1])


def _sums(node: Node, product: Node) -> bool:
    """Return whether a sum of a product of spectra can be done in the spectra."""
    a, p = node.attributes, product.attributes
    if a["dtype"] is not None or a["keepdims"] or not a["axis"]:
        return False
    return bool(p["conj"]) and not p["reduced"] and not set(a["axis"]) & set(p["axes"])


def _same_precision(walk: Walk, operands: Extents) -> bool:
    x, h = (walk.graph.avals[slot][0] for slot in operands)
    return np.result_type(x, np.complex64) == h


def _spectrum(walk: Walk, slot: int, a: dict[str, Any], start: Extents, line: int) -> int:
    """Append the spectrum of a slot."""
    dtype, shape = walk.graph.avals[slot]
    attributes = {"lengths": a["lengths"], "axes": a["axes"], "real": a["real"], "start": start}
    batch = tuple(n for axis, n in enumerate(shape) if axis not in a["axes"])
    complex_type = np.result_type(dtype, np.complex64)
    return walk.emit(
        SPECTRUM,
        (slot,),
        attributes,
        complex_type,
        (*batch, bins_of(a["lengths"], a["real"], complex_type)),
        line,
    )


def _product(walk: Walk, node: Node, first: int, second: int, conj: bool) -> None:
    """Append the product of two spectra in place of `node`."""
    a = node.attributes
    attributes = {
        "conj": conj, "lengths": a["lengths"], "axes": a["axes"], "real": a["real"], "reduced": (),
        "out_start": a["out_start"], "out_shape": a["out_shape"],
    }  # fmt: skip
    walk.keep(Node(SPECTRA_PRODUCT, (first, second), node.outputs, attributes, node.line))


def _take_apart(walk: Walk, node: Node, operands: Extents) -> None:
    a = node.attributes
    first = _spectrum(walk, operands[0], a, a["u_start"], node.line)
    second = _spectrum(walk, operands[1], a, a["v_start"], node.line)
    _product(walk, node, first, second, a["conj"])


def _take_apart_by_spectrum(walk: Walk, node: Node, operands: Extents) -> None:
    a = node.attributes
    own = _spectrum(walk, operands[0], a, a["start"], node.line)
    if a["how"] in HOW.values():
        _product(walk, node, own, operands[1], a["how"] == HOW[True])
    else:
        _product(walk, node, operands[1], own, True)


# Joining what only one filter reads -----------------------------------------------------------------
def with_fused_filters(graph: Graph, input_masks: Sequence[int]) -> Graph:
    """Return the graph with one operation for a spectrum and its first product, where that saves passes over memory.

    Parameters
    ----------
    graph : Graph
        Pruned. Not modified.
    input_masks : sequence of int
        Masks of the inputs. A spectrum that may stay from call to call while the product changes is left alone.
    """
    walk = Walk(graph)
    masks = masks_of(graph, input_masks)
    makers, readers = graph.makers(), graph.readers()
    held = {*graph.outputs, *(guard.slot for guard in graph.guards)}
    inside: dict[
        int, tuple[int, int]
    ] = {}  # by position of a product: the spectrum it makes, and the other one
    gone: set[int] = set()  # positions of spectra that a product makes
    for i, node in enumerate(graph.nodes):
        if node.op is not SPECTRA_PRODUCT or node.attributes["reduced"]:
            continue
        mask = masks[node.outputs[0]]
        best: tuple[tuple[bool, bool], int] | None = None
        for k, slot in enumerate(node.operands[: 1 if node.attributes["conj"] else 2]):
            at = makers.get(slot)
            if at is None or graph.nodes[at].op is not SPECTRUM or at in gone or slot in held:
                continue
            if node.operands[0] == node.operands[1] or min(readers[slot]) != i:
                continue
            if masks[slot] & 1 or masks[slot] == mask:
                rank = (len(readers[slot]) == 1, bool(masks[slot] & 1))
                if best is None or rank > best[0]:
                    best = rank, k
        if best is not None:
            k = best[1]
            inside[i] = node.operands[k], node.operands[1 - k]
            gone.add(makers[node.operands[k]])
    for i, node in enumerate(graph.nodes):
        operands = walk.operands(node)
        if i in gone:
            continue
        if i not in inside:
            walk.keep(Node(node.op, operands, node.outputs, node.attributes, node.line))
            continue
        slot, other = inside[i]
        _join(walk, node, graph.nodes[makers[slot]], slot, other, keeping=len(readers[slot]) > 1)
    return walk.finish()


def _join(walk: Walk, node: Node, spectrum: Node, slot: int, other: int, keeping: bool) -> None:
    """Append one operation for `spectrum` and the product `node` of it."""
    a = node.attributes
    attributes = {
        "lengths": a["lengths"], "axes": a["axes"], "real": a["real"], "start": spectrum.attributes["start"],
        "out_start": a["out_start"], "out_shape": a["out_shape"],
    }  # fmt: skip
    operands = (spectrum.operands[0], other)
    if keeping:
        attributes["conj"] = a["conj"]
        walk.keep(Node(FILTER_KEEPING, operands, (*node.outputs, slot), attributes, node.line))
    else:
        attributes["how"] = HOW[a["conj"]]
        walk.keep(Node(FILTER_BY_SPECTRUM, operands, node.outputs, attributes, node.line))
