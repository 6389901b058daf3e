"""checkpoint: the same gradient, nothing kept but arguments, and nothing computed again that no pullback reads.

The least number of transforms stands beside each count: a forward takes three; what is computed again is the spectra that are
read; the sweep takes one for the cotangent and one for each argument.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import all_cases
from laws import Case, gradient, outputs_of, same_bits

import nbad
from nbad import checkpoint
from nbad.report import Report

N = 64
RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((2, N))


def conv(u: Any, v: Any) -> Any:
    return np.real(np.fft.ifft(np.fft.fft(u) * np.fft.fft(v)))


def step(x: Any, w: Any) -> Any:
    return np.tanh(x * w + np.roll(x, 1))


def steps(x: Any, w: Any, count: int) -> Any:
    for _ in range(count):
        x = step(x, w)
    return x


def counted(function: Callable[..., Any], *args: Any, wrt: Any = 0) -> tuple[Any, Report]:
    with nbad.report() as account:
        found = nbad.grad(function, wrt)(*args)
    return found, account


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


# The same numbers -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("case", "dtype"), all_cases())
def test_the_gradient_of_every_operation_is_the_same_to_the_bit(case: Case, dtype: str) -> None:
    args, wrt = case.draw(dtype)
    with np.errstate(all="ignore"):
        value, found = gradient(case.function, args, wrt)
        again, other = gradient(checkpoint(case.function), args, wrt)
    for a, b in zip(outputs_of((value, found)), outputs_of((again, other)), strict=True):
        assert a.dtype == b.dtype
        assert same_bits(a, b)


def test_first_second_and_third_order() -> None:
    def plain(u: Any) -> Any:
        return np.sum(conv(u, u * W) ** 3)

    def kept(u: Any) -> Any:
        return np.sum(checkpoint(conv)(u, u * W) ** 3)

    close(nbad.grad(kept)(X), nbad.grad(plain)(X))
    close(nbad.hvp(kept)(X, W), nbad.hvp(plain)(X, W))
    close(nbad.jvp(kept, (X,), (W,)), nbad.jvp(plain, (X,), (W,)))
    close(nbad.hessian(kept)(X), nbad.hessian(plain)(X))
    third = [nbad.grad(lambda u, f=f: np.sum(nbad.hvp(f)(u, W) ** 2))(X) for f in (kept, plain)]
    close(*(t / np.abs(third[1]).max() for t in third))


def test_jacobians_and_linear_maps() -> None:
    f = checkpoint(lambda x: x[1:] * np.sin(x[:-1]))
    expected = nbad.jacobian(lambda x: x[1:] * np.sin(x[:-1]))(X)
    close(nbad.jacobian(f)(X), expected)
    close(nbad.jacobian(f, sparse=True)(X).toarray(), expected)
    _, linear = nbad.linearize(f, X)
    close(linear.jvp(W), expected @ W)
    close(linear.vjp(W[1:]), expected.T @ W[1:])


def test_a_gradient_inside() -> None:
    inner = nbad.grad(lambda x: np.sum(x**3))
    found = nbad.grad(lambda x: np.sum(checkpoint(lambda x: inner(x) * x)(x)))(X)
    close(found, 9 * X**2)


@pytest.mark.parametrize("dtype", ["f4", "c8", "c16", ">f8"])
def test_dtypes(dtype: str) -> None:
    x = (X + (1j * W if "c" in dtype else 0)).astype(dtype)

    def f(x: Any) -> Any:
        return np.sum(np.abs(np.exp(x) * x[::-1]))

    assert same_bits(nbad.grad(f)(x), nbad.grad(lambda x: checkpoint(f)(x))(x))


# Counts ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("wrt", "least"), [(0, 6), (1, 6), ((0, 1), 8)])
def test_transforms_of_a_convolution(wrt: Any, least: int) -> None:
    # Least: forward 3, the spectra that are read 1 or 2, sweep 2 or 3.
    _, account = counted(lambda u, v: np.sum(checkpoint(conv)(u, v)), X, W, wrt=wrt)
    assert account.ffts == least


@pytest.mark.parametrize(("wrt", "least"), [(0, 6), (1, 6), ((0, 1), 8)])
def test_transforms_of_the_built_in_convolution(wrt: Any, least: int) -> None:
    _, account = counted(lambda u, v: np.sum(checkpoint(nbad.convolve)(u, v) ** 2), X, W, wrt=wrt)
    assert account.ffts == least
    assert account.run("filter", "u") == (wrt != 1)
    assert account.run("filter", "v") == (wrt != 0)


def test_what_is_linear_is_not_computed_again() -> None:
    _, account = counted(lambda x: np.sum(checkpoint(np.fft.fft)(x).real ** 2), X)
    assert account.ffts == 2  # least: forward 1, sweep 1
    assert account.bytes_kept == 8 * N  # the real part, for the square outside


def test_bytes_kept_are_those_of_the_arguments_that_are_read() -> None:
    def loss(f: Callable[..., Any], x: Any, w: Any) -> Any:
        return np.sum(f(2 * x, 3 * w))

    def both(x: Any, w: Any) -> Any:
        return np.exp(np.sin(x) * 4) + 5 * w

    _, plain = counted(lambda x, w: loss(both, x, w), X, W, wrt=(0, 1))
    _, account = counted(lambda x, w: loss(checkpoint(both), x, w), X, W, wrt=(0, 1))
    assert plain.bytes_kept == 16 * N  # the operand of sin, the output of exp
    assert account.bytes_kept == 8 * N  # least: 2 * x
    _, account = counted(lambda x, w: loss(checkpoint(both), x, w), X, W, wrt=1)
    assert account.bytes_kept == 0


def test_a_branch_that_is_not_asked_for_is_not_computed_again() -> None:
    def two(x: Any, w: Any) -> Any:
        return np.sin(x), nbad.convolve(w, w)

    def loss(x: Any, w: Any) -> Any:
        a, b = checkpoint(two)(x, w)
        return np.sum(a) + np.sum(b)

    _, account = counted(loss, X, W)
    assert account.ffts == 3  # the forward alone
    assert account.run("filter", "u") == account.run("filter", "v") == 0
    found, account = counted(lambda x, w: np.sum(checkpoint(two)(x, w)[0]), X, W, wrt=(0, 1))
    assert account.ffts == 3
    assert not found[1].any()


def test_an_output_that_depends_on_nothing_asked_for_is_plain() -> None:
    def loss(x: Any, w: Any) -> Any:
        a, b = checkpoint(lambda x, w: (np.sin(x), np.cos(w)))(x, w)
        assert type(b) is np.ndarray
        return np.sum(a * b)

    close(nbad.grad(loss)(X, W), np.cos(X) * np.cos(W))


def test_halving_keeps_few_states() -> None:
    def halved(x: Any, count: int) -> Any:
        if count == 1:
            return step(x, W)
        half = checkpoint(halved)
        return half(half(x, count // 2), count - count // 2)

    plain, before = counted(lambda x: np.sum(steps(x, W, 64)), X)
    found, account = counted(lambda x: np.sum(halved(x, 64)), X)
    assert same_bits(found, plain)
    assert before.bytes_kept == 64 * 8 * N
    assert account.bytes_kept == 8 * N  # the state in the middle; the first one is the caller's
    assert account.run("tanh", "x") == 64  # each pullback once
    close(nbad.hvp(lambda x: np.sum(halved(x, 8)))(X, W), nbad.hvp(lambda x: np.sum(steps(x, W, 8)))(X, W))


def test_the_function_is_called_once() -> None:
    calls = []

    @checkpoint
    def f(x: Any) -> Any:
        calls.append(1)
        return np.sin(x)

    nbad.hvp(lambda x: np.sum(f(x) ** 2))(X, W)
    assert calls == [1]


def test_derivatives_of_the_pull_keep_no_more() -> None:
    def kept(f: Callable[..., Any]) -> int:
        with nbad.report() as account:
            nbad.hvp(lambda x: np.sum(f(x, W, 20)))(X, W)
        return account.bytes_kept

    assert kept(checkpoint(steps)) < kept(steps) / 10


# What a function may be -----------------------------------------------------------------------------
def test_containers_keywords_and_static_arguments() -> None:
    def f(p: Any, *, scale: float, mode: str, shape: tuple[int, int]) -> Any:
        assert mode == "square"
        return {
            "s": np.reshape(p["x"] * scale, shape),
            "n": 3,
            "order": np.argsort(p["x"]),
            "t": (p["y"].sum(), p["x"]),
        }

    def loss(f: Callable[..., Any], p: Any) -> Any:
        out = f(p, scale=2.0, mode="square", shape=(8, 8))
        assert out["n"] == 3
        return np.sum(out["s"] ** 2) + out["t"][0] ** 2 + np.sum(out["t"][1][out["order"][:3]])

    p = {"x": X, "y": W}
    plain = nbad.grad(lambda p: loss(f, p))(p)
    found = nbad.grad(lambda p: loss(checkpoint(f), p))(p)
    compiled = nbad.grad(nbad.compile(lambda p: loss(checkpoint(f), p)))
    for _ in range(3):
        again = compiled(p)
    for name, expected in plain.items():
        assert same_bits(found[name], expected)
        close(again[name], expected)


def test_plain_calls_are_calls() -> None:
    f = checkpoint(step)
    assert same_bits(f(X, W), step(X, W))
    assert f.__name__ == "step"


def test_a_traced_value_from_the_closure() -> None:
    def loss(w: Any) -> Any:
        scaled = 2 * w
        g = checkpoint(lambda x: np.tanh(x * scaled) * scaled)
        return np.sum(g(g(X)) ** 2)

    def plain(w: Any) -> Any:
        g = lambda x: np.tanh(x * (2 * w)) * (2 * w)  # noqa: E731
        return np.sum(g(g(X)) ** 2)

    close(nbad.grad(loss)(W), nbad.grad(plain)(W))
    close(nbad.hvp(loss)(W, X), nbad.hvp(plain)(W, X))
    compiled = nbad.compile(loss)
    for _ in range(3):
        found = nbad.grad(compiled)(W)
    close(found, nbad.grad(plain)(W))
    _, account = counted(loss, W)
    assert account.bytes_kept <= 4 * 8 * N  # scaled, the two results; not what is inside


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_inside_of_values_from_the_closure(compiled: bool) -> None:
    def loss(wrap: Callable[..., Any], x: Any, w: Any) -> Any:
        scaled = 2 * w

        def inner(x: Any) -> Any:
            by_argument = nbad.grad(lambda z: np.sum(np.sin(z * scaled) * z * x))(x)
            by_captured = nbad.grad(lambda q: np.sum(np.cos(q) * x * q))(scaled)
            return by_argument * by_captured + scaled

        return np.sum(wrap(inner)(x * x) ** 2)

    expected = nbad.grad(lambda x, w: loss(lambda f: f, x, w), (0, 1))(X, W)
    function: Any = lambda x, w: loss(checkpoint, x, w)  # noqa: E731
    gradient = nbad.grad(nbad.compile(function) if compiled else function, (0, 1))
    for _ in range(3 if compiled else 1):
        found = gradient(X, W)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_checkpoints_and_products_inside() -> None:
    def f(wrap: Callable[..., Any], x: Any) -> Any:
        slope = nbad.grad(lambda z: np.sum(wrap(lambda z: np.sin(z) * z)(z)))(x)
        return slope * nbad.hvp(lambda z: np.sum(z**4))(x, x) + nbad.jvp(np.sin, (x,), (x,))[1]

    expected = nbad.grad(lambda x: np.sum(f(lambda g: g, x)))(X)
    found = nbad.grad(lambda x: np.sum(checkpoint(lambda x: f(checkpoint, x))(x)))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_first_number_that_is_not_finite_is_named() -> None:
    with nbad.config(nan="raise"), pytest.raises(nbad.NonFiniteError, match="log made a NaN"):
        nbad.grad(lambda x: np.sum(checkpoint(np.log)(x)))(-np.ones(3))
    with nbad.config(nan="raise"), pytest.raises(nbad.NonFiniteError, match="pullback of sqrt"):
        nbad.grad(lambda x: np.sum(checkpoint(np.sqrt)(x)))(np.zeros(3))


def test_a_number_from_the_closure_written_in_between() -> None:
    def loss(x: Any) -> Any:
        state = np.zeros_like(x)
        state[...] = x
        f = checkpoint(lambda y: y * state)
        first = f(x)
        state[...] = x * x
        return np.sum(first * f(x))

    close(nbad.grad(loss)(X), 5 * X**4)


def test_a_write_to_an_array_of_the_caller_is_refused() -> None:
    def loss(x: Any) -> Any:
        outer = np.zeros_like(x)

        def f(y: Any) -> Any:
            outer[0] = y[0]
            return y * 2

        return np.sum(checkpoint(f)(x)) + outer[0]

    with pytest.raises(nbad.NbadError):
        nbad.grad(loss)(X)


def test_a_conversion_to_a_number_is_refused() -> None:
    with pytest.raises(nbad.DetachError, match="test_checkpoint"):
        nbad.grad(lambda x: np.sum(checkpoint(lambda x: x * float(x[0]))(x)))(X)
    f = checkpoint(lambda x, y: x * float(y[0]))  # what carries no derivative may be converted
    close(nbad.grad(lambda x: np.sum(f(x, W)))(X), np.full(N, W[0]))


def test_a_primitive_without_a_pullback_is_refused() -> None:
    @nbad.primitive(a=lambda g, b: g * b)
    def scaled(a: Any, b: Any) -> Any:
        return a * b

    f = checkpoint(lambda a, b: scaled(a, b) * 2)
    close(nbad.grad(lambda a: np.sum(f(a, W)))(X), 2 * W)
    with pytest.raises(nbad.NoRuleError, match="scaled"):
        nbad.grad(lambda b: np.sum(f(X, b)))(W)


def test_an_array_changed_before_the_sweep_is_an_error() -> None:
    constant = np.ones(N)
    given = W.copy()
    _, pullback = nbad.vjp(lambda x: checkpoint(lambda x, w: x * constant * w)(x, given), X)
    close(pullback(np.ones(N)), W)
    constant[0] = 2
    with pytest.raises(nbad.MutationError):
        pullback(np.ones(N))
    constant[0] = 1
    given[0] += 1
    with pytest.raises(nbad.MutationError):
        pullback(np.ones(N))


def test_branches_and_random_numbers_are_those_of_the_call() -> None:
    rng = np.random.default_rng(1)
    switch = [True]

    @checkpoint
    def f(x: Any) -> Any:
        noise = rng.standard_normal(N)
        return np.sin(x) * noise if switch[0] else x

    value, pullback = nbad.vjp(f, X)
    switch[0] = False
    close(pullback(np.ones(N)), np.cos(X) * value / np.sin(X))
    close(pullback(np.ones(N)), np.cos(X) * value / np.sin(X))


def test_exceptions_pass_through() -> None:
    @checkpoint
    def f(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nbad.grad(lambda x: np.sum(f(x)))(X)
    close(nbad.grad(lambda x: np.sum(checkpoint(np.sin)(x)))(X), np.cos(X))


def test_a_result_that_is_an_argument_is_a_copy() -> None:
    def loss(x: Any) -> Any:
        y = np.zeros_like(x) + x
        same, part = checkpoint(lambda y: (y, y[2:]))(y)
        part[...] = 0
        same[:2] = 0
        return np.sum(y**2) + np.sum(same)

    expected = 2 * X + 1
    expected[:2] -= 1
    close(nbad.grad(loss)(X), expected)


def test_writes_inside() -> None:
    def f(x: Any) -> Any:
        y = np.zeros_like(x)
        y[1:] = x[:-1] * x[1:]
        y[0] += x[0]
        return y

    assert same_bits(
        nbad.grad(lambda x: np.sum(checkpoint(f)(x) ** 2))(X), nbad.grad(lambda x: np.sum(f(x) ** 2))(X)
    )


def test_too_many_outputs_are_refused() -> None:
    with pytest.raises(nbad.InputTypeError, match="255"):
        nbad.grad(lambda x: np.sum(np.stack(checkpoint(lambda x: [x * k for k in range(256)])(x))))(X)


def test_threads_pull_the_same_region() -> None:
    _, pullback = nbad.vjp(lambda x: checkpoint(steps)(x, W, 10), X)
    expected = [pullback(k * W) for k in range(8)]
    found: list[Any] = [None] * 8

    def work(k: int) -> None:
        found[k] = pullback(k * W)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, expected, strict=True):
        assert same_bits(a, b)


# Compiled -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("wrt", "least"), [(0, 6), ((0, 1), 8)])
def test_compiled_transforms_are_run_again_on_purpose(wrt: Any, least: int) -> None:
    f = nbad.grad(nbad.compile(lambda u, v: np.sum(checkpoint(conv)(u, v) ** 2)), wrt)
    for _ in range(2):
        f(X, W)
    u, v = X + 1, W + 1
    with nbad.report() as account:
        found = f(u, v)
    assert account.replays == 1
    assert account.ffts == least  # not merged with the forward: forward 3, again 1 or 2, sweep 2 or 3
    expected = nbad.grad(lambda u, v: np.sum(conv(u, v) ** 2), wrt)(u, v)
    for a, b in zip(outputs_of(found), outputs_of(expected), strict=True):
        close(a, b)


def test_compiled_workspaces_are_smaller() -> None:
    def loss(x: Any, w: Any, f: Callable[..., Any]) -> Any:
        for _ in range(4):
            x = f(x, w)
        return np.sum(x)

    def four(x: Any, w: Any) -> Any:
        for _ in range(4):
            x = np.tanh(conv(x, w))
        return x

    def peak(f: Callable[..., Any]) -> int:
        compiled = nbad.compile(lambda x, w: loss(x, w, f))
        for _ in range(3):
            close(nbad.grad(compiled)(X, W), nbad.grad(lambda x, w: loss(x, w, four))(X, W))
        return compiled.report().peak_bytes

    assert peak(checkpoint(four)) < peak(four) / 2


def test_compiled_branches_inside_are_seen() -> None:
    @checkpoint
    def f(x: Any) -> Any:
        return x * x if np.sum(x) > 0 else x * x * x

    compiled = nbad.grad(nbad.compile(lambda x: np.sum(f(x))))
    for sign in (1, -1, 1, -1, 1, -1):
        x = sign * np.abs(X)
        close(compiled(x), 2 * x if sign > 0 else 3 * x * x)


def test_compiled_shapes_that_depend_on_values() -> None:
    f = checkpoint(lambda x: np.sum(x[x > 0] ** 3))
    compiled = nbad.grad(nbad.compile(lambda x: f(x) * 2))
    for sign in (1, -1, 1, -1, 1, -1):
        x = sign * X
        close(compiled(x), np.where(x > 0, 6 * x * x, 0))


def test_compiled_hidden_arrays_are_seen() -> None:
    hidden = np.ones(N)
    f = checkpoint(lambda x: x * hidden)
    compiled = nbad.grad(nbad.compile(lambda x: np.sum(f(x))))
    for k in range(4):
        hidden[:] = k
        close(compiled(X), np.full(N, float(k)))


def test_compiled_higher_orders() -> None:
    compiled = nbad.compile(lambda x: np.sum(checkpoint(steps)(x, W, 3) ** 2))
    for _ in range(3):
        found = nbad.hvp(compiled)(X, W)
    close(found, nbad.hvp(lambda x: np.sum(steps(x, W, 3) ** 2))(X, W))


def test_a_compiled_function_inside() -> None:
    compiled = nbad.compile(step)
    close(
        nbad.grad(lambda x: np.sum(checkpoint(compiled)(x, W)))(X), nbad.grad(lambda x: np.sum(step(x, W)))(X)
    )


def test_a_file_cannot_hold_a_checkpoint(tmp_path: Any) -> None:
    compiled = nbad.compile(lambda x: np.sum(checkpoint(np.sin)(x)))
    nbad.grad(compiled)(X)
    with pytest.raises(nbad.TapeError, match="checkpoint"):
        compiled.save(tmp_path / "tape.npz")
