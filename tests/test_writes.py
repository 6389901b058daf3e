"""Writes in place: NumPy's meaning of views, in every mode, and the errors where that cannot be had."""

import gc
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import Taped, assert_close, derivative, inner, size_of

import nbad
from nbad.errors import DetachError, EscapedTraceError, MutationError, NoRuleError

X = np.array([0.3, -1.2, 0.7, 1.9, -0.4, 0.8])

# Random programs ----------------------------------------------------------------------------------
VIEWS: list[Callable[[Any], Any]] = [
    lambda a: a[1:],
    lambda a: a[::-1],
    lambda a: a[..., ::2],
    lambda a: a[0],
    lambda a: a[..., None],
    lambda a: a.T,
    lambda a: a.reshape(-1),
    lambda a: a.reshape(2, -1),
    np.ravel,
    lambda a: np.ravel(a, "F"),
    lambda a: a.reshape(-1, order="F"),
    lambda a: a.flatten(),
    lambda a: np.swapaxes(a, 0, -1),
    lambda a: np.flip(a, 0),
    lambda a: np.expand_dims(a, 0),
    lambda a: a.squeeze(),
    lambda a: a.copy(),
    lambda a: np.copy(a),
    lambda a: np.take(a, 0, axis=0),
    lambda a: a[[0, 1, 0]],
    lambda a: a[a > 0],
    np.diagonal,
    lambda a: np.split(a, [1])[1],
    lambda a: np.broadcast_to(a, (2, *a.shape)),
    lambda a: a.real,
    lambda a: a.conj(),
    lambda a: a.astype(a.dtype, copy=False),
    np.atleast_2d,
    lambda a: np.sin(a),
]
INDICES: list[Callable[[Any], Any]] = [
    lambda a: ...,
    lambda a: 0,
    lambda a: -1,
    lambda a: slice(1, None),
    lambda a: slice(None, None, -2),
    lambda a: (slice(None), 0),
    lambda a: (..., slice(1, 3)),
    lambda a: None,
    lambda a: [0, 1, 0],
    lambda a: (slice(None), [1, 0]),
    lambda a: a > 0.1,
    lambda a: np.arange(a.shape[0]) % 2 == 0,
]
SOURCES: list[Callable[[Any], Any]] = [
    np.sin,
    lambda a: a,
    lambda a: np.sum(np.sin(a)),
    lambda a: np.ravel(np.cos(a))[0],
    lambda a: a[0],
    lambda a: a[1:],
    lambda a: a[:-1],
    lambda a: 0.5,
]


def add(a: Any, b: Any) -> None:
    a += b


def multiply(a: Any, b: Any) -> None:
    a *= b


def add_at_end(a: Any, b: Any) -> None:
    a[1:] += b


def multiply_first(a: Any, b: Any) -> None:
    a[0] *= b


def subtract_into(a: Any, b: Any) -> None:
    np.subtract(a, b, out=a)


def add_selected(a: Any, b: Any) -> None:
    np.add(a, b, out=a, where=a > 0)


WRITES = [add, multiply, add_at_end, multiply_first, subtract_into, add_selected, np.copyto]
INSTRUCTION = st.one_of(
    st.tuples(st.just("view"), st.integers(0, 5), st.sampled_from(VIEWS)),
    st.tuples(
        st.just("set"),
        st.integers(0, 5),
        st.sampled_from(INDICES),
        st.integers(0, 5),
        st.sampled_from(SOURCES),
    ),
    st.tuples(
        st.just("write"),
        st.integers(0, 5),
        st.sampled_from(WRITES),
        st.integers(0, 5),
        st.sampled_from(SOURCES),
    ),
)


def run(program: list[Any], x: Any, skipped: list[int], *, first: bool) -> list[Any]:
    """Run a program; the first run notes the instructions that NumPy refuses, which must be refused later too."""
    arrays = [x * 2, np.zeros_like(x), np.sin(x).T]
    for i, (kind, place, act, *rest) in enumerate(program):
        a = arrays[place % len(arrays)]
        try:
            if kind == "view":
                if len(found := np.shape(act(a))) <= 3 and int(np.prod(found)) <= 200:
                    arrays.append(act(a))
                continue
            value = rest[1](arrays[rest[0] % len(arrays)])
            if kind == "set":
                index = act(a)
                # NumPy's writes at a mask read elements that they have already written.
                a[index] = value * 1 if isinstance(index, np.ndarray) else value
            else:
                act(a, value)
        except (ValueError, IndexError, TypeError):
            if first:
                skipped.append(i)
            else:
                assert i in skipped, f"instruction {i} was refused"
        else:
            assert first or i not in skipped, f"instruction {i} is one that NumPy refuses"
    return [a for a in arrays if isinstance(a, np.ndarray) or not first or np.ndim(a) == 0]


@given(st.lists(INSTRUCTION, min_size=2, max_size=10), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_random_programs_of_views_and_writes(program: list[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (3, 4))
    skipped: list[int] = []
    with np.errstate(all="ignore"):
        expected = run(program, x.copy(), skipped, first=True)

        def f(x: Any) -> Any:
            return run(program, x, skipped, first=False)

        value, pullback = nbad.vjp(f, x)
        assert len(value) == len(expected)
        for found, right in zip(value, expected, strict=True):
            np.testing.assert_array_equal(found, right)
        if max(np.abs(right).max(initial=0) for right in expected) > 1e3:
            return  # differences would see rounding only
        w = [np.asarray(rng.uniform(-1, 1, np.shape(right))) for right in expected]
        (gradient,) = [pullback(w)]
        v = rng.uniform(-1, 1, x.shape)

        def plainly(x: Any) -> Any:
            again: list[int] = []
            return run(program, x.copy(), again, first=True)

        # Steps so small that no mask changes, mostly; where one does, the differences say nothing.
        h = 1e-6
        up, down = plainly(x + h * v), plainly(x - h * v)
        if [np.shape(a) for a in up] != [np.shape(a) for a in down]:
            return
        left = sum(inner((a - b) / (2 * h), c) for a, b, c in zip(up, down, w, strict=True))
        scale = 1 + size_of(gradient) + sum(size_of((a - b) / (2 * h)) for a, b in zip(up, down, strict=True))
        if scale > 1e4:
            return
        assert abs(left - inner(v, gradient)) <= 1e-5 * scale
        taped = Taped(f, [x], (0,))
        np.testing.assert_allclose(taped.sweep()[0], taped.sweep_by_rules()[0], rtol=1e-10, atol=1e-10)


@given(st.lists(INSTRUCTION, min_size=2, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_random_programs_are_compiled(program: list[Any], seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-1, 1, (3, 4))
    skipped: list[int] = []
    with np.errstate(all="ignore"):
        run(program, x.copy(), skipped, first=True)

        def f(x: Any) -> Any:
            return np.sum(np.stack([np.sum(np.tanh(a)) for a in run(program, x, skipped, first=False)]))

        compiled = nbad.compile(f)
        for _ in range(3):
            for transform in (
                nbad.value_and_grad,
                lambda g: nbad.grad(lambda x: np.sum(nbad.grad(g)(x) ** 2)),
            ):
                for found, expected in zip(transform(compiled)(x), transform(f)(x), strict=True):
                    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


# Programs of the documentation's kind, in every mode ----------------------------------------------
def elements(x: Any) -> Any:
    y = np.zeros_like(x)
    y[0] = x[1] ** 2
    y[1:3] = x[:2] * 3
    y[-1] += x[0]
    return np.sum(y * y)


def recurrence(x: Any) -> Any:
    y = np.empty_like(x)
    y[0] = x[0]
    for i in range(1, x.size):
        y[i] = np.sin(y[i - 1]) * x[i]
    return np.sum(y**2)


def views(x: Any) -> Any:
    y = np.zeros_like(x)
    z = y[1:4]
    w = z[::-1]
    z[0] = x[0]
    w[0] = x[1] * x[2]
    y[2] = x[3]
    w *= x[:3]
    return np.sum(z * np.arange(3.0)) + np.sum(w**3) + np.sum(y**2)


def shapes(x: Any) -> Any:
    y = np.zeros_like(x)
    y += x
    m = y[:4].reshape(2, 2).T
    m[0] = x[4] * x[:2]
    m.ravel()[...] = 7.0  # a copy: m is not contiguous
    m.T.ravel()[1] *= x[0]  # a view
    return np.sum(y**2) + np.sum(np.diagonal(m) ** 3)


def kept(x: Any) -> Any:
    y = x * 1.0
    t = np.sin(y)
    y[0] = 3.0
    u = np.cos(y)
    y[1:] *= y[1:]
    return np.sum(t * u * y)


def rows(x: Any) -> Any:
    y = np.zeros((3, 2), like=x)
    listed = list(y)
    for i in range(3):
        listed[i][:] = x[i] * x[i + 1 : i + 3]
        listed[i - 1] += listed[i]
    return np.sum(np.stack(listed) ** 2)


def parts(x: Any) -> Any:
    y = np.zeros(3, complex, like=x)
    y.real = x[:3]
    y.imag[1:] = x[3:5]
    y *= 1j
    z = y.real
    y[0] = x[0] * (1 + 2j)
    z[1] += x[1]
    return np.sum(np.abs(y) ** 2)


def numbers(x: Any) -> Any:
    y = np.array([x[0], x[1] * x[0], 3.0], like=x)
    y[2] = y[0]
    a = x[0]
    b = a
    b += 1  # numbers do not change: a is what it was
    return np.sum(y**2) * a * b


def whole(x: Any) -> Any:
    y = np.zeros_like(x)
    y[...] = x * x
    y[:] = np.exp(x)
    y *= 2
    y -= x
    y /= 3.0
    y **= 2
    return np.sum(y)


PROGRAMS = [elements, recurrence, views, shapes, kept, rows, parts, numbers, whole]


@pytest.mark.parametrize("f", PROGRAMS)
def test_programs_in_every_mode(f: Callable[[Any], Any]) -> None:
    v = np.arange(1.0, 7.0)

    def value(x: Any) -> Any:
        return nbad.value_and_grad(f)(x)[0]

    def slope(x: Any) -> Any:
        return np.sum(nbad.grad(f)(x) * v)

    gradient, second = nbad.grad(f)(X), nbad.grad(slope)(X)
    np.testing.assert_allclose(derivative(value, [X], 0, v)[0], gradient @ v, rtol=1e-8)
    np.testing.assert_allclose(derivative(slope, [X], 0, v)[0], second @ v, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(nbad.jvp(f, (X,), (v,))[1], gradient @ v, rtol=1e-12)
    np.testing.assert_allclose(nbad.hvp(f)(X, v), second, rtol=1e-10, atol=1e-10)
    compiled, compiled_slope = nbad.grad(nbad.compile(f)), nbad.grad(nbad.compile(slope))
    for k in range(4):
        x = X + 1e-3 * k
        assert_close(compiled(x), nbad.grad(f)(x), 64, "compiled")
        np.testing.assert_allclose(compiled_slope(x), nbad.grad(slope)(x), rtol=1e-10, atol=1e-10)


# What is kept -------------------------------------------------------------------------------------
def test_a_loop_of_writes_keeps_nothing_and_copies_nothing() -> None:
    n = 2000

    def f(x: Any) -> Any:
        y = np.zeros((n, 50), like=x)
        for i in range(1, n):
            y[i] = y[i - 1] * 0.5 + x
        return np.sum(y)

    nbad.grad(f)(np.ones(50))
    gc.collect()
    tracemalloc.start()
    with nbad.report() as account:
        nbad.grad(f)(np.ones(50))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert account.bytes_kept == 0
    assert (
        peak < 20 * n * 50 * 8
    )  # the array, its cotangent, and the nodes; a copy for each write would be n arrays


def test_a_kept_view_does_not_hold_the_array() -> None:
    n = 300

    def f(x: Any) -> Any:
        y = np.zeros((n, 20), like=x)
        for i in range(1, n):
            y[i] = np.sin(y[i - 1]) + x
        return np.sum(y)

    with nbad.report() as account:
        nbad.grad(f)(np.ones(20))
    assert account.bytes_kept <= n * 20 * 8


def test_values_returned_and_used_later_are_what_they_were() -> None:
    def f(x: Any) -> Any:
        y = np.exp(x)
        before = y.copy()
        y[0] = 0.0
        y *= 2
        return before, y

    (before, after), pullback = nbad.vjp(f, X)
    np.testing.assert_array_equal(before, np.exp(X))
    after += 1.0  # the caller's own
    np.testing.assert_allclose(pullback((np.ones(6), np.ones(6))), np.exp(X) * [1, 3, 3, 3, 3, 3])


# Transformations inside of each other -------------------------------------------------------------
def test_a_cotangent_that_is_written_changes_no_other() -> None:
    def f(x: Any) -> Any:
        a, b = nbad.grad(lambda u, v: np.sum((u + v) ** 2), (0, 1))(x, x * 2)
        a[0] = 0.0
        return np.sum(a) + np.sum(b**2)

    np.testing.assert_allclose(nbad.grad(f)(X), np.where(np.arange(6) == 0, 0, 6) + 72 * X)


def test_what_an_inner_pullback_kept_stays_what_it_was() -> None:
    def f(x: Any) -> Any:
        y = np.exp(x)
        value, pullback = nbad.vjp(lambda u: np.exp(u) * y, y * 1.0)
        value[0] = 7.0
        y[1:] = 3.0
        return np.sum(pullback(np.ones(6)))

    def expected(x: Any) -> Any:
        return np.sum(np.exp(np.exp(x)) * np.exp(x))

    np.testing.assert_allclose(nbad.grad(f)(X / 4), nbad.grad(expected)(X / 4), rtol=1e-12)


def test_values_of_an_inner_transformation_in_an_outer_array() -> None:
    def f(x: Any) -> Any:
        y = np.zeros_like(x)

        def g(t: Any) -> Any:
            y[0] = t * 2  # here
            return np.sum(y)

        return nbad.grad(g)(x[0])

    with pytest.raises(EscapedTraceError, match="inside the inner function"):
        nbad.grad(f)(X)


def test_values_of_an_outer_transformation_in_an_inner_array() -> None:
    def f(x: Any) -> Any:
        def g(t: Any) -> Any:
            y = np.zeros_like(t)
            y[:3] = x[:3] * t[0]
            y[...] = x
            y[1] *= t[1]
            return np.sum(y**2)

        return np.sum(nbad.grad(g)(x * 1.0))

    np.testing.assert_allclose(nbad.grad(f)(X), np.where(np.arange(6) == 1, 6 * X**2, 0))


def test_an_argument_written_by_a_closure_while_it_is_differentiated() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0

        def g(t: Any) -> Any:
            y[0] = 5.0  # in NumPy t would change too
            return np.sum(t * t)

        return np.sum(nbad.grad(g)(y))

    with pytest.raises(MutationError, match="argument of"):
        nbad.grad(f)(X)


def test_an_argument_may_be_written_afterwards() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0
        inner_gradient = nbad.grad(lambda t: np.sum(t * t))(y)
        y[0] = 5.0
        return np.sum(inner_gradient * y)

    np.testing.assert_allclose(nbad.grad(f)(X), [20.0, *(16 * X[1:])])


# Refused ------------------------------------------------------------------------------------------
def first(x: Any) -> None:
    x[0] = 1.0


def through_a_view(x: Any) -> None:
    x[1:].T[...] = 1.0


def augmented(x: Any) -> None:
    x += 1.0


def through_reshape(x: Any) -> None:
    x.reshape(2, 3)[0] *= 2.0


@pytest.mark.parametrize("write", [first, through_a_view, augmented, through_reshape])
@pytest.mark.parametrize("transform", [nbad.grad, lambda f: nbad.grad(nbad.compile(f))])
def test_arguments_are_not_written(write: Any, transform: Any) -> None:
    def f(x: Any) -> Any:
        write(x)
        return np.sum(x)

    x = X.copy()
    with pytest.raises(NoRuleError, match=re.escape("y = x.copy()")):
        transform(f)(x)
    np.testing.assert_array_equal(x, X)


BAD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "complex": (lambda y: y.__setitem__(0, 1j), TypeError, "complex"),
    "complex array": (lambda y: y.__setitem__(..., y * 1j), TypeError, "complex"),
    "complex product": (lambda y: y.__imul__(1j), TypeError, "same_kind"),
    "shape": (lambda y: y.__setitem__(slice(2), y), ValueError, "broadcast"),
    "larger": (lambda y: y.__iadd__(np.ones((2, 6))), ValueError, "non-broadcastable output"),
    "past the end": (lambda y: y.__setitem__(6, 1.0), IndexError, "out of bounds"),
    "array past the end": (lambda y: y.__setitem__([0, 9], 1.0), IndexError, "out of bounds"),
    "float index": (lambda y: y.__setitem__(1.0, 1.0), IndexError, "valid indices"),
    "traced index": (lambda y: y.__setitem__(y[:1], 1.0), DetachError, "index"),
    "broadcast": (lambda y: np.broadcast_to(y, (2, 6)).__setitem__(0, 1.0), ValueError, "read-only"),
    "diagonal": (lambda y: np.diagonal(y.reshape(2, 3)).__setitem__(0, 1.0), ValueError, "read-only"),
    "number": (lambda y: y[0].__setitem__((), 1.0), TypeError, "does not support item assignment"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_writes_raise_and_change_nothing(name: str) -> None:
    act, error, words = BAD[name]

    def f(x: Any) -> Any:
        y = x * 2
        with pytest.raises(error, match=words):
            act(y)
        return np.sum(y * y)

    np.testing.assert_allclose(nbad.grad(f)(X), 8 * X)


def test_stores_into_plain_arrays_say_what_to_write() -> None:
    def f(x: Any) -> Any:
        y = np.zeros(6)
        y[0] = x[0]
        return np.sum(y)

    with pytest.raises(DetachError, match=r"np\.zeros_like\(x\)"):
        nbad.grad(f)(X)
    with pytest.raises(DetachError, match=r"np\.stack\(\[a, b\]\)"):
        nbad.grad(lambda x: np.sum(np.array([x[0], x[1]])))(X)


def test_an_escaped_array_is_not_written() -> None:
    saved: list[Any] = []

    def f(x: Any) -> Any:
        saved.append(x * 2)
        return np.sum(x)

    nbad.grad(f)(X)
    with pytest.raises(EscapedTraceError):
        saved[0][0] = 1.0


# New arrays ---------------------------------------------------------------------------------------
def test_new_arrays_are_constants_until_something_is_written() -> None:
    def f(x: Any) -> Any:
        y = np.ones_like(x)
        assert float(np.sum(y * 2)) == 12.0
        assert np.asarray(y[1:]).tolist() == [1.0] * 5
        y[2] = 4.0
        assert y.tolist() == [1, 1, 4, 1, 1, 1]
        y[0] = x[0]
        with pytest.raises(DetachError):
            float(np.sum(y))
        return np.sum(x * y)

    np.testing.assert_array_equal(nbad.grad(f)(X), [2 * X[0], 1, 4, 1, 1, 1])


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
@pytest.mark.parametrize(
    "act", [np.copy, lambda y, order: y.copy(order), lambda y, order: np.zeros_like(y, order=order)]
)
def test_copies_have_numpys_layout(act: Any, order: str) -> None:
    for x in (np.ones((3, 4)), np.ones((3, 4), order="F"), np.ones((3, 8))[:, ::2]):
        strides: list[Any] = []

        def f(x: Any) -> Any:
            strides.append(act(x, order=order)._value.strides)  # noqa: B023
            return np.sum(x)

        nbad.grad(f)(x)
        assert strides == [act(x, order=order).strides]
