"""Own every numba option of the library: `jit`, `cfunc` and the safety of the disk cache.

No other module calls numba's decorators, and this one compiles nothing itself. Ctrl-C waits until a compilation has
ended. Three things about numba's disk cache are put right here, once, for all functions:

- where no cache directory can be written (read-only installation, no home), functions compile without one;
- a function's cache entry carries a hash of the sources that may be compiled into it, because numba
  looks only at the file that holds the function and misses a changed helper in another file;
- the data file of an entry is named by its key, because numba numbers these files, and two processes that
  fill a cold cache at once then take the same number for different functions and load each other's code.
"""

import contextlib
import functools
import hashlib
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import numba
import numba.extending
from numba.core import caching, ccallback, compiler, sigutils, typeinfer

__all__ = [
    "SCALAR_HASH",
    "SOURCE_HASH",
    "call_scalar",
    "cfunc",
    "helper",
    "intrinsic",
    "jit",
    "uninterrupted",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def _hash_sources() -> str:
    """Hash the sources of all modules that hold jitted code, in an order that does not depend on the disk."""
    here = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    compiled = [path for path in sorted(here.rglob("*.py")) if b"from nbad._jit import" in path.read_bytes()]
    compiled = [path for path in compiled if path.parent.name != "scalar"]
    # The loop of replays takes constants from these two.
    compiled += [path for path in sorted(here.glob("replay/*.py")) if path.name in ("blocks.py", "tiles.py")]
    for path in [pathlib.Path(__file__), *sorted(here.glob("kernels/*.py")), *compiled]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


SOURCE_HASH: str = _hash_sources()
"""Twelve hexadecimal digits over the sources of all modules that hold jitted code, but for the folder scalar."""


def _hash_scalar() -> str:
    """Hash the sources of the folder scalar, which nothing outside of it is compiled with, and the rest with them."""
    digest = hashlib.sha256(SOURCE_HASH.encode())
    for path in sorted((pathlib.Path(__file__).parent / "scalar").glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


SCALAR_HASH: str = _hash_scalar()
"""The same for what is compiled with a user's kernels."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let an interrupt (Ctrl-C) that falls into the block happen at its end.

    numba does not survive one: its registries are read by generators, which an exception ends for good, and after
    that nothing in the process compiles or comes from the disk any more.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    caught: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[-1])


def _compile_uninterrupted(compiler: Any, *args: Any) -> Any:
    """Call the `compile` of a dispatcher's class with `uninterrupted` around it."""
    with uninterrupted():
        return type(compiler).compile(compiler, *args)


class _KeyedCacheFile(caching.IndexDataCacheFile):  # type: ignore[misc]  # numba has no annotations
    """A cache index whose data files are named by key and source stamp, not by a running number."""

    def save(self, key: Any, data: Any) -> None:
        name = hashlib.sha256(repr((key, self._source_stamp)).encode()).hexdigest()[:16]
        data_name = self._data_name_pattern.format(number=int(name, 16))
        # The data goes first: an index entry never points at a file that is not there yet.
        self._save_data(data_name, data)
        overloads = self._load_index()
        overloads[key] = data_name
        self._save_index(overloads)


class _Cache(caching.FunctionCache):  # type: ignore[misc]  # numba has no annotations
    """The disk cache of one function; a disk that fails costs a compilation, never an error."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _KeyedCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError):
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            self.disable()


def _make_cache(function: Callable[..., Any]) -> Any:
    """Return the disk cache of `function`, or one that keeps nothing where no directory can be written."""
    try:
        return _Cache(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        return caching.NullCache()


def _compile(function: Callable[..., Any], signatures: list[Any], options: dict[str, Any]) -> Any:
    """Turn `function` into a numba dispatcher with the options of the library."""
    cached = options.pop("cache", True)
    settings = {"nogil": True, "error_model": "numpy", **options}
    # The hash is part of the name before numba sees the function: the name decides the cache file.
    sources = SCALAR_HASH if function.__module__.startswith("nbad.scalar.") else SOURCE_HASH
    function.__qualname__ = f"{function.__qualname__}_{sources}"
    dispatcher = numba.njit(**settings)(function)
    if dispatcher is function:  # NUMBA_DISABLE_JIT=1: plain Python for debugging
        return function
    if cached:
        dispatcher._cache = _make_cache(function)
    dispatcher.compile = functools.partial(_compile_uninterrupted, dispatcher)
    if signatures:
        with typeinfer.register_dispatcher(dispatcher):
            for signature in signatures:
                dispatcher.compile(signature)
            dispatcher.disable_compile()
    return dispatcher


@overload
def jit(function: Function, /) -> Function: ...
@overload
def jit(signature: str | list[Any] | Any = ..., /, **options: Any) -> Callable[[Function], Function]: ...
def jit(function_or_signature: Any = None, /, **options: Any) -> Any:
    """Compile a function with numba: nogil, NumPy's error model, cached on disk where that is possible.

    Bounds checks are left to the environment variable NUMBA_BOUNDSCHECK.

    Parameters
    ----------
    function_or_signature : callable, signature, list of signatures or None
        The function (`@jit`), or the types to compile for at once (`@jit("int64(int64)")`); with
        neither (`@jit(inline="always")`) types are taken from the first call.
    **options
        Passed to `numba.njit`; `cache=False` keeps a function off the disk.

    Returns
    -------
    dispatcher or decorator
        The compiled function, or a decorator that makes it.

    Examples
    --------
    >>> @jit("float64(float64)", cache=False)
    ... def double(x):
    ...     return x + x
    >>> double(2.0)
    4.0
    """
    if function_or_signature is None:
        signatures = []
    elif isinstance(function_or_signature, list):
        signatures = function_or_signature
    elif sigutils.is_signature(function_or_signature):
        signatures = [function_or_signature]
    else:
        return _compile(function_or_signature, [], options)

    def decorate(function: Callable[..., Any]) -> Any:
        return _compile(function, signatures, dict(options))

    return decorate


def helper(signature: str) -> Callable[[Function], Function]:
    """Compile a function that only jitted code calls: without the wrappers for Python and C it takes half the time.

    Parameters
    ----------
    signature : str
        The types, with the type returned.

    Returns
    -------
    decorator
        Makes the compiled function.
    """
    return jit(signature, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def cfunc(signature: Any, /, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function to a C callback, cached on disk where that is possible.

    Parameters
    ----------
    signature : str or numba signature
        The types, with the type returned.
    **options
        Passed to numba; `cache=False` keeps the function off the disk.

    Returns
    -------
    decorator
        Gives an object whose `address` is the callback's; the address is valid while the object lives.
        `cache_hits` is 1 if the code came from the disk.

    Notes
    -----
    An exception inside a callback is printed and lost, and 0 is returned: callbacks must not raise.
    """
    args = sigutils.normalize_signature(signature)
    cached = options.pop("cache", True)

    def decorate(function: Callable[..., Any]) -> Any:
        callback: Any = ccallback.CFunc(
            function, args, locals={}, options={"error_model": "numpy", "nopython": True, **options}
        )
        if cached:
            callback._cache = _make_cache(function)
        _compile_uninterrupted(callback)
        return callback

    return decorate


def intrinsic(function: Callable[..., Any], /) -> Any:
    """Make a function of jitted code from one that types it and emits LLVM; literal arguments stay literal.

    Parameters
    ----------
    function : callable
        Called with the typing context and the argument types; returns a signature and an emitter.

    Returns
    -------
    intrinsic
        What jitted code calls.
    """
    return numba.extending.intrinsic(prefer_literal=True)(function)


def call_scalar(context: Any, builder: Any, function: Callable[..., Any], signature: Any, args: Any) -> Any:
    """Compile a plain function of scalars and emit a call of it, from within an intrinsic.

    Parameters
    ----------
    context, builder
        As the emitter of an intrinsic gets them.
    function : callable
        Plain Python that numba can compile; it may use intrinsics.
    signature : numba signature
        Types of the arguments and of the result, to which what the function returns is cast.
    args : sequence of llvmlite values
        The arguments.

    Returns
    -------
    llvmlite value
        The result.

    Notes
    -----
    Division follows NumPy (``x / 0`` is inf); numba does not hand that option down by itself.
    """
    flags: Any = compiler.Flags()
    flags.error_model = "numpy"
    compiled = context.compile_subroutine(builder, function, signature, flags=flags)
    return context.call_internal(builder, compiled.fndesc, signature, args)
