"""Applying: functions along axes and in pieces, choices, windows, functions that widen to complex numbers."""

import numpy as np
import pytest
from compiled_cases import compiled_laws
from laws import Case, laws, squared

import nbad

S = ((3, 4), -2.0, 2.0)
CUBE = ((2, 3, 4), -2.0, 2.0)
LINE = ((5,), 0.5, 2.0)
NUMBERS = np.array([[2, 0, 1, 0], [1, 1, 0, 2], [0, 2, 2, 1]])
BOTH = {"dtypes": ("f8", "c16")}


def case(name, function, *arguments, **options):
    return Case(name, squared(function), arguments, **{"exact": False, "dtypes": ("f4", "f8")} | options)


def bordered(x):
    """Return `x` with zeros around it, inside a function that takes them away."""
    return np.pad(x, ((1, 2), (0, 1)))


CASES = [
    case("apply_along_axis", lambda x: np.apply_along_axis(np.sum, 0, x), S),
    case("apply_along_axis to lines", lambda x: np.apply_along_axis(np.cumsum, 1, x), CUBE, **BOTH),
    case("apply_along_axis to tables", lambda x: np.apply_along_axis(lambda v, k: np.outer(v, v) * k, -2, x, 2.0), CUBE,
         dtypes=("f8",)),
    case("apply_over_axes", lambda x: np.apply_over_axes(np.sum, x, (0, -1)), CUBE),
    case("piecewise", lambda x: np.piecewise(x, [x < -1, x > 1], [np.sin, np.exp, 0.5]), S),
    case("piecewise constants", lambda x: np.piecewise(x, [x > 0], [lambda v, a: v * a, lambda v, a: -v], 3.0), LINE),
    case("piecewise one", lambda x: np.piecewise(x, x > 1, [np.exp, np.negative]), LINE),
    case("piecewise point", lambda x: np.piecewise(x, [x > 0, x <= 0], [np.exp, np.negative]), ((), 0.5, 1.0),
         off={"layouts": "a number has one layout"}),
    case("choose", lambda x, y: np.choose(NUMBERS, [x, y, 1.0]), S, ((4,), -2.0, 2.0), **BOTH),
    case("choose of rows", lambda x: np.choose([2, 0, 1, 0], x), S),
    case("choose wrapped", lambda x, y: np.choose(NUMBERS + 1, (x, y), mode="wrap"), S, S),
    case("choose clipped", lambda x, y: np.choose(NUMBERS - 1, (x, y), mode="clip"), S, S),
    case("trim_zeros", lambda x: np.trim_zeros(bordered(x)[1]), S),
    *([] if np.lib.NumpyVersion(np.__version__) < "2.2.0" else [
        case("trim_zeros of rows", lambda x: np.trim_zeros(bordered(x)), S),
        case("trim_zeros in front", lambda x: np.trim_zeros(bordered(x), "f", axis=0), S),
    ]),
    case("ix_", lambda x: x[np.ix_([2, 0], [True, False, True, True])], S),
    case("unravel_index", lambda x: x[np.unravel_index(np.argsort(x, axis=None), x.shape)], S),
    case("unravel_index in columns", lambda x: x[np.unravel_index([1, 5, 7], (3, 4), order="F")], S),
    case("sliding_window_view", lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3)), S, **BOTH),
    case("sliding_window_view axis", lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=-2), CUBE),
    case("emath.sqrt", lambda x: np.emath.sqrt(x), S, **BOTH),
    case("emath.sqrt real", lambda x: np.emath.sqrt(x), LINE),
    case("emath.log", lambda x: np.emath.log(x - 0.1), LINE),
    case("emath.log2", lambda x: np.emath.log2(-x), LINE),
    case("emath.log10", lambda x: np.emath.log10(-x), LINE),
    case("emath.logn", lambda n, x: np.emath.logn(n + 1, -x), LINE, LINE),
    case("emath.power", lambda x, p: np.emath.power(-x, p), LINE, LINE),
    case("emath.power of integers", lambda x: np.emath.power(x, -2), LINE),
    case("emath.arccos", lambda x: np.emath.arccos(x + 1), LINE),
    case("emath.arcsin", lambda x: np.emath.arcsin(x + 1), LINE),
    case("emath.arctanh", lambda x: np.emath.arctanh(x + 1), LINE),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)

BAD = {
    "apply_along_axis": (lambda x: np.apply_along_axis(np.sum, 2, x), np.exceptions.AxisError, "out of bounds"),
    "apply to nothing": (lambda x: np.apply_along_axis(np.sum, 1, x[:0]), ValueError, "are 0"),
    "apply_over_axes": (lambda x: np.apply_over_axes(lambda v, d: v[0, 0], x, 0), ValueError, "correct shape"),
    "piecewise": (lambda x: np.piecewise(x, [x > 0], [1, 2, 3]), ValueError, "functions are expected"),
    "choose": (lambda x: np.choose([0, 3, 1, 0], x), ValueError, "choice array"),
    "choose by a traced value": (lambda x: np.choose(x, [1.0, 2.0]), nbad.DetachError, "index"),
    "choose mode": (lambda x: np.choose([0, 1, 1, 0], x, mode="x"), ValueError, "clipmode"),
    "trim_zeros": (lambda x: np.trim_zeros(x, "x"), ValueError, "trim"),
    "unravel_index": (lambda x: x[np.unravel_index(np.argmax(x) + 12, (3, 4))], ValueError, "out of bounds"),
    "windows": (lambda x: np.lib.stride_tricks.sliding_window_view(x, 7, 0), ValueError, "larger"),
    "windows without axes": (lambda x: np.lib.stride_tricks.sliding_window_view(x, 2), ValueError, "matching"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    function, error, message = BAD[name]
    with pytest.raises(error, match=message):
        nbad.vjp(function, np.ones((3, 4)))


def test_the_pieces_that_no_element_is_in_are_not_called() -> None:
    def never(v):
        raise AssertionError

    assert nbad.grad(lambda x: np.sum(np.piecewise(x, [x > 0, x < 0], [np.square, never])))(
        np.ones(2)
    ).tolist() == [2, 2]


def test_trimming_nothing_but_zeros_leaves_nothing() -> None:
    value, pullback = nbad.vjp(lambda x: np.trim_zeros(x), np.zeros(3))
    assert value.shape == (0,)
    assert pullback(np.zeros(0)).tolist() == [0, 0, 0]
