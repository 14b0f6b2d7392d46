"""Plain baselines: what scikit-learn says, said by stored arrays; and a run folder like any other."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from qvit.data.arrays import Dataset
from qvit.data.augment import apply_element
from qvit.distill.teacher import Teacher
from qvit.errors import ConfigError, RunError
from qvit.evaluation.metrics import auc
from qvit.models import Baseline, BaselineConfig, count_parameters
from qvit.models.baselines import BASELINES
from qvit.training import fitted
from qvit.training.config import TrainConfig
from qvit.training.distributed import Team
from qvit.training.fitted import (
    NEIGHBOURS,
    PENALTIES,
    Examples,
    check_alone,
    choose_neighbours,
    choose_penalty,
    fit_baseline,
    flattened,
    regression,
)
from qvit.training.folder import Run
from qvit.training.options import OF_BASELINES, RunConfig, resolve
from qvit.training.prediction import predict
from qvit.training.run import train_run
from qvit.training.statistics import channel_statistics

TASKS = ("binary", "multi-class", "ordinal", "multi-label")
PLAIN = TrainConfig(augment="none")


def fit(data: Dataset, arch: str, config: TrainConfig = PLAIN, *, seed: int = 0, **options: Any) -> Baseline:
    """A baseline, fitted to the data's training images."""
    info = data.info
    model = Baseline(BaselineConfig(arch, data.size, info.channels, info.num_classes, **options))
    model.preprocess.set_statistics(*channel_statistics(data.train))
    fit_baseline(model, data, config, seed=seed)
    return model


def features(model: Baseline, data: Dataset, split: str) -> Any:
    images = data[split].batch(np.arange(len(data[split])))[0]
    return model.forward_features(images).numpy()


def examples(labels: Any, classes: int, *, several: bool = False, width: int = 4) -> Examples:
    values = np.random.default_rng(3).normal(size=(len(labels), width)).astype(np.float32)
    return Examples(values, labels, values, np.arange(len(labels)), classes, several, 0, 1)


# --- against scikit-learn ---


@pytest.mark.parametrize("task", TASKS)
def test_logistic_is_scikit_learns(make_data: Callable[..., Dataset], task: str) -> None:
    """On standardised features, of several labels one regression each."""
    data = make_data(task)
    model = fit(data, "logistic", penalty=0.01)
    train, test = features(model, data, "train").astype(float), features(model, data, "test").astype(float)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / spread, (test - mean) / spread
    plain = LogisticRegression(C=1 / (0.01 * len(train)), max_iter=300)
    labels = data.train.labels
    if task == "multi-label":
        expected = np.stack([plain.fit(train, column).predict_proba(test)[:, 1] for column in labels.T], axis=1)
    else:
        expected = plain.fit(train, labels[:, 0]).predict_proba(test)
    assert predict(model, data.test, task) == pytest.approx(expected, abs=1e-5)
    assert count_parameters(model) == data.info.num_classes * (279 + 1)


@pytest.mark.parametrize("task", TASKS)
def test_extra_trees_are_scikit_learns(
    make_data: Callable[..., Dataset], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: list[ExtraTreesClassifier] = []

    def kept(forest: Any, *more: Any) -> Any:
        grown.append(forest)
        return flattened(forest, *more)

    monkeypatch.setattr(fitted, "flattened", kept)
    data = make_data(task)
    model = fit(data, "extra_trees", trees=20)
    [forest] = grown
    said = forest.predict_proba(features(model, data, "test"))
    expected = np.stack([each[:, 1] for each in said], axis=1) if task == "multi-label" else said
    assert len(forest.estimators_) == 20
    assert predict(model, data.test, task) == pytest.approx(expected, abs=1e-5)
    model.head.check()


def test_a_threshold_between_numbers_is_rounded_down() -> None:
    """The next number of float32 above it must not count as no more."""
    above, below = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(-1))
    thresholds = np.array([np.float64(above), (np.float64(above) + np.float64(below)) / 2, np.float64(below)])
    thresholds[1] = np.nextafter(np.float64(above), -1)  # nearest to `above`, but less
    found = fitted._rounded_down(thresholds)
    assert found.dtype == np.float32
    assert found.tolist() == [above, below, below]


def test_a_label_that_all_images_have_is_certain_to_trees() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([np.ones(30, int), rng.integers(0, 2, 30), np.zeros(30, int)], axis=1)
    forest = ExtraTreesClassifier(5, random_state=0).fit(rng.normal(size=(30, 4)), labels)
    leaves = flattened(forest, 3, several=True)["leaves"]
    assert (leaves[:, 0] == 1).all()
    assert (leaves[:, 2] == 0).all()
    assert 0 < leaves[:, 1].mean() < 1


@pytest.mark.parametrize("task", TASKS)
def test_nearest_asks_the_nearest_training_images(make_data: Callable[..., Dataset], task: str) -> None:
    data = make_data(task)
    model = fit(data, "nearest", neighbours=3)
    train, test = features(model, data, "train").astype(float), features(model, data, "test").astype(float)
    spread, labels, classes = train.std(axis=0), data.train.labels, data.info.num_classes
    told = labels if task == "multi-label" else np.array([[label == k for k in range(classes)] for (label,) in labels])
    found = predict(model, data.test, task)
    for image, said in zip(test, found, strict=True):
        three = np.argsort([(((image - other) / spread) ** 2).sum() for other in train])[:3]
        assert said == pytest.approx((told[three].sum(axis=0) + told.mean(axis=0)) / 4, abs=1e-5)
    columns = 3 if task == "multi-label" else 1
    assert count_parameters(model) == len(train) * (279 + columns) + 2 * 279 + 1


@pytest.mark.parametrize("task", TASKS)
def test_commonest_says_how_common_each_class_is(make_data: Callable[..., Dataset], task: str) -> None:
    data = make_data(task)
    labels, classes = data.train.labels, data.info.num_classes
    if task == "multi-label":
        expected = [(column.sum() + 1) / (len(labels) + 2) for column in labels.T]
    else:
        expected = [((labels == k).sum() + 1) / (len(labels) + classes) for k in range(classes)]
    found = predict(fit(data, "commonest"), data.test, task)
    assert found == pytest.approx(np.tile(expected, (len(data.test), 1)), abs=1e-6)
    assert auc(data.test.labels, found, task) == 0.5


# --- what is chosen ---


def test_the_penalty_is_that_of_the_least_loss_on_folds() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(60, 3))
    labels = (truth[:, :1] + rng.normal(size=(60, 1)) > 0).astype(np.int64)
    few = examples(labels, 2)
    assert tuple(sorted(PENALTIES, reverse=True)) == PENALTIES
    assert choose_penalty(truth, labels, few) < 1.0, "something can be learnt"
    assert choose_penalty(rng.normal(size=(60, 40)), labels, few) == 1.0, "nothing can"
    assert choose_penalty(truth[:9], labels[:9], few) == 1.0, "too few to divide"


def test_how_many_neighbours_is_that_of_the_least_loss_on_others() -> None:
    """Of pairs of twins one, of clouds many; and no image asks itself."""
    rng = np.random.default_rng(2)
    labels = torch.from_numpy(rng.integers(0, 2, (60, 1)))
    twins = torch.from_numpy(rng.normal(size=(60, 4)).repeat(2, axis=0)).float()
    twice = labels.repeat_interleave(2, dim=0)
    assert choose_neighbours(twins, twice, examples(twice.numpy(), 2)) == 1
    cloud = torch.from_numpy(rng.normal(size=(120, 4)) + 1.0 * twice.numpy()).float()
    assert choose_neighbours(cloud, twice, examples(twice.numpy(), 2)) >= 9
    several = torch.cat([twice, 1 - twice], dim=1)
    assert choose_neighbours(twins, several, examples(several.numpy(), 2, several=True)) == 1
    assert choose_neighbours(twins[:1], twice[:1], examples(twice[:1].numpy(), 2)) == NEIGHBOURS[0]


@pytest.mark.parametrize("several", [False, True])
def test_a_class_that_no_image_has(several: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3))
    labels = rng.integers(0, 2, (20, 1)) * 2
    if several:
        labels = np.concatenate([labels // 2, np.zeros((20, 1), int), np.ones((20, 1), int)], axis=1)
    weight, bias = regression(values, labels, 0.1, examples(labels, 3, several=several))
    logits = values @ weight.T + bias
    if several:
        assert (logits[:, 1] == -20).all()
        assert (logits[:, 2] == 20).all()
    else:
        assert (logits[:, 1] < logits[:, [0, 2]].min(axis=1) - 15).all()
    alone = np.full((20, 1), 1)
    weight, bias = regression(values, alone, 0.1, examples(alone, 2))
    assert (weight == 0).all()
    assert bias.tolist() == [-20, 0]


# --- what is seen ---


@pytest.mark.parametrize(("most", "rows"), [(20_000, 8 * 37), (100, 37)])
def test_images_are_seen_under_all_symmetries_or_one(
    make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, most: int, rows: int
) -> None:
    seen: list[Examples] = []
    monkeypatch.setitem(
        fitted.FITTERS, "commonest", lambda config, found: seen.append(found) or {"logits": np.zeros(4)}
    )
    monkeypatch.setattr(fitted, "MOST_ROWS", most)
    monkeypatch.setattr(fitted, "BATCH", 64)
    data = make_data()
    model = fit(data, "commonest", TrainConfig())
    [found] = seen
    assert found.rows.shape == (rows, 279)
    images = data.train.batch(np.arange(37))[0]
    views = [model.forward_features(apply_element(images, element, "d4")).numpy() for element in range(8)]
    for row, image in zip(found.rows, found.image, strict=True):
        assert min(np.abs(row - view[image]).max() for view in views) < 1e-5
    assert np.abs(found.features - views[0]).max() < 1e-6
    assert sorted(found.image.tolist()) == sorted([*range(37)] * (rows // 37))
    assert most > 1000 or np.abs(found.rows - found.features).max() > 0.1, "drawn, not all as they are"


# --- a run like any other ---


@pytest.mark.long
@pytest.mark.parametrize("arch", BASELINES)
def test_a_run(config: Callable[..., RunConfig], make_npz: Callable[..., Path], tmp_path: Path, arch: str) -> None:
    options = {"dataset": str(make_npz("ordinal")), "model": arch, "task": "ordinal"}
    told: list[int] = []
    run = train_run(resolve(options), tmp_path / "run", on_epoch=lambda record, seconds: told.append(record.epoch))
    [record] = run.history
    assert told == [1] == [record.epoch] == [run.result.best_epoch]
    assert (record.val_auc, record.tta) == (run.result.val.auc, run.result.tta)
    assert math.isfinite(record.train_loss)
    model, data = run.load_model(), run.load_data()
    assert run.result.parameters == count_parameters(model)
    assert predict(model, data.test, "ordinal", group=run.result.tta) == pytest.approx(
        run.predictions("test"), abs=1e-12
    )
    assert "parameters" not in run.config, "not known before it is fitted"
    assert {path.name for path in run.folder.iterdir()} >= {"config.json", "model.safetensors", "result.json"}
    assert not (run.folder / "state.pt").exists()
    again = train_run(resolve(options), tmp_path / "run", resume=True)
    assert again.result == run.result
    (run.folder / "result.json").unlink()
    anew = train_run(resolve(options), tmp_path / "run", resume=True)
    assert anew.result == run.result, "one that was interrupted is fitted anew, to the same"


@pytest.mark.long
def test_a_fold_is_held_out(make_npz: Callable[..., Path], tmp_path: Path) -> None:
    options = {"dataset": str(make_npz("binary")), "model": "logistic", "folds": 3, "fold": 2}
    run = train_run(resolve(options | {"keep": "last", "tta": "always"}), tmp_path / "run")
    assert str(run.fold) == "fold 2 of 3"
    assert run.result.val == run.result.test


@pytest.mark.long
def test_others_learn_from_it(make_npz: Callable[..., Path], tmp_path: Path) -> None:
    """Its logits are those of a teacher, alone or in an ensemble."""
    options = {"dataset": str(make_npz("binary"))}
    runs = [train_run(resolve(options | {"model": arch}), tmp_path / arch) for arch in ("extra_trees", "commonest")]
    teacher = Teacher.of_runs([run.folder for run in runs])
    images = runs[0].load_data().test.batch(np.arange(5))[0]
    alone = [run.load_model()(images) for run in runs]
    assert torch.allclose(teacher.outputs(images).logits, (alone[0] + alone[1]) / 2)
    teacher.check_fits(runs[0].load_data(), features=True)


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"dataset": "phantom", "model": "logistic", "epochs": 7})
    assert str(caught.value) == (
        "logistic is fitted, not trained by steps, so it takes no epochs (got 7). Leave it out; of the options of "
        "training it takes augment, tta, keep, device, threads."
    )
    usual = TrainConfig()
    for name, value in {"augment": "none", "tta": "never", "keep": "last", "device": "cpu:0", "threads": 2}.items():
        found = resolve({"dataset": "phantom", "model": "nearest", name: value})
        assert getattr(found.train, name) == value != getattr(usual, name)
        assert name in OF_BASELINES


def test_nobody_else_teaches_it_and_it_is_fitted_alone(make_npz: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    options: dict[str, Any] = {"dataset": str(make_npz()), "model": "commonest"}
    with pytest.raises(ConfigError) as caught:
        train_run(resolve(options), tmp_path / "taught", origin=run)
    assert str(caught.value) == ("commonest is fitted to labels alone: leave out the guide and the run to start from.")
    with pytest.raises(
        ConfigError, match=r"^stacked: commonest cannot be trained in a stack: commonest is fitted, not"
    ):
        train_run(resolve(options | {"stacked": True}), tmp_path / "stacked")
    with pytest.raises(ConfigError) as caught:
        check_alone("nearest", None, None, Team(count=2))
    assert str(caught.value) == "nearest is fitted by one process, found 2. Start one process."


@pytest.mark.parametrize("arch", ["extra_trees", "nearest"])
def test_damaged_arrays_are_refused(make_npz: Callable[..., Path], tmp_path: Path, arch: str) -> None:
    run = train_run(resolve({"dataset": str(make_npz("binary")), "model": arch}), tmp_path / "run")
    whole = safetensors.torch.load(run.weights_path.read_bytes())
    name, value = {"extra_trees": ("head.other", 10**6), "nearest": ("head.labels", 7)}[arch]
    damaged = whole[name].clone()
    damaged[0] = value
    safetensors.torch.save_file(whole | {name: damaged}, run.weights_path)
    with pytest.raises(RunError, match="does not fit the model in config"):
        Run(run.folder).load_model()
    fewer = {key: array for key, array in whole.items() if key != name}
    safetensors.torch.save_file(fewer, run.weights_path)
    with pytest.raises(RunError, match="does not fit the model in config"):
        Run(run.folder).load_model()


@pytest.mark.parametrize("arch", BASELINES)
def test_the_same_seed_gives_the_same_arrays(make_data: Callable[..., Dataset], arch: str) -> None:
    data = make_data()
    first, again, other = (fit(data, arch, TrainConfig(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    if arch == "extra_trees":
        assert json.dumps(first["head.feature"].tolist()) != json.dumps(other["head.feature"].tolist())
