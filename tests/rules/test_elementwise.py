"""Elementwise functions: every row and binding under the laws, the choices at kinks, promotion, and the forms of calling."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import Booleans, Case, Spaced, Uniform, laws

import nbad
from nbad.errors import NbadError
from nbad.program import F8, PROGRAMS, READY
from nbad.rules import elementwise
from nbad.table import TABLE

S = (3, 4)
LARGE = (1 << 17,)


def unary(name: str, low: float, high: float, *, complex_ok: bool = False, large: bool = False, **more: Any) -> Case:
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
    return (rng.uniform(6.2, 6.8, S) * rng.choice([-1, 1], S)).astype(dtype), rng.uniform(1.8, 2.0, S).astype(dtype)


def signed(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
    """Return numbers of both signs, away from zero."""
    return (rng.uniform(0.25, 2, S) * rng.choice([-1, 1], S)).astype(dtype)


def exponents(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
    """Return whole numbers as ldexp wants them."""
    return rng.integers(-3, 4, S).astype(np.int32)


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
    Case("nextafter", np.nextafter, [(S, 0.5, 1), (S, 2, 3)], elementwise=True),
    Case("ldexp", np.ldexp, [(S, -2, 2), exponents], elementwise=True),
    Case("real", np.real, [(S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("imag", np.imag, [(S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("angle", np.angle, [(S, 0.25, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("angle in degrees", lambda z: np.angle(z, deg=True), [(S, 0.25, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("where", np.where, [Booleans(S), (S, -2, 2), (S, -2, 2)], complex_ok=True, elementwise=True),
    Case("clip", np.clip, [Spaced(S, -1.5, 0.25), (S, -1.1, -1.03), (S, 0.65, 0.72)], elementwise=True),
    Case("clip below", lambda x: np.clip(x, -0.6, None), [Spaced(S, -1.5, 0.25)], elementwise=True),
    Case("clip above", lambda x: np.clip(x, a_min=None, a_max=0.6), [Spaced(S, -1.5, 0.25)], elementwise=True),
    Case("clip by min and max", lambda x: np.clip(x, min=-0.6, max=0.6), [Spaced(S, -1.5, 0.25)], elementwise=True),
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
    Case("astype to complex double", lambda x: x.astype(complex), [(S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case(
        "astype to single",
        lambda x: x.astype("f4"),
        [(S, -2, 2)],
        dtypes=("f4", "f8"),
        elementwise=True,
        off=dict.fromkeys(("adjoint", "second", "sizes"), "differences of float32 values are too coarse; see test_astype"),
    ),
    # Operators: the spellings that do not go through a ufunc's name.
    Case("operators", lambda a, b: (a + b) * a - b / a + (-a) ** 2 + +b, [(S, 0.5, 2), (S, -2, 2)], complex_ok=True, elementwise=True),
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
    Case("reflected", lambda x: (1 + x) * 3 - 2 / x + (1 - x) * 2 + 2.5**x, [(S, 0.5, 2)], complex_ok=True, elementwise=True),
    Case("reflected remainder", lambda x: 6.5 % x, [(S, 1.8, 2.0)], elementwise=True),
    Case("real with complex", lambda a, b: a * b + a / b - b, [Uniform(S, 0.5, 2, real=True), (S, 0.5, 2)], dtypes=("c8", "c16"), elementwise=True),
    Case("complex power of real", np.power, [Uniform(S, 0.5, 2, real=True), (S, -2, 2)], dtypes=("c8", "c16"), elementwise=True),
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
