"""Random streams: fixed by seed and place alone."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from qvit.training.seeding import INIT, NOISE, ORDER, derive, generator, seeded


def test_places_have_streams_of_their_own() -> None:
    places = [(INIT,)] + [(kind, epoch) for kind in (ORDER, NOISE) for epoch in range(50)]
    seeds = {derive(seed, *place) for seed in range(20) for place in places}
    assert len(seeds) == 20 * len(places)


@given(seed=st.integers(0, 2**70), place=st.integers(0, 1000))
def test_same_place_same_stream(seed: int, place: int) -> None:
    assert 0 <= derive(seed, ORDER, place) < 2**63
    first, second = (torch.rand(3, generator=generator(seed, ORDER, place)) for _ in range(2))
    assert torch.equal(first, second)


def _draw(seed: int, *place: int) -> torch.Tensor:
    with seeded(seed, *place):
        return torch.rand(4)


def test_seeded_restores_what_was_before() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    inside = _draw(1, NOISE, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(inside, _draw(1, NOISE, 2))
    assert not torch.equal(inside, _draw(1, NOISE, 3))
    assert not torch.equal(inside, _draw(2, NOISE, 2))


def test_seeded_restores_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(1, NOISE):
        torch.rand(1 // 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeded_restores_after_ctrl_c_at_its_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    before = random.getstate(), torch.random.get_rng_state()

    def interrupted(seed: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np.random, "seed", interrupted)
    with pytest.raises(KeyboardInterrupt), seeded(1, NOISE):
        pass
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_places_and_seeds_never_meet() -> None:
    places = [(), (0,), (1,), (0, 0), (1, 0), (0, 1)]
    seeds = [0, 1, 2**32, 2**32 + 1, 2**40]
    assert len({derive(seed, *place) for seed in seeds for place in places}) == len(seeds) * len(places)


def test_all_global_generators_follow_seed_and_place() -> None:
    def draw(seed: int, *place: int) -> tuple[float, float, float]:
        with seeded(seed, *place, alone=False):
            return torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002

    first, again, other, elsewhere = draw(1, NOISE), draw(1, NOISE), draw(2, NOISE), draw(1, ORDER)
    assert first == again
    for one, another, third in zip(first, other, elsewhere, strict=True):
        assert len({one, another, third}) == 3


@pytest.mark.parametrize("dropout", [F.dropout, F.dropout2d])
def test_dropout_of_ones_own_generator_is_torchs(dropout: Callable[..., torch.Tensor]) -> None:
    """Bit for bit, at the edges of the rate, and in place; whole channels where torch drops these."""
    values = torch.arange(1.0, 121.0).reshape(2, 3, 4, 5)
    for p in (0.0, 0.3, 1.0):
        with seeded(3, NOISE):
            own, plain = dropout(values, p), dropout(values, p, False)
        with seeded(3, NOISE, alone=False):
            theirs = dropout(values, p)
        assert torch.equal(own, theirs)
        assert torch.equal(plain, values)
    with seeded(3, NOISE):
        kept = dropout(values, 0.3) != 0
        other = values.clone()
        assert dropout(other, 0.3, inplace=True) is other
    assert 0 < kept.sum() < kept.numel()
    assert not torch.equal(other, values)
