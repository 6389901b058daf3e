"""Recording: from a Python function to a graph, and back to a function of values.

Owns the life of a recording tape, the decoding of a tape into a `Graph`, and the interpreter of graphs, which runs
each node as the function itself would have: on plain values, on recorded ones, or on values that carry a derivative. How the
gradient of a recorded function becomes a graph follows from that: record the transformation of the interpreter.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nbad.constants import OPERATORS
from nbad.errors import DetachError, NoRuleError, where
from nbad.recorder import add_value, check_constants, stored_into
from nbad.replay.graph import CONTENTS, PYTHON, Graph, Guard, Node
from nbad.table import TABLE, Op
from nbad.tape import Tape, decode, new_tape, shape_of
from nbad.trace import Traced, apply, apply_by, carries_derivative, plain

__all__ = ["DERIVED", "OtherShape", "graph_of", "interpret", "record", "run_node"]

#: The Python operators by the names of their rows: of Python's numbers they make Python's numbers.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "remainder": operator.mod,
    "negative": operator.neg,
    "positive": operator.pos,
    **{ufunc.__name__: by for by, ufunc in OPERATORS.items()},
}


#: Nodes that `interpret` records have the line ``DERIVED - line`` of the interpreted graph.
DERIVED = -2


class OtherShape(Exception):
    """A value has another shape than in the recording (``x[x > 0]``); `line` is the source line that made it."""

    def __init__(self, line: tuple[str, int]) -> None:
        super().__init__(line)
        self.line = line


def record(
    function: Callable[[list[Any]], Any], values: Sequence[Any], *, absorbs: bool = False
) -> tuple[Any, Tape]:
    """Call `function` on recorded values.

    Parameters
    ----------
    function : callable
        Takes the list of traced inputs and returns any container.
    values : sequence of ndarray, NumPy number, float or complex
        The inputs; they become the slots 0, 1, ... in this order.
    absorbs : bool
        Values that somebody else traces become constants of the recording, which he watches, and are used plainly.

    Returns
    -------
    result : any
        What the function returned, with traced values in it.
    tape : Tape
        The closed tape.

    Raises
    ------
    DetachError
        A recorded value was stored into a plain array in a way that NumPy hides.
    MutationError
        A plain array was changed after an operation had used it.
    """
    tape = new_tape()
    tape.records = True
    tape.absorbs = absorbs
    tape.inputs = len(values)
    traced = []
    for value in values:
        if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
            value = value.view(np.ndarray)  # np.memmap and the like: same memory, plain type
        traced.append(Traced(value, add_value(tape, value), tape))
    try:
        result = function(traced)
        check_constants(tape)
    except ValueError as error:
        raise stored_into(error) from None
    finally:
        tape.closed = True
    return result, tape


def graph_of(tape: Tape, outputs: Iterable[int]) -> Graph:
    """Return the graph of a recording tape.

    Parameters
    ----------
    tape : Tape
        What `record` returned.
    outputs : iterable of int
        Slots that a call returns.

    Returns
    -------
    Graph
        All nodes, also those that no output needs; dtypes are native.
    """
    avals = [(dtype.newbyteorder("="), shape) for dtype, shape in tape.avals]
    graph = Graph(
        nodes=list(_nodes(tape)),
        avals=[avals[i] for i in tape.aval],
        forms=list(tape.forms),
        inputs=list(range(tape.inputs)),
        constants={slot: _native(value) for slot, value in enumerate(tape.objects) if tape.ref[slot]},
        outputs=list(outputs),
        guards=[Guard(*guard) for guard in tape.guards],
        lines=[tape.position(line) for line in range(len(tape.lines))],
    )
    return graph


def _nodes(tape: Tape) -> Iterable[Node]:
    counts = dict(zip(tape.variadic_node, tape.variadic_count, strict=True))
    attribute_nodes = set(tape.attr_node)
    edge = position = 0
    for i, code in enumerate(tape.op):
        op = TABLE[code]
        count = counts[i] if op.variadic else len(op.operands)
        attributes = {}
        if i in attribute_nodes:
            for name in op.attributes:
                attributes[name], position = decode(tape.attr, position)
        first = tape.out_start[i]
        outputs = tuple(range(first, first + op.outputs))
        yield Node(op, tuple(tape.edge_slot[edge : edge + count]), outputs, attributes, tape.line[i])
        edge += count


def _native(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))
    return value


def interpret(
    graph: Graph,
    inputs: Sequence[Any],
    check: Callable[[Guard, Any], None] | None = None,
) -> list[Any]:
    """Run a graph on values.

    Parameters
    ----------
    graph : Graph
        What to run.
    inputs : sequence
        A value for each of the graph's inputs: plain, recorded, or carrying a derivative.
    check : callable, optional
        ``check(guard, value)`` is called for each guard before the nodes that were recorded after it run; it may raise.

    Returns
    -------
    list
        The values of the graph's outputs. Whether its guards hold is left to `check`.

    Raises
    ------
    OtherShape
        A shape depends on values and is another one than in the recording, which holds for its shapes only.
    DetachError
        The recorded function took a plain value of something that carries a derivative here.
    NoRuleError
        A derivative is asked for of an operand of a user's primitive that has no pullback.
    """
    values: list[Any] = [None] * graph.slots
    for slot, value in zip(graph.inputs, inputs, strict=True):
        values[slot] = value
    for slot, value in graph.constants.items():
        values[slot] = value
    base = _recording_of(inputs)
    waiting = list(reversed(graph.guards))
    held = {*graph.outputs, *(guard.slot for guard in graph.guards)}
    last = {slot: i for i, node in enumerate(graph.nodes) for slot in node.operands}
    for i, node in enumerate(graph.nodes):
        while waiting and waiting[-1].after <= i:
            _check_guard(graph, waiting.pop(), values, check)
        operands = [values[slot] for slot in node.operands]
        if base is not None:
            base.fixed_line = DERIVED - node.line
        y = run_node(graph, node, operands)
        for slot, value in zip(node.outputs, y if node.op.outputs > 1 else (y,), strict=True):
            if shape_of(value) != graph.avals[slot][1]:
                raise OtherShape(graph.lines[node.line] if node.line >= 0 else ("<unknown>", 0))
            values[slot] = value
        for slot in node.operands:
            if last[slot] == i and slot not in held:
                values[slot] = None  # its memory serves what comes next
    if base is not None:
        base.fixed_line = -1  # what follows is no line of the function
    for guard in reversed(waiting):
        _check_guard(graph, guard, values, check)
    return [values[slot] for slot in graph.outputs]


def _check_guard(
    graph: Graph, guard: Guard, values: list[Any], check: Callable[[Guard, Any], None] | None
) -> None:
    """Let `check` see the value of a guard before anything that relies on it runs."""
    if check is not None:
        check(guard, values[guard.slot])
    if guard.kind == CONTENTS:
        _check_detached(graph, guard, values)


def _recording_of(inputs: Sequence[Any]) -> Tape | None:
    """Return the recording tape that `inputs` end in."""
    for value in inputs:
        recorded = plain(value)
        if type(recorded) is Traced:
            found: Tape = recorded._tape
            return found
    return None


def run_node(graph: Graph, node: Node, operands: list[Any]) -> Any:
    """Run one node as the code that recorded it did."""
    op = node.op
    if op.constant:
        operands = [plain(x) for x in operands]
    elif op.missing:
        _check_missing(graph, node, operands)
    if graph.forms[node.outputs[0]] == PYTHON and op.name in _OPERATORS and op.elementwise:
        if any(type(x) is Traced for x in operands):
            return apply_by(_OPERATORS[op.name], op, *operands)
        return _OPERATORS[op.name](*operands)
    return apply(op, *operands, **node.attributes)


def _check_missing(graph: Graph, node: Node, operands: list[Any]) -> None:
    op: Op = node.op
    names = op.operands * len(operands) if op.variadic else op.operands
    for name, value in zip(names, operands, strict=True):
        if name in op.missing and carries_derivative(value):
            raise NoRuleError.of(
                f"operand {name!r} of {op.name}",
                at=where(*graph.lines[node.line]) if node.line >= 0 else None,
                instead=f"Give it a pullback, {name}=..., or {name}=None where no derivative passes.",
            )


def _check_detached(graph: Graph, guard: Guard, values: list[Any]) -> None:
    if carries_derivative(value := values[guard.slot]) and value.dtype.kind in "fc":
        raise DetachError.of(
            "a conversion to a plain number or array (float(), .item(), np.asarray() and the like)",
            at=where(*graph.lines[guard.line]) if guard.line >= 0 else None,
        )
