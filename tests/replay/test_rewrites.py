"""Rewrites as they are applied: whole functions and their derivatives, by name, with the number of transforms that are left."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphs import naive, ops, transforms

import nbad
from nbad.deriving import derive, record_primal
from nbad.replay.graph import Graph, pruned
from nbad.replay.rewrites import REWRITES, rewrite_joint, rewrite_primal

RNG = np.random.default_rng(0)
U, V, M = (RNG.standard_normal((6, 5)) for _ in range(3))
SPECTRUM = np.fft.fftn(V) * (1 + 0.25j)

CONVOLUTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "convolve": lambda u, v: nbad.convolve(u, v, "wrap"),
    "convolve same": lambda u, v: nbad.convolve(u, v, "same"),
    "correlate": lambda u, v: nbad.correlate(u, v, "wrap"),
    "fftn": lambda u, v: np.real(np.fft.ifftn(np.fft.fftn(u) * np.fft.fftn(v))),
    "fft2 .real": lambda u, v: np.fft.ifft2(np.fft.fft2(v, norm="ortho") * np.fft.fft2(u, norm="ortho"), norm="ortho").real,
    "conj": lambda u, v: np.real(np.fft.ifftn(np.fft.fftn(u) * np.conj(np.fft.fftn(v)))),
    "astype": lambda u, v: np.real(np.fft.ifftn(np.fft.fftn(u.astype(complex)) * np.fft.fftn(v))),
    "abs": lambda u, v: np.abs(np.fft.ifftn(np.fft.fftn(u) * np.fft.fftn(v))),
    "rfftn": lambda u, v: np.fft.irfftn(np.fft.rfftn(u) * np.fft.rfftn(v), s=(6, 5), axes=(0, 1)),
    "s=": lambda u, v: np.real(
        np.fft.ifft2(np.fft.fft2(u, s=(9, 8)) * np.fft.fft2(v[:3, :4], s=(9, 8)))
    )[:6, :5],
}  # fmt: skip


def quadratic(conv: Callable[[Any, Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda leaves: np.sum((conv(leaves[0], leaves[1]) - leaves[2]) ** 2)


def linear(conv: Callable[[Any, Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda leaves: np.sum(conv(leaves[0], leaves[1]))


def derived(
    function: Callable[[list[Any]], Any],
    kind: str,
    places: tuple[int, ...],
    values: list[Any],
    without_value: bool = False,
) -> tuple[Graph, list[Any]]:
    """Return the graph of a transformation before its rewrites, and its inputs."""
    primal, *_ = record_primal(function, values, rewrite_primal)
    extra = [np.asarray(RNG.standard_normal(values[k].shape)) for k in places] if kind == "hvp" else []
    found, _ = derive(primal, kind, places, values, extra, has_aux=False)
    graph = found.graph.copy()
    if without_value:
        graph.outputs = graph.outputs[1:]
    return pruned(graph), [*values, *extra]


def check(graph: Graph, inputs: list[Any], asked: tuple[int, ...], changed: tuple[int, ...] = ()) -> int:
    """Return how many transforms the rewritten graph takes when only inputs that are asked for, or `changed`, are new."""
    fixed = [k for k in range(3) if k not in asked]
    masks = [2 << k if k in fixed else 1 for k in range(len(inputs))]
    after = rewrite_joint(graph, masks)
    for a, b in zip(naive(graph, inputs), naive(after, inputs), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-10)
    return transforms(after, inputs, [k for k in fixed if k not in changed])


@pytest.mark.parametrize("name", sorted(CONVOLUTIONS))
def test_the_gradient_of_a_quadratic_loss(name: str) -> None:
    loss = quadratic(CONVOLUTIONS[name])
    graph, inputs = derived(loss, "grad", (0,), [U, V, M])
    assert check(graph, inputs, (0,)) == 4  # least: 4, there and back for u, and for what is left over
    assert check(graph, inputs, (0,), (1,)) == 5  # least: 5, and the spectrum of v
    graph, inputs = derived(loss, "grad", (0, 1), [U, V, M])
    assert check(graph, inputs, (0, 1)) == 6  # least: 6, three each way


@pytest.mark.parametrize("name", sorted(set(CONVOLUTIONS) - {"abs"}))
def test_the_gradient_of_a_linear_loss(name: str) -> None:
    loss = linear(CONVOLUTIONS[name])
    graph, inputs = derived(loss, "grad", (0,), [U, V, M], without_value=True)
    assert check(graph, inputs, (0,)) == 0  # least: 0, it depends on v alone
    assert (
        check(graph, inputs, (0,), (1,)) == 2
    )  # least: 2, the spectrum of v and back; that of the cotangent is constant
    graph, inputs = derived(loss, "grad", (0,), [U, V, M])
    assert check(graph, inputs, (0,)) == 2  # least: 2, the value
    assert check(graph, inputs, (0,), (1,)) == 4  # least: 4
    graph, inputs = derived(loss, "grad", (0, 1), [U, V, M], without_value=True)
    assert check(graph, inputs, (0, 1)) == 4  # least: 4


@pytest.mark.parametrize("name", sorted(set(CONVOLUTIONS) - {"abs"}))
def test_the_product_with_the_hessian(name: str) -> None:
    graph, inputs = derived(quadratic(CONVOLUTIONS[name]), "hvp", (0,), [U, V, M])
    assert check(graph, inputs, (0,)) == 4  # least: 4, the direction there and back, and again
    assert check(graph, inputs, (0,), (1,)) == 5  # least: 5
    graph, inputs = derived(quadratic(CONVOLUTIONS[name]), "hvp", (0, 1), [U, V, M])
    # Least: 10, if sums of products were formed before they are transformed back: 6 of four operands, two cotangents
    # there, 1 of the residual, 1 of its tangent and 2 of the results back.
    assert check(graph, inputs, (0, 1)) == 13
    graph, inputs = derived(linear(CONVOLUTIONS[name]), "hvp", (0,), [U, V, M])
    assert check(graph, inputs, (0,)) == 0


SPECTRA: dict[str, Callable[[Any, Any], Any]] = {
    "whole": lambda u, h: np.real(np.fft.ifftn(np.fft.fftn(u) * h)),
    "conj": lambda u, h: np.real(np.fft.ifftn(np.conj(h) * np.fft.fftn(u))),
    "modulus": lambda u, h: np.real(np.fft.ifftn(np.fft.fftn(u) * np.abs(h))),
    "half": lambda u, h: np.fft.irfftn(np.fft.rfftn(u) * h[:, :3], s=(6, 5), axes=(0, 1)),
}


@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_a_spectrum_that_is_given(name: str) -> None:
    conv = SPECTRA[name]
    graph, inputs = derived(quadratic(conv), "grad", (0,), [U, SPECTRUM, M])
    assert check(graph, inputs, (0,)) == 4  # least: 4
    after = rewrite_joint(graph, [1, 2, 4])
    assert ops(after).count("filter_by_spectrum") == 2
    assert not {"c2c", "r2c_full", "c2r_full", "r2c"} & set(ops(after)[4:])

    def by_constant(leaves: list[Any]) -> Any:
        return np.sum((conv(leaves[0], SPECTRUM) - leaves[2]) ** 2)

    graph, inputs = derived(by_constant, "grad", (0,), [U, V, M])
    assert check(graph, inputs, (0,)) == 4


def test_a_spectrum_that_is_asked_for_is_not_transformed_back() -> None:
    graph, inputs = derived(quadratic(SPECTRA["whole"]), "grad", (0, 1), [U, SPECTRUM, M])
    assert check(graph, inputs, (0, 1)) == 4  # least: 4


@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_other_dtypes(dtype: str) -> None:
    def loss(leaves: list[Any]) -> Any:
        y = np.fft.ifftn(np.fft.fftn(leaves[0]) * np.fft.fftn(leaves[1]))
        return np.sum(np.abs((y if dtype == "c16" else np.real(y)) - leaves[2]) ** 2)

    values = [x.astype(dtype) * (1 if dtype == "f4" else 1 + 0.5j) for x in (U, V, M)]
    graph, inputs = derived(loss, "grad", (0,), values)
    after = rewrite_joint(graph, [1, 2, 4])
    for a, b in zip(naive(graph, inputs), naive(after, inputs), strict=True):
        assert np.result_type(a) == np.result_type(b)
        np.testing.assert_allclose(b, a, rtol=1e-4 if dtype == "f4" else 1e-10)
    assert transforms(after, inputs, [1, 2]) == 4


def test_batches_are_summed_before_they_are_transformed_back() -> None:
    def loss(leaves: list[Any]) -> Any:
        return np.sum((nbad.convolve(leaves[0], leaves[1], "wrap", axes=(1, 2)) - leaves[2]) ** 2)

    values = [RNG.standard_normal(shape) for shape in ((1, 6, 5), (3, 6, 5), (3, 6, 5))]
    graph, inputs = derived(loss, "grad", (0,), values)
    assert check(graph, inputs, (0,)) == 4
    after = rewrite_joint(graph, [1, 2, 4])
    last = [node for node in after.nodes if node.op.name == "spectra_product"][-1]
    assert last.attributes["reduced"] == (0,)
    assert after.avals[last.outputs[0]][1] == (6, 5)


def test_zeros_end_the_sweep() -> None:
    def loss(leaves: list[Any]) -> Any:
        return np.sum(leaves[0] ** 2) + 0.0 * np.sum(CONVOLUTIONS["fftn"](leaves[0], np.exp(leaves[1])))

    primal, *_ = record_primal(loss, [U, V], rewrite_primal)
    start = len(primal.graph.nodes)
    found, _ = derive(primal, "grad", (0, 1), [U, V], [], has_aux=False)
    graph = found.graph.copy()
    graph.outputs = graph.outputs[1:]
    with_zeros = rewrite_joint(graph, [1, 1], None, start)
    for a, b in zip(naive(graph, [U, V]), naive(with_zeros, [U, V]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert transforms(with_zeros, [U, V]) == 0
    assert ops(with_zeros) == ["multiply"]
    assert transforms(rewrite_joint(graph, [1, 1]), [U, V]) > 0  # nobody said what the sweep is


# By name --------------------------------------------------------------------------------------------
#: What is left where one rewrite is off, in the gradient of the quadratic loss as fftn writes it.
LEFT = {
    "real-fft": {"c2c", "astype"},
    "convolution": {"r2c_full", "c2r_full"},
    "spectra": {"filter"},
}


@pytest.mark.parametrize("off", sorted(REWRITES))
def test_each_rewrite_can_be_switched_off(off: str) -> None:
    on = set(REWRITES) - {off}
    values = [U, V, M]
    loss = quadratic(CONVOLUTIONS["fftn"])
    primal, *_ = record_primal(loss, values, lambda graph: rewrite_primal(graph, on))
    found, _ = derive(primal, "grad", (0,), values, [], has_aux=False)
    after = rewrite_joint(found.graph, [1, 2, 4], on)
    for a, b in zip(naive(found.graph, values), naive(after, values), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-10)
    assert set(ops(after)) >= LEFT.get(off, set())
    nothing = rewrite_joint(found.graph, [1, 2, 4], ())
    assert [node.op for node in nothing.nodes] == [node.op for node in pruned(found.graph).nodes]


def test_an_unknown_name_is_refused() -> None:
    message = "there is no rewrite 'fusion'; the rewrites are 'real-fft'"
    with pytest.raises(ValueError, match=message):
        rewrite_primal(Graph(), {"zeros", "fusion"})
    with pytest.raises(ValueError, match=message):
        rewrite_joint(Graph(), [], {"zeros", "fusion"})


def test_every_rewrite_says_what_it_does() -> None:
    for name, text in REWRITES.items():
        assert text.endswith("."), name
        assert name == name.lower()


def test_constant_arrays_of_a_function_stay_in_its_graph() -> None:
    # Whoever replays looks whether somebody changed them; a number made of one would hide that.
    ones, few = np.ones((6, 5)), np.arange(3.0)

    def function(leaves: list[Any]) -> Any:
        return leaves[0] * ones + np.sum(leaves[1][0, :3] * few) + np.sum(few * 2.0)

    primal, *_ = record_primal(function, [U, V], rewrite_primal)
    held = list(primal.graph.constants.values())
    assert any(value is ones for value in held)
    assert any(value is few for value in held)


def test_nothing_to_rewrite() -> None:
    graph = Graph()
    assert rewrite_primal(graph).nodes == []
    assert rewrite_joint(graph, []).nodes == []
