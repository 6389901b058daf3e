"""Operations with rules of the user's own.

Owns `primitive`: the same rows as the built-in operations have (`nbad.table`), with the checks that rules
written elsewhere need. Must not know how a tape is swept.
"""

import functools
import inspect
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nbad.errors import InputTypeError, NoRuleError, RuleError, where
from nbad.keeping import operand
from nbad.methods import user_line
from nbad.table import TABLE, Function, Op, add_row
from nbad.tape import encode
from nbad.trace import Traced, apply, carries_derivative

__all__ = ["Primitive", "primitive"]

#: Keywords of `primitive` itself, so no operand can have them.
_OPTIONS = ("shared", "outputs", "name")
#: Opcodes are uint16 on the tape.
_MOST_ROWS = 1 << 16
#: What the pass over the tape can tell apart (`nbad.activity`).
_MOST_SHARED = 16
_NUMBERS = (np.generic, float, int, complex)
_FLOATING = frozenset(map(np.dtype, ("f4", "f8", "c8", "c16")))


class Primitive:
    """A function with rules; made by `primitive`.

    It is called like the function it was made from, without the shared values: operands by position or name,
    attributes by name. Arrays may be plain or traced.

    Attributes
    ----------
    op : Op
        Its row of the table.
    """

    def __init__(self, function: Function, op: Op) -> None:
        functools.update_wrapper(self, function)
        parameters = inspect.signature(function).parameters.values()
        hidden = {read.name for read in op.forward_reads}
        self.op = op
        self.__signature__ = inspect.Signature([p for p in parameters if p.name not in hidden])
        self._defaults = {p.name: p.default for p in parameters if p.name in op.attributes}
        # Calls with all operands by position and no keywords need no sorting.
        self._direct = not op.variadic and inspect.Parameter.empty not in self._defaults.values()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the function's value; record a node where an operand is traced."""
        op = self.op
        if self._direct and not kwargs and len(args) == len(op.operands):
            operands, attributes = args, self._defaults
        else:
            operands, attributes = self._bound(args, kwargs)
        for name, value in attributes.items():
            self._check_attribute(name, value)
        if not any(type(x) is Traced for x in operands):
            return apply(op, *operands, **attributes)
        names = op.operands * len(operands) if op.variadic else op.operands
        for name, value in zip(names, operands, strict=True):
            if name in op.missing and carries_derivative(value):
                raise NoRuleError.of(
                    f"operand {name!r} of {op.name}",
                    at=user_line(),
                    instead=f"Give it a pullback, {name}=..., or {name}=None where no derivative passes.",
                )
            if isinstance(value, (dict, str, bytes)) or value is None:
                raise InputTypeError(
                    f"{op.name}: operand {name!r} is of type {type(value).__name__}, not an array",
                    at=user_line(),
                    fix="Pass the arrays one by one; make static values keyword-only parameters.",
                )
        return apply(op, *map(operand, operands), **attributes)

    def __repr__(self) -> str:
        """Show the name."""
        return f"<nbad.primitive {self.op.name}>"

    def __reduce__(self) -> str:
        """Pickle by name, as functions are."""
        return str(getattr(self, "__qualname__", self.op.name))

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort the arguments of a call into operands and attributes, defaults filled in."""
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.op.name}: {error}") from None
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def _check_attribute(self, name: str, value: Any) -> None:
        problem = None
        if isinstance(value, (Traced, np.ndarray)):
            problem = (
                "it is an array; make it an operand (None as its pullback says that no derivative passes)"
            )
        else:
            try:
                encode(value, array("q"))
            except RuleError as error:
                problem = error.what
        if problem is not None:
            raise RuleError(
                f"{self.op.name}: the attribute {name!r} cannot be recorded: {problem}", at=user_line()
            )


def primitive(
    *,
    shared: Mapping[str, Function] | None = None,
    outputs: int = 1,
    name: str | None = None,
    **pullbacks: Function | None,
) -> Callable[[Function], Primitive]:
    """Make an operation with rules from a plain function: a decorator.

    The function is the forward. Its positional parameters are the operands (or ``*xs``, any number of them),
    its keyword-only parameters are attributes (static ints, floats, bools, strings, slices, None, tuples of
    these; defaults as usual) or bear the names of shared values, which it is then given.

    A pullback is a plain function whose parameter names say what it reads. Nothing else is kept for it, and
    it runs only if somebody asked for what it computes.

    ===================  ==========================================================================
    parameter            value
    ===================  ==========================================================================
    ``g``                cotangent of the output; a tuple, None where unused, with several outputs
    ``y``                the output; a tuple with several
    an operand's name    that operand
    ``x_shape``          shape of the operand ``x`` (``y_shape``: of the output), without keeping it
    ``x_dtype``          its dtype
    an attribute's name  that attribute
    a shared name        that shared value
    ``k``, ``others``    with ``*xs``: which operand is asked for; all operands, None at place ``k``
    ===================  ==========================================================================

    Parameters
    ----------
    shared : mapping of str to callable, optional
        Values that several rules read, as functions of the same kind; one may read another that stands before
        it. Each is computed at most once: while recording if it reads neither `g` nor `y` and a pullback that
        may run reads it, else in the sweep, on demand.
    outputs : int
        Number of outputs; with more than one the forward returns a tuple.
    name : str, optional
        Name in reports and messages; default the function's.
    **pullbacks : callable or None
        One per operand, by its name. None says that no derivative passes through the operand; an operand that
        is left out cannot be differentiated, and asking for it is an error.

    Returns
    -------
    callable
        The decorator, which gives a `Primitive`.

    Raises
    ------
    RuleError
        At the definition: a parameter that names nothing, a reserved name (``g``, ``y``, ``k``, ``others``),
        a pullback for what is no operand. At a call: a forward that returns no array, an attribute that is
        not static. In the sweep: a pullback that returns no array, or one that cannot be summed to the
        operand's shape.

    Notes
    -----
    What nbad does for a rule: it sums the returned cotangent over dimensions that broadcasting added, takes
    the real part for a real operand, casts to the operand's dtype, and accumulates. Under the real inner
    product Re(conj(a) b) the pullback is the adjoint of the derivative: for ``y = c * x`` it is ``g *
    np.conj(c)``.

    A rule must not write into what it reads, and must not branch on the value of `g`.

    Derivatives of higher order run the rules on traced values. A rule of operators, ``np.*`` and other
    primitives has all orders. A rule that calls anything else (compiled code, SciPy, ``float``) has the first
    order only: at the second, the call raises (mostly a `DetachError` or `NoRuleError`) with the line of the
    rule and a note that says so. The forward always runs on plain arrays, so it may call anything.

    Define primitives once, at module level: each one is a row of a table that lives as long as the process.

    Examples
    --------
    A cyclic convolution. Asked for ``u``, it keeps the spectrum of ``v`` and nothing else:

    >>> import numpy as np
    >>> import nbad
    >>> def u_hat(u):
    ...     return np.fft.rfft(u)
    >>> def v_hat(v):
    ...     return np.fft.rfft(v)
    >>> def g_hat(g):
    ...     return np.fft.rfft(g)
    >>> def conv_u(g_hat, v_hat, u_shape):
    ...     return np.fft.irfft(g_hat * np.conj(v_hat), u_shape[-1])
    >>> def conv_v(g_hat, u_hat, v_shape):
    ...     return np.fft.irfft(g_hat * np.conj(u_hat), v_shape[-1])
    >>> @nbad.primitive(shared={"u_hat": u_hat, "v_hat": v_hat, "g_hat": g_hat}, u=conv_u, v=conv_v)
    ... def conv(u, v, *, u_hat, v_hat):
    ...     return np.fft.irfft(u_hat * v_hat, u.shape[-1])
    >>> u, v = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0])
    >>> with nbad.report() as account:
    ...     gradient = nbad.grad(lambda u, v: np.sum(conv(u, v) ** 2))(u, v)
    >>> np.round(gradient, 12)
    array([2., 4., 6.])
    >>> account.run("conv", "u"), account.run("conv", "v"), account.skipped("conv", "v")
    (1, 0, 1)
    """
    if not isinstance(outputs, int) or isinstance(outputs, bool) or outputs < 1:
        raise RuleError(f"primitive: outputs must be a positive int, not {outputs!r}")

    def decorate(function: Function) -> Primitive:
        if not callable(function):
            raise RuleError(f"primitive: it decorates a function, not {type(function).__name__}")
        title = name or str(getattr(function, "__name__", type(function).__name__))
        if len(TABLE) >= _MOST_ROWS:
            raise RuleError(f"{title}: there are too many primitives; define them once, at module level")
        rules = {
            key: None if rule is None else _checked_rule(title, key, rule) for key, rule in pullbacks.items()
        }
        values = {key: _checked_shared(title, key, rule) for key, rule in (shared or {}).items()}
        if len(values) > _MOST_SHARED:
            raise RuleError(f"{title}: more than {_MOST_SHARED} shared values")
        forward = _Forward(function, title, outputs)
        op = add_row(forward, rules, name=title, shared=values, outputs=outputs)
        op.foreign = True
        for operand_name in op.operands:
            if operand_name in _OPTIONS:
                raise RuleError.reserved(title, operand_name, _OPTIONS)
        forward.op = op
        op.missing = frozenset(op.operands) - frozenset(pullbacks)
        return Primitive(function, op)

    return decorate


class _Forward:
    """A user's forward: runs on plain values only, and its result is checked."""

    op: Op

    def __init__(self, function: Function, title: str, outputs: int) -> None:
        functools.update_wrapper(self, function)
        self.__module__ = getattr(function, "__module__", None) or "__main__"
        self.function = function
        self.title = title
        self.outputs = outputs

    def __call__(self, *operands: Any, **options: Any) -> Any:
        if any(type(x) is Traced for x in operands):
            # An outer transformation is watching: it records this operation, not what the forward does
            # inside.
            return apply(self.op, *operands, **{a: options[a] for a in self.op.attributes})
        given = operands
        operands = tuple(map(_locked, given))
        result = _unlocked(self.function(*operands, **options), given, operands)
        operands = given
        if self.outputs == 1:
            return self._checked(result, operands)
        if not isinstance(result, tuple) or len(result) != self.outputs:
            found = (
                f"{type(result).__name__} of {len(result)}"
                if isinstance(result, tuple)
                else type(result).__name__
            )
            raise RuleError(
                f"{self.title}: the forward must return a tuple of {self.outputs} arrays, not a {found}",
                at=_place(self.function),
            )
        return tuple(self._checked(y, operands) for y in result)

    def _checked(self, y: Any, operands: tuple[Any, ...]) -> Any:
        kind = type(y)
        if kind is np.ndarray:
            if y.dtype in _FLOATING or y.dtype.kind in "iub":
                # A result that is an operand itself becomes a view, so that both are watched for changes.
                return y.view() if any(y is x for x in operands) else y
            found = f"an array of dtype {y.dtype}"
        elif kind is float or kind is complex:
            return y
        elif kind is int or kind is bool:
            return np.asarray(y)
        elif isinstance(y, np.generic) and (y.dtype in _FLOATING or y.dtype.kind in "iub"):
            return y if y.dtype in _FLOATING else np.asarray(y)
        elif isinstance(y, np.ndarray) and not isinstance(y, (np.ma.MaskedArray, np.matrix)):
            return self._checked(y.view(np.ndarray), operands)
        else:
            found = f"of type {kind.__name__}"
        raise RuleError(
            f"{self.title}: the forward must return an array of float32, float64, complex64 or complex128; "
            f"what it returned is {found}",
            at=_place(self.function),
        )


def _locked(value: Any) -> Any:
    """Return a read-only view of an array: a forward or rule that wrote into it would spoil other gradients unseen."""
    if type(value) is tuple:
        return tuple(map(_locked, value))
    if type(value) is not np.ndarray:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _unlocked(result: Any, given: tuple[Any, ...], locked: tuple[Any, ...]) -> Any:
    """Return a forward's result, writeable again where it is memory of an operand that was."""
    if type(result) is tuple:
        return tuple(_unlocked(y, given, locked) for y in result)
    if type(result) is not np.ndarray or result.flags.writeable:
        return result
    for before, after in zip(given, locked, strict=True):
        if result is after:
            return before
        if type(before) is np.ndarray and before.flags.writeable and np.may_share_memory(result, before):
            result = result.view()
            result.flags.writeable = True
            return result
    return result


def _place(function: Function) -> str | None:
    """Return the line where a function is defined."""
    code = getattr(function, "__code__", None)
    return None if code is None else where(code.co_filename, code.co_firstlineno)


def _holds_traced(value: Any) -> bool:
    return type(value) is Traced or (isinstance(value, (tuple, list)) and any(map(_holds_traced, value)))


def _guarded(title: str, what: str, rule: Function) -> Function:
    """Return `rule`, called by position, with a note on errors that come of traced values."""
    if not callable(rule):
        raise RuleError(f"{title}: {what} is not a function but of type {type(rule).__name__}")
    by_name = [p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(rule)
    def guarded(*values: Any) -> Any:
        values = tuple(map(_locked, values))
        try:
            if not by_name:
                return rule(*values)
            split = len(values) - len(by_name)
            return rule(*values[:split], **dict(zip(by_name, values[split:], strict=True)))
        except Exception as error:
            if any(map(_holds_traced, values)):
                error.add_note(
                    f"This was {what} of {title} on traced values, for a derivative of higher order: it "
                    "has one only if it is written with operators, np.* and other primitives."
                )
            raise

    return guarded


def _checked_rule(title: str, key: str, rule: Function) -> Function:
    """Return the pullback `rule` of operand `key` with a check of what it returns."""
    guarded = _guarded(title, f"the pullback of {key!r}", rule)

    @functools.wraps(rule)
    def checked(*values: Any) -> Any:
        cotangent = guarded(*values)
        kind = type(cotangent)
        if kind is np.ndarray or kind is Traced or isinstance(cotangent, _NUMBERS):
            if kind is Traced or np.result_type(cotangent).kind in "fciub":
                return cotangent
            found = f"an array of dtype {cotangent.dtype}"
        elif isinstance(cotangent, np.ndarray) and not isinstance(cotangent, (np.ma.MaskedArray, np.matrix)):
            return cotangent.view(np.ndarray)
        else:
            found = "None" if cotangent is None else f"of type {kind.__name__}"
        raise RuleError(
            f"the pullback of {title} for {key} must return an array; what it returned is {found}",
            at=_place(rule),
        )

    return checked


def _checked_shared(title: str, key: str, rule: Function) -> Function:
    """Return the shared function `rule` with a check that it returns something."""
    guarded = _guarded(title, f"the shared value {key!r}", rule)

    @functools.wraps(rule)
    def checked(*values: Any) -> Any:
        made = guarded(*values)
        if made is None:
            raise RuleError(
                f"{title}: the shared value {key!r} is None; its function must return a value",
                at=_place(rule),
            )
        return made

    return checked
