"""Calls of a compiled function and of its transformations.

Owns the way from arguments to a replay and from its results to what the caller gets. Which recordings exist is the business of
their owner (`nbad.compiled`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from nbad import directional, transforms, tree
from nbad.directional import checked_direction, moving_parts
from nbad.errors import InputTypeError, MutationError, where
from nbad.methods import user_line
from nbad.replay.graph import Graph
from nbad.signatures import Call, Template, native, read_call
from nbad.transforms import EVERYTHING, checked_seed, like, packed, read_wrt
from nbad.variants import Failure, Replayer, Variant, own_bits, print_of
from nbad.wrt import Asked, Leaf

__all__ = ["Owner", "transformation"]

_MISS: Any = object()


class Owner(Protocol):
    """What a call needs of the compiled function."""

    name: str
    function: Callable[..., Any] | None
    signature: Any
    rewrites: Any

    def serve(
        self,
        call: Call,
        replay: Callable[[Variant, list[Any]], Any],
        first: Callable[[Variant, Any, list[Any]], Any],
        inline: Callable[[], Any],
        *,
        derives: bool,
    ) -> Any:
        """Return what the first fitting recording gives, or `first` of a new one."""


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


def replay_with(variant: Variant, replayer: Replayer, values: Sequence[Any]) -> list[Any]:
    """Return the results of a replay; whatever goes wrong in it means that the recording does not fit."""
    try:
        results = replayer.call(values)
    except (KeyboardInterrupt, SystemExit, Failure):
        raise
    except Exception as error:
        # The function itself is called next; if the error is its own, it comes again, from the user's line.
        raise Failure(None) from error
    variant.touch()
    return results


class _Fast:
    """The short way for calls with arrays and floats only, by position, like the last one.

    Whatever does not fit exactly is left to the long way.
    """

    __slots__ = ("count", "finish", "kinds", "quick", "replayer", "specs", "variant")

    def __init__(self, call: Call, variant: Variant, replayer: Replayer, finish: Callable[[list[Any]], Any]) -> None:
        self.kinds = tuple(map(type, call.leaves))
        self.specs = tuple(
            (np.dtype(x.dtype.type), x.shape) if isinstance(x, np.ndarray) else (None, None) for x in call.leaves
        )
        self.count = len(self.specs)
        self.variant = variant
        self.replayer = replayer
        self.finish = finish
        # Shapes, dtypes and layouts are then checked by the jitted loop.
        self.quick = replayer.program.fast and not replayer.fixed

    def __call__(self, args: tuple[Any, ...]) -> Any:
        if tuple(map(type, args)) != self.kinds or self.variant.changed() is not None:
            return _MISS
        if self.quick:
            results = self.replayer.quick(args)
            if results is not None:
                self.variant.touch()
                return self.finish(results)
        for x, (dtype, shape) in zip(args, self.specs, strict=True):
            if dtype is not None and (x.dtype is not dtype or x.shape != shape or not x.flags.c_contiguous):
                return _MISS
        try:
            return self.finish(replay_with(self.variant, self.replayer, args))
        except Failure:
            return _MISS


def _is_flat(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the short way may serve such calls."""
    return not kwargs and len(call.inputs) == len(args) == len(call.leaves)


class ValueCall:
    """The compiled function itself."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.fast: _Fast | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fast is not None and not kwargs:
            answer = self.fast(args)
            if answer is not _MISS:
                return answer
        owner = self.owner
        call = read_call(owner.name, args, kwargs)
        if call is None:
            return _inner(owner)(*args, **kwargs)

        def inline() -> Any:
            return _inner(owner)(*args, **kwargs)

        def replay(variant: Variant, values: list[Any]) -> Any:
            def make() -> Replayer:
                # What changed since the recording is expected to change again.
                moving = [
                    i for i, (value, seen) in enumerate(zip(values, variant.prints, strict=True)) if print_of(value) != seen
                ]
                masks = own_bits(len(values), (), moving)
                primal = variant.primal
                return Replayer(primal.graph, primal.template, masks, variant.rewrites)

            replayer = variant.replayer("value", make)
            result = replayer.template.fill(replay_with(variant, replayer, values))
            if _is_flat(call, args, kwargs):
                self.fast = _Fast(call, variant, replayer, replayer.template.fill)
            return result

        def first(variant: Variant, result: Any, values: list[Any]) -> Any:
            return result

        return owner.serve(call, replay, first, inline, derives=False)


def _inner(owner: Owner) -> Callable[..., Any]:
    """Return the plain function, for calls that somebody else records."""
    if owner.function is None:
        raise InputTypeError(
            f"{owner.name}: a loaded function takes plain values only", at=user_line(), fix="Differentiate it directly."
        )
    return owner.function


class GradientCall:
    """`grad` and `value_and_grad` of a compiled function."""

    def __init__(self, owner: Owner, kind: str, wrt: Any, has_aux: bool) -> None:
        self.owner = owner
        self.kind = kind
        self.wrt = wrt
        self.has_aux = has_aux
        self.fast: _Fast | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fast is not None and not kwargs:
            answer = self.fast(args)
            if answer is not _MISS:
                return answer
        owner, kind, has_aux = self.owner, self.kind, self.has_aux
        asked, listed, indices = read_wrt(kind, self.wrt, owner.signature, args, kwargs)
        call = read_call(owner.name, asked.args, asked.kwargs)

        def inline() -> Any:
            return getattr(transforms, kind)(_inner(owner), self.wrt, has_aux=has_aux)(*args, **kwargs)

        if call is None:
            return inline()
        places = _places(call, asked, listed)

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
            return finish(variant.derive("grad", places, has_aux, values, ())[1])

        return owner.serve(call, replay, first, inline, derives=True)

    def _short(
        self, replayer: Replayer, listed: list[Leaf], indices: list[list[int]], asked: Asked
    ) -> Callable[[list[Any]], Any]:
        """Return what makes the answer of the short way from the results of a replay."""
        template, kinds = replayer.template, [type(leaf.value) for leaf in listed]
        kind, has_aux, several = self.kind, self.has_aux, asked.several
        order = [row[0] for row in indices]
        plain = (
            kind == "grad"
            and not has_aux
            and not several
            and kinds == [np.ndarray]
            and all(leaf.value.dtype.isnative for leaf in listed)
            and template.places == [1]
        )

        if plain:

            def only(values: list[Any]) -> Any:
                return values[0]

            return only

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


def fitted(cotangent: Any, value: Any) -> Any:
    """Return a result of a replay as the kind of object that its primal is, in its dtype and byte order."""
    if isinstance(value, np.ndarray):
        if type(cotangent) is np.ndarray and cotangent.dtype == value.dtype:
            return cotangent
        return np.array(cotangent, value.dtype)
    return like(cotangent, value)


def _places(call: Call, asked: Asked, listed: list[Leaf]) -> tuple[int, ...]:
    """Return which inputs of the call the asked-for leaves are."""
    ordered = dict(sorted(asked.kwargs.items()))
    at = {path: i for i, path in enumerate(tree.paths((asked.args, ordered)))}
    position = {leaf: i for i, leaf in enumerate(call.inputs)}
    found = []
    for leaf in listed:
        root = (0, leaf.argument) if isinstance(leaf.argument, int) else (1, leaf.argument)
        found.append(position[at[(*root, *leaf.path)]])
    return tuple(found)


def _without_value(graph: Graph, template: Template) -> tuple[Graph, Template]:
    """Return a derived gradient without the value, which is its first leaf."""
    if not template.places or template.places[0] != 0:
        return graph, template
    graph = graph.copy()
    graph.outputs = graph.outputs[1:]
    leaves = list(template.leaves)
    leaves[0] = 0.0
    return graph, Template(template.skeleton, leaves, template.places[1:])


class PullbackCall:
    """`vjp` of a compiled function."""

    def __init__(self, owner: Owner, wrt: Any, has_aux: bool) -> None:
        self.owner = owner
        self.wrt = wrt
        self.has_aux = has_aux

    def __call__(self, *primals: Any, **kwargs: Any) -> Any:
        owner, has_aux, wrt = self.owner, self.has_aux, self.wrt
        if wrt is EVERYTHING:
            wrt = 0 if len(primals) == 1 else tuple((k,) for k in range(len(primals)))
        asked, listed, indices = read_wrt("vjp", wrt, owner.signature, primals, kwargs)
        call = read_call(owner.name, asked.args, asked.kwargs)

        def inline() -> Any:
            return transforms.vjp(_inner(owner), *primals, wrt=wrt, has_aux=has_aux, **kwargs)

        if call is None:
            return inline()
        places = _places(call, asked, listed)

        def ready(variant: Variant, values: list[Any]) -> Any:
            seeds = _seeds(variant, has_aux)
            derived = variant.known("vjp", places, has_aux, seeds)
            if derived is None:
                derived, _ = variant.derive("vjp", places, has_aux, values, seeds)

            def make() -> Replayer:
                count = len(values)
                masks = own_bits(count + len(seeds), places, range(count, count + len(seeds)))
                return Replayer(derived.graph, derived.template, masks, variant.rewrites, derived.sweep_from)

            replayer = variant.replayer(("vjp", places, has_aux), make)
            held = _Held(replayer, values, seeds)
            value = held.value()
            variant.touch()
            structure = tree.structure(value[0])
            outputs = tree.leaves(value[0])

            def pullback(cotangent: Any) -> Any:
                if tree.structure(cotangent) != structure:
                    raise InputTypeError(
                        "vjp: the cotangent is not of the structure of the function's value", at=user_line()
                    )
                given = [
                    checked_seed("vjp", seed, np.shape(leaf), np.result_type(leaf)) if _takes_seed(leaf) else blank
                    for seed, leaf, blank in zip(tree.leaves(cotangent), outputs, seeds, strict=True)
                ]
                answers = [fitted(c, leaf.value) for c, leaf in zip(held.pull(given), listed, strict=True)]
                return packed(asked, indices, answers)

            return (value[0], pullback, value[1]) if has_aux else (value[0], pullback)

        def first(variant: Variant, result: Any, values: list[Any]) -> Any:
            return ready(variant, values)

        return owner.serve(call, ready, first, inline, derives=True)


def _takes_seed(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | np.generic | int | float | complex) and np.result_type(leaf).kind in "fc"


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

    def __init__(self, replayer: Replayer, values: list[Any], seeds: Sequence[Any]) -> None:
        self.replayer = replayer
        self.values = values
        self.seeds = list(seeds)
        self.lock = threading.Lock()
        self.prints = [print_of(value) for value in values]
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

    def pull(self, cotangents: list[Any]) -> list[Any]:
        """Return the cotangents of the asked-for leaves."""
        with self.lock:
            for value, seen in zip(self.values, self.prints, strict=True):
                if print_of(value) != seen:
                    raise MutationError.of("vjp of a compiled function", "an argument", at=user_line())
            filled = [*self.values, *map(native, cotangents)]
            self.replayer.advance(self.workspace, filled, 1, [])
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
            return directional.jvp(_inner(owner), primals, tangents, has_aux=has_aux)

        if call is None or any(not isinstance(x, np.ndarray) for x in directions):
            return inline()
        places = _places(call, asked, listed)

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
        owner = self.owner

        def inline() -> Any:
            return directional.hvp(_inner(owner), self.wrt)(*args, **kwargs)

        if not args:
            raise InputTypeError("hvp: the direction is missing: pass it as the last argument", at=user_line())
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
        directions = [x for _, x in sorted(zip((i for row in indices for i in row), given, strict=True), key=_first)]

        def finish(result: Any) -> Any:
            answers = [fitted(x, leaf.value) for x, leaf in zip(result, listed, strict=True)]
            return packed(asked, indices, answers)

        return _directed(owner, call, "hvp", _places(call, asked, listed), False, directions, finish, inline)


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
        return finish(replayer.template.fill(replay_with(variant, replayer, [*values, *map(native, directions)])))

    def first(variant: Variant, result: Any, values: list[Any]) -> Any:
        return finish(variant.derive(kind, places, has_aux, values, directions)[1])

    return owner.serve(call, replay, first, inline, derives=True)
