"""Reductions: every row and binding under the laws, products with zeros, ties, empty slices, and what is kept."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, Case, Spaced, Uniform, laws

import nbad
from nbad.errors import NoRuleError

S = (3, 4, 2)
#: A mask with something in every slice.
MASK = (np.arange(24).reshape(S) % 5 > 1) | (np.arange(4)[:, None] == 1) | (np.arange(3)[:, None, None] == 2)
AXES = {"all": (None, False), "last kept": (-1, True), "two": ((2, 0), False)}
MORE_AXES = {
    **AXES,
    "all kept": (None, True),
    "first": (0, False),
    "every": ((0, 1, 2), False),
    "none": ((), False),
}


def over_axes(
    name: str, argument: Any, axes: dict[str, Any], more: dict[str, Any], **options: Any
) -> list[Case]:
    """Return the cases of NumPy's function `name` over several axes."""
    function = getattr(np, name)

    def over(axis: Any, keepdims: bool) -> Callable[..., Any]:
        return lambda x: function(x, axis=axis, keepdims=keepdims, **options)

    marks = "".join(f" {key}={value}" for key, value in options.items())
    marks += "".join(f" {dtype}" for dtype in more.get("dtypes", ()))
    return [Case(f"{name}{marks} {text}", over(*how), [argument], **more) for text, how in axes.items()]


def selected(name: str) -> list[Case]:
    """Return the cases of NumPy's function `name` with where=; NumPy's loop under a mask adds in another order."""
    function = getattr(np, name)

    def masked(x: Any) -> Any:
        return function(x, axis=1, keepdims=True, where=MASK)

    def masked_all(x: Any) -> Any:
        return function(x, where=MASK[:, :, :1])

    return [
        Case(f"{name} where", masked, [(S, -2.0, 2.0)], dtypes=("f4", "c16"), exact=False),
        Case(f"{name} where all", masked_all, [(S, -2.0, 2.0)], dtypes=("f4", "c16"), exact=False),
    ]


def without_nan(name: str) -> Case:
    """Return the case of one of NumPy's functions that leave nan out."""
    function = getattr(np, name)
    invalid = np.where(np.eye(3, 4) > 0, np.nan, 0.0).astype(np.float32)

    def called(x: Any) -> Any:
        return function(np.where(np.isnan(invalid), invalid, x), axis=1)

    return Case(name, called, [((3, 4), 0.5, 2.0)], dtypes=("f4", "c16"), exact=False)


def wide(name: str) -> Case:
    """Return the case of a reduction of float32 in float64."""
    function = getattr(np, name)

    def called(x: Any) -> Any:
        return function(x, axis=1, dtype=np.float64)

    return Case(f"{name} dtype", called, [(S, -2.0, 2.0)])


def running(name: str) -> list[Case]:
    """Return the cases of a running sum or product."""
    function = getattr(np, name)

    def over(axis: Any) -> Callable[..., Any]:
        return lambda x: function(x, axis=axis)

    return [
        Case(f"{name} {axis}", over(axis), [((3, 4, 2), -2.0, 2.0)], complex_ok=True)
        for axis in (None, 0, -2)
    ]


def reducing(ufunc: Any, **options: Any) -> Case:
    """Return the case of ``ufunc.reduce``."""

    def reduce(x: Any) -> Any:
        return ufunc.reduce(x, **options)

    picks = ufunc in (np.maximum, np.minimum)
    arguments: list[Any] = [Spaced(S, -2.0, 0.25)] if picks else [(S, -2.0, 2.0)]
    return Case(f"{ufunc.__name__}.reduce {sorted(options)}", reduce, arguments, dtypes=("f4", "f8"))


def with_zeros(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[np.ndarray]:
    """Return rows with no, one and two zeros."""
    x = Uniform((3, 4), 0.5, 2.0)(rng, dtype)
    x[1, 2] = x[2, 0] = x[2, 3] = 0
    return (x,)


def methods(x: Any) -> Any:
    return (
        x.sum(axis=1),
        x.mean(0),
        x.prod(0),
        x.std(),
        x.var(1),
        x.max(),
        x.min(axis=0),
        x.cumsum(0),
        x.cumprod(1),
    )


def initial(x: Any) -> Any:
    return np.sum(x, axis=1, initial=0.5), np.prod(x, axis=(0, 2), initial=1.5)


def initial_extrema(x: Any) -> Any:
    return np.max(x, axis=1, initial=0.125, where=MASK), np.min(x, axis=1, initial=0.125, keepdims=True)


def sum_complex(x: Any) -> Any:
    return np.sum(x, dtype=np.complex128)


def weighted(x: Any, w: Any) -> Any:
    return np.average(x, axis=1, weights=w, keepdims=True)


def weighted_rows(x: Any, w: Any) -> Any:
    return np.average(x, axis=1, weights=w)


def weighted_planes(x: Any, w: Any) -> Any:
    return np.average(x, axis=(2, 1), weights=w, returned=True)


def unweighted(x: Any) -> Any:
    return np.average(x, axis=1)


def given_mean(x: Any, m: Any) -> Any:
    return np.var(x, axis=1, mean=m, keepdims=True), np.std(x, axis=1, mean=m, correction=1)


def accumulate(x: Any) -> Any:
    return np.add.accumulate(x), np.add.accumulate(x, axis=1, dtype=np.complex128), np.multiply.accumulate(x)


def prod_rows(x: Any) -> Any:
    return np.prod(x, axis=1)


def cumprod_rows(x: Any) -> Any:
    return np.cumprod(x, axis=1)


def prod_of_cumprod(x: Any) -> Any:
    return np.prod(np.cumprod(x, axis=0), axis=(1, 0))


NUMBERS = (S, -2.0, 2.0)
SMALL = ((3, 4), -2.0, 2.0)
FREE = {"complex_ok": True}
FEW = {"dtypes": ("f4", "c16")}
#: NumPy divides complex64 by the count in double precision.
ROUNDED = {"exact": False, "dtypes": COMPLEX}

CASES = [
    *over_axes("sum", NUMBERS, MORE_AXES, FREE),
    *over_axes("mean", NUMBERS, AXES, {}),
    *over_axes("mean", NUMBERS, AXES, ROUNDED),
    *over_axes("prod", (S, 0.5, 1.5), MORE_AXES, FREE),
    *over_axes("var", NUMBERS, MORE_AXES, FREE),
    *over_axes("std", NUMBERS, AXES, FEW),
    *over_axes("var", NUMBERS, AXES, FEW, ddof=1),
    *over_axes("std", NUMBERS, AXES, FEW, ddof=0.5),
    *over_axes("max", Spaced(S, -2.0, 0.25), MORE_AXES, FREE),
    *over_axes("min", Spaced(S, -2.0, 0.25), AXES, FEW),
    *over_axes("ptp", Spaced(S, -2.0, 0.25), AXES, FEW),
    *over_axes("amax", Spaced(S, -2.0, 0.25), {"first": (0, False)}, {}),
    *over_axes("amin", Spaced(S, -2.0, 0.25), {"first": (0, False)}, {}),
    *(case for name in ("sum", "prod", "mean", "var", "std") for case in selected(name)),
    *(without_nan(name) for name in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd")),
    *(wide(name) for name in ("sum", "prod", "mean", "var", "std", "cumsum", "cumprod")),
    Case("methods", methods, [Spaced((3, 4), 0.5, 0.125)]),
    Case("initial", initial, [NUMBERS], complex_ok=True, exact=False),
    Case("initial extrema", initial_extrema, [Spaced(S, -2.0, 0.25)]),
    Case("sum dtype complex", sum_complex, [NUMBERS]),
    Case("average", weighted, [NUMBERS, (S, 0.5, 2.0)], complex_ok=True),
    Case("average rows", weighted_rows, [NUMBERS, ((4,), 0.5, 2.0)], complex_ok=True),
    Case("average planes", weighted_planes, [NUMBERS, ((2, 4), 0.5, 2.0)], complex_ok=True),
    Case("average without weights", unweighted, [NUMBERS]),
    Case("given mean", given_mean, [NUMBERS, ((3, 1, 2), 3.0, 4.0)], complex_ok=True),
    *running("cumsum"),
    *running("cumprod"),
    *(reducing(u) for u in (np.add, np.multiply, np.maximum, np.minimum, np.logaddexp)),
    *(
        reducing(u, axis=1, keepdims=True)
        for u in (np.add, np.multiply, np.maximum, np.minimum, np.logaddexp)
    ),
    Case("accumulate", accumulate, [SMALL], complex_ok=True),
    Case("prod with zeros", prod_rows, with_zeros, complex_ok=True),
    Case("cumprod with zeros", cumprod_rows, with_zeros, complex_ok=True),
    Case("prod of cumprod", prod_of_cumprod, [((3, 2), 0.5, 1.5)], complex_ok=True),
    Case("large sum", np.sum, [((8,), -2.0, 2.0)], large=[((1 << 17,), -2.0, 2.0)]),
]

TestLaws = laws(CASES)

REDUCTIONS = [np.sum, np.mean, np.prod, np.max, np.min, np.var, np.std]


# Choices at kinks ---------------------------------------------------------------------------------
def test_products_are_right_where_factors_are_zero() -> None:
    for x, expected in (([1.0, 2, 3], [6.0, 3, 2]), ([0.0, 2, 3], [6.0, 0, 0]), ([0.0, 0, 3], [0.0, 0, 0])):
        assert nbad.grad(np.prod)(np.array(x)).tolist() == expected

    def total(x: Any) -> Any:
        return np.sum(np.cumprod(x))

    for x, expected in (([1.0, 2, 3], [9.0, 4, 2]), ([0.0, 2, 3], [9.0, 0, 0]), ([2.0, 0, 3], [1.0, 8, 0])):
        assert nbad.grad(total)(np.array(x)).tolist() == expected


def test_the_third_derivative_of_a_product_with_zeros() -> None:
    def first(x: Any) -> Any:
        return nbad.grad(np.prod)(x)[0]

    def second(x: Any) -> Any:
        return nbad.grad(first)(x)[1]

    assert nbad.grad(second)(np.zeros(3)).tolist() == [0.0, 0.0, 1.0]


def test_ties_share_equally() -> None:
    x = np.array([[1.0, 3, 3], [2.0, 2, 2]])
    assert nbad.grad(np.max)(x).tolist() == [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]
    assert nbad.vjp(np.min, x)[1](1.0).tolist() == [[1.0, 0, 0], [0, 0, 0]]

    def rows(x: Any) -> Any:
        return np.sum(np.max(x, axis=1))

    assert nbad.grad(rows)(x).tolist() == [[0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]
    assert nbad.grad(rows)(x.astype(np.float32)).dtype == np.float32


def test_a_nan_is_what_max_chose() -> None:
    assert nbad.grad(np.max)(np.array([1.0, np.nan, 3.0])).tolist() == [0.0, 1.0, 0.0]


def test_no_spread_has_gradient_zero() -> None:
    assert nbad.grad(np.std)(np.ones(3)).tolist() == [0.0, 0.0, 0.0]

    def masked(x: Any) -> Any:
        return np.std(x, where=[True, True, False])

    assert nbad.grad(masked)(np.array([1.0, 1.0, 5.0])).tolist() == [0.0, 0.0, 0.0]


def test_too_few_elements_for_a_variance_give_nan_as_in_numpy() -> None:
    def sample(x: Any) -> Any:
        return np.var(x, ddof=1)

    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        value, gradient = nbad.value_and_grad(sample)(np.ones(1))
    assert np.isnan(value) and np.isnan(gradient).all()


def test_logaddexp_of_nothing_but_minus_infinity() -> None:
    value, gradient = nbad.value_and_grad(np.logaddexp.reduce)(np.full(2, -np.inf))
    assert value == -np.inf and gradient.tolist() == [1.0, 1.0]


# Sizes, numbers and dtypes ------------------------------------------------------------------------
@pytest.mark.parametrize("function", [np.sum, np.prod, np.cumsum, np.cumprod])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_arrays_without_elements(function: Callable[..., Any], shape: tuple[int, ...]) -> None:
    for axis in (0, 1):
        value, pullback = nbad.vjp(lambda x, axis=axis: function(x, axis=axis), np.zeros(shape))
        assert value.shape == function(np.zeros(shape), axis=axis).shape
        assert pullback(np.ones(value.shape)).shape == shape


def test_the_start_value_of_an_empty_extremum() -> None:
    def start(x: Any) -> Any:
        return np.sum(x) + np.max(x, axis=1, initial=2.0).sum()

    value, gradient = nbad.value_and_grad(start)(np.zeros((3, 0)))
    assert value == 6.0 and gradient.shape == (3, 0)


@pytest.mark.parametrize("function", REDUCTIONS)
def test_numbers_are_arrays_without_dimensions(function: Callable[..., Any]) -> None:
    slope = 0.0 if function in (np.var, np.std) else 1.0
    assert nbad.value_and_grad(function)(2.0) == (function(2.0), slope)
    for axis in (0, -1, ()):
        if axis == () and function is np.std:
            continue
        value, gradient = nbad.value_and_grad(lambda x, axis=axis: function(x, axis=axis))(np.float32(2.0))
        assert (value.dtype, gradient.dtype, float(gradient)) == (np.float32, np.float32, slope)


def test_a_wider_dtype_gives_a_cotangent_of_the_operands_own() -> None:
    x = np.full(1 << 12, 1.1, np.float32)

    def wide(x: Any) -> Any:
        return np.sum(x, dtype=np.float64)

    value, gradient = nbad.value_and_grad(wide)(x)
    assert value == np.sum(x, dtype=np.float64) and value.dtype == np.float64
    assert gradient.dtype == np.float32


def test_an_integer_dtype_carries_no_derivative() -> None:
    def rounded(x: Any) -> Any:
        return np.sum(x) * np.sum(x, dtype=np.int64)

    assert nbad.grad(rounded)(np.array([1.5, 2.5])).tolist() == [3.0, 3.0]


def test_the_start_value_carries_a_derivative() -> None:
    def started(x: Any, start: Any) -> Any:
        return np.sum(x, initial=start) * np.prod(x, initial=start)

    gradients = nbad.grad(started, wrt=(0, 1))(np.array([2.0, 3.0]), 4.0)
    assert gradients[0].tolist() == [24 + 9 * 12, 24 + 9 * 8]
    assert gradients[1] == 24 + 9 * 6


def test_positions_and_truths_are_plain() -> None:
    def picked(x: Any) -> Any:
        places = (
            np.argmax(x),
            np.argmin(x, axis=0),
            np.count_nonzero(x),
            np.any(x > 1),
            np.all(x, axis=0),
            x.argmax(),
        )
        assert not any(hasattr(place, "_tape") for place in places)
        return x[places[0]]

    assert nbad.grad(picked)(np.array([1.0, 5.0, 2.0])).tolist() == [0.0, 1.0, 0.0]


# What is asked for and what is kept ---------------------------------------------------------------
def test_linear_reductions_keep_nothing() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.mean(np.cumsum(np.sum(x, axis=0), axis=1), axis=1))

    with nbad.report() as account:
        nbad.grad(loss)(np.ones(S))
    assert account.bytes_kept == 0 and account.bytes_borrowed == 0


def test_a_variance_keeps_the_array_and_its_mean() -> None:
    def loss(x: Any) -> Any:
        return np.sum(np.var(x, axis=0))

    with nbad.report() as account:
        nbad.grad(loss)(np.ones((100, 3)))
    # Minimum: the caller's own array, and three means.
    assert (account.bytes_kept, account.bytes_borrowed) == (3 * 8, 300 * 8)


def test_the_weights_of_an_average_are_left_alone() -> None:
    def loss(x: Any, w: Any) -> Any:
        return np.sum(np.average(x, axis=0, weights=w))

    x, w = np.ones((4, 3)), np.arange(1.0, 5.0)
    with nbad.report() as account:
        nbad.grad(loss)(x, w)
    assert account.run("multiply", "a") == 1 and account.run("multiply", "b") == 0
    assert account.run("divide", "b") == 0


def test_the_recurrence_of_a_product_is_run_once_for_both_operands() -> None:
    def first(x: Any) -> Any:
        return np.sum(nbad.grad(lambda x: np.sum(np.cumprod(x)))(x))

    with nbad.report() as account:
        gradient = nbad.grad(first)(np.array([1.0, 2.0, 3.0]))
    assert account.run("recurrence", "a") == 1 and account.run("recurrence", "b") == 0
    # f = a + ab + abc: the sums of the rows of its second derivatives.
    assert gradient.tolist() == [1 + 3 + 2, 1 + 3 + 1, 2 + 1]


# Refusals -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [*REDUCTIONS, np.ptp, np.cumsum, np.cumprod])
def test_an_array_of_the_callers_own_is_refused(function: Callable[..., Any]) -> None:
    out = np.zeros(3)
    with pytest.raises(NoRuleError, match="out="):
        nbad.grad(lambda x: np.sum(function(x, axis=0, out=out)))(np.ones((2, 3)))
    assert out.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("function", [*REDUCTIONS, np.cumsum, np.cumprod])
def test_an_axis_that_does_not_exist(function: Callable[..., Any]) -> None:
    with pytest.raises(np.exceptions.AxisError):
        nbad.grad(lambda x: np.sum(function(x, axis=2)))(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("error", "match", "function"),
    [
        (ValueError, "initial", lambda x: np.max(x, where=[True, False])),
        (ValueError, "zero-size", lambda x: np.max(x[:0])),
        (ValueError, "simultaneously", lambda x: np.var(x, ddof=1, correction=1)),
        (ValueError, "broadcast", lambda x: np.sum(x, where=[True, False, True])),
        (ZeroDivisionError, "sum to zero", lambda x: np.average(x, weights=[1.0, -1.0])),
        (ValueError, "consistent", lambda x: np.average(x, axis=0, weights=[1.0, 1.0, 1.0])),
        (TypeError, "Axis must be specified", lambda x: np.average(x, weights=[1.0, 1.0, 1.0])),
        (ValueError, "reorderable", lambda x: np.logaddexp.reduce(x[None], axis=(0, 1))),
        (NoRuleError, "reduceat", lambda x: np.add.reduceat(x, [0, 1])),
        (NoRuleError, "accumulate", lambda x: np.maximum.accumulate(x)),
    ],
)
def test_what_is_wrong_or_has_no_rule(
    error: type[Exception], match: str, function: Callable[..., Any]
) -> None:
    with pytest.raises(error, match=match):
        nbad.grad(function)(np.ones(2))


def test_the_start_value_of_an_empty_extremum_has_its_derivative() -> None:
    assert nbad.grad(lambda a: np.max(np.zeros_like(a, shape=(0,)), initial=a))(2.0) == 1.0
    assert nbad.grad(lambda a: np.sum(np.min(np.zeros((0, 3), like=a), axis=0, initial=a)))(2.0) == 3.0
