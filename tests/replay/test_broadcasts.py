"""Broadcasts of numbers: the same bits, and arithmetic on the number."""

from typing import Any

import numpy as np
import pytest
from graphs import Building, naive, ops

from nbad.replay.broadcasts import with_late_broadcasts
from nbad.replay.graph import Graph, pruned
from nbad.rules.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, SIN
from nbad.rules.shaping import BROADCAST_TO

X = np.array([[0.0, -0.0, 1.5], [-2.0, np.inf, np.nan]])


def checked(b: Building, *outputs: int) -> Graph:
    """Return the rewritten graph, which computes the same bits in the same form."""
    graph = b.done(*outputs)
    after = pruned(with_late_broadcasts(graph))
    with np.errstate(all="ignore"):
        for one, two in zip(naive(graph, b.inputs()), naive(after, b.inputs()), strict=True):
            assert (type(one), one.dtype, one.shape, one.tobytes()) == (
                type(two),
                two.dtype,
                two.shape,
                two.tobytes(),
            )
    return after


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arithmetic_is_done_on_the_number(dtype: Any) -> None:
    b = Building()
    x, s = b.input(X.astype(dtype)), b.input(dtype(0.3))
    spread = b(BROADCAST_TO, s, shape=(2, 3))
    half = b(NEGATIVE, b(MULTIPLY, b.constant(np.broadcast_to(dtype(0.5), ())), spread))
    after = checked(b, b(DIVIDE, half, x))
    assert ops(after) == ["multiply", "negative", "divide"]
    assert [after.avals[node.outputs[0]][1] for node in after.nodes] == [(), (), (2, 3)]


def test_a_result_keeps_its_shape_and_dtype() -> None:
    b = Building()
    s, weak, row = b.input(np.float64(0.3)), b.input(0.3), b.input(X[:1].astype(np.float32))
    spread = b(BROADCAST_TO, s, shape=(2, 3))
    outputs = [
        b(MULTIPLY, b(BROADCAST_TO, s, shape=(2, 3)), b(BROADCAST_TO, s, shape=(2, 1))),
        b(ADD, row, b(BROADCAST_TO, weak, shape=(1, 3))),  # a Python number would leave it float32
        b(ADD, row, spread),
        b(SIN, spread),  # may have other bits alone than in an array
    ]
    after = checked(b, *outputs)
    assert ops(after) == ["broadcast_to", "multiply", "broadcast_to", "broadcast_to", "add", "add", "sin"]
