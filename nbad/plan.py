"""Plan a run: from nodes to a block program, in jitted code.

Owns the walk over a maximal stretch of elementwise nodes of one iteration shape and dtype, backwards: it
expands the rule program of each needed edge, keeps cotangents that live only inside the run in virtual registers, and says
what leaves the run and where. Virtual registers are assigned once; an accumulation makes a new one (the kernels may write over
their operands, so the scratch place is reused).
"""

import numpy as np

from nbad import frame as F
from nbad._jit import helper
from nbad.frame import AT, call_entry, entry, needed, view_f8, view_i1, view_i2, view_i4, view_i8
from nbad.kernels.block import ID
from nbad.kernels.native import (
    DATA_OFFSET,
    NDIM_OFFSET,
    SHAPE_OFFSET,
    STRIDES_OFFSET,
    load_int,
    load_int32,
    pointer_f4,
    pointer_f8,
)
from nbad.program import HOST, OUTPUT, UNKNOWN

FAILED, PLANNED, NEED_TEMPLATE, NEED_KERNEL, NEED_CONVERT, ON_HOST = range(6)

_ADD, _MUL, _MULADD, _SUM_KERNEL = ID["add"], ID["mul"], ID["muladd"], ID["sum"]
_ELEMENTWISE = 1  # as `nbad.activity` numbers the kinds of ops
_COTANGENT = 4
_FIRST = 5
#: Bytes of all scratch registers of a block together: they stay in the first-level cache's neighbourhood.
_BLOCK_BYTES = 1 << 16
#: Kernel number of the row that sums a register into the block sums.
SUM_ROW = -2
_SUM_ROW = SUM_ROW

_OP, _EDGE_START, _EDGE_SLOT, _OUT_START = AT["op"], AT["edge_start"], AT["edge_slot"], AT["out_start"]
_AVAL, _REF, _SCALAR = AT["aval"], AT["ref"], AT["scalar"]
_AVAL_DTYPE, _AVAL_NDIM, _AVAL_SIZE = AT["aval_dtype"], AT["aval_ndim"], AT["aval_size"]
_AVAL_START, _AVAL_SHAPE = AT["aval_start"], AT["aval_shape"]
_COT_ADDRESS, _COT_KIND = AT["cot_address"], AT["cot_kind"]
_REGISTER_OF, _VALUE_OF = AT["register_of"], AT["value_of"]
_STATE, _START, _LENGTH, _RESULT, _CODE, _CONSTANTS = (
    AT[n] for n in ("state", "start", "length", "result", "code", "constants")
)
_KERNELS, _COUNTS, _CONVERTED = AT["kernels"], AT["counts"], AT["converted"]
_ROWS, _V_KIND, _V_ADDRESS, _V_LAST, _V_PLACE, _V_SLOT = (
    AT[n] for n in ("rows", "v_kind", "v_address", "v_last", "v_place", "v_slot")
)
_NUMBERS, _LOADS, _TOUCHED, _SEEN, _OUTS = (AT[n] for n in ("numbers", "loads", "touched", "seen", "outs"))
_RELEASED, _INFO, _FREE = AT["released"], AT["info"], AT["free"]
(
    _E_OBJECT_REGISTER,
    _E_VALUE_REGISTER,
    _E_COTANGENT_REGISTER,
    _E_EXPAND,
    _E_COLLECT,
    _E_PLACE,
) = range(6)
_NATIVE, _VISITED = AT["native"], AT["visited"]

I_ROWS, I_REGISTERS, I_LOADS, I_OUTS, I_SUMS, I_TEMPS = F.ROWS, F.REGISTERS, F.LOADS, F.OUTS, F.SUMS, F.TEMPS
I_BOTTOM, I_DTYPE, I_AVAL, I_SIZE, I_PLACES, I_BLOCK = F.BOTTOM, F.DTYPE, F.AVAL, F.SIZE, F.PLACES, F.BLOCK
I_RELEASED, I_CONVERTED, I_NEED_A, I_NEED_B = F.RELEASED, F.CONVERTED, F.NEED_A, F.NEED_B
I_BLOCKS, I_SCRATCH_NEED = F.BLOCKS, F.SCRATCH_NEED
_NO_COTANGENT, _AT_ADDRESS, _SPREAD, _IN_OBJECT = F.NO_COTANGENT, F.AT_ADDRESS, F.SPREAD, F.IN_OBJECT
_SCRATCH_REGISTER, _MEMORY, _NUMBER, _LOADED = F.SCRATCH_REGISTER, F.MEMORY, F.NUMBER, F.LOADED
_FULL, _SAME, _PASS, _SUM, _TEMP = F.FULL, F.SAME, F.PASS, F.SUM, F.TEMP
_LOAD, _LOAD_WIDTH, _OUT_WIDTH = F.LOAD, F.LOAD_WIDTH, F.OUT_WIDTH
_ROW_LIMIT = F.ROW_LIMIT


@helper("int64(int64, int64, int64)")
def _new_register(frame, kind, address):
    """Return a new virtual register."""
    info = view_i8(frame, _INFO)
    r = info[I_REGISTERS]
    info[I_REGISTERS] = r + 1
    view_i1(frame, _V_KIND)[r] = kind
    view_i8(frame, _V_ADDRESS)[r] = address
    view_i4(frame, _V_LAST)[r] = -1
    view_i4(frame, _V_PLACE)[r] = -1
    view_i4(frame, _V_SLOT)[r] = -1
    return r


@helper("int64(int64, float64, float64)")
def _number(frame, re, im):
    """Return a register that holds a number in every element."""
    info = view_i8(frame, _INFO)
    r = _new_register(frame, _NUMBER, info[I_REGISTERS])
    numbers = view_f8(frame, _NUMBERS)
    numbers[2 * r] = re
    numbers[2 * r + 1] = im
    return r


@helper("int64(int64, int64, int64, int64, int64)")
def _emit(frame, kernel, a, b, c):
    """Append an instruction and return the register of its result."""
    info = view_i8(frame, _INFO)
    rows = view_i4(frame, _ROWS)
    r = _new_register(frame, _SCRATCH_REGISTER, 0)
    at = 5 * info[I_ROWS]
    rows[at], rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4] = kernel, a, b, c, r
    info[I_ROWS] += 1
    return r


@helper("int64(int64, int64, int64)")
def _value_at(frame, address, dtype):
    """Return a register for the single number stored at `address`."""
    if dtype == 0:
        x4 = pointer_f4(address)
        return _number(frame, np.float64(x4[0]), 0.0)
    if dtype == 1:
        x8 = pointer_f8(address)
        return _number(frame, x8[0], 0.0)
    if dtype == 2:
        z4 = pointer_f4(address)
        return _number(frame, np.float64(z4[0]), np.float64(z4[1]))
    z8 = pointer_f8(address)
    return _number(frame, z8[0], z8[1])


@entry(1)
def object_register(frame, object_id):
    """Return a register for the ndarray object `object_id` of the run's dtype, broadcast over the run."""
    info = view_i8(frame, _INFO)
    dtype, aval = info[I_DTYPE], info[I_AVAL]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    data = load_int(object_id + DATA_OFFSET)
    ndim = load_int32(object_id + NDIM_OFFSET)
    shape, strides = load_int(object_id + SHAPE_OFFSET), load_int(object_id + STRIDES_OFFSET)
    size = 1
    for d in range(ndim):
        size *= load_int(shape + 8 * d)
    if size == 1:
        return _value_at(frame, data, dtype)
    # Is it contiguous and of the run's own shape?
    rank = view_i8(frame, _AVAL_NDIM)[aval]
    direct = size == info[I_SIZE]
    expected = itemsize
    for d in range(ndim - 1, -1, -1):
        length = load_int(shape + 8 * d)
        if length != 1 and load_int(strides + 8 * d) != expected:
            direct = False
        expected *= length
    if direct:
        return _new_register(frame, _MEMORY, data)
    loads = view_i8(frame, _LOADS)
    at = _LOAD_WIDTH * info[I_LOADS]
    loads[at], loads[at + 1] = data, rank
    for d in range(rank):
        back = d - (rank - ndim)
        step = 0
        if back >= 0 and load_int(shape + 8 * back) != 1:
            step = load_int(strides + 8 * back)
        loads[at + 2 + d] = step
    r = _new_register(frame, _LOADED, info[I_LOADS])
    rows = view_i4(frame, _ROWS)
    row = 5 * info[I_ROWS]
    rows[row], rows[row + 1], rows[row + 2], rows[row + 3], rows[row + 4] = _LOAD, info[I_LOADS], r, r, r
    info[I_ROWS] += 1
    info[I_LOADS] += 1
    return r


@entry(1)
def value_register(frame, slot):
    """Return the register of the kept value of `slot`, or -1 if it must be converted first."""
    value_of = view_i4(frame, _VALUE_OF)
    if value_of[slot] > 0:
        return np.int64(value_of[slot])
    info = view_i8(frame, _INFO)
    ref = view_i8(frame, _REF)[slot]
    if ref & 1:
        scalar = view_f8(frame, _SCALAR)
        r = _number(frame, scalar[ref - 1], scalar[ref])
    else:
        if view_i1(frame, _AVAL_DTYPE)[view_i4(frame, _AVAL)[slot]] != info[I_DTYPE]:
            ref = 0
            converted = view_i8(frame, _CONVERTED)
            for i in range(info[I_CONVERTED]):
                if converted[3 * i] == slot and converted[3 * i + 1] == info[I_DTYPE]:
                    ref = converted[3 * i + 2]
            if ref == 0:
                info[I_NEED_A], info[I_NEED_B] = slot, info[I_DTYPE]
                return -1
        r = call_entry(frame, _E_OBJECT_REGISTER, ref)
    value_of[slot] = r
    seen = view_i4(frame, _SEEN)
    seen[0] += 1
    seen[seen[0]] = slot
    return r


@entry(1)
def cotangent_register(frame, slot):
    """Return the register of the cotangent of `slot` that earlier steps of the sweep have left."""
    info = view_i8(frame, _INFO)
    kind = view_i1(frame, _COT_KIND)[slot]
    address = view_i8(frame, _COT_ADDRESS)[slot]
    if kind == _AT_ADDRESS:
        if info[I_SIZE] == 1:
            r = _value_at(frame, address, info[I_DTYPE])
        else:
            r = _new_register(frame, _MEMORY, address)
    elif kind == _SPREAD:
        r = _value_at(frame, address, info[I_DTYPE])
    else:
        r = call_entry(frame, _E_OBJECT_REGISTER, address)
        released = view_i4(frame, _RELEASED)
        released[info[I_RELEASED]] = slot
        info[I_RELEASED] += 1
    view_i4(frame, _V_SLOT)[r] = slot
    return r


@helper("void(int64, int64, int64, boolean)")
def _contribute(frame, slot, r, fresh):
    """Add register `r` to the cotangent of `slot`; `fresh` says that the last instruction made it for this purpose."""
    info = view_i8(frame, _INFO)
    register_of = view_i4(frame, _REGISTER_OF)
    before = np.int64(register_of[slot])
    if before < 0:
        touched = view_i4(frame, _TOUCHED)
        touched[0] += 1
        touched[touched[0]] = slot
        if view_i1(frame, _COT_KIND)[slot] != _NO_COTANGENT and view_i4(frame, _AVAL)[slot] == info[I_AVAL]:
            before = call_entry(frame, _E_COTANGENT_REGISTER, slot)
            fresh = fresh and view_i4(frame, _ROWS)[5 * info[I_ROWS] - 1] == r
        else:
            register_of[slot] = r
            return
    rows = view_i4(frame, _ROWS)
    last = 5 * (info[I_ROWS] - 1)
    if fresh and rows[last] == _MUL and rows[last + 4] == r:
        rows[last] = _MULADD
        rows[last + 3] = before
        register_of[slot] = r
    else:
        register_of[slot] = _emit(frame, _ADD, before, r, before)


@helper("void(int64)")
def _forget(frame):
    """Clear what planning wrote per slot."""
    register_of, value_of = view_i4(frame, _REGISTER_OF), view_i4(frame, _VALUE_OF)
    touched, seen = view_i4(frame, _TOUCHED), view_i4(frame, _SEEN)
    for i in range(touched[0]):
        register_of[touched[i + 1]] = -1
    for i in range(seen[0]):
        value_of[seen[i + 1]] = -1
    touched[0] = 0
    seen[0] = 0


@entry(1)
def expand(frame, node):
    """Expand the rules of the needed edges of `node`; return PLANNED or what is missing."""
    info = view_i8(frame, _INFO)
    register_of = view_i4(frame, _REGISTER_OF)
    out = np.int64(view_i4(frame, _OUT_START)[node])
    g = np.int64(register_of[out])
    if g < 0:
        g = call_entry(frame, _E_COTANGENT_REGISTER, out)
    op = np.int64(view_i2(frame, _OP)[node])
    cell = 4 * op + info[I_DTYPE]
    edge_start, edge_slot = view_i8(frame, _EDGE_START), view_i4(frame, _EDGE_SLOT)
    starts, lengths, results = view_i4(frame, _START), view_i4(frame, _LENGTH), view_i4(frame, _RESULT)
    code, constants = view_i4(frame, _CODE), view_f8(frame, _CONSTANTS)
    kernels = view_i8(frame, _KERNELS)
    first = edge_start[node]
    for edge in range(first, edge_start[node + 1]):
        if not needed(frame, edge):
            continue
        k = edge - first
        at = np.int64(starts[3 * cell + k])
        base = info[I_REGISTERS]
        length = np.int64(lengths[3 * cell + k])
        result = np.int64(results[3 * cell + k])
        # Results of instructions are numbered as they come; everything else an instruction reads is looked up.
        temporaries = view_i4(frame, _FREE)
        for i in range(length):
            row = at + 5 * i
            kernel = np.int64(code[row])
            if kernels[4 * kernel + info[I_DTYPE]] == 0:
                info[I_NEED_A], info[I_NEED_B] = kernel, info[I_DTYPE]
                return NEED_KERNEL
            registers = (np.int64(code[row + 1]), np.int64(code[row + 2]), np.int64(code[row + 3]))
            found = (np.int64(0), np.int64(0), np.int64(0))
            for j in range(3):
                x = registers[j]
                if x < 0:
                    r = found[0] if j > 0 and x == registers[0] else _number(frame, constants[-1 - x], 0.0)
                elif x == _COTANGENT:
                    r = g
                elif x >= _FIRST:
                    r = np.int64(temporaries[x - _FIRST])
                else:
                    r = call_entry(
                        frame, _E_VALUE_REGISTER, out if x == OUTPUT else np.int64(edge_slot[first + x])
                    )
                    if r <= 0:
                        return NEED_CONVERT if r < 0 else FAILED
                if j == 0:
                    found = (r, found[1], found[2])
                elif j == 1:
                    found = (found[0], r, found[2])
                else:
                    found = (found[0], found[1], r)
            temporaries[i] = _emit(frame, kernel, found[0], found[1], found[2])
        fresh = result >= _FIRST and result - _FIRST == length - 1
        r = np.int64(temporaries[result - _FIRST]) if result >= _FIRST else g
        _contribute(frame, np.int64(edge_slot[edge]), r, fresh and r >= base)
    # The cotangent of this node's output is used up (`settle_used` says so to the rest of the sweep).
    register_of[out] = -1
    visited = view_i4(frame, _VISITED)
    visited[0] += 1
    visited[visited[0]] = node
    return PLANNED


@helper("boolean(int64, int64)")
def any_needed(frame, node):
    """Return whether a pullback of `node` is asked for."""
    edge_start = view_i8(frame, _EDGE_START)
    for edge in range(edge_start[node], edge_start[node + 1]):  # noqa: SIM110 - numba has no generators here
        if needed(frame, edge):
            return True
    return False


@entry(0)
def collect(frame):
    """List what leaves the run: cotangents of slots that were made before it."""
    info = view_i8(frame, _INFO)
    register_of, touched = view_i4(frame, _REGISTER_OF), view_i4(frame, _TOUCHED)
    aval, aval_size, aval_dtype = (
        view_i4(frame, _AVAL),
        view_i8(frame, _AVAL_SIZE),
        view_i1(frame, _AVAL_DTYPE),
    )
    v_kind, v_address, v_slot = view_i1(frame, _V_KIND), view_i8(frame, _V_ADDRESS), view_i4(frame, _V_SLOT)
    outs = view_i8(frame, _OUTS)
    rows = view_i4(frame, _ROWS)
    for i in range(touched[0]):
        slot = np.int64(touched[i + 1])
        r = np.int64(register_of[slot])
        if r < 0:
            continue
        register_of[slot] = -1
        if (
            aval[slot] != info[I_AVAL]
            and aval_size[aval[slot]] == 1
            and aval_dtype[aval[slot]] == info[I_DTYPE]
        ):
            mode, source = _SUM, info[I_SUMS]
            info[I_SUMS] += 1
        elif v_slot[r] >= 0:
            mode, source = _PASS, np.int64(v_slot[r])
        elif v_kind[r] == _MEMORY and v_address[r] == -1:
            mode, source = _SAME, np.int64(0)
        else:
            mode, source = _FULL, np.int64(0)
            v_kind[r] = _MEMORY
            v_address[r] = -1  # its address is set when the buffer exists
        temporary = mode != _SUM and aval[slot] != info[I_AVAL]
        if temporary:
            info[I_TEMPS] += 1
        at = _OUT_WIDTH * info[I_OUTS]
        outs[at], outs[at + 1], outs[at + 2], outs[at + 3] = mode + (8 if temporary else 0), slot, r, source
        info[I_OUTS] += 1
        if mode == _SUM:
            # The sum of a block goes to its row of the block sums.
            row = 5 * info[I_ROWS]
            rows[row], rows[row + 1], rows[row + 2], rows[row + 3], rows[row + 4] = _SUM_ROW, r, r, r, source
            info[I_ROWS] += 1
    return 1


@entry(0)
def place(frame):
    """Give each virtual register that needs one a place in the scratch block, reusing places that are dead."""
    info = view_i8(frame, _INFO)
    rows, last, place_of = view_i4(frame, _ROWS), view_i4(frame, _V_LAST), view_i4(frame, _V_PLACE)
    v_kind, free = view_i1(frame, _V_KIND), view_i4(frame, _FREE)
    count = info[I_ROWS]
    for i in range(count):
        if rows[5 * i] == _LOAD:
            continue
        for j in range(1, 4):
            last[rows[5 * i + j]] = i
    used = np.int64(0)
    spare = np.int64(0)
    for r in range(1, info[I_REGISTERS]):
        if v_kind[r] == _NUMBER and last[r] >= 0:
            place_of[r] = used
            used += 1
    for i in range(count):
        # A kernel may write over an operand that it is the last to read.
        for j in range(1, 4):
            r = rows[5 * i + j]
            if last[r] == i and place_of[r] >= 0 and v_kind[r] != _NUMBER and rows[5 * i] != _LOAD:
                free[spare] = place_of[r]
                spare += 1
                last[r] = -2
        if rows[5 * i] == _SUM_ROW:
            continue
        r = rows[5 * i + 4]
        if v_kind[r] == _MEMORY:
            continue
        if spare > 0:
            spare -= 1
            place_of[r] = free[spare]
        else:
            place_of[r] = used
            used += 1
    info[I_PLACES] = used
    dtype = info[I_DTYPE]
    itemsize = 4 if dtype == 0 else (16 if dtype == 3 else 8)
    block = _BLOCK_BYTES // (itemsize * (used if used > 0 else 1))
    block -= block % 64
    block = 64 if block < 64 else (1024 if block > 1024 else block)
    size = info[I_SIZE]
    info[I_BLOCK] = block
    info[I_BLOCKS] = (size + block - 1) // block
    width = (block if block < size else size) * itemsize
    info[I_SCRATCH_NEED] = (width + -width % 64) * used + 64
    return 1


@entry(1)
def plan_run(frame, top):
    """Plan the run whose last node is `top`; return PLANNED, ON_HOST, or what is missing (nothing is changed then)."""
    info = view_i8(frame, _INFO)
    aval, out_start = view_i4(frame, _AVAL), view_i4(frame, _OUT_START)
    aval_dtype = view_i1(frame, _AVAL_DTYPE)
    cot_kind, register_of = view_i1(frame, _COT_KIND), view_i4(frame, _REGISTER_OF)
    state, op = view_i1(frame, _STATE), view_i2(frame, _OP)
    space = np.int64(aval[out_start[top]])
    dtype = np.int64(aval_dtype[space])
    if dtype > 3 or view_i8(frame, _AVAL_SIZE)[space] == 0:
        return ON_HOST
    kernels = view_i8(frame, _KERNELS)
    for always in (_ADD, _MULADD, _SUM_KERNEL):
        if kernels[4 * always + dtype] == 0:
            info[I_NEED_A], info[I_NEED_B] = always, dtype
            return NEED_KERNEL
    info[I_ROWS] = info[I_LOADS] = info[I_OUTS] = info[I_SUMS] = info[I_TEMPS] = info[I_RELEASED] = 0
    info[I_REGISTERS] = 1  # 0 stands for failure
    info[I_DTYPE], info[I_AVAL], info[I_SIZE] = dtype, space, view_i8(frame, _AVAL_SIZE)[space]
    visited = view_i4(frame, _VISITED)
    visited[0] = 0
    node = top
    while node >= 0:
        out = out_start[node]
        if not any_needed(frame, node):
            node -= 1
            continue
        if view_i1(frame, _NATIVE)[op[node]] != _ELEMENTWISE:
            break
        if register_of[out] < 0 and cot_kind[out] == _NO_COTANGENT:
            node -= 1
            continue
        if aval[out] != space:
            break
        ready = state[4 * np.int64(op[node]) + dtype]
        if ready == UNKNOWN:
            info[I_NEED_A], info[I_NEED_B] = op[node], dtype
            _forget(frame)
            return NEED_TEMPLATE
        if ready == HOST or info[I_ROWS] > _ROW_LIMIT or visited[0] >= _ROW_LIMIT:
            break
        status = call_entry(frame, _E_EXPAND, node)
        if status != PLANNED:
            _forget(frame)
            return status
        node -= 1
    if visited[0] == 0:
        _forget(frame)
        return ON_HOST
    info[I_BOTTOM] = node
    collected = call_entry(frame, _E_COLLECT) == 1 and call_entry(frame, _E_PLACE) == 1
    _forget(frame)
    return PLANNED if collected else FAILED
