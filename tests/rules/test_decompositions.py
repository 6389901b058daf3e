"""Decompositions of matrices: laws of what does not depend on a choice of vectors, triangles, degenerate cases, work done."""

from collections.abc import Callable
from typing import Any

import numpy as np
from laws import COMPLEX, REAL, Case, laws

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
