"""Own the large blocks of memory and recycle them.

A page that the process sees for the first time costs more than the arithmetic done on it, so the block of a
dead array is kept, by size, for the next one. Nothing here knows what is stored; the contents of a new array
are arbitrary.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Account", "allocated", "clear", "empty", "set_limit"]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

SMALLEST_BLOCK = 1 << 20
"""Bytes: below this the C allocator recycles memory well enough by itself."""

DEFAULT_LIMIT = 1 << 30
"""Bytes that idle blocks may take together, unless an eighth of the machine's memory is less."""


PATIENCE = 0.1
"""Seconds to wait for the lock of the pool before memory is taken past it."""


class Account(NamedTuple):
    """What the pool has done and holds."""

    live: int
    """Bytes of the blocks that arrays use now."""
    idle: int
    """Bytes of the blocks that wait for reuse."""
    fresh: int
    """Number of blocks that came from the system."""
    reused: int
    """Number of times that an idle block was handed out again."""


class _Owner:
    """The base of an array made from a block; gives the block back when the last view has died."""

    __slots__ = ("__array_interface__", "block", "pool")

    def __init__(self, pool: _Pool, block: np.ndarray[Any, Any], interface: dict[str, Any]) -> None:
        self.pool = pool
        self.block = block
        self.__array_interface__ = interface

    def __del__(self) -> None:
        """Give the block back; only members are used, for globals may be gone at interpreter exit."""
        self.pool.give_back(self.block)


class _Pool:
    """The idle blocks by size class, the least recently used class first.

    ``__del__`` may run at any bytecode, also in a thread that holds the lock. So a block that comes back
    is only appended to ``returned`` (an atomic step), and whoever gets the lock without waiting sorts it in.

    Ctrl-C may fall between the moment when the lock is taken and the ``try`` after it. So the lock is taken within the
    ``try``, and given back at its end without asking first, for a call is where the next one falls: a reentrant lock knows
    whether this thread holds it. Nobody takes it twice.
    """

    def __init__(self) -> None:
        self.idle: dict[int, list[np.ndarray[Any, Any]]] = {}
        self.idle_bytes = 0
        self.live_bytes = 0
        self.fresh = 0
        self.reused = 0
        self.limit = default_limit()
        self.returned: deque[np.ndarray[Any, Any]] = deque()
        self.renew_lock()

    def renew_lock(self) -> None:
        """Forget a lock that another thread may have held at the moment of a fork."""
        self.lock: Any = threading.RLock()

    def is_held_here(self) -> bool:
        """Return whether this thread holds the lock, which code that runs in the locked part (a finalizer) asks."""
        held: bool = self.lock._is_owned()  # what threading.Condition asks
        return held

    def give_back(self, block: np.ndarray[Any, Any]) -> None:
        """Take over a block that no array uses any more."""
        self.returned.append(block)
        self.settle()

    def settle(self) -> None:
        """Sort in the blocks that came back, unless another thread is doing so."""
        if self.is_held_here():
            return
        while self.returned:
            try:
                if not self.lock.acquire(blocking=False):
                    return
                self.sort_in()
            finally:
                try:  # noqa: SIM105 (suppress() would be a call)
                    self.lock.release()
                except RuntimeError:
                    pass  # it was not taken

    def sort_in(self) -> None:
        """Move the returned blocks to their classes and drop the oldest above the limit; the lock is held."""
        while self.returned:
            block = self.returned.popleft()
            size = block.nbytes
            self.live_bytes -= size
            self.idle.setdefault(size, []).append(block)
            self.idle[size] = self.idle.pop(size)
            self.idle_bytes += size
            del block
        while self.idle_bytes > self.limit:
            size = next(iter(self.idle))
            blocks = self.idle[size]
            blocks.pop(0)
            self.idle_bytes -= size
            if not blocks:
                del self.idle[size]

    def take(self, size: int) -> np.ndarray[Any, Any] | None:
        """Return a block of ``size`` bytes, or an idle one of that size or the next.

        None says that the lock is not free: a finalizer that runs in the locked part asks for memory.
        """
        if self.is_held_here():
            return None
        try:
            if not self.lock.acquire(timeout=PATIENCE):
                return None
            self.sort_in()
            for found in (size, _size_class(size + 1)):  # a spectrum is a little larger than its array
                blocks = self.idle.get(found)
                if blocks:
                    block = blocks.pop()
                    if not blocks:
                        del self.idle[found]
                    self.idle_bytes -= found
                    self.live_bytes += found
                    self.reused += 1
                    return block
            try:
                block = np.empty(size, np.uint8)
            except MemoryError:
                self.idle.clear()
                self.idle_bytes = 0
                block = np.empty(size, np.uint8)
            self.live_bytes += size
            self.fresh += 1
            return block
        finally:
            try:  # noqa: SIM105 (suppress() would be a call)
                self.lock.release()
            except RuntimeError:
                pass  # it was not taken

    def resize(self, limit: int) -> None:
        """Set the limit in bytes and drop what is above it."""
        with self.lock:
            self.limit = limit
            self.sort_in()

    def drop(self) -> None:
        """Drop all idle blocks."""
        with self.lock:
            self.sort_in()
            self.idle_bytes = 0
            self.idle = {}

    def account(self) -> Account:
        """Return the present numbers."""
        with self.lock:
            self.sort_in()
            return Account(self.live_bytes, self.idle_bytes, self.fresh, self.reused)


def default_limit() -> int:
    """Return the limit on idle bytes for this machine."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return DEFAULT_LIMIT
    return min(DEFAULT_LIMIT, total // 8) if total > 0 else DEFAULT_LIMIT


def _size_class(nbytes: int) -> int:
    """Return the block size for ``nbytes``: eight steps per octave, so at most an eighth is unused."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.renew_lock)


def empty(shape: int | Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """Return a new array with arbitrary contents; a large one is aligned to 64 bytes.

    Parameters
    ----------
    shape : int or sequence of int
        Shape of the array.
    dtype : dtype_like
        Type of the elements; any type without Python objects.

    Returns
    -------
    ndarray of dtype, shape `shape`
        C-contiguous and writable; a plain ndarray. From 1 MiB on its memory is recycled when the array and
        all its views have died.

    Raises
    ------
    TypeError
        If `dtype` holds Python objects.

    Examples
    --------
    >>> empty((2, 3), np.float32).shape
    (2, 3)
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of dtype {kind} holds Python objects and cannot come from the pool")
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(extents) * kind.itemsize
    if nbytes <= 0:
        return np.empty(extents, kind)
    if nbytes < SMALLEST_BLOCK:
        return np.empty(extents, kind)
    block = _POOL.take(_size_class(nbytes + ALIGNMENT))
    if block is None:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
        return np.ndarray(extents, kind, raw, -raw.__array_interface__["data"][0] % ALIGNMENT)
    address = block.ctypes.data
    data = (address + -address % ALIGNMENT, False)
    interface = {"shape": (nbytes,), "typestr": "|u1", "data": data, "version": 3}
    owner = _Owner(_POOL, block, interface)
    if kind.kind in "fciub":
        interface["shape"], interface["typestr"] = extents, kind.str
        return np.asarray(owner)
    return np.ndarray(extents, kind, np.asarray(owner))


def set_limit(nbytes: int) -> None:
    """Set how many bytes idle blocks may take together.

    Parameters
    ----------
    nbytes : int
        The limit in bytes; 0 recycles nothing.

    Raises
    ------
    ValueError
        If `nbytes` is negative.
    """
    if nbytes < 0:
        raise ValueError(f"the limit must not be negative, not {nbytes}")
    _POOL.resize(nbytes)


def allocated() -> Account:
    """Return what the pool holds and has done since the process started.

    Returns
    -------
    Account
        Bytes in use, bytes idle, blocks taken from the system, blocks reused.
    """
    return _POOL.account()


def clear() -> None:
    """Give all idle blocks back to the system."""
    _POOL.drop()


def is_recycled(array: np.ndarray[Any, Any]) -> bool:
    """Return whether the memory of `array` is a block of the pool (a view of one counts)."""
    base: Any = array.base
    return isinstance(base, _Owner) or isinstance(getattr(base, "base", None), _Owner)


def is_alone(array: np.ndarray[Any, Any]) -> bool:
    """Return whether no other array sees the memory of `array`, as far as its bases tell.

    Whoever asks makes sure that nobody else refers to `array` itself.
    """
    if array.base is None:
        return True
    if sys.getrefcount(array.base) != _SINGLE_BASE:
        return False
    return isinstance(array.base, _Owner) or (type(array.base) is np.ndarray and is_alone(array.base))


def _count_single_base() -> int:
    """Return what `sys.getrefcount` says of a base that only one array refers to."""
    raw = np.empty(2)
    holder = raw[1:]
    del raw
    return sys.getrefcount(holder.base)


_SINGLE_BASE = _count_single_base()
