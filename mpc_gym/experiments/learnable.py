"""What of an environment's model can be learned, and where learning begins.

The dynamics begin with the wrong physics of Amos et al. (2018), the weights of the cost at
sigmoid(0) = 0.5 and its linear terms at zero, as theirs do.
"""

import torch

from mpc_gym.checks import found
from mpc_gym.envs.registration import ENTRY_POINTS
from mpc_gym.experiments.methods import Method, Start
from mpc_gym.experiments.problems import PENDULUM, PROBLEMS
from mpc_gym.make_mpc import make_mpc
from mpc_gym.models.base import positive_parameters

COST_WEIGHT = 0.5
ADDITIONS = ("linear", "terminal", "cost_map")
GROUPS = ("dynamics", "cost")

Starts = dict[str, Start]


def check_env_id(env_id: str) -> None:
    """Refuse an environment without a model of its own.

    Raises:
        ValueError: it is not one of ours.
    """
    if not isinstance(env_id, str) or env_id not in ENTRY_POINTS:
        raise ValueError(f"env must be one of {', '.join(ENTRY_POINTS)}, got {found(env_id)}")


def starts(env_id: str, method: Method, learn: tuple[str, ...] = ()) -> Starts:
    """What a method learns in an environment, and from where.

    Args:
        env_id: one of our environments.
        method: which learns the dynamics, the cost, both or none.
        learn: names of parameters, "mass" or "dynamics.mass", perhaps with a start of choice,
            "mass=2.5"; and of additions to the cost, "terminal". Empty: what the paper learns.

    Raises:
        ValueError: a name is unknown or ambiguous, a start is missing or no number, or the method
            would learn nothing of the model.
    """
    parameters = _parameters(env_id)
    for name in (text.partition("=")[0] for text in learn):  # those of other methods, too
        if name not in ADDITIONS:
            _full_name(parameters, name)
    if not method.learns:
        return {}
    defaults = _defaults(env_id, method)
    if not learn:
        return defaults
    chosen: Starts = {}
    for text in learn:
        name, equals, value = text.partition("=")
        if name in ADDITIONS:
            _check_addition(name, equals)
            if "cost" in method.learns:
                chosen[name] = None
            continue
        full = _full_name(parameters, name)
        if full.partition(".")[0] not in method.learns:
            continue
        chosen[full] = _start(full, value, parameters[full]) if equals else _default(defaults, full)
    if not chosen:
        group = " or ".join(method.learns)
        raise ValueError(
            f"learn must name something of the {group}, which {method.name} learns: one of "
            f"{', '.join(_learnable(parameters, method))}; got {', '.join(learn)}"
        )
    # as a mapping of the policy's, it must be able to make its model from there
    make_mpc(env_id, learn={n: s for n, s in chosen.items() if n not in ADDITIONS})
    return chosen


def _parameters(env_id: str) -> dict[str, torch.Tensor]:
    mpc = make_mpc(env_id)
    return {
        f"{group}.{name}": parameter
        for group in GROUPS
        for name, parameter in getattr(mpc, group).named_parameters()
    }


def _defaults(env_id: str, method: Method) -> Starts:
    found: Starts = {}
    if "dynamics" in method.learns:
        physics = PROBLEMS.get(env_id, PENDULUM).wrong_physics
        found |= {f"dynamics.{name}": value for name, value in physics.items()}
    if "cost" in method.learns:
        cost = make_mpc(env_id).cost
        positive = positive_parameters(cost)
        for name, parameter in cost.named_parameters():
            value = COST_WEIGHT if name in positive else 0.0
            found[f"cost.{name}"] = torch.full_like(parameter, value).tolist()
        if positive and len(positive) == len(list(cost.parameters())):
            found["linear"] = None  # it has no linear terms of its own
    return found


def _full_name(parameters: dict[str, torch.Tensor], name: str) -> str:
    matches = [full for full in parameters if name in (full, full.partition(".")[2])]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        known = (*(full.partition(".")[2] for full in parameters), *ADDITIONS)
        raise ValueError(f"learn: no parameter {name!r}; there are {', '.join(known)}")
    raise ValueError(f"learn: {name!r} is ambiguous; say one of {', '.join(matches)}")


def _default(defaults: Starts, full: str) -> Start:
    if full not in defaults:
        raise ValueError(
            f"learn: {full} has no wrong start of its own; say one, such as {full}=0.5"
        )
    return defaults[full]


def _start(full: str, value: str, parameter: torch.Tensor) -> Start:
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"learn: the start of {full} must be a number, got {value!r}") from error
    start: Start = torch.full_like(parameter, number).tolist()
    return start


def _check_addition(name: str, equals: str) -> None:
    if equals:
        raise ValueError(f"learn: {name} starts at zero; leave out its value")


def _learnable(parameters: dict[str, torch.Tensor], method: Method) -> list[str]:
    names = [full for full in parameters if full.partition(".")[0] in method.learns]
    return [*names, *(ADDITIONS if "cost" in method.learns else ())]
