"""One recording of a function, pulled back and pushed forward any number of times.

Owns the form in which jacobian, hessian, jvp and linearize see a function: lists of leaves, where a seed or a direction
names the leaves that it concerns, and only the leaves that are wanted are computed. Must not know what is made of the products.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nbad import tree
from nbad.activity import Activity
from nbad.batched import batch_size, sweep_batch
from nbad.config import SETTINGS
from nbad.errors import InputTypeError
from nbad.keeping import check_watched
from nbad.methods import user_line
from nbad.report import current
from nbad.trace import is_traced
from nbad.transforms import Recording, callable_of, hook_of, read_wrt, swept
from nbad.wrt import signature_of

__all__ = ["Recorded", "Replayed", "has_derivative", "one_by_one", "record", "run_plainly", "zeros_like"]


class Recorded:
    """A function recorded once.

    Attributes
    ----------
    asked, listed, indices
        What `wrt` asks for: see `nbad.wrt`.
    value, aux : Any
        What the function returned.
    outputs : list
        The leaves of `value`.
    live : list of int
        Positions of the outputs that depend on an asked-for leaf.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wrt: Any,
        *,
        has_aux: bool = False,
    ) -> None:
        self.name = name
        self.asked, self.listed, self.indices = read_wrt(name, wrt, signature_of(function), args, kwargs)
        run = Recording(function, self.asked, self.listed, has_aux=has_aux, name=name)
        self.value = run.value
        self.aux = run.aux if has_aux else None
        self.outputs = tree.leaves(run.value)
        self.slots = run.own_outputs()
        self.live = [i for i, slot in enumerate(self.slots) if slot is not None]
        self.frozen, whole = run.freeze()
        everything = tuple(range(len(self.listed)))
        self._settled = False
        self._activities = {(tuple(self.live), everything): whole}

    def activity(self, outputs: Iterable[int], wanted: Iterable[int]) -> Activity:
        """Return what is needed to pull from some outputs back to some leaves."""
        key = tuple(sorted(outputs)), tuple(sorted(wanted))
        found = self._activities.get(key)
        if found is None:
            slots = [slot for i in key[0] if (slot := self.slots[i]) is not None]
            found = self._activities[key] = Activity(self.frozen, list(key[1]), slots)
        return found

    def pull(self, seeds: Mapping[int, Any], wanted: list[int]) -> list[Any]:
        """Return the cotangents of the leaves `wanted`; `seeds` are cotangents of outputs by position."""
        given: dict[int, Any] = {}
        for i, seed in seeds.items():
            slot = self.slots[i]
            if slot is not None:
                given[slot] = given[slot] + seed if slot in given else seed
        activity = self.activity((i for i in seeds if self.slots[i] is not None), wanted)
        return swept(self.frozen, activity, given, wanted)

    def pull_many(self, seeds: Mapping[int, np.ndarray], wanted: list[int]) -> list[Any]:
        """Do as `pull` for many seeds of each output, and return as many cotangents: one more axis in front of both."""
        count = len(next(iter(seeds.values())))
        if self.batch == 1:
            return one_by_one(self.pull, seeds, wanted)
        given = {slot: seed for i, seed in seeds.items() if (slot := self.slots[i]) is not None}
        start = time.perf_counter()
        found = sweep_batch(self.frozen, self.activity(seeds, wanted), given, count, wanted)
        for listener in current():
            listener.sweeps += 1
            listener.time_sweep += time.perf_counter() - start
        return list(found)

    @functools.cached_property
    def batch(self) -> int:
        """How many seeds to pull at once."""
        return batch_size(self.frozen, self.activity(self.live, range(len(self.listed))))

    def push(self, directions: Mapping[int, Any], wanted: list[int]) -> list[Any]:
        """Return the tangents of the outputs `wanted`; `directions` are tangents of leaves by position."""
        live = [self.live.index(i) for i in wanted if i in self.live]
        found = dict(zip(live, self.transposed.pull(directions, live), strict=True)) if live else {}
        return [found[self.live.index(i)] if i in self.live else zeros_like(self.outputs[i]) for i in wanted]

    def push_many(self, directions: Mapping[int, np.ndarray], wanted: list[int]) -> list[Any]:
        """Do as `push` for many directions, each output of `wanted` being one of `live`."""
        return self.transposed.pull_many(directions, [self.live.index(i) for i in wanted])

    def settle(self) -> None:
        """Check now that no kept array was written to, and not at each pull: the caller gets no turn until the last one."""
        tape = self.frozen.tape
        if SETTINGS.mutation_check and tape.watched:
            check_watched(tape, list(tape.watched))
        tape.watched.clear()
        self._settled = True

    @functools.cached_property
    def transposed(self) -> "Recorded":
        """The pullback, which is linear, recorded at cotangents of zero: its pullback is the Jacobian-vector product."""
        slots = [slot for slot in self.slots if slot is not None]
        everything = list(range(len(self.listed)))

        def sweep(*seeds: Any) -> Any:
            return self.pull(dict(zip(self.live, seeds, strict=True)), everything)

        zeros = tuple(np.zeros(self.frozen.shape(slot), self.frozen.dtype(slot)) for slot in slots)
        # What the sweep computes from zeros is read by nobody, so its warnings say nothing.
        with np.errstate(all="ignore"):
            made = Recorded(self.name, sweep, zeros, {}, tuple((k,) for k in range(len(zeros))))
        if self._settled:
            made.settle()
        return made


class Replayed:
    """A compiled function in the same form: each product is a replay."""

    batch = 1

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wrt: Any,
        *,
        has_aux: bool = False,
    ) -> None:
        self.asked, self.listed, self.indices = read_wrt(name, wrt, signature_of(function), args, kwargs)
        self._hook = hook_of(function)
        self._eager = functools.partial(Recorded, name, run_plainly(function), args, kwargs, wrt)
        answer = self._hook("vjp", wrt=wrt, has_aux=has_aux)(*args, **kwargs)
        self.value, self._pullback, *aux = answer
        self.aux = aux[0] if has_aux else None
        self.outputs = tree.leaves(self.value)
        self.live = [i for i, leaf in enumerate(self.outputs) if has_derivative(leaf)]

    def settle(self) -> None:
        """Do as `Recorded.settle`."""
        settle = getattr(self._pullback, "settle", None)
        if settle is not None:  # else the call was recorded by somebody else
            settle()

    def pull(self, seeds: Mapping[int, Any], wanted: list[int]) -> list[Any]:
        """Return the cotangents of the leaves `wanted`; `seeds` are cotangents of outputs by position."""
        blank = [zeros_like(leaf) if i in self.live else leaf for i, leaf in enumerate(self.outputs)]
        given = [seeds.get(i, leaf) for i, leaf in enumerate(blank)]
        answer = tree.leaves(self._pullback(tree.rebuild(self.value, given)))
        order = [i for row in self.indices for i in row]
        return [answer[order.index(i)] for i in wanted]

    def pull_many(self, seeds: Mapping[int, np.ndarray], wanted: list[int]) -> list[Any]:
        """Do as `Recorded.pull_many`."""
        return one_by_one(self.pull, seeds, wanted)

    def push_many(self, directions: Mapping[int, np.ndarray], wanted: list[int]) -> list[Any]:
        """Do as `Recorded.push_many`."""
        return one_by_one(self.push, directions, wanted)

    def push(self, directions: Mapping[int, Any], wanted: list[int]) -> list[Any]:
        """Return the tangents of the outputs `wanted`; `directions` are tangents of leaves by position."""
        if self.asked.kwargs:  # jvp has no place for keywords
            return self.eager.push(directions, wanted)
        moving = {(x.argument, x.path): directions.get(i) for i, x in enumerate(self.listed)}
        tangents = tuple(
            tree.rebuild(argument, [moving.get((k, path)) for path in tree.paths(argument)])
            for k, argument in enumerate(self.asked.args)
        )
        _, tangent = self._hook("jvp", has_aux=False)(self.asked.args, tangents)
        answer = tree.leaves(tangent)
        return [answer[i] for i in wanted]

    @functools.cached_property
    def eager(self) -> Recorded:
        """The same function, recorded anew."""
        return self._eager()


def one_by_one(
    product: Callable[[dict[int, Any], list[int]], list[Any]],
    given: Mapping[int, np.ndarray],
    wanted: list[int],
) -> list[Any]:
    """Return what `product` gives for each of many seeds, with an axis in front."""
    count = len(next(iter(given.values())))
    rows = [product({i: np.asarray(x[b]) for i, x in given.items()}, wanted) for b in range(count)]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def run_plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a compiled one, so that it is recorded rather than replayed."""

    @functools.wraps(function, updated=())
    def plainly(*args: Any, **kwargs: Any) -> Any:
        return callable_of(function)(*args, **kwargs)

    return plainly


def record(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wrt: Any,
    *,
    has_aux: bool = False,
    replay: bool = True,
) -> Recorded | Replayed:
    """Record a call of a function, or replay it if it is compiled, unless it is the tape that is wanted."""
    run: Recorded | Replayed
    if hook_of(function) is None:
        run = Recorded(name, function, args, kwargs, wrt, has_aux=has_aux)
    elif replay:
        run = Replayed(name, function, args, kwargs, wrt, has_aux=has_aux)
    else:
        run = Recorded(name, run_plainly(function), args, kwargs, wrt, has_aux=has_aux)
    for leaf in run.outputs:
        if not has_derivative(leaf):
            raise InputTypeError(
                f"{name}: the function returned a leaf that has no derivative: {_described(leaf)}",
                at=user_line(),
                fix="Return floating-point numbers or arrays only; with has_aux=True anything else may go along.",
            )
    return run


def _described(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else f"an array of dtype {dtype}"


def has_derivative(leaf: Any) -> bool:
    """Return whether a leaf of what a function returned is a floating-point or complex number or array."""
    if is_traced(leaf) or isinstance(leaf, np.ndarray | np.generic):
        return bool(leaf.dtype.kind in "fc")
    return isinstance(leaf, float | complex)


def zeros_like(leaf: Any) -> np.ndarray:
    """Return zeros of the shape and dtype of a number or array, traced or not."""
    return np.zeros(np.shape(leaf), leaf.dtype if hasattr(leaf, "dtype") else np.dtype(type(leaf)))
