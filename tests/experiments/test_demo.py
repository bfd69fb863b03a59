from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from mpc_gym import make_mpc
from mpc_gym.experiments import FILES, Demo, DemoOptions, run_demo
from mpc_gym.experiments.demo import make_policies
from mpc_gym.experiments.environments import PENDULUM
from mpc_gym.experiments.methods import MethodOptions
from mpc_gym.experiments.obstacle import FULL, fly
from mpc_gym.experiments.progress import Stages
from mpc_gym.imitation import Stateless, evaluate
from mpc_gym.models import current_values


def test_the_demo_leaves_its_files_and_nothing_else(demo: Demo) -> None:
    assert sorted(path.name for path in demo.options.folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", ["demo.mp4", "demo.gif"])
def test_the_videos_show_three_agents_twice_for_the_length_of_an_episode(
    demo: Demo, name: str
) -> None:
    frames = list(iio.imiter(demo.options.folder / name))
    every = 2 if name.endswith("gif") else 1
    assert len(frames) == demo.options.size.max_steps // every
    height, width = frames[0].shape[:2]
    assert 3 * 0.8 < width / (height / 2) < 3  # two rows, each with captions above
    assert not np.array_equal(frames[0], frames[-1])


def test_the_learning_curve_is_a_picture(demo: Demo) -> None:
    with Image.open(demo.options.folder / "learning_curve.png") as picture:
        picture.verify()
        assert picture.width > picture.height


def test_the_expert_is_scored_as_a_planner_with_the_true_physics(demo: Demo) -> None:
    expert = Stateless(make_mpc("DiffPendulum-v0", **MethodOptions().planning))
    size = demo.options.size
    first = int(np.random.SeedSequence(demo.options.seed).generate_state(1)[0])
    first += demo.options.demonstrations + size.unseen
    seeds = range(first, first + size.episodes)
    expected = evaluate(expert, "DiffPendulum-v0", seeds, max_steps=size.max_steps)
    np.testing.assert_allclose(demo.scores["expert"].evaluation.returns, expected.returns)


def test_learning_brings_the_planner_closer_to_the_expert(demo: Demo) -> None:
    before, after = demo.scores["mpc_before"].imitation_loss, demo.scores["mpc"].imitation_loss
    assert before is not None
    assert after is not None
    assert after < 0.5 * before


def test_the_planner_starts_where_the_paper_does() -> None:
    mpc, _ = make_policies("DiffPendulum-v0")
    learned = {
        name: parameter.item()
        for name, parameter in current_values(mpc.mpc).items()
        if parameter.requires_grad
    }
    expected = {"dynamics.gravity": 15.0, "dynamics.mass": 3.0, "dynamics.length": 0.5}
    assert learned == expected


def test_a_seed_gives_the_same_result_again(demo: Demo, tmp_path: Path) -> None:
    torch.rand(3)  # what the caller drew before does not matter
    again = run_demo(DemoOptions(folder=tmp_path, quick=True))
    assert again.histories == demo.histories
    assert again.physics == demo.physics


def test_the_demo_of_another_environment_is_of_it_alone(tmp_path: Path) -> None:
    options = DemoOptions("DiffCartPole-v0", 2, folder=tmp_path, quick=True)
    assert not options.flies
    assert DemoOptions(folder=tmp_path).flies


@pytest.mark.slow
def test_another_seed_gives_another_result_and_leaves_the_callers_random_numbers_alone(
    demo: Demo, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    other = run_demo(DemoOptions(folder=tmp_path, quick=True, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert other.histories != demo.histories


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_cloned_planner_finds_the_physics_and_acts_as_the_expert(
    seed: int, tmp_path: Path
) -> None:
    demo = run_demo(DemoOptions(seed=seed, folder=tmp_path))
    expert, mpc, mlp = (demo.scores[agent] for agent in ("expert", "mpc", "mlp"))
    gap = abs(mpc.evaluation.mean - expert.evaluation.mean)
    assert gap <= 2 * expert.evaluation.standard_error
    assert mpc.evaluation.mean > mlp.evaluation.mean
    assert mpc.imitation_loss is not None
    assert mlp.imitation_loss is not None
    assert mpc.imitation_loss <= 0.1 * mlp.imitation_loss
    for quantity in PENDULUM.quantities:
        true, learned = (quantity.of(demo.physics[name]) for name in ("true", "mpc"))
        assert learned == pytest.approx(true, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_quadrotor_that_plans_flies_round_the_obstacle_where_an_mlp_hits_it(seed: int) -> None:
    flights = fly(10, seed, FULL, Stages())
    assert flights.crashes("expert") == flights.crashes("mpc") == 0
    assert flights.crashes("mlp") > 5  # of 20


@pytest.mark.parametrize("demonstrations", [-1, 0, 1])
def test_too_few_demonstrations_are_refused_before_anything_is_written(
    demonstrations: int, tmp_path: Path
) -> None:
    message = f"demonstrations must be at least 2.*got {demonstrations}"
    with pytest.raises(ValueError, match=message):
        DemoOptions(demonstrations=demonstrations, folder=tmp_path / "videos")
    assert list(tmp_path.iterdir()) == []


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        DemoOptions(seed=-1, folder=tmp_path)
