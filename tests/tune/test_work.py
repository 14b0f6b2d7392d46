"""What is trained without a folder is what `qvit train --folds` would train."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.evaluation.metrics import accuracy, auc
from qvit.training.many import Asked, train_many
from qvit.training.options import resolve
from qvit.tune.trials import Batch, Cell
from qvit.tune.work import Trainer, glimpse

MakeCell = Callable[..., Cell]


@pytest.mark.trains
@pytest.mark.long
def test_a_stack_of_cells_is_what_a_cross_validation_trains(cell: MakeCell, data: Dataset, tmp_path: Path) -> None:
    cells = (cell(1), cell(2), cell(3, seed=1, lr=0.02, name="two"))
    seen: list[tuple[int, int]] = []
    found = Trainer(data).train(Batch("b", cells), lambda *told: seen.append(told))
    asked = [Asked(resolve(one.options), tmp_path / str(place)) for place, one in enumerate(cells)]
    for one, judged, run in zip(cells, found, train_many(asked), strict=True):
        assert (judged.candidate, judged.place, judged.error) == (one.candidate, one.place, None)
        assert judged.scores is not None
        assert np.abs(judged.scores - run.predictions("val")).max() < 1e-6
        assert judged.auc == pytest.approx(run.result.val.auc, abs=1e-9)
        assert judged.acc == run.result.val.acc
        assert judged.parameters == run.result.parameters
    assert set(seen) == {(1, 1)}
    alone = Trainer().train(Batch("c", cells[1:2]))  # which reads the data by itself
    assert np.array_equal(alone[0].scores, found[1].scores), "bit for bit, whoever else is in the stack"
    assert found[0].seconds == found[1].seconds > 0
    assert found[0].pace > 0


@pytest.mark.trains
@pytest.mark.long
def test_figures_are_those_of_what_is_kept(cell: MakeCell, data: Dataset) -> None:
    trainer = Trainer(data)
    [found] = trainer.train(Batch("b", (cell(2),)))
    held = trainer.fold(resolve(cell(2).options), None).val
    assert found.scores is not None
    assert found.scores.dtype == np.float32
    assert found.auc == auc(held.labels, found.scores, "multi-class")
    assert found.acc == accuracy(held.labels, found.scores, "multi-class")


@pytest.mark.trains
@pytest.mark.long
def test_models_that_cannot_be_stacked_are_trained_one_by_one(cell: MakeCell, data: Dataset) -> None:
    cells = tuple(cell(fold, dropout=0.5, stacked=False) for fold in (1, 2))
    found = Trainer(data).train(Batch("b", cells))
    assert [one.error for one in found] == [None, None]
    assert found[0].scores is not None


def test_baselines_are_fitted(cell: MakeCell, data: Dataset) -> None:
    told = {"model": "logistic", "epochs": 100, "stacked": False}
    [found] = Trainer(data).train(Batch("b", (cell(1, **told),)))
    assert found.error is None
    assert found.parameters > 3, "those that were stored"
    assert found.pace > 0
    assert found.scores is not None
    assert np.allclose(found.scores.sum(axis=1), 1)


@pytest.mark.usefixtures("untrained")
def test_one_that_fails_does_not_stop_the_others(
    cell: MakeCell, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvit.errors import TrainingError
    from qvit.tune import work

    plain = work.predict

    def fails_once(model: object, split: Split, task: str, **options: object) -> object:
        if split is trainer.fold(resolve(cell(2).options), None).val:
            raise TrainingError("no numbers")
        return plain(model, split, task, **options)

    trainer = Trainer(data)
    monkeypatch.setattr(work, "predict", fails_once)
    found = trainer.train(Batch("b", (cell(1), cell(2))))
    assert [one.error for one in found] == [None, "no numbers"]


@pytest.mark.usefixtures("untrained")
def test_a_stack_that_cannot_be_is_an_error_of_each(cell: MakeCell, data: Dataset) -> None:
    """One that nobody should put together."""
    found = Trainer(data).train(Batch("b", (cell(1), cell(2, mlp_dim=3))))
    told = "Expected models of one configuration to stack, got different ones; stack them separately."
    assert [one.error for one in found] == [told, told]
    alone = Trainer(data).train(Batch("b", (cell(1, dropout=0.5, stacked=False, device="meta"),)))
    assert alone[0].error is not None


@pytest.mark.parametrize("several", [False, True])
def test_a_glimpse_has_and_lacks_each_class(several: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (30, 4)) if several else rng.integers(0, 4, (30, 1))
    split = Split(rng.integers(0, 256, (30, 1, 4, 4)).astype(np.uint8), labels)
    found = glimpse(split)
    assert len(found) <= 8
    for column in labels.T if several else [labels[:, 0] == value for value in range(4)]:
        assert {bool(value) for value in column} == {True, False}
    shown = found.labels.T if several else [found.labels[:, 0] == value for value in range(4)]
    assert all({bool(value) for value in column} == {True, False} for column in shown)
    images, _ = found.batch([0])
    places = [place for place in range(30) if np.array_equal(split.images[place], images[0])]
    assert np.array_equal(found.labels[0], labels[places[0]])


@pytest.mark.usefixtures("untrained")
def test_folds_are_divided_once(cell: MakeCell, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qvit.tune import work

    calls = []
    plain = work.folds_of
    monkeypatch.setattr(work, "folds_of", lambda *a, **o: calls.append(a[1:]) or plain(*a, **o))
    trainer = Trainer(load_dataset(npz))
    trainer.train(Batch("b", (cell(1), cell(2), cell(2, seed=5))))
    trainer.train(Batch("c", (cell(3),)))
    assert len(calls) == 2
