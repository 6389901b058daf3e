"""Time kernels: value and gradient of functions that numba compiled, beside the functions themselves and JAX.

Each gradient is compared with central differences along a random direction, and with the peers'. Everything is float64.
Run ``python perf/njit.py``.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, Table, find, ratio

Array = Any


DIVIDED = 1 << 25
"""Bytes that the tape of a loop in parts may take."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kernel.

    Attributes
    ----------
    title : str
        What the tables say.
    kernel : str
        Name in ``perf/_kernels.py``.
    arguments : tuple
        All arguments of the kernel.
    wrt : tuple of int
        Positions of those that are asked for.
    jax : callable, optional
        Takes ``jax`` and returns the same function for its arrays; None where JAX has no gradient of it.
    bound : float, optional
        Target for gradient / value.
    least : int
        Entries that are needed; 0 where nobody counted.
    step : float
        Step of the differences, relative to the largest argument: small, for kernels have kinks.
    operations : int
        Operations of one entry, where that is known: a target says what each may take.
    divided : callable, optional
        Takes ``nbad`` and ``perf/_kernels.py``, returns the same function with its loop in parts.
    """

    title: str
    kernel: str
    arguments: tuple[Any, ...]
    wrt: tuple[int, ...]
    jax: Callable[[Any], Callable[..., Any]] | None
    bound: float | None = None
    least: int = 0
    step: float = 1e-7
    operations: int = 0
    divided: Callable[[Any, Any], Callable[..., Any]] | None = None


def jax_rosenbrock(jax: Any) -> Callable[..., Any]:
    np = jax.numpy

    def f(x: Array) -> Any:
        here = x[:-1]
        terms = 100.0 * (x[1:] - here**2) ** 2 + (1.0 - here) ** 2
        return np.sum(terms + np.where(here > 0.5, np.sin(here - 0.5), 0.0))

    return f


def jax_recurrence(jax: Any) -> Callable[..., Any]:
    def f(x: Array, a: Array, b: Array, steps: int) -> Any:
        def step(x: Array, _: None) -> tuple[Array, None]:
            return a * x + b * jax.numpy.sin(x), None

        return jax.lax.scan(step, x, None, length=steps)[0]

    return f


def jax_lennard_jones(jax: Any) -> Callable[..., Any]:
    np = jax.numpy

    def f(position: Array, cutoff: float) -> Any:
        difference = position[:, None] - position[None]
        square = np.sum(difference * difference, axis=2)
        near = (square < cutoff * cutoff) & ~np.eye(len(position), dtype=bool)
        sixth = 1.0 / np.where(near, square, 1.0) ** 3
        shift = 1.0 / cutoff**12 - 1.0 / cutoff**6
        return 2.0 * np.sum(np.where(near, sixth * sixth - sixth - shift, 0.0))

    return f


def jax_heat(jax: Any) -> Callable[..., Any]:
    np = jax.numpy

    def f(u: Array, rate: float, steps: int, target: Array) -> Any:
        def step(u: Array, _: None) -> tuple[Array, None]:
            inner = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1]
            return u.at[1:-1, 1:-1].add(rate * inner), None

        return np.sum((jax.lax.scan(step, u, None, length=steps)[0] - target) ** 2)

    return f


def divided_heat(nbad: Any, kernels: Any) -> Callable[..., Any]:
    def f(u: Array, rate: float, steps: int, target: Array) -> Any:
        return np.sum((nbad.scan(kernels.heat_after, u, steps, rate) - target) ** 2)

    return f


def jax_monte_carlo(jax: Any) -> Callable[..., Any]:
    np = jax.numpy

    def f(spot: Array, strike: Array, rate: Array, volatility: Array, years: Array, normal: Array) -> Any:
        dt = years / normal.shape[1]
        moves = (rate - 0.5 * volatility**2) * dt + volatility * np.sqrt(dt) * normal
        mean = np.mean(spot * np.exp(np.cumsum(moves, axis=1)), axis=1)
        return np.exp(-rate * years) * np.mean(np.maximum(mean - strike, 0.0))

    return f


def workloads(quick: bool) -> dict[str, Workload]:
    """Return the kernels with their data, by short name."""
    rng = np.random.default_rng(6)
    length = 1000 if quick else 10**6
    steps = 100 if quick else 20_000
    atoms = 64 if quick else 2_000
    side, times = (16, 10) if quick else (128, 500)
    paths, path = (50, 8) if quick else (20_000, 64)
    pixels = 8 if quick else 128
    edge = int(np.ceil(atoms ** (1 / 3)))
    lattice = np.stack(np.meshgrid(*3 * [1.2 * np.arange(edge)], indexing="ij"), axis=-1).reshape(-1, 3)
    position = lattice[:atoms] + 0.05 * rng.normal(size=(atoms, 3))
    spheres = np.array([[-0.6, 0.1, 4.0, 0.8], [0.7, -0.2, 3.0, 0.6], [0.1, 0.9, 5.0, 0.5]])
    few, rounds = (100, 10) if quick else (1000, 5000)
    found = (
        Workload(
            f"Rosenbrock with branches, {length:,} variables", "rosenbrock",
            (rng.normal(size=length),), (0,), jax_rosenbrock, 4.0,
        ),
        Workload(
            f"scalar recurrence, {steps:,} steps", "recurrence",
            (0.7, 0.9, 0.3, steps), (0, 1, 2), jax_recurrence, 2.2, steps,
        ),
        Workload(
            f"Lennard-Jones, {atoms:,} atoms, cutoff 2.5", "lennard_jones",
            (position, 2.5), (0,), jax_lennard_jones,
        ),
        Workload(
            f"heat equation, {side} x {side}, {times} steps", "heat",
            (rng.random((side, side)), 0.2, times, rng.random((side, side))), (0,), jax_heat, None,
            times * (side - 2) ** 2, divided=divided_heat,
        ),
        Workload(
            f"Asian option, {paths:,} paths of {path} steps", "monte_carlo",
            (100.0, 100.0, 0.03, 0.2, 1.0, rng.normal(size=(paths, path))), (0, 2, 3), jax_monte_carlo,
        ),
        Workload(
            f"ray marching, {pixels} x {pixels} pixels", "ray_march", (spheres, pixels), (0,), None,
            step=1e-9,
        ),
        Workload(
            f"a loop of {2 * few * rounds:,} operations", "horner",
            (rng.random(few), rounds), (0,), None, None, few * rounds, operations=2,
        ),
    )  # fmt: skip
    return {work.kernel: work for work in found}


def flat(result: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return (value, gradient, ...)."""
    value, gradient = result
    return (value, *gradient)


def jax_contestants(work: Workload) -> list[Contestant]:
    if work.jax is None or not _bench.installed("jax"):
        return []
    import jax

    static = tuple(i for i, one in enumerate(work.arguments) if isinstance(one, int))
    both = jax.jit(jax.value_and_grad(work.jax(jax), argnums=work.wrt), static_argnums=static)
    arguments = [one if isinstance(one, int) else jax.numpy.asarray(one) for one in work.arguments]
    return [Contestant("JAX jit", lambda: jax.block_until_ready(both(*arguments)), flat)]


def along_a_direction(
    function: Callable[..., Any], work: Workload, gradient: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Return the derivative in a random direction: of the gradient, and by central differences."""
    rng = np.random.default_rng(7)
    scale = work.step * max(float(np.max(np.abs(work.arguments[k]))) for k in work.wrt)
    directions = {k: rng.choice((-1.0, 1.0), np.shape(work.arguments[k])) for k in work.wrt}
    values = []
    for sign in (scale, -scale):
        given = list(work.arguments)
        for k, direction in directions.items():
            moved = given[k] + sign * direction
            given[k] = moved if isinstance(given[k], np.ndarray) else float(moved)
        values.append(function(*given))
    along = sum(np.sum(directions[k] * one) for k, one in zip(work.wrt, gradient, strict=True))
    return along, (values[0] - values[1]) / (2 * scale)


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=9)
    names = tuple(workloads(quick=True))
    parser.add_argument(
        "--only", choices=names, action="append", help="one kernel; may be given several times"
    )
    options = parser.parse_args()
    _bench.prepare()
    import _kernels

    nbad = _bench.load_nbad()
    session = Session("njit", options)
    rtol = 1e-9
    print(f"gradients must agree to {rtol:.0e} of their largest element, and with differences to 1e-4\n")
    rows: list[list[_bench.Cell]] = []
    for name, work in workloads(options.quick).items():
        if name not in (options.only or names):
            continue
        kernel = getattr(_kernels, name)
        both = nbad.value_and_grad(kernel, work.wrt)
        plain = Contestant("numba, value alone", functools.partial(kernel, *work.arguments), None)
        ours = Contestant("nbad", functools.partial(both, *work.arguments), flat)
        found = [ours, plain, *jax_contestants(work)]
        if work.divided is not None:
            parts = nbad.value_and_grad(work.divided(nbad, _kernels), work.wrt)
            found.insert(1, Contestant("nbad, in parts", functools.partial(parts, *work.arguments), flat))
            with nbad.config(tape_limit=DIVIDED):
                parts(*work.arguments)
            print(f"in parts, the tape takes at most {DIVIDED >> 20} MiB")
        with nbad.report() as account:
            _, gradient = both(*work.arguments)
        expected, differences = along_a_direction(kernel, work, gradient)
        session.agree(f"nbad, {name}", [expected], "central differences", [differences], 1e-4)
        session.measure(work.title, found, rtol=rtol)
        session.table(work.title, found, "numba, value alone")
        slower = ratio(ours.median, plain.median)
        each = ratio(ours.median, account.entries) if account.entries else None
        memory = [account.entry_bytes / 1e6, account.adjoint_bytes / 1e6]
        per_operation = each * 1e9 / work.operations if each and work.operations else None
        rows.append(
            [work.title, account.entries, work.least or None, *memory, slower]
            + [each and each * 1e9, per_operation, ratio(find(found, "JAX jit"), ours.median)]
        )
        if work.bound is not None:
            session.aim(f"{work.title}: gradient / value", slower, at_most=work.bound)
        if name == "recurrence":
            session.aim(
                f"{work.title}: JAX jit / nbad", ratio(find(found, "JAX jit"), ours.median), at_least=1.0
            )
        if work.operations:
            session.aim(f"{work.title}: record and sweep, ns per operation", per_operation, at_most=5.0)
        print()
    columns = ["", "entries", "least entries", "tape, MB", "adjoints, MB", "gradient / value"]
    columns += ["ns / entry", "ns / operation", "JAX jit / nbad"]
    session.show(Table("what was recorded", columns, rows))
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
