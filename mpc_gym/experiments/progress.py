"""Progress bars: one line for each stage of an experiment, or one for many independent runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

Advance = Callable[[], None]


class Stages(Progress):
    """The stages of an experiment, on a console where there is one, while the context is open.

    Args:
        console: where they are shown; None for nowhere.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=console is None,
        )

    @contextmanager
    def stage(self, description: str, steps: int = 1) -> Iterator[Advance]:
        """A stage of so many steps, and what to call after each; it is complete at the end."""
        # a bar that cannot advance within its only step moves to and fro instead
        task = self.add_task(description, total=steps if steps > 1 else None)
        yield lambda: self.advance(task)
        self.update(task, total=steps, completed=steps)


@contextmanager
def counted(description: str, total: int, done: int, console: Console | None) -> Iterator[Advance]:
    """Show how many of many things are done and the time left, and what to call after each.

    Args:
        description: of the things.
        total: how many there are.
        done: how many took no time, since they were done before.
        console: where it is shown; nowhere where that is None or no terminal.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(done),
        console=console,
        disable=console is None or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=total, completed=done, at_last=0.0)

        def advance() -> None:
            bar.update(task, advance=1, at_last=bar.tasks[0].elapsed)

        yield advance


class _TimeLeft(ProgressColumn):
    """From the mean time for each so far; rich's own looks at the last seconds alone."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self._done = done

    def render(self, task: Task) -> Text:
        """The time left, counted down since the last one ended."""
        ended = task.completed - self._done
        if not ended or task.elapsed is None or task.remaining is None:
            return Text("-:--:-- left")
        at_last = task.fields["at_last"]
        left = at_last / ended * task.remaining - (task.elapsed - at_last)
        return Text(f"{timedelta(seconds=round(max(left, 0)))} left")
