"""Loops written by hand with numba: the best that one gets for one formula at a time, without any differentiation.

Owns the competitors that need jitted code. Each computes value and gradient in as few passes over memory as the formula
allows, on all threads, with sums in any order (``fastmath``); exp, sin, log1p and tanh are those of the mathematical
library, one element at a time, since numba's packages from PyPI come without vector mathematics. Import it after
``_bench.prepare()``, for numba reads its number of threads when it is imported.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

Array = Any

PARTS = 16
"""Parts that a loop is cut into; more than threads, so that a thread that was held up does not hold up the other."""


@numba.njit(parallel=True, fastmath=True)
def smooth(x: Array, gradient: Array, one: Any, two: Any, three: Any) -> float:
    """Return ``sum(exp(-x*x)*sin(3*x) + log1p(x*x))``; the numbers come in the array's dtype, else float32 is widened."""
    total = 0.0
    for i in numba.prange(x.size):
        t = x[i]
        square = t * t
        e, s, c = np.exp(-square), np.sin(three * t), np.cos(three * t)
        total += e * s + np.log1p(square)
        gradient[i] = e * (three * c - two * t * s) + two * t / (square + one)
    return total


@numba.njit(fastmath=True)
def _rosenbrock_part(before: Array, here: Array, after: Array, gradient: Array) -> float:
    """Elements that have a neighbour on both sides; views instead of indices, so that the loop has no checks."""
    total = 0.0
    for i in range(here.size):
        x = here[i]
        r = after[i] - x * x
        one_minus = 1.0 - x
        total += 100.0 * r * r + one_minus * one_minus
        gradient[i] = 200.0 * (x - before[i] * before[i]) - 400.0 * x * r - 2.0 * one_minus
    return total


@numba.njit(parallel=True, fastmath=True)
def rosenbrock(x: Array, gradient: Array) -> float:
    """Return ``sum(100*(x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2)``: one pass."""
    n = x.size
    r = x[1] - x[0] * x[0]
    total = 100.0 * r * r + (1.0 - x[0]) * (1.0 - x[0])
    gradient[0] = -400.0 * x[0] * r - 2.0 * (1.0 - x[0])
    gradient[n - 1] = 200.0 * (x[n - 1] - x[n - 2] * x[n - 2])
    for part in numba.prange(PARTS):
        low, high = 1 + part * (n - 2) // PARTS, 1 + (part + 1) * (n - 2) // PARTS
        total += _rosenbrock_part(
            x[low - 1 : high - 1], x[low:high], x[low + 1 : high + 1], gradient[low:high]
        )
    return total


@numba.njit(fastmath=True)
def _logistic_part(w: Array, x: Array, y: Array, gradient: Array, scale: float) -> float:
    """Four rows at a time: w and the gradient are read once for four."""
    total = 0.0
    for k in range(0, y.size, 4):
        row_0, row_1, row_2, row_3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        z_0 = z_1 = z_2 = z_3 = 0.0
        for j in range(w.size):
            z_0 += row_0[j] * w[j]
            z_1 += row_1[j] * w[j]
            z_2 += row_2[j] * w[j]
            z_3 += row_3[j] * w[j]
        loss_0, c_0 = _softplus(-y[k] * z_0)
        loss_1, c_1 = _softplus(-y[k + 1] * z_1)
        loss_2, c_2 = _softplus(-y[k + 2] * z_2)
        loss_3, c_3 = _softplus(-y[k + 3] * z_3)
        total += (loss_0 + loss_1) + (loss_2 + loss_3)
        c_0, c_1, c_2, c_3 = (
            -scale * y[k] * c_0,
            -scale * y[k + 1] * c_1,
            -scale * y[k + 2] * c_2,
            -scale * y[k + 3] * c_3,
        )
        for j in range(w.size):
            gradient[j] += (c_0 * row_0[j] + c_1 * row_1[j]) + (c_2 * row_2[j] + c_3 * row_3[j])
    return total


@numba.njit(fastmath=True, inline="always")
def _softplus(t: float) -> tuple[float, float]:
    """Return log(1 + exp(t)) and its derivative from one exponential."""
    e = np.exp(-abs(t))
    inverse = 1.0 / (1.0 + e)
    return max(t, 0.0) + np.log1p(e), inverse if t >= 0.0 else e * inverse


@numba.njit(parallel=True, fastmath=True)
def logistic(w: Array, x: Array, y: Array, penalty: float, gradient: Array) -> float:
    """Return ``mean(logaddexp(0, -y*(x @ w))) + penalty/2*(w @ w)``: x, of rows by four, is read once."""
    rows, columns = x.shape
    sums = np.zeros((PARTS, columns))
    total = 0.0
    for part in numba.prange(PARTS):
        low, high = part * (rows // 4) // PARTS * 4, (part + 1) * (rows // 4) // PARTS * 4
        total += _logistic_part(w, x[low:high], y[low:high], sums[part], 1.0 / rows)
    squares = 0.0
    for j in range(columns):
        value = penalty * w[j]
        for part in range(PARTS):
            value += sums[part, j]
        gradient[j] = value
        squares += w[j] * w[j]
    return total / rows + 0.5 * penalty * squares


@numba.njit(fastmath=True)
def _variation_row(here: Array, right: Array, below: Array, down: Array, across: Array, eps: float) -> float:
    """One row of differences over their length; `across` begins at its second element."""
    total = 0.0
    for j in range(right.size):
        a = below[j] - here[j]
        b = right[j] - here[j]
        length = np.sqrt(a * a + b * b + eps)
        inverse = 1.0 / length
        total += length
        down[j] = a * inverse
        across[j] = b * inverse
    return total


@numba.njit(fastmath=True)
def _variation_gradient(above: Array, down: Array, left: Array, across: Array, gradient: Array) -> None:
    for j in range(gradient.size):
        gradient[j] = (above[j] - down[j]) + (left[j] - across[j])


@numba.njit(parallel=True, fastmath=True)
def variation(u: Array, eps: float, gradient: Array) -> float:
    """Return ``sum(sqrt(dx**2 + dy**2 + eps))`` of forward differences: one pass, two rows of differences in cache."""
    rows, columns = u.shape
    total = 0.0
    for part in numba.prange(PARTS):
        low, high = part * rows // PARTS, (part + 1) * rows // PARTS
        down = np.zeros((2, columns))
        across = np.zeros(columns + 1)  # nothing stands to the left of the first
        if low > 0:
            _variation_row(u[low - 1], u[low - 1, 1:], u[low], down[(low - 1) % 2], across[1:], eps)
        for i in range(low, high):
            now, last = down[i % 2], down[(i - 1) % 2]
            if i < rows - 1:
                total += _variation_row(u[i], u[i, 1:], u[i + 1], now, across[1:], eps)
            else:
                now[:] = 0.0
                across[:] = 0.0
            _variation_gradient(last, now, across[:-1], across[1:], gradient[i])
    return total


@numba.njit(nogil=True, fastmath=True)
def _add_and_tanh(h: Array, bias: Array) -> None:
    for i in range(h.shape[0]):
        for j in range(bias.size):
            h[i, j] = np.tanh(h[i, j] + bias[j])


@numba.njit(fastmath=True)
def _through_tanh(g: Array, h: Array, sums: Array) -> None:
    """Multiply g by 1 - h**2 and sum its rows."""
    sums[:] = 0.0
    for i in range(g.shape[0]):
        for j in range(sums.size):
            value = g[i, j] * (1.0 - h[i, j] * h[i, j])
            g[i, j] = value
            sums[j] += value


@numba.njit(fastmath=True)
def _cross_entropy(z: Array, bias: Array, labels: Array, sums: Array) -> float:
    """Return the mean cross-entropy of ``softmax(z + bias)``; z becomes its gradient."""
    total = 0.0
    sums[:] = 0.0
    scale = 1.0 / z.shape[0]
    for i in range(z.shape[0]):
        top = -np.inf
        for j in range(bias.size):
            z[i, j] += bias[j]
            total -= labels[i, j] * z[i, j]
            top = max(top, z[i, j])
        weight = 0.0
        for j in range(bias.size):
            weight += np.exp(z[i, j] - top)
        total += top + np.log(weight)
        for j in range(bias.size):
            value = (np.exp(z[i, j] - top) / weight - labels[i, j]) * scale
            z[i, j] = value
            sums[j] += value
    return total * scale


def network(weights: dict[str, Array], x: Array, labels: Array) -> Callable[[], Any]:
    """Return a call for value and gradients, with the hidden layers in memory that is kept between calls.

    The products are BLAS's. The threads that compute tanh are Python's: those of ``prange`` go on spinning after their
    loop, while BLAS wants the processors.
    """
    w1, b1, w2, b2, w3, b3 = (weights[name] for name in ("w1", "b1", "w2", "b2", "w3", "b3"))
    h1, h2, z, g1, g2 = (np.empty((x.shape[0], b.size)) for b in (b1, b2, b3, b1, b2))
    threads = numba.get_num_threads()
    pool = ThreadPoolExecutor(threads)

    def layer(h: Array, w: Array, bias: Array, out: Array) -> None:
        np.dot(h, w, out)
        parts = np.array_split(out, threads)
        jobs = [pool.submit(_add_and_tanh, part, bias) for part in parts[1:]]
        _add_and_tanh(parts[0], bias)
        for job in jobs:
            job.result()

    def call() -> tuple[Any, dict[str, Array]]:
        gradient = {name: np.empty_like(array) for name, array in weights.items()}
        layer(x, w1, b1, h1)
        layer(h1, w2, b2, h2)
        np.dot(h2, w3, z)
        value = _cross_entropy(z, b3, labels, gradient["b3"])
        np.dot(h2.T, z, gradient["w3"])
        np.dot(z, w3.T, g2)
        _through_tanh(g2, h2, gradient["b2"])
        np.dot(h1.T, g2, gradient["w2"])
        np.dot(g2, w2.T, g1)
        _through_tanh(g1, h1, gradient["b1"])
        np.dot(x.T, g1, gradient["w1"])
        return value, gradient

    return call
