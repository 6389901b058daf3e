"""The sweep of a nested transformation: rules run on traced values, in Python, over the same tape and the same needs.

Owns nothing but this walk. It is used when an outer transformation is watching, so that the sweep itself is recorded; a
tape of plain ndarrays comes here only where every cotangent is looked at (``config(nan="raise")``).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbad.activity import Activity
from nbad.config import SETTINGS
from nbad.engine import sum_to
from nbad.errors import where
from nbad.finite import checked_pullbacks
from nbad.keeping import check_watched
from nbad.pulling import pull_node
from nbad.report import current
from nbad.table import TABLE
from nbad.tape import Frozen
from nbad.trace import cast, is_traced
from nbad.writing import snapshot


def sweep_traced(
    frozen: Frozen, activity: Activity, seeds: dict[int, Any], wanted: Iterable[int]
) -> list[Any]:
    """Return the cotangents of the slots `wanted`; values and seeds may be traced by an outer transformation.

    Parameters
    ----------
    frozen : Frozen
        The tape.
    activity : Activity
        Its needs.
    seeds : dict of int to ndarray or Traced
        Cotangents of output slots.
    wanted : iterable of int
        Slots asked for.
    """
    if SETTINGS.mutation_check and frozen.tape.watched:
        check_watched(frozen.tape, list(frozen.tape.watched))
    cotangents: dict[int, Any] = dict(seeds)
    run: Counter[tuple[str, str]] = Counter()
    for node in range(frozen.nodes - 1, -1, -1):
        asked = activity.asked(frozen, node)
        if not asked:
            continue
        op = TABLE[frozen.op[node]]
        out = int(frozen.out_start[node])
        members = [cotangents.pop(out + i, None) for i in range(op.outputs)]
        if all(g is None for g in members):
            continue
        edges = frozen.edges(node)
        g = tuple(members) if op.outputs > 1 else members[0]
        number = _repeated(g) if op.elementwise else None
        if number is not None:
            g = number
        pulled = pull_node(op, frozen, node, g, asked, edges, traced=True)
        if SETTINGS.nan is not None:
            line = where(*frozen.tape.position(int(frozen.tape.line[node])))
            pulled = checked_pullbacks(op, g, line, pulled)
        for k, value in pulled:
            operand = op.operands[0 if op.variadic else k]
            run[op.name, operand] += 1
            if value is None:
                continue
            slot = edges[k]
            if number is not None and np.shape(value) != frozen.shape(out):
                value = np.broadcast_to(value, frozen.shape(out))
            value = _fitted(frozen, slot, value, op.name, operand, node)
            cotangents[slot] = value if slot not in cotangents else cotangents[slot] + value
    for listener in current():
        listener.rules_run.update(run)
    return [_finished(frozen, slot, cotangents.get(slot)) for slot in wanted]


def _repeated(g: Any) -> np.ndarray | None:
    """Return, with as many dimensions, the plain number that a cotangent is everywhere, as that of a sum; None if it is not.

    What rules make of the whole array would be a constant of a recording, for good.
    """
    if type(g) is not np.ndarray or g.size < 2 or any(g.strides):
        return None
    return g[(slice(0, 1),) * g.ndim]


def _fitted(frozen: Frozen, slot: int, value: Any, op: str, operand: str, node: int) -> Any:
    """Return a rule's result with the shape and dtype of its slot."""
    line = int(frozen.tape.line[node])
    value = sum_to(value, frozen.shape(slot), op, operand, lambda: where(*frozen.tape.position(line)))
    dtype = frozen.dtype(slot)
    found = value.dtype if hasattr(value, "dtype") else np.result_type(value)
    if found != dtype:
        if dtype.kind == "f" and found.kind == "c":
            value = np.real(value)
        value = cast(value, dtype)
    return value


def _finished(frozen: Frozen, slot: int, value: Any) -> Any:
    if value is None:
        return np.zeros(frozen.shape(slot), frozen.dtype(slot))
    return snapshot(value) if is_traced(value) else np.array(value)
