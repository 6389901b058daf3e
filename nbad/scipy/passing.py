"""Functions that stand beside SciPy's: SciPy itself for plain arrays, rules of ours for traced ones.

Owns the choice between the two, and the refusal of traced values by what has no rule.
"""

import functools
from collections.abc import Callable
from typing import Any

from nbad.errors import NoRuleError
from nbad.methods import user_line
from nbad.table import Function
from nbad.trace import is_traced

#: Our functions, by SciPy's names: "signal.lfilter".
FUNCTIONS: dict[str, Function] = {}


def any_traced(value: Any) -> bool:
    """Return whether a traced value stands in `value`, or in lists, tuples and dicts that it holds."""
    if isinstance(value, (list, tuple)):
        return any(map(any_traced, value))
    if isinstance(value, dict):
        return any(map(any_traced, value.values()))
    return is_traced(value)


def stands_for(module: Any) -> Callable[[Function], Function]:
    """Decorate a function of the name and arguments of one of SciPy's, for traced values; plain ones go to SciPy."""

    def decorate(function: Function) -> Function:
        name = function.__name__
        original = getattr(module, name, None)  # absent in some versions of SciPy

        @functools.wraps(function)
        def passing(*args: Any, **kwargs: Any) -> Any:
            if original is None or any_traced(args) or any_traced(kwargs):
                return function(*args, **kwargs)
            return original(*args, **kwargs)

        FUNCTIONS[f"{title_of(module)}.{name}"] = passing
        return passing

    return decorate


def listed(module: Any) -> Callable[[Function], Function]:
    """Decorate a function that chooses between SciPy and rules itself, for the list of names."""

    def decorate(function: Function) -> Function:
        FUNCTIONS[f"{title_of(module)}.{function.__name__}"] = function
        return function

    return decorate


def rest_of(module: Any, name: str) -> Any:
    """Return what else `module` has under `name`: a function takes plain arrays only.

    Raises
    ------
    AttributeError
        SciPy has nothing of this name.
    """
    found = getattr(module, name, None)
    if found is None or name.startswith("_"):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    if not callable(found) or isinstance(found, type) or hasattr(found, "resolve_dtypes"):
        return found

    @functools.wraps(found)
    def plain_only(*args: Any, **kwargs: Any) -> Any:
        if any_traced(args) or any_traced(kwargs):
            where = f"nbad.{module.__name__}.DIFFERENTIABLE lists the functions that have one."
            raise NoRuleError.of(f"{module.__name__}.{name}", at=user_line(), instead=where)
        return found(*args, **kwargs)

    return plain_only


def title_of(module: Any) -> str:
    """Return the name of a module inside SciPy."""
    return str(module.__name__).partition(".")[2]


def refuse(name: str, **options: Any) -> None:
    """Refuse arguments of the function `name` that only plain arrays may come with: those that are not None."""
    for option, value in options.items():
        if value is not None:
            raise NoRuleError.of(f"scipy.{name} with {option}=", at=user_line(), instead="Leave it out.")


def static(name: str, **options: Any) -> None:
    """Refuse traced values for arguments of the function `name` that are constants of an operation."""
    for option, value in options.items():
        if any_traced(value):
            raise NoRuleError.of(f"argument {option!r} of scipy.{name}", at=user_line())


class Refused:
    """The rule of an operand whose derivative nobody knows: it raises when the derivative is asked for, and only then."""

    def __init__(self, function: str, operand: str) -> None:
        self.__name__ = f"{function}_{operand}"
        self.what = f"argument {operand!r} of scipy.{function}"

    def __call__(self, g: Any) -> Any:
        """Raise `NoRuleError`."""
        raise NoRuleError.of(self.what, at=user_line())
