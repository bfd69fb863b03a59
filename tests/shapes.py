"""The checker of array shapes that the import hook of `conftest.py` puts around functions."""

import functools
import re
from collections.abc import Callable, Hashable
from typing import Any

from beartype import BeartypeConf, beartype
from torch import Tensor

_ARRAY = re.compile(r"\b(Float|Int|UInt8|Bool|Shaped)\[")
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arrays checked.

    Its other arguments are not: of those the package says by itself what is wrong with them, and
    tests must see that message rather than the checker's. What is asked of arrays is asked of their
    kinds alone, so that arguments of the same kinds are in order once others have been.
    """
    annotations = function.__annotations__
    function.__annotations__ = {k: v for k, v in annotations.items() if _ARRAY.search(str(v))}
    check = _check(function)
    in_order: set[Hashable] = set()

    @functools.wraps(check)
    def check_once(*arguments: Any, **named: Any) -> Any:
        kinds = (*map(_kind, arguments), *((k, _kind(v)) for k, v in named.items()))
        if kinds not in in_order:
            check(*arguments, **named)
            in_order.add(kinds)

    return check_once


def _kind(value: object) -> Hashable:
    if isinstance(value, Tensor):
        return type(value), value.dtype, value.shape
    if isinstance(value, tuple | list):
        return type(value), *map(_kind, value)
    shape = getattr(value, "shape", None)
    return type(value), getattr(value, "dtype", None), shape if isinstance(shape, tuple) else None
