"""Chains: where a residual and its cotangent need not exist as wholes, and that results are those of separate steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.kernels.threads import get_threads, set_threads
from nbad.replay import planning
from nbad.replay.chains import Chain, arrange
from nbad.replay.program import Program

RNG = np.random.default_rng(7)
#: The first three have slabs of one, several and padded rows; then odd lengths, a prime one, a batch.
SHAPES = [(40, 30, 31), (300, 128), (230, 151), (35, 33, 37), (61, 29, 23), (2, 150, 131)]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Program, dict[int, Chain]]]:
    """Return a list to which each program that is planned adds itself and its chains."""
    found: list[Any] = []
    whole = Program.__init__

    def init(self: Program, *arguments: Any) -> None:
        whole(self, *arguments)
        found.append((self, self.chains))

    monkeypatch.setattr(Program, "__init__", init)
    return found


def data(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return u, v, m; complex where the dtype says so."""
    arrays = [RNG.standard_normal(shape) for _ in range(3)]
    if np.dtype(dtype).kind == "c":
        arrays = [x + 1j * RNG.standard_normal(shape) for x in arrays]
    u, v, m = (x.astype(dtype) for x in arrays)
    return u, v / np.asarray(u.size, u.real.dtype), m


def residual(mode: str, axes: Any = None) -> Callable[..., Any]:
    """Return a loss whose cotangent is made of its residual, element by element."""

    def loss(u: Any, v: Any, m: Any) -> Any:
        r = nbad.convolve(u, v, mode, axes=axes) - m
        return np.sum(np.real(r * np.conj(r)))

    return loss


def last(compiled: Any, u: Any, *others: Any) -> Any:
    """Return what the third call gives; the first records, the second plans."""
    for scale in (3.0, 2.0):
        compiled(u * u.dtype.type(scale), *others)
    return compiled(u, *others)


def agree(found: Any, expected: Any, dtype: Any) -> None:
    tolerance = 2e-4 if np.dtype(dtype).itemsize == (8 if np.dtype(dtype).kind == "c" else 4) else 1e-11
    for a, b in zip(nbad.tree.leaves(found), nbad.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("wrt", ["u", ("u", "v")], ids=str)
def test_a_residual_goes_through_in_slabs(programs: Any, shape: Any, dtype: str, wrt: Any) -> None:
    axes = (1, 2) if shape[0] == 2 else None
    u, v, m = data(shape, dtype)
    loss = residual("wrap", axes)
    found = last(nbad.value_and_grad(nbad.compile(loss), wrt=wrt), u, v, m)
    agree(found, nbad.value_and_grad(loss, wrt=wrt)(u, v, m), dtype)
    program, chains = programs[-1]
    assert len(chains) == 1
    # Least: no array of the size of u in the workspace, but for the spectrum of v where that is kept between calls.
    spectrum = 0 if wrt != "u" else sum(n for _, n in [(0, 2 * u.nbytes)])
    assert program.arena_bytes < spectrum + u.nbytes / 2


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_padded_and_cropped_boxes(programs: Any, mode: str, dtype: str) -> None:
    u, v, m = data((60, 41, 37), dtype)
    v = v[:7, :5, :4] * 100
    m = np.asarray(nbad.convolve(u, v, mode)) * np.asarray(0.9, dtype)
    loss = residual(mode)
    found = last(nbad.value_and_grad(nbad.compile(loss)), u, v, m)
    agree(found, nbad.value_and_grad(loss)(u, v, m), dtype)
    assert len(programs[-1][1]) == 1


def test_what_stands_between_is_put_before_or_after(programs: Any) -> None:
    def loss(u: Any, v: Any, m: Any) -> Any:
        fit = 0.5 * np.sum((nbad.convolve(u, v, "wrap") - m) ** 2)
        return fit + 0.1 * np.sum(np.sqrt(np.diff(u, axis=0) ** 2 + 1e-3))

    u, v, m = data((60, 41, 37), "f8")
    found = last(nbad.value_and_grad(nbad.compile(loss)), u, v, m)
    agree(found, nbad.value_and_grad(loss)(u, v, m), "f8")
    assert len(programs[-1][1]) == 1


def test_two_chains(programs: Any) -> None:
    def loss(u: Any, v: Any, m: Any) -> Any:
        a = nbad.convolve(np.tanh(nbad.convolve(u, v, "wrap")), v, "wrap") - m
        return np.sum(a * a)

    u, v, m = data((60, 41, 37), "f8")
    found = last(nbad.value_and_grad(nbad.compile(loss)), u, v, m)
    agree(found, nbad.value_and_grad(loss)(u, v, m), "f8")
    # The result of the inner convolution is read again by the sweep, that of the outer one is not.
    assert len(programs[-1][1]) == 1


def loss_and_residual(u: Any, v: Any, m: Any) -> Any:
    r = nbad.convolve(u, v, "wrap")
    return np.sum((r - m) ** 2), r


def test_a_result_that_is_handed_out_exists(programs: Any) -> None:
    u, v, m = data((60, 41, 37), "f8")
    found = last(nbad.value_and_grad(nbad.compile(loss_and_residual), has_aux=True), u, v, m)
    agree(found, nbad.value_and_grad(loss_and_residual, has_aux=True)(u, v, m), "f8")
    assert not programs[-1][1]


@pytest.mark.parametrize(
    "cotangent",
    [
        lambda r: np.sum(np.diff(r, axis=1) ** 2),  # reads through windows
        lambda r: np.sum(np.cumsum(r, axis=0) ** 2),  # needs Python
        lambda r: np.sum((r - r.mean()) ** 2),  # needs all of it first
        lambda r: np.sum((r * np.arange(37.0)) ** 2),  # another factor for each column
    ],
    ids=["windows", "cumsum", "mean", "broadcast"],
)
def test_no_chain_where_slabs_do_not_stand_alone(programs: Any, cotangent: Any) -> None:
    def loss(u: Any, v: Any) -> Any:
        return cotangent(nbad.convolve(u, v, "wrap"))

    u, v, _ = data((60, 41, 37), "f8")
    found = last(nbad.value_and_grad(nbad.compile(loss)), u, v)
    agree(found, nbad.value_and_grad(loss)(u, v), "f8")
    assert not programs[-1][1]


def test_no_chain_in_one_dimension_or_where_little_is_done(programs: Any) -> None:
    for shape in [(70_001,), (40, 30)]:
        u, v, m = data(shape, "f8")
        found = last(nbad.value_and_grad(nbad.compile(residual("wrap"))), u, v, m)
        agree(found, nbad.value_and_grad(residual("wrap"))(u, v, m), "f8")
        assert not programs[-1][1]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_same_bits_for_any_number_of_threads(dtype: str) -> None:
    u, v, m = data((90, 61, 67), dtype)
    compiled = nbad.value_and_grad(nbad.compile(residual("wrap")))
    threads, found = get_threads(), []
    try:
        for number in (1, 2, 3):
            set_threads(number)
            found.append(last(compiled, u, v, m))
    finally:
        set_threads(threads)
    for value, gradient in found[1:]:
        assert value == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])


def test_as_many_transforms_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    u, v, m = data((60, 41, 37), "f8")
    counts, results = [], []
    for found in (arrange, lambda *_: {}):
        monkeypatch.setattr(planning, "arrange", found)
        compiled = nbad.value_and_grad(nbad.compile(residual("wrap")))
        last(compiled, u, v, m)
        with nbad.report() as account:
            results.append(compiled(u + 1, v, m))
        counts.append((account.ffts, account.nodes_run))
    assert counts[0] == counts[1] == (4, counts[1][1])  # least: 4
    agree(*results, "f8")
