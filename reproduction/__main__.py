"""Runs the experiments: `python -m reproduction --help`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mpc_gym.cli import Address, Command, Engine, Quick, Seed, wrote
from reproduction.report import REPORT, findings_table
from reproduction.reproduce import EXPERIMENTS, ReproduceOptions
from reproduction.reproduce import reproduce as run

app = typer.Typer(add_completion=False)


@app.command(cls=Command)
def reproduce(
    everything: Annotated[
        bool, typer.Option("--all", help="Every experiment, as without --only.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"The experiments to run, one or several of {', '.join(EXPERIMENTS)}."),
    ] = None,
    quick: Quick = False,
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes on this machine; by default as many as there are cores."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the command writes to; what is finished there is not repeated. By "
            "default reproduced, and reproduced-quick with --quick."
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Run the experiments of Amos et al. (2018) and write a report of what they show.

    It goes on where it was stopped. With all finished it writes the report anew.
    """
    if everything and only:
        raise typer.BadParameter("--all and --only exclude each other")
    place = folder or Path("reproduced-quick" if quick else "reproduced")
    processes = (os.cpu_count() or 1) if jobs is None else jobs
    sections = run(ReproduceOptions(place, only or (), quick, seed, processes, engine, address))
    Console().print(findings_table(sections))
    wrote(place / REPORT)


if __name__ == "__main__":
    app()
