"""Derivatives of the Bessel functions, of orthogonal polynomials and of other functions of several parameters or outputs.

Owns one pullback for each operand, as `nbad.scipy.special_rules` does.
"""

from typing import Any

import numpy as np

from nbad.scipy.special_rules import HALF_ROOT_PI, ROOT_HALF, ROOT_TWO_PI, horner, special

# Bessel functions (DLMF 10.6, 10.29) --------------------------------------------------------------
#: Of exp(-x) I_0 and exp(-x) I_1, times sqrt(2 pi x), in 1 / x (10.40.1).
SCALED_0 = [1.0]
SCALED_1 = [1.0]
for _k in range(1, 10):
    SCALED_0.append(SCALED_0[-1] * (2 * _k - 1) ** 2 / (8 * _k))
    SCALED_1.append(SCALED_1[-1] * ((2 * _k - 1) ** 2 - 4) / (8 * _k))
#: Of K_0 exp(x) and K_1 exp(x), times sqrt(2 x / pi), in 1 / x (10.40.2): the same with changing signs.
DECAYED_0 = [c * (-1) ** n for n, c in enumerate(SCALED_0)]
DECAYED_1 = [c * (-1) ** n for n, c in enumerate(SCALED_1)]
DISTANT = 100.0


def falling(x: Any, coefficients: list[float]) -> Any:
    """Return the derivative of ``sum_n c[n] x^(-n - 1/2)`` for positive `x`."""
    return -horner(1 / x, [c * (n + 0.5) for n, c in enumerate(coefficients)]) / (x * np.sqrt(x))


def scaled(g: Any, x: Any, near: Any, coefficients: list[float], factor: float) -> Any:
    """Return the cotangent for a derivative `near`, and that of the series where x is large: the closed form cancels there."""
    far = np.abs(x) > DISTANT
    return g * np.where(far, factor * falling(np.where(far, np.abs(x), 1.0), coefficients), near)


def j0_x(g, x):
    return -g * special.j1(x)


def j1_x(g, x):
    return 0.5 * g * (special.j0(x) - special.jv(2.0, x))


def jv_z(g, v, z):
    return 0.5 * g * np.conj(special.jv(v - 1, z) - special.jv(v + 1, z))


def y0_x(g, x):
    return -g * special.y1(x)


def y1_x(g, x):
    return 0.5 * g * (special.y0(x) - special.yv(2.0, x))


def yv_z(g, v, z):
    return 0.5 * g * np.conj(special.yv(v - 1, z) - special.yv(v + 1, z))


def yn_x(g, n, x):
    return 0.5 * g * (special.yn(n - 1, x) - special.yn(n + 1, x))


def i0_x(g, x):
    return g * special.i1(x)


def i1_x(g, x):
    return 0.5 * g * (special.i0(x) + special.iv(2.0, x))


def iv_z(g, v, z):
    return 0.5 * g * np.conj(special.iv(v - 1, z) + special.iv(v + 1, z))


def i0e_x(g, x, y):
    return scaled(g * np.sign(x), x, special.i1e(np.abs(x)) - y, SCALED_0, 1 / ROOT_TWO_PI)


def i1e_x(g, x, y):
    near = 0.5 * (special.i0e(x) + special.ive(2.0, np.abs(x))) - np.sign(x) * y
    return scaled(g, x, near, SCALED_1, 1 / ROOT_TWO_PI)


def ive_z(g, v, z, y):  # the scale exp(-abs(Re z)) is no holomorphic function
    rise = 0.5 * g * np.conj(special.ive(v - 1, z) + special.ive(v + 1, z))
    return rise - np.sign(np.real(z)) * np.real(g * np.conj(y))


def k0_x(g, x):
    return -g * special.k1(x)


def k1_x(g, x):
    return -0.5 * g * (special.k0(x) + special.kv(2.0, x))


def kv_z(g, v, z):
    return -0.5 * g * np.conj(special.kv(v - 1, z) + special.kv(v + 1, z))


def kn_x(g, n, x):
    return -0.5 * g * (special.kv(n - 1.0, x) + special.kv(n + 1.0, x))


def k0e_x(g, x, y):
    return scaled(g, x, y - special.k1e(x), DECAYED_0, HALF_ROOT_PI * 2 * ROOT_HALF)


def k1e_x(g, x, y):
    near = y - 0.5 * (special.k0e(x) + special.kve(2.0, x))
    return scaled(g, x, near, DECAYED_1, HALF_ROOT_PI * 2 * ROOT_HALF)


def kve_z(g, v, z, y):
    return g * np.conj(y - 0.5 * (special.kve(v - 1, z) + special.kve(v + 1, z)))


# Polynomials and hypergeometric functions (DLMF 18.9, 15.5, 13.3) ---------------------------------
def below(n: Any) -> Any:
    """Return the degree of the derivative's polynomial (its factor is 0 where `n` is)."""
    return np.maximum(n - 1, 0)


def legendre_x(g, n, x):
    return g * np.where(n == 0, 0, special.eval_gegenbauer(below(n), 1.5, x))


def chebyt_x(g, n, x):
    return g * n * special.eval_chebyu(below(n), x)


def chebyu_x(g, n, x):
    return g * np.where(n == 0, 0, 2 * special.eval_gegenbauer(below(n), 2.0, x))


def hermite_x(g, n, x):
    return g * 2 * n * special.eval_hermite(below(n), x)


def hermitenorm_x(g, n, x):
    return g * n * special.eval_hermitenorm(below(n), x)


def laguerre_x(g, n, x):
    return -g * np.where(n == 0, 0, special.eval_genlaguerre(below(n), 1.0, x))


def genlaguerre_x(g, n, a, x):
    return -g * np.where(n == 0, 0, special.eval_genlaguerre(below(n), a + 1.0, x))


def gegenbauer_x(g, n, a, x):
    return g * np.where(n == 0, 0, 2 * a * special.eval_gegenbauer(below(n), a + 1.0, x))


def jacobi_x(g, n, a, b, x):
    rise = 0.5 * (n + a + b + 1) * special.eval_jacobi(below(n), a + 1.0, b + 1.0, x)
    return g * np.where(n == 0, 0, rise)


def hyp0f1_z(g, v, z):
    return g * np.conj(special.hyp0f1(v + 1, z) / v)


def hyp1f1_x(g, a, b, x):
    return g * np.conj(a / b * special.hyp1f1(a + 1, b + 1, x))


def hyp2f1_z(g, a, b, c, z):
    return g * np.conj(a * b / c * special.hyp2f1(a + 1, b + 1, c + 1, z))


def hyperu_x(g, a, b, x):
    return -g * a * special.hyperu(a + 1, b + 1, x)


# Several outputs, of whose cotangents some may be None ----------------------------------------------
def summed(g: Any, *partials: Any) -> Any:
    """Return the cotangent of the operand, given the derivative of each output in it."""
    return sum(part * np.conj(partial) for part, partial in zip(g, partials, strict=True) if part is not None)


def fresnel_z(g, z):
    t = 0.5 * np.pi * z * z
    return summed(g, np.sin(t), np.cos(t))


def sici_x(g, x):
    return summed(g, np.sinc(x / np.pi), np.cos(x) / x)


def shichi_x(g, x):
    near = np.abs(x) < 0.5
    series = horner(x * x, [1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800, 1 / 6227020800])
    return summed(g, np.where(near, series, np.sinh(x) / np.where(near, 1, x)), np.cosh(x) / x)


def airy_z(g, z, y):
    ai, slope_a, bi, slope_b = y
    return summed(g, slope_a, z * ai, slope_b, z * bi)


def ellipj_u(g, m, y):
    sn, cn, dn, _ = y
    return summed(g, cn * dn, -sn * dn, -m * sn * cn, dn)
