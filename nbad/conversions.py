"""What Python code sees of a traced value: its truth, a number, a plain array.

Owns the refusal of what would drop a derivative unseen, and the guards of recording tapes, whose values are handed out
because a replay can compare them. Truth is free everywhere: it is not part of any result.
"""

import bisect
import itertools
import operator
import sys
from types import FrameType
from typing import Any

import numpy as np

from nbad.errors import DetachError
from nbad.methods import ArrayMethods, detached
from nbad.recorder import add_guard, contents
from nbad.table import TABLE
from nbad.tape import CONTENTS, TRUTH, Tape


def depends(tape: Tape, slot: int) -> bool:
    """Return whether the value of a slot depends on an asked-for input; seldom called, so it looks at the whole tape."""
    variadic = dict(zip(tape.variadic_node, tape.variadic_count, strict=True))
    counts = (variadic.get(i, len(TABLE[code].operands)) for i, code in enumerate(tape.op))
    starts = list(itertools.accumulate(counts, initial=0))
    todo, seen = [slot], {-1}
    while todo:
        slot = todo.pop()
        if slot in seen:
            continue
        seen.add(slot)
        if slot < tape.inputs:
            return True
        node = bisect.bisect_right(tape.out_start, slot) - 1
        op = TABLE[tape.op[node]] if node >= 0 else None
        if op is None or slot >= tape.out_start[node] + op.outputs:
            continue  # a constant
        for k, operand in enumerate(tape.edge_slot[starts[node] : starts[node + 1]]):
            if not op.constant and (op.variadic or op.pullbacks[k] is not None or op.missing):
                todo.append(operand)
    return False


def is_product(frame: FrameType) -> bool:
    """Return whether SciPy asks, with a sparse matrix on the left of ``@``.

    It leaves the product to ``__rmatmul__`` of the other operand where that gives no array but one object.
    """
    asking = frame.f_code.co_name == "_matmul_dispatch"
    return asking and str(frame.f_globals.get("__name__")).startswith("scipy.sparse.")


class Conversions(ArrayMethods):
    """Mixin with the conversions to plain values."""

    __slots__ = ()

    def __bool__(self) -> bool:
        """Return the truth of the value (Python control flow on values is free)."""
        truth = bool(self._value)
        if self._tape.records:
            add_guard(self._tape, self._slot, TRUTH, self._value)
        return truth

    def _plainly(self, action: str) -> Any:
        """Return the plain value, noting that a replay must see the same; refuse where a derivative would be dropped.

        What was made of ``np.zeros_like(x)`` and the like is traced and carries no derivative yet.
        """
        tape = self._tape
        if not tape.records:
            if tape.closed or depends(tape, self._slot):
                raise detached(action)
            value = self._value
            return value._plainly(action) if isinstance(value, Conversions) else contents(value)
        add_guard(tape, self._slot, CONTENTS, self._value)
        return contents(self._value)

    def __float__(self) -> float:
        """Return the number; refuse where it carries a derivative, which the result would not."""
        return float(self._plainly("float()"))

    def __int__(self) -> int:
        """Return the number; refuse where it carries a derivative, which the result would not."""
        return int(self._plainly("int()"))

    def __complex__(self) -> complex:
        """Return the number; refuse where it carries a derivative, which the result would not."""
        return complex(self._plainly("complex()"))

    def __index__(self) -> int:
        """Return an integer; refuse a value that carries a derivative: it is no index."""
        if self._tape.records:
            operator.index(contents(self._value))  # raises if it is none, before anything is noted
        return operator.index(self._plainly("an index"))

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> Any:
        """Return a plain array; refuse where it would drop a derivative."""
        if is_product(sys._getframe(1)):
            unreadable = np.empty((), object)
            unreadable[()] = self
            return unreadable
        action = "np.asarray(), np.array() or a store into a plain ndarray"
        try:
            return np.asarray(self._plainly(action), dtype)
        except DetachError as error:
            fix = "Collect traced numbers with np.stack([a, b]); store them into an array made with np.zeros_like(x)."
            raise DetachError.of(action, at=error.at, instead=fix) from None

    def item(self, *args: Any) -> Any:
        """Return an element as a Python number; refuse where it would drop a derivative."""
        return np.asarray(self._plainly(".item()")).item(*args)

    def tolist(self) -> Any:
        """Return nested lists of numbers; refuse where they would drop a derivative."""
        return np.asarray(self._plainly(".tolist()")).tolist()

    def tobytes(self, *args: Any) -> Any:
        """Return the bytes; refuse where they would drop a derivative."""
        return np.asarray(self._plainly(".tobytes()")).tobytes(*args)
