"""The command `mpc-gym`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
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
    try:
        options = DemoOptions(env, demonstrations, seed, output, fast)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    result = run_demo(options, console)
    console.print(table(result))
    for name in FILES:
        console.print(f"wrote {output / name}", highlight=False, soft_wrap=True, markup=False)


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
            help="expert (plans with the true physics), random, or the path of a .zip that "
            "Stable-Baselines3 saved. Such a file runs code when it is loaded: only give one that "
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
    try:
        options = RecordOptions(env, policy, episodes, seed, output, max_steps)
        with stages.shown(), stages.stage(f"{policy} in {env}", episodes) as advance:
            returns = write(options, advance)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    for path, value in returns.items():
        message = f"wrote {path}: return {value:.1f}"
        console.print(message, highlight=False, soft_wrap=True, markup=False)


@app.command()
def reproduce(
    everything: Annotated[
        bool, typer.Option("--all", help="Every experiment, which is what happens without --only.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="lqr, nonconvex, nonrealizable or runtime; may be given repeatedly."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few seeds and steps, to show that all works; no result."),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; by default as many as there are cores.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Where: local, dask or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a cluster, such as tcp://localhost:8786 for dask.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="For runs and report; what is finished there is not repeated. By default "
            "reproduction, and reproduction-quick with --quick."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
) -> None:
    """Run the experiments of Amos et al. (2018) and write a report of what they show.

    It goes on where it was stopped. With all finished it writes the report anew.
    """
    import os

    from mpc_gym.experiments.paper.report import REPORT, findings_table
    from mpc_gym.experiments.paper.reproduce import ReproduceOptions
    from mpc_gym.experiments.paper.reproduce import reproduce as run
    from mpc_gym.experiments.runs import FailedRunsError

    if everything and only:
        raise typer.BadParameter("--all and --only exclude each other")
    place = folder or Path("reproduction-quick" if quick else "reproduction")
    console = Console()
    try:
        options = ReproduceOptions(
            place, only or (), quick, seed, jobs or os.cpu_count() or 1, engine, address
        )
        sections = run(options)
    except (ValueError, ModuleNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    except FailedRunsError as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from error
    console.print(findings_table(sections))
    console.print(f"wrote {place / REPORT}", highlight=False, soft_wrap=True, markup=False)
