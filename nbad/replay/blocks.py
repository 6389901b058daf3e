"""Block programs: a run of instructions as tables for the executor.

Owns the choice of registers, casts, loads and block size, and the layout of the tables. Cells are what instructions name:
first the scratch registers, then pointers into memory that move from part to part.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.kernels.block import DTYPES, ID, KERNELS, ensure
from nbad.replay.casts import BOOL, KINDS, ensure_cast, kind_of
from nbad.replay.fused import grouped
from nbad.replay.fusing import Schedule, Step
from nbad.replay.lowering import ELEMENT, PAD, REDUCE, Item
from nbad.replay.registers import MEMORY, NUMBER, SCRATCH, Block, Register, place_registers
from nbad.replay.storage import Place

#: Bytes of all scratch registers of a block together.
_BLOCK_BYTES = 1 << 16
_SHORTEST, _LONGEST = 64, 1024
#: Elements of the innermost dimension from which on parts follow the rows.
_ROW = 64
#: In the place of a kernel's address: a strided load, a fold of a block to one number, a group that may be compiled.
LOAD, FOLD, FUSED = 1, 2, 3
CODE_WIDTH = 6


class Emitter:
    """Writes the block program of one run.

    Parameters
    ----------
    schedule : Schedule
        Where the run stands.
    at : int
        Its number among the steps.
    place_of : callable
        Gives the `Place` of a slot that has memory.
    pool : callable
        Puts a number of a dtype into the pool of constants and returns its offset.
    slab : int
        Elements of contiguous pieces whose borders are also borders of parts; 0 if there are none.
    """

    def __init__(
        self,
        schedule: Schedule,
        at: int,
        place_of: Callable[[int], Place],
        pool: Callable[[Any, np.dtype[Any]], int],
        slab: int = 0,
    ) -> None:
        self.schedule = schedule
        self.at = at
        self.slab = slab
        self.step: Step = schedule.steps[at]
        self.avals = schedule.lowering.avals
        self.place_of = place_of
        self.pool = pool
        assert self.step.key is not None
        self.shape: tuple[int, ...] = self.step.key[0]
        self.registers: list[Register] = []
        self.rows: list[list[Any]] = []  # (what, kernel or cast, operand registers, result register)
        self.known: dict[tuple[int, int], int] = {}
        self.numbers: dict[Any, int] = {}
        self.sums: list[tuple[int, str, int, int]] = []
        self.windows: dict[int, tuple[tuple[int, int, int], ...]] = {}

    # Dimensions -----------------------------------------------------------------------------------
    def _operand(
        self, slot: int, window: tuple[tuple[int, int, int], ...] = ()
    ) -> tuple[Place, tuple[int, ...], tuple[tuple[int, int], ...] | None]:
        """Return the place of a slot in memory, its strides over the run's dimensions, and the window outside which it is 0."""
        place = self.place_of(slot)
        shape = self.avals[slot][1]
        if window:
            strides, bounds, offset = [], [], place.offset
            for first, end, own in window:
                stride = place.strides[own] if own >= 0 else 0
                offset -= first * stride
                strides.append(stride)
                bounds.append((first, end))
            whole = self.full_shape
            keep = [d for d, n in enumerate(whole) if n != 1]
            return (
                Place(place.buffer, offset, place.strides),
                tuple(strides[d] for d in keep),
                tuple(bounds[d] for d in keep),
            )
        # Right-aligned with the run's shape; ones are dropped from both.
        whole = self.full_shape
        lead = len(whole) - len(shape)
        strides = []
        for d, n in enumerate(whole):
            if n == 1:
                continue
            own = d - lead
            strides.append(place.strides[own] if own >= 0 and shape[own] != 1 else 0)
        return place, tuple(strides), None

    def emit(self) -> Block:
        """Return the tables."""
        fused = self._find_fused()
        for item in self.step.items:
            self.full_shape = self._item_shape(item)
            if item.kind == REDUCE:
                self._reduce(item)
            elif item.kind == PAD:
                self._pad(item)
            elif item.outputs[0] not in fused:
                self._element(item, fused)
        return self._finish()

    def _item_shape(self, item: Item) -> tuple[int, ...]:
        return self.avals[item.operands[0] if item.kind == REDUCE else item.outputs[0]][1]

    # Instructions ---------------------------------------------------------------------------------
    def _find_fused(self) -> dict[int, Item]:
        """Return the products that are only added to something: they become part of the addition."""
        uses: dict[int, int] = {}
        makers: dict[int, Item] = {}
        for item in self.step.items:
            for slot in item.operands:
                uses[slot] = uses.get(slot, 0) + 1
                base = self.schedule.base(slot)
                if base != slot:
                    uses[base] = 2
            if item.kind == ELEMENT and item.kernel in ("mul", "square"):
                makers[item.outputs[0]] = item
        fused: dict[int, Item] = {}
        for item in self.step.items:
            if item.kind != ELEMENT or item.kernel not in ("add", "sub"):
                continue
            for slot in reversed(item.operands) if item.kernel == "add" else item.operands[1:]:
                maker = makers.get(slot)
                if maker is None or uses[slot] != 1 or maker.code != item.code or slot in fused:
                    continue
                if self.schedule.stored is not None and self._is_stored(slot):
                    continue
                fused[slot] = maker
                break
        return fused

    def _is_stored(self, slot: int) -> bool:
        return slot in self.schedule.stored and self.schedule.home[slot] == self.at

    def _new(self, where: int, kind: int, **more: Any) -> int:
        self.registers.append(Register(where, kind, **more))
        return len(self.registers) - 1

    def _element(self, item: Item, fused: dict[int, Item]) -> None:
        out = item.outputs[0]
        kernel, operands = item.kernel, list(item.operands)
        if kernel in ("add", "sub"):
            for k, slot in enumerate(operands):
                if slot in fused:
                    product = fused[slot]
                    factors = product.operands if product.kernel == "mul" else product.operands * 2
                    operands = [*factors, operands[1 - k]]
                    kernel = "muladd" if item.kernel == "add" else "nmuladd"
                    break
        if kernel in ("real", "imag"):
            source = self._read(operands[0], -1)
            result = self._result(out, item.code)
            self.rows.append(["cast", (self.registers[source].kind, item.code, kernel), [source], result])
            self._keep(out, item.code, result)
            return
        read = [self._read(slot, item.code) for slot in operands]
        if kernel == "copy" and not self._is_stored(out):
            self.known[out, item.code] = read[0]
            self.known[out, -1] = read[0]
            return
        result = self._result(out, item.code)
        self.rows.append(["kernel", (kernel, item.code), read, result])
        self._keep(out, item.code, result)

    def _result(self, slot: int, code: int) -> int:
        """Return a register for the result: memory, where it is to be stored in this dtype."""
        if self._is_stored(slot) and self.avals[slot][0] == KINDS[code]:
            place, strides, _ = self._operand(slot)
            return self._new(MEMORY, code, buffer=place.buffer, offset=place.offset, strides=strides)
        return self._new(SCRATCH, code)

    def _keep(self, slot: int, code: int, register: int) -> None:
        self.known[slot, code] = register
        self.known[slot, -1] = register
        if self._is_stored(slot) and self.registers[register].where == SCRATCH:
            kind = kind_of(self.avals[slot][0])
            place, strides, _ = self._operand(slot)
            target = self._new(MEMORY, kind, buffer=place.buffer, offset=place.offset, strides=strides)
            self.rows.append(["cast", (code, kind, "real"), [register], target])

    def _read(self, slot: int, code: int) -> int:
        """Return a register of the dtype `code` (-1: whatever it has) that holds a slot."""
        found = self.known.get((slot, code))
        if found is not None:
            return found
        base = self.schedule._source(slot)
        if base is not None and base != slot and (base, -1) in self.known:
            return self._read(base, code)
        native = self.known.get((slot, -1))
        if native is None:
            native = self._from_memory(slot, code)
            if self.registers[native].where == NUMBER:
                self.known[slot, code] = native
                return native
            self.known[slot, -1] = native
        kind = self.registers[native].kind
        if code < 0 or kind == code:
            self.known[slot, code] = native
            return native
        result = self._new(SCRATCH, code)
        self.rows.append(["cast", (kind, code, "real"), [native], result])
        self.known[slot, code] = result
        return result

    def _from_memory(self, slot: int, code: int) -> int:
        dtype = self.avals[slot][0]
        value = self.schedule.lowering.constants.get(slot)
        wanted = code if code >= 0 else min(kind_of(dtype), 3)
        if value is not None and self._is_uniform(value):
            number = np.reshape(np.asarray(value), -1)[0]
            return self._number(
                0, ("value", np.asarray(number, KINDS[wanted]).tobytes(), wanted), wanted, number
            )
        place, strides, _ = self._operand(slot)
        kind = kind_of(dtype)
        if not any(strides):
            if math.prod(self.shape) == 1 and kind == wanted:
                return self._new(MEMORY, kind, buffer=place.buffer, offset=place.offset, strides=strides)
            key = (place.buffer, place.offset, kind, wanted)
            if key not in self.numbers:
                self.numbers[key] = self._new(
                    NUMBER, wanted, buffer=place.buffer, offset=place.offset, partial=kind
                )
            return self.numbers[key]
        return self._load(place, strides, None, kind)

    @staticmethod
    def _is_uniform(value: Any) -> bool:
        return (
            not isinstance(value, np.ndarray)
            or value.size == 1
            or not any(s for s, n in zip(value.strides, value.shape, strict=True) if n > 1)
        )

    def _number(self, buffer: int, key: Any, code: int, value: Any) -> int:
        if key not in self.numbers:
            offset = self.pool(value, KINDS[code])
            where = MEMORY if math.prod(self.shape) == 1 else NUMBER
            strides = (0,) * len(self.shape) if where == MEMORY else ()
            self.numbers[key] = self._new(where, code, buffer=1, offset=offset, strides=strides, partial=-1)
            if where == NUMBER:
                self.registers[self.numbers[key]].partial = code
        return self.numbers[key]

    def _load(self, place: Place, strides: tuple[int, ...], bounds: Any, kind: int) -> int:
        """Return a register for elements in memory; whether a pointer is enough is decided when all strides are known."""
        register = self._new(MEMORY, kind, buffer=place.buffer, offset=place.offset, strides=strides)
        row = ["load", (strides, bounds), [], register]
        self.rows.append(row)
        return register

    def _pad(self, item: Item) -> None:
        slot, out = item.operands[0], item.outputs[0]
        place, strides, bounds = self._operand(slot, item.window)
        kind = kind_of(self.avals[slot][0])
        loaded = self._load(place, strides, bounds, kind)
        if self._is_stored(out):
            result = self._result(out, kind)
            self.rows.append(["kernel", ("copy", kind), [loaded], result])
            loaded = result
        self._keep(out, kind, loaded)

    def _reduce(self, item: Item) -> None:
        source = self._read(item.operands[0], item.code)
        place = self.place_of(item.outputs[0])
        number = len(self.sums)
        self.sums.append((item.code, item.kernel, place.buffer, place.offset))
        target = self._new(MEMORY, item.code, partial=number)
        if item.kernel == "sum":
            self.rows.append(["kernel", ("sum", item.code), [source], target])
        else:
            self.rows.append(["fold", (item.kernel, item.code), [source], target])

    # Tables ---------------------------------------------------------------------------------------
    def _finish(self) -> Block:
        shape, merged = self._collapse()
        size = math.prod(shape)
        rows_mode = len(shape) > 1 and shape[-1] >= _ROW
        iteration = shape if rows_mode else (size,)
        block = Block(iteration, shape)
        self._choose_pointers(shape, merged, rows_mode)
        self.rows, self.groups = grouped(self.rows, self.registers)
        block.places = place_registers(self.registers, self.rows)
        width = max((KINDS[r.kind].itemsize for r in self.registers if r.place >= 0), default=8)
        lanes = _BLOCK_BYTES // (width * max(block.places, 1))
        lanes = min(max(lanes - lanes % 64, _SHORTEST), _LONGEST)
        inner = iteration[-1]
        pieces = -(-inner // lanes)
        lanes = -(-inner // pieces)
        lanes = inner if pieces == 1 else lanes + -lanes % 16
        block.lanes = lanes
        block.parts = -(-inner // lanes) * (size // inner)
        block.width = lanes * width + -(lanes * width) % 64
        self._write(block, shape, merged, rows_mode)
        return block

    def _collapse(self) -> tuple[tuple[int, ...], list[list[int]]]:
        """Return the iteration shape with mergeable dimensions merged, and which ones they were."""
        shape = self.shape or (1,)
        if not self.shape:
            for register in self.registers:
                if register.where == MEMORY and register.partial < 0:
                    register.strides = (0,)
            for row in self.rows:
                if row[0] == "load":
                    bounds = row[1][1]
                    row[1] = ((0,), None if bounds is None else ((0, 1),))
            return shape, [[0]]
        groups = [[0]]
        vectors = [r.strides for r in self.registers if r.where == MEMORY and r.partial < 0]
        bounds = [row[1][1] for row in self.rows if row[0] == "load" and row[1][1] is not None]
        for d in range(1, len(shape)):
            whole = all(b[d] == (0, shape[d]) for b in bounds) and math.prod(shape[d:]) != self.slab
            if whole and all(v[d - 1] == v[d] * shape[d] for v in vectors):
                groups[-1].append(d)
            else:
                groups.append([d])
        return tuple(math.prod(shape[d] for d in group) for group in groups), groups

    def _choose_pointers(self, shape: tuple[int, ...], merged: list[list[int]], rows_mode: bool) -> None:
        """Turn loads into mere pointers where the innermost elements lie side by side."""
        kept = []
        for row in self.rows:
            if row[0] != "load":
                kept.append(row)
                continue
            register = self.registers[row[3]]
            strides, bounds = row[1]
            itemsize = KINDS[register.kind].itemsize
            short = [strides[group[-1]] for group in merged]
            flat = len(shape) == 1 or all(
                s == t
                for s, t in zip(
                    short[:-1], (short[d + 1] * shape[d + 1] for d in range(len(shape) - 1)), strict=True
                )
            )
            if bounds is None and short[-1] == itemsize and (rows_mode or flat):
                continue
            register.where = SCRATCH
            clipped = None
            if bounds is not None:
                clipped = []
                for group in merged:
                    inner = math.prod(self.shape[d] for d in group[1:])
                    first, end = bounds[group[0]]
                    clipped.append((first * inner, end * inner))
            row[1] = (register.buffer, register.offset, itemsize, short, clipped)
            kept.append(row)
        self.rows = kept

    def _write(self, block: Block, shape: tuple[int, ...], merged: list[list[int]], rows_mode: bool) -> None:
        cells: dict[int, int] = {}
        partial_cells: dict[int, int] = {}
        pointers: dict[Any, int] = {}
        single = block.parts == 1
        for index, register in enumerate(self.registers):
            if register.where != MEMORY:
                cells[index] = register.place
                continue
            if register.partial >= 0 and not single:
                continue
            if register.partial >= 0:
                _, _, buffer, offset = self.sums[register.partial]
                strides = [0] * len(block.shape)
            else:
                buffer, offset = register.buffer, register.offset
                strides = [register.strides[group[-1]] for group in merged]
                if not rows_mode:
                    strides = strides[-1:]
            key = (buffer, offset, *strides)
            if key not in pointers:
                pointers[key] = block.places + len(block.memory)
                block.memory.append(list(key))
            cells[index] = pointers[key]
        if not single:
            for index, register in enumerate(self.registers):
                if register.where == MEMORY and register.partial >= 0:
                    code, kernel, buffer, offset = self.sums[register.partial]
                    itemsize = DTYPES[code].itemsize
                    partial_cells[index] = block.places + len(block.memory) + len(block.partials)
                    block.partials.append(itemsize)
                    name = "add" if kernel == "sum" else kernel
                    block.finals.append([ensure(ID[name], code), itemsize, buffer, offset])
        cells.update(partial_cells)
        # What is loaded has a cell of its own: it points into memory where that is possible.
        loaded = [row[3] for row in self.rows if row[0] == "load"]
        cells.update(
            (r, block.places + len(block.memory) + len(block.partials) + k) for k, r in enumerate(loaded)
        )
        block.loaded = len(loaded)
        for register in self.registers:
            if register.where == NUMBER and register.place >= 0:
                block.numbers.append(
                    [register.place, register.buffer, register.offset, register.partial, register.kind]
                )
        for at, (what, detail, operands, result) in enumerate(self.rows):
            if (
                at in self.groups
            ):  # where its cells stand, how many rows are left out, the address of its kernel
                group = self.groups[at]
                block.groups.append((len(block.code), group.text, [cells[r] for r in group.registers]))
                block.code.append([FUSED, 0, group.count, 0, 0, 0])
            read = [cells[r] for r in operands]
            out = cells[result]
            if what == "load":
                block.code.append([LOAD, len(block.loads), self.registers[result].place, 0, out, 0])
                block.loads.append(_load_row(shape, *detail))
            elif what == "fold":
                name, code, extra = detail
                block.code.append([FOLD, read[0], extra, DTYPES[code].itemsize, out, ensure(ID[name], code)])
            else:
                if what == "cast":
                    address = ensure_cast(*detail)
                else:
                    name, code = detail
                    address = ensure(ID[name], code)
                    assert len(read) == KERNELS[ID[name]].arity
                read += [read[0]] * (3 - len(read))
                block.code.append([address, *read, out, 0])


def _load_row(
    shape: tuple[int, ...], buffer: int, offset: int, itemsize: int, strides: list[int], bounds: Any
) -> list[int]:
    """Return a load as the loop wants it, with as few dimensions as this load needs, of the length of any load of the run."""
    lengths, steps = [shape[0]], [strides[0]]
    limits = [(0, n) for n in shape] if bounds is None else list(bounds)
    kept = [limits[0]]
    for n, step, (first, end) in zip(shape[1:], strides[1:], limits[1:], strict=True):
        if (first, end) == (0, n) and steps[-1] == step * n:
            lengths[-1], steps[-1], kept[-1] = lengths[-1] * n, step, (kept[-1][0] * n, kept[-1][1] * n)
        else:
            lengths.append(n)
            steps.append(step)
            kept.append((first, end))
    row = [buffer, offset, itemsize, int(bounds is not None), len(lengths), *lengths, *steps]
    row += [first for first, _ in kept] + [end for _, end in kept]
    return row + [0] * (5 + 4 * len(shape) - len(row))


__all__ = ["BOOL", "CODE_WIDTH", "FOLD", "FUSED", "LOAD", "Block", "Emitter"]
