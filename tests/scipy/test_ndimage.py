"""``scipy.ndimage`` on traced values."""

import inspect

import numpy as np
import pytest
import scipy.ndimage
from compiled_cases import compiled_laws
from laws import Case, laws

import nbad
from nbad.errors import NoRuleError
from nbad.scipy import ndimage

LINE = ((2, 7), -1.0, 1.0)
IMAGE = ((5, 6), -1.0, 1.0)
POINTS = np.array([[0.3, 2.2, 9.0], [1.0, 4.4, 1.0]])
MODES = ("reflect", "constant", "nearest", "mirror", "wrap")


def filtered(name, *arguments, shape=(5, 6), **options):
    """Return the case of a filter with static arguments."""
    function = getattr(ndimage, name)
    title = f"{name}, {arguments} {options}, {shape}"
    return Case(title, lambda x: function(x, *arguments, **options), [(shape, -1.0, 1.0)], exact=False)


def one_axis(name, mode, origin):
    return lambda x, w: getattr(ndimage, name)(x, w, 1, mode=mode, cval=0.4, origin=origin)


def all_axes(name, mode, origin):
    return lambda x, w: getattr(ndimage, name)(x, w, mode=mode, cval=0.4, origin=origin)


def between_knots(order, mode):
    """Draw points, some of them beyond the edges, away from where the spline is less smooth than the differences want."""

    def draw(rng, dtype):
        p = rng.integers(1, 4, (2, 8)) + (rng.uniform(0.2, 0.8, (2, 8)) + 0.5 * (order % 2 == 0))
        far = rng.integers(-9, 9, (2, 8)) if mode not in ("constant", "nearest") else 0
        return (p + far).astype(dtype)

    return draw


CASES = [
    *(
        Case(
            f"{name}, {mode}, {m}, {origin}",
            one_axis(name, mode, origin),
            [LINE, ((m,), -1.0, 1.0)], complex_ok=m == 3, exact=False,
        )
        for name in ("correlate1d", "convolve1d")
        for mode, m, origin in (
            *((mode, 4, 1) for mode in MODES), ("reflect", 3, -1), ("wrap", 9, 0), ("mirror", 17, 2), ("nearest", 1, 0),
            ("grid-constant", 3, 0),
        )
    ),
    *(
        Case(
            f"{name}, {mode}, {shape}, {origin}",
            all_axes(name, mode, origin),
            [IMAGE, (shape, -1.0, 1.0)], complex_ok=shape == (3, 3), exact=False,
        )
        for name in ("correlate", "convolve")
        for mode, shape, origin in (*((mode, (2, 3), (0, 1)) for mode in MODES), ("reflect", (3, 3), 0), ("mirror", (5, 2), -1))
    ),
    *(filtered("gaussian_filter1d", 1.2, 0, order, mode=mode) for mode, order in zip(MODES, range(5), strict=True)),
    filtered("gaussian_filter1d", 0.8, radius=2),
    filtered("gaussian_filter", 1.1, mode=("wrap", "reflect"), order=(1, 0)),
    filtered("gaussian_filter", (0.7, 0.0), mode="constant", cval=0.5, truncate=2.0),
    filtered("gaussian_filter", 0.0),
    Case("gaussian_filter, sigma", lambda x, s: ndimage.gaussian_filter(x, s), [IMAGE, ((2,), 1.0, 1.1)], exact=False),
    Case("gaussian_laplace, sigma", lambda x, s: ndimage.gaussian_laplace(x, s[0]), [IMAGE, ((1,), 0.66, 0.7)], exact=False),
    filtered("gaussian_laplace", (0.6, 0.8), mode="nearest"),
    *(
        filtered("uniform_filter1d", size, 0, mode=mode, origin=o)
        for mode, size, o in zip(MODES, (1, 2, 3, 4, 9), (0, -1, 1, 1, 0), strict=True)
    ),
    filtered("uniform_filter", 3, shape=(3, 4, 2)),
    filtered("uniform_filter", (2, 3), mode=["mirror", "wrap"], origin=(-1, 0)),
    filtered("sobel", 0),
    filtered("sobel", mode="constant", cval=1.0, shape=(3, 4, 2)),
    filtered("prewitt", 1, mode=("wrap", "nearest")),
    filtered("laplace"),
    filtered("laplace", mode="wrap", shape=(3, 4, 2)),
    filtered("spline_filter1d", 4, 0),
    filtered("spline_filter1d", 1),
    *(filtered("spline_filter", order, mode=mode) for order, mode in ((2, "mirror"), (3, "reflect"), (5, "grid-wrap"))),
    *(
        Case(
            f"map_coordinates, {order}, {mode}",
            lambda x, p, order=order, mode=mode: ndimage.map_coordinates(x, p, order=order, mode=mode, cval=0.3),
            [IMAGE, between_knots(order, mode)], dtypes=("f8",), exact=False,
        )
        for order, mode in (
            (3, "constant"), (2, "grid-constant"), (3, "nearest"), (4, "reflect"), (5, "mirror"), (3, "wrap"), (4, "grid-wrap"),
            (1, "grid-mirror"), (0, "nearest"),
        )
    ),
    Case(
        "map_coordinates, complex",
        lambda x, p: ndimage.map_coordinates(x, np.real(p), mode="mirror", prefilter=False), [IMAGE, ((2, 7), 0.2, 3.8)],
        dtypes=("c16",), exact=False,
    ),
    Case(
        "map_coordinates, image", lambda x: ndimage.map_coordinates(x, POINTS, order=1),
        [IMAGE], exact=False,
    ),
    Case(
        "affine_transform, matrix and offset", lambda x, m, o: ndimage.affine_transform(x, m, o, (3, 4), mode="reflect"),
        [IMAGE, ((2, 2), 0.3, 0.9), ((2,), 0.1, 0.3)], dtypes=("f8",), exact=False,
    ),
    Case(
        "affine_transform, homogeneous", lambda x, m: ndimage.affine_transform(x, m, mode="mirror", order=4),
        [IMAGE, ((2, 3), 0.3, 0.9)], dtypes=("f8",), exact=False,
    ),
    Case(
        "affine_transform, diagonal", lambda x, m, o: ndimage.affine_transform(x, m, o, mode="grid-wrap"),
        [IMAGE, ((2,), 0.6, 0.9), ((2,), 0.1, 0.3)], dtypes=("f8",), exact=False,
    ),
    Case(
        "shift", lambda x, s: ndimage.shift(x, s, mode="reflect"), [IMAGE, ((2,), -0.8, 0.8)], dtypes=("f8",), exact=False
    ),
    filtered("shift", (1, -2), order=1, cval=0.7),
    filtered("zoom", 1.6),
    filtered("zoom", (0.5, 2), order=2, mode="nearest", shape=(5, 6)),
    filtered("zoom", 1.5, mode="grid-wrap", grid_mode=True),
    Case(
        "rotate", lambda x, a: ndimage.rotate(x, a[0], mode="mirror"), [IMAGE, ((1,), 30.0, 31.0)], dtypes=("f8",), exact=False
    ),
    filtered("rotate", 25.0, axes=(2, 0), reshape=False, shape=(4, 3, 5)),
    filtered("rotate", 90, order=1),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)


def test_every_function_has_a_case():
    assert set(ndimage.DIFFERENTIABLE) == {case.name.partition(",")[0] for case in CASES}


@pytest.mark.parametrize("name", ndimage.DIFFERENTIABLE)
def test_arguments_are_those_of_scipy(name):
    mine, theirs = (inspect.signature(getattr(m, name)).parameters for m in (ndimage, scipy.ndimage))
    assert [p for p in mine if p not in theirs and p != "axes"] == []
    assert [p for p in theirs if p not in mine] == []
    assert {n: p.default for n, p in mine.items() if n in theirs and n != "output"} == {
        n: p.default for n, p in theirs.items() if n != "output"
    }


def test_pullback_of_the_weights_does_not_run_that_of_the_image():
    x, w = np.arange(30.0).reshape(5, 6), np.array([1.0, 2.0, 1.0])
    for name, op in (("correlate1d", w), ("correlate", w[:, None])):
        for asked in ("x", "w"):
            with nbad.report() as account:
                nbad.grad(lambda x, w: np.sum(getattr(ndimage, name)(x, w) ** 2), wrt=asked)(x, op)  # noqa: B023
            assert account.rules_run[f"scipy.ndimage.{name}", asked] == 1
            assert {o for op, o in account.rules_run if op == f"scipy.ndimage.{name}"} == {asked}


@pytest.mark.parametrize(("mode", "at"), [("constant", -3.3), ("nearest", -40.5), ("nearest", 60.2)])
def test_coordinates_far_outside_have_no_influence(mode, at):
    x, p = np.arange(9.0) ** 2, np.array([[at, 2.5]])
    y = ndimage.map_coordinates(x, p, mode=mode, cval=5.0)
    found, gradient = nbad.value_and_grad(
        lambda p: np.sum(ndimage.map_coordinates(x, p, mode=mode, cval=5.0))
    )(p)
    assert found == y.sum() and gradient[0, 0] == 0.0 and abs(gradient[0, 1] - 5.0) < 0.1


def test_linear_interpolation_has_the_slope_of_its_cell():
    x = np.array([0.0, 1.0, 4.0, 9.0])
    slope = nbad.grad(lambda p: np.sum(ndimage.map_coordinates(x, p, order=1)))(np.array([[0.5, 1.5, 2.0]]))
    np.testing.assert_allclose(slope, [[1.0, 3.0, 5.0]])
    none = nbad.grad(lambda p: np.sum(ndimage.map_coordinates(x, p, order=0)))(np.array([[0.7, 1.2]]))
    np.testing.assert_array_equal(none, 0.0)


def test_a_compiled_blur_widens_with_sigma():
    x = np.zeros(31)
    x[15] = 1.0
    blur = nbad.compile(lambda x, s: ndimage.gaussian_filter(x, s))
    for s in (1.0, 3.0, 1.05, 0.0):
        np.testing.assert_allclose(blur(x, s), scipy.ndimage.gaussian_filter(x, s), atol=1e-15)


def test_what_has_no_rule_is_refused():
    x = np.ones((4, 4))
    with pytest.raises(NoRuleError, match=r"scipy\.ndimage\.median_filter"):
        nbad.grad(lambda x: np.sum(ndimage.median_filter(x, 3)))(x)
    with pytest.raises(NoRuleError, match="output="):
        nbad.grad(lambda x: np.sum(ndimage.laplace(x, output=np.empty((4, 4)))))(x)
    with pytest.raises(NoRuleError, match="of integers"):
        nbad.grad(lambda w: np.sum(ndimage.correlate1d(np.arange(4), w)))(np.ones(3))
    with pytest.raises(ValueError, match="boundary mode"):
        nbad.grad(lambda x: np.sum(ndimage.laplace(x, mode="odd")))(x)


# Points whose taps reach beyond the edges, on halves, and on the ends that mode "wrap" takes for one point.
EVERYWHERE = np.concatenate([np.arange(-14.0, 22.0, 0.5), np.random.default_rng(0).normal(size=40) * 8])[None]


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("mode", (*MODES, "grid-mirror", "grid-constant", "grid-wrap"))
def test_the_gradient_of_a_spline_belongs_to_the_points_that_scipy_reads(mode, order):
    """At the seam of "wrap", at halves outside with order 0, and beyond "nearest" edges it belonged to others."""

    def read(c):
        return ndimage.map_coordinates(c, EVERYWHERE, order=order, mode=mode, prefilter=False)

    for n in (7, 2, 1):
        c = np.random.default_rng(n).normal(size=n)
        value, pullback = nbad.vjp(read, c)
        rows = np.stack([pullback(unit) for unit in np.eye(value.size)])
        np.testing.assert_allclose(rows @ c, value, atol=1e-12)  # the function is linear


def test_the_gradient_of_zoom_in_mode_wrap_belongs_to_the_last_sample():
    x = np.random.default_rng(0).normal(size=9)
    value, pullback = nbad.vjp(lambda x: ndimage.zoom(x, 0.7, order=1, mode="wrap"), x)
    rows = np.stack([pullback(unit) for unit in np.eye(value.size)])
    np.testing.assert_allclose(rows @ x, value, atol=1e-12)


def test_beyond_a_nearest_edge_a_spline_without_prefilter_still_moves():
    c = np.random.default_rng(0).normal(size=7)
    p = np.array([[-0.6, 6.3, 7.2, 3.1]])

    def read(p):
        return np.sum(ndimage.map_coordinates(c, p, order=3, mode="nearest", prefilter=False))

    slopes = [(read(p + step) - read(p - step)) / 2e-6 for step in 1e-6 * np.eye(4)[:, None]]
    np.testing.assert_allclose(nbad.grad(read)(p)[0], slopes, atol=1e-7)
    assert abs(slopes[0]) > 0.01
