"""Loops of kernels in bounded memory."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.report import report
from nbad.scanning import _SHORTEST


@numba.njit
def grow(x, i, rate):
    return x + rate * x * (1.0 - x) / (1.0 + 0.001 * i)


@numba.njit
def swing(state, push, stiffness):
    x, v = state
    v = v - 0.1 * (stiffness * x - push)
    return x + 0.1 * v, v


@numba.njit
def step(u, i, c):  # a name that the loop might use itself
    new = u.copy()
    for k in range(1, u.size - 1):
        new[k] = u[k] + c[0] * (u[k - 1] - 2 * u[k] + u[k + 1])
    return new


@numba.njit
def in_place(u, i, c):
    for k in range(1, u.size):
        u[k] += c[0] * (u[k - 1] ** 2 - u[k])
    return u


@numba.njit
def hidden(x, i, memory):
    memory[0] += x
    return x + 0.1 * memory[0]


def grow_plainly(rate: Any, n: int) -> Any:
    x = 0.1
    for i in range(n):
        x = grow.py_func(x, i, rate)
    return x


def test_a_scan_agrees_with_the_loop_in_every_order() -> None:
    n = _SHORTEST + 100  # two parts

    def last(rate: Any) -> Any:
        return nbad.scan(grow, 0.1, n, rate)

    x, d, dd = 0.1, 0.0, 0.0
    rate = 1e-3
    for i in range(n):  # derivatives of the recurrence, by hand
        s = 1.0 / (1.0 + 0.001 * i)
        a, b = 1.0 + rate * s * (1.0 - 2.0 * x), s * x * (1.0 - x)
        dd = a * dd - 2.0 * rate * s * d * d + 2.0 * s * (1.0 - 2.0 * x) * d
        d = a * d + b
        x = x + rate * b
    for function in (last, nbad.compile(last)):
        value, gradient = nbad.value_and_grad(function)(rate)
        np.testing.assert_allclose(value, x, rtol=1e-12)
        np.testing.assert_allclose(gradient, d, rtol=1e-10)
    assert nbad.scan(grow, 0.1, n, rate) == value
    np.testing.assert_allclose(nbad.hvp(last)(rate, 1.0), dd, rtol=1e-9)


def test_states_of_tuples_with_an_array_of_inputs() -> None:
    pushes = np.sin(np.arange(50.0))

    def plain(stiffness: Any, pushes: Any) -> Any:
        x, v = 1.0, 0.0
        for i in range(50):
            x, v = swing.py_func((x, v), pushes[i], stiffness)
        return x * v

    def scanned(stiffness: Any, pushes: Any) -> Any:
        x, v = nbad.scan(swing, (1.0, 0.0), pushes, stiffness)
        return x * v

    for found, expected in zip(
        nbad.grad(scanned, (0, 1))(0.3, pushes), nbad.grad(plain, (0, 1))(0.3, pushes), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("one", [step, in_place])
def test_memory_is_that_of_a_part(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbad.scalar import recording

    u, c, n = np.linspace(0.0, 1.0, _SHORTEST // 8) ** 2, np.array([0.2]), 60
    kept = u.copy()

    def loss(u: Any, c: Any) -> Any:
        return np.sum(nbad.scan(one, u, n, c) ** 2)

    live: list[int] = [0]
    made = recording.Tape.finish

    def finish(tape: Any, position: Any) -> None:
        made(tape, position)
        live.append(tape.nbytes)

    monkeypatch.setattr(recording.Tape, "finish", finish)
    with report() as account:
        du, dc = nbad.grad(loss, (0, 1))(u, c)
    np.testing.assert_array_equal(u, kept)
    parts = -(-n // 8)
    assert account.entries >= n * (u.size - 2)
    assert len(live) - 1 in (parts, 2 * parts)
    assert max(live) <= account.entry_bytes / (parts - 1)

    @numba.njit
    def whole(u, c):
        u = u.copy()
        for i in range(n):
            u = one(u, i, c)
        return u

    expected = nbad.grad(lambda u, c: np.sum(nbad.njit(whole)(u, c) ** 2), (0, 1))(u, c)
    np.testing.assert_allclose(du, expected[0], rtol=1e-11)
    np.testing.assert_allclose(dc, expected[1], rtol=1e-11)


def test_a_step_that_hides_its_state_is_refused() -> None:
    with pytest.raises(nbad.DetachError, match="'p0'"):
        nbad.grad(lambda x: nbad.scan(hidden, x, 10, np.zeros(1)))(1.0)
    with pytest.raises(nbad.InputTypeError, match="not a function compiled by numba"):
        nbad.scan(grow.py_func, 0.1, 10, 1.0)


@numba.njit
def looped(rate, n):
    x = 0.1
    for i in range(n):
        x = grow(x, i, rate)
    return x


def test_a_tape_that_is_too_long_names_scan() -> None:
    with nbad.config(tape_limit=1 << 24), pytest.raises(MemoryError, match=r"nbad\.scan"):
        nbad.grad(looped)(1e-3, 10**7)
    found = nbad.grad(looped)(1e-3, 1000)
    assert found == nbad.grad(lambda rate: nbad.scan(grow, 0.1, 1000, rate))(1e-3)
