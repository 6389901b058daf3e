"""Every block kernel against NumPy, called by address, and the promises of the calling convention."""

import itertools
import math
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nbad._jit import cfunc, jit
from nbad.kernels import block, vector_math

ROOT = pathlib.Path(block.__file__).parents[2]
SIZES = (0, 1, 3, 4, 5, 8, 9, 512)
CASES = [
    pytest.param(kernel, code, id=f"{kernel.name}-{block.DTYPES[code]}")
    for kernel in block.KERNELS
    for code in kernel.dtypes
]
MAPS = [case for case in CASES if case.values[0].scalar is not None]
VECTORS = [case for case in CASES if case.values[0].vector is not None and case.values[1] in block.REAL]

REFERENCE: dict[str, Callable[..., Any]] = {
    "copy": np.positive,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "recip": np.reciprocal,
    "conj": np.conjugate,
    "muladd": lambda a, b, c: c + a * b,
    "nmuladd": lambda a, b, c: c - a * b,
    "pow": np.power,
    "mod": np.remainder,
    "erf": lambda a: np.array([math.erf(x) for x in a]),
    "erfc": lambda a: np.array([math.erfc(x) for x in a]),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "where": lambda a, b, c: np.where(a != 0, b, c),
}
# Computed by libm, libmvec or a formula; everything else must equal NumPy's result.
ROUNDED = {kernel.name for kernel in block.KERNELS if kernel.vector} | {"logaddexp", "logaddexp2"}
# NumPy's choice between 0.0 and -0.0 depends on the position of the element.
EITHER_ZERO = {"maximum", "minimum", "fmax", "fmin"}
# NumPy computes these with fused operations where the processor has them, or scales another way.
ROUNDED_COMPLEX = ROUNDED | {"mul", "div", "recip", "square", "sqrt", "muladd", "nmuladd"}


@jit
def run(address: int, n: int, a: int, b: int, c: int, out: int) -> int:
    return block.call_kernel(address, n, a, b, c, out)


def call(kernel: block.Kernel, code: int, operands: list[np.ndarray], out: np.ndarray, n: int) -> None:
    addresses = [operand.ctypes.data for operand in operands] + [0] * (3 - len(operands))
    assert run(block.ensure(block.ID[kernel.name], code), n, *addresses, out.ctypes.data) == 1


def bits(values: np.ndarray) -> bytes:
    """The bits of the numbers; the sign and payload of a nan are nobody's business."""
    parts = values.view(values.real.dtype)
    return np.where(np.isnan(parts), np.nan, parts).tobytes()


def apply(kernel: block.Kernel, code: int, operands: list[np.ndarray]) -> np.ndarray:
    out = np.empty_like(operands[0])
    call(kernel, code, operands, out, out.size)
    return out


def real_values(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Special values, and ordinary ones."""
    info = np.finfo(dtype)
    limits = [info.max, info.tiny, info.smallest_subnormal, np.inf]
    ordinary = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 1e-10, 88.5, 100.0, 104.0, 709.5, 740.0, 746.0, 1e5]
    special = np.array([s * x for x in limits + ordinary for s in (1, -1)] + [np.nan])
    rng = np.random.default_rng(1)
    size = np.exp(rng.uniform(-4, 4, 700))
    return special.astype(dtype), np.concatenate([rng.standard_normal(700) * size, rng.random(300)]).astype(
        dtype
    )


def complex_values(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Special values and points of the branch cuts, and ordinary ones."""
    parts = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, np.inf, -np.inf, np.nan]
    special = np.array([complex(x, y) for x in parts for y in parts])
    rng = np.random.default_rng(2)
    size = np.exp(rng.uniform(-3, 3, 1000))
    ordinary = (rng.standard_normal(1000) + 1j * rng.standard_normal(1000)) * size
    return special.astype(dtype), ordinary.astype(dtype)


def make_operands(kernel: block.Kernel, code: int) -> list[np.ndarray]:
    dtype = block.DTYPES[code]
    special, ordinary = (real_values if code in block.REAL else complex_values)(dtype)
    rng = np.random.default_rng(3)
    if kernel.arity == 1:
        mixed = [special]
    elif kernel.arity == 2 and code in block.REAL:
        mixed = [np.array(column) for column in zip(*itertools.product(special, special), strict=True)]
    else:
        mixed = [rng.choice(special, 3000) for _ in range(kernel.arity)]
    return [np.concatenate([part, rng.permutation(ordinary)]).astype(dtype) for part in mixed]


def count_ulps(got: np.ndarray, want: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of `size`; 0 for equal numbers and for two nans."""
    unit = np.spacing(np.maximum(size, np.finfo(got.dtype).tiny).astype(got.dtype))
    distance = np.abs(got.astype(np.longdouble) - want) / unit
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))


def assert_equal(got: np.ndarray, want: np.ndarray, zeros: bool = True) -> None:
    """Equal numbers, nans in the same places, zeros of the same sign."""
    np.testing.assert_array_equal(got, want)
    if zeros:
        for g, w in ((got.real, want.real), (got.imag, want.imag)):
            both = (g == 0) & (w == 0)
            np.testing.assert_array_equal(np.signbit(g[both]), np.signbit(w[both]))


def check_real(kernel: block.Kernel, code: int) -> None:
    dtype = block.DTYPES[code]
    operands = make_operands(kernel, code)
    got = apply(kernel, code, operands)
    reference = REFERENCE.get(kernel.name) or getattr(np, kernel.name)
    with np.errstate(all="ignore"):
        if kernel.name in ROUNDED:
            want = np.asarray(reference(*[x.astype(np.longdouble) for x in operands])).astype(dtype)
            size = np.abs(want)
            if kernel.name in ("logaddexp", "logaddexp2"):  # a + log1p(...) may cancel
                size = np.fmax(np.abs(operands[0]), size)
            assert count_ulps(got, want, size).max() <= 4
        else:
            assert_equal(got, np.asarray(reference(*operands)).astype(dtype), kernel.name not in EITHER_ZERO)


def check_complex(kernel: block.Kernel, code: int) -> None:
    dtype = block.DTYPES[code]
    operands = make_operands(kernel, code)
    got = apply(kernel, code, operands)
    reference = REFERENCE.get(kernel.name) or getattr(np, kernel.name)
    with np.errstate(all="ignore"):
        if kernel.name not in ROUNDED_COMPLEX:
            assert_equal(got, np.asarray(reference(*operands)).astype(dtype), kernel.name not in EITHER_ZERO)
            return
        want = reference(*operands)
        exact = reference(*[x.astype(np.clongdouble) for x in operands])
        finite = np.isfinite(want) & np.isfinite(got)
        # The error of a complex result is measured against its absolute value, or that of what was added.
        size = np.abs(exact)
        if kernel.name in ("muladd", "nmuladd"):
            size = np.abs(operands[2]) + np.abs(operands[0]) * np.abs(operands[1])
        elif kernel.name in ("exp2", "pow"):  # the rounding of a log 2, or b log a, is multiplied by its size
            power = operands[0] if kernel.name == "exp2" else operands[1] * np.log(operands[0])
            size = size * np.where(np.isfinite(power), np.maximum(1, np.abs(power)), 1)
        unit = np.spacing(np.clip(size, np.finfo(dtype).tiny, np.finfo(dtype).max).astype(got.real.dtype))
        assert (np.abs(got.astype(np.clongdouble) - exact) / unit)[finite].max() <= 4
        assert finite.sum() >= 1000
        special = ~finite
        if kernel.name == "arccosh":  # the imaginary part is pi / 2 in C99, nan in C17
            special &= ~((operands[0].real == 0) & np.isnan(operands[0].imag))
        # Beside a nan the sign of an infinity is left open by C99, and NumPy's releases differ.
        signed = ~np.isnan(want)
        for g, w in ((got.real, want.real), (got.imag, want.imag)):
            g, w = np.where(signed, g, np.abs(g))[special], np.where(signed, w, np.abs(w))[special]
            np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
            np.testing.assert_allclose(g, w, rtol=1e-5 if code == block.C8 else 1e-13, atol=0)


@pytest.mark.parametrize(("kernel", "code"), MAPS)
def test_equals_numpy(kernel: block.Kernel, code: int) -> None:
    (check_real if code in block.REAL else check_complex)(kernel, code)


@pytest.fixture
def scalar() -> Iterator[None]:
    block.select_instruction_set("scalar")
    yield
    block.select_instruction_set(None)


@pytest.mark.usefixtures("scalar")
@pytest.mark.parametrize(("kernel", "code"), VECTORS)
def test_equals_numpy_without_vector_functions(kernel: block.Kernel, code: int) -> None:
    check_real(kernel, code)


@pytest.mark.parametrize(("kernel", "code"), MAPS)
def test_element_does_not_depend_on_position_and_out_may_be_an_operand(
    kernel: block.Kernel, code: int
) -> None:
    rng = np.random.default_rng(4)
    operands = [rng.permutation(operand)[:600].copy() for operand in make_operands(kernel, code)]
    whole = apply(kernel, code, operands)
    for n, start in itertools.product(SIZES, (0, 1, 6)):
        parts = [operand[start : start + n].copy() for operand in operands]
        out = np.full(n + 3, 7, whole.dtype)
        call(kernel, code, parts, out, n)
        assert bits(out[:n]) == bits(whole[start : start + n])
        assert (out[n:] == 7).all()
        for k, part in enumerate(parts):
            kept = part.copy()
            call(kernel, code, parts, part, n)
            assert bits(part) == bits(whole[start : start + n])
            parts[k] = kept


@pytest.mark.parametrize("code", block.ALL)
def test_sum_adds_eight_partial_sums_in_pairs(code: int) -> None:
    kernel = block.KERNELS[block.ID["sum"]]
    rng = np.random.default_rng(5)
    for n in SIZES:
        values = rng.standard_normal(n)
        values = values + 1j * rng.standard_normal(n) if code in (block.C8, block.C16) else values
        values = values.astype(block.DTYPES[code])
        terms = [np.zeros((), values.dtype) for _ in range(8)]
        for i, value in enumerate(values):
            terms[i % 8] = terms[i % 8] + value
        while len(terms) > 1:
            terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
        out = np.full(1, 9, values.dtype)
        call(kernel, code, [values], out, n)
        assert out[0] == terms[0]


@pytest.mark.parametrize("code", block.REAL)
def test_sum_of_nothing_is_zero_and_of_negative_zeros_negative(code: int) -> None:
    kernel = block.KERNELS[block.ID["sum"]]
    zeros = np.full(11, -0.0, block.DTYPES[code])
    assert not np.signbit(sum_of(kernel, code, zeros[:0]))
    assert np.signbit(sum_of(kernel, code, zeros))


def sum_of(kernel: block.Kernel, code: int, values: np.ndarray) -> Any:
    out = np.ones(1, values.dtype)
    call(kernel, code, [values], out, values.size)
    assert out[0] == 0
    return out[0]


def test_multiplication_and_addition_are_not_fused() -> None:
    a = np.full(8, 1 + 2.0**-30)
    c = np.full(8, -(1 + 2.0**-29))
    muladd = block.KERNELS[block.ID["muladd"]]
    assert (apply(muladd, block.F8, [a, a, c]) == 0).all()  # fused, it would be 2**-60


@pytest.mark.slow
@pytest.mark.usefixtures("scalar")
def test_float32_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    # Code from the disk cache has no readable form, so the kernels are compiled anew.
    monkeypatch.setattr(block, "cfunc", lambda signature: cfunc(signature, cache=False))
    for kernel in block.KERNELS:
        text = block._compile(kernel, block.F4, "").inspect_llvm()
        assert "float" in text, kernel.name
        assert "fpext" not in text, kernel.name
        assert "double" not in text, kernel.name


def test_names_are_unique_and_give_positions() -> None:
    assert len(block.ID) == len(block.KERNELS)
    assert all(block.KERNELS[index].name == name for name, index in block.ID.items())
    assert block.ADDRESS.shape == (len(block.KERNELS), 4)
    assert block.ADDRESS.dtype == np.uintp


def test_unsupported_dtype_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'arctan2' does not exist for complex64"):
        block.ensure(block.ID["arctan2"], block.C8)


def test_instruction_set_is_part_of_the_choice(scalar: None) -> None:
    row, code = block.ID["exp"], block.F8
    assert block.ADDRESS[row, code] == 0
    plain = block.ensure(row, code)
    assert block.ADDRESS[row, code] == plain
    block.select_instruction_set(None)
    assert block.ADDRESS[row, code] == 0
    assert (block.ensure(row, code) == plain) == (vector_math.get_instruction_set() == "scalar")


def test_threads_get_one_kernel() -> None:
    found: list[int] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        found.append(block.ensure(block.ID["logaddexp2"], block.F8))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


# Makes kernels of all kinds in a given order and prints for each its result, and 1 if it was on the disk.
SCRIPT = """
import sys
import numpy as np
from nbad._jit import jit
from nbad.kernels import block
@jit
def run(address, n, a, b, c, out):
    return block.call_kernel(address, n, a, b, c, out)
names = "add sub mul div exp log sin square sum where lt".split()
operands = [np.linspace(0.5, 2.5, 13), np.linspace(3, 1, 13), np.linspace(-1, 1, 13)]
lines = []
for name in names if sys.argv[1] == "up" else names[::-1]:
    for code in (block.F8, block.C16):
        data = [x.astype(block.DTYPES[code]) for x in operands]
        out = np.zeros_like(data[0])
        address = block.ensure(block.ID[name], code)
        assert run(address, 13, *[x.ctypes.data for x in data], out.ctypes.data) == 1
        hits = next(v.cache_hits for k, v in block._owners.items() if k[:2] == (block.ID[name], code))
        lines.append(f"{name} {code} {out.tobytes().hex()} {hits}")
print("\\n".join(sorted(lines)))
"""


def start_process(order: str, cache: pathlib.Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, order], env=environment, stdout=subprocess.PIPE, text=True, cwd=cache
    )


def read_lines(*processes: subprocess.Popen[str]) -> list[list[list[str]]]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [[line.split() for line in output.splitlines()] for output in outputs]


@pytest.mark.slow
def test_two_processes_on_a_cold_cache_leave_right_kernels_and_a_warm_start_compiles_none(
    tmp_path: pathlib.Path,
) -> None:
    # What the library compiles when it is imported takes half a minute, and is not what is tested here.
    shutil.copytree(
        os.environ["NUMBA_CACHE_DIR"],
        tmp_path,
        ignore=shutil.ignore_patterns("block.*", "*.tmp.*"),
        dirs_exist_ok=True,
    )
    cold = read_lines(start_process("up", tmp_path), start_process("down", tmp_path))
    assert {line[3] for lines in cold for line in lines} >= {"0"}
    [warm] = read_lines(start_process("up", tmp_path))
    results = [[line[:3] for line in lines] for lines in (*cold, warm)]
    assert results[0] == results[1] == results[2]
    assert all(line[3] == "1" for line in warm)
    assert len(warm) == 22
