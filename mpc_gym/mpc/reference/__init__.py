"""The solver and its derivative in readable PyTorch: the oracle of the native ones."""
