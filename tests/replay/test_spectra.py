"""Spectra that filters share: the same values to rounding, no transform twice, and none redone that need not be."""

import itertools
from typing import Any

import numpy as np
import pytest
from graphs import Building, naive, ops, transforms

from nbad.kernels import convolution as passes
from nbad.replay.graph import Graph, pruned
from nbad.replay.rewrites import rewrite_joint
from nbad.replay.simplify import simplified
from nbad.replay.spectra import bins_of, with_fused_filters, with_spectra
from nbad.rules.convolution import FILTER, FILTER_BY_SPECTRUM, SPECTRA_PRODUCT, SPECTRUM
from nbad.rules.elementwise import MULTIPLY
from nbad.rules.reductions import SUM

Shape = tuple[int, ...]
RNG = np.random.default_rng(0)
CHANGES, FIXED = 1, 2


def drawn(shape: Shape, dtype: str = "f8") -> np.ndarray:
    """Return random numbers."""
    x = RNG.standard_normal(shape)
    return np.asarray(x + 1j * RNG.standard_normal(shape) if dtype[0] == "c" else x).astype(dtype)


class Filters(Building):
    """A graph of cyclic filters over the last axes."""

    count = 1

    def filter(self, u: int, v: int, conj: bool = False, start: int = 0) -> int:
        """Add a filter; `start` is where `u` begins."""
        dtype, shape = self.graph.avals[u]
        axes = tuple(range(len(shape) - self.count, len(shape)))
        zeros, lengths = (0,) * self.count, tuple(shape[axis] + 2 for axis in axes)
        return int(
            self(
                FILTER, u, v, lengths=lengths, axes=axes, real=dtype.kind == "f", u_start=(start,) * self.count,
                v_start=zeros, out_start=zeros, out_shape=tuple(shape[axis] for axis in axes), conj=conj,
            )
        )  # fmt: skip


def assert_same(before: Graph, after: Graph, inputs: list[Any]) -> None:
    """Assert that two graphs compute the same to rounding."""
    for a, b in zip(naive(before, inputs), naive(after, inputs), strict=True):
        assert np.result_type(a) == np.result_type(b)
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-5 if np.result_type(a).itemsize == 4 else 1e-12)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    "lengths",
    [
        (1,),
        (6,),
        (7,),
        (4, 6),
        (3, 5),
        (1, 5),
        (5, 1),
        (1, 1),
        (2, 3, 4),
        (2, 1, 5),
        (65610,),
        (65537,),
        (262147,),
    ],
)
def test_the_number_of_bins(lengths: Shape, real: bool) -> None:
    x = drawn(lengths, "f8" if real else "c16")
    made = passes.spectrum(x, lengths, tuple(range(len(lengths))), real)
    assert made.shape == (bins_of(lengths, real, made.dtype),)


@pytest.mark.parametrize("dtype", ["f8", "c16", "f4"])
@pytest.mark.parametrize("shape", [(6,), (4, 5)])
@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("masks", list(itertools.product([CHANGES, FIXED, 4], repeat=2)))
def test_one_filter(dtype: str, shape: Shape, conj: bool, masks: tuple[int, int]) -> None:
    b = Filters()
    b.count = len(shape)
    u, v = b.input(drawn(shape, dtype)), b.input(drawn(shape, dtype))
    graph = b.done(b.filter(u, v, conj))
    after = rewrite_joint(graph, masks)
    assert_same(graph, after, b.inputs())
    assert transforms(after, b.inputs()) == 3
    # An operand that did not change costs no transform.
    for k in (0, 1):
        if masks[k] != CHANGES and masks[k] != masks[1 - k]:
            assert transforms(after, b.inputs(), [k]) == 2


def test_equal_spectra_are_made_once_and_different_ones_are_not_taken_for_equal() -> None:
    b = Filters()
    u, v, w = (b.input(drawn((6,))) for _ in range(3))
    outputs = [b.filter(u, v), b.filter(u, w), b.filter(w, v, conj=True), b.filter(u, w, start=1)]
    graph = b.done(*outputs)
    after = rewrite_joint(graph, [CHANGES] * 3)
    assert_same(graph, after, b.inputs())
    assert transforms(after, b.inputs()) == 4 + 4  # u, v, w, and u from another place; a way back each


@pytest.mark.parametrize("conj", [False, True])
def test_a_filter_of_one_array(conj: bool) -> None:
    b = Filters()
    u = b.input(drawn((6,)))
    graph = b.done(b.filter(u, u, conj))
    after = rewrite_joint(graph, [CHANGES])
    assert_same(graph, after, b.inputs())
    assert transforms(after, b.inputs()) == 2


@pytest.mark.parametrize("how", ["x h", "x conj(h)", "conj(x) h"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_filter_by_a_spectrum(how: str, shared: bool) -> None:
    b = Filters()
    x, h = b.input(drawn((2, 6))), b.input(drawn((6,)))
    h_hat = b(SPECTRUM, h, lengths=(8,), axes=(0,), real=True, start=(0,))
    y = b(
        FILTER_BY_SPECTRUM, x, h_hat, lengths=(8,), axes=(1,), real=True, start=(1,), out_start=(0,), out_shape=(6,), how=how
    )  # fmt: skip
    outputs = [y, b.filter(x, b.constant(drawn((1, 6))), start=1)] if shared else [y]
    graph = b.done(*outputs)
    after = rewrite_joint(graph, [CHANGES, FIXED])
    assert_same(graph, after, b.inputs())
    assert transforms(after, b.inputs(), [1]) == (3 if shared else 2)


def test_a_spectrum_of_another_precision_is_left_alone() -> None:
    b = Filters()
    x, h_hat = b.input(drawn((8,))), b.input(drawn((5,), "c8"))
    y = b(
        FILTER_BY_SPECTRUM, x, h_hat, lengths=(8,), axes=(0,), real=True, start=(0,), out_start=(0,), out_shape=(8,), how="x h"
    )  # fmt: skip
    assert ops(rewrite_joint(b.done(y), [CHANGES, CHANGES])) == ["filter_by_spectrum"]


@pytest.mark.parametrize("axis", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("conj", [False, True])
def test_a_sum_over_a_batch_is_done_in_the_spectra(axis: Shape, conj: bool) -> None:
    b = Filters()
    u, v = b.input(drawn((2, 3, 6))), b.input(drawn((2, 1, 6)))
    graph = b.done(b(SUM, b.filter(u, v, conj), axis=axis, dtype=None, keepdims=False))
    after = rewrite_joint(graph, [CHANGES, CHANGES])
    assert_same(graph, after, b.inputs())
    assert ("sum" in ops(after)) == (not conj)


def test_sums_that_cannot_be_done_in_the_spectra() -> None:
    for axis, keepdims in (((1,), False), ((0, 1), False), ((0,), True)):
        b = Filters()
        u, v = b.input(drawn((2, 6))), b.input(drawn((2, 6)))
        graph = b.done(b(SUM, b.filter(u, v, True), axis=axis, dtype=None, keepdims=keepdims))
        after = rewrite_joint(graph, [CHANGES, CHANGES])
        assert_same(graph, after, b.inputs())
        assert "sum" in ops(after)
    b = Filters()
    y = b.filter(b.input(drawn((2, 6))), b.input(drawn((2, 6))), True)
    graph = b.done(b(SUM, y, axis=(0,), dtype=None, keepdims=False), y)
    assert "sum" in ops(rewrite_joint(graph, [CHANGES, CHANGES]))


# Which spectrum a filter makes itself -----------------------------------------------------------------
def test_the_one_that_changes_is_made_inside_the_filter() -> None:
    for masks in ((CHANGES, FIXED), (FIXED, CHANGES)):
        b = Filters()
        u, v = b.input(drawn((6,))), b.input(drawn((6,)))
        after = rewrite_joint(b.done(b.filter(u, v)), masks)
        assert ops(after) == ["spectrum", "filter_by_spectrum"]
        assert after.nodes[0].operands == (v if masks[1] == FIXED else u,)


def test_a_spectrum_that_may_stay_is_not_made_inside() -> None:
    b = Filters()
    u, v = b.input(drawn((6,))), b.input(drawn((6,)))
    after = rewrite_joint(b.done(b.filter(u, v)), [FIXED, 4])
    assert ops(after) == ["spectrum", "spectrum", "spectra_product"]


def test_one_that_others_read_is_kept_by_the_first_that_reads_it() -> None:
    b = Filters()
    u, v, w = (b.input(drawn((6,))) for _ in range(3))
    graph = b.done(b.filter(u, v), b.filter(u, w))
    after = rewrite_joint(graph, [CHANGES, FIXED, FIXED])
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["spectrum", "filter_keeping", "spectrum", "spectra_product"]


def test_one_that_is_read_before_any_product_is_not_made_inside() -> None:
    b = Building()
    x, h = b.input(drawn((6,))), b.input(drawn((6,)))
    x_hat, h_hat = (b(SPECTRUM, slot, lengths=(6,), axes=(0,), real=True, start=(0,)) for slot in (x, h))
    twice = b(MULTIPLY, x_hat, b.constant(2.0))
    y = b(
        SPECTRA_PRODUCT, x_hat, h_hat,
        conj=False, lengths=(6,), axes=(0,), real=True, reduced=(), out_start=(0,), out_shape=(6,),
    )  # fmt: skip
    graph = b.done(y, twice)
    after = with_fused_filters(graph, [CHANGES, FIXED])
    assert_same(graph, after, b.inputs())
    assert ops(after) == ops(graph)
    b.graph.outputs = [y, x_hat]
    graph = pruned(b.graph)
    assert ops(with_fused_filters(graph, [CHANGES, FIXED])) == ops(graph)


def test_steps_between_leave_nothing_undone() -> None:
    b = Filters()
    u, v = b.input(drawn((6,))), b.input(drawn((6,)))
    graph = b.done(b.filter(b.filter(u, v), v, conj=True))
    apart = pruned(simplified(with_spectra(graph), frozenset({"subexpressions"})))
    assert_same(graph, apart, b.inputs())
    assert ops(apart) == ["spectrum", "spectrum", "spectra_product", "spectrum", "spectra_product"]
