"""Threads, forks, spawned processes, interrupts, and places where nothing can be written."""

import collections
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threaded import in_threads

import nbad
from nbad.kernels.threads import get_threads, set_threads

ROOT = pathlib.Path(nbad.__file__).parents[1]
LARGE = 1 << 17

# What the other processes run. `check` compares gradients of every kind of step with formulas.
PROGRAM = """
import os, sys
import numpy as np
import nbad

def check(dtypes=("f8", "f4"), sizes=(5, 40_000)):
    for dtype in dtypes:
        for size in sizes:
            x = np.linspace(0.1, 0.9, size).astype(dtype)
            y = np.linspace(0.5, 1.5, size).astype(dtype)
            got = nbad.grad(lambda x, y: np.sum(np.exp(-x * x) * y + np.sqrt(y) / x), (0, 1))(x, y)
            e, r = np.exp(-x * x), np.sqrt(y)
            tolerance = 1e-12 if dtype == "f8" else 1e-4
            np.testing.assert_allclose(got[0], -2 * x * e * y - r / (x * x), rtol=tolerance)
            np.testing.assert_allclose(got[1], e + 0.5 / (r * x), rtol=tolerance)
            assert got[0].dtype == got[1].dtype == dtype
    if max(sizes) > 1000:
        one = np.ones(1 << 18)
        np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(x * x))(one), 2 * one)

SMALL = {"dtypes": ("f8",), "sizes": (5,)}
"""


def run(code: str, env: dict[str, str] | None = None, cwd: pathlib.Path = ROOT) -> subprocess.Popen[str]:
    """Start a Python process on `PROGRAM` and `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process; its output is in the message if it failed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return settings with a cache folder that two processes have filled at once."""
    env = {"NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    both = [run("check(); print('right')", env) for _ in range(2)]
    outputs = [finish(process) for process in both]
    assert [output.strip() for output in outputs] == ["right", "right"]
    return env


# Processes ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_two_processes_fill_a_cold_cache_at_once(cache: dict[str, str]) -> None:
    # What they left behind is right too: a third one loads it.
    assert finish(run("check(); print('right')", cache)).strip() == "right"


@pytest.mark.slow
def test_a_warm_cache_is_used(cache: dict[str, str]) -> None:
    def stamps() -> dict[pathlib.Path, int]:
        return {
            path: path.stat().st_mtime_ns for path in pathlib.Path(cache["NUMBA_CACHE_DIR"]).rglob("*.nb?")
        }

    before = stamps()
    assert len(before) > 10
    finish(run("check()", cache))
    assert stamps() == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("used", [True, False], ids=["pool used", "pool not used"])
def test_a_forked_child_computes_gradients(cache: dict[str, str], used: bool) -> None:
    code = f"""
import signal, warnings
warnings.simplefilter("ignore")  # forking a process with threads is the point
nbad.set_threads(2)
check(sizes={(5, 40_000) if used else (5,)})
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs dies
    try:
        check()
        grandchild = os.fork()
        if grandchild == 0:
            check()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    except BaseException as error:
        print(error, flush=True)
        os._exit(1)
check()  # the parent goes on at the same time
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("right")
"""
    assert finish(run(code, cache)).strip() == "right"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing(cache: dict[str, str], method: str, tmp_path: pathlib.Path) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no such start method")
    script = tmp_path / "work.py"
    script.write_text(
        "import multiprocessing, warnings\n"
        "import numpy as np\n"
        "import nbad\n"
        "def loss(x, y):\n"
        "    return np.sum(np.sin(x) * y)\n"
        "def work(x):\n"
        "    return nbad.grad(loss)(x, 2.0)\n"
        "if __name__ == '__main__':\n"
        "    warnings.simplefilter('ignore')\n"
        "    work(np.ones(100_000))\n"
        f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "        inputs = [np.full(100_000, k / 8) for k in range(4)]\n"
        "        for x, got in zip(inputs, pool.map(work, inputs, chunksize=1), strict=True):\n"
        "            np.testing.assert_allclose(got, 2 * np.cos(x), rtol=1e-14)\n"
        "    print('right')\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, **cache, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finish(process).strip() == "right"


@pytest.mark.slow
def test_nothing_can_be_written(tmp_path: pathlib.Path) -> None:
    # A file where a folder would have to be made stops also those whom permissions do not.
    site = tmp_path / "site"
    shutil.copytree(ROOT / "nbad", site / "nbad", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [site / "nbad", *(p for p in (site / "nbad").rglob("*") if p.is_dir())]:
        (folder / "__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_", "HOME", "PYTHON"))}
    env |= {"HOME": str(home), "PYTHONPATH": str(site), "TMPDIR": str(home), "LOCALAPPDATA": str(home)}
    before = sorted(tmp_path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + "check(**SMALL); print(nbad.__file__)"],
        env=env,
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finish(process).strip() == str(site / "nbad" / "__init__.py")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="HOME is what this is about")
def test_import_without_home(cache: dict[str, str]) -> None:
    env = {k: v for k, v in os.environ.items() if k != "HOME"} | cache
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + "check(**SMALL); print('right')"],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finish(process).strip() == "right"


# Threads ------------------------------------------------------------------------------------------
@pytest.fixture(params=[1, 2])
def pool(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set how many threads large steps use."""
    before = get_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


def mixed_loss(x: Any, y: Any) -> Any:
    z = np.exp(-x * x) * np.sin(3 * x) + np.log1p(y * y)
    return np.sum(z * np.sum(y) + np.sqrt(y)) / 7.0


def test_four_threads_at_once(pool: int) -> None:
    rng = np.random.default_rng(1)
    sizes = [3, 3000, LARGE, 0]
    inputs = [(rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)) for n in sizes]
    expected = [nbad.value_and_grad(mixed_loss, (0, 1))(*args) for args in inputs]

    def work(k: int) -> None:
        for i in range(12):
            j = (k + i) % len(sizes)
            value, gradient = nbad.value_and_grad(mixed_loss, (0, 1))(*inputs[j])
            # The same bits, whoever else is at work.
            assert value == expected[j][0]
            np.testing.assert_array_equal(gradient[0], expected[j][1][0])
            np.testing.assert_array_equal(gradient[1], expected[j][1][1])

    in_threads(4, work)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0.5, 1.5, LARGE), rng.uniform(0.5, 1.5, LARGE)
    before = get_threads()
    results = []
    try:
        for count in (1, 2, 3):
            set_threads(count)
            results.append(nbad.value_and_grad(mixed_loss, (0, 1))(x, y))
    finally:
        set_threads(before)
    for value, gradient in results[1:]:
        assert value == results[0][0]
        np.testing.assert_array_equal(gradient[0], results[0][1][0])
        np.testing.assert_array_equal(gradient[1], results[0][1][1])


def test_rules_are_translated_by_several_threads_at_once() -> None:
    # Every thread meets operations that no program exists for yet, in an order of its own.
    from nbad.program import PROGRAMS

    functions = [np.sin, np.tanh, np.arctan, np.log1p, np.expm1, np.cosh, np.arcsinh, np.square]
    x = np.linspace(0.1, 0.9, 50)
    with PROGRAMS._lock:
        PROGRAMS.state = np.zeros_like(PROGRAMS.state)
    expected = {}
    for f in functions:
        h = 1e-6
        expected[f] = (f(x + h) - f(x - h)) / (2 * h)

    def work(k: int) -> None:
        for f in functions[k:] + functions[:k]:
            got = nbad.grad(lambda x: np.sum(f(x)))(x)  # noqa: B023
            np.testing.assert_allclose(got, expected[f], rtol=1e-8)

    in_threads(4, work)


def test_one_pullback_called_by_several_threads() -> None:
    x = np.linspace(0.0, 1.0, 4000)
    _, pullback = nbad.vjp(lambda x: np.sin(x) * x, x)
    expected = np.cos(x) * x + np.sin(x)

    def work(k: int) -> None:
        for _ in range(10):
            np.testing.assert_allclose(pullback(np.full(4000, k + 1.0)), (k + 1.0) * expected, rtol=1e-13)

    in_threads(4, work)


def test_reports_hear_their_own_thread_only() -> None:
    def work(k: int) -> None:
        with nbad.report() as account:
            for _ in range(k + 1):
                nbad.grad(lambda x: np.sum(x * x))(np.ones(5))
        assert account.sweeps == k + 1

    in_threads(4, work)


def test_primitives_are_defined_by_several_threads_at_once() -> None:
    def work(k: int) -> None:
        for i in range(20):
            factor = 1.0 + k + i

            def of_x(g, *, scale):
                return g * scale

            @nbad.primitive(x=of_x)
            def scaled(x, *, scale):
                return x * scale

            got = nbad.grad(lambda x: np.sum(scaled(x, scale=factor)))(np.ones(3))  # noqa: B023
            np.testing.assert_array_equal(got, np.full(3, factor))

    in_threads(4, work)


def test_a_gradient_inside_a_rule() -> None:
    # The sweep of one call is under way while another one starts and ends in the same thread.
    def of_x(g, x):
        return g * nbad.grad(lambda t: np.sum(t**3))(x)

    @nbad.primitive(x=of_x)
    def cube(x):
        return x**3

    x = np.linspace(0.5, 1.0, 3000)
    got = nbad.grad(lambda x: np.sum(np.sin(cube(np.exp(x))) * x))(x)
    e = np.exp(x)
    np.testing.assert_allclose(got, np.cos(e**3) * 3 * e**3 * x + np.sin(e**3), rtol=1e-12)


# Interrupts ---------------------------------------------------------------------------------------
def chain(x: Any) -> Any:
    for _ in range(3000):
        x = x * 0.999 + 0.001
    return x


def wide(x: Any) -> Any:
    for _ in range(6):
        x = np.sin(x) * np.exp(-x) + np.sum(x) * 1e-9
    return x


def host_rule(g, x):
    return 2.0 * g * x


@nbad.primitive(x=host_rule)
def host_square(x):
    return x * x


def hosted(x: Any) -> Any:
    for _ in range(200):
        x = host_square(x)
    return x


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Give a function that makes Ctrl-C happen after some seconds."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timer")

    def handler(number: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, handler)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)
    signal.signal(signal.SIGINT, interrupt)


def interrupt(call: Callable[[], Any], delay: float, alarm: Callable[[float], None]) -> None:
    """Call again and again until Ctrl-C ends it.

    Python prints and drops a KeyboardInterrupt that falls into a finalizer (the one that gives memory back, here), so a lost
    one is followed by another.
    """
    for _ in range(20):
        alarm(delay)
        end = time.monotonic() + 1.0
        try:
            while time.monotonic() < end:
                call()
        except KeyboardInterrupt:
            return
    pytest.fail("twenty interrupts were lost")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("f", "size"),
    [(chain, 10), (chain, 3000), (wide, 1 << 18), (hosted, 1000)],
    ids=["small", "middle", "large", "host"],
)
def test_interrupt_during_a_sweep(f: Any, size: int, alarm: Callable[[float], None], pool: int) -> None:
    x = np.linspace(0.1, 0.9, size)
    seed = np.ones(size)
    _, pullback = nbad.vjp(f, x)
    expected = pullback(seed)
    for delay in (0.005, 0.013, 0.029, 0.041):
        interrupt(lambda: pullback(seed), delay, alarm)
        np.testing.assert_array_equal(pullback(seed), expected)
    value, gradient = nbad.value_and_grad(mixed_loss)(x + 0.5, x + 0.5)
    again = nbad.value_and_grad(mixed_loss)(x + 0.5, x + 0.5)
    assert value == again[0]
    np.testing.assert_array_equal(gradient, again[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_during_the_forward(alarm: Callable[[float], None]) -> None:
    x = np.linspace(0.1, 0.9, 1 << 17)
    expected = nbad.grad(lambda x: np.sum(wide(x)))(x)
    for delay in (0.003, 0.011, 0.023):
        interrupt(lambda: nbad.grad(lambda x: np.sum(wide(x)))(x), delay, alarm)
        np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(wide(x)))(x), expected)


def test_an_error_in_the_middle_of_a_sweep_leaves_the_library_usable() -> None:
    calls = [0]

    def of_x(g, x):
        calls[0] += 1
        if calls[0] % 2:
            raise ZeroDivisionError
        return g * x

    @nbad.primitive(x=of_x)
    def moody(x):
        return 0.5 * x * x

    x = np.linspace(0.1, 0.9, 5000)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            nbad.grad(lambda x: np.sum(np.sin(moody(np.exp(x)))))(x)
        got = nbad.grad(lambda x: np.sum(np.sin(moody(np.exp(x)))))(x)
        e = np.exp(x)
        np.testing.assert_allclose(got, np.cos(0.5 * e * e) * e * e, rtol=1e-12)


Pair = collections.namedtuple("Pair", "first second")


@nbad.njit
def long_kernel(x, n):
    total = 0.0
    for _ in range(n):
        total = 0.5 * total + x[0]
    return Pair(total, (x * total, (None, "text"))), ()


def test_interrupt_while_a_kernel_records(alarm: Callable[[float], None]) -> None:
    x = np.ones(2)
    value, pullback = nbad.vjp(lambda x: long_kernel(x, 10)[0].first, x)
    expected = pullback(1.0)
    for delay in (0.003, 0.011, 0.023):
        interrupt(lambda: nbad.vjp(lambda x: long_kernel(x, 1_000_000)[0].first, x), delay, alarm)
        assert nbad.vjp(lambda x: long_kernel(x, 10)[0].first, x)[0] == value
        np.testing.assert_array_equal(nbad.grad(lambda x: long_kernel(x, 10)[0].first)(x), expected)


@nbad.njit
def talking_kernel(x, n):
    total = 0.0
    for i in range(n):
        total = 0.5 * total + x[i % 2] * x[0]
        if i % 50 == 0:
            print(i)
    return total


class Slow:
    """A stream that lets other threads run at each write."""

    def write(self, text: str) -> None:
        time.sleep(1e-4)

    def flush(self) -> None:
        pass


def test_kernels_that_print_record_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Slow())
    gradient = nbad.grad(talking_kernel)
    points = [np.array([1.0, 2.0]) * scale for scale in (1, 2, 3, 4)]
    expected = [gradient(x, 500) for x in points]

    def work(k: int) -> None:
        for _ in range(5):
            np.testing.assert_array_equal(gradient(points[k], 500), expected[k])

    in_threads(len(points), work)


def test_a_kernel_that_prints_is_not_recorded_within_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, x, refused = nbad.grad(talking_kernel), np.array([1.0, 2.0]), []
    expected = gradient(x, 70)

    class Nosy(Slow):
        def write(self, text: str) -> None:
            with pytest.raises(RuntimeError, match="talking_kernel is differentiated while a kernel"):
                gradient(2 * x, 60)
            refused.append(text)

    monkeypatch.setattr(sys, "stdout", Nosy())
    np.testing.assert_array_equal(gradient(x, 70), expected)
    assert refused
