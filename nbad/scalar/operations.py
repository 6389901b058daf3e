"""Scalar functions of active numbers: their types, and the chain rule.

Owns how a function with formulas is typed and lowered. The value comes from numba's own implementation for plain numbers,
so it is the value that the kernel computes without derivatives.
"""

import operator
from collections.abc import Callable
from typing import Any

from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from nbad._jit import call_scalar
from nbad.scalar.formulas import FORMULAS, PLAIN, Given
from nbad.scalar.types import (
    NUMBERS,
    Active,
    Dual,
    constant,
    make,
    make_dual,
    terms_of,
    value_of,
)

#: numba has no annotations.
types: Any = numba_types

__all__ = ["WIDEST", "added", "multiplied", "partial", "typed"]

WIDEST = 12
"""Most pairs of a number in registers; an operation whose result would have more puts its longest argument on the tape."""


def _level(kind: Any) -> Any:
    """Return the outermost kind of an argument."""
    return Active if isinstance(kind, Active) else Dual if isinstance(kind, Dual) else None


def _outermost(args: Any) -> Any:
    """Return the level at which a call of these arguments is differentiated, None for plain and foreign arguments."""
    levels = [_level(kind) for kind in args]
    if not any(levels) or not all(isinstance(kind, (Active, Dual, *NUMBERS)) for kind in args):
        return None
    if Active in levels:
        return Active
    return Dual


def _below(kind: Any, level: Any) -> Any:
    return kind.base if isinstance(kind, level) else kind


def _plain_signature(context: Any, function: Any, args: Any, level: Any) -> Any:
    return context.resolve_function_type(
        function, tuple(types.unliteral(_below(kind, level)) for kind in args), {}
    )


def _typed(context: Any, function: Any, args: Any) -> Any:
    """Return the signature of a function with formulas."""
    level = _outermost(args)
    if level is None:
        return None
    plain = _plain_signature(context, function, args, level)
    if plain is None:
        return None
    given = [types.unliteral(kind) for kind in args]
    if level is Dual:
        return signature(Dual(plain.return_type), *given)
    while sum(kind.terms for kind in given if isinstance(kind, Active)) > WIDEST:
        k = max((k for k, kind in enumerate(given) if isinstance(kind, Active)), key=lambda k: given[k].terms)
        given[k] = Active(given[k].base, 1)
    width = sum(kind.terms for kind in given if isinstance(kind, Active))
    return signature(Active(plain.return_type, width), *given)


def multiplied(context: Any, builder: Any, base: Any, a: Any, b: Any) -> Any:
    """Emit the product of two numbers of a type."""
    sig = context.typing_context.resolve_function_type(operator.mul, (base, base), {})
    return context.get_function(operator.mul, sig)(builder, [a, b])


def added(context: Any, builder: Any, base: Any, a: Any, b: Any) -> Any:
    """Emit the sum of two numbers of a type."""
    sig = context.typing_context.resolve_function_type(operator.add, (base, base), {})
    return context.get_function(operator.add, sig)(builder, [a, b])


def lower_with_formulas(function: Any, formulas: Any) -> Callable[..., Any]:
    """Return what emits a call of a function with formulas."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        level = _outermost(sig.args)
        base = sig.return_type.base
        plain = _plain_signature(context.typing_context, function, sig.args, level)
        values = []
        for kind, number, wanted in zip(sig.args, args, plain.args, strict=True):
            value = value_of(context, builder, kind, number) if isinstance(kind, level) else number
            values.append(context.cast(builder, value, _below(kind, level), wanted))
        y = context.get_function(function, plain)(builder, values)
        partials = []
        for k, kind in enumerate(sig.args):
            if isinstance(kind, level):
                found = partial(context, builder, formulas[k], base, (*plain.args, base), (*values, y))
                partials.append((k, found))
        if level is Dual:
            tangent = None
            for k, factor in partials:
                moved = cgutils.create_struct_proxy(sig.args[k])(context, builder, value=args[k]).tangent
                moved = context.cast(builder, moved, sig.args[k].base, base)
                if factor is not None:
                    moved = multiplied(context, builder, base, moved, factor)
                tangent = moved if tangent is None else added(context, builder, base, tangent, moved)
            return make_dual(context, builder, sig.return_type, y, tangent)
        terms = []
        for k, factor in partials:
            for index, inner in terms_of(context, builder, sig.args[k], args[k]):
                if inner is not None:
                    inner = context.cast(builder, inner, sig.args[k].base, base)
                if factor is not None:
                    inner = factor if inner is None else multiplied(context, builder, base, inner, factor)
                terms.append((index, inner))
        return make(context, builder, sig.return_type, y, terms)

    return emit


def partial(context: Any, builder: Any, formula: Any, result: Any, kinds: Any, values: Any) -> Any:
    """Emit a partial derivative as a number of type `result`, from the arguments and the value; None is 1."""
    if formula is None:
        return None
    if isinstance(formula, Given):
        return context.cast(builder, values[formula.place], kinds[formula.place], result)
    if isinstance(formula, float):
        return constant(context, builder, result, formula)
    return call_scalar(context, builder, formula, signature(result, *kinds), values)


def typed(function: Any) -> Any:
    """Register a template for the types of a function: a decorator. numba's own takes no ufuncs of NumPy before 2.2."""

    def register(template: Any) -> Any:
        made = type(template.__name__, (template,), {"key": function})
        infer_global(function, types.Function(made))
        return template

    return register


def _register(function: Any, formulas: tuple[Any, ...]) -> None:
    @typed(function)
    class Typed(AbstractTemplate):  # type: ignore[misc]
        """Types a function with formulas."""

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != len(formulas):
                return None
            return _typed(self.context, function, args)

    emit = lower_with_formulas(function, formulas)
    for kinds in _combinations(len(formulas)):
        lower_builtin(function, *kinds)(emit)


def _combinations(n: int) -> list[tuple[Any, ...]]:
    """Return the combinations of kinds of arguments with an active one among them."""
    active = (Active, Dual)
    if n == 1:
        return [(kind,) for kind in active]
    every = (*active, *NUMBERS)
    return [(a, b) for a in every for b in every if a in active or b in active]


def _register_plain(function: Any) -> None:
    @typed(function)
    class Typed(AbstractTemplate):  # type: ignore[misc]
        """Types a function that looks at values only."""

        def generic(self, args: Any, kws: Any) -> Any:
            level = None if kws else _outermost(args)
            if level is None:
                return None
            plain = _plain_signature(self.context, function, args, level)
            return plain and signature(plain.return_type, *(types.unliteral(kind) for kind in args))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        level = _outermost(sig.args)
        plain = _plain_signature(context.typing_context, function, sig.args, level)
        values = []
        for kind, number, wanted in zip(sig.args, args, plain.args, strict=True):
            value = value_of(context, builder, kind, number) if isinstance(kind, level) else number
            values.append(context.cast(builder, value, _below(kind, level), wanted))
        try:
            run = context.get_function(function, plain)
        except NotImplementedError:  # numba says this of a function that it overloads: that goes by its type
            kind = context.typing_context.resolve_value_type(function)
            run = context.get_function(
                kind, context.typing_context.resolve_function_type(kind, plain.args, {})
            )
        return run(builder, values)

    for kinds in (*_combinations(1), *_combinations(2)):
        lower_builtin(function, *kinds)(emit)


@lower_builtin("print_item", Active)
def _print_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Print the value."""
    kind = sig.args[0].base
    value = value_of(context, builder, sig.args[0], args[0])
    while isinstance(kind, Dual):
        kind, value = kind.base, value_of(context, builder, kind, value)
    return context.get_function("print_item", signature(types.none, kind))(builder, [value])


for _function, _formulas in FORMULAS.items():
    _register(_function, _formulas)
for _function in PLAIN:
    _register_plain(_function)
