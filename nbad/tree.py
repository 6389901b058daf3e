"""Containers of arrays: flatten, rebuild, select, register.

Owns what counts as a container (dict, list, tuple, named tuple, dataclass instance, None, classes that the
user registered). Must not know traced values: a leaf is whatever is not a container.

A path is a tuple of keys: str for named fields, int for positions, the key itself for dicts. Walks keep their
own stack, so the depth of a container is not bounded by Python's recursion limit.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbad.errors import InputTypeError, WrtError

__all__ = [
    "assemble",
    "descend",
    "leaves",
    "map_leaves",
    "path_text",
    "paths",
    "rebuild",
    "register",
    "select",
    "structure",
    "take_apart",
]

Path = tuple[Any, ...]
# The nodes in preorder: (class, keys, context) of a container, None for a leaf.
Skeleton = list[tuple[Any, tuple[Any, ...], Any] | None]

# Deeper than this, a container is taken to contain itself.
DEPTH_LIMIT = 10_000


class _Container(NamedTuple):
    """How one class is taken apart and put together."""

    # obj -> (keys, children, context)
    flatten: Callable[[Any], tuple[tuple[Any, ...], Sequence[Any], Any]]
    # (class, keys, context, children) -> obj
    unflatten: Callable[[type, tuple[Any, ...], Any, list[Any]], Any]


def _flatten_none(obj: None) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
    return (), (), None


def _unflatten_none(cls: type, keys: tuple[Any, ...], context: Any, children: list[Any]) -> None:
    return None


def _flatten_sequence(obj: Sequence[Any]) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
    return tuple(range(len(obj))), obj, None


def _unflatten_sequence(cls: type, keys: tuple[Any, ...], context: Any, children: list[Any]) -> Any:
    return cls(children)


def _flatten_dict(obj: Mapping[Any, Any]) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
    return tuple(obj), list(obj.values()), getattr(obj, "default_factory", None)


def _unflatten_dict(cls: type, keys: tuple[Any, ...], context: Any, children: list[Any]) -> Any:
    items = zip(keys, children, strict=True)
    return defaultdict(context, items) if cls is defaultdict else cls(items)


def _flatten_namedtuple(obj: Any) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
    return obj._fields, obj, None


def _unflatten_namedtuple(cls: Any, keys: tuple[Any, ...], context: Any, children: list[Any]) -> Any:
    return cls._make(children)


def _flatten_dataclass(obj: Any) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
    # A field with init=False may never have been set.
    names = tuple(field.name for field in dataclasses.fields(obj) if hasattr(obj, field.name))
    return names, [getattr(obj, name) for name in names], None


def _unflatten_dataclass(cls: type, keys: tuple[Any, ...], context: Any, children: list[Any]) -> Any:
    # Neither __init__ nor __post_init__ runs: they may validate, normalise or convert, which a container of
    # gradients must not suffer. Attributes that are not fields are left out rather than copied: they may be
    # derived from the old leaves, and a missing attribute is an error where a stale one is a wrong gradient.
    # (A functools.cached_property computes itself anew.)
    new: Any = object.__new__(cls)
    for name, child in zip(keys, children, strict=True):
        object.__setattr__(new, name, child)  # also for frozen classes and slots
    return new


_NAMEDTUPLE = _Container(_flatten_namedtuple, _unflatten_namedtuple)
_DATACLASS = _Container(_flatten_dataclass, _unflatten_dataclass)
_SEQUENCE = _Container(_flatten_sequence, _unflatten_sequence)
_DICT = _Container(_flatten_dict, _unflatten_dict)
_BUILTIN: dict[type, _Container] = {
    type(None): _Container(_flatten_none, _unflatten_none),
    list: _SEQUENCE,
    tuple: _SEQUENCE,
    dict: _DICT,
    OrderedDict: _DICT,
    defaultdict: _DICT,
}
# Every class met so far; None for leaves.
_classes: dict[type, _Container | None] = {**_BUILTIN, np.ndarray: None, float: None, complex: None}


def _container_of(cls: type) -> _Container | None:
    """Say how `cls` is taken apart; None for a leaf."""
    try:
        return _classes[cls]
    except KeyError:
        pass
    found = None
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        found = _NAMEDTUPLE
    elif dataclasses.is_dataclass(cls) and not issubclass(cls, np.ndarray):
        found = _DATACLASS
    _classes[cls] = found
    return found


def register(
    cls: type,
    flatten: Callable[[Any], tuple[Iterable[tuple[Any, Any]], Any]],
    unflatten: Callable[[Any, list[Any]], Any],
) -> None:
    """Make a class a container.

    Parameters
    ----------
    cls : type
        The class, exactly: its subclasses are registered by themselves. A dataclass may be registered to
        replace the built-in treatment.
    flatten : callable
        ``flatten(obj)`` returns ``(pairs, context)``: the children as an iterable of ``(key, child)`` with
        keys that differ (str or int, so that ``wrt`` can name them), and whatever else `unflatten` needs. The
        context must be hashable.
    unflatten : callable
        ``unflatten(context, children)`` returns an object of the class from a list of children. The children
        may be traced values or gradients, so it should not validate or convert them.

    Raises
    ------
    TypeError
        If `cls` is a built-in container or an array class.

    Examples
    --------
    >>> class Pair:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, b
    >>> register(Pair, lambda p: ([("a", p.a), ("b", p.b)], None), lambda context, children: Pair(*children))
    >>> leaves({"p": Pair(1.0, [2.0])})
    [1.0, 2.0]
    """
    if not isinstance(cls, type):
        raise TypeError(f"register needs a class, not {cls!r}")
    if cls in _BUILTIN or issubclass(cls, np.ndarray | np.generic | float | complex | int):
        raise TypeError(f"{cls.__qualname__} cannot be registered: it is a built-in container or a leaf")

    def flatten_pairs(obj: Any) -> tuple[tuple[Any, ...], Sequence[Any], Any]:
        pairs, context = flatten(obj)
        pairs = list(pairs)
        return tuple(key for key, _ in pairs), [child for _, child in pairs], context

    def unflatten_pairs(cls: type, keys: tuple[Any, ...], context: Any, children: list[Any]) -> Any:
        return unflatten(context, children)

    _classes[cls] = _Container(flatten_pairs, unflatten_pairs)


def _too_deep(tree: object) -> InputTypeError:
    return InputTypeError(
        f"a {type(tree).__name__} is nested deeper than {DEPTH_LIMIT} levels",
        fix="Does it contain itself? Pass arrays in containers without cycles.",
    )


def leaves(tree: Any) -> list[Any]:
    """List the leaves of a container from left to right.

    Parameters
    ----------
    tree : Any
        A container or a leaf.

    Returns
    -------
    list
        The leaves; ``[tree]`` for a leaf, nothing for None.

    Raises
    ------
    InputTypeError
        If the container contains itself.

    Examples
    --------
    >>> leaves({"w": [1.0, 2.0], "b": None, "c": (3.0,)})
    [1.0, 2.0, 3.0]
    """
    if _container_of(type(tree)) is None:
        return [tree]
    return take_apart(tree)[1]


def paths(tree: Any) -> list[Path]:
    """List the path of every leaf, in the order of `leaves`.

    Parameters
    ----------
    tree : Any
        A container or a leaf.

    Returns
    -------
    list of tuple
        One path per leaf; ``[()]`` for a leaf.

    Examples
    --------
    >>> paths({"w": [1.0, 2.0], "b": None})
    [('w', 0), ('w', 1)]
    """
    found: list[Path] = []
    stack: list[tuple[Path, Any]] = [((), tree)]
    while stack:
        path, node = stack.pop()
        container = _container_of(type(node))
        if container is None:
            found.append(path)
            continue
        if len(path) > DEPTH_LIMIT:
            raise _too_deep(tree)
        keys, children, _ = container.flatten(node)
        stack.extend(
            ((*path, key), child) for key, child in zip(reversed(keys), reversed(children), strict=True)
        )
    return found


def take_apart(tree: Any) -> tuple[Skeleton, list[Any]]:
    """Split a container into its skeleton and its leaves; `assemble` is the way back."""
    tokens: Skeleton = []
    found = []
    stack = [(0, tree)]
    while stack:
        depth, node = stack.pop()
        container = _container_of(type(node))
        if container is None:
            tokens.append(None)
            found.append(node)
            continue
        if depth > DEPTH_LIMIT:
            raise _too_deep(tree)
        keys, children, context = container.flatten(node)
        tokens.append((type(node), keys, context))
        stack.extend((depth + 1, child) for child in reversed(children))
    return tokens, found


def structure(tree: Any) -> tuple[Any, ...]:
    """Describe a container without its values.

    Parameters
    ----------
    tree : Any
        A container or a leaf.

    Returns
    -------
    tuple
        Hashable; equal for two containers exactly if their types, keys (in order) and contexts are equal.

    Examples
    --------
    >>> structure([1.0, (2.0, None)]) == structure([5.0, (7.0, None)])
    True
    >>> structure([1.0]) == structure((1.0,))
    False
    """
    return tuple(take_apart(tree)[0])


def rebuild(tree: Any, new_leaves: Iterable[Any]) -> Any:
    """Make a container of the same structure with other leaves.

    Parameters
    ----------
    tree : Any
        The model; it is not changed.
    new_leaves : iterable
        As many values as the model has leaves. They may themselves be anything.

    Returns
    -------
    Any
        A new container. The order of dicts is kept. Dataclass instances are made without running
        ``__init__`` or ``__post_init__`` and carry their fields only.

    Raises
    ------
    ValueError
        If the number of leaves differs.

    Examples
    --------
    >>> rebuild({"w": [1.0, 2.0], "b": None}, [10.0, 20.0])
    {'w': [10.0, 20.0], 'b': None}
    """
    return assemble(take_apart(tree)[0], list(new_leaves))


def assemble(tokens: Skeleton, new: list[Any]) -> Any:
    """Build a container from its skeleton and its leaves; `new` is used up."""
    count = sum(token is None for token in tokens)
    if count != len(new):
        raise ValueError(f"the container has {count} leaves, but {len(new)} new ones were given")
    built: list[Any] = []  # the finished children to the right of the current node, leftmost on top
    for token in reversed(tokens):
        if token is None:
            built.append(new.pop())
            continue
        cls, keys, context = token
        container = _container_of(cls)
        assert container is not None
        children = [built.pop() for _ in keys]
        built.append(container.unflatten(cls, keys, context, children))
    return built.pop()


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to every leaf.

    Parameters
    ----------
    function : callable
        Called with one leaf.
    tree : Any
        A container or a leaf.

    Returns
    -------
    Any
        A container of the same structure with the results.

    Examples
    --------
    >>> map_leaves(abs, {"a": -1.0, "b": (-2.0,)})
    {'a': 1.0, 'b': (2.0,)}
    """
    return rebuild(tree, [function(leaf) for leaf in leaves(tree)])


def _step(node: Any, key: Any, dotted: bool) -> tuple[Any, Any]:
    """Return the canonical key and the child that `key` means in `node`; KeyError lists the keys."""
    container = _container_of(type(node))
    if container is None:
        raise KeyError(())
    keys, children, _ = container.flatten(node)
    if isinstance(key, np.integer):
        key = int(key)
    if key not in keys and dotted and key.removeprefix("-").isdecimal():
        key = int(key)
    if key in keys:
        index = keys.index(key)
    elif type(key) is int and isinstance(node, list | tuple) and -len(keys) <= key < len(keys):
        index = key % len(keys)  # from the end, or the field of a named tuple by position
    else:
        raise KeyError(keys)
    return keys[index], children[index]


def descend(tree: Any, path: Iterable[Any], name: str, asked: object, *, dotted: bool) -> tuple[Path, Any]:
    """Follow a path on behalf of the user.

    Parameters
    ----------
    tree : Any
        A container or a leaf.
    path : iterable
        Keys.
    name : str
        What the container is called in messages.
    asked : object
        What the user wrote.
    dotted : bool
        Whether the keys are parts of a dotted name, where digits may mean an int.

    Returns
    -------
    path : tuple
        The keys as `paths` spells them.
    node : Any
        What the path leads to.

    Raises
    ------
    WrtError
        If a key does not exist; the message lists those that do.
    """
    node = tree
    walked: list[Any] = []
    for key in path:
        try:
            key, node = _step(node, key, dotted)
        except KeyError as error:
            place = path_text(name, walked)
            kind = type(node).__name__
            if _container_of(type(node)) is None:
                problem = f"{place} is a leaf ({kind}), so it has no {key!r}"
            else:
                problem = f"there is no {key!r} in {place} ({kind})"
            raise WrtError.unknown(asked, problem, error.args[0], kind=f"keys in {place}") from None
        walked.append(key)
    return tuple(walked), node


def select(tree: Any, path: Iterable[Any]) -> Any:
    """Follow a path into a container.

    Parameters
    ----------
    tree : Any
        A container or a leaf.
    path : iterable
        Exact keys; positions may count from the end.

    Returns
    -------
    Any
        A leaf or a container.

    Raises
    ------
    WrtError
        If a key does not exist; the message lists those that do.

    Examples
    --------
    >>> select({"layers": [{"w": 1.0}, {"w": 2.0}]}, ("layers", -1, "w"))
    2.0
    """
    path = tuple(path)
    return descend(tree, path, "the container", path, dotted=False)[1]


def path_text(name: str, path: Iterable[Any]) -> str:
    """Write a path as one writes it in Python.

    Parameters
    ----------
    name : str
        What the path starts at.
    path : iterable
        Its keys.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> path_text("params", ("layers", 0, "w", "a b"))
    "params.layers[0].w['a b']"
    """
    parts = (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in path)
    return name + "".join(parts)
