"""The jitted loops: the sweep over nodes, and the execution of planned runs block by block.

Owns what happens between two returns to Python. `advance` walks the nodes backwards, tests the bits of `needs`, runs
what it can and returns the first node that needs Python. `execute` runs a planned program on a range of blocks; several threads
may do so at once on ranges of their own.
"""

import numpy as np

from nbad import frame as F
from nbad._jit import helper
from nbad.activity import ELEMENTWISE_OP, HOST_OP, SPREAD_OP
from nbad.frame import AT, ENTRY_NAMES, call_entry, entry, needed, view_f8, view_i1, view_i2, view_i4, view_i8
from nbad.kernels.block import ID, call_kernel
from nbad.kernels.native import DATA_OFFSET, load_int, pointer_f4, pointer_f8, pointer_i4, pointer_i8
from nbad.plan import FAILED, ON_HOST, PLANNED, SUM_ROW, any_needed

#: What `advance` returns besides the NEED codes of `nbad.plan`.
DONE, HOST_NODE, LARGE_RUN, NEED_ARENA, NEED_SCRATCH, PAUSE = range(10, 16)


#: Elements up to which a run is executed in place, without asking Python for buffers.
SMALL = 2048
#: Nodes between two returns, so that a signal is seen soon.
STRIDE = 1 << 16

_OP, _EDGE_START, _EDGE_SLOT, _OUT_START = AT["op"], AT["edge_start"], AT["edge_slot"], AT["out_start"]
_AVAL, _AVAL_DTYPE, _AVAL_SIZE = AT["aval"], AT["aval_dtype"], AT["aval_size"]
_AVAL_START, _AVAL_SHAPE, _AVAL_NDIM = AT["aval_start"], AT["aval_shape"], AT["aval_ndim"]
_COT_ADDRESS, _COT_KIND, _NATIVE, _OUTPUTS, _COUNTS = (
    AT[n] for n in ("cot_address", "cot_kind", "native", "outputs", "counts")
)
_KERNELS, _ROWS, _V_KIND, _V_ADDRESS, _V_PLACE = (
    AT[n] for n in ("kernels", "rows", "v_kind", "v_address", "v_place")
)
_NUMBERS, _LOADS, _OUTS, _INFO, _VISITED = (AT[n] for n in ("numbers", "loads", "outs", "info", "visited"))

I_ROWS, I_REGISTERS, I_OUTS, I_SUMS, I_TEMPS = F.ROWS, F.REGISTERS, F.OUTS, F.SUMS, F.TEMPS
I_BOTTOM, I_DTYPE, I_AVAL, I_SIZE, I_PLACES, I_BLOCK = F.BOTTOM, F.DTYPE, F.AVAL, F.SIZE, F.PLACES, F.BLOCK
I_RELEASED, I_ARENA, I_ARENA_END, I_NEED_A, I_NEED_B = F.RELEASED, F.ARENA, F.ARENA_END, F.NEED_A, F.NEED_B
I_SCRATCH, I_SCRATCH_BYTES, I_PARTIALS, I_NODE = F.SCRATCH, F.SCRATCH_BYTES, F.PARTIALS, F.NODE
I_BLOCKS, I_SCRATCH_NEED = F.BLOCKS, F.SCRATCH_NEED
_NO_COTANGENT, _AT_ADDRESS, _SPREAD, _IN_OBJECT = F.NO_COTANGENT, F.AT_ADDRESS, F.SPREAD, F.IN_OBJECT
_SCRATCH_REGISTER, _MEMORY, _NUMBER, _LOADED = F.SCRATCH_REGISTER, F.MEMORY, F.NUMBER, F.LOADED
_FULL, _SAME, _PASS, _SUM = F.FULL, F.SAME, F.PASS, F.SUM
_LOAD, _LOAD_WIDTH, _OUT_WIDTH = F.LOAD, F.LOAD_WIDTH, F.OUT_WIDTH
_E_PLAN_RUN, _E_LOAD_BLOCK, _E_EXECUTE, _E_RUN_SMALL, _E_RUN_NATIVE, _E_REDUCE_SUMS, _E_SETTLE_USED = (
    ENTRY_NAMES.index(n)
    for n in ("plan_run", "load_block", "execute", "run_small", "run_native", "reduce_sums", "settle_used")
)
_KERNEL_SUM, _KERNEL_ADD = ID["sum"], ID["add"]


@entry(4)
def load_block(frame, load, target, offset, count):
    """Copy `count` elements from flat position `offset` of a strided or broadcast array to `target`."""
    info = view_i8(frame, _INFO)
    loads = view_i8(frame, _LOADS)
    dtype = info[I_DTYPE]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    at = _LOAD_WIDTH * load
    rank = loads[at + 1]
    first = view_i8(frame, _AVAL_START)[info[I_AVAL]]
    shape = view_i8(frame, _AVAL_SHAPE)
    inner = shape[first + rank - 1]
    step = loads[at + 1 + rank]
    done = 0
    while done < count:
        position = offset + done
        lane = position % inner
        rest = position // inner
        source = loads[at] + lane * step
        for d in range(rank - 2, -1, -1):
            length = shape[first + d]
            source += (rest % length) * loads[at + 2 + d]
            rest //= length
        length = inner - lane if inner - lane < count - done else count - done
        to = target + done * itemsize
        for i in range(length):
            if itemsize == 4:
                pointer_i4(to + 4 * i)[0] = pointer_i4(source + i * step)[0]
            else:
                pointer_i8(to + itemsize * i)[0] = pointer_i8(source + i * step)[0]
                if itemsize == 16:
                    pointer_i8(to + 16 * i + 8)[0] = pointer_i8(source + i * step + 8)[0]
        done += length
    return 1


@helper("void(int64, int64, int64, float64, float64)")
def _fill(target, count, dtype, re, im):
    """Fill `count` elements at `target` with a number."""
    if dtype == 0 or dtype == 2:
        x4 = pointer_f4(target)
        if dtype == 0:
            for i in range(count):
                x4[i] = re
        else:
            for i in range(count):
                x4[2 * i], x4[2 * i + 1] = re, im
    else:
        x8 = pointer_f8(target)
        if dtype == 1:
            for i in range(count):
                x8[i] = re
        else:
            for i in range(count):
                x8[2 * i], x8[2 * i + 1] = re, im


@entry(3)
def execute(frame, lo, hi, scratch):
    """Run the planned program on blocks `lo` to `hi`, with registers in the memory at `scratch`; return 1, or 0 on failure."""
    info = view_i8(frame, _INFO)
    rows, kernels = view_i4(frame, _ROWS), view_i8(frame, _KERNELS)
    kind, address, place = view_i1(frame, _V_KIND), view_i8(frame, _V_ADDRESS), view_i4(frame, _V_PLACE)
    numbers = view_f8(frame, _NUMBERS)
    dtype, size, block = info[I_DTYPE], info[I_SIZE], info[I_BLOCK]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    lanes = block if block < size else size
    width = lanes * itemsize
    width += -width % 64
    for r in range(1, info[I_REGISTERS]):
        if kind[r] == _NUMBER and place[r] >= 0:
            _fill(scratch + place[r] * width, lanes, dtype, numbers[2 * r], numbers[2 * r + 1])
    count = info[I_ROWS]
    for part in range(lo, hi):
        offset = part * block
        n = block if block < size - offset else size - offset
        for i in range(count):
            kernel = np.int64(rows[5 * i])
            a, b, c, r = rows[5 * i + 1], rows[5 * i + 2], rows[5 * i + 3], rows[5 * i + 4]
            if kernel == _LOAD:
                if call_entry(frame, _E_LOAD_BLOCK, a, scratch + place[r] * width, offset, n) != 1:
                    return 0
                continue
            pa = address[a] + offset * itemsize if kind[a] == _MEMORY else scratch + place[a] * width
            if kernel == SUM_ROW:
                to = info[I_PARTIALS] + (part * info[I_SUMS] + r) * itemsize
                if call_kernel(kernels[4 * _KERNEL_SUM + dtype], n, pa, pa, pa, to) != 1:
                    return 0
                continue
            pb = address[b] + offset * itemsize if kind[b] == _MEMORY else scratch + place[b] * width
            pc = address[c] + offset * itemsize if kind[c] == _MEMORY else scratch + place[c] * width
            to = address[r] + offset * itemsize if kind[r] == _MEMORY else scratch + place[r] * width
            if call_kernel(kernels[4 * kernel + dtype], n, pa, pb, pc, to) != 1:
                return 0
    return 1


@entry(1)
def reduce_sums(frame, column):
    """Add the block sums of one column pairwise, in place; return the address of the total, 0 on failure."""
    info = view_i8(frame, _INFO)
    dtype, sums = info[I_DTYPE], info[I_SUMS]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    base = info[I_PARTIALS] + column * itemsize
    blocks = info[I_BLOCKS]
    step = 1
    add = view_i8(frame, _KERNELS)[4 * _KERNEL_ADD + dtype]
    while step < blocks:
        i = 0
        while i + step < blocks:
            left, right = base + i * sums * itemsize, base + (i + step) * sums * itemsize
            if call_kernel(add, 1, left, right, left, left) != 1:
                return 0
            i += 2 * step
        step *= 2
    return base


@entry(0)
def settle_used(frame):
    """Mark the cotangents of the run's nodes as used up and count its pullbacks."""
    cot_kind, out_start, op = view_i1(frame, _COT_KIND), view_i4(frame, _OUT_START), view_i2(frame, _OP)
    edge_start, counts, visited = (
        view_i8(frame, _EDGE_START),
        view_i8(frame, _COUNTS),
        view_i4(frame, _VISITED),
    )
    for i in range(visited[0]):
        node = np.int64(visited[i + 1])
        cot_kind[out_start[node]] = _NO_COTANGENT
        first = edge_start[node]
        for edge in range(first, edge_start[node + 1]):
            if needed(frame, edge):
                k = edge - first
                counts[8 * np.int64(op[node]) + (k if k < 7 else 7)] += 1
    return 1


@entry(0)
def run_small(frame):
    """Execute a small planned run with buffers from the arena; return PLANNED or what is missing (nothing is changed then)."""
    info = view_i8(frame, _INFO)
    outs, v_address = view_i8(frame, _OUTS), view_i8(frame, _V_ADDRESS)
    cot_kind, cot_address = view_i1(frame, _COT_KIND), view_i8(frame, _COT_ADDRESS)
    dtype, size = info[I_DTYPE], info[I_SIZE]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    width = size * itemsize
    width += -width % 64
    partials = info[I_BLOCKS] * info[I_SUMS] * itemsize
    partials += -partials % 64
    total = partials + 64 * info[I_SUMS]
    for i in range(info[I_OUTS]):
        if outs[_OUT_WIDTH * i] == _FULL:
            total += width
    if info[I_ARENA] + total > info[I_ARENA_END]:
        info[I_NEED_A] = total
        return NEED_ARENA
    if info[I_SCRATCH_NEED] > info[I_SCRATCH_BYTES]:
        info[I_NEED_A] = info[I_SCRATCH_NEED]
        return NEED_SCRATCH
    info[I_PARTIALS] = info[I_ARENA]
    info[I_ARENA] += partials
    for i in range(info[I_OUTS]):
        at = _OUT_WIDTH * i
        if outs[at] == _FULL:
            v_address[outs[at + 2]] = info[I_ARENA]
            info[I_ARENA] += width
    if call_entry(frame, _E_EXECUTE, 0, info[I_BLOCKS], info[I_SCRATCH]) != 1:
        return FAILED
    add = view_i8(frame, _KERNELS)[4 * _KERNEL_ADD + dtype]
    for i in range(info[I_OUTS]):
        at = _OUT_WIDTH * i
        mode, slot = outs[at], outs[at + 1]
        if mode == _SUM:
            total_at = call_entry(frame, _E_REDUCE_SUMS, outs[at + 3])
            if total_at == 0:
                return FAILED
            if cot_kind[slot] != _NO_COTANGENT:
                before = cot_address[slot]
                if cot_kind[slot] == _IN_OBJECT:
                    before = load_int(before + DATA_OFFSET)
                if call_kernel(add, 1, before, total_at, total_at, info[I_ARENA]) != 1:
                    return FAILED
                total_at = info[I_ARENA]
                info[I_ARENA] += 64
            cot_kind[slot], cot_address[slot] = _AT_ADDRESS, total_at
        elif mode == _PASS:
            cot_kind[slot], cot_address[slot] = cot_kind[outs[at + 3]], cot_address[outs[at + 3]]
        else:
            cot_kind[slot], cot_address[slot] = _AT_ADDRESS, v_address[outs[at + 2]]
    return PLANNED if call_entry(frame, _E_SETTLE_USED) == 1 else FAILED


@entry(1)
def run_native(frame, node):
    """Pass the cotangent of a sum or a reshape back without touching memory; return PLANNED or ON_HOST."""
    op = np.int64(view_i2(frame, _OP)[node])
    out = np.int64(view_i4(frame, _OUT_START)[node])
    edge = view_i8(frame, _EDGE_START)[node]
    slot = np.int64(view_i4(frame, _EDGE_SLOT)[edge])
    aval, aval_dtype, aval_size = (
        view_i4(frame, _AVAL),
        view_i1(frame, _AVAL_DTYPE),
        view_i8(frame, _AVAL_SIZE),
    )
    cot_kind, cot_address = view_i1(frame, _COT_KIND), view_i8(frame, _COT_ADDRESS)
    dtype = np.int64(aval_dtype[aval[out]])
    if cot_kind[slot] != _NO_COTANGENT or dtype > 3 or aval_dtype[aval[slot]] != dtype:
        return ON_HOST
    kind, address = np.int64(cot_kind[out]), cot_address[out]
    if view_i1(frame, _NATIVE)[op] == SPREAD_OP:
        if aval_size[aval[out]] != 1 or aval_size[aval[slot]] < 1:
            return ON_HOST
        if kind == _IN_OBJECT:
            address = load_int(address + DATA_OFFSET)
        kind = _SPREAD if aval_size[aval[slot]] > 1 else _AT_ADDRESS
    elif kind == _IN_OBJECT:
        return ON_HOST
    cot_kind[slot], cot_address[slot] = kind, address
    cot_kind[out] = _NO_COTANGENT
    view_i8(frame, _COUNTS)[8 * op] += 1
    return PLANNED


@entry(1)
def advance(frame, top):
    """Sweep from node `top` downwards until Python is needed; return why; the node is in `info`."""
    info = view_i8(frame, _INFO)
    op, out_start = view_i2(frame, _OP), view_i4(frame, _OUT_START)
    cot_kind, native, outputs = view_i1(frame, _COT_KIND), view_i1(frame, _NATIVE), view_i1(frame, _OUTPUTS)
    node = top
    last = top - STRIDE if top > STRIDE else -1
    while node > last:
        if not any_needed(frame, node):
            node -= 1
            continue
        present = False
        for i in range(outputs[op[node]]):
            present = present or cot_kind[out_start[node] + i] != _NO_COTANGENT
        if not present:
            node -= 1
            continue
        status = ON_HOST
        if native[op[node]] == ELEMENTWISE_OP:
            status = call_entry(frame, _E_PLAN_RUN, node)
            if status == PLANNED:
                if info[I_SIZE] > SMALL or info[I_TEMPS] > 0:
                    info[I_NODE] = node
                    return LARGE_RUN
                status = call_entry(frame, _E_RUN_SMALL)
                if status == PLANNED:
                    node = info[I_BOTTOM]
                    continue
        elif native[op[node]] != HOST_OP:
            status = call_entry(frame, _E_RUN_NATIVE, node)
            if status == PLANNED:
                node -= 1
                continue
        info[I_NODE] = node
        return HOST_NODE if status == ON_HOST else status
    info[I_NODE] = node
    return DONE if node < 0 else PAUSE
