"""Own the jitted passes of convolution: slabs, blocks of columns, groups of lines, and their layout.

An array enters as slabs, one for each row of its first transformed axis. Between passes the rows of a batch
element lie block by block: block k holds columns from ``k * width`` up to ``(k + 1) * width`` of all rows, so
that a pass along the first axis reads and writes memory in order. A spectrum has the same layout with all
its rows. The callers in `nbad.kernels.convolution` give buffers, check sizes and share the chunks out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels.fft import lines

__all__ = [
    "blocks_filter",
    "blocks_forward",
    "blocks_product",
    "blocks_to_slabs",
    "lines_filter",
    "lines_product",
    "lines_spectrum",
    "slabs_to_blocks",
]

Array = np.ndarray[Any, Any]


@jit
def _copy(source: Array, target: Array) -> None:
    """Write source, seen as (outer, m, inner), into target, seen as (outer, n, inner), and zeros around."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@jit
def _place(source: Array, target: Array, outer: int, m: int, n: int, inner: int, start: int) -> None:
    """Write source, seen as (outer, m, inner), into target, seen as (outer, n, inner), zeros around it."""
    for o in range(outer):
        base = o * n * inner
        first, last = base + start * inner, base + (start + m) * inner
        for i in range(base, first):
            target[i] = 0
        shift = o * m * inner - first
        for i in range(first, last):
            target[i] = source[i + shift]
        for i in range(last, base + n * inner):
            target[i] = 0


@jit
def _cut(source: Array, target: Array, outer: int, n: int, p: int, inner: int, start: int) -> None:
    """Write rows from `start` of source, seen as (outer, n, inner), into target, seen as (outer, p, inner).

    They may be the same array, for a copy forwards never overtakes itself.
    """
    for o in range(outer):
        shift = (o * n + start) * inner - o * p * inner
        for i in range(o * p * inner, (o + 1) * p * inner):
            target[i] = source[i + shift]


@jit
def _multiply(data: Array, h: Array, conj: bool) -> None:
    """Multiply data by h or its conjugate in place, both shape (n,)."""
    if conj:
        for i in range(data.shape[0]):
            data[i] *= np.conj(h[i])
    else:
        for i in range(data.shape[0]):
            data[i] *= h[i]


@jit
def _sum_products(
    data: Array, a: Array, b: Array, ia: Array, ib: Array, lo: int, hi: int, conj: bool
) -> None:
    """Write into data, shape (hi - lo,), the sum over k of a[ia[k], lo:hi] times b[ib[k], lo:hi]."""
    for k in range(ia.shape[0]):
        u, v = a[ia[k], lo:hi], b[ib[k], lo:hi]
        if k == 0:
            _copy(u, data)
            _multiply(data, v, conj)
        elif conj:
            for i in range(hi - lo):
                data[i] += u[i] * np.conj(v[i])
        else:
            for i in range(hi - lo):
                data[i] += u[i] * v[i]


@jit
def slabs_to_blocks(
    x: Array, rows: Array, m: Array, n: Array, q: Array, s: Array, width: int,
    work: Array, spare: Array, pad: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (a): slabs x, shape (b * m0, p), over all axes but the first, into rows, shape (b, m0 * bins).

    m, n, q, s, shape (d,): sizes of x, lengths, lengths of the half spectrum, offsets. Buffers: work and
    spare hold one slab's spectrum, pad one padded slab.
    """
    d = m.shape[0]
    bins = 1
    for k in range(1, d):
        bins *= q[k]
    for chunk in range(lo, hi):
        b, row = chunk // m[0], chunk % m[0]
        outer = x.shape[1] // m[d - 1]
        here, other = work, spare
        inner = q[d - 1]
        if m[d - 1] == n[d - 1]:
            lines(x[chunk], here, outer, n[d - 1], inner, 1, True, 1.0)
        else:
            _place(x[chunk], pad, outer, m[d - 1], n[d - 1], 1, s[d - 1])
            lines(pad, here, outer, n[d - 1], inner, 1, True, 1.0)
        for k in range(d - 2, 0, -1):
            outer //= m[k]
            if m[k] != n[k]:
                _place(here, other, outer, m[k], n[k], inner, s[k])
                here, other = other, here
            lines(here, here, outer, n[k], n[k], inner, True, 1.0)
            inner *= n[k]
        for start in range(0, bins, width):
            w = min(width, bins - start)
            offset = start * m[0] + row * w
            for i in range(w):
                rows[b, offset + i] = here[start + i]
    return 1


@jit
def blocks_to_slabs(
    rows: Array, y: Array, p: Array, n: Array, q: Array, o: Array, width: int, factor: float,
    work: Array, pad: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (c): rows, shape (b, p0 * bins), back over all axes but the first into slabs y, shape (b * p0, .).

    p, n, q, o, shape (d,): sizes of y, lengths, lengths of the half spectrum, offsets. Buffers as in (a).
    """
    d = p.shape[0]
    bins = 1
    for k in range(1, d):
        bins *= q[k]
    last, crop = n[d - 1], p[d - 1]
    for chunk in range(lo, hi):
        b, row = chunk // p[0], chunk % p[0]
        for start in range(0, bins, width):
            w = min(width, bins - start)
            offset = start * p[0] + row * w
            for i in range(w):
                work[start + i] = rows[b, offset + i]
        outer, inner = 1, bins
        for k in range(1, d - 1):
            inner //= n[k]
            lines(work, work, outer, n[k], n[k], inner, False, 1.0)
            if p[k] != n[k]:
                _cut(work, work, outer, n[k], p[k], inner, o[k])
            outer *= p[k]
        if crop == last:
            lines(work, y[chunk], outer, q[d - 1], last, 1, False, factor)
        else:
            lines(work, pad, outer, q[d - 1], last, 1, False, factor)
            _cut(pad, y[chunk], outer, last, crop, 1, o[d - 1])
    return 1


@jit
def _rows_forward(rows: Array, target: Array, m0: int, n0: int, s0: int, w: int) -> None:
    """Transform a block of rows, shape (m0 * w,), along the first axis into target, shape (n0 * w,)."""
    if s0 == 0:
        lines(rows, target, 1, m0, n0, w, True, 1.0)
    else:
        _place(rows, target, 1, m0, n0, w, s0)
        lines(target, target, 1, n0, n0, w, True, 1.0)


@jit
def _rows_back(data: Array, rows: Array, p0: int, n0: int, o0: int, w: int) -> None:
    """Transform data, shape (n0 * w,), back along the first axis; rows, shape (p0 * w,), takes part of it."""
    if p0 == n0:
        lines(data, rows, 1, n0, n0, w, False, 1.0)
    else:
        lines(data, data, 1, n0, n0, w, False, 1.0)
        _cut(data, rows, 1, n0, p0, w, o0)


@jit
def blocks_forward(
    rows: Array, bins_out: Array, m0: int, n0: int, s0: int, width: int, lo: int, hi: int
) -> int:
    """Transform rows, shape (b, m0 * bins), along the first axis into bins_out, shape (b, n0 * bins)."""
    bins = bins_out.shape[1] // n0
    blocks = -(-bins // width)
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        w = min(width, bins - start)
        source = rows[b, start * m0 : (start + w) * m0]
        _rows_forward(source, bins_out[b, start * n0 : (start + w) * n0], m0, n0, s0, w)
    return 1


@jit
def blocks_filter(
    rows: Array, h: Array, ih: Array, kept: Array, out: Array, m0: int, n0: int, s0: int, p0: int, o0: int,
    width: int, conj: bool, work: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (b): rows, shape (b, m0 * bins), times h, shape (c, n0 * bins) at ih, shape (b,), into out.

    out, shape (b, p0 * bins), may be rows if p0 is m0; kept, shape (b or 0, n0 * bins), takes the spectrum.
    """
    bins = h.shape[1] // n0
    blocks = -(-bins // width)
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        w = min(width, bins - start)
        data = work[: n0 * w]
        _rows_forward(rows[b, start * m0 : (start + w) * m0], data, m0, n0, s0, w)
        if kept.shape[0] > 0:
            _copy(data, kept[b, start * n0 : (start + w) * n0])
        _multiply(data, h[ih[b], start * n0 : (start + w) * n0], conj)
        _rows_back(data, out[b, start * p0 : (start + w) * p0], p0, n0, o0, w)
    return 1


@jit
def blocks_product(
    a: Array, b: Array, ia: Array, ib: Array, out: Array, n0: int, p0: int, o0: int, width: int, conj: bool,
    work: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Sum products of spectra a[ia], b[ib], shape (., n0 * bins) with ia, ib shape (c, k), over k into out.

    out, shape (c, p0 * bins), holds the sums transformed back along the first axis.
    """
    bins = a.shape[1] // n0
    blocks = -(-bins // width)
    for chunk in range(lo, hi):
        c, start = chunk // blocks, chunk % blocks * width
        w = min(width, bins - start)
        data = work[: n0 * w]
        _sum_products(data, a, b, ia[c], ib[c], start * n0, (start + w) * n0, conj)
        _rows_back(data, out[c, start * p0 : (start + w) * p0], p0, n0, o0, w)
    return 1


@jit
def _lines_forward(x: Array, data: Array, group: int, m: int, n: int, s: int, pad: Array) -> None:
    """Transform lines x, shape (group * m,), into data, shape (>= group * q,); pad, shape (>= group * n,)."""
    q = n if data.dtype == x.dtype else n // 2 + 1
    if m == n:
        lines(x, data, group, n, q, 1, True, 1.0)
    else:
        _place(x, pad, group, m, n, 1, s)
        lines(pad, data, group, n, q, 1, True, 1.0)


@jit
def _lines_back(data: Array, y: Array, group: int, p: int, n: int, o: int, factor: float, pad: Array) -> None:
    """Transform lines data, shape (>= group * q,), back and write p samples of each to y."""
    q = n if data.dtype == y.dtype else n // 2 + 1
    if p == n:
        lines(data, y, group, q, n, 1, False, factor)
    else:
        lines(data, pad, group, q, n, 1, False, factor)
        _cut(pad, y, group, n, p, 1, o)


@jit
def lines_spectrum(x: Array, bins: Array, n: int, s: int, group: int, pad: Array, lo: int, hi: int) -> int:
    """Transform lines x, shape (b, m), placed in n zeros, into bins, shape (b, q), in groups."""
    m, q = x.shape[1], bins.shape[1]
    flat, target = x.reshape(x.size), bins.reshape(bins.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        stop = start + size
        _lines_forward(flat[start * m : stop * m], target[start * q : stop * q], size, m, n, s, pad)
    return 1


@jit
def lines_filter(
    x: Array, h: Array, ih: Array, kept: Array, y: Array, n: int, s: int, o: int, group: int,
    conj: bool, factor: float, work: Array, pad: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Filter lines x, shape (b, m), by h[ih] into y, shape (b, p); kept, shape (b or 0, q), takes spectra."""
    m, p, q = x.shape[1], y.shape[1], h.shape[1]
    flat, result = x.reshape(x.size), y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        stop = start + size
        _lines_forward(flat[start * m : stop * m], work, size, m, n, s, pad)
        for g in range(size):
            line = work[g * q : (g + 1) * q]
            if kept.shape[0] > 0:
                _copy(line, kept[start + g])
            _multiply(line, h[ih[start + g]], conj)
        _lines_back(work, result[start * p : stop * p], size, p, n, o, factor, pad)
    return 1


@jit
def lines_product(
    a: Array, b: Array, ia: Array, ib: Array, y: Array, n: int, o: int, group: int,
    conj: bool, factor: float, work: Array, pad: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Sum products of spectra a[ia], b[ib], shape (., q) with ia, ib shape (c, k), over k, back into y."""
    p, q = y.shape[1], a.shape[1]
    result = y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, y.shape[0] - start)
        stop = start + size
        for g in range(size):
            _sum_products(work[g * q : (g + 1) * q], a, b, ia[start + g], ib[start + g], 0, q, conj)
        _lines_back(work, result[start * p : stop * p], size, p, n, o, factor, pad)
    return 1
