"""Planning: from a graph to the tables that the loop follows.

Owns the order of planning (items, runs, memory, block programs, tables) and the decision what lies where: in the arena, in an
array that a host step makes, or in the array that the caller gets.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbad.errors import KernelError
from nbad.kernels import vector_math
from nbad.replay import loop
from nbad.replay.blocks import FUSED, Block, Emitter
from nbad.replay.casts import kind_of
from nbad.replay.chains import Chain, Linked, arrange
from nbad.replay.fusing import Schedule, Step
from nbad.replay.graph import ARRAY, SCALAR, TRUTH, Graph, masks_of
from nbad.replay.into import Into, Write, into_of
from nbad.replay.loop import RUN_WIDTH, STEP_WIDTH, WHY_BITS
from nbad.replay.lowering import HOST, Lowering
from nbad.replay.overwriting import overwritten
from nbad.replay.registers import run_row
from nbad.replay.steps import HostStep, Output, Reader
from nbad.replay.storage import (
    ALIGNMENT,
    ARENA,
    FIRST_BUFFER,
    Arena,
    Place,
    c_strides,
    is_contiguous,
    nbytes_of,
)
from nbad.replay.tiles import Tile, bring_together, find_pairs

#: Elements from which on a run is split over threads, or fewer if it takes that many instructions on elements.
LARGE_RUN, _LONG_RUN = 1 << 15, 1 << 18
#: Instructions times elements after which a run is compiled: some 50 ms, where compiling takes 100 to 300 once, then 3.
WORTHWHILE = 1 << 27
#: Bytes up to which the result of a host step is copied into the arena.
_SMALL = 1 << 12
#: The bit of steps that depend on nothing.
CONSTANT_BIT = 1 << 62


def _is_large(step: Step) -> bool:
    return step.key is not None and math.prod(step.key[0]) > LARGE_RUN


def _is_split(step: Step) -> bool:
    if step.key is None:
        return False
    size: int = math.prod(step.key[0])
    return size > LARGE_RUN or (2 * size >= LARGE_RUN and size * len(step.items) > _LONG_RUN)


class Plan:
    """A graph, planned: everything that the workspaces of one program share.

    Parameters
    ----------
    graph : Graph
        Pruned and rewritten.
    input_masks : iterable of int
        The bits of each input; bit 0 says that it changes at each call.

    Attributes
    ----------
    peak_bytes : int
        Bytes of one workspace, results and what host steps allocate not counted.
    fast : bool
        It needs no Python between its inputs and its results, so `Workspace.quick` may run it.
    """

    def __init__(self, graph: Graph, input_masks: Iterable[int]) -> None:
        self.graph = graph
        masks = masks_of(graph, input_masks)
        self.instruction_set = vector_math.get_instruction_set()
        self.lowering = Lowering(graph)
        self.schedule = Schedule(self.lowering, masks)
        bring_together(self.schedule, _is_large)
        self.chains: dict[int, Chain] = arrange(self.schedule, _is_large)
        self.masks = self.schedule.masks
        self.buffers = FIRST_BUFFER
        self.places: dict[int, Place] = {}
        self.constants: list[tuple[int, np.ndarray]] = []  # (buffer, array)
        self.pool = bytearray()
        self._pooled: dict[bytes, int] = {}
        self._find_last_reads()
        self._bind_inputs()
        self._find_in_place()
        self._choose_results()
        self._find_pairs()
        self._plan_memory()
        self._emit()
        self._write_tables()

    # Planning -------------------------------------------------------------------------------------
    def _new_buffer(self) -> int:
        self.buffers += 1
        return self.buffers - 1

    def _contiguous(self, slot: int, buffer: int, offset: int = 0) -> Place:
        dtype, shape = self.lowering.avals[slot]
        return Place(buffer, offset, c_strides(shape, dtype.itemsize))

    def _find_last_reads(self) -> None:
        """Find the step that reads each memory last, and what Python reads."""
        schedule, end = self.schedule, len(self.schedule.steps)
        self.last: dict[int, int] = {}
        self.persistent: set[int] = set()
        for at, step in enumerate(schedule.steps):
            slots = [s for item in step.items for s in item.operands]
            if step.guard is not None:
                slots.append(step.guard.slot)
            for slot in slots:
                base = schedule.base(slot)
                self.last[base] = at
                self._note_crossing(base, step.mask)
        for slot in self.graph.outputs:
            self.last[schedule.base(slot)] = end
            self._note_crossing(schedule.base(slot), 1)

    def _note_crossing(self, base: int, mask: int) -> None:
        home = self.schedule.home.get(base)
        if home is not None:
            made = self.schedule.steps[home].mask
            if not made & 1 and made != mask:
                self.persistent.add(base)

    def _bind_inputs(self) -> None:
        graph = self.graph
        self.array_inputs: list[tuple[int, int, int]] = []  # (position, slot, buffer)
        self.number_inputs: list[tuple[int, int]] = []
        for position, slot in enumerate(graph.inputs):
            if graph.forms[slot] == ARRAY:
                buffer = self._new_buffer()
                self.array_inputs.append((position, slot, buffer))
                self.places[slot] = self._contiguous(slot, buffer)
            else:
                self.number_inputs.append((position, slot))
        for slot, value in self.lowering.constants.items():
            if isinstance(value, np.ndarray):
                buffer = self._new_buffer()
                self.constants.append((buffer, value))
                self.places[slot] = Place(buffer, 0, value.strides)

    def _find_in_place(self) -> None:
        """Find the host steps that write where they are told."""
        self.into: dict[int, Into] = {}
        for at, step in enumerate(self.schedule.steps):
            if step.guard is None and not step.is_run:
                node = self.graph.nodes[step.items[0].node]
                into = into_of(node, self.lowering.avals)
                if (
                    into is not None
                    and node.outputs[0] in self.last
                    and self.graph.forms[node.outputs[0]] == ARRAY
                ):
                    self.into[at] = into

    def _choose_results(self) -> None:
        """Decide which outputs are written where the caller gets them, and how the others are made."""
        schedule, graph, avals = self.schedule, self.graph, self.lowering.avals
        self.fresh_results: list[
            tuple[int, int, tuple[int, ...], np.dtype[Any]]
        ] = []  # position, base, shape, dtype
        self.handed_out: dict[int, int] = {}  # position -> slot that a host step makes
        taken: set[int] = set()
        for position, slot in enumerate(graph.outputs):
            base = schedule.base(slot)
            home = schedule.home.get(base)
            if home is None or graph.forms[slot] != ARRAY or base in taken or base in self.persistent:
                continue
            dtype, shape = avals[slot]
            view = self.lowering.view(slot)
            whole = view.offset == 0 and is_contiguous(shape, view.strides, dtype.itemsize)
            if not whole or dtype != avals[base][0] or nbytes_of(avals[slot]) != nbytes_of(avals[base]):
                continue
            step = schedule.steps[home]
            if not step.mask & 1:
                continue
            taken.add(base)
            if step.is_run or home in self.into:
                buffer = self._new_buffer()
                self.places[base] = self._contiguous(base, buffer)
                self.fresh_results.append((position, base, shape, dtype))
            elif slot == base:
                self.handed_out[position] = slot

    def _find_pairs(self) -> None:
        """Find runs that are executed together, and give what passes between steps buffers that each thread has itself."""
        chained = {chain.run for chain in self.chains.values()}
        found = find_pairs(self.schedule, _is_large, self.last, {*self.places, *self.persistent})
        self.pairs = {at: pair for at, pair in found.items() if not {at, pair.second} & chained}
        self.passed = {slot for pair in self.pairs.values() for slot in pair.slots}
        self.passed.update(slot for c in self.chains.values() for slot in (c.result, c.operand))
        for slot in sorted(self.passed):
            self.places[slot] = self._contiguous(slot, self._new_buffer())

    def _plan_memory(self) -> None:
        schedule, avals = self.schedule, self.lowering.avals
        end = len(schedule.steps)
        requests: list[tuple[int, int, int]] = []
        slots: list[int] = []

        def ask(slot: int, first: int, last: int) -> None:
            slots.append(slot)
            requests.append((first, last, max(nbytes_of(avals[slot]), 1)))

        for _, slot in self.number_inputs:
            ask(slot, 0, end)
        handed = set(self.handed_out.values())
        executed = {pair.second: pair.first for pair in self.pairs.values()}
        self.dynamic: set[int] = set()
        writes = {at: into for at, into in self.into.items() if isinstance(into, Write)}
        chains = overwritten(schedule, writes, self.last, self._is_free)
        ends: dict[int, int] = {}  # what stands where a slot stood, at the end
        for slot, source in reversed(chains.items()):
            ends[source] = ends.get(slot, slot)
        for slot in sorted(schedule.stored):
            if slot in self.places or slot in chains:
                continue
            at = schedule.home[slot]
            host = not schedule.steps[at].is_run
            if slot in self.persistent:
                ask(slot, 0, end)
            elif slot in handed or (host and at not in self.into and nbytes_of(avals[slot]) > _SMALL):
                self.places[slot] = self._contiguous(slot, self._new_buffer())
                self.dynamic.add(slot)
            else:
                ask(slot, executed.get(at, at), self.last.get(ends.get(slot, slot), at))
        arena = Arena()
        for slot, offset in zip(slots, arena.plan(requests), strict=True):
            self.places[slot] = self._contiguous(slot, ARENA, offset)
        for slot, source in chains.items():  # in the order of the steps
            self.places[slot] = self.places[source]
        self.arena_bytes = arena.size

    def _is_free(self, slot: int) -> bool:
        """Return whether the arena holds a slot while it is read, and no longer."""
        home = self.schedule.home.get(slot, -1)
        if home < 0 or slot in self.places or slot in self.persistent or slot in self.handed_out.values():
            return False
        small = nbytes_of(self.lowering.avals[slot]) <= _SMALL
        return slot in self.schedule.stored and (
            self.schedule.steps[home].is_run or home in self.into or small
        )

    def _place_of(self, slot: int) -> Place:
        view = self.lowering.views.get(slot)
        if view is None:
            return self.places[slot]
        base = self.places[view.base]
        return Place(base.buffer, base.offset + view.offset, view.strides)

    def _put_in_pool(self, value: Any, dtype: np.dtype[Any]) -> int:
        data = np.asarray(value, dtype).tobytes()
        offset = self._pooled.get(data)
        if offset is None:
            self.pool += b"\0" * (-len(self.pool) % 16)
            offset = self._pooled[data] = len(self.pool)
            self.pool += data
        return offset

    def _emit(self) -> None:
        self.blocks: dict[int, Block] = {}
        slabs = {chain.run: chain.slab for chain in self.chains.values()}
        for at, step in enumerate(self.schedule.steps):
            if step.is_run and step.items:
                slab = slabs.get(at, 0)
                self.blocks[at] = Emitter(self.schedule, at, self._place_of, self._put_in_pool, slab).emit()
        # The partial sums of one run at a time, of two where these are executed together.
        self.partials_at = self.arena_bytes
        self.second_partials_at = self.partials_at + max(
            (b.partial_bytes for b in self.blocks.values()), default=0
        )
        self.second_partials_at += -self.second_partials_at % ALIGNMENT
        self.arena_bytes = self.second_partials_at
        self.arena_bytes += max(
            (self.blocks[pair.second].partial_bytes for pair in self.pairs.values()), default=0
        )
        small = [b.scratch_bytes for b in self.blocks.values() if b.size <= LARGE_RUN]
        self.scratch_bytes = max(small, default=0)
        self.peak_bytes = self.arena_bytes + self.scratch_bytes + 2 * ALIGNMENT

    # Tables ---------------------------------------------------------------------------------------
    def _write_tables(self) -> None:
        schedule = self.schedule
        steps: list[list[int]] = []
        runs: list[list[int]] = []
        table: list[int] = []
        self.run_blocks: list[Block] = []
        self.fusible: list[
            list[tuple[int, str]]
        ] = []  # for each run: where addresses of kernels go, their texts
        self.tiles: list[tuple[Tile, int]] = []  # and where its row stands in the table
        self.linked: list[Linked] = []
        second = {pair.second for pair in self.pairs.values()}
        second.update(at for chain in self.chains.values() for at in (chain.run, chain.second))
        self.hosts: list[HostStep] = []
        self.guards = [step.guard for step in schedule.steps if step.guard is not None]
        self.bound: list[tuple[int, int]] = []
        for _, base, _, _ in self.fresh_results:
            buffer = self.places[base].buffer
            self.bound.append((buffer, buffer))
        guard = 0
        for at, step in enumerate(schedule.steps):
            mask = step.mask or CONSTANT_BIT
            nodes = len({item.node for item in step.items})
            if at in second:
                continue
            if step.guard is not None:
                steps.append([*self._guard_step(step, guard, mask), 0, 0][:STEP_WIDTH])
                guard += 1
            elif step.is_run:
                if not step.items:
                    continue
                block = self.blocks[at]
                kind, number = (loop.LARGE if _is_split(step) else loop.RUN), len(runs)
                self._add_run(runs, block, table, self.partials_at)
                if at in self.pairs:
                    pair = self.pairs[at]
                    kind, number = loop.PAIRED, len(self.tiles)
                    other = self.blocks[pair.second]
                    self._add_run(runs, other, table, self.second_partials_at)
                    buffers = {slot: self.places[slot].buffer for slot in pair.slots}
                    tile = pair.row(schedule, self.blocks, (len(runs) - 2, len(runs) - 1), buffers)
                    self.tiles.append((tile, len(table)))
                    table.extend(tile.row)
                    nodes += len({item.node for item in schedule.steps[pair.second].items})
                steps.append([kind, mask, number, nodes, 0, 0, 0, 0, 0, 0])
            else:
                kind, number, hosts = loop.HOST_STEP, len(self.hosts), [self._host_step(step, at)]
                if at in self.chains:
                    chain = self.chains[at]
                    kind, number = loop.CHAINED, len(self.linked)
                    hosts.append(self._host_step(schedule.steps[chain.second], chain.second))
                    self.linked.append(self._link(chain, hosts[0], hosts[1], len(runs)))
                    self._add_run(runs, self.blocks[chain.run], table, self.partials_at)
                    nodes += sum(
                        len({i.node for i in schedule.steps[k].items}) for k in (chain.run, chain.second)
                    )
                first = len(self.bound)
                outputs = [output for host in hosts for output in host.outputs]
                self.bound += [(o.buffer, o.buffer) for o in outputs if o.buffer >= 0 and o.wanted]
                steps.append([kind, mask, number, nodes, first, len(self.bound) - first, 0, 0, 0, 0])
                self.hosts += hosts
        steps.append([loop.END] + [0] * (STEP_WIDTH - 1))
        self.output_readers = [self._reader(slot) for slot in self.graph.outputs]
        self._validate(steps, runs, table)
        self.steps = np.array(steps, np.int64).reshape(-1)
        self.runs = np.array(runs or [[0] * RUN_WIDTH], np.int64).reshape(-1)
        self.table = np.array(table or [0], np.int64)
        self.bound_table = np.array(self.bound or [(0, 0)], np.int64).reshape(-1)
        self.pool_array = np.frombuffer(bytes(self.pool) + b"\0" * 16, np.uint8)
        self.input_dtypes: list[np.dtype[Any]] = []  # the objects whose identity the loop checks
        rows = np.zeros((max(len(self.array_inputs), 1), loop.INPUT_WIDTH), np.int64)
        for i, (_, slot, buffer) in enumerate(self.array_inputs):
            dtype, shape = self.lowering.avals[slot]
            own = np.dtype(dtype.type)
            self.input_dtypes.append(own if own == dtype else dtype)
            rows[i, :5] = buffer, buffer, id(self.input_dtypes[i]), dtype.itemsize, len(shape)
            rows[i, 5 : 5 + len(shape)] = shape
        self.input_rows = rows.reshape(-1)
        hosts_read = {r.slot for host in self.hosts for r in host.readers}
        made = {position for position, *_ in self.fresh_results}
        hosts_read.update(reader.slot for i, reader in enumerate(self.output_readers) if i not in made)
        hosts_read.update(host.outputs[0].slot for host in self.hosts if host.into is not None)
        hosts_read.update(self._reader(guard.slot).slot for guard in self.guards)
        self.read_inputs = [(i, slot) for i, slot, _ in self.array_inputs if slot in hosts_read]
        # An output may have another shape than the value that lies in its memory.
        self.read_results = [
            (i, base, None if shape == self.lowering.avals[base][1] else self.lowering.avals[base][1])
            for i, (_, base, shape, _) in enumerate(self.fresh_results)
            if base in hosts_read
        ]
        self.done = ((len(steps) - 1) << WHY_BITS) | loop.DONE
        native = all(step[0] in (loop.RUN, loop.TRUTH_GUARD, loop.CONTENTS_GUARD, loop.END) for step in steps)
        self.fast = native and not self.number_inputs and not self.read_inputs and not self.read_results
        for position, slot in enumerate(self.graph.outputs):
            scalar = self.graph.forms[slot] == SCALAR and self.output_readers[position].view is None
            self.fast = self.fast and (position in made or scalar)

    def _link(self, chain: Chain, first: HostStep, second: HostStep, run: int) -> Linked:
        block = self.blocks[chain.run]
        buffers = self.places[chain.result].buffer, self.places[chain.operand].buffer
        parts = block.parts // (block.size // chain.slab)
        return Linked(first, second, run, parts, buffers, self.lowering.avals[chain.operand][1])

    def _guard_step(self, step: Step, number: int, mask: int) -> list[int]:
        assert step.guard is not None
        slot = step.guard.slot
        dtype, shape = self.lowering.avals[slot]
        if slot in self.lowering.constants:
            return [loop.HOST_GUARD, mask, number, 0, 0, 0, 0, 0, 0, 0]
        place = self._place_of(slot)
        kind = kind_of(dtype)
        head = [mask, number, 0, 0, 0, place.buffer, place.offset]
        if step.guard.kind == TRUTH and kind >= 0 and int(np.prod(shape)) == 1:
            return [loop.TRUTH_GUARD, *head, kind, int(bool(step.guard.seen))]
        if step.guard.kind != TRUTH and is_contiguous(shape, place.strides, dtype.itemsize):
            seen = np.ascontiguousarray(step.guard.seen, dtype)
            offset = self._put_in_pool(seen, dtype)
            return [loop.CONTENTS_GUARD, *head, offset, seen.nbytes]
        return [loop.HOST_GUARD, *head, 0, 0]

    def _add_run(self, runs: list[list[int]], block: Block, table: list[int], partials_at: int) -> None:
        """Append a run to the tables."""
        row, fusible = run_row(block, table, partials_at, WORTHWHILE)
        runs.append(row)
        self.run_blocks.append(block)
        self.fusible.append(fusible)

    def _validate(self, steps: list[list[int]], runs: list[list[int]], table: list[int]) -> None:
        """Check every index that the loop will follow."""
        good = all(len(step) == STEP_WIDTH for step in steps) and all(len(run) == RUN_WIDTH for run in runs)
        for block in self.run_blocks:
            good = good and block.parts >= 1 and block.lanes >= 1
            for row in block.code:
                good = good and 0 <= row[4] < block.cells and row[0] > 0
                if row[0] > FUSED:
                    good = good and all(0 <= cell < block.cells for cell in row[1:4])
            for memory_row in block.memory:
                good = good and 0 <= memory_row[0] < self.buffers
            for load in block.loads:
                good = good and 0 <= load[0] < self.buffers
        if not good:
            raise KernelError("a replay program is not consistent")

    # Host steps -----------------------------------------------------------------------------------
    def _reader(self, slot: int) -> Reader:
        """Return how Python reads a slot."""
        lowering = self.lowering
        form = self.graph.forms[slot]
        view = lowering.views.get(slot)
        base = slot if view is None else view.base
        if view is None:
            return Reader(slot, form)
        dtype, shape = lowering.avals[slot]
        base_dtype, base_shape = lowering.avals[base]
        plain = view.offset == 0 and shape == base_shape and dtype == base_dtype
        if plain and view.strides == lowering.view(base).strides:
            return Reader(base, form)
        return Reader(base, form, (shape, dtype, view.offset, view.strides))

    def _host_step(self, step: Step, at: int) -> HostStep:
        item = step.items[0]
        assert item.kind == HOST
        node = self.graph.nodes[item.node]
        outputs = []
        for slot in item.outputs:
            dtype, shape = self.lowering.avals[slot]
            wanted = slot in self.last and slot not in self.passed
            buffer = self.places[slot].buffer if wanted and slot in self.dynamic else -1
            outputs.append(Output(slot, dtype, shape, buffer, wanted))
        return HostStep(node, [self._reader(slot) for slot in item.operands], outputs, self.into.get(at))

    # Accounts -------------------------------------------------------------------------------------
    def describe(self) -> list[dict[str, Any]]:
        """Return one description of each step, in order."""
        found = []
        for at, step in enumerate(self.schedule.steps):
            if step.guard is not None:
                found.append({"kind": "guard", "nodes": [step.guard.kind], "shape": (), "bytes": 0})
            elif step.is_run and step.items:
                names = list(dict.fromkeys(item.node for item in step.items))
                ops = [self.graph.nodes[i].op.name for i in names]
                written = [
                    s
                    for s in step.made
                    if s in self.schedule.stored and self.schedule.home[s] == at and s not in self.passed
                ]
                nbytes = sum(nbytes_of(self.lowering.avals[s]) for s in written)
                block = self.blocks[at]
                found.append({"kind": "run", "nodes": ops, "shape": block.full, "bytes": nbytes,
                              "instructions": len(block.code), "lanes": block.lanes})  # fmt: skip
            elif not step.is_run:
                node = self.graph.nodes[step.items[0].node]
                avals = [self.lowering.avals[s] for s in node.outputs]
                found.append({"kind": "host", "nodes": [node.op.name], "shape": avals[0][1],
                              "bytes": sum(map(nbytes_of, avals))})  # fmt: skip
        return found
