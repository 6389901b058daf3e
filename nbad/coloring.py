"""Groups of columns that one product can serve: colourings of the pattern of a sparse matrix.

Owns two greedy algorithms, on patterns in compressed form, and knows nothing of derivatives. No two columns of a colour have an
entry in the same row (`color_columns`), or, for a symmetric matrix, the columns of a colour may overlap where the transposed
entry can be read instead (`color_symmetric`).

References
----------
A. H. Gebremedhin, F. Manne, A. Pothen: What color is your Jacobian? Graph coloring for computing derivatives. SIAM Review 47
(2005), 629-705. Algorithms 3.1 and 4.1; the second is written here with tables that make a vertex of high degree cheap.
"""

import numpy as np

from nbad._jit import jit

__all__ = ["color_columns", "color_symmetric"]


def color_columns(
    row_start: np.ndarray, columns: np.ndarray, column_start: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Colour the columns of a matrix so that no row has two entries of the same colour.

    Parameters
    ----------
    row_start, columns : ndarray of int64, shape (m + 1,), (entries,)
        The pattern by rows: row ``i`` has entries in ``columns[row_start[i]:row_start[i + 1]]``.
    column_start, rows : ndarray of int64, shape (n + 1,), (entries,)
        The same pattern by columns.

    Returns
    -------
    ndarray of int64, shape (n,)
        The colour of each column, from 0.

    Notes
    -----
    Columns with more entries come first, others in their order, so a banded matrix takes as many colours as its bandwidth.
    Costs the sum of the squares of the lengths of the rows. At least as many colours as the longest row are needed.

    Examples
    --------
    >>> start, index = np.array([0, 2, 4, 6]), np.array([0, 1, 0, 1, 2, 3])
    >>> color_columns(start, index, np.array([0, 2, 4, 5, 6]), np.array([0, 1, 0, 1, 2, 2]))
    array([0, 1, 0, 1])
    """
    order = np.argsort(-np.diff(column_start), kind="stable")
    if np.diff(row_start).max(initial=0) == column_start.size - 1:  # a full row
        return np.arange(column_start.size - 1)
    colors: np.ndarray = _color_columns(row_start, columns, column_start, rows, order)
    return colors


def color_symmetric(start: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Colour the columns of a symmetric matrix so that each entry, or the one across, is alone in its row and colour.

    Parameters
    ----------
    start, index : ndarray of int64, shape (n + 1,), (entries,)
        The pattern by rows (or columns); it must be symmetric.

    Returns
    -------
    ndarray of int64, shape (n,)
        The colour of each column, from 0: a star colouring, neighbours differ and no path of four vertices has two colours.

    Notes
    -----
    Vertices with more neighbours come first, so an arrow takes two colours. Costs entries times colours, in time, and rows
    times colours, in memory.

    Examples
    --------
    >>> color_symmetric(np.array([0, 4, 6, 8, 10]), np.array([0, 1, 2, 3, 0, 1, 0, 2, 0, 3]))
    array([0, 1, 1, 1])
    """
    order = np.argsort(-np.diff(start), kind="stable")
    colors: np.ndarray = _color_symmetric(start, index, order)
    return colors


# Without signatures, so that they compile at their first call and not at import: most programs colour nothing, and numba takes
# as long for these two, mostly for the arrays that they make, as for all the rest.
@jit
def _color_columns(row_start, columns, column_start, rows, order):
    """Return colors (n,), given the pattern by rows and by columns and the order (n,)."""
    n = column_start.size - 1
    colors = np.full(n, -1, np.int64)
    taken_by = np.full(n + 1, -1, np.int64)  # the column that may not have the colour
    for v in order:
        for e in range(column_start[v], column_start[v + 1]):
            for f in range(row_start[rows[e]], row_start[rows[e] + 1]):
                if colors[columns[f]] >= 0:
                    taken_by[colors[columns[f]]] = v
        color = 0
        while taken_by[color] == v:
            color += 1
        colors[v] = color
    return colors


@jit
def _color_symmetric(start, index, order):
    """Return colors (n,), given the neighbours of each vertex and the order (n,)."""
    n = start.size - 1
    colors = np.full(n, -1, np.int64)
    taken_by = np.full(n + 1, -1, np.int64)
    width, used = 8, 0
    # The first neighbour of each colour, and whether a neighbour of that colour is the middle of a path whose ends have the
    # colour of the vertex: a third vertex of such a path would be the fourth of one with two colours.
    first = np.full((n, width), -1, np.int32)
    closed = np.zeros((n, width), np.uint8)
    for v in order:
        for e in range(start[v], start[v + 1]):
            w = index[e]
            if w == v:
                continue
            if colors[w] >= 0:
                taken_by[colors[w]] = v
                for color in range(used):
                    if closed[w, color]:
                        taken_by[color] = v
            else:  # whatever colour it will get, its neighbours must differ
                for color in range(used):
                    if first[w, color] >= 0:
                        taken_by[color] = v
        color = 0
        while color < used and taken_by[color] == v:
            color += 1
        if color == used:
            used += 1
        if used > width:
            wider, more = np.full((n, 2 * width), -1, np.int32), np.zeros((n, 2 * width), np.uint8)
            wider[:, :width] = first
            more[:, :width] = closed
            first, closed = wider, more
            width *= 2
        colors[v] = color
        for e in range(start[v], start[v + 1]):
            w = index[e]
            if w == v:
                continue
            if first[w, color] < 0:
                first[w, color] = v
            else:  # then w has a colour: an uncoloured vertex has no two neighbours of one
                closed[v, colors[w]] = 1
                closed[first[w, color], colors[w]] = 1
    return colors
