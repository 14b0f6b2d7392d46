"""Forests: a row a question, a mark a dataset, and none that covers another."""

from itertools import pairwise
from typing import Any

import pytest

from qvit.report.arms import Results
from qvit.report.claims import families
from qvit.report.forest import MEAN, _style, forest
from report.made import TITLES

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.mark.long
def test_rows_of_a_forest_do_not_overlap(results: Results, drawn: list[Any]) -> None:
    names = {test.name: test.title for test in results.tests}
    for one in (one for one in families(results) if one.key in ("classical", "distillation")):
        forest(one.question, one.of("auc"), names)
    assert drawn
    for figure in drawn:
        figure.draw_without_rendering()
        boxes = sorted(
            (label.get_window_extent() for label in figure.axes[0].get_yticklabels()), key=lambda box: box.y0
        )
        assert all(below.y1 <= above.y0 + 0.5 for below, above in pairwise(boxes))


@pytest.mark.long
def test_a_forest_has_a_row_a_question(results: Results, drawn: list[Any]) -> None:
    """And in it a mark for each dataset, in a colour of its own, and one for their mean."""
    names = {test.name: test.title for test in results.tests}
    one = next(one for one in families(results) if one.mean("auc"))
    findings = [*one.of("auc"), *one.mean("auc")]
    questions = list(dict.fromkeys((f.a, f.b) for f in findings))
    assert len(findings) == 3 * len(questions), "or the case is of no use"
    forest(one.question, findings, names)
    [figure] = drawn
    [axes] = figure.axes
    assert [" ".join(label.get_text().split()) for label in axes.get_yticklabels()] == [
        f"{a} − {b}" for a, b in questions
    ]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == [f.comparison.difference for f in findings]
    for mark, finding in zip(marks, findings, strict=True):
        assert round(float(mark.get_ydata()[0])) == questions.index((finding.a, finding.b))
        assert (mark.get_markerfacecolor() != "white") == finding.shown
    styles = {(f.dataset, mark.get_color(), mark.get_marker()) for f, mark in zip(findings, marks, strict=True)}
    assert len(styles) == len({colour for _, colour, _ in styles}) == 3
    places = sorted(float(mark.get_ydata()[0]) * figure.get_figheight() / len(questions) for mark in marks)
    assert min(b - a for a, b in pairwise(places)) > 0.05, "none covers another"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Set A", TITLES["d"], MEAN]
    assert figure.get_figheight() < 1.3 + 0.6 * len(questions)


def test_a_forest_of_many_datasets_tells_them_apart() -> None:
    sets = [f"d{number}" for number in range(12)]
    assert len({_style([*sets, None], mark) for mark in range(13)}) == 13
