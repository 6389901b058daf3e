"""Decompositions of matrices: laws of what does not depend on a choice of vectors, triangles, degenerate cases, work done."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, REAL, TOLERANCE, Case, check_adjoint, laws

import nbad
from nbad.errors import NoRuleError
from nbad.rules.decompositions import svd_x
from nbad.testing import assert_only

ALL = REAL + COMPLEX


def near(diagonal: list[float], shape: tuple[int, ...], spread: float = 0.3) -> Callable[..., np.ndarray]:
    """Return an argument: matrices with this diagonal and small numbers everywhere, the diagonal too."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        x = rng.uniform(-spread, spread, shape)
        if dtype.kind == "c":
            x = x + 1j * rng.uniform(-spread, spread, shape)
        for i, value in enumerate(diagonal):
            x[..., i, i] += value
        return np.asarray(x).astype(dtype)

    return draw


def adjoint(x: Any) -> Any:
    return np.conj(np.swapaxes(x, -1, -2))


def upper_factor(x: Any) -> Any:
    return np.linalg.cholesky(x, upper=True)


def r_only(x: Any) -> Any:
    return np.linalg.qr(x, "r")


def mode(name: str) -> Callable[[Any], Any]:
    """Return ``np.linalg.qr`` with a mode."""

    def of(x: Any) -> Any:
        return np.linalg.qr(x, name)

    return of


def upper_middle(x: Any) -> Any:
    return np.linalg.eigh(x, "M")


def projector_of_rest(x: Any) -> Any:
    q, r = np.linalg.qr(x, "complete")
    k = x.shape[-1]
    return q[..., k:] @ adjoint(q[..., k:]), q[..., :k], r


def thin(x: Any) -> Any:
    """Return what does not depend on the phases of singular vectors, and depends on each of the three outputs."""
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return (u * np.exp(-s[..., None, :])) @ vh, s, np.abs(u[..., 0, :]) ** 2, np.abs(vh[..., :, 1]) ** 2


def full(x: Any) -> Any:
    u, s, vh = np.linalg.svd(x)
    k = s.shape[-1]
    rest, other = u[..., k:], vh[..., k:, :]
    return (u[..., :k] * s[..., None, :] ** 2) @ vh[..., :k, :], rest @ adjoint(rest), adjoint(other) @ other


def left_only(x: Any) -> Any:
    u, _, _ = np.linalg.svd(x, full_matrices=False)
    return np.abs(u) ** 2


def right_only(x: Any) -> Any:
    _, _, vh = np.linalg.svd(x, full_matrices=False)
    return np.abs(vh) ** 2


def values_of_svd(x: Any) -> Any:
    return np.linalg.svd(x).S


def values_only(x: Any) -> Any:
    return np.linalg.svd(x, compute_uv=False)


def hermitian_svd(x: Any) -> Any:
    u, s, vh = np.linalg.svd(x, hermitian=True)
    return (u * np.sqrt(s)[..., None, :]) @ vh, s, np.linalg.svd(x, compute_uv=False, hermitian=True)


def function_of_hermitian(x: Any) -> Any:
    w, v = np.linalg.eigh(x)
    return (v * np.sin(w)[..., None, :]) @ adjoint(v), np.abs(v) ** 2, w


def upper_eigh(x: Any) -> Any:
    w, v = np.linalg.eigh(x, "U")
    return (v * np.exp(-w)[..., None, :]) @ adjoint(v), np.linalg.eigvalsh(x, UPLO="U")


def vectors_of_eigh(x: Any) -> Any:
    return np.abs(np.linalg.eigh(x).eigenvectors) ** 2


def values_of_eigh(x: Any) -> Any:
    return np.linalg.eigh(x).eigenvalues ** 2


def function_of_matrix(x: Any) -> Any:
    """Return what does not depend on the phases of eigenvectors, nor on the order of eigenvalues."""
    w, v = np.linalg.eig(x)
    return (v * np.exp(-w)[..., None, :]) @ np.linalg.inv(v), np.sum(np.abs(v) ** 2 * w[..., None, :], -1)


def vectors_of_eig(x: Any) -> Any:
    return np.sum(np.abs(np.linalg.eig(x).eigenvectors) ** 4, -1)


def values_of_eig(x: Any) -> Any:
    return np.sum(np.exp(np.linalg.eigvals(x)), -1), np.sum(np.linalg.eig(x)[0] ** 3, -1)


def at(
    name: str, function: Any, diagonal: list[float], shape: tuple[int, ...], dtypes: Any = ("f8", "c16")
) -> Case:
    """Return a case of matrices near a diagonal one."""
    return Case(name, function, [near(diagonal, shape)], dtypes=dtypes, exact=False)


DEFINITE, APART = [3.0, 2.5, 4.0], [1.0, -2.5, 4.0]
ROTATION = np.array([[0.5, -2.0, 0.1], [2.0, 0.5, 0.2], [0.1, 0.3, 3.0]])


def near_rotation(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[np.ndarray]:
    return ((ROTATION + rng.uniform(-0.2, 0.2, (2, 3, 3))).astype(dtype),)


CASES = [
    at("cholesky", np.linalg.cholesky, DEFINITE, (3, 3), ALL),
    at("cholesky stacked", np.linalg.cholesky, DEFINITE, (2, 2, 3, 3)),
    at("cholesky upper", upper_factor, DEFINITE, (2, 3, 3), ("f4", "c16")),
    at("qr", np.linalg.qr, APART, (3, 3), ALL),
    at("qr tall", np.linalg.qr, APART, (2, 5, 3)),
    at("qr wide", np.linalg.qr, APART, (2, 3, 5)),
    at("qr r", r_only, APART, (4, 3)),
    at("qr r wide", r_only, APART, (3, 4)),
    at("qr complete", projector_of_rest, APART, (2, 5, 3)),
    at("svd", thin, APART, (3, 3), ALL),
    at("svd tall", thin, APART, (2, 5, 3)),
    at("svd wide", thin, APART, (2, 3, 5)),
    at("svd full", full, APART, (5, 3)),
    at("svd full wide", full, APART, (2, 3, 5), ("f4", "c16")),
    at("svd left", left_only, APART, (4, 3)),
    at("svd right", right_only, APART, (3, 4)),
    at("svd values", values_of_svd, APART, (2, 5, 3)),
    at("svd values only", values_only, APART, (2, 5, 3)),
    at("svdvals", np.linalg.svdvals, APART, (3, 5), ALL),
    at("svd hermitian", hermitian_svd, APART, (2, 3, 3)),
    at("eigh", function_of_hermitian, APART, (3, 3), ALL),
    at("eigh stacked", function_of_hermitian, APART, (2, 2, 3, 3)),
    at("eigh upper", upper_eigh, APART, (2, 3, 3), ("f4", "c16")),
    at("eigh vectors", vectors_of_eigh, APART, (3, 3)),
    at("eigh values", values_of_eigh, APART, (3, 3)),
    at("eigvalsh", np.linalg.eigvalsh, APART, (2, 3, 3), ALL),
    at("eig", function_of_matrix, APART, (3, 3), ALL),
    at("eig stacked", function_of_matrix, APART, (2, 2, 3, 3)),
    Case("eig of complex pairs", function_of_matrix, near_rotation, dtypes=("f4", "f8"), exact=False),
    at("eig vectors", vectors_of_eig, APART, (3, 3)),
    at("eig values", values_of_eig, APART, (2, 3, 3)),
]

TestLaws = laws(CASES)


# Triangles ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "read"),
    [
        (np.linalg.cholesky, np.tril),
        (upper_factor, np.triu),
        (np.linalg.eigvalsh, np.tril),
        (upper_eigh, np.triu),
    ],
)
def test_the_cotangent_lies_in_the_triangle_that_is_read(function: Any, read: Any) -> None:
    x = near(DEFINITE, (3, 3))(np.random.default_rng(0), np.dtype("c16"))

    def loss(x: Any) -> Any:
        return sum(np.sum(np.abs(leaf)) for leaf in nbad.tree.leaves(function(x)))

    value, gradient = nbad.value_and_grad(loss)(x)
    np.testing.assert_array_equal(gradient, read(gradient))
    assert np.diagonal(gradient).imag.tolist() == [0.0, 0.0, 0.0]
    alone, of_triangle = nbad.value_and_grad(loss)(read(x))
    assert alone == value
    np.testing.assert_array_equal(of_triangle, gradient)


def test_a_symmetric_construction_has_the_gradient_that_it_has_elsewhere() -> None:
    # The derivative of log det(a a^T + 1) is 2 (a a^T + 1)^-1 a.
    a = np.random.default_rng(1).normal(size=(3, 3))

    def loss(a: Any) -> Any:
        return 2 * np.sum(np.log(np.diagonal(np.linalg.cholesky(a @ a.T + np.eye(3)))))

    np.testing.assert_allclose(
        nbad.grad(loss)(a), 2 * np.linalg.solve(a @ a.T + np.eye(3), a), rtol=1e-12, atol=1e-12
    )


# Degenerate cases ---------------------------------------------------------------------------------
def test_equal_eigenvalues_have_a_gradient_where_vectors_have_none() -> None:
    def values(x: Any) -> Any:
        return np.sum(np.linalg.eigvalsh(x) ** 2) + np.sum(np.linalg.eigh(x)[0])

    np.testing.assert_allclose(nbad.grad(values)(2 * np.eye(3)), 5 * np.eye(3), rtol=1e-14)

    def vectors(x: Any) -> Any:
        return np.sum(np.linalg.eigh(x)[1] ** 3)

    with pytest.warns(RuntimeWarning):
        assert not np.isfinite(nbad.grad(vectors)(2 * np.eye(3))).all()


@pytest.mark.parametrize("full", [True, False])
def test_equal_singular_values_have_a_gradient_where_vectors_have_none(full: bool) -> None:
    def values(x: Any) -> Any:
        return np.sum(np.linalg.svd(x, full_matrices=full).S ** 2)

    x = np.vstack([2 * np.eye(3), np.zeros((1, 3))])
    np.testing.assert_allclose(nbad.grad(values)(x), 2 * x, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(nbad.grad(values)(0 * x), 0 * x)

    def vectors(x: Any) -> Any:
        return np.sum(np.linalg.svd(x, full_matrices=full).U ** 3)

    with pytest.warns(RuntimeWarning):
        assert not np.isfinite(nbad.grad(vectors)(x)).all()


def test_a_singular_square_matrix_has_singular_vectors() -> None:
    # One singular value of 0 is no reason for infinity: the vectors still move smoothly.
    x = np.diag([3.0, 2.0, 0.0]) + np.array([[0, 0.1, 0], [0.2, 0, 0], [0, 0, 0]])
    check_adjoint(left_only, [x], (0,), TOLERANCE["f8"])


def test_qr_of_dependent_columns() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.linalg.qr(x)[1])

    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        nbad.grad(loss)(np.zeros((3, 2)))


def test_eigenvectors_turn_as_lapack_normalizes_them() -> None:
    x = near(APART, (3, 3))(np.random.default_rng(4), np.dtype("c16"))
    v = np.linalg.eig(x)[1]
    largest = v[np.argmax(np.abs(v), axis=0), np.arange(3)]
    assert largest.imag.tolist() == [0.0, 0.0, 0.0]

    def vectors(x: Any) -> Any:
        return np.linalg.eig(x).eigenvectors

    check_adjoint(vectors, [x], (0,), TOLERANCE["c16"])


# What is kept, and what is done -------------------------------------------------------------------
KEPT: list[tuple[Any, int, int]] = [
    (np.linalg.cholesky, 9, 0),
    (np.linalg.qr, 18, 0),
    (values_of_svd, 9 + 3 + 9, 0),
    (np.linalg.svdvals, 0, 9),
    (np.linalg.eigvalsh, 0, 9),
    (np.linalg.eigh, 12, 0),
]


@pytest.mark.parametrize(("function", "kept", "borrowed"), KEPT)
def test_only_the_factors_are_kept(function: Any, kept: int, borrowed: int) -> None:
    x = near(DEFINITE, (3, 3))(np.random.default_rng(0), np.dtype("f8"))
    assert_only(function, x, kept=8 * kept, borrowed=8 * borrowed, pullbacks=1)


class Counted(np.ndarray):
    """An array that counts the matrix products it takes part in."""

    made = 0

    def __matmul__(self, other: Any) -> Any:
        Counted.made += 1
        return np.matmul(self.view(np.ndarray), np.asarray(other)).view(Counted)


def test_singular_values_alone_do_no_work_for_the_vectors() -> None:
    x = near(APART, (5, 3))(np.random.default_rng(0), np.dtype("f8"))
    y = tuple(part.view(Counted) for part in np.linalg.svd(x, False))
    made = []
    for asked in ((1,), (0, 1), (1, 2), (0, 1, 2)):
        Counted.made = 0
        svd_x(tuple(np.ones_like(y[i]) if i in asked else None for i in range(3)), y)
        made.append(Counted.made)
    # Minimum for the values: U diag(g) V^H.
    assert made == [1, 5, 3, 6]


# What NumPy's functions give ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "function", [np.linalg.eigh, np.linalg.eig, np.linalg.svd, np.linalg.qr, np.linalg.slogdet]
)
def test_results_have_names(function: Any) -> None:
    seen = []

    def loss(x: Any) -> Any:
        found = function(x)
        seen.append((type(found), found._fields))
        return np.sum(np.abs(found[1]))

    x = np.diag([1.0, 2.0, 4.0])
    nbad.grad(loss)(x)
    assert seen == [(type(function(x)), function(x)._fields)]


def test_the_rank_of_a_constant_is_a_plain_integer() -> None:
    def loss(x: Any) -> Any:
        rank = np.linalg.matrix_rank(nbad.stop_gradient(x))
        return rank * np.sum(x)

    x = np.diag([1.0, 2.0, 0.0])
    for function in (loss, nbad.compile(loss)):
        for scale, rank in ((1.0, 2.0), (0.0, 0.0)):
            assert nbad.grad(function)(scale * x).tolist() == np.full((3, 3), rank).tolist()


@pytest.mark.filterwarnings("ignore:loss")
@pytest.mark.parametrize("wrap", [lambda f: f, nbad.compile])
def test_the_rank_is_refused_where_a_derivative_would_be_lost(wrap: Any) -> None:
    @wrap
    def loss(x: Any) -> Any:
        return np.linalg.matrix_rank(x @ x.T) * np.sum(x)

    # What cannot be recorded is called as it is, with a warning.
    with pytest.raises(NoRuleError, match=r"(?s)matrix_rank has no rule.*stop_gradient\(a\)"):
        nbad.grad(loss)(np.eye(3))
    assert loss(np.eye(3)) == 9.0


@pytest.mark.parametrize(
    ("error", "match", "function"),
    [
        (np.linalg.LinAlgError, "must be square", np.linalg.eigh),
        (np.linalg.LinAlgError, "must be square", np.linalg.eigvals),
        (np.linalg.LinAlgError, "must be square", np.linalg.cholesky),
        (ValueError, "UPLO", upper_middle),
        (ValueError, "Unrecognized mode 'q'", mode("q")),
        (NoRuleError, "mode='raw'.*\n.*\n.*Use mode='reduced'", mode("raw")),
    ],
)
def test_what_is_wrong_or_has_no_rule(error: type[Exception], match: str, function: Any) -> None:
    with pytest.raises(error, match=match):
        nbad.vjp(function, np.ones((2, 3)) if error is np.linalg.LinAlgError else np.eye(3))


def test_a_matrix_that_is_not_definite() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        nbad.vjp(np.linalg.cholesky, -np.eye(2))
