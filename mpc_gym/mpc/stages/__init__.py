"""The solver's stages as scalar programs: model, derivatives and Riccati update in one.

Each is the mathematics of the reference, written on the scalars of one stage. Model and recursion
go through constant folding together, so that the structural zeros of the model's derivatives vanish
from the recursion, and only the upper triangles of Q and V are computed.

A program's inputs and outputs are named as the fields of a stage's record (see `record.py`),
`x0`, `kx0` (of K), `vv0` (of V), ...; a prime marks a field of the following stage, `v'0`. Inputs
that are the same for all instances are the parameters `p0, p1, ...`, those that change from stage
to stage `s0, s1, ...`, and the bounds `low0, high0, ...`. What is gathered over the stages, such as
the gradients `gp0, gp1, ...` by the parameters, is an input and an output of every stage.
"""
