"""Writes in a replay: the array is copied once, and never where anybody could see it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.errors import TapeError
from nbad.replay import into, lowering
from nbad.replay.graph import Graph, Node
from nbad.rules.updating import WRITE
from nbad.tape_file import pack, unpack

ROWS, COLUMNS = 12, 2000
X = np.random.default_rng(0).standard_normal((ROWS, COLUMNS))


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the bytes of each whole array that a replay copies before a write."""
    found: list[int] = []
    bring = into.bring

    def counted(out: Any, x: Any) -> None:
        found.append(out.nbytes)
        bring(out, x)

    monkeypatch.setattr(into, "bring", counted)
    return found


def rows(x: Any) -> Any:
    y = np.zeros_like(x)
    for k in range(ROWS):
        y[k] = np.sin(x[k]) * 2
    return np.sum(y**2)


def recurrence(x: Any) -> Any:
    y = np.zeros_like(x)
    y[0] = x[0]
    for k in range(1, ROWS):
        y[k] = np.tanh(0.9 * y[k - 1] + x[k])
    return np.sum(y**2)


def added(x: Any) -> Any:
    y = x * 1.0
    place = np.array([0, 0, 2])
    for k in range(4):
        np.add.at(y, place + k, x[k : k + 3] ** 2)
        y[place + 1] = x[:3]
    return np.sum(y**3)


def through_views(x: Any) -> Any:
    y = x * 1.0
    y.T[0] = x[:, 1]
    y[::2][1:][0] = x[0]
    y.reshape(-1)[5:9] = 1.0
    return np.sum(y**2)


@pytest.mark.parametrize("function", [rows, recurrence, added, through_views])
def test_an_array_is_copied_once(function: Callable[[Any], Any], copied: list[int]) -> None:
    compiled = nbad.compile(function)
    for _ in range(3):
        nbad.grad(compiled)(X)
        compiled(X)
    for make in (nbad.grad, lambda f: f):
        copied.clear()
        found = make(compiled)(X + 0.1)
        assert sum(copied) <= X.nbytes  # least: one, where the first array is a constant or is read again
        np.testing.assert_allclose(found, make(function)(X + 0.1), rtol=1e-9, atol=1e-9)


def test_what_is_read_afterwards_is_not_changed(copied: list[int]) -> None:
    def function(x: Any) -> Any:
        y = x * 2
        before = y * 1.0
        y[0] = 1.0
        between = np.sum(y**3)
        y[1:] = y[:-1]  # reads what it writes
        return before, between, y

    compiled = nbad.compile(function)
    for k in range(4):
        found, expected = compiled(X + k), function(X + k)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert copied


def test_what_does_not_change_is_not_overwritten() -> None:
    def function(a: Any, b: Any) -> Any:
        y = np.tanh(a) * 2  # made once, while `a` stays
        y[0] = b[0]
        y[1] += b[1]
        return np.sum(y * b)

    compiled = nbad.grad(nbad.compile(function), 1)
    for k in range(5):
        b = X + 0.1 * k
        np.testing.assert_allclose(compiled(X, b), nbad.grad(function, (0, 1))(X, b)[1], rtol=1e-9)


def random_program(seed: int) -> Callable[[Any, Any], Any]:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 9, rng.integers(3, 9))
    chosen, factors = rng.integers(0, 4, (9, 2)), rng.uniform(-1, 1, 9)

    def function(a: Any, b: Any) -> Any:
        arrays = [np.tanh(a) * 1.5, np.zeros_like(a), a * b]
        for kind, (j, i), factor in zip(kinds, chosen, factors, strict=False):
            y, z = arrays[j % 3], arrays[i % 3]
            if kind == 0:
                y[i] = np.sin(z[i + 1]) * factor
            elif kind == 1:
                y[i : i + 2] += b[i : i + 2] * z[i + 1 : i + 3]
            elif kind == 2:
                y[1:] = y[:-1] * factor
            elif kind == 3:
                np.add.at(y, np.array([0, i, i]), z[:3] * factor)
            elif kind == 4:
                y.T[0] = b[:, 1] * z[:, 0]
            elif kind == 5:
                y[np.array([i, 4])] = b[:2]
            elif kind == 6:
                y *= z + 1.0
            elif kind == 7:
                arrays[j % 3] = np.cos(y) * b
            else:
                y.reshape(-1)[3 * i : 3 * i + 4] = a[0, :1] * factor
        return np.sum(arrays[0] ** 2) + np.sum(np.sin(arrays[1])) + np.sum(arrays[2] * arrays[0])

    return function


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "_LARGE", 0)
    function = random_program(seed)
    a, b = np.random.default_rng(seed).standard_normal((2, 6, 5))
    compiled = nbad.compile(function)
    for wrt in ((0, 1), (0,), (1,)):
        for k in range(5):
            a, b = (a - 0.05 if k == 3 else a), (b + 0.1 if k % 2 else b)
            value, found = nbad.value_and_grad(compiled, wrt)(a, b)
            expected, gradients = nbad.value_and_grad(function, (0, 1))(a, b)
            np.testing.assert_allclose(value, expected, rtol=1e-9)
            for at, gradient in zip(wrt, found, strict=True):
                np.testing.assert_allclose(gradient, gradients[at], rtol=1e-8, atol=1e-9)


def test_a_write_states_what_it_is_given() -> None:
    graph = Graph(inputs=[0, 1], outputs=[2])
    for shape in ((4,), (), (400,)):
        graph.add_slot(np.dtype(np.float64), shape)
    graph.nodes.append(Node(WRITE, (0, 1), (2,), {"path": (), "index": (0,)}))
    with pytest.raises(TapeError, match="write states"):
        unpack(pack([({}, graph)]))
