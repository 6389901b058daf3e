"""Indexing: basic, advanced, and functions that take elements."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from laws import Case, Spaced, laws

import nbad
import nbad.rules.indexing
from nbad import tree
from nbad.kernels import memory
from nbad.table import BINDINGS

S = ((3, 4), -2.0, 2.0)
CUBE = ((2, 3, 4), -2.0, 2.0)
LINE = ((5,), -2.0, 2.0)
POINT = ((), -2.0, 2.0)
EMPTY = ((0, 3), -1.0, 1.0)
BOTH = {"dtypes": ("f8", "c16")}
POINTS = {"layouts": "a point has one layout, and NumPy's functions that change it add a dimension"}
MASK = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]], bool)
ROWS, COLUMNS = np.array([[0], [2], [0]]), np.array([3, 0, 0, -1])


def squared(function):
    """Return `function` followed by a square, so that its pullback meets cotangents that depend on the input."""

    def curved(*args):
        return tree.map_leaves(np.square, function(*args))

    return curved


def case(name, function, *arguments, **options):
    """Return a case at float32, which must stay float32; the rows alone are tested at all dtypes."""
    return Case(name, squared(function), arguments, **{"dtypes": ("f4",)} | options)


CASES = [
    Case("getitem alone", lambda x: x[1:, ::-2], [S], complex_ok=True),
    Case("gather alone", lambda x: x[[0, 2, 0]], [S], complex_ok=True),
    case("int", lambda x: x[1], S),
    case("negative int", lambda x: x[-1, -2], S, off=POINTS),
    case("NumPy int", lambda x: x[np.int8(1), np.array(2)], S, off=POINTS),
    case("element of a line", lambda x: x[2], LINE, off=POINTS),
    case("slice", lambda x: x[1:], S),
    case("slice with NumPy bounds", lambda x: x[np.int64(0) : np.int32(2)], S),
    case("slices", lambda x: x[:, 1:3], S),
    case("negative step", lambda x: x[::-1, 3:0:-2], S),
    case("empty slice", lambda x: x[2:1], S),
    case("slice past the end", lambda x: x[1:9], S),
    case("None", lambda x: x[:, None, 1], S),
    case("Ellipsis", lambda x: x[..., 1], CUBE),
    case("everything", lambda x: x[...], S),
    case("point", lambda x: x[()], POINT, off=POINTS),
    case("point with None", lambda x: x[None], POINT, off=POINTS),
    case("nothing", lambda x: x[:, 1:], EMPTY),
    case("overlapping slices", lambda x: x[1:] * x[:-1], LINE),
    case("of a transposed array", lambda x: x.T[1:, ::-1], S),
    case("index of an index", lambda x: x[1:][:, 2][0], S, off=POINTS),
    case("list", lambda x: x[[0, 2]], S),
    case("repeated rows", lambda x: x[np.array([1, 1, -2, 0])], S),
    case("array of more dimensions", lambda x: x[np.array([[0, 2], [2, 2]])], S),
    case("pairs", lambda x: x[[0, 2, 0], [1, 1, 1]], S, **BOTH),
    case("grid", lambda x: x[ROWS, COLUMNS], S),
    case("array and slice", lambda x: x[:, [0, 0, 2], 1:], CUBE),
    case("arrays apart", lambda x: x[[0, 1, 0], :, [1, 1, 2]], CUBE),
    case("array and int apart", lambda x: x[1, :, [1, 1, 2]], CUBE),
    case("array with None", lambda x: x[None, [1, 1], ..., None], S),
    case("unsigned array", lambda x: x[np.array([2, 0], np.uint8)], S),
    case("empty list", lambda x: x[[]], S),
    case("empty array", lambda x: x[np.zeros((0, 2), np.intp)], S),
    case("mask", lambda x: x[MASK], S, **BOTH),
    case("mask of rows", lambda x: x[[True, False, True]], S),
    case("mask of columns", lambda x: x[:, MASK[0]], S),
    case("mask and array", lambda x: x[MASK[:, 0], [0, 0]], S),
    case("mask of two of three dimensions", lambda x: x[:, MASK], CUBE),
    case("empty mask", lambda x: x[np.zeros((3, 4), bool)], S),
    case("True", lambda x: x[True], S),
    case("False", lambda x: x[np.False_, 1], S),
    case("point at True", lambda x: x[np.array(True)], POINT, off=POINTS),
    case("nothing at an array", lambda x: x[:, [0, 2, 2]], EMPTY),
    case("mask of the value", lambda x: x[np.real(x) > 0.1], S),
    case("take", lambda x: np.take(x, [0, 5, 5, -1]), S),
    case("take axis", lambda x: np.take(x, ROWS, axis=0), S),
    case("take one", lambda x: np.take(x, 2, axis=1), S),
    case("take wrap", lambda x: np.take(x, [-5, 3, 9], axis=1, mode="wrap"), S),
    case("take clip", lambda x: x.take([-5, 3, 9], 1, mode="clip"), S),
    case("take_along_axis", lambda x: np.take_along_axis(x, np.array([[0, 0, 1], [3, 2, 2], [1, 1, 1]]), 1), S, **BOTH),
    case("take_along_axis broadcast", lambda x: np.take_along_axis(x, np.array([[2, 0, 0, 1]]), 0), S),
    case("take_along_axis flat", lambda x: np.take_along_axis(x, np.array([2, 7, 7]), None), S),
    case("sort", np.sort, Spaced((3, 4), -1.0, 0.3)),
    case("sort first axis", lambda x: np.sort(x, 0), Spaced((3, 4), -1.0, 0.3)),
    case("sort flat", lambda x: np.sort(x, None), Spaced((3, 4), -1.0, 0.3)),
    case("compress", lambda x: np.compress([True, False, True], x, axis=1), S),
    case("compress flat", lambda x: np.compress([0, 1, 1, 0, 0, 1], x), S),
    case("extract", lambda x: np.extract(MASK, x), S),
    case("select", lambda x, y: np.select([MASK, ~MASK & MASK[:, :1]], [x, y * 2], x * y), S, S, **BOTH),
    case("select default", lambda x: np.select([MASK], [x]), S),
    case("diag", np.diag, S),
    case("diag above", lambda x: np.diag(x, 2), S),
    case("diag below", lambda x: np.diag(x, -1), S),
    case("diag outside", lambda x: np.diag(x, 9), S),
    case("diag of a line", np.diag, LINE, **BOTH),
    case("diag of a line below", lambda x: np.diag(x, -2), LINE),
    case("diagflat", lambda x: np.diagflat(x, 1), S),
    case("delete", lambda x: np.delete(x, 1, axis=0), S),
    case("delete flat", lambda x: np.delete(x, [0, 5, -1]), S),
    case("delete a slice", lambda x: np.delete(x, slice(0, 4, 2), axis=1), S),
    case("insert", lambda x, y: np.insert(x, 1, y, axis=0), S, ((4,), -1.0, 1.0)),
    case("insert several", lambda x, y: np.insert(x, [0, 2, 2], y, axis=1), S, ((3, 3), -1.0, 1.0), **BOTH),
    case("insert flat", lambda x: np.insert(x, 3, 9.5), S),
    case("bincount", lambda x: np.bincount([0, 3, 3, 1, 0], x, 6), LINE),
]  # fmt: skip
TestLaws = laws(CASES)


# Random indices -----------------------------------------------------------------------------------
@st.composite
def shapes_and_indices(draw):
    """Draw a shape and an index of any kind for it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    kind = draw(st.sampled_from(("basic", "integers", "mask", "mixed")))
    if kind == "basic" or not shape:
        return shape, draw(hnp.basic_indices(shape, allow_newaxis=True))
    if kind == "mask":
        first = draw(st.integers(0, len(shape) - 1))
        mask = draw(hnp.arrays(bool, shape[first : draw(st.integers(first + 1, len(shape)))]))
        return shape, (*[slice(None)] * first, mask)
    if 0 in shape:
        return shape, (Ellipsis, np.zeros(draw(hnp.array_shapes(min_side=0, max_dims=2)) + (0,), np.intp))
    if kind == "integers":
        return shape, draw(hnp.integer_array_indices(shape, dtype=np.dtype(np.intp)))
    length = draw(st.integers(1, 3))
    index = []
    for n in shape:
        choices = (
            st.integers(-n, n - 1),
            st.slices(n),
            hnp.arrays(np.intp, length, elements=st.integers(-n, n - 1)),
        )
        index.append(draw(st.one_of(*choices)))
    return shape, tuple(index)


def dense_adjoint(shape, index, g):
    """Return the adjoint of indexing, element by element."""
    places = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)[index]
    expected = np.zeros(int(np.prod(shape, dtype=int)))
    for place, value in zip(np.ravel(places), np.ravel(g), strict=True):
        expected[place] += value
    return expected.reshape(shape)


@settings(max_examples=200, deadline=None)
@given(shapes_and_indices())
@example(((3, 4), (np.array([0, 0]), slice(None, None, -1))))
@example(((2, 3), (True, slice(None), np.array([[1], [1]]))))
def test_any_index_is_the_adjoint_of_scattering(drawn) -> None:
    shape, index = drawn
    x = np.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    y, pullback = nbad.vjp(lambda x: x[index], x)
    right = x[index]
    assert np.array_equal(y, right) and np.shape(y) == np.shape(right) and type(y) is type(right)
    g = np.random.default_rng(0).integers(-9, 9, np.shape(right)).astype(float)
    assert np.array_equal(pullback(g), dense_adjoint(shape, index, g))

    def inner(x):  # its gradient is 2 x[index] scattered back: the pair of the pair
        return np.sum(x[index] ** 2)

    second, again = nbad.vjp(nbad.grad(inner), x)
    assert np.array_equal(second, dense_adjoint(shape, index, 2 * right))
    w = np.random.default_rng(1).integers(-9, 9, shape).astype(float)
    assert np.array_equal(again(w), dense_adjoint(shape, index, 2 * w[index]))


# Counts -------------------------------------------------------------------------------------------
def test_slices_are_added_into_one_buffer() -> None:
    """The cotangents of two hundred rows are added into one array of the operand's size, 1.6 MB."""
    x = np.ones((100, 2000))
    before = memory.allocated()

    def loss(x):
        total = 0.0
        for i in range(100):
            total = total + np.sum(x[i] * x[i - 1])
        return total

    found = nbad.grad(loss)(x)
    assert np.array_equal(found, np.full(x.shape, 2.0))
    after = memory.allocated()
    assert after.fresh + after.reused - before.fresh - before.reused <= 2


def test_unasked_slices_are_not_pulled_back() -> None:
    def loss(x, y):
        return np.sum(x[1:] * y[:-1]) + np.sum(y[[0, 0]])

    with nbad.report() as account:
        nbad.grad(loss, wrt="x")(np.ones(4), np.ones(4))
    assert account.rules_run["getitem", "x"] == 1
    assert ("gather", "xs") not in account.rules_run


def test_a_slice_keeps_nothing_and_an_array_its_index() -> None:
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(x[1:, ::2]))(np.ones((4, 6)))
    assert account.bytes_kept == 0
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(x[np.arange(3)]))(np.ones((4, 6)))
    assert account.bytes_kept == 3 * np.dtype(np.intp).itemsize


def test_an_index_array_may_be_changed_afterwards() -> None:
    index = np.array([0, 1])

    def loss(x):
        y = x[index]
        index[...] = 2
        return np.sum(y)

    assert np.array_equal(nbad.grad(loss)(np.ones(3)), [1.0, 1.0, 0.0])


def test_tied_elements_of_a_sort_keep_their_places() -> None:
    x = np.array([2.0, 1.0, 2.0, 1.0])
    assert np.array_equal(nbad.grad(lambda x: np.sort(x)[0] + 10 * np.sort(x)[3])(x), [0.0, 1.0, 10.0, 0.0])


# What carries no derivative, and what is refused --------------------------------------------------
def test_positions_are_plain() -> None:
    seen = {}

    def loss(x):
        seen["nonzero"], seen["argsort"], seen["search"] = (
            np.nonzero(x),
            np.argsort(x),
            np.searchsorted(x, 1.5),
        )
        seen["where"], seen["argmax"] = np.argwhere(x > 1), x.argmax()
        return np.sum(x[seen["argsort"]][: seen["search"]])

    assert np.array_equal(nbad.grad(loss)(np.array([0.0, 1.0, 2.0])), [1.0, 1.0, 0.0])
    assert seen["nonzero"][0].tolist() == [1, 2] and seen["where"].tolist() == [[2]] and seen["argmax"] == 2


BAD = {
    "traced": (lambda x: x[x[0, 0]], nbad.DetachError, "an index"),
    "traced slice": (lambda x: x[: x[0, 0]], nbad.DetachError, "an index"),
    "traced in a list": (lambda x: x[[x[0, 0]]], nbad.DetachError, "derivative"),
    "traced after an array": (lambda x: x[[0], x[0, 0]], nbad.DetachError, "derivative"),
    "traced for take": (lambda x: np.take(x, x[0, 0]), nbad.DetachError, "an index"),
    "float": (lambda x: x[1.0], IndexError, "only integers"),
    "floats": (lambda x: x[[1.0]], IndexError, "only integers"),
    "name": (lambda x: x["a"], IndexError, "only integers"),
    "too many": (lambda x: x[0, 0, 0], IndexError, "too many indices"),
    "past the end": (lambda x: x[3], IndexError, "out of bounds"),
    "array past the end": (lambda x: x[[0, 3]], IndexError, "out of bounds"),
    "mask of another size": (lambda x: x[np.ones(4, bool)], IndexError, "boolean index did not match"),
    "two ellipses": (lambda x: x[..., ...], IndexError, "single ellipsis"),
    "shapes": (lambda x: x[[0, 1], [0, 1, 2]], IndexError, "shape mismatch"),
    "take mode": (lambda x: np.take(x, [0], mode="none"), ValueError, "clipmode"),
    "take out": (lambda x: np.take(x, [0], out=np.empty(1)), nbad.NoRuleError, "out="),
    "take floats": (lambda x: np.take(x, [0.5]), TypeError, "safe|same_kind"),
    "along": (lambda x: np.take_along_axis(x, np.array([0]), 0), ValueError, "number of dimensions"),
    "along flat": (lambda x: np.take_along_axis(x, np.array([[0]]), None), ValueError, "single dimension"),
    "compress": (lambda x: np.compress([[True]], x), ValueError, "1-d"),
    "select": (lambda x: np.select([MASK, MASK], [x]), ValueError, "same length"),
    "select integers": (lambda x: np.select([np.ones(4, int)], [x]), TypeError, "boolean"),
    "diag": (lambda x: np.diag(x[None]), ValueError, "1- or 2-d"),
    "bincount": (lambda x: np.bincount([0, -1], x[0, :2]), ValueError, "negative|non-negative"),
    "bincount lengths": (lambda x: np.bincount([0], x[0]), ValueError, "same length"),
    "unique": (np.unique, nbad.NoRuleError, "return_index"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


def test_use_after_the_call_is_refused() -> None:
    kept = []
    nbad.grad(lambda x: [kept.append(x), np.sum(x)][1])(np.ones(3))
    for index in (0, slice(1), [0, 1]):
        with pytest.raises(nbad.EscapedTraceError):
            kept[0][index]


def test_meant_functions_are_bound() -> None:
    names = "take take_along_axis sort compress extract select diag diagflat delete insert bincount put place putmask copyto"
    assert [name for name in names.split() if getattr(np, name) not in BINDINGS] == []
