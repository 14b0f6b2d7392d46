"""Numbers as text."""

from qvit.evaluation.statistics import Interval
from qvit.report.words import p_value, shown


def test_numbers_as_text() -> None:
    assert shown(Interval(0.12345, 0.1, 0.2, 0.95)) == "0.123 [0.100, 0.200]"
    assert shown(Interval(0.5, None, None, 0.95)) == "0.500"
    assert shown(Interval(0.5, 0.0, 1.0, 0.95)) == "0.500 [0.000, 1.000]"
    assert [p_value(p) for p in (0.0, 0.00099, 0.001, 0.04999, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.001",
        "0.050",
        "1.000",
    ]
