"""How a kernel is compiled a second time, for active numbers.

Owns the dispatchers derived from the user's, and the pass that types them. The function itself is the user's, unchanged; what
differs is that helpers are derived too, that some variables are put on the tape where they are assigned, and that
an array into which active numbers are written holds active numbers from the start.
"""

from __future__ import annotations

import inspect
import operator
import threading
import warnings
from typing import Any

import numba
import numpy as np
from numba.core import analysis, compiler, errors, ir, registry, typed_passes
from numba.core import types as numba_types
from numba.core.compiler_machinery import register_pass
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from nbad.methods import user_level
from nbad.scalar.caching import fingerprint
from nbad.scalar.formulas import PLAIN
from nbad.scalar.lifting import activate
from nbad.scalar.origins import Origins
from nbad.scalar.refused import refuse
from nbad.scalar.types import Active, ActiveComplex, folded, is_active, width_of

#: numba has no annotations.
types: Any = numba_types

__all__ = ["Derived", "derived", "holds_active"]

_ROUNDS = 16
"""Times that types are inferred at most; each round but the last learns something about the function."""

_stack = threading.local()


def holds_active(kind: Any) -> bool:
    """Return whether a value of a type carries derivatives."""
    if isinstance(kind, types.BaseTuple):
        return any(map(holds_active, kind))
    return is_active(getattr(kind, "dtype", kind))


def _folded(kind: Any) -> Any:
    """Return the type that a function takes for an argument: at most one pair, so that one version of the function does."""
    return folded(kind) if width_of(kind) > 1 else kind


class Derived(registry.CPUDispatcher):  # type: ignore[misc]
    """A user's jitted function, for active arguments.

    Attributes
    ----------
    original : Dispatcher
        The user's.
    parameters : list of str
        Names of its parameters.
    depth : int
        Number of directions in which numbers have tangents.
    written : set of int
        Positions of the array parameters that active numbers are written into.
    entries : dict
        Its entry points.
    """

    def __init__(self, original: Any, depth: int) -> None:
        kept = ("error_model", "boundscheck", "forceinline", "_nrt")
        options = {name: value for name, value in original.targetoptions.items() if name in kept}
        options |= {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        super().__init__(original.py_func, targetoptions=options, pipeline_class=_Compiler)
        self.original = original
        self.depth = depth
        self.parameters = list(inspect.signature(original.py_func).parameters)
        self.written: set[int] = set(vars(original).get("activated", ()))
        self.entries: dict[Any, Any] = {}
        activate(depth)  # numba looks for new overloads before it compiles, not meanwhile

    def compile(self, sig: Any) -> Any:
        """Compile for argument types."""
        stack = _compiling()
        stack.append(self)
        try:
            return super().compile(sig)
        finally:
            stack.pop()

    def fold_argument_types(self, args: Any, kws: Any) -> Any:
        """Return signature and types of the arguments, as the function takes them; numba asks where it calls itself."""
        return super().fold_argument_types(tuple(map(_folded, args)), {k: _folded(v) for k, v in kws.items()})

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return how jitted code calls this: the user's own version where nothing is active, unless it calls itself."""
        pysig, given = self.fold_argument_types(args, kws)
        if not self.is_compiling and not any(map(holds_active, given)):
            return self.original.get_call_template(args, kws)
        return super().get_call_template(given, {})[0], pysig, given, {}

    def get_overload(self, sig: Any) -> Any:
        """Return the compiled function for a signature."""
        args, _ = numba.core.sigutils.normalize_signature(sig)
        if not any(map(holds_active, args)):
            return self.original.get_overload(sig)
        return super().get_overload(sig)


_lock = threading.RLock()


def derived(original: Any, depth: int) -> Derived:
    """Return the dispatcher derived from a user's; one for each depth, until that one is recompiled.

    One that was not compiled at all when it was derived may have other globals when it is: then it is derived again.
    """
    first = next(iter(tuple(original.overloads.values())), None)
    with _lock:
        seen, made, mark = vars(original).get("_nbad_derived", (None, {}, None))
        if seen is not first and (seen is not None or mark is None or mark != fingerprint(original)):
            made = {}
        if first is None and not made:
            mark = fingerprint(original)
        vars(original)["_nbad_derived"] = first, made, mark
        if original.targetoptions.get("parallel") and not made:
            warnings.warn(
                f"{original.py_func.__name__} runs serially where it is differentiated, although it is compiled to "
                "run in parallel",
                RuntimeWarning,
                stacklevel=user_level(),
            )
        if depth not in made:
            made[depth] = Derived(original, depth)
        found: Derived = made[depth]
        return found


def _compiling() -> list[Derived]:
    if not hasattr(_stack, "functions"):
        _stack.functions = []
    found: list[Derived] = _stack.functions
    return found


@infer_global(operator.setitem)
class _PlainSetItem(AbstractTemplate):  # type: ignore[misc]
    """Types the writing of active numbers into a plain array, which the pass below then removes."""

    def generic(self, args: Any, kws: Any) -> Any:
        array, _, value = args
        numbers = (types.Float, types.Complex)
        if isinstance(array, types.Array) and isinstance(array.dtype, numbers) and holds_active(value):
            return signature(types.none, *args)
        return None


@register_pass(mutates_CFG=True, analysis_only=False)
class _ActiveInference(typed_passes.BaseTypeInference):  # type: ignore[misc]
    """Infers types again and again, until active numbers are where they can be."""

    _name = "active_type_inference"

    def run_pass(self, state: Any) -> bool:
        """Type one function."""
        me = _compiling()[-1]
        blocks = state.func_ir.blocks
        _derive_globals(Origins(blocks), me.depth)
        declared = state.return_type
        for _ in range(_ROUNDS):
            state.return_type = declared
            grown = self._activate_written(state, me)
            try:
                super().run_pass(state)
            except errors.TypingError as error:
                if (
                    not grown
                    and not self._activate_written(state, me)
                    and not ("unify" in str(error) and self._activate_joined(state, me))
                ):
                    raise
                continue
            written = _written_plain(state)
            if written:
                for name in written:
                    self._activate(state, me, name)
                continue
            seeds = _seeds(state)
            if not seeds.keys() - state.locals.keys():
                refuse(state, holds_active)
                _keep_lists(state)
                return True
            state.locals = {**seeds, **state.locals}
        raise errors.TypingError("the types of active numbers do not settle")

    def _activate_written(self, state: Any, me: Derived) -> bool:
        """Make the arrays active that helpers write active numbers into; return whether there are new ones."""
        function = Origins(state.func_ir.blocks)
        grown = False
        for statement in list(function.assignments()):
            call = statement.value
            if not isinstance(call, ir.Expr) or call.op != "call":
                continue
            helper = function.constant(call.func.name)
            for k in sorted(helper.written) if isinstance(helper, Derived) else ():
                given = [
                    *call.args,
                    *(dict(call.kws).get(name) for name in helper.parameters[len(call.args) :]),
                ]
                if k < len(given) and given[k] is not None:
                    grown |= self._activate(state, me, given[k].name)
        return grown

    def _activate_joined(self, state: Any, me: Derived) -> bool:
        """Make the plain arrays active that are joined with active ones in a variable; return whether anything was done.

        A number that a loop makes active is said to be so from the start: else what is first computed with it is a plain array.
        """
        found = typed_passes.type_inference_stage(
            state.typingctx,
            state.targetctx,
            state.func_ir,
            state.args,
            None,
            state.locals,
            raise_errors=False,
        )
        grown = False
        for statement in Origins(state.func_ir.blocks).assignments():
            phi = statement.value
            if not isinstance(phi, ir.Expr) or phi.op != "phi":
                continue
            kind = found.typemap.get(statement.target.name)
            if isinstance(kind, (Active, ActiveComplex)) and statement.target.name not in state.locals:
                # A new dictionary: some versions of numba give every compilation of a function the same one.
                state.locals = {**state.locals, statement.target.name: folded(kind)}
                grown = True
            names = [one.name for one in phi.incoming_values if isinstance(one, ir.Var)]
            arrays = {n: found.typemap.get(n) for n in names}
            arrays = {n: kind for n, kind in arrays.items() if isinstance(kind, types.Array)}
            if any(map(holds_active, arrays.values())):
                for name in (n for n, kind in arrays.items() if not holds_active(kind)):
                    grown |= self._activate(state, me, name)
        return grown

    def _activate(self, state: Any, me: Derived, name: str) -> bool:
        """Make the arrays active whose memory a variable is; return whether one was not."""
        function = Origins(state.func_ir.blocks)
        grown = False
        for statement in function.roots(name, set()):
            if isinstance(statement.value, ir.Arg):
                if statement.value.index not in me.written:
                    me.written.add(statement.value.index)
                    raise errors.TypingError(
                        "a number that carries a derivative is written into an argument that cannot hold it",
                        loc=statement.loc,
                    )
            elif _wrap(function, state.func_ir, statement, activate(me.depth)):
                grown = True
        return grown


def _derive_globals(function: Origins, depth: int) -> None:
    """Let a function call derived helpers."""
    for statement in list(function.assignments()):
        found = function.constant(statement.target.name)
        if isinstance(found, registry.CPUDispatcher) and not isinstance(found, Derived):
            statement.value = ir.Global(found.py_func.__name__, derived(found, depth), statement.loc)


def _wrap(function: Origins, func_ir: Any, statement: Any, wrapper: Any) -> bool:
    """Pass what is assigned through a function; return False if it is already."""
    value = statement.value
    if isinstance(value, ir.Expr) and value.op == "call" and function.constant(value.func.name) is wrapper:
        return False
    for block in function.blocks.values():
        if statement not in block.body:
            continue
        at = block.body.index(statement)
        scope, loc = block.scope, statement.loc
        plain = scope.redefine("$nbad_plain", loc)
        callee = scope.redefine("$nbad_activate", loc)
        called = ir.Expr.call(callee, (plain,), (), loc)
        block.body[at : at + 1] = [
            ir.Assign(value, plain, loc),
            ir.Assign(ir.Global("activate", wrapper, loc), callee, loc),
            ir.Assign(called, statement.target, loc),
        ]
        func_ir._definitions[plain.name] = [value]
        func_ir._definitions[callee.name] = [block.body[at + 1].value]
        func_ir._definitions[statement.target.name] = [
            called if one is value else one for one in func_ir._definitions[statement.target.name]
        ]
        return True
    raise AssertionError("the statement is in no block")


def _written_plain(state: Any) -> list[str]:
    """List the variables of plain arrays that active numbers are written into."""
    found = []
    for block in state.func_ir.blocks.values():
        for statement in block.body:
            if isinstance(statement, (ir.SetItem, ir.StaticSetItem)):
                target, value = statement.target, statement.value
            elif (
                isinstance(statement, ir.Assign)
                and isinstance(statement.value, ir.Expr)
                and statement.value.op == "inplace_binop"
            ):
                target, value = statement.value.lhs, statement.value.rhs
            elif (passed := _passed_output(state, statement)) is not None:
                target, value = passed
            else:
                continue
            kind = state.typemap[target.name]
            if (
                isinstance(kind, types.Array)
                and not holds_active(kind)
                and holds_active(state.typemap[value.name])
            ):
                found.append(target.name)
    return found


def _passed_output(state: Any, statement: Any) -> tuple[Any, Any] | None:
    """Return the array that a function is told to write to, and an argument from which that depends on what is asked for."""
    call = getattr(statement, "value", None)
    if not isinstance(call, ir.Expr) or call.op != "call":
        return None
    function = getattr(state.typemap[call.func.name], "typing_key", None)
    inputs = function.nin if isinstance(function, np.ufunc) else 2 if function is np.dot else len(call.args)
    outputs = [*call.args[inputs:], *(value for name, value in call.kws if name == "out")]
    active = [one for one in call.args[:inputs] if holds_active(state.typemap[one.name])]
    return (outputs[0], active[0]) if outputs and active else None


def _seeds(state: Any) -> dict[str, Any]:
    """Return the types of the variables that are to have one pair: they are put on the tape where they are assigned.

    These are the variables of loops and branches, for otherwise the temporaries computed from them change their types while
    types are inferred; members of containers, which must be of one type; and what several statements read, or one in a
    loop after it, because each reader would take over all its pairs. A statement that looks at the value does not read.
    """
    blocks = state.func_ir.blocks
    function = Origins(blocks)
    around = {label: frozenset(h for h, loop in _loops(blocks) if label in loop.body) for label in blocks}
    made: dict[str, frozenset[int]] = {}
    reads: dict[str, list[frozenset[int]]] = {}
    held: set[str] = set()
    for label, block in blocks.items():
        for statement in block.body:
            if isinstance(statement, ir.Del):
                continue
            names = {variable.name for variable in statement.list_vars()}
            if isinstance(statement, ir.Assign):
                made[statement.target.name] = around[label]
                names.remove(statement.target.name)
            for name in () if _looks(function, statement) else names:
                reads.setdefault(name, []).append(around[label])
            if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Expr):
                value = statement.value
                if value.op == "phi":
                    held.add(statement.target.name)
                elif value.op in ("build_tuple", "build_list", "build_set"):
                    held |= {item.name for item in value.items}
    seeds = {}
    for name, kind in state.typemap.items():
        if not isinstance(kind, (Active, ActiveComplex)) or name.startswith("arg."):
            continue
        readers = reads.get(name, [])
        again = len(readers) > 1 or any(one - made.get(name, one) for one in readers)
        if name in held or (width_of(kind) > 1 and again):
            seeds[name] = folded(kind)
    return seeds


def _keep_lists(state: Any) -> None:
    """Hide arrays that are made of lists of active numbers from a rewrite of numba's, which looks for their dtype in NumPy."""
    function = Origins(state.func_ir.blocks)
    for statement in list(function.assignments()):
        call = statement.value
        if (
            isinstance(call, ir.Expr)
            and call.op == "call"
            and function.constant(call.func.name) is np.array
            and holds_active(state.typemap[statement.target.name])
        ):
            # The type of what is called stays, and so does what is compiled; the rewrite goes by the name.
            (callee,) = function.definitions[call.func.name]
            callee.value = ir.Global("array_of_active", _keep_lists, callee.loc)


def _looks(function: Origins, statement: Any) -> bool:
    """Return whether a statement does no more than look at the values of numbers."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ir.Expr):
        return False
    if value.op == "call":
        return function.constant(value.func.name) in PLAIN
    return value.op in ("binop", "unary") and value.fn in PLAIN


def _loops(blocks: dict[int, Any]) -> list[tuple[int, Any]]:
    return list(analysis.compute_cfg_from_blocks(blocks).loops().items())


class _Compiler(compiler.CompilerBase):  # type: ignore[misc]
    """numba's pipeline with another pass for types."""

    def define_pipelines(self) -> list[Any]:
        """Return the one pipeline."""
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [
            (_ActiveInference, text) if step is typed_passes.NopythonTypeInference else (step, text)
            for step, text in manager.passes
        ]
        manager._finalized = False
        manager.finalize()
        return [manager]
