"""Prepare the machine for training: check the device, and keep freed memory."""

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
    """Keep blocks of memory up to 16 MB with this process when they are freed.

    glibc returns freed blocks to the system if they are larger than any block freed before, and gets them again page
    by page: 500 page faults per step, a third of its time, unless validation has freed a large block. Freeing one such
    block once is enough, even if nothing was written to it.
    """
    torch.empty(2**24, dtype=torch.uint8)
