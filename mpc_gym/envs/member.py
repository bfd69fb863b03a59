"""One environment of a batch: what `get_attr`, `set_attr` and `call` see of it."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_gym.envs.batch import Batch
from mpc_gym.models import Dynamics

SHARED = ("dynamics", "cost", "width", "height")


class Member:
    """One environment of a batch, with the attributes and methods of a single one.

    Its own are `state`, `np_random`, `np_random_seed`, `physics` and each physical parameter by
    name (`mass`); `state` and the parameters can be set. All else is shared by the batch: spaces,
    `spec`, `render_mode`, and `dynamics`, whose parameters hold where an environment has none of
    its own. Of what is shared, `dynamics`, `cost`, `width` and `height` can be set. Stepping and
    resetting are the batch's.

    Args:
        batch: that it is part of.
        index: its place there.
    """

    batch: Batch
    index: int

    def __init__(self, batch: Batch, index: int) -> None:
        # Not by assignment, which would set the environment's attributes.
        self.__dict__.update(batch=batch, index=index)

    def owns(self, name: str) -> bool:
        """Whether an attribute that can be set is this environment's own.

        Raises:
            AttributeError: there is no attribute of that name that can be set.
        """
        own = ("state", *self.batch.env.given_physics)
        if name not in (*own, *SHARED):
            raise AttributeError(f"{name!r} cannot be set; these can: {', '.join((*own, *SHARED))}")
        return name in own

    @property
    def unwrapped(self) -> "Member":
        """Itself."""
        return self

    @property
    def state(self) -> NDArray[np.float64]:
        """The model's state [n_state], a copy."""
        return np.array(self.batch.states[self.index])

    @property
    def physics(self) -> dict[str, float]:
        """The present value of each of its physical parameters."""
        return self.batch.physics(self.index)

    def set_physics(self, values: dict[str, float]) -> None:
        """See `DiffEnv.set_physics`."""
        self.batch.set_physics(self.index, values)

    def nominal_dynamics(self) -> Dynamics:
        """What a controller for this environment knows of its dynamics; see `DiffEnv`."""
        env = copy.copy(self.batch.env)
        env.dynamics = copy.deepcopy(env.dynamics)
        env.set_physics(self.physics)
        return env.nominal_dynamics()

    @property
    def np_random(self) -> np.random.Generator:
        """Its random numbers, which are drawn ahead."""
        return self.batch.streams.generators[self.index]

    @property
    def np_random_seed(self) -> int:
        """Its seed; -1 where it came from the operating system."""
        return self.batch.streams.seeds[self.index]

    def render(self) -> NDArray[np.uint8] | None:
        """A frame [height, width, 3]."""
        env = self.batch.env
        return self.batch.frame(self.index, env.width, env.height)

    def show_plan(self, plan: Any) -> None:
        """See `DiffEnv.show_plan`."""
        self.batch.show_plan(self.index, plan)

    def has_wrapper_attr(self, name: str) -> bool:
        """Whether there is an attribute of that name."""
        return hasattr(self, name)

    def get_wrapper_attr(self, name: str) -> Any:
        """The attribute of that name."""
        return getattr(self, name)

    def set_wrapper_attr(
        self,
        name: str,
        value: Any,
        *,
        force: bool = True,  # noqa: ARG002  (Gymnasium's; there is no wrapper to create it on)
    ) -> bool:
        """Set the attribute of that name."""
        setattr(self, name, value)
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by copy and pickle, before there is a batch
            raise AttributeError(name)
        if name in {"reset", "step"}:
            raise AttributeError(
                f"{name} is not a method of one environment of a batch; call that of the batch"
            )
        if name in self.batch.env.given_physics:
            return self.physics[name]
        return getattr(self.batch.env, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state":
            self.batch.set_state(self.index, value)
        elif self.owns(name):
            self.set_physics({name: value})
        else:
            setattr(self.batch.env, name, value)
