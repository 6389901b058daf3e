"""Shaping: the same elements in another shape, joined and taken apart.

Owns the rows `reshape`, `transpose`, `broadcast_to`, `concatenate` and `stack`, and NumPy's functions composed of them.
Whatever only adds, removes or merges dimensions is a `reshape`, which the sweep passes on without touching memory; no
row here reads a primal.
"""

import itertools
import math
import operator
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.table import BINDINGS, binds, constant, metadata, operation
from nbad.trace import apply, cast, is_traced, underlying
from nbad.writing import link, linked, makes_views, snapshot


# Rows ---------------------------------------------------------------------------------------------
def reshape_forward(x: Any, *, shape: tuple[int, ...]) -> Any:
    """Return the elements of `x`, in C order, in another shape."""
    return np.reshape(x, shape)


def reshape_x(g: Any, x_shape: tuple[int, ...]) -> Any:
    return np.reshape(g, x_shape)


def transpose_forward(x: Any, *, axes: tuple[int, ...]) -> Any:
    """Return `x` with its axes permuted."""
    return np.transpose(x, axes)


def transpose_x(g: Any, axes: tuple[int, ...]) -> Any:
    return np.transpose(g, inverse(axes))


def broadcast_to_forward(x: Any, *, shape: tuple[int, ...]) -> Any:
    """Return `x` repeated along new dimensions and those of length one."""
    return np.broadcast_to(x, shape)


def broadcast_to_x(g: Any) -> Any:  # summed over the broadcast dimensions by whoever calls the rule
    return g


def concatenate_forward(*xs: Any, axis: int) -> Any:
    """Return arrays joined along an axis that they have."""
    return np.concatenate(xs, axis=axis)


def starts_of(xs_shapes: tuple[tuple[int, ...], ...], axis: int) -> tuple[int, ...]:
    """Return where each operand of `concatenate` begins, and the end of the last one."""
    starts = [0]
    for shape in xs_shapes:
        starts.append(starts[-1] + shape[axis])
    return tuple(starts)


def concatenate_xs(g: Any, k: int, starts: tuple[int, ...], axis: int) -> Any:
    return g[along(axis, slice(starts[k], starts[k + 1]))]


def stack_forward(*xs: Any, axis: int) -> Any:
    """Return arrays joined along a new axis."""
    return np.stack(xs, axis=axis)


def stack_xs(g: Any, k: int, axis: int) -> Any:
    return g[along(axis, k)]


RESHAPE = operation(reshape_forward, x=reshape_x, linear=True)
TRANSPOSE = operation(transpose_forward, x=transpose_x, linear=True)
BROADCAST_TO = operation(broadcast_to_forward, x=broadcast_to_x, linear=True)
CONCATENATE = operation(concatenate_forward, shared={"starts": starts_of}, xs=concatenate_xs, linear=True)
STACK = operation(stack_forward, xs=stack_xs, linear=True)
makes_views(RESHAPE, TRANSPOSE, BROADCAST_TO)


# Tools --------------------------------------------------------------------------------------------
def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the inverse of a permutation."""
    order = [0] * len(axes)
    for position, axis in enumerate(axes):
        order[axis] = position
    return tuple(order)


def along(axis: int, item: Any) -> tuple[Any, ...]:
    """Return the index that applies `item` to `axis`."""
    return (slice(None),) * axis + (item,)


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, traced or not, or of a number."""
    found: tuple[int, ...] = x.shape if is_traced(x) else np.shape(x)
    return found


def axis_index(axis: Any, ndim: int) -> int:
    """Return `axis` counted from the front; raise AxisError where there is none."""
    return int(np.lib.array_utils.normalize_axis_index(operator.index(axis), ndim))


def axis_tuple(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return one axis or several, counted from the front, as a tuple."""
    return tuple(int(a) for a in np.lib.array_utils.normalize_axis_tuple(axis, ndim))


def as_operand(value: Any) -> Any:
    """Return `value` as an operand; lists and tuples that hold traced values are stacked."""
    if isinstance(value, (list, tuple)) and any(map(holds_traced, value)):
        return np.stack([as_operand(item) for item in value])
    return operand(value)


def holds_traced(value: Any) -> bool:
    """Return whether `value` is traced or a list or tuple that holds a traced value."""
    return is_traced(value) or (isinstance(value, (list, tuple)) and any(map(holds_traced, value)))


def refuse_out(name: str, out: Any) -> None:
    """Raise if an output array was given: it could not carry the derivative."""
    if out is not None:
        raise NoRuleError.of(f"np.{name} with out=", at=user_line(), instead="Use its result.")


def shape_tuple(shape: Any) -> tuple[int, ...]:
    """Return a shape given as one length or several."""
    if isinstance(shape, (tuple, list, np.ndarray)):
        return tuple(map(operator.index, shape))
    return (operator.index(shape),)


def _resolved(target: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return `target` with its -1 replaced, for `size` elements."""
    if sum(n < 0 for n in target) > 1 or min(target, default=0) < -1:
        raise ValueError("can only specify one unknown dimension")
    known = math.prod(n for n in target if n >= 0)
    if known == 0 or size % known or -1 not in target:
        raise ValueError(f"cannot reshape array of size {size} into shape {target}")
    return tuple(size // known if n < 0 else n for n in target)


def _typed(x: Any, dtype: Any) -> Any:
    return x if dtype is None else cast(x, np.dtype(dtype))


def _shaped(a: Any, shape: tuple[int, ...]) -> Any:
    return a if shape_of(a) == shape else linked(apply(RESHAPE, a, shape=shape), a, "reshape", shape)


def _permuted(a: Any, axes: tuple[int, ...]) -> Any:
    if axes == tuple(range(len(axes))):
        return a
    return linked(apply(TRANSPOSE, a, axes=axes), a, "transpose", axes)


def _is_fortran(a: Any) -> bool:
    value = underlying(a)
    return isinstance(value, np.ndarray) and value.flags.fnc


# Shapes and axes ----------------------------------------------------------------------------------
@binds(np.reshape)
def reshape(
    a: Any, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: bool | None = None
) -> Any:
    a = as_operand(a)
    asked = newshape if shape is None else shape
    if asked is None:
        raise TypeError("reshape() missing 1 required positional argument: 'shape'")
    target, size = shape_tuple(asked), math.prod(shape_of(a))
    if math.prod(target) != size or min(target, default=0) < 0:
        target = _resolved(target, size)
    if copy is False:
        np.reshape(underlying(a), target, order=order, copy=False)  # type: ignore[call-overload]  # NumPy's own refusal
    kind = order.upper()
    if kind not in ("C", "F", "A"):
        raise ValueError(f"order must be 'C', 'F' or 'A', not {order!r}")
    if kind == "F" or (kind == "A" and _is_fortran(a)):
        return np.transpose(_shaped(np.transpose(a), target[::-1]))
    return _shaped(a, target)


@binds(np.ravel)
def ravel(a: Any, order: str = "C") -> Any:
    a = as_operand(a)
    kind = order.upper()
    if kind == "K":
        value = underlying(a)
        if isinstance(value, np.ndarray) and value.ndim > 1:
            axes = np.argsort([-abs(s) for s in value.strides], kind="stable")
            a = _permuted(a, tuple(axes.tolist()))
        kind = "C"
    flat = reshape(a, (-1,) if math.prod(shape_of(a)) else (0,), kind)
    value = underlying(flat)
    # NumPy copies what is not contiguous, even where a view would do.
    return flat if not isinstance(value, np.ndarray) or value.flags.c_contiguous else np.positive(flat)


@binds(np.transpose)
def transpose(a: Any, axes: Any = None) -> Any:
    a = as_operand(a)
    ndim = len(shape_of(a))
    if axes is None:
        return _permuted(a, tuple(range(ndim))[::-1])
    order = axis_tuple(axes, ndim)
    if len(order) != ndim:
        raise ValueError("axes don't match array")
    return _permuted(a, order)


@binds(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    a = as_operand(a)
    order = list(range(len(shape_of(a))))
    one, two = axis_index(axis1, len(order)), axis_index(axis2, len(order))
    order[one], order[two] = order[two], order[one]
    return _permuted(a, tuple(order))


@binds(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    a = as_operand(a)
    ndim = len(shape_of(a))
    sources, destinations = axis_tuple(source, ndim), axis_tuple(destination, ndim)
    if len(sources) != len(destinations):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [d for d in range(ndim) if d not in sources]
    for to, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(to, axis)
    return _permuted(a, tuple(order))


@binds(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    a = as_operand(a)
    ndim = len(shape_of(a))
    axis = axis_index(axis, ndim)
    to = start + ndim if start < 0 else start
    if not 0 <= to <= ndim:
        raise np.exceptions.AxisError(start, ndim + 1, "start")
    return moveaxis(a, axis, to - 1 if axis < to else to)


@binds(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any) -> Any:
    if len(shape_of(x)) < 2:
        raise ValueError(f"Input array must be at least 2-dimensional, but it is {len(shape_of(x))}")
    return swapaxes(x, -1, -2)


@binds(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    a = as_operand(a)
    shape = shape_of(a)
    if axis is None:
        gone = tuple(d for d, n in enumerate(shape) if n == 1)
    else:  # NumPy takes the first axis of a number too
        gone = axis_tuple(axis, len(shape)) if shape or axis not in (0, -1) else ()
    if any(shape[d] != 1 for d in gone):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return _shaped(a, tuple(n for d, n in enumerate(shape) if d not in gone))


@binds(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    a = as_operand(a)
    left = iter(shape_of(a))
    ndim = len(shape_of(a)) + (len(axis) if isinstance(axis, (tuple, list)) else 1)
    new = axis_tuple(axis, ndim)
    return _shaped(a, tuple(1 if d in new else next(left) for d in range(ndim)))


def _at_least(a: Any, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """Return `a` in the shape for its number of dimensions (-1 stands for their lengths), or as it is."""
    a = as_operand(a)
    shape = shape_of(a)
    if len(shape) >= len(shapes):
        return a if is_traced(a) else np.asarray(a)
    left = iter(shape)
    return _shaped(a, tuple(next(left) if n < 0 else 1 for n in shapes[len(shape)]))


def _each(shapes: tuple[tuple[int, ...], ...], arrays: tuple[Any, ...]) -> Any:
    found = tuple(_at_least(a, shapes) for a in arrays)
    return found[0] if len(found) == 1 else found


_ONE, _TWO, _COLUMNS = ((1,),), ((1, 1), (1, -1)), ((1, 1), (-1, 1))
_THREE = (1, 1, 1), (1, -1, 1), (-1, -1, 1)


@binds(np.atleast_1d)
def atleast_1d(*arys: Any) -> Any:
    return _each(_ONE, arys)


@binds(np.atleast_2d)
def atleast_2d(*arys: Any) -> Any:
    return _each(_TWO, arys)


@binds(np.atleast_3d)
def atleast_3d(*arys: Any) -> Any:
    return _each(_THREE, arys)


@binds(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    a = as_operand(array)
    target = shape_tuple(shape)
    if is_traced(a) and a.shape == target:
        return link(snapshot(a), a, "broadcast_to", target)
    return linked(apply(BROADCAST_TO, a, shape=target), a, "broadcast_to", target)


@binds(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> Any:
    arrays = [as_operand(a) for a in args]
    shape = np.broadcast_shapes(*map(shape_of, arrays))
    return tuple(broadcast_to(a, shape) for a in arrays)


# Joining ------------------------------------------------------------------------------------------
@binds(np.concatenate)
def concatenate(
    arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    refuse_out("concatenate", out)
    parts = [as_operand(a) for a in arrays]
    if axis is None:
        parts, axis = [ravel(a) for a in parts], 0
    ndim = max((len(shape_of(a)) for a in parts), default=1)
    return _typed(apply(CONCATENATE, *parts, axis=axis_index(axis, max(ndim, 1))), dtype)


@binds(np.stack)
def stack(
    arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    refuse_out("stack", out)
    parts = [as_operand(a) for a in arrays]
    return _typed(apply(STACK, *parts, axis=axis_index(axis, len(shape_of(parts[0])) + 1)), dtype)


def _joined(arrays: Any, shapes: tuple[tuple[int, ...], ...], new: int, axis: int, dtype: Any = None) -> Any:
    """Concatenate along `axis` arrays brought to the `shapes`; stack along `new` where all lack one dimension."""
    parts = [as_operand(a) for a in arrays]
    if {len(shape_of(a)) for a in parts} == {len(shapes) - 1}:
        return stack(parts, new, dtype=dtype)  # one node instead of one and another for each part
    return concatenate([_at_least(a, shapes) for a in parts], axis, dtype=dtype)


@binds(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    return _joined(tup, _TWO, 0, 0, dtype)


@binds(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    parts = [as_operand(a) for a in tup]
    return _joined(parts, _ONE, 0, 0 if parts and len(shape_of(parts[0])) < 2 else 1, dtype)


@binds(np.dstack)
def dstack(tup: Any) -> Any:
    return _joined(tup, _THREE, 2, 2)


@binds(np.column_stack)
def column_stack(tup: Any) -> Any:
    return _joined(tup, _COLUMNS, 1, 1)


@binds(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return concatenate((arr, values), axis)


@binds(np.block)
def block(arrays: Any) -> Any:
    depth, ndim = _depth(arrays)
    return _block(arrays, depth, max(depth, ndim))


def _depth(arrays: Any) -> tuple[int, int]:
    """Return how deep the lists are nested and the most dimensions of an array in them."""
    if isinstance(arrays, tuple):
        raise TypeError("np.block: only lists of arrays can be nested, not tuples")
    if not isinstance(arrays, list):
        return 0, len(shape_of(arrays))
    if not arrays:
        raise ValueError("np.block: lists cannot be empty")
    depths, ndims = zip(*map(_depth, arrays), strict=True)
    if len(set(depths)) != 1:
        raise ValueError("np.block: the lists are not nested equally deep")
    return depths[0] + 1, max(ndims)


def _block(arrays: Any, depth: int, ndim: int) -> Any:
    if depth == 0:
        a = operand(arrays)
        return _shaped(a, (1,) * (ndim - len(shape_of(a))) + shape_of(a))
    return concatenate([_block(a, depth - 1, ndim) for a in arrays], -depth)


# Taking apart -------------------------------------------------------------------------------------
@binds(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    axis = axis_index(axis, len(shape_of(ary)))
    length = shape_of(ary)[axis]
    if np.ndim(indices_or_sections):
        points = [0, *(operator.index(i) for i in indices_or_sections), length]
    else:
        sections = operator.index(indices_or_sections)
        if sections <= 0:
            raise ValueError("number sections must be larger than 0.")
        each, more = divmod(length, sections)
        points = [i * each + min(i, more) for i in range(sections + 1)]
    return [ary[along(axis, slice(start, end))] for start, end in itertools.pairwise(points)]


@binds(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    if np.ndim(indices_or_sections) == 0 and shape_of(ary)[axis] % operator.index(indices_or_sections):
        raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def _split_along(name: str, ary: Any, sections: Any, least: int, axis: int) -> Any:
    if len(shape_of(ary)) < least:
        raise ValueError(f"{name} only works on arrays of {least} or more dimensions")
    return split(ary, sections, axis)


@binds(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> Any:
    return _split_along("hsplit", ary, indices_or_sections, 1, 1 if len(shape_of(ary)) > 1 else 0)


@binds(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> Any:
    return _split_along("vsplit", ary, indices_or_sections, 2, 0)


@binds(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> Any:
    return _split_along("dsplit", ary, indices_or_sections, 3, 2)


def unstack(x: Any, /, *, axis: int = 0) -> Any:
    axis = axis_index(axis, len(shape_of(x)))
    return tuple(x[along(axis, i)] for i in range(shape_of(x)[axis]))


if hasattr(np, "unstack"):  # from NumPy 2.1 on
    BINDINGS[np.unstack] = unstack


constant(np.min_scalar_type)
metadata(
    np.ndim, np.shape, np.size, np.result_type, np.can_cast, np.common_type,
    np.array_repr, np.array_str, np.array2string, np.may_share_memory, np.shares_memory, np.isfortran, np.einsum_path,
)  # fmt: skip
