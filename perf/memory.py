"""Measure memory: a tape of a million nodes, and the bytes kept for the sweep at the seed's size.

The tape is measured in a fresh process per library: seconds for recording and sweep, growth of the peak of resident
memory, seconds to free it on a small stack. The kept bytes are what lives between the forward pass and the sweep.
Run ``python perf/memory.py``.
"""

import gc
import json
import math
import resource
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench
import numpy as np
from _bench import Session, Table, progress, ratio
from overhead import chain
from seed import losses

Array = Any
STACK = 512 * 1024
"""Bytes of stack on which a tape is freed: a recursion over its nodes would not fit."""

LIBRARIES = ("nbad", "autograd", "torch", "advect")


# A tape of a million nodes


def recorder(library: str, operations: int) -> Callable[[Array], tuple[list[Any], Callable[[], Any]]]:
    """Return a function that records the chain; it returns what holds the tape, and the sweep."""
    if library == "torch":
        torch = _bench.load_torch()

        def record(x: Array) -> tuple[list[Any], Callable[[], Any]]:
            a = torch.from_numpy(x.copy()).requires_grad_()
            kept = [chain(torch, operations)(a)]
            return kept, lambda: torch.autograd.grad(kept[0], a)[0].numpy()

    elif library == "autograd":
        import autograd
        import autograd.numpy

        def record(x: Array) -> tuple[list[Any], Callable[[], Any]]:
            kept = list(autograd.make_vjp(chain(autograd.numpy, operations))(x))
            return kept, lambda: kept[0](1.0)

    elif library == "advect":
        import advect

        def record(x: Array) -> tuple[list[Any], Callable[[], Any]]:
            kept = list(advect.vjp(chain(np, operations))(x))
            return kept, lambda: kept[1](1.0)

    else:
        nbad = _bench.load_nbad()

        def record(x: Array) -> tuple[list[Any], Callable[[], Any]]:
            kept = list(nbad.vjp(chain(np, operations), x))
            return kept, lambda: kept[1](1.0)

    return record


def resident() -> int:
    """Return the bytes that are resident now."""
    try:
        return status("VmRSS")
    except OSError:
        return peak()


def peak() -> int:
    """Return the largest number of bytes that was resident."""
    try:
        return status("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key}")


def forget_peak() -> None:
    """Start the peak anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def work(library: str, operations: int) -> None:
    """Measure one library in this process; print the result as JSON."""
    x = np.linspace(0.5, 1.5, 10)
    for _ in range(2):
        _, sweep = recorder(library, 1000)(x)
        sweep()
    del sweep, _
    record = recorder(library, operations)
    gc.collect()
    forget_peak()
    before = resident()
    start = time.perf_counter()
    kept, sweep = record(x)
    recorded = time.perf_counter()
    gradient = np.array(sweep())
    swept = time.perf_counter()
    top = peak()
    del sweep
    freed = []

    def free() -> None:
        began = time.perf_counter()
        kept.clear()
        freed.append(time.perf_counter() - began)

    threading.stack_size(STACK)
    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    print(
        json.dumps(
            {
                "forward": recorded - start,
                "sweep": swept - recorded,
                "bytes": top - before,
                "free": freed[0],
                "gradient": gradient.tolist(),
            }
        )
    )


def tape(session: Session, operations: int) -> None:
    """Measure all libraries, each in fresh processes, in turn."""
    title = f"a tape of {operations:,} operations on 10 elements"
    runs: dict[str, list[dict[str, Any]]] = {
        name: [] for name in LIBRARIES if name == "nbad" or _bench.installed(name)
    }
    for number in range(session.rounds):
        for name, results in runs.items():
            progress(f"{title}: round {number + 1} of {session.rounds}, {name}")
            command = [sys.executable, __file__, "--worker", name, "--operations", str(operations)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                results.append(json.loads(done.stdout.splitlines()[-1]))
            else:
                lines = done.stderr.strip().splitlines()
                print(f"{name} failed (exit code {done.returncode}): {lines[-1] if lines else ''}"[:300])
                if name == "nbad":
                    session.failures.append(f"{title}: nbad failed with exit code {done.returncode}")
    progress("")
    reference = next((results[0]["gradient"] for results in runs.values() if results), None)
    rows: list[list[Any]] = []
    for name, results in runs.items():
        if not results:
            rows.append([name, *[None] * 6, "error"])
            continue
        forward, sweep, free, used = (
            statistics.median(r[key] for r in results) for key in ("forward", "sweep", "free", "bytes")
        )
        whole = statistics.median(r["forward"] + r["sweep"] for r in results)
        deviations = [session.agree(name, [r["gradient"]], "the first", [reference], 1e-9) for r in results]
        worst = max((d for d in deviations if d is not None), default=0.0)
        rows.append([name, whole, forward, sweep, free, used / 1e9, used / operations, f"{worst:.0e}"])
    columns = [
        "",
        "gradient, s",
        "recording, s",
        "sweep, s",
        "freeing, s",
        "peak, GB",
        "bytes per op",
        "differs by",
    ]
    session.show(Table(title, columns, rows))
    session.samples[title] = [
        {f"{name}, {key}": [r[key] for r in results] for name, results in runs.items()}
        for key in ("forward", "sweep", "free", "bytes")
    ]
    session.aim("nbad, seconds", rows[0][1], at_most=6.0)
    session.aim("nbad, peak in GB", rows[0][5], at_most=0.4)
    print()


# Bytes kept for the sweep


def traced(make: Callable[[], Any], tidy: Callable[[], None]) -> int:
    """Return the bytes that what `make` returns keeps alive; a first call fills caches and is not looked at."""
    make()
    gc.collect()
    tidy()
    tracemalloc.start()
    try:
        held = make()
        gc.collect()
        tidy()
        found = tracemalloc.get_traced_memory()[0]
        del held
    finally:
        tracemalloc.stop()
    return found


def nothing() -> None:
    """Tidy nothing."""


def kept_nbad(linear: bool, u: Array, v: Array, m: Array) -> dict[str, list[int]]:
    """Return what nbad keeps: its own account, and what Python's allocator saw."""
    nbad = _bench.load_nbad()
    from nbad.kernels import memory

    def loss(u: Array, v: Array, m: Array) -> Any:
        w = nbad.convolve(u, v, mode="wrap")
        return np.sum(w) if linear else np.sum((w - m) ** 2)

    account: list[int] = []
    seen: list[int] = []
    for wrt in (0, (0, 1)):
        with nbad.report() as report:
            nbad.value_and_grad(loss, wrt)(u, v, m)
        account.append(report.bytes_kept)
        seen.append(traced(lambda wrt=wrt: nbad.vjp(loss, u, v, m, wrt=wrt), memory.clear))
    return {"nbad (nbad.report)": account, "nbad (tracemalloc)": seen}


def kept_jax(linear: bool, u: Array, v: Array, m: Array) -> list[int]:
    """Return the bytes of the residuals of jax.vjp, without the inputs."""
    import jax

    a, b, c = (jax.numpy.asarray(x) for x in (u, v, m))
    f = loss_of(jax.numpy, "hand-written rfft", linear)
    _, for_u = jax.vjp(lambda a: f(a, b, c), a)
    _, for_both = jax.vjp(lambda a, b: f(a, b, c), a, b)
    inputs = {x.unsafe_buffer_pointer() for x in (a, b, c)}
    found = []
    for pullback in (for_u, for_both):
        arrays = [leaf for leaf in jax.tree_util.tree_leaves(pullback) if isinstance(leaf, jax.Array)]
        buffers = {leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in arrays}
        found.append(sum(size for address, size in buffers.items() if address not in inputs))
    return found


def kept_torch(linear: bool, u: Array, v: Array, m: Array) -> list[int]:
    """Return the bytes of the tensors that torch saves for backward, without the inputs."""
    torch = _bench.load_torch()
    found = []
    for both in (False, True):
        a, b, c = (torch.from_numpy(x) for x in (u, v, m))
        a.requires_grad_()
        b.requires_grad_(both)
        inputs = {x.untyped_storage().data_ptr() for x in (a, b, c)}
        saved: dict[int, int] = {}
        alive = []

        def pack(tensor: Any, saved: dict[int, int] = saved, alive: list[Any] = alive) -> Any:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            w = torch.fft.irfftn(torch.fft.rfftn(a) * torch.fft.rfftn(b), s=a.shape)
            value = w.sum() if linear else ((w - c) ** 2).sum()
        found.append(sum(size for address, size in saved.items() if address not in inputs))
        del value
    return found


def loss_of(xp: Any, name: str, linear: bool) -> Callable[[Array, Array, Array], Any]:
    """Return the seed's loss, or the sum of the convolution alone."""
    if not linear:
        squares: Callable[[Array, Array, Array], Any] = losses(xp)[name]
        return squares

    def total(u: Array, v: Array, m: Array) -> Any:
        if name == "plain formula":
            return xp.sum(xp.real(xp.fft.ifftn(xp.fft.fftn(u) * xp.fft.fftn(v))))
        axes = tuple(range(u.ndim))
        product = xp.fft.rfftn(u, axes=axes) * xp.fft.rfftn(v, axes=axes)
        return xp.sum(xp.fft.irfftn(product, s=u.shape, axes=axes))

    return total


def kept_autograd(linear: bool, u: Array, v: Array, m: Array) -> list[int]:
    """Return the bytes that autograd's closures hold."""
    import autograd
    import autograd.numpy

    f = loss_of(autograd.numpy, "plain formula", linear)
    for_u = traced(lambda: autograd.make_vjp(f)(u, v, m), nothing)
    return [for_u, traced(lambda: autograd.make_vjp(f, (0, 1))(u, v, m), nothing)]


def kept_advect(linear: bool, u: Array, v: Array, m: Array) -> list[int]:
    """Return the bytes that advect's tape holds."""
    import advect

    f = loss_of(np, "hand-written rfft", linear)
    return [traced(lambda wrt=wrt: advect.vjp(f, wrt)(u, v, m), nothing) for wrt in (0, (0, 1))]


def residuals(session: Session, shape: tuple[int, ...]) -> None:
    """Show what everyone keeps between forward and sweep, beside the least that is possible."""
    rng = np.random.default_rng(59606)
    u, v, m = (rng.random(shape) for _ in range(3))
    spectrum = math.prod(shape[:-1]) * (shape[-1] // 2 + 1) * 16
    size = "x".join(map(str, shape))
    others = {
        "JAX, hand-written rfft (residuals of jax.vjp)": ("jax", kept_jax),
        "torch, hand-written rfft (saved tensors)": ("torch", kept_torch),
        "autograd, plain formula (tracemalloc)": ("autograd", kept_autograd),
        "advect, hand-written rfft (tracemalloc)": ("advect", kept_advect),
    }
    for linear in (True, False):
        loss = "sum(convolve(u, v))" if linear else "sum((convolve(u, v) - m)**2)"
        # The pullback of a square reads what was squared.
        minimum = [n * spectrum + (0 if linear else u.nbytes) for n in (1, 2)]
        kept: dict[str, list[int]] = {}
        try:
            kept |= kept_nbad(linear, u, v, m)
        except Exception as error:
            session.failures.append(f"{loss}: nbad: {_bench.one_line(error)}")
        for name, (module, measure) in others.items():
            if _bench.installed(module):
                progress(f"{loss}: {name}")
                kept[name] = measure(linear, u, v, m)
        progress("")
        rows: list[list[Any]] = [
            [name, a / 1e6, b / 1e6, ratio(a, minimum[0]), ratio(b, minimum[1])]
            for name, (a, b) in {"least possible": minimum, **kept}.items()
        ]
        columns = ["", "for u, MB", "for (u, v), MB", "for u / least", "for (u, v) / least"]
        session.show(Table(f"kept for the sweep of {loss}, {size} float64", columns, rows))
        mine = kept.get("nbad (nbad.report)")
        for k, asked in enumerate(("u", "(u, v)")):
            session.aim(f"{loss} in {asked}, kept / least", ratio(mine and mine[k], minimum[k]), at_most=1.0)
        print()


def main() -> int:
    parser = _bench.arguments(__doc__.splitlines()[0], rounds=3)
    parser.add_argument(
        "--operations", type=int, default=1_000_000, help="length of the tape (default %(default)s)"
    )
    parser.add_argument("--shape", default="512x512x23", help="shape of the seed (default %(default)s)")
    parser.add_argument("--worker", help="measure one library in this process (used by the script itself)")
    options = parser.parse_args()
    _bench.prepare()
    if options.worker:
        work(options.worker, options.operations)
        return 0
    session = Session("memory", options)
    tape(session, 20_000 if options.quick else options.operations)
    residuals(session, (32, 24, 7) if options.quick else tuple(int(n) for n in options.shape.split("x")))
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
