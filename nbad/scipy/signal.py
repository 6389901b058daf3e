"""``scipy.signal`` on traced values: convolution, linear filters, resampling.

Owns the rows `lfilter` and `lags` (whose pullbacks are each other and themselves) and `detrend`; the rest is composed of these,
of `nbad.convolve` and of transforms. What has no rule takes plain arrays only.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> from nbad.scipy import signal
>>> energy = lambda a: np.sum(signal.lfilter(np.array([1.0]), a, np.ones(3)) ** 2)
>>> nbad.grad(energy)(np.array([1.0, -0.5])).round(6)
array([-17.625, -10.   ])
"""

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.rules import convolution
from nbad.scipy import required
from nbad.scipy.extending import extended, mode_of
from nbad.scipy.passing import rest_of, stands_for, static
from nbad.table import operation
from nbad.trace import apply

signal = required("signal")

#: All names with derivatives.
DIFFERENTIABLE = sorted(
    ["convolve", "convolve2d", "correlate", "correlate2d", "detrend", "fftconvolve", "filtfilt", "hilbert", "lfilter"]
    + ["lfilter_zi", "oaconvolve", "resample", "savgol_filter", "sosfilt", "sosfilt_zi", "sosfiltfilt"]
)  # fmt: skip


# Convolution --------------------------------------------------------------------------------------
@stands_for(signal)
def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """Convolve along all axes. By transforms for each `method`: the results are equal up to rounding."""
    return _convolved(convolution.convolve, in1, in2, mode, method)


@stands_for(signal)
def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """Correlate along all axes. By transforms for each `method`: the results are equal up to rounding."""
    return _convolved(convolution.correlate, in1, in2, mode, method)


@stands_for(signal)
def fftconvolve(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> Any:
    """Convolve along `axes` by transforms of the whole arrays."""
    return _along(in1, in2, _checked(mode), axes, "fft")


@stands_for(signal)
def oaconvolve(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> Any:
    """Convolve along `axes` by transforms of blocks."""
    return _along(in1, in2, _checked(mode), axes, "overlap-add")


def _along(in1: Any, in2: Any, mode: str, axes: Any, method: str) -> Any:
    """Convolve along `axes`, with what SciPy does to axes of length 1: they broadcast, and "same" takes the middle."""
    in1, in2 = convolution.floating(in1), convolution.floating(in2)
    if in1.ndim != in2.ndim:
        raise ValueError("in1 and in2 should have the same dimensionality")
    axes = convolution.axes_of(axes, in1.ndim, "fftconvolve")
    pairs = list(zip(in1.shape, in2.shape, strict=True))
    along = tuple(axis for axis in axes if 1 not in pairs[axis])
    if mode == "same":
        whole = slice(None)
        in2 = in2[tuple(slice((m - 1) // 2, (m + 1) // 2) if n == 1 < m else whole for n, m in pairs)]
    return convolution.convolve(in1, in2, mode, along, method) if along else in1 * in2


def _convolved(function: Any, in1: Any, in2: Any, mode: str, method: str) -> Any:
    if method not in ("auto", "direct", "fft"):
        raise ValueError(f"Acceptable methods are 'auto', 'direct', or 'fft', not {method!r}")
    in1, in2 = operand(in1), operand(in2)
    if np.ndim(in1) == 0 and np.ndim(in2) == 0:
        return in1 * (np.conjugate(in2) if function is convolution.correlate else in2)
    return function(in1, in2, _checked(mode), None, "fft" if method == "fft" else "auto")


def _checked(mode: str) -> str:
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"Acceptable mode flags are 'valid', 'same', or 'full', not {mode!r}")
    return mode


@stands_for(signal)
def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Convolve two matrices; beyond the edges `in1` is continued as `boundary` says."""
    return _plane(convolution.convolve, in1, in2, mode, boundary, fillvalue)


@stands_for(signal)
def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Correlate two matrices; beyond the edges `in1` is continued as `boundary` says."""
    return _plane(convolution.correlate, in1, in2, mode, boundary, fillvalue)


def _plane(function: Any, in1: Any, in2: Any, mode: str, boundary: str, fillvalue: Any) -> Any:
    static(f"signal.{function.__name__}2d", fillvalue=fillvalue)
    in1, in2 = convolution.floating(in1), convolution.floating(in2)
    if in1.ndim != 2 or in2.ndim != 2:
        raise ValueError(f"{function.__name__}2d inputs must both be 2-D arrays")
    kind = mode_of(boundary, ("constant", "wrap", "reflect"))
    if _checked(mode) == "valid":
        if any(
            n < m for n, m in zip(in1.shape, in2.shape, strict=True)
        ):  # as SciPy: the other one is conjugated
            return (
                np.flip(function(in2, in1, "valid"))
                if function is convolution.correlate
                else function(in2, in1, "valid")
            )
        return function(in1, in2, "valid")
    for axis, m in enumerate(in2.shape):
        before = after = m - 1
        if mode == "same":
            low = (m - 1) // 2
            before, after = (low, m - 1 - low) if function is convolution.correlate else (m - 1 - low, low)
        in1 = extended(in1, axis, before, after, kind, fillvalue)
    return function(in1, in2, "valid")


# Linear filters: the rows -------------------------------------------------------------------------
def lfilter_forward(b, a, x, *, axis):
    """Return y with ``sum_k a[k] y[n - k] = sum_k b[k] x[n - k]``."""
    return signal.lfilter(b, a, x, axis)


def filtered_cotangent(g, a, axis):
    """Return the adjoint of the recursion ``1 / a`` on `g`: the filter run backwards in time."""
    one = np.ones(1, g.dtype)
    return np.flip(lfilter(one, np.conj(a), np.flip(g, axis), axis), axis)


def lfilter_b(filtered, x, axis, b_shape):
    return apply(LAGS, filtered, x, count=b_shape[0], axis=axis)


def lfilter_a(filtered, y, axis, a_shape):
    return -apply(LAGS, filtered, y, count=a_shape[0], axis=axis)


def lfilter_x(g, b, a, axis):
    return np.flip(lfilter(np.conj(b), np.conj(a), np.flip(g, axis), axis), axis)


def lags_forward(x, v, *, count, axis):
    """Return ``sum_n x[n] conj(v[n - k])`` for k below `count`, summed over all other axes."""
    x, v = np.moveaxis(x, axis, -1), np.moveaxis(np.conj(v), axis, -1)
    n = x.shape[-1]
    sums = [np.sum(x[..., k:] * v[..., : max(n - k, 0)]) for k in range(count)]
    return np.array(sums, np.result_type(x, v))


def lags_x(g, v, axis):
    return lfilter(g, np.ones(1, g.dtype), v, axis)


def lags_v(g, x, axis):
    return np.flip(lfilter(np.conj(g), np.ones(1, g.dtype), np.flip(x, axis), axis), axis)


def detrend_forward(x, *, axis, kind, breaks):
    """Return `x` minus its mean or line, between breaks: an orthogonal projection."""
    return signal.detrend(x, axis, kind, bp=np.asarray(breaks))


def detrend_x(g, axis, kind, breaks):
    return apply(DETREND, g, axis=axis, kind=kind, breaks=breaks)


LFILTER = operation(
    lfilter_forward, name="scipy.signal.lfilter", shared={"filtered": filtered_cotangent},
    b=lfilter_b, a=lfilter_a, x=lfilter_x,
)  # fmt: skip
LAGS = operation(lags_forward, name="scipy.signal.lags", x=lags_x, v=lags_v)
DETREND = operation(detrend_forward, name="scipy.signal.detrend", linear=True, x=detrend_x)


# Linear filters: the functions --------------------------------------------------------------------
@stands_for(signal)
def lfilter(b: Any, a: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    """Filter `x` along `axis` by the quotient of `b` and `a`; with `zi` return the state at the end too."""
    b, a, x = (np.atleast_1d(convolution.floating(v)) for v in (b, a, x))
    if b.ndim != 1 or a.ndim != 1:
        raise ValueError("object of too small depth for desired array: a and b must be vectors")
    axis = normalize_axis_index(axis, x.ndim)
    if zi is None:
        return apply(LFILTER, b, a, x, axis=axis)
    x = np.moveaxis(x, axis, -1)
    count = max(a.shape[0], b.shape[0]) - 1
    zi = np.moveaxis(convolution.floating(zi), axis, -1)
    zi = np.broadcast_to(zi, (*x.shape[:-1], count))
    y = _started(b, a, x, zi)
    # What the state would still give: the rest of b * x - a * y beyond the end, and of zi where x is shorter.
    n = x.shape[-1]
    kept = min(n, count)
    past_x, past_y = (extended(v[..., n - kept :], x.ndim - 1, 0, count, "constant") for v in (x, y))
    one = np.ones(1, np.result_type(b.dtype, a.dtype, x.dtype))
    rest = lfilter(b, one, past_x)[..., kept:] - lfilter(a, one, past_y)[..., kept:]
    left = extended(zi[..., min(n, count) :], x.ndim - 1, 0, min(n, count), "constant")
    return np.moveaxis(y, -1, axis), np.moveaxis(rest / a[0] + left, -1, axis)


def _started(b: Any, a: Any, x: Any, zi: Any) -> Any:
    """Return `x` filtered along the last axis from the state `zi`."""
    n, count = x.shape[-1], zi.shape[-1]
    inflow = zi[..., :n] if count >= n else extended(zi, x.ndim - 1, 0, n - count, "constant")
    return lfilter(b, a, x) + lfilter(a[:1], a, inflow)


@stands_for(signal)
def lfilter_zi(b: Any, a: Any) -> Any:
    """Return the state of a filter in the steady response to a step."""
    b, a = (np.atleast_1d(convolution.floating(v)) for v in (b, a))
    count = max(a.shape[0], b.shape[0])
    b, a = (extended(v / a[0], 0, 0, count - v.shape[0], "constant") for v in (b, a))
    rise = b[1:] - a[1:] * b[0]
    first = np.sum(rise) / np.sum(a)
    return first * (1 + np.cumsum(a[1:]) - a[1:]) - (np.cumsum(rise) - rise) if count > 1 else b[1:]


@stands_for(signal)
def filtfilt(
    b: Any, a: Any, x: Any, axis: int = -1, padtype: str | None = "odd", padlen: int | None = None,
    method: str = "pad", irlen: int | None = None,
) -> Any:  # fmt: skip
    """Filter forward and backward in time, from the steady state at the edges."""
    if method != "pad":
        raise NoRuleError.of(
            "scipy.signal.filtfilt with method='gust'", at=user_line(), instead="Use method='pad'."
        )
    b, a, x = (np.atleast_1d(convolution.floating(v)) for v in (b, a, x))
    zi = lfilter_zi(b, a)
    edge = 3 * max(a.shape[0], b.shape[0]) if padlen is None else padlen

    def run(x: Any) -> Any:
        return _started(b, a, x, zi * x[..., :1])

    return _both_ways(run, x, axis, padtype, edge)


def _both_ways(run: Any, x: Any, axis: int, padtype: str | None, edge: int) -> Any:
    """Return `x`, continued by `edge` samples, filtered forward and backward along `axis` by `run`."""
    if padtype not in ("even", "odd", "constant", None):
        raise ValueError(f"Unknown value {padtype!r} given to padtype")
    edge = edge if padtype is not None else 0
    x = np.moveaxis(x, axis, -1)
    n, last = x.shape[-1], x.ndim - 1
    if n <= edge:
        raise ValueError(f"The length of the input vector x must be greater than padlen, which is {edge}.")
    if edge:
        long = extended(x, last, edge, edge, "nearest" if padtype == "constant" else "mirror")
        if padtype == "odd":
            low, high = 2 * x[..., :1] - long[..., :edge], 2 * x[..., -1:] - long[..., edge + n :]
            long = np.concatenate([low, x, high], axis=-1)
        x = long
    y = np.flip(run(np.flip(run(x), -1)), -1)
    return np.moveaxis(y[..., edge : edge + n], -1, axis)


@stands_for(signal)
def sosfilt(sos: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    """Filter `x` along `axis` by second-order sections, one after the other."""
    sos, x = _sections(sos), convolution.floating(x)
    states = []
    for k, section in enumerate(sos):
        if zi is None:
            x = lfilter(section[:3], section[3:], x, axis)
        else:
            x, state = lfilter(section[:3], section[3:], x, axis, operand(zi)[k])
            states.append(state)
    return x if zi is None else (x, np.stack(states))


def _sections(sos: Any) -> Any:
    sos = convolution.floating(sos)
    if sos.ndim != 2 or sos.shape[1] != 6:
        raise ValueError("sos array must be shape (n_sections, 6)")
    return sos


@stands_for(signal)
def sosfilt_zi(sos: Any) -> Any:
    """Return the states of second-order sections in the steady response to a step."""
    gain, states = 1.0, []
    for section in _sections(sos):
        states.append(gain * lfilter_zi(section[:3], section[3:]))
        gain = gain * np.sum(section[:3]) / np.sum(section[3:])
    return np.stack(states)


@stands_for(signal)
def sosfiltfilt(
    sos: Any, x: Any, axis: int = -1, padtype: str | None = "odd", padlen: int | None = None
) -> Any:  # fmt: skip
    """Filter forward and backward in time by second-order sections."""
    sos, x = _sections(sos), convolution.floating(x)
    zi = sosfilt_zi(sos)
    taps = 2 * sos.shape[0] + 1
    taps -= min(int(np.sum(sos[:, k] == 0)) for k in (2, 5))

    def run(x: Any) -> Any:
        first = x[..., :1]
        for section, state in zip(sos, zi, strict=True):
            x = _started(section[:3], section[3:], x, state * first)
        return x

    return _both_ways(run, x, axis, padtype, 3 * taps if padlen is None else padlen)


@stands_for(signal)
def detrend(
    data: Any, axis: int = -1, type: str = "linear", bp: Any = 0, overwrite_data: bool = False
) -> Any:
    """Return `data` minus its mean or line along `axis`, between the breaks `bp`."""
    kind = {"l": "linear", "c": "constant"}.get(type, type)
    breaks = tuple(int(k) for k in np.atleast_1d(bp))
    return apply(DETREND, convolution.floating(data), axis=int(axis), kind=kind, breaks=breaks)


@stands_for(signal)
def savgol_filter(
    x: Any, window_length: int, polyorder: int, deriv: int = 0, delta: float = 1.0, axis: int = -1,
    mode: str = "interp", cval: float = 0.0,
) -> Any:  # fmt: skip
    """Smooth `x` along `axis` by polynomials fitted to windows."""
    static("signal.savgol_filter", delta=delta, cval=cval)
    if mode not in ("mirror", "constant", "nearest", "interp", "wrap"):
        raise ValueError("mode must be 'mirror', 'constant', 'nearest' 'wrap' or 'interp'.")
    x = np.moveaxis(convolution.floating(x), axis, -1)
    weights = signal.savgol_coeffs(window_length, polyorder, deriv=deriv, delta=delta, use="dot")
    n, half = x.shape[-1], window_length // 2
    if mode == "interp" and window_length > n:
        raise ValueError("If mode is 'interp', window_length must be less than or equal to the size of x.")
    kind = "constant" if mode == "interp" else mode
    long = extended(x, x.ndim - 1, (window_length - 1) // 2, half, kind, cval)
    kernel = np.reshape(weights.astype(x.dtype), (*(1,) * (x.ndim - 1), window_length))
    y = convolution.correlate(long, kernel, "valid", axes=-1)
    if mode == "interp":
        # The polynomials of the first and the last window, at their own places.
        unit = np.eye(window_length)
        fit = signal.savgol_filter(unit, window_length, polyorder, deriv, delta, 0).astype(x.dtype)
        low, high = (
            x[..., :window_length] @ fit[:half].T,
            x[..., n - window_length :] @ fit[window_length - half :].T,
        )
        y = np.concatenate([low, y[..., half : n - half], high], axis=-1)
    return np.moveaxis(y, -1, axis)


# Transforms ---------------------------------------------------------------------------------------
@stands_for(signal)
def hilbert(x: Any, N: int | None = None, axis: int = -1) -> Any:
    """Return the analytic signal of a real `x`."""
    x = convolution.floating(x)
    if x.dtype.kind == "c":
        raise ValueError("x must be real.")
    n = x.shape[axis] if N is None else int(N)
    if n <= 0:
        raise ValueError("N must be positive.")
    weights = np.zeros(n, x.dtype)
    weights[0] = 1
    weights[1 : (n + 1) // 2] = 2
    weights[n // 2] = 1 if n % 2 == 0 else weights[n // 2]
    shape = np.ones(x.ndim, int)
    shape[axis] = n
    return np.fft.ifft(np.fft.fft(x, n, axis) * weights.reshape(shape), axis=axis)


@stands_for(signal)
def resample(
    x: Any, num: int, t: Any = None, axis: int = 0, window: Any = None, domain: str = "time"
) -> Any:  # fmt: skip
    """Resample `x` to `num` samples along `axis` by its spectrum."""
    static("signal.resample", t=t, window=window)
    if domain not in ("time", "freq"):
        raise ValueError(f"Parameter {domain=} not in ('time', 'freq')!")
    x = np.moveaxis(convolution.floating(x), axis, -1)
    n, last = x.shape[-1], x.ndim - 1
    real = domain == "time" and x.dtype.kind == "f"
    spectrum = np.fft.fft(x) if domain == "time" else x
    if window is not None:
        if callable(window):
            w = np.asarray(window(np.fft.fftfreq(n)))
        elif hasattr(window, "shape"):
            w = np.asarray(window)
        else:
            w = np.fft.ifftshift(signal.get_window(window, n))
        if w.shape != (n,):
            raise ValueError("window must have the same length as data")
        spectrum = spectrum * w.astype(np.zeros(0, spectrum.dtype).real.dtype)
    m = min(n, num)
    low, high = spectrum[..., : (m + 1) // 2], spectrum[..., n - (m - 1) // 2 :]
    if m % 2 == 0:
        # The bin in the middle stands for both signs: halved where it is split, summed where two are united.
        pair = spectrum[..., m // 2 : m // 2 + 1]
        if num < n:
            middle = [pair + spectrum[..., n - m // 2 : n - m // 2 + 1]]
        elif num > n:
            middle = [0.5 * pair, np.zeros((*x.shape[:-1], num - m - 1), spectrum.dtype), 0.5 * pair]
        else:
            middle = [pair]
    else:
        middle = [np.zeros((*x.shape[:-1], num - m), spectrum.dtype)]
    y = np.fft.ifft(np.concatenate([low, *middle, high], axis=last)) * (num / n)
    y = np.moveaxis(np.real(y) if real else y, -1, axis)
    return y if t is None else (y, t[0] + (t[1] - t[0]) * (n / num) * np.arange(num))


def __getattr__(name: str) -> Any:
    """Return what else SciPy has, for plain arrays."""
    return rest_of(signal, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted(signal.__all__)
