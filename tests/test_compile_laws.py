"""Laws of nbad.compile: a compiled function gives what the plain one gives, whatever is done to it.

Everything here goes through the public API; what a replay costs is counted elsewhere.
"""

import dataclasses
import functools
import gc
import linecache
import os
import pathlib
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threaded import in_threads

import nbad
from nbad import tree
from nbad.errors import InputTypeError, NbadError, NonScalarOutputError, WrtError

ROOT = pathlib.Path(nbad.__file__).parents[1]
X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])


def same(got: Any, expected: Any, rtol: float = 1e-9) -> None:
    """Assert that two results are of the same structure, types, dtypes and shapes, and equal to rounding."""
    assert tree.structure(got) == tree.structure(expected)
    for one, other in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        assert type(one) is type(other), (one, other)
        if isinstance(other, np.ndarray | np.generic):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if isinstance(other, np.ndarray | np.generic | float | complex):
            small = np.result_type(other).itemsize <= (8 if np.iscomplexobj(other) else 4)
            tolerance = max(2e-5, rtol) if small else rtol
            finite = np.abs(other)[np.isfinite(other)]
            scale = 1.0 + float(np.max(finite, initial=0.0))
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)
        else:
            assert one == other


def always_same(f: Callable[..., Any], calls: list[tuple[Any, ...]], **kwargs: Any) -> Any:
    """Assert that the compiled function gives what `f` gives, in three rounds of the calls; return it."""
    cf = nbad.compile(f, variants=100)
    for _ in range(3):
        for args in calls:
            same(cf(*args, **kwargs), f(*args, **kwargs))
    return cf


# Random programs ----------------------------------------------------------------------------------
VECTORS = [
    "np.sin({v})",
    "np.tanh({v} * {w})",
    "{v} + {c} * {w}",
    "{v} * np.tanh({s})",
    "{v}[::-1] - {w}",
    "np.where({v} > {c}, {w}, {v} * {c})",
    "np.cumsum({v}) * 0.4",
    "{v}[np.argsort({w})]",
    "{v} / (1.0 + {w} * {w})",
    "np.exp(-{v} * {v})",
    "np.roll({v}, i)",
    "{v} * (1 + i % 3)",
    "{v} * G",
    "{v} - A",
    "{v} + c0 * {w}",
    "helper({v})",
    "np.sqrt(1.0 + {v} * {v})",
    "np.tanh(np.outer({v}, {w}) @ {v})",
    "np.concatenate([{v}[1:], {w}[:1]])",
    "np.real(np.fft.ifft(np.fft.fft({v}) * np.fft.fft({w}))) * 0.3",
    "np.fft.irfft(np.fft.rfft({v}) * 0.5, n=3)",
    "nbad.convolve({v}, A, mode='wrap')",
    "nbad.stop_gradient({v}) * {w}",
    "{v} * ({w} > {c})",
    "np.abs({v}) * p",
    "np.stack([{v}, {w}]).T[:, 1]",
]
SCALARS = [
    "np.sum({v})",
    "{v} @ {w}",
    "np.sum({v}[{w} > {c}])",
    "np.sum({v}[np.flatnonzero({w} > {c})])",
    "{v}[np.argmax({w})]",
    "{v}[i % 3] * np.sin({s})",
    "np.sin({s}) + {c}",
    "np.mean({v} * {w})",
    "np.tanh({s} * p)",
    "np.tanh({s}) * float(np.floor({v}[1] * 1.3 + 0.171))",
    "np.sin({s}) * float(n)",
]
INTEGERS = [
    "int(np.floor(np.tanh({s}) * 2.7 + 0.137))",
    "int(np.argmax({v}))",
    "int(np.sum({v} > {c}))",
    "int(np.argsort({v})[0])",
    "i + 1",
    "n",
]
CONDITIONS = [
    "{s} > {c}",
    "np.sum({v}) > {c}",
    "i % 2 == 0",
    "np.any({v} > {c})",
    "bool(np.all({v} < {c}))",
    "{v}[0] > {c} and {s} < {c}",
    "not {s} > {c} or {v}[2] > {c}",
    "i > n",
    "np.floor({s} * 1.3 + 0.17) == 1.0",
    "p > {c}",
    "G > 1.0",
    "float(np.floor({s} * 1.7 + 0.19)) > 0.0",
]


@st.composite
def programs(draw: Any) -> str:
    """Draw the source of a function with branches and loops; all of its values stay of moderate size."""

    def filled(templates: list[str]) -> str:
        name = st.sampled_from(["v0", "v1", "v2"])
        return draw(st.sampled_from(templates)).format(
            v=draw(name),
            w=draw(name),
            s=draw(st.sampled_from(["s0", "s1"])),
            c=draw(st.sampled_from(["0.3137", "-0.2711", "0.9173", "-1.1317"])),
        )

    def statements(depth: int) -> list[str]:
        lines = []
        for _ in range(draw(st.integers(1, 4 if depth == 0 else 2))):
            kinds = ["vector"] * 3 + ["scalar"] * 2 + ["integer"] + ["if"] * 3 * (depth < 2)
            kinds += ["while", "for", "return"] * (depth < 2)
            kind = draw(st.sampled_from(kinds))
            if kind == "vector":
                lines.append(f"{draw(st.sampled_from(['v0', 'v1', 'v2']))} = {filled(VECTORS)}")
            elif kind == "scalar":
                lines.append(f"{draw(st.sampled_from(['s0', 's1']))} = {filled(SCALARS)}")
            elif kind == "integer":
                lines.append(f"i = {filled(INTEGERS)}")
            elif kind == "if":
                lines += [f"if {filled(CONDITIONS)}:", *indented(statements(depth + 1))]
                lines += ["else:", *indented(statements(depth + 1))]
            elif kind == "while":
                lines += [f"k{depth} = 0", f"while k{depth} < 3 and ({filled(CONDITIONS)}):"]
                body = [f"v0 = v0 * 0.7 + {draw(st.sampled_from(['0.1', '-0.3']))}", "s0 = np.sin(s0) - 0.3"]
                lines += indented([*body, *statements(depth + 1), f"k{depth} += 1"])
            elif kind == "for":
                lines += [f"for j{depth} in range(i % 3):", *indented(statements(depth + 1))]
            else:
                lines += [f"if {filled(CONDITIONS)}:", "    return np.sum(v1 * v2) * s1"]
        return lines

    def indented(lines: list[str]) -> list[str]:
        return ["    " + line for line in lines]

    start = ["v0, v1, v2 = x, y, x * y", "s0, s1 = np.sum(x), y[0] * p", "i = n"]
    end = ["return np.sum(v0 * v1) + np.tanh(s0) * np.sum(v2) + s1"]
    body = indented(indented([*start, *statements(0), *end]))
    return "\n".join(
        [
            "def helper(v):",
            "    return v * G + A[0]",
            "def make(c0):",
            "    def program(x, y, p, n=2):",
            *body,
            "    def rebind(value):",
            "        nonlocal c0",
            "        c0 = value",
            "    return program, rebind",
        ]
    )


def built(source: str) -> tuple[Callable[..., Any], Callable[[float], None], dict[str, Any]]:
    """Run the source of a program; return the function, what rebinds its closure, and its globals."""
    name = f"<program {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict[str, Any] = {"np": np, "nbad": nbad, "G": 0.7, "A": np.array([0.5, -0.25, 1.0])}
    exec(compile(source, name, "exec"), space)
    return *space["make"](0.3), space


def call_of(kind: str, rng: np.random.Generator, n: int) -> Callable[[Any], Any]:
    """Return what is done to a function: its value or one of its derivatives at random arguments."""
    x, y = rng.normal(size=3), rng.normal(size=3)
    dx, dy = rng.normal(size=3), rng.normal(size=3)
    p, dp = float(rng.normal()), float(rng.normal())
    calls: dict[str, Callable[[Any], Any]] = {
        "value": lambda f: f(x, y, p, n),
        "grad x": lambda f: nbad.grad(f)(x, y, p, n),
        "grad y": lambda f: nbad.grad(f, "y")(x, y, p),
        "grad p": lambda f: nbad.grad(f, "p")(x, y, p=p, n=n),
        "all": lambda f: nbad.value_and_grad(f, (0, 1, 2))(x, y, p, n),
        "vjp": lambda f: nbad.vjp(f, x, y, p, n, wrt=(1, 0))[1](0.5),
        "jvp": lambda f: nbad.jvp(f, (x, y, p), (dx, None, dp)),
        "hvp": lambda f: nbad.hvp(f)(x, y, p, n, dx),
        "hvp both": lambda f: nbad.hvp(f, (0, 1))(x, y, p, n, (dx, dy)),
    }
    return calls[kind]


KINDS = ["value", "value", "grad x", "grad y", "grad p", "all", "vjp", "jvp", "hvp", "hvp both"]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    programs(),
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.integers(0, 1000),
            st.integers(0, 2),
            st.sampled_from(["", "", "", "G", "rebind A", "change A", "closure"]),
        ),
        min_size=4,
        max_size=10,
    ),
    st.integers(1, 4),
)
def test_random_programs(source: str, calls: list[tuple[str, int, int, str]], variants: int) -> None:
    f, rebind, space = built(source)
    cf = nbad.compile(f, variants=variants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more variants than are kept
        for kind, seed, n, change in calls:
            rng = np.random.default_rng(seed)
            if change == "G":
                space["G"] = float(rng.uniform(0.4, 1.6))
            elif change == "rebind A":
                space["A"] = rng.uniform(-1.0, 1.0, 3)
            elif change == "change A":
                space["A"][1] = rng.uniform(-1.0, 1.0)
            elif change == "closure":
                rebind(float(rng.uniform(-0.6, 0.6)))
            call = call_of(kind, rng, n)
            try:
                expected = call(f)
            except NbadError as error:
                with pytest.raises(type(error)):
                    call(cf)
                continue
            same(call(cf), expected)
            same(call(cf), expected)


PROGRAM = """
def helper(v):
    return v * G + A[0]
def make(c0):
    def program(x, y, p, n=2):
        k = 0
        while np.sum(x * x) > 1.0 and k < 5:
            x = x * 0.7
            k += 1
        m = int(np.floor(np.sum(y) * 1.3 + 0.17)) % 3
        for j in range(m):
            x = np.roll(x, m) + helper(y)
        if x[np.argmax(y)] > 0.3137:
            return np.sum(x[y > 0.1]) * p
        return np.sum(np.sin(x) * y) + c0 * k + n
    def rebind(value):
        nonlocal c0
        c0 = value
    return program, rebind
"""


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_one_program_at_many_inputs(kind: str) -> None:
    f, rebind, space = built(PROGRAM)
    cf = nbad.compile(f, variants=64)
    for seed in range(25):
        call = call_of(kind, np.random.default_rng(seed), seed % 2)
        same(call(cf), call(f))
    space["G"] = 1.25
    rebind(0.9)
    for seed in range(25):
        call = call_of(kind, np.random.default_rng(seed), 1)
        same(call(cf), call(f))


# Random formulas: many shapes, sizes and dtypes, no branches --------------------------------------------
SMOOTH = [
    "np.sin({v})",
    "np.exp(-{v} * {v})",
    "np.sqrt(1.0 + {v} * {v})",
    "np.log1p({v} * {v})",
    "np.arctan({v}) * 0.7",
    "1.0 / (1.0 + {v} ** 2)",
    "{v} * {w}",
    "{v} - 0.3 * {w}",
    "{v} / (1.5 + np.cos({w}))",
    "np.tanh({v}) * s + {w}",
    "np.hypot({v}, {w} + 3.0)",
    "np.sum({v}) / {v}.size",
    "np.mean({v}, keepdims=True) * {w}",
    "np.sum({v} * a, axis=0) / a.shape[0]",
    "np.mean({v} + a, axis=1, keepdims=True)",
    "np.var({v} * a, axis=0) * {w}",
    "({v} + a)[::-1]",
    "({v} * a)[:, ::-1] + {w}",
    "np.mean(({v} + a)[:, 1:] * ({w} * a)[:, :-1], axis=1, keepdims=True) if a.shape[1] > 1 else {w}",
    "({v} + a).T.reshape(a.shape) * {w}",
    "np.linalg.norm({v} + a) / a.size",
    "((a * {v}) @ (b + 0.0 * a[0]))[:, None] / a.shape[1]",
    "np.where(k > 3, {v}, {w})",
    "{v} * k / 7.0",
    "({v} + a)[:, k % a.shape[1]]",
    "np.cumsum({v} * a, axis=1) / a.shape[1]",
    "np.real(np.exp(1j * {v}) * {w})",
    "np.abs({v} + 1j * ({w} + 2.5))",
    "np.imag(np.conj(z) * {v}) + np.real(z * z)",
    "np.real(np.fft.ifft(np.fft.fft({v} + a) * np.fft.fft(b))) / a.shape[1]",
    "np.broadcast_to({v} * 1.0, a.shape) * {w}",
    "np.concatenate([{v} + a, {w} * a])[: a.shape[0]]",
    "np.einsum('ij,ij->j', {v} + a, {w} * a) / a.shape[0]",
]
KINKED = [
    "np.maximum({v}, {w} * 0.5)",
    "np.clip({v}, -0.5, 0.8)",
    "np.abs({v} - 0.1) + {w}",
    "np.max({v} + a, axis=1, keepdims=True)",
    "np.sort({v} + a, axis=1)",
    "np.where({v} > 0.21, {v}, np.sin({w}))",
    "{v} * ({w} > 0.33)",
    "np.floor({v} * 1.7 + 0.13) * {w}",
]


@st.composite
def formulas(draw: Any) -> tuple[str, bool]:
    """Draw the source of a formula, and whether float32 takes part; names and numbers stay of moderate size."""
    single = draw(st.booleans())
    names = ["a", "b", "c", "s"]
    lines = []
    for i in range(draw(st.integers(1, 9))):
        template = draw(st.sampled_from(SMOOTH if single else SMOOTH + KINKED))
        v, w = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        # A Python float has neither a size nor axes.
        lines.append(f"r{i} = {template.format(v=v if v != 's' else '(c * s)', w=w)}")
        names.append(f"r{i}")
    used = [name for name in names[4:] if draw(st.booleans())] or names[-1:]
    total = " + ".join(f"np.mean({name})" for name in used)
    lines.append(f"return {total}" + (" + 0.0 * np.sum(a)" if draw(st.booleans()) else ""))
    return "\n".join(["def formula(a, b, c, s, z, k):", *("    " + line for line in lines)]), single


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(formulas(), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 7, 300, 1100]), st.integers(0, 1000))
def test_random_formulas(formula: tuple[str, bool], rows: int, columns: int, seed: int) -> None:
    source, single = formula
    space: dict[str, Any] = {"np": np}
    exec(source, space)
    f = space["formula"]
    cf = nbad.compile(f)
    rtol = 1e-3 if single else 1e-9
    for step in range(3):
        rng = np.random.default_rng(seed + step)
        b = rng.normal(size=columns).astype("f4" if single else "f8")
        z = rng.normal(size=columns) + 1j * rng.normal(size=columns)
        args = (rng.normal(size=(rows, columns)), b, rng.normal(size=(rows, 1)), float(rng.normal()), z)
        args = (*args, rng.integers(0, 7, columns))
        same(cf(*args), f(*args), rtol)
        for wrt in ((0, 1, 2, 3, 4), 0, (1, 3)):
            same(nbad.value_and_grad(cf, wrt)(*args), nbad.value_and_grad(f, wrt)(*args), rtol)
        tangents = (args[0][::-1], None, args[2], 0.5, None, None)
        same(nbad.jvp(cf, args, tangents), nbad.jvp(f, args, tangents), rtol)
        direction = (args[0], np.sin(b))
        same(nbad.hvp(cf, (0, 1))(*args, direction), nbad.hvp(f, (0, 1))(*args, direction), rtol)


# Arguments ----------------------------------------------------------------------------------------
def test_kinds_of_numbers() -> None:
    def f(x: Any, k: Any) -> Any:
        return x * k, np.sum(x) + k, k

    kinds = (
        2,
        2.0,
        True,
        1,
        1.0,
        np.float64(2),
        np.float32(2),
        np.int64(2),
        np.bool_(True),
        2j,
        np.complex64(2j),
    )
    calls = [(x, k) for x in (X, X.astype("f4"), np.arange(3)) for k in kinds]
    always_same(f, [(x, k) for x, k in calls])


def test_numbers_that_are_equal_but_not_the_same() -> None:
    def f(x: Any, k: Any) -> Any:
        return (x * 2.0 if k is True else x), isinstance(k, bool), np.copysign(x, k), x / (k if k else -1.0)

    always_same(f, [(X, True), (X, 1), (X, 1.0), (X, 0.0), (X, -0.0), (X, False), (X, 0)])


def test_signs_of_zeros_and_nans_in_arrays() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.copysign(x, y), np.signbit(y)

    zero = np.zeros(3)
    always_same(f, [(X, zero), (X, -zero), (X, zero), (zero, X), (-zero, -X), (X, zero * np.nan)])


def test_guards_see_nan() -> None:
    def f(x: Any) -> Any:
        if x[0] > 1.0:
            return np.sum(x)
        return np.sum(x) * 2.0 if not x[0] <= 1.0 else np.sum(x) * 3.0

    always_same(f, [(np.array([v, 1.0]),) for v in (2.0, 0.5, np.nan, np.inf, -np.inf)])


def test_python_floats_stay_weak() -> None:
    def f(x: Any, s: Any) -> Any:
        t = np.sin(s) * s + 1.0
        return x * s, s * 2.0, x * (s if s > 1.0 else s * s), t

    cf = always_same(f, [(X.astype("f4"), 0.5), (X.astype("f4"), 1.5), (X, 2.5)])
    got = nbad.grad(lambda *args: np.sum(cf(*args)[0]), 1)(X.astype("f4"), 0.5)
    assert type(got) is float


def test_keywords_defaults_and_collected_arguments() -> None:
    def f(x: Any, y: Any = 2.0, *rest: Any, scale: Any = Y, **more: Any) -> Any:
        return x * y * scale + sum(rest) - more.get("shift", 0.0) * (2.0 if "twice" in more else 1.0)

    cf = nbad.compile(f)
    for _ in range(3):
        for args, kwargs in [
            ((X,), {}),
            ((X, 3.0), {}),
            ((X,), {"y": 3.0}),
            ((), {"y": Y, "x": X}),
            ((), {"x": X, "y": Y}),
            ((X, Y, 1.0, X), {}),
            ((X,), {"scale": X}),
            ((X,), {"shift": Y, "scale": 2.0}),
            ((X,), {"shift": 1.0, "twice": None}),
            ((X,), {"twice": None, "shift": 1.0}),
        ]:
            same(cf(*args, **kwargs), f(*args, **kwargs))
    same(nbad.grad(lambda *a, **k: np.sum(cf(*a, **k)), "scale")(X, scale=X), X * 2.0)
    with pytest.raises(TypeError):
        cf()
    same(cf(X), f(X))


class Options:
    def __init__(self, scale: float) -> None:
        self.scale = scale


def test_objects_and_functions_as_arguments() -> None:
    def f(x: Any, options: Any, activation: Any) -> Any:
        return np.sum(activation(x) * options.scale)

    def shifted(x: Any) -> Any:
        return x * shift

    shift = 1.0
    options = Options(2.0)
    cf = nbad.compile(f)
    for k in range(8):
        same(nbad.value_and_grad(cf)(X, options, np.sin), nbad.value_and_grad(f)(X, options, np.sin))
        same(nbad.value_and_grad(cf)(X, options, shifted), nbad.value_and_grad(f)(X, options, shifted))
        if k == 2:
            options.scale = 3.0
        elif k == 4:
            shift = 5.0
        elif k == 6:
            options = Options(4.0)


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Lens:
    psf: Any
    name: str = "air"


def test_containers() -> None:
    def f(p: Any) -> Any:
        if isinstance(p, dict):
            total = sum(np.sum(value) for value in p.values() if not isinstance(value, str | type(None)))
            return {"keys": tuple(p), "total": total, "first": next(iter(p.values()))}
        if isinstance(p, Lens):
            return Lens(p.psf * 2.0, p.name + "!")
        return Pair(p[0] * 2.0, [p[-1], None, (len(p),)])

    calls = [
        ({"a": X, "b": Y},),
        ({"b": X, "a": Y},),
        ({"a": X, "b": Y, "c": "text"},),
        ({"a": X, "b": Y, "c": "words"},),
        ({"a": X, "b": None},),
        ({"a": 2.0, "b": 3},),
        ([X, Y],),
        ((X, Y),),
        ([X, Y, X],),
        (Pair(X, Y),),
        (Lens(X),),
        (Lens(X, "oil"),),
        (Lens(Y, "oil"),),
    ]
    always_same(f, calls)


def test_gradients_of_containers() -> None:
    def f(p: Any, mode: str = "sum") -> Any:
        y = p["lens"].psf * p["stack"][1] * p["scale"]
        return np.sum(y) if mode == "sum" else np.max(y)

    cf = nbad.compile(f)
    for k in range(3):
        p = {"lens": Lens(X + k), "stack": [1, Y * (k + 1)], "scale": 0.5 + k}
        for mode in ("sum", "max"):
            for wrt in ("p.lens.psf", ("p.stack.1", "p.scale"), "p.scale", (0, "lens", "psf")):
                same(nbad.value_and_grad(cf, wrt)(p, mode), nbad.value_and_grad(f, wrt)(p, mode))
    with pytest.raises(InputTypeError, match=r"grad: .*p\.lens\.name"):
        nbad.grad(cf)({"lens": Lens(X), "stack": [1, Y], "scale": 0.5})


def test_the_same_array_twice_and_overlapping_ones() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(x * x * y)

    cf = nbad.compile(f)
    base = np.linspace(0.1, 1.0, 6)
    for _ in range(3):
        for x, y in [(X, X), (X, Y), (base[:3], base[3:]), (base[:3], base[1:4]), (base[::2], base[2:5])]:
            same(nbad.grad(cf)(x, y), nbad.grad(f)(x, y))
            same(nbad.grad(cf, (0, 1))(x, y), nbad.grad(f, (0, 1))(x, y))
            same(cf(x, y), f(x, y))


def layouts(shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    """Return arrays of one shape and dtype in every layout."""
    rng = np.random.default_rng(3)
    plain = rng.uniform(0.5, 1.5, shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        plain = (plain + 1j * rng.uniform(0.5, 1.5, shape)).astype(dtype)
    wide = np.zeros([2 * n for n in shape], dtype)
    strided = wide[tuple(slice(None, None, 2) for _ in shape)]
    strided[...] = plain
    read_only = plain.copy()
    read_only.flags.writeable = False
    memory = bytearray(plain.nbytes + 1)
    odd = np.frombuffer(memory, np.uint8)[1 : 1 + plain.nbytes].view(dtype).reshape(shape)
    odd[...] = plain
    backward = plain[tuple(slice(None, None, -1) for _ in shape)]
    return [
        plain,
        np.asfortranarray(plain),
        strided,
        backward,
        read_only,
        odd,
        plain.astype(plain.dtype.newbyteorder(">")),
        np.broadcast_to(plain[:1], shape),
    ]


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16", "c8"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 1, 5)])
def test_layouts_of_inputs(shape: tuple[int, ...], dtype: str) -> None:
    def f(x: Any, y: Any) -> Any:
        z = x * np.conj(y) + np.exp(-x)
        return np.sum(np.real(z)) + np.sum(np.abs(z[..., ::-1]) ** 2)

    cf = nbad.compile(f)
    inputs = layouts(shape, dtype)
    for _ in range(2):
        for k, x in enumerate(inputs):
            before = x.tobytes()
            y = inputs[-1 - k]
            same(cf(x, y), f(x, y))
            same(nbad.value_and_grad(cf)(x, y), nbad.value_and_grad(f)(x, y))
            same(nbad.grad(cf, 1)(x, y), nbad.grad(f, 1)(x, y))
            assert x.tobytes() == before


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_empty_and_zero_dimensional_inputs(shape: tuple[int, ...]) -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(np.sin(x) * y + x)

    cf = nbad.compile(f)
    for k in range(3):
        x, y = np.full(shape, 0.5 + k), np.full(shape, 2.0)
        same(cf(x, y), f(x, y))
        same(nbad.grad(cf, (0, 1))(x, y), nbad.grad(f, (0, 1))(x, y))
        same(nbad.jvp(cf, (x, y), (y, None)), nbad.jvp(f, (x, y), (y, None)))


def test_shapes_and_dtypes_each_have_their_recording() -> None:
    def f(x: Any) -> Any:
        return np.sum(x / x.shape[0]) * len(x)

    always_same(f, [(np.ones(n, d),) for n in (1, 3, 4) for d in ("f8", "f4", "i8", "i4", "?", "c16")])


def test_arrays_without_a_gradient_are_inputs_too() -> None:
    def f(x: Any, index: Any, mask: Any) -> Any:
        return np.sum(x[index]) + np.sum(np.where(mask, x, -x)) + np.sum(x[mask]) * np.sum(index)

    cf = nbad.compile(f)
    rng = np.random.default_rng(0)
    for k in range(8):
        x, index, mask = rng.normal(size=5), rng.integers(0, 5, 4), rng.normal(size=5) > 0.5 * (k % 3 - 1)
        same(cf(x, index, mask), f(x, index, mask))
        same(nbad.grad(cf)(x, index, mask), nbad.grad(f)(x, index, mask))


def test_an_index_out_of_range_raises_in_a_replay_too() -> None:
    cf = nbad.compile(lambda x, index: np.sum(x[index]))
    same(cf(X, np.array([0, 2])), X[0] + X[2])
    same(cf(X, np.array([0, 1])), X[0] + X[1])
    for _ in range(2):
        with pytest.raises(IndexError):
            cf(X, np.array([0, 3]))
        with pytest.raises(IndexError):
            nbad.grad(cf)(X, np.array([0, 3]))
    same(nbad.grad(cf)(X, np.array([1, 1])), np.array([0.0, 2.0, 0.0]))


@pytest.mark.parametrize("kind", ["grad", "vjp", "jvp", "hvp"])
def test_a_derivative_first_asked_for_where_shapes_differ(kind: str) -> None:
    def f(x: Any) -> Any:
        y = x[x > 0.0]
        return np.sum(y**3) * y.size + np.sum(x[np.flatnonzero(x < 0.0)] ** 2)

    calls: dict[str, Callable[[Any, Any], Any]] = {
        "grad": lambda f, x: nbad.value_and_grad(f)(x),
        "vjp": lambda f, x: nbad.vjp(f, x)[1](2.0),
        "jvp": lambda f, x: nbad.jvp(f, (x,), (Y,)),
        "hvp": lambda f, x: nbad.hvp(f)(x, Y),
    }
    cf = nbad.compile(f)
    signs = np.array([1.0, -1.0, 1.0])
    same(cf(X), f(X))
    for x in (X * signs, -X * signs, -X, X, X * signs):
        same(calls[kind](cf, x), calls[kind](f, x))


@pytest.mark.parametrize("kind", ["grad", "vjp", "jvp", "hvp"])
def test_a_derivative_first_asked_for_on_another_branch(kind: str) -> None:
    def f(x: Any, index: Any) -> Any:
        # What stands on one branch cannot be computed on the other.
        if index.max() < 3:
            return np.sum(x[index] ** 3)
        return np.sum(x[index % 3] ** 2)

    calls: dict[str, Callable[[Any, Any], Any]] = {
        "grad": lambda f, index: nbad.value_and_grad(f)(X, index),
        "vjp": lambda f, index: nbad.vjp(f, X, index, wrt=0)[1](2.0),
        "jvp": lambda f, index: nbad.jvp(f, (X, index), (Y, None)),
        "hvp": lambda f, index: nbad.hvp(f)(X, index, Y),
    }
    cf = nbad.compile(f)
    same(cf(X, np.array([0, 2])), f(X, np.array([0, 2])))
    for pair in ([0, 5], [1, 2], [7, 5], [0, 0]):
        same(calls[kind](cf, np.array(pair)), calls[kind](f, np.array(pair)))


# Memory -------------------------------------------------------------------------------------------
def test_changes_in_place_between_calls() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(np.exp(np.sin(y)) * x * x) + np.sum(nbad.convolve(x, y, mode="wrap"))

    cf = nbad.compile(f)
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=8), rng.normal(size=8)
    for k in range(12):
        if k % 2:
            x[k % 8] += 0.5
        if k % 3 == 2:
            y[k % 8] += 0.25  # after replays in which it did not change
        same(nbad.grad(cf)(x, y), nbad.grad(f)(x, y))
        same(nbad.value_and_grad(cf, 1)(x, y), nbad.value_and_grad(f, 1)(x, y))
        if k % 4 == 3:
            same(cf(x, y), f(x, y))


def test_a_changed_element_is_seen_in_large_arrays() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(x * np.sqrt(y))

    cf = nbad.compile(f)
    x, y = np.ones(300_000), np.full(300_000, 4.0)
    for place in (None, None, 0, 299_999, 123_457):
        if place is not None:
            y[place] = 9.0
        same(nbad.grad(cf)(x, y), np.sqrt(y))


def test_results_share_memory_with_nothing() -> None:
    def f(x: Any, y: Any) -> Any:
        z = x * 2.0
        return x, y, z, z, z.reshape(3, 1), z[::-1], x.T, [z, CONSTANT, np.sum(z)]

    cf = nbad.compile(f)
    x, y = X.copy(), Y.copy()
    held: list[np.ndarray] = [x, y, CONSTANT]
    for k in range(4):
        results = [leaf for leaf in tree.leaves(cf(x, y)) if isinstance(leaf, np.ndarray)]
        value, pullback = nbad.vjp(cf, x, y)
        results += [leaf for leaf in tree.leaves(value) if isinstance(leaf, np.ndarray)]
        results += pullback(value)
        results += tree.leaves(nbad.jvp(cf, (x, y), (y, x))[1])[:-1]
        results += nbad.grad(lambda x, y: np.sum(cf(x, y)[3]), (0, 1))(x, y)
        for i, result in enumerate(results):
            assert result.flags.writeable
            for other in [*held, *results[:i]]:
                assert not np.shares_memory(result, other)
        for result in results:
            result[...] = -99.0  # whoever gets it may write into it
        held += results
        x += k
        same(cf(x, y), f(x, y))


CONSTANT = np.array([7.0, 8.0])


def test_results_are_not_overwritten_by_later_calls() -> None:
    cf = nbad.compile(lambda x, y: np.sum(np.sin(x) * y))
    gradient = nbad.value_and_grad(cf, (0, 1))
    kept, expected = [], []
    for k in range(10):
        x = X + k
        kept.append(gradient(x, Y))
        expected.append((np.sum(np.sin(x) * Y), (np.cos(x) * Y, np.sin(x))))
    for got, want in zip(kept, expected, strict=True):
        same(got, want)


def test_pullbacks_of_earlier_calls_stay_right() -> None:
    cf = nbad.compile(lambda x: np.sin(x) * x)
    rounds = [nbad.vjp(cf, X + k) for k in range(5)]
    for k, (value, pullback) in enumerate(rounds):
        x = X + k
        same(value, np.sin(x) * x)
        for _ in range(2):
            same(pullback(Y), (np.cos(x) * x + np.sin(x)) * Y)


def test_inputs_are_not_kept_alive_and_never_written() -> None:
    import weakref

    cf = nbad.compile(lambda x, y: np.sum(x * y))
    x, y = np.ones(4000), np.ones(4000)
    for _ in range(3):
        nbad.grad(cf)(x, y)
    assert np.all(x == 1.0)
    assert np.all(y == 1.0)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


# Hidden inputs ------------------------------------------------------------------------------------
SCALE = 2.0
WEIGHTS = np.array([1.0, 2.0, 3.0])
TABLE = {"low": 0.5, "arrays": [np.array([1.0, 1.0, 1.0])]}


def scaled(x: Any) -> Any:
    return x * SCALE


def test_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Any) -> Any:
        return np.sum(scaled(x) * WEIGHTS) if SCALE > 1.0 else np.sum(x)

    module = sys.modules[__name__]
    cf = nbad.compile(f)
    for scale in (2.0, 2.0, 3.0, 0.5, 2.0):
        monkeypatch.setattr(module, "SCALE", scale)
        same(cf(X), f(X))
        same(nbad.grad(cf)(X), nbad.grad(f)(X))
    monkeypatch.setattr(module, "WEIGHTS", Y)
    same(nbad.grad(cf)(X), nbad.grad(f)(X))
    monkeypatch.setattr(module, "WEIGHTS", np.array(5.0))
    same(nbad.grad(cf)(X), nbad.grad(f)(X))
    monkeypatch.setattr(module, "scaled", lambda x: x * x)
    same(nbad.grad(cf)(X), nbad.grad(f)(X))


def test_a_global_array_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "WEIGHTS", WEIGHTS.copy())

    def f(x: Any) -> Any:
        return np.sum(x * np.exp(WEIGHTS))

    cf = nbad.compile(f)
    for k in range(6):
        same(nbad.value_and_grad(cf)(X), nbad.value_and_grad(f)(X))
        if k % 2:
            WEIGHTS[k % 3] += 1.0


def test_closures() -> None:
    weight, factor, on = Y.copy(), 2.0, True

    def f(x: Any) -> Any:
        return np.sum(x * weight) * factor if on else np.sum(x)

    cf = nbad.compile(f)
    for k in range(10):
        same(nbad.value_and_grad(cf)(X), nbad.value_and_grad(f)(X))
        if k == 2:
            factor = 3.0
        elif k == 4:
            weight[1] = 9.0
        elif k == 6:
            weight = np.array([1.0])
        elif k == 7:
            on = False
        elif k == 8:
            on, factor = True, 2.0


def test_globals_in_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TABLE", {"low": 0.5, "arrays": [np.ones(3)]})

    def f(x: Any) -> Any:
        return np.sum(x * TABLE["arrays"][0]) * TABLE["low"]

    cf = nbad.compile(f)
    same(nbad.grad(cf)(X), nbad.grad(f)(X))
    TABLE["arrays"][0][1] = 5.0
    same(nbad.grad(cf)(X), nbad.grad(f)(X))
    TABLE["low"] = 4.0
    same(nbad.grad(cf)(X), nbad.grad(f)(X))
    TABLE["arrays"] = [Y]
    same(nbad.grad(cf)(X), nbad.grad(f)(X))


def test_defaults_changed_in_place() -> None:
    default = Y.copy()

    def f(x: Any, y: Any = default, *, z: Any = default) -> Any:
        return np.sum(x * y * z)

    cf = nbad.compile(f)
    for k in range(4):
        same(nbad.value_and_grad(cf)(X), nbad.value_and_grad(f)(X))
        default[k % 3] += 1.0


def test_an_array_made_and_changed_inside() -> None:
    def f(x: Any) -> Any:
        a = np.arange(3.0)
        first = np.sum(x * a)
        a += 1.0
        return first * np.sum(x * a)

    cf = nbad.compile(f)
    for k in range(4):
        # A refusal would do as well; a value from the changed array would not.
        try:
            got = nbad.value_and_grad(cf)(X + k)
        except NbadError:
            continue
        expected = np.sum((X + k) * np.arange(3.0)) * np.sum((X + k) * np.arange(1.0, 4.0))
        assert got[0] == pytest.approx(expected)


# What functions may be -----------------------------------------------------------------------------
class Model:
    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight

    @nbad.compile if hasattr(nbad, "compile") else (lambda f: f)
    def loss(self, x: Any) -> Any:
        return np.sum(self.weight * x * x)

    def __call__(self, x: Any) -> Any:
        return np.sum(self.weight * np.sin(x))


def test_methods_partials_and_callables() -> None:
    first, second = Model(X), Model(Y)
    for k in range(3):
        x = Y + k
        for model in (first, second):
            same(model.loss(x), np.sum(model.weight * x * x))
            same(nbad.grad(model.loss)(x), 2 * model.weight * x)
    cf = nbad.compile(functools.partial(lambda x, y, z: np.sum(x * y) * z, z=2.0))
    compiled_model = nbad.compile(second)
    for k in range(3):
        same(nbad.grad(cf)(X + k, Y), 2 * Y)
        same(nbad.grad(compiled_model)(X + k), Y * np.cos(X + k))
    same(nbad.grad(nbad.compile(np.sin))(0.5), float(np.cos(0.5)))


def test_a_wrapped_compiled_function() -> None:
    @nbad.compile
    def f(x: Any) -> Any:
        """Say something."""
        return np.sum(x**3)

    assert (f.__name__, f.__doc__) == ("f", "Say something.")

    @functools.wraps(f)
    def wrapped(x: Any) -> Any:
        return f(x) * 2.0

    for k in range(3):
        same(nbad.value_and_grad(wrapped)(X + k), (2.0 * np.sum((X + k) ** 3), 6 * (X + k) ** 2))


def test_recursion() -> None:
    @nbad.compile
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    for k in range(3):
        for n in (1, 2, 4):
            assert power(2.0 + k, n) == pytest.approx((2.0 + k) ** n)
            assert nbad.grad(power)(2.0 + k, n) == pytest.approx(n * (2.0 + k) ** (n - 1))


def test_compiled_functions_that_call_each_other() -> None:
    @nbad.compile
    def inner(x: Any, y: Any) -> Any:
        return np.sin(x) * y if np.sum(x) > 0 else x * y

    def plain_inner(x: Any, y: Any) -> Any:
        return np.sin(x) * y if np.sum(x) > 0 else x * y

    def f(g: Any) -> Callable[..., Any]:
        return lambda x, y: np.sum(g(x, y) ** 2) + np.sum(g(y, np.ones(3)))

    outer = nbad.compile(f(inner))
    for args in [(X, Y), (-X, Y), (Y, -X), (X, -Y), (Y, X)]:
        for wrt in (0, 1):
            expected = nbad.value_and_grad(f(plain_inner), wrt)(*args)
            same(nbad.value_and_grad(outer, wrt)(*args), expected)
            same(nbad.value_and_grad(f(inner), wrt)(*args), expected)


def test_higher_orders() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.sin(x) * x[::-1]) if x[0] > 0 else np.sum(x**4)

    cf = nbad.compile(f)
    v = np.array([1.0, -2.0, 0.5])
    for x in (X, -X, Y, -Y, X):
        same(nbad.hvp(cf)(x, v), nbad.hvp(f)(x, v))
        same(nbad.jvp(nbad.grad(cf), (x,), (v,)), nbad.jvp(nbad.grad(f), (x,), (v,)))
        gradient_norm = [nbad.grad(lambda x, g=g: np.sum(nbad.grad(g)(x) ** 2))(x) for g in (cf, f)]
        same(*gradient_norm)
        same(nbad.vjp(nbad.grad(cf), x)[1](v), nbad.vjp(nbad.grad(f), x)[1](v))
        same(
            nbad.grad(lambda x: np.sum(nbad.hvp(cf)(x, v)))(x),
            nbad.grad(lambda x: np.sum(nbad.hvp(f)(x, v)))(x),
        )


def test_a_compiled_gradient() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(np.exp(x) * y) if np.sum(y) > 0 else np.sum(x * x * y)

    step = nbad.compile(lambda x, y: x - 0.1 * nbad.grad(f)(x, y))
    for y in (Y, -Y, X, -X):
        same(step(X, y), X - 0.1 * nbad.grad(f)(X, y))
        same(
            nbad.vjp(step, X, y, wrt=0)[1](Y),
            nbad.vjp(lambda x, y: x - 0.1 * nbad.grad(f)(x, y), X, y, wrt=0)[1](Y),
        )


def test_inside_of_traced_code() -> None:
    @nbad.compile
    def layer(w: Any, x: Any) -> Any:
        return np.tanh(w @ x)

    def loss(w: Any, x: Any, g: Any) -> Any:
        for _ in range(3):
            x = g(w, x)
        return np.sum(x)

    rng = np.random.default_rng(0)
    for _ in range(3):
        w, x = rng.normal(size=(3, 3)), rng.normal(size=3)
        expected = nbad.value_and_grad(loss, (0, 1))(w, x, lambda w, x: np.tanh(w @ x))
        same(nbad.value_and_grad(loss, (0, 1))(w, x, layer), expected)


def test_aux() -> None:
    def f(x: Any, label: str) -> Any:
        y = x * 2.0
        return np.sum(y * y), {"y": y, "label": label, "n": int(np.argmax(x)), "none": None}

    cf = nbad.compile(f)
    for x in (X, X[::-1], X):
        for label in ("a", "b"):
            same(nbad.grad(cf, has_aux=True)(x, label), nbad.grad(f, has_aux=True)(x, label))
            same(
                nbad.value_and_grad(cf, has_aux=True)(x, label),
                nbad.value_and_grad(f, has_aux=True)(x, label),
            )
            same(
                nbad.jvp(cf, (x, label), (Y, None), has_aux=True),
                nbad.jvp(f, (x, label), (Y, None), has_aux=True),
            )
            got, expected = (nbad.vjp(g, x, label, wrt=0, has_aux=True) for g in (cf, f))
            same((got[0], got[2], got[1](1.0)), (expected[0], expected[2], expected[1](1.0)))


def test_outputs_that_are_no_numbers() -> None:
    def f(x: Any) -> Any:
        return {"y": x * 2.0, "text": "text", "n": 3, "none": None, "large": x > 1.0}

    cf = nbad.compile(f)
    for k in range(3):
        x = X + k
        same(cf(x), f(x))
        same(nbad.jvp(cf, (x,), (Y,)), nbad.jvp(f, (x,), (Y,)))
        value, pullback = nbad.vjp(cf, x)
        same(value, f(x))
        same(pullback({**value, "y": Y}), 2.0 * Y)


# Errors -------------------------------------------------------------------------------------------
def test_exceptions_of_the_function_come_out() -> None:
    def f(x: Any) -> Any:
        if np.sum(x) > 10.0:
            raise KeyError("mine")
        return np.sum(x * x)

    cf = nbad.compile(f)
    for _ in range(3):
        same(nbad.grad(cf)(X), 2 * X)
        for call in (cf, nbad.grad(cf)):
            with pytest.raises(KeyError, match="mine"):
                call(X * 10)
    same(cf(X), np.sum(X * X))


def test_an_exception_in_the_first_call_leaves_nothing() -> None:
    broken = True

    def f(x: Any) -> Any:
        if broken:
            raise RuntimeError("not yet")
        return np.sum(x)

    cf = nbad.compile(f)
    with pytest.raises(RuntimeError, match="not yet"):
        nbad.grad(cf)(X)
    assert cf.variants == 0
    broken = False
    same(nbad.grad(cf)(X), np.ones(3))


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "after a replay"])
def test_errors_are_those_of_plain_code(warm: bool) -> None:
    def f(x: Any, n: Any = 1) -> Any:
        return x * 2.0 * n

    cf = nbad.compile(f)
    if warm:
        for _ in range(2):
            cf(X)
            nbad.vjp(cf, X)[1](Y)
    cases: list[tuple[type[Exception], list[str], Callable[[Any], Any]]] = [
        (NonScalarOutputError, ["grad", "shape (3,)"], lambda f: nbad.grad(f)(X)),
        (NonScalarOutputError, ["hvp", "shape (3,)"], lambda f: nbad.hvp(f)(X, Y)),
        (InputTypeError, ["grad", "int64"], lambda f: nbad.grad(f)(np.arange(3))),
        (InputTypeError, ["grad", "Python int"], lambda f: nbad.grad(f, "n")(X, 2)),
        (WrtError, ["'z'"], lambda f: nbad.grad(f, "z")(X)),
        (InputTypeError, ["vjp", "shape (4,)"], lambda f: nbad.vjp(f, X)[1](np.ones(4))),
        (InputTypeError, ["vjp", "structure"], lambda f: nbad.vjp(f, X)[1]((Y,))),
        (InputTypeError, ["vjp", "complex128"], lambda f: nbad.vjp(f, X)[1](Y * 1j)),
        (InputTypeError, ["jvp", "shape (4,)"], lambda f: nbad.jvp(f, (X,), (np.ones(4),))),
        (InputTypeError, ["jvp", "structure"], lambda f: nbad.jvp(f, (X,), ([Y],))),
        (TypeError, [], lambda f: f()),
        (TypeError, [], lambda f: f(X, m=1)),
    ]
    for error, words, call in cases:
        for function in (f, cf):
            with pytest.raises(error) as caught:
                call(function)
            for word in words:
                assert word in str(caught.value)
            if issubclass(error, NbadError):
                assert "test_compile_laws.py" in str(caught.value)
    same(cf(X), f(X))


# Variants and reports -----------------------------------------------------------------------------
def branches(x: Any) -> Any:
    k = int(np.floor(x[0]))  # the line that decides
    return np.sum(x) * k


def test_variants_are_bounded_and_the_line_is_named_once() -> None:
    cf = nbad.compile(branches, variants=3)
    line = branches.__code__.co_firstlineno + 1
    with pytest.warns(Warning, match=rf"test_compile_laws\.py:{line}") as caught:
        for k in range(12):
            x = X + k
            same(cf(x), branches(x))
    assert len(caught) == 1
    assert cf.variants == 3
    lines = cf.report().lines
    assert any(f"test_compile_laws.py:{line}" in name for name in lines), lines


def test_variants_are_reused_and_cleared() -> None:
    cf = nbad.compile(branches, variants=8)
    for k in (0, 1, 2, 1, 0, 2, 2, 1):
        same(cf(X + k), branches(X + k))
    report = cf.report()
    assert (cf.variants, report.recordings, report.replays) == (3, 3, 5)
    cf.clear()
    assert cf.variants == 0
    same(cf(X), branches(X))
    assert cf.report().recordings == 4


def test_the_least_recently_used_variant_goes() -> None:
    cf = nbad.compile(branches, variants=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in (0, 1, 0, 2):  # 1 goes
            cf(X + k)
    before = cf.report().recordings
    cf(X)
    assert cf.report().recordings == before


def test_wrt_is_not_part_of_the_key() -> None:
    calls = 0

    def f(x: Any, y: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.sum(x * x * y)

    cf = nbad.compile(lambda x, y: f(x, y))
    for wrt in (0, 1, (0, 1), "y", "x"):
        same(nbad.grad(cf, wrt)(X, Y), nbad.grad(lambda x, y: np.sum(x * x * y), wrt)(X, Y))
    same(cf(X, Y), np.sum(X * X * Y))
    assert cf.variants == 1
    assert calls <= 2  # a change of a closure's cell is a change


def test_the_tape_can_be_read() -> None:
    cf = nbad.compile(lambda x: np.sum(np.sin(x)))
    cf(X)
    text = str(cf.tape)
    assert "sin" in text
    assert "float64" in text or "f8" in text
    dot = cf.to_dot()
    assert dot.lstrip().startswith("digraph")
    assert "sin" in dot


# Threads and processes ----------------------------------------------------------------------------
def mixed(x: Any, y: Any) -> Any:
    z = np.exp(-x * x) * np.sin(3 * x) + np.log1p(y * y)
    if np.sum(x) > 1.0:
        z = z * np.sum(y)
    return np.sum(z + np.sqrt(y)) / 7.0


def test_four_threads_call_one_compiled_function() -> None:
    rng = np.random.default_rng(1)
    inputs = [(rng.uniform(-0.5, 1.5, n), rng.uniform(0.5, 1.5, n)) for n in (3, 3, 2000, 140_000, 3, 0)]
    cf = nbad.compile(mixed)
    expected = [nbad.value_and_grad(mixed, (0, 1))(*args) for args in inputs]

    def work(k: int) -> None:
        for i in range(18):
            j = (k + i) % len(inputs)
            same(nbad.value_and_grad(cf, (0, 1))(*inputs[j]), expected[j])
            if i % 5 == 0:
                same(cf(*inputs[j]), expected[j][0])
            if i == 7 and k == 0:
                cf.clear()

    in_threads(4, work)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(2)
    before = nbad.get_threads()
    try:
        for n in (5, 140_000):
            x, y = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)
            results = []
            for count in (1, 2, 3, 1):
                nbad.set_threads(count)
                cf = nbad.compile(mixed)
                for _ in range(2):  # a recording, a replay
                    nbad.value_and_grad(cf, (0, 1))(x, y)
                results.append(nbad.value_and_grad(cf, (0, 1))(x, y))
                results.append(nbad.value_and_grad(cf, (0, 1))(x, y))
            for value, gradient in results:
                assert value == results[0][0]
                for one, other in zip(gradient, results[0][1], strict=True):
                    np.testing.assert_array_equal(one, other)
    finally:
        nbad.set_threads(before)


CHILD = """
import os, sys, signal, warnings
import numpy as np
import nbad
warnings.simplefilter("ignore")  # forking a process with threads is the point
nbad.set_threads(2)

@nbad.compile
def loss(x, y):
    z = np.exp(-x * x) * y
    return np.sum(z) if np.sum(x) > 0 else np.sum(z * z)

def plain(x, y):
    z = np.exp(-x * x) * y
    return np.sum(z) if np.sum(x) > 0 else np.sum(z * z)

def check():
    for n in (5, 200_000):
        for sign in (1.0, -1.0, 1.0):
            x, y = sign * np.linspace(0.1, 0.9, n), np.linspace(0.5, 1.5, n)
            for got, expected in zip(
                nbad.grad(loss, (0, 1))(x, y), nbad.grad(plain, (0, 1))(x, y), strict=True
            ):
                np.testing.assert_allclose(got, expected, rtol=1e-10)
"""


def run(code: str) -> str:
    """Run a Python process on `CHILD` and `code`; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_replays() -> None:
    code = """
check()
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs dies
    try:
        check()
        loss.clear()
        check()
        os._exit(0)
    except BaseException as error:
        print(error, flush=True)
        os._exit(1)
check()  # the parent goes on at the same time
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("right")
"""
    assert run(code) == "right"


@pytest.mark.slow
def test_spawned_processes(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        CHILD
        + """
import multiprocessing

def work(sign):
    check()
    return nbad.grad(loss)(np.full(4, sign), np.ones(4))

if __name__ == "__main__":
    check()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for sign, got in zip((1.0, -1.0), pool.map(work, (1.0, -1.0), chunksize=1), strict=True):
            np.testing.assert_allclose(got, nbad.grad(plain)(np.full(4, sign), np.ones(4)))
    print("right")
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == "right"


# An interrupt that falls into a finalizer is printed and dropped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize("phase", ["record", "replay"])
def test_interrupts_leave_the_function_usable(phase: str) -> None:
    def interrupt(signum: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    rng = np.random.default_rng(3)
    x, y = rng.uniform(0.5, 1.5, 200_000), rng.uniform(0.5, 1.5, 200_000)
    expected = nbad.value_and_grad(mixed, (0, 1))(x, y)
    cf = nbad.compile(mixed)
    for _ in range(5):
        same(nbad.value_and_grad(cf, (0, 1))(x, y), expected)
    before = signal.signal(signal.SIGALRM, interrupt)
    # A shell lets what it starts in the background ignore interrupts.
    control_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = 0
    try:
        for k in range(40):
            if phase == "record":
                cf.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0004 * (k + 1))
                for _ in range(3):
                    nbad.value_and_grad(cf, (0, 1))(x, y)
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            except KeyboardInterrupt:
                stopped += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            if k % 8 == 7:
                same(nbad.value_and_grad(cf, (0, 1))(x, y), expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, control_c)
    assert stopped > 0
    same(nbad.value_and_grad(cf, (0, 1))(x, y), expected)
    same(nbad.grad(cf)(X, Y), nbad.grad(mixed)(X, Y))
