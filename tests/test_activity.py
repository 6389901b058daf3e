"""What is needed and what is read, against a slow reference in plain Python on random programs."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbad
from nbad.activity import TABLES, Activity, kept_bytes, release_unread
from nbad.table import TABLE, Op
from nbad.tape import Frozen, freeze, new_tape
from nbad.trace import Traced

X = np.array([0.5, 1.0, 1.5])


def half_a(g, s_a):
    return g * s_a


def half_c(g, s_ac, y):
    return g * s_ac + 0.0 * y


def s_a(a):
    return np.cos(a)


def s_ac(a, c):
    return np.cos(a) * c


@nbad.primitive(shared={"s_a": s_a, "s_ac": s_ac}, a=half_a, b=None, c=half_c)
def partly(a, b, c):
    return np.sin(a) + b + c


def pair_x(g, z):
    return z * sum(member for member in g if member is not None)


def pair_z(g, g_sum, x):
    return g_sum * x


def g_sum(g):
    return sum(member for member in g if member is not None)


@nbad.primitive(outputs=2, shared={"g_sum": g_sum}, x=pair_x, z=pair_z)
def pair(x, z):
    return x * z, x * z + 1.0


def many_xs(g, k, others):
    return g * sum(0.1 * other for other in others if other is not None)


@nbad.primitive(xs=many_xs)
def many(*xs):
    return sum(xs)


def step(draw: Any, values: list[Any]) -> list[Any]:
    """Append the results of one random operation."""
    pick = [draw(st.sampled_from(values)) for _ in range(4)]
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return [np.sin(pick[0])]
    if kind == 1:
        return [np.exp(-(pick[0] * pick[0]))]
    if kind == 2:
        return [pick[0] + pick[1]]
    if kind == 3:
        return [pick[0] * pick[1]]
    if kind == 4:
        return [pick[0] * X]
    if kind == 5:
        return [np.where(X > 1.0, pick[0], pick[1])]
    if kind == 6:
        return [partly(pick[0], pick[1], pick[2])]
    if kind == 7:
        return list(pair(pick[0], pick[1]))
    if kind == 8:
        return [many(*pick[: draw(st.integers(1, 4))])]
    return [nbad.stop_gradient(pick[0]) + 0.0, np.floor(pick[1])]


def reads_of(op: Op, k: int, count: int) -> tuple[set[int], bool, set[int]]:
    """Return what the pullback of operand k reads: operands, whether the output, hidden shared values."""
    operands: set[int] = set()
    hidden: set[int] = set()
    output = False
    pullback = op.pullbacks[0 if op.variadic else k]
    assert pullback is not None
    todo = list(pullback.reads)
    while todo:
        read = todo.pop()
        if read.kind == "operand":
            operands.add(read.index)
        elif read.kind == "operands":
            operands |= set(range(count))
        elif read.kind == "others":
            operands |= set(range(count)) - {k}
        elif read.kind == "y":
            output = True
        elif read.kind == "shared":
            shared = op.shared[read.index]
            if shared.at_forward:
                hidden.add(op.hidden.index(read.index))
            else:
                todo += shared.reads
    return operands, output, hidden


def reference(frozen: Frozen, asked: list[int], outputs: list[int]) -> tuple[set[int], set[int]]:
    """Return (needed edges, slots that they read) by sets."""
    varied = set(asked)
    for node in range(frozen.nodes):
        op = TABLE[frozen.op[node]]
        edges = frozen.edges(node)
        if any(
            s in varied and op.pullbacks[0 if op.variadic else k] is not None for k, s in enumerate(edges)
        ):
            out = int(frozen.out_start[node])
            varied |= set(range(out, out + op.outputs))
    useful = set(outputs)
    needed: set[int] = set()
    read: set[int] = set()
    for node in reversed(range(frozen.nodes)):
        op = TABLE[frozen.op[node]]
        edges = frozen.edges(node)
        out = int(frozen.out_start[node])
        outs = set(range(out, out + op.outputs))
        if not outs & useful:
            continue
        for k, slot in enumerate(edges):
            if slot not in varied or op.pullbacks[0 if op.variadic else k] is None:
                continue
            needed.add(int(frozen.edge_start[node]) + k)
            useful.add(slot)
            operands, output, hidden = reads_of(op, k, len(edges))
            read |= {edges[j] for j in operands if edges[j] >= 0}
            read |= outs if output else set()
            read |= {out + op.outputs + place for place in hidden}
    return needed, read


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_programs(data: Any) -> None:
    count = data.draw(st.integers(1, 3))
    tape = new_tape()
    tape.inputs = count
    values: list[Any] = [Traced(X + i, tape.add_slot(X.dtype, X.shape), tape) for i in range(count)]
    for _ in range(data.draw(st.integers(0, 14))):
        values += step(data.draw, values)
    traced = [v._slot for v in values if type(v) is Traced]
    # The recording asks for all inputs; the pass may be told of fewer.
    asked = sorted(data.draw(st.sets(st.integers(0, count - 1))))
    outputs = sorted(data.draw(st.sets(st.sampled_from(traced), max_size=3)))
    TABLES.cover()
    frozen = freeze(tape, TABLES.arity)
    activity = Activity(frozen, asked, outputs)
    needed, read = reference(frozen, asked, outputs)
    bits = {e for e in range(frozen.edge_slot.size) if int(activity.needs[e >> 6]) >> (e & 63) & 1}
    assert bits == needed
    for node in range(frozen.nodes):
        first = int(frozen.edge_start[node])
        assert activity.asked(frozen, node) == sorted(
            e - first for e in needed if 0 <= e - first < len(frozen.edges(node))
        )
    assert set(np.flatnonzero(activity.read).tolist()) == read
    # What is read was kept, or is a plain value that the rule gets as None.
    assert all(frozen.ref[slot] or frozen.tape.objects[slot] is None for slot in read)
    release_unread(frozen, activity)
    held = {slot for slot, value in enumerate(frozen.tape.objects) if value is not None}
    assert held <= read


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_as_many_pullbacks_run_as_there_are_bits(data: Any) -> None:
    drawn: list[Any] = []

    def draw(strategy: Any) -> Any:
        drawn.append(data.draw(strategy))
        return drawn[-1]

    bits = []

    def f(x: Any, y: Any) -> Any:
        values = [x, y]
        for _ in range(8):
            values += [v for v in step(draw, values) if type(v) is Traced] or [x]
        bits.append(values[-1]._tape)
        return np.sum(values[-1])

    with nbad.report() as account:
        nbad.grad(f)(X, X + 1.0)
    frozen = freeze(bits[0], TABLES.arity)
    needed, _ = reference(frozen, [0], [frozen.out_start[-1]] if frozen.nodes else [])
    assert account.pullbacks == len(needed)


def test_reads_are_exact_for_ops_of_few_operands() -> None:
    # One asked-for operand, one kept value: the pullback of a reads b, and b's reads a.
    for asked, expected in ((0, 1), (1, 0)):
        tape = new_tape()
        tape.inputs = 2
        a, b = (Traced(X + i, tape.add_slot(X.dtype, X.shape), tape) for i in range(2))
        product = a * b
        TABLES.cover()
        frozen = freeze(tape, TABLES.arity)
        activity = Activity(frozen, [asked], [product._slot])
        assert np.flatnonzero(activity.read).tolist() == [expected]
        assert activity.asked(frozen, 0) == [asked]


def test_more_edges_than_a_word_has_bits() -> None:
    tape = new_tape()
    tape.inputs = 2
    x, y = (Traced(X, tape.add_slot(X.dtype, X.shape), tape) for _ in range(2))
    for i in range(200):
        x = x * y if i % 3 else x + 1.0
    TABLES.cover()
    frozen = freeze(tape, TABLES.arity)
    for asked in ([0], [1], [0, 1]):
        activity = Activity(frozen, asked, [x._slot])
        needed, _ = reference(frozen, asked, [x._slot])
        found = {e for e in range(frozen.edge_slot.size) if int(activity.needs[e >> 6]) >> (e & 63) & 1}
        assert found == needed
        assert len(found) > 64


def test_nothing_asked_or_nothing_wanted_needs_nothing() -> None:
    tape = new_tape()
    tape.inputs = 1
    x = Traced(X, tape.add_slot(X.dtype, X.shape), tape)
    y = np.sin(x)
    TABLES.cover()
    frozen = freeze(tape, TABLES.arity)
    assert not Activity(frozen, [], [y._slot]).needs.any()
    assert not Activity(frozen, [0], []).needs.any()
    assert Activity(frozen, [0], [y._slot]).needs.any()


def test_an_empty_tape() -> None:
    tape = new_tape()
    frozen = freeze(tape, TABLES.arity)
    activity = Activity(frozen, [], [])
    assert not activity.needs.any()
    assert kept_bytes(frozen) == (0, 0)


# Values that nothing reads ------------------------------------------------------------------------
@pytest.mark.parametrize("keep", [True, False])
def test_a_value_dies_unless_a_needed_pullback_reads_it(keep: bool) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def f(x: Any) -> Any:
        y = np.exp(x)  # its pullback reads y
        alive.append(weakref.ref(y._value))
        return np.sum(y) if keep else np.sum(x)

    _, pullback = nbad.vjp(f, X)
    gc.collect()
    assert (alive[0]() is not None) == keep
    pullback(1.0)
    assert (alive[0]() is not None) == keep
    del pullback
    gc.collect()
    assert alive[0]() is None


def test_a_value_that_no_pullback_could_read_dies_while_recording() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def f(x: Any) -> Any:
        y = x + 1.0
        alive.append(weakref.ref(y._value))
        z = y - 2.0
        del y
        assert alive[0]() is None
        return np.sum(z)

    np.testing.assert_array_equal(nbad.grad(f)(X), np.ones(3))
    assert len(alive) == 1


def test_kept_values_are_no_longer_watched_when_nothing_reads_them() -> None:
    c = X.copy()

    def f(x: Any, y: Any) -> Any:
        unused = y * c
        c[0] = 9.0
        return np.sum(x * 2.0) + 0.0 * len(unused)

    np.testing.assert_array_equal(nbad.grad(f, (0, 1))(X, X)[0], np.full(3, 2.0))


def test_bytes_of_kept_values() -> None:
    tape = new_tape()
    tape.inputs = 1
    x = Traced(X, tape.add_slot(X.dtype, X.shape), tape)
    y = np.exp(x) * X * 2.0
    TABLES.cover()
    frozen = freeze(tape, TABLES.arity)
    release_unread(frozen, Activity(frozen, [0], [y._slot]))
    assert kept_bytes(frozen) == (X.nbytes, X.nbytes)  # exp(x) is ours, X the caller's


def test_the_tables_grow_with_the_table() -> None:
    def rule(g):
        return g

    before = TABLES.arity.size

    @nbad.primitive(a=rule, c=rule)
    def fresh(a, b, c):
        return a + b + c

    TABLES.cover()
    assert TABLES.arity.size == len(TABLE) > before
    assert TABLES.arity[fresh.op.opcode] == 3
    assert TABLES.differentiable[fresh.op.opcode] == 0b101
    assert TABLES.outputs[fresh.op.opcode] == 1
    sizes = {
        TABLES.outputs.size,
        TABLES.hidden.size,
        TABLES.native.size,
        TABLES.differentiable.size,
        TABLES.reads.size // 8,
    }
    assert sizes == {len(TABLE)}
