"""What the code of a function refers to by name."""

from __future__ import annotations

import dis
from functools import lru_cache
from itertools import chain
from types import CodeType


@lru_cache(maxsize=4096)
def names_of(code: CodeType) -> frozenset[str]:
    """All names and texts in a function's code, and in that of the functions inside it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    texts = (each for each in code.co_consts if isinstance(each, str))
    return frozenset(chain(code.co_names, texts, *map(names_of, inner)))


@lru_cache(maxsize=4096)
def globals_of(code: CodeType) -> frozenset[str]:
    """The global variables that a function reads, and the functions inside it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    read = (
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    )
    return frozenset(chain(read, *map(globals_of, inner)))


@lru_cache(maxsize=4096)
def imports_of(code: CodeType) -> frozenset[str]:
    """The modules that a function imports when it is called, and the functions inside it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    names = (i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME")
    return frozenset(chain(names, *map(imports_of, inner)))
