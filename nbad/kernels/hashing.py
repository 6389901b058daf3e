"""Own the fingerprints of arrays: 128 bits of the bits of their contents.

They tell whether an array still holds what it held. Identity cannot say that, and ``==`` cannot either: 0.0
and -0.0 are equal but their reciprocals are not, and NaN is not equal to itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbad._jit import jit
from nbad.kernels import threads

__all__ = ["fingerprint"]

Array = np.ndarray[Any, Any]

TINY = 1024
"""Bytes up to which Python's own hash of the bytes is the cheapest."""

CHUNK = 1 << 18
"""Bytes of one chunk. It is fixed, so a fingerprint does not depend on the number of threads."""

_SALT = b"nbad"
_A = np.uint64(0x9E3779B185EBCA87)
_B = np.uint64(0xC2B2AE3D27D4EB4F)
_FOLD = np.uint64(0x165667B19E3779F9)


@jit
def _mix_a(h: np.uint64, w: np.uint64) -> np.uint64:
    """Mix one word into one lane: exclusive or, multiply, rotate."""
    h = (h ^ w) * _A
    return (h << np.uint64(29)) | (h >> np.uint64(35))


@jit
def _mix_b(h: np.uint64, w: np.uint64) -> np.uint64:
    """Mix one word into the other lane: add, multiply, shift. No one difference cancels in both lanes."""
    h = (h + w) * _B
    return h ^ (h >> np.uint64(31))


@jit
def _hash_words(words: Array, tail: Array) -> tuple[np.uint64, np.uint64]:
    """Hash uint64 words, shape (n,), and the bytes after them, shape (m < 8,); four lanes hide latency."""
    a0, a1, a2, a3 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    b0, b1, b2, b3 = np.uint64(5), np.uint64(6), np.uint64(7), np.uint64(8)
    n = words.shape[0]
    quads = n // 4
    for i in range(quads):
        w0, w1, w2, w3 = words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]
        a0, a1, a2, a3 = _mix_a(a0, w0), _mix_a(a1, w1), _mix_a(a2, w2), _mix_a(a3, w3)
        b0, b1, b2, b3 = _mix_b(b0, w0), _mix_b(b1, w1), _mix_b(b2, w2), _mix_b(b3, w3)
    for i in range(4 * quads, n):
        a0, b0 = _mix_a(a0, words[i]), _mix_b(b0, words[i])
    for i in range(tail.shape[0]):
        a1, b1 = _mix_a(a1, np.uint64(tail[i])), _mix_b(b1, np.uint64(tail[i]))
    size = np.uint64(8 * n + tail.shape[0])
    a = _mix_a(_mix_a(_mix_a(_mix_a(_mix_a(size, a0), a1), a2), a3), _FOLD)
    b = _mix_b(_mix_b(_mix_b(_mix_b(_mix_b(size, b0), b1), b2), b3), _FOLD)
    return _mix_b(a, b), _mix_a(b, a)


@jit
def _hash_chunks(data: Array, out: Array, lo: int, hi: int) -> int:
    """Hash chunks lo..hi-1 of data, uint8 shape (n,), into out, uint64 shape (chunks, 2)."""
    for i in range(lo, hi):
        start = i * CHUNK
        stop = min(start + CHUNK, data.shape[0])
        middle = start + (stop - start) // 8 * 8
        out[i, 0], out[i, 1] = _hash_words(data[start:middle].view(np.uint64), data[middle:stop])
    return 1


def fingerprint(array: Array) -> tuple[int, int]:
    """Return 128 bits that stand for the bits of an array's elements in C order.

    Parameters
    ----------
    array : ndarray
        Any type without Python objects, any strides. Its shape and type do not enter.

    Returns
    -------
    tuple of two int
        64 bits each. Equal for equal bits, within one process; 0.0 and -0.0 differ, and so do NaNs with
        different payloads. Not meant to withstand someone who looks for collisions.

    Raises
    ------
    TypeError
        If the elements are Python objects.

    Examples
    --------
    >>> fingerprint(np.array([0.0])) == fingerprint(np.array([-0.0]))
    False
    """
    nbytes = array.nbytes
    if array.dtype.hasobject:
        raise TypeError(f"an array of dtype {array.dtype} holds Python objects, which have no bits to hash")
    if nbytes <= TINY:
        # NumPy 2.1 copies at most 32 dimensions out at once.
        content = (array if array.ndim <= 32 else array.reshape(-1)).tobytes()
        return hash(content), hash(_SALT + content)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if data.__array_interface__["data"][0] % 8:
        data = data.copy()  # the kernel reads words
    n_chunks = -(-nbytes // CHUNK)
    parts = np.empty((n_chunks, 2), np.uint64)
    if n_chunks == 1:
        _hash_chunks(data, parts, 0, 1)
        return int(parts[0, 0]), int(parts[0, 1])

    def task(lo: int, hi: int) -> int:
        return _hash_chunks(data, parts, lo, hi)

    threads.fan_out(task, n_chunks)
    a, b = _hash_words(parts.reshape(-1), data[:0])
    return int(a), int(b)
