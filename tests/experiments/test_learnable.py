import pytest

from mpc_gym.experiments.environments import check_env
from mpc_gym.experiments.learnable import initial_values
from mpc_gym.experiments.methods import METHODS, find_method


def of(method: str, env: str = "DiffPendulum-v0", *learn: str):
    return initial_values(env, METHODS[method], learn)


def test_by_default_learning_begins_where_the_papers_does() -> None:
    assert (
        of("mpc.dx")
        == of("sysid")
        == {
            "dynamics.gravity": 15.0,
            "dynamics.mass": 3.0,
            "dynamics.length": 0.5,
        }
    )
    assert list(of("mpc.dx", "DiffCartPole-v0").values()) == [9.8, 3.0, 0.1, 1.0]
    assert of("mpc.cost", "DiffCartPole-v0") == {"cost.C": [0.5] * 6, "cost.c": [0.0] * 6}
    weights = {f"cost.{name}_weight": 0.5 for name in ("angle", "speed", "torque")}
    assert of("mpc.cost") == {**weights, "linear": None}
    assert of("mpc.cost.dx") == {**of("mpc.dx"), **of("mpc.cost")}
    assert of("mlp") == of("nn") == {}


def test_the_expert_in_the_wind_has_a_learner_without_it() -> None:
    assert of("mpc.dx", "DiffPendulumWindy-v0") == of("mpc.dx")


def test_a_user_chooses_what_is_learned_and_from_where() -> None:
    learn = ("mass", "dynamics.length=0.7", "angle_weight", "terminal")
    assert of("mpc.dx", "DiffPendulum-v0", *learn) == {
        "dynamics.mass": 3.0,
        "dynamics.length": 0.7,
    }
    assert of("mpc.cost", "DiffPendulum-v0", *learn) == {
        "cost.angle_weight": 0.5,
        "terminal": None,
    }


@pytest.mark.parametrize(
    ("method", "learn", "message"),
    [
        ("mpc.dx", "masss", "no parameter 'masss'; there are gravity, mass"),
        ("mpc.dx", "torque_weight", "learn must name something of the dynamics, which mpc.dx"),
        ("mpc.cost", "mass", "learn must name something of the cost, which mpc.cost"),
        ("mpc.dx", "mass=heavy", "the start of dynamics.mass must be a number, got 'heavy'"),
        ("mpc.dx", "mass=-1", "mass"),
        ("mpc.dx", "mass=nan", "must be finite"),
        ("mpc.dx", "damping", "dynamics.damping has no wrong start of its own"),
        ("mpc.cost", "linear=2", "linear starts at zero"),
    ],
)
def test_what_cannot_be_learned_is_said(method: str, learn: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(method, "DiffPendulum-v0", learn)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppo", "methods must be of mpc.dx"),
        ("nowhere.to:be_found", "'nowhere.to:be_found' cannot be imported"),
        ("mpc_gym.experiments.methods:nothing", "cannot be imported"),
    ],
)
def test_an_unknown_method_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_method(name)


def test_an_environment_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="env must be one of DiffPendulum-v0"):
        check_env("Pendulum-v1")
