"""The figure of how a model decides: what its panels say, that nothing of it is cut, and by what it decides."""

import shutil
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from qvit.answers.evidence import Evidence, save
from qvit.evaluation.calibration import decided
from qvit.evaluation.novelty import Familiar
from qvit.report.curves import Decided, decide_as, draw_decisions
from qvit.report.drawing import write_picture
from qvit.training.folder import Run
from qvit.training.measured import Predicted

RNG = np.random.default_rng(0)
LONG = "actinic keratoses and intraepithelial carcinoma, with $costs$"


def made(task: str, classes: int, n: int = 60, *, operating: str | None = None, told: bool = True) -> Decided:
    """What is decided of images of which none has the last class, or label, if there are more than two."""
    names = tuple(LONG if place == 1 else f"class {place}" for place in range(classes))
    if task == "multi-label":
        labels = RNG.integers(0, 2, (n, classes)) * (np.arange(classes) < classes - 1)
        scores = (0.4 * labels + RNG.random((n, classes))) / 1.4
    else:
        labels = RNG.permutation(np.arange(n) % max(2, classes - 1))[:, None]
        scores = RNG.dirichlet(np.ones(classes), n) * 0.6 + 0.4 * np.eye(classes)[labels[:, 0]]
    predicted = Predicted(task, names, labels.astype(np.int64), scores)
    return Decided(predicted, 1.25, scores**0.8 if told else None, decided(scores, task), operating)


def legends(figure: Figure) -> list[list[str]]:
    return [
        [text.get_text() for text in axes.get_legend().get_texts()]
        for axes in figure.axes
        if axes.get_legend() is not None
    ]


def cut(figure: Figure) -> list[str]:
    """The panels that reach, with titles, names and legends, beyond the figure's edges or into one another."""
    figure.draw_without_rendering()
    whole = figure.bbox.padded(1)
    boxes = {axes.get_title(loc="left"): axes.get_tightbbox() for axes in figure.axes}
    wrong = [name for name, box in boxes.items() if not (whole.contains(*box.min) and whole.contains(*box.max))]
    return wrong + [f"{one}, {other}" for one, other in combinations(boxes, 2) if boxes[one].overlaps(boxes[other])]


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "classes"),
    [("binary", 2), ("multi-class", 3), ("ordinal", 5), ("multi-class", 14), ("multi-label", 2), ("multi-label", 14)],
)
def test_nothing_is_cut_or_lies_over_another_panel(task: str, classes: int) -> None:
    operating = None if task in ("multi-class", "ordinal") else "sensitivity 0.95"
    assert cut(draw_decisions(made(task, classes, operating=operating), "runs/cells on test, 60 images")) == []


@pytest.mark.long
def test_a_binary_task_has_the_curve_of_class_1_alone() -> None:
    found = made("binary", 2, operating="sensitivity 0.9")
    figure = draw_decisions(found, "$title$")
    matrix, reliability, roc, precision = figure.axes
    assert figure.get_suptitle() == r"\$title\$"
    assert matrix.get_title(loc="left").startswith("Confusion matrix at sensitivity 0.9 on validation")
    cells = [text.get_text() for text in matrix.texts]
    answers = found.answers.argmax(axis=1)
    labels = found.predicted.labels[:, 0]
    assert cells == [str(((labels == row) & (answers == column)).sum()) for row in (0, 1) for column in (0, 1)]
    _, of_roc, of_precision = legends(figure)
    assert of_roc[0] == "chance"
    assert of_roc[2] == "sensitivity 0.9 on validation"
    assert [len(of_roc), len(of_precision)] == [3, 1]
    marks = [
        line for axes in (roc, precision) for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())
    ]
    positive, said = labels == 1, answers == 1
    recall = (said & positive).sum() / positive.sum()
    assert [line.get_xydata().tolist() for line in marks] == [
        [[(said & ~positive).sum() / (~positive).sum(), recall]],
        [[recall, (said & positive).sum() / said.sum()]],
    ]
    assert len(reliability.collections) == 2, "before and after"


@pytest.mark.long
def test_a_class_without_images_has_no_curve_and_says_so() -> None:
    figure = draw_decisions(made("multi-class", 4, told=False), "title")
    matrix, reliability, roc, precision = figure.axes
    assert matrix.get_title(loc="left").startswith("Confusion matrix\n")
    assert len(matrix.texts) == 16
    assert len(reliability.collections) == 1, "no temperature is known"
    for told in legends(figure)[1:]:
        assert told[-1] == "class 3: no image has it"
    assert len([line for line in roc.lines if len(line.get_xdata())]) == 4, "three classes, and chance"
    levels = [line for line in precision.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [line.get_ydata()[0] for line in levels] == pytest.approx([1 / 3] * 3)


@pytest.mark.long
def test_several_labels_have_a_row_each() -> None:
    found = made("multi-label", 3)
    labels = found.predicted.labels
    labels[:, 0] = 1
    figure = draw_decisions(found, "title")
    rates = figure.axes[0]
    rows = np.reshape([int(text.get_text()) for text in rates.texts], (3, 4))
    has, said = labels == 1, found.answers
    assert rows.T.tolist() == [
        (each.sum(axis=0)).tolist() for each in (has & said, has & ~said, ~has & said, ~has & ~said)
    ]
    assert legends(figure)[1][1] == "class 0: all images have it"
    assert legends(figure)[1][3] == "class 2: no image has it"


@pytest.mark.long
def test_an_operating_point_that_never_says_yes_has_no_precision() -> None:
    found = made("binary", 2, operating="specificity 1")
    found.answers[:] = [True, False]
    roc, precision = draw_decisions(found, "title").axes[2:]
    assert next(line.get_xydata().tolist() for line in roc.lines if line.get_marker() == "o") == [[0, 0]]
    assert not [line for line in precision.lines if line.get_marker() == "o"]


@pytest.mark.long
def test_numbers_that_would_not_be_read_are_left_out() -> None:
    assert len(draw_decisions(made("multi-class", 60, 600), "title").axes[0].texts) == 0


@pytest.mark.long
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_file(ending: str, tmp_path: Path) -> None:
    names = ("細胞", "b")
    found = made("binary", 2)
    predicted = Predicted("binary", names, found.predicted.labels, found.predicted.scores)
    other = Decided(predicted, 1.0, None, found.answers, None)
    for name in ("one", "two"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_picture(draw_decisions(other, "title"), tmp_path / f"{name}.{ending}")
    one, two = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    assert (ending != "svg") or "細胞".encode() in one


# --- what a run keeps ---


def kept(run: Run, folder: Path, evidence: Evidence | None) -> Run:
    shutil.copytree(run.folder, folder)
    if evidence is not None:
        save(Run(folder), evidence)
    return Run(folder)


def evidence(task: str, classes: int, n: int, *, operating: tuple[str, float] | None) -> Evidence:
    found = made(task, classes, n).predicted
    labels = RNG.integers(0, 2, found.labels.shape) if task == "multi-label" else found.labels
    return Evidence(found.scores, labels, np.ones(n), Familiar(np.zeros(4), np.eye(4)), operating)  # type: ignore[arg-type]


@pytest.mark.long
def test_answers_are_by_what_the_run_keeps(
    make_run: Callable[..., Run], make_npz: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(make_npz("two", classes=2))
    predicted = Predicted("binary", ("0", "1"), np.array([[0], [1], [1]]), np.array([[0.6, 0.4], [0.2, 0.8], [1, 0]]))
    nothing = decide_as(kept(run, tmp_path / "nothing", None), predicted)
    assert (nothing.told, nothing.operating) == (None, None)
    assert nothing.answers.argmax(axis=1).tolist() == [0, 1, 0]
    few = decide_as(kept(run, tmp_path / "few", evidence("binary", 2, 20, operating=None)), predicted)
    assert (few.told, few.operating) == (None, None), "20 images are too few for a temperature"
    found = decide_as(kept(run, tmp_path / "all", evidence("binary", 2, 60, operating=("sensitivity", 1.0))), predicted)
    assert found.temperature != 1
    assert found.told is not None
    assert found.told[0, 1] ** found.temperature / found.told[0, 0] ** found.temperature == pytest.approx(0.4 / 0.6)
    assert found.operating == "sensitivity 1"
    said = [
        decide_as(
            kept(run, tmp_path / f"at {value}", evidence("binary", 2, 60, operating=("specificity", value))), predicted
        )
        for value in (0.02, 1.0)
    ]
    assert [each.answers[:, 1].tolist() for each in said] == [[True, True, False], [False, True, False]]


@pytest.mark.long
def test_other_data_may_lack_labels(
    make_run: Callable[..., Run], make_npz: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(make_npz("several", several=True))
    known = evidence("multi-label", 3, 60, operating=("sensitivity", 0.7))
    run = kept(run, tmp_path / "run", known)
    whole = Predicted("multi-label", ("0", "1", "2"), known.labels, known.scores)
    part = Predicted("multi-label", ("2", "0"), known.labels[:, [2, 0]], known.scores[:, [2, 0]])
    assert np.array_equal(decide_as(run, part).answers, decide_as(run, whole).answers[:, [2, 0]])
    assert not np.array_equal(decide_as(run, whole).answers, known.scores > 0.5)
