"""Convolutions found in formulas: the same values to rounding, and when nothing may be found."""

import itertools
from typing import Any

import numpy as np
import pytest
from graphs import Building, naive, ops

from nbad.replay.convolutions import with_filters
from nbad.replay.graph import Graph, masks_of, pruned
from nbad.replay.rewrites import rewrite_primal
from nbad.rules.convolution import FILTER
from nbad.rules.elementwise import (
    ABSOLUTE,
    ADD,
    ASTYPE,
    COMPLEX_ABSOLUTE,
    CONJUGATE,
    DIVIDE,
    IMAG,
    MULTIPLY,
    REAL,
)
from nbad.rules.fourier import C2C, C2R, C2R_FULL, R2C, R2C_FULL, RESIZE, _scale
from nbad.rules.reductions import SUM_ALL

Shape = tuple[int, ...]
RNG = np.random.default_rng(0)


def drawn(shape: Shape, dtype: str) -> np.ndarray:
    """Return random numbers."""
    x = RNG.standard_normal(shape)
    return np.asarray(x + 1j * RNG.standard_normal(shape) if dtype[0] == "c" else x).astype(dtype)


class Formula(Building):
    """A graph of transforms, written as NumPy's functions are called."""

    def fft(self, slot: int, count: int, norm: str | None = None, s: Shape | None = None) -> int:
        """Transform the last `count` axes."""
        return self.whole(slot, count, norm, s, True)

    def ifft(self, slot: int, count: int, norm: str | None = None) -> int:
        """Transform the last `count` axes back."""
        return self.whole(slot, count, norm, None, False)

    def whole(self, slot: int, count: int, norm: str | None, s: Shape | None, forward: bool) -> int:
        if s is not None:
            slot = self(RESIZE, slot, shape=(*self.graph.avals[slot][1][:-count], *s))
        dtype, shape = self.graph.avals[slot]
        axes = tuple(range(len(shape) - count, len(shape)))
        factor = _scale(shape[-count:], norm, forward)
        return int(
            self(C2C if dtype.kind == "c" else R2C_FULL, slot, axes=axes, forward=forward, factor=factor)
        )

    def rfft(self, slot: int, order: Shape, norm: str | None = None) -> int:
        """Transform the axes `order`, counted from the end, to half a spectrum."""
        shape = self.graph.avals[slot][1]
        axes = tuple(axis + len(shape) for axis in order)
        factor = _scale([shape[axis] for axis in axes], norm, True)
        return int(self(R2C, slot, axes=axes, factor=factor, mirrored=False))

    def irfft(self, slot: int, order: Shape, n: int, norm: str | None = None) -> int:
        """Transform half a spectrum back to length `n` along the last of the axes."""
        shape = self.graph.avals[slot][1]
        axes = tuple(axis + len(shape) for axis in order)
        factor = _scale([*(shape[axis] for axis in axes[:-1]), n], norm, False)
        return int(self(C2R, slot, axes=axes, n=n, factor=factor, mirrored=True))


def assert_same(before: Graph, after: Graph, inputs: list[Any], rounding: float = 1e-13) -> None:
    """Assert that two graphs compute the same to rounding, in the dtype of the first."""
    for a, b in zip(naive(before, inputs), naive(after, inputs), strict=True):
        assert np.result_type(a) == np.result_type(b)
        room = rounding if np.finfo(np.result_type(a)).eps < 1e-10 else 3e-6
        np.testing.assert_allclose(b, a, rtol=room, atol=room * max(1.0, float(np.abs(a).max(initial=0))))


SHAPES: list[tuple[Shape, Shape, int]] = [
    ((8,), (8,), 1),
    ((7,), (7,), 1),
    ((1,), (1,), 1),
    ((4, 6), (4, 6), 2),
    ((3, 5), (3, 5), 2),
    ((3, 4, 5), (3, 4, 5), 3),
    ((2, 3, 5), (3, 5), 2),  # a batch
    ((3, 5), (2, 3, 5), 2),
    ((2, 1, 6), (1, 3, 6), 1),
]


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16", "c8"])
@pytest.mark.parametrize(("u", "v", "count"), SHAPES)
@pytest.mark.parametrize("conj", ["", "u", "v"])
@pytest.mark.parametrize("real", [True, False])
def test_whole_spectra(dtype: str, u: Shape, v: Shape, count: int, conj: str, real: bool) -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn(shape, dtype)), count) for shape in (u, v))
    if conj == "u":
        u_hat = b(CONJUGATE, u_hat)
    elif conj == "v":
        v_hat = b(CONJUGATE, v_hat)
    y = b.ifft(b(MULTIPLY, u_hat, v_hat), count)
    graph = b.done(b(REAL, y) if real else y)
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    if real or dtype[0] == "c":
        assert ops(after).count("filter") == 1
        assert not {"c2c", "r2c_full", "c2r_full"} & set(ops(after))
    else:
        assert "filter" not in ops(after)  # the imaginary part, zero but for rounding, may be read


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize(("u", "v", "count"), [shapes for shapes in SHAPES if shapes[0][-1] > 1])
@pytest.mark.parametrize("conj", ["", "u", "v", "uv"])
def test_half_spectra(dtype: str, u: Shape, v: Shape, count: int, conj: str) -> None:
    for order in itertools.permutations(range(-count, 0)):
        if tuple(sorted(order[:-1])) != order[:-1]:
            continue  # the row has them in order
        b = Formula()
        u_hat, v_hat = (b.rfft(b.input(drawn(shape, dtype)), order) for shape in (u, v))
        if "u" in conj:
            u_hat = b(CONJUGATE, u_hat)
        if "v" in conj:
            v_hat = b(CONJUGATE, v_hat)
        graph = b.done(b.irfft(b(MULTIPLY, v_hat, u_hat), order, u[order[-1]]))
        after = rewrite_primal(graph)
        assert_same(graph, after, b.inputs())
        # Of both conjugates, the convolution of both mirrored, no filter is made.
        assert ("filter" in ops(after)) == (conj != "uv")


def test_another_length_back_is_no_filter() -> None:
    b = Formula()
    u_hat, v_hat = (b.rfft(b.input(drawn((7,), "f8")), (-1,)) for _ in range(2))
    graph = b.done(b.irfft(b(MULTIPLY, u_hat, v_hat), (-1,), 6))
    assert "filter" not in ops(rewrite_primal(graph))


@pytest.mark.parametrize("norms", list(itertools.product([None, "ortho", "forward"], repeat=2)))
def test_norms(norms: tuple[Any, Any]) -> None:
    there, back = norms
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((7, 7), "f8")), 2, there) for _ in range(2))
    graph = b.done(b(REAL, b.ifft(b(MULTIPLY, u_hat, v_hat), 2, back)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    unscaled = norms in ((None, None), ("ortho", "forward"))
    assert ops(after) == (["filter"] if unscaled else ["filter", "multiply"])


@pytest.mark.parametrize("where", ["factor", "other factor", "product", "conjugate", "everywhere"])
@pytest.mark.parametrize("number", [0.5, 3, np.float64(-2.0)])
def test_numbers_that_scale_spectra(where: str, number: Any) -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((7,), "f8")), 1) for _ in range(2))
    c = b.constant(number)
    if where in ("factor", "everywhere"):
        u_hat = b(MULTIPLY, c, u_hat)
    if where in ("other factor", "everywhere"):
        v_hat = b(DIVIDE, v_hat, c)
    if where == "conjugate":
        v_hat = b(CONJUGATE, b(MULTIPLY, b(CONJUGATE, b(MULTIPLY, v_hat, c)), c))
    product = b(MULTIPLY, u_hat, v_hat)
    if where in ("product", "everywhere"):
        product = b(DIVIDE, b(MULTIPLY, product, c), b.constant(7.0))
    graph = b.done(b(REAL, b.ifft(product, 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["filter", "multiply"]


def test_numbers_that_hide_a_product_or_do_not_scale() -> None:
    for number, lone in ((0.5, False), (0.0, True), (np.inf, True), (1j, True), (np.array(0.5), True)):
        b = Formula()
        u_hat, v_hat = (b.fft(b.input(drawn((7,), "f8")), 1) for _ in range(2))
        half = b(MULTIPLY, u_hat, b.constant(number))
        y = b(REAL, b.ifft(b(MULTIPLY, half, v_hat), 1))
        graph = b.done(y) if lone else b.done(y, half)
        after = rewrite_primal(graph)
        if number is not np.inf:
            assert_same(graph, after, b.inputs())
        assert "filter" not in ops(after)


def test_the_transform_back_first() -> None:
    # real(fft(ifft(u) * ifft(v))): the same with the other sign everywhere.
    b = Formula()
    u_hat, v_hat = (b.ifft(b.input(drawn((6,), "f8")), 1) for _ in range(2))
    graph = b.done(b(REAL, b.fft(b(MULTIPLY, u_hat, v_hat), 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["filter", "multiply"]


def test_twice_the_same_way_is_no_filter() -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((6,), "f8")), 1) for _ in range(2))
    graph = b.done(b(REAL, b.fft(b(MULTIPLY, u_hat, v_hat), 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert "filter" not in ops(after)


@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("s", [(9, 8), (9, 5), (4, 8), (3, 2)])
def test_padding_is_left_to_the_filter(dtype: str, s: Shape) -> None:
    b = Formula()
    u, v = b.input(drawn((2, 4, 5), dtype)), b.input(drawn((3, 2), dtype))
    y = b.ifft(b(MULTIPLY, b.fft(u, 2, s=s), b.fft(v, 2, s=s)), 2)
    graph = b.done(b(REAL, y))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert "filter" in ops(after)
    # Only what is cut stays a node: u where an axis is shorter than it.
    cut = sum(any(a < n for a, n in zip(s, shape, strict=True)) for shape in ((4, 5), (3, 2)))
    assert ops(after).count("resize") == cut


def test_of_itself() -> None:
    b = Formula()
    u_hat = b.fft(b.input(drawn((6,), "f8")), 1)
    graph = b.done(b(REAL, b.ifft(b(MULTIPLY, u_hat, b(CONJUGATE, u_hat)), 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["filter"]


def test_the_modulus_of_a_real_convolution() -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((6, 5), "f8")), 2) for _ in range(2))
    graph = b.done(b(COMPLEX_ABSOLUTE, b.ifft(b(MULTIPLY, u_hat, v_hat), 2)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["filter", "absolute"]


@pytest.mark.parametrize("where", ["output", "guard", "reader", "product", "back"])
def test_what_is_read_elsewhere_stays(where: str) -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((6,), "f8")), 1) for _ in range(2))
    product = b(MULTIPLY, u_hat, v_hat)
    back = b.ifft(product, 1)
    outputs = [b(REAL, back)]
    if where == "output":
        outputs.append(u_hat)
    elif where == "guard":
        b.guard(v_hat)
    else:
        outputs.append(b(IMAG, {"reader": u_hat, "product": product, "back": back}[where]))
    graph = b.done(*outputs)
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert "filter" not in ops(after)


def test_products_that_share_a_transform_are_filters_together_or_not_at_all() -> None:
    for spoiled in (False, True):
        b = Formula()
        u_hat, v_hat, w_hat = (b.fft(b.input(drawn((6,), "f8")), 1) for _ in range(3))
        one, two = b(MULTIPLY, u_hat, v_hat), b(MULTIPLY, v_hat, b(CONJUGATE, w_hat))
        outputs = [b(REAL, b.ifft(one, 1)), b(REAL, b.ifft(two, 1))]
        graph = b.done(*outputs, *([w_hat] if spoiled else []))
        after = rewrite_primal(graph)
        assert_same(graph, after, b.inputs())
        assert ops(after).count("filter") == (0 if spoiled else 2)


@pytest.mark.parametrize("dtypes", [("f8", "f4"), ("f4", "f8"), ("c16", "c8")])
def test_two_precisions_are_no_filter(dtypes: tuple[str, str]) -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((6,), dtype)), 1) for dtype in dtypes)
    graph = b.done(b(REAL, b.ifft(b(MULTIPLY, u_hat, v_hat), 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs(), 1e-6)
    assert "filter" not in ops(after)


@pytest.mark.parametrize("conj", ["", "u", "v"])
def test_real_and_complex_operands(conj: str) -> None:
    b = Formula()
    u_hat, v_hat = b.fft(b.input(drawn((6,), "f8")), 1), b.fft(b.input(drawn((6,), "c16")), 1)
    if conj:
        u_hat, v_hat = (
            b(CONJUGATE, x) if name == conj else x for name, x in zip("uv", (u_hat, v_hat), strict=True)
        )
    graph = b.done(b(REAL, b.ifft(b(MULTIPLY, u_hat, v_hat), 1)))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["real", "filter"]


@pytest.mark.parametrize("form", ["astype", "plus 0j"])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_real_arrays_that_were_cast(form: str, dtype: str) -> None:
    b = Formula()
    x = b.input(drawn((6, 5), dtype))
    x = b(ASTYPE, x, dtype="<c16") if form == "astype" else b(ADD, x, b.constant(0j))
    graph = b.done(b.fft(x, 2))
    after = rewrite_primal(graph)
    assert_same(graph, after, b.inputs())
    assert ops(after)[-1] == "r2c_full"


def test_empty_arrays_are_left_alone() -> None:
    b = Formula()
    u_hat, v_hat = (
        b(R2C_FULL, b.input(np.zeros((0, 4))), axes=(1,), forward=True, factor=1.0) for _ in range(2)
    )
    graph = b.done(b(C2R_FULL, b(MULTIPLY, u_hat, v_hat), axes=(1,), forward=False, factor=0.25))
    assert "filter" not in ops(rewrite_primal(graph))


# Spectra that are at hand ---------------------------------------------------------------------------
KERNEL_HAT = drawn((3, 4, 5), "c16")


@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize("kind", ["complex", "real", "one of a batch"])
@pytest.mark.parametrize("conj", ["", "u", "v"])
def test_a_spectrum_at_hand(dtype: str, kind: str, conj: str) -> None:
    given = {"complex": KERNEL_HAT, "real": KERNEL_HAT.real, "one of a batch": KERNEL_HAT[0]}[kind]
    b = Formula()
    h = v = b.input(given)
    u = b.fft(b.input(drawn((2, 3, 4, 5)[-3:], dtype)), 2)
    if conj == "u":
        u = b(CONJUGATE, u)
    if conj == "v" and kind != "real":
        v = b(CONJUGATE, h)
    product = b(MULTIPLY, u, v)
    axes = (1, 2)
    y = b(C2R_FULL if dtype == "f8" else C2C, product, axes=axes, forward=False, factor=1 / 20)
    graph = b.done(y)
    masks = masks_of(graph, [2, 1])
    after = pruned(with_filters(graph, masks))
    assert_same(graph, after, b.inputs())
    assert ops(after).count("filter") == 1
    at = next(i for i, node in enumerate(after.nodes) if node.op is FILTER)
    assert set(ops(after)[at + 1 :]) <= {"multiply"}
    # What is in front of the filter depends on the kernel alone.
    found = masks_of(after, [2, 1])
    assert all(found[node.outputs[0]] == 2 for node in after.nodes[:at])
    for others in ([1, 1], [1, 2], [2, 2]):
        if others != [1, 2] or dtype == "f8":
            assert "filter" not in ops(with_filters(graph, masks_of(graph, others)))
    assert "filter" not in ops(with_filters(graph))


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("conj", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_half_a_spectrum_at_hand(n: int, conj: bool, weighted: bool) -> None:
    b = Formula()
    given = drawn((4, n // 2 + 1), "c16")
    h, x = b.input(given), b.input(drawn((4, n), "f8"))
    half = b(R2C, x, axes=(0, 1), factor=1.0, mirrored=weighted)
    product = b(MULTIPLY, half, b(CONJUGATE, h) if conj else h)
    graph = b.done(b(C2R, product, axes=(0, 1), n=n, factor=1 / (4 * n), mirrored=not weighted))
    after = pruned(with_filters(graph, masks_of(graph, [2, 1])))
    assert_same(graph, after, b.inputs())
    assert ops(after) == ["c2r", "filter"]


def test_a_factor_that_is_no_spectrum_stays() -> None:
    b = Formula()
    u = b.fft(b.input(drawn((4, 5), "f8")), 2)
    for shape in ((), (5,), (4, 1)):
        factor = b.constant(drawn(shape, "c16"))
        graph = b.done(b(C2R_FULL, b(MULTIPLY, u, factor), axes=(0, 1), forward=False, factor=0.05))
        assert "filter" not in ops(with_filters(graph, masks_of(graph, [1])))


def test_the_sum_of_a_filter_is_differentiated_as_before() -> None:
    b = Formula()
    u_hat, v_hat = (b.fft(b.input(drawn((6,), "f8")), 1) for _ in range(2))
    y = b(REAL, b.ifft(b(MULTIPLY, u_hat, v_hat), 1))
    graph = b.done(b(SUM_ALL, b(ABSOLUTE, y)), y)
    assert_same(graph, rewrite_primal(graph), b.inputs())
