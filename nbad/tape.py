"""The tape: what was done, as typed arrays.

Owns the growable arrays, the interning of shapes and source lines, the codec of attributes, and freezing.
Knows nothing of rules: an op is its opcode here.

Layout (structure of arrays; nothing here refers to a Python object, except `Tape.objects`, which only keeps alive
what `ref` points to):

==============  =======  ===========  =========================================================================
array           dtype    length       meaning
==============  =======  ===========  =========================================================================
``op``          uint16   nodes        opcode
``edge_start``  int64    nodes + 1    CSR over ``edge_slot``
``edge_slot``   int32    edges        operand slots; -1 for a constant that no pullback reads
``out_start``   int32    nodes        first output slot of each node (hidden shared values follow the outputs)
``attr_start``  int64    nodes + 1    CSR over ``attr``
``attr``        int64    ..           encoded attributes (`encode`)
``line``        int32    nodes        index into `lines`
``aval``        int32    slots        index into the table of (dtype, shape) pairs
``ref``         int64    slots        0: not kept; even: ``id`` of a kept ndarray; odd: ``2 * i + 1`` for the scalar at ``i``
``scalar``      float64  2 * scalars  real and imaginary part of kept scalars
==============  =======  ===========  =========================================================================
"""

import itertools
import math
import struct
import weakref
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from nbad.config import SETTINGS
from nbad.errors import RuleError, TapeError
from nbad.kernels.block import DTYPES

#: Codes of `aval_dtype`: positions in `DTYPES`; anything else (constants of other dtypes) is OTHER.
OTHER = 7
#: Elements from which `Tape.big` is set: forward operations may be worth fanning out.
BIG = 1 << 16
#: What the value of a slot is to Python: an ndarray, a NumPy scalar, or a Python number (weak in promotion).
ARRAY, SCALAR, PYTHON = range(3)
#: Kinds of guards: the truth of a value, or all of its bits.
TRUTH, CONTENTS = "truth", "contents"

_levels = itertools.count(1)
_INT, _TRUE, _FALSE, _NONE, _FLOAT, _STR, _TUPLE, _SLICE, _ELLIPSIS, _BIG, _COMPLEX, _OPAQUE = range(12)


class Opaque:
    """An attribute that is an object: it is written down by identity, and the tape keeps it alive."""

    __slots__ = ("__weakref__",)


_opaque: "weakref.WeakValueDictionary[int, Opaque]" = weakref.WeakValueDictionary()


def encode(value: Any, out: "array[int]") -> None:
    """Append the int64 encoding of a static `value` (int, bool, None, float, complex, str, dtype, slice, tuple) to `out`."""
    kind = type(value)
    if kind is int:
        if -(2**63) <= value < 2**63:
            out.append(_INT)
            out.append(value)
        else:
            out.append(_BIG)
            encode(str(value), out)
    elif kind is tuple or kind is list:
        out.append(_TUPLE)
        out.append(len(value))
        for item in value:
            encode(item, out)
    elif value is None:
        out.append(_NONE)
    elif kind is bool or isinstance(value, np.bool_):
        out.append(_TRUE if value else _FALSE)
    elif kind is slice:
        out.append(_SLICE)
        encode(value.start, out)
        encode(value.stop, out)
        encode(value.step, out)
    elif kind is str:
        text = value.encode()
        out.append(_STR)
        out.append(len(text))
        text += b"\0" * (-len(text) % 8)
        out.extend(struct.unpack(f"<{len(text) // 8}q", text))
    elif value is Ellipsis:
        out.append(_ELLIPSIS)
    elif isinstance(value, np.dtype):
        encode(value.str, out)
    elif isinstance(value, (float, np.floating)):
        out.append(_FLOAT)
        out.extend(struct.unpack("<q", struct.pack("<d", value)))
    elif isinstance(value, (complex, np.complexfloating)):
        out.append(_COMPLEX)
        out.extend(struct.unpack("<2q", struct.pack("<2d", value.real, value.imag)))
    elif isinstance(value, np.integer):
        encode(int(value), out)
    elif isinstance(value, Opaque):
        _opaque[id(value)] = value
        out.append(_OPAQUE)
        out.append(id(value))
    else:
        raise RuleError(
            f"an attribute of an operation must be an int, float, complex, bool, str, dtype, slice, None or a tuple of these, "
            f"not {kind.__name__}; pass arrays as operands"
        )


def decode(attr: Any, position: int) -> tuple[Any, int]:
    """Return the value encoded at `position` of `attr` and the position after it."""
    tag = int(attr[position])
    position += 1
    if tag == _INT:
        return int(attr[position]), position + 1
    if tag == _TUPLE:
        items = []
        length = int(attr[position])
        position += 1
        for _ in range(length):
            item, position = decode(attr, position)
            items.append(item)
        return tuple(items), position
    if tag == _NONE:
        return None, position
    if tag in (_TRUE, _FALSE):
        return tag == _TRUE, position
    if tag == _ELLIPSIS:
        return Ellipsis, position
    if tag == _SLICE:
        start, position = decode(attr, position)
        stop, position = decode(attr, position)
        step, position = decode(attr, position)
        return slice(start, stop, step), position
    if tag == _STR:
        length = int(attr[position])
        words = (length + 7) // 8
        raw = struct.pack(f"<{words}q", *(int(w) for w in attr[position + 1 : position + 1 + words]))
        return raw[:length].decode(), position + 1 + words
    if tag == _FLOAT:
        return struct.unpack("<d", struct.pack("<q", int(attr[position])))[0], position + 1
    if tag == _COMPLEX:
        raw = struct.pack("<2q", int(attr[position]), int(attr[position + 1]))
        return complex(*struct.unpack("<2d", raw)), position + 2
    if tag == _OPAQUE and (found := _opaque.get(int(attr[position]))) is not None:
        return found, position + 1
    if tag == _BIG:
        text, position = decode(attr, position)
        return int(text), position
    raise TapeError(f"unknown tag {tag} in the attributes of a tape")


class Tape:
    """The growing tape of one traced call.

    A recording tape (`records`) holds every operation on its values, whether it has a derivative or not, with all operands;
    it keeps no values but constants. `forms` says what each of its slots is to Python (ARRAY, SCALAR or PYTHON), `guards` what
    Python code saw of its values: (slot, kind, what was seen, line, number of nodes before).

    Appending is spelled out where values are recorded (`nbad.trace`), because a method call per array would cost more than
    the append itself.
    """

    __slots__ = (
        "absorbs",
        "add_aval",
        "add_edge",
        "add_line",
        "add_op",
        "add_out",
        "add_ref",
        "attr",
        "attr_end",
        "attr_node",
        "aval",
        "aval_ids",
        "avals",
        "big",
        "closed",
        "code_ids",
        "code_lines",
        "edge_slot",
        "edges_of",
        "fixed_line",
        "foreign",
        "forms",
        "guards",
        "held",
        "inputs",
        "known",
        "last_aval",
        "last_code",
        "last_dtype",
        "last_lines",
        "last_shape",
        "level",
        "line",
        "lines",
        "nested",
        "objects",
        "odd",
        "op",
        "out_start",
        "records",
        "ref",
        "roots",
        "scalar",
        "scalar_ids",
        "variadic_count",
        "variadic_node",
        "watched",
        "written",
    )

    def __init__(self, level: int) -> None:
        self.level = level
        self.op = array("H")
        self.edge_slot = array("i")
        self.out_start = array("i")
        self.attr = array("q")
        self.attr_node = array("q")
        self.attr_end = array("q")
        self.line = array("i")
        self.aval = array("i")
        self.ref = array("q")
        self.scalar = array("d")
        self.variadic_node = array("q")
        self.variadic_count = array("q")
        # Bound once: the look-up of `append` would cost a fifth of each append.
        self.add_op, self.add_edge, self.add_out = (
            self.op.append,
            self.edge_slot.append,
            self.out_start.append,
        )
        self.add_line, self.add_aval, self.add_ref = self.line.append, self.aval.append, self.ref.append
        self.objects: list[Any] = []
        self.avals: list[tuple[np.dtype[Any], tuple[int, ...]]] = []
        self.aval_ids: dict[tuple[np.dtype[Any], tuple[int, ...]], int] = {}
        self.last_dtype: Any = None
        self.last_shape: tuple[int, ...] = ()
        self.last_aval = -1
        self.code_ids: dict[int, int] = {}
        self.code_lines: dict[int, dict[int, int]] = {}
        self.last_code: CodeType | None = None
        self.last_lines: dict[int, int] = {}
        self.lines: list[tuple[CodeType, int]] = []
        self.scalar_ids: dict[float, int] = {}
        self.inputs = 0
        self.nested = False
        self.big = SETTINGS.nan is not None  # every operation is looked at
        self.odd = False  # an input is not in native byte order, so results are not of its dtype
        self.closed = False
        self.records = False
        self.absorbs = False  # a recording of plain values: what somebody else traces enters as a constant that he watches
        self.forms = array("B")
        self.guards: list[tuple[int, str, Any, int, int]] = []
        #: attributes that are objects
        self.held: list[Opaque] = []
        #: recording tapes: the slot of each constant, and which guards there are
        self.known: dict[Any, int] = {}
        #: recording tapes: the line of the next nodes, if it is not the user's that is running
        self.fixed_line: int | None = None
        #: ids of the objects that own the memory of what users' forwards returned
        self.foreign: set[int] = set()
        #: ids of the objects that own the memory of the asked-for inputs and of constants
        self.roots: set[int] = set()
        #: slot -> (fingerprint, line) of kept arrays that the caller can reach
        self.watched: dict[int, tuple[Any, int]] = {}
        #: ids of the objects that own the memory of what was written in place
        self.written: set[int] = set()

    def aval_of(self, dtype: Any, shape: tuple[int, ...]) -> int:
        """Return the index of the pair (dtype, shape), interned."""
        key = (dtype, shape)
        found = self.aval_ids.get(key)
        if found is None:
            found = self.aval_ids[key] = len(self.avals)
            self.avals.append(key)
            self.big = self.big or math.prod(shape) >= BIG
        self.last_dtype, self.last_shape, self.last_aval = dtype, shape, found
        return found

    def add_slot(self, dtype: Any, shape: tuple[int, ...]) -> int:
        """Append a slot without a kept value and return its number."""
        self.aval.append(self.aval_of(dtype, shape))
        self.ref.append(0)
        self.objects.append(None)
        return len(self.objects) - 1

    def keep_scalar(self, slot: int, value: Any) -> None:
        """Keep the 0-d `value` of `slot` in the scalar arena."""
        self.ref[slot] = len(self.scalar) + 1
        number = complex(value)
        self.scalar.append(number.real)
        self.scalar.append(number.imag)
        self.objects[slot] = value

    def add_scalar(self, value: Any) -> int:
        """Return a slot that holds the constant Python scalar `value`; equal floats share one."""
        is_float = type(value) is float and value != 0.0
        if is_float:
            found = self.scalar_ids.get(value)
            if found is not None:
                return found
        dtype = np.dtype(np.complex128 if isinstance(value, complex) else np.float64)
        slot = self.add_slot(dtype, ())
        self.keep_scalar(slot, value)
        if is_float:
            self.scalar_ids[value] = slot
        return slot

    def add_attributes(self, values: tuple[Any, ...]) -> None:
        """Append the attributes of the node that is about to be appended."""
        for value in values:
            encode(value, self.attr)
            if isinstance(value, Opaque):
                self.held.append(value)
        self.attr_node.append(len(self.op))
        self.attr_end.append(len(self.attr))

    def line_of(self, code: CodeType, lasti: int) -> int:
        """Return the index of the source position (code object, instruction offset), interned."""
        key = id(code) << 24 | lasti
        found = self.code_ids.get(key)
        if found is None:
            found = self.code_ids[key] = len(self.lines)
            self.lines.append((code, lasti))
        return found

    def lines_of(self, code: CodeType) -> dict[int, int]:
        """Return the entries known for a code object, by instruction offset; `lines` keeps the object alive."""
        return self.code_lines.setdefault(id(code), {})

    def position(self, line: int) -> tuple[str, int]:
        """Return file name and line number of entry `line`."""
        if not 0 <= line < len(self.lines):
            return "<unknown>", 0
        code, lasti = self.lines[line]
        for start, end, number in code.co_lines():
            if start <= lasti < end and number is not None:
                return code.co_filename, number
        return code.co_filename, code.co_firstlineno


def form_of(value: Any) -> int:
    """Return ARRAY, SCALAR or PYTHON for a value."""
    if isinstance(value, np.generic):
        return SCALAR
    return PYTHON if isinstance(value, (bool, int, float, complex)) else ARRAY


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array, number or traced value; `np.shape` of a traced one is a long way."""
    found: tuple[int, ...] | None = getattr(value, "shape", None)
    return np.shape(value) if found is None else found


def new_tape() -> Tape:
    """Return an empty tape; a tape made later is an inner one."""
    return Tape(next(_levels))


@dataclass(slots=True, eq=False)
class Frozen:
    """A finished tape as ndarrays (views of the growing arrays, nothing is copied that is long)."""

    tape: Tape
    op: np.ndarray
    edge_start: np.ndarray
    edge_slot: np.ndarray
    out_start: np.ndarray
    attr_start: np.ndarray
    attr: np.ndarray
    aval: np.ndarray
    ref: np.ndarray
    scalar: np.ndarray
    aval_dtype: np.ndarray
    aval_ndim: np.ndarray
    aval_size: np.ndarray
    aval_start: np.ndarray
    aval_shape: np.ndarray

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return int(self.op.size)

    @property
    def slots(self) -> int:
        """Number of slots."""
        return int(self.aval.size)

    def edges(self, node: int) -> list[int]:
        """Return the operand slots of `node`."""
        found: list[int] = self.edge_slot[self.edge_start[node] : self.edge_start[node + 1]].tolist()
        return found

    def attributes(self, node: int) -> tuple[Any, ...]:
        """Return the attribute values of `node`."""
        return tuple(self._decoded(node))

    def _decoded(self, node: int) -> Iterator[Any]:
        position, end = int(self.attr_start[node]), int(self.attr_start[node + 1])
        while position < end:
            value, position = decode(self.attr, position)
            yield value

    def shape(self, slot: int) -> tuple[int, ...]:
        """Return the shape of `slot`."""
        found: tuple[int, ...] = self.tape.avals[self.aval[slot]][1]
        return found

    def dtype(self, slot: int) -> np.dtype[Any]:
        """Return the dtype of `slot`."""
        found: np.dtype[Any] = self.tape.avals[self.aval[slot]][0]
        return found


def freeze(tape: Tape, arity: np.ndarray) -> Frozen:
    """Return `tape` as typed arrays.

    Parameters
    ----------
    tape : Tape
        The recorded tape; it takes no more entries.
    arity : ndarray of int64, shape (ops,)
        Number of operands per opcode (0 for variadic ops, whose count is on the tape).
    """
    tape.closed = True
    op = np.frombuffer(tape.op, np.uint16) if tape.op else np.zeros(0, np.uint16)
    counts = arity[op]
    if tape.variadic_node:
        counts[np.frombuffer(tape.variadic_node, np.int64)] = np.frombuffer(tape.variadic_count, np.int64)
    edge_start = _starts(counts)
    lengths = np.zeros(op.size, np.int64)
    if tape.attr_node:
        ends = np.frombuffer(tape.attr_end, np.int64)
        lengths[np.frombuffer(tape.attr_node, np.int64)] = np.diff(ends, prepend=0)
    dims = [d for _, shape in tape.avals for d in shape]
    ndims = np.array([len(shape) for _, shape in tape.avals], np.int64)
    codes = [DTYPES.index(dtype) if dtype in DTYPES else OTHER for dtype, _ in tape.avals]
    sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape in tape.avals]
    return Frozen(
        tape=tape,
        op=op,
        edge_start=edge_start,
        edge_slot=_view(tape.edge_slot, np.int32),
        out_start=_view(tape.out_start, np.int32),
        attr_start=_starts(lengths),
        attr=_view(tape.attr, np.int64),
        aval=_view(tape.aval, np.int32),
        ref=_view(tape.ref, np.int64),
        scalar=_view(tape.scalar, np.float64),
        aval_dtype=np.array(codes, np.uint8),
        aval_ndim=ndims,
        aval_size=np.array(sizes, np.int64),
        aval_start=_starts(ndims),
        aval_shape=np.array(dims, np.int64),
    )


def _view(values: "array[Any]", dtype: Any) -> np.ndarray:
    return np.frombuffer(values, dtype) if values else np.zeros(0, dtype)


def _starts(counts: np.ndarray) -> np.ndarray:
    out = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out
