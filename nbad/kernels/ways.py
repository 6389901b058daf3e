"""Own how each axis of a convolution is transformed: by our own codelets where they are faster, else by rocket-fft.

A short real line is multiplied by the matrix of its transform. A longer one whose length has small factors only is
transformed by vectors along it. Columns side by side, of such a length, go through butterflies after Stockham: a pass over
all of them for each factor, from one buffer into another, in which the bins come out in order. Strips of columns that fit
into the cache are taken one after the other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels.codelets import BYTES, GROUP, RADICES, call, columns_kernel, matrix_kernel
from nbad.kernels.lengths import is_short
from nbad.kernels.line_codelets import FIRST, real_lines_kernel
from nbad.kernels.pieces import lines, transform

__all__ = ["Ways", "along", "columns", "ways"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]

LONGEST = 1 << 14
"""Longest columns: two strips of a vector of them fill the cache."""

STRIP = 1 << 17
"""Least bytes of a strip of columns, which is less than twice as wide."""

SHORTEST = {4: 128, 8: 512}
"""Shortest real lines that are transformed by vectors along them, by the bytes of a number."""

# Places in the row of an axis: addresses of a kernel, or 0, and of what it takes.
MATRIX, FORTH, BACK, COLUMNS, STEPS = range(5)


@dataclass(frozen=True)
class Ways:
    """How the axes of a box are transformed."""

    rows: Array
    """A row of int64 for each axis."""
    spare: int
    """Complex numbers of scratch memory that one thread needs."""
    tables: tuple[Array, ...]
    """What the rows have addresses of."""


def _matrices(n: int, itemsize: int, factor: float) -> tuple[Array, Array]:
    """Return the matrices of the transform of n real numbers and of its inverse, which scales by `factor`.

    Real and imaginary parts of a bin are neighbours; rows are filled up to whole vectors.
    """
    k = np.arange(n // 2 + 1)
    angle = 2 * np.pi / n * (np.arange(n)[:, None] * k % n)
    forth = np.stack([np.cos(angle), -np.sin(angle)], -1).reshape(n, -1)
    weight = np.repeat(np.where((k == 0) | (2 * k == n), factor, 2 * factor), 2)
    lanes = BYTES // itemsize

    def filled(matrix: Array) -> Array:
        wide = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % lanes)))
        return np.ascontiguousarray(wide, f"f{itemsize}")

    return filled(forth), filled(forth.T * weight[:, None])


def _radices(n: int) -> list[int]:
    """Return the factors of n in the order they are taken, empty if there are others; 1 is a copy."""
    found = []
    for radix in RADICES:
        # One 8 or one 2 where the power of 2 is odd, else 4, whose butterfly fits into the registers.
        while n % radix == 0 and not (radix in (8, 2) and (n & -n).bit_length() % 2):
            found.append(radix)
            n //= radix
    if n > 1:
        return []
    return [*found, 1] if len(found) == 1 else found


def _roots(n: int, places: Array) -> Array:
    """Return cos and sin of the n-th parts of a turn at these places, side by side along a new last axis."""
    angle = 8 * np.arctan(np.longdouble(1)) / n * (places % n)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _twiddles(n: int, radices: list[int], itemsize: int) -> Array:
    """Return cos and sin for each pass, each place and each result but the first."""
    tables = []
    for radix in radices:
        tables.append(_roots(n, np.arange(n // radix)[:, None] * np.arange(1, radix)).ravel())
        n //= radix
    return np.concatenate(tables).astype(f"f{itemsize}")


def _line_steps(n: int, itemsize: int, factor: float) -> tuple[Array, list[Array]]:
    """Return what the kernel of lines takes for 2 n real numbers, and the tables that it has addresses of."""
    kind = f"f{itemsize}"
    roots = _roots(n, np.arange(1, FIRST)[:, None] * np.arange(n // FIRST))
    first = np.repeat(roots.swapaxes(1, 2), 2).astype(kind)
    cos, sin = _roots(2 * n, np.arange(n // 2 + 1)).T

    def mixing(
        half: float, sign: int
    ) -> Array:  # -i / 2 times the root on the way out, i times its conjugate back
        return np.concatenate([[half], np.repeat(-half * sin, 2), np.repeat(sign * half * cos, 2)]).astype(
            kind
        )

    forth, back = mixing(0.5, -1), mixing(factor, 1)
    radices = _radices(n // FIRST)
    twiddles = _twiddles(n // FIRST, radices, itemsize)
    factors = np.array([n, 1, twiddles.ctypes.data, FIRST, len(radices), *radices], np.int64)
    addresses = [x.ctypes.data for x in (first, forth, back)]
    steps = np.array([n, *addresses, columns_kernel(itemsize).address, factors.ctypes.data], np.int64)
    return steps, [first, forth, back, twiddles, factors]


@functools.lru_cache(256)
def ways(n: Extents, real: bool, itemsize: int, factor: float) -> Ways:
    """Return how the axes of a box are transformed.

    Parameters
    ----------
    n : tuple of int
        Their lengths.
    real : bool
        Whether the data are real, so that the last axis is halved.
    itemsize : int
        Bytes of a complex element: 8 or 16.
    factor : float
        The scale of the inverse of the last axis, if that is real.

    Returns
    -------
    Ways
        The same for the same arguments.
    """
    rows = np.zeros((len(n), STEPS + 1), np.int64)
    tables: list[Array] = []
    spare = 0
    size = itemsize // 2
    if real and is_short(n[-1]):
        forth, back = _matrices(n[-1], size, factor)
        tables += [forth, back]
        rows[-1, : BACK + 1] = matrix_kernel(size).address, forth.ctypes.data, back.ctypes.data
        spare = GROUP * max(forth.shape[1], back.shape[1])
    elif real and SHORTEST[size] <= n[-1] <= LONGEST and n[-1] % 8 == 0 and _radices(n[-1] // (2 * FIRST)):
        steps, more = _line_steps(n[-1] // 2, size, factor)
        tables += [steps, *more]
        rows[-1, COLUMNS:] = real_lines_kernel(size).address, steps.ctypes.data
        spare = 3 * (n[-1] // 2) + 1
    for k, length in enumerate(n[:-1]):
        radices = _radices(length) if 1 < length <= LONGEST else []
        if radices:
            strip = max(BYTES // itemsize, STRIP // (length * itemsize))
            twiddles = _twiddles(length, radices, size)
            steps = np.array([length, strip, twiddles.ctypes.data, 1, len(radices), *radices], np.int64)
            tables += [twiddles, steps]
            rows[k, COLUMNS:] = columns_kernel(size).address, steps.ctypes.data
            spare = max(spare, 2 * length * (2 * strip - 1))
    return Ways(rows, spare, tuple(tables))


@jit
def along(
    source: Array, target: Array, outer: int, n_in: int, n_out: int, inner: int, forward: bool, factor: float,
    way: Array, room: Array,
) -> None:  # fmt: skip
    """Transform as `nbad.kernels.pieces.lines` does, in the way of the axis; room is its scratch memory."""
    x, y, spare = np.int64(source.ctypes.data), np.int64(target.ctypes.data), np.int64(room.ctypes.data)
    if source.dtype == target.dtype:
        if way[COLUMNS] != 0 and n_in == n_out and inner * source.itemsize >= BYTES:
            for _ in range(outer):
                step = 2 * inner
                call(way[COLUMNS], (x, step, y, step, inner, np.int64(forward), way[STEPS], spare))
                x += n_in * inner * source.itemsize
                y += n_in * inner * source.itemsize
            return
    elif way[MATRIX] != 0 and outer >= GROUP:
        matrix, n, m = way[FORTH], n_in, 2 * n_out
        if target.itemsize < source.itemsize:
            matrix, n, m = way[BACK], 2 * n_in, n_out
        call(way[MATRIX], (x, n, y, m, outer, matrix, spare))
        return
    elif way[MATRIX] == 0 and way[COLUMNS] != 0:
        call(way[COLUMNS], (x, y, outer, np.int64(target.itemsize > source.itemsize), way[STEPS], spare))
        return
    lines(source, target, outer, n_in, n_out, inner, forward, factor)


@jit
def columns(source: Array, target: Array, forward: bool, way: Array, room: Array) -> None:
    """Transform source, complex, shape (n, w), along its first axis into target, which may be the same."""
    w, size = source.shape[1], source.itemsize // 2
    if way[COLUMNS] != 0 and 2 * w * size >= BYTES:
        x, y, spare = np.int64(source.ctypes.data), np.int64(target.ctypes.data), np.int64(room.ctypes.data)
        a, b = source.strides[0] // size, target.strides[0] // size
        call(way[COLUMNS], (x, a, y, b, w, np.int64(forward), way[STEPS], spare))
        return
    transform(source, target, np.array([0]), forward, 1.0)
