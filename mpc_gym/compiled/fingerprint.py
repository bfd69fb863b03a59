"""A name for all that a trace depends on, the same in every process; none where that is in doubt.

A `Watch` compares what a module's forward can reach within a process. Between two processes more
can differ, so here it is hashed by content, together with the versions of PyTorch, NumPy and
Python and all sources of this package, and there is no name at all

- where an object counts by identity, and cannot be found again by a name in a module;
- where forward reaches an installed package other than these three, or a module of Python whose
  functions may answer differently next time (`os`, `random`, `time` ...);
- where its code has a name with which files, or Python's own state, are read (`open`, `load` ...);
- where it reaches an `Enum` of the user's, whose members are not looked into.

Code is hashed as Python compiled it: instructions, constants, names, lines and file.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.parameters import numeric_parameters, per_stage_names
from mpc_gym.compiled.walk import Identity, is_library
from mpc_gym.compiled.watch import Watch

_PACKAGE = Path(__file__).parents[1]
_CONSTANT_LIBRARIES = frozenset(
    {"torch", "numpy", "mpc_gym", "jaxtyping", "typing_extensions", "builtins", "__future__"}
    | {"abc", "cmath", "collections", "contextlib", "copy", "dataclasses", "decimal", "enum"}
    | {"fractions", "functools", "itertools", "math", "numbers", "operator", "statistics"}
    | {"types", "typing", "warnings", "weakref"}
)
_READS = frozenset(
    {"open", "input", "eval", "exec", "compile", "globals", "locals", "id", "hash", "__import__"}
    | {"load", "fromfile", "from_file", "memmap", "loadtxt", "genfromtxt", "open_memmap"}
)


class _NoNameError(Exception):
    """Something is not known to be the same in another process."""


def fingerprint(module: nn.Module, sizes: Sequence[int]) -> str | None:
    """What a trace of the module with arguments of these sizes depends on, hashed; None: see above.

    Two modules with the same have the same graph.
    """
    try:
        watch = Watch(module)
    except UnsupportedOperation:  # too large
        return None
    if not watch.libraries <= _CONSTANT_LIBRARIES or not watch.own_names.isdisjoint(_READS):
        return None
    values = numeric_parameters(module)
    inputs = [(k, tuple(v.shape), str(v.dtype), v.requires_grad) for k, v in values.items()]
    staged = sorted(per_stage_names(module, values))
    surroundings = (*sizes, inputs, staged, str(torch.get_default_device()), versions())
    try:
        content = _plain(watch.key)
    except _NoNameError:
        return None
    return hashlib.sha256(repr((surroundings, content)).encode()).hexdigest()


@cache
def versions() -> tuple[str, ...]:
    """Of PyTorch, NumPy and Python, and a hash of the sources of this package."""
    digest = hashlib.sha256()
    for source in sorted(_PACKAGE.rglob("*.py")):
        digest.update(source.read_bytes())
    return torch.__version__, np.__version__, sys.version, digest.hexdigest()


def _plain(value: Any) -> object:
    """What stands for a part of a key: nothing but tuples, texts and bytes.

    Raises:
        _NoNameError: nothing does.
    """
    if isinstance(value, Identity):
        return "object", _name(value.value)
    if isinstance(value, type):
        return "class", value.__module__, value.__qualname__
    if isinstance(value, CodeType):
        return "code", _plain_code(value)
    if isinstance(value, frozenset):
        return "set", sorted(repr(_plain(each)) for each in value)
    if isinstance(value, tuple):
        return "tuple", tuple(map(_plain, value))
    return type(value).__name__, _plain_number(value)


def _plain_number(value: Any) -> object:
    if isinstance(value, bytes):
        return hashlib.sha256(value).digest()
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return value.dtype.str, value.tobytes()
    if isinstance(value, str):
        if value.startswith(("|O", "|V")):  # dtype of an array whose content may be identities
            raise _NoNameError
        return str.__str__(value)
    if isinstance(value, float):
        return float.hex(value) if math.isfinite(value) else float.__repr__(value)
    known = int | complex | range | torch.dtype | torch.device | np.dtype | None | type(Ellipsis)
    if isinstance(value, known):
        return repr(value)
    raise _NoNameError


def _plain_code(code: CodeType) -> tuple[object, ...]:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_name
    lines = code.co_filename, code.co_firstlineno, list(code.co_lines())
    handlers = getattr(code, "co_exceptiontable", b"")
    constants = tuple(map(_plain, code.co_consts))
    return code.co_code, handlers, counts, names, lines, constants


def _name(value: Any) -> tuple[str, ...]:
    """Where an object that counts by identity is found in every process."""
    place: tuple[str, ...]
    found: object
    if isinstance(value, type):
        return value.__module__, value.__qualname__  # its members are looked into
    if isinstance(value, ModuleType):
        place, found = (value.__name__,), sys.modules.get(value.__name__)
    elif isinstance(value, Enum) and is_library(type(value).__module__):
        return type(value).__module__, type(value).__qualname__, value.name
    else:
        place, found = _found_again(value)
    if found is not value:
        raise _NoNameError
    return place


def _found_again(value: Any) -> tuple[tuple[str, ...], object]:
    """A place where an object may be, and what is there."""
    owner = getattr(value, "__objclass__", None)
    module = "numpy" if isinstance(value, np.ufunc) else getattr(owner or value, "__module__", None)
    for name in (getattr(value, "__qualname__", None), getattr(value, "__name__", None)):
        if not isinstance(module, str) or not isinstance(name, str):
            continue
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value and is_library(module):
            return (module, name), found
    raise _NoNameError
