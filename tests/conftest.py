"""Settings of every test run."""

import contextlib
import gc
import importlib
import os

import pytest

# The battery of laws shows the values of a failed assertion, as tests do. Here and not in a folder of tests that
# use it: pytest refuses to mark a module that is imported already.
pytest.register_assert_rewrite("laws", "compiled_cases")


def pytest_configure(config: pytest.Config) -> None:
    """Give compiled kernels a cache folder of this checkout, before numba reads its settings."""
    if "NUMBA_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir("numba"))


def pytest_collection() -> None:
    """Import nbad before the doctests of its modules are collected.

    pytest imports a module that is not loaded yet by itself, past the import system: it would run twice, fill
    the table twice, and its name would hide a function of the same name in the package.
    """
    with contextlib.suppress(Exception):  # a package that fails to import shows itself at its tests
        importlib.import_module("nbad")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes long come first: at the end a worker with a long test would leave the others without work."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Let the garbage collector skip what collection made.

    It stays to the end, and to walk over 26,000 tests takes a second, in each collection that a test asks for.
    """
    gc.collect()
    gc.freeze()
