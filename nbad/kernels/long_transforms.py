"""Own the plain transforms of long lines, bins in their natural order.

A length with two fair factors is transformed in the four steps of `nbad.kernels.long_lines`; the last step, over
groups of rows, puts the bins where they belong on their way to memory. Any other length goes by Bluestein's
method: with the chirp ``w[j] = exp(-pi i j**2 / n)``, bin k is ``w[k]`` times the convolution of ``x * w`` with
``conj(w)``, and that is a long line of a fast length, whose bins may stay in any order. Of a real line half
the bins are wanted, so what comes around may fall on the others and a box of 1.5 lengths is enough.

Lines are the last axis of their arrays.

References
----------
L. Bluestein, A linear filtering approach to the computation of discrete Fourier transform, IEEE Trans. Audio
Electroacoust. 18 (1970) 451.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import long_lines, memory, pieces
from nbad.kernels.lengths import fast_length, halves, padded
from nbad.kernels.long_lines import PIECE, SHORTEST, Split
from nbad.kernels.pieces import transform

__all__ = ["c2c", "c2r", "is_long", "r2c"]

Array = np.ndarray[Any, Any]

LONG = 1 << 21
"""Bytes of the spectrum of a line from which on these transforms are the faster ones.

For awkward lengths it is a quarter of that, an eighth if the line is real.
"""

FORWARD: Any = np.bool_(True)
BACK: Any = np.bool_(False)


@jit
def _rows_to_lines(
    rows: Array, y: Array, n1: int, n2: int, group: int, forward: bool, factor: float, lo: int, hi: int
) -> int:
    """Transform rows, shape (b, q1, stride), along themselves into bins y, shape (b, n or n // 2 + 1).

    A chunk is a group of rows. Row r holds the bins r + n1 * k; where y has all of them they go to their
    mirror images unless `forward`, where it has half of them those of the other half do, conjugate.
    """
    q1, n, last = rows.shape[1], n1 * n2, y.shape[1] - 1
    groups = -(-q1 // group)
    axis = np.array([1])
    for chunk in range(lo, hi):
        b, start = chunk // groups, chunk % groups * group
        stop = min(start + group, q1)
        block, line = rows[b, start:stop, :n2], y[b]
        transform(block, block, axis, FORWARD, factor)
        size = stop - start
        # Bins that are their own mirror images, or whose image another row holds, are written once.
        skip, top = (1 if start == 0 else 0), min(size, (n1 + 1) // 2 - start)
        for k in range(n2):
            bin = start + n1 * k
            if last + 1 < n:
                here = max(0, min(size, last + 1 - bin))
                for r in range(here):
                    line[bin + r] = block[r, k]
                for r in range(max(here, skip), top):
                    line[n - bin - r] = np.conj(block[r, k])
            elif forward:
                for r in range(size):
                    line[bin + r] = block[r, k]
            else:
                for r in range(size):
                    line[(n - bin - r) % n] = block[r, k]
    return 1


@jit
def _lines_to_rows(x: Array, rows: Array, n1: int, n2: int, group: int, lo: int, hi: int) -> int:
    """Gather bins of half spectra x, shape (b, n // 2 + 1), into rows, shape (b, q1, stride), and transform these back."""
    q1, n, last = rows.shape[1], n1 * n2, x.shape[1] - 1
    groups = -(-q1 // group)
    axis = np.array([1])
    for chunk in range(lo, hi):
        b, start = chunk // groups, chunk % groups * group
        stop = min(start + group, q1)
        block, line = rows[b, start:stop, :n2], x[b]
        size = stop - start
        for k in range(n2):
            bin = start + n1 * k
            here = max(0, min(size, last + 1 - bin))
            for r in range(here):
                block[r, k] = line[bin + r]
            for r in range(here, size):
                block[r, k] = np.conj(line[n - bin - r])
        # The first bin of a real line is real; so is the middle one of an even length.
        if start == 0:
            block[0, 0] = block[0, 0].real
        middle = last % n1
        if 2 * last == n and start <= middle < stop:
            block[middle - start, last // n1] = block[middle - start, last // n1].real
        transform(block, block, axis, BACK, 1.0)
    return 1


def _split(n: int, real: bool, itemsize: int) -> Split | None:
    """Return how a line is seen in four steps, or None where its factors forbid it or make it slow."""
    n1, n2 = halves(n, real, itemsize)
    if min(n1, n2) < SHORTEST or padded((n,), real, itemsize, SHORTEST) != (n,):
        return None
    return long_lines.split(n1, n2, real, itemsize)


def is_long(n: int, real: bool, itemsize: int) -> bool:
    """Return whether lines are transformed here.

    Parameters
    ----------
    n : int
        Their length.
    real : bool
        Whether they are real.
    itemsize : int
        Bytes of a complex element: 8 or 16.

    Returns
    -------
    bool
        It depends on these alone, so results do not depend on the number of threads.
    """
    nbytes = (n // 2 + 1 if real else n) * itemsize
    awkward = LONG // 8 if real else LONG // 4
    return nbytes >= LONG or (nbytes >= awkward and _split(n, real, itemsize) is None)


@functools.lru_cache(1)
def _chirp(n: int, half: bool, itemsize: int) -> tuple[Array, Array, Split]:
    """Return w, shape (n,), the spectrum of its conjugate in a box, and how that is split.

    The box holds the distances from -(n - 1) to n - 1, or to n // 2 if only half of the bins are wanted.
    """
    farthest = n // 2 if half else n - 1
    length = fast_length(n + farthest, False)
    how = long_lines.split(*halves(length, False, itemsize), False, itemsize)
    w = memory.empty(n, how.near.dtype)
    box = np.zeros((1, length), w.dtype)

    def task(lo: int, hi: int) -> None:
        for chunk in range(lo, hi):
            j = np.arange(chunk * PIECE, min((chunk + 1) * PIECE, n))
            w[j] = long_lines.roots(j * j % (2 * n), 2 * n)
            box[0, -j] = w[j].conj()
            j = j[: max(0, farthest + 1 - j[0])]
            box[0, j] = w[j].conj()

    pieces.run(task, -(-n // PIECE), w.nbytes + box.nbytes)
    return w, long_lines.spectrum(long_lines.forward(box, 0, how), how), how


def _times(x: Array, w: Array, conj: bool, y: Array) -> None:
    """Write lines x times w, or its conjugate, to y, which may be x; the real part, if y is real."""
    n = y.shape[1]
    count = -(-n // PIECE)

    def task(lo: int, hi: int) -> None:
        for chunk in range(lo, hi):
            b, first = chunk // count, chunk % count * PIECE
            piece = slice(first, min(first + PIECE, n))
            factors = w[piece].conj() if conj else w[piece]
            if y.dtype == w.dtype:
                np.multiply(x[b, piece], factors, out=y[b, piece])
            else:
                y[b, piece] = (x[b, piece] * factors).real

    pieces.run(task, y.shape[0] * count, 2 * y.nbytes)


def _by_chirp(x: Array, n: int, half: bool, forward: bool, factor: float, y: Array) -> None:
    """Write the transform of lines x, shape (b, n or less), to y, shape (b, n or less)."""
    w, kernel, how = _chirp(n, half, 2 * x.real.itemsize)
    a = memory.empty(x.shape, w.dtype)
    _times(x, w, not forward, a)
    if half and not forward:
        # A real line: its bins count twice, by the factor, but for those without a mirror image.
        a[:, 0] = 0.5 * x[:, 0].real
        if n % 2 == 0:
            a[:, -1] = 0.5 * x[:, -1].real * w[n // 2].conj()
    rows = long_lines.forward(a, 0, how)
    which, nothing = np.zeros(x.shape[0], np.int64), np.empty((0, kernel.shape[1]), w.dtype)
    # Backwards the chirp is conjugate, and so is what it is convolved with: a correlation.
    long_lines.filter(rows, kernel, which, not forward, nothing, how)
    scale = factor / kernel.shape[1]
    z = long_lines.back(rows, 0, y.shape[1], 0, scale, w.dtype, how)
    _times(z, w, not forward, y)


def _natural(x: Array, y: Array, forward: bool, factor: float, how: Split) -> None:
    """Transform lines x, shape (b, n), in four steps into y."""
    rows = long_lines.forward(x, 0, how)

    def task(lo: int, hi: int) -> int:
        return _rows_to_lines(rows, y, how.n1, how.n2, how.group, forward, factor, lo, hi)

    pieces.run(task, rows.shape[0] * how.groups, rows.nbytes + y.nbytes)


def c2c(x: Array, forward: bool, factor: float) -> Array:
    """Transform complex lines.

    Parameters
    ----------
    x : ndarray of complex64 or complex128, shape (b, n)
        In C order.
    forward : bool
        Whether the exponent is negative.
    factor : float
        The scale.

    Returns
    -------
    ndarray of the dtype of `x`, shape (b, n)
        The same bits for any number of threads.
    """
    y = memory.empty(x.shape, x.dtype)
    how = _split(x.shape[1], False, x.itemsize)
    if how is None:
        _by_chirp(x, x.shape[1], False, forward, factor, y)
    else:
        _natural(x, y, forward, factor, how)
    return y


def r2c(x: Array, factor: float) -> Array:
    """Transform real lines to the non-negative half of their spectra.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (b, n)
        In C order.
    factor : float
        The scale.

    Returns
    -------
    ndarray of complex, shape (b, n // 2 + 1)
        The same bits for any number of threads.
    """
    n = x.shape[1]
    y = memory.empty((x.shape[0], n // 2 + 1), np.result_type(x.dtype, np.complex64))
    how = _split(n, True, y.itemsize)
    if how is None:
        _by_chirp(x, n, True, True, factor, y)
    else:
        _natural(x, y, True, factor, how)
    y[:, 0].imag = 0
    if n % 2 == 0:
        y[:, -1].imag = 0
    return y


def c2r(x: Array, n: int, factor: float) -> Array:
    """Transform half spectra back to real lines.

    Parameters
    ----------
    x : ndarray of complex64 or complex128, shape (b, n // 2 + 1)
        In C order. Imaginary parts where the spectrum of a real array has none are ignored.
    n : int
        Length of a line.
    factor : float
        The scale.

    Returns
    -------
    ndarray of float, shape (b, n)
        The same bits for any number of threads.
    """
    how = _split(n, True, x.itemsize)
    if how is None:
        y = memory.empty((x.shape[0], n), x.real.dtype)
        _by_chirp(x, n, True, False, 2 * factor, y)
        return y
    rows = memory.empty((x.shape[0], how.q1, how.stride), x.dtype)

    def task(lo: int, hi: int) -> int:
        return _lines_to_rows(x, rows, how.n1, how.n2, how.group, lo, hi)

    pieces.run(task, rows.shape[0] * how.groups, rows.nbytes + x.nbytes)
    return long_lines.back(rows, 0, n, 0, factor, x.real.dtype, how)
