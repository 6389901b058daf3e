"""Loads: strided, broadcast, turned and padded operands of runs, on which arithmetic is exact."""

from typing import Any

import numpy as np
import pytest

import nbad
from nbad.kernels.threads import get_threads, set_threads

DTYPES = ["f4", "f8", "c8", "c16", "?", "i4", "i8"]


def replayed(function: Any, *arguments: Any) -> Any:
    """Return the result of a replay, which is the same for one thread and two."""
    compiled = nbad.compile(function)
    compiled(*arguments)
    others = [np.where(x == x, x, x) for x in arguments]
    before = get_threads()
    found = []
    for threads in (1, 2):
        set_threads(threads)
        compiled(*[np.zeros_like(x) for x in others])
        found.append(compiled(*others))
    set_threads(before)
    assert np.asarray(found[0]).tobytes() == np.asarray(found[1]).tobytes()
    return found[0]


def whole(rng: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Return small whole numbers, sums of which are exact."""
    made = rng.integers(0, 2 if dtype == "?" else 9, shape)
    return (made + 1j * rng.integers(0, 9, shape) if dtype[0] == "c" else made).astype(dtype)


# Broadcast --------------------------------------------------------------------------------------------
SHAPES = [
    ((40, 1, 3), (1, 50, 3)), ((200, 1, 3), (1, 201, 3)), ((200, 201, 1), (200, 201, 3)), ((5, 1, 7, 1), (1, 6, 1, 8)),
    ((300, 1), (300, 257)), ((1, 257), (300, 1)), ((2, 1, 9), (2, 4000, 9)), ((2, 4000, 1), (2, 1, 8)),
    ((3, 1, 2, 1, 2), (3, 4, 2, 5, 2)), ((1, 2), (40000, 2)), ((40000, 1), (40000, 2)), ((9,), (4001, 9)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_broadcast_operands(shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: str) -> None:
    rng = np.random.default_rng(len(shapes[0]))
    a, b = (whole(rng, shape, dtype) for shape in shapes)

    def function(a: Any, b: Any) -> Any:
        return (a + 1.0) * 2.0 - b

    np.testing.assert_array_equal(replayed(function, a, b), function(a, b))


# Slices -----------------------------------------------------------------------------------------------
INDICES: list[tuple[tuple[int, ...], Any]] = [
    ((501,), np.s_[::-1]), ((70001,), np.s_[::-1]), ((70001,), np.s_[-3:7:-1]), ((1000,), np.s_[::3]),
    ((1000,), np.s_[900::-7]), ((60, 61), np.s_[::-1, 2:]), ((301, 202), np.s_[:, ::-1]), ((301, 202), np.s_[-2::-1, 200:3:-1]),
    ((9, 300, 40), np.s_[3, ::-1]), ((9, 300, 40), np.s_[::-1, 5:-5, ::-1]), ((30, 4, 5), np.s_[..., ::-1]),
    ((40, 50), np.s_[::-2, None, 1:]), ((300, 200), np.s_[250:20:-1, None, 7]), ((2, 3), np.s_[:0:-1, ::-1]),
    ((64, 300, 3), np.s_[:, 1:, ::-1]),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize(("shape", "index"), INDICES)
def test_the_pull_of_a_slice_goes_where_the_slice_was(shape: tuple[int, ...], index: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    x, y = whole(rng, shape, dtype), whole(rng, shape, dtype)
    g = whole(rng, x[index].shape, dtype)

    def function(x: Any, y: Any) -> Any:
        return np.real(np.sum(x[index] * g) + np.sum(y * x))

    def pull(x: Any, y: Any) -> Any:
        return nbad.grad(function)(x, y)

    expected = np.zeros(shape, dtype)
    expected[index] = g.conj()
    expected += y.conj()
    found = replayed(pull, x, y)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_overlapping_slices_of_all_directions_add_up(dtype: str) -> None:
    x = whole(np.random.default_rng(0), (211, 190), dtype)

    def function(x: Any) -> Any:
        turned, inner = x[::-1, ::-1], x[1:-1, 1:-1]
        return np.sum(turned * x) + np.sum(inner * x[2:, -2:0:-1]) + np.sum(x[:, 3] * x[:, -1])

    def pull(x: Any) -> Any:
        return nbad.grad(function)(x)

    np.testing.assert_array_equal(replayed(pull, x), nbad.grad(function)(x))


# Powers -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("power", [3, 4, 3.0, 4.0])
def test_third_and_fourth_powers_are_products(power: float, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(40000) * 10.0 ** rng.integers(-4, 6, 40000)
    x = (x + 1j * rng.standard_normal(40000) if dtype[0] == "c" else x).astype(dtype)

    def function(x: Any) -> Any:
        return x**power

    np.testing.assert_allclose(replayed(function, x), function(x), rtol=5 * np.finfo(dtype).eps)
    if dtype[0] == "f":
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0] * 4, dtype)
        np.testing.assert_array_equal(replayed(function, special), function(special))
        signs = np.signbit(replayed(function, special)[:4]), np.signbit(function(special)[:4])
        np.testing.assert_array_equal(*signs)
