"""What all benchmarks promise."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def nobody_elses() -> Iterator[None]:
    """What is drawn for a measurement is nobody else's."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
