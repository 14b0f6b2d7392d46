from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from qvit.data.arrays import load_dataset
from qvit.data.phantom import make_phantom
from qvit.data.registry import get_info


@pytest.fixture(scope="module")
def phantom() -> dict[str, np.ndarray]:
    return make_phantom()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures, but fewer: to draw all takes a second."""
    monkeypatch.setattr("qvit.data.phantom.SPLITS", {"train": 250, "val": 30, "test": 40})


@pytest.mark.long
def test_layout_is_that_of_a_medmnist_file(phantom: dict[str, np.ndarray]) -> None:
    info = get_info("phantom")
    assert set(phantom) == {f"{s}_{p}" for s in ("train", "val", "test") for p in ("images", "labels")}
    for split, count in info.splits.items():
        assert phantom[f"{split}_images"].shape == (count, 28, 28, 3)
        assert phantom[f"{split}_labels"].shape == (count, 1)
        assert phantom[f"{split}_images"].dtype == phantom[f"{split}_labels"].dtype == np.uint8
        shares = np.bincount(phantom[f"{split}_labels"][:, 0]) / count
        assert len(shares) == info.num_classes
        assert 0.14 < shares.min() < shares.max() < 0.28
        assert shares.max() - shares.min() > 0.05, "classes are meant to be unbalanced"


@pytest.mark.long
def test_a_seed_gives_the_same_arrays_and_another_gives_others(few: None) -> None:
    first, again, other = make_phantom(0), make_phantom(0), make_phantom(1)
    for key, array in first.items():
        assert np.array_equal(array, again[key])
        assert not np.array_equal(array, other[key])


def test_the_colours_of_the_classes(few: None) -> None:
    arrays = make_phantom()
    images, labels = arrays["train_images"].astype(float), arrays["train_labels"][:, 0]
    found = [[*images[labels == c].mean((0, 1, 2)), images[labels == c].std()] for c in range(5)]
    # Red, green and blue, and how they spread: what was drawn when the classes were last thought over.
    expected = [
        [222.8, 203.8, 215.8, 44.7],
        [212.1, 193.7, 208.5, 45.0],
        [221.7, 201.2, 212.6, 43.5],
        [219.2, 197.5, 209.9, 43.5],
        [212.9, 195.7, 211.6, 46.2],
    ]
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_splits_share_no_image(phantom: dict[str, np.ndarray]) -> None:
    images = np.concatenate([phantom[f"{split}_images"] for split in ("train", "val", "test")])
    assert len({image.tobytes() for image in images}) == len(images)


def shape_and_colour(images: np.ndarray) -> np.ndarray:
    """What depends on neither position nor rotation: colours, the dark area and its outline, texture."""
    light = images.mean(-1) / 255
    dark = light < np.median(light, axis=(1, 2), keepdims=True) - 0.2
    area = dark.mean((1, 2))
    outline = np.diff(dark, axis=1).mean((1, 2)) + np.diff(dark, axis=2).mean((1, 2))
    texture = np.abs(np.diff(light, 2, axis=1)).mean((1, 2))
    colours = np.sort(images.reshape(len(images), -1, 3), axis=1)[:, 40::80].reshape(len(images), -1) / 255
    return np.column_stack([colours, area, outline, texture, area**2, outline**2])


@pytest.mark.long
def test_learnable_but_not_by_pixels_alone(phantom: dict[str, np.ndarray]) -> None:
    def test_auc(features: Callable[[np.ndarray], np.ndarray], c: float) -> float:
        # Every other picture tells it as well, in half the time.
        train, test = (features(phantom[f"{s}_images"][::2]) for s in ("train", "test"))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=60, tol=1e-2))
        scores = model.fit(train, phantom["train_labels"][::2, 0]).predict_proba(test)
        return roc_auc_score(phantom["test_labels"][::2, 0], scores, multi_class="ovr")

    pixels = test_auc(lambda images: images.reshape(len(images), -1)[:, ::2].astype(np.float32), 1e-3)
    assert 0.70 < pixels < 0.85
    assert pixels + 0.05 < test_auc(shape_and_colour, 1.0) < 0.97


@pytest.mark.long
def test_size_scales_the_drawing(few: None) -> None:
    large = load_dataset("phantom", 34)
    assert large.train.images.shape == (250, 3, 34, 34)

    # Cells stay in the middle and cover the same share: the mean picture is the same, only finer.
    def middle(x: np.ndarray) -> float:
        return float(x[..., x.shape[-2] // 2, x.shape[-1] // 2].mean() - x[..., 0, 0].mean())

    small = make_phantom()["train_images"].transpose(0, 3, 1, 2)
    assert middle(small) < -60
    assert middle(large.train.images) == pytest.approx(middle(small), abs=8)


@pytest.mark.long
def test_loading(few: None) -> None:
    data, arrays = load_dataset("phantom"), make_phantom()
    for split in ("train", "val", "test"):
        assert np.array_equal(data[split].images.transpose(0, 2, 3, 1), arrays[f"{split}_images"])
        assert np.array_equal(data[split].labels, arrays[f"{split}_labels"])
        assert data[split].labels.dtype == np.int64
    assert data.path is None
    assert data.info is get_info("phantom")
    assert data.digest != load_dataset("phantom", 30).digest


def test_the_whole_phantom_has_exactly_the_shares_of_its_classes(phantom: dict[str, np.ndarray]) -> None:
    assert {split: len(phantom[f"{split}_labels"]) for split in ("train", "val", "test")} == {
        "train": 2000,
        "val": 400,
        "test": 800,
    }
    counts = np.bincount(phantom["test_labels"][:, 0]).tolist()
    assert counts == [192, 144, 208, 120, 136]
