"""What a compiled function is keyed by, and how a call becomes a list of values.

Owns the split of arguments into inputs (arrays, Python floats and complex numbers: what a replay reads) and
everything else (what a recording is made for). Must not know recordings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nbad import tree
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.trace import is_traced

__all__ = ["Call", "Template", "Value", "copied", "is_input", "native", "read_call", "taken_from"]

#: dtypes of arrays that a replay can take; everything else is refused.
_KINDS = "fciub"


class Call(NamedTuple):
    """The arguments of one call, taken apart.

    Attributes
    ----------
    key : tuple
        Equal for two calls that one recording may serve.
    skeleton : tuple
        The containers, without leaves.
    leaves : list
        All leaves, from left to right; keyword arguments in the order of their names.
    inputs : list of int
        Positions in `leaves` of what a replay reads.
    """

    key: tuple[Any, ...]
    skeleton: tuple[Any, ...]
    leaves: list[Any]
    inputs: list[int]

    def values(self) -> list[Any]:
        """Return the inputs as a replay takes them."""
        return [native(self.leaves[i]) for i in self.inputs]

    def laid_out(self, values: list[Any]) -> list[Any]:
        """Return the inputs as a recording takes them: with the axes in memory in the order that the caller's have."""
        found = list(values)
        for k, i in enumerate(self.inputs):
            if isinstance(spec := self.key[1][i], tuple) and len(spec) > 2:
                found[k] = np.asarray(self.leaves[i], values[k].dtype, order="K")
        return found

    def arguments(self, values: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments with `values` in the place of the inputs."""
        leaves = list(self.leaves)
        for i, value in zip(self.inputs, values, strict=True):
            leaves[i] = value
        args, kwargs = tree.assemble(list(self.skeleton), leaves)
        return args, kwargs


def is_input(leaf: Any) -> bool:
    """Return whether a replay reads `leaf`; other leaves belong to the key."""
    kind = type(leaf)
    if kind is np.ndarray or kind is float or kind is complex:
        return True
    if isinstance(leaf, np.generic):
        return leaf.dtype.kind in "fc"
    return isinstance(leaf, np.ndarray)


def read_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """Take the arguments of a call apart; None if one of them is traced.

    Raises
    ------
    InputTypeError
        An argument that can be neither an input nor part of a key.
    """
    ordered = {key: kwargs[key] for key in sorted(kwargs)} if len(kwargs) > 1 else kwargs
    skeleton, leaves = tree.take_apart((args, ordered))
    specs: list[Any] = []
    inputs = []
    for i, leaf in enumerate(leaves):
        if is_traced(leaf):
            return None
        kind = type(leaf)
        if kind is np.ndarray or isinstance(leaf, np.ndarray):
            c_order = leaf.flags.c_contiguous or leaf.ndim < 2
            specs.append((leaf.dtype, leaf.shape) if c_order else (leaf.dtype, leaf.shape, *_axes(leaf)))
            inputs.append(i)
            if (
                leaf.dtype.kind not in _KINDS
                or leaf.dtype.names is not None
                or isinstance(leaf, np.ma.MaskedArray | np.matrix)
            ):
                raise _unfit(name, args, ordered, i)
        elif kind is float or kind is complex:
            specs.append(kind)
            inputs.append(i)
        elif isinstance(leaf, np.generic) and leaf.dtype.kind in "fc":
            specs.append((kind, leaf.dtype))
            inputs.append(i)
        else:
            try:
                hash(leaf)
            except TypeError:
                raise _unfit(name, args, ordered, i) from None
            specs.append(Value(kind, leaf))
    tokens = tuple(skeleton)
    return Call((tokens, tuple(specs)), tokens, leaves, inputs)


def _axes(x: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return the axes of an array from the longest stride to the shortest, if this is not their order.

    NumPy makes new arrays in the order of its operands, and it decides what is a view of them: a write into ``y.reshape(-1)``
    reaches `y`, or does not.
    """
    order = tuple(sorted((k for k in range(x.ndim) if x.shape[k] != 1), key=lambda k: -abs(x.strides[k])))
    return () if order == tuple(sorted(order)) else (order,)


class Value(NamedTuple):
    """A leaf that is part of the key: True, 1 and 1.0 are equal to Python but not alike."""

    kind: type
    value: Any


def _unfit(name: str, args: Any, kwargs: Any, i: int) -> InputTypeError:
    path = tree.paths((args, kwargs))[i]
    text = tree.path_text(f"argument {path[1]}" if path[0] == 0 else str(path[1]), path[2:])
    found = InputTypeError.of(text, tree.leaves((args, kwargs))[i])
    return InputTypeError(f"{name}: {found.what}", at=user_line(), fix=found.fix)


def native(value: Any) -> Any:
    """Return `value` as a replay takes it: a plain C-contiguous array in native byte order, or the number itself."""
    if not isinstance(value, np.ndarray):
        return value
    if type(value) is not np.ndarray:
        value = value.view(np.ndarray)
    dtype = np.dtype(value.dtype.type)  # NumPy's own object: jitted code compares its address
    if not value.flags.c_contiguous or not value.dtype.isnative:
        return np.asarray(value, dtype, order="C")
    return value if value.dtype is dtype else value.view(dtype)


@dataclass(slots=True, eq=False)
class Template:
    """The container that a function returned, with the places of what a replay computes.

    Attributes
    ----------
    skeleton : list
        The containers.
    leaves : list
        Fixed leaves; None where a computed one belongs.
    places : list of int
        Where the computed leaves belong, in their order.
    """

    skeleton: list[Any]
    leaves: list[Any]
    places: list[int]

    def fill(self, values: list[Any]) -> Any:
        """Return the container with `values` in it."""
        leaves = [copied(leaf) for leaf in self.leaves]
        for place, value in zip(self.places, values, strict=True):
            leaves[place] = value
        return tree.assemble(self.skeleton, leaves)


def taken_from(result: Any, tape: Any) -> tuple[Template, list[int], list[Any]]:
    """Take a recorded result apart: its template, and slots and plain values of what was recorded on `tape`."""
    skeleton, leaves = tree.take_apart(result)
    places, slots, values = [], [], []
    for i, leaf in enumerate(leaves):
        if is_traced(leaf) and leaf._tape is tape:
            places.append(i)
            slots.append(leaf._slot)
            values.append(leaf._value)
            leaves[i] = None
    return Template(skeleton, leaves, places), slots, values


def copied(value: Any) -> Any:
    """Return a value that is the caller's own."""
    return np.array(value) if isinstance(value, np.ndarray) else value
