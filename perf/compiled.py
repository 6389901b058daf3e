"""Time compiled functions: value and gradient of four losses as they are written in NumPy, beside peers and loops by hand.

Rosenbrock's function by slices, logistic regression, isotropic total variation of an image, a network of three layers.
Everything is float64; what is not asked for stays the same from call to call. Run ``python perf/compiled.py``.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, find, ratio

Array = Any
Loss = Callable[..., Any]
PENALTY = 1e-3
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Workload:
    """One loss.

    Attributes
    ----------
    title : str
        What the tables say.
    make : callable
        Takes an array library and returns the loss; its first argument is asked for.
    arguments : tuple
        Arrays; the first may be a dict of arrays.
    by_hand : callable
        Value and gradient in plain NumPy.
    loop : callable
        Value and gradient by numba.
    """

    title: str
    make: Callable[[Any], Loss]
    arguments: tuple[Any, ...]
    by_hand: Callable[..., tuple[Any, Any]]
    loop: Callable[..., Callable[[], tuple[Any, Any]]]


def rosenbrock(xp: Any) -> Loss:
    def f(x: Array) -> Any:
        return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return f


def rosenbrock_by_hand(x: Array) -> tuple[Any, Any]:
    here = x[:-1]
    r, s = x[1:] - here * here, 1.0 - here
    gradient = np.empty_like(x)
    gradient[:-1] = -400.0 * here * r - 2.0 * s
    gradient[-1] = 0.0
    gradient[1:] += 200.0 * r
    return 100.0 * (r @ r) + s @ s, gradient


def rosenbrock_loop(x: Array) -> Callable[[], tuple[Any, Any]]:
    import _loops

    def call() -> tuple[Any, Any]:
        gradient = np.empty_like(x)
        return _loops.rosenbrock(x, gradient), gradient

    return call


def logistic(xp: Any) -> Loss:
    zero = xp.zeros(())  # torch takes no Python number here

    def f(w: Array, x: Array, y: Array) -> Any:
        return xp.mean(xp.logaddexp(zero, -y * (x @ w))) + 0.5 * PENALTY * xp.sum(w * w)

    return f


def logistic_by_hand(w: Array, x: Array, y: Array) -> tuple[Any, Any]:
    t = -y * (x @ w)
    value = np.mean(np.logaddexp(0.0, t)) + 0.5 * PENALTY * (w @ w)
    return value, (y / (1.0 + np.exp(-t))) @ x / -y.size + PENALTY * w


def logistic_loop(w: Array, x: Array, y: Array) -> Callable[[], tuple[Any, Any]]:
    import _loops

    def call() -> tuple[Any, Any]:
        gradient = np.empty_like(w)
        return _loops.logistic(w, x, y, PENALTY, gradient), gradient

    return call


def variation(xp: Any) -> Loss:
    def f(u: Array) -> Any:
        down = u[1:, :-1] - u[:-1, :-1]
        across = u[:-1, 1:] - u[:-1, :-1]
        return xp.sum(xp.sqrt(down**2 + across**2 + EPS))

    return f


def variation_by_hand(u: Array) -> tuple[Any, Any]:
    down = u[1:, :-1] - u[:-1, :-1]
    across = u[:-1, 1:] - u[:-1, :-1]
    length = np.sqrt(down * down + across * across + EPS)
    value = np.sum(length)
    down /= length
    across /= length
    gradient = np.zeros_like(u)
    gradient[1:, :-1] += down
    gradient[:-1, 1:] += across
    down += across
    gradient[:-1, :-1] -= down
    return value, gradient


def variation_loop(u: Array) -> Callable[[], tuple[Any, Any]]:
    import _loops

    def call() -> tuple[Any, Any]:
        gradient = np.empty_like(u)
        return _loops.variation(u, EPS, gradient), gradient

    return call


def network(xp: Any) -> Loss:
    largest = xp.amax if xp.__name__ == "torch" else xp.max  # torch.max returns positions too

    def f(weights: dict[str, Array], x: Array, labels: Array) -> Any:
        h = xp.tanh(x @ weights["w1"] + weights["b1"])
        h = xp.tanh(h @ weights["w2"] + weights["b2"])
        z = h @ weights["w3"] + weights["b3"]
        z = z - largest(z, axis=1, keepdims=True)
        return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - xp.sum(labels * z, axis=1))

    return f


def network_by_hand(weights: dict[str, Array], x: Array, labels: Array) -> tuple[Any, Any]:
    w2, w3 = weights["w2"], weights["w3"]
    h1 = np.tanh(x @ weights["w1"] + weights["b1"])
    h2 = np.tanh(h1 @ w2 + weights["b2"])
    z = h2 @ w3 + weights["b3"]
    z -= np.max(z, axis=1, keepdims=True)
    e = np.exp(z)
    weight = np.sum(e, axis=1, keepdims=True)
    value = np.mean(np.log(weight[:, 0]) - np.sum(labels * z, axis=1))
    g3 = (e / weight - labels) / len(x)
    g2 = (g3 @ w3.T) * (1.0 - h2 * h2)
    g1 = (g2 @ w2.T) * (1.0 - h1 * h1)
    gradient = {"w1": x.T @ g1, "w2": h1.T @ g2, "w3": h2.T @ g3}
    return value, gradient | {"b1": g1.sum(axis=0), "b2": g2.sum(axis=0), "b3": g3.sum(axis=0)}


def network_loop(
    weights: dict[str, Array], x: Array, labels: Array
) -> Callable[[], tuple[Any, dict[str, Array]]]:
    import _loops

    return _loops.network(weights, x, labels)


def workloads(quick: bool) -> dict[str, Workload]:
    """Return the losses with their data, by short name."""
    rng = np.random.default_rng(71)
    length = 1 << 10 if quick else 10**6
    rows, columns = (1 << 8, 20) if quick else (1 << 15, 100)
    side = 48 if quick else 2048
    batch, *layers = (32, 40, 24, 24, 10) if quick else (256, 784, 512, 512, 10)
    table = rng.normal(size=(rows, columns))
    direction = rng.normal(size=columns) / np.sqrt(columns)
    sides = np.where(table @ direction + rng.normal(size=rows) > 0, 1.0, -1.0)
    weights = {}
    for k, (before, after) in enumerate(itertools.pairwise(layers), start=1):
        weights[f"w{k}"] = rng.normal(size=(before, after)) / np.sqrt(before)
        weights[f"b{k}"] = 0.1 * rng.normal(size=after)
    labels = np.eye(layers[-1])[rng.integers(layers[-1], size=batch)]
    return {
        "rosenbrock": Workload(
            f"Rosenbrock by slices, {length:,} elements",
            rosenbrock,
            (rng.normal(size=length),),
            rosenbrock_by_hand,
            rosenbrock_loop,
        ),
        "logistic": Workload(
            f"logistic regression, {rows:,} x {columns}",
            logistic,
            (0.5 * direction, table, sides),
            logistic_by_hand,
            logistic_loop,
        ),
        "variation": Workload(
            f"total variation, {side} x {side}",
            variation,
            (rng.random((side, side)),),
            variation_by_hand,
            variation_loop,
        ),
        "network": Workload(
            f"network {'-'.join(map(str, layers))}, batch {batch}",
            network,
            (weights, rng.normal(size=(batch, layers[0])), labels),
            network_by_hand,
            network_loop,
        ),
    }


def mapped(change: Callable[[Array], Array], tree: Any) -> Any:
    """Return an array, or a dict of arrays, with every array changed."""
    return {name: change(leaf) for name, leaf in tree.items()} if isinstance(tree, dict) else change(tree)


def flat(result: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return (value, gradient, ...), the members of a dict by name."""
    value, gradient = result
    if isinstance(gradient, dict):
        return (value, *(gradient[name] for name in sorted(gradient)))
    return value, gradient


def nbad_contestants(work: Workload) -> list[Contestant]:
    nbad = _bench.load_nbad()
    f, arguments = work.make(np), work.arguments
    eager = nbad.value_and_grad(f)
    replayed = nbad.value_and_grad(nbad.compile(f))
    return [
        Contestant("nbad", lambda: eager(*arguments), flat),
        Contestant("nbad compiled", lambda: replayed(*arguments), flat),
        Contestant(
            "nbad compiled, first call",
            lambda: nbad.value_and_grad(nbad.compile(f))(*arguments),
            flat,
        ),
    ]


def numba_contestants(work: Workload) -> list[Contestant]:
    return [Contestant("numba, loops by hand", work.loop(*work.arguments), flat)]


def jax_contestants(work: Workload) -> list[Contestant]:
    if not _bench.installed("jax"):
        return []
    import jax

    arguments = [mapped(jax.numpy.asarray, argument) for argument in work.arguments]
    both = jax.jit(jax.value_and_grad(work.make(jax.numpy)))
    return [Contestant("JAX jit", lambda: jax.block_until_ready(both(*arguments)), flat)]


def torch_contestants(work: Workload) -> list[Contestant]:
    if not _bench.installed("torch"):
        return []
    torch = _bench.load_torch()
    first, *rest = (mapped(lambda leaf: torch.from_numpy(leaf.copy()), tree) for tree in work.arguments)
    leaves = [first[name] for name in sorted(first)] if isinstance(first, dict) else [first]
    for leaf in leaves:
        leaf.requires_grad_()
    f = work.make(torch)

    def call() -> tuple[Any, ...]:
        value = f(first, *rest)
        return (value.detach(), *torch.autograd.grad(value, leaves))

    return [Contestant("torch", call)]


def autograd_contestants(work: Workload) -> list[Contestant]:
    if not _bench.installed("autograd"):
        return []
    import autograd
    import autograd.numpy

    both = autograd.value_and_grad(work.make(autograd.numpy))
    return [Contestant("autograd", lambda: both(*work.arguments), flat)]


def advect_contestants(work: Workload) -> list[Contestant]:
    if not _bench.installed("advect"):
        return []
    import advect

    f, arguments = work.make(np), work.arguments
    both = advect.value_and_grad(f)
    staged = advect.value_and_grad(advect.stage(f, *arguments))
    return [
        Contestant("advect", lambda: both(*arguments), flat),
        Contestant("advect staged", lambda: staged(*arguments), flat),
    ]


def contestants(work: Workload) -> list[Contestant]:
    """Return everyone; NumPy by hand comes first, because it is what the others are compared with."""
    makers = (
        nbad_contestants,
        numba_contestants,
        jax_contestants,
        torch_contestants,
        autograd_contestants,
        advect_contestants,
    )
    by_hand = Contestant("NumPy by hand", lambda: work.by_hand(*work.arguments), flat)
    return [by_hand, *(contestant for make in makers for contestant in make(work))]


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=15)
    names = tuple(workloads(quick=True))
    parser.add_argument("--only", choices=names, action="append", help="one loss; may be given several times")
    options = parser.parse_args()
    _bench.prepare()
    session = Session("compiled", options)
    rtol = 1e-10
    print(f"gradients must agree to {rtol:.0e} of their largest element\n")
    for name, work in workloads(options.quick).items():
        if name not in (options.only or names):
            continue
        found = contestants(work)
        session.measure(work.title, found, rtol=rtol)
        session.table(work.title, found, "nbad compiled")
        replayed = find(found, "nbad compiled")
        jax, loop = find(found, "JAX jit"), find(found, "numba, loops by hand")
        session.aim(f"{work.title}: JAX jit / nbad compiled", ratio(jax, replayed), at_least=1.0)
        session.aim(f"{work.title}: nbad compiled / numba by hand", ratio(replayed, loop), at_most=1.3)
        recording = ratio(find(found, "nbad compiled, first call"), find(found, "nbad"))
        session.aim(f"{work.title}: first compiled call / uncompiled call", recording, at_most=2.0)
        print()
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
