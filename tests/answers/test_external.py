"""A trained model tested on other data: classes by name, groups averaged, what is missing told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from answers.conftest import NAMES, arrays, images
from qvit.answers import external
from qvit.answers.external import evaluate_external
from qvit.errors import ConfigError, DataError
from qvit.evaluation.metrics import evaluate
from qvit.training.folder import Run

Trained = Callable[..., Path]


def folder_of(path: Path, counts: dict[str, int], *, side: int = 12, patients: int = 3) -> Path:
    """A picture of noise for each name and number, called after patients in turn."""
    for place, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True)
        for number, image in enumerate(images(np.full(count, place % 3), seed=place, side=side)):
            Image.fromarray(image).save(path / name / f"p{place}{number % patients}-{number:02}.png")
    return path


def test_a_file_is_measured_as_its_own_would_be(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    np.savez(tmp_path / "other.npz", **arrays())
    found = evaluate_external(run, tmp_path / "other.npz")
    assert found.measured.figures == run.result.test
    assert len(found.measured.predicted.labels) == 30
    assert (found.measured.groups, found.measured.by_group) == (None, None)
    assert (found.absent, found.unknown, found.broken) == ((), {}, ())
    assert evaluate_external(run, tmp_path / "other.npz", split="val").measured.figures == run.result.val


def test_all_pictures_of_a_folder_are_taken(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    path = folder_of(tmp_path / "pictures", {"Dark ": 7, "BRIGHT": 5, "red": 6})
    found = evaluate_external(run, path)
    assert len(found.measured.predicted.labels) == 18
    assert found.absent == ()
    model = run.load_model()
    rows = [
        (number, np.asarray(Image.open(file)).transpose(2, 0, 1))
        for name, number in (("BRIGHT", 0), ("Dark ", 1), ("red", 2))
        for file in sorted((path / name).iterdir())
    ]
    scores = model(torch.from_numpy(np.stack([pixels for _, pixels in rows]))).double().softmax(dim=1)
    told = evaluate(np.array([[number] for number, _ in rows]), scores.detach().numpy(), "multi-class")
    assert found.measured.figures.auc == pytest.approx(told["auc"])
    assert found.measured.figures.kappa == pytest.approx(told["kappa"])


def test_splits_of_a_folder_are_taken_if_there_are_any(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    for side, count in (("train", 5), ("test", 3)):
        folder_of(tmp_path / "pictures" / side, dict.fromkeys(NAMES, count))
    assert len(evaluate_external(run, tmp_path / "pictures").measured.predicted.labels) == 9
    assert len(evaluate_external(run, tmp_path / "pictures", split="train").measured.predicted.labels) == 15
    with pytest.raises(DataError, match=r"found none \(no picture in val\)\.$"):
        evaluate_external(run, tmp_path / "pictures", split="val")


@pytest.mark.filterwarnings("ignore::qvit.evaluation.AbsentClassWarning")
def test_what_does_not_match_is_told(trained: Trained, tmp_path: Path) -> None:
    path = folder_of(tmp_path / "pictures", {"bright": 4, "red": 4, "green": 5})
    (path / "red" / "broken.png").write_text("text")
    found = evaluate_external(Run(trained()), path)
    assert len(found.measured.predicted.labels) == 8
    assert found.absent == ("dark",)
    assert found.unknown == {"green": 5}
    [broken] = found.broken
    assert broken.startswith(f"{path / 'red' / 'broken.png'}: expected a PNG")
    assert found.measured.figures.sensitivity_by_class is not None
    assert found.measured.figures.sensitivity_by_class[1] is None


def test_measures_over_patients(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    path = folder_of(tmp_path / "pictures", dict.fromkeys(NAMES, 9))
    found = evaluate_external(run, path, group_by="(p[0-9]+)-").measured
    assert found.groups == 9
    assert found.by_group is not None
    assert found.figures.auc == evaluate_external(run, path).measured.figures.auc
    both = evaluate_external(run, path, group_by="p[0-9]([0-9])-").measured
    assert (both.groups, both.mixed) == (0, 3)
    assert both.by_group is None, "each patient has all classes"
    assert found.mixed == 0


def test_classes_are_matched_exactly_before_they_are_without_regard_to_case() -> None:
    assert external._matched(["b", "B", "T"], ["B", "b", "t"]) == [1, 0, 2]
    assert external._matched(["a", "A"], ["A"]) == [0, 0]
    assert external._matched(["X"], ["x", "X "]) == [None], "it may be either"
    assert external._matched(["0", "1"], ["benign", "malignant"]) == [0, 1], "numbers, as many as there are names"
    assert external._matched(["0", "1", "2"], ["benign", "malignant"]) == [None] * 3


def test_several_labels_are_matched_by_name(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained("multi-label"))
    made = arrays("multi-label")
    for split in ("train", "val", "test"):
        labels = made[f"{split}_labels"]
        made[f"{split}_labels"] = np.stack(
            [labels[:, 1], 0 * labels[:, 0] + (np.arange(len(labels)) % 2), labels[:, 0]], 1
        )
    made["class_names"] = np.array(["dark", "green", "bright"])
    np.savez(tmp_path / "other.npz", **made)
    found = evaluate_external(run, tmp_path / "other.npz")
    assert found.measured.figures.auc == run.result.test.auc
    assert found.measured.predicted.classes == ("dark", "bright")
    assert found.unknown == {"green": 15}
    made["class_names"] = np.array(["dark", "green", "blue"])
    np.savez(tmp_path / "other.npz", **made)
    assert evaluate_external(run, tmp_path / "other.npz").absent == ("bright",)


@pytest.mark.filterwarnings("ignore:.*every image has exactly one label")
def test_data_that_cannot_be_measured(trained: Trained, tmp_path: Path) -> None:
    run = Run(trained())
    path = folder_of(tmp_path / "others", {"cat": 2, "dog": 2})
    with pytest.raises(DataError, match=r"expected classes that the run knows \(bright, dark, red\), found cat, dog\."):
        evaluate_external(run, path)
    path = folder_of(tmp_path / "one", {"bright": 2, "dog": 2})
    with pytest.raises(DataError, match=r"expected images of at least two classes that the run knows, found bright\.$"):
        evaluate_external(run, path)
    with pytest.raises(ConfigError, match=r"has no splits, and split='val' was asked for\. Leave the split out\.$"):
        evaluate_external(run, path, split="val")
    with pytest.raises(ConfigError, match=r"^Unknown split 'all'\. Expected one of: train, val, test\.$"):
        evaluate_external(run, path, split="all")
    np.savez(tmp_path / "grey.npz", **arrays(channels=1))
    with pytest.raises(DataError, match=r"expected images in colour, as the run was trained on, found them grey\.$"):
        evaluate_external(run, tmp_path / "grey.npz")
    np.savez(tmp_path / "several.npz", **arrays("multi-label"))
    with pytest.raises(DataError, match=r"expected one class of each image, as the run was trained on, found several"):
        evaluate_external(run, tmp_path / "several.npz")
    with pytest.raises(DataError, match=r"expected several labels of each image, as the run .* found one class"):
        evaluate_external(Run(trained("multi-label")), folder_of(tmp_path / "two", {"bright": 2, "dark": 2}))
    with pytest.raises(ConfigError, match="takes no option label"):
        evaluate_external(run, tmp_path / "grey.npz", label="x")
    shutil.rmtree(path)
    with pytest.raises(DataError, match="found nothing there"):
        evaluate_external(run, tmp_path / "missing.npz")
    folder_of(tmp_path / "broken", {"bright": 1, "dark": 1})
    for file in (tmp_path / "broken").rglob("*.png"):
        file.write_text("text")
    with pytest.raises(DataError, match=r"expected pictures that can be read, found none \(.*broken.*: expected a PNG"):
        evaluate_external(run, tmp_path / "broken")
