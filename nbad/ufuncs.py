"""The less common forms of ufunc calls on traced values: dtype=, reduce, outer, and what is refused.

Owns their reading; the common forms are recorded by `nbad.trace` itself.
"""

from typing import Any

import numpy as np

from nbad.constants import call_constant
from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.table import BINDINGS, CONSTANT, UFUNCS, Op, binds, forward_only
from nbad.trace import apply, cast, is_traced, plain, underlying

#: The rows of what ufuncs without derivative have as methods.
METHODS: dict[tuple[np.ufunc, str], Op] = {}


def add_methods() -> None:
    """Add rows for the methods of the ufuncs without derivative (called when all of these are known)."""
    for ufunc in CONSTANT:
        if isinstance(ufunc, np.ufunc) and ufunc.nin == 2:
            for method in ("reduce", "accumulate", "reduceat", "outer"):
                METHODS[ufunc, method] = forward_only(getattr(ufunc, method), f"{ufunc.__name__}_{method}")


@binds(np.ufunc)
def call_form(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record the less common forms of ufunc calls."""
    if method == "__call__":
        if kwargs.get("out") is not None:
            kwargs = _no_out(ufunc, kwargs)
        dtype = kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        kwargs.pop("order", None)
        kwargs.pop("subok", None)
        if kwargs.pop("where", True) is not True or kwargs:
            raise _no_rule(ufunc, f" with {', '.join(kwargs) or 'where'}=", "Use np.where for where=.")
        if dtype is not None:
            signature = (None,) * ufunc.nin + (np.dtype(dtype),) * ufunc.nout
            # NumPy's own error for what it does not cast: complex numbers to real ones.
            kinds = (*map(_dtype_of, inputs), *(None,) * ufunc.nout)
            ufunc.resolve_dtypes(kinds, signature=signature, casting=casting)
        if ufunc in BINDINGS:
            result = BINDINGS[ufunc](*inputs)
        elif ufunc in CONSTANT:
            inputs = tuple(map(plain, inputs))
            if not any(map(is_traced, inputs)):
                return ufunc(*inputs)
            op = CONSTANT[ufunc]
            assert op is not None  # a ufunc depends on values
            found = apply(op, *map(operand, inputs))
            return found if dtype is None else cast(found, np.dtype(dtype))
        elif ufunc in UFUNCS:
            if dtype is not None:
                inputs = tuple(cast(operand(x), np.dtype(dtype)) for x in inputs)
            return apply(UFUNCS[ufunc], *(operand(x) for x in inputs))
        else:
            raise _no_rule(ufunc)
        return result if dtype is None else cast(result, np.dtype(dtype))
    binding = BINDINGS.get((ufunc, method))  # type: ignore[call-overload]
    if binding is not None:
        return binding(*inputs, **kwargs)
    op = METHODS.get((ufunc, method))
    if op is not None:
        return call_constant(getattr(ufunc, method), op, inputs, kwargs)
    raise _no_rule(ufunc, f".{method}")


def _dtype_of(value: Any) -> Any:
    """Return the dtype of an operand, or the class of a Python number, which is weak in promotion."""
    value = underlying(operand(value))
    return type(value) if type(value) in (int, float, complex) else np.asarray(value).dtype


def _no_out(ufunc: np.ufunc, kwargs: dict[str, Any]) -> dict[str, Any]:
    out = kwargs["out"]
    if all(o is None for o in out):
        return {key: value for key, value in kwargs.items() if key != "out"}
    form = " with out= (or an in-place operator on a plain array)"
    raise _no_rule(ufunc, form, "Take the new array that it returns: y = np.exp(x), y = y + x.")


def _no_rule(ufunc: np.ufunc, form: str = "", instead: str | None = None) -> NoRuleError:
    package = "np." if getattr(np, ufunc.__name__, None) is ufunc else ""
    return NoRuleError.of(f"{package}{ufunc.__name__}{form}", at=user_line(), instead=instead)
