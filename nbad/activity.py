"""Activity: which adjoints are needed, and which kept values a needed pullback reads.

Owns the jitted pass that turns (asked-for slots, output slots) into `needs`, one bit per edge, and the per-op
tables it consults. Nothing here looks at values.
"""

import threading
from array import array

import numpy as np

from nbad._jit import jit
from nbad.frame import bind_arrays, view_i1, view_i2, view_i4, view_i8
from nbad.keeping import root_of
from nbad.table import TABLE, Keep, Op
from nbad.tape import Frozen

#: Bits of an entry of `OpTables.reads`.
READS_OUTPUT = 1 << 16
READS_HIDDEN = 1 << 24
READS_OTHERS = 1 << 40
READS_ALL = 1 << 41

#: Kinds of ops for the sweep: on the host, elementwise, sum over all axes, same elements in another shape.
HOST_OP, ELEMENTWISE_OP, SPREAD_OP, ALIAS_OP = range(4)


class OpTables:
    """What the jitted passes know of each op, as arrays indexed by opcode; they only grow.

    Attributes
    ----------
    arity : ndarray of int64
        Operands; 0 for variadic ops.
    outputs, hidden : ndarray of uint8
        Output slots, and hidden slots of shared values after them.
    native : ndarray of uint8
        How the sweep treats the op.
    differentiable : ndarray of int64
        Bit k: operand k has a pullback (bit 7 speaks for all from 7 on).
    reads : ndarray of int64, shape (8 * ops,)
        For op and operand: what its pullback reads.
    """

    def __init__(self) -> None:
        self.arity = np.zeros(0, np.int64)
        self.outputs = np.zeros(0, np.uint8)
        self.hidden = np.zeros(0, np.uint8)
        self.native = np.zeros(0, np.uint8)
        self.differentiable = np.zeros(0, np.int64)
        self.reads = np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def cover(self) -> None:
        """Take in the rows that were added to the table since the last call."""
        if self.arity.size == len(TABLE):
            return
        with self._lock:
            # All rows are read before any array grows: an error leaves the tables as they were.
            rows = TABLE[self.arity.size :]
            reads = np.array([_reads(op, k) for op in rows for k in range(8)], np.int64)
            differentiable = np.array([_bits(op) for op in rows], np.int64)
            outputs = np.array([op.outputs for op in rows], np.uint8)
            hidden = np.array([len(op.hidden) for op in rows], np.uint8)
            native = np.array([_native(op) for op in rows], np.uint8)
            self.reads = np.concatenate([self.reads, reads])
            self.differentiable = np.concatenate([self.differentiable, differentiable])
            self.outputs = np.concatenate([self.outputs, outputs])
            self.hidden = np.concatenate([self.hidden, hidden])
            self.native = np.concatenate([self.native, native])
            arity = np.array([0 if op.variadic else len(op.operands) for op in rows], np.int64)
            self.arity = np.concatenate([self.arity, arity])


TABLES = OpTables()
#: Ops whose pullback only passes the cotangent on: name -> kind.
_NATIVE_KINDS = {"sum_all": SPREAD_OP, "reshape": ALIAS_OP}


def _native(op: Op) -> int:
    if op.elementwise and len(op.operands) <= 3:
        return ELEMENTWISE_OP
    if getattr(op.forward, "__module__", "").startswith("nbad.rules."):  # ufuncs have none
        return _NATIVE_KINDS.get(op.name, HOST_OP)
    return HOST_OP


def _bits(op: Op) -> int:
    if op.variadic:
        return 255 if op.pullbacks[0] is not None else 0
    return sum({1 << min(k, 7) for k, p in enumerate(op.pullbacks) if p is not None})


def _reads(op: Op, k: int) -> int:
    if op.variadic:
        pullback = op.pullbacks[0]
        if pullback is None:
            return 0
        keep: Keep = op.keep_variadic([0], 2)
        mask = (READS_ALL if 0 in keep.operands else 0) | (READS_OTHERS if 1 in keep.operands else 0)
    else:
        # Entry 7 speaks for all operands from 7 on; operands from 16 on have no bit of their own.
        spoken_for = [j for j in (range(7, len(op.operands)) if k == 7 else (k,)) if j < len(op.operands)]
        if all(op.pullbacks[j] is None for j in spoken_for):
            return 0
        keep = op.keep(sum(1 << j for j in spoken_for))
        mask = sum(1 << j for j in keep.operands) if max(keep.operands, default=0) < 16 else READS_ALL
    if keep.output:
        mask |= READS_OUTPUT
    for place, i in enumerate(op.hidden):
        if i in keep.shared:
            mask |= READS_HIDDEN << place
    return mask


@jit("void(int64, int64)")
def _mark(frame, nodes):
    """Fill `varied` forwards, `useful` and `needs` backwards, and mark in `read` what needed pullbacks read."""
    op, edge_start, edge_slot, out_start = (
        view_i2(frame, 0),
        view_i8(frame, 2),
        view_i4(frame, 4),
        view_i4(frame, 6),
    )
    outputs, hidden, differentiable = view_i1(frame, 8), view_i1(frame, 10), view_i8(frame, 12)
    reads, varied, useful, read = (
        view_i8(frame, 14),
        view_i1(frame, 16),
        view_i1(frame, 18),
        view_i1(frame, 20),
    )
    needs = view_i8(frame, 22)
    for node in range(nodes):
        code = np.int64(op[node])
        first = edge_start[node]
        active = False
        for edge in range(first, edge_start[node + 1]):
            slot = edge_slot[edge]
            k = edge - first if edge - first < 7 else 7
            if slot >= 0 and varied[slot] and (differentiable[code] >> k) & 1:
                active = True
        if active:
            for i in range(outputs[code]):
                varied[out_start[node] + i] = 1
    for node in range(nodes - 1, -1, -1):
        code = np.int64(op[node])
        out = np.int64(out_start[node])
        wanted = False
        for i in range(outputs[code]):
            wanted = wanted or useful[out + i] != 0
        if not wanted:
            continue
        first, last = edge_start[node], edge_start[node + 1]
        for edge in range(first, last):
            slot = edge_slot[edge]
            k = edge - first if edge - first < 7 else 7
            if slot < 0 or not varied[slot] or not (differentiable[code] >> k) & 1:
                continue
            needs[edge >> 6] |= np.int64(1) << (edge & 63)
            useful[slot] = 1
            mask = reads[8 * code + k]
            for other in range(first, last):
                if edge_slot[other] < 0:
                    continue
                if (
                    (mask >> (other - first) & 1 and other - first < 16)
                    or mask & READS_ALL
                    or (mask & READS_OTHERS and other != edge)
                ):
                    read[edge_slot[other]] = 1
            if mask & READS_OUTPUT:
                for i in range(outputs[code]):
                    read[out + i] = 1
            for i in range(hidden[code]):
                if mask & (READS_HIDDEN << i):
                    read[out + outputs[code] + i] = 1


class Activity:
    """The result of the pass over one tape.

    Attributes
    ----------
    needs : ndarray of int64
        The needs-gradient bitmask: bit ``edge & 63`` of word ``edge >> 6``.
    read : ndarray of uint8, shape (slots,)
        1 where a needed pullback reads the kept value of the slot.
    """

    __slots__ = ("needs", "read")

    def __init__(self, frozen: Frozen, asked: list[int], outputs: list[int]) -> None:
        TABLES.cover()
        varied = np.zeros(frozen.slots, np.uint8)
        useful = np.zeros(frozen.slots, np.uint8)
        self.read = np.zeros(frozen.slots, np.uint8)
        self.needs = np.zeros(frozen.edge_slot.size // 64 + 1, np.int64)
        varied[asked] = 1
        useful[outputs] = 1
        arrays = (
            frozen.op,
            frozen.edge_start,
            frozen.edge_slot,
            frozen.out_start,
            TABLES.outputs,
            TABLES.hidden,
            TABLES.differentiable,
            TABLES.reads,
            varied,
            useful,
            self.read,
            self.needs,
        )
        frame = array("q", bytes(16 * len(arrays)))
        bind_arrays(frame.buffer_info()[0], arrays)
        _mark(frame.buffer_info()[0], frozen.nodes)

    def asked(self, frozen: Frozen, node: int) -> list[int]:
        """Return the positions of the operands of `node` whose pullback is needed."""
        first, last = int(frozen.edge_start[node]), int(frozen.edge_start[node + 1])
        return [e - first for e in range(first, last) if int(self.needs[e >> 6]) >> (e & 63) & 1]


def release_unread(frozen: Frozen, activity: Activity) -> None:
    """Drop every kept value that no needed pullback reads."""
    tape = frozen.tape
    for slot in np.flatnonzero((frozen.ref != 0) & (activity.read == 0)).tolist():
        tape.objects[slot] = None
        frozen.ref[slot] = 0
        tape.watched.pop(slot, None)


def kept_bytes(frozen: Frozen) -> tuple[int, int]:
    """Return (bytes of kept values that belong to the tape, bytes of the caller's own arrays that it refers to)."""
    made: set[int] = set()  # slots that operations made; the others are inputs and constants
    for node in range(frozen.nodes):
        code, out = frozen.op[node], int(frozen.out_start[node])
        made.update(range(out, out + int(TABLES.outputs[code]) + int(TABLES.hidden[code])))
    own: dict[int, int] = {}
    borrowed: dict[int, int] = {}
    for slot in np.flatnonzero(frozen.ref).tolist():
        value = frozen.tape.objects[slot]
        if isinstance(value, np.ndarray):
            lent = slot not in made or id(root_of(value)) in frozen.tape.roots
            (borrowed if lent else own)[value.__array_interface__["data"][0]] = value.nbytes
        elif isinstance(value, tuple):
            own[slot] = sum(v.nbytes for v in value if isinstance(v, np.ndarray))
        elif hasattr(value, "nbytes"):
            own[slot] = int(value.nbytes)
    return sum(own.values()), sum(borrowed.values())
