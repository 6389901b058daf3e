"""The tape of a kernel: how compiled code writes it.

Owns the layout. A tape is a chain of chunks, each of `CHUNK` bytes that begin with `HEADER`: addresses of the next chunk and of
the one before, where the entries end, and the address of descriptions of blocks (`nbad.scalar.blocks`).
An entry is a number k of pairs (int32), which stand before it: an index (int32, without sign) and the partial derivative in it
(as many float64 as a value has lanes), without gaps. So the sweep, which reads from the end, sees k first; 0 says that it is a
block. The result of an entry has no field: the n-th entry has the index n, counted after the inputs; index 0 is "constant".

Where the tape is written is kept in variables of the compiled module, which all functions compiled into an entry point
share. They are set under the interpreter's lock, which the entry point never gives up: one kernel records at a time.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as numba_types

from nbad._jit import intrinsic

#: numba has no annotations.
types: Any = numba_types

__all__ = [
    "CHUNK",
    "HEADER",
    "LAST",
    "PAIRS",
    "WORD",
    "allocate",
    "begin",
    "end_entry",
    "free",
    "load",
    "load_float",
    "load_word",
    "position",
    "push",
    "reserve",
    "store",
    "store_float",
    "store_word",
    "write_pair",
]

CHUNK = 1 << 22
"""Bytes of a chunk."""

HEADER = 32
"""Bytes before the entries of a chunk: next chunk, chunk before, end of the entries, descriptions of blocks."""

PAIRS = 1024
"""Most pairs of one entry; longer sums are entries of entries."""

WORD = 4
"""Bytes of an index on the tape, and of a number of pairs."""

LAST = (1 << 32) - (1 << 20)
"""The index after which no chunk is begun: all those within it are still less than 2**32."""

_INT = ir.IntType(64)
_WORD = ir.IntType(32)
_FLOAT = ir.DoubleType()
_NAMES = ("cursor", "end", "count", "chunk", "room")


def _variable(builder: Any, name: str) -> Any:
    """Return a variable of the tape; the linker makes one of those of all modules."""
    name = f"nbad_tape_{name}"
    module = builder.module
    if name in module.globals:
        return module.globals[name]
    made = ir.GlobalVariable(module, _INT, name)
    made.linkage = "linkonce_odr"
    made.initializer = _INT(0)
    return made


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _read(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, kind), align=WORD)


def _write(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=WORD)


def push(context: Any, builder: Any, pairs: list[tuple[Any, list[Any]]]) -> Any:
    """Emit one entry of pairs (index, components of the partial); return its index, 0 if all the indices are 0."""
    any_index = pairs[0][0]
    for index, _ in pairs[1:]:
        any_index = builder.or_(any_index, index)
    slot = cgutils.alloca_once_value(builder, _INT(0))
    with builder.if_then(builder.icmp_unsigned("!=", any_index, _INT(0)), likely=True):
        merged = _merged(builder, pairs)
        width = WORD + 8 * len(pairs[0][1])
        at = _room_for(context, builder, _INT(WORD + width * len(pairs)))
        count = _INT(0)
        for index, floats, dropped in merged:
            write_pair(builder, at, index, floats)
            # A dropped pair is written over by what comes next.
            step = builder.sub(_INT(1), builder.zext(dropped, _INT)) if dropped is not None else _INT(1)
            at = builder.add(at, builder.mul(step, _INT(width)))
            count = builder.add(count, step)
        _write(builder, at, builder.trunc(count, _WORD))
        builder.store(builder.add(at, _INT(WORD)), _variable(builder, "cursor"))
        builder.store(_counted(builder), slot)
    return builder.load(slot)


def write_pair(builder: Any, at: Any, index: Any, floats: list[Any]) -> Any:
    """Emit one pair at an address; return the address behind it."""
    _write(builder, at, builder.trunc(index, _WORD))
    for k, number in enumerate(floats):
        _write(builder, builder.add(at, _INT(WORD + 8 * k)), number)
    return builder.add(at, _INT(WORD + 8 * len(floats)))


def _merged(builder: Any, pairs: list[tuple[Any, list[Any]]]) -> list[tuple[Any, list[Any], Any]]:
    """Emit the sums of pairs that the compiler knows to have one index, as in ``x * x``; list (index, partial, dropped).

    Whether it knows is asked of LLVM at the end of its work (`llvm.is.constant`), so no comparison is left in the code.
    """
    asks = builder.module.declare_intrinsic("llvm.is.constant", [ir.IntType(1)])
    found: list[tuple[Any, list[Any], Any]] = []
    for index, floats in pairs:
        dropped = None
        for i, (other, sums, gone) in enumerate(found):
            same = builder.icmp_unsigned("==", index, other)
            same = builder.and_(builder.call(asks, [same]), same)
            if gone is not None:  # it is part of another sum, and is not written
                same = builder.and_(same, builder.not_(gone))
            added = [builder.select(same, builder.fadd(a, b), a) for a, b in zip(sums, floats, strict=True)]
            found[i] = other, added, gone
            dropped = same if dropped is None else builder.or_(dropped, same)
        found.append((index, floats, dropped))
    return found


def _room_for(context: Any, builder: Any, size: Any) -> Any:
    """Emit the address of `size` free bytes, at which the tape goes on."""
    cursor, end = _variable(builder, "cursor"), _variable(builder, "end")
    full = builder.icmp_unsigned(">", builder.add(builder.load(cursor), size), builder.load(end))
    with builder.if_then(full, likely=False):
        context.compile_internal(builder, _grow, types.none(), [])
    return builder.load(cursor)


def _counted(builder: Any) -> Any:
    count = _variable(builder, "count")
    index = builder.add(builder.load(count), _INT(1))
    builder.store(index, count)
    return index


# What jitted code does with it ------------------------------------------------------------------
@intrinsic
def _get(context: Any, name: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_variable(builder, name.literal_value))

    return types.int64(name), emit


@intrinsic
def _put(context: Any, name: Any, number: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _variable(builder, name.literal_value))
        return context.get_dummy_value()

    return types.none(name, types.int64), emit


@intrinsic
def load(context: Any, address: Any) -> Any:
    """Return the int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _read(builder, args[0], _INT)

    return types.int64(types.int64), emit


@intrinsic
def load_word(context: Any, address: Any) -> Any:
    """Return the int32 without sign at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_read(builder, args[0], _WORD), _INT)

    return types.int64(types.int64), emit


@intrinsic
def load_float(context: Any, address: Any) -> Any:
    """Return the float64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _read(builder, args[0], _FLOAT)

    return types.float64(types.int64), emit


@intrinsic
def store(context: Any, address: Any, number: Any) -> Any:
    """Write an int64 to an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, *args)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def store_word(context: Any, address: Any, number: Any) -> Any:
    """Write an int32 without sign to an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, args[0], builder.trunc(args[1], _WORD))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def store_float(context: Any, address: Any, number: Any) -> Any:
    """Write a float64 to an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, *args)
        return context.get_dummy_value()

    return types.none(types.int64, types.float64), emit


@intrinsic
def allocate(context: Any, size: Any) -> Any:
    """Return the address of `size` new bytes; raises MemoryError."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(context.nrt.allocate(builder, args[0]), _INT)

    return types.int64(types.int64), emit


@intrinsic
def free(context: Any, address: Any) -> Any:
    """Give bytes back."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.nrt.free(builder, _pointer(builder, args[0], ir.IntType(8)))
        return context.get_dummy_value()

    return types.none(types.int64), emit


@intrinsic
def long_entry(context: Any, size: Any) -> Any:
    """Return the address of `size` bytes for an entry whose fields the caller writes, and its index."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _room_for(context, builder, args[0])
        builder.store(builder.add(at, args[0]), _variable(builder, "cursor"))
        return context.make_tuple(builder, signature.return_type, [at, _counted(builder)])

    return types.UniTuple(types.int64, 2)(types.int64), emit


@intrinsic
def reserve(context: Any, size: Any) -> Any:
    """Return the address of `size` bytes for an entry that the caller writes and ends, or forgets: no other in between."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _room_for(context, builder, args[0])

    return types.int64(types.int64), emit


@intrinsic
def end_entry(context: Any, end: Any) -> Any:
    """End the entry that was written up to an address, and return its index."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _variable(builder, "cursor"))
        return _counted(builder)

    return types.int64(types.int64), emit


def _grow() -> None:
    """Go on in the next chunk: one that an earlier call left, or a new one."""
    chunk = _get("chunk")
    store(chunk + 16, _get("cursor"))
    if _get("count") > LAST:
        raise MemoryError("the tape of the kernel has more numbers than 32 bits count")
    following = load(chunk)
    if following == 0:
        if _get("room") < CHUNK:
            raise MemoryError("the tape of the kernel is larger than its limit")
        _put("room", _get("room") - CHUNK)
        following = allocate(CHUNK)
        store(following, 0)
        store(following + 8, chunk)
        store(following + 24, 0)
        store(chunk, following)
    _put("chunk", following)
    _put("cursor", following + HEADER)
    _put("end", following + CHUNK)


@intrinsic
def begin(context: Any, chunk: Any, room: Any, count: Any) -> Any:
    """Let a tape begin in `chunk`; entries are counted from `count` on, and chunks may take `room` more bytes."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, room, count = args
        end = builder.add(first, _INT(CHUNK))
        values = builder.add(first, _INT(HEADER)), end, count, first, room
        for name, value in zip(_NAMES, values, strict=True):
            builder.store(value, _variable(builder, name))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), emit


@intrinsic
def position(context: Any) -> Any:
    """Return where the tape ends: address, chunk, and the number of the last entry."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = [builder.load(_variable(builder, name)) for name in ("cursor", "chunk", "count")]
        return context.make_tuple(builder, signature.return_type, numbers)

    return types.UniTuple(types.int64, 3)(), emit
