"""Malformed calls of the compiler and of what it compiles are answered in words."""

from functools import cache

import pytest
import torch

from mpc_gym.compiled import CompiledModule, Program, compile_module, trace
from mpc_gym.models import PendulumDynamics, QuadraticCost
from tests.malformed import Case, failures, rows

SIZES = {"n_state": "count", "n_ctrl": "count", "n_context": "count or zero"}
COMPILE = {"module": PendulumDynamics, "n_state": lambda: 3, "n_ctrl": lambda: 1}
RIGHT = {"state": lambda: torch.zeros(2, 3), "control": lambda: torch.zeros(2, 1)}
POINT = {"state": "numbers", "control": "numbers", "stage": "count or zero"}


@cache
def compiled() -> CompiledModule:
    return compile_module(PendulumDynamics(), 3, 1)


CASES = {
    "compile_module": Case(compile_module, COMPILE, {"module": "module", **SIZES}),
    "trace": Case(trace, COMPILE, {"module": "module", **SIZES}),
    "Program": Case(Program, {}, {"limit": "count"}),
    "value": Case(lambda **each: compiled().value(**each), RIGHT, POINT),
    "jacobian": Case(lambda **each: compiled().jacobian(**each), RIGHT, POINT),
    "hessian": Case(
        lambda **each: compiled().hessian(**each),
        {"weights": lambda: torch.ones(3), **RIGHT},
        {"weights": "numbers", **POINT},
    ),
}


@rows(CASES)
def test_a_bad_argument_is_named_with_what_was_found(case: Case, argument: str) -> None:
    assert not failures(case, argument)


def test_a_stage_that_the_module_does_not_have_is_refused() -> None:
    cost = compile_module(QuadraticCost.diagonal(torch.ones(5, 4)), 3, 1)
    assert cost.value(torch.ones(3), torch.ones(1), stage=4) == 2.0
    with pytest.raises(ValueError, match="stage must be at most 4, got 5"):
        cost.value(torch.ones(3), torch.ones(1), stage=5)


@pytest.mark.parametrize("context", [0.0, torch.zeros(1), [1.0]])
def test_a_context_that_the_module_does_not_take_is_refused(context) -> None:
    with pytest.raises(ValueError, match="context is given"):
        compiled().value(torch.zeros(3), torch.zeros(1), context)
