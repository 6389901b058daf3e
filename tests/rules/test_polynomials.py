"""Polynomials: values, arithmetic, roots, fits."""

import numpy as np
import pytest
from compiled_cases import compiled_laws
from laws import Case, laws, squared

import nbad

P = ((4,), 0.5, 2.0)
Q = ((3,), 0.5, 2.0)
X = ((5,), -1.0, 1.0)
S = ((2, 3), -1.0, 1.0)
BOTH = {"dtypes": ("f8", "c16")}
NUMBER = {"layouts": "a number has one layout"}


def case(name, function, *arguments, **options):
    return Case(name, squared(function), arguments, **{"exact": False, "dtypes": ("f8",)} | options)


def spread(rng, dtype):
    """Return the coefficients of a polynomial with roots far from each other."""
    return np.poly([-2.0, -0.7, 0.5, 1.9] + 0.1 * rng.random(4)).astype(dtype)


def places(rng, dtype):
    return (np.arange(7) / 3 - 1 + 0.1 * rng.random(7)).astype(dtype)


CASES = [
    Case("polyval", np.polyval, [P, S], complex_ok=True),
    case("polyval curved", np.polyval, P, X, **BOTH),
    case("polyval of a constant", lambda p, x: np.polyval(p[:1], x), P, X),
    case("polyval at a number", lambda p: np.polyval(p, 0.5), P, dtypes=("f4",)),
    case("polyval of numbers", lambda x: np.polyval([1.0, -2.0, 3.0], x), X),
    case("polyadd", np.polyadd, P, Q, **BOTH),
    case("polyadd turned", np.polyadd, Q, P),
    case("polysub", np.polysub, P, P),
    case("polysub of a number", lambda p: np.polysub(p, 2.0), P),
    case("polymul", np.polymul, P, Q, **BOTH),
    case("polymul trimmed", lambda p, q: np.polymul(np.concatenate([np.zeros(2), p]), q), P, Q),
    case("polydiv", np.polydiv, ((5,), 0.5, 2.0), Q, **BOTH),
    case("polydiv by a longer one", np.polydiv, Q, P),
    case("polydiv by a line", lambda p, q: np.polydiv(p, q[:2]), P, Q),
    case("polyder", np.polyder, P, **BOTH),
    case("polyder twice", lambda p: np.polyder(p, 2), P, dtypes=("f4",)),
    case("polyint", np.polyint, P, **BOTH),
    case("polyint twice", lambda p, k: np.polyint(p * k[0], 2, k), P, ((2,), 0.5, 1.0)),
    case("poly", np.poly, Q, **BOTH),
    case("poly of a matrix", lambda a: np.poly(a + np.diag([1.0, 3.0, 6.0])), ((3, 3), -0.3, 0.3)),
    case("poly of pairs", lambda z: np.poly(np.stack([z, np.conj(z)])), ((), 0.5, 1.0), dtypes=("c16",), off=NUMBER),
    case("roots", lambda p: np.roots(p), spread),
    case("roots and zeros", lambda p: np.roots(np.concatenate([np.zeros(1), p, np.zeros(2)])), spread),
    case("roots of complex", lambda p: np.roots(p), Q, dtypes=("c16",)),
    case("vander", np.vander, X, **BOTH),
    case("vander increasing", lambda x: np.vander(x, 3, increasing=True), X),
    case("vander of one column", lambda x: np.vander(x, 1) * x[:, None], X),
    case("polyfit", lambda x, y: np.polyfit(x, y, 2), places, ((7,), -1.0, 1.0)),
    case("polyfit of columns", lambda x, y: np.polyfit(x, y, 1), places, ((7, 2), -1.0, 1.0)),
    case("polyfit weighted", lambda x, y, w: np.polyfit(x, y, 2, w=w), places, ((7,), -1.0, 1.0), ((7,), 0.5, 1.5)),
    case("polyfit with covariance", lambda x, y: np.polyfit(x, y, 1, cov=True), places, ((7,), -1.0, 1.0)),
    case("polyfit unscaled", lambda x, y: np.polyfit(x, y, 1, cov="unscaled"), places, ((7,), -1.0, 1.0)),
    case("polyfit full", lambda x, y: np.polyfit(x, y, 1, full=True)[:2], places, ((7,), -1.0, 1.0)),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)

BAD = {
    "poly1d": (lambda x: np.polyadd(x[0], np.poly1d([1.0, 2.0])), nbad.NoRuleError, "p.coeffs"),
    "poly1d as a place": (lambda x: np.polyval(x[0], np.poly1d([1.0, 2.0])), nbad.NoRuleError, "p.coeffs"),
    "polyder": (lambda x: np.polyder(x[0], -1), ValueError, "positive"),
    "polyint": (lambda x: np.polyint(x[0], -1), ValueError, "positive"),
    "polyint constants": (lambda x: np.polyint(x[0], 3, [1.0, 2.0]), ValueError, "k must be"),
    "poly": (np.poly, ValueError, "1d or non-empty square"),
    "roots": (np.roots, ValueError, "rank-1"),
    "vander": (np.vander, ValueError, "one-dimensional"),
    "polyfit degree": (lambda x: np.polyfit(x[0], x[0], -1), ValueError, "deg"),
    "polyfit table": (lambda x: np.polyfit(x, x[0], 1), TypeError, "1D vector"),
    "polyfit lengths": (lambda x: np.polyfit(x[0], x[0, :2], 1), TypeError, "same length"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.arange(12.0).reshape(3, 4))


def test_a_poor_fit_warns_as_numpy_does() -> None:
    with pytest.warns(np.exceptions.RankWarning):
        nbad.vjp(lambda y: np.polyfit(np.ones(4), y, 2), np.arange(4.0))


def test_zero_polynomials_have_no_roots() -> None:
    assert nbad.vjp(lambda p: (np.roots(p), np.sum(p)), np.zeros(3))[0][0].shape == (0,)
    assert nbad.vjp(lambda p: (np.roots(p), np.sum(p)), np.array([0.0, 2.0, 0.0]))[0][0].tolist() == [0.0]
