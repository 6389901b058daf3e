"""Rearranging: the same elements in another order, repeated, padded or selected by a pattern.

Owns the rows `flip`, `roll`, `tile`, `repeat` and `pad`, and NumPy's functions composed of these and of indexing. No row
here reads a primal.
"""

import math
import operator
from typing import Any

import numpy as np

from nbad.constants import plainly
from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.indexing import gather_along
from nbad.rules.reductions import ABSENT
from nbad.rules.shaping import along, as_operand, axis_index, axis_tuple, ravel, reshape, shape_of
from nbad.table import binds, forward_only, operation
from nbad.trace import apply, cast, is_traced, plain, underlying
from nbad.writing import linked, makes_views


# Rows ---------------------------------------------------------------------------------------------
def flip_forward(x: Any, *, axis: tuple[int, ...]) -> Any:
    """Return `x` with the order along some axes reversed."""
    return np.flip(x, axis)


def flip_x(g: Any, axis: tuple[int, ...]) -> Any:
    return np.flip(g, axis)


def roll_forward(x: Any, *, shift: tuple[int, ...], axis: tuple[int, ...]) -> Any:
    """Return `x` shifted cyclically along some axes."""
    return np.roll(x, shift, axis)


def roll_x(g: Any, shift: tuple[int, ...], axis: tuple[int, ...]) -> Any:
    return np.roll(g, tuple(-s for s in shift), axis)


def tile_forward(x: Any, *, repetitions: tuple[int, ...]) -> Any:
    """Return copies of `x` side by side."""
    return np.tile(x, repetitions)


def tile_x(g: Any, x_shape: tuple[int, ...], repetitions: tuple[int, ...]) -> Any:
    # As many dimensions for both; then every axis is (copy, position in the copy).
    copies = (1,) * (len(x_shape) - len(repetitions)) + repetitions
    lengths = (1,) * (len(repetitions) - len(x_shape)) + x_shape
    pairs = tuple(n for pair in zip(copies, lengths, strict=True) for n in pair)
    return np.reshape(np.sum(np.reshape(g, pairs), axis=tuple(range(0, len(pairs), 2))), x_shape)


def repeat_forward(x: Any, *, repeats: int, axis: int) -> Any:
    """Return every element of `x` repeated along an axis."""
    return np.repeat(x, repeats, axis)


def repeat_x(g: Any, x_shape: tuple[int, ...], repeats: int, axis: int) -> Any:
    split_up = (*x_shape[: axis + 1], repeats, *x_shape[axis + 1 :])
    return np.sum(np.reshape(g, split_up), axis=axis + 1)


def pad_forward(x: Any, *, width: tuple[tuple[int, int], ...], values: tuple[tuple[Any, Any], ...]) -> Any:
    """Return `x` surrounded by numbers."""
    return np.pad(x, width, "constant", constant_values=values)


def pad_x(g: Any, x_shape: tuple[int, ...], width: tuple[tuple[int, int], ...]) -> Any:
    return g[tuple(slice(before, before + n) for (before, _), n in zip(width, x_shape, strict=True))]


FLIP = operation(flip_forward, x=flip_x, linear=True)
ROLL = operation(roll_forward, x=roll_x, linear=True)
TILE = operation(tile_forward, x=tile_x, linear=True)
REPEAT = operation(repeat_forward, x=repeat_x, linear=True)
PAD = operation(pad_forward, x=pad_x)
makes_views(FLIP)
REPEAT_EACH = forward_only(np.repeat, "repeat_each")


# Order --------------------------------------------------------------------------------------------
@binds(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    m = as_operand(m)
    ndim = len(shape_of(m))
    axes = tuple(range(ndim)) if axis is None else axis_tuple(axis, ndim)
    return linked(apply(FLIP, m, axis=axes), m, "flip", axes) if axes else m


@binds(np.flipud)
def flipud(m: Any) -> Any:
    if len(shape_of(m)) < 1:
        raise ValueError("Input must be >= 1-d.")
    return flip(m, 0)


@binds(np.fliplr)
def fliplr(m: Any) -> Any:
    if len(shape_of(m)) < 2:
        raise ValueError("Input must be >= 2-d.")
    return flip(m, 1)


@binds(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    m = as_operand(m)
    if len(axes) != 2:
        raise ValueError("len(axes) must be 2.")
    first, second = (axis_index(a, len(shape_of(m))) for a in axes)
    if first == second:
        raise ValueError("Axes must be different.")
    k = operator.index(k) % 4
    if k == 0:
        return m
    if k == 2:
        return flip(m, (first, second))
    if k == 1:
        return np.swapaxes(flip(m, second), first, second)
    return flip(np.swapaxes(m, first, second), second)


@binds(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    a = as_operand(a)
    if axis is None:
        return reshape(roll(ravel(a), shift, 0), shape_of(a))
    axes = (
        axis_tuple(axis, len(shape_of(a)))
        if np.ndim(axis) == 0
        else tuple(axis_index(x, len(shape_of(a))) for x in axis)
    )
    pairs = np.broadcast(shift, axes)
    if pairs.ndim > 1:
        raise ValueError("'shift' and 'axis' should be scalars or 1D sequences")
    shifts, axes = (
        zip(*((operator.index(s), int(x)) for s, x in pairs), strict=True) if pairs.size else ((), ())
    )
    return apply(ROLL, a, shift=shifts, axis=axes)


@binds(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    count = len(xi)
    found = [reshape(x, (1,) * i + (-1,) + (1,) * (count - 1 - i)) for i, x in enumerate(xi)]
    if indexing == "xy" and count > 1:
        found = [np.swapaxes(x, 0, 1) for x in found]
    found = found if sparse else list(np.broadcast_arrays(*found))
    return tuple(map(np.positive, found)) if copy else tuple(found)


# Repetition ---------------------------------------------------------------------------------------
@binds(np.tile)
def tile(A: Any, reps: Any) -> Any:
    counts = tuple(operator.index(r) for r in (reps if np.ndim(reps) else (reps,)))
    return apply(TILE, as_operand(A), repetitions=counts)


@binds(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    a = as_operand(a)
    if axis is None:
        a, axis = ravel(a), 0
    axis = axis_index(axis, len(shape_of(a)))
    counts = plain(repeats) if is_traced(repeats) else np.asarray(repeats)
    if counts.size == 1 and counts.ndim < 2:
        return apply(REPEAT, a, repeats=operator.index(counts.item()), axis=axis)
    places = plainly(np.repeat, REPEAT_EACH, np.arange(shape_of(a)[axis]), counts)
    return gather_along(a, places, axis, unique=False)


@binds(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    a = ravel(a)
    target = tuple(operator.index(n) for n in (new_shape if np.ndim(new_shape) else (new_shape,)))
    if any(n < 0 for n in target):
        raise ValueError("all elements of `new_shape` must be non-negative")
    size, found = math.prod(target), shape_of(a)[0]
    if size == 0 or found == 0:
        return np.zeros(target, a.dtype)
    return reshape(tile(a, -(-size // found))[:size], target)


# Padding ------------------------------------------------------------------------------------------
_PAD_OPTIONS = {
    "constant": "constant_values", "edge": "", "wrap": "", "reflect": "reflect_type", "symmetric": "reflect_type",
    "linear_ramp": "end_values",
}  # fmt: skip


@binds(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    a = as_operand(array)
    ndim = len(shape_of(a))
    width = _pairs(pad_width, ndim, operator.index)
    if any(n < 0 for pair in width for n in pair):
        raise ValueError("index can't contain negative values")
    if mode not in _PAD_OPTIONS or kwargs.get("reflect_type", "even") != "even":
        raise NoRuleError.of(
            f"np.pad with mode={mode!r}{' and reflect_type' if kwargs else ''}",
            at=user_line(),
            instead="Supported are 'constant', 'edge', 'linear_ramp', 'reflect' and 'symmetric' (of even type) and 'wrap'; "
            "otherwise join the parts with np.concatenate.",
        )
    if set(kwargs) - {_PAD_OPTIONS[mode]}:
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {set(kwargs)}")
    if ndim == 0:
        return a
    if mode == "constant":
        return apply(PAD, a, width=width, values=_pairs(kwargs.get("constant_values", 0), ndim, _number))
    ends = _pairs(kwargs.get("end_values", 0), ndim, _number)
    for axis, (before, after) in enumerate(width):
        if before == after == 0:
            continue
        if mode == "linear_ramp":
            a = _ramped(a, axis, (before, after), ends[axis])
        else:
            places = np.pad(np.arange(shape_of(a)[axis]), (before, after), mode=mode)
            a = gather_along(a, places, axis, unique=False)
    return a


def _number(value: Any) -> Any:
    """Return a plain number; padding with a traced one is refused by its conversion."""
    return np.asarray(value).item()


def _pairs(value: Any, ndim: int, convert: Any) -> tuple[tuple[Any, Any], ...]:
    """Return one pair for each axis, as np.pad reads its arguments."""
    if isinstance(value, dict):
        rows: list[Any] = [(0, 0)] * ndim
        for axis, entry in value.items():
            rows[axis_index(axis, ndim)] = np.broadcast_to(np.asarray(entry), (2,)).tolist()
    else:
        rows = np.broadcast_to(np.asarray(value), (ndim, 2)).tolist()
    return tuple((convert(before), convert(after)) for before, after in rows)


def _ramped(a: Any, axis: int, width: tuple[int, int], ends: tuple[Any, Any]) -> Any:
    """Return `a` continued along `axis` by straight lines that end at `ends`."""
    length = shape_of(a)[axis]
    if length == 0:
        raise ValueError(f"can't extend empty axis {axis} using modes other than 'constant' or 'empty'")
    column = (-1,) + (1,) * (len(shape_of(a)) - 1 - axis)
    real = np.zeros(0, a.dtype).real.dtype
    parts = []
    for count, end, edge in zip(width, ends, (slice(0, 1), slice(length - 1, length)), strict=True):
        steps = np.asarray(np.arange(count) / max(count, 1), real).reshape(column)
        parts.append(end + (a[along(axis, edge)] - end) * steps)
    return np.concatenate((parts[0], a, flip(parts[1], axis)), axis)


# Parts and differences ----------------------------------------------------------------------------
def _triangle(m: Any, mask: np.ndarray) -> Any:
    return np.where(mask, m, np.zeros(1, m.dtype))


@binds(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    m = _at_least_two(m)
    rows, columns = shape_of(m)[-2:]
    return _triangle(m, ~np.tri(rows, columns, k - 1, dtype=bool))


@binds(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    m = _at_least_two(m)
    rows, columns = shape_of(m)[-2:]
    return _triangle(m, np.tri(rows, columns, k, dtype=bool))


def _at_least_two(m: Any) -> Any:
    """Return `m`; one dimension stands for equal rows, as in NumPy."""
    m = as_operand(m)
    if len(shape_of(m)) == 1:
        return np.broadcast_to(m, shape_of(m) * 2)
    return m


@binds(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    a = as_operand(a)
    if n == 0:
        return a
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n!r}")
    if len(shape_of(a)) == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    axis = axis_index(axis, len(shape_of(a)))
    one = tuple(1 if d == axis else length for d, length in enumerate(shape_of(a)))
    given = [None if x is ABSENT else x for x in (prepend, append)]
    parts = [x if x is None or len(shape_of(x)) else np.broadcast_to(x, one) for x in given]
    a = _joined(parts[0], a, parts[1], axis)
    for _ in range(n):
        a = a[along(axis, slice(1, None))] - a[along(axis, slice(None, -1))]
    return a


@binds(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    a = ravel(ary)
    begin, end = (_ravelled(x, a.dtype) for x in (to_begin, to_end))
    return _joined(begin, a[1:] - a[:-1], end, 0)


def _ravelled(x: Any, dtype: np.dtype[Any]) -> Any:
    if x is None:
        return None
    x = as_operand(x)
    if not np.can_cast(np.result_type(underlying(x)), dtype, "same_kind"):
        raise TypeError(
            "dtype of `to_begin` and `to_end` must be compatible with input `ary` under the `same_kind` rule."
        )
    return ravel(cast(x, dtype))


def _joined(before: Any, a: Any, after: Any, axis: int) -> Any:
    """Return the parts that are not None, joined."""
    parts = [x for x in (before, a, after) if x is not None]
    return np.concatenate(parts, axis) if len(parts) > 1 else a
