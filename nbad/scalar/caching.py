"""The disk cache of entry points.

Owns when an entry point is kept on disk, where, and what its key is made of: a fingerprint of all that is compiled into it.
It is kept if the kernel is (``numba.njit(cache=True)``), beside the kernel's own cache.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba.core import bytecode, caching, config, errors, registry
from numba.core import types as all_types
from numba.core.compiler_lock import global_compiler_lock

from nbad._jit import SCALAR_HASH, _KeyedCacheFile, uninterrupted
from nbad.scalar.linking import calls_itself, linked_once

__all__ = ["Entry", "WritesMore", "cache_of", "fingerprint"]

#: numba has no annotations.
numba_types: Any = all_types

#: What these packages hold is known by its name and by their versions.
_KNOWN = frozenset({"builtins", "math", "cmath", "_operator", "numpy", "numba", "nbad", "rocket_fft"})
_NUMBERS = (bool, int, float, complex, str, bytes, type(None), type(...))
#: Types of leaves whose text says all about them.
_PLAIN = (
    numba_types.Array, numba_types.Number, numba_types.Boolean, numba_types.UnicodeType, numba_types.NoneType,
)  # fmt: skip


class WritesMore(Exception):
    """The cache knows that a kernel writes active numbers into more of its arguments."""

    def __init__(self, written: frozenset[int]) -> None:
        super().__init__(written)
        self.written = written


class _Unknown(Exception):
    """Something is compiled in whose meaning cannot be told by looking at it."""


# Fingerprints -----------------------------------------------------------------------------------
def fingerprint(kernel: Any, more: Any = ()) -> str | None:
    """Return a text that changes with anything that is compiled into a kernel.

    Parameters
    ----------
    kernel : Dispatcher
        The kernel; its helpers, and the globals and closures that they read, are followed.
    more : tuple
        What else belongs to it.

    Returns
    -------
    str or None
        None where something is reached that cannot be told apart from another one: then nothing is to be cached.
    """
    walk = _Walk()
    try:
        walk.value((numba.__version__, np.__version__, SCALAR_HASH, config.BOUNDSCHECK, more))
        walk.value(kernel)
    except _Unknown:
        return None
    return walk.digest.hexdigest()


class _Walk:
    """Puts values into a digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}

    def text(self, *parts: Any) -> None:
        """Add texts, each with its length."""
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            self.digest.update(b"%d:" % len(data) + data)

    def value(self, value: Any) -> None:
        """Add anything that numba may freeze."""
        if isinstance(value, _NUMBERS):
            self.text(type(value).__name__, repr(value))
        elif isinstance(value, (tuple, types.CodeType, frozenset)):
            self._composed(value)
        elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            self.text("array", value.dtype.descr, value.shape, np.ascontiguousarray(value).tobytes())
            self.text(value.strides)
        elif isinstance(value, np.dtype | numba_types.Type):
            self.text(type(value).__name__, value)
        elif id(value) in self.seen:
            self.text("again", self.seen[id(value)])
        else:
            self.seen[id(value)] = len(self.seen)
            self._named(value)

    def _composed(self, value: Any) -> None:
        if isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, frozenset):
            self.text("set", *sorted(map(repr, value)))
        else:
            self.text(type(value).__qualname__, len(value), getattr(value, "_fields", ()))
            for one in value:
                self.value(one)

    def _named(self, value: Any) -> None:
        if isinstance(value, registry.CPUDispatcher):
            self.text("kernel", sorted((k, repr(v)) for k, v in value.targetoptions.items()))
            self._function(value.py_func)
        elif isinstance(value, types.ModuleType):
            self.text("module", value.__name__)
        elif callable(value) and _name(value) and _package(value) in _KNOWN:
            self.text("known", _package(value), getattr(value, "__module__", ""), _name(value))
        elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
            self._named_tuple(value)
        else:
            raise _Unknown

    def _named_tuple(self, value: Any) -> None:
        known: Any = getattr(sys.modules.get(value.__module__), value.__name__, None)
        if value.__module__ == "__main__" or known is not value:
            raise _Unknown  # it would come back from the disk as another class
        self.text("named tuple", value.__module__, value.__qualname__, value._fields)
        self.value(tuple(sorted(value._field_defaults.items())))

    def _code(self, code: types.CodeType) -> None:
        self.text(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.text(code.co_flags, code.co_argcount, code.co_kwonlyargcount, code.co_exceptiontable)
        for constant in code.co_consts:
            self.value(constant)

    def _function(self, function: types.FunctionType) -> None:
        self.text(function.__module__, function.__qualname__)
        self.value(function.__code__)
        self.value(function.__defaults__ or ())
        self.value(tuple((function.__kwdefaults__ or {}).items()))
        for cell in function.__closure__ or ():
            try:
                found = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            self._reached(found, function.__code__)
        for code in _codes(function.__code__):
            for name in sorted(_globals_read(code)):
                missing = getattr(builtins, name, None)
                self.text(name)
                self._reached(function.__globals__.get(name, missing), code)

    def _reached(self, value: Any, code: types.CodeType) -> None:
        """Add what a function reads; of a module, what it may read of that."""
        self.value(value)
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _KNOWN:
            for name in code.co_names:
                if name in vars(value):
                    self.text(name)
                    self._reached(vars(value)[name], code)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Iterate over a code object and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals_read(code: types.CodeType) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _package(value: Any) -> str:
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None) or ""
    return str(module).partition(".")[0]


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or "")


# The cache --------------------------------------------------------------------------------------
_CALLS = 5000
"""Calls of Python within each other that a compilation may take."""


class Entry(registry.CPUDispatcher):  # type: ignore[misc]
    """The dispatcher of an entry point."""

    def __init__(self, function: Callable[..., Any], cache: Any) -> None:
        super().__init__(function, targetoptions={"nopython": True})
        self._cache = cache

    @global_compiler_lock
    def compile(self, sig: Any) -> Any:
        """Compile for argument types, or load from the disk.

        Functions are told apart by a number that counts from 1 in each process, and the code in the caches of two processes
        may be linked into a third: so the number is drawn at random here.
        """
        before, limit = bytecode.FunctionIdentity._unique_ids, sys.getrecursionlimit()
        bytecode.FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(7), "big"))
        # Each function within a function takes numba some sixty calls more, and the caller may be deep down himself.
        sys.setrecursionlimit(max(limit, _CALLS))
        try:
            with uninterrupted(), linked_once():
                return super().compile(sig)
        except (errors.NumbaError, WritesMore, MemoryError):
            raise
        except Exception as error:  # numba's own, not the kernel's: that has not run
            raise errors.LoweringError(str(error) or type(error).__name__) from error
        finally:
            bytecode.FunctionIdentity._unique_ids = before
            sys.setrecursionlimit(limit)


class _EntryCache(caching._Cache):  # type: ignore[misc]
    """The disk cache of an entry point; a disk that fails costs a compilation, never an error.

    Which arguments are written is known only once the kernel has been compiled. So that is kept as well, under a key that
    does not have it in it.
    """

    def __init__(self, kernel: Any, key: tuple[Any, ...], count: int, written: tuple[int, ...]) -> None:
        own = _owner(kernel)._cache
        self._impl = own._impl
        self._file = _KeyedCacheFile(
            cache_path=own.cache_path,
            filename_base=f"{own._impl.filename_base}.nbad",
            source_stamp=own._impl.locator.get_source_stamp(),
        )
        self._kernel, self._key, self._count, self._written = kernel, key, count, written
        self._keys: dict[Any, tuple[Any, Any] | None] = {}

    @property
    def cache_path(self) -> str:
        """The directory."""
        return str(self._file._cache_path)

    def _keys_of(self, sig: Any, codegen: Any) -> tuple[Any, Any] | None:
        """Return the keys for what is written and for the code, as they were when the code was not yet compiled."""
        if sig not in self._keys:
            given = sig[4 : 4 + self._count]
            mark = fingerprint(self._kernel, self._key) if all(isinstance(t, _PLAIN) for t in given) else None
            machine = str(codegen.magic_tuple())
            self._keys[sig] = (
                None
                if mark is None
                else (
                    ("written", mark, str(given), machine),
                    ("code", mark, str(sig), machine, self._written),
                )
            )
        return self._keys[sig]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled entry point, or None; raise `WritesMore` if it has to be another one."""
        target_context.refresh()
        keys = self._keys_of(sig, target_context.codegen())
        if keys is None:
            return None
        try:
            written = self._file.load(keys[0])
            if written is not None and not written <= set(self._written):
                raise WritesMore(written)
            data = self._file.load(keys[1])
        except (OSError, EOFError):
            return None
        return data and self._impl.rebuild(target_context, data)

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep a compiled entry point."""
        keys = self._keys_of(sig, cres.codegen)
        if keys is None or cres.library.has_dynamic_globals or cres.lifted or calls_itself(cres.library):
            return
        try:
            self._impl.locator.ensure_cache_path()
            self._file.save(keys[1], self._impl.reduce(cres))
            self._file.save(keys[0], frozenset(self._written))
        except OSError:
            pass

    def enable(self) -> None:
        """Do nothing: the kernel's own cache decides."""

    disable = flush = enable


def cache_of(kernel: Any, key: tuple[Any, ...], count: int, written: tuple[int, ...]) -> Any:
    """Return the disk cache for an entry point: one that keeps nothing unless the kernel has one.

    Parameters
    ----------
    kernel : Dispatcher
        The user's.
    key : tuple
        What the entry point is made for: texts, numbers, types of named tuples.
    count : int
        Number of leaves of the arguments.
    written : tuple of int
        Which of them it takes as written.
    """
    if isinstance(_owner(kernel)._cache, caching.FunctionCache):
        return _EntryCache(kernel, key, count, written)
    return caching.NullCache()


def _owner(kernel: Any) -> Any:
    """Return the kernel itself, or the user's that it was written out for."""
    return vars(kernel).get("written_for", kernel)
