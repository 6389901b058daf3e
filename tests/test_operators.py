"""Convolution as an object: equal to `convolve`, its matrix and adjoint, counts, SciPy's solvers, copies."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg as sparse

import nbad
from nbad.testing import check_grads

Shape = tuple[int, ...]
MODES = ("full", "same", "valid", "wrap")
SHAPES: list[tuple[Shape, Shape, Any]] = [
    ((20,), (5,), None),
    ((9, 8), (3, 2), None),
    ((3, 9), (1, 4), 1),
    ((1, 9), (3, 4), 1),
    ((2, 9, 5), (4, 2), (1, 2)),
    ((2, 1, 9), (3, 4), -1),
]


def numbers(shape: Shape, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(
        rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0),
        dtype,
    )


@pytest.mark.parametrize(("n", "m", "axes"), SHAPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_it_is_convolve_and_its_adjoint_is_the_conjugate_transpose(
    n: Shape, m: Shape, axes: Any, mode: str, dtype: str
) -> None:
    kernel, x = numbers(m, dtype, 1), numbers(n, dtype)
    operator = nbad.Convolution(kernel, n, mode, axes)
    expected = nbad.convolve(x, kernel.reshape((1,) * (len(n) - len(m)) + m), mode, axes)
    tolerance = 1e-5 if dtype in ("f4", "c8") else 1e-12
    found = operator(x)
    assert (found.dtype, operator.dtype) == (kernel.dtype, kernel.dtype)
    assert found.shape == operator.output_shape == operator.adjoint.input_shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 10)
    matrix = operator.matmat(np.eye(operator.shape[1]))
    transposed = operator.rmatmat(np.eye(operator.shape[0]))
    assert matrix.shape == operator.shape == operator.adjoint.shape[::-1]
    np.testing.assert_allclose(transposed, matrix.conj().T, rtol=tolerance, atol=tolerance * 10)
    np.testing.assert_allclose(operator.adjoint.adjoint(x), found)
    np.testing.assert_allclose(matrix @ x.ravel(), found.ravel(), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize(("n", "m", "axes"), SHAPES)
@pytest.mark.parametrize("dtype", ["f8", "c16"])
def test_pullbacks_to_second_order(n: Shape, m: Shape, axes: Any, dtype: str) -> None:
    operator = nbad.Convolution(numbers(m, dtype, 1), n, "same", axes)
    x, w = numbers(n, dtype), numbers(operator.output_shape, dtype, 2)
    _, pullback = nbad.vjp(lambda x: operator(x), x)
    np.testing.assert_allclose(pullback(w), operator.adjoint(w), atol=1e-12)
    _, pullback = nbad.vjp(lambda w: operator.adjoint(w), w)
    np.testing.assert_allclose(pullback(x), operator(x), atol=1e-12)
    check_grads(lambda x: np.sum(np.abs(operator(x)) ** 2), (x,), order=2)


def test_two_transforms_there_and_two_back() -> None:
    operator, x = nbad.Convolution(numbers((3, 4)), (9, 8)), numbers((9, 8))
    for _ in range(2):
        with nbad.report() as forward:
            y, pullback = nbad.vjp(lambda x: operator(x), x)
        with nbad.report() as sweep:
            pullback(y)
        with nbad.report() as adjoint:
            operator.adjoint(y)
        assert (forward.ffts, sweep.ffts, adjoint.ffts) == (2, 2, 2)  # least: there and back


def test_two_and_two_compiled() -> None:
    operator, x = nbad.Convolution(numbers((3, 4)), (9, 8), "same"), numbers((9, 8))

    @nbad.compile
    def loss(x: Any) -> Any:
        return np.sum(operator(x) ** 2)

    gradient = nbad.grad(loss)
    gradient(x)
    with nbad.report() as account:
        found = gradient(x + 1)
    assert account.ffts == 4  # least: the value there and back, its cotangent there and back
    np.testing.assert_allclose(found, 2 * operator.adjoint(operator(x + 1)), rtol=1e-12, atol=1e-12)


def test_complex_arrays_and_a_real_kernel() -> None:
    operator, z = nbad.Convolution(numbers((4,)), 9), numbers((9,), "c16")
    np.testing.assert_allclose(operator(z), operator(z.real) + 1j * operator(z.imag))
    _, pullback = nbad.vjp(lambda z: operator(z), z)
    w = numbers((12,), "c16", 1)
    np.testing.assert_allclose(np.vdot(pullback(w), z), np.vdot(w, operator(z)))


def test_a_real_array_and_a_complex_kernel() -> None:
    operator, x = nbad.Convolution(numbers((4,), "c16"), 9), numbers((9,))
    _, pullback = nbad.vjp(lambda x: operator(x), x)
    w = numbers((12,), "c16", 1)
    cotangent = pullback(w)
    assert cotangent.dtype == np.float64
    np.testing.assert_allclose(cotangent, operator.adjoint(w).real)


def test_leading_axes_are_a_batch() -> None:
    operator, x = nbad.Convolution(numbers((1, 3)), (2, 9), "same", axes=1), numbers((4, 5, 2, 9))
    found = operator(x)
    assert found.shape == (4, 5, 2, 9)
    for at in np.ndindex(4, 5):
        np.testing.assert_allclose(found[at], operator(x[at]), atol=1e-12)


def test_the_precision_is_that_of_the_kernel() -> None:
    operator = nbad.Convolution(numbers((3,), "f4"), 9)
    assert operator(numbers((9,))).dtype == np.float32
    assert nbad.grad(lambda x: np.sum(operator(x)))(numbers((9,))).dtype == np.float64
    assert nbad.Convolution([1, 2], 4).dtype == np.float64
    assert nbad.Convolution(numbers((3,)).astype(">f8"), 9).dtype.isnative


# SciPy --------------------------------------------------------------------------------------------
def test_solvers_take_it() -> None:
    axis = np.linspace(-2, 2, 5)
    operator = nbad.Convolution(np.exp(-(axis**2) * 2), 50, "same")
    x = numbers((50,))
    wrapped = sparse.aslinearoperator(operator)
    assert wrapped.shape == (50, 50)
    assert wrapped.dtype == np.float64
    found, info = sparse.cg(wrapped, operator @ x, rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(found, x, rtol=1e-6, atol=1e-8)
    tall = nbad.Convolution([1.0, 0.5, 0.25], 30)
    found = sparse.lsmr(tall, tall @ x[:30], atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(found, x[:30], rtol=1e-8, atol=1e-9)
    found = sparse.lsqr(tall, tall @ x[:30], atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(found, x[:30], rtol=1e-8, atol=1e-9)
    both = sparse.aslinearoperator(tall).H @ sparse.aslinearoperator(tall)
    np.testing.assert_allclose(both @ x[:30], tall.H(tall(x[:30])), atol=1e-12)


def test_products_with_vectors_and_matrices() -> None:
    operator, x = nbad.Convolution(numbers((2, 3)), (4, 5)), numbers((20,))
    expected = operator(x.reshape(4, 5)).ravel()
    np.testing.assert_allclose(operator @ x, expected)
    np.testing.assert_allclose(operator.matvec(x[:, None]), expected[:, None])
    np.testing.assert_allclose(operator @ np.stack([x, 2 * x], 1), np.stack([expected, 2 * expected], 1))
    w = numbers((35,), seed=1)
    np.testing.assert_allclose(np.vdot(operator.rmatvec(w), x), np.vdot(w, expected))
    np.testing.assert_allclose(nbad.grad(lambda x: np.sum((operator @ x) * w))(x), operator.rmatvec(w))
    with pytest.raises(TypeError):
        x @ operator


# Copies, errors -----------------------------------------------------------------------------------
def test_copies_give_the_same_bits() -> None:
    operator, x = nbad.Convolution(numbers((2, 3)), (4, 5), "same"), numbers((4, 5))
    for made in (pickle.loads(pickle.dumps(operator)), copy.copy(operator), copy.deepcopy(operator)):
        assert made(x).tobytes() == operator(x).tobytes()
        assert made.adjoint(x).tobytes() == operator.adjoint(x).tobytes()
    state = operator.__getstate__()
    with pytest.raises(ValueError, match="another version"):
        operator.__setstate__({**state, "version": ""})


def test_it_does_not_see_later_changes_of_the_kernel() -> None:
    kernel, x = numbers((3,)), numbers((9,))
    operator = nbad.Convolution(kernel, 9)
    before = operator(x)
    kernel[...] = 0
    np.testing.assert_array_equal(operator(x), before)


def test_it_shows_what_it_is() -> None:
    operator = nbad.Convolution(np.ones(3, np.float32), 9)
    assert repr(operator) == "<Convolution (9,) -> (11,), mode 'full', float32>"
    assert repr(operator.adjoint) == "<adjoint of Convolution (11,) -> (9,), mode 'full', float32>"


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (np.ones(3), {"shape": (4, 4)}, "give axes= or reshape"),
        (np.ones((2, 3)), {"shape": 4, "axes": 0}, "a kernel of 2 dimensions for arrays of 1"),
        (np.ones(3), {"shape": 4, "mode": "reflect"}, "mode must be"),
        (np.ones(3), {"shape": 2, "mode": "wrap"}, "the kernel is longer"),
        (np.ones((3, 1)), {"shape": (2, 4), "mode": "valid"}, "at least as long"),
        (np.ones(0), {"shape": 2}, "empty"),
        (np.ones(2), {"shape": 0}, "empty"),
        (np.ones((2, 3)), {"shape": (3, 4), "axes": 1}, "does not broadcast"),
        (np.ones((2, 3)), {"shape": (2, 4), "axes": 2}, "axis 2 does not exist"),
    ],
)
def test_what_is_refused(kernel: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Convolution: .*{message}"):
        nbad.Convolution(kernel, **options)


def test_an_array_of_another_shape_is_refused() -> None:
    operator = nbad.Convolution(np.ones(3), 4)
    with pytest.raises(ValueError, match=r"made for arrays of shape \(4,\), and this one has \(5,\)"):
        operator(np.ones(5))
    with pytest.raises(ValueError, match=r"this one has \(\)"):
        operator(np.float64(1))


def test_a_traced_kernel_is_refused() -> None:
    with pytest.raises(TypeError, match=r"use nbad\.convolve"):
        nbad.grad(lambda k: np.sum(nbad.Convolution(k, 4)(np.ones(4))))(np.ones(2))
