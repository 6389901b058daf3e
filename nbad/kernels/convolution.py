"""Own convolution and correlation by products of spectra, in passes whose work stays in cache.

For several transformed axes a convolution is three passes over memory: (a) each slab of the first axis is
transformed over all other axes; (b) each block of columns is transformed along the first axis, multiplied by
the kernel's spectrum and transformed back, in one buffer; (c) undoes (a). One transformed axis needs a single
pass over groups of lines, and where it is long the four steps of `nbad.kernels.long_lines`; so does pass (b) where the
first axis is long and columns are few. Between passes the
data lie block by block, and so do spectra: **their layout is private**, good only for the functions here, for
the same lengths, realness and precision. Rows of zeros that padding adds are never stored or transformed in
(a), rows that cropping drops are never transformed in (c).

A cyclic length with a large prime factor is padded to at least twice as much, where that is less work; pass (b)
or (c) then adds what came around.

Batch axes (all that are not transformed) broadcast as in NumPy. In a spectrum they come first, in their
order, before one last axis that holds the bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad.kernels import boxes, long_lines, memory, passes, pieces
from nbad.kernels.boxes import Box, element, extents, group_of, rows_for
from nbad.kernels.lengths import fast_length
from nbad.kernels.slabs import Entered, Left

__all__ = ["correlate_spectra", "fast_length", "filter", "filter_from_spectrum", "spectrum"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]


def _trail(axes: Sequence[int], ndim: int) -> bool:
    """Return whether the axes, which are ascending, are the last ones."""
    return axes[0] == ndim - len(axes)


def _batch_first(x: Array | Entered, axes: Sequence[int], box: Box, dtype: Any) -> tuple[Array, Extents]:
    """Return x in C order as (batch, *kept axes) of that dtype, or its rows, and the shape of its batch axes."""
    batch = [k for k in range(x.ndim) if k not in axes]
    shape = tuple(x.shape[k] for k in batch)
    if isinstance(x, Entered):
        return x.rows, shape
    sizes = box.kept([x.shape[axis] for axis in axes])
    moved = x if _trail(axes, x.ndim) else x.transpose(batch + list(axes))
    moved = moved.astype(dtype, copy=False)
    return pieces.contiguous(moved).reshape(math.prod(shape), *sizes), shape


def _restore(y: Array, batch: Extents, shape: Sequence[int], axes: Sequence[int]) -> Array:
    """Return y, shape (b, *kept axes), with batch axes and the transformed ones at `axes`, in C order."""
    y = y.reshape(*batch, *shape)
    if _trail(axes, y.ndim):
        return y
    return pieces.contiguous(np.moveaxis(y, range(len(batch), y.ndim), axes))


def _indices(shape: Extents, batch: Extents) -> Array:
    """Return, for each element of `batch`, which element of an array of that `shape` broadcasts to it."""
    own = np.arange(math.prod(shape)).reshape(shape)
    return own if shape == batch else np.broadcast_to(own, batch)


def _pass_a(x: Array, start: Sequence[int], box: Box, real: bool, dtype: Any) -> Array:
    """Run pass (a) over x, shape (b, m0, ...), and return rows, shape (b, m0, stride)."""
    slabs = x.reshape(x.shape[0] * x.shape[1], -1)
    rows = rows_for(x.shape[0], x.shape[1], box, dtype)
    m, n, q, s = extents(x.shape[1:]), extents(box.n), extents(box.q), extents(start)
    group = group_of(slabs.shape[0], box, dtype)
    padded = x.shape[2:-1] != box.n[1:-1]
    middle = group * box.columns if padded or group > 1 else 0
    last = group * math.prod(x.shape[2:-1]) * box.n[-1] if x.shape[-1] != box.n[-1] else 0

    def task(lo: int, hi: int) -> int:
        work, pad = pieces.scratch(middle, dtype), pieces.scratch(last, x.dtype)
        spare = pieces.scratch(middle, dtype) if padded else work
        room = pieces.scratch(box.ways.spare, dtype)
        return passes.slabs_to_rows(
            slabs, rows, m, n, q, s, box.ways.rows, group, work, spare, pad, room, lo, hi
        )

    pieces.run(task, -(-slabs.shape[0] // group), x.nbytes + rows.nbytes)
    return rows


def _pass_c(rows: Array, shape: Extents, start: Sequence[int], turns: Extents, box: Box, real: bool) -> Array:
    """Run pass (c) over rows, shape (b, p0, stride), which it uses up, and return y, shape (b, p0, ...)."""
    y = memory.empty((rows.shape[0], *shape), element(rows.dtype, real))
    slabs = y.reshape(rows.shape[0] * shape[0], -1)
    p, n, q, o, t = (extents(values) for values in (shape, box.n, box.q, start, turns))
    group = group_of(slabs.shape[0], box, rows.dtype)
    middle = group * box.columns if group > 1 else 0
    last = group * math.prod(shape[1:-1]) * box.n[-1] if shape[-1] != box.n[-1] else 0

    def task(lo: int, hi: int) -> int:
        work, pad = pieces.scratch(middle, rows.dtype), pieces.scratch(last, y.dtype)
        room = pieces.scratch(box.ways.spare, rows.dtype)
        return passes.rows_to_slabs(
            rows, slabs, p, n, q, o, t, box.factor, box.ways.rows, group, work, pad, room, lo, hi
        )

    pieces.run(task, -(-slabs.shape[0] // group), y.nbytes + rows.nbytes)
    return y


def _line_buffers(box: Box, dtype: Any, real: bool, padded: bool) -> tuple[Array, Array, Array]:
    """Return buffers for one group of lines: spectra, shape (g * q,), data, shape (g * n or 0,), and room."""
    pad = pieces.scratch(box.width * box.n[0] if padded else 0, element(dtype, real))
    return pieces.scratch(box.width * box.bins, dtype), pad, pieces.scratch(box.ways.spare, dtype)


def _long_forward(x: Array, start: int, box: Box) -> Array:
    """Transform lines x, shape (b, m), or rows, shape (b, m0, stride), along the columns of the long axis."""
    assert box.long is not None
    lines = pieces.contiguous(x[..., : box.columns]) if x.ndim == 3 else x
    return long_lines.forward(lines.reshape(x.shape[0], -1), start * box.long.inner, box.long)


def _long_back(
    rows: Array, shape: Extents, start: Extents, turns: Extents, box: Box, real: bool, leave: bool
) -> Array:
    """Undo `_long_forward`, and pass (a) unless `leave`: return lines, shape (b, p), data or rows, shape (b, p0, ...)."""
    assert box.long is not None
    inner = box.long.inner
    o, p, t = start[0] * inner, shape[0] * inner, turns[0] * inner
    if len(box.n) == 1:
        return long_lines.back(rows, o, p, t, box.factor, element(rows.dtype, real), box.long)
    left = long_lines.back(rows, o, p, t, 1.0, rows.dtype, box.long).reshape(rows.shape[0], shape[0], inner)
    return left if leave else _pass_c(left, shape, start, turns, box, real)


def spectrum(
    v: Array | Entered, lengths: Sequence[int], axes: Sequence[int], real: bool,
    start: Sequence[int] | None = None,
) -> Array:  # fmt: skip
    """Place an array in a box of zeros and transform it.

    Parameters
    ----------
    v : ndarray of float32, float64, complex64 or complex128, shape (..., m, ...)
        Any strides, not empty. Not modified. Or what `nbad.kernels.through` left of an array, which is used up.
    lengths : sequence of int
        Lengths of the box along `axes`.
    axes : sequence of int
        The transformed axes of `v`: non-negative, ascending.
    real : bool
        Whether `v` and what it is convolved with are real; half the spectrum is kept then.
    start : sequence of int, optional
        Where `v` begins in the box; ``start + m <= lengths``. At its origin by default.

    Returns
    -------
    ndarray of complex, shape (*batch, bins)
        The spectrum in the layout of this module.
    """
    pieces.count()
    dtype = np.result_type(v.dtype, np.complex64)
    box = boxes.box(tuple(lengths), real, dtype.itemsize)
    x, batch = _batch_first(v, axes, box, element(dtype, real))
    offsets = box.kept(start or [0] * len(axes))
    if len(box.n) > 1 and not isinstance(v, Entered):
        x = _pass_a(x, offsets, box, real, dtype)
    if box.long is not None:
        bins = long_lines.spectrum(_long_forward(x, offsets[0], box), box.long)
        return bins.reshape(*batch, box.bins)
    bins = memory.empty((x.shape[0], box.bins), dtype)
    way = box.ways.rows[0]
    if len(box.n) == 1:

        def lines(lo: int, hi: int) -> int:
            _, pad, room = _line_buffers(box, dtype, real, x.shape[1:] != box.n)
            return passes.lines_spectrum(x, bins, box.n[0], offsets[0], box.width, way, pad, room, lo, hi)

        pieces.run(lines, -(-x.shape[0] // box.width), x.nbytes + bins.nbytes)
    else:
        n0, s0 = box.n[0], offsets[0]

        def blocks(lo: int, hi: int) -> int:
            room = pieces.scratch(box.ways.spare, dtype)
            return passes.blocks_forward(x, bins, n0, s0, box.width, way, room, lo, hi)

        pieces.run(blocks, x.shape[0] * box.blocks, x.nbytes + bins.nbytes)
    return bins.reshape(*batch, box.bins)


def filter(
    x: Array | Entered,
    start: Sequence[int],
    lengths: Sequence[int],
    h_hat: Array,
    conj: bool,
    out_start: Sequence[int],
    out_shape: Sequence[int],
    axes: Sequence[int],
    real: bool,
    keep_spectrum: bool = False,
    leave: bool = False,
) -> tuple[Any, Array | None]:
    """Convolve an array with a kernel whose spectrum is at hand, or correlate it.

    Parameters
    ----------
    x : ndarray, shape (..., m, ...)
        Any strides, not empty; converted to the precision of `h_hat`. Not modified. Or what
        `nbad.kernels.through` left of an array, which is used up.
    start : sequence of int
        Where `x` begins in the box, per transformed axis.
    lengths : sequence of int
        Lengths of the box.
    h_hat : ndarray of complex64 or complex128, shape (*batch, bins)
        The kernel's spectrum, from this module, for the same `lengths` and `real`. Its batch axes and those
        of `x` broadcast.
    conj : bool
        Whether the conjugate of `h_hat` is taken (correlation).
    out_start, out_shape : sequence of int
        Which part of the box is returned, per transformed axis.
    axes : sequence of int
        The transformed axes of `x`: non-negative, ascending.
    real : bool
        Whether `x` and the kernel are real.
    keep_spectrum : bool
        Whether the spectrum of `x` is returned too.
    leave : bool
        Whether pass (c) is left to `nbad.kernels.through`, which says when it can be.

    Returns
    -------
    y : ndarray, shape (..., out_shape, ...), or Left
        In C order; axes that broadcasting adds come first. The same bits for any number of threads.
    x_hat : ndarray of complex, shape (*batch of x, bins), or None
        As `spectrum` would give it.

    Notes
    -----
    Two transforms: ``crop(ifft(fft(place(x)) * h_hat))``.
    """
    dtype = h_hat.dtype
    box = boxes.box(tuple(lengths), real, dtype.itemsize)
    own = tuple(n for k, n in enumerate(x.shape) if k not in axes)
    batch = np.broadcast_shapes(own, h_hat.shape[:-1])
    if math.prod(own) != math.prod(batch):
        # Each line of x meets several kernels: its spectrum is made once.
        assert isinstance(x, np.ndarray)
        made = spectrum(x.astype(element(dtype, real), copy=False), lengths, axes, real, start)
        shifted = [axis + len(batch) - len(own) for axis in axes]
        y = filter_from_spectrum(made, h_hat, conj, lengths, shifted, real, out_start, out_shape, leave)
        return y, made if keep_spectrum else None
    pieces.count(2)
    data, _ = _batch_first(x, axes, box, element(dtype, real))
    s, o, p = box.kept(start), box.kept(out_start), box.kept(out_shape)
    turns = box.turns(conj)
    kernels = pieces.contiguous(h_hat).reshape(-1, box.bins)
    which = np.ascontiguousarray(_indices(h_hat.shape[:-1], batch)).reshape(-1)
    count = data.shape[0]
    kept = memory.empty((count if keep_spectrum else 0, box.bins), dtype)
    way = box.ways.rows[0]
    if len(box.n) > 1 and not isinstance(x, Entered):
        data = _pass_a(data, s, box, real, dtype)
    if box.long is not None:
        data = _long_forward(data, s[0], box)
        long_lines.filter(data, kernels, which, conj, kept, box.long)
        y = out = _long_back(data, p, o, turns, box, real, leave)
    elif len(box.n) == 1:
        n = box.n[0]
        y = memory.empty((count, *p), data.dtype)

        def lines(lo: int, hi: int) -> int:
            work, pad, room = _line_buffers(box, dtype, real, data.shape[1:] != box.n or p != box.n)
            return passes.lines_filter(
                data, kernels, which, kept, y, n, s[0], o[0], turns[0], box.width, conj, box.factor,
                way, work, pad, room, lo, hi,
            )  # fmt: skip

        pieces.run(lines, -(-count // box.width), data.nbytes + y.nbytes)
    else:
        n0 = box.n[0]
        out = data if p[0] == data.shape[1] else rows_for(count, p[0], box, dtype)

        def blocks(lo: int, hi: int) -> int:
            work, room = pieces.scratch(n0 * box.width, dtype), pieces.scratch(box.ways.spare, dtype)
            return passes.blocks_filter(
                data, kernels, which, kept, out, n0, s[0], o[0], turns[0], box.width, conj, way, work, room, lo, hi
            )  # fmt: skip

        pieces.run(blocks, count * box.blocks, data.nbytes + out.nbytes)
        y = out if leave else _pass_c(out, p, o, turns, box, real)
    shifted = [axis + len(batch) - len(own) for axis in axes]
    x_hat = kept.reshape(*own, box.bins) if keep_spectrum else None
    if leave:
        return Left(out, batch, p, o, turns, box, real), x_hat
    return _restore(y, batch, out_shape, shifted), x_hat


def filter_from_spectrum(
    x_hat: Array,
    h_hat: Array,
    conj: bool,
    lengths: Sequence[int],
    axes: Sequence[int],
    real: bool,
    out_start: Sequence[int],
    out_shape: Sequence[int],
    leave: bool = False,
) -> Any:
    """Multiply two spectra and transform back: `filter` where the spectrum of its array is at hand.

    Parameters
    ----------
    x_hat, h_hat : ndarray of complex64 or complex128, shape (*batch, bins)
        Spectra from this module, for the same `lengths` and `real`; their batch axes broadcast.
    conj : bool
        Whether the conjugate of `h_hat` is taken.
    lengths : sequence of int
        Lengths of the box.
    axes : sequence of int
        Where the transformed axes are in the result: non-negative, ascending.
    real : bool
        Whether the data are real.
    out_start, out_shape : sequence of int
        Which part of the box is returned, per transformed axis.
    leave : bool
        As for `filter`.

    Returns
    -------
    ndarray, shape (..., out_shape, ...), or Left
        In C order. The same bits for any number of threads.

    Notes
    -----
    One transform.
    """
    return _product(x_hat, h_hat, conj, lengths, axes, real, (), out_start, out_shape, leave)


def correlate_spectra(
    a_hat: Array,
    b_hat: Array,
    lengths: Sequence[int],
    axes: Sequence[int],
    real: bool,
    reduce_axes: Sequence[int],
    out_start: Sequence[int],
    out_shape: Sequence[int],
) -> Array:
    """Correlate two arrays by their spectra and sum over batch axes, which happens before the transform.

    Parameters
    ----------
    a_hat, b_hat : ndarray of complex64 or complex128, shape (*batch, bins)
        Spectra from this module, for the same `lengths` and `real`; their batch axes broadcast.
    lengths : sequence of int
        Lengths of the box.
    axes : sequence of int
        Where the transformed axes are in the result: non-negative, ascending.
    real : bool
        Whether the data are real.
    reduce_axes : sequence of int
        Which of the broadcast batch axes are summed over, non-negative; they are absent from the result.
    out_start, out_shape : sequence of int
        Which part of the box is returned, per transformed axis.

    Returns
    -------
    ndarray, shape (..., out_shape, ...)
        ``crop(ifft(sum(a_hat * conj(b_hat))))`` in C order. The same bits for any number of threads.

    Notes
    -----
    One transform. With ``y = filter(x, ..., h_hat)`` and cotangent ``g``, the cotangent of the kernel is
    ``correlate_spectra(spectrum(g), x_hat)``.
    """
    y: Array = _product(a_hat, b_hat, True, lengths, axes, real, tuple(reduce_axes), out_start, out_shape)
    return y


def _product(
    a_hat: Array, b_hat: Array, conj: bool, lengths: Sequence[int], axes: Sequence[int], real: bool,
    reduce_axes: Extents, out_start: Sequence[int], out_shape: Sequence[int], leave: bool = False,
) -> Any:  # fmt: skip
    """Return ``crop(ifft(sum(a_hat * b_hat)))``, with the conjugate of b_hat if `conj`."""
    pieces.count()
    dtype = np.result_type(a_hat.dtype, b_hat.dtype)
    box = boxes.box(tuple(lengths), real, dtype.itemsize)
    batch = np.broadcast_shapes(a_hat.shape[:-1], b_hat.shape[:-1])
    stays = [k for k in range(len(batch)) if k not in reduce_axes]
    remaining = tuple(batch[k] for k in stays)
    count = math.prod(remaining)
    order = stays + list(reduce_axes)
    ia, ib = (
        np.ascontiguousarray(_indices(spec.shape[:-1], batch).transpose(order)).reshape(count, -1)
        for spec in (a_hat, b_hat)
    )
    a, b = (
        pieces.contiguous(spec.astype(dtype, copy=False)).reshape(-1, box.bins) for spec in (a_hat, b_hat)
    )
    o, p, turns = box.kept(out_start), box.kept(out_shape), box.turns(conj)
    way = box.ways.rows[0]
    if box.long is not None:
        rows = long_lines.product(a, b, ia, ib, conj, box.long)
        y = out = _long_back(rows, p, o, turns, box, real, leave)
    elif len(box.n) == 1:
        y = memory.empty((count, *p), element(dtype, real))

        def lines(lo: int, hi: int) -> int:
            work, pad, room = _line_buffers(box, dtype, real, p != box.n)
            return passes.lines_product(
                a, b, ia, ib, y, box.n[0], o[0], turns[0], box.width, conj, box.factor, way, work, pad, room, lo, hi
            )  # fmt: skip

        pieces.run(lines, -(-count // box.width), y.nbytes * (1 + ia.shape[1]))
    else:
        n0 = box.n[0]
        out = rows_for(count, p[0], box, dtype)

        def blocks(lo: int, hi: int) -> int:
            work, room = pieces.scratch(n0 * box.width, dtype), pieces.scratch(box.ways.spare, dtype)
            return passes.blocks_product(
                a, b, ia, ib, out, n0, o[0], turns[0], box.width, conj, way, work, room, lo, hi
            )

        pieces.run(blocks, count * box.blocks, out.nbytes * (1 + ia.shape[1]))
        y = out if leave else _pass_c(out, p, o, turns, box, real)
    if leave:
        return Left(out, remaining, p, o, turns, box, real)
    return _restore(y, remaining, out_shape, axes)
