"""Complex numbers and Fourier transforms in kernels."""

import cmath
from typing import Any

import numba
import numpy as np
import pytest

import nbad


@numba.njit
def functions(z):
    y = np.zeros(31, z.dtype)
    a, b, c = z
    y[0] = cmath.exp(a) - np.log(b)
    y[1] = cmath.sqrt(a) * np.sin(c)
    y[2] = cmath.cos(a) / np.tan(b)
    y[3] = cmath.sinh(a) * 2.0 - 3 * np.cosh(b)
    y[4] = cmath.tanh(a) + 1j * np.arcsin(b)
    y[5] = cmath.acos(a) - (0.5 - 2j) / np.arctan(b)
    y[6] = cmath.asinh(a) + np.arccosh(b) / (1.5 + 0.5j)
    y[7] = cmath.atanh(a) - np.exp(b) / 2.0
    y[15] = a**2 + b**3 + a**0
    y[16] = a**b + 2.0**c + a**-1.5 + a ** (0.5 + 1j)
    y[17] = abs(a) + 1j * np.abs(b)
    y[18] = np.conj(a) * b + c.conjugate() - np.conjugate(b)
    y[19] = cmath.phase(a) + np.angle(b) * c + np.angle(c, deg=True)
    modulus, argument = cmath.polar(a)
    y[20] = complex(modulus, argument * b.real)
    y[21] = cmath.rect(abs(a), b.imag)
    y[22] = complex(a.real * b.imag, 2) + complex(1.5, a.imag) - complex(b) + complex(c.real)
    y[23] = -a + (+b) - np.real(a) * np.imag(b)
    y[24] = np.square(a) - np.reciprocal(b)
    y[25] = cmath.log10(a) + np.log2(b)
    y[26] = np.expm1(a) + np.log1p(b)
    y[27] = 1j * a.real.conjugate() + a.imag.real + b.real.imag
    y[28] = cmath.exp(a.real) + cmath.sqrt(b.imag)
    if a != b and a != 2 * a and not cmath.isnan(a) and np.isfinite(b):
        y[29] = a
    y[30] = a.real
    return y


@numba.njit
def families(z):
    a, b, c = z
    first = cmath.exp(a) / np.sqrt(b) - abs(c) * cmath.phase(a)
    return first * a**2 + b**c, 1j * np.conj(c) * cmath.tanh(b), a - 2.0 / c


@numba.njit
def rotate(out, z, angle):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            out[i, j] = z[i, j] * np.exp(1j * angle[j])


@numba.njit
def through_arrays(z, x, w):
    """Complex and real, plain and active, in loops, helpers, slices, tuples and views of parts."""
    turned = np.empty_like(z)
    rotate(turned, z, x)
    total = 0j
    real = 0.0
    for i in range(z.shape[0]):
        total += turned[i, 0] * w[0]
        total *= 1.0 + 0.1j
        real += turned[i, 1].real
        row = turned[i, 1:]
        row[0] += x[0]
        row[1] -= z[i, 0]
        row[0] *= 2
        row[1] /= 1.5 - w[1]
    mixed = 0.0
    mixed = mixed + total
    buffer = w.copy()
    buffer[0] = x[1]
    buffer[1] += total
    pair = (total, real, buffer[1])
    while abs(total) > 0.1:
        total = total * 0.5 + 1
        if total.real > 1.0:
            break
    turned.real[0, 0] = x[2] ** 2
    turned.imag[0, 1] += real
    return turned, total * np.conj(mixed), pair, turned.T.imag[1, 0], buffer


@numba.njit
def mandelbrot(c):
    z = 0j
    for _ in range(6):
        z = z * z + c
    return abs(z)


RNG = np.random.default_rng(5)
Z = np.array([0.4 + 0.3j, -0.6 + 0.8j, 0.7 - 0.2j])
IMAGE = RNG.random((2, 3)) + 1j * RNG.random((2, 3))
X = RNG.random(3)
W = RNG.random(2) + 1j * RNG.random(2)


def leaves_of(result: Any) -> list[Any]:
    return nbad.tree.leaves(result)


def loss_of(function: Any) -> Any:
    """Return a real function of the results that weighs each part in its own way."""

    def loss(*args: Any) -> Any:
        total = 0.0
        for k, leaf in enumerate(leaves_of(function(*args))):
            weights = np.random.default_rng(k).random((2, *np.shape(leaf)))
            part = leaf * weights[0] + (leaf * leaf) * (0.3 * weights[1])
            total = total + np.sum(np.real(part)) - 0.7 * np.sum(np.imag(part))
        return total

    return loss


def difference(function: Any, args: Any, k: int, step: float = 1e-6) -> Any:
    """Central differences of a real function in argument `k`: the gradient dL/dRe + i dL/dIm."""
    x = np.asarray(args[k])
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        for unit in (1, 1j) if np.iscomplexobj(x) else (1,):
            values = []
            for sign in (1, -1):
                moved = x.copy()
                moved[place] += sign * step * unit
                given = moved if isinstance(args[k], np.ndarray) else moved[()]
                values.append(function(*args[:k], given, *args[k + 1 :]))
            found[place] += unit * (values[0] - values[1]) / (2 * step)
    return found


CASES = [
    (functions, (Z,), (0,)),
    (through_arrays, (IMAGE, X, W), (0, 1, 2)),
    (mandelbrot, (0.2 + 0.3j,), (0,)),
]


@pytest.mark.parametrize(("kernel", "args", "asked"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_complex_gradients_agree_with_differences(kernel: Any, args: Any, asked: Any) -> None:
    value, gradients = nbad.value_and_grad(loss_of(nbad.njit(kernel)), asked)(*args)
    assert value == loss_of(kernel)(*args)
    for k, gradient in zip(asked, gradients, strict=True):
        expected = difference(loss_of(kernel), args, k)
        assert np.asarray(gradient).dtype == expected.dtype
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "args"), [(families, (Z,)), (through_arrays, (IMAGE, X, W))], ids=["families", "arrays"]
)
def test_complex_second_derivatives_agree_with_differences(kernel: Any, args: Any) -> None:
    loss = loss_of(nbad.njit(kernel))
    x = args[0]
    direction = (0.3 - 0.8j) * x
    step = 1e-6
    forward = nbad.grad(loss)(x + step * direction, *args[1:])
    back = nbad.grad(loss)(x - step * direction, *args[1:])
    found = nbad.hvp(loss)(*args, direction)
    np.testing.assert_allclose(found, (forward - back) / (2 * step), rtol=2e-6, atol=1e-7)


def test_a_compiled_function_calls_complex_kernels() -> None:
    kernel = nbad.njit(through_arrays)
    loss = nbad.compile(lambda z: loss_of(kernel)(2 * z, X, W))
    for z in (IMAGE, 1j * IMAGE):
        np.testing.assert_allclose(
            nbad.grad(loss)(z), 2 * nbad.grad(loss_of(kernel))(2 * z, X, W), rtol=1e-12
        )


def test_a_modulus_has_the_gradient_0_at_0() -> None:
    assert nbad.grad(nbad.njit(mandelbrot))(0j) == 0.0


@numba.njit
def single(z, x):
    y = np.zeros(z.size, z.dtype)
    for i in range(z.size):
        y[i] = z[i] * x[i] + np.exp(z[i]) * np.float32(2)
    return y


def test_complex64_stays() -> None:
    z, x = Z.astype(np.complex64), X.astype(np.float32)
    kernel = nbad.njit(single)
    for k, dtype in ((0, np.complex64), (1, np.float32)):
        gradient = nbad.grad(loss_of(kernel), k)(z, x)
        assert gradient.dtype == dtype
        expected = nbad.grad(loss_of(kernel), k)(Z, X)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    assert kernel(z, x).dtype == np.complex64


@numba.njit
def scaled(z, x):
    total = 0j
    for i in range(z.size):
        total += z[i] * x[i]
    return total


def test_a_complex_sum_writes_two_entries_a_step() -> None:
    """One for each part, and none for what is not asked for."""
    counts = []
    for wrt in (0, 1):
        with nbad.report() as account:
            nbad.grad(lambda z, x: np.real(nbad.njit(scaled)(z, x)), wrt)(Z, X)
        counts.append(account.entries)
    assert counts == [2 * Z.size, 2 * Z.size]


@numba.njit
def transforms(x, z, w):
    half = np.fft.rfft(x)
    back = np.fft.irfft(half, 7)
    padded = np.fft.fft(z, 6, norm="ortho")
    plane = np.fft.ifft2(z.reshape((2, 2)), (3, 1), norm="forward")
    box = np.fft.rfftn(x.reshape((2, 2, 2)), axes=(0, 2))
    box[0, 0, 0] *= np.fft.fft(w)[1]
    return half, back, padded, plane, box


SIGNAL = RNG.random(8)
WAVE = RNG.random(4) + 1j * RNG.random(4)


@pytest.mark.slow
def test_transforms_are_differentiated() -> None:
    loss, plain = loss_of(nbad.njit(transforms)), loss_of(transforms)
    value, gradients = nbad.value_and_grad(loss, (0, 1))(SIGNAL, WAVE, W)
    assert value == plain(SIGNAL, WAVE, W)
    for k, gradient in enumerate(gradients):
        expected = difference(plain, (SIGNAL, WAVE, W), k)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@numba.njit
def filtered(x, weights):
    total = 0.0
    spectrum = np.fft.rfft(x)
    for k in range(spectrum.size):
        spectrum[k] *= weights[k]
    y = np.fft.irfft(spectrum, x.size)
    for i in range(x.size):
        total += y[i] ** 2
    return total


def test_a_transform_is_one_block_of_the_tape() -> None:
    """Longer than a chunk of the tape; an element costs entries of its own only where it is multiplied and summed."""
    n = 2**18
    x = np.random.default_rng(1).random(n)
    weights = 0.5 / (1 + np.arange(n // 2 + 1.0))
    with nbad.report() as account:
        gradient = nbad.grad(filtered)(x, weights)
    bins = n // 2 + 1
    assert account.entries == 2 * bins + 2 * bins + n + n
    smooth = np.fft.irfft(np.fft.rfft(x) * weights**2, n)
    np.testing.assert_allclose(gradient, 2 * smooth, rtol=1e-9, atol=1e-12)
    x, weights = x[:8], weights[:5]
    smooth = np.fft.irfft(np.fft.rfft(x) * weights**2, 8)
    np.testing.assert_allclose(nbad.hvp(filtered)(x, weights, x), 2 * smooth, rtol=1e-12)


@numba.njit
def into(x):
    return np.fft.fft(x, out=np.empty(3, np.complex128))[0].real


def test_a_transform_into_an_array_is_refused() -> None:
    with pytest.raises(nbad.errors.NoRuleError, match="out="):
        nbad.grad(into)(X)


@numba.njit
def convolved(u, w):
    # One call: each compiles its own transforms.
    return nbad.convolve(u, w, "same")


@pytest.mark.slow
def test_convolutions_are_differentiated() -> None:
    """As nbad does the same outside of a kernel, in both orders."""
    args = (RNG.random(7), W)
    loss, plain = loss_of(nbad.njit(convolved)), loss_of(convolved.py_func)
    np.testing.assert_allclose(loss_of(convolved)(*args), plain(*args), rtol=1e-12)
    value, gradients = nbad.value_and_grad(loss, (0, 1))(*args)
    assert value == loss_of(convolved)(*args)
    for found, expected in zip(gradients, nbad.grad(plain, (0, 1))(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    found, expected = (nbad.hvp(one, 1)(*args, args[1]) for one in (loss, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@numba.njit
def along(u):
    return nbad.convolve(u, u, "full", 0)[0, 0]


def test_a_convolution_along_an_axis_is_refused() -> None:
    with pytest.raises(nbad.errors.NoRuleError, match="convolve"):
        nbad.grad(along)(np.ones((2, 2)))
