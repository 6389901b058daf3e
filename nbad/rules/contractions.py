"""Contractions: products that sum over shared axes, and diagonals.

Owns the rows `matmul`, `tensordot`, `outer`, `cross`, `vecdot`, `einsum`, and the pair `diagonal` and `embed_diagonal`. Every
pullback is again a contraction of the cotangent with the other operands, and reads nothing else.
"""

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.rules.reductions import conjugate, real_dtype, refuse_out
from nbad.table import BINDINGS, binds, operation
from nbad.trace import apply, cast, is_traced
from nbad.writing import linked, makes_views

Shape = tuple[int, ...]

#: Multiplications from which on it pays that einsum looks for an order and for BLAS.
WORTH_PLANNING = 1 << 14


# Two operands -------------------------------------------------------------------------------------
def matmul_forward(a: Any, b: Any) -> Any:
    """Return the matrix product."""
    return np.matmul(a, b)


def matmul_a(g: Any, b: Any, a_shape: Shape, b_shape: Shape) -> Any:
    b = conjugate(b)
    n, m = len(a_shape), len(b_shape)
    if m == 1:
        return np.expand_dims(g, -1) * b
    if n == 1:  # one vector for all matrices: sum over these at once
        return np.tensordot(b, g, axes=((*range(m - 2), m - 1), tuple(range(m - 1))))
    if n == 2 and m > 2:
        rest = (*range(m - 2), m - 1)
        return np.tensordot(g, b, axes=(rest, rest))
    return g @ np.swapaxes(b, -1, -2)


def matmul_b(g: Any, a: Any, a_shape: Shape, b_shape: Shape) -> Any:
    a = conjugate(a)
    n, m = len(a_shape), len(b_shape)
    if n == 1:
        return a * g if m == 1 else np.expand_dims(a, -1) * np.expand_dims(g, -2)
    if m < 3:  # one vector or matrix for all matrices
        rest = tuple(range(n - 1))
        return np.tensordot(a, g, axes=(rest, rest))
    return np.swapaxes(a, -1, -2) @ g


def tensordot_forward(a: Any, b: Any, *, axes: Any) -> Any:
    """Return the sum over the axes ``axes[0]`` of `a` and ``axes[1]`` of `b`."""
    return np.tensordot(a, b, axes=axes)


def _free(ndim: int, axes: Shape) -> Shape:
    return tuple(d for d in range(ndim) if d not in axes)


def _placed(x: Any, order: Shape) -> Any:
    """Return `x` with its axis ``i`` moved to place ``order[i]``."""
    if order == tuple(range(len(order))):
        return x
    return np.transpose(x, tuple(sorted(range(len(order)), key=order.__getitem__)))


def tensordot_a(g: Any, b: Any, axes: Any, a_shape: Shape, b_shape: Shape) -> Any:
    summed_a, summed_b = axes
    free_a, free_b = _free(len(a_shape), summed_a), _free(len(b_shape), summed_b)
    last = tuple(range(len(free_a), len(free_a) + len(free_b)))
    # What stays of b are its summed axes in ascending order; each belongs to an axis of a.
    stays = tuple(summed_a[summed_b.index(d)] for d in sorted(summed_b))
    return _placed(np.tensordot(g, conjugate(b), axes=(last, free_b)), free_a + stays)


def tensordot_b(g: Any, a: Any, axes: Any, a_shape: Shape, b_shape: Shape) -> Any:
    summed_a, summed_b = axes
    free_a, free_b = _free(len(a_shape), summed_a), _free(len(b_shape), summed_b)
    stays = tuple(summed_b[summed_a.index(d)] for d in sorted(summed_a))
    return _placed(np.tensordot(conjugate(a), g, axes=(free_a, tuple(range(len(free_a))))), stays + free_b)


def outer_forward(a: Any, b: Any) -> Any:
    """Return all products of an element of `a` and one of `b`."""
    return np.multiply.outer(a, b)


def outer_a(g: Any, b: Any, a_shape: Shape, b_shape: Shape) -> Any:
    n, m = len(a_shape), len(b_shape)
    return np.tensordot(g, conjugate(b), axes=(tuple(range(n, n + m)), tuple(range(m))))


def outer_b(g: Any, a: Any, a_shape: Shape) -> Any:
    rest = tuple(range(len(a_shape)))
    return np.tensordot(conjugate(a), g, axes=(rest, rest))


def vecdot_forward(a: Any, b: Any) -> Any:
    """Return the sum of conj(a) * b over the last axis."""
    return np.vecdot(a, b)


def vecdot_a(g: Any, b: Any) -> Any:
    return np.expand_dims(conjugate(g), -1) * b


def vecdot_b(g: Any, a: Any) -> Any:
    return np.expand_dims(g, -1) * a


def cross_forward(a: Any, b: Any) -> Any:
    """Return the vector product over the last axis, of three elements."""
    return np.cross(a, b)


def cross_a(g: Any, b: Any) -> Any:
    return np.cross(conjugate(b), g)


def cross_b(g: Any, a: Any) -> Any:
    return np.cross(g, conjugate(a))


# Any number of operands ---------------------------------------------------------------------------
def einsum_forward(*xs: Any, subscripts: str, optimize: Any) -> Any:
    """Return the sum of products that `subscripts` (one letter an axis, the output given) describes."""
    return np.einsum(subscripts, *xs, optimize=list(optimize) if isinstance(optimize, tuple) else optimize)


def einsum_xs(g: Any, others: Any, subscripts: str, k: int, xs_shapes: Any, xs_dtypes: Any) -> Any:
    terms, output = _split(subscripts)
    sizes = {label: 1 for label in subscripts}
    for term, shape in zip(terms, xs_shapes, strict=True):
        sizes.update((label, n) for label, n in zip(term, shape, strict=True) if n != 1)
    labels, values = [output], [g]
    found = {label: sizes[label] for label in output}
    for term, shape, x in zip(terms, xs_shapes, others, strict=True):
        if x is not None:
            labels.append(term)
            values.append(conjugate(x if is_traced(x) else np.asarray(x)))
            for label, n in zip(term, shape, strict=True):
                found[label] = n if n != 1 else found.get(label, 1)
    target = ""
    real = real_dtype(xs_dtypes[k])
    fresh = (label for label in string.ascii_letters if label not in sizes)
    for label, n in zip(terms[k], xs_shapes[k], strict=True):
        if label in target:  # a diagonal: zero off it
            target += next(fresh)
            labels.append(label + target[-1])
            values.append(np.eye(n, dtype=real))
        else:
            target += label
            if found.get(label, -1) not in (n, sizes[label]):  # summed over, and no other operand has it
                labels.append(label)
                values.append(np.ones(n, real))
    plan = len(values) > 2 or math.prod(sizes.values()) > WORTH_PLANNING
    return np.einsum(f"{','.join(labels)}->{target}", *values, optimize=plan)


def _split(subscripts: str) -> tuple[list[str], str]:
    inputs, output = subscripts.split("->")
    return inputs.split(","), output


# Diagonals ----------------------------------------------------------------------------------------
def diagonal_forward(x: Any, *, offset: int, axis1: int, axis2: int) -> Any:
    """Return a diagonal of `x`, as the last axis."""
    return np.diagonal(x, offset, axis1, axis2)


def diagonal_x(g: Any, x_shape: Shape, offset: int, axis1: int, axis2: int) -> Any:
    return apply(EMBED_DIAGONAL, g, shape=x_shape, offset=offset, axis1=axis1, axis2=axis2)


def embed_diagonal_forward(x: Any, *, shape: Shape, offset: int, axis1: int, axis2: int) -> Any:
    """Return zeros of `shape` with `x` on a diagonal."""
    if is_traced(x):
        return apply(EMBED_DIAGONAL, x, shape=shape, offset=offset, axis1=axis1, axis2=axis2)
    out = np.zeros(shape, x.dtype)
    place = np.diagonal(out, offset, axis1, axis2)
    place.flags.writeable = True
    place[...] = x
    return out


def embed_diagonal_x(g: Any, offset: int, axis1: int, axis2: int) -> Any:
    return np.diagonal(g, offset, axis1, axis2)


MATMUL = operation(matmul_forward, a=matmul_a, b=matmul_b)
TENSORDOT = operation(tensordot_forward, a=tensordot_a, b=tensordot_b)
OUTER = operation(outer_forward, a=outer_a, b=outer_b)
CROSS = operation(cross_forward, a=cross_a, b=cross_b)
VECDOT = operation(vecdot_forward, a=vecdot_a, b=vecdot_b)
EINSUM = operation(einsum_forward, xs=einsum_xs)
DIAGONAL = operation(diagonal_forward, x=diagonal_x, linear=True)
makes_views(DIAGONAL)
EMBED_DIAGONAL = operation(embed_diagonal_forward, x=embed_diagonal_x, linear=True)


# What NumPy's functions do ------------------------------------------------------------------------
def array(x: Any) -> Any:
    """Return an operand that has a shape and a dtype, as NumPy's products see it."""
    x = operand(x)
    return np.asarray(x) if isinstance(x, (bool, int, float, complex)) else x


@binds(np.matmul, np.linalg.matmul)
def matmul(x1: Any, x2: Any, /) -> Any:
    return apply(MATMUL, array(x1), array(x2))


def _scaled(a: Any, b: Any) -> Any:
    """Multiply by a number, which is an array to these functions: Python's numbers are not weak."""
    dtype = np.result_type(a.dtype, b.dtype)
    return np.multiply(*(x if x.dtype == dtype else cast(x, dtype) for x in (a, b)))


@binds(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    refuse_out("np.dot", out)
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return _scaled(a, b)
    if a.ndim == 1 or b.ndim <= 2:
        return apply(MATMUL, a, b)
    return np.tensordot(a, b, axes=((-1,), (-2,)))


@binds(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return _scaled(a, b)
    return apply(MATMUL, a, b) if a.ndim == b.ndim == 1 else np.tensordot(a, b, axes=((-1,), (-1,)))


@binds(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    return apply(VECDOT, np.ravel(array(a)), np.ravel(array(b)))


@binds(np.vecdot)
def vecdot(x1: Any, x2: Any, /) -> Any:
    return apply(VECDOT, array(x1), array(x2))


@binds(np.linalg.vecdot)
def linalg_vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return apply(VECDOT, np.moveaxis(array(x1), axis, -1), np.moveaxis(array(x2), axis, -1))


def matvec(x1: Any, x2: Any, /) -> Any:
    """Return matrices times vectors, both stacked."""
    return np.squeeze(array(x1) @ np.expand_dims(array(x2), -1), -1)


def vecmat(x1: Any, x2: Any, /) -> Any:
    """Return conjugated vectors times matrices, both stacked."""
    return np.squeeze(np.expand_dims(conjugate(array(x1)), -2) @ array(x2), -2)


if hasattr(np, "matvec"):  # NumPy 2.2
    BINDINGS[np.matvec], BINDINGS[np.vecmat] = matvec, vecmat


@binds(np.outer, np.linalg.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    refuse_out("np.outer", out)
    return apply(OUTER, np.ravel(array(a)), np.ravel(array(b)))


def multiply_outer(a: Any, b: Any) -> Any:
    """Return all products of an element of `a` and one of `b`, in any number of dimensions."""
    return apply(OUTER, array(a), array(b))


BINDINGS[np.multiply, "outer"] = multiply_outer  # type: ignore[index]


@binds(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = array(a), array(b)
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    if a.shape[-1] == 2 or b.shape[-1] == 2:
        instead = "Append a zero to the vectors, or write a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]."
        raise NoRuleError.of("np.cross of vectors with two elements", at=user_line(), instead=instead)
    return np.moveaxis(apply(CROSS, a, b), -1, axisc)


@binds(np.linalg.cross)
def linalg_cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return cross(x1, x2, axis=axis)


@binds(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = array(a), array(b)
    if isinstance(axes, (int, np.integer)):
        summed_a, summed_b = tuple(range(a.ndim - int(axes), a.ndim)), tuple(range(int(axes)))
    else:
        one, two = axes
        summed_a, summed_b = normalize_axis_tuple(one, a.ndim), normalize_axis_tuple(two, b.ndim)
    if tuple(a.shape[d] for d in summed_a if d >= 0) != tuple(b.shape[d] for d in summed_b if d < b.ndim):
        raise ValueError(f"shape-mismatch for sum: {a.shape} over {summed_a} and {b.shape} over {summed_b}")
    return apply(TENSORDOT, a, b, axes=(tuple(map(int, summed_a)), tuple(map(int, summed_b))))


@binds(np.linalg.tensordot)
def linalg_tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    return tensordot(x1, x2, axes)


@binds(np.kron)
def kron(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    ndim = max(a.ndim, b.ndim)
    one, two = ((1,) * (ndim - x.ndim) + x.shape for x in (a, b))
    wide_a = np.reshape(a, tuple(n for m in one for n in (m, 1)))
    wide_b = np.reshape(b, tuple(n for m in two for n in (1, m)))
    return np.reshape(wide_a * wide_b, tuple(m * n for m, n in zip(one, two, strict=True)))


@binds(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **kwargs: Any) -> Any:
    refuse_out("np.einsum", out)
    dtype = kwargs.pop("dtype", None)
    unknown = set(kwargs) - {"order", "casting"}
    if unknown:
        raise TypeError(f"np.einsum got unexpected keyword arguments: {sorted(unknown)}")
    text, given = _written(operands)
    xs = [array(x) if dtype is None else cast(array(x), np.dtype(dtype)) for x in given]
    if isinstance(optimize, (list, tuple)):
        optimize = tuple(tuple(map(int, step)) if isinstance(step, tuple) else step for step in optimize)
    return apply(EINSUM, *xs, subscripts=_explicit(text, [x.ndim for x in xs]), optimize=optimize)


def _written(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return subscripts as a string, and the arrays, from either form of einsum's arguments."""
    if isinstance(operands[0], str):
        return operands[0].replace(" ", ""), list(operands[1:])
    output = operands[-1] if len(operands) % 2 else None
    text = ",".join(_term(labels) for labels in operands[1::2])
    arrays = list(operands[: len(operands) - len(operands) % 2 : 2])
    return text if output is None else f"{text}->{_term(output)}", arrays


def _term(labels: Any) -> str:
    # In the order of the integers: it decides the output if that is not given.
    letters = string.ascii_uppercase + string.ascii_lowercase
    return "".join("..." if label is Ellipsis else letters[label] for label in labels)


def _explicit(text: str, ndims: list[int]) -> str:
    """Return subscripts with a letter for each axis that an ellipsis stands for, and with an output."""
    inputs, arrow, output = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"np.einsum: {text!r} describes {len(terms)} operands, {len(ndims)} were given")
    hidden = [n - len(t.replace("...", "")) if "..." in t else 0 for t, n in zip(terms, ndims, strict=True)]
    if min(hidden) < 0:
        raise ValueError(f"np.einsum: {text!r} has more letters than an operand has dimensions")
    spare = [label for label in string.ascii_letters if label not in text]
    if max(hidden) > len(spare):
        raise ValueError(f"np.einsum: {text!r} and its ellipsis need more letters than there are")
    across = "".join(spare[: max(hidden)])
    if not arrow:
        named = inputs.replace("...", "").replace(",", "")
        output = "..." + "".join(sorted(label for label in set(named) if named.count(label) == 1))
    elif across and "..." not in output:
        raise ValueError(f"np.einsum: the output of {text!r} needs the ellipsis that its inputs have")
    full = [t.replace("...", across[len(across) - h :]) for t, h in zip(terms, hidden, strict=True)]
    return f"{','.join(full)}->{output.replace('...', across)}"


@binds(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    refuse_out("np.linalg.multi_dot", out)
    xs = [array(x) for x in arrays]
    if len(xs) < 2:
        raise ValueError("Expecting at least two arrays.")
    if len(xs) + 1 > len(string.ascii_letters):
        raise NoRuleError.of("np.linalg.multi_dot of so many arrays", at=user_line(), instead="Use @.")
    letters = string.ascii_letters[: len(xs) + 1]
    terms = [letters[i : i + 2] for i in range(len(xs))]
    if xs[0].ndim == 1:
        terms[0] = letters[1]
    if xs[-1].ndim == 1:
        terms[-1] = letters[len(xs) - 1]
    output = (letters[0] if xs[0].ndim == 2 else "") + (letters[-1] if xs[-1].ndim == 2 else "")
    optimize = "optimal" if len(xs) < 6 else "greedy"
    result = apply(EINSUM, *xs, subscripts=f"{','.join(terms)}->{output}", optimize=optimize)
    return result if output else np.positive(result)  # a number, as NumPy's


@binds(np.diagonal)
def diagonal(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Any:
    axes = normalize_axis_index(axis1, a.ndim), normalize_axis_index(axis2, a.ndim)
    made = apply(DIAGONAL, a, offset=int(offset), axis1=axes[0], axis2=axes[1])
    return linked(made, a, "diagonal", int(offset), *axes)


@binds(np.trace)
def trace(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1, dtype: Any = None, out: Any = None) -> Any:
    refuse_out("np.trace", out)
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@binds(np.linalg.diagonal)
def linalg_diagonal(x: Any, /, *, offset: Any = 0) -> Any:
    return diagonal(x, offset, -2, -1)


@binds(np.linalg.trace)
def linalg_trace(x: Any, /, *, offset: Any = 0, dtype: Any = None) -> Any:
    return trace(x, offset, -2, -1, dtype)
