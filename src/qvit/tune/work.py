"""Train candidates without some folds, as a stack where they can be one, and predict the folds that were held out.

No folder is written: what is asked of hundreds of models is what they say of images that they never saw.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from qvit.data.arrays import Dataset, Split
from qvit.data.folds import Chosen, folds_of
from qvit.errors import CircuitWarning, QvitError
from qvit.evaluation.metrics import AbsentClassWarning, accuracy, auc
from qvit.models.baselines import Baseline
from qvit.models.stack import unstackable
from qvit.models.vit import ViT
from qvit.models.zoo import count_parameters
from qvit.training.fitted import fit_baseline
from qvit.training.loop import fit, fit_many
from qvit.training.options import RunConfig, resolve
from qvit.training.prediction import predict
from qvit.training.run import build_model
from qvit.training.state import Member
from qvit.training.surroundings import surroundings
from qvit.training.validation import group_of_views
from qvit.tune.trials import Batch, Cell, Judged

Tell = Callable[[int, int], None]  # epochs that the furthest has done, and how many there are


class Trainer:
    """Trains batches on one dataset, which is read, and divided into folds, once."""

    def __init__(self, whole: Dataset | None = None) -> None:
        self._whole = whole
        self._folds: dict[tuple[int, int], tuple[Dataset, ...]] = {}

    def train(self, batch: Batch, tell: Tell | None = None) -> list[Judged]:
        """Return what becomes of each cell; one that fails does not stop the others."""
        configs = [resolve(cell.options) for cell in batch.cells]
        threads = configs[0].train.threads
        with surroundings(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", AbsentClassWarning)  # folds of few images
            warnings.simplefilter("ignore", CircuitWarning)  # told when the candidate was made
            began = time.perf_counter()
            folds = [self.fold(config, batch.root) for config in configs]
            made = [
                build_model(config.architecture(fold.info, fold.size), fold, seed=config.seed)
                for config, fold in zip(configs, folds, strict=True)
            ]
            members = [_member(config, fold, tell) for config, fold in zip(configs, folds, strict=True)]
            _fit(made, members)
            told = [
                _judged(cell, model, member, fold)
                for cell, model, member, fold in zip(batch.cells, made, members, folds, strict=True)
            ]
            share = round((time.perf_counter() - began) / len(told), 4)
        return [replace(one, seconds=share, pace=one.pace or share) for one in told]

    def fold(self, config: RunConfig, root: Path | None) -> Dataset:
        """Return the dataset of a run that holds out a fold."""
        held = config.held_out
        assert held is not None, "candidates are judged by folds"
        if self._whole is None:
            self._whole = config.load_whole(root, download=False)
        key = held.count, held.seed
        if key not in self._folds:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the driver has told
                self._folds[key] = folds_of(self._whole, held.count, seed=held.seed)
        return self._folds[key][held.number - 1]


def _member(config: RunConfig, fold: Dataset, tell: Tell | None) -> Member:
    def on_epoch(state: Any) -> None:
        if tell is not None:
            tell(state.epoch, config.train.epochs)

    return Member(replace(fold, val=glimpse(fold.val)), config.train, config.seed, on_epoch=on_epoch)


def glimpse(split: Split) -> Split:
    """Return a few images of a split, enough that an AUC exists: one with and one without each class.

    Nothing is chosen by them. Training looks at validation images after every epoch, and looking at all would take a
    third of the time.
    """
    labels = split.labels
    of_class = labels if labels.shape[1] > 1 else labels == np.unique(labels)
    places = {int(np.argmax(column == value)) for column in of_class.T for value in (0, 1)}
    return Chosen([split], np.array(sorted(places), np.int64))


def _fit(models: Sequence[Any], members: Sequence[Member]) -> None:
    """Train models of one architecture, together if they can be; an error is kept with its member."""
    try:
        if isinstance(models[0], ViT) and unstackable(models[0].config) is None:
            fit_many(models, members)
            return
    except QvitError as error:
        for member in members:
            member.error = member.error or error
        return
    for model, member in zip(models, members, strict=True):
        try:
            _fit_alone(model, member)
        except QvitError as error:
            member.error = error


def _fit_alone(model: Any, member: Member) -> None:
    """Train a model that cannot be in a stack, or fit one that takes no steps."""
    if isinstance(model, Baseline):
        member.state = fit_baseline(model, member.data, member.config, seed=member.seed)
        return
    fit(model, member.data, member.config, seed=member.seed, state=member.state, on_epoch=member.on_epoch)


def _judged(cell: Cell, model: Any, member: Member, fold: Dataset) -> Judged:
    if member.error is not None:
        return Judged(cell.candidate, cell.place, error=str(member.error))
    config, task = member.config, fold.info.task
    try:
        told = predict(model, fold.val, task, group=group_of_views(fold, config), device=config.device)
        scores = told.astype(np.float32)
        figures = [measure(fold.val.labels, scores, task) for measure in (auc, accuracy)]
    except QvitError as error:
        return Judged(cell.candidate, cell.place, error=str(error))
    seconds = member.state.seconds
    pace = round(median(seconds) * len(seconds), 4) if seconds else 0.0
    counted: dict[str, Any] = {"pace": pace, "parameters": count_parameters(model)}
    return Judged(cell.candidate, cell.place, figures[0], figures[1], **counted, scores=scores)
