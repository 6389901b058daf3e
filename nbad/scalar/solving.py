"""Linear equations with active numbers: solutions, inverses and determinants.

Values are numba's own. The derivatives go through the small residuals b - A x, so that a solution costs entries of as many
pairs as the matrix has elements, twice.
"""

from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.extending import overload, register_jitable

from nbad.scalar.fields import active_array, all_of, combined, combined_two, line, plain, room

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


def _matrix(kind: Any) -> bool:
    return active_array(kind) and kind.ndim == 2


@register_jitable
def _solved(a: Any, b: Any, inverse: Any, y: Any) -> Any:
    """Return the solution with the values `y`: it moves by the inverse times db - dA y."""
    made = room(y, a, b)
    moves = room(y, a, b)
    for j in range(y.size):
        moves[j] = combined_two(0.0 * y[j], a[j], -y, b[j : j + 1], 1.0)
    together = all_of(y, a, b)
    for i in range(y.size):
        made[i] = combined_two(y[i], moves, inverse[i], together, 0.0)
    return made


@overload(np.linalg.solve, target="CPU")
def _solve(a: Any, b: Any) -> Any:
    def solve(a: Any, b: Any) -> Any:
        va = plain(a)
        return _solved(a, b, np.linalg.inv(va), np.linalg.solve(va, plain(b)))

    def solve_columns(a: Any, b: Any) -> Any:
        va = plain(a)
        inverse, y = np.linalg.inv(va), np.linalg.solve(va, plain(b))
        made = room(y, a, b)
        for k in range(y.shape[1]):
            made[:, k] = _solved(a, b[:, k], inverse, y[:, k])
        return made

    arrays = isinstance(a, types.Array) and isinstance(b, types.Array) and a.ndim == 2
    if not arrays or not (active_array(a) or active_array(b)):
        return None
    return solve if b.ndim == 1 else solve_columns


@overload(np.linalg.inv, target="CPU")
def _inv(a: Any) -> Any:
    def inv(a: Any) -> Any:
        y = np.linalg.inv(plain(a))
        moves, made = room(y, a, a), room(y, a, a)
        for j in range(y.shape[0]):
            for k in range(y.shape[0]):
                moves[j, k] = combined(0.0 * y[j, k], a[j], -y[:, k])
        together = all_of(line(y), a, 0.0)
        for i in range(y.shape[0]):
            for k in range(y.shape[0]):
                made[i, k] = combined_two(y[i, k], moves[:, k], y[i], together, 0.0)
        return made

    return inv if _matrix(a) else None


@register_jitable
def _cofactors(v: Any, y: Any) -> Any:
    """Return the derivatives of a determinant `y`; of a singular matrix by its minors."""
    if y != 0.0:
        return (y * np.linalg.inv(v).T).copy()
    n = v.shape[0]
    found, minor = np.empty_like(v), np.empty((n - 1, n - 1), v.dtype)
    for i in range(n):
        for j in range(n):
            for k in range(n - 1):
                for m in range(n - 1):
                    minor[k, m] = v[k + (k >= i), m + (m >= j)]
            found[i, j] = (1.0 if (i + j) % 2 == 0 else -1.0) * (np.linalg.det(minor) if n > 1 else 1.0)
    return found


@overload(np.linalg.det, target="CPU")
def _det(a: Any) -> Any:
    def det(a: Any) -> Any:
        v = plain(a)
        y = np.linalg.det(v)
        return combined(y, line(a), line(_cofactors(v, y)))

    return det if _matrix(a) else None


@overload(np.linalg.slogdet, target="CPU")
def _slogdet(a: Any) -> Any:
    def slogdet(a: Any) -> Any:
        v = plain(a)
        sign, y = np.linalg.slogdet(v)
        return float(sign), combined(y, line(a), line(np.linalg.inv(v).T.copy()))

    return slogdet if _matrix(a) else None
