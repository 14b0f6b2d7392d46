"""What figures were computed on: the machine and the versions of what computes them."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

# What a run's numbers depend on.
COMPUTED_BY = ("torch", "numpy", "scipy", "scikit-learn", "numba", "llvmlite", "monai")
PACKAGES = (*COMPUTED_BY, "safetensors")


class Environment(TypedDict):
    """A machine and its software.

    `gpu` is None unless this process has used one.
    """

    python: str
    platform: str
    processor: str
    cpus: int | None
    gpu: str | None
    packages: dict[str, str]


def environment() -> Environment:
    """Return what this process computes on."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        cpus=os.cpu_count(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_initialized() else None,
        packages={name: version(name) for name in PACKAGES},
    )


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
