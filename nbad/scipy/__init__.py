"""SciPy's functions for traced values, by SciPy's names: ``special``, ``signal``, ``ndimage``, ``linalg``, ``sparse``.

Owns when the modules are loaded: the first time one is named, or when a ufunc of ``scipy.special`` meets a traced value; SciPy
is needed only then. ``nbad.scipy.fft`` is ``scipy.fft`` itself, which takes traced values by its own protocol.
"""

import importlib
import operator
import sys
from typing import Any

import numpy as np

from nbad import scipy_fft
from nbad.table import binds
from nbad.ufuncs import LATER

#: The modules.
NAMES = ("fft", "linalg", "ndimage", "signal", "sparse", "special")

__all__ = ["fft", "linalg", "ndimage", "signal", "sparse", "special"]


def __getattr__(name: str) -> Any:
    """Load a module when it is first named."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(NAMES)}")
    if name == "fft":
        module = required("fft")
        scipy_fft.enable()
        return module
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """List the modules."""
    return list(NAMES)


def required(name: str) -> Any:
    """Return the module of this name of SciPy.

    Raises
    ------
    ImportError
        SciPy is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "scipy":
            raise
        raise ImportError(
            f"nbad.scipy.{name} needs SciPy, which is not installed: pip install scipy"
        ) from error


def load_rows(name: str) -> None:
    """Load the module that adds the row `name`, such as "scipy.signal.lfilter", for a saved tape."""
    if name.startswith("scipy.sparse."):
        importlib.import_module(f"{__name__}.sparse.linalg")
    module = name.split(".")[1]
    if module in (*NAMES, "extending", "splines", "structured") and module != "fft":
        importlib.import_module(f"{__name__}.{module}")


def _special(ufunc: np.ufunc) -> bool:
    """Add the rows of ``scipy.special`` if `ufunc` is one of its functions; return whether it is."""
    found = getattr(sys.modules.get("scipy.special"), ufunc.__name__, None) is ufunc
    if found:
        importlib.import_module(f"{__name__}.special")
    return found


@binds(operator.matmul)
def _product(a: Any, b: Any) -> Any:
    """Return ``a @ b``, one of them a sparse matrix."""
    return importlib.import_module(f"{__name__}.sparse").product(a, b)


LATER.append(_special)
