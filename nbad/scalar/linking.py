"""How what is compiled into an entry point is put together: optimised once, and turned to machine code once.

Owns the code library of functions that are called by compiled code only. numba optimises each function with all that it
calls, and makes machine code of that, before what calls it is compiled: work that is done again for each caller, and
most of the time that a kernel takes. Here a function stays as it is until somebody wants its address; that is the entry point,
into which all functions that it reaches are linked, each once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from llvmlite.binding import Linkage, address_of_symbol
from numba.core import codegen
from numba.core.environment import lookup_environment
from numba.core.errors import LoweringError
from numba.core.registry import cpu_target

__all__ = ["calls_itself", "linked_once"]

#: Names of the modules with functions for Python and for C.
_WRAPPERS = frozenset({"wrapper", "cfunc_wrapper"})
_ENVIRONMENT = "_ZN08NumbaEnv"
_MANGLED = "_ZN"
_UNRESOLVED = codegen.RuntimeLinker.PREFIX


_homes: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The late library that defines a function, by the name of the function."""


class _Nowhere:
    """What stands for the code generator while functions have no addresses."""

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: it is set when the code has its place."""


class _Late(codegen.JITCodeLibrary):  # type: ignore[misc]
    """A library that becomes machine code when an address of it is asked for."""

    _linking_libraries: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._wrappers: list[Any] = []
        self._shared_module: Any = None

    @property
    def codegen(self) -> Any:
        """What sets environments."""
        return self._codegen if self._finalized else _Nowhere()

    def add_ir_module(self, ir_module: Any) -> None:
        """Add functions, and keep those for Python and C apart: most are never called."""
        if ir_module.name in _WRAPPERS:
            self._wrappers.append(ir_module)
        else:
            super().add_ir_module(ir_module)

    def finalize(self) -> None:
        """Note what is defined; make nothing of it yet."""
        for name in _defined(self._final_module):
            _homes[name] = self

    def get_pointer_to_function(self, name: str) -> Any:
        """Return the address of a function, 0 if it is not of this library."""
        if not self._finalized and self._defines(name):
            self._finish()
        return super().get_pointer_to_function(name)

    def _defines(self, name: str) -> bool:
        return any(name in _defined(module) for module in [*self._wrappers, self._final_module])

    def _finish(self) -> None:
        """Optimise all that is reached, and make machine code of it."""
        for module in self._wrappers:
            super().add_ir_module(module)
        self._link()
        super().finalize()
        for one in self._final_module.global_variables:
            if one.name.startswith(_ENVIRONMENT):
                environment = lookup_environment(one.name)
                if environment is not None:
                    self._codegen.set_env(one.name, environment)

    def _finalize_final_module(self) -> None:
        """Make machine code, if all is there: LLVM would go on with calls of address 0, or end the process."""
        for name in sorted(_called(self._final_module)):
            if name.startswith(_MANGLED) and not address_of_symbol(name):
                raise LoweringError(f"the function {name} is called, and nowhere defined")
        super()._finalize_final_module()

    def _link(self) -> None:
        """Link all late libraries that are reached; those that are finished are left to numba."""
        late, finished = _reached(self, self._linking_libraries)
        self._take(late, set())
        self._link_recursive(finished)
        self._linking_libraries = finished

    def _take(self, libraries: list[Any], held: set[str]) -> None:
        """Link libraries; functions that are held also where no call of them is seen.

        The linker takes what is called so far, and leaves the rest of a library: so a library comes again when another one that
        was linked after it calls what it left.
        """
        homes = {name: library for library in libraries for name in _defined(library._final_module)}
        waiting, missing = libraries, set[str]()
        while waiting:
            for library in waiting:
                module = _shared(library._final_module)
                _hold(module, held)
                self._final_module.link_in(module)
            before, missing = missing, _called(self._final_module) & homes.keys()
            waiting = list({homes[name]: None for name in sorted(missing)}) if missing != before else []

    def _link_recursive(self, finished: list[Any]) -> None:
        """Link what is called by its address only, as what calls itself is: a call that the linker does not see."""
        linked: set[str] = set()
        while True:
            names = [one.name for one in self._final_module.global_variables]
            called = {name[len(_UNRESOLVED) :] for name in names if name.startswith(_UNRESOLVED)}
            _hold(self._final_module, called)
            defined = _defined(self._final_module)
            missing = [name for name in sorted(called - defined - linked) if name in _homes]
            if not missing:
                return
            for name in missing:
                late, more = _reached(self, [_homes[name]])
                self._take(late, {name})
                finished += [one for one in more if one not in finished]
            linked.update(missing)

    def _get_module_for_linking(self) -> Any:
        """Return a module with all that is reached, for a library that is not late."""
        if not self._finalized and self._shared_module is None:
            whole = _Late(self._codegen, self.name)
            whole._final_module = _shared(self._final_module)
            whole._linking_libraries = self._linking_libraries
            whole._link()
            for library in whole._linking_libraries:
                whole._final_module.link_in(library._get_module_for_linking(), preserve=True)
            self._shared_module = whole._final_module
        return self._shared_module if not self._finalized else super()._get_module_for_linking()


def _reached(whole: Any, libraries: list[Any]) -> tuple[list[Any], list[Any]]:
    """List the late libraries among these and those that they call, and the finished ones; but `whole`."""
    late: dict[Any, None] = {}
    finished: dict[Any, None] = {}
    waiting = list(libraries)
    while waiting:
        library = waiting.pop(0)
        if not isinstance(library, _Late) or library._finalized:
            finished[library] = None
        elif library not in late and library is not whole:
            late[library] = None
            waiting += library._linking_libraries
    return list(late), list(finished)


def _defined(module: Any) -> set[str]:
    return {one.name for one in module.functions if not one.is_declaration}


def _called(module: Any) -> set[str]:
    """Return the functions of other modules that a module calls."""
    return {one.name for one in module.functions if one.is_declaration}


def _hold(module: Any, names: set[str]) -> None:
    """Keep functions in a module even where no call of them is seen."""
    for function in module.functions:
        if function.name in names and function.linkage == Linkage.linkonce_odr:
            function.linkage = Linkage.weak_odr


def _shared(module: Any) -> Any:
    """Return a copy of a module that may be linked into several others."""
    made = module.clone()
    for function in made.functions:
        if not function.is_declaration and function.linkage == Linkage.external:
            function.linkage = Linkage.linkonce_odr
    return made


def calls_itself(library: Any) -> bool:
    """Return whether a function in finished code calls itself by its address, which nobody sets when it comes from the disk."""
    return any(one.name.startswith(_UNRESOLVED) for one in library._final_module.global_variables)


@contextmanager
def linked_once() -> Iterator[None]:
    """Let all that is compiled within be linked late; the caller has the lock of numba's compiler."""
    generator = cpu_target.target_context.codegen()
    before = vars(generator).get("_library_class")
    generator._library_class = _Late
    try:
        yield
    finally:
        if before is None:
            del generator._library_class
        else:
            generator._library_class = before
