"""What figures were measured on."""

import platform
from typing import Any

import numpy as np
import torch

from qvit.training.record import processor


def machine() -> dict[str, Any]:
    """Return what a figure was measured on."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
