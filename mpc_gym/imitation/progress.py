"""Progress on one line of text, which a terminal and a notebook show alike."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from mpc_gym.checks import check_flag

SECONDS = 2.0  # what is over sooner needs no bar

Update = Callable[..., None]


@contextmanager
def progress(
    description: str, total: int | None, shown: bool | None, unit: str
) -> Iterator[Update]:
    """Show how much is done, and give what to call with that number and a remark.

    Args:
        description: of what is done.
        total: how much there is to do; None: not known.
        shown: whether to show it; None: where somebody can watch, after two seconds.
        unit: of what there is to do.

    Raises:
        ValueError: `shown`, the caller's `progress_bar`, is none of the three.
    """
    watched = is_watched() if shown is None else check_flag("progress_bar", shown)
    delay = SECONDS if shown is None else 0.0
    # leave=None: a bar inside another goes when it is complete
    with tqdm(
        desc=description, total=total, unit=unit, delay=delay, leave=None, disable=not watched
    ) as bar:

        def update(done: int, remark: str = "") -> None:
            bar.set_postfix_str(remark, refresh=False)
            bar.update(done - bar.n)

        yield update


def is_watched() -> bool:
    """Whether what is written to standard error appears in a terminal or a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
