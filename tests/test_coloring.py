"""Colourings: right for any pattern, few for those that people have."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbad.coloring import color_columns, color_symmetric


def compressed(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = np.concatenate([[0], np.cumsum(matrix.sum(1))]).astype(np.int64)
    return start, np.nonzero(matrix)[1].astype(np.int64)


def columns_of(matrix: np.ndarray) -> np.ndarray:
    return color_columns(*compressed(matrix), *compressed(np.ascontiguousarray(matrix.T)))


def random_pattern(m: int, n: int, density: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((m, n)) < density


patterns = st.builds(
    random_pattern, st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.1, 0.3, 0.8, 1.0]), st.integers(0, 999)
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(matrix=patterns)
def test_columns_of_a_colour_share_no_row(matrix: np.ndarray) -> None:
    colors = columns_of(matrix)
    assert colors.shape == (matrix.shape[1],)
    assert colors.min(initial=0) == 0
    for color in range(int(colors.max(initial=-1)) + 1):
        assert (colors == color).any()
        assert matrix[:, colors == color].sum(1).max(initial=0) <= 1


def alone(matrix: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return where an entry is the only one of its row and colour."""
    count = int(colors.max(initial=-1)) + 1
    summed = matrix.astype(int) @ np.eye(count, dtype=int)[colors]
    return matrix & (summed[:, colors] == 1)


@settings(deadline=None, max_examples=300)
@given(n=st.integers(0, 14), density=st.sampled_from([0.05, 0.15, 0.4, 1.0]), seed=st.integers(0, 9999))
def test_each_entry_of_a_symmetric_matrix_can_be_read(n: int, density: float, seed: int) -> None:
    matrix = random_pattern(n, n, density, seed)
    matrix |= matrix.T
    colors = color_symmetric(*compressed(matrix))
    readable = alone(matrix, colors)
    np.testing.assert_array_equal(readable | readable.T, matrix)


@pytest.mark.parametrize("width", [0, 1, 2, 5])
def test_a_band_takes_its_width(width: int) -> None:
    matrix = np.abs(np.subtract.outer(np.arange(60), np.arange(60))) <= width
    assert columns_of(matrix).max() == 2 * width  # from 0; no fewer are possible


def colors_of_symmetric(matrix: np.ndarray) -> int:
    return int(color_symmetric(*compressed(matrix)).max()) + 1


@pytest.mark.parametrize("place", [0, 20, 59])
def test_an_arrow_takes_two_colours(place: int) -> None:
    matrix = np.eye(60, dtype=bool)
    matrix[place] = matrix[:, place] = True
    assert colors_of_symmetric(matrix) == 2  # the fewest
    assert columns_of(matrix).max() == 59  # by columns, every one by itself


def test_patterns_of_grids() -> None:
    side = 12
    line = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) <= 1
    eye = np.eye(side, dtype=bool)
    matrix = np.kron(line, eye) | np.kron(eye, line)  # five points
    assert colors_of_symmetric(matrix) <= 7
    assert columns_of(matrix).max() + 1 <= 7
    assert colors_of_symmetric(np.kron(eye, line)) == 3


def test_a_hundred_thousand_neighbours_cost_no_square(many: Any = 100_000) -> None:
    start = np.concatenate([[0, many], many + np.arange(1, many + 1)]).astype(np.int64)
    index = np.concatenate([np.arange(1, many + 1), np.zeros(many)]).astype(np.int64)
    assert color_symmetric(start, index).max() == 1  # 10^10 steps would not end


def test_more_colours_than_there_was_room_for() -> None:
    matrix = np.ones((40, 40), bool)
    np.testing.assert_array_equal(np.sort(color_symmetric(*compressed(matrix))), np.arange(40))
