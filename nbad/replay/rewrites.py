"""The rewrites of graphs, by name, and in which order they are applied.

Owns the two stages. The first works on the graph of a function, before anything is derived from it, so that gradients are
those of the rewritten program; the second on the graph of one transformation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nbad.replay.broadcasts import with_late_broadcasts
from nbad.replay.convolutions import with_filters, with_real_transforms
from nbad.replay.graph import Graph, masks_of, pruned
from nbad.replay.simplify import simplified
from nbad.replay.spectra import with_fused_filters, with_spectra
from nbad.rules.convolution import FILTER, FILTER_BY_SPECTRUM, SPECTRA_PRODUCT, SPECTRUM
from nbad.rules.fourier import C2C, C2R, C2R_FULL, R2C, R2C_FULL

__all__ = ["REWRITES", "rewrite_joint", "rewrite_primal"]

#: What may be switched off, by name, with what it does. "Exact" is to the bit.
REWRITES: dict[str, str] = {
    "real-fft": "Transforms of real arrays that were cast to complex, and real parts of transforms, are real transforms.",
    "convolution": "Products of two spectra that are transformed back are one filter; to rounding.",
    "subexpressions": "What is computed twice from the same values is computed once; exact.",
    "constants": "What depends on constants only and is small is computed once; exact.",
    "identities": "What changes nothing is left out (times 1, minus 0, negated twice); numbers are broadcast late; exact.",
    "zeros": "Cotangents that are zero whatever the inputs are, and what is linear in them, are left out.",
    "spectra": "Filters share the spectra of their operands; to rounding.",
}

#: Without one of these, the rewrites of transforms and convolutions have nothing to start from.
_TRANSFORMS = frozenset(
    op.opcode
    for op in (C2C, C2R, C2R_FULL, R2C, R2C_FULL, FILTER, FILTER_BY_SPECTRUM, SPECTRA_PRODUCT, SPECTRUM)
)


def rewrite_primal(graph: Graph, enabled: Collection[str] | None = None) -> Graph:
    """Return the graph of a function, rewritten before anything is derived from it.

    Parameters
    ----------
    graph : Graph
        Not modified.
    enabled : collection of str, optional
        Names in `REWRITES`; default all.

    Returns
    -------
    Graph
        With the same inputs and outputs, and the same constant arrays. It computes the same to rounding.

    Raises
    ------
    ValueError
        A name that is not in `REWRITES`.
    """
    on = _named(enabled)
    graph = pruned(simplified(graph, on, opaque=True))
    if not _has_transforms(graph):
        return graph
    if "real-fft" in on:
        graph = pruned(with_real_transforms(graph))
    if "convolution" in on:
        graph = pruned(with_filters(graph))
    return graph


def rewrite_joint(
    graph: Graph,
    input_masks: Sequence[int],
    enabled: Collection[str] | None = None,
    sweep_from: int | None = None,
) -> Graph:
    """Return the graph of a transformation, rewritten before it is planned.

    Parameters
    ----------
    graph : Graph
        Not modified.
    input_masks : sequence of int
        Mask of each input; bit 0 means that it changes at each call, other bits stand for inputs that may not.
    enabled : collection of str, optional
        Names in `REWRITES`; default all.
    sweep_from : int, optional
        Position of the first node that was made by a sweep, which "zeros" needs.

    Returns
    -------
    Graph
        Pruned, with the same inputs and outputs. It computes the same to rounding.

    Raises
    ------
    ValueError
        A name that is not in `REWRITES`.
    """
    on = _named(enabled)
    masks = tuple(input_masks)
    graph = pruned(simplified(graph, on, sweep_from))
    if "identities" in on:
        graph = pruned(with_late_broadcasts(graph))
    if not _has_transforms(graph):
        return graph
    if "real-fft" in on:
        graph = pruned(with_real_transforms(graph))
    if "convolution" in on:
        graph = pruned(with_filters(graph, masks_of(graph, masks)))
    if "spectra" in on:
        graph = with_spectra(pruned(simplified(graph, on)))
        graph = with_fused_filters(pruned(simplified(graph, on)), masks)
    return pruned(graph)


def _has_transforms(graph: Graph) -> bool:
    return any(node.op.opcode in _TRANSFORMS for node in graph.nodes)


def _named(enabled: Collection[str] | None) -> frozenset[str]:
    if enabled is None:
        return frozenset(REWRITES)
    unknown = sorted(set(enabled) - set(REWRITES))
    if unknown:
        raise ValueError(
            f"there is no rewrite {unknown[0]!r}; the rewrites are {', '.join(map(repr, REWRITES))}"
        )
    return frozenset(enabled)
