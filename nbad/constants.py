"""Functions without derivative, on traced values: their results are plain, or recorded as nodes that pass nothing back.

Owns the call of such a function and the operators that are one. What carries derivatives is stripped before the call, so
a result never does.
"""

import contextlib
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.encoding import pack
from nbad.errors import DetachError
from nbad.keeping import operand
from nbad.table import BINDINGS, CONSTANT, Op, binds, constant, forward_only
from nbad.trace import apply, apply_by, is_traced, plain, underlying


@binds(constant)
def call_constant(function: Callable[..., Any], op: Op | None, args: Any, kwargs: Any) -> Any:
    """Call a function whose result carries no derivative; where it meets recorded values, record it as `op`.

    `op` is None for a function of shapes and dtypes only, which is called on what is underneath.
    """
    if op is None:
        return function(*plain_tree(args, underlying), **plain_tree(kwargs, underlying))
    args, kwargs = plain_tree(args), plain_tree(kwargs)
    operands: list[Any] = []
    template = pack((tuple(args), kwargs), operands, _is_operand)
    if not any(map(is_traced, operands)):
        return function(*args, **kwargs)
    found = apply(op, *operands, template=template)
    if function in _COUNTING:
        note_count(operands[0])
    return found


#: Functions whose result has as many elements as their argument has true ones.
_COUNTING = (np.flatnonzero, np.argwhere)


def note_count(truth: Any) -> None:
    """Let a recording hold for as many true elements only: Python sees the shape of what they select, used or not."""
    if is_traced(truth):
        while is_traced(truth._value):  # the recording that is replayed is the outermost
            truth = truth._value
        with contextlib.suppress(DetachError):  # of a checkpoint, which is computed again for the same values
            int(np.count_nonzero(truth))


def _is_operand(value: Any) -> bool:
    return is_traced(value) or isinstance(value, (np.ndarray, np.generic))


def plain_tree(value: Any, by: Callable[[Any], Any] = plain) -> Any:
    """Return `value` with every traced value inside lists, tuples and dicts replaced by its plain value."""
    if is_traced(value):
        return by(value)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(plain_tree(item, by) for item in value)
    if isinstance(value, dict):
        return {key: plain_tree(item, by) for key, item in value.items()}
    return value


def plainly(function: Callable[..., Any], op: Op, *args: Any, **kwargs: Any) -> Any:
    """Call `function`, whose calls are recorded as `op`, on values without what carries derivatives."""
    return call_constant(function, op, args, kwargs)


#: The row of ``round()`` of a number.
ROUND = forward_only(round, "round_number")


@binds(round)
def round_number(x: Any, digits: int | None = None) -> Any:
    """Return ``round(x, digits)``."""
    if isinstance(underlying(x), np.ndarray):
        return np.round(plain(x), digits or 0)
    return plainly(round, ROUND, x, digits)


def _bind_operator(by: Callable[..., Any], ufunc: np.ufunc, plain_by: Callable[..., Any]) -> None:
    """Bind a Python operator without derivative: `plain_by` on plain values, `by` on recorded ones.

    The operator leaves Python's own numbers what they are, which is weak in promotion.
    """

    def bound(*operands: Any) -> Any:
        operands = tuple(map(plain, operands))
        if not any(map(is_traced, operands)):
            return plain_by(*operands)
        if any(x is None or isinstance(x, str) for x in operands):  # equal to no number
            return by(*map(underlying, operands))
        op = CONSTANT[ufunc]
        assert op is not None  # it depends on values
        return apply_by(by, op, *map(operand, operands))

    BINDINGS[by] = bound


def bind_operators() -> None:
    """Bind the operators without derivative (called when the ufuncs have their rows)."""
    for by, ufunc in OPERATORS.items():
        _bind_operator(by, ufunc, operator.floordiv if by is operator.floordiv else ufunc)


#: The Python operators without derivative.
OPERATORS: dict[Callable[..., Any], np.ufunc] = {
    operator.lt: np.less, operator.le: np.less_equal, operator.gt: np.greater, operator.ge: np.greater_equal,
    operator.eq: np.equal, operator.ne: np.not_equal, operator.floordiv: np.floor_divide,
    operator.and_: np.bitwise_and, operator.or_: np.bitwise_or, operator.xor: np.bitwise_xor,
    operator.invert: np.invert, operator.lshift: np.left_shift, operator.rshift: np.right_shift,
}  # fmt: skip
