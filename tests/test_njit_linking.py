"""Functions that are compiled for a gradient first are whole for whoever calls them next."""

import ctypes
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.core import errors
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

import nbad
from nbad.scalar.linking import linked_once

X = np.array([0.7, 1.3, 0.4])


@numba.njit
def scale(n):
    if n < 0:
        raise ValueError(f"{n} is below 0")
    return math.sqrt(n + 1.0)


@numba.njit
def descended(n, x):
    return x if n <= 0 else x * math.sin(turned(n - 1, x)) * scale(n)


@numba.njit
def turned(n, x):
    return x + 1.0 if n <= 0 else descended(n - 1, x) / scale(n)


@numba.njit
def called_back(f, n):
    return f(n) + f(n + 1)


@numba.njit
def kernel(x, n):
    plain = np.sort(np.arange(5.0)[::-1])
    return descended(n, x[0]) * np.prod(plain + 1.0) + called_back(scale, n) * np.median(plain) * x[1]


@numba.njit
def later(x):
    return np.prod(np.sort(x)) * np.median(x)


def test_the_gradient_comes_before_any_call() -> None:
    """Two functions that call each other, and one that is passed on; nothing is compiled for plain numbers before."""
    gradient = nbad.grad(kernel)(X, 4)
    step = 1e-6
    moves = [kernel(X + step * e, 4) - kernel(X - step * e, 4) for e in np.eye(3)]
    np.testing.assert_allclose(gradient, np.array(moves) / (2 * step), rtol=1e-7, atol=1e-7)


def test_what_was_compiled_within_a_gradient_works_outside() -> None:
    nbad.grad(kernel)(X, 4)
    assert scale(3) == 2.0
    assert called_back(scale, 3) == 2.0 + math.sqrt(5.0)
    assert later(X) == later.py_func(X)
    assert kernel(X, 4) == pytest.approx(kernel.py_func(X, 4), rel=1e-12)


@numba.njit
def power(x, n):
    if n == 0:
        return 1.0
    if n % 2 == 0:
        return power(x * x, n // 2)
    return x * power(x, n - 1)


@numba.njit
def even(x, n):
    return x if n == 0 else odd(1.5 * x, n - 1)


@numba.njit
def odd(x, n):
    return 2 * x if n == 0 else even(x * x, n - 1)


@numba.njit
def doubling(x, n):
    return x if n == 0 else x * doubling(2.0, n - 1) + doubling(x * x, n - 1)


@numba.njit
def product(x, low, high):
    if high - low == 1:
        return x[low] * x[low]
    middle = (low + high) // 2
    return product(x, low, middle) * product(x, middle, high) + product(x, low, middle)


@numba.njit
def recursive(x, n):
    return power(x[0], 5) + power(x[1], n) + even(x[2], 3) + odd(x[0] * x[1], n) + doubling(x[1], 2)


def test_functions_call_themselves_with_active_plain_and_literal_arguments() -> None:
    found = nbad.grad(recursive)(X, 4)
    step = 1e-6
    moves = [recursive(X + step * e, 4) - recursive(X - step * e, 4) for e in np.eye(3)]
    np.testing.assert_allclose(found, np.array(moves) / (2 * step), rtol=1e-7, atol=1e-7)
    curved = nbad.hessian(recursive)(X, 4)
    steps = [nbad.grad(recursive)(X + step * e, 4) - nbad.grad(recursive)(X - step * e, 4) for e in np.eye(3)]
    np.testing.assert_allclose(curved, np.array(steps) / (2 * step), rtol=1e-6, atol=1e-6)
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert nbad.grad(product)(x, 0, 4).tolist() == [1540.0, 616.0, 510.0, 360.0]


def test_the_derivative_of_a_kernel_that_calls_itself_is_right_in_the_next_process(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        textwrap.dedent("""
        import numba, nbad
        @numba.njit(cache=True)
        def power(x, n):
            if n == 0:
                return 1.0
            if n % 2 == 0:
                return power(x * x, n // 2)
            return x * power(x, n - 1)
        print(nbad.grad(power)(2.0, 5))
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(nbad.__file__).parents[1])}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(module)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "80.0\n"


def test_an_error_of_a_function_within_a_kernel_keeps_its_message() -> None:
    with pytest.raises(ValueError, match="-3 is below 0"):
        nbad.grad(kernel)(X, -3)
    with pytest.raises(ValueError, match="-3 is below 0"):
        scale(-3)


def test_the_types_of_kernels_are_loaded_with_the_first_derivative_of_one() -> None:
    """Also where numba has compiled before."""
    program = """
        import sys, numba, numpy as np
        square = numba.njit(lambda x: np.sum(x * x) + x.sum())
        assert square(np.ones(2)) == 4.0
        import nbad
        assert "nbad.scalar.operations" not in sys.modules
        assert nbad.grad(square)(np.ones(2)).tolist() == [3.0, 3.0]
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(nbad.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)


def test_a_function_that_only_a_later_library_calls_was_left_out() -> None:
    # Calls went to address 0: where a function stands among what another one may call, but the call is optimised away.
    number = ir.FunctionType(ir.DoubleType(), [])

    def library(name: str, calls: str, libraries: list[Any]) -> Any:
        made = cpu_target.target_context.codegen().create_library(name)
        module = made.create_ir_module(name)
        builder = ir.IRBuilder(ir.Function(module, number, name).append_basic_block())
        builder.ret(builder.call(ir.Function(module, number, calls), []) if calls else ir.DoubleType()(3.0))
        made.add_ir_module(module)
        for one in libraries:
            made.add_linking_library(one)
        made.finalize()
        return made

    with global_compiler_lock:
        with linked_once():
            last = library("nbad_test_last", "", [])
            middle = library("nbad_test_middle", "nbad_test_last", [last])
            first = library("nbad_test_first", "nbad_test_middle", [last, middle])
            lost = library("_ZN14nbad_test_lostE", "_ZN17nbad_test_nowhereE", [])
        address = first.get_pointer_to_function("nbad_test_first")
        with pytest.raises(errors.LoweringError, match="nbad_test_nowhere"):
            lost.get_pointer_to_function("_ZN14nbad_test_lostE")
    assert ctypes.CFUNCTYPE(ctypes.c_double)(address)() == 3.0
    assert nbad.grad(numba.njit(lambda x: x[0] * x[1]))(X)[0] == X[1]  # the compiler goes on
