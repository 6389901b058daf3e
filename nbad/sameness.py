"""Whether one Python value may stand in the place of another: the same object, or equal by type and bits.

Owns the comparison of values that a recording relies on. Must not call the user's code: no ``==`` of his classes, no ``repr``.
"""

from __future__ import annotations

import functools
import struct
from collections import deque
from collections.abc import Callable, Iterable
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

__all__ = ["MISSING", "SEQUENCES", "SETS", "contents_of", "dict_of", "items_of", "same", "slot_of"]

ATOMS: tuple[type, ...] = (bool, int, str, bytes, type(None), type(Ellipsis), range, slice, CodeType)
SEQUENCES: tuple[type, ...] = (list, deque)
SETS: tuple[type, ...] = (set, frozenset)


class _Missing:
    """What stands where nothing is."""


MISSING = _Missing()


def contents_of(cell: CellType) -> Any:
    """Return what a closure cell holds, or MISSING."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def slot_of(get: Callable[[Any], Any], value: Any) -> Any:
    """Return what the getter of a slot gives, or MISSING."""
    try:
        return get(value)
    except AttributeError:
        return MISSING


def dict_of(value: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes, if it has an ordinary one."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except Exception:
        return None
    return found if type(found) is dict else None


def items_of(value: Any) -> Iterable[Any]:
    """Return the items of a sequence, a set or an array of objects, as its class's C code iterates them."""
    kind = type(value)
    for base in (*SEQUENCES, tuple, *SETS):
        if issubclass(kind, base):
            items: Iterable[Any] = base.__iter__(value)  # type: ignore[attr-defined]
            return items
    flat: list[Any] = value.ravel().tolist()
    return flat


def same(old: Any, new: Any) -> bool:
    """Return whether `new` may stand in the place of `old`.

    Containers and functions are compared by what they hold now: the contents of `old` have a test of their own. Arrays and
    objects must be the same ones, because a recording holds on to them.

    Examples
    --------
    >>> same([1.0, float("nan")], [1.0, float("nan")]), same(0.0, -0.0), same(1, True)
    (True, False, False)
    """
    if old is new:
        return True
    pairs = [(old, new)]
    met: set[tuple[int, int]] = set()
    while pairs:
        old, new = pairs.pop()
        kind = type(old)
        if old is new or (id(old), id(new)) in met:
            continue
        if type(new) is not kind:
            return False
        if kind is float:
            if struct.pack("d", old) != struct.pack("d", new):
                return False
        elif kind is complex:
            if struct.pack("2d", old.real, old.imag) != struct.pack("2d", new.real, new.imag):
                return False
        elif kind in ATOMS:
            if kind is slice:
                pairs.extend(
                    zip((old.start, old.stop, old.step), (new.start, new.stop, new.step), strict=True)
                )
            elif old != new:
                return False
        elif issubclass(kind, np.generic):
            if old.dtype != new.dtype or old.dtype.hasobject or old.tobytes() != new.tobytes():
                return False
        else:
            parts = _compared_parts(kind, old, new)
            if parts is None:
                return False
            met.add((id(old), id(new)))
            pairs.extend(parts)
    return True


def _key(item: Any) -> tuple[Any, ...]:
    """Return what stands for an item of a set."""
    kind = type(item)
    if kind is float:
        return kind, struct.pack("d", item)
    return (kind, item) if kind in (int, bool, str, bytes) else (kind, id(item))


def _compared_parts(kind: type, old: Any, new: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of parts that must be the same for two containers or functions to be so, or None if they differ."""
    olds: tuple[Any, ...]
    news: tuple[Any, ...]
    if kind in (list, tuple, deque) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        olds, news = tuple(items_of(old)), tuple(items_of(new))
    elif kind is dict:
        olds, news = (*old, *old.values()), (*new, *new.values())
    elif kind in SETS:
        return [] if set(map(_key, items_of(old))) == set(map(_key, items_of(new))) else None
    elif kind is FunctionType:
        if old.__code__ != new.__code__ or old.__globals__ is not new.__globals__:
            return None
        olds = (old.__defaults__, old.__kwdefaults__, old.__dict__, *map(contents_of, old.__closure__ or ()))
        news = (new.__defaults__, new.__kwdefaults__, new.__dict__, *map(contents_of, new.__closure__ or ()))
    elif kind is MethodType:
        olds, news = (old.__func__, old.__self__), (new.__func__, new.__self__)
    elif kind is functools.partial:
        olds, news = (old.func, old.args, old.keywords), (new.func, new.args, new.keywords)
    else:
        return None
    return list(zip(olds, news, strict=True)) if len(olds) == len(news) else None
