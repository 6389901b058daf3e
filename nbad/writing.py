"""Views and writes: which traced arrays share their elements, as the plain arrays underneath do.

Owns the link from a view to the array that owns its elements, the path that leads there, and what a write makes stale. Must
not know rules: a path names the rows of its steps.

The link of a traced array is None; or a list of weak references to its views; or, for a view, its owner and the path from
there. A write binds the owner to another slot and takes slot and value away from its views, which derive both anew when they
are asked for (`Traced.__getattr__`). So nothing is paid for views that are not used again, and nothing where no array is
written.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import numpy as np

from nbad.errors import MutationError, NoRuleError
from nbad.methods import ArrayMethods, user_line
from nbad.table import BINDINGS, Op

Path = tuple[tuple[Any, ...], ...]

#: The rows that make views, by name.
STEPS: dict[str, Op] = {}
#: Steps whose views NumPy does not let one write into.
READ_ONLY = frozenset(("broadcast_to", "diagonal"))
#: Functions that NumPy hands over because of their argument ``like=``, which it keeps to itself.
TAKES_LIKE: set[Callable[..., Any]] = set()
#: Number of references from which a list of views is searched for dead ones.
_FEW = 16


def makes_views(*ops: Op) -> None:
    """Register rows whose output may share the elements of their operand."""
    STEPS.update((op.name, op) for op in ops)


def follow(x: Any, path: Path, run: Callable[..., Any]) -> Any:
    """Return the view of `x` at the end of `path`; ``run(op, x, **attributes)`` performs a step."""
    for name, *attributes in path:
        op = STEPS[name]
        x = run(op, x, **dict(zip(op.attributes, attributes, strict=True)))
    return x


def owner_of(x: Any) -> tuple[Any, Path]:
    """Return the traced array that owns the elements of `x`, and the path from there."""
    link = x._link
    return link if type(link) is tuple else (x, ())


def enlist(owner: Any, follower: Any) -> None:
    """Let writes into `owner` reach `follower`."""
    views = owner._link
    if views is None:
        views = owner._link = [_FEW]
    elif len(views) > views[0]:
        views[1:] = [r for r in views[1:] if r() is not None]
        views[0] = 2 * len(views) + _FEW
    views.append(ref(follower))


def link(view: Any, of: Any, name: str, *attributes: Any) -> Any:
    """Note that the traced `view` shares the elements of the traced `of`, and return it."""
    owner, path = owner_of(of)
    view._link = owner, (*path, (name, *attributes))
    if owner._slot >= owner._tape.inputs:  # inputs are never written
        enlist(owner, view)
    return view


def linked(view: Any, of: Any, name: str, *attributes: Any) -> Any:
    """Return what a row made of `of`, linked if it is a view of it."""
    if view is not of and isinstance(view, ArrayMethods) and isinstance(of, ArrayMethods):
        a, b = _plain(view), _plain(of)
        both = type(a) is np.ndarray and type(b) is np.ndarray
        if both and a.base is not None and (a.base is b or a.base is b.base):
            return link(view, of, name, *attributes)
    return view


def _plain(value: Any) -> Any:
    while isinstance(value, ArrayMethods):
        value = value._value
    return value


def _followers(owner: Any) -> Iterator[Any]:
    if type(owner._link) is list:
        yield from (x for r in owner._link[1:] if (x := r()) is not None)


def check_writable(x: Any) -> tuple[Any, Path]:
    """Return `owner_of` an array that is about to be written.

    Raises
    ------
    NoRuleError
        Its elements belong to an argument of the function that is differentiated or recorded.
    TypeError
        It is a number.
    MutationError
        They belong to an argument of a transformation that runs at this moment.
    ValueError
        NumPy's views of this kind are read-only.
    """
    owner, path = owner_of(x)
    if type(found := _plain(owner)) is not np.ndarray:
        raise TypeError(f"{type(found).__name__!r} object does not support item assignment")
    if owner._slot < owner._tape.inputs:
        raise NoRuleError(
            "an argument of the function, or a view of one, cannot be written in place",
            at=user_line(),
            fix="Write into a copy: y = x.copy(), then y[...] = value.",
        )
    if any(step[0] in READ_ONLY for step in path):
        raise ValueError("assignment destination is read-only")
    for follower in _followers(owner):
        if type(follower._link) is not tuple and not follower._tape.closed:
            raise MutationError(
                "an array was written while a transformation was running that it is an argument of",
                at=user_line(),
                fix="Pass a copy, x.copy(), to the inner function.",
            )
    return owner, path


def outdate(owner: Any) -> None:
    """Take slot and value away from the views of an array that is about to be bound to others."""
    for follower in _followers(owner):
        if type(follower._link) is tuple:
            del follower._slot, follower._value
    owner._link = None


def snapshot(value: Any) -> Any:
    """Return `value`; a traced one as another object, which no write reaches."""
    if isinstance(value, ArrayMethods):
        return type(value)(value._value, value._slot, value._tape)  # type: ignore[call-arg]
    return value


def deliver(name: str, out: Any, result: Any) -> Any:
    """Write the result of the function called `name` into its argument ``out=``, and return that.

    Raises
    ------
    NoRuleError
        `out` is a plain array, which cannot carry a derivative.
    ValueError, TypeError
        As NumPy: another shape, or a dtype that `out` cannot hold.
    """
    if isinstance(out, tuple):
        out = out[0] if len(out) == 1 else out
    if isinstance(out, tuple):
        return tuple(y if o is None else deliver(name, o, y) for o, y in zip(out, result, strict=True))
    if not isinstance(out, ArrayMethods):
        raise NoRuleError.of(
            f"{name} with out= (or an in-place operator) on a plain array",
            at=user_line(),
            instead="Make that array with np.zeros_like(x) or np.empty_like(x), where x is traced, or take the new array "
            "that the function returns: y = np.exp(x), y = y + x.",
        )
    shape = np.shape(result)
    if shape != out.shape and np.broadcast_shapes(shape, out.shape) != out.shape:
        raise ValueError(
            f"non-broadcastable output operand with shape {out.shape} doesn't match the broadcast shape {shape}"
        )
    check_cast(name, result, out.dtype)
    BINDINGS[operator.setitem](out, (Ellipsis,), result)
    return out


def check_cast(name: str, result: Any, dtype: np.dtype[Any]) -> None:
    """Raise TypeError, as NumPy does, if an array of `dtype` cannot take a result by the rule "same_kind"."""
    found = result.dtype if hasattr(result, "dtype") else np.result_type(result)
    if not np.can_cast(found, dtype, "same_kind"):
        raise TypeError(
            f"Cannot cast {name} output from {found!r} to {dtype!r} with casting rule 'same_kind'"
        )
