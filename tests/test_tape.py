"""The typed tape: codec of attributes, growth, freezing, source lines."""

import math
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nbad
from nbad.activity import TABLES
from nbad.errors import RuleError, TapeError
from nbad.table import TABLE, UFUNCS
from nbad.tape import Frozen, Tape, decode, encode, freeze, new_tape
from nbad.trace import Traced

X = np.array([0.5, 1.0, 1.5])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.just(Ellipsis),
)
INDICES = st.one_of(st.none(), st.integers(-(2**70), 2**70))
STATIC = st.recursive(
    SCALARS | st.builds(slice, INDICES, INDICES, INDICES),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Compare static values: types, signs of zeros and NaNs too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


# Attributes ---------------------------------------------------------------------------------------
@given(STATIC)
@example(-0.0)
@example((True, 1, 1.0, 1 + 0j, "1"))
@example("ü€ eight ch")
@example(())
@example(((), (None,), slice(None), Ellipsis))
def test_what_is_encoded_is_decoded(value: Any) -> None:
    words = array("q")
    encode(value, words)
    found, end = decode(words, 0)
    assert same(found, value)
    assert end == len(words)


@given(st.lists(STATIC, max_size=6))
def test_values_stand_one_after_another(values: list[Any]) -> None:
    words = array("q", [7, 7])
    for value in values:
        encode(value, words)
    position = 2
    for value in values:
        found, position = decode(np.frombuffer(words, np.int64), position)
        assert same(found, value)
    assert position == len(words)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([1, [2]], (1, (2,))),
        (np.int32(3), 3),
        (np.float32(0.5), 0.5),
        (np.complex64(1j), 1j),
        (np.bool_(True), True),
        (np.dtype("f4"), "<f4"),
    ],
)
def test_values_that_come_back_as_plain_python(given_: Any, expected: Any) -> None:
    words = array("q")
    encode(given_, words)
    assert same(decode(words, 0)[0], expected)


@pytest.mark.parametrize(
    "value", [np.zeros(2), {1}, {"a": 1}, object(), b"bytes", (1, {2}), slice(None, [np.zeros(1)])]
)
def test_values_that_are_not_static_are_refused(value: Any) -> None:
    with pytest.raises(RuleError, match="attribute"):
        encode(value, array("q"))


@pytest.mark.parametrize("tag", [11, 99, -1])
def test_an_unknown_tag_is_refused(tag: int) -> None:
    with pytest.raises(TapeError, match=f"tag {tag}"):
        decode(array("q", [tag, 0]), 0)


# Growth -------------------------------------------------------------------------------------------
def test_slots_share_their_descriptions() -> None:
    tape = Tape(1)
    f8, f4 = np.dtype("f8"), np.dtype("f4")
    slots = [
        tape.add_slot(f8, (3,)),
        tape.add_slot(f8, (3,)),
        tape.add_slot(f4, (3,)),
        tape.add_slot(f8, (3,)),
    ]
    assert slots == [0, 1, 2, 3]
    assert list(tape.aval) == [0, 0, 1, 0]
    assert tape.avals == [(f8, (3,)), (f4, (3,))]


def test_equal_scalars_are_kept_once_and_signs_of_zero_apart() -> None:
    tape = Tape(1)
    assert tape.add_scalar(2.5) == tape.add_scalar(2.5)
    assert tape.add_scalar(0.0) != tape.add_scalar(-0.0)
    a, b = tape.add_scalar(1), tape.add_scalar(1.0)
    assert tape.objects[a] == tape.objects[b] == 1
    z = tape.add_scalar(1 - 2j)
    at = tape.ref[z] - 1
    assert (tape.scalar[at], tape.scalar[at + 1]) == (1.0, -2.0)
    assert all(tape.ref[slot] % 2 == 1 for slot in (a, b, z))


def test_a_large_value_makes_the_tape_large() -> None:
    tape = Tape(1)
    tape.add_slot(np.dtype("f8"), (1000,))
    assert not tape.big
    tape.add_slot(np.dtype("f8"), (1 << 10, 1 << 10))
    assert tape.big


def test_lines_are_shared_and_found() -> None:
    tape = Tape(1)

    def f() -> int:
        return 1

    code = f.__code__
    first = tape.line_of(code, 0)
    assert tape.line_of(code, 0) == first
    name, number = tape.position(first)
    assert name.endswith("test_tape.py")
    assert code.co_firstlineno <= number <= code.co_firstlineno + 1
    assert tape.position(-1) == ("<unknown>", 0)
    assert tape.position(99) == ("<unknown>", 0)


# Recorded tapes -----------------------------------------------------------------------------------
def record(f: Any, *values: Any) -> Frozen:
    """Record `f` on values that are all asked for."""
    tape = new_tape()
    tape.inputs = len(values)
    traced = [Traced(v, tape.add_slot(np.result_type(v), np.shape(v)), tape) for v in values]
    f(*traced)
    TABLES.cover()
    return freeze(tape, TABLES.arity)


def test_the_layout_of_a_small_tape() -> None:
    frozen = record(lambda x, y: np.sum(np.exp(x) * y), X, X + 1)
    names = [TABLE[code].name for code in frozen.op]
    assert names[:2] == ["exp", "multiply"]
    assert frozen.op.dtype == np.uint16
    assert frozen.edge_start.tolist()[:3] == [0, 1, 3]
    assert frozen.edges(0) == [0]
    assert frozen.edges(1) == [int(frozen.out_start[0]), 1]
    assert frozen.edges(2) == [int(frozen.out_start[1])]
    assert frozen.nodes == 3
    assert frozen.shape(0) == (3,)
    assert frozen.shape(int(frozen.out_start[2])) == ()
    assert frozen.dtype(0) == np.float64
    # exp reads its output, multiply both operands: what is kept is these, by address of the object.
    kept = {slot: frozen.tape.objects[slot] for slot in np.flatnonzero(frozen.ref)}
    assert all(frozen.ref[slot] == id(value) for slot, value in kept.items())
    assert set(kept) == {1, int(frozen.out_start[0])}


def test_constants_that_nothing_reads_leave_no_slot() -> None:
    frozen = record(lambda x: x + X, X)
    assert frozen.edges(0) == [0, -1]
    assert frozen.slots == 2
    assert not frozen.ref.any()


def test_constants_that_a_rule_reads_are_kept() -> None:
    frozen = record(lambda x: x * X * 2.0, X)
    constant = frozen.edges(0)[1]
    assert frozen.tape.objects[constant] is X
    assert constant in frozen.tape.watched
    scalar = frozen.edges(1)[1]
    assert frozen.ref[scalar] % 2 == 1
    assert frozen.scalar[frozen.ref[scalar] - 1] == 2.0


def test_attributes_belong_to_their_node() -> None:
    frozen = record(lambda x: np.reshape(np.sin(np.reshape(x, (3, 1))), (1, 3)), X)
    reshapes = [node for node in range(frozen.nodes) if TABLE[frozen.op[node]].attributes]
    assert len(reshapes) == 2
    assert (3, 1) in frozen.attributes(reshapes[0])
    assert (1, 3) in frozen.attributes(reshapes[1])
    assert frozen.attributes(reshapes[0] + 1) == ()


def test_variadic_nodes_have_their_own_number_of_edges() -> None:
    frozen = record(lambda x, y: np.concatenate([np.sin(x), y, x, X]) * 2.0, X, X)
    node = next(n for n in range(frozen.nodes) if TABLE[frozen.op[n]].variadic)
    assert len(frozen.edges(node)) == 4
    assert frozen.edges(node)[1:3] == [1, 0]


def test_every_node_knows_its_line() -> None:
    def f(x: Any) -> Any:
        y = np.sin(x)  # first
        z = y * x  # second
        return z.sum()  # third

    frozen = record(f, X)
    lines = [frozen.tape.position(int(line)) for line in frozen.tape.line]
    start = f.__code__.co_firstlineno
    assert [number - start for _, number in lines] == [1, 2, 3]
    assert all(name.endswith("test_tape.py") for name, _ in lines)


def test_operations_inside_numpy_bear_the_line_of_the_caller() -> None:
    def f(x: Any) -> Any:
        a = np.mean(x)  # composed of several operations
        return a + np.mean(x * x)

    frozen = record(f, X)
    lines = {frozen.tape.position(int(line)) for line in frozen.tape.line}
    start = f.__code__.co_firstlineno
    assert {number - start for _, number in lines} == {1, 2}


def test_an_empty_tape_freezes() -> None:
    frozen = record(lambda: None)
    assert (frozen.nodes, frozen.slots) == (0, 0)
    assert frozen.edge_start.tolist() == [0]
    assert frozen.tape.closed


def test_a_long_tape_holds_no_object_per_operation() -> None:
    def f(x: Any) -> Any:
        for _ in range(5000):
            x = x + 1.0
        return x

    frozen = record(f, X)
    assert frozen.nodes == 5000
    assert not any(value is not None for value in frozen.tape.objects)
    assert len(frozen.tape.lines) == 1
    assert (frozen.op == UFUNCS[np.add].opcode).all()


def test_inner_tapes_are_of_a_higher_level() -> None:
    assert new_tape().level < new_tape().level


def test_python_scalars_are_slots_of_their_own_kind() -> None:
    value, gradient = nbad.value_and_grad(lambda x, y: x * y + x, (0, 1))(2.0, 3.0)
    assert (value, gradient) == (8.0, (4.0, 2.0))
