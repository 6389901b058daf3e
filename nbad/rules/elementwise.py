"""Elementwise functions.

Owns the rows of NumPy's differentiable ufuncs and of `where` and `clip`. A pullback is the adjoint of the
derivative under the real inner product Re(conj(a) b), hence the conj. Choices at kinks stand beside the rule
and in the table of the docs.
"""

import functools
import operator
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.table import BINDINGS, UFUNCS, binds, elementwise, operation
from nbad.trace import apply, cast, install_operators, is_traced, plain, underlying
from nbad.writing import linked, makes_views

LN2 = float(np.log(2.0))
LN10 = float(np.log(10.0))


# Arithmetic ---------------------------------------------------------------------------------------
def pass_on(g):
    return g


def negate(g):
    return -g


def multiply_a(g, b):
    return g * np.conj(b)


def multiply_b(g, a):
    return g * np.conj(a)


def divide_a(g, b):
    return g / np.conj(b)


def divide_b(g, b, y):
    return -g * np.conj(y / b)


def conjugate_x(g):
    return np.conj(g)


def square_x(g, x):
    return 2 * g * np.conj(x)


def reciprocal_x(g, y):
    return -g * np.conj(y * y)


def sqrt_x(g, y):  # infinite at 0, as the one-sided derivative
    return 0.5 * g / np.conj(y)


def cbrt_x(g, y):
    return g / (3 * y * y)


def power_a(g, a, b):
    # Where b is 0, b * a**b / a: 0, also at tiny a, but it moves with b. At a = 0 it is b / inf, 0 with its derivatives.
    from_zero = np.where(b == 0, np.where(a == 0, np.inf, a), 1)
    return g * np.conj(b * a ** np.where(b == 0, b, b - 1) / from_zero)


def power_b(g, a, y):  # 0 at a = 0; nan for negative real a
    return g * np.conj(y * np.log(np.where(a == 0, 1, a)))


def remainder_b(g, a, b):
    return -g * np.floor(a / b)


def fmod_b(g, a, b):
    return -g * np.trunc(a / b)


# Exponentials and logarithms ----------------------------------------------------------------------
def exp_x(g, y):
    return g * np.conj(y)


def exp2_x(g, y):
    return g * np.conj(y) * LN2


def expm1_x(g, y):
    return g * np.conj(y + 1)


def log_x(g, x):
    return g / np.conj(x)


def log2_x(g, x):
    return g / (np.conj(x) * LN2)


def log10_x(g, x):
    return g / (np.conj(x) * LN10)


def log1p_x(g, x):
    return g / np.conj(1 + x)


def logaddexp_a(g, a, y):  # where both are -inf: 1 for both
    return g * np.exp(np.where(a == y, 0, a - y))


def logaddexp_b(g, b, y):
    return g * np.exp(np.where(b == y, 0, b - y))


def logaddexp2_a(g, a, y):
    return g * np.exp2(np.where(a == y, 0, a - y))


def logaddexp2_b(g, b, y):
    return g * np.exp2(np.where(b == y, 0, b - y))


# Trigonometric and hyperbolic functions -----------------------------------------------------------
def sin_x(g, x):
    return g * np.conj(np.cos(x))


def cos_x(g, x):
    return -g * np.conj(np.sin(x))


def tan_x(g, y):
    return g * np.conj(1 + y * y)


# Of a complex number on a cut, the sign of the zero in 1 - x * x says which side it is on; subtracting from 1 would lose it.
def arcsin_x(g, x):
    return g / np.conj(np.sqrt(-(x * x - 1)))


def arccos_x(g, x):
    return -g / np.conj(np.sqrt(-(x * x - 1)))


def arctan_x(g, x):
    return g / np.conj(1 + x * x)


def sinh_x(g, x):
    return g * np.conj(np.cosh(x))


def cosh_x(g, x):
    return g * np.conj(np.sinh(x))


def tanh_x(g, y):
    return g * np.conj(1 - y * y)


def arcsinh_x(g, x):
    return g / np.conj(np.sqrt(-(-x * x - 1)))


def arccosh_x(g, x):
    # The product of roots, not the root of the product: it has NumPy's branch for complex x.
    return g / np.conj(np.sqrt(x - 1) * np.sqrt(-(-x - 1)))


def arctanh_x(g, x):
    return g / np.conj(1 - x * x)


def arctan2_a(g, a, b):  # 0 at the origin
    return g * b / np.where((a == 0) & (b == 0), 1, a * a + b * b)


def arctan2_b(g, a, b):
    return -g * a / np.where((a == 0) & (b == 0), 1, a * a + b * b)


def hypot_a(g, a, y):  # 0 at the origin
    return g * a / np.where(y == 0, 1, y)


def hypot_b(g, b, y):
    return g * b / np.where(y == 0, 1, y)


def degrees_x(g):
    return g * (180.0 / np.pi)


def radians_x(g):
    return g * (np.pi / 180.0)


# Functions with kinks -----------------------------------------------------------------------------
def absolute_x(g, x):  # 0 at 0
    return g * np.sign(x)


def complex_absolute_x(g, x, y):  # 0 at 0
    return g * x / np.where(y == 0, 1, y)


def complex_sign_x(g, x, y):  # 0 at 0
    modulus = np.absolute(x)
    across = g - y * np.real(np.conj(y) * g)
    return np.where(modulus == 0, 0, across / np.where(modulus == 0, 1, modulus))


# Functions, not operators, compare below: Python's complex numbers have no order, NumPy's have.
def maximum_a(g, a, b):  # ties share the cotangent equally
    return np.where(np.greater(a, b), g, np.where(a == b, 0.5 * g, 0))


def maximum_b(g, a, b):
    return np.where(np.greater(b, a), g, np.where(a == b, 0.5 * g, 0))


def minimum_a(g, a, b):
    return np.where(np.less(a, b), g, np.where(a == b, 0.5 * g, 0))


def minimum_b(g, a, b):
    return np.where(np.less(b, a), g, np.where(a == b, 0.5 * g, 0))


def fmax_a(g, a, b):  # a nan loses against a number
    return np.where(np.greater(a, b) | np.isnan(b), g, np.where(a == b, 0.5 * g, 0))


def fmax_b(g, a, b):
    return np.where(np.greater(b, a) | np.isnan(a), g, np.where(a == b, 0.5 * g, 0))


def fmin_a(g, a, b):
    return np.where(np.less(a, b) | np.isnan(b), g, np.where(a == b, 0.5 * g, 0))


def fmin_b(g, a, b):
    return np.where(np.less(b, a) | np.isnan(a), g, np.where(a == b, 0.5 * g, 0))


def copysign_a(g, a, b):  # 0 at a = 0
    return g * np.sign(a) * np.copysign(1, b)


def ldexp_x(g, n):
    return np.ldexp(g, n)


def where_a(g, c):
    return np.where(c, g, 0)


def where_b(g, c):
    return np.where(c, 0, g)


def clip_x(g, x, a, b):  # the bounds belong to the inside
    return np.where(np.greater_equal(x, a) & np.less_equal(x, b), g, 0)


def clip_a(g, x, a, b):
    return np.where(np.less(x, a) & np.less_equal(a, b), g, 0)


def clip_b(g, x, a, b):
    return np.where(np.greater(x, b) | np.greater(a, b), g, 0)


# Complex parts ------------------------------------------------------------------------------------
def imag_x(g):
    return 1j * g


ADD = elementwise(np.add, a=pass_on, b=pass_on)
SUBTRACT = elementwise(np.subtract, a=pass_on, b=negate)
MULTIPLY = elementwise(np.multiply, a=multiply_a, b=multiply_b)
DIVIDE = elementwise(np.divide, a=divide_a, b=divide_b)
NEGATIVE = elementwise(np.negative, x=negate)
POSITIVE = elementwise(np.positive, x=pass_on)
CONJUGATE = elementwise(np.conjugate, x=conjugate_x)
SQUARE = elementwise(np.square, x=square_x)
RECIPROCAL = elementwise(np.reciprocal, x=reciprocal_x)
SQRT = elementwise(np.sqrt, x=sqrt_x)
CBRT = elementwise(np.cbrt, x=cbrt_x)
POWER = elementwise(np.power, a=power_a, b=power_b)
REMAINDER = elementwise(np.remainder, a=pass_on, b=remainder_b)
FMOD = elementwise(np.fmod, a=pass_on, b=fmod_b)
EXP = elementwise(np.exp, x=exp_x)
EXP2 = elementwise(np.exp2, x=exp2_x)
EXPM1 = elementwise(np.expm1, x=expm1_x)
LOG = elementwise(np.log, x=log_x)
LOG2 = elementwise(np.log2, x=log2_x)
LOG10 = elementwise(np.log10, x=log10_x)
LOG1P = elementwise(np.log1p, x=log1p_x)
LOGADDEXP = elementwise(np.logaddexp, a=logaddexp_a, b=logaddexp_b)
LOGADDEXP2 = elementwise(np.logaddexp2, a=logaddexp2_a, b=logaddexp2_b)
SIN = elementwise(np.sin, x=sin_x)
COS = elementwise(np.cos, x=cos_x)
TAN = elementwise(np.tan, x=tan_x)
ARCSIN = elementwise(np.arcsin, x=arcsin_x)
ARCCOS = elementwise(np.arccos, x=arccos_x)
ARCTAN = elementwise(np.arctan, x=arctan_x)
SINH = elementwise(np.sinh, x=sinh_x)
COSH = elementwise(np.cosh, x=cosh_x)
TANH = elementwise(np.tanh, x=tanh_x)
ARCSINH = elementwise(np.arcsinh, x=arcsinh_x)
ARCCOSH = elementwise(np.arccosh, x=arccosh_x)
ARCTANH = elementwise(np.arctanh, x=arctanh_x)
ARCTAN2 = elementwise(np.arctan2, a=arctan2_a, b=arctan2_b)
HYPOT = elementwise(np.hypot, a=hypot_a, b=hypot_b)
DEGREES = elementwise(np.degrees, x=degrees_x)
RAD2DEG = elementwise(np.rad2deg, x=degrees_x)
RADIANS = elementwise(np.radians, x=radians_x)
DEG2RAD = elementwise(np.deg2rad, x=radians_x)
FABS = elementwise(np.fabs, x=absolute_x)
MAXIMUM = elementwise(np.maximum, a=maximum_a, b=maximum_b)
MINIMUM = elementwise(np.minimum, a=minimum_a, b=minimum_b)
FMAX = elementwise(np.fmax, a=fmax_a, b=fmax_b)
FMIN = elementwise(np.fmin, a=fmin_a, b=fmin_b)
COPYSIGN = elementwise(np.copysign, a=copysign_a, b=None)
NEXTAFTER = elementwise(np.nextafter, a=pass_on, b=None)
LDEXP = elementwise(np.ldexp, x=ldexp_x, n=None)


def absolute_forward(x):
    """Return the absolute value; of a Python float, a Python float."""
    return abs(x)


def complex_sign_forward(x):
    """Return ``x / abs(x)``, 0 at 0."""
    return np.sign(x)


ABSOLUTE = elementwise(absolute_forward, name="absolute", x=absolute_x)
# An array op, because a block has one dtype: here the operand is complex and the result is real.
COMPLEX_ABSOLUTE = operation(absolute_forward, name="complex_absolute", x=complex_absolute_x)
COMPLEX_SIGN = elementwise(complex_sign_forward, name="complex_sign", x=complex_sign_x)
REAL = elementwise(np.real, name="real", x=pass_on)
IMAG = elementwise(np.imag, name="imag", x=imag_x)
WHERE = elementwise(np.where, name="where", c=None, a=where_a, b=where_b)
CLIP = elementwise(np.clip, name="clip", x=clip_x, a=clip_a, b=clip_b)


def astype_forward(x, *, dtype):
    """Return `x` cast to the dtype named `dtype`."""
    return np.asarray(x, np.dtype(dtype)) if not is_traced(x) else cast(x, np.dtype(dtype))


def number_forward(x):
    """Return a 0-d array or NumPy's number as a number of Python's, which is weak in promotion."""
    return x.item() if hasattr(x, "item") else x


ASTYPE = operation(astype_forward, x=pass_on, linear=True)
NUMBER = operation(number_forward, x=pass_on, linear=True)

makes_views(REAL, IMAG)
install_operators()


def _dtype(value: Any) -> Any:
    """Return what decides on the dtype of a result: a Python number is weak."""
    value = underlying(value)
    return value if type(value) in (bool, int, float, complex) else np.asarray(value).dtype


def is_complex(value: Any) -> bool:
    return np.result_type(value.dtype if is_traced(value) else value).kind == "c"


@binds(operator.abs)
def absolute(x: Any) -> Any:
    return apply(COMPLEX_ABSOLUTE if is_complex(x) else ABSOLUTE, x)


@binds(np.absolute)
def strong_absolute(x: Any) -> Any:
    return absolute(np.positive(x) if isinstance(underlying(x), (float, complex)) else x)


@binds(np.float_power)
def float_power(a: Any, b: Any) -> Any:
    dtype = np.result_type(np.float64, *(x.dtype if is_traced(x) else np.asarray(x) for x in (a, b)))
    return np.power(cast(a, dtype), cast(b, dtype))


@binds(np.where)
def where(condition: Any, a: Any = None, b: Any = None) -> Any:
    if a is None and b is None:
        return np.nonzero(plain(condition))
    return apply(WHERE, operand(plain(condition)), operand(a), operand(b))


@binds(np.clip)
def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **more: Any) -> Any:
    low, high = more.pop("min", a_min), more.pop("max", a_max)
    if out is not None or more:
        raise NoRuleError.of("np.clip with out=, where= or dtype=", at=user_line(), instead="Leave them out.")
    if low is None and high is None:
        return np.positive(a)
    least, most = -np.inf, np.inf
    if (dtype := np.result_type(*(_dtype(x) for x in (a, low, high) if x is not None))).kind in "iu":
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = (least if low is None else low), (most if high is None else high)
    return apply(CLIP, operand(a), operand(low), operand(high))


@binds(np.real)
def real(val: Any) -> Any:
    return linked(apply(REAL, val), val, "real") if is_complex(val) else val


@binds(np.imag)
def imag(val: Any) -> Any:
    if is_complex(val):
        return linked(apply(IMAG, val), val, "imag")
    zeros = np.zeros(val.shape, val.dtype)
    zeros.flags.writeable = False  # as NumPy's
    return zeros


@binds(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    radians = np.arctan2(np.imag(z), np.real(z)) if is_complex(z) else np.arctan2(0, plain(z))
    return radians * (180.0 / np.pi) if deg else radians


@binds(np.sinc)
def sinc(x: Any) -> Any:
    y = np.pi * x
    near = np.abs(plain(y)) < 0.5
    series = 1.0  # by Horner's rule: sum of (-1)^n y^2n / (2n + 1)!, smooth at 0 where the quotient is not
    for n in range(9, 0, -1):
        series = 1 - series * (y * y) / (2 * n * (2 * n + 1))
    y = np.where(near, 1.0, y)
    return np.where(near, series, np.sin(y) / y)


def outer(ufunc: np.ufunc, a: Any, b: Any) -> Any:
    a, b = operand(a), operand(b)
    return ufunc(np.reshape(a, (*np.shape(a), *(1,) * np.ndim(b))), b)


BINDINGS.update(
    {(u, "outer"): functools.partial(outer, u) for u, op in UFUNCS.items() if len(op.operands) == 2}  # type: ignore[misc]
)
