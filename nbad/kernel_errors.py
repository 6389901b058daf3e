"""What numba says about a kernel, in one sentence.

Owns the reading of numba's messages: what it is that has no derivative, and the line of the user's source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numba
from numba.core import errors

from nbad.errors import NoRuleError, where
from nbad.scalar.calls import Call

__all__ = ["explained"]

_PACKAGES = tuple(os.path.dirname(path) + os.sep for path in (numba.__file__, __file__))
#: Where numba says that something is.
_PLACE = re.compile(r'File "([^"<]+)", line (\d+)|\bat (\S+\.py) \((\d+)\)')
_TYPE = re.compile(r"(?:Active|Dual)\(((?:Dual\()*)(\w+)\)*(?:, \d+)?\)")
_MISSING = re.compile(r"No implementation of function (.*?) found for signature")
_CALL = re.compile(r">>> (\w+\(.*\))")
_FIX = "docs/reference/kernels.md lists what can."
_FIXES = {
    "cannot hold it": "Write into an array of float32 or float64 that the kernel makes, and return that.",
    "stored": "Keep such numbers in arrays, tuples or named tuples.",
    "returns": "Return an array, a number or a tuple of these.",
    "the kernel returns": "Return an array, a number or a tuple of these.",
    "as another dtype": "Compute with the numbers; a view is for arrays that carry no derivative.",
}


def explained(call: Call, leaves: Sequence[Any], error: Exception) -> NoRuleError:
    """Return one clear error for what numba says about a kernel.

    Parameters
    ----------
    call : Call
        The call that was to be compiled for numbers with derivatives.
    leaves : sequence
        Leaves of its arguments.
    error : Exception
        What numba raised.

    Returns
    -------
    NoRuleError
        To be raised.
    """
    kernel = call.kernel
    name = kernel.py_func.__name__
    own = _own_error(call, leaves)
    if own is not None:
        return NoRuleError(
            f"numba cannot compile {name}, with or without derivatives: {_reason(str(own))}",
            at=_line(kernel, str(own)),
            fix=f"Call {name} by itself to see all that numba says.",
        )
    reason = _reason(str(error))
    return NoRuleError(
        f"the kernel {name} cannot be differentiated: {reason}",
        at=_line(kernel, str(error)),
        fix=next((fix for part, fix in _FIXES.items() if part in reason), _FIX),
    )


def _own_error(call: Call, leaves: Sequence[Any]) -> Exception | None:
    """Return what numba says about the kernel without derivatives."""
    names = {f"x{k}": leaf for k, leaf in enumerate(leaves)}
    try:
        arguments = eval(f"({call.text.format(*names)},)", {**call.names, **names})
        call.kernel.compile(tuple(map(numba.typeof, arguments)))
    except errors.NumbaError as error:
        return error
    except RuntimeError:  # it has signatures, and takes no other types
        return None
    return None


def _reason(text: str) -> str:
    """Return the sentence of a message that says what is wrong."""
    lines = [line.strip(" -\t") for line in text.splitlines()]
    missing = _MISSING.search(text)
    if missing is not None:
        called = _CALL.search(text)
        what = _plain(called[1]) if called is not None else missing[1]
        return (
            f"there is no {what} for numbers that carry derivatives"
            if _TYPE.search(text)
            else f"there is no {what}"
        )
    if (
        "Cannot cast" in text
        or "mismatching types" in text
        or "cannot be represented as a NumPy dtype" in text
    ):
        return "a number that carries a derivative is stored where a plain number is expected, or passed to Python"
    if text.startswith(("AssertionError", "NotImplementedError")):
        return "numba fails on something in it, as it does on a set of numbers that carry derivatives"
    dull = ("Failed in", "During", "File", "Resolution failure", "Unknown attribute of type")
    useful = (
        line for line in lines if line and not line.startswith(dull) and "nopython mode pipeline" not in line
    )
    return _plain(next(useful, "numba does not say why").split(': %"')[0])


def _plain(text: str) -> str:
    """Return a text with the names of types as users know them."""
    text = re.sub(r"Literal\[(\w+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"array\((\w+), (\d+)d, \w\)", r"\1 array", _TYPE.sub(r"\2", text))
    return re.sub(r"Function\(<(?:built-in )?function (\w+)[^>]*>\)", r"\1", text)


def _line(kernel: Any, text: str) -> str:
    """Return the innermost line of the user's that a message names, or where the kernel begins."""
    code = kernel.py_func.__code__
    known = {os.path.basename(code.co_filename): code.co_filename}
    for name, line in _places(text):
        path = os.path.abspath(name)
        if not path.startswith(_PACKAGES):
            return where(path if os.path.exists(path) else known.get(os.path.basename(name), name), line)
    return where(code.co_filename, code.co_firstlineno)


def _places(text: str) -> Iterator[tuple[str, int]]:
    for found in _PLACE.finditer(text):
        yield (found[1], int(found[2])) if found[1] else (found[3], int(found[4]))
