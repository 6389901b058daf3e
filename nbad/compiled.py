"""compile: record once, replay.

Owns the compiled function: which recording fits a call, when a new one is made, and how transformations of a compiled
function become replays.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
import threading
import types
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numba.core.registry import CPUDispatcher

from nbad import saving
from nbad.calls import transformation
from nbad.config import SETTINGS
from nbad.deriving import GuardFailed, Inline, record_primal
from nbad.errors import TapeError, where
from nbad.hidden import Draws, Hidden
from nbad.jitted import njit
from nbad.methods import user_level, user_line
from nbad.replay.graph import Graph
from nbad.replay.picture import Listing, to_dot
from nbad.replay.rewrites import REWRITES, rewrite_primal
from nbad.report import CompileReport
from nbad.signatures import Call
from nbad.variants import Failure, Variant, print_of
from nbad.wrt import signature_of

__all__ = ["Compiled", "compile", "load"]


def compile(
    function: Callable[..., Any] | None = None,
    /,
    *,
    variants: int = 16,
    rewrites: Iterable[str] | None = None,
) -> Any:
    """Record a function once, and replay the recording.

    Parameters
    ----------
    function : callable
        A plain function of NumPy code, or a kernel of numba. Left out, a decorator with the options is returned.
    variants : int
        How many recordings are kept; the least recently used goes first.
    rewrites : iterable of str, optional
        Names of the rewrites that may be applied (see the list in the docs); default all.

    Returns
    -------
    Compiled
        Called like `function`, with the same results to rounding. `grad`, `value_and_grad`, `vjp`, `jvp` and `hvp` of it replay
        too.

    Notes
    -----
    A recording is made for the shapes, dtypes and containers of the arguments and for the values of those that are no arrays,
    floats or complex numbers. What the function's control flow saw is checked at each replay; where something else is
    seen, that variant is recorded too. Global variables and closures are compared. Random numbers that the function draws and
    other side effects are those of the recording.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> @nbad.compile
    ... def loss(x):
    ...     return np.sum(np.sin(x) ** 2) if x[0] > 0 else np.sum(x)
    >>> gradient = nbad.grad(loss)
    >>> for start in (1.0, 2.0, -1.0, 3.0, 4.0):
    ...     _ = gradient(np.array([start, 0.5]))
    >>> loss.variants, loss.report().replays
    (2, 2)
    """
    if function is None:
        return functools.partial(compile, variants=variants, rewrites=rewrites)
    return Compiled(function, variants=variants, rewrites=rewrites)


class Compiled:
    """A function that is recorded and replayed; made by `compile`.

    Parameters
    ----------
    function : callable or None
        The plain function; None for one that was loaded from a file, which can only replay.
    variants : int
        How many recordings are kept.
    rewrites : iterable of str, optional
        Rewrites that may be applied.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None,
        *,
        variants: int = 16,
        rewrites: Iterable[str] | None = None,
        name: str | None = None,
        signature: inspect.Signature | None = None,
    ) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"compile takes a function, not {type(function).__name__}")
        if variants < 1:
            raise ValueError(f"variants must be at least 1, not {variants}")
        unknown = sorted(set(rewrites or ()) - set(REWRITES))
        if unknown:
            raise ValueError(f"there is no rewrite {unknown[0]!r}; there are {', '.join(REWRITES)}")
        if isinstance(function, CPUDispatcher):
            function = njit(function)
        if function is not None:
            functools.update_wrapper(self, function)
            signature = signature_of(function)
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.function = function
        self.signature = signature
        self.limit = variants
        self.rewrites = None if rewrites is None else frozenset(rewrites)
        self._lock = threading.RLock()
        self._by_key: dict[Any, tuple[Variant, ...]] = {}
        self._account = CompileReport()
        self._warned: set[str] = set()
        self._refused: set[Any] = set()
        self._bound: OrderedDict[int, Compiled] = (
            OrderedDict()
        )  # by the id of an instance, which its method keeps alive
        self._binding = threading.Lock()
        self._value = transformation(self, "value", None, False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the function's value."""
        return self._value(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Return the compiled method of an instance; the instances used last have recordings of their own, and stay alive."""
        if instance is None or self.function is None:
            return self
        bound = self._bound
        with self._binding:
            found = bound.get(id(instance))
            if found is None:
                method = types.MethodType(self.function, instance)
                found = bound[id(instance)] = Compiled(method, variants=self.limit, rewrites=self.rewrites)
                if len(bound) > _MOST_INSTANCES:
                    bound.popitem(last=False)
            bound.move_to_end(id(instance))
        return found

    def __repr__(self) -> str:
        return f"<compiled {self.name}, {self.variants} variants>"

    def __nbad_transform__(self, kind: str, *, wrt: Any = 0, has_aux: bool = False) -> Any:
        """Return a transformation of this function that replays (asked by `nbad.grad` and its kin)."""
        made = transformation(self, kind, wrt, has_aux)
        if self.function is not None:
            functools.update_wrapper(made, self.function, updated=())
        return made

    @property
    def variants(self) -> int:
        """Number of recordings that are kept."""
        return sum(map(len, self._by_key.values()))

    @property
    def tape(self) -> Any:
        """The recording used last, for printing; None before the first call."""
        latest = self._latest()
        return None if latest is None else Listing(latest.primal.graph)

    def to_dot(self) -> str:
        """Return the recording used last in Graphviz's dot language."""
        latest = self._latest()
        return to_dot(Graph() if latest is None else latest.primal.graph)

    def report(self) -> CompileReport:
        """Return what this function did so far."""
        with self._lock:
            found = self._account
            kept = [variant for row in self._by_key.values() for variant in row]
            replays = found.replays + sum(variant.replays for variant in kept)
            return CompileReport(
                replays,
                found.recordings,
                len(kept),
                found.evictions,
                max((variant.peak_bytes for variant in kept), default=0),
                Counter(found.lines),
            )

    def clear(self) -> None:
        """Forget all recordings, those of instances too."""
        with self._binding:
            methods = list(self._bound.values())
            self._bound.clear()
        for method in methods:
            method.clear()
        with self._lock:
            dropped = [variant for row in self._by_key.values() for variant in row]
            self._by_key = {}
            self._refused = set()
            self._account.replays += sum(variant.drop() for variant in dropped)

    def _latest(self) -> Variant | None:
        kept = [variant for row in self._by_key.values() for variant in row]
        return max(kept, key=_last_used, default=None)

    # Which recording serves a call ----------------------------------------------------------------

    def serve(
        self,
        call: Call,
        replay: Callable[[Variant, list[Any]], Any],
        first: Callable[[Variant, Any, list[Any]], Any],
        inline: Callable[[], Any],
    ) -> Any:
        """Return what the first fitting recording gives, or `first` of a new one.

        Parameters
        ----------
        call : Call
            The arguments.
        replay : callable
            ``replay(variant, values)`` raises `Failure` or `GuardFailed` where the recording does not fit.
        first : callable
            ``first(variant, result, values)`` for a recording that was made for this call.
        inline : callable
            Answers the call without a recording, where the function reaches a value that somebody else traces.
        """
        if call.key in self._refused or (SETTINGS.nan is not None and self.function is not None):
            return inline()  # operation by operation
        values = call.values()
        tried: set[Variant] = set()
        found, cause = self._try(call, values, replay, tried, None)
        if found is not _MISS:
            return found
        refusal: Exception | None = None
        with self._lock:
            # Another thread may have recorded it meanwhile.
            found, cause = self._try(call, values, replay, tried, cause)
            if found is not _MISS:
                return found
            if self.function is None:
                raise self._unknown(cause)
            try:
                variant, result = self._record(call, values, cause)
            except Exception as error:
                refusal = error
        if refusal is None:
            try:
                return first(variant, result, values)
            except GuardFailed:  # an operation that gives something else for the same inputs
                return inline()
        # The function has the last word: an error of its own comes again, as if it had not been compiled.
        answer = inline()
        if not isinstance(refusal, Inline):
            if len(self._refused) > _MOST_REFUSED:
                self._refused.clear()
            self._refused.add(call.key)
            self._warn(f"{self.name} runs uncompiled, because it could not be recorded: {refusal}")
        return answer

    def _unknown(self, cause: str | None) -> TapeError:
        return TapeError(
            f"{self.name}: this loaded function has no recording for these arguments"
            + (f" ({cause})" if cause else ""),
            at=user_line(),
            fix="Save it again after a call with arguments of these shapes and dtypes.",
        )

    def _try(
        self,
        call: Call,
        values: list[Any],
        replay: Callable[[Variant, list[Any]], Any],
        tried: set[Variant],
        cause: str | None,
    ) -> tuple[Any, str | None]:
        prints: dict[int, Any] = {}
        for variant in sorted(self._by_key.get(call.key, ()), key=_last_used, reverse=True):
            if variant in tried:
                continue
            tried.add(variant)
            changed = variant.changed(prints)
            if changed is not None:
                cause = cause or f"{changed}, which is not what it was"
                continue
            try:
                return replay(variant, values), cause
            except (Failure, GuardFailed) as failure:
                cause = cause or (where(*failure.line) if failure.line else "an operation that failed")
        return _MISS, cause

    def _record(self, call: Call, values: list[Any], cause: str | None) -> tuple[Variant, Any]:
        """Call the function and record it; the lock is held."""
        function = self.function
        assert function is not None

        def run(traced: list[Any]) -> Any:
            args, kwargs = call.arguments(traced)
            return function(*args, **kwargs)

        # Objects and functions among the arguments may hold state, like those that the function reaches by itself.
        fixed = [
            leaf for i, leaf in enumerate(call.leaves) if i not in set(call.inputs) and not _is_plain(leaf)
        ]
        before = Hidden.of(functools.partial(function, *fixed) if fixed else function)
        draws = Draws.of(before, call.leaves)
        prints = [print_of(value) for value in values]
        with draws.watched():
            primal, result = record_primal(run, call.laid_out(values), self._rewritten)
        drawn = draws.made()
        if drawn is not None:
            self._warn(
                f"{self.name} drew random numbers from {drawn} while it was recorded; a replay has the same ones. Pass "
                "random arrays as arguments."
            )
        hidden = before.stable()
        variant = Variant(call.key, call.skeleton, primal, hidden, prints, self.rewrites)
        account = self._account
        if account.recordings:
            account.lines[cause or "arguments of new shapes, dtypes or values"] += 1
        account.recordings += 1
        self._make_room(cause)
        rows = dict(self._by_key)
        rows[call.key] = (*rows.get(call.key, ()), variant)
        self._by_key = rows
        return variant, result

    def _rewritten(self, graph: Graph) -> Graph:
        return rewrite_primal(graph, enabled=self.rewrites)

    def _make_room(self, cause: str | None) -> None:
        """Drop the recordings used least recently; say so once."""
        while self.variants >= self.limit:
            oldest = min((v for row in self._by_key.values() for v in row), key=_last_used)
            self._account.evictions += 1
            rows = dict(self._by_key)
            rows[oldest.key] = tuple(v for v in rows[oldest.key] if v is not oldest)
            if not rows[oldest.key]:
                del rows[oldest.key]
            self._by_key = rows
            self._account.replays += oldest.drop()
            line, times = max(self._account.lines.items(), key=_count_of, default=(cause, 1))
            self._warn(
                f"{self.name} needs more than {self.limit} recordings, so it records again and again; {times} of "
                f"them because of {line}. Pass a larger variants=, or do not compile it."
            )

    def _warn(self, text: str) -> None:
        """Warn, once for each beginning of a text, at the line that called nbad."""
        kind = text[: len(self.name) + 10]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, RuntimeWarning, stacklevel=user_level())

    # Copies -----------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: Any) -> Compiled:
        """Return a compiled function of its own; recordings, which never change, are shared."""
        made = Compiled(
            self.function,
            variants=self.limit,
            rewrites=self.rewrites,
            name=self.name,
            signature=self.signature,
        )
        made._by_key = {key: tuple(v.copy() for v in row) for key, row in self._by_key.items()}
        return made

    def __reduce__(self) -> Any:
        """Pickle by name where the module knows this object by it, else by the function, else by its recordings."""
        module, path = getattr(self, "__module__", None), getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(module) if module else None
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is self:
            return path
        function = self.function
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError):
            function = None  # what was recorded can still be replayed
        options = {"variants": self.limit, "rewrites": self.rewrites}
        if function is not None:
            return _remade, (function, options)
        return _rebuilt, ({**options, "name": self.name}, self.to_bytes())

    # Files ------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return all recordings in the format of `save`."""
        return saving.pack_variants(
            self.name, self.signature, [v for row in self._by_key.values() for v in row]
        )

    def save(self, path: Any) -> None:
        """Write all recordings to a file.

        Parameters
        ----------
        path : str or path-like
            The file; it is overwritten.

        Raises
        ------
        TapeError
            An argument or result that has no place in a file (an object, a user's container class).

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import nbad
        >>> f = nbad.compile(lambda x: np.sum(x * x))
        >>> _ = f(np.ones(3))
        >>> path = os.path.join(tempfile.mkdtemp(), "f.npz")
        >>> f.save(path)
        >>> nbad.grad(nbad.load(path))(np.ones(3))
        array([2., 2., 2.])
        """
        content = self.to_bytes()
        with open(path, "wb") as file:
            file.write(content)


def load(path: Any) -> Compiled:
    """Read a compiled function from a file that `Compiled.save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    Compiled
        It replays what was recorded, and can be differentiated; it cannot record.

    Raises
    ------
    TapeError
        If the file is damaged, or names operations that do not exist here. Nothing of it has run then.
    """
    with open(path, "rb") as file:
        return _rebuilt({}, file.read())


def _remade(function: Callable[..., Any], options: dict[str, Any]) -> Compiled:
    """Return a compiled function without recordings: what they were made under may not hold where this one lives."""
    return Compiled(function, **options)


def _rebuilt(options: dict[str, Any], content: bytes) -> Compiled:
    """Return a function that can only replay."""
    name, signature, variants = saving.unpack_variants(content)
    made = Compiled(None, **{"name": name, "signature": signature, **options})
    for variant in variants:
        variant.rewrites = made.rewrites
        made._by_key[variant.key] = (*made._by_key.get(variant.key, ()), variant)
    return made


_MISS: Any = object()
#: Instances whose compiled methods are remembered.
_MOST_INSTANCES = 32
#: Signatures that are remembered as not to be recorded.
_MOST_REFUSED = 1000


def _is_plain(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, bool | int | str | bytes | np.generic | np.dtype)


def _last_used(variant: Variant) -> int:
    return variant.used


def _count_of(item: tuple[str, int]) -> int:
    return item[1]
