"""Schedules: the same as torch's, bounded, continuous."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qvit.training.schedules import SCHEDULES, START, constant, one_cycle, warmup_cosine

NAMES = pytest.mark.parametrize("name", sorted(SCHEDULES))


def _torch_one_cycle(total: int, warmup: float, peak: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=total, pct_start=warmup, anneal_strategy="cos"
    )
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(rates) < total:
            scheduler.step()
    return rates


@pytest.mark.parametrize(("total", "warmup"), [(1000, 0.3), (999, 0.25), (64, 0.5)])
def test_one_cycle_is_torchs(total: int, warmup: float) -> None:
    """Torch rises over w·T - 1 steps and falls over the rest to its last; we rise over w·T and fall over T - w·T."""
    theirs = _torch_one_cycle(total, warmup, 1.0)
    rise = warmup * total - 1
    for step, rate in enumerate(theirs):
        # the progress at which ours has gone the same part of its way up or down
        fall = warmup + (1 - warmup) * (step - rise) / (total - 1 - rise)
        progress = warmup * step / rise if step <= rise else fall
        assert one_cycle(progress, warmup) == pytest.approx(rate, abs=1e-12)
        # and step by step the two differ by no more than the one step they count differently
        assert one_cycle(step / total, warmup) == pytest.approx(rate, abs=math.pi / total / min(warmup, 1 - warmup))


def test_endpoints() -> None:
    assert one_cycle(0.0, 0.3) == pytest.approx(1 / 25)
    assert one_cycle(0.3, 0.3) == pytest.approx(1.0)
    assert one_cycle(1.0, 0.3) == pytest.approx(4e-6)
    assert one_cycle(0.65, 0.3) == pytest.approx((1 + 4e-6) / 2)
    assert warmup_cosine(0.0, 0.2) == pytest.approx(1 / 25)
    assert warmup_cosine(0.1, 0.2) == pytest.approx((1 / 25 + 1) / 2)
    assert warmup_cosine(0.2, 0.2) == pytest.approx(1.0)
    assert warmup_cosine(0.6, 0.2) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.2) == pytest.approx(0.0)
    assert constant(0.0, 0.2) == pytest.approx(1 / 25)
    assert constant(0.1, 0.2) == pytest.approx((1 / 25 + 1) / 2)
    assert constant(0.2, 0.2) == constant(0.9, 0.2) == 1.0


@NAMES
def test_without_warmup_starts_at_the_peak(name: str) -> None:
    assert SCHEDULES[name](0.0, 0.0) == pytest.approx(1.0)


@NAMES
@given(part=st.floats(0.0, 1.0), warmup=st.floats(0.01, 0.99))
def test_no_step_of_the_warmup_is_lost(name: str, part: float, warmup: float) -> None:
    assert SCHEDULES[name](part * warmup, warmup) >= START - 1e-12
    assert SCHEDULES[name](0.0, warmup) == pytest.approx(START)


@NAMES
@given(progress=st.floats(0.0, 1.0), warmup=st.floats(0.0, 0.99))
def test_stays_between_zero_and_the_peak(name: str, progress: float, warmup: float) -> None:
    assert -1e-12 <= SCHEDULES[name](progress, warmup) <= 1.0 + 1e-12


@NAMES
@given(progress=st.floats(0.0, 0.999), warmup=st.floats(0.05, 0.95))
def test_is_continuous(name: str, progress: float, warmup: float) -> None:
    jump = abs(SCHEDULES[name](progress + 1e-6, warmup) - SCHEDULES[name](progress, warmup))
    assert jump < 1e-6 * math.pi / min(warmup, 1 - warmup)


@NAMES
@given(first=st.floats(0.0, 1.0), second=st.floats(0.0, 1.0), warmup=st.floats(0.05, 0.95))
def test_rises_then_never_rises_again(name: str, first: float, second: float, warmup: float) -> None:
    early, late = sorted((first, second))
    values = SCHEDULES[name](early, warmup), SCHEDULES[name](late, warmup)
    if late <= warmup:
        assert values[0] <= values[1] + 1e-12
    elif early >= warmup:
        assert values[0] >= values[1] - 1e-12
