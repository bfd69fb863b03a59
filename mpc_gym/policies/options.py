"""Whose model a policy plans with, how, and what of it is learned.

A policy can be rebuilt, in this process or another, from its arguments alone, so these are plain
data, and functions that can be found or kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
)
from torch import nn

from mpc_gym.checks import check_flag, check_size, found, real_tensor
from mpc_gym.known import known_environment
from mpc_gym.make_mpc import HasModel, make_mpc, model_of
from mpc_gym.models import ContextualCost, LinearCost, TerminalCost, keep_positive
from mpc_gym.models.base import positive_parameters, takes_context
from mpc_gym.mpc import MPC
from mpc_gym.policies.fit import box
from mpc_gym.policies.functions import check_call, check_importable
from mpc_gym.policies.observer import StateSource

MPCSource = str | Callable[..., MPC] | None
Learn = str | Sequence[str] | Mapping[str, float | None] | None

OF_SPACES = ("state", "control_scale", "normalized")  # and not of the MPC
ADDITIONS = ("linear", "terminal", "cost_map")
SB3_CLASSES = (
    ("activation_fn", nn.Module, "torch.nn.ReLU"),
    ("optimizer_class", torch.optim.Optimizer, "torch.optim.Adam"),
)
DEFAULT_MAX_ITERATIONS = 50  # a plan that is not found by then hardly ever is, and all wait for it


@dataclass(frozen=True)
class PlanOptions:
    """How a policy makes its MPC: the constructor arguments that all planning policies share.

    Args:
        mpc: whose model to plan with: an environment's id, of this package or of
            `mpc_gym.known.KNOWN`, which then also says what is not given of horizon, starts, state
            and control_scale; a function (or class) that returns an `MPC`, of a module or of the
            script itself; None for the environment that the observation space belongs to.
        horizon: the plan's length in time steps; None for the default of `make_mpc`.
        learn: what is trained besides the critic: a name, or a sequence of names, of parameters and
            groups of them as in `make_mpc` ("dynamics", "cost", "mass", "cost.angle_weight"), and
            of additions to the cost, which all start at zero:

            - "linear": `p' (x, u)` at every stage;
            - "terminal": `1/2 x' P x + q' x` at the last stage, the value of what comes after,
              which makes a short horizon far-sighted;
            - "cost_map": a network from the observation to the weights of every stage of the plan,
              as in Romero, Song & Scaramuzza (2023): it scales the cost's weights and adds linear
              terms.

            A mapping gives each parameter its initial value, or None for the model's own
            (and for additions). None trains the whole model and adds nothing. Masses, lengths and
            weights of the cost that are trained stay positive: what an optimiser moves is their
            logarithm (`keep_positive`), so that one that is zero stays zero. Where `mpc` is a
            function, all its parameters that require a gradient are trained, too.
        starts, hessian, tolerance, max_iterations, backend, smoothing: options of `MPC`; None for
            its defaults, except max_iterations, which is 50 then. Where `mpc` is a function, those
            that are given are its keyword arguments, as are horizon and (what is no addition of)
            learn, and it chooses the defaults.
        state: what the model's state is, where that is not the flattened observation: a function
            that maps a batch of observations (a tensor, or with a `Dict` space a dict of tensors)
            to states [batch, n_state], or to a tuple of states and the model's context; or a class
            or function that makes a module that does, and takes nothing or `observation_space`.
            What that module learns is the policy's. Of a module or of the script itself.
        control_scale: (low, high), the controls that the limits of the action space stand for,
            each a number or [n_ctrl]; what lies between is affine. None: the limits themselves, or
            what Gymnasium's `RescaleAction` maps them to, where the algorithm's environment has it.
        normalized: whether the observations are normalised by SB3's `VecNormalize`, and to be
            un-normalised by its statistics, which are saved with the policy. None: as they are in
            the algorithm's environment.

    Raises:
        TypeError: an argument is neither plain data nor importable, or of another kind.
        ValueError: an addition is given an initial value.
    """

    mpc: MPCSource = None
    horizon: int | None = None
    learn: Learn = None
    starts: int | None = None
    hessian: str | None = None
    tolerance: float | None = None
    max_iterations: int | None = None
    backend: str | None = None
    smoothing: float | None = None
    state: StateSource = None
    control_scale: tuple[ArrayLike, ArrayLike] | None = None
    normalized: bool | None = None

    def __post_init__(self) -> None:
        source = self.mpc
        if isinstance(source, nn.Module) or not (
            source is None or isinstance(source, str) or callable(source)
        ):
            raise TypeError(
                "mpc must be an environment's id, an importable function that returns an MPC, or "
                f"None, got {type(source).__name__}: a policy is saved as its arguments, and must "
                "be able to make its MPC anew"
            )
        if callable(source):
            check_importable("mpc", source)
        self._check_spaces()
        for name, value in vars(self).items():
            if name not in ("mpc", "state"):
                # the dataclass is frozen, and what it keeps is what will be written down
                object.__setattr__(self, name, plain_data(name, value))
        if not isinstance(self.learn, str | Sequence | Mapping | None):
            raise TypeError(
                "learn must be a name, a sequence of names, or a mapping from names to initial "
                f"values, got {found(self.learn)}"
            )
        if isinstance(self.learn, Mapping):
            for name in ADDITIONS:
                if self.learn.get(name) is not None:
                    raise ValueError(
                        f"learn[{name!r}] must be None: it starts at zero, got {self.learn[name]!r}"
                    )

    def _check_spaces(self) -> None:
        """The part of `__post_init__` for what is not of the MPC."""
        if self.state is not None:
            if isinstance(self.state, nn.Module) or not callable(self.state):
                raise TypeError(
                    "state must be an importable function that maps observations to states, or a "
                    f"class or function that makes a module that does, got {found(self.state)}: a "
                    "policy is saved as its arguments, and must be able to make its modules anew"
                )
            check_importable("state", self.state)
        if self.normalized is not None:
            check_flag("normalized", self.normalized)
        if self.control_scale is not None:
            object.__setattr__(self, "control_scale", _pair("control_scale", self.control_scale))

    def completed(self) -> "PlanOptions":
        """The same, with what is known of the environment where nothing else is said."""
        known = known_environment(self.mpc)
        if known is None:
            return self
        return replace(
            self,
            state=known.state if self.state is None else self.state,
            control_scale=known.control_scale if self.control_scale is None else self.control_scale,
        )

    @property
    def state_is_known(self) -> bool:
        """Whether it is known what of an observation is the state: it is said, or the model's."""
        return self.state is not None or not callable(self.mpc)

    @property
    def checks_angles(self) -> bool:
        """Whether observations are those of an environment whose angles can be checked."""
        return self.completed().state is None and not callable(self.mpc)

    def as_arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def make(
        self, n_state: int, source: HasModel | None = None, *, has_context: bool = False
    ) -> MPC:
        """A new MPC, whose parameters require a gradient where they are to be learned.

        Args:
            n_state: entries of its start state.
            source: of the model, which `environment` returns; None where that is a function.
            has_context: whether there is a context to plan with.

        Raises:
            TypeError: the function returned something else, or does not take the options.
            ValueError: an option does not fit the model, or it takes a context and there is none,
                or the other way round.
        """
        additions, rest = _split(self.learn)
        options = {**self.as_arguments(), "learn": rest}
        function = options.pop("mpc")
        for name in OF_SPACES:
            del options[name]
        given = {name: value for name, value in options.items() if value is not None}
        if callable(function):
            check_call(function, given)
            mpc = function(**given)
            if not isinstance(mpc, MPC):
                raise TypeError(
                    f"mpc={function.__qualname__} must return an MPC, got {type(mpc).__name__}"
                )
        else:
            assert source is not None, "only a function knows no environment"
            known = known_environment(self.mpc)
            suited = {} if known is None else known.options
            given = {"max_iterations": DEFAULT_MAX_ITERATIONS, **suited, **given}
            if additions and rest is None:
                given["learn"] = ()
            mpc = make_mpc(source, **given)
        _check_context(getattr(function, "__qualname__", repr(function)), mpc, has_context)
        if has_context and ("cost_map" in additions or isinstance(mpc.cost, ContextualCost)):
            raise ValueError(
                "learn: 'cost_map' gives the cost its context, and state= returns one: leave one "
                "of the two out"
            )
        _add(mpc, additions, n_state)
        return mpc

    def environment(self, observation_space: spaces.Space[Any]) -> HasModel:
        """One whose model it is, where that is no function of the user's.

        Raises:
            ValueError: the environment that is named has no model.
        """
        assert not callable(self.mpc), "a function knows no environment"
        return model_of("mpc", observation_space if self.mpc is None else self.mpc)


def plain_data(name: str, value: object) -> Any:
    """The value, of numbers, text, and nests of them, with NumPy's numbers as Python's own.

    Raises:
        TypeError: `value`, or something inside it, does not survive being written down.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain_data(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(f"{name}[{i}]", item) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(
        f"{name} must be plain data (a number, a text, or a list, tuple or dict of them), so "
        f"that the policy can be saved and rebuilt; got {type(value).__name__}. To plan with "
        "modules or tensors of your own, pass mpc= a function that makes the MPC"
    )


def sb3_options(
    use_sde: bool, options: Mapping[str, Any], space: spaces.Space[Any], state: StateSource
) -> dict[str, Any]:
    """The options of SB3's policies, without those that a plan has no place for.

    Args:
        use_sde: of SB3.
        options: of SB3's policy.
        space: of the observations.
        state: as in `PlanOptions`.

    Returns:
        The options, with an extractor of features that suits the space.

    Raises:
        TypeError: `net_arch` holds no layers, or an option that is a class is something else.
        ValueError: `use_sde` is true, a layer's size is impossible, or the features are not the
            observation itself, which is the state; or that is no `Box` and nobody says what of it
            the state is.
    """
    if check_flag("use_sde", use_sde):
        raise ValueError(
            "use_sde=True is not supported: the plan is no linear layer whose weights could "
            "be perturbed. Leave use_sde at False"
        )
    check_layers(options.get("net_arch"))
    for name, kind, example in SB3_CLASSES:
        value = options.get(name, kind)
        if isinstance(value, kind) or not callable(value):
            given = f"one of its objects, a {type(value).__name__}"
            raise TypeError(
                f"{name} must be a class, such as {example}, got "
                f"{given if isinstance(value, kind) else found(value)}: pass the class itself, "
                f"policy_kwargs=dict({name}={example})"
            )
    if state is None:
        box("observation_space", space)
    suited = CombinedExtractor if isinstance(space, spaces.Dict) else FlattenExtractor
    extractor = options.get("features_extractor_class", suited)
    if suited is CombinedExtractor and extractor is FlattenExtractor:
        extractor = suited  # SB3's default, which takes no dict
    is_extractor = isinstance(extractor, type) and issubclass(extractor, BaseFeaturesExtractor)
    if extractor is not suited and not (is_extractor and state is not None):
        raise ValueError(
            f"features_extractor_class must be {suited.__name__}, got {extractor}: the plan starts "
            "from the observation. With state=... it may be another of SB3's, for the critic"
        )
    return {**options, "features_extractor_class": extractor}


def _check_context(name: str, mpc: MPC, given: bool) -> None:
    """Refuse a model that needs more than the state, or less than is given.

    Raises:
        ValueError: its dynamics, cost or constraints take a context that nobody gives, or none.
    """
    parts = {name: getattr(mpc, name) for name in ("dynamics", "cost", "constraints")}
    taking = {
        name: each for name, each in parts.items() if each is not None and takes_context(each)
    }
    if given and not taking:
        raise ValueError(
            "state= must return states only: it returns a context too, and neither dynamics nor "
            f"cost of the model take one ({type(mpc.dynamics).__name__}, "
            f"{type(mpc.cost).__name__}): let it return the states, or give them a third argument"
        )
    for part, module in taking.items():
        # a policy has a network for the context of this cost
        if not given and not isinstance(module, ContextualCost):
            raise ValueError(
                f"mpc={name} returns an MPC whose {part}, {type(module).__name__}, wants a "
                "context, and a policy has none to give: say how it follows from an observation, "
                "with state= a function that returns states and context. Or let it take state and "
                "control only, with what is constant as a parameter or buffer of the module, and "
                "what changes as an entry of the state"
            )


def _pair(name: str, value: object) -> tuple[Any, Any]:
    """Two numbers or arrays as plain data.

    Raises:
        TypeError: it is something else.
        ValueError: there are not two.
    """
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a pair (low, high), got {found(value)}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair (low, high), got {found(value)}")
    low, high = (real_tensor(name, side, torch.float64).tolist() for side in value)
    return low, high


def check_layers(net_arch: object) -> None:
    """Refuse sizes of layers that no network can have.

    Args:
        net_arch: a list of sizes, or a dict of such lists, as SB3 takes it; None for its default.

    Raises:
        TypeError: it is none of these.
        ValueError: a size is no positive integer.
    """
    networks = net_arch.values() if isinstance(net_arch, Mapping) else [net_arch]
    for layers in networks:
        sizes = layers or ()
        if not isinstance(sizes, list | tuple) or not all(isinstance(n, Integral) for n in sizes):
            raise TypeError(
                "net_arch must be a list of layer sizes or a dict of such lists, got "
                f"{found(net_arch)}"
            )
        for size in sizes:
            check_size("net_arch", size)


def _split(learn: Learn) -> tuple[list[str], Learn]:
    """The additions in `learn`, and the rest of it; None where nothing is left."""
    if learn is None:
        return [], None
    if isinstance(learn, str):
        learn = (learn,)
    additions = [name for name in ADDITIONS if name in learn]
    if not additions:
        return [], learn
    if isinstance(learn, Mapping):
        named = {name: value for name, value in learn.items() if name not in ADDITIONS}
        return additions, named or None
    return additions, tuple(name for name in learn if name not in ADDITIONS) or None


def _add(mpc: MPC, additions: Sequence[str], n_state: int) -> None:
    """Keep what must be positive so, and wrap the cost, before the MPC is first used."""
    for module in (mpc.dynamics, mpc.cost):
        positive = set(positive_parameters(module))
        learned = {name for name, value in module.named_parameters() if value.requires_grad}
        for name in positive & learned:
            if not bool(module.get_parameter(name).any()):
                raise ValueError(
                    f"learn: {name} starts at zero and would stay there, as it is kept positive by "
                    "learning its logarithm. Start it at a small positive number, or leave it out"
                )
        mapped = module is mpc.cost and "cost_map" in additions
        if positive & learned or (positive and mapped):
            keep_positive(module)
    if "linear" in additions:
        mpc.cost = LinearCost(mpc.cost, n_state, mpc.n_ctrl)
    if "terminal" in additions:
        mpc.cost = TerminalCost(mpc.cost, mpc.horizon, n_state)
    if "cost_map" in additions:
        mpc.cost = ContextualCost(mpc.cost, n_state, mpc.n_ctrl)
