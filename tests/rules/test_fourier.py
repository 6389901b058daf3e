"""Fourier transforms: numpy.fft under the laws, what NumPy refuses, and the pairs of adjoints."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, REAL, WIDE, Case, laws

import nbad
import nbad.rules.fourier
import nbad.rules.rearranging
from nbad.errors import NoRuleError

BOTH = REAL + COMPLEX
# Later cases of a function run in double precision: they differ in what Python does, not in kernels.
DOUBLE = ("f8",)
LARGE = (128, 1025)


def case(
    name: str, shape: tuple[int, ...], dtypes: tuple[str, ...], *, large: bool = False, **options: Any
) -> Case:
    """Return the case of the function `name` of numpy.fft on numbers of this shape."""
    function: Callable[..., Any] = getattr(np.fft, name)
    text = ", ".join(f"{key}={value}" for key, value in options.items())
    return Case(
        f"{name} {'x'.join(map(str, shape))} {text}".strip(),
        functools.partial(function, **options),
        [(shape, -1.0, 1.0)],
        dtypes=dtypes,
        exact=False,
        large=[(LARGE, -1.0, 1.0)] if large else None,
    )


CASES = [
    # Whole spectra of one axis: odd and even, each norm, cut and padded, another axis, length 1 and 2.
    *(
        case(name, shape, dtypes, **options)
        for name in ("fft", "ifft")
        for shape, dtypes, options in (
            ((5,), BOTH, {}),
            ((2, 6), BOTH, {"norm": "ortho"}),
            ((6, 2), WIDE, {"axis": 0, "norm": "forward", "n": 4}),
            ((2, 5), WIDE, {"n": 8, "norm": "backward"}),
        )
    ),
    case("fft", (3, 1), WIDE),
    case("ifft", (3, 5), WIDE, n=2),
    case("fft", (3, 5), WIDE, n=1),
    # Several axes: any order, some of them, cut here and padded there, named twice.
    case("fftn", (2, 3, 4), BOTH, large=True),
    case("ifftn", (3, 4), BOTH, axes=(1, 0), norm="ortho"),
    case("fftn", (3, 2, 5), WIDE, s=(2, 4), axes=(2, 0), norm="forward"),
    case("ifftn", (3, 2, 5), WIDE, s=(-1, 4), axes=(0, -1)),
    case("fftn", (3, 4), WIDE, s=(2, 4, 5), axes=(0, 1, 0)),
    case("ifftn", (3, 4), WIDE, axes=(1, 1)),
    case("fft2", (2, 3, 4), BOTH),
    case("ifft2", (3, 4, 2), BOTH, s=(5, 2), axes=(0, 1), norm="forward"),
    # Half spectra from real arrays.
    case("rfft", (5,), REAL),
    case("rfft", (2, 6), DOUBLE, norm="ortho"),
    case("rfft", (6, 2), DOUBLE, axis=0, norm="forward", n=4),
    case("rfft", (2, 5), DOUBLE, n=8),
    case("rfft", (3, 1), DOUBLE),
    case("rfft", (3, 2), DOUBLE),
    case("rfftn", (2, 3, 4), REAL, large=True),
    case("rfftn", (2, 3, 5), DOUBLE, norm="ortho"),
    case("rfftn", (4, 3, 5), DOUBLE, axes=(2, 0)),
    case("rfftn", (5, 3, 4), DOUBLE, s=(7, 2), axes=(-1, 0), norm="forward"),
    case("rfftn", (3, 4), DOUBLE, axes=(1, 0, 1)),
    case("rfft2", (2, 3, 4), REAL, s=(2, 5)),
    # Real arrays from half spectra; the first and, at even length, the last bin have no mirror image.
    case("irfft", (4,), BOTH),
    case("irfft", (2, 4), WIDE, n=7, norm="ortho"),
    case("irfft", (4, 2), WIDE, axis=0, norm="forward", n=4),
    case("irfft", (2, 3), WIDE, n=9),
    case("irfft", (3, 2), WIDE, n=1),
    case("irfft", (3, 2), WIDE),
    case("irfftn", (2, 3, 4), BOTH, large=True),
    case("irfftn", (2, 3, 3), WIDE, s=(2, 3, 5), axes=(0, 1, 2), norm="ortho"),
    case("irfftn", (4, 3, 5), WIDE, axes=(2, 0)),
    case("irfftn", (3, 2, 4), WIDE, s=(6, 3), axes=(-1, 0), norm="forward"),
    case("irfftn", (3, 4), WIDE, axes=(1, 0, 1)),
    case("irfft2", (2, 3, 4), BOTH, s=(2, 5)),
    # Spectra of arrays with Hermitian symmetry.
    case("hfft", (2, 4), BOTH),
    case("hfft", (4, 3), WIDE, n=5, axis=0, norm="forward"),
    case("hfft", (5,), WIDE, n=6, norm="ortho"),
    case("ihfft", (2, 6), REAL),
    case("ihfft", (5, 2), DOUBLE, axis=0, norm="forward"),
    case("ihfft", (5,), DOUBLE, n=8, norm="ortho"),
    # Shifts.
    case("fftshift", (4, 5), BOTH),
    case("fftshift", (4, 5), WIDE, axes=1),
    case("ifftshift", (4, 5), BOTH),
    case("ifftshift", (3, 4, 5), WIDE, axes=(0, 2)),
    # As they are used.
    Case(
        "cyclic convolution",
        lambda u, v: np.real(np.fft.ifftn(np.fft.fftn(u) * np.fft.fftn(v))),
        [((3, 4), -1.0, 1.0), ((3, 4), -1.0, 1.0)],
        complex_ok=True,
        exact=False,
    ),
    Case(
        "cyclic convolution by half spectra",
        lambda u, v: np.fft.irfftn(np.fft.rfftn(u) * np.fft.rfftn(v), s=(3, 5), axes=(0, 1)) ** 2,
        [((3, 5), -1.0, 1.0), ((3, 5), -1.0, 1.0)],
        exact=False,
    ),
]

TestLaws = laws(CASES)


@pytest.mark.parametrize(
    "name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fftn", "ifftn", "rfftn", "irfftn"]
)
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_adjoint_is_the_conjugate_transpose_of_the_matrix(name: str, n: int) -> None:
    function = getattr(np.fft, name)
    given_real = name in ("rfft", "ihfft", "rfftn")
    m = n // 2 + 1 if name in ("irfft", "hfft", "irfftn") else n
    options: dict[str, Any] = {"s": (n,), "axes": (0,)} if name.endswith("fftn") else {"n": n}
    units = np.eye(m) if given_real else np.concatenate([np.eye(m), 1j * np.eye(m)])
    columns = [function(unit, **options) for unit in units]
    value, pullback = nbad.vjp(lambda x: function(x, **options), np.zeros(m, units.dtype))
    w = np.arange(1.0, value.size + 1) + (0.5j if value.dtype.kind == "c" else 0)
    entries = [np.real(np.vdot(column, w)) for column in columns]
    expected = entries if given_real else np.array(entries[:m]) + 1j * np.array(entries[m:])
    np.testing.assert_allclose(pullback(w), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["fft", "rfft", "irfft", "hfft", "ihfft", "fft2", "rfftn", "irfft2"])
def test_empty_batches(name: str) -> None:
    x = np.zeros((0, 3, 4), np.complex64 if name in ("irfft", "hfft", "irfft2") else np.float32)
    options = {"axes": (1, 2)} if name == "rfftn" else {}
    function = getattr(np.fft, name)
    value, pullback = nbad.vjp(lambda x: function(x, **options), x)
    expected = function(x, **options)
    assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
    cotangent = pullback(value)
    assert (cotangent.shape, cotangent.dtype) == (x.shape, x.dtype)


def test_a_transform_over_no_axes_is_the_array() -> None:
    x = np.arange(3.0)
    value, pullback = nbad.vjp(lambda x: np.fft.fftn(x, axes=()), x)
    assert value.dtype == np.float64
    np.testing.assert_array_equal(pullback(np.ones(3)), np.ones(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: np.fft.fft(x, 0), ValueError, r"data points \(0\)"),
        (lambda x: np.fft.fft(x, norm="both"), ValueError, "Invalid norm value both"),
        (lambda x: np.fft.fft(x, axis=2), np.exceptions.AxisError, "out of bounds"),
        (lambda x: np.fft.fftn(x, s=(3,), axes=(0, 1)), ValueError, "different lengths"),
        (lambda x: np.fft.rfft(x * 1j), TypeError, "complex128"),
        (lambda x: np.fft.rfftn(x, axes=()), IndexError, "index"),
        (lambda x: np.fft.fft(x, n=2.5), TypeError, "integer"),
    ],
)
def test_what_numpy_refuses_is_refused(call: Any, error: type[Exception], message: str) -> None:
    x = np.ones((2, 3))
    with pytest.raises((error, IndexError)):
        call(x)
    with pytest.raises(error, match=message):
        nbad.vjp(call, x)


@pytest.mark.parametrize(
    ("name", "length"), [("fft", 0), ("rfft", 0), ("irfft", 1), ("hfft", 1), ("fftn", 0)]
)
def test_a_transform_of_nothing_is_refused(name: str, length: int) -> None:
    function, x = getattr(np.fft, name), np.ones((2, length))
    for call in (lambda: function(x), lambda: nbad.vjp(function, x)):
        with pytest.raises(ValueError, match=r"data points \(0\)"):
            call()


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2"])
def test_an_output_array_is_refused(name: str) -> None:
    with pytest.raises(NoRuleError, match=rf"np\.fft\.{name} with out="):
        nbad.vjp(lambda x: getattr(np.fft, name)(x, out=np.zeros((2, 3))), np.ones((2, 3)))


@pytest.mark.parametrize("name", ["rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"])
def test_an_output_array_is_refused_over_several_axes(name: str) -> None:
    with pytest.raises(NoRuleError, match=rf"np\.fft\.{name} with out="):
        nbad.vjp(lambda x: getattr(np.fft, name)(x, out=np.zeros((2, 3))), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("options", "message"), [({"s": (2,)}, "`axes`"), ({"s": (None, 2), "axes": (0, 1)}, "None")]
)
def test_deprecated_arguments_warn_as_in_numpy(options: dict[str, Any], message: str) -> None:
    x = np.arange(6.0).reshape(2, 3)
    with pytest.warns(DeprecationWarning, match=message):
        expected = np.fft.fftn(x, **options)
    with pytest.warns(DeprecationWarning, match=message) as caught:
        value, _ = nbad.vjp(lambda x: np.fft.fftn(x, **options), x)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(value, expected)


def test_nothing_is_kept() -> None:
    x = np.random.default_rng(0).standard_normal((8, 9))
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(np.fft.irfft2(np.fft.rfft2(x, s=(6, 10)), s=(5, 7))))(x)
    assert account.bytes_kept == 0
    assert account.bytes_borrowed == 0
