"""Checks for users: are the gradients right, and was nothing computed that nobody asked for.

Owns `check_grads` and `assert_only`. Both fail with AssertionError, so they serve in any test runner.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nbad import tree
from nbad.report import Report, report
from nbad.transforms import vjp
from nbad.wrt import Asked, Leaf, asked_leaves, parse_wrt, signature_of, substitute

__all__ = ["assert_only", "check_grads"]

_EVERYTHING = object()
_SINGLE = (np.dtype(np.float32), np.dtype(np.complex64))
#: A central difference with four points; its error is STEP**4 / 30 of the fifth derivative.
_STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


def check_grads(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    wrt: Any = _EVERYTHING,
    order: int = 2,
    step: float = 1e-3,
    rtol: float | None = None,
    atol: float = 0.0,
    seed: int = 0,
) -> None:
    """Compare the derivatives of a function with finite differences.

    Parameters
    ----------
    f : callable
        Returns an array, a number, or a container of these; real or complex.
    args : tuple
        Where to compare. Choose a point at least ``2 * step`` away from kinks and poles (relative to the
        largest element of each array).
    wrt : int, str or tuple, optional
        Which arguments to compare for, as in `grad`; default all of `args`.
    order : int
        Orders to compare: 1 for the pullback of `f`, 2 also for the pullback of its pullback, and so on.
    step : float
        Length of the step, relative to the largest element of each array.
    rtol, atol : float, optional
        Allowed difference: `atol` plus `rtol` times the sum of the magnitudes that enter the inner products.
        `rtol` is 1e-6 by default, 1e-4 where single precision is asked for.
    seed : int
        Of the random directions.

    Raises
    ------
    AssertionError
        If they differ, naming the order, the leaf, and both numbers; if a cotangent is not of the shape and
        dtype of its leaf.

    Notes
    -----
    For each asked-for leaf x, a random direction t and a random cotangent w, Re<w, J t> by a central
    difference of fourth order is compared with Re<J* w, t> by the pullback. The cost is a handful of
    evaluations of `f` for each leaf and order. Differences are taken in double precision: single-precision
    leaves are cast up for them. Order 2 differences the pullback, so it says whether the second derivative is
    that of the first.

    Examples
    --------
    >>> import numpy as np
    >>> from nbad.testing import check_grads
    >>> check_grads(lambda x, y: np.sin(x) * y, (np.array([0.5, 1.0]), 2.0))
    >>> check_grads(np.rint, (np.array([0.3]),))  # flat almost everywhere, and so is its gradient
    """
    if not isinstance(args, tuple):
        raise TypeError(f"check_grads: args must be a tuple of the arguments, not {type(args).__name__}")
    if order < 1:
        raise ValueError(f"check_grads: order must be at least 1, not {order}")
    if wrt is _EVERYTHING:
        wrt = tuple((k,) for k in range(len(args)))
    rng = np.random.default_rng(seed)
    name = str(getattr(f, "__name__", f))
    _check(f, args, wrt, 1, order, _Measure(name, step, rtol, atol), rng)


class _Measure(NamedTuple):
    """What a comparison is called and how much it may be off."""

    name: str
    step: float
    rtol: float | None
    atol: float


def _check(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    wrt: Any,
    level: int,
    order: int,
    measure: _Measure,
    rng: np.random.Generator,
) -> None:
    """Compare the derivative of `f`, itself a derivative of order ``level - 1``, and go on to the next."""
    asked = parse_wrt(wrt, signature_of(f), args, {})
    leaves, indices = asked_leaves(asked)
    if measure.rtol is None:
        single = any(np.result_type(leaf.value) in _SINGLE for leaf in leaves)
        measure = measure._replace(rtol=1e-4 if single else 1e-6)
    value, pullback = vjp(f, *args, wrt=wrt)
    plain = f(*args)
    if tree.structure(plain) != tree.structure(value):
        raise AssertionError(f"check_grads: {measure.name} returns another container when it is traced")
    for traced, untraced in zip(tree.leaves(value), tree.leaves(plain), strict=True):
        if not _near(traced, untraced):
            raise AssertionError(
                f"check_grads: {measure.name} returns other values when it is traced (order {level}):\n"
                f"  traced {traced!r}\n  plain  {untraced!r}"
            )
    w = tree.map_leaves(lambda leaf: _random_like(leaf, rng), value)
    answer = pullback(w)
    entries = answer if asked.several else (answer,)
    cotangents: list[Any] = [None] * len(leaves)
    for entry, row in zip(entries, indices, strict=True):
        for i, cotangent in zip(row, tree.leaves(entry), strict=True):
            cotangents[i] = cotangent
    for i, (leaf, cotangent) in enumerate(zip(leaves, cotangents, strict=True)):
        _check_leaf(f, asked, leaves, i, w, cotangent, leaf.text, level, measure, rng)
    if level < order:

        @functools.wraps(f)
        def next_order(*args: Any) -> Any:
            return vjp(f, *args, wrt=wrt)[1](w)

        _check(next_order, args, wrt, level + 1, order, measure, rng)


def _check_leaf(
    f: Callable[..., Any],
    asked: Asked,
    leaves: list[Leaf],
    i: int,
    w: Any,
    cotangent: Any,
    text: str,
    level: int,
    measure: _Measure,
    rng: np.random.Generator,
) -> None:
    """Compare along one direction in one leaf."""
    x = leaves[i].value
    what = f"check_grads: order {level} of {measure.name} with respect to {text}"
    if np.shape(cotangent) != np.shape(x) or np.result_type(cotangent) != np.result_type(x):
        raise AssertionError(
            f"{what}: the cotangent has shape {np.shape(cotangent)} and dtype {np.result_type(cotangent)}, "
            f"the argument {np.shape(x)} and {np.result_type(x)}"
        )
    t = _random_like(x, rng)
    wide = [_wide(leaf.value) for leaf in leaves]
    largest = float(np.max(np.abs(wide[i]), initial=0.0))
    h = measure.step * (largest if largest > 0 else 1.0)
    numeric, size = 0.0, 0.0
    for multiple, weight in _STENCIL:
        moved = list(wide)
        moved[i] = (
            type(x)(x + multiple * h * t) if type(x) in (float, complex) else wide[i] + multiple * h * t
        )
        args, kwargs = substitute(asked, leaves, moved)
        for y, cotangent_y in zip(tree.leaves(f(*args, **kwargs)), tree.leaves(w), strict=True):
            terms = np.real(np.conj(cotangent_y) * y)
            numeric += weight / h * float(np.sum(terms))
            # Rounding of the values, which the division by h enlarges.
            size += float(np.sum(np.abs(terms)))
    terms = np.real(np.conj(cotangent) * t)
    exact = float(np.sum(terms))
    allowed = (
        measure.atol
        + (measure.rtol or 0.0) * (float(np.sum(np.abs(terms))) + abs(numeric))
        + 1e-15 * size / h
    )
    if not abs(numeric - exact) <= allowed:
        raise AssertionError(
            f"{what} differs from finite differences:\n"
            f"  {numeric!r} by finite differences\n"
            f"  {exact!r} by the pullback\n"
            f"  difference {abs(numeric - exact):.3g}, allowed {allowed:.3g}"
        )


def _near(a: Any, b: Any) -> bool:
    """Say whether two results are equal up to rounding."""
    if np.shape(a) != np.shape(b) or np.result_type(a) != np.result_type(b):
        return False
    tolerance = 1e-4 if np.result_type(a) in _SINGLE else 1e-10
    return bool(
        np.allclose(
            a, b, rtol=tolerance, atol=tolerance * float(np.max(np.abs(b), initial=0.0)), equal_nan=True
        )
    )


def _random_like(x: Any, rng: np.random.Generator) -> Any:
    """Return random numbers between -1 and 1 of the shape, dtype and kind of `x`."""
    dtype, shape = np.result_type(x), np.shape(x)
    numbers: Any = rng.uniform(-1.0, 1.0, shape)
    if dtype.kind == "c":
        numbers = numbers + 1j * rng.uniform(-1.0, 1.0, shape)
    numbers = np.asarray(numbers).astype(dtype)
    return numbers if isinstance(x, np.ndarray) else numbers[()]


def _wide(x: Any) -> Any:
    """Return `x` in double precision."""
    if type(x) in (float, complex):
        return x
    return x.astype(np.complex128 if np.result_type(x).kind == "c" else np.float64)


def assert_only(
    f: Callable[..., Any],
    *args: Any,
    wrt: Any = 0,
    fft: int | None = None,
    pullbacks: int | None = None,
    kept: int | None = None,
    borrowed: int | None = None,
    rules: Mapping[tuple[str, str], int] | None = None,
) -> Report:
    """Assert that the gradient of a function does only so much work.

    The function is called once, and its pullback once with a cotangent of ones; for a function that returns
    one real number that is what `value_and_grad` does. What is None is not compared.

    Parameters
    ----------
    f : callable
        The function.
    *args
        Its arguments.
    wrt : int, str or tuple
        What to differentiate with respect to.
    fft : int, optional
        n-dimensional Fourier transforms, forward and sweep together.
    pullbacks : int, optional
        Pullbacks that run.
    kept : int, optional
        Bytes that are kept for the sweep, besides the caller's own arrays.
    borrowed : int, optional
        Bytes of the caller's own arrays that the sweep reads.
    rules : mapping of (op, operand) to int, optional
        How often each pullback runs; those that are not listed must not run.

    Returns
    -------
    Report
        The whole account.

    Raises
    ------
    AssertionError
        If a number differs, listing all that do, and the account.

    Examples
    --------
    >>> import numpy as np
    >>> from nbad.testing import assert_only
    >>> x = np.ones(4)
    >>> rules = {("multiply", "a"): 1, ("sum_all", "x"): 1}
    >>> account = assert_only(lambda a, b: np.sum(a * b), x, x, rules=rules)
    >>> account.skipped("multiply", "b")
    1
    """
    with report() as account:
        value, pullback = vjp(f, *args, wrt=wrt)
        pullback(tree.map_leaves(_ones_like, value))
    expected = {
        "FFTs": (fft, account.ffts),
        "pullbacks": (pullbacks, account.pullbacks),
        "bytes kept": (kept, account.bytes_kept),
        "bytes borrowed": (borrowed, account.bytes_borrowed),
    }
    if rules is not None:
        wanted = Counter(dict(rules))
        for key in sorted(set(wanted) | set(account.rules_run)):
            expected[f"pullbacks of {key[0]} for {key[1]}"] = (wanted[key], account.rules_run[key])
    wrong = [
        f"  {what}: {count} expected, {found} found"
        for what, (count, found) in expected.items()
        if count is not None and count != found
    ]
    if wrong:
        name = str(getattr(f, "__name__", f))
        listing = "\n".join(["", *wrong, "The account:", str(account)])
        raise AssertionError(f"assert_only: {name} with wrt={wrt!r} did other work than expected:{listing}")
    return account


def _ones_like(leaf: Any) -> Any:
    """Return a cotangent of ones of the kind of `leaf`."""
    ones = np.ones(np.shape(leaf), np.result_type(leaf))
    return ones if isinstance(leaf, np.ndarray) else ones[()]
