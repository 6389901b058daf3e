"""Arrays of active numbers as arrays of their values and of their indices.

Owns the views of the fields, and how a number is made of a value and derivatives: the linear combination of the elements
of an array is one entry of many pairs.
"""

from typing import Any, ClassVar

from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import impl_ret_borrowed, lower_builtin
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr
from numba.extending import overload, register_jitable
from numba.np import arrayobj

from nbad._jit import intrinsic
from nbad.scalar.complex_numbers import join, parts_of
from nbad.scalar.entries import (
    PAIRS,
    WORD,
    end_entry,
    load_float,
    load_word,
    reserve,
    store_word,
    write_pair,
)
from nbad.scalar.lifting import real_type
from nbad.scalar.types import (
    Active,
    ActiveComplex,
    Dual,
    constant,
    floats_of,
    lanes,
    make,
    make_dual,
    value_of,
)

#: numba has no annotations.
types: Any = numba_types

__all__ = [
    "active_array",
    "all_of",
    "combined",
    "combined_two",
    "complex_array",
    "indices",
    "joined",
    "line",
    "method",
    "plain",
    "room",
    "tangents",
    "values",
    "with_value",
]


def active_array(kind: Any) -> bool:
    """Return whether a type is that of an array of real numbers with derivatives."""
    return isinstance(kind, types.Array) and isinstance(kind.dtype, (Active, Dual))


def complex_array(kind: Any) -> bool:
    """Return whether a type is that of an array of complex numbers with derivatives."""
    return isinstance(kind, types.Array) and isinstance(kind.dtype, ActiveComplex)


METHODS: dict[str, Any] = {}
"""Methods of arrays of numbers with derivatives: the functions that they are."""

COMPLEX_METHODS = frozenset({"sum", "mean", "prod", "cumsum", "cumprod"})
"""Those that arrays of complex numbers have too."""


class _Methods(AttributeTemplate):  # type: ignore[misc]
    """Types the methods of arrays of numbers with derivatives; those of other arrays are numba's."""

    key = types.Array
    metadata: ClassVar[dict[str, str]] = {"target": "CPU"}

    def generic_resolve(self, kind: Any, attribute: str) -> Any:
        """Return the type of a method."""
        known = METHODS if active_array(kind) else COMPLEX_METHODS if complex_array(kind) else ()
        if attribute not in known:
            return None

        class Method(AbstractTemplate):  # type: ignore[misc]
            """Types a call as that of the function."""

            key = _Methods, attribute

            def generic(self, args: Any, kws: Any) -> Any:
                function = self.context.resolve_value_type(METHODS[attribute])
                return function.get_call_type(self.context, (kind, *args), kws).as_method()

        return types.BoundFunction(Method, kind)


infer_getattr(_Methods)


def method(name: str, function: Any) -> None:
    """Let a method of arrays be a function."""
    METHODS[name] = function

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = context.typing_context.resolve_value_type(function)
        call = context.get_function(kind, kind.get_call_type(context.typing_context, sig.args, {}))
        context.add_linking_libs(getattr(call, "libs", ()))
        return call(builder, args)

    lower_builtin((_Methods, name), types.VarArg(types.Any))(emit)


# Views ------------------------------------------------------------------------------------------
def _view(array: Any, field: int, dtype: Any) -> Any:
    """Return the signature and the emitter of a view of one field of all elements."""
    viewed = types.Array(dtype, array.ndim, "A")

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = arrayobj.make_array(array)(context, builder, value=args[0])
        made = arrayobj.make_array(viewed)(context, builder)
        data = builder.bitcast(
            cgutils.gep_inbounds(builder, given.data, 0, field), context.get_data_type(dtype).as_pointer()
        )
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype)))
        arrayobj.populate_array(made, data, given.shape, given.strides, size, given.meminfo, given.parent)
        return impl_ret_borrowed(context, builder, viewed, made._getvalue())

    return viewed(array), emit


@intrinsic
def values(context: Any, array: Any) -> Any:
    """Return the values of an array of numbers with derivatives; a view."""
    return _view(array, 0, array.dtype.base)


@intrinsic
def indices(context: Any, array: Any) -> Any:
    """Return the indices of an array of active numbers; a view."""
    return _view(array, 1, types.int64)


@intrinsic
def tangents(context: Any, array: Any) -> Any:
    """Return the tangents of an array of numbers that have them; a view."""
    return _view(array, 1, array.dtype.base)


@intrinsic
def value(context: Any, number: Any) -> Any:
    """Return the value of a number with derivatives."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return value_of(context, builder, number, args[0])

    return number.base(number), emit


@intrinsic
def with_value(context: Any, number: Any, given: Any) -> Any:
    """Return a number with derivatives with another value, a float."""
    whole = types.unliteral(given)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def replaced(kind: Any, old: Any, new: Any) -> Any:
            if not isinstance(kind, (Active, Dual)):
                return context.cast(builder, new, real_type(whole), kind)
            parts = cgutils.create_struct_proxy(kind)(context, builder, value=old)
            parts.value = replaced(kind.base, parts.value, new)
            return parts._getvalue()

        if not isinstance(number, ActiveComplex):
            return replaced(number, *args)
        both = zip(
            (number.real, number.imag),
            parts_of(context, builder, number, args[0]),
            parts_of(context, builder, whole, args[1]),
            strict=True,
        )
        return join(context, builder, number, *(replaced(*one) for one in both))

    return number(number, whole), emit


def plain(x: Any) -> Any:
    """Return the values of an array or a number, in the layout of the array; what has no derivatives as it is."""


@overload(plain)
def _plain_overload(x: Any) -> Any:
    if isinstance(x, (Active, Dual)):
        return value_alone
    if not active_array(x):
        return same
    if x.layout == "C":
        return copied_values
    return copied_values_of_columns if x.layout == "F" else viewed_values


def value_alone(x: Any) -> Any:
    return value(x)


def same(x: Any) -> Any:
    return x


def copied_values(x: Any) -> Any:
    return values(x).copy()


def copied_values_of_columns(x: Any) -> Any:
    return values(x.T).copy().T


def viewed_values(x: Any) -> Any:
    return values(x)


def line(x: Any) -> Any:
    """Return the elements of an array in the order of C, in one dimension; a number as it is."""


@overload(line)
def _line_overload(x: Any) -> Any:
    if active_array(x) and isinstance(x.dtype, Active) and x.dtype.width > 0:
        return recorded_line  # numba unifies the types of elements, and indices do not say all of these
    if not isinstance(x, types.Array) or x.ndim == 1:
        return same
    return flat_view if x.layout == "C" else flat_copy


def recorded_line(x: Any) -> Any:
    made = room(plain(x), x, x)
    made[...] = x
    return made.reshape(made.size)


def flat_view(x: Any) -> Any:
    return x.reshape(x.size)


def flat_copy(x: Any) -> Any:
    return x.copy().reshape(x.size)


@intrinsic
def room(context: Any, y: Any, a: Any, b: Any) -> Any:
    """Return an array for numbers with values like `y` that depend on `a` and `b`, with arbitrary contents."""
    active = any(active_array(x) and isinstance(x.dtype, Active) for x in (a, b))
    made = types.Array(Active(y.dtype, 0) if active else Dual(y.dtype), y.ndim, "C")

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = arrayobj.make_array(y)(context, builder, value=args[0])
        shape = cgutils.unpack_tuple(builder, given.shape, y.ndim)
        return arrayobj._empty_nd_impl(context, builder, made, shape)._getvalue()

    return made(y, a, b), emit


# Numbers of values and derivatives --------------------------------------------------------------
@intrinsic
def joined(context: Any, value: Any, index: Any) -> Any:
    """Return the active number of a value and an index."""
    kind = Active(types.unliteral(value), 0)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return make(context, builder, kind, args[0], [(args[1], None)])

    return kind(value, types.int64), emit


@intrinsic
def with_tangent(context: Any, value: Any, tangent: Any) -> Any:
    """Return the number of a value and a tangent."""
    kind = Dual(types.unliteral(value))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        moved = context.cast(builder, args[1], tangent, kind.base)
        return make_dual(context, builder, kind, args[0], moved)

    return kind(value, tangent), emit


@intrinsic
def _zero(context: Any, like: Any) -> Any:
    """Return 0 of the type of a number."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return constant(context, builder, signature.return_type, 0.0)

    return types.unliteral(like)(like), emit


@intrinsic
def _moving(context: Any, like: Any) -> Any:
    """Return a 0 of the type of a number, which moves."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = constant(context, builder, like.base, 0.0)
        return make_dual(context, builder, like, zero, constant(context, builder, like.base, 1.0))

    return like(like), emit


@intrinsic
def _size(context: Any, like: Any) -> Any:
    """Return the bytes of a pair with a partial of the type of a number."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.int64, WORD + 8 * lanes(like))

    return types.int64(like), emit


@intrinsic
def _written(context: Any, at: Any, index: Any, partial: Any, like: Any) -> Any:
    """Write a pair, with the partial as a number of another's type; return where the next goes."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.cast(builder, args[2], types.unliteral(partial), types.unliteral(like))
        return write_pair(builder, args[0], args[1], floats_of(context, builder, like, number))

    return types.int64(types.int64, types.int64, types.unliteral(partial), like), emit


def all_of(y: Any, a: Any, b: Any) -> Any:
    """Return a line of one 0 in which all elements of two arrays interact; a number, where a tape does not tell what does.

    What is computed in several entries, with partials that depend on more than their operands, has a term with it.
    """


@overload(all_of)
def _all_of_overload(y: Any, a: Any, b: Any) -> Any:
    recorded = any(active_array(x) and isinstance(x.dtype, Active) for x in (a, b))

    def interact(y: Any, a: Any, b: Any) -> Any:
        made = room(y[:1].copy(), a, b)
        for k in range(made.size):
            made[k] = combined_two(0.0 * y[k], a, _moving(y[k]), b, _moving(y[k]))
        return made

    def nothing(y: Any, a: Any, b: Any) -> Any:
        return 0.0

    return interact if recorded and isinstance(y.dtype, Dual) else nothing


@register_jitable
def _opened(like: Any) -> Any:
    """Return where an entry begins, and where its next pair goes."""
    start = reserve(WORD + PAIRS * _size(like))
    return start, start


@register_jitable
def _paired(state: Any, index: Any, partial: Any, like: Any) -> Any:
    """Add a pair to an entry; a full one becomes the first pair of the next."""
    start, at = state
    if index == 0:
        return start, at
    if at - start == PAIRS * _size(like):
        whole = _closed(state, like)
        start = reserve(WORD + PAIRS * _size(like))
        at = _written(start, whole, 1.0, like)
    return start, _written(at, index, partial, like)


@register_jitable
def _closed(state: Any, like: Any) -> Any:
    """End an entry; return its index: 0 where it has no pairs, and that of its pair where that is its value."""
    start, at = state
    size = _size(like)
    if at == start:
        return 0
    if at - start == size and load_float(start + WORD) == 1.0:
        alone = True
        for rest in range(start + WORD + 8, at, 8):
            if load_float(rest) != 0.0:
                alone = False
        if alone:
            return load_word(start)
    store_word(at, (at - start) // size)
    return end_entry(at + WORD)


def _all_paired(state: Any, x: Any, partials: Any, like: Any) -> Any:
    """Add the elements of a line with their partials, an array or one number; what is not active adds nothing."""


@overload(_all_paired)
def _all_paired_overload(state: Any, x: Any, partials: Any, like: Any) -> Any:
    if not active_array(x):

        def nothing(state: Any, x: Any, partials: Any, like: Any) -> Any:
            return state

        return nothing
    if isinstance(partials, types.Array):

        def weighted(state: Any, x: Any, partials: Any, like: Any) -> Any:
            places = indices(x)
            for i in range(places.size):
                state = _paired(state, places[i], partials[i], like)
            return state

        return weighted

    def even(state: Any, x: Any, partials: Any, like: Any) -> Any:
        places = indices(x)
        for i in range(places.size):
            state = _paired(state, places[i], partials, like)
        return state

    return even


def _moved(total: Any, x: Any, partials: Any) -> Any:
    """Return a total with what the tangents of a line add to it."""


@overload(_moved)
def _moved_overload(total: Any, x: Any, partials: Any) -> Any:
    if not active_array(x):

        def nothing(total: Any, x: Any, partials: Any) -> Any:
            return total

        return nothing
    if isinstance(partials, types.Array):

        def weighted(total: Any, x: Any, partials: Any) -> Any:
            moved = tangents(x)
            for i in range(moved.size):
                total = total + partials[i] * moved[i]
            return total

        return weighted

    def even(total: Any, x: Any, partials: Any) -> Any:
        moved = tangents(x)
        for i in range(moved.size):
            total = total + partials * moved[i]
        return total

    return even


def combined(y: Any, a: Any, da: Any) -> Any:
    """Return the number of a value `y` that depends on an array: `da` are its partials, an array like it or one number."""


@overload(combined)
def _combined_overload(y: Any, a: Any, da: Any) -> Any:
    def combine(y: Any, a: Any, da: Any) -> Any:
        return combined_two(y, a, da, 0.0, 0.0)

    return combine


def combined_two(y: Any, a: Any, da: Any, b: Any, db: Any) -> Any:
    """Return the number of a value that depends on two arrays; one of them may be plain."""


@overload(combined_two)
def _combined_two_overload(y: Any, a: Any, da: Any, b: Any, db: Any) -> Any:
    if any(active_array(x) and isinstance(x.dtype, Active) for x in (a, b)):

        def active(y: Any, a: Any, da: Any, b: Any, db: Any) -> Any:
            first, second = line(a), line(b)  # before the entry begins: they may write some
            state = _all_paired(_opened(y), first, line(da), y)
            state = _all_paired(state, second, line(db), y)
            return joined(y, _closed(state, y))

        return active

    def dual(y: Any, a: Any, da: Any, b: Any, db: Any) -> Any:
        total = _moved(_zero(y), line(a), line(da))
        return with_tangent(y, _moved(total, line(b), line(db)))

    return dual
