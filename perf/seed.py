"""Time the seed: value and gradient of ``sum((convolve(u, v) - m)**2)``, cyclic, by nbad and by its peers.

The first two tables are of functions called as they are, which compute the spectrum of v anew at each call: the gradient
with respect to u, and what it costs to ask for v too. The last two are of compiled functions called again and again with the
same v and m, as an iteration does that looks for u. Run ``python perf/seed.py``.
"""

import math
import sys
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, Table, find, ratio

Array = Any


def by_hand(
    fft: Any, u: Array, v: Array, m: Array, both: bool, v_hat: Array | None = None, **options: Any
) -> tuple[Any, ...]:
    """Return value and gradient with real transforms, each computed once; `fft` is a module like numpy.fft."""
    shape, axes = u.shape, range(u.ndim)
    u_hat = fft.rfftn(u, axes=axes, **options)
    if v_hat is None:
        v_hat = fft.rfftn(v, axes=axes, **options)
    residual = fft.irfftn(u_hat * v_hat, s=shape, axes=axes, **options) - m
    value = np.sum(residual * residual)
    g_hat = fft.rfftn(2.0 * residual, axes=axes, **options)
    gradients = [fft.irfftn(g_hat * np.conj(v_hat), s=shape, axes=axes, **options)]
    if both:
        gradients.append(fft.irfftn(g_hat * np.conj(u_hat), s=shape, axes=axes, **options))
    return value, *gradients


def losses(xp: Any) -> dict[str, Any]:
    """Return the loss as an array library writes it: with real transforms, and as the seed does."""

    def real_transforms(u: Array, v: Array, m: Array) -> Any:
        axes = tuple(range(u.ndim))
        product = xp.fft.rfftn(u, axes=axes) * xp.fft.rfftn(v, axes=axes)
        return xp.sum((xp.fft.irfftn(product, s=u.shape, axes=axes) - m) ** 2)

    def plain_formula(u: Array, v: Array, m: Array) -> Any:
        return xp.sum((xp.real(xp.fft.ifftn(xp.fft.fftn(u) * xp.fft.fftn(v))) - m) ** 2)

    return {"hand-written rfft": real_transforms, "plain formula": plain_formula}


def flat(result: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return (value, gradient, ...) for a value and one gradient or several."""
    value, gradient = result
    return (value, *gradient) if isinstance(gradient, tuple) else (value, gradient)


def nbad_losses(compiled: bool) -> dict[str, Any]:
    """Return the loss by convolve, with real transforms and as the seed writes it."""
    nbad = _bench.load_nbad()

    def convolved(u: Array, v: Array, m: Array) -> Any:
        return np.sum((nbad.convolve(u, v, mode="wrap") - m) ** 2)

    first = "nbad compiled" if compiled else "nbad"
    functions = {first: convolved, **{f"{first}, {name}": f for name, f in losses(np).items()}}
    return {name: nbad.compile(f) for name, f in functions.items()} if compiled else functions


def nbad_contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    nbad = _bench.load_nbad()
    functions = nbad_losses(compiled=False)
    if both:
        functions |= nbad_losses(compiled=True)
    gradients = {name: nbad.value_and_grad(f, (0, 1) if both else 0) for name, f in functions.items()}
    return [Contestant(name, lambda g=g: g(u, v, m), flat) for name, g in gradients.items()]


def jax_contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    if not _bench.installed("jax"):
        return []
    import jax

    arrays = [jax.numpy.asarray(x) for x in (u, v, m)]
    found = []
    for name, f in losses(jax.numpy).items():
        gradient = jax.jit(jax.value_and_grad(f, (0, 1) if both else 0))
        found.append(
            Contestant(f"JAX jit, {name}", lambda g=gradient: jax.block_until_ready(g(*arrays)), flat)
        )
    return found


def torch_contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    if not _bench.installed("torch"):
        return []
    torch = _bench.load_torch()
    a, b, c = (torch.from_numpy(x.copy()) for x in (u, v, m))
    a.requires_grad_()
    b.requires_grad_(both)
    wrt = (a, b) if both else (a,)

    def call() -> tuple[Any, ...]:
        product = torch.fft.rfftn(a) * torch.fft.rfftn(b)
        value = ((torch.fft.irfftn(product, s=a.shape) - c) ** 2).sum()
        return (value.detach(), *torch.autograd.grad(value, wrt))

    return [Contestant("torch, hand-written rfft", call)]


def autograd_contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    if not _bench.installed("autograd"):
        return []
    import autograd
    import autograd.numpy

    # Its rule for rfftn refuses odd lengths of the last axis, as the seed's 23.
    gradient = autograd.value_and_grad(losses(autograd.numpy)["plain formula"], (0, 1) if both else 0)
    return [Contestant("autograd, plain formula", lambda: gradient(u, v, m), flat)]


def advect_contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    if not _bench.installed("advect"):
        return []
    import advect

    wrt = (0, 1) if both else 0
    found = []
    for name, f in losses(np).items():
        dynamic = advect.value_and_grad(f, wrt)
        found.append(Contestant(f"advect, {name}", lambda g=dynamic: g(u, v, m), flat))
    staged = advect.value_and_grad(advect.stage(losses(np)["hand-written rfft"], u, v, m), wrt)
    found.append(Contestant("advect staged, hand-written rfft", lambda: staged(u, v, m), flat))
    return found


def contestants(u: Array, v: Array, m: Array, both: bool) -> list[Contestant]:
    """Return everyone; NumPy by hand comes first, because it is what the others are compared with."""
    found = [Contestant("NumPy by hand, rfft", lambda: by_hand(np.fft, u, v, m, both))]
    if _bench.installed("scipy"):
        import scipy.fft

        name = f"scipy.fft by hand, rfft, {_bench.THREADS} workers"
        found.append(Contestant(name, lambda: by_hand(scipy.fft, u, v, m, both, workers=_bench.THREADS)))
    makers = (nbad_contestants, jax_contestants, torch_contestants, autograd_contestants, advect_contestants)
    return found + [contestant for make in makers for contestant in make(u, v, m, both)]


def jax_given_spectrum(u: Array, v: Array, m: Array) -> tuple[Any, Any]:
    """Return value and gradient by JAX where the caller keeps the spectrum of v, and a call without arguments for each."""
    import jax

    a, b, c = (jax.numpy.asarray(x) for x in (u, v, m))
    axes = tuple(range(u.ndim))
    b_hat = jax.numpy.fft.rfftn(b, axes=axes)

    def f(u: Array, v_hat: Array, m: Array) -> Any:
        product = jax.numpy.fft.rfftn(u, axes=axes) * v_hat
        return jax.numpy.sum((jax.numpy.fft.irfftn(product, s=u.shape, axes=axes) - m) ** 2)

    alone, both = jax.jit(jax.grad(f)), jax.jit(jax.value_and_grad(f))
    return (
        lambda: jax.block_until_ready(alone(a, b_hat, c)),
        lambda: jax.block_until_ready(both(a, b_hat, c)),
    )


def replayed(u: Array, v: Array, m: Array) -> tuple[list[Contestant], list[Contestant]]:
    """Return the gradient in u alone, and value and gradient, by those that compile; v and m stay the same."""
    nbad = _bench.load_nbad()
    alone, both = [], []

    def add(name: str, gradient: Any, value_and_gradient: Any) -> None:
        alone.append(Contestant(name, gradient, lambda result: (result,)))
        both.append(Contestant(name, value_and_gradient, flat))

    if _bench.installed("scipy"):
        import scipy.fft as fft

        workers = _bench.THREADS
        v_hat = fft.rfftn(v, workers=workers)

        def hand() -> tuple[Any, ...]:
            return by_hand(fft, u, v, m, False, v_hat, workers=workers)

        add(f"scipy.fft by hand, spectrum of v kept, {workers} workers", lambda: hand()[1], hand)
    for name, f in nbad_losses(compiled=True).items():
        gradient, value_and_gradient = nbad.grad(f), nbad.value_and_grad(f)
        add(name, lambda g=gradient: g(u, v, m), lambda g=value_and_gradient: g(u, v, m))
    if _bench.installed("jax"):
        import jax

        arrays = [jax.numpy.asarray(x) for x in (u, v, m)]
        for name, f in losses(jax.numpy).items():
            gradient, value_and_gradient = jax.jit(jax.grad(f)), jax.jit(jax.value_and_grad(f))
            add(
                f"JAX jit, {name}",
                lambda g=gradient: jax.block_until_ready(g(*arrays)),
                lambda g=value_and_gradient: jax.block_until_ready(g(*arrays)),
            )
        add("JAX jit, spectrum of v kept by hand", *jax_given_spectrum(u, v, m))
    if _bench.installed("advect"):
        import advect

        f = advect.stage(losses(np)["hand-written rfft"], u, v, m)
        gradient, value_and_gradient = advect.grad(f), advect.value_and_grad(f)
        add(
            "advect staged, hand-written rfft",
            lambda: gradient(u, v, m),
            lambda: value_and_gradient(u, v, m),
        )
    return alone, both


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=7)
    parser.add_argument("--shape", default="512x512x23", help="shape of u, v and m (default %(default)s)")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    options = parser.parse_args()
    _bench.prepare()
    session = Session("seed", options)
    shape = (24, 20, 7) if options.quick else tuple(int(n) for n in options.shape.split("x"))
    rng = np.random.default_rng(59606)
    u, v, m = (rng.random(shape).astype(options.dtype) for _ in range(3))
    # A kernel of unit sum keeps the blurred image of the order of the image; m is darker than it, so the residual has a mean
    # and its blurred version, the gradient, does not vanish.
    v /= math.fsum(v.ravel())
    m *= 0.5
    rtol = 1e-10 if options.dtype == "float64" else 1e-5
    print(f"gradients must agree to {rtol:.0e} of their largest element\n")

    size = "x".join(map(str, shape))
    alone, together = contestants(u, v, m, False), contestants(u, v, m, True)
    session.measure(f"value and gradient, {size} {options.dtype}", alone, together, rtol=rtol)
    session.table(f"value and gradient in u, {size} {options.dtype}", alone, "nbad")
    session.table(f"value and gradient in (u, v), {size} {options.dtype}", together, "nbad")
    rows: list[list[Any]] = []
    for one in alone:
        a, b = one.median, find(together, one.name)
        rows.append([one.name, a and a * 1e3, b and b * 1e3, ratio(b, a)])
    session.show(
        Table(f"what asking for v adds, {size} {options.dtype}", ["", "u, ms", "(u, v), ms", "ratio"], rows)
    )

    nbad = find(alone, "nbad")
    jax, torch = find(alone, "JAX jit, hand-written rfft"), find(alone, "torch, hand-written rfft")
    session.aim("gradient in u, JAX jit with hand-written rfft / nbad", ratio(jax, nbad), at_least=1.5)
    session.aim("gradient in u, torch with hand-written rfft / nbad", ratio(torch, nbad), at_least=2.5)
    print()
    del alone, together

    alone, valued = replayed(u, v, m)
    session.measure(f"compiled, v and m fixed, {size} {options.dtype}", alone, valued, rtol=rtol)
    base = "nbad compiled, plain formula"
    session.table(f"compiled, v and m fixed: gradient in u, {size} {options.dtype}", alone, base)
    session.table(f"compiled, v and m fixed: value and gradient in u, {size} {options.dtype}", valued, base)
    for what, found in (("gradient", alone), ("value and gradient", valued)):
        nbad = find(found, base)
        plain, real = find(found, "JAX jit, plain formula"), find(found, "JAX jit, hand-written rfft")
        session.aim(f"{what}, v fixed: JAX jit, plain / nbad compiled, plain", ratio(plain, nbad), at_least=4)
        session.aim(
            f"{what}, v fixed: JAX jit with hand-written rfft / nbad compiled, plain",
            ratio(real, nbad),
            at_least=2.5,
        )
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
