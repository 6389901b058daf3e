"""Calls of kernels that write a tape.

Owns the entry points: one for each kernel, types of its arguments and choice of what is asked for. An entry point is a
function written out for the containers of its arguments; it takes leaves.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core import errors

from nbad.config import SETTINGS
from nbad.report import current
from nbad.scalar import (  # noqa: F401 (their types and rules)
    arrays,
    complex_arrays,
    complex_parts,
    convolutions,
    literals,
    operations,
    products,
    rearranging,
    reductions,
    sampling,
    solving,
)
from nbad.scalar.adjoints import Adjoints
from nbad.scalar.caching import Entry, WritesMore, cache_of
from nbad.scalar.calls import Call
from nbad.scalar.entries import LAST, begin, position
from nbad.scalar.lifting import answer_signals, assembled, lift, split
from nbad.scalar.pipeline import Derived, derived
from nbad.scalar.sweeping import Tape

__all__ = ["Recorded", "record"]


@functools.cache
def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # not told on this system
        return 1 << 33


_lock = threading.Lock()
_recording = threading.RLock()
"""Held while a kernel records: numba's print() calls Python, which may let another thread run."""


def _new_lock() -> None:
    """Forget a lock that another thread held when this process was forked."""
    global _recording
    _recording = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


class Recorded(NamedTuple):
    """What a call left.

    `outputs` is what the kernel returned, with a `Part` in the place of each active leaf. `firsts` has the first index of
    each leaf that is asked for; those in `paired` are complex and have two indices an element. `after` has the leaves that
    were watched, as the kernel left them; a `Part` for each that is active.
    """

    outputs: Any
    tape: Tape
    firsts: dict[int, int]
    paired: frozenset[int]
    lanes: int
    after: dict[int, Any]

    def pull(
        self, seeds: Sequence[tuple[Any, Any]], shapes: dict[int, tuple[int, ...]]
    ) -> dict[int, np.ndarray]:
        """Pull cotangents of outputs back to the leaves that were asked for.

        Parameters
        ----------
        seeds : sequence of (indices, cotangent)
            Indices of an output, and its cotangent in float64, or complex128 where the output is complex.
        shapes : dict
            Shapes of the leaves that were asked for.

        Returns
        -------
        dict
            For each of these leaves the cotangent, a new array of float64, or complex128 for a complex leaf; the highest
            lane, where there are several.
        """
        tape = self.tape
        adjoints = Adjoints(tape.inputs, tape.entries, self.lanes)
        for indices, cotangent in seeds:
            if cotangent.dtype.kind == "c":
                cotangent = np.stack([cotangent.real, cotangent.imag], -1)
            adjoints.add(np.ravel(indices), np.reshape(cotangent, (-1, 1)))
        adjoints.inputs[0] = -0.0
        tape.sweep(adjoints)
        for listener in current():
            listener.adjoint_bytes = max(listener.adjoint_bytes, adjoints.nbytes)
        last = adjoints.inputs[:, -1]
        found: dict[int, np.ndarray] = {}
        for k, start in self.firsts.items():
            size = math.prod(shapes[k])
            if k in self.paired:
                pairs = last[start : start + 2 * size] + 0.0
                found[k] = pairs.view(np.complex128).reshape(shapes[k])
            else:
                found[k] = last[start : start + size].reshape(shapes[k]) + 0.0
        return found


def _entry(
    function: Derived,
    call: Call,
    count: int,
    asked: tuple[int, ...],
    moved: tuple[int, ...],
    written: tuple[int, ...],
    watched: tuple[int, ...],
) -> Any:
    """Return the entry point for leaves that are asked for, leaves that have tangents, and leaves that are written."""
    key = (call.text, tuple(call.names.items()), count, asked, moved, written, watched)
    with _lock:
        if key not in function.entries:
            function.entries[key] = _made(function, call, count, asked, moved, written, watched)
        return function.entries[key]


def _made(
    function: Derived,
    call: Call,
    count: int,
    asked: tuple[int, ...],
    moved: tuple[int, ...],
    written: tuple[int, ...],
    watched: tuple[int, ...],
) -> Any:
    depth = function.depth
    active = sorted({*asked, *moved, *written})
    leaves = [f"x{k}" for k in range(count)]
    tangents = [f"t{k}_{d}" for k in active for d in range(depth)]
    lines = [f"def entry(chunk, room, inputs, firsts, {', '.join([*leaves, *tangents])}):"]
    lines.append("    begin(chunk, room, inputs)")
    names = list(leaves)
    for i, k in enumerate(active):
        directions = "(" + "".join(f"t{k}_{d}, " for d in range(depth)) + ")"
        lines.append(f"    a{k} = lift(x{k}, {directions}, firsts[{i}])")
        names[k] = f"a{k}"
    lines.append(f"    result = kernel({call.text.format(*names)})")
    lines.append("    outputs = split(result)")
    lines.append(f"    after = ({''.join(f'split(a{k}), ' for k in active if k in watched)})")
    lines.append("    end = position()")
    lines.append("    answer_signals()")
    lines.append("    return outputs, after, end")
    space = {
        "__name__": __name__, "begin": begin, "lift": lift, "split": split, "position": position, "kernel": function,
        "answer_signals": answer_signals,
        **call.names,
    }  # fmt: skip
    exec("\n".join(lines), space)
    key = (call.text, tuple(call.names.items()), count, asked, moved, watched, depth)
    return Entry(space["entry"], cache_of(call.kernel, key, count, written))


def record(
    call: Call,
    leaves: Sequence[Any],
    asked: Sequence[int],
    directions: Sequence[dict[int, Any]] = (),
    watched: tuple[int, ...] = (),
) -> Recorded:
    """Call a kernel and write a tape.

    Parameters
    ----------
    call : Call
        The kernel.
    leaves : sequence
        Leaves of its arguments: arrays and numbers.
    asked : sequence of int
        Which leaves are asked for.
    directions : sequence of dict
        Tangents of leaves, by position; one dictionary for each direction.
    watched : tuple of int
        Array leaves of which the caller wants to know how the kernel leaves them.

    Returns
    -------
    Recorded
        Outputs and tape.
    """
    depth = len(directions)
    moved = tuple(sorted({k for one in directions for k in one}))
    function: Derived = derived(call.kernel, depth)
    asked = tuple(asked)
    paired = frozenset(k for k in asked if _is_complex(leaves[k]))
    starts: dict[int, int] = {}
    inputs = 0
    for k in asked:
        starts[k] = 1 + inputs
        inputs += int(getattr(leaves[k], "size", 1)) * (2 if k in paired else 1)
    room = _half_of_memory() if SETTINGS.tape_limit is None else SETTINGS.tape_limit
    while True:
        written = tuple(sorted(_written_leaves(call, function, leaves) - {*asked, *moved}))
        active = sorted({*asked, *moved, *written})
        entry = _entry(function, call, len(leaves), asked, moved, written, watched)
        firsts = tuple(starts.get(k, 0) for k in active)
        tangents = []
        for k in active:
            for one in directions:
                tangent = one.get(k)
                if tangent is None:
                    tangent = np.zeros_like(leaves[k])
                tangents.append(
                    np.asarray(tangent, leaves[k].dtype)
                    if isinstance(leaves[k], np.ndarray)
                    else type(leaves[k])(tangent)
                )
        if _recording._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError(
                f"{call.kernel.py_func.__name__} is differentiated while a kernel of this thread records and prints"
            )
        tape = Tape(inputs)
        try:
            if inputs > LAST:
                raise MemoryError("tape")
            with _recording:
                outputs, after, end = entry(tape.first, room, inputs, firsts or (0,), *leaves, *tangents)
        except MemoryError as error:
            if "tape" not in str(error):
                raise
            raise MemoryError(
                f"the tape of {call.kernel.py_func.__name__} is larger than {room} bytes, or has 2**32 numbers\n"
                "  Divide its loop with nbad.scan, which needs a part of it at a time, or set nbad.config(tape_limit=...)."
            ) from None
        except WritesMore as more:
            arguments = range(len(call.arguments))
            function.written |= {i for i in arguments if more.written & set(call.leaves_of(i))}
            continue
        except errors.TypingError:
            if _written_leaves(call, function, leaves) - set(active):
                continue
            raise
        tape.finish(end)
        left = {k: leaves[k] for k in watched}
        left |= zip([k for k in active if k in watched], map(assembled, after), strict=True)
        return Recorded(assembled(outputs), tape, starts, paired, 1 << depth, left)


def _is_complex(leaf: Any) -> bool:
    return bool(leaf.dtype.kind == "c") if hasattr(leaf, "dtype") else isinstance(leaf, complex)


def _written_leaves(call: Call, function: Derived, leaves: Sequence[Any]) -> set[int]:
    """Return the leaves that are arrays into which the kernel may write active numbers."""
    found = {k for argument in tuple(function.written) for k in call.leaves_of(argument)}
    return {k for k in found if isinstance(leaves[k], np.ndarray) and leaves[k].dtype.kind in "fc"}
