"""Saved tapes: what is written is read back, and damaged or hostile files are refused."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import nbad
from nbad import tape_file
from nbad.archive import read, take, write
from nbad.errors import TapeError
from nbad.replay.graph import ARRAY, CONTENTS, PYTHON, SCALAR, Graph, Guard, Node
from nbad.replay.recording import graph_of, record
from nbad.table import TABLE, Op
from nbad.tape_file import check_avals, pack, unpack

ROWS = {op.name: op for op in TABLE}


def program(values: list[Any]) -> Any:
    x, y, scale = values
    z = np.where(x > 0.1, np.sin(x) * scale, y[1:]) if np.sum(x) > 0 else x
    z = z.reshape(2, -1)[:, ::-1] + np.broadcast_to(np.float32(3), (2, 4)) * np.ones((2, 1))
    count = int(np.floor(np.max(x)))
    w = np.real(np.fft.ifft(np.fft.fft(z) * np.exp(1j * z)))
    total = np.sum(w @ np.ones(4)) * count + np.mean(z, axis=0).sum() + np.clip(x, 0, 0.5).sum()
    return total + np.sum(np.transpose(z)[None, 1:, :, None] ** 2) + np.linalg.norm(y) + x[np.argmax(y[:8])]


def values() -> list[Any]:
    return [np.linspace(0.3, 1.3, 8), np.linspace(1, 2, 9), 2.5]


def recorded(function: Callable[[list[Any]], Any] = program, inputs: list[Any] | None = None) -> Graph:
    result, tape = record(function, values() if inputs is None else inputs)
    return graph_of(tape, [result._slot])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return recorded()


@pytest.fixture(scope="module")
def content(graph: Graph) -> bytes:
    return pack([({"name": "f", "sizes": [1, 2]}, graph)])


def parts(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take a file apart."""
    header, members = read(content)
    arrays = {}
    for name in [name.removesuffix(".npy") for name in members]:
        arrays[name] = take(members, name, tape_file.ARRAYS[name.rpartition("/")[2]]).copy()
    return header, arrays


def same(a: Any, b: Any) -> bool:
    """Return whether two constants are equal in type, bits and strides."""
    if isinstance(a, np.ndarray):
        bits = np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
        return type(b) is np.ndarray and (a.dtype, a.shape) == (b.dtype, b.shape) and bits
    return type(a) is type(b) and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_equal(a: Graph, b: Graph) -> None:
    for name in ("avals", "forms", "inputs", "outputs", "lines"):
        assert getattr(a, name) == getattr(b, name), name
    assert [str(n) for n in a.nodes] == [str(n) for n in b.nodes]
    assert [(n.op, n.line) for n in a.nodes] == [(n.op, n.line) for n in b.nodes]
    assert list(a.constants) == list(b.constants)
    assert all(same(v, b.constants[slot]) for slot, v in a.constants.items())
    for g, h in zip(a.guards, b.guards, strict=True):
        assert (g.slot, g.kind, g.line, g.after) == (h.slot, h.kind, h.line, h.after)
        assert np.asarray(g.seen).tobytes() == np.asarray(h.seen).tobytes()


def test_a_recording_comes_back(graph: Graph, content: bytes) -> None:
    [(meta, loaded)] = unpack(content)
    assert meta == {"name": "f", "sizes": [1, 2]}
    assert_equal(graph, loaded)
    assert pack([(meta, loaded)]) == content
    assert graphs.naive(loaded, values()) == graphs.naive(graph, values())


def test_several_graphs_share_their_names(graph: Graph) -> None:
    other = recorded(lambda v: np.sum(np.sin(v[0])))
    loaded = unpack(pack([({"i": 0}, graph), ({"i": 1}, other), ({}, Graph())]))
    assert [meta for meta, _ in loaded] == [{"i": 0}, {"i": 1}, {}]
    for before, (_, after) in zip((graph, other, Graph()), loaded, strict=True):
        assert_equal(before, after)
    assert unpack(pack([])) == []


def test_the_file_is_an_ordinary_npz_without_addresses(content: bytes) -> None:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        header = json.loads(bytes(file["header"]))
        assert [header["ops"][i] for i in file["0/op"]] == [n.op.name for n in unpack(content)[0][1].nodes]
        for name, dtype in tape_file.ARRAYS.items():
            assert file[f"0/{name}"].dtype.str == dtype
    assert header["format"] == "nbad tape"


@pytest.mark.parametrize(
    "value",
    [
        True,
        -0.0,
        float("nan"),
        complex(-0.0, float("inf")),
        7,
        np.float32(1.5),
        np.complex64(1j),
        np.bool_(True),
        np.int8(-3),
        np.zeros((0, 3)),
        np.array(2.0),
        np.array([True, False]),
        np.arange(6).reshape(2, 3).T,
        np.broadcast_to(np.float64(3), (1000, 1000)),
        np.broadcast_to(np.arange(3.0)[:, None], (2, 3, 50)),
        np.array([np.nan, -0.0, 5e-324]),
        np.arange(3, dtype=np.uint16)[::-1],
        np.arange(3, dtype=np.float16),
    ],
    ids=repr,
)
def test_constants_keep_type_bits_and_broadcasting(value: Any) -> None:
    graph = Graph()
    graph.outputs.append(graph.add_constant(value))
    content = pack([({}, graph)])
    loaded = unpack(content)[0][1]
    assert_equal(graph, loaded)
    assert len(content) < 20_000
    if isinstance(value, np.ndarray) and value.size and 0 in value.strides:
        read_back = loaded.constants[0]
        assert [s == 0 for s in read_back.strides] == [s == 0 for s in value.strides]


@pytest.mark.parametrize("meta", [{"a": float("nan")}, {"a": float("inf")}, {"a": object()}])
def test_what_has_no_place_in_json(meta: dict[str, Any]) -> None:
    with pytest.raises(TapeError, match="JSON"):
        pack([(meta, Graph())])


def test_numbers_and_arrays_that_have_no_place() -> None:
    graph = Graph()
    graph.add_slot(np.dtype("M8[s]"), ())
    with pytest.raises(TapeError, match="dtype"):
        pack([({}, graph)])
    graph = Graph()
    graph.add_slot(np.dtype(np.float64), (2,))
    graph.constants[0] = np.ones(3)
    with pytest.raises(TapeError, match="constant"):
        pack([({}, graph)])


# Operations by name -------------------------------------------------------------------------------
def user_graph(op: Op) -> Graph:
    graph = Graph(inputs=[0], outputs=[1])
    graph.add_slot(np.dtype(np.float64), (3,))
    graph.add_slot(np.dtype(np.float64), (3,))
    graph.nodes.append(Node(op, (0,), (1,), {}))
    return graph


def test_primitives_of_the_user_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    table = list(TABLE)
    monkeypatch.setattr(tape_file, "TABLE", table)
    first = nbad.table.add_row(twice_forward, {}, name="twice_of_the_test")
    second = nbad.table.add_row(twice_forward, {}, name="twice_of_the_test")
    TABLE[-2:] = []
    table.append(first)
    content = pack([({}, user_graph(first))])
    assert unpack(content)[0][1].nodes[0].op is first
    table.append(second)
    for attempt in (lambda: unpack(content), lambda: pack([({}, user_graph(first))])):
        with pytest.raises(TapeError, match="several operations are called 'twice_of_the_test'"):
            attempt()
    del table[-2:]
    for attempt in (lambda: unpack(content), lambda: pack([({}, user_graph(first))])):
        with pytest.raises(TapeError, match="no operation is called 'twice_of_the_test'"):
            attempt()


def twice_forward(x: Any) -> Any:
    return 2 * x


# Damage -------------------------------------------------------------------------------------------
def assert_refused(content: bytes) -> None:
    """A damaged file is refused, or says something that is consistent; it takes no memory to find out."""
    tracemalloc.start()
    try:
        loaded = unpack(content)
    except TapeError:
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000_000
    for _, graph in loaded:
        check_avals(graph)


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(seed=st.integers(0, 2**32))
def test_flipped_bytes_are_noticed(content: bytes, seed: int) -> None:
    rng = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    assert_refused(bytes(damaged))


@FUZZ
@given(cut=st.integers(0, 2**20))
@example(cut=0)
@example(cut=1)
def test_cut_files_are_refused(content: bytes, cut: int) -> None:
    with pytest.raises(TapeError):
        unpack(content[: cut % len(content)])


@FUZZ
@given(garbage=st.binary(max_size=400))
def test_garbage_is_refused(garbage: bytes) -> None:
    for content in (garbage, b"PK\x03\x04" + garbage):
        with pytest.raises(TapeError):
            unpack(content)


NUMBERS = st.one_of(st.integers(-3, 40), st.sampled_from([2**31 - 1, -(2**31), 255]))
LARGE = st.sampled_from([2**62, 2**63 - 1, -(2**63), 2**40, 2**33])


@settings(parent=FUZZ, max_examples=200)
@given(data=st.data())
def test_hostile_arrays_never_do_harm(content: bytes, data: st.DataObject) -> None:
    header, arrays = parts(content)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        values = arrays[name]
        what = data.draw(st.sampled_from(["set", "set", "set", "swap", "cut", "append", "other"]))
        if what == "set" and values.size:
            number = data.draw(NUMBERS if values.itemsize < 8 else NUMBERS | LARGE)
            with np.errstate(over="ignore"):
                values[data.draw(st.integers(0, values.size - 1))] = np.int64(number).astype(values.dtype)
        elif what == "swap" and values.size > 1:
            i, j = (data.draw(st.integers(0, values.size - 1)) for _ in range(2))
            values[[i, j]] = values[[j, i]]
        elif what == "cut":
            arrays[name] = values[: data.draw(st.integers(0, values.size))]
        elif what == "append":
            arrays[name] = np.concatenate([values, values[: data.draw(st.integers(0, 3))]])
        elif what == "other":
            arrays[name] = arrays[data.draw(st.sampled_from(sorted(arrays)))]
    assert_refused(write(header, arrays))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(parent=FUZZ, max_examples=60)
@given(value=JSON, data=st.data())
def test_headers_with_something_else_in_them(content: bytes, value: Any, data: st.DataObject) -> None:
    header, arrays = parts(content)
    key = data.draw(st.sampled_from([*sorted(header), ""]))
    if key and isinstance(header[key], list) and data.draw(st.booleans()):
        header[key][data.draw(st.integers(0, len(header[key]) - 1))] = value
    elif key:
        header[key] = value
    else:
        header = value if isinstance(value, dict) else {"graphs": value}
    assert_refused(write(header, arrays))


def raw(text: bytes, arrays: dict[str, Any] | None = None) -> bytes:
    """Return a file with this header, whatever it is."""
    changed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(write({}, arrays or {}))) as source,
        zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            member = source.read(name)
            if name == "header.npy":
                out = io.BytesIO()
                np.lib.format.write_array(out, np.frombuffer(text, np.uint8), version=(1, 0))
                member = out.getvalue()
            target.writestr(name, member)
    return changed.getvalue()


GOOD = (
    b'"format":"nbad tape","version":1,"byteorder":"little","ops":[],"attributes":[],"dtypes":[],"files":[]'
)


def test_a_header_written_by_hand_is_read() -> None:
    assert unpack(raw(b"{" + GOOD + b',"graphs":[]}')) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{" + GOOD + b',"graphs":[{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        b"{" + GOOD + b',"graphs":[],"graphs":[]}',
        b"{" + GOOD + b',"graphs":[],"x":{"a":1,"a":2}}',
        b"{" + GOOD + b',"graphs":[],"x":NaN}',
        b"{" + GOOD + b',"graphs":[],"x":-Infinity}',
        b"{" + GOOD + b',"graphs":[],"x":1e999}',
        b"{" + GOOD + b',"graphs":[],"x":' + b"9" * 10_000 + b"}",
        b"{" + GOOD + b',"graphs":[{}]}',
        b"{" + GOOD + b',"graphs":[3]}',
        b"{" + GOOD + b',"graphs":{}}',
        b"{" + GOOD.replace(b'"version":1', b'"version":2') + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"version":1', b'"version":true') + b',"graphs":[]}',
        b"{" + GOOD.replace(b"little", b"big") + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"ops":[]', b'"ops":["os.system"]') + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"ops":[]', b'"ops":["sin","sin"]') + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"dtypes":[]', b'"dtypes":["|O8"]') + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"dtypes":[]', b'"dtypes":[">f8"]') + b',"graphs":[]}',
        b"{" + GOOD.replace(b'"dtypes":[]', b'"dtypes":["<f99"]') + b',"graphs":[]}',
    ],
    ids=lambda text: str(text[:20] + text[-40:]),
)
def test_headers_written_by_hand_are_refused(text: bytes) -> None:
    with pytest.raises(TapeError):
        unpack(raw(text))


def repacked(content: bytes, change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", how) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return out.getvalue()


def test_archives_that_are_made_to_harm(content: bytes) -> None:
    def as_it_is(name: str, member: bytes) -> bytes:
        return member

    def huge(name: str, member: bytes) -> bytes:
        return member.replace(b"(", b"(9999999999999999", 1)

    def objects(name: str, member: bytes) -> bytes:
        out = io.BytesIO()
        np.save(out, np.array([{}], dtype=object), allow_pickle=True)
        return out.getvalue() if name == "0/op.npy" else member

    assert len(unpack(repacked(content, as_it_is))) == 1
    for damaged in (
        repacked(content, huge),
        repacked(content, objects),
        repacked(content, as_it_is, zipfile.ZIP_DEFLATED),
        repacked(content, lambda name, member: member + b"\0" * 8),
        repacked(content, lambda name, member: b""),
    ):
        with pytest.raises(TapeError):
            unpack(damaged)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.npy", b"\0" * 50_000_000)
    tracemalloc.start()
    with pytest.raises(TapeError):
        unpack(bomb.getvalue())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_with_a_member_too_many(content: bytes) -> None:
    for name in ("0/op.npy", "more.npy", "1/op.npy"):
        out = io.BytesIO(content)
        with zipfile.ZipFile(out, "a") as file:
            file.writestr(name, b"")
        with pytest.raises(TapeError):
            unpack(out.getvalue())


# One wrong number at a time -----------------------------------------------------------------------
WRONG: list[tuple[str, Callable[[dict[str, Any]], None]]] = []


def wrong(message: str) -> Callable[[Callable[[dict[str, Any]], None]], Callable[[dict[str, Any]], None]]:
    def add(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        WRONG.append((message, change))
        return change

    return add


@wrong("reads what nothing has made")
def an_operand_from_later(a: dict[str, Any]) -> None:
    a["edge_slot"][0] = a["out_slot"][-1]


@wrong("makes what exists already")
def an_output_twice(a: dict[str, Any]) -> None:
    a["out_slot"][-1] = a["out_slot"][0]


@wrong("makes what exists already")
def an_output_into_an_input(a: dict[str, Any]) -> None:
    a["out_slot"][0] = 0


@wrong("edge_slot leads outside")
def a_negative_operand(a: dict[str, Any]) -> None:
    a["edge_slot"][0] = -1


@wrong("op leads outside")
def an_opcode(a: dict[str, Any]) -> None:
    a["op"][0] = 1000


@wrong("edge_start does not rise")
def operands_that_go_back(a: dict[str, Any]) -> None:
    a["edge_start"][1] = a["edge_start"][2] + 1


@wrong("operands")
def another_number_of_operands(a: dict[str, Any]) -> None:
    a["edge_start"][1] += 1


@wrong("a shape that no array has")
def a_negative_length(a: dict[str, Any]) -> None:
    a["shape"][0] = -8


@wrong("too large")
def a_huge_length(a: dict[str, Any]) -> None:
    a["shape"][0] = 2**62


@wrong("states|cannot run")
def another_length(a: dict[str, Any]) -> None:
    a["shape"][0] = 9


@wrong("slot_dtype leads outside")
def a_dtype_that_is_not_listed(a: dict[str, Any]) -> None:
    a["slot_dtype"][0] = 200


@wrong("unknown form")
def an_unknown_form(a: dict[str, Any]) -> None:
    a["slot_form"][2] = 7


@wrong("unknown form")
def a_number_with_a_shape(a: dict[str, Any]) -> None:
    a["slot_form"][0] = SCALAR


@wrong("outside of the data")
def a_constant_beyond_the_data(a: dict[str, Any]) -> None:
    a["constant_start"][0] = 64 * 10_000


@wrong("outside of the data")
def a_constant_before_the_data(a: dict[str, Any]) -> None:
    a["constant_start"][0] = -64


@wrong("broadcast where it has no dimension")
def a_broadcast_number(a: dict[str, Any]) -> None:
    a["constant_broadcast"][0] = 2**63


@wrong("differ in length")
def a_constant_without_a_place(a: dict[str, Any]) -> None:
    a["constant_start"] = a["constant_start"][:-1]


@wrong("an input stands twice")
def an_input_twice(a: dict[str, Any]) -> None:
    a["input"][1] = a["input"][0]


@wrong("output that nothing makes|output leads outside")
def an_output_from_nowhere(a: dict[str, Any]) -> None:
    a["output"][0] = 10_000


@wrong("a guard stands before its value")
def a_guard_too_early(a: dict[str, Any]) -> None:
    a["guard_after"][0] = 0


@wrong("several elements")
def the_truth_of_an_array(a: dict[str, Any]) -> None:
    a["guard_slot"][0] = 0


@wrong("line leads outside")
def a_line_that_is_not_listed(a: dict[str, Any]) -> None:
    a["line"][0] = 10_000


@wrong("has no name|has no attribute|is damaged")
def another_attribute(a: dict[str, Any]) -> None:
    a["attr"][0] += 1


@wrong("damaged")
def an_endless_tuple(a: dict[str, Any]) -> None:
    a["attr"][2] = 2**62


@pytest.mark.parametrize(("message", "change"), WRONG, ids=[change.__name__ for _, change in WRONG])
def test_one_wrong_number(content: bytes, message: str, change: Callable[[dict[str, Any]], None]) -> None:
    header, arrays = parts(content)
    plain = {name.removeprefix("0/"): values for name, values in arrays.items()}
    change(plain)
    with pytest.raises(TapeError, match=message):
        unpack(write(header, {f"0/{name}": values for name, values in plain.items()}))


def test_deep_attributes_are_refused() -> None:
    graph = user_graph(ROWS["transpose"])
    deep: Any = ()
    for _ in range(30):
        deep = (deep,)
    graph.nodes[0].attributes["axes"] = deep
    with pytest.raises(TapeError, match="nested too deeply"):
        unpack(pack([({}, graph)]))


def test_attributes_that_an_operation_needs() -> None:
    graph = user_graph(ROWS["transpose"])
    with pytest.raises(TapeError, match="lacks the attributes"):
        unpack(pack([({}, graph)]))


# What operations give -----------------------------------------------------------------------------
def stated(
    name: str, operands: list[Any], dtype: Any, shape: tuple[int, ...], attributes: dict[str, Any]
) -> Graph:
    """Return a graph of one node that states a result."""
    graph = Graph()
    for value in operands:
        graph.inputs.append(graph.add_slot(np.result_type(value), np.shape(value), graphs.form_of(value)))
    graph.outputs.append(graph.add_slot(np.dtype(dtype), shape))
    graph.nodes.append(Node(ROWS[name], tuple(graph.inputs), tuple(graph.outputs), attributes))
    return graph


X = np.ones((4, 1, 6))
QUBITS = np.ones((2,) * 22, np.float32)
FFT = {"axes": (0, 1), "forward": True, "factor": 1.0}
COSINE = {"axes": (0, 2), "kind": 1, "sine": False, "form": "plain", "factor": 1.0}
BOX = {"lengths": (8,), "axes": (2,), "real": True, "out_start": (0,), "out_shape": (8,)}
FILTER = {**BOX, "u_start": (3,), "v_start": (0,), "conj": True}
BY_SPECTRUM = {**BOX, "start": (0,), "how": "x h"}
SEGMENTS = {"axis": 2, "step": 3, "start": -1, "count": 3, "width": 4}
AVALS: list[tuple[str, list[Any], Any, tuple[int, ...], dict[str, Any]]] = [
    ("add", [X, np.ones(6, np.float32)], np.float64, (4, 1, 6), {}),
    ("add", [np.float32(1), np.ones((3, 1), np.float32)], np.float32, (3, 1), {}),
    ("multiply", [np.ones(3, np.float32), 2.0], np.float32, (3,), {}),
    ("multiply", [np.ones(3, np.float32), np.float64(2)], np.float64, (3,), {}),
    ("greater", [X, 1.0], np.bool_, (4, 1, 6), {}),
    ("absolute", [X], np.float64, (4, 1, 6), {}),
    ("complex_absolute", [np.ones(3, np.complex64)], np.float32, (3,), {}),
    ("where", [np.ones((4, 3, 1), np.bool_), X, 1.0], np.float64, (4, 3, 6), {}),
    ("clip", [X, 0.0, 1.0], np.float64, (4, 1, 6), {}),
    ("astype", [X], np.float32, (4, 1, 6), {"dtype": "<f4"}),
    ("sum_all", [X], np.float64, (), {}),
    ("sum", [X], np.float64, (1, 1, 1), {"axis": (0, 1, 2), "dtype": None, "keepdims": True}),
    ("sum", [X], np.float64, (4, 6), {"axis": (1,), "dtype": None, "keepdims": False}),
    ("max", [X], np.float64, (4, 1), {"axis": (2,), "keepdims": False}),
    ("matmul", [np.ones((2, 5, 3)), np.ones((3, 2))], np.float64, (2, 5, 2), {}),
    ("tensordot", [np.ones((2, 3)), np.ones((3, 2))], np.float64, (), {"axes": ((0, 1), (1, 0))}),
    ("getitem", [X], np.float64, (3, 1), {"index": (slice(1, None), Ellipsis, 2)}),
    ("transpose", [X], np.float64, (6, 4, 1), {"axes": (2, 0, 1)}),
    ("broadcast_to", [X], np.float64, (4, 5, 6), {"shape": (4, 5, 6)}),
    ("broadcast_to", [np.ones(())], np.float64, (2**20, 2**16), {"shape": (2**20, 2**16)}),
    ("reshape", [X], np.float64, (3, 8), {"shape": (3, -1)}),
    ("flip", [X], np.float64, (4, 1, 6), {"axis": (0,)}),
    ("diagonal", [np.ones((4, 5))], np.float64, (3,), {"offset": 2, "axis1": 0, "axis2": 1}),
    ("real", [np.ones(3, np.complex64)], np.float32, (3,), {}),
    ("scatter", [np.ones(3)], np.float64, (5,), {"index": (slice(0, 3),), "shape": (5,)}),
    (
        "scatter_add",
        [np.ones(2), np.ones(2, int)],
        np.float64,
        (5,),
        {"template": ("array",), "unique": True, "shape": (5,)},
    ),
    ("vecdot", [X, np.ones(6, np.complex64)], np.complex128, (4, 1), {}),
    ("tensordot", [QUBITS, QUBITS], np.float32, (2, 2), {"axes": (tuple(range(1, 22)), tuple(range(21)))}),
    (
        "sum",
        [QUBITS],
        np.float32,
        (2,) * 11,
        {"axis": tuple(range(0, 22, 2)), "dtype": None, "keepdims": False},
    ),
    ("cumprod", [np.ones((2, 3), np.int8)], np.int64, (2, 3), {"axis": 1}),
    ("recurrence", [X, X], np.float64, (4, 1, 6), {"axis": 2, "reverse": True}),
    ("c2c", [np.ones((2, 3), np.complex64)], np.complex64, (2, 3), FFT),
    ("r2c_full", [np.ones((2, 3), np.float32)], np.complex64, (2, 3), FFT),
    ("c2r_full", [np.ones((2, 3), np.complex64)], np.float32, (2, 3), FFT),
    ("r2c", [np.ones((2, 5))], np.complex128, (2, 3), {"axes": (0, 1), "factor": 1.0, "mirrored": False}),
    (
        "c2r",
        [np.ones((3, 2), np.complex64)],
        np.float32,
        (5, 2),
        {"axes": (0,), "n": 5, "factor": 1.0, "mirrored": True},
    ),
    ("resize", [X], np.float64, (3, 2, 6), {"shape": (3, 2, 6)}),
    ("real_transform", [X], np.float64, (4, 1, 6), COSINE),
    ("filter", [np.ones((3, 1, 5)), np.ones((1, 2, 4))], np.float64, (3, 2, 8), FILTER),
    (
        "filter_by_spectrum",
        [np.ones((3, 1, 5)), np.ones((2, 5), complex)],
        np.float64,
        (3, 2, 8),
        BY_SPECTRUM,
    ),
    (
        "filter_by_spectrum",
        [np.ones((3, 1, 5)), np.ones((2, 5), complex)],
        np.float64,
        (3, 2, 8),
        {**BY_SPECTRUM, "how": "conj(x) h"},
    ),
    ("segments", [X], np.float64, (4, 1, 3, 4), SEGMENTS),
    ("overlap_add", [X], np.float64, (4, 9), {"axis": 1, "step": 2, "start": 0, "length": 9}),
    ("patches", [X, np.ones((7, 2), np.int64)], np.float64, (4, 7, 1, 3), {"shape": (1, 3)}),
    ("patches_add", [X, np.ones((1, 1), np.int64)], np.float64, (4, 9), {"shape": (9,)}),
]


@pytest.mark.parametrize(("name", "operands", "dtype", "shape", "attributes"), AVALS)
def test_results_are_what_operations_give(
    name: str, operands: list[Any], dtype: Any, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    check_avals(stated(name, operands, dtype, shape, attributes))
    other = np.complex128 if dtype is not np.complex128 else np.float64
    longer = (*shape[:-1], shape[-1] + 1) if shape else (2,)
    for false_dtype, false_shape in (
        (other, shape),
        (dtype, longer),
        (dtype, (1, *shape)),
        (dtype, shape[1:] or (7,)),
    ):
        with pytest.raises(TapeError, match=name):
            check_avals(stated(name, operands, false_dtype, false_shape, attributes))


@pytest.mark.parametrize(
    ("name", "operands", "attributes"),
    [
        ("add", [np.ones(3), np.ones(4)], {}),
        ("getitem", [np.ones(3)], {"index": (5,)}),
        ("getitem", [np.ones(3)], {"index": ((0, 1),)}),
        ("getitem", [np.ones(3)], {"index": 1}),
        ("scatter", [np.ones(3)], {"index": (slice(0, 2),), "shape": (5,)}),
        ("scatter", [np.ones(3)], {"index": 0, "shape": (3,)}),
        ("reshape", [np.ones(3)], {"shape": (2, -1)}),
        ("reshape", [np.ones(3)], {"shape": (-1, -1)}),
        ("reshape", [np.ones(0)], {"shape": (0, -1)}),
        ("transpose", [np.ones(3)], {"axes": (0, 0)}),
        ("matmul", [np.ones((2, 3)), np.ones((2, 3))], {}),
        ("c2c", [np.ones((2, 3), complex)], {"axes": (2,), "forward": True, "factor": 1.0}),
        ("c2c", [np.ones((2, 3), complex)], {"axes": (0, 0), "forward": True, "factor": 1.0}),
        ("c2c", [np.ones((2, 3), np.int64)], {"axes": (0,), "forward": True, "factor": 1.0}),
        ("c2r", [np.ones((2, 3), complex)], {"axes": (1,), "n": 8, "factor": 1.0, "mirrored": True}),
        ("c2r", [np.ones((2, 3), complex)], {"axes": (1,), "n": -4, "factor": 1.0, "mirrored": True}),
        ("c2c", [np.ones((2, 3), complex)], {**FFT, "axes": (1, 0)}),
        ("c2c", [np.ones((2, 3), complex)], {**FFT, "factor": "1"}),
        ("resize", [X], {"shape": (4, -1, 6)}),
        (
            "scatter_add",
            [np.ones(2), np.ones(2, int)],
            {"template": ("array",), "unique": True, "shape": (-5,)},
        ),
        ("recurrence", [X, X[:3]], {"axis": 0, "reverse": True}),
        ("recurrence", [X, X], {"axis": 3, "reverse": True}),
        ("real_transform", [X], {**COSINE, "axes": (1,)}),
        ("real_transform", [X], {**COSINE, "kind": 5}),
        ("real_transform", [X], {**COSINE, "form": "other"}),
        ("filter", [np.ones((3, 1, 5)), np.ones((2, 2, 4))], FILTER),
        ("filter", [np.ones((3, 1, 5)), np.ones((2, 4))], FILTER),
        ("filter", [np.ones((3, 1, 5)), np.ones((1, 2, 4), complex)], FILTER),
        ("filter", [np.ones((3, 0, 5)), np.ones((1, 0, 4))], FILTER),
        ("filter_by_spectrum", [np.ones((3, 1, 5)), np.ones((2, 4), complex)], BY_SPECTRUM),
        ("filter_by_spectrum", [np.ones((3, 1, 5)), np.ones((2, 5))], BY_SPECTRUM),
        ("filter_by_spectrum", [np.ones((3, 1, 5)), np.ones((2, 5), complex)], {**BY_SPECTRUM, "how": "h"}),
        (
            "filter_by_spectrum",
            [np.ones((3, 1, 5), np.float32), np.ones((2, 5), complex)],
            {**BY_SPECTRUM, "how": "conj(x) h"},
        ),
        ("segments", [X], {**SEGMENTS, "step": 0}),
        ("segments", [X], {**SEGMENTS, "axis": 3}),
        ("segments", [X], {**SEGMENTS, "width": -1}),
        ("segments", [X], {**SEGMENTS, "step": 1 << 39}),
        ("overlap_add", [X], {"axis": 2, "step": 2, "start": 0, "length": 9}),
        ("patches", [X, np.ones((7, 2))], {"shape": (1, 3)}),
        ("patches", [X, np.ones((7, 1), np.int64)], {"shape": (1, 3)}),
        ("patches", [X, np.ones((7, 2), np.int64)], {"shape": 3}),
        ("patches_add", [X, np.ones((2, 1), np.int64)], {"shape": (9,)}),
        *(
            ("filter", [np.ones((3, 1, 5)), np.ones((1, 2, 4))], {**FILTER, **wrong})
            for wrong in (
                {"u_start": (4,)},
                {"u_start": (-1,)},
                {"v_start": (5,)},
                {"v_start": (0, 0)},
                {"out_start": (1,)},
                {"out_shape": (9,)},
                {"out_shape": (0,)},
                {"lengths": (7,)},
                {"lengths": (1 << 39,)},
                {"axes": (-1,)},
                {"axes": ()},
                {"real": 1},
                {"conj": None},
                {"u_start": 0},
            )
        ),
    ],
)
def test_what_operations_cannot_do(name: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    with pytest.raises(TapeError, match=name):
        check_avals(stated(name, operands, np.float64, (3,), attributes))


def test_guards_of_all_kinds() -> None:
    graph = Graph()
    graph.inputs = [
        graph.add_slot(np.dtype(np.float64), (2,)),
        graph.add_slot(np.dtype(np.float64), (), PYTHON),
    ]
    graph.outputs = [graph.add_constant(np.array([1, 2], np.int16))]
    graph.lines = [("a file.py", 3)]
    graph.guards = [
        Guard(1, "truth", True, 0, 0),
        Guard(0, CONTENTS, np.array([np.nan, -0.0]), -1, 0),
        Guard(1, CONTENTS, np.array(-0.0), 0, 0),
    ]
    assert graph.forms[2] == ARRAY
    assert_equal(graph, unpack(pack([({}, graph)]))[0][1])
