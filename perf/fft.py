"""Time a convolution whose kernel has been transformed already, and value and gradient of its residual, beside peers.

The first table of each size is of ``ifft(fft(u) * v_hat)``, real and cyclic: two transforms, by everyone who can be told to do
only these, among them the two calls of rocket-fft on whole arrays that naive code would make. The second is of value and
gradient of ``sum((convolve(u, v) - m)**2)`` with v and m fixed, compiled where a library can. Then come linear convolutions
by SciPy's functions and by ours, each with all its transforms, and the largest memory that a fresh process takes for value
and gradient. Run ``python perf/fft.py``, with ``--shapes`` for other sizes and ``--only`` for some of the tables.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import _bench
import numpy as np
from _bench import Contestant, Session, Table, find, least, progress, ratio
from memory import forget_peak, peak, resident
from seed import losses, replayed, torch_contestants

Array = Any
SHAPES = ("512x512x23", "256x256x256", "2048x2048", "4194304", "4194301")
QUICK = ("24x20x7", "64x48", "4096", "1009")
LINEAR = (("128x128", "128x128"), ("512x512", "31x31"), ("2048x2048", "63x63"), ("4194304", "4095"))
QUICK_LINEAR = (("24x24", "5x5"), ("4096", "31"))
KINDS = ("convolution", "gradient", "linear", "memory")
LIBRARIES = (
    "nbad compiled", "JAX jit, hand-written rfft", "JAX jit, plain formula", "torch, hand-written rfft",
    "scipy.fft by hand", "autograd, plain formula",
)  # fmt: skip
MEMORY_ROUNDS = 2


def data(shape: tuple[int, ...], dtype: str) -> tuple[Array, Array, Array]:
    """Return u, a kernel v of unit sum, and a darker m, so that the gradient does not vanish."""
    rng = np.random.default_rng(59606)
    u, v, m = (rng.random(shape).astype(dtype) for _ in range(3))
    v /= math.fsum(v.ravel())
    m *= 0.5
    return u, v, m


def touch(u: Array) -> None:
    """Change one element in its last bit, and back at the next call: what saw `u` before must not answer from memory."""
    first = u.reshape(-1)[:1]
    first.view(f"u{u.itemsize}")[0] ^= 1


# The convolution alone


def by_nbad(u: Array, v: Array) -> list[Contestant]:
    """Return the passes as the rules call them, and the public function compiled with v fixed."""
    nbad = _bench.load_nbad()
    from nbad.kernels import convolution

    axes, zeros = tuple(range(u.ndim)), (0,) * u.ndim
    v_hat = convolution.spectrum(v, u.shape, axes, True)

    def passes() -> tuple[Array]:
        return (convolution.filter(u, zeros, u.shape, v_hat, False, zeros, u.shape, axes, True)[0],)

    whole = nbad.compile(lambda u: nbad.convolve(u, v, mode="wrap"))
    image = u.copy()

    def compiled() -> tuple[Array]:
        touch(image)
        return (whole(image),)

    return [Contestant("nbad", passes), Contestant("nbad compiled", compiled)]


def by_scipy(u: Array, v: Array) -> list[Contestant]:
    """Return scipy.fft with the spectrum kept, and fftconvolve, which is linear and keeps nothing."""
    if not _bench.installed("scipy"):
        return []
    import scipy.fft
    import scipy.signal

    v_hat = scipy.fft.rfftn(v)

    def kept() -> tuple[Array]:
        u_hat = scipy.fft.rfftn(u, workers=_bench.THREADS)
        u_hat *= v_hat
        return (scipy.fft.irfftn(u_hat, s=u.shape, workers=_bench.THREADS, overwrite_x=True),)

    def fftconvolve() -> Array:
        with scipy.fft.set_workers(_bench.THREADS):
            return scipy.signal.fftconvolve(u, v, mode="same")

    return [
        Contestant(f"scipy.fft, {_bench.THREADS} workers", kept),
        Contestant("scipy.signal.fftconvolve", fftconvolve, None),
    ]


def by_rocket_fft(u: Array, v: Array) -> list[Contestant]:
    """Return the two transforms of whole arrays and nothing else: the floor of naive code."""
    import numba
    from rocket_fft import c2r, r2c

    axes, threads = np.arange(u.ndim), _bench.THREADS
    half = np.empty((*u.shape[:-1], u.shape[-1] // 2 + 1), np.result_type(u.dtype, np.complex64))
    y, factor = np.empty_like(u), 1.0 / u.size

    @numba.njit
    def transforms(u: Array, half: Array, y: Array, axes: Array, factor: float, threads: int) -> None:
        r2c(u, half, axes, True, 1.0, threads)
        c2r(half, y, axes, False, factor, threads)

    return [Contestant("rocket-fft", lambda: transforms(u, half, y, axes, factor, threads), None)]


def by_pyfftw(u: Array, v: Array) -> list[Contestant]:
    """Return FFTW with measured plans, for one thread and for all; plans of long primes take minutes and are left out."""
    if not _bench.installed("pyfftw") or (max(u.shape) > 1 << 20 and max(u.shape) % 2):
        return []
    import pyfftw

    axes = tuple(range(u.ndim))
    half_shape = (*u.shape[:-1], u.shape[-1] // 2 + 1)
    v_hat = np.fft.rfftn(v).astype(np.result_type(u.dtype, np.complex64))
    found = []
    for threads in (1, _bench.THREADS):
        progress(f"FFTW plans, {threads} threads")
        x, half = pyfftw.empty_aligned(u.shape, u.dtype), pyfftw.empty_aligned(half_shape, v_hat.dtype)
        options = {"axes": axes, "threads": threads, "flags": ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")}
        forward = pyfftw.FFTW(x, half, **options)
        back = pyfftw.FFTW(half, x, direction="FFTW_BACKWARD", **options)

        def call(x: Array = x, half: Array = half, forward: Any = forward, back: Any = back) -> tuple[Array]:
            np.copyto(x, u)
            forward()
            np.multiply(half, v_hat, out=half)
            return (back(),)

        found.append(Contestant(f"pyFFTW, measured plans, {threads} threads", call))
    return found


def by_mkl(u: Array, v: Array) -> list[Contestant]:
    """Return MKL through mkl_fft."""
    if not _bench.installed("mkl_fft"):
        return []
    import mkl_fft

    v_hat = mkl_fft.rfftn(v)
    return [Contestant("mkl_fft", lambda: (mkl_fft.irfftn(mkl_fft.rfftn(u) * v_hat, s=u.shape),))]


def convolution(session: Session, size: str, dtype: str, u: Array, v: Array) -> None:
    """Measure the convolution with the spectrum at hand."""
    title = f"convolution with the spectrum at hand, {size} {dtype}"
    makers = (by_nbad, by_scipy, by_rocket_fft, by_pyfftw, by_mkl)
    contestants = [contestant for make in makers for contestant in make(u, v)]
    session.measure(title, contestants, rtol=1e-12 if dtype == "float64" else 1e-5)
    session.table(title, contestants, "nbad")
    ours = find(contestants, "nbad")
    scipy = least([c.median for c in contestants if c.name.startswith("scipy")])
    others = least([c.median for c in contestants if c.name.startswith(("pyFFTW", "mkl"))])
    session.aim(f"{size} {dtype}, SciPy / nbad", ratio(scipy, ours), at_least=1.0)
    session.aim(f"{size} {dtype}, the faster of FFTW and MKL / nbad", ratio(others, ours), at_least=1.0)
    session.aim(
        f"{size} {dtype}, nbad / rocket-fft", ratio(ours, find(contestants, "rocket-fft")), at_most=0.9
    )
    print()


# Value and gradient


def gradients(session: Session, size: str, dtype: str, u: Array, v: Array, m: Array) -> None:
    """Measure value and gradient in u, with v and m fixed."""
    title = f"value and gradient in u, {size} {dtype}"
    contestants = replayed(u, v, m)[1] + torch_contestants(u, v, m, False)
    session.measure(title, contestants, rtol=1e-10 if dtype == "float64" else 1e-5)
    base = "nbad compiled"
    session.table(title, contestants, base)
    ours = find(contestants, base)
    bound = {"float32": 1.6}.get(dtype, 2.0 if u.ndim < 3 else 2.5)
    real, plain = find(contestants, "JAX jit, hand-written rfft"), find(contestants, "JAX jit, plain formula")
    torch = find(contestants, "torch, hand-written rfft")
    session.aim(f"{size} {dtype}, JAX jit with hand-written rfft / nbad", ratio(real, ours), at_least=bound)
    session.aim(f"{size} {dtype}, JAX jit as the seed writes it / nbad", ratio(plain, ours), at_least=4)
    session.aim(f"{size} {dtype}, torch / nbad", ratio(torch, ours), at_least=4)
    print()


# Linear convolutions, as SciPy's functions define them


def linear(session: Session, size: str, kernel: str, dtype: str) -> None:
    """Measure the linear convolution with a kernel, central part, all transforms in each call."""
    if not _bench.installed("scipy"):
        return
    import scipy.fft
    import scipy.signal

    nbad = _bench.load_nbad()
    rng = np.random.default_rng(59606)
    u, v = (rng.random(tuple(int(n) for n in text.split("x"))).astype(dtype) for text in (size, kernel))
    compiled = nbad.compile(lambda u, v: nbad.convolve(u, v, mode="same"))
    image = u.copy()

    def replayed() -> Array:
        touch(image)
        return compiled(image, v)

    def by_scipy(function: Callable[..., Array]) -> Callable[[], Array]:
        def call() -> Array:
            with scipy.fft.set_workers(_bench.THREADS):
                return function(u, v, mode="same")

        return call

    def alone(result: Array) -> tuple[Array]:
        return (result,)

    contestants = [
        Contestant("nbad", lambda: nbad.convolve(u, v, mode="same"), alone),
        Contestant("nbad compiled, v fixed", replayed, alone),
        Contestant("scipy.signal.fftconvolve", by_scipy(scipy.signal.fftconvolve), alone),
        Contestant("scipy.signal.oaconvolve", by_scipy(scipy.signal.oaconvolve), alone),
    ]
    title = f"linear convolution, {size} with {kernel} {dtype}"
    session.measure(title, contestants, rtol=1e-12 if dtype == "float64" else 1e-5)
    session.table(title, contestants, "nbad")
    fastest = least([c.median for c in contestants if c.name.startswith("scipy")])
    session.aim(f"{title}, SciPy / nbad", ratio(fastest, find(contestants, "nbad")), at_least=1.0)
    print()


# Memory, each library in fresh processes


def gradient_of(library: str, u: Array, v: Array, m: Array) -> Callable[[], Any]:
    """Return a call that computes value and gradient in u; nobody copies u, v and m unless the library must."""
    name, _, loss = library.partition(", ")
    if name == "JAX jit":
        import jax

        arrays = [jax.numpy.asarray(x) for x in (u, v, m)]
        f = jax.jit(jax.value_and_grad(losses(jax.numpy)[loss]))
        return lambda: jax.block_until_ready(f(*arrays))
    if name == "torch":
        torch = _bench.load_torch()
        a, b, c = (torch.from_numpy(x) for x in (u, v, m))
        a.requires_grad_()

        def by_torch() -> Any:
            product = torch.fft.rfftn(a) * torch.fft.rfftn(b)
            value = ((torch.fft.irfftn(product, s=a.shape) - c) ** 2).sum()
            return value, torch.autograd.grad(value, (a,))

        return by_torch
    if name == "autograd":
        import autograd
        import autograd.numpy

        gradient = autograd.value_and_grad(losses(autograd.numpy)[loss])
        return lambda: gradient(u, v, m)
    if name == "scipy.fft by hand":
        import scipy.fft
        from seed import by_hand

        v_hat = scipy.fft.rfftn(v, workers=_bench.THREADS)
        return lambda: by_hand(scipy.fft, u, v, m, False, v_hat, workers=_bench.THREADS)
    nbad = _bench.load_nbad()
    g = nbad.value_and_grad(nbad.compile(lambda u, v, m: np.sum((nbad.convolve(u, v, mode="wrap") - m) ** 2)))

    def call() -> Any:
        touch(u)
        return g(u, v, m)

    return call


def work(library: str, shape: tuple[int, ...], dtype: str) -> None:
    """Measure one library in this process; print the result as JSON."""
    small = data(tuple(min(n, 16) for n in shape), dtype)
    call = gradient_of(library, *small)
    for _ in range(4):  # what is loaded, recorded and compiled is not what the arrays take
        call()
    u, v, m = data(shape, dtype)
    forget_peak()
    before = resident()
    call = gradient_of(library, u, v, m)
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
    first = peak() - before
    forget_peak()
    call()
    print(json.dumps({"first": first, "later": peak() - before, "seconds": seconds, "array": u.nbytes}))


def peaks(session: Session, size: str, dtype: str) -> None:
    """Measure the peak of value and gradient by each library."""
    title = f"memory at the peak of value and gradient, {size} {dtype}"
    rows: list[list[Any]] = []
    needed = {"JAX jit": "jax", "torch": "torch", "scipy.fft by hand": "scipy", "autograd": "autograd"}
    for library in LIBRARIES:
        package = needed.get(library.partition(", ")[0])
        if package is not None and not _bench.installed(package):
            continue
        found = []
        for number in range(min(session.rounds, MEMORY_ROUNDS)):
            progress(f"{title}: round {number + 1}, {library}")
            command = [sys.executable, __file__, "--worker", library, "--shapes", size, "--dtypes", dtype]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found.append(json.loads(done.stdout.splitlines()[-1]))
            elif library.startswith("nbad"):
                session.failures.append(f"{title}: {library} failed with exit code {done.returncode}")
        progress("")
        if found:
            tops = [statistics.median(r[when] for r in found) for when in ("first", "later")]
            rows.append([library, tops[0] / 1e6, tops[1] / 1e6, tops[1] / found[0]["array"]])
        else:
            rows.append([library, None, None, None])
    columns = ["", "first calls, peak above u, v, m, MB", "later call, MB", "later call, arrays like u"]
    session.show(Table(title, columns, rows))
    for k, when in ((1, "first calls"), (2, "a later call")):
        others = least([row[k] for row in rows[1:]])
        text = f"{size} {dtype}, {when}, peak of the leanest peer / nbad"
        session.aim(text, ratio(others, rows[0][k]), at_least=1.0)
    print()


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--shapes", nargs="+", help=f"sizes like 512x512x23 (default {' '.join(SHAPES)})")
    parser.add_argument("--dtypes", nargs="+", choices=("float64", "float32"), default=["float64", "float32"])
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=list(KINDS), help="which tables (default all)"
    )
    parser.add_argument("--worker", choices=LIBRARIES, help="internal: measure this library in this process")
    options = parser.parse_args()
    _bench.prepare()
    sizes = options.shapes or (QUICK if options.quick else SHAPES)
    shapes = {size: tuple(int(n) for n in size.split("x")) for size in sizes}
    if options.worker:
        work(options.worker, shapes[sizes[0]], options.dtypes[0])
        return 0
    session = Session(os.path.basename(__file__).removesuffix(".py"), options)
    for size, shape in shapes.items():
        for dtype in options.dtypes:
            u, v, m = data(shape, dtype)
            if "convolution" in options.only:
                convolution(session, size, dtype, u, v)
            if "gradient" in options.only:
                gradients(session, size, dtype, u, v, m)
    if "linear" in options.only:
        for size, kernel in QUICK_LINEAR if options.quick else LINEAR:
            for dtype in options.dtypes:
                linear(session, size, kernel, dtype)
    if "memory" in options.only:
        for size in sizes[:1]:
            for dtype in options.dtypes:
                peaks(session, size, dtype)
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
