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
