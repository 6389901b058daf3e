"""vjp, jvp and hvp of a compiled function.

Owns the inputs that they have beside those of the function, cotangents and directions, and the forward pass that waits for
cotangents. What depends on the point only is not executed again for another direction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad import directional, transforms, tree
from nbad.directional import checked_direction, moving_parts
from nbad.errors import InputTypeError, MutationError, RuleError, where
from nbad.methods import user_line
from nbad.serving import Owner, attempted, fitted, inner_of, places_of, replay_with
from nbad.signatures import Call, native, read_call
from nbad.transforms import EVERYTHING, checked_seed, packed, read_wrt
from nbad.variants import Failure, Replayer, Variant, altered, own_bits, print_of

__all__ = ["ProductCall", "PullbackCall", "TangentCall"]


class PullbackCall:
    """`vjp` of a compiled function."""

    def __init__(self, owner: Owner, wrt: Any, has_aux: bool) -> None:
        self.owner = owner
        self.wrt = wrt
        self.has_aux = has_aux

    def __call__(self, *primals: Any, **kwargs: Any) -> Any:
        """Return ``(value, pullback)``, and aux where it was asked for."""
        owner, has_aux, wrt = self.owner, self.has_aux, self.wrt
        if wrt is EVERYTHING:
            wrt = 0 if len(primals) == 1 else tuple((k,) for k in range(len(primals)))
        asked, listed, indices = read_wrt("vjp", wrt, owner.signature, primals, kwargs)
        call = read_call(owner.name, asked.args, asked.kwargs)

        def inline() -> Any:
            return transforms.vjp(inner_of(owner), *primals, wrt=wrt, has_aux=has_aux, **kwargs)

        if call is None:
            return inline()
        places = places_of(call, asked, listed)

        def finish(cotangents: Sequence[Any]) -> Any:
            answers = [fitted(c, leaf.value) for c, leaf in zip(cotangents, listed, strict=True)]
            return packed(asked, indices, answers)

        def replay(variant: Variant, values: list[Any]) -> Any:
            seeds = _seeds(variant, has_aux)
            derived = variant.known("vjp", places, has_aux, seeds)
            if derived is None:
                derived, _ = variant.derive("vjp", places, has_aux, values, seeds)

            def make() -> Replayer:
                count = len(values)
                masks = own_bits(count + len(seeds), places, range(count, count + len(seeds)))
                rest = variant.rewrites, derived.sweep_from
                return Replayer(derived.graph, derived.template, masks, *rest, in_parts=True)

            replayer = variant.replayer(("vjp", places, has_aux), make)
            held = _Held(variant, replayer, values, seeds)
            value = attempted(held.value)
            variant.touch()
            structure = tree.structure(value[0])
            outputs = tree.leaves(value[0])

            def pullback(cotangent: Any) -> Any:
                if tree.structure(cotangent) != structure:
                    raise InputTypeError(
                        "vjp: the cotangent is not of the structure of the function's value", at=user_line()
                    )
                given = [
                    checked_seed("vjp", seed, np.shape(leaf), np.result_type(leaf))
                    if _takes_seed(leaf)
                    else blank
                    for seed, leaf, blank in zip(tree.leaves(cotangent), outputs, seeds, strict=True)
                ]
                return finish(held.pull(given))

            pullback.settle = held.settle  # type: ignore[attr-defined]
            return (value[0], pullback, value[1]) if has_aux else (value[0], pullback)

        def first(variant: Variant, result: Any, values: list[Any]) -> Any:
            value, pull, aux = variant.pulled(places, has_aux, values)

            def pullback(cotangent: Any) -> Any:
                return finish(pull(cotangent))

            return value, pullback, *aux

        return owner.serve(call, replay, first, inline)


def _takes_seed(leaf: Any) -> bool:
    return (
        isinstance(leaf, np.ndarray | np.generic | int | float | complex)
        and np.result_type(leaf).kind in "fc"
    )


def _seeds(variant: Variant, has_aux: bool) -> list[Any]:
    """Return a cotangent of zeros for each leaf of what the function returns (of its first member with `has_aux`)."""
    primal = variant.primal
    graph, template = primal.graph, primal.template
    leaves = list(template.leaves)
    for place, slot in zip(template.places, graph.outputs, strict=True):
        dtype, shape = graph.avals[slot]
        leaves[place] = np.zeros(shape, np.dtype(dtype.type))
    result = tree.assemble(template.skeleton, leaves)
    value = result[0] if has_aux and isinstance(result, tuple) and len(result) == 2 else result
    return [leaf if isinstance(leaf, np.ndarray) else np.zeros(()) for leaf in tree.leaves(value)]


class _Held:
    """A replayed forward pass that waits for cotangents, in a workspace of its own."""

    def __init__(self, variant: Variant, replayer: Replayer, values: list[Any], seeds: Sequence[Any]) -> None:
        self.variant = variant
        self.replayer = replayer
        self.values = values
        self.seeds = list(seeds)
        self.lock = threading.Lock()
        self.prints = [print_of(value) for value in values]
        self.settled = False
        self.workspace = replayer.take()
        self.outputs = len(replayer.graph.outputs)

    def value(self) -> Any:
        """Return ``(value, *aux)``."""
        replayer, workspace = self.replayer, self.workspace
        filled = [*self.values, *self.seeds]
        changed, news = replayer.changed(workspace, filled)
        replayer.advance(workspace, filled, changed, news)
        return replayer.template.fill(self._results())[0]

    def _results(self) -> list[Any]:
        results: list[Any] = self.workspace.results()
        return results

    def check(self) -> None:
        """Raise if an array that the function was given, or reads, was written to."""
        for value, seen in zip(self.values, self.prints, strict=True):
            if print_of(value) != seen:
                raise MutationError.of("vjp of a compiled function", "an argument", at=user_line())
        if altered(self.variant.watched):
            what = "an array that the function reads"
            raise MutationError.of("vjp of a compiled function", what, at=user_line())

    def settle(self) -> None:
        """Check now, and not at each pull: nobody else gets a turn until the last one."""
        self.check()
        self.settled = True

    def pull(self, cotangents: list[Any]) -> list[Any]:
        """Return the cotangents of the asked-for leaves."""
        with self.lock:
            if not self.settled:
                self.check()
            filled = [*self.values, *map(native, cotangents)]
            try:
                self.replayer.advance(self.workspace, filled, 1, [])
            except Failure as failure:
                raise RuleError(
                    "vjp: an operation gave something of another shape or dtype than before, for the same arguments",
                    at=where(*failure.line) if failure.line else user_line(),
                ) from None
            found: list[Any] = list(self.replayer.template.fill(self._results())[1])
            return found

    def __del__(self) -> None:
        """Give the workspace back."""
        if getattr(self, "workspace", None) is not None:
            self.replayer.pool.append(self.workspace)


class TangentCall:
    """`jvp` of a compiled function."""

    def __init__(self, owner: Owner, has_aux: bool) -> None:
        self.owner = owner
        self.has_aux = has_aux

    def __call__(self, primals: Any, tangents: Any) -> Any:
        """Return ``(value, tangent)``, and aux where it was asked for."""
        owner, has_aux = self.owner, self.has_aux
        moving, paths = moving_parts(primals, tangents)
        primals = tuple(primals)
        asked, listed, _ = read_wrt("jvp", tuple(paths), owner.signature, primals, {})
        call = read_call(owner.name, primals, {})
        directions = [
            checked_direction("jvp", "tangent", leaf.text, leaf.value, given)
            for leaf, given in zip(listed, moving, strict=True)
        ]

        def inline() -> Any:
            return directional.jvp(inner_of(owner), primals, tangents, has_aux=has_aux)

        if call is None or any(not isinstance(x, np.ndarray) for x in directions):
            return inline()
        places = places_of(call, asked, listed)

        def finish(result: Any) -> Any:
            value, tangent, *aux = result
            tangents = [fitted(t, v) for t, v in zip(tree.leaves(tangent), tree.leaves(value), strict=True)]
            return (value, tree.rebuild(value, tangents), *aux)

        return _directed(owner, call, "jvp", places, has_aux, directions, finish, inline)


class ProductCall:
    """`hvp` of a compiled function."""

    def __init__(self, owner: Owner, wrt: Any) -> None:
        self.owner = owner
        self.wrt = wrt

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the product of the Hessian with the direction, which is the last argument."""
        owner = self.owner

        def inline() -> Any:
            return directional.hvp(inner_of(owner), self.wrt)(*args, **kwargs)

        if not args:
            raise InputTypeError(
                "hvp: the direction is missing: pass it as the last argument", at=user_line()
            )
        *front, direction = args
        asked, listed, indices = read_wrt("hvp", self.wrt, owner.signature, tuple(front), kwargs)
        call = read_call(owner.name, asked.args, asked.kwargs)
        model = [tree.select(asked.value(entry.argument), entry.path) for entry in asked.entries]
        expected = tuple(model) if asked.several else model[0]
        leaves = [listed[i] for row in indices for i in row]
        if call is None or len(leaves) != len(listed):
            return inline()
        if tree.structure(direction) != tree.structure(expected):
            raise InputTypeError(
                "hvp: the direction is not of the structure of what wrt asks for",
                at=user_line(),
                fix="Pass it last: hvp(f)(*args, v).",
            )
        given = [
            checked_direction("hvp", "direction", leaf.text, leaf.value, x)
            for leaf, x in zip(leaves, tree.leaves(direction), strict=True)
        ]
        if any(not isinstance(x, np.ndarray) for x in given):
            return inline()
        directions = [
            x for _, x in sorted(zip((i for row in indices for i in row), given, strict=True), key=_first)
        ]

        def finish(result: Any) -> Any:
            answers = [fitted(x, leaf.value) for x, leaf in zip(result, listed, strict=True)]
            return packed(asked, indices, answers)

        return _directed(
            owner, call, "hvp", places_of(call, asked, listed), False, directions, finish, inline
        )


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _directed(
    owner: Owner,
    call: Call,
    kind: str,
    places: tuple[int, ...],
    has_aux: bool,
    directions: list[Any],
    finish: Callable[[Any], Any],
    inline: Callable[[], Any],
) -> Any:
    """Serve a call of `jvp` or `hvp`: what depends on the point only is not executed again for another direction."""

    def replay(variant: Variant, values: list[Any]) -> Any:
        derived = variant.known(kind, places, has_aux, directions)
        if derived is None:
            return finish(variant.derive(kind, places, has_aux, values, directions)[1])

        def make() -> Replayer:
            count = len(values)
            masks = own_bits(count + len(directions), places, range(count, count + len(directions)))
            return Replayer(derived.graph, derived.template, masks, variant.rewrites, derived.sweep_from)

        replayer = variant.replayer((kind, places, has_aux), make)
        return finish(
            replayer.template.fill(replay_with(variant, replayer, [*values, *map(native, directions)]))
        )

    def first(variant: Variant, result: Any, values: list[Any]) -> Any:
        return finish(variant.answer(kind, places, has_aux, values, directions))

    return owner.serve(call, replay, first, inline)
