"""Bugs that were found once, each named after its symptom."""

from typing import Any

import numpy as np
import pytest

import nbad


@pytest.mark.parametrize(("order", "expected"), [(1, 0.0), (2, -(np.pi**2) / 3), (3, 0.0), (4, np.pi**4 / 5)])
def test_sinc_lost_its_higher_derivatives_at_zero(order, expected):
    def derivative(x, order):
        return np.sinc(x) if order == 0 else nbad.grad(lambda t: derivative(t, order - 1))(x)

    np.testing.assert_allclose(derivative(0.0, order), expected, rtol=1e-12, atol=1e-12)


def test_the_shape_of_an_unread_constant_was_that_of_another_slot():
    before, after = np.ones((2, 3)), np.zeros((4, 3))

    def loss(x):
        return np.sum(np.concatenate([before, x, after]) ** 2)

    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(nbad.grad(loss)(x), 2 * x)


@pytest.mark.parametrize("count", [7, 8, 9, 10, 15, 16, 17, 20])
@pytest.mark.parametrize("without", [None, 0, 7])
def test_the_ninth_operand_of_a_primitive_had_a_zero_gradient(count, without):
    if without is not None and without >= count:
        pytest.skip("there is no such operand")
    names = [f"a{i}" for i in range(count)]
    scope = {}
    exec(f"def product_sum({', '.join(names)}): return {' + '.join(f'{n} * {n}' for n in names)}", scope)
    rules = {}
    for i, name in enumerate(names):
        exec(f"def rule(g, {name}): return 2 * g * {name}", scope)
        rules[name] = None if i == without else scope["rule"]
    function = nbad.primitive(**rules)(scope["product_sum"])
    values = [np.full(2, i + 1.0) for i in range(count)]
    asked = tuple((i,) for i in range(count))
    found = nbad.grad(lambda *a: np.sum(function(*a)), wrt=asked)(*values)
    for i, gradient in enumerate(found):
        np.testing.assert_array_equal(gradient, np.zeros(2) if i == without else 2 * values[i])


def test_more_than_32_dimensions_crashed():
    rng = np.random.default_rng(0)
    shape = (2, *(1,) * 31, 3)
    x, a = rng.standard_normal((*(1,) * 32, 3)), rng.standard_normal(shape)
    b, c = rng.standard_normal((2, *(1,) * 32)), np.asfortranarray(rng.standard_normal(shape))

    def loss(x, a, b, c):
        return np.sum(np.sin(x * b) * a * c * np.cos(a) * b)

    found = nbad.grad(loss, wrt=(0, 1))(x, a, b, c)
    flat = [np.squeeze(v) for v in (x, a, b[..., None], c)]
    flat[2] = b.reshape(2, 1)
    expected = nbad.grad(loss, wrt=(0, 1))(*flat)
    for wide, narrow in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.squeeze(wide), narrow, rtol=1e-14)


def test_a_forward_that_wrote_into_its_operand_spoilt_other_gradients():
    def doubled(x):
        x *= 2
        return x

    in_place = nbad.primitive(x=lambda g: g * 2)(doubled)

    def loss(a):
        t = np.exp(a)
        return np.sum(t * t) + np.sum(in_place(t))

    with pytest.raises(ValueError, match="read-only"):
        nbad.grad(loss)(np.array([0.1, 0.2]))


def test_a_rule_that_wrote_into_its_cotangent_spoilt_other_gradients():
    def squared(x):
        return x * x

    def rule(g, x):
        g *= 2 * x
        return g

    square = nbad.primitive(x=rule)(squared)
    with pytest.raises(ValueError, match="read-only"):
        nbad.grad(lambda a, b: np.sum(square(a) + square(b)), wrt=(0, 1))(np.ones(2), np.ones(2))


def test_a_forward_may_return_its_operand_or_a_view_of_it():
    first = nbad.primitive(x=lambda g: np.concatenate([g, 0 * g]))(lambda x: x[:2])
    x = np.arange(4.0)
    y = first(x)
    y[0] = 7.0
    assert x[0] == 7.0
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(first(x) ** 2))(x), [14.0, 2.0, 0.0, 0.0])


def test_a_forward_that_reuses_its_buffer_spoilt_what_was_kept_of_it():
    buffer = np.empty(3)

    def doubled(x):
        return np.multiply(x, 2.0, out=buffer)

    double = nbad.primitive(x=lambda g: 2.0 * g)(doubled)

    def loss(x):
        first = double(x)
        square = np.sum(first * first)
        return square + np.sum(double(x + 1.0))

    with pytest.raises(nbad.MutationError, match="first \\* first"):
        nbad.grad(loss)(np.ones(3))
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(double(x) ** 2))(np.ones(3)), [8.0, 8.0, 8.0])


def test_a_replay_recomputed_a_value_and_lost_what_a_reversed_view_of_it_read() -> None:
    def f(a: Any) -> Any:
        spread = np.sum(np.real(np.exp(1j * a) * a)) / a.size
        scaled = a * (np.sum(a) / a.size)
        return np.mean(scaled) + np.mean(scaled[:, ::-1] + a) + np.mean(spread) + np.mean(np.sin(a))

    compiled = nbad.compile(f)
    for seed in range(3):
        a = np.random.default_rng(seed).normal(size=(3, 300))
        np.testing.assert_allclose(compiled(a), f(a), rtol=1e-12)


@pytest.mark.parametrize("n", [3, 60])
def test_a_replay_that_returned_a_reshaped_value_failed_where_python_read_the_value_itself(n: int) -> None:
    def f(a: Any, b: Any) -> Any:
        product = np.sin(a) @ b
        return product.reshape(-1), product @ b, np.ravel(np.cos(b)), np.sort(np.cos(b), axis=0), product

    compiled = nbad.compile(f)
    for seed in range(3):
        a, b = np.random.default_rng(seed).normal(size=(2, n, n))
        for got, expected in zip(compiled(a, b), f(a, b), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert compiled.report().recordings == 1


def test_a_replayed_gradient_of_a_new_axis_read_beside_its_cotangent() -> None:
    def loss(x: Any, y: Any) -> Any:
        product = x * y + x
        row = np.tanh(product)[None, ...]
        column = (product * 0.5)[:, np.newaxis, :][..., None]
        return np.sum(np.clip(product, -0.4, 0.6)) + np.sum(row * row) + np.sum(column**3)

    compiled = nbad.compile(loss)
    for seed in range(3):
        args = np.random.default_rng(seed).normal(size=(2, 3, 14))
        got, expected = nbad.grad(compiled, (0, 1))(*args), nbad.grad(loss, (0, 1))(*args)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_the_value_of_a_replayed_pullback_was_that_of_an_earlier_call() -> None:
    def f(x: Any) -> Any:
        return x.T.reshape(-1), x[[1, 0]]  # nothing to compute, so nothing was compared

    compiled = nbad.compile(f)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(6, 5))
        value, pullback = nbad.vjp(compiled, x)
        expected, pull = nbad.vjp(f, x)
        for one, other in zip(value, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(pullback(value), pull(expected))
        del pullback


def test_a_program_that_began_with_degrees_could_not_be_replayed() -> None:
    compiled = nbad.compile(np.degrees)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=5)
        np.testing.assert_allclose(compiled(x), np.degrees(x), rtol=1e-15)
    assert compiled.report().recordings == 1


def test_a_reshaped_python_number_was_recorded_again_at_each_call() -> None:
    compiled = nbad.compile(np.ravel)
    for number in (1.5, 2.5, 3.5):
        np.testing.assert_array_equal(compiled(number), [number])
    assert compiled.report().recordings == 1


def test_an_operation_that_failed_in_a_replayed_pullback_was_not_recorded_anew() -> None:
    def half(x: Any) -> Any:
        return 0.5 * x

    def halved(x: Any, offset: Any) -> Any:
        if x[0] < 0.0:  # a plain value, which no guard sees
            raise ArithmeticError("negative")
        return half(x) + offset

    row = nbad.primitive(x=lambda g: 0.5 * g, offset=lambda g: g)(halved)

    def f(x: Any) -> Any:
        return row(x, 1.0) if np.sum(x) > -5.0 else np.sin(x)

    compiled = nbad.compile(f)
    x = np.arange(1.0, 4.0)
    for point in (x, x, x + 1.0):
        np.testing.assert_array_equal(nbad.vjp(compiled, point)[0], f(point))
    for _ in range(2):
        value, pullback = nbad.vjp(compiled, -9.0 * x)
        np.testing.assert_allclose(value, np.sin(-9.0 * x), rtol=1e-12)
        np.testing.assert_allclose(pullback(x), x * np.cos(-9.0 * x), rtol=1e-12)
    with pytest.raises(ArithmeticError, match="negative"):
        nbad.vjp(compiled, np.array([-1.0, 0.0, 0.0]))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, bool])
def test_compiled_transforms_and_convolutions_of_integers_were_complex_or_refused(dtype: Any) -> None:
    def f(k: Any) -> Any:
        spectra = np.fft.rfft(k), np.fft.fft(k, 10), np.fft.irfft(k), np.fft.ifft2(k.reshape(2, 4))
        return *spectra, nbad.convolve(k, k[:3]), nbad.correlate(k, np.ones(3, bool), mode="valid")

    compiled = nbad.compile(f)
    for shift in range(3):
        k = np.roll(np.arange(8) % 5, shift).astype(dtype)
        for got, expected in zip(compiled(k), f(k), strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert compiled.report().recordings == 1


def test_a_pullback_of_a_function_that_takes_a_plain_number_showed_a_private_error() -> None:
    def f(x: Any, scale: Any) -> Any:
        # What is seen of x is seen to the bit, and a replay rounds sums otherwise than NumPy.
        return scale * float(np.sum(np.sin(x) * np.exp(x))), float(np.mean(np.hypot(x, x + 2.0))) * scale

    compiled = nbad.compile(f)
    for seed in range(4):
        x, scale = np.random.default_rng(seed).normal(size=999), np.ones(2)
        value, pullback = nbad.vjp(compiled, x, scale, wrt="scale")
        for got, expected in zip(value, f(x, scale), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)
        np.testing.assert_allclose(pullback(value), nbad.vjp(f, x, scale, wrt="scale")[1](value), rtol=1e-12)


@pytest.mark.parametrize("function", [np.dot, np.inner])
def test_a_traced_python_number_in_a_dot_product_kept_single_precision(function: Any) -> None:
    x = np.ones((3, 2), np.float32)
    compiled = nbad.compile(function)
    for number in (0.5, 1.5):
        assert compiled(x, number).dtype == function(x, number).dtype == np.float64
        assert nbad.vjp(function, x, number)[0].dtype == np.float64
    assert nbad.grad(lambda s: np.sum(function(x, s)))(0.5) == 6.0


def test_comparisons_of_large_arrays_were_recorded_as_floats():
    def f(x):
        positive = x > 0
        return np.sum(np.where(positive, x * x, -x)) + np.sum(x[positive]) + np.sum(~positive)

    compiled = nbad.compile(f)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=1 << 17)
        np.testing.assert_allclose(compiled(x), f(x), rtol=1e-12)
        np.testing.assert_allclose(nbad.grad(compiled)(x), nbad.grad(f)(x), rtol=1e-12)
    assert compiled.variants > 0  # it was recorded, not refused


def test_leaves_that_are_traced_can_be_packed():
    def loss(tree):
        vector, unravel = nbad.ravel([tree, 2.0])
        again = unravel(vector * vector)[0]
        return np.sum(vector**3) + np.real(again["z"]) + again["x"]

    tree = {"w": np.array([[1.0, 2.0]], np.float32), "x": 3.0, "z": 1 + 2j}
    found = nbad.grad(loss)(tree)
    assert found["w"].dtype == np.float32 and type(found["x"]) is float
    np.testing.assert_allclose(found["w"], 3 * tree["w"] ** 2)
    np.testing.assert_allclose(found["x"], 3 * 9 + 2 * 3)
    np.testing.assert_allclose(found["z"], 3 * 1 + 2 * 1 + 1j * 3 * 4)


def test_a_copy_of_an_array_without_dimensions_can_be_written_to():
    def loss(x):
        y = x.copy()
        y[...] = y**2
        y.fill(y + np.copy(x))
        return y * x

    assert nbad.grad(loss)(np.array(3.0)) == 3 * 9.0 + 2 * 3.0
    assert nbad.grad(nbad.compile(loss))(np.array(3.0)) == 3 * 9.0 + 2 * 3.0


def test_diff_takes_the_defaults_of_numpy_by_name():
    def loss(x):
        return np.sum(np.diff(x, 1, -1, np._NoValue, append=np._NoValue) ** 2)

    np.testing.assert_array_equal(nbad.grad(loss)(np.array([1.0, 3.0, 4.0])), [-4.0, 2.0, 2.0])


class Wrapper(np.lib.mixins.NDArrayOperatorsMixin):
    """A container of an array, traced or not, as xarray's are."""

    def __init__(self, array):
        self.array = array

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inner = (x.array if isinstance(x, Wrapper) else x for x in inputs)
        return Wrapper(getattr(ufunc, method)(*inner, **kwargs))


def test_a_container_with_a_protocol_of_its_own_stays_one_whichever_operand_is_traced():
    a = np.array([1.0, 2.0])

    def loss(x):
        held = x * Wrapper(a)
        both = [x + held, np.multiply(x, held), np.sin(held) - x, np.add(x, held, dtype="f8")]
        assert all(type(y) is Wrapper for y in both)
        return sum(np.sum(y.array) for y in both)

    x = 0.5
    np.testing.assert_allclose(nbad.grad(loss)(x), np.sum(1 + a + 2 * a * x + a * np.cos(a * x) - 1 + 1 + a))
    np.testing.assert_allclose(nbad.grad(nbad.grad(loss))(x), np.sum(2 * a - a * a * np.sin(a * x)))


def test_what_is_taken_along_an_axis_is_broadcast_where_the_array_has_length_one():
    x = np.arange(3.0).reshape(1, 3)
    places = np.array([[0, 2], [1, 1], [2, 0]])
    w = np.arange(6.0).reshape(3, 2)

    def loss(x):
        return np.sum(w * np.take_along_axis(x, places, 1))

    assert loss(x) == np.sum(w * x[0][places])
    np.testing.assert_array_equal(nbad.grad(loss)(x), [[0.0 + 5.0, 2.0 + 3.0, 1.0 + 4.0]])
    np.testing.assert_array_equal(nbad.grad(nbad.compile(loss))(x), [[5.0, 5.0, 5.0]])


def test_the_first_axis_of_a_number_can_be_squeezed_out_as_in_numpy():
    assert nbad.grad(lambda x: np.squeeze(x, 0) * np.squeeze(x, axis=-1))(np.array(3.0)) == 6.0
    with pytest.raises(np.exceptions.AxisError):
        nbad.grad(lambda x: np.squeeze(x, 1))(np.array(3.0))
