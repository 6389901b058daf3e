"""Partial derivatives of the scalar functions that kernels call.

Owns the formulas, as plain functions of the arguments and the result ``y``; numba compiles those that are used, for floats
and for numbers with tangents, so a formula may use nothing but operators and functions that stand here too. What needs no
compiling is not written as a function: None is the derivative 1, a number is itself, `Given` is an argument or the result.
Sources: M. Abramowitz and I. Stegun, Handbook of Mathematical Functions (1964), chapters 4, 6 and 7.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbad._jit import jit

__all__ = ["COMPARISONS", "FIRST", "FORMULAS", "PLAIN", "RESULT", "SECOND", "Given"]


class Given(NamedTuple):
    """A partial derivative that is one of the arguments, or the result."""

    place: int


FIRST, SECOND, RESULT = Given(0), Given(1), Given(-1)
Formula = Callable[..., Any] | Given | float | None


@jit(cache=False)
def sign(a: Any) -> Any:
    """Return the sign of a number, NaN for NaN."""
    if a > 0:
        return 1.0
    if a < 0:
        return -1.0
    return 0.0 if a == 0 else math.nan


@jit(cache=False)
def digamma(a: Any) -> Any:
    """Return the logarithmic derivative of the gamma function, by recurrence and asymptotic series (6.3.5, 6.3.7, 6.3.18)."""
    if a <= 0:
        # Reflection: the whole numbers are poles.
        part = math.pi / math.tan(math.pi * a)
        a = 1.0 - a
        found = -part
    else:
        found = 0.0 * a
    while a < 10.0:
        found -= 1.0 / a
        a += 1.0
    z = 1.0 / (a * a)
    series = 1.0 / 12 - z * (
        1.0 / 120 - z * (1.0 / 252 - z * (1.0 / 240 - z * (1.0 / 132 - z * (691.0 / 32760 - z / 12))))
    )
    return found + math.log(a) - 0.5 / a - z * series


# One argument -----------------------------------------------------------------------------------
def d_sin(a: Any, y: Any) -> Any:
    return math.cos(a)


def d_cos(a: Any, y: Any) -> Any:
    return -math.sin(a)


def d_tan(a: Any, y: Any) -> Any:
    return 1.0 + y * y


def d_asin(a: Any, y: Any) -> Any:
    return 1.0 / math.sqrt((1.0 - a) * (1.0 + a))


def d_acos(a: Any, y: Any) -> Any:
    return -1.0 / math.sqrt((1.0 - a) * (1.0 + a))


def d_atan(a: Any, y: Any) -> Any:
    return 1.0 / (1.0 + a * a)


def d_sinh(a: Any, y: Any) -> Any:
    return math.cosh(a)


def d_cosh(a: Any, y: Any) -> Any:
    return math.sinh(a)


def d_tanh(a: Any, y: Any) -> Any:
    return (1.0 - y) * (1.0 + y)


def d_asinh(a: Any, y: Any) -> Any:
    return 1.0 / math.hypot(1.0, a)


def d_acosh(a: Any, y: Any) -> Any:
    return 1.0 / (math.sqrt(a - 1.0) * math.sqrt(a + 1.0))


def d_atanh(a: Any, y: Any) -> Any:
    return 1.0 / ((1.0 - a) * (1.0 + a))


def d_exp2(a: Any, y: Any) -> Any:
    return y * 0.6931471805599453


def d_expm1(a: Any, y: Any) -> Any:
    return math.exp(a)


def d_log(a: Any, y: Any) -> Any:
    return 1.0 / a


def d_log2(a: Any, y: Any) -> Any:
    return 1.4426950408889634 / a


def d_log10(a: Any, y: Any) -> Any:
    return 0.4342944819032518 / a


def d_log1p(a: Any, y: Any) -> Any:
    return 1.0 / (1.0 + a)


def d_sqrt(a: Any, y: Any) -> Any:
    return 0.5 / y


def d_cbrt(a: Any, y: Any) -> Any:
    return 1.0 / (3.0 * y * y)


def d_square(a: Any, y: Any) -> Any:
    return 2.0 * a


def d_reciprocal(a: Any, y: Any) -> Any:
    return -y * y


def d_abs(a: Any, y: Any) -> Any:
    return sign(a)


def d_erf(a: Any, y: Any) -> Any:
    return 1.1283791670955126 * math.exp(-a * a)


def d_erfc(a: Any, y: Any) -> Any:
    return -1.1283791670955126 * math.exp(-a * a)


def d_gamma(a: Any, y: Any) -> Any:
    return y * digamma(a)


def d_lgamma(a: Any, y: Any) -> Any:
    return digamma(a)


# Two arguments ----------------------------------------------------------------------------------
def d_divide_a(a: Any, b: Any, y: Any) -> Any:
    return 1.0 / b


def d_divide_b(a: Any, b: Any, y: Any) -> Any:
    return -y / b


def d_power_a(a: Any, b: Any, y: Any) -> Any:
    if b != 0:
        return b * a ** (b - 1)
    # The power is 1 whatever the base, also 0, and its derivative 0: no 0 * inf. But b may move.
    return b * y / a if a != 0 else 0.0 * a


def d_power_b(a: Any, b: Any, y: Any) -> Any:
    # At a = 0 the power is 0 around every b > 0.
    return y * math.log(a) if a != 0 or b < 0 else 0.0 * y


def d_mod_b(a: Any, b: Any, y: Any) -> Any:
    return -np.floor(a / b)


def d_fmod_b(a: Any, b: Any, y: Any) -> Any:
    return -np.trunc(a / b)


def d_atan2_a(a: Any, b: Any, y: Any) -> Any:
    return b / (a * a + b * b)


def d_atan2_b(a: Any, b: Any, y: Any) -> Any:
    return -a / (a * a + b * b)


def d_hypot_a(a: Any, b: Any, y: Any) -> Any:
    return a / y


def d_hypot_b(a: Any, b: Any, y: Any) -> Any:
    return b / y


def d_copysign_a(a: Any, b: Any, y: Any) -> Any:
    return math.copysign(1.0, a) * math.copysign(1.0, b)


def d_ldexp_a(a: Any, b: Any, y: Any) -> Any:
    return math.ldexp(1.0, b)


def d_logaddexp_a(a: Any, b: Any, y: Any) -> Any:
    return math.exp(a - y)


def d_logaddexp_b(a: Any, b: Any, y: Any) -> Any:
    return math.exp(b - y)


def d_logaddexp2_a(a: Any, b: Any, y: Any) -> Any:
    return math.exp((a - y) * 0.6931471805599453)


def d_logaddexp2_b(a: Any, b: Any, y: Any) -> Any:
    return math.exp((b - y) * 0.6931471805599453)


def d_maximum_a(a: Any, b: Any, y: Any) -> Any:
    # Ties share the derivative equally.
    return 1.0 if a > b else 0.5 if a == b else 0.0


def d_maximum_b(a: Any, b: Any, y: Any) -> Any:
    return 1.0 if b > a else 0.5 if a == b else 0.0


def d_fmax_a(a: Any, b: Any, y: Any) -> Any:
    return 1.0 if a > b or b != b else 0.5 if a == b else 0.0


def d_fmax_b(a: Any, b: Any, y: Any) -> Any:
    return 1.0 if b > a or a != a else 0.5 if a == b else 0.0


def d_fmin_a(a: Any, b: Any, y: Any) -> Any:
    return 1.0 if a < b or b != b else 0.5 if a == b else 0.0


def d_fmin_b(a: Any, b: Any, y: Any) -> Any:
    return 1.0 if b < a or a != a else 0.5 if a == b else 0.0


def _pairs() -> dict[Any, tuple[Formula, ...]]:
    one_argument: dict[Any, tuple[Any, ...]] = {
        d_sin: (math.sin, np.sin), d_cos: (math.cos, np.cos), d_tan: (math.tan, np.tan),
        d_asin: (math.asin, np.arcsin), d_acos: (math.acos, np.arccos), d_atan: (math.atan, np.arctan),
        d_sinh: (math.sinh, np.sinh), d_cosh: (math.cosh, np.cosh), d_tanh: (math.tanh, np.tanh),
        d_asinh: (math.asinh, np.arcsinh), d_acosh: (math.acosh, np.arccosh), d_atanh: (math.atanh, np.arctanh),
        RESULT: (math.exp, np.exp), d_exp2: (np.exp2,), d_expm1: (math.expm1, np.expm1), d_log: (math.log, np.log),
        d_log2: (math.log2, np.log2), d_log10: (math.log10, np.log10), d_log1p: (math.log1p, np.log1p),
        d_sqrt: (math.sqrt, np.sqrt), d_cbrt: (np.cbrt,), d_square: (np.square,), d_reciprocal: (np.reciprocal,),
        d_abs: (abs, math.fabs, np.abs, np.fabs), d_erf: (math.erf,), d_erfc: (math.erfc,), d_gamma: (math.gamma,),
        d_lgamma: (math.lgamma,), 57.29577951308232: (math.degrees, np.degrees, np.rad2deg),
        0.017453292519943295: (math.radians, np.radians, np.deg2rad), -1.0: (operator.neg, np.negative),
        None: (operator.pos, np.positive, np.conjugate),
    }  # fmt: skip
    two_arguments: dict[Any, tuple[Any, ...]] = {
        (None, None): (operator.add, operator.iadd, np.add),
        (None, -1.0): (operator.sub, operator.isub, np.subtract),
        (SECOND, FIRST): (operator.mul, operator.imul, np.multiply),
        (d_divide_a, d_divide_b): (operator.truediv, operator.itruediv, np.true_divide),
        (d_power_a, d_power_b): (operator.pow, operator.ipow, pow, math.pow, np.power, np.float_power),
        (None, d_mod_b): (operator.mod, operator.imod, np.remainder),
        (None, d_fmod_b): (math.fmod, np.fmod),
        (d_atan2_a, d_atan2_b): (math.atan2, np.arctan2),
        (d_hypot_a, d_hypot_b): (math.hypot, np.hypot),
        (d_copysign_a, 0.0): (math.copysign, np.copysign),
        (d_ldexp_a, 0.0): (math.ldexp, np.ldexp),
        (d_logaddexp_a, d_logaddexp_b): (np.logaddexp,),
        (d_logaddexp2_a, d_logaddexp2_b): (np.logaddexp2,),
        (d_maximum_a, d_maximum_b): (np.maximum,),
        (d_maximum_b, d_maximum_a): (np.minimum,),
        (d_fmax_a, d_fmax_b): (np.fmax,),
        (d_fmin_a, d_fmin_b): (np.fmin,),
    }
    found: dict[Any, tuple[Formula, ...]] = {}
    for formula, functions in one_argument.items():
        found |= dict.fromkeys(functions, (formula,))
    for formulas, functions in two_arguments.items():
        found |= dict.fromkeys(functions, formulas)
    return found


FORMULAS = _pairs()
"""The partial derivatives of a function, one formula for each argument."""

COMPARISONS = (
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
)  # fmt: skip
"""Functions of two numbers that look at their values."""

PLAIN = (
    math.floor, math.ceil, math.trunc, math.isnan, math.isinf, math.isfinite, math.frexp, round, operator.truth,
    operator.not_, bool, int, operator.floordiv, operator.ifloordiv, np.floor_divide, np.floor, np.ceil, np.trunc,
    np.rint, np.sign, np.signbit, np.isnan, np.isinf, np.isfinite, np.logical_and, np.logical_or, np.logical_xor,
    np.logical_not,
    *COMPARISONS,
)  # fmt: skip
"""Functions whose derivative is 0 where they have one: what they return is a plain number."""
