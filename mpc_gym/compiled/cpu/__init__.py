"""The target that runs: native code of the processor, by Numba and LLVM."""
