"""The disk cache of kernels' entry points: warm processes do not compile, and nothing stale is served."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.scalar.caching import fingerprint

HELPERS = """
import numba
STEP = 3.0

@numba.njit(cache=True)
def half(x):
    return x * 0.5 * STEP
"""

KERNELS = """
import numba, numpy as np
import helpers
from collections import namedtuple

OFFSET = 2.0
TABLE = np.array([1.0, 2.0])
Pair = namedtuple("Pair", "a b")

@numba.njit(cache=True)
def fill(x, out):
    for i in range(x.size):
        out[i] = helpers.half(x[i]) + OFFSET * x[i] ** 2 * TABLE[0]
    return out[0] + out[1]

@numba.njit(cache=True)
def total(x, pair):
    return Pair(x[0] * pair.a, x[1] * pair.b)
"""

MAIN = """
import json, numpy as np
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    import nbad, kernels
    x = np.array([1.0, 2.0])
    kernels.fill(x, np.zeros(2))
    before = len(compiled.buffer)
    first = nbad.grad(kernels.fill)(x, np.zeros(2))
    second = nbad.grad(lambda x: nbad.njit(kernels.total)(x, kernels.Pair(2.0, 3.0)).b)(x)
    print(json.dumps([first.tolist(), second.tolist(), len(compiled.buffer) - before]))
"""


class Project:
    """Files of a program, and its cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(helpers=HELPERS, kernels=KERNELS, main=MAIN)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))

    def start(self) -> Any:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(nbad.__file__).parent.parent), str(self.folder)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [sys.executable, str(self.folder / "main.py")], env=environment, stdout=subprocess.PIPE, text=True
        )

    def finish(self, process: Any) -> Any:
        text, _ = process.communicate()
        assert process.returncode == 0
        return json.loads(text.splitlines()[-1])

    def run(self) -> Any:
        return self.finish(self.start())


def expected(step: float = 3.0) -> list[Any]:
    first = 0.5 * step + 4 * np.array([1.0, 2.0])
    return [first.tolist(), [0.0, 3.0]]


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_a_changed_helper_or_global_is_not_served_stale(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    together = [project.start(), project.start()]  # both find the cache cold
    for process in together:
        *found, compiled = project.finish(process)
        assert found == expected()
        assert compiled > 0
    assert project.run() == [*expected(), 0]
    project.write(helpers=HELPERS.replace("0.5 *", "1.0 *"))
    *found, compiled = project.run()
    assert found[1:] == expected()[1:]
    assert found[0] == expected(step=6.0)[0]
    assert compiled > 0


def kernel_of(text: str, **names: Any) -> Any:
    space = {"np": np, **names}
    exec(text, space)
    space["f"] = numba.njit(space["f"])
    return space["f"]


@numba.njit
def plus_one(x):
    return x + 1.0


@numba.njit
def plus_two(x):
    return x + 2.0


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"c": 1.0}, {"c": 2.0}),
        ({"c": 1}, {"c": 1.0}),
        ({"c": 0.0}, {"c": -0.0}),
        ({"c": np.arange(3.0)}, {"c": np.arange(3.0) + 1e-9}),
        ({"c": np.arange(3.0)}, {"c": np.arange(3)}),
        ({"c": (1.0, (2.0, 3))}, {"c": (1.0, (2.0, 4))}),
        ({"c": plus_one}, {"c": plus_two}),
        ({"c": np.sin}, {"c": np.cos}),
        ({"c": min}, {"c": max}),
    ],
)
def test_a_global_is_in_the_fingerprint(one: Any, other: Any) -> None:
    text = "def f(x):\n    return x, c"
    marks = [fingerprint(kernel_of(text, **names)) for names in (one, one, other)]
    assert marks[0] == marks[1] is not None
    assert marks[2] not in (None, marks[0])


def test_code_defaults_closures_and_options_are_in_the_fingerprint() -> None:
    def closed(number: float) -> Any:
        return numba.njit(lambda x: x * number)

    kernels = [
        kernel_of("def f(x):\n    return x + 1.0"),
        kernel_of("def f(x):\n    return x + 2.0"),
        kernel_of("def f(x, y=1.0):\n    return x + y"),
        kernel_of("def f(x, y=2.0):\n    return x + y"),
        kernel_of("def f(x):\n    def g(y):\n        return y * 3.0\n    return g(x)"),
        kernel_of("def f(x):\n    def g(y):\n        return y * 4.0\n    return g(x)"),
        kernel_of("def f(x):\n    return f(x - 1.0) if x > 1.0 else x"),
        closed(1.0),
        closed(2.0),
        numba.njit(error_model="numpy")(closed(1.0).py_func),
    ]
    marks = [fingerprint(kernel) for kernel in kernels]
    assert None not in marks
    assert len(set(marks)) == len(kernels)
    assert fingerprint(kernels[0], ("more",)) != marks[0]


def test_what_cannot_be_told_apart_is_not_cached() -> None:
    def helper(x: float) -> float:
        return x

    for value in (helper, [1.0], {1: 2.0}, namedtuple("Local", "x"), object()):
        assert fingerprint(kernel_of("def f(x):\n    return x, c", c=value)) is None
    assert fingerprint(kernel_of("def f(x):\n    return x, c", c=Point)) is not None


def test_a_cache_that_cannot_be_written_costs_a_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbad.scalar import caching

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernel = numba.njit(cache=True)(plus_one.py_func)

    def fail(*args: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(caching._KeyedCacheFile, "save", fail)
    assert nbad.grad(kernel)(3.0) == 1.0
    assert not list(tmp_path.rglob("*.nbad.*"))


def test_a_recompiled_kernel_is_derived_again() -> None:
    space = {"factor": 2.0}
    exec("def f(x):\n    return x * factor", space)
    kernel = numba.njit(space["f"])
    assert (kernel(1.0), nbad.grad(kernel)(1.0)) == (2.0, 2.0)
    space["factor"] = 3.0
    assert (kernel(1.0), nbad.grad(kernel)(1.0)) == (2.0, 2.0)  # numba takes globals as constants
    kernel.recompile()
    assert (kernel(1.0), nbad.grad(kernel)(1.0)) == (3.0, 3.0)


def test_threads_differentiate_one_kernel() -> None:
    @numba.njit
    def powers(x):
        total = 0.0
        for i in range(x.size):
            total += x[i] ** 3
        return total

    found: dict[int, Any] = {}

    def work(k: int) -> None:
        x = np.arange(1000.0) + k
        found[k] = [bool(np.array_equal(nbad.grad(powers)(x), 3 * x**2)) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [True] * 20 for k in range(4)}
