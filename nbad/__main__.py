"""The demonstration: one gradient asked for, one gradient paid for.

``python -m nbad`` runs the experiment that nbad was made for, at its real size: a convolution of two 512x512x23 stacks, and its
gradient with respect to the first, and to both.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import nbad
from nbad.trace import is_traced

#: What the question that started nbad reports for Zygote at 512x512x23, gradient asked for u alone.
SEED_SECONDS = 0.83
SEED_BYTES = 600e6


class _Transforms:
    """The FFTs of the plain formula; those on arrays that are not traced are NumPy's own, and counted here."""

    def __init__(self) -> None:
        self.by_numpy = 0

    def fftn(self, x: Any) -> Any:
        self.by_numpy += not is_traced(x)
        return np.fft.fftn(x)

    def ifftn(self, x: Any) -> Any:
        self.by_numpy += not is_traced(x)
        return np.fft.ifftn(x)


TRANSFORMS = _Transforms()


def by_library(u: Any, v: Any) -> Any:
    """Sum of the cyclic convolution, with the library's function."""
    return np.sum(nbad.convolve(u, v, mode="wrap"))


def by_formula(u: Any, v: Any) -> Any:
    """Sum of the cyclic convolution, as the formula reads."""
    return np.sum(np.real(TRANSFORMS.ifftn(TRANSFORMS.fftn(u) * TRANSFORMS.fftn(v))))


@dataclass
class Row:
    """What one computation took."""

    what: str
    seconds: float
    ffts: int
    run: dict[str, int]
    skipped: dict[str, int]
    bytes_kept: int


def measure(what: str, call: Callable[[], Any], rounds: int) -> Row:
    """Run `call` once to compile, once under a report, and `rounds` times on the clock."""
    say(f"{what}: warming up")
    call()
    TRANSFORMS.by_numpy = 0
    say(f"{what}: counting")
    with nbad.report() as account:
        call()
    ffts = account.ffts + TRANSFORMS.by_numpy
    seconds = []
    for turn in range(rounds):
        say(f"{what}: run {turn + 1} of {rounds}")
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    say("")
    run = {f"{op}.{operand}": n for (op, operand), n in sorted(account.rules_run.items())}
    skipped = {f"{op}.{operand}": n for (op, operand), n in sorted(account.rules_skipped.items())}
    kept = account.bytes_kept + account.bytes_borrowed
    return Row(what, statistics.median(seconds), ffts, run, skipped, kept)


def say(text: str) -> None:
    """Show one line of progress, over the last one, where a person is watching."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif text:
        sys.stderr.write(text + "\n")


def listed(counts: dict[str, int]) -> str:
    """Write counts of pullbacks in one line."""
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.items()) or "none"


def run_all(shape: tuple[int, ...], dtype: Any, rounds: int) -> list[Row]:
    """Measure both spellings: forward, gradient in u, gradient in (u, v)."""
    rng = np.random.default_rng(0)
    u, v = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    rows = []
    for name, function in (("nbad.convolve", by_library), ("plain formula", by_formula)):
        one, both = nbad.grad(function, wrt="u"), nbad.grad(function, wrt=("u", "v"))
        rows.append(measure(f"{name}, forward", functools.partial(function, u, v), rounds))
        rows.append(measure(f"{name}, gradient in u", functools.partial(one, u, v), rounds))
        rows.append(measure(f"{name}, gradient in (u, v)", functools.partial(both, u, v), rounds))
    return rows


def print_table(rows: list[Row], shape: tuple[int, ...], dtype: Any) -> None:
    """Print what was measured, for a person."""
    size = "x".join(map(str, shape))
    print(f"f(u, v) = sum(conv(u, v)), {size} {np.dtype(dtype)}, {nbad.get_threads()} threads\n")
    print(f"{'':34}{'seconds':>9}{'FFTs':>6}{'MB kept':>9}")
    for row in rows:
        print(f"{row.what:34}{row.seconds:9.3f}{row.ffts:6d}{row.bytes_kept / 1e6:9.1f}")
        if row.run:
            print(f"{'':6}pullbacks run:     {listed(row.run)}")
            print(f"{'':6}pullbacks skipped: {listed(row.skipped)}")
    print(
        f"\nThe question that started nbad, 512x512x23 in Zygote, asked for u: {SEED_SECONDS} s, {SEED_BYTES / 1e6:.0f} MB,\n"
        'with the pullback of v computed and thrown away. Here, asked for u, it never runs: see "skipped".'
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m nbad", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", default="512x512x23", help="shape of u and v, such as 256x256 (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="float64", choices=["float32", "float64"], help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, help="default: all processors")
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs on the clock; the median counts (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        options.shape = tuple(int(n) for n in options.shape.lower().split("x"))
    except ValueError:
        parser.error(f"--shape {options.shape}: write it like 512x512x23")
    if min(options.shape) < 1 or options.rounds < 1 or (options.threads is not None and options.threads < 1):
        parser.error("lengths, --rounds and --threads must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration."""
    options = parse(arguments)
    if options.threads:
        nbad.set_threads(options.threads)
    rows = run_all(options.shape, options.dtype, options.rounds)
    if options.json:
        print(
            json.dumps(
                {"shape": options.shape, "dtype": options.dtype, "rows": [asdict(row) for row in rows]},
                indent=1,
            )
        )
    else:
        print_table(rows, options.shape, options.dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main())
