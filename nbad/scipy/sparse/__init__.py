"""Sparse matrices and traced values: products on either side, and matrices whose elements are traced.

Owns the rows `product` and `sampled`, whose pullbacks are each other and themselves: of ``y = A x`` the cotangent of x is
``A^H g``, and that of A is ``g x^H`` where A has elements. ``A @ x`` with a matrix of SciPy and a traced x comes here by
Python's own operators.

Examples
--------
>>> import numpy as np
>>> import scipy.sparse
>>> import nbad
>>> A = scipy.sparse.csr_array(np.array([[1.0, 2.0], [0.0, 3.0]]))
>>> nbad.grad(lambda x: np.sum(A @ x))(np.ones(2))
array([1., 5.])
"""

import importlib
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.rules.convolution import floating
from nbad.scipy import required
from nbad.scipy.passing import any_traced, refuse, rest_of, stands_for
from nbad.table import operation
from nbad.trace import apply

sparse = required("sparse")

#: All names with derivatives.
DIFFERENTIABLE = ["coo_array", "coo_matrix", "csc_array", "csc_matrix", "csr_array", "csr_matrix"]


# The rows: a matrix is its elements and where they stand, row after row --------------------------------
def native(x):
    """Return `x` in the layout and byte order that SciPy's sparse matrices need."""
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def matrix_of(data, indices, indptr, shape, adjoint=False):
    """Return the matrix of SciPy, or its adjoint."""
    found = sparse.csr_array((native(data), indices, indptr), shape=shape)
    return found.conj(copy=False).T if adjoint else found


def product_forward(data, indices, indptr, x, *, shape, adjoint):
    """Return the product of a matrix, or of its adjoint, with the columns of `x`."""
    return matrix_of(data, indices, indptr, shape, adjoint) @ native(x)


def product_data(g, indices, indptr, x, adjoint):
    return apply(SAMPLED, x, g, indices, indptr) if adjoint else apply(SAMPLED, g, x, indices, indptr)


def product_x(g, data, indices, indptr, shape, adjoint):
    return apply(PRODUCT, data, indices, indptr, g, shape=shape, adjoint=not adjoint)


def sampled_forward(u, v, indices, indptr):
    """Return the elements of ``u v^H`` where the matrix has some."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.einsum("kc,kc->k", u[rows], np.conj(v)[indices])


def sampled_u(g, v, indices, indptr, u_shape, v_shape):
    shape = (u_shape[0], v_shape[0])
    return apply(PRODUCT, g, indices, indptr, v, shape=shape, adjoint=False)


def sampled_v(g, u, indices, indptr, u_shape, v_shape):
    shape = (u_shape[0], v_shape[0])
    return apply(PRODUCT, g, indices, indptr, u, shape=shape, adjoint=True)


PRODUCT = operation(product_forward, name="scipy.sparse.product", data=product_data, x=product_x)
SAMPLED = operation(sampled_forward, name="scipy.sparse.sampled", u=sampled_u, v=sampled_v)


# Matrices -----------------------------------------------------------------------------------------
class Matrix:
    """A sparse matrix with traced elements: what `csr_array` and its kin return for them.

    Attributes
    ----------
    data, indices, indptr : ndarray or traced value
        Elements, their columns, and where each row begins.
    shape : tuple of int
        Rows and columns.
    transposed : bool
        Whether it stands for the transpose of that.
    """

    __array_ufunc__ = None  # so that NumPy's arrays leave products to us
    ndim = 2

    def __init__(self, data: Any, indices: Any, indptr: Any, shape: Any, transposed: bool = False) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.transposed = transposed
        self._shape = (int(shape[0]), int(shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._shape[::-1] if self.transposed else self._shape

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return self.data.dtype

    @property
    def T(self) -> "Matrix":
        """The transpose."""
        return Matrix(self.data, self.indices, self.indptr, self._shape, not self.transposed)

    def conj(self) -> "Matrix":
        """Return the complex conjugate."""
        return Matrix(np.conj(self.data), self.indices, self.indptr, self._shape, self.transposed)

    def tocsr(self) -> "Matrix":
        """Return the matrix itself."""
        return self

    def toarray(self) -> Any:
        """Return an ndarray or traced value of the same elements."""
        return self @ np.eye(self.shape[1], dtype=self.dtype)

    def dot(self, x: Any) -> Any:
        """Return the product with a vector or matrix."""
        return self @ x

    def __matmul__(self, x: Any) -> Any:
        """Return the product with a vector or matrix."""
        x = floating(x)
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(f"matmul: a matrix of shape {self.shape} times an array of shape {x.shape}")
        y = np.reshape(x, (x.shape[0], -1)) if x.ndim == 1 else x
        conj = self.transposed and (self.dtype.kind == "c" or y.dtype.kind == "c")
        y = apply(
            PRODUCT, self.data, self.indices, self.indptr, np.conj(y) if conj else y,
            shape=self._shape, adjoint=self.transposed,
        )  # fmt: skip
        y = np.conj(y) if conj else y
        return y[:, 0] if x.ndim == 1 else y

    def __rmatmul__(self, x: Any) -> Any:
        """Return the product of a vector or matrix with this one."""
        return product(x, self)


def matrix(a: Any) -> Matrix:
    """Return a sparse matrix of SciPy's as one of ours."""
    if isinstance(a, Matrix):
        return a
    if a.ndim != 2:
        raise NoRuleError.of(
            f"a sparse array of {a.ndim} dimensions", at=user_line(), instead="Use two dimensions."
        )
    a = a.tocsr()
    return Matrix(floating(a.data), a.indices, a.indptr, a.shape)


def product(a: Any, b: Any) -> Any:
    """Return ``a @ b``, one of them a sparse matrix."""
    if hasattr(a, "tocsr"):
        return matrix(a) @ b
    a = operand(a)
    return matrix(b).T @ a if a.ndim == 1 else (matrix(b).T @ a.T).T


def _made(name: str, arg: Any, shape: Any, dtype: Any, transposed: bool) -> Matrix:
    """Return the matrix of traced elements that ``((data, (i, j)))`` or ``(data, indices, indptr)`` say."""
    refuse(f"sparse.{name}", dtype=dtype)
    if not isinstance(arg, tuple) or len(arg) not in (2, 3) or any_traced(arg[1:]):
        raise NoRuleError.of(
            f"scipy.sparse.{name} of a traced matrix",
            at=user_line(),
            instead="Give the elements and their places: (data, indices, indptr) or (data, (rows, columns)).",
        )
    data = floating(arg[0])
    if len(arg) == 3:
        indices, indptr = np.asarray(arg[1]), np.asarray(arg[2])
        if shape is None:
            inner = int(indices.max(initial=-1)) + 1
            shape = (inner, len(indptr) - 1) if transposed else (len(indptr) - 1, inner)
        given = sparse.csr_array((np.ones(data.shape), indices, indptr), shape[::-1] if transposed else shape)
        return Matrix(data, given.indices, given.indptr, given.shape, transposed)
    rows, cols = (np.asarray(x) for x in arg[1])
    if shape is None:
        shape = (int(rows.max(initial=-1)) + 1, int(cols.max(initial=-1)) + 1)
    sparse.coo_array((np.ones(data.shape), (rows, cols)), shape=shape)  # checks the places
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return Matrix(data[order], cols[order], indptr, shape)


@stands_for(sparse)
def csr_array(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return a matrix of traced elements, from ``(data, indices, indptr)`` or ``(data, (rows, columns))``."""
    return _made("csr_array", arg1, shape, dtype, False)


@stands_for(sparse)
def csc_array(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return a matrix of traced elements, from ``(data, indices, indptr)`` by columns or ``(data, (rows, columns))``."""
    return _made("csc_array", arg1, shape, dtype, len(arg1) == 3)


@stands_for(sparse)
def coo_array(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return a matrix of traced elements, from ``(data, (rows, columns))``; elements of one place are summed."""
    return _made("coo_array", arg1, shape, dtype, False)


@stands_for(sparse)
def csr_matrix(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return what `csr_array` does."""
    return _made("csr_matrix", arg1, shape, dtype, False)


@stands_for(sparse)
def csc_matrix(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return what `csc_array` does."""
    return _made("csc_matrix", arg1, shape, dtype, len(arg1) == 3)


@stands_for(sparse)
def coo_matrix(arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> Matrix:
    """Return what `coo_array` does."""
    return _made("coo_matrix", arg1, shape, dtype, False)


def __getattr__(name: str) -> Any:
    """Return `linalg`, or what else SciPy has, for plain arrays."""
    if name == "linalg":
        return importlib.import_module(f"{__name__}.linalg")
    return rest_of(sparse, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted([*sparse.__all__, "linalg"])
