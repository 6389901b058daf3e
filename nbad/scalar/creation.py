"""Arrays made of active numbers, and of arrays of them.

Owns creation and conversion: plain arrays among active ones become active, an empty array holds constants, and what only
moves elements moves them as they are.
"""

from typing import Any

import numpy as np
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.typing.npydecl import parse_dtype
from numba.extending import overload, register_jitable
from numba.np import arrayobj

from nbad._jit import intrinsic
from nbad.scalar.fields import active_array, complex_array, method
from nbad.scalar.lifting import base_of, real_type
from nbad.scalar.reductions import none_like, plain_all
from nbad.scalar.types import Active, ActiveComplex, Dual, complex_of, depth_of, is_active, precision

#: numba has no annotations.
types: Any = numba_types

__all__ = ["dtype_among", "element_of", "zeros"]


def dtype_among(kinds: Any) -> Any:
    """Return the type of elements that holds those of all these types; None where none is active."""
    found = [kind.dtype if isinstance(kind, types.Array) else types.unliteral(kind) for kind in kinds]
    if not any(map(is_active, found)):
        return None
    parts = [kind.real if isinstance(kind, ActiveComplex) else real_type(kind) for kind in found]
    widest = np.result_type(*(str(precision(kind)) for kind in parts))
    base = base_of(getattr(types, str(widest)), max(map(depth_of, parts)))
    part = Active(base, 0) if any(isinstance(kind, Active) for kind in parts) else base
    return (
        complex_of(part) if any(isinstance(kind, (ActiveComplex, types.Complex)) for kind in found) else part
    )


# Arrays of one number ----------------------------------------------------------------------------
@intrinsic
def zeros(context: Any, shape: Any, like: Any) -> Any:
    """Return an array of zeros for numbers like one, or of a dtype."""
    count = 1 if isinstance(shape, types.Integer) else len(shape)
    kind = like.dtype if isinstance(like, types.DType) else types.unliteral(like)
    made = types.Array(Active(kind.base, 0) if isinstance(kind, Active) else kind, count, "C")

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sizes = [args[0]] if count == 1 and not isinstance(shape, types.BaseTuple) else []
        kinds = [shape] if sizes else list(shape)
        sizes = sizes or cgutils.unpack_tuple(builder, args[0], count)
        cast = [
            context.cast(builder, size, kind, types.intp) for size, kind in zip(sizes, kinds, strict=True)
        ]
        array = arrayobj._empty_nd_impl(context, builder, made, cast)
        cgutils.memset(builder, array.data, builder.mul(array.itemsize, array.nitems), 0)
        return array._getvalue()

    return made(shape, like), emit


@register_jitable
def _recorded(number: Any) -> Any:
    """Return a number that is on the tape."""
    slot = zeros(1, number)
    slot[0] = number
    return slot[0]


@overload(np.full, target="CPU")
def _full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
        made = zeros(shape, fill_value)
        made[...] = _recorded(fill_value)
        return made

    def full_of(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
        return np.full(shape, fill_value).astype(dtype)

    if not isinstance(fill_value, (Active, Dual)):
        return None
    return full if none_like(dtype) else full_of


@overload(np.full_like, target="CPU")
def _full_like(arr: Any, fill_value: Any) -> Any:
    def full_like(arr: Any, fill_value: Any) -> Any:
        return np.full(arr.shape, fill_value).astype(plain_all(arr).dtype)

    def full_of_plain(arr: Any, fill_value: Any) -> Any:
        made = np.zeros_like(arr)
        made[...] = fill_value
        return made

    if isinstance(fill_value, (Active, Dual)):
        return full_like
    return full_of_plain if active_array(arr) or complex_array(arr) else None


@overload(np.empty_like, target="CPU")
def _empty_like(arr: Any) -> Any:
    # Indices must not be arbitrary.
    def empty_like(arr: Any) -> Any:
        return np.zeros_like(arr)

    return empty_like if active_array(arr) or complex_array(arr) else None


@overload(np.empty, target="CPU")
def _empty(shape: Any, dtype: Any = float) -> Any:
    def empty(shape: Any, dtype: Any = float) -> Any:
        return zeros(shape, dtype)

    kind = dtype.dtype if isinstance(dtype, types.DType) else None
    return empty if isinstance(kind, (Active, Dual)) else None


# Conversions ------------------------------------------------------------------------------------
def _astype(a: Any, dtype: Any) -> Any:
    """Return an array with another type of elements."""


@intrinsic
def _float_of(context: Any, number: Any, dtype: Any) -> Any:
    """Return a number in another precision."""
    wanted = base_of(parse_dtype(dtype), depth_of(number))
    kind = Active(wanted, number.width) if isinstance(number, Active) else wanted

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[0], number, kind)

    return kind(number, dtype), emit


@overload(_astype)
def _astype_overload(a: Any, dtype: Any) -> Any:
    wanted = parse_dtype(dtype)
    if is_active(wanted):

        def same(a: Any, dtype: Any) -> Any:
            return a.copy()

        return same if wanted == a.dtype else None
    if isinstance(wanted, types.Float):

        def floats(a: Any, dtype: Any) -> Any:
            # In C order, as the copy that numba makes of an array that is in no order.
            made = zeros(a.shape, _float_of(zeros(1, element_of(a))[0], dtype))
            for place in np.ndindex(a.shape):
                made[place] = _float_of(a[place], dtype)
            return made

        return floats

    def numbers(a: Any, dtype: Any) -> Any:
        return plain_all(a).astype(dtype)

    return numbers


@intrinsic
def element_of(context: Any, array: Any) -> Any:
    """Return a constant like the elements of an array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant_null(array.dtype)

    return array.dtype(array), emit


method("astype", _astype)


@overload(float, target="CPU")
def _float(x: Any) -> Any:
    def converted(x: Any) -> Any:
        return _float_of(x, np.float64)

    return converted if isinstance(x, (Active, Dual)) else None
