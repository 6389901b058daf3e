"""Derivatives of the functions of ``scipy.special``.

Owns one pullback for each operand: closed forms in other functions of ``scipy.special``, so every order follows. Where a closed
form cancels, near a removable singularity or in a tail, a series takes over. Formulas: DLMF, https://dlmf.nist.gov, by the
number beside the rule.
"""

from typing import Any

import numpy as np

from nbad.keeping import operand
from nbad.scipy import required
from nbad.scipy.passing import Refused, refuse, stands_for
from nbad.table import elementwise
from nbad.trace import apply

special = required("special")

TWO_OVER_ROOT_PI = float(2 / np.sqrt(np.pi))
HALF_ROOT_PI = float(np.sqrt(np.pi) / 2)
ROOT_TWO_PI = float(np.sqrt(2 * np.pi))
ROOT_HALF = float(np.sqrt(0.5))
LN10 = float(np.log(10.0))
DEGREE = float(np.pi / 180)


def horner(t: Any, coefficients: Any) -> Any:
    """Return ``c[0] + c[1] t + c[2] t^2 + ...``; every order of derivative is that of the polynomial."""
    found = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        found = found * t + c
    return found


# Error functions (DLMF 7) -------------------------------------------------------------------------
#: Of the derivative of erfcx times ``-sqrt(pi) x^2`` in 1 / x^2: (-1)^k (2k + 1)!! / 2^k (7.12.1).
TAIL = [1.0]
for _k in range(1, 12):
    TAIL.append(-TAIL[-1] * (_k + 0.5))
FAR = 15.0


def erf_x(g, x):
    return g * np.conj(TWO_OVER_ROOT_PI * np.exp(-x * x))


def erfc_x(g, x):
    return g * np.conj(-TWO_OVER_ROOT_PI * np.exp(-x * x))


def erfcx_x(g, x, y):
    far = np.real(x) > FAR
    z = np.where(far, x, FAR)
    tail = -0.5 * TWO_OVER_ROOT_PI * horner(1 / (z * z), TAIL) / (z * z)
    return g * np.conj(np.where(far, tail, 2 * np.where(far, 0, x * y) - TWO_OVER_ROOT_PI))


def erfi_x(g, x):
    return g * np.conj(TWO_OVER_ROOT_PI * np.exp(x * x))


def dawsn_x(g, x, y):
    far = np.abs(np.real(x)) > FAR
    z = np.where(far, x, FAR)
    tail = -0.5 * horner(-1 / (z * z), TAIL) / (z * z)
    return g * np.conj(np.where(far, tail, 1 - 2 * np.where(far, 0, x * y)))


def erfinv_x(g, y):
    return g * (HALF_ROOT_PI * np.exp(y * y))


def erfcinv_x(g, y):
    return -g * (HALF_ROOT_PI * np.exp(y * y))


def ndtr_x(g, x):
    return g * np.conj(np.exp(-0.5 * x * x) / ROOT_TWO_PI)


def log_ndtr_x(g, x):  # the ratio of density and distribution, which cancels nowhere
    return g * np.conj((2 / ROOT_TWO_PI) / special.erfcx(-ROOT_HALF * x))


def ndtri_x(g, y):
    return g * (ROOT_TWO_PI * np.exp(0.5 * y * y))


def ndtri_exp_x(g, y):
    return g * (0.5 * ROOT_TWO_PI * special.erfcx(-ROOT_HALF * y))


def owens_t_h(g, h, a):
    return -g * special.erf(ROOT_HALF * a * h) * np.exp(-0.5 * h * h) / (2 * ROOT_TWO_PI)


def owens_t_a(g, h, a):
    return g * np.exp(-0.5 * h * h * (1 + a * a)) / (2 * np.pi * (1 + a * a))


# Gamma and beta (DLMF 5, 8) -----------------------------------------------------------------------
def gamma_x(g, x, y):
    return g * np.conj(y * special.psi(x))


def gammaln_x(g, x):
    return g * np.conj(special.psi(x))


def rgamma_x(g, x, y):  # at the poles of gamma by reflection (5.5.3): finite there
    low = np.real(x) < 0.5
    left, right = np.where(low, x, 0.5), np.where(low, 1.0, x)
    turn = np.cos(np.pi * left) - np.sin(np.pi * left) * special.psi(1 - left) / np.pi
    return g * np.conj(np.where(low, special.gamma(1 - left) * turn, -y * special.psi(right)))


def zeta_q(g, x, q):
    return -g * x * zeta(x + 1, q)


def zeta_forward(x, q):
    """Return Hurwitz's zeta function."""
    return special.zeta(x, q)


ZETA = elementwise(zeta_forward, name="scipy.special.zeta", x=Refused("special.zeta", "x"), q=zeta_q)


@stands_for(special)
def zeta(x: Any, q: Any = None, out: Any = None) -> Any:
    """Return the zeta function of Hurwitz, or Riemann's, which has no rule."""
    refuse("special.zeta", out=out)
    return apply(ZETA, operand(x), 1.0 if q is None else operand(q))


def psi_x(g, x):
    return g * zeta(2.0, x)


def gammainc_x(g, a, x):
    return g * np.exp(special.xlogy(a - 1, x) - x - special.gammaln(a))


def gammaincc_x(g, a, x):
    return -gammainc_x(g, a, x)


def gammaincinv_p(g, a, y):
    return g / gammainc_x(1, a, y)


def gammainccinv_p(g, a, y):
    return -g / gammainc_x(1, a, y)


def beta_a(g, a, b, y):
    return g * y * (special.psi(a) - special.psi(a + b))


def beta_b(g, a, b, y):
    return g * y * (special.psi(b) - special.psi(a + b))


def betaln_a(g, a, b):
    return g * (special.psi(a) - special.psi(a + b))


def betaln_b(g, a, b):
    return g * (special.psi(b) - special.psi(a + b))


def betainc_x(g, a, b, x):
    return g * np.exp(special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x) - special.betaln(a, b))


def betaincc_x(g, a, b, x):
    return -betainc_x(g, a, b, x)


def betaincinv_p(g, a, b, y):
    return g / betainc_x(1, a, b, y)


def betainccinv_p(g, a, b, y):
    return -g / betainc_x(1, a, b, y)


def binom_n(g, n, k_, y):
    return g * y * (special.psi(n + 1) - special.psi(n - k_ + 1))


def binom_k(g, n, k_, y):
    return g * y * (special.psi(n - k_ + 1) - special.psi(k_ + 1))


def poch_z(g, z, m, y):
    return g * y * (special.psi(z + m) - special.psi(z))


def poch_m(g, z, m, y):
    return g * y * special.psi(z + m)


def stdtr_t(g, df, t):
    log = -0.5 * np.log(df) - special.betaln(0.5 * df, 0.5) - 0.5 * (df + 1) * np.log1p(t * t / df)
    return g * np.exp(log)


def stdtrit_p(g, df, y):
    return g / stdtr_t(1, df, y)


def chdtr_x(g, v, x):
    return 0.5 * gammainc_x(g, 0.5 * v, 0.5 * x)


def chdtrc_x(g, v, x):
    return -0.5 * gammainc_x(g, 0.5 * v, 0.5 * x)


# Logistic functions and entropies -----------------------------------------------------------------
def expit_x(g, x, y):  # not y (1 - y), which is 0 long before the derivative is
    return g * y * special.expit(-x)


def logit_x(g, x):
    return g / (x * (1 - x))


def log_expit_x(g, x):
    return g * special.expit(-x)


def xlogy_a(g, a, b):  # 0 where both are 0
    none = (a == 0) & (b == 0)
    return g * np.conj(np.where(none, 0, np.log(np.where(none, 1, b))))


def xlogy_b(g, a, b):  # 0 where both are 0
    none = (a == 0) & (b == 0)
    return g * np.conj(np.where(none, 0, a) / np.where(none, 1, b))


def xlog1py_a(g, a, b):  # 0 where a is 0 and b is -1
    none = (a == 0) & (b == -1)
    return g * np.conj(np.where(none, 0, np.log1p(np.where(none, 0, b))))


def xlog1py_b(g, a, b):  # 0 where a is 0 and b is -1
    none = (a == 0) & (b == -1)
    return g * np.conj(np.where(none, 0, a) / np.where(none, 1, 1 + b))


def log_ratio(a: Any, b: Any) -> Any:
    """Return ``log(a / b)`` without overflow, and without cancellation where they are close."""
    close = np.abs(a - b) < 0.5 * b
    near = np.where(close, b, 1)
    apart = np.log(np.where(close, 1, a)) - np.log(np.where(close, 1, b))
    return np.where(close, np.log1p(np.where(close, a - b, 0) / near), apart)


def entr_x(g, x):  # infinite at 0
    return -g * (np.log(x) + 1)


def rel_entr_a(g, a, b):  # -infinite at a = 0
    return g * (log_ratio(a, b) + 1)


def rel_entr_b(g, a, b):  # 0 where both are 0
    return -g * a / np.where((a == 0) & (b == 0), 1, b)


def kl_div_a(g, a, b):
    return g * log_ratio(a, b)


def kl_div_b(g, a, b):  # 1 where both are 0
    return g * (1 - a / np.where((a == 0) & (b == 0), 1, b))


def huber_d(g, d, r):
    return g * np.where(np.abs(r) <= d, 0, np.abs(r) - d)


def huber_r(g, d, r):
    return g * np.where(np.abs(r) <= d, r, d * np.sign(r))


def pseudo_huber_d(g, d, r):
    q = (r / d) * (r / d)
    s = np.sqrt(1 + q)
    return g * d * q * q / (s * (s + 1) * (s + 1))


def pseudo_huber_r(g, d, r):
    return g * r / np.sqrt(1 + (r / d) * (r / d))


# Exponential and other integrals (DLMF 6, 7.2, 19) ------------------------------------------------
#: Of the derivative of exprel: n / (n + 1)!.
EXPREL = [float(n / np.prod(np.arange(1.0, n + 2))) for n in range(1, 20)]
#: Of the derivatives of K(m) and E(m) (19.5.1, 19.5.2).
_ELLIPTIC = [float(np.prod((np.arange(n) + 0.5) / np.arange(1, n + 1))) ** 2 * np.pi / 2 for n in range(26)]
ELLIPK = [n * c for n, c in enumerate(_ELLIPTIC)][1:]
ELLIPE = [-n * c / (2 * n - 1) for n, c in enumerate(_ELLIPTIC)][1:]


def exprel_x(g, x, y):
    near = np.abs(x) < 0.75
    far = np.where(near, 1, x)
    series = horner(np.where(near, x, 0), EXPREL)
    return g * np.where(near, series, (np.exp(far) - np.where(near, 1, y)) / far)


def exp10_x(g, y):
    return g * y * LN10


def cosm1_x(g, x):
    return -g * np.sin(x)


def powm1_a(g, a, b):
    return g * b * a ** (b - 1)


def powm1_b(g, a, y):
    return g * (y + 1) * np.log(a)


def boxcox_x(g, x, c):
    return g * x ** (c - 1)


def boxcox1p_x(g, x, c):
    return g * (1 + x) ** (c - 1)


def inv_boxcox_x(g, c, y):
    return g * y ** (1 - c)


def inv_boxcox1p_x(g, c, y):
    return g * (1 + y) ** (1 - c)


def expi_x(g, x):
    return g * np.conj(np.exp(x) / x)


def exp1_x(g, x):
    return -g * np.conj(np.exp(-x) / x)


def expn_x(g, n, x):
    return -g * np.where(n == 0, np.exp(-x) * (1 + 1 / x) / x, special.expn(np.where(n == 0, 0, n - 1), x))


def spence_z(g, z):  # log(z) / (1 - z), by its series near 1 (25.12.1)
    w = z - 1
    near = np.abs(w) < 0.125
    series = -horner(-np.where(near, w, 0), [1 / (n + 1) for n in range(19)])
    return g * np.conj(np.where(near, series, -np.log(np.where(near, 2, z)) / np.where(near, 1, w)))


def ellipk_m(g, m, y):
    near = np.abs(m) < 0.2
    far = np.where(near, 0.5, m)
    closed = 0.5 * (special.ellipe(far) / (1 - far) - np.where(near, 0, y)) / far
    return g * np.where(near, horner(np.where(near, m, 0), ELLIPK), closed)


def ellipkm1_p(g, p, y):
    near = np.abs(1 - p) < 0.2
    far = np.where(near, 0.5, p)
    closed = 0.5 * (special.ellipe(1 - far) / far - np.where(near, 0, y)) / (1 - far)
    return -g * np.where(near, horner(np.where(near, 1 - p, 0), ELLIPK), closed)


def ellipe_m(g, m, y):
    near = np.abs(m) < 0.2
    far = np.where(near, 0.5, m)
    closed = 0.5 * (np.where(near, 0, y) - special.ellipk(far)) / far
    return g * np.where(near, horner(np.where(near, m, 0), ELLIPE), closed)


def ellipkinc_phi(g, phi, m):
    return g / np.sqrt(1 - m * np.sin(phi) ** 2)


def ellipeinc_phi(g, phi, m):
    return g * np.sqrt(1 - m * np.sin(phi) ** 2)


# Angles in degrees --------------------------------------------------------------------------------
def sindg_x(g, x):
    return g * special.cosdg(x) * DEGREE


def cosdg_x(g, x):
    return -g * special.sindg(x) * DEGREE


def tandg_x(g, y):
    return g * (1 + y * y) * DEGREE


def cotdg_x(g, y):
    return -g * (1 + y * y) * DEGREE
