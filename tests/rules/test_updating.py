"""Updating: writes at ints, slices, masks and index arrays, through views, and in place by operators."""

import numpy as np
import pytest
from laws import Case, laws

import nbad

S = ((3, 4), -2.0, 2.0)
LINE = ((5,), -2.0, 2.0)
ROW = ((4,), -2.0, 2.0)
TWO = ((2,), -2.0, 2.0)
PAIR = ((2, 4), -2.0, 2.0)
EMPTY = ((0, 3), -1.0, 1.0)
MASK = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]], bool)
ORDERS = {"layouts": "whether the reshaped array is a view depends on the layout, as in NumPy"}


def writing(write):
    """Return a function that writes its second argument into a square of its first, and squares the result.

    The array is traced whichever of the two is asked for.
    """

    def written(x, v):
        y = x * x + np.zeros_like(v[:0].sum())
        write(y, v)
        return y * y

    return written


def case(name, write, *arguments, **options):
    """Return a case at float32, which must stay float32; the rows alone are tested at all dtypes."""
    return Case(name, writing(write), arguments, **{"dtypes": ("f4",)} | options)


def at(index):
    """Return the write of a value at `index`."""

    def write(y, v):
        y[index] = v

    return write


def through(view, index=...):
    """Return the write of a value at `index` of a view."""

    def write(y, v):
        view(y)[index] = v

    return write


def add_rows(y, v):
    y[1:] += y[:-1] * v


def shift(y, v):
    y[1:] = y[:-1]
    y[0] = v


def recur(y, v):
    for i in range(1, y.shape[0]):
        y[i] = y[i - 1] * v[0] + y[i]


def operators(y, v):
    y += v
    y -= 2 * v
    y *= v
    y /= v * v + 3
    y **= 2


def views_of_views(y, v):
    z = y[1:]
    w = z.T[::-1]
    w[0] = v[0]
    z[0] = w[1, 0] * v[1]
    w *= v[0]


def masked_in_place(y, v):
    y[MASK] *= v[0]
    y[[0, 2, 0]] += v[1]


CASES = [
    Case("write alone", writing(at(slice(1, None))), [S, PAIR], complex_ok=True),
    Case("write_at alone", writing(at([2, 0])), [S, PAIR], complex_ok=True),
    case("int", at(1), S, ROW),
    case("slices", at((slice(None), slice(1, 3))), S, TWO),
    case("negative step", at(slice(None, None, -2)), S, PAIR),
    case("everything", at(...), S, ROW),
    case("None", at((slice(0, 2), None)), S, ((2, 1, 4), -2.0, 2.0)),
    case("leading ones", at(1), S, ((1, 1, 4), -2.0, 2.0)),
    case("broadcast", at(slice(1, None)), S, ROW),
    case("nothing", at((slice(None), slice(1, None))), EMPTY, ((2,), -1.0, 1.0)),
    case("mask", at(MASK), S, ((6,), -2.0, 2.0)),
    case("index arrays", at(([0, 2, 1], [3, 0, 1])), S, ((3,), -2.0, 2.0)),
    case("index array with slice", at((slice(1, None), [3, 0])), S, TWO),
    case("last of several writes to one place", at([0, 2, 0]), S, ((3, 4), -2.0, 2.0)),
    case("last of several writes of one value", at([0, 0, 1, 0]), LINE, ((4,), -2.0, 2.0)),
    case("transposed", through(np.transpose, 1), S, ((3,), -2.0, 2.0)),
    case("reshaped", through(lambda y: y.reshape(2, 6), (1, slice(0, 2))), S, TWO, off=ORDERS),
    case("raveled", through(np.ravel, [0, 5, 0]), S, ((3,), -2.0, 2.0), off=ORDERS),
    case("flipped", through(np.flipud, 0), S, ROW),
    case("view of a view", through(lambda y: y[1:].T[::2], (0, [1, 0])), S, TWO),
    case("views of views", views_of_views, S, TWO),
    case("rows", add_rows, S, ROW),
    case("moved over itself", shift, S, ROW),
    case("recurrence", recur, S, TWO),
    case("operators", operators, S, ROW),
    case("operators at arrays", masked_in_place, S, TWO),
    Case(
        "parts of complex numbers",
        writing(lambda y, v: (through(np.real, 1)(y, np.real(v)), through(np.imag, [0, 2])(y, np.imag(v)))),
        [S, ROW],
        dtypes=("c8", "c16"),
    ),
]
TestLaws = laws(CASES)


X = np.arange(1.0, 6.0)


def test_overwritten_values_and_constants_run_no_pullback():
    def f(x):
        y = np.zeros_like(x)
        y[0] = 3.0
        y[1:3] = np.ones(2)
        y[...] = np.sin(x)
        y[2] = 5.0
        return np.sum(y)

    with nbad.report() as account:
        gradient = nbad.grad(f)(X)
    np.testing.assert_allclose(gradient, np.cos(X) * [1, 1, 0, 1, 1], rtol=1e-15)
    assert account.run("write", "v") == 1
    assert account.run("write", "x") == 1


@pytest.mark.parametrize("duplicates", [[0, 0, 0], [[0, 1], [1, 0]]])
def test_the_last_write_wins(duplicates):
    places = np.array(duplicates)

    def f(v):
        y = np.zeros_like(v, shape=(3,))
        y[places] = v
        return np.sum(y * np.arange(1.0, 4.0)), y

    v = np.arange(1.0, 1.0 + places.size).reshape(places.shape)
    gradient, y = nbad.grad(f, has_aux=True)(v)
    plain = np.zeros(3)
    plain[places] = v
    np.testing.assert_array_equal(y, plain)
    expected = [np.sum(np.arange(1.0, 4.0) * (plain == element)) for element in v.ravel()]
    np.testing.assert_array_equal(gradient.ravel(), expected)


@pytest.mark.parametrize(("index", "target"), [(0, (3,)), ((1, 0), (2, 2)), ((), ())])
def test_a_sequence_for_one_element_is_refused_as_numpy_refuses_it(index, target):
    def loss(v, made):
        y = made(v)
        y[index] = v
        return np.sum(y)

    def new(v):
        return np.zeros(target, like=v)

    try:
        loss(np.ones(1), new)
    except ValueError:
        with pytest.raises(ValueError, match="sequence"):
            nbad.grad(loss)(np.ones(1), new)
    else:  # older versions of NumPy take one element
        assert nbad.grad(loss)(np.ones(1), new).tolist() == [1.0]
