"""Types of active scalars: numbers that know their place on the tape, and numbers with a tangent.

Owns the numba types, how they are laid out, unified and cast. Activity is a type: what is not asked for is of the types
that it always was, and costs nothing.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import lower_cast
from numba.core.typeconv import Conversion
from numba.extending import models, register_model

from nbad.scalar.entries import push

#: numba has no annotations.
types: Any = numba_types

__all__ = [
    "NUMBERS",
    "Active",
    "ActiveComplex",
    "Dual",
    "complex_of",
    "depth_of",
    "folded",
    "is_active",
    "lanes",
    "make",
    "make_dual",
    "precision",
    "stripped",
    "terms_of",
    "width_of",
]

NUMBERS = (types.Float, types.Integer, types.Boolean)
_INT = ir.IntType(64)


class Dual(numba_types.Type):
    """A number and its derivative in a direction; `base` is a float type or another `Dual`."""

    is_internal = True  # numba joins operators on numbers of its own only to one loop

    def __init__(self, base: Any) -> None:
        self.base = base
        super().__init__(f"Dual({base})")

    def unify(self, context: Any, other: Any) -> Any:
        """Return the type that holds both."""
        if isinstance(other, Dual):
            return _or_none(Dual, context.unify_pairs(self.base, other.base))
        if isinstance(other, NUMBERS):
            return _or_none(Dual, context.unify_pairs(self.base, other))
        return None

    def can_convert_from(self, context: Any, other: Any) -> Any:
        """Let plain numbers in: they do not move."""
        return Conversion.promote if isinstance(other, NUMBERS) else None

    def can_convert_to(self, context: Any, other: Any) -> Any:
        """Let the precision change."""
        if isinstance(other, Dual):
            return context.can_convert(self.base, other.base)
        return None


class Active(numba_types.Type):
    """A number that depends on what is asked for.

    Parameters
    ----------
    base : Float or Dual
        Type of the value.
    width : int
        0: the value has a place on the tape, its index; arrays hold this. k: the value is, to first order, the sum of k
        pairs of an index and a partial derivative, which live in registers and are not on the tape yet.
    """

    is_internal = True

    def __init__(self, base: Any, width: int) -> None:
        self.base = base
        self.width = width
        super().__init__(f"Active({base}, {width})")

    @property
    def terms(self) -> int:
        """Number of pairs, the index of a recorded value among them."""
        return max(1, self.width)

    def unify(self, context: Any, other: Any) -> Any:
        """Return the type that holds both: one pair, so that the number of pairs does not grow in a loop."""
        if isinstance(other, Active):
            base = context.unify_pairs(self.base, other.base)
        elif isinstance(other, (*NUMBERS, Dual)):
            base = context.unify_pairs(self.base, other)
        elif isinstance(other, types.Complex):
            return complex_of(self).unify(context, other)
        else:
            return None
        return None if base is None else Active(base, 1)

    def can_convert_from(self, context: Any, other: Any) -> Any:
        """Let plain numbers in: they are constants."""
        return Conversion.promote if isinstance(other, (*NUMBERS, Dual)) else None

    def can_convert_to(self, context: Any, other: Any) -> Any:
        """Let pairs be put on the tape, and the precision change."""
        if isinstance(other, Active) and (other.width < 2 or other.width == self.width):
            return context.can_convert(self.base, other.base) and Conversion.promote
        return None


class ActiveComplex(numba_types.Type):
    """A complex number made of two active numbers, or of two with tangents, whose values are of one type."""

    def __init__(self, real: Any, imag: Any) -> None:
        self.real = real
        self.imag = imag
        super().__init__(f"ActiveComplex({real}, {imag})")

    @property
    def base(self) -> Any:
        """Type of the value."""
        return complex_of(self.real.base)

    def unify(self, context: Any, other: Any) -> Any:
        """Return the type that holds both: one pair a part."""
        if isinstance(other, ActiveComplex):
            other = other.real
        elif isinstance(other, types.Complex):
            other = other.underlying_float
        elif not isinstance(other, (*NUMBERS, Active, Dual)):
            return None
        return _or_none(complex_of, _or_none(folded, context.unify_pairs(self.real, other)))

    def can_convert_from(self, context: Any, other: Any) -> Any:
        """Let plain numbers in, and real ones."""
        return Conversion.promote if isinstance(other, (*NUMBERS, types.Complex, Active, Dual)) else None

    def can_convert_to(self, context: Any, other: Any) -> Any:
        """Let pairs be put on the tape, and the precision change."""
        if isinstance(other, ActiveComplex):
            parts = ((self.real, other.real), (self.imag, other.imag))
            return all(context.can_convert(*pair) is not None for pair in parts) and Conversion.promote
        return None


def complex_of(part: Any) -> Any:
    """Return the type of complex numbers with parts of a type."""
    return (
        ActiveComplex(part, part) if is_active(part) else types.Complex(f"complex{2 * part.bitwidth}", part)
    )


def folded(kind: Any) -> Any:
    """Return the type of an active number with one pair, or with one for each part."""
    if isinstance(kind, ActiveComplex):
        return ActiveComplex(folded(kind.real), folded(kind.imag))
    return Active(kind.base, 1) if isinstance(kind, Active) else kind


def width_of(kind: Any) -> int:
    """Return the number of pairs, of the part that has more of them; 0 for what has none."""
    if isinstance(kind, ActiveComplex):
        return max(width_of(kind.real), width_of(kind.imag))
    return kind.width if isinstance(kind, Active) else 0


def _or_none(kind: Any, base: Any) -> Any:
    return None if base is None else kind(base)


@register_model(Dual)
class _DualModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Dual) -> None:
        super().__init__(manager, kind, [("value", kind.base), ("tangent", kind.base)])


@register_model(Active)
class _ActiveModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Active) -> None:
        members = [("value", kind.base)]
        members += [(f"index{k}", types.int64) for k in range(kind.terms)]
        members += [(f"partial{k}", kind.base) for k in range(kind.width)]
        super().__init__(manager, kind, members)


def is_active(kind: Any) -> bool:
    """Return whether a type is that of a number with a derivative."""
    return isinstance(kind, (Active, ActiveComplex, Dual))


def stripped(kind: Any) -> Any:
    """Return the type of the value."""
    return kind.base if isinstance(kind, (Active, Dual)) else kind


def precision(kind: Any) -> Any:
    """Return the float type at the bottom."""
    while isinstance(kind, (Active, Dual)):
        kind = kind.base
    return kind


def depth_of(kind: Any) -> int:
    """Return the number of directions in which a number has tangents."""
    kind = stripped(kind) if isinstance(kind, Active) else kind
    return 1 + depth_of(kind.base) if isinstance(kind, Dual) else 0


def lanes(base: Any) -> int:
    """Return the number of floats that a value is made of: 2 to the power of the number of directions."""
    return 2 * lanes(base.base) if isinstance(base, Dual) else 1


def value_of(context: Any, builder: Any, kind: Any, number: Any) -> Any:
    """Emit the value of an active number."""
    return cgutils.create_struct_proxy(kind)(context, builder, value=number).value


def terms_of(context: Any, builder: Any, kind: Active, number: Any) -> list[tuple[Any, Any]]:
    """Emit the pairs of an active number; the partial None is one."""
    parts = cgutils.create_struct_proxy(kind)(context, builder, value=number)
    if kind.width == 0:
        return [(parts.index0, None)]
    return [(getattr(parts, f"index{k}"), getattr(parts, f"partial{k}")) for k in range(kind.width)]


def make(context: Any, builder: Any, kind: Active, value: Any, terms: list[tuple[Any, Any]]) -> Any:
    """Emit an active number of its value and its pairs."""
    parts = cgutils.create_struct_proxy(kind)(context, builder)
    parts.value = value
    for k, (index, partial) in enumerate(terms):
        setattr(parts, f"index{k}", index)
        if kind.width:
            setattr(parts, f"partial{k}", one(context, builder, kind.base) if partial is None else partial)
    return parts._getvalue()


def make_dual(context: Any, builder: Any, kind: Dual, value: Any, tangent: Any) -> Any:
    """Emit a number with a tangent."""
    parts = cgutils.create_struct_proxy(kind)(context, builder)
    parts.value, parts.tangent = value, tangent
    return parts._getvalue()


def constant(context: Any, builder: Any, base: Any, value: float) -> Any:
    """Emit a number that does not move."""
    if isinstance(base, Dual):
        inner = constant(context, builder, base.base, value)
        return make_dual(context, builder, base, inner, constant(context, builder, base.base, 0.0))
    return context.get_constant(base, value)


def one(context: Any, builder: Any, base: Any) -> Any:
    """Emit 1."""
    return constant(context, builder, base, 1.0)


def floats_of(context: Any, builder: Any, base: Any, number: Any) -> list[Any]:
    """Emit the float64 components of a value: bit i of their position says whether direction i is in it."""
    if isinstance(base, Dual):
        parts = cgutils.create_struct_proxy(base)(context, builder, value=number)
        return [
            *floats_of(context, builder, base.base, parts.value),
            *floats_of(context, builder, base.base, parts.tangent),
        ]
    return [context.cast(builder, number, base, types.float64)]


def recorded(context: Any, builder: Any, base: Any, terms: list[tuple[Any, Any]]) -> Any:
    """Put pairs on the tape as one entry; emit its index, 0 if nothing in it depends on what is asked for."""
    filled = [
        (index, one(context, builder, base) if partial is None else partial) for index, partial in terms
    ]
    return push(
        context, builder, [(index, floats_of(context, builder, base, partial)) for index, partial in filled]
    )


# Casts ------------------------------------------------------------------------------------------
def _number_to_dual(context: Any, builder: Any, given: Any, wanted: Dual, number: Any) -> Any:
    value = context.cast(builder, number, given, wanted.base)
    return make_dual(context, builder, wanted, value, constant(context, builder, wanted.base, 0.0))


def _number_to_active(context: Any, builder: Any, given: Any, wanted: Active, number: Any) -> Any:
    value = context.cast(builder, number, given, wanted.base)
    nothing = (_INT(0), constant(context, builder, wanted.base, 0.0))
    return make(context, builder, wanted, value, [nothing] * wanted.terms)


for _kind in NUMBERS:
    lower_cast(_kind, Dual)(_number_to_dual)
    lower_cast(_kind, Active)(_number_to_active)
lower_cast(Dual, Active)(_number_to_active)


@lower_cast(Dual, Dual)
def _dual_to_dual(context: Any, builder: Any, given: Dual, wanted: Dual, number: Any) -> Any:
    parts = cgutils.create_struct_proxy(given)(context, builder, value=number)
    value, tangent = (context.cast(builder, x, given.base, wanted.base) for x in (parts.value, parts.tangent))
    return make_dual(context, builder, wanted, value, tangent)


@lower_cast(Active, Active)
def _active_to_active(context: Any, builder: Any, given: Active, wanted: Active, number: Any) -> Any:
    """Emit the cast; this is where entries come from."""
    if given == wanted:
        return number
    value = context.cast(builder, value_of(context, builder, given, number), given.base, wanted.base)
    terms = terms_of(context, builder, given, number)
    if wanted.width == 0 and given.width == 1:
        terms = [(_index_of_one(context, builder, given.base, *terms[0]), None)]
    elif len(terms) > wanted.terms:
        terms = [(recorded(context, builder, given.base, terms), None)]
    terms = [
        (index, partial if partial is None else context.cast(builder, partial, given.base, wanted.base))
        for index, partial in terms
    ]
    return make(context, builder, wanted, value, terms)


def _index_of_one(context: Any, builder: Any, base: Any, index: Any, partial: Any) -> Any:
    """Emit the index of a value with one pair: its own if the partial is 1, else that of a new entry."""
    slot = cgutils.alloca_once_value(builder, index)
    floats = floats_of(context, builder, base, partial)
    copied = builder.fcmp_ordered("==", floats[0], floats[0].type(1.0))
    for rest in floats[1:]:
        copied = builder.and_(copied, builder.fcmp_ordered("==", rest, rest.type(0.0)))
    with builder.if_then(builder.not_(copied)):
        builder.store(push(context, builder, [(index, floats)]), slot)
    return builder.load(slot)
