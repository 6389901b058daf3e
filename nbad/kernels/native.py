"""Read the memory layout of ndarrays from jitted code.

Owns the one place where nbad looks inside NumPy's ``PyArrayObject``: its public, ABI-stable
fields ``data``, ``nd``, ``dimensions`` and ``strides``. The tape stores ``id(array)`` next to a reference that
keeps the array alive; jitted code then finds the address without a Python call per array (``array.ctypes.data``
costs a microsecond). The offsets are probed at import, so an interpreter with another object header
(a free-threaded build, for instance) is either read rightly or refused here.
"""

import ctypes
import itertools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nbad.errors import KernelError

_POINTER = ctypes.sizeof(ctypes.c_void_p)


def _probe() -> int:
    """Return the offset of ``PyArrayObject.data``, found by looking for known addresses in a known array."""
    probes = [np.arange(6.0).reshape(2, 3), np.zeros(5, np.int8)[1:]]
    for offset in range(2 * _POINTER, 8 * _POINTER, _POINTER):
        if all(_read(id(p), offset) == p.__array_interface__["data"][0] for p in probes):
            return offset
    raise KernelError("this NumPy stores the data pointer of an array in an unknown place")


def _read(address: int, offset: int) -> int:
    return int(ctypes.c_size_t.from_address(address + offset).value)


DATA_OFFSET = _probe()
NDIM_OFFSET = DATA_OFFSET + _POINTER
SHAPE_OFFSET = DATA_OFFSET + 2 * _POINTER
STRIDES_OFFSET = DATA_OFFSET + 3 * _POINTER


def _check_layout() -> None:
    for shape, order in itertools.product(((2, 3, 4), (1,), ()), "CF"):
        array = np.zeros(shape, order=order)  # type: ignore[call-overload]
        ndim = ctypes.c_int.from_address(id(array) + NDIM_OFFSET).value
        dims = _read(id(array), SHAPE_OFFSET)
        steps = _read(id(array), STRIDES_OFFSET)
        shape_seen = tuple(_read(dims, _POINTER * k) for k in range(ndim))
        strides_seen = tuple(_read(steps, _POINTER * k) for k in range(ndim))
        if shape_seen != array.shape or strides_seen != array.strides:
            raise KernelError("this NumPy lays out array objects in an unknown way")


_check_layout()


@intrinsic
def load_int(typingctx: Any, address: Any) -> Any:
    """Return the pointer-sized integer stored at `address` (int64)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(pointer)

    return types.int64(types.int64), codegen


@intrinsic
def load_int32(typingctx: Any, address: Any) -> Any:
    """Return the C int stored at `address` (int64), as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.sext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def pointer_f4(typingctx: Any, address: Any) -> Any:
    """Return `address` as a pointer to float32."""
    return _cast(types.float32)


@intrinsic
def pointer_f8(typingctx: Any, address: Any) -> Any:
    """Return `address` as a pointer to float64."""
    return _cast(types.float64)


@intrinsic
def pointer_i4(typingctx: Any, address: Any) -> Any:
    """Return `address` as a pointer to int32."""
    return _cast(types.int32)


@intrinsic
def pointer_i8(typingctx: Any, address: Any) -> Any:
    """Return `address` as a pointer to int64."""
    return _cast(types.int64)


def _cast(dtype: Any) -> Any:
    signature = types.CPointer(dtype)(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen
