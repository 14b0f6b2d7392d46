"""Evaluate a finished run again: all measures of a split, over groups and apart from near-duplicates too."""

from dataclasses import dataclass, replace
from pathlib import Path

from qvit.data.arrays import Dataset, Split
from qvit.training.folder import Run, named_classes
from qvit.training.measured import Measured, Predicted, figures_of, measure
from qvit.training.prediction import predict
from qvit.training.records import Figures
from qvit.training.surroundings import surroundings


def evaluate_run(
    run: Run, split: str = "test", *, root: str | Path | None = None, file: str | Path | None = None
) -> Figures:
    """Predict a split again from a run's weights; return all measures and the intervals of AUC and accuracy.

    `root` and `file` tell where the data lie, as for `Run.load_data`. Raises `RunError` for a damaged run, and for
    data that have changed or are not there any more.
    """
    return evaluate_split(run, split, root=root, file=file, copies=False).measured.figures


@dataclass(frozen=True)
class Apart:
    """Figures of a split `without` its images that have a near-duplicate in train or val, of which there are `copies`.

    `without` is None if there are none, or if too little is left to be measured. `exact_only` is whether only exact
    copies were looked for, as there are too few training images to tell what is near.
    """

    copies: int
    without: Figures | None
    exact_only: bool


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A split of a run's data, predicted again: its measures, and those `apart` from near-duplicates, if asked for."""

    measured: Measured
    apart: Apart | None


def evaluate_split(
    run: Run,
    split: str = "test",
    *,
    root: str | Path | None = None,
    file: str | Path | None = None,
    copies: bool = True,
) -> Evaluated:
    """Predict a split again as `evaluate_run` does, and measure it over images, and over groups if they are known.

    With `copies`, also on the images of the split without a near-duplicate in another one: those of
    `qvit.data.duplicates`, of images of test in train or val, and of val in train.
    """
    group = run.result.tta  # first, as its error says what to do about an unfinished run
    with surroundings(run.training.threads):
        data = run.load_data(root, file=file)
        images, task = data[split], data.info.task
        scores = predict(run.load_model(), images, task, group=group)
        groups = None if data.groups is None else data.groups[split]
        predicted = Predicted(task, named_classes(run), images.labels, scores, groups)
        return Evaluated(measure(predicted), _apart(data, split, predicted) if copies else None)


def _apart(data: Dataset, split: str, predicted: Predicted) -> Apart:
    from qvit.data.duplicates import find_duplicates  # compiles kernels, which training does not need
    from qvit.data.findings import EARLIER

    if data.whole is not None:  # the fold that is held out is validation and test split, all copies of each other
        data, split = replace(data, val=Split(data.val.images[:0], data.val.labels[:0])), split.replace("val", "test")
    found = find_duplicates(data, across_only=True)
    copies = found.flagged(split, within=EARLIER[split])
    labels = predicted.labels[~copies]
    measurable = copies.any() and len(labels) and not (labels == labels[0]).all()
    without = figures_of(labels, predicted.scores[~copies], predicted.task) if measurable else None
    return Apart(int(copies.sum()), without, exact_only=not found.cut)
