"""Learning from demonstrations: collecting them, behavioural cloning, system identification.

`Training` minimises any `Loss` over rows of examples, with a log and checkpoints.
"""

from mpc_gym.imitation.checkpoint import read_checkpoint, write_checkpoint
from mpc_gym.imitation.cloning import BehavioralCloning, imitation_loss
from mpc_gym.imitation.collect import Evaluation, collect, evaluate, evaluate_from
from mpc_gym.imitation.dagger import DAgger
from mpc_gym.imitation.demonstrations import Demonstrations, concatenate
from mpc_gym.imitation.episodes import RandomAgent, Stateless
from mpc_gym.imitation.fit_dynamics import FitOptions, fit_dynamics
from mpc_gym.imitation.identify import identify
from mpc_gym.imitation.learn_dynamics import LearnDynamics
from mpc_gym.imitation.losses import Loss, Sum, Value, WarmStartedLoss
from mpc_gym.imitation.metrics import Metrics
from mpc_gym.imitation.minari import read_minari, write_minari
from mpc_gym.imitation.rates import FallingRate
from mpc_gym.imitation.smoothing import FallingSmoothing
from mpc_gym.imitation.system_identification import SystemIdentification
from mpc_gym.imitation.training import Training, TrainingOptions
from mpc_gym.imitation.transitions import Transitions, transitions_of

__all__ = [
    "BehavioralCloning",
    "DAgger",
    "Demonstrations",
    "Evaluation",
    "FallingRate",
    "FallingSmoothing",
    "FitOptions",
    "LearnDynamics",
    "Loss",
    "Metrics",
    "RandomAgent",
    "Stateless",
    "Sum",
    "SystemIdentification",
    "Training",
    "TrainingOptions",
    "Transitions",
    "Value",
    "WarmStartedLoss",
    "collect",
    "concatenate",
    "evaluate",
    "evaluate_from",
    "fit_dynamics",
    "identify",
    "imitation_loss",
    "read_checkpoint",
    "read_minari",
    "transitions_of",
    "write_checkpoint",
    "write_minari",
]
