"""Cases of `laws` through `nbad.compile`: value and gradient of the compiled function are those of the plain one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from laws import Case, assert_close, cotangent_like

import nbad
from nbad import tree


def compiled_laws(cases: Sequence[Case]) -> Any:
    """Return a test over `cases`, each with its last dtype."""

    @pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])
    def test(case: Case) -> None:
        args, wrt = case.draw(case.dtypes[-1])
        weights = tree.leaves(cotangent_like(case.function(*args)))

        def loss(*args: Any) -> Any:
            found = tree.leaves(case.function(*args))
            return sum(np.sum(np.real(x * np.conj(w))) for x, w in zip(found, weights, strict=True))

        moved = [x * 0.99 if k in wrt else x for k, x in enumerate(args)]
        asked = tuple((k,) for k in wrt)
        fast = nbad.value_and_grad(nbad.compile(loss), wrt=asked)
        plain = nbad.value_and_grad(loss, wrt=asked)
        for given in (args, moved, args):
            for found, expected in zip(tree.leaves(fast(*given)), tree.leaves(plain(*given)), strict=True):
                assert_close(found, expected, 256, case.name)

    return test
