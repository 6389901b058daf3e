"""The rules: one file per family, each adding rows to the op table and the NumPy functions that lead to them."""

from nbad.rules import convolution, elementwise, reductions, shaping

__all__ = ["convolution", "elementwise", "reductions", "shaping"]
