"""What every call of a compiled function needs: its owner, a replay that may not fit, results of the right kind.

Owns nothing that depends on which transformation is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from nbad import tree
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.signatures import Call
from nbad.transforms import like
from nbad.variants import Failure, Replayer, Variant
from nbad.wrt import Asked, Leaf

__all__ = ["Owner", "attempted", "fitted", "inner_of", "places_of", "replay_with"]


class Owner(Protocol):
    """What a call needs of the compiled function."""

    name: str
    function: Callable[..., Any] | None
    signature: Any
    rewrites: Any

    def serve(
        self,
        call: Call,
        replay: Callable[[Variant, list[Any]], Any],
        first: Callable[[Variant, Any, list[Any]], Any],
        inline: Callable[[], Any],
    ) -> Any:
        """Return what the first fitting recording gives, or `first` of a new one."""


def replay_with(variant: Variant, replayer: Replayer, values: Sequence[Any]) -> list[Any]:
    """Return the results of a replay; whatever goes wrong in it means that the recording does not fit."""
    results: list[Any] = attempted(replayer.call, values)
    variant.touch()
    return results


def attempted(run: Callable[..., Any], *args: Any) -> Any:
    """Return what `run` gives; whatever goes wrong in it means that the recording does not fit."""
    try:
        return run(*args)
    except (KeyboardInterrupt, SystemExit, Failure):
        raise
    except Exception as error:
        # The function itself is called next; if the error is its own, it comes again, from the user's line.
        raise Failure(None) from error


def inner_of(owner: Owner) -> Callable[..., Any]:
    """Return the plain function, for calls that somebody else records."""
    if owner.function is None:
        raise InputTypeError(
            f"{owner.name}: a loaded function takes plain values only",
            at=user_line(),
            fix="Differentiate it directly.",
        )
    return owner.function


def fitted(cotangent: Any, value: Any) -> Any:
    """Return a result of a replay as the kind of object that its primal is, in its dtype and byte order."""
    if isinstance(value, np.ndarray):
        if type(cotangent) is np.ndarray and cotangent.dtype == value.dtype:
            return cotangent
        return np.array(cotangent, value.dtype)
    return like(cotangent, value)


def places_of(call: Call, asked: Asked, listed: list[Leaf]) -> tuple[int, ...]:
    """Return which inputs of the call the asked-for leaves are."""
    ordered = dict(sorted(asked.kwargs.items()))
    at = {path: i for i, path in enumerate(tree.paths((asked.args, ordered)))}
    position = {leaf: i for i, leaf in enumerate(call.inputs)}
    found = []
    for leaf in listed:
        root = (0, leaf.argument) if isinstance(leaf.argument, int) else (1, leaf.argument)
        found.append(position[at[(*root, *leaf.path)]])
    return tuple(found)
