"""Filling: NumPy's functions that write into an array, and those that make a new one.

Owns ``ufunc.at``, ``put`` and its kind, which become the writes of `nbad.rules.updating`, and ``zeros_like`` and its kind:
what they make of a traced array is on its tape, so traced values can be written into it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.indexing import basic, parsed
from nbad.rules.shaping import as_operand, holds_traced, ravel, reshape, shape_of
from nbad.rules.updating import constant_on, fitting, setitem, write_at
from nbad.table import BINDINGS, binds
from nbad.trace import Traced, cast, is_traced, plain, underlying
from nbad.writing import TAKES_LIKE, check_cast, check_writable

_ndarray = np.ndarray
_FLOATING = tuple(map(np.dtype, "fdFD"))


# NumPy's functions that write ---------------------------------------------------------------------
def at(ufunc: np.ufunc, target: Any, index: Any, *values: Any) -> None:
    """Perform ``ufunc.at``: of additions and subtractions, which pass their cotangents on however often an element is met."""
    if ufunc not in (np.add, np.subtract):
        raise NoRuleError.of(
            f"np.{ufunc.__name__}.at",
            at=user_line(),
            instead="If no element is met twice, write y[index] = function(y[index], value).",
        )
    check_plain(f"np.{ufunc.__name__}.at", target)
    value = as_operand(values[0])
    if ufunc is np.subtract:
        value = -value
    owner, path = check_writable(target)
    check_cast(f"ufunc {ufunc.__name__!r} output", value, target.dtype)
    if basic(index) is not None:
        setitem(target, index, target[index] + value)
        return
    template, arrays, unique = parsed(index)
    write_at(owner, path, fitting(value, owner, path), template, arrays, unique=unique, add=True)


BINDINGS[np.ufunc.at] = at


def check_plain(name: str, target: Any) -> None:
    """Raise if the array that a function writes into is a plain one: a derivative would be lost."""
    if not is_traced(target):
        raise NoRuleError.of(
            f"{name} into a plain array",
            at=user_line(),
            instead="Make that array with np.zeros_like(x) or np.empty_like(x), where x is traced; in place of np.full write "
            "np.full_like(x, value) or np.broadcast_to(value, shape).",
        )


def _repeated(values: Any, count: int) -> Any:
    """Return `count` elements: those of `values`, again and again."""
    flat = ravel(values)
    size = shape_of(flat)[0]
    return flat if size == count or count == 0 else flat[np.arange(count) % size]


def unravelled(places: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return index arrays for numbers of elements in C order."""
    found = []
    for n in reversed(shape):
        found.append(places % n)
        places = places // n
    return tuple(reversed(found))


@binds(np.put)
def put_numbers(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    check_plain("np.put", a)
    size = math.prod(shape_of(a))
    places = ravel(ind) if holds_traced(ind) else np.asarray(ind).astype(np.intp, casting="same_kind").ravel()
    if mode == "clip":
        places = np.clip(places, 0, size - 1)
    elif mode == "raise" and (bad := plain(np.any((places < -size) | (places >= size)))):
        raise IndexError(f"an index is out of bounds for an array of {size} elements: {bad}")
    count = math.prod(shape_of(places))
    if count and math.prod(shape_of(v)):
        setitem(a, unravelled(places % size, shape_of(a)), _repeated(v, count))


@binds(np.place)
def place(arr: Any, mask: Any, vals: Any) -> None:
    check_plain("np.place", arr)
    mask = np.reshape(np.asarray(mask, bool), shape_of(arr))
    count = int(np.count_nonzero(mask))
    if count and not math.prod(shape_of(vals)):
        raise ValueError("Cannot insert from an empty array!")
    if count:
        values = _repeated(vals, count)
        setitem(arr, mask, values[:count])


@binds(np.putmask)
def putmask(a: Any, /, mask: Any, values: Any) -> None:
    check_plain("np.putmask", a)
    new = reshape(_repeated(values, math.prod(shape_of(a))), shape_of(a))
    setitem(a, (Ellipsis,), np.where(np.reshape(mask, shape_of(a)), new, a))


@binds(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    check_plain("np.copyto", dst)
    src = as_operand(src)
    found = src.dtype if hasattr(src, "dtype") else src
    if hasattr(src, "dtype") and not np.can_cast(found, dst.dtype, casting):
        raise TypeError(
            f"Cannot cast array data from {found!r} to {dst.dtype!r} according to the rule {casting!r}"
        )
    setitem(dst, (Ellipsis,), src if where is True else np.where(where, src, dst))


@binds(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    check_plain("np.fill_diagonal", a)
    shape = shape_of(a)
    if len(shape) < 2:
        raise ValueError("array must be at least 2-d")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ValueError("All dimensions of input must be of equal length")
    step = shape[1] + 1 if len(shape) == 2 else 1 + int(np.cumprod(shape[:-1]).sum())
    end = None if wrap or len(shape) > 2 else shape[1] * shape[1]
    places = np.arange(math.prod(shape))[:end:step]
    setitem(a, np.unravel_index(places, shape), _repeated(val, places.size))


@binds(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None = -1) -> None:
    check_plain("np.put_along_axis", arr)
    numbers = np.arange(math.prod(shape_of(arr))).reshape(shape_of(arr))
    places = np.take_along_axis(numbers, indices, axis)
    setitem(arr, unravelled(places, shape_of(arr)), values)


# New arrays ---------------------------------------------------------------------------------------
def fresh(model: Any, made: Any) -> Any:
    """Return a new plain array as one that traced values can be written into, on the tape of `model`."""
    if not is_traced(model):
        return made
    tape = model._tape
    if tape.closed:
        plain(model)  # raises, naming the line
    if not tape.records and made.dtype.newbyteorder("=") not in _FLOATING:
        return made  # it carries no derivative
    return Traced(made, constant_on(tape, made), tape)


@binds(np.zeros_like)
def zeros_like(a: Any, *args: Any, **kwargs: Any) -> Any:
    return fresh(a, np.zeros_like(underlying(a), *args, **kwargs))


@binds(np.ones_like)
def ones_like(a: Any, *args: Any, **kwargs: Any) -> Any:
    return fresh(a, np.ones_like(underlying(a), *args, **kwargs))


@binds(np.empty_like)
def empty_like(a: Any, *args: Any, **kwargs: Any) -> Any:
    return fresh(a, np.zeros_like(underlying(a), *args, **kwargs))  # a replay must find the same contents


@binds(np.full_like)
def full_like(a: Any, fill_value: Any, *args: Any, **kwargs: Any) -> Any:
    made = np.zeros_like(underlying(a), *args, **kwargs)
    if not is_traced(fill_value):
        made[...] = fill_value
        return fresh(a, made)
    return _filled(made, fill_value)


def _filled(made: np.ndarray, fill_value: Any) -> Any:
    """Return a new array filled with a traced value; the real part of it where the array is real, as NumPy takes it."""
    value = np.real(fill_value) if made.dtype.kind != "c" else fill_value
    found = fresh(value, made)
    if not is_traced(found):
        return np.broadcast_to(cast(value, made.dtype), made.shape)
    setitem(found, (Ellipsis,), value)
    return found


def _bind_like(function: Callable[..., Any]) -> None:
    """Bind a function that makes an array, reached with a traced ``like=``."""

    def make(*args: Any, like: Any, **kwargs: Any) -> Any:
        return fresh(like, function(*args, **kwargs))

    BINDINGS[function] = make
    TAKES_LIKE.add(function)


for _function in (
    np.zeros, np.ones, np.empty, np.eye, np.identity, np.tri, np.arange, np.frombuffer, np.fromfile, np.fromfunction,
    np.fromiter, np.fromstring, np.genfromtxt, np.loadtxt,
):  # fmt: skip
    _bind_like(_function)


@binds(np.full)
def full(
    shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", *, device: Any = None, like: Any
) -> Any:
    if not is_traced(fill_value):
        return fresh(like, np.full(shape, fill_value, dtype, order))
    return _filled(np.zeros(shape, fill_value.dtype if dtype is None else dtype, order), fill_value)


@binds(np.array)
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    like: Any,
) -> Any:
    found = as_operand(object)
    if not is_traced(found):
        return fresh(like, np.array(found, dtype, order=order, ndmin=ndmin))
    if dtype is not None and np.dtype(dtype) != found.dtype:
        found = cast(found, np.dtype(dtype))
    elif copy and found is object:
        found = np.copy(found)
    return reshape(found, (1,) * (ndmin - len(shape_of(found))) + shape_of(found))


@binds(np.asarray, np.asanyarray)
def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, device: Any = None, copy: Any = None, like: Any
) -> Any:
    return array(a, dtype, copy=bool(copy), like=like)


@binds(np.ascontiguousarray, np.asfortranarray)
def ordered_array(a: Any, dtype: Any = None, *, like: Any) -> Any:
    return array(a, dtype, copy=False, ndmin=1, like=like)


@binds(np.require)
def require(a: Any, dtype: Any = None, requirements: Any = None, *, like: Any) -> Any:
    return array(a, dtype, copy=False, like=like)


TAKES_LIKE.update(
    (np.full, np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray, np.require)
)


@binds(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    value = underlying(a)
    if type(value) is _ndarray and value.ndim == 0:
        return _filled(
            np.zeros((), value.dtype), a
        )  # a ufunc makes a number of it, which cannot be written to
    made = np.positive(a)
    if type(value) is not _ndarray or value.ndim < 2 or order == "K":
        return made
    if order == "F" or (order == "A" and value.flags.fnc):
        new, done = np.zeros(value.shape, value.dtype, "F"), value.flags.f_contiguous
    else:
        new, done = np.zeros(value.shape, value.dtype), value.flags.c_contiguous
    return made if done else _filled(new, made)
