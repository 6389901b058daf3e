"""The rules: one file per family, each adding rows to the op table and the NumPy functions that lead to them."""

from nbad import constants, ufuncs
from nbad.rules import (
    contractions,
    convolution,
    decompositions,
    discrete,
    elementwise,
    filling,
    fourier,
    indexing,
    linalg,
    rearranging,
    reductions,
    shaping,
    solving,
    updating,
)

constants.bind_operators()
ufuncs.add_methods()

__all__ = [
    "contractions",
    "convolution",
    "decompositions",
    "discrete",
    "elementwise",
    "filling",
    "fourier",
    "indexing",
    "linalg",
    "rearranging",
    "reductions",
    "shaping",
    "solving",
    "ufuncs",
    "updating",
]
