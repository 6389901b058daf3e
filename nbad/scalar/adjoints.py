"""The adjoints of a sweep over the tape of a kernel: in pages, of which only those are memory that the sweep is at.

Owns the table of pages. A page has the adjoints of `PAGE` indices in a row. It is taken when something is first added to one of
them, and given back when the sweep is below them all; those of the inputs stay. So a loop whose steps depend on the
steps before needs a page or two, in the processor's nearest cache, however long its tape is.

An adjoint starts as -0.0, and what is added to it never is: so -0.0 says "nothing depends on this", which is skipped, and
an adjoint that is zero by its value is not: what is not reached cannot spoil the gradient, what is reached cannot hide a NaN.
"""

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import memory
from nbad.scalar.entries import load, load_float, store, store_float

__all__ = ["FREE", "LANES", "LOWEST", "PAGE", "SHIFT", "Adjoints", "leave", "page_of"]

Array = np.ndarray[Any, Any]

SHIFT = 9
PAGE = 1 << SHIFT
"""Indices of a page."""

ABSENT = 1
"""In the table: this page has no memory. Others have an address, a multiple of 8: of index 0, if the page went back to it."""

NEXT, FREE, LOWEST, LANES = range(0, 32, 8)
"""Where the state of `Adjoints` has, in bytes: the address of a free page, which begins with that of the next one; how many are
free; the lowest page that is given back; and lanes."""

SHORT = 1 << 19
"""Bytes: adjoints of entries that take no more are all there from the start, they fit into the processor's second cache."""

ENOUGH = 1 << 40
"""Free pages, where there are as many as the table has."""


@jit("int64(int64, int64, int64)")
def _take(page: int, table: int, state: int) -> Any:
    """Take a free page; return its address, as in the table."""
    at = load(state + NEXT)
    store(state + NEXT, load(at))
    store(state + FREE, load(state + FREE) - 1)
    size = 8 * PAGE * load(state + LANES)
    end = at + size
    base = at - size * page
    while at != end:
        store_float(at, -0.0)
        at += 8
    store(table + 8 * page, base)
    return base


@jit(inline="always")
def page_of(page: Any, table: Any, state: Any) -> Any:
    """Return the address of a page, as in the table; take one if it has none. The caller knows that one is free."""
    base = load(table + 8 * page)
    if base == ABSENT:
        base = _take(page, table, state)
    return base


@jit(inline="always")
def leave(page: Any, table: Any, state: Any) -> Any:
    """Give a page back, unless it is one that stays."""
    base = load(table + 8 * page)
    if page >= load(state + LOWEST) and base != ABSENT:
        at = base + 8 * PAGE * load(state + LANES) * page
        store(at, load(state + NEXT))
        store(state + NEXT, at)
        store(state + FREE, load(state + FREE) + 1)
        store(table + 8 * page, ABSENT)


@jit("void(int64, int64, int64, int64)")
def _leave_all(page: int, end: int, table: int, state: int) -> None:
    while page > end:
        leave(page, table, state)
        page -= 1


@jit("void(int64, int64, int64)")
def _provide(at: int, count: int, state: int) -> None:
    for _ in range(count):
        store(at, load(state + NEXT))
        store(state + NEXT, at)
        at += 8 * PAGE * load(state + LANES)
    store(state + FREE, load(state + FREE) + count)


@jit("int64(int64[::1], float64[:,::1], int64, int64, int64)")
def _add(indices: Array, values: Array, done: int, table: int, state: int) -> int:
    """Add values from position `done` on; return the position where pages are missing."""
    lanes = load(state + LANES)
    while done < indices.size and load(state + FREE) > 0:
        index = indices[done]
        at = page_of(index >> SHIFT, table, state) + 8 * lanes * index
        for s in range(lanes):
            store_float(at + 8 * s, load_float(at + 8 * s) + values[done, s])
        done += 1
    return done


@jit("void(int64, int64, float64[:,::1])")
def _read(first: int, table: int, out: Array) -> None:
    lanes = out.shape[1]
    for k in range(out.shape[0]):
        base = load(table + 8 * ((first + k) >> SHIFT))
        at = base + 8 * lanes * (first + k)
        for s in range(lanes):
            out[k, s] = -0.0 if base == ABSENT else load_float(at + 8 * s)


class Adjoints:
    """Adjoints of all indices of a tape, to which nothing was added.

    Attributes
    ----------
    inputs : ndarray, shape (at least 1 + inputs, lanes)
        Those of the inputs.
    table, state : int
        Addresses of the table of pages, and of what the sweep keeps up to date.
    lanes : int
        Components of an adjoint.
    in_a_row : bool
        The tape is short: `inputs` has all adjoints, of one lane, and there is no table.
    """

    __slots__ = ("_arenas", "_missing", "_state", "_table", "in_a_row", "inputs", "lanes", "state", "table")

    def __init__(self, inputs: int, entries: int, lanes: int) -> None:
        pages = 1 + (inputs + entries >> SHIFT)
        stay = 1 + (inputs >> SHIFT)
        if 8 * PAGE * lanes * (pages - stay) <= SHORT:
            stay = pages
        self.lanes, self.in_a_row = lanes, stay == pages and lanes == 1
        self.inputs = memory.empty((min(stay * PAGE, 1 + inputs + entries), lanes), np.float64)
        self.inputs.fill(-0.0)
        self._missing = pages - stay
        self._arenas: list[Array] = []
        self._table = self._state = np.zeros(0, np.int64)
        if self.in_a_row:
            return
        self._table = np.full(pages, ABSENT, np.int64)
        self._table[:stay] = self.inputs.ctypes.data
        self._state = np.array([0, 0 if self._missing else ENOUGH, stay, lanes], np.int64)
        self.table, self.state = self._table.ctypes.data, self._state.ctypes.data

    def need(self, count: int) -> None:
        """Provide for `count` pages to be taken; all that there may be, if that is less."""
        if not self._missing:
            return
        short = count - int(self._state[FREE // 8])
        if short > 0:
            held = sum(map(len, self._arenas))
            count = min(self._missing, max(short, held, 4))
            made = memory.empty((count, PAGE * self.lanes), np.float64)
            self._arenas.append(made)
            self._missing -= count
            if not self._missing:
                self._state[FREE // 8] += ENOUGH
            _provide(made.ctypes.data, count, self.state)

    def add(self, indices: Array, values: Array) -> None:
        """Add values, shape (n, lanes) or less lanes, at n indices."""
        if self.in_a_row:
            np.add.at(self.inputs, indices, values)
            return
        indices = np.ascontiguousarray(indices, np.int64)
        rows = np.full((indices.size, self.lanes), -0.0)
        rows[:, : values.shape[1]] = values
        done = 0
        while done < indices.size:
            self.need(1)
            done = _add(indices, rows, done, self.table, self.state)

    def rows(self, first: int, count: int) -> Array:
        """Return a copy of adjoints, shape (count, lanes)."""
        if self.in_a_row:
            return self.inputs[first : first + count].copy()
        made = np.empty((count, self.lanes))
        _read(first, self.table, made)
        return made

    def passed(self, before: int, after: int) -> None:
        """Give the pages back that the sweep is below of, when it goes from one index to another."""
        if not self.in_a_row:
            _leave_all(before >> SHIFT, after >> SHIFT, self.table, self.state)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.inputs.nbytes + self._table.nbytes + sum(one.nbytes for one in self._arenas)
