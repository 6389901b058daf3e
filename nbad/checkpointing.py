"""checkpoint: a function whose intermediate values are not kept, but computed again in the sweep.

Owns what a user sees of a region: which arguments are its operands. How a region works is in `nbad.regions`.
"""

import functools
from collections.abc import Callable
from typing import Any

from nbad import tree
from nbad.regions import closed_over, is_array, run_region
from nbad.trace import is_traced

__all__ = ["checkpoint"]


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same and keeps nothing for the sweep but its arguments: a decorator.

    Parameters
    ----------
    function : callable
        Arrays, numbers and containers of these in and out; other arguments (flags, shapes, strings) pass through. It is called
        once, with traced arrays.

    Returns
    -------
    callable
        Takes and returns what `function` does. A result that is an argument, or a view of one, is a copy.

    Raises
    ------
    DetachError
        At a call: `function` takes a plain number or array of a value that carries a derivative.
    InputTypeError
        At a call: it returns more than 255 arrays.
    MutationError
        At a call or in the sweep: a plain array that it reads has been changed.

    Notes
    -----
    A call is recorded: which operations it did, and on what. In the sweep those whose values a pullback reads are done again,
    and no others; then come the pullbacks that were asked for, of all arguments in one sweep. As it is the recording that runs
    again, and not `function`, branches are those taken, and random numbers those drawn, the first time. Arrays that it makes
    without traced or array arguments (a grid, a mask, random numbers) are part of the recording, and are kept.

    Traced values that `function` reaches by itself (from a closure) get their gradients; what it computes from them alone is
    kept as usual, so pass large ones as arguments.

    Gradients of any order, and compiled functions, treat the call as one operation: its workspace lives while it runs.

    Checkpoints may be nested: halving a loop of n steps again and again keeps about log2(n) states and costs as many
    times the forward.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> def blur(x):
    ...     for _ in range(10):
    ...         x = np.tanh(x + np.roll(x, 1))
    ...     return x
    >>> x = np.linspace(0.0, 1.0, 1000)
    >>> def kept(function):
    ...     with nbad.report() as account:
    ...         gradient = nbad.grad(lambda x: np.sum(function(2 * x)))(x)
    ...     return account.bytes_kept
    >>> kept(blur), kept(nbad.checkpoint(blur))
    (80000, 8000)
    """

    @functools.wraps(function, updated=())
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        skeleton, leaves = tree.take_apart((args, kwargs))
        if not any(map(is_traced, leaves)) and not any(map(is_traced, closed_over(function))):
            return function(*args, **kwargs)
        places = [i for i, leaf in enumerate(leaves) if is_traced(leaf) or is_array(leaf)]

        def run(values: Any) -> Any:
            filled = list(leaves)
            for i, value in zip(places, values, strict=True):
                filled[i] = value
            given, named = tree.assemble(skeleton, filled)
            return function(*given, **named)

        return run_region(run, [leaves[i] for i in places])

    return checkpointed
