"""Graphs of transformations, derived from the graph of a function.

Owns how a gradient (vjp, jvp, hvp) of a recorded function becomes a graph of its own: the ordinary transformation runs on
recorded values, over an interpreter of the function's graph. The function itself is not called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad import tree
from nbad.directional import hvp, jvp
from nbad.kernels import memory
from nbad.replay.graph import TRUTH, Graph, Guard
from nbad.replay.recording import DERIVED, OtherShape, graph_of, interpret, record
from nbad.signatures import Template, copied, taken_from
from nbad.trace import is_traced
from nbad.transforms import value_and_grad, vjp

__all__ = ["Derived", "GuardFailed", "Inline", "Primal", "answer", "derive", "pulled", "record_primal"]


class Inline(Exception):
    """The function reached a value that somebody else traces: it can only be called, not recorded."""


class GuardFailed(Exception):
    """The inputs take another branch than the recording; `line` is the source line that saw it."""

    def __init__(self, line: tuple[str, int]) -> None:
        super().__init__(line)
        self.line = line


@dataclass(slots=True, eq=False)
class Primal:
    """A recorded function: its graph and what it returns."""

    graph: Graph
    template: Template


@dataclass(slots=True, eq=False)
class Derived:
    """A recorded transformation: its graph, what it returns, and the position of the first node of a sweep."""

    graph: Graph
    template: Template
    sweep_from: int


def record_primal(
    function: Callable[[list[Any]], Any],
    values: Sequence[Any],
    rewrite: Callable[[Graph], Graph],
) -> tuple[Primal, Any]:
    """Call `function` on recorded values.

    Parameters
    ----------
    function : callable
        Takes the list of inputs.
    values : sequence
        The inputs.
    rewrite : callable
        What is done to the graph before anything is derived from it.

    Returns
    -------
    primal : Primal
        The recording.
    result : any
        What the function returned, the caller's own.

    Raises
    ------
    Inline
        The function reached a value that somebody else traces.
    """
    result, tape = record(function, values)
    if tape.nested:
        raise Inline
    template, slots, found = taken_from(result, tape)
    graph = rewrite(graph_of(tape, slots))
    return Primal(graph, template), template.fill([copied(value) for value in found])


def derive(
    primal: Primal,
    kind: str,
    places: Sequence[int],
    values: Sequence[Any],
    extra: Sequence[Any],
    has_aux: bool,
) -> tuple[Derived, Any]:
    """Record a transformation of `primal`.

    Parameters
    ----------
    primal : Primal
        The recorded function.
    kind : str
        "grad" (value and gradient), "vjp", "jvp" or "hvp".
    places : sequence of int
        Which of the inputs are asked for.
    values : sequence
        Inputs of the function.
    extra : sequence
        Cotangents (vjp), tangents (jvp) or directions (hvp).
    has_aux : bool
        The function returns a pair whose second member is not differentiated.

    Returns
    -------
    derived : Derived
        Its graph; the results are ``(value, tuple of gradients)`` for "grad", ``(value, tuple of cotangents)`` for "vjp",
        ``(value, tangents)`` for "jvp" and a tuple for "hvp".
    result : any
        Its result for these inputs, the caller's own.

    Raises
    ------
    GuardFailed
        The inputs take another branch than the recording.
    """
    seen: list[Any] = []
    begun = [0]

    def transformed(traced: list[Any]) -> Any:
        def run(inputs: list[Any]) -> Any:
            found, seen[:] = _interpreted(primal, inputs)
            begun[:] = [len(traced[0]._tape.op) if traced else 0]
            return found

        return _transformed(kind, traced[: len(values)], traced[len(values) :], places, has_aux, run)

    result, tape = record(transformed, [*values, *extra])
    template, slots, found = taken_from(result, tape)
    graph = graph_of(tape, slots)
    _take_guards(graph, tape, primal.graph, seen)
    memory.clear()  # what the values between took, before the results are copied
    return Derived(graph, template, begun[0]), template.fill([copied(value) for value in found])


def answer(
    primal: Primal,
    kind: str,
    places: Sequence[int],
    values: Sequence[Any],
    extra: Sequence[Any],
    has_aux: bool,
) -> Any:
    """Return what `derive` would, for the inputs of the recording, without deriving anything.

    A function that is called once then costs no more than a recording and a plain sweep. What a sweep makes is the caller's own
    anyhow; what the function returned may be memory of the inputs.

    Raises
    ------
    GuardFailed
        The function sees something else the second time it runs, for the same inputs.
    """

    def run(inputs: list[Any]) -> Any:
        return _interpreted(primal, inputs)[0]

    result = _transformed(kind, values, extra, places, has_aux, run)
    if kind == "hvp":
        return result
    value, found, *aux = result
    return tree.map_leaves(copied, value), found, *tree.map_leaves(copied, aux)


def pulled(
    primal: Primal, places: Sequence[int], values: Sequence[Any], has_aux: bool
) -> tuple[Any, Callable[[Any], tuple[Any, ...]], list[Any]]:
    """Return value, pullback and aux (in a list) for the inputs of the recording, as `answer` does for other transformations.

    Raises
    ------
    GuardFailed
        As in `answer`.
    """

    def run(inputs: list[Any]) -> Any:
        return _interpreted(primal, inputs)[0]

    value, pullback, *aux = _pullback(values, places, has_aux, run)
    return tree.map_leaves(copied, value), pullback, tree.map_leaves(copied, aux)


def _interpreted(primal: Primal, inputs: list[Any]) -> tuple[Any, list[Any]]:
    """Return what the recorded function returns for `inputs`, and what its guards see.

    Raises
    ------
    GuardFailed
        A guard sees something else than in the recording, or a value has another shape.
    """

    def check(guard: Guard, value: Any) -> None:
        _check_same(primal.graph, guard, value)

    outputs = len(primal.graph.outputs)
    watched = primal.graph.copy()
    watched.outputs = [*watched.outputs, *(guard.slot for guard in watched.guards)]
    try:
        found = interpret(watched, inputs, check)
    except OtherShape as other:
        raise GuardFailed(other.line) from None
    return primal.template.fill(found[:outputs]), found[outputs:]


def _transformed(
    kind: str,
    inputs: Sequence[Any],
    extra: Sequence[Any],
    places: Sequence[int],
    has_aux: bool,
    run: Callable[[list[Any]], Any],
) -> Any:
    """Return a transformation of ``run(inputs)``."""
    if kind == "vjp":
        value, pullback, *aux = _pullback(inputs, places, has_aux, run)
        return (value, *aux), pullback(tree.rebuild(value, extra))
    function, asked, each = _asked_for(inputs, places, run)
    if kind == "grad":
        return value_and_grad(function, each, has_aux=has_aux)(*asked)
    if kind == "jvp":
        return jvp(function, tuple(asked), tuple(extra), has_aux=has_aux)
    return hvp(function, each)(*asked, tuple(extra))


def _pullback(
    inputs: Sequence[Any], places: Sequence[int], has_aux: bool, run: Callable[[list[Any]], Any]
) -> Any:
    """Return what `vjp` of ``run(inputs)`` does; the pullback gives a tuple, with a member for each place."""
    function, asked, each = _asked_for(inputs, places, run)
    return vjp(function, *asked, wrt=each, has_aux=has_aux)


def _asked_for(
    inputs: Sequence[Any], places: Sequence[int], run: Callable[[list[Any]], Any]
) -> tuple[Callable[..., Any], list[Any], tuple[tuple[int], ...]]:
    """Return ``run(inputs)`` as a function of the inputs at `places`, these inputs, and the `wrt` that asks for each."""

    def function(*asked: Any) -> Any:
        filled = list(inputs)
        for place, value in zip(places, asked, strict=True):
            filled[place] = value
        return run(filled)

    return function, [inputs[place] for place in places], tuple((k,) for k in range(len(places)))


def _check_same(primal: Graph, guard: Guard, value: Any) -> None:
    """Raise `GuardFailed` if a guard sees something else than in the recording of the function."""
    while is_traced(value):
        value = value._value
    now = bool(value) if guard.kind == TRUTH else np.asarray(value)
    if not same(now, guard.seen):
        raise GuardFailed(primal.lines[guard.line] if guard.line >= 0 else ("<unknown>", 0))


def _take_guards(graph: Graph, tape: Any, primal: Graph, seen: list[Any]) -> None:
    """Give a derived graph the guards of the function, with their source lines.

    Raises
    ------
    GuardFailed
        A guard sees something else than in the recording of the function.
    """
    offset = len(graph.lines)
    graph.lines = [*graph.lines, *primal.lines]
    for node in graph.nodes:
        if node.line <= DERIVED:
            line = DERIVED - node.line
            node.line = line + offset if line >= 0 else -1
    makers = graph.makers()
    for guard, value in zip(primal.guards, seen, strict=True):
        while is_traced(value) and value._tape is not tape:
            value = value._value
        slot = value._slot if is_traced(value) else None
        _check_same(primal, guard, value)
        if slot is not None:
            line = guard.line + offset if guard.line >= 0 else -1
            graph.guards.append(Guard(slot, guard.kind, guard.seen, line, makers.get(slot, -1) + 1))
    graph.guards.sort(key=lambda guard: guard.after)


def same(a: Any, b: Any) -> bool:
    """Return whether two guards saw the same, to the bit."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return bool(a.dtype == b.dtype) and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and bool(a == b)
