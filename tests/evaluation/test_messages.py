"""Every message of an error of `qvit.evaluation`, whole and with its values; a new one without a row here fails."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvit.evaluation
from qvit.errors import MetricError
from qvit.evaluation.agreement import agreement, divergence, gap_closed
from qvit.evaluation.calibration import fit_temperature, operating_threshold, risk_coverage
from qvit.evaluation.conformal import quantile
from qvit.evaluation.influence import image_influence, image_strata
from qvit.evaluation.medmnist_files import parse_result_name, read_result, result_name, write_result
from qvit.evaluation.metrics import accuracy, auc, evaluate, expected_calibration_error
from qvit.evaluation.novelty import familiar
from qvit.evaluation.paired import (
    compare_arms,
    contrast,
    delong_test,
    holm,
    mcnemar_test,
    mean_comparison,
    permutation_test,
    seeds_test,
)
from qvit.evaluation.ranking import critical_difference, friedman, rank
from qvit.evaluation.selection import Rung, bias_corrected
from qvit.evaluation.statistics import (
    _percentiles,
    bootstrap_interval,
    crossed_interval,
    folds_interval,
    mean_interval,
)
from suite.messages import missing, raised

NAME = "set_test_[AUC]0.500_[ACC]0.500@run.csv"
LABELS, SCORES = [0, 1, 1], [0.2, 0.7, 0.6]
ARM = [SCORES]
ONE_CLASS, PLACES = np.zeros((3, 1), np.int64), np.arange(3)


def name(**change: Any) -> str:
    said: dict[str, Any] = {"flag": "set", "size": 28, "split": "test", "auc": 0.5, "acc": 0.5, "run": "run"}
    return result_name(**said | change)


def write(scores: Any) -> Path:
    return write_result(Path(), "set", 28, "test", scores, 0.5, 0.5, "run")


def read(content: bytes) -> Any:
    Path(NAME).write_bytes(content)
    return read_result(Path(NAME))


class Refusing:
    """What NumPy cannot take."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ValueError("not  to\nbe had.")


Row = tuple[Callable[[], Any], str]
ROWS: list[Row] = [
    (
        lambda: accuracy(LABELS, SCORES, "binry"),
        "Unknown task 'binry'; expected one of 'binary', 'multi-class', 'multi-label', 'ordinal'. Did you "
        "mean 'binary'?",
    ),
    (
        lambda: accuracy(LABELS, SCORES, "guess"),
        "Unknown task 'guess'; expected one of 'binary', 'multi-class', 'multi-label', 'ordinal'.",
    ),
    (lambda: accuracy(LABELS, [0.1j, 1, 1], "binary"), "Scores must be real numbers, but their type is complex128."),
    (
        lambda: accuracy(LABELS, [[0.1, 0.2, 0.7]] * 3, "binary"),
        "Scores of binary tasks must have the shape (N,), (N, 1) or (N, 2), but came as (3, 3).",
    ),
    (
        lambda: accuracy(LABELS, SCORES, "ordinal"),
        "Scores of ordinal tasks must have the shape (N, C) with C of at least 2, but came as (3,).",
    ),
    (
        lambda: accuracy(LABELS, [[1.0]] * 3, "multi-class"),
        "Scores of multi-class tasks must have the shape (N, C) with C of at least 2, but came as (3, 1).",
    ),
    (
        lambda: accuracy(LABELS, SCORES, "multi-label"),
        "Scores of multi-label tasks must have the shape (N, K), but came as (3,).",
    ),
    (
        lambda: accuracy(LABELS, np.zeros((3, 0)), "multi-label"),
        "Scores of multi-label tasks must have the shape (N, K), but came as (3, 0).",
    ),
    (lambda: accuracy([], [], "binary"), "There are no images to score: labels and scores are empty."),
    (lambda: accuracy(LABELS, [0.2, math.nan, 0.6], "binary"), "Scores must be finite, but row 1 holds [nan]."),
    (
        lambda: accuracy(LABELS, [0.2, 0.7, 1.5], "binary"),
        "Scores must lie within [0, 1], but range from 0.2 to 1.5: scores are probabilities, never logits. "
        "Apply a sigmoid first.",
    ),
    (
        lambda: accuracy(LABELS, [0.2, 0.7, -1e-5], "binary"),
        "Scores must lie within [0, 1], but range from -1e-05 to 0.7: scores are probabilities, never "
        "logits. Apply a sigmoid first.",
    ),
    (
        lambda: accuracy(LABELS, [[0.2, 1.5]] * 3, "multi-class"),
        "Scores must lie within [0, 1], but range from 0.2 to 1.5: scores are probabilities, never logits. "
        "Apply a softmax first.",
    ),
    (
        lambda: accuracy(LABELS, Refusing(), "binary"),
        "Scores must be an array of numbers, but came as Refusing: not to be had. Of a tensor give "
        "tensor.detach().cpu().float().numpy().",
    ),
    (lambda: accuracy([0.0, 1.0, 1.0], SCORES, "binary"), "Labels must be integers, but their type is float64."),
    (
        lambda: accuracy([[0, 1]] * 3, SCORES, "binary"),
        "Labels of binary tasks must have the shape (N,) or (N, 1), but came as (3, 2).",
    ),
    (
        lambda: accuracy(LABELS, [[0.2, 0.7]] * 3, "multi-label"),
        "Labels of multi-label tasks must have the shape (N, 2), as the scores, but came as (3,).",
    ),
    (
        lambda: accuracy([0, 2, 1], SCORES, "binary"),
        "Labels of this binary task must lie within 0 to 1, but range from 0 to 2.",
    ),
    (
        lambda: accuracy([0, -1, 1], SCORES, "binary"),
        "Labels of this binary task must lie within 0 to 1, but range from -1 to 1.",
    ),
    (
        lambda: accuracy([0, 3, 1], np.eye(3), "ordinal"),
        "Labels of this ordinal task must lie within 0 to 2, but range from 0 to 3.",
    ),
    (lambda: accuracy([0, 1], SCORES, "binary"), "Labels and scores must be of the same images, but came for 2 and 3."),
    (
        lambda: auc([1, 1, 1], SCORES, "binary"),
        "AUC needs images with and without a class, but all 3 have the same labels ([1]). Evaluate on more images.",
    ),
    (
        lambda: auc([[0, 1]], [[0.2, 0.7]], "multi-label"),
        "AUC needs images with and without a class, but all 1 have the same labels ([0, 1]). Evaluate on more images.",
    ),
    (
        lambda: expected_calibration_error(LABELS, SCORES, "binary", bins=0),
        "The calibration error needs at least 1 bin, but 0 were asked for.",
    ),
    (
        lambda: evaluate([0, 1], [[0.5, 0.5], [0.25, 0.7]], "multi-class"),
        "Score rows of multi-class tasks must sum to 1, but row 1 sums to 0.95: they have been rounded too "
        "much, or lack a class. Divide each row by its sum.",
    ),
    (
        lambda: evaluate([0, 1], [[0.5, 0.5], [0.25, 0.5]], "binary"),
        "Score rows of binary tasks must sum to 1, but row 1 sums to 0.75: scores are probabilities, never "
        "logits. Apply a softmax first.",
    ),
    (
        lambda: agreement([0.5], [1.5], "binary"),
        "The teacher's scores are not fit to compare. Scores must lie within [0, 1], but range from 1.5 to "
        "1.5: scores are probabilities, never logits. Apply a sigmoid first.",
    ),
    (
        lambda: agreement([[0.5, 0.5]], [[0.2, 0.3, 0.5]], "ordinal"),
        "Student and teacher must score the same images and classes, but their scores came as (1, 2) and (1, "
        "3). Predict the same split with both.",
    ),
    (
        lambda: divergence([[0.5, 0.5]], [[0.5, 0.45]], "ordinal"),
        "Score rows of ordinal tasks must sum to 1, but the teacher's row 0 sums to 0.95: they have been "
        "rounded too much, or lack a class. Divide each row by its sum.",
    ),
    (
        lambda: gap_closed(0.5, math.nan, 0.75),
        "A gap needs three finite values, but scratch, distilled and teacher came as 0.5, nan and 0.75. "
        "Leave out runs without a value.",
    ),
    (
        lambda: image_influence(LABELS, SCORES, "binary", metric="f1"),
        "Only 'auc' and 'acc' can be traced to images, but 'f1' was asked for.",
    ),
    (
        lambda: image_strata(np.array([[1], [0]]), "binary"),
        "A comparison over images needs at least 2 images of some class, but came with 2 in all.",
    ),
    (
        lambda: image_strata(np.array([[1]]), "binary", metric="acc"),
        "A comparison over images needs at least 2 images, but came with 1 in all.",
    ),
    (
        lambda: delong_test(LABELS, SCORES, SCORES, "binary"),
        "A comparison of AUC over random images cannot tell how much chance is in them: class 1 has 2 images, "
        "fewer than 10. Add test images, compare accuracies, or train several seeds and use seeds_test, "
        "which holds for these images only.",
    ),
    (
        lambda: delong_test([0, 1], np.eye(2), np.eye(3)[:2], "multi-class"),
        "Both models must score the same classes, but their scores came as (2, 2) and (2, 3).",
    ),
    (
        lambda: mcnemar_test([[0, 1]], [[0.1, 0.9]], [[0.1, 0.9]], "multi-label"),
        "McNemar's test needs one decision per image, but a multi-label image has several. Use permutation_test.",
    ),
    (
        lambda: permutation_test([1], [0.1], [0.9], "binary"),
        "A comparison over images needs at least 2 images, but came with 1 in all.",
    ),
    (
        lambda: seeds_test([0.5], [0.25]),
        "A comparison over seeds needs at least 2 of them, but came with 1. Train more seeds.",
    ),
    (
        lambda: seeds_test([0.5, 0.25], [0.25, 0.5, 0.75]),
        "Arms are paired by seed, but came with 2 and 3 seeds. Give all of them the same seeds in the same order.",
    ),
    (
        lambda: seeds_test([0.5, math.inf], [0.25, 0.5]),
        "Values must be finite, but came as [0.5, inf]. Leave failed runs out.",
    ),
    (
        lambda: contrast(LABELS, [ARM, ARM], (1, -1, 0), "binary"),
        "Each of 2 arms needs a finite weight, but weights came as [1, -1, 0].",
    ),
    (
        lambda: contrast(LABELS, [ARM, ARM], (1, math.inf), "binary"),
        "Each of 2 arms needs a finite weight, but weights came as [1, inf].",
    ),
    (
        lambda: contrast(LABELS, [ARM, ARM], (1, 1), "binary"),
        "Weights must sum to 0 and not all be 0, as 1 and -1 do, but came as [1, 1].",
    ),
    (
        lambda: contrast(LABELS, [ARM, ARM], (0, 0), "binary"),
        "Weights must sum to 0 and not all be 0, as 1 and -1 do, but came as [0, 0].",
    ),
    (
        lambda: contrast(LABELS, [ARM, ARM, ARM * 2], (1, -0.5, -0.5), "binary"),
        "Arms are paired by seed, but came with 1, 1 and 2 seeds. Give all of them the same seeds in the same order.",
    ),
    (
        lambda: compare_arms(LABELS, ARM, [[0.2, 0.7]], "binary"),
        "Arm 1 (counted from 0) is not fit to compare. The scores of seed 0 (counted from 0) do not fit. "
        "Labels and scores must be of the same images, but came for 3 and 2.",
    ),
    (
        lambda: compare_arms([0, 1], np.eye(2)[None], np.eye(3)[None, :2], "multi-class", metric="acc"),
        "All arms must score the same classes, but their scores came as (1, 2, 2), (1, 2, 3).",
    ),
    (
        lambda: compare_arms(LABELS, ARM, ARM, "binary", metric="acc"),
        "A comparison of ACC over random images cannot tell how much chance is in them: there are 3 images, fewer "
        "than 30. Add test images, train several seeds and use seeds_test, which holds for these images only.",
    ),
    (
        lambda: compare_arms(LABELS, ARM, ARM, "binary", metric="auk"),
        "Only 'auc' and 'acc' can be compared, but 'auk' was asked for. Did you mean 'auc'?",
    ),
    (
        lambda: compare_arms(LABELS, ARM, ARM, "binary", level=95.0),
        "A confidence level must lie between 0 and 1, such as 0.95, but came as 95.0.",
    ),
    (lambda: mean_comparison([]), "A mean needs comparisons of one level, but 0 came."),
    (
        lambda: mean_comparison([seeds_test([0.5, 0.75], [0.5, 0.25], level=level) for level in (0.95, 0.9)]),
        "A mean needs comparisons of one level, but 2 came of levels 0.9, 0.95.",
    ),
    (lambda: holm([0.5, 1.5]), "p values must lie within [0, 1], but came as [0.5, 1.5]."),
    (
        lambda: friedman([[0.1, 0.2], [0.1]]),
        "A ranking needs a table of numbers, one row per dataset, all rows of one length.",
    ),
    (
        lambda: friedman([0.1, 0.2]),
        "A ranking needs a table of at least 2 datasets (rows) and 2 models (columns), but its shape is (2,).",
    ),
    (
        lambda: rank([[0.1, 0.2], [0.1, math.nan]]),
        "Values to rank must be finite, but dataset 1 (counted from 0) has [0.1, nan]. Leave out datasets "
        "that lack a model.",
    ),
    (lambda: critical_difference(1, 5), "Ranks need at least 2 models and 1 dataset, but came with 1 and 5."),
    (lambda: critical_difference(2, 0), "Ranks need at least 2 models and 1 dataset, but came with 2 and 0."),
    (lambda: name(auc=1.25), "AUC must lie within [0, 1], but came as 1.25."),
    (lambda: name(acc=-0.25), "ACC must lie within [0, 1], but came as -0.25."),
    (
        lambda: name(run="v1.2"),
        "The run's name must not be empty nor hold '@', '.', slashes or control characters, because "
        "MedMNIST's file names end in @run.csv; but it came as 'v1.2'. Use dashes instead.",
    ),
    (
        lambda: name(flag="my_set"),
        "A dataset's flag in a result name is letters, digits and dashes, but came as 'my_set'.",
    ),
    (lambda: name(size=0), "The image size in a result name must be at least 1, but came as 0."),
    (lambda: name(split="training"), "The split must be one of train, val, test, but came as 'training'."),
    (
        lambda: parse_result_name("scores.csv"),
        "'scores.csv' is not the name of a result file; expected flag_split_[AUC]0.123_[ACC]0.456@run.csv, "
        "with _size after the flag unless it is 28.",
    ),
    (lambda: write(["a"]), "Scores must be real numbers, but their type is <U1."),
    (
        lambda: write(np.zeros((0, 3))),
        "Scores must have the shape (N, C) or (N,) and not be empty, but came as (0, 3).",
    ),
    (lambda: write([0.5, math.inf]), "Scores must be finite, but hold nan or infinity. Nothing was written."),
    (lambda: read_result(Path(NAME)), f"{NAME} cannot be read: nothing there."),
    (lambda: read(b""), f"{NAME} is empty. It is damaged: write it again."),
    (lambda: read(b"\xff"), f"{NAME} is not a text file. It is damaged: write it again."),
    (lambda: read(b"0,0.5"), f"{NAME} ends within a line. It was cut short: write it again."),
    (lambda: read(b"0\n"), f"{NAME}, line 1 holds no scores; expected an index and scores, separated by commas."),
    (lambda: read(b"0,0.1\n1,0.2,0.3\n"), f"{NAME}, line 2 holds 2 scores where the first line holds 1."),
    (lambda: read(b"0,0.1\n1,0_2\n"), f"{NAME}, line 2 must be an index and numbers, but reads '1,0_2'."),
    (
        lambda: read(b"0," + b"x" * 99 + b"\n"),  # as much as stands on a line
        f"{NAME}, line 1 must be an index and numbers, but reads '0,{'x' * 58}'.",
    ),
    (lambda: read(b"0,0.1\n1,nan\n"), f"{NAME}, line 2 holds a score that is not finite: '1,nan'."),
    (
        lambda: read(b"0,nan," + b"0," * 50 + b"0\n"),
        f"{NAME}, line 1 holds a score that is not finite: '0,nan,{'0,' * 27}'.",
    ),
    (lambda: read(b"0,0.1\n2,0.2\n"), f"{NAME} must hold each index from 0 to 1 once, but has 2 in the place of 1."),
    (
        lambda: bootstrap_interval(LABELS, SCORES, "binary", metrics=("f1",)),
        "Only 'auc' and 'acc' can be bootstrapped, but 'f1' was asked for.",
    ),
    (
        lambda: bootstrap_interval(LABELS, SCORES, "binary", resamples=0),
        "The bootstrap needs at least 1 resample, but 0 were asked for.",
    ),
    (
        lambda: crossed_interval(LABELS, [[0.2, 0.7, 0.6], [0.2]], "binary"),
        "All seeds must score the same images and classes, but their shapes differ.",
    ),
    (
        lambda: crossed_interval(LABELS, SCORES, "binary"),
        "Scores of the seeds of binary tasks must have the shape (S, N) or (S, N, C) with S of at least 1, "
        "but came as (3,).",
    ),
    (
        lambda: crossed_interval([0, 1], np.eye(2), "multi-class"),
        "Scores of the seeds of multi-class tasks must have the shape (S, N, C) with S of at least 1, but "
        "came as (2, 2).",
    ),
    (
        lambda: crossed_interval(LABELS, [SCORES, [0.2, 0.7, 2.0]], "binary"),
        "The scores of seed 1 (counted from 0) do not fit. Scores must lie within [0, 1], but range from 0.2 "
        "to 2: scores are probabilities, never logits. Apply a sigmoid first.",
    ),
    (
        lambda: fit_temperature(np.zeros((29, 1), int), np.full((29, 2), 0.5), "binary"),
        "A temperature needs at least 30 images, but there are 29.",
    ),
    (lambda: risk_coverage(np.empty(0), np.empty(0)), "Risk against coverage needs at least one image."),
    (
        lambda: operating_threshold(np.array([True]), np.array([0.5]), sensitivity=2.0),
        "The sensitivity must be above 0 and at most 1, but came as 2.0.",
    ),
    (
        lambda: operating_threshold(np.array([True]), np.array([0.5]), specificity=0.5),
        "An operating point needs at least one negative image.",
    ),
    (lambda: operating_threshold(np.array([True]), np.array([0.5])), "Give a sensitivity or a specificity, not both."),
    (lambda: quantile(np.array([0.5]), 1.0), "The coverage must be above 0 and below 1, but came as 1.0."),
    (lambda: familiar(np.zeros((1, 2))), "What is usual cannot be learnt from 1 image."),
    (lambda: mean_interval([]), "There are no values to take the mean of."),
    (lambda: mean_interval([0.5, math.nan]), "Values must be finite, but came as [0.5, nan]. Leave failed runs out."),
    (
        lambda: mean_interval([0.5], level=0.0),
        "A confidence level must lie between 0 and 1, such as 0.95, but came as 0.0.",
    ),
    (lambda: folds_interval([0.5, 0.6], 1), "Values of folds come of at least 2, but folds came as 1."),
    (
        lambda: _percentiles(np.full(3, math.nan), 0.95, "AUC"),
        "None of 3 resamples held images with and without a class, so AUC has no interval. Take more resamples or "
        "more images.",
    ),
    (
        lambda: bias_corrected(ONE_CLASS, "binary", [PLACES], [], [Rung(1, 1)]),
        "There are no candidates to choose from: expected at least one, judged on at least one fold.",
    ),
    (
        lambda: bias_corrected(ONE_CLASS, "binary", [PLACES], [[np.full((3, 1), 0.5)]], [Rung(1, 1)], resamples=9),
        "None of 9 resamples leaves out images with and without a class, so what the choice is worth cannot be told. "
        "Take more images, or more folds.",
    ),
]


@pytest.mark.parametrize(("call", "message"), ROWS)
def test_messages(call: Callable[[], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetricError) as caught:
        call()
    assert str(caught.value) == message


def test_every_message_has_its_row() -> None:
    files = Path(qvit.evaluation.__file__).parent.glob("*.py")
    assert missing(raised(*files), (message for _, message in ROWS)) == []
