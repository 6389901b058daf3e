"""The tape of kernels, loaded with the first derivative of a kernel.

Its numba types and rules take a tenth of the time of ``import nbad``: whoever differentiates no kernel does not wait for them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from nbad._jit import uninterrupted

__all__ = ["Loaded", "loaded"]


class Loaded(NamedTuple):
    """What the rest of nbad calls: functions of `nbad.scalar.recording`, `reaching` and `interacting`."""

    record: Callable[..., Any]
    dependence: Callable[..., Any]
    interactions: Callable[..., Any]


@functools.cache
def loaded() -> Loaded:
    """Load the tape of kernels, unless it is."""
    with uninterrupted():  # rules that are registered by half cannot be registered again
        from nbad.scalar.interacting import interactions
        from nbad.scalar.reaching import dependence
        from nbad.scalar.recording import record
    return Loaded(record, dependence, interactions)
