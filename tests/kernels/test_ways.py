"""How axes of a convolution are transformed: products with matrices, vectors along lines, butterflies of columns."""

import numpy as np
import pytest

from nbad._jit import jit
from nbad.kernels import convolution, threads, ways

BOUNDS = {8: 3e-7, 16: 1e-15}
GUARD = 16


@jit(cache=False)
def _along(x, y, outer, n_in, n_out, inner, forward, factor, way, room):
    ways.along(x, y, outer, n_in, n_out, inner, forward, factor, way, room)


@jit(cache=False)
def _columns(x, y, forward, way, room):
    ways.columns(x, y, forward, way, room)


def run(x, shape, dtype, way, *arguments):
    """Return `_along` of x as an array of that shape, and check that nothing beyond its end was written."""
    size = int(np.prod(shape))
    y = np.full(size + GUARD, 7, dtype)
    room = np.full(way.spare + GUARD, 7, np.result_type(dtype, np.complex64))
    flat = np.ascontiguousarray(x).reshape(-1)
    _along(flat, y[:size], *arguments, way.rows[0], room[: way.spare])
    assert np.all(y[size:] == 7)
    assert np.all(room[way.spare :] == 7)
    return y[:size].reshape(shape)


def error(y, exact):
    assert y.shape == exact.shape
    return np.linalg.norm(y - exact) / np.linalg.norm(exact)


def random(rng, shape, itemsize):
    x = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return x.astype(f"c{itemsize}")


@pytest.mark.parametrize("itemsize", BOUNDS)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 11, 16, 23, 24, 25, 26, 37, 61, 64, 67])
def test_short_real_lines_equal_numpys(n, itemsize):
    rng = np.random.default_rng(n)
    way = ways.ways((n,), True, itemsize, 0.25)
    real = f"f{itemsize // 2}"
    assert (way.rows[0, ways.MATRIX] != 0) == (n <= 25 or n in (26, 37, 61))
    for outer in (1, 3, 4, 5, 6, 7, 8, 9, 31):
        x = rng.standard_normal((outer, n)).astype(real)
        bins = run(x, (outer, n // 2 + 1), f"c{itemsize}", way, outer, n, n // 2 + 1, 1, True, 1.0)
        exact = np.fft.rfft(x.astype(float))
        assert error(bins, exact) < BOUNDS[itemsize]
        back = run(bins, (outer, n), real, way, outer, n // 2 + 1, n, 1, False, 0.25)
        assert error(back, np.fft.irfft(bins.astype(complex), n) * n * 0.25) < BOUNDS[itemsize]


@pytest.mark.parametrize("itemsize", BOUNDS)
@pytest.mark.parametrize(
    "n", [128, 136, 144, 168, 200, 256, 320, 480, 504, 512, 1000, 1024, 2048, 4536, 8192, 16384]
)
def test_real_lines_of_smooth_lengths_equal_numpys(n, itemsize):
    rng = np.random.default_rng(n)
    way = ways.ways((n,), True, itemsize, 0.25)
    real = f"f{itemsize // 2}"
    assert (way.rows[0, ways.COLUMNS] != 0) == (n != 136 and n >= ways.SHORTEST[itemsize // 2])
    for outer in (1, 2, 5):
        x = rng.standard_normal((outer, n)).astype(real)
        bins = run(x, (outer, n // 2 + 1), f"c{itemsize}", way, outer, n, n // 2 + 1, 1, True, 1.0)
        assert error(bins, np.fft.rfft(x.astype(float))) < BOUNDS[itemsize]
        assert not bins[:, [0, -1]].imag.any()
        back = run(bins, (outer, n), real, way, outer, n // 2 + 1, n, 1, False, 0.25)
        assert error(back, np.fft.irfft(bins.astype(complex), n) * n * 0.25) < BOUNDS[itemsize]


@pytest.mark.parametrize("itemsize", BOUNDS)
@pytest.mark.parametrize(
    "n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 23, 32, 60, 105, 128, 256, 343, 512, 2048]
)
def test_columns_equal_numpys_forward_and_back_and_in_place(n, itemsize):
    rng = np.random.default_rng(n)
    way = ways.ways((n, 8), True, itemsize, 1.0)
    assert (way.rows[0, ways.COLUMNS] != 0) == (n not in (1, 11, 23))
    for inner in (1, 2, 3, 4, 5, 7, 12, 33, 200):
        x = random(rng, (2, n, inner), itemsize)
        given = x.astype(complex)
        y = run(x, x.shape, x.dtype, way, 2, n, n, inner, True, 1.0)
        assert error(y, np.fft.fft(given, axis=1)) < BOUNDS[itemsize]
        room = np.empty(way.spare, x.dtype)
        _along(x.reshape(-1), x.reshape(-1), 2, n, n, inner, False, 1.0, way.rows[0], room)
        assert error(x, np.fft.ifft(given, axis=1) * n) < BOUNDS[itemsize]


@pytest.mark.parametrize("itemsize", BOUNDS)
@pytest.mark.parametrize("n", [5, 48, 1024, 2048])
def test_columns_of_wider_arrays(n, itemsize):
    rng = np.random.default_rng(n)
    way = ways.ways((n, 8), False, itemsize, 1.0)
    for w in (3, 4, 8, 17, 130):
        x, y = random(rng, (n, 150), itemsize), np.zeros((n, 140), f"c{itemsize}")
        _columns(x[:, 3 : 3 + w], y[:, 5 : 5 + w], True, way.rows[0], np.empty(way.spare, x.dtype))
        assert error(y[:, 5 : 5 + w], np.fft.fft(x[:, 3 : 3 + w].astype(complex), axis=0)) < BOUNDS[itemsize]
        assert not y[:, :5].any()
        assert not y[:, 5 + w :].any()


def test_a_longer_line_and_a_longer_axis_are_rocket_ffts():
    assert not ways.ways((1 << 15,), True, 16, 1.0).rows.any()
    assert not ways.ways((1 << 15, 1 << 15), True, 16, 1.0).rows.any()
    assert not ways.ways((8,), False, 16, 1.0).rows.any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "shape", [(64, 48, 23), (512, 40, 5), (128, 257), (64, 512), (2048, 40), (4099, 23), (1, 96, 61)]
)
def test_a_convolution_has_the_same_bits_for_any_threads(shape, dtype):
    rng = np.random.default_rng(5)
    u, v = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    axes, origin = tuple(range(u.ndim)), (0,) * u.ndim
    found = []
    before = threads.get_threads()
    try:
        for count in (1, 2):
            threads.set_threads(count)
            v_hat = convolution.spectrum(v, shape, axes, True)
            found.append(convolution.filter(u, origin, shape, v_hat, False, origin, shape, axes, True)[0])
    finally:
        threads.set_threads(before)
    assert found[0].tobytes() == found[1].tobytes()
    exact = np.fft.irfftn(np.fft.rfftn(u.astype(float)) * np.fft.rfftn(v.astype(float)), shape, axes)
    assert found[0].dtype == dtype
    assert error(found[0], exact) < {"f4": 1e-6, "f8": 3e-15}[dtype]
