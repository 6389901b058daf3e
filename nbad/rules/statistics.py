"""Statistics: covariances, correlations of sequences, histograms.

Owns the adjoint pair `convolve_line` and `correlate_line`: NumPy's own direct sums, to the bit. `nbad.convolve` is the fast
one for long operands, of any number of dimensions.
"""

import warnings
from typing import Any

import numpy as np

from nbad.constants import plain_tree, plainly
from nbad.methods import user_level
from nbad.rules.shaping import as_operand, ravel, shape_of
from nbad.table import binds, forward_only, operation
from nbad.trace import apply, cast, is_traced, plain

HISTOGRAM_EDGES = forward_only(np.histogram_bin_edges)


# Convolutions of sequences ------------------------------------------------------------------------
def convolve_line_forward(a: Any, v: Any) -> Any:
    """Return the full convolution of two sequences."""
    return np.convolve(a, v, "full")


def convolve_line_a(g: Any, v: Any) -> Any:
    return apply(CORRELATE_LINE, g, v)


def convolve_line_v(g: Any, a: Any) -> Any:
    return apply(CORRELATE_LINE, g, a)


def correlate_line_forward(a: Any, v: Any) -> Any:
    """Return ``y[k] = sum(a[k + i] * conj(v[i]))`` where `v`, the shorter sequence, lies inside `a`."""
    return np.correlate(a, v, "valid")


def correlate_line_a(g: Any, v: Any) -> Any:
    return apply(CONVOLVE_LINE, g, v)


def correlate_line_v(g: Any, a: Any) -> Any:
    return apply(CORRELATE_LINE, a, g)


CONVOLVE_LINE = operation(convolve_line_forward, a=convolve_line_a, v=convolve_line_v)
CORRELATE_LINE = operation(correlate_line_forward, a=correlate_line_a, v=correlate_line_v)

_MODES = {0: "valid", 1: "same", 2: "full"}


def _lines(a: Any, v: Any) -> tuple[Any, Any]:
    a, v = (np.reshape(x, (1,)) if shape_of(x) == () else x for x in map(as_operand, (a, v)))
    for name, x in (("a", a), ("v", v)):
        if len(shape_of(x)) != 1:
            raise ValueError("object too deep for desired array")
        if shape_of(x)[0] == 0:
            raise ValueError(f"{name} cannot be empty")
    return a, v


def _mode(mode: Any) -> str:
    found = str(_MODES.get(mode, mode))
    if found not in _MODES.values():
        raise ValueError(f"mode must be one of 'valid', 'same', or 'full' (got {mode!r})")
    return found


@binds(np.convolve)
def convolve(a: Any, v: Any, mode: Any = "full") -> Any:
    a, v = _lines(a, v)
    mode = _mode(mode)
    n, m = sorted((shape_of(a)[0], shape_of(v)[0]), reverse=True)
    if mode == "valid":
        long, short = (a, v) if shape_of(a)[0] == n else (v, a)
        return apply(CORRELATE_LINE, long, np.conjugate(short[::-1]))
    found = apply(CONVOLVE_LINE, a, v)
    return found if mode == "full" else found[(m - 1) // 2 : (m - 1) // 2 + n]


@binds(np.correlate)
def correlate(a: Any, v: Any, mode: Any = "valid") -> Any:
    a, v = _lines(a, v)
    mode = _mode(mode)
    n, m = shape_of(a)[0], shape_of(v)[0]
    if mode == "valid":
        # NumPy exchanges operands where `v` is the longer one, and turns the result.
        return apply(CORRELATE_LINE, a, v) if n >= m else np.conjugate(apply(CORRELATE_LINE, v, a))[::-1]
    found = apply(CONVOLVE_LINE, a, np.conjugate(v[::-1]))
    start = (min(n, m) - 1) // 2 if n >= m else min(n, m) // 2
    return found if mode == "full" else found[start : start + max(n, m)]


# Covariances --------------------------------------------------------------------------------------
def _table(m: Any, rowvar: bool, dtype: Any) -> Any:
    """Return samples with one row for each variable."""
    one = len(shape_of(m)) < 2
    table = cast(np.reshape(m, (1, -1)) if one else m, dtype)
    return table if rowvar or (one or shape_of(table)[0] == 1) else table.T


def _weights(name: str, weights: Any, count: int) -> Any:
    weights = cast(as_operand(weights), np.dtype(np.float64))
    if len(shape_of(weights)) > 1:
        raise RuntimeError(f"cannot handle multidimensional {name}")
    if shape_of(weights)[0] != count:
        raise RuntimeError(f"incompatible numbers of samples and {name}")
    if np.any(plain(weights) < 0):
        raise ValueError(f"{name} cannot be negative")
    return weights


@binds(np.cov)
def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, fweights: Any = None,
        aweights: Any = None, *, dtype: Any = None) -> Any:  # fmt: skip
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")
    given = [as_operand(v) for v in (m, y) if v is not None]
    for name, v in zip("my", given, strict=False):
        if len(shape_of(v)) > 2:
            raise ValueError(f"{name} has more than 2 dimensions")
    kind = np.dtype(np.result_type(*(v.dtype for v in given), np.float64) if dtype is None else dtype)
    m = given[0]
    table = _table(m, rowvar, kind) if len(shape_of(m)) < 2 or rowvar else cast(m, kind).T
    if shape_of(table)[0] == 0:
        return np.zeros((0, 0))
    if y is not None:
        table = np.concatenate([table, _table(given[1], rowvar, kind)], axis=0)
    if ddof is None:
        ddof = 0 if bias else 1
    count = shape_of(table)[1]
    w = None
    if fweights is not None:
        w = _weights("fweights", fweights, count)
        if np.any(plain(w) != np.around(plain(w))):
            raise TypeError("fweights must be integer")
    if aweights is not None:
        by = _weights("aweights", aweights, count)
        w = by if w is None else w * by
    middle, total = np.average(table, axis=1, weights=w, returned=True)
    if w is None:
        freedom: Any = count - ddof
    elif aweights is None or ddof == 0:
        freedom = total[0] - ddof
    else:
        freedom = total[0] - ddof * np.sum(w * by) / total[0]
    if freedom <= 0:
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=user_level())
        freedom = 0.0
    rest = table - middle[:, None]
    found = np.dot(rest, np.conjugate((rest if w is None else rest * w).T))
    with np.errstate(divide="ignore"):
        return np.squeeze(cast(found * np.true_divide(1, freedom), found.dtype))


@binds(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    c = np.cov(x, y, rowvar, dtype=dtype)
    if shape_of(c) == ():
        return c / c
    spread = np.sqrt(np.real(np.diagonal(c)))
    c = c / spread[:, None] / spread[None, :]
    # Only rounding leads beyond 1: what is cut off there is a constant.
    real = plain(np.real(c))
    cut = np.clip(real, -1, 1) - real
    if c.dtype.kind == "c":
        imag = plain(np.imag(c))
        cut = cut + 1j * (np.clip(imag, -1, 1) - imag)
    return c + cut


# Histograms ---------------------------------------------------------------------------------------
@binds(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """Return the edges, with the derivative of what they are made of: `bins`, `range` or the extrema of `a`."""
    settings = [plain_tree(v) for v in (bins, range, weights)]
    edges = plainly(np.histogram_bin_edges, HISTOGRAM_EDGES, plain(a), *settings)
    if not is_traced(bins) and shape_of(bins) == ():
        low, high = (np.min(a), np.max(a)) if range is None else range
        if plain(low) == plain(high):
            low, high = low - 0.5, high + 0.5
        return np.linspace(low, high, edges.shape[0], dtype=edges.dtype)
    return as_operand(bins)


@binds(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    edges = histogram_bin_edges(a, bins, range, weights)
    values = ravel(plain(a))
    flat = plain(edges)
    count = flat.shape[0] - 1
    # The last bin has its right edge, too.
    place: Any = np.searchsorted(flat, values, side="right") - 1
    place = np.where(values == flat[-1], count - 1, place)
    inside = (values >= flat[0]) & (values <= flat[-1])
    if weights is None:
        found = np.bincount(place[inside], minlength=count)
    else:
        weights = ravel(weights)
        if shape_of(weights) != values.shape:
            raise ValueError("weights should have the same shape as a.")
        found = _summed(place[inside], weights[inside], count)
    if density:
        found = found / np.diff(edges) / np.sum(found)
    return found, edges


def _summed(places: Any, weights: Any, count: int) -> Any:
    """Return the sum of the weights at each place, in the dtype of the weights."""
    if weights.dtype.kind == "c":
        parts = [np.bincount(places, part, count) for part in (np.real(weights), np.imag(weights))]
        return cast(parts[0] + 1j * parts[1], weights.dtype)
    return cast(np.bincount(places, weights, count), weights.dtype)
