"""Arithmetic is checked on few images, which tests and intervals otherwise refuse."""

import pytest

from qvit.evaluation import sampled


@pytest.fixture
def few_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of images is enough."""
    monkeypatch.setattr(sampled, "FEWEST_OF_A_CLASS", 0)
    monkeypatch.setattr(sampled, "FEWEST_IN_ALL", 0)
