"""Steps of Python: operations that have no block program run on ndarrays.

Owns how a host step sees its operands (array, NumPy scalar or Python number; views of other slots), the check of what it
returned against what was recorded, and where the result goes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbad.encoding import read_only
from nbad.keeping import run_forward
from nbad.replay.graph import ARRAY, PYTHON, Node
from nbad.replay.recording import OtherShape

_ndarray = np.ndarray

Environment = list[Any]


@dataclass(slots=True, frozen=True)
class Reader:
    """How the value of a slot is taken from an environment, which holds one ndarray for each slot with memory.

    Attributes
    ----------
    slot : int
        Where to look.
    form : int
        What the value is to Python.
    view : tuple or None
        (shape, dtype, offset, strides) of a view on the array there.
    """

    slot: int
    form: int
    view: tuple[tuple[int, ...], np.dtype[Any], int, tuple[int, ...]] | None = None

    def read(self, env: Environment) -> Any:
        """Return the value."""
        array = env[self.slot]
        if self.view is not None:
            shape, dtype, offset, strides = self.view
            array = np.ndarray(shape, dtype, array, offset, strides)
        if self.form == ARRAY:
            return array
        return array.item() if self.form == PYTHON else array[()]


@dataclass(slots=True, frozen=True)
class Output:
    """Where a result goes.

    Attributes
    ----------
    slot : int
        Its slot.
    dtype, shape
        What was recorded.
    buffer : int
        The buffer whose address follows the array, or -1: the values are copied into the array that the environment holds.
    wanted : bool
        Whether anybody reads it.
    """

    slot: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    buffer: int
    wanted: bool


class HostStep:
    """One operation that Python performs.

    Parameters
    ----------
    node : Node
        The operation.
    readers : list of Reader
        Its operands.
    outputs : list of Output
        Its results.
    into : callable, optional
        Writes the result into an array: ``into(out, *operands)``.
    """

    def __init__(
        self, node: Node, readers: list[Reader], outputs: list[Output], into: Callable[..., Any] | None = None
    ) -> None:
        self.node = node
        self.readers = readers
        self.outputs = outputs
        self.into = into
        self.releases: tuple[int, ...] = ()

    def run(self, env: Environment, ids: Any) -> bool:
        """Perform the operation; return False if the result is not of the recorded kind."""
        op = self.node.op
        values = [reader.read(env) for reader in self.readers]
        if self.into is not None:
            self.into(env[self.outputs[0].slot], *values)
            return True
        if op.foreign:
            values = [read_only(v) for v in values]
        try:
            made = run_forward(op, values, self.node.attributes, ())[0]
        except OtherShape:  # within a region
            return False
        return self.keep(made if op.outputs > 1 else (made,), values, env, ids)

    def keep(self, results: Any, values: list[Any], env: Environment, ids: Any) -> bool:
        """Put results where they belong; return False if one is not of the recorded kind."""
        for output, value in zip(self.outputs, results, strict=True):
            if not output.wanted:
                continue
            array = value if type(value) is _ndarray else np.asarray(value)
            if array.dtype != output.dtype or array.shape != output.shape:
                return False
            if output.buffer < 0:
                np.copyto(env[output.slot], array)
                continue
            if (
                self.node.op.foreign
                or not array.flags.c_contiguous
                or not array.flags.aligned
                or _is_shared(array, values)
            ):
                array = np.array(array, order="C", copy=True)
            env[output.slot] = array
            ids[output.buffer] = id(array)
        return True


def _is_shared(array: np.ndarray, values: list[Any]) -> bool:
    """Return whether a result is, or may lie in the memory of, an operand, or is not ours to write."""
    if not array.flags.writeable:
        return True
    if array.base is None:
        return any(array is value for value in values)
    return any(type(v) is _ndarray and np.may_share_memory(array, v) for v in values)
