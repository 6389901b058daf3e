"""What a compiled function shows and keeps: reports, listings, refusals, copies, files (its values: test_compile_laws)."""

import copy
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.replay.rewrites import REWRITES

X = np.array([0.3, -1.2, 2.0])


@nbad.compile
def known_by_name(x: Any) -> Any:
    return np.sum(np.tanh(x) ** 2)


def twice(x: Any) -> Any:
    return np.sum(x * 2.0)


def test_report_names_the_line_that_caused_a_recording() -> None:
    @nbad.compile
    def f(x: Any) -> Any:
        if np.sum(x) > 0:
            return np.sum(x * x)
        return np.sum(x)

    for sign in (1, -1, 1, -1, 1):
        f(sign * np.ones(3))
    account = f.report()
    assert (account.replays, account.recordings, account.variants, account.evictions) == (3, 2, 2, 0)
    ((line, count),) = account.lines.items()
    assert count == 1
    assert "if np.sum(x) > 0" in line
    assert "3" in str(account)
    f.clear()
    assert f.variants == 0
    assert f.report().replays == 3


def test_a_replay_is_counted_in_a_report() -> None:
    f = nbad.compile(lambda x, k: np.sum(x * np.exp(k)))
    for _ in range(3):
        nbad.grad(f)(X, X)
    with nbad.report() as account:
        nbad.grad(f)(X, X)
    assert (account.replays, account.nodes_run) == (1, 0)  # the gradient is exp(k), and k is what it was
    assert account.nodes_skipped == 1
    assert "replays" in str(account)


def test_more_variants_than_are_kept_warn_once_and_name_the_cause() -> None:
    f = nbad.compile(lambda x, n: np.sum(x) * n, variants=2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for n in range(8):
            assert f(X, n) == np.sum(X) * n
    assert len(seen) == 1
    assert "more than 2 recordings" in str(seen[0].message)
    assert seen[0].filename == __file__
    assert f.variants == 2
    assert f.report().evictions == 6


def test_a_line_is_named_where_a_guard_evicts() -> None:
    @nbad.compile(variants=2)
    def f(x: Any) -> Any:
        return np.sum(x) * float(nbad.stop_gradient(x[0]))

    with pytest.warns(RuntimeWarning, match=re.escape("float(nbad.stop_gradient(x[0]))")):
        for k in range(5):
            assert f(X + k) == np.sum(X + k) * (X[0] + k)


def test_the_least_recently_used_variant_goes_first() -> None:
    f = nbad.compile(lambda x, n: np.sum(x) * n, variants=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (1, 2, 1, 1, 3, 1, 1):
            f(X, n)
    assert f.report().recordings == 3


def test_switching_wrt_reuses_the_recording() -> None:
    calls = []

    @nbad.compile
    def f(a: Any, b: Any) -> Any:
        calls.append(None)
        return np.sum(np.sin(a) * b)

    for wrt in (0, 1, (0, 1), "b"):
        for _ in range(3):
            nbad.value_and_grad(f, wrt)(X, X)
    nbad.vjp(f, X, X)
    nbad.jvp(f, (X, X), (X, None))
    nbad.hvp(f)(X, X, X)
    assert len(calls) == 1


def test_what_has_no_rule_runs_uncompiled_with_one_warning() -> None:
    f = nbad.compile(lambda x, a: np.sum(x * a) + 0 * np.union1d(a, a)[0])
    a = np.diag([1.0, 2.0])
    x = np.ones((2, 2))
    with pytest.warns(RuntimeWarning, match="runs uncompiled") as seen:
        for _ in range(3):
            assert f(x, a) == 3.0
            np.testing.assert_array_equal(nbad.grad(f)(x, a), a)
    assert len(seen) == 1
    with pytest.raises(nbad.NoRuleError, match="union1d"):
        nbad.grad(f, 1)(x, a)


def test_an_error_of_the_function_is_its_own() -> None:
    @nbad.compile
    def f(x: Any) -> Any:
        if x.shape == (2,):
            raise ValueError("two is not allowed")
        return np.sum(x)

    assert f(X) == np.sum(X)
    with pytest.raises(ValueError, match="two is not allowed"):
        f(X[:2])
    assert f(X) == np.sum(X)


def test_drawn_numbers_warn() -> None:
    f = nbad.compile(lambda x: np.sum(x * np.random.default_rng().random(3)) + np.random.rand())  # noqa: NPY002
    with pytest.warns(RuntimeWarning, match="random"):
        f(X)


def test_the_listing_shows_nodes_guards_and_lines() -> None:
    @nbad.compile
    def f(x: Any, scale: Any) -> Any:
        return np.sum(np.exp(x) * scale) if np.max(x) > 0 else np.sum(x)

    assert f.tape is None
    f(X, 2.0)
    text = str(f.tape)
    assert "= exp(%0)" in text
    assert "Python float64" in text
    assert "guard     truth" in text
    assert "test_compiled.py:" in text
    assert text.splitlines()[-1].startswith("return ")
    assert len(f.tape) == text.count(" = ") - text.count("constant")
    dot = f.to_dot()
    assert dot.startswith("digraph tape {")
    assert dot.count("{") == dot.count("}")
    assert "exp float64[3]" in dot


@pytest.mark.parametrize("name", REWRITES)
def test_each_rewrite_can_be_left_out(name: str) -> None:
    u, v = np.random.default_rng(0).random((2, 4, 5))

    def f(u: Any, v: Any) -> Any:
        product = np.real(np.fft.ifftn(np.fft.fftn(u) * np.fft.fftn(v)))
        return np.sum((product * 1.0 - u) ** 2) + 0.0 * np.sum(v * v)

    expected = nbad.value_and_grad(f, (0, 1))(u, v)
    g = nbad.value_and_grad(nbad.compile(f, rewrites=[n for n in REWRITES if n != name]), (0, 1))
    for _ in range(3):
        value, gradients = g(u, v)
        np.testing.assert_allclose(value, expected[0], rtol=1e-12)
        for found, wanted in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_rewrites_are_listed_in_the_docs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "rewrites.md").read_text(encoding="utf-8")
    assert [name for name in REWRITES if f"`{name}`" not in page] == []


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="no rewrite 'fast'"):
        nbad.compile(twice, rewrites=["fast"])
    with pytest.raises(ValueError, match="at least 1"):
        nbad.compile(twice, variants=0)
    with pytest.raises(TypeError, match="takes a function"):
        nbad.compile(3)


def test_a_loaded_function_gives_the_same_bits(tmp_path: Path) -> None:
    def f(params: Any, x: Any, power: int) -> Any:
        z = np.tanh(x @ params["w"] + params["b"][0])
        if np.sum(z) > 0:
            z = z * params["b"][1]
        return np.sum(z**power)

    compiled = nbad.compile(f)
    rng = np.random.default_rng(0)
    params = {"w": rng.random((3, 2)), "b": [rng.random(2), 1.5]}
    x = rng.random((4, 3))
    for sign in (1.0, -1.0):
        compiled(params, sign * x, 2)
    path = tmp_path / "f.npz"
    compiled.save(path)
    loaded = nbad.load(path)
    assert loaded.variants == 2
    for sign in (1.0, -1.0, 1.0):
        for wrt in ("params", "x", "params.b.1", (0, 1)):
            ours = nbad.value_and_grad(compiled, wrt)(params, sign * x, 2)
            for _ in range(2):
                theirs = nbad.value_and_grad(loaded, wrt)(params, sign * x, 2)
            ours = nbad.value_and_grad(compiled, wrt)(params, sign * x, 2)
            a, b = nbad.ravel(ours[1])[0], nbad.ravel(theirs[1])[0]
            assert a.tobytes() == b.tobytes()
            assert ours[0] == theirs[0]
    with pytest.raises(nbad.TapeError, match="no recording for these arguments"):
        loaded(params, x, 3)
    with pytest.raises(nbad.TapeError, match="no recording for these arguments"):
        loaded(params, x[:2], 2)


def test_a_file_is_loaded_by_another_process(tmp_path: Path) -> None:
    compiled = nbad.compile(lambda u, v: np.sum(nbad.convolve(u, v, mode="wrap") ** 2))
    u, v = np.random.default_rng(0).random((2, 8))
    expected = nbad.grad(compiled)(u, v)
    compiled.save(tmp_path / "f.npz")
    code = (
        "import sys, numpy as np, nbad; u, v = np.random.default_rng(0).random((2, 8));"
        "print(nbad.grad(nbad.load(sys.argv[1]))(u, v).tobytes().hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f.npz")], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(np.frombuffer(bytes.fromhex(found.stdout.strip())), expected, rtol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -100])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    compiled = nbad.compile(twice)
    compiled(X)
    path = tmp_path / "f.npz"
    compiled.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:cut] if cut else b"")
    with pytest.raises(nbad.TapeError):
        nbad.load(path)


def test_what_has_no_place_in_a_file_is_refused(tmp_path: Path) -> None:
    f = nbad.compile(lambda x, g: np.sum(g(x)))
    f(X, np.sin)
    with pytest.raises(nbad.TapeError, match="cannot be saved"):
        f.save(tmp_path / "f.npz")


def test_pickle_and_deepcopy() -> None:
    known_by_name(X)
    assert pickle.loads(pickle.dumps(known_by_name)) is known_by_name
    plain = nbad.compile(twice)
    plain(X)
    again = pickle.loads(pickle.dumps(plain))
    assert again(X) == plain(X)
    nameless = nbad.compile(lambda x: np.sum(x**3))
    expected = nbad.grad(nameless)(X)
    replaying = pickle.loads(pickle.dumps(nameless))
    np.testing.assert_array_equal(nbad.grad(replaying)(X), expected)
    with pytest.raises(nbad.TapeError):
        replaying(X[:2])
    twin = copy.deepcopy(nameless)
    np.testing.assert_array_equal(nbad.grad(twin)(X), expected)
    twin(X[:2])
    assert (twin.variants, nameless.variants) == (2, 1)


def test_methods_have_recordings_of_their_own_instance() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @nbad.compile
        def loss(self, x: Any) -> Any:
            return np.sum(x * x) * self.scale

    one, two = Model(1.0), Model(3.0)
    for model in (one, two, one, two):
        np.testing.assert_allclose(nbad.grad(model.loss)(X), 2 * X * model.scale)
    one.scale = 5.0
    np.testing.assert_allclose(nbad.grad(one.loss)(X), 10 * X)


def test_steady_state_allocates_nothing_but_the_results() -> None:
    from nbad.kernels import memory

    f = nbad.compile(lambda x, w: np.sum(np.tanh(x * w) ** 2 + np.exp(-x * x)))
    x, w = np.random.default_rng(0).random((2, 1 << 18))
    g = nbad.value_and_grad(f)
    for _ in range(4):
        g(x, w)
    before = memory.allocated()
    for _ in range(5):
        g(x, w)
    assert memory.allocated().fresh == before.fresh
    assert f.report().peak_bytes == g.fast.replayer.program.peak_bytes
    assert 0 < f.report().peak_bytes < x.nbytes  # what is between the inputs and the gradient stays in cache


def test_idle_memory_after_replays_is_what_the_next_one_takes() -> None:
    from nbad.kernels import memory

    rng = np.random.default_rng(0)
    u, v, m = rng.random((3, 128, 128, 23))
    g = nbad.value_and_grad(nbad.compile(lambda u, v, m: np.sum((nbad.convolve(u, v, mode="wrap") - m) ** 2)))
    memory.clear()
    before = memory.allocated()
    for _ in range(5):
        g(u, v, m)
        u[0, 0, 0] += 1.0
    after = memory.allocated()
    # Kept: the spectrum of v. Taken by each call: a spectrum at work and the gradient; each up to an eighth larger.
    assert after.live - before.live <= 1.25 * u.nbytes
    assert after.idle <= 2 * 1.25 * u.nbytes


def test_a_gradient_of_a_linear_loss_runs_no_forward() -> None:
    f = nbad.compile(lambda u, k: np.sum(u * k))
    k = X.copy()
    for _ in range(3):
        nbad.grad(f)(X, k)
    with nbad.report() as account:
        gradient = nbad.grad(f)(X, k)
    np.testing.assert_array_equal(gradient, k)
    assert account.nodes_run == 0
    k += 1  # in place: seen
    np.testing.assert_array_equal(nbad.grad(f)(X, k), k)


def test_long_convolutions_replay() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.random(1 << 16), rng.random(64)
    f = nbad.compile(lambda u, v: np.sum(nbad.convolve(u, v, method="fft") ** 2))
    for _ in range(4):
        found = nbad.grad(f)(u, v)
    np.testing.assert_allclose(found, nbad.grad(lambda u: np.sum(nbad.convolve(u, v) ** 2))(u), rtol=1e-9)
    assert f.report().recordings == 1
    with nbad.report() as account:
        nbad.grad(f)(u, v)
    assert account.ffts == 4


def test_importing_nbad_does_not_wait_for_the_loop_of_replays() -> None:
    code = "import sys, nbad; print('nbad.replay.loop' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
