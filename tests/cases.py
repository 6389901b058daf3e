"""The cases of all rule families, for laws that are not of one operation."""

import importlib.util
import pathlib
from typing import Any

import pytest


def all_cases() -> list[Any]:
    """List (case, dtype) of every case, in double precision where it has one."""
    found = []
    for path in sorted((pathlib.Path(__file__).parent / "rules").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"cases_of_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for case in getattr(module, "CASES", []):
            kinds = [dtype for dtype in case.dtypes if dtype in ("f8", "c16")] or list(case.dtypes[:1])
            found += [pytest.param(case, dtype, id=f"{path.stem[5:]}-{case.name}-{dtype}") for dtype in kinds]
    return found
