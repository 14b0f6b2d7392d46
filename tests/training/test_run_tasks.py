"""All four tasks from file to result, in colour and grey; and what is easy is learnt."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.errors import QvitError
from qvit.evaluation.metrics import AbsentClassWarning
from qvit.training.evaluated import evaluate_run
from qvit.training.options import RunConfig, resolve
from qvit.training.run import train_run

MakeConfig = Callable[..., RunConfig]
MakeNpz = Callable[..., Path]
TASKS: list[tuple[str, dict[str, Any], int, int]] = [
    ("binary", {}, 2, 1),
    ("multi-class", {"class_weights": "balanced"}, 4, 3),
    ("ordinal", {"task": "ordinal"}, 5, 3),
    ("ordinal", {"task": "ordinal", "loss": "emd"}, 5, 1),
    ("multi-label", {}, 3, 1),
    ("multi-label", {"task": "multi-label", "class_weights": "balanced", "label_smoothing": 0.1}, 3, 3),
]


@pytest.mark.usefixtures("nudged")
@pytest.mark.parametrize(("task", "options", "classes", "channels"), TASKS)
def test_from_file_to_result(
    config: MakeConfig,
    make_npz: MakeNpz,
    tmp_path: Path,
    task: str,
    options: dict[str, Any],
    classes: int,
    channels: int,
) -> None:
    run = train_run(config(make_npz(task, channels=channels), epochs=1, **options), tmp_path / "run")
    assert run.config["task"] == task
    assert run.config["model_config"]["in_chans"] == channels
    assert run.config["model_config"]["num_classes"] == classes
    scores = run.predictions("test")
    assert scores.shape == (23, classes)
    sums = scores.sum(axis=1)
    assert (np.abs(sums - 1).max() > 0.01) if task == "multi-label" else (np.abs(sums - 1).max() < 1e-12)
    assert evaluate_run(run) == run.result.test


@pytest.mark.trains
@pytest.mark.parametrize(("task", "options"), [TASKS[1][:2], TASKS[3][:2], TASKS[5][:2]])
def test_what_is_easy_is_learnt(
    config: MakeConfig, make_npz: MakeNpz, tmp_path: Path, task: str, options: dict[str, Any]
) -> None:
    settings = config(make_npz(task, noise=25.0), epochs=6, lr=0.05, batch_size=8, tta="never", **options)
    assert train_run(settings, tmp_path / "run").result.test.auc > 0.95


@pytest.mark.trains
def test_what_is_random_is_not_learnt(config: MakeConfig, make_arrays: Any, tmp_path: Path) -> None:
    """A test figure above chance on labels without meaning would be a leak."""
    arrays = make_arrays("binary")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, arrays[f"{split}_images"].shape).astype(np.uint8)
    for name in ("test_images", "test_labels"):
        arrays[name] = np.concatenate([rng.permutation(arrays[name]) for _ in range(20)])
    np.savez(tmp_path / "noise.npz", **arrays)
    run = train_run(config(tmp_path / "noise.npz", epochs=3, tta="never"), tmp_path / "run")
    assert run.result.test.auc == pytest.approx(0.5, abs=0.1)


@pytest.mark.usefixtures("nudged")
def test_a_class_that_the_test_split_lacks(config: MakeConfig, make_arrays: Any, tmp_path: Path) -> None:
    import json

    arrays = make_arrays("multi-class")
    arrays["test_labels"] %= 3
    np.savez(tmp_path / "lacking.npz", **arrays)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train_run(config(tmp_path / "lacking.npz", epochs=1), tmp_path / "run")
    assert any(isinstance(each.message, AbsentClassWarning) for each in caught)
    figures = run.result.test
    several = ("_interval", "_by_class")
    assert all(np.isfinite(value) for name, value in vars(figures).items() if not name.endswith(several))
    assert [rate is None for rate in figures.sensitivity_by_class or ()] == [False, False, False, True]
    text = (run.folder / "result.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_of_one_class_is_told_before_training(
    config: MakeConfig, make_arrays: Any, tmp_path: Path, split: str
) -> None:
    arrays = make_arrays("binary")
    arrays[f"{split}_labels"][:] = 1
    np.savez(tmp_path / "constant.npz", **arrays)
    epochs: list[Any] = []
    told = (
        rf"^{tmp_path / 'constant.npz'}: expected at least two classes in {split}_labels, found only \[1\]\. AUC "
        r"compares classes: add images of another, or split anew\.$"
    )
    with pytest.raises(QvitError, match=told):
        train_run(config(tmp_path / "constant.npz"), tmp_path / "run", on_epoch=lambda *each: epochs.append(each))
    assert not epochs


@pytest.mark.trains
def test_floats_train_as_the_bytes_they_are(config: MakeConfig, make_arrays: Any, tmp_path: Path) -> None:
    arrays = make_arrays("binary")
    np.savez(tmp_path / "bytes.npz", **arrays)
    floats = {k: v / 255.0 if k.endswith("images") else v for k, v in arrays.items()}
    np.savez(tmp_path / "floats.npz", **floats)
    first, second = (
        train_run(config(tmp_path / f"{name}.npz", epochs=1), tmp_path / name) for name in ("bytes", "floats")
    )
    assert first.result == second.result


def test_phantom_size_reaches_the_images() -> None:
    assert resolve({"dataset": "phantom", "size": "32"}).size == 32
