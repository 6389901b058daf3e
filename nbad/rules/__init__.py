"""The rules: one file per family, each adding rows to the op table and the NumPy functions that lead to them."""

from nbad import constants, ufuncs
from nbad.rules import (
    applying,
    contractions,
    convolution,
    decompositions,
    discrete,
    elementwise,
    filling,
    fourier,
    indexing,
    linalg,
    ordering,
    polynomials,
    rearranging,
    reductions,
    sampling,
    shaping,
    solving,
    statistics,
    updating,
)

constants.bind_operators()
ufuncs.add_methods()

__all__ = [
    "applying",
    "contractions",
    "convolution",
    "decompositions",
    "discrete",
    "elementwise",
    "filling",
    "fourier",
    "indexing",
    "linalg",
    "ordering",
    "polynomials",
    "rearranging",
    "reductions",
    "sampling",
    "shaping",
    "solving",
    "statistics",
    "ufuncs",
    "updating",
]
