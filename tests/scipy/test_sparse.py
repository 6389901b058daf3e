"""Sparse matrices and traced values."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from compiled_cases import compiled_laws
from laws import Case, Uniform, laws

import nbad
from nbad.errors import DetachError, NoRuleError
from nbad.scipy import sparse

DENSE = np.array([[2.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 0.5], [0.0, 0.5, 2.5, 0.0], [1.0, 0.0, 0.0, 2.0]])
WIDE = DENSE[:3]
CSR = scipy.sparse.csr_array(DENSE)
CSC = scipy.sparse.csc_array(WIDE)
COO = scipy.sparse.coo_array(DENSE)
FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
V, M = ((4,), -1.0, 1.0), ((4, 2), -1.0, 1.0)
DATA = ((8,), 0.5, 1.0)


def elements(rng, dtype):
    """Draw elements for the places of `DENSE`, near those of it."""
    return (CSR.data + Uniform((8,), -0.2, 0.2)(rng, dtype)).astype(dtype)


def csr(data):
    return sparse.csr_array((data, CSR.indices, CSR.indptr), shape=(4, 4))


def csc(data):
    return sparse.csc_array((data, CSC.indices, CSC.indptr), shape=(3, 4))


def coo(data):
    return sparse.coo_array((data, (COO.row[::-1], COO.col[::-1])), shape=(4, 4))


def shuffled(data):
    return sparse.coo_array((data, (np.array([0, 1, 2, 1]), np.array([0, 1, 2, 0]))), shape=(3, 3))


def with_types(function):
    """Return a function of a matrix (SciPy's, in the dtype of x) and x."""

    def run(x):
        real = np.zeros(0, x.dtype).real.dtype.newbyteorder("=")
        return function(CSR.astype(real), x)

    return run


def solved(a, b):
    """Return what `spsolve` does, in the dtype of `b`: SciPy's own answer may be wider."""
    return sparse.linalg.spsolve(a, b).astype(b.dtype)


OTHER_WAY = {
    "masked": "where the elements are not traced, the matrix is SciPy's, and its product has other nodes"
}
CASES = [
    Case("A @ x", with_types(lambda a, x: a @ x), [V], complex_ok=True),
    Case("A @ X", with_types(lambda a, x: a @ x), [M], complex_ok=True),
    Case("A.T @ x", with_types(lambda a, x: a.T @ x), [V], complex_ok=True),
    Case("x @ A", with_types(lambda a, x: x @ a), [V], complex_ok=True, exact=False),
    Case("X @ A", with_types(lambda a, x: x.T @ a), [M], complex_ok=True, exact=False),
    Case("complex A @ x", lambda x: (CSR * (1 + 2j)) @ x, [V], dtypes=("c16",)),
    Case("csr_array", lambda d, x: csr(d) @ x, [elements, V], complex_ok=True, exact=False),
    Case("csr_array, right", lambda d, x: x @ csr(d), [elements, V], complex_ok=True, exact=False),
    Case("csr_array, toarray", lambda d: csr(d).conj().toarray(), [elements], complex_ok=True, exact=False),
    Case("csc_array", lambda d, x: csc(d) @ x, [((6,), -1.0, 1.0), M], exact=False),
    Case("csc_array, complex", lambda d, x: csc(d) @ x, [((6,), -1.0, 1.0), M], dtypes=("c16",), exact=False, off=OTHER_WAY),
    Case(
        "csc_array, dense on the left", lambda d: WIDE.T @ csc(d), [((6,), -1.0, 1.0)], dtypes=("f8", "c16"), exact=False
    ),
    Case("coo_array", lambda d, x: coo(d).T @ x, [elements, V], exact=False),
    Case("coo_array, complex", lambda d, x: coo(d).T @ x, [elements, V], dtypes=("c16",), exact=False, off=OTHER_WAY),
    Case(
        "coo_array, twice in one place",
        lambda d, x: sparse.coo_array((d, (np.array([1, 0, 1]), np.array([0, 1, 0])))) @ x,
        [((3,), -1.0, 1.0), ((2,), -1.0, 1.0)], exact=False,
    ),
    *(
        Case(
            name, lambda d, x, f=name: getattr(sparse, f)((d, (COO.row, COO.col)), shape=(4, 4)) @ x, [elements, V], exact=False
        )
        for name in ("csr_matrix", "csc_matrix", "coo_matrix")
    ),
    Case("spsolve", lambda b: solved(scipy.sparse.csc_array(DENSE), b), [M], complex_ok=True, exact=False),
    Case(
        "spsolve, elements", lambda d, b: sparse.linalg.spsolve(csr(d), b), [elements, V], dtypes=("f8", "c16"), exact=False
    ),
    Case(
        "spsolve, transposed", lambda d, b: sparse.linalg.spsolve(csr(d).T, b), [elements, M], dtypes=("f8", "c16"), exact=False
    ),
    Case(
        "spsolve, places in no order", lambda d, b: sparse.linalg.spsolve(shuffled(d).tocsr(), b),
        [((4,), 1.0, 2.0), ((3,), -1.0, 1.0)],
        dtypes=("f8", "c16"), exact=False,
    ),
]  # fmt: skip
TestLaws = laws(CASES)
test_compiled = compiled_laws(CASES)


def test_every_function_has_a_case():
    assert set(sparse.DIFFERENTIABLE) | set(sparse.linalg.DIFFERENTIABLE) <= {
        c.name.partition(",")[0] for c in CASES
    }


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
def test_every_format_multiplies_from_both_sides(kind, container):
    a = container(WIDE).asformat(kind)
    left, right = np.arange(4.0), np.arange(3.0)
    for transform in (nbad.grad, lambda f: nbad.grad(nbad.compile(f))):
        np.testing.assert_allclose(transform(lambda x: np.sum((a @ x) ** 2))(left), 2 * WIDE.T @ WIDE @ left)
        np.testing.assert_allclose(
            transform(lambda x: np.sum((x @ a) ** 2))(right), 2 * WIDE @ WIDE.T @ right
        )


def test_a_compiled_function_sees_that_the_elements_of_a_sparse_matrix_changed():
    a = scipy.sparse.csr_array(DENSE)
    b = scipy.sparse.coo_array(DENSE)
    f = nbad.compile(lambda x: np.sum(a @ x) + np.sum(b.multiply(2.0).toarray()))
    x = np.ones(4)
    for _ in range(2):
        assert f(x) == DENSE.sum() * 3
    a.data *= 2
    assert f(x) == DENSE.sum() * 4
    np.testing.assert_array_equal(nbad.grad(f)(x), 2 * DENSE.sum(axis=0))
    b.data *= 2
    assert f(x) == DENSE.sum() * 6


def test_the_elements_of_a_constant_matrix_cost_nothing():
    for asked, others in (("x", "data"), ("d", "x")):
        with nbad.report() as account:
            nbad.grad(lambda d, x: np.sum((csr(d) @ x) ** 2), wrt=asked)(CSR.data, np.ones(4))
        assert account.rules_run["scipy.sparse.product", others] == 0
        assert account.rules_run["scipy.sparse.product", "data" if asked == "d" else "x"] == 1


@pytest.mark.parametrize("wrap", [lambda f: f, nbad.compile])
def test_products_element_by_element_do_not_detach(wrap):
    with pytest.raises((DetachError, NoRuleError)):
        nbad.grad(wrap(lambda x: np.sum((CSR * x).toarray())))(DENSE)


def test_solving_does_not_sort_the_places_of_a_matrix():
    indices, b = np.array([1, 0, 1]), np.ones(2)
    a = scipy.sparse.csr_array((np.array([1.0, 2.0, 4.0]), indices, [0, 2, 3]))
    nbad.grad(lambda b: np.sum(sparse.linalg.spsolve(a, b) ** 2))(b)
    assert a.indices.tolist() == [1, 0, 1] and a.data.tolist() == [1.0, 2.0, 4.0]


def test_bad_shapes_are_refused():
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"\(4, 4\) times an array of shape \(3,\)"):
        nbad.grad(lambda x: np.sum(CSR @ x))(x)
    with pytest.raises(ValueError, match="spsolve"):
        nbad.grad(lambda x: np.sum(sparse.linalg.spsolve(CSR, x)))(x)
    with pytest.raises(NoRuleError, match="elements and their places"):
        nbad.grad(lambda x: np.sum(sparse.csr_array(x) @ np.ones(4)))(DENSE)
    with pytest.raises(NoRuleError, match="expm_multiply"):
        nbad.grad(lambda x: np.sum(sparse.linalg.expm_multiply(CSR, x)))(np.ones(4))


def test_plain_arguments_make_what_scipy_makes():
    assert type(sparse.csr_array((np.ones(8), CSR.indices, CSR.indptr))) is scipy.sparse.csr_array
    assert sparse.issparse(CSR) and isinstance(CSR, sparse.sparray)
    np.testing.assert_array_equal(
        sparse.linalg.spsolve(CSR, np.ones(4)), scipy.sparse.linalg.spsolve(CSR, np.ones(4))
    )
