"""Reverse-mode differentiation of NumPy code that computes only what is asked for.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> def loss(u, v, m):
...     return np.sum((nbad.convolve(u, v, mode="wrap") - m) ** 2)
>>> u, v, m = np.ones(4), np.array([1.0, 2.0]), np.zeros(4)
>>> np.round(nbad.grad(loss, wrt="u")(u, v, m), 9)  # the pullback of v never runs
array([18., 18., 18., 18.])
"""

from importlib.metadata import PackageNotFoundError, version

from nbad import scipy, scipy_fft, testing
from nbad.checkpointing import checkpoint
from nbad.compiled import Compiled, compile, load
from nbad.control import config, get_threads, set_threads, warmup
from nbad.directional import hvp, jvp
from nbad.errors import (
    ConvergenceError,
    DetachError,
    EscapedTraceError,
    InputTypeError,
    KernelError,
    MutationError,
    NbadError,
    NonFiniteError,
    NonScalarOutputError,
    NoRuleError,
    RuleError,
    TapeError,
    WrtError,
)
from nbad.implicit import Equations, implicit_root
from nbad.jacobians import hessian, jacobian
from nbad.jitted import Jitted, njit
from nbad.linearizing import Linearization, linearize
from nbad.operators import Convolution
from nbad.packing import ravel
from nbad.primitive import primitive
from nbad.report import CompileReport, Report, report
from nbad.rules.convolution import convolve, correlate
from nbad.rules.patches import patches
from nbad.scanning import scan
from nbad.transforms import grad, stop_gradient, value_and_grad, vjp
from nbad.tree import register

try:
    __version__ = version("nbad")
except PackageNotFoundError:  # run from a source folder that is not installed
    __version__ = "0.0.0"

__all__ = [
    "CompileReport",
    "Compiled",
    "ConvergenceError",
    "Convolution",
    "DetachError",
    "Equations",
    "EscapedTraceError",
    "InputTypeError",
    "Jitted",
    "KernelError",
    "Linearization",
    "MutationError",
    "NbadError",
    "NoRuleError",
    "NonFiniteError",
    "NonScalarOutputError",
    "Report",
    "RuleError",
    "TapeError",
    "WrtError",
    "__version__",
    "checkpoint",
    "compile",
    "config",
    "convolve",
    "correlate",
    "get_threads",
    "grad",
    "hessian",
    "hvp",
    "implicit_root",
    "jacobian",
    "jvp",
    "linearize",
    "load",
    "njit",
    "patches",
    "primitive",
    "ravel",
    "register",
    "report",
    "scan",
    "scipy",
    "scipy_fft",
    "set_threads",
    "stop_gradient",
    "testing",
    "value_and_grad",
    "vjp",
    "warmup",
]
