"""Fused kernels: groups of instructions give the same bits compiled and not, and are compiled when that pays."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.kernels.block import C8, DTYPES, ID, KERNELS, ensure
from nbad.kernels.threads import get_threads, set_threads
from nbad.replay import fused, planning
from nbad.replay.registers import MEMORY, NUMBER, SCRATCH, Register

NEVER = 1 << 60
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = get_threads()
    yield
    set_threads(before)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is compiled from now on."""
    found: list[str] = []
    compile_ = fused._compile

    def noting(text: str) -> Any:
        found.append(text)
        return compile_(text)

    monkeypatch.setattr(fused, "_compile", noting)
    monkeypatch.setattr(fused, "_owners", {})
    return found


# One kernel -------------------------------------------------------------------------------------------
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e30, -1e-30, 3.0, 7.5]


def executed(rows: list[list[Any]], arrays: dict[int, Any], n: int) -> None:
    """Execute instructions one by one."""
    for _, (name, code), operands, result in rows:
        read = [arrays[r].ctypes.data for r in operands]
        read += [read[0]] * (3 - len(read))
        call(ensure(ID[name], code), n, *read, arrays[result].ctypes.data)


def call(address: int, n: int, a: int, b: int, c: int, out: int) -> None:
    """Call a block kernel by address."""
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)
    assert signature(address)(n, a, b, c, out) == 1


def same_bits(a: Any, b: Any) -> None:
    """Assert that arrays are the same to the bit, where they are not nan, and nan in the same places."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    real = a.dtype if a.dtype.kind != "c" else np.dtype(f"f{a.itemsize // 2}")
    a, b = np.ascontiguousarray(a).reshape(-1).view(real), np.ascontiguousarray(b).reshape(-1).view(real)
    hole = np.isnan(a)
    np.testing.assert_array_equal(hole, np.isnan(b))
    assert a[~hole].tobytes() == b[~hole].tobytes()


@pytest.mark.parametrize("code", range(4))
@pytest.mark.parametrize("n", [1, 3, 64, 517])
def test_a_group_of_every_kernel_gives_the_bits_of_its_instructions(code: int, n: int) -> None:
    names = sorted(fused._SIMPLE if code < C8 else fused._ON_COMPLEX)
    rng = np.random.default_rng(code)
    dtype = DTYPES[code]

    def values() -> Any:
        made = rng.choice(SPECIAL, n) * rng.choice([1.0, 1.5], n)
        if dtype.kind == "c":
            made = made + 1j * rng.choice(SPECIAL[:4] + SPECIAL[7:], n)
        return made.astype(dtype)

    registers = [Register(MEMORY, code), Register(MEMORY, code), Register(NUMBER, code)]
    arrays = {0: values(), 1: values(), 2: np.full(n, 1.5, dtype)}
    rows: list[list[Any]] = []
    for name in (*names, *names):  # the second time on results
        arity = KERNELS[ID[name]].arity
        operands = [int(r) for r in rng.integers(0, len(registers), arity)]
        rows.append(["kernel", (name, code), operands, len(registers)])
        arrays[len(registers)] = np.zeros(n, dtype)
        registers.append(Register(MEMORY, code))
    with np.errstate(all="ignore"):
        executed(rows, arrays, n)
    order, groups = fused.grouped(rows, registers)
    assert order == rows
    assert list(groups) == list(range(0, len(rows), fused._LONGEST))
    for group in groups.values():
        outputs = [r for r in group.registers if r > 2 and len(arrays) > r]
        made = {r: np.full(n, 99, dtype) for r in outputs}
        head, kinds, _, last = group.text.split(":")
        reads, writes = group.registers[: len(kinds)], group.registers[len(kinds) :]
        assert (int(head), len(writes)) == (code, len(last.split()))
        cells = np.array([arrays[r].ctypes.data for r in reads] + [made[r].ctypes.data for r in writes])
        places = np.arange(len(cells), dtype=np.int64)
        call(fused.ensure_fused(group.text), n, cells.ctypes.data, places.ctypes.data, 0, 0)
        for r in writes:
            same_bits(made[r], arrays[r])


# Groups -----------------------------------------------------------------------------------------------
def kernel(name: str, operands: list[int], result: int, code: int = 1) -> list[Any]:
    return ["kernel", (name, code), operands, result]


def test_what_does_not_join_goes_before_a_group_or_behind_it() -> None:
    registers = [Register(SCRATCH, 1) for _ in range(12)]
    rows = [
        kernel("square", [0], 1),
        kernel("sum", [1], 2),
        kernel("exp", [0], 3),
        kernel("add", [1, 3], 4),
        kernel("sin", [4], 5),
        kernel("neg", [4], 6),
        kernel("mul", [5, 6], 7),
        kernel("mul", [7, 7], 8),
    ]
    order, groups = fused.grouped(rows, registers)
    assert [row[3] for row in order] == [3, 1, 4, 6, 2, 5, 7, 8]
    assert {at: group.count for at, group in groups.items()} == {1: 3, 6: 2}
    assert groups[1].text == "1:vv:square 0;add 2 1;neg 3:2 3 4"
    assert groups[1].registers == (0, 3, 1, 4, 6)


def test_a_group_has_one_dtype() -> None:
    registers = [Register(SCRATCH, 1) for _ in range(9)]
    rows = [kernel("neg", [0], 1), kernel("neg", [1], 2), kernel("neg", [3], 4, 0), kernel("neg", [4], 5, 0)]
    order, groups = fused.grouped(rows, registers)
    assert order == rows
    assert [group.text[0] for group in groups.values()] == ["1", "0"]


def test_orders_are_valid_for_random_rows() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        registers = [Register(NUMBER, 1), Register(MEMORY, 1)]
        rows = []
        for _ in range(int(rng.integers(1, 120))):
            name = str(rng.choice(["add", "mul", "sqrt", "exp", "sum", "where"]))
            operands = [int(r) for r in rng.integers(0, len(registers), KERNELS[ID[name]].arity)]
            rows.append(
                kernel(name, operands, len(registers), int(rng.integers(2)) if rng.random() < 0.1 else 1)
            )
            registers.append(Register(SCRATCH, 1))
        order, groups = fused.grouped(rows, registers)
        assert sorted(row[3] for row in order) == sorted(row[3] for row in rows)
        known = {0, 1}
        for row in order:
            assert known.issuperset(row[2])
            known.add(row[3])
        for at, group in groups.items():
            members = order[at : at + group.count]
            made = {row[3] for row in members}
            read = {r for row in members for r in row[2]} - made
            needed = {r for row in order[at + group.count :] for r in row[2]} & made
            assert set(group.registers) == read | needed
            assert all(fused._can_join(row) for row in members)


# Whole functions ------------------------------------------------------------------------------------
def variation(u: Any) -> Any:
    down, across = u[1:, :-1] - u[:-1, :-1], u[:-1, 1:] - u[:-1, :-1]
    return np.sum(np.sqrt(down**2 + across**2 + 1e-3))


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def backwards(x: Any) -> Any:
    return np.sum((x[::-1] - x) ** 2 / (1.0 + x[::-1] ** 2)) + np.sum(x[-2::-2] * x[1::2] ** 2)


def overlapping(x: Any) -> Any:
    near = x[2:] - 2.0 * x[1:-1] + x[:-2]
    return np.sum(np.where(near > 0.1, near**2, 0.2 * near)) + np.sum(np.exp(-near) / (1.0 + near**2))


def crossed(u: Any) -> Any:
    return np.sum(np.maximum(u[1:, ::-1] * u[:-1, :], 0.25) * u[:1, :]) + np.sum(
        u[:, 1:] / (2.0 + u[:, :-1] ** 2)
    )


def mixed(u: Any) -> Any:
    z = u[1:] + 1j * u[:-1]
    return np.sum(np.abs(z * z - 0.5) ** 2) + np.sum((u.astype(np.float32) * 2.0) ** 2)


FUNCTIONS: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (variation, (2, 2)), (variation, (33, 70)), (variation, (300, 201)), (rosenbrock, (2,)), (rosenbrock, (1000,)),
    (rosenbrock, (70001,)), (backwards, (500,)), (backwards, (70000,)), (overlapping, (3,)), (overlapping, (80001,)),
    (crossed, (20, 31)), (crossed, (251, 257)), (mixed, (40000,)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "shape"), FUNCTIONS)
def test_value_and_gradient_have_the_same_bits_compiled_and_not(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: Any,
    compilations: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [RNG.standard_normal(shape).astype(dtype) for _ in range(4)]
    found: list[Any] = []
    for worthwhile, threads in ((NEVER, 1), (NEVER, 2), (1, 1), (1, 2)):
        monkeypatch.setattr(planning, "WORTHWHILE", worthwhile)
        set_threads(threads)
        transformed = nbad.value_and_grad(nbad.compile(function))
        found.append([transformed(x) for x in points])
        assert bool(compilations) == (worthwhile == 1)
    for other in found[1:]:
        for (value, gradient), (expected, wanted) in zip(other, found[0], strict=True):
            same_bits(value, expected)
            same_bits(gradient, wanted)
    value, gradient = nbad.value_and_grad(function)(points[-1])
    rtol = 1e-3 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(found[-1][-1][0], value, rtol=rtol)
    np.testing.assert_allclose(found[-1][-1][1], gradient, rtol=rtol, atol=rtol * np.max(np.abs(gradient)))


# When -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1000, 60000])
def test_a_run_is_compiled_when_it_has_done_enough_work(
    size: int, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: Any) -> Any:
        return (x * x - 2.0 * x) / (1.0 + x * x)

    x = RNG.standard_normal(size)
    monkeypatch.setattr(planning, "WORTHWHILE", 25 * size)
    compiled = nbad.compile(function)
    counts = []
    for k in range(8):
        np.testing.assert_allclose(compiled(x + k), function(x + k), rtol=1e-13)
        counts.append(len(compilations))
    assert counts[1] == 0
    assert counts[-1] == 1
    assert set(counts) == {0, 1}
    again = nbad.compile(function)
    for k in range(8):
        np.testing.assert_allclose(again(x + k), function(x + k), rtol=1e-13)
    assert len(compilations) == 1  # the same text


def test_runs_that_are_executed_together_are_compiled_together(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "WORTHWHILE", 1)
    u = RNG.standard_normal((300, 300))
    transformed = nbad.value_and_grad(nbad.compile(variation))
    for _ in range(3):
        transformed(u)
    assert len(compilations) == 2


def test_threads_share_a_program_while_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_owners", {})
    monkeypatch.setattr(planning, "WORTHWHILE", 1 << 22)
    compiled = nbad.value_and_grad(nbad.compile(variation))
    points = [RNG.standard_normal((300, 200)) for _ in range(3)]
    expected = [compiled(u) for u in points]
    failures: list[Any] = []

    def work(k: int) -> None:
        for _ in range(20):
            value, gradient = compiled(points[k])
            if value != expected[k][0] or gradient.tobytes() != expected[k][1].tobytes():
                failures.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert fused._owners != {}
