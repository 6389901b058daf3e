"""Elementwise functions: every row and binding under the laws, the choices at kinks, promotion, and the forms of calling."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import Booleans, Case, Spaced, Taped, Uniform, laws

import nbad
from nbad.errors import NbadError
from nbad.higher import sweep_traced
from nbad.program import C16, F8, PROGRAMS, READY
from nbad.rules import elementwise
from nbad.table import Op

S = (3, 4)
LARGE = (1 << 17,)


def unary(
    name: str, low: float, high: float, *, complex_ok: bool = False, large: bool = False, **more: Any
) -> Case:
    """Return the case of NumPy's function `name` between `low` and `high`."""
    return Case(
        name,
        getattr(np, name),
        [(S, low, high)],
        complex_ok=complex_ok,
        elementwise=True,
        large=[(LARGE, low, high)] if large else None,
        **more,
    )


def binary(name: str, a: Any, b: Any, *, complex_ok: bool = False, large: bool = False) -> Case:
    """Return the case of NumPy's function `name` with operands between the bounds `a` and `b`."""
    return Case(
        name,
        getattr(np, name),
        [(S, *a), (S, *b)],
        complex_ok=complex_ok,
        elementwise=True,
        large=[(LARGE, *a), (LARGE, *b)] if large else None,
    )


def spaced(name: str, function: Callable[..., Any]) -> Case:
    """Return a case with two operands that nowhere meet."""
    return Case(name, function, [Spaced(S, -1.5, 0.25), Spaced(S, -1.625, 0.25)], elementwise=True)


def divisors(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return dividends and divisors whose quotient stays away from whole numbers, whichever of them meet."""
    return (rng.uniform(6.2, 6.8, S) * rng.choice([-1, 1], S)).astype(dtype), rng.uniform(1.8, 2.0, S).astype(
        dtype
    )


def signed(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
    """Return numbers of both signs, away from zero."""
    return (rng.uniform(0.25, 2, S) * rng.choice([-1, 1], S)).astype(dtype)


def exponents(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
    """Return whole numbers as ldexp wants them."""
    return rng.integers(-3, 4, S).astype(np.int32)


def with_holes(x: Any) -> Any:
    """Return `x` with what is no number in its last columns."""
    holes = np.array([0, np.nan, np.inf, -np.inf], x.dtype)
    return np.where(holes == 0, x, holes)


CASES = [
    binary("add", (-2, 2), (-2, 2), complex_ok=True, large=True),
    binary("subtract", (-2, 2), (-2, 2), complex_ok=True),
    binary("multiply", (-2, 2), (-2, 2), complex_ok=True, large=True),
    binary("divide", (-2, 2), (0.5, 2), complex_ok=True, large=True),
    unary("negative", -2, 2, complex_ok=True),
    unary("positive", -2, 2, complex_ok=True),
    unary("conjugate", -2, 2, complex_ok=True),
    unary("square", -2, 2, complex_ok=True),
    unary("reciprocal", 0.5, 2, complex_ok=True),
    unary("sqrt", 0.5, 2, complex_ok=True),
    unary("cbrt", 0.5, 2),
    binary("power", (0.5, 2), (-2, 2), complex_ok=True),
    binary("float_power", (0.5, 2), (-2, 2), complex_ok=True),
    Case("remainder", np.remainder, divisors, elementwise=True),
    Case("fmod", np.fmod, divisors, elementwise=True),
    Case("divmod", np.divmod, divisors, elementwise=True),
    Case("modf", np.modf, [(S, 1.1, 1.9)], elementwise=True),
    unary("exp", -2, 2, complex_ok=True, large=True),
    unary("exp2", -2, 2, complex_ok=True),
    unary("expm1", -2, 2, complex_ok=True),
    unary("log", 0.5, 2, complex_ok=True),
    unary("log2", 0.5, 2, complex_ok=True),
    unary("log10", 0.5, 2, complex_ok=True),
    unary("log1p", -0.5, 2, complex_ok=True),
    binary("logaddexp", (-2, 2), (-2, 2)),
    binary("logaddexp2", (-2, 2), (-2, 2)),
    unary("sin", -3, 3, complex_ok=True, large=True),
    unary("cos", -3, 3, complex_ok=True),
    unary("tan", -1, 1, complex_ok=True),
    unary("arcsin", -0.7, 0.7, complex_ok=True),
    unary("arccos", -0.7, 0.7, complex_ok=True),
    unary("arctan", -0.7, 0.7, complex_ok=True),
    unary("sinh", -2, 2, complex_ok=True),
    unary("cosh", -2, 2, complex_ok=True),
    unary("tanh", -1, 1, complex_ok=True),
    unary("arcsinh", -0.7, 0.7, complex_ok=True),
    unary("arccosh", 1.5, 3, complex_ok=True),
    unary("arctanh", -0.7, 0.7, complex_ok=True),
    binary("arctan2", (-2, 2), (0.5, 2)),
    binary("hypot", (-2, 2), (0.5, 2), large=True),
    unary("degrees", -2, 2),
    unary("rad2deg", -2, 2),
    unary("radians", -200, 200),
    unary("deg2rad", -200, 200),
    Case("fabs", np.fabs, [signed], elementwise=True),
    Case("absolute", np.absolute, [signed], elementwise=True),
    Case("complex absolute", np.absolute, [(S, 0.25, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("sign", lambda x: x * np.sign(x), [signed], elementwise=True),
    Case("complex sign", np.sign, [(S, 0.25, 2)], dtypes=("c8", "c16"), elementwise=True),
    spaced("maximum", np.maximum),
    spaced("minimum", np.minimum),
    spaced("fmax", np.fmax),
    spaced("fmin", np.fmin),
    Case("copysign", np.copysign, [signed, signed], elementwise=True),
    Case(
        "heaviside", lambda b: np.heaviside(np.array([-1.0, 0, 2, 0], b.dtype), b * b), [((3, 4), -2.0, 2.0)]
    ),
    Case(
        "nan_to_num by traced numbers",
        lambda x, a, b: np.nan_to_num(with_holes(x * a * b), nan=a, posinf=b, neginf=-a),
        [((2, 4), 0.5, 1.0), ((), 1.0, 2.0), ((), 1.0, 2.0)],
        off={"layouts": "a number has one layout", "masked": "a number that is plain takes no node"},
    ),
    Case(
        "nan_to_num of parts",
        lambda z: np.nan_to_num(z + np.array([complex(np.nan, 1), complex(1, np.inf), 1j])),
        [((3,), 0.5, 1.0)],
        dtypes=("c16",),
    ),
    Case("nextafter", np.nextafter, [(S, 0.5, 1), (S, 2, 3)], elementwise=True),
    Case("ldexp", np.ldexp, [(S, -2, 2), exponents], elementwise=True),
    Case("real", np.real, [(S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("imag", np.imag, [(S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("angle", np.angle, [(S, 0.25, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case(
        "angle in degrees",
        lambda z: np.angle(z, deg=True),
        [(S, 0.25, 2)],
        dtypes=("c8", "c16"),
        elementwise=True,
    ),
    Case("where", np.where, [Booleans(S), (S, -2, 2), (S, -2, 2)], complex_ok=True, elementwise=True),
    Case("clip", np.clip, [Spaced(S, -1.5, 0.25), (S, -1.1, -1.03), (S, 0.65, 0.72)], elementwise=True),
    Case("clip below", lambda x: np.clip(x, -0.6, None), [Spaced(S, -1.5, 0.25)], elementwise=True),
    Case(
        "clip above", lambda x: np.clip(x, a_min=None, a_max=0.6), [Spaced(S, -1.5, 0.25)], elementwise=True
    ),
    Case(
        "clip by min and max",
        lambda x: np.clip(x, min=-0.6, max=0.6),
        [Spaced(S, -1.5, 0.25)],
        elementwise=True,
    ),
    Case("clip without bounds", lambda x: np.clip(x, None, None), [(S, -2, 2)], elementwise=True),
    Case("clip method", lambda x: x.clip(-0.6, 0.6), [Spaced(S, -1.5, 0.25)], elementwise=True),
    unary("nan_to_num", -2, 2, complex_ok=True),
    unary("copy", -2, 2, complex_ok=True),
    Case("real_if_close", np.real_if_close, [(S, 0.5, 2)], dtypes=("c8", "c16"), elementwise=True),
    unary("sinc", 0.25, 2),
    Case("frexp", np.frexp, [(S, 0.55, 0.95)], elementwise=True),
    Case("outer of a ufunc", np.divide.outer, [(S, -2, 2), ((2,), 0.5, 2)], complex_ok=True),
    Case("astype to double", lambda x: x.astype("f8"), [(S, -2, 2)], elementwise=True),
    Case("astype to complex", lambda x: np.astype(x, np.dtype("c16")), [(S, -2, 2)], elementwise=True),
    Case(
        "astype to complex double",
        lambda x: x.astype(complex),
        [(S, -2, 2)],
        dtypes=("c8", "c16"),
        elementwise=True,
    ),
    Case(
        "astype to single",
        lambda x: x.astype("f4"),
        [(S, -2, 2)],
        dtypes=("f4", "f8"),
        elementwise=True,
        off=dict.fromkeys(
            ("adjoint", "second", "sizes"), "differences of float32 values are too coarse; see test_astype"
        ),
    ),
    # Operators: the spellings that do not go through a ufunc's name.
    Case(
        "operators",
        lambda a, b: (a + b) * a - b / a + (-a) ** 2 + +b,
        [(S, 0.5, 2), (S, -2, 2)],
        complex_ok=True,
        elementwise=True,
    ),
    Case("power operator", lambda a, b: a**b, [(S, 0.5, 2), (S, -2, 2)], complex_ok=True, elementwise=True),
    Case(
        "powers by numbers",
        lambda x: x**2 + x**0.5 + x**-1 + x**1 + x**3 + x**0 + x**-1.5 + 2.0**x,
        [(S, 0.5, 2)],
        complex_ok=True,
        elementwise=True,
    ),
    Case("remainder operator", lambda a, b: a % b, divisors, elementwise=True),
    Case("floor operator", lambda a, b: a * (a // b), divisors, elementwise=True),
    Case("divmod of Python", lambda a, b: divmod(a, b), divisors, elementwise=True),
    Case("abs", abs, [signed], elementwise=True),
    Case(
        "reflected",
        lambda x: (1 + x) * 3 - 2 / x + (1 - x) * 2 + 2.5**x,
        [(S, 0.5, 2)],
        complex_ok=True,
        elementwise=True,
    ),
    Case("reflected remainder", lambda x: 6.5 % x, [(S, 1.8, 2.0)], elementwise=True),
    Case(
        "real with complex",
        lambda a, b: a * b + a / b - b,
        [Uniform(S, 0.5, 2, real=True), (S, 0.5, 2)],
        dtypes=("c8", "c16"),
        elementwise=True,
    ),
    Case(
        "complex power of real",
        np.power,
        [Uniform(S, 0.5, 2, real=True), (S, -2, 2)],
        dtypes=("c8", "c16"),
        elementwise=True,
    ),
    Case("one operand twice", lambda x: x * x + np.maximum(np.sin(x), x - 1), [(S, -2, 2)], elementwise=True),
    Case(
        "a long chain",
        lambda x: np.exp(-x * x) * np.sin(3 * x) + np.log1p(x * x),
        [(S, -2, 2)],
        elementwise=True,
        large=[(LARGE, -2, 2)],
    ),
    Case(
        "broadcast over a large array",
        lambda a, b, c: np.exp(a * b) + c / (1 + b * b),
        [(S, -1, 1), ((4,), -1, 1), ((3, 1), -1, 1)],
        large=[((256, 512), -1, 1), ((512,), -1, 1), ((256, 1), -1, 1)],
    ),
]

TestLaws = laws(CASES)


def pulled(function: Callable[..., Any], *args: Any) -> Any:
    """Return the cotangents of all arguments for a cotangent of ones."""
    value, pullback = nbad.vjp(function, *args)
    return pullback(np.ones_like(value) if isinstance(value, np.ndarray) else type(value)(1))


# Choices at kinks ---------------------------------------------------------------------------------
NAN, INF = np.nan, np.inf
KINKS = [
    # name, function, arguments, cotangents
    ("maximum", np.maximum, ([1.0, 1, 2], [1.0, 2, 1]), ([0.5, 0, 1], [0.5, 1, 0])),
    ("minimum", np.minimum, ([1.0, 1, 2], [1.0, 2, 1]), ([0.5, 1, 0], [0.5, 0, 1])),
    ("maximum of nan", np.maximum, ([NAN, 1], [1.0, NAN]), ([0.0, 0], [0.0, 0])),
    ("fmax", np.fmax, ([1.0, NAN, 1], [1.0, 1, NAN]), ([0.5, 0, 1], [0.5, 1, 0])),
    ("fmin", np.fmin, ([1.0, NAN, 1], [1.0, 1, NAN]), ([0.5, 0, 1], [0.5, 1, 0])),
    ("absolute", np.absolute, ([0.0, -0.0, -2],), ([0.0, 0, -1],)),
    ("fabs", np.fabs, ([0.0, -2],), ([0.0, -1],)),
    ("complex absolute", np.absolute, ([0j, 3 + 4j],), ([0j, 0.6 + 0.8j],)),
    ("complex sign", np.sign, ([0j, 2 + 0j],), ([0j, 0j],)),
    ("clip", np.clip, ([-1.0, 1, 0, 2, -2], -1.0, 1.0), ([1.0, 1, 1, 0, 0], 1.0, 1.0)),
    ("clip of nan", lambda x: np.clip(x, -1, 1), ([NAN],), ([0.0],)),
    ("clip, bounds crossed", np.clip, ([0.0, 3], 2.0, 1.0), ([0.0, 0], 0.0, 2.0)),
    ("sqrt", np.sqrt, ([0.0, 4],), ([INF, 0.25],)),
    ("cbrt", np.cbrt, ([0.0, 8],), ([INF, 1 / 12],)),
    ("reciprocal of inf", np.reciprocal, ([INF, 2],), ([0.0, -0.25],)),
    ("power at 0", np.power, ([0.0, 0, 0, 0], [0.0, 1, 2, 0.5]), ([0.0, 1, 0, INF], [0.0, 0, 0, 0])),
    ("power of a negative number", np.power, ([-2.0, -2], [3.0, 2]), ([12.0, -4], [NAN, NAN])),
    ("power by whole numbers", lambda x: x ** np.array([2, 0, 1]), ([0.0, 0, -2],), ([0.0, 0, 1],)),
    ("cube", lambda x: x**3, ([0.0, -2],), ([0.0, 12],)),
    ("power 0", lambda x: x**0, ([0.0, -2],), ([0.0, 0],)),
    ("exponent of 0", lambda x: 0.0**x, ([1.0, 2],), ([0.0, 0],)),
    ("hypot", np.hypot, ([0.0, 3], [0.0, 4]), ([0.0, 0.6], [0.0, 0.8])),
    ("arctan2", np.arctan2, ([0.0, 0], [0.0, 2]), ([0.0, 0.5], [0.0, 0])),
    ("logaddexp", np.logaddexp, ([-INF, INF], [-INF, 0.0]), ([1.0, 1], [1.0, 0])),
    ("logaddexp2", np.logaddexp2, ([-INF, INF], [-INF, 0.0]), ([1.0, 1], [1.0, 0])),
    ("copysign", lambda x: np.copysign(x, [1.0, 1, -1]), ([0.0, -2, -2],), ([0.0, -1, 1],)),
    ("nan_to_num", np.nan_to_num, ([NAN, INF, -INF, 1],), ([0.0, 0, 0, 1],)),
    ("sinc", np.sinc, ([0.0, 1],), ([0.0, -1],)),
    ("remainder", np.remainder, ([5.0, -5], [3.0, 3]), ([1.0, 1], [-1.0, 2])),
    ("fmod", np.fmod, ([5.0, -5], [3.0, 3]), ([1.0, 1], [-1.0, 1])),
    ("where", lambda x: np.where(x > 0, x, NAN), ([-1.0, 2],), ([0.0, 1],)),
    # What feeds the branch that was not taken must not overflow: the idiom with two wheres.
    (
        "double where",
        lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1)), 0),
        ([-1.0, 0, 2],),
        ([0.0, 0, 0.5],),
    ),
]


@pytest.mark.parametrize("by_rules", [False, True], ids=["engine", "rules"])
@pytest.mark.parametrize(("function", "args", "expected"), [k[1:] for k in KINKS], ids=[k[0] for k in KINKS])
def test_choices_at_kinks(function: Callable[..., Any], args: Any, expected: Any, by_rules: bool) -> None:
    arrays = [np.asarray(x) for x in args]
    if by_rules:
        taped = Taped(function, arrays, tuple(range(len(arrays))))
        seeds = {taped.outputs[0]: np.ones_like(taped.value)}
        with np.errstate(all="ignore"):  # an infinite derivative is a division by zero
            found = sweep_traced(taped.frozen, taped.activity, seeds, range(taped.count))
    else:
        value, pullback = nbad.vjp(function, *arrays, wrt=tuple((k,) for k in range(len(arrays))))
        found = pullback(np.ones_like(value))
    for cotangent, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(cotangent, right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_an_exponent_of_zero_hid_the_mixed_derivatives_of_a_power(dtype: str, compiled: bool) -> None:
    x = np.array([2, 0.5, 3, 0], dtype)
    p = np.zeros(4, dtype)

    def f(x: Any, p: Any) -> Any:
        return np.sum(np.real(x**p))

    def in_x(x: Any, p: Any) -> Any:
        return np.sum(np.real(nbad.grad(f)(x, p)))

    def in_x_and_p(x: Any, p: Any) -> Any:
        return np.sum(np.real(nbad.grad(in_x, wrt=1)(x, p)))

    f, in_x, in_x_and_p = (nbad.compile(g) if compiled else g for g in (f, in_x, in_x_and_p))
    inverse = np.array([0.5, 2, 1 / 3, 0], dtype)  # the choice at x = 0: b / x, as if x were infinite
    logarithm = np.log([2, 0.5, 3, 1])
    expected = {
        "x": (nbad.grad(f), 0 * x),
        "p": (nbad.grad(f, wrt=1), logarithm),
        "xx": (nbad.grad(in_x), 0 * x),
        "xp": (nbad.grad(in_x, wrt=1), inverse),
        "xpx": (nbad.grad(in_x_and_p), -(inverse**2)),
        "xpp": (nbad.grad(in_x_and_p, wrt=1), 2 * inverse * logarithm),
    }
    for _ in range(2):
        for name, (gradient, right) in expected.items():
            np.testing.assert_allclose(
                gradient(x, p), right, rtol=1e-6 if dtype in ("f4", "c8") else 1e-14, err_msg=name
            )


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_derivatives_of_a_power_zero_of_tiny_and_negative_numbers_are_zero(compiled: bool) -> None:
    x, p = np.array([1e-310, -1e-310, -0.0, -2]), np.zeros(4)

    def f(x: Any) -> Any:
        return np.sum(x**p)

    if compiled:
        f = nbad.compile(f)
    for _ in range(2):
        np.testing.assert_array_equal(nbad.grad(f)(x), 0)
        np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(nbad.grad(f)(x)))(x)[2:], 0)


def test_a_zero_cotangent_does_not_hide_the_second_derivative() -> None:
    # No rule may skip its work where g is 0: d2/dx2 sin(x)^2 at 0 is 2.
    first = nbad.grad(lambda x: np.sin(x) ** 2)
    assert nbad.grad(first)(0.0) == 2.0


# Promotion ----------------------------------------------------------------------------------------
WEAK: list[Callable[[Any], Any]] = [
    lambda x: x * 2.0,
    lambda x: 2.0 * x,
    lambda x: x + 1,
    lambda x: 1 - x,
    lambda x: x / 3,
    lambda x: x**2.5,
    lambda x: 2.0**x,
    lambda x: x**2,
    lambda x: x % 2.0,
    lambda x: np.maximum(x, 0.0),
    lambda x: np.hypot(x, 1.0),
    lambda x: np.clip(x, 0, 1.5),
    lambda x: np.where(x > 1, x, 0.0),
    lambda x: x * True,
    lambda x: x * np.float64(2),
    lambda x: np.float64(2) * x,
    lambda x: x * np.float32(2),
    lambda x: x * np.arange(2),
    lambda x: x * np.arange(2, dtype="i2"),
    lambda x: x * (1 + 2j),
    lambda x: x * [1.0, 2.0],
    lambda x: x * np.ones(2, "f2"),
    lambda x: x * np.ones(2, "c8"),
]


@pytest.mark.parametrize("function", WEAK)
def test_promotion_is_numpys(function: Callable[[Any], Any]) -> None:
    for dtype in ("f4", "f8", "c8", "c16"):
        x = np.array([1.25, 2.5], dtype)
        try:
            expected = function(x)
        except TypeError:  # remainder and hypot of complex numbers
            with pytest.raises(TypeError):
                nbad.vjp(function, x)
            continue
        value, pullback = nbad.vjp(function, x)
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
        assert pullback(np.ones_like(value)).dtype == dtype


def test_a_traced_python_float_is_weak_too() -> None:
    x = np.array([1.0, 2.0], "f4")
    value, pullback = nbad.vjp(lambda s, x: (s * s + abs(s) // 3) ** 2 * x - abs(s) / x, 3.0, x)
    assert value.dtype == "f4"
    s_bar, x_bar = pullback(np.ones(2, "f4"))
    assert type(s_bar) is float
    assert x_bar.dtype == "f4"
    assert s_bar == pytest.approx(2 * (9 + 1) * 6 * 3 - 1.5, rel=1e-6)
    np.testing.assert_allclose(x_bar, [103, 100.75], rtol=1e-6)


SCALARS: list[tuple[Callable[[Any], Any], float, float]] = [
    (lambda x: x * x + 2 / x, 9 + 2 / 3, 6 - 2 / 9),
    (lambda x: x**2, 9, 6),
    (lambda x: x**0.5, 3**0.5, 0.5 / 3**0.5),
    (lambda x: x**-1, 1 / 3, -1 / 9),
    (lambda x: 2**x, 8, 8 * np.log(2)),
    (lambda x: x % 2, 1, 1),
    (lambda x: 5 % x, 2, -1),
    (lambda x: x * (x // 2), 3, 1),
    (lambda x: divmod(7.0, x)[1], 1, -2),
    (lambda x: divmod(x, 2)[1], 1, 1),
    (lambda x: -x, -3, -1),
    (lambda x: +x, 3, 1),
    (abs, 3, 1),
    (np.sin, np.sin(3.0), np.cos(3.0)),
    (lambda x: np.where(x > 2, x, -x), 3, 1),
]


@pytest.mark.parametrize(("function", "value", "slope"), SCALARS)
def test_python_floats(function: Callable[[Any], Any], value: float, slope: float) -> None:
    found, gradient = nbad.value_and_grad(function)(3.0)
    assert type(found) is type(function(3.0)) or isinstance(found, np.ndarray)
    assert type(gradient) is float
    assert (float(found), gradient) == pytest.approx((value, slope), rel=1e-14)


def test_python_complex_numbers() -> None:
    value, gradient = nbad.value_and_grad(lambda z: np.real(z * z))(3 + 4j)
    assert (value, gradient) == (-7, 6 - 8j)
    assert type(gradient) is complex
    assert nbad.grad(abs)(3 + 4j) == pytest.approx(0.6 + 0.8j)


def test_numpy_scalars_and_arrays_without_dimensions() -> None:
    assert type(nbad.grad(np.sin)(np.float32(1))) is np.float32
    assert type(nbad.grad(np.sin)(np.float64(1))) is np.float64
    gradient = nbad.grad(np.sin)(np.array(1.0))
    assert type(gradient) is np.ndarray
    assert gradient.shape == ()


def test_a_real_operand_of_a_complex_result_gets_the_real_part() -> None:
    r, z = np.array([1.0, 2]), np.array([1 + 1j, 2 - 3j])
    r_bar, z_bar = pulled(lambda r, z: r * z, r, z)
    assert (r_bar.dtype, z_bar.dtype) == (np.float64, np.complex128)
    np.testing.assert_array_equal(r_bar, [1, 2])
    np.testing.assert_array_equal(z_bar, [1, 2])
    s_bar, z_bar = pulled(lambda s, z: s * z, np.array(2.0), z)
    assert (s_bar.shape, s_bar.dtype, float(s_bar)) == ((), np.float64, 3.0)
    _, pullback = nbad.vjp(lambda r: r * 1j, r)
    np.testing.assert_array_equal(pullback(np.array([1 + 5j, 2 - 7j])), [5, -7])


def test_the_gradient_of_a_real_loss_is_the_direction_of_steepest_ascent() -> None:
    gradient = nbad.grad(lambda z: np.real(z) ** 2 + 3 * np.imag(z))(np.array(2 + 1j))
    assert gradient == 4 + 3j


def test_real_parts_of_real_arrays() -> None:
    x = np.array([-2.0, 3])
    np.testing.assert_array_equal(pulled(lambda x: np.real(x) * 2 + np.imag(x) + np.conj(x), x), [3, 3])
    np.testing.assert_array_equal(nbad.vjp(lambda x: x.imag * x, x)[0], [0, 0])
    np.testing.assert_array_equal(nbad.vjp(lambda x: np.angle(x) * x, x)[0], np.angle(x) * x)
    np.testing.assert_array_equal(pulled(np.real_if_close, np.array([1 + 0j])), [1])


def test_astype() -> None:
    x = np.array([1.1, 2.2])
    single = x.astype("f4")
    value, pullback = nbad.vjp(lambda x: x.astype("f4") * 3, x)
    np.testing.assert_array_equal(value, single * 3)
    cotangent = pullback(np.array([1.5, 2.5], "f4"))
    assert cotangent.dtype == np.float64
    np.testing.assert_array_equal(cotangent, [4.5, 7.5])
    with pytest.warns(np.exceptions.ComplexWarning):
        np.testing.assert_array_equal(pulled(lambda z: z.astype("f8"), np.array([1 + 1j])), [1])
    np.testing.assert_array_equal(nbad.vjp(lambda x: x * x.astype(int), x)[0], x * [1, 2])
    np.testing.assert_array_equal(pulled(lambda x: x.astype("f8", copy=False), x), [1, 1])


# Forms of calling ---------------------------------------------------------------------------------
def in_place(x: Any) -> Any:
    y = np.zeros(2)
    y += x
    return y


def added_at(x: Any) -> Any:
    y = np.zeros(2)
    np.add.at(y, [0, 1], x)
    return y


def copied_into(x: Any) -> Any:
    y = np.zeros(2)
    np.copyto(y, x)
    return y


def assigned(x: Any) -> Any:
    x[0] = 1.0
    return x


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: np.add(x, 1, out=np.zeros(2)), "out="),
    (in_place, "out="),
    (lambda x: np.add(x, 1, where=np.array([True, False])), "np.where"),
    (lambda x: np.clip(x, 0, 1, out=np.zeros(2)), "out="),
    (lambda x: np.clip(x, 0, 1, dtype="f4"), "dtype="),
    (lambda x: np.nan_to_num(x, copy=False), "copy=False"),
    (added_at, "np.add.at"),
    (lambda x: np.add.reduceat(x, [0]), "np.add.reduceat"),
    (lambda x: np.hypot.reduce(x), "np.hypot.reduce"),
    (copied_into, "copyto"),
    (assigned, "x.copy()"),
]


@pytest.mark.parametrize(("function", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_forms_say_what_and_where(function: Callable[[Any], Any], words: str) -> None:
    x = np.array([1.5, 2.5])
    with pytest.raises(nbad.NoRuleError) as caught:
        nbad.vjp(function, x)
    assert words in str(caught.value)
    assert "test_elementwise.py" in str(caught.value)
    np.testing.assert_array_equal(x, [1.5, 2.5])


def test_in_place_operators_on_traced_values() -> None:
    def function(x: Any) -> Any:
        y = x.copy()
        y += 1
        y *= x
        return y

    x = np.array([2.0])
    np.testing.assert_array_equal(pulled(function, x), [5])
    np.testing.assert_array_equal(x, [2])


def test_dtype_of_a_ufunc() -> None:
    x = np.array([1.0, 2.0], "f4")
    for function in (lambda x: np.add(x, 1, dtype="f8"), lambda x: np.sin(x, dtype="f8", out=None)):
        value, pullback = nbad.vjp(function, x)
        np.testing.assert_array_equal(value, function(x))
        assert value.dtype == np.float64
        assert pullback(np.ones(2)).dtype == np.float32
    assert nbad.vjp(lambda x: np.absolute(x, dtype="f8"), x)[0].dtype == np.float64


def test_outer_of_a_ufunc() -> None:
    a, b = np.array([1.0, 2]), np.array([[3.0, 4, 5]])
    value, pullback = nbad.vjp(lambda a, b: np.multiply.outer(a, b), a, b)
    np.testing.assert_array_equal(value, np.multiply.outer(a, b))
    a_bar, b_bar = pullback(np.ones((2, 1, 3)))
    np.testing.assert_array_equal(a_bar, [12, 12])
    np.testing.assert_array_equal(b_bar, [[3, 3, 3]])
    np.testing.assert_array_equal(pulled(lambda a: np.add.outer(a, [1, 2, 3]), a), [3, 3])
    np.testing.assert_array_equal(nbad.vjp(lambda a: np.less.outer(a, a) * a, a)[0], [[0, 2], [0, 0]])


SEQUENCES: list[tuple[Callable[[Any], Any], list[float]]] = [
    (lambda x: x + [3.0, 4], [1, 1]),
    (lambda x: [3.0, 4] * x, [3, 4]),
    (lambda x: (3.0, 4) - x, [-1, -1]),
    (lambda x: x % [3, 4], [1, 1]),
    (lambda x: np.multiply(x, [3, 4]), [3, 4]),
    (lambda x: np.where([True, False], x, 3), [1, 0]),
    (lambda x: np.where([1, 0], x, -x), [1, -1]),
    (lambda x: np.clip(x, [0, 0], (3, 3)), [1, 0]),
]


@pytest.mark.parametrize(("function", "expected"), SEQUENCES)
def test_lists_and_tuples_are_arrays(function: Callable[[Any], Any], expected: list[float]) -> None:
    x = np.array([2.0, 5.0])
    value, pullback = nbad.vjp(function, x)
    np.testing.assert_array_equal(value, function(x))
    np.testing.assert_array_equal(pullback(np.ones(2)), expected)


@pytest.mark.parametrize(
    "other", ["a", None, np.array([None, 1.0]), np.ma.array([1.0, 2], mask=[0, 1]), object()]
)
def test_operands_that_are_no_numbers_are_refused(other: Any) -> None:
    x = np.array([1.0, 2.0])
    for function in (lambda x: x + other, lambda x: np.maximum(x, other), lambda x: other * x):
        with pytest.raises((NbadError, TypeError)):
            nbad.vjp(function, x)


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        nbad.vjp(lambda a, b: a + b, np.ones(2), np.ones(3))


def test_comparisons_give_plain_arrays() -> None:
    seen = []

    def function(x: Any) -> Any:
        mask = (x > 1) & (x <= 3) | (x == 5) & (x != 4) & (x >= 2) | (x < 0)
        seen.extend(
            [mask, np.isnan(x), np.floor(x), x // 2, np.round(x), np.sign(x), np.greater(x, 1), np.shape(x)]
        )
        return mask * x

    x = np.array([0.5, 2, 4, 5, -1])
    np.testing.assert_array_equal(pulled(function, x), [0, 1, 0, 1, 1])
    assert [type(value) for value in seen] == [np.ndarray] * 7 + [tuple]


# What runs in blocks ------------------------------------------------------------------------------
#: Rows whose pullbacks run on ndarrays, one NumPy call after the other, and why.
ON_THE_HOST = {
    "ldexp": "its exponents are integers, and a block has one dtype",
    "imag": "its cotangent is complex, the block real",
    "complex_absolute": "its operand is complex, the block real",
    "astype": "it changes the dtype, and a block has one",
    "number": "it makes a number of Python's",
}


def test_which_rules_run_in_blocks() -> None:
    rows = [row for row in vars(elementwise).values() if isinstance(row, Op)]
    assert len(rows) == len(set(map(id, rows))) >= 57
    on_host = {row.name for row in rows if PROGRAMS.translate(row, F8) != READY}
    assert on_host == set(ON_THE_HOST)


def test_which_complex_rules_run_in_blocks() -> None:
    rows = {
        row.name
        for row in vars(elementwise).values()
        if isinstance(row, Op) and PROGRAMS.translate(row, C16) == READY
    }
    both = {case.name for case in CASES if "c16" in case.dtypes} & {
        row.name for row in vars(elementwise).values() if isinstance(row, Op)
    }
    assert both - rows == {"imag"}


@pytest.mark.parametrize(
    ("function", "places", "along"),
    [
        (np.arcsin, (2 + 0j, complex(2, -0.0), complex(-2, 0.0), complex(-2, -0.0)), 1),
        (np.arccos, (2 + 0j, complex(2, -0.0), complex(-2, 0.0), complex(-2, -0.0)), 1),
        (np.arccosh, (0.5 + 0j, complex(0.5, -0.0), complex(-2, 0.0), complex(-2, -0.0)), 1),
        (np.arcsinh, (2j, complex(-0.0, 2), complex(0.0, -2), complex(-0.0, -2)), 1j),
    ],
)
def test_the_sign_of_zero_tells_the_side_of_a_branch_cut(function: Any, places: Any, along: complex) -> None:
    step = 2.0**-20
    for z in places:
        # Steps along the cut, which leave the part that is a zero as it is.
        ends = [
            np.array([complex(z.real + s, z.imag) if along == 1 else complex(z.real, z.imag + s)])
            for s in (step, -step)
        ]
        slope = (function(ends[0]) - function(ends[1])) / (2 * step * along)
        _, pullback = nbad.vjp(function, np.array([z]))
        np.testing.assert_allclose(np.conj(pullback(np.ones(1, complex))), slope, atol=1e-9)


def test_a_cast_from_complex_to_real_warns_as_numpy_does() -> None:
    z = np.array([1.0 + 2.0j])
    with pytest.warns(np.exceptions.ComplexWarning) as caught:
        gradient = nbad.grad(lambda z: np.sum(z.astype(np.float32)))(z)  # here
    assert gradient == 1.0
    assert [w.filename for w in caught] == [__file__]
