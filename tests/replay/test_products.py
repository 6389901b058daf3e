"""Products of matrices in blocks: the same bits for any number of threads, and BLAS as the user has set it."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.kernels import blas
from nbad.replay.products import multiply

SHAPES = [
    ((256, 300), (300, 400)),
    ((1 << 13, 40), (40,)),
    ((40,), (40, 1 << 13)),
    ((40, 1 << 15), (1 << 15, 3)),
    ((1 << 17,), (1 << 17, 8)),
    ((1, 100_000), (100_000, 1)),
    ((1500, 1), (1, 1500)),
    ((4, 300, 100), (100, 90)),
    ((4, 300, 100), (4, 100, 90)),
    ((300, 100), (4, 100, 90)),
    ((2, 1, 30, 100), (3, 100, 300)),
    ((4, 300, 100), (100,)),
    ((5, 5), (5, 5)),
]


@pytest.fixture
def own_threads() -> Iterator[None]:
    before = nbad.get_threads()
    yield
    nbad.set_threads(before)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16", "f2"])
@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.usefixtures("own_threads")
def test_products_do_not_depend_on_threads(left: Any, right: Any, dtype: str) -> None:
    if dtype == "f2" and len(left) + len(right) > 3:
        pytest.skip("half precision is not split; one shape tells")
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=left).astype(dtype), rng.normal(size=right).astype(dtype)
    for x, y in ((a, b), (np.asfortranarray(a), np.asfortranarray(b)), (a[::-1], b[..., ::-1])):
        expected = x @ y
        made = []
        for count in (1, 2, 3):
            nbad.set_threads(count)
            out = np.full(expected.shape, np.nan, expected.dtype)
            multiply(out, x, y)
            made.append(out)
        assert made[0].tobytes() == made[1].tobytes() == made[2].tobytes()
        largest = np.max(np.abs(expected))
        rtol = {"f2": 0.1, "f4": 1e-5}.get(dtype, 1e-12)
        np.testing.assert_allclose(made[0], expected, rtol=0, atol=rtol * largest)


def test_a_matrix_times_its_transpose_is_symmetric() -> None:
    a = np.random.default_rng(3).normal(size=(600, 200))
    out = np.empty((600, 600))
    multiply(out, a, a.T)
    np.testing.assert_array_equal(out, out.T)


class Fake:
    """A BLAS with a setting."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get(self) -> int:
        return self.count

    def put(self, count: int) -> None:
        self.count = count


def test_blas_gets_its_threads_back_after_the_last_use() -> None:
    library = Fake(6)
    context = blas.Alone(library.get, library.put)
    with context:
        assert library.count == 1
        with context:
            assert library.count == 1
        assert library.count == 1
    assert library.count == 6


def test_blas_gets_its_threads_back_after_an_error() -> None:
    library = Fake(6)
    with pytest.raises(ZeroDivisionError), blas.Alone(library.get, library.put):
        raise ZeroDivisionError
    assert library.count == 6


def test_a_setting_made_meanwhile_stays() -> None:
    library = Fake(6)
    with blas.Alone(library.get, library.put):
        library.put(3)
    assert library.count == 3


def test_a_forked_child_gets_the_setting_back() -> None:
    library = Fake(6)
    context = blas.Alone(library.get, library.put)
    context.__enter__()
    context.forget()
    assert library.count == 6
    with context:
        assert library.count == 1
    assert library.count == 6


def test_overlapping_uses_of_two_threads() -> None:
    library = Fake(6)
    context = blas.Alone(library.get, library.put)
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with context:
            inside.set()
            go.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(30)
    with context:
        pass
    assert library.count == 1
    go.set()
    thread.join()
    assert library.count == 6


def test_products_leave_the_setting_of_numpys_blas() -> None:
    context = blas.alone()
    if context is None:
        pytest.skip("NumPy's BLAS here takes no orders")
    before = context._get()
    out = np.empty((300, 300))
    multiply(out, np.ones((300, 300)), np.ones((300, 300)))
    assert out[0, 0] == 300.0
    assert context._get() == before
