"""Blocks: entries for operations on whole arrays, such as a Fourier transform.

A block has many results, with indices in a row, and one entry: the address of its description, the number of results,
and 0 where others have their number of pairs. The description is memory of its own, which belongs to the chunk that the entry
is in: int64 words that begin with the address of the next description of the chunk and the number of words.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.scalar.adjoints import Adjoints
from nbad.scalar.entries import (
    LAST,
    WORD,
    _get,
    _put,
    allocate,
    free,
    load,
    long_entry,
    store,
    store_float,
    store_word,
)

__all__ = ["HANDLERS", "block_bytes", "free_blocks", "pull_block", "write_block"]

Array = np.ndarray[Any, Any]

SIZE = 16 + WORD
"""Bytes of the entry of a block."""

HANDLERS: dict[int, Callable[[Array, Array, Adjoints], None]] = {}
"""The pullbacks, by the first word of the description: called with it, with the cotangents of the results, shape (n, lanes),
and with all adjoints, to which they add."""


@jit(cache=False)
def write_block(header: Any, indices: Any, values: Any, results: Any) -> Any:
    """Put a block on the tape, described by numbers, indices and float64 values; return the index of its first result.

    That is 0, and nothing is written, where no index depends on what is asked for.
    """
    reached = False
    for k in range(indices.size):
        if indices[k] != 0:
            reached = True
            break
    if not reached or results == 0:
        return 0
    words = 2 + header.size + indices.size + values.size
    if _get("room") < 8 * words or _get("count") + results > LAST:
        raise MemoryError("the tape of the kernel is larger than its limit")
    _put("room", _get("room") - 8 * words)
    at, index = long_entry(SIZE)
    memory = allocate(8 * words)
    chunk = _get("chunk")
    store(memory, load(chunk + 24))
    store(memory + 8, words)
    store(chunk + 24, memory)
    to = memory + 16
    for k in range(header.size):
        store(to, header[k])
        to += 8
    for k in range(indices.size):
        store(to, indices[k])
        to += 8
    for k in range(values.size):
        store_float(to, values[k])
        to += 8
    store(at, memory)
    store(at + 8, results)
    store_word(at + 16, 0)
    _put("count", index + results - 1)
    return index


@jit("void(int64)")
def free_blocks(chunk: int) -> None:
    """Give back the descriptions that belong to a chunk."""
    memory = load(chunk + 24)
    store(chunk + 24, 0)
    while memory != 0:
        following = load(memory)
        free(memory)
        memory = following


@jit("int64(int64)")
def block_bytes(chunk: int) -> int:
    """Return the bytes of the descriptions that belong to a chunk."""
    total = 0
    memory = load(chunk + 24)
    while memory != 0:
        total += 8 * load(memory + 8)
        memory = load(memory)
    return total


def pull_block(end: int, index: int, adjoints: Adjoints) -> tuple[int, int]:
    """Pull the adjoints of a block back; its entry ends at address `end`, its results at `index`.

    Returns
    -------
    tuple of int
        Where the entry begins, and the index before that of its first result.
    """
    memory, results = (int(word) for word in _words(end - SIZE, 2))
    g = adjoints.rows(index - results + 1, results)
    adjoints.passed(index, index - results)
    if not np.all((g == 0) & np.signbit(g)):  # something depends on it
        description = _words(memory, int(_words(memory, 2)[1]))[2:]
        HANDLERS[int(description[0])](description, g, adjoints)
    return end - SIZE, index - results


def _words(address: int, count: int) -> Array:
    """Return a view of memory."""
    return np.frombuffer((ctypes.c_int64 * count).from_address(address), np.int64)
