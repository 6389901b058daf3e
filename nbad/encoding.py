"""Calls of NumPy functions as static values: which function, with what, and where the arrays belong.

Owns the encoding of arguments: arrays become operands, everything else becomes part of one template, which a tape can hold as
an attribute. It knows neither rows nor traced values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.errors import RuleError

#: The first member of each part of a template says what the rest is.
_OPERAND, _STATIC, _LIST, _TUPLE, _DICT, _DTYPE = range(6)

Template = tuple[Any, ...]


def pack(value: Any, operands: list[Any], is_operand: Callable[[Any], bool]) -> Template:
    """Return the template of `value`; what `is_operand` holds for is appended to `operands`."""
    if is_operand(value):
        operands.append(value)
        return (_OPERAND,)
    if isinstance(value, (list, tuple)):
        kind = _LIST if isinstance(value, list) else _TUPLE
        return (kind, *(pack(item, operands, is_operand) for item in value))
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise RuleError("a recorded call takes dictionaries with keys that are strings only")
        return (_DICT, *((key, pack(item, operands, is_operand)) for key, item in value.items()))
    if isinstance(value, (np.dtype, type)):
        return _DTYPE, np.dtype(value).str
    return _STATIC, value


def unpack(template: Template, operands: Any) -> Any:
    """Return the value that `template` stands for, given an iterator over the operands."""
    tag, rest = template[0], template[1:]
    if tag == _OPERAND:
        return next(operands)
    if tag == _LIST:
        return [unpack(item, operands) for item in rest]
    if tag == _TUPLE:
        return tuple(unpack(item, operands) for item in rest)
    if tag == _DICT:
        return {key: unpack(item, operands) for key, item in rest}
    return np.dtype(rest[0]) if tag == _DTYPE else rest[0]


def read_only(value: Any) -> Any:
    """Return an array as a view that cannot be written, anything else as it is."""
    if type(value) is not np.ndarray:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


class Call:
    """The forward of a row that stands for a NumPy function: the arrays are operands, the template holds the rest.

    A template may ask for ``out=`` or for work in place; operands are not the function's to write.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *xs: Any, template: Template) -> Any:
        """Call the function with `xs` where they belong."""
        args, kwargs = unpack(template, map(read_only, xs))
        return self.function(*args, **kwargs)
