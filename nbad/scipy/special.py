"""``scipy.special`` on traced values.

Owns the rows of SciPy's ufuncs, which come to us by NumPy's own protocol (so ``scipy.special.erf(x)`` and
``nbad.scipy.special.erf(x)`` are the same call), and the plain functions among them. The derivatives are in
`nbad.scipy.special_rules` and
`nbad.scipy.bessel_rules`. What has no rule takes plain arrays only.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> from nbad.scipy import special
>>> float(nbad.grad(special.gammaln)(np.float64(3.0)).round(6))
0.922784
"""

import functools
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.rules import elementwise as np_rules
from nbad.rules.reductions import axes_of, kept_shape
from nbad.scipy import bessel_rules
from nbad.scipy import special_rules as rules
from nbad.scipy.passing import Refused, rest_of, stands_for, static
from nbad.scipy.special_rules import special
from nbad.table import BINDINGS, CONSTANT, UFUNCS, Op, elementwise, forward_only, operation
from nbad.trace import apply, cast

#: Where a row would say None: the derivative exists, and has no closed form.
UNKNOWN = None

#: The ufuncs, with the pullback of each operand.
ROWS: dict[str, dict[str, Any]] = {
    # error functions
    "erf": {"x": rules.erf_x},
    "erfc": {"x": rules.erfc_x},
    "erfcx": {"x": rules.erfcx_x},
    "erfi": {"x": rules.erfi_x},
    "dawsn": {"x": rules.dawsn_x},
    "erfinv": {"x": rules.erfinv_x},
    "erfcinv": {"x": rules.erfcinv_x},
    "ndtr": {"x": rules.ndtr_x},
    "log_ndtr": {"x": rules.log_ndtr_x},
    "ndtri": {"x": rules.ndtri_x},
    "ndtri_exp": {"x": rules.ndtri_exp_x},
    "owens_t": {"h": rules.owens_t_h, "a": rules.owens_t_a},
    # gamma and beta
    "gamma": {"x": rules.gamma_x},
    "gammaln": {"x": rules.gammaln_x},
    "loggamma": {"x": rules.gammaln_x},
    "rgamma": {"x": rules.rgamma_x},
    "psi": {"x": rules.psi_x},
    "gammainc": {"a": UNKNOWN, "x": rules.gammainc_x},
    "gammaincc": {"a": UNKNOWN, "x": rules.gammaincc_x},
    "gammaincinv": {"a": UNKNOWN, "p": rules.gammaincinv_p},
    "gammainccinv": {"a": UNKNOWN, "p": rules.gammainccinv_p},
    "beta": {"a": rules.beta_a, "b": rules.beta_b},
    "betaln": {"a": rules.betaln_a, "b": rules.betaln_b},
    "betainc": {"a": UNKNOWN, "b": UNKNOWN, "x": rules.betainc_x},
    "betaincc": {"a": UNKNOWN, "b": UNKNOWN, "x": rules.betaincc_x},
    "betaincinv": {"a": UNKNOWN, "b": UNKNOWN, "p": rules.betaincinv_p},
    "betainccinv": {"a": UNKNOWN, "b": UNKNOWN, "p": rules.betainccinv_p},
    "binom": {"n": rules.binom_n, "k_": rules.binom_k},
    "poch": {"z": rules.poch_z, "m": rules.poch_m},
    "stdtr": {"df": UNKNOWN, "t": rules.stdtr_t},
    "stdtrit": {"df": UNKNOWN, "p": rules.stdtrit_p},
    "chdtr": {"v": UNKNOWN, "x": rules.chdtr_x},
    "chdtrc": {"v": UNKNOWN, "x": rules.chdtrc_x},
    # Bessel functions
    "j0": {"x": bessel_rules.j0_x},
    "j1": {"x": bessel_rules.j1_x},
    "jv": {"v": UNKNOWN, "z": bessel_rules.jv_z},
    "y0": {"x": bessel_rules.y0_x},
    "y1": {"x": bessel_rules.y1_x},
    "yn": {"n": UNKNOWN, "x": bessel_rules.yn_x},
    "yv": {"v": UNKNOWN, "z": bessel_rules.yv_z},
    "i0": {"x": bessel_rules.i0_x},
    "i0e": {"x": bessel_rules.i0e_x},
    "i1": {"x": bessel_rules.i1_x},
    "i1e": {"x": bessel_rules.i1e_x},
    "iv": {"v": UNKNOWN, "z": bessel_rules.iv_z},
    "ive": {"v": UNKNOWN, "z": bessel_rules.ive_z},
    "k0": {"x": bessel_rules.k0_x},
    "k0e": {"x": bessel_rules.k0e_x},
    "k1": {"x": bessel_rules.k1_x},
    "k1e": {"x": bessel_rules.k1e_x},
    "kn": {"n": UNKNOWN, "x": bessel_rules.kn_x},
    "kv": {"v": UNKNOWN, "z": bessel_rules.kv_z},
    "kve": {"v": UNKNOWN, "z": bessel_rules.kve_z},
    # logistic functions, entropies, losses
    "expit": {"x": rules.expit_x},
    "logit": {"x": rules.logit_x},
    "log_expit": {"x": rules.log_expit_x},
    "xlogy": {"a": rules.xlogy_a, "b": rules.xlogy_b},
    "xlog1py": {"a": rules.xlog1py_a, "b": rules.xlog1py_b},
    "entr": {"x": rules.entr_x},
    "rel_entr": {"a": rules.rel_entr_a, "b": rules.rel_entr_b},
    "kl_div": {"a": rules.kl_div_a, "b": rules.kl_div_b},
    "huber": {"d": rules.huber_d, "r": rules.huber_r},
    "pseudo_huber": {"d": rules.pseudo_huber_d, "r": rules.pseudo_huber_r},
    # exponentials, roots, angles
    "exprel": {"x": rules.exprel_x},
    "exp2": {"x": np_rules.exp2_x},
    "exp10": {"x": rules.exp10_x},
    "expm1": {"x": np_rules.expm1_x},
    "log1p": {"x": np_rules.log1p_x},
    "cbrt": {"x": np_rules.cbrt_x},
    "cosm1": {"x": rules.cosm1_x},
    "powm1": {"a": rules.powm1_a, "b": rules.powm1_b},
    "boxcox": {"x": rules.boxcox_x, "c": UNKNOWN},
    "boxcox1p": {"x": rules.boxcox1p_x, "c": UNKNOWN},
    "inv_boxcox": {"x": rules.inv_boxcox_x, "c": UNKNOWN},
    "inv_boxcox1p": {"x": rules.inv_boxcox1p_x, "c": UNKNOWN},
    "sindg": {"x": rules.sindg_x},
    "cosdg": {"x": rules.cosdg_x},
    "tandg": {"x": rules.tandg_x},
    "cotdg": {"x": rules.cotdg_x},
    # integrals
    "expi": {"x": rules.expi_x},
    "exp1": {"x": rules.exp1_x},
    "expn": {"n": UNKNOWN, "x": rules.expn_x},
    "spence": {"z": rules.spence_z},
    "ellipk": {"m": rules.ellipk_m},
    "ellipkm1": {"p": rules.ellipkm1_p},
    "ellipe": {"m": rules.ellipe_m},
    "ellipkinc": {"phi": rules.ellipkinc_phi, "m": UNKNOWN},
    "ellipeinc": {"phi": rules.ellipeinc_phi, "m": UNKNOWN},
    # polynomials and hypergeometric functions
    "eval_legendre": {"n": UNKNOWN, "x": bessel_rules.legendre_x},
    "eval_chebyt": {"n": UNKNOWN, "x": bessel_rules.chebyt_x},
    "eval_chebyu": {"n": UNKNOWN, "x": bessel_rules.chebyu_x},
    "eval_hermite": {"n": UNKNOWN, "x": bessel_rules.hermite_x},
    "eval_hermitenorm": {"n": UNKNOWN, "x": bessel_rules.hermitenorm_x},
    "eval_laguerre": {"n": UNKNOWN, "x": bessel_rules.laguerre_x},
    "eval_genlaguerre": {"n": UNKNOWN, "a": UNKNOWN, "x": bessel_rules.genlaguerre_x},
    "eval_gegenbauer": {"n": UNKNOWN, "a": UNKNOWN, "x": bessel_rules.gegenbauer_x},
    "eval_jacobi": {"n": UNKNOWN, "a": UNKNOWN, "b": UNKNOWN, "x": bessel_rules.jacobi_x},
    "hyp0f1": {"v": UNKNOWN, "z": bessel_rules.hyp0f1_z},
    "hyp1f1": {"a": UNKNOWN, "b": UNKNOWN, "x": bessel_rules.hyp1f1_x},
    "hyp2f1": {"a": UNKNOWN, "b": UNKNOWN, "c": UNKNOWN, "z": bessel_rules.hyp2f1_z},
    "hyperu": {"a": UNKNOWN, "b": UNKNOWN, "x": bessel_rules.hyperu_x},
}

#: The ufuncs whose results carry no derivative.
STEPS = ("gammasgn", "round")


def _add_rows() -> None:
    """Add the row of each ufunc that this SciPy has."""
    for name in STEPS:
        CONSTANT[getattr(special, name)] = forward_only(getattr(special, name), f"scipy.special.{name}")
    for name, operands in ROWS.items():
        ufunc = getattr(special, name, None)
        if ufunc is not None and ufunc not in UFUNCS and ufunc not in BINDINGS:
            pullbacks: dict[str, Any] = {
                x: rule or Refused(f"special.{name}", x) for x, rule in operands.items()
            }
            op = elementwise(ufunc, name=f"scipy.special.{name}", catch=False, **pullbacks)
            BINDINGS[ufunc] = functools.partial(_called, op)


def _called(op: Op, *operands: Any) -> Any:
    """Run the row of a ufunc; beside a Python number some versions of SciPy widen an array, so the dtype is looked at."""
    return apply(op, *map(operand, operands))


_add_rows()


# Several outputs ----------------------------------------------------------------------------------
def fresnel_forward(z):
    """Return the integrals of sine and cosine of ``pi t^2 / 2``."""
    return special.fresnel(z)


def sici_forward(x):
    """Return the integrals of sine and cosine over their argument."""
    return special.sici(x)


def shichi_forward(x):
    """Return the integrals of hyperbolic sine and cosine over their argument."""
    return special.shichi(x)


def airy_forward(z):
    """Return Ai, Ai', Bi, Bi'."""
    return special.airy(z)


def ellipj_forward(u, m):
    """Return sn, cn, dn and the amplitude."""
    return special.ellipj(u, m)


FRESNEL = operation(fresnel_forward, name="scipy.special.fresnel", outputs=2, z=bessel_rules.fresnel_z)
SICI = operation(sici_forward, name="scipy.special.sici", outputs=2, x=bessel_rules.sici_x)
SHICHI = operation(shichi_forward, name="scipy.special.shichi", outputs=2, x=bessel_rules.shichi_x)
AIRY = operation(airy_forward, name="scipy.special.airy", outputs=4, z=bessel_rules.airy_z)
ELLIPJ = operation(
    ellipj_forward, name="scipy.special.ellipj", outputs=4, u=bessel_rules.ellipj_u, m=Refused("special.ellipj", "m")
)  # fmt: skip


def fresnel(z: Any) -> Any:
    return apply(FRESNEL, operand(z))


def sici(x: Any) -> Any:
    return apply(SICI, operand(x))


def shichi(x: Any) -> Any:
    return apply(SHICHI, operand(x))


def airy(z: Any) -> Any:
    return apply(AIRY, operand(z))


def ellipj(u: Any, m: Any) -> Any:
    return apply(ELLIPJ, operand(u), operand(m))


#: The ufuncs with several outputs.
SEVERAL = {"fresnel": fresnel, "sici": sici, "shichi": shichi, "airy": airy, "ellipj": ellipj}
BINDINGS.update({getattr(special, name): function for name, function in SEVERAL.items()})


# Sums of exponentials -----------------------------------------------------------------------------
def logsumexp_forward(a, *, axis, keepdims):
    """Return ``log(sum(exp(a)))``."""
    return special.logsumexp(a, axis=axis, keepdims=keepdims)


def logsumexp_a(g, a, y, a_shape, axis):  # where all are -inf: 1 for all
    kept = kept_shape(a_shape, axis)
    y = np.reshape(y, kept)
    same = a == y
    return np.reshape(g, kept) * np.conj(np.exp(np.where(same, 0, a) - np.where(same, 0, y)))


def signed_logsumexp_forward(a, b, *, axis, keepdims):
    """Return the logarithm of the modulus of ``sum(b exp(a))``, and the sign."""
    return special.logsumexp(a, axis=axis, b=b, keepdims=keepdims, return_sign=True)


def signed_logsumexp_a(g, b, share):
    return share * b


def signed_logsumexp_b(g, share, b_shape):
    return np.broadcast_to(share, np.broadcast_shapes(np.shape(share), b_shape))


def share(g, a, b, y, a_shape, b_shape, axis):
    """Return ``g s exp(a - y)``; 0 for the cotangent of the sign."""
    kept = kept_shape(np.broadcast_shapes(a_shape, b_shape), axis)
    if g[0] is None:
        return np.zeros(kept)
    y, s = np.reshape(y[0], kept), np.reshape(y[1], kept)
    return np.reshape(g[0], kept) * s * np.exp(a - y)


def softmax_forward(x, *, axis):
    """Return ``exp(x) / sum(exp(x))``."""
    return special.softmax(x, axis=axis)


def softmax_x(g, y, axis):
    return y * (g - np.sum(g * y, axis=axis, keepdims=True))


def log_softmax_forward(x, *, axis):
    """Return ``x - log(sum(exp(x)))``."""
    return special.log_softmax(x, axis=axis)


def log_softmax_x(g, y, axis):
    return g - np.exp(y) * np.sum(g, axis=axis, keepdims=True)


LOGSUMEXP = operation(logsumexp_forward, name="scipy.special.logsumexp", a=logsumexp_a)
SIGNED_LOGSUMEXP = operation(
    signed_logsumexp_forward, name="scipy.special.signed_logsumexp", outputs=2, shared={"share": share},
    a=signed_logsumexp_a, b=signed_logsumexp_b,
)  # fmt: skip
SOFTMAX = operation(softmax_forward, name="scipy.special.softmax", x=softmax_x)
LOG_SOFTMAX = operation(log_softmax_forward, name="scipy.special.log_softmax", x=log_softmax_x)


@stands_for(special)
def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False
) -> Any:
    """Return ``log(sum(b exp(a)))`` over `axis`, and with `return_sign` the sign of the sum."""
    a = operand(a)
    if b is None and not return_sign:
        return apply(LOGSUMEXP, a, axis=axes_of(a, axis), keepdims=keepdims)
    b = 1.0 if b is None else operand(b)
    dtype = np.result_type(*(getattr(x, "dtype", x) for x in (a, b)))
    a, b = (x if hasattr(x, "dtype") else np.asarray(x, dtype) for x in (a, b))
    if a.dtype.kind == "c" or np.result_type(b.dtype).kind == "c":
        raise NoRuleError.of(
            "scipy.special.logsumexp of complex numbers with b= or return_sign=", at=user_line()
        )
    ndim = max(a.ndim, b.ndim)
    a, b = (np.reshape(x, (*(1,) * (ndim - x.ndim), *x.shape)) for x in (a, b))
    y, sign = apply(SIGNED_LOGSUMEXP, a, b, axis=axes_of(a, axis), keepdims=keepdims)
    return (y, sign) if return_sign else np.where(sign < 0, np.nan, y)


@stands_for(special)
def softmax(x: Any, axis: Any = None) -> Any:
    """Return ``exp(x) / sum(exp(x))`` over `axis`."""
    x = operand(x)
    return apply(SOFTMAX, x, axis=axes_of(x, axis))


@stands_for(special)
def log_softmax(x: Any, axis: Any = None) -> Any:
    """Return ``log(softmax(x))`` over `axis`."""
    x = operand(x)
    return apply(LOG_SOFTMAX, x, axis=axes_of(x, axis))


# Other plain functions ----------------------------------------------------------------------------
def lambertw_forward(z, *, branch, tol):
    """Return the complex w with ``w exp(w) = z``."""
    return special.lambertw(z, branch, tol)


def lambertw_z(g, y):  # infinite at the branch point -1/e (4.13.4)
    return g * np.conj(np.exp(-y) / (1 + y))


LAMBERTW = operation(lambertw_forward, name="scipy.special.lambertw", z=lambertw_z)


@stands_for(special)
def lambertw(z: Any, k: Any = 0, tol: float = 1e-8) -> Any:
    """Return the complex w with ``w exp(w) = z``, on the branch `k`."""
    return apply(LAMBERTW, operand(z), branch=int(k), tol=float(tol))


@stands_for(special)
def polygamma(n: Any, x: Any) -> Any:
    """Return the derivative of order `n` of the digamma function."""
    static("special.polygamma", n=n)
    n, x = np.asarray(n), operand(x)
    if np.ndim(n) == 0 and n == 0:
        return cast(special.psi(x), np.dtype(np.float64))
    return np.where(n == 0, special.psi(x), (-1.0) ** (n + 1) * special.gamma(n + 1.0) * zeta(n + 1, x))


@stands_for(special)
def multigammaln(a: Any, d: Any) -> Any:
    """Return the logarithm of the gamma function of dimension `d`."""
    start = 0.25 * d * (d - 1) * np.log(np.pi)
    return start + sum(special.gammaln(a - 0.5 * j) for j in range(int(d)))


#: NumPy's own, under SciPy's name.
sinc = np.sinc
zeta = rules.zeta

#: All names with derivatives.
DIFFERENTIABLE = sorted(
    {n for n in ROWS if hasattr(special, n)}
    | {
        "digamma",
        "jn",
        "sinc",
        *SEVERAL,
        "lambertw",
        "log_softmax",
        "logsumexp",
        "multigammaln",
        "polygamma",
        "softmax",
        "zeta",
    }
)


def __getattr__(name: str) -> Any:
    """Return SciPy's own: its ufuncs know traced values; other functions without a rule refuse them."""
    return rest_of(special, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted(special.__all__)
