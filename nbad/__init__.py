"""Reverse-mode differentiation of NumPy code that computes only what is asked for."""

from nbad.primitive import primitive
from nbad.report import Report, report
from nbad.rules import elementwise as _elementwise
from nbad.rules import reductions as _reductions
from nbad.transforms import grad, stop_gradient, value_and_grad, vjp

__all__ = ["Report", "grad", "primitive", "report", "stop_gradient", "value_and_grad", "vjp"]
