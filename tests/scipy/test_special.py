"""``scipy.special`` on traced values."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special
from compiled_cases import compiled_laws
from laws import Case, laws

import nbad
from nbad.errors import NoRuleError
from nbad.scipy import special
from nbad.scipy.passing import Refused
from nbad.table import TABLE

S = (3, 4)


def of(name, *domains, complex_ok=False, first=(), **more):
    """Return the case of a ufunc: static arguments `first`, then uniform ones."""
    arguments = [*first, *((S, low, high) for low, high in domains)]
    function = getattr(special, name)
    return Case(name, function, arguments, complex_ok=complex_ok, elementwise=not first, **more)


ONE = [
    of("erf", (-1.5, 1.5), complex_ok=True),
    of("erfc", (-1.5, 1.5), complex_ok=True),
    of("erfcx", (-1.0, 2.0), complex_ok=True),
    of("erfi", (-1.0, 1.0), complex_ok=True),
    of("dawsn", (-1.5, 1.5), complex_ok=True),
    of("erfinv", (-0.6, 0.6)),
    of("erfcinv", (0.4, 1.6)),
    of("ndtr", (-2.0, 2.0), complex_ok=True),
    of("log_ndtr", (-3.0, 2.0)),
    of("ndtri", (0.3, 0.7)),
    of("ndtri_exp", (-2.0, -0.6)),
    of("owens_t", (-1.0, 1.0), (-1.0, 1.0)),
    of("gamma", (1.2, 3.0)),
    of("gammaln", (1.2, 3.0)),
    of("loggamma", (1.2, 3.0)),
    of("rgamma", (-1.7, 2.0)),
    of("psi", (1.2, 3.0)),
    of("beta", (1.2, 3.0), (1.3, 2.0)),
    of("betaln", (1.2, 3.0), (1.3, 2.0)),
    of("binom", (3.0, 4.0), (1.0, 2.0)),
    of("poch", (1.5, 3.0), (0.5, 1.0)),
    of("j0", (0.5, 4.0)),
    of("j1", (-2.0, 2.0)),
    of("y0", (1.0, 4.0)),
    of("y1", (1.0, 4.0)),
    of("i0", (-2.0, 2.0)),
    of("i1", (-2.0, 2.0)),
    of("i0e", (0.5, 3.0)),
    of("i1e", (0.5, 3.0)),
    of("k0", (1.0, 3.0)),
    of("k1", (1.0, 3.0)),
    of("k0e", (1.0, 3.0)),
    of("k1e", (1.0, 3.0)),
    of("expit", (-3.0, 3.0)),
    of("logit", (0.3, 0.7)),
    of("log_expit", (-3.0, 3.0)),
    of("xlogy", (-1.0, 1.0), (0.5, 2.0)),
    of("xlog1py", (-1.0, 1.0), (-0.5, 1.0)),
    of("entr", (0.5, 2.0)),
    of("rel_entr", (0.5, 2.0), (0.6, 1.5)),
    of("kl_div", (0.5, 2.0), (0.6, 1.5)),
    of("huber", (1.0, 2.0), (-0.9, 0.9)),
    of("pseudo_huber", (1.0, 2.0), (-2.0, 2.0)),
    of("exprel", (-0.6, 0.6)),
    of("exp2", (-1.0, 1.0)),
    of("exp10", (-1.0, 1.0)),
    of("expm1", (-1.0, 1.0), complex_ok=True),
    of("log1p", (-0.4, 1.0), complex_ok=True),
    of("cbrt", (0.5, 2.0)),
    of("cosm1", (-1.0, 1.0)),
    of("powm1", (0.5, 2.0), (-1.0, 1.0)),
    of("sindg", (-90.0, 90.0)),
    of("cosdg", (-90.0, 90.0)),
    of("tandg", (-40.0, 40.0)),
    of("cotdg", (30.0, 80.0)),
    of("expi", (0.8, 2.0), complex_ok=True),
    of("exp1", (0.8, 2.0), complex_ok=True),
    of("spence", (0.9, 1.1), complex_ok=True),
    of("ellipk", (-0.15, 0.15)),
    of("ellipkm1", (0.3, 0.7)),
    of("ellipe", (0.3, 0.7)),
    of("fresnel", (-1.0, 1.0), complex_ok=True),
    of("sici", (0.7, 2.0)),
    of("shichi", (0.1, 0.4)),
    of("airy", (-1.0, 1.0), complex_ok=True),
]
PARAMETERS = [
    of("zeta", (1.2, 3.0), first=(2.0,)),
    of("gammainc", (0.8, 3.0), first=(1.7,)),
    of("gammaincc", (0.8, 3.0), first=(1.7,)),
    of("gammaincinv", (0.3, 0.7), first=(1.7,)),
    of("gammainccinv", (0.3, 0.7), first=(1.7,)),
    of("betainc", (0.3, 0.7), first=(1.7, 2.2)),
    of("betaincinv", (0.3, 0.7), first=(1.7, 2.2)),
    of("stdtr", (-2.0, 2.0), first=(4.0,)),
    of("stdtrit", (0.3, 0.7), first=(4.0,)),
    of("chdtr", (0.8, 3.0), first=(3.0,)),
    of("chdtrc", (0.8, 3.0), first=(3.0,)),
    of("jv", (1.0, 4.0), first=(1.5,), complex_ok=True),
    of("yn", (1.0, 4.0), first=(2,)),
    of("yv", (1.0, 4.0), first=(1.5,), complex_ok=True),
    of("iv", (1.0, 3.0), first=(1.5,), complex_ok=True),
    of("ive", (1.0, 3.0), first=(1.5,), complex_ok=True),
    of("kn", (1.0, 3.0), first=(2,)),
    of("kv", (1.0, 3.0), first=(1.5,), complex_ok=True),
    of("kve", (1.0, 3.0), first=(1.5,), complex_ok=True),
    of("expn", (0.8, 2.0), first=(1,)),
    of("eval_legendre", (-0.9, 0.9), first=(3,)),
    of("eval_chebyt", (-0.9, 0.9), first=(3,)),
    of("eval_chebyu", (-0.9, 0.9), first=(3,)),
    of("eval_hermite", (-1.0, 1.0), first=(3,)),
    of("eval_hermitenorm", (-1.0, 1.0), first=(3,)),
    of("eval_laguerre", (-1.0, 1.0), first=(3,)),
    of("eval_genlaguerre", (-1.0, 1.0), first=(3, 0.5)),
    of("eval_gegenbauer", (-0.9, 0.9), first=(3, 1.2)),
    of("eval_jacobi", (-0.9, 0.9), first=(3, 0.5, 0.7)),
    of("hyp0f1", (-1.0, 1.0), first=(1.5,)),
    of("hyp1f1", (-1.0, 1.0), first=(1.5, 2.5)),
    of("hyp2f1", (-0.4, 0.4), first=(1.5, 0.5, 2.5)),
    of("hyperu", (1.0, 2.0), first=(1.5, 0.5)),
]
ELSE = [
    Case("betaincc", lambda x: special.betaincc(1.7, 2.2, x), [(S, 0.3, 0.7)]),
    Case("betainccinv", lambda x: special.betainccinv(1.7, 2.2, x), [(S, 0.3, 0.7)]),
    Case("boxcox", lambda x: special.boxcox(x, 0.7), [(S, 0.5, 2.0)]),
    Case("boxcox1p", lambda x: special.boxcox1p(x, 0.7), [(S, 0.5, 2.0)]),
    Case("inv_boxcox", lambda x: special.inv_boxcox(x, 0.7), [(S, 0.5, 2.0)]),
    Case("inv_boxcox1p", lambda x: special.inv_boxcox1p(x, 0.7), [(S, 0.5, 2.0)]),
    Case("ellipkinc", lambda x: special.ellipkinc(x, 0.4), [(S, 0.2, 1.2)]),
    Case("ellipeinc", lambda x: special.ellipeinc(x, 0.4), [(S, 0.2, 1.2)]),
    Case("ellipj", lambda x: special.ellipj(x, 0.4), [(S, 0.2, 1.2)], dtypes=("f8",)),
    Case("huber, large", special.huber, [(S, 0.3, 0.5), (S, 1.0, 2.0)]),
    Case("rgamma, poles", lambda x: special.rgamma(x - 3.0), [np.array([0.0, 1.0, 2.0])], dtypes=("f8",)),
    Case("exprel, far", special.exprel, [(S, 0.9, 2.0)]),
    Case("spence, far", special.spence, [(S, 0.3, 0.7)]),
    Case("ellipe, near", special.ellipe, [(S, -0.15, 0.15)]),
    Case("shichi, far", special.shichi, [(S, 0.7, 2.0)]),
    Case("polygamma", lambda x: special.polygamma(2, x), [(S, 1.2, 3.0)]),
    Case("polygamma, orders", lambda x: special.polygamma([[0], [1], [3]], x), [(S, 1.2, 3.0)]),
    Case("multigammaln", lambda x: special.multigammaln(x[0, 0], 3), [(S, 2.2, 3.0)], dtypes=("f8",)),
    Case("lambertw", special.lambertw, [(S, 0.5, 2.0)], dtypes=("f8", "c16")),
    Case("lambertw, branch", lambda z: special.lambertw(z, k=-1), [(S, -0.3, -0.1)], dtypes=("f8", "c16")),
    Case("logsumexp", special.logsumexp, [(S, -1.0, 1.0)], complex_ok=True),
    Case("logsumexp, axis", lambda a: special.logsumexp(a, axis=1, keepdims=True), [(S, -1.0, 1.0)]),
    Case("logsumexp, b", lambda a, b: special.logsumexp(a, 0, b), [(S, -1.0, 1.0), (S, 0.5, 2.0)]),
    Case(
        "logsumexp, sign",
        lambda a, b: special.logsumexp(a, axis=-1, b=b, return_sign=True),
        [(S, -1.0, 1.0), ((4,), -2.0, -0.5)],
    ),
    Case("softmax", special.softmax, [(S, -1.0, 1.0)]),
    Case("softmax, axis", lambda x: special.softmax(x, axis=1), [(S, -1.0, 1.0)]),
    Case("log_softmax", special.log_softmax, [(S, -1.0, 1.0)]),
    Case("log_softmax, axis", lambda x: special.log_softmax(x, axis=(0, 1)), [(S, -1.0, 1.0)]),
]
CASES = [*ONE, *PARAMETERS, *ELSE]
TestLaws = laws(CASES)


def test_every_ufunc_has_a_case():
    have = {case.name.partition(",")[0] for case in CASES} | {"digamma", "jn", "sinc"}
    assert set(special.DIFFERENTIABLE) - have == set()


test_compiled = compiled_laws([case for case in CASES if "c16" not in case.dtypes])


@pytest.mark.parametrize(
    "name", ["erf", "expit", "xlogy", "gammainc", "polygamma", "logsumexp", "fresnel", "sinc"]
)
def test_plain_arrays_go_to_scipy(name):
    x = np.linspace(0.1, 0.9, 5)
    args = (2, x) if name in ("gammainc", "polygamma", "xlogy") else (x,)
    mine, theirs = getattr(special, name)(*args), getattr(scipy.special, name)(*args)
    np.testing.assert_array_equal(mine, theirs)


def test_ufuncs_are_scipys_own():
    assert special.erf is scipy.special.erf and special.digamma is scipy.special.psi
    assert special.kolmogorov is scipy.special.kolmogorov  # without a rule


# Derivatives at points, from 60 digits.
@pytest.mark.parametrize(
    ("name", "points"),
    [
        (
            "erfcx",
            [
                (25.0, -0.0009005454634446267),
                (1000.0, -5.641887372654967e-07),
                (1000000.0, -5.6418958354691e-13),
            ],
        ),
        (
            "dawsn",
            [
                (25.0, -0.0008019277233204113),
                (-1000.0, -5.00000750001875e-07),
                (40.0, -0.0003127934275178559),
            ],
        ),
        ("log_ndtr", [(-1000.0, 1000.000999998), (-30.0, 30.033259667433676), (5.0, 1.4867199409049056e-06)]),
        (
            "expit",
            [(-40.0, 4.248354255291589e-18), (40.0, 4.248354255291589e-18), (300.0, 5.148200222412013e-131)],
        ),
        (
            "i0e",
            [
                (99.0, -0.00020327547178648295),
                (-150.0, 0.000108851495069107),
                (1000000.0, -1.9947121500246404e-10),
            ],
        ),
        (
            "i1e",
            [
                (99.0, -0.00020018764234864395),
                (-150.0, -0.00010776114752321928),
                (1000000.0, -1.9947091579556673e-10),
            ],
        ),
        (
            "k0e",
            [
                (99.0, -0.0006337885424814609),
                (150.0, -0.0003402614090701568),
                (1000000.0, -6.266568336615697e-10),
            ],
        ),
        (
            "k1e",
            [
                (99.0, -0.0006433675092864178),
                (150.0, -0.00034365840805825125),
                (1000000.0, -6.266577736465852e-10),
            ],
        ),
        ("exprel", [(1e-09, 0.5000000003333334), (-1e-05, 0.49999666667916665), (0.7, 0.8079065056303205)]),
        ("spence", [(1.000000001, -0.9999999995), (0.95, -1.0258658877510107), (1.12, -0.9444057108916931)]),
        ("ellipk", [(1e-12, 0.39269908169916595), (-0.1, 0.3526958033966953), (0.19, 0.4972404400193644)]),
        ("ellipe", [(1e-12, -0.3926990816988714), (-0.1, -0.37883102612036357), (0.19, -0.4245435773455783)]),
        (
            "psi",
            [(0.001, 1000001.6425331958), (1000.0, 0.0010005001666666333), (100000000.0, 1.000000005e-08)],
        ),
        ("rgamma", [(-3.0, -6.0), (-1e-09, 0.9999999988455687), (20.0, -2.4419594231569027e-17)]),
        (
            "rel_entr",
            [(1e-300, -690.1809930063218), (1.5000001, 1.0000000666666644), (1e300, 691.3700627901055)],
        ),
    ],
)
def test_derivatives_hold_their_digits_in_tails_and_near_removable_singularities(name, points):
    function = getattr(special, name)
    for x, expected in points:
        if name == "rel_entr":
            found = nbad.grad(function)(np.float64(x), 1.5)
        else:
            found = nbad.grad(function)(np.float64(x))
        assert abs(found - expected) <= 1e-13 * abs(expected), (x, found, expected)


def test_argument_without_a_known_derivative_is_refused_when_it_is_asked_for():
    a, x = np.array([1.5, 2.0]), np.array([0.5, 1.0])
    gradient = nbad.grad(lambda a, x: np.sum(special.gammainc(a, x)), wrt="x")(a, x)
    assert gradient.shape == (2,)
    with pytest.raises(NoRuleError, match=r"'a' of scipy\.special\.gammainc"):
        nbad.grad(lambda a, x: np.sum(special.gammainc(a, x)))(a, x)


def test_every_unknown_derivative_is_refused():
    rows = {op.name: op for op in TABLE}
    for name, operands in special.ROWS.items():
        if hasattr(special, name):
            for rule, pullback in zip(
                operands.values(), rows[f"scipy.special.{name}"].pullbacks, strict=True
            ):
                assert isinstance(pullback.rule, Refused) == (rule is None)


def test_functions_without_a_rule_take_plain_arrays_only():
    assert special.comb(5, 2) == 10
    with pytest.raises(NoRuleError, match=r"scipy\.special\.comb"):
        nbad.grad(lambda x: special.comb(x, 2))(5.0)
    with pytest.raises(NoRuleError, match="kolmogorov"):
        nbad.grad(lambda x: special.kolmogorov(x))(0.5)
    with pytest.raises(AttributeError, match="nothing"):
        _ = special.nothing


@pytest.mark.parametrize("name", special.STEPS)
def test_steps_are_constants(name):
    step = getattr(special, name)
    x = np.array([-1.5, -0.4, 0.7])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(x * step(x)))(x), step(x))
    product = nbad.compile(lambda x: np.sum(x * step(x)))
    np.testing.assert_array_equal(nbad.grad(product)(x), step(x))
    np.testing.assert_array_equal(nbad.grad(product)(x - 1), step(x - 1))


def test_limits_where_both_arguments_of_xlogy_and_its_kin_vanish():
    zero = np.zeros(1)
    for name, other in (("xlogy", 0.0), ("xlog1py", -1.0)):
        function = getattr(special, name)
        found = nbad.grad(lambda a, b: np.sum(function(a, b)), wrt=(0, 1))(zero, zero + other)  # noqa: B023
        assert [float(g[0]) for g in found] == [0.0, 0.0]
    assert nbad.grad(lambda a, b: np.sum(special.kl_div(a, b)), wrt=1)(zero, zero) == [1.0]
    assert nbad.grad(lambda b: np.sum(special.rel_entr(0.0, b)))(zero) == [0.0]


def test_logsumexp_of_minus_infinities():
    a = np.array([-np.inf, 0.0, 1.0])
    np.testing.assert_allclose(nbad.grad(special.logsumexp)(a), scipy.special.softmax(a))
    assert nbad.grad(special.logsumexp)(np.full(2, -np.inf)).tolist() == [1.0, 1.0]


def test_logsumexp_of_weights_that_are_more_than_the_exponents():
    a, b = np.array([[0.5], [1.0]]), np.array([1.0, 2.0, 4.0])
    found = nbad.grad(lambda a, b: np.sum(special.logsumexp(a, 1, b) ** 2), wrt=(0, 1))(a, b)
    y = 2 * scipy.special.logsumexp(a, 1, b)
    np.testing.assert_allclose(found[0], y[:, None])
    np.testing.assert_allclose(found[1], np.full(3, np.sum(y) / 7))


def test_logsumexp_takes_a_number_for_the_weights_or_for_the_exponent():
    a = np.array([0.5, 1.0], np.float32)
    found = nbad.grad(lambda a: special.logsumexp(a, b=2.0) + special.logsumexp(a, b=True))(a)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2 * scipy.special.softmax(a), rtol=1e-6)
    np.testing.assert_allclose(
        nbad.grad(lambda b: special.logsumexp(1.0, b=b))(np.array([1.0, 3.0])), [0.25, 0.25]
    )


@pytest.mark.slow
def test_scipy_special_knows_traced_values_as_soon_as_nbad_is_imported():
    code = (
        "import sys, numpy as np, nbad, scipy.special as s\n"
        "assert 'nbad.scipy.special' not in sys.modules\n"
        "assert nbad.grad(lambda x: np.sum(s.erf(x)))(np.zeros(1))[0] > 1.12\n"
        "assert nbad.grad(lambda x: np.sum(s.betainc(2.0, 1.0, x)))(np.ones(1))[0] == 2.0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_without_scipy_nbad_imports_and_says_what_is_missing():
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'scipy':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import nbad\n"
        "for name in ('special', 'signal', 'ndimage', 'linalg', 'sparse', 'fft'):\n"
        "    try:\n"
        "        getattr(nbad.scipy, name)\n"
        "    except ImportError as error:\n"
        "        assert 'needs SciPy' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_saved_tape_finds_the_rows_of_scipy(tmp_path):
    file = tmp_path / "f.nbad"
    code = (
        "import numpy as np, nbad\nfrom nbad.scipy import signal, special\n"
        "def f(x): return np.sum(special.erf(signal.lfilter(np.ones(2), np.ones(1), x)))\n"
        f"c = nbad.compile(f); c(np.zeros(3)); c.save({str(file)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = f"import numpy as np, nbad; assert nbad.grad(nbad.load({str(file)!r}))(np.zeros(3))[0] > 2.2"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_ufunc_that_widens_beside_a_python_number_had_its_result_read_as_single_precision():
    def widened(x):
        return np.exp(special.xlogy(0.7, x) - x)  # double precision in SciPy before 1.18

    x = np.linspace(0.3, 0.7, 4)
    narrow = x.astype("f4")
    expected = nbad.grad(lambda x: np.sum(widened(x)))(x)
    np.testing.assert_allclose(
        nbad.grad(lambda x: np.sum(widened(x)))(narrow), expected, rtol=1e-5, atol=1e-6
    )
