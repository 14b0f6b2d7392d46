"""Parts of a call are shared among threads where it pays, and all are done."""

from typing import Any

import pytest
import torch

from qvit.cpu import parts as parts_module


@pytest.fixture
def two_threads() -> Any:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_parts_are_shared_among_threads_if_it_pays() -> None:
    def calls(parts: int, work: float) -> list[tuple[int, int]]:
        made: list[tuple[int, int]] = []
        parts_module.in_parts(lambda first, last: made.append((first, last)), parts, work)
        return sorted(made)

    assert calls(7, 1e9) == [(0, 3), (3, 7)]
    assert calls(7, 1e3) == [(0, 7)]
    assert calls(1, 1e9) == [(0, 1)]
    torch.set_num_threads(1)
    assert calls(7, 1e9) == [(0, 7)]
