"""Patterns: nothing that is not zero may be missing, for any operation; and what is said to be exact is."""

from typing import Any

import numpy as np
import pytest
from cases import all_cases
from laws import Case

import nbad
from nbad import sparsity, tree
from nbad.errors import InputTypeError
from nbad.recorded import Recorded, has_derivative
from nbad.sparsity import pattern_of

pytest.importorskip("scipy")


def dependence(run: Recorded, rng: np.random.Generator, most: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows, and for each of these which numbers of the leaves have a derivative other than zero."""
    sizes = [np.size(leaf) for leaf in run.outputs]
    chosen = np.sort(rng.permutation(sum(sizes))[:most])
    starts = np.cumsum([0, *sizes])
    found = []
    for row in chosen:
        i = int(np.searchsorted(starts, row, side="right")) - 1
        unit = np.zeros(np.shape(run.outputs[i]), np.result_type(run.outputs[i]))
        unit.flat[row - starts[i]] = 1
        parts = [run.pull({i: unit}, list(range(len(run.listed))))]
        if unit.dtype.kind == "c":
            parts.append(run.pull({i: 1j * unit}, list(range(len(run.listed)))))
        found.append(sum(np.concatenate([np.abs(np.ravel(x)) for x in part]) for part in parts))
    width = sum(np.size(leaf.value) for leaf in run.listed)
    return chosen, np.array(found).reshape(len(found), width)


def check(run: Recorded) -> None:
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        pattern = pattern_of(run)
        rows, sizes = dependence(run, rng)
    assert pattern.dtype == bool
    small = np.finfo(sizes.dtype).eps * 1e4 * np.nan_to_num(sizes).max(initial=0.0)
    missing = (sizes > small) & ~pattern[rows].toarray()
    assert not missing.any(), np.argwhere(missing)


@pytest.mark.parametrize(("case", "dtype"), all_cases())
def test_nothing_is_missing_from_a_pattern(case: Case, dtype: str) -> None:
    args, wrt = case.draw(dtype)
    places = tuple((k,) for k in wrt)
    run = Recorded("pattern", case.function, tuple(args), {}, places)
    check(run)

    def gradient(*args: Any) -> Any:  # its tape holds the operations of sweeps
        value, pullback = nbad.vjp(case.function, *args, wrt=places)
        weights = [
            np.cos(np.arange(np.size(leaf))).reshape(np.shape(leaf)) if has_derivative(leaf) else leaf
            for leaf in tree.leaves(value)
        ]
        return pullback(tree.rebuild(value, weights))

    if "second" not in case.off:
        check(Recorded("pattern", gradient, tuple(args), {}, places))


X = np.linspace(0.5, 1.5, 6)
M = np.linspace(0.5, 2.0, 12).reshape(3, 4)
A = np.random.default_rng(0).normal(size=(4, 4)) + 4 * np.eye(4)

EXACT = [
    (np.sin, X),
    (lambda x: x[1:] * x[:-1], X),
    (lambda x: x[::-2] + 1.0, X),
    (lambda x: np.concatenate([x, 2 * x[2:4]]), X),
    (lambda x: np.stack([x, x[::-1]], 1) * x[0], X),
    (lambda x: x.reshape(2, 3).T, X),
    (lambda x: np.sum(x.reshape(2, 3), axis=0), X),
    (lambda x: np.prod(x, axis=-1, keepdims=True), M),
    (lambda x: np.max(x, axis=0), M[:1]),
    (lambda x: np.mean(x, axis=(0, 1)), M),
    (lambda x: np.cumsum(x, axis=1), M),
    (lambda x: x[np.array([3, 0, 0])], X),
    (lambda x: x[x > 1.0] ** 2, X),
    (lambda x: np.sort(x)[:2], X),
    (lambda x: np.broadcast_to(x[:, None], (6, 2)), X),
    (lambda x: np.tile(x, 2) * np.repeat(x, 2), X),
    (lambda x: np.pad(x, 2)[1:], X),
    (lambda x: np.roll(x, 2) - x, X),
    (lambda x: np.diagonal(x) * 1.0, M),
    (np.diag, X),
    (lambda x: x @ np.ones((4, 2)), M),
    (lambda x: np.ones((2, 3)) @ x, M),
    (lambda x: x @ x[0], M),
    (lambda x: np.einsum("ij,kj->ik", x, np.ones((2, 4))), M),
    (lambda x: np.einsum("ij->ji", x), M),
    (lambda x: np.tensordot(x, np.ones((3, 2)), axes=((0,), (0,))), M),
    (lambda x: np.multiply.outer(x[0], x[1]), M),
    (lambda x: np.fft.fft(x, axis=1), M),
    (lambda x: nbad.convolve(x, np.array([1.0, 2.0])), X),
    (lambda x: nbad.convolve(x, np.array([1.0, 2.0, 1.0]), mode="same"), X),
    (lambda x: nbad.convolve(x, np.array([1.0, 2.0, 3.0]), mode="wrap"), X),
    (lambda x: nbad.correlate(x, np.array([1.0, 2.0, 3.0]), mode="valid"), X),
    (lambda x: nbad.correlate(np.ones(4), x, mode="full"), X),
    (lambda x: nbad.convolve(x, np.ones((2, 2)), mode="same"), M),
    (lambda x: nbad.convolve(x, np.ones((1, 2)), axes=(1,)), M),
    (lambda x: nbad.patches(x, np.array([[0], [2]]), (3,)), X),
    (lambda x: np.linalg.norm(x, axis=1), M),
    (lambda x: np.linalg.det(np.stack([x[:2, :2], x[1:, 2:]]) + np.eye(2) * 3), M),
]


@pytest.mark.parametrize(("f", "x"), EXACT)
def test_patterns_of_listed_operations_are_exact(f: Any, x: np.ndarray) -> None:
    run = Recorded("pattern", f, (x,), {}, 0)
    rows, sizes = dependence(run, np.random.default_rng(0), most=10**6)
    np.testing.assert_array_equal(pattern_of(run).toarray()[rows], sizes > 1e-12)


def test_writes_in_place_are_exact() -> None:
    def f(x: Any) -> Any:
        y = np.zeros_like(x)
        y[1:] = x[:-1]
        y[0] = x[5]
        y[2:4] += x[0]
        y[np.array([4, 5])] = x[1]
        return y

    run = Recorded("pattern", f, (X,), {}, 0)
    rows, sizes = dependence(run, np.random.default_rng(0))
    np.testing.assert_array_equal(pattern_of(run).toarray()[rows], sizes > 0)


def test_what_is_not_listed_depends_on_everything() -> None:
    def solve_g(g: Any, y: Any) -> Any:
        return g * y

    @nbad.primitive(x=solve_g)
    def strange(x):
        return np.exp(x)

    run = Recorded("pattern", lambda x: strange(x[:3]), (X,), {}, 0)
    expected = np.zeros((3, 6), bool)
    expected[:, :3] = True
    np.testing.assert_array_equal(pattern_of(run).toarray(), expected)


def test_a_pattern_too_large_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsity, "LIMIT", 1000)
    with pytest.raises(InputTypeError, match=r"after r2c_full.*\n.*test_sparsity.*fft.*\n.*linearize"):
        nbad.jacobian(lambda x: np.abs(np.fft.ifft(np.fft.fft(x))) ** 2, sparse=True)(np.ones(40))
