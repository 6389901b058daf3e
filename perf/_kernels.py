"""Kernels: loops as people write them for numba, without a thought of derivatives.

Owns what perf/njit.py differentiates. Import it after ``_bench.prepare()``.
"""

import math
from typing import Any

import numba
import numpy as np

Array = Any


@numba.njit
def rosenbrock(x: Array) -> float:
    """Return Rosenbrock's function with a term that a branch switches on."""
    total = 0.0
    for i in range(x.size - 1):
        total += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
        if x[i] > 0.5:
            total += math.sin(x[i] - 0.5)
    return total


@numba.njit
def recurrence(x: float, a: float, b: float, steps: int) -> float:
    """Return the last number of a sequence, each computed from the one before."""
    for _ in range(steps):
        x = a * x + b * math.sin(x)
    return x


@numba.njit
def lennard_jones(position: Array, cutoff: float) -> float:
    """Return the energy of atoms, ``(n, 3)``, in reduced units: 0 at the cutoff and beyond."""
    shift = 1.0 / cutoff**12 - 1.0 / cutoff**6
    energy = 0.0
    for i in range(position.shape[0]):
        for j in range(i):
            dx = position[i, 0] - position[j, 0]
            dy = position[i, 1] - position[j, 1]
            dz = position[i, 2] - position[j, 2]
            square = dx * dx + dy * dy + dz * dz
            if square < cutoff * cutoff:
                sixth = 1.0 / square**3
                energy += 4.0 * (sixth * sixth - sixth - shift)
    return energy


@numba.njit
def heat_step(u: Array, after: Array, rate: float) -> None:
    """Write one explicit step of the heat equation; the border stays as it is."""
    rows, columns = u.shape
    for i in range(rows):
        for j in range(columns):
            if 0 < i < rows - 1 and 0 < j < columns - 1:
                after[i, j] = u[i, j] + rate * (
                    u[i + 1, j] + u[i - 1, j] + u[i, j + 1] + u[i, j - 1] - 4.0 * u[i, j]
                )
            else:
                after[i, j] = u[i, j]


@numba.njit
def heat_after(u: Array, i: int, rate: float) -> Array:
    """Return the plate after one step, in an array of its own."""
    after = np.empty_like(u)
    heat_step(u, after, rate)
    return after


@numba.njit
def heat(u: Array, rate: float, steps: int, target: Array) -> float:
    """Return the distance of a heated plate from what it is to be."""
    here = u.copy()
    after = np.empty_like(u)
    for _ in range(steps):
        heat_step(here, after, rate)
        here, after = after, here
    total = 0.0
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            total += (here[i, j] - target[i, j]) ** 2
    return total


@numba.njit
def monte_carlo(
    spot: float, strike: float, rate: float, volatility: float, years: float, normal: Array
) -> float:
    """Return the price of a call on the mean of a path, ``normal`` has a row of random numbers for each path."""
    paths, steps = normal.shape
    dt = years / steps
    drift = (rate - 0.5 * volatility * volatility) * dt
    spread = volatility * math.sqrt(dt)
    total = 0.0
    for p in range(paths):
        price = spot
        mean = 0.0
        for k in range(steps):
            price *= math.exp(drift + spread * normal[p, k])
            mean += price
        mean /= steps
        if mean > strike:
            total += mean - strike
    return math.exp(-rate * years) * total / paths


@numba.njit
def distance(x: float, y: float, z: float, spheres: Array) -> float:
    """Return the distance of a point from the floor and from spheres, rows of centre and radius."""
    found = y + 1.0
    for k in range(spheres.shape[0]):
        dx, dy, dz = x - spheres[k, 0], y - spheres[k, 1], z - spheres[k, 2]
        one = math.sqrt(dx * dx + dy * dy + dz * dz) - spheres[k, 3]
        if one < found:
            found = one
    return found


@numba.njit
def ray_march(spheres: Array, side: int) -> float:
    """Return the mean depth of a picture of spheres over a floor: each ray goes on until it hits something."""
    total = 0.0
    for i in range(side):
        for j in range(side):
            u, v = (j + 0.5) / side - 0.5, (i + 0.5) / side - 0.5
            length = math.sqrt(u * u + v * v + 1.0)
            dx, dy, dz = u / length, v / length, 1.0 / length
            depth = 0.0
            step = 1.0
            while step > 1e-6 and depth < 10.0:
                step = distance(depth * dx, depth * dy, depth * dz, spheres)
                depth += step
            if depth < 10.0:
                total += 1.0 / (1.0 + depth * depth)
    return total / (side * side)


@numba.njit
def horner(x: Array, rounds: int) -> float:
    """Return a number that each element of `x` multiplies and something is added to, once a round: two operations."""
    total = 0.0
    for _ in range(rounds):
        for i in range(x.size):
            total = total * x[i] + 0.5
    return total
