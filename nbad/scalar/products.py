"""Products of arrays of active numbers.

Owns dots and what is made of them; an element of a product is one entry, and its value is numba's own.
"""

import operator
from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload

from nbad.scalar.fields import active_array, combined, combined_two, complex_array, plain, room
from nbad.scalar.reductions import none_like

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


def _product(a: Any, b: Any) -> Any:
    """Return the product of lines and matrices."""


@overload(_product)
def _product_overload(a: Any, b: Any) -> Any:
    if (a.ndim, b.ndim) == (1, 1):

        def lines(a: Any, b: Any) -> Any:
            va, vb = plain(a), plain(b)
            return combined_two(np.dot(va, vb), a, vb, b, va)

        return lines
    if (a.ndim, b.ndim) == (1, 2):

        def line_and_matrix(a: Any, b: Any) -> Any:
            va, vb = plain(a), plain(b)
            y = np.dot(va, vb)
            made = room(y, a, b)
            for j in range(y.size):
                made[j] = combined_two(y[j], a, vb[:, j], b[:, j], va)
            return made

        return line_and_matrix
    if (a.ndim, b.ndim) == (2, 1):

        def matrix_and_line(a: Any, b: Any) -> Any:
            va, vb = plain(a), plain(b)
            y = np.dot(va, vb)
            made = room(y, a, b)
            for i in range(y.size):
                made[i] = combined_two(y[i], a[i], vb, b, va[i])
            return made

        return matrix_and_line

    def matrices(a: Any, b: Any) -> Any:
        va, vb = plain(a), plain(b)
        y = np.dot(va, vb)
        made = room(y, a, b)
        for i in range(y.shape[0]):
            for j in range(y.shape[1]):
                made[i, j] = combined_two(y[i, j], a[i], vb[:, j], b[:, j], va[i])
        return made

    return matrices


def _takes(a: Any, b: Any) -> bool:
    real = all(isinstance(kind, types.Array) and not isinstance(kind.dtype, types.Complex) for kind in (a, b))
    return real and not (complex_array(a) or complex_array(b)) and (active_array(a) or active_array(b))


@overload(np.dot, target="CPU")
def _dot(a: Any, b: Any, out: Any = None) -> Any:
    def dot(a: Any, b: Any, out: Any = None) -> Any:
        return _product(a, b)

    def dot_into(a: Any, b: Any, out: Any = None) -> Any:
        out[...] = _product(a, b)
        return out

    def to_be_active(a: Any, b: Any, out: Any = None) -> Any:
        # Only types are taken from this: the pass that infers them makes the array active.
        raise TypeError("active numbers are written into a plain array")

    if not _takes(a, b) or not {a.ndim, b.ndim} <= {1, 2}:
        return None
    if none_like(out):
        return dot
    return dot_into if active_array(out) else to_be_active


@overload(operator.matmul, target="CPU")
def _matmul(a: Any, b: Any) -> Any:
    def matmul(a: Any, b: Any) -> Any:
        return _product(a, b)

    return matmul if _takes(a, b) and {a.ndim, b.ndim} <= {1, 2} else None


@overload(np.vdot, target="CPU")
def _vdot(a: Any, b: Any) -> Any:
    def vdot(a: Any, b: Any) -> Any:
        return _product(a, b)

    return vdot if _takes(a, b) and a.ndim == b.ndim == 1 else None


@overload(np.outer, target="CPU")
def _outer(a: Any, b: Any, out: Any = None) -> Any:
    def outer(a: Any, b: Any, out: Any = None) -> Any:
        return a.ravel().reshape((a.size, 1)) * b.ravel().reshape((1, b.size))

    return outer if _takes(a, b) and none_like(out) else None


@overload(np.kron, target="CPU")
def _kron(a: Any, b: Any) -> Any:
    def to_be_active(a: Any, b: Any, out: Any = None) -> Any:
        # Only types are taken from this: the pass that infers them makes the array active.
        raise TypeError("active numbers are written into a plain array")

    if not _takes(a, b) or not a.ndim == b.ndim <= 2:
        return None
    if a.ndim == 1:

        def kron_of_lines(a: Any, b: Any) -> Any:
            return np.outer(a, b).ravel()

        return kron_of_lines

    def kron(a: Any, b: Any) -> Any:
        m, n = a.shape
        p, q = b.shape
        blocks = a.ravel().reshape((m, 1, n, 1)) * b.ravel().reshape((1, p, 1, q))
        return blocks.reshape((m * p, n * q))

    return kron


@overload(np.trace, target="CPU")
def _trace(a: Any, offset: Any = 0) -> Any:
    def trace(a: Any, offset: Any = 0) -> Any:
        rest = a[max(0, -offset) :, max(0, offset) :]
        diagonal = np.empty(min(rest.shape), rest.dtype)
        for k in range(diagonal.size):
            diagonal[k] = rest[k, k]
        return combined(np.trace(plain(a), offset), diagonal, 1.0)

    return trace if active_array(a) and a.ndim == 2 else None
