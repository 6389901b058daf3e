"""Functions of complex active numbers that are written by their parts."""

import cmath
import math
from typing import Any

import numpy as np
from numba.core import cgutils
from numba.core import types as numba_types
from numba.core.imputils import lower_getattr
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import overload, overload_method
from numba.np import arrayobj

from nbad.scalar.types import Active, ActiveComplex, Dual, is_active, precision

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


def _conjugate(z: Any) -> Any:
    if isinstance(z, ActiveComplex):

        def conjugate(z: Any) -> Any:
            return complex(z.real, -z.imag)

        return conjugate
    if is_active(z):

        def same(z: Any) -> Any:
            return z

        return same
    return None


overload(np.conjugate)(_conjugate)  # np.conj is the same function
for _kind in (Active, ActiveComplex, Dual):
    overload_method(_kind, "conjugate")(_conjugate)


def _phase(z: Any) -> Any:
    if not is_active(z):
        return None

    def phase(z: Any) -> Any:
        return math.atan2(z.imag, z.real)

    return phase


overload(cmath.phase)(_phase)


@overload(np.angle)
def _angle(z: Any, deg: Any = False) -> Any:
    if not is_active(z):
        return None

    def angle(z: Any, deg: Any = False) -> Any:
        found = math.atan2(z.imag, z.real)
        return found * 57.29577951308232 if deg else found * 1.0

    return angle


@overload(cmath.polar)
def _polar(z: Any) -> Any:
    if not is_active(z):
        return None

    def polar(z: Any) -> Any:
        return abs(z), math.atan2(z.imag, z.real)

    return polar


@overload(cmath.rect)
def _rect(r: Any, phi: Any) -> Any:
    if not (is_active(r) or is_active(phi)):
        return None

    def rect(r: Any, phi: Any) -> Any:
        return complex(r * math.cos(phi), r * math.sin(phi))

    return rect


# The parts of an array --------------------------------------------------------------------------
@infer_getattr
class _ArrayParts(AttributeTemplate):  # type: ignore[misc]
    """Types the parts of active arrays, which numba's own template refuses."""

    key = types.Array
    metadata = {"target": "cpu"}  # noqa: RUF012 (that of an array is asked first so)

    def resolve_real(self, array: Any) -> Any:
        if isinstance(array.dtype, ActiveComplex):
            return array.copy(dtype=array.dtype.real, layout="A")
        return array if is_active(array.dtype) else None

    def resolve_imag(self, array: Any) -> Any:
        return self.resolve_real(array) if isinstance(array.dtype, ActiveComplex) else None


def _view(context: Any, builder: Any, kind: Any, array: Any, part: int) -> Any:
    """Emit the view of the parts of an array of complex numbers."""
    given = arrayobj.make_array(kind)(context, builder, value=array)
    made = kind.copy(dtype=kind.dtype.real, layout="A")
    view = arrayobj.make_array(made)(context, builder)
    part_type = context.get_data_type(kind.dtype.real)
    data = builder.bitcast(given.data, part_type.as_pointer())
    data = builder.gep(data, [cgutils.int32_t(part)])
    size = given.itemsize.type(context.get_abi_sizeof(part_type))
    cgutils.copy_struct(view, given, {"data": data, "itemsize": size})
    return arrayobj.impl_ret_borrowed(context, builder, made, view._getvalue())


@lower_getattr(types.Array, "real")
def _real_part(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    if isinstance(kind.dtype, ActiveComplex):
        return _view(context, builder, kind, array, 0)
    if is_active(kind.dtype):
        return arrayobj.impl_ret_borrowed(context, builder, kind, array)
    return arrayobj.array_real_part(context, builder, kind, array)


@lower_getattr(types.Array, "imag")
def _imaginary_part(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    if isinstance(kind.dtype, ActiveComplex):
        return _view(context, builder, kind, array, 1)
    return arrayobj.array_imag_part(context, builder, kind, array)


# The parts of a real number ---------------------------------------------------------------------
class _RealParts(AttributeTemplate):  # type: ignore[misc]
    def resolve_real(self, kind: Any) -> Any:
        return kind

    def resolve_imag(self, kind: Any) -> Any:
        return precision(kind)


def _itself(context: Any, builder: Any, kind: Any, number: Any) -> Any:
    return number


def _zero(context: Any, builder: Any, kind: Any, number: Any) -> Any:
    return context.get_constant(precision(kind), 0.0)


for _kind in (Active, Dual):
    infer_getattr(type(f"_{_kind.__name__}Parts", (_RealParts,), {"key": _kind}))
    lower_getattr(_kind, "real")(_itself)
    lower_getattr(_kind, "imag")(_zero)
