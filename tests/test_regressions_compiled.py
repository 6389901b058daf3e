"""Mistakes of compiled functions that were made once, each named after its symptom."""

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import nbad
from nbad import reach, variants
from nbad.errors import MutationError, RuleError

X = np.arange(1.0, 4.0)


@dataclasses.dataclass
class Scaled:
    """Instances are compared by value, so they have no hash."""

    scale: Any

    @nbad.compile
    def loss(self, x: Any) -> Any:
        return np.sum(x * x * self.scale)


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Instances of the same name are equal, and not the same one."""

    name: str
    notes: tuple[str, ...] = dataclasses.field(compare=False)

    @nbad.compile
    def noted(self, x: Any) -> Any:
        return np.sum(x * len(self.notes))


# Methods ------------------------------------------------------------------------------------------
def test_a_compiled_method_of_an_unhashable_instance_raised() -> None:
    one, other = Scaled(np.ones(3)), Scaled(np.full(3, 2.0))
    for _ in range(4):
        assert one.loss(X) == 14.0
        np.testing.assert_array_equal(nbad.grad(other.loss)(X), 4.0 * X)
    other.scale = np.ones(3)
    np.testing.assert_array_equal(nbad.grad(other.loss)(X), 2.0 * X)


def test_equal_instances_shared_their_recordings() -> None:
    one, other = Frozen("m", ("a",)), Frozen("m", ("a", "b"))
    assert one == other
    assert one.noted is not other.noted
    for _ in range(4):
        assert (one.noted(X), other.noted(X)) == (6.0, 12.0)


def test_instances_with_compiled_methods_were_never_freed() -> None:
    def used(scale: float) -> Any:
        model = Scaled(scale)
        for _ in range(4):
            assert model.loss(X) == 14.0 * scale  # also where an instance has the place of a dead one
        return weakref.ref(model)

    living = [used(float(scale)) for scale in range(100)]
    gc.collect()
    assert sum(reference() is not None for reference in living) <= 32
    Scaled.loss.clear()
    gc.collect()
    assert not any(reference() for reference in living)


# Workspaces ---------------------------------------------------------------------------------------
def positive(x: Any) -> Any:
    """Refuse what is negative, which no guard sees."""
    if x[0] < 0.0:
        raise FloatingPointError("negative")
    return x * 1.0


POSITIVE = nbad.primitive(x=lambda g, y: g + 0.0 * positive(y))(positive)


def workspaces(compiled: Any) -> int:
    """Return how many workspaces a compiled function holds."""
    kept = [variant for row in compiled._by_key.values() for variant in row]
    return sum(len(replayer.made) for variant in kept for replayer in variant.replayers.values())


def test_each_replay_that_raised_left_a_workspace_behind() -> None:
    compiled = nbad.compile(lambda x: np.sum(POSITIVE(x) ** 2))
    for k in range(8):
        compiled(X + k)
        with pytest.raises(FloatingPointError):
            compiled(-X)
        nbad.vjp(compiled, X + k)[1](1.0)
        with pytest.raises(FloatingPointError):
            nbad.vjp(compiled, -X)
        np.testing.assert_array_equal(nbad.grad(compiled)(X + k), 2.0 * (X + k))
    gc.collect()
    assert workspaces(compiled) <= 3  # one for each of the three programs
    assert compiled.report().replays > 0


def through(operation: Any) -> Any:
    """Return a function whose pullback runs `operation` on the cotangent, in a replay too."""
    inner = nbad.primitive(a=lambda g: g)(operation)
    return nbad.primitive(x=lambda g: inner(g))(lambda x: x * 1.0)


def test_a_workspace_whose_pullback_failed_is_used_again_and_right() -> None:
    broken: list[bool] = []

    def operation(a: Any) -> Any:
        if broken:
            raise ArithmeticError("broken")
        return a * 1.0

    row = through(operation)
    compiled = nbad.compile(lambda x: np.sin(row(x * 2.0)))
    for k in range(3):
        value, pullback = nbad.vjp(compiled, X + k)
        pullback(X)
    broken.append(True)
    with pytest.raises(ArithmeticError, match="broken"):
        pullback(X)
    broken.clear()
    np.testing.assert_allclose(pullback(X), 2.0 * X * np.cos(2.0 * (X + 2.0)), rtol=1e-12)
    np.testing.assert_allclose(value, np.sin(2.0 * (X + 2.0)), rtol=1e-12)


# Recordings that are gone -------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["grad", "value_and_grad", "value"])
def test_a_cleared_function_went_on_replaying_what_it_had_forgotten(kind: str) -> None:
    compiled = nbad.compile(lambda x: np.sum(x * x))
    held = compiled if kind == "value" else getattr(nbad, kind)(compiled)
    for _ in range(5):
        held(X)
    before = compiled.report()
    compiled.clear()
    assert (compiled.variants, compiled.report().replays) == (0, before.replays)
    for _ in range(5):
        held(X)
    after = compiled.report()
    assert (after.variants, after.recordings) == (1, 2)
    assert after.replays == 2 * before.replays


def test_an_evicted_recording_was_replayed_and_not_counted() -> None:
    compiled = nbad.compile(lambda x, n: np.sum(x) * n, variants=1)
    gradient = nbad.grad(compiled)
    with pytest.warns(RuntimeWarning, match="more than 1 recordings"):
        for number in (2, 3):
            for _ in range(4):
                np.testing.assert_array_equal(gradient(X, number), number * np.ones(3))
    assert (compiled.variants, compiled.report().recordings, compiled.report().evictions) == (1, 2, 1)

    shapes = nbad.compile(lambda x: np.sum(x * x), variants=1)
    short, long = nbad.grad(shapes), nbad.grad(shapes)
    with pytest.warns(RuntimeWarning, match="more than 1 recordings"):
        for _ in range(4):
            short(X)
        for _ in range(4):
            long(np.ones(5))
    counted = shapes.report().replays
    short(X)
    assert shapes.report().recordings == 3
    assert shapes.report().replays == counted


# Pullbacks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("size", [3, 1 << 16])
def test_a_pullback_read_a_closed_over_array_that_had_changed(size: int, calls: int) -> None:
    kernel = np.linspace(0.5, 1.5, size)
    x = np.linspace(-1.0, 1.0, size)
    compiled = nbad.compile(lambda x: np.sin(kernel * x))
    for _ in range(calls):
        _, pullback = nbad.vjp(compiled, x)
    for _ in range(2):
        np.testing.assert_allclose(pullback(x), kernel * np.cos(kernel * x) * x, rtol=1e-10, atol=1e-14)
    kernel[-1] = 5.0
    with pytest.raises(MutationError, match="array"):
        pullback(x)
    kernel[-1] = 1.5
    np.testing.assert_allclose(pullback(x), kernel * np.cos(kernel * x) * x, rtol=1e-10, atol=1e-14)


def test_an_array_that_two_lists_of_checks_hold_was_read_twice_at_each_call(monkeypatch: Any) -> None:
    kernel = np.linspace(0.5, 1.5, 1 << 12)
    compiled = nbad.compile(lambda x: np.sum(np.sin(kernel * x)))
    gradient = nbad.grad(compiled)
    for _ in range(4):
        gradient(kernel)
    read: list[int] = []
    for module in (reach, variants):
        original = module.fingerprint

        def counted(array: Any, original: Any = original) -> Any:
            read.append(id(array))
            return original(array)

        monkeypatch.setattr(module, "fingerprint", counted)
    gradient(kernel + 1.0)
    assert read.count(id(kernel)) == 1


# Operations that give something else each time ----------------------------------------------------
def derivative(kind: str, f: Any, x: Any) -> Any:
    """Return a derivative in the direction of ones, by each transformation."""
    ones = np.ones_like(x)
    if kind == "jvp":
        return nbad.jvp(f, (x,), (ones,))[1]
    if kind == "hvp":
        return np.sum(nbad.hvp(f)(x, ones))
    return np.sum(nbad.grad(f)(x) if kind == "grad" else nbad.vjp(f, x)[1](1.0))


@pytest.mark.parametrize(("kind", "expected"), [("grad", 12.0), ("vjp", 12.0), ("jvp", 12.0), ("hvp", 6.0)])
def test_an_operation_of_another_shape_each_time_showed_a_private_error(kind: str, expected: float) -> None:
    lengths: list[int] = []

    def growing(x: Any) -> Any:
        lengths.append(len(lengths))
        return np.repeat(x, len(lengths))

    row = nbad.primitive(x=lambda g, x_shape: np.sum(g.reshape(*x_shape, -1), axis=1))(growing)

    def f(x: Any) -> Any:
        y = row(x)
        return np.sum(x * x) + np.sum(y - y)

    compiled = nbad.compile(f)
    for _ in range(4):
        assert derivative(kind, compiled, X) == expected


@pytest.mark.parametrize("kind", ["grad", "vjp", "jvp"])
def test_a_branch_that_differs_for_the_same_inputs_got_the_derivative_of_another_one(kind: str) -> None:
    calls: list[int] = []

    def noisy(x: Any) -> Any:
        calls.append(0)
        return x * (-1.0) ** len(calls)

    row = nbad.primitive(x=lambda g: g)(noisy)
    compiled = nbad.compile(lambda x: np.sum(row(x)) if row(x)[0] > 0.0 else np.sum(x * x))
    for _ in range(6):
        assert derivative(kind, compiled, X) in (3.0, 12.0)


def test_a_sweep_of_another_shape_each_time_showed_a_private_error() -> None:
    longer: list[bool] = []

    def operation(a: Any) -> Any:
        return np.concatenate([a, a]) if longer else a * 1.0

    row = through(operation)
    compiled = nbad.compile(lambda x: np.sin(row(x)))
    for _ in range(3):
        _, pullback = nbad.vjp(compiled, X)
    longer.append(True)
    with pytest.raises(RuleError, match="another shape"):
        pullback(X)


# Complex numbers ----------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [np.maximum, np.minimum, np.fmax, np.fmin, np.clip])
def test_a_compiled_gradient_could_not_compare_pythons_complex_numbers(function: Any) -> None:
    bounds = (0.0, 5.0) if function is np.clip else (1.0,)

    def f(s: Any) -> Any:
        return np.real(function(s, *bounds) * (1.0 - 2.0j))

    gradient = nbad.grad(nbad.compile(f))
    for number in (2.0 + 1.0j, 3.0 - 1.0j, 0.5j, 7.0 + 0.0j):
        for _ in range(3):
            assert gradient(number) == nbad.grad(f)(number)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("ufunc", "dtype"), [(np.multiply, "f8"), (np.add, "f4"), (np.exp, "f8"), (np.add, "i8")]
)
def test_a_ufunc_with_a_real_dtype_dropped_the_imaginary_part(ufunc: Any, dtype: str, compiled: bool) -> None:
    def f(z: Any) -> Any:
        return ufunc(*(z,) * ufunc.nin, dtype=dtype)

    run = nbad.compile(f) if compiled else f
    with pytest.raises(TypeError, match="same_kind"):
        f(X + 1j)
    with pytest.raises(TypeError, match="same_kind"):
        nbad.vjp(run, X + 1j)
    if dtype != "i8":
        np.testing.assert_allclose(nbad.vjp(run, X)[0], f(X), rtol=1e-6)
    value = nbad.vjp(lambda z: np.absolute(z, dtype="f8"), X + 1j)[0]
    np.testing.assert_array_equal(value, np.absolute(X + 1j))


# The short way ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["grad", "value_and_grad"])
def test_the_short_way_takes_only_what_it_was_made_for(kind: str) -> None:
    def f(x: Any, y: Any, unread: Any = None) -> Any:
        return np.sum(x) if isinstance(unread, int | str) else np.sum(x * y)

    run, expected = getattr(nbad, kind)(nbad.compile(f)), getattr(nbad, kind)(f)
    for rest in ([X], [X, X]):
        for k in range(6):
            run(X + k, *(y + k for y in rest))
        for others in (
            [X[:1]], [X.astype("f4")], [X[::-1]], [X.astype(">f8")], [2.0], [np.float64(2.0)], [X, 1], [X, X[:2]], [X, "a"],
        ):  # fmt: skip
            found, wanted = run(X, *others), expected(X, *others)
            for one, other in zip(np.atleast_1d(found[-1]), np.atleast_1d(wanted[-1]), strict=True):
                assert one == other
            assert type(found) is type(wanted)
    with pytest.raises(TypeError):
        run(X)


def test_a_write_into_what_is_a_copy_for_a_transposed_argument_did_not_stay_out_of_the_array() -> None:
    """Recordings were made of C-ordered copies, where ``y.reshape(-1)`` is a view of `y`."""

    def cleared(x: Any) -> Any:
        y = x * 1.0
        y.reshape(-1)[:] = 0.0
        return np.sum(y * x)

    f = nbad.compile(cleared)
    x = np.arange(1.0, 7.0).reshape(2, 3)
    for _ in range(3):
        for given in (
            x,
            np.asfortranarray(x),
            x.repeat(2, axis=1)[:, ::2],
            np.stack([x, x]).transpose(1, 0, 2),
        ):
            assert f(given) == cleared(given)
            assert np.array_equal(nbad.grad(f)(given), nbad.grad(cleared)(given))
            x = x + 1.0
    assert f.report().recordings == 3


def test_a_saved_function_takes_the_order_of_axes_that_it_was_recorded_with(tmp_path: Any) -> None:
    f = nbad.compile(lambda x: np.sum(x * x, axis=0))
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    expected = f(x)
    f.save(tmp_path / "f.nbad")
    assert np.array_equal(nbad.load(tmp_path / "f.nbad")(x), expected)


def test_a_write_into_a_reshaped_array_did_not_compile() -> None:
    """The plan compared the strides of what is written with the shape of the array that it is a view of."""

    def flat(x: Any) -> Any:
        y = np.tanh(x).reshape(-1).copy()
        y[0] = 2.0
        return np.sum(np.sin(y))

    def column(x: Any) -> Any:
        y = np.roll(x, 1)[:, None].copy()
        y[1:] = y[:1] ** 2
        return np.sum(y**3)

    for function, shape in ((flat, (3, 1)), (flat, (2, 2)), (column, (3,))):
        f = nbad.compile(function)
        for k in range(4):
            x = np.random.default_rng(k).normal(size=shape)
            assert np.allclose(f(x), function(x))
            assert np.allclose(nbad.grad(f)(x), nbad.grad(function)(x))
            assert np.allclose(nbad.hvp(f)(x, x), nbad.hvp(function)(x, x))


@pytest.mark.parametrize(
    "count",
    [
        lambda x: x[x > 0].size,
        lambda x: len(np.nonzero(x > 0)[0]),
        lambda x: np.argwhere(x > 0).shape[0],
        lambda x: np.flatnonzero(x > 0).size,
        lambda x: np.extract(x > 0, x).size,
        lambda x: np.compress(x > 0, x).size,
        lambda x: np.trim_zeros(np.maximum(x, 0.0)).size,
        lambda x: 2 if len(x[x > 0]) else 1,
    ],
)
def test_the_number_of_selected_elements_did_not_stay_what_it_was(count: Any) -> None:
    """Where only the shape of the selection was used, nothing noticed that another one would have another shape."""

    def loss(x: Any) -> Any:
        return np.sum(x * x) * count(x)

    f = nbad.compile(loss)
    for x in (-X, X, np.array([1.0, -2.0, 3.0]), -X, np.array([-1.0, 2.0, -3.0])):
        assert f(x) == loss(x)
        assert np.array_equal(nbad.grad(f)(x), nbad.grad(loss)(x))


def test_masks_in_checkpoints_are_no_conversions() -> None:
    def loss(x: Any) -> Any:
        return nbad.checkpoint(lambda t: np.sum(t[t > 0] ** 2) * np.argwhere(t > 0).shape[0])(x)

    for f in (loss, nbad.compile(loss)):
        for x in (X, -X, np.array([1.0, -2.0, 3.0])):
            assert f(x) == np.sum(x[x > 0] ** 2) * np.sum(x > 0)
            assert np.array_equal(nbad.grad(f)(x), 2 * np.where(x > 0, x, 0) * np.sum(x > 0))


# Memory -------------------------------------------------------------------------------------------
def test_the_derivative_of_a_sum_of_squares_kept_an_array_of_twos() -> None:
    f = nbad.compile(lambda x: np.sum((x - 1.0) ** 2))
    x = np.linspace(0.0, 1.0, 1000)
    for _ in range(2):  # the second call derives
        np.testing.assert_array_equal(nbad.grad(f)(x), 2 * (x - 1.0))
    (variant,) = (variant for row in f._by_key.values() for variant in row)
    (derived,) = variant.derived.values()
    constants = [c for c in derived.graph.constants.values() if isinstance(c, np.ndarray)]
    assert all(c.size == 1 or not any(c.strides) for c in constants)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: np.sum(a + b),
        lambda a, b: np.sum(a * b - b),
        lambda a, b: np.sum(np.maximum(a, b) / b),
        lambda a, b: np.sum(np.where(a > b, a, 2 * b)),
        lambda a, b: np.sum((a - b) ** 2, axis=0).sum() - np.sum(-a),
        lambda a, b: np.sum(a.astype(np.float32)) + np.sum(np.hypot(a, b[0, 0])),
        lambda a, b: np.sum(np.broadcast_to(a, (2, 4, 3)) * np.arange(3.0)) + np.sum(b),
        lambda a, b: np.sum(np.abs((a + 1j * b) ** 2)) + np.sum(np.real(1j * a * (1j - b))),
    ],
)  # fmt: skip
def test_the_one_number_of_a_sums_cotangent_spreads_as_its_array_does(f: Any) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((4, 1)) + 0.5, rng.random((1, 3)) + 0.25
    expected = nbad.grad(f, (0, 1))(a, b)
    compiled = nbad.compile(f)
    directions = (rng.random(a.shape), rng.random(b.shape))
    for _ in range(3):
        for found, wanted in zip(nbad.grad(compiled, (0, 1))(a, b), expected, strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    gradient = nbad.grad(f, (0, 1))

    def along(a: Any, b: Any) -> Any:  # the sweep within is traced
        found = gradient(a, b)
        return np.sum(found[0] * directions[0]) + np.sum(found[1] * directions[1])

    step = 1e-6
    shifted = [gradient(a + s * directions[0], b + s * directions[1]) for s in (step, -step)]
    for k, found in enumerate(nbad.grad(along, (0, 1))(a, b)):
        wanted = (shifted[0][k] - shifted[1][k]) / (2 * step)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
