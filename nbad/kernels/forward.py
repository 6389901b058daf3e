"""The forward pass of large elementwise operations: NumPy's own loops, fanned out over recycled memory.

Owns the decision when that pays. The values are NumPy's to the bit: each chunk is one ufunc call on slices.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.kernels import memory, threads

#: Elements below which a plain call is faster.
LARGE = 1 << 16
#: Elements of one chunk; a function of size only, so results do not depend on the number of threads.
CHUNK = 1 << 16

_COMPLEX = {
    np.add,
    np.subtract,
    np.multiply,
    np.divide,
    np.negative,
    np.conjugate,
    np.exp,
    np.square,
    np.sqrt,
}


def elementwise_forward(function: Callable[..., Any], ufunc: Any, *values: Any) -> Any:
    """Return ``function(*values)``; large arrays of one dtype and shape are computed in parallel chunks.

    Parameters
    ----------
    function : callable
        The ufunc or the Python operator that the caller wrote.
    ufunc : callable
        The ufunc that `function` stands for.
    *values : ndarray or scalar
        Operands.
    """
    lead: np.ndarray | None = None
    for value in values:
        kind = type(value)
        if kind is np.ndarray:
            if lead is None:
                lead = value
                if value.size < LARGE or not value.flags.c_contiguous or value.dtype.char not in "fdFD":
                    return function(*values)
            elif value.shape != lead.shape or value.dtype != lead.dtype or not value.flags.c_contiguous:
                return function(*values)
        elif kind is not float and kind is not int:
            return function(*values)
    if lead is None or not isinstance(ufunc, np.ufunc) or (lead.dtype.kind == "c" and ufunc not in _COMPLEX):
        return function(*values)
    if not _keeps_dtype(ufunc, lead.dtype):
        return function(*values)  # a comparison, for instance
    if ufunc is np.power and type(values[-1]) is not np.ndarray:
        return function(*values)  # operator.pow has short cuts that np.power lacks
    out = memory.empty(lead.shape, lead.dtype)
    flat = out.reshape(-1)
    operands = [v.reshape(-1) if type(v) is np.ndarray else v for v in values]
    state = np.geterr()

    def task(lo: int, hi: int) -> None:
        with np.errstate(**state):
            part = slice(lo * CHUNK, hi * CHUNK)
            ufunc(*(v[part] if type(v) is np.ndarray else v for v in operands), out=flat[part])

    threads.fan_out(task, -(-lead.size // CHUNK))
    return out


@functools.lru_cache(1024)
def _keeps_dtype(ufunc: np.ufunc, dtype: np.dtype[Any]) -> bool:
    """Return whether `ufunc` makes one array of the dtype of its operands."""
    if ufunc.nout != 1:
        return False
    try:
        return bool(ufunc.resolve_dtypes((*[dtype] * ufunc.nin, None))[-1] == dtype)
    except TypeError:
        return False
