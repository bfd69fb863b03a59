from io import StringIO

from rich.console import Console

from mpc_gym.experiments.progress import counted


def shown(terminal: bool) -> str:
    """What is on a console at the end: two of five are done, one of them before the start."""
    now = 100.0
    text = StringIO()
    console = Console(
        file=text, width=120, force_terminal=terminal, color_system=None, get_time=lambda: now
    )
    with counted("runs", total=5, done=1, console=console) as advance:
        now += 10
        advance()
        now += 4
    return text.getvalue()


def test_the_time_left_is_that_of_the_runs_so_far_counted_down() -> None:
    text = shown(terminal=True)
    assert "2/5" in text
    assert "0:00:26 left" in text


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    assert shown(terminal=False) == ""
