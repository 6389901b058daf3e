"""Densities and distributions as SciPy's documentation gives them, in functions that nbad differentiates."""

from types import SimpleNamespace

import numpy as np
from scipy import stats

from autograd.scipy.stats import multivariate_normal
from nbad.scipy import special

__all__ = ["beta", "chi2", "dirichlet", "gamma", "multivariate_normal", "norm", "poisson", "t"]


def _with_pdf(logpdf, **others):
    return SimpleNamespace(
        logpdf=logpdf, pdf=lambda *args, **kwargs: np.exp(logpdf(*args, **kwargs)), **others
    )


def _chi2(x, df):
    return special.xlogy(df / 2 - 1, x) - x / 2 - special.gammaln(df / 2) - np.log(2) * df / 2


def _beta(x, a, b):
    return special.xlog1py(b - 1, -x) + special.xlogy(a - 1, x) - special.betaln(a, b)


def _gamma(x, a):
    return special.xlogy(a - 1, x) - x - special.gammaln(a)


def _norm(x, loc=0.0, scale=1.0):
    return -(((x - loc) / scale) ** 2) / 2 - np.log(2 * np.pi) / 2 - np.log(scale)


def _t(x, df, loc=0.0, scale=1.0):
    y = (x - loc) / scale
    constant = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(df * np.pi) / 2
    return constant - (df + 1) / 2 * np.log1p(y**2 / df) - np.log(scale)


def _poisson(k, mu):
    return special.xlogy(k, mu) - special.gammaln(k + 1) - mu


def _dirichlet(x, alpha):
    constant = special.gammaln(np.sum(alpha)) - np.sum(special.gammaln(alpha))
    return constant + np.sum(special.xlogy(alpha - 1, x))


def _t_cdf(x, df, loc=0.0, scale=1.0):
    return special.stdtr(df, (x - loc) / scale)


chi2 = _with_pdf(_chi2, cdf=lambda x, df: special.gammainc(df / 2, x / 2))
beta = _with_pdf(_beta, cdf=lambda x, a, b: special.betainc(a, b, x))
gamma = _with_pdf(_gamma, cdf=lambda x, a: special.gammainc(a, x))
norm = _with_pdf(
    _norm,
    cdf=lambda x, loc=0.0, scale=1.0: special.ndtr((x - loc) / scale),
    sf=lambda x, loc=0.0, scale=1.0: special.ndtr((loc - x) / scale),
    logcdf=lambda x, loc=0.0, scale=1.0: special.log_ndtr((x - loc) / scale),
    logsf=lambda x, loc=0.0, scale=1.0: special.log_ndtr((loc - x) / scale),
)
t = _with_pdf(_t, cdf=_t_cdf, logcdf=lambda *args: np.log(_t_cdf(*args)))
poisson = SimpleNamespace(
    logpmf=_poisson,
    pmf=lambda k, mu: np.exp(_poisson(k, mu)),
    cdf=lambda k, mu: special.gammaincc(np.floor(k) + 1, mu),
)
dirichlet = _with_pdf(_dirichlet, rvs=stats.dirichlet.rvs)
