"""Elementwise functions of arrays of active numbers.

Owns the types of operators and ufuncs on arrays, and how they are lowered. numba joins the operators and ufuncs of an
expression to one scalar function, which it calls for each element; of active numbers that is one entry for an element,
however long the expression.
"""

import operator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.npydecl import supported_array_operators
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np import arrayobj, npyimpl
from numba.np.ufunc.array_exprs import _lower_array_expr

from nbad.scalar.complex_numbers import implementation
from nbad.scalar.formulas import FORMULAS, PLAIN
from nbad.scalar.lifting import base_of, real_type
from nbad.scalar.types import NUMBERS, Active, ActiveComplex, complex_of, depth_of, is_active, precision

#: numba has no annotations.
types: Any = numba_types

__all__ = ["element"]

_IN_PLACE = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv, operator.imod: operator.mod,
    operator.ipow: operator.pow,
}  # fmt: skip


def element(kind: Any) -> Any:
    """Return the type of what a function of elements takes for an argument: a number that is on the tape."""
    if isinstance(kind, types.Array):
        return kind.dtype
    return _on_tape(types.unliteral(kind))


def _on_tape(kind: Any) -> Any:
    if isinstance(kind, ActiveComplex):
        return ActiveComplex(_on_tape(kind.real), _on_tape(kind.imag))
    return Active(kind.base, 0) if isinstance(kind, Active) else kind


def _number(kind: Any) -> Any:
    """Return the type of a number without derivatives."""
    return complex_of(precision(kind.real)) if isinstance(kind, ActiveComplex) else precision(kind)


def _plainly(kind: Any) -> Any:
    """Return the type of an argument without derivatives."""
    return kind.copy(dtype=_number(kind.dtype)) if isinstance(kind, types.Array) else _number(kind)


def _result(context: Any, function: Any, args: Any) -> Any:
    """Return the type that a function of arrays returns; None where no array, or nothing active, is among them."""
    if not any(isinstance(kind, types.Array) for kind in args):
        return None
    elements = [element(kind) for kind in args]
    if not any(map(is_active, elements)) or not all(
        is_active(kind) or isinstance(kind, (*NUMBERS, types.Complex)) for kind in elements
    ):
        return None
    plain = context.resolve_function_type(function, tuple(map(_plainly, args)), {})
    if plain is None:
        return None
    kind = plain.return_type
    parts = [one.real if isinstance(one, ActiveComplex) else one for one in elements]
    if isinstance(kind.dtype, types.Boolean) or function not in FORMULAS:
        return kind
    base = base_of(real_type(kind.dtype), max(map(depth_of, parts)))
    part = Active(base, 0) if any(isinstance(one, Active) for one in parts) else base
    return kind.copy(dtype=complex_of(part) if isinstance(kind.dtype, types.Complex) else part)


def _operand(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, Any]:
    """Emit an argument as numba's loops over elements take it: an active number as an array without dimensions."""
    if not is_active(kind):
        return kind, value
    number = element(kind)
    whole = types.Array(number, 0, "C")
    slot = cgutils.alloca_once_value(builder, context.cast(builder, value, kind, number))
    made = arrayobj.make_array(whole)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(number)))
    arrayobj.populate_array(made, slot, (), (), size, None)
    return whole, made._getvalue()


def _emit(context: Any, builder: Any, function: Any, count: int, result: Any, kinds: Any, values: Any) -> Any:
    """Emit a function of `count` arrays; it is written to one more array, if that is given."""
    numbers = tuple(map(element, kinds[:count]))
    call = context.typing_context.resolve_function_type(function, numbers, {})

    class Kernel(npyimpl._Kernel):  # type: ignore[misc]
        """Calls the scalar function."""

        def generate(self, *given: Any) -> Any:
            cast = [
                context.cast(builder, value, kind, wanted)
                for value, kind, wanted in zip(given, numbers, call.args, strict=True)
            ]
            made = implementation(context, function, call)(builder, cast)
            return context.cast(builder, made, call.return_type, result.dtype)

    given = [_operand(context, builder, kind, value) for kind, value in zip(kinds, values, strict=True)]
    whole = signature(result, *(kind for kind, _ in given))
    ufunc = SimpleNamespace(nin=count, nout=1, nargs=count + 1, __name__=function.__name__)
    return npyimpl.numpy_ufunc_kernel(context, builder, whole, [value for _, value in given], ufunc, Kernel)


class _Elementwise(AbstractTemplate):  # type: ignore[misc]
    """Types an elementwise function of arrays; `count` is the number of its arguments."""

    metadata: ClassVar[dict[str, str]] = {"target": "CPU"}
    count: int
    lowered: object

    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) not in (self.count, self.count + 1):
            return None
        result = _result(self.context, self.key, args[: self.count])
        if result is None:
            return None
        if len(args) > self.count:
            result = args[self.count]
            if not isinstance(result, types.Array):
                return None
        return signature(result, *map(types.unliteral, args))

    def get_impl_key(self, sig: Any) -> Any:
        """Return what the implementation is registered for: not that of numba for all arrays."""
        return self.lowered


class _InPlace(_Elementwise):
    """Types an operator that writes to its first argument."""

    def generic(self, args: Any, kws: Any) -> Any:
        written = isinstance(args[0], types.Array) and _result(self.context, _IN_PLACE[self.key], args)
        return signature(args[0], *map(types.unliteral, args)) if written else None


def _register(function: Any, count: int) -> None:
    inner = _IN_PLACE.get(function, function)
    lowered = object()
    members = {"key": function, "count": count, "lowered": lowered}
    template = type("Typed", (_Elementwise if function is inner else _InPlace,), members)
    infer_global(function, types.Function(template))  # a decorator takes no ufuncs of NumPy before 2.2

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kinds, values = sig.args, args
        if function is not inner:
            kinds, values = (*kinds, kinds[0]), (*values, values[0])
        return _emit(context, builder, inner, count, sig.return_type, kinds, values)

    lower_builtin(lowered, types.VarArg(types.Any))(emit)


class _Lowerer:
    """A lowerer for which active numbers are arrays without dimensions."""

    def __init__(self, lowerer: Any) -> None:
        self.lowerer = lowerer
        self.context, self.builder = lowerer.context, lowerer.builder

    def typeof(self, name: str) -> Any:
        """Return the type of a variable."""
        kind = self.lowerer.typeof(name)
        return types.Array(element(kind), 0, "C") if is_active(kind) else kind

    def loadvar(self, name: str) -> Any:
        """Emit the value of a variable."""
        value = self.lowerer.loadvar(name)
        return _operand(self.context, self.builder, self.lowerer.typeof(name), value)[1]


def _lower_expression(lowerer: Any, expression: Any) -> Any:
    """Emit an expression of arrays, as numba does, but for active numbers in it."""
    return _lower_array_expr(_Lowerer(lowerer), expression)


for _function in (*FORMULAS, *PLAIN):
    if isinstance(_function, np.ufunc):
        _register(_function, _function.nin)
    elif _function in supported_array_operators:
        _register(_function, 1 if _function in (operator.neg, operator.pos) else 2)
cpu_target.target_context.special_ops["arrayexpr"] = _lower_expression
