"""Fourier transforms: all of ``numpy.fft``.

Owns six linear operations. The adjoint of each is one of them, so the sweep of a transform is one
transform, at every order:

===========  ==================================================  ===========
operation    value                                               adjoint
===========  ==================================================  ===========
C2C          complex array to its transform                      C2C
R2C_FULL     real array to its whole transform                   C2R_FULL
C2R_FULL     real part of the transform of a complex array       R2C_FULL
R2C          real array to the half of its spectrum              C2R
C2R          half a spectrum to a real array                     R2C
RESIZE       cut at the end of each axis, or padded with zeros   RESIZE
===========  ==================================================  ===========

They read the cotangent and static numbers only: nothing is kept for the sweep. Half a spectrum stands for a
whole one in two ways. With ``mirrored`` the missing bins are the conjugate mirror images of those that are
there, as in ``irfft``; without, they are zero, as in the adjoint of ``rfft``. So the adjoint of a mirrored
transform counts each bin twice that has a mirror image: all but the first and, at even length, the last one.
"""

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nbad.errors import NoRuleError
from nbad.kernels import fft, memory, pieces
from nbad.methods import user_line
from nbad.table import binds, operation
from nbad.trace import apply, cast, is_traced

Array = np.ndarray[Any, Any]

_NORMS = (None, "backward", "ortho", "forward")


# Transforms of arrays -----------------------------------------------------------------------------
def _copy_scaling_ends(source: Array, target: Array, axis: int, n: int, by: float) -> None:
    """Write `source` to `target` (which may be `source`), some bins of `axis` times `by`.

    The axis holds half of a spectrum of length `n`; the bins are those that have no mirror image.
    """
    ends = [0] if n % 2 else [0, n // 2]
    places = [(slice(None),) * axis + (end,) for end in ends]

    def task(lo: int, hi: int) -> None:
        if source is not target:
            target[lo:hi] = source[lo:hi]
        if axis > 0:
            for place in places:
                target[lo:hi][place] *= by

    pieces.run(task, target.shape[0], 2 * target.nbytes)
    if axis == 0:
        for place in places:
            target[place] *= by


def c2c_forward(x: Any, *, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Return the transform of complex `x` over the ascending `axes`."""
    if is_traced(x):
        return apply(C2C, x, axes=axes, forward=forward, factor=factor)
    if x.size == 0:
        return memory.empty(x.shape, x.dtype.newbyteorder("="))
    return fft.c2c(x, axes, forward, factor)


def c2c_x(g: Any, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Transform the other way."""
    return apply(C2C, g, axes=axes, forward=not forward, factor=factor)


C2C = operation(c2c_forward, name="c2c", x=c2c_x, linear=True)


def r2c_full_forward(x: Any, *, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Return the whole transform of real `x` over the ascending `axes`."""
    if is_traced(x):
        return apply(R2C_FULL, x, axes=axes, forward=forward, factor=factor)
    if x.size == 0:
        return memory.empty(x.shape, np.result_type(x.dtype, np.complex64))
    y = fft.r2c_full(x, axes, factor)
    return y if forward else np.conjugate(y, out=y)


def r2c_full_x(g: Any, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Return the real part of the transform the other way."""
    return apply(C2R_FULL, g, axes=axes, forward=not forward, factor=factor)


def c2r_full_forward(x: Any, *, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Return the real part of the transform of complex `x` over the ascending `axes`."""
    if is_traced(x):
        return apply(C2R_FULL, x, axes=axes, forward=forward, factor=factor)
    if x.size == 0:
        return memory.empty(x.shape, x.real.dtype.newbyteorder("="))
    # Folding x with its mirror image and transforming half of it was measured: the fold costs what it saves.
    return pieces.contiguous(fft.c2c(x, axes, forward, factor).real)


def c2r_full_x(g: Any, axes: tuple[int, ...], forward: bool, factor: float) -> Any:
    """Return the whole transform the other way."""
    return apply(R2C_FULL, g, axes=axes, forward=not forward, factor=factor)


R2C_FULL = operation(r2c_full_forward, name="r2c_full", x=r2c_full_x, linear=True)
C2R_FULL = operation(c2r_full_forward, name="c2r_full", x=c2r_full_x, linear=True)


def _halved_last(x: Array, axes: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Return a view of `x` and its transformed axes, ascending, the last of them that of `axes`."""
    halved = axes[-1]
    if halved == max(axes):
        return x, tuple(sorted(axes))
    others = (axis - (axis > halved) for axis in axes[:-1])
    return np.moveaxis(x, halved, -1), (*sorted(others), x.ndim - 1)


def r2c_forward(x: Any, *, axes: tuple[int, ...], factor: float, mirrored: bool) -> Any:
    """Return half the spectrum of real `x` over `axes`, of which the last is halved."""
    if is_traced(x):
        return apply(R2C, x, axes=axes, factor=factor, mirrored=mirrored)
    view, order = _halved_last(x, axes)
    n = x.shape[axes[-1]]
    if x.size == 0:
        shape = [n // 2 + 1 if axis == axes[-1] else m for axis, m in enumerate(x.shape)]
        return memory.empty(shape, np.result_type(x.dtype, np.complex64))
    y = fft.r2c(view, order, 2 * factor if mirrored else factor)
    if mirrored:
        _copy_scaling_ends(y, y, order[-1], n, 0.5)
    return y if view is x else np.moveaxis(y, -1, axes[-1])


def r2c_x(g: Any, x_shape: tuple[int, ...], axes: tuple[int, ...], factor: float, mirrored: bool) -> Any:
    """Transform back, from the same kind of half."""
    return apply(C2R, g, axes=axes, n=x_shape[axes[-1]], factor=factor, mirrored=mirrored)


def c2r_forward(x: Any, *, axes: tuple[int, ...], n: int, factor: float, mirrored: bool) -> Any:
    """Return the real part of the array that the half spectrum `x` stands for, of length `n` in `axes[-1]`."""
    if is_traced(x):
        return apply(C2R, x, axes=axes, n=n, factor=factor, mirrored=mirrored)
    view, order = _halved_last(x, axes)
    if x.size == 0:
        shape = [n if axis == axes[-1] else m for axis, m in enumerate(x.shape)]
        return memory.empty(shape, x.real.dtype.newbyteorder("="))
    spectrum = view
    if not mirrored:
        spectrum = memory.empty(view.shape, x.dtype.newbyteorder("="))
        _copy_scaling_ends(view, spectrum, order[-1], n, 2.0)
    y = fft.c2r(spectrum, order, n, factor if mirrored else 0.5 * factor)
    return y if view is x else np.moveaxis(y, -1, axes[-1])


def c2r_x(g: Any, axes: tuple[int, ...], factor: float, mirrored: bool) -> Any:
    """Transform to the same kind of half."""
    return apply(R2C, g, axes=axes, factor=factor, mirrored=mirrored)


R2C = operation(r2c_forward, name="r2c", x=r2c_x, linear=True)
C2R = operation(c2r_forward, name="c2r", x=c2r_x, linear=True)


def resize_forward(x: Any, *, shape: tuple[int, ...]) -> Any:
    """Return `x` cut or padded with zeros at the end of each axis."""
    if is_traced(x):
        return apply(RESIZE, x, shape=shape)
    kept = tuple(slice(min(m, n)) for m, n in zip(x.shape, shape, strict=True))
    part = x[kept]
    if part.shape == shape:
        return part
    y = memory.empty(shape, x.dtype.newbyteorder("="))

    def task(lo: int, hi: int) -> None:
        y[lo:hi] = 0
        rows = part[lo:hi]
        y[lo : lo + len(rows)][(slice(None), *kept[1:])] = rows

    pieces.run(task, shape[0], y.nbytes)
    return y


def resize_x(g: Any, x_shape: tuple[int, ...]) -> Any:
    """Pad what was cut, cut what was padded."""
    return apply(RESIZE, g, shape=x_shape)


RESIZE = operation(resize_forward, name="resize", x=resize_x, linear=True)


# NumPy's functions --------------------------------------------------------------------------------
def _refuse_out(function: str, out: Any) -> None:
    """Raise if an output array was given."""
    if out is not None:
        raise NoRuleError.of(
            f"np.fft.{function} with out=", at=user_line(), instead="Use the array that it returns."
        )


def swapped(norm: str | None) -> str | None:
    """Return the norm of the transform the other way."""
    return {"forward": None, None: "forward", "backward": "forward"}.get(norm, norm)


def _scale(lengths: Sequence[int], norm: str | None, forward: bool) -> float:
    """Return the factor of a transform of these lengths.

    Raises
    ------
    ValueError
        An unknown norm or a length below 1, in NumPy's words.
    """
    for n in lengths:
        if n < 1:
            raise ValueError(f"Invalid number of FFT data points ({n}) specified.")
    if norm not in _NORMS:
        raise ValueError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    total = math.prod(lengths)
    if norm == "ortho":
        return 1 / math.sqrt(total)
    return 1 / total if forward == (norm == "forward") else 1.0


def _one(a: Any, n: Any, axis: Any, *, halved: bool = False) -> tuple[list[int], list[int]]:
    """Return length and axis of a transform over one axis, as lists."""
    where = normalize_axis_index(operator.index(axis), a.ndim)
    length = a.shape[where]
    if n is None:
        return [2 * (length - 1) if halved else length], [where]
    return [operator.index(n)], [where]


def _many(a: Any, s: Any, axes: Any, *, halved: bool = False) -> tuple[list[int], list[int]]:
    """Return lengths and axes of a transform over several axes, by NumPy's rules."""
    if axes is None and s is not None:
        warnings.warn(
            "`axes` should not be `None` if `s` is not `None` (Deprecated in NumPy 2.0).",
            DeprecationWarning,
            stacklevel=4,
        )
    given = None if s is None else list(s)
    if axes is None:
        axes = range(-(a.ndim if given is None else len(given)), 0)
    where = [normalize_axis_index(operator.index(axis), a.ndim) for axis in axes]
    if given is None:
        lengths = [a.shape[axis] for axis in where]
        if halved:
            lengths[-1] = 2 * (lengths[-1] - 1)
        return lengths, where
    if len(given) != len(where):
        raise ValueError("Shape and axes have different lengths.")
    if None in given:
        warnings.warn(
            "Passing an array containing `None` values to `s` is deprecated in NumPy 2.0.",
            DeprecationWarning,
            stacklevel=4,
        )
    return [
        a.shape[axis] if n is None or n == -1 else operator.index(n)
        for n, axis in zip(given, where, strict=True)
    ], where


def resized(x: Any, lengths: Sequence[int], axes: Sequence[int]) -> Any:
    """Return `x` with these lengths along `axes`."""
    shape = list(x.shape)
    for n, axis in zip(lengths, axes, strict=True):
        shape[axis] = n
    return x if tuple(shape) == x.shape else apply(RESIZE, x, shape=tuple(shape))


def _floating(x: Any) -> Any:
    """Return `x`, integers and truth values as float64, as NumPy transforms them; these are traced while recorded."""
    return cast(x, np.dtype(np.float64)) if x.dtype.kind in "iub" else x


def whole(x: Any, where: tuple[list[int], list[int]], norm: str | None, forward: bool) -> Any:
    """Transform to or from a whole spectrum."""
    lengths, axes = where
    factor = _scale(lengths, norm, forward)
    if not axes:
        return x
    if len(set(axes)) < len(axes):  # an axis named twice is transformed twice
        for n, axis in zip(reversed(lengths), reversed(axes), strict=True):
            x = whole(x, ([n], [axis]), norm, forward)
        return x
    x = resized(_floating(x), lengths, axes)
    op = C2C if x.dtype.kind == "c" else R2C_FULL
    return apply(op, x, axes=tuple(sorted(axes)), forward=forward, factor=factor)


def to_half(x: Any, where: tuple[list[int], list[int]], norm: str | None) -> Any:
    """Transform a real array to half its spectrum."""
    lengths, axes = where
    if x.dtype.kind == "c":
        raise TypeError(f"np.fft.rfft and its kin take real arrays, not {x.dtype}; use np.fft.fft")
    factor = _scale(lengths, norm, True)
    if len(set(axes)) < len(axes):
        x = to_half(x, (lengths[-1:], axes[-1:]), norm)
        for n, axis in zip(reversed(lengths[:-1]), reversed(axes[:-1]), strict=True):
            x = whole(x, ([n], [axis]), norm, True)
        return x
    x = resized(_floating(x), lengths, axes)
    return apply(R2C, x, axes=(*sorted(axes[:-1]), axes[-1]), factor=factor, mirrored=False)


def from_half(x: Any, where: tuple[list[int], list[int]], norm: str | None) -> Any:
    """Transform half a spectrum to a real array."""
    lengths, axes = where
    factor = _scale(lengths, norm, False)
    if x.dtype.kind != "c":
        x = cast(x, np.result_type(_floating(x).dtype, np.complex64))
    if len(set(axes)) < len(axes):
        for n, axis in zip(lengths[:-1], axes[:-1], strict=True):
            x = whole(x, ([n], [axis]), norm, False)
        return from_half(x, (lengths[-1:], axes[-1:]), norm)
    n = lengths[-1]
    x = resized(x, [*lengths[:-1], n // 2 + 1], axes)
    return apply(C2R, x, axes=(*sorted(axes[:-1]), axes[-1]), n=n, factor=factor, mirrored=True)


@binds(np.fft.fft)
def fft_(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.fft``."""
    _refuse_out("fft", out)
    return whole(a, _one(a, n, axis), norm, True)


@binds(np.fft.ifft)
def ifft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.ifft``."""
    _refuse_out("ifft", out)
    return whole(a, _one(a, n, axis), norm, False)


@binds(np.fft.rfft)
def rfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.rfft``."""
    _refuse_out("rfft", out)
    return to_half(a, _one(a, n, axis), norm)


@binds(np.fft.irfft)
def irfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.irfft``."""
    _refuse_out("irfft", out)
    return from_half(a, _one(a, n, axis, halved=True), norm)


@binds(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.hfft``."""
    _refuse_out("hfft", out)
    return from_half(np.conjugate(a), _one(a, n, axis, halved=True), swapped(norm))


@binds(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.ihfft``."""
    _refuse_out("ihfft", out)
    return np.conjugate(to_half(a, _one(a, n, axis), swapped(norm)))


@binds(np.fft.fft2)
def fft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.fft2``."""
    _refuse_out("fft2", out)
    return whole(a, _many(a, s, axes), norm, True)


@binds(np.fft.ifft2)
def ifft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.ifft2``."""
    _refuse_out("ifft2", out)
    return whole(a, _many(a, s, axes), norm, False)


@binds(np.fft.rfft2)
def rfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.rfft2``."""
    _refuse_out("rfft2", out)
    return to_half(a, _many(a, s, axes), norm)


@binds(np.fft.irfft2)
def irfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.irfft2``."""
    _refuse_out("irfft2", out)
    return from_half(a, _many(a, s, axes, halved=True), norm)


@binds(np.fft.fftn)
def fftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.fftn``."""
    _refuse_out("fftn", out)
    return whole(a, _many(a, s, axes), norm, True)


@binds(np.fft.ifftn)
def ifftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.ifftn``."""
    _refuse_out("ifftn", out)
    return whole(a, _many(a, s, axes), norm, False)


@binds(np.fft.rfftn)
def rfftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.rfftn``."""
    _refuse_out("rfftn", out)
    return to_half(a, _many(a, s, axes), norm)


@binds(np.fft.irfftn)
def irfftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None, out: Any = None) -> Any:
    """Trace ``np.fft.irfftn``."""
    _refuse_out("irfftn", out)
    return from_half(a, _many(a, s, axes, halved=True), norm)


def _shifted(x: Any, axes: Any, sign: int) -> Any:
    """Roll `axes` by half of their lengths, rounded down, in the direction `sign`."""
    where = normalize_axis_tuple(range(x.ndim) if axes is None else axes, x.ndim, allow_duplicate=True)
    return np.roll(x, tuple(sign * (x.shape[axis] // 2) for axis in where), where)


@binds(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Any:
    """Trace ``np.fft.fftshift``."""
    return _shifted(x, axes, 1)


@binds(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Any:
    """Trace ``np.fft.ifftshift``."""
    return _shifted(x, axes, -1)
