"""Whether what a Python function reads besides its arguments is still as it was.

Owns the snapshot that stands beside a recording, the tests that a replay makes before it trusts the recording, and the
watch over random generators. What a function reaches is found by `nbad.reach`.

Nearly all tests are one look-up and one ``is``. Values are compared by their bits only where another object stands in the
place of the first one; arrays are read as a whole, because they may have been written in place.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any, ClassVar

import numpy as np

from nbad.reach import Check, Checks, fill, print_of
from nbad.sameness import MISSING, contents_of, dict_of, items_of, same, slot_of

__all__ = ["Draws", "Hidden"]

#: Fingerprints by the ``id`` of an array.
Prints = dict[int, tuple[int, int]]


class Hidden(Checks):
    """A snapshot of what a function reads besides its arguments.

    Attributes
    ----------
    dropped : tuple of str
        What `stable` left out: the function changed it itself, so it cannot be watched.
    generators : list of (object, str)
        Random generators that the function reaches, and their names.
    """

    __slots__ = ("dropped", "rare")

    def __init__(self) -> None:
        super().__init__()
        self.dropped: tuple[str, ...] = ()
        self.rare = False

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Hidden:
        """Take a snapshot.

        Parameters
        ----------
        function : callable
            A Python function, a bound method, a partial application or an object with ``__call__``.

        Returns
        -------
        Hidden
            What the function reaches now.

        Examples
        --------
        >>> alpha = 2.0
        >>> def f(x):
        ...     return alpha * x
        >>> hidden = Hidden.of(f)
        >>> hidden.changed()
        >>> alpha = 3.0
        >>> hidden.changed()
        'the global alpha'
        """
        hidden = cls()
        fill(hidden, function)
        hidden.rare = any(getattr(hidden, name) for name in _RARE)
        return hidden

    def changed(self, known: Prints | None = None) -> str | None:
        """Name the first thing that differs from the snapshot.

        Parameters
        ----------
        known : dict, optional
            Fingerprints of arrays by ``id``, filled here: pass one empty dict to all snapshots that are asked at the same
            moment, and no array is read twice.

        Returns
        -------
        str or None
            ``the global psf``, ``the closure variable scale``, ``self.alpha`` and the like; None if all is as it was.
        """
        missing = MISSING
        try:
            for get, key, value, label in self.entries:
                if get(key, missing) is not value and not same(value, get(key, missing)):
                    return str(label)
            for cell, value, label in self.cells:
                if cell.cell_contents is not value and not same(value, cell.cell_contents):
                    return str(label)
            for function, code, defaults, label in self.functions:
                if function.__code__ is not code or function.__defaults__ is not defaults:
                    return str(label)
            if self.rare:
                for name, holds in _RARE.items():
                    for row in getattr(self, name):
                        if not holds(row):
                            return str(row[-1])
            for row in self.arrays:
                if not _array_holds(row, known):
                    return str(row[-1])
        except Exception:
            # An empty cell, an object that resists, a container that another thread changes just now.
            return next(self._differing(known), None)
        return None

    def matches(self, known: Prints | None = None) -> bool:
        """Return whether all is as it was; `known` as for `changed`."""
        return self.changed(known) is None

    def stable(self, known: Prints | None = None) -> Hidden:
        """Return the snapshot without what differs now.

        Taken before a call and asked after it, this leaves out what the function changed while it ran: a counter, a list that
        it appends to, an attribute that it sets. A replay does not repeat such side effects and cannot watch them.

        Returns
        -------
        Hidden
            The rest; its `dropped` names what was left out.
        """
        result = Hidden()
        dropped = []
        for name in _ALL:
            kept: list[Check] = getattr(result, name)
            for row in getattr(self, name):
                if _holds(name, row, known):
                    kept.append(row)
                else:
                    dropped.append(str(row[-1]))
        result.dropped = (*self.dropped, *dict.fromkeys(dropped))
        result.generators = list(self.generators)
        result.rare = any(getattr(result, name) for name in _RARE)
        return result

    def _differing(self, known: Prints | None) -> Iterator[str]:
        for name in _ALL:
            for row in getattr(self, name):
                if not _holds(name, row, known):
                    yield str(row[-1])

    def __len__(self) -> int:
        """Return the number of tests that `changed` makes."""
        return sum(len(getattr(self, name)) for name in _ALL)


def _holds(name: str, row: Check, known: Prints | None) -> bool:
    """Return whether one test still gives what it gave; a test that raises does not."""
    try:
        return _array_holds(row, known) if name == "arrays" else _TESTS[name](row)
    except Exception:
        return False


def _array_holds(row: Check, known: Prints | None) -> bool:
    value, dtype, shape, before, _ = row
    if value.shape != shape or value.dtype != dtype:
        return False
    if type(before) is bytes:
        return bool(value.tobytes() == before)
    if known is None:
        return bool(print_of(value) == before)
    now = known.get(id(value))
    if now is None:
        now = known[id(value)] = print_of(value)
    return bool(now == before)


def _entry_holds(row: Check) -> bool:
    get, key, value, _ = row
    return same(value, get(key, MISSING))


def _cell_holds(row: Check) -> bool:
    cell, value, _ = row
    return same(value, contents_of(cell))


def _function_holds(row: Check) -> bool:
    function, code, defaults, _ = row
    return bool(function.__code__ is code and function.__defaults__ is defaults)


def _object_holds(row: Check) -> bool:
    value, kind, attributes, _ = row
    return type(value) is kind and dict_of(value) is attributes


def _slot_holds(row: Check) -> bool:
    get, value, before, _ = row
    return same(before, slot_of(get, value))


def _sequence_holds(row: Check) -> bool:
    value, before, _ = row
    return len(value) == len(before) and _all_same(before, items_of(value))


def _dict_holds(row: Check) -> bool:
    value, keys, values, _ = row
    return (
        len(value) == len(keys)
        and _all_same(keys, tuple(dict.keys(value)))
        and _all_same(values, tuple(dict.values(value)))
    )


def _all_same(before: Iterable[Any], now: Iterable[Any]) -> bool:
    now = tuple(now)
    return all(map(is_, before, now)) or all(map(same, before, now))


def _names_are_absent(row: Check) -> bool:
    attributes, names, _ = row
    return bool(attributes.keys().isdisjoint(names))


def _buffer_holds(row: Check) -> bool:
    value, before, _ = row
    return bool(bytes(value) == before)


#: The tests that `changed` makes only where there are such rows.
_RARE: dict[str, Callable[[Check], bool]] = {
    "objects": _object_holds,
    "slots": _slot_holds,
    "sequences": _sequence_holds,
    "dicts": _dict_holds,
    "absent": _names_are_absent,
    "buffers": _buffer_holds,
}
_TESTS: dict[str, Callable[[Check], bool]] = {
    "entries": _entry_holds,
    "cells": _cell_holds,
    "functions": _function_holds,
    **_RARE,
}
_ALL = (*_TESTS, "arrays")


class Draws:
    """Whether random numbers were drawn between two moments.

    A recording keeps drawn numbers as constants, which nobody expects, so `nbad.compile` warns of it.
    """

    __slots__ = ("__weakref__", "_before", "_made")

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []
        self._made = 0

    @classmethod
    def of(cls, hidden: Hidden, values: Iterable[Any] = ()) -> Draws:
        """Take the state of NumPy's and Python's global generators, of those that `hidden` reached, and of any in `values`.

        Parameters
        ----------
        hidden : Hidden
            What the function reaches.
        values : iterable, optional
            Arguments of the call; what is not a generator is passed over.

        Returns
        -------
        Draws
            To be asked after the call.
        """
        draws = cls()
        found = [
            (np.random, "np.random"),
            (random, "random"),
            *hidden.generators,
            *((value, "a generator among the arguments") for value in values),
        ]
        for generator, name in found:
            state = _state_of(generator)
            if state is not None:
                draws._before.append((generator, name, state))
        return draws

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count the generators without a seed that are made inside: their numbers are new each time.

        NumPy's `RandomState` takes entropy even where it is given a seed, so it counts either way.
        """
        before = _Entropy.taken
        with _Entropy.lock:
            _Entropy.watchers.add(self)
            _GENERATORS.randbits = _take_entropy
        try:
            yield
        finally:
            with _Entropy.lock:
                _Entropy.watchers.discard(self)
                if not _Entropy.watchers:
                    _GENERATORS.randbits = _Entropy.source
            self._made = _Entropy.taken - before

    def made(self) -> str | None:
        """Name a generator that has drawn since, or None."""
        if self._made:
            return "a generator without a seed"
        for generator, name, before in self._before:
            if _state_of(generator) != before:
                return name
        return None


#: NumPy's module of bit generators, which imports what it seeds them with by this name.
_GENERATORS: Any = np.random.bit_generator


class _Entropy:
    """Where NumPy's generators take their seeds from when they are given none, while a recording is watched."""

    lock = threading.Lock()
    #: Weak, so that one whose end a Ctrl-C kept from being noted is not waited for.
    watchers: ClassVar[weakref.WeakSet[Draws]] = weakref.WeakSet()
    taken = 0
    source: Callable[[int], int] = _GENERATORS.randbits


def _take_entropy(bits: int) -> int:
    _Entropy.taken += 1
    return _Entropy.source(bits)


def _state_of(generator: Any) -> Any:
    """Return the state of a random generator as something comparable, None for anything else."""
    try:
        if generator is random or isinstance(generator, random.Random):
            return generator.getstate()
        if generator is np.random or isinstance(generator, np.random.RandomState):
            return _frozen(generator.get_state(legacy=False))
        if isinstance(generator, np.random.Generator):
            return _frozen(generator.bit_generator.state)
        if isinstance(generator, np.random.BitGenerator):
            return _frozen(generator.state)
    except Exception:  # random.SystemRandom has no state
        return None
    return None


def _frozen(state: Any) -> Any:
    if isinstance(state, dict):
        return tuple((key, _frozen(value)) for key, value in state.items())
    return state.tobytes() if isinstance(state, np.ndarray) else state
