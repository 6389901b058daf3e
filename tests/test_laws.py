"""The laws catch wrong rules: a battery that passes everything would prove nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import LAWS, Case, applies

from nbad.table import operation
from nbad.trace import apply, plain

S = (3, 4)


def product_forward(x: Any, b: Any) -> Any:
    return x * b


def right_x(g: Any, b: Any) -> Any:
    return g * b


def right_b(g: Any, x: Any) -> Any:
    return g * x


def nearly_right_x(g: Any, b: Any) -> Any:
    return g * b * (1 + 1e-7)


def writing_x(g: Any, b: Any) -> Any:
    g *= b
    return g


def without_second_derivative_x(g: Any, b: Any) -> Any:
    return g * plain(b)


def without_sum_x(g: Any, b: Any, x_shape: Any) -> Any:
    return np.broadcast_to(g * b, g.shape).max(axis=tuple(range(g.ndim - len(x_shape))))


RULES: list[tuple[Callable[..., Any], set[str]]] = [
    (right_x, set()),
    (nearly_right_x, {"adjoint", "sizes", "broadcast"}),
    (writing_x, {"adjoint", "second", "results", "masked", "inputs", "layouts", "sizes", "broadcast"}),
    (without_second_derivative_x, {"second"}),
    (without_sum_x, {"broadcast"}),
]


@pytest.mark.parametrize(("rule", "broken"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_laws_catch_wrong_rules(rule: Callable[..., Any], broken: set[str]) -> None:
    op = operation(product_forward, name=rule.__name__, x=rule, b=right_b)

    def function(x: Any, b: Any) -> Any:
        return apply(op, x, b)

    case = Case(rule.__name__, function, [(S, -2, 2), (S, -2, 2)], elementwise=True)
    found = set()
    for name, (law, _) in LAWS.items():
        if applies(name, case):
            try:
                law(case, "f8")
            except (AssertionError, TypeError, ValueError):
                found.add(name)
    assert found == broken


def test_a_law_is_switched_off_with_a_reason() -> None:
    with pytest.raises(ValueError, match="a reason"):
        Case("sin", np.sin, [(S, -1, 1)], off={"second": ""})
    with pytest.raises(ValueError, match="a reason"):
        Case("sin", np.sin, [(S, -1, 1)], off={"no such law": "because"})
    case = Case("sin", np.sin, [(S, -1, 1)], off={"second": "because"})
    assert not applies("second", case)
    assert applies("adjoint", case)
