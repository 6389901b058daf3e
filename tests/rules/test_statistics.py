"""Statistics: convolutions of sequences, covariances, histograms."""

import numpy as np
import pytest
from compiled_cases import compiled_laws
from laws import Case, Spaced, laws, squared

import nbad

TABLE = ((3, 5), -2.0, 2.0)
LINE = ((5,), -2.0, 2.0)
SHORT = ((3,), -2.0, 2.0)
BOTH = {"dtypes": ("f8", "c16")}
X = Spaced((9,), -1.0, 0.31)
ONE = {"layouts": "a number has one layout"}


def case(name, function, *arguments, **options):
    return Case(name, squared(function), arguments, **{"exact": False, "dtypes": ("f8",)} | options)


def spread(x):
    """Return a function of what only the spread of the samples decides."""
    return np.corrcoef(x)[0, 1:]


PAIRS = {"": (LINE, SHORT), " turned": (SHORT, LINE), " even": (((6,), -2.0, 2.0), ((4,), -2.0, 2.0)),
         " even turned": (((4,), -2.0, 2.0), ((6,), -2.0, 2.0)), " of one": (((1,), -2.0, 2.0), LINE)}  # fmt: skip
CASES = [
    *(
        Case(f"{function.__name__} {mode}{name}", lambda a, v, f=function, m=mode: f(a, v, m), pair, complex_ok=True,
             exact=False)
        for function in (np.convolve, np.correlate) for mode in ("full", "same", "valid") for name, pair in PAIRS.items()
    ),
    case("convolve curved", np.convolve, LINE, SHORT, **BOTH),
    case("correlate curved", np.correlate, LINE, SHORT, **BOTH),
    case("cov", np.cov, TABLE, **BOTH),
    case("cov of columns", lambda x: np.cov(x, rowvar=False, bias=True), TABLE, dtypes=("f4", "f8")),
    case("cov of two", lambda x, y: np.cov(x, y, ddof=0), TABLE, LINE),
    case("cov of two columns", lambda x, y: np.cov(x, y, rowvar=False), ((5, 2), -2.0, 2.0), ((5, 3), -2.0, 2.0)),
    case("cov of a line", np.cov, LINE),
    case("cov of lines", lambda x, y: np.cov(x, y), LINE, LINE),
    case("cov weighted", lambda x, w: np.cov(x, aweights=w), TABLE, ((5,), 0.5, 1.5)),
    case("cov weighted, biased", lambda x, w: np.cov(x, aweights=w, bias=True), TABLE, ((5,), 0.5, 1.5)),
    case("cov repeated", lambda x: np.cov(x, fweights=[1, 3, 2, 1, 2]), TABLE),
    case("cov repeated and weighted", lambda x, w: np.cov(x, fweights=[1, 3, 2, 1, 2], aweights=w), TABLE,
         ((5,), 0.5, 1.5)),
    case("corrcoef", spread, TABLE, **BOTH),
    case("corrcoef of two", lambda x, y: np.corrcoef(x, y, rowvar=False)[0, 1:], ((5, 2), -2.0, 2.0), LINE),
    case("histogram weights", lambda w: np.histogram(np.arange(9.0), 4, weights=w)[0], ((9,), -2.0, 2.0), **BOTH),
    case("histogram density", lambda w: np.histogram(np.arange(9.0), [0.0, 1.0, 4.0, 7.5], weights=w, density=True)[0],
         ((9,), 0.5, 2.0)),
    case("histogram edges", lambda x: np.histogram(x, 3)[1], X),
    case("histogram of a density", lambda x: np.histogram(x, 3, density=True)[0], X),
    case("histogram in its bins", lambda x, b: np.histogram(x, b, density=True), X,
         lambda rng, dtype: np.array([-0.9, 0.2, 1.0])),
    case("histogram in its range", lambda x, r: np.histogram(x + r, 3, (r, -1.3 * r), density=True), X, ((), -0.95, -0.93),
         off=ONE),
    case("histogram_bin_edges", lambda x: np.histogram_bin_edges(x, 5), X),
    case("histogram_bin_edges by a rule", lambda x: np.histogram_bin_edges(x, "sturges"), X),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)

BAD = {
    "convolve table": (lambda x: np.convolve(x, x[0]), ValueError, "too deep"),
    "convolve nothing": (lambda x: np.convolve(x[0], x[0, :0]), ValueError, "cannot be empty"),
    "convolve mode": (lambda x: np.convolve(x[0], x[0], "wrap"), ValueError, "mode must be"),
    "cov cube": (lambda x: np.cov(np.stack([x, x])), ValueError, "2 dimensions"),
    "cov ddof": (lambda x: np.cov(x, ddof=0.5), ValueError, "integer"),
    "cov weights": (lambda x: np.cov(x, aweights=x[0, :2]), RuntimeError, "incompatible"),
    "cov negative weights": (lambda x: np.cov(x, aweights=-x[0]), ValueError, "negative"),
    "cov parts": (lambda x: np.cov(x, fweights=x[0] / 2), TypeError, "integer"),
    "histogram weights": (lambda x: np.histogram(x, weights=x[0]), ValueError, "same shape"),
    "histogram bins": (lambda x: np.histogram(x, bins=-x[0]), ValueError, "monotonically"),
    "histogram2d": (lambda x: np.histogram2d(x[0], x[1]), nbad.NoRuleError, "np.digitize"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.arange(1.0, 13.0).reshape(3, 4))


def test_the_counts_of_a_histogram_are_constant() -> None:
    x = np.array([0.1, 0.2, 0.2, 0.9, 1.0, 5.0])

    def loss(x):
        counts, edges = np.histogram(x, bins=3, range=(0.0, 1.0))
        assert type(counts) is type(edges) is np.ndarray
        np.testing.assert_array_equal(counts, [3, 0, 2])
        return np.sum(counts * x[:3])

    assert nbad.grad(loss)(x).tolist() == [3, 0, 2, 0, 0, 0]


def test_too_few_samples_warn_as_numpy_does() -> None:
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        nbad.vjp(lambda x: np.cov(x, ddof=2), np.ones((2, 1)))


def test_what_was_cut_off_a_correlation_still_has_its_derivative() -> None:
    x = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    value, pullback = nbad.vjp(lambda x: np.corrcoef(x)[0, 1], x)
    assert value <= 1
    np.testing.assert_allclose(pullback(1.0), 0, atol=1e-12)


@pytest.mark.parametrize("weights", [{}, {"aweights": np.array([0.1, 0.2, 0.3])}])
def test_covariances_have_the_dtype_that_is_asked_for(weights):
    """The keyword was read, and then the division promoted the result."""
    x = np.arange(6.0).reshape(2, 3) ** 2
    for function in (np.cov, np.corrcoef):
        options = {"dtype": np.float32} | (weights if function is np.cov else {})
        expected = function(x, **options)
        found, _ = nbad.vjp(lambda x: function(x, **options), x)  # noqa: B023
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6)
