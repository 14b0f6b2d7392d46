"""Write and read the state and the weights of a run."""

import io
import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from qvit.documents import one_line
from qvit.errors import FileError, ModelError, RunError
from qvit.files import open_regular, remedy, write_atomic
from qvit.models.baselines import BaselineConfig, check_arrays
from qvit.models.vit import ViTConfig
from qvit.models.zoo import ModelConfig, build_without_numbers
from qvit.training.records import Best, EpochRecord, lines_of
from qvit.training.saved import check_tensors, is_plain
from qvit.training.state import TrainState
from qvit.training.stored import EpochLine, checked


class _Numbers:
    """Tensors laid end to end, those of one type in one, as torch takes 25 µs for each that it writes."""

    def __init__(self) -> None:
        self._parts: dict[str, list[torch.Tensor]] = {}
        self._lengths: dict[str, int] = {}

    def put(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Lay down plain tensors; return for each a text that says where: type, first place, shape."""
        return {name: self._put(value) if is_plain(value) else value for name, value in weights.items()}

    def _put(self, tensor: torch.Tensor) -> str:
        kind = str(tensor.dtype).removeprefix("torch.")
        start = self._lengths.get(kind, 0)
        self._lengths[kind] = start + tensor.numel()
        self._parts.setdefault(kind, []).append(tensor.detach().cpu().reshape(-1))
        return " ".join(map(str, (kind, start, *tensor.shape)))

    def joined(self) -> dict[str, torch.Tensor]:
        """Return all tensors, by their type."""
        return {kind: torch.cat(parts) for kind, parts in self._parts.items()}


def _taken(weights: dict[str, Any], numbers: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return what `_Numbers.put` was given; tensors that stand in the weights themselves, as they once did, stay."""

    def find(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, *places = value.split(" ")
        start, *shape = map(int, places)
        return numbers[kind][start : start + math.prod(shape)].view(shape)

    return {name: find(value) for name, value in weights.items()}


def save_state(path: Path, state: TrainState) -> None:
    """Write everything that a run needs to be resumed, whole or not at all."""
    assert state.best is not None, "there is a best epoch after the first"
    numbers, buffer = _Numbers(), io.BytesIO()
    model, best = numbers.put(state.model), state.best
    slopes = {number: numbers.put(values) for number, values in state.optimizer["state"].items()}
    values = {
        "epoch": state.epoch,
        "model": model,
        "objective": numbers.put(state.objective),
        "optimizer": state.optimizer | {"state": slopes},
        "best": vars(best.record) | {"model": model if best.model is state.model else numbers.put(best.model)},
        "history": lines_of(state.history),
        "seconds": state.seconds,
        "numbers": numbers.joined(),
    }
    torch.save(values, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> TrainState:
    """Read what `save_state` wrote; raises `RunError` for a damaged file. Nothing but tensors and values is loaded."""
    try:
        with open_regular(path) as file:
            return _state(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        told = one_line(error) if isinstance(error, FileError) else type(error).__name__  # torch's messages fill a page
        raise RunError(
            f"{path} cannot be read as a training state ({told}). It is left untouched; "
            f"{remedy(error, 'delete it to start this run again from its first epoch')}."
        ) from error


def _state(found: Any) -> TrainState:
    """Return the state that was found, checked as far as possible without a model; raises any error if it is none."""
    numbers, lines = found.pop("numbers", {}), found["history"]
    lines = map(json.loads, lines.splitlines()) if isinstance(lines, str) else lines
    history = [_record(line, f"epoch {number}") for number, line in enumerate(lines, 1)]
    kept = {key: value for key, value in found["best"].items() if key != "model"}
    best = Best(_record(kept, "the best epoch"), _taken(found["best"]["model"], numbers))
    learned = {name: _taken(found[name], numbers) for name in ("model", "objective") if name in found}
    slopes = {number: _taken(values, numbers) for number, values in found["optimizer"]["state"].items()}
    learned["optimizer"] = found["optimizer"] | {"state": slopes}
    state = TrainState(**found | learned | {"history": history, "best": best})
    if not isinstance(state.epoch, int) or not state.epoch == len(history) == len(state.seconds) > 0:
        raise ValueError("its epochs are not as many as their records")
    if [record.epoch for record in history] != list(range(1, state.epoch + 1)):
        raise ValueError("an epoch is missing")
    for weights in (state.model, best.model, state.objective):
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()):
            raise ValueError("weights that are no tensors")
    if not all(isinstance(seconds, float) and 0.0 <= seconds < math.inf for seconds in state.seconds):
        raise ValueError("seconds that are no time")
    return state


def _record(found: Any, what: str) -> EpochRecord:
    return EpochRecord.of(dict(checked(found, EpochLine, what)))


def save_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write weights as safetensors; raises `ModelError` for anything but plain tensors.

    Tensors that share memory, as tied weights do, are written separately.
    """
    check_tensors(weights)
    apart = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    write_atomic(path, safetensors.torch.save(apart))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights from safetensors; raises `RunError` for a missing or damaged file."""
    try:
        with open_regular(path) as file:
            return safetensors.torch.load(file.read())
    except Exception as error:  # also for types that torch does not have
        advice = remedy(error, "train the run again")
        raise RunError(
            f"{path} cannot be read as weights ({one_line(error) or type(error).__name__}); {advice}."
        ) from error


def check_weights(weights: dict[str, torch.Tensor], architecture: ModelConfig) -> None:
    """Raise `RuntimeError` unless weights are those of a model: the same names, shapes and types.

    Weights are counted before anything is built, and the model is then built without numbers. So the time and memory
    are those of the weights, whatever sizes the architecture claims. The arrays of a plain baseline have any length,
    so what they say is looked at as well.
    """
    count = sum(value.numel() for value in weights.values())
    if isinstance(architecture, BaselineConfig):
        try:
            check_arrays(weights, architecture)
        except ModelError as error:
            raise RuntimeError(str(error)) from error
        return
    if isinstance(architecture, ViTConfig) and count < architecture.weights_without_circuits:
        raise RuntimeError("fewer weights than such a model has")
    if _shapes(weights) != _shapes(build_without_numbers(architecture).state_dict()):
        raise RuntimeError("other weights than such a model has")


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (value.dtype, value.shape) for name, value in weights.items()}
