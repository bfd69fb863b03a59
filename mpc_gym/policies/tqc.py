"""The planning policy for TQC of sb3-contrib, which is an optional dependency."""

from sb3_contrib import TQC
from sb3_contrib.tqc.policies import TQCPolicy

from mpc_gym.policies.off_policy import OffPolicyMPCPolicy, SACMPCActor


class TQCMPCPolicy(OffPolicyMPCPolicy, TQCPolicy):
    """`SACMPCPolicy` with the quantile critics of TQC.

    model = TQC(TQCMPCPolicy, "DiffPendulum-v0")
    """

    actor: SACMPCActor  # type: ignore[assignment]  # both have SAC's interface
    actor_class = SACMPCActor


TQC.policy_aliases[TQCMPCPolicy.__name__] = TQCMPCPolicy  # so that it takes the name
