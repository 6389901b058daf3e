"""What kernels leave in their arguments.

Owns what happens where a kernel writes into an array that it was given: plain numbers reach the caller's array, a
derivative that would be lost there raises.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from nbad.errors import DetachError, InputTypeError
from nbad.methods import user_line
from nbad.scalar.calls import Call, Part
from nbad.scalar.writes import arguments_written
from nbad.trace import is_traced, underlying

__all__ = ["changing_leaves", "settle"]


def changing_leaves(call: Call, leaves: Mapping[int, Any]) -> tuple[int, ...]:
    """Return the leaves that are arrays into which a kernel may write.

    Parameters
    ----------
    call : Call
        The call.
    leaves : mapping
        Leaves, without what traces them.

    Raises
    ------
    InputTypeError
        One of them shares memory with another argument: the kernel gets arrays of its own, so it would not see its writes.
    """
    arguments = [k for k in arguments_written(call.kernel) if k < len(call.arguments)]
    found = sorted({k for one in arguments for k in call.leaves_of(one)})
    changing = tuple(k for k in found if isinstance(leaves.get(k), np.ndarray))
    for k in changing:
        for j, other in leaves.items():
            if j != k and isinstance(other, np.ndarray) and np.may_share_memory(leaves[k], other):
                raise InputTypeError(
                    f"{call.kernel.py_func.__name__} writes into its argument {_argument(call, k)!r}, which shares memory "
                    f"with {_argument(call, j)!r}",
                    at=user_line(),
                    fix="Pass a copy of one of them.",
                )
    return changing


def settle(
    call: Call,
    leaves: Mapping[int, Any],
    after: Mapping[int, Any],
    firsts: Mapping[int, int],
    own: Container[int],
) -> None:
    """Put into the caller's arrays what a kernel wrote.

    Parameters
    ----------
    call : Call
        The call.
    leaves : mapping
        The caller's arrays, by leaf; some of them traced.
    after : mapping
        What the kernel left in them.
    firsts : mapping
        The index of the first number of each leaf that was asked for.
    own : container of int
        Leaves that no traced code reads afterwards: those of a kernel that is the whole function that is differentiated. The
        caller gets plain numbers there. An array that is asked for stays as it is.

    Raises
    ------
    DetachError
        A number that has a derivative is in an argument, where traced code would read it as a constant.
    """
    for k, found in after.items():
        original = leaves[k]
        values = found.lanes[0] if isinstance(found, Part) else found
        before = underlying(original)
        same = np.array_equal(values, before, equal_nan=values.dtype.kind in "fc")
        carries = False
        if isinstance(found, Part):
            start = firsts.get(k, 0)
            expected: Any = np.arange(start, start + found.indices.size)
            expected = expected.reshape(found.indices.shape) if start else 0
            carries = bool(np.any(found.indices != expected))
        if k not in own and (carries or (is_traced(original) and not same)):
            name = call.kernel.py_func.__name__
            raise DetachError(
                f"{name} writes into its argument {_argument(call, k)!r}, which would silently drop a derivative",
                at=user_line(),
                fix="Let it write into an array that it makes itself, or into a copy, and return that.",
            )
        if not same and not is_traced(original):
            original[...] = values


def _argument(call: Call, leaf: int) -> str:
    """Return the name of the parameter that a leaf is passed to."""
    code = call.kernel.py_func.__code__
    names: Sequence[str] = code.co_varnames
    return next(names[k] for k in range(len(call.arguments)) if leaf in call.leaves_of(k))
