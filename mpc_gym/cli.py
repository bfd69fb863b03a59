"""The command `mpc-gym`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperCommand

app = typer.Typer(no_args_is_help=True, add_completion=False)


ENV = typer.Option(help="Environment; `mpc-gym envs` lists them.")
LEARN = typer.Option(
    help="What of the model is learned: parameters, such as mass, or mass=2 to say where it starts "
    "from, or linear and terminal for additions to the cost. By default as in the paper."
)
MAX_STEPS = typer.Option(help="Longest episode; by default the environment's limit.")


class ManyValues(TyperCommand):
    """A command whose options take several values: `--demonstrations 1 5 10`."""

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


@contextmanager
def in_words(console: Console) -> Iterator[None]:
    """Say what a user got wrong, or what failed, without a traceback."""
    from mpc_gym.experiments.runs import FailedRunsError

    try:
        yield
    except (ValueError, ModuleNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    except (OSError, FailedRunsError) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from error


def wrote(console: Console, path: Path) -> None:
    """Say where something was written."""
    console.print(f"wrote {path}", highlight=False, soft_wrap=True, markup=False)


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


@app.command()
def demo(
    env: Annotated[
        str, typer.Option(help="Environment: DiffPendulum-v0 or DiffCartPole-v0.")
    ] = "DiffPendulum-v0",
    demonstrations: Annotated[
        int, typer.Option(help="Episodes of the expert to learn from, at least 2.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of start states, weights and order.")] = 0,
    output: Annotated[
        Path, typer.Option(help="Folder for the videos, the plot and metrics.json.")
    ] = Path("videos"),
    fast: Annotated[
        bool, typer.Option("--fast", help="A short run that shows that all works; no result.")
    ] = False,
) -> None:
    """Clone an expert with a policy that plans and with an MLP, and compare them.

    The expert plans with the true physics. The planning policy starts from wrong physics and
    learns the true one. All are scored on the same unseen start states.
    """
    # Here, so that `mpc-gym --help` does not wait for Stable-Baselines3 and Matplotlib.
    import torch

    from mpc_gym.experiments import FILES, DemoOptions, run_demo, table

    torch.set_num_threads(1)  # more of them only get in each other's way: the networks are small
    console = Console()
    with in_words(console):
        result = run_demo(DemoOptions(env, demonstrations, seed, output, fast), console)
    console.print(table(result))
    for name in FILES:
        wrote(console, output / name)


@app.command()
def envs() -> None:
    """List the environments with their spaces, parameters and limits."""
    from mpc_gym.experiments.environments import environments_table

    Console().print(environments_table())


@app.command()
def record(
    env: Annotated[str, typer.Option(help="Environment; `mpc-gym envs` lists them.")],
    policy: Annotated[
        str,
        typer.Option(
            help="expert (plans with the true physics), random, a trained policy that comes with "
            "the package (DiffPendulum-v0/mpc, DiffPendulum-v0/mlp and so on), the folder of a "
            "policy that save_pretrained wrote, or the path of a .zip that Stable-Baselines3 "
            "saved. A .zip is a pickle, which can run code when it is loaded: only give one that "
            "you trust."
        ),
    ] = "expert",
    episodes: Annotated[int, typer.Option(help="How many; one video each.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first episode; the others count on.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the videos.")] = Path("videos"),
    max_steps: Annotated[
        int | None, typer.Option(help="Longest episode; by default the environment's limit.")
    ] = None,
) -> None:
    """Write videos of a policy at work, with its plan where it makes one."""
    from mpc_gym.experiments.progress import Stages
    from mpc_gym.experiments.record import RecordOptions
    from mpc_gym.experiments.record import record as write

    console = Console()
    stages = Stages(console)
    with in_words(console):
        options = RecordOptions(env, policy, episodes, seed, output, max_steps)
        with stages.shown(), stages.stage(f"{policy} in {env}", episodes) as advance:
            returns = write(options, advance)
    for path, value in returns.items():
        message = f"wrote {path}: return {value:.1f}"
        console.print(message, highlight=False, soft_wrap=True, markup=False)


@app.command(cls=ManyValues)
def compare(
    env: Annotated[str, ENV],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Of mpc.dx, mpc.dx.actions, mpc.cost, mpc.cost.dx, sysid, mlp and nn, or "
            "package.module:function of your own. By default all but mpc.dx.actions."
        ),
    ] = None,
    demonstrations: Annotated[
        list[int] | None, typer.Option(help="Numbers of episodes to learn from: 1 5 10.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many.")] = 4,
    learn: Annotated[list[str] | None, LEARN] = None,
    episodes: Annotated[int, typer.Option(help="Unseen start states to score from.")] = 25,
    effort: Annotated[float, typer.Option(help="Multiplies the steps of every optimiser.")] = 1.0,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    film: Annotated[
        int | None,
        typer.Option(help="Demonstrations of the policies in the video, or 0 for none: the most."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    engine: Annotated[str, typer.Option(help="Where: local, dask or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a cluster.")] = None,
    folder: Annotated[Path, typer.Option(help="For runs and report.")] = Path("comparison"),
) -> None:
    """Compare methods of learning from demonstrations, from how many they learn what.

    It goes on where it was stopped; with more seeds, methods or numbers it adds to what is there.

    Example: mpc-gym compare --env DiffPendulum-v0 --methods mpc.dx mlp --demonstrations 1 5 10
    --seeds 4 --jobs 2
    """
    console = Console()
    with in_words(console):
        from mpc_gym.experiments.compare import DEFAULT_METHODS, CompareOptions
        from mpc_gym.experiments.compare import compare as run
        from mpc_gym.experiments.compare_report import REPORT
        from mpc_gym.experiments.summary import terminal_table

        options = CompareOptions(
            env,
            tuple(methods or DEFAULT_METHODS),
            tuple(demonstrations or (1, 5, 10)),
            seeds,
            folder,
            tuple(learn or ()),
            seed,
            effort=effort,
            episodes=episodes,
            max_steps=max_steps,
            film=film,
            jobs=jobs,
            engine=engine,
            address=address,
        )
        results = run(options, console)
    console.print(terminal_table(env, list(results.values())))
    wrote(console, folder / REPORT)


@app.command(cls=ManyValues)
def train(
    env: Annotated[str, ENV],
    method: Annotated[str, typer.Option(help="See `mpc-gym compare`.")] = "mpc.dx",
    file: Annotated[
        Path | None, typer.Option(help="Demonstrations that `mpc-gym collect` wrote.")
    ] = None,
    demonstrations: Annotated[
        int, typer.Option(help="Without a file: episodes to ask the expert for.")
    ] = 10,
    learn: Annotated[list[str] | None, LEARN] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and the expert's starts.")] = 0,
    effort: Annotated[float, typer.Option(help="Multiplies the optimiser's steps.")] = 1.0,
    folder: Annotated[Path, typer.Option(help="For log and policy.")] = Path("trained"),
) -> None:
    """Train a policy by demonstrations; it is saved in the subfolder `policy`.

    Example: mpc-gym train --env DiffPendulum-v0 --method mpc.dx --file expert.npz --learn mass
    length
    """
    console = Console()
    with in_words(console):
        from mpc_gym.experiments.learner import POLICY, learned_parameters
        from mpc_gym.experiments.train import TrainOptions
        from mpc_gym.experiments.train import train as run

        source = demonstrations if file is None else file
        options = TrainOptions(env, method, folder, source, tuple(learn or ()), seed, effort=effort)
        policy = run(options, progress=True)
    for name, value in learned_parameters(policy, options.run().settings["learn"]).items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    wrote(console, folder / POLICY)


@app.command()
def collect(
    env: Annotated[str, ENV],
    output: Annotated[Path, typer.Option(help="A new .npz file.")],
    policy: Annotated[
        str, typer.Option(help="expert, or another that `mpc-gym record` plays (see there).")
    ] = "expert",
    episodes: Annotated[int, typer.Option(help="How many.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the first episode; the others count on.")] = 0,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
) -> None:
    """Write demonstrations of an expert or a policy to a file.

    Example: mpc-gym collect --env DiffPendulum-v0 --episodes 20 --output expert.npz
    """
    console = Console()
    with in_words(console):
        from mpc_gym.experiments.demonstrate import EpisodeOptions, collect_to

        options = EpisodeOptions(env, (policy,), episodes, seed, max_steps=max_steps)
        found = collect_to(options, output)
    console.print(
        f"{found.episodes} episodes, {len(found)} steps, return {found.returns.mean():.1f}"
    )
    wrote(console, output)


@app.command(cls=ManyValues)
def evaluate(
    env: Annotated[str, ENV],
    policy: Annotated[
        list[str],
        typer.Option(help="Any that `mpc-gym record` plays (see there): several, one a row."),
    ],
    episodes: Annotated[int, typer.Option(help="Of each policy, from the same starts.")] = 25,
    seed: Annotated[int, typer.Option(help="Of the first episode; the others count on.")] = 0,
    max_steps: Annotated[int | None, MAX_STEPS] = None,
) -> None:
    """Score policies: return with its standard error, and time per decision.

    Example: mpc-gym evaluate --env DiffPendulum-v0 --policy expert trained/policy ppo.zip
    """
    console = Console()
    with in_words(console):
        from mpc_gym.experiments.demonstrate import EpisodeOptions, score, score_table

        options = EpisodeOptions(env, policy, episodes, seed, max_steps=max_steps)
        scores = score(options)
    console.print(score_table(options, scores))
