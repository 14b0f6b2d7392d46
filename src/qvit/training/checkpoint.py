"""The state of a run on disk."""

import io
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from qvit.errors import RunError
from qvit.files import write_atomic
from qvit.training.loop import TrainState
from qvit.training.saved import check_tensors


def save_state(path: Path, state: TrainState) -> None:
    """Write all that a run needs to go on, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({field: getattr(state, field) for field in TrainState.__dataclass_fields__}, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> TrainState:
    """Read what `save_state` wrote; raises `RunError` for a damaged file."""
    try:
        return TrainState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise RunError(
            f"{path} cannot be read as a training state ({type(error).__name__}). It is left untouched; "
            "delete it to start this run again from its first epoch."
        ) from error


def save_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write weights as safetensors; raises `ModelError` for what is no plain tensor.

    Tensors that share memory, as tied weights do, are written each for itself.
    """
    check_tensors(weights)
    apart = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    write_atomic(path, safetensors.torch.save(apart))


def load_weights(path: Path) -> dict[str, Any]:
    """Read weights from safetensors; raises `RunError` for a missing or damaged file."""
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read as weights ({error}); train the run again.") from error
