"""``config(nan="raise")``: which operation, forward or backward, made the first NaN or infinity.

Owns the look at what an operation gives beside what it was given. Without that setting nothing here looks at a value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nbad.config import SETTINGS
from nbad.errors import NonFiniteError
from nbad.keeping import run_forward
from nbad.kernels.forward import elementwise_forward
from nbad.methods import user_line
from nbad.table import Op

__all__ = ["call", "checked_pullbacks", "evaluate"]


def evaluate(
    op: Op, values: Any, attributes: Mapping[str, Any], wanted: tuple[int, ...]
) -> tuple[Any, tuple[tuple[int, Any], ...]]:
    """Return what `run_forward` does, looked at."""
    if SETTINGS.nan is None:
        return run_forward(op, values, attributes, wanted)
    y, shared = run_forward(op, values, attributes, wanted)
    _look(op, values, y)
    return y, shared


def call(op: Op, function: Callable[..., Any], *values: Any) -> Any:
    """Return ``function(*values)``, looked at: the Python operator or ufunc that the user wrote for `op`."""
    y = elementwise_forward(function, op.forward, *values)
    if SETTINGS.nan is not None:
        _look(op, values, y)
    return y


def checked_pullbacks(
    op: Op, g: Any, line: str, pulled: Iterator[tuple[int, Any]]
) -> Iterator[tuple[int, Any]]:
    """Yield what the pullbacks of a node give, looked at.

    Raises
    ------
    NonFiniteError
        A cotangent that holds a NaN or an infinity where those that it was made from hold none.
    """
    given = [x for x in (g if isinstance(g, tuple) else (g,)) if x is not None]
    while True:
        try:
            with np.errstate(all="ignore"):  # as in a jitted sweep
                found = next(pulled, None)
        except NonFiniteError as error:  # a step of a rule that is recorded itself
            raise NonFiniteError.of(f"the pullback of {op.name}, in which {error.what}", line) from None
        if found is None:
            return
        k, value = found
        fault = _fault(value, given, op.elementwise)
        if fault is not None:
            operand = op.operands[0 if op.variadic else k]
            raise NonFiniteError.of(f"the pullback of {op.name} in {operand} made {fault}", line)
        yield k, value


def _look(op: Op, values: Sequence[Any], y: Any) -> None:
    for output in y if isinstance(y, tuple) else (y,):
        fault = _fault(output, values, op.elementwise)
        if fault is not None:
            raise NonFiniteError.of(f"{op.name} made {fault}", user_line())


def _fault(y: Any, operands: Sequence[Any], by_element: bool) -> str | None:
    """Return what is not finite in `y` though it is in `operands`, element by element or as a whole; None for nothing.

    Traced values are looked at where the plain ones underneath them are made.
    """
    if not _is_plain(y):
        return None
    y = np.asarray(y)
    if np.isfinite(y).all():
        return None
    nan, inf = np.isnan(y), np.isinf(y)
    given = [np.asarray(x) for x in operands if _is_plain(x)]
    if by_element and _fits(y.shape, given):
        for x in given:
            nan = nan & ~np.isnan(x)
            inf = inf & np.isfinite(x)
    else:
        nan = nan & (not any(np.isnan(x).any() for x in given))
        inf = inf & all(np.isfinite(x).all() for x in given)
        given = []
    for word, found in (("a NaN", nan), ("an infinity", inf)):
        if found.any():
            place = tuple(int(i) for i in np.unravel_index(int(np.argmax(found)), y.shape))
            of = " and ".join(str(np.broadcast_to(x, y.shape)[place]) for x in given)
            return f"{word}{f' at index {place}' if place else ''}{f' from {of}' if of else ''}"
    return None


def _is_plain(value: Any) -> bool:
    """Return whether `value` is a plain array or number that can be infinite."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "fc"
    return isinstance(value, float | complex)


def _fits(shape: tuple[int, ...], operands: Sequence[np.ndarray]) -> bool:
    """Return whether the operands broadcast to `shape`."""
    try:
        return bool(np.broadcast_shapes(shape, *(x.shape for x in operands)) == shape)
    except ValueError:
        return False
