"""Reductions: sum."""

from typing import Any

import numpy as np

from nbad.table import binds, operation
from nbad.trace import apply


def sum_all_forward(x):
    """Return the sum of all elements."""
    return np.sum(x)


def sum_all_x(g, x_shape):
    return np.broadcast_to(g, x_shape)


SUM_ALL = operation(sum_all_forward, x=sum_all_x, linear=True)


@binds(np.sum)
def sum(a: Any, axis: Any = None) -> Any:
    return apply(SUM_ALL, a)
