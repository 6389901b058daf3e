"""The derivative of a function at a point as a linear map that is used many times.

Owns `linearize` and its two faces: containers in and out, and plain vectors for SciPy's solvers.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad import tree
from nbad.directional import checked_direction
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.packing import ravel
from nbad.recorded import Recorded, Replayed, record
from nbad.transforms import EVERYTHING, checked_seed, like, packed, watch_given

__all__ = ["Linearization", "linearize"]


class Linearization:
    """The derivative of a function at a point, made by `linearize`.

    As a matrix it acts on vectors of float64 as `nbad.ravel` packs them, complex numbers as pairs: it has what SciPy asks of a
    linear operator, so ``scipy.sparse.linalg.lsmr(J, b)`` and the like take it as it is.

    Attributes
    ----------
    shape : tuple of int
        (length of the packed output, length of the packed input).
    dtype : dtype
        float64.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, run: Recorded | Replayed) -> None:
        self._run = run
        self._structure = tree.structure(run.value)
        parts = [tree.select(run.asked.value(entry.argument), entry.path) for entry in run.asked.entries]
        self._parts = tuple(parts) if run.asked.several else parts[0]

    def __repr__(self) -> str:
        return f"<Linearization of shape {self.shape}>"

    def jvp(self, *tangents: Any) -> Any:
        """Return the derivative in a direction.

        Parameters
        ----------
        *tangents : array, number or container
            One for each primal that the function was linearized in, of its structure, shapes and dtypes.

        Returns
        -------
        array or container
            Of the structure, shapes and dtypes of the value.

        Raises
        ------
        InputTypeError
            If a tangent is not of the structure, shape or dtype of its primal.
        """
        run = self._run
        given = tangents if run.asked.several else tangents[0] if len(tangents) == 1 else tangents
        if tree.structure(given) != tree.structure(self._parts):
            raise InputTypeError("jvp: the tangents are not of the structure of the primals", at=user_line())
        directions: dict[int, Any] = {}
        order = [i for row in run.indices for i in row]
        for i, tangent in zip(order, tree.leaves(given), strict=True):
            leaf = run.listed[i]
            tangent = checked_direction("jvp", "tangent", leaf.text, leaf.value, tangent)
            directions[i] = directions[i] + tangent if i in directions else tangent
        found = run.push(directions, list(range(len(run.outputs))))
        answers = [like(tangent, leaf) for tangent, leaf in zip(found, run.outputs, strict=True)]
        return tree.rebuild(run.value, answers)

    def vjp(self, cotangent: Any) -> Any:
        """Return the cotangents of the primals for one of the value.

        Parameters
        ----------
        cotangent : array, number or container
            Of the structure, shapes and dtypes of the value.

        Returns
        -------
        array or container
            As what the function was linearized in; a tuple for several primals.

        Raises
        ------
        InputTypeError
            If the cotangent is not of the structure, shape or dtype of the value.
        """
        run = self._run
        if tree.structure(cotangent) != self._structure:
            raise InputTypeError(
                "vjp: the cotangent is not of the structure of the function's value", at=user_line()
            )
        seeds = {
            i: checked_seed("vjp", seed, np.shape(leaf), np.result_type(leaf))
            for i, (seed, leaf) in enumerate(zip(tree.leaves(cotangent), run.outputs, strict=True))
            if i in run.live
        }
        found = run.pull(seeds, list(range(len(run.listed))))
        answers = [like(c, leaf.value) for c, leaf in zip(found, run.listed, strict=True)]
        return packed(run.asked, run.indices, answers)

    # The same, on vectors -------------------------------------------------------------------------

    @functools.cached_property
    def _input(self) -> tuple[np.ndarray, Callable[[Any], Any]]:
        return ravel(self._parts)

    @functools.cached_property
    def _output(self) -> tuple[np.ndarray, Callable[[Any], Any]]:
        return ravel(self._run.value)

    @property
    def shape(self) -> tuple[int, int]:
        """Length of the packed output and of the packed input."""
        return self._output[0].size, self._input[0].size

    def matvec(self, v: Any) -> np.ndarray:
        """Return `jvp` of a packed direction, packed: ``J v`` of shape (m,) for `v` of shape (n,)."""
        tangents = self._input[1](np.reshape(v, -1))
        return ravel(self.jvp(*tangents) if self._run.asked.several else self.jvp(tangents))[0]

    def rmatvec(self, w: Any) -> np.ndarray:
        """Return `vjp` of a packed cotangent, packed: ``J^T w`` of shape (n,) for `w` of shape (m,)."""
        return ravel(self.vjp(self._output[1](np.reshape(w, -1))))[0]


def linearize(
    function: Callable[..., Any], *primals: Any, wrt: Any = EVERYTHING, has_aux: bool = False, **kwargs: Any
) -> Any:
    """Return the value of `function` and its derivative as a linear map, for many products at one point.

    Parameters
    ----------
    function : callable
        Returns a floating-point or complex array or number, or a container of these.
    *primals : array, float or container of these
        Arguments.
    wrt : int, str or tuple, optional
        What to differentiate; default all of `primals`.
    has_aux : bool
        The function returns ``(output, aux)``.
    **kwargs
        Keyword arguments of `function`.

    Returns
    -------
    value : array or container
        What the function returned.
    linear : Linearization
        ``linear.jvp(*tangents)`` and ``linear.vjp(cotangent)``; ``matvec``, ``rmatvec``, ``shape`` and ``dtype`` for solvers.
    aux : any
        Only with `has_aux`.

    Raises
    ------
    InputTypeError, WrtError
        As in `jacobian`; complex numbers are fine.

    Notes
    -----
    The function runs once. Its pullback is recorded at the first product with a tangent; from then on a product of either kind
    is one sweep. A product of the Gauss-Newton matrix is ``linear.vjp(linear.jvp(v))``.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> value, J = nbad.linearize(lambda x: x[1:] * x[:-1], np.array([1.0, 2.0, 3.0]))
    >>> J.jvp(np.array([1.0, 0.0, 1.0])), J.vjp(np.array([1.0, 1.0])), J.shape
    (array([2., 2.]), array([2., 4., 2.]), (2, 3))
    """
    if wrt is EVERYTHING:
        wrt = 0 if len(primals) == 1 else tuple((k,) for k in range(len(primals)))
    run = record("linearize", function, primals, kwargs, wrt, has_aux=has_aux)
    if isinstance(run, Recorded):
        watch_given(run.frozen, [*run.outputs, *tree.leaves(run.aux)])
    linear = Linearization(run)
    return (run.value, linear, run.aux) if has_aux else (run.value, linear)
