"""Bad input: a clear error that names the argument, the operation and the source line, and nothing changed afterwards."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.errors import (
    DetachError,
    EscapedTraceError,
    InputTypeError,
    MutationError,
    NonScalarOutputError,
    NoRuleError,
    WrtError,
)

X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])


@contextlib.contextmanager
def refused(
    error: type[Exception] | tuple[type[Exception], ...], *words: str, line: str | None = "# here"
) -> Iterator[None]:
    """Expect an error whose message has the words and a source line of this file; then show that all still works."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    for word in words:
        assert word in message, message
    if line is not None:
        assert re.search(r"test_hostile\.py:\d+: .*" + line, message), message
    assert_usable()


def assert_usable() -> None:
    value, gradient = nbad.value_and_grad(lambda x, y: np.sum(np.exp(x) * y))(X, Y)
    assert value == np.sum(np.exp(X) * Y)
    np.testing.assert_allclose(gradient, np.exp(X) * Y, rtol=1e-14)


# What is asked for --------------------------------------------------------------------------------
def test_output_of_several_elements() -> None:
    with refused(NonScalarOutputError, "grad", "shape (3,)", ".sum()", "nbad.vjp"):
        nbad.grad(lambda x: x * 2.0)(X)  # here


def test_output_that_is_complex_or_an_integer() -> None:
    with refused(NonScalarOutputError, "value_and_grad", "complex128", "real part"):
        nbad.value_and_grad(lambda x: np.sum(x * 1j))(X)  # here
    with refused(NonScalarOutputError, "grad", "no derivative"):
        nbad.grad(lambda x: np.argmax(x))(X)  # here


@pytest.mark.parametrize("value", [np.arange(3), np.array([True, False]), np.arange(3, dtype=np.uint8)])
def test_integer_and_boolean_arrays_asked_for(value: np.ndarray) -> None:
    with refused(InputTypeError, "grad", "respect to x", str(value.dtype), "astype(np.float64)"):
        nbad.grad(lambda x: np.sum(x * 1.0))(value)  # here


def test_integer_and_boolean_numbers_asked_for() -> None:
    with refused(InputTypeError, "grad", "respect to x", "Python int", "float(x)"):
        nbad.grad(lambda x: x * 1.0)(3)  # here
    with refused(InputTypeError, "vjp", "respect to x", "Python bool"):
        nbad.vjp(lambda x: x * 1.0, True)  # here


def test_an_integer_leaf_of_a_container_is_named() -> None:
    with refused(InputTypeError, "respect to params.layers[0].n", "int64"):
        nbad.grad(lambda params: params["x"])({"x": 1.0, "layers": [{"n": np.arange(3)}]})  # here
    assert (
        nbad.grad(lambda params: params["x"], "params.x")({"x": 1.0, "layers": [{"n": np.arange(3)}]}) == 1.0
    )


STRUCTURED = np.zeros(3, [("a", "f8")])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ma.masked_array([1.0, 2.0], [True, False]), ["masked", "filled"]),
        (np.ones((1, 2)).view(np.matrix), ["np.matrix", "np.asarray"]),
        (STRUCTURED, ["structured", "x['name']"]),
        (np.array([1.0, None]), ["objects", "astype"]),
        (np.array(["a"]), ["dtype <U1"]),
        (np.ones(2, np.longdouble), ["float64"]),
        (np.ones(2, np.float16), ["float16"]),
        ("text", ["str"]),
        ({1.0, 2.0}, ["set"]),
    ],
)
def test_arrays_of_other_kinds_asked_for(value: Any, words: list[str]) -> None:
    with refused(InputTypeError, "respect to x", *words):
        nbad.grad(lambda x: np.sum(x))(value)  # here


def test_unknown_wrt() -> None:
    with refused(WrtError, "'z'", "x, y"):
        nbad.grad(lambda x, y: np.sum(x), "z")(X, Y)  # here
    with refused(WrtError, "position 5", "0, 1"):
        nbad.grad(lambda x, y: np.sum(x), 5)(X, Y)  # here
    with refused(WrtError, "'c'", "Existing keys in p: a, b"):
        nbad.grad(lambda p: p["a"], "p.c")({"a": 1.0, "b": 2.0})  # here
    with refused(WrtError, "p.a is a leaf"):
        nbad.vjp(lambda p: p["a"], {"a": 1.0}, wrt="p.a.b")  # here


def test_an_argument_that_was_not_passed() -> None:
    with refused(WrtError, "'y'", "was not passed"):
        nbad.grad(lambda x, y: x, "y")(1.0)  # here


def test_a_container_that_contains_itself() -> None:
    loop: list[Any] = [1.0]
    loop.append(loop)
    with refused(InputTypeError, "contain itself"):
        nbad.grad(lambda x: x[0])(loop)  # here


# Operands -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False]), ["masked"]),
        (np.ones((1, 3)).view(np.matrix), ["np.matrix"]),
        (STRUCTURED, ["structured"]),
        (np.array([1.0, None, 2.0]), ["objects"]),
    ],
)
@pytest.mark.parametrize(
    "operation",
    [
        lambda x, other: x * other,
        lambda x, other: other * x,
        np.multiply,
        lambda x, other: np.arctan2(other, x),
    ],
)
def test_arrays_of_other_kinds_as_operands(other: Any, words: list[str], operation: Any) -> None:
    def f(x: Any) -> Any:
        return np.sum(operation(x, other))

    # A masked array on the left of an operator asks for np.asarray(x) before we are asked.
    with refused((InputTypeError, DetachError), line="lambda|operation"):
        nbad.grad(f)(X)
    if operation is np.multiply:
        with refused(InputTypeError, *words, line="operation"):
            nbad.grad(f)(X)


def test_the_line_of_a_bad_operand_is_named() -> None:
    mask = np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False])

    def f(x: Any) -> Any:
        return np.sum(x * mask)  # here

    with refused(InputTypeError, "masked"):
        nbad.grad(f)(X)


def test_strings_and_dates_as_operands() -> None:
    for other in ("text", np.array(["a", "b", "c"]), np.array(["2020-01-01"] * 3, "M8[D]")):
        with refused(TypeError, line=None):
            nbad.grad(lambda x: np.sum(x * other))(X)  # noqa: B023


def test_shapes_that_do_not_broadcast() -> None:
    def f(x: Any) -> Any:
        return np.sum(x * np.ones(4))

    with refused(ValueError, "(3,)", "(4,)", line=None):
        nbad.grad(f)(X)
    for bad in (
        lambda x: x @ np.ones(4),
        lambda x: x.reshape(2, 2),
        lambda x: np.concatenate([x, np.ones((1, 3))]),
    ):
        with refused(ValueError, line=None):
            nbad.grad(lambda x: np.sum(bad(x)))(X)  # noqa: B023


# Operations without a rule ------------------------------------------------------------------------
def test_a_function_without_a_rule() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.union1d(x, Y))  # here

    with refused(NoRuleError, "union1d", "np.sort", "nbad.primitive", "stop_gradient"):
        nbad.grad(f)(X)


def test_a_foreign_ufunc_without_a_rule() -> None:
    special = pytest.importorskip("scipy.special")

    def f(x: Any) -> Any:
        return np.sum(special.kolmogorov(x))  # here

    with refused(NoRuleError, "kolmogorov", "nbad.primitive"):
        nbad.grad(f)(X)


def test_a_ufunc_method_without_a_rule() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.hypot.reduceat(x, [0, 1]))  # here

    with refused(NoRuleError, "hypot.reduceat"):
        nbad.grad(f)(X)


def test_options_of_ufuncs_without_a_rule() -> None:
    buffer = np.zeros(3)

    def into(x: Any) -> Any:
        return np.sum(np.multiply(x, 2.0, out=buffer))  # here

    def where(x: Any) -> Any:
        return np.sum(np.multiply(x, 2.0, where=X > 1))  # here

    with refused(NoRuleError, "multiply", "out="):
        nbad.grad(into)(X)
    with refused(NoRuleError, "multiply", "where=", "np.where"):
        nbad.grad(where)(X)
    np.testing.assert_array_equal(buffer, np.zeros(3))


def test_writing_into_a_traced_value() -> None:
    def f(x: Any) -> Any:
        x[0] = 2.0  # here
        return np.sum(x)

    x = X.copy()
    with refused(NoRuleError, "in place", "y = x.copy()"):
        nbad.grad(f)(x)
    np.testing.assert_array_equal(x, X)


# What would drop the derivative -------------------------------------------------------------------
DETACHING = {
    "float": float,
    "int": int,
    "complex": complex,
    "math.exp": math.exp,
    "math.floor": math.floor,
    "range": range,
    "index": lambda x: [1, 2, 3][x],
    "np.asarray": np.asarray,
    "np.array": np.array,
    "np.array of a list": lambda x: np.array([x, x]),
    "np.ascontiguousarray": np.ascontiguousarray,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "tobytes": lambda x: x.tobytes(),
    "np.float64": np.float64,
    "view": lambda x: x.view(np.int64),
    "random": lambda x: np.random.default_rng(0).normal(x),
}


@pytest.mark.parametrize("action", DETACHING.values(), ids=DETACHING.keys())
@pytest.mark.parametrize("value", [2.0, np.array(2.0), np.array([2.0])], ids=["float", "0-d", "1-d"])
def test_conversions_that_would_drop_the_derivative(action: Any, value: Any) -> None:
    def f(x: Any) -> Any:
        action(x)  # here
        return np.sum(x)

    # The line of the function, or of the lambda in the list above.
    with refused(DetachError, "drop the derivative", "nbad.stop_gradient", line="(# here|lambda)"):
        nbad.grad(f)(value)


def test_storing_into_a_plain_array() -> None:
    out = np.zeros(3)

    def one(x: Any) -> Any:
        out[0] = np.sum(x)  # here
        return np.sum(out)

    def many(x: Any) -> Any:
        out[:] = x  # here
        return np.sum(out)

    def listed(x: Any) -> Any:
        out[:] = [np.sum(x), 0.0, 1.0]  # here
        return np.sum(out)

    for f in (one, many, listed):
        with refused(DetachError, "plain ndarray"):
            nbad.grad(f)(X)
    np.testing.assert_array_equal(out, np.zeros(3))


def test_in_place_operators_on_a_plain_array() -> None:
    out = np.zeros(3)

    def f(x: Any) -> Any:
        local = out
        local += x  # here
        return np.sum(local)

    with refused(NoRuleError, "in-place", "y = y + x"):
        nbad.grad(f)(X)
    np.testing.assert_array_equal(out, np.zeros(3))


def test_in_place_operators_on_an_argument() -> None:
    x = X.copy()

    def g(x: Any) -> Any:
        x += 1.0  # here
        return np.sum(x)

    with refused(NoRuleError, "in place", "y = x.copy()"):
        nbad.grad(g)(x)

    def f(x: Any) -> Any:
        y = x.copy()
        y += 1.0
        y *= x
        return np.sum(y)

    np.testing.assert_allclose(nbad.grad(f)(x), 2 * X + 1)
    np.testing.assert_array_equal(x, X)


def test_a_traced_value_is_no_key() -> None:
    with refused(TypeError, "unhashable", line=None):
        nbad.grad(lambda x: {x: 1})(X)


# Arrays changed before the sweep ------------------------------------------------------------------
def test_an_input_changed_inside_the_function() -> None:
    x = X.copy()

    def f(t: Any) -> Any:
        y = t * t  # here
        x[0] = 99.0
        return np.sum(y)

    with refused(MutationError, "changed", "copy()"):
        nbad.grad(f)(x)


def test_a_constant_changed_inside_the_function() -> None:
    c = Y.copy()

    def f(x: Any) -> Any:
        y = x * c  # here
        c[0] = 99.0
        return np.sum(y)

    with refused(MutationError, "changed"):
        nbad.grad(f)(X)


def test_a_view_of_an_input_changed_through_its_owner() -> None:
    x = X.copy()

    def f(t: Any) -> Any:
        y = t[1:]
        z = np.sum(y * y)  # here
        x[2] = 99.0
        return z

    with refused(MutationError, "changed"):
        nbad.grad(f)(x)


def test_a_view_given_as_input_changed_through_its_owner() -> None:
    base = np.arange(8.0)

    def f(t: Any) -> Any:
        y = np.sin(t)  # here
        base[2] = 99.0
        return np.sum(y)

    with refused(MutationError, "changed"):
        nbad.grad(f)(base[::2])
    base = np.arange(8.0)

    def untouched(t: Any) -> Any:
        y = np.sin(t)
        base[3] = 99.0  # not an element of the view
        return np.sum(y)

    np.testing.assert_allclose(nbad.grad(untouched)(base[::2]), np.cos([0.0, 2.0, 4.0, 6.0]))


def test_a_view_of_a_constant_changed_through_its_owner() -> None:
    c = np.arange(6.0)

    def f(x: Any) -> Any:
        y = np.sum(x * c[:3])  # here
        c[1] = 99.0
        return y

    with refused(MutationError, "changed"):
        nbad.grad(f)(X)


@pytest.mark.parametrize("size", [3, 1000, 200_000])
def test_arrays_of_every_size_are_watched(size: int) -> None:
    c = np.ones(size)

    def f(x: Any) -> Any:
        y = np.sum(x * c)  # here
        c[-1] = 1.0 + 1e-15
        return y

    with refused(MutationError, "changed"):
        nbad.grad(f)(np.ones(size))


def test_a_sign_of_zero_is_a_change() -> None:
    c = np.zeros(3)

    def f(x: Any) -> Any:
        y = np.sum(x * c)  # here
        c[0] = -0.0
        return y

    with refused(MutationError, "changed"):
        nbad.grad(f)(X)


def test_changed_between_vjp_and_its_pullback() -> None:
    x, c = X.copy(), Y.copy()
    _, pullback = nbad.vjp(lambda x: np.sin(x) * c, x)  # here
    x[0] = 99.0
    with refused(MutationError, "changed"):
        pullback(np.ones(3))
    x[0] = X[0]
    np.testing.assert_allclose(pullback(np.ones(3)), np.cos(X) * Y)
    c[0] = 99.0
    with refused(MutationError, "changed"):
        pullback(np.ones(3))


def test_a_value_that_vjp_returned_is_changed() -> None:
    value, pullback = nbad.vjp(lambda x: np.exp(x), X)  # here
    value[0] = 99.0
    with refused(MutationError, "changed"):
        pullback(np.ones(3))


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y[1:],
        lambda y: y.T,
        lambda y: y.reshape(3, 2),
        lambda y: y[0],
        lambda y: np.broadcast_to(y, (2, 2, 3)),
        lambda y: y.ravel(),
    ],
)
def test_a_view_of_a_kept_value_that_vjp_returned_is_changed(view: Any) -> None:
    def f(x: Any) -> Any:
        y = np.exp(x)  # here
        return view(y)

    x = np.arange(6.0).reshape(2, 3)
    value, pullback = nbad.vjp(f, x)
    if not value.flags.writeable:
        value = value.base
    value[...] = 99.0
    with refused(MutationError, "changed"):
        pullback(np.ones_like(view(x)))


def test_aux_of_vjp_is_changed() -> None:
    def f(x: Any) -> Any:
        y = np.exp(x)  # here
        return np.sum(y), {"y": y}

    _, pullback, aux = nbad.vjp(f, X, has_aux=True)
    aux["y"][0] = 99.0
    with refused(MutationError, "changed"):
        pullback(1.0)


def test_changes_of_what_no_pullback_reads_are_fine() -> None:
    x, c, d = X.copy(), Y.copy(), Y.copy()

    def f(t: Any, unasked: Any) -> Any:
        y = np.sum((t + d) * c) + np.sum(unasked * d)  # reads c only
        d[0] = 99.0
        x[0] = 99.0
        return y

    np.testing.assert_array_equal(nbad.grad(f)(x, X), Y)


def test_changes_before_the_array_is_used_are_fine() -> None:
    c = np.zeros(3)

    def f(x: Any) -> Any:
        c[:] = Y
        return np.sum(x * c)

    np.testing.assert_array_equal(nbad.grad(f)(X), Y)


def test_a_constant_without_dimensions_is_taken_by_value() -> None:
    c = np.array(2.0)

    def f(x: Any) -> Any:
        y = np.sum(x * c)
        c[...] = 99.0
        return y

    np.testing.assert_array_equal(nbad.grad(f)(X), np.full(3, 2.0))


def test_changes_after_the_call_are_fine() -> None:
    x = X.copy()
    gradient = nbad.grad(lambda x: np.sum(x * x))(x)
    x[:] = 0.0
    np.testing.assert_array_equal(gradient, 2 * X)


def test_the_check_can_be_switched_off() -> None:
    c = Y.copy()

    def f(x: Any) -> Any:
        y = np.sum(x * c)  # here
        c[0] = 99.0
        return y

    with nbad.config(mutation_check=False):
        np.testing.assert_array_equal(nbad.grad(f)(X), [99.0, Y[1], Y[2]])
    c[:] = Y
    with refused(MutationError):
        nbad.grad(f)(X)


def test_an_array_changed_under_a_nested_gradient() -> None:
    c = Y.copy()

    def f(x: Any) -> Any:
        y = np.sum(x * x * c)  # here
        c[0] = 99.0
        return y

    with refused(MutationError, "changed"):
        nbad.grad(lambda x: np.sum(nbad.grad(f)(x)))(X)


def test_an_array_changed_under_a_users_rule() -> None:
    def of_x(g, c):
        return g * c

    @nbad.primitive(x=of_x)
    def times(x, c):
        return x * c

    c = Y.copy()

    def f(x: Any) -> Any:
        y = np.sum(times(x, c))  # here
        c[0] = 99.0
        return y

    with refused(MutationError, "changed"):
        nbad.grad(f)(X)


# Traced values that outlive their call ------------------------------------------------------------
LEAKED: list[Any] = []


def leak(x: Any) -> Any:
    LEAKED.append(x * 2.0)
    return np.sum(x)


USES = {
    "operator": lambda t: t + 1.0,
    "reflected": lambda t: 1.0 - t,
    "unary": lambda t: -t,
    "ufunc": np.sin,
    "function": np.sum,
    "method": lambda t: t.sum(),
    "index": lambda t: t[0],
    "comparison": lambda t: t > 1.0,
    "with an array": lambda t: X * t,
    "with itself": lambda t: t * t,
    "constant function": np.argmax,
    "stop_gradient": nbad.stop_gradient,
    "truth": lambda t: bool(t[:1] > 0),
    "format": lambda t: f"{t}",
    "primitive": lambda t: nbad.convolve(t, X),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_traced_value_used_after_its_call(use: Any) -> None:
    LEAKED.clear()
    nbad.grad(leak)(X)
    with refused(EscapedTraceError, "has already ended", "has_aux=True", line="(# here|lambda)"):
        use(LEAKED[0])  # here


def test_a_traced_value_used_inside_another_call() -> None:
    LEAKED.clear()
    nbad.grad(leak)(X)

    def f(x: Any) -> Any:
        return np.sum(x * LEAKED[0])  # here

    with refused(EscapedTraceError, "has already ended"):
        nbad.grad(f)(X)


def test_a_traced_value_passed_to_another_call() -> None:
    LEAKED.clear()
    nbad.grad(leak)(X)
    with refused(EscapedTraceError, "has already ended"):
        nbad.grad(lambda x: np.sum(x * x))(LEAKED[0])  # here


def test_a_value_of_an_inner_call_used_in_the_outer_one() -> None:
    def f(x: Any) -> Any:
        LEAKED.clear()
        nbad.grad(leak)(x)
        return np.sum(x * LEAKED[0])  # here

    with refused(EscapedTraceError, "has already ended"):
        nbad.grad(f)(X)


def test_a_value_that_escapes_from_vjp() -> None:
    LEAKED.clear()
    _, pullback = nbad.vjp(leak, X)
    with refused(EscapedTraceError):
        LEAKED[0] * 2.0  # here
    np.testing.assert_array_equal(pullback(1.0), np.ones(3))


def test_a_value_that_escapes_from_a_call_that_failed() -> None:
    LEAKED.clear()

    def f(x: Any) -> Any:
        leak(x)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nbad.grad(f)(X)
    with refused(EscapedTraceError):
        LEAKED[0] * 2.0  # here


def test_an_escaped_value_can_be_looked_at() -> None:
    LEAKED.clear()
    nbad.grad(leak)(X)
    assert "Traced" in repr(LEAKED[0])
    assert LEAKED[0].shape == (3,)
    assert LEAKED[0].dtype == np.float64


# NaN and inf --------------------------------------------------------------------------------------
def test_nan_stays_where_it_is() -> None:
    x = np.array([1.0, np.nan, 3.0])
    value, gradient = nbad.value_and_grad(lambda x: np.sum(np.exp(x) * x))(x)
    assert math.isnan(value)
    np.testing.assert_allclose(gradient, np.exp(x) * (1 + x))
    assert np.isfinite(gradient[[0, 2]]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_inf_comes_out_as_in_numpy() -> None:
    x = np.array([0.0, 1.0, np.inf, -1.0])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(np.log(x)))(x), 1 / x)
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(np.sqrt(x)))(x), 0.5 / np.sqrt(x))
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(1.0 / x))(x), -1 / (x * x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_of_the_branch_not_taken_and_the_double_where_idiom() -> None:
    x = np.array([-1.0, 4.0])
    safe = nbad.grad(lambda x: np.sum(np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0)))(x)
    np.testing.assert_array_equal(safe, [0.0, 0.25])


def test_nan_cotangents_flow() -> None:
    _, pullback = nbad.vjp(lambda x: x * 2.0, X)
    np.testing.assert_array_equal(pullback(np.array([np.nan, 1.0, np.inf])), [np.nan, 2.0, np.inf])


def test_a_nan_loss_is_no_error() -> None:
    value, gradient = nbad.value_and_grad(lambda x: np.sum(x) * np.nan)(X)
    assert math.isnan(value)
    assert np.isnan(gradient).all()


def test_empty_arrays() -> None:
    value, gradient = nbad.value_and_grad(lambda x: np.sum(np.exp(x) * x))(np.zeros((0, 4)))
    assert value == 0.0
    assert gradient.shape == (0, 4)
