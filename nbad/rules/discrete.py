"""Discrete: signs, roundings, comparisons, parts of numbers, casts to integers.

Owns the functions of elements without derivative, the rows that pass nothing back (`stop_gradient` is one), and the functions
composed of them. On eager tapes their results are plain; recording tapes hold them as nodes.
"""

import warnings
from typing import Any

import numpy as np

from nbad.constants import plainly
from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_level, user_line
from nbad.rules.elementwise import ASTYPE, COMPLEX_SIGN, is_complex
from nbad.table import binds, constant, elementwise, forward_only, metadata, operation
from nbad.trace import apply, is_traced, plain, underlying


def convert_forward(x: Any, *, dtype: str) -> Any:
    """Return `x` cast to the integer or boolean dtype named `dtype`; no derivative passes."""
    return np.asarray(x).astype(dtype)


def frexp_exponent_forward(x: Any) -> Any:
    """Return the exponent of two in `x`."""
    return np.frexp(x)[1]


def stop_gradient_forward(x: Any) -> Any:
    """Return a copy of `x`; no derivative passes."""
    return x.copy() if isinstance(x, np.ndarray) else x


CONVERT = operation(convert_forward)
FREXP_EXPONENT = elementwise(frexp_exponent_forward, name="frexp_exponent", x=None)
STOP_GRADIENT = elementwise(stop_gradient_forward, name="stop_gradient", x=None)
SIGN = forward_only(np.sign)
NAN_TO_NUM = forward_only(np.nan_to_num)
HEAVISIDE = forward_only(np.heaviside)


@binds(np.sign)
def sign(x: Any) -> Any:
    if is_complex(x):
        return apply(COMPLEX_SIGN, operand(x))
    x = plain(x)
    return apply(SIGN, x) if is_traced(x) else np.sign(x)


@binds(np.heaviside)
def heaviside(a: Any, b: Any) -> Any:
    """Return the step of `a`, which carries no derivative, with `b` where `a` is 0, which carries its own."""
    flat = plain(a), plain(b)
    step = apply(HEAVISIDE, *map(operand, flat)) if any(map(is_traced, flat)) else np.heaviside(*flat)
    return np.where(flat[0] == 0, b, step) if is_traced(b) else step


@binds(np.divmod)
def divmod_(a: Any, b: Any) -> Any:
    return np.floor_divide(plain(a), plain(b)), np.remainder(a, b)


@binds(np.modf)
def modf(x: Any) -> Any:
    whole = np.trunc(plain(x))
    return x - whole, whole


@binds(np.frexp)
def frexp(x: Any) -> Any:
    exponent = apply(FREXP_EXPONENT, plain(x))
    return np.ldexp(x, -exponent), exponent


@binds(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    if not copy:
        raise NoRuleError.of("np.nan_to_num with copy=False", at=user_line(), instead="Leave it out.")
    if is_complex(x):
        parts = [np.nan_to_num(part, True, nan, posinf, neginf) for part in (np.real(x), np.imag(x))]
        return parts[0] + 1j * parts[1]
    numbers = plainly(np.nan_to_num, NAN_TO_NUM, x, nan=nan, posinf=posinf, neginf=neginf)
    found = np.where(np.isfinite(plain(x)), x, numbers)
    for number, is_there in ((nan, np.isnan), (posinf, np.isposinf), (neginf, np.isneginf)):
        if is_traced(number):
            found = np.where(is_there(plain(x)), number, found)
    return found


@binds(np.ndarray.astype, np.astype)
def astype(
    x: Any, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
) -> Any:
    kind = np.dtype(dtype)
    if kind.kind not in "fc":
        return apply(CONVERT, plain(x), dtype=kind.str)
    if not is_traced(x):
        return x.astype(kind)
    if kind == x.dtype and isinstance(underlying(x), np.ndarray):
        return np.positive(x) if copy else x
    if kind.kind == "f" and is_complex(x):
        warnings.warn(
            "Casting complex values to real discards the imaginary part",
            np.exceptions.ComplexWarning,
            stacklevel=user_level(),
        )
        x = np.real(x)
    return apply(ASTYPE, x, dtype=kind.str)


@binds(np.real_if_close)
def real_if_close(a: Any, tol: float = 100) -> Any:
    if not is_complex(a):
        return np.positive(a)
    bound = tol if tol <= 1 else tol * float(np.finfo(a.dtype).eps)
    return np.real(a) if np.all(np.absolute(np.imag(plain(a))) < bound) else np.positive(a)


constant(
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not,
    np.isnan, np.isfinite, np.isinf, np.signbit, np.floor, np.ceil, np.trunc, np.rint, np.floor_divide,
    np.spacing, np.round, np.around, np.fix, np.isclose, np.allclose, np.array_equal,
    np.array_equiv, np.isneginf, np.isposinf, np.iscomplex, np.isreal,
    # Of integers and truth values, which are traced on recording tapes only.
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift, np.gcd, np.lcm,
    np.bitwise_count,
)  # fmt: skip
metadata(np.iscomplexobj, np.isrealobj)
