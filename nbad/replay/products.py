"""Products of matrices, split over our threads.

Owns the blocks in which a large product is made. They follow from the shapes alone, so the bits of a result do not depend on
the number of threads. Each block is one call of BLAS, which works in one thread meanwhile.
"""

import numpy as np

from nbad.kernels import threads
from nbad.kernels.blas import alone

__all__ = ["multiply"]

#: Multiplications of a product from which on it is split, and below which BLAS takes no threads.
_SPLIT, _SMALL = 1 << 21, 1 << 13
#: Elements that a product by a vector reads from which on it is split, and those of a piece, which stays in the cache.
_SPLIT_READS, _PIECE_READS = 1 << 18, 1 << 16
#: Rows and columns of a block at the least, and blocks of a dimension at the most: BLAS packs operands for each block.
_ROWS, _COLUMNS, _MOST = 256, 128, 16
#: How much longer than wide a sum must be to be split into partial sums.
_TALL = 16
#: Partial sums at the most.
_PIECES = 256
_CODES = "fdFD"


def multiply(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Write ``a @ b`` into `out`.

    Parameters
    ----------
    out : ndarray
        C-contiguous, of the shape and dtype of the product.
    a, b : ndarray
        Of one dtype.
    """
    work = out.size * a.shape[-1]
    context = alone() if work >= _SMALL and out.dtype.char in _CODES else None
    if context is None or _is_own_transpose(a, b):
        np.matmul(a, b, out=out)
        return
    if a.ndim > 2 and b.ndim <= 2 and a.flags.c_contiguous:
        a = a.reshape(-1, a.shape[-1])
        out = out.reshape(-1, *b.shape[1:])
    elif a.ndim == 1 and b.ndim == 2:
        a, b = b.T, a
    with context:
        if a.ndim == 2 and b.ndim <= 2:
            _multiply_matrices(out, a, b)
        elif a.ndim > 1 and b.ndim > 1 and work >= _SPLIT:
            _multiply_stacks(out, a, b)
        else:
            np.matmul(a, b, out=out)


def _multiply_matrices(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    rows, inner = a.shape
    columns = out.size // rows
    narrow = columns == 1
    if out.size * inner < (_SPLIT_READS if narrow else _SPLIT):
        np.matmul(a, b, out=out)
        return
    a, b = _blasable(a), _blasable(b)
    if inner >= _TALL * max(rows, columns):
        _add_pieces(out, a, b)
    elif narrow:
        height = max(1, _PIECE_READS // inner)

        def strip(lo: int, hi: int) -> None:
            for top in range(lo * height, min(hi * height, rows), height):
                np.matmul(a[top : top + height], b, out=out[top : top + height])

        threads.fan_out(strip, -(-rows // height))
    else:
        down, across = _cuts(rows, _ROWS), _cuts(columns, _COLUMNS)

        def tile(lo: int, hi: int) -> None:
            for number in range(lo, hi):
                i, j = divmod(number, len(across) - 1)
                y, x = slice(down[i], down[i + 1]), slice(across[j], across[j + 1])
                np.matmul(a[y], b[:, x], out=out[y, x])

        threads.fan_out(tile, (len(down) - 1) * (len(across) - 1))


def _multiply_stacks(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Multiply stacks of matrices, one matrix after the other."""
    lead = out.shape[:-2]
    a, b = np.broadcast_to(a, (*lead, *a.shape[-2:])), np.broadcast_to(b, (*lead, *b.shape[-2:]))

    def some(lo: int, hi: int) -> None:
        np.matmul(a[lo:hi], b[lo:hi], out=out[lo:hi])

    threads.fan_out(some, lead[0])


def _add_pieces(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Multiply by pieces of the summed dimension and add them up in their order."""
    rows, inner = a.shape
    length = max(1, _PIECE_READS // max(rows, out.size // rows), -(-inner // _PIECES))
    pieces = -(-inner // length)
    partial = np.empty((pieces, *out.shape), out.dtype)

    def piece(lo: int, hi: int) -> None:
        for number in range(lo, hi):
            at = slice(number * length, (number + 1) * length)
            np.matmul(a[:, at], b[at], out=partial[number])

    threads.fan_out(piece, pieces)
    np.add.reduce(partial, axis=0, out=out)


def _cuts(length: int, least: int) -> list[int]:
    """Return where to cut a dimension into nearly equal blocks of whole vectors."""
    step = -(-length // min(max(1, length // least), _MOST))
    step += -step % 8
    return [*range(0, length, step), length]


def _blasable(a: np.ndarray) -> np.ndarray:
    """Return `a`, copied if BLAS could not read it or blocks of it."""
    size = a.itemsize
    steps = a.strides
    if a.ndim == 1:
        good = steps[0] > 0 and steps[0] % size == 0
    else:
        inner, outer = sorted(steps)
        good = inner == size and outer % size == 0 and outer >= size * a.shape[steps.index(inner)]
    return a if good and a.flags.aligned else np.ascontiguousarray(a)


def _is_own_transpose(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether the product is of a matrix and its transpose, which BLAS knows to make with half the work."""
    if a.ndim != 2 or b.ndim != 2:
        return False
    return a.strides == b.strides[::-1] and a.shape == b.shape[::-1] and np.may_share_memory(a, b)
