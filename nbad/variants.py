"""One recording of a compiled function, and the programs made from it.

Owns the programs of each transformation, their pools of workspaces, and the comparison of inputs between calls (which decides
what is not executed again).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad.collecting import Paused
from nbad.deriving import Derived, Primal, answer, derive, pulled
from nbad.hidden import Hidden
from nbad.kernels import memory
from nbad.kernels.hashing import fingerprint
from nbad.kernels.memory import is_alone
from nbad.regions import regions_of
from nbad.replay.graph import Graph, masks_of
from nbad.replay.rewrites import rewrite_joint
from nbad.report import current
from nbad.signatures import Template

__all__ = ["Failure", "Replayer", "Variant", "altered", "own_bits", "print_of"]

#: Ops that only look at memory in another way: not worth a comparison of inputs.
_VIEWS = frozenset(("reshape", "transpose", "broadcast_to", "getitem", "positive", "stop_gradient"))
#: Bits of a mask that stand for single inputs; further inputs share the last one.
_BITS = 60

_clock = itertools.count(1)


class Failure(Exception):
    """A replay that does not fit the inputs; `line` is the source line that saw it."""

    def __init__(self, line: tuple[str, int] | None) -> None:
        super().__init__(line)
        self.line = line


class Replayer:
    """A program and its workspaces.

    Parameters
    ----------
    graph : Graph
        What to run.
    template : Template
        What it returns.
    masks : sequence of int
        For each input of the graph: 1 if it is expected to change, else a bit of its own (or shared with others).
    rewrites : collection of str or None
        Names of the rewrites that are on; None for all.
    sweep_from : int, optional
        Position of the first node that was made by a sweep.
    in_parts : bool
        It is also run for fixed inputs alone, so these keep their bits even where no work could be saved.
    """

    def __init__(
        self,
        graph: Graph,
        template: Template,
        masks: Sequence[int],
        rewrites: Any,
        sweep_from: int | None = None,
        *,
        in_parts: bool = False,
    ) -> None:
        self.template = template
        with Paused():
            self.graph = rewrite_joint(graph, list(masks), enabled=rewrites, sweep_from=sweep_from)
            self.masks = list(masks) if in_parts else _worthwhile(self.graph, masks)
            # The loop of replays takes seconds to compile where no cache has it: whoever compiles nothing does not wait for it.
        from nbad.replay.program import Program

        self.program = Program(self.graph, self.masks)
        self.fixed = [(i, mask) for i, mask in enumerate(self.masks) if mask != 1]
        self.pool: list[Any] = []
        self.made: list[Any] = []
        self.lock = threading.Lock()

    def take(self) -> Any:
        """Return a workspace that no other thread uses."""
        try:
            return self.pool.pop()
        except IndexError:
            made = self.program.workspace()
            made.prints = [None] * len(self.masks)
            made.calls = 0
            with self.lock:
                self.made.append(made)
            return made

    @property
    def replays(self) -> int:
        """Number of replays so far."""
        with self.lock:
            found: int = sum(workspace.calls for workspace in self.made)
            return found

    def changed(self, workspace: Any, values: Sequence[Any]) -> tuple[int, list[tuple[int, Any]]]:
        """Return the mask of the fixed inputs that differ from the workspace's last ones, and their new fingerprints."""
        mask = 0
        news = []
        for i, bit in self.fixed:
            seen = print_of(values[i])
            if workspace.prints[i] != seen:
                mask |= bit
                news.append((i, seen))
        return mask, news

    def advance(
        self, workspace: Any, values: Sequence[Any], changed: int, news: list[tuple[int, Any]]
    ) -> None:
        """Run the program in a workspace; after a run that does not end well the next one there does everything again.

        Raises
        ------
        Failure
            The recording does not fit these inputs.
        """
        for i, _ in news:
            workspace.prints[i] = None  # unless the run ends well
        status = workspace.run(values, changed)
        if status != -1:
            raise Failure(self.line_of(workspace, status))
        for i, seen in news:
            workspace.prints[i] = seen
        self.settle(workspace)

    def line_of(self, workspace: Any, status: int) -> tuple[str, int] | None:
        """Return the source line of a failed guard or of a host step that returned something else."""
        line = self.graph.guards[status].line if status >= 0 else workspace.failed_line
        return self.graph.lines[line] if 0 <= line < len(self.graph.lines) else None

    def quick(self, values: Sequence[Any]) -> list[Any] | None:
        """Return the results of a small program without fixed inputs, None where `call` must see to it."""
        try:
            workspace = self.pool.pop()
        except IndexError:
            return None
        try:
            results: list[Any] | None = workspace.quick(values)
            if results is not None:
                self.settle(workspace)
        finally:
            self.pool.append(workspace)
        return results

    def settle(self, workspace: Any) -> None:
        """Enter a run that ended well into the accounts."""
        workspace.calls += 1
        if workspace.calls == 1:
            memory.clear()  # of what recording and the first run took, and later runs do not
        for listener in current():
            listener.replays += 1
            listener.nodes_run += workspace.nodes_run
            listener.nodes_skipped += workspace.nodes_skipped

    def call(self, values: Sequence[Any]) -> list[Any]:
        """Return the results for `values`, the caller's own.

        Raises
        ------
        Failure
            The recording does not fit these inputs.
        """
        workspace = self.take()
        try:
            changed, news = self.changed(workspace, values) if self.fixed else (0, [])
            self.advance(workspace, values, changed | 1, news)
            results: list[Any] = workspace.results()
        finally:
            self.pool.append(workspace)
        return results


def altered(watched: list[tuple[np.ndarray, Any]]) -> bool:
    """Return whether one of these arrays no longer has the fingerprint beside it."""
    return any(fingerprint(array) != seen for array, seen in watched)


def print_of(value: Any) -> Any:
    """Return what stands for the bits of an input."""
    if isinstance(value, np.ndarray):
        return fingerprint(value)
    return np.asarray(value).tobytes()


def _worthwhile(graph: Graph, masks: Sequence[int]) -> list[int]:
    """Return the masks, with 1 for inputs that no work depends on that could be saved."""
    useful = 0
    of_slot = masks_of(graph, masks)
    for node in graph.nodes:
        mask = of_slot[node.outputs[0]]
        if not mask & 1 and node.op.name not in _VIEWS:
            useful |= mask
    return [mask if mask & useful else 1 for mask in masks]


def own_bits(count: int, together: Sequence[int], volatile: Sequence[int]) -> list[int]:
    """Return masks: 1 for `volatile` inputs, one shared bit for those `together`, a bit of its own for each other one."""
    masks = []
    free = itertools.chain((1 << bit for bit in range(2, _BITS)), itertools.repeat(1 << _BITS))
    for i in range(count):
        masks.append(1 if i in volatile else 2 if i in together else next(free))
    return masks


class Variant:
    """One recording of a function.

    Parameters
    ----------
    key : tuple
        What the recording was made for.
    skeleton : tuple
        The containers of the arguments.
    primal : Primal
        The recording.
    hidden : Hidden
        What the function reached besides its arguments.
    prints : list
        Fingerprints of the inputs of the recording.
    rewrites : collection of str or None
        Names of the rewrites that are on; None for all.

    Attributes
    ----------
    dropped : bool
        Its owner has forgotten it, so nobody may use it any more.
    watched : list of (ndarray, tuple)
        Arrays of the user that the recording reads, and their fingerprints.
    """

    def __init__(
        self, key: Any, skeleton: Any, primal: Primal, hidden: Hidden | None, prints: list[Any], rewrites: Any
    ) -> None:
        self.key = key
        self.skeleton = skeleton
        self.primal = primal
        self.hidden = hidden
        self.prints = prints
        self.rewrites = rewrites
        self.used = next(_clock)
        self.replayers: dict[Any, Replayer] = {}
        self.derived: dict[Any, Derived] = {}
        self.lock = threading.Lock()
        self.dropped = False
        self.watched = [] if hidden is None else _shared_constants(primal.graph)
        known = set() if hidden is None else {id(row[0]) for row in hidden.arrays}
        self._unknown = [
            row for row in self.watched if id(row[0]) not in known
        ]  # not compared with what is hidden

    @property
    def replays(self) -> int:
        """Number of replays so far."""
        return sum(replayer.replays for replayer in list(self.replayers.values()))

    @property
    def peak_bytes(self) -> int:
        """Bytes of the workspace of the largest program."""
        sizes = [int(replayer.program.peak_bytes) for replayer in list(self.replayers.values())]
        return max(sizes, default=0)

    def copy(self) -> Variant:
        """Return a variant of its own with the same recording."""
        made = Variant(self.key, self.skeleton, self.primal, self.hidden, list(self.prints), self.rewrites)
        made.derived = dict(self.derived)
        return made

    def touch(self) -> None:
        """Note that the recording was used."""
        self.used = next(_clock)

    def drop(self) -> int:
        """Let go of the workspaces, now that the owner forgets this recording; return the number of replays so far."""
        self.dropped = True
        replayers = list(self.replayers.values())
        count = sum(replayer.replays for replayer in replayers)
        for replayer in replayers:
            replayer.pool.clear()
            replayer.made.clear()
        return count

    def changed(self, prints: dict[int, Any] | None = None) -> str | None:
        """Return the name of something hidden that is not as it was, None if all is.

        `prints` holds fingerprints that were taken at this moment.
        """
        hidden = self.hidden
        if hidden is None:
            return None
        name = hidden.changed(prints)
        if name is not None:
            return name
        return "an array that the function reads" if self._unknown and altered(self._unknown) else None

    def derive(
        self, kind: str, places: tuple[int, ...], has_aux: bool, values: Sequence[Any], extra: Sequence[Any]
    ) -> tuple[Derived, Any]:
        """Return a transformation of the recording and its result for these inputs."""
        memory.clear()  # of what the recording took
        derived, result = derive(self.primal, kind, places, values, extra, has_aux)
        self.derived[kind, places, has_aux, _kinds(extra)] = derived
        return derived, result

    def answer(
        self, kind: str, places: tuple[int, ...], has_aux: bool, values: Sequence[Any], extra: Sequence[Any]
    ) -> Any:
        """Return the result of a transformation for the inputs of the recording; nothing is derived."""
        return answer(self.primal, kind, places, values, extra, has_aux)

    def pulled(self, places: tuple[int, ...], has_aux: bool, values: Sequence[Any]) -> Any:
        """Return value, pullback and aux for the inputs of the recording; nothing is derived."""
        return pulled(self.primal, places, values, has_aux)

    def known(
        self, kind: str, places: tuple[int, ...], has_aux: bool, extra: Sequence[Any]
    ) -> Derived | None:
        """Return a transformation that was derived before."""
        return self.derived.get((kind, places, has_aux, _kinds(extra)))

    def replayer(self, name: Any, make: Callable[[], Replayer]) -> Replayer:
        """Return the replayer of that name, made now if this is the first time."""
        found = self.replayers.get(name)
        if found is None:
            with self.lock:
                found = self.replayers.get(name)
                if found is None:
                    found = self.replayers[name] = make()
        return found


def _kinds(extra: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((np.result_type(x), np.shape(x), type(x) in (float, complex)) for x in extra)


def _shared_constants(graph: Graph) -> list[tuple[np.ndarray, Any]]:
    """Return the constant arrays that somebody else can reach, with their fingerprints."""
    found = []
    for part in (graph, *(region.graph for region in regions_of(graph))):
        for slot in list(part.constants):
            value = part.constants[slot]
            if isinstance(value, np.ndarray) and not _is_private(part, slot):
                found.append((value, fingerprint(value)))
    return found


def _is_private(graph: Graph, slot: int) -> bool:
    """Return whether only the graph refers to the memory of a constant."""
    value = graph.constants[slot]
    return sys.getrefcount(value) <= _ALONE and is_alone(value)


def _count_alone() -> int:
    """Return what `sys.getrefcount` says of an object that a dict and one variable refer to."""
    held = {0: np.empty(1)}
    value = held[0]
    return sys.getrefcount(value)


_ALONE = _count_alone()
