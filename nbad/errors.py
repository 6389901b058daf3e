"""Exception classes and their messages.

Owns what every error of nbad says: what happened, where (the user's source line) and what to do instead.
Must not import another module of nbad. All classes derive from `NbadError`, and also from the built-in
class that NumPy would have raised, so that existing ``except`` clauses keep working.

Each class takes a plain message, ``InputTypeError("...")``, with ``at=`` for the source line and ``fix=``
for the way out. The class methods spell the messages that several modules need.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

__all__ = [
    "ConvergenceError",
    "DetachError",
    "EscapedTraceError",
    "InputTypeError",
    "KernelError",
    "MutationError",
    "NbadError",
    "NoRuleError",
    "NonFiniteError",
    "NonScalarOutputError",
    "RuleError",
    "TapeError",
    "WrtError",
    "where",
]


def where(filename: str, lineno: int) -> str:
    """Format a source line as ``file:line: code``.

    Parameters
    ----------
    filename : str
        Name of a source file as in a code object, also ``<stdin>`` and the like.
    lineno : int
        Line number, from 1.

    Returns
    -------
    str
        ``file:line: code``, or ``file:line`` where the source cannot be read.

    Examples
    --------
    >>> where("<nowhere>", 3)
    '<nowhere>:3'
    """
    code = linecache.getline(filename, lineno).strip()
    return f"{filename}:{lineno}: {code}" if code else f"{filename}:{lineno}"


def _listed(names: Iterable[object], limit: int = 12) -> str:
    """Join at most `limit` names for a message; the rest is counted."""
    texts = [str(name) for name in names]
    if not texts:
        return "none"
    rest = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {rest} more" if rest > 0 else "")


class NbadError(Exception):
    """Base class of all errors that nbad raises by itself.

    Parameters
    ----------
    what : str
        What happened, naming the argument and the operation.
    at : str, optional
        The source line, as `where` formats it.
    fix : str, optional
        What to do instead.
    """

    def __init__(self, what: str, *, at: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.at = at
        self.fix = fix
        lines = [what]
        if at:
            lines.append(f"  at {at}")
        if fix:
            lines.append(f"  {fix}")
        super().__init__("\n".join(lines))


class NonScalarOutputError(NbadError, TypeError):
    """A gradient was asked of a function whose value is not one real floating-point number."""

    @classmethod
    def of(cls, transform: str, output: object, *, at: str | None = None) -> Self:
        """Describe the output that `transform` cannot start from.

        Parameters
        ----------
        transform : str
            Name of the transformation, such as ``grad``.
        output : object
            What the function returned; anything with ``shape`` and ``dtype`` is described by these.
        at : str, optional
            The source line.

        Returns
        -------
        NonScalarOutputError
            The error, to be raised.
        """
        shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
        if shape is None or dtype is None:
            if isinstance(output, complex | int):
                shape, dtype = (), np.dtype(type(output))
            else:
                return cls(
                    f"{transform}: the function returned {type(output).__name__}, not one real number",
                    at=at,
                    fix="Return the loss alone, or (loss, anything) with has_aux=True.",
                )
        if tuple(shape) != ():
            return cls(
                f"{transform}: the function returned an array of shape {tuple(shape)}, not one real number",
                at=at,
                fix="Reduce it, for instance with .sum(), or use nbad.vjp with a cotangent of that shape.",
            )
        if np.dtype(dtype).kind == "c":
            return cls(
                f"{transform}: the function returned a {np.dtype(dtype)} number, not a real one",
                at=at,
                fix="Return its real part or np.abs(z)**2, or use nbad.vjp with a complex cotangent.",
            )
        return cls(
            f"{transform}: the function returned a {np.dtype(dtype)} number, which carries no derivative",
            at=at,
            fix="Return a floating-point value that is computed from the asked-for arguments.",
        )


class InputTypeError(NbadError, TypeError):
    """A gradient was asked with respect to something that has none, or a container is malformed."""

    @classmethod
    def of(cls, argument: str, value: object, *, at: str | None = None) -> Self:
        """Describe why `value` cannot be differentiated and how to cast it.

        Parameters
        ----------
        argument : str
            The argument as the user knows it, such as ``'x'`` or ``params.psf``.
        value : object
            What was passed.
        at : str, optional
            The source line.

        Returns
        -------
        InputTypeError
            The error, to be raised.
        """
        if isinstance(value, np.ma.MaskedArray):
            what, fix = (
                "a masked array",
                "Pass x.filled(0.0) and the mask as an array of weights.",
            )
        elif isinstance(value, np.matrix):
            what, fix = "an np.matrix", "Pass np.asarray(x); use @ for the matrix product."
        elif isinstance(value, np.ndarray | np.generic):
            dtype = value.dtype
            if dtype.names is not None:
                what, fix = "a structured array", "Pass its fields, x['name'], as separate arrays or a dict."
            elif dtype.kind == "O":
                what, fix = "an array of objects", "Convert it with x.astype(np.float64)."
            elif dtype.kind in "iub":
                what, fix = (
                    f"of dtype {dtype}",
                    "Cast it, x.astype(np.float64), or leave it out of wrt.",
                )
            else:
                what = f"of dtype {dtype}"
                fix = "Differentiable are float32, float64, complex64 and complex128."
        elif isinstance(value, bool | int):
            what, fix = f"a Python {type(value).__name__}", "Pass float(x), or leave it out of wrt."
        else:
            what = f"of type {type(value).__module__}.{type(value).__qualname__}"
            fix = "Pass an array or a float, or make its class a container with nbad.register."
        return cls(f"cannot differentiate with respect to {argument}: it is {what}", at=at, fix=fix)


class WrtError(NbadError, ValueError):
    """``wrt`` names a position, a name or a path that does not exist, or can be read in two ways."""

    @classmethod
    def unknown(cls, asked: object, problem: str, existing: Sequence[object], *, kind: str = "names") -> Self:
        """Describe an entry of ``wrt`` that leads nowhere.

        Parameters
        ----------
        asked : object
            The entry as the user wrote it.
        problem : str
            What is missing, such as ``there is no argument 'z'``.
        existing : sequence
            What exists instead.
        kind : str, optional
            What `existing` lists: ``names``, ``positions``, ``keys``.

        Returns
        -------
        WrtError
            The error, to be raised.
        """
        return cls(f"wrt={asked!r}: {problem}", fix=f"Existing {kind}: {_listed(existing)}.")


class NoRuleError(NbadError, TypeError):
    """An operation without a rule met a value that carries a derivative."""

    @classmethod
    def of(cls, operation: str, *, at: str | None = None, instead: str | None = None) -> Self:
        """Describe the missing rule.

        Parameters
        ----------
        operation : str
            Name as the user writes it, such as ``np.linalg.svd``.
        at : str, optional
            The source line.
        instead : str, optional
            A supported way to the same result.

        Returns
        -------
        NoRuleError
            The error, to be raised.
        """
        fix = f"{instead} " if instead else ""
        fix += "Add a rule with nbad.primitive, or pass nbad.stop_gradient(x) if it is a constant here."
        return cls(f"{operation} has no rule, so its gradient is not known", at=at, fix=fix)


class DetachError(NbadError, TypeError):
    """A value that carries a derivative was about to become a plain number or array, losing it."""

    @classmethod
    def of(cls, action: str, *, at: str | None = None, instead: str | None = None) -> Self:
        """Describe the conversion that would drop the derivative.

        Parameters
        ----------
        action : str
            What was tried, such as ``float(x)`` or ``storing it into a plain ndarray``.
        at : str, optional
            The source line.
        instead : str, optional
            The differentiable way, such as ``Use np.exp(x).``

        Returns
        -------
        DetachError
            The error, to be raised.
        """
        fix = f"{instead} " if instead else ""
        fix += "If it is meant to be a constant, use nbad.stop_gradient(x), which gives a plain value."
        return cls(f"{action} would silently drop the derivative of a traced value", at=at, fix=fix)


class MutationError(NbadError, RuntimeError):
    """An array that the sweep reads was changed between the forward and the sweep."""

    @classmethod
    def of(cls, operation: str, operand: str, *, at: str | None = None) -> Self:
        """Describe the array that changed.

        Parameters
        ----------
        operation : str
            The operation whose pullback reads it.
        operand : str
            Which value of the operation it is, such as ``operand b``.
        at : str, optional
            The source line where the operation was recorded.

        Returns
        -------
        MutationError
            The error, to be raised.
        """
        return cls(
            f"{operand} of {operation} was changed after it was used, and its gradient needs the old values",
            at=at,
            fix="Write into a copy, x = x.copy(), or build a new array instead of writing in place.",
        )


class NonFiniteError(NbadError, FloatingPointError):
    """With ``config(nan="raise")``: an operation made a NaN or an infinity."""

    @classmethod
    def of(cls, what: str, at: str | None) -> Self:
        """Describe what made it.

        Parameters
        ----------
        what : str
            The operation and what it made.
        at : str or None
            The source line of the operation, also for its pullback.

        Returns
        -------
        NonFiniteError
            The error, to be raised.
        """
        fix = "Guard the operand before the operation (np.where after it leaves a NaN in the gradient)."
        return cls(what, at=at, fix=fix)


class EscapedTraceError(NbadError, RuntimeError):
    """A traced value was used after the call that made it had ended."""

    @classmethod
    def of(cls, operation: str, *, at: str | None = None) -> Self:
        """Describe the use of a value whose tape is closed.

        Parameters
        ----------
        operation : str
            What was tried with it, such as ``np.multiply``.
        at : str, optional
            The source line of the use.

        Returns
        -------
        EscapedTraceError
            The error, to be raised.
        """
        return cls(
            f"{operation} met a traced value whose grad or vjp call has already ended",
            at=at,
            fix="Return it through has_aux=True (it then comes out as a plain array), or store "
            "nbad.stop_gradient(x) instead of x.",
        )


class RuleError(NbadError, ValueError):
    """A rule of a primitive is wrong."""

    @classmethod
    def parameter(cls, operation: str, function: str, name: str, known: Iterable[str]) -> Self:
        """Describe a parameter of a rule that names nothing.

        Parameters
        ----------
        operation : str
            Name of the operation.
        function : str
            Name of the rule function.
        name : str
            The parameter.
        known : iterable of str
            What a rule of this operation may read.

        Returns
        -------
        RuleError
            The error, to be raised.
        """
        return cls(
            f"rule {function} of {operation}: parameter {name!r} names nothing that it could read",
            fix=f"It may read: {_listed(known, limit=40)}.",
        )

    @classmethod
    def reserved(cls, operation: str, name: str, reserved: Iterable[str]) -> Self:
        """Describe an operand or attribute that bears a reserved name.

        Parameters
        ----------
        operation : str
            Name of the operation.
        name : str
            The name.
        reserved : iterable of str
            All reserved names.

        Returns
        -------
        RuleError
            The error, to be raised.
        """
        return cls(
            f"{operation}: an operand or attribute is named {name!r}, which is reserved",
            fix=f"Rename it; reserved are: {_listed(reserved)}.",
        )

    @classmethod
    def shape(
        cls,
        operation: str,
        operand: str,
        got: tuple[int, ...],
        expected: tuple[int, ...],
        *,
        at: str | None = None,
    ) -> Self:
        """Describe a returned cotangent that does not fit its operand.

        Parameters
        ----------
        operation : str
            Name of the operation.
        operand : str
            Name of the operand.
        got : tuple of int
            Shape that the pullback returned.
        expected : tuple of int
            Shape of the operand.
        at : str, optional
            The source line where the operation was recorded.

        Returns
        -------
        RuleError
            The error, to be raised.
        """
        return cls(
            f"the pullback of {operation} for {operand} returned shape {tuple(got)}, which cannot be summed "
            f"to the operand's shape {tuple(expected)}",
            at=at,
            fix="Return the operand's shape, or a shape that broadcasting made from it.",
        )


class TapeError(NbadError, ValueError):
    """A tape is invalid: an index out of range, a wrong length, an unknown operation."""


class KernelError(NbadError, RuntimeError):
    """A compiled kernel reported that it failed."""

    @classmethod
    def of(cls, kernel: str, *, at: str | None = None) -> Self:
        """Describe the kernel that failed.

        Parameters
        ----------
        kernel : str
            Its name.
        at : str, optional
            The source line where the operation was recorded.

        Returns
        -------
        KernelError
            The error, to be raised.
        """
        return cls(
            f"the compiled kernel {kernel} failed; its results were thrown away",
            at=at,
            fix="This is a defect of nbad: please report it with the shapes and dtypes.",
        )


class ConvergenceError(NbadError, ArithmeticError):
    """Equations that a derivative needs were not solved."""

    @classmethod
    def of(cls, name: str, residual: float, tolerance: float, *, at: str | None = None) -> Self:
        """Describe what is left of the equations.

        Parameters
        ----------
        name : str
            Who solves them.
        residual : float
            Norm of the residual relative to that of the right side.
        tolerance : float
            What it was to be.
        at : str, optional
            The source line.

        Returns
        -------
        ConvergenceError
            The error, to be raised.
        """
        return cls(
            f"{name}: the linear equations of the derivative were not solved: the relative residual is {residual:.3g}, "
            f"the tolerance {tolerance:.3g}",
            at=at,
            fix='With solve="cg" the matrix must be symmetric and definite: else take "gmres"; raise maxiter or the tolerance, '
            "or give a solver of your own with a preconditioner.",
        )
