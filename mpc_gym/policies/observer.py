"""From an observation to the state that a plan starts from.

    observation  --un-normalise-->  in the environment's units  --state-->  state [, context]

Both steps may be absent: the flattened observation is the state then.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from mpc_gym.checks import found
from mpc_gym.policies.fit import box, check_finite
from mpc_gym.policies.normalization import Normalization

StateSource = Callable[..., Any] | None
Start = tuple[Float[Tensor, "batch n_state"], Tensor | None]

MAKER_ARGUMENT = "observation_space"
ROWS = 8  # observations by which a map is tried out


class Observer(nn.Module):
    """The states of a batch of observations, and the context that goes with them.

    Args:
        source: a function that maps observations to states, or to a tuple of states and context;
            or a class or function that makes a module that does, and takes nothing or
            `observation_space`. None: the flattened observation is the state.
        space: of the observations.
        normalized: whether they come normalised by SB3's `VecNormalize`.

    Attributes:
        n_state: entries of a state.
        gives_context: whether there is a context.
        state_map: from observations to states; None: they are the states.
        normalization: what undoes it; None: nothing is to be undone.

    Raises:
        TypeError: the source makes no module, or a module is to be made of more than the space.
        ValueError: it maps observations to something else, or not each on its own, or fails on
            those of the space; there is none, and the space is no `Box`.
    """

    normalization: Normalization | None

    def __init__(self, source: StateSource, space: spaces.Space[Any], normalized: bool) -> None:
        super().__init__()
        self._space = space if source is not None else box("observation_space", space)
        self.normalization = Normalization(self._space) if normalized else None
        self.gives_context = False
        self._name = getattr(source, "__qualname__", "")
        self.state_map = None if source is None else _made(source, self._space)
        if self.state_map is None:
            self.n_state = spaces.flatdim(space)
            return
        with torch.no_grad():
            self.eval()  # a probe of zeros is nothing to remember
            zeros = _zeros(self._space)
            try:
                self.state_map(zeros)
            except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"observation_space must be one whose observations state={self._name} takes "
                    "(that of a known environment, where mpc is its id and no state is given), got "
                    f"{space}: on a batch of zeros it fails with {type(error).__name__}: {error}"
                ) from error
            states, context = self._mapped(zeros, 2)
            self.n_state, self.gives_context = states.shape[1], context is not None
            self._check_rows()
            self.train()

    def forward(
        self, observation: PyTorchObs | NDArray[np.floating], device: torch.device
    ) -> Start:
        """The states, and the context or None.

        Args:
            observation: a batch; with a `Dict` space, a mapping of such.
            device: where they go.

        Raises:
            ValueError: it is no batch, or not finite, or what it is mapped to has another shape.
        """
        given = _tensors(observation, device)
        if self.normalization is not None:
            given = self.normalization(given)
        return self.start(given)

    def start(self, given: PyTorchObs) -> Start:
        """The same of observations as the environment gives them, whatever normalises them.

        Raises:
            ValueError: as `forward`.
        """
        if isinstance(given, Tensor):
            if given.ndim < 2:  # flatten would say that a dimension is out of range
                raise ValueError(
                    f"observation must be a batch, got shape {list(given.shape)}; for a single one "
                    "use observation[None]"
                )
            if self.state_map is None:
                states = given.flatten(1)
                check_finite(states)
                return states, None
        first = given if isinstance(given, Tensor) else next(iter(given.values()))
        states, context = self._mapped(given, len(first))
        check_finite(states, f"the state that {self._name} returns")
        if context is not None:
            check_finite(context, f"the context that {self._name} returns")
        return states, context

    def _check_rows(self) -> None:
        """Refuse a map that takes the observations of a batch together, where it is defined.

        Raises:
            ValueError: what it returns for one of them changes with the others.
        """
        for exponent in (0.0, 2.0):
            batch = _scattered(self._space, exponent)
            try:
                together = self._mapped(batch, ROWS)
                pairs = [self._mapped(_rows(batch, [i, i]), 2) for i in range(ROWS)]
            except Exception:  # it may refuse what no environment shows, in its own way
                return
            for result, *alone in zip(together, *pairs, strict=True):
                if result is None or _same(torch.stack([each[0] for each in alone]), result):
                    continue
                raise ValueError(
                    f"state={self._name} must map each observation on its own, but what it returns "
                    "for one changes with the others of the batch: write it without means or "
                    "sums over the batch, and without an `if` on a tensor, which chooses once for "
                    "all (torch.where chooses for each)"
                )

    def _mapped(self, observation: PyTorchObs, batch: int) -> Start:
        """What the source returns, where that has the right shapes."""
        assert self.state_map is not None
        result = self.state_map(observation)
        pair = isinstance(result, tuple) and len(result) == 2
        states, context = result if pair else (result, None)
        wanted = (
            f"state={self._name} must map observations to the model's states [batch, n_state], or "
            "to a tuple of states and context"
        )
        for each in result if pair else (result,):
            if not isinstance(each, Tensor) or not each.is_floating_point():
                raise TypeError(f"{wanted}, in floating point, got {found(each)}")
        n_state = getattr(self, "n_state", states.shape[-1] if states.ndim else 0)  # unknown: any
        if states.shape != (batch, n_state):
            raise ValueError(
                f"{wanted}, for this batch [{batch}, {n_state}], got states of shape "
                f"{list(states.shape)}"
            )
        if context is not None and (context.ndim not in (2, 3) or len(context) != batch):
            raise ValueError(
                f"{wanted}; the context must be [batch, n_context] or [batch, horizon, n_context], "
                f"got {list(context.shape)}"
            )
        return states, context


def in_float32(observation: PyTorchObs) -> PyTorchObs:
    """The observations in the dtype of the networks."""
    if isinstance(observation, Tensor):
        return observation.float()
    return {name: each.float() for name, each in observation.items()}


def _tensors(observation: Any, device: torch.device) -> Any:
    if isinstance(observation, Mapping):
        return {name: _tensors(each, device) for name, each in observation.items()}
    return torch.as_tensor(observation, device=device)


def _made(source: Callable[..., Any], space: spaces.Space[Any]) -> Callable[..., Any]:
    """The map itself: the source, or the module that it makes."""
    try:
        needed = [
            name
            for name, each in inspect.signature(source).parameters.items()
            if each.default is each.empty
            and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
    except ValueError:  # a built-in function, which says nothing of its parameters
        return source
    is_class = isinstance(source, type)
    if not is_class and needed not in ([], [MAKER_ARGUMENT]):
        return source
    if needed not in ([], [MAKER_ARGUMENT]):
        raise TypeError(
            f"state={source.__qualname__} must be made of nothing, or of {MAKER_ARGUMENT}, as it "
            f"is made anew when the policy is loaded; it takes {', '.join(needed)}. Give these "
            "defaults, or pass a function that takes nothing and returns the module"
        )
    module = source(space) if needed else source()
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"state={source.__qualname__} must map observations to states, or take nothing (or "
            f"{MAKER_ARGUMENT}) and return a torch.nn.Module that does, got {found(module)}"
        )
    return module


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether they agree but for rounding in float32, each entry on its own scale."""
    size = expected.abs().nan_to_num(posinf=0.0).amax(0).clamp(min=1e-30)
    return torch.allclose(found / size, expected / size, rtol=1e-3, atol=1e-5, equal_nan=True)


def _scattered(space: spaces.Space[Any], exponent: float) -> Any:
    """Observations from near zero to 10^exponent, so that an `if` may decide differently."""
    if isinstance(space, spaces.Dict):
        return {name: _scattered(each, exponent) for name, each in space.spaces.items()}
    shape = space.shape or ()
    spreads = torch.logspace(-1.0, exponent, ROWS).reshape(-1, *(1 for _ in shape))
    points = spreads * torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(0))
    if isinstance(space, spaces.Box):
        low, high = (torch.as_tensor(side).float() for side in (space.low, space.high))
        points = points.clamp(low, high)
    return points


def _rows(batch: Any, rows: list[int]) -> Any:
    if isinstance(batch, Mapping):
        return {name: _rows(each, rows) for name, each in batch.items()}
    return batch[rows]


def _zeros(space: spaces.Space[Any]) -> Any:
    """Two observations of no meaning."""
    if isinstance(space, spaces.Dict):
        return {name: _zeros(each) for name, each in space.spaces.items()}
    return torch.zeros(2, *(space.shape or ()))
