"""Linear algebra in compiled functions: values, gradients and products with the Hessian are those of the plain function."""

from typing import Any

import numpy as np
import pytest
from laws import Case, cotangent_like
from rules.test_decompositions import CASES as DECOMPOSITIONS
from rules.test_linalg import CASES as NORMS
from rules.test_solving import CASES as SOLVING

import nbad
from nbad import tree

SPECTRAL = [
    case for case in NORMS if case.name.startswith(("cond", "matrix nuc", "matrix 2", "matrix_norm -2"))
]


@pytest.mark.parametrize("case", [*DECOMPOSITIONS, *SOLVING, *SPECTRAL], ids=lambda case: case.name)
def test_compiled_as_plain(case: Case) -> None:
    args, wrt = case.draw(case.dtypes[-1])
    weights = tree.leaves(cotangent_like(case.function(*args)))

    def loss(*args: Any) -> Any:
        leaves = tree.leaves(case.function(*args))
        return sum(
            np.sum(np.real(np.conj(w) * np.sin(x))) for w, x in zip(weights, leaves, strict=True) if w.size
        )

    compiled = nbad.compile(loss)
    moved = [x * 1.03 if i in wrt else x for i, x in enumerate(args)]
    for given in (args, moved, args):
        value, gradient = nbad.value_and_grad(loss, wrt)(*given)
        found, replayed = nbad.value_and_grad(compiled, wrt)(*given)
        np.testing.assert_allclose(found, value, rtol=1e-10)
        np.testing.assert_allclose(compiled(*given), value, rtol=1e-10)
        for one, other in zip(replayed, gradient, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10 * np.max(np.abs(other)))
    along = tuple(args[k] / 2 for k in wrt)
    expected = nbad.hvp(loss, wrt)(*args, along)
    for one, other in zip(nbad.hvp(compiled, wrt)(*args, along), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9 * np.max(np.abs(other)))
