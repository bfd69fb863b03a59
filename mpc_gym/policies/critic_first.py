"""Letting the critic learn before the plan does."""

from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from mpc_gym.checks import check_count
from mpc_gym.policies.planning_policy import PlanningPolicy


class CriticFirst(BaseCallback):
    """Hold what a plan learns until the critic has seen enough to judge it by.

        model.learn(20_000, callback=CriticFirst(6_000))

    A planning policy may have three parameters where a network has thousands, each of which bears
    on every action, and its start is often good. The gradient of a critic that knows nothing yet
    spoils such a policy in a few hundred steps. So first the policy is evaluated, then improved.

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
        modules = [policy.mpc, policy.planner.cost_map]
        parameters = [each for module in modules if module for each in module.parameters()]
        self._held = [each for each in parameters if each.requires_grad]

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
