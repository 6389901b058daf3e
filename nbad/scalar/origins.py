"""Where the arrays of a kernel come from.

Owns the search, in numba's intermediate representation, for the statements that made the memory of a variable: arrays into
which active numbers are written hold active numbers from there on. Whatever is not known to be a new array, a view of
another one, or a member of a container is an error: a copy made active in the place of a view would lose writes.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba.core import compiler, errors, ir

__all__ = ["Origins"]

#: Functions that return new arrays.
_NEW = {
    np.zeros, np.empty, np.ones, np.full, np.zeros_like, np.empty_like, np.ones_like, np.full_like, np.array, np.copy,
    np.arange, np.linspace, np.eye, np.identity, np.concatenate, np.stack, np.hstack, np.vstack, np.dstack, np.column_stack,
    np.append, np.dot, np.outer, np.kron, np.cumsum, np.cumprod, np.sort, np.where, np.repeat, np.diff, np.roll, np.take,
    np.delete, np.clip, np.interp, np.convolve, np.diag, np.tri, np.tril, np.triu, np.full, np.sum, np.mean, np.round,
}  # fmt: skip
_NEW_BY_METHOD = (
    "copy",
    "astype",
    "flatten",
    "sum",
    "mean",
    "cumsum",
    "dot",
    "repeat",
    "take",
    "conj",
    "conjugate",
)
#: Functions and methods that return their first argument or a view of it, or a new array.
_VIEWS = (
    "ravel", "reshape", "transpose", "asarray", "ascontiguousarray", "asfortranarray", "atleast_1d", "atleast_2d",
    "atleast_3d", "broadcast_to", "expand_dims", "squeeze", "flip", "fliplr", "flipud", "rot90", "swapaxes", "real",
    "imag", "view", "split", "array_split", "rollaxis", "moveaxis",
)  # fmt: skip
_ITERATORS = (zip, enumerate, reversed, iter, tuple, list)
#: Expressions that pass on what they are applied to, or a part of it.
_PARTS = ("getitem", "static_getitem", "exhaust_iter", "cast", "getiter", "iternext", "pair_first", "getattr")


class Origins:
    """The assignments of a function, by the variable assigned to."""

    def __init__(self, blocks: dict[int, Any]) -> None:
        self.blocks = blocks
        self.definitions: dict[str, list[Any]] = {}
        for statement in self.assignments():
            self.definitions.setdefault(statement.target.name, []).append(statement)

    def assignments(self) -> Iterator[Any]:
        """Iterate over all assignments."""
        for block in self.blocks.values():
            yield from block.find_insts(ir.Assign)

    def constant(self, name: str) -> Any:
        """Return the global, or the attribute of a global module, that a variable is; None if it is something else."""
        found = self.definitions.get(name, ())
        if len(found) != 1:
            return None
        value = found[0].value
        if isinstance(value, (ir.Global, ir.FreeVar)):
            return value.value
        if isinstance(value, ir.Var):
            return self.constant(value.name)
        if isinstance(value, ir.Expr) and value.op == "getattr":
            module = self.constant(value.value.name)
            if isinstance(module, types.ModuleType):
                return getattr(module, value.attr, None)
        return None

    def roots(self, name: str, seen: set[str] | None = None) -> Iterator[Any]:
        """Iterate over the assignments that made the arrays whose memory a variable may be.

        Raises
        ------
        TypingError
            If it is not known.
        """
        seen = set() if seen is None else seen
        if name in seen:
            return
        seen.add(name)
        for statement in self.definitions.get(name, ()):
            value = statement.value
            if isinstance(value, ir.Var):
                yield from self.roots(value.name, seen)
            elif isinstance(value, ir.Arg):
                yield statement
            elif isinstance(value, ir.Expr) and value.op == "call":
                yield from self._call_roots(statement, seen)
            elif isinstance(value, ir.Expr):
                yield from self._expression_roots(statement, seen)
            elif not isinstance(value, ir.Const) or value.value is not None:
                raise _unknown("this", statement.loc)

    def _expression_roots(self, statement: Any, seen: set[str]) -> Iterator[Any]:
        value = statement.value
        if value.op in ("binop", "unary"):
            yield statement
        elif value.op == "phi":
            for one in value.incoming_values:
                if isinstance(one, ir.Var):
                    yield from self.roots(one.name, seen)
        elif value.op == "inplace_binop":
            yield from self.roots(value.lhs.name, seen)
        elif value.op in ("build_tuple", "build_list"):
            for item in value.items:
                yield from self.roots(item.name, seen)
        elif value.op == "static_getitem" and isinstance(value.index, int):
            yield from self._member_roots(value.value.name, value.index, seen)
        elif value.op in _PARTS:
            yield from self.roots(value.value.name, seen)
        else:
            raise _unknown("this", statement.loc)

    def _member_roots(self, whole: str, index: int, seen: set[str]) -> Iterator[Any]:
        """Iterate over the roots of a member of a tuple, or of a row of an array."""
        for statement in self.definitions.get(whole, ()):
            made = statement.value
            if isinstance(made, ir.Expr) and made.op == "exhaust_iter":
                yield from self._member_roots(made.value.name, index, seen)
            elif isinstance(made, ir.Expr) and made.op == "build_tuple" and index < len(made.items):
                yield from self.roots(made.items[index].name, seen)
            else:
                yield from self.roots(whole, seen)

    def _call_roots(self, statement: Any, seen: set[str]) -> Iterator[Any]:
        call = statement.value
        method = self._method(call.func.name)
        if method is not None:
            name, array = method
            if name in _VIEWS:
                yield from self.roots(array, seen)
            elif name in _NEW_BY_METHOD:
                yield statement
            else:
                raise _unknown(f"the method {name}", statement.loc)
            return
        function = self.constant(call.func.name)
        name = getattr(function, "__name__", str(function))
        if hasattr(function, "py_func"):
            yield from self._helper_roots(function, statement, seen)
        elif (
            getattr(function, "activates", False)
            or isinstance(function, np.ufunc)
            or _is_one_of(function, _NEW)
        ):
            yield statement
        elif _is_one_of(function, _ITERATORS):
            for argument in call.args:
                yield from self.roots(argument.name, seen)
        elif name in _VIEWS and call.args:
            yield from self.roots(call.args[0].name, seen)
        else:
            raise _unknown(name, statement.loc)

    def _method(self, name: str) -> tuple[str, str] | None:
        """Return the name and the array of a method that is called."""
        for statement in self.definitions.get(name, ()):
            value = statement.value
            if isinstance(value, ir.Expr) and value.op == "getattr" and self.constant(name) is None:
                return value.attr, value.value.name
        return None

    def _helper_roots(self, helper: Any, statement: Any, seen: set[str]) -> Iterator[Any]:
        """Iterate over the roots of what a helper returned: the call, if that is new, or arguments."""
        new, passed = _returned(helper.py_func, [])
        if new and passed:
            raise _unknown(helper.py_func.__name__, statement.loc)
        if new:
            yield statement
        call = statement.value
        for k in passed:
            if k >= len(call.args):
                raise _unknown(helper.py_func.__name__, statement.loc)
            yield from self.roots(call.args[k].name, seen)


def _is_one_of(function: Any, known: Any) -> bool:
    return any(function is one for one in known)


def _returned(function: Any, within: list[Any]) -> tuple[bool, set[int]]:
    """Return whether a function returns new arrays, and which arguments it returns, or views of them."""
    if function in within:
        return False, set()
    within.append(function)
    origins = Origins(compiler.run_frontend(function).blocks)
    new, passed = False, set()
    for block in origins.blocks.values():
        for statement in block.find_insts(ir.Return):
            for root in origins.roots(statement.value.name):
                if isinstance(root.value, ir.Arg):
                    passed.add(root.value.index)
                else:
                    new = True
    return new, passed


def _unknown(what: str, loc: Any) -> Exception:
    return errors.TypingError(
        f"active numbers are written into an array that {what} returned, and it is not known whether that is a new array",
        loc=loc,
    )
