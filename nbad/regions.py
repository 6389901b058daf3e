"""Regions: a part of a function that is one node of the tape, whose values are computed again in the sweep.

Owns the recording of the part as a graph, and the pull through the graph: what is read is computed again (`nbad.recomputing`),
then comes an ordinary sweep over an ordinary tape. The function itself is called once, so a region has the same values and
takes the same branches the second time. Must not know who makes regions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nbad import tree
from nbad.config import SETTINGS
from nbad.errors import DetachError, InputTypeError, MutationError, NoRuleError, where
from nbad.keeping import run_forward, shared_values
from nbad.kernels.hashing import fingerprint
from nbad.methods import user_line
from nbad.recomputing import Plan
from nbad.recorder import add_guard
from nbad.replay.graph import ARRAY, CONTENTS, SCALAR, Graph, Guard, form_of, pruned
from nbad.replay.recording import graph_of, interpret, record, run_node
from nbad.table import Keep, Op, operation
from nbad.tape import Opaque, Tape
from nbad.trace import Traced, apply, carries_derivative, is_traced, plain, underlying
from nbad.transforms import swept
from nbad.writing import snapshot

__all__ = [
    "Region",
    "RowsByOutputs",
    "closed_over",
    "is_array",
    "members",
    "regions_of",
    "restored",
    "run_region",
]

#: The op tables count outputs in one byte.
_MOST_OUTPUTS = 255


class Region(Opaque):
    """A recorded part of a function.

    Attributes
    ----------
    graph : Graph
        What it does; the inputs are the operands of its node, the outputs are those of the node.
    """

    __slots__ = ("_lock", "_pending", "_plans", "direct", "graph", "positions", "watched")

    def __init__(self, graph: Graph, tape: Tape, pending: list[Any]) -> None:
        self.graph = graph
        self.positions = tape.lines
        self.watched = {slot: seen for slot, seen in tape.watched.items() if slot in graph.constants}
        self.direct: Callable[[Sequence[Any]], list[Any]] | None = None
        self._pending: list[Any] | None = pending
        self._plans: dict[Any, Plan] = {}
        self._lock = threading.RLock()

    def run(self, operands: Sequence[Any]) -> Any:
        """Return the outputs; those of the call that was recorded are at hand the first time."""
        found, self._pending = self._pending, None
        if found is None:
            found = interpret(self.graph, operands) if self.direct is None else self.direct(operands)
        return found[0] if len(found) == 1 else tuple(found)

    def plan(self, asked: tuple[int, ...], outs: tuple[int, ...]) -> Plan:
        """Return how to pull from the outputs `outs` to the operands `asked`."""
        with self._lock:
            found = self._plans.get((asked, outs))
            if found is None:
                found = self._plans[asked, outs] = Plan(self.graph, self.positions, self.watched, asked, outs)
        return found

    def pull(self, asked: tuple[int, ...], g: tuple[Any, ...], operands: Sequence[Any]) -> list[Any]:
        """Return the cotangents of the operands at `asked`; all are found in one sweep.

        Where somebody is watching, the pull is a region of its own: derivatives of higher order keep no more of it.
        """
        outs = tuple(i for i, one in enumerate(g) if one is not None)
        plan = self.plan(asked, outs)
        given = [*(g[i] for i in outs), *(operands[k] for k in plan.reads)]

        def here(values: Sequence[Any]) -> list[Any]:
            return self._pull(plan, dict(zip(outs, values[: len(outs)], strict=True)), values[len(outs) :])

        return run_region(here, given, direct=True) if any(map(is_traced, given)) else here(given)

    def _pull(self, plan: Plan, g: Mapping[int, Any], operands: Sequence[Any]) -> list[Any]:
        graph = self.graph
        known = dict(graph.constants)
        for k, value in zip(plan.reads, operands, strict=True):
            slot = graph.inputs[k]
            known[slot] = restored(value, graph.avals[slot][0], graph.forms[slot])
        seeds: dict[int, Any] = {}
        for i, slot in plan.seeds.items():
            seeds[slot] = seeds[slot] + g[i] if slot in seeds else g[i]
        with self._lock:
            self._check(plan)
            try:
                self._compute(plan, known)
                plan.frozen.tape.nested = any(map(is_traced, plan.frozen.tape.objects))
                return swept(plan.frozen, plan.activity, seeds, range(plan.frozen.tape.inputs))
            finally:
                plan.clear()

    def _check(self, plan: Plan) -> None:
        """Raise if a constant array was changed since it was recorded."""
        for slot in plan.watched if SETTINGS.mutation_check else ():
            before, line = self.watched[slot]
            if fingerprint(self.graph.constants[slot]) != before:
                at = where(*self.graph.lines[line]) if line >= 0 else None
                raise MutationError.of("the operation at the line below", "an array", at=at)

    def _compute(self, plan: Plan, known: dict[int, Any]) -> None:
        """Compute what the sweep reads, and nothing else."""
        graph = self.graph
        for slot, mine in plan.values.items():
            if slot in known:
                plan.fill(mine, known[slot], constant=slot in plan.constants)
        for i in plan.steps:
            node = graph.nodes[i]
            values = [known.get(slot) for slot in node.operands]
            rows = plan.shared.get(i, [])
            wanted = tuple(position for position, _ in rows)
            shared: tuple[tuple[int, Any], ...] = ()
            if i in plan.executed:
                if wanted and not any(map(is_traced, values)):
                    y, shared = run_forward(node.op, values, node.attributes, wanted)
                else:
                    y = run_node(graph, node, values)
                for slot, value in zip(node.outputs, y if node.op.outputs > 1 else (y,), strict=True):
                    known[slot] = value
                    if slot in plan.values:
                        plan.fill(plan.values[slot], value, constant=slot in plan.constants)
            else:  # what is not at hand stands there with its dtype and shape
                pairs = zip(node.operands, values, strict=True)
                values = [_blank(*graph.avals[slot]) if x is None else x for slot, x in pairs]
            if wanted and not shared:
                shared = shared_values(node.op, values, node.attributes, wanted)
            made = dict(shared)
            for position, mine in rows:
                plan.fill_shared(mine, made[position])
            for slot in plan.releases.get(i, ()):
                known.pop(slot, None)


def restored(value: Any, dtype: np.dtype[Any], form: int) -> Any:
    """Return a kept operand as it was: the tape keeps numbers without their dtype."""
    if is_traced(value) or isinstance(value, np.ndarray) or form not in (ARRAY, SCALAR):
        return value
    return np.asarray(value, dtype) if form == ARRAY else dtype.type(value)


def _blank(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), shape)


# The rows ---------------------------------------------------------------------------------------
def checkpoint_forward(*xs: Any, region: Region) -> Any:
    """Return the outputs of a region."""
    if any(map(is_traced, xs)):
        return apply(_row(len(region.graph.outputs)), *xs, region=region)
    return region.run(xs)


def checkpoint_xs(g: Any, k: int, xs: tuple[Any, ...], region: Region) -> Any:
    return region.pull((k,), members(g), xs)[0]


def members(g: Any) -> tuple[Any, ...]:
    """Return a tuple for what a rule gets of one output or of several."""
    return g if isinstance(g, tuple) else (g,)


class _Together:
    """What the pullbacks of a region do for all operands that are asked for at once."""

    def keep(self, varied: Sequence[int], attributes: Mapping[str, Any]) -> Keep:
        """Return which operands a pull to `varied` reads."""
        region: Region = attributes["region"]
        outs = tuple(range(len(region.graph.outputs)))
        return Keep(region.plan(tuple(varied), outs).reads, False, ())

    def pull(
        self, asked: Sequence[int], g: Any, operands: Sequence[Any], y: Any, attributes: Mapping[str, Any]
    ) -> Any:
        """Return the cotangents of the operands at `asked`."""
        return attributes["region"].pull(tuple(asked), members(g), operands)


class RowsByOutputs:
    """The rows of an operation of any number of operands and outputs, one for each number of outputs.

    Parameters
    ----------
    name : str
        Name of the operation.
    forward, pullback : callable
        As rules are, for operands ``*xs``.
    together : object
        Does the pullbacks of all operands that are asked for at once.
    """

    def __init__(
        self, name: str, forward: Callable[..., Any], pullback: Callable[..., Any], together: Any
    ) -> None:
        self._made = name, forward, pullback, together
        self._rows: dict[int, Op] = {}
        self._lock = threading.Lock()

    def __call__(self, outputs: int) -> Op:
        """Return the row with so many outputs."""
        with self._lock:
            found = self._rows.get(outputs)
            if found is None:
                name, forward, pullback, together = self._made
                found = operation(forward, name=name, outputs=outputs, xs=pullback)
                found.together = together
                self._rows[outputs] = found
        return found


_row = RowsByOutputs("checkpoint", checkpoint_forward, checkpoint_xs, _Together())


# Making a region ----------------------------------------------------------------------------------
def run_region(
    function: Callable[[Sequence[Any]], Any], operands: Sequence[Any], *, direct: bool = False
) -> Any:
    """Call a function as one operation.

    Parameters
    ----------
    function : callable
        Takes the list of operands and returns any container.
    operands : sequence of Traced or ndarray
        Some of them traced.
    direct : bool
        `function` may be called again, on plain operands, and is the fastest way to the outputs.

    Returns
    -------
    any
        What the function returned, its leaves traced where they depend on traced operands, or on traced values that the
        function reaches in another way.
    """
    operands = [snapshot(x) for x in operands]
    plainly = [underlying(x) for x in operands]
    result, tape = record(function, plainly, absorbs=True)
    skeleton, leaves = tree.take_apart(result)
    places = [i for i, leaf in enumerate(leaves) if type(leaf) is Traced and leaf._tape is tape]
    if not places:
        return result
    if len(places) > _MOST_OUTPUTS:
        raise InputTypeError(
            f"checkpoint: the function returns {len(places)} arrays, and a checkpoint has at most {_MOST_OUTPUTS}",
            at=user_line(),
            fix="Join some of them with np.stack.",
        )
    graph = graph_of(tape, [leaves[i]._slot for i in places])
    for slot in [slot for slot, value in graph.constants.items() if is_traced(value)]:
        operands.append(graph.constants.pop(slot))  # the function reached it by itself
        graph.inputs.append(slot)
        graph.forms[slot] = form_of(underlying(operands[-1]))
    reached = _dependence(graph)
    _check_derivatives(graph, operands, reached)
    pending = [_apart(leaves[i]._value, plainly) for i in places]
    seen = graph.guards if any(map(_recorded, operands)) else []
    graph.outputs += [guard.slot for guard in seen]
    pending += [guard.seen for guard in seen]
    graph.guards = []
    region = Region(pruned(graph), tape, pending)
    if direct and not seen:
        region.direct = _Direct(function, places)
    found = apply(_row(len(graph.outputs)), *operands, region=region)
    outputs = list(found) if len(graph.outputs) > 1 else [found]
    for guard, value in zip(seen, outputs[len(places) :], strict=True):
        _pass_on(guard, value)
    for i, slot, value in zip(places, graph.outputs, outputs, strict=False):
        leaves[i] = _settled(value, [x for k, x in enumerate(operands) if reached[slot] >> k & 1])
    return tree.assemble(skeleton, leaves)


class _Direct:
    """The outputs of a function that returns a list, by calling it."""

    def __init__(self, function: Callable[[Sequence[Any]], Any], places: list[int]) -> None:
        self.function = function
        self.places = places

    def __call__(self, operands: Sequence[Any]) -> list[Any]:
        found = self.function(operands)
        return [found[i] for i in self.places]


def _dependence(graph: Graph) -> list[int]:
    """Return for each slot on which inputs it depends by a derivative, as bits."""
    found = [0] * graph.slots
    for k, slot in enumerate(graph.inputs):
        found[slot] = 1 << k if graph.avals[slot][0].kind in "fc" else 0
    for node in graph.nodes:
        op, mask = node.op, 0
        for k, slot in enumerate(node.operands):
            name = op.operands[0 if op.variadic else k]
            if op.pullback_of(k) is not None or name in op.missing:
                mask |= found[slot]
        for slot in node.outputs:
            found[slot] = mask if graph.avals[slot][0].kind in "fc" else 0
    return found


def _check_derivatives(graph: Graph, operands: Sequence[Any], reached: list[int]) -> None:
    """Raise where a derivative would be dropped: by a conversion, or by an operation without a pullback."""
    carrying = sum(1 << k for k, x in enumerate(operands) if carries_derivative(x))
    for guard in graph.guards:
        if guard.kind == CONTENTS and reached[guard.slot] & carrying:
            raise DetachError.of(
                "a conversion to a plain number or array (float(), .item(), np.asarray() and the like)",
                at=where(*graph.lines[guard.line]) if guard.line >= 0 else None,
            )
    for node in graph.nodes:
        op = node.op
        for k, slot in enumerate(node.operands if op.missing else ()):
            name = op.operands[0 if op.variadic else k]
            if name in op.missing and reached[slot] & carrying:
                raise NoRuleError.of(
                    f"operand {name!r} of {op.name}",
                    at=where(*graph.lines[node.line]) if node.line >= 0 else None,
                    instead=f"Give it a pullback, {name}=..., or {name}=None where no derivative passes.",
                )


def _apart(value: Any, operands: Sequence[Any]) -> Any:
    """Return a result that does not share memory with an operand."""
    if not isinstance(value, np.ndarray):
        return value
    shares = any(isinstance(x, np.ndarray) and np.may_share_memory(value, x) for x in operands)
    return value.copy() if shares else value


def _recorded(value: Any) -> bool:
    """Return whether a recording watches a value, at whatever level."""
    return is_traced(plain(value))


def _pass_on(guard: Guard, value: Any) -> None:
    """Let the recording that watches the region see what Python code saw in it."""
    recorded = plain(value)
    if is_traced(recorded):
        add_guard(recorded._tape, recorded._slot, guard.kind, recorded._value)


def _settled(value: Any, operands: Sequence[Any]) -> Any:
    """Return an output without the tracing of tapes on which it depends on nothing."""
    tapes = set()
    for x in operands:
        while is_traced(x):
            tapes.add(id(x._tape))
            x = x._value
    while carries_derivative(value) and id(value._tape) not in tapes:
        value = value._value
    return value


def regions_of(graph: Graph) -> list[Region]:
    """Return the regions in a graph, also those within regions."""
    found = [node.attributes["region"] for node in graph.nodes if "region" in node.attributes]
    return [*found, *(inner for region in found for inner in regions_of(region.graph))]


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is an array that may be recorded."""
    unusual = isinstance(leaf, np.ma.MaskedArray | np.matrix)
    return isinstance(leaf, np.ndarray) and not unusual and leaf.dtype.kind in "fciub"


def closed_over(function: Any) -> list[Any]:
    """Return the leaves of what a function closes over."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            found += tree.leaves(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    return found
