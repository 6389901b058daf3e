"""Partial derivatives of the complex functions that kernels call.

Owns the formulas: plain functions of the arguments and the result ``y``, for complex numbers and for those with tangents.
Sources: M. Abramowitz and I. Stegun, Handbook of Mathematical Functions (1964), chapter 4.
"""

import cmath
import operator
from typing import Any, NamedTuple

import numpy as np

from nbad.scalar import formulas as real

__all__ = ["COMPLEX_FORMULAS", "LOOKING", "MODULUS", "Partial"]


class Partial(NamedTuple):
    """The derivative of a function in one argument.

    `formula` is as in `nbad.scalar.formulas`. `beside` is the argument with which the derivative is real, -1 if it always is.
    """

    formula: Any
    beside: int | None = None


def d_sin(a: Any, y: Any) -> Any:
    return cmath.cos(a)


def d_cos(a: Any, y: Any) -> Any:
    return -cmath.sin(a)


def d_tan(a: Any, y: Any) -> Any:
    return 1.0 + y * y


def d_asin(a: Any, y: Any) -> Any:
    return 1.0 / (cmath.sqrt(1.0 - a) * cmath.sqrt(1.0 + a))


def d_acos(a: Any, y: Any) -> Any:
    return -1.0 / (cmath.sqrt(1.0 - a) * cmath.sqrt(1.0 + a))


def d_sinh(a: Any, y: Any) -> Any:
    return cmath.cosh(a)


def d_cosh(a: Any, y: Any) -> Any:
    return cmath.sinh(a)


def d_asinh(a: Any, y: Any) -> Any:
    return 1.0 / (cmath.sqrt(1.0 + 1j * a) * cmath.sqrt(1.0 - 1j * a))


def d_acosh(a: Any, y: Any) -> Any:
    return 1.0 / (cmath.sqrt(a - 1.0) * cmath.sqrt(a + 1.0))


def d_expm1(a: Any, y: Any) -> Any:
    return cmath.exp(a)


def d_power_a(a: Any, b: Any, y: Any) -> Any:
    if b != 0:
        return b * a ** (b - 1)
    # The power is 1 whatever the base, also 0, and its derivative 0: no 0 * inf. But b may move.
    return b * y / a if a != 0 else 0.0 * y


def d_power_b(a: Any, b: Any, y: Any) -> Any:
    # At a = 0 the power is 0 around every b with a real part above 0.
    return y * cmath.log(a) if a != 0 else 0.0 * y


def d_modulus(a: Any, y: Any) -> Any:
    """Return the gradient of the absolute value, 0 at 0."""
    return a / y if y != 0 else 0.0 * a


def _formulas() -> dict[Any, tuple[Partial, ...]]:
    one_argument: dict[Any, tuple[Any, ...]] = {
        real.RESULT: (cmath.exp, np.exp), real.d_log: (cmath.log, np.log), real.d_sqrt: (cmath.sqrt, np.sqrt),
        real.d_log10: (cmath.log10, np.log10), real.d_log2: (np.log2,), real.d_exp2: (np.exp2,),
        real.d_log1p: (np.log1p,), d_expm1: (np.expm1,),
        d_sin: (cmath.sin, np.sin), d_cos: (cmath.cos, np.cos), d_tan: (cmath.tan, np.tan),
        d_asin: (cmath.asin, np.arcsin), d_acos: (cmath.acos, np.arccos), real.d_atan: (cmath.atan, np.arctan),
        d_sinh: (cmath.sinh, np.sinh), d_cosh: (cmath.cosh, np.cosh), real.d_tanh: (cmath.tanh, np.tanh),
        d_asinh: (cmath.asinh, np.arcsinh), d_acosh: (cmath.acosh, np.arccosh),
        real.d_atanh: (cmath.atanh, np.arctanh),
        real.d_square: (np.square,), real.d_reciprocal: (np.reciprocal,),
    }  # fmt: skip
    same, minus = Partial(None), Partial(-1.0, -1)
    found: dict[Any, tuple[Partial, ...]] = {
        f: (Partial(formula),) for formula, functions in one_argument.items() for f in functions
    }
    found |= dict.fromkeys((operator.pos, np.positive), (same,))
    found |= dict.fromkeys((operator.neg, np.negative), (minus,))
    two_arguments: dict[Any, tuple[Partial, ...]] = {
        (operator.add, operator.iadd, np.add): (same, same),
        (operator.sub, operator.isub, np.subtract): (same, Partial(-1.0, -1)),
        (operator.mul, operator.imul, np.multiply): (Partial(real.SECOND, 1), Partial(real.FIRST, 0)),
        (operator.truediv, operator.itruediv, np.true_divide): (
            Partial(real.d_divide_a, 1), Partial(real.d_divide_b),
        ),
        (operator.pow, operator.ipow, np.power): (Partial(d_power_a), Partial(d_power_b)),
    }  # fmt: skip
    for functions, partials in two_arguments.items():
        found |= dict.fromkeys(functions, partials)
    return found


COMPLEX_FORMULAS = _formulas()
"""The derivatives of a holomorphic function, one for each argument."""

MODULUS = (abs, np.abs)
"""The real function with a formula of its own; the others are written by parts."""

LOOKING = (
    operator.eq, operator.ne, np.equal, np.not_equal, cmath.isnan, cmath.isinf, cmath.isfinite,
    np.isnan, np.isinf, np.isfinite, bool, operator.truth, operator.not_,
)  # fmt: skip
"""Functions of complex numbers that look at their values."""
