"""Sums over axes that are not NumPy's: they have its bits, and are taken where NumPy is slow only."""

import itertools
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.kernels.threads import get_threads, set_threads
from nbad.replay.sums import sum_of

SHAPES = [
    (400, 3), (40, 30, 3), (512, 4), (2000, 7), (7, 300, 2), (3, 5, 7, 11), (5, 7, 11, 3), (33, 32), (4, 3, 200, 31),
    (600, 1, 3), (1200, 2), (1, 1200, 3), (3, 700, 3), (700, 2, 1, 3), (2, 3, 4, 5, 6, 7), (1030, 1, 5), (200, 200, 3),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_are_those_of_numpy(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(len(shape))
    x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 8, shape)).astype(dtype)
    x[rng.random(shape) < 0.2] = -0.0
    x[:, -1:] = -0.0
    taken = 0
    before = get_threads()
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            attributes = {"axis": axes, "dtype": None, "keepdims": False}
            found = sum_of(attributes, (x.dtype, shape), x.dtype)
            if found is None:
                continue
            taken += 1
            expected = np.asarray(np.sum(x, axis=axes))
            for threads in (1, 2):
                set_threads(threads)
                out = np.full_like(expected, np.nan)
                found(out, x)
                assert out.tobytes() == expected.tobytes()
            backwards = x.T.copy().T
            found(out, backwards)
            np.testing.assert_allclose(out, expected, rtol=1e-3)
    set_threads(before)
    assert taken > 0


def test_what_numpy_does_well_or_otherwise_is_left_to_it() -> None:
    double = np.dtype("f8")

    def found(
        shape: tuple[int, ...], axis: tuple[int, ...], given: Any = double, dtype: Any = double
    ) -> bool:
        attributes = {"axis": axis, "dtype": None, "keepdims": False}
        return sum_of(attributes, (np.dtype(given), shape), np.dtype(dtype)) is not None

    assert found((1000, 3), (1,))
    assert not found((1000, 8), (1,))  # eight partial sums
    assert found((1000, 8), (0,))
    assert not found((1000, 33), (0,))
    assert not found((10, 3), (1,))  # small
    assert not found((100, 3, 100, 3), (1, 3))  # not adjacent
    assert not found((1000, 3), (1,), "c16", "c16")
    assert not found((1000, 3), (1,), "f4", "f8")
    assert not found((1000, 3), (1,), "i8", "i8")


def test_distances_of_points_pull_back() -> None:
    def energy(p: Any) -> Any:
        d = p[:, None, :] - p[None, :, :]
        return np.sum(1.0 / (np.sum(d * d, axis=2) + 1.0))

    compiled = nbad.value_and_grad(nbad.compile(energy))
    for seed in range(3):
        p = np.random.default_rng(seed).standard_normal((150, 3))
        value, gradient = compiled(p)
        expected, wanted = nbad.value_and_grad(energy)(p)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-10, atol=1e-10 * np.max(np.abs(wanted)))
