"""The page that says what a saved policy is, in the form that model hubs read."""

import json
from typing import Any

from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from mpc_gym.envs.spaces import EnvBox
from mpc_gym.models import current_values
from mpc_gym.mpc import MPC
from mpc_gym.policies.functions import SCRIPT
from mpc_gym.policies.sharing.serial import FUNCTIONS, POLICY_MODULES

LIBRARY_LINE = "library_name: mpc_gym"
MAX_VALUES = 16  # of one parameter that are printed

CARD = """\
---
{library}
license: {license_tag}
pipeline_tag: reinforcement-learning
tags: {tags}
---

# {title}

{description}

{facts}

## Use

```python
{usage}
```

This folder holds JSON and tensors. Nothing in it is run when it is loaded, and no name in it is
imported.{function_note}

## Learned parameters

{learned}

## Licence

{licence}
"""


def model_card(
    policy: BasePolicy, arguments: dict[str, Any], folder: str, description: str, license_id: str
) -> str:
    """The page, in Markdown with a front matter in YAML.

    Args:
        policy: what is saved.
        arguments: its constructor arguments, as they are saved.
        folder: from which the card's example loads it.
        description: in Markdown: what it was trained on, and how well it does.
        license_id: as model hubs write it ("mit", "apache-2.0").
    """
    class_name = type(policy).__name__
    space = policy.observation_space
    env_id = space.env_id if isinstance(space, EnvBox) else None
    tags = ["reinforcement-learning", "stable-baselines3", *([env_id] if env_id else [])]
    functions = _functions(arguments)
    return CARD.format(
        library=LIBRARY_LINE,
        license_tag=json.dumps(license_id),  # what JSON writes is YAML too, whatever the text
        tags=json.dumps(tags),
        title=f"{class_name} for {env_id}" if env_id else class_name,
        description=description.strip() or "A policy for Stable-Baselines3.",
        facts=_facts(policy, arguments),
        usage=_usage(type(policy), folder, env_id, functions),
        function_note="".join(
            f"\nFor `{name}=` pass the function `{function}`."
            for name, function in functions.items()
        ),
        learned=_learned(policy),
        licence=license_id,
    )


def _functions(arguments: dict[str, Any]) -> dict[str, str]:
    """The functions among the arguments, by the arguments' names."""
    values = {name: arguments.get(name) for name in FUNCTIONS}
    return {
        name: str(value["$function"]) for name, value in values.items() if isinstance(value, dict)
    }


def _facts(policy: BasePolicy, arguments: dict[str, Any]) -> str:
    space = policy.observation_space
    facts: dict[str, object] = {"class": type(policy).__name__}
    if isinstance(space, EnvBox):
        facts["environment"] = f"{space.env_id} {json.dumps(space.env_kwargs)}"
    facts |= {"observations": space, "actions": policy.action_space}
    facts |= {name: value for name, value in arguments.items() if value not in (None, {}, [])}
    rows = [f"| {name} | `{_cell(value)}` |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: object) -> str:
    return str(value).replace("\n", " ").replace("|", "\\|")


def _usage(
    policy_class: type[BasePolicy], folder: str, env_id: str | None, functions: dict[str, str]
) -> str:
    name = policy_class.__name__
    unknown = name not in POLICY_MODULES  # so the reader has to bring the class
    given = [
        json.dumps(folder),
        *([name] if unknown else []),
        *(f"{name}={function.rpartition('.')[2]}" for name, function in functions.items()),
    ]
    imports = [
        *(["import gymnasium as gym"] if env_id else []),
        "from mpc_gym.policies import load_pretrained",
        *([f"from {_module(policy_class)} import {name}"] if unknown else []),
    ]
    lines = ["", f"policy = load_pretrained({', '.join(given)})"]
    if env_id:
        lines += [
            f"env = gym.make({json.dumps(env_id)})",
            "observation, _ = env.reset()",
            "action, _ = policy.predict(observation, deterministic=True)",
        ]
    return "\n".join([*imports, *lines])


def _module(policy_class: type[BasePolicy]) -> str:
    """Where a reader finds a class; what is defined in a script has no such place yet."""
    module = policy_class.__module__
    return "its_module" if module == SCRIPT else module


def _learned(policy: BasePolicy) -> str:
    count = sum(each.numel() for each in policy.parameters() if each.requires_grad)
    rows = [
        f"| {name} | {_values(parameter)} |"
        for name, parameter in _plan_parameters(policy)
        if parameter.requires_grad
    ]
    table = ["", "| of the plan | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"{count} numbers, those of value networks included.", *table])


def _plan_parameters(policy: BasePolicy) -> list[tuple[str, Tensor]]:
    """Those of the acting MPC: target networks hold another, and come later."""
    for module in policy.modules():
        if isinstance(module, MPC):
            return list(current_values(module).items())
    return []


def _values(parameter: Tensor) -> str:
    if parameter.numel() > MAX_VALUES:
        return f"{list(parameter.shape)} numbers"
    return str(parameter.detach().cpu().numpy().tolist())
