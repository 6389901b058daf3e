"""Settings of every test run."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Give compiled kernels a cache folder of this checkout, before numba reads its settings."""
    if "NUMBA_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir("numba"))
