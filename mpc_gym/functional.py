"""Modules evaluated with other values in the place of their parameters, unseen by other threads.

`torch.func.functional_call` puts the values into the module itself for the time of the call, where
every other thread reads them. Here a copy of the module tree takes them: its tables and whatever
refers to a part of the tree are new, all else is shared.
"""

import copy
import functools
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LOCK = threading.RLock()
"""Held while models are traced, compiled, or differentiated by PyTorch's function transforms.

These keep state that belongs to the process, not to a thread: methods of `nn.Module` that are
replaced for a while, the level of forward-mode differentiation, the table of modules.
"""

Function = TypeVar("Function", bound=Callable[..., Any])

_TABLES = ("_parameters", "_buffers", "_modules")


def eager(function: Function) -> Function:
    """A function that `torch.compile` runs as it is, with all that it calls, and does not trace."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # as the compiler sees it; otherwise False
            disable: Any = torch.compiler.disable  # it is not typed
            return disable(function)(*arguments, **named)
        return function(*arguments, **named)

    return cast(Function, call)


def call_with(module: nn.Module, values: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """`module(*arguments)` with values in the place of the parameters and buffers of these names.

    As `torch.func.functional_call`, but the module stays as it is, also while it is called. What
    its forward assigns to its attributes is therefore lost.
    """
    return WithValues(module, values)(*arguments)


class WithValues:
    """A module with values in the place of the parameters and buffers of these names.

    Other attributes are those that the module has now. What its forward assigns to them stays here.

    A module that does not get its parameters from its own tree (but from a global variable, or in
    code that is not Python's) is called as PyTorch does it, under the lock.
    """

    def __init__(self, module: nn.Module, values: Mapping[str, Tensor]) -> None:
        self._module = module
        self._values = values
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        replaced = [(named[k], value) for k, value in values.items() if named[k] is not value]
        self._unseen: _Watch | None = _Watch(original for original, _ in replaced)
        self._copy: nn.Module | None = None
        if not any(map(_is_opaque, module.modules())):
            self._copy = _Copy(module, replaced).of(module)

    def __call__(self, *arguments: Any) -> Any:
        """What the module returns with these values."""
        if self._copy is not None and self._unseen is not None:
            with self._unseen as watch:
                result = self._copy(*arguments)
            if not watch.seen:
                self._unseen = None
                return result
            self._copy = None
        if self._copy is not None:
            return self._copy(*arguments)
        with LOCK:
            return torch.func.functional_call(self._module, dict(self._values), arguments)


def _is_opaque(part: nn.Module) -> bool:
    """Whether it keeps its parameters, or its code, where a copy of its attributes lacks them."""
    kind = type(part)
    compiled = isinstance(part, torch.jit.ScriptModule) or kind.__module__.startswith("torch._")
    return compiled or any("__slots__" in vars(base) for base in kind.__mro__)


class _Copy:
    """A copy of a module tree, with some tensors replaced wherever the tree refers to them."""

    def __init__(self, module: nn.Module, replaced: Iterable[tuple[Tensor, Tensor]]) -> None:
        self._new: dict[int, Any] = {id(original): value for original, value in replaced}
        parts = list(module.modules())
        self._new |= {id(part): object.__new__(type(part)) for part in parts}
        for part in parts:
            attributes = {name: self.of(value) for name, value in vars(part).items()}
            for table in _TABLES:
                if attributes[table] is vars(part)[table]:
                    attributes[table] = copy.copy(attributes[table])
            vars(self.of(part)).update(attributes)

    def of(self, value: Any) -> Any:
        """What stands for a value; the value itself where it refers to nothing that is new."""
        if id(value) not in self._new:
            if not isinstance(value, _FOLLOWED) or not value:
                return value
            self._new[id(value)] = value  # it may contain itself
            self._new[id(value)] = self._followed(value)
        return self._new[id(value)]

    def _followed(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            owner = self.of(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            new = tuple(map(self.of, parts))
            return value if _same(parts, new) else functools.partial(new[0], *new[1], **new[2])
        return self._container(value)

    def _container(self, value: Any) -> Any:
        old = value.values() if isinstance(value, dict) else value
        new = [self.of(item) for item in old]
        if _same(old, new):
            return value
        if isinstance(value, dict):
            result = copy.copy(value)
            result.update(zip(value, new, strict=True))
            return result
        return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        cells = value.__closure__ or ()
        new = [self._cell(cell) for cell in cells]
        if _same(cells, new):
            return value
        result = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(new)
        )
        result.__kwdefaults__ = value.__kwdefaults__
        return result

    def _cell(self, cell: types.CellType) -> types.CellType:
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            return cell
        new = self.of(content)
        return cell if new is content else types.CellType(new)


_FOLLOWED = (list, tuple, dict, set, types.MethodType, types.FunctionType, functools.partial)


def _same(old: Iterable[Any], new: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(old, new, strict=True))


class _Watch(TorchFunctionMode):
    """Notices whether one of some tensors takes part in what PyTorch computes."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.seen = False
        self._watched = {id(tensor) for tensor in tensors}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """The operation as it is, after a look at its arguments."""
        kwargs = kwargs or {}
        self.seen = self.seen or self._has(args) or self._has(kwargs.values())
        return func(*args, **kwargs)

    def _has(self, values: Iterable[Any]) -> bool:
        return any(
            id(value) in self._watched or (isinstance(value, list | tuple) and self._has(value))
            for value in values
        )
