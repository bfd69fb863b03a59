"""What the demo is asked to do, and what comes out."""

from dataclasses import dataclass
from pathlib import Path

from mpc_gym.checks import check_flag, check_path, check_seed, check_size
from mpc_gym.experiments.problems import Physics, Problem, find_problem
from mpc_gym.files import make_writable_folder
from mpc_gym.imitation import Evaluation


@dataclass(frozen=True)
class Effort:
    """How long to learn and to measure.

    Args:
        mpc_epochs: of the policy that plans.
        mlp_epochs: of the policy that does not.
        unseen: episodes of the expert to measure the imitation loss on.
        evaluations: start states to measure the return on.
        max_steps: an episode ends after so many steps at the latest.
    """

    mpc_epochs: int
    mlp_epochs: int
    unseen: int
    evaluations: int
    max_steps: int | None


FULL = Effort(mpc_epochs=25, mlp_epochs=300, unseen=10, evaluations=50, max_steps=None)
FAST = Effort(mpc_epochs=20, mlp_epochs=5, unseen=1, evaluations=4, max_steps=40)


@dataclass(frozen=True)
class DemoOptions:
    """What to run.

    Args:
        env: the environment's id.
        demonstrations: episodes of the expert to learn from, at least 2: one is held out.
        seed: of start states, initial weights and the order of learning.
        output: folder for the videos, the plot and the numbers.
        fast: a run of seconds that shows that everything works; its numbers mean nothing.

    Raises:
        ValueError: an option is out of its range, or the folder cannot be written to.
    """

    env: str = "DiffPendulum-v0"
    demonstrations: int = 10
    seed: int = 0
    output: Path = Path("videos")
    fast: bool = False

    def __post_init__(self) -> None:
        find_problem(self.env)
        # one is held out to choose the best weights by
        check_size("demonstrations", self.demonstrations, 2)
        check_seed("seed", self.seed)
        check_flag("fast", self.fast)
        make_writable_folder(check_path("output", self.output), "output")

    @property
    def problem(self) -> Problem:
        """What is to be learned."""
        return find_problem(self.env)

    @property
    def effort(self) -> Effort:
        """How long to learn and to measure."""
        return FAST if self.fast else FULL


@dataclass(frozen=True)
class Score:
    """How an agent did.

    Attributes:
        evaluation: on unseen start states.
        imitation_loss: on unseen demonstrations; None for the expert, who gave them.
    """

    evaluation: Evaluation
    imitation_loss: float | None = None


@dataclass(frozen=True)
class Demo:
    """What came out.

    Attributes:
        options: what was run.
        scores: of the agents "expert", "mpc_before" (with wrong physics), "mpc" and "mlp".
        physics: the parameters to be learned, of "true", "mpc_before" and "mpc".
        histories: what `BehavioralCloning` logged for "mpc" and "mlp", a row an epoch.
    """

    options: DemoOptions
    scores: dict[str, Score]
    physics: dict[str, Physics]
    histories: dict[str, list[dict[str, float]]]
