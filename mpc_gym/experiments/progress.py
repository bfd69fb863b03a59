"""A progress bar with one line for each stage of an experiment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[], None]


class Stages:
    """The stages of an experiment, on a console where there is one.

    Args:
        console: where they are shown; None for nowhere.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=console is None,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the stages while the experiment runs."""
        with self._bar:
            yield

    @contextmanager
    def stage(self, description: str, steps: int = 1) -> Iterator[Advance]:
        """A stage of so many steps, and what to call after each; it is complete at the end."""
        # a bar that cannot advance within its only step moves to and fro instead
        task = self._bar.add_task(description, total=steps if steps > 1 else None)
        yield lambda: self._bar.advance(task)
        self._bar.update(task, total=steps, completed=steps)
