"""How what is compiled into an entry point is put together: optimised once, and turned to machine code once.

Owns the code library of functions that are called by compiled code only. numba optimises each function with all that it
calls, and makes machine code of that, before what calls it is compiled: work that is done again for each caller, and
most of the time that a kernel takes. Here a function stays as it is until somebody wants its address; that is the entry point,
into which all functions that it reaches are linked, each once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite.binding import Linkage
from numba.core import codegen
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target

__all__ = ["linked_once"]

#: Names of the modules with functions for Python and for C.
_WRAPPERS = frozenset({"wrapper", "cfunc_wrapper"})
_ENVIRONMENT = "_ZN08NumbaEnv"
_UNRESOLVED = codegen.RuntimeLinker.PREFIX


class _Nowhere:
    """What stands for the code generator while functions have no addresses."""

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: it is set when the code has its place."""


class _Late(codegen.JITCodeLibrary):  # type: ignore[misc]
    """A library that becomes machine code when an address of it is asked for."""

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
        """Do nothing yet."""

    def get_pointer_to_function(self, name: str) -> Any:
        """Return the address of a function, 0 if it is not of this library."""
        if not self._finalized and self._defines(name):
            self._finish()
        return super().get_pointer_to_function(name)

    def _defines(self, name: str) -> bool:
        known = {one.name for module in self._wrappers for one in module.functions if not one.is_declaration}
        return name in known or any(
            one.name == name for one in self._final_module.functions if not one.is_declaration
        )

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

    def _link(self) -> None:
        """Link all late libraries that are reached; those that are finished are left to numba."""
        late, finished = self._reached()
        for library in late:
            self._final_module.link_in(_shared(library._final_module))
        self._linking_libraries = finished
        # What calls itself is called by its address, which is not a call that the linker sees.
        names = [one.name for one in self._final_module.global_variables]
        recursive = {name[len(_UNRESOLVED) :] for name in names if name.startswith(_UNRESOLVED)}
        for function in self._final_module.functions:
            if function.name in recursive and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.weak_odr

    def _reached(self) -> tuple[list[Any], list[Any]]:
        """List the late libraries that are called, also by each other, and the finished ones."""
        late: dict[Any, None] = {}
        finished: dict[Any, None] = {}
        waiting = list(self._linking_libraries)
        while waiting:
            library = waiting.pop(0)
            if not isinstance(library, _Late) or library._finalized:
                finished[library] = None
            elif library not in late and library is not self:
                late[library] = None
                waiting += library._linking_libraries
        return list(late), list(finished)

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


def _shared(module: Any) -> Any:
    """Return a copy of a module that may be linked into several others."""
    made = module.clone()
    for function in made.functions:
        if not function.is_declaration and function.linkage == Linkage.external:
            function.linkage = Linkage.linkonce_odr
    return made


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
