"""What a trace may see: sizes that are numbers, and arrays that are tensors made before it began.

torch.compile and a strict torch.export take a NumPy array that they meet for a placeholder whose memory is never
written, so an array must not be read while they look on; a tensor made before is a constant to them. Everything else
(export without `strict`, fake tensors, torch.jit.trace) wants the tensor to be made where it is used.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes


def traced() -> bool:
    """Return whether this call becomes a program for other batch sizes too."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """Return a shape that may be compared and computed with; torch.jit.trace would warn, and record each step."""
    state = None if torch.compiler.is_compiling() else torch._C._get_tracing_state()
    if state is None:
        return tensor.shape
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return tuple(tensor.shape)
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that never changes, its tensor, and its number of rows (reading the array for that would be reading)."""

    array: np.ndarray
    rows: int = field(init=False)
    _made_before: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", len(self.array))
        with _disable_current_modes(), torch.inference_mode(mode=False):  # it outlives what is going on now
            object.__setattr__(self, "_made_before", torch.from_numpy(self.array))

    def tensor(self) -> Tensor:
        """Return a tensor on the CPU that shares the array's memory."""
        return self._made_before if torch.compiler.is_dynamo_compiling() else torch.from_numpy(self.array)
