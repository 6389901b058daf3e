"""Filling: NumPy's functions that write, ``out=`` and ``where=``, and new arrays to write into."""

import numpy as np
import pytest
from laws import Case, laws

import nbad
from nbad.errors import NoRuleError

S = ((3, 4), -2.0, 2.0)
SQUARE = ((3, 3), -2.0, 2.0)
ROW = ((4,), -2.0, 2.0)
TWO = ((2,), -2.0, 2.0)
MASK = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]], bool)


def case(name, fill, *arguments, **options):
    """Return a case: `fill` works on a square of the first argument, which is traced whatever is asked for."""

    def filled(x, v):
        y = x * x + np.zeros_like(v[:0].sum())
        found = fill(y, v)
        return y * y if found is None else (y * y, found * found)

    return Case(name, filled, arguments, **{"dtypes": ("f4",)} | options)


def add_at(y, v):
    np.add.at(y, [0, 2, 0], v)
    np.subtract.at(y, (slice(None), np.array([1, 1])), v[:2])
    np.add.at(y, slice(1, 3), v)


def divided(y, v):
    np.divide(v, y, out=y, where=MASK)


def reduced(y, v):
    total = np.zeros_like(y[0])
    np.sum(y * v, axis=0, out=total)
    np.multiply(total, v, total)
    return total


def sorted_rows(y, v):
    y *= v
    y.sort(axis=1)


def made(y, v):
    made = np.full_like(y, v[0])
    made[1] = v
    made += np.ones_like(y)
    made *= np.full((4,), v[1], like=v)
    np.copyto(made[2], np.array([v[0], 1.0, v[1] * v[0], v[2]], dtype=made.dtype, like=v))
    return made


def made_like(y, v):
    """Write into new arrays of every kind, and into what other arrays become."""
    found = [
        np.zeros(4, like=v), np.ones(4, like=v), np.empty(4, like=v), np.empty_like(v), np.eye(4, like=v)[1],
        np.identity(4, like=v)[2], np.tri(4, like=v)[2], np.arange(4.0, like=v), np.fromiter([1.0, 2, 3, 4], float, like=v),
        np.fromfunction(np.hypot, (1, 4), like=v)[0], np.fromstring("1 2 3 4", sep=" ", like=v),
        np.loadtxt(["1 2 3 4"], like=v), np.genfromtxt(["1 2 3 4"], like=v),
    ]  # fmt: skip
    for array in found:
        array[1:] = v[1:]
        array[0] = v[0]
    plain = np.frombuffer(bytes(16), np.float32, like=v) + np.fromfile(__file__, np.uint8, 4, like=v)
    rows = [[v[0], 1.0, v[1], v[2]], [v[3], v[1], 2.0, v[0]]]
    found += [np.asarray(rows[0], like=v), np.asanyarray(rows[0], like=v), np.require(v, like=v)]
    found += [np.ascontiguousarray(rows, like=v)[1], np.asfortranarray(rows, like=v)[1]]
    return np.stack(found) * plain


CASES = [
    case("add.at", add_at, S, ROW),
    case("put", lambda y, v: np.put(y, [1, -1, 1], v[:2]), S, ROW),
    case("put method", lambda y, v: y.put([[7, 30]], v[:2], mode="wrap"), S, ROW),
    case("place", lambda y, v: np.place(y, MASK, v), S, ROW),
    case("putmask", lambda y, v: np.putmask(y, MASK, v[:3]), S, ROW),
    case("copyto", lambda y, v: np.copyto(y, v, where=MASK), S, ROW),
    case("copyto a view", lambda y, v: np.copyto(y[::2], v), S, ROW),
    case("fill", lambda y, v: y.fill(v[1]), S, ROW),
    case("fill_diagonal", lambda y, v: np.fill_diagonal(y, v[:3]), SQUARE, ROW),
    case("fill_diagonal tall", lambda y, v: np.fill_diagonal(y, v, wrap=True), ((9, 3), -1.0, 1.0), ROW),
    case("put_along_axis", lambda y, v: np.put_along_axis(y, np.array([[3], [0], [3]]), v[:1], 1), S, ROW),
    case("sort", sorted_rows, S, ((1,), 0.5, 1.0)),
    case("out and where", divided, ((3, 4), 1.0, 2.0), ROW),
    case("out of a reduction", reduced, S, ROW),
    case("new arrays", made, S, ROW),
    case("new arrays by like=", made_like, S, ROW),
]
TestLaws = laws(CASES)

X = np.arange(1.0, 6.0)


def test_elements_that_are_not_selected_are_not_computed():
    def f(x):
        y = np.zeros_like(x)
        np.divide(1.0, x, out=y, where=x != 0)
        return np.sum(y)

    np.testing.assert_allclose(nbad.grad(f)(np.array([0.0, 2.0])), [0.0, -0.25])


REFUSED = {
    "multiply.at": lambda x: np.multiply.at(np.zeros_like(x), [0], x[0]),
    "add.at": lambda x: np.add.at(np.zeros(5), [0], x[0]),
    "np.put": lambda x: np.put(np.zeros(5), [0], x[0]),
    "np.copyto": lambda x: np.copyto(np.zeros(5), x),
    "np.place": lambda x: np.place(np.zeros(5), np.ones(5, bool), x),
    "np.putmask": lambda x: np.putmask(np.zeros(5), np.ones(5, bool), x),
    "np.put_along_axis": lambda x: np.put_along_axis(np.zeros(5), np.array([0]), x[:1], 0),
    "np.sum with out=": lambda x: np.sum(x, axis=0, out=np.zeros(())),
    "np.exp with out=": lambda x: np.exp(x, out=np.zeros(5)),
    "where=": lambda x: np.exp(x, out=np.zeros(5), where=X > 2),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_written_says_what_to_write(words):
    with pytest.raises(NoRuleError) as caught:
        nbad.grad(lambda x: np.sum(x) + 0 * (REFUSED[words](x) or 0))(X)
    assert words in str(caught.value)
    assert "np.zeros_like(x)" in str(caught.value) or "y[index]" in str(caught.value)
    assert "test_filling.py" in str(caught.value)
