"""Which input numbers each number of a recorded call depends on.

Owns the dependence of each kind of operation: elementwise ones, those that move elements, reductions, contractions and windows
are exact; whatever is not listed here lets every output depend on every element of its operands. A pattern is a matrix of truth
values (``scipy.sparse.csr_array``) with a row for each number of a slot and a column for each number of the asked-for leaves.
"""

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nbad.contracted import CONTRACTIONS
from nbad.errors import InputTypeError, where
from nbad.methods import user_line
from nbad.pulling import pull_node
from nbad.recorded import Recorded
from nbad.table import TABLE, Op

__all__ = ["pattern_of", "sparse_module"]

Shape = tuple[int, ...]
#: A selection: rows are numbers of the output, columns numbers of one operand; None where they correspond one to one.
Selection = Any

#: Entries from which a matrix is not worth being sparse.
LIMIT = 1 << 28

#: Same element in, same element out, besides the rows that are marked as elementwise.
SAME = frozenset({"astype", "number", "complex_absolute"})
#: The output holds elements of the operand and zeros: they are found by numbering those of the operand.
TAKING = frozenset({"gather", "tile", "repeat", "segments", "patches"})
#: Each element of the operand, broadcast, goes to at most one place of the output: found by numbering the elements of the
#: output and pulling the numbers back.
PUTTING = frozenset({
    "reshape", "transpose", "broadcast_to", "concatenate", "stack", "getitem", "scatter", "scatter_add", "write", "write_at",
    "diagonal", "embed_diagonal", "flip", "roll", "pad", "resize", "overlap_add", "patches_add",
})  # fmt: skip
REDUCTIONS = frozenset({
    "sum_all", "sum", "prod", "max", "min", "logaddexp_reduce", "var", "std", "norm", "p_norm",
})  # fmt: skip
RUNNING = frozenset({"cumsum", "cumprod", "recurrence"})
#: Everything along some axes, nothing across the others.
ALONG = frozenset({"c2c", "r2c_full", "c2r_full", "r2c", "c2r", "real_transform", "filter_by_spectrum"})
#: Everything of each matrix of a stack.
MATRICES = frozenset({
    "inv", "det", "slogdet", "cholesky", "qr", "svd", "svdvals", "eig", "eigh", "eigvalsh", "pinv", "cofactors",
})  # fmt: skip


def sparse_module() -> Any:
    """Return `scipy.sparse`; raise where SciPy is not installed."""
    try:
        import scipy.sparse
    except ImportError:
        raise InputTypeError(
            "sparse=True needs SciPy, which is not installed", at=user_line(), fix="pip install scipy"
        ) from None
    return scipy.sparse


def pattern_of(run: Recorded) -> Any:
    """Return what each number of the outputs depends on.

    Parameters
    ----------
    run : Recorded
        A recording.

    Returns
    -------
    csr_array of bool, shape (numbers in the outputs, numbers in the asked-for leaves)
        True where the derivative may differ from 0. It holds for this call: another one may take another branch.

    Raises
    ------
    InputTypeError
        Without SciPy, and where an operation makes the pattern too large to be of use.
    """
    return _Propagation(run).result()


class _Propagation:
    """One walk over a tape, forwards."""

    def __init__(self, run: Recorded) -> None:
        self.run = run
        self.frozen = run.frozen
        self.sparse = sparse_module()
        frozen = self.frozen
        sizes = [math.prod(frozen.shape(slot)) for slot in range(len(run.listed))]
        self.width = sum(sizes)
        whole = self.sparse.eye_array(self.width, dtype=bool, format="csr")
        starts = np.cumsum([0, *sizes])
        self.known = {i: whole[starts[i] : starts[i + 1]] for i in range(len(sizes))}

    def result(self) -> Any:
        run, frozen = self.run, self.frozen
        activity = run.activity(run.live, range(len(run.listed)))
        needed = [
            (node, asked)
            for node in _nodes_needed(frozen, activity)
            if (asked := activity.asked(frozen, node))
        ]
        last = {frozen.edges(node)[k]: node for node, asked in needed for k in asked}
        kept = {slot for slot in run.slots if slot is not None}
        for node, asked in needed:
            self._step(node, asked)
            for slot in {frozen.edges(node)[k] for k in asked}:
                if last[slot] == node and slot not in kept:
                    self.known.pop(slot, None)
        parts = [
            self._nothing(np.size(leaf) if slot is None else math.prod(frozen.shape(slot)))
            if slot is None or slot not in self.known
            else self.known[slot]
            for slot, leaf in zip(run.slots, run.outputs, strict=True)
        ]
        if not parts:
            return self._nothing(0)
        return self.sparse.csr_array(self.sparse.vstack(parts, format="csr", dtype=bool))

    def _nothing(self, rows: int) -> Any:
        return self.sparse.csr_array((rows, self.width), dtype=bool)

    def _step(self, node: int, asked: list[int]) -> None:
        """Find the pattern of the outputs of a node from those of its operands."""
        frozen = self.frozen
        op, edges, out = TABLE[frozen.op[node]], frozen.edges(node), int(frozen.out_start[node])
        for slot in range(out, out + op.outputs):
            found: Any = None
            for k in asked:
                before = self.known.get(edges[k])
                if before is None:
                    continue
                pattern = self._through(op, node, k, slot, before)
                if found is None or found is pattern:
                    found = pattern
                else:
                    found = found + pattern
            if found is not None:
                self.known[slot] = found

    def _through(self, op: Op, node: int, k: int, slot: int, before: Any) -> Any:
        frozen = self.frozen
        shape, operand = frozen.shape(slot), frozen.shape(frozen.edges(node)[k])
        size = math.prod(shape)
        if op.elementwise or op.name in SAME:
            factors = [_factor(m, n) for m, n in zip(shape, _aligned(operand, len(shape)), strict=True)]
            selection = self._joined(node, factors)
        elif op.name == "njit":
            selection = self._of_kernel(node, k, slot, (size, math.prod(operand)))
        elif not op.foreign:
            selection = self._selection(op, node, k, slot, operand)
        else:
            selection = self._all(node, size, math.prod(operand))
        return before if selection is None else self._times(node, selection, before)

    def _of_kernel(self, node: int, k: int, slot: int, shape: Shape) -> Selection:
        """Return what the tape of a kernel says."""
        frozen = self.frozen
        operands = [frozen.tape.objects[edge] if edge >= 0 else None for edge in frozen.edges(node)]
        found = frozen.attributes(node)[0].term.dependence(k, slot - int(frozen.out_start[node]), operands)
        if found is None:
            return self._all(node, *shape)
        if len(found) == 2:
            return self.sparse.csr_array((np.ones(found[0].size, bool), found), shape)
        sets = [
            self.sparse.csr_array((np.ones(numbers.size, bool), numbers, ends), (ends.size - 1, size))
            for ends, numbers, size in zip(found[::2], found[1::2], shape, strict=True)
        ]
        if np.dot(*(np.diff(one.indptr).astype(float) for one in sets)) > LIMIT:
            return self._all(node, *shape)
        return self.sparse.csr_array(sets[0].T @ sets[1])

    def _selection(self, op: Op, node: int, k: int, slot: int, operand: Shape) -> Selection:
        """Return what each element of the output `slot` depends on, of operand `k`."""
        frozen, name = self.frozen, op.name
        shape = frozen.shape(slot)
        attributes = dict(zip(op.attributes, frozen.attributes(node), strict=True))
        if name in TAKING and k == 0:
            return self._taken(op, node, operand, attributes)
        if name in PUTTING:
            numbers = np.arange(1.0, 1.0 + math.prod(shape)).reshape(shape)
            if frozen.dtype(slot).kind == "c":  # a write may concern one part only
                numbers = numbers * (1 + 1j)
            edges = frozen.edges(node)
            ((_, value),) = pull_node(op, frozen, node, numbers, [k], edges, traced=True)
            source = np.broadcast_to(np.arange(math.prod(operand)).reshape(operand), np.shape(value))
            target = np.ravel(np.maximum(np.real(value), np.imag(value))).astype(np.int64)
            met = target > 0
            return self._pairs(math.prod(shape), math.prod(operand), target[met] - 1, source.ravel()[met])
        if name in REDUCTIONS:
            reduced = _axes(attributes.get("axis"), len(operand))
            return self._joined(
                node, [np.ones((1, n), bool) if d in reduced else n for d, n in enumerate(operand)]
            )
        if name in RUNNING and operand == shape:
            (axis,) = _axes(attributes["axis"], len(shape))
            steps = np.tri(shape[axis], dtype=bool)
            steps = steps.T if attributes.get("reverse") else steps
            return self._joined(node, [steps if d == axis else n for d, n in enumerate(shape)])
        if name in ALONG and k == 0 and len(operand) == len(shape):
            axes = _axes(attributes["axes"], len(shape))
            pairs = enumerate(zip(shape, operand, strict=True))
            return self._joined(
                node, [np.ones((m, n), bool) if d in axes else _factor(m, n) for d, (m, n) in pairs]
            )
        shapes = [frozen.shape(edge) if edge >= 0 else None for edge in frozen.edges(node)]
        if name == "filter" and None not in shapes:
            return self._joined(node, _windows(k, shapes, shape, attributes))
        if name in CONTRACTIONS and None not in shapes:
            labels, into = CONTRACTIONS[name](shapes, attributes)
            return self._contracted(node, into, shape, labels[k], operand)
        if name in MATRICES and k == 0:
            stack = tuple(range(len(operand) - 2))
            into = (*stack, *(("out", d) for d in range(len(shape) - len(stack))))
            return self._contracted(node, into, shape, (*stack, "i", "j"), operand)
        return self._all(node, math.prod(shape), math.prod(operand))

    # Selections -----------------------------------------------------------------------------------

    def _pairs(self, rows: int, columns: int, i: np.ndarray, j: np.ndarray) -> Selection:
        return self.sparse.csr_array((np.ones(i.size, bool), (i, j)), (rows, columns))

    def _taken(self, op: Op, node: int, operand: Shape, attributes: dict[str, Any]) -> Selection:
        frozen = self.frozen
        numbers = np.arange(1.0, 1.0 + math.prod(operand)).reshape(operand)
        kept = frozen.tape.objects[int(frozen.out_start[node]) + 1] if op.hidden else ()  # the places taken
        rest = kept if isinstance(kept, tuple) else (kept,)
        source = np.ravel(op.forward(numbers, *rest, **attributes)).astype(np.int64)
        target = np.flatnonzero(source)
        return self._pairs(source.size, math.prod(operand), target, source[target] - 1)

    def _joined(self, node: int, factors: Sequence[Any]) -> Selection:
        """Return the Kronecker product of what happens along each axis: a matrix, or a length where nothing happens."""
        if all(isinstance(factor, int) for factor in factors):
            return None
        entries = math.prod(f if isinstance(f, int) else int(np.count_nonzero(f)) for f in factors)
        self._check(node, entries)
        sparse = self.sparse
        made = [
            sparse.eye_array(f, dtype=bool, format="csr") if isinstance(f, int) else sparse.csr_array(f)
            for f in factors
        ]
        return functools.reduce(functools.partial(sparse.kron, format="csr"), made)

    def _contracted(
        self, node: int, into: Sequence[Hashable], shape: Shape, labels: Sequence[Hashable], operand: Shape
    ) -> Selection:
        """Return the pairs of elements that agree in the labels of their axes."""
        lengths: dict[Hashable, int] = {}
        for label, n in (*zip(into, shape, strict=True), *zip(labels, operand, strict=True)):
            lengths[label] = max(n, lengths.get(label, n)) if lengths.get(label, n) and n else 0
        self._check(node, math.prod(lengths.values()))
        place = {label: d for d, label in enumerate(lengths)}
        both = []
        for names, sizes in ((into, shape), (labels, operand)):
            number, stride = np.zeros((1,) * len(place), np.int64), 1
            for label, n in zip(reversed(names), reversed(sizes), strict=True):
                along = np.ones(len(place), np.int64)
                along[place[label]] = lengths[label]
                if n > 1:  # one of length 1 is broadcast
                    number = number + stride * np.arange(lengths[label]).reshape(along)
                stride *= n
            both.append(np.broadcast_to(number, tuple(lengths.values())).ravel())
        return self._pairs(math.prod(shape), math.prod(operand), *both)

    def _all(self, node: int, rows: int, columns: int) -> Selection:
        self._check(node, max(rows, columns))
        return (rows, columns)

    def _times(self, node: int, selection: Selection, before: Any) -> Any:
        if not isinstance(selection, tuple):
            return selection @ before
        # Every row is the union of all rows.
        union = np.unique(before.indices)
        rows = selection[0]
        self._check(node, rows * union.size)
        start = np.arange(rows + 1) * union.size
        entries = np.ones(rows * union.size, bool)
        return self.sparse.csr_array((entries, np.tile(union, rows), start), (rows, self.width))

    def _check(self, node: int, entries: int) -> None:
        if entries <= LIMIT:
            return
        line = where(*self.frozen.tape.position(int(self.frozen.tape.line[node])))
        raise InputTypeError(
            f"sparse=True: after {TABLE[self.frozen.op[node]].name} nearly everything depends on everything "
            f"({entries} entries)",
            at=line,
            fix="Use products instead of the matrix: nbad.linearize, nbad.vjp, nbad.hvp.",
        )


def _nodes_needed(frozen: Any, activity: Any) -> list[int]:
    """Return the nodes of which a pullback is needed."""
    bits = np.unpackbits(activity.needs.view(np.uint8), bitorder="little")[: frozen.edge_slot.size]
    edges = np.flatnonzero(bits)
    nodes: list[int] = np.unique(np.searchsorted(frozen.edge_start, edges, side="right") - 1).tolist()
    return nodes


def _aligned(shape: Shape, ndim: int) -> Shape:
    return (1,) * (ndim - len(shape)) + shape


def _factor(rows: int, columns: int) -> Any:
    """Return what an axis of an operand gives to one of the output: itself, or its only element repeated."""
    return rows if rows == columns else np.ones((rows, columns), bool)


def _axes(axis: Any, ndim: int) -> Shape:
    """Return axes counted from the front; None is all of them."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(int(a) % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _windows(k: int, shapes: Sequence[Any], shape: Shape, attributes: dict[str, Any]) -> list[Any]:
    """Return what each axis of a convolution gives: an element of one operand meets the extent of the other one."""
    operand, other = shapes[k], shapes[1 - k]
    ndim = len(shape)
    axes = _axes(attributes["axes"], ndim)
    factors: list[Any] = []
    for d, (m, n) in enumerate(zip(shape, _aligned(operand, ndim), strict=True)):
        if d not in axes:
            factors.append(_factor(m, n))
            continue
        i = axes.index(d)
        box = attributes["lengths"][i]
        starts = [attributes[name][i] for name in ("u_start", "v_start")]
        y = (np.arange(m) + attributes["out_start"][i])[:, None]
        x = np.arange(n)[None, :] + starts[k]
        # y = u + v in the box, or y = u - v for a correlation; v is then read backwards.
        lag = (x - y if k == 0 else y + x) if attributes["conj"] else y - x
        factors.append((lag - starts[1 - k]) % box < _aligned(other, ndim)[d])
    return factors
