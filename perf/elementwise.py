"""Time an elementwise loss, ``sum(exp(-x*x)*sin(3*x) + log1p(x*x))``, value and gradient, by nbad and by its peers.

Forward and sweep are timed apart where a library allows it; compiled, they are one pass. Run ``python perf/elementwise.py``.
"""

import itertools
import sys
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, find, ratio

Array = Any


def loss(xp: Any) -> Any:
    """Return the loss as an array library writes it."""

    def f(x: Array) -> Any:
        return xp.sum(xp.exp(-x * x) * xp.sin(3 * x) + xp.log1p(x * x))

    return f


def numpy_gradient(x: Array) -> tuple[Any, Any]:
    """Return value and gradient by hand."""
    square = x * x
    e, s, c = np.exp(-square), np.sin(3 * x), np.cos(3 * x)
    return np.sum(e * s + np.log1p(square)), e * (3 * c - 2 * x * s) + 2 * x / (1 + square)


def nbad_contestants(x: Array) -> list[Contestant]:
    nbad = _bench.load_nbad()
    f = loss(np)
    both = nbad.value_and_grad(f)
    compiled = nbad.compile(f)
    replayed = nbad.value_and_grad(compiled)
    value, pullback = nbad.vjp(f, x)
    one = np.ones((), x.dtype)
    # With the same input again the value would be that of the last call, without any work.
    turns = itertools.cycle((x, x[::-1].copy()))
    return [
        Contestant("nbad", lambda: both(x)),
        Contestant("nbad, forward alone", lambda: nbad.vjp(f, x), None),
        Contestant("nbad, sweep alone", lambda: pullback(one), lambda gradient: (value, gradient)),
        Contestant("nbad compiled", lambda: replayed(x)),
        Contestant("nbad compiled, value alone", lambda: compiled(next(turns)), None),
        Contestant("nbad compiled, first call", lambda: nbad.value_and_grad(nbad.compile(f))(x)),
    ]


def numba_contestants(x: Array) -> list[Contestant]:
    import _loops

    one, two, three = (x.dtype.type(number) for number in (1, 2, 3))

    def call() -> tuple[Any, Any]:
        gradient = np.empty_like(x)
        return _loops.smooth(x, gradient, one, two, three), gradient

    return [Contestant("numba, one loop by hand", call)]


def jax_contestants(x: Array) -> list[Contestant]:
    if not _bench.installed("jax"):
        return []
    import jax

    a = jax.numpy.asarray(x)
    f = loss(jax.numpy)
    both, alone = jax.jit(jax.value_and_grad(f)), jax.jit(f)
    return [
        Contestant("JAX jit", lambda: jax.block_until_ready(both(a))),
        Contestant("JAX jit, value alone", lambda: jax.block_until_ready(alone(a)), None),
    ]


def torch_contestants(x: Array) -> list[Contestant]:
    if not _bench.installed("torch"):
        return []
    torch = _bench.load_torch()
    a = torch.from_numpy(x.copy()).requires_grad_()
    f = loss(torch)

    def both() -> tuple[Any, Any]:
        value = f(a)
        return value.detach(), torch.autograd.grad(value, a)[0]

    kept = f(a)
    return [
        Contestant("torch", both),
        Contestant("torch, forward alone", lambda: f(a), None),
        Contestant(
            "torch, backward alone",
            lambda: torch.autograd.grad(kept, a, retain_graph=True)[0],
            lambda gradient: (kept.detach(), gradient),
        ),
    ]


def autograd_contestants(x: Array) -> list[Contestant]:
    if not _bench.installed("autograd"):
        return []
    import autograd
    import autograd.numpy

    both = autograd.value_and_grad(loss(autograd.numpy))
    return [Contestant("autograd", lambda: both(x))]


def advect_contestants(x: Array) -> list[Contestant]:
    if not _bench.installed("advect"):
        return []
    import advect

    both = advect.value_and_grad(loss(np))
    staged = advect.value_and_grad(advect.stage(loss(np), x))
    return [Contestant("advect", lambda: both(x)), Contestant("advect staged", lambda: staged(x))]


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=15)
    parser.add_argument("--size", type=int, default=1 << 20, help="elements (default %(default)s)")
    parser.add_argument("--dtype", choices=("float64", "float32", "both"), default="both")
    options = parser.parse_args()
    _bench.prepare()
    session = Session("elementwise", options)
    size = 1 << 12 if options.quick else options.size
    for dtype in ("float64", "float32") if options.dtype == "both" else (options.dtype,):
        x = np.random.default_rng(1).normal(size=size).astype(dtype)
        rtol = 1e-10 if dtype == "float64" else 1e-5
        print(f"{dtype}: gradients must agree to {rtol:.0e} of their largest element\n")
        contestants = [
            Contestant("NumPy by hand", lambda x=x: numpy_gradient(x)),
            Contestant("NumPy, forward alone", lambda x=x: loss(np)(x), None),
        ]
        makers = (
            nbad_contestants,
            numba_contestants,
            jax_contestants,
            torch_contestants,
            autograd_contestants,
            advect_contestants,
        )
        contestants += [contestant for make in makers for contestant in make(x)]
        title = f"elementwise, {size:,} elements, {dtype}"
        session.measure(title, contestants, rtol=rtol)
        session.table(title, contestants, "nbad compiled")
        sweep, jax = find(contestants, "nbad, sweep alone"), find(contestants, "JAX jit")
        replayed, loop = find(contestants, "nbad compiled"), find(contestants, "numba, one loop by hand")
        recording = ratio(find(contestants, "nbad compiled, first call"), find(contestants, "nbad"))
        session.aim(
            f"{dtype}: sweep alone / JAX jit's whole value and gradient", ratio(sweep, jax), at_most=1.0
        )
        session.aim(f"{dtype}: JAX jit / nbad compiled", ratio(jax, replayed), at_least=3.0)
        session.aim(f"{dtype}: nbad compiled / numba by hand", ratio(replayed, loop), at_most=1.3)
        session.aim(f"{dtype}: first compiled call / uncompiled call", recording, at_most=2.0)
        print()
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
