"""The attributes and methods that a traced value shares with ndarray.

Owns spelling only: each method calls the NumPy function of the same name, which comes back through NumPy's protocols.
"""

import operator
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np

from nbad.errors import DetachError, where
from nbad.table import BINDINGS

#: Where frames lie that are not the user's: ours, and NumPy's, which stand between us.
_PACKAGES = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (__file__, str(np.__file__)))
#: Whether a source file lies there, for the files met so far.
_OURS: dict[str, bool] = {}


def user_frame() -> FrameType | None:
    """Return the innermost frame of the running call that is neither nbad's nor NumPy's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = _OURS.get(name)
        if ours is None:
            ours = _OURS[name] = name.startswith(_PACKAGES)
        if not ours:
            break
        frame = frame.f_back
    return frame


def user_line() -> str | None:
    """Return the source line of the user's code that is running, as ``file:line: code``."""
    frame = user_frame()
    return None if frame is None else where(frame.f_code.co_filename, frame.f_lineno)


def user_level() -> int:
    """Return the ``stacklevel`` of a warning of the caller that puts it at the user's line."""
    level, frame, user = 1, sys._getframe(1), user_frame()
    while frame.f_back is not None and frame is not user:
        level, frame = level + 1, frame.f_back
    return level


def detached(action: str) -> DetachError:
    """Return the error for an action that would drop the derivative unseen."""
    return DetachError.of(action, at=user_line())


class ArrayMethods:
    """Mixin with ndarray's attributes and methods; the class that uses it has `_value`, `_slot` and `_tape`."""

    __slots__ = ()
    _value: Any
    _slot: int
    _tape: Any
    __array__: Any  # `nbad.conversions` says what becomes of a traced value that meets plain Python

    def __repr__(self) -> str:
        """Show the value and say that it is traced."""
        return f"Traced({self._value!r})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        found: tuple[int, ...] = (
            np.shape(self._value) if isinstance(self._value, (int, float, complex)) else self._value.shape
        )
        return found

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the value."""
        value = self._value
        return np.result_type(type(value)) if type(value) in (int, float, complex, bool) else value.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> Any:
        """The transposed array."""
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        """The array with its last two axes exchanged."""
        return np.swapaxes(self, -1, -2)

    @property
    def real(self) -> Any:
        """The real part."""
        return np.real(self)

    @real.setter
    def real(self, value: Any) -> None:
        np.real(self)[...] = value

    @property
    def imag(self) -> Any:
        """The imaginary part."""
        return np.imag(self)

    @imag.setter
    def imag(self, value: Any) -> None:
        np.imag(self)[...] = value

    @property
    def flat(self) -> Any:
        """An iterator over the elements, traced, in C order."""
        return iter(np.ravel(self))

    def __len__(self) -> int:
        """Return the length of the first axis."""
        shape = self.shape
        if not shape:
            raise TypeError("len() of unsized object")
        return shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the first axis, giving traced values."""
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, index: Any) -> Any:
        """Return the elements at `index`, as NumPy does (basic and advanced indexing)."""
        return BINDINGS[operator.getitem](self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write `value` at `index`: this array, and its views, are from now on another value of the tape."""
        BINDINGS[operator.setitem](self, index, value)

    def __contains__(self, item: Any) -> bool:
        """Return whether any element equals `item`."""
        return bool(np.any(np.equal(self, item)))

    # Comparisons and bits: they carry no derivative.
    def __lt__(self, other: Any) -> Any:
        return BINDINGS[operator.lt](self, other)

    def __le__(self, other: Any) -> Any:
        return BINDINGS[operator.le](self, other)

    def __gt__(self, other: Any) -> Any:
        return BINDINGS[operator.gt](self, other)

    def __ge__(self, other: Any) -> Any:
        return BINDINGS[operator.ge](self, other)

    def __eq__(self, other: object) -> Any:
        return BINDINGS[operator.eq](self, other)

    def __ne__(self, other: object) -> Any:
        return BINDINGS[operator.ne](self, other)

    def __and__(self, other: Any) -> Any:
        return BINDINGS[operator.and_](self, other)

    def __rand__(self, other: Any) -> Any:
        return BINDINGS[operator.and_](other, self)

    def __or__(self, other: Any) -> Any:
        return BINDINGS[operator.or_](self, other)

    def __ror__(self, other: Any) -> Any:
        return BINDINGS[operator.or_](other, self)

    def __xor__(self, other: Any) -> Any:
        return BINDINGS[operator.xor](self, other)

    def __rxor__(self, other: Any) -> Any:
        return BINDINGS[operator.xor](other, self)

    def __lshift__(self, other: Any) -> Any:
        return BINDINGS[operator.lshift](self, other)

    def __rlshift__(self, other: Any) -> Any:
        return BINDINGS[operator.lshift](other, self)

    def __rshift__(self, other: Any) -> Any:
        return BINDINGS[operator.rshift](self, other)

    def __rrshift__(self, other: Any) -> Any:
        return BINDINGS[operator.rshift](other, self)

    def __invert__(self) -> Any:
        return BINDINGS[operator.invert](self)

    def __abs__(self) -> Any:
        return BINDINGS[operator.abs](self)

    def __round__(self, digits: int | None = None) -> Any:
        return BINDINGS[round](self, digits)

    def __floordiv__(self, other: Any) -> Any:
        return BINDINGS[operator.floordiv](self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return BINDINGS[operator.floordiv](other, self)

    def __matmul__(self, other: Any) -> Any:
        if hasattr(other, "tocsr"):
            return BINDINGS[operator.matmul](self, other)
        return np.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        if hasattr(other, "tocsr"):
            return BINDINGS[operator.matmul](other, self)
        return np.matmul(other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __copy__(self) -> Any:
        """Return a copy that carries the derivative."""
        return np.copy(self)

    def __deepcopy__(self, memo: Any) -> Any:
        """Return a copy that carries the derivative."""
        return np.copy(self)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the array cast to `dtype`; to an integer or boolean dtype it becomes a plain array."""
        return BINDINGS[np.ndarray.astype](self, dtype, *args, **kwargs)

    def copy(self, order: Any = "C") -> Any:
        """Return a copy."""
        return np.copy(self, order)

    def fill(self, value: Any) -> None:
        """Write `value` into every element."""
        self[...] = value

    def put(self, indices: Any, values: Any, mode: Any = "raise") -> None:
        """Write `values` at the places `indices` of the flattened array."""
        np.put(self, indices, values, mode)  # type: ignore[arg-type]

    def sort(self, *args: Any, **kwargs: Any) -> None:
        """Sort the elements in place."""
        self[...] = np.sort(self, *args, **kwargs)

    def conj(self) -> Any:
        """Return the complex conjugate; the array itself where it is real, as ndarray's method does."""
        return np.conjugate(self) if self.dtype.kind == "c" else self

    conjugate = conj

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Return the array with another shape."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        """Return the array with its axes permuted."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else (axes or None)
        return np.transpose(self, order)

    def compress(self, condition: Any, axis: Any = None) -> Any:
        """Return the slices for which `condition` holds."""
        return np.compress(condition, self, axis)

    def flatten(self, order: Any = "C") -> Any:
        """Return the elements as one dimension."""
        return np.ravel(np.copy(self), order)


def _forwarding(name: str, function: Any) -> Any:
    """Return a method that calls NumPy's `function` with the array first."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"ArrayMethods.{name}"
    method.__doc__ = f"Return ``np.{function.__name__}`` of the array."
    return method


for _name in (
    "all",
    "any",
    "argmax",
    "argmin",
    "argpartition",
    "argsort",
    "clip",
    "cumprod",
    "cumsum",
    "diagonal",
    "dot",
    "max",
    "mean",
    "min",
    "nonzero",
    "prod",
    "ravel",
    "repeat",
    "round",
    "searchsorted",
    "squeeze",
    "std",
    "sum",
    "swapaxes",
    "take",
    "trace",
    "var",
):
    setattr(ArrayMethods, _name, _forwarding(_name, getattr(np, _name)))


def _in_place(name: str) -> Any:
    """Return the method of an augmented assignment."""
    by = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        return BINDINGS[operator.iadd](by, self, other)

    method.__name__ = f"__i{name.strip('_')}__"
    method.__qualname__ = f"ArrayMethods.{method.__name__}"
    return method


#: The operators that have a form in place.
AUGMENTED = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
)  # fmt: skip
for _name in AUGMENTED:
    setattr(ArrayMethods, f"__i{_name.strip('_')}__", _in_place(_name))


def _refused(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise detached(f".{name}()")

    method.__name__ = name
    method.__doc__ = "Refuse: it writes in place or drops the derivative."
    return method


for _name in (
    "itemset",
    "partition",
    "resize",
    "byteswap",
    "view",
    "tofile",
    "dump",
    "dumps",
    "choose",
):
    setattr(ArrayMethods, _name, _refused(_name))
