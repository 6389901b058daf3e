"""The sweep over the tape of a kernel.

Owns the jitted backward loop and the chunks of memory that tapes are made of.
An adjoint starts as -0.0, and what is added to it never is: so -0.0 says "nothing depends on this", which is skipped, and
an adjoint that is zero by its value is not: what is not reached cannot spoil the gradient, what is reached cannot hide a NaN.
"""

import sys
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.config import SETTINGS
from nbad.kernels import memory
from nbad.scalar.blocks import block_bytes, free_blocks, pull_block
from nbad.scalar.entries import CHUNK, HEADER, allocate, free, load, load_float, store

__all__ = ["Tape", "adjoints"]


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


@jit("UniTuple(int64, 3)(int64, int64, int64, int64, float64[::1])", boundscheck=False)
def _sweep(chunk: int, end: int, index: int, most: int, adjoint: np.ndarray) -> tuple[int, int, int]:
    """Sweep back over at most `most` chunks, and up to a block; return chunk, end of its entries and index to go on from."""
    for _ in range(most):
        begin = chunk + HEADER
        while end > begin:
            pairs = load(end - 8)
            if pairs < 0:
                return chunk, end, index
            end -= 8 + 16 * pairs
            g = adjoint[index]
            index -= 1
            if g == 0.0 and np.signbit(g):
                continue
            at = end
            for _ in range(pairs):
                adjoint[load(at)] += load_float(at + 8) * g + 0.0
                at += 16
        chunk = load(chunk + 8)
        if chunk == 0:
            return 0, 0, index
        end = load(chunk + 16)
    return chunk, end, index


@jit("UniTuple(int64, 3)(int64, int64, int64, int64, float64[:,::1])", boundscheck=False)
def _sweep_lanes(chunk: int, end: int, index: int, most: int, adjoint: np.ndarray) -> tuple[int, int, int]:
    """Sweep as `_sweep` does, for numbers with tangents: lanes s and t without a common bit have their product in s | t."""
    lanes = adjoint.shape[1]
    for _ in range(most):
        begin = chunk + HEADER
        while end > begin:
            pairs = load(end - 8)
            if pairs < 0:
                return chunk, end, index
            end -= 8 + (8 + 8 * lanes) * pairs
            g = adjoint[index]
            index -= 1
            reached = False
            for s in range(lanes):
                if g[s] != 0.0 or not np.signbit(g[s]):
                    reached = True
            if not reached:
                continue
            at = end
            for _ in range(pairs):
                to = adjoint[load(at)]
                at += 8
                for s in range(lanes):
                    partial = load_float(at + 8 * s)
                    for t in range(lanes):
                        if s & t == 0:
                            to[s | t] += partial * g[t] + 0.0
                at += 8 * lanes
        chunk = load(chunk + 8)
        if chunk == 0:
            return 0, 0, index
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

    def sweep(self, adjoint: np.ndarray) -> None:
        """Pull adjoints of results back to those of the inputs; `adjoint` has a row for each index."""
        chunk, end, index = self.chunk, self.end, self.inputs + self.entries
        run = _sweep if adjoint.ndim == 1 else _sweep_lanes
        while chunk:
            if end > chunk + HEADER and _word(end - 8) < 0:
                end, index = pull_block(end, index, adjoint)
                continue
            # A few chunks at a time, so that Ctrl-C is heard.
            chunk, end, index = run(chunk, end, index, 8, adjoint)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        total, chunk, end = 0, self.chunk, self.end
        while chunk:
            total += end - chunk - HEADER + int(block_bytes(chunk))
            chunk = int(_word(chunk + 8))
            end = int(_word(chunk + 16)) if chunk else 0
        return total

    def __del__(self) -> None:
        """Give the chunks back."""
        first = getattr(self, "first", 0)
        if first and not sys.is_finalizing():
            self.first = 0
            _POOL.give_back(first)


@jit("int64(int64)")
def _word(address: int) -> Any:
    return load(address)


def adjoints(tape: Tape, lanes: int) -> np.ndarray:
    """Return adjoints that nothing was added to, one for each index, with `lanes` components."""
    shape: Any = (1 + tape.inputs + tape.entries,) if lanes == 1 else (1 + tape.inputs + tape.entries, lanes)
    made = memory.empty(shape, np.float64)
    made.fill(-0.0)
    return made
