import io

from rich.console import Console

from mpc_gym.envs.registration import ENTRY_POINTS
from mpc_gym.experiments.environments import environments_table


def test_the_table_holds_every_environment_with_its_limits_in_eighty_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(environments_table())
    text = console.export_text()
    for expected in (*ENTRY_POINTS, "-8 to 8", "-100 to 100", "no limit", "wind 0.1", "200"):
        assert expected in text
    assert "…" not in text
