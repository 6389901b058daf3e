"""Own the transform of real lines that lie end to end, written for vector instructions.

A real line is one of half as many complex numbers, whose transform is then taken apart. The first pass of Stockham's turns
places along the line into vectors, four butterflies at a time, and exchanges lanes for results; after it, results lie
side by side as columns do, and the kernel of columns goes on. Each line is transformed alone, in the first-level cache.
What the kernel is called with is made in `nbad.kernels.ways`.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from nbad._jit import SOURCE_HASH, cfunc, intrinsic
from nbad.kernels.codelets import WORD, Vectors, call
from nbad.kernels.native import load_int

__all__ = ["FIRST", "real_lines_kernel"]

FIRST = 4
"""Factor of the first pass."""


@intrinsic
def _first_pass(
    typing_context: Any, itemsize: Any, source: Any, n: Any, target: Any, twiddles: Any, forward: Any
) -> Any:
    """Perform the first pass over n complex numbers into others; the first argument is a literal.

    `twiddles` are cosines for each place, each twice, then sines, for each result but the first.
    """
    size = itemsize.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, n, target, twiddles, forward = args[1:]
        v = Vectors(builder, size)
        v.aim(forward)
        pairs = v.lanes // 2
        quarter = builder.sdiv(n, WORD(FIRST))
        row = builder.mul(quarter, WORD(2))
        last = builder.sub(quarter, WORD(pairs))
        with cgutils.for_range(
            builder, builder.sdiv(builder.add(quarter, WORD(pairs - 1)), WORD(pairs))
        ) as loop:
            at = builder.mul(loop.index, WORD(pairs))
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            place = builder.mul(at, WORD(2))

            def load(address: Any, k: int) -> Any:
                return v.load(address, builder.add(place, builder.mul(row, WORD(k))))

            y = v.transform([load(source, k) for k in range(FIRST)])
            for j in range(1, FIRST):
                cos, sin = load(twiddles, 2 * j - 2), load(twiddles, 2 * j - 1)
                y[j] = v.add_product(v.turn(y[j]), sin, builder.fmul(y[j], cos))
            for k, value in enumerate(v.exchange(y)):
                v.store(value, target, builder.add(builder.mul(place, WORD(FIRST)), WORD(k * v.lanes)))
        return context.get_dummy_value()

    return types.void(itemsize, source, n, target, twiddles, forward), emit


@intrinsic
def _mix(typing_context: Any, itemsize: Any, source: Any, n: Any, target: Any, table: Any) -> Any:
    """Combine bins k and n - k of n + 1 into others, between a real line's spectrum and that of its two halves.

    With s, d the sum and difference of one and the conjugate of the other: ``s * half + d * t`` goes to k, the conjugate of
    ``s * half - d * t`` to n - k. The table holds half, the real parts of t, each twice, and the imaginary ones. The first
    argument is a literal.
    """
    size = itemsize.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, n, target, table = args[1:]
        v = Vectors(builder, size)
        v.aim(ir.IntType(1)(0))
        pairs = v.lanes // 2
        count = builder.add(builder.sdiv(n, WORD(2)), WORD(1))
        last = builder.sub(count, WORD(pairs))
        half = v.splat(table, WORD(0))
        with cgutils.for_range(
            builder, builder.sdiv(builder.add(count, WORD(pairs - 1)), WORD(pairs))
        ) as loop:
            at = builder.mul(loop.index, WORD(pairs))
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            place = builder.mul(at, WORD(2))
            opposite = builder.mul(builder.sub(n, builder.add(at, WORD(pairs - 1))), WORD(2))
            one, other = v.load(source, place), v.mirror(v.load(source, opposite))
            s, d = builder.fmul(builder.fadd(one, other), half), builder.fsub(one, other)
            real = v.load(table, builder.add(place, WORD(1)))
            imag = v.load(table, builder.add(place, builder.add(builder.mul(count, WORD(2)), WORD(1))))
            d = v.add_product(v.turn(d), imag, builder.fmul(d, real))
            v.store(builder.fadd(s, d), target, place)
            v.store(v.mirror(builder.fsub(s, d)), target, opposite)
        return context.get_dummy_value()

    return types.void(itemsize, source, n, target, table), emit


@intrinsic
def _repeat_first(typing_context: Any, itemsize: Any, address: Any, n: Any) -> Any:
    """Copy the first of n complex numbers behind the last; the first argument is a literal."""
    size = itemsize.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number: Any = ir.FloatType() if size == 4 else ir.DoubleType()
        start = builder.inttoptr(args[1], number.as_pointer())
        end = builder.mul(args[2], WORD(2))
        for k in (0, 1):
            value = builder.load(builder.gep(start, [WORD(k)]))
            builder.store(value, builder.gep(start, [builder.add(end, WORD(k))]))
        return context.get_dummy_value()

    return types.void(itemsize, address, n), emit


@functools.cache
def real_lines_kernel(itemsize: int) -> Any:
    """Compile the transform of real lines, or load it from the disk cache.

    Parameters
    ----------
    itemsize : int
        Bytes of a real number: 4 or 8.

    Returns
    -------
    cfunc
        Its `address` is that of ``real_lines(source, target, count, forward, steps, spare)``, all int64. It transforms `count`
        lines of 2 n real numbers into n + 1 bins each, or back. `steps` is the address of int64: n, a multiple of FIRST
        that gives at least a vector of first butterflies; the addresses of their twiddle factors and of the tables of the
        combination on the way out and back; of the kernel of columns and its steps for what follows the first pass. `spare`
        has room for 3 n + 1 complex numbers. Source and target must not overlap.
    """
    size = itemsize

    def real_lines(source, target, count, forward, steps, spare):
        n, twiddles = load_int(steps), load_int(steps + 8)
        columns, factors = load_int(steps + 32), load_int(steps + 40)
        first, second = spare, spare + 2 * n * size
        half = second + 2 * n * size
        for line in range(count):
            if forward != 0:
                _first_pass(size, source + line * 2 * n * size, n, second, twiddles, True)
                call(columns, (second, 2, half, 2, 1, 1, factors, first))
                _repeat_first(size, half, n)
                _mix(size, half, n, target + line * 2 * (n + 1) * size, load_int(steps + 16))
            else:
                _mix(size, source + line * 2 * (n + 1) * size, n, half, load_int(steps + 24))
                _first_pass(size, half, n, second, twiddles, False)
                call(columns, (second, 2, target + line * 2 * n * size, 2, 1, 0, factors, first))
        return 1

    real_lines.__qualname__ = f"real_lines_{itemsize}_{SOURCE_HASH}"
    return cfunc("int64(int64, int64, int64, int64, int64, int64)")(real_lines)
