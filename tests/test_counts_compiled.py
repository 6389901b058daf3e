"""How many transforms a replay runs, beside the least that is possible, and what it does not execute at all.

Each case is called three times: to record, to see which inputs stay, and to count. What stays costs nothing; what is asked for
is taken to change at each call.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.report import Report

N = 64
RNG = np.random.default_rng(0)


def fresh() -> np.ndarray:
    """Return an array that no call has seen."""
    return RNG.standard_normal(N)


def by_convolve(u: Any, v: Any) -> Any:
    return nbad.convolve(u, v, "wrap")


def by_fft(u: Any, v: Any) -> Any:
    return np.real(np.fft.ifft(np.fft.fft(u) * np.fft.fft(v)))


def by_rfft(u: Any, v: Any) -> Any:
    return np.fft.irfft(np.fft.rfft(u) * np.fft.rfft(v), N)


CONVOLUTIONS = [by_convolve, by_fft, by_rfft]
each_convolution = pytest.mark.parametrize("conv", CONVOLUTIONS)


def replayed(transformed: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> Report:
    """Return the account of the third of three calls; the results of all are those of the function that is not compiled."""
    for _ in range(2):
        transformed(*arguments())
    with nbad.report() as account:
        transformed(*arguments())
    assert account.replays == 1
    return account


def agrees(function: Callable[..., Any], make: Callable[[Any], Any], arguments: tuple[Any, ...]) -> Any:
    """Return the transformation of the compiled function, having compared it with that of the plain one."""
    compiled = make(nbad.compile(function))
    for _ in range(2):
        found, expected = nbad.tree.leaves(compiled(*arguments)), nbad.tree.leaves(make(function)(*arguments))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    return compiled


# The convolution, by how it is written ----------------------------------------------------------------
@each_convolution
def test_the_value_and_gradient_of_a_quadratic_loss(conv: Callable[[Any, Any], Any]) -> None:
    v, m = fresh(), fresh()
    transformed = agrees(lambda u, v, m: np.sum((conv(u, v) - m) ** 2), nbad.value_and_grad, (fresh(), v, m))
    assert replayed(transformed, lambda: (fresh(), v, m)).ffts == 4  # least: 4
    assert replayed(transformed, lambda: (fresh(), v, fresh())).ffts == 4  # least: 4
    assert replayed(transformed, lambda: (fresh(), fresh(), m)).ffts == 5  # least: 5, the spectrum of v


@each_convolution
def test_the_gradient_by_both_operands(conv: Callable[[Any, Any], Any]) -> None:
    transformed = agrees(
        lambda u, v: np.sum(conv(u, v) ** 2), lambda f: nbad.value_and_grad(f, (0, 1)), (fresh(), fresh())
    )
    assert replayed(transformed, lambda: (fresh(), fresh())).ffts == 6  # least: 6, three each way


@each_convolution
def test_the_gradient_of_a_linear_loss(conv: Callable[[Any, Any], Any]) -> None:
    v = fresh()
    transformed = agrees(lambda u, v: np.sum(conv(u, v)), nbad.grad, (fresh(), v))
    account = replayed(transformed, lambda: (fresh(), v))
    assert (account.ffts, account.nodes_run) == (0, 0)  # least: 0, u is not even read
    # Least 2: the spectrum of v, and the way back. That of the cotangent, which is constant, was made once.
    assert replayed(transformed, lambda: (fresh(), fresh())).ffts == 2


@each_convolution
def test_the_value_and_gradient_of_a_linear_loss(conv: Callable[[Any, Any], Any]) -> None:
    v = fresh()
    transformed = agrees(lambda u, v: np.sum(conv(u, v)), nbad.value_and_grad, (fresh(), v))
    assert replayed(transformed, lambda: (fresh(), v)).ffts == 2  # least: 2, the value
    assert replayed(transformed, lambda: (fresh(), fresh())).ffts == 4  # least: 4
    both = agrees(lambda u, v: np.sum(conv(u, v)), lambda f: nbad.grad(f, (0, 1)), (fresh(), v))
    assert replayed(both, lambda: (fresh(), fresh())).ffts == 4  # least: 4, there and back for each


@each_convolution
def test_the_value_alone(conv: Callable[[Any, Any], Any]) -> None:
    v = fresh()
    compiled = agrees(lambda u, v: np.sum(conv(u, v) ** 2), lambda f: f, (fresh(), v))
    assert replayed(compiled, lambda: (fresh(), v)).ffts <= 3


@each_convolution
def test_the_product_with_the_hessian(conv: Callable[[Any, Any], Any]) -> None:
    v, m = fresh(), fresh()

    def loss(u: Any, v: Any, m: Any) -> Any:
        return np.sum((conv(u, v) - m) ** 2)

    product = nbad.hvp(nbad.compile(loss))
    u, d = fresh(), fresh()
    for _ in range(2):
        np.testing.assert_allclose(product(u, v, m, d), nbad.hvp(loss)(u, v, m, d), rtol=1e-9, atol=1e-9)
    assert replayed(product, lambda: (fresh(), v, m, fresh())).ffts == 4  # least: 4, d there and back, twice


# What is around it ------------------------------------------------------------------------------------
def test_a_kernel_that_is_closed_over() -> None:
    v = fresh()
    for loss in (lambda u: np.sum(by_convolve(u, v) ** 2), lambda u: np.sum(by_fft(u, v) ** 2)):
        transformed = agrees(loss, nbad.value_and_grad, (fresh(),))
        assert replayed(transformed, lambda: (fresh(),)).ffts == 4  # least: 4


def test_a_spectrum_that_is_given() -> None:
    h = np.fft.fft(fresh())

    def loss(u: Any, h: Any) -> Any:
        return np.sum(np.real(np.fft.ifft(np.fft.fft(u) * h)) ** 2)

    transformed = agrees(loss, nbad.value_and_grad, (fresh(), h))
    assert replayed(transformed, lambda: (fresh(), h)).ffts == 4  # least: 4


@each_convolution
def test_one_leaf_of_a_container(conv: Callable[[Any, Any], Any]) -> None:
    psf = fresh()

    def loss(p: Any) -> Any:
        return np.sum(conv(p["img"], np.real(np.fft.ifft(np.fft.fft(p["psf"]) * 2.0))) ** 2)

    transformed = agrees(loss, lambda f: nbad.value_and_grad(f, "p.img"), ({"img": fresh(), "psf": psf},))
    account = replayed(transformed, lambda: ({"img": fresh(), "psf": psf},))
    assert account.ffts == 4  # least: 4, nothing of psf, neither there nor back


@each_convolution
def test_what_feeds_an_operand_that_is_not_asked_for(conv: Callable[[Any, Any], Any]) -> None:
    w = fresh()

    def loss(u: Any, w: Any) -> Any:
        return np.sum(conv(u, np.real(np.fft.ifft(np.fft.fft(w) * 0.5))) ** 2)

    transformed = agrees(loss, nbad.grad, (fresh(), w))
    assert replayed(transformed, lambda: (fresh(), w)).ffts == 4  # least: 4
    assert (
        replayed(transformed, lambda: (fresh(), fresh())).ffts == 7
    )  # least: 7, fft(w), back, and its spectrum


@each_convolution
def test_a_stopped_operand_and_a_constant_one(conv: Callable[[Any, Any], Any]) -> None:
    stopped = agrees(
        lambda u, v: np.sum(conv(u, nbad.stop_gradient(v)) ** 2),
        lambda f: nbad.grad(f, (0, 1)),
        (fresh(), fresh()),
    )
    assert replayed(stopped, lambda: (fresh(), fresh())).ffts == 5  # least: 5; nothing goes back to v
    floored = agrees(
        lambda u, v: np.sum(conv(u, np.floor(v)) ** 2), lambda f: nbad.grad(f, (0, 1)), (fresh(), fresh())
    )
    assert replayed(floored, lambda: (fresh(), fresh())).ffts == 5


@each_convolution
def test_zero_times_a_convolution(conv: Callable[[Any, Any], Any]) -> None:
    def loss(u: Any, v: Any) -> Any:
        return np.sum(u**2) + 0.0 * np.sum(conv(u, v) ** 2)

    transformed = agrees(loss, lambda f: nbad.grad(f, (0, 1)), (fresh(), fresh()))
    assert replayed(transformed, lambda: (fresh(), fresh())).ffts == 0  # least: 0


@each_convolution
def test_a_result_that_nothing_uses(conv: Callable[[Any, Any], Any]) -> None:
    def loss(u: Any, v: Any) -> Any:
        conv(v, v)
        return np.sum(conv(u, v) ** 2)

    transformed = agrees(loss, lambda f: nbad.value_and_grad(f, (0, 1)), (fresh(), fresh()))
    assert replayed(transformed, lambda: (fresh(), fresh())).ffts == 6  # least: 6


@each_convolution
def test_a_branch_that_is_shared(conv: Callable[[Any, Any], Any]) -> None:
    # Two views of one object: its spectrum is made once.
    v, w = fresh(), fresh()

    def loss(u: Any, v: Any, w: Any) -> Any:
        return np.sum(conv(u, v) ** 2) + np.sum(conv(u, w) ** 2)

    transformed = agrees(loss, nbad.grad, (fresh(), v, w))
    # Least 6: u there, two back, two residuals there, and their sum back. The two are transformed back one by one.
    assert replayed(transformed, lambda: (fresh(), v, w)).ffts == 7


# A user's operation -----------------------------------------------------------------------------------
def written_by_hand(runs: "Counter[str]") -> Callable[..., Any]:
    """Return a convolution with rules of its own, which counts how often each runs."""

    def u_hat(u):  # type: ignore[no-untyped-def]
        return np.fft.rfft(u)

    def v_hat(v):  # type: ignore[no-untyped-def]
        return np.fft.rfft(v)

    def g_hat(g):  # type: ignore[no-untyped-def]
        return np.fft.rfft(g)

    def conv_u(g_hat, v_hat, u_shape):  # type: ignore[no-untyped-def]
        runs["u"] += 1
        return np.fft.irfft(g_hat * np.conj(v_hat), u_shape[0])

    def conv_v(g_hat, u_hat, v_shape):  # type: ignore[no-untyped-def]
        runs["v"] += 1
        return np.fft.irfft(g_hat * np.conj(u_hat), v_shape[0])

    def conv(u, v, *, u_hat, v_hat):  # type: ignore[no-untyped-def]
        return np.fft.irfft(u_hat * v_hat, u.shape[0])

    shared = {"u_hat": u_hat, "v_hat": v_hat, "g_hat": g_hat}
    return nbad.primitive(shared=shared, u=conv_u, v=conv_v)(conv)


def test_a_users_rules() -> None:
    v, runs = fresh(), Counter[str]()
    conv = written_by_hand(runs)

    def loss(u: Any, v: Any) -> Any:
        return np.sum(conv(u, v) ** 2)

    transformed = agrees(loss, nbad.value_and_grad, (fresh(), v))
    assert runs["v"] == 0
    before = runs["u"]
    # Of the sweep, least: 2. The forward is one step of the replay, which NumPy transforms for: 3 that are not counted.
    assert replayed(transformed, lambda: (fresh(), v)).ffts == 2
    assert runs == {"u": before}  # a replay does what the rule did, without calling it
    both = agrees(loss, lambda f: nbad.grad(f, (0, 1)), (fresh(), v))
    # Least: 3 if the forward handed out the spectra that it was given; here they are made for the sweep, 2 more.
    assert replayed(both, lambda: (fresh(), fresh())).ffts == 5


def test_an_output_that_nothing_uses() -> None:
    seen = []

    def pair_x(g):  # type: ignore[no-untyped-def]
        seen.append([part is None for part in g])
        return np.fft.irfft(np.fft.rfft(g[0]), N)

    @nbad.primitive(outputs=2, x=pair_x)
    def pair(x):  # type: ignore[no-untyped-def]
        return x + 0.0, x * 2.0

    transformed = agrees(lambda x: np.sum(pair(x)[0] ** 2), nbad.grad, (fresh(),))
    assert set(map(tuple, seen)) == {(False, True)}
    assert replayed(transformed, lambda: (fresh(),)).ffts == 2  # least for this rule: 2
