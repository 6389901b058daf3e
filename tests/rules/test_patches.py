"""Patches: values against slices, the laws, one buffer in the sweep, what is refused."""

import itertools
from typing import Any

import numpy as np
import pytest
from laws import Case, laws, same_bits

import nbad
from nbad.errors import DetachError
from nbad.kernels import memory, threads
from nbad.kernels import patches as windows

Shape = tuple[int, ...]
P1 = np.array([[0], [3], [2], [3]])
P2 = np.array([[0, 0], [2, 1], [1, 3], [2, 1]])
P3 = np.array([[0, 1, 0], [1, 0, 2]])
MANY = np.random.default_rng(5).integers(0, 200, (40, 2))


def case(name: str, positions: np.ndarray, window: Shape, shape: Shape, **options: Any) -> Case:
    """Return the case of windows at fixed positions; ``options`` of `Case`."""
    return Case(
        name,
        lambda x: nbad.patches(x, positions, window),
        [(shape, -1.0, 1.0)],
        complex_ok=True,
        **options,
    )


def added(w: Any) -> Any:
    """Add windows back: the pullback as a function."""
    return nbad.vjp(lambda x: nbad.patches(x, P2, (2, 3)), np.zeros((5, 6), w.dtype))[1](w)


CASES = [
    case("one axis", P1, (3,), (6,)),
    case("two axes, overlapping", P2, (2, 3), (5, 6), large=[((400, 400), -1.0, 1.0)]),
    case("many windows", MANY, (100, 90), (300, 310), dtypes=("f8",), large=[((300, 310), -1.0, 1.0)],
         off={"second": "as with few windows", "jitted": "as with few windows", "layouts": "as with few windows"}),
    case("three axes", P3, (2, 1, 2), (3, 2, 4)),
    case("batches", P2, (3, 2), (2, 3, 5, 5)),
    case("one window, the whole array", np.zeros((1, 2), int), (4, 5), (4, 5)),
    case("no window", np.zeros((0, 2), int), (2, 2), (4, 5)),
    Case(
        "as used for ptychography",
        lambda x, probe: np.sum(np.abs(np.fft.fft2(probe * nbad.patches(x, P2, (2, 3)))) ** 2, axis=0),
        [((5, 6), -1.0, 1.0), ((2, 3), -1.0, 1.0)],
        dtypes=("c16",),
        exact=False,
    ),
    Case(
        "windows added back",
        added,
        [((4, 2, 3), -1.0, 1.0)],
        complex_ok=True,
        exact=False,
        off={"masked": "the function sweeps a tape of its own, whose rules the report counts too"},
    ),
]  # fmt: skip

TestLaws = laws(CASES)


def numbers(shape: Shape, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "window", "positions"),
    [((6,), (3,), P1), ((5, 6), (2, 3), P2), ((2, 3, 5, 6), (3, 2), P2), ((3, 2, 4), (2, 1, 2), P3), ((4, 5), (0, 2), P2)],
)  # fmt: skip
def test_values_and_sums(shape: Shape, window: Shape, positions: np.ndarray) -> None:
    x = numbers(shape)
    y, pullback = nbad.vjp(lambda x: nbad.patches(x, positions, window), x)
    w = numbers(y.shape)
    expected, back = np.zeros_like(y), np.zeros_like(x)
    middle = len(shape) - len(window)
    for k, place in enumerate(positions):
        inside = (..., *(slice(p, p + n) for p, n in zip(place, window, strict=True)))
        at = (slice(None),) * middle + (k,)
        expected[at] = x[inside]
        back[inside] += w[at]
    assert same_bits(nbad.patches(x, positions, window), expected)
    assert same_bits(y, expected)
    assert same_bits(pullback(w), back)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "i8", "u8"])
def test_positions_of_any_integer_type(dtype: str) -> None:
    x = numbers((5, 6))
    found, cotangent = nbad.value_and_grad(lambda x: np.sum(nbad.patches(x, P2.astype(dtype), (2, 3))))(x)
    assert found == np.sum(nbad.patches(x, P2.tolist(), [2, 3]))
    assert cotangent.sum() == 4 * 6


def test_into_a_target_of_any_layout() -> None:
    g = numbers((3, 4, 2, 3))
    expected = np.zeros((3, 5, 6))
    windows.add(g, P2, expected)
    for target in (
        np.zeros((3, 5, 6), order="F"),
        np.zeros((3, 5, 6), ">f8"),
        np.zeros((3, 5, 12))[..., ::2],
    ):
        windows.add(g, P2, target)
        np.testing.assert_array_equal(target, expected)


def test_after_a_cotangent_in_another_order() -> None:
    x, a = numbers((5, 6)), numbers((6, 5))
    found = nbad.grad(lambda x: np.sum(nbad.patches(x, P2, (2, 3))) + np.sum((2 * a) * np.transpose(x) * 3))(
        x
    )
    expected = 6 * a.T
    for i, j in P2:
        expected[i : i + 2, j : j + 3] += 1
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_one_buffer_in_the_sweep_however_many_calls() -> None:
    x = numbers((1024, 512))  # large enough for the account of blocks
    _, pullback = nbad.vjp(
        lambda x: sum(np.sum(nbad.patches(x, np.array([[k, 2 * k]]), (8, 8))) for k in range(20)), x
    )
    before = memory.allocated()
    cotangent = pullback(np.float64(1))
    after = memory.allocated()
    assert (after.fresh + after.reused) - (before.fresh + before.reused) == 1  # least: what is returned
    assert cotangent.sum() == 20 * 64


def test_positions_may_be_overwritten_before_the_sweep() -> None:
    places = P2.copy()
    y, pullback = nbad.vjp(lambda x: nbad.patches(x, places, (2, 3)), numbers((5, 6)))
    right = pullback(np.ones_like(y))
    places[...] = 0
    assert same_bits(pullback(np.ones_like(y)), right)


def test_only_positions_are_kept() -> None:
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(nbad.patches(x, P2, (2, 3))))(numbers((500, 600)))
    assert account.bytes_kept + account.bytes_borrowed <= P2.nbytes


def test_as_many_bits_with_two_threads() -> None:
    x, before, found = numbers((300, 301), np.float32), threads.get_threads(), []
    try:
        for count in (1, 2):
            threads.set_threads(count)
            y, pullback = nbad.vjp(lambda x: nbad.patches(x, MANY, (100, 101)), x)
            found.append((y, pullback(y)))
    finally:
        threads.set_threads(before)
    assert all(itertools.starmap(same_bits, zip(*found, strict=True)))


@pytest.mark.parametrize(
    ("positions", "shape", "error", "message"),
    [
        (P2 + 3, (2, 3), IndexError, r"window 0 at \(3, 3\) of shape \(2, 3\) is not inside .* \(4, 5\)"),
        (P2 - 1, (2, 2), IndexError, "window 0 at"),
        ([[0, 2], [0, 4]], (2, 3), IndexError, "window 1 at"),
        (P2 * 1.0, (2, 3), TypeError, "positions are integers, not float64"),
        (P2, (2,), ValueError, r"have shape \(k, 1\)"),
        (P2[0], (2, 3), ValueError, r"have shape \(k, 2\), not \(2,\)"),
        (P3, (1, 1, 1), ValueError, "windows of 3 axes in an array of 2"),
        (np.zeros((1, 0), int), (), ValueError, "one or more lengths"),
        (P2, (2, -1), ValueError, "one or more lengths"),
    ],
)
def test_what_is_refused(positions: Any, shape: Any, error: type[Exception], message: str) -> None:
    x = numbers((4, 5))
    for call in (
        lambda: nbad.patches(x, positions, shape),
        lambda: nbad.vjp(lambda x: nbad.patches(x, positions, shape), x),
    ):
        with pytest.raises(error, match=message):
            call()


def test_positions_carry_no_derivative() -> None:
    with pytest.raises(DetachError, match="positions of patches"):
        nbad.grad(lambda p: np.sum(nbad.patches(np.ones(5), p, 2)))(np.array([[1.0]]))


def test_compiled_with_other_positions() -> None:
    @nbad.compile
    def loss(x: Any, positions: Any) -> Any:
        return np.sum(nbad.patches(x, positions, (2, 3)) ** 3)

    x = numbers((5, 6))
    for positions in (P2, P2[::-1].copy(), P2 * 0, P2):
        expected = nbad.grad(lambda x: np.sum(nbad.patches(x, positions, (2, 3)) ** 3))(x)  # noqa: B023
        np.testing.assert_allclose(nbad.grad(loss)(x, positions), expected, rtol=1e-13)
    assert loss.report().recordings == 1
    with pytest.raises(IndexError, match="not inside"):
        nbad.grad(loss)(x, P2 + 3)
