"""Convolution by blocks: the laws of segments and their sums, results of whole transforms, counts, when it is chosen."""

import functools
from typing import Any

import numpy as np
import pytest
from laws import Case, laws, same_bits
from scipy import signal

import nbad
from nbad.kernels import threads
from nbad.rules import overlap
from nbad.trace import apply

Shape = tuple[int, ...]
NAMES = ("convolve", "correlate")


def segments(x: Any, axis: int, step: int, start: int, count: int, width: int) -> Any:
    return apply(overlap.SEGMENTS, x, axis=axis, step=step, start=start, count=count, width=width)


def overlap_add(w: Any, axis: int, step: int, start: int, length: int) -> Any:
    return apply(overlap.OVERLAP_ADD, w, axis=axis, step=step, start=start, length=length)


def segments_case(shape: Shape, *numbers: int, **options: Any) -> Case:
    names = dict(zip(("axis", "step", "start", "count", "width"), numbers, strict=True))
    return Case(
        f"segments {shape} {names}",
        functools.partial(segments, **names),
        [(shape, -1.0, 1.0)],
        complex_ok=True,
        **options,
    )


def overlap_case(shape: Shape, *numbers: int, **options: Any) -> Case:
    names = dict(zip(("axis", "step", "start", "length"), numbers, strict=True))
    return Case(
        f"overlap_add {shape} {names}", functools.partial(overlap_add, **names), [(shape, -1.0, 1.0)], complex_ok=True,
        **options,
    )  # fmt: skip


def blocks(
    name: str, n: Shape, m: Shape, mode: str, dtypes: tuple[str, ...] = ("f8",), **options: Any
) -> Case:
    return Case(
        f"{name} {mode} {n} by {m} in blocks",
        functools.partial(getattr(nbad, name), mode=mode, method="overlap-add", **options),
        [(n, -1.0, 1.0), (m, -1.0, 1.0)],
        dtypes=dtypes,
        exact=False,
    )


CASES = [
    segments_case((7,), 0, 3, 0, 3, 3),
    segments_case((2, 7, 2), 1, 2, 1, 4, 5),
    segments_case((9, 2), 0, 4, -2, 2, 3),
    segments_case((100, 64), 0, 7, 3, 15, 12, dtypes=("f8",), large=[((3000, 64), -1.0, 1.0)]),
    overlap_case((3, 3), 0, 3, 0, 7),
    overlap_case((2, 4, 5, 2), 1, 2, 1, 7),
    overlap_case((3, 4), 0, 6, 2, 20),
    overlap_case((4, 9), 0, 2, 3, 6),
    overlap_case((30, 20), 0, 15, 3, 430, dtypes=("f8",), large=[((30, 9000), -1.0, 1.0)]),
    *(blocks(name, (700,), (9,), mode) for name in NAMES for mode in ("full", "same", "valid")),
    *(blocks(name, (9,), (700,), mode) for name in NAMES for mode in ("full", "same")),
    blocks("convolve", (2, 700), (1, 6), "same", ("f4", "c16"), axes=1),
    blocks("correlate", (1, 700), (2, 6), "full", ("c16",), axes=1),
    blocks("convolve", (20, 30), (2, 3), "full"),
]

TestLaws = laws(CASES)


def numbers(*shapes: Shape, dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype == "c16" else 0)).astype(
            dtype
        )
        for shape in shapes
    ]


@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    ("n", "m"),
    [
        ((3000,), (20,)),
        ((20,), (3000,)),
        ((300, 200), (5, 7)),
        ((2000, 50), (20, 60)),
        ((40, 90, 3), (3, 20, 3)),
        ((900,), (800,)),
        ((4,), (3,)),
    ],
)
def test_values_and_gradients_are_those_of_whole_transforms(
    n: Shape, m: Shape, mode: str, dtype: str
) -> None:
    u, v = numbers(n, m, dtype=dtype)
    if mode == "valid" and n == (2000, 50):
        v = v[:, :40]
    for name in NAMES:
        found = {}
        for method in ("fft", "overlap-add"):
            function = functools.partial(getattr(nbad, name), mode=mode, method=method)
            y, pullback = nbad.vjp(function, u, v, wrt=(0, 1))
            found[method] = (y, *pullback(y))
        np.testing.assert_allclose(
            found["overlap-add"][0], getattr(signal, name)(u, v, mode, "fft"), atol=1e-10
        )
        for one, other in zip(*found.values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-9 * np.abs(other).max())


def test_it_is_what_scipy_calls_oaconvolve() -> None:
    u, v = numbers((4, 5000), (1, 30))
    for mode in ("full", "same", "valid"):
        expected = signal.oaconvolve(u, v, mode, axes=-1)
        np.testing.assert_allclose(nbad.convolve(u, v, mode, -1, "overlap-add"), expected, atol=1e-12)
        np.testing.assert_allclose(
            nbad.convolve(u, v, mode, -1, "fft"), signal.fftconvolve(u, v, mode, -1), atol=1e-12
        )


@pytest.mark.parametrize(("wrt", "sweep"), [(0, 2), (1, 2), ((0, 1), 3)])
@pytest.mark.parametrize("name", NAMES)
def test_never_more_transforms_than_of_whole_arrays(name: str, wrt: Any, sweep: int) -> None:
    u, v = numbers((9000,), (20,))
    with nbad.report() as forward:
        y, pullback = nbad.vjp(functools.partial(getattr(nbad, name), method="overlap-add"), u, v, wrt=wrt)
    with nbad.report() as account:
        pullback(y)
    assert forward.ffts == 3  # least: of u, of v, and back; each counts once, in however many blocks
    assert account.ffts == sweep  # least: the cotangent there, and back to each


def test_the_kernels_spectrum_is_short() -> None:
    u, v = numbers((200_000,), (20,))
    with nbad.report() as blocks:
        nbad.vjp(functools.partial(nbad.convolve, method="overlap-add"), u, v, wrt=0)
    with nbad.report() as whole:
        nbad.vjp(functools.partial(nbad.convolve, method="fft"), u, v, wrt=0)
    assert blocks.bytes_kept < 1e-2 * whole.bytes_kept


@pytest.mark.parametrize(
    ("n", "m", "mode", "axes", "chosen"),
    [
        ((1 << 16,), (100,), "full", None, True),
        ((100,), (1 << 16,), "valid", None, True),
        ((2, 1 << 16), (1, 100), "same", 1, True),
        ((1 << 16, 1), (100, 1), "same", None, True),
        ((1 << 16,), (1 << 14,), "full", None, False),
        ((1 << 17,), (2049,), "full", None, False),
        ((1 << 17,), (2048,), "full", None, True),
        ((1 << 15,), (100,), "full", None, False),
        ((1 << 16,), (100,), "wrap", None, False),
        ((1 << 16, 2), (100, 2), "full", None, False),
    ],
)
def test_when_it_is_chosen(n: Shape, m: Shape, mode: str, axes: Any, chosen: bool) -> None:
    u, v = numbers(n, m)
    with nbad.report() as account:
        _, pullback = nbad.vjp(lambda u: nbad.convolve(u, v, mode, axes), u)
        pullback(nbad.convolve(u, v, mode, axes, "fft"))
    assert bool(account.run("overlap_add", "w")) == chosen


def test_as_many_bits_with_two_threads() -> None:
    u, v = numbers((150_000,), (300,))
    before, found = threads.get_threads(), []
    try:
        for count in (1, 2):
            threads.set_threads(count)
            y, pullback = nbad.vjp(lambda u, v: nbad.convolve(u, v, "same"), u, v, wrt=(0, 1))
            found.append([y, *pullback(u)])
    finally:
        threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        assert same_bits(one, two)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name: str) -> None:
    u, v = numbers((9,), (3,))
    with pytest.raises(
        ValueError, match=f"{name}: method must be 'auto', 'fft' or 'overlap-add', not 'direct'"
    ):
        getattr(nbad, name)(u, v, method="direct")
    with pytest.raises(ValueError, match=f"{name}: mode 'wrap' is cyclic"):
        getattr(nbad, name)(u, v, "wrap", method="overlap-add")
