"""Fourier transforms of active arrays: ``numpy.fft`` within kernels.

A transform is one block of the tape (`nbad.scalar.blocks`). It is linear, so its adjoint is done lane by lane: the
transform the other way, of which the parts that half a spectrum leaves out are counted as `nbad.rules.fourier` does.
"""

from typing import Any

import numpy as np
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.errors import TypingError
from numba.extending import overload
from numba.np.unsafe.ndarray import to_fixed_tuple

from nbad._jit import intrinsic
from nbad.scalar.adjoints import Adjoints
from nbad.scalar.blocks import HANDLERS, write_block
from nbad.scalar.complex_numbers import join, parts_of
from nbad.scalar.lifting import base_of, empty_active, real_type, split
from nbad.scalar.types import Active, ActiveComplex, Dual, complex_of, lanes, make, make_dual

#: numba has no annotations.
types: Any = numba_types

__all__ = ["add_lanes", "as_lanes", "depth_of", "fill_lanes", "is_active_array"]

Array = np.ndarray[Any, Any]

_FFT, _IFFT, _RFFT, _IRFFT = range(4)
_SWAPPED: tuple[Any, ...] = ("forward", "ortho", "backward")


# Arrays of active numbers, by lanes -------------------------------------------------------------
def is_active_array(kind: Any) -> bool:
    """Return whether a type is that of an array of active numbers."""
    return isinstance(kind, types.Array) and isinstance(kind.dtype, (Active, ActiveComplex))


def depth_of(array: Any) -> int:
    """Return the number of directions of an array of active numbers."""
    part = array.dtype.real if isinstance(array.dtype, ActiveComplex) else array.dtype
    return lanes(part.base).bit_length() - 1


@intrinsic
def _of_lanes(context: Any, numbers: Any, index: Any) -> Any:
    """Return the active number with the components `numbers`, which has an index; that of an imaginary part is the next."""
    depth = len(numbers).bit_length() - 1
    given = numbers.dtype
    part = Active(base_of(real_type(given), depth), 0)

    def dual(builder: Any, base: Any, floats: Any, lowering: Any) -> Any:
        if not isinstance(base, Dual):
            return floats[0]
        half = len(floats) // 2
        both = [dual(builder, base.base, some, lowering) for some in (floats[:half], floats[half:])]
        return make_dual(lowering, builder, base, *both)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        components = cgutils.unpack_tuple(builder, args[0])
        if not isinstance(given, types.Complex):
            value = dual(builder, part.base, components, context)
            return make(context, builder, part, value, [(args[1], None)])
        none = builder.icmp_unsigned("==", args[1], args[1].type(0))
        following = builder.select(none, args[1], builder.add(args[1], args[1].type(1)))
        each = zip(*(parts_of(context, builder, given, x) for x in components), strict=True)
        made = [
            make(context, builder, part, dual(builder, part.base, list(floats), context), [(place, None)])
            for floats, place in zip(each, (args[1], following), strict=True)
        ]
        return join(context, builder, complex_of(part), *made)

    kind = complex_of(part) if isinstance(given, types.Complex) else part
    return kind(numbers, types.int64), emit


def fill_lanes(made: Any, found: Any, first: Any) -> None:
    """Write arrays of components, shape (lanes, ...), into an array of active numbers, with indices from `first` on."""


@overload(fill_lanes)
def _fill_lanes(made: Any, found: Any, first: Any) -> Any:
    count = 1 << depth_of(made)
    step = 2 if isinstance(made.dtype, ActiveComplex) else 1

    def fill(made: Any, found: Any, first: Any) -> None:
        flat = made.reshape(made.size)
        numbers = np.ascontiguousarray(found).reshape((count, made.size))
        for i in range(made.size):
            index = first + step * i if first else 0
            flat[i] = _of_lanes(to_fixed_tuple(numbers[:, i], count), index)

    return fill


# The transforms ---------------------------------------------------------------------------------
def _is_none(kind: Any) -> bool:
    return kind is None or isinstance(kind, (types.NoneType, types.Omitted))


def _code(norm: Any) -> Any:
    """Return the number of a norm; what is no norm NumPy's function has refused."""


@overload(_code)
def _code_overload(norm: Any) -> Any:
    if _is_none(norm):

        def backward(norm: Any) -> Any:
            return 0

        return backward

    def code(norm: Any) -> Any:
        return 1 if norm == "ortho" else 2 if norm == "forward" else 0

    return code


def _last(a: Any, s: Any, axis: Any) -> Any:
    """Return the length of the transform of the last axis."""


@overload(_last)
def _last_overload(a: Any, s: Any, axis: Any) -> Any:
    if _is_none(s):

        def own(a: Any, s: Any, axis: Any) -> Any:
            return a.shape[a.ndim + axis]

        return own

    def given(a: Any, s: Any, axis: Any) -> Any:
        return s[len(s) - 1]

    return given


def _transform(kind: int, plain: Any) -> Any:
    """Return what kernels call for a transform; its axes count from the end."""

    def transform(a: Any, s: Any, axes: Any, norm: Any) -> Any:
        """Return the transform of an active array."""

    @overload(transform)
    def transform_overload(a: Any, s: Any, axes: Any, norm: Any) -> Any:
        depth, ndim, count = depth_of(a), a.ndim, len(axes)
        is_complex = int(isinstance(a.dtype, ActiveComplex))
        step = 1 if kind == _IRFFT else 2

        def transformed(a: Any, s: Any, axes: Any, norm: Any) -> Any:
            _, values, indices = split(a)
            found = plain(values, s, axes, norm)
            made = empty_active(found[0], depth)
            header = np.empty(6 + 2 * ndim + count, np.int64)
            header[0] = kind
            header[1] = is_complex
            header[2] = _code(norm)
            header[3] = _last(a, s, axes[count - 1])
            header[4] = ndim
            header[5] = count
            for k in range(ndim):
                header[6 + k] = a.shape[k]
                header[6 + ndim + k] = made.shape[k]
            for k in range(count):
                header[6 + 2 * ndim + k] = axes[k]
            nothing = np.empty(0, np.float64)
            first = write_block(header, indices.ravel(), nothing, step * made.size)
            fill_lanes(made, found, first)
            return made

        return transformed

    return transform


def _from_end(axes: Any, ndim: Any) -> Any:
    """Return axes counted from the end."""


@overload(_from_end)
def _from_end_overload(axes: Any, ndim: Any) -> Any:
    def one(axes: Any, ndim: Any) -> Any:
        axis = axes[0] if axes[0] < 0 else axes[0] - ndim
        if axis < -ndim or axis >= 0:
            raise ValueError("an axis of a Fourier transform is out of bounds")
        return (axis,)

    def several(axes: Any, ndim: Any) -> Any:
        return _from_end((axes[0],), ndim) + _from_end(axes[1:], ndim)

    return one if len(axes) == 1 else several


def _check(a: Any, out: Any) -> bool:
    if not is_active_array(a):
        return False
    if not _is_none(out):
        raise TypingError("out= of a Fourier transform is not supported where the array is differentiated")
    return True


def _register_line(function: Any, transform: Any) -> None:
    @overload(function)
    def line(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
        if not _check(a, out):
            return None

        def own(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
            return transform(a, None, _from_end((axis,), a.ndim), norm)

        def resized(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: Any = None) -> Any:
            return transform(a, (n,), _from_end((axis,), a.ndim), norm)

        return own if _is_none(n) else resized


def _register_box(function: Any, transform: Any, default: Any) -> None:
    @overload(function)
    def box(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
        if not _check(a, out):
            return None
        chosen = default or tuple(range(-(a.ndim if _is_none(s) else len(s)), 0))

        def own(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
            return transform(a, s, chosen, norm)

        def given(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
            return transform(a, s, _from_end(axes, a.ndim), norm)

        return own if _is_none(axes) else given


# The adjoint ------------------------------------------------------------------------------------
def _weighed(x: Array, n: int, axis: int, by: float) -> Array:
    """Return half a spectrum of length `n`, the bins that have a mirror image times `by`."""
    weights = np.full(x.shape[axis], by)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    return x * weights.reshape((-1,) + (1,) * (-axis - 1))


def _resized(x: Array, shape: Any) -> Array:
    """Return an array cut or padded with zeros at the end of each axis but the first."""
    kept = (slice(None), *(slice(min(m, n)) for m, n in zip(x.shape[1:], shape, strict=True)))
    if x[kept].shape[1:] == shape:
        return x[kept]
    made = np.zeros((len(x), *shape), x.dtype)
    made[kept] = x[kept]
    return made


def as_lanes(g: Array, shape: Any, is_complex: bool) -> Array:
    """Return adjoints, shape (n, lanes), as arrays of shape (lanes, ...)."""
    made = np.ascontiguousarray(g.T)
    return (made.view(np.complex128) if is_complex else made).reshape(-1, *shape)


def add_lanes(adjoints: Adjoints, indices: Array, x: Array, is_complex: bool) -> None:
    """Add arrays of shape (lanes, ...) to the adjoints at `indices`."""
    if is_complex:
        x = np.ascontiguousarray(x, np.complex128).view(np.float64)
    adjoints.add(indices, x.real.reshape(len(x), -1).T + 0.0)


def _pull(description: Array, g: Array, adjoints: Adjoints) -> None:
    kind, is_complex, code, last, ndim, count = description[:6].tolist()
    shapes = description[6 : 6 + 2 * ndim].tolist()
    at = 6 + 2 * ndim
    axes = tuple(description[at : at + count].tolist())
    norm = _SWAPPED[code]
    given = as_lanes(g, shapes[ndim:], kind != _IRFFT)
    if kind == _FFT:
        x: Array = np.fft.ifftn(given, axes=axes, norm=norm)
    elif kind == _IFFT:
        x = np.fft.fftn(given, axes=axes, norm=norm)
    elif kind == _RFFT:
        lengths = [given.shape[axis] for axis in axes[:-1]]
        x = np.fft.irfftn(_weighed(given, last, axes[-1], 0.5), [*lengths, last], axes, norm)
    else:
        x = _weighed(np.fft.rfftn(given, axes=axes, norm=norm), given.shape[axes[-1]], axes[-1], 2.0)
    x = _resized(x, tuple(shapes[:ndim]))
    add_lanes(adjoints, description[at + count :], x, bool(is_complex))


for _kind, _functions in enumerate(
    (
        (np.fft.fft, np.fft.fft2, np.fft.fftn),
        (np.fft.ifft, np.fft.ifft2, np.fft.ifftn),
        (np.fft.rfft, np.fft.rfft2, np.fft.rfftn),
        (np.fft.irfft, np.fft.irfft2, np.fft.irfftn),
    )
):
    _made = _transform(_kind, _functions[2])
    _register_line(_functions[0], _made)
    _register_box(_functions[1], _made, (-2, -1))
    _register_box(_functions[2], _made, None)
    HANDLERS[_kind] = _pull
