"""How many transforms a gradient runs, and what it keeps, beside the least that is possible without compiling.

NumPy itself transforms arrays that are not traced; these transforms are counted here by `transform`, all others by the report.
The forward of a convolution takes three: of u, of v, and back. Each pullback takes one. What two branches share,
the transform of the cotangent, takes one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbad
import nbad.rules.fourier
from nbad.report import Report

N = 64


class Transforms:
    """The forward transform as the user calls it; counts the calls that NumPy serves by itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.plain = 0

    def __call__(self, x: Any) -> Any:
        self.plain += isinstance(x, np.ndarray)
        return self.function(x)


@pytest.fixture
def fft() -> Transforms:
    return Transforms(np.fft.fft)


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(N), rng.standard_normal(N)


def counted(function: Callable[..., Any], *args: Any, wrt: Any = 0) -> Report:
    """Return the account of one gradient."""
    with nbad.report() as account:
        nbad.grad(function, wrt)(*args)
    return account


def conv(fft: Transforms, u: Any, v: Any) -> Any:
    return np.real(np.fft.ifft(fft(u) * fft(v)))


@pytest.mark.parametrize("power", [1, 2])
def test_the_seed_by_one_operand(fft: Transforms, images: Any, power: int) -> None:
    account = counted(lambda u, v: np.sum(conv(fft, u, v) ** power), *images)
    # Least: 5. Forward fft(u), fft(v), ifft; sweep: the cotangent there, and back to u.
    assert account.ffts == 4
    assert fft.plain == 1
    assert account.run("c2c", "x") == 1
    assert account.run("r2c_full", "x") == 1
    assert account.run("multiply", "b") == 0


@pytest.mark.parametrize("power", [1, 2])
def test_the_seed_by_both_operands(fft: Transforms, images: Any, power: int) -> None:
    account = counted(lambda u, v: np.sum(conv(fft, u, v) ** power), *images, wrt=(0, 1))
    # Least: 6. Forward 3; sweep: the cotangent once for both, and back to each.
    assert account.ffts == 6
    assert fft.plain == 0
    assert account.run("c2c", "x") == 1
    assert account.run("r2c_full", "x") == 2


@pytest.mark.parametrize(("wrt", "least", "plain"), [(0, 5, 1), (1, 5, 1), ((0, 1), 6, 0)])
def test_half_spectra(images: Any, wrt: Any, least: int, plain: int) -> None:
    rfft = Transforms(np.fft.rfft)
    account = counted(lambda u, v: np.sum(np.fft.irfft(rfft(u) * rfft(v)) ** 2), *images, wrt=wrt)
    assert account.ffts == least - plain
    assert rfft.plain == plain


@pytest.mark.parametrize(
    "names", [("fftn", "ifftn"), ("rfftn", "irfftn"), ("fft2", "ifft2"), ("rfft2", "irfft2")]
)
def test_a_transform_over_several_axes_is_one(names: tuple[str, str]) -> None:
    forward, back = (getattr(np.fft, name) for name in names)
    x = np.random.default_rng(0).standard_normal((6, 8))
    account = counted(lambda x: np.sum(np.real(back(2 * forward(x))) ** 2), x)
    assert account.ffts == 4  # least: 2 forward, 2 in the sweep


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_padding_cutting_and_scaling_take_no_transform(norm: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 6))

    def loss(x: Any) -> Any:
        half = np.fft.rfft2(x, s=(8, 4), axes=(1, 0), norm=norm)
        return np.sum(np.fft.irfft2(half, s=(3, 9), axes=(1, 0), norm=norm) ** 2)

    assert counted(loss, x).ffts == 4  # least: 2 forward, 2 in the sweep


def test_a_fixed_kernel(fft: Transforms, images: Any) -> None:
    u, v = images
    v_hat = np.fft.fft(v)
    account = counted(lambda u: np.sum(np.real(np.fft.ifft(fft(u) * v_hat)) ** 2), u)
    assert account.ffts == 4  # least: 4, the spectrum of v is at hand
    assert fft.plain == 0


def test_the_value_costs_nothing_more(fft: Transforms, images: Any) -> None:
    with nbad.report() as account:
        nbad.value_and_grad(lambda u, v: np.sum(conv(fft, u, v) ** 2))(*images)
    assert account.ffts + fft.plain == 5  # least: 5


def test_what_feeds_an_operand_that_is_not_asked_for(fft: Transforms, images: Any) -> None:
    def loss(u: Any, w: Any) -> Any:
        blurred = np.real(np.fft.ifft(fft(w) * 0.5))
        return np.sum(conv(fft, u, blurred) ** 2)

    account = counted(loss, *images)
    assert account.ffts == 4  # least: fft(u), ifft, 2 in the sweep; none for w but NumPy's own
    assert fft.plain == 2  # fft(w), fft(blurred)
    account = counted(loss, *images, wrt=1)
    assert account.ffts == 8  # least: fft(w), ifft, fft(blurred), ifft, 4 in the sweep; fft(u) is NumPy's


def test_a_stopped_operand(fft: Transforms, images: Any) -> None:
    account = counted(lambda u, v: np.sum(conv(fft, u, nbad.stop_gradient(v)) ** 2), *images, wrt=(0, 1))
    assert account.ffts == 4  # least: fft(u), ifft, 2 in the sweep
    assert fft.plain == 1


def test_a_spectrum_that_the_loss_does_not_use(fft: Transforms, images: Any) -> None:
    def loss(u: Any, v: Any) -> Any:
        np.abs(np.fft.ifft(fft(v) * 2.0))
        return np.sum(conv(fft, u, u) ** 2)

    account = counted(loss, *images, wrt=(0, 1))
    # Forward 5 as written; least in the sweep 3: ifft, and back to u from each factor. None for the unused branch.
    assert account.ffts == 8
    assert account.run("r2c_full", "x") == 2
    assert account.skipped("r2c_full", "x") == 1
    assert account.skipped("c2c", "x") == 1


def test_one_leaf_of_a_container(fft: Transforms, images: Any) -> None:
    params = {"img": images[0], "psf": images[1]}
    account = counted(lambda p: np.sum(conv(fft, p["img"], p["psf"]) ** 2), params, wrt="p.img")
    assert account.ffts == 4  # least: fft(img), ifft, 2 in the sweep; nothing for psf
    assert fft.plain == 1


def test_a_pullback_used_again(fft: Transforms, images: Any) -> None:
    value, pullback = nbad.vjp(lambda u: conv(fft, u, images[1]), images[0])
    for _ in range(2):
        with nbad.report() as account:
            pullback(value)
        assert account.ffts == 2  # least: 2, the forward is not repeated


def test_a_product_with_the_hessian(fft: Transforms, images: Any) -> None:
    u, v = images
    v_hat = np.fft.fft(v)
    gradient = nbad.grad(lambda u: np.sum(np.real(np.fft.ifft(fft(u) * v_hat)) ** 2))
    account = counted(lambda u: np.sum(gradient(u) * v), u)
    # Least when the gradient is evaluated too: 4 for it, and the adjoint of each.
    assert account.ffts == 8


def test_several_reports_and_none(fft: Transforms, images: Any) -> None:
    gradient = nbad.grad(lambda u, v: np.sum(conv(fft, u, v)))
    with nbad.report() as outer:
        gradient(*images)
        with nbad.report() as inner:
            gradient(*images)
    gradient(*images)
    assert (outer.ffts, inner.ffts) == (8, 4)


@pytest.mark.parametrize(("wrt", "least"), [(0, 24), (1, 24), ((0, 1), 40)])
def test_bytes_kept(images: Any, fft: Transforms, wrt: Any, least: int) -> None:
    account = counted(lambda u, v: np.sum(conv(fft, u, v) ** 2), *images, wrt=wrt)
    # Least per sample: 8 for the squared value, 16 for the spectrum that each running pullback reads.
    assert account.bytes_kept + account.bytes_borrowed == least * N


def test_a_linear_loss_keeps_one_spectrum(images: Any, fft: Transforms) -> None:
    account = counted(lambda u, v: np.sum(conv(fft, u, v)), *images)
    assert account.bytes_kept + account.bytes_borrowed == 16 * N
