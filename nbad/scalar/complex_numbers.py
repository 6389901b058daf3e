"""Complex numbers that depend on what is asked for: their layout, casts, and the chain rule.

A complex number is two active numbers. Values come from numba's own implementation for plain complex numbers. A
derivative u + iv moves the result by (u da - v db) + i (v da + u db) where the argument moves by da + i db.
"""

import itertools
from typing import Any

from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import make_attribute_wrapper, models, register_model

from nbad.scalar.complex_formulas import COMPLEX_FORMULAS, LOOKING, MODULUS, d_modulus
from nbad.scalar.operations import WIDEST, added, multiplied, partial, typed
from nbad.scalar.types import (
    NUMBERS,
    Active,
    ActiveComplex,
    Dual,
    complex_of,
    folded,
    is_active,
    make,
    make_dual,
    stripped,
    terms_of,
    value_of,
)

#: numba has no annotations.
types: Any = numba_types

__all__ = ["implementation", "join", "parts_of"]

_COMPLEX = (types.Complex, ActiveComplex)
_ANY = (Active, Dual, ActiveComplex, types.Complex, *NUMBERS)


@register_model(ActiveComplex)
class _ActiveComplexModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: ActiveComplex) -> None:
        super().__init__(manager, kind, [("real", kind.real), ("imag", kind.imag)])


make_attribute_wrapper(ActiveComplex, "real", "real")
make_attribute_wrapper(ActiveComplex, "imag", "imag")


def parts_of(context: Any, builder: Any, kind: Any, number: Any) -> tuple[Any, Any]:
    """Emit the real and the imaginary part of a complex number, plain or active."""
    make_parts = context.make_complex if isinstance(kind, types.Complex) else _proxy(context)
    parts = make_parts(builder, kind, number)
    return parts.real, parts.imag


def join(context: Any, builder: Any, kind: Any, real: Any, imag: Any) -> Any:
    """Emit a complex number, plain or active, of its parts."""
    make_parts = context.make_complex if isinstance(kind, types.Complex) else _proxy(context)
    parts = make_parts(builder, kind)
    parts.real, parts.imag = real, imag
    return parts._getvalue()


def _proxy(context: Any) -> Any:
    def made(builder: Any, kind: Any, value: Any = None) -> Any:
        return cgutils.create_struct_proxy(kind)(context, builder, value=value)

    return made


def _part(kind: Any) -> Any:
    """Return the type of the real part of a complex type."""
    return kind.underlying_float if isinstance(kind, types.Complex) else kind.real


# Casts ------------------------------------------------------------------------------------------
def _real_to_complex(context: Any, builder: Any, given: Any, wanted: ActiveComplex, number: Any) -> Any:
    real = context.cast(builder, number, given, wanted.real)
    zero = context.get_constant(types.float64, 0.0)
    return join(context, builder, wanted, real, context.cast(builder, zero, types.float64, wanted.imag))


for _kind in (*NUMBERS, Active, Dual):
    lower_cast(_kind, ActiveComplex)(_real_to_complex)


@lower_cast(types.Complex, ActiveComplex)
@lower_cast(ActiveComplex, ActiveComplex)
def _complex_to_complex(context: Any, builder: Any, given: Any, wanted: ActiveComplex, number: Any) -> Any:
    if given == wanted:
        return number
    kinds = (given.underlying_float,) * 2 if isinstance(given, types.Complex) else (given.real, given.imag)
    real, imag = parts_of(context, builder, given, number)
    real = context.cast(builder, real, kinds[0], wanted.real)
    return join(context, builder, wanted, real, context.cast(builder, imag, kinds[1], wanted.imag))


# Levels -----------------------------------------------------------------------------------------
def _level(kind: Any) -> Any:
    """Return whether a number is active or has tangents, None for plain ones."""
    kind = kind.real if isinstance(kind, ActiveComplex) else kind
    return type(kind) if isinstance(kind, (Active, Dual)) else None


def _outermost(args: Any) -> Any:
    """Return the level at which a call is differentiated, None if nothing of it is complex or nothing active."""
    levels = [_level(kind) for kind in args]
    if not any(levels) or not all(isinstance(kind, _ANY) for kind in args):
        return None
    return Active if Active in levels else Dual


def _below(kind: Any, level: Any) -> Any:
    return types.unliteral(kind.base if _level(kind) is level else kind)


def _value(context: Any, builder: Any, kind: Any, level: Any, number: Any) -> Any:
    """Emit a number as it is below a level."""
    if _level(kind) is not level:
        return number
    if not isinstance(kind, ActiveComplex):
        return value_of(context, builder, kind, number)
    parts = parts_of(context, builder, kind, number)
    values = [value_of(context, builder, k, x) for k, x in zip((kind.real, kind.imag), parts, strict=True)]
    return join(context, builder, kind.base, *values)


def _plain(context: Any, function: Any, args: Any, level: Any) -> Any:
    return context.resolve_function_type(function, tuple(_below(kind, level) for kind in args), {})


def implementation(context: Any, function: Any, plain: Any) -> Any:
    """Return what emits numba's own function; of some only its type knows where it is."""
    return context.get_function(context.typing_context.resolve_value_type(function), plain)


def _values(context: Any, builder: Any, sig: Any, args: Any, level: Any, wanted: Any) -> list[Any]:
    """Emit the arguments as they are below a level, cast to the types that are wanted."""
    found = []
    for kind, number, to in zip(sig.args, args, wanted, strict=True):
        value = _value(context, builder, kind, level, number)
        found.append(context.cast(builder, value, _below(kind, level), to))
    return found


# Holomorphic functions --------------------------------------------------------------------------
def _real_partial(partial: Any, args: Any) -> bool:
    """Return whether a derivative is a real number."""
    beside = partial.beside
    return (
        partial.formula is None
        or beside == -1
        or (beside is not None and not isinstance(args[beside], _COMPLEX))
    )


def _widths(partials: Any, args: Any) -> tuple[int, int]:
    """Return the numbers of pairs of the parts of a result."""
    real = imag = 0
    for k, kind in enumerate(args):
        if _level(kind) is not Active:
            continue
        a, b = (kind.real.terms, kind.imag.terms) if isinstance(kind, ActiveComplex) else (kind.terms, 0)
        if _real_partial(partials[k], args):
            real, imag = real + a, imag + b
        else:
            real, imag = real + a + b, imag + a + b
    return real, imag


def _typed(context: Any, function: Any, partials: Any, args: Any) -> Any:
    level = _outermost(args)
    plain = level and _plain(context, function, args, level)
    if not plain or not isinstance(plain.return_type, _COMPLEX):
        return None
    given = [types.unliteral(kind) for kind in args]
    part = _part(plain.return_type)
    if level is Dual:
        return signature(complex_of(Dual(part)), *given)
    widths = _widths(partials, given)
    if max(widths) > WIDEST:
        given = [folded(kind) if _level(kind) else kind for kind in given]
        widths = _widths(partials, given)
    # A part without pairs is a constant.
    return signature(ActiveComplex(Active(part, widths[0]), Active(part, widths[1])), *given)


def _times(context: Any, builder: Any, part: Any, factor: Any, inner: Any) -> Any:
    """Emit a product; None is 1."""
    if factor is None or inner is None:
        return inner if factor is None else factor
    return multiplied(context, builder, part, factor, inner)


def _moves(context: Any, builder: Any, kind: Any, number: Any, part: Any) -> tuple[list[Any], list[Any]]:
    """Emit how the parts of an argument move: the pairs of each, or (None, tangent)."""
    numbers = [(kind, number)]
    if isinstance(kind, ActiveComplex):
        both = parts_of(context, builder, kind, number)
        numbers = list(zip((kind.real, kind.imag), both, strict=True))
    found: list[list[Any]] = []
    for one, x in numbers:
        if isinstance(one, Active):
            terms = terms_of(context, builder, one, x)
        else:
            terms = [(None, cgutils.create_struct_proxy(one)(context, builder, value=x).tangent)]
        found.append(
            [(i, d if d is None else context.cast(builder, d, stripped(one), part)) for i, d in terms]
        )
    return found[0], found[1] if len(found) > 1 else []


def _lower(function: Any, partials: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        level = _outermost(sig.args)
        plain = _plain(context.typing_context, function, sig.args, level)
        base = plain.return_type
        part = _part(base)
        y = implementation(context, function, plain)(
            builder, _values(context, builder, sig, args, level, plain.args)
        )
        kinds = [_below(kind, level) for kind in sig.args]
        natural = _values(context, builder, sig, args, level, kinds)
        moved: tuple[list[Any], list[Any]] = ([], [])

        def scaled(terms: list[Any], factor: Any) -> list[Any]:
            return [(index, _times(context, builder, part, factor, d)) for index, d in terms]

        for k, kind in enumerate(sig.args):
            if _level(kind) is not level:
                continue
            real, imag = _moves(context, builder, kind, args[k], part)
            formula = partials[k].formula
            if _real_partial(partials[k], sig.args):
                u = None
                if formula is not None:
                    u = partial(context, builder, formula, part, (*kinds, base), (*natural, y))
                moved[0].extend(scaled(real, u))
                moved[1].extend(scaled(imag, u))
                continue
            derivative = partial(context, builder, formula, base, (*kinds, base), (*natural, y))
            u, v = parts_of(context, builder, base, derivative)
            moved[0].extend([*scaled(real, u), *scaled(imag, _negative(context, builder, part, v))])
            moved[1].extend([*scaled(real, v), *scaled(imag, u)])
        return _moved(context, builder, sig.return_type, parts_of(context, builder, base, y), moved)

    return emit


def _negative(context: Any, builder: Any, part: Any, number: Any) -> Any:
    zero = context.cast(builder, context.get_constant(types.float64, -1.0), types.float64, part)
    return multiplied(context, builder, part, zero, number)


def _moved(context: Any, builder: Any, kind: Any, values: Any, moved: Any) -> Any:
    """Emit the complex number with these values, whose parts move so."""
    made = []
    for one, value, terms in zip((kind.real, kind.imag), values, moved, strict=True):
        made.append(with_moves(context, builder, one, value, terms))
    return join(context, builder, kind, *made)


def with_moves(context: Any, builder: Any, kind: Any, value: Any, terms: Any) -> Any:
    """Emit an active number of its pairs, or a number with a tangent that is the sum of `terms`."""
    if isinstance(kind, Active):
        if not terms:
            return context.cast(builder, value, kind.base, kind)
        return make(context, builder, kind, value, terms)
    tangent = None
    for _, one in terms:
        tangent = one if tangent is None else added(context, builder, kind.base, tangent, one)
    if tangent is None:
        return context.cast(builder, value, kind.base, kind)
    return make_dual(context, builder, kind, value, tangent)


# Functions to real numbers ----------------------------------------------------------------------
def _typed_modulus(context: Any, function: Any, args: Any) -> Any:
    (kind,) = args
    if not isinstance(kind, ActiveComplex):
        return None
    plain = _plain(context, function, args, _level(kind)).return_type
    if _level(kind) is Dual:
        return signature(Dual(plain), kind)
    if kind.real.terms + kind.imag.terms > WIDEST:
        kind = folded(kind)
    return signature(Active(plain, kind.real.terms + kind.imag.terms), kind)


def _lower_modulus(function: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (kind,) = sig.args
        level = _level(kind)
        plain = _plain(context.typing_context, function, sig.args, level)
        part = plain.return_type
        (a,) = _values(context, builder, sig, args, level, plain.args)
        y = implementation(context, function, plain)(builder, [a])
        gradient = partial(context, builder, d_modulus, kind.base, (kind.base, part), (a, y))
        slopes = parts_of(context, builder, kind.base, gradient)
        terms = []
        for slope, moves in zip(slopes, _moves(context, builder, kind, args[0], part), strict=True):
            terms += [(index, _times(context, builder, part, slope, d)) for index, d in moves]
        return with_moves(context, builder, sig.return_type, y, terms)

    return emit


# Registration -----------------------------------------------------------------------------------
def _combinations(n: int) -> list[tuple[Any, ...]]:
    """Return the combinations of kinds of arguments of which the real functions have none."""
    if n == 1:
        return [(ActiveComplex,), (Active,), (Dual,)]
    pairs = itertools.product(_ANY, _ANY)
    return [
        pair
        for pair in pairs
        if any(kind in _COMPLEX for kind in pair)
        and any(kind in (Active, Dual, ActiveComplex) for kind in pair)
    ]


def _register(function: Any, type_of: Any, count: int, combinations: Any, emit: Any) -> None:
    @typed(function)
    class Typed(AbstractTemplate):  # type: ignore[misc]
        """Types a function of complex numbers."""

        def generic(self, args: Any, kws: Any) -> Any:
            return None if kws or len(args) != count else type_of(self.context, args)

    for kinds in combinations:
        lower_builtin(function, *kinds)(emit)


def _register_holomorphic(function: Any, partials: Any) -> None:
    def type_of(context: Any, args: Any) -> Any:
        return _typed(context, function, partials, args)

    kinds = _combinations(len(partials))
    if len(partials) == 1 and getattr(function, "__module__", "") != "cmath":
        kinds = kinds[:1]  # those of real numbers are real
    _register(function, type_of, len(partials), kinds, _lower(function, partials))


def _register_modulus(function: Any) -> None:
    def type_of(context: Any, args: Any) -> Any:
        return _typed_modulus(context, function, args)

    _register(function, type_of, 1, [(ActiveComplex,)], _lower_modulus(function))


def _register_looking(function: Any, count: int) -> None:
    def type_of(context: Any, args: Any) -> Any:
        level = _outermost(args)
        if not level or not any(isinstance(kind, _COMPLEX) for kind in args):
            return None
        plain = _plain(context, function, args, level)
        return plain and signature(plain.return_type, *(types.unliteral(kind) for kind in args))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        level = _outermost(sig.args)
        plain = _plain(context.typing_context, function, sig.args, level)
        return implementation(context, function, plain)(
            builder, _values(context, builder, sig, args, level, plain.args)
        )

    _register(function, type_of, count, _combinations(2) if count == 2 else [(ActiveComplex,)], emit)


for _function, _partials in COMPLEX_FORMULAS.items():
    _register_holomorphic(_function, _partials)
for _function in MODULUS:
    _register_modulus(_function)
for _function in LOOKING:
    _register_looking(_function, 2 if _function.__name__ in ("eq", "ne", "equal", "not_equal") else 1)


@infer_global(complex)
class _Complex(AbstractTemplate):  # type: ignore[misc]
    """Types complex numbers of real ones."""

    def generic(self, args: Any, kws: Any) -> Any:
        if kws or not any(map(is_active, args)) or not all(isinstance(kind, _ANY) for kind in args):
            return None
        given = [types.unliteral(kind) for kind in args]
        if len(args) == 1:
            made = args[0] if isinstance(args[0], ActiveComplex) else complex_of(args[0])
            return signature(made, *given)
        if len(args) != 2 or any(isinstance(kind, _COMPLEX) for kind in args):
            return None
        base = self.context.unify_pairs(*(kind.base if is_active(kind) else kind for kind in given))
        if not isinstance(base, (types.Float, Dual)):
            base = types.float64
        if _outermost(args) is Dual:
            return signature(complex_of(self.context.unify_types(*given)), *given)
        parts = (Active(base, kind.width if isinstance(kind, Active) else 0) for kind in given)
        return signature(ActiveComplex(*parts), *given)


def _complex_of_one(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.cast(builder, args[0], sig.args[0], sig.return_type)


def _complex_of_two(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.return_type
    real, imag = (
        context.cast(builder, x, given, part)
        for x, given, part in zip(args, sig.args, (kind.real, kind.imag), strict=True)
    )
    return join(context, builder, kind, real, imag)


for _kind in (Active, Dual, ActiveComplex):
    lower_builtin(complex, _kind)(_complex_of_one)
for _kinds in itertools.product((Active, Dual, *NUMBERS), repeat=2):
    if any(kind in (Active, Dual) for kind in _kinds):
        lower_builtin(complex, *_kinds)(_complex_of_two)
