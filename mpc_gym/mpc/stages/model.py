"""The traced model of a controller, written into the program of a stage."""

import math
from dataclasses import dataclass

from mpc_gym.compiled.graph import Graph
from mpc_gym.compiled.parameters import unflatten
from mpc_gym.compiled.program import Array, Expression, Program, Value
from mpc_gym.mpc.augmented_cost import AugmentedCost, RowsAndCost


@dataclass(frozen=True)
class Point:
    """The model at one state and control."""

    z: list[Expression]  # (x, u)
    f: Array
    l: Value
    shared: Array  # parameters
    staged: Array


@dataclass(frozen=True)
class Model:
    """The traced dynamics and stage cost of a controller.

    Their parameters are numbered in the order dynamics, cost, and in it as the graph lists them.
    Those of `rows`, which belong to the constraints in the cost, are among the cost's.
    """

    dynamics: Graph
    cost: Graph
    rows: Graph | None = None  # of `RowsAndCost`
    second_order: bool = True  # whether second derivatives of the dynamics are ever asked for

    @property
    def n(self) -> int:
        """Number of states."""
        return self.dynamics.n_state

    @property
    def m(self) -> int:
        """Number of controls."""
        return self.dynamics.n_ctrl

    @property
    def n_context(self) -> int:
        """Number of context entries, 0 if neither module takes a context."""
        return max(self.dynamics.n_context, self.cost.n_context)

    @property
    def n_rows(self) -> int:
        """Number of rows of the constraints."""
        return 0 if self.rows is None else self.rows.output_shape[0] - 1

    def exact(self, program: Program) -> Value:
        """The share of the dynamics' second derivatives that counts, 1 or 0."""
        return program.input("exact'") if self.second_order else 0.0

    def parameter_shapes(self, *, per_stage: bool) -> dict[tuple[int, str], tuple[int, ...]]:
        """Shapes of the parameters, of one stage or shared by all, by (0 or 1: cost, name)."""
        return {
            (which, name): shape
            for which, graph in enumerate((self.dynamics, self.cost))
            for name, shape in graph.parameter_shapes.items()
            if (name in graph.per_stage) == per_stage
        }

    def parameter_count(self, *, per_stage: bool) -> int:
        """Number of scalars among the parameters: of one stage, or shared by all."""
        return sum(map(math.prod, self.parameter_shapes(per_stage=per_stage).values()))

    def at(self, program: Program, x: Array, u: Array) -> Point:
        """Write the model into a program, at the state x and the control u."""
        shared, staged, values = self._parameters(program)
        f, ell = (
            graph.evaluate(
                program,
                x,
                u,
                program.inputs("c", self.n_context) if graph.n_context else None,
                {name: values[which, name] for name in graph.parameter_shapes},
            )
            for which, graph in enumerate((self.dynamics, self.cost))
        )
        return Point([*x, *u], f, ell.item(), shared, staged)

    @property
    def content(self) -> tuple[object, ...]:
        """All that the programs of a stage depend on, beside the sources of this package."""
        graphs = [each for each in (self.dynamics, self.cost, self.rows) if each is not None]
        contents = (self.second_order, *(each.content for each in graphs))
        if self.rows is None:
            return contents
        cost = self.augmented
        return (*contents, cost.sizes, cost.inequalities, cost.soft)

    @property
    def augmented(self) -> AugmentedCost:
        """The cost with the constraints in it."""
        assert self.rows is not None
        module = self.rows.module
        assert isinstance(module, RowsAndCost)
        return module.cost

    def rows_at(self, program: Program, x: Array, u: Array) -> Array:
        """Write the rows of the constraints, and the cost itself, into a program."""
        assert self.rows is not None
        values = self._parameters(program)[2]
        own = {name: values[1, name.partition(".")[2]] for name in self.rows.parameter_shapes}
        return self.rows.evaluate(program, x, u, program.inputs("c", self.n_context), own)

    def _parameters(self, program: Program) -> tuple[Array, Array, dict[tuple[int, str], Array]]:
        """Those of all stages, of one stage, and all by name."""
        shared = program.parameters("p", self.parameter_count(per_stage=False))
        staged = program.parameters("s", self.parameter_count(per_stage=True))
        values = {
            **unflatten(shared, self.parameter_shapes(per_stage=False)),
            **unflatten(staged, self.parameter_shapes(per_stage=True)),
        }
        return shared, staged, values
