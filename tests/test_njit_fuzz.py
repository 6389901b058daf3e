"""Random kernels: loops, branches, views, writes, helpers. Their gradients agree with differences and with the tape of arrays.

NBAD_FUZZ is the number of kernels, NBAD_FUZZ_FIRST the seed of the first.
"""

import math
import os
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

import nbad
from tests.test_njit import copied

FIRST = int(os.environ.get("NBAD_FUZZ_FIRST", "0"))
COUNT = int(os.environ.get("NBAD_FUZZ", "3"))

HELPERS = """
@njit
def bent(a, b):
    if a > b:
        return a * math.sin(b)
    return b - a * 0.5

@njit
def mix(v, i, a):
    v[i % v.size] = v[(i + 1) % v.size] * a + v[i % v.size]
    return v[0]

@njit
def squares(v):
    s = 0.0
    for e in v:
        s += e * e
    return s, v[v.size - 1]

@njit
def inner(v):
    return v[1:3]

@njit
def halved(a, n):
    if n == 0:
        return a
    return 0.5 * halved(a, n - 1) + a
"""

SHAPES = {"x": 4, "w": 4, "y": 4, "z": 4, "u": 3}
READ, WRITTEN = ("x", "w", "y", "z", "u"), ("y", "z", "u")


class Program:
    """A random kernel `f(x, w, p, q, n)` of lines, x and w of length 4, p a number, q of shape (2, 3), n = 3.

    NEW(...) marks an array that the kernel makes.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.indent = 1
        self.loops = 0
        self.names = ["s"]
        pick = self.random.choice
        self.emit(f"s = {pick(['0.0', 'x[0]', 'p', 'w[1]'])}")
        fresh = "NEW(np.zeros(4))", "NEW(np.ones(x.size))", "NEW(w.copy())", "NEW(np.zeros_like(w))"
        self.emit(f"y = {pick([*fresh, 'NEW(x.copy())'])}")
        self.emit(f"z = {pick([*fresh, 'NEW(np.sin(w))', 'NEW(x * w)'])}")
        self.emit(f"u = {pick(['y[1:]', 'y[:3]', 'z[::-1][1:]', 'NEW(np.ones(3))'])}")
        self.emit(f"m = {pick(['NEW(np.zeros((2, 3)))', 'NEW(q.copy())', 'NEW(q * p)'])}")
        self.emit(f"t = {pick(['m.T', 'm[:, ::-1].T', 'NEW(np.zeros((3, 2)))'])}")
        for _ in range(self.random.randint(5, 9)):
            self.statement(0)
        self.emit("for i in range(4):")
        self.emit("    s += y[i] * w[i] + z[i]")
        self.emit("for i in range(2):")
        self.emit("    for j in range(3):")
        self.emit("        s += m[i, j] * q[i, j] + t[j, i]")
        self.emit("return s + u[0]")

    @property
    def source(self) -> str:
        return HELPERS + "\n@njit\ndef f(x, w, p, q, n):\n" + "\n".join(self.lines) + "\n"

    def emit(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    # Expressions ----------------------------------------------------------------------------------
    def atom(self) -> str:
        constant = f"{self.random.uniform(-1.5, 1.5):.2f}"
        element = f"{self.pick(*READ)}[{self.random.randrange(3)}]"
        cell = f"{self.pick('m', 'q')}[{self.random.randrange(2)}, {self.random.randrange(3)}]"
        found = [*self.names, *self.names, element, element, cell, "t[2, 1]", "p", constant]
        if self.loops:
            found += ["x[i % 4]", "y[(i + 1) % 4]", "u[-1 - i % 3]", "(0.3 * i)", "w[i - 1]"]
        return self.random.choice(found)

    def number(self, depth: int = 0) -> str:
        """Return an expression of numbers."""
        more = depth + 1
        if depth > 2 or self.random.random() < 0.3:
            return self.atom()
        kinds: list[Callable[[], str]] = [
            lambda: f"({self.number(more)} {self.pick('+', '-', '*', '*')} {self.number(more)})",
            lambda: f"({self.number(more)} {self.pick('+', '-', '*', '*')} {self.number(more)})",
            lambda: f"({self.number(more)} / (1.5 + {self.number(more)} ** 2))",
            lambda: (
                f"{self.pick('math.sin', 'math.cos', 'math.tanh', 'np.arctan', '-', 'abs')}({self.number(more)})"
            ),
            lambda: f"math.exp(math.sin({self.number(more)}))",
            lambda: f"bent({self.number(more)}, {self.number(more)})",
            lambda: f"({self.number(more)} if {self.condition(more)} else {self.number(more)})",
            lambda: (
                f"{self.pick('min', 'max', 'math.hypot', 'math.atan2')}({self.number(more)}, {self.number(more)})"
            ),
            lambda: (
                f"{self.pick('min', 'max')}({self.number(more)}, {self.number(more)}, {self.number(more)})"
            ),
            lambda: f"({self.number(more)}) ** {self.random.choice([2, 3])}",
            lambda: f"halved({self.number(more)}, 2)",
            lambda: f"math.sqrt(1.0 + ({self.number(more)}) ** 2)",
            lambda: f"np.sum({self.line(more)})",
            lambda: f"{self.pick('np.max', 'np.mean', 'np.prod')}({self.line(more)})",
            lambda: f"np.dot({self.line(more)}.copy(), {self.line(more)}.copy())",
            lambda: f"np.sum({self.pick('m', 't.T', 'q')} * {self.number(more)})",
        ]
        return self.random.choice(kinds)()

    def condition(self, depth: int) -> str:
        test = f"{self.number(depth)} {self.pick('<', '>=')} {self.number(depth)}"
        return self.pick(test, test, f"not ({test})", f"{test} and s < 2.0")

    def line(self, depth: int = 0) -> str:
        """Return an expression of arrays of length 4."""
        more = depth + 1
        name = self.pick("x", "w", "y", "z")
        if depth > 1 or self.random.random() < 0.3:
            return name
        kinds: list[Callable[[], str]] = [
            lambda: f"({self.line(more)} {self.pick('+', '-', '*')} {self.line(more)})",
            lambda: f"({self.line(more)} * {self.number(more)})",
            lambda: f"np.{self.pick('sin', 'tanh', 'arctan')}({self.line(more)})",
            lambda: f"np.where({self.line(more)} > {self.line(more)}, {self.line(more)}, {self.line(more)})",
            lambda: f"np.{self.pick('maximum', 'minimum')}({self.line(more)}, {self.line(more)})",
            lambda: f"{name}[::-1]",
            lambda: f"np.concatenate(({name}[1:], {self.pick(*READ)}[:1]))",
            lambda: f"np.tanh(np.cumsum({self.line(more)}))",
        ]
        return self.random.choice(kinds)()

    def place(self) -> str:
        return f"(i + {self.random.randrange(3)}) % 3" if self.loops else str(self.random.randrange(3))

    # Statements -----------------------------------------------------------------------------------
    def statement(self, level: int) -> None:
        kinds = [
            self.assign, self.assign, self.augment, self.augment, self.store, self.store, self.store_cell, self.store_line,
            self.call_writer, self.unpack, self.swap, self.move_slice, self.augment_line,
        ]  # fmt: skip
        if level < 2:
            kinds += [self.branch, self.branch]
            kinds += [] if self.loops else [self.loop, self.loop, self.wait, self.iterate]
        kind = self.random.choice(kinds)
        kind(level) if kind in (self.assign, self.branch, self.loop) else kind()  # type: ignore[call-arg]

    def block(self, level: int, most: int) -> None:
        self.indent += 1
        for _ in range(self.random.randint(1, most)):
            self.statement(level + 1)
        self.indent -= 1

    def assign(self, level: int) -> None:
        name = f"v{self.random.randrange(4)}"
        if level and name not in self.names:
            name = self.random.choice(self.names)
        self.emit(f"{name} = {self.number()}")
        if name not in self.names:
            self.names.append(name)

    def augment(self) -> None:
        name = self.random.choice(self.names)
        self.emit(f"{name} {self.pick('+=', '-=', '*=')} math.sin({self.number()})")

    def store(self) -> None:
        sign = self.pick("=", "=", "+=", "*=")
        self.emit(f"{self.pick(*WRITTEN)}[{self.place()}] {sign} math.tanh({self.number()})")

    def store_cell(self) -> None:
        name, places = self.random.choice([("m", (2, 3)), ("t", (3, 2))])
        cell = ", ".join(str(self.random.randrange(n)) for n in places)
        self.emit(f"{name}[{cell}] = math.sin({self.number()})")

    def store_line(self) -> None:
        rows = [
            f"{self.pick('y', 'z')}[:] = np.tanh({self.line()})",
            f"m[1] = {self.pick('x', 'w', 'z')}[1:]",
        ]
        self.emit(self.pick(*rows, "t[:, 0] = u", f"u[:] = {self.number(2)}"))

    def augment_line(self) -> None:
        self.emit(f"{self.pick('y', 'z')} {self.pick('+=', '-=')} np.sin({self.line()})")

    def call_writer(self) -> None:
        name = self.random.choice(self.names)
        array = self.pick("y", "z", "u", "inner(y)", "t[:, 1]")
        self.emit(f"{name} = math.sin(mix({array}, {'i' if self.loops else '2'}, {self.number(1)}))")

    def unpack(self) -> None:
        name = self.random.choice(self.names)
        self.emit(f"{name}, last = squares({self.pick('y', 'x', 'w', 'z[1:3]', 'u')})")
        self.emit(f"{name} = math.sin({name}) * last")

    def swap(self) -> None:
        self.emit(f"pair = ({self.number(1)}, {self.number(1)})")
        self.emit(f"{self.random.choice(self.names)} = math.sin(pair[0] * pair[1])")

    def move_slice(self) -> None:
        target, source = self.pick("0:2", "2:4"), self.pick("1:3", "0:2")
        self.emit(f"z[{target}] = y[{source}]")

    def branch(self, level: int) -> None:
        self.emit(f"if {self.condition(1)}:")
        self.block(level, 3)
        if self.random.random() < 0.5:
            self.emit("else:")
            self.block(level, 2)

    def loop(self, level: int) -> None:
        self.emit(f"for i in range({self.pick('3', '5', 'x.size', 'n')}):")
        self.loops += 1
        self.block(level, 3)
        if self.random.random() < 0.3:
            self.emit(f"    if {self.condition(2)}:")
            self.emit(f"        {self.pick('break', 'continue', 'return s * p')}")
            self.emit(f"    s += {self.number(2)}")
        self.loops -= 1

    def wait(self) -> None:
        name = self.random.choice(self.names)
        self.emit(f"{name} = abs({name}) + 0.5")
        self.emit(f"while {name} < 3.0:")
        self.emit(f"    {name} = {name} * 1.5 + ({self.number(1)}) ** 2")
        self.emit(f"{name} = math.sin({name})")

    def iterate(self) -> None:
        name = self.random.choice(self.names)
        self.emit(f"for k, e in enumerate({self.pick(*READ)}):")
        self.emit(f"    {name} = math.sin({name} + e * (k + 1) * {self.number(1)})")


# The judges -------------------------------------------------------------------------------------
def kernel_of(source: str) -> Any:
    space: dict[str, Any] = {"np": np, "math": math, "njit": numba.njit}
    exec(source.replace("NEW(", "("), space)
    return space["f"]


def plain_of(source: str, asked: tuple[int, ...]) -> Callable[..., Any]:
    """Return the program as NumPy code: what it makes of arrays is traced from the start."""
    functions = {name: getattr(np, name) for name in ("sin", "cos", "tanh", "exp", "hypot", "sqrt")}
    space: dict[str, Any] = {
        "np": np,
        "math": SimpleNamespace(**functions, atan2=np.arctan2),
        "njit": lambda function: function,
    }
    exec(source, space)

    def plain(*args: Any) -> Any:
        given = args[asked[0]]
        nothing = 0.0 * (given if np.ndim(given) == 0 else given.ravel()[0])
        space["NEW"] = lambda array: array + nothing
        return space["f"](*args)

    return plain


def slopes(kernel: Any, args: list[Any], k: int) -> np.ndarray:
    """Return differences of a kernel in an argument; NaN where those of two steps and sides disagree: at kinks."""
    x = np.asarray(args[k])
    found = np.empty(x.shape)
    for place in np.ndindex(x.shape):

        def at(step: float, place: Any = place) -> Any:
            given = copied(args)
            moved = x.copy()
            moved[place] += step
            given[k] = moved if x.ndim else float(moved)
            return kernel(*given)

        coarse, fine = ((at(h) - at(-h)) / (2 * h) for h in (1e-5, 1e-6))
        right, left = (at(1e-6) - at(0.0)) / 1e-6, (at(0.0) - at(-1e-6)) / 1e-6
        scale = 1e-3 * max(1.0, abs(fine))
        smooth = abs(coarse - fine) < scale and abs(right - left) < scale
        found[place] = fine if smooth else np.nan
    return found


def judged(seed: int) -> int:
    """Check a program; return the number of its derivatives that could be judged."""
    source = Program(seed).source
    kernel = kernel_of(source)
    rng = np.random.default_rng(seed)
    args: list[Any] = [
        rng.uniform(-1, 1, 4),
        rng.uniform(-1, 1, 4),
        float(rng.uniform(-1, 1)),
        rng.uniform(-1, 1, (2, 3)),
        3,
    ]
    asked = [(0,), (1,), (2,), (0, 2), (3,), (0, 1, 2, 3)][seed % 6]
    expected = kernel(*copied(args))
    value, gradients = nbad.value_and_grad(kernel, asked)(*copied(args))
    assert value == expected, source
    plain = nbad.grad(plain_of(source, asked), asked)(*copied(args))
    count = 0
    for k, found, other in zip(asked, gradients, plain, strict=True):
        differences = slopes(kernel, args, k)
        smooth = ~np.isnan(differences)
        count += int(smooth.sum())
        found, other = np.asarray(found)[smooth], np.asarray(other)[smooth]
        np.testing.assert_allclose(found, differences[smooth], rtol=1e-4, atol=1e-4, err_msg=source)
        np.testing.assert_allclose(found, other, rtol=1e-8, atol=1e-8, err_msg=source)
    return count


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_gradients_of_random_kernels_agree_with_differences_and_the_tape_of_arrays(seed: int) -> None:
    assert judged(seed)
