"""Own the number of threads that NumPy's BLAS takes while we split its products ourselves.

OpenBLAS keeps its threads spinning for milliseconds after a product, on the processors that our own threads want next, and its
sums depend on their number. Where it can be told to work in the calling thread only, it is, for the duration of a product.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import sys
import threading
from typing import Any

import numpy as np

__all__ = ["Alone", "alone"]

_PTHREADS = 1
"""What OpenBLAS says of itself if it has threads of its own; one built on OpenMP has a setting for each thread."""


class Alone:
    """A context in which BLAS works in the thread that calls it.

    Parameters
    ----------
    get, put : callable
        Read and set the number of threads of BLAS.

    Notes
    -----
    The setting belongs to the process. It is put back when the last of several overlapping uses ends, unless somebody
    else has changed it meanwhile.
    """

    def __init__(self, get: Any, put: Any) -> None:
        self._get, self._put = get, put
        self._users = 0
        self._before = 1
        self._lock = threading.Lock()

    def __enter__(self) -> Alone:
        """Tell BLAS to use one thread."""
        with self._lock:
            if self._users == 0:
                self._before = self._get()
                if self._before != 1:
                    self._put(1)
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Put the user's setting back after the last use."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._before != 1 and self._get() == 1:
                self._put(self._before)

    def forget(self) -> None:
        """Put the setting back in a forked child, where threads that would have done so are gone."""
        users, self._users = self._users, 0
        self._lock = threading.Lock()
        if users and self._before != 1 and self._get() == 1:
            self._put(self._before)


def _libraries() -> list[str]:
    """Return files that may hold NumPy's BLAS, or that are linked to it."""
    package = os.path.dirname(np.__file__)
    extension = sys.modules.get("numpy._core._multiarray_umath")
    found = [str(extension.__file__)] if extension is not None else []
    for folder in (f"{package}.libs", os.path.join(package, ".dylibs")):
        found += sorted(glob.glob(os.path.join(folder, "*openblas*")))
    return found


@functools.cache
def alone() -> Alone | None:
    """Return the context for NumPy's BLAS, None where it cannot be told (then leave its products whole)."""
    for path in _libraries():
        try:
            library = ctypes.PyDLL(path)
        except OSError:
            continue
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", "", "_64"):
                try:
                    get, put, kind = (
                        getattr(library, f"{prefix}_{name}{suffix}")
                        for name in ("get_num_threads", "set_num_threads", "get_parallel")
                    )
                except AttributeError:
                    continue
                put.restype, put.argtypes = None, [ctypes.c_int]
                if kind() != _PTHREADS:
                    return None
                made = Alone(get, put)
                if hasattr(os, "register_at_fork"):
                    os.register_at_fork(after_in_child=made.forget)
                return made
    return None
