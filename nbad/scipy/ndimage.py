"""``scipy.ndimage`` on traced values: linear filters and interpolation by splines.

Owns the rows `correlate1d` and `correlate`, whose pullbacks are themselves between `extend` and `fold`, so the adjoint is
exact in every boundary mode. The other filters are composed of them. Interpolation stands in `nbad.scipy.splines`.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> from nbad.scipy import ndimage
>>> peak = lambda x: ndimage.gaussian_filter1d(x, 1.0)[2]
>>> nbad.grad(peak)(np.zeros(5)).round(3)
array([0.058, 0.242, 0.399, 0.242, 0.058])
"""

import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.rules.convolution import correlate as correlated
from nbad.rules.convolution import floating
from nbad.scipy import required, special, splines
from nbad.scipy.extending import FOLD, extended, mode_of
from nbad.scipy.passing import refuse, rest_of, stands_for, static
from nbad.scipy.special_rules import horner
from nbad.table import operation
from nbad.trace import apply, cast, is_traced, plain, underlying

ndimage = required("ndimage")

#: All names with derivatives.
DIFFERENTIABLE = sorted(
    ["convolve", "convolve1d", "correlate", "correlate1d", "gaussian_filter", "gaussian_filter1d", "gaussian_laplace"]
    + ["laplace", "prewitt", "sobel", "uniform_filter", "uniform_filter1d"]
    + ["affine_transform", "map_coordinates", "rotate", "shift", "spline_filter", "spline_filter1d", "zoom"]
)  # fmt: skip


# The rows: y[i] = sum_j conj(w[j]) x[i + j - before] with x continued beyond its edges ------------------
def correlate1d_forward(x, w, *, axis, mode, cval, origin):
    """Return the correlation with `w` along `axis`."""
    return ndimage.correlate1d(x, w, axis, mode=mode, cval=cval, origin=origin)


def correlate_forward(x, w, *, mode, cval, origin):
    """Return the correlation with `w` along all axes."""
    return ndimage.correlate(x, w, mode=mode, cval=cval, origin=origin)


def reach(m: int, origin: int) -> tuple[int, int]:
    """Return how many samples before and after its own place an element of the result reads."""
    before = m // 2 + origin
    return before, m - 1 - before


def opposite(m: int, origin: int) -> int:
    """Return the origin of the reversed weights."""
    return -origin - (1 - m % 2)


def correlate1d_x(g, w, x_shape, axis, mode, origin):
    m = np.shape(w)[0]
    before, after = reach(m, origin)
    g = extended(g, axis, before, after, "constant")
    reverse = np.conj(np.flip(w))
    g = apply(CORRELATE1D, g, reverse, axis=axis, mode="constant", cval=0.0, origin=opposite(m, origin))
    return apply(FOLD, g, axis=axis, before=before, after=after, mode=mode_of(mode))


def correlate1d_w(g, x, axis, mode, cval, origin, w_shape):
    x = extended(x, axis, *reach(w_shape[0], origin), mode_of(mode), cval)
    return np.reshape(correlated(x, g, "valid"), w_shape)


def correlate_x(g, w, mode, origin):
    shape = np.shape(w)
    reaches = [reach(m, o) for m, o in zip(shape, origin, strict=True)]
    for axis, (before, after) in enumerate(reaches):
        g = extended(g, axis, before, after, "constant")
    back = tuple(opposite(m, o) for m, o in zip(shape, origin, strict=True))
    g = apply(CORRELATE, g, np.conj(np.flip(w)), mode="constant", cval=0.0, origin=back)
    for axis, (before, after) in enumerate(reaches):
        g = apply(FOLD, g, axis=axis, before=before, after=after, mode=mode_of(mode))
    return g


def correlate_w(g, x, mode, cval, origin, w_shape):
    for axis, (m, o) in enumerate(zip(w_shape, origin, strict=True)):
        x = extended(x, axis, *reach(m, o), mode_of(mode), cval)
    return correlated(x, g, "valid")


CORRELATE1D = operation(
    correlate1d_forward, name="scipy.ndimage.correlate1d", x=correlate1d_x, w=correlate1d_w
)
CORRELATE = operation(correlate_forward, name="scipy.ndimage.correlate", x=correlate_x, w=correlate_w)


# Arguments ----------------------------------------------------------------------------------------
def image(x: Any, name: str) -> Any:
    """Return `x` as an array of floats or complex numbers."""
    x = operand(x)
    if not is_traced(x) and np.asarray(x).dtype.kind in "iub":
        raise NoRuleError.of(
            f"scipy.ndimage.{name} of integers, which rounds its result,",
            at=user_line(),
            instead="Cast the image with astype(np.float64).",
        )
    return floating(x)


def per_axis(value: Any, count: int) -> list[Any]:
    """Return one value for each axis."""
    if isinstance(value, str) or not np.iterable(value):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise RuntimeError("sequence argument must have length equal to input rank")
    return values


def places(axes: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes asked for, all of them for None."""
    return tuple(range(ndim)) if axes is None else normalize_axis_tuple(axes, ndim)


# Filters of given weights -------------------------------------------------------------------------
@stands_for(ndimage)
def correlate1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Correlate along one axis; derivatives in `input` and `weights`."""
    refuse("ndimage.correlate1d", output=output)
    static("ndimage.correlate1d", cval=cval)
    input, weights = image(input, "correlate1d"), floating(weights)
    mode_of(mode)
    return apply(
        CORRELATE1D, input, weights, axis=normalize_axis_index(axis, input.ndim), mode=mode, cval=cval, origin=int(origin)
    )  # fmt: skip


@stands_for(ndimage)
def convolve1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Convolve along one axis; derivatives in `input` and `weights`."""
    weights = floating(weights)
    reverse = np.conj(np.flip(weights))
    return correlate1d(input, reverse, axis, output, mode, cval, opposite(weights.shape[0], origin))


@stands_for(ndimage)
def correlate(
    input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: Any = 0.0, origin: Any = 0, *,
    axes: Any = None,
) -> Any:  # fmt: skip
    """Correlate along all or some axes; derivatives in `input` and `weights`."""
    refuse("ndimage.correlate", output=output)
    static("ndimage.correlate", cval=cval)
    input, weights = image(input, "correlate"), floating(weights)
    mode_of(mode)
    along = places(axes, input.ndim)
    if weights.ndim != len(along):
        raise RuntimeError(f"weights.ndim ({weights.ndim}) must match len(axes) ({len(along)})")
    shape, origins = [1] * input.ndim, [0] * input.ndim
    for axis, m, o in zip(along, weights.shape, per_axis(origin, len(along)), strict=True):
        shape[axis], origins[axis] = m, int(o)
    order = np.argsort(along)
    weights = np.reshape(np.transpose(weights, order), shape)
    return apply(CORRELATE, input, weights, mode=mode, cval=cval, origin=tuple(origins))


@stands_for(ndimage)
def convolve(
    input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: Any = 0.0, origin: Any = 0, *,
    axes: Any = None,
) -> Any:  # fmt: skip
    """Convolve along all or some axes; derivatives in `input` and `weights`."""
    weights = floating(weights)
    origins = [opposite(m, o) for m, o in zip(weights.shape, per_axis(origin, weights.ndim), strict=True)]
    return correlate(input, np.conj(np.flip(weights)), output, mode, cval, origins, axes=axes)


# Gaussians, means and differences -----------------------------------------------------------------
def gaussian(sigma: Any, order: int, radius: int) -> Any:
    """Return the derivative of the given order of a Gaussian, at ``-radius .. radius``: its values times a polynomial."""
    t = np.arange(-radius, radius + 1.0)
    values = np.exp(-0.5 * (t / sigma) ** 2)
    values = values / np.sum(values)
    polynomial: list[Any] = [1.0]
    for _ in range(order):  # (q exp)' = (q' - t q / sigma^2) exp
        slope = [k * c for k, c in enumerate(polynomial)][1:]
        fall = [0.0, *(-c / sigma**2 for c in polynomial)]
        polynomial = [a + b for a, b in zip([*slope, 0.0, 0.0], fall, strict=True)]
    return values * horner(t, polynomial) if order else values


def _width(truncate: float, sigma: Any) -> int:
    """Return the radius; a recording watches it, not sigma."""
    return int(np.floor(truncate * plain(operand(sigma)) + 0.5))


@stands_for(ndimage)
def gaussian_filter1d(
    input: Any, sigma: Any, axis: int = -1, order: int = 0, output: Any = None, mode: str = "reflect",
    cval: Any = 0.0, truncate: float = 4.0, *, radius: int | None = None,
) -> Any:  # fmt: skip
    """Smooth by a Gaussian along one axis; derivatives in `input` and `sigma` (the radius is constant)."""
    width = _width(truncate, sigma) if radius is None else operator.index(radius)
    weights = np.flip(gaussian(operand(sigma), operator.index(order), width))
    return correlate1d(input, weights, axis, output, mode, cval, 0)


@stands_for(ndimage)
def gaussian_filter(
    input: Any, sigma: Any, order: Any = 0, output: Any = None, mode: Any = "reflect", cval: Any = 0.0,
    truncate: float = 4.0, *, radius: Any = None, axes: Any = None,
) -> Any:  # fmt: skip
    """Smooth by a Gaussian; derivatives in `input` and `sigma` (the radius is constant)."""
    refuse("ndimage.gaussian_filter", output=output)
    y = x = image(input, "gaussian_filter")
    along = places(axes, y.ndim)
    sigmas = list(sigma) if np.ndim(underlying(sigma)) else [sigma] * len(along)
    settings = zip(*(per_axis(v, len(along)) for v in (order, mode, radius)), strict=True)
    for axis, s, (o, m, r) in zip(along, sigmas, settings, strict=True):
        if plain(s) > 1e-15:
            y = gaussian_filter1d(y, s, axis, o, None, m, cval, truncate, radius=r)
    return y if y is not x else np.positive(x)


@stands_for(ndimage)
def uniform_filter1d(
    input: Any, size: int, axis: int = -1, output: Any = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Take the mean of a window along one axis."""
    return correlate1d(input, np.full(int(size), 1 / int(size)), axis, output, mode, cval, origin)


@stands_for(ndimage)
def uniform_filter(
    input: Any, size: Any = 3, output: Any = None, mode: Any = "reflect", cval: Any = 0.0, origin: Any = 0, *,
    axes: Any = None,
) -> Any:  # fmt: skip
    """Take the mean of a window."""
    refuse("ndimage.uniform_filter", output=output)
    y = x = image(input, "uniform_filter")
    along = places(axes, y.ndim)
    settings = zip(along, *(per_axis(v, len(along)) for v in (size, mode, origin)), strict=True)
    for axis, n, m, o in settings:
        if n > 1:
            y = uniform_filter1d(y, int(n), axis, None, m, cval, o)
    return y if y is not x else np.positive(x)


def _difference(
    input: Any, axis: int, output: Any, mode: Any, cval: Any, across: list[float], name: str
) -> Any:
    refuse(f"ndimage.{name}", output=output)
    y = image(input, name)
    axis = normalize_axis_index(axis, y.ndim)
    modes = per_axis(mode, y.ndim)
    y = correlate1d(y, [-1.0, 0.0, 1.0], axis, None, modes[axis], cval)
    for other in range(y.ndim):
        if other != axis:
            y = correlate1d(y, across, other, None, modes[other], cval)
    return y


@stands_for(ndimage)
def sobel(input: Any, axis: int = -1, output: Any = None, mode: Any = "reflect", cval: Any = 0.0) -> Any:
    """Take differences along one axis, smoothed along the others by 1, 2, 1."""
    return _difference(input, axis, output, mode, cval, [1.0, 2.0, 1.0], "sobel")


@stands_for(ndimage)
def prewitt(input: Any, axis: int = -1, output: Any = None, mode: Any = "reflect", cval: Any = 0.0) -> Any:
    """Take differences along one axis, smoothed along the others by 1, 1, 1."""
    return _difference(input, axis, output, mode, cval, [1.0, 1.0, 1.0], "prewitt")


@stands_for(ndimage)
def laplace(
    input: Any, output: Any = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None
) -> Any:  # fmt: skip
    """Sum the second differences along the axes."""
    refuse("ndimage.laplace", output=output)
    x = image(input, "laplace")
    along = places(axes, x.ndim)
    modes = per_axis(mode, len(along))
    parts = [
        correlate1d(x, [1.0, -2.0, 1.0], axis, None, m, cval) for axis, m in zip(along, modes, strict=True)
    ]
    return sum(parts[1:], parts[0]) if parts else np.positive(x)


@stands_for(ndimage)
def gaussian_laplace(
    input: Any, sigma: Any, output: Any = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Sum the second derivatives of a Gaussian along the axes; derivatives in `input` and `sigma`."""
    refuse("ndimage.gaussian_laplace", output=output)
    x = image(input, "gaussian_laplace")
    along = places(axes, x.ndim)
    given = list(sigma) if np.ndim(underlying(sigma)) else [sigma] * len(along)
    sigmas: list[Any] = [0.0] * x.ndim
    for axis, s in zip(along, given, strict=True):
        sigmas[axis] = s
    parts = []
    for axis, m in zip(along, per_axis(mode, len(along)), strict=True):
        orders = [2 if k == axis else 0 for k in range(x.ndim)]
        parts.append(_smoothed(x, sigmas, orders, m, cval, **kwargs))
    return sum(parts[1:], parts[0]) if parts else np.positive(x)


def _smoothed(x: Any, sigmas: list[Any], orders: list[int], mode: str, cval: Any, **kwargs: Any) -> Any:
    """Return what `gaussian_filter` does of a sigma for each axis."""
    for axis, (s, order) in enumerate(zip(sigmas, orders, strict=True)):
        if plain(s) > 1e-15:
            x = gaussian_filter1d(x, s, axis, order, None, mode, cval, **kwargs)
    return x


# Interpolation ------------------------------------------------------------------------------------
def _prepared(name: str, input: Any, output: Any, cval: Any) -> Any:
    refuse(f"ndimage.{name}", output=output)
    static(f"ndimage.{name}", cval=cval)
    return image(input, name)


@stands_for(ndimage)
def spline_filter1d(
    input: Any, order: int = 3, axis: int = -1, output: Any = np.float64, mode: str = "mirror"
) -> Any:  # fmt: skip
    """Return spline coefficients along one axis."""
    refuse("ndimage.spline_filter1d", output=None if output is np.float64 else output)
    x = image(input, "spline_filter1d")
    if order in (0, 1):
        return cast(np.positive(x), np.result_type(x.dtype, np.float64))
    return apply(splines.PREFILTER, x, axis=normalize_axis_index(axis, x.ndim), order=int(order), mode=mode)


@stands_for(ndimage)
def spline_filter(input: Any, order: int = 3, output: Any = np.float64, mode: str = "mirror") -> Any:
    """Return spline coefficients."""
    if order < 2 or order > 5:
        raise RuntimeError("spline order not supported")
    for axis in range(operand(input).ndim):
        input = spline_filter1d(input, order, axis, output, mode)
    return input


@stands_for(ndimage)
def map_coordinates(
    input: Any, coordinates: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: Any = 0.0,
    prefilter: bool = True,
) -> Any:  # fmt: skip
    """Interpolate at points by splines; derivatives in `input` and `coordinates` (none at order 0)."""
    x = _prepared("map_coordinates", input, output, cval)
    p = floating(coordinates)
    if p.dtype.kind == "c":
        raise TypeError("Complex type not supported")
    if p.shape[0] != x.ndim:
        raise RuntimeError("invalid shape for coordinate array")
    return splines.interpolated(x, p, order, mode, cval, prefilter)


@stands_for(ndimage)
def affine_transform(
    input: Any, matrix: Any, offset: Any = 0.0, output_shape: Any = None, output: Any = None, order: int = 3,
    mode: str = "constant", cval: Any = 0.0, prefilter: bool = True,
) -> Any:  # fmt: skip
    """Interpolate at ``matrix @ k + offset``; derivatives in `input`, `matrix` and `offset`."""
    x = _prepared("affine_transform", input, output, cval)
    matrix, offset, n = floating(matrix), floating(offset), x.ndim
    if matrix.ndim == 2 and matrix.shape[1] == n + 1 and matrix.shape[0] in (n, n + 1):
        if matrix.shape[0] == n + 1 and np.any(plain(matrix)[n] != np.eye(n + 1)[n]):
            raise ValueError(
                "Expected a homogeneous transformation matrix, with 0, ..., 0, 1 as its last row"
            )
        offset, matrix = matrix[:n, n], matrix[:n, :n]
    if matrix.ndim not in (1, 2) or matrix.shape[0] != n:
        raise RuntimeError("affine matrix has wrong number of rows")
    grid = np.indices(x.shape if output_shape is None else tuple(output_shape)).astype(np.float64)
    shift = np.broadcast_to(offset, (n,))
    if matrix.ndim == 1:
        points = [(grid[k] + shift[k] / matrix[k]) * matrix[k] for k in range(n)]
    elif matrix.shape[1] != len(grid):
        raise RuntimeError("affine matrix has wrong number of columns")
    else:
        points = [sum(matrix[k, j] * grid[j] for j in range(len(grid))) + shift[k] for k in range(n)]
    return splines.interpolated(x, np.stack(points), order, mode, cval, prefilter)


@stands_for(ndimage)
def shift(
    input: Any, shift: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: Any = 0.0,
    prefilter: bool = True,
) -> Any:  # fmt: skip
    """Shift by splines; derivatives in `input` and `shift`."""
    x = _prepared("shift", input, output, cval)
    by = np.broadcast_to(floating(shift), (x.ndim,))
    grid = np.indices(x.shape).astype(np.float64)
    points = grid - np.reshape(by, (x.ndim, *(1,) * x.ndim))
    return splines.interpolated(x, points, order, mode, cval, prefilter)


@stands_for(ndimage)
def zoom(
    input: Any, zoom: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: Any = 0.0,
    prefilter: bool = True, *, grid_mode: bool = False,
) -> Any:  # fmt: skip
    """Resample to another shape by splines; derivatives in `input`."""
    x = _prepared("zoom", input, output, cval)
    static("ndimage.zoom", zoom=zoom)
    shape = tuple(round(n * z) for n, z in zip(x.shape, per_axis(zoom, x.ndim), strict=True))
    places = []
    for n, m in zip(x.shape, shape, strict=True):
        k = np.arange(float(m))
        if grid_mode:
            places.append((k + 0.5) * (n / m if m else 1.0) - 0.5)
        else:
            places.append(k * ((n - 1) / (m - 1) if m > 1 else 1.0))
    points = np.stack(np.meshgrid(*places, indexing="ij"))
    return splines.interpolated(x, points, order, mode, cval, prefilter)


@stands_for(ndimage)
def rotate(
    input: Any, angle: Any, axes: Any = (1, 0), reshape: bool = True, output: Any = None, order: int = 3,
    mode: str = "constant", cval: Any = 0.0, prefilter: bool = True,
) -> Any:  # fmt: skip
    """Rotate in a plane by an angle in degrees; derivatives in `input` and `angle` (the shape is constant)."""
    x = _prepared("rotate", input, output, cval)
    if x.ndim < 2:
        raise ValueError("input array should be at least 2D")
    plane = sorted(normalize_axis_tuple(axes, x.ndim))
    if len(plane) != 2:
        raise ValueError("axes should contain exactly two values")
    x = np.moveaxis(x, plane, (0, 1))
    c, s = special.cosdg(angle), special.sindg(angle)
    high, wide = shape = x.shape[:2]
    if reshape:
        extents = abs(plain(c)) * high + abs(plain(s)) * wide, abs(plain(s)) * high + abs(plain(c)) * wide
        shape = int(np.floor(extents[0] + 0.5)), int(np.floor(extents[1] + 0.5))
    row, column = np.indices(shape).astype(np.float64)
    middle = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    points = np.stack([
        c * row + s * column + ((high - 1) / 2 - (c * middle[0] + s * middle[1])),
        -s * row + c * column + ((wide - 1) / 2 - (-s * middle[0] + c * middle[1])),
    ])  # fmt: skip
    return np.moveaxis(splines.interpolated(x, points, order, mode, cval, prefilter), (0, 1), plane)


def __getattr__(name: str) -> Any:
    """Return what else SciPy has, for plain arrays."""
    return rest_of(ndimage, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted(ndimage.__all__)
