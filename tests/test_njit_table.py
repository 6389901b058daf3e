"""docs/reference/kernels.md tells the truth: each line of its tables is differentiated, or refused."""

import math
import re
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.errors import NoRuleError

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "kernels.md"
X = np.array([0.9, 1.3, 0.7, 1.1])
W = np.array([0.4, 0.8, 1.2, 0.6])


@numba.njit
def cubed(x):
    return x**3


@numba.njit
def grow(x, i, rate):
    return x + 0.01 * rate * x * (1.0 - x)


def rows(heading: str) -> list[tuple[str, list[str]]]:
    """List (what, lines of code) of the rows of the table below a heading."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|") and "---" not in line][1:]
    cells = [line.strip("|").split(" | ") for line in lines]
    return [(cell[0].strip(), re.findall(r"`([^`]+)`", cell[1])) for cell in cells]


def kernel_of(examples: list[list[str]]) -> Any:
    """Compile a kernel that returns what each of the examples gives."""
    text = []
    for k, (*lines, last) in enumerate(examples):
        text += [
            f"def example{k}(x, w, n):",
            "    a = x[0]",
            "    s = 0.0",
            *(f"    {line}" for line in lines),
            f"    return {last}",
        ]
    text += ["def kernel(x, w, n):", f"    out = np.zeros({len(examples)})"]
    text += [f"    out[{k}] = example{k}(x, w, n)" for k in range(len(examples))]
    text += ["    return out"]
    space: dict[str, Any] = {"np": np, "math": math, "cubed": cubed, "nbad": nbad}
    exec("\n".join(text), space)
    for k in range(len(examples)):
        space[f"example{k}"] = numba.njit(space[f"example{k}"])
    return numba.njit(space["kernel"])


@pytest.mark.slow
def test_what_the_page_calls_supported_has_its_gradient() -> None:
    table = rows("Supported")
    kernel = kernel_of([lines for _, lines in table])
    found = nbad.jacobian(kernel)(X, W, 4)
    step = 1e-5 * np.eye(4)
    expected = np.stack([(kernel(X + e, W, 4) - kernel(X - e, W, 4)) / 2e-5 for e in step], axis=1)
    assert len(table) > 10
    for (what, _), row, differences in zip(table, found, expected, strict=True):
        np.testing.assert_allclose(row, differences, rtol=1e-7, atol=1e-8, err_msg=what)
        assert np.any(row), what


@pytest.mark.parametrize(
    ("what", "lines"), rows("Refused"), ids=lambda one: one if isinstance(one, str) else ""
)
def test_what_the_page_calls_refused_is_refused(what: str, lines: list[str]) -> None:
    kernel = kernel_of([lines])
    with pytest.raises(NoRuleError, match="kernel"):
        nbad.jacobian(kernel)(X, W, 4)


@pytest.mark.parametrize(("what", "lines"), rows("Beside kernels"))
def test_what_the_page_says_of_array_code_has_its_gradient(what: str, lines: list[str]) -> None:
    def call(x: Any) -> Any:
        return eval(lines[0], {"nbad": nbad, "grow": grow, "x": x})

    differences = [(call(X + e) - call(X - e)) / 2e-5 for e in 1e-5 * np.eye(4)]
    np.testing.assert_allclose(nbad.grad(call)(X), differences, rtol=1e-7, atol=1e-8)
