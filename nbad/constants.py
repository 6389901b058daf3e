"""Functions without derivative, on traced values: their results are plain, or recorded as nodes that pass nothing back.

Owns the call of such a function and the operators that are one. What carries derivatives is stripped before the call, so
a result never does.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.encoding import pack
from nbad.keeping import operand
from nbad.table import CONSTANT, Op, binds, constant, forward_only
from nbad.trace import apply, apply_by, is_traced, plain, plain_tree, underlying


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
    return apply(op, *operands, template=template)


def _is_operand(value: Any) -> bool:
    return is_traced(value) or isinstance(value, (np.ndarray, np.generic))


def plainly(function: Callable[..., Any], op: Op, *args: Any, **kwargs: Any) -> Any:
    """Call `function`, whose calls are recorded as `op`, on values without what carries derivatives."""
    return call_constant(function, op, args, kwargs)


_ROUND = forward_only(round, "round_number")


@binds(round)
def round_number(x: Any, digits: int | None = None) -> Any:
    if isinstance(underlying(x), np.ndarray):
        return np.round(plain(x), digits or 0)
    return plainly(round, _ROUND, x, digits)


@binds(operator.floordiv)
def floor_divide(a: Any, b: Any) -> Any:
    # On plain values by the operator, because Python's own numbers stay Python's (and weak).
    a, b = plain(a), plain(b)
    op = CONSTANT[np.floor_divide]
    if op is None or not (is_traced(a) or is_traced(b)):
        return a // b
    return apply_by(operator.floordiv, op, operand(a), operand(b))
