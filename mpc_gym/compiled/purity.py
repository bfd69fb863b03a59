"""Whether a module is a function at all, which has to hold before it is traced.

It returns the same value for the same arguments and parameters, changes none of them, shows PyTorch
what it computes, and has parameters that exist.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpc_gym.compiled.errors import ImpureModule
from mpc_gym.functional import WithValues

RELATIVE = 1e-6  # a module may round to float32 on its way
OF_LARGEST, OF_ALL = 1e-10, 1e-12  # rounding, of what cancels
_RANDOM_IN_TRAINING = (
    nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU
)  # fmt: skip


def check_pure(module: nn.Module, inputs: Sequence[Tensor], values: Mapping[str, Tensor]) -> None:
    """Refuse a module that is no function of these inputs and parameters.

    It may write into its arguments: it is always called with copies.

    Raises:
        ImpureModule: it writes into a parameter or a buffer, or it returns something else, by more
            than rounding, when it is called again.
    """
    named = {k: v.clone() for k, v in (*module.named_buffers(), *values.items())}
    before = {name: value.clone() for name, value in named.items()}
    call = WithValues(module, named)
    with random_numbers_kept():
        found = [call(*(value.clone() for value in inputs)) for _ in range(2)]
    for name, value in named.items():
        if not _identical(value, before[name]):
            owner = module.get_submodule(name.rpartition(".")[0])
            mode = "call eval() on it, or " if owner.training else ""
            raise ImpureModule(
                f"the forward of {type(module).__name__} changes {name} of {type(owner).__name__}, "
                f"so it is another function at each call: {mode}keep what changes out of its "
                "forward"
            )
    if all(isinstance(each, Tensor) for each in found) and not _agree(*found):
        raise ImpureModule(
            f"{type(module).__name__} returned two different values for the same arguments and "
            f"parameters, so there is no single problem to solve. {_what_is_random(module)}"
        )


def _what_is_random(module: nn.Module) -> str:
    parts = [
        f"{name or 'itself'} ({type(part).__name__})"
        for name, part in module.named_modules()
        if part.training and isinstance(part, _RANDOM_IN_TRAINING)
    ]
    mode = f"{', '.join(parts)} is in training mode: call eval() on the module. " if parts else ""
    return (
        f"{mode}Random numbers, clocks and counters belong outside of its forward, and come in as "
        "context or a buffer"
    )


def _identical(a: Tensor, b: Tensor) -> bool:
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _agree(a: Tensor, b: Tensor) -> bool:
    """Whether two values are the same but for rounding.

    LAPACK's depends on where in memory its work space happens to lie.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    scale = float((1.0 * a.detach()).abs().nan_to_num(0.0, 0.0, 0.0).sum())
    bound = OF_LARGEST * scale + OF_ALL
    return torch.allclose(a, b, rtol=RELATIVE, atol=bound, equal_nan=True)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Leave the generators of torch, NumPy and Python as they were."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002  # the user's
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():  # it may differentiate inside
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def check_not_compiled(module: nn.Module) -> None:
    """Refuse what TorchScript or torch.compile made.

    Raises:
        ImpureModule: a part of the module is that.
    """
    for name, part in module.named_modules():
        compiled = hasattr(part, "_orig_mod") or part._compiled_call_impl is not None
        if compiled or isinstance(part, torch.jit.ScriptModule):
            kind = "torch.compile" if compiled else "TorchScript"
            raise ImpureModule(
                f"{_named(module, name)} was compiled by {kind}, which hides what it computes: "
                "pass the plain module, it is compiled here"
            )


def check_has_shapes(module: nn.Module) -> None:
    """Refuse parameters that do not exist yet.

    Raises:
        ImpureModule: a part of the module has one.
    """
    for name, part in module.named_modules():
        if any(map(is_lazy, (*part._parameters.values(), *part._buffers.values()))):
            raise ImpureModule(
                f"{_named(module, name)} ({type(part).__name__}) has parameters without a shape "
                "yet: call the module once with a state and a control before it plans"
            )


def _named(module: nn.Module, part: str) -> str:
    return f"{type(module).__name__}.{part}" if part else type(module).__name__
