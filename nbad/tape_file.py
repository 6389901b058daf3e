"""Saved tapes: recorded graphs as the bytes of a file, and back.

Owns the format of a graph in a file (docs/reference/tape-format.md) and the validation of everything in it, because a graph
drives raw pointers: every index, dtype, shape, size and name is checked before anything runs. Operations stand in it by name.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nbad import archive
from nbad.archive import require
from nbad.avals import check_avals
from nbad.errors import TapeError
from nbad.replay.graph import ARRAY, CONTENTS, PYTHON, TRUTH, Graph, Guard, Node, form_of
from nbad.scipy import load_rows
from nbad.table import TABLE, Op
from nbad.tape import decode, encode

__all__ = ["check_avals", "pack", "unpack"]

FORMAT, VERSION = "nbad tape", 1
#: Bytes that one value may have, and dimensions.
MAX_BYTES, MAX_DIMENSIONS = 1 << 40, 64
#: Levels of tuples in an attribute.
MAX_DEPTH = 16
#: Stands in a file before the name of an operation that a user made.
_USER = "user:"
#: Constants begin at multiples of this.
ALIGNMENT = 64
#: The arrays of one graph, and their dtypes in the file.
ARRAYS: dict[str, str] = {
    "op": "<i4", "edge_start": "<i8", "edge_slot": "<i4", "out_start": "<i8", "out_slot": "<i4",
    "attr_start": "<i8", "attr": "<i8", "line": "<i4",
    "slot_dtype": "|u1", "slot_form": "|u1", "shape_start": "<i8", "shape": "<i8",
    "input": "<i4", "output": "<i4",
    "constant_slot": "<i4", "constant_broadcast": "<u8", "constant_start": "<i8",
    "guard_slot": "<i4", "guard_kind": "|u1", "guard_line": "<i4", "guard_after": "<i8", "guard_start": "<i8",
    "line_file": "<i4", "line_number": "<i8", "data": "|u1",
}  # fmt: skip

_KINDS = "fciub"
_PYTHON_DTYPES = tuple(np.dtype(t) for t in (np.bool_, np.int64, np.float64, np.complex128))
_DTYPE = re.compile(r"[<|][fciub][0-9]{1,2}")

Array = np.ndarray[Any, Any]
Arrays = dict[str, Any]


# Writing ------------------------------------------------------------------------------------------
def pack(graphs: Iterable[tuple[dict[str, Any], Graph]]) -> bytes:
    """Return graphs as the bytes of a file.

    Parameters
    ----------
    graphs : iterable of (meta, Graph)
        What JSON can hold, and a graph.

    Returns
    -------
    bytes
        The same for the same graphs.

    Raises
    ------
    TapeError
        Something that has no place in a file: an operation whose name is not its own, an object among the constants, a NaN
            in `meta`.

    Examples
    --------
    >>> meta, graph = unpack(pack([({"name": "f"}, Graph())]))[0]
    >>> meta, graph.nodes
    ({'name': 'f'}, [])
    """
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "byteorder": "little"}
    tables: dict[str, dict[Any, int]] = {name: {} for name in ("ops", "attributes", "dtypes", "files")}
    members: dict[str, Array] = {}
    metas = []
    for i, (meta, graph) in enumerate(graphs):
        for name, values in _arrays_of(graph, tables).items():
            members[f"{i}/{name}"] = np.asarray(values, ARRAYS[name])
        metas.append(meta)
    header.update({name: list(table) for name, table in tables.items()})
    header["graphs"] = metas
    return archive.write(header, members)


def _arrays_of(graph: Graph, tables: dict[str, dict[Any, int]]) -> dict[str, Any]:
    """Return the arrays of one graph; names are entered into the tables that all graphs share."""

    def index(table: str, key: Any) -> int:
        return tables[table].setdefault(key, len(tables[table]))

    attr = array("q")
    attr_start = [0]
    for op in {node.op for node in graph.nodes}:
        if op.together is not None:
            raise TapeError(
                f"a call of {op.name} cannot be saved",
                fix="Compile a function without it for the file.",
            )
        _row_of(_name_of(op), op)
    for node in graph.nodes:
        for name, value in node.attributes.items():
            attr.append(index("attributes", name))
            encode(value, attr)
        attr_start.append(len(attr))
    for dtype, _ in graph.avals:
        if dtype.kind not in _KINDS:
            raise TapeError(f"a value of dtype {dtype} cannot be saved")
    data = bytearray()
    constants = [_stored(graph, slot, value, data) for slot, value in graph.constants.items()]
    guard_start = []
    for guard in graph.guards:
        seen = np.asarray(guard.seen, np.bool_ if guard.kind == TRUTH else graph.avals[guard.slot][0])
        guard_start.append(_append(data, seen))
    return {
        "op": [index("ops", _name_of(node.op)) for node in graph.nodes],
        "edge_start": _starts(len(node.operands) for node in graph.nodes),
        "edge_slot": [slot for node in graph.nodes for slot in node.operands],
        "out_start": _starts(len(node.outputs) for node in graph.nodes),
        "out_slot": [slot for node in graph.nodes for slot in node.outputs],
        "attr_start": attr_start,
        "attr": attr,
        "line": [node.line for node in graph.nodes],
        "slot_dtype": [index("dtypes", _spelled(dtype)) for dtype, _ in graph.avals],
        "slot_form": graph.forms,
        "shape_start": _starts(len(shape) for _, shape in graph.avals),
        "shape": [n for _, shape in graph.avals for n in shape],
        "input": graph.inputs,
        "output": graph.outputs,
        "constant_slot": list(graph.constants),
        "constant_broadcast": [mask for mask, _ in constants],
        "constant_start": [start for _, start in constants],
        "guard_slot": [guard.slot for guard in graph.guards],
        "guard_kind": [guard.kind == CONTENTS for guard in graph.guards],
        "guard_line": [guard.line for guard in graph.guards],
        "guard_after": [guard.after for guard in graph.guards],
        "guard_start": guard_start,
        "line_file": [index("files", str(file)) for file, _ in graph.lines],
        "line_number": [number for _, number in graph.lines],
        "data": np.frombuffer(bytes(data), np.uint8),
    }


def _starts(counts: Iterable[int]) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def _spelled(dtype: np.dtype[Any]) -> str:
    return dtype.newbyteorder("<").str


def _stored(graph: Graph, slot: int, value: Any, data: bytearray) -> tuple[int, int]:
    """Append a constant to the data; return the bit mask of its broadcast dimensions and where it starts."""
    dtype, shape = graph.avals[slot]
    if form_of(value) != graph.forms[slot] or np.result_type(value) != dtype or np.shape(value) != shape:
        raise TapeError(f"a constant of type {type(value).__name__} cannot be saved")
    core = np.asarray(value)
    mask = 0
    if core.size:
        for axis, (n, stride) in enumerate(zip(core.shape, core.strides, strict=True)):
            if n > 1 and stride == 0:
                mask |= 1 << axis
        core = core[tuple(slice(0, 1) if mask >> axis & 1 else slice(None) for axis in range(core.ndim))]
    start = _append(data, core)
    return mask, start


def _append(data: bytearray, value: Array) -> int:
    """Append the bits of an array at the next aligned place and return the place."""
    data.extend(bytes(-len(data) % ALIGNMENT))
    start = len(data)
    data.extend(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
    return start


def _name_of(op: Op) -> str:
    """Return the name of a row in a file: a user's row may bear the name of one of ours."""
    return _USER + op.name if op.foreign else op.name


def _row_of(name: str, known: Op | None = None) -> Op:
    """Return the only row of this name."""
    foreign = name.startswith(_USER)
    if name.startswith("scipy."):
        load_rows(name)
    rows = [op for op in TABLE if op.foreign == foreign and op.name == name.removeprefix(_USER)]
    if len(rows) != 1 or known not in (None, rows[0]):
        problem = "no operation is" if not rows else "several operations are"
        raise TapeError(
            f"{problem} called {name!r}",
            fix="Import the module that defines the primitive first; a primitive that is to be saved needs a name of its own.",
        )
    return rows[0]


# Reading ------------------------------------------------------------------------------------------
def unpack(content: bytes) -> list[tuple[dict[str, Any], Graph]]:
    """Return the graphs of a file.

    Parameters
    ----------
    content : bytes
        What `pack` returned; anything else is refused.

    Returns
    -------
    list of (dict, Graph)
        Validated: no index leads outside, operands stand before what reads them, shapes fit.

    Raises
    ------
    TapeError
        The file is damaged, of another version, or names an operation that does not exist here.
    """
    try:
        return _unpacked(bytes(content))
    except TapeError:
        raise
    except (Exception, RecursionError, MemoryError) as error:  # zipfile, json and struct raise of all kinds
        raise TapeError(f"this is no saved tape, or it is damaged: {type(error).__name__}: {error}") from None


def _unpacked(content: bytes) -> list[tuple[dict[str, Any], Graph]]:
    header, members = archive.read(content)
    _check_format(header)
    rows = [_row_of(name) for name in _texts(header, "ops")]
    dtypes = [_dtype(text) for text in _texts(header, "dtypes")]
    attributes, files = _texts(header, "attributes"), _texts(header, "files")
    metas: Any = header.get("graphs")
    require(
        isinstance(metas, list) and all(isinstance(m, dict) for m in metas), "the list of graphs is missing"
    )
    found = []
    for i, meta in enumerate(list(metas)):
        arrays = {name: archive.take(members, f"{i}/{name}", dtype) for name, dtype in ARRAYS.items()}
        graph = _Reading(arrays, rows, dtypes, attributes, files).graph()
        check_avals(graph)
        found.append((meta, graph))
    require(not members, "the archive has members that belong to nothing")
    return found


def _check_format(header: dict[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise TapeError("this file is no saved tape")
    if type(header.get("version")) is not int or header["version"] != VERSION:
        raise TapeError(
            f"the saved tape has version {header.get('version')!r} of the format, this is for version {VERSION}"
        )
    require(header.get("byteorder") == "little", "its byte order is not known")


def _texts(header: dict[str, Any], key: str) -> list[str]:
    found = header.get(key)
    fits = (
        isinstance(found, list) and all(type(text) is str for text in found) and len(set(found)) == len(found)
    )
    require(fits, f"the list of {key} is missing or has something else in it")
    return list(found or ())


def _dtype(text: str) -> np.dtype[Any]:
    require(_DTYPE.fullmatch(text) is not None, f"the dtype {text!r} is not known")
    dtype = np.dtype(text).newbyteorder("=")
    require(dtype.kind in _KINDS and _spelled(dtype) == text, f"the dtype {text!r} is not known")
    return dtype


class _Reading:
    """One graph while its arrays are turned into nodes."""

    def __init__(
        self,
        arrays: Arrays,
        rows: Sequence[Op],
        dtypes: Sequence[np.dtype[Any]],
        attributes: Sequence[str],
        files: Sequence[str],
    ) -> None:
        self.lists = {name: values.tolist() for name, values in arrays.items() if name != "data"}
        self.data: Array = arrays["data"]
        self.rows, self.dtypes, self.attributes, self.files = rows, dtypes, attributes, files

    def graph(self) -> Graph:
        """Return the graph; every number is checked."""
        lists = self.lists
        graph = Graph(avals=self._avals(), forms=lists["slot_form"])
        slots, nodes = len(graph.avals), len(lists["op"])
        self._same_length("slot_dtype", "slot_form")
        self._same_length("line_file", "line_number")
        self._same_length("constant_slot", "constant_broadcast", "constant_start")
        self._same_length("guard_slot", "guard_kind", "guard_line", "guard_after", "guard_start")
        self._same_length("op", "line")
        for name in ("input", "output", "constant_slot", "guard_slot", "edge_slot", "out_slot"):
            self._within(name, 0, slots)
        for name, limit in (("op", len(self.rows)), ("line_file", len(self.files)), ("guard_kind", 2)):
            self._within(name, 0, limit)
        self._within("guard_after", 0, nodes + 1)
        for name in ("line", "guard_line"):
            self._within(name, -1, len(lists["line_file"]))
        for (dtype, shape), form in zip(graph.avals, graph.forms, strict=True):
            require(form in (0, 1, 2) and (form == ARRAY or not shape), "a value of an unknown form")
            require(form != PYTHON or dtype in _PYTHON_DTYPES, f"a Python number of dtype {dtype}")
        graph.lines = [
            (self.files[file], number)
            for file, number in zip(lists["line_file"], lists["line_number"], strict=True)
        ]
        graph.inputs, graph.outputs = lists["input"], lists["output"]
        starts = zip(
            lists["constant_slot"], lists["constant_broadcast"], lists["constant_start"], strict=True
        )
        for slot, mask, start in starts:
            require(slot not in graph.constants, "a constant stands twice")
            graph.constants[slot] = self._constant(graph, slot, mask, start)
        made = [-1] * slots  # before which node a value exists
        ready = [*graph.inputs, *graph.constants]
        require(len(set(ready)) == len(ready), "an input stands twice, or is a constant")
        for slot in ready:
            made[slot] = 0
        self._read_nodes(graph, made)
        require(all(made[slot] >= 0 for slot in graph.outputs), "an output that nothing makes")
        self._read_guards(graph, made)
        return graph

    def _same_length(self, *names: str) -> None:
        require(len({len(self.lists[name]) for name in names}) == 1, f"{', '.join(names)} differ in length")

    def _within(self, name: str, low: int, high: int) -> None:
        require(all(low <= value < high for value in self.lists[name]), f"an index in {name} leads outside")

    def _spans(self, name: str, count: int, end: int) -> list[tuple[int, int]]:
        """Return the pairs of a CSR array, which must rise from 0 to `end`."""
        starts = self.lists[name]
        fits = len(starts) == count + 1 and starts[0] == 0 and starts[-1] == end and starts == sorted(starts)
        require(fits, f"{name} does not rise from 0 to {end} in {count} steps")
        return list(itertools.pairwise(starts))

    def _avals(self) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
        lists = self.lists
        self._within("slot_dtype", 0, len(self.dtypes))
        found = []
        spans = self._spans("shape_start", len(lists["slot_dtype"]), len(lists["shape"]))
        for code, (start, end) in zip(lists["slot_dtype"], spans, strict=True):
            dtype, shape = self.dtypes[code], tuple(lists["shape"][start:end])
            require(len(shape) <= MAX_DIMENSIONS and all(n >= 0 for n in shape), "a shape that no array has")
            extent = math.prod(n for n in shape if n) * dtype.itemsize  # as NumPy counts, which skips zeros
            require(extent <= MAX_BYTES, f"a value of shape {shape} is too large")
            found.append((dtype, shape))
        return found

    def _bits(self, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Return a copy of what the data hold at a place."""
        nbytes = math.prod(shape) * dtype.itemsize
        fits = start % ALIGNMENT == 0 and 0 <= start <= self.data.size and nbytes <= self.data.size - start
        require(fits, "a constant lies outside of the data")
        raw = self.data[start : start + nbytes].tobytes()
        if dtype.kind == "b":
            require(set(raw) <= {0, 1}, "a truth value is neither 0 nor 1")
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)

    def _constant(self, graph: Graph, slot: int, mask: int, start: int) -> Any:
        dtype, shape = graph.avals[slot]
        broadcast = [bool(mask >> axis & 1) for axis in range(len(shape))]
        fits = mask >> len(shape) == 0 and all(n > 1 for n, b in zip(shape, broadcast, strict=True) if b)
        require(fits, "a constant is broadcast where it has no dimension")
        core = self._bits(start, dtype, tuple(1 if b else n for n, b in zip(shape, broadcast, strict=True)))
        if graph.forms[slot] == ARRAY:
            return np.broadcast_to(core, shape) if mask else core
        return core.item() if graph.forms[slot] == PYTHON else core[()]

    def _read_nodes(self, graph: Graph, made: list[int]) -> None:
        lists = self.lists
        count = len(lists["op"])
        spans = zip(
            lists["op"],
            self._spans("edge_start", count, len(lists["edge_slot"])),
            self._spans("out_start", count, len(lists["out_slot"])),
            self._spans("attr_start", count, len(lists["attr"])),
            lists["line"],
            strict=True,
        )
        for position, (code, edges, outs, attrs, line) in enumerate(spans):
            op = self.rows[code]
            operands, outputs = (
                tuple(lists["edge_slot"][slice(*edges)]),
                tuple(lists["out_slot"][slice(*outs)]),
            )
            fits = len(operands) > 0 if op.variadic else len(operands) == len(op.operands)
            require(fits, f"{op.name} has {len(operands)} operands")
            require(len(outputs) == op.outputs, f"{op.name} has {len(outputs)} outputs")
            for slot in operands:
                require(made[slot] >= 0, f"{op.name} reads what nothing has made")
            for slot in outputs:
                require(made[slot] < 0, f"{op.name} makes what exists already")
                made[slot] = position + 1
            attributes = self._attributes(op, lists["attr"][slice(*attrs)])
            graph.nodes.append(Node(op, operands, outputs, attributes, line))

    def _attributes(self, op: Op, words: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        position = 0
        while position < len(words):
            index = words[position]
            require(0 <= index < len(self.attributes), f"an attribute of {op.name} has no name")
            name = self.attributes[index]
            require(name in op.attributes and name not in found, f"{op.name} has no attribute {name!r} here")
            start = position + 1
            found[name], position = decode(words, start)
            require(_depth(found[name]) <= MAX_DEPTH, f"an attribute of {op.name} is nested too deeply")
            again = array("q")
            encode(found[name], again)
            require(again.tolist() == words[start:position], f"an attribute of {op.name} is spelled wrong")
        missing = _required(op) - found.keys()
        require(not missing, f"{op.name} lacks the attributes {sorted(missing)}")
        return found

    def _read_guards(self, graph: Graph, made: list[int]) -> None:
        names = ("guard_slot", "guard_kind", "guard_line", "guard_after", "guard_start")
        last = 0
        for slot, kind, line, after, start in zip(*(self.lists[name] for name in names), strict=True):
            require(0 <= made[slot] <= after and last <= after, "a guard stands before its value")
            last = after
            if kind:
                seen: Any = self._bits(start, *graph.avals[slot])
            else:
                require(math.prod(graph.avals[slot][1]) == 1, "the truth of a value with several elements")
                seen = bool(self._bits(start, np.dtype(np.bool_), ())[()])
            graph.guards.append(Guard(slot, CONTENTS if kind else TRUTH, seen, line, after))


@functools.lru_cache(maxsize=1024)
def _required(op: Op) -> frozenset[str]:
    """Return the attributes that a forward cannot do without."""
    if not op.attributes:
        return frozenset()
    parameters = inspect.signature(op.forward).parameters.values()
    needed = {p.name for p in parameters if p.default is inspect.Parameter.empty}
    return frozenset(needed.intersection(op.attributes))


def _depth(value: Any) -> int:
    """Return how many tuples and slices stand in one another."""
    depth, level = 0, [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, tuple):
                inner.extend(item)
            elif isinstance(item, slice):
                inner.extend((item.start, item.stop, item.step))
        depth, level = depth + 1, inner
    return depth
