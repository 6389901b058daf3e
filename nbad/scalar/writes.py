"""Which of its arguments a kernel may write into.

Owns a look at the code of a kernel and of its helpers before anything is compiled. It errs on one side: what is not listed here
is taken to write into all that it can reach.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba.core import compiler, ir, registry

from nbad.scalar.origins import Origins

__all__ = ["arguments_written"]

#: Attributes that are no views.
_NUMBERS = frozenset({"shape", "size", "ndim", "dtype", "strides", "itemsize", "nbytes"})
#: Methods of arrays that write into them.
_METHODS = frozenset({"fill", "sort", "partition", "put", "itemset", "resize", "byteswap", "setfield"})
#: Functions of NumPy that write into their arguments, besides those that are given an `out`.
_FUNCTIONS = frozenset(
    {"copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis", "shuffle", "at"}
)
#: Functions and methods whose results share no memory with their arguments, besides ufuncs.
_FRESH = frozenset({
    "range", "len", "float", "int", "bool", "abs", "copy", "array", "zeros", "ones", "empty", "full", "zeros_like", "ones_like",
    "empty_like", "full_like", "sum", "prod", "mean", "min", "max", "dot", "cumsum", "concatenate", "stack",
})  # fmt: skip
#: Packages of functions that write into nothing but what is said above.
_PURE = frozenset({"builtins", "math", "cmath", "_operator", "numpy", "numba", "nbad"})

_known: weakref.WeakKeyDictionary[Any, frozenset[int]] = weakref.WeakKeyDictionary()


def arguments_written(kernel: Any) -> frozenset[int]:
    """Return the positions of the arguments that a kernel may write into.

    Parameters
    ----------
    kernel : Dispatcher
        A function of numba.

    Returns
    -------
    frozenset of int
        Positions; an argument that is not among them is certainly not written.
    """
    if kernel not in _known:
        found: dict[Any, frozenset[int]] = {kernel: frozenset()}
        before: dict[Any, frozenset[int]] = {}
        while before != found:  # functions that call each other
            before = dict(found)
            for one in before:
                found[one] = _Look(one, found).written()
        _known.update(found)
    return _known[kernel]


class _Look:
    """One function: which arguments each variable may be a part of."""

    def __init__(self, kernel: Any, known: dict[Any, frozenset[int]]) -> None:
        self.function = Origins(compiler.run_frontend(kernel.py_func).blocks)
        self.known = known
        self.parts: dict[str, frozenset[int]] = {}

    def written(self) -> frozenset[int]:
        before = None
        while before != self.parts:
            before = dict(self.parts)
            for statement in self.function.assignments():
                self._add(statement.target.name, self._reached(statement.value))
        found = frozenset[int]()
        for block in self.function.blocks.values():
            for statement in block.body:
                for name in self._targets(statement):
                    found |= self._of(name)
        return found

    def _of(self, *names: str) -> frozenset[int]:
        return frozenset[int]().union(*(self.parts.get(name, ()) for name in names))

    def _add(self, name: str, parts: frozenset[int]) -> None:
        self.parts[name] = self.parts.get(name, frozenset()) | parts

    def _reached(self, value: Any) -> frozenset[int]:
        """Return the arguments that a value may be a part of."""
        if isinstance(value, ir.Arg):
            return frozenset({value.index})
        if isinstance(value, ir.Var):
            return self._of(value.name)
        if not isinstance(value, ir.Expr) or value.op in ("binop", "unary"):
            return frozenset()
        if value.op == "inplace_binop":
            return self._of(value.lhs.name)
        if value.op == "getattr" and value.attr in _NUMBERS:
            return frozenset()
        names = [one.name for one in value.list_vars()]
        parts = self._of(*names)
        if value.op == "call":
            called = self.function.constant(value.func.name)
            if isinstance(called, np.ufunc) or (_pure(called) and _name(called) in _FRESH):
                return frozenset()
            methods = list(self._methods(value.func.name))
            for receiver, _ in methods:  # a list that it is appended to
                self._add(receiver, parts)
            if methods and all(name in _FRESH for _, name in methods):
                return frozenset()
        return parts

    def _methods(self, name: str) -> Iterator[tuple[str, str]]:
        """Iterate over the (object, method) that a called variable may be."""
        for statement in self.function.definitions.get(name, ()):
            if isinstance(statement.value, ir.Expr) and statement.value.op == "getattr":
                yield statement.value.value.name, statement.value.attr

    def _targets(self, statement: Any) -> list[str]:
        """List the variables that a statement may write into."""
        if isinstance(statement, (ir.SetItem, ir.StaticSetItem, ir.DelItem, ir.SetAttr)):
            return [statement.target.name]
        value = statement.value if isinstance(statement, ir.Assign) else None
        if not isinstance(value, ir.Expr):
            return []
        if value.op == "inplace_binop":
            return [value.lhs.name]
        if value.op == "call":
            return self._call_targets(value)
        return [one.name for one in value.list_vars()] if value.op == "make_function" else []

    def _call_targets(self, call: Any) -> list[str]:
        given = [one.name for one in call.args]
        everything = [one.name for one in call.list_vars()]
        called = self.function.constant(call.func.name)
        if isinstance(called, registry.CPUDispatcher):
            mine = self.known.setdefault(called, frozenset())
            if call.kws or call.vararg is not None:
                return everything if mine else []
            return [given[k] for k in mine if k < len(given)]
        if called is None:
            methods = list(self._methods(call.func.name))
            if not methods or any(name in _METHODS for _, name in methods):
                return everything
            return []
        if isinstance(called, np.ufunc) and not call.kws:
            return given[called.nin :]
        fills = _name(called) in _FUNCTIONS or "out" in dict(call.kws)
        return everything if fills or not (_pure(called) or isinstance(called, type)) else []


def _name(called: Any) -> str:
    return str(getattr(called, "__name__", ""))


def _pure(called: Any) -> bool:
    """Return whether a function is of a package whose functions write into nothing but what is listed above."""
    if called is None or isinstance(called, registry.CPUDispatcher):
        return False
    module = "numpy" if isinstance(called, np.ufunc) else str(getattr(called, "__module__", None))
    return module.partition(".")[0] in _PURE
