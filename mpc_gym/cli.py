"""The command `mpc-gym`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand


class Command(TyperCommand):
    """A command whose options may take several values, and that reports its errors.

    `--demonstrations 1 5` is what `--demonstrations 1 --demonstrations 5` is.
    An error is printed without a traceback; the exit code is 2 for a wrong option, 1 for a failure.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Repeat the option before each of its values, where it may have several."""
        several = {
            name for each in self.params if getattr(each, "multiple", 0) for name in each.opts
        }
        repeated: list[str] = []
        option = ""
        for argument in args:
            if argument.startswith("--"):
                option = argument
            elif option in several and repeated[-1] != option:
                repeated.append(option)
            repeated.append(argument)
        return super().parse_args(ctx, repeated)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ValueError, ModuleNotFoundError) as error:
            raise typer.BadParameter(str(error), ctx) from error
        except Exception as error:
            from mpc_gym.experiments.runs import FailedRunsError

            if not isinstance(error, (OSError, FailedRunsError)):
                raise
            Console().print(str(error), style="red", highlight=False, markup=False)
            raise typer.Exit(1) from error


app = typer.Typer(no_args_is_help=True, add_completion=False)
command = partial(app.command, cls=Command)

# Options that several commands share: each means the same everywhere.
Env = Annotated[
    str,
    typer.Option(
        help="Environment; `mpc-gym envs` lists them. One of another package: package:Env-v0."
    ),
]
Folder = Annotated[Path, typer.Option(help="Folder that the command writes to.")]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="A short run that shows that everything works; no result."),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Random seed; of several episodes or runs that of the first, and the others count on."
    ),
]
Jobs = Annotated[int, typer.Option(help="Processes on this machine.")]
Engine = Annotated[
    str,
    typer.Option(
        help="Where runs are executed: local (on this machine), or dask or ray (a cluster)."
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Address of the cluster, such as tcp://127.0.0.1:8786 for dask.")
]
Learn = Annotated[
    list[str] | None,
    typer.Option(
        help="Names of the parameters that are learned, such as mass, or mass=2 to begin at 2; or "
        "linear and terminal, which are added to the cost. By default as in the paper."
    ),
]
Effort = Annotated[
    float, typer.Option(help="Factor on the number of optimiser steps of each method.")
]
MaxSteps = Annotated[
    int | None, typer.Option(help="Longest episode; by default the environment's limit.")
]
Episodes = Annotated[int, typer.Option(help="Number of episodes to play, of each policy.")]
POLICY = (
    "expert (plans with the true physics), random, a trained policy that comes with the package "
    "(DiffPendulum-v0/mpc, DiffPendulum-v0/mlp and so on), the folder of a policy that "
    "save_pretrained wrote, or the path of a .zip that Stable-Baselines3 saved. A .zip is a "
    "pickle, which can run code when it is loaded: only give one that you trust."
)
Policy = Annotated[str, typer.Option(help=POLICY)]


def wrote(path: Path, more: str = "") -> None:
    """Print where something was written."""
    Console().print(f"wrote {path}{more}", highlight=False, soft_wrap=True, markup=False)


def _print_version(asked: bool) -> None:
    if asked:
        from mpc_gym import __version__

        Console().print(f"mpc-gym {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it, and exit."
        ),
    ] = False,
) -> None:
    """Differentiable model predictive control for Gymnasium and Stable-Baselines3."""


# The imports are in the commands, so that `mpc-gym --help` does not wait for Stable-Baselines3 and
# Matplotlib.


@command()
def demo(
    env: Env = "DiffPendulum-v0",
    demonstrations: Annotated[
        int, typer.Option(help="Episodes of the expert to learn from, at least 2.")
    ] = 10,
    seed: Seed = 0,
    folder: Folder = Path("videos"),
    quick: Quick = False,
) -> None:
    """Clone an expert with a policy that plans and with an MLP, and compare them.

    The expert plans with the true physics. The planning policy starts from wrong physics and
    learns the true one. All are scored on the same unseen start states.
    """
    import torch

    from mpc_gym.experiments import DemoOptions, run_demo, table

    torch.set_num_threads(1)  # more of them only get in each other's way: the networks are small
    console = Console()
    result = run_demo(DemoOptions(env, demonstrations, seed, folder, quick), console)
    console.print(table(result))
    for name in result.options.files:
        wrote(folder / name)


@command()
def envs() -> None:
    """List the environments with a differentiable model: spaces, parameters and limits."""
    from mpc_gym.experiments.environments import environments_table

    Console().print(environments_table())


@command()
def record(
    env: Env,
    policy: Policy = "expert",
    episodes: Episodes = 1,
    seed: Seed = 0,
    folder: Folder = Path("videos"),
    max_steps: MaxSteps = None,
) -> None:
    """Write videos of a policy at work, one for each episode, with its plan where it makes one."""
    from mpc_gym.experiments.agents import EpisodeOptions
    from mpc_gym.experiments.film import record as write
    from mpc_gym.experiments.progress import Stages

    options = EpisodeOptions(env, (policy,), episodes, seed, max_steps=max_steps)
    with Stages(Console()) as stages, stages.stage(f"{policy} in {env}", episodes) as advance:
        returns = write(options, folder, advance)
    for path, value in returns.items():
        wrote(path, f": return {value:.1f}")


@command()
def compare(
    env: Env,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Some of mpc.dx, mpc.dx.actions, mpc.cost, mpc.cost.dx, sysid, mlp and nn, or "
            "package.module:function of your own. By default all but mpc.dx.actions."
        ),
    ] = None,
    demonstrations: Annotated[
        list[int] | None, typer.Option(help="Numbers of episodes to learn from, such as 1 5 10.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 4,
    learn: Learn = None,
    episodes: Episodes = 25,
    effort: Effort = 1.0,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    film: Annotated[
        int | None,
        typer.Option(
            help="Number of demonstrations of the policies in the video; by default the largest, 0 "
            "for no video."
        ),
    ] = None,
    jobs: Jobs = 1,
    engine: Engine = "local",
    address: Address = None,
    folder: Folder = Path("comparison"),
) -> None:
    """Compare how well methods learn from different numbers of demonstrations.

    A comparison that was stopped is resumed; more seeds, methods or numbers are added to it.

    Example: mpc-gym compare --env DiffPendulum-v0 --methods mpc.dx mlp --demonstrations 1 5 10
    --seeds 4 --jobs 2
    """
    from mpc_gym.experiments.compare import DEFAULT_METHODS, REPORT, CompareOptions
    from mpc_gym.experiments.compare import compare as run
    from mpc_gym.experiments.summary import terminal_table

    options = CompareOptions(
        env,
        tuple(methods or DEFAULT_METHODS),
        tuple(demonstrations or (1, 5, 10)),
        seeds,
        folder,
        learn=tuple(learn or ()),
        seed=seed,
        effort=effort,
        episodes=episodes,
        max_steps=max_steps,
        film=film,
        jobs=jobs,
        engine=engine,
        address=address,
    )
    console = Console()
    results = run(options, console)
    console.print(terminal_table(env, list(results.values())))
    wrote(folder / REPORT)


@command()
def train(
    env: Env,
    method: Annotated[str, typer.Option(help="See `mpc-gym compare`.")] = "mpc.dx",
    file: Annotated[
        Path | None, typer.Option(help="File of demonstrations that `mpc-gym collect` wrote.")
    ] = None,
    demonstrations: Annotated[
        int, typer.Option(help="Without a file: episodes to ask the expert for.")
    ] = 10,
    learn: Learn = None,
    seed: Seed = 0,
    effort: Effort = 1.0,
    folder: Folder = Path("trained"),
) -> None:
    """Train a policy by demonstrations; it is saved in the subfolder `policy`.

    Example: mpc-gym train --env DiffPendulum-v0 --method mpc.dx --file expert.npz --learn mass
    length
    """
    from mpc_gym.experiments.learner import POLICY, TrainOptions, learned_parameters
    from mpc_gym.experiments.learner import train as run

    source = demonstrations if file is None else file
    chosen = tuple(learn or ())
    options = TrainOptions(env, method, folder, source, learn=chosen, seed=seed, effort=effort)
    policy = run(options, progress=True)
    for name, value in learned_parameters(policy, options.run().settings["learn"]).items():
        Console().print(f"{name}: {value}", highlight=False, markup=False)
    wrote(folder / POLICY)


@command()
def collect(
    env: Env,
    file: Annotated[Path, typer.Option(help="File of demonstrations to write: a new .npz.")],
    policy: Policy = "expert",
    episodes: Episodes = 10,
    seed: Seed = 0,
    max_steps: MaxSteps = None,
) -> None:
    """Write demonstrations of an expert or a policy to a file.

    Example: mpc-gym collect --env DiffPendulum-v0 --episodes 20 --file expert.npz
    """
    from mpc_gym.experiments.agents import EpisodeOptions, collect_to

    options = EpisodeOptions(env, (policy,), episodes, seed, max_steps=max_steps)
    new = collect_to(options, file)
    Console().print(f"{new.episodes} episodes, {len(new)} steps, return {new.returns.mean():.1f}")
    wrote(file)


@command()
def evaluate(
    env: Env,
    policy: Annotated[list[str], typer.Option(help=f"Several, one a row. {POLICY}")],
    episodes: Episodes = 25,
    seed: Seed = 0,
    max_steps: MaxSteps = None,
) -> None:
    """Score policies: return with its standard error, and time per decision.

    Example: mpc-gym evaluate --env DiffPendulum-v0 --policy expert trained/policy ppo.zip
    """
    from mpc_gym.experiments.agents import EpisodeOptions, score_agents, score_table

    options = EpisodeOptions(env, policy, episodes, seed, max_steps=max_steps)
    Console().print(score_table(options, score_agents(options)))
