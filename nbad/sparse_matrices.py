"""Sparse matrices of derivatives from few products.

Owns compression: the pattern (`nbad.sparsity`) is coloured (`nbad.coloring`), one product serves all rows or columns of a
colour, and each entry is read from the product that holds it alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.coloring import color_columns, color_symmetric
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.recorded import Recorded, zeros_like
from nbad.sparsity import pattern_of, sparse_module
from nbad.trace import is_traced
from nbad.wrt import Leaf

__all__ = ["Colors", "dtype_of", "refuse_traced", "sparse_hessian", "sparse_jacobian", "split"]


class Colors:
    """The colouring made last, for calls with the same pattern again."""

    def __init__(self) -> None:
        self._last: tuple[Any, Any] | None = None

    def of(self, pattern: Any, make: Callable[[Any], Any]) -> Any:
        """Return ``make(pattern)``, or what it gave for the same pattern the last time."""
        if self._last is not None and _is_same(self._last[0], pattern):
            return self._last[1]
        made = make(pattern)
        self._last = pattern, made
        return made


def _is_same(one: Any, other: Any) -> bool:
    return (
        one.shape == other.shape
        and np.array_equal(one.indptr, other.indptr)
        and np.array_equal(one.indices, other.indices)
    )


def refuse_traced(name: str, listed: list[Leaf]) -> None:
    """Raise if a sparse matrix would have to carry a derivative, or be recorded."""
    for leaf in listed:
        if is_traced(leaf.value):
            raise InputTypeError(
                f"{name}: sparse=True gives plain matrices, and {leaf.text} is traced by an outer transformation "
                "or a compiled function",
                at=user_line(),
                fix="Use sparse=False there, or products: nbad.jvp, nbad.vjp, nbad.hvp.",
            )


def dtype_of(output: np.ndarray, leaf: np.ndarray) -> np.dtype[Any]:
    """Return the dtype of a block: that of the input, but complex where the output is."""
    return np.result_type(leaf.dtype, np.complex64) if output.dtype.kind == "c" else leaf.dtype


def split(whole: Any, outputs: list[np.ndarray], inputs: list[np.ndarray]) -> list[list[Any]]:
    """Cut a sparse matrix into a block for each pair of an output and an input."""
    lows = np.cumsum([0, *(y.size for y in outputs)]).tolist()
    lefts = np.cumsum([0, *(x.size for x in inputs)]).tolist()
    blocks = []
    for y, low in zip(outputs, lows, strict=False):
        rows = whole[low : low + y.size]
        cut = [rows[:, left : left + x.size] for x, left in zip(inputs, lefts, strict=False)]
        blocks.append([block.astype(dtype_of(y, x)) for block, x in zip(cut, inputs, strict=True)])
    return blocks


def sparse_jacobian(
    run: Recorded, colors: Colors, rows_of: Callable[[dict[int, Any]], list[Any]], column_cost: float
) -> Any:
    """Return the Jacobian of all outputs in all asked-for leaves.

    Parameters
    ----------
    run : Recorded
        The recording.
    colors : Colors
        Of calls before this one.
    rows_of : callable
        The rows for cotangents of the outputs, one array for each asked-for leaf.
    column_cost : float
        What a Jacobian-vector product costs, compared with a pullback.

    Returns
    -------
    csr_array, shape (numbers in the outputs, numbers in the leaves)
    """

    def make(pattern: Any) -> tuple[bool, np.ndarray]:
        return _choose(pattern, column_cost)

    pattern = _canonical(pattern_of(run))
    by_rows, found = colors.of(pattern, make)
    outputs = [zeros_like(leaf) for leaf in run.outputs]
    inputs = [zeros_like(leaf.value) for leaf in run.listed]
    i, j = _places(pattern)
    count = int(found.max(initial=-1)) + 1 if pattern.nnz else 0
    dtype = np.result_type(*(x.dtype for x in inputs), *(y.dtype for y in outputs if y.dtype.kind == "c"))
    products = np.zeros((count, pattern.shape[by_rows]), dtype)
    for color in range(count):
        unit = found == color
        if by_rows:
            seeds = dict(enumerate(_apart(unit, outputs)))
            products[color] = _together(rows_of({k: seeds[k] for k in run.live}))
        else:
            tangents = run.push(dict(enumerate(_apart(unit, inputs))), list(range(len(outputs))))
            products[color] = _together(tangents)
    values = products[found[i], j] if by_rows else products[found[j], i]
    return sparse_module().csr_array((values, pattern.indices, pattern.indptr), pattern.shape)


def sparse_hessian(run: Recorded, colors: Colors) -> Any:
    """Return the Hessian, given the recorded gradient: its outputs are those of the asked-for leaves.

    Returns
    -------
    csr_array, shape (n, n)
        Symmetric to the bit.
    """
    pattern = pattern_of(run)
    pattern = _canonical(pattern + pattern.T)
    found = colors.of(pattern, _color_hessian)
    inputs = [zeros_like(leaf.value) for leaf in run.listed]
    wanted = list(range(len(inputs)))
    count = int(found.max(initial=-1)) + 1 if pattern.nnz else 0
    products = np.zeros((count, pattern.shape[0]), np.result_type(*(x.dtype for x in inputs)))
    for color in range(count):
        seeds = dict(enumerate(_apart(found == color, inputs)))
        products[color] = _together(run.pull(seeds, wanted))
    i, j = _places(pattern)
    # An entry is read where no other column of its colour meets its row; where one does, the entry across is read.
    entry = found[j] + i * max(count, 1)
    alone = np.bincount(entry, minlength=1)[entry] == 1
    upper = i <= j
    i, j, alone = i[upper], j[upper], alone[upper]
    values = np.where(alone, products[found[j], i], products[found[i], j])
    below = i < j
    rows, columns = np.concatenate([i, j[below]]), np.concatenate([j, i[below]])
    made = sparse_module().csr_array(
        (np.concatenate([values, values[below]]), (rows, columns)), pattern.shape
    )
    made.sort_indices()
    return made


def _canonical(pattern: Any) -> Any:
    pattern = sparse_module().csr_array(pattern)
    pattern.sort_indices()
    return pattern


def _places(pattern: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each entry."""
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    return rows, pattern.indices.astype(np.int64)


def _compressed(pattern: Any) -> tuple[np.ndarray, np.ndarray]:
    return pattern.indptr.astype(np.int64), pattern.indices.astype(np.int64)


def _color_hessian(pattern: Any) -> np.ndarray:
    return color_symmetric(*_compressed(pattern))


def _choose(pattern: Any, column_cost: float) -> tuple[bool, np.ndarray]:
    """Return whether rows are compressed, and their colours or those of the columns, whichever costs less."""
    by_row, by_column = _compressed(pattern), _compressed(pattern.tocsc())
    # A row as long as this needs as many colours of columns, and the other way round.
    longest_row = int(np.diff(by_row[0]).max(initial=0)) * column_cost
    longest_column = int(np.diff(by_column[0]).max(initial=0))
    if longest_column <= longest_row:
        rows = color_columns(*by_column, *by_row)
        if rows.max(initial=-1) + 1 <= longest_row:
            return True, rows
        columns = color_columns(*by_row, *by_column)
    else:
        columns = color_columns(*by_row, *by_column)
        if (columns.max(initial=-1) + 1) * column_cost <= longest_column:
            return False, columns
        rows = color_columns(*by_column, *by_row)
    if rows.max(initial=-1) + 1 <= (columns.max(initial=-1) + 1) * column_cost:
        return True, rows
    return False, columns


def _apart(vector: np.ndarray, leaves: list[np.ndarray]) -> list[np.ndarray]:
    """Cut a vector into arrays like `leaves`."""
    stops = np.cumsum([0, *(leaf.size for leaf in leaves)]).tolist()
    return [
        vector[start:stop].astype(leaf.dtype).reshape(leaf.shape)
        for leaf, start, stop in zip(leaves, stops[:-1], stops[1:], strict=True)
    ]


def _together(arrays: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])
