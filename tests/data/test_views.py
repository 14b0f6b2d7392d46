"""Images under all symmetries: the same whether they are kept or computed when asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qvit.data.arrays import Split
from qvit.data.augment import apply_element
from qvit.data.folds import Chosen
from qvit.data.views import MOST, Views, views_of


def split_of(images: int, side: int = 5) -> Split:
    pixels = np.random.default_rng(images).integers(0, 256, (images, 3, side, side), dtype=np.uint8)
    return Split(pixels, np.arange(images)[:, None])


@pytest.mark.parametrize("most", [0, MOST])
@pytest.mark.parametrize("group", ["none", "mirror", "d4"])
def test_each_image_is_seen_under_its_element(group: str, most: int) -> None:
    split, size = split_of(7), {"none": 1, "mirror": 2, "d4": 8}[group]
    index, elements = torch.tensor([6, 0, 3, 6, 2]), torch.tensor([0, 1, 5, 7, 6]) % size
    images, labels = Views(split, group, most=most).batch(index, elements)
    assert labels.tolist() == [[6], [0], [3], [6], [2]]
    for image, place, element in zip(images, index, elements, strict=True):
        original = torch.from_numpy(split.images[place : place + 1])
        assert torch.equal(image, apply_element(original, int(element), group)[0])
    under_all = Views(split, group, most=most).under_all(index)
    originals = torch.from_numpy(split.images[index.numpy()])
    assert torch.equal(under_all, torch.cat([apply_element(originals, e, group) for e in range(size)]))


def test_views_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moved: list[int] = []

    def counted(images: torch.Tensor, element: int, group: str) -> torch.Tensor:
        moved.append(len(images))
        return apply_element(images, element, group)

    monkeypatch.setattr("qvit.data.views.apply_element", counted)
    split, one = split_of(4), torch.tensor([1])
    for most, asked in ((8 * split.images.nbytes, [4] * 8), (8 * split.images.nbytes - 1, [1] * 16)):
        views = Views(split, "d4", most=most)
        assert moved == []
        views.under_all(one)
        views.under_all(one)
        assert moved == asked
        moved.clear()
    np.save(tmp_path / "images.npy", split.images)
    Views(Split(np.load(tmp_path / "images.npy", mmap_mode="r"), split.labels), "d4").under_all(one)
    assert moved == [1] * 8
    moved.clear()
    both = views_of([split, split_of(4), split], "mirror", most=4 * split.images.nbytes - 1)  # too little for two
    assert len(both) == 2
    both[split].under_all(one)
    assert moved == [1, 1]


def test_whether_views_are_kept_is_told_without_reading_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a fold are copied when they are asked for, all of them if all are."""
    fold = Chosen([split_of(4)], np.array([1, 3]))
    monkeypatch.setattr(Chosen, "images", property(lambda _: pytest.fail("all images were read")))
    assert Views(fold, "d4").batch(torch.tensor([1]), torch.tensor([0]))[1].tolist() == [[3]]
