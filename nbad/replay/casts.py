"""Own the cast kernels: what brings values of one dtype into a register of another, and back to memory.

A cast kernel has the signature of a block kernel and is called by address in the same way, but its operand and its result
have dtypes of their own, so it must not write over its operand. A truth value is a byte in memory and the number 0 or 1 in a
register.
"""

import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbad._jit import SOURCE_HASH, cfunc, intrinsic
from nbad.kernels.block import DTYPES

#: Dtypes that can be loaded into registers: the four of the block kernels first, then those that are only loaded.
KINDS: tuple[np.dtype[Any], ...] = (*DTYPES, np.dtype(np.bool_), np.dtype(np.int32), np.dtype(np.int64))
BOOL = 4
_TYPES = (
    types.float32,
    types.float64,
    types.complex64,
    types.complex128,
    types.uint8,
    types.int32,
    types.int64,
)
_KIND_OF = {dtype: kind for kind, dtype in enumerate(KINDS)}

_SIGNATURE = types.int64(types.int64, types.intp, types.intp, types.intp, types.intp)
_lock = threading.Lock()
_owners: dict[tuple[int, int, str], Any] = {}

__all__ = ["BOOL", "KINDS", "ensure_cast", "kind_of"]


def kind_of(dtype: np.dtype[Any]) -> int:
    """Return the position of a native dtype in `KINDS`, or -1."""
    return _KIND_OF.get(dtype, -1)


@intrinsic
def _convert(typing_context: Any, source: Any, target: Any, part: Any, n: Any, a: Any, out: Any) -> Any:
    """Run the loop of a cast; the first three arguments are literals."""
    source_kind, target_kind = source.literal_value, target.literal_value
    wanted = part.literal_value

    def numbers(context: Any, kind: int) -> tuple[Any, int]:
        numba_type = _TYPES[kind]
        real = context.get_value_type(getattr(numba_type, "underlying_float", numba_type))
        return real, 2 if kind in (2, 3) else 1

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, from_address, to_address = args[3:]
        from_type, from_parts = numbers(context, source_kind)
        to_type, to_parts = numbers(context, target_kind)
        pointer = builder.inttoptr(from_address, from_type.as_pointer())
        place = builder.inttoptr(to_address, to_type.as_pointer())
        index = count.type

        def converted(value: Any) -> Any:
            if target_kind == BOOL:
                if isinstance(from_type, ir.IntType):
                    truth = builder.icmp_unsigned("!=", value, from_type(0))
                else:
                    truth = builder.fcmp_unordered("!=", value, from_type(0.0))
                return builder.zext(truth, to_type)
            if source_kind == BOOL:
                return builder.uitofp(
                    builder.zext(builder.icmp_unsigned("!=", value, from_type(0)), from_type), to_type
                )
            if isinstance(from_type, ir.IntType):
                return builder.sitofp(value, to_type)
            if from_type == to_type:
                return value
            return (
                builder.fptrunc(value, to_type)
                if to_type == ir.FloatType()
                else builder.fpext(value, to_type)
            )

        with cgutils.for_range(builder, count, intp=index) as loop:
            first = builder.mul(loop.index, index(from_parts))
            if wanted == "imag":
                first = builder.add(first, index(1))
            to = builder.mul(loop.index, index(to_parts))
            real = converted(builder.load(builder.gep(pointer, [first])))
            if target_kind == BOOL and from_parts == 2:
                second = builder.load(builder.gep(pointer, [builder.add(first, index(1))]))
                real = builder.or_(real, converted(second))
            builder.store(real, builder.gep(place, [to]))
            if to_parts == 2:
                imag = to_type(0.0)
                if from_parts == 2:
                    imag = converted(builder.load(builder.gep(pointer, [builder.add(first, index(1))])))
                builder.store(imag, builder.gep(place, [builder.add(to, index(1))]))
        return context.get_constant(types.int64, 1)

    return types.int64(source, target, part, n, a, out), emit


def _compile(source: int, target: int, part: str) -> Any:
    # Only strings and numbers in the closure: with anything else in it the disk cache never hits.
    def cast(n, a, b, c, out):
        return _convert(source, target, part, n, a, out)

    names = f"{KINDS[source].str[1:]}_{KINDS[target].str[1:]}"
    cast.__qualname__ = f"cast_{names}_{part}_{SOURCE_HASH}"
    return cfunc(_SIGNATURE)(cast)


def ensure_cast(source: int, target: int, part: str = "real") -> int:
    """Return the address of a cast kernel, compiled now if this is the first time it is needed.

    Parameters
    ----------
    source, target : int
        Positions in `KINDS`; the target is one of the block kernels' dtypes or `BOOL`.
    part : str
        What of a complex operand becomes a real result: "real" or "imag".

    Returns
    -------
    int
        The address.
    """
    with _lock:
        key = (source, target, part)
        if key not in _owners:
            _owners[key] = _compile(*key)
        return int(_owners[key].address)
