"""What operations give that hand their attributes to compiled code, and whether it can work with these.

Owns the ranges of those attributes. Compiled code takes axes, lengths, starts and steps as they are, and a wrong one would
lead it outside of its arrays; in a recording the functions of NumPy and nbad have made sure of them, in a file nobody has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad.replay.spectra import bins_of
from nbad.rules.convolution import CONJ_TIMES, TIMES, TIMES_CONJ
from nbad.rules.cosine import ORTHOGONAL, PLAIN, TRANSPOSED

__all__ = ["GIVES", "NEVER_SAVED"]

Aval = tuple[np.dtype[Any], tuple[int, ...]]
Attributes = dict[str, Any]
Extents = tuple[int, ...]

#: Bytes of the elements that transforms take.
_SIZES = {"f": (4, 8), "c": (8, 16)}
#: Bytes, and elements from the first to the last that is addressed, that compiled code may have to count.
_MOST = 1 << 40
#: Made when a program is planned, after what is saved.
NEVER_SAVED = frozenset({"spectrum", "spectra_product", "filter_keeping"})


# Attributes -----------------------------------------------------------------------------------------
def _require(fact: bool, what: str, value: Any) -> None:
    if not fact:
        raise ValueError(f"{what} of {value!r}")


def _int(a: Attributes, name: str, least: int, most: int = _MOST) -> int:
    value = a[name]
    _require(type(value) is int and least <= value <= most, name, value)
    return int(value)


def _ints(a: Attributes, name: str, count: int, least: int = 0) -> Extents:
    values = a[name]
    fits = isinstance(values, tuple) and len(values) == count
    _require(fits and all(type(n) is int and least <= n <= _MOST for n in values), name, values)
    return tuple(values)


def _flags(a: Attributes, *names: str) -> None:
    for name in names:
        _require(type(a[name]) is bool, name, a[name])


def _factor(a: Attributes) -> None:
    _require(type(a["factor"]) in (int, float), "factor", a["factor"])


def _axes(a: Attributes, ndim: int, ascending: bool = True) -> Extents:
    axes = a["axes"]
    fits = isinstance(axes, tuple) and len(axes) > 0 and all(type(k) is int and 0 <= k < ndim for k in axes)
    _require(fits and len(set(axes)) == len(axes), "axes", axes)
    _require(not ascending or axes == tuple(sorted(axes)), "axes", axes)
    return tuple(axes)


def _number_type(aval: Aval, kinds: str) -> None:
    dtype = aval[0]
    _require(dtype.kind in kinds and dtype.itemsize in _SIZES[dtype.kind], "an operand", str(dtype))


def _complex(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.result_type(dtype, np.complex64)


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.empty((), dtype).real.dtype


# Transforms -----------------------------------------------------------------------------------------
def _whole(a: Attributes, x: Aval) -> Aval:
    _factor(a)
    _flags(a, "forward")
    _axes(a, len(x[1]))
    return x


def _c2c(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "c")
    return _whole(a, x)


def _r2c_full(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "f")
    return _complex(x[0]), _whole(a, x)[1]


def _c2r_full(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "c")
    return _real(x[0]), _whole(a, x)[1]


def _halved(a: Attributes, shape: Extents, length: int) -> Extents:
    """Return `shape` with the halved axis of that length."""
    _factor(a)
    _flags(a, "mirrored")
    last = a["axes"][-1]
    return (*shape[:last], length, *shape[last + 1 :])


def _r2c(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "f")
    axes = _axes(a, len(x[1]), ascending=False)
    return _complex(x[0]), _halved(a, x[1], x[1][axes[-1]] // 2 + 1)


def _c2r(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "c")
    axes = _axes(a, len(x[1]), ascending=False)
    n = _int(a, "n", 1)
    _require(x[1][axes[-1]] == n // 2 + 1, "half a spectrum", x[1])
    return _real(x[0]), _halved(a, x[1], n)


def _resize(a: Attributes, x: Aval) -> Aval:
    return x[0], _ints(a, "shape", len(x[1]))


def _real_transform(a: Attributes, x: Aval) -> Aval:
    _number_type(x, "fc")
    _factor(a)
    _flags(a, "sine")
    axes, kind = _axes(a, len(x[1])), _int(a, "kind", 1, 4)
    _require(a["form"] in (PLAIN, ORTHOGONAL, TRANSPOSED), "form", a["form"])
    least = 2 if kind == 1 and not a["sine"] else 1
    _require(0 in x[1] or all(x[1][axis] >= least for axis in axes), "lengths", x[1])
    return x


# Convolution ----------------------------------------------------------------------------------------
def _box(a: Attributes, ndim: int) -> tuple[Extents, Extents]:
    """Return the transformed axes and the lengths of the box, which is also of a size that has a spectrum."""
    _flags(a, "real")
    axes = _axes(a, ndim)
    lengths = _ints(a, "lengths", len(axes), 1)
    _require(math.prod(lengths) <= _MOST // 32, "lengths", lengths)
    starts, shape = _ints(a, "out_start", len(axes)), _ints(a, "out_shape", len(axes), 1)
    _inside(starts, shape, lengths)
    return axes, lengths


def _inside(starts: Extents, shape: Extents, lengths: Extents) -> None:
    """Raise unless what begins there and has that shape lies inside of the box."""
    fits = all(start + m <= n for start, m, n in zip(starts, shape, lengths, strict=True))
    _require(fits, f"a box of {lengths}, and a part at {starts}", shape)


def _placed(a: Attributes, name: str, x: Aval, axes: Extents, lengths: Extents) -> Extents:
    """Return the batch lengths of an operand, which must lie inside of the box."""
    _number_type(x, "f" if a["real"] else "fc")
    _require(0 not in x[1], "an empty operand", x[1])
    _inside(_ints(a, name, len(axes)), tuple(x[1][axis] for axis in axes), lengths)
    return tuple(n for axis, n in enumerate(x[1]) if axis not in axes)


def _filtered(a: Attributes, dtype: np.dtype[Any], batch: Sequence[int], axes: Extents) -> Aval:
    """Return what the passes give: a part of the box at `axes`, batch axes around it."""
    _require(math.prod(batch) * math.prod(a["lengths"]) <= _MOST // 32, "batch lengths", batch)
    shape = list(batch)
    for axis, n in zip(axes, a["out_shape"], strict=True):
        shape.insert(axis, n)
    return _real(_complex(dtype)) if a["real"] else _complex(dtype), tuple(shape)


def _filter(a: Attributes, u: Aval, v: Aval) -> Aval:
    _flags(a, "conj")
    _require(len(u[1]) == len(v[1]), "operands", (u[1], v[1]))
    axes, lengths = _box(a, len(u[1]))
    own, other = _placed(a, "u_start", u, axes, lengths), _placed(a, "v_start", v, axes, lengths)
    return _filtered(a, v[0], np.broadcast_shapes(own, other), axes)


def _filter_by_spectrum(a: Attributes, x: Aval, h_hat: Aval) -> Aval:
    axes, lengths = _box(a, len(x[1]))
    own = _placed(a, "start", x, axes, lengths)
    _number_type(h_hat, "c")
    _require(a["how"] in (TIMES, TIMES_CONJ, CONJ_TIMES), "how", a["how"])
    bins = bins_of(lengths, a["real"], h_hat[0])
    _require(0 not in h_hat[1] and h_hat[1][-1:] == (bins,), "a spectrum", h_hat[1])
    # Of two spectra both are laid out for one precision.
    _require(a["how"] != CONJ_TIMES or _complex(x[0]) == h_hat[0], "precision", (str(x[0]), str(h_hat[0])))
    batch = np.broadcast_shapes(own, h_hat[1][:-1])
    added = 0 if a["how"] == CONJ_TIMES else len(batch) - len(own)
    return _filtered(a, h_hat[0], batch, tuple(axis + added for axis in axes))


# Segments, windows, recurrences -----------------------------------------------------------------------
def _reach(*extents: int) -> None:
    """Raise if compiled code could not count so many elements."""
    _require(max(extents) <= _MOST, "steps that reach", max(extents))


def _segments(a: Attributes, x: Aval) -> Aval:
    axis, step, start = _int(a, "axis", 0, len(x[1]) - 1), _int(a, "step", 1), _int(a, "start", -_MOST)
    count, width = _int(a, "count", 0), _int(a, "width", 0)
    inner = math.prod(x[1][axis + 1 :])
    _reach(count * step * inner, abs(start) * inner)
    return x[0], (*x[1][:axis], count, width, *x[1][axis + 1 :])


def _overlap_add(a: Attributes, w: Aval) -> Aval:
    axis, step, start = _int(a, "axis", 0, len(w[1]) - 2), _int(a, "step", 1), _int(a, "start", -_MOST)
    inner = math.prod(w[1][axis + 2 :])
    _reach(w[1][axis] * step * inner, abs(start) * inner)
    return w[0], (*w[1][:axis], _int(a, "length", 0), *w[1][axis + 2 :])


def _positions(a: Attributes, positions: Aval, ndim: int) -> tuple[Extents, int]:
    """Return the attribute `shape` and the number of windows; where they are is seen when they are cut."""
    shape = _ints(a, "shape", len(a["shape"]) if isinstance(a["shape"], tuple) else -1)
    _require(0 < len(shape) <= ndim, "shape", shape)
    dtype, places = positions
    _require(dtype == np.int64 and places[1:] == (len(shape),), "positions", (str(dtype), places))
    return shape, places[0]


def _patches(a: Attributes, x: Aval, positions: Aval) -> Aval:
    shape, count = _positions(a, positions, len(x[1]))
    return x[0], (*x[1][: len(x[1]) - len(shape)], count, *shape)


def _patches_add(a: Attributes, w: Aval, positions: Aval) -> Aval:
    ndim = len(w[1])
    shape, count = _positions(a, positions, ndim - 1)
    batch = w[1][: ndim - len(shape) - 1]
    _require(w[1][len(batch)] == count, "windows", w[1])
    return w[0], (*batch, *shape)


def _recurrence(a: Attributes, x: Aval, b: Aval) -> Aval:
    _int(a, "axis", 0, len(b[1]) - 1)
    _flags(a, "reverse")
    _number_type(x, "fc")
    _number_type(b, "fc")
    _require(x[1] == b[1], "operands", (x[1], b[1]))
    return np.result_type(x[0], b[0]), b[1]


#: By name of an operation, ``(attributes, *operands)`` to what it gives; raises ValueError or another plain error.
GIVES: dict[str, Callable[..., Aval]] = {
    "c2c": _c2c,
    "r2c_full": _r2c_full,
    "c2r_full": _c2r_full,
    "r2c": _r2c,
    "c2r": _c2r,
    "resize": _resize,
    "real_transform": _real_transform,
    "filter": _filter,
    "filter_by_spectrum": _filter_by_spectrum,
    "segments": _segments,
    "overlap_add": _overlap_add,
    "patches": _patches,
    "patches_add": _patches_add,
    "recurrence": _recurrence,
}
