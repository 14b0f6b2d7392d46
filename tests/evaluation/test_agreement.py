"""Agreement, divergence and the gap closed: closed forms, scipy as oracle, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import entropy

from qvit.errors import MetricError
from qvit.evaluation.agreement import agreement, divergence, gap_closed

Array = np.ndarray[Any, Any]

TASKS = ("binary", "multi-class", "multi-label", "ordinal")
COMPARISONS: tuple[Callable[..., float], ...] = (agreement, divergence)
SEEDS = st.integers(0, 2**32)


def make_scores(task: str, *, seed: int, images: int = 53, classes: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    if task == "multi-label":
        return rng.random((images, classes))
    return rng.dirichlet(np.full(2 if task == "binary" else classes, 0.3), images)


# --- agreement ---


def test_agreement_counts_equal_decisions() -> None:
    assert agreement([0.1, 0.6, 0.5, 0.9], [0.4, 0.4, 0.2, 1.0], "binary") == 0.75, "0.5 is decided as 0"
    assert agreement([[0.9, 0.1], [0.2, 0.8]], [0.3, 0.7], "binary") == 1.0, "two columns or one"
    three = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]]
    other = [[0.4, 0.3, 0.3], [0.8, 0.1, 0.1], [0.3, 0.6, 0.1]]
    assert agreement(three, other, "multi-class") == agreement(three, other, "ordinal") == pytest.approx(1 / 3)
    assert agreement([[0.9, 0.2, 0.6]], [[0.6, 0.1, 0.4]], "multi-label") == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=8, deadline=None)
@given(ours=SEEDS, theirs=SEEDS, images=st.integers(1, 41), classes=st.integers(2, 7))
def test_agreement_is_a_symmetrical_share(task: str, ours: int, theirs: int, images: int, classes: int) -> None:
    a, b = (make_scores(task, seed=seed, images=images, classes=classes) for seed in (ours, theirs))
    value = agreement(a, b, task)
    assert 0.0 <= value <= 1.0
    assert value == agreement(b, a, task)
    questions = images * (classes if task == "multi-label" else 1)
    assert value * questions == pytest.approx(round(value * questions))
    assert agreement(a, a, task) == 1.0


# --- divergence ---


def test_divergence_closed_forms() -> None:
    assert divergence([0.5], [1.0], "binary") == pytest.approx(math.log(2))
    assert divergence([1.0], [0.5], "binary") == pytest.approx(0.5 * math.log(0.25 / 1e-15), rel=1e-9)
    assert divergence([[0.25] * 4], [[0.0, 1.0, 0.0, 0.0]], "multi-class") == pytest.approx(math.log(4))
    assert divergence([[0.5, 0.25, 0.25]], [[0.25, 0.5, 0.25]], "ordinal") == pytest.approx(0.25 * math.log(2))
    assert divergence([[0.5, 0.3]], [[1.0, 0.3]], "multi-label") == pytest.approx(math.log(2) / 2), "mean over labels"
    assert divergence([0.5, 0.3], [1.0, 0.3], "binary") == pytest.approx(math.log(2) / 2), "mean over images"


def test_the_worst_is_finite() -> None:
    assert divergence([0.0], [1.0], "binary") == pytest.approx(-math.log(1e-15))
    assert divergence([[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]], "multi-class") == pytest.approx(-math.log(1e-15))


@pytest.mark.parametrize("seed", [0, 1])
def test_divergence_is_scipys(seed: int) -> None:
    for task in ("multi-class", "ordinal"):
        q, p = (make_scores(task, seed=s) for s in (seed, seed + 10))
        assert divergence(q, p, task) == pytest.approx(entropy(p, q, axis=1).mean(), rel=1e-9)
    q, p = (make_scores("multi-label", seed=s) for s in (seed, seed + 10))
    assert divergence(q, p, "multi-label") == pytest.approx((rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean())
    for form in (lambda scores: scores, lambda scores: scores[:, 1], lambda scores: scores[:, 1:]):
        q, p = (np.clip(make_scores("binary", seed=s), 1e-9, 1 - 1e-9) for s in (seed, seed + 10))
        assert divergence(form(q), form(p), "binary") == pytest.approx(entropy(p, q, axis=1).mean())


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=8, deadline=None)
@given(ours=SEEDS, theirs=SEEDS, images=st.integers(1, 41), classes=st.integers(2, 7), single=st.booleans())
def test_divergence_is_never_negative(
    task: str, ours: int, theirs: int, images: int, classes: int, single: bool
) -> None:
    a, b = (make_scores(task, seed=seed, images=images, classes=classes) for seed in (ours, theirs))
    if single:
        a, b = a.astype(np.float32), b.astype(np.float32)
    value = divergence(a, b, task)
    assert value >= 0.0
    assert (value > 0.0) == (ours != theirs)
    assert divergence(a, a, task) == 0.0
    # The same up to rounding is the same up to rounding, and not a little below.
    assert 0.0 <= divergence(np.round(a, 7), a, task) < 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_rounding_never_shows_as_a_negative_divergence(seed: int) -> None:
    scores = make_scores("multi-class", seed=seed, images=1)
    nudged = scores * (1 + 1e-16 * np.random.default_rng(seed).choice([-2, 2], scores.shape))
    assert 0.0 <= divergence(nudged, scores, "multi-class") < 1e-12


def test_rows_are_normalised_and_stray_scores_pulled_in() -> None:
    q, p = make_scores("multi-class", seed=3), make_scores("multi-class", seed=4)
    assert divergence(q * 1.0009, p * 0.9992, "multi-class") == pytest.approx(divergence(q, p, "multi-class"))
    assert divergence([-5e-7, 1 + 5e-7], [0.0, 1.0], "binary") == 0.0
    assert divergence([0.25, 0.75], [-5e-7, 1 + 5e-7], "binary") == pytest.approx(math.log(4 / 3))
    for bad, good, who in ((q * 1.01, p, "student"), (p, q * 0.99, "teacher")):
        with pytest.raises(
            MetricError,
            match=rf"multi-class tasks must sum to 1, but the {who}'s row \d+ sums to .*(softmax|Divide each row)",
        ):
            divergence(np.clip(bad, 0, 1), good, "multi-class")
    with pytest.raises(MetricError, match=r"student's row 2 sums to 0.8"):
        divergence([[0.5, 0.5], [0.6, 0.4], [0.5, 0.3]], [[0.5, 0.5]] * 3, "ordinal")


# --- refusals ---


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize(
    ("task", "student", "teacher", "message"),
    [
        ("multiclass", [[0.5, 0.5]], [[0.5, 0.5]], r"^Unknown task 'multiclass'.*Did you mean 'multi-class'"),
        ("binary", [0.1, 0.9], [0.1], r"came as \(2,\) and \(1,\). Predict the same split with both"),
        ("multi-class", [[0.5, 0.5]], [[0.2, 0.3, 0.5]], r"came as \(1, 2\) and \(1, 3\)"),
        ("multi-label", [[0.5, 0.5]], [[0.5]], r"came as \(1, 2\) and \(1, 1\)"),
        ("binary", [], [], "student's scores are not fit to compare. There are no images"),
        ("binary", [0.5], [], "teacher's scores are not fit to compare. There are no images"),
        ("binary", [2.5], [0.5], r"student's .*within \[0, 1\], .*never logits.*sigmoid"),
        ("ordinal", [[0.5, 0.5]], [[0.5, -3.5]], r"teacher's .*never logits. Apply a softmax"),
        ("multi-class", [[0.5, np.nan]], [[0.5, 0.5]], r"student's .*finite, but row 0"),
        ("multi-class", [0.5], [[0.5, 0.5]], r"student's .*C of at least 2, but came as \(1,\)"),
        ("binary", ["0.5"], [0.5], "student's .*must be real numbers"),
    ],
)
def test_wrong_input_is_refused(
    compare: Callable[..., float], task: str, student: Any, teacher: Any, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        compare(student, teacher, task)


# --- the gap closed ---


def test_gap_closed() -> None:
    assert gap_closed(0.70, 0.75, 0.80) == pytest.approx(0.5)
    assert gap_closed(0.7, 0.7, 0.8) == 0.0
    assert gap_closed(0.7, 0.8, 0.8) == 1.0
    assert gap_closed(0.70, 0.65, 0.80) == pytest.approx(-0.5), "distilling can do harm"
    assert gap_closed(0.70, 0.85, 0.80) == pytest.approx(1.5), "a student can surpass its teacher"
    assert gap_closed(0, 1, 4) == 0.25
    assert gap_closed(0.8, 0.9, 0.8) is None
    assert gap_closed(0.8, 0.75, 0.7) is None


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gap_needs_finite_values(place: int, value: float) -> None:
    values = [0.7, 0.75, 0.8]
    values[place] = value
    with pytest.raises(MetricError, match=f"three finite values, .*{value}"):
        gap_closed(*values)
