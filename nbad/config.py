"""Settings of the running process.

Owns the values only; whoever is concerned reads them here when it runs.
"""

import contextlib
import threading
from dataclasses import dataclass
from typing import Any

_lock = threading.Lock()


@dataclass(slots=True)
class Settings:
    """What `config` can set.

    Attributes
    ----------
    mutation_check : bool
        Hash kept arrays that the caller can reach, when they are kept and when they are read.
    nan : "raise" or None
        Look at the results of every operation, forward and backward, for NaN and infinities.
    instruction_set : str or None
        "scalar", "avx2" or "avx512" for the block kernels; None takes the best that the machine has.
    memory_limit : int or None
        Bytes of idle memory that may wait for reuse; None for the default.
    tape_limit : int or None
        Bytes that the tape of one call of a kernel may take; None for half of the memory of the machine.
    """

    mutation_check: bool = True
    nan: str | None = None
    instruction_set: str | None = None
    memory_limit: int | None = None
    tape_limit: int | None = None


SETTINGS = Settings()


def change(**changes: Any) -> contextlib.AbstractContextManager[Settings]:
    """Change settings at once; as a context manager, put them back at its end."""
    with _lock:
        before = {}
        for name in changes:
            if name not in Settings.__slots__:
                raise TypeError(f"config has no setting {name!r}; it has {', '.join(Settings.__slots__)}")
            before[name] = getattr(SETTINGS, name)
        for name, value in changes.items():
            setattr(SETTINGS, name, value)
    return _Restoring(before)


class _Restoring:
    """Puts settings back at the end of a with block."""

    def __init__(self, before: dict[str, Any]) -> None:
        self.before = before

    def __enter__(self) -> Settings:
        return SETTINGS

    def __exit__(self, *error: object) -> None:
        with _lock:
            for name, value in self.before.items():
                setattr(SETTINGS, name, value)
