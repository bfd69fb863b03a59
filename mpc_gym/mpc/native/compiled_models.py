"""The native models that one controller has compiled, and when the reference plans instead."""

from collections.abc import Callable, Hashable
from operator import is_
from typing import Any

import torch

from mpc_gym.compiled.errors import ImpureModule, ProgramTooLarge, UnsupportedOperation
from mpc_gym.compiled.watch import Watch, watched
from mpc_gym.functional import LOCK
from mpc_gym.messages import warn
from mpc_gym.mpc.native.backend import FallBack, Modules, NativeModel, Sizes, refuse


class CompiledModels:
    """The native models of one controller, made when they are first needed.

    They are traced anew when anything but the value of a parameter or floating-point buffer has
    changed in a module (see `compiled.watch`), and after copying or unpickling. The last few are
    kept.
    """

    _KEPT = 8

    def __init__(self) -> None:
        self._models: dict[Hashable, tuple[Watch, NativeModel | None]] = {}
        self._latest: tuple[Sizes, bool, Watch, NativeModel | None] | None = None
        self.compilations = 0
        self._warned_of_device = False
        self._said: set[str] = set()  # why the reference is used

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledModels, ()

    def model(
        self,
        modules: Modules,
        sizes: Sizes,
        device: torch.device,
        *,
        required: bool,
        check: Callable[[], Callable[[], object]],
    ) -> NativeModel | None:
        """The native model for `Sizes`, of its arguments; None where there can be none.

        `check` is called before modules are traced, and what it returns before they are compiled;
        both raise where they are at fault.

        Raises:
            UnsupportedOperation, ProgramTooLarge, ValueError: there can be none, but it is
                required.
            ImpureModule: a module is at fault, whatever is required.
        """
        if device.type != "cpu":
            if required:
                raise ValueError(
                    f"backend='native' computes on the CPU, but x_init is on {device}. Move it and "
                    "the modules there (of a policy: device='cpu')"
                )
            self._warn_of_device(device)
            return None
        latest = self._latest
        if latest is not None and latest[:2] == (sizes, required):
            watch, model = latest[2:]
            if all(map(is_, watch.modules, modules)) and watch.unchanged():
                return model
        with LOCK:
            return self._found(modules, sizes, required, check)

    def _found(
        self,
        modules: Modules,
        sizes: Sizes,
        required: bool,
        check: Callable[[], Callable[[], object]],
    ) -> NativeModel | None:
        try:
            watch = Watch(*modules)
        except UnsupportedOperation as error:  # too large to be compared at each call
            self._fall_back(required)("solving", error)
            return None
        key = self._key(watch, sizes, required)
        if key in self._models:
            model = self._models[key][1]
        else:
            check_traced = check()
            self._make_room()
            watch, model = _compiled(modules, sizes, self._fall_back(required), check_traced)
            key = self._key(watch, sizes, required)
        self._models[key] = watch, model
        self._latest = (sizes, required, watch, model)
        return model

    @staticmethod
    def _key(watch: Watch, sizes: Sizes, required: bool) -> Hashable:
        # a native model reads the parameters of these very parts
        return sizes, required, tuple(map(id, watch.parts)), watch.key

    def _fall_back(self, required: bool) -> FallBack:
        return refuse if required else self._warn_of_reference

    def _warn_of_reference(self, doing: str, reason: Exception) -> None:
        message = (
            f"{doing} with the slow PyTorch reference, which takes some hundred times as long as "
            f"native code, because {reason}. backend='native' makes this an error, backend='torch' "
            "does so without this warning"
        )
        if message not in self._said:
            self._said.add(message)
            warn(message)

    def _warn_of_device(self, device: torch.device) -> None:
        if not self._warned_of_device:
            self._warned_of_device = True
            warn(
                f"x_init is on {device}, and compiled code computes on the CPU: the PyTorch "
                "reference plans instead, hundreds of times slower. Move x_init and the modules "
                "to the CPU (of a policy: device='cpu'). (This is said once.)",
            )

    def _make_room(self) -> None:
        self.compilations += 1
        if len(self._models) == self._KEPT:
            del self._models[next(iter(self._models))]
        if self.compilations == 2 * self._KEPT:
            warn(
                f"the model was compiled {self.compilations} times, because attributes of the "
                "dynamics or the cost changed between calls; make what changes a buffer "
                "(register_buffer) or an nn.Parameter, which are read at each call",
            )


def _compiled(
    modules: Modules, sizes: Sizes, fall_back: FallBack, check: Callable[[], object]
) -> tuple[Watch, NativeModel | None]:
    try:
        return watched(
            lambda: NativeModel(modules, *sizes, fall_back=fall_back, check=check), modules
        )
    except ImpureModule:
        raise
    except (UnsupportedOperation, ProgramTooLarge) as error:
        fall_back("solving", error)
        return Watch(*modules), None
