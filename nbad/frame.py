"""The frame: how jitted loops see the arrays of a sweep.

A numba call with forty array arguments costs microseconds; a call with one array of (address, length) pairs does not. Owns the
order of these pairs and the jitted views. Whoever fills a frame keeps the arrays alive.
"""

from array import array
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from nbad._jit import SOURCE_HASH, cfunc, helper
from nbad.kernels.native import DATA_OFFSET, NDIM_OFFSET, SHAPE_OFFSET, load_int, load_int32, pointer_i8

#: Tape, activity, cotangents, tables, work arrays: name -> position in the frame.
NAMES = (
    # bound anew for each sweep, in this order
    "op",
    "edge_start",
    "edge_slot",
    "out_start",
    "aval",
    "ref",
    "scalar",
    "aval_dtype",
    "aval_ndim",
    "aval_size",
    "aval_start",
    "aval_shape",
    "needs",
    "cot_address",
    "cot_kind",
    "register_of",
    "value_of",
    "native",
    "outputs",
    "counts",
    "converted",
    "kernels",
    "entries",
    "state",
    "start",
    "length",
    "result",
    "code",
    "constants",
    # work arrays
    "rows",
    "v_kind",
    "v_address",
    "v_last",
    "v_place",
    "v_slot",
    "numbers",
    "loads",
    "touched",
    "seen",
    "outs",
    "released",
    "info",
    "free",
    "visited",
)
AT = {name: 2 * i for i, name in enumerate(NAMES)}
PROGRAM_NAMES = ("state", "start", "length", "result", "code", "constants")
AT_NEEDS = AT["needs"]
AT_ENTRIES = AT["entries"]

# What `info` holds.
(
    ROWS,  # instructions of the planned run
    REGISTERS,  # virtual registers
    LOADS,  # strided loads
    OUTS,  # results that leave the run
    SUMS,  # results that are sums over the run
    TEMPS,  # results that the host must still reduce or cast
    BOTTOM,  # first node below the run
    DTYPE,  # dtype code of the run
    AVAL,  # (dtype, shape) of its iteration space
    SIZE,  # its number of elements
    PLACES,  # scratch registers
    BLOCK,  # elements of a block
    RELEASED,  # cotangents of Python that the run was the last to read
    CONVERTED,  # entries in `converted`
    ARENA,  # next free address of the arena
    ARENA_END,
    NEED_A,  # what is missing: op or kernel or slot
    NEED_B,  # its dtype code, or bytes
    SCRATCH,  # address of the scratch block used by small runs
    SCRATCH_BYTES,
    PARTIALS,  # address of the block sums, one row a block
    NODE,  # where `advance` stopped
    BLOCKS,  # number of blocks of the run
    SCRATCH_NEED,  # bytes of scratch memory that one thread needs for it
) = range(24)
INFO_SIZE = 24

# What an entry of `outs` says: (mode, slot, register, address).
FULL, SAME, PASS, SUM, TEMP = range(5)
OUT_WIDTH = 4

# Where the cotangent of a slot is.
NO_COTANGENT, AT_ADDRESS, SPREAD, IN_OBJECT = range(4)

# What a virtual register is.
SCRATCH_REGISTER, MEMORY, NUMBER, LOADED = range(4)

#: Words of one strided load: address, rank, and a stride for each of the 64 dimensions that NumPy allows.
LOAD_WIDTH = 66
#: Instructions of one run at the most; a longer stretch is cut, its cotangents pass through memory.
ROW_LIMIT = 2048
ROW_MARGIN = 192
REGISTER_LIMIT = 4 * (ROW_LIMIT + ROW_MARGIN)
#: Kernel number of a strided load.
LOAD = -1


def _view(frame: Any, at: Any, dtype: Any) -> Any:
    """Return signature and code of a view: a pointer, or under NUMBA_BOUNDSCHECK an array whose indices are checked.

    A pointer is a fraction of the code of an array (no reference counts), which halves the time to compile the loops.
    """
    checked = bool(numba_config.BOUNDSCHECK)
    kind = types.Array(dtype, 1, "C") if checked else types.CPointer(dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        address = builder.load(builder.gep(pairs, [args[1]]))
        pointer = builder.inttoptr(address, context.get_data_type(dtype).as_pointer())
        if not checked:
            return pointer
        length = builder.load(builder.gep(pairs, [builder.add(args[1], args[1].type(1))]))
        itemsize = context.get_constant(types.intp, dtype.bitwidth // 8)
        array = make_array(kind)(context, builder)
        populate_array(array, pointer, [length], [itemsize], itemsize, meminfo=None)
        return array._getvalue()

    return kind(types.int64, types.int64), codegen


@intrinsic
def view_i8(typing_context: Any, frame: Any, at: Any) -> Any:
    """View an int64 array of the frame."""
    return _view(frame, at, types.int64)


@intrinsic
def view_i4(typing_context: Any, frame: Any, at: Any) -> Any:
    """View an int32 array of the frame."""
    return _view(frame, at, types.int32)


@intrinsic
def view_i2(typing_context: Any, frame: Any, at: Any) -> Any:
    """View a uint16 array of the frame."""
    return _view(frame, at, types.uint16)


@intrinsic
def view_i1(typing_context: Any, frame: Any, at: Any) -> Any:
    """View a uint8 array of the frame."""
    return _view(frame, at, types.uint8)


@intrinsic
def view_f8(typing_context: Any, frame: Any, at: Any) -> Any:
    """View a float64 array of the frame."""
    return _view(frame, at, types.float64)


@intrinsic
def call_entry(typing_context: Any, frame: Any, index: Any, *args: Any) -> Any:
    """Call entry `index` with the frame and integers; return its int64.

    A call by address keeps the callee out of the caller's code: numba would compile it again into each caller.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        pairs = builder.inttoptr(values[0], word.as_pointer())
        entries = builder.load(builder.gep(pairs, [word(AT_ENTRIES)]))
        table = builder.inttoptr(entries, word.as_pointer())
        address = builder.load(
            builder.gep(table, [context.cast(builder, values[1], signature.args[1], types.int64)])
        )
        given = zip(cgutils.unpack_tuple(builder, values[2]), packed, strict=True)
        rest = [context.cast(builder, value, kind, types.int64) for value, kind in given]
        kind = ir.FunctionType(word, [word] * (1 + len(rest)))
        return builder.call(builder.inttoptr(address, kind.as_pointer()), [values[0], *rest])

    packed = args[0] if len(args) == 1 and isinstance(args[0], types.BaseTuple) else types.Tuple(args)
    return types.int64(types.int64, index, packed), codegen


#: Addresses of the entries, in the order of `ENTRY_NAMES`; filled when the loops are compiled.
ENTRY_NAMES = (
    "object_register",
    "value_register",
    "cotangent_register",
    "expand",
    "collect",
    "place",
    "plan_run",
    "load_block",
    "execute",
    "run_small",
    "run_native",
    "reduce_sums",
    "settle_used",
)
ENTRIES = np.zeros(len(ENTRY_NAMES), np.int64)
_entries: list[Any] = []


def entry(arguments: int) -> Any:
    """Compile the decorated function of the frame and integers, and enter its address by its name.

    An entry cannot raise: it returns an int64, 0 if it failed.
    """
    signature = f"int64({', '.join(['int64'] * (1 + arguments))})"

    def enter(function: Any) -> Any:
        name = function.__name__
        function.__qualname__ = f"{name}_{SOURCE_HASH}"
        compiled = cfunc(signature)(function)
        _entries.append(compiled)
        if name in ENTRY_NAMES:
            ENTRIES[ENTRY_NAMES.index(name)] = compiled.address
        return compiled.ctypes

    return enter


@entry(2)
def bind(frame, ids, count):
    """Enter the ndarrays whose object ids stand at `ids` into the first `count` places of the frame."""
    pairs, objects = pointer_i8(frame), pointer_i8(ids)
    for i in range(count):
        pairs[2 * i] = load_int(objects[i] + DATA_OFFSET)
        size = 1
        for d in range(load_int32(objects[i] + NDIM_OFFSET)):
            size *= load_int(load_int(objects[i] + SHAPE_OFFSET) + 8 * d)
        pairs[2 * i + 1] = size
    return 1


def bind_arrays(frame: int, arrays: tuple[np.ndarray, ...]) -> None:
    """Enter `arrays` into the first places of the frame at address `frame`; the caller keeps them alive."""
    ids = array("q", map(id, arrays))
    bind(frame, ids.buffer_info()[0], len(arrays))


def point(frame: np.ndarray, name: str, values: np.ndarray) -> None:
    """Enter `values` into `frame`; the caller keeps it alive."""
    at = AT[name]
    frame[at] = values.ctypes.data
    frame[at + 1] = values.size


@helper("boolean(int64, int64)")
def needed(frame, edge):
    """Return the bit of `edge` in the needs-gradient bitmask."""
    words = view_i8(frame, AT_NEEDS)
    return (words[edge >> 6] >> (edge & 63)) & 1 == 1
