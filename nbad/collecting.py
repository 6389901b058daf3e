"""Pauses of Python's cyclic garbage collector while nbad builds many small objects that all stay alive.

Owns nothing else. Without a pause the collector walks the growing graph again and again and finds nothing to free.
"""

import gc
from types import TracebackType

__all__ = ["Paused"]


class Paused:
    """A context without automatic collections; what the process had set holds again afterwards."""

    def __enter__(self) -> None:
        """Stop automatic collections."""
        self._was_on = gc.isenabled()
        gc.disable()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go on as before."""
        if self._was_on:
            gc.enable()
