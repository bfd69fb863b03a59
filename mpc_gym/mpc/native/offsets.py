"""What the kernels know of a model: its sizes, and where the fields of a record begin.

Named tuples of integers, so that Numba code can read them by name. They go in as arrays: Numba's
dispatcher takes ten microseconds to recognise a named tuple.
"""

from collections import namedtuple

SolverOffsets = namedtuple(
    "SolverOffsets",
    "n m n_context record x u xn un c k kx v vv moved span slope change pull convex size exact mu "
    "alpha cost quu q qq damping solvable",
)
SensitivityOffsets = namedtuple(
    "SensitivityOffsets",
    "n m n_context n_shared n_staged record x u c gx gu lam v vv k kx force forcex atlow athigh "
    "glow ghigh dx gc gs w exact regular finite",
)
