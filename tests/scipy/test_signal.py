"""``scipy.signal`` on traced values."""

import inspect

import numpy as np
import pytest
import scipy.signal
from compiled_cases import compiled_laws
from laws import Case, Uniform, laws

import nbad
from nbad.errors import NoRuleError
from nbad.scipy import signal

T = ((17,), -1.0, 1.0)
LONG = ((2, 30), -1.0, 1.0)
B = ((3,), 0.5, 1.0)


def stable(count):
    """Draw a denominator whose filter dies out."""

    def draw(rng, dtype):
        a = Uniform((count,), -0.3, 0.3)(rng, dtype)
        a[0] = 1.25
        return a

    return draw


def sections(rng, dtype):
    """Draw two second-order sections that die out."""
    return rng.uniform(0.2, 0.4, (2, 5)).astype(dtype)


def by_sections(function):
    """Return a function of the sections without the leading ones that SciPy wants to see in each."""

    def run(parts, *args):
        one = np.ones((2, 1), parts.dtype)
        return function(np.concatenate([parts[:, :3], one, parts[:, 3:]], axis=1), *args)

    return run


def pair(name, first, second, **options):
    function = getattr(signal, name)
    title = f"{name}, {', '.join(map(str, options.values()))}, {first} {second}"
    return Case(
        title, lambda u, v: function(u, v, **options), [(first, -1.0, 1.0), (second, -1.0, 1.0)],
        complex_ok=True, exact=False,
    )  # fmt: skip


CASES = [
    *(
        pair(name, first, second, mode=mode)
        for name in ("convolve", "correlate", "fftconvolve", "oaconvolve")
        for mode, first, second in (
            ("full", (9,), (4,)),
            ("same", (9,), (4,)),
            ("valid", (9,), (4,)),
            ("valid", (4,), (9,)),
            ("same", (4, 5), (2, 3)),
        )
    ),
    pair("convolve", (9,), (4,), mode="same", method="direct"),
    pair("fftconvolve", (3, 9), (1, 4), axes=1),
    pair("oaconvolve", (1, 9), (3, 4), mode="same", axes=1),
    *(
        pair(name, (4, 5), (2, 3), mode=mode, boundary=boundary, fillvalue=0.5)
        for name in ("convolve2d", "correlate2d")
        for mode, boundary in (
            ("full", "fill"), ("same", "fill"), ("same", "symm"), ("full", "wrap"), ("valid", "symm")
        )
    ),
    pair("correlate2d", (2, 3), (4, 6), mode="valid"),
    pair("convolve2d", (3, 2), (4, 5), mode="same", boundary="wrap"),
    pair("correlate2d", (3, 2), (4, 5), mode="full", boundary="symm"),
    Case("lfilter", signal.lfilter, [B, stable(4), T], complex_ok=True, exact=True),
    Case("lfilter, axis", lambda b, a, x: signal.lfilter(b, a, x, axis=0), [((4,), 0.5, 1.0), stable(2), ((6, 3), -1.0, 1.0)]),
    Case("lfilter, FIR", lambda b, x: signal.lfilter(b, 1.0, x), [B, LONG], dtypes=("f8", "c16")),
    Case(
        "lfilter, zi", lambda b, a, x, zi: signal.lfilter(b, a, x, zi=zi),
        [B, stable(4), T, ((3,), -1.0, 1.0)], exact=False, complex_ok=True,
    ),
    Case(
        "lfilter, zi longer than x", lambda b, a, x, zi: signal.lfilter(b, a, x, 0, zi),
        [B, stable(5), ((2, 3), -1.0, 1.0), ((4, 1), -1.0, 1.0)], exact=False,
    ),
    Case("lfilter_zi", signal.lfilter_zi, [B, stable(4)], exact=False),
    Case("lfilter_zi, longer b", signal.lfilter_zi, [((5,), 0.5, 1.0), stable(3)], exact=False),
    *(
        Case(
            f"filtfilt, {padtype}", lambda b, a, x, padtype=padtype: signal.filtfilt(b, a, x, padtype=padtype),
            [B, stable(3), LONG], exact=False,
        )
        for padtype in ("odd", "even", "constant", None)
    ),
    Case("filtfilt, padlen", lambda b, a, x: signal.filtfilt(b, a, x, 0, padlen=4), [B, stable(3), T], exact=False),
    Case("sosfilt", by_sections(signal.sosfilt), [sections, LONG], exact=False),
    Case(
        "sosfilt, zi", by_sections(lambda s, x, zi: signal.sosfilt(s, x, zi=zi)),
        [sections, T, ((2, 2), -1.0, 1.0)], exact=False,
    ),
    Case("sosfilt_zi", by_sections(signal.sosfilt_zi), [sections], exact=False),
    Case("sosfiltfilt", by_sections(signal.sosfiltfilt), [sections, LONG], exact=False),
    Case("detrend", signal.detrend, [LONG]),
    Case("detrend, constant", lambda x: signal.detrend(x, 0, "constant"), [LONG]),
    Case("detrend, breaks", lambda x: signal.detrend(x, bp=[7, 20]), [LONG]),
    *(
        Case(
            f"savgol_filter, {mode}, {window}",
            lambda x, mode=mode, window=window: signal.savgol_filter(x, window, 2, mode=mode, cval=0.3),
            [LONG], exact=False,
        )
        for mode, window in (
            ("interp", 5), ("mirror", 5), ("nearest", 5), ("wrap", 5), ("constant", 5), ("interp", 6), ("nearest", 4)
        )
    ),
    Case("savgol_filter, slope", lambda x: signal.savgol_filter(x, 7, 3, 1, 0.5, axis=0), [((9, 2), -1.0, 1.0)], exact=False),
    Case("hilbert, even", lambda x: signal.hilbert(x), [((2, 8), -1.0, 1.0)], exact=False),
    Case("hilbert, odd", lambda x: signal.hilbert(x, 7, 0), [((9, 2), -1.0, 1.0)], exact=False),
    *(
        Case(
            f"resample, {n} to {num}", lambda x, num=num: signal.resample(x, num),
            [((n, 2), -1.0, 1.0)], complex_ok=True, exact=False,
        )
        for n, num in ((8, 5), (8, 6), (8, 12), (7, 9), (7, 4), (6, 6))
    ),
    Case("resample, window", lambda x: signal.resample(x, 6, axis=1, window="hann"), [LONG], dtypes=("f8",), exact=False),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [
        ((4, 1, 9), (1, 3, 5), -1),
        ((6, 1), (1, 4), None),
        ((1, 9), (4, 5), 1),
        ((4, 5), (1, 9), 1),
        ((), (), None),
    ],
)
def test_axes_of_length_one_have_the_same_values_traced_and_plain(name, mode, first, second, axes) -> None:
    rng = np.random.default_rng(0)
    u, v = np.asarray(rng.normal(size=first)), np.asarray(rng.normal(size=second))
    expected = getattr(scipy.signal, name)(u, v, mode, axes=axes)
    value, _ = nbad.vjp(lambda u: getattr(signal, name)(u, v, mode, axes=axes), u)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, atol=1e-12)


def test_convolutions_along_axes_want_as_many_dimensions_as_scipy() -> None:
    with pytest.raises(ValueError, match="same dimensionality"):
        nbad.grad(lambda u: np.sum(signal.fftconvolve(u, np.ones((2, 4)), axes=-1)))(np.ones(9))


def test_every_function_has_a_case():
    assert set(signal.DIFFERENTIABLE) == {case.name.partition(",")[0] for case in CASES}


@pytest.mark.parametrize("name", signal.DIFFERENTIABLE)
def test_arguments_are_those_of_scipy(name):
    mine, theirs = (inspect.signature(getattr(m, name)).parameters for m in (signal, scipy.signal))
    assert list(mine) == list(theirs)
    assert [p.default for p in mine.values()] == [p.default for p in theirs.values()]


def test_plain_arrays_get_the_object_that_scipy_makes():
    x = np.arange(9.0)
    assert type(signal.hilbert(x)) is np.ndarray
    np.testing.assert_array_equal(
        signal.lfilter([1.0], [1.0, 0.5], x), scipy.signal.lfilter([1.0], [1.0, 0.5], x)
    )
    assert signal.butter is not None and signal.medfilt(x).shape == (9,)


def test_each_operand_of_a_filter_runs_its_own_pullback_only():
    b, a, x = np.array([1.0, 0.5]), np.array([1.0, -0.3]), np.arange(5.0)
    for name in "bax":
        with nbad.report() as account:
            nbad.grad(lambda b, a, x: np.sum(signal.lfilter(b, a, x) ** 2), wrt=name)(b, a, x)
        assert {o for op, o in account.rules_run if op == "scipy.signal.lfilter"} == {name}


def test_functions_without_a_rule_are_refused():
    x = np.arange(9.0)
    with pytest.raises(NoRuleError, match=r"scipy\.signal\.medfilt"):
        nbad.grad(lambda x: np.sum(signal.medfilt(x)))(x)
    with pytest.raises(NoRuleError, match="gust"):
        nbad.grad(lambda x: np.sum(signal.filtfilt([1.0], [1.0, 0.5], x, method="gust")))(x)
    with pytest.raises(AttributeError, match="nothing"):
        _ = signal.nothing
