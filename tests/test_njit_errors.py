"""What kernels cannot do: one clear error with the kernel's own line; what they raise themselves passes through."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numba.experimental import jitclass
from numba.typed import List

import nbad

X = np.array([1.5, 2.5, 3.0])
FROZEN = np.zeros(3)
RECORDS = np.zeros(3, dtype=[("a", "f8"), ("b", "f8")])


@jitclass([("v", numba.float64)])
class Box:
    def __init__(self, v):
        self.v = v


def eigenvalues(x):
    a = np.zeros((2, 2))
    a[0, 0] = x[0]
    return np.linalg.eig(a)[0][0]  # here


@numba.njit
def histogram(x):
    return np.histogram(x, 3)[1][0]  # in the helper


def helped(x):
    return histogram(x)


def text(x):
    return len(str(x[0])) * x[0]  # here


def through_python(x):
    with numba.objmode(y="float64"):  # here
        y = float(x[0])
    return y * x[0]


def boxed(x):
    return Box(x[0]).v


def in_record(x, r):
    r[0].a = x[0]  # here
    return r[0].a * x[1]


def in_records(x, r):
    r["a"][0] = x[0]
    return r[0].a * x[1]


def bits(x):
    return x.view(np.int64)[0] * x[0]  # here


def bytes_of(x):
    return x.nbytes * x[0]  # here


def returns_a_list(x):
    return [x[0], x[1] * 2.0]


def members(x):
    found = {x[0], x[1]}
    return x[0] * len(found)


def into_a_global(x):
    FROZEN[0] = x[0]  # here
    return FROZEN[0] * x[1]


def of_two_kinds(x):
    return x + "a"  # here


def no_such_name(x):
    return undefined(x)  # noqa: F821


REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (eigenvalues, (), r"there is no eig\(float64 array\) for numbers that carry derivatives"),
    (helped, (), r"there is no histogram\(float64 array, int\)"),
    (text, (), r"str\(\) of a number that carries a derivative"),
    (through_python, (), "passed to Python"),
    (boxed, (), "stored where a plain number is expected"),
    (in_record, (RECORDS,), "stored where a plain number is expected"),
    (in_records, (RECORDS,), "an argument that cannot hold it"),
    (bits, (), "a view of an array that carries derivatives as another dtype"),
    (bytes_of, (), "nbytes"),
    (returns_a_list, (), "the kernel returns"),
    (members, (), "cannot be differentiated"),
    (into_a_global, (), "numba cannot compile into_a_global, with or without derivatives"),
    (of_two_kinds, (), "numba cannot compile of_two_kinds"),
    (no_such_name, (), "name 'undefined' is not defined"),
]


@pytest.mark.parametrize(
    ("function", "more", "reason"), REFUSED, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_refusal_names_the_reason_and_the_line(function: Any, more: Any, reason: str) -> None:
    with pytest.raises(nbad.NoRuleError, match=reason) as caught:
        nbad.grad(numba.njit(function))(X, *more)
    message = str(caught.value)
    assert len(message.splitlines()) == 3
    assert __file__ in message
    for mark in ("Active(", "Dual(", "<function", "%"):
        assert mark not in message
    lines = [line for line in inspect.getsource(function).splitlines() if "# here" in line]
    for line in lines:
        assert line.strip() in message


def appended(x):
    several = List()
    several.append(x[0])
    several.append(x[1] * 2)
    mixed = [x[0], 1.0]
    mixed.append(x[1])
    known = {1: x[0]}
    known[2] = x[2]
    print(x[0])
    return several[0] * several[1] + mixed[1] * mixed[2] + known[2] * int(x[0])


def test_lists_dictionaries_and_print(capfd: pytest.CaptureFixture[str]) -> None:
    found = nbad.grad(numba.njit(appended))(X)
    np.testing.assert_allclose(found, [2 * X[1], 2 * X[0] + 1.0, 1.0])
    assert capfd.readouterr().out == "1.5\n"


@numba.njit(boundscheck=True)
def raises(x, what):
    y = 0.0
    for i in range(x.size):
        y += x[i] * x[0]
    if what == 0:
        raise ValueError("mine", 3)
    if what == 1:
        return y / (x[0] - x[0])
    if what == 2:
        return y * x[x.size]
    return y


def test_what_a_kernel_raises_passes_through_and_the_next_call_is_right() -> None:
    x = np.ones(200_000)
    for what, error in ((0, ValueError), (1, ZeroDivisionError), (2, IndexError)):
        with pytest.raises(error) as caught:
            nbad.grad(raises)(x, what)
        if what == 0:
            assert caught.value.args == ("mine", 3)
        found = nbad.grad(raises)(x, 3)
        assert found[0] == x.size + 1
        np.testing.assert_array_equal(found[1:], 1.0)


@numba.njit(parallel=True)
def in_parallel(x):
    total = 0.0
    for i in numba.prange(x.size):
        total += x[i] ** 3
    return total


def test_prange_runs_serially_with_one_warning() -> None:
    with pytest.warns(RuntimeWarning, match="in_parallel runs serially"):
        found = nbad.grad(in_parallel)(X)
    np.testing.assert_allclose(found, 3 * X**2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, found = nbad.value_and_grad(in_parallel)(X)
    np.testing.assert_allclose(value, in_parallel(X))
    np.testing.assert_allclose(found, 3 * X**2)
