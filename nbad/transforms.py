"""The transformations a user calls: grad, value_and_grad, vjp, stop_gradient.

Owns the life of a call: asked-for leaves become traced, the function runs, activity is decided, the sweep runs, and the
cotangents go back into the containers they came from.
"""

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbad import tree
from nbad.activity import TABLES, Activity, kept_bytes, release_unread
from nbad.config import SETTINGS
from nbad.engine import Sweep
from nbad.errors import DetachError, InputTypeError, NonScalarOutputError, WrtError
from nbad.higher import sweep_traced
from nbad.keeping import root_of
from nbad.kernels.hashing import fingerprint
from nbad.methods import user_line
from nbad.packing import check_differentiable
from nbad.report import current
from nbad.rules.discrete import STOP_GRADIENT
from nbad.rules.elementwise import NUMBER
from nbad.table import TABLE
from nbad.tape import Frozen, freeze, new_tape
from nbad.trace import Traced, apply, carries_derivative, is_traced, plain, underlying
from nbad.writing import enlist, owner_of, snapshot
from nbad.wrt import Asked, Leaf, asked_leaves, parse_wrt, signature_of, substitute

EVERYTHING = object()


#: Makes from a function of another kind, by its type, one that takes traced values.
CONVERTERS: dict[type, Callable[[Any], Callable[..., Any]]] = {}


def callable_of(function: Any) -> Callable[..., Any]:
    """Return what takes traced values in the place of `function`, mostly itself."""
    make = CONVERTERS.get(type(function))
    return function if make is None else make(function)


class Recording:
    """One traced call of a function: its tape, its asked-for leaves, its outputs."""

    def __init__(
        self, function: Callable[..., Any], asked: Asked, listed: list[Leaf], *, has_aux: bool, name: str
    ) -> None:
        self.listed = listed
        self.name = name
        start = time.perf_counter()
        self.tape = tape = new_tape()
        tape.inputs = len(listed)
        traced = []
        for leaf in listed:
            value = leaf.value
            tape.nested = tape.nested or is_traced(value)
            if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
                value = value.view(np.ndarray)  # np.memmap and the like: same memory, plain type
            dtype = np.result_type(type(value)) if type(value) in (float, complex) else value.dtype
            traced.append(Traced(snapshot(value), tape.add_slot(dtype, np.shape(value)), tape))
            if is_traced(value):
                enlist(owner_of(value)[0], traced[-1])  # it is not to be written while the function runs
            tape.roots.add(id(root_of(value)))
            tape.odd = tape.odd or not dtype.isnative
        try:
            args, kwargs = substitute(asked, listed, traced)
            result = callable_of(function)(*args, **kwargs)
            if has_aux:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise InputTypeError(
                        f"{name}: with has_aux=True the function must return a pair (output, aux), "
                        f"not {type(result).__name__}",
                        at=user_line(),
                    )
                result, aux = result
                self.aux = tree.map_leaves(self._given, aux)
            self.output = result
            self.leaves = tree.leaves(result)
            self.value = tree.map_leaves(self._given, result)
        except ValueError as error:
            # NumPy hides what a traced element refuses behind "setting an array element with a sequence".
            if isinstance(error.__cause__, DetachError):
                raise DetachError.of(
                    "a store into a plain ndarray",
                    at=error.__cause__.at,
                    instead="Make that array with np.zeros_like(x), where x is traced, or join the parts with np.stack.",
                ) from None
            raise
        finally:
            tape.closed = True
        self.time_forward = time.perf_counter() - start

    def _given(self, leaf: Any) -> Any:
        """Return a leaf of the result without this tape's tracing."""
        return leaf._value if type(leaf) is Traced and leaf._tape is self.tape else leaf

    def own_outputs(self) -> list[int | None]:
        """Return the slot of each output leaf, None for one that does not depend on an asked-for leaf."""
        return [
            leaf._slot if type(leaf) is Traced and leaf._tape is self.tape else None for leaf in self.leaves
        ]

    def freeze(self) -> tuple[Frozen, Activity]:
        """Finish the tape: decide what is needed and drop every kept value that nothing will read."""
        TABLES.cover()
        frozen = freeze(self.tape, TABLES.arity)
        slots = [slot for slot in self.own_outputs() if slot is not None]
        activity = Activity(frozen, list(range(self.tape.inputs)), slots)
        release_unread(frozen, activity)
        self._account(frozen, activity)
        return frozen, activity

    def _account(self, frozen: Frozen, activity: Activity) -> None:
        listeners = current()
        if not listeners:
            return
        kept, borrowed = kept_bytes(frozen)
        skipped: dict[tuple[str, str], int] = {}
        for node in range(frozen.nodes):
            op = TABLE[frozen.op[node]]
            asked = set(activity.asked(frozen, node))
            for k in range(int(frozen.edge_start[node + 1] - frozen.edge_start[node])):
                if k not in asked and op.pullback_of(k) is not None:
                    key = op.name, op.operands[0 if op.variadic else k]
                    skipped[key] = skipped.get(key, 0) + 1
        for listener in listeners:
            listener.nodes += frozen.nodes
            listener.bytes_kept += kept
            listener.bytes_borrowed += borrowed
            listener.rules_skipped.update(skipped)
            listener.time_forward += self.time_forward


def read_wrt(
    name: str, wrt: Any, signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Asked, list[Leaf], list[list[int]]]:
    """Read `wrt` and check the leaves that it asks for; errors name the transformation and the caller's line."""
    try:
        asked = parse_wrt(wrt, signature, args, kwargs)
        listed, indices = asked_leaves(asked)
        for leaf in listed:
            check_differentiable(leaf.text, underlying(leaf.value))
        for entry, row in zip(asked.entries, indices, strict=True):
            if not row and tree.select(asked.value(entry.argument), entry.path) is None:
                raise InputTypeError.of(asked.text(*entry), None)
    except (InputTypeError, WrtError) as error:
        raise type(error)(f"{name}: {error.what}", at=error.at or user_line(), fix=error.fix) from None
    return asked, listed, indices


def watch_given(frozen: Frozen, given: list[Any]) -> None:
    """Watch the kept arrays whose memory the caller gets: he may write into it before the sweep."""
    roots = {id(root_of(leaf)) for leaf in given if isinstance(leaf, np.ndarray)}
    watched = frozen.tape.watched
    for slot in np.flatnonzero(frozen.ref).tolist() if roots else ():
        kept = frozen.tape.objects[slot]
        if type(kept) is np.ndarray and slot not in watched and id(root_of(kept)) in roots:
            node = int(np.searchsorted(frozen.out_start, slot, side="right")) - 1
            watched[slot] = fingerprint(kept), int(frozen.tape.line[node]) if node >= 0 else -1


def swept(frozen: Frozen, activity: Activity, seeds: dict[int, Any], wanted: Sequence[int]) -> list[Any]:
    """Return the cotangents of the slots `wanted`, given those of output slots."""
    start = time.perf_counter()
    if frozen.tape.nested or SETTINGS.nan is not None or any(is_traced(seed) for seed in seeds.values()):
        results = sweep_traced(frozen, activity, seeds, wanted)
    else:
        results = Sweep(frozen, activity).run(seeds, wanted)
    for listener in current():
        listener.sweeps += 1
        listener.time_sweep += time.perf_counter() - start
    return results


def like(cotangent: Any, value: Any) -> Any:
    """Return a cotangent as the kind of object its primal is."""
    if carries_derivative(cotangent):
        return cotangent
    value = underlying(value)
    if is_traced(cotangent):
        if isinstance(value, np.ndarray):
            return cotangent
        return cotangent[()] if isinstance(value, np.generic) else apply(NUMBER, cotangent)
    kind = type(value)
    if kind is float or kind is complex:
        return kind(cotangent)
    if isinstance(value, np.generic):
        return cotangent[()]
    return cotangent


def packed(asked: Asked, indices: list[list[int]], cotangents: list[Any]) -> Any:
    """Put cotangents back into the containers that were asked for; each leaf is an array of its own."""
    given: set[int] = set()
    answers = []
    for entry, row in zip(asked.entries, indices, strict=True):
        found = []
        for i in row:
            cotangent = cotangents[i]
            if i in given:
                cotangent = tree.map_leaves(_copied, cotangent)
            given.add(i)
            found.append(cotangent)
        answers.append(tree.rebuild(tree.select(asked.value(entry.argument), entry.path), found))
    return tuple(answers) if asked.several else answers[0]


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def hook_of(function: Any) -> Any:
    """Return what a function does instead of being transformed (a compiled one replays), None for most."""
    return getattr(function, "__nbad_transform__", None)


def value_and_grad(
    function: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes the value of `function` and its gradient.

    Parameters
    ----------
    function : callable
        Returns one real number (or, with `has_aux`, a pair of that and anything).
    wrt : int, str or tuple
        What to differentiate with respect to: a position, a name, a path into a container (``"params.psf"``,
        ``(0, "bias")``), or a tuple of these. Nothing is computed, stored or executed for what is not asked.
    has_aux : bool
        The function returns ``(output, aux)``; the value is then ``(output, aux)`` too.

    Returns
    -------
    callable
        Takes the arguments of `function`; returns ``(value, gradient)``. The gradient has the container structure, shapes and
        dtypes of what was asked for; for complex leaves it is dL/dRe + i dL/dIm, the direction of steepest ascent.

    Raises
    ------
    NonScalarOutputError
        If the output is not one real number.
    InputTypeError
        If an asked-for leaf is not of floating or complex dtype.
    WrtError
        If `wrt` names nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> value, gradient = nbad.value_and_grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0]))
    >>> float(value), gradient
    (5.0, array([2., 4.]))
    """
    hook = hook_of(function)
    if hook is not None:
        answer: Callable[..., tuple[Any, Any]] = hook("value_and_grad", wrt=wrt, has_aux=has_aux)
        return answer
    return gradient_of(function, wrt, has_aux, "value_and_grad")


def grad(function: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes the gradient of `function`.

    Parameters
    ----------
    function : callable
        Returns one real number (or, with `has_aux`, a pair of that and anything).
    wrt : int, str or tuple
        As in `value_and_grad`.
    has_aux : bool
        The function returns ``(output, aux)``; the result is then ``(gradient, aux)``.

    Returns
    -------
    callable
        Takes the arguments of `function`; returns the gradient.

    Raises
    ------
    NonScalarOutputError, InputTypeError, WrtError
        As in `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> nbad.grad(lambda a, b: np.sum(a * b), wrt="b")(np.array([1.0, 2.0]), np.ones(2))
    array([1., 2.])
    """
    hook = hook_of(function)
    if hook is not None:
        answer: Callable[..., Any] = hook("grad", wrt=wrt, has_aux=has_aux)
        return answer
    both = gradient_of(function, wrt, has_aux, "grad")

    @functools.wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, answer = both(*args, **kwargs)
        return (answer, value[1]) if has_aux else answer

    return gradient


def gradient_of(
    function: Callable[..., Any], wrt: Any, has_aux: bool, name: str
) -> Callable[..., tuple[Any, Any]]:
    signature = signature_of(function)
    # A kernel has a shorter way.
    whole = type(function) in CONVERTERS and not has_aux
    kernel = callable_of(function) if whole else None
    directly = getattr(kernel, "gradient", None)
    positions = _positions(wrt)
    at_once = None if positions is None else getattr(kernel, "gradient_at", None)

    @functools.wraps(function)
    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if at_once is not None and not kwargs and SETTINGS.nan is None:
            found = at_once(positions, args)
            if found is not None:
                answers = [like(c, args[k]) for c, k in zip(found[1], positions or (), strict=True)]
                return found[0], tuple(answers) if isinstance(wrt, tuple) else answers[0]
        asked, listed, indices = read_wrt(name, wrt, signature, args, kwargs)
        found = None if directly is None or SETTINGS.nan is not None else directly(asked, listed)
        if found is not None:
            answers = [like(c, leaf.value) for c, leaf in zip(found[1], listed, strict=True)]
            return found[0], packed(asked, indices, answers)
        run = Recording(function, asked, listed, has_aux=has_aux, name=name)
        output = run.output
        slot = run.own_outputs()[0] if len(run.leaves) == 1 and run.leaves[0] is output else None
        value = run.value
        if slot is None and not _is_real_number(value):
            raise NonScalarOutputError.of(name, output, at=user_line())
        frozen, activity = run.freeze()
        seeds: dict[int, Any] = {}
        if slot is not None:
            dtype = frozen.dtype(slot)
            if frozen.shape(slot) != () or dtype.kind != "f":
                raise NonScalarOutputError.of(name, value, at=user_line())
            seeds[slot] = np.ones((), dtype)
        cotangents = swept(frozen, activity, seeds, range(len(listed)))
        answers = [like(c, leaf.value) for c, leaf in zip(cotangents, listed, strict=True)]
        gradient = packed(asked, indices, answers)
        return ((value, run.aux) if has_aux else value), gradient

    return both


def _positions(wrt: Any) -> tuple[int, ...] | None:
    """Return `wrt` as distinct positions, not counted from the end, if that is what it is."""
    found = wrt if isinstance(wrt, tuple) else (wrt,)
    plain = found and all(type(one) is int and one >= 0 for one in found)
    return found if plain and len(set(found)) == len(found) else None


def _is_real_number(value: Any) -> bool:
    value = underlying(value)
    if isinstance(value, np.ndarray):
        return bool(value.shape == () and value.dtype.kind == "f")
    return isinstance(value, (float, np.floating))


def vjp(
    function: Callable[..., Any], *primals: Any, wrt: Any = EVERYTHING, has_aux: bool = False, **kwargs: Any
) -> Any:
    """Return the value of `function` and its pullback, the map from output cotangents to input cotangents.

    Parameters
    ----------
    function : callable
        Returns an array or a container of arrays.
    *primals : array, float or container of these
        Arguments.
    wrt : int, str or tuple, optional
        What to pull back to; default all of `primals`.
    has_aux : bool
        The function returns ``(output, aux)``.
    **kwargs
        Keyword arguments of `function`.

    Returns
    -------
    value : array or container
        What the function returned.
    pullback : callable
        ``pullback(cotangent)`` with a cotangent of the structure, shapes and dtypes of `value`; returns one cotangent for
        one primal, a tuple for several. It may be called any number of times.
    aux : any
        Only with `has_aux`.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> value, pullback = nbad.vjp(np.sin, np.array([0.0, 1.0]))
    >>> pullback(np.array([1.0, 0.0]))
    array([1., 0.])
    """
    if wrt is EVERYTHING:
        wrt = 0 if len(primals) == 1 else tuple((k,) for k in range(len(primals)))
    hook = hook_of(function)
    if hook is not None:
        return hook("vjp", wrt=wrt, has_aux=has_aux)(*primals, **kwargs)
    return pullback_of("vjp", function, primals, kwargs, wrt, has_aux=has_aux)


def pullback_of(
    name: str,
    function: Callable[..., Any],
    primals: tuple[Any, ...],
    kwargs: dict[str, Any],
    wrt: Any,
    *,
    has_aux: bool = False,
) -> Any:
    """Return what `vjp` returns; errors name the transformation that the user called."""
    asked, listed, indices = read_wrt(name, wrt, signature_of(function), primals, kwargs)
    run = Recording(function, asked, listed, has_aux=has_aux, name=name)
    frozen, activity = run.freeze()
    slots = run.own_outputs()
    outputs = tree.leaves(run.value)
    watch_given(frozen, [*outputs, *(tree.leaves(run.aux) if has_aux else ())])
    structure = tree.structure(run.value)

    def pullback(cotangent: Any) -> Any:
        if tree.structure(cotangent) != structure:
            raise InputTypeError(
                f"{name}: the cotangent is not of the structure of the function's value", at=user_line()
            )
        seeds: dict[int, Any] = {}
        for slot, given in zip(slots, tree.leaves(cotangent), strict=True):
            if slot is None:
                continue
            seed = checked_seed(name, given, frozen.shape(slot), frozen.dtype(slot))
            seeds[slot] = seeds[slot] + seed if slot in seeds else seed
        cotangents = swept(frozen, activity, seeds, range(len(listed)))
        return packed(asked, indices, [like(c, x.value) for c, x in zip(cotangents, listed, strict=True)])

    return (run.value, pullback, run.aux) if has_aux else (run.value, pullback)


def checked_seed(name: str, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return a cotangent given by the caller, checked against the output it belongs to."""
    if not is_traced(given):
        given = np.asarray(given)
    if given.shape != shape:
        raise InputTypeError(
            f"{name}: a cotangent of shape {given.shape} was given for an output of shape {shape}",
            at=user_line(),
        )
    if given.dtype == dtype:
        return given
    if given.dtype.kind not in "fiub" and dtype.kind != "c":
        raise InputTypeError(
            f"{name}: a cotangent of dtype {given.dtype} was given for an output of dtype {dtype}",
            at=user_line(),
            fix="Pass its real part.",
        )
    return given.astype(dtype)


def stop_gradient(value: Any) -> Any:
    """Return `value` as plain arrays: no derivative passes, at any order.

    Parameters
    ----------
    value : array, float or container of these
        What may be traced.

    Returns
    -------
    array, float or container
        The same values; arrays that were traced come as copies.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> nbad.grad(lambda x: np.sum(x * nbad.stop_gradient(x)))(np.array([3.0]))
    array([3.])
    """

    def stopped(leaf: Any) -> Any:
        if not is_traced(leaf):
            return leaf
        found = plain(leaf)
        if is_traced(found):
            return apply(STOP_GRADIENT, found)
        return found.copy() if isinstance(found, np.ndarray) else found

    return tree.map_leaves(stopped, value)


__all__ = ["grad", "stop_gradient", "value_and_grad", "vjp"]
