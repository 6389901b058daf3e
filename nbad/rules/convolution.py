"""Convolution and correlation through the FFT, each the adjoint of the other.

Owns the op `filter`, which is both, and the public `convolve` and `correlate`. In a box of cyclic length, with
``x^`` the transform of x placed in it,

    y = crop(ifft(u^ v^))           convolution
    y = crop(ifft(u^ conj(v^)))     correlation

and with ``g^`` the transform of the cotangent placed where y was cropped, the cotangents are

    u: crop(ifft(g^ conj(v^)))      v: crop(ifft(g^ conj(u^)))      convolution
    u: crop(ifft(g^ v^))            v: crop(ifft(u^ conj(g^)))      correlation

So the pullback of u reads only the spectrum of v, and the other way round; ``g^`` is made once if both are asked for. The work
is done by the jitted passes of `nbad.kernels.convolution`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbad.keeping import operand
from nbad.kernels import convolution as passes
from nbad.rules import overlap
from nbad.table import operation
from nbad.trace import apply, cast, is_traced

#: How a spectrum enters `filter_by_spectrum`.
TIMES, TIMES_CONJ, CONJ_TIMES = "x h", "x conj(h)", "conj(x) h"


# The op: forward, shared spectra, rules -------------------------------------------------------------
def filter_forward(u, v, *, lengths, axes, real, u_start, v_start, out_start, out_shape, conj):
    """Return the part of the cyclic convolution (correlation if `conj`) of `u` and `v` in a box of `lengths`."""
    if is_traced(u) or is_traced(v):
        return apply(
            FILTER, u, v, lengths=lengths, axes=axes, real=real,
            u_start=u_start, v_start=v_start, out_start=out_start, out_shape=out_shape, conj=conj,
        )  # fmt: skip
    v_hat = passes.spectrum(v, lengths, axes, real, v_start)
    return passes.filter(u, u_start, lengths, v_hat, conj, out_start, out_shape, axes, real)[0]


def u_hat(u, lengths, axes, real, u_start):
    # A traced operand stands for its own spectrum: the rules then use the op itself.
    return u if is_traced(u) else passes.spectrum(u, lengths, axes, real, u_start)


def v_hat(v, lengths, axes, real, v_start):
    return v if is_traced(v) else passes.spectrum(v, lengths, axes, real, v_start)


def filter_u(g, v_hat, u_shape, lengths, axes, real, u_start, v_start, out_start, conj):
    shape = lengths_of(u_shape, axes)
    if is_traced(v_hat):
        return apply(
            FILTER, g, v_hat, lengths=lengths, axes=axes, real=real,
            u_start=out_start, v_start=v_start, out_start=u_start, out_shape=shape, conj=not conj,
        )  # fmt: skip
    how = TIMES if conj else TIMES_CONJ
    return apply(
        FILTER_BY_SPECTRUM, g, v_hat, lengths=lengths, axes=axes, real=real,
        start=out_start, out_start=u_start, out_shape=shape, how=how,
    )  # fmt: skip


def filter_v(g, u_hat, v_shape, lengths, axes, real, u_start, v_start, out_start, conj):
    shape = lengths_of(v_shape, axes)
    if is_traced(u_hat):
        first, second = (u_hat, g) if conj else (g, u_hat)
        first_start, second_start = (u_start, out_start) if conj else (out_start, u_start)
        return apply(
            FILTER, first, second, lengths=lengths, axes=axes, real=real,
            u_start=first_start, v_start=second_start, out_start=v_start, out_shape=shape, conj=True,
        )  # fmt: skip
    how = CONJ_TIMES if conj else TIMES_CONJ
    return apply(
        FILTER_BY_SPECTRUM, g, u_hat, lengths=lengths, axes=axes, real=real,
        start=out_start, out_start=v_start, out_shape=shape, how=how,
    )  # fmt: skip


def lengths_of(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes)


class _FilterKernel:
    """The op on plain ndarrays: no transform twice, none that nobody reads."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the output and the spectra that a pullback may read; three transforms."""
        u, v = operands
        a = attributes
        kernel = passes.spectrum(v, a["lengths"], a["axes"], a["real"], a["v_start"])
        y, made = passes.filter(
            u, a["u_start"], a["lengths"], kernel, a["conj"], a["out_start"], a["out_shape"], a["axes"], a["real"],
            keep_spectrum="u_hat" in wanted,
        )  # fmt: skip
        spectra = {"u_hat": made, "v_hat": kernel}
        return y, {name: spectra[name] for name in wanted}

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, np.ndarray]:
        """Return the asked cotangents: two transforms for one operand, three for both."""
        a = attributes
        lengths, axes, real, conj = a["lengths"], a["axes"], a["real"], a["conj"]
        starts = (a["u_start"], a["v_start"])
        if (
            len(asked) == 1
            and not (conj and asked == (1,))
            and not _is_summed(shapes[asked[0]], g.shape, axes)
        ):
            # The product of the spectra is formed between the two halves of one pass over memory.
            k = asked[0]
            other = shared["v_hat" if k == 0 else "u_hat"]
            y, _ = passes.filter(
                g,
                a["out_start"],
                lengths,
                other,
                k == 1 or not conj,
                starts[k],
                lengths_of(shapes[k], axes),
                axes,
                real,
            )
            return {k: y}
        g_hat = passes.spectrum(g, lengths, axes, real, a["out_start"])
        found = {}
        for k in asked:
            other = shared["v_hat" if k == 0 else "u_hat"]
            found[k] = self._from_spectra(
                k, g_hat, other, g.shape, shapes[k], starts[k], lengths, axes, real, conj
            )
        return found

    def _from_spectra(
        self, k: int, g_hat: Any, other: Any, full: Any, shape: Any, start: Any, lengths: Any, axes: Any, real: Any, conj: Any
    ) -> Any:  # fmt: skip
        """Return the cotangent of operand `k` from two spectra; sums over broadcast batch axes come before the transform."""
        crop = lengths_of(shape, axes)
        first, second = (other, g_hat) if conj and k == 1 else (g_hat, other)
        if conj and k == 0:
            return passes.filter_from_spectrum(first, second, False, lengths, axes, real, start, crop)
        batch = [axis for axis in range(len(full)) if axis not in axes]
        reduced = [i for i, axis in enumerate(batch) if shape[axis] == 1 and full[axis] != 1]
        gone = {batch[i] for i in reduced}
        left = [axis for axis in range(len(full)) if axis not in gone]
        y = passes.correlate_spectra(
            first, second, lengths, [left.index(axis) for axis in axes], real, reduced, start, crop
        )
        return y.reshape(shape)


def _is_summed(shape: Sequence[int], full: Sequence[int], axes: Sequence[int]) -> bool:
    """Return whether batch axes of an operand were broadcast."""
    return any(shape[axis] != full[axis] for axis in range(len(full)) if axis not in axes)


FILTER = operation(
    filter_forward, shared={"u_hat": u_hat, "v_hat": v_hat}, kernel=_FilterKernel(), u=filter_u, v=filter_v
)


# The op with a spectrum at hand: what the rules use when only the cotangent is traced ---------------
def filter_by_spectrum_forward(x, h_hat, *, lengths, axes, real, start, out_start, out_shape, how):
    """Return the part of ``ifft(x^ h^)`` (or with one of them conjugated) that was asked for."""
    if is_traced(x):
        return apply(
            FILTER_BY_SPECTRUM, x, h_hat, lengths=lengths, axes=axes, real=real,
            start=start, out_start=out_start, out_shape=out_shape, how=how,
        )  # fmt: skip
    if how == CONJ_TIMES:
        x_hat = passes.spectrum(x, lengths, axes, real, start)
        return passes.filter_from_spectrum(h_hat, x_hat, True, lengths, axes, real, out_start, out_shape)
    conj = how == TIMES_CONJ
    return passes.filter(x, start, lengths, h_hat, conj, out_start, out_shape, axes, real)[0]


def filter_by_spectrum_x(g, h_hat, x_shape, lengths, axes, real, start, out_start, how):
    back = {TIMES: TIMES_CONJ, TIMES_CONJ: TIMES, CONJ_TIMES: CONJ_TIMES}[how]
    return apply(
        FILTER_BY_SPECTRUM, g, h_hat, lengths=lengths, axes=axes, real=real,
        start=out_start, out_start=start, out_shape=lengths_of(x_shape, axes), how=back,
    )  # fmt: skip


FILTER_BY_SPECTRUM = operation(filter_by_spectrum_forward, x=filter_by_spectrum_x)


# The parts of it, which a compiled program shares between filters; made after differentiation ------------
def spectrum_forward(x, *, lengths, axes, real, start):
    """Return the spectrum of `x` placed in a box of `lengths`, in the layout of the passes."""
    return passes.spectrum(x, lengths, axes, real, start)


def spectra_product_forward(a_hat, b_hat, *, conj, lengths, axes, real, reduced, out_start, out_shape):
    """Return the part of ``ifft(a^ b^)`` (``a^ conj(b^)`` if `conj`) that was asked for, summed over batch axes `reduced`.

    `axes` are those of the result; a sum needs `conj`.
    """
    if reduced:
        return passes.correlate_spectra(a_hat, b_hat, lengths, axes, real, reduced, out_start, out_shape)
    return passes.filter_from_spectrum(a_hat, b_hat, conj, lengths, axes, real, out_start, out_shape)


def filter_keeping_forward(x, h_hat, *, lengths, axes, real, start, out_start, out_shape, conj):
    """Return what `filter_by_spectrum` does, and the spectrum of `x`."""
    return passes.filter(
        x, start, lengths, h_hat, conj, out_start, out_shape, axes, real, keep_spectrum=True
    )  # fmt: skip


SPECTRUM = operation(spectrum_forward)
SPECTRA_PRODUCT = operation(spectra_product_forward)
FILTER_KEEPING = operation(filter_keeping_forward, outputs=2)


# The public functions -------------------------------------------------------------------------------
def convolve(
    u: Any, v: Any, mode: str = "full", axes: int | Sequence[int] | None = None, method: str = "auto"
) -> Any:
    """Convolve two arrays along some or all axes, by FFT.

    Parameters
    ----------
    u, v : array_like, shapes (..., n, ...) and (..., m, ...)
        Real or complex. Axes that are not in `axes` are batch axes and broadcast.
    mode : {"full", "same", "valid", "wrap"}
        What is returned along each of `axes`: all ``n + m - 1`` samples; the central part of the size of `u`; the
        ``abs(n - m) + 1`` samples that do not touch the zero padding; or the cyclic convolution of
        period ``n``, which needs ``m <= n``.
    axes : int or sequence of int, optional
        Axes to convolve along; default all, and then `u` and `v` have the same number of dimensions.
    method : {"auto", "fft", "overlap-add"}
        Transforms of the whole arrays; or of blocks of the longer one, which are added up, for a long array and a short kernel
        (not for "wrap"); or what is faster. The results are equal up to rounding.

    Returns
    -------
    ndarray or traced value
        ``y[k] = sum_j u[k - j] v[j]`` in the common dtype of `u` and `v`.

    Raises
    ------
    ValueError
        An unknown mode or method, empty arrays, axes or shapes that do not fit.

    Notes
    -----
    Three transforms forward, two for the gradient in one operand, three for both. Transforms are
    real-to-complex when both operands are real, of fast lengths (except for "wrap"), and use all threads. With "fft" it is
    what SciPy calls ``fftconvolve``, with "overlap-add" ``oaconvolve``.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> np.round(nbad.convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])), 12)
    array([0. , 1. , 2.5, 4. , 1.5])
    >>> f = lambda u, v: np.sum(nbad.convolve(u, v, mode="wrap"))
    >>> np.round(nbad.grad(f)(np.ones(4), np.array([1.0, 2.0])), 12)
    array([3., 3., 3., 3.])
    """
    return _run(u, v, mode, axes, method, conj=False, name="convolve")


def correlate(
    u: Any, v: Any, mode: str = "full", axes: int | Sequence[int] | None = None, method: str = "auto"
) -> Any:
    """Correlate two arrays along some or all axes, by FFT.

    Parameters
    ----------
    u, v : array_like, shapes (..., n, ...) and (..., m, ...)
        Real or complex. Axes that are not in `axes` are batch axes and broadcast.
    mode : {"full", "same", "valid", "wrap"}
        As for `convolve`; "full" starts at lag ``-(m - 1)``, "wrap" at lag 0.
    axes : int or sequence of int, optional
        Axes to correlate along; default all.
    method : {"auto", "fft", "overlap-add"}
        As for `convolve`.

    Returns
    -------
    ndarray or traced value
        ``y[k] = sum_j u[k + j] conj(v[j])``, with k from ``-(m - 1)`` on for "full", in the common dtype.

    Raises
    ------
    ValueError
        As `convolve`.

    Notes
    -----
    ``correlate(y, v, "wrap")`` is the adjoint of ``convolve(u, v, "wrap")`` in `u`.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> np.round(nbad.correlate(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])), 12)
    array([0.5, 2. , 3.5, 3. , 0. ])
    """
    return _run(u, v, mode, axes, method, conj=True, name="correlate")


def _run(u: Any, v: Any, mode: str, axes: Any, method: str, *, conj: bool, name: str) -> Any:
    u, v = floating(u), floating(v)
    if axes is None and u.ndim != v.ndim:
        raise ValueError(
            f"{name}: u has {u.ndim} dimensions and v has {v.ndim}; give axes= or reshape one of them"
        )
    ndim = max(u.ndim, v.ndim)
    if ndim == 0:
        raise ValueError(f"{name}: u and v must have at least one dimension")
    if u.ndim < ndim:
        u = np.reshape(u, (1,) * (ndim - u.ndim) + u.shape)
    if v.ndim < ndim:
        v = np.reshape(v, (1,) * (ndim - v.ndim) + v.shape)
    along = axes_of(axes, ndim, name)
    dtype = np.result_type(u.dtype, v.dtype)
    u, v = (x if x.dtype == dtype else cast(x, dtype) for x in (u, v))
    if u.size == 0 or v.size == 0:
        raise ValueError(f"{name}: an operand is empty (shapes {u.shape} and {v.shape})")
    real = dtype.kind == "f"
    n, m = lengths_of(u.shape, along), lengths_of(v.shape, along)
    check_batch(u.shape, v.shape, along, name)
    _check_method(method, mode, name)
    zeros = (0,) * len(along)
    if mode == "wrap":
        if any(b > a for a, b in zip(n, m, strict=True)):
            raise ValueError(f"{name}: mode 'wrap' has the period of u, {n}, and v is longer: {m}")
        starts, out_start, out_shape, lengths = zeros, zeros, n, n
    else:
        out_start, out_shape = part_of(n, m, mode, conj, name)
        if method == "overlap-add" or (method == "auto" and overlap.pays(n, m)):
            return _by_blocks(u, v, along, out_start, out_shape, real, conj)
        starts = zeros
        if conj:  # what is not asked for need not be in the box, so u and the result begin earlier by as much
            shifts = tuple(min(start, b - 1) for start, b in zip(out_start, m, strict=True))
            starts = tuple(b - 1 - shift for b, shift in zip(m, shifts, strict=True))
        lengths = box_lengths(n, m, out_start, out_shape, real)
        if conj:
            out_start = tuple(start - shift for start, shift in zip(out_start, shifts, strict=True))
    return apply(
        FILTER, u, v, lengths=lengths, axes=along, real=real,
        u_start=starts, v_start=zeros, out_start=out_start, out_shape=out_shape, conj=conj,
    )  # fmt: skip


def box_lengths(
    n: Sequence[int], m: Sequence[int], out_start: Sequence[int], out_shape: Sequence[int], real: bool
) -> tuple[int, ...]:
    """Return cyclic lengths at which a part of a convolution of lengths `n` and `m` is that of the linear one.

    What comes around falls on samples that were not asked for: a part that begins at `s` and ends at `e` needs
    ``max(n + m - 1 - s, e)`` samples.
    """
    least = [
        max(a + b - 1 - start, start + count, a, b)
        for a, b, start, count in zip(n, m, out_start, out_shape, strict=True)
    ]
    return tuple(passes.fast_length(k, real and axis == len(least) - 1) for axis, k in enumerate(least))


def _by_blocks(u: Any, v: Any, axes: Any, out_start: Any, out_shape: Any, real: bool, conj: bool) -> Any:
    """Return what the op `filter` would, from blocks of the longer operand along `axes`."""
    n, m = lengths_of(u.shape, axes), lengths_of(v.shape, axes)
    if math.prod(m) > math.prod(n):
        # The longer one is cut; a correlation is the convolution with the kernel reversed and conjugated.
        u, v = np.conjugate(np.flip(v, axes)) if conj else v, u
        n, m, conj = m, n, False
    halved = [real and axis == axes[-1] for axis in axes]
    steps = [overlap.block_length(a, b, len(axes), h) for a, b, h in zip(n, m, halved, strict=True)]
    cut = [k for k, (a, step) in enumerate(zip(n, steps, strict=True)) if step < a]
    for k in reversed(cut):
        u = overlap.split(u, axes[k], steps[k])
        v = np.reshape(v, (*v.shape[: axes[k]], 1, *v.shape[axes[k] :]))
    places = tuple(axis + sum(j <= k for j in cut) for k, axis in enumerate(axes))
    wide = [step + b - 1 for step, b in zip(steps, m, strict=True)]
    zeros = (0,) * len(axes)
    y = apply(
        FILTER, u, v, lengths=tuple(passes.fast_length(w, h) for w, h in zip(wide, halved, strict=True)),
        axes=places, real=real, u_start=tuple(b - 1 for b in m) if conj else zeros, v_start=zeros,
        out_start=tuple(0 if k in cut else start for k, start in enumerate(out_start)),
        out_shape=tuple(w if k in cut else length for k, (w, length) in enumerate(zip(wide, out_shape, strict=True))),
        conj=conj,
    )  # fmt: skip
    for k in reversed(cut):
        y = apply(
            overlap.OVERLAP_ADD, y, axis=places[k] - 1, step=steps[k], start=out_start[k], length=out_shape[k]
        )
    return y


def _check_method(method: str, mode: str, name: str) -> None:
    if method not in ("auto", "fft", "overlap-add"):
        raise ValueError(f"{name}: method must be 'auto', 'fft' or 'overlap-add', not {method!r}")
    if method == "overlap-add" and mode == "wrap":
        raise ValueError(
            f"{name}: mode 'wrap' is cyclic and has no method 'overlap-add'; use 'fft' or 'auto'"
        )


def part_of(
    n: tuple[int, ...], m: tuple[int, ...], mode: str, conj: bool, name: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return start and shape of the part of the full result that `mode` names."""
    pairs = list(zip(n, m, strict=True))
    if mode == "full":
        return (0,) * len(pairs), tuple(a + b - 1 for a, b in pairs)
    if mode == "same":
        return tuple((b - 1) // 2 for _, b in pairs), n
    if mode == "valid":
        if not (all(a >= b for a, b in pairs) or all(a <= b for a, b in pairs)):
            raise ValueError(
                f"{name}: mode 'valid' needs one operand to be at least as long along each axis: {n} and {m}"
            )
        return tuple(min(a, b) - 1 for a, b in pairs), tuple(abs(a - b) + 1 for a, b in pairs)
    raise ValueError(f"{name}: mode must be 'full', 'same', 'valid' or 'wrap', not {mode!r}")


def floating(x: Any) -> Any:
    x = operand(x)
    if is_traced(x):  # integers are, while they are recorded
        return cast(x, np.dtype(np.float64)) if x.dtype.kind in "iub" else x
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind in "iub" or x.dtype == np.float16 else x


def axes_of(axes: Any, ndim: int, name: str) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    given = (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    found = []
    for axis in given:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{name}: axis {axis} does not exist in arrays of {ndim} dimensions")
        found.append(int(axis) % ndim)
    if len(set(found)) != len(found) or not found:
        raise ValueError(f"{name}: axes must be one or more different axes, not {axes!r}")
    return tuple(sorted(found))


def check_batch(a: Sequence[int], b: Sequence[int], axes: Sequence[int], name: str) -> None:
    for axis, (x, y) in enumerate(zip(a, b, strict=True)):
        if axis not in axes and x != y and 1 not in (x, y):
            raise ValueError(
                f"{name}: batch axis {axis} does not broadcast: shapes {tuple(a)} and {tuple(b)}, axes {tuple(axes)}"
            )
