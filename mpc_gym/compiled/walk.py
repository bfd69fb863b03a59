"""What a module's forward can reach, visited once for its `Watch` (see `compiled.watch`)."""

from __future__ import annotations

import os
import sys
import sysconfig
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from enum import Enum
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from mpc_gym.compiled.bytecode import globals_of, imports_of, names_of
from mpc_gym.compiled.errors import UnsupportedOperation

Place: TypeAlias = "tuple[Mapping[Any, Any], Any]"

PLAIN = (
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range,
    torch.dtype, torch.device, np.dtype, np.generic,
)  # fmt: skip
_BY_IDENTITY = (BuiltinFunctionType, Enum, np.ufunc)
_WRAPPERS = (
    MethodType, partial, slice, property, staticmethod, classmethod, cached_property,
    type(lru_cache(lambda: None)),
)  # fmt: skip
_SEQUENCES = (list, tuple, deque, set, frozenset)
_MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"}
_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(
    value for name, value in vars(torch_modules).items()
    if name.startswith("_global_") and isinstance(value, dict)
)  # fmt: skip
_NOT_CALLED = frozenset(
    {"__init__", "__new__", "__del__", "__repr__", "__str__", "__hash__", "__reduce__", "__doc__"}
    | {"__module__", "__dict__", "__weakref__", "__annotations__", "__init_subclass__"}
    | {"__reduce_ex__", "__getstate__", "__setstate__", "__setattr__", "__delattr__"}
)
_DYNAMIC = frozenset({"getattr", "vars", "__dict__", "__getattribute__", "attrgetter", "eval"})
_LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(__file__).parents[1],
    )
)
_LIMIT, _BYTES = 20_000, 2**24  # objects, and content, that may be compared at each call


class Identity:
    """An object that counts as itself in a key, and is kept, so that no other takes its place."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Walk:
    """Visits what modules reach: each object becomes a part of the key, and is watched.

    Attributes:
        key: all that was found, in order.
        names: all names and texts in the code that was found.
        own_names: those in the code that is not a library's.
        libraries: names of the packages and modules that were found but are not looked into.
        whole: the mappings that were found of which all entries count.
    """

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        self.key: list[Any] = []
        self.seen: dict[int, tuple[int, object]] = {}
        self.whole: list[Mapping[Any, Any]] = []
        self.sequences: list[tuple[Any, tuple[Any, ...]]] = []
        self.cells: list[tuple[CellType, object]] = []
        self.functions: list[tuple[FunctionType, tuple[Any, ...]]] = []
        self.contents: list[tuple[Any, tuple[Any, ...]]] = []
        self.inputs: list[tuple[dict[str, Any], str]] = [
            (table, name)
            for part in parts
            for table in (part._parameters, part._buffers)
            for name, value in table.items()
            if value is not None and (value.is_floating_point() or table is part._parameters)
        ]
        self._input_ids = {id(table[name]) for table, name in self.inputs}
        self._entries: dict[int, tuple[Mapping[Any, Any], dict[Any, Any]]] = {}
        self.names: set[str] = set()
        self.own_names: set[str] = set()
        self.libraries: set[str] = set()
        self._classes: dict[type, None] = {}
        self._namespaces: dict[ModuleType, None] = {}
        self._postponed: list[tuple[str, object]] = []
        self._bytes = 0

    def entries(self) -> Iterable[tuple[Place, Any]]:
        """The entries of mappings that are watched, and what was found there."""
        for mapping, entries in self._entries.values():
            for name, value in entries.items():
                yield (mapping, name), value

    def finish(self) -> None:
        """Visit hooks of all modules, and what the code that was found shows to be in use."""
        for hooks in _GLOBAL_HOOKS:
            self.key.append(len(hooks))
            self._mapping(hooks)
        done: set[tuple[int, str]] = set()
        progress = True
        while progress:
            progress = False
            owners = [*map(vars, self._classes), *map(vars, self._namespaces)]
            for owner, members in zip((*self._classes, *self._namespaces), owners, strict=True):
                implicit = owner in self._classes and not self._is_library(owner.__module__)
                for name in list(members):
                    used = name in self.names or (implicit and _is_implicit(name))
                    if used and (id(owner), name) not in done:
                        done.add((id(owner), name))
                        progress = True
                        self._watch(members, name)
                        self.key.append(name)
                        self.visit(members[name])
            if dynamic := not self.names.isdisjoint(_DYNAMIC):
                progress |= bool(self._postponed)
            waiting, self._postponed = self._postponed, []
            for name, value in waiting:
                if dynamic or name in self.names:
                    progress = True
                    self.key.append(name)
                    self.visit(value)
                else:
                    self._postponed.append((name, value))

    def visit(self, value: Any) -> None:
        """Add a value and all that it reaches."""
        value = _unchecked(value)
        if isinstance(value, PLAIN):
            self.key.append((type(value), value))
            return
        if id(value) in self.seen:
            self.key.append(("again", self.seen[id(value)][0]))
            return
        self.seen[id(value)] = (len(self.seen), value)
        if len(self.seen) > _LIMIT or self._bytes > _BYTES:
            raise UnsupportedOperation(
                f"forward can reach more than {_LIMIT} objects, or {_BYTES // 2**20} MB of "
                "constant numbers, which would have to be compared at each call: keep numbers in "
                "buffers (register_buffer), and what is not needed out of the module"
            )
        self.key.append(type(value))
        self._visit_new(value)

    def _visit_new(self, value: Any) -> None:
        if isinstance(value, Tensor) and id(value) in self._input_ids:
            self.key.append(value.shape)
            return
        visitors: Sequence[tuple[Any, Callable[[Any], None]]] = (
            ((Tensor, array, bytearray), self._numbers),
            (np.ndarray, self._array),
            (nn.Module, self._module),
            (dict, self._mapping),
            (_SEQUENCES, self._sequence),
            (FunctionType, self._function),
            (_WRAPPERS, self._wrapper),
            (type, self._type),
            (ModuleType, self._namespace),
            (weakref.ref, self._reference),
        )
        for kinds, visit in visitors:
            if isinstance(value, kinds):
                visit(value)
                return
        library = self._is_library(type(value).__module__)
        if library and isinstance(value, Mapping):
            self._mapping(value)
        elif library and isinstance(value, MutableSequence):
            self._sequence(value)
        else:
            self._object(value)

    def _numbers(self, value: Any) -> None:
        content = content_of(value)
        self._bytes += len(content[-1])
        self.key.append(content)
        self.contents.append((value, content))

    def _array(self, value: Any) -> None:
        if value.dtype == object:
            self._sequence(value.ravel())
        self._numbers(value)  # of objects, their identities

    def _type(self, value: type) -> None:
        self.key.append(Identity(value))
        self._class(value)

    def _namespace(self, value: ModuleType) -> None:
        self.key.append(Identity(value))
        if not self._is_library(value.__name__):
            self._namespaces[value] = None

    def _reference(self, value: weakref.ref[Any]) -> None:
        self.visit(value())  # and keep it, so that it stays the same

    def _module(self, part: nn.Module) -> None:
        attributes = vars(part)
        for table in (*_TABLES, *_HOOKS):
            found = attributes.get(table, {})
            if found:
                self.key.append(table)
                self._mapping(found)
            else:
                self.whole.append(found)
        names = [name for name in attributes if name not in _MODULE_INTERNALS]
        self._attributes(attributes, names)
        self._class(type(part))

    def _object(self, value: Any) -> None:
        if isinstance(value, _BY_IDENTITY) or not (
            not self._is_library(type(value).__module__) or isinstance(value, SimpleNamespace)
        ):
            self.key.append(Identity(value))
            return
        self._class(type(value))
        known = False
        if hasattr(value, "__dict__"):
            known = True
            self._attributes(vars(value), list(vars(value)))
        slots = [
            name
            for kind in type(value).__mro__
            for name in _as_names(vars(kind).get("__slots__", ()))
            if name not in ("__dict__", "__weakref__")
        ]
        if slots:
            known = True
            self._attributes(_SlotValues(value), slots)
        if not known:
            self.key.append(Identity(value))

    def _attributes(self, attributes: Mapping[str, Any], names: list[str]) -> None:
        if isinstance(attributes, dict):
            self.whole.append(attributes)
        for name in names:
            if name not in attributes:
                continue
            value = attributes[name]
            self._watch(attributes, name)
            if _is_followed(value):
                self.key.append(name)
                self.visit(value)
            else:
                self._postponed.append((name, value))

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self.whole.append(value)
        for name in list(value):
            self._watch(value, name)
            self.visit(name)
            self.visit(value[name])

    def _sequence(self, value: Any) -> None:
        items = tuple(value)
        if not isinstance(value, tuple | frozenset):
            self.sequences.append((value, items))
        self.key.append(len(items))
        if isinstance(value, set | frozenset) and all(isinstance(item, PLAIN) for item in items):
            items = tuple(sorted(items, key=repr))  # each process has an order of its own
        for item in items:
            self.visit(item)

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        self.key.append(code)
        self.names |= names_of(code)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            self.cells.append((cell, content))
            self.visit(content)
        if self._is_library(function.__globals__.get("__name__", "")):
            return
        self.own_names |= names_of(code)
        self.functions.append((function, function_parts(function)))
        for value in (function.__defaults__, function.__kwdefaults__):
            self.visit(value)
        if function.__dict__:
            self._attributes(vars(function), list(vars(function)))
        for name in sorted(imports_of(code) & sys.modules.keys()):
            self._watch(sys.modules, name)
            self.visit(sys.modules[name])
        for name in sorted(globals_of(code) & function.__globals__.keys()):
            self._watch(function.__globals__, name)
            self.key.append(name)
            self.visit(function.__globals__[name])

    def _wrapper(self, value: Any) -> None:
        names = ("__self__", "__func__", "func", "args", "keywords", "start", "stop", "step")
        for name in (*names, "fget", "__wrapped__"):
            if hasattr(value, name):
                self.visit(getattr(value, name))

    def _class(self, kind: type) -> None:
        metaclass: type = type(kind)
        for each in (*kind.__mro__, *metaclass.__mro__):
            if each not in (nn.Module, object, type) and each not in self._classes:
                self._classes[each] = None
        if issubclass(kind, nn.Module):
            self.names.add("forward")

    def _is_library(self, name: str) -> bool:
        library = is_library(name)
        if library:
            self.libraries.add(name.partition(".")[0])
        return library

    def _watch(self, mapping: Mapping[Any, Any], name: Any) -> None:
        entries = self._entries.setdefault(id(mapping), (mapping, {}))[1]
        entries[name] = mapping[name]


class _SlotValues(Mapping[str, Any]):
    """The attributes of an object with `__slots__`."""

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self._owner, name)
        except AttributeError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def _is_implicit(name: str) -> bool:
    """Whether Python itself calls a method of that name while forward runs."""
    return name.startswith("__") and name.endswith("__") and name not in _NOT_CALLED


def _unchecked(value: Any) -> Any:
    """The function whose shapes jaxtyping checks: its wrapper hands values through or raises."""
    while (
        isinstance(value, FunctionType)
        and value.__globals__.get("__name__") == "jaxtyping._decorator"
        and "__wrapped__" in value.__dict__
    ):
        value = value.__dict__["__wrapped__"]
    return value


def _is_followed(value: Any) -> bool:
    """Whether an attribute is followed although no code was seen to read it."""
    kinds = (*PLAIN, Tensor, np.ndarray, array, nn.Module, FunctionType, MethodType, partial)
    return isinstance(value, kinds) or type(value) in (*_SEQUENCES, dict)


def _as_names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


@lru_cache(maxsize=4096)
def is_library(name: str) -> bool:
    """Whether a module is Python's own, an installed package's, or ours: taken to be constant."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return True
    file = getattr(sys.modules.get(name) or sys.modules.get(top), "__file__", None)
    return file is not None and file.startswith(_LIBRARIES)


def function_parts(function: FunctionType) -> tuple[Any, ...]:
    """What of a function can be replaced."""
    return id(function.__code__), id(function.__defaults__), id(function.__kwdefaults__)


def content_of(value: Any) -> tuple[Any, ...]:
    """A tensor's or an array's numbers."""
    if isinstance(value, Tensor):
        numbers = value.detach().cpu()
        if numbers.dtype == torch.bfloat16 or numbers.layout != torch.strided:
            numbers = numbers.to_dense().float()
        return value.dtype, value.shape, numbers.numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return getattr(value, "typecode", "bytes"), bytes(value)
