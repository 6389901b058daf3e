"""Shared parts of the benchmarks: threads, interleaved rounds, agreement, tables, the JSON file.

Owns how something is measured and shown, never what. Nothing here judges a time: a target that is missed is printed as
missed. Only a disagreement between results, or an error in nbad, ends a script with exit code 1.
"""

import argparse
import functools
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
"""Threads that everyone gets."""

PACKAGES = (
    "nbad", "numpy", "numba", "rocket-fft", "scipy", "jax", "jaxlib", "torch", "autograd", "advect", "pyFFTW", "mkl_fft"
)  # fmt: skip

SLOW = 1.0
"""Seconds of a call from which on a contestant is called fewer times: patience is better spent on close races."""

SLOW_ROUNDS = 2
"""Rounds that a slow contestant takes part in."""

Answer = Callable[[Any], Sequence[Any]]
Cell = str | float | int | None


def prepare(threads: int = THREADS) -> None:
    """Limit everyone to the same processors and threads; call it before a library that is measured is imported."""
    if hasattr(os, "sched_setaffinity"):
        # XLA and NumPy's BLAS size their pools by it; there is no other setting that XLA always obeys.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}"
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if importlib.util.find_spec("nbad") is None:
        root = str(Path(__file__).resolve().parent.parent)
        sys.path.insert(0, root)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        )


def installed(*names: str) -> bool:
    """Tell whether all of these modules can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in names)


@functools.cache
def load_nbad() -> Any:
    """Return nbad, with its threads set."""
    import nbad

    nbad.set_threads(THREADS)
    return nbad


@functools.cache
def load_torch() -> Any:
    """Return torch, with its threads set."""
    import torch

    torch.set_num_threads(THREADS)
    return torch


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one round: a smoke test, not a measurement"
    )
    parser.add_argument("--json", metavar="FILE", help="write machine, versions and numbers to FILE")
    return parser


@dataclass(slots=True)
class Contestant:
    """One way to do the work.

    Attributes
    ----------
    name : str
        What the table says.
    call : callable
        Does the work once; returns when the result is there.
    answer : callable, optional
        Turns the result into arrays that are compared; None where it cannot be compared (a forward pass alone).
    """

    name: str
    call: Callable[[], Any]
    answer: Answer | None = tuple
    seconds: list[float] = field(default_factory=list)
    deviation: float | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        """Median of the seconds of one call."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def least(self) -> float | None:
        """Least of the seconds of one call."""
        return min(self.seconds) if self.seconds else None


@dataclass(slots=True)
class Table:
    """A table as it is printed and stored."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(slots=True)
class Target:
    """What the project wants to reach; met or missed, never asserted."""

    text: str
    bound: float
    at_least: bool
    measured: float | None

    def __str__(self) -> str:
        """Return a sentence."""
        if self.measured is None:
            verdict = "not measured"
        else:
            met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
            verdict = f"measured {shown(self.measured)}, {'met' if met else 'MISSED'}"
        return f"{self.text}: at {'least' if self.at_least else 'most'} {shown(self.bound)}; {verdict}"


class Session:
    """What one script measured: tables, targets, failures, and the way to show and store them."""

    def __init__(self, script: str, options: argparse.Namespace) -> None:
        self.script = script
        self.options = options
        self.rounds: int = 1 if options.quick else options.rounds
        self.tables: list[Table] = []
        self.targets: list[Target] = []
        self.failures: list[str] = []
        self.samples: dict[str, list[dict[str, list[float]]]] = {}
        self.machine = machine()
        self.versions = versions()
        print(f"{script}: {self.machine['cpu']}, {THREADS} threads, Python {self.machine['python']}")
        print(", ".join(f"{name} {version}" for name, version in self.versions.items()))
        load = self.machine["load"]
        if load is not None and load > 0.3:
            print(f"note: other processes are busy (load average {load:.1f}); do not publish these numbers")
        if options.quick:
            print("note: --quick, a smoke test; the numbers mean nothing")
        print(flush=True)

    def measure(
        self, title: str, *groups: Sequence[Contestant], rtol: float | None = None, shortest: float = 0.02
    ) -> None:
        """Run all contestants in turn, round by round, after the answers within each group were compared.

        Parameters
        ----------
        title : str
            Name under which the samples are stored.
        *groups : sequence of Contestant
            Those that do the same work. The first one with an answer is the reference of its group.
        rtol : float, optional
            Largest difference allowed, relative to the largest element of the reference.
        shortest : float
            Seconds that one sample takes at least; short calls are repeated within it.
        """
        running: list[tuple[Contestant, int, int]] = []
        for group in groups:
            reference: tuple[str, list[Any]] | None = None
            for contestant in group:
                progress(f"{title}: {contestant.name}, first calls")
                try:
                    result = contestant.call()
                    if contestant.answer is not None:
                        answer = [np.asarray(part) for part in contestant.answer(result)]
                        if reference is None:
                            reference = contestant.name, answer
                        elif rtol is not None:
                            self._compare(contestant, answer, reference, rtol)
                        del answer
                    del result
                    # What records and plans at its first calls is ready then.
                    contestant.call()
                    once = seconds_of(contestant.call)
                    if once < SLOW:
                        contestant.call()
                        once = seconds_of(contestant.call)
                except Exception as error:
                    contestant.error = one_line(error)
                    if contestant.name.startswith("nbad"):
                        self.failures.append(f"{title}: {contestant.name}: {contestant.error}")
                    continue
                count = max(1, round(shortest / max(once, 1e-9)))
                running.append((contestant, count, SLOW_ROUNDS if once >= SLOW else self.rounds))
        for number in range(self.rounds):
            for contestant, count, rounds in running:
                if number >= rounds:
                    continue
                progress(f"{title}: round {number + 1} of {self.rounds}, {contestant.name}")
                gc.collect()
                time.sleep(0.01)  # the threads of the last contestant stop spinning
                call = contestant.call
                start = time.perf_counter()
                for _ in range(count):
                    call()
                contestant.seconds.append((time.perf_counter() - start) / count)
        progress("")
        self.samples[title] = [{c.name: c.seconds for c in group} for group in groups]

    def _compare(
        self, contestant: Contestant, answer: list[Any], reference: tuple[str, list[Any]], rtol: float
    ) -> None:
        name, expected = reference
        contestant.deviation = self.agree(contestant.name, answer, name, expected, rtol)

    def agree(
        self, name: str, answer: Sequence[Any], other: str, expected: Sequence[Any], rtol: float
    ) -> float | None:
        """Return the largest relative difference between two answers; above `rtol` it is a failure."""
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(answer, expected, strict=True)]
        if any(a.shape != b.shape for a, b in pairs):
            self.failures.append(f"{name} and {other} return different shapes")
            return None
        differences = [
            np.max(np.abs(a - b), initial=0.0) / max(float(np.max(np.abs(b), initial=0.0)), 1e-300)
            for a, b in pairs
        ]
        deviation = float(np.max(differences, initial=0.0))
        if not deviation <= rtol:  # NaN is not
            self.failures.append(f"{name} differs from {other} by {deviation:.1e}, allowed {rtol:.0e}")
        return deviation

    def table(
        self,
        title: str,
        contestants: Sequence[Contestant],
        base: str,
        *,
        scale: float = 1e3,
        unit: str = "ms",
    ) -> None:
        """Add and print the usual table: median, least, ratio to the contestant called `base`, deviation."""
        found = {contestant.name: contestant for contestant in contestants}
        zero = found[base]
        rows: list[list[Cell]] = []
        for c in contestants:
            if c.error is not None:
                rows.append([c.name, None, None, None, None, "error"])
                continue
            median, least = c.median, c.least
            rows.append(
                [
                    c.name,
                    median and median * scale,
                    least and least * scale,
                    ratio(c.median, zero.median),
                    ratio(c.least, zero.least),
                    "" if c.deviation is None else f"{c.deviation:.0e}",
                ]
            )
        columns = ["", f"median {unit}", f"min {unit}", f"median / {base}", f"min / {base}", "differs by"]
        self.show(Table(title, columns, rows))
        for c in contestants:
            if c.error is not None and not c.name.startswith("nbad"):
                print(f"{c.name}: {c.error}")

    def show(self, table: Table) -> None:
        """Add a table and print it."""
        self.tables.append(table)
        print(as_text(table), flush=True)

    def aim(
        self,
        text: str,
        measured: float | None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a target and print how it stands."""
        bound = at_most if at_least is None else at_least
        assert bound is not None
        target = Target(text, bound, at_least is not None, measured)
        self.targets.append(target)
        print(f"target: {target}", flush=True)

    def close(self) -> int:
        """Write the JSON file if one was asked for; return the exit code."""
        for failure in self.failures:
            print(f"FAILED: {failure}", file=sys.stderr)
        if self.options.json:
            content = {
                "script": self.script,
                "command": " ".join(["python", f"perf/{self.script}.py", *without_json(sys.argv[1:])]),
                "quick": self.options.quick,
                "rounds": self.rounds,
                "threads": THREADS,
                "machine": self.machine,
                "versions": self.versions,
                "tables": [asdict(table) for table in self.tables],
                "targets": [{**asdict(target), "sentence": str(target)} for target in self.targets],
                "failures": self.failures,
                "seconds": self.samples,
            }
            Path(self.options.json).write_text(json.dumps(content, indent=1) + "\n")
        return 1 if self.failures else 0


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def without_json(words: Sequence[str]) -> list[str]:
    """Return the options of a command without the name of the file it writes."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--json":
            skip = True
        elif not word.startswith("--json="):
            kept.append(word)
    return kept


def one_line(error: Exception) -> str:
    """Return a message without line breaks and without the place of this folder."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.replace(str(Path(__file__).resolve().parent.parent) + os.sep, "")[:300]


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a / b, or None where one is missing."""
    return None if a is None or not b else a / b


def find(contestants: Sequence[Contestant], name: str) -> float | None:
    """Return the median seconds of the contestant called `name`, None if there is none."""
    return next((c.median for c in contestants if c.name == name), None)


def least(values: Sequence[float | None]) -> float | None:
    """Return the least of the values that are there."""
    return min((value for value in values if value is not None), default=None)


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of this machine."""
    cpu = platform.processor() or platform.machine()
    flags: list[str] = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        if key.strip() == "flags":
            flags = [flag for flag in ("avx2", "fma", "avx512f") if flag in value.split()]
    return {
        "cpu": cpu,
        "processors": os.cpu_count(),
        "vector_instructions": flags,
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "nbad":
                found[name] = "(source)"
    return found


def shown(cell: Cell) -> str:
    """Return a cell with three significant digits."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell == 0 or 0.01 <= abs(cell) < 999.5:
        return f"{cell:#.3g}".rstrip(".")
    return f"{cell:,.0f}" if 999.5 <= abs(cell) < 1e9 else f"{cell:.2e}"


def as_text(table: Table) -> str:
    """Return a table for a terminal."""
    cells = [table.columns, *([shown(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    lines = [table.title, "-" * len(table.title)]
    for row in cells:
        numbers = "  ".join(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"{row[0].ljust(widths[0])}  {numbers}".rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(table: Table) -> str:
    """Return a table for a page."""
    title = table.title.replace("*", "\\*")
    lines = [f"**{title}**", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "|".join([" --- ", *[" ---: "] * (len(table.columns) - 1)]) + "|")
    lines += ["| " + " | ".join(shown(cell).replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def progress(text: str) -> None:
    """Show what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
