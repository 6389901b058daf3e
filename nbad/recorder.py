"""Recording: what a recording tape holds of each operation, and of each value that Python code sees.

Owns the nodes, constants and guards of recording tapes. They keep no values but constants, so nothing here asks what a pullback
reads. Must not know how values are traced: it deals in slots.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nbad.errors import DetachError, EscapedTraceError, MutationError, RuleError, where
from nbad.kernels.hashing import fingerprint
from nbad.methods import ArrayMethods, user_frame, user_line
from nbad.table import Op
from nbad.tape import ARRAY, TRUTH, Tape, form_of, shape_of
from nbad.writing import snapshot

_ndarray = np.ndarray


def dtype_of(value: Any) -> np.dtype[Any]:
    """Return the dtype of an array or number."""
    found: np.dtype[Any] = value.dtype if hasattr(value, "dtype") else np.result_type(type(value))
    return found


def is_real(value: Any) -> bool:
    """Return whether a plain value is an array, or a number of NumPy's, of a real floating dtype."""
    return isinstance(value, (_ndarray, np.generic)) and value.dtype.kind == "f"


def line_here(tape: Tape) -> int:
    """Return the entry of the user's line that is running, -1 where there is none."""
    frame = user_frame()
    return -1 if frame is None else tape.line_of(frame.f_code, frame.f_lasti)


def line_of_frame(tape: Tape, frame: Any) -> int:
    """Return the entry of the source line of `frame`, or of the first caller that is not nbad's own code."""
    user = user_frame()
    if user is None:
        return tape.line_of(frame.f_code, frame.f_lasti)
    found = tape.line_of(user.f_code, user.f_lasti)
    if user is frame:  # the next operation of this code object finds its line at once
        tape.last_code, tape.last_lines = user.f_code, tape.lines_of(user.f_code)
        tape.last_lines[user.f_lasti] = found
    return found


def add_value(tape: Tape, value: Any) -> int:
    """Return a new slot for `value`."""
    if type(value) is not _ndarray:
        tape.forms.append(form_of(value))
        return tape.add_slot(dtype_of(value), shape_of(value))
    tape.forms.append(ARRAY)
    dtype, shape = value.dtype, value.shape
    same = dtype is tape.last_dtype and shape == tape.last_shape
    tape.aval.append(tape.last_aval if same else tape.aval_of(dtype, shape))
    tape.ref.append(0)
    tape.objects.append(None)
    return len(tape.objects) - 1


def constant_slot(tape: Tape, value: Any, line: int) -> int:
    """Return the slot of a constant operand; the object itself is kept, and one slot serves all its uses.

    Raises
    ------
    MutationError
        An array that was changed since its last use: a replay could not tell which contents belong where.
    """
    kind = type(value)
    if kind is float or kind is int or kind is bool or kind is complex:
        key: Any = kind, repr(value)
    elif isinstance(value, np.generic):
        key = value.dtype.str, value.tobytes()
    elif issubclass(kind, ArrayMethods):
        key = id(value._tape), value._slot
        value = snapshot(value)
    else:
        key = id(value)
    slot = tape.known.get(key)
    if slot is not None:
        if slot in tape.watched and fingerprint(value) != tape.watched[slot][0]:
            raise _changed(tape, slot)
        return slot
    slot = tape.known[key] = add_value(tape, value)
    tape.objects[slot] = value
    tape.ref[slot] = 1
    if kind is _ndarray:
        tape.watched[slot] = fingerprint(value), line
    elif issubclass(kind, ArrayMethods):
        tape.nested = True
    return slot


def check_constants(tape: Tape) -> None:
    """Raise `MutationError` if a constant array was changed after an operation had used it."""
    for slot, (before, _) in tape.watched.items():
        if fingerprint(tape.objects[slot]) != before:
            raise _changed(tape, slot)


def _changed(tape: Tape, slot: int) -> MutationError:
    at = where(*tape.position(tape.watched[slot][1]))
    return MutationError.of("the operation at the line below", "an array", at=at)


def add_node(
    tape: Tape, op: Op, operands: Iterable[Any], attributes: Mapping[str, Any], outputs: Sequence[Any]
) -> list[int]:
    """Append a node and return the slots of its outputs.

    Parameters
    ----------
    tape : Tape
        A recording tape.
    op : Op
        The row.
    operands : iterable
        Traced values of this tape, and constants.
    attributes : mapping of str to static value
        All attributes of the row.
    outputs : sequence of ndarray or number
        What the operation gave.
    """
    line = line_here(tape) if tape.fixed_line is None else tape.fixed_line
    if op.attributes:
        try:
            values = tuple(attributes[name] for name in op.attributes)
        except KeyError as missing:
            raise RuleError(f"{op.name}: the attribute {missing} was not given") from None
        tape.add_attributes(values)
    slots = [
        x._slot if isinstance(x, ArrayMethods) and x._tape is tape else constant_slot(tape, x, line)
        for x in operands
    ]
    if op.variadic:
        tape.variadic_node.append(len(tape.op))
        tape.variadic_count.append(len(slots))
    tape.edge_slot.extend(slots)
    tape.op.append(op.opcode)
    tape.line.append(line)
    tape.out_start.append(len(tape.objects))
    return [add_value(tape, y) for y in outputs]


def add_guard(tape: Tape, slot: int, kind: str, value: Any) -> None:
    """Note that Python code saw the truth or the contents of a slot (the same once)."""
    if tape.closed:
        raise EscapedTraceError.of("an operation", at=user_line())
    if tape.known.setdefault((kind, slot), len(tape.guards)) < len(tape.guards):
        return
    seen: Any = bool(value) if kind == TRUTH else np.array(value)
    tape.guards.append((slot, kind, seen, line_here(tape), len(tape.op)))


def contents(value: Any) -> Any:
    """Return what Python code is handed of a recorded value: a number, or a read-only copy of an array."""
    if form_of(value) != ARRAY:
        return value
    copy = np.array(value)
    copy.flags.writeable = False
    return copy


def stored_into(error: ValueError) -> Exception:
    """Return what to raise for an error of NumPy that may hide that a traced value refused to become a plain number."""
    if isinstance(error.__cause__, DetachError):
        return DetachError.of(
            "a store into a plain ndarray",
            at=error.__cause__.at,
            instead="Make that array with np.zeros_like(x), where x is traced, or join the parts with np.stack.",
        )
    return error
