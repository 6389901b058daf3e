"""Time the first gradient of a fresh process, with an empty kernel cache and with a filled one.

Each run is a process of its own; the seconds count from its start. Run ``python perf/cold_start.py``.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import _bench
from _bench import Session, Table, progress

WORKER = """
import time
started = time.time()
import numpy as np
{imports}
imported = time.time()
x = np.linspace(0.1, 1.0, {size})
{gradient}
print(started, imported, time.time(), float(np.sum(np.asarray(gradient))))
"""

LOSS = "{np}.sum({np}.exp(-x * x) * {np}.sin(3 * x) + {np}.log1p(x * x))"
CYCLIC = (
    "{np}.sum({np}.fft.irfftn({np}.fft.rfftn(x.reshape(32, 32)) * {np}.fft.rfftn(v), s=(32, 32){axes}) ** 2)"
)
AXES = ", axes=(0, 1)"
KERNEL = "v = x.reshape(32, 32) ** 2"


def programs(case: str) -> dict[str, tuple[str, str]]:
    """Return the imports and the first gradient of each library that can do the case."""
    conv = case == "convolution"
    kernel = KERNEL + "\n" if conv else ""
    plain = "np.sum(nbad.convolve(x.reshape(32, 32), v, mode='wrap') ** 2)" if conv else LOSS.format(np="np")
    jax = CYCLIC.format(np="jnp", axes=AXES) if conv else LOSS.format(np="jnp")
    torch = CYCLIC.format(np="torch", axes="") if conv else LOSS.format(np="torch")
    advect = CYCLIC.format(np="np", axes=AXES) if conv else LOSS.format(np="np")
    found = {
        "nbad": ("import nbad", f"{kernel}gradient = nbad.grad(lambda x: {plain})(x)"),
        "jax": (
            "import jax, jax.numpy as jnp",
            f"{kernel}gradient = jax.jit(jax.grad(lambda x: {jax}))(jnp.asarray(x))",
        ),
        "torch": (
            "import torch",
            f"{kernel.replace('x.reshape', 'torch.from_numpy(x).reshape')}"
            f"x = torch.from_numpy(x).requires_grad_()\ngradient, = torch.autograd.grad({torch}, x)",
        ),
        "advect": ("import advect", f"{kernel}gradient = advect.grad(lambda x: {advect})(x)"),
    }
    if not conv:
        found["autograd"] = (
            "import autograd, autograd.numpy as anp",
            f"gradient = autograd.grad(lambda x: {LOSS.format(np='anp')})(x)",
        )
    return {name: program for name, program in found.items() if name == "nbad" or _bench.installed(name)}


def run(imports: str, gradient: str, cache: str) -> tuple[list[float], float]:
    """Run one process; return the seconds of its three parts and a number that stands for the gradient."""
    source = WORKER.format(imports=imports, gradient=gradient, size=1024)
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    before = time.time()
    command = [sys.executable, "-P", "-c", source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    started, imported, ended, total = map(float, done.stdout.split()[-4:])
    return [started - before, imported - started, ended - imported], total


def measure(session: Session, case: str) -> None:
    """Run every library in turn, nbad first with an empty cache and then with the one that it left."""
    title = f"first gradient of a fresh process, {case}"
    runs: dict[str, list[list[float]]] = {}
    totals: dict[str, float] = {}
    for number in range(session.rounds):
        with tempfile.TemporaryDirectory() as cache:
            entries = [(name, name, program) for name, program in programs(case).items()]
            nbad = entries.pop(0)[2]
            entries = [("nbad, empty cache", "nbad", nbad), ("nbad, warm cache", "nbad", nbad), *entries]
            for label, name, program in entries:
                progress(f"{title}: round {number + 1} of {session.rounds}, {label}")
                runs.setdefault(label, [])
                try:
                    seconds, totals[label] = run(*program, cache)
                except RuntimeError as error:
                    print(f"{label}: {_bench.one_line(error)}")
                    if name == "nbad":
                        session.failures.append(f"{title}: {label} failed")
                    continue
                runs[label].append(seconds)
    progress("")
    first = next(iter(totals), None)
    rows: list[list[Any]] = []
    for label, results in runs.items():
        if not results:
            rows.append([label, *[None] * 6])
            continue
        whole = [sum(parts) for parts in results]
        deviation = session.agree(label, [totals[label]], str(first), [totals[str(first)]], 1e-9)
        parts = [statistics.median(part) for part in zip(*results, strict=True)]
        rows.append([label, statistics.median(whole), min(whole), *parts, f"{deviation or 0:.0e}"])
    columns = ["", "median s", "min s", "interpreter, s", "imports, s", "first gradient, s", "differs by"]
    session.show(Table(title, columns, rows))
    session.samples[title] = [{label: [sum(parts) for parts in results] for label, results in runs.items()}]
    found = {row[0]: row[1] for row in rows}
    session.aim(f"{case}, empty cache, seconds", found["nbad, empty cache"], at_most=5.0)
    session.aim(f"{case}, warm cache, seconds", found["nbad, warm cache"], at_most=1.5)
    print()


def main() -> int:
    options = _bench.arguments(__doc__.splitlines()[0], rounds=5).parse_args()
    _bench.prepare()
    session = Session("cold_start", options)
    for case in ("elementwise", "convolution"):
        measure(session, case)
    return session.close()


if __name__ == "__main__":
    sys.exit(main())
