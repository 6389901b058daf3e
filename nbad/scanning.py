"""scan: a loop of a kernel, differentiated in bounded memory.

Owns how the loop is divided. Each part is one node of the tape that keeps nothing but the state that it begins with; its pull
runs that part again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core import registry

from nbad import tree
from nbad.errors import InputTypeError
from nbad.jitted import Jitted
from nbad.methods import user_line
from nbad.regions import is_array
from nbad.trace import is_traced, underlying

__all__ = ["scan"]

_SHORTEST = 1 << 15
"""Numbers that the steps of a part write at least: the tape of so many is small, and a node of it costs less than they do."""


def scan(step: Any, state: Any, steps: Any, *params: Any) -> Any:
    """Return the state after a loop of a kernel; its gradient needs the tape of a part of the loop at a time.

    The same as ``for i in range(steps): state = step(state, i, *params)``, or ``for x in steps: state = step(state, x,
    *params)`` where `steps` is an array.

    Parameters
    ----------
    step : function of numba.njit or Jitted
        One step; it returns the next state, of the types of `state`.
    state : ndarray, float or tuple of these
        The first state. It is not changed, also where a step writes into it.
    steps : int or ndarray
        How many steps, or an array with what is passed to each step, along axis 0.
    *params
        Further arguments of each step.

    Returns
    -------
    ndarray, float or tuple of these
        The last state.

    Raises
    ------
    InputTypeError
        `step` is not a function compiled by numba.
    DetachError
        A step writes numbers that carry derivatives into one of `params`.

    Notes
    -----
    Of n steps about sqrt(n) states are kept, fewer where the state is small; the tape is that of as many steps. The kernel runs
    twice as often as without. This holds for derivatives of every order, and in compiled functions.

    Examples
    --------
    >>> import numba
    >>> import nbad
    >>> @numba.njit
    ... def grow(x, i, rate):
    ...     return x + rate * x * (1.0 - x)
    >>> def last(rate):
    ...     return nbad.scan(grow, 0.1, 1_000_000, rate)
    >>> abs(nbad.grad(last)(0.01)) < 1e-12
    True
    """
    kernel = step.kernel if isinstance(step, Jitted) else step
    if not isinstance(kernel, registry.CPUDispatcher):
        raise InputTypeError(
            "scan: the step is not a function compiled by numba",
            at=user_line(),
            fix="Decorate it with numba.njit.",
        )
    counted = not (is_traced(steps) or is_array(steps))
    total = int(steps) if counted else len(steps)
    run = Jitted(_loop(kernel, len(params), counted), own=(0,), keeps=False)
    given = params if counted else (steps, *params)
    state = tree.map_leaves(_owned, state)
    if not any(map(is_traced, tree.leaves((state, given)))):
        return run(state, 0, total, *given)
    size = sum(int(np.size(underlying(leaf))) for leaf in tree.leaves(state))
    length = max(math.isqrt(max(total, 1) - 1) + 1, _SHORTEST // max(size, 1))
    for start in range(0, total, length):
        state = run(state, start, min(start + length, total), *given)
    return state


def _owned(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


@functools.lru_cache(maxsize=256)
def _loop(step: Any, count: int, counted: bool) -> Any:
    """Write out and compile the steps from `start` to `stop`; errors name the line of `step`."""
    params = "".join(f", p{k}" for k in range(count))
    given, item = ("", "i") if counted else (", xs", "xs[i]")
    text = (
        f"def {step.py_func.__name__}(state, start, stop{given}{params}):\n"
        " for i in range(start, stop):\n"
        f"  state = one_step(state, {item}{params})\n"
        " return state\n"
    )
    code = step.py_func.__code__
    space = {"one_step": step, "__name__": step.py_func.__module__}
    exec(compile("\n" * (code.co_firstlineno - 1) + text, code.co_filename, "exec"), space)
    loop = numba.njit(space[step.py_func.__name__])
    loop.activated = {0}
    loop.written_for = step
    return loop
