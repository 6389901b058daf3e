"""Own what stands for an array between two passes of a convolution, when the passes of its neighbours come in between.

See `nbad.kernels.through`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Entered", "Left"]

Array = np.ndarray[Any, Any]
Extents = tuple[int, ...]


@dataclass(frozen=True)
class Left:
    """A result of which only pass (c) is missing."""

    rows: Array
    """Shape (b, p0, stride); pass (c) uses them up."""
    batch: Extents
    """Lengths of the batch axes, which come first."""
    sizes: Extents
    """Its lengths along the axes that the box keeps."""
    start: Extents
    """Where it begins in the box."""
    turns: Extents
    """How much later what comes around to it lies, per kept axis."""
    box: Any
    """The box it was transformed in."""
    real: bool
    """Whether it is real."""


@dataclass(frozen=True)
class Entered:
    """An array of which only what pass (a) made of it is there."""

    rows: Array
    """Shape (b, m0, stride); passes (b) and (c) use them up."""
    shape: Extents
    dtype: Any

    @property
    def ndim(self) -> int:
        """Number of axes of the array."""
        return len(self.shape)
