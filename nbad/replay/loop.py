"""The jitted loop: executes the steps of a program until Python is needed.

Owns the layout of the tables that drive it. A workspace has one frame of (address, length) pairs; `start` binds inputs and
results by the ids of their array objects, checks them, and runs the first steps, `advance` goes on after a step of
Python, `execute` runs parts of one large run (several threads may, on ranges of their own).
"""

from functools import cache
from typing import Any

from nbad._jit import SOURCE_HASH, cfunc, helper, jit
from nbad.frame import view_i8
from nbad.kernels.block import call_kernel
from nbad.kernels.native import (
    DATA_OFFSET,
    NDIM_OFFSET,
    SHAPE_OFFSET,
    load_int,
    load_int32,
    pointer_f4,
    pointer_f8,
    pointer_i4,
    pointer_i8,
)
from nbad.replay.blocks import CODE_WIDTH, FOLD, FUSED, LOAD
from nbad.replay.moving import (
    clear_bytes,
    copy_item,
    copy_rows,
    copy_strided,
    fill_number,
    pointer_u1,
    repeat,
)
from nbad.replay.tiles import BUFFER_WIDTH, PAIR_WIDTH

#: Places in the frame.
NAMES = ("steps", "runs", "table", "address", "ids", "inputs", "bound", "info")
AT = {name: 2 * i for i, name in enumerate(NAMES)}
_STEPS, _RUNS, _TABLE, _ADDRESS, _IDS, _INPUTS, _BOUND, _INFO = (AT[name] for name in NAMES)

#: Kinds of steps.
RUN, LARGE, TRUTH_GUARD, CONTENTS_GUARD, HOST_STEP, HOST_GUARD, END, PAIRED, CHAINED = range(9)
#: A step: kind, mask, number (run, host step or guard), nodes, first result to bind and their number, four details of a guard.
STEP_WIDTH = 10
#: Why the loop returned, in the lowest bits; the step stands above them.
DONE, NEEDS_PYTHON, GUARD_FAILED, FAILED, PAUSED, MISMATCH, HOT = range(7)
WHY_BITS = 3

#: A run: tables start at places in `table`.
(
    R_RANK,
    R_SHAPE,
    R_FULL_RANK,
    R_FULL,
    R_LANES,
    R_PARTS,
    R_PLACES,
    R_WIDTH,
    R_CODE,
    R_CODES,
    R_NUMBERS,
    R_NUMBER_COUNT,
    R_MEMORY,
    R_MEMORIES,
    R_LOADS,
    R_PARTIALS,
    R_PARTIAL_COUNT,
    R_FINALS,
    R_FINAL_COUNT,
    R_PARTIAL_AT,
    R_WORK,
    R_CELLS,
    R_LEFT,
) = range(23)
RUN_WIDTH = 23

#: What `info` holds.
I_SCRATCH, I_STEPS_RUN, I_STEPS_SKIPPED, I_NODES_RUN, I_NODES_SKIPPED, I_INPUTS, I_RESULTS = range(7)
INFO_SIZE = 8

#: An input: place in ids, buffer, id of the dtype object, itemsize, rank, shape.
INPUT_WIDTH = 5 + 64
_TYPE_OFFSET = 8
_FLAGS_OFFSET = DATA_OFFSET + 48
_DESCR_OFFSET = DATA_OFFSET + 40
_ALIGNED_CONTIGUOUS = 0x101
#: Instructions times elements between two returns, so that a signal is seen soon.
_BUDGET = 1 << 26

_LOAD, _FOLD, _FUSED, _CODE_WIDTH = LOAD, FOLD, FUSED, CODE_WIDTH
_PAIR_WIDTH, _BUFFER_WIDTH = PAIR_WIDTH, BUFFER_WIDTH


@helper("int64(int64, int64, int64, int64, int64)")
def fold(kernel, n, itemsize, source, target):
    """Reduce n elements to the first one at `target`, by halves; source and target may be the same memory."""
    if n == 1:
        copy_item(itemsize, source, target)
        return 1
    while n > 1:
        half = n // 2
        if 2 * half != n:
            copy_item(itemsize, source + half * itemsize, target + half * itemsize)
        if call_kernel(kernel, half, source, source + (n - half) * itemsize, source, target) != 1:
            return 0
        source = target
        n -= half
    return 1


@helper("int64(int64, int64, int64, int64, int64, int64)")
def load_part(frame, run, load, target, offset, count):
    """Return the address of `count` elements from flat position `offset` of a strided, broadcast or padded array.

    They are gathered at `target` unless they lie side by side in memory.
    """
    runs, table, address = view_i8(frame, _RUNS), view_i8(frame, _TABLE), view_i8(frame, _ADDRESS)
    at = runs[run + R_LOADS] + load * (5 + 4 * runs[run + R_FULL_RANK])
    itemsize, bounded, rank = table[at + 2], table[at + 3], table[at + 4]
    shape = at + 5
    steps = shape + rank
    first = steps + rank
    end = first + rank
    base = address[table[at]] + table[at + 1]
    inner, step = table[shape + rank - 1], table[steps + rank - 1]
    rows, row_step = (table[shape + rank - 2], table[steps + rank - 2]) if rank > 1 else (1, 0)
    done = 0
    while done < count:
        lane = (offset + done) % inner
        rest = (offset + done) // inner
        row = rest % rows
        rest //= rows
        above = base
        within = True  # the window, but for the last two dimensions
        for d in range(rank - 3, -1, -1):
            length = table[shape + d]
            place = rest % length
            above += place * table[steps + d]
            rest //= length
            if bounded and (place < table[first + d] or place >= table[end + d]):
                within = False
        while row < rows and done < count:
            source = above + row * row_step + lane * step
            length = min(inner - lane, count - done)
            to = target + done * itemsize
            before, after = 0, length
            if bounded:
                before = min(max(table[first + rank - 1] - lane, 0), length)
                after = min(max(table[end + rank - 1] - lane, before), length)
                if not within or (
                    rank > 1 and (row < table[first + rank - 2] or row >= table[end + rank - 2])
                ):
                    before = after = length
            if after - before == count and step == itemsize:
                return source
            if bounded:
                clear_bytes(before * itemsize, to)
                clear_bytes((length - after) * itemsize, to + after * itemsize)
            whole = min(rows - row, (count - done) // inner)
            if bounded or lane > 0 or whole < 2:
                copy_strided(itemsize, after - before, source + before * step, step, to + before * itemsize)
            elif row_step == 0:
                copy_strided(itemsize, inner, source, step, to)
                repeat(itemsize, inner, whole * inner, to)
                length, row = whole * inner, row + whole - 1
            elif inner <= 8:
                copy_rows(itemsize, whole, inner, source, row_step, step, to)
                length, row = whole * inner, row + whole - 1
            else:
                copy_strided(itemsize, length, source, step, to)
            done += length
            lane = 0
            row += 1
    return target


@jit("int64(int64, int64, int64, int64, int64)")
def execute(frame, number, lo, hi, scratch):
    """Execute parts `lo` to `hi` of a run with registers in the memory at `scratch`; return 1, or 0 on failure."""
    runs, table, address = view_i8(frame, _RUNS), view_i8(frame, _TABLE), view_i8(frame, _ADDRESS)
    run = number * RUN_WIDTH
    rank, shape = runs[run + R_RANK], runs[run + R_SHAPE]
    places, width, lanes = runs[run + R_PLACES], runs[run + R_WIDTH], runs[run + R_LANES]
    cells = pointer_i8(scratch)
    index = scratch + 8 * runs[run + R_CELLS]
    data = index + 8 * rank
    data += (64 - data % 64) % 64
    for p in range(places):
        cells[p] = data + p * width
    inner = table[shape + rank - 1]
    longest = min(lanes, inner)
    numbers = runs[run + R_NUMBERS]
    for i in range(runs[run + R_NUMBER_COUNT]):
        at = numbers + 5 * i
        source = address[table[at + 1]] + table[at + 2]
        fill_number(source, table[at + 3], table[at + 4], longest, cells[table[at]])
    segments = (inner + lanes - 1) // lanes
    memory, memories = runs[run + R_MEMORY], runs[run + R_MEMORIES]
    partials = runs[run + R_PARTIALS]
    sums = runs[run + R_PARTIAL_COUNT]
    code, codes = runs[run + R_CODE], runs[run + R_CODES]
    places_in = pointer_i8(index)
    tables = pointer_i8(frame)[_TABLE]
    for part in range(lo, hi):
        row = part // segments
        start = (part - row * segments) * lanes
        n = min(lanes, inner - start)
        offset = row * inner + start
        for d in range(rank - 2, -1, -1):
            length = table[shape + d]
            places_in[d] = row % length
            row //= length
        places_in[rank - 1] = start
        for i in range(memories):
            at = memory + (2 + rank) * i
            pointer = address[table[at]] + table[at + 1]
            for d in range(rank):
                pointer += places_in[d] * table[at + 2 + d]
            cells[places + i] = pointer
        column = address[0] + runs[run + R_PARTIAL_AT]
        for i in range(sums):
            itemsize = table[partials + i]
            cells[places + memories + i] = column + part * itemsize
            column += runs[run + R_PARTS] * itemsize
            column += (64 - column % 64) % 64
        at = code - _CODE_WIDTH
        while at + _CODE_WIDTH < code + _CODE_WIDTH * codes:
            at += _CODE_WIDTH
            kernel = table[at]
            out = cells[table[at + 4]]
            if kernel > _FUSED:
                a, b, c = cells[table[at + 1]], cells[table[at + 2]], cells[table[at + 3]]
                if call_kernel(kernel, n, a, b, c, out) != 1:
                    return 0
            elif kernel == _FUSED:
                fused = table[at + 3]
                if fused != 0:  # compiled: its instructions are left out
                    if call_kernel(fused, n, scratch, tables + 8 * table[at + 1], 0, 0) != 1:
                        return 0
                    at += _CODE_WIDTH * table[at + 2]
            elif kernel == _LOAD:
                target = cells[table[at + 2]]
                cells[table[at + 4]] = load_part(frame, run, table[at + 1], target, offset, n)
            elif kernel == _FOLD:
                extra = cells[table[at + 2]]
                if fold(table[at + 5], n, table[at + 3], cells[table[at + 1]], extra) != 1:
                    return 0
                copy_item(table[at + 3], extra, out)
            else:
                return 0
    return 1


@cache
def _callback() -> Any:
    def execute_parts(frame, number, lo, hi, scratch):
        return execute(frame, number, lo, hi, scratch)

    execute_parts.__qualname__ = f"execute_parts_{SOURCE_HASH}"
    return cfunc("int64(int64, int64, int64, int64, int64)")(execute_parts)


def execute_address() -> int:
    """Return the address of `execute`, for jitted code of other modules."""
    address: int = _callback().address
    return address


@helper("int64(int64, int64, int64)")
def first_element(frame, run, part):
    """Return the flat position where a part begins."""
    runs, table = view_i8(frame, _RUNS), view_i8(frame, _TABLE)
    inner = table[runs[run + R_SHAPE] + runs[run + R_RANK] - 1]
    lanes = runs[run + R_LANES]
    segments = (inner + lanes - 1) // lanes
    row = part // segments
    return row * inner + min((part - row * segments) * lanes, inner)


@helper("int64(int64, int64, int64)")
def part_of(frame, run, element):
    """Return the part that holds a flat position."""
    runs, table = view_i8(frame, _RUNS), view_i8(frame, _TABLE)
    inner = table[runs[run + R_SHAPE] + runs[run + R_RANK] - 1]
    lanes = runs[run + R_LANES]
    segments = (inner + lanes - 1) // lanes
    row = element // inner
    return row * segments + (element - row * inner) // lanes


@jit("int64(int64, int64, int64, int64, int64, int64)")
def execute_pair(frame, at, lo, hi, scratch, buffers):
    """Execute parts `lo` to `hi` of the second of two runs, tile by tile after what they need of the first.

    The frame is the thread's own, with addresses of its own; `buffers` is the memory of its tile.
    """
    table, address = view_i8(frame, _TABLE), view_i8(frame, _ADDRESS)
    one, two = table[at], table[at + 1]
    width, other_width, rows = table[at + 2], table[at + 3], table[at + 4]
    nearest, farthest, parts, count = table[at + 5], table[at + 6], table[at + 7], table[at + 8]
    part = lo
    while part < hi:
        end = min(part + parts, hi)
        top = first_element(frame, two * RUN_WIDTH, part) // other_width - farthest
        bottom = (first_element(frame, two * RUN_WIDTH, end) + other_width - 1) // other_width - nearest
        top, bottom = max(top, 0), min(bottom, rows)
        if bottom > top:
            first = part_of(frame, one * RUN_WIDTH, top * width)
            last = part_of(frame, one * RUN_WIDTH, bottom * width - 1) + 1
            begin = first_element(frame, one * RUN_WIDTH, first)
            for i in range(count):
                detail = at + _PAIR_WIDTH + _BUFFER_WIDTH * i
                address[table[detail]] = buffers + table[detail + 2] - begin * table[detail + 1]
            if execute(frame, one, first, last, scratch) != 1:
                return 0
        if execute(frame, two, part, end, scratch) != 1:
            return 0
        part = end
    return 1


@jit("int64(int64, int64)")
def finish(frame, number):
    """Add up what the parts of a run left, in pairs; return 1, or 0 on failure."""
    runs, table, address = view_i8(frame, _RUNS), view_i8(frame, _TABLE), view_i8(frame, _ADDRESS)
    run = number * RUN_WIDTH
    column = address[0] + runs[run + R_PARTIAL_AT]
    parts = runs[run + R_PARTS]
    for i in range(runs[run + R_FINAL_COUNT]):
        at = runs[run + R_FINALS] + 4 * i
        itemsize = table[at + 1]
        if fold(table[at], parts, itemsize, column, column) != 1:
            return 0
        copy_item(itemsize, column, address[table[at + 2]] + table[at + 3])
        column += parts * itemsize
        column += (64 - column % 64) % 64
    return 1


@helper("int64(int64, int64)")
def check_guard(frame, step):
    """Return whether the value of a guard is what was seen."""
    steps, address = view_i8(frame, _STEPS), view_i8(frame, _ADDRESS)
    at = address[steps[step + 6]] + steps[step + 7]
    if steps[step] == CONTENTS_GUARD:
        seen = address[1] + steps[step + 8]
        for i in range(steps[step + 9]):
            if pointer_u1(at + i)[0] != pointer_u1(seen + i)[0]:
                return 0
        return 1
    kind = steps[step + 8]
    if kind == 0 or kind == 2:
        truth = pointer_f4(at)[0] != 0 or (kind == 2 and pointer_f4(at)[1] != 0)
    elif kind == 1 or kind == 3:
        truth = pointer_f8(at)[0] != 0 or (kind == 3 and pointer_f8(at)[1] != 0)
    elif kind == 4:
        truth = pointer_u1(at)[0] != 0
    elif kind == 5:
        truth = pointer_i4(at)[0] != 0
    else:
        truth = pointer_i8(at)[0] != 0
    return 1 if truth == (steps[step + 9] != 0) else 0


@jit("int64(int64, int64, int64)")
def advance(frame, pc, changed):
    """Execute steps from `pc` on until Python is needed; return the step and why, packed."""
    steps, info, runs = view_i8(frame, _STEPS), view_i8(frame, _INFO), view_i8(frame, _RUNS)
    address, ids, bound = view_i8(frame, _ADDRESS), view_i8(frame, _IDS), view_i8(frame, _BOUND)
    work = 0
    if pc > 0:  # what the step of Python before it has left
        step = (pc - 1) * STEP_WIDTH
        first = steps[step + 4]
        for i in range(first, first + steps[step + 5]):
            if ids[bound[2 * i]] != 0:
                address[bound[2 * i + 1]] = load_int(ids[bound[2 * i]] + DATA_OFFSET)
    while True:
        step = pc * STEP_WIDTH
        kind = steps[step]
        if kind == END:
            return (pc << WHY_BITS) | DONE
        if steps[step + 1] & changed == 0:
            info[I_STEPS_SKIPPED] += 1
            info[I_NODES_SKIPPED] += steps[step + 3]
            pc += 1
            continue
        if kind == RUN:
            number = steps[step + 2]
            run = number * RUN_WIDTH
            if work > _BUDGET:
                return (pc << WHY_BITS) | PAUSED
            if runs[run + R_LEFT] > 0:
                runs[run + R_LEFT] = max(runs[run + R_LEFT] - runs[run + R_WORK], 1)
                if runs[run + R_LEFT] == 1:  # until it is compiled
                    return (pc << WHY_BITS) | HOT
            work += runs[run + R_WORK]
            if execute(frame, number, 0, runs[run + R_PARTS], info[I_SCRATCH]) != 1:
                return (pc << WHY_BITS) | FAILED
            if runs[run + R_FINAL_COUNT] > 0 and finish(frame, number) != 1:
                return (pc << WHY_BITS) | FAILED
        elif kind in (TRUTH_GUARD, CONTENTS_GUARD):
            if check_guard(frame, step) != 1:
                return (pc << WHY_BITS) | GUARD_FAILED
        else:
            return (pc << WHY_BITS) | NEEDS_PYTHON
        info[I_STEPS_RUN] += 1
        info[I_NODES_RUN] += steps[step + 3]
        pc += 1


@jit("int64(int64, int64)")
def start(frame, changed):
    """Bind inputs and results by the ids of their arrays, check the inputs, and run from the first step on."""
    info, inputs = view_i8(frame, _INFO), view_i8(frame, _INPUTS)
    address, ids, bound = view_i8(frame, _ADDRESS), view_i8(frame, _IDS), view_i8(frame, _BOUND)
    info[I_STEPS_RUN] = info[I_STEPS_SKIPPED] = info[I_NODES_RUN] = info[I_NODES_SKIPPED] = 0
    array_type = ids[0]
    for i in range(info[I_INPUTS]):
        at = INPUT_WIDTH * i
        array = ids[inputs[at]]
        if load_int(array + _TYPE_OFFSET) != array_type:
            return (i << WHY_BITS) | MISMATCH
        rank = inputs[at + 4]
        wrong = load_int(array + _DESCR_OFFSET) != inputs[at + 2]
        wrong = wrong or load_int32(array + NDIM_OFFSET) != rank
        wrong = wrong or load_int32(array + _FLAGS_OFFSET) & _ALIGNED_CONTIGUOUS != _ALIGNED_CONTIGUOUS
        if not wrong:
            shape = load_int(array + SHAPE_OFFSET)
            for d in range(rank):
                wrong = wrong or load_int(shape + 8 * d) != inputs[at + 5 + d]
        if wrong:
            return (i << WHY_BITS) | MISMATCH
        address[inputs[at + 1]] = load_int(array + DATA_OFFSET)
    for i in range(info[I_RESULTS]):
        address[bound[2 * i + 1]] = load_int(ids[bound[2 * i]] + DATA_OFFSET)
    return advance(frame, 0, changed)
