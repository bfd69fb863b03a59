"""Generated functions called by address, so that the code that calls them is compiled only once.

Numba specialises a function that takes functions for each of them. A solver's loops are the same
for all models; only the stage functions differ, and are called some twenty times a pass. So the
loops take their addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from mpc_gym.compiled.cpu.native import OPTIONS, keep

_pointer_to: Any = types.CPointer
_POINTERS: Any = (_pointer_to(types.float64),) * 4


def callback(function: Callable[..., None]) -> int:
    """Compile a function of four pointers to float64, and return its address.

    The machine code is never freed.
    """
    compiled: Any = CFunc(function, (_POINTERS, types.void), {}, {"nopython": True, **OPTIONS})
    keep(compiled, function)
    compiled.compile()
    _ALIVE.append(compiled)
    address: int = compiled.address
    return address


_ALIVE: list[Any] = []


@intrinsic
def call(
    _typing_context: Any, address: Any, D: Any, start: Any, P: Any, S: Any, stage: Any, G: Any
) -> Any:
    """Call the function at an address on D[start:], P, S[stage] and G, which are contiguous."""
    assert all(array.layout == "C" for array in (D, P, S, G))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, D, start, P, S, stage, G = arguments
        pointer = ir.DoubleType().as_pointer()

        def array(position: int, value: Any) -> Any:
            return context.make_array(signature.args[position])(context, builder, value)

        S = array(4, S)
        width = builder.extract_value(S.shape, 1)
        function_type = ir.FunctionType(ir.VoidType(), [pointer] * 4)
        function = builder.inttoptr(address, function_type.as_pointer())
        places = [
            builder.gep(array(1, D).data, [start]),
            array(3, P).data,
            builder.gep(S.data, [builder.mul(stage, width)]),
            array(6, G).data,
        ]
        builder.call(function, places)
        return context.get_dummy_value()

    return types.void(address, D, start, P, S, stage, G), generate
