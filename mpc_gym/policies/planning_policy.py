"""What an SB3 algorithm sees of a planning policy, whichever module in it plans."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from mpc_gym.checks import check_count
from mpc_gym.mpc import MPC, Plan
from mpc_gym.policies.algorithms import (
    calling_algorithm,
    check_algorithm,
    check_no_unknown_statistics,
    normalizing,
)
from mpc_gym.policies.fit import check_observation
from mpc_gym.policies.functions import save_with_functions
from mpc_gym.policies.normalization import Normalization
from mpc_gym.policies.observer import in_float32
from mpc_gym.policies.options import PlanOptions
from mpc_gym.policies.planner import Planner
from mpc_gym.policies.receding_horizon import PlanState, carry
from mpc_gym.policies.sharing.pretrained import Pretrained

Policy = TypeVar("Policy", bound="PlanningPolicy")


class PlanningPolicy(Pretrained):
    """A policy that acts by plans, and whose recurrent state are the plans.

    Attributes:
        planner: the module that plans, the policy's own or its actor's.
        plan_options: how it was made.
    """

    planner: Planner
    plan_options: PlanOptions

    def __new__(cls: type[Policy], *_: Any, **__: Any) -> Policy:
        """A new policy, for an algorithm that can train it.

        Raises:
            ValueError: an algorithm makes it that it is not for.
        """
        # before __init__, to which an algorithm of another kind gives other arguments
        algorithm = calling_algorithm("_setup_model")
        if algorithm is not None:
            check_algorithm(cls, algorithm)
        return super().__new__(cls)

    @property
    def mpc(self) -> MPC:
        """The planner's controller."""
        return self.planner.mpc

    def plan(
        self,
        observation: PyTorchObs | NDArray[np.floating],
        warm_start: Float[Tensor, "batch horizon n_ctrl"] | None = None,
        *,
        unclamped: bool = False,
    ) -> Plan:
        """See `Planner.plan`."""
        return self.planner.plan(observation, warm_start, unclamped=unclamped)

    @abstractmethod
    def _act(self, obs: PyTorchObs, plan: Plan) -> Float[Tensor, "batch n_ctrl"]:
        """Random actions; the plan has its unclamped control."""

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: PlanState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.floating], PlanState]:
        """The action at an observation or a batch of them, and the recurrent state.

        With `state=None` each plan is solved from nothing, as in training. With the state that
        the last call returned, it is solved from the last plan, which takes fewer iterations and
        stays in the local optimum once chosen, unless another guess leads to a better one (see
        `Planner.replan`). `evaluate_policy` passes the state back.

        Args:
            observation: an array as the observation space, with or without a leading batch
                dimension; with a `Dict` space, a dict of such.
            state: a tuple of one array [n_env, horizon, n_ctrl], and with constraints one of
                their multipliers [n_env, horizon, k].
            episode_start: [n_env], true where an episode begins: its plan is forgotten.
            deterministic: the plan's control instead of a sample.

        Returns:
            Actions within the action space's bounds, and the state for the next call.

        Raises:
            TypeError: the observation is a dict where the space is none, or the other way round.
            ValueError: the observation is not finite, was normalised or comes with an info, or a
                shape does not fit.
        """
        check_observation(observation, self.observation_space)
        if self.training:  # going through all modules takes as long as a plan
            self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        obs = in_float32(obs)
        with torch.no_grad():
            plan = self.planner.replan(obs, state, episode_start, unclamped=not deterministic)
            limits = self.planner.action_limits
            taken = limits.action(plan.controls[:, 0]) if deterministic else self._act(obs, plan)
        space = self.action_space
        assert isinstance(space, spaces.Box)
        actions = taken.cpu().numpy().reshape(-1, *space.shape)
        actions = np.clip(actions, space.low, space.high)
        return (actions if is_batch else actions[0]), carry(plan)

    def set_training_mode(self, mode: bool) -> None:
        """Switch to training or evaluation, as an algorithm does before each rollout and update.

        Before an update, its logger is told of the plans (see `PlanLog.record`).

        Raises:
            ValueError: the algorithm was given an environment since that normalises observations
                otherwise.
        """
        algorithm = calling_algorithm("collect_rollouts")
        if algorithm is not None:
            self._observe(algorithm)
        trains = calling_algorithm("train") if mode else None
        if trains is not None:
            self.planner.log.record(trains.logger, self.mpc)
        super().set_training_mode(mode)

    def _observe(self, algorithm: BaseAlgorithm) -> None:
        """Follow the statistics of the algorithm's environment."""
        options = self.plan_options
        if not options.checks_angles:
            check_no_unknown_statistics(algorithm)
        normalized = self.planner.observer.normalization is not None
        envs = normalizing(algorithm, options.state_is_known, normalized)
        for module in self.modules():  # a target network plans too
            if isinstance(module, Normalization) and envs is not None:
                module.follow(envs)

    def save(self, path: str | Path) -> None:
        """See `save_with_functions`."""
        save_with_functions(self, path)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self.plan_options.as_arguments()}

    def load_from_vector(self, vector: NDArray[np.floating]) -> None:
        """Set the parameters from `parameters_to_vector`, each in its own dtype.

        SB3's own would turn the physical parameters into float32.
        """
        values = torch.as_tensor(vector, dtype=torch.float64, device=self.device)
        parameters = list(self.parameters())
        chunks = torch.split(values, [parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, chunk in zip(parameters, chunks, strict=True):
                parameter.copy_(chunk.view_as(parameter))


class CriticFirst(BaseCallback):
    """Hold what a plan learns until the critic has seen enough to judge it by.

        model.learn(20_000, callback=CriticFirst(6_000))

    A planning policy may have three parameters where a network has thousands, each of which bears
    on every action, and their initial values are often good. The gradient of a critic that knows
    nothing yet spoils them in a few hundred steps. So first the policy is evaluated, then improved.

    Args:
        steps: of the environment, after which the plan learns too.

    Raises:
        ValueError: the algorithm's policy does not plan.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = check_count("steps", steps, 0)
        self._held: list[nn.Parameter] = []

    def _init_callback(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, PlanningPolicy):
            raise ValueError(
                f"CriticFirst is for a policy that plans, got {type(policy).__name__}: remove it"
            )
        self._release()  # what a training that was interrupted has left held
        self._held = [each for each in policy.planner.parameters() if each.requires_grad]

    def _on_rollout_start(self) -> None:
        self._learn(self.num_timesteps >= self.steps)

    def _on_training_end(self) -> None:
        self._release()

    def _on_step(self) -> bool:
        return True

    def _release(self) -> None:
        self._learn(True)
        self._held = []

    def _learn(self, learned: bool) -> None:
        for parameter in self._held:
            parameter.requires_grad_(learned)
