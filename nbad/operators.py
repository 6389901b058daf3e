"""Convolution with one kernel, as an object: its spectrum is made once.

Owns the class `Convolution`. It uses the op of `nbad.rules.convolution` for a spectrum at hand, so it differentiates to any
order, and speaks the protocol that ``scipy.sparse.linalg`` expects of a linear operator.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad._jit import SOURCE_HASH
from nbad.kernels import convolution as passes
from nbad.rules.convolution import (
    FILTER_BY_SPECTRUM,
    TIMES,
    TIMES_CONJ,
    axes_of,
    box_lengths,
    check_batch,
    floating,
    lengths_of,
    part_of,
)
from nbad.trace import apply, cast, is_traced

__all__ = ["Convolution"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]


class Convolution:
    """Convolution of arrays of one shape with a constant kernel, whose spectrum is made once.

    Parameters
    ----------
    kernel : array_like, shape (..., m, ...)
        Real or complex. It is a constant; where its gradient is wanted, use `nbad.convolve`.
    shape : int or sequence of int
        Shape of the arrays that will be convolved.
    mode : {"full", "same", "valid", "wrap"}
        As for `nbad.convolve`.
    axes : int or sequence of int, optional
        Axes of `shape` to convolve along; default all, and then `kernel` has as many dimensions. Other axes broadcast.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Shapes of the arrays that go in and come out.
    shape : tuple of two ints
        Numbers of their elements, ``(out, in)``: the shape of the matrix, as SciPy's linear operators have it.
    dtype : dtype
        That of the kernel (integers: float64). It is the precision of the results.
    adjoint : Convolution
        The conjugate transpose, with the same spectrum.

    Raises
    ------
    TypeError
        A traced kernel.
    ValueError
        As `nbad.convolve`.

    Notes
    -----
    Two transforms per application, two in its pullback; complex arrays with a real kernel take twice as many. ``A(x)`` takes
    plain and traced arrays of shape ``(..., *input_shape)``; ``A.matvec`` and its kin take vectors, so ``A`` goes into the
    solvers of ``scipy.sparse.linalg``. `A.adjoint` is what solvers call ``rmatvec``.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> blur = nbad.Convolution([0.25, 0.5, 0.25], 5, mode="same")
    >>> np.round(blur(np.array([4.0, 8.0, 0.0, 4.0, 4.0])), 9)
    array([4., 5., 3., 3., 3.])
    >>> np.round(nbad.grad(lambda x: np.sum(blur(x)))(np.ones(5)), 9)
    array([0.75, 1.  , 1.  , 1.  , 0.75])
    """

    __slots__ = (
        "_axes", "_batch", "_conj", "_lengths", "_out_start", "_spectrum", "_start", "dtype", "input_shape", "mode",
        "output_shape",
    )  # fmt: skip
    #: Arrays leave ``array @ operator`` to the operator, which has no such product.
    __array_ufunc__ = None

    def __init__(
        self,
        kernel: Any,
        shape: int | Sequence[int],
        mode: str = "full",
        axes: int | Sequence[int] | None = None,
    ) -> None:
        if is_traced(kernel):
            raise TypeError("Convolution: the kernel is a constant and this one is traced; use nbad.convolve")
        kernel = np.asarray(floating(kernel))
        given = (shape,) if isinstance(shape, (int, np.integer)) else shape
        size: Extents = tuple(int(n) for n in given)
        name, ndim = "Convolution", len(size)
        if axes is None and kernel.ndim != ndim:
            raise ValueError(
                f"{name}: the shape has {ndim} dimensions and the kernel {kernel.ndim}; give axes= or reshape the kernel"
            )
        if kernel.ndim > ndim or ndim == 0:
            raise ValueError(f"{name}: a kernel of {kernel.ndim} dimensions for arrays of {ndim}")
        kernel = kernel.reshape((1,) * (ndim - kernel.ndim) + kernel.shape)
        along = axes_of(axes, ndim, name)
        if kernel.size == 0 or math.prod(size) == 0:
            raise ValueError(f"{name}: an operand is empty (shapes {size} and {kernel.shape})")
        check_batch(size, kernel.shape, along, name)
        real = kernel.dtype.kind == "f"
        n, m = lengths_of(size, along), lengths_of(kernel.shape, along)
        if mode == "wrap":
            if any(b > a for a, b in zip(n, m, strict=True)):
                raise ValueError(
                    f"{name}: mode 'wrap' has the period of the shape, {n}, and the kernel is longer: {m}"
                )
            out_start, out, lengths = (0,) * len(along), n, n
        else:
            out_start, out = part_of(n, m, mode, False, name)
            lengths = box_lengths(n, m, out_start, out, real)
        ends = dict(zip(along, out, strict=True))
        #: The shape in which all axes that are not transformed have their broadcast lengths.
        full = tuple(ends.get(k, max(a, b)) for k, (a, b) in enumerate(zip(size, kernel.shape, strict=True)))
        self._spectrum: Array = passes.spectrum(kernel, lengths, along, real)
        self._spectrum.setflags(write=False)
        self._lengths: Extents = tuple(lengths)
        self._axes: Extents = along
        self._start: Extents = (0,) * len(along)
        self._out_start: Extents = out_start
        self._conj = False
        #: Batch axes along which one element meets several kernels; their sum is part of the adjoint.
        self._batch: Extents = tuple(k for k in range(ndim) if k not in ends and size[k] != full[k])
        self.mode = mode
        self.dtype: np.dtype[Any] = kernel.dtype.newbyteorder("=")
        self.input_shape: Extents = size
        self.output_shape: Extents = full

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of elements that come out and go in."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    @property
    def adjoint(self) -> "Convolution":
        """The conjugate transpose: correlation with the kernel, with the same spectrum."""
        other = object.__new__(Convolution)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other._conj = not self._conj
        other._start, other._out_start = self._out_start, self._start
        other.input_shape, other.output_shape = self.output_shape, self.input_shape
        return other

    H = adjoint

    def __call__(self, x: Any) -> Any:
        """Return the convolution of `x`, shape (..., *input_shape); leading axes are a batch."""
        x = floating(x)
        extra = x.ndim - len(self.input_shape)
        if extra < 0 or tuple(x.shape[extra:]) != self.input_shape:
            raise ValueError(
                f"Convolution: made for arrays of shape {self.input_shape}, and this one has {tuple(x.shape)}"
            )
        real = self.dtype.kind == "f"
        if real and x.dtype.kind == "c":
            return self(np.real(x)) + 1j * self(np.imag(x))
        if x.dtype != self.dtype:
            x = cast(x, self.dtype)
        y = apply(
            FILTER_BY_SPECTRUM, x, self._spectrum, lengths=self._lengths, axes=tuple(a + extra for a in self._axes),
            real=real, start=self._start, out_start=self._out_start,
            out_shape=lengths_of(self.output_shape, self._axes), how=TIMES_CONJ if self._conj else TIMES,
        )  # fmt: skip
        if self._conj and self._batch:
            y = np.sum(y, axis=tuple(k + extra for k in self._batch), keepdims=True)
        return y

    def matvec(self, x: Any) -> Any:
        """Return the product with a vector, shape (in,) or (in, 1)."""
        y = self(np.reshape(x, self.input_shape))
        return np.reshape(y, (-1, 1) if np.ndim(x) == 2 else (-1,))

    def rmatvec(self, y: Any) -> Any:
        """Return the product of the adjoint with a vector, shape (out,) or (out, 1)."""
        return self.adjoint.matvec(y)

    def matmat(self, x: Any) -> Any:
        """Return the product with a matrix, shape (in, k): all columns in one application."""
        columns = self(np.reshape(np.transpose(x), (-1, *self.input_shape)))
        return np.transpose(np.reshape(columns, (len(columns), -1)))

    def rmatmat(self, y: Any) -> Any:
        """Return the product of the adjoint with a matrix, shape (out, k)."""
        return self.adjoint.matmat(y)

    def __matmul__(self, x: Any) -> Any:
        """Return the product with a vector or a matrix of columns."""
        return self.matmat(x) if np.ndim(x) == 2 else self.matvec(x)

    def __repr__(self) -> str:
        """Show shapes, mode and dtype."""
        kind = "adjoint of Convolution" if self._conj else "Convolution"
        return f"<{kind} {self.input_shape} -> {self.output_shape}, mode {self.mode!r}, {self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; the layout of a spectrum is that of one version."""
        return {"version": SOURCE_HASH, **{name: getattr(self, name) for name in self.__slots__}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of another object, of the same version of nbad."""
        if state["version"] != SOURCE_HASH:
            raise ValueError(
                "Convolution: it was pickled by another version of nbad, whose spectra differ; make it anew"
            )
        for name in self.__slots__:
            setattr(self, name, state[name])
