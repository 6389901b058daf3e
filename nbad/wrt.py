"""What ``wrt`` asks for, in the arguments of one call.

Owns the reading of ``wrt``: which arguments, which paths into them, which leaves. Must not know traced
values.

How ``wrt`` is read
-------------------
- An int is the position of an argument; negative ones count from the end of the positional arguments passed.
- A str is the name of a parameter, else a dotted path: ``"params.psf"``, ``"layers.0.w"``. A part made of
  digits is an index, where no key is spelled like it.
- A tuple is either several of these, answered by a tuple, or one path of exact keys that starts at an
  argument:

  1. a tuple of one element, and a tuple that contains a tuple, is several; each inner tuple is one path;
  2. a tuple of ints only is several positions;
  3. a tuple that mixes ints with strs (or has keys of other types) is one path: ``(0, "bias")``;
  4. a tuple of strs only is several if each of them starts at an argument, ``("x", "params.psf")``. It is one
     path if the first is an argument and the rest leads into it, ``("params", "psf")``. Where both hold, it
     is refused.

The spelling that is never in doubt is a tuple of tuples: ``(("a",), ("b",))`` is two arguments and
``(("a", "b"),)`` is one path, answered by a tuple of one.

An argument that was not passed can be asked for by name if it has a default. The same leaf may be asked for
more than once, alone and inside of a container.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbad.errors import WrtError
from nbad.tree import Path, descend, leaves, path_text, paths, rebuild, select

__all__ = ["Asked", "Entry", "Leaf", "asked_leaves", "parse_wrt", "signature_of", "substitute"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Entry(NamedTuple):
    """One asked-for argument or part of an argument."""

    argument: int | str  # position if it was passed by position, else name
    path: Path  # as `nbad.tree.paths` spells it


class Leaf(NamedTuple):
    """One leaf that is asked for, once, however often it is named."""

    argument: int | str
    path: Path
    value: Any
    text: str  # what the user calls it, such as ``params.layers[0].w``


class Asked(NamedTuple):
    """The reading of one ``wrt`` for one call."""

    args: tuple[Any, ...]  # as passed; asked-for defaults are filled in here and in kwargs
    kwargs: dict[str, Any]
    entries: tuple[Entry, ...]
    several: bool  # whether the answer is a tuple
    names: tuple[str, ...]  # of the positional parameters

    def value(self, argument: int | str) -> Any:
        """Return an argument."""
        return self.args[argument] if isinstance(argument, int) else self.kwargs[argument]

    def text(self, argument: int | str, path: Path = ()) -> str:
        """Write an argument, or a part of it, as the user knows it."""
        if isinstance(argument, int):
            argument = self.names[argument] if argument < len(self.names) else f"argument {argument}"
        return path_text(argument, path)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a function; None where Python cannot tell it.

    Parameters
    ----------
    function : callable
        The function that is differentiated.

    Returns
    -------
    inspect.Signature or None
        None for many compiled functions; then only positions and passed keywords can be asked for.
    """
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


class _Call:
    """The arguments of one call, found by position or by name."""

    def __init__(
        self, signature: inspect.Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.args = list(args)
        self.kwargs = dict(kwargs)
        self.parameters = {} if signature is None else dict(signature.parameters)
        self.names = tuple(p.name for p in self.parameters.values() if p.kind in _POSITIONAL)

    def named(self) -> list[str]:
        """List every name that could be asked for."""
        names = [p.name for p in self.parameters.values() if p.kind not in _VARIADIC]
        return names + [name for name in self.kwargs if name not in names]

    def has(self, name: object) -> bool:
        """Say whether `name` is an argument, passed or not."""
        return isinstance(name, str) and name in self.named()

    def by_position(self, position: int, asked: object) -> int | str:
        """Find the argument at a position."""
        passed = len(self.args)
        if -passed <= position < passed:
            return position % passed
        if passed <= position < len(self.names):
            return self.by_name(self.names[position], asked)
        raise WrtError.unknown(
            asked,
            f"there is no argument at position {position}",
            range(max(passed, len(self.names))),
            kind="positions",
        )

    def by_name(self, name: str, asked: object) -> int | str:
        """Find the argument of a name; an argument that was not passed enters with its default."""
        if name in self.names and self.names.index(name) < len(self.args):
            return self.names.index(name)
        if name in self.kwargs:
            return name
        parameter = self.parameters.get(name)
        if parameter is None or parameter.kind in _VARIADIC:
            problem = f"there is no argument {name!r}"
            if parameter is not None:
                problem = f"{name!r} collects arguments; ask for them by position or by keyword"
            raise WrtError.unknown(asked, problem, self.named())
        if parameter.default is inspect.Parameter.empty:
            raise WrtError(f"wrt={asked!r}: the argument {name!r} was not passed and has no default")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            position = self.names.index(name)
            self.args += [self.parameters[n].default for n in self.names[len(self.args) : position + 1]]
            return position
        self.kwargs[name] = parameter.default
        return name

    def entry(self, argument: int | str, path: Sequence[Any], asked: object, *, dotted: bool) -> Entry:
        """Follow a path into an argument."""
        value = self.args[argument] if isinstance(argument, int) else self.kwargs[argument]
        if isinstance(argument, int):
            name = self.names[argument] if argument < len(self.names) else f"argument {argument}"
        else:
            name = argument
        return Entry(argument, descend(value, path, name, asked, dotted=dotted)[0])

    def parse_dotted(self, text: str, asked: object) -> Entry:
        """Read a name or a dotted path."""
        if self.has(text):
            return Entry(self.by_name(text, asked), ())
        head, *rest = text.split(".")
        return self.entry(self.by_name(head, asked), rest, asked, dotted=True)

    def parse_path(self, path: tuple[Any, ...], asked: object) -> Entry:
        """Read a tuple that is one path."""
        if not path:
            raise WrtError(f"wrt={asked!r}: an empty tuple names nothing")
        head, *rest = path
        if _is_position(head):
            return self.entry(self.by_position(int(head), asked), rest, asked, dotted=False)
        if isinstance(head, str):
            return self.entry(self.by_name(head, asked), rest, asked, dotted=False)
        raise _bad_type(head, asked)

    def parse_one(self, one: object, asked: object) -> Entry:
        """Read one entry."""
        if isinstance(one, tuple):
            return self.parse_path(one, asked)
        if isinstance(one, str):
            return self.parse_dotted(one, asked)
        if _is_position(one):
            return Entry(self.by_position(int(one), asked), ())  # type: ignore[call-overload]
        raise _bad_type(one, asked)

    def starts_at_argument(self, text: str) -> bool:
        """Say whether a str is a name or a dotted path that begins with one."""
        return self.has(text) or self.has(text.split(".")[0])

    def is_several(self, wrt: tuple[Any, ...]) -> bool:
        """Tell several entries from one path; see the rules at the top of this module."""
        if len(wrt) == 1 or any(isinstance(one, tuple) for one in wrt):
            return True
        if all(map(_is_position, wrt)):
            return True
        if not all(isinstance(one, str) for one in wrt):
            return False
        several = all(map(self.starts_at_argument, wrt))
        if not self.has(wrt[0]):
            return True  # a path it cannot be; the message then names what is missing
        try:
            self.parse_path(wrt, wrt)
        except WrtError:
            # Neither reading holds: the one to complain about is a path if only the first is an argument.
            return several or any(map(self.starts_at_argument, wrt[1:]))
        if several:
            raise WrtError(
                f"wrt={wrt!r} can be read in two ways: as the arguments {', '.join(wrt)}, and as "
                f"{path_text(wrt[0], wrt[1:])}",
                fix=f"For the arguments write {tuple((one,) for one in wrt)!r}, for the part of "
                f"{wrt[0]} write {'.'.join(wrt)!r} or {(wrt,)!r}.",
            )
        return False


def _is_position(one: object) -> bool:
    return isinstance(one, int | np.integer) and not isinstance(one, bool)


def _bad_type(one: object, asked: object) -> WrtError:
    return WrtError(
        f"wrt={asked!r}: {one!r} is a {type(one).__name__}",
        fix='Use a position (0), a name ("x"), a path ("params.psf", (0, "bias")) or a tuple of these.',
    )


def parse_wrt(
    wrt: Any, signature: inspect.Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Asked:
    """Read ``wrt`` for one call.

    Parameters
    ----------
    wrt : int, str or tuple
        What the user asked for.
    signature : inspect.Signature or None
        Of the differentiated function, from `signature_of`.
    args, kwargs : sequence, mapping
        The arguments of the call. They are not changed.

    Returns
    -------
    Asked
        The arguments, with asked-for defaults filled in, and one entry per answer, in the order asked.

    Raises
    ------
    WrtError
        If an argument, name or path does not exist (the message lists those that do), if an argument was not
        passed and has no default, or if a tuple can be read in two ways.

    Examples
    --------
    >>> def loss(params, x): ...
    >>> call = ({"psf": 1.0, "bias": [2.0, 3.0]}, 4.0)
    >>> parse_wrt("params.bias.1", signature_of(loss), call, {}).entries
    (Entry(argument=0, path=('bias', 1)),)
    >>> parse_wrt(("x", "params.psf"), signature_of(loss), call, {}).entries
    (Entry(argument=1, path=()), Entry(argument=0, path=('psf',)))
    """
    call = _Call(signature, args, kwargs)
    several = False
    if isinstance(wrt, tuple):
        if not wrt:
            raise WrtError("wrt=() asks for nothing")
        several = call.is_several(wrt)
    entries = tuple(call.parse_one(one, wrt) for one in (wrt if several else (wrt,)))
    return Asked(tuple(call.args), call.kwargs, entries, several, call.names)


def asked_leaves(asked: Asked) -> tuple[list[Leaf], list[list[int]]]:
    """List the leaves that are asked for, each once.

    Parameters
    ----------
    asked : Asked
        From `parse_wrt`.

    Returns
    -------
    leaves : list of Leaf
        In the order in which they are first asked for.
    indices : list of list of int
        For each entry, the positions of its leaves in the first list, in the order of `nbad.tree.leaves`.
        ``rebuild(select(asked.value(e.argument), e.path), answers)`` puts answers into the entry's container.
    """
    found: dict[tuple[int | str, Path], int] = {}
    listed: list[Leaf] = []
    indices = []
    for argument, path in asked.entries:
        part = select(asked.value(argument), path)
        row = []
        for below, value in zip(paths(part), leaves(part), strict=True):
            whole = path + below
            index = found.setdefault((argument, whole), len(listed))
            if index == len(listed):
                listed.append(Leaf(argument, whole, value, asked.text(argument, whole)))
            row.append(index)
        indices.append(row)
    return listed, indices


def substitute(
    asked: Asked, listed: Sequence[Leaf], values: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put other values in the place of the asked-for leaves.

    Parameters
    ----------
    asked : Asked
        From `parse_wrt`.
    listed : sequence of Leaf
        From `asked_leaves`.
    values : sequence
        One value per leaf.

    Returns
    -------
    args, kwargs : tuple, dict
        The arguments for the call. Containers that hold an asked-for leaf are new; all other arguments are
        the objects that were passed.
    """
    args, kwargs = list(asked.args), dict(asked.kwargs)
    new: dict[int | str, dict[Path, Any]] = {}
    for leaf, value in zip(listed, values, strict=True):
        new.setdefault(leaf.argument, {})[leaf.path] = value
    for argument, by_path in new.items():
        whole = asked.value(argument)
        if () in by_path:
            changed = by_path[()]
        else:
            old = zip(paths(whole), leaves(whole), strict=True)
            changed = rebuild(whole, [by_path.get(path, value) for path, value in old])
        if isinstance(argument, int):
            args[argument] = changed
        else:
            kwargs[argument] = changed
    return tuple(args), kwargs
