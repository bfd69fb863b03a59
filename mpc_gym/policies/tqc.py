"""The planning policy for TQC of sb3-contrib, which is an optional dependency."""

from sb3_contrib import TQC
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from mpc_gym.mpc import Plan
from mpc_gym.policies.off_policy import OffPolicyMPCPolicy, SACMPCActor, squashed_sample


class TQCMPCPolicy(OffPolicyMPCPolicy, TQCPolicy):
    """`SACMPCPolicy` with the quantile critics of TQC.

    model = TQC(TQCMPCPolicy, "DiffPendulum-v0")
    """

    actor: SACMPCActor  # type: ignore[assignment]  # both have SAC's interface

    def make_actor(  # type: ignore[override]
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> SACMPCActor:
        """A new actor."""
        return SACMPCActor(**self._actor_arguments(features_extractor)).to(self.device)

    def _act(self, obs: Tensor, plan: Plan) -> Tensor:
        return squashed_sample(self.actor, obs, plan)


TQC.policy_aliases[TQCMPCPolicy.__name__] = TQCMPCPolicy  # so that it takes the name
