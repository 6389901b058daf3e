"""Rearranging: order, repetition, padding, triangles, differences."""

import numpy as np
import pytest
from laws import Case, laws

import nbad
import nbad.rules.rearranging
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
    Case("flip alone", lambda x: np.flip(x, 1), [S], complex_ok=True),
    Case("roll alone", lambda x: np.roll(x, 2, 1), [S], complex_ok=True),
    Case("tile alone", lambda x: np.tile(x, (2, 3)), [S], complex_ok=True),
    Case("repeat alone", lambda x: np.repeat(x, 2, 1), [S], complex_ok=True),
    Case("pad alone", lambda x: np.pad(x, ((1, 2), (0, 1))), [S], complex_ok=True),
    case("flip", np.flip, CUBE),
    case("flip axes", lambda x: np.flip(x, (0, -1)), CUBE),
    case("flip of nothing", np.flip, EMPTY),
    case("flip of a point", np.flip, POINT, off=POINTS),
    case("fliplr", np.fliplr, S),
    case("flipud", np.flipud, S),
    *(case(f"rot90 {k}", lambda x, k=k: np.rot90(x, k, (1, 2)), CUBE, wrt=(0,)) for k in range(-1, 5)),
    case("roll", lambda x: np.roll(x, 5), S),
    case("roll axes", lambda x: np.roll(x, (1, -2), (0, 1)), S),
    case("roll one shift", lambda x: np.roll(x, -1, (0, 1)), S),
    case("roll twice along one axis", lambda x: np.roll(x, (1, 2), (0, 0)), S),
    case("roll of nothing", lambda x: np.roll(x, 1, 0), EMPTY),
    case("meshgrid", lambda x, y: np.meshgrid(x, y), LINE, ((2,), -1.0, 1.0)),
    case("meshgrid ij", lambda x, y: np.meshgrid(x, y, indexing="ij"), LINE, ((2,), -1.0, 1.0)),
    case("meshgrid sparse", lambda x, y: np.meshgrid(x, y, sparse=True), LINE, ((2,), -1.0, 1.0)),
    case("tile", lambda x: np.tile(x, 2), S, **BOTH),
    case("tile more dimensions", lambda x: np.tile(x, (2, 1, 3)), S),
    case("tile fewer dimensions", lambda x: np.tile(x, (2,)), CUBE),
    case("tile to nothing", lambda x: np.tile(x, (0, 2)), S),
    case("tile of a point", lambda x: np.tile(x, 3), POINT, off=POINTS),
    case("repeat", lambda x: np.repeat(x, 3), S),
    case("repeat axis", lambda x: np.repeat(x, 2, axis=0), S),
    case("repeat counts", lambda x: np.repeat(x, [0, 2, 1, 3], axis=-1), S, **BOTH),
    case("repeat one count", lambda x: np.repeat(x, [2], axis=0), S),
    case("repeat zero times", lambda x: np.repeat(x, 0, axis=0), S),
    case("repeat of a point", lambda x: np.repeat(x, 3), POINT, off=POINTS),
    case("resize", lambda x: np.resize(x, (5, 3)), S),
    case("resize smaller", lambda x: np.resize(x, 4), S),
    case("pad", lambda x: np.pad(x, 1), S),
    case("pad with numbers", lambda x: np.pad(x, ((1, 2), (0, 1)), constant_values=((1, 2), (3, 4))), S),
    case("pad of nothing", lambda x: np.pad(x, 1), EMPTY),
    case("pad edge", lambda x: np.pad(x, ((2, 1), (0, 3)), mode="edge"), S),
    case("pad reflect", lambda x: np.pad(x, ((2, 1), (0, 7)), mode="reflect"), S, **BOTH),
    case("pad symmetric", lambda x: np.pad(x, (4, 5), mode="symmetric"), S),
    case("pad wrap", lambda x: np.pad(x, ((5, 1), (0, 9)), mode="wrap"), S),
    case("pad linear_ramp", lambda x: np.pad(x, (2, 1), mode="linear_ramp", end_values=(0.5, 2)), S, exact=False, **BOTH),
    case("triu", lambda x: np.triu(x, 1), S),
    case("tril", np.tril, CUBE),
    case("tril of a line", lambda x: np.tril(x, -1), LINE),
    case("diff", np.diff, S),
    case("diff twice", lambda x: np.diff(x, 2, axis=0), S),
    case("diff joined", lambda x, y: np.diff(x, prepend=0, append=y), S, ((3, 2), -1.0, 1.0)),
    case("ediff1d", np.ediff1d, S),
    case("ediff1d joined", lambda x, y: np.ediff1d(x, to_begin=y, to_end=1.5), S, LINE),
    case("full_like", lambda x: np.full_like(x, x[0, 0]) * x, S, **BOTH),
    case("array like", lambda x: np.array([[x[0], x[1]], [x[1], 1.0]], ndmin=3, like=x), LINE),
]  # fmt: skip
TestLaws = laws(CASES)

BAD = {
    "fliplr": (lambda x: np.fliplr(x[0]), ValueError, "2-d"),
    "flip": (lambda x: np.flip(x, 2), np.exceptions.AxisError, "out of bounds"),
    "rot90": (lambda x: np.rot90(x, axes=(0, 0)), ValueError, "different"),
    "roll": (lambda x: np.roll(x, 1, 2), np.exceptions.AxisError, "out of bounds"),
    "meshgrid": (lambda x: np.meshgrid(x[0], indexing="yx"), ValueError, "indexing"),
    "repeat": (lambda x: np.repeat(x, -1), ValueError, "negative"),
    "resize": (lambda x: np.resize(x, -1), ValueError, "non-negative"),
    "pad mode": (lambda x: np.pad(x, 1, mode="median"), nbad.NoRuleError, "np.pad with mode='median'"),
    "pad function": (lambda x: np.pad(x, 1, mode=np.copyto), nbad.NoRuleError, "np.pad with mode="),
    "pad odd": (lambda x: np.pad(x, 1, mode="reflect", reflect_type="odd"), nbad.NoRuleError, "even type"),
    "pad negative": (lambda x: np.pad(x, -1), ValueError, "negative"),
    "pad option": (lambda x: np.pad(x, 1, constant=3), ValueError, "unsupported keyword"),
    "pad traced": (lambda x: np.pad(x, 1, constant_values=x[0, 0]), nbad.DetachError, "derivative"),
    "pad empty": (lambda x: np.pad(x[:0], 1, mode="edge"), ValueError, "empty axis"),
    "ramp empty": (lambda x: np.pad(x[:0], 1, mode="linear_ramp"), ValueError, "empty axis"),
    "diff": (lambda x: np.diff(x, -1), ValueError, "non-negative"),
    "diff of a point": (lambda x: np.diff(x[0, 0]), ValueError, "one dimensional"),
    "full": (lambda x: np.full(3, x[0, 0]), nbad.DetachError, "derivative"),
    "full_like of a constant": (
        lambda x: np.full_like(np.ones(3), x[0, 0]),
        nbad.NoRuleError,
        "np.broadcast_to",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


def test_full_of_a_traced_number_like_an_array() -> None:
    def loss(x):
        return np.sum(np.full((2, 3), x, like=x) * np.full_like(x, 2.0))

    assert nbad.grad(loss)(3.0) == 12.0
    assert np.array_equal(nbad.vjp(lambda x: np.full_like(x, 2.5), np.ones((2, 2)))[0], np.full((2, 2), 2.5))


def test_nothing_is_kept() -> None:
    x = np.ones((3, 4))
    roll, tile = (lambda x: np.roll(x, 1)), (lambda x: np.tile(x, 2))
    for function in (np.flip, roll, tile, lambda x: np.repeat(x, 2), lambda x: np.pad(x, 1)):
        with nbad.report() as account:
            nbad.grad(lambda x: np.sum(function(x)))(x)  # noqa: B023 - called at once
        assert account.bytes_kept == 0


def test_meant_functions_are_bound() -> None:
    names = "flip fliplr flipud rot90 roll tile repeat pad resize triu tril diff ediff1d meshgrid full_like"
    assert [name for name in names.split() if getattr(np, name) not in BINDINGS] == []
