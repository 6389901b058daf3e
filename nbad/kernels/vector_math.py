"""Own the elementary functions of kernels: glibc's vector ones, libm's, and the complex ones made of them.

Which vector functions exist is probed symbol by symbol, and only for the instruction set that numba compiles
for; where one is missing the scalar function is used. Calling a missing symbol would end the process.
Nothing is loaded or probed on import.
"""

import functools
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, registry, types

from nbad._jit import intrinsic

__all__ = [
    "FUNCTIONS",
    "call",
    "call2",
    "call_complex",
    "call_complex2",
    "copy_numbers",
    "emit_vector_loop",
    "find_symbol",
    "get_instruction_set",
    "has_complex_functions",
    "has_symbol",
    "list_instruction_sets",
    "number",
    "select_instruction_set",
]

FUNCTIONS: dict[str, int] = {
    **dict.fromkeys(("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos", "atan"), 1),
    **dict.fromkeys(("asinh", "acosh", "atanh", "exp2", "log2", "log10", "expm1", "log1p", "cbrt"), 1),
    **dict.fromkeys(("erf", "erfc"), 1),
    **dict.fromkeys(("pow", "atan2", "hypot"), 2),
}
"""C names of the functions that libmvec may have, with the number of arguments."""

# The letter of the vector ABI and the bytes of a vector.
_VECTORS = {"avx2": ("d", 32), "avx512": ("e", 64)}
_selected: str | None = None


@functools.cache
def _load_library() -> bool:
    """Load libmvec into the process, where there is one, so that compiled code finds its symbols by name."""
    try:
        llvm.load_library_permanently("libmvec.so.1")
    except RuntimeError:
        return False
    return True


@functools.cache
def list_instruction_sets() -> tuple[str, ...]:
    """List the instruction sets that can be selected here, the widest first; "scalar" is always there.

    Returns
    -------
    tuple of str
        A selection of "avx512", "avx2", "scalar".

    Notes
    -----
    Both the processor and numba's own target must have the instructions: with NUMBA_CPU_NAME=generic
    numba would pass a 32-byte vector in two registers, which is not how libmvec reads it.
    """
    host = llvm.get_host_cpu_features()
    target = registry.cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    names = ["scalar"]
    if llvm.get_process_triple().startswith("x86_64") and _load_library():
        for name, feature in (("avx2", "avx2"), ("avx512", "avx512f")):
            if host.get(feature, False) and f"+{feature}" in target:
                names.insert(0, name)
    return tuple(names)


def select_instruction_set(name: str | None) -> None:
    """Choose the vector functions to use from now on.

    Parameters
    ----------
    name : {"avx512", "avx2", "scalar"} or None
        None takes the widest that is here. "scalar" uses no vector functions.

    Raises
    ------
    ValueError
        The name is unknown, or this processor does not have the instructions.

    Notes
    -----
    Call `nbad.kernels.block.select_instruction_set`, which also forgets the kernels made before.
    """
    global _selected
    if name is not None and name not in (*_VECTORS, "scalar"):
        raise ValueError(f"unknown instruction set {name!r}: use one of 'avx512', 'avx2', 'scalar', None")
    if name is not None and name not in list_instruction_sets():
        raise ValueError(
            f"instruction set {name!r} is not available here (there is: {', '.join(list_instruction_sets())})"
        )
    _selected = name


def get_instruction_set() -> str:
    """Return the instruction set in use: "avx512", "avx2" or "scalar"."""
    return _selected if _selected is not None else list_instruction_sets()[0]


@functools.cache
def has_symbol(name: str) -> bool:
    """Tell whether compiled code can call the C function `name`."""
    _load_library()
    return llvm.address_of_symbol(name) is not None


@functools.cache
def has_complex_functions() -> bool:
    """Tell whether the complex functions of C99 are here, and called in a way that `call_complex` knows."""
    triple = llvm.get_process_triple()
    known = triple.startswith(("x86_64", "aarch64", "arm64")) and "windows" not in triple
    return known and all(has_symbol(name) for name in ("cexp", "clog", "cpow", "csqrt", "catanh"))


def find_symbol(name: str, dtype: np.dtype[Any]) -> str:
    """Return the libmvec symbol of a function, or "" where the scalar function has to do.

    Parameters
    ----------
    name : str
        A key of `FUNCTIONS`.
    dtype : numpy.dtype
        float32 or float64.

    Returns
    -------
    str
        For instance ``_ZGVdN4v_exp``.
    """
    instruction_set = get_instruction_set()
    if instruction_set == "scalar" or dtype.kind != "f":
        return ""
    letter, size = _VECTORS[instruction_set]
    suffix = "f" if dtype.itemsize == 4 else ""
    symbol = f"_ZGV{letter}N{size // dtype.itemsize}{'v' * FUNCTIONS[name]}_{name}{suffix}"
    return symbol if has_symbol(symbol) else ""


def emit_vector_loop(builder: Any, symbol: str, count: Any, operands: list[Any], out: Any) -> None:
    """Emit ``out[i] = symbol(operands[0][i], ...)`` for i below `count`, on pointers to float or double.

    The last, partial vector goes through a padded copy on the stack: every element is computed by the vector
    function, so a result does not depend on its position.
    """
    number_type, index = out.type.pointee, count.type
    width = int(symbol.split("N")[1].split("v")[0])
    vector = ir.VectorType(number_type, width)
    function_type = ir.FunctionType(vector, [vector] * len(operands))
    function = cgutils.get_or_insert_function(builder.module, function_type, symbol)

    def apply(sources: list[Any], target: Any) -> None:
        values = [builder.load(builder.bitcast(p, vector.as_pointer()), align=1) for p in sources]
        builder.store(builder.call(function, values), builder.bitcast(target, vector.as_pointer()), align=1)

    whole = builder.and_(count, index(-width))
    with cgutils.for_range_slice(builder, index(0), whole, index(width), index) as (i, _):
        apply([builder.gep(p, [i]) for p in operands], builder.gep(out, [i]))
    with builder.if_then(builder.icmp_signed("<", whole, count)):
        rest = builder.sub(count, whole)
        pads = [cgutils.alloca_once(builder, number_type, size=width) for _ in range(len(operands) + 1)]
        for pad, pointer in zip(pads, operands, strict=False):
            # 1 is cheap, and in the domain of every function of the table.
            builder.store(vector([1.0] * width), builder.bitcast(pad, vector.as_pointer()), align=1)
            copy_numbers(builder, rest, builder.gep(pointer, [whole]), pad)
        apply(pads[:-1], pads[-1])
        copy_numbers(builder, rest, pads[-1], builder.gep(out, [whole]))


def copy_numbers(builder: Any, count: Any, source: Any, target: Any) -> None:
    """Emit a copy of a few numbers."""
    index = count.type
    with cgutils.for_range_slice(builder, index(0), count, index(1), index) as (i, _):
        builder.store(builder.load(builder.gep(source, [i])), builder.gep(target, [i]))


def _component(kind: Any) -> Any:
    """Return the real type of a complex type, and a real type as it is."""
    return getattr(kind, "underlying_float", kind)


@intrinsic
def number(typing_context: Any, like: Any, value: Any) -> Any:
    """Return a constant in the precision of `like`; `value` is a literal integer, or a literal string."""
    kind = _component(like)
    literal = float(value.literal_value)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(kind, literal)

    return kind(like, value), emit


def _declare(builder: Any, name: str, kind: Any, arity: int) -> Any:
    """Declare the libm function or LLVM intrinsic `name` for one precision."""
    if name.startswith("llvm."):
        name = f"{name}.f{64 if isinstance(kind, ir.DoubleType) else 32}"
    elif isinstance(kind, ir.FloatType):
        name += "f"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * arity), name)


@intrinsic
def call(typing_context: Any, name: Any, x: Any) -> Any:
    """Call the libm function or LLVM intrinsic `name` on a real number, in the precision of `x`."""
    literal = name.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_declare(builder, literal, args[1].type, 1), [args[1]])

    return x(name, x), emit


@intrinsic
def call2(typing_context: Any, name: Any, x: Any, y: Any) -> Any:
    """Call the libm function or LLVM intrinsic `name` on two real numbers of one precision."""
    literal = name.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_declare(builder, literal, args[1].type, 2), list(args[1:]))

    return x(name, x, y), emit


def _call_complex(context: Any, builder: Any, name: str, kinds: Any, args: Any) -> Any:
    """Emit a call of a C99 complex function, in double precision."""
    if not has_complex_functions():
        raise RuntimeError(f"this platform has no C99 complex functions that can be called: {name}")
    double = ir.DoubleType()
    parts = []
    for kind, arg in zip(kinds, args, strict=True):
        value = context.cast(builder, arg, kind, types.complex128)
        parsed = context.make_complex(builder, types.complex128, value)
        parts += [parsed.real, parsed.imag]
    # The calling convention of x86-64 (System V) and AArch64: two doubles in, two doubles out, in registers.
    function_type = ir.FunctionType(ir.LiteralStructType([double, double]), [double] * len(parts))
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pair = builder.call(function, parts)
    result = context.make_complex(builder, types.complex128)
    result.real, result.imag = builder.extract_value(pair, 0), builder.extract_value(pair, 1)
    return context.cast(builder, result._getvalue(), types.complex128, kinds[0])


@intrinsic
def call_complex(typing_context: Any, name: Any, z: Any) -> Any:
    """Call the C99 complex function `name`, in double precision for both complex types."""
    literal = name.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call_complex(context, builder, literal, [z], args[1:])

    return z(name, z), emit


@intrinsic
def call_complex2(typing_context: Any, name: Any, z: Any, w: Any) -> Any:
    """Call the C99 complex function `name` of two arguments, in double precision for both complex types."""
    literal = name.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call_complex(context, builder, literal, [z, w], args[1:])

    return z(name, z, w), emit
