"""The rules: one file per family, each adding rows to the op table and the NumPy functions that lead to them."""

from nbad import ufuncs
from nbad.rules import (
    contractions,
    convolution,
    elementwise,
    fourier,
    indexing,
    linalg,
    rearranging,
    reductions,
    shaping,
)

ufuncs.add_methods()

__all__ = [
    "contractions",
    "convolution",
    "elementwise",
    "fourier",
    "indexing",
    "linalg",
    "rearranging",
    "reductions",
    "shaping",
    "ufuncs",
]
