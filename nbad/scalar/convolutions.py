"""Convolutions within kernels: `nbad.convolve` of plain and of active arrays.

A convolution is one block of the tape (`nbad.scalar.blocks`). It is bilinear: the block has the values of both operands, and
the cotangent of each is a correlation with the other.
"""

import itertools
from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.core.errors import TypingError
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from nbad._jit import jit
from nbad.rules.convolution import convolve, correlate, part_of
from nbad.scalar.adjoints import Adjoints
from nbad.scalar.blocks import HANDLERS, write_block
from nbad.scalar.fourier import add_lanes, as_lanes, depth_of, fill_lanes, is_active_array
from nbad.scalar.lifting import empty_active, split
from nbad.scalar.types import ActiveComplex

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []

Array = np.ndarray[Any, Any]

_CONVOLVE = 4
_MODES = ("full", "same", "valid", "wrap")


# Plain arrays -----------------------------------------------------------------------------------
@jit(cache=False)
def _number_of(mode: Any) -> Any:
    for k in range(4):
        if mode == _MODES[k]:
            return k
    raise ValueError("convolve: mode must be 'full', 'same', 'valid' or 'wrap'")


@jit(cache=False)
def _fast_length(n: Any) -> Any:
    """Return the least number from n on without prime factors above 7."""
    while True:
        rest = n
        for p in (2, 3, 5, 7):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


@jit(cache=False)
def _bounds(u_shape: Any, v_shape: Any, mode: Any) -> Any:
    """Return for each axis the length of the transform, and where the part that is asked for begins and ends."""
    found = np.empty((3, len(u_shape)), np.int64)
    longer = shorter = False
    for k in range(len(u_shape)):
        n, m = u_shape[k], v_shape[k]
        if n == 0 or m == 0:
            raise ValueError("convolve: an operand is empty")
        longer |= n > m
        shorter |= m > n
        first, size = 0, n + m - 1
        if mode == 1:
            first, size = (m - 1) // 2, n
        elif mode == 2:
            first, size = min(n, m) - 1, abs(n - m) + 1
        elif mode == 3:
            size = n
        found[0, k] = n if mode == 3 else _fast_length(n + m - 1)
        found[1, k], found[2, k] = first, first + size
    if mode == 3 and shorter:
        raise ValueError("convolve: mode 'wrap' has the period of u, and v is longer")
    if mode == 2 and longer and shorter:
        raise ValueError("convolve: mode 'valid' needs one operand to be at least as long along each axis")
    return found


def _part(y: Any, bounds: Any) -> Any:
    """Return the part of an array between bounds."""


@overload(_part)
def _part_overload(y: Any, bounds: Any) -> Any:
    def line(y: Any, bounds: Any) -> Any:
        return y[bounds[1, 0] : bounds[2, 0]].copy()

    def plane(y: Any, bounds: Any) -> Any:
        return y[bounds[1, 0] : bounds[2, 0], bounds[1, 1] : bounds[2, 1]].copy()

    def box(y: Any, bounds: Any) -> Any:
        rows = y[bounds[1, 0] : bounds[2, 0], bounds[1, 1] : bounds[2, 1]]
        return rows[:, :, bounds[1, 2] : bounds[2, 2]].copy()

    return (line, plane, box)[y.ndim - 1]


def _plain(u: Any, v: Any, mode: Any) -> Any:
    """Return the convolution of plain arrays."""


@overload(_plain)
def _plain_overload(u: Any, v: Any, mode: Any) -> Any:
    ndim, axes = u.ndim, tuple(range(u.ndim))

    def real(u: Any, v: Any, mode: Any) -> Any:
        bounds = _bounds(u.shape, v.shape, mode)
        lengths = to_fixed_tuple(bounds[0], ndim)
        spectrum = np.fft.rfftn(u, lengths, axes) * np.fft.rfftn(v, lengths, axes)
        return _part(np.fft.irfftn(spectrum, lengths, axes), bounds)

    def any_complex(u: Any, v: Any, mode: Any) -> Any:
        bounds = _bounds(u.shape, v.shape, mode)
        lengths = to_fixed_tuple(bounds[0], ndim)
        spectrum = np.fft.fftn(u, lengths, axes) * np.fft.fftn(v, lengths, axes)
        return _part(np.fft.ifftn(spectrum, lengths, axes), bounds)

    return any_complex if types.Complex in (type(u.dtype), type(v.dtype)) else real


# Active arrays ----------------------------------------------------------------------------------
def _apart(x: Any) -> Any:
    """Return the components of an array, shape (lanes, ...), and its indices, none of a plain one."""


@overload(_apart)
def _apart_overload(x: Any) -> Any:
    if is_active_array(x):

        def active(x: Any) -> Any:
            _, values, indices = split(x)
            return values, indices.ravel()

        return active

    def plain(x: Any) -> Any:
        return np.ascontiguousarray(x).reshape((1,) + x.shape), np.empty(0, np.int64)

    return plain


def _floats(x: Any) -> Any:
    """Return an array as float64 numbers, complex ones as two each."""


@overload(_floats)
def _floats_overload(x: Any) -> Any:
    def real(x: Any) -> Any:
        return x.astype(np.float64).ravel()

    def of_complex(x: Any) -> Any:
        return x.astype(np.complex128).ravel().view(np.float64)

    return of_complex if isinstance(x.dtype, types.Complex) else real


def _recorded(u: Any, v: Any, mode: Any) -> Any:
    """Return the convolution of arrays of which one is active."""


@overload(_recorded)
def _recorded_overload(u: Any, v: Any, mode: Any) -> Any:
    depth = max(depth_of(x) for x in (u, v) if is_active_array(x))
    ndim, count = u.ndim, 1 << depth
    u_complex, v_complex = (int(isinstance(x.dtype, (ActiveComplex, types.Complex))) for x in (u, v))
    step = 2 if u_complex or v_complex else 1

    def recorded(u: Any, v: Any, mode: Any) -> Any:
        u_lanes, u_indices = _apart(u)
        v_lanes, v_indices = _apart(v)
        y = _plain(u_lanes[0], v_lanes[0], mode)
        found = np.zeros((count,) + y.shape, y.dtype)
        found[0] = y
        for s in range(len(u_lanes)):
            for t in range(len(v_lanes)):
                if s & t == 0 and s | t:
                    found[s | t] += _plain(u_lanes[s], v_lanes[t], mode)
        made = empty_active(y, depth)
        header = np.empty(9 + 2 * ndim, np.int64)
        header[0] = _CONVOLVE
        header[1] = mode
        header[2], header[3] = u_complex, v_complex
        header[4], header[5] = len(u_lanes), len(v_lanes)
        header[6], header[7] = u_indices.size, v_indices.size
        header[8] = ndim
        for k in range(ndim):
            header[9 + k], header[9 + ndim + k] = u.shape[k], v.shape[k]
        indices = np.concatenate((u_indices, v_indices))
        values = np.concatenate((_floats(u_lanes), _floats(v_lanes)))
        first = write_block(header, indices, values, step * made.size)
        fill_lanes(made, found, first)
        return made

    return recorded


@overload(convolve)
def _convolve(u: Any, v: Any, mode: Any = "full", axes: Any = None, method: Any = "auto") -> Any:
    if not (isinstance(u, types.Array) and isinstance(v, types.Array)):
        return None
    if not all(isinstance(x, types.Omitted) or x in (None, "auto") for x in (axes, method)):
        raise TypingError("nbad.convolve takes u, v and mode within a kernel")
    if u.ndim != v.ndim or not 1 <= u.ndim <= 3:
        raise TypingError("nbad.convolve within a kernel takes two arrays of one, two or three dimensions")

    def plain(u: Any, v: Any, mode: Any = "full", axes: Any = None, method: Any = "auto") -> Any:
        return _plain(u, v, _number_of(mode))

    def recorded(u: Any, v: Any, mode: Any = "full", axes: Any = None, method: Any = "auto") -> Any:
        return _recorded(u, v, _number_of(mode))

    return recorded if is_active_array(u) or is_active_array(v) else plain


# The adjoint ------------------------------------------------------------------------------------
def _cotangent(g: Array, other: Array, shape: tuple[int, ...], first: tuple[int, ...], mode: str) -> Array:
    """Return the cotangent of an operand of a shape, from that of the part of the result that begins at `first`."""
    if mode == "wrap":
        found = correlate(g, other, "wrap")
    else:
        full = np.zeros([n + m - 1 for n, m in zip(shape, other.shape, strict=True)], g.dtype)
        full[tuple(slice(a, a + n) for a, n in zip(first, g.shape, strict=True))] = g
        found = correlate(full, other, "valid")
    part: Array = found[tuple(slice(n) for n in shape)]
    return part


def _pull(description: Array, g: Array, adjoints: Adjoints) -> None:
    mode = _MODES[description[1]]
    kinds, counts, sizes = (description[k : k + 2].tolist() for k in (2, 4, 6))
    ndim = int(description[8])
    shapes = [tuple(description[9 + k * ndim : 9 + (k + 1) * ndim].tolist()) for k in range(2)]
    at = 9 + 2 * ndim
    places = description[at : at + sizes[0]], description[at + sizes[0] : at + sum(sizes)]
    floats = description[at + sum(sizes) :].view(np.float64)
    values = []
    for is_complex, count, shape in zip(kinds, counts, shapes, strict=True):
        size = count * int(np.prod(shape)) * (1 + is_complex)
        one = floats[:size].view(np.complex128) if is_complex else floats[:size]
        values.append(one.reshape(count, *shape))
        floats = floats[size:]
    first, out_shape = (0,) * ndim, shapes[0]
    if mode != "wrap":
        first, out_shape = part_of(shapes[0], shapes[1], mode, False, "convolve")
    given = as_lanes(g, out_shape, any(kinds))
    for k, other in ((0, values[1]), (1, values[0])):
        if sizes[k] == 0:
            continue
        found = np.zeros((len(given), *shapes[k]), np.complex128 if any(kinds) else np.float64)
        for s, t in itertools.product(range(len(other)), range(len(given))):
            if s & t == 0:
                found[s | t] += _cotangent(given[t], other[s], shapes[k], first, mode)
        add_lanes(adjoints, places[k], found, bool(kinds[k]))


HANDLERS[_CONVOLVE] = _pull
