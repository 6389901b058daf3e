"""The adjoints of kernels: how much memory they take, and the same bits in pages as in a row."""

from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.report import report
from nbad.scalar import adjoints, recording
from nbad.scalar.adjoints import PAGE
from nbad.scalar.entries import (
    CHUNK,
    LAST,
    WORD,
    allocate,
    begin,
    end_entry,
    free,
    load_word,
    reserve,
    store_word,
)
from nbad.scalar.sweeping import Tape


@numba.njit
def logistic(x, rate, steps):
    for _ in range(steps):
        x = rate * x * (1.0 - x)
    return x


@numba.njit
def smoothed(u, steps):
    here = u.copy()
    for _ in range(steps):
        left = here[0]
        for i in range(1, here.size - 1):
            centre = here[i]
            here[i] = 0.25 * left + 0.5 * centre + 0.25 * here[i + 1]
            left = centre
    return here[here.size // 2] ** 2


@numba.njit
def spread(x, n):
    a = np.empty(n)
    for i in range(n):
        a[i] = x * i
    return np.sum(a * a)


@numba.njit
def mixed(x, places, steps):
    """Return something of a loop, a gather far back, a branch, a dot product and a Fourier transform."""
    a = np.empty(steps)
    last = x[0]
    for i in range(steps):
        last = np.sin(last) * x[i % x.size]
        if i > 0 and last > 0.1:
            last += 0.5 * a[places[i] % i]
        a[i] = last
    spectrum = np.fft.rfft(a)
    return np.dot(a, a) + abs(spectrum[1]) + np.sum(a[::3]) * last


@numba.njit
def dropped(x, steps):
    """Return 0 times a square root at 0, whose partial derivative is infinite, and something that nobody reads."""
    total = 0.0
    for i in range(steps):
        root = np.sqrt(x[i % x.size])
        unread = root * total
        total += 0.0 * root if i % 2 else unread * 0.0
    return total


def adjoint_bytes(function: Any, *args: Any) -> tuple[int, int]:
    """Return bytes of adjoints, and the number of entries."""
    with report() as account:
        nbad.grad(function)(*args)
    return account.adjoint_bytes, account.entries


def table_bytes(entries: int) -> int:
    return 8 * (2 + entries // PAGE)


def test_a_long_recurrence_has_a_few_pages_of_adjoints() -> None:
    found, entries = adjoint_bytes(logistic, 0.3, 3.2, 300_000)
    assert entries == 300_000
    least = 2 * 8 * PAGE  # the page of the inputs, and the one at which the sweep is
    assert least <= found - table_bytes(entries) <= least + 3 * 8 * PAGE


def test_a_loop_over_an_array_has_the_adjoints_of_its_state() -> None:
    n, steps = 4000, 60
    u = np.random.default_rng(1).random(n)
    found, entries = adjoint_bytes(smoothed, u, steps)
    assert entries >= steps * (n - 2)
    live = -(-2 * n // PAGE) + 2
    inputs = 1 + n // PAGE
    assert found - table_bytes(entries) <= (inputs + 2 * live) * 8 * PAGE  # pages are provided twofold


def test_adjoints_that_all_live_take_eight_bytes_each() -> None:
    found, entries = adjoint_bytes(spread, 0.5, 200_000)
    assert entries >= 200_000
    assert 8 * 200_000 <= found <= 8 * (entries + 2 * PAGE) + table_bytes(entries)


@pytest.mark.parametrize("lanes", ["one", "two"])
def test_pages_give_the_bits_of_a_row(monkeypatch: pytest.MonkeyPatch, lanes: str) -> None:
    rng = np.random.default_rng(2)
    x, v = 0.5 + rng.random(700), rng.normal(size=700)
    places = rng.integers(0, 1 << 30, 3000)
    zeros = np.zeros(3)

    def run() -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            if lanes == "two":
                return [nbad.hvp(mixed)(x, places, 3000, v)]
            return [nbad.grad(mixed)(x, places, 3000), nbad.grad(dropped)(zeros, 2000)]

    monkeypatch.setattr(adjoints, "SHORT", 1 << 40)
    expected = run()
    monkeypatch.setattr(adjoints, "SHORT", -1)
    for one, other in zip(run(), expected, strict=True):
        np.testing.assert_array_equal(one.view(np.int64), other.view(np.int64))
    if lanes == "one":
        assert np.isfinite(expected[0]).all()
        assert np.isnan(expected[1]).all()  # a zero that was reached hides no infinity


@numba.njit
def squared(x, places):
    """Return what becomes of a number that is squared again and again, by two readings of an array that are one number."""
    a = np.empty(places.size + 1)
    a[0] = x
    for i in range(places.size):
        a[i + 1] = a[i] * a[places[i]]
    return a[places.size]


@pytest.mark.parametrize("short", [1 << 40, -1])
def test_both_pairs_of_an_entry_may_be_the_number_before(monkeypatch: pytest.MonkeyPatch, short: int) -> None:
    monkeypatch.setattr(adjoints, "SHORT", short)
    with report() as account:
        found = nbad.grad(squared)(1.0, np.arange(1020))
    assert found == 2.0**1020
    assert account.entries == 1020
    places = np.arange(1020)
    places[::2] = 0  # the first number, a page below
    assert nbad.grad(squared)(1.0, places) == squared_count(places)


def squared_count(places: np.ndarray) -> float:
    counts = [1.0]
    for i, k in enumerate(places):
        counts.append(counts[i] + counts[k])
    return counts[-1]


@numba.njit
def unsigned(number):
    """Write a number to the tape and read it."""
    at = allocate(WORD)
    store_word(at, number)
    found = load_word(at)
    free(at)
    return found


@numba.njit
def filled(chunk, count):
    """Write short entries from an index on, more than a chunk has."""
    begin(chunk, CHUNK, count)
    for _ in range(CHUNK // 16):
        end_entry(reserve(16) + 16)


def test_indices_have_no_sign_and_a_tape_does_not_outgrow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unsigned(2**32 - 1) == 2**32 - 1
    with pytest.raises(MemoryError, match="has more numbers"):
        filled(Tape(1).first, LAST)
    monkeypatch.setattr(recording, "LAST", 2)
    with pytest.raises(MemoryError, match=r"smoothed is larger than .* 2\*\*32 numbers"):
        nbad.grad(smoothed)(np.ones(3), 1)


@numba.njit
def weighted(x, scale, u):
    total = scale * 1.0
    for i in range(u.size):
        total += scale * x * u[i] * u[i]
    return total


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("wrt", [0, (0,), (2, 0)])
def test_positions_of_plain_arguments_answer_as_names_do(wrt: Any, dtype: Any) -> None:
    u = np.arange(1.0, 4.0).astype(dtype)
    x = np.float32(0.5) if dtype == np.float32 else 0.5
    names = tuple(("x", "scale", "u")[k] for k in wrt) if isinstance(wrt, tuple) else "x"
    found = nbad.value_and_grad(weighted, wrt)(x, 2.0, u)
    expected = nbad.value_and_grad(weighted, names)(x, scale=2.0, u=u)
    assert found[0] == expected[0]
    assert type(found[1]) is type(expected[1])
    pairs = zip(found[1], expected[1], strict=True) if isinstance(wrt, tuple) else [(found[1], expected[1])]
    for one, other in pairs:
        assert type(one) is type(other)
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


def test_a_position_that_has_no_derivative_is_refused() -> None:
    with pytest.raises(nbad.InputTypeError, match=r"grad: .*steps"):
        nbad.grad(logistic, 2)(0.3, 3.2, 5)
    with pytest.raises(nbad.WrtError, match="no argument at position 3"):
        nbad.grad(logistic, (0, 3))(0.3, 3.2, 5)
