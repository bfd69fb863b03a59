"""PyTorch modules as native functions with exact first and second derivatives."""

from mpc_gym.compiled.errors import ImpureModule, ProgramTooLarge, UnsupportedOperation
from mpc_gym.compiled.graph import Graph
from mpc_gym.compiled.modules import CompiledModule, compile_module
from mpc_gym.compiled.program import Program
from mpc_gym.compiled.trace import trace

__all__ = [
    "CompiledModule",
    "Graph",
    "ImpureModule",
    "Program",
    "ProgramTooLarge",
    "UnsupportedOperation",
    "compile_module",
    "trace",
]
