"""``config(nan="raise")`` names the operation, forward or backward, that made the first NaN or infinity."""

import importlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nbad
from nbad import tree
from nbad.errors import NonFiniteError

RULES = pathlib.Path(__file__).parent / "rules"
FAMILIES = sorted(
    file.stem for file in RULES.glob("test_*.py") if "\nCASES" in file.read_text(encoding="utf-8")
)
X = np.array([4.0, 0.0, 1.0])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def raised(run: Callable[[], Any]) -> str:
    with nbad.config(nan="raise"), pytest.raises(NonFiniteError) as caught:
        run()
    return str(caught.value)


# Forward ------------------------------------------------------------------------------------------
def test_the_first_operation_forward_is_named_with_its_line_and_operands() -> None:
    def loss(x: Any) -> Any:
        y = np.exp(x)
        z = x / (x - 1.0)  # the quotient
        return np.sum(y * z - z)

    text = raised(lambda: nbad.grad(loss)(X))
    assert text.startswith("divide made an infinity at index (2,) from 1.0 and 0.0")
    assert "z = x / (x - 1.0)  # the quotient" in text


def test_a_nan_from_infinities_is_made_there() -> None:
    weights = np.array([np.inf, 1.0, 1.0])
    text = raised(lambda: nbad.grad(lambda x: np.sum((x - 4.0) * weights))(X))
    assert text.startswith("multiply made a NaN at index (0,) from 0.0 and inf")


def test_an_operation_that_is_not_elementwise_is_named() -> None:
    text = raised(lambda: nbad.grad(lambda x: np.sum(np.linalg.inv(x)))(np.eye(2) * 1e-320))
    assert text.startswith("inv made a")


def test_python_numbers_are_looked_at() -> None:
    assert raised(lambda: nbad.grad(lambda x: x * 1e308 * 1e10)(2.0)).startswith("multiply made an infinity")


def test_large_arrays_are_looked_at() -> None:
    x = np.ones(1 << 17)
    x[70_000] = 0.0
    text = raised(lambda: nbad.grad(lambda x: np.sum(np.log(x)))(x))
    assert text.startswith("log made an infinity at index (70000,) from 0.0")


# What is not made here ----------------------------------------------------------------------------
def test_a_nan_that_was_given_is_passed_on() -> None:
    x = np.array([np.nan, 2.0])
    with nbad.config(nan="raise"):
        value, gradient = nbad.value_and_grad(lambda x: np.sum(np.where(np.isnan(x), 0.0, x)))(x)
    assert value == 2.0
    np.testing.assert_array_equal(gradient, [0.0, 1.0])


def test_a_given_nan_does_not_hide_an_infinity_that_is_made_elsewhere() -> None:
    text = raised(lambda: nbad.grad(lambda x: np.sum(1.0 / x))(np.array([np.nan, 0.0])))
    assert text.startswith("divide made an infinity at index (1,)")


def test_without_the_setting_nothing_is_raised() -> None:
    assert np.isinf(nbad.grad(lambda x: np.sum(np.sqrt(x)))(X)[1])


# Backward -----------------------------------------------------------------------------------------
def test_the_first_pullback_is_named_with_the_line_of_its_operation() -> None:
    def loss(x: Any) -> Any:
        root = np.sqrt(x)  # finite, its derivative is not
        return np.sum(2.0 * root)

    text = raised(lambda: nbad.grad(loss)(X))
    assert text.startswith("the pullback of sqrt in x made an infinity at index (1,)")
    assert "root = np.sqrt(x)  # finite" in text


def test_only_asked_for_pullbacks_are_looked_at() -> None:
    def loss(a: Any, b: Any) -> Any:
        return np.sum(a * np.sqrt(b))

    with nbad.config(nan="raise"):
        np.testing.assert_array_equal(nbad.grad(loss)(X, X), np.sqrt(X))
    assert "the pullback of sqrt" in raised(lambda: nbad.grad(loss, wrt=1)(X, X))


def cubic_root(x: Any) -> Any:
    return np.sum(x**1.5)  # its second derivative at 0 is infinite


@pytest.mark.parametrize("run", [
    lambda: nbad.hvp(cubic_root)(X, np.ones(3)),
    lambda: nbad.hessian(cubic_root)(X),
    lambda: nbad.grad(lambda x: np.sum(nbad.grad(cubic_root)(x)))(X),
    lambda: nbad.jvp(nbad.grad(cubic_root), (X,), (np.ones(3),)),
], ids=["hvp", "hessian", "grad of grad", "jvp of grad"])  # fmt: skip
def test_higher_orders_are_looked_at(run: Callable[[], Any]) -> None:
    with nbad.config(nan="raise"):
        nbad.grad(cubic_root)(X)
    assert "power" in raised(run)


@pytest.mark.parametrize("run", [
    lambda: nbad.jvp(np.sqrt, (X,), (np.ones(3),)),
    lambda: nbad.jacobian(np.sqrt)(X),
    lambda: nbad.vjp(np.sqrt, X)[1](np.ones(3)),
    lambda: nbad.value_and_grad(nbad.compile(lambda x: np.sum(np.sqrt(x))))(X),
], ids=["jvp", "jacobian", "vjp", "compiled"])  # fmt: skip
def test_every_transformation_is_looked_at(run: Callable[[], Any]) -> None:
    assert "sqrt" in raised(run)


def test_a_compiled_function_replays_again_afterwards() -> None:
    compiled = nbad.compile(lambda x: np.sum(np.sqrt(x)))
    gradient = nbad.grad(compiled)
    for _ in range(4):
        gradient(X + 1.0)
    before = compiled.report().replays
    assert "sqrt" in raised(lambda: gradient(X))
    assert compiled.report().replays == before
    gradient(X + 2.0)
    assert compiled.report().replays == before + 1


def test_a_primitive_of_the_user_is_named() -> None:
    def wrong(g: Any, x: Any) -> Any:
        return g * 0.5 / x

    @nbad.primitive(x=wrong, name="halve")
    def halve(x: Any) -> Any:
        return x / 2

    text = raised(lambda: nbad.grad(lambda x: np.sum(halve(x)))(X))
    assert "pullback of halve in x made an infinity" in text


def test_the_setting_is_checked() -> None:
    with pytest.raises(ValueError, match="raise"):
        nbad.config(nan="warn")


# The law: looking changes nothing, and raises no false alarm --------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_looking_changes_no_gradient(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RULES)
    for case in importlib.import_module(family).CASES:
        arguments, asked = case.draw(case.dtypes[-1])

        def total(*arguments: Any, case: Any = case) -> Any:
            return sum(np.sum(np.real(leaf)) for leaf in tree.leaves(case.function(*arguments)))

        run = nbad.value_and_grad(total, asked) if asked else case.function
        expected = run(*arguments)
        if not all(np.isfinite(leaf).all() for leaf in tree.leaves(expected)):
            continue
        with nbad.config(nan="raise"):
            found = run(*arguments)
        for x, y in zip(tree.leaves(found), tree.leaves(expected), strict=True):
            single = np.result_type(y).char in "fF"  # sums of float32 in another order
            rtol, atol = (1e-5, 1e-5) if single else (1e-9, 1e-12)
            np.testing.assert_allclose(x, y, rtol, atol, err_msg=case.name)
