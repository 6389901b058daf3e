"""Indexing: basic, advanced, and the functions that take elements by position.

Owns two adjoint pairs: `getitem` and `scatter` for an index of ints, slices, None and Ellipsis, which is an attribute, and
`gather` and `scatter_add` for one with integer or boolean arrays, which are operands that carry no derivative. At first
order the cotangent of an index is not an array of the operand's size: the engine adds it in place (`Scattered`).
"""

import math
import operator
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbad.constants import note_count, plainly
from nbad.errors import DetachError
from nbad.methods import user_frame, user_line
from nbad.pulling import Scattered
from nbad.rules.shaping import (
    along,
    as_operand,
    axis_index,
    holds_traced,
    ravel,
    refuse_out,
    shape_of,
)
from nbad.table import BINDINGS, binds, constant, forward_only, metadata, operation
from nbad.tape import encode
from nbad.trace import Traced, apply, carries_derivative, cast, is_traced, plain, underlying
from nbad.writing import link, makes_views

#: Stands in the attribute of `gather` where the next index array belongs.
ARRAY = "array"
_ndarray = np.ndarray
_getframe = sys._getframe


# Basic indexing -----------------------------------------------------------------------------------
def getitem_forward(x: Any, *, index: tuple[Any, ...]) -> Any:
    """Return the elements at an index of ints, slices, None and Ellipsis."""
    return x[index]


def getitem_x(g: Any, x_shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    return apply(SCATTER, g, index=index, shape=x_shape)


class _BasicKernel:
    """The forward of `getitem`, and its pullback as something to add in place."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the elements."""
        return operands[0][attributes["index"]], {}

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, Any]:
        """Return what to add where."""
        return {0: Scattered(attributes["index"], g, True)}


def scatter_forward(x: Any, *, index: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """Return an array of zeros with `x` at an index of ints, slices, None and Ellipsis."""
    if is_traced(x):
        return apply(SCATTER, x, index=index, shape=shape)
    y = np.zeros(shape, np.result_type(x))
    y[index] = x
    return y


def scatter_x(g: Any, index: tuple[Any, ...]) -> Any:
    return g[index]


# Advanced indexing --------------------------------------------------------------------------------
def gather_forward(*xs: Any, template: tuple[Any, ...], unique: bool) -> Any:
    """Return the elements of the first operand at an index with arrays, which are the other operands."""
    return xs[0][filled(template, xs[1:])]


def places_of(xs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return copies of the index arrays: the caller may write into his own before the sweep."""
    return tuple(i if is_traced(i) else np.array(i) for i in xs[1:])


def gather_xs(
    g: Any, places: tuple[Any, ...], xs_shapes: Any, template: tuple[Any, ...], unique: bool
) -> Any:
    return apply(SCATTER_ADD, g, *places, template=template, unique=unique, shape=xs_shapes[0])


class _AdvancedKernel:
    """The forward of `gather`, and its pullback as something to add in place."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the elements and, if wanted, copies of the index arrays."""
        made = {"places": places_of(operands)} if wanted else {}
        return gather_forward(*operands, **attributes), made

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, Any]:
        """Return what to add where."""
        return {0: Scattered(filled(attributes["template"], shared["places"]), g, attributes["unique"])}


def scatter_add_forward(*xs: Any, template: tuple[Any, ...], unique: bool, shape: tuple[int, ...]) -> Any:
    """Return an array of zeros to which the first operand was added at an index with arrays."""
    if is_traced(xs[0]):
        return apply(SCATTER_ADD, *xs, template=template, unique=unique, shape=shape)
    y = np.zeros(shape, np.result_type(xs[0]))
    Scattered(filled(template, xs[1:]), np.asarray(xs[0]), unique).add_to(y)
    return y


def scatter_add_xs(g: Any, places: tuple[Any, ...], template: tuple[Any, ...], unique: bool) -> Any:
    return apply(GATHER, g, *places, template=template, unique=unique)


GETITEM = operation(getitem_forward, x=getitem_x, kernel=_BasicKernel(), linear=True)
SCATTER = operation(scatter_forward, x=scatter_x, linear=True)
GATHER = operation(gather_forward, shared={"places": places_of}, xs=gather_xs, kernel=_AdvancedKernel())
SCATTER_ADD = operation(scatter_add_forward, shared={"places": places_of}, xs=scatter_add_xs)
DELETE, INSERT, BINCOUNT = forward_only(np.delete), forward_only(np.insert), forward_only(np.bincount)


# From what the user writes to attributes and operands ---------------------------------------------
def filled(template: tuple[Any, ...], arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the index that `template` stands for."""
    left = iter(arrays)
    return tuple(next(left) if type(item) is str else item for item in template)


def basic(index: Any) -> tuple[Any, ...] | None:
    """Return `index` as a tuple of ints, slices, None and Ellipsis; None where it holds more than these."""
    found = []
    for item in index if isinstance(index, tuple) else (index,):
        kind = type(item)
        if kind is slice:
            item = slice(*(i if i is None else operator.index(i) for i in (item.start, item.stop, item.step)))
        elif kind is Traced:
            return None
        elif isinstance(item, np.integer) or (
            kind is _ndarray and item.ndim == 0 and item.dtype.kind in "iu"
        ):
            item = int(item)
        elif not (kind is int or item is None or item is Ellipsis):
            return None
        found.append(item)
    return tuple(found)


def _is_plain(index: slice) -> bool:
    start, stop, step = index.start, index.stop, index.step
    return (
        (start is None or type(start) is int)
        and (stop is None or type(stop) is int)
        and (step is None or type(step) is int)
    )


def getitem(x: Traced, index: Any) -> Any:
    """Return the elements of the traced `x` at `index` (what `Traced` does for square brackets)."""
    kind = type(index)
    if kind is int or (kind is slice and _is_plain(index)):
        key: tuple[Any, ...] | None = (index,)
    else:
        key = basic(index)
        if key is None:
            return advanced(x, index)
    tape = x._tape
    if tape.closed:
        plain(x)  # raises, naming the line
    if tape.records:
        made = apply(GETITEM, x, index=key)
        return link(made, x, "getitem", key) if type(underlying(made)) is _ndarray else made
    y = x._value[key]
    if type(y) is Traced:
        tape.nested = True
    # What `apply` does, spelled out: loops over elements and slices are common.
    frame = _getframe(2)
    line = tape.code_ids.get(id(frame.f_code) << 24 | frame.f_lasti)
    if line is None or line < 0:
        found = user_frame()
        line = -1 if found is None else tape.line_of(found.f_code, found.f_lasti)
    encode(key, tape.attr)
    tape.attr_node.append(len(tape.op))
    tape.attr_end.append(len(tape.attr))
    tape.edge_slot.append(x._slot)
    tape.op.append(GETITEM.opcode)
    tape.line.append(line)
    slot = len(tape.objects)
    tape.out_start.append(slot)
    dtype, shape = y.dtype, y.shape
    if dtype is tape.last_dtype and shape == tape.last_shape:
        tape.aval.append(tape.last_aval)
    else:
        tape.aval.append(tape.aval_of(dtype, shape))
    tape.objects.append(None)
    tape.ref.append(0)
    made = Traced(y, slot, tape)
    if type(y) is _ndarray or (type(y) is Traced and type(underlying(y)) is _ndarray):
        link(made, x, "getitem", key)
    return made


BINDINGS[operator.getitem] = getitem
makes_views(GETITEM)


def advanced(x: Any, index: Any) -> Any:
    """Return the elements of `x` at an index that holds arrays, lists or truth values."""
    template, arrays, unique = parsed(index)
    for array in arrays:
        if array.dtype.kind == "b":
            note_count(array)
    return gather(x, template, arrays, unique=unique)


def parsed(index: Any) -> tuple[list[Any], list[Any], bool]:
    """Return an index as a template, the arrays that belong into it, and whether they name no element twice."""
    template: list[Any] = []
    arrays = []
    unique = True
    for item in index if isinstance(index, tuple) else (index,):
        kind = type(item)
        if kind is slice or item is None or item is Ellipsis:
            template.extend(basic(item) or ())
            continue
        array = _as_places(item)
        if array.size == 0 and kind is not _ndarray and kind is not Traced:
            array = array.astype(np.intp)  # NumPy takes an empty list as one of integers
        if array.dtype.kind not in "iub":
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays "
                f"are valid indices, not an array of dtype {array.dtype}"
            )
        if array.ndim == 0 and not is_traced(array):
            template.append(array.item())
            continue
        unique = unique and (array.dtype.kind == "b" or array.size < 2)
        template.append(ARRAY)
        arrays.append(array)
    return template, arrays, unique


def _as_places(item: Any) -> Any:
    """Return an index as an array, recorded where it is; one that carries a derivative is none."""
    found = as_operand(item) if holds_traced(item) else np.asarray(item)
    if carries_derivative(found):
        raise DetachError.of(
            "an index", at=user_line(), instead="Indices are integers: use np.rint(x).astype(int)."
        )
    return found


def gather(x: Any, template: Any, arrays: Any, *, unique: bool) -> Any:
    """Return ``x[index]``, where `index` is `template` with `arrays` in it; `unique` says that no element is taken twice."""
    return apply(GATHER, x, *arrays, template=tuple(template), unique=unique)


def gather_along(x: Any, places: np.ndarray, axis: int, *, unique: bool) -> Any:
    """Return the elements of `x` at `places` along `axis`; `places` may have any shape."""
    return gather(x, along(axis, ARRAY), (places,), unique=unique)


# Functions that take elements ---------------------------------------------------------------------
@binds(np.take)
def take(a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise") -> Any:
    refuse_out("take", out)
    a = as_operand(a)
    if axis is None:
        a, axis = ravel(a), 0
    axis = axis_index(axis, len(shape_of(a)))
    places: Any = integer_places(indices)
    length = shape_of(a)[axis]
    if mode == "wrap":
        places = np.mod(places, length)
    elif mode == "clip":
        places = np.clip(places, 0, length - 1)
    elif mode != "raise":
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    return gather_along(a, places, axis, unique=places.size < 2)


def integer_places(indices: Any) -> Any:
    """Return `indices` as an array of integers."""
    found = _as_places(indices)
    if is_traced(found) and found.dtype.kind in "iub":
        return found if found.dtype == np.intp else cast(found, np.dtype(np.intp))
    return found.astype(np.intp, casting="same_kind" if found.size else "unsafe")


def _fancy(places: np.ndarray, axis: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return the index arrays of ``take_along_axis`` from an array of this shape."""
    return [
        places if d == axis else np.arange(n).reshape((1,) * d + (-1,) + (1,) * (len(shape) - 1 - d))
        for d, n in enumerate(shape)
    ]


@binds(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    return take_along(as_operand(arr), integer_places(indices), axis, unique=False)


def take_along(a: Any, places: np.ndarray, axis: int | None, *, unique: bool) -> Any:
    if axis is None:
        if places.ndim != 1:
            raise ValueError("when axis=None, `indices` must have a single dimension.")
        a, axis = ravel(a), 0
    shape = shape_of(a)
    if len(shape) != places.ndim:
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    axis = axis_index(axis, len(shape))
    # A dimension of length one is broadcast in either, as in NumPy.
    whole = np.broadcast_shapes(places.shape, tuple(1 if d == axis else n for d, n in enumerate(shape)))
    fancy = _fancy(np.broadcast_to(places, whole), axis, shape)
    return gather(a, (ARRAY,) * len(shape), fancy, unique=unique)


@binds(np.sort)
def sort(
    a: Any,
    axis: int | None = -1,
    kind: Any = None,
    order: Any = None,
    *,
    stable: Any = None,
    descending: bool = False,
) -> Any:
    a = as_operand(a)
    if axis is None:
        a, axis = ravel(a), 0
    backwards: dict[str, Any] = {"descending": True} if descending else {}  # from NumPy 2.5 on
    return take_along(a, np.argsort(plain(a), axis, kind, stable=stable, **backwards), axis, unique=True)


@binds(np.compress)
def compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Any:
    refuse_out("compress", out)
    truth = _truth(condition)
    if truth.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    a = as_operand(a)
    if axis is None:
        a, axis = ravel(a), 0
    return gather_along(a, np.flatnonzero(truth), axis_index(axis, len(shape_of(a))), unique=True)


@binds(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    return gather_along(ravel(arr), np.flatnonzero(_truth(condition)), 0, unique=True)


def _truth(condition: Any) -> Any:
    """Return a condition as an array, recorded where it is."""
    condition = plain(condition)
    return condition if is_traced(condition) else np.asarray(condition)


@binds(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if not condlist:
        raise ValueError("select with an empty condition list is not possible")
    if any(_truth(c).dtype != np.bool_ for c in condlist):
        raise TypeError("invalid entry in condlist: should be boolean ndarray")
    result = as_operand(default)
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(plain(condition), as_operand(choice), result)
    return result


# Diagonals, insertion and deletion ----------------------------------------------------------------
def _on_diagonal(length: int, k: int) -> list[np.ndarray]:
    """Return row and column numbers of `length` elements of the diagonal `k`."""
    rows = np.arange(length)
    return [rows - min(k, 0), rows + max(k, 0)]


@binds(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    v = as_operand(v)
    shape = shape_of(v)
    k = operator.index(k)
    if len(shape) == 2:
        return np.diagonal(v, k)
    if len(shape) != 1:
        raise ValueError("Input must be 1- or 2-d.")
    n = shape[0] + abs(k)
    places = _on_diagonal(shape[0], k)
    return apply(SCATTER_ADD, v, *places, template=(ARRAY, ARRAY), unique=True, shape=(n, n))


@binds(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Any:
    return diag(ravel(v), k)


@binds(np.delete)
def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    a = as_operand(arr)
    if axis is None:
        a, axis = ravel(a), 0
    axis = axis_index(axis, len(shape_of(a)))
    places = plainly(np.delete, DELETE, np.arange(shape_of(a)[axis]), obj)
    return gather_along(a, places, axis, unique=True)


@binds(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    a, new = as_operand(arr), as_operand(values)
    if axis is None:
        a, axis = ravel(a), 0
    # NumPy inserts the numbers of the elements; the elements follow from one joined list.
    size, more = math.prod(shape_of(a)), math.prod(shape_of(new))
    numbers = np.arange(size).reshape(shape_of(a))
    more_numbers = size + np.arange(more).reshape(shape_of(new))
    found = plainly(np.insert, INSERT, numbers, obj, more_numbers, axis)
    pool = np.concatenate((ravel(a), ravel(new).astype(a.dtype)))
    return gather_along(pool, found, 0, unique=False)


@binds(np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    places = integer_places(x)
    if weights is None:
        return plainly(np.bincount, BINCOUNT, places, None, minlength)
    if places.ndim != 1 or (places < 0).any():
        return plainly(np.bincount, BINCOUNT, places)  # raises
    if shape_of(weights) != places.shape:
        raise ValueError("The weights and list don't have the same length.")
    if underlying(weights).dtype.kind == "c":
        raise TypeError(
            "Cannot cast array data from complex to real: weights of np.bincount are real numbers"
        )
    length = max(int(np.max(places, initial=-1)) + 1, minlength)
    weights = as_operand(weights)
    wide = weights.astype(np.float64)
    return apply(SCATTER_ADD, wide, places, template=(ARRAY,), unique=False, shape=(length,))


@binds(np.nonzero)
def nonzero(a: Any) -> Any:
    a = plain(a)
    if not is_traced(a):
        return np.nonzero(a)
    if a.ndim == 0:
        raise ValueError(
            "Calling nonzero on 0d arrays is not allowed. Use np.atleast_1d(scalar).nonzero() instead."
        )
    if a.ndim == 1:
        return (np.flatnonzero(a),)
    places = np.argwhere(a)
    return tuple(places[:, k] for k in range(a.ndim))


constant(
    np.flatnonzero, np.argwhere, np.searchsorted, np.digitize, np.argsort, np.argpartition, np.lexsort,
    np.argmax, np.argmin, np.nanargmax, np.nanargmin, np.count_nonzero, np.ravel_multi_index, np.isin,
    np.packbits, np.unpackbits,
)  # fmt: skip
metadata(np.tril_indices_from, np.triu_indices_from, np.diag_indices_from)
