"""Time what small arrays cost: a chain of 1,000 operations on 10 elements, and the gradient of ``sum(sin(x)**2)``.

The chain is Euler's method for y' = (x - 1) sin(y) from y = x over one unit of time, five operations a step: sin, times
a Python number, times x, plus, minus. Values and gradients stay of order 1 at any length. Run ``python perf/overhead.py``.
"""

import sys
from collections.abc import Callable
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, Table, find

Array = Any
LIMIT = 10.0
"""Seconds above which JAX without jit is left out."""


def chain(xp: Any, operations: int) -> Callable[[Array], Any]:
    """Return the chain as an array library writes it, with a sum at its end."""
    steps = operations // 5
    h = 1.0 / steps
    sin, add_up = xp.sin, xp.sum

    def f(x: Array) -> Any:
        y = x
        for _ in range(steps):
            s = sin(y)
            t = s * h
            p = t * x
            q = y + p
            y = q - t
        return add_up(y)

    return f


def sine_square(xp: Any) -> Callable[[Array], Any]:
    """Return the loss of three elements."""

    def f(x: Array) -> Any:
        return xp.sum(xp.sin(x) ** 2)

    return f


def gradient_only(gradient: Array) -> tuple[Array]:
    """Return what is compared."""
    return (gradient,)


def split(make: Callable[[Any], Callable[[Array], Any]], x: Array) -> list[Contestant]:
    """Return whole gradients, and forward and sweep apart where a library has them, for everyone but JAX."""
    nbad = _bench.load_nbad()
    f = make(np)
    whole = nbad.grad(f)
    _, pullback = nbad.vjp(f, x)
    found = [
        Contestant("nbad", lambda: whole(x), gradient_only),
        Contestant("nbad, forward", lambda: nbad.vjp(f, x), None),
        Contestant("nbad, sweep", lambda: pullback(1.0), gradient_only),
    ]
    if _bench.installed("autograd"):
        import autograd
        import autograd.numpy

        f_autograd = make(autograd.numpy)
        whole_autograd = autograd.grad(f_autograd)
        back, _ = autograd.make_vjp(f_autograd)(x)
        found += [
            Contestant("autograd", lambda: whole_autograd(x), gradient_only),
            Contestant("autograd, forward", lambda: autograd.make_vjp(f_autograd)(x), None),
            Contestant("autograd, sweep", lambda: back(1.0), gradient_only),
        ]
    if _bench.installed("torch"):
        torch = _bench.load_torch()
        a = torch.from_numpy(x.copy()).requires_grad_()
        f_torch = make(torch)
        kept = f_torch(a)
        found += [
            Contestant("torch", lambda: torch.autograd.grad(f_torch(a), a)),
            Contestant("torch, forward", lambda: f_torch(a), None),
            Contestant("torch, sweep", lambda: torch.autograd.grad(kept, a, retain_graph=True)),
        ]
    if _bench.installed("advect"):
        import advect

        whole_advect = advect.grad(f)
        found += [
            Contestant("advect", lambda: whole_advect(x), gradient_only),
            Contestant("advect, forward", lambda: advect.vjp(f)(x), None),  # its pullback runs once only
        ]
    return found


def eager_jax(make: Callable[[Any], Callable[[Array], Any]], x: Array) -> list[Contestant]:
    """Return JAX without jit, unless one call takes too long."""
    if not _bench.installed("jax"):
        return []
    import time

    import jax

    a = jax.numpy.asarray(x)
    gradient = jax.grad(make(jax.numpy))
    gradient(a)
    start = time.perf_counter()
    jax.block_until_ready(gradient(a))
    taken = time.perf_counter() - start
    if taken > LIMIT:
        print(f"JAX without jit is left out: one call takes {taken:.0f} s")
        return []
    return [Contestant("JAX without jit", lambda: jax.block_until_ready(gradient(a)), gradient_only)]


def compiled(make: Callable[[Any], Callable[[Array], Any]], x: Array) -> list[Contestant]:
    """Return those that trace once and replay: whole gradients, and the function alone."""
    nbad = _bench.load_nbad()
    f = make(np)
    replayed = nbad.compile(f)
    whole = nbad.grad(replayed)
    found = [
        Contestant("nbad compiled", lambda: whole(x), gradient_only),
        Contestant("nbad compiled, forward", lambda: replayed(x), None),
        Contestant("nbad compiled, first call", lambda: nbad.grad(nbad.compile(f))(x), gradient_only),
    ]
    if _bench.installed("jax"):
        import jax

        a = jax.numpy.asarray(x)
        f_jax = jax.jit(make(jax.numpy))
        jitted = jax.jit(jax.grad(make(jax.numpy)))
        found += [
            Contestant("JAX jit", lambda: jax.block_until_ready(jitted(a)), gradient_only),
            Contestant("JAX jit, forward", lambda: jax.block_until_ready(f_jax(a)), None),
        ]
    if _bench.installed("advect"):
        import advect

        tape = advect.stage(f, x)
        staged = advect.grad(tape)
        found += [
            Contestant("advect staged", lambda: staged(x), gradient_only),
            Contestant("advect staged, forward", lambda: tape(x), None),
        ]
    return found


def chain_table(title: str, contestants: list[Contestant], operations: int) -> Table:
    """Return microseconds per operation, whole and apart."""
    whole = [c for c in contestants if not c.name.endswith((", forward", ", sweep"))]
    zero = find(contestants, "nbad")
    rows: list[list[Any]] = []
    for c in whole:
        name = c.name
        parts = [find(contestants, f"{name}{part}") for part in ("", ", forward", ", sweep")]
        rows.append(
            [
                name,
                *(part and part / operations * 1e6 for part in parts),
                _bench.ratio(parts[0], zero),
                "" if c.deviation is None else f"{c.deviation:.0e}",
            ]
        )
    return Table(
        title,
        ["", "gradient, us/op", "forward, us/op", "sweep, us/op", "gradient / nbad", "differs by"],
        rows,
    )


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=15)
    options = parser.parse_args()
    _bench.prepare()
    session = Session("overhead", options)
    rtol = 1e-10
    print(f"gradients must agree to {rtol:.0e} of their largest element\n")

    operations = 50 if options.quick else 1000
    x = np.linspace(0.5, 1.5, 10)

    def make(xp: Any) -> Callable[[Array], Any]:
        return chain(xp, operations)

    floor = chain(np, operations)
    contestants = (
        split(make, x)
        + compiled(make, x)
        + eager_jax(make, x)
        + [Contestant("NumPy (no gradient)", lambda: floor(x), None)]
    )
    title = f"a chain of {operations:,} operations on 10 elements"
    session.measure(title, contestants, rtol=rtol)
    session.show(chain_table(title, contestants, operations))
    whole = find(contestants, "nbad")
    session.aim(
        "recording, forward and sweep, us per operation", whole and whole / operations * 1e6, at_most=3.0
    )
    replayed = find(contestants, "nbad compiled")
    session.aim("compiled gradient, us per operation", replayed and replayed / operations * 1e6, at_most=0.15)
    first = find(contestants, "nbad compiled, first call")
    session.aim("chain: first compiled call / uncompiled call", _bench.ratio(first, whole), at_most=2.0)
    print()

    x = np.array([0.3, 0.7, 1.1])
    contestants = [c for c in split(sine_square, x) if ", " not in c.name]
    contestants += [c for c in compiled(sine_square, x) if not c.name.endswith(", forward")]
    contestants += eager_jax(sine_square, x)
    plain = sine_square(np)
    contestants.append(Contestant("NumPy (no gradient)", lambda: plain(x), None))
    title = "gradient of sum(sin(x)**2), 3 elements"
    session.measure(title, contestants, rtol=rtol)
    session.table(title, contestants, "nbad compiled", scale=1e6, unit="us")
    replayed, jax = find(contestants, "nbad compiled"), find(contestants, "JAX jit")
    session.aim("3 elements: compiled gradient, us", replayed and replayed * 1e6, at_most=3.0)
    session.aim("3 elements: JAX jit / nbad compiled", _bench.ratio(jax, replayed), at_least=1.0)
    first = find(contestants, "nbad compiled, first call")
    session.aim(
        "3 elements: first compiled call / uncompiled call",
        _bench.ratio(first, find(contestants, "nbad")),
        at_most=2.0,
    )
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
