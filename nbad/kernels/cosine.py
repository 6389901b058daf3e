"""Own the cosine and sine transforms of whole arrays, split over the threads in pieces that stay in cache.

The eight transforms are those of SciPy without a norm, each computed by rocket-fft along one axis at a time. The elements
at the ends that orthogonality would weigh otherwise can be scaled on the way; what the scales mean is settled by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rocket_fft import dct as _dct
from rocket_fft import dst as _dst

from nbad._jit import jit
from nbad.kernels import memory, pieces

__all__ = ["real_transform"]

Array = np.ndarray[Any, Any]


@jit
def _lines(
    x: Array,
    y: Array,
    kind: int,
    sine: bool,
    factor: float,
    end: float,
    group: int,
    width: int,
    lo: int,
    hi: int,
) -> int:
    """Transform axis 1 of x into y, both (b, n, r); a chunk is `group` of the b and `width` columns.

    `end` multiplies the weighted elements on the way in and divides them on the way out.
    """
    n = x.shape[1]
    blocks = -(-x.shape[2] // width)
    axis = np.array([1])
    first, last = not sine, sine or kind == 1
    weighted = end != 1 and kind != 4 and (kind != 1 or not sine)
    for chunk in range(lo, hi):
        b, c = chunk // blocks * group, chunk % blocks * width
        source = x[b : b + group, :, c : c + width]
        target = y[b : b + group, :, c : c + width]
        if weighted and kind != 2:
            for i in range(target.shape[0]):
                for j in range(n):
                    for k in range(target.shape[2]):
                        target[i, j, k] = source[i, j, k]
                for k in range(target.shape[2]):
                    if first:
                        target[i, 0, k] *= end
                    if last:
                        target[i, n - 1, k] *= end
            source = target
        if sine:
            _dst(source, target, axis, kind, factor, False, 1)
        else:
            _dct(source, target, axis, kind, factor, False, 1)
        if weighted and kind != 3:
            for i in range(target.shape[0]):
                for k in range(target.shape[2]):
                    if first:
                        target[i, 0, k] /= end
                    if last:
                        target[i, n - 1, k] /= end
    return 1


def real_transform(x: Array, axes: Sequence[int], kind: int, sine: bool, factor: float, end: float) -> Array:
    """Transform an array by cosines or sines, real and imaginary part each by itself.

    Parameters
    ----------
    x : ndarray of float32, float64, complex64 or complex128, shape (...)
        Any strides, no axis of length 0. Not modified.
    axes : sequence of int
        The transformed axes: non-negative, different, at least one.
    kind : int
        1 to 4. A cosine transform of the first kind needs lengths of at least 2.
    sine : bool
        Whether it is a sine transform.
    factor : float
        The scale.
    end : float
        Multiplies the weighted elements of each line before the transform (kinds 1 and 3) and divides those of the
        result (kinds 1 and 2). They are the first one, and for kind 1 the last one, of cosine transforms; the last one of
        sine transforms of kinds 2 and 3.

    Returns
    -------
    ndarray of the dtype of `x`, shape of `x`
        In C order. The same bits for any number of threads.

    Notes
    -----
    With ``end = 1`` these are SciPy's transforms with ``norm="backward"``; with the square root of 2 their
    ``orthogonalize=True``; with 2, the transposed matrix of the other kind (2 for 3, 3 for 2, else the same).
    """
    pieces.count()
    source = pieces.contiguous(x)
    y = memory.empty(source.shape, source.dtype)
    parts = (2,) if source.dtype.kind == "c" else ()
    real = source.real.dtype
    before, after = source.view(real).reshape(*x.shape, *parts), y.view(real).reshape(*x.shape, *parts)
    for axis in reversed(sorted(axes)):
        n, r = x.shape[axis], math.prod(after.shape[axis + 1 :])
        b = math.prod(x.shape[:axis])
        sheet = n * r * real.itemsize
        group = max(1, pieces.GROUP // sheet)
        width = r if group > 1 else min(r, max(8, pieces.GROUP // (n * real.itemsize) // 8 * 8))
        given, made = before.reshape(b, n, r), after.reshape(b, n, r)

        def task(
            lo: int, hi: int, given: Array = given, made: Array = made, group: int = group, width: int = width,
            scale: float = factor,
        ) -> int:  # fmt: skip
            return _lines(given, made, kind, sine, scale, end, group, width, lo, hi)

        pieces.run(task, -(-b // group) * -(-r // width), 2 * y.nbytes)
        before, factor = after, 1.0
    return y
