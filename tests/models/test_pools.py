"""Pooling: vectors of all tokens, against NumPy."""

import numpy as np
import pytest
import torch

from qvit.errors import ModelError
from qvit.models.pools import POOLS, AttentionPool, check_pool


@pytest.mark.parametrize("name", [name for name in POOLS if name != "attention"])
def test_tokens_are_pooled_as_by_hand(name: str) -> None:
    tokens = torch.randn(2, 3, 5, 4)
    numbers = tokens.numpy()
    mean, largest = numbers.mean(2), numbers.max(2)
    expected = {
        "mean": [mean],
        "max": [largest],
        "meanmax": [mean, largest],
        "all": [mean, numbers.std(2), largest, numbers.min(2)],
        "cls": [numbers[:, :, 0]],
    }[name]
    pool = POOLS[name]
    assert pool.vectors == len(expected)
    assert pool.function is not None
    np.testing.assert_allclose(pool.function(tokens), np.concatenate(expected, axis=-1), atol=1e-6)


def test_equal_tokens_have_slopes() -> None:
    tokens = torch.ones(1, 5, 4, requires_grad=True)
    assert POOLS["all"].function is not None
    POOLS["all"].function(tokens).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


def test_attention_begins_as_the_mean_and_can_look_at_one_token() -> None:
    tokens = torch.randn(3, 5, 4)
    pool = AttentionPool(4)
    torch.testing.assert_close(pool(tokens), tokens.mean(1))
    with torch.no_grad():
        pool.query.copy_(torch.tensor([60.0, 0.0, 0.0, 0.0]))
    tokens[:, 2, 0] = 9.0
    torch.testing.assert_close(pool(tokens), tokens[:, 2])


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"pool must be 'mean', 'max', 'meanmax', 'all', 'cls' or 'attention', got 'm'"
    ):
        check_pool("m")
