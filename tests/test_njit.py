"""Kernels: functions that numba compiled, differentiated as they are."""

import math
from collections import namedtuple
from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.errors import InputTypeError

Weights = namedtuple("Weights", "scale shift")


@numba.njit
def rosenbrock(x):
    total = 0.0
    for i in range(x.size - 1):
        total += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
        if x[i] > 0.5:
            total += math.sin(x[i])
    return total


@numba.njit
def squared(a):
    return a * a


@numba.njit
def fill(out, x, w):
    for i in range(x.size):
        out[i] = squared(x[i]) * w[i]


@numba.njit
def through_helpers(x, w):
    y = np.zeros(x.size)
    fill(y, x, w)
    z = w.copy()
    z[0] += x[0]
    total = 0.0
    for i in range(y.size):
        total += y[i] * z[i] + np.exp(-x[i])
    first = (x[0], w[0], total)
    while total > 10.0:
        total *= 0.5
    return total + first[0] * first[2]


@numba.njit
def into_buffer(x, out):
    out[0] = x * x
    out[1] = out[0] * x
    return out[0] + out[1]


@numba.njit
def power(n, x):
    if n <= 0:
        return x * 0.0 + 1.0
    return x * power(n - 1, x)


@numba.njit
def filtered(x, weights):
    y = np.zeros(x.size)
    total = 0.0
    for i in range(x.size):
        y[i] = math.sin(x[i] * weights.scale) + weights.shift
        total += y[i] ** 2 * x[0]
    return total, y


def filtered_plainly(x, weights):
    y = np.sin(x * weights.scale) + weights.shift
    return np.sum(y**2) * x[0], y


RNG = np.random.default_rng(0)
X = RNG.random(5)
W = RNG.random(5)


def copied(args: Any) -> Any:
    return [a.copy() if isinstance(a, np.ndarray) else a for a in args]


def difference(kernel: Any, args: Any, k: int, step: float = 1e-6) -> np.ndarray:
    """Central differences in argument `k`."""
    x = np.asarray(args[k], float)
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * step
            given = copied(args)
            given[k] = moved if isinstance(args[k], np.ndarray) else float(moved)
            values.append(kernel(*given))
        found[place] = (values[0] - values[1]) / (2 * step)
    return found


CASES = [
    (rosenbrock, (X,), (0,)),
    (through_helpers, (X, W), (0, 1)),
    (into_buffer, (1.5, np.zeros(2)), (0,)),
    (power, (5, 1.3), (1,)),
]


@pytest.mark.parametrize(("kernel", "args", "asked"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_the_gradient_agrees_with_differences(kernel: Any, args: Any, asked: Any) -> None:
    for k in asked:
        value, gradient = nbad.value_and_grad(kernel, k)(*copied(args))
        assert value == kernel(*copied(args))
        np.testing.assert_allclose(gradient, difference(kernel, args, k), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrt", [0, 1, (0, 1), "weights.shift"])
def test_a_kernel_in_array_code_is_an_operation_of_every_order(wrt: Any) -> None:
    weights = Weights(1.2, 0.7)
    kernel = nbad.njit(filtered)

    def loss(x: Any, weights: Any) -> Any:
        return kernel(2 * x, weights)[0] + np.sum(kernel(x, weights)[1] ** 3)

    def plain(x: Any, weights: Any) -> Any:
        return filtered_plainly(2 * x, weights)[0] + np.sum(filtered_plainly(x, weights)[1] ** 3)

    def third(function: Any) -> Any:
        def squares(x: Any, weights: Any) -> Any:
            return np.sum(nbad.hvp(function)(x, weights, x) ** 2)

        return nbad.grad(squares, wrt)(X, weights)

    for found, expected in (
        (nbad.grad(loss, wrt)(X, weights), nbad.grad(plain, wrt)(X, weights)),
        (nbad.grad(nbad.compile(loss), wrt)(X, weights), nbad.grad(plain, wrt)(X, weights)),
        (third(loss), third(plain)),
    ):
        np.testing.assert_allclose(nbad.ravel(found)[0], nbad.ravel(expected)[0], rtol=1e-9)


def test_entries_are_written_for_what_is_asked_for_only() -> None:
    """One entry for each element of y, and one for each step of the sum; the scale alone moves as much, the shift less."""
    weights = Weights(1.2, 0.7)
    counts = {}
    for wrt in ("x", "weights.shift"):
        with nbad.report() as account:
            nbad.grad(lambda x, weights: nbad.njit(filtered)(x, weights)[0], wrt)(X, weights)
        counts[wrt] = account.entries
    assert counts == {"x": 2 * X.size, "weights.shift": X.size}


def test_a_replayed_gradient_runs_the_kernel_once() -> None:
    """One run that writes the tape, and one sweep; the value alone writes none."""
    calls = []
    compiled = nbad.compile(lambda x: nbad.njit(rosenbrock)(2 * x))
    for k in range(5):
        x = X + 0.1 * k
        with nbad.report() as account:
            value, gradient = nbad.value_and_grad(compiled)(x)
        calls.append(account.entries)
        assert value == rosenbrock(2 * x)
        np.testing.assert_allclose(gradient, nbad.grad(rosenbrock)(2 * x) * 2, rtol=1e-12)
    with nbad.report() as account:
        nbad.grad(rosenbrock)(2 * x)
    assert calls[-1] == account.entries
    for _ in range(2):
        compiled(X)
    with nbad.report() as account:
        assert compiled(X + 1) == rosenbrock(2 * (X + 1))
    assert account.entries == 0
    np.testing.assert_allclose(nbad.grad(compiled)(X), nbad.grad(rosenbrock)(2 * X) * 2, rtol=1e-12)


@numba.njit
def tail(a):
    return a[1:]


@numba.njit
def two(n):
    return np.zeros(n), np.ones(n)


@numba.njit
def either(a, first):
    if first:
        return a
    return np.zeros(3)


@numba.njit
def everywhere(x):
    y = np.zeros(5)
    tail(y)[0] = x[0] * x[1]
    a, b = two(3)
    b[0] = y[1]
    a[1] += b[0]
    grid = np.zeros((2, 2))
    for row in grid:
        row[0] = x[0] * (x[0] + x[1])
    arrays = [np.zeros(2), np.zeros(2)]
    arrays[1][0] = x[1]
    part = y
    for i in range(2):
        part = y[i + 2 :]
        part[0] = x[i] * (x[0] + x[1])
    fill(x=x, w=grid[:, 0], out=part)
    return y[1] * (x[0] + x[1]) + a[1] * b[0] + b[1] + grid[0, 0] * grid[1, 0] * arrays[1][0] + y[2] * y[3]


@numba.njit
def ambiguous(x):
    y = np.zeros(3)
    u = either(y, x[0] > 5)
    u[0] = x[0]
    return y[0] + u[0]


def test_writes_reach_the_array_that_a_view_is_of() -> None:
    x = np.array([1.5, 2.0])
    value, gradient = nbad.value_and_grad(everywhere)(x)
    assert value == everywhere(x)
    np.testing.assert_allclose(gradient, difference(everywhere, (x,), 0), rtol=1e-6)


def test_an_array_that_may_be_a_view_or_new_is_refused() -> None:
    with pytest.raises(nbad.NoRuleError, match="either returned") as caught:
        nbad.grad(ambiguous)(np.ones(3))
    assert "u = either(y, x[0] > 5)" in str(caught.value)


@numba.njit
def near_pairs(position, cutoff):
    energy = 0.0
    for i in range(position.shape[0]):
        for j in range(i):
            dx = position[i, 0] - position[j, 0]
            dy = position[i, 1] - position[j, 1]
            dz = position[i, 2] - position[j, 2]
            square = dx * dx + dy * dy + dz * dz
            if square < cutoff * cutoff:
                sixth = 1.0 / square**3
                energy += 4.0 * (sixth * sixth - sixth)
    return energy


def test_pairs_of_atoms_beyond_the_cutoff_write_no_entries() -> None:
    """One entry for the energy and one for `sixth`, which two statements read; a comparison does not read."""
    position = 2.0 * np.random.default_rng(1).random((12, 3))
    square = np.sum((position[:, None] - position) ** 2, axis=2)
    with nbad.report() as account:
        found = nbad.grad(near_pairs)(position, 1.0)
    near = np.argwhere((square < 1) & (square > 0))
    pulls = 24 * (1 / square[*near.T] ** 4 - 2 / square[*near.T] ** 7)
    expected = np.zeros_like(position)
    for (i, j), pull in zip(near, pulls, strict=True):
        expected[i] += pull * (position[i] - position[j])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert account.entries == len(near)


@numba.njit
def to_the_power(x, p):
    return x**p


def test_an_exponent_of_zero_has_a_mixed_second_derivative() -> None:
    """Of x**p in x and p: x**(p - 1) * (1 + p * log(x)), which is 1 / x at p = 0."""
    along = nbad.hvp(to_the_power, (0, 1))(2.0, 0.0, (0.0, 1.0))
    np.testing.assert_allclose(along, (0.5, math.log(2.0) ** 2), rtol=1e-14)
    for x in (0.0, 1e-310, 3.0):
        assert nbad.grad(to_the_power)(x, 0.0) == 0.0


Labelled = namedtuple("Labelled", "value labels")


@numba.njit
def labelled(x, k):
    return Labelled(x[0] * x[1], np.full(40, k))


def test_an_array_in_a_returned_named_tuple_is_freed_once() -> None:
    x = np.array([2.0, 3.0])
    held = [nbad.vjp(labelled, x, float(k), wrt=0)[0].labels for k in range(50)]
    for k, labels in enumerate(held):
        np.testing.assert_array_equal(labels, np.full(40, float(k)))


@pytest.mark.parametrize(
    "unfit", [np.ma.masked_array([1.0, 2.0], [False, True]), np.ones((1, 2)).view(np.matrix)]
)
def test_a_mask_is_not_ignored_once_a_kernel_is_compiled_for_arrays(unfit) -> None:
    x = np.array([2.0, 3.0])
    assert nbad.grad(dotted)(x, x).tolist() == [2.0, 3.0]
    for call in (nbad.grad(dotted), nbad.grad(lambda x, w: nbad.njit(dotted)(2 * x, w))):
        with pytest.raises(InputTypeError, match=r"masked array|np\.matrix"):
            call(x, unfit)


@numba.njit
def dotted(x, w):
    total = 0.0
    for i in range(x.size):
        total += x[i] * w[i]
    return total


def test_compile_takes_a_kernel() -> None:
    f = nbad.compile(dotted)
    for k in range(1, 4):
        x, w = np.array([2.0, 3.0]) * k, np.array([1.0, 5.0]) * k
        value, gradient = nbad.value_and_grad(f)(x, w)
        assert value == 17.0 * k * k
        np.testing.assert_array_equal(gradient, w)
    assert f.report().recordings == 1


factor = 2.0


@numba.njit
def scaled_sum(x):
    return factor * (x[0] + math.log2(x[1]))


def test_recompile_reaches_a_kernel_that_was_differentiated_before_it_was_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(nbad.grad(scaled_sum)(x), [2.0, 2.0 / (2.0 * math.log(2.0))])
    monkeypatch.setitem(globals(), "factor", 10.0)
    assert scaled_sum(x) == 20.0  # numba compiles it with the globals of now
    np.testing.assert_allclose(nbad.grad(scaled_sum)(x), [10.0, 10.0 / (2.0 * math.log(2.0))])
    monkeypatch.setitem(globals(), "factor", 3.0)
    scaled_sum.recompile()
    np.testing.assert_allclose(nbad.grad(scaled_sum)(x), [3.0, 3.0 / (2.0 * math.log(2.0))])
