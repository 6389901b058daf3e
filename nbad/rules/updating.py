"""Updating: arrays that are written in place.

Owns the rows `write` (at ints and slices) and `write_at` (at index arrays; it may add), and what assignments and augmented
assignments become: a node whose output is the whole array after the write. No pullback reads a value, so a loop of writes
keeps nothing; the plain array is changed where it stands if nobody else refers to it, and so is its cotangent (`Cleared`).
"""

import math
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nbad.errors import EscapedTraceError
from nbad.keeping import root_of
from nbad.kernels import memory
from nbad.methods import user_line
from nbad.pulling import Cleared
from nbad.recorder import add_node, constant_slot
from nbad.rules.indexing import basic, filled, gather, parsed
from nbad.rules.shaping import as_operand, reshape, shape_of
from nbad.table import BINDINGS, Keep, Op, operation
from nbad.tape import Tape
from nbad.trace import Traced, append, apply, cast, is_traced, plain, underlying
from nbad.writing import Path, check_cast, check_writable, follow, outdate, owner_of, snapshot

_ndarray = np.ndarray


# Rows ---------------------------------------------------------------------------------------------
def _seen(op: Op, x: Any, **attributes: Any) -> Any:
    return op.forward(x, **attributes)


def put(y: np.ndarray, path: Path, index: Any, v: Any, *, add: bool = False) -> None:
    """Write `v` into `y` at `index` of its view at the end of `path`, or add it there."""
    place = follow(y, path, _seen) if path else y
    if add:
        np.add.at(place, index, v)
    else:
        place[index] = v
    if place.size and any(step[0] == "reshape" for step in path) and not np.may_share_memory(place, y):
        # Here the elements have another order than where the program ran first: `place` is a copy.
        names = [step[0] for step in path]
        part = y.real if "real" in names else y.imag if "imag" in names else y
        np.put(part, _numbers(y.shape, path), place)


def _numbers(shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Return which elements of an array of `shape` its view at the end of `path` shows."""
    numbers = np.arange(math.prod(shape)).reshape(shape)
    found: np.ndarray = follow(numbers, tuple(s for s in path if s[0] not in ("real", "imag")), _seen)
    return found


def _copied(x: np.ndarray) -> np.ndarray:
    """Return a copy of `x` with the layout that NumPy's would have."""
    if not x.flags.c_contiguous:
        return np.array(x, order="K")
    y = memory.empty(x.shape, x.dtype)
    y[...] = x
    return y


def write_forward(x: Any, v: Any, *, path: Path, index: tuple[Any, ...]) -> Any:
    """Return `x` with `v` at an index of ints, slices, None and Ellipsis of one of its views."""
    if is_traced(x) or is_traced(v):
        return apply(WRITE, x, v, path=path, index=index)
    y = _copied(x)
    put(y, path, index, v)
    return y


def write_x(g: Any, path: Path, index: tuple[Any, ...]) -> Any:
    return apply(WRITE, g, 0.0, path=path, index=index)


def write_v(g: Any, path: Path, index: tuple[Any, ...]) -> Any:
    return follow(g, path, apply)[index]


class _WriteKernel:
    """The forward of `write`, and its pullbacks as changes of the cotangent."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the array after the write."""
        return write_forward(*operands, **attributes), {}

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, Any]:
        """Return the cotangent of what was written, before it is cleared in that of the array."""
        path, index = attributes["path"], attributes["index"]
        found: dict[int, Any] = {}
        if 1 in asked:
            part = follow(g, path, _seen)[index]
            found[1] = np.array(part) if 0 in asked else part
        if 0 in asked:
            found[0] = Cleared(put, path, index)
        return found


def write_at_forward(*xs: Any, path: Path, template: tuple[Any, ...], unique: bool, add: bool) -> Any:
    """Return the first operand with the second at an index with arrays, the others, of one of its views; or added there."""
    if any(map(is_traced, xs)):
        return apply(WRITE_AT, *xs, path=path, template=template, unique=unique, add=add)
    y = _copied(xs[0])
    put(y, path, filled(template, xs[2:]), xs[1], add=add)
    return y


def places_of(xs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return copies of the index arrays: the caller may write into his own before the sweep."""
    return tuple(i if is_traced(i) else np.array(i) for i in xs[2:])


def winners_forward(*xs: Any, shape: tuple[int, ...], path: Path, template: tuple[Any, ...]) -> Any:
    """Return which of the elements written at an index with arrays, the operands, are not overwritten by later ones."""
    place = np.array(_numbers(shape, path))
    index = filled(template, xs)
    order = np.arange(place[index].size).reshape(place[index].shape)
    place[index] = order
    return place[index] == order


def write_at_xs(
    g: Any, k: int, places: tuple[Any, ...], path: Path, template: tuple[Any, ...], unique: bool, add: bool
) -> Any:
    if k == 0:
        return (
            g
            if add
            else apply(WRITE_AT, g, 0.0, *places, path=path, template=template, unique=True, add=False)
        )
    taken = gather(follow(g, path, apply), template, places, unique=unique)
    if unique or add:
        return taken
    last = apply(WINNERS, *places, shape=shape_of(g), path=path, template=template)
    return np.where(last, taken, 0)


class _WriteAtKernel:
    """The forward of `write_at`, and its pullbacks as changes of the cotangent."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the array after the write and, if wanted, copies of the index arrays."""
        return write_at_forward(*operands, **attributes), {"places": places_of(operands)} if wanted else {}

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, Any]:
        """Return the cotangent of what was written, before it is cleared in that of the array."""
        path, template, places = attributes["path"], attributes["template"], shared["places"]
        index = filled(template, places)
        found: dict[int, Any] = {}
        if 1 in asked:
            found[1] = follow(g, path, _seen)[index]  # a copy
            if not (attributes["unique"] or attributes["add"]):
                last = winners_forward(*places, shape=g.shape, path=path, template=template)
                found[1] = np.where(last, found[1], 0)
        if 0 in asked:
            found[0] = g if attributes["add"] else Cleared(put, path, index)
        return found


WRITE = operation(write_forward, x=write_x, v=write_v, kernel=_WriteKernel(), linear=True)
WRITE_AT = operation(write_at_forward, shared={"places": places_of}, xs=write_at_xs, kernel=_WriteAtKernel())
WINNERS = operation(winners_forward)


# From what the user writes to a node --------------------------------------------------------------
class _Holder:
    __slots__ = ("_value",)


def _count_single() -> int:
    """Return what `sys.getrefcount` says of an object that only a slot refers to."""
    holder = _Holder()
    holder._value = np.empty(1)  # type: ignore[attr-defined]
    return sys.getrefcount(holder._value)  # type: ignore[attr-defined]


_SINGLE = _count_single()
_NOTHING = Keep((), False, ())


def _is_alone(owner: Any) -> bool:
    """Return whether nobody but `owner` refers to the plain array under it, so that nobody sees a write into it."""
    if sys.getrefcount(owner._value) != _SINGLE:
        return False
    return bool(owner._value.flags.writeable) and memory.is_alone(owner._value)


def _is_whole(index: tuple[Any, ...]) -> bool:
    return all(item is Ellipsis or item == slice(None) for item in index if item is not None)


def setitem(target: Traced, index: Any, value: Any) -> None:
    """Write `value` into the traced `target` at `index` (what `Traced` does for ``target[index] = value``)."""
    owner, path = check_writable(target)
    key = basic(index)
    if key is not None:
        if is_traced(value) and _is_view_at(value, owner, (*path, ("getitem", key))):
            return  # y[1:] += z: the view has been written already, and Python stores it where it is
        if shape_of(value) and len(key) == len(shape_of(target)) and all(isinstance(i, int) for i in key):
            np.zeros(())[()] = np.zeros(shape_of(value))  # what NumPy says of a sequence for one element
        _write(owner, WRITE, (fitting(value, owner, path),), {"path": path, "index": key})
        return
    template, arrays, unique = parsed(index)
    one = len(shape_of(value)) > 1 and len(template) == len(arrays) == 1
    if one and arrays[0].dtype == np.bool_ and arrays[0].ndim == target.ndim:
        raise ValueError("NumPy boolean array indexing assignment requires a 0 or 1-dimensional input")
    write_at(owner, path, fitting(value, owner, path), template, arrays, unique=unique, add=False)


BINDINGS[operator.setitem] = setitem


def _is_view_at(value: Traced, owner: Any, path: Path) -> bool:
    found, there = owner_of(value)
    return found is owner and there == path


def write_at(
    owner: Any, path: Path, value: Any, template: Any, arrays: Any, *, unique: bool, add: bool
) -> None:
    """Write or add `value` at an index with arrays."""
    attributes = {"path": path, "template": tuple(template), "unique": unique, "add": add}
    _write(owner, WRITE_AT, (value, *arrays), attributes)


def fitting(value: Any, owner: Any, path: Path) -> Any:
    """Return what is to be written, as an operand that the array can hold.

    Raises
    ------
    EscapedTraceError
        A value of an inner transformation, written into an array of an outer one.
    TypeError
        Complex numbers for a real array.
    """
    value = as_operand(value)
    plainly = underlying(value)
    found = plainly.dtype if isinstance(plainly, (_ndarray, np.generic)) else np.result_type(type(plainly))
    held = underlying(owner).dtype
    if found.kind == "c" and (held.kind != "c" or any(step[0] in ("real", "imag") for step in path)):
        raise TypeError(
            "complex numbers cannot be written into a real array: take .real, or make the array complex"
        )
    if is_traced(value):
        if value._tape.level > owner._tape.level:
            raise EscapedTraceError(
                "a value of an inner transformation was written into an array that was made outside of it",
                at=user_line(),
                fix="Make the array inside the inner function, and return it (through has_aux=True).",
            )
        if held.kind not in "fc" and found.kind in "fc":
            value = cast(value, held)
    shape = shape_of(value)
    if shape and shape[0] == 1:  # NumPy takes leading dimensions that are too many, if they are of length one
        value = reshape(value, shape[next((d for d, n in enumerate(shape) if n != 1), len(shape)) :])
    return value


def _write(owner: Any, op: Op, others: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    """Perform a write: bind `owner` to the output of a new node."""
    tape = owner._tape
    if tape.closed:
        plain(owner)  # raises, naming the line
    others = tuple(map(snapshot, others))  # they may be views of what is written
    values = [x._value if type(x) is Traced and x._tape is tape else x for x in others]
    outdate(owner)
    whole = op is WRITE and not attributes["path"] and _is_whole(attributes["index"])
    if type(owner._value) is not _ndarray or Traced in map(type, values):
        first = np.zeros_like(underlying(owner)) if whole else owner
        made = apply(op, first, *others, **attributes)
        if type(made) is Traced and made._tape is tape:
            owner._slot, owner._value = made._slot, made._value
        else:  # nothing of this tape is left in it
            owner._slot, owner._value = constant_on(tape, made), made
        return
    y = owner._value if _is_alone(owner) else None
    if y is None:
        y = _copied(owner._value)
    index = attributes["index"] if op is WRITE else filled(attributes["template"], tuple(values[1:]))
    put(y, attributes["path"], index, values[0], add=attributes.get("add", False))
    tape.written.add(id(root_of(y)))
    if tape.records:
        first = np.broadcast_to(np.zeros((), y.dtype), y.shape) if whole else owner
        owner._slot = add_node(tape, op, (first, *others), attributes, (y,))[0]
    else:
        first = 0.0 if whole else owner
        shared = ((0, places_of((y, *values))),) if op is WRITE_AT else ()
        owner._slot = append(tape, op, (first, *others), (), 0, _NOTHING, (y,), attributes, shared)._slot
    owner._value = y


def constant_on(tape: Tape, value: Any) -> int:
    """Return a slot of an array that depends on nothing of this tape, and may be written."""
    if tape.records:
        return constant_slot(tape, snapshot(value) if is_traced(value) else _constant(value), -1)
    return tape.add_slot(value.dtype, value.shape)


def _constant(made: np.ndarray) -> np.ndarray:
    """Return what a recording holds of an array: one element for all, where they are equal, else a copy."""
    first = made[(0,) * made.ndim] if made.size else np.zeros((), made.dtype)[()]
    if (made == first).all():
        return np.broadcast_to(first, made.shape)
    return made.copy()


def augmented(by: Callable[[Any, Any], Any], target: Any, other: Any) -> Any:
    """Perform ``target += other`` and the like; `by` is the operator."""
    if not isinstance(underlying(target), _ndarray):
        return by(target, other)  # numbers do not change
    owner, path = check_writable(target)
    result = by(target, other)
    if shape_of(result) != target.shape:
        raise ValueError(
            f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape "
            f"{shape_of(result)}"
        )
    check_cast(f"ufunc {by.__name__.strip('_')!r} output", result, target.dtype)
    if path == () and type(result) is Traced and result._tape is owner._tape and _is_alike(result, owner):
        outdate(owner)
        owner._slot, owner._value = result._slot, result._value
    else:
        setitem(target, (Ellipsis,), result)
    return target


BINDINGS[operator.iadd] = augmented


def _is_alike(a: Any, b: Any) -> bool:
    """Return whether two arrays have one dtype and one layout."""
    one, two = underlying(a), underlying(b)
    return type(one) is _ndarray and one.dtype == two.dtype and one.strides == two.strides
