"""What the machine code of a compiled function is made of."""

import re
from typing import Any

# x86: vaddpd, vfmadd213pd, mulpd ...; ARM: fmul v0.2d
_PACKED = (
    r"\b(?:v?(?:fn?m(?:add|sub)\d*|add|sub|mul|div)pd|f(?:add|sub|mul|div|mla|mls)\s+v\d+\.2d)\b"
)
_LIBRARY_CALL = r"\b(?:call\w*|bl)\s+\S*\b(?:sin|cos|tan|exp|expm1|log|log1p|pow|atan2|tanh|fmod)\b"


def assembly_of(function: Any) -> str:
    """What a function that has been called was compiled to, now: there is none for cached code."""
    function._cache.disable()
    function.recompile()
    return "\n".join(function.inspect_asm().values())


def assert_vectorised(function: Any) -> None:
    """Its arithmetic is packed, and it calls no scalar elementary function."""
    assembly = assembly_of(function)
    assert re.search(_PACKED, assembly), "no packed floating-point instruction"
    assert not re.search(_LIBRARY_CALL, assembly), "a call to the C library"


def packed_share(function: Any) -> float:
    """How much of its double-precision arithmetic on x86 is packed."""
    assembly = assembly_of(function)
    arithmetic = r"\bv?(?:fn?m(?:add|sub)\d*|add|sub|mul|div)"
    packed = len(re.findall(arithmetic + r"pd\b", assembly))
    scalar = len(re.findall(arithmetic + r"sd\b", assembly))
    return packed / max(packed + scalar, 1)
