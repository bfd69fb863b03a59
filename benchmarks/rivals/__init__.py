"""The solvers that are compared, behind one interface."""
