"""Inverses and linear equations: laws, singular matrices, work done for each operand, NumPy's own errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from laws import COMPLEX, REAL, Case, laws

ALL = REAL + COMPLEX


def regular(shape: tuple[int, ...], spread: float = 0.4) -> Callable[..., np.ndarray]:
    """Return an argument: matrices that are small numbers around 1.5, -2 and 2.5 on the diagonal, in turn."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        x = rng.uniform(-spread, spread, shape)
        if dtype.kind == "c":
            x = x + 1j * rng.uniform(-spread, spread, shape)
        for i in range(min(shape[-2:])):
            x[..., i, i] += [1.5, -2.0, 2.5][i % 3]
        return np.asarray(x).astype(dtype)

    return draw


def lacking(shape: tuple[int, ...]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return arguments of two factors: their product, of `shape`, has rank 2."""

    def draw(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        m, n = shape[-2:]
        return regular((*shape[:-2], m, 2))(rng, dtype), regular((*shape[:-2], 2, n))(rng, dtype)

    return draw


def cut_pinv(a: Any, b: Any) -> Any:
    return np.linalg.pinv(a @ b, rtol=1e-4)


def hermitian_pinv(x: Any) -> Any:
    return np.linalg.pinv(x, hermitian=True)


def least_squares(a: Any, b: Any) -> Any:
    x, left, _, s = np.linalg.lstsq(a, b)
    return x, left, s


def lacking_least_squares(a: Any, b: Any, c: Any) -> Any:
    return np.linalg.lstsq(a @ b, c, rcond=1e-4)[0]


def left_over(a: Any, b: Any) -> Any:
    return np.linalg.lstsq(a, b)[1]


def power(n: int) -> Callable[[Any], Any]:
    """Return ``np.linalg.matrix_power`` with an exponent."""

    def of(x: Any) -> Any:
        return np.linalg.matrix_power(x, n)

    return of


def solved(name: str, a: tuple[int, ...], b: tuple[int, ...], dtypes: Any = ("f8", "c16")) -> Case:
    return Case(name, np.linalg.solve, [regular(a), (b, -1.0, 1.0)], dtypes=dtypes)


def made(
    name: str, function: Any, shape: tuple[int, ...], dtypes: Any = ("f8", "c16"), **options: Any
) -> Case:
    return Case(name, function, [regular(shape)], dtypes=dtypes, **options)


def phase(x: Any) -> Any:
    return np.linalg.slogdet(x).sign


def modulus(x: Any) -> Any:
    return np.linalg.slogdet(x).logabsdet


def tensor_inverse(x: Any) -> Any:
    return np.linalg.tensorinv(np.reshape(x, (2, 3, 6)), 2), np.linalg.tensorinv(np.reshape(x, (6, 3, 2)), 1)


def tensor_solution(x: Any, b: Any) -> Any:
    return np.linalg.tensorsolve(np.reshape(x, (3, 2, 3, 2)), b)


def tensor_solution_of_axes(x: Any, b: Any) -> Any:
    x = np.transpose(np.reshape(x, (3, 2, 3, 2)), (2, 0, 3, 1))
    return np.linalg.tensorsolve(x, b, axes=(0, 2))


CASES = [
    made("inv", np.linalg.inv, (3, 3), ALL),
    made("inv stacked", np.linalg.inv, (2, 2, 3, 3)),
    solved("solve", (3, 3), (3, 2), ALL),
    solved("solve vector", (3, 3), (3,), ALL),
    solved("solve stacked", (2, 3, 3), (2, 3, 1)),
    solved("solve vector of a stack", (2, 3, 3), (3,)),
    solved("solve with one matrix", (3, 3), (2, 2, 3, 4)),
    solved("solve spread", (2, 1, 3, 3), (4, 3, 2)),
    made("det", np.linalg.det, (3, 3), ALL),
    made("det stacked", np.linalg.det, (2, 2, 3, 3)),
    made("slogdet", np.linalg.slogdet, (3, 3), ALL),
    made("slogdet stacked", np.linalg.slogdet, (2, 3, 3)),
    made("slogdet sign", phase, (3, 3), ("c16",)),
    made("slogdet modulus", modulus, (2, 3, 3)),
    made("pinv", np.linalg.pinv, (3, 3), ALL, exact=False),
    made("pinv tall", np.linalg.pinv, (2, 4, 3), exact=False),
    made("pinv wide", np.linalg.pinv, (3, 4), exact=False),
    made("pinv hermitian", hermitian_pinv, (2, 3, 3), exact=False),
    Case("pinv of rank 2", cut_pinv, lacking((2, 4, 3)), dtypes=("f8", "c16"), exact=False),
    Case("lstsq", least_squares, [regular((5, 3)), ((5, 2), -1.0, 1.0)], complex_ok=True, exact=False),
    Case(
        "lstsq vector", least_squares, [regular((5, 3)), ((5,), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False
    ),
    Case(
        "lstsq wide", least_squares, [regular((3, 5)), ((3, 2), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False
    ),
    Case("lstsq left", left_over, [regular((5, 3)), ((5, 2), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False),
    Case(
        "lstsq of rank 2",
        lacking_least_squares,
        [regular((4, 2)), regular((2, 3)), ((4, 2), -1.0, 1.0)],
        dtypes=("f8", "c16"),
        exact=False,
    ),
    *(made(f"matrix_power {n}", power(n), (2, 3, 3), ("f4", "c16")) for n in (2, 3, 4, 5, 6, -1, -3)),
    made("tensorinv", tensor_inverse, (6, 6)),
    Case("tensorsolve", tensor_solution, [regular((6, 6)), ((3, 2), -1.0, 1.0)], dtypes=("f8", "c16")),
    Case("tensorsolve axes", tensor_solution_of_axes, [regular((6, 6)), ((3, 2), -1.0, 1.0)], dtypes=("f8",)),
]

TestLaws = laws(CASES)
