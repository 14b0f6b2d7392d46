"""Mixtures of images of a batch: their pixels, who is mixed with whom, and by what shares."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from qvit.data.mixup import LEAST, MOST, mix, random_partners


def images_of(b: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (b, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_means_by_shares_rounded_to_bytes() -> None:
    images, others = images_of(40), images_of(40, seed=1)
    shares = torch.rand(40, generator=torch.Generator().manual_seed(0))
    found = mix(images, others, shares)
    for one, other, share, mixed in zip(images.numpy(), others.numpy(), shares.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(mixed, float(share) * one + (1.0 - float(share)) * other, atol=0.5001)
    assert found.dtype == torch.uint8


def test_what_is_not_mixed_stays_as_it_is() -> None:
    images, others = images_of(9), images_of(9, seed=1)
    assert torch.equal(mix(images, others, torch.ones(9)), images)
    assert torch.equal(mix(images, others, torch.zeros(9)), others)
    shares = torch.rand(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix(images, images, shares), images)
    assert mix(images[:0], others[:0], shares[:0]).shape == (0, 3, 5, 7)


def test_no_bit_depends_on_the_other_images() -> None:
    images, others = images_of(21), images_of(21, seed=1)
    shares = torch.rand(21, generator=torch.Generator().manual_seed(0))
    together = mix(images, others, shares)
    for part in (slice(0, 1), slice(3, 11), slice(20, 21)):
        assert torch.equal(mix(images[part], others[part], shares[part]), together[part])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_draws(alpha: float) -> None:
    """Partners are a permutation, each the same chance; shares have the distribution that is asked for."""
    order = torch.Generator().manual_seed(5)
    drawn = [random_partners(8, alpha, order) for _ in range(500)]
    assert all(partners.sort().values.tolist() == list(range(8)) for partners, _ in drawn)
    counts = torch.stack([partners for partners, _ in drawn])
    for place in range(8):
        assert stats.chisquare(counts[:, place].bincount(minlength=8).numpy()).pvalue > 0.001
    shares = torch.cat([own for _, own in drawn]).numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(shares[1:], shares[:-1])[0, 1]) < 4.0 / np.sqrt(len(shares))


def test_the_same_generator_draws_the_same_and_off_draws_nothing() -> None:
    first, second = (random_partners(6, 0.3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(map(torch.equal, first, second))
    order = torch.Generator().manual_seed(1)
    before = order.get_state()
    partners, shares = random_partners(6, 0.0, order)
    assert (partners.tolist(), shares.tolist()) == (list(range(6)), [1.0] * 6)
    assert torch.equal(order.get_state(), before)
    assert random_partners(1, 0.3, order)[0].tolist() == [0], "alone with itself"


def test_shares_are_numbers_at_the_ends_of_what_may_be_asked_for() -> None:
    for alpha in (LEAST, MOST):
        _, shares = random_partners(1000, alpha, torch.Generator().manual_seed(0))
        assert ((shares >= 0.0) & (shares <= 1.0)).all()
        assert abs(shares.mean() - 0.5) < 0.07
