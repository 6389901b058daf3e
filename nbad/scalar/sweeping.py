"""The sweep over the tape of a kernel.

Owns the jitted backward loop and the chunks of memory that tapes are made of.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.config import SETTINGS
from nbad.kernels import memory
from nbad.kernels.codelets import prefetch
from nbad.scalar.adjoints import FREE, LANES, PAGE, SHIFT, Adjoints, leave, page_of
from nbad.scalar.blocks import block_bytes, free_blocks, pull_block
from nbad.scalar.entries import (
    CHUNK,
    HEADER,
    WORD,
    allocate,
    free,
    load,
    load_float,
    load_word,
    store,
    store_float,
)

__all__ = ["Tape"]

PAIR = WORD + 8
"""Bytes of a pair, in one lane."""

AHEAD = 2048
"""Bytes from an entry that is swept to those that the processor is to fetch."""


@jit("int64()")
def _first_chunk() -> Any:
    """Return a chunk that no other is linked to."""
    chunk = allocate(CHUNK)
    store(chunk, 0)
    store(chunk + 8, 0)
    store(chunk + 24, 0)
    return chunk


@jit("int64(int64, int64)")
def _keep(first: int, chunks: int) -> int:
    """Give back all chunks after the first `chunks`, and what blocks left in these; return how many stay."""
    kept = 1
    chunk = first
    free_blocks(chunk)
    while kept < chunks and load(chunk) != 0:
        chunk = load(chunk)
        free_blocks(chunk)
        kept += 1
    rest = load(chunk)
    store(chunk, 0)
    while rest != 0:
        following = load(rest)
        free_blocks(rest)
        free(rest)
        rest = following
    return kept


@jit("void(int64)")
def _free_all(first: int) -> None:
    _keep(first, 1)
    free(first)


@jit(inline="always")
def _pull_short(at: Any, g: Any, index: Any, following: Any, adjoints: Any) -> Any:
    """Pull `g` along the pair at an address; return the adjoint of `index`, which is not in memory."""
    to = load_word(at)
    moved = load_float(at + WORD) * g
    # Adding 0.0 makes -0.0 a zero; the sum before is known earlier than what moves.
    if to == index:
        following = following + 0.0 + moved
    else:
        place = adjoints + 8 * to
        store_float(place, load_float(place) + 0.0 + moved)
    return following


@jit("UniTuple(int64, 3)(int64, int64, int64, int64, int64)")
def _sweep_short(chunk: int, end: int, index: int, most: int, adjoints: int) -> tuple[int, int, int]:
    """Sweep back over at most `most` chunks, and up to a block; all adjoints are in a row, index 0 is at address `adjoints`.

    A loop that goes on with what it computed last has its adjoint in a register, `following`. Two pairs are what most entries
    of such loops have.

    Returns
    -------
    tuple of int
        Chunk, end of its entries and index to go on from.
    """
    following = load_float(adjoints + 8 * index)
    for _ in range(most):
        begin = chunk + HEADER
        while end > begin:
            stop = end - WORD
            prefetch(stop - AHEAD)
            pairs = load_word(stop)
            if pairs == 0:
                store_float(adjoints + 8 * index, following)
                return chunk, end, index
            g = following
            index -= 1
            following = load_float(adjoints + 8 * index)
            if pairs == 2:
                end = stop - 2 * PAIR
                if g == 0.0 and np.signbit(g):
                    continue
                following = _pull_short(end, g, index, following, adjoints)
                following = _pull_short(end + PAIR, g, index, following, adjoints)
                continue
            at = end = stop - PAIR * pairs
            if g == 0.0 and np.signbit(g):
                continue
            while at != stop:
                following = _pull_short(at, g, index, following, adjoints)
                at += PAIR
        chunk = load(chunk + 8)
        if chunk == 0:
            break
        end = load(chunk + 16)
    store_float(adjoints + 8 * index, following)
    return chunk, end, index


@jit(inline="always")
def _pull(at: Any, g: Any, index: Any, following: Any, table: Any, state: Any) -> Any:
    """Pull as `_pull_short` does, to adjoints in pages."""
    to = load_word(at)
    moved = load_float(at + WORD) * g
    if to == index:
        following = following + 0.0 + moved
    else:
        place = page_of(to >> SHIFT, table, state) + 8 * to
        store_float(place, load_float(place) + 0.0 + moved)
    return following


@jit("UniTuple(int64, 3)(int64, int64, int64, int64, int64, int64)")
def _sweep(chunk: int, end: int, index: int, most: int, table: int, state: int) -> tuple[int, int, int]:
    """Sweep as `_sweep_short` does, over adjoints in pages; also stop where more of these may be needed than are free."""
    here = page_of(index >> SHIFT, table, state) + 8 * index
    lowest = index & -PAGE
    following = load_float(here)
    for _ in range(most):
        begin = chunk + HEADER
        while end > begin:
            stop = end - WORD
            prefetch(stop - AHEAD)
            pairs = load_word(stop)
            if pairs == 0 or load(state + FREE) <= pairs:
                store_float(here, following)
                return chunk, end, index
            g = following
            index -= 1
            here -= 8
            if index < lowest:
                leave((index >> SHIFT) + 1, table, state)
                here = page_of(index >> SHIFT, table, state) + 8 * index
                lowest -= PAGE
            following = load_float(here)
            if pairs == 2:
                end = stop - 2 * PAIR
                if g == 0.0 and np.signbit(g):
                    continue
                following = _pull(end, g, index, following, table, state)
                following = _pull(end + PAIR, g, index, following, table, state)
                continue
            at = end = stop - PAIR * pairs
            if g == 0.0 and np.signbit(g):
                continue
            while at != stop:
                following = _pull(at, g, index, following, table, state)
                at += PAIR
        chunk = load(chunk + 8)
        if chunk == 0:
            break
        end = load(chunk + 16)
    store_float(here, following)
    return chunk, end, index


@jit("UniTuple(int64, 3)(int64, int64, int64, int64, int64, int64)")
def _sweep_lanes(chunk: int, end: int, index: int, most: int, table: int, state: int) -> tuple[int, int, int]:
    """Sweep as `_sweep` does, for numbers with tangents: lanes s and t without a common bit have their product in s | t."""
    lanes = load(state + LANES)
    here = page_of(index >> SHIFT, table, state)
    for _ in range(most):
        begin = chunk + HEADER
        while end > begin:
            pairs = load_word(end - WORD)
            if pairs == 0 or load(state + FREE) <= pairs:
                return chunk, end, index
            end -= WORD + (WORD + 8 * lanes) * pairs
            g = here + 8 * lanes * index
            reached = False
            for s in range(lanes):
                one = load_float(g + 8 * s)
                if one != 0.0 or not np.signbit(one):
                    reached = True
            if reached:
                at = end
                for _ in range(pairs):
                    to = load_word(at)
                    base = page_of(to >> SHIFT, table, state) + 8 * lanes * to
                    at += WORD
                    for s in range(lanes):
                        partial = load_float(at + 8 * s)
                        for t in range(lanes):
                            if s & t == 0:
                                place = base + 8 * (s | t)
                                moved = partial * load_float(g + 8 * t) + 0.0
                                store_float(place, load_float(place) + moved)
                    at += 8 * lanes
            index -= 1
            if index & (PAGE - 1) == PAGE - 1:
                leave((index >> SHIFT) + 1, table, state)
                here = page_of(index >> SHIFT, table, state)
        chunk = load(chunk + 8)
        if chunk == 0:
            break
        end = load(chunk + 16)
    return chunk, end, index


class _Pool:
    """Tapes that wait for the next kernel."""

    def __init__(self) -> None:
        self.first: list[int] = []

    def take(self) -> int:
        try:
            return self.first.pop()  # one step, so no lock
        except IndexError:
            return int(_first_chunk())

    def give_back(self, first: int) -> None:
        limit = memory.default_limit() if SETTINGS.memory_limit is None else SETTINGS.memory_limit
        _keep(first, max(1, limit // CHUNK))
        if len(self.first) < 2:
            self.first.append(first)
        else:
            _free_all(first)


_POOL = _Pool()


class Tape:
    """The entries of one call of a kernel.

    Attributes
    ----------
    first : int
        Address of the first chunk.
    inputs : int
        Number of inputs; they have the indices 1 to `inputs`.
    entries : int
        Number of entries.
    """

    __slots__ = ("chunk", "end", "entries", "first", "inputs")

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.entries = 0
        self.chunk = self.end = 0
        self.first = _POOL.take()

    def finish(self, position: tuple[int, int, int]) -> None:
        """Note where the entries end."""
        self.end, self.chunk, count = position
        self.entries = count - self.inputs

    def sweep(self, adjoints: Adjoints) -> None:
        """Pull adjoints of results back to those of the inputs."""
        chunk, end, index = self.chunk, self.end, self.inputs + self.entries
        run: Any = _sweep if adjoints.lanes == 1 else _sweep_lanes
        where: tuple[int, ...]
        if adjoints.in_a_row:
            run, where = _sweep_short, (adjoints.inputs.ctypes.data,)
        else:
            where = adjoints.table, adjoints.state
        pairs = 1
        while chunk:
            adjoints.need(pairs + 1)
            # A few chunks at a time, so that Ctrl-C is heard.
            chunk, end, index = run(chunk, end, index, 8, *where)
            if chunk and end > chunk + HEADER:
                pairs = int(_number(end - WORD))
                if pairs == 0:
                    end, index = pull_block(end, index, adjoints)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        total, chunk, end = 0, self.chunk, self.end
        while chunk:
            total += end - chunk - HEADER + int(block_bytes(chunk))
            chunk = int(_word(chunk + 8))
            end = int(_word(chunk + 16)) if chunk else 0
        return total

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Give the chunks back."""
        first = getattr(self, "first", 0)
        if first and not finalizing():  # at the end modules have no contents any more
            self.first = 0
            _POOL.give_back(first)


@jit("int64(int64)")
def _word(address: int) -> Any:
    return load(address)


@jit("int64(int64)")
def _number(address: int) -> Any:
    return load_word(address)
