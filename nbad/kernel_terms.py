"""Derivatives of kernels, as operations of the array tape.

Owns the node of a kernel's call, and its derivatives of every order. They are of two kinds: the derivative of
the kernel in k directions, and the pullback of a cotangent, differentiated in k directions. Since derivatives in several
directions do not depend on their order, the pullback of each is again one of them. Both come from one run of the kernel
on numbers with k tangents (`nbad.scalar`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core import errors

from nbad import tree
from nbad.kernel_errors import explained
from nbad.kernels.hashing import fingerprint
from nbad.regions import RowsByOutputs, members, restored
from nbad.report import current
from nbad.scalar.calls import Part
from nbad.scalar.loading import loaded
from nbad.table import Keep
from nbad.tape import Opaque
from nbad.trace import apply, is_traced

__all__ = [
    "Leaves",
    "Node",
    "Site",
    "Term",
    "active_value",
    "apart",
    "merged",
    "plain_result",
    "recorded",
    "row",
    "taped",
]

Leaves = Sequence[Any]


class Site(Opaque):
    """One call of a kernel: its arguments, but for the operands of the node, and what it returns."""

    __slots__ = (
        "call",
        "changing",
        "constants",
        "keeps",
        "latest",
        "looks",
        "outputs",
        "pending",
        "places",
        "recorded",
        "tapes",
    )

    def __init__(self, call: Any, constants: list[Any], places: tuple[int, ...]) -> None:
        self.call = call
        self.constants = constants
        #: Arrays that the kernel may write into: each run gets copies.
        self.changing: tuple[int, ...] = ()
        #: The first run leaves its tape for the pull.
        self.keeps = True
        self.places = places
        self.looks: list[tuple[np.dtype[Any], int]] = []
        self.outputs: list[tuple[int, np.dtype[Any], tuple[int, ...]]] = []
        self.pending: list[Any] | None = None
        self.recorded: Any = None
        #: In replays: what pulls ask for, and the tape that the forward wrote because of it.
        self.tapes: tuple[int, ...] = ()
        self.latest: tuple[Any, Any] | None = None

    def filled(self, operands: Leaves) -> list[Any]:
        """Return all leaves of the arguments."""
        leaves = list(self.constants)
        for place, value, (dtype, form) in zip(self.places, operands, self.looks, strict=True):
            leaves[place] = restored(value, dtype, form)
            if place in self.changing:
                leaves[place] = np.copy(leaves[place], order="K")
        return leaves

    def tape_of(self, operands: Leaves, asked: tuple[int, ...]) -> Any:
        """Return the tape of the forward for these operands, if it wrote one; from now on it does."""
        if not self.keeps:
            return None
        if self.recorded is not None:
            return self.recorded if set(asked) <= set(self.recorded.firsts) else None
        latest, self.latest = self.latest, None
        if latest is not None and set(asked) <= set(self.tapes) and latest[0] == _prints(operands):
            return latest[1]
        self.tapes = tuple(sorted({*self.tapes, *asked}))
        return None

    def replayed(self, operands: Leaves) -> list[Any]:
        """Return the outputs for plain operands; leave a tape if pulls have used it so far."""
        if self.latest is not None:
            self.tapes, self.latest = (), None  # nobody pulled: the value alone is asked for
        if self.tapes:
            made = recorded(self, operands, self.tapes, ())
            self.latest = _prints(operands), made
            result = tree.map_leaves(active_value, merged(made.outputs))
        else:
            result = plain_result(self, self.filled(operands))
        leaves = tree.leaves(result)
        return [apart(leaves[i], operands) for i, _, _ in self.outputs]

    def differentiable(self, operand: int) -> bool:
        """Return whether an operand is of a dtype that has derivatives."""
        return self.looks[operand][0].kind in "fc"


class Term(NamedTuple):
    """A derivative of a call.

    `moved` lists the operands that each direction moves. With `seeds`, the outputs that have cotangents, it is their
    pullback to the operands `wanted`; without, it is the derivative of the outputs `wanted`.
    """

    site: Site
    moved: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...] | None
    wanted: tuple[int, ...]

    def parts(self, operands: Leaves) -> tuple[Leaves, list[Leaves], Leaves]:
        """Split operands of the node: those of the call, the directions, the cotangents."""
        at = len(self.site.places)
        values, directions = operands[:at], []
        for one in self.moved:
            directions.append(operands[at : at + len(one)])
            at += len(one)
        return values, directions, operands[at:]

    def run(self, operands: Leaves) -> list[Any]:
        """Compute it for plain operands."""
        site = self.site
        values, directions, g = self.parts(operands)
        tangents = [
            {site.places[k]: t for k, t in zip(one, given, strict=True)}
            for one, given in zip(self.moved, directions, strict=True)
        ]
        if self.seeds is None:
            made = recorded(site, values, (), tangents)
            leaves = tree.leaves(merged(made.outputs))
            found = []
            for k in self.wanted:
                place, dtype, shape = site.outputs[k]
                leaf = leaves[place]
                found.append(
                    np.asarray(leaf.lanes[-1], dtype) if isinstance(leaf, _Leaf) else np.zeros(shape, dtype)
                )
            return found
        asked = tuple(site.places[k] for k in self.wanted)
        made = None if tangents else site.tape_of(values, asked)
        if made is None:
            made = recorded(site, values, asked, tangents)
        return self._pulled(made, asked, values, g)

    def _pulled(self, made: Any, asked: tuple[int, ...], values: Leaves, g: Leaves) -> list[Any]:
        leaves = tree.leaves(merged(made.outputs))
        ends = [leaves[self.site.outputs[k][0]] for k in self.seeds or ()]
        kinds = [self.site.outputs[k][1].kind for k in self.seeds or ()]
        seeds = [
            (leaf.indices, np.asarray(one, np.complex128 if kind == "c" else np.float64))
            for leaf, one, kind in zip(ends, g, kinds, strict=True)
            if isinstance(leaf, _Leaf)
        ]
        shapes = {place: np.shape(values[k]) for k, place in zip(self.wanted, asked, strict=True)}
        found = made.pull(seeds, shapes)
        return [
            np.asarray(found[place], self.site.looks[k][0])
            for k, place in zip(self.wanted, asked, strict=True)
        ]

    def dependence(self, operand: int, output: int, operands: Leaves) -> Any:
        """Return what the numbers of an output depend on, of those of an operand, by a tape for these operands.

        Returns
        -------
        tuple of two or four ndarrays, or None
            Two: pairs of a number of the output and one of the operand. Four, for second derivatives: sets of numbers of
            the output and sets of numbers of the operand, each as where they end and the numbers; those of the k-th two sets
            may have to do with each other, and no others. None if that is not known.
        """
        site, count = self.site, len(self.site.places)
        if self.moved or any(site.looks[k][0].kind != "f" for k in {operand, *self.wanted} if k < count):
            return None
        values = operands[:count]
        if self.seeds is None:
            return self._reached(operand, self.wanted[output], values)
        if operand >= count:  # linear in the cotangent, by the Jacobian
            found = self._reached(self.wanted[output], self.seeds[operand - count], values)
            return None if found is None else found[::-1]
        return self._interacting(operand, self.wanted[output], values)

    def _reached(self, operand: int, output: int, values: Leaves) -> Any:
        """Return pairs of a number of an output of the call and one of an operand."""
        site = self.site
        place = site.places[operand]
        made = site.recorded
        if made is None or place not in made.firsts:
            made = recorded(site, values, (place,), ())
        leaf = tree.leaves(merged(made.outputs))[site.outputs[output][0]]
        if site.outputs[output][1].kind == "c":
            return None
        if not isinstance(leaf, _Leaf):  # a constant
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found = loaded().dependence(made.tape, np.ravel(leaf.indices))
        if found is None:
            return None
        mine, inputs = _of_leaf(made, place, found[1], values[operand])
        return found[0][mine], inputs

    def _interacting(self, operand: int, output: int, values: Leaves) -> Any:
        """Return sets of numbers of two operands that second derivatives connect."""
        site = self.site
        random = np.random.default_rng(0)
        asked = tuple(sorted({operand, output}))
        moved = {site.places[k]: random.uniform(0.5, 1.5, np.shape(values[k])) for k in asked}
        made = recorded(site, values, tuple(moved), [moved])
        leaves = tree.leaves(merged(made.outputs))
        ends = [leaves[site.outputs[k][0]] for k in self.seeds or ()]
        indices = [np.ravel(leaf.indices) for leaf in ends if isinstance(leaf, _Leaf)]
        found = loaded().interactions(made.tape, np.concatenate([np.zeros(0, np.int64), *indices]))
        if found is None:
            return None
        after, inputs = found
        sides = []
        for k in (output, operand):
            mine, numbers = _of_leaf(made, site.places[k], inputs, values[k])
            sides += [np.concatenate([[0], np.cumsum(mine)])[after], numbers]
        return tuple(sides)

    def pull(self, asked: Sequence[int], g: Leaves, operands: Leaves) -> list[Any]:
        """Return the cotangents of the operands of the node at `asked`."""
        values, directions, cotangents = self.parts(operands)
        here = tuple(i for i, one in enumerate(g) if one is not None)
        given = [g[i] for i in here]
        if self.seeds is None:  # the cotangents become the seeds
            seeds, cotangents = tuple(self.wanted[i] for i in here), given
            moved, directions = self.moved, list(directions)
        else:  # they become one more direction
            seeds = self.seeds
            moved, directions = (*self.moved, tuple(self.wanted[i] for i in here)), [*directions, given]
        found: dict[int, Any] = {}
        start = len(self.site.places)
        own = [k for k in asked if k < start]
        if own:
            term = Term(self.site, moved, seeds, tuple(own))
            found |= zip(own, _run(term, [*values, *_joined(directions), *cotangents]), strict=True)
        for i, one in enumerate(self.moved):
            mine = [k for k in asked if start <= k < start + len(one)]
            if mine:
                rest = moved[:i] + moved[i + 1 :]
                term = Term(self.site, rest, seeds, tuple(one[k - start] for k in mine))
                others = [d for j, d in enumerate(directions) if j != i]
                found |= zip(mine, _run(term, [*values, *_joined(others), *cotangents]), strict=True)
            start += len(one)
        mine = [k for k in asked if k >= start]
        if mine and self.seeds is not None:
            term = Term(self.site, moved, None, tuple(self.seeds[k - start] for k in mine))
            found |= zip(mine, _run(term, [*values, *_joined(directions)]), strict=True)
        return [found[k] for k in asked]


def _of_leaf(made: Any, place: int, inputs: np.ndarray, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the inputs of a tape are those of a leaf, and their numbers within it."""
    numbers = inputs - (made.firsts[place] - 1)
    mine = (numbers >= 0) & (numbers < np.size(value))
    return mine, numbers[mine]


def _joined(directions: Sequence[Leaves]) -> list[Any]:
    return [value for one in directions for value in one]


class Node(Opaque):
    """A term as an attribute of a node."""

    __slots__ = ("term",)

    def __init__(self, term: Term) -> None:
        self.term = term


def _prints(operands: Leaves) -> list[Any]:
    """Return what tells operands from others."""
    return [fingerprint(np.asarray(x)) for x in operands]


class _Leaf:
    """An active leaf of what a kernel returned; a leaf for `nbad.tree` too."""

    __slots__ = ("indices", "lanes")

    def __init__(self, part: Any) -> None:
        self.lanes, self.indices = part


def active_value(leaf: Any) -> Any:
    """Return the value of a leaf of what a kernel returned."""
    return leaf.lanes[0] if isinstance(leaf, _Leaf) else leaf


def merged(outputs: Any) -> Any:
    """Return what a kernel returned with a leaf in the place of each part."""
    if isinstance(outputs, Part):
        return _Leaf(outputs)
    if isinstance(outputs, tuple):
        made = [merged(one) for one in outputs]
        return type(outputs)(*made) if hasattr(outputs, "_fields") else tuple(made)
    return outputs


def recorded(site: Site, operands: Leaves, asked: Sequence[int], tangents: Sequence[dict[int, Any]]) -> Any:
    """Run a kernel that writes a tape; `asked` and `tangents` go by leaves of its arguments."""
    return taped(site.call, site.filled(operands), asked, tangents, () if tangents else site.changing)


def taped(
    call: Any,
    leaves: Leaves,
    asked: Sequence[int],
    tangents: Sequence[dict[int, Any]] = (),
    watched: tuple[int, ...] = (),
) -> Any:
    """Record a call of a kernel, and account for it; what numba says becomes one clear error."""
    try:
        made = loaded().record(call, leaves, asked, tangents, watched)
    except errors.NumbaError as error:
        raise explained(call, leaves, error) from None
    for listener in current():
        listener.entries += made.tape.entries
        listener.entry_bytes += made.tape.nbytes
    return made


# The rows ---------------------------------------------------------------------------------------
def njit_forward(*xs: Any, node: Node) -> Any:
    """Return the outputs of a call of a kernel, or of a derivative of one."""
    term = node.term
    if any(map(is_traced, xs)):
        return apply(row(len(term.wanted)), *xs, node=node)
    found = _values(term, xs)
    return found[0] if len(found) == 1 else tuple(found)


def _values(term: Term, xs: Leaves) -> list[Any]:
    site = term.site
    if term.seeds is not None or term.moved:
        return term.run(xs)
    found, site.pending = site.pending, None
    return site.replayed(xs) if found is None else found


def njit_xs(g: Any, k: int, xs: tuple[Any, ...], node: Node) -> Any:
    return node.term.pull((k,), members(g), xs)[0]


class _Together:
    """The pullbacks of a call for all operands that are asked for: one tape, one sweep."""

    def keep(self, varied: Sequence[int], attributes: Mapping[str, Any]) -> Keep:
        """Return what to keep: all operands."""
        term: Term = attributes["node"].term
        count = len(term.site.places) + sum(map(len, term.moved)) + len(term.seeds or ())
        return Keep(tuple(range(count)), False, ())

    def pull(
        self, asked: Sequence[int], g: Any, operands: Leaves, y: Leaves, attributes: Mapping[str, Any]
    ) -> Any:
        """Return the cotangents of the operands at `asked`."""
        return attributes["node"].term.pull(asked, members(g), operands)


row = RowsByOutputs("njit", njit_forward, njit_xs, _Together())


def _run(term: Term, operands: Leaves) -> list[Any]:
    """Compute a term, as a node where an operand is traced."""
    if not any(map(is_traced, operands)):
        return term.run(operands)
    made = apply(row(len(term.wanted)), *operands, node=Node(term))
    return list(made) if len(term.wanted) > 1 else [made]


def plain_result(site: Site, leaves: Leaves) -> Any:
    """Call the kernel itself, on plain leaves."""
    names = {f"x{k}": leaf for k, leaf in enumerate(leaves)}
    return eval(
        f"kernel({site.call.text.format(*names)})", {"kernel": site.call.kernel, **site.call.names, **names}
    )


def apart(value: Any, operands: Leaves) -> Any:
    """Return a result that does not share memory with an operand."""
    if isinstance(value, np.ndarray) and any(
        isinstance(x, np.ndarray) and np.may_share_memory(value, x) for x in operands
    ):
        return value.copy()
    return value
