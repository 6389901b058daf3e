"""The reference page of `nbad.scipy` lists what there is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_tables_are_not_stale():
    script = ROOT / "docs" / "generate_scipy.py"
    made = subprocess.run(
        [sys.executable, str(script), "--print"], check=True, capture_output=True, text=True
    )
    assert made.stdout == (ROOT / "docs" / "reference" / "scipy.md").read_text(encoding="utf-8")
