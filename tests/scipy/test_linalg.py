"""``scipy.linalg`` on traced values."""

import inspect

import numpy as np
import pytest
import scipy.linalg
from compiled_cases import compiled_laws
from laws import Case, Uniform, laws

import nbad
from nbad.errors import NoRuleError
from nbad.scipy import linalg

WIDE = ("f8", "c16")


def dominant(n=4, m=None):
    """Draw a matrix with a heavy diagonal of distinct elements."""

    def draw(rng, dtype):
        a = Uniform((n, m or n), -0.4, 0.4)(rng, dtype)
        k = np.arange(min(a.shape))
        a[k, k] += (2.0 + 0.5 * k).astype(a.real.dtype)
        return a

    return draw


def turned(rng, dtype):
    """Draw a matrix of which every row has to be moved, whatever is added to it."""
    return np.roll(dominant()(rng, dtype), 1, axis=0)


def spread_out(n=4):
    """Draw a positive definite matrix, both triangles."""

    def draw(rng, dtype):
        a = dominant(n)(rng, dtype)
        return np.ascontiguousarray((a + a.conj().T) / 2)

    return draw


def bands(count, n, main):
    """Draw bands of which the main one is heavy."""

    def draw(rng, dtype):
        ab = Uniform((count, n), -0.3, 0.3)(rng, dtype)
        ab[main] += 2
        return ab

    return draw


def of(name, arguments, *rest, label="", dtypes=(), exact=False, **options):
    """Return the case of a function: drawn arguments, then static ones."""
    function = getattr(linalg, name)
    return Case(
        f"{name}, {label} {rest} {options}",
        lambda *xs: function(*xs, *rest, **options),
        arguments,
        dtypes=dtypes,
        complex_ok=not dtypes,
        exact=exact,
    )


A, B, V = dominant(), ((4, 3), -1.0, 1.0), ((4,), -1.0, 1.0)


def signless(function):
    """Return what eigenvectors and the like determine: their outer products with themselves."""

    def run(*xs):
        found = function(*xs)
        return [x if x.ndim == 1 else np.einsum("ij,kj->ikj", x, np.conj(x)) for x in found]

    return run


def with_factor(name, *rest):
    """Return a function that factors its first argument and solves with the factor."""

    def run(a, b):
        factor = linalg.cho_factor(a, *rest) if name == "cho" else linalg.lu_factor(a)
        return linalg.cho_solve(factor, b) if name == "cho" else linalg.lu_solve(factor, b, *rest)

    return run


def fitted(x, residual):
    """Return a solution and its residual, which is an array in some versions of SciPy and a number in others."""
    return x, 1.0 * residual


CASES = [
    *(
        of("solve_triangular", [A, b], trans, lower, unit, label=label)
        for trans in (0, "T", 2)
        for lower, unit in ((False, False), (True, True))
        for label, b in (("matrix", B), ("vector", V))
    ),
    *(of("solve", [A, B], lower, assume_a=kind) for lower in (False, True) for kind in ("sym", "her", "gen")),
    *(of("solve", [A, V], assume_a=kind) for kind in ("diagonal", "tridiagonal", "upper triangular", "lower triangular")),
    of("solve", [spread_out(), B], assume_a="pos"),
    of("solve", [A, B], transposed=True, dtypes=("f8",)),
    of("inv", [A]),
    of("det", [A], dtypes=WIDE),
    Case(
        "lstsq, tall", lambda a, b: fitted(*linalg.lstsq(a, b)[:2]), [dominant(5, 3), ((5,), -1.0, 1.0)], dtypes=("f8",),
        exact=False,
    ),
    Case("lstsq, matrix", lambda a, b: linalg.lstsq(a, b)[0], [dominant(5, 3), ((5, 2), -1.0, 1.0)], dtypes=WIDE, exact=False),
    of("pinv", [dominant(5, 3)], dtypes=WIDE),
    of("norm", [A], dtypes=WIDE),
    of("norm", [A], 1, 0, dtypes=WIDE),
    of("cholesky", [spread_out()]),
    of("cholesky", [spread_out()], True),
    Case("cho_factor", with_factor("cho"), [spread_out(), B], complex_ok=True, exact=False),
    Case("cho_solve", with_factor("cho", True), [spread_out(), V], complex_ok=True, exact=False),
    Case("eigh", signless(linalg.eigh), [spread_out()], dtypes=WIDE, exact=False),
    Case("eigh, upper", signless(lambda a: linalg.eigh(a, lower=False)), [A], dtypes=WIDE, exact=False),
    Case("eigh, pair", signless(linalg.eigh), [A, spread_out()], dtypes=WIDE, exact=False),
    of("eigvalsh", [A], dtypes=WIDE),
    of("eigvalsh", [A, spread_out()], dtypes=WIDE, lower=False),
    Case("svd", signless(lambda a: linalg.svd(a, False)[:2]), [dominant(5, 3)], dtypes=WIDE, exact=False),
    of("svd", [dominant(5, 3)], compute_uv=False, dtypes=WIDE),
    of("svdvals", [dominant(3, 4)], dtypes=WIDE),
    of("qr", [A]),
    of("qr", [dominant(5, 3)], mode="economic"),
    of("qr", [dominant(5, 3)], mode="r"),
    of("lu", [A]),
    of("lu", [A], True),
    of("lu", [turned], label="pivots"),
    Case("lu, indices", lambda a: linalg.lu(a, p_indices=True)[1:], [turned], complex_ok=True, exact=False),
    Case("lu_factor", lambda a: linalg.lu_factor(a)[0], [turned], complex_ok=True),
    *(
        Case(f"lu_solve, {trans}", with_factor("lu", trans), [turned, b], complex_ok=True, exact=False)
        for trans, b in ((0, B), (1, V), (2, B))
    ),
    *(of(name, [A], dtypes=WIDE, exact=True) for name in ("expm", "logm", "sqrtm", "sinm", "cosm")),
    of("expm", [((2, 3, 3), -1.0, 1.0)], label="stack", dtypes=WIDE, exact=True),
    of("block_diag", [((2, 3), -1.0, 1.0), ((3,), -1.0, 1.0), ((1, 1), -1.0, 1.0)], exact=True),
    of("toeplitz", [V], exact=True),
    of("toeplitz", [V, ((3,), -1.0, 1.0)], label="row", exact=True),
    of("hankel", [V], exact=True),
    of("hankel", [V, ((3,), -1.0, 1.0)], label="row", exact=True),
    of("circulant", [V], exact=True),
    of("companion", [((4,), 0.5, 1.0)]),
    *(
        Case(
            f"solve_banded, {lower} {upper} {b}", lambda ab, b, bands=(lower, upper): linalg.solve_banded(bands, ab, b),
            [bands(lower + upper + 1, 5, upper), b], complex_ok=True,
        )
        for lower, upper, b in ((1, 2, ((5, 2), -1.0, 1.0)), (2, 0, ((5,), -1.0, 1.0)), (1, 1, ((5,), -1.0, 1.0)))
    ),
    of("solveh_banded", [bands(3, 5, 2), ((5,), -1.0, 1.0)]),
    of("solveh_banded", [bands(3, 5, 0), ((5, 2), -1.0, 1.0)], lower=True),
    Case("solve_toeplitz", lambda c, b: linalg.solve_toeplitz(c[0], b), [bands(1, 4, (0, 0)), V], dtypes=("f8",), exact=False),
    Case(
        "solve_toeplitz, row", lambda c, r, b: linalg.solve_toeplitz((np.concatenate([np.ones(1), c]), r), b),
        [((3,), -0.3, 0.3), ((4,), -0.3, 0.3), V], dtypes=WIDE, exact=False,
    ),
    of("solve_sylvester", [A, dominant(3), B], exact=True, dtypes=WIDE),
    of("solve_continuous_lyapunov", [A, A], dtypes=WIDE),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)


def test_every_function_has_a_case():
    assert set(linalg.DIFFERENTIABLE) == {case.name.partition(",")[0] for case in CASES}


@pytest.mark.parametrize("name", linalg.DIFFERENTIABLE)
def test_arguments_are_those_of_scipy(name):
    mine, theirs = (inspect.signature(getattr(m, name)).parameters for m in (linalg, scipy.linalg))
    assert [p for p in theirs if p not in mine] == []
    assert list(mine)[: len(theirs)] == list(theirs)


def test_each_operand_runs_its_own_pullback_only():
    a, b = np.eye(3) * 2 + 0.1, np.ones(3)
    for name in ("a", "b"):
        with nbad.report() as account:
            nbad.grad(lambda a, b: np.sum(linalg.solve_triangular(a, b) ** 2), wrt=name)(a, b)
        assert {o for op, o in account.rules_run if op == "scipy.linalg.solve_triangular"} == {name}


def test_the_gradient_of_what_is_read_lies_in_one_triangle():
    a, b = np.eye(3) * 2 + 0.1, np.ones(3)
    g = nbad.grad(lambda a: np.sum(linalg.solve(a, b, assume_a="pos")))(a)
    assert np.all(np.tril(g, -1) == 0) and np.count_nonzero(g) == 6


def test_what_has_no_rule_is_refused():
    a = np.eye(3)
    for call, words in (
        (lambda a: linalg.schur(a)[0], "schur"),
        (lambda a: linalg.qr(a, pivoting=True)[0], "pivoting="),
        (lambda a: linalg.solve_triangular(np.stack([a, a]), a), "stack of matrices"),
        (lambda a: linalg.eigh(a, subset_by_index=[0, 1])[0], "subset_by_index="),
    ):
        with pytest.raises(NoRuleError, match=words):
            nbad.grad(lambda a: np.sum(call(a)))(a)  # noqa: B023


def test_the_square_root_of_a_symmetric_matrix_with_negative_eigenvalues_has_the_derivatives_of_the_difference():
    rng = np.random.default_rng(0)
    x, w, v = rng.normal(size=(3, 3, 3))
    assert np.linalg.eigvalsh(x + x.T)[0] < 0

    def loss(x):
        root = linalg.sqrtm(x + x.T)
        return np.sum(w * np.real(root) + w.T * np.imag(root))

    h = 1e-6 * v
    slope = (loss(x + h) - loss(x - h)) / 2e-6
    np.testing.assert_allclose(np.sum(nbad.grad(loss)(x) * v), slope, rtol=1e-6)
    bend = (nbad.grad(loss)(x + h) - nbad.grad(loss)(x - h)) / 2e-6
    np.testing.assert_allclose(nbad.hvp(loss)(x, v), bend, rtol=1e-5, atol=1e-7)


def test_the_logarithm_of_a_matrix_with_a_negative_eigenvalue_has_no_derivative():
    with pytest.raises(np.linalg.LinAlgError, match=r"np\.linalg\.eigh"):
        nbad.grad(lambda x: np.sum(np.real(linalg.logm(x))))(np.diag([1.0, -2.0]))
