"""Own the scalar functions of the real block kernels: what one element of each kernel is.

They are compiled by numba for float32 and float64 and give NumPy's results for special values. A constant is
written ``number(x, 1)``, in the precision of x: a Python float would promote a float32 computation to double.
"""

from typing import Any

from nbad.kernels.vector_math import call, call2, number


def copy(a: Any) -> Any:
    """Return a."""
    return a


def add(a: Any, b: Any) -> Any:
    """Return a + b."""
    return a + b


def sub(a: Any, b: Any) -> Any:
    """Return a - b."""
    return a - b


def mul(a: Any, b: Any) -> Any:
    """Return a * b."""
    return a * b


def div(a: Any, b: Any) -> Any:
    """Return a / b; a zero divisor gives inf or nan."""
    return a / b


def neg(a: Any) -> Any:
    """Return -a."""
    return -a


def recip(a: Any) -> Any:
    """Return 1 / a."""
    return number(a, 1) / a


def square(a: Any) -> Any:
    """Return a * a."""
    return a * a


def sqrt(a: Any) -> Any:
    """Return the square root; nan below zero."""
    return call("llvm.sqrt", a)


def absolute(a: Any) -> Any:
    """Return the absolute value of a real number."""
    return call("llvm.fabs", a)


def sign(a: Any) -> Any:
    """Return -1, 0 or 1; nan for nan."""
    return (
        number(a, 1)
        if a > number(a, 0)
        else (number(a, -1) if a < number(a, 0) else (number(a, 0) if a == a else a))
    )


def muladd(a: Any, b: Any, c: Any) -> Any:
    """Return c + a * b, rounded twice (no fused operation)."""
    return c + a * b


def nmuladd(a: Any, b: Any, c: Any) -> Any:
    """Return c - a * b, rounded twice (no fused operation)."""
    return c - a * b


def exp(a: Any) -> Any:
    """Return libm's exp(a)."""
    return call("exp", a)


def expm1(a: Any) -> Any:
    """Return libm's expm1(a)."""
    return call("expm1", a)


def exp2(a: Any) -> Any:
    """Return libm's exp2(a)."""
    return call("exp2", a)


def log(a: Any) -> Any:
    """Return libm's log(a)."""
    return call("log", a)


def log1p(a: Any) -> Any:
    """Return libm's log1p(a)."""
    return call("log1p", a)


def log2(a: Any) -> Any:
    """Return libm's log2(a)."""
    return call("log2", a)


def log10(a: Any) -> Any:
    """Return libm's log10(a)."""
    return call("log10", a)


def sin(a: Any) -> Any:
    """Return libm's sin(a)."""
    return call("sin", a)


def cos(a: Any) -> Any:
    """Return libm's cos(a)."""
    return call("cos", a)


def tan(a: Any) -> Any:
    """Return libm's tan(a)."""
    return call("tan", a)


def sinh(a: Any) -> Any:
    """Return libm's sinh(a)."""
    return call("sinh", a)


def cosh(a: Any) -> Any:
    """Return libm's cosh(a)."""
    return call("cosh", a)


def tanh(a: Any) -> Any:
    """Return libm's tanh(a)."""
    return call("tanh", a)


def arcsin(a: Any) -> Any:
    """Return libm's asin(a)."""
    return call("asin", a)


def arccos(a: Any) -> Any:
    """Return libm's acos(a)."""
    return call("acos", a)


def arctan(a: Any) -> Any:
    """Return libm's atan(a)."""
    return call("atan", a)


def arcsinh(a: Any) -> Any:
    """Return libm's asinh(a)."""
    return call("asinh", a)


def arccosh(a: Any) -> Any:
    """Return libm's acosh(a)."""
    return call("acosh", a)


def arctanh(a: Any) -> Any:
    """Return libm's atanh(a)."""
    return call("atanh", a)


def cbrt(a: Any) -> Any:
    """Return libm's cbrt(a)."""
    return call("cbrt", a)


def erf(a: Any) -> Any:
    """Return libm's erf(a)."""
    return call("erf", a)


def erfc(a: Any) -> Any:
    """Return libm's erfc(a)."""
    return call("erfc", a)


def floor(a: Any) -> Any:
    """Round a with C's floor."""
    return call("llvm.floor", a)


def ceil(a: Any) -> Any:
    """Round a with C's ceil."""
    return call("llvm.ceil", a)


def trunc(a: Any) -> Any:
    """Round a with C's trunc."""
    return call("llvm.trunc", a)


def rint(a: Any) -> Any:
    """Round a to the nearest integer, halves to even."""
    return call("llvm.rint", a)


def power(a: Any, b: Any) -> Any:
    """Return libm's pow(a, b)."""
    return call2("pow", a, b)


def arctan2(a: Any, b: Any) -> Any:
    """Return libm's atan2(a, b)."""
    return call2("atan2", a, b)


def hypot(a: Any, b: Any) -> Any:
    """Return libm's hypot(a, b)."""
    return call2("hypot", a, b)


def fmod(a: Any, b: Any) -> Any:
    """Return libm's fmod(a, b)."""
    return call2("fmod", a, b)


def copysign(a: Any, b: Any) -> Any:
    """Return |a| with the sign of b."""
    return call2("llvm.copysign", a, b)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger number; nan if one is nan."""
    return a if a >= b or a != a else b


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller number; nan if one is nan."""
    return a if a <= b or a != a else b


def fmax(a: Any, b: Any) -> Any:
    """Return the larger number, or the one that is not nan."""
    return a if a >= b or b != b else b


def fmin(a: Any, b: Any) -> Any:
    """Return the smaller number, or the one that is not nan."""
    return a if a <= b or b != b else b


def lt(a: Any, b: Any) -> Any:
    """Return 1 where a is below b, else 0."""
    return number(a, 1) if a < b else number(a, 0)


def le(a: Any, b: Any) -> Any:
    """Return 1 where a is at most b, else 0."""
    return number(a, 1) if a <= b else number(a, 0)


def gt(a: Any, b: Any) -> Any:
    """Return 1 where a is above b, else 0."""
    return number(a, 1) if a > b else number(a, 0)


def ge(a: Any, b: Any) -> Any:
    """Return 1 where a is at least b, else 0."""
    return number(a, 1) if a >= b else number(a, 0)


def eq(a: Any, b: Any) -> Any:
    """Return 1 where a is equal to b, else 0."""
    return number(a, 1) if a == b else number(a, 0)


def ne(a: Any, b: Any) -> Any:
    """Return 1 where a is not equal to b, else 0."""
    return number(a, 1) if a != b else number(a, 0)


def logical_and(a: Any, b: Any) -> Any:
    """Return 1 where neither is zero, else 0 (nan is not zero)."""
    return number(a, 1) if a != number(a, 0) and b != number(b, 0) else number(a, 0)


def logical_or(a: Any, b: Any) -> Any:
    """Return 1 where one is not zero, else 0 (nan is not zero)."""
    return number(a, 1) if a != number(a, 0) or b != number(b, 0) else number(a, 0)


def logical_not(a: Any) -> Any:
    """Return 1 where a is zero, else 0."""
    return number(a, 1) if a == number(a, 0) else number(a, 0)


def isnan(a: Any) -> Any:
    """Return 1 where a is nan, else 0."""
    return number(a, 1) if a != a else number(a, 0)


def isfinite(a: Any) -> Any:
    """Return 1 where a is neither inf nor nan, else 0."""
    return number(a, 1) if call("llvm.fabs", a) < number(a, "inf") else number(a, 0)


def isinf(a: Any) -> Any:
    """Return 1 where a is inf or -inf, else 0."""
    return number(a, 1) if call("llvm.fabs", a) == number(a, "inf") else number(a, 0)


def signbit(a: Any) -> Any:
    """Return 1 where the sign bit of a is set, else 0."""
    return number(a, 1) if call2("llvm.copysign", number(a, 1), a) < number(a, 0) else number(a, 0)


def where(a: Any, b: Any, c: Any) -> Any:
    """Return b where a is not zero (nan is not), else c."""
    return b if a != number(a, 0) else c


def remainder(a: Any, b: Any) -> Any:
    """Return the remainder of floor division: the sign of b, and that of b for a zero remainder too."""
    rest = call2("fmod", a, b)
    if rest != number(a, 0):
        if b != number(a, 0) and (b < number(a, 0)) != (rest < number(a, 0)):
            rest += b
        return rest
    return call2("llvm.copysign", number(a, 0), b)


def logaddexp(a: Any, b: Any) -> Any:
    """Return log(exp(a) + exp(b)) without overflow; equal operands first, since inf - inf is nan."""
    if a == b:
        return a + number(a, "0.693147180559945309417")
    difference = a - b
    if difference > number(a, 0):
        return a + call("log1p", call("exp", -difference))
    if difference <= number(a, 0):
        return b + call("log1p", call("exp", difference))
    return difference


def logaddexp2(a: Any, b: Any) -> Any:
    """Return log2(2**a + 2**b) without overflow; equal operands first, since inf - inf is nan."""
    if a == b:
        return a + number(a, 1)
    difference = a - b
    if difference > number(a, 0):
        return a + number(a, "1.44269504088896340736") * call("log1p", call("exp2", -difference))
    if difference <= number(a, 0):
        return b + number(a, "1.44269504088896340736") * call("log1p", call("exp2", difference))
    return difference
