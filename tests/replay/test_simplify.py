"""Simplification: the same bits with fewer nodes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from graphs import Building, naive, ops

from nbad.replay.graph import ARRAY, PYTHON, SCALAR, Graph, pruned
from nbad.replay.rewrites import REWRITES
from nbad.replay.simplify import simplified
from nbad.rules.contractions import MATMUL
from nbad.rules.elementwise import (
    ADD,
    ASTYPE,
    CONJUGATE,
    COS,
    DIVIDE,
    EXP,
    MULTIPLY,
    NEGATIVE,
    POSITIVE,
    REAL,
    SIN,
    SUBTRACT,
    WHERE,
)
from nbad.rules.indexing import GETITEM
from nbad.rules.reductions import SUM, SUM_ALL
from nbad.rules.shaping import BROADCAST_TO, CONCATENATE, RESHAPE, TRANSPOSE
from nbad.table import operation

ALL = frozenset(REWRITES)
SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 5e-324])


def same(before: Graph, after: Graph, inputs: list[Any]) -> None:
    """Assert that two graphs compute the same bits in the same form."""
    with np.errstate(all="ignore"):
        for a, b in zip(naive(before, inputs), naive(after, inputs), strict=True):
            assert type(a) is type(b)
            assert np.result_type(a) == np.result_type(b)
            assert np.shape(a) == np.shape(b)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def checked(b: Building, *outputs: int, sweep_from: int | None = None) -> Graph:
    """Return the simplified graph, which computes the same bits."""
    graph = b.done(*outputs)
    nodes = list(graph.nodes)
    after = pruned(simplified(graph, ALL, sweep_from))
    assert graph.nodes == nodes
    same(graph, after, b.inputs())
    return after


# What does nothing ----------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_operations_that_change_nothing(dtype: str) -> None:
    b = Building()
    x = b.input(SPECIAL.astype(dtype))
    one, ones = b.constant(1.0), b.constant(np.ones(8, dtype))
    chain = [b(POSITIVE, x)]
    for constant in (one, ones):
        chain += [b(MULTIPLY, chain[-1], constant), b(MULTIPLY, constant, x), b(DIVIDE, chain[-1], constant)]
    chain.append(b(SUBTRACT, chain[-1], b.constant(0.0)))
    chain.append(b(ADD, chain[-1], b.constant(-0.0)))
    chain.append(b(NEGATIVE, b(NEGATIVE, chain[-1])))
    chain.append(b(CONJUGATE, chain[-1]))
    chain.append(b(REAL, chain[-1]))
    chain.append(b(ASTYPE, chain[-1], dtype=np.dtype(dtype).str))
    chain.append(b(RESHAPE, b(RESHAPE, chain[-1], shape=(2, 4)), shape=(8,)))
    chain.append(b(BROADCAST_TO, chain[-1], shape=(8,)))
    after = checked(b, *chain)
    assert ops(after) == []
    assert after.outputs == [x] * len(chain)


def test_operations_that_look_like_it_and_are_not() -> None:
    b = Building()
    x, z, n = b.input(SPECIAL), b.input(SPECIAL * (1 - 2j)), b.input(np.arange(8))
    outputs = [
        b(ADD, x, b.constant(0.0)),  # 0.0 where x is -0.0
        b(SUBTRACT, x, b.constant(-0.0)),
        b(DIVIDE, b.constant(1.0), x),
        b(SUBTRACT, b.constant(0.0), x),
        b(MULTIPLY, x, b.constant(0.0)),  # nan where x is infinite
        b(MULTIPLY, x, b.constant(-1.0)),
        b(MULTIPLY, z, b.constant(1.0)),  # other infinities
        b(MULTIPLY, n, b.constant(1.0)),  # floats of integers
        b(MULTIPLY, x, b.constant(1 + 0j)),
        b(REAL, z),
        b(CONJUGATE, z),
        b(ASTYPE, b(ASTYPE, x, dtype="<f4"), dtype="<f8"),  # two nodes
        b(MULTIPLY, n, b.constant(np.ones(8, np.int64))),  # none: it is so of integers
    ]
    assert len(checked(b, *outputs).nodes) == len(outputs)


def test_ones_that_only_broadcast() -> None:
    b = Building()
    wide = b.constant(np.ones((2, 8)))
    after = checked(b, b(MULTIPLY, b.input(SPECIAL), wide), b(DIVIDE, b.input(np.array(3.0)), wide))
    assert ops(after) == ["broadcast_to", "broadcast_to"]
    assert after.constants == {}


def test_forms_are_told_apart() -> None:
    # A NumPy number is not a 0-d array, nor a Python float: the next promotion, or the caller, sees the difference.
    for value, form in ((2.5, PYTHON), (np.float64(2.5), SCALAR), (np.array(2.5), ARRAY)):
        b = Building()
        x = b.input(value)
        y = b(MULTIPLY, x, b.constant(1.0))
        after = checked(b, y)
        assert (b.graph.forms[x], b.graph.forms[y]) == (form, SCALAR)
        assert len(after.nodes) == (0 if form == SCALAR else 1)


def test_real_and_conjugate_of_complex_values() -> None:
    b = Building()
    z = b.input(SPECIAL * (1 + 2j))
    x = b.input(SPECIAL)
    after = checked(
        b, b(CONJUGATE, b(CONJUGATE, z)), b(REAL, b(CONJUGATE, z)), b(REAL, b(ASTYPE, x, dtype="<c16"))
    )
    assert ops(after) == ["real"]
    assert after.outputs[0] == z
    assert after.outputs[2] == x


@pytest.mark.parametrize("there", ["<f8", "<c8", "<c16", "<f2"])
@pytest.mark.parametrize("back", ["<f4", "<c16"])
def test_casts_of_casts(there: str, back: str) -> None:
    b = Building()
    x = b.input(SPECIAL.astype("f4"))
    y = b(ASTYPE, x, dtype=there)
    if there[1] == "c" and back[1] == "f":
        y = b(REAL, y)
    after = checked(b, b(ASTYPE, y, dtype=back))
    if there == "<f2":  # what is lost there stays lost
        assert ops(after) == ["astype", "astype"]
    else:
        assert ops(after) == ([] if back == "<f4" else ["astype"])


def test_transposes_are_joined() -> None:
    b = Building()
    x = b.input(np.arange(24.0).reshape(2, 3, 4))
    for one, two in itertools.product(itertools.permutations(range(3)), repeat=2):
        y = b(TRANSPOSE, b(TRANSPOSE, x, axes=one), axes=two)
        after = checked(b, y)
        assert len(after.nodes) == (0 if b.values[y].shape == (2, 3, 4) else 1)


def test_reshapes_and_broadcasts_are_joined() -> None:
    b = Building()
    x = b.input(np.arange(6.0))
    y = b(RESHAPE, b(RESHAPE, b(RESHAPE, x, shape=(2, 3)), shape=(3, 2)), shape=(6, 1))
    z = b(BROADCAST_TO, b(BROADCAST_TO, y, shape=(6, 4)), shape=(2, 6, 4))
    assert ops(checked(b, z)) == ["reshape", "broadcast_to"]


# What is equal --------------------------------------------------------------------------------------
def test_what_is_equal_is_computed_once() -> None:
    b = Building()
    x, y = b.input(SPECIAL), b.input(SPECIAL[::-1].copy())
    outputs = [
        b(MULTIPLY, b(SIN, x), y), b(MULTIPLY, b(SIN, x), y), b(MULTIPLY, y, b(SIN, x)),
        b(SUM, x, axis=(0,), dtype=None, keepdims=False), b(SUM, x, axis=(0,), dtype=None, keepdims=False),
        b(MULTIPLY, x, b.constant(2.0)), b(MULTIPLY, x, b.constant(2.0)),
        b(MULTIPLY, x, b.constant(np.full(8, 3.0))), b(MULTIPLY, x, b.constant(np.full(8, 3.0))),
    ]  # fmt: skip
    after = checked(b, *outputs)
    assert ops(after) == ["sin", "multiply", "sum", "multiply", "multiply"]


def test_what_only_looks_equal_is_not() -> None:
    b = Building()
    x, y, z = b.input(SPECIAL), b.input(SPECIAL[::-1].copy()), b.input(SPECIAL.astype(complex))
    outputs = [
        b(SUBTRACT, x, y), b(SUBTRACT, y, x),
        b(SUM, x, axis=(0,), dtype=None, keepdims=True), b(SUM, x, axis=(0,), dtype=None, keepdims=False),
        b(MULTIPLY, x, b.constant(2)), b(MULTIPLY, y, b.constant(2.0)), b(MULTIPLY, y, b.constant(np.float64(2))),
        b(ADD, y, b.constant(0.0)), b(SUBTRACT, y, b.constant(-0.0)),
        b(MULTIPLY, z, b.constant(2j)), b(MULTIPLY, b.constant(2j), z),  # the order of a complex product may show
        b(GETITEM, x, index=(slice(0, 1),)), b(GETITEM, x, index=(slice(0, True),)),
        b(GETITEM, x, index=(np.array([0, 1]),)), b(GETITEM, x, index=(np.array([0, 2]),)),
    ]  # fmt: skip
    assert len(checked(b, *outputs).nodes) == len(outputs)


def noise_forward(x: Any) -> Any:
    """Return the operand; a user may do anything here."""
    return x + 0.0


def test_what_a_user_computes_is_computed_as_often_as_written() -> None:
    op = operation(noise_forward, name="noise")
    op.foreign = True
    b = Building()
    x, one = b.input(SPECIAL), b.constant(np.ones(2))
    assert ops(checked(b, b(op, x), b(op, x), b(op, one))) == ["noise"] * 3


def test_guards_stay_at_their_places() -> None:
    b = Building()
    x = b.input(np.float64(2.0))
    y = b(SIN, x)
    b.guard(y)
    z = b(SIN, x)
    b.guard(z)
    w = b(COS, z)
    graph = b.done(w)
    after = pruned(simplified(graph, ALL))
    same(graph, after, b.inputs())
    assert [(guard.slot, guard.after) for guard in after.guards] == [(y, 1), (y, 1)]
    assert ops(after) == ["sin", "cos"]


# What is constant -----------------------------------------------------------------------------------
def test_constants_are_folded_and_stay_one_number_in_memory() -> None:
    b = Building()
    x = b.input(np.ones((1000, 1000)))
    g = b(BROADCAST_TO, b.constant(np.array(1.0)), shape=(1000, 1000))
    two = b(MULTIPLY, g, b.constant(2.0))
    other = b(TRANSPOSE, b(RESHAPE, b(EXP, two), shape=(10, 100000)), axes=(1, 0))
    dense = b.constant(np.full((1000, 1000), 3.0))
    after = checked(b, b(MULTIPLY, b(ADD, dense, two), x), other)
    assert ops(after) == ["multiply"]
    assert all(np.asarray(value).strides in ((), (0, 0)) for value in after.constants.values())


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16", "i8", "?"])
def test_only_what_is_the_same_to_the_bit_is_one_number(dtype: str) -> None:
    full = np.full((3, 4), 1, dtype)
    spoiled = full.copy()
    spoiled[1, 2] = 0
    for value, repeated in ((full, True), (spoiled, False), (full[:, ::2], True), (full.T, True)):
        b = Building()
        slot = b.constant(value)
        after = simplified(b.done(slot), ALL)
        found = after.constants[after.outputs[0]]
        assert found.dtype == value.dtype
        assert found.tobytes() == value.tobytes()
        assert (found.strides == (0, 0)) == repeated


def test_zeros_of_two_signs_and_nans_are_not_one_number() -> None:
    for value in (np.array([0.0, -0.0, 0.0]), np.array([0j, complex(0, -0.0), 0j]), np.array([np.nan] * 3)):
        b = Building()
        after = simplified(b.done(b.constant(value)), ALL)
        assert after.constants[after.outputs[0]].strides != (0,)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_sums_of_a_number_are_folded_where_the_order_cannot_show(dtype: str) -> None:
    for number, folded in ((1.0, True), (-3.0, True), (0.1, False)):
        b = Building()
        x = b.constant(np.broadcast_to(np.array(number, dtype), (300, 50)))
        outputs = [b(SUM_ALL, x), b(SUM, x, axis=(0,), dtype=None, keepdims=True)]
        after = checked(b, *outputs)
        assert (ops(after) == []) == folded
    b = Building()
    big = b.constant(np.broadcast_to(np.array(2.0**23 + 1, np.float32), (4000,)))
    assert ops(checked(b, b(SUM_ALL, big))) == ["sum_all"]


def test_small_results_are_folded_and_large_ones_are_not() -> None:
    b = Building()
    small, large = b.constant(np.arange(5.0)), b.constant(np.arange(10000.0))
    after = checked(b, b(SIN, small), b(SIN, large), b(SUM_ALL, small), b(SUM_ALL, large))
    assert ops(after) == ["sin", "sum_all"]


def test_what_raises_is_left_to_the_replay() -> None:
    b = Building()
    x = b.constant(np.arange(3.0))
    y = b(GETITEM, x, index=(slice(0, 2),))
    b.graph.nodes[0].attributes["index"] = (7,)
    assert ops(simplified(b.done(y), ALL)) == ["getitem"]


# Zeros in a sweep -----------------------------------------------------------------------------------
def test_zeros_of_a_sweep_end_what_is_linear_in_them() -> None:
    b = Building()
    x, c = b.input(np.arange(4.0) / 3), b.constant(np.array([True, False, True, False]))
    y = b(SIN, x)
    start = len(b.graph.nodes)
    zero = b(MULTIPLY, b(BROADCAST_TO, b.constant(np.array(1.0)), shape=(4,)), b.constant(0.0))
    outputs = [
        b(MULTIPLY, zero, b(COS, x)), b(MULTIPLY, y, zero), b(DIVIDE, zero, b(EXP, x)), b(NEGATIVE, zero),
        b(WHERE, c, zero, b.constant(0.0)), b(MATMUL, zero, x), b(SUM_ALL, zero),
        b(CONCATENATE, zero, b(MULTIPLY, zero, x), axis=0),
    ]  # fmt: skip
    after = checked(b, *outputs, b(ADD, zero, y), b(ADD, y, zero), b(SUBTRACT, y, zero), sweep_from=start)
    assert ops(after) == ["sin"]
    # The same outside of a sweep is arithmetic.
    assert len(pruned(simplified(b.graph, ALL)).nodes) > 6
    assert "multiply" in ops(pruned(simplified(b.graph, ALL - {"zeros"}, start)))


def test_zeros_of_a_sweep_are_zero_times_infinity_too() -> None:
    b = Building()
    x = b.input(SPECIAL)
    y = b(MULTIPLY, x, b.constant(np.zeros(8)))
    graph = b.done(y)
    with np.errstate(invalid="ignore"):
        assert np.isnan(naive(graph, b.inputs())[0]).any()
    after = simplified(graph, ALL, 0)
    assert not naive(after, b.inputs())[0].any()
    assert math.copysign(1, naive(after, b.inputs())[0][1]) == 1


def test_what_is_not_linear_in_a_zero_stays() -> None:
    b = Building()
    x, zero = b.input(np.arange(1.0, 5.0)), b.constant(np.zeros(4))
    outputs = [
        b(DIVIDE, zero, x), b(SUBTRACT, zero, x), b(WHERE, b.constant(np.array([True, False] * 2)), zero, x),
        b(CONCATENATE, zero, x, axis=0),
    ]  # fmt: skip
    assert ops(checked(b, *outputs, sweep_from=0)) == ["subtract", "where", "concatenate"]


@pytest.mark.parametrize("off", sorted({"subexpressions", "constants", "identities"}))
def test_each_can_be_switched_off(off: str) -> None:
    b = Building()
    x = b.input(SPECIAL)
    outputs = [b(SIN, x), b(SIN, x), b(SIN, b.constant(np.ones(3))), b(POSITIVE, x)]
    graph = b.done(*outputs)
    after = pruned(simplified(graph, ALL - {off}))
    same(graph, after, b.inputs())
    left = {"subexpressions": ["sin", "sin"], "constants": ["sin", "sin"], "identities": ["sin", "positive"]}
    assert ops(after) == left[off]
    assert ops(pruned(simplified(graph, ALL))) == ["sin"]
