"""Runs the experiments: `python -m reproduction --help`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mpc_gym.cli import ManyValues, in_words, wrote
from reproduction.report import REPORT, findings_table
from reproduction.reproduce import ReproduceOptions
from reproduction.reproduce import reproduce as run

app = typer.Typer(add_completion=False)


@app.command(cls=ManyValues)
def reproduce(
    everything: Annotated[
        bool, typer.Option("--all", help="Every experiment, which is what happens without --only.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="lqr, nonconvex, nonrealizable, closed-loop or runtime; several."),
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
        str | None, typer.Option(help="Of a cluster, such as tcp://127.0.0.1:8786 for dask.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="For runs and report; what is finished there is not repeated. By default "
            "reproduced, and reproduced-quick with --quick."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
) -> None:
    """Run the experiments of Amos et al. (2018) and write a report of what they show.

    It goes on where it was stopped. With all finished it writes the report anew.
    """
    if everything and only:
        raise typer.BadParameter("--all and --only exclude each other")
    place = folder or Path("reproduced-quick" if quick else "reproduced")
    console = Console()
    processes = (os.cpu_count() or 1) if jobs is None else jobs
    with in_words(console):
        options = ReproduceOptions(place, only or (), quick, seed, processes, engine, address)
        sections = run(options)
    console.print(findings_table(sections))
    wrote(console, place / REPORT)


if __name__ == "__main__":
    app()
