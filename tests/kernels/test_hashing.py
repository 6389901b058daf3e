"""Fingerprints: the bits decide, not the layout, the value or the number of threads."""

import numpy as np
import pytest

from nbad.kernels import threads
from nbad.kernels.hashing import CHUNK, TINY, fingerprint

SIZES = [1, TINY // 8, TINY // 8 + 1, 1000, CHUNK // 8, CHUNK // 8 + 1, 3 * CHUNK // 8 + 77]


@pytest.mark.parametrize("size", SIZES)
def test_equal_bits_give_equal_fingerprints(size):
    x = np.random.default_rng(0).standard_normal(size)
    expected = fingerprint(x)
    assert expected == fingerprint(x.copy())
    assert expected == fingerprint(x.view(np.int64))
    assert expected == fingerprint(np.repeat(x, 2)[::2])
    assert expected == fingerprint(x[::-1].copy()[::-1])
    unaligned = np.zeros(8 * size + 1, np.uint8)[1:].view(np.float64)
    unaligned[:] = x
    assert expected == fingerprint(unaligned)
    x.flags.writeable = False
    assert expected == fingerprint(x)
    assert all(-(1 << 63) <= half < 1 << 64 for half in expected)


def test_fortran_order_is_hashed_in_c_order():
    x = np.random.default_rng(0).standard_normal((40, 50))
    assert fingerprint(x) == fingerprint(np.asfortranarray(x))
    assert fingerprint(x) != fingerprint(x.T)


@pytest.mark.parametrize("size", SIZES)
def test_every_bit_counts(size):
    x = np.zeros(size, np.uint64)
    seen = {fingerprint(x)}
    places = sorted({0, size // 3, size // 2, size - 1})
    for place in places:
        for bit in range(64):
            x[place] ^= np.uint64(1 << bit)
            seen.add(fingerprint(x))
            x[place] ^= np.uint64(1 << bit)
    assert len(seen) == 1 + 64 * len(places)


@pytest.mark.parametrize("size", [100, 1000, 100_000])
def test_two_changed_signs_do_not_cancel(size):
    x = np.ones(size)
    seen = {fingerprint(x)}
    for step in range(1, 40):
        y = x.copy()
        y[[7, 7 + step]] *= -1.0
        seen.add(fingerprint(y))
    assert len(seen) == 40


@pytest.mark.parametrize("size", [3, 5000])
def test_zeros_and_nans_are_told_apart(size):
    zero = np.zeros(size)
    nan = np.full(size, np.nan)
    payload = nan.copy()
    payload.view(np.uint64)[0] += 1
    assert len({fingerprint(a) for a in (zero, -zero, nan, payload, -nan)}) == 5
    assert fingerprint(nan) == fingerprint(nan.copy())


@pytest.mark.parametrize("nbytes", [0, 1, 7, 8, 1023, 1024, 1025, 5000, CHUNK - 1, CHUNK + 1, 2 * CHUNK + 3])
def test_zeros_of_other_lengths_differ(nbytes):
    prints = {fingerprint(np.zeros(n, np.uint8)) for n in (nbytes, nbytes + 1, nbytes + 8)}
    assert len(prints) == 3


def test_swapped_chunks_differ():
    x = np.random.default_rng(0).integers(0, 255, 2 * CHUNK).astype(np.uint8)
    assert fingerprint(x) != fingerprint(np.roll(x, CHUNK))


@pytest.mark.parametrize("dtype", ["?", "f2", "c8", "c16", ">f8", "M8[s]", "S5", [("a", "i4"), ("b", "f8")]])
@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (300, 7)])
def test_any_type(dtype, shape):
    x = np.zeros(shape, dtype)
    expected = fingerprint(x)
    assert expected == fingerprint(x.copy()) == fingerprint(np.zeros(x.nbytes, np.uint8))
    if x.size:
        x.reshape(-1).view(np.uint8)[-1] = 1
        assert fingerprint(x) != expected


def test_the_number_of_threads_does_not_matter():
    before = threads.get_threads()
    x = np.random.default_rng(0).standard_normal(1_000_000)
    prints = set()
    for count in (1, 2, 3):
        threads.set_threads(count)
        prints.add(fingerprint(x))
    threads.set_threads(before)
    assert len(prints) == 1


def test_objects_are_refused():
    with pytest.raises(TypeError, match="Python objects"):
        fingerprint(np.array([None]))
