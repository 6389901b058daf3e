"""Moving elements: the jitted helpers that copy, clear and fill memory for block programs.

They index pointers rather than compute addresses, because LLVM makes vectors of the one and not of the other.
"""

from typing import Any

import numpy as np
from numba import types

from nbad._jit import helper, intrinsic
from nbad.kernels.native import pointer_f4, pointer_f8, pointer_i4, pointer_i8

__all__ = ["clear_bytes", "copy_item", "copy_rows", "copy_strided", "fill_number", "pointer_u1", "repeat"]


@intrinsic
def pointer_u1(typing_context: Any, address: Any) -> Any:
    """Return `address` as a pointer to bytes."""
    signature = types.CPointer(types.uint8)(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return signature, codegen


@helper("void(int64, int64, int64)")
def copy_item(itemsize, source, target):
    """Copy one element."""
    if itemsize == 1:
        pointer_u1(target)[0] = pointer_u1(source)[0]
    elif itemsize == 4:
        pointer_i4(target)[0] = pointer_i4(source)[0]
    else:
        pointer_i8(target)[0] = pointer_i8(source)[0]
        if itemsize == 16:
            pointer_i8(target + 8)[0] = pointer_i8(source + 8)[0]


@helper("void(int64, int64, int64, int64, int64)")
def copy_strided(itemsize, count, source, step, target):
    """Copy `count` elements that lie `step` bytes apart."""
    if step == itemsize and itemsize % 4 == 0:
        read, written = pointer_i4(source), pointer_i4(target)
        for i in range(count * (itemsize // 4)):
            written[i] = read[i]
    elif step == 0 and itemsize == 8:
        wide, repeated = pointer_i8(target), pointer_i8(source)[0]
        for i in range(count):
            wide[i] = repeated
    elif itemsize == 8:
        wide = pointer_i8(target)
        for i in range(count):
            wide[i] = pointer_i8(source + i * step)[0]
    elif itemsize == 4:
        narrow = pointer_i4(target)
        for i in range(count):
            narrow[i] = pointer_i4(source + i * step)[0]
    else:
        for i in range(count):
            copy_item(itemsize, source + i * step, target + i * itemsize)


@helper("void(int64, int64, int64, int64, int64, int64, int64)")
def copy_rows(itemsize, rows, length, source, row_step, step, target):
    """Copy short rows, one column after another: a loop over a few elements costs more to enter than to run."""
    for k in range(length):
        column, to = source + k * step, target + k * itemsize
        if itemsize == 8:
            wide = pointer_i8(to)
            for row in range(rows):
                wide[row * length] = pointer_i8(column + row * row_step)[0]
        elif itemsize == 4:
            narrow = pointer_i4(to)
            for row in range(rows):
                narrow[row * length] = pointer_i4(column + row * row_step)[0]
        else:
            for row in range(rows):
                copy_item(itemsize, column + row * row_step, to + row * length * itemsize)


@helper("void(int64, int64, int64, int64)")
def repeat(itemsize, period, count, target):
    """Repeat the first `period` of `count` elements."""
    if itemsize == 8:
        wide = pointer_i8(target)
        for i in range(period, count):
            wide[i] = wide[i - period]
    else:
        for i in range(period, count):
            copy_item(itemsize, target + (i - period) * itemsize, target + i * itemsize)


@helper("void(int64, int64)")
def clear_bytes(count, target):
    """Write zeros; `count` is a multiple of 4 or small."""
    if count % 4 == 0:
        words = pointer_i4(target)
        for i in range(count // 4):
            words[i] = 0
    else:
        for i in range(count):
            pointer_u1(target + i)[0] = 0


@helper("void(int64, int64, int64, int64, int64)")
def fill_number(source, kind, code, count, target):
    """Fill `count` elements of the dtype `code` with the number of the dtype `kind` at `source`."""
    re, im = 0.0, 0.0
    if kind == 0 or kind == 2:
        re = np.float64(pointer_f4(source)[0])
        if kind == 2:
            im = np.float64(pointer_f4(source)[1])
    elif kind == 1 or kind == 3:
        re = pointer_f8(source)[0]
        if kind == 3:
            im = pointer_f8(source)[1]
    elif kind == 4:
        re = 1.0 if pointer_u1(source)[0] != 0 else 0.0
    elif kind == 5:
        re = np.float64(pointer_i4(source)[0])
    else:
        re = np.float64(pointer_i8(source)[0])
    if code == 0:
        x4 = pointer_f4(target)
        for i in range(count):
            x4[i] = re
    elif code == 1:
        x8 = pointer_f8(target)
        for i in range(count):
            x8[i] = re
    elif code == 2:
        z4 = pointer_f4(target)
        for i in range(count):
            z4[2 * i], z4[2 * i + 1] = re, im
    else:
        z8 = pointer_f8(target)
        for i in range(count):
            z8[2 * i], z8[2 * i + 1] = re, im
