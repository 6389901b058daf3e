"""Traced values: promotion as in NumPy, weak scalars, ndarray's attributes and methods, what comes out plain."""

import copy
import itertools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.errors import NbadError, NoRuleError
from nbad.trace import Traced, is_traced

X = np.array([[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]])
DTYPES = ["f4", "f8", "c8", "c16"]


def traced(action: Callable[[Any], Any], value: Any = X) -> Any:
    """Return what `action` gives for a traced value; traced results come out plain."""
    seen = []

    def f(x: Any) -> Any:
        result = action(x)
        seen.append(is_traced(result))
        return result

    result, _ = nbad.vjp(f, value)
    return result, seen[0]


def same(a: Any, b: Any) -> None:
    """Compare kind, dtype, shape and bits."""
    assert np.shape(a) == np.shape(b)
    assert np.result_type(a) == np.result_type(b)
    np.testing.assert_array_equal(a, b)


# Promotion ----------------------------------------------------------------------------------------
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
OTHERS = [
    2,
    2.5,
    1 + 2j,
    True,
    np.float32(2),
    np.float64(2),
    np.int8(2),
    np.int64(2),
    np.complex64(2j),
    np.array(2.0),
    np.array(2.0, "f4"),
    np.array([1, 2, 3]),
    np.array([1, 2, 3], "i2"),
    np.array([True, False, True]),
    np.array([1.0, 2.0, 3.0], "f4"),
    np.array([1.0, 2.0, 3.0]),
    np.array([1j, 2.0, 3.0], "c8"),
    np.array([0.5, 2.0], "f2").reshape(2, 1),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OPERATORS)
def test_promotion_of_operators_is_numpys(dtype: str, function: Any) -> None:
    x = X.astype(dtype)
    for other in OTHERS:
        for swapped in (False, True):

            def act(x: Any) -> Any:
                return function(other, x) if swapped else function(x, other)  # noqa: B023

            result, was_traced = traced(act, x)
            assert was_traced
            same(result, act(x))


@pytest.mark.parametrize("function", [np.add, np.multiply, np.arctan2, np.maximum])
def test_promotion_of_ufuncs_is_numpys(function: Any) -> None:
    dtypes = ["f4", "f8"] if function is np.arctan2 else DTYPES
    for a, b in itertools.product(dtypes, dtypes):
        y = (X + 1).astype(b)
        result, was_traced = traced(lambda x: function(x, y), X.astype(a))  # noqa: B023
        assert was_traced
        same(result, function(X.astype(a), y))


def test_two_traced_operands_promote_as_in_numpy() -> None:
    for a, b in itertools.product(DTYPES, DTYPES):
        x, y = X.astype(a), (X + 1).astype(b)
        value, pullback = nbad.vjp(lambda x, y: x * y, x, y)
        same(value, x * y)
        gx, gy = pullback(np.ones_like(value))
        assert (gx.dtype, gy.dtype) == (x.dtype, y.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_python_scalars_are_weak(dtype: str) -> None:
    x = X.astype(dtype)
    for act in (
        lambda x: x * 2.0,
        lambda x: 1 + x,
        lambda x: (x - 0.5) ** 2,
        lambda x: 2 / x,
        lambda x: np.multiply(3.0, x),
    ):
        assert traced(act, x)[0].dtype == x.dtype


def test_python_scalars_stay_weak_when_they_are_traced() -> None:
    x32 = X.astype("f4")
    assert nbad.vjp(lambda a: x32 * a, 2.0)[0].dtype == np.float32
    assert nbad.vjp(lambda a: x32 * (a * 2 + 1) / 3.0, 2.0)[0].dtype == np.float32
    assert nbad.vjp(lambda a: x32 * abs(-a), 2.0)[0].dtype == np.float32
    # what a NumPy function makes of it is a NumPy scalar, as always
    assert nbad.vjp(lambda a: x32 * np.sin(a), 2.0)[0].dtype == (x32 * np.sin(2.0)).dtype
    assert type(nbad.vjp(lambda a: a * 2 + 1, 2.0)[0]) is float
    assert type(nbad.vjp(lambda a: a * 2j, 2.0)[0]) is complex
    assert type(nbad.vjp(lambda a: a * True, 2.0)[0]) is float
    assert nbad.vjp(lambda a: X.astype("c8") * (2j * a), 2.0)[0].dtype == np.complex64


def test_python_scalars_of_two_levels_stay_weak() -> None:
    def outer(a: Any) -> Any:
        def inner(b: Any) -> Any:
            product = a * b + b * a
            assert (X.astype("f4") * product).dtype == np.float32
            return product * b

        return nbad.grad(inner)(3.0)  # 4 a b

    assert nbad.grad(outer)(2.0) == 12.0
    assert type(nbad.grad(outer)(2.0)) is float


def test_dtype_of_a_traced_scalar() -> None:
    seen = []
    nbad.grad(lambda a: seen.append((a.dtype, a.shape, a.ndim, a.size)) or a * 2.0)(2.0)
    assert seen == [(np.float64, (), 0, 1)]


# Attributes and methods ---------------------------------------------------------------------------
def test_attributes() -> None:
    def f(x: Any) -> Any:
        for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes"):
            assert getattr(x, name) == getattr(X, name)
        assert len(x) == 2
        return np.sum(x)

    nbad.grad(f)(X)


METHODS: dict[str, Callable[[Any], Any]] = {
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "real": lambda x: x.real,
    "imag": lambda x: x.imag,
    "sum": lambda x: x.sum(),
    "sum axis": lambda x: x.sum(axis=1, keepdims=True),
    "mean": lambda x: x.mean(0),
    "prod": lambda x: x.prod(),
    "max": lambda x: x.max(axis=1),
    "min": lambda x: x.min(),
    "var": lambda x: x.var(axis=0, ddof=1),
    "std": lambda x: x.std(),
    "cumsum": lambda x: x.cumsum(axis=1),
    "cumprod": lambda x: x.cumprod(),
    "reshape": lambda x: x.reshape(3, 2),
    "reshape tuple": lambda x: x.reshape((3, -1)),
    "ravel": lambda x: x.ravel(),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(),
    "transpose axes": lambda x: x.transpose(1, 0),
    "transpose tuple": lambda x: x.transpose((1, 0)),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "squeeze": lambda x: x.reshape(2, 1, 3).squeeze(1),
    "copy": lambda x: x.copy(),
    "astype": lambda x: x.astype(np.float32),
    "clip": lambda x: x.clip(1.0, 2.2),
    "conj": lambda x: x.conj(),
    "conjugate": lambda x: x.conjugate(),
    "dot": lambda x: x.dot(np.ones(3)),
    "diagonal": lambda x: x.diagonal(),
    "trace": lambda x: x.trace(),
    "take": lambda x: x.take([0, 2], axis=1),
    "repeat": lambda x: x.repeat(2, axis=0),
    "matmul": lambda x: x @ np.ones((3, 2)),
    "rmatmul": lambda x: np.ones((4, 2)) @ x,
    "neg": lambda x: -x,
    "pos": lambda x: +x,
    "abs": lambda x: abs(-x),
    "mod": lambda x: x % 0.7,
    "rmod": lambda x: 7.0 % x,
    "iteration": lambda x: [row * 2 for row in x],
    "unpacking": lambda x: (lambda a, b: a * b)(*x),
    "flat": lambda x: sum(x.flat),
    "index": lambda x: x[0, 1],
    "slice": lambda x: x[:, ::-1],
    "mask": lambda x: x[X > 1.2],
    "fancy": lambda x: x[[1, 0, 1]],
    "newaxis": lambda x: x[None, ..., 0],
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "np.copy": np.copy,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_ndarrays_own(name: str) -> None:
    act = METHODS[name]
    value, pullback = nbad.vjp(act, X)
    expected = act(X.copy())
    for got, wanted in zip(nbad.tree.leaves(value), nbad.tree.leaves(expected), strict=True):
        assert np.shape(got) == np.shape(wanted)
        assert np.result_type(got) == np.result_type(wanted)
        np.testing.assert_allclose(got, wanted, rtol=1e-14)
    answer = pullback(nbad.tree.map_leaves(np.ones_like, value))
    assert answer.shape == X.shape


PLAIN: dict[str, Callable[[Any], Any]] = {
    "<": lambda x: x < 1.0,
    "<=": lambda x: x <= 1.0,
    ">": lambda x: x > X,
    ">=": lambda x: x >= 1.0,
    "==": lambda x: x == X,
    "!=": lambda x: x != 1.0,
    "reflected <": lambda x: x > X,
    "reflected ==": lambda x: x == X,
    "np.less": lambda x: np.less(x, 1.0),
    "np.isnan": np.isnan,
    "np.isfinite": np.isfinite,
    "np.floor": np.floor,
    "np.ceil": np.ceil,
    "np.rint": np.rint,
    "np.sign": np.sign,
    "//": lambda x: x // 0.7,
    "reflected //": lambda x: 7.0 // x,
    "round": lambda x: x.round(1),
    "argmax": lambda x: x.argmax(),
    "argmin": lambda x: np.argmin(x, axis=0),
    "argsort": lambda x: x.argsort(),
    "nonzero": lambda x: x.nonzero(),
    "any": lambda x: x.any(),
    "all": lambda x: np.all(x > 0),
    "searchsorted": lambda x: np.searchsorted(x[0], 1.0),
    "astype int": lambda x: x.astype(np.int64),
    "astype bool": lambda x: x.astype(bool),
    "np.shape": np.shape,
    "np.ndim": np.ndim,
    "np.size": np.size,
    "contains": lambda x: 1.5 in x,
    "len": len,
    "zeros_like int": lambda x: np.zeros_like(x, dtype=int),
    "result_type": np.result_type,
    "allclose": lambda x: np.allclose(x, X),
    "count_nonzero": np.count_nonzero,
}


@pytest.mark.parametrize("name", PLAIN)
def test_results_without_a_derivative_are_plain(name: str) -> None:
    act = PLAIN[name]
    seen = []

    def f(x: Any) -> Any:
        seen.append(act(x))
        return np.sum(x)

    np.testing.assert_array_equal(nbad.grad(f)(X), np.ones(X.shape))
    got, expected = seen[0], act(X)
    for one, wanted in zip(nbad.tree.leaves(got), nbad.tree.leaves(expected), strict=True):
        assert not is_traced(one)
        assert type(one) is type(wanted)
        np.testing.assert_array_equal(one, wanted)


def test_truth_and_formatting() -> None:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = x[0, 0]
        seen.extend([bool(y), bool(y - y), f"{y:.2f}", "yes" if y > 0 else "no"])
        seen.append(repr(y))
        return np.sum(x)

    nbad.grad(f)(X)
    assert seen[:4] == [True, False, "0.50", "yes"]
    assert seen[4].startswith("Traced(")


def test_truth_of_several_elements_is_refused_as_in_numpy() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        nbad.grad(lambda x: np.sum(x) if x else 0.0)(X)


def test_iteration_and_length_of_a_number_are_refused_as_in_numpy() -> None:
    for act in (len, iter, list, lambda x: x[0]):
        with pytest.raises((TypeError, IndexError)):
            nbad.grad(lambda x: act(x) and x)(np.array(1.0))  # noqa: B023


def test_augmented_assignment() -> None:
    def f(x: Any) -> Any:
        y = x.copy()
        y += 1.0
        y *= x
        y -= x
        y /= 2.0
        y **= 2
        return np.sum(y)

    value, gradient = nbad.value_and_grad(f)(X)
    assert value == np.sum(((X + 1) * X - X) ** 2 / 4)
    np.testing.assert_allclose(gradient, X**3)


def test_mixing_lists_and_nested_sequences() -> None:
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(x * [1.0, 2.0, 3.0]))(X), [[1.0, 2.0, 3.0]] * 2)
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum([[1.0], [2.0]] * x))(X), [[1.0] * 3, [2.0] * 3])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(np.add((1, 2, 3), x)))(X), np.ones(X.shape))


def test_short_cuts_of_powers_keep_numpys_values() -> None:
    for exponent in (2, 2.0, 1, 0.5, -1, 3, 0, -2.5):
        value, pullback = nbad.vjp(lambda x: x**exponent, X)  # noqa: B023
        same(value, X**exponent)
        np.testing.assert_allclose(pullback(np.ones(X.shape)), exponent * X ** (exponent - 1), rtol=1e-13)


def test_dtype_keyword_of_ufuncs() -> None:
    value, pullback = nbad.vjp(lambda x: np.multiply(x, x, dtype=np.float64), X.astype("f4"))
    assert value.dtype == np.float64
    assert pullback(np.ones(X.shape)).dtype == np.float32


def test_operations_of_two_levels() -> None:
    def outer(x: Any) -> Any:
        def inner(y: Any) -> Any:
            assert y._tape.level > x._tape.level
            z = y * x + x * y + np.sin(x) * y
            assert z._tape is y._tape
            return np.sum(z)

        return np.sum(nbad.grad(inner)(X) ** 2)

    gradient = nbad.grad(outer)(X)
    np.testing.assert_allclose(gradient, 2 * (2 * X + np.sin(X)) * (2 + np.cos(X)))


def test_it_has_priority_over_ndarrays_and_numpy_scalars() -> None:
    def f(x: Any) -> Any:
        for other in (X, np.float64(2.0), np.array(2.0)):
            for function in OPERATORS:
                assert type(function(other, x)) is Traced
                assert type(function(x, other)) is Traced
        return np.sum(x)

    nbad.grad(f)(X)


def test_errors_of_numpy_come_through() -> None:
    for act in (
        lambda x: x.reshape(5, 5),
        lambda x: x[10],
        lambda x: x[0, 0, 0],
        lambda x: x.sum(axis=7),
        lambda x: x @ np.ones(7),
        lambda x: x + np.ones(7),
        lambda x: x.transpose(0, 0),
    ):
        with pytest.raises((ValueError, IndexError)) as caught:
            nbad.grad(lambda x: np.sum(act(x)))(X)  # noqa: B023
        assert not isinstance(caught.value, NbadError)


def test_unknown_attributes_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        nbad.grad(lambda x: x.nonsense)(X)


def test_ufunc_methods() -> None:
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(np.add.reduce(x)))(X), np.ones(X.shape))
    with pytest.raises(NoRuleError, match=r"np\.arctan2\.reduce"):
        nbad.grad(lambda x: np.sum(np.arctan2.reduce(x)))(X)
