"""The parameters of a module as a vector that follows them."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn


class LiveParameters:
    """A module's parameters, then its floating-point buffers, as one float64 vector.

    It keeps views of the tensors' memory, so reading the values, at every step of an environment,
    takes a microsecond or two, and whatever changes a value is seen: an optimiser's step,
    `parameter.data.fill_(...)`, another tensor in its place. Tensors that are not in float64 on
    the CPU are converted at each reading, which is slower. A submodule that is exchanged for
    another is not seen.
    """

    def __init__(self, module: nn.Module) -> None:
        named = [("_parameters", name) for name, _ in module.named_parameters()]
        named += [("_buffers", k) for k, v in module.named_buffers() if v.is_floating_point()]
        self._places = [
            (getattr(module.get_submodule(prefix), kind), name, full)
            for kind, full in named
            for prefix, _, name in (full.rpartition("."),)
        ]
        self._addresses: list[int] = []
        self._views: list[NDArray[np.float64]] = []
        self._row = np.empty((1, len(self.names)))
        self._vector = self._row[0]

    @property
    def names(self) -> list[str]:
        """The dotted name of the tensor that each entry belongs to."""
        return [name for name, tensor in self.tensors().items() for _ in range(tensor.numel())]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their dotted names."""
        return {full: tensors[name] for tensors, name, full in self._places}

    def read(self) -> Float[NDArray[np.float64], "1 n"]:
        """The present values as one row, in an array that the next call writes over."""
        addresses = [tensors[name].data_ptr() for tensors, name, _ in self._places]
        if addresses != self._addresses:
            self._view_all(addresses)
        if self._views:
            np.concatenate(self._views, out=self._vector)
        return self._row

    def _view_all(self, addresses: list[int]) -> None:
        tensors = self.tensors().values()
        flat = [t.detach().cpu().double().contiguous().reshape(-1) for t in tensors]
        self._views = [t.numpy() for t in flat]
        # Where a view was impossible there is a copy, to be made again at the next reading.
        self._addresses = addresses if [t.data_ptr() for t in flat] == addresses else []
