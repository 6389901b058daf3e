"""The worked example: it gains what its page says, with no transform too many, and the page shows the code that runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nbad

pytest.importorskip("scipy")

FOLDER = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deconvolution", FOLDER / "deconvolution.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Return a piece of the page's picture, or discs before a slope where scikit-image is missing."""
    if importlib.util.find_spec("skimage"):
        from skimage import data

        return np.ascontiguousarray(data.camera()[60:156, 160:256]) / 255.0
    y, x = np.mgrid[:96, :96] / 96
    discs = [
        ((y - a) ** 2 + (x - b) ** 2 < r**2)
        for a, b, r in [(0.3, 0.4, 0.2), (0.7, 0.6, 0.15), (0.6, 0.2, 0.08)]
    ]
    return 0.2 + 0.2 * x + 0.5 * np.sum(discs, axis=0)


def test_deconvolution_gains_what_it_promises(script: ModuleType, picture: np.ndarray) -> None:
    true, _ = script.observe(picture)
    states = script.solve(picture, iterations=30, rounds=2)
    gain = {name: script.psnr(state["image"], picture) for name, state in states.items()}
    assert gain["true kernels"] > gain["mean of the views"] + 2.5
    assert gain["alternating"] > gain["guessed kernels"] + 0.7
    off = {name: script.kernel_error(state["kernels"], true) for name, state in states.items()}
    assert off["alternating"] < 0.5 * off["guessed kernels"]


@pytest.mark.parametrize(
    ("wrt", "ffts"),
    [("image", 4), ("kernels", 4), (("image", "kernels"), 6)],
    ids=["image", "kernels", "both"],
)
def test_deconvolution_transforms_no_more_than_it_must(
    script: ModuleType, picture: np.ndarray, wrt: Any, ffts: int
) -> None:
    # At least: what is asked for and the misfit forward; the blurred views and one gradient each back.
    asked = 1 if isinstance(wrt, str) else len(wrt)
    least = (asked + 1) + (1 + asked)
    assert script.one_call(wrt, script.begin(script.observe(picture)[1])).ffts == ffts == least


def test_deconvolution_is_the_same_when_compiled_and_when_not(
    script: ModuleType, picture: np.ndarray
) -> None:
    state = script.begin(script.observe(picture)[1])
    for wrt in ("image", "kernels"):
        value, gradient = nbad.value_and_grad(script.loss, wrt=wrt)(**state)
        expected, plain = nbad.value_and_grad(script.loss.__wrapped__, wrt=wrt)(**state)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, plain, rtol=1e-9, atol=1e-11 * np.max(np.abs(plain)))


def test_the_page_shows_the_script() -> None:
    page = (FOLDER / "deconvolution.md").read_text(encoding="utf-8")
    code = (FOLDER / "deconvolution.py").read_text(encoding="utf-8")
    parts = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(parts) == 4
    assert [part for part in parts if f"\n{part}" not in code] == []
