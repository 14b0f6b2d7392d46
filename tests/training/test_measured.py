"""All measures of what was predicted, over images and over groups."""

import numpy as np
import pytest

from qvit.evaluation.metrics import evaluate
from qvit.training.measured import Predicted, measure

RNG = np.random.default_rng(0)


def predicted(groups: list[str] | None, labels: list[int]) -> Predicted:
    scores = RNG.dirichlet(np.ones(3), len(labels))
    named = None if groups is None else np.array(groups)
    return Predicted("multi-class", ("a", "b", "c"), np.array(labels)[:, None], scores, named)


def test_groups_are_measured_by_the_means_of_their_scores() -> None:
    given = predicted(["q", "p", "q", "r", "s", "s", "s", "t"], [0, 1, 0, 2, 1, 1, 1, 0])
    found = measure(given)
    means = np.stack([given.scores[[k for k in range(8) if given.groups[k] == name]].mean(0) for name in "pqrst"])
    expected = evaluate(np.array([1, 0, 2, 1, 0]), means, "multi-class")
    assert (found.groups, found.mixed) == (5, 0)
    assert found.by_group is not None
    for name, value in expected.items():
        assert getattr(found.by_group, name) == pytest.approx(value), name
    assert found.figures.auc == pytest.approx(evaluate(given.labels, given.scores, "multi-class")["auc"])
    assert found.predicted is given


@pytest.mark.filterwarnings("ignore::qvit.evaluation.AbsentClassWarning")
def test_groups_of_different_labels_are_left_out() -> None:
    found = measure(predicted(["p", "p", "q", "q", "r"], [0, 1, 2, 2, 1]))
    assert (found.groups, found.mixed) == (2, 1)
    assert found.by_group is not None
    found = measure(predicted(["p", "p", "q", "q"], [0, 1, 2, 2]))
    assert (found.groups, found.mixed, found.by_group) == (1, 1, None), "one group alone has no AUC"
    found = measure(predicted(["p", "p"], [0, 1]))
    assert (found.groups, found.mixed, found.by_group) == (0, 1, None)


def test_without_groups_there_is_nothing_of_them() -> None:
    found = measure(predicted(None, [0, 1, 2]))
    assert (found.groups, found.mixed, found.by_group) == (None, 0, None)
