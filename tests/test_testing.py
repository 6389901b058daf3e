"""The checks that users call."""

from typing import Any

import numpy as np
import pytest

import nbad
from nbad.errors import InputTypeError, WrtError
from nbad.testing import assert_only, check_grads

RNG = np.random.default_rng(5)
X, Y = RNG.uniform(0.5, 1.5, 6), RNG.uniform(0.5, 1.5, 6)
Z = RNG.normal(size=4) + 1j * RNG.normal(size=4)


def wrong_x(g, x):
    return 1.001 * g * x


@nbad.primitive(x=wrong_x)
def almost_half_square(x):
    return np.asarray(0.5 * x * x)


def right_x(g, x):
    return halved(2.0 * g * x)


def halved_x(g):
    return 0.51 * g


@nbad.primitive(x=halved_x)
def halved(x):
    return np.asarray(0.5 * x)


@nbad.primitive(x=right_x)
def wrong_at_second_order(x):
    return np.asarray(0.5 * x * x)


# check_grads --------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [1, 2, 3])
def test_right_gradients_pass(order: int) -> None:
    check_grads(lambda x, y: np.exp(x) * np.sin(y) / x, (X, Y), order=order)


def test_scalars_and_numbers_pass() -> None:
    check_grads(lambda x: np.sin(x) * x, (0.7,), order=3)
    check_grads(lambda x: x * x, (np.float64(0.7),))
    check_grads(lambda z: z * z, (1.0 + 2.0j,))


def test_complex_functions_pass() -> None:
    check_grads(lambda z: np.exp(z) * z, (Z,))
    check_grads(lambda z: np.abs(z) ** 2, (Z,))
    check_grads(lambda z, x: np.conj(z) * x, (Z, X[:4]))


def test_single_precision_passes() -> None:
    check_grads(lambda x: np.sin(x) * x, (X.astype(np.float32),))
    check_grads(lambda z: z * z, (Z.astype(np.complex64),))


def test_containers_pass() -> None:
    def f(params: Any, y: Any) -> Any:
        return {"a": params["x"] * y, "b": [np.sin(params["t"][0]), params["x"]]}

    check_grads(f, ({"x": X, "t": (0.3, 0.4)}, Y))
    check_grads(f, ({"x": X, "t": (0.3, 0.4)}, Y), wrt="params.t")


def test_functions_that_are_flat_pass() -> None:
    check_grads(lambda x: np.floor(x), (X + 0.01,))


def test_a_point_of_large_or_small_numbers_passes() -> None:
    check_grads(lambda x: np.log(x), (X * 1e12,))
    check_grads(lambda x: np.log(x), (X * 1e-12,))


def test_a_wrong_gradient_fails_and_is_named() -> None:
    with pytest.raises(AssertionError) as caught:
        check_grads(lambda x, y: almost_half_square(x) * y, (X, Y))
    message = str(caught.value)
    assert "order 1" in message
    assert "with respect to x" in message
    assert "by finite differences" in message
    assert "by the pullback" in message


def test_the_wrong_leaf_is_named() -> None:
    def f(params: Any) -> Any:
        return params["good"] * almost_half_square(params["bad"])

    with pytest.raises(AssertionError, match=r"with respect to params\.bad"):
        check_grads(f, ({"good": X, "bad": Y},))
    check_grads(f, ({"good": X, "bad": Y},), wrt="params.good")


def test_a_tolerance_decides() -> None:
    check_grads(almost_half_square, (X,), rtol=1e-2)
    with pytest.raises(AssertionError, match="allowed"):
        check_grads(almost_half_square, (X,), rtol=1e-5)


def test_a_wrong_second_order_fails_at_order_two() -> None:
    check_grads(wrong_at_second_order, (X,), order=1)
    with pytest.raises(AssertionError, match="order 2 of wrong_at_second_order"):
        check_grads(wrong_at_second_order, (X,), order=2)


def test_a_gradient_that_is_not_a_number_fails() -> None:
    def rule(g, x):
        return g * np.nan

    @nbad.primitive(x=rule)
    def broken(x):
        return x * x

    with pytest.raises(AssertionError, match="nan"):
        check_grads(broken, (X,), order=1)


def test_a_function_that_behaves_otherwise_when_traced_fails() -> None:
    def f(x: Any) -> Any:
        return x * 2.0 if isinstance(x, np.ndarray) else x * 3.0

    with pytest.raises(AssertionError, match="other values when it is traced"):
        check_grads(f, (X,))

    def g(x: Any) -> Any:
        return x * 2.0 if isinstance(x, np.ndarray) else [x]

    with pytest.raises(AssertionError, match="another container"):
        check_grads(g, (X,))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="tuple"):
        check_grads(np.sin, X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order"):
        check_grads(np.sin, (X,), order=0)
    with pytest.raises(InputTypeError):
        check_grads(lambda x, n: x * n, (X, 3))
    check_grads(lambda x, n: x * n, (X, 3), wrt="x")
    with pytest.raises(WrtError):
        check_grads(lambda x: x, (X,), wrt="z")


def test_arguments_are_not_changed() -> None:
    x = X.copy()
    check_grads(lambda x: x * x, (x,))
    np.testing.assert_array_equal(x, X)


# assert_only --------------------------------------------------------------------------------------
RULES = {("multiply", "a"): 1, ("sum_all", "x"): 1}


def product(a: Any, b: Any) -> Any:
    return np.sum(a * b)


def test_right_counts_pass_and_give_the_account() -> None:
    account = assert_only(product, X, Y, fft=0, pullbacks=2, kept=0, borrowed=Y.nbytes, rules=RULES)
    assert account.run("multiply", "a") == 1
    assert account.skipped("multiply", "b") == 1
    assert account.sweeps == 1


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"fft": 1}, "FFTs: 1 expected, 0 found"),
        ({"pullbacks": 3}, "pullbacks: 3 expected, 2 found"),
        ({"kept": 8}, "bytes kept: 8 expected, 0 found"),
        ({"borrowed": 0}, f"bytes borrowed: 0 expected, {Y.nbytes} found"),
        ({"rules": {("multiply", "a"): 1}}, "pullbacks of sum_all for x: 0 expected, 1 found"),
        ({"rules": {**RULES, ("multiply", "b"): 1}}, "pullbacks of multiply for b: 1 expected, 0 found"),
    ],
)
def test_wrong_counts_fail(wrong: Any, text: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_only(product, X, Y, **wrong)
    assert text in str(caught.value)
    assert "product with wrt=0" in str(caught.value)
    assert "pullbacks run" in str(caught.value)  # the account


def test_all_wrong_counts_are_listed() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_only(product, X, Y, fft=1, pullbacks=3)
    assert "FFTs" in str(caught.value)
    assert "pullbacks: 3" in str(caught.value)


def test_what_is_not_given_is_not_compared() -> None:
    assert assert_only(product, X, Y).pullbacks == 2


def test_wrt_is_as_everywhere() -> None:
    assert_only(product, X, Y, wrt="b", rules={("multiply", "b"): 1, ("sum_all", "x"): 1})
    both = {("multiply", "a"): 1, ("multiply", "b"): 1, ("sum_all", "x"): 1}
    assert_only(product, X, Y, wrt=(0, 1), rules=both)
    assert_only(lambda p: np.sum(p["a"] * p["b"]), {"a": X, "b": Y}, wrt="p.a", rules=RULES)


def test_outputs_of_any_kind() -> None:
    assert_only(lambda x: [np.sin(x), (x * 2.0, None)], X, pullbacks=2)
    assert_only(lambda x: np.sin(x), 0.5, pullbacks=1)
    assert_only(lambda z: z * z, Z, pullbacks=2)


def test_it_nests_in_a_report() -> None:
    with nbad.report() as outer:
        assert_only(product, X, Y, pullbacks=2)
        assert_only(product, X, Y, pullbacks=2)
    assert outer.pullbacks == 4
