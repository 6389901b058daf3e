"""Patches: windows cut out of an array, and their adjoint, which adds them back in place.

Owns that adjoint pair and the public `patches`. The positions are an operand that carries no derivative. At first order the
cotangent of a cut is not an array of the operand's size for each call: the engine adds the windows into the one cotangent
that it holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbad.errors import DetachError
from nbad.keeping import operand
from nbad.kernels import patches as windows
from nbad.kernels import pieces
from nbad.methods import user_line
from nbad.pulling import Scattered
from nbad.table import operation
from nbad.trace import apply, carries_derivative, cast, is_traced

Array = np.ndarray[Any, Any]


class Windows(Scattered):
    """A cotangent that is zero except in windows, which may overlap; the engine adds it in place."""

    __slots__ = ()

    def add_to(self, target: Array) -> None:
        """Add the windows into `target`."""
        values = self.values
        if values.dtype.kind == "c" and target.dtype.kind == "f":
            values = values.real
        windows.add(values.astype(target.dtype, copy=False), self.index, target)


def _checked(positions: Any, shape: Sequence[int], window: Sequence[int]) -> Array:
    """Return `positions` as an array of int64 after checking that every window lies inside `shape`."""
    places = np.asarray(positions)
    last = np.array(shape, np.int64) - np.array(window, np.int64)
    wrong = ((places < 0) | (places > last)).any(axis=1)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise IndexError(
            f"patches: window {k} at {tuple(int(i) for i in places[k])} of shape {tuple(window)} is not inside the axes "
            f"of lengths {tuple(shape)}"
        )
    return places


def patches_forward(x: Any, positions: Any, *, shape: tuple[int, ...]) -> Any:
    """Return the windows of `shape` at `positions` of the last axes of `x`."""
    if is_traced(x) or is_traced(positions):
        return apply(PATCHES, x, positions, shape=shape)
    places = _checked(positions, x.shape[x.ndim - len(shape) :], shape)
    return windows.cut(x, places, shape)


def places_of(positions: Any) -> Any:
    """Return a copy of the positions: the caller may write into his own before the sweep."""
    return positions if is_traced(positions) else np.array(positions)


def patches_x(g: Any, places: Any, x_shape: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    return apply(PATCHES_ADD, g, places, shape=x_shape[len(x_shape) - len(shape) :])


class _PatchesKernel:
    """The forward of `patches`, and its pullback as something to add in place."""

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the windows and, if wanted, a copy of the positions."""
        made = {"places": places_of(operands[1])} if wanted else {}
        return patches_forward(*operands, **attributes), made

    def pullback(
        self,
        asked: tuple[int, ...],
        g: Array,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, Any]:
        """Return what to add where."""
        return {0: Windows(shared["places"], g, False)}


def patches_add_forward(w: Any, positions: Any, *, shape: tuple[int, ...]) -> Any:
    """Return an array of zeros, its last axes of `shape`, to which the windows `w` were added at `positions`."""
    if is_traced(w) or is_traced(positions):
        return apply(PATCHES_ADD, w, positions, shape=shape)
    d = len(shape)
    places = _checked(positions, shape, w.shape[w.ndim - d :])
    y = np.zeros((*w.shape[: w.ndim - d - 1], *shape), w.dtype.newbyteorder("="))
    windows.add(pieces.contiguous(w), places, y)
    return y


def patches_add_w(g: Any, places: Any, w_shape: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    return apply(PATCHES, g, places, shape=w_shape[len(w_shape) - len(shape) :])


PATCHES = operation(patches_forward, shared={"places": places_of}, x=patches_x, kernel=_PatchesKernel())
PATCHES_ADD = operation(patches_add_forward, shared={"places": places_of}, w=patches_add_w)


def patches(x: Any, positions: Any, shape: int | Sequence[int]) -> Any:
    """Cut windows of one shape out of an array.

    Parameters
    ----------
    x : array_like, shape (..., n_1, ..., n_d)
        Real or complex; axes before the last d are batch axes.
    positions : array_like of integers, shape (k, d)
        Where each window begins along the last d axes of `x`. They carry no derivative.
    shape : int or sequence of d ints
        Shape of the windows, ``(s_1, ..., s_d)``; a number stands for one axis.

    Returns
    -------
    ndarray or traced value, shape (..., k, s_1, ..., s_d)
        ``y[..., i, :, ...] = x[..., p_1 : p_1 + s_1, ...]`` with ``p = positions[i]``.

    Raises
    ------
    IndexError
        A window that does not lie inside `x`.
    TypeError
        Positions that are not integers.
    ValueError
        Shapes that do not fit each other.

    Notes
    -----
    The pullback adds the windows into the cotangent of `x` in place: one buffer of the size of `x`, however many windows
    and calls. It sums in the order of the windows, so results are the same to the bit for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> x, where = np.arange(5.0), np.array([[0], [2], [1]])
    >>> nbad.patches(x, where, 3)
    array([[0., 1., 2.],
           [2., 3., 4.],
           [1., 2., 3.]])
    >>> nbad.grad(lambda x: np.sum(nbad.patches(x, where, 3)))(x)
    array([1., 2., 3., 2., 1.])
    """
    window = tuple(int(n) for n in shape) if isinstance(shape, Sequence) else (int(shape),)
    x = operand(x)
    if not is_traced(x):
        x = np.asarray(x)
    places = positions if is_traced(positions) else np.asarray(positions)
    if carries_derivative(places):
        raise DetachError.of(
            "the positions of patches",
            at=user_line(),
            instead="Positions are integers: use np.rint(p).astype(int).",
        )
    if places.size == 0 and not is_traced(places):
        places = places.astype(np.int64)  # an empty list is one of floats to NumPy
    if places.dtype.kind not in "iu":
        raise TypeError(f"patches: positions are integers, not {places.dtype}")
    if not window or min(window) < 0:
        raise ValueError(f"patches: shape is one or more lengths, not {window}")
    if len(places.shape) != 2 or places.shape[1] != len(window):
        raise ValueError(
            f"patches: positions of windows of {len(window)} axes have shape (k, {len(window)}), not {places.shape}"
        )
    if len(x.shape) < len(window):
        raise ValueError(f"patches: windows of {len(window)} axes in an array of {len(x.shape)}")
    if places.dtype != np.int64:
        places = cast(places, np.dtype(np.int64))
    return apply(PATCHES, x, places, shape=window)
