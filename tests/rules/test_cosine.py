"""Cosine and sine transforms: scipy.fft under the laws, their adjoints as matrices, what is refused."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import scipy.fft
from laws import COMPLEX, REAL, WIDE, Case, laws

import nbad
import nbad.scipy_fft
from nbad.errors import NoRuleError

NAMES = ("dct", "idct", "dst", "idst")
BOTH = REAL + COMPLEX
Shape = tuple[int, ...]


def case(name: str, shape: Shape, dtypes: tuple[str, ...], *, large: bool = False, **options: Any) -> Case:
    """Return the case of the function `name` of scipy.fft on numbers of this shape."""
    text = ", ".join(f"{key}={value}" for key, value in options.items())
    return Case(
        f"{name} {'x'.join(map(str, shape))} {text}".strip(),
        functools.partial(getattr(scipy.fft, name), **options),
        [(shape, -1.0, 1.0)],
        dtypes=dtypes,
        exact=False,
        large=[((128, 1025), -1.0, 1.0)] if large else None,
    )


CASES = [
    # Every type, the norms by turns, odd and even lengths.
    *(
        case(name, (2, n), BOTH, type=kind, norm=norm)
        for name in NAMES
        for kind, n, norm in ((1, 5, None), (2, 6, "ortho"), (3, 4, "forward"), (4, 5, "backward"))
    ),
    # Orthogonal ends without the factor and the factor without them.
    *(
        case(name, (n,), ("f8",), type=kind, norm=norm, orthogonalize=on)
        for name in NAMES
        for kind, n, norm, on in (
            (1, 4, "ortho", False),
            (2, 5, None, True),
            (3, 5, "ortho", False),
            (4, 4, "forward", True),
        )
    ),
    # Cut, padded, another axis, length 1.
    case("dct", (4, 3), WIDE, n=6, axis=0),
    case("idst", (4, 3), WIDE, n=2, axis=-2, type=3, norm="forward"),
    case("dst", (3, 1), ("f8",), type=2, norm="ortho"),
    # Several axes.
    *(case(f"{name}n", (3, 4, 5), BOTH, large=True, norm="ortho") for name in NAMES),
    *(case(f"{name}n", (3, 4, 5), ("f8",), type=3, s=(6, 2), axes=(2, 0)) for name in NAMES),
    case("dctn", (3, 4), ("f8",), type=1, norm="forward", orthogonalize=True),
    case("idstn", (3, 4), ("f8",), type=1, s=3),
    case("dctn", (3, 4), ("f8",), type=2, axes=-2, s=(-1,)),
]

TestLaws = laws(CASES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_the_adjoint_is_the_transposed_matrix(name: str, kind: int, norm: Any) -> None:
    for on, n in itertools.product((None, False, True), (2, 5, 8)):
        function = functools.partial(getattr(scipy.fft, name), type=kind, norm=norm, orthogonalize=on)
        matrix = np.array([function(unit) for unit in np.eye(n)]).T
        value, pullback = nbad.vjp(function, np.ones(n))
        np.testing.assert_allclose(value, matrix @ np.ones(n), rtol=1e-12, atol=1e-13)
        adjoint = np.array([pullback(unit) for unit in np.eye(n)]).T
        np.testing.assert_allclose(adjoint, matrix.T, rtol=1e-12, atol=1e-13)


def test_one_transform_there_and_one_back() -> None:
    x = np.random.default_rng(0).standard_normal((8, 9))
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(scipy.fft.dctn(x, norm="ortho")))(x)
    assert account.ffts == 2  # least: one there, one back
    assert account.bytes_kept + account.bytes_borrowed == 0


def test_without_axes_it_is_the_array() -> None:
    value, pullback = nbad.vjp(lambda x: scipy.fft.dctn(x, axes=()), np.arange(3.0))
    np.testing.assert_array_equal(value, np.arange(3.0))
    np.testing.assert_array_equal(pullback(np.ones(3)), np.ones(3))


def test_empty_batches() -> None:
    value, pullback = nbad.vjp(lambda x: scipy.fft.dst(x), np.zeros((0, 3), np.float32))
    assert (value.shape, value.dtype) == ((0, 3), np.float32)
    assert pullback(value).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: scipy.fft.dct(x, type=1, n=1), "data points"),
        (lambda x: scipy.fft.dct(x, n=0), "data points"),
        (lambda x: scipy.fft.dst(x, norm="both"), "Invalid norm value 'both'"),
        (lambda x: scipy.fft.dct(x, axis=2), "axes exceeds"),
        (lambda x: scipy.fft.dctn(x, axes=(0, 0)), "unique"),
        (lambda x: scipy.fft.dctn(x, s=(3,), axes=(0, 1)), "same length"),
    ],
)
def test_what_scipy_refuses_is_refused(call: Any, message: str) -> None:
    x = np.ones((2, 3))
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        call(x)
    with pytest.raises(ValueError, match=message):
        nbad.vjp(call, x)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid type 5 of idctn"):
        nbad.vjp(lambda x: scipy.fft.idctn(x, type=5), np.ones(3))


def test_what_scipy_ignores_is_refused() -> None:
    z = np.array([1.0 + 2.0j, 3.0, 1.0j])
    with pytest.raises(NoRuleError, match=r"transform x\.real and x\.imag"):
        nbad.vjp(lambda z: scipy.fft.dct(z, orthogonalize=True), z)
    value, _ = nbad.vjp(lambda z: scipy.fft.dct(z, norm="ortho", orthogonalize=True), z)
    np.testing.assert_allclose(value, scipy.fft.dct(z, norm="ortho"))
