"""Order: partitions, medians and quantiles in all their forms, with and without nan."""

import warnings
from typing import Any

import numpy as np
import pytest
from compiled_cases import compiled_laws
from laws import Case, Spaced, laws, squared

import nbad

S = Spaced((3, 4), -1.0, 0.2)
CUBE = Spaced((2, 3, 4), -2.0, 0.1)
LINE = Spaced((7,), -1.0, 0.3)
WEIGHTS = ((7,), 0.5, 1.0)
METHODS = (
    "linear", "lower", "higher", "nearest", "midpoint", "hazen", "weibull", "median_unbiased", "normal_unbiased",
    "inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf",
)  # fmt: skip
Q = [0.0, 0.13, 0.5, 0.77, 1.0]


def case(name, function, *arguments, **options):
    return Case(name, squared(function), arguments, **{"exact": False} | options)


def holed(x):
    """Return `x` with nan in it, one row all but gone."""
    mask = np.zeros(x.shape, bool)
    mask[0, 1:] = mask[1, 2] = True
    return np.where(mask, np.nan, x)


def lowest(x):
    """Return what a partition says: the elements below the third, in no order."""
    return np.sort(np.partition(x, 2, axis=0)[:2], axis=0)


CASES = [
    case("partition", lowest, S),
    case("partition flat", lambda x: np.partition(x, 5, axis=None)[5], S),
    case("partition several", lambda x: np.partition(x, (1, -1))[..., [1, -1]], CUBE),
    Case("sort_complex", lambda x: np.sort_complex(x), [LINE], dtypes=("f4", "f8")),
    Case("sort_complex of complex", lambda x: np.sort_complex(x), [((5,), -1.0, 1.0)], dtypes=("c16",)),
    case("median", np.median, S),
    case("median odd", lambda x: np.median(x, axis=0), S),
    case("median axes", lambda x: np.median(x, axis=(0, -1), keepdims=True), CUBE),
    case("median kept", lambda x: np.median(x, axis=1, keepdims=True), CUBE),
    case("nanmedian", lambda x: np.nanmedian(holed(x)), S),
    case("nanmedian rows", lambda x: np.nanmedian(holed(x), axis=1), S),
    case("nanmedian kept", lambda x: np.nanmedian(holed(x), axis=0, keepdims=True), S),
    case("percentile", lambda x: np.percentile(x, 30), S),
    case("percentile many", lambda x: np.percentile(x, [[10, 50], [77.5, 100.0]], axis=1), CUBE, dtypes=("f8",)),
    case("percentile kept", lambda x: np.percentile(x, [20, 40], axis=(0, 2), keepdims=True), CUBE, dtypes=("f8",)),
    *(case(f"quantile {m}", lambda x, m=m: np.quantile(x, Q, axis=0, method=m), CUBE, dtypes=("f8",)) for m in METHODS),
    *(case(f"nanquantile {m}", lambda x, m=m: np.nanquantile(holed(x), Q, axis=1, method=m), S, dtypes=("f8",))
      for m in METHODS),
    case("quantile of a number", lambda x: np.quantile(x, 0.4, axis=-1), S),
    case("quantile weighted", lambda x: np.quantile(x, [0.2, 0.7], method="inverted_cdf", weights=np.arange(1.0, 8)),
         LINE, dtypes=("f8",)),
    case("quantile weighted rows", lambda x: np.quantile(x, 0.4, axis=1, method="inverted_cdf", weights=np.ones((3, 4))),
         S),
    case("nanquantile weighted", lambda x: np.nanquantile(
        np.where(np.arange(7) == 2, np.nan, x), 0.6, method="inverted_cdf", weights=np.arange(1.0, 8)), LINE),
    case("quantile in its place", lambda x, q: np.quantile(x, q), LINE, ((3,), 0.2, 0.29)),
    case("percentile in its place", lambda x, q: np.percentile(x, q, axis=1, method="weibull"), S, ((2,), 43.0, 57.0)),
    case("nanpercentile", lambda x: np.nanpercentile(holed(x), 60), S),
    case("nanpercentile rows", lambda x: np.nanpercentile(holed(x), [25.0, 60.0], axis=1, keepdims=True), S,
         dtypes=("f8",)),
    case("nanmax", lambda x: np.nanmax(holed(x)), S),
    case("nanmax rows", lambda x: np.nanmax(holed(x), axis=1, keepdims=True), S),
    case("nanmax where", lambda x: np.nanmax(holed(x), axis=0, initial=-9, where=np.arange(4) > 0), S),
    case("nanmin", lambda x: np.nanmin(holed(x), axis=0), S),
    case("nanmin axes", lambda x: np.nanmin(x, axis=(0, 2)), CUBE),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)

BAD = {
    "range": (lambda x: np.percentile(x, 101), ValueError, "range"),
    "range of quantiles": (lambda x: np.quantile(x, -0.5), ValueError, "range"),
    "method": (lambda x: np.quantile(x, 0.5, method="best"), ValueError, "not a valid method"),
    "weights": (lambda x: np.quantile(x, 0.5, weights=np.ones(12)), ValueError, "inverted_cdf"),
    "complex": (lambda x: np.quantile(x + 1j, 0.5), TypeError, "real"),
    "axis": (lambda x: np.median(x, axis=2), np.exceptions.AxisError, "out of bounds"),
    "kth": (lambda x: np.partition(x, 7), ValueError, "out of bounds"),
    "out": (lambda x: np.median(x, out=np.zeros(())), nbad.NoRuleError, "out="),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


@pytest.mark.parametrize("function", [np.median, lambda x, axis: np.quantile(x, [0.2, 0.9], axis=axis)])
def test_a_nan_makes_the_result_nan(function: Any) -> None:
    x = np.array([[1.0, np.nan, 2.0], [3.0, 1.0, 2.0]])
    value, _ = nbad.vjp(lambda x: function(x, axis=1), x)
    np.testing.assert_array_equal(value, function(x, axis=1))


@pytest.mark.parametrize(
    "function",
    [np.nanmedian, np.nanmax, np.nanmin, lambda x, axis: np.nanpercentile(x, 20.0, axis=axis)],
)
def test_a_line_of_nan_gives_nan_and_a_warning(function: Any) -> None:
    x = np.array([[np.nan, np.nan], [3.0, 1.0]])
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        value, pullback = nbad.vjp(lambda x: function(x, axis=1), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(value, function(x, axis=1))
    assert pullback(np.ones(2))[1].sum() == 1.0


def test_only_the_elements_of_a_median_get_a_cotangent() -> None:
    assert nbad.grad(np.median)(np.array([5.0, 1.0, 2.0, 9.0])).tolist() == [0.5, 0.0, 0.5, 0.0]
    assert nbad.grad(np.median)(np.array([5.0, 1.0, 2.0])).tolist() == [0.0, 0.0, 1.0]
