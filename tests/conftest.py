"""Settings of every test run."""

import contextlib
import importlib
import os

import pytest


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
