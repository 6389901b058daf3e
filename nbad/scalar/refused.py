"""What numba would compile for active numbers and get another value from than for plain ones.

Owns the look at a function after its types are known.
"""

from __future__ import annotations

from typing import Any

from numba.core import errors, ir
from numba.core import types as numba_types

from nbad.scalar.origins import Origins

#: numba has no annotations.
types: Any = numba_types

__all__ = ["refuse"]

#: Attributes of arrays that say how numbers lie in memory.
_MEMORY = frozenset({"itemsize", "nbytes", "strides", "ctypes"})
#: Functions that show a number.
_TEXTS = (str, repr, hash, id)


def refuse(state: Any, is_active: Any) -> None:
    """Raise if the function looks at how a number with a derivative is made.

    Parameters
    ----------
    state : StateDict
        The state of numba's compiler, with types.
    is_active : callable
        Says of a type whether it holds numbers with derivatives.

    Raises
    ------
    TypingError
        Where it does.
    """
    origins = Origins(state.func_ir.blocks)
    for statement in origins.assignments():
        value = statement.value
        if not isinstance(value, ir.Expr):
            continue
        if value.op == "getattr" and isinstance(state.typemap[value.value.name], types.Array):
            if value.attr in _MEMORY and is_active(state.typemap[value.value.name]):
                raise errors.TypingError(
                    f"the attribute {value.attr} of an array that carries derivatives is another one",
                    loc=statement.loc,
                )
        elif value.op == "call":
            called = origins.constant(value.func.name)
            kinds = [state.typemap[one.name] for one in value.args]
            if any(called is one for one in _TEXTS) and any(map(is_active, kinds)):
                raise errors.TypingError(
                    f"{called.__name__}() of a number that carries a derivative", loc=statement.loc
                )
            method = state.typemap[value.func.name]
            viewed = isinstance(method, types.BoundFunction) and method.typing_key == "array.view"
            if viewed and kinds and is_active(method.this):
                raise errors.TypingError(
                    "a view of an array that carries derivatives as another dtype", loc=statement.loc
                )
        elif value.op == "build_set" and any(is_active(state.typemap[one.name]) for one in value.items):
            raise errors.TypingError("a set of numbers that carry derivatives", loc=statement.loc)
