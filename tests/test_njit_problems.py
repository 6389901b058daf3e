"""Kernels from outside: problems that others published, written for numba as their authors did.

Nonlinear equations from the set of Cartis and Roberts, A derivative-free Gauss-Newton method, Mathematical Programming
Computation 11 (2019), table 3: what optimagic (MIT licence) has jitted. Each has a published criterion at its start, and
at the end, which Gauss-Newton steps with nbad's Jacobian must reach. And the objectives of ADBench: F. Srajer, Z. Kukelova,
A. Fitzgibbon, A benchmark of selected algorithmic differentiation tools, Optimization Methods and Software 33 (2018).
"""

import itertools
import math
from functools import partial
from typing import Any

import adbench
import numba
import numpy as np
import pytest

import nbad


# Nonlinear equations ----------------------------------------------------------------------------
@numba.njit
def bdvalues(x):
    """A boundary value problem (J. Moré, B. Garbow, K. Hillstrom, 1981, problem 28)."""
    h = 1 / (len(x) + 1)
    u = np.zeros(len(x) + 2, dtype=np.float64)
    for i in range(len(x)):
        u[i + 1] = x[i]
    f = np.zeros(len(x), dtype=np.float64)
    for i in range(2, len(x) + 2):
        f[i - 2] = 2 * u[i - 1] - u[i - 2] - u[i] + 0.5 * h**2 * (u[i - 1] + i * h + 1) ** 3
    return f


@numba.njit
def reaction(u, t):
    return 0.135 * u * np.exp(25.0 - 25.0 / t)


@numba.njit
def transport(u, i, h, peclet):
    """Diffusion and flow of what a tube holds."""
    return (u[i - 1] - 2 * u[i] + u[i + 1]) / (h**2 * peclet) + (u[i - 1] - u[i]) / h


@numba.njit
def chemrcta(x):
    """A tubular reactor: concentration and temperature (L. Bieniasz; SIF collection)."""
    n = int(len(x) / 2)
    x = x.reshape((2, n))
    u, t = x[0], x[1]
    h = 1 / (n - 1)
    f = np.zeros(2 * n, dtype=np.float64)
    f[0] = -h * u[1] - u[0] + h
    f[1] = -5.0 * h * t[1] - t[0] + 5.0 * h
    for i in range(1, n - 1):
        f[i + 1] = transport(u, i, h, 1.0) - reaction(u[i], t[i])
        f[n - 1 + i] = transport(t, i, h, 5.0) + 0.5 * reaction(u[i], t[i])
    f[-2] = x[0, -1] - x[0, -2]
    f[-1] = x[1, -1] - x[1, -2]
    return f


@numba.njit
def chemrctb(t):
    """The same without the concentration."""
    h = 1 / (len(t) - 1)
    f = np.zeros(len(t), dtype=np.float64)
    f[0] = -5.0 * h * t[1] - t[0] + 5.0 * h
    for i in range(1, len(t) - 1):
        f[i] = transport(t, i, h, 5.0) + reaction(1.5 - t[i], t[i])
    f[-1] = t[-1] - t[-2]
    return f


@numba.njit
def laplacian(u, i, j):
    return u[i + 1, j] + u[i - 1, j] + u[i, j + 1] + u[i, j - 1] - 4 * u[i, j]


@numba.njit
def drcavty(x, r):
    """The stream function of a driven cavity at the Reynolds number r."""
    m = int(np.sqrt(len(x)))
    u = np.zeros((m + 6, m + 6), dtype=np.float64)
    u[3 : m + 3, 3 : m + 3] = x.reshape((m, m))
    u[-3, 1:-1] = -1 / (m + 2) / 2
    u[-2, 1:-1] = 1 / (m + 2) / 2
    f = np.zeros((m, m), dtype=np.float64)
    for i in range(3, m + 3):
        for j in range(3, m + 3):
            up, down = laplacian(u, i - 1, j), laplacian(u, i + 1, j)
            left, right = laplacian(u, i, j - 1), laplacian(u, i, j + 1)
            f[i - 3, j - 3] = up + down + left + right - 4 * laplacian(u, i, j)
            f[i - 3, j - 3] += r / 4 * (u[i, j + 1] - u[i, j - 1]) * (up - down)
            f[i - 3, j - 3] -= r / 4 * (u[i + 1, j] - u[i - 1, j]) * (left - right)
    return f.flatten()


@numba.njit
def borders(u, f, scale):
    """Write the differences across the four borders of a square, and return where the next go."""
    n = u.shape[0]
    g = np.zeros((n, n), dtype=np.float64)
    for k in range(n):
        g[k, -1] += scale[0] * (u[k, -1] - u[k, -2]) + scale[1] * u[k, -1] + scale[2]
        g[k, 0] += scale[3] * (u[k, 1] - u[k, 0]) + scale[4] * u[k, 0] + scale[5]
        g[-1, k] += scale[6] * (u[-1, k] - u[-2, k])
        g[0, k] += 4.0 * (u[1, k] - u[0, k])
    g[0, 0] -= scale[5]
    g[0, -1] -= scale[2]
    g[-1, -1] -= scale[2]
    f[:n] = g[0]
    f[n : 2 * n] = g[-1]
    f[2 * n : 3 * n - 2] = g[1:-1, 0]
    f[3 * n - 2 :] = g[1:-1, -1]


@numba.njit
def flosp2(x, a, b, ra=1.0e7):
    """Convection in a porous layer: vorticity, temperature, stream function on 5 by 5 points, Rayleigh number `ra`."""
    n = 5
    u = np.ones((3, n, n), dtype=np.float64)
    u[0] = x[: n**2].reshape(n, n)
    u[1] = x[n**2 : 2 * n**2].reshape(n, n)
    u[2, 1:-1, 1:-1] = x[2 * n**2 :].reshape(n - 2, n - 2)
    f = np.empty(59, dtype=np.float64)
    inner = np.empty((3, n - 2, n - 2), dtype=np.float64)
    for i in range(1, n - 1):
        for j in range(1, n - 1):
            across = u[:, i, j + 1] - u[:, i, j - 1]
            down = u[:, i + 1, j] - u[:, i - 1, j]
            inner[0, i - 1, j - 1] = 4 * laplacian(u[0], i, j) - 0.5 * ra * across[1]
            inner[1, i - 1, j - 1] = 4 * laplacian(u[2], i, j) + 0.25 * u[0, i, j]
            inner[2, i - 1, j - 1] = 4 * laplacian(u[1], i, j) - across[2] * down[1] + down[2] * across[1]
    f[:27] = inner.flatten()
    scale = np.array([4.0 * a[0], a[1], a[2], 4.0 * b[0], b[1], b[2], 4.0])
    borders(u[1], f[27:43], scale)
    borders(u[2], f[43:], np.array([-4.0, 0.0, 0.0, 4.0, 0.0, 0.0, -4.0]))
    return f


@numba.njit
def vapour(t, j):
    """The pressure of component j (Antoine)."""
    a = np.array([9.647, 9.953, 9.466], dtype=np.float64)
    b = np.array([-2998, -3448.10, -3347.25], dtype=np.float64)
    c = np.array([230.66, 235.88, 215.31], dtype=np.float64)
    return np.exp(a[j] + b[j] / (t + c[j]))


@numba.njit
def hydcar(x_in, n, m, k):
    """A distillation column of n plates for m hydrocarbons, fed at plate k (R. Fletcher)."""
    x = x_in[: (n * m)].reshape((n, m))
    t = x_in[(n * m) : 4 * n]
    v = x_in[4 * n :]
    alp = np.array([37.6, 48.2, 45.4], dtype=np.float64)
    be = np.array([8425, 9395, 10466], dtype=np.float64)
    bep = np.array([24.2, 35.6, 31.9], dtype=np.float64)
    fl = np.array([30, 30, 40], dtype=np.float64)
    b, d = 40.0, 60.0

    bottom, top = np.zeros(m), np.zeros(m)
    inner = np.zeros((n - 2, m), dtype=np.float64)
    total = np.zeros(n, dtype=np.float64)
    heat = np.zeros(n - 2, dtype=np.float64)
    reboiler = 0
    for j in range(m):
        bottom[j] += x[0, j] * b - x[1, j] * (v[0] + b)
        bottom[j] += v[0] * x[0, j] * vapour(t[0], j)
        top[j] += x[n - 2, j] * vapour(t[n - 2], j) - x[n - 1, j]
        reboiler += v[0] * x[0, j] * vapour(t[0], j) * (be[j] + bep[j] * t[0])
        reboiler += b * x[0, j] * (alp[j] * t[0]) - x[1, j] * (b + v[0]) * (alp[j] * t[1])
        for i in range(1, n - 1):
            below = v[i - 1] * x[i - 1, j] * vapour(t[i - 1], j)
            here = v[i] * x[i, j] * vapour(t[i], j)
            inner[i - 1, j] += here - below
            heat[i - 1] += here * (be[j] + bep[j] * t[i]) - below * (be[j] + bep[j] * t[i - 1])
            down = x[i + 1, j] * (v[i] + (b if i < k else -d))
            came = x[i, j] * (v[i - 1] + (b if i <= k else -d))
            inner[i - 1, j] += came - down
            # At the feed the problem reads the temperature of the plate before.
            heat[i - 1] += alp[j] * (came * t[i if i != k else k - 1] - down * t[i + 1])
        for i in range(n):
            total[i] += x[i, j] * vapour(t[i], j)
        inner[k - 1, j] -= fl[j]
        heat[k - 1] -= 100.0 * alp[j] * fl[j]
    total -= 1
    reboiler -= 2500000.0

    out = np.empty(n * 5 - 1, dtype=np.float64)
    out[:m] = bottom * 1e-2
    out[m : 2 * m] = top
    out[2 * m : n * m] = inner.flatten() * 1e-2
    out[n * m : n * m + n] = total
    out[n * m + n] = reboiler * 1e-5
    out[-(n - 2) :] = heat * 1e-5
    return out


def start_of_bdvalues() -> np.ndarray:
    t = np.arange(1, 101) / 101
    return 1000 * t * (t - 1)


def plates(n: int, ends: Any) -> np.ndarray:
    return np.concatenate([np.ravel(ends), np.full(n, 100.0), np.full(n - 1, 300.0)])


HYDCAR6 = [[0, 0.2, 0.9], [0, 0.2, 0.8], [0.05, 0.3, 0.8], [0.1, 0.3, 0.6], [0.3, 0.5, 0.3], [0.6, 0.6, 0]]
HYDCAR20 = np.transpose(
    [
        [
            0,
            0,
            0.01,
            0.02,
            0.05,
            0.07,
            0.09,
            0.1,
            0.15,
            0.2,
            0.25,
            0.3,
            0.35,
            0.4,
            0.4,
            0.42,
            0.45,
            0.45,
            0.5,
            0.5,
        ],
        [0.3] * 3 + [0.4] * 2 + [0.45] + [0.5] * 4 + [0.6] * 4 + [0.7] * 2 + [0.75] * 2 + [0.8] * 2,
        [0.1, 0.9, 0.9] + [0.8] * 3 + [0.7] * 2 + [0.6] * 2 + [0.5] * 3 + [0.4] * 2 + [0.3, 0.3, 0.2, 0.1, 0],
    ]
)
COLD, WARM = np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])
HELD = np.array([1.0, 0.0, -1.0])
EQUATIONS = {
    "bdvalues": (bdvalues, start_of_bdvalues(), (), 1.943417e7, 0.0),
    "chemrcta": (chemrcta, np.ones(100), (), 3.0935, None),
    "chemrctb": (chemrctb, np.ones(100), (), 1.446513, None),
    "drcavty1": (drcavty, np.zeros(100), (500,), 0.4513889, 0.0),
    "flosp2hh": (flosp2, np.zeros(59), (HELD, HELD, 1e7), 519.0, None),
    "flosp2tl": (flosp2, np.zeros(59), (COLD, WARM, 1e3), 516.0, 0.0),
    "hydcar6": (hydcar, plates(6, HYDCAR6), (6, 3, 2), 704.1073, None),
    "hydcar20": (hydcar, plates(20, HYDCAR20), (20, 3, 9), 1341.663, None),
}
"""Function, start, parameters, the published criteria at the start and, where steps without bounds reach it, at the end."""


def differences(function: Any, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of fourth order, a row for each output; complex steps are not for branches."""
    found = []
    for k in range(x.size):
        moved = np.zeros(x.shape)
        moved.flat[k] = h = step * max(1.0, abs(x.flat[k]))
        near = function(x + moved) - function(x - moved)
        far = function(x + 2 * moved) - function(x - 2 * moved)
        found.append((8 * near - far) / (12 * h))
    return np.moveaxis(np.reshape(found, (x.size, *np.shape(found[0]))), 0, -1)


def solved(function: Any, x: np.ndarray, *arguments: Any) -> float:
    """Minimise the sum of squares by the method of Levenberg and Marquardt; return the criterion at the end."""
    jacobian = nbad.jacobian(function)
    weight, f, j = 1e-3, function(x, *arguments), jacobian(x, *arguments)
    for _ in range(200):
        scale = np.sqrt(weight) * np.linalg.norm(j, axis=0)
        system = np.vstack([j, np.diag(np.maximum(scale, 1e-300))])
        step = np.linalg.lstsq(system, np.concatenate([-f, np.zeros(x.size)]), rcond=1e-14)[0]
        there = function(x + step, *arguments)
        if there @ there < f @ f:
            if f @ f - there @ there < 1e-12 * (f @ f) or there @ there < 1e-16:
                return float(there @ there)
            x, f, weight = x + step, there, weight / 10
            j = jacobian(x, *arguments)
        else:
            weight *= 10
    return float(f @ f)


def marked(names: Any, long: tuple[str, ...]) -> list[Any]:
    """Mark the problems whose kernels take long to compile."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in long else name for name in names]


@pytest.mark.parametrize("name", marked(EQUATIONS, ("flosp2hh", "flosp2tl", "hydcar6", "hydcar20")))
def test_a_published_problem_has_its_start_its_jacobian_and_its_solution(name: str) -> None:
    kernel, x, arguments, start, end = EQUATIONS[name]
    values = kernel(x, *arguments)
    assert values @ values == pytest.approx(start, rel=1e-6)
    x = x + 0.01 * np.random.default_rng(0).random(x.size)  # the starts are too regular to tell columns apart
    found = nbad.jacobian(kernel)(x, *arguments)
    expected = differences(lambda x: kernel(x, *arguments), x, 1e-4)
    np.testing.assert_allclose(found, expected, atol=1e-8 * np.max(np.abs(expected)))
    if end is not None:
        assert solved(kernel, EQUATIONS[name][1], *arguments) == pytest.approx(end, rel=1e-5, abs=1e-10)


# ADBench ----------------------------------------------------------------------------------------
@numba.njit
def log_sum_exp(x):
    largest = x[0]
    for k in range(1, x.size):
        if x[k] > largest:
            largest = x[k]
    total = 0.0
    for k in range(x.size):
        total += math.exp(x[k] - largest)
    return math.log(total) + largest


@numba.njit
def mixture(alphas, means, icf, x, gamma, m):
    """The log likelihood of a mixture of Gaussians with a Wishart prior; rows of `icf` are triangular factors."""
    n, d = x.shape
    k = alphas.size
    terms = np.empty(k)
    scaled = np.empty(d)
    result = 0.0
    for i in range(n):
        for j in range(k):
            terms[j] = alphas[j]
            for a in range(d):
                terms[j] += icf[j, a]
                scaled[a] = math.exp(icf[j, a]) * (x[i, a] - means[j, a])
            at = d
            for a in range(d):
                for b in range(a + 1, d):
                    scaled[b] += icf[j, at] * (x[i, a] - means[j, a])
                    at += 1
            terms[j] -= 0.5 * np.sum(scaled**2)
        result += log_sum_exp(terms)
    result -= n * (log_sum_exp(alphas) + 0.5 * d * math.log(2 * math.pi))
    freedom = d + m + 1
    constant = freedom * d * math.log(gamma / math.sqrt(2.0)) - 0.25 * d * (d - 1) * math.log(math.pi)
    for a in range(d):
        constant -= math.lgamma(0.5 * (freedom - a))
    for j in range(k):
        for a in range(icf.shape[1]):
            if a < d:
                result += 0.5 * gamma**2 * math.exp(icf[j, a]) ** 2 - m * icf[j, a]
            else:
                result += 0.5 * gamma**2 * icf[j, a] ** 2
        result -= constant
    return result


def mixture_plainly(alphas: Any, means: Any, icf: Any, x: Any, gamma: float, m: int) -> Any:
    (n, d), k = x.shape, alphas.size
    column, row = np.triu_indices(d, 1)
    place = np.zeros((icf.shape[1] - d, d, d))
    place[np.arange(len(row)), row, column] = 1.0
    lower = np.tensordot(icf[:, d:], place, 1)
    centred = x[:, None] - means
    scaled = np.exp(icf[:, :d]) * centred + np.sum(lower * centred[:, :, None], axis=-1)
    terms = alphas + np.sum(icf[:, :d], axis=1) - 0.5 * np.sum(scaled**2, axis=-1)
    freedom = d + m + 1
    constant = freedom * d * np.log(gamma / np.sqrt(2.0)) - 0.25 * d * (d - 1) * np.log(np.pi)
    constant -= sum(math.lgamma(0.5 * (freedom - a)) for a in range(d))
    prior = 0.5 * gamma**2 * (np.sum(np.exp(icf[:, :d]) ** 2) + np.sum(icf[:, d:] ** 2)) - m * np.sum(
        icf[:, :d]
    )
    likelihood = np.sum(np.log(np.sum(np.exp(terms), axis=1))) - n * np.log(np.sum(np.exp(alphas)))
    return likelihood - 0.5 * n * d * np.log(2 * np.pi) + prior - k * constant


@numba.njit
def cross(a, b):
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@numba.njit
def rotated(rotation, x):
    """Rodrigues' formula."""
    square = 0.0
    for k in range(3):
        square += rotation[k] ** 2
    if square == 0.0:
        return x + cross(rotation, x)
    theta = math.sqrt(square)
    axis = rotation / theta
    return (
        x * math.cos(theta)
        + cross(axis, x) * math.sin(theta)
        + axis * (np.dot(axis, x) * (1.0 - math.cos(theta)))
    )


@numba.njit
def bundle(cameras, points, weights, observed, features):
    """Reprojection errors, and errors of the weights: a camera is rotation, centre, focal length, origin, distortion."""
    errors = np.empty((observed.shape[0], 2))
    for i in range(observed.shape[0]):
        camera = cameras[observed[i, 0]]
        seen = rotated(camera[:3], points[observed[i, 1]] - camera[3:6])
        plane = seen[:2] / seen[2]
        square = plane[0] ** 2 + plane[1] ** 2
        plane *= 1.0 + camera[9] * square + camera[10] * square * square
        errors[i] = weights[i] * (plane * camera[6] + camera[7:9] - features[i])
    return errors, 1.0 - weights**2


def bundle_plainly(cameras: Any, points: Any, weights: Any, observed: Any, features: Any) -> Any:
    errors = []
    for i, (c, p) in enumerate(observed):
        camera, x = cameras[c], points[p] - cameras[c, 3:6]
        theta = np.sqrt(np.sum(camera[:3] ** 2))
        axis = camera[:3] / theta
        seen = (
            x * np.cos(theta)
            + np.cross(axis, x) * np.sin(theta)
            + axis * (np.sum(axis * x) * (1 - np.cos(theta)))
        )
        plane = seen[:2] / seen[2]
        square = np.sum(plane**2)
        plane = plane * (1 + camera[9] * square + camera[10] * square**2)
        errors.append(weights[i] * (plane * camera[6] + camera[7:9] - features[i]))
    return np.stack(errors), 1 - weights**2


@numba.njit
def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


@numba.njit
def memory_cells(weight, bias, hidden, cell, x):
    """Overwrite the state of one layer of an LSTM whose gates are products of numbers."""
    h = hidden.size
    for k in range(h):
        forget = sigmoid(x[k] * weight[k] + bias[k])
        ingate = sigmoid(hidden[k] * weight[h + k] + bias[h + k])
        outgate = sigmoid(x[k] * weight[2 * h + k] + bias[2 * h + k])
        change = math.tanh(hidden[k] * weight[3 * h + k] + bias[3 * h + k])
        cell[k] = cell[k] * forget + ingate * change
        hidden[k] = outgate * math.tanh(cell[k])


@numba.njit
def lstm(main, extra, state, sequence):
    """The mean loss of predicting each row of a sequence from those before it."""
    state = state.copy()
    total = 0.0
    for t in range(sequence.shape[0] - 1):
        x = sequence[t] * extra[0]
        for i in range(0, state.shape[0], 2):
            memory_cells(main[i], main[i + 1], state[i], state[i + 1], x)
            x = state[i]
        guess = x * extra[1] + extra[2]
        norm = math.log(np.sum(np.exp(guess)) + 2.0)
        for k in range(guess.size):
            total += sequence[t + 1, k] * (guess[k] - norm)
    return -total / ((sequence.shape[0] - 1) * sequence.shape[1])


def lstm_plainly(main: Any, extra: Any, state: Any, sequence: Any) -> Any:
    rows, total, h = list(state), 0.0, state.shape[1]
    for x, gold in itertools.pairwise(sequence):
        x = x * extra[0]
        for i in range(0, len(rows), 2):
            weight, bias, hidden, cell = (
                main[i].reshape(4, h),
                main[i + 1].reshape(4, h),
                rows[i],
                rows[i + 1],
            )
            forget, outgate = (1 / (1 + np.exp(-(x * weight[k] + bias[k]))) for k in (0, 2))
            ingate = 1 / (1 + np.exp(-(hidden * weight[1] + bias[1])))
            rows[i + 1] = cell * forget + ingate * np.tanh(hidden * weight[3] + bias[3])
            rows[i] = x = outgate * np.tanh(rows[i + 1])
        guess = x * extra[1] + extra[2]
        total = total + np.sum(gold * (guess - np.log(np.sum(np.exp(guess)) + 2)))
    return -total / sequence[1:].size


@numba.njit
def turn(angles):
    """The rotation about x, then z, then y by angles in that order: R_z R_y R_x."""
    x, z, y = angles[0], angles[1], angles[2]
    rx, ry, rz = np.eye(3), np.eye(3), np.eye(3)
    rx[1, 1] = rx[2, 2] = math.cos(x)
    ry[0, 0] = ry[2, 2] = math.cos(y)
    rz[0, 0] = rz[1, 1] = math.cos(z)
    rx[2, 1], ry[0, 2], rz[1, 0] = math.sin(x), math.sin(y), math.sin(z)
    rx[1, 2], ry[2, 0], rz[0, 1] = -rx[2, 1], -ry[0, 2], -rz[1, 0]
    return rz @ ry @ rx


@numba.njit
def hand(theta, us, parents, relatives, inverses, vertices, weights, triangles, points, matched):
    """Distances of points from a posed and skinned hand of 22 bones; `us` places each in the triangle that it matches."""
    pose = np.zeros((25, 3))
    pose[0] = theta[:3]
    pose[1] = 1.0
    pose[2] = theta[3:6]
    at = 6
    for finger in range(5):
        for joint in range(3):
            row = 5 + 4 * finger + joint
            pose[row, 0] = theta[at]
            at += 1
            if joint == 0:
                pose[row, 1] = theta[at]
                at += 1
    bones = len(parents)
    absolute = np.empty((bones, 4, 4))
    skinned = np.zeros((vertices.shape[0], 3))
    for b in range(bones):
        own = np.eye(4)
        own[:3, :3] = turn(pose[3 + b])
        own = relatives[b] @ own
        absolute[b] = own if parents[b] < 0 else absolute[parents[b]] @ own
        moved = vertices @ (absolute[b] @ inverses[b]).T
        for v in range(vertices.shape[0]):
            for c in range(3):
                skinned[v, c] += moved[v, c] * weights[v, b]
    errors = np.empty(points.shape)
    for i in range(points.shape[0]):
        first, second, third = triangles[matched[i]]
        u, v = us[i]
        place = u * skinned[first] + v * skinned[second] + (1.0 - u - v) * skinned[third]
        errors[i] = points[i] - rotated(pose[0], place * pose[1]) - pose[2]
    return errors


def hand_plainly(
    theta: Any, us: Any, parents: Any, relatives: Any, inverses: Any, vertices: Any, weights: Any, triangles: Any,
    points: Any, matched: Any,
) -> Any:  # fmt: skip
    absolute: list[Any] = []
    skinned: Any = 0.0
    for b, parent in enumerate(parents):
        finger, joint = divmod(b - 2, 4)
        angles = [0.0, 0.0, 0.0]
        if b >= 2 and joint < 3:
            at = 6 + 4 * finger + joint + (joint > 0)
            angles[:2] = theta[at], theta[at + 1] if joint == 0 else 0.0
        (cx, cz, cy), (sx, sz, sy) = ([f(a) for a in angles] for f in (np.cos, np.sin))
        rows = [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx, 0.0],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx, 0.0],
            [-sy, cy * sx, cy * cx, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
        own = relatives[b] @ np.stack([np.stack([one * np.ones(()) for one in row]) for row in rows])
        absolute.append(own if parent < 0 else absolute[parent] @ own)
        moved = vertices @ (absolute[b] @ inverses[b]).T
        skinned = skinned + moved[:, :3] * weights[:, b : b + 1]
    corners = [skinned[triangles[matched, k]] for k in range(3)]
    u, v = us[:, :1], us[:, 1:]
    place = u * corners[0] + v * corners[1] + (1 - u - v) * corners[2]
    angle = np.sqrt(np.sum(theta[:3] ** 2))
    axis = theta[:3] / angle
    along = (place @ axis)[:, None] * axis
    turned = place * np.cos(angle) + np.cross(axis, place) * np.sin(angle) + along * (1 - np.cos(angle))
    return points - turned - theta[3:6]


def data_of(name: str) -> tuple[Any, ...]:
    rng = np.random.default_rng(len(name))
    if name == "mixture":
        return rng.random(3), rng.random((3, 4)), rng.normal(size=(3, 10)), rng.random((7, 4)), 1.0, 2
    if name == "bundle":
        cameras = np.concatenate([rng.normal(size=(2, 9)), 0.1 * rng.random((2, 2))], axis=1)
        observed = np.array([[0, 0], [0, 1], [1, 2], [1, 1], [1, 0]])
        return cameras, 3 + rng.random((3, 3)), rng.random(5), observed, rng.random((5, 2))
    if name == "lstm":
        return (
            rng.random((4, 20)),
            rng.random((3, 5)),
            rng.random((4, 5)),
            rng.integers(0, 2, (6, 5)).astype(float),
        )
    vertices = np.concatenate([rng.normal(size=(6, 3)), np.ones((6, 1))], axis=1)
    parents = np.array([-1, 0] + [1 if k % 4 == 0 else k + 1 for k in range(20)])
    matrices = np.concatenate(
        [0.5 * rng.normal(size=(2, 22, 3, 4)), np.tile([0, 0, 0, 1.0], (2, 22, 1, 1))], axis=2
    )
    triangles = np.array([[0, 1, 2], [3, 4, 5], [1, 3, 5]])
    return (
        rng.normal(size=26), rng.random((4, 2)), parents, matrices[0], matrices[1], vertices, rng.random((6, 22)),
        triangles, rng.normal(size=(4, 3)), np.array([0, 1, 2, 1]),
    )  # fmt: skip


OBJECTIVES = {
    "mixture": (mixture, mixture_plainly, (0, 1, 2)),
    "bundle": (bundle, bundle_plainly, (0, 1, 2)),
    "lstm": (lstm, lstm_plainly, (0, 1)),
    "hand": (hand, hand_plainly, (0, 1)),
}
"""Kernel, the same in plain NumPy, and what is asked for."""


@pytest.mark.parametrize("name", marked(OBJECTIVES, ("hand",)))
def test_an_objective_of_adbench_has_the_derivatives_of_plain_numpy_and_of_differences(name: str) -> None:
    kernel, plain, asked = OBJECTIVES[name]
    arguments = data_of(name)
    result = kernel(*arguments)
    np.testing.assert_allclose(nbad.ravel(result)[0], nbad.ravel(plain(*arguments))[0], rtol=1e-12)
    found = nbad.jacobian(kernel, asked)(*arguments)
    expected = nbad.jacobian(plain, asked)(*arguments)
    np.testing.assert_allclose(nbad.ravel(found)[0], nbad.ravel(expected)[0], rtol=1e-9, atol=1e-11)

    def joined(x: np.ndarray) -> np.ndarray:
        given = list(arguments)
        given[asked[0]] = x
        return nbad.ravel(kernel(*given))[0]

    size = arguments[asked[0]].size
    first = [one[0] for one in (found if isinstance(result, tuple) else (found,))]
    rows = np.concatenate([np.reshape(one, (-1, size)) for one in first])
    expected = differences(joined, arguments[asked[0]], 1e-4)
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-8 * np.max(np.abs(expected)))


def test_the_objectives_of_adbench_have_their_published_values_and_derivatives() -> None:
    close = partial(np.testing.assert_allclose, rtol=0, atol=adbench.TOLERANCE)
    value, gradient = nbad.value_and_grad(mixture, (0, 1, 2))(*adbench.MIXTURE)
    close(value, adbench.MIXTURE_VALUE)
    close(np.concatenate([np.ravel(part) for part in gradient]), adbench.MIXTURE_GRADIENT)

    value, gradient = nbad.value_and_grad(lstm, (0, 1))(*adbench.LSTM)
    close(value, adbench.LSTM_VALUE)
    close(np.concatenate([np.ravel(part) for part in gradient]), adbench.LSTM_GRADIENT)

    errors, weight_errors = bundle(*adbench.BUNDLE)
    close(errors, np.tile(adbench.BUNDLE_ERROR, (10, 1)))
    close(weight_errors, np.full(10, adbench.BUNDLE_WEIGHT_ERROR))
    (by_camera, by_point, _), (_, _, by_weight) = nbad.jacobian(bundle, (0, 1, 2))(*adbench.BUNDLE)
    for i, (camera, point) in enumerate(adbench.BUNDLE[3]):
        row = np.concatenate([by_camera[i, 0, camera], by_point[i, 0, point, :2]])
        close(row, adbench.BUNDLE_ROW)
    close(by_weight, np.diag(np.full(10, adbench.BUNDLE_WEIGHT_ROW)))
