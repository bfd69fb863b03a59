"""The dynamics that a policy plans through, learned while SB3's algorithms act by it."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from mpc_gym.checks import check_count, check_instance
from mpc_gym.imitation.demonstrations import Demonstrations, check_demonstrations
from mpc_gym.imitation.fit_dynamics import FitOptions, fit_dynamics
from mpc_gym.imitation.identify import identify
from mpc_gym.imitation.metrics import Row
from mpc_gym.imitation.transitions import Transitions, flattened, policy_transitions, unflattened
from mpc_gym.models import LearnedDynamics
from mpc_gym.policies import PlanningPolicy
from mpc_gym.policies.plan_log import learned_numbers, record_numbers

Observation = NDArray[Any] | dict[str, NDArray[Any]]
FEW = 32  # numbers, up to which least squares fit faster and better than Adam


class LearnDynamics(BaseCallback):
    """Fit the dynamics that a policy plans through to what the algorithm sees of the environment.

        model.learn(20_000, callback=LearnDynamics())

    Physics of a handful of parameters is fitted by least squares (`identify`), in a fraction of a
    second; networks by Adam (`fit_dynamics`).

    The transitions are those of all environments, as they gave them: `VecNormalize` and the
    policy's `state` and `control_scale` are taken into account. The dynamics learn from them
    alone: outside of a fit the algorithm's optimiser does not move them, and trains what else the
    policy learns, until training ends. Fits come between rollouts, so that a rollout is of one
    policy.

    What goes on after loading is in the policy: weights, means and scales. The transitions are the
    callback's: pass the same object to `learn` to go on with them.

    Args:
        every: steps of the environments between fits.
        demonstrations: of the environment, that were there before, such as episodes of random
            actions; they are learned from too, at once.
        capacity: transitions that are kept; the oldest are forgotten.
        options: of each fit, by Adam, which begins with the weights of the last one. None:
            `identify` where at most 32 numbers are learned, else, and of `LearnedDynamics`, the
            default `FitOptions`.

    Raises:
        TypeError: `demonstrations` or `options` is something else.
        ValueError: a count is not positive, the algorithm's policy does not plan, or the
            demonstrations are of another environment.
    """

    def __init__(
        self,
        every: int = 1_000,
        demonstrations: Demonstrations | None = None,
        capacity: int = 100_000,
        options: FitOptions | None = None,
    ) -> None:
        super().__init__()
        self.every = check_count("every", every)
        self.capacity = check_count("capacity", capacity, 2)
        if demonstrations is not None:
            check_demonstrations("demonstrations", demonstrations)
        if options is not None:
            check_instance("options", options, FitOptions, "FitOptions, or None")
        self.options = options
        self._rows: list[NDArray[np.float64]] = []  # a batch of (before, action, after) each
        self._sizes = 0, 0  # of an observation and an action
        self._count = self._fresh = 0
        self._held: list[nn.Parameter] = []
        self._numbers: set[str] = set()  # those of them that are single, by their names
        self._last: NDArray[np.float64] = np.empty(0)
        if demonstrations is not None:
            given = demonstrations
            self._add(given.observations, given.actions, given.next_observations)
            self._fresh = self.every

    @property
    def transitions(self) -> int:
        """How many are kept."""
        return self._count

    def known(self) -> Transitions:
        """The transitions so far, in the units of the policy's model.

        Raises:
            ValueError: there is none.
        """
        if not self._rows or not hasattr(self, "model"):
            raise ValueError(
                "there are no transitions yet: pass this object to learn(callback=...)"
            )
        policy = self._policy()
        rows = torch.as_tensor(np.concatenate(self._rows), device=policy.device)
        n_obs = spaces.flatdim(policy.observation_space)
        before, actions, after = torch.split(rows, [n_obs, rows.shape[1] - 2 * n_obs, n_obs], 1)
        return policy_transitions(
            policy,
            unflattened(policy.observation_space, before),
            actions,
            unflattened(policy.observation_space, after),
        )

    def fit(self) -> None:
        """Fit the dynamics to the transitions so far."""
        policy, transitions = self._policy(), self.known()
        self._learn(True)
        try:
            history = self._fitted(policy.mpc.dynamics, transitions)
        finally:
            self._learn(False)
        self._share(policy)
        self._fresh = 0
        self.logger.record("dynamics/transitions", self._count)
        self.logger.record("dynamics/epochs", len(history) - 1)
        self.logger.record("dynamics/loss", history[-1].get("train/loss", np.nan))
        if "validation/best_loss" in history[-1]:  # least squares hold nothing out
            self.logger.record("dynamics/validation_loss", history[-1]["validation/best_loss"])

    def _fitted(self, dynamics: nn.Module, transitions: Transitions) -> list[Row]:
        """What was logged of a fit, which takes the dynamics that are learned along."""
        few = sum(each.numel() for each in self._held) <= FEW
        # those take their scales from the transitions, which is a part of fit_dynamics
        if self.options is None and few and not isinstance(dynamics, LearnedDynamics):
            return identify(dynamics, transitions)
        return fit_dynamics(dynamics, transitions, self.options, progress_bar=False)

    def _policy(self) -> PlanningPolicy:
        policy = self.model.policy
        if not isinstance(policy, PlanningPolicy):
            raise ValueError(
                f"LearnDynamics is for a policy that plans, got {type(policy).__name__}: remove it"
            )
        return policy

    def _init_callback(self) -> None:
        self._check_sizes()
        self._learn(True)  # what a training that was interrupted has left held
        dynamics = self._policy().mpc.dynamics
        self._held = [each for each in dynamics.parameters() if each.requires_grad]
        if not self._held:
            raise ValueError(
                f"the policy's {type(dynamics).__name__} must have parameters that learn, for "
                "LearnDynamics to fit, got none that requires a gradient"
            )
        self._numbers = learned_numbers(self._policy().mpc)
        self._learn(False)

    def _check_sizes(self) -> None:
        """Refuse transitions of another environment, from before."""
        actions = self.model.action_space
        sizes = (
            spaces.flatdim(self.model.observation_space),
            (1 if isinstance(actions, spaces.Discrete) else spaces.flatdim(actions)),
        )
        if self._rows and self._sizes != sizes:
            raise ValueError(
                "demonstrations must be of the algorithm's environment, whose observations and "
                f"actions have {sizes[0]} and {sizes[1]} numbers, got {self._sizes[0]} and "
                f"{self._sizes[1]}: make a new LearnDynamics for another environment"
            )
        self._sizes = sizes

    def _on_rollout_start(self) -> None:
        if self._fresh >= self.every and self._count >= 2:
            self.fit()
        record_numbers(self.logger, self._policy().mpc, self._numbers)
        self._last = self._given(self.model._last_obs)

    def _on_step(self) -> bool:
        # what PPO and A2C have drawn may lie beyond the limits of the actions
        actions = np.asarray(self.locals.get("clipped_actions", self.locals["actions"]))
        following = self._given(self.locals["new_obs"])
        after = following.copy()
        for i, (done, info) in enumerate(
            zip(self.locals["dones"], self.locals["infos"], strict=True)
        ):
            if done:  # and the environment is one episode further
                after[i] = self._last_of(info["terminal_observation"])
        self._add(self._last, actions.reshape(len(after), -1), after)
        self._fresh += len(after)
        self._last = following
        return True

    def _on_training_end(self) -> None:
        self._learn(True)
        self._held = []

    def _add(self, before: NDArray[Any], actions: NDArray[Any], after: NDArray[Any]) -> None:
        rows = np.concatenate((before, actions, after), 1, dtype=np.float64)
        self._sizes = before.shape[1], actions.shape[1]
        self._rows.append(rows)
        self._count += len(rows)
        while self._count > self.capacity:
            oldest = self._rows.pop(0)
            kept = oldest[self._count - self.capacity :]  # none, of a batch that is all too old
            self._count -= len(oldest) - len(kept)
            if len(kept):
                self._rows.insert(0, kept)

    def _given(self, observation: Any) -> NDArray[np.float64]:
        """Observations as the environments gave them, as rows."""
        envs = self.model.get_vec_normalize_env()
        given = observation if envs is None else envs.get_original_obs()
        return self._flat(given)

    def _last_of(self, observation: Any) -> NDArray[np.float64]:
        """The last observation of an episode, as the environment gave it."""
        envs = self.model.get_vec_normalize_env()
        given: Any = observation if envs is None else envs.unnormalize_obs(observation)
        single = {k: v[None] for k, v in given.items()} if isinstance(given, dict) else given[None]
        (row,) = self._flat(single)
        return np.asarray(row)

    def _flat(self, observations: Any) -> NDArray[np.float64]:
        rows = flattened(self.model.observation_space, observations)
        return np.asarray(rows, dtype=np.float64)

    def _learn(self, learned: bool) -> None:
        for parameter in self._held:
            parameter.requires_grad_(learned)

    def _share(self, policy: PlanningPolicy) -> None:
        """Let TD3's target plan through the same dynamics."""
        target = getattr(policy, "actor_target", None)
        if target is not None:
            target.planner.mpc.dynamics.load_state_dict(policy.mpc.dynamics.state_dict())
