"""Values into active ones and back, at the border of a kernel.

Owns the functions that the entry point of a kernel calls: an array becomes an array of active numbers, what the kernel
returns is taken apart into values and indices.
"""

import functools
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, errors
from numba.core import types as numba_types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import overload
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype

from nbad._jit import intrinsic
from nbad.scalar.calls import Part
from nbad.scalar.complex_numbers import join, parts_of
from nbad.scalar.types import (
    Active,
    ActiveComplex,
    Dual,
    complex_of,
    constant,
    lanes,
    make,
    make_dual,
    precision,
    terms_of,
    value_of,
)

#: numba has no annotations.
types: Any = numba_types

__all__ = ["activate", "answer_signals", "assembled", "base_of", "empty_active", "lift", "real_type", "split"]


def base_of(kind: Any, depth: int) -> Any:
    """Return the type of the value of an active number of a plain real type, with `depth` directions."""
    for _ in range(depth):
        kind = Dual(kind)
    return kind


# Numbers ----------------------------------------------------------------------------------------
@intrinsic
def active(context: Any, value: Any, directions: Any, index: Any, width: Any) -> Any:
    """Return an active number of a number, a tuple of its tangents, and an index; that of an imaginary part is the next."""
    base = base_of(real_type(value), len(directions))
    part = Active(base, width.literal_value)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = [args[0], *(builder.extract_value(args[1], k) for k in range(len(directions)))]
        if not isinstance(value, types.Complex):
            return make(context, builder, part, _dual(context, builder, base, numbers), [(args[2], None)])
        following = builder.add(args[2], args[2].type(1))
        constant_too = builder.icmp_unsigned("==", args[2], args[2].type(0))
        indices = args[2], builder.select(constant_too, args[2], following)
        kinds = (value, *directions)
        each = [parts_of(context, builder, given, x) for given, x in zip(kinds, numbers, strict=True)]
        parts = [
            make(context, builder, part, _dual(context, builder, base, list(floats)), [(index, None)])
            for floats, index in zip(zip(*each, strict=True), indices, strict=True)
        ]
        return join(context, builder, complex_of(part), *parts)

    kind = complex_of(part) if isinstance(value, types.Complex) else part
    return kind(value, directions, types.int64, width), emit


def real_type(kind: Any) -> Any:
    """Return the type of the parts of a number."""
    return kind.underlying_float if isinstance(kind, types.Complex) else kind


def _dual(context: Any, builder: Any, base: Any, floats: list[Any]) -> Any:
    """Emit a value that moves in each of its directions by itself: components of two directions and more are 0."""
    if not isinstance(base, Dual):
        return floats[0]
    value = _dual(context, builder, base.base, floats[:-1])
    inner: Any = base.base
    return make_dual(context, builder, base, value, _lifted(context, builder, inner, floats[-1]))


def _lifted(context: Any, builder: Any, base: Any, number: Any) -> Any:
    if not isinstance(base, Dual):
        return number
    value = _lifted(context, builder, base.base, number)
    return make_dual(context, builder, base, value, constant(context, builder, base.base, 0.0))


@intrinsic
def lanes_of(context: Any, number: Any) -> Any:
    """Return the components of the value of an active number, or of one with tangents."""
    base = number.base if isinstance(number, Active) else number
    count = lanes(base)

    def components(context: Any, builder: Any, kind: Any, value: Any) -> list[Any]:
        if not isinstance(kind, Dual):
            return [value]
        parts = cgutils.create_struct_proxy(kind)(context, builder, value=value)
        return [
            *components(context, builder, kind.base, parts.value),
            *components(context, builder, kind.base, parts.tangent),
        ]

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = value_of(context, builder, number, args[0]) if isinstance(number, Active) else args[0]
        return context.make_tuple(builder, signature.return_type, components(context, builder, base, value))

    return types.UniTuple(precision(base), count)(number), emit


@intrinsic
def index_of(context: Any, number: Any) -> Any:
    """Return the index of an active number, which is put on the tape if it is not there; 0 of one with a tangent only."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(number, Dual):
            return context.get_constant(types.int64, 0)
        recorded_type = Active(number.base, 0)
        found = context.cast(builder, args[0], number, Active(number.base, min(1, number.width)))
        found = context.cast(builder, found, Active(number.base, min(1, number.width)), recorded_type)
        return terms_of(context, builder, recorded_type, found)[0][0]

    return types.int64(number), emit


# Arrays -----------------------------------------------------------------------------------------
@intrinsic
def empty_active(context: Any, array: Any, depth: Any) -> Any:
    """Return an array of active numbers with arbitrary contents, of the shape of an array of floats."""
    layout = array.layout if array.layout in "CF" else "C"
    element = Active(base_of(real_type(array.dtype), depth.literal_value), 0)
    if isinstance(array.dtype, types.Complex):
        element = complex_of(element)
    made = types.Array(element, array.ndim, layout)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = arrayobj.make_array(array)(context, builder, value=args[0])
        shape = cgutils.unpack_tuple(builder, given.shape, array.ndim)
        return arrayobj._empty_nd_impl(context, builder, made, shape)._getvalue()

    return made(array, depth), emit


def _fill(made: Any, array: Any, directions: Any, first: Any) -> None:
    """Write the elements of an array, as active numbers with indices from `first` on; all 0 if it is 0."""


@overload(_fill)
def _fill_overload(made: Any, array: Any, directions: Any, first: Any) -> Any:
    flat = array.layout == "C" and all(one.layout == "C" for one in directions)
    step = 2 if isinstance(array.dtype, types.Complex) else 1
    if array.ndim == 1 or flat:

        def fill(made: Any, array: Any, directions: Any, first: Any) -> None:
            to, given = made.reshape(made.size), array.reshape(array.size)
            for i in range(array.size):
                index = first + step * i if first else 0
                to[i] = active(given[i], _elements(directions, i), index, 0)

        def fill_line(made: Any, array: Any, directions: Any, first: Any) -> None:
            for i in range(array.size):
                index = first + step * i if first else 0
                made[i] = active(array[i], _elements(directions, i), index, 0)

        return fill_line if array.ndim == 1 else fill

    def fill_any(made: Any, array: Any, directions: Any, first: Any) -> None:
        index = first
        for place in np.ndindex(array.shape):
            made[place] = active(array[place], _elements_at(directions, place), index, 0)
            if first:
                index += step

    return fill_any


def _elements(arrays: Any, i: Any) -> Any:
    """Return the elements at flat place `i` of a tuple of C-ordered arrays."""


@overload(_elements)
def _elements_overload(arrays: Any, i: Any) -> Any:
    if len(arrays) == 0:

        def none(arrays: Any, i: Any) -> Any:
            return ()

        return none
    if len(arrays) == 1:

        def last(arrays: Any, i: Any) -> Any:
            return (arrays[0].flat[i],)

        return last

    def several(arrays: Any, i: Any) -> Any:
        return (arrays[0].flat[i],) + _elements(arrays[1:], i)

    return several


def _elements_at(arrays: Any, place: Any) -> Any:
    """Return the elements at a place of a tuple of arrays."""


@overload(_elements_at)
def _elements_at_overload(arrays: Any, place: Any) -> Any:
    if len(arrays) == 0:

        def none(arrays: Any, place: Any) -> Any:
            return ()

        return none
    if len(arrays) == 1:

        def last(arrays: Any, place: Any) -> Any:
            return (arrays[0][place],)

        return last

    def several(arrays: Any, place: Any) -> Any:
        return (arrays[0][place],) + _elements_at(arrays[1:], place)

    return several


def lift(value: Any, directions: Any, first: Any) -> Any:
    """Return an array or a number as active: with indices from `first` on, or constant if that is 0."""


@overload(lift)
def _lift_overload(value: Any, directions: Any, first: Any) -> Any:
    depth = len(directions)
    if isinstance(value, types.Array):

        def lift_array(value: Any, directions: Any, first: Any) -> Any:
            made = empty_active(value, depth)
            _fill(made, value, directions, first)
            return made

        return lift_array

    def lift_number(value: Any, directions: Any, first: Any) -> Any:
        return active(value, directions, first, 1)

    return lift_number


@functools.cache
def activate(depth: int) -> Any:
    """Return a function that makes an array of numbers active, also within tuples, and leaves everything else as it is."""

    def activated(value: Any) -> Any:
        """Return an active array of constants."""

    @overload(activated)
    def activated_overload(value: Any) -> Any:
        if isinstance(value, types.Array) and isinstance(value.dtype, (types.Float, types.Complex)):

            def convert(value: Any) -> Any:
                made = empty_active(value, depth)
                for place in np.ndindex(value.shape):
                    made[place] = value[place]
                return made

            return convert
        if isinstance(value, types.UniTuple | types.Tuple) and len(value) == 1:

            def convert_last(value: Any) -> Any:
                return (activated(value[0]),)

            return convert_last
        if isinstance(value, types.UniTuple | types.Tuple) and len(value) > 1:

            def convert_tuple(value: Any) -> Any:
                return (activated(value[0]),) + activated(value[1:])

            return convert_tuple

        def same(value: Any) -> Any:
            return value

        return same

    activated.activates = True  # type: ignore[attr-defined]  # for `nbad.scalar.origins`
    return activated


@intrinsic
def _members(context: Any, named: Any) -> Any:
    """Return a named tuple as a plain one."""
    kind = types.Tuple(tuple(named))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = [builder.extract_value(args[0], k) for k in range(len(named))]
        return impl_ret_borrowed(context, builder, kind, context.make_tuple(builder, kind, parts))

    return kind(named), emit


def split(result: Any) -> Any:
    """Take what a kernel returned apart, for `assembled`: before the members of a tuple stands what it is.

    Named tuples, `Part` among them, do not leave compiled code: numba makes them by calling Python, where a Ctrl-C that came
    while the kernel ran would raise its exception, and numba goes on with a null pointer.
    """


_TUPLE, _PART = 0, 1

_classes: dict[str, Any] = {}
"""Named tuples that no module knows by their name."""


def assembled(found: Any) -> Any:
    """Return what a kernel returned, of what `split` made of it: a `Part` in the place of each active number or array."""
    if type(found) is not tuple:
        return found
    kind, *members = found
    if kind == _PART:
        return Part(*members)
    members = [assembled(one) for one in members]
    if kind == _TUPLE:
        return tuple(members)
    module, _, name = kind.partition(":")
    return (_classes.get(kind) or getattr(sys.modules[module], name))(*members)


@intrinsic
def _text(context: Any, word: Any) -> Any:
    """Return a text that the compiler does not know: to make one that it does, numba calls Python."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.unicode_type(types.unicode_type), emit


def _word_of(cls: Any) -> str:
    """Return a word for a class of named tuples, the same in each process if its module has it."""
    known: Any = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
    if known is cls:
        return f"{cls.__module__}:{cls.__name__}"
    word = next((word for word, other in _classes.items() if other is cls), f"#{len(_classes)}")
    _classes[word] = cls
    return word


@overload(split)
def _split_overload(result: Any) -> Any:
    if isinstance(result, types.BaseTuple):
        named = isinstance(result, types.BaseNamedTuple)
        word = _word_of(result.instance_class) if named else ""

        def split_named(result: Any) -> Any:
            return (_text(word),) + _split_members(_members(result))

        def split_tuple(result: Any) -> Any:
            return (_TUPLE,) + _split_members(result)

        return split_named if named else split_tuple
    if isinstance(result, (Active, Dual)):

        def split_number(result: Any) -> Any:
            return _PART, lanes_of(result), index_of(result)

        return split_number
    if isinstance(result, ActiveComplex):

        def split_complex(result: Any) -> Any:
            real, imag = lanes_of(result.real), lanes_of(result.imag)
            return _PART, _paired(real, imag), (index_of(result.real), index_of(result.imag))

        return split_complex
    if isinstance(result, types.Array) and isinstance(result.dtype, (Active, ActiveComplex)):
        return _split_array(result)

    if isinstance(result, types.StringLiteral):

        def split_text(result: Any) -> Any:
            return _text(result)

        return split_text
    if "Active(" in str(result) or "Dual(" in str(result):
        raise errors.TypingError(
            f"the kernel returns {result}, and not an array, a number or a tuple of these"
        )

    def same(result: Any) -> Any:
        return result

    return same


@intrinsic
def answer_signals(context: Any) -> Any:
    """Let Python answer signals that came meanwhile, and return if that raised: numba does not look when it makes an array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        failed = builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyErr_CheckSignals"), [])
        with builder.if_then(cgutils.is_not_null(builder, failed), likely=False):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()

    return types.none(), emit


def _split_members(members: Any) -> Any:
    """Return what `split` makes of each member of a tuple."""


@overload(_split_members)
def _split_members_overload(members: Any) -> Any:
    if len(members) == 0:

        def none(members: Any) -> Any:
            return ()

        return none
    if len(members) == 1:

        def last(members: Any) -> Any:
            return (split(members[0]),)

        return last

    def several(members: Any) -> Any:
        return (split(members[0]),) + _split_members(members[1:])

    return several


def _paired(real: Any, imag: Any) -> Any:
    """Return the complex numbers with these tuples of parts."""


@overload(_paired)
def _paired_overload(real: Any, imag: Any) -> Any:
    if len(real) == 1:

        def last(real: Any, imag: Any) -> Any:
            return (complex(real[0], imag[0]),)

        return last

    def several(real: Any, imag: Any) -> Any:
        return (complex(real[0], imag[0]),) + _paired(real[1:], imag[1:])

    return several


def _split_array(result: Any) -> Any:
    kind = result.dtype
    is_complex = isinstance(kind, ActiveComplex)
    part = kind.real if is_complex else kind
    count, number_type = lanes(part.base), precision(part)
    dtype = as_dtype(complex_of(number_type) if is_complex else number_type)

    def split_array(result: Any) -> Any:
        values = np.empty((count,) + result.shape, dtype)
        indices = np.empty(result.shape, np.int64)
        for place in np.ndindex(result.shape):
            number = result[place]
            components = lanes_of(number)
            indices[place] = index_of(number)
            for k in range(count):
                values[(k,) + place] = components[k]
        return _PART, values, indices

    def split_complex_array(result: Any) -> Any:
        values = np.empty((count,) + result.shape, dtype)
        indices = np.empty(result.shape + (2,), np.int64)
        for place in np.ndindex(result.shape):
            number = result[place]
            real, imag = lanes_of(number.real), lanes_of(number.imag)
            indices[place + (0,)] = index_of(number.real)
            indices[place + (1,)] = index_of(number.imag)
            for k in range(count):
                values[(k,) + place] = complex(real[k], imag[k])
        return _PART, values, indices

    return split_complex_array if is_complex else split_array
