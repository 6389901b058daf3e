"""Traced values and recording: an operation runs at once and leaves one node on the tape.

Owns `Traced`, NumPy's protocols, and what is kept. Must not know how a tape is swept. The paths that every small
operation takes (`_binary`, `_unary`) spell their appends out: a function call per array would cost more than the append.
"""

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nbad.conversions import Conversions
from nbad.errors import EscapedTraceError, RuleError
from nbad.finite import call, evaluate
from nbad.keeping import goes_first, keep_constant, keep_value, operand, root_of, shared_values
from nbad.methods import user_frame, user_line
from nbad.recorder import add_node, dtype_of, is_real, line_of_frame
from nbad.refusals import refusal
from nbad.table import BINDINGS, CONSTANT, UFUNCS, Keep, Op, constant
from nbad.tape import Tape, shape_of
from nbad.writing import TAKES_LIKE, deliver, enlist, follow, snapshot

_ndarray = np.ndarray
_float64 = np.float64
_getframe = sys._getframe


class Traced(Conversions):
    """A value that an asked-for gradient depends on, or (on a recording tape) any value of a recorded function.

    It behaves like the ndarray (or scalar) it stands for; operations on it are recorded. It is made by nbad and is valid
    during one call.
    """

    __slots__ = ("__weakref__", "_link", "_slot", "_tape", "_value")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, slot: int, tape: Tape) -> None:
        self._value = value
        self._slot = slot
        self._tape = tape
        self._link: Any = None

    def __getattr__(self, name: str) -> Any:
        """Derive slot and value of a view anew: a write has taken them away (`nbad.writing`)."""
        if name not in ("_slot", "_value"):
            raise AttributeError(f"'Traced' object has no attribute {name!r}")
        owner, path = self._link
        now = follow(owner, path, apply)
        self._slot, self._value = now._slot, now._value
        enlist(owner, self)
        return getattr(self, name)

    def __format__(self, spec: str) -> str:
        """Format the value, as the plain number would be."""
        return format(underlying(plain(self)), spec)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Record a ufunc call (NumPy's protocol)."""
        if method == "__call__" and not kwargs and (op := UFUNCS.get(ufunc)) is not None:
            if len(inputs) == 2:
                return _binary(ufunc, op, inputs[0], inputs[1])
            if len(inputs) == 1:
                return _unary(ufunc, op, inputs[0])
        return BINDINGS[np.ufunc](ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        """Record a call of a NumPy function (NumPy's protocol)."""
        if kwargs.get("out") is not None:
            result = function(*args, **{key: value for key, value in kwargs.items() if key != "out"})
            name = f"{function.__module__.replace('numpy', 'np')}.{function.__name__}"
            return deliver(name, kwargs["out"], result)
        binding = BINDINGS.get(function)
        if binding is not None:
            if function in TAKES_LIKE:
                kwargs = {**kwargs, "like": self}
            return binding(*args, **kwargs)
        if function in CONSTANT:
            return BINDINGS[constant](function, CONSTANT[function], args, kwargs)
        raise refusal(function)

    def __add__(self, other: Any) -> Any:
        return _binary(operator.add, _ADD, self, other)

    def __radd__(self, other: Any) -> Any:
        return _binary(operator.add, _ADD, other, self)

    def __sub__(self, other: Any) -> Any:
        return _binary(operator.sub, _SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary(operator.sub, _SUBTRACT, other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary(operator.mul, _MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _binary(operator.mul, _MULTIPLY, other, self)

    def __truediv__(self, other: Any) -> Any:
        return _binary(operator.truediv, _DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary(operator.truediv, _DIVIDE, other, self)

    def __pow__(self, other: Any) -> Any:
        # NumPy's own short cuts for a Python scalar exponent; each keeps less than power does.
        kind = type(self._value)
        short = kind is not Traced and not self._tape.records and kind is not float
        if type(other) in (int, float) and (short or _is_inexact(self)):
            if other == 2:
                return _unary(np.square, UFUNCS[np.square], self)
            if other == 1:
                return _unary(np.positive, UFUNCS[np.positive], self)
            if other == 0.5:
                return _unary(np.sqrt, UFUNCS[np.sqrt], self)
            if other == -1:
                return _unary(np.reciprocal, UFUNCS[np.reciprocal], self)
        return _binary(operator.pow, UFUNCS[np.power], self, other)

    def __rpow__(self, other: Any) -> Any:
        return _binary(operator.pow, UFUNCS[np.power], other, self)

    def __mod__(self, other: Any) -> Any:
        return _binary(operator.mod, UFUNCS[np.remainder], self, other)

    def __rmod__(self, other: Any) -> Any:
        return _binary(operator.mod, UFUNCS[np.remainder], other, self)

    def __neg__(self) -> Any:
        return _unary(operator.neg, UFUNCS[np.negative], self)

    def __pos__(self) -> Any:
        return _unary(operator.pos, UFUNCS[np.positive], self)


#: Rows of the operators used most; filled by `install_operators` once the elementwise rules exist.
_ADD: Op
_SUBTRACT: Op
_MULTIPLY: Op
_DIVIDE: Op


def install_operators() -> None:
    """Bind the operators of `Traced` to their rows (called when the elementwise rules have been added)."""
    global _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE
    _ADD, _SUBTRACT = UFUNCS[np.add], UFUNCS[np.subtract]
    _MULTIPLY, _DIVIDE = UFUNCS[np.multiply], UFUNCS[np.divide]


def plain(value: Any) -> Any:
    """Return `value` without what carries derivatives: the ndarray or scalar underneath, or the recorded value."""
    while type(value) is Traced:
        if value._tape.closed:
            raise EscapedTraceError.of("an operation", at=user_line())
        if value._tape.records:
            break
        value = value._value
    return value


def underlying(value: Any) -> Any:
    """Return the ndarray or number underneath, for questions of form: a recording does not see what is done with it."""
    while type(value) is Traced:
        value = value._value
    return value


def is_traced(value: Any) -> bool:
    """Return whether `value` is watched: it may carry a derivative, or it is recorded."""
    return type(value) is Traced


def carries_derivative(value: Any) -> bool:
    """Return whether `value` is traced by more than a recording."""
    return type(value) is Traced and not value._tape.records


def _is_inexact(value: Traced) -> bool:
    """Return whether NumPy's short cuts hold: for arrays and NumPy's numbers that are not integers."""
    found = underlying(value)
    return isinstance(found, (_ndarray, np.generic)) and found.dtype.kind in "fc"


def _binary(function: Callable[[Any, Any], Any], op: Op, a: Any, b: Any) -> Any:
    """Record an elementwise operation of two operands; `function` is the ufunc or the Python operator."""
    # The fast path: one operand traced, or both by the same tape; the other a float, an int or an ndarray.
    kind_a, kind_b = type(a), type(b)
    if kind_a is Traced:
        tape = a._tape
        if kind_b is Traced:
            if b._tape is not tape:
                return _apply(op, (a, b), {}, function)
            varied, va, vb = 3, a._value, b._value
        elif kind_b is float or kind_b is int or (kind_b is _ndarray and b.dtype.kind in "fciub"):
            varied, va, vb = 1, a._value, b
        else:
            return _operands(function, op, a, b)
    elif kind_a is float or kind_a is int or (kind_a is _ndarray and a.dtype.kind in "fciub"):
        tape = b._tape
        varied, va, vb = 2, a, b._value
    else:
        return _operands(function, op, a, b)
    if tape.closed:
        raise EscapedTraceError.of("an operation", at=user_line())
    if tape.records:
        return _record(tape, op, (a, b), {}, function, (va, vb))
    y = call(op, function, va, vb) if tape.big else function(va, vb)
    kind = type(y)
    if kind is not _ndarray and kind is not _float64:
        if kind is Traced:
            tape.nested = True
        elif kind is float or kind is complex:
            return _finish_scalar(tape, op, (a, b), varied, y)
        elif not isinstance(y, np.inexact):
            return y
    keep_a, keep_b, keep_y = op.fast[varied]
    frame = _getframe(2)
    line = tape.last_lines.get(frame.f_lasti) if frame.f_code is tape.last_code else None
    if line is None:
        line = line_of_frame(tape, frame)
    objects = tape.objects
    aval = -1
    if varied & 1:
        sa = a._slot
        if keep_a and objects[sa] is None:
            if type(va) is _ndarray and va.base is None and sa >= tape.inputs:
                objects[sa] = va
                tape.ref[sa] = id(va)
            else:
                keep_value(tape, sa, va, line)
        if kind_b is float:  # so y is of the dtype and shape of a
            aval = tape.aval[sa]
    elif not keep_a:
        sa = -1
    else:
        sa = tape.scalar_ids.get(va) if kind_a is float else None
        if sa is None:
            sa = keep_constant(tape, va, line)
    if varied & 2:
        sb = b._slot
        if keep_b and objects[sb] is None:
            if type(vb) is _ndarray and vb.base is None and sb >= tape.inputs:
                objects[sb] = vb
                tape.ref[sb] = id(vb)
            else:
                keep_value(tape, sb, vb, line)
        if kind_a is float or (varied == 3 and tape.aval[sb] == tape.aval[sa]):
            aval = tape.aval[sb]
    elif not keep_b:
        sb = -1
    else:
        sb = tape.scalar_ids.get(vb) if kind_b is float else None
        if sb is None:
            sb = keep_constant(tape, vb, line)
    if aval < 0 or tape.odd or kind is not _ndarray:
        aval = tape.aval_of(y.dtype, y.shape)
    tape.add_edge(sa)
    tape.add_edge(sb)
    tape.add_op(op.opcode)
    tape.add_line(line)
    slot = len(objects)
    tape.add_out(slot)
    tape.add_aval(aval)
    if keep_y and kind is _ndarray:
        objects.append(y)
        tape.add_ref(id(y))
    else:
        objects.append(None)
        tape.add_ref(0)
        if keep_y:
            keep_value(tape, slot, y, line)
    return Traced(y, slot, tape)


def _unary(function: Callable[[Any], Any], op: Op, a: Any) -> Any:
    """Record an elementwise operation of one operand; `function` is the ufunc or the Python operator."""
    tape = a._tape
    va = a._value
    if tape.closed:
        raise EscapedTraceError.of("an operation", at=user_line())
    if tape.records:
        return _record(tape, op, (a,), {}, function, (va,))
    y = call(op, function, va) if tape.big else function(va)
    kind = type(y)
    if kind is not _ndarray and kind is not _float64:
        if kind is Traced:
            tape.nested = True
        elif kind is float or kind is complex:
            return _finish_scalar(tape, op, (a,), 1, y)
        elif not isinstance(y, np.inexact):
            return y
    keep_a, _, keep_y = op.fast[1]
    frame = _getframe(2)
    line = tape.last_lines.get(frame.f_lasti) if frame.f_code is tape.last_code else None
    if line is None:
        line = line_of_frame(tape, frame)
    objects = tape.objects
    sa = a._slot
    if keep_a and objects[sa] is None:
        if type(va) is _ndarray and va.base is None and sa >= tape.inputs:
            objects[sa] = va
            tape.ref[sa] = id(va)
        else:
            keep_value(tape, sa, va, line)
    tape.add_edge(sa)
    tape.add_op(op.opcode)
    tape.add_line(line)
    slot = len(objects)
    tape.add_out(slot)
    # A ufunc of one floating operand that has a row here gives an array of the same dtype and shape.
    tape.add_aval(tape.aval_of(y.dtype, y.shape) if tape.odd or kind is not _ndarray else tape.aval[sa])
    if keep_y and kind is _ndarray:
        objects.append(y)
        tape.add_ref(id(y))
    else:
        objects.append(None)
        tape.add_ref(0)
        if keep_y:
            keep_value(tape, slot, y, line)
    return Traced(y, slot, tape)


def _finish_scalar(tape: Tape, op: Op, operands: tuple[Any, ...], varied: int, y: Any) -> Any:
    """Record a node whose value is a Python scalar (it stays one, so promotion stays weak)."""
    values = [x._value if type(x) is Traced else x for x in operands]
    return append(tape, op, operands, values, varied, op.keep(varied), (y,), {}, ())


def _operands(function: Callable[..., Any], op: Op, a: Any, b: Any) -> Any:
    """Bring unusual operands of an operator into shape, then record."""
    if goes_first(a) or goes_first(b):
        return NotImplemented
    a, b = operand(a), operand(b)
    if type(a) in (float, complex) and type(b) in (float, complex):
        return function(a, b)
    return _apply(op, (a, b), {}, function)


def cast(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return `value` cast to `dtype`, traced where it is traced."""
    return BINDINGS[np.ndarray.astype](value, dtype) if type(value) is Traced else np.asarray(value, dtype)


def apply(op: Op, *operands: Any, **attributes: Any) -> Any:
    """Run `op`; record a node if an operand is traced.

    Parameters
    ----------
    op : Op
        A row of the table.
    *operands : Traced, ndarray or scalar
        The operands, all of them, positional.
    **attributes : int, float, str, bool, None, slice or tuple of these
        The attributes, all of them, by name.

    Returns
    -------
    Traced or ndarray or tuple of these
        The output; a tuple for an op with several outputs.
    """
    return _apply(op, operands, attributes, None)


def apply_by(function: Callable[..., Any], op: Op, *operands: Any) -> Any:
    """Run `op` as `apply` does, by the Python operator `function`, which leaves Python's numbers what they are."""
    return _apply(op, operands, {}, function)


def _apply(
    op: Op, operands: tuple[Any, ...], attributes: Mapping[str, Any], function: Callable[..., Any] | None
) -> Any:
    """Run `op`, by `function` if it is a Python operator: that one leaves Python scalars what they are."""
    tape: Tape | None = None
    for x in operands:
        if type(x) is Traced and (tape is None or x._tape.level > tape.level):
            tape = x._tape
    if tape is None:
        outputs, _ = evaluate(op, operands, attributes, ())
        return outputs
    if tape.closed:
        raise EscapedTraceError.of("an operation", at=user_line())
    values = []
    varied = []
    for k, x in enumerate(operands):
        if type(x) is Traced and x._tape is tape:
            values.append(x._value)
            varied.append(k)
        else:
            values.append(underlying(x) if tape.absorbs else x)
    if tape.records:
        return _record(tape, op, operands, attributes, function, values)
    if op.variadic:
        keep = op.keep_variadic(varied, len(operands), attributes)
    else:
        keep = op.keep(sum(1 << k for k in varied))
    shared: tuple[tuple[int, Any], ...] = ()
    if function is not None:
        y = call(op, function, *values)
    elif any(type(v) is Traced for v in values):
        # An outer call is watching: it records this operation too, not what the forward does inside.
        shared = shared_values(op, values, attributes, keep.shared)
        y = _apply(op, tuple(values), attributes, None)
    else:
        y, shared = evaluate(op, values, attributes, keep.shared)
    outputs = y if op.outputs > 1 else (y,)
    return append(tape, op, operands, values, 0, keep, outputs, attributes, shared)


def _record(
    tape: Tape,
    op: Op,
    operands: tuple[Any, ...],
    attributes: Mapping[str, Any],
    function: Callable[..., Any] | None,
    values: Any,
) -> Any:
    """Run `op` on `values` and append a node to a recording tape, whatever the output is."""
    if op.forward is np.conjugate and tape.fixed_line is not None and is_real(values[0]):
        return operands[0]  # rules say it of whatever may be complex
    if function is None:
        y = evaluate(op, values, attributes, ())[0]
    elif tape.big:
        y = call(op, function, *values)
    else:
        y = function(*values)
    outputs = y if op.outputs > 1 else (y,)
    tape.nested = tape.nested or Traced in map(type, values)
    slots = add_node(tape, op, operands, attributes, outputs)
    made = [Traced(value, slot, tape) for value, slot in zip(outputs, slots, strict=True)]
    return tuple(made) if op.outputs > 1 else made[0]


def append(
    tape: Tape,
    op: Op,
    operands: Any,
    values: Any,
    varied: int,
    keep: Keep,
    outputs: Any,
    attributes: Mapping[str, Any],
    shared: tuple[tuple[int, Any], ...],
) -> Any:
    """Append one node and return its traced output (or outputs)."""
    results = []
    frame = user_frame()
    line = tape.line_of(frame.f_code, frame.f_lasti) if frame is not None else -1
    if op.attributes:
        try:
            values_of = tuple(attributes[name] for name in op.attributes)
        except KeyError as missing:
            raise RuleError(f"{op.name}: the attribute {missing} was not given") from None
        tape.add_attributes(values_of)
    if op.variadic:
        tape.variadic_node.append(len(tape.op))
        tape.variadic_count.append(len(operands))
    kept = keep.operands
    for k, x in enumerate(operands):
        if type(x) is Traced and x._tape is tape:
            slot = x._slot
            if k in kept and not tape.ref[slot]:
                keep_value(tape, slot, values[k], line)
        else:
            if type(x) is _ndarray and not op.elementwise:
                tape.roots.add(id(root_of(x)))  # an output may be a view of it
            if k in kept:
                slot = keep_constant(tape, x, line)
            else:
                slot = tape.add_slot(dtype_of(x), np.shape(x)) if op.metadata else -1
            tape.nested = tape.nested or type(x) is Traced
        tape.edge_slot.append(slot)
    tape.op.append(op.opcode)
    tape.line.append(line)
    tape.out_start.append(len(tape.objects))
    for y in outputs:
        if type(y) is Traced:
            tape.nested = True
        if op.foreign and type(y) is _ndarray:
            tape.foreign.add(id(root_of(y)))  # a forward may write into its buffer again
            y = y.view()
        slot = tape.add_slot(dtype_of(y), shape_of(y))
        if keep.output:
            keep_value(tape, slot, y, line)
        discrete = (y.__class__ is _ndarray or y.__class__ is Traced) and y.dtype.kind not in "fc"
        results.append(y if discrete else Traced(y, slot, tape))
    if op.hidden:
        made = dict(shared)
        for i in op.hidden:
            value: Any = made.get(i)
            hidden = isinstance(value, (np.ndarray, Traced))
            slot = tape.add_slot(value.dtype if hidden else np.dtype("f8"), value.shape if hidden else ())
            if value is not None:
                tape.objects[slot] = value = snapshot(value)
                tape.ref[slot] = id(value) if hidden else 1
                tape.nested = tape.nested or type(value) is Traced
    return results[0] if op.outputs == 1 else tuple(results)
