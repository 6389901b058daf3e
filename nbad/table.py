"""The op table: one row per operation, its rules, and what each rule reads.

Owns `Op` rows, opcodes, the reading of rule signatures, and the dictionaries that say which NumPy function leads
to which row. Must not know how a call is recorded or swept.

A row is made from plain functions. The forward's positional parameters are the operands, its keyword-only parameters are
the attributes (static ints, floats, strings, tuples) or the names of shared values. A pullback's parameter names say what it
reads; nothing else is ever kept for it.

===================  ==========================================================================
parameter            value
===================  ==========================================================================
``g``                cotangent of the output (a tuple with None members when the op has several outputs)
``y``                the output (a tuple when the op has several)
an operand's name    that operand
``x_shape``          shape of operand ``x``, ``x_dtype`` its dtype (``y_shape``, ``y_dtype`` for the output)
an attribute's name  that attribute
a shared name        the shared value, computed once
``k``                variadic ops: the position of the operand asked for
``others``           variadic ops: all operands, None at place ``k``
``xs``               variadic ops (operands declared ``*xs``): all operands; ``xs_shapes``, ``xs_dtypes``
===================  ==========================================================================
"""

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nbad.encoding import Call
from nbad.errors import RuleError

RESERVED = ("g", "y", "k", "others")

#: Everything a rule, a forward or a binding may be: a plain function.
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Read:
    """One parameter of a rule: what it names.

    `kind` is one of "g", "y", "operand", "attribute", "shared", "shape", "dtype", "k", "others", "operands",
    "shapes", "dtypes"; `index` the position of the operand, attribute or shared value (-1 for the output).
    """

    kind: str
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Pullback:
    """The cotangent map of one operand: a plain function and what its parameters name."""

    rule: Function
    reads: tuple[Read, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """A value that several rules of a row may read, computed at most once.

    `at_forward` is true when it reads only primals: then it is computed while recording, if a pullback that can
    run reads it; otherwise on demand in the sweep.
    """

    name: str
    function: Function
    reads: tuple[Read, ...]
    at_forward: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """What must be kept of a node for one set of varied operands."""

    operands: tuple[int, ...]
    output: bool
    shared: tuple[int, ...]


class Kernel(Protocol):
    """A jitted replacement of a row's forward and pullbacks, used when every value is a plain ndarray.

    It must agree with the rules (the law tests compare them).
    """

    def forward(
        self, operands: tuple[Any, ...], attributes: Mapping[str, Any], wanted: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the output and the `wanted` shared values."""

    def pullback(
        self,
        asked: tuple[int, ...],
        g: np.ndarray,
        shared: Mapping[str, Any],
        shapes: tuple[tuple[int, ...], ...],
        attributes: Mapping[str, Any],
    ) -> dict[int, np.ndarray]:
        """Return the cotangent of each asked operand, doing what they share once."""


@dataclass(slots=True, eq=False)
class Op:
    """One row of the table."""

    name: str
    opcode: int
    forward: Function
    operands: tuple[str, ...]
    variadic: bool
    attributes: tuple[str, ...]
    outputs: int
    pullbacks: tuple[Pullback | None, ...]
    shared: tuple[Shared, ...]
    forward_reads: tuple[Read, ...]
    elementwise: bool = False
    linear: bool = False
    kernel: Kernel | None = None
    together: Any = None  # does the pullbacks of all asked operands at once: see `nbad.regions`
    metadata: bool = False  # a rule reads shapes or dtypes of operands, so constants need a slot too
    hidden: tuple[int, ...] = ()  # positions in `shared` of the values made at forward time
    foreign: bool = False  # the user's: its outputs may live in memory that he holds
    missing: frozenset[str] = frozenset()  # the user's: operands that no rule was given for, not even None
    #: for ops of one or two operands, by the bitmask of varied operands: whether a, b and y are kept
    fast: tuple[tuple[bool, bool, bool], ...] = ()
    _keep: dict[int, Keep] = field(default_factory=dict)

    def pullback_of(self, k: int) -> Pullback | None:
        """Return the pullback of operand `k`."""
        return self.pullbacks[0 if self.variadic else k]

    def keep(self, varied: int) -> Keep:
        """Return what to keep when the operands in the bitmask `varied` carry a derivative."""
        found = self._keep.get(varied)
        if found is None:
            count = varied.bit_length() if self.variadic else len(self.operands)
            found = self._needed([k for k in range(count) if varied >> k & 1], count)
            if varied < 256:
                self._keep[varied] = found
        return found

    def keep_variadic(self, varied: list[int], count: int, attributes: Any = None) -> Keep:
        """Return what to keep of a variadic op with `count` operands, those at places `varied` carrying a derivative."""
        named = self.together is not None and attributes
        return self.together.keep(varied, attributes) if named else self._needed(varied, count)

    def _needed(self, varied: Iterable[int], count: int) -> Keep:
        operands: set[int] = set()
        shared: set[int] = set()
        output = False
        for k in varied:
            pullback = self.pullback_of(k)
            if pullback is None:
                continue
            todo = list(pullback.reads)
            while todo:
                read = todo.pop()
                if read.kind == "operand":
                    operands.add(read.index)
                elif read.kind == "operands":
                    operands.update(range(count))
                elif read.kind == "others":
                    operands.update(j for j in range(count) if j != k)
                elif read.kind == "y":
                    output = True
                elif read.kind == "shared" and self.shared[read.index].at_forward:
                    shared.add(read.index)
                elif read.kind == "shared":
                    todo.extend(self.shared[read.index].reads)
        return Keep(tuple(sorted(operands)), output, tuple(sorted(shared)))

    @property
    def constant(self) -> bool:
        """No derivative passes: no operand has a pullback, and none lacks one by mistake."""
        return not self.missing and all(pullback is None for pullback in self.pullbacks)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


#: All rows; the opcode of a row is its position.
TABLE: list[Op] = []
#: The row that a ufunc leads to.
UFUNCS: dict[np.ufunc, Op] = {}
#: What NumPy function (or ufunc with a composed form) is replaced by which function of ours.
BINDINGS: dict[Function, Function] = {}
#: NumPy functions and ufuncs whose results carry no derivative: called on plain values. Recording tapes have a row
#: for each; None where the result depends on shapes and dtypes only.
CONSTANT: dict[Function, Op | None] = {}

_lock = threading.Lock()


def operation(
    forward: Function,
    /,
    *,
    name: str | None = None,
    shared: Mapping[str, Function] | None = None,
    outputs: int = 1,
    linear: bool = False,
    kernel: Kernel | None = None,
    **pullbacks: Function | None,
) -> Op:
    """Add a row to the table.

    Parameters
    ----------
    forward : callable
        Plain function of values; positional parameters are operands (``*xs``: any number), keyword-only ones attributes or
        shared names.
    name : str, optional
        Name of the op; default the forward's name without a trailing ``_forward``.
    shared : mapping of str to callable, optional
        Shared values by name.
    outputs : int
        Number of outputs; more than one means that `forward` returns a tuple.
    linear : bool
        The op is linear in its operands taken together (its pullbacks do not read primals).
    kernel : Kernel, optional
        Jitted replacement for plain ndarrays.
    **pullbacks : callable or None
        One per operand, by the operand's name; an operand without one carries no derivative.

    Returns
    -------
    Op
        The new row.

    Raises
    ------
    RuleError
        A reserved or unknown parameter name, a pullback for an operand that does not exist, a circular shared value.

    Examples
    --------
    >>> def scale_forward(x, *, factor):
    ...     return x * factor
    >>> def scale_x(g, factor):
    ...     return g * factor
    >>> operation(scale_forward, x=scale_x)
    <op scale>
    """
    return add_row(
        forward, pullbacks, name=name, shared=shared, outputs=outputs, linear=linear, kernel=kernel
    )


def add_row(
    forward: Function,
    pullbacks: Mapping[str, Function | None],
    *,
    name: str | None = None,
    shared: Mapping[str, Function] | None = None,
    outputs: int = 1,
    linear: bool = False,
    kernel: Kernel | None = None,
) -> Op:
    """Add a row as `operation` does; operands may bear the names of its options (``kernel``)."""
    name = name or forward.__name__.removesuffix("_forward")
    operands, variadic, options = _parameters(forward, name)
    shared = dict(shared or {})
    attributes = tuple(o for o in options if o not in shared)
    for bad in (*operands, *attributes, *shared):
        if bad in RESERVED:
            raise RuleError(
                f"{name}: {bad!r} is reserved in rules and cannot name an operand, attribute or shared value"
            )
    for operand in pullbacks:
        if operand not in operands:
            raise RuleError(
                f"{name}: a pullback is given for {operand!r}, which is not an operand; the operands are {operands}"
            )
    scope = _Scope(name, operands, variadic, attributes, tuple(shared))
    rows_shared = _shared_rows(scope, shared)
    rows = tuple(
        None if (rule := pullbacks.get(operand)) is None else Pullback(rule, scope.reads(rule))
        for operand in operands
    )
    forward_reads = tuple(Read("shared", list(shared).index(o), o) for o in options if o in shared)
    for read in forward_reads:
        if not rows_shared[read.index].at_forward:
            raise RuleError(f"{name}: the forward names the shared value {read.name!r}, which reads g or y")
    with _lock:
        op = Op(
            name=name,
            opcode=len(TABLE),
            forward=forward,
            operands=operands,
            variadic=variadic,
            attributes=attributes,
            outputs=outputs,
            pullbacks=rows,
            shared=rows_shared,
            forward_reads=forward_reads,
            linear=linear,
            kernel=kernel,
            metadata=_reads_metadata(rows, rows_shared),
            hidden=tuple(i for i, s in enumerate(rows_shared) if s.at_forward),
        )
        TABLE.append(op)
    return op


def elementwise(forward: Function, /, *, name: str | None = None, catch: bool = True, **pullbacks: Any) -> Op:
    """Add an elementwise row: operand names are the keywords, None for an operand that passes nothing back.

    If `forward` is a ufunc it is caught by this row, unless `catch` is false.

    Examples
    --------
    >>> def twice_x(g):
    ...     return g + g
    >>> elementwise(np.positive, name="twice", x=twice_x).elementwise
    True
    """
    is_ufunc = isinstance(forward, np.ufunc)
    name = name or str(getattr(forward, "__name__", forward))
    operands = tuple(pullbacks)
    for bad in operands:
        if bad in RESERVED:
            raise RuleError(f"{name}: {bad!r} is reserved in rules and cannot name an operand")
    scope = _Scope(name, operands, False, (), ())
    rows = tuple(None if rule is None else Pullback(rule, scope.reads(rule)) for rule in pullbacks.values())
    if _reads_metadata(rows, ()):
        raise RuleError(f"{name}: an elementwise rule may read operands, y and g, not shapes or dtypes")
    with _lock:
        op = Op(
            name=name,
            opcode=len(TABLE),
            forward=forward,
            operands=operands,
            variadic=False,
            attributes=(),
            outputs=1,
            pullbacks=rows,
            shared=(),
            forward_reads=(),
            elementwise=True,
        )
        op.fast = tuple((0 in k.operands, 1 in k.operands, k.output) for k in map(op.keep, range(4)))
        TABLE.append(op)
        if catch and is_ufunc and forward not in UFUNCS:
            UFUNCS[forward] = op  # type: ignore[index]
    return op


def binds(*functions: Function) -> Callable[[Function], Function]:
    """Register the decorated function as what nbad runs when NumPy's `functions` meet a traced value."""

    def register(binding: Function) -> Function:
        for function in functions:
            BINDINGS[function] = binding
        return binding

    return register


def constant(*functions: Function) -> None:
    """Register NumPy functions whose results carry no derivative (comparisons, rounding, index functions)."""
    CONSTANT.update((f, forward_only(f)) for f in functions if f not in CONSTANT)


def metadata(*functions: Function) -> None:
    """Register NumPy functions whose results depend on shapes and dtypes only."""
    CONSTANT.update(dict.fromkeys(functions))


def forward_only(function: Function, name: str | None = None) -> Op:
    """Add a row without pullbacks for a function: elementwise for a ufunc, else any call of it (`nbad.encoding`)."""
    name = name or function.__name__
    if isinstance(function, np.ufunc):
        operands = "ab" if function.nin == 2 else "x"
        return elementwise(function, name=name, catch=False, **dict.fromkeys(operands))
    return add_row(Call(function), {}, name=name)


def _parameters(forward: Function, name: str) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    operands: list[str] = []
    options: list[str] = []
    variadic = False
    for p in inspect.signature(forward).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            if operands:
                raise RuleError(
                    f"{name}: a variadic forward takes only *{p.name}, not fixed operands before it"
                )
            operands.append(p.name)
            variadic = True
        elif p.kind is p.KEYWORD_ONLY:
            options.append(p.name)
        elif p.kind is p.VAR_KEYWORD:
            raise RuleError(f"{name}: **{p.name} in a forward names nothing; spell the attributes out")
        else:
            operands.append(p.name)
    if not operands:
        raise RuleError(f"{name}: the forward has no operand")
    return tuple(operands), variadic, tuple(options)


def _reads_metadata(rows: tuple[Pullback | None, ...], shared: tuple[Shared, ...]) -> bool:
    reads = [r for p in rows if p is not None for r in p.reads] + [r for s in shared for r in s.reads]
    return any(
        r.kind in ("shape", "dtype", "shapes", "dtypes") and not r.name.startswith("y_") for r in reads
    )


@dataclass(frozen=True, slots=True)
class _Scope:
    """The names that the rules of one row may read."""

    name: str
    operands: tuple[str, ...]
    variadic: bool
    attributes: tuple[str, ...]
    shared: tuple[str, ...]

    def reads(self, rule: Function) -> tuple[Read, ...]:
        found = []
        for p in inspect.signature(rule).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise RuleError(
                    f"{self.name}: the rule {rule.__name__} has *{p.name}; parameters name what a rule reads"
                )
            read = self._read(p.name)
            if read is None:
                known = ", ".join(self._known())
                raise RuleError(
                    f"{self.name}: the rule {rule.__name__} reads {p.name!r}, which names nothing here; it may read: {known}"
                )
            found.append(read)
        return tuple(found)

    def _known(self) -> list[str]:
        metadata = [
            f"{o}_{m}{'s' if self.variadic else ''}" for o in self.operands for m in ("shape", "dtype")
        ]
        extra = ["k", "others"] if self.variadic else []
        return [
            "g",
            "y",
            *self.operands,
            *self.attributes,
            *self.shared,
            *metadata,
            "y_shape",
            "y_dtype",
            *extra,
        ]

    def _read(self, name: str) -> Read | None:
        if name in self.operands:
            return Read("operands" if self.variadic else "operand", self.operands.index(name), name)
        if name in self.attributes:
            return Read("attribute", self.attributes.index(name), name)
        if name in self.shared:
            return Read("shared", self.shared.index(name), name)
        if name in ("g", "y"):
            return Read(name, -1, name)
        if self.variadic and name in ("k", "others"):
            return Read(name, -1, name)
        for kind in ("shape", "dtype"):
            plural = name.removesuffix(f"_{kind}s")
            if self.variadic and plural != name and plural in self.operands:
                return Read(f"{kind}s", -1, name)
            single = name.removesuffix(f"_{kind}")
            if single != name and single == "y":
                return Read(kind, -1, name)
            if not self.variadic and single != name and single in self.operands:
                return Read(kind, self.operands.index(single), name)
        return None


def _shared_rows(scope: _Scope, shared: Mapping[str, Function]) -> tuple[Shared, ...]:
    """Read the shared functions; one may read another that stands before it."""
    rows: list[Shared] = []
    for position, (name, function) in enumerate(shared.items()):
        reads = scope.reads(function)
        at_forward = True
        for read in reads:
            if read.kind == "shared":
                if read.index >= position:
                    raise RuleError(
                        f"{scope.name}: the shared value {name!r} reads {read.name!r}, which stands after it"
                    )
                at_forward = at_forward and rows[read.index].at_forward
            elif read.kind in ("g", "y", "k", "others"):
                at_forward = False
                if read.kind in ("k", "others"):
                    raise RuleError(
                        f"{scope.name}: the shared value {name!r} reads {read.name!r}, which only a pullback has"
                    )
        rows.append(Shared(name, function, reads, at_forward))
    return tuple(rows)
