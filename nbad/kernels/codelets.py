"""Own the short transforms that are written for vector instructions: butterflies of columns, and products with matrices.

rocket-fft gathers a vector from several lines, element by element, and scatters the result. Where the lines lie side by
side, a row of them is a vector as it stands; where they are short, a product with the matrix of the transform needs none.
Both are emitted as operations on vectors, so nothing depends on what a compiler finds in a loop. Kernels are called by
address: the passes that call them would compile them again, each for itself. What they are called with is made in
`nbad.kernels.ways`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from nbad._jit import SOURCE_HASH, cfunc, intrinsic
from nbad.kernels.native import load_int

__all__ = [
    "BYTES",
    "GROUP",
    "RADICES",
    "WORD",
    "Vectors",
    "call",
    "columns_kernel",
    "matrix_kernel",
    "prefetch",
]

BYTES = 32
"""Bytes of a vector."""

GROUP = 4
"""Lines that a product with a matrix takes together."""

RADICES = (7, 5, 3, 8, 2, 4)
"""Factors of the lengths of columns, in the order in which they are taken: only 4 has a form without twiddle factors."""

AHEAD = 16
"""Butterflies between the one whose rows are asked for from memory and the one that is performed."""

WORD = ir.IntType(64)


class Vectors:
    """Emit operations on vectors of numbers: real ones, or complex ones whose parts alternate."""

    def __init__(self, builder: Any, itemsize: int) -> None:
        self.builder = builder
        self.number: Any = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.lanes = BYTES // itemsize
        self.itemsize = itemsize
        self.kind = ir.VectorType(self.number, self.lanes)
        self.turner: Any = None

    def place(self, address: Any, offset: Any, kind: Any) -> Any:
        """Return a pointer to the number at an offset from an address."""
        at = self.builder.add(address, self.builder.mul(offset, WORD(self.itemsize)))
        return self.builder.inttoptr(at, kind.as_pointer())

    def load(self, address: Any, offset: Any) -> Any:
        """Return the vector at an offset from an address, in numbers."""
        return self.builder.load(self.place(address, offset, self.kind), align=self.itemsize)

    def store(self, value: Any, address: Any, offset: Any) -> None:
        """Write a vector to an offset from an address, in numbers."""
        self.builder.store(value, self.place(address, offset, self.kind), align=self.itemsize)

    def splat(self, address: Any, offset: Any) -> Any:
        """Load one number into all lanes."""
        one = self.builder.load(self.place(address, offset, self.number))
        nothing = ir.Constant(self.kind, ir.Undefined)
        lanes = ir.VectorType(ir.IntType(32), self.lanes)
        first = self.builder.insert_element(nothing, one, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, nothing, lanes([0] * self.lanes))

    def pick(self, a: Any, b: Any, places: Sequence[int]) -> Any:
        """Return a vector of complex numbers of two vectors, those of the second behind those of the first."""
        lanes = ir.VectorType(ir.IntType(32), self.lanes)
        return self.builder.shuffle_vector(a, b, lanes([2 * k + part for k in places for part in (0, 1)]))

    def exchange(self, x: Sequence[Any]) -> list[Any]:
        """Return four vectors of complex numbers such that the k-th numbers of all follow each other."""
        pairs = [(x[0], x[1]), (x[2], x[3])]
        if self.lanes == 4:
            return [self.pick(a, b, places) for places in ((0, 2), (1, 3)) for a, b in pairs]
        even, odd = ([self.pick(a, b, places) for a, b in pairs] for places in ((0, 4, 2, 6), (1, 5, 3, 7)))
        return [self.pick(a, b, places) for places in ((0, 1, 4, 5), (2, 3, 6, 7)) for a, b in (even, odd)]

    def mirror(self, value: Any) -> Any:
        """Return the conjugates of complex numbers in reverse order."""
        bits = ir.VectorType(ir.IntType(8 * self.itemsize), self.lanes)
        signs = bits([(i % 2) << (8 * self.itemsize - 1) for i in range(self.lanes)])
        turned = self.pick(value, value, range(self.lanes // 2 - 1, -1, -1))
        return self.builder.bitcast(self.builder.xor(self.builder.bitcast(turned, bits), signs), self.kind)

    def scale(self, value: Any, factor: float) -> Any:
        """Multiply by a constant."""
        return self.builder.fmul(value, self.kind([factor] * self.lanes))

    def add_product(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, in one operation where the processor has it."""
        function_type = ir.FunctionType(self.kind, [self.kind] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.itemsize}"
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        return self.builder.call(function, [a, b, c])

    def aim(self, forward: Any) -> None:
        """Choose the direction of `turn`: a bit per lane whose sign it changes."""
        bits = ir.VectorType(ir.IntType(8 * self.itemsize), self.lanes)
        sign = 1 << (8 * self.itemsize - 1)
        odd, even = ([sign * (i % 2 == k) for i in range(self.lanes)] for k in (1, 0))
        self.turner = self.builder.select(forward, bits(odd), bits(even))

    def turn(self, value: Any) -> Any:
        """Multiply by -i, or by i on the way back."""
        lanes = ir.VectorType(ir.IntType(32), self.lanes)
        nothing = ir.Constant(self.kind, ir.Undefined)
        swapped = self.builder.shuffle_vector(value, nothing, lanes([i ^ 1 for i in range(self.lanes)]))
        changed = self.builder.xor(self.builder.bitcast(swapped, self.turner.type), self.turner)
        return self.builder.bitcast(changed, self.kind)

    def rotate(self, value: Any, k: int, n: int) -> Any:
        """Multiply by the k-th power of the n-th root of unity, ``cos - i sin`` on the way out; k < n / 2."""
        if k == 0:
            return value
        if 4 * k == n:
            return self.turn(value)
        cos, sin = math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)
        if n % 8 == 0 and 8 * k in (n, 3 * n):
            combine = self.builder.fadd if 8 * k == n else self.builder.fsub
            return self.scale(combine(self.turn(value), value), math.sqrt(0.5))
        return self.add_product(self.turn(value), self.kind([sin] * self.lanes), self.scale(value, cos))

    def transform(self, x: Sequence[Any]) -> list[Any]:
        """Return the transform of a few complex vectors."""
        n, b = len(x), self.builder
        if n % 2 == 0:
            even = self.transform(x[0::2])
            odd = [self.rotate(value, k, n) for k, value in enumerate(self.transform(x[1::2]))]
            pairs = list(zip(even, odd, strict=True))
            return [b.fadd(p, q) for p, q in pairs] + [b.fsub(p, q) for p, q in pairs]
        half = range(1, (n + 1) // 2)
        sums = [b.fadd(x[k], x[n - k]) for k in half]
        turned = [self.turn(b.fsub(x[k], x[n - k])) for k in half]
        first: list[Any] = [functools.reduce(b.fadd, sums, x[0])]
        last: list[Any] = []
        for j in half:
            cosines = [math.cos(2 * math.pi * (j * k % n) / n) for k in half]
            sines = [math.sin(2 * math.pi * (j * k % n) / n) for k in half]
            p, q = x[0], self.scale(turned[0], sines[0])
            for value, cos in zip(sums, cosines, strict=True):
                p = self.add_product(value, self.kind([cos] * self.lanes), p)
            for value, sin in zip(turned[1:], sines[1:], strict=True):
                q = self.add_product(value, self.kind([sin] * self.lanes), q)
            first.append(b.fadd(p, q))
            last.insert(0, b.fsub(p, q))
        return first + last


@intrinsic
def _butterflies(
    typing_context: Any, itemsize: Any, radix: Any, source: Any, source_step: Any, target: Any, target_step: Any,
    twiddles: Any, plain: Any, forward: Any, count: Any,
) -> Any:  # fmt: skip
    """Transform `radix` rows of `count` numbers, at least a vector, into others; the first two arguments are literals.

    The last vector may overlap the one before, so source and target must not. All but the first of the results are
    multiplied by the twiddle factors, unless `plain`, which only radix 4 can be.
    """
    size, n = itemsize.literal_value, radix.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_step, target, target_step, twiddles, plain, forward, count = args[2:]
        v = Vectors(builder, size)
        v.aim(forward)
        vectors = builder.sdiv(builder.add(count, WORD(v.lanes - 1)), WORD(v.lanes))
        last = builder.sub(count, WORD(v.lanes))

        def rows(factors: list[Any]) -> None:
            with cgutils.for_range(builder, vectors) as loop:
                at = builder.mul(loop.index, WORD(v.lanes))
                at = builder.select(builder.icmp_signed("<", at, last), at, last)
                x = [v.load(source, builder.add(at, builder.mul(source_step, WORD(k)))) for k in range(n)]
                y = v.transform(x)
                for j, (cos, sin) in enumerate(factors, 1):
                    y[j] = v.add_product(v.turn(y[j]), sin, builder.fmul(y[j], cos))
                for j, value in enumerate(y):
                    v.store(value, target, builder.add(at, builder.mul(target_step, WORD(j))))

        def twisted() -> None:
            numbers = [v.splat(twiddles, WORD(i)) for i in range(2 * n - 2)]
            rows(list(zip(numbers[0::2], numbers[1::2], strict=True)))

        if n == 4:
            with builder.if_else(plain) as (then, otherwise):
                with then:
                    rows([])
                with otherwise:
                    twisted()
        else:
            twisted()
        return context.get_dummy_value()

    return types.void(
        itemsize, radix, source, source_step, target, target_step, twiddles, plain, forward, count
    ), emit


@intrinsic
def _products(
    typing_context: Any, itemsize: Any, vectors: Any, source: Any, n: Any, target: Any, step: Any, matrix: Any, row: Any
) -> Any:  # fmt: skip
    """Multiply GROUP lines of n numbers by some columns of a matrix; the first two arguments are literals.

    ``vectors`` vectors of results go to each of the lines `step` apart; rows of the matrix are `row` numbers apart.
    """
    size, width = itemsize.literal_value, vectors.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, n, target, step, matrix, row = args[2:]
        v = Vectors(builder, size)
        zero = v.kind([0.0] * v.lanes)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(width)] for _ in range(GROUP)]
        for line in sums:
            for total in line:
                builder.store(zero, total)
        with cgutils.for_range(builder, n) as loop:
            at = builder.mul(loop.index, row)
            values = [v.load(matrix, builder.add(at, WORD(c * v.lanes))) for c in range(width)]
            for k, line in enumerate(sums):
                x = v.splat(source, builder.add(loop.index, builder.mul(n, WORD(k))))
                for value, total in zip(values, line, strict=True):
                    builder.store(v.add_product(x, value, builder.load(total)), total)
        for k, line in enumerate(sums):
            for c, total in enumerate(line):
                v.store(
                    builder.load(total), target, builder.add(builder.mul(step, WORD(k)), WORD(c * v.lanes))
                )
        return context.get_dummy_value()

    return types.void(itemsize, vectors, source, n, target, step, matrix, row), emit


@intrinsic
def _copy(typing_context: Any, itemsize: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy `count` numbers, and what is in the vector with the last; the first argument is a literal."""
    size = itemsize.literal_value

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number: Any = ir.FloatType() if size == 4 else ir.DoubleType()
        source, target = (builder.inttoptr(a, number.as_pointer()) for a in args[1:3])
        with cgutils.for_range(builder, args[3]) as loop:
            value = builder.load(builder.gep(source, [loop.index]))
            builder.store(value, builder.gep(target, [loop.index]))
        return context.get_dummy_value()

    return types.void(itemsize, source, target, count), emit


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which need not be valid."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        builder.call(function, [builder.inttoptr(args[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(address), emit


@intrinsic
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call a kernel of this module from jitted code with a tuple of int64; 1 means done."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[1])
        function_type = ir.FunctionType(WORD, [WORD] * len(values))
        return builder.call(builder.inttoptr(args[0], function_type.as_pointer()), values)

    return types.int64(address, arguments), emit


@functools.cache
def columns_kernel(itemsize: int) -> Any:
    """Compile the transform of columns, or load it from the disk cache.

    Parameters
    ----------
    itemsize : int
        Bytes of a real number: 4 or 8.

    Returns
    -------
    cfunc
        Its `address` is that of ``columns(source, source_step, target, target_step, width, forward, steps, spare)``, all
        int64. It transforms `width` complex columns, whose rows are `source_step` and `target_step` numbers apart. `steps` is
        the address of int64: the length, the least width of a strip, the address of the twiddle factors, the product of the
        factors whose passes have been performed already, the number of other factors, and these. A strip times that
        product is at least a vector. `spare` has room for two strips of almost twice the least width. Source and target may be
        the same if there are two factors or more.
    """
    size = itemsize

    def columns(source, source_step, target, target_step, width, forward, steps, spare):
        n, strips, count = load_int(steps), max(width // load_int(steps + 8), 1), load_int(steps + 32)
        for strip in range(strips):
            start, stop = width * strip // strips, width * (strip + 1) // strips
            w = 2 * (stop - start)
            here, here_step = source + 2 * start * size, source_step
            twiddles, done = load_int(steps + 16), load_int(steps + 24)
            rest = n // done
            for i in range(count):
                radix = load_int(steps + 40 + 8 * i)
                rest //= radix
                there, there_step = spare + i % 2 * n * w * size, w
                if i == count - 1:
                    there, there_step = target + 2 * start * size, target_step
                runs, length = done, w
                if here_step == w and there_step == w:
                    runs, length = 1, done * w
                a, b = done * rest * here_step, done * there_step
                for p in range(rest):
                    if i == 0 and here_step != w:  # rows as far apart as pages, which nothing else foresees
                        for k in range(radix):
                            prefetch(here + (p + AHEAD + k * rest) * here_step * size)
                    for q in range(runs):
                        x = here + (q + done * p) * here_step * size
                        y = there + (q + done * radix * p) * there_step * size
                        if radix == 4:
                            _butterflies(size, 4, x, a, y, b, twiddles, rest == 1, forward != 0, length)
                        elif radix == 8:
                            _butterflies(size, 8, x, a, y, b, twiddles, False, forward != 0, length)
                        elif radix == 3:
                            _butterflies(size, 3, x, a, y, b, twiddles, False, forward != 0, length)
                        elif radix == 5:
                            _butterflies(size, 5, x, a, y, b, twiddles, False, forward != 0, length)
                        elif radix == 7:
                            _butterflies(size, 7, x, a, y, b, twiddles, False, forward != 0, length)
                        elif radix == 2:
                            _butterflies(size, 2, x, a, y, b, twiddles, False, forward != 0, length)
                        else:
                            _butterflies(size, 1, x, a, y, b, twiddles, False, forward != 0, length)
                    twiddles += 2 * (radix - 1) * size
                here, here_step = there, there_step
                done *= radix
        return 1

    columns.__qualname__ = f"columns_{itemsize}_{SOURCE_HASH}"
    return cfunc("int64(int64, int64, int64, int64, int64, int64, int64, int64)")(columns)


@functools.cache
def matrix_kernel(itemsize: int) -> Any:
    """Compile the product of lines with a matrix, or load it from the disk cache.

    Parameters
    ----------
    itemsize : int
        Bytes of a number: 4 or 8.

    Returns
    -------
    cfunc
        Its `address` is that of ``product(source, n, target, m, count, matrix, spare)``, all int64: it multiplies `count`
        lines of n numbers, at least GROUP, by a matrix whose m columns are filled up to whole vectors, as is each of the
        GROUP lines that `spare` has room for. Source and target must not overlap.
    """
    size = itemsize

    def product(source, n, target, m, count, matrix, spare):
        lanes = BYTES // size
        row = -(-m // lanes) * lanes
        groups = -(-count // GROUP)
        for group in range(groups):
            # What a line writes beyond its end is overwritten by the next ones; the last ones take a detour.
            line = max(count - (groups - group) * GROUP, 0)
            last = group == groups - 1 or count < 2 * GROUP
            there, step = (spare, row) if last else (target + line * m * size, m)
            x = source + line * n * size
            left = row // lanes
            while left > 0:
                width = 3 if left % 3 == 0 else min(left, 2)
                left -= width
                y, columns = there + left * BYTES, matrix + left * BYTES
                if width == 3:
                    _products(size, 3, x, n, y, step, columns, row)
                elif width == 2:
                    _products(size, 2, x, n, y, step, columns, row)
                else:
                    _products(size, 1, x, n, y, step, columns, row)
            if last:
                for k in range(GROUP):
                    _copy(size, spare + k * row * size, target + (line + k) * m * size, m)
        return 1

    product.__qualname__ = f"matrix_{itemsize}_{SOURCE_HASH}"
    return cfunc("int64(int64, int64, int64, int64, int64, int64, int64)")(product)
