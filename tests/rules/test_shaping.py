"""Shaping: reshape, axes, joining, splitting."""

import numpy as np
import pytest
from laws import Case, laws

import nbad
import nbad.rules.indexing
import nbad.rules.shaping
from nbad import tree
from nbad.table import BINDINGS

S = ((3, 4), -2.0, 2.0)
CUBE = ((2, 3, 4), -2.0, 2.0)
LINE = ((5,), -2.0, 2.0)
POINT = ((), -2.0, 2.0)
EMPTY = ((0, 3), -1.0, 1.0)
BOTH = {"dtypes": ("f8", "c16")}
POINTS = {"layouts": "a point has one layout, and NumPy's functions that change it add a dimension"}


def squared(function):
    """Return `function` followed by a square, so that its pullback meets cotangents that depend on the input."""

    def curved(*args):
        return tree.map_leaves(np.square, function(*args))

    return curved


def case(name, function, *arguments, **options):
    """Return a case at float32, which must stay float32; the rows alone are tested at all dtypes."""
    return Case(name, squared(function), arguments, **{"dtypes": ("f4",)} | options)


CASES = [
    Case("reshape alone", lambda x: np.reshape(x, (4, 3)), [S], complex_ok=True),
    Case("transpose alone", lambda x: x.T, [S], complex_ok=True),
    Case("broadcast_to alone", lambda x: np.broadcast_to(x, (2, 3, 4)), [S], complex_ok=True),
    Case("concatenate alone", lambda x, y: np.concatenate((x, y)), [S, S], complex_ok=True),
    Case("stack alone", lambda x, y: np.stack((x, y), 1), [S, S], complex_ok=True),
    case("reshape", lambda x: np.reshape(x, (4, 3)), S),
    case("reshape with -1", lambda x: x.reshape(2, -1, 3), S),
    case("reshape to one", lambda x: np.reshape(x, -1), S),
    case("reshape in Fortran order", lambda x: np.reshape(x, (2, 6), order="F"), S),
    case("reshape after transposing", lambda x: np.reshape(x.T, (2, 6)), S),
    case("reshape of a point", lambda x: np.reshape(x, (1, 1)), POINT, off=POINTS),
    case("reshape to a point", lambda x: np.reshape(x, ()), ((1, 1), -1.0, 1.0), off=POINTS),
    case("reshape of nothing", lambda x: np.reshape(x, (3, 0, 2)), EMPTY),
    case("ravel", np.ravel, CUBE),
    case("ravel in Fortran order", lambda x: np.ravel(x, "F"), CUBE),
    case("ravel of a point", np.ravel, POINT, off=POINTS),
    case("flatten", lambda x: x.flatten(), CUBE),
    case("transpose", np.transpose, CUBE),
    case("transpose axes", lambda x: np.transpose(x, (1, -1, 0)), CUBE),
    case("transpose method", lambda x: x.transpose(2, 0, 1), CUBE),
    case("swapaxes", lambda x: np.swapaxes(x, 0, -1), CUBE),
    case("moveaxis", lambda x: np.moveaxis(x, (0, 1), (-1, 0)), CUBE),
    case("rollaxis", lambda x: np.rollaxis(x, 2), CUBE),
    case("rollaxis to", lambda x: np.rollaxis(x, 0, 3), CUBE),
    case("matrix_transpose", np.matrix_transpose, CUBE),
    case("linalg.matrix_transpose", np.linalg.matrix_transpose, CUBE),
    case("mT", lambda x: x.mT, CUBE),
    case("squeeze", np.squeeze, ((1, 3, 1), -1.0, 1.0)),
    case("squeeze axis", lambda x: np.squeeze(x, -1), ((1, 3, 1), -1.0, 1.0)),
    case("expand_dims", lambda x: np.expand_dims(x, 1), S),
    case("expand_dims axes", lambda x: np.expand_dims(x, (0, -1)), S),
    case("atleast_1d", np.atleast_1d, POINT, off=POINTS),
    case("atleast_2d", np.atleast_2d, LINE),
    case("atleast_3d", np.atleast_3d, LINE),
    case("atleast_3d of several", lambda x, y, z: np.atleast_3d(x, y, z), POINT, S, CUBE, off=POINTS),
    case("broadcast_to", lambda x: np.broadcast_to(x, (2, 3, 4)), ((3, 1), -1.0, 1.0)),
    case("broadcast_to of a point", lambda x: np.broadcast_to(x, 3), POINT, off=POINTS),
    case("broadcast_to nothing", lambda x: np.broadcast_to(x, (0, 3)), ((1, 3), -1.0, 1.0)),
    case(
        "broadcast_arrays",
        lambda x, y: np.broadcast_arrays(x, y),
        ((3, 1), -1.0, 1.0),
        ((4,), -1.0, 1.0),
        **BOTH,
    ),
    case("concatenate", lambda x, y: np.concatenate((x, y, x)), S, ((2, 4), -1.0, 1.0)),
    case("concatenate last axis", lambda x, y: np.concatenate((x, y), axis=-1), S, ((3, 1), -1.0, 1.0)),
    case("concatenate flat", lambda x, y: np.concatenate((x, y), axis=None), S, POINT, off=POINTS),
    case("concatenate with nothing", lambda x, y: np.concatenate((x, y)), EMPTY, ((2, 3), -1.0, 1.0)),
    case(
        "concatenate with a constant",
        lambda x: np.concatenate((np.ones((1, 4), x.dtype), x, np.zeros((2, 4), x.dtype))),
        S,
    ),
    case("concatenate dtypes", lambda x: np.concatenate((x, np.ones((1, 4)))), S, **BOTH),
    case("concatenate into complex", lambda x: np.concatenate((x, x), dtype=np.complex128), S),
    case("stack", lambda x, y: np.stack((x, y, x)), S, S),
    case("stack last axis", lambda x, y: np.stack((x, y), axis=-1), S, S),
    case("stack of points", lambda x, y: np.stack((x, y)), POINT, POINT, off=POINTS),
    case("vstack", lambda x, y: np.vstack((x, y)), S, ((4,), -1.0, 1.0)),
    case("vstack of lines", lambda x, y: np.vstack((x, y)), LINE, LINE),
    case("hstack", lambda x, y: np.hstack((x, y)), S, S),
    case("hstack of lines", lambda x, y: np.hstack((x, y)), LINE, POINT, off=POINTS),
    case("hstack of points", lambda x, y: np.hstack((x, y)), POINT, POINT, off=POINTS),
    case("dstack", lambda x, y: np.dstack((x, y)), S, S),
    case("dstack of lines", lambda x, y: np.dstack((x, y)), LINE, LINE),
    case("column_stack", lambda x, y: np.column_stack((x, y)), ((3,), -1.0, 1.0), S),
    case("column_stack of lines", lambda x, y: np.column_stack((x, y)), LINE, LINE),
    case("append", lambda x, y: np.append(x, y), S, LINE),
    case("append rows", lambda x, y: np.append(x, y, axis=0), S, S),
    case(
        "block",
        lambda x, y: np.block([[x, x], [y, np.zeros((2, 4), y.dtype)]]),
        S,
        ((2, 4), -1.0, 1.0),
        **BOTH,
    ),
    case("block of mixed dimensions", lambda x, y: np.block([x, y]), LINE, POINT, off=POINTS),
    case("split", lambda x: np.split(x, 2, axis=1), S),
    case("split at", lambda x: np.split(x, [1, 3], axis=-1), S),
    case("split past the end", lambda x: np.split(x, [2, 7]), S),
    case("array_split", lambda x: np.array_split(x, 3), LINE),
    case("hsplit", lambda x: np.hsplit(x, 2), S),
    case("vsplit", lambda x: np.vsplit(x, 3), S),
    case("dsplit", lambda x: np.dsplit(x, [1]), CUBE),
    case("one part of a split", lambda x: np.split(x, 4, axis=1)[2], S),
    case("iteration", lambda x: list(x), S),
]
if hasattr(np, "unstack"):
    CASES.append(case("unstack", lambda x: np.unstack(x, axis=1), S))
TestLaws = laws(CASES)


def test_ravel_follows_memory() -> None:
    base = np.arange(24.0).reshape(2, 3, 4)
    for x in (base, base.T, base.transpose(1, 2, 0), base[:, ::-1], base[..., ::2], np.asfortranarray(base)):
        for order in "CFAK":
            value, pullback = nbad.vjp(lambda x: np.ravel(x, order), x)  # noqa: B023 - called at once
            assert np.array_equal(value, np.ravel(x, order)), order
            marks = np.arange(float(x.size))
            expected = np.empty(x.shape)
            for place in np.ndindex(x.shape):
                expected[place] = marks[np.flatnonzero(value == x[place])[0]]
            assert np.array_equal(pullback(marks), expected)
            assert np.array_equal(
                np.reshape(x, (4, -1), order="A"), nbad.vjp(lambda x: np.reshape(x, (4, -1), order="A"), x)[0]
            )


def test_adding_and_removing_dimensions_is_one_reshape() -> None:
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(np.squeeze(np.expand_dims(x, (0, 2)), 0)))(np.ones((3, 4)))
    assert account.rules_run["reshape", "x"] == 2
    assert sum(account.rules_run.values()) == 3
    assert account.bytes_kept == 0


def test_only_the_asked_part_of_a_join_is_pulled_back() -> None:
    x, y = np.ones((3, 4)), np.ones((2, 4))
    with nbad.report() as account:
        nbad.grad(lambda x, y: np.sum(np.concatenate((y, x, y * 2))), wrt="x")(x, y)
    assert account.rules_run["concatenate", "xs"] == 1
    assert account.bytes_kept == 0
    with nbad.report() as account:
        nbad.grad(lambda x, y: np.sum(np.concatenate((y, x, y * 2))), wrt="y")(x, y)
    assert account.rules_run["concatenate", "xs"] == 2


def test_traced_values_inside_nested_lists_are_stacked() -> None:
    def loss(x):
        return np.sum(np.concatenate((x, [x[0], 2.0, x[1] * 3])) ** 2)

    x = np.array([1.0, 2.0])
    assert np.array_equal(nbad.grad(loss)(x), 2 * x + np.array([2.0, 18 * 2.0]))


def test_results_without_derivative_are_plain() -> None:
    seen = {}

    def loss(x):
        seen["shape"] = np.shape(x), np.ndim(x), np.size(x), np.size(x, 0), np.result_type(x, np.float64)
        seen["zeros"] = np.asarray(np.zeros_like(x)), np.ones_like(x, dtype=np.int64)
        seen["text"] = np.array2string(x), np.array_repr(x), np.array_str(x)
        seen["memory"] = np.may_share_memory(x, x)
        return np.sum(x)

    x = np.ones((2, 3), np.float32)
    nbad.grad(loss)(x)
    assert seen["shape"] == ((2, 3), 2, 6, 2, np.float64)
    assert type(seen["zeros"][0]) is np.ndarray and seen["zeros"][0].dtype == np.float32
    assert seen["zeros"][1].dtype == np.int64
    assert seen["text"] == (np.array2string(x), np.array_repr(x), np.array_str(x))
    assert seen["memory"] is True


BAD = {
    "size": (lambda x: np.reshape(x, (5, 2)), ValueError, "cannot reshape array of size 12 into shape"),
    "two unknown": (lambda x: np.reshape(x, (-1, -1)), ValueError, "one unknown dimension"),
    "indivisible": (lambda x: np.reshape(x, (5, -1)), ValueError, "cannot reshape"),
    "order": (lambda x: np.reshape(x, 12, order="K"), ValueError, "order must be"),
    "axes": (lambda x: np.transpose(x, (0,)), ValueError, "axes don't match array"),
    "twice": (lambda x: np.transpose(x, (0, 0)), ValueError, "repeated axis"),
    "axis": (lambda x: np.swapaxes(x, 0, 2), np.exceptions.AxisError, "out of bounds"),
    "moveaxis": (lambda x: np.moveaxis(x, (0, 1), 0), ValueError, "same number of elements"),
    "rollaxis": (lambda x: np.rollaxis(x, 0, 5), np.exceptions.AxisError, "out of bounds"),
    "squeeze": (lambda x: np.squeeze(x, 0), ValueError, "size not equal to one"),
    "expand": (lambda x: np.expand_dims(x, 5), np.exceptions.AxisError, "out of bounds"),
    "broadcast": (lambda x: np.broadcast_to(x, (3, 5)), ValueError, "could not be broadcast"),
    "concatenate": (lambda x: np.concatenate((x, np.ones((2, 3)))), ValueError, "must match exactly"),
    "concatenate out": (lambda x: np.concatenate((x, x), out=np.empty((6, 4))), nbad.NoRuleError, "out="),
    "stack": (lambda x: np.stack((x, np.ones(3))), ValueError, "same shape"),
    "block": (lambda x: np.block([[x], x]), ValueError, "equally deep"),
    "block tuple": (lambda x: np.block([x, (x, x)]), TypeError, "tuples"),
    "block empty": (lambda x: np.block([x, []]), ValueError, "empty"),
    "split": (lambda x: np.split(x, 2), ValueError, "equal division"),
    "sections": (lambda x: np.array_split(x, 0), ValueError, "larger than 0"),
    "dsplit": (lambda x: np.dsplit(x, 2), ValueError, "3 or more dimensions"),
    "matrix": (lambda x: np.matrix_transpose(x[0]), ValueError, "at least 2-dimensional"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


def test_reshape_without_copy_where_one_is_needed() -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("np.reshape has no copy= yet")
    assert nbad.grad(lambda x: np.sum(np.reshape(x, 12, copy=False)))(np.ones((3, 4))).shape == (3, 4)
    with pytest.raises(ValueError, match="copy"):
        nbad.grad(lambda x: np.sum(np.reshape(x.T, 12, copy=False)))(np.ones((3, 4)))


def test_meant_functions_are_bound() -> None:
    names = "reshape ravel transpose swapaxes moveaxis rollaxis matrix_transpose permute_dims squeeze expand_dims atleast_1d"
    names += (
        " atleast_2d atleast_3d broadcast_to broadcast_arrays concatenate concat stack vstack hstack dstack"
    )
    names += " column_stack append block split array_split hsplit vsplit dsplit"
    assert [name for name in names.split() if getattr(np, name) not in BINDINGS] == []
