"""Contractions as sums of products over labelled axes.

Owns the labels: axes that bear the same one run together, and those that the output lacks are summed.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

__all__ = ["CONTRACTIONS"]

Shape = tuple[int, ...]


def _batch(shape: Shape, core: int) -> tuple[Hashable, ...]:
    return tuple(("batch", d) for d in range(core - len(shape), 0))


def _matmul(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    a, b = shapes
    row = ("i",) if len(a) > 1 else ()
    column = ("j",) if len(b) > 1 else ()
    labels = [(*_batch(a, 2), *row, "k"), (*_batch(b, 2), "k", *column)]
    return labels, (*max(_batch(a, 2), _batch(b, 2), key=len), *row, *column)


def _tensordot(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    labels = []
    for name, shape, summed in zip("ab", shapes, attributes["axes"], strict=True):
        labels.append([summed.index(d) if d in summed else (name, d) for d in range(len(shape))])
    return labels, [label for row in labels for label in row if isinstance(label, tuple)]


def _outer(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    labels = [[(name, d) for d in range(len(shape))] for name, shape in zip("ab", shapes, strict=True)]
    return labels, labels[0] + labels[1]


def _vecdot(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    labels = [(*_batch(shape, 1), "k") for shape in shapes]
    return labels, max(labels, key=len)[:-1]


def _cross(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    labels = [(*_batch(shape, 1), name) for name, shape in zip("ij", shapes, strict=True)]
    return labels, (*max(labels, key=len)[:-1], "k")


def _einsum(shapes: Sequence[Shape], attributes: dict[str, Any]) -> tuple[list[Any], Any]:
    terms, into = attributes["subscripts"].split("->")
    return terms.split(","), into


#: Op -> a function of the operands' shapes and the attributes that gives the labels of each operand, and those of the output.
CONTRACTIONS: dict[str, Callable[..., tuple[list[Any], Any]]] = {
    "matmul": _matmul,
    "tensordot": _tensordot,
    "outer": _outer,
    "vecdot": _vecdot,
    "cross": _cross,
    "einsum": _einsum,
}
