"""The solver and its derivative in native code, for models that can be compiled."""
