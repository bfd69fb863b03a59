"""What a trace depends on beside the inputs of its program, and whether it has changed since.

The rule. Parameters and floating-point buffers are inputs: their values are read at each call, and
only their shapes count here. Everything else that forward can reach is constant in a trace, and a
`Watch` compares it by value: the submodules and their classes, hooks, and all attributes, through
lists, dictionaries and other containers, dataclasses, namespaces, objects of the user's own classes
and whatever functions hold (closures, defaults, attributes, `functools.partial`, `lru_cache`);
tensors that are no inputs and NumPy arrays by content; and, of the functions that forward calls,
the code, the global variables that they read, the modules that they import, and the class
attributes and properties, followed through the user's own functions and modules.

Not seen are: what is looked up by a name that is no text in the code (`globals()[name]`), what lies
behind an object of an extension type or of an installed package, which counts by identity (a
`ContextVar`, `threading.local`, `os.environ`, a file), and the code and global variables of
installed packages. The remedy for all of these is to keep what changes
as a buffer (`register_buffer`), as an `nn.Parameter`, or to hand it in as the context.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from operator import is_
from types import CellType, FunctionType
from typing import Any, TypeVar

import torch
from torch import nn

from mpc_gym.compiled.errors import UnsupportedOperation
from mpc_gym.compiled.walk import PLAIN, Walk, content_of, function_parts

Made = TypeVar("Made")


class Watch:
    """The present constants of some modules; see the module's docstring.

    Args:
        modules: Whose forward is traced.

    Attributes:
        parts: The modules and all their submodules.
        key: By value all that a trace depends on. Watches with equal keys stand for the same
            program (some objects count by identity, and are kept).
        own_names, libraries: See `Walk`.

    Raises:
        UnsupportedOperation: There is too much to be compared at each call.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        self.parts = list(dict.fromkeys(chain.from_iterable(m.modules() for m in modules)))
        walk = Walk(self.parts)
        for module in modules:
            walk.visit(module)
        walk.finish()
        self.key: Hashable = (torch.get_default_dtype(), *walk.key)
        self.own_names, self.libraries = walk.own_names, walk.libraries
        self._kept = walk.seen  # so that no identity is used again
        self._types = list(map(type, self.parts))
        self._whole, self._lengths = walk.whole, [*map(len, walk.whole)]
        entries = list(walk.entries())
        self._places = [place for place, _ in entries]
        self._values = [value for _, value in entries]
        self._others: list[tuple[Callable[[Any], bool], Any]] = [
            *((_sequence_unchanged, each) for each in walk.sequences),
            *((_cell_unchanged, each) for each in walk.cells),
            *((_function_unchanged, each) for each in walk.functions),
            *((_content_unchanged, each) for each in walk.contents),
        ]
        self._inputs = walk.inputs
        self._shapes = self._present_shapes()
        self._dtype = torch.get_default_dtype()

    def unchanged(self) -> bool:
        """Whether nothing looks changed, by identities first. False may be a false alarm."""
        return (
            torch.get_default_dtype() is self._dtype
            and [*map(len, self._whole)] == self._lengths
            and [*map(type, self.parts)] == self._types
            and self._entries_unchanged()
            and self._present_shapes() == self._shapes
            and all(unchanged(watched) for unchanged, watched in self._others)
        )

    def _entries_unchanged(self) -> bool:
        try:
            now = [mapping[name] for mapping, name in self._places]
        except KeyError:
            return False
        return all(map(is_, now, self._values)) or all(map(_is_same, now, self._values))

    def _present_shapes(self) -> list[torch.Size]:
        return [table[name].shape for table, name in self._inputs]

    def holds(self) -> bool:
        """Whether a new watch has the same key; it takes the place of this one then."""
        if self.unchanged():
            return True
        new = Watch(*self.modules)
        if new.key != self.key:
            return False
        self.__dict__ = new.__dict__
        return True


def watched(make: Callable[[], Made], modules: Sequence[nn.Module]) -> tuple[Watch, Made]:
    """What is made of modules by tracing them, and a watch that was begun before.

    Tracing calls them, and the first call may fill what they keep from call to call.

    Raises:
        UnsupportedOperation: Each call changes something that a trace depends on.
    """
    for _ in range(2):
        watch = Watch(*modules)
        made = make()
        if watch.holds():
            return watch, made
    raise UnsupportedOperation(
        f"each call of {' or '.join(type(module).__name__ for module in modules)} changes an "
        "attribute, a global variable or an object that its forward can read, and so would have "
        "to be compiled again for each plan: count and record outside of forward"
    )


def _is_same(now: Any, then: Any) -> bool:
    return now is then or (type(now) is type(then) and isinstance(now, PLAIN) and now == then)


def _sequence_unchanged(watched: tuple[Any, tuple[Any, ...]]) -> bool:
    items, then = watched
    return len(items) == len(then) and all(map(_is_same, items, then))


def _cell_unchanged(watched: tuple[CellType, object]) -> bool:
    return watched[0].cell_contents is watched[1]


def _function_unchanged(watched: tuple[FunctionType, tuple[Any, ...]]) -> bool:
    return function_parts(watched[0]) == watched[1]


def _content_unchanged(watched: tuple[Any, tuple[Any, ...]]) -> bool:
    return content_of(watched[0]) == watched[1]
