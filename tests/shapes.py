"""The checker of array shapes that the import hook of `conftest.py` puts around functions."""

import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_ARRAY = re.compile(r"\b(Float|Int|UInt8|Bool|Shaped)\[")
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arrays checked.

    Its other arguments are not: of those the package says by itself what is wrong with them, and
    tests must see that message rather than the checker's.
    """
    annotations = function.__annotations__
    function.__annotations__ = {k: v for k, v in annotations.items() if _ARRAY.search(str(v))}
    return _check(function)
