"""Own the jitted passes of convolution: slabs, blocks of columns, groups of lines.

An array enters as slabs, one for each row of its first transformed axis. Between passes a row holds the
spectrum of a slab, and rows follow each other at a stride of an odd number of cache lines, for at a power of
two a block of columns would fall into few sets of the cache. A spectrum is stored block by block: ``width``
columns of all rows, then the next ones, so that the pass along the first axis reads it in order.

The callers in `nbad.kernels.convolution` give buffers, check sizes and share the chunks out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels.block import call_kernel
from nbad.kernels.ways import along, columns

__all__ = [
    "blocks_filter",
    "blocks_forward",
    "blocks_product",
    "lines_filter",
    "lines_product",
    "lines_spectrum",
    "rows_to_slabs",
    "slabs_to_rows",
    "through",
]

Array = np.ndarray[Any, Any]

# Arguments of helpers: a literal in their place would make numba compile one more version for its value.
ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)
FORWARD: Any = np.bool_(True)
BACK: Any = np.bool_(False)

# Options of helpers that only jitted code calls.
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@jit(**INNER)
def _copy(source: Array, target: Array) -> None:
    """Copy source, shape (n,), to the front of target; a loop compiles sooner than an array assignment."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@jit(**INNER)
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


@jit(**INNER)
def _cut(source: Array, target: Array, outer: int, n: int, p: int, inner: int, start: int, turn: int) -> None:
    """Write rows from `start` of source, seen as (outer, n, inner), into target, seen as (outer, p, inner).

    A row `turn` later is added to each, unless that is 0. Source and target may be the same array, for a copy
    forwards never overtakes itself.
    """
    for o in range(outer):
        shift = (o * n + start) * inner - o * p * inner
        if turn == 0:
            for i in range(o * p * inner, (o + 1) * p * inner):
                target[i] = source[i + shift]
        else:
            for i in range(o * p * inner, (o + 1) * p * inner):
                target[i] = source[i + shift] + source[i + shift + turn * inner]


@jit(**INNER)
def _multiply(data: Array, h: Array, conj: bool) -> None:
    """Multiply data by h or its conjugate in place, both shape (n,)."""
    if conj:
        for i in range(data.shape[0]):
            data[i] *= np.conj(h[i])
    else:
        for i in range(data.shape[0]):
            data[i] *= h[i]


@jit(**INNER)
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
def slabs_to_rows(
    x: Array, rows: Array, m: Array, n: Array, q: Array, s: Array, ways: Array, group: int,
    work: Array, spare: Array, pad: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (a): slabs x, shape (b * m0, p), over all axes but the first, into rows, shape (b, m0, stride).

    m, n, q, s, shape (d,): sizes of x, lengths, lengths of the half spectrum, offsets; ways, shape (d, .), says how the
    axes are transformed. A chunk is a group of slabs. Buffers for one: work and spare hold spectra if a middle axis is
    padded or the group is more than one slab (else the row itself serves), pad the data if the last axis is padded, and
    room is for the ways.
    """
    d, p = m.shape[0], x.shape[1]
    flat = x.reshape(x.size)
    columns = ONE
    for k in range(1, d):
        columns *= q[k]
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        source = flat[start * p : (start + size) * p]
        row = rows[start // m[0], start % m[0]]
        outer, inner = size * (p // m[d - 1]), q[d - 1]
        here, other = work, spare
        if work.shape[0] == 0:
            here = row
        if m[d - 1] == n[d - 1]:
            along(source, here, outer, n[d - 1], inner, ONE, FORWARD, 1.0, ways[d - 1], room)
        else:
            _place(source, pad, outer, m[d - 1], n[d - 1], ONE, s[d - 1])
            along(pad, here, outer, n[d - 1], inner, ONE, FORWARD, 1.0, ways[d - 1], room)
        for k in range(d - 2, 0, -1):
            outer //= m[k]
            if m[k] != n[k]:
                _place(here, other, outer, m[k], n[k], inner, s[k])
                here, other = other, here
            target = here
            if k == 1 and group == 1:
                target = row
            along(here, target, outer, n[k], n[k], inner, FORWARD, 1.0, ways[k], room)
            inner *= n[k]
        if group > 1:
            for g in range(size):
                i = start + g
                _copy(here[g * columns : (g + 1) * columns], rows[i // m[0], i % m[0]])
    return 1


@jit
def rows_to_slabs(
    rows: Array, y: Array, p: Array, n: Array, q: Array, o: Array, t: Array, factor: float, ways: Array, group: int,
    work: Array, pad: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (c): rows, shape (b, p0, stride), back over all axes but the first into y, shape (b * p0, .).

    p, n, q, o, t, shape (d,): sizes of y, lengths, lengths of the half spectrum, offsets, turns. A chunk and its
    buffers are as in pass (a); work serves a group of more than one slab, else the rows are used up.
    """
    d, size_out = p.shape[0], y.shape[1]
    result = y.reshape(y.size)
    columns = ONE
    for k in range(1, d):
        columns *= q[k]
    last, crop = n[d - 1], p[d - 1]
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, y.shape[0] - start)
        here = rows[start // p[0], start % p[0]]
        if group > 1:
            here = work
            for g in range(size):
                i = start + g
                _copy(rows[i // p[0], i % p[0], :columns], here[g * columns : (g + 1) * columns])
        outer, inner = ONE * size, columns
        for k in range(1, d - 1):
            inner //= n[k]
            along(here, here, outer, n[k], n[k], inner, BACK, 1.0, ways[k], room)
            if p[k] != n[k]:
                _cut(here, here, outer, n[k], p[k], inner, o[k], t[k])
            outer *= p[k]
        target = result[start * size_out : (start + size) * size_out]
        if crop == last:
            along(here, target, outer, q[d - 1], last, ONE, BACK, factor, ways[d - 1], room)
        else:
            along(here, pad, outer, q[d - 1], last, ONE, BACK, factor, ways[d - 1], room)
            _cut(pad, target, outer, last, crop, ONE, o[d - 1], t[d - 1])
    return 1


@jit
def through(
    rows: Array, target: Array, y: Array, g: Array, p: Array, n: Array, q: Array, o: Array, t: Array, factor: float,
    ways: Array, n2: Array, q2: Array, s: Array, ways2: Array, group: int,
    back: Array, forth: Array, spare: Array, pad: Array, room: Array,
    work: int, frame: int, number: int, parts: int, scratch: int, addresses: Array, at_y: int, at_g: int,
    lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (c) of rows, shape (count, stride), into y, work on it into g, and pass (a) of g into target.

    y, g, shape (group, size), are one chunk; `work` is the address of a function that performs `parts` for each slab
    and finds both through `addresses`, where they stand as if they were whole. Other arguments are as in the two passes;
    p[0] is `group`.
    """
    count, size = rows.shape[0], y.shape[1]
    itemsize = y.itemsize
    for chunk in range(lo, hi):
        start = chunk * group
        stop = min(start + group, count)
        some = stop - start
        source = rows[start:stop].reshape((1, some, rows.shape[1]))
        if (
            rows_to_slabs(source, y[:some], p, n, q, o, t, factor, ways, group, back, pad, room, ZERO, ONE)
            != 1
        ):
            return 0
        addresses[at_y] = y.ctypes.data - start * size * itemsize
        addresses[at_g] = g.ctypes.data - start * size * itemsize
        if call_kernel(work, frame, number, start * parts, stop * parts, scratch) != 1:
            return 0
        after = target[start:stop].reshape((1, some, target.shape[1]))
        if (
            slabs_to_rows(g[:some], after, p, n2, q2, s, ways2, group, forth, spare, pad, room, ZERO, ONE)
            != 1
        ):
            return 0
    return 1


@jit(**INNER)
def _columns_forward(x: Array, data: Array, n0: int, s0: int, way: Array, room: Array) -> None:
    """Transform columns x, shape (m0, w), along the first axis into data, shape (n0 * w,)."""
    m0, w = x.shape
    block = data[: n0 * w].reshape((n0, w))
    if m0 == n0:
        columns(x, block, FORWARD, way, room)
    else:
        for i in range(s0 * w):
            data[i] = 0
        for i in range(m0):
            for k in range(w):
                block[s0 + i, k] = x[i, k]
        for i in range((s0 + m0) * w, n0 * w):
            data[i] = 0
        columns(block, block, FORWARD, way, room)


@jit(**INNER)
def _columns_back(data: Array, y: Array, n0: int, o0: int, t0: int, way: Array, room: Array) -> None:
    """Transform data, shape (n0 * w,), back along the first axis; y, shape (p0, w), takes part."""
    p0, w = y.shape
    block = data[: n0 * w].reshape((n0, w))
    if p0 == n0:
        columns(block, y, BACK, way, room)
    else:
        columns(block, block, BACK, way, room)
        for i in range(p0):
            for k in range(w):
                y[i, k] = block[o0 + i, k]
        if t0 != 0:
            for i in range(p0):
                for k in range(w):
                    y[i, k] += block[o0 + t0 + i, k]


@jit
def blocks_forward(
    rows: Array, bins: Array, n0: int, s0: int, width: int, way: Array, room: Array, lo: int, hi: int
) -> int:
    """Transform rows, shape (b, m0, stride), along the first axis into bins, shape (b, n0 * columns)."""
    total = bins.shape[1] // n0
    blocks = -(-total // width)
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        stop = min(start + width, total)
        _columns_forward(rows[b, :, start:stop], bins[b, start * n0 : stop * n0], n0, s0, way, room)
    return 1


@jit
def blocks_filter(
    rows: Array, h: Array, ih: Array, kept: Array, out: Array, n0: int, s0: int, o0: int, t0: int,
    width: int, conj: bool, way: Array, work: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Pass (b): rows, shape (b, m0, stride), times h, shape (c, n0 * columns) at ih, shape (b,), into out.

    out, shape (b, p0, stride), may be rows if p0 is m0; kept, shape (b or 0, n0 * columns), takes spectra.
    """
    total = h.shape[1] // n0
    blocks = -(-total // width)
    for chunk in range(lo, hi):
        b, start = chunk // blocks, chunk % blocks * width
        stop = min(start + width, total)
        data = work[: n0 * (stop - start)]
        _columns_forward(rows[b, :, start:stop], data, n0, s0, way, room)
        if kept.shape[0] > 0:
            _copy(data, kept[b, start * n0 : stop * n0])
        _multiply(data, h[ih[b], start * n0 : stop * n0], conj)
        _columns_back(data, out[b, :, start:stop], n0, o0, t0, way, room)
    return 1


@jit
def blocks_product(
    a: Array, b: Array, ia: Array, ib: Array, out: Array, n0: int, o0: int, t0: int,
    width: int, conj: bool, way: Array, work: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Sum products of spectra a[ia], b[ib], shape (., n0 * columns), ia, ib shape (c, k), over k into out.

    out, shape (c, p0, stride), holds the sums transformed back along the first axis.
    """
    total = a.shape[1] // n0
    blocks = -(-total // width)
    for chunk in range(lo, hi):
        c, start = chunk // blocks, chunk % blocks * width
        stop = min(start + width, total)
        data = work[: n0 * (stop - start)]
        _sum_products(data, a, b, ia[c], ib[c], start * n0, stop * n0, conj)
        _columns_back(data, out[c, :, start:stop], n0, o0, t0, way, room)
    return 1


@jit(**INNER)
def _lines_forward(
    x: Array, data: Array, group: int, m: int, n: int, s: int, pad: Array, way: Array, room: Array
) -> None:
    """Transform lines x, shape (group * m,), into data, shape (>= group * q,); pad, shape (>= group * n,)."""
    q = n if data.dtype == x.dtype else n // 2 + 1
    if m == n:
        along(x, data, group, n, q, ONE, FORWARD, 1.0, way, room)
    else:
        _place(x, pad, group, m, n, ONE, s)
        along(pad, data, group, n, q, ONE, FORWARD, 1.0, way, room)


@jit(**INNER)
def _lines_back(
    data: Array, y: Array, group: int, p: int, n: int, o: int, t: int, factor: float, pad: Array,
    way: Array, room: Array,
) -> None:  # fmt: skip
    """Transform lines data, shape (>= group * q,), back and write p samples of each to y."""
    q = n if data.dtype == y.dtype else n // 2 + 1
    if p == n:
        along(data, y, group, q, n, ONE, BACK, factor, way, room)
    else:
        along(data, pad, group, q, n, ONE, BACK, factor, way, room)
        _cut(pad, y, group, n, p, ONE, o, t)


@jit
def lines_spectrum(
    x: Array, bins: Array, n: int, s: int, group: int, way: Array, pad: Array, room: Array, lo: int, hi: int
) -> int:
    """Transform lines x, shape (b, m), placed in n zeros, into bins, shape (b, q), in groups."""
    m, q = x.shape[1], bins.shape[1]
    flat, target = x.reshape(x.size), bins.reshape(bins.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        stop = start + size
        _lines_forward(
            flat[start * m : stop * m], target[start * q : stop * q], size, m, n, s, pad, way, room
        )
    return 1


@jit
def lines_filter(
    x: Array, h: Array, ih: Array, kept: Array, y: Array, n: int, s: int, o: int, t: int, group: int,
    conj: bool, factor: float, way: Array, work: Array, pad: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Filter lines x, shape (b, m), by h[ih] into y, shape (b, p); kept, shape (b or 0, q), takes spectra."""
    m, p, q = x.shape[1], y.shape[1], h.shape[1]
    flat, result = x.reshape(x.size), y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, x.shape[0] - start)
        stop = start + size
        _lines_forward(flat[start * m : stop * m], work, size, m, n, s, pad, way, room)
        for g in range(size):
            line = work[g * q : (g + 1) * q]
            if kept.shape[0] > 0:
                _copy(line, kept[start + g])
            _multiply(line, h[ih[start + g]], conj)
        _lines_back(work, result[start * p : stop * p], size, p, n, o, t, factor, pad, way, room)
    return 1


@jit
def lines_product(
    a: Array, b: Array, ia: Array, ib: Array, y: Array, n: int, o: int, t: int, group: int,
    conj: bool, factor: float, way: Array, work: Array, pad: Array, room: Array, lo: int, hi: int,
) -> int:  # fmt: skip
    """Sum products of spectra a[ia], b[ib], shape (., q) with ia, ib shape (c, k), over k, back into y."""
    p, q = y.shape[1], a.shape[1]
    result = y.reshape(y.size)
    for chunk in range(lo, hi):
        start = chunk * group
        size = min(group, y.shape[0] - start)
        stop = start + size
        for g in range(size):
            _sum_products(work[g * q : (g + 1) * q], a, b, ia[start + g], ib[start + g], ZERO, q, conj)
        _lines_back(work, result[start * p : stop * p], size, p, n, o, t, factor, pad, way, room)
    return 1
