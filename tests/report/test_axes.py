"""Numbers on axes: plain, and enough of them for any range."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.report.axes import log_limits, log_ticks, plain


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_there_are_numbers_for_any_range(least: float, ratio: float) -> None:
    low, high = log_limits([least, least * ratio])
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 6
    assert all(low <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert ticks == sorted(ticks)
    assert len({plain(tick) for tick in ticks}) == len(ticks)


def test_numbers_are_plain() -> None:
    told = [plain(value) for value in (3, 2.5, 800, 1000.0, 12500, 99999.99999999999, 1e6, 1.5e6, 2e9)]
    assert told == ["3", "2.5", "800", "1,000", "12,500", "100,000", "1M", "1.5M", "2,000M"]
