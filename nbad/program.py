"""Rule programs: an elementwise rule traced once into instructions over the block kernels.

Owns the translation of a plain-NumPy rule into (kernel, operands, result) rows, and the typed tables of all programs made so
far. A rule that uses something without a block kernel is left to the host; nothing else changes.

Registers of a template: 0, 1, 2 the operands, 3 the output, 4 the cotangent, 5 and up the results of its
instructions, negative ``-1 - i`` the constant ``i``.
"""

import threading
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from nbad.kernels.block import C8, C16, F4, F8, ID, KERNELS
from nbad.table import Op, Pullback

OUTPUT, COTANGENT, FIRST = 3, 4, 5

#: States of a template.
UNKNOWN, READY, HOST = 0, 1, 2

KERNEL_OF = {
    np.add: "add",
    np.subtract: "sub",
    np.multiply: "mul",
    np.divide: "div",
    np.negative: "neg",
    np.reciprocal: "recip",
    np.square: "square",
    np.sqrt: "sqrt",
    np.cbrt: "cbrt",
    np.absolute: "abs",
    np.fabs: "abs",
    np.sign: "sign",
    np.conjugate: "conj",
    np.exp: "exp",
    np.expm1: "expm1",
    np.exp2: "exp2",
    np.log: "log",
    np.log1p: "log1p",
    np.log2: "log2",
    np.log10: "log10",
    np.sin: "sin",
    np.cos: "cos",
    np.tan: "tan",
    np.sinh: "sinh",
    np.cosh: "cosh",
    np.tanh: "tanh",
    np.arcsin: "arcsin",
    np.arccos: "arccos",
    np.arctan: "arctan",
    np.arcsinh: "arcsinh",
    np.arccosh: "arccosh",
    np.arctanh: "arctanh",
    np.power: "pow",
    np.arctan2: "arctan2",
    np.hypot: "hypot",
    np.maximum: "maximum",
    np.minimum: "minimum",
    np.fmax: "fmax",
    np.fmin: "fmin",
    np.floor: "floor",
    np.ceil: "ceil",
    np.trunc: "trunc",
    np.rint: "rint",
    np.remainder: "mod",
    np.fmod: "fmod",
    np.copysign: "copysign",
    np.logaddexp: "logaddexp",
    np.logaddexp2: "logaddexp2",
    np.less: "lt",
    np.less_equal: "le",
    np.greater: "gt",
    np.greater_equal: "ge",
    np.equal: "eq",
    np.not_equal: "ne",
    np.logical_and: "logical_and",
    np.logical_or: "logical_or",
    np.logical_not: "logical_not",
    np.isnan: "isnan",
    np.isfinite: "isfinite",
    np.isinf: "isinf",
    np.signbit: "signbit",
}
_BOOLEAN = {"and": "logical_and", "or": "logical_or", "invert": "logical_not"}


class _NotBlock(Exception):
    """The rule uses something that has no block kernel."""


class Programs:
    """Typed tables of all templates; they only grow, and an array that a sweep has seen is not written.

    Attributes
    ----------
    state : ndarray of uint8, shape (ops * 4,)
        UNKNOWN, READY or HOST for each op and dtype code.
    start : ndarray of int32, shape (ops * 4 * 3 + 1,)
        For op, dtype code and operand: first row in `code`; `length` and `result` beside it.
    code : ndarray of int32, shape (5 * rows,)
        Rows (kernel, a, b, c, result).
    constants : ndarray of float64
        Values of constants that rules contain.
    """

    def __init__(self) -> None:
        self.ops = 0
        self.state = np.zeros(0, np.uint8)
        self.start = np.zeros(0, np.int32)
        self.length = np.zeros(0, np.int32)
        self.result = np.zeros(0, np.int32)
        self.code = np.zeros(0, np.int32)
        self.constants = np.zeros(0, np.float64)
        self._lock = threading.Lock()

    def cover(self, ops: int) -> None:
        """Make room for `ops` opcodes."""
        if ops <= self.ops:
            return
        with self._lock:
            extra = ops - self.ops
            if extra <= 0:
                return
            self.state = np.concatenate([self.state, np.zeros(extra * 4, np.uint8)])
            self.start = np.concatenate([self.start, np.zeros(extra * 12, np.int32)])
            self.length = np.concatenate([self.length, np.zeros(extra * 12, np.int32)])
            self.result = np.concatenate([self.result, np.zeros(extra * 12, np.int32)])
            self.ops = ops

    def translate(self, op: Op, dtype_code: int) -> int:
        """Translate the rules of `op` for one dtype; return READY or HOST."""
        self.cover(op.opcode + 1)
        with self._lock:
            cell = op.opcode * 4 + dtype_code
            if self.state[cell] != UNKNOWN:
                return int(self.state[cell])
            # A sweep in another thread may hold the old arrays: what it sees as READY must be in its `code`.
            state = self.state.copy()
            try:
                if not op.elementwise or len(op.operands) > 3:
                    raise _NotBlock
                made = [None if p is None else _translate(op, p, dtype_code) for p in op.pullbacks]
            except _NotBlock:
                state[cell] = HOST
                self.state = state
                return HOST
            for k, template in enumerate(made):
                if template is None:
                    continue
                at = cell * 3 + k
                offset = self.constants.size
                rows, constants, result = template
                shift = [[r[0]] + [x - offset if x < 0 else x for x in r[1:4]] + [r[4]] for r in rows]
                self.start[at] = self.code.size
                self.length[at] = len(rows)
                self.result[at] = result - offset if result < 0 else result
                self.code = np.concatenate([self.code, np.array(shift, np.int32).reshape(-1)])
                self.constants = np.concatenate([self.constants, np.array(constants, np.float64)])
            state[cell] = READY
            self.state = state
            return READY

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the tables as they stand together."""
        with self._lock:
            return self.state, self.start, self.length, self.result, self.code, self.constants

    def kernels_of(self, op: Op, dtype_code: int) -> set[int]:
        """Return the kernels that the translated rules of `op` call."""
        found: set[int] = set()
        cell = op.opcode * 4 + dtype_code
        for k in range(len(op.operands)):
            at, length = int(self.start[3 * cell + k]), int(self.length[3 * cell + k])
            found.update(self.code[at : at + 5 * length : 5].tolist())
        return found


PROGRAMS = Programs()


class _Symbol(NDArrayOperatorsMixin):
    """A register while a rule is traced."""

    def __init__(self, writer: "_Writer", register: int) -> None:
        self.writer = writer
        self.register = register

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            raise _NotBlock
        return self.writer.ufunc(ufunc, inputs)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        if kwargs:
            raise _NotBlock
        if function is np.where and len(args) == 3:
            return self.writer.emit("where", args)
        if function in (np.real, np.conj) and not self.writer.is_complex:
            return args[0]
        raise _NotBlock

    def __and__(self, other: Any) -> Any:
        return self.writer.emit(_BOOLEAN["and"], (self, other))

    def __or__(self, other: Any) -> Any:
        return self.writer.emit(_BOOLEAN["or"], (self, other))

    def __invert__(self) -> Any:
        return self.writer.emit(_BOOLEAN["invert"], (self,))

    def __bool__(self) -> bool:
        raise _NotBlock

    @property
    def real(self) -> Any:
        """The real part."""
        return np.real(self)


class _Writer:
    """Collects the instructions of one rule."""

    def __init__(self, dtype_code: int) -> None:
        self.dtype_code = dtype_code
        self.is_complex = dtype_code in (C8, C16)
        self.rows: list[list[int]] = []
        self.constants: list[float] = []

    def ufunc(self, ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Any:
        if ufunc is np.positive or (ufunc is np.conjugate and not self.is_complex):
            return inputs[0]
        if ufunc is np.power and isinstance(inputs[1], (int, float)):
            short = {2: np.square, 1: np.positive, -1: np.reciprocal, 0.5: np.sqrt}.get(inputs[1])
            if short is not None:
                return self.ufunc(short, inputs[:1])
        if ufunc not in KERNEL_OF:
            raise _NotBlock
        return self.emit(KERNEL_OF[ufunc], inputs)

    def emit(self, name: str, inputs: tuple[Any, ...]) -> _Symbol:
        if name not in ID or self.dtype_code not in KERNELS[ID[name]].dtypes:
            raise _NotBlock
        registers = [self.register(x) for x in inputs]
        registers += [registers[0]] * (3 - len(registers))
        result = FIRST + len(self.rows)
        self.rows.append([ID[name], *registers, result])
        return _Symbol(self, result)

    def register(self, value: Any) -> int:
        if isinstance(value, _Symbol):
            return value.register
        if not isinstance(value, (bool, int, float, np.bool_)):
            raise _NotBlock
        self.constants.append(float(value))
        return -len(self.constants)


def _translate(op: Op, pullback: Pullback, dtype_code: int) -> tuple[list[list[int]], list[float], int]:
    """Return instructions, constants and the result register of one rule."""
    writer = _Writer(dtype_code)
    arguments = []
    for read in pullback.reads:
        if read.kind == "operand":
            arguments.append(_Symbol(writer, read.index))
        elif read.kind == "y":
            arguments.append(_Symbol(writer, OUTPUT))
        elif read.kind == "g":
            arguments.append(_Symbol(writer, COTANGENT))
        else:
            raise _NotBlock
    try:
        result = pullback.rule(*arguments)
    except TypeError as error:
        raise _NotBlock from error
    if not isinstance(result, _Symbol) or result.register < COTANGENT:
        raise _NotBlock
    if any(row[0] == ID["sum"] for row in writer.rows):
        raise _NotBlock
    return writer.rows, writer.constants, result.register


__all__ = [
    "C8",
    "C16",
    "COTANGENT",
    "F4",
    "F8",
    "FIRST",
    "HOST",
    "OUTPUT",
    "PROGRAMS",
    "READY",
    "UNKNOWN",
    "Programs",
]
