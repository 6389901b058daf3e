"""Calls of a compiled function and of its transformations.

Owns the way from arguments to a replay and from its results to what the caller gets. Which recordings exist is the business of
their owner (`nbad.compiled`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad import transforms
from nbad.config import SETTINGS
from nbad.directed import ProductCall, PullbackCall, TangentCall
from nbad.replay.graph import Graph
from nbad.serving import Owner, fitted, inner_of, places_of, replay_with
from nbad.signatures import Call, Template, read_call
from nbad.transforms import packed, read_wrt
from nbad.variants import Failure, Replayer, Variant, own_bits, print_of
from nbad.wrt import Asked, Leaf

__all__ = ["transformation"]

_MISS: Any = object()


def transformation(owner: Owner, kind: str, wrt: Any, has_aux: bool) -> Callable[..., Any]:
    """Return a transformation of a compiled function ("value" for the function itself)."""
    if kind == "value":
        return ValueCall(owner)
    if kind in ("grad", "value_and_grad"):
        return GradientCall(owner, kind, wrt, has_aux)
    if kind == "vjp":
        return PullbackCall(owner, wrt, has_aux)
    if kind == "jvp":
        return TangentCall(owner, has_aux)
    return ProductCall(owner, wrt)


class _Fast:
    """The short way for calls with arrays and floats only, by position, like the last one.

    Whatever does not fit exactly is left to the long way.
    """

    __slots__ = ("bound", "count", "finish", "kinds", "quick", "replayer", "specs", "variant")

    def __init__(
        self, call: Call, variant: Variant, replayer: Replayer, finish: Callable[[list[Any]], Any]
    ) -> None:
        self.kinds = tuple(map(type, call.leaves))
        self.specs = tuple(
            (np.dtype(x.dtype.type), x.shape) if isinstance(x, np.ndarray) else (None, None)
            for x in call.leaves
        )
        self.count = len(self.specs)
        self.variant = variant
        self.replayer = replayer
        self.finish = finish
        # Shapes, dtypes and layouts are then checked by the jitted loop, and types too, of those that the program reads.
        self.quick = replayer.program.fast and not replayer.fixed
        self.bound = self.quick and len(replayer.program.array_inputs) == self.count

    def answer(self, args: tuple[Any, ...]) -> Any:
        """Return the result of a replay for these arguments, or _MISS."""
        if self.bound:
            if len(args) != self.count:
                return _MISS
        elif tuple(map(type, args)) != self.kinds:
            return _MISS
        variant = self.variant
        if variant.dropped or variant.changed() is not None:
            return _MISS
        if self.quick:
            results = self.replayer.quick(args)
            if results is not None:
                variant.touch()
                return self.finish(results)
        if tuple(map(type, args)) != self.kinds:
            return _MISS
        for x, (dtype, shape) in zip(args, self.specs, strict=True):
            if dtype is not None and (x.dtype is not dtype or x.shape != shape or not x.flags.c_contiguous):
                return _MISS
        try:
            return self.finish(replay_with(variant, self.replayer, args))
        except Failure:
            return _MISS


def _is_flat(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the short way may serve such calls."""
    in_order = all(leaf.flags.c_contiguous for leaf in call.leaves if isinstance(leaf, np.ndarray))
    return in_order and not kwargs and len(call.inputs) == len(args) == len(call.leaves)


class _ShortOrLong(ABC):
    """A transformation whose calls go the short way where one is known."""

    fast: _Fast | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fast = self.fast
        if fast is not None and not kwargs and SETTINGS.nan is None:
            answer = fast.answer(args)
            if answer is not _MISS:
                return answer
            if fast.variant.dropped:
                self.fast = None
        return self.served(args, kwargs)

    @abstractmethod
    def served(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the answer the long way."""


class ValueCall(_ShortOrLong):
    """The compiled function itself."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def served(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the value of the function."""
        owner = self.owner
        call = read_call(owner.name, args, kwargs)
        if call is None:
            return inner_of(owner)(*args, **kwargs)

        def inline() -> Any:
            return inner_of(owner)(*args, **kwargs)

        def replay(variant: Variant, values: list[Any]) -> Any:
            def make() -> Replayer:
                # What changed since the recording is expected to change again.
                moving = [
                    i
                    for i, (value, seen) in enumerate(zip(values, variant.prints, strict=True))
                    if print_of(value) != seen
                ]
                masks = own_bits(len(values), (), moving)
                primal = variant.primal
                return Replayer(primal.graph, primal.template, masks, variant.rewrites)

            replayer = variant.replayer("value", make)
            result = replayer.template.fill(replay_with(variant, replayer, values))
            if _is_flat(call, args, kwargs):
                template = replayer.template
                bare = template.skeleton == [None] and template.places == [0]
                self.fast = _Fast(call, variant, replayer, _first if bare else template.fill)
            return result

        def first(variant: Variant, result: Any, values: list[Any]) -> Any:
            return result

        return owner.serve(call, replay, first, inline)


class GradientCall(_ShortOrLong):
    """`grad` and `value_and_grad` of a compiled function."""

    def __init__(self, owner: Owner, kind: str, wrt: Any, has_aux: bool) -> None:
        self.owner = owner
        self.kind = kind
        self.wrt = wrt
        self.has_aux = has_aux

    def served(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the gradient, and the value where it was asked for."""
        owner, kind, has_aux = self.owner, self.kind, self.has_aux
        asked, listed, indices = read_wrt(kind, self.wrt, owner.signature, args, kwargs)
        call = read_call(owner.name, asked.args, asked.kwargs)

        def inline() -> Any:
            return getattr(transforms, kind)(inner_of(owner), self.wrt, has_aux=has_aux)(*args, **kwargs)

        if call is None:
            return inline()
        places = places_of(call, asked, listed)

        def finish(result: Any) -> Any:
            value, gradients = result
            answers = [fitted(g, leaf.value) for g, leaf in zip(gradients, listed, strict=True)]
            gradient = packed(asked, indices, answers)
            if kind == "value_and_grad":
                return value, gradient
            return (gradient, value[1]) if has_aux else gradient

        def replay(variant: Variant, values: list[Any]) -> Any:
            derived = variant.known("grad", places, has_aux, ())
            if derived is None:
                return finish(variant.derive("grad", places, has_aux, values, ())[1])

            def make() -> Replayer:
                masks = own_bits(len(values), (), places)
                graph, template = derived.graph, derived.template
                if kind == "grad":
                    graph, template = _without_value(graph, template)
                return Replayer(graph, template, masks, variant.rewrites, derived.sweep_from)

            replayer = variant.replayer((kind, places, has_aux), make)
            result = finish(replayer.template.fill(replay_with(variant, replayer, values)))
            if _is_flat(call, args, kwargs) and all(not leaf.path for leaf in listed):
                self.fast = _Fast(call, variant, replayer, self._short(replayer, listed, indices, asked))
            return result

        def first(variant: Variant, result: Any, values: list[Any]) -> Any:
            return finish(variant.answer("grad", places, has_aux, values, ()))

        return owner.serve(call, replay, first, inline)

    def _short(
        self, replayer: Replayer, listed: list[Leaf], indices: list[list[int]], asked: Asked
    ) -> Callable[[list[Any]], Any]:
        """Return what makes the answer of the short way from the results of a replay."""
        template, kinds = replayer.template, [type(leaf.value) for leaf in listed]
        kind, has_aux, several = self.kind, self.has_aux, asked.several
        order = [row[0] for row in indices]
        plain = kinds == [np.ndarray] and listed[0].value.dtype.isnative and not (has_aux or several)
        if plain and template.places == [1]:
            return _first
        if plain and template.places == [0, 1]:
            return tuple

        def finish(values: list[Any]) -> Any:
            value, gradients = template.fill(values)
            answers = [fitted(g, leaf.value) for g, leaf in zip(gradients, listed, strict=True)]
            found = [answers[i] for i in order]
            if len(set(order)) < len(order):
                found = [x.copy() if isinstance(x, np.ndarray) else x for x in found]
            gradient = tuple(found) if several else found[0]
            if kind == "value_and_grad":
                return value, gradient
            return (gradient, value[1]) if has_aux else gradient

        return finish


def _first(values: list[Any]) -> Any:
    return values[0]


def _without_value(graph: Graph, template: Template) -> tuple[Graph, Template]:
    """Return a derived gradient without the value, which is its first leaf."""
    if not template.places or template.places[0] != 0:
        return graph, template
    graph = graph.copy()
    graph.outputs = graph.outputs[1:]
    leaves = list(template.leaves)
    leaves[0] = 0.0
    return graph, Template(template.skeleton, leaves, template.places[1:])
