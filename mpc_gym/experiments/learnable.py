"""What of an environment's model can be learned, and where learning begins.

The dynamics begin with the wrong physics of `environments`, the weights of the cost at
sigmoid(0) = 0.5 and its linear terms at zero, as those of Amos et al. (2018) do.
"""

import torch

from mpc_gym.experiments.environments import find_system
from mpc_gym.experiments.methods import InitialValue, Method
from mpc_gym.make_mpc import full_name, make_mpc, model_parameters
from mpc_gym.models.base import positive_parameters

COST_WEIGHT = 0.5
ADDITIONS = ("linear", "terminal", "cost_map")

InitialValues = dict[str, InitialValue]


def initial_values(env_id: str, method: Method, learn: tuple[str, ...] = ()) -> InitialValues:
    """What a method learns in an environment, and from which values.

    Args:
        env_id: of an environment with a differentiable model.
        method: which learns the dynamics, the cost, both or none.
        learn: names of parameters, "mass" or "dynamics.mass", perhaps with an initial value of
            choice, "mass=2.5"; and of additions to the cost, "terminal". Empty: what the paper
            learns.

    Raises:
        ValueError: a name is unknown or ambiguous, an initial value is missing or no number, or the
            method would learn nothing of the model.
    """
    defaults = _defaults(env_id, method)
    if not learn:
        return defaults
    mpc = make_mpc(env_id)
    parameters = model_parameters(mpc.dynamics, mpc.cost)
    known = [*(full.partition(".")[2] for full in parameters), *ADDITIONS]
    chosen: InitialValues = {}
    for text in learn:
        name, equals, value = text.partition("=")
        full = name if name in ADDITIONS else full_name(parameters, name, known)
        group = "cost" if name in ADDITIONS else full.partition(".")[0]
        initial = _filled(full, value, parameters.get(full)) if equals else None
        if group in method.learns:
            chosen[full] = initial if equals else _default(full, defaults)
    if not chosen and method.learns:
        names = [full for full in parameters if full.partition(".")[0] in method.learns]
        names += ADDITIONS if "cost" in method.learns else ()
        raise ValueError(
            f"learn must name something of the {' or '.join(method.learns)}, which {method.name} "
            f"learns: one of {', '.join(names)}; got {', '.join(learn)}"
        )
    # as a mapping of the policy's, it must be able to make its model from there
    make_mpc(env_id, learn={n: s for n, s in chosen.items() if n not in ADDITIONS})
    return chosen


def _defaults(env_id: str, method: Method) -> InitialValues:
    values: InitialValues = {}
    if "dynamics" in method.learns:
        physics = find_system(env_id).wrong_physics
        values |= {f"dynamics.{name}": value for name, value in physics.items()}
    if "cost" in method.learns:
        cost = make_mpc(env_id).cost
        positive = positive_parameters(cost)
        for name, parameter in cost.named_parameters():
            value = COST_WEIGHT if name in positive else 0.0
            values[f"cost.{name}"] = torch.full_like(parameter, value).tolist()
        if positive and len(positive) == len(list(cost.parameters())):
            values["linear"] = None  # it has no linear terms of its own
    return values


def _default(full: str, defaults: InitialValues) -> InitialValue:
    if full in ADDITIONS:
        return None
    if full not in defaults:
        raise ValueError(
            f"learn: {full} has no wrong start of its own; say one, such as {full}=0.5"
        )
    return defaults[full]


def _filled(full: str, value: str, parameter: torch.Tensor | None) -> InitialValue:
    if parameter is None:
        raise ValueError(f"learn: {full} starts at zero; leave out its value")
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"learn: the start of {full} must be a number, got {value!r}") from error
    filled: InitialValue = torch.full_like(parameter, number).tolist()
    return filled
