"""Which inputs of a kernel each of its outputs depends on, by its tape.

Owns the jitted walk back over the entries with sets of 64 outputs as bits.
"""

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.scalar.entries import HEADER, WORD, load, load_word
from nbad.scalar.sweeping import Tape

__all__ = ["dependence"]

_MOST = 1 << 32
"""Entries that are walked over at most, all sets together; beyond, the answer would take too long."""


@jit("boolean(int64, int64, int64, uint64[::1])", boundscheck=False)
def _walk(chunk: int, end: int, index: int, reached: np.ndarray) -> bool:
    """Pass the sets of results on to what they depend on; False where an entry is not one of pairs."""
    while True:
        begin = chunk + HEADER
        while end > begin:
            pairs = load_word(end - WORD)
            if pairs == 0:
                return False
            end -= WORD + (WORD + 8) * pairs
            outputs = reached[index]
            index -= 1
            for k in range(pairs):
                reached[load_word(end + (WORD + 8) * k)] |= outputs
        chunk = load(chunk + 8)
        if chunk == 0:
            return True
        end = load(chunk + 16)


def dependence(tape: Tape, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which inputs numbers on the tape depend on.

    Parameters
    ----------
    tape : Tape
        A tape of numbers without tangents.
    indices : ndarray of int64, one-dimensional
        Places of the numbers.

    Returns
    -------
    tuple of two ndarrays, or None
        Pairs of a position in `indices` and an input, counted from 0; None if the tape does not tell, or not in time.
    """
    if tape.entries * (1 + indices.size // 64) > _MOST:
        return None
    rows: list[Any] = []
    columns: list[Any] = []
    for start in range(0, indices.size, 64):
        part = indices[start : start + 64]
        reached = np.zeros(1 + tape.inputs + tape.entries, np.uint64)
        np.bitwise_or.at(reached, part, np.left_shift(np.uint64(1), np.arange(part.size, dtype=np.uint64)))
        if not _walk(tape.chunk, tape.end, tape.inputs + tape.entries, reached):
            return None
        found = reached[1 : 1 + tape.inputs]
        for bit in range(part.size):
            these = np.flatnonzero(found >> np.uint64(bit) & np.uint64(1))
            rows.append(np.full(these.size, start + bit))
            columns.append(these)
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *rows]), np.concatenate([empty, *columns])
