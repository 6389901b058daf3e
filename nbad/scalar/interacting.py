"""Which inputs of a kernel interact: the pattern of second derivatives, by a tape of numbers with one tangent.

A partial derivative whose tangent is not 0 in a direction that moves all inputs depends on some of them. Second derivatives
of an entry are symmetric, so only operands with such partials interact, and with each other only. That makes a row for
each such entry, the inputs that these operands depend on, and the pattern is the rows' products with themselves.
Owns the jitted walks that find the rows.
"""

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.scalar.entries import HEADER, PAIRS, WORD, load, load_float, load_word
from nbad.scalar.sweeping import Tape

__all__ = ["interactions"]

Array = np.ndarray[Any, Any]

_WIDTH = WORD + 16
"""Bytes of a pair: an index, a partial derivative and its tangent."""

_MOST = 1 << 27
"""Most inputs in all sets together; beyond, the pattern would not be worth being sparse."""


@jit(boundscheck=False)
def _read(chunk: int, end: int, entry: int, starts: Array, operands: Array, moves: Array) -> bool:
    """List the pairs of all entries, `entry` is the last one; False where one is a block."""
    place = operands.size
    while chunk != 0:
        begin = chunk + HEADER
        while end > begin:
            pairs = load_word(end - WORD)
            if pairs == 0 or pairs > place:  # a block, or the pairs are not as many as without one
                return False
            end -= WORD + _WIDTH * pairs
            place -= pairs
            for k in range(pairs):
                operands[place + k] = load_word(end + _WIDTH * k)
                moves[place + k] = load_float(end + _WIDTH * k + WORD + 8) != 0.0
            starts[entry] = place
            entry -= 1
        chunk = load(chunk + 8)
        if chunk != 0:
            end = load(chunk + 16)
    return True


@jit(boundscheck=False)
def _look_back(
    inputs: int, starts: Array, operands: Array, moves: Array, reached: Array, needed: Array
) -> None:
    """Find which numbers the results depend on, and those whose inputs have to be known; `starts` ends with a sentinel."""
    for entry in range(starts.size - 2, -1, -1):
        number = 1 + inputs + entry
        for k in range(starts[entry], starts[entry + 1]):
            reached[operands[k]] |= reached[number]
            needed[operands[k]] |= needed[number] or (reached[number] and moves[k])


@jit(boundscheck=False)
def _goes_on(entry: int, inputs: int, starts: Array, operands: Array) -> bool:
    """Return whether an entry goes on with the one before, which was full."""
    at = starts[entry]
    full = at - starts[entry - 1] == PAIRS
    return bool(full and at < starts[entry + 1] and operands[at] == inputs + entry)


@jit(boundscheck=False)
def _sets(
    inputs: int, starts: Array, operands: Array, moves: Array, reached: Array, needed: Array, most: int
) -> tuple[int, Array, Array]:
    """Return the number of rows, where each ends, and their inputs; -1 rows if these are more than `most`."""
    entries = starts.size - 1
    known = np.zeros(2 * entries, np.int64)  # where the set of a number begins and ends
    sets = np.empty(1024, np.int64)
    ends = np.zeros(entries + 1, np.int64)
    rows = np.empty(1024, np.int64)
    size = filled = count = 0
    seen = np.full(inputs + 1, -1, np.int64)
    for entry in range(entries):
        number = 1 + inputs + entry
        for kind in range(2):  # the set of the number, and its row
            if not (needed[number] if kind == 0 else reached[number]):
                continue
            before = size if kind == 0 else filled
            first = entry  # of a long entry, which was written as several: they are one function
            while kind == 1 and first > 0 and _goes_on(first, inputs, starts, operands):
                first -= 1
            for k in range(starts[first], starts[entry + 1]):
                operand = operands[k]
                if operand == 0 or (kind == 1 and not moves[k]):
                    continue
                at = 2 * (operand - 1 - inputs)
                low, high = (0, 1) if at < 0 else (known[at], known[at + 1])
                for i in range(low, high):
                    one = operand if at < 0 else sets[i]
                    if seen[one] == 2 * entry + kind:
                        continue
                    seen[one] = 2 * entry + kind
                    if kind == 0:
                        if size == sets.size:
                            sets = np.concatenate((sets, np.empty_like(sets)))
                        sets[size] = one
                        size += 1
                    else:
                        if filled == rows.size:
                            rows = np.concatenate((rows, np.empty_like(rows)))
                        rows[filled] = one
                        filled += 1
            if size + filled > most:
                return -1, ends, rows
            if kind == 0:
                known[2 * entry], known[2 * entry + 1] = before, size
            elif filled > before:
                count += 1
                ends[count] = filled
    return count, ends[: count + 1].copy(), rows[:filled].copy()


def interactions(tape: Tape, indices: Array) -> tuple[Array, Array] | None:
    """Return sets of inputs that interact: any other two have a second derivative of 0.

    Parameters
    ----------
    tape : Tape
        A tape of numbers with one tangent, in a direction that moves all inputs.
    indices : ndarray of int64
        Places of the results whose second derivatives are asked for.

    Returns
    -------
    tuple of two ndarrays of int64, or None
        Where each set ends, beginning with 0, and the inputs in all of them, counted from 0; None if the tape does not
        tell, or if they are too many.
    """
    entries, inputs = tape.entries, tape.inputs
    pairs, rest = divmod(tape.nbytes - WORD * entries, _WIDTH)
    if rest or pairs < 0:  # a block
        return None
    starts = np.full(entries + 1, pairs)
    operands, moves = np.zeros(pairs, np.int64), np.zeros(pairs, np.bool_)
    if not _read(tape.chunk, tape.end, entries - 1, starts, operands, moves):
        return None
    reached, needed = np.zeros((2, 1 + inputs + entries), np.bool_)
    reached[indices] = True
    _look_back(inputs, starts, operands, moves, reached, needed)
    count, ends, found = _sets(inputs, starts, operands, moves, reached, needed, _MOST)
    return None if count < 0 else (ends, found - 1)
