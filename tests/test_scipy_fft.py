"""scipy.fft on traced values: every function against SciPy itself, its argument conventions, and SciPy left alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft

import nbad
from nbad import scipy_fft
from nbad.errors import NoRuleError
from nbad.testing import check_grads

SPECTRA = [name for name in scipy_fft.FUNCTIONS if "ct" not in name and "st" not in name]
ONE = [name for name in SPECTRA if not name.endswith(("2", "n"))]
SEVERAL = [name for name in SPECTRA if name not in ONE]


def numbers(name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Return numbers that the function `name` takes: complex ones where it does."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    if not name.startswith(("rfft", "ihfft")):
        return np.asarray(x + 1j * rng.standard_normal(shape), np.result_type(dtype, np.complex64))
    return x.astype(dtype)


def check(name: str, x: np.ndarray, **options: Any) -> None:
    """Compare value, dtype and gradient with SciPy's."""
    function = getattr(scipy.fft, name)
    expected = function(x.copy(), **options)
    value, pullback = nbad.vjp(lambda x: function(x, **options), x)
    assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
    tolerance = 1e-5 if x.real.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
    # <J v, w> = <v, J* w> with J v from SciPy: the functions are linear.
    rng = np.random.default_rng(1)
    w = rng.standard_normal(value.shape) + (
        1j * rng.standard_normal(value.shape) if value.dtype.kind == "c" else 0
    )
    w = w.astype(value.dtype)
    left, right = np.vdot(expected, w).real, np.vdot(x, pullback(w)).real
    np.testing.assert_allclose(left, right, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 3, "axis": 0},
        {"n": 9, "norm": "ortho"},
        {"norm": "forward", "axis": -2},
        {"n": 7, "workers": 2, "overwrite_x": True},
    ],
)
def test_over_one_axis(name: str, dtype: Any, options: dict[str, Any]) -> None:
    check(name, numbers(name, (4, 6), dtype), **options)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"s": (5, 3)},
        {"axes": (2, 0), "norm": "ortho"},
        {"s": (3, 7), "axes": (0, -1)},
        {"s": (-1, 6), "axes": (1, 2)},
        {"axes": 1},
        {"s": 4, "axes": 0, "norm": "forward"},
    ],
)
def test_over_several_axes(name: str, options: dict[str, Any]) -> None:
    check(name, numbers(name, (3, 4, 5)), **options)
    check(name, numbers(name, (3, 4, 5), np.float32), **options)


def test_real_input_of_complex_transforms() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    for name in ("fft", "ifft", "fftn", "ifftn", "fft2", "irfft", "hfft", "irfftn", "hfftn"):
        check(name, x)


def test_second_order() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    check_grads(lambda x: np.sum(np.abs(scipy.fft.rfftn(x)) ** 2 * scipy.fft.dctn(x)[:, :3]), (x,), order=2)


@pytest.mark.parametrize("name", ["fftshift", "ifftshift"])
def test_shifts(name: str) -> None:
    check(name, np.random.default_rng(0).standard_normal((3, 4)), axes=1)
    check(name, np.random.default_rng(0).standard_normal((3, 4)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: scipy.fft.fft(x, 0), ValueError, "data points"),
        (lambda x: scipy.fft.fft(x, axis=2), ValueError, "axes exceeds"),
        (lambda x: scipy.fft.fftn(x, axes=(0, 0)), ValueError, "unique"),
        (lambda x: scipy.fft.fftn(x, axes=(0, 2)), ValueError, "axes exceeds"),
        (lambda x: scipy.fft.fftn(x, s=(2, 2, 2)), ValueError, "more axes"),
        (lambda x: scipy.fft.fftn(x, s=(2,), axes=(0, 1)), ValueError, "same length"),
        (lambda x: scipy.fft.fftn(x, s=2.5), ValueError, "integers"),
        (lambda x: scipy.fft.rfftn(x, axes=()), ValueError, "at least 1 axis"),
        (lambda x: scipy.fft.irfftn(x, axes=()), ValueError, "at least 1 axis"),
        (lambda x: scipy.fft.hfftn(x, axes=()), ValueError, "at least 1 axis"),
        (lambda x: scipy.fft.rfft(x * 1j), TypeError, "complex128"),
        (lambda x: scipy.fft.fft(x, norm="both"), ValueError, "both"),
        (lambda x: scipy.fft.fft(x, workers=0), ValueError, "workers"),
        (lambda x: scipy.fft.dct(x, workers=-10_000), ValueError, "workers"),
    ],
)
def test_what_scipy_refuses_is_refused(call: Any, error: type[Exception], message: str) -> None:
    x = np.ones((2, 3))
    with pytest.raises((error, IndexError)):
        call(x)
    with pytest.raises(error, match=message):
        nbad.vjp(call, x)


def test_a_plan_is_refused() -> None:
    with pytest.raises(NoRuleError, match=r"(?s)scipy\.fft with plan=.*Leave it out"):
        nbad.vjp(lambda x: scipy.fft.fft(x, plan=1), np.ones(3))


def test_a_transform_over_no_axes_is_the_array() -> None:
    np.testing.assert_array_equal(
        nbad.grad(lambda x: np.sum(scipy.fft.fftn(x, axes=())))(np.ones(3)), np.ones(3)
    )


def test_functions_without_a_rule_are_refused() -> None:
    with pytest.raises(NoRuleError, match=r"scipy\.fft\.fht"):
        nbad.vjp(lambda x: scipy.fft.fht(x, 0.1, 0.0), np.ones(4))


def test_every_function_that_scipy_dispatches_is_here_or_refused() -> None:
    refused = {"fht", "ifht"}
    kinds = type(scipy.fft.fft)
    dispatched = {name for name in scipy.fft.__all__ if isinstance(getattr(scipy.fft, name), kinds)}
    assert dispatched - set(scipy_fft.FUNCTIONS) <= refused | {
        "fftfreq", "rfftfreq", "fftshift", "ifftshift", "next_fast_len", "prev_fast_len", "fhtoffset",
        "set_backend", "skip_backend", "set_global_backend", "register_backend", "get_workers", "set_workers",
    }  # fmt: skip
    assert set(scipy_fft.FUNCTIONS) <= set(scipy.fft.__all__)


def test_plain_arrays_are_scipys_own() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    with scipy.fft.skip_backend(scipy_fft.Backend):
        expected = {name: getattr(scipy.fft, name)(numbers(name, (4, 5))) for name in scipy_fft.FUNCTIONS}
    with nbad.report() as account:
        for name in scipy_fft.FUNCTIONS:
            assert getattr(scipy.fft, name)(numbers(name, (4, 5))).tobytes() == expected[name].tobytes()
        assert scipy.fft.fft(list(x[0])).shape == (5,)
    assert account.ffts == 0
    assert scipy_fft.Backend.__ua_convert__((), False) is NotImplemented


def test_with_nbads_backend_skipped_a_traced_array_is_not_taken() -> None:
    with scipy.fft.skip_backend(scipy_fft.Backend), pytest.raises(nbad.NbadError):
        nbad.vjp(lambda x: scipy.fft.fft(x), np.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["import scipy.fft, nbad", "import nbad, scipy.fft", "import nbad"])
def test_in_any_order_of_imports(order: str) -> None:
    program = (
        f"{order}\n"
        "import numpy as np\n"
        "def f(x):\n"
        "    from scipy import fft\n"
        "    return np.sum(fft.dct(x) ** 2)\n"
        "assert np.allclose(nbad.grad(f)(np.array([1.0, 0.0])), [12.0, 4.0])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(nbad.__file__).parents[1])


@pytest.mark.slow
def test_without_scipy_nothing_is_registered() -> None:
    program = (
        "import sys\n"
        "sys.modules['scipy'] = None\n"
        "import nbad, nbad.scipy_fft, numpy as np\n"
        "assert nbad.scipy_fft.enable() is False\n"
        "assert np.allclose(nbad.grad(lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2))(np.ones(2)), 4)\n"
        "assert 'scipy.fft' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(nbad.__file__).parents[1])
