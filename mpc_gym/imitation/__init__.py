"""Learning from demonstrations: collecting them, behavioural cloning, system identification."""

from mpc_gym.imitation.cloning import BehavioralCloning, imitation_loss
from mpc_gym.imitation.collect import Evaluation, collect, evaluate, evaluate_from
from mpc_gym.imitation.dagger import DAgger
from mpc_gym.imitation.demonstrations import Demonstrations, concatenate
from mpc_gym.imitation.episodes import Stateless
from mpc_gym.imitation.system_identification import SystemIdentification

__all__ = [
    "BehavioralCloning",
    "DAgger",
    "Demonstrations",
    "Evaluation",
    "Stateless",
    "SystemIdentification",
    "collect",
    "concatenate",
    "evaluate",
    "evaluate_from",
    "imitation_loss",
]
