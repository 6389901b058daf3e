"""Own the choice of lengths: which transform fast, and when a cyclic length is worth padding.

A transform of a length with a large prime factor costs several times one of a length without. Where only a
cyclic convolution is wanted, such an axis may take part in a linear convolution of at least twice its length,
whose second half is added to the first. What is cheaper is decided by an estimate of the work, so that it is
the same in every process.
"""

from __future__ import annotations

import functools
import itertools
import math

__all__ = ["factors", "fast_length", "halves", "is_short", "padded", "work"]

COLUMN = 1 << 12
"""Bytes of the spectrum of a column, for lines of the usual lengths: a block of them fits into the cache."""

PASS = 20.0
"""Work of one pass over memory, per element, in units of `work`."""

ALONE = 3.0
"""How much more work costs in a line alone, where vector instructions find nothing to do."""

LARGEST_FACTOR = 11
"""Largest prime factor of a fast length."""

SHORT = 25
"""Length of a real line up to which a product with the matrix of its transform is faster."""

SHORT_AWKWARD = 64
"""As `SHORT`, where the length has a factor that is larger than `LARGEST_FACTOR`."""


def factors(n: int) -> list[int]:
    """Return the prime factors of n in ascending order.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    list of int
        Their product is n.
    """
    found = []
    prime = 2
    while prime * prime <= n:
        while n % prime == 0:
            found.append(prime)
            n //= prime
        prime += 1
    return found + [n] if n > 1 else found


def _is_awkward(n: int) -> bool:
    """Return whether a length has a large prime factor."""
    return max(factors(n), default=1) > LARGEST_FACTOR


def is_short(n: int) -> bool:
    """Return whether real lines of this length are multiplied by the matrix of their transform.

    Parameters
    ----------
    n : int
        The length, at least 1.

    Returns
    -------
    bool
        False for 1, which needs no transform.
    """
    return 1 < n <= (SHORT_AWKWARD if _is_awkward(n) else SHORT)


@functools.lru_cache(4096)
def fast_length(n: int, real: bool) -> int:
    """Return the least length from `n` on that transforms fast.

    Parameters
    ----------
    n : int
        The length that is needed, at least 1.
    real : bool
        Whether it is the halved axis of a real transform; then it is even, for an even one is transformed at
        half its length.

    Returns
    -------
    int
        A product of 2, 3, 5, 7 and at most one 11.
    """
    step = 2 if real and n > 1 else 1
    candidate = -(-n // step) * step
    while True:
        rest = candidate
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest in (1, LARGEST_FACTOR):
            return candidate
        candidate += step


def _direct(n: int) -> float:
    """Return the work of a transform by the factors of its length."""
    return n * sum(prime if prime <= 5 else 1.1 * prime for prime in factors(n))


@functools.lru_cache(4096)
def work(n: int) -> float:
    """Return an estimate of the work of one transform.

    Parameters
    ----------
    n : int
        The length.

    Returns
    -------
    float
        In units of about one multiplication and addition of complex numbers: pocketfft's own estimate,
        which also takes the cheaper of factors and Bluestein's convolution.
    """
    direct = _direct(n)
    return direct if n < 50 else min(direct, 3.0 * _direct(fast_length(2 * n - 1, False)))


@functools.lru_cache(1024)
def halves(n: int, real: bool, itemsize: int) -> tuple[int, int]:
    """Return the two factors of a long line that make pieces of good sizes; (1, n) for a prime.

    Parameters
    ----------
    n : int
        The length, at least 1.
    real : bool
        Whether the line is real: its columns then have half the bins.
    itemsize : int
        Bytes of a complex element: 8 or 16.

    Returns
    -------
    n1, n2 : int
        Lengths of columns and rows.
    """
    divisors = [1]
    for prime in factors(n):
        divisors = sorted({d * f for d in divisors for f in (1, prime)})
    twice = 2 if real else 1
    aim = min(math.sqrt(twice * n), twice * max(COLUMN / itemsize, math.sqrt(n) / 8))
    ratios = [max(d / aim, aim / d) for d in divisors]
    n1 = divisors[ratios.index(min(ratios))]
    return n1, n // n1


def _line(n: int, real: bool, itemsize: int, shortest: int) -> float:
    """Return the work of a line alone: in four steps where its factors allow it."""
    alone = ALONE * work(n)
    n1, n2 = halves(n, real, itemsize)
    if min(n1, n2) < shortest:
        return alone
    return min(alone, n2 * work(n1) + n1 * work(n2) + PASS * n)


def _box(true: tuple[int, ...], n: tuple[int, ...]) -> float:
    """Return the work of a convolution in several axes, of data of the true lengths in a box of lengths n."""
    total = PASS * (2 * true[0] * math.prod(n[1:]) + math.prod(n))
    for k in range(len(n)):
        total += 2 * math.prod(true[:k]) * work(n[k]) * math.prod(n[k + 1 :])
    return total


@functools.lru_cache(256)
def padded(n: tuple[int, ...], real: bool, itemsize: int, shortest: int) -> tuple[int, ...]:
    """Return the lengths at which a cyclic convolution is cheapest.

    Parameters
    ----------
    n : tuple of int
        The cyclic lengths.
    real : bool
        Whether the data are real.
    itemsize : int
        Bytes of a complex element.
    shortest : int
        Least factor of a line in four steps.

    Returns
    -------
    tuple of int
        For each axis its length, or a fast length of at least twice that.
    """
    choices = []
    for k, length in enumerate(n):
        halved = real and k == len(n) - 1
        awkward = _is_awkward(length) and not (halved and is_short(length))
        choices.append((length, fast_length(2 * length, halved)) if awkward else (length,))
    best, least = n, math.inf
    for lengths in itertools.product(*choices):
        cost = _line(lengths[0], real, itemsize, shortest) if len(n) == 1 else _box(n, lengths)
        if cost < least:
            best, least = lengths, cost
    return best
