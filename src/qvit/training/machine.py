"""Check the machine before training."""

import torch

from qvit.errors import ConfigError


def check_device(name: str) -> None:
    """Raise `ConfigError` unless torch can compute on the device of this name on this machine."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device='{name}' cannot be used here: {reason} Use cpu, or cuda where there is one."
        ) from error
