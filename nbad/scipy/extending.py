"""Arrays continued beyond their edges along one axis, and the adjoint: what lies beyond, folded back.

Owns the rows `extend` and `fold`, each the pullback of the other. The modes bear SciPy's names.
"""

from typing import Any

import numpy as np

from nbad.table import operation
from nbad.trace import apply

#: Spellings of one mode.
SAME = {
    "grid-mirror": "reflect", "grid-constant": "constant", "grid-wrap": "wrap", "zero": "constant",
    "symm": "reflect", "fill": "constant", "interp": "constant",
}  # fmt: skip
MODES = ("constant", "nearest", "reflect", "mirror", "wrap")


def places_of(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Return which of `n` samples stands at each place from ``-before`` to ``n + after``."""
    k = np.arange(-before, n + after)
    if mode == "nearest":
        return np.clip(k, 0, n - 1)
    if mode == "wrap":
        return k % n
    period = 2 * n if mode == "reflect" else max(2 * n - 2, 1)
    k %= period
    return np.minimum(k, period - 1 - k if mode == "reflect" else (period - k) % period if n > 1 else k)


def along(axis: int, part: Any) -> tuple[Any, ...]:
    """Return the index of `part` along `axis`."""
    return (*(slice(None),) * axis, part)


def extend_forward(x, *, axis, before, after, mode):
    """Return `x` with `before` and `after` more samples along `axis`; zeros in mode "constant"."""
    n = x.shape[axis]
    if mode != "constant":
        return np.take(x, places_of(n, before, after, mode), axis=axis)
    y = np.zeros((*x.shape[:axis], before + n + after, *x.shape[axis + 1 :]), x.dtype)
    y[along(axis, slice(before, before + n))] = x
    return y


def extend_x(g, axis, before, after, mode):
    return apply(FOLD, g, axis=axis, before=before, after=after, mode=mode)


def fold_forward(x, *, axis, before, after, mode):
    """Return the inner part of `x`, and what lies beyond it added where `extend` took it from."""
    n = x.shape[axis] - before - after
    y = x[along(axis, slice(before, before + n))].copy()
    if mode != "constant":
        places = places_of(n, before, after, mode)
        for k in (*range(before), *range(before + n, before + n + after)):
            y[along(axis, places[k])] += x[along(axis, k)]
    return y


def fold_x(g, axis, before, after, mode):
    return apply(EXTEND, g, axis=axis, before=before, after=after, mode=mode)


EXTEND = operation(extend_forward, name="scipy.extending.extend", linear=True, x=extend_x)
FOLD = operation(fold_forward, name="scipy.extending.fold", linear=True, x=fold_x)


def mode_of(mode: str, known: tuple[str, ...] = MODES) -> str:
    """Return the one spelling of a mode.

    Raises
    ------
    ValueError
        There is no such mode.
    """
    found = SAME.get(mode, mode)
    if found not in known:
        raise ValueError(f"boundary mode {mode!r} is none of {', '.join(known)}")
    return found


def extended(x: Any, axis: int, before: int, after: int, mode: str, fill: Any = 0) -> Any:
    """Return `x` continued by `before` and `after` samples along `axis`, by `fill` in mode "constant"."""
    if before == after == 0:
        return x
    if mode == "constant" and fill != 0:
        return apply(EXTEND, x - fill, axis=axis, before=before, after=after, mode=mode) + fill
    return apply(EXTEND, x, axis=axis, before=before, after=after, mode=mode)
