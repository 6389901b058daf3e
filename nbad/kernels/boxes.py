"""Own the box in which a convolution is transformed: its lengths, how it is cut into pieces, and its rows.

How a box is cut depends on its lengths alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.kernels import long_lines, memory
from nbad.kernels.lengths import halves, padded
from nbad.kernels.long_lines import SHORTEST
from nbad.kernels.ways import Ways, ways

__all__ = ["Box", "box", "element", "extents", "group_of", "rows_for"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]

BLOCK = 1 << 17
"""Bytes of one block of columns, with all rows of the first axis: the buffer of pass (b)."""

LONG = 1 << 19
"""Bytes of the spectrum of a single line from which on it is transformed in four steps."""

TALL = 1 << 21
"""Bytes of the narrowest block of columns from which on the first axis is transformed in four steps."""

SLENDER = 256
"""Columns up to which the first axis is transformed in four steps."""


@dataclass(frozen=True)
class Box:
    """The box that is transformed: what the passes need to know of its lengths."""

    keep: Extents
    """Which of the transformed axes are longer than 1; the others are dropped."""
    n: Extents
    """Lengths at which the kept axes are transformed."""
    period: Extents
    """Cyclic lengths of the kept axes; an axis that is longer than that is padded, and its result folded."""
    q: Extents
    """Lengths of the spectrum, the last one halved where the data are real."""
    bins: int
    """Number of bins of the spectrum."""
    width: int
    """Columns in one block of pass (b), or lines in one group for a single axis."""
    factor: float
    """Scale of the inverse transform."""
    long: long_lines.Split | None
    """How the first axis, or the only one, is split where it is long."""
    ways: Ways
    """How the kept axes are transformed."""

    def kept(self, values: Sequence[int]) -> Extents:
        """Return the values of the axes that are kept."""
        return tuple(values[k] for k in self.keep)

    def turns(self, conj: bool) -> Extents:
        """Return, for each axis, how much later those samples are that come around to the first; 0 if none do.

        They are the end of a convolution, and the negative lags of a correlation, if `conj`.
        """
        pairs = zip(self.n, self.period, strict=True)
        return tuple(0 if n == period else n - period if conj else period for n, period in pairs)

    @property
    def columns(self) -> int:
        """Number of bins of one slab of the first axis."""
        return self.bins // self.n[0]

    @property
    def blocks(self) -> int:
        """Number of blocks of one batch element."""
        return -(-self.columns // self.width)


@functools.lru_cache(256)
def box(lengths: Extents, real: bool, itemsize: int) -> Box:
    """Return the box for some lengths.

    Parameters
    ----------
    lengths : tuple of int
        Lengths along the transformed axes.
    real : bool
        Whether the data are real.
    itemsize : int
        Bytes of a complex element: 8 or 16.

    Returns
    -------
    Box
        The same for the same arguments, but for what is set in this module.
    """
    keep = tuple(k for k, n in enumerate(lengths) if n > 1) or (len(lengths) - 1,)
    period = tuple(lengths[k] for k in keep)
    n = padded(period, real, itemsize, SHORTEST)
    q = (*n[:-1], n[-1] // 2 + 1) if real else n
    bins = math.prod(q)
    factor = 1.0 / math.prod(n)
    how = ways(n, real, itemsize, factor)
    if len(n) == 1:
        long = _split(n[0], real, itemsize, 1) if bins * itemsize >= LONG else None
        bins = bins if long is None else long.q1 * long.n2
        return Box(keep, n, period, q, bins, max(1, BLOCK // (bins * itemsize)), factor, long, how)
    columns = bins // n[0]
    # Whole cache lines, of the rows as of the block.
    line = 64 // itemsize
    width = min(columns, max(line, BLOCK // (n[0] * itemsize) // line * line))
    tall = columns <= SLENDER and n[0] * min(line, columns) * itemsize >= TALL
    long = _split(n[0], False, itemsize, columns) if tall else None
    return Box(keep, n, period, q, bins, width, factor, long, how)


def _split(n: int, real: bool, itemsize: int, inner: int) -> long_lines.Split | None:
    """Return how lines are transformed in four steps, or None where their length has no fair factors."""
    n1, n2 = halves(n, real, itemsize)
    return long_lines.split(n1, n2, real, itemsize, inner) if min(n1, n2) >= SHORTEST else None


def element(dtype: Any, real: bool) -> Any:
    """Return the type of the data whose spectrum has this complex type.

    Parameters
    ----------
    dtype : dtype
        Of the spectrum.
    real : bool
        Whether the data are real.

    Returns
    -------
    dtype
        Of the same precision.
    """
    complex_type = np.dtype(dtype)
    if not real:
        return complex_type
    return np.dtype(np.float32) if complex_type.itemsize == 8 else np.dtype(np.float64)


def extents(values: Sequence[int]) -> Array:
    """Return extents in the form that kernels take.

    Parameters
    ----------
    values : sequence of int
        Lengths or places, one per axis.

    Returns
    -------
    ndarray of int64, shape (d,)
        The same.
    """
    return np.array(values, np.int64)


def rows_for(batch: int, count: int, box: Box, dtype: Any) -> Array:
    """Return rows for spectra of slabs.

    Parameters
    ----------
    batch, count : int
        Batch elements, and slabs of each.
    box : Box
        What a slab is part of.
    dtype : dtype
        Of the spectra.

    Returns
    -------
    ndarray of dtype, shape (batch, count, stride)
        With arbitrary contents. The stride is odd in cache lines, but rows of a first axis in four steps follow each other
        without a gap.
    """
    stride = box.columns
    if box.long is None:
        line = 64 // np.dtype(dtype).itemsize
        stride = (-(-stride // line) | 1) * line
    return memory.empty((batch, count, stride), dtype)


def group_of(slabs: int, box: Box, dtype: Any) -> int:
    """Return how many slabs are transformed together: more than one where they are small.

    Parameters
    ----------
    slabs : int
        How many there are.
    box : Box
        What they are part of.
    dtype : dtype
        Of their spectra.

    Returns
    -------
    int
        At least 1.
    """
    itemsize: int = np.dtype(dtype).itemsize
    return max(1, min(slabs, BLOCK // (box.columns * itemsize)))
