"""``scipy.fft`` on traced values, through SciPy's own protocol for backends (uarray).

Owns SciPy's argument conventions where they differ from NumPy's, and the registration. The backend answers only where the
array is traced; SciPy itself does everything else. SciPy is never imported here: rocket-fft imports ``scipy.fft`` where it is
installed.
"""

import operator
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.rules.cosine import transformed
from nbad.rules.fourier import from_half, swapped, to_half, whole
from nbad.trace import cast, is_traced

__all__ = ["FUNCTIONS", "Backend", "enable"]

Where = tuple[list[int], list[int]]


# Arguments ----------------------------------------------------------------------------------------
def _floating(x: Any) -> Any:
    """Return `x` as an array of floats or complex numbers (recorded integers are cast, as SciPy does)."""
    return x if x.dtype.kind in "fc" else cast(x, np.dtype(np.float64))


def _check(workers: Any, plan: Any) -> None:
    """Refuse what SciPy refuses; the number of threads is nbad's own."""
    if plan is not None:
        raise NoRuleError.of("scipy.fft with plan=", at=user_line(), instead="Leave it out.")
    if workers is not None:
        count = os.cpu_count() or 1
        if operator.index(workers) < -count:
            raise ValueError(f"workers value out of range; got {workers}, must not be less than {-count}")
        if workers == 0:
            raise ValueError("workers must not be zero")


def _integers(values: Any, name: str) -> list[int]:
    """Return an integer or integers as a list."""
    given: Iterable[Any] = values if np.iterable(values) else (values,)
    try:
        return [operator.index(value) for value in given]
    except TypeError as error:
        raise ValueError(f"{name} must be a scalar or iterable of integers") from error


def _one(x: Any, n: Any, axis: Any, *, halved: bool = False) -> Where:
    """Return length and axis of a transform over one axis."""
    place = operator.index(axis)
    if not -x.ndim <= place < x.ndim:
        raise ValueError("axes exceeds dimensionality of input")
    place %= x.ndim
    if n is not None:
        return [operator.index(n)], [place]
    return [2 * (x.shape[place] - 1) if halved else x.shape[place]], [place]


def _many(x: Any, s: Any, axes: Any, *, halved: bool = False) -> Where:
    """Return lengths and axes of a transform over several axes."""
    lengths = None if s is None else _integers(s, "shape")
    if axes is not None:
        places = [axis + x.ndim if axis < 0 else axis for axis in _integers(axes, "axes")]
        if any(not 0 <= axis < x.ndim for axis in places):
            raise ValueError("axes exceeds dimensionality of input")
        if len(set(places)) != len(places):
            raise ValueError("all axes must be unique")
        if lengths is not None and places and len(places) != len(lengths):
            raise ValueError("when given, axes and shape arguments have to be of the same length")
    else:
        count = x.ndim if lengths is None else len(lengths)
        if count > x.ndim:
            raise ValueError("shape requires more axes than are present")
        places = list(range(x.ndim - count, x.ndim))
    if lengths is None:
        found = [x.shape[axis] for axis in places]
        if halved and found:
            found[-1] = 2 * (found[-1] - 1)
        return found, places
    return [x.shape[a] if n == -1 else n for n, a in zip(lengths, places, strict=False)], places


def _not_empty(where: Where) -> Where:
    """Refuse a half spectrum over no axis."""
    if not where[1]:
        raise ValueError("at least 1 axis must be transformed")
    return where


# The functions, by families ------------------------------------------------------------------------
def _spectrum(name: str, one: bool) -> Callable[..., Any]:
    """Return the function `name` of the Fourier family, over one axis or several."""
    halved = name.startswith(("irfft", "hfft"))
    hermitian = "hfft" in name
    inverse = name.startswith("i")
    several = (-2, -1) if name.endswith("2") else None

    def run(x: Any, where: Where, norm: str | None) -> Any:
        if hermitian:
            _not_empty(where)
            if inverse:
                return np.conjugate(to_half(x, where, swapped(norm)))
            return from_half(np.conjugate(x), where, swapped(norm))
        if "rfft" in name:
            return (from_half if inverse else to_half)(x, _not_empty(where), norm)
        return whole(x, where, norm, not inverse)

    def of_one(
        x: Any, n: Any = None, axis: Any = -1, norm: str | None = None, overwrite_x: bool = False,
        workers: Any = None, *, plan: Any = None,
    ) -> Any:  # fmt: skip
        _check(workers, plan)
        x = _floating(x)
        return run(x, _one(x, n, axis, halved=halved), norm)

    def of_many(
        x: Any, s: Any = None, axes: Any = several, norm: str | None = None, overwrite_x: bool = False,
        workers: Any = None, *, plan: Any = None,
    ) -> Any:  # fmt: skip
        _check(workers, plan)
        x = _floating(x)
        return run(x, _many(x, s, axes, halved=halved), norm)

    return of_one if one else of_many


def _real(name: str, one: bool) -> Callable[..., Any]:
    """Return the function `name` of the cosine and sine family, over one axis or several."""

    def of_one(
        x: Any, type: int = 2, n: Any = None, axis: Any = -1, norm: str | None = None, overwrite_x: bool = False,
        workers: Any = None, orthogonalize: bool | None = None,
    ) -> Any:  # fmt: skip
        _check(workers, None)
        x = _floating(x)
        lengths, axes = _one(x, n, axis)
        return transformed(name, x, lengths, axes, kind=type, norm=norm, orthogonalize=orthogonalize)

    def of_many(
        x: Any, type: int = 2, s: Any = None, axes: Any = None, norm: str | None = None, overwrite_x: bool = False,
        workers: Any = None, orthogonalize: bool | None = None,
    ) -> Any:  # fmt: skip
        _check(workers, None)
        x = _floating(x)
        lengths, places = _many(x, s, axes)
        if not places:
            return x
        return transformed(name, x, lengths, places, kind=type, norm=norm, orthogonalize=orthogonalize)

    return of_one if one else of_many


#: What stands in for each function of ``scipy.fft`` when its array is traced.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _spectrum(name, True) for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")},
    **{
        f"{name}{suffix}": _spectrum(f"{name}{suffix}", False)
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
        for suffix in "2n"
    },
    **{name: _real(name, True) for name in ("dct", "idct", "dst", "idst")},
    **{f"{name}n": _real(f"{name}n", False) for name in ("dct", "idct", "dst", "idst")},
}


# The backend --------------------------------------------------------------------------------------
class Backend:
    """A backend in the sense of ``scipy.fft.register_backend``: it takes traced arrays, and nothing else."""

    __ua_domain__ = "numpy.scipy.fft"

    @staticmethod
    def __ua_convert__(dispatchables: Any, coerce: bool) -> Any:
        """Take the arrays as they are if one of them is traced."""
        for found in dispatchables:
            if is_traced(found.value):
                return [each.value for each in dispatchables]
        return NotImplemented

    @staticmethod
    def __ua_function__(method: Any, args: Any, kwargs: Any) -> Any:
        """Run the function of the same name."""
        name = method.__name__
        if name not in FUNCTIONS:
            raise NoRuleError.of(f"scipy.fft.{name}", at=user_line())
        return FUNCTIONS[name](*args, **kwargs)


_registered: list[ModuleType] = []


def enable() -> bool:
    """Make ``scipy.fft`` take traced arrays; done at ``import nbad`` where SciPy is installed.

    Returns
    -------
    bool
        Whether ``scipy.fft`` has been imported.

    Notes
    -----
    Only needed by itself where ``scipy.fft`` was not importable when nbad was imported. Repeated calls do nothing.

    Examples
    --------
    >>> import nbad.scipy_fft
    >>> nbad.scipy_fft.enable()
    True
    """
    module = sys.modules.get("scipy.fft")
    if module is None:
        return False
    if module not in _registered:
        module.register_backend(Backend)
        _registered.append(module)
    return True


enable()
