"""Random images, and the same random numbers in every test."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qvit.models import ViTConfig


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def _images(config: ViTConfig, count: int = 5) -> Tensor:
    return torch.randint(0, 256, (count, config.in_chans, config.img_size, config.img_size), dtype=torch.uint8)


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    """`images(config, count)`: random bytes that fit a configuration."""
    return _images
