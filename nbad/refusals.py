"""What has no rule, and what to write instead.

Owns the reasons of refusals, by name: a function of NumPy that is not in this table and has no rule either is refused without
a reason. No module of NumPy is imported for the sake of its name here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nbad.errors import NoRuleError
from nbad.methods import user_line

_ELEMENTS = (
    "Which elements are equal changes from point to point: use np.sort, or index with what np.unique returns for "
    "nbad.stop_gradient(x) with return_index=True."
)
_FILES = "Write what nbad.stop_gradient(x) returns, or better the result of the differentiated function."
_TEXT = "It is a function of text, and a traced value is a number."
_DATES = "It is a function of dates, and a traced value is a number."
_FIELDS = "It is a function of structured arrays: pass the fields as separate arrays or a dict."
_BINS = "Number the bins with np.digitize and np.ravel_multi_index, and sum weights with np.bincount."
_SERIES = "Write the sum of powers: np.polyval, or np.einsum with the powers that np.vander gives."

#: By the name of a function, or of the module that it is defined in.
REASONS: dict[str, str] = {
    "numpy.unique": _ELEMENTS,
    "numpy.unique_all": _ELEMENTS,
    "numpy.unique_counts": _ELEMENTS,
    "numpy.unique_inverse": _ELEMENTS,
    "numpy.unique_values": _ELEMENTS,
    "numpy.union1d": _ELEMENTS,
    "numpy.intersect1d": _ELEMENTS,
    "numpy.setdiff1d": _ELEMENTS,
    "numpy.setxor1d": _ELEMENTS,
    "numpy.in1d": "Use np.isin, which took its place.",
    "numpy.histogram2d": _BINS,
    "numpy.histogramdd": _BINS,
    "numpy.save": _FILES,
    "numpy.savetxt": _FILES,
    "numpy.savez": _FILES,
    "numpy.savez_compressed": _FILES,
    "numpy.busday_count": _DATES,
    "numpy.busday_offset": _DATES,
    "numpy.is_busday": _DATES,
    "numpy.datetime_as_string": _DATES,
    "numpy.isnat": _DATES,
    "numpy.linalg.matrix_rank": "The rank is a whole number that jumps: take that of nbad.stop_gradient(a), or a smooth "
    "function of np.linalg.svdvals(a).",
    "numpy.char": _TEXT,
    "numpy.strings": _TEXT,
    "numpy.lib.recfunctions": _FIELDS,
    "numpy.polynomial.polynomial": _SERIES,
}


def reason_of(function: Callable[..., Any]) -> str | None:
    """Return what to write instead of a function that has no rule, None where nothing is known."""
    name = getattr(function, "__name__", "")
    if isinstance(function, np.ufunc):
        public = name.lstrip("_")
        if getattr(np, public, None) is not None and getattr(np, public) is not function:
            return f"It is a part of np.{public}: call that."
        numbers = any(code in "dDl" for types in function.types for code in types.partition("->")[0])
        return REASONS.get(f"numpy.{name}", None if numbers else _TEXT)
    module = getattr(function, "__module__", "")
    return REASONS.get(f"{module}.{name}") or REASONS.get(module)


def refusal(function: Callable[..., Any]) -> NoRuleError:
    """Return the error for a function without a rule, to be raised."""
    name = f"{function.__module__}.{function.__name__}"
    return NoRuleError.of(name, at=user_line(), instead=reason_of(function))
