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
