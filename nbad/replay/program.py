"""Programs: planned graphs, and the workspaces in which they run.

Owns a run of the whole: binding of inputs, steps of Python between returns of the jitted loop, large runs fanned out, results.
"""

import math
import threading
from array import array
from typing import Any

import numpy as np

from nbad.errors import KernelError
from nbad.kernels import memory, threads
from nbad.replay import loop
from nbad.replay.fused import ensure_fused
from nbad.replay.graph import ARRAY, SCALAR, TRUTH
from nbad.replay.loop import STEP_WIDTH, WHY_BITS
from nbad.replay.planning import Plan
from nbad.replay.storage import ALIGNMENT, ARENA, POOL

#: Elements of one piece of a large run.
_PIECE = 1 << 13

#: How an output is made: an array written by a run, a NumPy scalar, an array of a host step, a copy, anything else.
_MADE, _SCALAR, _HANDED, _COPY, _OTHER = range(5)

_start = loop.start
_local = threading.local()


def _scratch(nbytes: int) -> int:
    """Return the address of scratch memory of this thread, aligned to a cache line."""
    found: np.ndarray | None = getattr(_local, "block", None)
    if found is None or found.size < nbytes + ALIGNMENT:
        found = _local.block = np.empty(nbytes + ALIGNMENT, np.uint8)
        _local.address = found.ctypes.data + -found.ctypes.data % ALIGNMENT
    address: int = _local.address
    return address


class Program(Plan):
    """A graph, planned, with workspaces to run it in.

    Parameters
    ----------
    graph : Graph
        Pruned and rewritten.
    input_masks : iterable of int
        The bits of each input; bit 0 says that it changes at each call.
    """

    def workspace(self) -> "Workspace":
        """Return buffers for one thread at a time."""
        return Workspace(self)


class Workspace:
    """Buffers of a program, for one thread at a time.

    Attributes
    ----------
    failed_line : int
        Index of the source line of the guard or host step that stopped the last run, -1 if none did.
    prints, calls
        For whoever keeps workspaces: the contents of its last inputs, the number of its runs.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.fresh = True
        self.failed_line = -1
        self.prints: list[Any] = []
        self.calls = 0
        self.arena = memory.empty(program.arena_bytes + ALIGNMENT, np.uint8)
        base = self.arena.ctypes.data
        self.base = -base % ALIGNMENT
        self.address = np.zeros(program.buffers, np.int64)
        self.address[ARENA] = base + self.base
        self.address[POOL] = program.pool_array.ctypes.data
        self.ids = array("q", bytes(8 * max(program.buffers, 1)))
        self.ids[0] = id(np.ndarray)
        for buffer, value in program.constants:
            self.address[buffer] = value.ctypes.data
        self.scratch = np.empty(program.scratch_bytes + ALIGNMENT, np.uint8)
        self.info = np.zeros(loop.INFO_SIZE, np.int64)
        self.info[loop.I_SCRATCH] = self.scratch.ctypes.data + -self.scratch.ctypes.data % ALIGNMENT
        self.info[loop.I_INPUTS] = len(program.array_inputs)
        self.info[loop.I_RESULTS] = len(program.fresh_results)
        self.frame = np.zeros(2 * len(loop.NAMES), np.int64)
        ids_address, ids_length = self.ids.buffer_info()
        tables = {"steps": program.steps, "runs": program.runs, "table": program.table, "address": self.address,
                  "inputs": program.input_rows, "bound": program.bound_table, "info": self.info}  # fmt: skip
        for name, values in tables.items():
            self.frame[loop.AT[name] : loop.AT[name] + 2] = values.ctypes.data, values.size
        self.frame[loop.AT["ids"] : loop.AT["ids"] + 2] = ids_address, ids_length
        self.frame_address = int(self.frame.ctypes.data)
        self.env: list[Any] = [None] * len(program.lowering.avals)
        for slot, place in program.places.items():
            if place.buffer == ARENA:
                dtype, shape = program.lowering.avals[slot]
                self.env[slot] = np.ndarray(shape, dtype, self.arena, self.base + place.offset)
        for slot, value in program.lowering.constants.items():
            self.env[slot] = np.asarray(value)
        self.made: list[Any] = []
        self.done = program.done
        self.fast = program.fast
        self.bindings = [(position, buffer) for position, _, buffer in program.array_inputs]
        self.numbers = program.number_inputs
        self.read_inputs, self.read_results = program.read_inputs, program.read_results
        self.fresh_buffers = [program.places[base].buffer for _, base, _, _ in program.fresh_results]
        self.fresh_arrays = [
            (
                memory.empty if dtype.itemsize * math.prod(shape) >= memory.SMALLEST_BLOCK else np.empty,
                shape,
                dtype,
            )
            for _, _, shape, dtype in program.fresh_results
        ]
        positions = [position for position, *_ in program.fresh_results]
        self.finishers: list[tuple[int, int, Any]] = []
        for position, reader in enumerate(program.output_readers):
            if position in positions:
                self.finishers.append((_MADE, positions.index(position), None))
            elif position in program.handed_out:
                self.finishers.append((_HANDED, program.handed_out[position], None))
            elif reader.form == ARRAY:
                self.finishers.append((_COPY, reader.slot, reader.read))
            else:
                plain = reader.form == SCALAR and reader.view is None
                self.finishers.append((_SCALAR if plain else _OTHER, reader.slot, reader.read))

    steps_run = property(lambda self: int(self.info[loop.I_STEPS_RUN]))
    steps_skipped = property(lambda self: int(self.info[loop.I_STEPS_SKIPPED]))
    nodes_run = property(lambda self: int(self.info[loop.I_NODES_RUN]))
    nodes_skipped = property(lambda self: int(self.info[loop.I_NODES_SKIPPED]))

    def run(self, values: Any, changed: int) -> int:
        """Run the program.

        Parameters
        ----------
        values : sequence
            The inputs: C-contiguous arrays of exactly the recorded dtype and shape, and numbers.
        changed : int
            The bits of the inputs that changed since the last run of this workspace.

        Returns
        -------
        int
            -1 if all went well, the index of a failed guard, or -2 if a host step made something of another shape or dtype.
        """
        ids, env = self.ids, self.env
        for position, buffer in self.bindings:
            ids[buffer] = id(values[position])
        for position, slot in self.numbers:
            env[slot][()] = values[position]
        for position, slot in self.read_inputs:
            env[slot] = values[position]
        made = self.made = [new(shape, dtype) for new, shape, dtype in self.fresh_arrays]
        for array_, buffer in zip(made, self.fresh_buffers, strict=True):
            ids[buffer] = id(array_)
        for index, slot, shape in self.read_results:
            env[slot] = made[index] if shape is None else made[index].reshape(shape)
        if self.fresh:
            changed = -1
        self.fresh = True  # until the run has come to its end
        why = _start(self.frame_address, changed)
        if why != self.done:
            with np.errstate(all="ignore"):
                status = self._go_on(why, changed, values)
            if status != -1:
                return status
        self.fresh = False
        return -1

    def quick(self, values: Any) -> list[Any] | None:
        """Run a program that is `fast` after its first run, with bit 0 changed only, and return its results.

        None says that this needs `run`, which then does everything again: a guard failed, or an input is not as planned.
        """
        if self.fresh:
            return None
        ids = self.ids
        for position, buffer in self.bindings:
            ids[buffer] = id(values[position])
        made = [new(shape, dtype) for new, shape, dtype in self.fresh_arrays]
        for i, buffer in enumerate(self.fresh_buffers):
            ids[buffer] = id(made[i])
        if _start(self.frame_address, 1) != self.done:
            self.fresh = True
            return None
        env = self.env
        return [made[index] if kind == _MADE else env[index][()] for kind, index, _ in self.finishers]

    def _go_on(self, why: int, changed: int, values: Any) -> int:
        """Do what Python is needed for, until the program has ended."""
        program, info, frame = self.program, self.info, self.frame_address
        steps = program.steps
        while True:
            reason, pc = why & ((1 << WHY_BITS) - 1), why >> WHY_BITS
            if reason == loop.DONE:
                return -1
            kind, _, number, nodes = steps[STEP_WIDTH * pc : STEP_WIDTH * pc + 4].tolist()
            if reason == loop.PAUSED:
                why = loop.advance(frame, pc, changed)
                continue
            if reason == loop.HOT:
                self._compile(number)
                why = loop.advance(frame, pc, changed)
                continue
            if reason == loop.MISMATCH:
                values = self._rebind(pc, values)
                why = _start(frame, changed)
                continue
            if reason == loop.FAILED:
                raise KernelError("an elementwise run of a replay failed")
            if reason == loop.GUARD_FAILED:
                return self._guard_failed(number)
            if kind == loop.LARGE:
                self._large(number)
            elif kind == loop.PAIRED:
                self._paired(number)
            elif kind == loop.CHAINED:
                if not self._chained(number):
                    return -2
            elif kind == loop.HOST_GUARD:
                if not self._check(number):
                    return self._guard_failed(number)
            else:
                host = program.hosts[number]
                self.failed_line = host.node.line  # also if it raises
                if not host.run(self.env, self.ids):
                    return -2
                self.failed_line = -1
            info[loop.I_STEPS_RUN] += 1
            info[loop.I_NODES_RUN] += nodes
            why = loop.advance(frame, pc + 1, changed)

    def _rebind(self, place: int, values: Any) -> Any:
        """Replace an input whose dtype object is not NumPy's own, or that is not aligned, by a copy."""
        program = self.program
        position, slot, buffer = program.array_inputs[place]
        dtype, shape = program.lowering.avals[slot]
        value = values[position]
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
            raise KernelError(f"input {position} of a replay is not an array as it was planned for")
        copy = np.empty(shape, program.input_dtypes[place])
        copy[...] = value
        self.ids[buffer] = id(copy)
        self.env[slot] = copy
        return [*values[:position], copy, *values[position + 1 :]]

    def _guard_failed(self, number: int) -> int:
        guard = self.program.guards[number]
        self.failed_line = guard.line
        return next(i for i, g in enumerate(self.program.graph.guards) if g is guard)

    def _check(self, number: int) -> bool:
        guard = self.program.guards[number]
        reader = self.program._reader(guard.slot)
        value = np.asarray(reader.read(self.env))
        if guard.kind == TRUTH:
            return bool(value) == bool(guard.seen)
        return value.tobytes() == np.asarray(guard.seen, value.dtype).tobytes()

    def _compile(self, number: int) -> None:
        """Compile the groups of a run; other threads may be executing it, for whom one number in a table changes."""
        program = self.program
        for at, text in program.fusible[number]:
            program.table[at] = ensure_fused(text)
        program.runs[number * loop.RUN_WIDTH + loop.R_LEFT] = 0

    def _count(self, *numbers: int) -> None:
        """Compile runs that are about to be executed together, if one of them has done enough work before."""
        runs = self.program.runs
        for number in numbers:
            at = number * loop.RUN_WIDTH
            if runs[at + loop.R_LEFT] > 0:
                runs[at + loop.R_LEFT] -= runs[at + loop.R_WORK]
                if runs[at + loop.R_LEFT] <= 0:
                    for other in numbers:
                        self._compile(other)

    def _large(self, number: int) -> None:
        """Split a run over threads, in pieces that only its size decides."""
        self._count(number)
        block = self.program.run_blocks[number]
        group = max(1, _PIECE // block.lanes)
        nbytes, frame = block.scratch_bytes, self.frame_address

        def task(lo: int, hi: int) -> int:
            scratch = _scratch(nbytes)
            return int(loop.execute(frame, number, lo * group, min(hi * group, block.parts), scratch))

        if not threads.fan_out(task, -(-block.parts // group)) or not loop.finish(self.frame_address, number):
            raise KernelError("an elementwise run of a replay failed")

    def _paired(self, number: int) -> None:
        """Execute two runs tile by tile, split over threads in pieces that only their sizes decide."""
        program = self.program
        tile, at = program.tiles[number]
        runs = tile.row[:2]
        self._count(*runs)
        first, second = (program.run_blocks[run] for run in runs)
        tiles = -(-second.parts // tile.parts)
        group = max(1, _PIECE * 8 // (tile.parts * second.lanes))
        nbytes = max(first.scratch_bytes, second.scratch_bytes)
        nbytes += -nbytes % ALIGNMENT

        def task(lo: int, hi: int) -> int:
            scratch = _scratch(nbytes + tile.nbytes)
            frame, _ = self._own_frame()
            start, end = lo * group * tile.parts, min(hi * group * tile.parts, second.parts)
            return int(loop.execute_pair(frame.ctypes.data, at, start, end, scratch, scratch + nbytes))

        done = threads.fan_out(task, -(-tiles // group))
        if not done or not all(loop.finish(self.frame_address, run) for run in runs):
            raise KernelError("an elementwise run of a replay failed")

    def _own_frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a frame and addresses for one thread, whose buffers lie elsewhere than those of others."""
        address, frame = self.address.copy(), self.frame.copy()
        frame[loop.AT["address"]] = address.ctypes.data
        return frame, address

    def _chained(self, number: int) -> bool:
        """Execute a run between two convolutions slab by slab; return False if a result is not as recorded."""
        linked = self.program.linked[number]
        self._count(linked.run)
        nbytes = self.program.run_blocks[linked.run].scratch_bytes
        good = linked.execute(self.env, self.ids, lambda: (*self._own_frame(), _scratch(nbytes)))
        if not loop.finish(self.frame_address, linked.run):
            raise KernelError("an elementwise run of a replay failed")
        return good

    def results(self) -> list[Any]:
        """Return the outputs of the last run; arrays are new and the caller's own."""
        env, made = self.env, self.made
        found: list[Any] = []
        for kind, index, read in self.finishers:
            if kind == _MADE:
                found.append(made[index])
            elif kind == _SCALAR:
                found.append(env[index][()])
            elif kind == _HANDED:
                found.append(env[index])
            elif kind == _COPY:
                found.append(np.array(read(env), order="C", copy=True, subok=False))
            else:
                found.append(read(env))
        for slot in self.program.handed_out.values():
            env[slot] = None
        self.made = []
        return found


__all__ = ["Program", "Workspace"]
