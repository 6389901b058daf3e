"""The numba options of the library, and the disk cache where it cannot or must not be used."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba import types
from numba.core import caching

from nbad import _jit
from nbad._jit import SOURCE_HASH, call_scalar, cfunc, intrinsic, jit, uninterrupted

ROOT = pathlib.Path(_jit.__file__).parents[1]


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    return tmp_path


def test_signature_list_and_none_compile_the_same(cache: pathlib.Path) -> None:
    def half(x: float) -> float:
        return x / 2

    @jit("float64(float64)")
    def by_string(x: float) -> float:
        return x / 2

    @jit(["float64(float64)", types.float32(types.float32)])
    def by_list(x: float) -> float:
        return x / 2

    assert by_string(3.0) == by_list(3.0) == jit(half)(3.0) == jit()(by_string.py_func)(3.0) == 1.5
    assert len(by_list.signatures) == 2
    assert by_string.nopython_signatures[0].return_type == types.float64
    with pytest.raises(TypeError, match="No matching definition"):
        by_string("x")


def test_division_by_zero_follows_numpy_and_the_gil_is_released(cache: pathlib.Path) -> None:
    @jit
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == np.inf
    assert divide.targetoptions["nogil"]
    assert "fastmath" not in divide.targetoptions
    assert "boundscheck" not in divide.targetoptions or divide.targetoptions["boundscheck"] is None


def test_name_of_a_cache_file_holds_the_source_hash(cache: pathlib.Path) -> None:
    @jit("int64(int64)")
    def twice(x: int) -> int:
        return 2 * x

    assert twice(4) == 8
    assert len(SOURCE_HASH) == 12
    files = [path.name for path in cache.rglob("*.nb?")]
    assert len(files) == 2
    assert all(f"twice_{SOURCE_HASH}" in name for name in files)


def test_source_hash_changes_with_a_kernel_source(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "_jit.py").write_text("a")
    kernel = tmp_path / "kernels" / "block.py"
    kernel.write_text("b")
    monkeypatch.setattr(_jit, "__file__", str(tmp_path / "_jit.py"))
    before = _jit._hash_sources()
    assert _jit._hash_sources() == before
    kernel.write_text("c")
    assert _jit._hash_sources() != before


def test_functions_work_where_no_cache_directory_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    @jit("int64(int64)")
    def twice(x: int) -> int:
        return 2 * x

    @cfunc("int64(int64)")
    def thrice(x: int) -> int:
        return 3 * x

    assert twice(4) == 8
    assert thrice.ctypes(4) == 12


def test_other_errors_of_the_cache_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, function: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(caching.FunctionCache, "__init__", fail)
    with pytest.raises(RuntimeError, match="something else"):
        jit("int64(int64)")(lambda x: x)


@pytest.mark.parametrize("method", ["save", "load"])
def test_a_disk_that_fails_costs_only_the_cache(
    cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_jit._KeyedCacheFile, method, fail)

    @jit("int64(int64)")
    def twice(x: int) -> int:
        return 2 * x

    assert twice(4) == 8


def test_processes_that_start_from_one_empty_index_write_files_of_their_own(cache: pathlib.Path) -> None:
    # Both read the index before either has written it: numba's numbering gives both the same file.
    def identity(x: Any) -> Any:
        return x

    identity.__qualname__ = "identity"
    first, second = _jit._make_cache(identity), _jit._make_cache(identity)
    first._cache_file._load_index = dict
    second._cache_file._load_index = dict
    first._cache_file.save("one key", "one")
    second._cache_file.save("other key", "other")
    reader = _jit._make_cache(identity)._cache_file
    assert reader.load("other key") == "other"
    assert reader.load("one key") is None
    assert len(list(cache.rglob("*.nbc"))) == 2


@pytest.mark.slow
def test_second_process_takes_functions_from_the_disk(tmp_path: pathlib.Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from nbad._jit import cfunc, jit\n"
        "@jit('int64(int64)')\n"
        "def twice(x):\n    return 2 * x\n"
        "@cfunc('int64(int64)')\n"
        "def thrice(x):\n    return 3 * x\n"
        "print(sum(twice.stats.cache_hits.values()), thrice.cache_hits, twice(4), thrice.ctypes(4))\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
    }  # with a cache folder that knows the library, not this file
    outputs = [
        subprocess.run(
            [sys.executable, str(module)], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert outputs == [["0", "0", "8", "12"], ["1", "1", "8", "12"]]


def test_scalar_function_is_called_from_an_intrinsic() -> None:
    def reciprocal(x: Any) -> Any:
        return 1 / x

    @intrinsic
    def invert(typing_context: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return call_scalar(context, builder, reciprocal, types.float64(types.float64), args)

        return types.float64(types.float64), emit

    @jit(cache=False)
    def run(x: float) -> float:
        return invert(x)

    assert run(4.0) == 0.25
    assert run(0.0) == np.inf


def test_plain_python_when_numba_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", 1)

    @jit("int64(int64)")
    def twice(x: int) -> int:
        return 2 * x

    assert twice(4) == 8
    assert not hasattr(twice, "py_func")


@pytest.fixture
def control_c() -> Iterator[None]:
    """Make SIGALRM a Ctrl-C; a shell lets what it starts in the background ignore the real one."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timer")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, alarm)
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("control_c")
def test_an_interrupt_while_a_function_compiles_waits_for_it(cache: pathlib.Path) -> None:
    def cube(x: float) -> float:
        return x * x * x

    compiled = jit(cube)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    with pytest.raises(KeyboardInterrupt):
        compiled(2.0)
    assert len(compiled.signatures) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    signal.setitimer(signal.ITIMER_REAL, 0.005)
    with pytest.raises(KeyboardInterrupt):
        cfunc("float64(float64)", cache=False)(cube)
    assert compiled(2.0) == 8.0
    assert cfunc("float64(float64)", cache=False)(cube).ctypes(3.0) == 27.0


def test_interrupts_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
