"""Sampled functions: running sums, slopes, areas, interpolation, points, Bessel functions."""

import numpy as np
import pytest
from compiled_cases import compiled_laws
from laws import Case, Spaced, laws, squared

import nbad

S = ((3, 4), -2.0, 2.0)
CUBE = ((2, 3, 4), -2.0, 2.0)
LINE = ((5,), -2.0, 2.0)
LONG = {"dtypes": ("f8",)}
BOTH = {"dtypes": ("f8", "c16")}


def case(name, function, *arguments, **options):
    return Case(name, squared(function), arguments, **{"exact": False, "dtypes": ("f4", "f8")} | options)


def ascending(count, step=0.5):
    """Return an argument: ascending numbers, no two closer than half a step."""

    def draw(rng, dtype):
        numbers = np.arange(count) * step + rng.uniform(0, step / 2, count)
        return numbers.astype(np.zeros(0, dtype).real.dtype)

    return draw


def holed(x):
    return np.where(np.arange(x.shape[-1]) == 2, np.nan, x)


TIMES = Spaced((6,), 0.11, 0.37)
STEEP = [0.3, 2.9, 5.6, 8.0, 7.7, 1.9]

CASES = [
    case("cumulative_sum", lambda x: np.cumulative_sum(x, axis=1), S),
    case("cumulative_sum from 0", lambda x: np.cumulative_sum(x, axis=0, include_initial=True), S),
    case("cumulative_sum line", lambda x: np.cumulative_sum(x), LINE),
    case("cumulative_prod", lambda x: np.cumulative_prod(x, axis=-1, include_initial=True), S),
    case("nancumsum", lambda x: np.nancumsum(holed(x), axis=1), S),
    case("nancumsum flat", lambda x: np.nancumsum(holed(x)), S),
    case("nancumprod", lambda x: np.nancumprod(holed(x), axis=0), S),
    case("trapezoid", np.trapezoid, S, **BOTH),
    case("trapezoid step", lambda y, d: np.trapezoid(y, dx=d, axis=0), S, ((), 0.5, 1.0),
         off={"layouts": "a number has one layout"}),
    case("trapezoid places", lambda y, x: np.trapezoid(y, x, axis=1), CUBE, ascending(3)),
    case("trapezoid places of each", lambda y, x: np.trapezoid(y, x), S, S),
    case("gradient", np.gradient, S, **BOTH),
    case("gradient line", np.gradient, LINE),
    case("gradient axis", lambda f: np.gradient(f, axis=-1, edge_order=2), CUBE),
    case("gradient axes", lambda f: np.gradient(f, 0.5, 2.0, axis=(2, 0)), CUBE),
    case("gradient step", lambda f, h: np.gradient(f, h, edge_order=2), ((5, 4), -2.0, 2.0), ((), 0.5, 1.0),
         off={"layouts": "a number has one layout"}),
    case("gradient places", lambda f, x: np.gradient(f, x), LINE, ascending(5)),
    case("gradient places and step", lambda f, x: np.gradient(f, x, 0.5, edge_order=2), ((5, 4), -2.0, 2.0),
         ascending(5)),
    case("gradient plain places", lambda f: np.gradient(f, np.array([0.0, 1.0, 3.0, 4.0, 7.0])), LINE),
    case("gradient even places", lambda f: np.gradient(f, np.arange(5) * 0.5, edge_order=2), LINE),
    case("interp", lambda x, xp, fp: np.interp(x, xp, fp), Spaced((2, 5), 0.16, 0.27), ascending(6), ((6,), -2.0, 2.0)),
    case("interp of complex", lambda x, fp: np.interp(x, np.arange(6.0), fp), TIMES, ((6,), -2.0, 2.0), **LONG),
    case("interp of complex data", lambda fp: np.interp([0.3, 1.7, 9.0], np.arange(6.0), fp), ((6,), -2.0, 2.0),
         dtypes=("c16",)),
    case("interp ends", lambda x, xp, fp, a, b: np.interp(x, xp, fp * a * b, left=a, right=b), Spaced((7,), -0.6, 0.63),
         ascending(5), LINE, ((), 0.0, 1.0), ((), 0.0, 1.0), off={"layouts": "a number has one layout"}),
    case("interp period", lambda x, fp: np.interp(x, [1.0, 0.2, 2.9], fp, period=3.5), Spaced((6,), -2.03, 1.33),
         ((3,), -2.0, 2.0)),
    case("interp around", lambda xp, fp, p: np.interp([-2.2, 0.6, 5.3], xp, fp * p, period=p), ascending(4), ((4,), -2.0, 2.0),
         ((), 4.2, 4.4), off={"layouts": "a number has one layout"}),
    case("interp of one", lambda fp: np.interp([-1.0, 0.5, 2.0], [0.5], fp), ((1,), -2.0, 2.0)),
    case("interp last", lambda fp: np.interp([0.0, 3.0, 2.0], [0.0, 2.0, 3.0], fp), ((3,), -2.0, 2.0)),
    case("unwrap", lambda p: np.unwrap(p + np.asarray(STEEP, p.dtype)), ((6,), -0.1, 0.1)),
    case("unwrap axis", lambda p: np.unwrap(p * 6, axis=0, discont=4.0), ((4, 3), -0.4, 0.5)),
    case("unwrap period", lambda p, w: np.unwrap(p * w, period=w), Spaced((6,), 0.0, 0.77), ((), 1.0, 1.1),
         off={"layouts": "a number has one layout"}),
    case("linspace", lambda a, b: np.linspace(a, b, 5), ((), 0.0, 1.0), ((), 2.0, 3.0)),
    case("linspace of arrays", lambda a, b: np.linspace(a, b, 4, endpoint=False, axis=-1), ((4,), -2.0, 2.0), S, **BOTH),
    case("linspace step", lambda a: np.linspace(a, 3.0, 4, retstep=True), LINE),
    case("linspace of one", lambda a, b: np.linspace(a, b, 1), LINE, LINE),
    case("linspace of a dtype", lambda a: np.linspace(a, 3.0, 4, dtype=np.float64), LINE, dtypes=("f4",)),
    case("logspace", lambda a, b: np.logspace(a, b, 4), ((), 0.0, 0.5), ((), 0.6, 1.0)),
    case("logspace base", lambda a, c: np.logspace(a, 1.5, 4, base=c, endpoint=False), ((3,), 0.0, 0.5), ((3,), 1.5, 2.0)),
    case("geomspace", lambda a, b: np.geomspace(a, b, 4), ((3,), 0.5, 1.0), ((3,), 2.0, 4.0)),
    case("geomspace below 0", lambda a, b: np.geomspace(-a, -b, 5, endpoint=False, axis=1), ((3,), 0.5, 1.0),
         ((3,), 2.0, 4.0)),
    case("geomspace of complex", lambda a, b: np.geomspace(a, b, 4), ((3,), 0.5, 1.0), ((3,), 1.0, 2.0), dtypes=("c16",)),
    Case("i0", np.i0, [((3, 4), -6.0, 6.0)], elementwise=True),
    Case("i0 far", np.i0, [((8,), 8.5, 12.0)], dtypes=("f8",), elementwise=True),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)

BAD = {
    "axis of cumulative_sum": (lambda x: np.cumulative_sum(x), ValueError, "axis"),
    "gradient order": (lambda x: np.gradient(x, edge_order=3), ValueError, "edge_order"),
    "gradient places": (lambda x: np.gradient(x, np.arange(3.0), axis=1), ValueError, "match the length"),
    "gradient table": (lambda x: np.gradient(x, np.ones((3, 4)), axis=1), ValueError, "scalars or 1d"),
    "gradient count": (lambda x: np.gradient(x, 1.0, 2.0, 3.0), TypeError, "number of arguments"),
    "gradient short": (lambda x: np.gradient(x[:1], axis=0), ValueError, "too small"),
    "interp table": (lambda x: np.interp(0.5, x, x), ValueError, "1-D"),
    "interp lengths": (lambda x: np.interp(0.5, x[0], np.ones(3)), ValueError, "same length"),
    "interp period": (lambda x: np.interp(0.5, x[0], x[1], period=0), ValueError, "non-zero"),
    "interp nothing": (lambda x: np.interp(0.5, x[0, :0], x[1, :0]), ValueError, "empty"),
    "linspace": (lambda x: np.linspace(x, 1.0, -1), ValueError, "non-negative"),
    "geomspace": (lambda x: np.geomspace(x * 0, 1.0), ValueError, "include zero"),
    "i0": (lambda x: np.i0(x + 1j), TypeError, "complex"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


def test_the_slope_of_i0_is_exact_from_zero_to_the_largest_argument() -> None:
    # I1 by its series and, far out, by its asymptotic expansion (DLMF 10.25.2, 10.40.1).
    x = np.array([-0.5, 0.0, 1e-9, 0.25, 3.0])
    series, term = np.zeros(5), x / 2
    for k in range(1, 40):
        series, term = series + term, term * x * x / (4 * k * (k + 1))
    slope = nbad.grad(lambda x: np.sum(np.i0(x)))
    np.testing.assert_allclose(slope(x), series, rtol=1e-14, atol=0)
    far = 600.0
    expansion, term = 0.0, 1.0
    for k in range(1, 12):
        expansion, term = expansion + term, -term * (4 - (2 * k - 1) ** 2) / (8 * k * far)
    np.testing.assert_allclose(slope(far), np.exp(far) / np.sqrt(2 * np.pi * far) * expansion, rtol=1e-12)
    assert nbad.grad(nbad.grad(np.i0))(0.0) == 0.5


def test_interp_outside_of_the_data_is_constant() -> None:
    x = np.array([-1.0, 9.0])
    value, pullback = nbad.vjp(lambda x: np.interp(x, [0.0, 1.0], [3.0, 4.0]), x)
    assert value.tolist() == [3.0, 4.0]
    assert pullback(np.ones(2)).tolist() == [0.0, 0.0]


def test_interp_at_doubled_points_has_no_nan() -> None:
    fp = np.array([1.0, 2.0, 5.0, 6.0])
    xp = np.array([0.0, 1.0, 1.0, 1.0])
    value, pullback = nbad.vjp(lambda fp: np.interp([0.5, 1.0], xp, fp), fp)
    np.testing.assert_array_equal(value, np.interp([0.5, 1.0], xp, fp))
    assert np.all(np.isfinite(pullback(np.ones(2))))
