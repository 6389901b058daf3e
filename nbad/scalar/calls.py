"""A call of a kernel, and what comes back: the words that the rest of nbad has in common with the tape of kernels.

Nothing here needs the types of active numbers, so that these are loaded with the first derivative of a kernel and not before.
"""

import re
from typing import Any, NamedTuple

__all__ = ["Call", "Part"]


class Call(NamedTuple):
    """How a kernel is called: the text of each argument, in which ``{k}`` is leaf k, and the names in them."""

    kernel: Any
    arguments: tuple[str, ...]
    names: dict[str, Any]

    @property
    def text(self) -> str:
        """All arguments."""
        return ", ".join(self.arguments)

    def leaves_of(self, argument: int) -> list[int]:
        """Return the leaves of an argument."""
        return [int(k) for k in re.findall(r"\{(\d+)\}", self.arguments[argument])]


class Part(NamedTuple):
    """An active leaf of what a kernel returned: the components of its value, and where it is on the tape.

    A complex number is on the tape in two places: the indices of its parts are the last axis.
    """

    lanes: Any
    indices: Any
