"""Lengths: what is chosen is as fast as it says, and as long as it must be."""

import math

import pytest

from nbad.kernels import convolution, lengths


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12, 97, 360, 1001, 4093, 65536, 2 * 3 * 5 * 7 * 11 * 13])
def test_factors(n):
    found = lengths.factors(n)
    assert math.prod(found) == n
    assert found == sorted(found)
    assert all(p > 1 and all(p % q for q in range(2, p)) for p in found)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("itemsize", [8, 16])
@pytest.mark.parametrize("n", [1, 7, 16, 360, 1001, 1 << 22, 3_000_000, 4_194_301])
def test_halves(n, itemsize, real):
    n1, n2 = lengths.halves(n, real, itemsize)
    assert n1 * n2 == n
    if n == 1 << 22:
        assert 256 <= n1 <= n2


def test_work_grows_with_the_largest_factor():
    assert lengths.work(1024) < lengths.work(1023) < lengths.work(1021)
    # A prime by Bluestein's method takes two fast transforms of twice its length, not n times n steps.
    assert lengths.work(4_194_301) < 100 * lengths.work(1 << 22) / 10


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    "n",
    [(1,), (13,), (360,), (1009,), (4_194_301,), (1 << 22,), (512, 512, 23), (67, 64), (509, 521), (1, 1009)],
)
def test_padded_lengths_hold_a_linear_convolution(n, real):
    chosen = lengths.padded(n, real, 16, 16)
    for length, period in zip(chosen, n, strict=True):
        assert length == period or (length >= 2 * period and max(lengths.factors(length)) <= 11)
    # Fast lengths stay, and a prime that costs much does not.
    assert all(a == b for a, b in zip(chosen, n, strict=True) if max(lengths.factors(b), default=1) <= 11)
    assert (4_194_301 in chosen) is False


def test_the_public_name_of_fast_lengths():
    assert convolution.fast_length is lengths.fast_length


def test_short_lines_are_not_padded_where_they_are_multiplied_by_a_matrix():
    for n in (13, 23, 37, 61):
        assert lengths.is_short(n)
        assert lengths.padded((n,), True, 8, 16) == (n,)
        assert lengths.padded((300, n), True, 16, 16) == (300, n)
    assert lengths.padded((61,), False, 16, 16) != (61,)
    assert [n for n in (1, 2, 25, 26, 27, 64, 67) if lengths.is_short(n)] == [2, 25, 26]
