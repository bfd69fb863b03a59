"""Each example runs, in a short form, and does what it says."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, **options: Any) -> Any:
    example = runpy.run_path(str(EXAMPLES / name))
    return example["main"](example["Options"](**options))


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    missing = [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in here]
    assert missing == []


@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_ppo_corrects_the_mass_and_earns_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    model = run("ppo.py", steps=98_304, steps_per_update=64)
    dynamics = model.policy.mpc.dynamics
    assert 0.65 < dynamics.mass.item() < 1.1  # from 0.5; the whole run comes to 1
    assert (dynamics.gravity.item(), dynamics.length.item()) == (10.0, 1.0)
    before, after = map(float, re.findall(r"return (-\d+)", capsys.readouterr().out))
    assert after > before + 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_ppo_finds_the_mass_within_ten_percent(seed: int) -> None:
    model = run("ppo.py", seed=seed)
    assert model.policy.mpc.dynamics.mass.item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_rewards_take_a_clone_beyond_what_it_was_shown() -> None:
    short = {"demonstrations": 4, "steps": 4096, "episodes": 12}
    returns = run("fine_tuning.py", algorithm="ppo", **short)
    assert returns["before"] < returns["demonstrator"] - 500
    assert returns["after cloning"] == pytest.approx(returns["demonstrator"], abs=2)
    assert returns["after PPO"] > returns["after cloning"] + 10


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_rewards_take_a_clone_far_beyond_what_it_was_shown(algorithm: str) -> None:
    returns = run("fine_tuning.py", algorithm=algorithm)
    assert returns[f"after {algorithm.upper()}"] > returns["after cloning"] + 60


def test_the_differentiable_controller_learns_what_acts_on_the_motion() -> None:
    learned = run("differentiable_mpc.py", steps=240)
    gravity, mass, length = (p.item() for p in (learned.gravity, learned.mass, learned.length))
    assert gravity / length == pytest.approx(10.0, rel=0.05)
    assert 1 / (mass * length**2) == pytest.approx(1.0, rel=0.05)


def test_the_cars_come_to_rest_near_their_place() -> None:
    x, y, cosine, _, speed = run("own_model.py").unbind(-1)
    assert torch.hypot(x, y).max() < 0.1
    assert cosine.min() > 0.99
    assert speed.abs().max() < 0.05


def test_the_gradient_through_the_physics_trains_a_policy_beside_ppo() -> None:
    short = {"updates": 60, "batch": 16, "horizon": 30, "learning_rate": 1e-2}
    returns = run("analytic_policy_gradient.py", **short)
    assert returns["through the physics"] > returns["untrained"] + 300
    assert set(returns) == {"untrained", "PPO", "through the physics"}


def test_a_mass_is_learned_through_plans_that_stay_on_the_track() -> None:
    mass, violation = run("track.py")
    assert mass == pytest.approx(1.0, rel=0.01)  # from 2
    assert violation < 1e-7


def test_a_smoothed_gradient_lives_where_the_plain_plan_holds_its_limit(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    curves = run("smoothed_gradient.py", picture=str(picture))
    assert picture.stat().st_size > 10_000
    plain, slope = curves.pop(0.0)
    held = plain.abs() == 2.0
    assert held.double().mean() > 0.8
    assert (slope[held] == 0).all()
    gaps = []
    for torques, slopes in curves.values():
        assert torques.abs().max() < 2.0
        assert (slopes != 0).all()
        step = 2.4 / (len(torques) - 1)
        differences = (torques[2:] - torques[:-2]) / (2 * step)
        torch.testing.assert_close(slopes[1:-1], differences, rtol=0.02, atol=0.02)
        gaps.append((torques - plain).abs().mean())
    assert sorted(gaps) == gaps  # the smaller mu, the nearer to the plain plan


def test_cars_drive_round_the_obstacle_on_either_side_and_stop_at_the_goal() -> None:
    way, violations = run("obstacle.py", steps=60)
    x, y, speed = way[..., 0], way[..., 1], way[..., 4]
    assert violations.max() < 1e-6
    assert torch.hypot(x, y).min() > 0.7 - 1e-5
    assert speed.max() < 1.2 + 1e-5
    passing = y[x.abs().argmin(0), [0, 1]]
    assert passing[0] > 0.6 > -0.6 > passing[1]  # each on its own side
    assert torch.hypot(x[-1] - 2, y[-1]).max() < 0.05


def share_that_left(episodes: Any) -> float:
    return sum(each.left for each in episodes) / len(episodes)


@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_ppo_seldom_leaves_the_track_where_it_plans() -> None:
    trainings = run("safe_exploration.py", steps=6_400, mlp_steps=6_400)
    assert len(trainings["MPC"]) >= 32
    assert share_that_left(trainings["MPC"]) < 0.05
    assert share_that_left(trainings["MLP"]) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.filterwarnings("ignore:.*control problems did not converge")
def test_a_network_learns_to_stay_on_the_track_by_leaving_it(seed: int) -> None:
    trainings = run("safe_exploration.py", seed=seed)
    planned, network = trainings["MPC"], trainings["MLP"]
    assert share_that_left(planned) < 0.02
    assert sum(each.left for each in network) > 150
    assert share_that_left(network[-len(network) // 4 :]) < 0.1
