"""The sweep of many cotangents at once, for the rows of small matrices: a call of NumPy serves all of them.

Owns this walk, over tapes of plain ndarrays; every cotangent has one more axis in front. Rules of elementwise operations work
on that as they are, operations that move elements and products of matrices have a batched form here, and of all others the
pullback is called for each cotangent.
"""

import functools
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nbad.activity import Activity
from nbad.config import SETTINGS
from nbad.contracted import CONTRACTIONS
from nbad.pulling import pull_node
from nbad.report import current
from nbad.table import TABLE, Op
from nbad.tape import Frozen

__all__ = ["SMALL", "batch_size", "sweep_batch"]

Shape = tuple[int, ...]

#: Numbers in the largest cotangent times cotangents in a batch: they stay in the cache. Larger ones are swept one by one.
BATCH, SMALL = 1 << 16, 1 << 12


def batch_size(frozen: Frozen, activity: Activity) -> int:
    """Return how many cotangents to take at once: 1 where they are large, traced, or looked at one by one."""
    bits = np.unpackbits(activity.needs.view(np.uint8), bitorder="little")[: frozen.edge_slot.size]
    needed = frozen.edge_slot[np.flatnonzero(bits)]
    largest = int(frozen.aval_size[frozen.aval[needed]].max(initial=1))
    if frozen.tape.nested or largest > SMALL or SETTINGS.nan is not None:
        return 1
    return max(1, BATCH // max(largest, 1 << 8))


def sweep_batch(
    frozen: Frozen, activity: Activity, seeds: Mapping[int, np.ndarray], count: int, wanted: Sequence[int]
) -> list[np.ndarray]:
    """Return the cotangents of the slots `wanted`.

    Parameters
    ----------
    frozen : Frozen
        The tape; its values are plain.
    activity : Activity
        Its needs.
    seeds : dict of int to ndarray, shape (count, ...)
        Cotangents of output slots.
    count : int
        How many there are.
    wanted : sequence of int
        Slots asked for.

    Returns
    -------
    list of ndarray, shape (count, ...)
    """
    cotangents: dict[int, np.ndarray] = dict(seeds)
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
        for k, value, times in _pull(op, frozen, node, members, asked, edges, count):
            run[op.name, op.operands[0 if op.variadic else k]] += times
            slot = edges[k]
            value = _fitted(value, count, frozen.shape(slot), frozen.dtype(slot))
            cotangents[slot] = cotangents[slot] + value if slot in cotangents else value
    for listener in current():
        listener.rules_run.update(run)
    nothing = [(count, *frozen.shape(slot)) for slot in wanted]
    return [
        cotangents[slot] if slot in cotangents else np.zeros(shape, frozen.dtype(slot))
        for slot, shape in zip(wanted, nothing, strict=True)
    ]


def _pull(
    op: Op, frozen: Frozen, node: int, members: list[Any], asked: list[int], edges: list[int], count: int
) -> list[tuple[int, Any, int]]:
    """Return (operand, cotangents, calls of its pullback) for each asked operand."""
    g = members[0]
    if op.elementwise and not op.foreign:
        with np.errstate(all="ignore"):  # as in a jitted sweep
            pulled = list(pull_node(op, frozen, node, g, asked, edges, traced=True))
        return [(k, np.broadcast_to(value, g.shape), 1) for k, value in pulled]
    batched = None if op.foreign else BATCHED.get(op.name)
    if batched is not None:
        attributes = dict(zip(op.attributes, frozen.attributes(node), strict=True))
        values = [None if slot < 0 else frozen.tape.objects[slot] for slot in edges]
        shapes = [frozen.shape(slot) if slot >= 0 else () for slot, x in zip(edges, values, strict=True)]
        found = [(k, batched(g, k, values, shapes, attributes), 1) for k in asked]
        if all(x is not None for _, x, _ in found):
            return found
    made = {k: np.zeros((count, *frozen.shape(edges[k])), frozen.dtype(edges[k])) for k in asked}
    for b in range(count):
        one = tuple(None if x is None else x[b] for x in members) if op.outputs > 1 else np.asarray(g[b])
        for k, value in pull_node(op, frozen, node, one, asked, edges, traced=True):
            if value is not None:
                made[k][b] = _fitted(np.asarray(value)[None], 1, made[k].shape[1:], made[k].dtype)[0]
    return [(k, x, count) for k, x in made.items()]


def _fitted(value: Any, count: int, shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    """Return cotangents summed over the dimensions that broadcasting added, in the dtype of their slot."""
    found = np.asarray(value)
    extra = found.ndim - 1 - len(shape)
    axes = tuple(range(1, 1 + extra)) + tuple(
        1 + extra + d for d, n in enumerate(shape) if n == 1 and found.shape[1 + extra + d] != 1
    )
    if axes:
        found = found.sum(axis=axes)
    found = found.reshape((count, *shape))
    if found.dtype != dtype:
        found = (found.real if dtype.kind == "f" and found.dtype.kind == "c" else found).astype(dtype)
    return found


# Batched pullbacks of (cotangents, operand, kept values, shapes of the operands, attributes); None: this case has none --------
def _reshape(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    return g.reshape((len(g), *shapes[0]))


def _broadcast(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    return g  # summed by the caller


def _sum(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    shape = shapes[0]
    axis = attributes.get("axis")
    if axis is None:
        axis = tuple(range(len(shape)))
    kept = tuple(1 if d in axis else n for d, n in enumerate(shape))
    return np.broadcast_to(g.reshape((len(g), *kept)), (len(g), *shape))


def _transpose(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    return g.transpose((0, *(1 + int(d) for d in np.argsort(attributes["axes"]))))


def _getitem(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    y = np.zeros((len(g), *shapes[0]), g.dtype)
    y[(slice(None), *attributes["index"])] = g
    return y


def _scatter(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    found: np.ndarray = g[(slice(None), *attributes["index"])]
    return found


def _concatenate(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    axis = attributes["axis"]
    start = sum(shape[axis] for shape in shapes[:k])
    found: np.ndarray = g[(slice(None),) * (axis + 1) + (slice(start, start + shapes[k][axis]),)]
    return found


def _stack(g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> np.ndarray:
    found: np.ndarray = np.take(g, k, axis=attributes["axis"] + 1)
    return found


def _contract(op: str, g: np.ndarray, k: int, values: Any, shapes: Any, attributes: Any) -> Any:
    """Return the sum of products of the cotangents with the conjugates of the other operands."""
    labels, into = CONTRACTIONS[op](shapes, attributes)
    lengths: dict[Any, int] = {}
    for row, shape in ((into, g.shape[1:]), *zip(labels, shapes, strict=True)):
        for label, n in zip(row, shape, strict=True):
            if lengths.setdefault(label, n) != n:  # broadcast
                return None
    if len(set(labels[k])) < len(labels[k]) or len(lengths) >= len(string.ascii_letters):  # a diagonal
        return None
    letters = dict(zip(lengths, string.ascii_letters[1:], strict=False))
    rest = [j for j in range(len(labels)) if j != k]
    terms = [[letters[label] for label in row] for row in (into, *(labels[j] for j in rest))]
    factors = [g, *(np.conj(values[j]) for j in rest)]
    for label in labels[k]:
        if not any(letters[label] in term for term in terms):  # summed by itself
            terms.append([letters[label]])
            factors.append(np.ones(lengths[label]))
    terms[0].insert(0, "a")
    subscripts = ",".join(map("".join, terms)) + "->a" + "".join(letters[label] for label in labels[k])
    return np.einsum(subscripts, *factors, optimize=True)


BATCHED: dict[str, Callable[..., Any]] = {
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "sum_all": _sum,
    "sum": _sum,
    "transpose": _transpose,
    "getitem": _getitem,
    "scatter": _scatter,
    "concatenate": _concatenate,
    "stack": _stack,
    **{op: functools.partial(_contract, op) for op in ("matmul", "tensordot", "outer", "einsum")},
}
