"""Own the scalar functions of the complex block kernels: what one element of each kernel is.

They give NumPy's results for special values and on branch cuts. Arithmetic is done in the precision of the
operands; elementary functions in double precision for both types, by C99's complex functions.
Constants are written ``number(x, 1)``, in the precision of x.
"""

from typing import Any

import numpy as np

from nbad.kernels.vector_math import call, call2, call_complex, call_complex2, number


def conj(a: Any) -> Any:
    """Return the complex conjugate."""
    return complex(a.real, -a.imag)


def neg(a: Any) -> Any:
    """Return -a; each part changes its sign, zeros too."""
    return complex(-a.real, -a.imag)


def mul(a: Any, b: Any) -> Any:
    """Return a * b from the four products."""
    return complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def square(a: Any) -> Any:
    """Return a * a."""
    return complex(a.real * a.real - a.imag * a.imag, a.real * a.imag + a.imag * a.real)


def muladd(a: Any, b: Any, c: Any) -> Any:
    """Return c + a * b."""
    return complex(
        c.real + (a.real * b.real - a.imag * b.imag),
        c.imag + (a.real * b.imag + a.imag * b.real),
    )


def nmuladd(a: Any, b: Any, c: Any) -> Any:
    """Return c - a * b."""
    return complex(
        c.real - (a.real * b.real - a.imag * b.imag),
        c.imag - (a.real * b.imag + a.imag * b.real),
    )


def div(a: Any, b: Any) -> Any:
    """Return a / b by Smith's method, which does not overflow where the quotient does not.

    The larger part of b divides; a zero b divides both parts of a, as in NumPy.
    """
    size_real, size_imag = call("llvm.fabs", b.real), call("llvm.fabs", b.imag)
    if size_real >= size_imag:
        if size_real == number(b, 0) and size_imag == number(b, 0):
            return complex(a.real / size_real, a.imag / size_real)
        ratio = b.imag / b.real
        scale = number(b, 1) / (b.real + b.imag * ratio)
        return complex((a.real + a.imag * ratio) * scale, (a.imag - a.real * ratio) * scale)
    ratio = b.real / b.imag
    scale = number(b, 1) / (b.imag + b.real * ratio)
    return complex((a.real * ratio + a.imag) * scale, (a.imag * ratio - a.real) * scale)


def recip(a: Any) -> Any:
    """Return 1 / a by Smith's method."""
    if call("llvm.fabs", a.imag) <= call("llvm.fabs", a.real):
        ratio = a.imag / a.real
        size = a.real + a.imag * ratio
        return complex(number(a, 1) / size, -ratio / size)
    ratio = a.real / a.imag
    size = a.real * ratio + a.imag
    return complex(ratio / size, number(a, -1) / size)


def sqrt(a: Any) -> Any:
    """Return C99's csqrt(a)."""
    return call_complex("csqrt", a)


def exp(a: Any) -> Any:
    """Return C99's cexp(a)."""
    return call_complex("cexp", a)


def log(a: Any) -> Any:
    """Return C99's clog(a)."""
    return call_complex("clog", a)


def sin(a: Any) -> Any:
    """Return C99's csin(a)."""
    return call_complex("csin", a)


def cos(a: Any) -> Any:
    """Return C99's ccos(a)."""
    return call_complex("ccos", a)


def tan(a: Any) -> Any:
    """Return C99's ctan(a)."""
    return call_complex("ctan", a)


def sinh(a: Any) -> Any:
    """Return C99's csinh(a)."""
    return call_complex("csinh", a)


def cosh(a: Any) -> Any:
    """Return C99's ccosh(a)."""
    return call_complex("ccosh", a)


def tanh(a: Any) -> Any:
    """Return C99's ctanh(a)."""
    return call_complex("ctanh", a)


def arcsin(a: Any) -> Any:
    """Return C99's casin(a)."""
    return call_complex("casin", a)


def arccos(a: Any) -> Any:
    """Return C99's cacos(a)."""
    return call_complex("cacos", a)


def arctan(a: Any) -> Any:
    """Return C99's catan(a)."""
    return call_complex("catan", a)


def arcsinh(a: Any) -> Any:
    """Return C99's casinh(a)."""
    return call_complex("casinh", a)


def arccosh(a: Any) -> Any:
    """Return C99's cacosh(a)."""
    return call_complex("cacosh", a)


def arctanh(a: Any) -> Any:
    """Return C99's catanh(a)."""
    return call_complex("catanh", a)


def exp2(a: Any) -> Any:
    """Return exp(a log 2)."""
    z = np.complex128(a)
    scale = number(z, "0.693147180559945309417")
    return call_complex("cexp", complex(z.real * scale, z.imag * scale))


def expm1(a: Any) -> Any:
    """Return exp(a) - 1 without cancellation for small a: cos(y) - 1 is -2 sin(y / 2)**2."""
    z = np.complex128(a)
    half = call("sin", number(z, "0.5") * z.imag)
    return complex(
        call("expm1", z.real) * call("cos", z.imag) - number(z, 2) * half * half,
        call("exp", z.real) * call("sin", z.imag),
    )


def log1p(a: Any) -> Any:
    """Return log(1 + a) without cancellation for small a: |1 + a|**2 is 1 + x (2 + x) + y**2."""
    z = np.complex128(a)
    one = number(z, 1)
    size = call2("hypot", z.real + one, z.imag)
    if size > number(z, "0.5") and size < number(z, 2):
        real = number(z, "0.5") * call("log1p", z.real * (number(z, 2) + z.real) + z.imag * z.imag)
    else:
        real = call("log", size)
    return complex(real, call2("atan2", z.imag, z.real + one))


def log2(a: Any) -> Any:
    """Return log(a) / log 2."""
    z = call_complex("clog", np.complex128(a))
    scale = number(z, "1.44269504088896340736")
    return complex(z.real * scale, z.imag * scale)


def log10(a: Any) -> Any:
    """Return log(a) / log 10."""
    z = call_complex("clog", np.complex128(a))
    scale = number(z, "0.434294481903251827651")
    return complex(z.real * scale, z.imag * scale)


def rint(a: Any) -> Any:
    """Round both parts to the nearest integer, halves to even."""
    return complex(call("llvm.rint", a.real), call("llvm.rint", a.imag))


def lt(a: Any, b: Any) -> Any:
    """Return 1 where a is below b in lexicographic order, else 0."""
    return (
        number(a, 1)
        if (a.real < b.real and a.imag == a.imag and b.imag == b.imag)
        or (a.real == b.real and a.imag < b.imag)
        else number(a, 0)
    )


def le(a: Any, b: Any) -> Any:
    """Return 1 where a is at most b in lexicographic order, else 0."""
    return (
        number(a, 1)
        if (a.real < b.real and a.imag == a.imag and b.imag == b.imag)
        or (a.real == b.real and a.imag <= b.imag)
        else number(a, 0)
    )


def gt(a: Any, b: Any) -> Any:
    """Return 1 where a is above b in lexicographic order, else 0."""
    return (
        number(a, 1)
        if (a.real > b.real and a.imag == a.imag and b.imag == b.imag)
        or (a.real == b.real and a.imag > b.imag)
        else number(a, 0)
    )


def ge(a: Any, b: Any) -> Any:
    """Return 1 where a is at least b in lexicographic order, else 0."""
    return (
        number(a, 1)
        if (a.real > b.real and a.imag == a.imag and b.imag == b.imag)
        or (a.real == b.real and a.imag >= b.imag)
        else number(a, 0)
    )


def eq(a: Any, b: Any) -> Any:
    """Return 1 where both parts are equal, else 0."""
    return number(a, 1) if a.real == b.real and a.imag == b.imag else number(a, 0)


def ne(a: Any, b: Any) -> Any:
    """Return 1 where one part is not equal, else 0."""
    return number(a, 1) if a.real != b.real or a.imag != b.imag else number(a, 0)


def logical_and(a: Any, b: Any) -> Any:
    """Return 1 where neither is zero, else 0."""
    return (
        number(a, 1)
        if (a.real != number(a, 0) or a.imag != number(a, 0))
        and (b.real != number(b, 0) or b.imag != number(b, 0))
        else number(a, 0)
    )


def logical_or(a: Any, b: Any) -> Any:
    """Return 1 where one is not zero, else 0."""
    return (
        number(a, 1)
        if (a.real != number(a, 0) or a.imag != number(a, 0))
        or (b.real != number(b, 0) or b.imag != number(b, 0))
        else number(a, 0)
    )


def logical_not(a: Any) -> Any:
    """Return 1 where a is zero, else 0."""
    return number(a, 1) if a.real == number(a, 0) and a.imag == number(a, 0) else number(a, 0)


def where(a: Any, b: Any, c: Any) -> Any:
    """Return b where a is not zero, else c."""
    return b if a.real != number(a, 0) or a.imag != number(a, 0) else c


def isnan(a: Any) -> Any:
    """Return 1 where one part is nan, else 0."""
    return number(a, 1) if a.real != a.real or a.imag != a.imag else number(a, 0)


def isfinite(a: Any) -> Any:
    """Return 1 where both parts are finite, else 0."""
    return (
        number(a, 1)
        if call("llvm.fabs", a.real) < number(a, "inf") and call("llvm.fabs", a.imag) < number(a, "inf")
        else number(a, 0)
    )


def isinf(a: Any) -> Any:
    """Return 1 where one part is infinite, else 0."""
    return (
        number(a, 1)
        if call("llvm.fabs", a.real) == number(a, "inf") or call("llvm.fabs", a.imag) == number(a, "inf")
        else number(a, 0)
    )


def maximum(a: Any, b: Any) -> Any:
    """Return the larger number in lexicographic order, the first nan if one is nan."""
    ordered = a.real > b.real and a.imag == a.imag and b.imag == b.imag
    return (
        a if ordered or (a.real == b.real and a.imag >= b.imag) or a.real != a.real or a.imag != a.imag else b
    )


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller number in lexicographic order, the first nan if one is nan."""
    ordered = a.real < b.real and a.imag == a.imag and b.imag == b.imag
    return (
        a if ordered or (a.real == b.real and a.imag <= b.imag) or a.real != a.real or a.imag != a.imag else b
    )


def fmax(a: Any, b: Any) -> Any:
    """Return the larger number in lexicographic order, or the one that is not nan."""
    ordered = a.real > b.real and a.imag == a.imag and b.imag == b.imag
    return (
        a if ordered or (a.real == b.real and a.imag >= b.imag) or b.real != b.real or b.imag != b.imag else b
    )


def fmin(a: Any, b: Any) -> Any:
    """Return the smaller number in lexicographic order, or the one that is not nan."""
    ordered = a.real < b.real and a.imag == a.imag and b.imag == b.imag
    return (
        a if ordered or (a.real == b.real and a.imag <= b.imag) or b.real != b.real or b.imag != b.imag else b
    )


def power(a: Any, b: Any) -> Any:
    """Return a**b: small whole exponents by products and powers of zero as in NumPy, else C99's cpow."""
    z, w = np.complex128(a), np.complex128(b)
    zero, one = number(z, 0), number(z, 1)
    if w.real == zero and w.imag == zero:
        return complex(one, zero)
    if z.real == zero and z.imag == zero:
        if w.real > zero:
            return complex(zero, zero)
        return complex(number(z, "nan"), number(z, "nan"))
    if w.imag != zero or abs(w.real) >= number(z, 100) or call("llvm.rint", w.real) != w.real:
        return call_complex2("cpow", z, w)
    if w.real == one:
        return z
    if w.real == number(z, 2):
        return z * z
    if w.real == number(z, 3):
        return z * z * z
    result, factor, count = complex(one, zero), z, np.int64(abs(w.real))
    while True:
        if count & 1:
            result = result * factor
        count >>= 1
        if count == 0:
            break
        factor = factor * factor
    if w.real > zero:
        return result
    if call("llvm.fabs", result.imag) <= call("llvm.fabs", result.real):
        ratio = result.imag / result.real
        size = result.real + result.imag * ratio
        return complex(one / size, (zero - ratio) / size)
    ratio = result.real / result.imag
    size = result.real * ratio + result.imag
    return complex(ratio / size, -one / size)
