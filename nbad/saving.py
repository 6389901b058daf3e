"""Recordings of a compiled function as bytes.

Owns what a file says about arguments and results (as JSON); the graphs are written and validated by `nbad.tape_file`.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbad.deriving import Primal
from nbad.errors import TapeError
from nbad.signatures import Template, Value
from nbad.tape_file import pack, unpack
from nbad.variants import Variant

__all__ = ["pack_variants", "unpack_variants"]

_CONTAINERS: dict[str, type] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "None": type(None),
    "OrderedDict": OrderedDict,
}
_KINDS = {kind.name: kind for kind in inspect._ParameterKind}
_DTYPES = "fciub"


def pack_variants(name: str, signature: inspect.Signature | None, variants: Sequence[Variant]) -> bytes:
    """Return recordings as bytes.

    Raises
    ------
    TapeError
        An argument or a result that has no place in a file.
    """
    parameters = None
    if signature is not None:
        parameters = [[p.name, p.kind.name] for p in signature.parameters.values()]
    shared = {"name": name, "parameters": parameters}
    graphs = []
    for variant in sorted(variants, key=_used):
        tokens, specs = variant.key
        meta = {
            **shared,
            "skeleton": [_token(t) for t in tokens],
            "specs": [_spec(s) for s in specs],
            "result": [_token(t) for t in variant.primal.template.skeleton],
            "leaves": [_leaf(x) for x in variant.primal.template.leaves],
            "places": list(variant.primal.template.places),
        }
        graphs.append((meta, variant.primal.graph))
    return pack(graphs) if graphs else pack([])


def unpack_variants(content: bytes) -> tuple[str, inspect.Signature | None, list[Variant]]:
    """Return name, signature and recordings from bytes; everything is checked before anything could run.

    Raises
    ------
    TapeError
        The bytes are damaged.
    """
    name, signature = "loaded", None
    variants = []
    for meta, graph in unpack(content):
        try:
            name = _text(meta["name"])
            signature = _signature(meta["parameters"])
            tokens = _tokens(meta["skeleton"])
            specs = tuple(_read_spec(s) for s in meta["specs"])
            template = Template(
                _tokens(meta["result"]),
                [_read_leaf(x) for x in meta["leaves"]],
                [_index(i) for i in meta["places"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise TapeError(f"the description of arguments and results is damaged: {error}") from None
        _check(tokens, specs, template, graph)
        key = (tuple(tokens), specs)
        variants.append(
            Variant(key, tuple(tokens), Primal(graph, template), None, [None] * len(graph.inputs), None)
        )
    return name, signature, variants


def _check(tokens: list[Any], specs: tuple[Any, ...], template: Template, graph: Any) -> None:
    """Raise if arguments and results do not fit the graph."""
    inputs = [spec for spec in specs if not isinstance(spec, Value)]
    fits = (
        _leaves_of(tokens) == len(specs)
        and len(inputs) == len(graph.inputs)
        and _leaves_of(template.skeleton) == len(template.leaves)
        and len(template.places) == len(graph.outputs)
        and template.places == sorted(set(template.places))
        and all(0 <= place < len(template.leaves) for place in template.places)
    )
    if not fits:
        raise TapeError("the arguments or results that the file describes do not fit its graph")
    for spec, slot in zip(inputs, graph.inputs, strict=True):
        dtype, shape = graph.avals[slot]
        if isinstance(spec, tuple) and isinstance(spec[0], np.dtype):
            same = (spec[0].newbyteorder("="), spec[1]) == (dtype, shape)
        else:
            found = np.dtype(spec[1] if isinstance(spec, tuple) else spec)
            same = (found, ()) == (dtype, shape)
        if not same:
            raise TapeError("an argument that the file describes is not of its input's dtype or shape")


def _leaves_of(tokens: Sequence[Any]) -> int:
    """Return the number of leaves of a skeleton; -1 if it is no skeleton."""
    open_places = 1
    count = 0
    for token in tokens:
        if open_places == 0:
            return -1
        open_places -= 1
        if token is None:
            count += 1
        else:
            open_places += len(token[1])
    return count if open_places == 0 else -1


def _used(variant: Variant) -> int:
    return variant.used


def _token(token: Any) -> Any:
    if token is None:
        return None
    kind, keys, context = token
    for name, known in _CONTAINERS.items():
        if kind is known and context is None:
            return [name, [_key(k) for k in keys]]
    raise TapeError(f"a container of class {kind.__name__} cannot be saved; use dict, list or tuple")


def _tokens(listed: Any) -> list[Any]:
    if not isinstance(listed, list):
        raise TypeError("no list of containers")
    found: list[Any] = []
    for item in listed:
        if item is None:
            found.append(None)
            continue
        name, keys = item
        kind = _CONTAINERS[name]
        read = tuple(_read_key(k) for k in keys)
        if kind in (list, tuple) and read != tuple(range(len(read))):
            raise ValueError("a sequence with other keys than its positions")
        if kind is type(None) and read:
            raise ValueError("None with members")
        if len(set(read)) != len(read):
            raise ValueError("a key twice")
        found.append((kind, read, None))
    return found


def _key(key: Any) -> Any:
    if type(key) in (str, int, bool) or key is None:
        return key
    if type(key) is tuple:
        return [_key(k) for k in key]
    raise TapeError(f"a dict key of type {type(key).__name__} cannot be saved")


def _read_key(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(_read_key(k) for k in key)
    if type(key) in (str, int, bool) or key is None:
        return key
    raise TypeError("a key of an unknown type")


def _spec(spec: Any) -> Any:
    if isinstance(spec, Value):
        if spec.kind in (int, bool, str):
            return ["value", spec.kind.__name__, spec.value]
        if issubclass(spec.kind, np.integer | np.bool_):
            return ["number", spec.value.dtype.str, int(spec.value)]
        raise TapeError(f"an argument of type {spec.kind.__name__} cannot be saved")
    if spec is float or spec is complex:
        return [spec.__name__]
    first, second, *axes = spec
    if isinstance(first, np.dtype):
        return ["array", first.str, list(second), *map(list, axes)]
    return ["scalar", second.str]


def _read_spec(item: Any) -> Any:
    tag, *rest = item
    if tag == "value":
        kind = {"int": int, "bool": bool, "str": str}[rest[0]]
        if type(rest[1]) is not kind:
            raise TypeError("a value of another type than it says")
        return Value(kind, rest[1])
    if tag == "number":
        value = _dtype(rest[0]).type(_integer(rest[1]))
        return Value(type(value), value)
    if tag in ("float", "complex"):
        return {"float": float, "complex": complex}[tag]
    if tag == "array":
        shape, *axes = (tuple(_index(n) for n in part) for part in rest[1:])
        return _dtype(rest[0]), shape, *axes
    if tag == "scalar":
        dtype = _dtype(rest[0])
        return dtype.type, dtype
    raise ValueError(f"an argument of the unknown kind {tag!r}")


def _leaf(leaf: Any) -> Any:
    if leaf is None or type(leaf) in (bool, int, str):
        return ["plain", leaf]
    if type(leaf) in (float, complex):
        number = complex(leaf)
        return [type(leaf).__name__, number.real.hex(), number.imag.hex()]
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in _DTYPES:
        array = np.asarray(leaf)
        kind = "array" if isinstance(leaf, np.ndarray) else "scalar"
        return [kind, array.dtype.str, list(array.shape), array.tobytes().hex()]
    raise TapeError(f"a result of type {type(leaf).__name__} cannot be saved")


def _read_leaf(item: Any) -> Any:
    tag, *rest = item
    if tag == "plain":
        if not (rest[0] is None or type(rest[0]) in (bool, int, str)):
            raise TypeError("a result of an unknown type")
        return rest[0]
    if tag == "float":
        return float.fromhex(rest[0])
    if tag == "complex":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    dtype, shape = _dtype(rest[0]), tuple(_index(n) for n in rest[1])
    array = np.frombuffer(bytes.fromhex(rest[2]), dtype).reshape(shape).copy()
    if tag == "scalar":
        return array[()]
    if tag == "array":
        return array
    raise ValueError(f"a result of the unknown kind {tag!r}")


def _dtype(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(_text(text))
    if dtype.kind not in _DTYPES or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"the dtype {dtype} is not numeric")
    return dtype


def _text(item: Any) -> str:
    if type(item) is not str:
        raise TypeError("a text is missing")
    return item


def _integer(item: Any) -> int:
    if type(item) is not int:
        raise TypeError("an integer is missing")
    return item


def _index(item: Any) -> int:
    if _integer(item) < 0:
        raise ValueError("a negative number")
    return int(item)


def _signature(parameters: Any) -> inspect.Signature | None:
    if parameters is None:
        return None
    return inspect.Signature([inspect.Parameter(_text(name), _KINDS[kind]) for name, kind in parameters])
