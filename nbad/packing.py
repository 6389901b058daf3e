"""Leaves that have a gradient, and how they are packed into a vector.

Owns `ravel` and the dtypes that can be differentiated. Must not know traced values: where a leaf is no plain array or number,
`ravel` and its inverse use only operations that carry derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.errors import InputTypeError
from nbad.kernels import memory
from nbad.tree import assemble, path_text, paths, take_apart

__all__ = ["check_differentiable", "ravel"]

_DIFFERENTIABLE = frozenset(map(np.dtype, ("f4", "f8", "c8", "c16")))


def check_differentiable(argument: str, value: Any) -> None:
    """Refuse a leaf that has no gradient.

    Parameters
    ----------
    argument : str
        What the user calls it.
    value : Any
        A leaf.

    Raises
    ------
    InputTypeError
        Unless it is a Python float or complex number, or an array or NumPy number of dtype float32, float64,
        complex64 or complex128 (in any byte order) that is neither masked nor a matrix.
    """
    if isinstance(value, np.ndarray | np.generic):
        plain = not isinstance(value, np.ma.MaskedArray | np.matrix) and value.dtype.names is None
        # newbyteorder: big-endian data is read like any other
        if plain and value.dtype.newbyteorder("=") in _DIFFERENTIABLE:
            return
    elif type(value) in (float, complex):
        return
    raise InputTypeError.of(argument, value)


def ravel(tree: Any) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """Pack all leaves into one vector, for optimisers that know only vectors.

    Parameters
    ----------
    tree : Any
        A container of floating-point or complex arrays and numbers, or one of these.

    Returns
    -------
    vector : ndarray of float64, shape (n,)
        The leaves from left to right, each in C order; a complex number takes two places, real part first.
    unravel : callable
        ``unravel(vector)`` makes a container of the same structure, shapes and dtypes from a vector of length
        n. It copies. It may be used inside a function that is differentiated.

    Raises
    ------
    InputTypeError
        If a leaf is not a floating-point or complex number or array, or not of a supported dtype.

    Notes
    -----
    Traced leaves make a traced vector. float32 and complex64 pass through float64 without loss. Packing a gradient gives the
    gradient with respect to the packed vector, also for complex leaves.

    Examples
    --------
    >>> vector, unravel = ravel({"w": np.array([[1.0, 2.0]]), "z": 3.0 + 4.0j})
    >>> vector
    array([1., 2., 3., 4.])
    >>> unravel(2 * vector)
    {'w': array([[2., 4.]]), 'z': (6+8j)}
    """
    tokens, found = take_apart(tree)
    for path, leaf in zip(paths(tree), found, strict=True):
        model = np.zeros(0, leaf.dtype) if _is_watched(leaf) else leaf
        check_differentiable(path_text("ravel(tree): tree", path), model)
    widths = [np.size(leaf) * (2 if np.iscomplexobj(leaf) else 1) for leaf in found]
    stops = np.cumsum([0, *widths]).tolist()
    if any(map(_is_watched, found)):
        vector = np.concatenate([np.zeros(0), *map(_flat, found)])
    else:
        vector = memory.empty(stops[-1], np.float64)
        for leaf, start, stop in zip(found, stops[:-1], stops[1:], strict=True):
            wide = np.complex128 if np.iscomplexobj(leaf) else np.float64
            vector[start:stop].view(wide).reshape(np.shape(leaf))[...] = leaf
    # What unravel keeps: no leaf, only how each one looks.
    looks = [
        (type(leaf), np.shape(leaf), leaf.dtype if _is_watched(leaf) else np.asarray(leaf).dtype)
        for leaf in found
    ]
    spans = list(zip(looks, stops[:-1], stops[1:], strict=True))
    total = stops[-1]

    def unravel(vector: Any) -> Any:
        if not hasattr(vector, "shape"):
            vector = np.asarray(vector, dtype=np.float64)
        if tuple(vector.shape) != (total,):
            raise ValueError(f"unravel needs a vector of shape ({total},), not {tuple(vector.shape)}")
        unpack = _unpack if isinstance(vector, np.ndarray) else _unpack_traced
        return assemble(tokens, [unpack(vector[start:stop], *look) for look, start, stop in spans])

    return vector, unravel


def _is_watched(leaf: Any) -> bool:
    """Return whether NumPy's functions ask a leaf what they are to do, as they ask traced values."""
    return not isinstance(leaf, np.ndarray | np.generic) and hasattr(type(leaf), "__array_function__")


def _flat(leaf: Any) -> Any:
    """Return the stretch of a traced vector that belongs to one leaf."""
    if not _is_watched(leaf):
        wide = np.complex128 if np.iscomplexobj(leaf) else np.float64
        return np.array(leaf, dtype=wide, order="C").reshape(-1).view(np.float64)
    parts = np.stack([np.real(leaf), np.imag(leaf)], axis=-1) if np.iscomplexobj(leaf) else leaf
    return np.ravel(parts).astype(np.float64)


def _unpack(part: np.ndarray, cls: type, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Make one leaf from its stretch of a plain vector."""
    if part.dtype != np.float64 or not part.flags.c_contiguous:
        part = part.astype(np.float64)
    array = memory.empty(shape, dtype)
    # The view keeps signed zeros and infinities apart, which re + 1j * im does not.
    array[...] = (part.view(np.complex128) if dtype.kind == "c" else part).reshape(shape)
    if cls is float or cls is complex:
        return array.item()
    return array[()] if issubclass(cls, np.generic) else array


def _unpack_traced(part: Any, cls: type, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Make one leaf by operations that carry derivatives."""
    if dtype.kind == "c":
        part = part.reshape((-1, 2))
        part = part[:, 0] + 1j * part[:, 1]
    part = part.reshape(shape)
    return part if dtype in (np.float64, np.complex128) else part.astype(dtype)
