"""The parameters of modules: the inputs of their programs beside state, control and context.

Inputs are all parameters, then all floating-point buffers of a module, in its own order. Their
values are those of the time of a call; what else a program depends on is watched (`watch.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mpc_gym.models.base import per_stage_parameters

Floats: TypeAlias = "npt.NDArray[np.float64]"
Name = TypeVar("Name")

_dtype_of = attrgetter("dtype")
_OF_NUMPY = frozenset({torch.float64, torch.float32, torch.float16})


def numeric_parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters, then its floating-point buffers, by dotted name."""
    buffers = {k: v for k, v in module.named_buffers() if v.is_floating_point()}
    return {**dict(module.named_parameters()), **buffers}


def per_stage_names(module: nn.Module, values: Collection[str]) -> frozenset[str]:
    """Those of a module's parameters and buffers that have a leading time axis; see `trace`."""
    declared = {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name in per_stage_parameters(part)
    }
    return frozenset(name for name in values if parametrised_name(name) in declared)


def parametrised_name(name: str) -> str:
    """The parameter that a tensor belongs to: itself, or what it is a parametrisation of."""
    path, parametrisation, rest = f".{name}".rpartition(".parametrizations.")
    return f"{path}.{rest.partition('.')[0]}".lstrip(".") if parametrisation else name


def unflatten(
    flat: npt.NDArray[Any], shapes: Mapping[Name, tuple[int, ...]]
) -> dict[Name, npt.NDArray[Any]]:
    """A vector [..., n] cut into arrays [..., *shape] of these shapes, in order."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()], dtype=int)
    parts = np.split(flat, ends[:-1], -1) if len(ends) else []
    batch = flat.shape[:-1]
    return {k: p.reshape((*batch, *shapes[k])) for k, p in zip(shapes, parts, strict=True)}


class _Viewed(NamedTuple):
    layout: list[Any]
    arrays: list[npt.NDArray[Any]]
    flat: list[npt.NDArray[Any]]  # views of them; empty where there are none


class LiveTensors:
    """Tensors of modules as arrays that follow them.

    It keeps views of their memory, so that reading takes a microsecond or two, and whatever changes
    a value is seen: an optimiser's step, `parameter.data.fill_(...)`, another tensor in its place.
    Where one is not on the CPU, or in a dtype that NumPy lacks, all are converted at each reading,
    which is slower. A submodule that is exchanged for another is not seen.

    Args:
        names: modules, and the dotted names of tensors in them.

    Attributes:
        names: those of the tensors.
    """

    def __init__(self, names: Iterable[tuple[nn.Module, str]]) -> None:
        self.names: list[str] = []
        self._places: list[tuple[dict[str, Any], str]] = []
        for module, name in names:
            owner, _, key = name.rpartition(".")
            part = module.get_submodule(owner)
            table = part._parameters if key in part._parameters else part._buffers
            self._places.append((table, key))
            self.names.append(name)
        self._viewed: _Viewed | None = None

    def tensors(self) -> list[Tensor]:
        """The tensors themselves."""
        return [table[key] for table, key in self._places]

    def arrays(self) -> list[npt.NDArray[Any]]:
        """The present values, in the tensors' shapes and dtypes; not to be written to."""
        return self._present().arrays

    def vector(self) -> Floats:
        """The present values one after the other."""
        viewed = self._present()
        # a view where it can be; faster than to let NumPy flatten them
        flat = viewed.flat or [array.ravel() for array in viewed.arrays]
        return np.concatenate(flat, dtype=np.float64) if flat else np.empty(0)

    def _present(self) -> _Viewed:
        tensors = self.tensors()
        # maps of methods, for a loop in Python takes twice as long
        layout = [*map(Tensor.data_ptr, tensors), *map(Tensor.stride, tensors)]
        layout += map(_dtype_of, tensors)
        viewed = self._viewed  # read once: another thread may replace it
        if viewed is not None and viewed.layout == layout:
            return viewed
        tensors = [tensor.detach() for tensor in tensors]
        shared = all(each.device.type == "cpu" and each.dtype in _OF_NUMPY for each in tensors)
        arrays = [(each if shared else each.cpu().double()).numpy() for each in tensors]
        views = shared and all(array.flags.c_contiguous for array in arrays)
        flat = [array.reshape(-1) for array in arrays] if views else []
        viewed = _Viewed(layout, arrays, flat)
        self._viewed = viewed if shared else None
        return viewed
