"""Own the block kernels: one row per operation, compiled on demand per dtype, called by address.

A block kernel is ``int64 kernel(int64 n, intp a, intp b, intp c, intp out)``: the addresses of n contiguous
elements of the kernel's dtype. Kernels of fewer operands ignore the others. `out` may be one of the operands,
whole, and must not overlap one in part. A kernel returns 1, never raises and never allocates, and
the result of an element does not depend on its position in the block.

To add a kernel, write its scalar function in real_functions.py, one in complex_functions.py where that
differs, and a row in `KERNELS`.
"""

import dataclasses
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbad._jit import SOURCE_HASH, call_scalar, cfunc, intrinsic
from nbad.kernels import complex_functions, real_functions, vector_math

F4, F8, C8, C16 = 0, 1, 2, 3
DTYPES: tuple[np.dtype[Any], ...] = tuple(np.dtype(name) for name in ("f4", "f8", "c8", "c16"))
_TYPES = (types.float32, types.float64, types.complex64, types.complex128)

REAL = (F4, F8)
ALL = (F4, F8, C8, C16)

__all__ = [
    "ADDRESS",
    "C8",
    "C16",
    "DTYPES",
    "F4",
    "F8",
    "ID",
    "KERNELS",
    "Kernel",
    "call_kernel",
    "emit_elements",
    "emit_scalar",
    "ensure",
    "select_instruction_set",
]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One row of the table.

    Attributes
    ----------
    name : str
        Name, unique in the table.
    arity : int
        Operands read, 1 to 3.
    scalar : callable or None
        Function of `arity` scalars that numba can compile; None for the sum, which is no map.
    vector : str or None
        The function of `vector_math.FUNCTIONS` that computes it on whole vectors of reals.
    dtypes : tuple of int
        Dtype codes it exists for.
    complex_scalar : callable or None
        The scalar function for complex dtypes, where it differs.
    """

    name: str
    arity: int
    scalar: Callable[..., Any] | None
    vector: str | None = None
    dtypes: tuple[int, ...] = ALL
    complex_scalar: Callable[..., Any] | None = None


KERNELS: tuple[Kernel, ...] = (
    Kernel("copy", 1, real_functions.copy),
    Kernel("add", 2, real_functions.add),
    Kernel("sub", 2, real_functions.sub),
    Kernel("mul", 2, real_functions.mul, complex_scalar=complex_functions.mul),
    Kernel("div", 2, real_functions.div, complex_scalar=complex_functions.div),
    Kernel("neg", 1, real_functions.neg, complex_scalar=complex_functions.neg),
    Kernel("recip", 1, real_functions.recip, complex_scalar=complex_functions.recip),
    Kernel("square", 1, real_functions.square, complex_scalar=complex_functions.square),
    Kernel("sqrt", 1, real_functions.sqrt, complex_scalar=complex_functions.sqrt),
    Kernel("cbrt", 1, real_functions.cbrt, vector="cbrt", dtypes=REAL),
    Kernel("abs", 1, real_functions.absolute, dtypes=REAL),
    Kernel("sign", 1, real_functions.sign, dtypes=REAL),
    Kernel("conj", 1, real_functions.copy, complex_scalar=complex_functions.conj),
    Kernel("muladd", 3, real_functions.muladd, complex_scalar=complex_functions.muladd),
    Kernel("nmuladd", 3, real_functions.nmuladd, complex_scalar=complex_functions.nmuladd),
    Kernel("exp", 1, real_functions.exp, vector="exp", complex_scalar=complex_functions.exp),
    Kernel("expm1", 1, real_functions.expm1, vector="expm1", complex_scalar=complex_functions.expm1),
    Kernel("exp2", 1, real_functions.exp2, vector="exp2", complex_scalar=complex_functions.exp2),
    Kernel("log", 1, real_functions.log, vector="log", complex_scalar=complex_functions.log),
    Kernel("log1p", 1, real_functions.log1p, vector="log1p", complex_scalar=complex_functions.log1p),
    Kernel("log2", 1, real_functions.log2, vector="log2", complex_scalar=complex_functions.log2),
    Kernel("log10", 1, real_functions.log10, vector="log10", complex_scalar=complex_functions.log10),
    Kernel("sin", 1, real_functions.sin, vector="sin", complex_scalar=complex_functions.sin),
    Kernel("cos", 1, real_functions.cos, vector="cos", complex_scalar=complex_functions.cos),
    Kernel("tan", 1, real_functions.tan, vector="tan", complex_scalar=complex_functions.tan),
    Kernel("sinh", 1, real_functions.sinh, vector="sinh", complex_scalar=complex_functions.sinh),
    Kernel("cosh", 1, real_functions.cosh, vector="cosh", complex_scalar=complex_functions.cosh),
    Kernel("tanh", 1, real_functions.tanh, vector="tanh", complex_scalar=complex_functions.tanh),
    Kernel("arcsin", 1, real_functions.arcsin, vector="asin", complex_scalar=complex_functions.arcsin),
    Kernel("arccos", 1, real_functions.arccos, vector="acos", complex_scalar=complex_functions.arccos),
    Kernel("arctan", 1, real_functions.arctan, vector="atan", complex_scalar=complex_functions.arctan),
    Kernel("arcsinh", 1, real_functions.arcsinh, vector="asinh", complex_scalar=complex_functions.arcsinh),
    Kernel("arccosh", 1, real_functions.arccosh, vector="acosh", complex_scalar=complex_functions.arccosh),
    Kernel("arctanh", 1, real_functions.arctanh, vector="atanh", complex_scalar=complex_functions.arctanh),
    Kernel("pow", 2, real_functions.power, vector="pow", complex_scalar=complex_functions.power),
    Kernel("arctan2", 2, real_functions.arctan2, vector="atan2", dtypes=REAL),
    Kernel("hypot", 2, real_functions.hypot, vector="hypot", dtypes=REAL),
    Kernel("maximum", 2, real_functions.maximum, complex_scalar=complex_functions.maximum),
    Kernel("minimum", 2, real_functions.minimum, complex_scalar=complex_functions.minimum),
    Kernel("fmax", 2, real_functions.fmax, complex_scalar=complex_functions.fmax),
    Kernel("fmin", 2, real_functions.fmin, complex_scalar=complex_functions.fmin),
    Kernel("floor", 1, real_functions.floor, dtypes=REAL),
    Kernel("ceil", 1, real_functions.ceil, dtypes=REAL),
    Kernel("trunc", 1, real_functions.trunc, dtypes=REAL),
    Kernel("rint", 1, real_functions.rint, complex_scalar=complex_functions.rint),
    Kernel("mod", 2, real_functions.remainder, dtypes=REAL),
    Kernel("fmod", 2, real_functions.fmod, dtypes=REAL),
    Kernel("copysign", 2, real_functions.copysign, dtypes=REAL),
    Kernel("logaddexp", 2, real_functions.logaddexp, dtypes=REAL),
    Kernel("logaddexp2", 2, real_functions.logaddexp2, dtypes=REAL),
    Kernel("erf", 1, real_functions.erf, vector="erf", dtypes=REAL),
    Kernel("erfc", 1, real_functions.erfc, vector="erfc", dtypes=REAL),
    Kernel("lt", 2, real_functions.lt, complex_scalar=complex_functions.lt),
    Kernel("le", 2, real_functions.le, complex_scalar=complex_functions.le),
    Kernel("gt", 2, real_functions.gt, complex_scalar=complex_functions.gt),
    Kernel("ge", 2, real_functions.ge, complex_scalar=complex_functions.ge),
    Kernel("eq", 2, real_functions.eq, complex_scalar=complex_functions.eq),
    Kernel("ne", 2, real_functions.ne, complex_scalar=complex_functions.ne),
    Kernel("logical_and", 2, real_functions.logical_and, complex_scalar=complex_functions.logical_and),
    Kernel("logical_or", 2, real_functions.logical_or, complex_scalar=complex_functions.logical_or),
    Kernel("logical_not", 1, real_functions.logical_not, complex_scalar=complex_functions.logical_not),
    Kernel("isnan", 1, real_functions.isnan, complex_scalar=complex_functions.isnan),
    Kernel("isfinite", 1, real_functions.isfinite, complex_scalar=complex_functions.isfinite),
    Kernel("isinf", 1, real_functions.isinf, complex_scalar=complex_functions.isinf),
    Kernel("signbit", 1, real_functions.signbit, dtypes=REAL),
    Kernel("where", 3, real_functions.where, complex_scalar=complex_functions.where),
    Kernel("sum", 1, None),
)
"""The table: the position of a row is the id of its kernel."""
ID: dict[str, int] = {kernel.name: index for index, kernel in enumerate(KERNELS)}

ADDRESS: np.ndarray[tuple[int, int], np.dtype[np.uintp]] = np.zeros((len(KERNELS), len(DTYPES)), np.uintp)

_SIGNATURE = types.int64(types.int64, types.intp, types.intp, types.intp, types.intp)
_lock = threading.RLock()
# Compiled kernels by kernel, dtype and vector symbol: they own the code behind ADDRESS and are never dropped.
_owners: dict[tuple[int, int, str], Any] = {}


class _ParallelLoop(ir.MDValue):  # type: ignore[misc]  # llvmlite has no annotations
    """Metadata nodes that LLVM wants distinct, which llvmlite cannot write."""

    def __init__(self, module: Any, text: str) -> None:
        super().__init__(module, (), name=str(len(module.metadata)))
        self.text = text

    def descr(self, buf: Any) -> None:
        buf += (f"distinct !{{ {self.text} }}\n",)


def emit_elements(
    context: Any,
    builder: Any,
    dtype_code: int,
    count: Any,
    sources: Sequence[Any],
    targets: Sequence[Any],
    compute: Callable[[list[Any]], list[Any]],
    repeated: Collection[int] = (),
) -> None:
    """Emit a loop over elements of one dtype, marked as independent of each other.

    Parameters
    ----------
    context, builder
        As the emitter of an intrinsic gets them.
    dtype_code : int
        F4, F8, C8 or C16.
    count : llvmlite value
        Elements, at least 1 where something is repeated.
    sources, targets : sequence of llvmlite values
        Addresses. What is written is no other element of what is read.
    compute : callable
        Emits the results, one for each target, from one element of each source.
    repeated : collection of int
        Positions of sources of which the first element serves for all.
    """
    kind = _TYPES[dtype_code]
    real = context.get_value_type(getattr(kind, "underlying_float", kind))
    parts = 2 if dtype_code in (C8, C16) else 1
    pointers = [builder.inttoptr(address, real.as_pointer()) for address in sources]
    places = [builder.inttoptr(address, real.as_pointer()) for address in targets]
    module, index = builder.module, count.type
    group = _ParallelLoop(module, "")

    def access(instruction: Any) -> Any:
        instruction.set_metadata("llvm.access.group", group)
        return instruction

    def load(pointer: Any, first: Any, mark: Callable[[Any], Any]) -> Any:
        numbers = [
            mark(builder.load(builder.gep(pointer, [builder.add(first, index(p))]))) for p in range(parts)
        ]
        if parts == 1:
            return numbers[0]
        value = context.make_complex(builder, kind)
        value.real, value.imag = numbers
        return value._getvalue()

    known = {k: load(pointers[k], index(0), _unmarked) for k in repeated}
    before = builder.block
    loop, done = builder.append_basic_block("elements"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", count, index(0)), loop, done)
    builder.position_at_end(loop)
    i = builder.phi(index)
    i.add_incoming(index(0), before)
    first = builder.mul(i, index(parts))
    values = [known[k] if k in known else load(p, first, access) for k, p in enumerate(pointers)]
    for place, value in zip(places, compute(values), strict=True):
        numbers = [value]
        if parts == 2:
            parsed = context.make_complex(builder, kind, value)
            numbers = [parsed.real, parsed.imag]
        for p, number in enumerate(numbers):
            access(builder.store(number, builder.gep(place, [builder.add(first, index(p))])))
    following = builder.add(i, index(1))
    i.add_incoming(following, builder.block)
    branch = builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    accesses = module.add_metadata([ir.MetaDataString(module, "llvm.loop.parallel_accesses"), group])
    loop_id = _ParallelLoop(module, "")
    # LLVM reads a loop's properties behind a reference of the node to itself.
    loop_id.text = f"{loop_id.get_reference()}, {accesses.get_reference()}"
    branch.set_metadata("llvm.loop", loop_id)
    builder.position_at_end(done)


def _unmarked(instruction: Any) -> Any:
    return instruction


def emit_scalar(context: Any, builder: Any, kernel: Kernel, dtype_code: int, values: Sequence[Any]) -> Any:
    """Emit what one element of a kernel is."""
    kind = _TYPES[dtype_code]
    scalar = (kernel.complex_scalar if dtype_code in (C8, C16) else None) or kernel.scalar
    assert scalar is not None
    return call_scalar(context, builder, scalar, kind(*[kind] * kernel.arity), values)


def _emit_sum(context: Any, builder: Any, code: int, count: Any, addresses: list[Any]) -> None:
    """Emit ``out[0] = sum(a)`` in eight partial sums (element i in sum i % 8), then added in pairs."""
    kind = _TYPES[code]
    real = context.get_value_type(getattr(kind, "underlying_float", kind))
    parts = 2 if code in (C8, C16) else 1
    lanes = 8 * parts
    vector = ir.VectorType(real, lanes)
    source, target = (builder.inttoptr(address, real.as_pointer()) for address in addresses)
    index = count.type
    total = builder.mul(count, index(parts))
    whole = builder.and_(total, index(-lanes))
    # -0.0 is the neutral element: 0.0 would turn a sum of negative zeros into a positive one.
    neutral = vector([-0.0] * lanes)
    sums = cgutils.alloca_once_value(builder, neutral)

    def accumulate(pointer: Any) -> None:
        loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=1)
        builder.store(builder.fadd(builder.load(sums), loaded), sums)

    with cgutils.for_range_slice(builder, index(0), whole, index(lanes), index) as (i, _):
        accumulate(builder.gep(source, [i]))
    with builder.if_then(builder.icmp_signed("<", whole, total)):
        pad = cgutils.alloca_once(builder, real, size=lanes)
        builder.store(neutral, builder.bitcast(pad, vector.as_pointer()), align=1)
        vector_math.copy_numbers(builder, builder.sub(total, whole), builder.gep(source, [whole]), pad)
        accumulate(pad)
    result = builder.load(sums)
    empty = builder.icmp_signed("==", total, index(0))
    for part in range(parts):
        terms = [builder.extract_element(result, ir.IntType(32)(lane)) for lane in range(part, lanes, parts)]
        while len(terms) > 1:
            terms = [builder.fadd(x, y) for x, y in zip(terms[::2], terms[1::2], strict=True)]
        value = builder.select(empty, real(0.0), terms[0])
        builder.store(value, builder.gep(target, [index(part)]))


@intrinsic
def _run_block(
    typing_context: Any, name: Any, code: Any, symbol: Any, n: Any, a: Any, b: Any, c: Any, out: Any
) -> Any:
    """Run the loop of a kernel; the first three arguments are literals."""
    kernel = KERNELS[ID[name.literal_value]]
    dtype_code, vector_symbol = code.literal_value, symbol.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, addresses = args[3], [*args[4 : 4 + kernel.arity], args[7]]
        if kernel.scalar is None:
            _emit_sum(context, builder, dtype_code, count, addresses)
        elif vector_symbol:
            real = context.get_value_type(_TYPES[dtype_code])
            *operands, target = [builder.inttoptr(address, real.as_pointer()) for address in addresses]
            vector_math.emit_vector_loop(builder, vector_symbol, count, operands, target)
        else:

            def compute(values: list[Any]) -> list[Any]:
                return [emit_scalar(context, builder, kernel, dtype_code, values)]

            emit_elements(context, builder, dtype_code, count, addresses[:-1], addresses[-1:], compute)
        return context.get_constant(types.int64, 1)

    return types.int64(name, code, symbol, n, a, b, c, out), emit


def _compile(kernel: Kernel, dtype_code: int, symbol: str) -> Any:
    """Compile a kernel, or load it from the disk cache."""
    # Only strings and numbers in the closure: with anything else in it the disk cache never hits.
    name = kernel.name

    def block(n, a, b, c, out):
        return _run_block(name, dtype_code, symbol, n, a, b, c, out)

    # The name decides the cache file, so it says everything that the code depends on.
    block.__qualname__ = f"block_{name}_{DTYPES[dtype_code].str[1:]}_{symbol or 'scalar'}_{SOURCE_HASH}"
    return cfunc(_SIGNATURE)(block)


def ensure(kernel_id: int, dtype_code: int) -> int:
    """Return the address of a kernel, which is compiled now if this is the first time it is needed.

    Parameters
    ----------
    kernel_id : int
        Position in `KERNELS`; `ID` gives it by name.
    dtype_code : int
        F4, F8, C8 or C16.

    Returns
    -------
    int
        The address, which also stands in ``ADDRESS[kernel_id, dtype_code]`` from now on.

    Raises
    ------
    TypeError
        The kernel does not exist for this dtype.

    Notes
    -----
    Costs 40 to 130 ms to compile and 3 ms to load from the disk cache. Safe from several threads.
    """
    kernel = KERNELS[kernel_id]
    if dtype_code not in kernel.dtypes:
        raise TypeError(f"block kernel {kernel.name!r} does not exist for {DTYPES[dtype_code]}")
    with _lock:
        symbol = vector_math.find_symbol(kernel.vector, DTYPES[dtype_code]) if kernel.vector else ""
        key = (kernel_id, dtype_code, symbol)
        if key not in _owners:
            _owners[key] = _compile(kernel, dtype_code, symbol)
        address = int(_owners[key].address)
        ADDRESS[kernel_id, dtype_code] = address
        return address


def select_instruction_set(name: str | None) -> None:
    """Choose the vector functions: "avx512", "avx2", "scalar", or None for the widest that is here.

    Parameters
    ----------
    name : str or None
        The instruction set.

    Raises
    ------
    ValueError
        The name is unknown, or this processor does not have the instructions.

    Notes
    -----
    Kernels that use vector functions are forgotten in `ADDRESS`: whoever calls by address asks `ensure`
    again. The code of the old ones stays in memory, so a call that is under way is safe.
    """
    with _lock:
        vector_math.select_instruction_set(name)
        ADDRESS[[kernel.vector is not None for kernel in KERNELS]] = 0


@intrinsic
def call_kernel(typing_context: Any, address: Any, n: Any, a: Any, b: Any, c: Any, out: Any) -> Any:
    """Call the kernel at `address` from jitted code, and return its status: 1 done.

    All arguments are integers; `address` must come from `ensure` or `ADDRESS` and must not be 0.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [context.cast(builder, v, k, types.int64) for v, k in zip(args, signature.args, strict=True)]
        word = ir.IntType(64)
        function_type = ir.FunctionType(word, [word] * 5)
        return builder.call(builder.inttoptr(values[0], function_type.as_pointer()), values[1:])

    return types.int64(address, n, a, b, c, out), emit
