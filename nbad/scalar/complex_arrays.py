"""Reductions and products of arrays of complex active numbers, by their parts; values are numba's own."""

import operator
from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload

from nbad.scalar.creation import element_of, zeros
from nbad.scalar.fields import active_array, complex_array, with_value
from nbad.scalar.reductions import none_like, plain_all

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


# Parts ------------------------------------------------------------------------------------------
def _real(x: Any) -> Any:
    """Return the real parts of an array."""


def _imag(x: Any) -> Any:
    """Return the imaginary parts of an array."""


@overload(_real)
def _real_overload(x: Any) -> Any:
    def parts(x: Any) -> Any:
        return x.real.copy()

    def same(x: Any) -> Any:
        return x

    return parts if _complex(x) else same


@overload(_imag)
def _imag_overload(x: Any) -> Any:
    def parts(x: Any) -> Any:
        return x.imag.copy()

    def none(x: Any) -> Any:
        return np.zeros(x.shape)

    return parts if _complex(x) else none


def _complex(kind: Any) -> bool:
    return complex_array(kind) or (isinstance(kind, types.Array) and isinstance(kind.dtype, types.Complex))


def _composed(real: Any, imag: Any, y: Any) -> Any:
    """Return complex numbers of their parts, with the values `y`."""


@overload(_composed)
def _composed_overload(real: Any, imag: Any, y: Any) -> Any:
    def number(real: Any, imag: Any, y: Any) -> Any:
        return with_value(complex(real, imag), y)

    def array(real: Any, imag: Any, y: Any) -> Any:
        made = zeros(y.shape, complex(element_of(real), element_of(imag)))
        for place in np.ndindex(y.shape):
            made[place] = with_value(complex(real[place], imag[place]), y[place])
        return made

    return array if isinstance(y, types.Array) else number


def _values(x: Any) -> Any:
    """Return the values of an array."""


@overload(_values)
def _values_overload(x: Any) -> Any:
    def joined(x: Any) -> Any:
        made = np.empty(x.shape, np.complex128)
        for place in np.ndindex(x.shape):
            made[place] = complex(plain_all(x[place].real), plain_all(x[place].imag))
        return made

    def values(x: Any) -> Any:
        return plain_all(x)

    return joined if complex_array(x) else values


# Reductions -------------------------------------------------------------------------------------
@overload(np.sum, target="CPU")
def _sum(a: Any, axis: Any = None) -> Any:
    def all_summed(a: Any, axis: Any = None) -> Any:
        return _composed(np.sum(_real(a)), np.sum(_imag(a)), np.sum(_values(a)))

    def lines_summed(a: Any, axis: Any = None) -> Any:
        return _composed(np.sum(_real(a), axis), np.sum(_imag(a), axis), np.sum(_values(a), axis))

    if not complex_array(a):
        return None
    if none_like(axis):
        return all_summed
    return lines_summed if isinstance(axis, types.Integer) else None


@overload(np.mean, target="CPU")
def _mean(a: Any) -> Any:
    def mean(a: Any) -> Any:
        return _composed(np.mean(_real(a)), np.mean(_imag(a)), np.mean(_values(a)))

    return mean if complex_array(a) else None


@overload(np.prod, target="CPU")
def _prod(a: Any) -> Any:
    def prod(a: Any) -> Any:
        found = 1.0 + 0.0 * element_of(a)
        for number in a.flat:
            found = found * number
        return found

    return prod if complex_array(a) else None


@overload(np.linalg.norm, target="CPU")
def _norm(x: Any) -> Any:
    def norm(x: Any) -> Any:
        parts = np.concatenate((_real(x).ravel(), _imag(x).ravel()))
        return with_value(np.linalg.norm(parts), np.linalg.norm(_values(x)))

    return norm if complex_array(x) else None


# Products ---------------------------------------------------------------------------------------
def _product(a: Any, b: Any) -> Any:
    real = np.dot(_real(a), _real(b)) - np.dot(_imag(a), _imag(b))
    imag = np.dot(_real(a), _imag(b)) + np.dot(_imag(a), _real(b))
    return _composed(real, imag, np.dot(_values(a), _values(b)))


def _takes(a: Any, b: Any) -> bool:
    arrays = isinstance(a, types.Array) and isinstance(b, types.Array)
    if not arrays or not {a.ndim, b.ndim} <= {1, 2}:
        return False
    active = any(active_array(kind) or complex_array(kind) for kind in (a, b))
    return active and (_complex(a) or _complex(b))


@overload(np.dot, target="CPU")
def _dot(a: Any, b: Any) -> Any:
    return _product if _takes(a, b) else None


@overload(operator.matmul, target="CPU")
def _matmul(a: Any, b: Any) -> Any:
    return _product if _takes(a, b) else None


@overload(np.vdot, target="CPU")
def _vdot(a: Any, b: Any) -> Any:
    def vdot(a: Any, b: Any) -> Any:
        real = np.dot(_real(a), _real(b)) + np.dot(_imag(a), _imag(b))
        imag = np.dot(_real(a), _imag(b)) - np.dot(_imag(a), _real(b))
        return _composed(real, imag, np.vdot(_values(a), _values(b)))

    return vdot if _takes(a, b) and a.ndim == b.ndim == 1 else None
