"""What the machine has to give before training begins: a device that torch can use, and memory that stays."""

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


def reuse_memory() -> None:
    """Have blocks of memory up to 16 MB stay with this process when they are freed.

    glibc hands blocks larger than any that was freed before back to the system, and gets them again page by page:
    500 page faults per step, a third of its time, unless validation has freed one. To free a block of that size once is
    enough, even if nothing was written to it.
    """
    torch.empty(2**24, dtype=torch.uint8)
