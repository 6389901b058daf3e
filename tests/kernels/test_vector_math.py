"""Which vector functions are used, and the functions that kernels call."""

from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from nbad._jit import jit
from nbad.kernels import block, vector_math

F4, F8 = np.dtype("f4"), np.dtype("f8")


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    vector_math.select_instruction_set(None)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with everything."""
    monkeypatch.setattr(vector_math, "list_instruction_sets", lambda: ("avx512", "avx2", "scalar"))
    monkeypatch.setattr(vector_math, "has_symbol", lambda name: True)


def test_scalar_is_always_there_and_the_widest_is_taken() -> None:
    names = vector_math.list_instruction_sets()
    assert names[-1] == "scalar"
    assert set(names) <= {"avx512", "avx2", "scalar"}
    assert vector_math.get_instruction_set() == names[0]


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("instruction_set", "name", "dtype", "symbol"),
    [
        ("avx512", "exp", F8, "_ZGVeN8v_exp"),
        ("avx512", "exp", F4, "_ZGVeN16v_expf"),
        ("avx512", "atan2", F8, "_ZGVeN8vv_atan2"),
        ("avx2", "log1p", F8, "_ZGVdN4v_log1p"),
        ("avx2", "pow", F4, "_ZGVdN8vv_powf"),
        ("scalar", "exp", F8, ""),
        (None, "exp", F8, "_ZGVeN8v_exp"),
    ],
)
def test_symbol(instruction_set: str | None, name: str, dtype: np.dtype, symbol: str) -> None:
    vector_math.select_instruction_set(instruction_set)
    assert vector_math.find_symbol(name, dtype) == symbol


@pytest.mark.usefixtures("wide")
def test_missing_symbol_means_the_scalar_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_math, "has_symbol", lambda name: name != "_ZGVeN8v_erf")
    assert vector_math.find_symbol("erf", F8) == ""
    assert vector_math.find_symbol("erf", F4) == "_ZGVeN16v_erff"


def test_complex_has_no_symbol() -> None:
    assert vector_math.find_symbol("exp", np.dtype("c16")) == ""


def test_symbols_found_are_in_the_process() -> None:
    vector_math.select_instruction_set(None)
    for name in vector_math.FUNCTIONS:
        for dtype in (F4, F8):
            symbol = vector_math.find_symbol(name, dtype)
            assert symbol == "" or llvm.address_of_symbol(symbol)
    assert not vector_math.has_symbol("_ZGVdN4v_no_such_function")


def test_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"unknown instruction set 'sse': use one of 'avx512', 'avx2', 'scalar'"
    ):
        vector_math.select_instruction_set("sse")


def test_instruction_set_that_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_math, "list_instruction_sets", lambda: ("scalar",))
    for name in ("avx512", "avx2"):
        with pytest.raises(ValueError, match=rf"'{name}' is not available here \(there is: scalar\)"):
            block.select_instruction_set(name)
    assert vector_math.get_instruction_set() == "scalar"


@pytest.mark.parametrize(
    ("features", "target", "expected"),
    [
        ({"avx2": True, "avx512f": True}, "+avx2,+avx512f", ("avx512", "avx2", "scalar")),
        ({"avx2": True, "avx512f": True}, "+avx2,-avx512f", ("avx2", "scalar")),
        ({"avx2": True}, "", ("scalar",)),  # NUMBA_CPU_NAME=generic
        ({}, "+avx2", ("scalar",)),
    ],
)
def test_processor_and_numba_must_both_have_the_instructions(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], target: str, expected: tuple[str, ...]
) -> None:
    class Codegen:
        def magic_tuple(self) -> tuple[str, str, str]:
            return "x86_64-unknown-linux-gnu", "some", target

    monkeypatch.setattr(vector_math, "_load_library", lambda: True)
    monkeypatch.setattr(llvm, "get_process_triple", lambda: "x86_64-unknown-linux-gnu")
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(vector_math.registry.cpu_target.target_context, "codegen", Codegen)
    assert vector_math.list_instruction_sets.__wrapped__() == expected


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_other_processors_use_scalar_functions(monkeypatch: pytest.MonkeyPatch, triple: str) -> None:
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    assert vector_math.list_instruction_sets.__wrapped__() == ("scalar",)


def test_complex_functions_are_called_only_under_a_known_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_math, "has_symbol", lambda name: True)
    for triple, known in [
        ("x86_64-unknown-linux-gnu", True),
        ("arm64-apple-darwin", True),
        ("x86_64-pc-windows-msvc", False),
        ("powerpc64le-unknown-linux-gnu", False),
    ]:
        monkeypatch.setattr(llvm, "get_process_triple", lambda triple=triple: triple)
        assert vector_math.has_complex_functions.__wrapped__() == known


def test_calls_and_constants_keep_the_precision_of_their_operand() -> None:
    @jit(cache=False)
    def third(x: Any) -> Any:
        return vector_math.number(x, "0.3333333333333333333")

    @jit(cache=False)
    def exp(x: Any) -> Any:
        return vector_math.call("exp", x)

    @jit(cache=False)
    def floor(x: Any) -> Any:
        return vector_math.call("llvm.floor", x)

    @jit(cache=False)
    def hypot(x: Any, y: Any) -> Any:
        return vector_math.call2("hypot", x, y)

    for function, want in ((third, np.divide(1, 3)), (exp, np.exp(1.5)), (floor, 1.0)):
        function(np.float32(1.5)), function(1.5)
        types = [signature.return_type.bitwidth for signature in function.nopython_signatures]
        assert types == [32, 64]
        assert function(1.5) == want
        assert function(np.float32(1.5)) == np.float32(want)
    assert hypot(3.0, 4.0) == 5


def test_complex_calls_agree_with_numpy() -> None:
    @jit(cache=False)
    def log(z: Any) -> Any:
        return vector_math.call_complex("clog", z)

    @jit(cache=False)
    def power(z: Any, w: Any) -> Any:
        return vector_math.call_complex2("cpow", z, w)

    z, w = -1.5 + 2.5j, 0.5 - 0.25j
    assert abs(log(z) - np.log(z)) < 1e-15
    assert abs(power(z, w) - np.power(z, w)) < 1e-15
    # The branch cut is closed by the sign of the zero.
    assert log(complex(-1, -0.0)).imag == -log(complex(-1, 0.0)).imag == -np.pi
