"""Products with a direction: jvp and hvp.

Owns no rules: a Jacobian-vector product is the pullback of the pullback, which is linear in its cotangent, and a
Hessian-vector product is the pullback of the gradient. Both are pruned by the same bits as any sweep.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nbad import tree
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.recorded import Recorded
from nbad.trace import cast, is_traced
from nbad.transforms import gradient_of, hook_of, like, pullback_of, read_wrt
from nbad.wrt import signature_of

_NONE = tree.take_apart(None)[0][0]


def jvp(
    function: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    has_aux: bool = False,
) -> Any:
    """Return the value of `function` and the derivative of it in a direction.

    Parameters
    ----------
    function : callable
        Returns an array or a container of arrays.
    primals : tuple
        Arguments: arrays, floats or containers of these.
    tangents : tuple
        One direction per argument, of its structure, shapes and dtypes. None in the place of an argument, or of a part
        of it, says that it does not move: nothing is computed or kept for it, and it may then be anything.
    has_aux : bool
        The function returns ``(output, aux)``.

    Returns
    -------
    value : array or container
        What the function returned.
    tangent : array or container
        Of the structure, shapes and dtypes of `value`; zeros where it does not depend on what moves. What is no
        number stands in it as it is.
    aux : any
        Only with `has_aux`.

    Raises
    ------
    InputTypeError
        If a tangent is not of the structure, shape or dtype of its primal, or a primal that moves is not of floating
        or complex dtype.

    Notes
    -----
    With complex numbers the result is the real-linear derivative: ``f(z + t dz)`` by the real number ``t`` at 0.
    It costs about two pullbacks, whatever the number of outputs; no forward-mode rules exist.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> value, tangent = nbad.jvp(np.square, (np.array([1.0, 3.0]),), (np.array([1.0, 0.5]),))
    >>> value, tangent
    (array([1., 9.]), array([2., 3.]))
    """
    hook = hook_of(function)
    if hook is not None:  # a compiled function replays instead
        return hook("jvp", has_aux=has_aux)(primals, tangents)
    moving, places = moving_parts(primals, tangents)
    run = Recorded("jvp", function, tuple(primals), {}, tuple(places), has_aux=has_aux)
    directions = {
        i: checked_direction("jvp", "tangent", leaf.text, leaf.value, given)
        for i, (leaf, given) in enumerate(zip(run.listed, moving, strict=True))
    }
    answers = [_nothing(leaf) for leaf in run.outputs]
    for i, tangent in zip(run.live, run.push(directions, run.live), strict=True):
        answers[i] = like(tangent, run.outputs[i])
    tangent = tree.rebuild(run.value, answers)
    return (run.value, tangent, run.aux) if has_aux else (run.value, tangent)


def hvp(function: Callable[..., Any], wrt: Any = 0) -> Callable[..., Any]:
    """Return a function that computes the product of the Hessian of `function` with a direction.

    Parameters
    ----------
    function : callable
        Returns one real number.
    wrt : int, str or tuple
        As in `value_and_grad`.

    Returns
    -------
    callable
        Takes the arguments of `function` and, as the last one by position, the direction, of the structure, shapes and
        dtypes of the gradient; returns the product in the same form. The Hessian itself is never made.

    Raises
    ------
    NonScalarOutputError, WrtError
        As in `value_and_grad`.
    InputTypeError
        If the direction is not of the structure, shape or dtype of what was asked for, or an asked-for leaf is not of
        floating or complex dtype.

    Notes
    -----
    For complex leaves this is the real-linear derivative of the gradient, which is also the gradient of the real inner
    product of gradient and direction.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> nbad.hvp(lambda x: np.sum(x**3))(np.array([1.0, 2.0]), np.array([1.0, 10.0]))
    array([  6., 120.])
    """
    hook = hook_of(function)
    if hook is not None:
        answer: Callable[..., Any] = hook("hvp", wrt=wrt)
        return answer
    signature = signature_of(function)
    both = gradient_of(function, wrt, False, "hvp")

    @functools.wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    @functools.wraps(function)
    def product(*args: Any, **kwargs: Any) -> Any:
        if not args:
            raise InputTypeError(
                "hvp: the direction is missing: pass it as the last argument", at=user_line()
            )
        *front, direction = args
        primals = tuple(front)
        asked, listed, indices = read_wrt("hvp", wrt, signature, primals, kwargs)
        parts = [tree.select(asked.value(entry.argument), entry.path) for entry in asked.entries]
        model = tuple(parts) if asked.several else parts[0]
        if tree.structure(direction) != tree.structure(model):
            raise InputTypeError(
                "hvp: the direction is not of the structure of what wrt asks for",
                at=user_line(),
                fix="Pass it last: hvp(f)(*args, v).",
            )
        leaves = [listed[i] for row in indices for i in row]
        checked = [
            checked_direction("hvp", "direction", leaf.text, leaf.value, given)
            for leaf, given in zip(leaves, tree.leaves(direction), strict=True)
        ]
        _, pullback = pullback_of("hvp", gradient, primals, kwargs, wrt)
        return pullback(tree.rebuild(model, checked))

    return product


def moving_parts(primals: Any, tangents: Any) -> tuple[list[Any], list[tree.Path]]:
    """Return the tangents that are given, and the path of each from the tuple of primals."""
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise InputTypeError(
            "jvp: primals and tangents are tuples, with one entry per argument of the function",
            at=user_line(),
            fix="For one argument: nbad.jvp(f, (x,), (dx,)).",
        )
    mine, _ = tree.take_apart(tuple(primals))
    theirs, given = tree.take_apart(tuple(tangents))
    places = tree.paths(tuple(primals))
    found: list[tuple[Any, tree.Path]] = []
    node = leaf = taken = 0
    for token in theirs:
        here = mine[node] if node < len(mine) else _NONE
        if token == _NONE and here != _NONE:  # this part does not move
            pending = 1
            while pending:
                skipped = mine[node]
                pending += len(skipped[1]) - 1 if skipped is not None else -1
                leaf += skipped is None
                node += 1
            continue
        if node >= len(mine) or token != here:
            raise InputTypeError("jvp: the tangents are not of the structure of the primals", at=user_line())
        node += 1
        if token is None:
            found.append((given[taken], places[leaf]))
            leaf += 1
            taken += 1
    if not found:
        raise InputTypeError("jvp: no tangent was given, so nothing moves", at=user_line())
    return [value for value, _ in found], [place for _, place in found]


def checked_direction(name: str, word: str, text: str, primal: Any, given: Any) -> Any:
    """Return a direction given by the caller as an array, checked against the leaf it belongs to."""
    if not is_traced(given):
        given = np.asarray(given)
    shape = np.shape(primal)
    dtype = np.dtype(type(primal)) if type(primal) in (float, complex) else primal.dtype
    if given.shape != shape:
        raise InputTypeError(
            f"{name}: a {word} of shape {given.shape} was given for {text} of shape {shape}", at=user_line()
        )
    if given.dtype == dtype:
        return given
    if given.dtype.kind not in "fiub" and (given.dtype.kind != "c" or dtype.kind != "c"):
        raise InputTypeError(
            f"{name}: a {word} of dtype {given.dtype} was given for {text} of dtype {dtype}",
            at=user_line(),
            fix="Pass its real part." if given.dtype.kind == "c" else "Pass numbers.",
        )
    return cast(given, dtype) if is_traced(given) else given.astype(dtype)


def _nothing(leaf: Any) -> Any:
    """Return the tangent of a leaf that does not depend on what moves."""
    if is_traced(leaf) or isinstance(leaf, np.ndarray):
        return np.zeros(leaf.shape, leaf.dtype)
    if isinstance(leaf, np.generic) and leaf.dtype.kind in "fciub":
        return leaf.dtype.type(0)
    return type(leaf)(0) if isinstance(leaf, bool | int | float | complex) else leaf


__all__ = ["hvp", "jvp"]
