"""Run an operation forward, and keep what its pullbacks read.

Owns the evaluation of shared values at forward time, the kept values of a tape, and the watch over kept arrays
that the caller can reach. Must not append nodes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbad.errors import InputTypeError, MutationError, where
from nbad.kernels.forward import elementwise_forward
from nbad.kernels.hashing import fingerprint
from nbad.kernels.memory import is_recycled
from nbad.methods import ArrayMethods, user_line
from nbad.table import Op, Read
from nbad.tape import Tape
from nbad.writing import snapshot

_ndarray = np.ndarray


def operand(value: Any) -> Any:
    """Return `value` as something an operation accepts: Traced, Python scalar or ndarray.

    Raises
    ------
    InputTypeError
        Masked, matrix, structured and object arrays.
    """
    kind = type(value)
    if issubclass(kind, ArrayMethods) or kind in (float, int, complex, bool):
        return value
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise _unfit(value)
    array = value if kind is _ndarray else np.asarray(value)
    if array.dtype.kind not in "fciub":
        if array.dtype.names is not None or array.dtype.kind == "O":
            raise _unfit(array)
        raise TypeError(f"unsupported operand of dtype {array.dtype} for an operation on traced values")
    return array


def goes_first(value: Any) -> bool:
    """Return whether an operand is to perform the operation itself: a container of arrays, such as xarray's.

    Those of pandas hold no traced values; they are read as arrays.
    """
    kind = type(value)
    if not hasattr(kind, "__array_ufunc__") or issubclass(kind, (_ndarray, np.generic, ArrayMethods)):
        return False
    return kind.__module__.partition(".")[0] != "pandas"


def _unfit(value: Any) -> InputTypeError:
    described = InputTypeError.of("it", value)
    what = described.what.partition(": it is ")[2]
    return InputTypeError(
        f"an operation on traced values was given {what}, which has no gradient",
        at=user_line(),
        fix=described.fix,
    )


def run_forward(
    op: Op, values: Any, attributes: Mapping[str, Any], wanted: tuple[int, ...]
) -> tuple[Any, tuple[tuple[int, Any], ...]]:
    """Return the output of `op` and its `wanted` shared values as (position, value) pairs."""
    if op.kernel is not None and all(type(v) is _ndarray for v in values):
        y, made = op.kernel.forward(tuple(values), attributes, frozenset(op.shared[i].name for i in wanted))
        return y, tuple((i, made[op.shared[i].name]) for i in wanted)
    if op.elementwise:
        return elementwise_forward(op.forward, op.forward, *values), ()
    if not op.shared:
        return op.forward(*values, **attributes), ()
    memo: dict[int, Any] = {}
    for i in (*wanted, *(r.index for r in op.forward_reads)):
        _shared_at_forward(op, i, values, attributes, memo)
    extra = {r.name: memo[r.index] for r in op.forward_reads}
    return op.forward(*values, **attributes, **extra), tuple((i, memo[i]) for i in wanted)


def shared_values(
    op: Op, values: Any, attributes: Mapping[str, Any], wanted: tuple[int, ...]
) -> tuple[tuple[int, Any], ...]:
    """Return the `wanted` shared values of `op` as (position, value) pairs."""
    memo: dict[int, Any] = {}
    return tuple((i, _shared_at_forward(op, i, values, attributes, memo)) for i in wanted)


def _shared_at_forward(
    op: Op, i: int, values: Any, attributes: Mapping[str, Any], memo: dict[int, Any]
) -> Any:
    if i not in memo:
        row = op.shared[i]
        memo[i] = row.function(*(_primal(op, r, values, attributes, memo) for r in row.reads))
    return memo[i]


def _primal(op: Op, read: Read, values: Any, attributes: Mapping[str, Any], memo: dict[int, Any]) -> Any:
    """Return what a shared value computed at forward time reads."""
    if read.kind == "operand":
        return values[read.index]
    if read.kind == "operands":
        return tuple(values)
    if read.kind == "attribute":
        return attributes[read.name]
    if read.kind == "shared":
        return _shared_at_forward(op, read.index, values, attributes, memo)
    if read.kind == "shape":
        return np.shape(values[read.index])
    if read.kind == "dtype":
        return np.result_type(values[read.index])
    if read.kind == "shapes":
        return tuple(np.shape(v) for v in values)
    return tuple(np.result_type(v) for v in values)


def keep_value(tape: Tape, slot: int, value: Any, line: int) -> None:
    """Keep the value of `slot` for the sweep; watch it where the caller can reach its memory."""
    kind = type(value)
    if kind is _ndarray:
        if value.base is not None and tape.written and slot >= tape.inputs and _is_part(tape, value):
            value = value.copy()  # a view would hold all of an array that is written again and again
        tape.objects[slot] = value
        tape.ref[slot] = id(value)
        if slot < tape.inputs or (value.base is not None and _is_callers(tape, value)):
            tape.watched[slot] = (fingerprint(value), line)
    elif issubclass(kind, ArrayMethods):
        tape.objects[slot] = value = snapshot(value)
        tape.ref[slot] = id(value)
    else:
        tape.keep_scalar(slot, value)


def _is_part(tape: Tape, view: np.ndarray) -> bool:
    """Return whether a view shows a part of an array that was written."""
    root = root_of(view)
    return id(root) in tape.written and 2 * view.nbytes <= getattr(root, "nbytes", 0)


def root_of(array: Any) -> Any:
    """Return the object that owns the memory of an array: an array of its own, or whatever lent it."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def _is_callers(tape: Tape, view: np.ndarray) -> bool:
    """Return whether the caller can reach the memory of a view: that of an input, a constant, or a foreign buffer."""
    root = root_of(view)
    return (
        id(root) in tape.roots
        or id(root) in tape.foreign
        or not (type(root) is _ndarray or is_recycled(view))
    )


def keep_constant(tape: Tape, value: Any, line: int) -> int:
    """Return a slot that keeps the constant operand `value` for the sweep."""
    kind = type(value)
    if kind is float or kind is int or kind is complex:
        return tape.add_scalar(value)
    traced = issubclass(kind, ArrayMethods)
    if kind is not _ndarray and not traced:
        value = np.asarray(value)
    if not traced and value.ndim == 0:
        return tape.add_scalar(value.item())
    slot = tape.add_slot(value.dtype, value.shape)
    value = snapshot(value)
    tape.objects[slot] = value
    tape.ref[slot] = id(value)
    if traced:
        tape.nested = True
    else:
        tape.watched[slot] = (fingerprint(value), line)
    return slot


def check_watched(tape: Tape, slots: Any) -> None:
    """Raise if a kept array among `slots` that the caller can reach has been changed.

    Raises
    ------
    MutationError
        Naming the source line of the operation that kept it.
    """
    for slot in slots:
        before, line = tape.watched[slot]
        if fingerprint(tape.objects[slot]) != before:
            raise MutationError.of(
                "the operation at the line below", "an array", at=where(*tape.position(line))
            )
