"""What a Python function reaches besides its arguments.

Owns the walk through closures, globals, defaults, attributes and containers, and which code is the user's. Must not call the
user's code and must not raise, whatever it meets.

The walk goes through the Python functions that are reached, but not into libraries (NumPy, the standard library, installed
packages, nbad itself): those are compared by identity. Of objects, modules and classes it looks at the attributes whose names
occur in the code that it met. It keeps a list of what is still to be looked at, so neither depth nor cycles matter; the checks
hold a reference to everything that they compare, so no identity is used twice.
"""

from __future__ import annotations

import dis
import functools
import random
import sys
import sysconfig
from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from nbad.kernels.hashing import fingerprint
from nbad.sameness import ATOMS, MISSING, SEQUENCES, SETS, contents_of, dict_of, items_of, slot_of

__all__ = ["Check", "Checks", "fill", "print_of"]

_NUMBERS: tuple[type, ...] = (*ATOMS, float, complex)
_BUFFERS: tuple[type, ...] = (bytearray, array, memoryview)
_GENERATORS: tuple[type, ...] = (
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    random.Random,
)
#: Names whose use means that an attribute may be asked for by a computed name.
_DYNAMIC = frozenset({"getattr", "hasattr", "vars", "__dict__", "attrgetter", "asdict", "astuple", "fields"})
#: Names whose use means that code may ask whether an attribute is there.
_ASKING = frozenset({"getattr", "hasattr", "vars", "__dict__", "AttributeError"})

_LIBRARIES = tuple(
    sorted(
        {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        | {str(Path(__file__).parent), "<frozen"}
    )
)

#: Bytes up to which the contents of an array are kept: to compare them is faster than to hash them.
_TINY = 256

#: What a test remembers: an object or a getter, what it gave, and last of all the name for messages.
Check = tuple[Any, ...]


@functools.lru_cache(maxsize=4096)
def _is_library_file(filename: str) -> bool:
    """Return whether a source file belongs to an installed package, the standard library or nbad."""
    if filename.startswith(_LIBRARIES):
        return True
    parts = Path(filename).parts
    return "site-packages" in parts or "dist-packages" in parts


def _is_library_module(name: str) -> bool:
    """Return whether a module of this name is not the user's; one without a file is, if it is not Python's own."""
    if name == "__main__":
        return False
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return _is_library_file(file)
    return module is not None and name.partition(".")[0] in sys.stdlib_module_names


def _is_library_class(cls: type) -> bool:
    """Return whether a class is not the user's."""
    name = cls.__dict__.get("__module__", "builtins")
    if name == "builtins":  # also of classes made by code that runs without a module name
        return not cls.__flags__ & (1 << 9)
    return not isinstance(name, str) or _is_library_module(name)


class _Names(NamedTuple):
    """Names that a code object uses, also inside of the functions, lambdas and comprehensions written in it."""

    loaded: tuple[str, ...]  # from globals or builtins
    attributes: tuple[str, ...]
    imported: tuple[str, ...]
    dynamic: bool
    asking: bool


@functools.lru_cache(maxsize=1024)
def _names_of(code: CodeType) -> _Names:
    loaded: dict[str, None] = {}
    attributes: dict[str, None] = {}
    imported: dict[str, None] = {}
    texts: dict[str, None] = {}
    todo = [code]
    while todo:
        code = todo.pop()
        todo.extend(c for c in code.co_consts if type(c) is CodeType)
        texts.update((c, None) for c in code.co_consts if type(c) is str and c.isidentifier())
        for step in dis.get_instructions(code):
            if step.opcode not in dis.hasname:
                continue
            if step.opname == "IMPORT_NAME":
                imported[step.argval] = None
            elif step.opname == "IMPORT_FROM" or "ATTR" in step.opname or "METHOD" in step.opname:
                if not step.opname.startswith(("STORE", "DELETE")):
                    attributes[step.argval] = None
            elif not step.opname.startswith("STORE"):
                loaded[step.argval] = None
    used = loaded.keys() | attributes.keys()
    dynamic = not _DYNAMIC.isdisjoint(used)
    if dynamic:
        attributes.update(texts)
    return _Names(tuple(loaded), tuple(attributes), tuple(imported), dynamic, not _ASKING.isdisjoint(used))


class Checks:
    """The tests that tell whether what a function reached is as it was."""

    __slots__ = (
        "absent", "arrays", "buffers", "cells", "dicts", "entries", "functions", "generators", "objects", "sequences", "slots",
    )  # fmt: skip

    def __init__(self) -> None:
        self.entries: list[Check] = []  # (get of a dict, key, value, label)
        self.cells: list[Check] = []  # (cell, contents, label)
        self.functions: list[Check] = []  # (function, code, defaults, label)
        self.objects: list[Check] = []  # (object, class, its dict, label)
        self.slots: list[Check] = []  # (get of a member descriptor, object, value, label)
        self.sequences: list[Check] = []  # (iterable with a length, items, label)
        self.dicts: list[Check] = []  # (dict, keys, values, label)
        self.absent: list[Check] = []  # (dict, names, label)
        self.buffers: list[Check] = []  # (buffer, bytes, label)
        self.arrays: list[Check] = []  # (array, dtype, shape, its print, label)
        self.generators: list[tuple[Any, str]] = []


def print_of(value: np.ndarray) -> Any:
    """Return what tells whether the contents of an array have changed: the bytes of a small one, else a fingerprint."""
    return value.tobytes() if value.nbytes <= _TINY and value.ndim <= 32 else fingerprint(value)


def fill(tests: Checks, function: Any) -> None:
    """Append to `tests` what `function` reaches now."""
    _Walk(tests).run(function, function.__name__ if type(function) is FunctionType else "the function")


class _Walk:
    """One walk from one function."""

    def __init__(self, tests: Checks) -> None:
        self.tests = tests
        self.todo: list[tuple[Any, str, str]] = []  # (object, what it is: "the global ", its name)
        self.seen: dict[int, Any] = {}  # keeps alive what bears the identities
        self.tested: set[tuple[int, str]] = set()  # (identity of a dict or object, name)
        self.names: dict[str, None] = {}
        self.dynamic = False
        self.asking = False
        # Objects and how many names have been looked up in them: later code brings new names.
        self.objects: list[tuple[Any, str]] = []
        self.known: list[int] = []

    def run(self, function: Any, name: str) -> None:
        """Follow `function` until nothing new is reached."""
        self.push(function, "", name)
        while True:
            while self.todo:
                value, what, text = self.todo.pop()
                try:
                    self.visit(value, what, text)
                except Exception:
                    continue  # an object that resists being looked at is compared by identity
            if self.dynamic:
                for value, _ in self.objects:
                    if not issubclass(type(value), (ModuleType, type)):
                        self.names.update(dict.fromkeys(dict_of(value) or ()))
            behind = [i for i, known in enumerate(self.known) if known < len(self.names)]
            if not behind:
                break
            names = list(self.names)
            for i in behind:
                new, self.known[i] = names[self.known[i] :], len(names)
                value, text = self.objects[i]
                try:
                    self.look_up(value, text, new)
                except Exception:
                    continue
        for value, text in self.objects:
            self.close(value, text)

    def push(self, value: Any, what: str, text: str) -> None:
        """Note an object to be looked at, once."""
        kind = type(value)
        if kind in _NUMBERS or value is MISSING or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        self.todo.append((value, what, text))

    def visit(self, value: Any, what: str, text: str) -> None:
        """Add the tests of one object and push what it leads to."""
        kind = type(value)
        label = what + text
        if kind is FunctionType:
            self.visit_function(value, label)
        elif kind is MethodType:
            self.push(value.__func__, "", text)
            self.push(value.__self__, "", "self")
        elif kind is BuiltinFunctionType:
            if type(value.__self__) is not ModuleType:
                self.push(value.__self__, "", f"{text}.__self__")
        elif issubclass(kind, functools.partial):
            self.push(value.func, "", text)
            self.push(value.args, "", f"the arguments of {text}")
            self.push(value.keywords, "", f"the arguments of {text}")
        elif issubclass(kind, np.ndarray):
            self.visit_array(value, label, text)
        elif issubclass(kind, _GENERATORS):
            self.tests.generators.append((value, label))
        elif kind in _BUFFERS:
            self.tests.buffers.append((value, bytes(value), label))
        elif issubclass(kind, (*SEQUENCES, tuple, *SETS, dict)):
            self.visit_container(value, label, text)
        elif kind is ModuleType:
            if not _is_library_module(value.__name__):
                self.add_object(value, text)
        elif issubclass(kind, type):
            if not _is_library_class(value):
                self.add_object(value, text)
                self.push_methods(value, text)
        elif kind is property:
            self.push(value.fget, "", text)
        elif kind in (staticmethod, classmethod):
            self.push(value.__func__, "", text)
        elif kind is functools.cached_property:
            self.push(value.func, "", text)
        elif not issubclass(kind, (np.generic, Enum)):
            self.visit_object(value, text)

    def visit_function(self, function: FunctionType, label: str) -> None:
        wrapped = function.__dict__.get("__wrapped__")
        if wrapped is not None:
            self.push(wrapped, "", getattr(wrapped, "__name__", label))
        code, name = function.__code__, function.__name__
        if _is_library_file(code.co_filename):
            return
        self.tests.functions.append((function, code, function.__defaults__, f"the function {name}"))
        self.push(function.__defaults__, "", f"the defaults of {name}")
        self.push(function.__kwdefaults__, "", f"the defaults of {name}")
        for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if (id(cell), "cell") not in self.tested:
                self.tested.add((id(cell), "cell"))
                value = contents_of(cell)
                self.tests.cells.append((cell, value, f"the closure variable {free}"))
                self.push(value, "the closure variable ", free)
        names = _names_of(code)
        for used in names.loaded:
            self.add_entry(function.__globals__, used, "the global ", used)
        for used in names.imported:
            self.push(sys.modules.get(used), "", used)
        self.names.update(dict.fromkeys(names.attributes))
        self.dynamic |= names.dynamic
        self.asking |= names.asking
        if function.__dict__:
            self.add_object(function, name)

    def visit_array(self, value: np.ndarray, label: str, text: str) -> None:
        if type(value) is not np.ndarray:
            self.visit_object(value, text)
            if issubclass(type(value), np.ma.MaskedArray):
                self.push(np.ma.getmask(value), "", f"{text}.mask")
            value = value.view(np.ndarray)
        if not value.dtype.hasobject:
            self.tests.arrays.append((value, value.dtype, value.shape, print_of(value), label))
        elif value.dtype.kind == "O":
            self.visit_container(value, label, text)

    def visit_container(self, value: Any, label: str, text: str) -> None:
        kind = type(value)
        if issubclass(kind, dict):
            keys, values = tuple(dict.keys(value)), tuple(dict.values(value))
            self.tests.dicts.append((value, keys, values, label))
            for key, item in zip(keys, values, strict=True):
                self.push_item(key, text, "a key")
                self.push_item(item, text, key)
        else:
            values = tuple(items_of(value))
            if not issubclass(kind, (tuple, frozenset)):
                self.tests.sequences.append((value, values, label))
            for i, item in enumerate(values):
                self.push_item(item, text, i)
        if kind.__module__ not in ("builtins", "collections"):
            self.visit_object(value, text)

    def push_item(self, item: Any, text: str, key: Any) -> None:
        if type(item) not in _NUMBERS:
            self.push(item, "", f"{text}[{key!r}]" if type(key) in (int, str) else f"an item of {text}")

    def visit_object(self, value: Any, text: str) -> None:
        """Look at an object of a class of the user's, or at one that has attributes."""
        attributes = dict_of(value)
        kind = type(value)
        if attributes is not None:
            wrapped = attributes.get("__wrapped__")
            if wrapped is not None:
                self.push(wrapped, "", getattr(wrapped, "__name__", text))
        if _comes_with_nbad(kind):
            self.push(getattr(value, "__wrapped__", None), "", text)
            return
        if attributes is not None and kind.__module__.startswith("scipy.sparse."):
            # Its operators read them, and no code of the user's names them.
            for name, given in attributes.items():
                if isinstance(given, (np.ndarray, tuple, dict)):
                    self.add_entry(attributes, name, "", f"{text}.{name}")
        if attributes is not None or not _is_library_class(kind):
            self.add_object(value, text)
            self.push_methods(kind, text)

    def push_methods(self, cls: type, text: str) -> None:
        """Push what Python calls without naming it in code: the methods with names like ``__call__`` of the user's classes."""
        for owner in _user_classes(cls):
            for name in owner.__dict__:
                if name.startswith("__") and type(owner.__dict__[name]) in (
                    FunctionType,
                    staticmethod,
                    classmethod,
                ):
                    self.add_entry(owner.__dict__, name, "", f"{owner.__name__}.{name}", owner)

    def add_object(self, value: Any, text: str) -> None:
        """Note an object whose attributes are looked up by name."""
        self.objects.append((value, text))
        self.known.append(0)

    def add_entry(self, attributes: Any, name: str, what: str, text: str, owner: Any = None) -> Any:
        """Add the test of one entry of a dict, push its value and return it (MISSING if there is none)."""
        key = (id(attributes if owner is None else owner), name)
        value = attributes.get(name, MISSING)
        if key not in self.tested:
            self.tested.add(key)
            self.tests.entries.append((attributes.get, name, value, what + text))
            self.push(value, what, text)
        return value

    def look_up(self, value: Any, text: str, names: Iterable[str]) -> None:
        """Add the tests of the attributes of an object, class, module or function that have these names."""
        is_class = issubclass(type(value), type)
        attributes = None if is_class else dict_of(value)
        owners = (
            ()
            if type(value) in (ModuleType, FunctionType)
            else tuple(_user_classes(value if is_class else type(value)))
        )
        for name in names:
            # As Python looks it up: in the object, then in its classes; where it is not yet matters if it is further on.
            found = [name in owner.__dict__ for owner in owners]
            inside = attributes is not None and name in attributes
            if not inside and True not in found:
                continue
            label = f"{text}.{name}"
            if (
                attributes is not None
                and type(value) is not ModuleType
                and (id(value), "") not in self.tested
            ):
                self.tested.add((id(value), ""))
                self.tests.objects.append((value, type(value), attributes, text))
            if attributes is not None and self.add_entry(attributes, name, "", label) is not MISSING:
                if True in found:
                    self.push(
                        owners[found.index(True)].__dict__[name], "", label
                    )  # a property stands before the object
                continue
            for owner, _ in zip(owners, range(found.index(True) + 1), strict=False):
                given = self.add_entry(owner.__dict__, name, "", label, owner)
                if type(given) is MemberDescriptorType and not is_class:
                    self.add_slot(given, value, label)

    def add_slot(self, descriptor: Any, value: Any, label: str) -> None:
        get = descriptor.__get__
        now = slot_of(get, value)
        self.tests.slots.append((get, value, now, label))
        self.push(now, "", label)

    def close(self, value: Any, text: str) -> None:
        """Add the tests that need all names to be known: of attributes that are absent but asked about."""
        attributes = dict_of(value)
        if attributes is None or issubclass(type(value), type):
            return
        if self.asking:
            names = frozenset(name for name in self.names if name not in attributes)
            self.tests.absent.append((attributes, names, text))


def _comes_with_nbad(cls: type) -> bool:
    return str(cls.__module__).partition(".")[0] == "nbad"


def _user_classes(cls: type) -> Iterator[type]:
    """Return the classes that an attribute is looked up in, but those of libraries."""
    for owner in cls.__mro__:
        if not _is_library_class(owner):
            yield owner
