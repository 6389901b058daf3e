"""Own sums over axes where NumPy is slow: short rows, and axes before a short one.

NumPy adds up row by row and pays for each of them, however short it is. These loops add in the same order, beginning with 0.
"""

import math
from typing import Any

import numpy as np

from nbad._jit import helper, jit
from nbad.kernels import threads
from nbad.kernels.native import pointer_f4, pointer_f8

#: Elements below which NumPy is fast enough.
_SMALLEST = 1 << 10
#: Rows up to this length (NumPy adds longer ones in eight partial sums), and lengths of what follows the axes.
_SHORT, _NARROW = 7, 32
#: Elements of one piece of a fan-out.
_PIECE = 1 << 15

__all__ = ["Sum", "sum_of"]


@helper("void(int64, int64, int64, int64, int64, int64)")
def add_rows(double, source, target, lo, hi, n):
    """Sum the rows from `lo` to `hi`, each of n elements."""
    for top in range(lo, hi, 512):  # as many stay in the cache, so columns can be taken one after another
        end = min(top + 512, hi)
        if double != 0:
            x8, y8 = pointer_f8(source), pointer_f8(target)
            for i in range(top, end):
                y8[i] = 0.0 + x8[i * n]
            for k in range(1, n):
                for i in range(top, end):
                    y8[i] += x8[i * n + k]
        else:
            x4, y4 = pointer_f4(source), pointer_f4(target)
            for i in range(top, end):
                y4[i] = np.float32(0.0) + x4[i * n]
            for k in range(1, n):
                for i in range(top, end):
                    y4[i] += x4[i * n + k]


@jit("int64(int64, int64, int64, int64, int64, int64, int64)")
def add_up(double, source, target, lo, hi, n, inner):
    """Sum arrays of the shape (n, inner), the ones from `lo` to `hi`, over their first axis; float64 or float32."""
    if inner == 1:
        add_rows(double, source, target, lo, hi, n)
        return 1
    for i in range(lo, hi):
        for k in range(0, inner, 4):  # four sums at a time; where fewer are left, the last one is repeated
            k1, k2, k3 = min(k + 1, inner - 1), min(k + 2, inner - 1), min(k + 3, inner - 1)
            at, to = i * n * inner, i * inner
            if double != 0:
                x8, y8 = pointer_f8(source), pointer_f8(target)
                a8, b8, c8, d8 = 0.0 + x8[at + k], 0.0 + x8[at + k1], 0.0 + x8[at + k2], 0.0 + x8[at + k3]
                for _ in range(1, n):
                    at += inner
                    a8, b8, c8, d8 = a8 + x8[at + k], b8 + x8[at + k1], c8 + x8[at + k2], d8 + x8[at + k3]
                y8[to + k], y8[to + k1], y8[to + k2], y8[to + k3] = a8, b8, c8, d8
            else:
                x4, y4 = pointer_f4(source), pointer_f4(target)
                zero = np.float32(0.0)
                a4, b4, c4, d4 = zero + x4[at + k], zero + x4[at + k1], zero + x4[at + k2], zero + x4[at + k3]
                for _ in range(1, n):
                    at += inner
                    a4, b4, c4, d4 = a4 + x4[at + k], b4 + x4[at + k1], c4 + x4[at + k2], d4 + x4[at + k3]
                y4[to + k], y4[to + k1], y4[to + k2], y4[to + k3] = a4, b4, c4, d4
    return 1


class Sum:
    """A sum over adjacent axes of real arrays, all axes of one (outer, n, inner) that is summed over n.

    Parameters
    ----------
    outer, n, inner : int
        Lengths.
    attributes : dict
        Of `numpy.sum`, which does it where the operand is not C-contiguous.
    """

    def __init__(self, outer: int, n: int, inner: int, attributes: dict[str, Any]) -> None:
        self.outer, self.n, self.inner = outer, n, inner
        self.attributes = attributes

    def __call__(self, out: np.ndarray, x: np.ndarray) -> None:
        """Write the sum of `x` into `out`."""
        if not x.flags.c_contiguous or not x.flags.aligned:
            np.sum(x, out=out, **self.attributes)
            return
        double, source, target = int(x.dtype.itemsize == 8), x.ctypes.data, out.ctypes.data
        each = max(1, _PIECE // (self.n * self.inner))

        def task(lo: int, hi: int) -> int:
            end = min(hi * each, self.outer)
            return int(add_up(double, source, target, lo * each, end, self.n, self.inner))

        threads.fan_out(task, -(-self.outer // each))


def sum_of(
    attributes: dict[str, Any], operand: tuple[np.dtype[Any], tuple[int, ...]], dtype: np.dtype[Any]
) -> Sum | None:
    """Return the sum with these attributes of `numpy.sum`, or None where NumPy is to do it.

    Parameters
    ----------
    attributes : dict
        `axis` (a tuple of non-negative numbers), `dtype` and `keepdims`.
    operand : (dtype, shape)
        Of the operand.
    dtype : dtype
        Of the result.

    Returns
    -------
    Sum or None
        Gives the bits of `numpy.sum`.
    """
    given, shape = operand
    axes = sorted(axis for axis in attributes["axis"] or () if shape[axis] != 1)
    if given != dtype or dtype.char not in "fd" or not axes or math.prod(shape) < _SMALLEST:
        return None
    if any(shape[axis] != 1 and axis not in axes for axis in range(axes[0], axes[-1])):
        return None
    n, inner = math.prod(shape[axis] for axis in axes), math.prod(shape[axes[-1] + 1 :])
    if not (n <= _SHORT if inner == 1 else inner <= _NARROW):
        return None
    return Sum(math.prod(shape[: axes[0]]), n, inner, attributes)
