"""Arrays of active numbers that a kernel writes out: ``np.array([a, b])`` and ``np.array([[a, b], [c, d]])``."""

from typing import Any

import numpy as np
from numba.core import cgutils
from numba.core import types as numba_types
from numba.extending import overload
from numba.np import arrayobj

from nbad._jit import intrinsic
from nbad.scalar.types import Active

#: numba has no annotations.
types: Any = numba_types

__all__: list[str] = []


@intrinsic
def _room(context: Any, number: Any, shape: Any) -> Any:
    """Return an array of recorded numbers with arbitrary contents, for numbers such as this one."""
    made = types.Array(Active(number.base, 0), len(shape), "C")

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lengths = cgutils.unpack_tuple(builder, args[1], len(shape))
        return arrayobj._empty_nd_impl(context, builder, made, lengths)._getvalue()

    return made(number, shape), emit


@overload(np.array)
def _array(object: Any, dtype: Any = None) -> Any:
    sequences = (types.List, types.UniTuple)
    if not isinstance(object, sequences) or dtype not in (None, types.none):
        return None
    if isinstance(object.dtype, Active):

        def from_numbers(object: Any, dtype: Any = None) -> Any:
            made = _room(object[0], (len(object),))
            for i in range(len(object)):
                made[i] = object[i]
            return made

        return from_numbers
    if isinstance(object.dtype, sequences) and isinstance(object.dtype.dtype, Active):

        def from_rows(object: Any, dtype: Any = None) -> Any:
            made = _room(object[0][0], (len(object), len(object[0])))
            for i in range(len(object)):
                if len(object[i]) != len(object[0]):
                    raise ValueError("the rows of an array have different lengths")
                for j in range(len(object[i])):
                    made[i, j] = object[i][j]
            return made

        return from_rows
    return None
