"""What a user sets for the whole process: threads, settings, kernels compiled ahead.

Owns `config`, which puts settings into force, and `warmup`.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbad.compiled import compile
from nbad.config import SETTINGS, Settings, change
from nbad.kernels import block, memory
from nbad.kernels.threads import get_threads, set_threads
from nbad.program import KERNEL_OF, PROGRAMS, READY
from nbad.rules.convolution import convolve
from nbad.table import TABLE
from nbad.transforms import value_and_grad


def config(**changes: Any) -> contextlib.AbstractContextManager[Settings]:
    """Change settings of this process, at once; as a context manager, put them back at its end.

    Parameters
    ----------
    **changes
        ``mutation_check`` (bool): hash kept arrays that the caller can reach, and raise if one was changed before
        the sweep. ``nan`` ("raise" or None): look at the results of every operation, forward and backward, and raise
        `NonFiniteError` at the first one that makes a NaN or an infinity; slow, for debugging. ``instruction_set``
        ("scalar", "avx2", "avx512" or None for the best of this machine): vector functions of the block kernels.
        ``memory_limit`` (bytes or None for the default): idle memory that waits for reuse. ``tape_limit`` (bytes or None for
        half of the memory): what the tape of one call of a kernel may take, see `nbad.njit` and `nbad.scan`.

    Returns
    -------
    context manager of Settings
        The settings in force.

    Raises
    ------
    TypeError
        An unknown setting.
    ValueError
        An instruction set that this machine does not have; a ``nan`` other than "raise" and None.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> with nbad.config(mutation_check=False) as settings:
    ...     settings.mutation_check
    False
    >>> with nbad.config(nan="raise"), np.errstate(all="ignore"):
    ...     nbad.grad(lambda x: np.sum(np.sqrt(x)))(np.array([4.0, 0.0]))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    nbad.NonFiniteError: the pullback of sqrt in x made an infinity at index (1,)
    """
    inner = change(**changes)
    try:
        _apply(SETTINGS)
    except ValueError:
        with inner:  # put them back
            pass
        raise
    return _InForce(inner)


class _InForce:
    """Puts settings back at the end of a with block, where they take effect."""

    def __init__(self, inner: contextlib.AbstractContextManager[Settings]) -> None:
        self.inner = inner

    def __enter__(self) -> Settings:
        return self.inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)
        _apply(SETTINGS)


def _apply(settings: Settings) -> None:
    if settings.nan not in (None, "raise"):
        raise ValueError(f'config: nan is "raise" or None, not {settings.nan!r}')
    if settings.instruction_set != _applied.instruction_set:
        block.select_instruction_set(settings.instruction_set)
        _applied.instruction_set = settings.instruction_set
    if settings.memory_limit != _applied.memory_limit:
        memory.set_limit(memory.default_limit() if settings.memory_limit is None else settings.memory_limit)
        _applied.memory_limit = settings.memory_limit


_applied = Settings()


def warmup(dtypes: Iterable[Any] = (np.float64,), *, convolution: bool = False) -> int:
    """Compile now what would be compiled on first use: the kernels of all elementwise functions and rules, and the loops.

    Parameters
    ----------
    dtypes : iterable of dtype_like
        Of float32, float64, complex64, complex128.
    convolution : bool
        Compile the passes of `convolve` and `correlate` too, for one axis and for several.

    Returns
    -------
    int
        Number of kernels that are compiled now (they stay on disk for the next process).

    Examples
    --------
    >>> import nbad
    >>> nbad.warmup([]) >= 0
    True
    """
    for given in dtypes:
        dtype = np.dtype(given)
        if dtype not in block.DTYPES:
            raise TypeError(f"warmup: {dtype} is none of float32, float64, complex64 and complex128")
        code = block.DTYPES.index(dtype)
        # Replays run the functions themselves in blocks, not only their rules.
        names = {"muladd", "sum", "where", *KERNEL_OF.values()}
        kernels = {block.ID[name] for name in names if code in block.KERNELS[block.ID[name]].dtypes}
        for op in [row for row in TABLE if row.elementwise]:
            if PROGRAMS.translate(op, code) == READY:
                kernels.update(PROGRAMS.kernels_of(op, code))
        for kernel in sorted(kernels):
            block.ensure(kernel, code)
        compiled = compile(_probe)
        value_and_grad(_probe)(np.ones(4, dtype))
        for _ in range(2):
            value_and_grad(compiled)(np.ones(4, dtype))
        for shape in ((8,), (8, 8)) if convolution else ():
            box = np.ones(shape, dtype)
            value_and_grad(_filtered)(box, box)
            value_and_grad(_filtered, wrt=(0, 1))(box, box)
    return int(np.count_nonzero(block.ADDRESS))


def _probe(x: Any) -> Any:
    """Return a small loss that takes every part of a call once."""
    return np.sum(np.abs(x * x))


def _filtered(u: Any, v: Any) -> Any:
    """Return a small loss of a convolution."""
    return np.sum(np.real(convolve(u, v, mode="wrap")))


__all__ = ["config", "get_threads", "set_threads", "warmup"]
