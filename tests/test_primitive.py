"""Operations with the user's own rules: the promises, counted by the rules themselves, and wrong rules."""

import copy
import gc
import inspect
import pickle
import weakref
from collections import Counter
from typing import Any

import numba
import numpy as np
import pytest

import nbad
from nbad.errors import DetachError, InputTypeError, NoRuleError, RuleError
from nbad.testing import assert_only, check_grads

COUNT: Counter[str] = Counter()
ALIVE: dict[str, "weakref.ref[np.ndarray]"] = {}


@pytest.fixture(autouse=True)
def fresh_counts() -> None:
    COUNT.clear()
    ALIVE.clear()


def forth(x: Any) -> Any:
    """Transform a real signal; plain arrays only."""
    COUNT["transforms"] += 1
    return np.fft.rfft(x)


def back(x: Any, n: int) -> Any:
    """Transform back to a real signal of length n."""
    COUNT["transforms"] += 1
    return np.fft.irfft(x, n)


def noted(name: str, value: np.ndarray) -> np.ndarray:
    """Count a value and remember whether it lives."""
    COUNT[name] += 1
    if isinstance(value, np.ndarray):
        ALIVE[name] = weakref.ref(value)
    return value


# A convolution whose forward needs both spectra, as the seed has it.
def u_hat(u):
    return noted("u_hat", forth(u))


def v_hat(v):
    return noted("v_hat", forth(v))


def g_hat(g):
    return noted("g_hat", forth(g))


def conv_u(g_hat, v_hat, u_shape):
    COUNT["conv_u"] += 1
    return back(g_hat * np.conj(v_hat), u_shape[-1])


def conv_v(g_hat, u_hat, v_shape):
    COUNT["conv_v"] += 1
    return back(g_hat * np.conj(u_hat), v_shape[-1])


@nbad.primitive(shared={"u_hat": u_hat, "v_hat": v_hat, "g_hat": g_hat}, u=conv_u, v=conv_v)
def conv(u, v, *, u_hat, v_hat):
    """Convolve cyclically."""
    COUNT["conv"] += 1
    return back(u_hat * v_hat, u.shape[-1])


# The same in the naive style: each rule transforms what it needs.
def naive_u(g, v):
    COUNT["naive_u"] += 1
    return back(forth(g) * np.conj(forth(v)), len(v))


def naive_v(g, u):
    COUNT["naive_v"] += 1
    return back(forth(g) * np.conj(forth(u)), len(u))


@nbad.primitive(u=naive_u, v=naive_v)
def naive(u, v):
    return back(forth(u) * forth(v), len(u))


# The same from single transforms, as in the seed's plain formula.
def spectrum_x(g, x_shape):
    COUNT["spectrum_x"] += 1
    COUNT["transforms"] += 1
    return np.fft.fft(np.conj(g)).real


@nbad.primitive(x=spectrum_x)
def spectrum(x):
    COUNT["transforms"] += 1
    return np.fft.fft(x)


def signal_x(g, x_shape):
    COUNT["signal_x"] += 1
    COUNT["transforms"] += 1
    return np.fft.fft(g) / x_shape[-1]


@nbad.primitive(x=signal_x)
def signal(x):
    COUNT["transforms"] += 1
    return np.fft.ifft(x).real


# Something that stands upstream and counts.
def heavy_x(g, x):
    COUNT["heavy_x"] += 1
    return 2.0 * g * x


@nbad.primitive(x=heavy_x)
def heavy(x):
    COUNT["heavy"] += 1
    return x * x


# Rules of operators only, for higher orders.
def product_a(g, b):
    COUNT["product_a"] += 1
    return g * np.conj(b)


def product_b(g, a):
    COUNT["product_b"] += 1
    return g * np.conj(a)


@nbad.primitive(a=product_a, b=product_b)
def product(a, b):
    COUNT["product"] += 1
    return a * b


def cubed(x):
    COUNT["cubed"] += 1
    return x * x * x


def power_x(g, x, n):
    return g * n * x ** (n - 1)


@nbad.primitive(x=power_x)
def power(x, *, n=2):
    return np.asarray(x) ** n


N = 16
RNG = np.random.default_rng(3)
U, V, W = RNG.normal(size=N), RNG.normal(size=N), RNG.normal(size=N)


def dense(v: np.ndarray) -> np.ndarray:
    """Return the matrix of the cyclic convolution with v."""
    return np.stack([np.roll(v, k) for k in range(len(v))], axis=1)


def loss(u: Any, v: Any) -> Any:
    return np.sum(conv(u, v) ** 2)


GRADIENT_U = 2 * dense(V).T @ (dense(V) @ U)
GRADIENT_V = 2 * dense(U).T @ (dense(U) @ V)


# Values -------------------------------------------------------------------------------------------
def test_it_is_callable_on_plain_arrays() -> None:
    np.testing.assert_allclose(conv(U, V), dense(V) @ U, atol=1e-12)
    assert COUNT == {"conv": 1, "u_hat": 1, "v_hat": 1, "transforms": 3}  # minimum 3: two spectra, one back


@pytest.mark.parametrize("function", [conv, naive, lambda u, v: signal(spectrum(u) * spectrum(v))])
def test_gradients_are_right(function: Any) -> None:
    gradient = nbad.grad(lambda u, v: np.sum(function(u, v) ** 2), wrt=(0, 1))
    got_u, got_v = gradient(U, V)
    np.testing.assert_allclose(got_u, GRADIENT_U, atol=1e-11)
    np.testing.assert_allclose(got_v, GRADIENT_V, atol=1e-11)


def test_gradients_are_writable_and_share_nothing() -> None:
    def through_g(g):
        return g

    @nbad.primitive(x=through_g)
    def identity(x):
        return x

    x = np.ones(3)
    seed = np.ones(3)
    value, pullback = nbad.vjp(identity, x)
    cotangent = pullback(seed)
    assert cotangent.flags.writeable
    assert not np.shares_memory(cotangent, seed)
    assert not np.shares_memory(cotangent, x)
    np.testing.assert_array_equal(value, x)


def test_check_grads_accepts_it() -> None:
    check_grads(conv, (U, V), order=1)
    check_grads(product, (U, V), order=2)


# The seed: 3 transforms forward, the spectrum of the cotangent, one back for each operand asked for
def test_asked_for_u_the_pullback_of_v_does_not_run() -> None:
    np.testing.assert_allclose(nbad.grad(loss, wrt=0)(U, V), GRADIENT_U, atol=1e-11)
    assert COUNT["conv_u"] == 1
    assert COUNT["conv_v"] == 0
    assert COUNT["g_hat"] == 1
    assert COUNT["transforms"] == 5  # minimum 5


def test_asked_for_v_the_pullback_of_u_does_not_run() -> None:
    np.testing.assert_allclose(nbad.grad(loss, wrt=1)(U, V), GRADIENT_V, atol=1e-11)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["g_hat"]) == (0, 1, 1)
    assert COUNT["transforms"] == 5  # minimum 5


def test_asked_for_both_the_spectrum_of_the_cotangent_is_computed_once() -> None:
    nbad.grad(loss, wrt=(0, 1))(U, V)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["g_hat"]) == (1, 1, 1)
    assert (COUNT["u_hat"], COUNT["v_hat"]) == (1, 1)
    assert COUNT["transforms"] == 6  # minimum 6


def test_asked_for_neither_nothing_runs() -> None:
    nbad.grad(lambda u, w: loss(u, V) + np.sum(w), wrt="w")(U, W)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["g_hat"]) == (0, 0, 0)
    assert COUNT["transforms"] == 3  # minimum 3: the forward


def test_an_output_that_nothing_reads_costs_no_pullback() -> None:
    def f(u: Any) -> Any:
        conv(u, V)
        return np.sum(u)

    nbad.grad(f)(U)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["g_hat"]) == (0, 0, 0)


def test_naive_rules_run_one_branch() -> None:
    nbad.grad(lambda u, v: np.sum(naive(u, v) ** 2))(U, V)
    assert (COUNT["naive_u"], COUNT["naive_v"]) == (1, 0)
    assert COUNT["transforms"] == 6  # minimum 6 for these rules: 3 forward, 3 in the one branch


@pytest.mark.parametrize(("wrt", "transforms"), [(0, 5), (1, 5), ((0, 1), 6)])
def test_single_transforms_run_only_where_asked(wrt: Any, transforms: int) -> None:
    nbad.grad(lambda u, v: np.sum(signal(spectrum(u) * spectrum(v))), wrt=wrt)(U, V)
    assert COUNT["transforms"] == transforms  # minimum, with the forward executed: 3 + 1 + asked operands


def test_a_captured_operand_costs_no_pullback() -> None:
    v = V.copy()
    nbad.grad(lambda u: np.sum(signal(spectrum(u) * spectrum(v)) ** 2))(U)
    assert COUNT["spectrum_x"] == 1
    assert COUNT["transforms"] == 5  # minimum of an eager call 5: it knows no last one


# Activity upstream --------------------------------------------------------------------------------
def test_what_stands_before_an_unasked_operand_is_never_pulled_back() -> None:
    nbad.grad(lambda u, w: np.sum(conv(u, heavy(w)) ** 2))(U, W)
    assert COUNT["heavy"] == 1
    assert COUNT["heavy_x"] == 0  # minimum 0
    assert COUNT["transforms"] == 5


def test_an_unasked_variable_used_twice_is_never_pulled_back() -> None:
    nbad.grad(lambda x, z: np.sum(heavy(z) * x) / np.sum(heavy(z)) / np.sum(x))(U, W)
    assert COUNT["heavy_x"] == 0


def test_an_asked_variable_used_twice_is_pulled_back_twice() -> None:
    nbad.grad(lambda x: np.sum(heavy(x) * heavy(x)))(U)
    assert COUNT["heavy_x"] == 2


def test_one_value_used_twice_is_pulled_back_once() -> None:
    def f(x: Any) -> Any:
        y = heavy(x)
        return np.sum(y * y + y)

    nbad.grad(f)(U)
    assert COUNT["heavy_x"] == 1  # minimum 1: its cotangents are added first


def test_a_zero_derivative_stops_everything_before_it() -> None:
    gradient = nbad.grad(lambda x: np.sum(np.floor(heavy(x))) + np.sum(x))(U)
    assert COUNT["heavy_x"] == 0
    np.testing.assert_array_equal(gradient, np.ones(N))


def test_stop_gradient_stops_everything_before_it() -> None:
    nbad.grad(lambda x: np.sum(nbad.stop_gradient(heavy(x)) * x))(U)
    assert COUNT["heavy_x"] == 0


def test_one_leaf_of_a_container_runs_the_rules_of_that_leaf() -> None:
    def f(params: Any) -> Any:
        return np.sum(conv(params["img"], heavy(params["psf"])) ** 2)

    params = {"img": U, "psf": W}
    nbad.grad(f, wrt="params.img")(params)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["heavy_x"]) == (1, 0, 0)
    COUNT.clear()
    nbad.grad(f, wrt="params.psf")(params)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["heavy_x"]) == (0, 1, 1)
    COUNT.clear()
    both = nbad.grad(f)(params)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["heavy_x"]) == (1, 1, 1)
    assert set(both) == {"img", "psf"}


def test_the_same_array_asked_for_once_and_used_as_both_operands() -> None:
    gradient = nbad.grad(lambda u: np.sum(conv(u, u)))(U)
    assert (COUNT["conv_u"], COUNT["conv_v"], COUNT["g_hat"]) == (1, 1, 1)
    np.testing.assert_allclose(gradient, np.full(N, 2 * np.sum(U)), atol=1e-11)


def test_the_same_array_passed_twice_asks_for_one_branch() -> None:
    nbad.grad(loss, wrt=0)(U, U)
    assert (COUNT["conv_u"], COUNT["conv_v"]) == (1, 0)


# Residuals ----------------------------------------------------------------------------------------
def alive(name: str) -> bool:
    gc.collect()
    return ALIVE[name]() is not None


def test_only_what_the_asked_pullback_reads_is_kept() -> None:
    value, pullback = nbad.vjp(conv, U, V, wrt=0)
    assert alive("v_hat")
    assert not alive("u_hat")
    pullback(np.ones(N))
    assert alive("v_hat")  # the pullback may be called again
    del value, pullback
    assert not alive("v_hat")


def test_both_are_kept_when_both_are_asked_for() -> None:
    value, pullback = nbad.vjp(conv, U, V)
    assert alive("u_hat")
    assert alive("v_hat")
    del value, pullback
    assert not alive("u_hat")
    assert not alive("v_hat")


def test_nothing_is_kept_after_a_gradient() -> None:
    nbad.grad(loss, wrt=(0, 1))(U, V)
    assert not alive("u_hat")
    assert not alive("v_hat")
    assert not alive("g_hat")


def test_the_spectrum_of_the_cotangent_dies_with_its_node() -> None:
    value, pullback = nbad.vjp(conv, U, V)
    pullback(np.ones(N))
    assert not alive("g_hat")
    pullback(np.ones(N))
    assert COUNT["g_hat"] == 2
    assert (COUNT["u_hat"], COUNT["v_hat"]) == (1, 1)
    assert value.shape == (N,)


def test_a_value_that_turns_out_to_be_useless_is_let_go() -> None:
    def f(u: Any) -> Any:
        conv(u, V)
        return np.sum(u)

    _, pullback = nbad.vjp(f, U)
    assert not alive("v_hat")
    pullback(1.0)


def test_bytes_kept_are_the_spectra_that_are_read() -> None:
    spectrum_bytes = (N // 2 + 1) * 16
    # sum reads nothing, so nothing else is kept.
    assert_only(lambda u, v: np.sum(conv(u, v)), U, V, wrt=0, kept=spectrum_bytes, borrowed=0)
    assert_only(lambda u, v: np.sum(conv(u, v)), U, V, wrt=1, kept=spectrum_bytes, borrowed=0)
    assert_only(lambda u, v: np.sum(conv(u, v)), U, V, wrt=(0, 1), kept=2 * spectrum_bytes, borrowed=0)


def test_bytes_kept_by_the_square_of_the_seed() -> None:
    # The square reads the convolution: its 8 N bytes are the minimum besides the spectrum.
    assert_only(loss, U, V, wrt=0, kept=(N // 2 + 1) * 16 + 8 * N, borrowed=0)


def test_bytes_kept_by_elementwise_operations() -> None:
    x = np.linspace(0.1, 1.0, 1000)
    # exp and tanh read their outputs, 2 * 8000 bytes; sin reads x, which is the caller's own.
    assert_only(lambda x: np.sum(np.exp(x) + 2 * np.sin(x) + np.tanh(x)), x, kept=16000, borrowed=8000)


def test_rules_that_read_operands_borrow_them() -> None:
    account = assert_only(lambda a, b: np.sum(product(a, b)), U, V, wrt=0, kept=0, borrowed=8 * N)
    assert account.run("product", "a") == 1
    assert account.skipped("product", "b") == 1


def test_shared_values_of_an_unasked_pullback_are_not_computed() -> None:
    def tripled(a):
        return noted("tripled", a * 3.0)

    def of_a(g, b):
        return g * b

    def of_b(g, tripled):
        return g * tripled / 3.0

    @nbad.primitive(shared={"tripled": tripled}, a=of_a, b=of_b)
    def times(a, b):
        return a * b

    nbad.grad(lambda a, b: np.sum(times(a, b)), wrt=0)(U, V)
    assert COUNT["tripled"] == 0
    np.testing.assert_allclose(nbad.grad(lambda a, b: np.sum(times(a, b)), wrt=1)(U, V), U)
    assert COUNT["tripled"] == 1


def test_shared_values_may_read_shared_values() -> None:
    def first(a):
        return noted("first", a + 1.0)

    def second(first, g):
        return noted("second", first * g)

    def of_a(second):
        return second + 0.0

    def of_b(second, first):
        return second - first

    @nbad.primitive(shared={"first": first, "second": second}, a=of_a, b=of_b)
    def odd(a, b):
        return a + b

    nbad.vjp(odd, U, V)[1](W)
    assert (COUNT["first"], COUNT["second"]) == (1, 1)


def test_metadata_is_read_without_keeping_the_operand() -> None:
    def of_x(g, x_shape, x_dtype, y_shape, y_dtype):
        assert (x_shape, y_shape) == ((N,), ())
        assert (x_dtype, y_dtype) == (np.float64, np.float64)
        return np.broadcast_to(g, x_shape)

    @nbad.primitive(x=of_x)
    def total(x):
        return np.sum(x)

    assert_only(total, U, kept=0, borrowed=0, rules={("total", "x"): 1})


def test_the_output_is_kept_only_for_a_rule_that_reads_it() -> None:
    def exponential_x(g, y):
        return g * y

    @nbad.primitive(x=exponential_x)
    def exponential(x):
        return np.exp(x)

    assert_only(lambda x: np.sum(exponential(x)), U, kept=8 * N, borrowed=0)
    check_grads(exponential, (U,))


# Several outputs ----------------------------------------------------------------------------------
def polar_x(g, x, y):
    COUNT["polar_x"] += 1
    r, _ = y
    g_r, g_phase = g
    COUNT["r unused"] += g_r is None
    COUNT["phase unused"] += g_phase is None
    found = 0.0 * x
    if g_r is not None:
        found = found + g_r * x / r
    if g_phase is not None:
        found = found + 1j * g_phase * x / (r * r)
    return found


@nbad.primitive(outputs=2, x=polar_x)
def polar(x):
    return np.abs(x), np.angle(x)


Z = RNG.normal(size=5) + 1j * RNG.normal(size=5)


def test_several_outputs() -> None:
    check_grads(polar, (Z,), order=1)
    nbad.grad(lambda z: np.sum(polar(z)[0]) + np.sum(polar(z)[1]))(Z)
    r, phase = polar(Z)
    np.testing.assert_array_equal(r, np.abs(Z))
    np.testing.assert_array_equal(phase, np.angle(Z))


def test_an_unused_output_has_no_cotangent() -> None:
    nbad.grad(lambda z: np.sum(polar(z)[0]))(Z)
    assert COUNT == {"polar_x": 1, "r unused": 0, "phase unused": 1}
    COUNT.clear()
    nbad.grad(lambda z: np.sum(polar(z)[1]))(Z)
    assert COUNT == {"polar_x": 1, "r unused": 1, "phase unused": 0}


def test_no_used_output_no_pullback() -> None:
    nbad.grad(lambda z: np.sum(np.abs(z)) + 0 * len(polar(z)))(Z)
    assert COUNT["polar_x"] == 0


def test_an_integer_output_is_plain() -> None:
    def top_x(g, x, y):
        found = np.zeros(x.shape)
        found[y[1]] = g[0]
        return found

    @nbad.primitive(outputs=2, x=top_x)
    def top(x):
        place = int(np.argmax(x))
        return x[place], place

    def f(x: Any) -> Any:
        value, place = top(x)
        assert isinstance(place, np.ndarray)
        return value * x[0] if place == 99 else value * 2.0

    gradient = nbad.grad(f)(np.array([1.0, 5.0, 2.0]))
    np.testing.assert_array_equal(gradient, [0.0, 2.0, 0.0])


# Attributes and calls -----------------------------------------------------------------------------
def test_attributes_by_name_with_defaults() -> None:
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(power(x), x**2)
    np.testing.assert_array_equal(power(x, n=3), x**3)
    np.testing.assert_allclose(nbad.grad(lambda x: np.sum(power(x)))(x), 2 * x)
    np.testing.assert_allclose(nbad.grad(lambda x: np.sum(power(x, n=3)))(x), 3 * x**2)


def test_each_node_has_its_own_attributes() -> None:
    x = np.array([1.0, 2.0])
    gradient = nbad.grad(lambda x: np.sum(power(x, n=3) + power(x) + power(power(x), n=4)))(x)
    np.testing.assert_allclose(gradient, 3 * x**2 + 2 * x + 8 * x**7)


def test_attributes_of_every_kind_arrive() -> None:
    seen: dict[str, Any] = {}

    def of_x(g, flag, text, numbers, cut, nothing):
        seen.update(flag=flag, text=text, numbers=numbers, cut=cut, nothing=nothing)
        return g

    @nbad.primitive(x=of_x)
    def noop(x, *, flag, text, numbers, cut, nothing=None):
        return x + 0.0

    given = {"flag": True, "text": "same", "numbers": (1, 2.5, (3j,)), "cut": slice(1, None, 2)}
    nbad.grad(lambda x: np.sum(noop(x, **given)))(U)
    assert seen == {**given, "nothing": None}


def test_operands_by_name_and_with_defaults() -> None:
    def of_a(g, b):
        return g * b

    def of_b(g, a):
        return g * a

    @nbad.primitive(a=of_a, b=of_b)
    def scaled(a, b=2.0):
        return a * b

    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(scaled(x)))(x), [2.0, 2.0])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(scaled(b=x, a=3.0)))(x), [3.0, 3.0])


@pytest.mark.parametrize("operand", ["kernel", "linear", "forward", "pullbacks"])
def test_operands_may_bear_any_other_name(operand: str) -> None:
    space: dict[str, Any] = {}
    exec(
        f"def rule(g, {operand}): return 2 * g * {operand}\n"
        f"def square({operand}): return {operand} * {operand}",
        space,
    )
    square = nbad.primitive(**{operand: space["rule"]})(space["square"])
    np.testing.assert_allclose(nbad.grad(lambda x: np.sum(square(x)))(U), 2 * U)


def test_any_number_of_operands() -> None:
    def of_xs(g, k, others, xs_shapes):
        COUNT[f"of {k}"] += 1
        found = np.broadcast_to(g, xs_shapes[k])
        for other in others:
            if other is not None:
                found = found * other
        return found

    @nbad.primitive(xs=of_xs)
    def multiplied(*xs):
        found = xs[0]
        for x in xs[1:]:
            found = found * x
        return found

    gradient = nbad.grad(lambda a, b, c: np.sum(multiplied(a, b, c)), wrt=1)(U, V, W)
    np.testing.assert_allclose(gradient, U * W)
    assert COUNT == {"of 1": 1}
    check_grads(multiplied, (U, V, W), order=2)


def test_more_operands_than_one_hand_counts() -> None:
    names = [f"x{i}" for i in range(20)]
    space: dict[str, Any] = {"COUNT": COUNT}
    for i, name in enumerate(names):
        # each rule reads its right neighbour
        other = names[(i + 1) % 20]
        exec(f"def rule{i}(g, {other}):\n    COUNT['{name}'] += 1\n    return g * {other}", space)
    exec(f"def ring({', '.join(names)}):\n    return {' + '.join(f'0 * {n}' for n in names)}", space)
    ring = nbad.primitive(**{name: space[f"rule{i}"] for i, name in enumerate(names)})(space["ring"])
    values = [float(i) * np.ones(3) for i in range(20)]
    for asked in (0, 6, 7, 8, 15, 16, 19):
        COUNT.clear()
        gradient = nbad.grad(lambda *xs: np.sum(ring(*xs)), wrt=asked)(*values)
        np.testing.assert_array_equal(gradient, values[(asked + 1) % 20])
        assert {f"x{asked}": 1} == COUNT


def test_keyword_only_parameters_of_rules() -> None:
    def of_a(g, *, b, a_shape):
        return np.broadcast_to(g * b, a_shape)

    @nbad.primitive(a=of_a)
    def times(a, b):
        return a * b

    np.testing.assert_array_equal(nbad.grad(lambda a: np.sum(times(a, V)))(U), V)


def test_python_scalars_are_operands() -> None:
    gradient = nbad.grad(lambda a: product(a, 3.0))(2.0)
    assert type(gradient) is float
    assert gradient == 3.0


def test_float32_stays_float32() -> None:
    x = np.ones(3, np.float32)
    value, gradient = nbad.value_and_grad(lambda x: np.sum(product(x, np.float32(2))))(x)
    assert value.dtype == np.float32
    assert gradient.dtype == np.float32


def test_the_engine_sums_casts_and_takes_real_parts() -> None:
    def of_x(g, z):
        return g * np.conj(z)  # complex, of the broadcast shape

    @nbad.primitive(x=of_x, z=None)
    def times(x, z):
        return x * z

    x = np.ones((1, 3), np.float32)
    z = RNG.normal(size=(4, 3)) + 1j * RNG.normal(size=(4, 3))
    gradient = nbad.grad(lambda x: np.sum(np.real(times(x, z))))(x)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, z.real.sum(0, keepdims=True), rtol=1e-6)


def test_it_looks_like_its_function() -> None:
    assert conv.__name__ == "conv"
    assert conv.__doc__ == "Convolve cyclically."
    assert str(inspect.signature(conv)) == "(u, v)"
    assert repr(conv) == "<nbad.primitive conv>"
    assert copy.deepcopy(conv) is conv


def test_it_can_be_asked_for_by_the_names_of_its_operands() -> None:
    _, pullback = nbad.vjp(conv, U, V, wrt="v")
    np.testing.assert_allclose(pullback(np.ones(N)), np.full(N, np.sum(U)))


def test_it_pickles_by_name() -> None:
    dumped = pickle.dumps(nbad.primitive)
    assert pickle.loads(dumped) is nbad.primitive
    assert conv.__reduce__() == "conv"


# Higher orders ------------------------------------------------------------------------------------
def test_rules_of_operators_have_all_orders() -> None:
    # d3/dx3 of x*x*x through the user's product
    def f(x: Any) -> Any:
        return product(product(x, x), x)

    assert nbad.grad(nbad.grad(nbad.grad(f)))(2.0) == 6.0


def test_at_second_order_the_unasked_branch_does_not_run_either() -> None:
    def f(a: Any, b: Any) -> Any:
        return np.sum(product(product(a, b), b))

    gradient = nbad.grad(lambda a, b: np.sum(nbad.grad(f, wrt=0)(a, b)), wrt=0)(U, V)
    np.testing.assert_array_equal(gradient, np.zeros(N))  # linear in a
    assert COUNT["product_b"] == 0


def test_the_forward_never_sees_a_traced_value() -> None:
    kinds = set()

    def of_x(g, x):
        return 2.0 * g * x

    @nbad.primitive(x=of_x)
    def square(x):
        kinds.add(type(x))
        return np.asarray(x * x)

    second = nbad.grad(lambda x: np.sum(nbad.grad(lambda x: np.sum(square(x)))(x) ** 2))(U)
    np.testing.assert_allclose(second, 8 * U)
    assert kinds == {np.ndarray}


def test_at_second_order_the_users_rule_is_used_not_the_inside_of_the_forward() -> None:
    def of_x(g, x):
        return g * 7.0 * x  # not the derivative of the forward, on purpose

    @nbad.primitive(x=of_x)
    def odd(x):
        return np.asarray(np.exp(x))

    def first(x: Any) -> Any:
        return nbad.grad(lambda x: np.sum(odd(x) * odd(x)))(x)

    x = np.array([0.5])
    # f = odd**2, f' = 2 odd 7x, f'' = 2 (7x)**2 + 14 odd
    expected = 2 * (7 * x) ** 2 + 14 * np.exp(x)
    np.testing.assert_allclose(nbad.grad(lambda x: np.sum(first(x)))(x), expected)


def test_shared_values_at_second_order() -> None:
    def sine(x):
        return np.sin(x)

    def of_x(g, sine):
        return -g * sine

    @nbad.primitive(shared={"sine": sine}, x=of_x)
    def cosine(x):
        return np.asarray(np.cos(x))

    check_grads(cosine, (U,), order=3)


def test_transforms_at_second_order() -> None:
    def first(u: Any) -> Any:
        return nbad.grad(loss)(u, V)

    COUNT.clear()
    gradient = nbad.grad(lambda u: np.sum(first(u) ** 2))(U)
    matrix = 2 * dense(V).T @ dense(V)
    np.testing.assert_allclose(gradient, 2 * matrix @ (matrix @ U), rtol=1e-9)
    # Both recordings run the forward once together; each makes the spectrum of v that it keeps.
    assert COUNT["conv"] == 1
    assert COUNT["u_hat"] == 1
    assert COUNT["v_hat"] == 2
    assert COUNT["conv_v"] == 0


def test_a_shared_value_for_the_forward_alone_never_sees_a_traced_value() -> None:
    def spectrum_of(x):
        assert type(x) is np.ndarray
        return np.fft.rfft(x)

    def of_x(g, x):
        return 2.0 * g * x

    @nbad.primitive(shared={"spectrum_of": spectrum_of}, x=of_x)
    def power_of(x, *, spectrum_of):
        return np.fft.irfft(spectrum_of, x.shape[-1]) ** 2

    check_grads(power_of, (U,), order=2)


def test_a_rule_that_is_not_numpy_is_first_order_only_and_says_so() -> None:
    def of_x(g, x):
        return g * 2.0 * float(np.sum(x))

    @nbad.primitive(x=of_x)
    def square(x):
        return x * x

    x = np.array([3.0])
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(square(x)))(x), [6.0])
    with pytest.raises(DetachError) as caught:
        nbad.grad(lambda x: np.sum(nbad.grad(lambda x: np.sum(square(x)))(x)))(x)
    assert "the pullback of 'x' of square on traced values" in "\n".join(caught.value.__notes__)
    assert "float(np.sum(x))" in str(caught.value)


def test_a_rule_of_compiled_code_is_first_order_only_and_says_so() -> None:
    @numba.njit
    def compiled(g, x):
        return 2.0 * g * x

    def of_x(g, x):
        return compiled(g, x)

    @nbad.primitive(x=of_x)
    def square(x):
        return x * x

    np.testing.assert_allclose(nbad.grad(lambda x: np.sum(square(x)))(U), 2 * U)
    with pytest.raises(numba.TypingError) as caught:
        nbad.grad(lambda x: np.sum(nbad.grad(lambda x: np.sum(square(x)))(x)))(U)
    assert "derivative of higher order" in "\n".join(caught.value.__notes__)


# Wrong rules --------------------------------------------------------------------------------------
def refuse(make: Any, *words: str) -> None:
    with pytest.raises(RuleError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def plain_add(a, b):
    return a + b


def test_an_unknown_parameter_is_refused_at_the_definition() -> None:
    def rule(g, c):
        return g

    refuse(lambda: nbad.primitive(a=rule)(plain_add), "plain_add", "rule", "'c'", "it may read", "a_shape")


def test_a_reserved_operand_is_refused_at_the_definition() -> None:
    for name in ("g", "y", "k", "others"):
        space: dict[str, Any] = {}
        exec(f"def bad({name}): return {name}", space)
        refuse(lambda: nbad.primitive()(space["bad"]), "bad", repr(name), "reserved")  # noqa: B023


def test_operands_with_the_names_of_options_are_refused() -> None:
    def bad(name):
        return name

    refuse(lambda: nbad.primitive()(bad), "'name'", "reserved")


def test_a_reserved_shared_name_is_refused() -> None:
    def shared(a):
        return a

    refuse(lambda: nbad.primitive(shared={"y": shared})(plain_add), "'y'", "reserved")


def test_a_pullback_of_no_operand_is_refused() -> None:
    def rule(g):
        return g

    refuse(lambda: nbad.primitive(c=rule)(plain_add), "'c'", "not an operand", "'a', 'b'")


def test_rules_that_are_no_functions_are_refused() -> None:
    refuse(lambda: nbad.primitive(a=3)(plain_add), "plain_add", "pullback of 'a'", "not a function")
    refuse(lambda: nbad.primitive(shared={"s": 3})(plain_add), "shared value 's'", "not a function")
    refuse(lambda: nbad.primitive()(3), "not int")


def test_a_number_of_outputs_that_is_none_is_refused() -> None:
    for outputs in (0, -1, True, 2.0):
        refuse(lambda: nbad.primitive(outputs=outputs), "outputs")  # noqa: B023


def test_a_shared_value_that_reads_a_later_one_is_refused() -> None:
    def first(second):
        return second

    def second(a):
        return a

    refuse(lambda: nbad.primitive(shared={"first": first, "second": second})(plain_add), "'first'", "after")


def test_a_forward_that_reads_a_value_of_the_sweep_is_refused() -> None:
    def s(g):
        return g

    def forward(a, *, s):
        return a + s

    refuse(lambda: nbad.primitive(shared={"s": s})(forward), "'s'", "reads g or y")


def test_star_parameters_of_rules_are_refused() -> None:
    def rule(g, *rest):
        return g

    refuse(lambda: nbad.primitive(a=rule)(plain_add), "rule", "*rest")


def test_a_definition_that_failed_leaves_the_others_alone() -> None:
    test_an_unknown_parameter_is_refused_at_the_definition()
    np.testing.assert_allclose(nbad.grad(loss)(U, V), GRADIENT_U, atol=1e-11)


def test_a_cotangent_that_cannot_be_summed_is_refused_with_op_operand_and_line() -> None:
    def rule(g):
        return np.ones(N + 1)

    @nbad.primitive(a=rule)
    def added(a, b):
        return a + b

    def f(a: Any) -> Any:
        return np.sum(added(a, V))  # here

    refuse(lambda: nbad.grad(f)(U), "added", "for a", f"({N + 1},)", f"({N},)", "test_primitive.py", "# here")
    # also where the sweep is the traced one
    refuse(lambda: nbad.grad(lambda a: np.sum(nbad.grad(f)(a)))(U), "added", "for a", "# here")


@pytest.mark.parametrize("wrong", [None, [1.0], "text", {"a": 1}, np.array(["x"]), np.array([None])])
def test_a_cotangent_that_is_no_array_is_refused(wrong: Any) -> None:
    def rule(g):
        return wrong

    @nbad.primitive(a=rule)
    def added(a, b):
        return a + b

    refuse(
        lambda: nbad.grad(lambda a: np.sum(added(a, V)))(U),
        "added",
        "for a",
        "must return an array",
        "def rule(g):",
    )


@pytest.mark.parametrize("wrong", [None, [1.0], "text", {"a": 1}, np.array(["x"]), np.ma.masked_array([1.0])])
def test_a_forward_that_returns_no_array_is_refused(wrong: Any) -> None:
    @nbad.primitive(a=None)
    def bad(a):
        return wrong

    refuse(lambda: nbad.grad(lambda a: np.sum(bad(a)))(U), "bad", "forward must return an array")
    refuse(lambda: bad(U), "bad", "forward must return an array")


@pytest.mark.parametrize(
    "wrong", [np.ones(3), (np.ones(3),), (np.ones(3),) * 3, [np.ones(3)] * 2, (np.ones(3), None)]
)
def test_a_forward_with_the_wrong_number_of_outputs_is_refused(wrong: Any) -> None:
    @nbad.primitive(outputs=2, a=None)
    def bad(a):
        return wrong

    refuse(lambda: nbad.grad(lambda a: np.sum(bad(a)[0]))(U), "bad", "forward must return")


def test_a_shared_function_without_a_value_is_refused() -> None:
    def s(a):
        pass

    def rule(g, s):
        return g

    bad = nbad.primitive(shared={"s": s}, a=rule)(plain_add)
    refuse(lambda: nbad.grad(lambda a: np.sum(bad(a, V)))(U), "'s'", "is None")


def test_an_operand_without_a_pullback_cannot_be_asked_for() -> None:
    def rule(g):
        return g

    half = nbad.primitive(a=rule)(plain_add)
    np.testing.assert_array_equal(nbad.grad(lambda a: np.sum(half(a, V)))(U), np.ones(N))
    with pytest.raises(NoRuleError, match="operand 'b' of plain_add") as caught:
        nbad.grad(lambda b: np.sum(half(U, b)))(V)
    assert "half(U, b)" in str(caught.value)


def test_an_operand_with_none_passes_nothing() -> None:
    def rule(g):
        return g

    half = nbad.primitive(a=rule, b=None)(plain_add)
    np.testing.assert_array_equal(nbad.grad(lambda b: np.sum(half(heavy(b), heavy(b))))(V), 2 * V)
    assert COUNT["heavy_x"] == 1  # what feeds b is not pulled back
    np.testing.assert_array_equal(nbad.grad(lambda b: np.sum(half(U, b)))(V), np.zeros(N))


def test_arrays_as_attributes_are_refused() -> None:
    refuse(lambda: power(U, n=U), "power", "'n'", "array")

    def f(x: Any) -> Any:
        return np.sum(power(x, n=x))  # here

    refuse(lambda: nbad.grad(f)(U), "power", "'n'", "array", "# here")
    refuse(lambda: power(U, n={1}), "power", "'n'", "set")


def test_containers_as_operands_are_refused() -> None:
    with pytest.raises(InputTypeError, match="operand 'b' is of type dict"):
        nbad.grad(lambda a: np.sum(product(a, {"b": a})))(U)


def test_wrong_calls_name_the_primitive() -> None:
    with pytest.raises(TypeError, match="product: missing a required argument: 'b'"):
        product(U)
    with pytest.raises(TypeError, match="product: got an unexpected keyword argument 'c'"):
        product(U, V, c=1)


def test_an_error_inside_a_rule_comes_out_as_it_is() -> None:
    def rule(g):
        raise ZeroDivisionError("of the rule")

    bad = nbad.primitive(a=rule)(plain_add)
    with pytest.raises(ZeroDivisionError, match="of the rule"):
        nbad.grad(lambda a: np.sum(bad(a, V)))(U)
    np.testing.assert_allclose(nbad.grad(loss)(U, V), GRADIENT_U, atol=1e-11)
