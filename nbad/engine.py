"""The sweep: drives the jitted loop and does for it what only Python can.

Owns the cotangents of one sweep: buffers, who may write into them, the host steps (rules that run on ndarrays), large runs
that fan out over the thread pool, and the accounts. The loop over nodes is jitted (`nbad.loops.advance`).
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbad import frame as F
from nbad import loops
from nbad.activity import TABLES, Activity
from nbad.config import SETTINGS
from nbad.errors import KernelError, RuleError, where
from nbad.frame import NAMES, bind_arrays, point
from nbad.keeping import check_watched
from nbad.kernels import block, memory, threads
from nbad.loops import DONE, HOST_NODE, LARGE_RUN, NEED_ARENA, NEED_SCRATCH, PAUSE
from nbad.plan import FAILED, NEED_CONVERT, NEED_KERNEL, NEED_TEMPLATE
from nbad.program import PROGRAMS
from nbad.pulling import Cleared, Scattered, pull_node
from nbad.report import current
from nbad.table import TABLE
from nbad.tape import Frozen, shape_of

_ARENA = 1 << 16
#: Elements of one piece of a large run; a function of the plan only, so sums do not depend on the number of threads.
_PIECE = 1 << 15


class _Workspace:
    """Work arrays of one sweep at a time; kept for the next one."""

    def __init__(self) -> None:
        registers = F.REGISTER_LIMIT
        self.frame = np.zeros(2 * len(NAMES), np.int64)
        self.address = int(self.frame.ctypes.data)
        self.info = np.zeros(F.INFO_SIZE, np.int64)
        self.outs = np.zeros(F.OUT_WIDTH * registers, np.int64)
        self.v_address = np.zeros(registers, np.int64)
        self.released = np.zeros(registers, np.int32)
        self.converted = np.zeros(3 * 64, np.int64)
        self.scratch = np.zeros(1 << 18, np.uint8)
        self.fixed: dict[str, np.ndarray] = {
            "rows": np.zeros(5 * registers, np.int32),
            "v_kind": np.zeros(registers, np.uint8),
            "v_address": self.v_address,
            "v_last": np.zeros(registers, np.int32),
            "v_place": np.zeros(registers, np.int32),
            "v_slot": np.zeros(registers, np.int32),
            "numbers": np.zeros(2 * registers, np.float64),
            "loads": np.zeros(F.LOAD_WIDTH * registers, np.int64),
            "touched": np.zeros(registers, np.int32),
            "seen": np.zeros(registers, np.int32),
            "outs": self.outs,
            "released": self.released,
            "info": self.info,
            "free": np.zeros(registers, np.int32),
            "visited": np.zeros(registers, np.int32),
        }
        for name, array in self.fixed.items():
            point(self.frame, name, array)


_idle: list[_Workspace] = []
_local_scratch = threading.local()


def _scratch(nbytes: int) -> np.ndarray:
    """Return scratch memory of this thread, at least `nbytes` long."""
    found: np.ndarray | None = getattr(_local_scratch, "block", None)
    if found is None or found.size < nbytes:
        found = _local_scratch.block = np.empty(nbytes, np.uint8)
    return found


def _count_single() -> int:
    """Return what `sys.getrefcount` says of an object that only a dict refers to."""
    held = {0: np.empty(1)}
    return sys.getrefcount(held[0])


_SINGLE = _count_single()


def _aligned(array: np.ndarray) -> int:
    address = int(array.ctypes.data)
    return address + -address % 64


class Sweep:
    """One backward sweep over a frozen tape whose values are plain ndarrays."""

    def __init__(self, frozen: Frozen, activity: Activity) -> None:
        self.frozen = frozen
        self.activity = activity
        self.objects: dict[int, np.ndarray] = {}
        self.owned: set[int] = set()
        self.home: dict[int, int] = {}  # the last slot of each array in `objects`, by its id
        self.arenas: list[np.ndarray] = []
        self.conversions: list[np.ndarray] = []

    def run(self, seeds: dict[int, np.ndarray], wanted: Iterable[int]) -> list[np.ndarray]:
        """Return the cotangents of the slots `wanted`, given those of the outputs.

        The results are writable and share memory with nothing.
        """
        if SETTINGS.mutation_check and self.frozen.tape.watched:
            check_watched(self.frozen.tape, list(self.frozen.tape.watched))
        try:
            self.space = _idle.pop()
        except IndexError:
            self.space = _Workspace()
        try:
            self._enter()
            for slot, seed in seeds.items():
                self._put(slot, seed, owned=False)
            self._sweep()
            results = [self._result(slot) for slot in wanted]
            self._account()
        finally:
            _idle.append(self.space)
        return results

    def _enter(self) -> None:
        """Fill the frame."""
        frozen, space = self.frozen, self.space
        slots = frozen.slots
        self.cot_kind = np.zeros(slots, np.uint8)
        self.cot_address = np.zeros(slots, np.int64)
        self.counts = np.zeros(8 * len(TABLE), np.int64)
        PROGRAMS.cover(len(TABLE))
        self.held = (  # the order of `frame.NAMES`
            frozen.op,
            frozen.edge_start,
            frozen.edge_slot,
            frozen.out_start,
            frozen.aval,
            frozen.ref,
            frozen.scalar,
            frozen.aval_dtype,
            frozen.aval_ndim,
            frozen.aval_size,
            frozen.aval_start,
            frozen.aval_shape,
            self.activity.needs,
            self.cot_address,
            self.cot_kind,
            np.full(slots, -1, np.int32),
            np.full(slots, -1, np.int32),
            TABLES.native,
            TABLES.outputs,
            self.counts,
            space.converted,
            block.ADDRESS,
            F.ENTRIES,
            *PROGRAMS.arrays(),
        )
        bind_arrays(space.address, self.held)
        space.info[F.CONVERTED] = 0
        space.info[F.ARENA] = space.info[F.ARENA_END] = 0
        space.info[F.SCRATCH] = _aligned(space.scratch)
        space.info[F.SCRATCH_BYTES] = space.scratch.size - 64

    def _point_programs(self) -> None:
        arrays = PROGRAMS.arrays()
        self.programs = arrays  # keeps them alive
        for name, values in zip(F.PROGRAM_NAMES, arrays, strict=True):
            point(self.space.frame, name, values)

    def _sweep(self) -> None:
        frame, info = self.space.address, self.space.info
        node = self.frozen.nodes - 1
        while True:
            why = loops.advance(frame, node)
            node = int(info[F.NODE])
            if why == DONE:
                return
            if why == HOST_NODE:
                self._host(node)
                node -= 1
            elif why == LARGE_RUN:
                self._large_run()
                node = int(info[F.BOTTOM])
            elif why == NEED_KERNEL:
                block.ensure(int(info[F.NEED_A]), int(info[F.NEED_B]))
            elif why == NEED_TEMPLATE:
                PROGRAMS.translate(TABLE[int(info[F.NEED_A])], int(info[F.NEED_B]))
                self._point_programs()
            elif why == NEED_ARENA:
                self._grow_arena(int(info[F.NEED_A]))
            elif why == NEED_SCRATCH:
                self.space.scratch = np.zeros(int(info[F.NEED_A]) + 64, np.uint8)
                info[F.SCRATCH] = _aligned(self.space.scratch)
                info[F.SCRATCH_BYTES] = self.space.scratch.size - 64
            elif why == NEED_CONVERT:
                self._convert(int(info[F.NEED_A]), int(info[F.NEED_B]))
            elif why == FAILED:
                raise KernelError.of("an elementwise run of the sweep", at=self._line(node))
            elif why != PAUSE:
                raise KernelError(f"the sweep stopped with the unknown state {why}", at=self._line(node))

    def _line(self, node: int) -> str:
        return where(*self.frozen.tape.position(int(self.frozen.tape.line[node])))

    def _grow_arena(self, nbytes: int) -> None:
        info = self.space.info
        arena = np.empty(max(_ARENA, nbytes) + 64, np.uint8)
        self.arenas.append(arena)
        info[F.ARENA] = _aligned(arena)
        info[F.ARENA_END] = int(arena.ctypes.data) + arena.size

    def _convert(self, slot: int, code: int) -> None:
        """Make a copy of a kept value in the dtype of the run that reads it."""
        space = self.space
        copy = np.ascontiguousarray(self.frozen.tape.objects[slot], block.DTYPES[code])
        self.conversions.append(copy)
        count = int(space.info[F.CONVERTED])
        if 3 * count + 3 > space.converted.size:
            space.converted = np.concatenate([space.converted, np.zeros_like(space.converted)])
            point(space.frame, "converted", space.converted)
        space.converted[3 * count : 3 * count + 3] = slot, code, id(copy)
        space.info[F.CONVERTED] = count + 1

    # Cotangents -----------------------------------------------------------------------------------

    def _put(self, slot: int, array: np.ndarray, *, owned: bool) -> None:
        array = np.asarray(
            array
        )  # NumPy makes scalars of 0-d results; the loop reads the memory of an ndarray
        self.objects[slot] = array
        self.home[id(array)] = slot
        self.cot_address[slot] = id(array)
        self.cot_kind[slot] = F.IN_OBJECT
        if owned:
            self.owned.add(slot)
        else:
            self.owned.discard(slot)

    def cotangent(self, slot: int) -> np.ndarray | None:
        """Return the cotangent of `slot` as an ndarray (not to be written), or None."""
        kind = self.cot_kind[slot]
        if kind == F.NO_COTANGENT:
            return None
        address = int(self.cot_address[slot])
        if kind == F.IN_OBJECT:
            held = self.objects.get(slot)
            # A small run that only passes a cotangent on leaves the object where it was.
            if held is None:
                held = self.objects.get(self.home[address])
                if id(held) != address:  # that slot was released, and another has the same array
                    held = next(x for x in self.objects.values() if id(x) == address)
            return held
        shape, dtype = self.frozen.shape(slot), self.frozen.dtype(slot)
        strides = (0,) * len(shape) if kind == F.SPREAD else None
        for arena in reversed(self.arenas):
            offset = address - int(arena.ctypes.data)
            if 0 <= offset < arena.size:
                return np.ndarray(shape, dtype, arena, offset, strides)
        for held in self.objects.values():
            if held.ctypes.data == address:
                return np.ndarray(shape, dtype, held, 0, strides)
        raise KernelError("a cotangent was lost by the sweep")

    def _is_own(self, slot: int) -> bool:
        """Return whether the cotangent of `slot` may be written: the sweep made it, or nobody else refers to it."""
        if self.cot_kind[slot] != F.IN_OBJECT or slot not in self.objects:
            return False
        if slot in self.owned:
            return True
        if sys.getrefcount(self.objects[slot]) != _SINGLE:
            return False
        return memory.is_alone(self.objects[slot]) and self.objects[slot].flags.writeable

    def accumulate(self, slot: int, value: Any, op: str, operand: str, node: int) -> None:
        """Add a rule's result to the cotangent of `slot`: summed over broadcast dimensions, real part, cast."""
        shape, dtype = self.frozen.shape(slot), self.frozen.dtype(slot)
        if isinstance(value, Scattered):
            own = self._is_own(slot)
            target = self.cotangent(slot)
            if target is None or not own:
                fresh = memory.empty(shape, dtype)
                fresh[...] = 0 if target is None else target
                self._put(slot, fresh, owned=True)
                target = fresh
            value.add_to(target)
            return
        if isinstance(value, Cleared):
            out = int(self.frozen.out_start[node])
            if self._is_own(out) and self.cot_kind[slot] == F.NO_COTANGENT:
                self._put(slot, value.clear(self.objects[out]), owned=True)
                return
            after: Any = self.cotangent(out)
            before_write = memory.empty(shape, dtype)
            before_write[...] = after
            value = value.clear(before_write)
            if self.cot_kind[slot] == F.NO_COTANGENT:
                self._put(slot, value, owned=True)
                return
        if type(value) is not np.ndarray:
            value = np.asarray(value)
        if value.shape != shape:
            value = sum_to(value, shape, op, operand, lambda: self._line(node))
        if value.dtype != dtype:
            value = (value.real if dtype.kind == "f" and value.dtype.kind == "c" else value).astype(dtype)
        if self.cot_kind[slot] == F.NO_COTANGENT:
            self._put(slot, value, owned=False)
            return
        own = self._is_own(slot)
        before: Any = self.cotangent(slot)
        if own:
            before += value
        else:
            total = memory.empty(shape, dtype)
            np.add(before, value, out=total)
            self._put(slot, total, owned=True)

    def _result(self, slot: int) -> np.ndarray:
        own = self._is_own(slot)
        found = self.cotangent(slot)
        shape, dtype = self.frozen.shape(slot), self.frozen.dtype(slot)
        if found is None:
            return np.zeros(shape, dtype)
        if own and found.flags.c_contiguous:
            self.owned.discard(slot)  # asked for twice: the second one gets a copy
            return found
        copy = np.empty(shape, dtype)
        copy[...] = found
        return copy

    # Steps on the host ----------------------------------------------------------------------------

    def _host(self, node: int) -> None:
        """Run the pullbacks of one node on ndarrays."""
        frozen = self.frozen
        op = TABLE[frozen.op[node]]
        out = int(frozen.out_start[node])
        g: Any = self.cotangent(out)
        if op.outputs > 1:
            g = tuple(self.cotangent(out + i) for i in range(op.outputs))
        asked = self.activity.asked(frozen, node)
        edges = frozen.edges(node)
        for k, value in pull_node(op, frozen, node, g, asked, edges):
            self.counts[8 * op.opcode + min(k, 7)] += 1
            if value is not None:
                self.accumulate(edges[k], value, op.name, op.operands[0 if op.variadic else k], node)
        for i in range(op.outputs):
            self.objects.pop(out + i, None)
            self.owned.discard(out + i)
            self.cot_kind[out + i] = F.NO_COTANGENT

    # Large runs -----------------------------------------------------------------------------------

    def _large_run(self) -> None:
        """Give the planned run its buffers, execute it in pieces, and hand out what leaves it."""
        space, info, frame = self.space, self.space.info, self.space.address
        dtype, shape = self.frozen.tape.avals[int(info[F.AVAL])]
        outs = space.outs[: F.OUT_WIDTH * int(info[F.OUTS])].reshape(-1, F.OUT_WIDTH).tolist()
        buffers: dict[int, np.ndarray] = {}
        for mode, _, register, _ in outs:
            if mode & 7 == F.FULL:
                buffers[register] = memory.empty(shape, dtype)
                space.v_address[register] = buffers[register].ctypes.data
        blocks = int(info[F.BLOCKS])
        partials = np.empty((blocks, max(int(info[F.SUMS]), 1)), dtype)
        info[F.PARTIALS] = partials.ctypes.data
        group = max(1, _PIECE // int(info[F.BLOCK]))
        nbytes = int(info[F.SCRATCH_NEED])

        def task(lo: int, hi: int) -> int:
            place = _scratch(nbytes + 64)
            return int(loops.execute(frame, lo * group, min(hi * group, blocks), _aligned(place)))

        if not threads.fan_out(task, -(-blocks // group)):
            raise KernelError.of("an elementwise run of the sweep")
        self._hand_out(outs, buffers, partials)

    def _hand_out(self, outs: list[list[int]], buffers: dict[int, np.ndarray], partials: np.ndarray) -> None:
        space, info, frame = self.space, self.space.info, self.space.address
        passed = {source: self.cotangent(source) for mode, _, _, source in outs if mode & 7 == F.PASS}
        single = {register for register in buffers if sum(out[2] == register for out in outs) == 1}
        sums = []
        for mode, _, _, column in outs:
            if mode & 7 == F.SUM:
                loops.reduce_sums(frame, column)
                sums.append(partials[0, column])
        for slot in space.released[: int(info[F.RELEASED])].tolist():
            if slot not in passed:
                self.objects.pop(slot, None)
            self.owned.discard(slot)
        loops.settle_used(frame)
        left = iter(sums)
        node = int(info[F.BOTTOM]) + 1
        for mode, slot, register, source in outs:
            kind = mode & 7
            if kind == F.SUM:
                value: Any = np.asarray(next(left)).reshape(self.frozen.shape(slot))
                self.accumulate(slot, value, "run", "operand", node)
                continue
            value = passed[source] if kind == F.PASS else buffers[register]
            if mode & 8:
                self.accumulate(slot, value, "run", "operand", node)
            else:
                self._put(slot, value, owned=kind == F.FULL and register in single)
        for source in passed:
            self.objects.pop(source, None)

    # Accounts -------------------------------------------------------------------------------------

    def _account(self) -> None:
        listeners = current()
        if not listeners:
            return
        run: Counter[tuple[str, str]] = Counter()
        for cell in np.flatnonzero(self.counts).tolist():
            op = TABLE[cell // 8]
            run[op.name, op.operands[0 if op.variadic else cell % 8]] += int(self.counts[cell])
        for listener in listeners:
            listener.rules_run.update(run)


def sum_to(value: Any, shape: tuple[int, ...], op: str, operand: str, line: Any) -> Any:
    """Return `value` summed over the dimensions that broadcasting added to `shape`."""
    found = shape_of(value)
    if found == shape:
        return value
    extra = len(found) - len(shape)
    if extra < 0 or not all(n in (1, m) for n, m in zip(shape, found[extra:], strict=True)):
        raise RuleError.shape(op, operand, found, shape, at=line())
    axes = tuple(range(extra)) + tuple(
        extra + d for d, n in enumerate(shape) if n == 1 and found[extra + d] != 1
    )
    if axes:
        value = np.sum(value, axis=axes)
    return np.reshape(value, shape)


__all__ = ["Sweep", "sum_to"]
