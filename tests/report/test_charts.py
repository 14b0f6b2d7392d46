"""Charts: whole texts, axes with numbers, and alternatives that tell what is shown."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from qvit.report import charts
from qvit.report.arms import Results, load_results
from qvit.report.claims import families
from qvit.report.drawing import drawing
from qvit.report.forest import forest
from report.made import TITLES, MakeStudy, every_chart, outside, with_parameters

pytestmark = pytest.mark.usefixtures("few_resamples")
LONG = "a model that somebody has given a rather long name so that all who read it know what it is"


@pytest.mark.long
@pytest.mark.parametrize("names", ["short", "long"])
def test_no_text_is_cut_off(make_study: MakeStudy, drawn: list[Any], names: str) -> None:
    text = (
        "datasets: retinamnist\n"  # where published models are drawn, too
        "models: [qvit_4q1h, vit_4q1h_matched, {name: no_entangler_4q1h, label: three}, "
        "{kind: qvit, qubits: 4, heads: 1, layers: 2}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    more: dict[str, Any] = {}
    if names == "long":
        text = text.replace("kd:", "knowledge_distillation_from_an_ensemble:").replace("three", LONG)
        text = text.replace("datasets: retinamnist", "datasets: [a.npz, b.npz]")
        more["titles"] = {"a": "A collection of photographs with quite a long title, of many words and a half"}
        more["classes"] = {"a": ["no retinopathy to be seen at all", "x", "a" * 40]}
    strength = {"qvit": 2.0, "vit_matched": 0.7}
    folder = make_study(text, skill=lambda job: strength.get(job.model.kind, 1.2) + 0.4 * bool(job.teachers), **more)
    every_chart(load_results(folder))
    assert len(drawn) > 10
    assert {text for figure in drawn for text in outside(figure)} == set()


def test_text_that_is_cut_off_would_be_found() -> None:
    with drawing(2.0) as (figure, axes):
        axes.set_xlabel("x" * 200)
        assert outside(figure) == ["x" * 200]


@pytest.mark.long
@pytest.mark.parametrize(
    ("least", "ratio"),
    [(793.0, 1.0), (9800.0, 1.1), (1200.0, 2.0), (793.0, 5.0), (9800.0, 30.0), (1200.0, 1000.0), (793.0, 1e6)],
)
def test_axes_have_numbers(results: Results, drawn: list[Any], ratio: float, least: float) -> None:
    """However little or much the sizes of models differ."""
    changed = with_parameters(results, [least, least * ratio])
    charts.parameters_chart(changed, changed.tests[0], "auc")
    [axes] = drawn[0].axes
    low, high = axes.get_xlim()
    assert low < least
    assert least * ratio < high
    labels = {tick.get_loc(): tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high}
    assert 3 <= len(labels) <= 6
    for place, label in labels.items():
        value = float(label.get_text().replace(",", "").replace("M", "e6"))
        assert value == pytest.approx(place)
    drawn[0].draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels.values()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), "none runs into the next"
    assert outside(drawn[0]) == []


@pytest.mark.long
def test_every_chart_has_a_title(results: Results) -> None:
    titles = [chart.title for chart in every_chart(results)]
    other = "Set <D> & 'so' on"
    assert titles == [
        *(f"{name}: {metric} against parameters" for name in ("Set A", other) for metric in ("AUC", "ACC")),
        "QViT minus each control",
        "Is a quantum vision transformer better than a classical one of the same parameter count?",
        "Gain from a teacher against model size",
        "What is pre-training on a teacher worth?",
        "Are two heads better than one?",
        "Are more qubits better?",
        "Are more circuit layers better?",
        *("Set A: ROC curves", "Set A: calibration", "Set A: learning curves"),
        "Set A: decisions of qvit_4q1h, in % of each true class",
        "Set A: decisions of qvit_4q1h, kd, in % of each true class",
        *(f"{other}: ROC curves", f"{other}: calibration", f"{other}: learning curves"),
        "Mean ranks over datasets",
    ]


@pytest.mark.long
def test_alternatives_hold_the_figures(results: Results) -> None:
    """Whoever does not see a picture is told what it shows."""
    test, arm = results.tests[0], results.arms[0]
    cell = results.cell(test, arm)
    assert cell is not None
    value = f"{cell.intervals['auc'].value:.3f}"
    assert f"{arm.title} {value}" in charts.roc_chart(test, [cell]).alt
    assert f"{arm.title} {cell.parameters:,} parameters {value}" in charts.parameters_chart(results, test, "auc").alt
    first = test.labels[:, 0] == 0
    right = 100 * np.mean([(scores[first].argmax(axis=1) == 0).mean() for scores in cell.scores])
    confusion = charts.confusion_chart(cell)
    assert confusion.alt.startswith(f"{confusion.title}: of {test.classes[0]} {right:.0f} % are recognised; of ")
    [classical] = [one for one in families(results) if one.key == "classical"]
    findings = classical.of("auc")
    alt = forest("T", findings, {test.name: test.title for test in results.tests}).alt
    for finding in findings:
        title = {"a": "Set A", "d": TITLES["d"]}[finding.dataset or ""]
        one = finding.comparison
        assert f"{finding.a} − {finding.b}, {title}: {one.difference:+.3f} from {one.low:+.3f}" in alt
        assert finding.verdict in alt


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_as_many_kinds_as_there_are(make_study: MakeStudy) -> None:
    """Colours and markers are used again."""
    text = (
        "datasets: b.npz\nmodels: {kind: [qvit, vit, cosine, identity, no_entangler, frozen, givens, circulant, unlu], "
        "heads: 1}\nteachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    assert len(every_chart(load_results(make_study(text, images=12)))) > 5


def test_an_interval_that_begins_at_zero_is_drawn_whole(make_study: MakeStudy, drawn: list[Any]) -> None:
    found = load_results(make_study("datasets: b.npz\nmodels: qvit_4q1h", skill=lambda job: -0.8, images=8))
    [cell] = found.cells.values()
    interval = cell.intervals["acc"]
    assert interval.low == 0.0 < interval.value, "or the case is of no use"
    charts.parameters_chart(found, found.tests[0], "acc")
    [bar] = drawn[0].axes[0].containers
    [segment] = bar.lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([0.0, interval.high])


@pytest.mark.long
def test_gains_of_models_of_one_size_are_drawn(make_study: MakeStudy, drawn: list[Any]) -> None:
    """As those of qvit_8q1h and qvit_4q2h, which have as many parameters."""
    text = (
        "datasets: [a.npz]\nseeds: 2\nmodels: [{kind: qvit, qubits: 4}, {kind: qvit, qubits: 4, layers: 3}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    results = load_results(make_study(text))
    [family] = [one for one in families(results) if one.key == "distillation"]
    arms = {arm.title: arm for arm in results.arms}
    chart = charts.gains_chart(family.of("auc"), arms, with_parameters(results, [1117]))
    assert "qvit_4q2h (3 layers)" in chart.alt
    assert drawn[-1].axes[0].get_title(loc="left") == "Set A"


@pytest.mark.usefixtures("drawn")
def test_baselines_have_a_place_in_charts_where_it_says_something(make_study: MakeStudy) -> None:
    """No curve of one epoch, and nothing of two parameters beside thousands."""
    results = load_results(make_study("datasets: a.npz\nmodels: [nearest, commonest]"))
    titles = [chart.title for chart in every_chart(results)]
    assert "Set A: ROC curves" in titles
    assert "Set A: learning curves" not in titles
    for metric in ("auc", "acc"):
        told = charts.parameters_chart(results, results.tests[0], metric).alt
        assert "nearest 11,000 parameters" in told
        assert "commonest" not in told
