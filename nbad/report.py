"""Accounts of what a call did.

Owns `Report` and the stack of reports that are listening in this context. Whoever does work adds to `current`; nothing
is counted twice and nothing is estimated.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

_listening: ContextVar[tuple["Report", ...]] = ContextVar("nbad_reports", default=())


@dataclass(slots=True)
class Report:
    """What happened while a report was listening.

    Attributes
    ----------
    rules_run : Counter of (op, operand)
        Pullbacks that ran.
    rules_skipped : Counter of (op, operand)
        Pullbacks of recorded nodes that did not run, because nobody asked for what they compute.
    ffts : int
        n-dimensional transforms executed by nbad (forward and sweep). A transform that NumPy runs on arrays that are
        not traced never reaches nbad and is not counted.
    nodes : int
        Nodes recorded.
    bytes_kept : int
        Bytes that the tapes held for their sweeps, without the caller's own arrays.
    bytes_borrowed : int
        Bytes of the caller's arrays that the tapes referred to.
    sweeps : int
        Backward sweeps; one of many cotangents at once is one.
    replays : int
        Replays of compiled functions and of their transformations.
    nodes_run, nodes_skipped : int
        Nodes that these replays executed, and nodes that they did not execute because what they depend on had not changed.
    entries, entry_bytes : int
        Entries that kernels (`nbad.njit`) wrote on tapes of their own, and their bytes. What does not depend on what is
        asked for writes none.
    adjoint_bytes : int
        Most bytes that a sweep over such a tape took for adjoints, those of the inputs among them.
    time_forward, time_sweep : float
        Seconds spent in traced forward calls and in sweeps.
    """

    rules_run: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    rules_skipped: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    ffts: int = 0
    nodes: int = 0
    bytes_kept: int = 0
    bytes_borrowed: int = 0
    sweeps: int = 0
    replays: int = 0
    nodes_run: int = 0
    nodes_skipped: int = 0
    entries: int = 0
    entry_bytes: int = 0
    adjoint_bytes: int = 0
    time_forward: float = 0.0
    time_sweep: float = 0.0

    @property
    def pullbacks(self) -> int:
        """Number of pullbacks that ran."""
        return sum(self.rules_run.values())

    def run(self, op: str, operand: str) -> int:
        """Return how often the pullback of `operand` of `op` ran."""
        return self.rules_run[op, operand]

    def skipped(self, op: str, operand: str) -> int:
        """Return how often the pullback of `operand` of `op` was skipped."""
        return self.rules_skipped[op, operand]

    def __str__(self) -> str:
        """Return a table for people."""
        rows = [
            f"nodes recorded    {self.nodes}",
            f"sweeps            {self.sweeps}",
            f"pullbacks run     {self.pullbacks}",
            f"pullbacks skipped {sum(self.rules_skipped.values())}",
            f"FFTs              {self.ffts}",
            f"bytes kept        {self.bytes_kept} (and {self.bytes_borrowed} of the caller's own)",
            f"seconds           {self.time_forward:.6f} forward, {self.time_sweep:.6f} sweep",
        ]
        if self.replays:
            rows.append(
                f"replays           {self.replays}: {self.nodes_run} nodes run, {self.nodes_skipped} unchanged"
            )
        if self.entries:
            rows.append(f"kernel entries    {self.entries} ({self.entry_bytes} bytes)")
        if self.adjoint_bytes:
            rows.append(f"kernel adjoints   {self.adjoint_bytes} bytes at most")
        for op, operand in sorted(set(self.rules_run) | set(self.rules_skipped)):
            run, skipped = self.rules_run[op, operand], self.rules_skipped[op, operand]
            rows.append(f"  {op}, {operand}: {run} run, {skipped} skipped")
        return "\n".join(rows)


@dataclass(slots=True)
class CompileReport:
    """What a compiled function did so far.

    Attributes
    ----------
    replays : int
        Calls (of the function and of its transformations) that were answered by a replay.
    recordings : int
        Times that the Python function was called and recorded.
    variants : int
        Recordings that are kept.
    evictions : int
        Recordings that were dropped to make room.
    peak_bytes : int
        Bytes of the workspace of the largest program, planned before it runs; results are not counted.
    lines : Counter of str
        What caused recordings after the first one: a source line whose guard failed, or what was new.
    """

    replays: int = 0
    recordings: int = 0
    variants: int = 0
    evictions: int = 0
    peak_bytes: int = 0
    lines: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return a table for people."""
        rows = [
            f"replays     {self.replays}",
            f"recordings  {self.recordings}",
            f"variants    {self.variants} kept, {self.evictions} dropped",
            f"bytes       {self.peak_bytes}",
        ]
        rows += [f"  {count} times because of {line}" for line, count in self.lines.most_common()]
        return "\n".join(rows)


def current() -> tuple[Report, ...]:
    """Return the reports that are listening, outermost first."""
    return _listening.get()


def count_ffts(number: int = 1) -> None:
    """Enter `number` transforms into the reports that are listening."""
    for listener in _listening.get():
        listener.ffts += number


@contextlib.contextmanager
def report() -> Iterator[Report]:
    """Listen to what nbad does in this context.

    Returns
    -------
    context manager of Report
        The account; it is complete when the block has ended.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> with nbad.report() as account:
    ...     _ = nbad.grad(lambda a, b: np.sum(a * b))(np.ones(3), np.ones(3))
    >>> account.run("multiply", "a"), account.skipped("multiply", "b")
    (1, 1)
    """
    listener = Report()
    token = _listening.set((*_listening.get(), listener))
    try:
        yield listener
    finally:
        _listening.reset(token)
