"""What every test runs under: shapes checked at run time, one thread, repeatable problems."""

import gc
import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.scripts import Scripts, served
from tests.shapes import checked

# The inner modules, whose callers are our own. Public entry points are left out: they check what
# a user hands them by themselves, and tests must see their messages rather than the checker's.
SHAPE_CHECKED = (
    "mpc_gym.models.base",
    "mpc_gym.models.cartpole",
    "mpc_gym.models.contextual",
    "mpc_gym.models.linear",
    "mpc_gym.models.neural",
    "mpc_gym.models.pendulum",
    "mpc_gym.models.positive",
    "mpc_gym.models.quadratic",
    "mpc_gym.models.wrapped",
    "mpc_gym.mpc.reference.boxqp",
    "mpc_gym.mpc.reference.ddp",
    "mpc_gym.mpc.reference.progress",
    "mpc_gym.mpc.problem",
    "mpc_gym.mpc.reference.sensitivity",
    "mpc_gym.mpc.plan",
    "mpc_gym.rendering",
)
install_import_hook(SHAPE_CHECKED, f"{checked.__module__}.{checked.__name__}")

torch.set_num_threads(1)

# A test never depends on time; in continuous integration it does not depend on luck either.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _seed_everything() -> None:
    """For networks whose first weights are drawn from the generators that a process has one of."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (the generator that old libraries draw from)
    torch.manual_seed(0)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported and collected stays, and need not be searched for garbage each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    _seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    _seed_everything()


@pytest.fixture
def shape_checked() -> tuple[str, ...]:
    """Names of the modules whose array shapes are checked while the tests run."""
    return SHAPE_CHECKED


@pytest.fixture(scope="session")
def scripts() -> Iterator[Scripts]:
    """What runs scripts, each in a process of its own."""
    with served() as running:
        yield running
