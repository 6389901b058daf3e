"""njit: kernels, functions compiled by numba, in traced code.

Owns what a user sees of a kernel, and how its call becomes a node of the tape (`nbad.kernel_terms`) or, where the kernel is the
whole function, its gradient alone.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Container, Sequence
from typing import Any

import numba
import numpy as np
from numba.core import registry

from nbad import tree
from nbad.errors import InputTypeError
from nbad.keeping import operand
from nbad.kernel_effects import changing_leaves, settle
from nbad.kernel_terms import (
    Leaves,
    Node,
    Site,
    Term,
    active_value,
    apart,
    merged,
    plain_result,
    recorded,
    row,
    taped,
)
from nbad.methods import user_line
from nbad.recorder import dtype_of
from nbad.regions import is_array
from nbad.replay.graph import form_of
from nbad.report import current
from nbad.scalar.calls import Call, Part
from nbad.scalar.writes import arguments_written
from nbad.trace import Traced, apply, is_traced, underlying
from nbad.transforms import CONVERTERS
from nbad.wrt import Asked, Leaf, substitute

__all__ = ["Jitted", "njit"]

_NUMBERS = (bool, int, float, complex, np.generic)
_REAL = (np.dtype(np.float64), np.dtype(np.float32))
_FLAT = frozenset({np.ndarray, np.float64, np.float32, np.int64, float, int, bool})


# What a user calls ------------------------------------------------------------------------------
class Jitted:
    """A kernel that takes traced values; made by `njit`.

    Attributes
    ----------
    kernel : Dispatcher
        What numba made; it is called where nothing is traced.
    own : container of int
        Positions of the arguments that no traced code reads after the call, see `nbad.kernel_effects.settle`.
    keeps : bool
        A call keeps its tape for the pull; otherwise the pull runs the kernel again.
    """

    def __init__(self, kernel: Any, own: Container[int] = (), keeps: bool = True) -> None:
        functools.update_wrapper(self, kernel.py_func)
        self.kernel = kernel
        self.own = own
        self.keeps = keeps
        self._signature = inspect.signature(kernel.py_func)
        parameters = self._signature.parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        texts = tuple(f"{{{k}}}" for k, one in enumerate(parameters) if one.kind in kinds)
        #: A call with a leaf for each argument.
        self._flat = Call(kernel, texts, {}) if len(texts) == len(parameters) else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the kernel; record one node where an argument is traced."""
        if not any(map(is_traced, tree.leaves((args, kwargs)))):
            return self.kernel(*args, **kwargs)
        call, leaves = self._call(args, kwargs)
        places = tuple(i for i, leaf in enumerate(leaves) if is_traced(leaf) or is_array(leaf))
        operands = [leaves[i] for i in places]
        plainly = [underlying(x) for x in operands]
        site = self._site(call, leaves, places, plainly)
        own = [k for i in range(len(call.arguments)) if i in self.own for k in call.leaves_of(i)]
        return _recorded_call(site, operands, plainly, own)

    def gradient(self, asked: Asked, listed: Sequence[Leaf]) -> tuple[Any, list[Any]] | None:
        """Return the value and the gradient of a call, without a tape of arrays around that of the kernel.

        Parameters
        ----------
        asked : Asked
            The arguments of the call.
        listed : sequence of Leaf
            Which leaves are asked for.

        Returns
        -------
        value : float
            What the kernel returned.
        cotangents : list
            One for each leaf.

        None in the place of both says that the value is not one active number, or that somebody else is to differentiate.
        """
        marks: list[Any] = [_Mark(leaf.value) for leaf in listed]
        args, kwargs = substitute(asked, listed, marks)
        call, leaves = self._call(args, kwargs)
        if any(map(is_traced, leaves)) or any(is_traced(mark.value) for mark in marks):
            return None
        where = {id(leaf): i for i, leaf in enumerate(leaves) if type(leaf) is _Mark}
        if len(where) < len(marks):
            return None
        leaves = [leaf.value if type(leaf) is _Mark else leaf for leaf in leaves]
        places = tuple(i for i, leaf in enumerate(leaves) if i in where.values() or is_array(leaf))
        plainly = [leaves[i] for i in places]
        site = self._site(call, leaves, places, plainly)
        if site.changing:
            return None
        starts = [where[id(mark)] for mark in marks]
        return _swept(recorded(site, plainly, tuple(sorted(starts)), ()), leaves, starts)

    def gradient_at(self, positions: Sequence[int], args: Sequence[Any]) -> tuple[Any, list[Any]] | None:
        """Return what `gradient` does, for distinct positions of arguments that are all arrays or numbers.

        This is the call of which people have thousands; None says that it is not, or that it is not quite right.
        """
        call = self._flat
        if call is None or len(call.arguments) != len(args) or not _FLAT.issuperset(map(type, args)):
            return None
        for k in positions:
            if k >= len(args) or not _is_real(args[k]):
                return None
        if arguments_written(self.kernel):
            return None
        return _swept(taped(call, args, sorted(positions)), args, positions)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, list[Any]]:
        """Write a call out, and list its leaves."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        leaves: list[Any] = []
        names: dict[str, Any] = {}
        arguments = tuple(_spelled(self.kernel, one, leaves, names) for one in bound.args)
        return Call(self.kernel, arguments, names), leaves

    def _site(self, call: Call, leaves: Leaves, places: tuple[int, ...], plainly: Leaves) -> Site:
        site = Site(call, [None if i in places else leaf for i, leaf in enumerate(leaves)], places)
        site.looks = [(dtype_of(x), form_of(x)) for x in plainly]
        site.changing = changing_leaves(call, dict(zip(places, plainly, strict=True)))
        site.keeps = self.keeps
        return site

    def __repr__(self) -> str:
        """Show the name."""
        return f"<nbad.njit {self.kernel.py_func.__name__}>"

    def __reduce__(self) -> Any:
        """Pickle as the kernel it was made from."""
        return njit, (self.kernel,)


def _is_real(leaf: Any) -> bool:
    if type(leaf) is float:
        return True
    return type(leaf) is not int and type(leaf) is not bool and leaf.dtype in _REAL


def _swept(made: Any, leaves: Leaves, asked: Sequence[int]) -> tuple[Any, list[Any]] | None:
    """Return the value that a call left and its gradient; None if the value is not one active number."""
    part = made.outputs
    if (
        not isinstance(part, Part)
        or not isinstance(part.lanes[0], float)
        or not isinstance(part.indices, int)
    ):
        return None
    begin = time.perf_counter()
    shapes = {i: np.shape(leaves[i]) for i in asked}
    found = made.pull([(part.indices, np.float64(1.0))], shapes)
    for listener in current():
        listener.sweeps += 1
        listener.time_sweep += time.perf_counter() - begin
    return part.lanes[0], [np.asarray(found[i], dtype_of(leaves[i])) for i in asked]


class _Mark:
    """A leaf that is asked for, in the place of its value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        plain = isinstance(value, np.ndarray) and type(value) is not np.ndarray
        self.value = value.view(np.ndarray) if plain else value


def _spelled(kernel: Any, value: Any, leaves: list[Any], names: dict[str, Any]) -> str:
    """Write an argument as text with the leaves as fields, and list these."""
    if isinstance(value, tuple):
        inner = "".join(f"{_spelled(kernel, one, leaves, names)}, " for one in value)
        if not hasattr(value, "_fields"):
            return f"({inner})"
        name = f"{type(value).__name__}_{len(names)}"
        name = next((known for known, cls in names.items() if cls is type(value)), name)
        names[name] = type(value)
        return f"{name}({inner})"
    if isinstance(value, (list, dict)) and any(map(is_traced, tree.leaves(value))):
        raise InputTypeError(
            f"{kernel.py_func.__name__}: a traced value is within a {type(value).__name__}, which kernels do not take",
            at=user_line(),
            fix="Pass an array, a tuple or a named tuple.",
        )
    if isinstance(value, np.ma.MaskedArray | np.matrix):
        operand(value)  # raises; numba takes one for a plain array once it has compiled the kernel for such
    leaves.append(value)
    return f"{{{len(leaves) - 1}}}"


def _recorded_call(site: Site, operands: list[Any], plainly: list[Any], own: list[int]) -> Any:
    """Return what a call with traced operands returns."""
    first = not any(is_traced(x._value) or x._tape.records for x in operands if type(x) is Traced)
    asked = [k for k, x in enumerate(operands) if is_traced(x) and site.differentiable(k)]
    given = dict(zip(site.places, operands, strict=True))
    for k, place in enumerate(site.places):
        if place in site.changing and not is_traced(
            operands[k]
        ):  # the node keeps what it was before the call
            operands[k] = plainly[k] = plainly[k].copy()
    if asked and ((first and site.keeps) or site.changing):
        made = recorded(site, plainly, tuple(site.places[k] for k in asked), ())
        site.recorded = made if first and site.keeps else None
        result = tree.map_leaves(active_value, merged(made.outputs))
        settle(site.call, given, made.after, made.firsts, own)
    else:
        filled = site.filled(plainly)
        result = plain_result(site, filled)
        settle(site.call, given, {k: filled[k] for k in site.changing}, {}, own)
    skeleton, leaves = tree.take_apart(result)
    outputs = [i for i, leaf in enumerate(leaves) if is_array(leaf) or isinstance(leaf, _NUMBERS)]
    if not outputs:
        return result
    site.outputs = [(i, dtype_of(leaves[i]), np.shape(leaves[i])) for i in outputs]
    site.pending = [apart(leaves[i], plainly) for i in outputs]
    node = Node(Term(site, (), None, tuple(range(len(outputs)))))
    found = apply(row(len(outputs)), *operands, node=node)
    for i, value in zip(outputs, found if len(outputs) > 1 else (found,), strict=True):
        leaves[i] = value
    return tree.assemble(skeleton, leaves)


def njit(function: Any = None, /, **options: Any) -> Any:
    """Return a function compiled by numba that nbad differentiates inside: a decorator.

    Parameters
    ----------
    function : callable or numba function
        What `numba.njit` takes, or what it returned.
    **options
        Options of `numba.njit`, for a function that is not compiled yet.

    Returns
    -------
    Jitted
        It is called as the function; where an argument is traced the call is one node of the tape.

    Raises
    ------
    NoRuleError
        At a traced call: the kernel does something that has no derivative here; the message names its line.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> @nbad.njit
    ... def energy(x):
    ...     total = 0.0
    ...     for i in range(x.size - 1):
    ...         if x[i + 1] > x[i]:
    ...             total += (x[i + 1] - x[i]) ** 2
    ...     return total
    >>> nbad.grad(lambda x: energy(2 * x))(np.array([0.0, 1.0, 0.5]))
    array([-8.,  8.,  0.])
    """
    if function is None:
        return functools.partial(njit, **options)
    if isinstance(function, Jitted):
        return function
    if not isinstance(function, registry.CPUDispatcher):
        function = numba.njit(**options)(function)
    return Jitted(function)


def _whole(function: Any) -> Jitted:
    """Return a kernel that is differentiated by itself."""
    return Jitted(function.kernel if isinstance(function, Jitted) else function, own=range(1 << 16))


CONVERTERS[registry.CPUDispatcher] = CONVERTERS[Jitted] = _whole
