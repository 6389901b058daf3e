"""``scipy.sparse.linalg`` on traced values: sparse equations.

Owns the row `spsolve`; the cotangent of the matrix is that of its elements, where it has some.

Examples
--------
>>> import numpy as np
>>> import nbad
>>> from nbad.scipy import sparse
>>> def total(diagonal, b):
...     A = sparse.csr_array((diagonal, [0, 1], [0, 1, 2]), shape=(2, 2))
...     return np.sum(sparse.linalg.spsolve(A, b))
>>> nbad.grad(total)(np.array([2.0, 4.0]), np.ones(2))
array([-0.25  , -0.0625])
"""

from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.convolution import floating
from nbad.scipy import required
from nbad.scipy.passing import any_traced, listed, rest_of
from nbad.scipy.sparse import SAMPLED, Matrix, matrix, matrix_of, native
from nbad.table import operation
from nbad.trace import apply

sparse_linalg = required("sparse.linalg")

#: All names with derivatives.
DIFFERENTIABLE = ["spsolve"]


def spsolve_forward(data, indices, indptr, b, *, adjoint):
    """Return the solutions of the equations with a matrix, or its adjoint, for the columns of `b`."""
    n = b.shape[0]
    a = matrix_of(data, indices, indptr, (n, n), adjoint).tocsc(copy=True)  # spsolve sorts it in place
    dtype = np.result_type(data, b)
    return sparse_linalg.spsolve(a, native(b)).reshape(b.shape).astype(dtype, copy=False)


def spsolve_cotangent(g, data, indices, indptr, adjoint):
    """Return the cotangent of the right side: the solution with the adjoint matrix."""
    return apply(SPSOLVE, data, indices, indptr, g, adjoint=not adjoint)


def spsolve_data(cotangent, y, indices, indptr, adjoint):
    if adjoint:
        return -apply(SAMPLED, y, cotangent, indices, indptr)
    return -apply(SAMPLED, cotangent, y, indices, indptr)


def spsolve_b(cotangent):
    return cotangent


SPSOLVE = operation(
    spsolve_forward, name="scipy.sparse.spsolve", shared={"cotangent": spsolve_cotangent},
    data=spsolve_data, b=spsolve_b,
)  # fmt: skip


@listed(sparse_linalg)
def spsolve(A: Any, b: Any, permc_spec: str | None = None, use_umfpack: bool = True) -> Any:
    """Solve sparse equations; derivatives in the elements of `A` and in a dense `b`.

    Parameters
    ----------
    A : sparse matrix, shape (n, n)
        SciPy's, or one of traced elements.
    b : array_like, shape (n,) or (n, k)
        Right side; SciPy's sparse ones only where nothing is traced.
    permc_spec, use_umfpack
        As in SciPy, for plain arrays.

    Returns
    -------
    ndarray or traced value, shape of `b`
        The solution.
    """
    if not isinstance(A, Matrix) and not any_traced(b):
        return sparse_linalg.spsolve(A, b, permc_spec, use_umfpack)
    if hasattr(b, "tocsr"):
        raise NoRuleError.of(
            "scipy.sparse.linalg.spsolve with a sparse b", at=user_line(), instead="Use b.toarray()."
        )
    if not hasattr(A, "tocsr"):
        raise TypeError("spsolve: A must be a sparse matrix")
    a, b = matrix(A), floating(b)
    if a.shape[0] != a.shape[1] or b.ndim not in (1, 2) or b.shape[0] != a.shape[0]:
        raise ValueError(f"spsolve: a matrix of shape {a.shape} and a right side of shape {b.shape}")
    data = np.conj(a.data) if a.transposed and a.dtype.kind == "c" else a.data
    x = apply(SPSOLVE, data, a.indices, a.indptr, np.reshape(b, (b.shape[0], -1)), adjoint=a.transposed)
    return np.reshape(x, b.shape)


def __getattr__(name: str) -> Any:
    """Return what else SciPy has, for plain arrays."""
    return rest_of(sparse_linalg, name)


def __dir__() -> list[str]:
    """List SciPy's names."""
    return sorted(sparse_linalg.__all__)
