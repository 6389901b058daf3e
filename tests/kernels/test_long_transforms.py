"""Long lines: NumPy's values for every kind of length, in pieces that are short, and the same bits for any threads."""

import numpy as np
import pytest

from nbad.kernels import fft, long_transforms, pieces, threads
from nbad.kernels.lengths import factors

# 16 * 17 and 17 * 19 are split into an even and an odd number of columns; then awkward ones, odd and even.
LENGTHS = [1, 2, 3, 7, 8, 256, 272, 288, 323, 720, 1000, 1009, 2 * 509, 4 * 1009]
LARGE = [
    ((1 << 18,), (0,)),
    ((300_000,), (0,)),
    ((40_009,), (0,)),
    ((2 * 40_009,), (0,)),
    ((2, 150_000), (0, 1)),
    ((150_000, 3), (0, 1)),
    ((2, 140_000, 2), (1,)),
    ((140_000, 1, 2), (0, 1, 2)),
]
TOLERANCE = {"f4": 2e-6, "f8": 4e-15}


@pytest.fixture(autouse=True)
def restore_threads():
    before = threads.get_threads()
    yield
    threads.set_threads(before)


@pytest.fixture
def any_length_is_long(monkeypatch):
    monkeypatch.setattr(long_transforms, "LONG", 0)


def make(shape, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    return x.astype(dtype), (x + 1j * rng.standard_normal(shape)).astype(np.result_type(dtype, "c8"))


def assert_close(ours, theirs, dtype):
    """Compare by the norm, as an error of a transform grows."""
    assert ours.shape == theirs.shape
    assert ours.flags.c_contiguous and ours.flags.writeable
    assert ours.real.dtype == dtype
    assert np.linalg.norm(ours - theirs) <= TOLERANCE[dtype] * np.linalg.norm(theirs)


def check(shape, axes, dtype):
    x, z = make(shape, dtype)
    wide, wide_z = x.astype("f8"), z.astype("c16")
    kept = x.tobytes(), z.tobytes()
    assert_close(fft.c2c(z, axes, True, 1.0), np.fft.fftn(wide_z, axes=axes), dtype)
    assert_close(fft.c2c(z, axes, False, 0.5), 0.5 * np.fft.ifftn(wide_z, axes=axes, norm="forward"), dtype)
    half = fft.r2c(x, axes, 2.0)
    assert_close(half, 2 * np.fft.rfftn(wide, axes=axes), dtype)
    assert_close(fft.r2c_full(x, axes, 2.0), 2 * np.fft.fftn(wide, axes=axes), dtype)
    n, size = shape[axes[-1]], np.prod([shape[axis] for axis in axes])
    assert_close(fft.c2r(half, axes, n, 0.5 / size), wide, dtype)
    # No spectrum of a real array: what it lacks of that is ignored.
    h = z[(slice(None),) * axes[-1] + (slice(n // 2 + 1),)]
    lengths = [shape[axis] for axis in axes]
    theirs = np.fft.irfftn(h.astype("c16"), s=lengths, axes=axes, norm="forward")
    assert_close(fft.c2r(h, axes, n, 1.0), theirs, dtype)
    assert (x.tobytes(), z.tobytes()) == kept


@pytest.mark.usefixtures("any_length_is_long")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize("n", LENGTHS)
def test_lengths(n, lines, dtype):
    check((lines, n), (1,), dtype)


@pytest.mark.usefixtures("any_length_is_long")
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_axes(axes):
    check((17, 4, 5), axes, "f8")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("shape", "axes"), LARGE)
def test_large_shapes(shape, axes, dtype):
    check(shape, axes, dtype)


@pytest.mark.usefixtures("any_length_is_long")
@pytest.mark.parametrize("n", [272, 288, 1009, 2 * 509])
def test_bins_of_a_real_line_that_are_real_have_no_imaginary_part(n):
    half = fft.r2c(make((n,), "f8")[0], (0,), 1.0)
    assert half[0].imag == 0
    assert n % 2 or half[-1].imag == 0
    assert np.all(half[1 : (n + 1) // 2].imag != 0)


@pytest.mark.parametrize(("shape", "axes"), LARGE)
def test_the_bits_do_not_depend_on_threads(shape, axes):
    x, z = make(shape, "f4")
    results = []
    for n in (1, 2, 3):
        threads.set_threads(n)
        long_transforms._chirp.cache_clear()
        half = fft.r2c(x, axes, 1.0)
        made = [half, fft.c2r(half, axes, shape[axes[-1]], 1.0), fft.c2c(z, axes, False, 1.0)]
        results.append([a.tobytes() for a in made])
    assert results[0] == results[1] == results[2]


def test_which_lengths_are_long():
    """So that the large shapes above say something of this module."""
    assert long_transforms.is_long(1 << 18, True, 16) and not long_transforms.is_long(1 << 16, True, 16)
    assert long_transforms.is_long(40_009, False, 16) and not long_transforms.is_long(40_000, False, 16)
    assert long_transforms.is_long(100_003, True, 8) and not long_transforms.is_long(100_000, True, 8)
    assert not long_transforms.is_long(40_009, True, 8)
    assert factors(40_009) == [40_009]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1 << 24,), (0,)),
        ((4_194_301,), (0,)),
        ((1 << 21, 8), (0,)),
        ((2, 1 << 22), (0, 1)),
        ((2048, 2048, 8), (0, 1, 2)),
        ((4, 4096, 64), (0, 1, 2)),
        ((2048, 2048), (0, 1)),
    ],
)
def test_pieces_are_short(shape, axes, monkeypatch):
    """What is handed out at once is at most a few megabytes: far less than 50 ms of work."""
    largest = []

    def note(task, n_chunks, nbytes):
        largest.append(nbytes / n_chunks)

    for module in (pieces, fft):
        monkeypatch.setattr(module, "run", note)
    monkeypatch.setattr(threads, "fan_out", lambda task, n_chunks: True)
    long_transforms._chirp.cache_clear()
    z = np.empty(shape, "c16")
    fft.c2c(z, axes, True, 1.0)
    fft.r2c(np.empty(shape), axes, 1.0)
    bins = z[(slice(None),) * axes[-1] + (slice(shape[axes[-1]] // 2 + 1),)]
    fft.c2r(np.ascontiguousarray(bins), axes, shape[axes[-1]], 1.0)
    long_transforms._chirp.cache_clear()
    assert max(largest) <= 8 << 20
