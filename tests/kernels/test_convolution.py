"""Convolution by spectra: NumPy's values, adjoints, broadcasting, and the same bits for any threads."""

import numpy as np
import pytest

from nbad.kernels import boxes, convolution, pieces, threads

# shape of x, its start, lengths of the box, start and shape of what is cut out, per transformed axis
BOXES = {
    "cyclic odd": ((7,), (0,), (7,), (0,), (7,)),
    "cyclic even": ((8,), (0,), (8,), (0,), (8,)),
    "one": ((1,), (0,), (1,), (0,), (1,)),
    "one in a box": ((1,), (2,), (6,), (3,), (1,)),
    "padded": ((5,), (0,), (12,), (0,), (9,)),
    "placed": ((5,), (3,), (13,), (2,), (7,)),
    "2-d": ((6, 5), (0, 0), (6, 5), (0, 0), (6, 5)),
    "2-d padded": ((6, 5), (0, 0), (8, 9), (1, 2), (6, 5)),
    "2-d placed": ((6, 5), (2, 1), (8, 10), (0, 0), (8, 10)),
    "2-d thin": ((1, 6), (0, 0), (1, 6), (0, 0), (1, 6)),
    "2-d column": ((6, 1), (0, 0), (9, 1), (1, 0), (7, 1)),
    "3-d": ((4, 3, 6), (0, 0, 0), (4, 3, 6), (0, 0, 0), (4, 3, 6)),
    "3-d placed": ((4, 3, 5), (1, 2, 3), (6, 7, 9), (0, 1, 2), (5, 3, 7)),
    "3-d last": ((4, 3, 5), (0, 0, 0), (4, 3, 9), (0, 0, 0), (4, 3, 5)),
    "3-d middle": ((4, 3, 6), (0, 1, 0), (4, 5, 6), (0, 2, 0), (4, 2, 6)),
    "4-d": ((2, 3, 4, 5), (0, 0, 0, 0), (2, 3, 4, 5), (0, 0, 0, 0), (2, 3, 4, 5)),
    "4-d placed": ((2, 3, 1, 5), (1, 0, 1, 1), (4, 5, 2, 7), (0, 2, 0, 3), (4, 3, 2, 4)),
    "prime": ((101, 13), (0, 0), (101, 13), (0, 0), (101, 13)),
    "prime line": ((1009,), (0,), (1009,), (0,), (1009,)),
    "prime line placed": ((600,), (401,), (1009,), (3,), (1000,)),
    "prime axes": ((103, 107), (0, 0), (103, 107), (0, 0), (103, 107)),
    "prime axes placed": ((50, 61, 67), (3, 0, 20), (53, 61, 89), (1, 40, 11), (52, 21, 70)),
    "prime first": ((211, 8), (0, 0), (211, 8), (100, 0), (111, 8)),
    "blocks": ((67, 260), (0, 0), (67, 260), (0, 0), (67, 260)),
    "blocks placed": ((67, 50, 9), (3, 2, 0), (80, 60, 11), (5, 0, 2), (71, 55, 8)),
}
# batch of x, batch of the kernel, and where the transformed axes go among those of x (from the front)
BATCHES = [
    ((), (), 0),
    ((3,), (3,), 1),
    ((3,), (3,), 0),
    ((3,), (1,), 1),
    ((1,), (3,), 1),
    ((2, 1), (1, 3), 1),
]
DTYPES = {"f4": 3e-6, "f8": 1e-14, "c8": 3e-6, "c16": 1e-14}


@pytest.fixture(autouse=True)
def restore_threads():
    before = threads.get_threads()
    yield
    threads.set_threads(before)


@pytest.fixture
def four_steps(monkeypatch):
    """Take four steps also for short lines and first axes, of any length that is not prime."""
    for name, value in (("LONG", 0), ("TALL", 0), ("SLENDER", 1 << 20), ("SHORTEST", 2)):
        monkeypatch.setattr(boxes, name, value)
    boxes.box.cache_clear()
    yield
    boxes.box.cache_clear()


def make(rng, shape, dtype):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return np.asarray(x, dtype)


def put_axes(batch, sizes, where):
    """Return the shape with the transformed axes at `where` among the batch axes, and their places."""
    return (*batch[:where], *sizes, *batch[where:]), tuple(range(where, where + len(sizes)))


def place(x, start, lengths, axes):
    """Return x batch first, in a box of zeros, in double precision."""
    x = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    box = np.zeros(x.shape[: x.ndim - len(axes)] + tuple(lengths), np.result_type(x.dtype, np.float64))
    box[(..., *(slice(s, s + n) for s, n in zip(start, x.shape[-len(axes) :], strict=True)))] = x
    return box


def cut(box, start, shape, axes, real):
    """Undo `place`."""
    box = box.real if real else box
    box = box[(..., *(slice(s, s + n) for s, n in zip(start, shape, strict=True)))]
    return np.moveaxis(box, range(box.ndim - len(axes), box.ndim), axes)


def reference(x, start, lengths, h, conj, out_start, out_shape, axes, real):
    """Return the filtered x by whole-array transforms of NumPy; h is the kernel, batch first."""
    last = tuple(range(-len(axes), 0))
    h_hat = np.fft.fftn(place(h, (0,) * len(axes), lengths, last), axes=last)
    y = np.fft.ifftn(
        np.fft.fftn(place(x, start, lengths, axes), axes=last) * (h_hat.conj() if conj else h_hat), axes=last
    )
    return cut(y, out_start, out_shape, axes, real)


def inner(a, b):
    return np.vdot(a.astype(np.complex128), b.astype(np.complex128)).real


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * max(1.0, np.abs(theirs).max()) * 10


def case(name, dtype, batches=((), (), 0), seed=0):
    """Return x, its axes, the kernel and its spectrum, and the arguments of the box."""
    shape, start, lengths, out_start, out_shape = BOXES[name]
    x_batch, h_batch, where = batches
    rng = np.random.default_rng(seed)
    x_shape, axes = put_axes(x_batch, shape, where)
    x = make(rng, x_shape, dtype)
    h = make(rng, (*h_batch, *(max(1, n // 2) for n in lengths)), dtype)
    h_axes = tuple(range(len(h_batch), h.ndim))
    real = x.dtype.kind == "f"
    h_hat = convolution.spectrum(h, lengths, h_axes, real)
    return x, axes, h, h_hat, start, lengths, out_start, out_shape, real


@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(BOXES))
def test_values(name, dtype, conj):
    x, axes, h, h_hat, start, lengths, out_start, out_shape, real = case(name, dtype)
    theirs = reference(x, start, lengths, h, conj, out_start, out_shape, axes, real)
    kept = x.tobytes(), h_hat.tobytes()
    ours, none = convolution.filter(x, start, lengths, h_hat, conj, out_start, out_shape, axes, real)
    assert none is None
    assert ours.dtype == x.dtype
    assert ours.flags.c_contiguous
    assert_close(ours, theirs, DTYPES[dtype])
    again, x_hat = convolution.filter(x, start, lengths, h_hat, conj, out_start, out_shape, axes, real, True)
    assert again.tobytes() == ours.tobytes()
    assert_close(x_hat, convolution.spectrum(x, lengths, axes, real, start), DTYPES[dtype])
    assert x_hat.dtype == h_hat.dtype
    third = convolution.filter_from_spectrum(x_hat, h_hat, conj, lengths, axes, real, out_start, out_shape)
    assert_close(third, theirs, DTYPES[dtype])
    assert (x.tobytes(), h_hat.tobytes()) == kept


@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("name", ["cyclic odd", "placed", "2-d", "2-d placed", "3-d placed", "blocks"])
def test_batches_broadcast(name, batches, dtype):
    x, axes, h, h_hat, start, lengths, out_start, out_shape, real = case(name, dtype, batches)
    theirs = reference(x, start, lengths, h, True, out_start, out_shape, axes, real)
    ours, x_hat = convolution.filter(x, start, lengths, h_hat, True, out_start, out_shape, axes, real, True)
    assert_close(ours, theirs, DTYPES[dtype])
    assert_close(x_hat, convolution.spectrum(x, lengths, axes, real, start), DTYPES[dtype])
    third = convolution.filter_from_spectrum(x_hat, h_hat, True, lengths, axes, real, out_start, out_shape)
    assert_close(third, theirs, DTYPES[dtype])


def test_a_kernel_may_add_batch_axes():
    x, axes, _, h_hat, *rest = case("2-d placed", "f8", ((3,), (2, 3), 0))
    start, lengths, out_start, out_shape, real = rest
    ours, _ = convolution.filter(x, start, lengths, h_hat, False, out_start, out_shape, axes, real)
    for k in range(2):
        one = np.ascontiguousarray(h_hat[k])
        alone, _ = convolution.filter(x, start, lengths, one, False, out_start, out_shape, axes, real)
        assert_close(ours[k], alone, 1e-14)


@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("name", list(BOXES))
def test_the_filter_has_an_adjoint(name, dtype, conj):
    x, axes, h, h_hat, start, lengths, out_start, out_shape, real = case(name, dtype)
    y, _ = convolution.filter(x, start, lengths, h_hat, conj, out_start, out_shape, axes, real)
    g = make(np.random.default_rng(1), y.shape, dtype)
    x_bar, _ = convolution.filter(
        g, out_start, lengths, h_hat, not conj, start, [x.shape[a] for a in axes], axes, real
    )
    assert x_bar.shape == x.shape
    # The norm of the filter is at most the sum of the kernel.
    bound = np.abs(h).sum() * np.linalg.norm(x) * np.linalg.norm(g)
    assert abs(inner(y, g) - inner(x, x_bar)) <= 1e-12 * bound


@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize(
    "name", ["cyclic even", "placed", "2-d padded", "3-d placed", "4-d placed", "blocks"]
)
def test_the_kernel_has_an_adjoint(name, batches, dtype):
    """Cotangents of kernel and array from one transform of g and the spectra kept by the filter."""
    x, axes, h, h_hat, start, lengths, out_start, out_shape, real = case(name, dtype, batches)
    before = pieces.transforms_run()
    y, x_hat = convolution.filter(x, start, lengths, h_hat, False, out_start, out_shape, axes, real, True)
    assert pieces.transforms_run() - before == 2
    g = make(np.random.default_rng(1), y.shape, dtype)
    before = pieces.transforms_run()
    g_hat = convolution.spectrum(g, lengths, axes, real, out_start)
    summed = tuple(k for k, n in enumerate(h_hat.shape[:-1]) if n < g_hat.shape[k])
    h_shape = h.shape[len(batches[1]) :]
    places = tuple(range(h.ndim - len(h_shape) - len(summed), h.ndim - len(summed)))
    zeros = (0,) * len(h_shape)
    h_bar = convolution.correlate_spectra(g_hat, x_hat, lengths, places, real, summed, zeros, h_shape)
    summed = tuple(k for k, n in enumerate(x_hat.shape[:-1]) if n < g_hat.shape[k])
    sizes = [x.shape[a] for a in axes]
    into = tuple(range(x.ndim - len(sizes) - len(summed), x.ndim - len(summed)))
    x_bar = convolution.correlate_spectra(g_hat, h_hat, lengths, into, real, summed, start, sizes)
    assert pieces.transforms_run() - before == 3
    x_first = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    scale = 1e-12 * np.linalg.norm(y) * np.linalg.norm(g)
    assert abs(inner(y, g) - inner(h, h_bar.reshape(h.shape))) <= scale
    assert abs(inner(y, g) - inner(x_first, x_bar.reshape(x_first.shape))) <= scale


@pytest.mark.parametrize("dtype", ["f4", "c16"])
@pytest.mark.parametrize(
    ("shape", "batch"), [((3000,), (150,)), ((600, 501), ()), ((70, 60, 53), ()), ((9, 40, 53), (11,))]
)
def test_the_bits_do_not_depend_on_threads(shape, batch, dtype):
    rng = np.random.default_rng(0)
    x, h = make(rng, (*batch, *shape), dtype), make(rng, shape, dtype)
    axes, real = tuple(range(len(batch), x.ndim)), dtype == "f4"
    start, box = [1] * len(shape), [n + 4 for n in shape]
    results = []
    for n in (1, 2, 3):
        threads.set_threads(n)
        h_hat = convolution.spectrum(h, box, tuple(range(len(shape))), real)
        h_hat = h_hat.reshape((1,) * len(batch) + h_hat.shape)
        y, x_hat = convolution.filter(x, start, box, h_hat, False, start, shape, axes, real, True)
        back = convolution.correlate_spectra(
            x_hat, h_hat, box, range(len(shape)), real, range(len(batch)), start, shape
        )
        results.append([a.tobytes() for a in (h_hat, y, x_hat, back)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("kind", ["reversed", "fortran", "readonly", "swapped", "other precision"])
def test_layouts(kind):
    x, axes, h, h_hat, start, lengths, out_start, out_shape, real = case("2-d placed", "f8")
    if kind == "reversed":
        x = x[::-1, ::-1]
    elif kind == "fortran":
        x = np.asfortranarray(x)
    elif kind == "readonly":
        x.flags.writeable = False
        h_hat.flags.writeable = False
    elif kind == "swapped":
        x = x.astype(">f8")
    else:
        x = x.astype("f4")
    theirs = reference(x, start, lengths, h, False, out_start, out_shape, axes, real)
    ours, _ = convolution.filter(x, start, lengths, h_hat, False, out_start, out_shape, axes, real)
    assert_close(ours, theirs, 1e-14)
    assert ours.dtype == np.float64


@pytest.mark.parametrize("real", [False, True])
def test_fast_lengths(real):
    for n in [*range(1, 200), 1009, 4093, 65537]:
        length = convolution.fast_length(n, real)
        assert n <= length <= 2 * n
        rest = length
        for prime in (2, 3, 5, 7, 11):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1
        assert not real or n == 1 or length % 2 == 0
    assert convolution.fast_length(512, True) == 512


# shape of x, start, length of the box, start and shape of what is cut out
LINES = {
    "even": (360, 0, 360, 0, 360),
    "odd": (315, 0, 315, 0, 315),
    "odd columns": (77, 0, 77, 0, 77),
    "square": (49, 0, 49, 0, 49),
    "least": (6, 0, 6, 0, 6),
    "padded": (100, 0, 256, 0, 180),
    "placed": (60, 33, 210, 20, 117),
    "one sample": (1, 50, 64, 63, 1),
    "several blocks": (5000, 7, 21168, 3, 21000),
    "folded": (1009, 0, 1009, 0, 1009),
    "folded in pieces": (70_000, 1, 70_001, 17, 69_900),
}


# As above, for boxes whose first axis is the long one.
TALL = {
    "two columns": ((3000, 2), (0, 0), (3000, 2), (0, 0), (3000, 2)),
    "three columns": ((2997, 3), (1, 0), (3003, 3), (5, 1), (2900, 2)),
    "few columns, folded": ((9973, 2, 2), (0, 0, 0), (9973, 2, 3), (0, 0, 0), (9973, 2, 3)),
    "thin and tall": ((1, 720, 5), (0, 7, 1), (1, 800, 7), (0, 3, 0), (1, 790, 7)),
    "several blocks of samples": ((16384, 9), (0, 0), (16384, 9), (0, 0), (16384, 9)),
}


@pytest.mark.usefixtures("four_steps")
@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("batches", [((), (), 0), ((3,), (1,), 0), ((2, 1), (1, 3), 1)])
@pytest.mark.parametrize("name", list(LINES))
def test_long_lines(name, batches, dtype, conj, monkeypatch):
    m, start, n, out_start, out_n = LINES[name]
    monkeypatch.setitem(BOXES, name, ((m,), (start,), (n,), (out_start,), (out_n,)))
    check_four_steps(name, batches, dtype, conj)


@pytest.mark.usefixtures("four_steps")
@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("batches", [((), (), 0), ((3,), (1,), 0), ((2, 1), (1, 3), 1)])
@pytest.mark.parametrize("name", [*TALL, "2-d", "2-d placed", "3-d placed", "4-d placed", "blocks placed"])
def test_long_first_axes(name, batches, dtype, conj, monkeypatch):
    if name in TALL:
        monkeypatch.setitem(BOXES, name, TALL[name])
    check_four_steps(name, batches, dtype, conj)


def check_four_steps(name, batches, dtype, conj):
    x, axes, h, h_hat, *rest = case(name, dtype, batches)
    start, lengths, out_start, out_shape, real = rest
    assert boxes.box(lengths, real, h_hat.itemsize).long is not None
    theirs = reference(x, start, lengths, h, conj, out_start, out_shape, axes, real)
    ours, x_hat = convolution.filter(x, start, lengths, h_hat, conj, out_start, out_shape, axes, real, True)
    assert ours.dtype == x.dtype
    assert_close(ours, theirs, DTYPES[dtype])
    assert_close(x_hat, convolution.spectrum(x, lengths, axes, real, start), DTYPES[dtype])
    third = convolution.filter_from_spectrum(x_hat, h_hat, conj, lengths, axes, real, out_start, out_shape)
    assert_close(third, theirs, DTYPES[dtype])
    g = make(np.random.default_rng(1), ours.shape, dtype)
    if g.size >= x.size:
        g_hat = convolution.spectrum(g, lengths, axes, real, out_start)
        summed = tuple(k for k, extent in enumerate(h_hat.shape[:-1]) if extent < g_hat.shape[k])
        places = tuple(range(len(batches[1]) - len(summed), h.ndim - len(summed)))
        h_bar = convolution.correlate_spectra(
            g_hat, x_hat, lengths, places, real, summed, (0,) * len(lengths), h.shape[-len(lengths) :]
        )
        y, _ = convolution.filter(x, start, lengths, h_hat, False, out_start, out_shape, axes, real)
        scale = DTYPES[dtype] * 100 * np.linalg.norm(y) * np.linalg.norm(g)
        assert abs(inner(y, g) - inner(h, h_bar.reshape(h.shape))) <= scale


@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_the_bits_of_a_long_line_do_not_depend_on_threads(dtype):
    rng = np.random.default_rng(0)
    x, h = make(rng, (2, 120_000), dtype), make(rng, (140_000,), dtype)
    box, real = (140_000,), dtype == "f4"
    results = []
    for n in (1, 2, 3):
        threads.set_threads(n)
        h_hat = convolution.spectrum(h, box, (0,), real).reshape(1, -1)
        y, x_hat = convolution.filter(x, (9,), box, h_hat, True, (0,), (130_000,), (1,), real, True)
        back = convolution.correlate_spectra(x_hat, h_hat, box, (0,), real, (0,), (0,), (140_000,))
        results.append([a.tobytes() for a in (h_hat, y, x_hat, back)])
    assert results[0] == results[1] == results[2]
    assert boxes.box(box, real, h_hat.itemsize).long is not None


@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_the_bits_of_a_long_first_axis_do_not_depend_on_threads(dtype):
    rng = np.random.default_rng(0)
    x, h = make(rng, (140_000, 3), dtype), make(rng, (150_000, 2), dtype)
    box, real = (150_000, 3), dtype == "f4"
    results = []
    for n in (1, 2, 3):
        threads.set_threads(n)
        h_hat = convolution.spectrum(h, box, (0, 1), real)
        y, x_hat = convolution.filter(x, (9, 0), box, h_hat, True, (0, 0), (150_000, 2), (0, 1), real, True)
        results.append([a.tobytes() for a in (h_hat, y, x_hat)])
    assert results[0] == results[1] == results[2]
    assert boxes.box(box, real, h_hat.itemsize).long is not None


@pytest.mark.parametrize("name", ["prime line", "prime axes", "prime axes placed", "prime first"])
def test_awkward_lengths_are_padded(name):
    """So that the cases of primes above say something of folding."""
    box = boxes.box(BOXES[name][2], True, 16)
    assert box.n != box.period
    assert all(n == period or n >= 2 * period for n, period in zip(box.n, box.period, strict=True))
    assert any(box.turns(False)) and any(box.turns(True))
