"""Figures as text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qvit.evaluation.statistics import Interval
    from qvit.report.claims import Finding


def shown(interval: "Interval") -> str:
    """Return a value as text, with its interval if it has one."""
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def signed(finding: "Finding") -> str:
    """Return a difference as text, with its interval."""
    one = finding.comparison
    return f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]".replace("-", "−")


def p_value(p: float, *, sign: bool = False) -> str:
    """Return a p value as text; with `sign` it begins with a sign: "= 0.020" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{'= ' if sign else ''}{p:.3f}"
