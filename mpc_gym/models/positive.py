"""Cost weights, masses and lengths that learning cannot make negative."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpc_gym.checks import check_module
from mpc_gym.models.base import is_diagonal, positive_parameters

Module = TypeVar("Module", bound=nn.Module)


class LogScale(nn.Module):
    """The parametrisation `weight = initial * exp(log_scale)`, elementwise, from log_scale = 0.

    The exponential of zero is one, so the weights are exactly the given ones until they are
    learned; one that is zero stays zero. Assigning to the weight sets new initial values.

    Args:
        name: of the weight, for messages.
        initial: the weights.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    running_start: Tensor

    def __init__(self, name: str, initial: Tensor) -> None:
        super().__init__()
        self.name = name
        # SB3 carries to target networks what is a parameter or is called running_...
        self.register_buffer("running_start", self._checked(initial).detach().clone())

    def forward(self, log_scale: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The weights."""
        return self.running_start * torch.exp(log_scale)

    def right_inverse(self, weight: Tensor | float) -> Tensor:
        """Take other initial values: what the logarithms are then."""
        weight = torch.as_tensor(weight, dtype=self.running_start.dtype)
        self.running_start.copy_(self._checked(weight))
        return torch.zeros_like(weight)

    def _checked(self, weight: Tensor) -> Tensor:
        if bool(((weight >= 0) & weight.isfinite()).all()):
            return weight
        raise ValueError(
            f"{self.name} must be finite and not negative to be kept positive, got "
            f"{weight.tolist()}; start from other weights, or learn it without keep_positive"
        )


class MatrixRoot(nn.Module):
    """The parametrisation `C = S S'`, positive semidefinite, from the symmetric square root S.

    Of a matrix that is not symmetric it takes the symmetric part, which gives the same quadratic
    form.

    Args:
        name: of the matrix, for messages.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, root: Float[Tensor, "*shape n n"]) -> Float[Tensor, "*shape n n"]:
        """The matrices."""
        return root @ root.mT

    def right_inverse(self, matrix: Float[Tensor, "*shape n n"]) -> Float[Tensor, "*shape n n"]:
        """The symmetric square roots.

        Raises:
            ValueError: a matrix is not positive semidefinite, beyond rounding, or not finite.
        """
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"{self.name} must be finite, got {matrix.tolist()}")
        values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.mT).double())
        rounding = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * values.abs().amax()
        if bool((values < -rounding).any()):
            raise ValueError(
                f"{self.name} must be positive semidefinite to be kept so, but has the eigenvalue "
                f"{values.min().item():.3g}; start from another matrix, or learn it without "
                "keep_positive"
            )
        root: Tensor = (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
        return root.to(matrix.dtype)


def keep_positive(module: Module) -> Module:
    """Parametrise a cost's weights, or a dynamics' masses, so that learning keeps them positive.

    They are those that the module names in an attribute `positive_parameters`. Each becomes
    its present value times the exponential of a learned number that starts at zero (`LogScale`);
    a full matrix, of a cost whose `is_diagonal` is false, a product S S' (`MatrixRoot`). They are
    read as before, `cost.angle_weight`; what is learned is
    `cost.parametrizations.angle_weight.original` (see `torch.nn.utils.parametrize`). These are
    new parameters: make an optimiser afterwards. The module can be copied and pickled as before.

    Args:
        module: changed in place. What is parametrised already is left as it is.

    Returns:
        The same module.

    Raises:
        TypeError: it is no module.
        ValueError: the module names no such parameters, or one is negative, not finite, or a matrix
            that is not positive semidefinite.
    """
    check_module("module", module)
    names = positive_parameters(module)
    if not names:
        raise ValueError(
            f"module {type(module).__name__} has no positive_parameters: name there the "
            "parameters that are to be kept positive"
        )
    owners = [(name, *owner(module, name)) for name in names]
    # every initial value is checked before the first parameter is replaced
    replacements = [
        (part, key, *_replacement(name, part, key))
        for name, part, key in owners
        if parametrisations(part, key) is None
    ]
    for part, key, parameter, parametrisation in replacements:
        setattr(part, key, parameter)
        parametrize.register_parametrization(part, key, parametrisation)
        # PyTorch gives the part a class of its own, which no pickle can find by its name
        type(part).__reduce_ex__ = _reduce  # type: ignore[method-assign,assignment]
    return module


def current_values(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters by dotted name, those that are parametrised by their own names."""
    check_module("module", module)
    values: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        if "parametrizations" in path.split("."):
            continue
        if parametrize.is_parametrized(part):
            values |= {f"{prefix}{key}": getattr(part, key) for key in part.parametrizations}
        values |= {f"{prefix}{key}": value for key, value in part.named_parameters(recurse=False)}
    return values


def owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that has the parameter of this dotted name, and its name there."""
    path, _, key = name.rpartition(".")
    return module.get_submodule(path), key


def parametrisations(part: nn.Module, key: str) -> parametrize.ParametrizationList | None:
    """What parametrises a module's own parameter, with what is learned as `original`."""
    if not parametrize.is_parametrized(part, key):
        return None
    table = part.parametrizations
    assert isinstance(table, nn.ModuleDict)
    parametrisation = table[key]
    assert isinstance(parametrisation, parametrize.ParametrizationList)
    return parametrisation


def _replacement(
    name: str, part: nn.Module, key: str
) -> tuple[nn.Parameter, LogScale | MatrixRoot]:
    """A parameter of its own, which no other module shares, and how it is parametrised."""
    parameter = part._parameters[key]
    assert parameter is not None, f"{name} is no parameter"
    copy = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
    if is_diagonal(part):
        return copy, LogScale(name, copy)
    root = MatrixRoot(name)
    root.right_inverse(copy.detach())
    return copy, root


def _reduce(part: nn.Module, protocol: int) -> tuple[Any, ...]:  # noqa: ARG001  (pickle's signature)
    """How a parametrised module is pickled: as its first class, and what is parametrised."""
    original = parametrize.type_before_parametrizations(part)
    own_state = getattr(original, "__getstate__", None)  # of every object from Python 3.11 on
    state = part.__dict__ if own_state is None else own_state(part)
    table = part.parametrizations
    assert isinstance(table, nn.ModuleDict)
    return _parametrised, (original, tuple(table)), state


def _parametrised(original: type[nn.Module], names: Sequence[str]) -> nn.Module:
    """A module of this class that reads these names from its parametrisations, still without state.

    What is registered here makes the class; the state that pickle sets then takes its place.
    """
    part: nn.Module = original.__new__(original)
    nn.Module.__init__(part)
    for name in names:
        part.register_parameter(name, nn.Parameter(torch.empty(0)))
        parametrize.register_parametrization(part, name, nn.Identity())
    type(part).__reduce_ex__ = _reduce  # type: ignore[method-assign,assignment]
    return part
