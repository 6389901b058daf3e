"""The less common forms of ufunc calls on traced values: dtype=, reduce, outer, and what is refused.

Owns their reading; the common forms are recorded by `nbad.trace` itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.constants import call_constant
from nbad.errors import NoRuleError
from nbad.keeping import goes_first, operand
from nbad.methods import user_line
from nbad.refusals import reason_of
from nbad.table import BINDINGS, CONSTANT, UFUNCS, Op, binds, forward_only
from nbad.trace import apply, cast, is_traced, plain, underlying
from nbad.writing import check_cast, deliver

#: The rows of what ufuncs without derivative have as methods.
METHODS: dict[tuple[np.ufunc, str], Op] = {}
#: Asked about a ufunc that is not known: each may add rows for ufuncs of another package, and says whether it did.
LATER: list[Callable[[np.ufunc], bool]] = []


def add_methods() -> None:
    """Add rows for the methods of the ufuncs without derivative (called when all of these are known)."""
    for ufunc in CONSTANT:
        if isinstance(ufunc, np.ufunc) and ufunc.nin == 2:
            for method in ("reduce", "accumulate", "reduceat", "outer"):
                METHODS[ufunc, method] = forward_only(getattr(ufunc, method), f"{ufunc.__name__}_{method}")


@binds(np.ufunc)
def call_form(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record the less common forms of ufunc calls."""
    if any(map(goes_first, inputs)):
        return NotImplemented
    if method == "at":
        return BINDINGS[np.ufunc.at](ufunc, *inputs)
    out = kwargs.pop("out", None)
    if out is not None and any(o is not None for o in out):
        name = f"np.{ufunc.__name__}" if method == "__call__" else f"np.{ufunc.__name__}.{method}"
        return _into(ufunc, method, name, inputs, kwargs, out)
    if method == "__call__":
        dtype = kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        kwargs.pop("order", None)
        kwargs.pop("subok", None)
        if kwargs.pop("where", True) is not True:
            raise _no_rule(
                ufunc,
                " with where= and without out=",
                "What is not selected is arbitrary then: give out=, or use np.where.",
            )
        if kwargs:
            raise _no_rule(ufunc, f" with {', '.join(kwargs)}=")
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
        elif any(add(ufunc) for add in LATER) and any(ufunc in rows for rows in (UFUNCS, BINDINGS, CONSTANT)):
            result = ufunc(*inputs)
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


def _into(
    ufunc: np.ufunc,
    method: str,
    name: str,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: tuple[Any, ...],
) -> Any:
    """Perform a call with ``out=``; with ``where=`` it is computed of the selected elements only, as in NumPy."""
    where = kwargs.pop("where", True) if method == "__call__" else True
    if where is True:
        return deliver(name, out, getattr(ufunc, method)(*inputs, **kwargs))
    if len(out) != 1 or not is_traced(out[0]):
        return deliver(name, out[:1], None)  # raises
    target = out[0]
    selected = np.broadcast_to(operand(plain(where)), target.shape)
    if selected.dtype != np.bool_:
        raise TypeError(
            f"Cannot cast array data from {selected.dtype!r} to dtype('bool') according to the rule 'safe'"
        )
    shape = np.broadcast_shapes(*map(np.shape, inputs), target.shape)
    if shape != target.shape:
        raise ValueError(
            f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape {shape}"
        )
    result = ufunc(*(x if np.ndim(x) == 0 else np.broadcast_to(x, shape)[selected] for x in inputs), **kwargs)
    check_cast(name, result, target.dtype)
    target[selected] = result
    return target


def _no_rule(ufunc: np.ufunc, form: str = "", instead: str | None = None) -> NoRuleError:
    package = "np." if getattr(np, ufunc.__name__, None) is ufunc else ""
    return NoRuleError.of(
        f"{package}{ufunc.__name__}{form}", at=user_line(), instead=instead or reason_of(ufunc)
    )
