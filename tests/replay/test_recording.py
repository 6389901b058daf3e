"""Recording: what is recorded equals the function, on other inputs too; what Python code sees is guarded."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbad
from nbad.errors import DetachError, EscapedTraceError, MutationError, NoRuleError
from nbad.replay.graph import ARRAY, CONTENTS, PYTHON, SCALAR, TRUTH, Graph, pruned
from nbad.replay.recording import OtherShape, graph_of, interpret, record
from nbad.table import CONSTANT, TABLE
from nbad.trace import Traced
from nbad.tree import leaves
from nbad.ufuncs import METHODS

RNG = np.random.default_rng(7)
X = RNG.standard_normal((3, 4))
Y = RNG.standard_normal((3, 4))
X2, Y2 = X[::-1] * 1.5, Y[:, ::-1] + 0.1
V, V2 = X[0] + 0.0, Y[1] + 0.0
N = np.array([[3, -1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]])
N2 = N.T.reshape(3, 4) - 2
B, B2 = X > 0, Y > 0.2


def graph_for(function: Callable[..., Any], *inputs: Any) -> tuple[Graph, Any]:
    """Record a function; return its graph, with all traced leaves as outputs, and its result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result, tape = record(lambda traced: function(*traced), inputs)
    slots = [leaf._slot for leaf in leaves(result) if type(leaf) is Traced]
    return graph_of(tape, slots), result


def uncounted(graph: Graph) -> list[Any]:
    """Return the guards of a graph but those on how many elements a mask selects."""
    makers = {slot: node.op.name for node in graph.nodes for slot in node.outputs}
    return [guard for guard in graph.guards if makers.get(guard.slot) != "count_nonzero"]


def again(function: Callable[..., Any], first: tuple[Any, ...], second: tuple[Any, ...]) -> Graph:
    """Check that a recording made with `first` and run on `second` (and on `first`) equals the function.

    Where shapes depend on values and are not those of the recording, it must say so instead.
    """
    graph, result = graph_for(function, *first)
    for inputs in (first, second):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = leaves(function(*inputs))
            try:
                found = iter(interpret(graph, inputs))
            except OtherShape as error:
                assert inputs is second
                assert error.line[0] == __file__
                assert [np.shape(v) for v in expected] != [np.shape(v) for v in leaves(function(*first))]
                continue
        for leaf, value in zip(leaves(result), expected, strict=True):
            if type(leaf) is Traced:
                same(next(found), value)
    return graph


def same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Check type, dtype, shape and value."""
    assert type(found) is type(expected)
    assert np.result_type(found) == np.result_type(expected)
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# Every function without derivative ----------------------------------------------------------------
def two(function: Callable[..., Any], first: Any = (X, Y), second: Any = (X2, Y2)) -> Any:
    return function, first, second


def one(function: Callable[..., Any], first: Any = X, second: Any = X2) -> Any:
    return function, (first,), (second,)


WHOLE = ((N, N2), (N2, N))
TRUTHS = ((B, B2), (B2, B))
#: Function without derivative -> how it is called, with which inputs it is recorded, with which it is run again.
CASES: dict[Any, tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]] = {
    **{
        f: two(f)
        for f in (
            np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.logical_and, np.logical_or,
            np.logical_xor, np.floor_divide, np.heaviside, np.isclose, np.allclose, np.array_equal, np.array_equiv,
        )
    },
    **{
        f: one(f)
        for f in (
            np.logical_not, np.isnan, np.isfinite, np.isinf, np.signbit, np.floor, np.ceil, np.trunc, np.rint, np.spacing,
            np.round, np.around, np.fix, np.isneginf, np.isposinf, np.iscomplex, np.isreal, np.argmax, np.argmin,
            np.nanargmax, np.nanargmin, np.any, np.all, np.count_nonzero, np.flatnonzero, np.argwhere, np.argsort,
        )
    },
    **{f: two(f, *WHOLE) for f in (np.gcd, np.lcm)},
    **{f: two(f, *TRUTHS) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)},
    **{f: two(f, (N, np.abs(N2)), (N2, np.abs(N))) for f in (np.left_shift, np.right_shift)},
    np.invert: one(np.invert, N, N2),
    np.bitwise_count: one(np.bitwise_count, N, N2),
    np.searchsorted: two(lambda a, v: np.searchsorted(np.sort(a), v, side="right"), (V, Y), (V2, X)),
    np.digitize: two(lambda x, bins: np.digitize(x, np.sort(bins)), (X, V), (Y, V2)),
    np.argpartition: one(lambda x: np.argpartition(x, 1, axis=-1)),
    np.lexsort: two(lambda a, b: np.lexsort((a, b))),
    np.ravel_multi_index: two(
        lambda i, j: np.ravel_multi_index((i, j), (20, 20), mode="clip"), (abs(N), abs(N2)), (abs(N2), abs(N))
    ),
    np.isin: two(lambda x, y: np.isin(np.rint(x), np.rint(y))),
    np.packbits: one(lambda x: np.packbits(x > 0, axis=1)),
    np.unpackbits: one(lambda x: np.unpackbits((x > 0).astype(np.uint8), axis=1)),
    np.min_scalar_type: one(lambda x: np.argmax(x, axis=np.ndim(np.min_scalar_type(x))), X, X2),
}  # fmt: skip


def test_every_function_without_derivative_has_a_case() -> None:
    mine = [
        f for f in CONSTANT if not isinstance(f, np.ufunc) or getattr(np, f.__name__, None) is f
    ]  # not SciPy's
    assert [f for f in mine if CONSTANT[f] is not None and f not in CASES] == []


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_functions_without_derivative_are_nodes(function: Any) -> None:
    graph = again(*CASES[function])
    assert uncounted(graph) == []
    assert bool(graph.guards) == (function in (np.flatnonzero, np.argwhere))
    assert len(graph.outputs) > 0


@pytest.mark.parametrize(
    "ufunc", [f for f, method in METHODS if method == "reduce"], ids=lambda f: f.__name__
)
def test_methods_of_ufuncs_without_derivative(ufunc: Any) -> None:
    _, first, second = CASES[ufunc]
    kind = first[0].dtype.kind
    if kind == "f" and ufunc not in (np.logical_and, np.logical_or, np.logical_xor):
        assert again(lambda a, b: ufunc.outer(a, b), first, second).guards == []
        return
    calls: list[Callable[..., Any]] = [
        lambda a, b: ufunc.reduce(a, axis=1),
        lambda a, b: ufunc.accumulate(a, axis=0),
        lambda a, b: ufunc.outer(a, b),
        lambda a, b: ufunc.reduceat(a, [0, 2], axis=1),
    ]
    for call in calls:
        assert again(call, first, second).guards == []


# Programs -----------------------------------------------------------------------------------------
PROGRAMS: dict[str, Any] = {
    "mask": two(lambda x, y: x[x > 0] * 2),
    "mask of rows": two(lambda x, y: y[np.sum(x, axis=1) > 0]),
    "places": two(lambda x, y: x[:, np.argsort(y[0])]),
    "list of places": two(lambda x, y: x[[np.argmax(x[:, 0]), 0]]),
    "one place": two(lambda x, y: x[np.argmax(y[:, 0])]),
    "one element": two(lambda x, y: x[np.argmax(y[:, 0]), np.argmin(x[0])]),
    "one place and a slice": two(lambda x, y: x[np.argmax(y[:, 0]), 1:]),
    "two masks": two(lambda x, y: np.where((x > 0) & ~(y > 0) | (x < -1), x, y)),
    "nonzero": two(lambda x, y: np.nonzero(x > y)),
    "method nonzero": two(lambda x, y: (x[0] > y[0]).nonzero()),
    "where of one": two(lambda x, y: np.where(x > y)),
    "sort": two(lambda x, y: (np.sort(x, axis=0), np.sort(y, axis=None))),
    "sort of integers": two(lambda a, b: np.sort(a), *WHOLE),
    "take": two(lambda x, i: np.take(x, i % 4, axis=1), (X, N), (Y, N2)),
    "take wrapped": two(lambda x, i: np.take(x, i, axis=0, mode="wrap"), (X, N), (Y, N2)),
    "take clipped": two(lambda x, i: np.take(x, i, mode="clip"), (X, N), (Y, N2)),
    "take one": two(lambda x, y: np.take(x, np.argmax(y[0]), axis=1)),
    "take along": two(lambda x, y: np.take_along_axis(x, np.argsort(y, axis=1), axis=1)),
    "compress": two(lambda x, y: np.compress(y[:, 0] > 0, x, axis=0)),
    "extract": two(lambda x, y: np.extract(y > 0, x)),
    "select": two(lambda x, y: np.select([x > 1, y > 0], [x, y], 0.5)),
    "choose by comparison": two(lambda x, y: np.where(x > y, x, 0).sum(axis=0)),
    "delete": two(lambda x, y: np.delete(x, np.argmax(y[:, 0]), axis=0)),
    "insert": two(lambda x, y: np.insert(x, np.argmax(y[:, 0]), y[0], axis=0)),
    "repeat": two(lambda x, i: np.repeat(x, i[0] % 3 + 1, axis=1), (X, N), (Y, N2)),
    "bincount": two(lambda i, x: np.bincount(np.ravel(i), minlength=12), (abs(N), X), (abs(N2), X)),
    "extrema": two(lambda x, y: (np.max(x, axis=1), np.min(y), np.max(x, where=y > 0, initial=-9.0))),
    "extrema of integers": two(
        lambda a, b: (a.max(axis=0), b.min(), np.max(a, where=b > 2, initial=-9), np.ptp(a)), *WHOLE
    ),
    "integers": two(
        lambda a, b: (
            a // b,
            a % b,
            a << 1,
            -a,
            abs(a) ** 2,
            a & b,
            a | 3,
            a ^ b,
            ~a,
            1 << abs(b) % 4,
            a >> 1,
            7 & a,
        ),
        (N, N + 1),
        (N + 3, N2 * 2 + 11),
    ),
    "sums of integers": two(
        lambda a, b: (
            a.sum(),
            a.sum(axis=0),
            np.prod(b % 3, axis=1),
            np.cumsum(a),
            a.mean(),
            b.mean(axis=1),
            a.var(),
            a.std(axis=0),
        ),
        *WHOLE,
    ),
    "means of truths": two(lambda a, b: (a.mean(), a.sum(), (a & b).any(axis=0), np.all(a | b)), *TRUTHS),
    "integers and floats": two(
        lambda x, i: (x * i, x[0] + i, i / 2, i * 0.5, np.sqrt(abs(i)), i**2, x ** i[0] % 1),
        (abs(X), N),
        (abs(Y), N2),
    ),
    "casts": two(
        lambda x, y: (
            x.astype(int),
            (x > 0).astype(float),
            x.astype("f4"),
            (y * 3).astype(np.int8).astype(np.float32),
        )
    ),
    "clip": two(lambda x, y: (np.clip(x, -0.5, 0.5), x.clip(0), np.clip(x, None, y))),
    "clip of integers": two(
        lambda a, b: (np.clip(a, 1, 4), a.clip(0), np.clip(a, None, b), np.clip(a, 0.5, b)), *WHOLE
    ),
    "in place": two(lambda x, y: operator.iadd(operator.imul(x + 0, y), 1.0)),
    "in place of integers": two(lambda a, b: operator.ior(operator.iadd(a + 0, b), 1), *WHOLE),
    "parts": two(
        lambda x, y: (np.sign(x), *np.modf(x), *np.frexp(y), *np.divmod(x, y), np.angle(x), np.trunc(y))
    ),
    "complex parts": two(
        lambda x, y: (
            np.sign(x + 1j * y),
            np.abs(x + 1j * y),
            np.angle(x + 1j * y),
            (x + 1j * y).imag,
            np.conj(x - 2j),
        )
    ),
    "special numbers": two(lambda x, y: np.nan_to_num(x / np.where(y > 0, y, 0)) * 0 + np.isnan(x)),
    "without nan": two(
        lambda x, y: (
            np.nansum(np.where(x > 0, x, np.nan), axis=0),
            np.nanmean(x),
            np.nanmax(y) if False else np.nanstd(y),
        )
    ),
    "norms": two(
        lambda x, y: (
            np.linalg.norm(x),
            np.linalg.norm(x, 1, axis=0),
            np.linalg.norm(y[0], 3),
            np.linalg.vector_norm(x, ord=0),
        )
    ),
    "average": two(lambda x, y: np.average(x, axis=1)),
    "variances": two(
        lambda x, y: (
            np.var(x, axis=0),
            np.std(y),
            np.var(x, axis=1, where=y > -9),
            np.var(x, mean=np.mean(x, keepdims=True)),
        )
    ),
    "fourier": two(lambda x, y: np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(y), 4)),
    "products": two(
        lambda x, y: (x @ y.T, np.einsum("ij,ij->i", x, y), np.outer(x[0], y[0]), np.dot(x, y[0]))
    ),
    "products of integers": two(lambda a, b: (a @ b.T, np.dot(a, b[0]), np.einsum("ij,kj", a, b)), *WHOLE),
    "filter": two(lambda x, y: nbad.convolve(x, y, mode="same")),
    "shapes": two(
        lambda x, y: np.concatenate([x.T.reshape(3, 4), np.broadcast_to(y[0], (2, 4)), np.pad(x, 1)[:2, 1:5]])
    ),
    "stack of numbers": two(lambda x, y: np.stack([x.sum(), y.sum(), 1.0])),
    "triangles": two(lambda x, y: (np.triu(x), np.diag(y[:3, :3]), np.tril(x @ y.T), np.trace(x))),
    "likes": two(
        lambda x, y: np.ones_like(x) * x + np.zeros_like(y) + np.full_like(x, y.sum()) + np.full_like(x, 2)
    ),
    "integer likes": two(lambda a, b: (np.full_like(a, b[0, 0]), np.full_like(a, 3) * b), *WHOLE),
    "metadata": two(lambda x, y: x * x.shape[0] + np.size(y) + y.ndim + len(x)),
    "stop": two(lambda x, y: nbad.stop_gradient(x) * y),
    "rounding": two(lambda x, y: (round(x.sum(), 1), round(x.sum()), np.round(y), x.round(2))),
    "iteration": two(lambda x, y: sum(row * k for k, row in enumerate(x))),
    "unstacked": two(lambda x, y: [r.sum() for r in np.split(x, 2, axis=1)]),
    "contains shape": two(lambda x, y: np.linspace(0, 1, x.shape[1]) * x),
    "real if close": two(lambda x, y: np.real_if_close(x + 0 * y)),
    "ufunc methods": two(
        lambda x, y: (
            np.add.reduce(x),
            np.add.accumulate(x),
            np.multiply.outer(x[0], y[0]),
            np.maximum.reduce(x, axis=1),
        )
    ),
}


#: Their results have as many elements as a mask selects: nothing else is guarded.
SELECTING = {"mask", "mask of rows", "nonzero", "method nonzero", "where of one", "compress", "extract"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_recorded_program_equals_the_function(name: str) -> None:
    graph = again(*PROGRAMS[name])
    assert uncounted(graph) == []
    assert bool(graph.guards) == (name in SELECTING)


# Numbers ------------------------------------------------------------------------------------------
NUMBERS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda s, t, x: (
        s + t,
        s - 2,
        3.0 * s,
        s / t,
        -s,
        +s,
        s % t,
        s // t,
        abs(s),
        s**2,
        s**t,
        2**s,
        t**0.5,
    ),
    "weak": lambda s, t, x: (x * s, x + (s * t), s * x - t, x**s, np.float32(2) * s),
    "strong": lambda s, t, x: (np.exp(s) * x, np.add(s, t), np.multiply(s, 2.0) * x, np.square(s)),
    "rounded": lambda s, t, x: (round(s), round(s, 1), round(s) * x, s // 1 * x, divmod(s, t)),
    "compared": lambda s, t, x: (
        s < t,
        np.where(s > t, s, t),
        (s > 0) & (t > 0),
        s == t,
        s != 2,
        (s < t) * x,
        np.maximum(s, t),
    ),
    "scalars": lambda s, t, x: (
        x.sum() * s,
        x[0] ** 2,
        x.max() // s,
        x[1] % t,
        np.argmax(x) + 1,
        np.count_nonzero(x) / s,
    ),
    "stopped": lambda s, t, x: nbad.stop_gradient(s) * x,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_stay_what_they_are(name: str) -> None:
    x = np.array([0.5, 1.5, 2.5], np.float32)
    first, second = (1.5, 2.5, x), (3.25, 0.75, x[::-1] * 2)
    function = NUMBERS[name]
    graph = again(function, first, second)
    assert graph.guards == []
    forms = {ARRAY: np.ndarray, SCALAR: np.generic, PYTHON: (int, float)}
    for slot, value in zip(graph.outputs, leaves(function(*first)), strict=True):
        assert isinstance(value, forms[graph.forms[slot]])
        assert graph.avals[slot] == (
            np.result_type(value if hasattr(value, "dtype") else type(value)),
            np.shape(value),
        )


def test_complex_numbers_and_numpy_scalars_as_inputs() -> None:
    def function(c: Any, h: Any) -> Any:
        return c * 2, abs(c), h * 2.0, np.conj(c), h + c

    assert again(function, (1 + 2j, np.float32(2)), (-3j, np.float32(0.5))).forms[:2] == [PYTHON, SCALAR]


# Random programs ----------------------------------------------------------------------------------
STEPS: list[Callable[..., Any]] = [
    lambda a, b: a + b,
    lambda a, b: a * np.sin(b),
    lambda a, b: np.where(a > b, a, -b),
    lambda a, b: a[np.argsort(b)],
    lambda a, b: np.sort(a) - b,
    lambda a, b: np.cumsum(a) * 0.1,
    lambda a, b: a - a.mean(),
    lambda a, b: np.floor(a) + b % 1,
    lambda a, b: np.roll(a, 1) * (b >= 0),
    lambda a, b: a[::-1],
    lambda a, b: np.clip(a, -1, 1) ** 2,
    lambda a, b: np.maximum(a, b),
    lambda a, b: np.concatenate([a[1:], b[:1]]),
    lambda a, b: np.stack([a, b]).max(axis=0),
    lambda a, b: a * np.argmax(b),
    lambda a, b: np.searchsorted(np.sort(a), b) * 0.5,
    lambda a, b: np.real(np.fft.ifft(np.fft.fft(a) * np.fft.fft(b))) / 4,
    lambda a, b: np.outer(a, b).sum(axis=0) / 4,
    lambda a, b: np.abs(a) / (1 + b * b),
    lambda a, b: np.rint(a * 4).astype(int) % 3 * b,
    lambda a, b: a * np.sum(b[b > 0]),
    lambda a, b: nbad.stop_gradient(a) * b,
]
MASKED = 20
VECTORS = st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=4, max_size=4).map(np.array)


def run(program: list[tuple[int, int, int]], x: Any, y: Any) -> Any:
    """Run a program: each step takes two earlier values."""
    values = [x, y]
    for step, i, j in program:
        values.append(np.tanh(STEPS[step](values[i % len(values)], values[j % len(values)])))
    return values[-1]


PROGRAM = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7
)


@given(program=PROGRAM, x=VECTORS, y=VECTORS, u=VECTORS, v=VECTORS)
@settings(max_examples=60, deadline=None)
def test_random_programs(program: Any, x: Any, y: Any, u: Any, v: Any) -> None:
    graph, result = graph_for(lambda a, b: run(program, a, b), x, y)
    assert uncounted(graph) == []
    try:
        found = interpret(graph, (u, v))
    except OtherShape:
        assert any(step == MASKED for step, _, _ in program)
        return
    np.testing.assert_array_equal(found[0] if found else result, run(program, u, v))


@given(program=PROGRAM, x=VECTORS, y=VECTORS, u=VECTORS, v=VECTORS)
@settings(max_examples=40, deadline=None)
def test_gradients_are_derived_from_the_recording(program: Any, x: Any, y: Any, u: Any, v: Any) -> None:
    graph, result = graph_for(lambda a, b: run(program, a, b), x, y)
    if type(result) is not Traced:
        return
    expected = nbad.grad(lambda a, b: np.sum(run(program, a, b)), (0, 1))(u, v)
    gradients, answers = graph_for(
        lambda a, b: nbad.grad(lambda a, b: np.sum(interpret(graph, (a, b))[0]), (0, 1))(a, b), x, y
    )
    assert uncounted(gradients) == []
    try:
        found = iter(interpret(gradients, (u, v)))
    except OtherShape:
        assert any(step == MASKED for step, _, _ in program)
        return
    for answer, gradient in zip(answers, expected, strict=True):
        np.testing.assert_allclose(
            next(found) if type(answer) is Traced else answer, gradient, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("name", PROGRAMS)
def test_derivatives_of_a_recording_equal_those_of_the_function(name: str) -> None:
    function, first, second = PROGRAMS[name]
    asked = tuple(k for k, value in enumerate(first) if value.dtype.kind == "f")
    if not asked:
        return

    def loss_of(values: Any) -> Any:
        total = 0.0
        for k, value in enumerate(values):
            if np.result_type(value).kind in "fc":
                total = total + np.sum(np.real(np.sin((1.0 + k) * value)))
        return total

    def eager(*inputs: Any) -> Any:
        return nbad.value_and_grad(lambda *given: loss_of(leaves(function(*given))), asked)(*inputs)

    graph, result = graph_for(function, *first)

    def over(*inputs: Any) -> Any:
        def loss(*given: Any) -> Any:
            found = iter(interpret(graph, given))
            return loss_of([next(found) if type(leaf) is Traced else leaf for leaf in leaves(result)])

        return nbad.value_and_grad(loss, asked)(*inputs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradients, answer = graph_for(over, *first)
        assert gradients.guards == []
        for inputs in (first, second):
            try:
                expected, plain = leaves(eager(*inputs)), leaves(over(*inputs))
            except OtherShape:
                assert inputs is second
                continue
            found = iter(interpret(pruned(gradients), inputs))
            for leaf, directly, value in zip(leaves(answer), plain, expected, strict=True):
                np.testing.assert_allclose(directly, value, rtol=1e-10, atol=1e-12)
                if type(leaf) is Traced:
                    same(next(found), directly, 1e-6 if name == "casts" else 1e-12)


def test_second_derivatives_of_a_recording() -> None:
    def function(x: Any) -> Any:
        return np.sum(np.where(x > 0, x**3, np.sin(x)) * x[np.argsort(x)])

    def twice(f: Callable[..., Any]) -> Callable[..., Any]:
        return nbad.grad(lambda x: np.sum(nbad.grad(f)(x) * np.arange(4.0)))

    graph, _ = graph_for(function, V)
    gradients, _ = graph_for(twice(lambda x: interpret(graph, (x,))[0]), V)
    np.testing.assert_allclose(interpret(gradients, (V2,))[0], twice(function)(V2), rtol=1e-12)


def test_transformations_inside_a_recorded_function() -> None:
    def function(x: Any, s: Any) -> Any:
        value, gradient = nbad.value_and_grad(lambda x, s: np.sum(np.exp(x * s) * (x > 0)), (0, 1))(x, s)
        _, pullback = nbad.vjp(lambda x: np.sort(x) * s, x)
        inner = nbad.grad(lambda w: np.sum(w[np.argmax(x)] * x))(np.ones(4))
        return value, *gradient, pullback(x), inner, nbad.grad(lambda s: s**3)(s) * np.float32(1)

    assert again(function, (V, 1.5), (V2, 0.5)).guards == []


# Guards -------------------------------------------------------------------------------------------
def guards_of(function: Callable[..., Any], *inputs: Any) -> list[tuple[str, Any]]:
    """Return (kind, seen) of each guard, after checking what can be checked of all."""
    graph, _ = graph_for(function, *inputs)
    for guard in graph.guards:
        assert graph.lines[guard.line][0] == __file__
        assert guard.after <= len(graph.nodes)
        assert guard.slot < len(graph.inputs) or any(
            guard.slot in n.outputs for n in graph.nodes[: guard.after]
        )
        if guard.kind == CONTENTS:
            assert (guard.seen.dtype, guard.seen.shape) == graph.avals[guard.slot]
    return [(guard.kind, guard.seen) for guard in graph.guards]


SEEN: dict[str, tuple[Callable[..., Any], str, Any]] = {
    "truth": (lambda x: 1 if x[0] > 0 else 2, TRUTH, bool(V[0] > 0)),
    "not": (lambda x: not np.any(x > 5), TRUTH, False),
    "in": (lambda x: 3.0 in x, TRUTH, False),
    "while": (lambda x: [None for _ in iter(lambda: bool(x.sum() > 1e9), False)], TRUTH, False),
    "allclose": (lambda x: np.allclose(x, x) and 1, TRUTH, True),
    "float": (lambda x: float(x[1]), CONTENTS, V[1]),
    "int": (lambda x: int(np.argmax(x)), CONTENTS, np.argmax(V)),
    "complex": (lambda x: complex(x[1]), CONTENTS, V[1]),
    "index": (lambda x: list(range(4))[np.argmin(x)], CONTENTS, np.argmin(V)),
    "range": (lambda x: list(range(np.count_nonzero(x > 0))), CONTENTS, np.count_nonzero(V > 0)),
    "slice": (lambda x: x[: np.argmax(x)], CONTENTS, np.argmax(V)),
    "item": (lambda x: x.item(2), CONTENTS, V),
    "item of one": (lambda x: x.sum().item(), CONTENTS, V.sum()),
    "tolist": (lambda x: x.tolist(), CONTENTS, V),
    "tobytes": (lambda x: x.tobytes(), CONTENTS, V),
    "asarray": (lambda x: np.asarray(x), CONTENTS, V),
    "array": (lambda x: np.array(x, np.float32), CONTENTS, V),
    "table": (lambda x: np.arange(9.0)[np.argsort(x)], CONTENTS, np.argsort(V)),
    "store": (lambda x: np.zeros(3).__setitem__(0, x[2]), CONTENTS, V[2]),
    "round to a shape": (lambda x: np.zeros(np.count_nonzero(x)), CONTENTS, 4),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_python_sees_is_guarded(name: str) -> None:
    function, kind, seen = SEEN[name]
    found = guards_of(function, V)
    assert [k for k, _ in found] == [kind]
    np.testing.assert_array_equal(found[0][1], seen)


def test_the_same_is_guarded_once() -> None:
    def function(x: Any) -> Any:
        total = x.sum()
        found = [float(total) for _ in range(3)] + [bool(total) for _ in range(3)]
        return found if total else np.asarray(total)

    assert [kind for kind, _ in guards_of(function, V)] == [CONTENTS, TRUTH]


def test_showing_a_value_is_not_seeing_it() -> None:
    def function(x: Any) -> Any:
        return f"{x.sum():.3f} {x!r} {x}", np.array_repr(x), x.shape, len(x), x.dtype, np.iscomplexobj(x)

    assert guards_of(function, V) == []


def test_what_is_handed_out_is_a_copy_that_cannot_be_written() -> None:
    x = V.copy()

    def function(x: Any) -> Any:
        plain = np.asarray(x)
        with pytest.raises(ValueError, match="read-only"):
            plain[0] = 1
        return plain

    result, _ = record(lambda traced: function(*traced), [x])
    assert not np.may_share_memory(result, x)


def test_conversions_refuse_what_they_refuse_for_plain_values() -> None:
    def function(x: Any) -> Any:
        for refused in (
            lambda: float(x),
            lambda: operator.index(x[0]),
            lambda: bool(x),
            lambda: x[0.5 * x[0]],
        ):
            with pytest.raises((TypeError, ValueError, IndexError)):
                refused()
        with pytest.raises(NoRuleError, match="written in place"):
            x[0] = 1.0
        return x * 2

    record(lambda traced: function(*traced), [V])


def test_truth_may_depend_on_what_is_differentiated() -> None:
    graph, _ = graph_for(lambda x: np.sum(x * x) if x[0] > -9 else x[0], V)
    assert [guard.kind for guard in graph.guards] == [TRUTH]
    np.testing.assert_allclose(nbad.grad(lambda x: interpret(graph, (x,))[0])(V2), 2 * V2)


def test_a_value_that_carries_a_derivative_is_not_handed_out() -> None:
    graph, _ = graph_for(lambda x, y: np.sum(x * y) * float(np.sum(y)), V, V2)
    with pytest.raises(DetachError, match=r"test_recording\.py"):
        nbad.grad(lambda y: interpret(graph, (V, y))[0])(V2)
    gradient = nbad.grad(lambda x: interpret(graph, (x, V2))[0])(V)
    np.testing.assert_allclose(gradient, V2 * V2.sum())


def test_a_detached_output_is_refused_too() -> None:
    graph, _ = graph_for(lambda x: (np.sum(x), float(np.max(x)))[0], V)
    with pytest.raises(DetachError):
        nbad.grad(lambda x: interpret(graph, (x,))[0])(V)


def test_stop_gradient_lets_a_value_be_handed_out() -> None:
    graph, _ = graph_for(lambda x: np.sum(x) * float(nbad.stop_gradient(np.sum(x))), V)
    assert [guard.kind for guard in graph.guards] == [CONTENTS]
    np.testing.assert_allclose(nbad.grad(lambda x: interpret(graph, (x,))[0])(V), np.full(4, V.sum()))


def test_stop_gradient_stops_at_every_order() -> None:
    def function(x: Any) -> Any:
        return np.sum(nbad.grad(lambda x: np.sum(nbad.stop_gradient(x) * x**2))(x))

    graph, _ = graph_for(function, V)
    np.testing.assert_allclose(nbad.grad(lambda x: interpret(graph, (x,))[0])(V2), nbad.grad(function)(V2))


# Constants and errors -----------------------------------------------------------------------------
def test_constants_are_kept_as_they_are_and_once() -> None:
    table = np.arange(4.0)
    graph, _ = graph_for(
        lambda x: ((x + table) * 2.0 - table) * 2.0 + (-0.0) * x + 0.0 * x + 2 * x + np.float32(2) * x, V
    )
    assert any(value is table for value in graph.constants.values())
    numbers = [value for value in graph.constants.values() if value is not table]
    assert sorted(map(repr, numbers)) == sorted(["2.0", "-0.0", "0.0", "2", repr(numbers[-1])])


def test_a_constant_that_is_changed_is_an_error() -> None:
    table = np.ones(4)

    def later(x: Any) -> Any:
        y = x + table
        table[0] += 1
        return y

    def between(x: Any) -> Any:
        y = x + table
        table[0] += 1
        y = y + table
        table[0] -= 1
        return y

    for function in (later, between):
        with pytest.raises(MutationError, match=r"test_recording\.py"):
            graph_for(function, V)


def test_foreign_byte_order_becomes_native() -> None:
    graph, _ = graph_for(lambda x: x * np.ones(4, ">f8"), V.astype(">f8"))
    assert all(dtype.isnative for dtype, _ in graph.avals)
    assert all(value.dtype.isnative for value in graph.constants.values())
    np.testing.assert_array_equal(interpret(graph, (V,))[0], V)


def test_a_recorded_value_is_of_no_use_afterwards() -> None:
    result, _ = record(lambda traced: traced[0] * 2, [V])
    for use in (
        lambda: result + 1,
        lambda: bool(result[0]),
        lambda: float(result[0]),
        lambda: np.argmax(result),
    ):
        with pytest.raises(EscapedTraceError):
            use()


def test_an_error_of_the_function_closes_the_tape() -> None:
    kept = []

    def function(traced: list[Any]) -> Any:
        kept.append(traced[0])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        record(function, [V])
    with pytest.raises(EscapedTraceError):
        kept[0] + 1


def test_integers_and_truths_are_not_differentiated() -> None:
    with pytest.raises(nbad.InputTypeError, match="int"):
        record(lambda traced: nbad.grad(np.sum)(traced[0]), [N])


# Users' primitives --------------------------------------------------------------------------------
def scaled_x(g: Any, factor: float) -> Any:
    return g * factor


@nbad.primitive(x=scaled_x)
def scaled(x: Any, other: Any = 0.0, *, factor: float = 2.0) -> Any:
    assert type(x) is np.ndarray  # a forward runs on plain values
    return x * factor + other


def test_primitives_are_nodes() -> None:
    graph = again(lambda x: scaled(x, factor=3.0), (V,), (V2,))
    assert [node.op.name for node in graph.nodes] == ["scaled"]
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(interpret(graph, (x,))[0]))(V), np.full(4, 3.0))


def test_an_operand_without_pullback_is_refused_when_it_is_differentiated() -> None:
    graph = again(lambda x, y: scaled(x, y), (V, V2), (V2, V))
    nbad.grad(lambda x: np.sum(interpret(graph, (x, V))[0]))(V)
    with pytest.raises(NoRuleError, match="operand 'other' of scaled"):
        nbad.grad(lambda y: np.sum(interpret(graph, (V, y))[0]))(V)


def test_every_kind_of_attribute_survives() -> None:
    def function(x: Any) -> Any:
        return (
            np.argmax(x, axis=-1, keepdims=True),
            x[..., None, ::2],
            np.all(x > 0, axis=(0, 1)),
            x.astype("f4"),
        )

    graph = again(function, (X,), (X2,))
    assert all(node.op is TABLE[node.op.opcode] for node in graph.nodes)


def test_big_arrays() -> None:
    x = np.linspace(-1, 1, 1 << 17)
    again(lambda x: np.exp(x) * x + x**2 - (x > 0), (x,), (x[::-1],))


def test_gradients_with_respect_to_numbers_are_numbers_and_have_derivatives() -> None:
    def function(x: Any, s: Any) -> Any:
        gradient = nbad.grad(lambda s: np.sum(x * s**3))(s)
        return np.sum(x * gradient) * gradient

    graph = again(function, (V, 1.5), (V2, 0.5))
    for wrt in (0, 1):
        found = nbad.grad(lambda x, s: interpret(graph, (x, s))[0], wrt)(V2, 0.5)
        np.testing.assert_allclose(found, nbad.grad(function, wrt)(V2, 0.5), rtol=1e-12)


def test_shapes_that_depend_on_values_hold_for_the_recording_only() -> None:
    graph, _ = graph_for(lambda x: x[x > 0].mean(), V)  # the number of elements is part of the recording
    with pytest.raises(OtherShape) as caught:
        interpret(graph, (np.array([1.0, 2.0, 3.0, -1.0 if np.sum(V > 0) == 4 else 4.0]),))
    assert caught.value.line[0] == __file__


def test_directional_derivatives_of_a_recording() -> None:
    def function(x: Any) -> Any:
        return np.sum(np.where(x > 0, x**3, np.sin(x)) * np.sort(x))

    graph, _ = graph_for(function, V)

    def over(x: Any) -> Any:
        return interpret(graph, (x,))[0]

    for transformed in (
        lambda f: lambda x, v: nbad.jvp(f, (x,), (v,))[1],
        lambda f: lambda x, v: nbad.hvp(f)(x, v),
    ):
        derived, _ = graph_for(transformed(over), V, V2)
        found = interpret(derived, (V2, V))[0]
        np.testing.assert_allclose(found, transformed(function)(V2, V), rtol=1e-12)
