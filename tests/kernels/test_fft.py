"""Transforms: NumPy's values for all shapes, axes, dtypes and layouts, and the same bits for any threads."""

import itertools
import threading

import numpy as np
import pytest

from nbad.kernels import fft, pieces, threads

SHAPES = [(1,), (7,), (16,), (1, 1), (5, 1), (6, 4), (3, 5, 8), (4, 1, 3, 6), (2, 3, 2, 3, 4)]
CASES = [
    (shape, axes)
    for shape in SHAPES
    for k in range(1, len(shape) + 1)
    for axes in itertools.combinations(range(len(shape)), k)
]
# Each of these takes another way through slabs and columns.
LARGE = [
    ((300_000,), (0,)),
    ((600, 500), (0,)),
    ((600, 501), (1,)),
    ((600, 501), (0, 1)),
    ((70, 60, 53), (0, 1, 2)),
    ((70, 60, 53), (0, 2)),
    ((3, 40_000, 2), (1,)),
    ((5, 300, 301), (1, 2)),
    ((3, 300, 301), (0, 1, 2)),
    ((2, 70_000, 3), (0, 1)),
]
REAL = {"f4": 1e-5, "f8": 1e-13}


@pytest.fixture(autouse=True)
def restore_threads():
    before = threads.get_threads()
    yield
    threads.set_threads(before)


def make(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return np.asarray(x, dtype)


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert ours.flags.c_contiguous and ours.flags.writeable
    assert np.abs(ours - theirs).max() <= tolerance * max(np.abs(theirs).max(), 1.0)


def check(x, axes, real, tolerance):
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    kept = x.tobytes()
    cdtype = np.result_type(x.dtype, np.complex64)
    if not real:
        ours = fft.c2c(x, axes, True, 1.0)
        assert ours.dtype == cdtype
        assert_close(ours, np.fft.fftn(wide, axes=axes), tolerance)
        assert_close(
            fft.c2c(x, axes, False, 0.5), 0.5 * np.fft.ifftn(wide, axes=axes, norm="forward"), tolerance
        )
    else:
        half = fft.r2c(x, axes, 2.0)
        assert half.dtype == cdtype
        assert_close(half, 2.0 * np.fft.rfftn(wide, axes=axes), tolerance)
        full = fft.r2c_full(x, axes, 2.0)
        assert full.dtype == cdtype
        assert_close(full, 2.0 * np.fft.fftn(wide, axes=axes), tolerance)
        n = x.shape[axes[-1]]
        size = np.prod([x.shape[axis] for axis in axes])
        before = half.tobytes()
        back = fft.c2r(half, axes, n, 0.5 / size)
        assert back.dtype == x.dtype.newbyteorder("=")
        assert_close(back, wide, tolerance)
        assert half.tobytes() == before
    assert x.tobytes() == kept


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_small_shapes(shape, axes, dtype):
    check(make(shape, dtype), axes, True, REAL[dtype])
    check(make(shape, np.result_type(dtype, "c8")), axes, False, REAL[dtype])


@pytest.mark.parametrize(("shape", "axes"), LARGE)
def test_large_shapes(shape, axes):
    check(make(shape, "f8"), axes, True, 1e-12)
    check(make(shape, "c16"), axes, False, 1e-12)


@pytest.mark.parametrize("kind", ["reversed", "strided", "fortran", "readonly", "swapped", "broadcast"])
@pytest.mark.parametrize("shape", [(6, 5), (300, 200)])
def test_layouts(shape, kind):
    for dtype in ("f8", "c16"):
        x = make(shape, dtype)
        if kind == "reversed":
            x = x[::-1, ::-1]
        elif kind == "strided":
            x = np.repeat(x, 2, axis=1)[:, ::2]
        elif kind == "fortran":
            x = np.asfortranarray(x)
        elif kind == "readonly":
            x.flags.writeable = False
        elif kind == "swapped":
            x = x.astype(x.dtype.newbyteorder())
        else:
            x = np.broadcast_to(x[:1], shape)
        check(x, (0, 1), dtype == "f8", 1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (400, 300)])
def test_imaginary_parts_of_real_bins_are_ignored(n, shape):
    half = make((*shape, n // 2 + 1), "c16")
    axes = (len(shape),)
    theirs = np.fft.irfft(half, n)
    assert_close(fft.c2r(half, axes, n, 1 / n), theirs, 1e-13)


@pytest.mark.parametrize(("n", "half"), [(8, 5), (7, 4)])
def test_a_spectrum_of_no_real_array(n, half):
    x = make((6, 5, half), "c16")
    assert_close(fft.c2r(x, (0, 1, 2), n, 1 / (30 * n)), np.fft.irfftn(x, s=(6, 5, n), axes=(0, 1, 2)), 1e-13)


@pytest.mark.parametrize(("shape", "axes"), LARGE)
def test_the_bits_do_not_depend_on_threads(shape, axes):
    x, z = make(shape, "f8"), make(shape, "c16")
    results = []
    for n in (1, 2, 3):
        threads.set_threads(n)
        half = fft.r2c(x, axes, 1.0)
        back = fft.c2r(half, axes, shape[axes[-1]], 1.0)
        whole = [half, back, fft.r2c_full(x, axes, 1.0), fft.c2c(z, axes, False, 1.0)]
        results.append([a.tobytes() for a in whole])
    assert results[0] == results[1] == results[2]


def test_transforms_are_counted():
    x = make((4, 4), "f8")
    before = pieces.transforms_run()
    half = fft.r2c(x, (0, 1), 1.0)
    fft.r2c_full(x, (0, 1), 1.0)
    fft.c2c(half, (0, 1), True, 1.0)
    fft.c2r(half, (0, 1), 4, 1.0)
    assert pieces.transforms_run() - before == 4
    pieces.count(3)
    assert pieces.transforms_run() - before == 7


def test_several_threads_transform_at_once():
    x = make((300, 200), "f8")
    expected = fft.r2c(x, (0, 1), 1.0).tobytes()
    results = []

    def work():
        for _ in range(5):
            results.append(fft.r2c(x, (0, 1), 1.0).tobytes())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 20


def test_transform_is_for_jitted_code():
    with pytest.raises(TypeError, match="jitted"):
        pieces.transform(None, None, None, True, 1.0)


def test_read_only_arrays_do_not_compile_kernels_anew():
    x = make((6, 5), "f8")
    fft.r2c(x, (0, 1), 1.0)
    compiled = len(fft._slabs_out.signatures)
    x.flags.writeable = False
    assert_close(fft.r2c(x, (0, 1), 1.0), np.fft.rfft2(x), 1e-13)
    assert len(fft._slabs_out.signatures) == compiled
    assert np.shares_memory(pieces.contiguous(x), x)
