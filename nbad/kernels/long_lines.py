"""Own the transform of a long line in four steps: columns, twiddle factors, rows, and nothing in order.

A line of ``n = n1 * n2`` samples is seen as n1 rows of n2 columns. Each block of columns is transformed along
the first axis, from real to half the bins where the line is real, and multiplied by the twiddle factors
``exp(-2 pi i k1 j2 / n)`` on its way to memory; then each row is transformed along itself, which gives bin
``k1 + n1 * k2`` of the line at place ``(k1, k2)``. A product of spectra does not mind that order, so a
convolution leaves it so, and the work of every piece stays in cache and shares out over threads.

Twiddle factors of a block are products of two: of its first column, and of the distance from there. Only the
latter are kept as a table; the former come from two short tables, of the high and the low digits of the exponent.

The samples of a line may themselves be short runs, each element of which belongs to a line of its own: so lines
along the first axis of a slender array are transformed where they lie.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import memory, pieces
from nbad.kernels.pieces import transform

__all__ = ["Split", "back", "filter", "forward", "product", "roots", "spectrum", "split"]

Array = np.ndarray[Any, Any]

WIDTH = 64
"""Columns in one block, where there are enough of them: what is read and written in one piece must be long."""

ROWS = 1 << 17
"""Bytes of one group of rows."""

SHORTEST = 16
"""Length below which neither of the two factors of a line may be."""

PIECE = 1 << 16
"""Elements that are folded in one go."""

DIGIT = 12
"""Bits of the low digit of an exponent."""

FORWARD: Any = np.bool_(True)
BACK: Any = np.bool_(False)

# Options of helpers that only jitted code calls.
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@dataclass(frozen=True)
class Split:
    """A length in two factors, and the tables of its twiddle factors."""

    n1: int
    """Length of the columns."""
    n2: int
    """Length of the rows."""
    inner: int
    """Elements of one sample."""
    q1: int
    """Bins of a column: half of them where the line is real."""
    width: int
    """Columns in one block."""
    group: int
    """Rows in one group."""
    near: Array
    """Factors of distances within a block, complex, shape (q1, width)."""
    high: Array
    """Factors of the high digits, complex128."""
    low: Array
    """Factors of the low digits, complex128."""

    @property
    def columns(self) -> int:
        """Elements of one row."""
        return self.n2 * self.inner

    @property
    def blocks(self) -> int:
        """Number of blocks of columns of one line."""
        return -(-self.columns // self.width)

    @property
    def groups(self) -> int:
        """Number of groups of rows of one line."""
        return -(-self.q1 // self.group)

    @property
    def stride(self) -> int:
        """Elements from one row to the next between passes: an odd number of cache lines, or of samples of several."""
        sample = self.inner * self.near.itemsize
        step = 64 // math.gcd(sample, 64)
        return (-(-self.n2 // step) | 1) * step * self.inner


def roots(exponents: Array, n: int) -> Array:
    """Return roots of unity.

    Parameters
    ----------
    exponents : ndarray of int64
        In [0, n).
    n : int
        The order.

    Returns
    -------
    ndarray of complex128, shape of `exponents`
        ``exp(-2 pi i exponents / n)``.
    """
    angle = (2.0 * np.pi / n) * np.where(exponents > n // 2, exponents - n, exponents)
    roots = np.empty(exponents.shape, np.complex128)
    roots.real = np.cos(angle)
    roots.imag = -np.sin(angle)
    return roots


@functools.lru_cache(8)
def split(n1: int, n2: int, real: bool, itemsize: int, inner: int = 1) -> Split:
    """Return how lines of ``n1 * n2`` samples are transformed.

    Parameters
    ----------
    n1, n2 : int
        Lengths of columns and rows.
    real : bool
        Whether the lines are real.
    itemsize : int
        Bytes of a complex element: 8 or 16.
    inner : int
        Elements of one sample; more than 1 of complex lines only.

    Returns
    -------
    Split
        With its tables.
    """
    n, columns = n1 * n2, n2 * inner
    q1 = n1 // 2 + 1 if real else n1
    line = 64 // itemsize
    width = min(columns, max(2 * line, min(WIDTH, columns // 16 // line * line)))
    width = -(-width // inner) * inner
    several = line if inner == 1 else 1  # lines that vector instructions work on at once
    group = min(q1, max(1, ROWS // (columns * itemsize * several) * several, several))
    near = roots(np.arange(q1)[:, None] * (np.arange(width) // inner) % n, n)
    high = roots((np.arange((n >> DIGIT) + 1) << DIGIT) % n, n)
    low = roots(np.arange(1 << DIGIT) % n, n)
    return Split(n1, n2, inner, q1, width, group, near.astype(f"c{itemsize}"), high, low)


@jit(**INNER)
def _first_factors(first: Array, high: Array, low: Array, column: int) -> None:
    """Fill first, shape (q1,), with the twiddle factors of one column."""
    for k in range(first.shape[0]):
        e = k * column
        first[k] = high[e >> DIGIT] * low[e & ((1 << DIGIT) - 1)]


@jit(**INNER)
def _load(x: Array, data: Array, n1: int, columns: int, s: int, start: int, w: int) -> None:
    """Copy columns from `start` of the line x, shape (m,), placed at s in zeros, into data, shape (n1, w)."""
    m = x.shape[0]
    for j in range(n1):
        shift = j * columns + start - s
        begin, end = min(max(-shift, 0), w), max(min(m - shift, w), 0)
        for c in range(begin):
            data[j, c] = 0
        for c in range(begin, end):
            data[j, c] = x[shift + c]
        for c in range(max(begin, end), w):
            data[j, c] = 0


@jit
def _columns_to_rows(
    x: Array, rows: Array, n1: int, columns: int, inner: int, s: int, near: Array, high: Array, low: Array,
    data: Array, spec: Array, first: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Transform the columns of lines x, shape (b, m), placed at s in zeros, into rows, shape (b, q1, stride).

    m, s and columns count elements. A chunk is a block of columns. Buffers for one: data, shape (n1 * width,),
    spec, shape (q1 * width,), and first, shape (q1,).
    """
    q1, width = near.shape
    blocks = -(-columns // width)
    axis = np.array([0])
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        w = min(width, columns - start)
        before, after = data[: n1 * w].reshape((n1, w)), spec[: q1 * w].reshape((q1, w))
        _load(x[b], before, n1, columns, s, start, w)
        transform(before, after, axis, FORWARD, 1.0)
        _first_factors(first, high, low, start // inner)
        for k in range(q1):
            row = rows[b, k]
            f = first[k]
            for c in range(w):
                row[start + c] = after[k, c] * (f * near[k, c])
    return 1


@jit
def _rows_to_columns(
    rows: Array, y: Array, n1: int, columns: int, inner: int, o: int, factor: float,
    near: Array, high: Array, low: Array, data: Array, spec: Array, first: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Undo `_columns_to_rows`: write the samples from o on of the lines to y, shape (b, p)."""
    q1, width = near.shape
    blocks = -(-columns // width)
    axis = np.array([0])
    p = y.shape[1]
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        w = min(width, columns - start)
        before, after = spec[: q1 * w].reshape((q1, w)), data[: n1 * w].reshape((n1, w))
        _first_factors(first, high, low, start // inner)
        for k in range(q1):
            row = rows[b, k]
            f = first[k]
            for c in range(w):
                before[k, c] = row[start + c] * np.conj(f * near[k, c])
        transform(before, after, axis, BACK, factor)
        line = y[b]
        for j in range(n1):
            shift = j * columns + start - o
            for c in range(min(max(-shift, 0), w), max(min(p - shift, w), 0)):
                line[shift + c] = after[j, c]
    return 1


@jit(**INNER)
def _samples(rows: Array, inner: int) -> Array:
    """Return rows, shape (b, q1, stride), as samples of several elements."""
    return rows.reshape((rows.shape[0], rows.shape[1], rows.shape[2] // inner, inner))


@jit
def _rows_spectrum(rows: Array, bins: Array, n2: int, inner: int, group: int, lo: int, hi: int) -> int:
    """Transform rows, shape (b, q1, stride), along themselves into bins, shape (b, q1, n2 * inner), in groups."""
    q1 = rows.shape[1]
    before, after = _samples(rows, inner), _samples(bins, inner)
    groups = -(-q1 // group)
    axis = np.array([1])
    for chunk in range(lo, hi):
        b, start = chunk // groups, chunk % groups * group
        stop = min(start + group, q1)
        transform(before[b, start:stop, :n2], after[b, start:stop, :n2], axis, FORWARD, 1.0)
    return 1


@jit
def _rows_filter(
    rows: Array,
    h: Array,
    ih: Array,
    kept: Array,
    n2: int,
    inner: int,
    group: int,
    conj: bool,
    lo: int,
    hi: int,
) -> int:
    """Filter rows, shape (b, q1, stride), by h[ih], h of shape (c, q1, n2 * inner), in place; kept takes spectra."""
    q1, columns = rows.shape[1], n2 * inner
    samples = _samples(rows, inner)
    groups = -(-q1 // group)
    axis = np.array([1])
    for chunk in range(lo, hi):
        b, start = chunk // groups, chunk % groups * group
        stop = min(start + group, q1)
        block = samples[b, start:stop, :n2]
        transform(block, block, axis, FORWARD, 1.0)
        for k in range(start, stop):
            row, kernel = rows[b, k], h[ih[b], k]
            if kept.shape[0] > 0:
                target = kept[b, k]
                for i in range(columns):
                    target[i] = row[i]
            if conj:
                for i in range(columns):
                    row[i] *= np.conj(kernel[i])
            else:
                for i in range(columns):
                    row[i] *= kernel[i]
        transform(block, block, axis, BACK, 1.0)
    return 1


@jit
def _rows_product(
    a: Array, b: Array, ia: Array, ib: Array, rows: Array, n2: int, inner: int, group: int, conj: bool,
    lo: int, hi: int,
) -> int:  # fmt: skip
    """Sum products of spectra a[ia], b[ib], shape (., q1, n2 * inner), ia, ib shape (c, k), over k into rows, back."""
    q1, columns = rows.shape[1], n2 * inner
    samples = _samples(rows, inner)
    groups = -(-q1 // group)
    axis = np.array([1])
    for chunk in range(lo, hi):
        c, start = chunk // groups, chunk % groups * group
        stop = min(start + group, q1)
        for r in range(start, stop):
            row = rows[c, r]
            for k in range(ia.shape[1]):
                u, v = a[ia[c, k], r], b[ib[c, k], r]
                for i in range(columns):
                    product = u[i] * (np.conj(v[i]) if conj else v[i])
                    row[i] = product if k == 0 else row[i] + product
        block = samples[c, start:stop, :n2]
        transform(block, block, axis, BACK, 1.0)
    return 1


def _buffers(how: Split, dtype: Any, data_dtype: Any) -> tuple[Array, Array, Array]:
    """Return buffers for one block of columns: data, shape (n1 * width,), spectra and first factors."""
    data = pieces.scratch(how.n1 * how.width, data_dtype)
    return data, pieces.scratch(how.q1 * how.width, dtype), pieces.scratch(how.q1, dtype)


def forward(x: Array, start: int, how: Split) -> Array:
    """Transform the columns of lines.

    Parameters
    ----------
    x : ndarray of float or complex, shape (b, m)
        In C order; the lines. Here and below lengths and places count elements.
    start : int
        Where they begin among zeros.
    how : Split
        How a line is seen.

    Returns
    -------
    ndarray of complex, shape (b, q1, stride)
        Rows times their twiddle factors; the last ones of each are arbitrary.
    """
    dtype = how.near.dtype
    rows = memory.empty((x.shape[0], how.q1, how.stride), dtype)

    def task(lo: int, hi: int) -> int:
        buffers = _buffers(how, dtype, x.dtype)
        tables = how.near, how.high, how.low
        return _columns_to_rows(x, rows, how.n1, how.columns, how.inner, start, *tables, *buffers, lo, hi)

    pieces.run(task, x.shape[0] * how.blocks, x.nbytes + rows.nbytes)
    return rows


def back(rows: Array, start: int, n: int, turn: int, factor: float, dtype: Any, how: Split) -> Array:
    """Transform rows, shape (b, q1, stride), back along the columns; return samples from `start` on.

    Parameters
    ----------
    rows : ndarray of complex, shape (b, q1, stride)
        As `forward` returns them.
    start, n : int
        Which samples are returned.
    turn : int
        How much later the samples are that are added to them; 0 if there are none.
    factor : float
        The scale.
    dtype : dtype
        Of the result.
    how : Split
        How a line is seen.

    Returns
    -------
    ndarray of dtype, shape (b, n)
        The lines.
    """
    y = memory.empty((rows.shape[0], n + turn), dtype)

    def task(lo: int, hi: int) -> int:
        buffers = _buffers(how, rows.dtype, y.dtype)
        tables = how.near, how.high, how.low
        sizes = how.n1, how.columns, how.inner
        return _rows_to_columns(rows, y, *sizes, start, factor, *tables, *buffers, lo, hi)

    pieces.run(task, rows.shape[0] * how.blocks, y.nbytes + rows.nbytes)
    if turn == 0:
        return y
    folded = memory.empty((rows.shape[0], n), dtype)
    per_line = -(-n // PIECE)

    def fold(lo: int, hi: int) -> None:
        for chunk in range(lo, hi):
            b, first = chunk // per_line, chunk % per_line * PIECE
            last = min(first + PIECE, n)
            np.add(y[b, first:last], y[b, first + turn : last + turn], out=folded[b, first:last])

    pieces.run(fold, rows.shape[0] * per_line, y.nbytes + folded.nbytes)
    return folded


def spectrum(rows: Array, how: Split) -> Array:
    """Transform rows along themselves.

    Parameters
    ----------
    rows : ndarray of complex, shape (b, q1, stride)
        As `forward` returns them.
    how : Split
        How a line is seen.

    Returns
    -------
    ndarray of complex, shape (b, q1 * columns)
        Bin ``k1 + n1 * k2`` of a line at ``k1 * n2 + k2``.
    """
    bins = memory.empty((rows.shape[0], how.q1, how.columns), rows.dtype)

    def task(lo: int, hi: int) -> int:
        return _rows_spectrum(rows, bins, how.n2, how.inner, how.group, lo, hi)

    pieces.run(task, rows.shape[0] * how.groups, rows.nbytes + bins.nbytes)
    return bins.reshape(rows.shape[0], -1)


def filter(rows: Array, h: Array, which: Array, conj: bool, kept: Array, how: Split) -> None:
    """Transform rows along themselves, multiply them by spectra, and transform them back, in place.

    Parameters
    ----------
    rows : ndarray of complex, shape (b, q1, stride)
        As `forward` returns them.
    h : ndarray of complex, shape (c, q1 * columns)
        Spectra in the order of `spectrum`.
    which : ndarray of int64, shape (b,)
        Which of them each line is multiplied by.
    conj : bool
        Whether their conjugates are taken.
    kept : ndarray of complex, shape (b or 0, q1 * columns)
        Where the spectra of the rows go.
    how : Split
        How a line is seen.
    """
    shape = how.q1, how.columns
    kernels, spectra = h.reshape(-1, *shape), kept.reshape(kept.shape[0], *shape)

    def task(lo: int, hi: int) -> int:
        return _rows_filter(rows, kernels, which, spectra, how.n2, how.inner, how.group, conj, lo, hi)

    pieces.run(task, rows.shape[0] * how.groups, 2 * rows.nbytes)


def product(a: Array, b: Array, ia: Array, ib: Array, conj: bool, how: Split) -> Array:
    """Sum products of spectra and transform them back along rows.

    Parameters
    ----------
    a, b : ndarray of complex, shape (., q1 * columns)
        Spectra in the order of `spectrum`.
    ia, ib : ndarray of int64, shape (c, k)
        Which of them are multiplied; the sum is over k.
    conj : bool
        Whether the conjugate of `b` is taken.
    how : Split
        How a line is seen.

    Returns
    -------
    ndarray of complex, shape (c, q1, stride)
        For `back`.
    """
    rows = memory.empty((ia.shape[0], how.q1, how.stride), a.dtype)
    u, v = (spectra.reshape(-1, how.q1, how.columns) for spectra in (a, b))

    def task(lo: int, hi: int) -> int:
        return _rows_product(u, v, ia, ib, rows, how.n2, how.inner, how.group, conj, lo, hi)

    pieces.run(task, rows.shape[0] * how.groups, rows.nbytes * (1 + ia.shape[1]))
    return rows
