"""What Python code sees of a traced value: its truth, a number, a plain array.

Owns the refusal of what would drop a derivative unseen, and the guards of recording tapes, whose values are handed out
because a replay can compare them. Truth is free everywhere: it is not part of any result.
"""

import operator
from typing import Any

import numpy as np

from nbad.methods import ArrayMethods, detached
from nbad.recorder import add_guard, contents
from nbad.tape import CONTENTS, TRUTH


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
        """Return the plain value, noting that a replay must see the same; refuse where a derivative would be dropped."""
        tape = self._tape
        if not tape.records:
            raise detached(action)
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
        action = "np.asarray(), np.array() or a store into a plain ndarray"
        return np.asarray(self._plainly(action), dtype)

    def item(self, *args: Any) -> Any:
        """Return an element as a Python number; refuse where it would drop a derivative."""
        return np.asarray(self._plainly(".item()")).item(*args)

    def tolist(self) -> Any:
        """Return nested lists of numbers; refuse where they would drop a derivative."""
        return np.asarray(self._plainly(".tolist()")).tolist()

    def tobytes(self, *args: Any) -> Any:
        """Return the bytes; refuse where they would drop a derivative."""
        return np.asarray(self._plainly(".tobytes()")).tobytes(*args)
