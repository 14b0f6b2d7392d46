"""A split as torch's loaders take one: positions, workers, maps that another process makes anew."""

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from qvit.data import mapped as mapping
from qvit.data import source as loading
from qvit.data.arrays import Split, load_dataset
from qvit.data.transfer import load_images
from qvit.errors import DataError

Save = Callable[..., Path]
WAYS = {"in memory": (2**40, True), "unpacked": (0, True), "in place": (0, False)}


@pytest.fixture(params=WAYS)
def split(
    request: pytest.FixtureRequest, arrays: dict, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Split:
    above, compressed = WAYS[request.param]
    monkeypatch.setattr(loading, "MAP_ABOVE", above)
    data = load_dataset(save(arrays, compressed=compressed), root=tmp_path / "cache")
    assert data.train.mapped == (above == 0)
    return data.train


def test_one_image_and_its_labels(split: Split) -> None:
    for index in (0, 22, -1, -23, np.int64(3), torch.tensor(4)):
        image, labels = split[index]
        assert (image.dtype, image.shape, labels.dtype, labels.shape) == (torch.uint8, (3, 28, 28), torch.int64, (1,))
        assert np.array_equal(image, split.images[int(index)])
        assert np.array_equal(labels, split.labels[int(index)])
    split[0][0].fill_(7)
    assert (split.images[0] != 7).any(), "a sample is a copy"
    for index in (23, -24):
        with pytest.raises(IndexError, match=f"a position below 23, the images of this split, got {index}"):
            split[index]
    wrong: Any
    for wrong in (slice(3), [1, 2], 1.0, "1"):
        with pytest.raises(DataError, match=f"whole number, got {type(wrong).__name__}. Take several with split.batch"):
            split[wrong]
    assert [int(labels) for _, labels in split] == split.labels[:, 0].tolist(), "and it ends"
    with pytest.raises(DataError, match="positions below 23"):
        split.__getitems__([0, 23])


def check_loader(split: Split, workers: int) -> None:
    seen = 0
    for images, labels in DataLoader(split, batch_size=10, num_workers=workers):
        expected = split.batch(range(seen, seen + len(images)))
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])
        seen += len(images)
    assert seen == 23
    (part,) = DataLoader(Subset(split, [3, 1]), batch_size=2)
    assert torch.equal(part[0], split.batch([3, 1])[0])


def test_a_loader_gives_what_batches_do(split: Split) -> None:
    check_loader(split, 0)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("split", ["unpacked"], indirect=True)
def test_a_loader_of_several_processes_gives_what_batches_do(split: Split) -> None:
    check_loader(split, 2)


def test_pickled_and_copied(split: Split) -> None:
    size = len(pickle.dumps(split))
    assert (size < 2000) == split.mapped, "of mapped images the file's name is sent"
    for other in (pickle.loads(pickle.dumps(split)), copy.deepcopy(split)):
        assert other.mapped == split.mapped
        assert np.array_equal(other.images, split.images)
        assert np.array_equal(other.labels, split.labels)
        assert other.images.strides == split.images.strides
    assert not split.mapped or not pickle.loads(pickle.dumps(split)).images.flags.writeable


def test_views_of_maps_are_sent_as_they_are(arrays: dict, save: Save, tmp_path: Path, monkeypatch: Any) -> None:
    """Also of a part, backwards, and of grey images repeated to three channels."""
    monkeypatch.setattr("qvit.data.transfer.MAP_ABOVE", 0)
    path = save({"images": arrays["train_images"][..., 0]}, compressed=False)
    images, _ = load_images(path, size=28, channels=3)
    assert images.images.strides[1] == 0
    for view in (images.images, images.images[5:9], images.images[::-2], images.images[:, :, ::-1, 3:]):
        other = pickle.loads(pickle.dumps(Split(view, images.labels[: len(view)])))
        assert other.mapped
        assert np.array_equal(other.images, view)


def test_another_file_in_its_place_is_not_mapped(arrays: dict, save: Save, monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "MAP_ABOVE", 0)
    path = save(arrays, compressed=False)
    sent = pickle.dumps(load_dataset(path).train)
    save({**arrays, "train_images": arrays["train_images"][::-1]}, compressed=False)
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match="the file that was loaded, found another one in its place"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(DataError, match="found nothing there"):
        pickle.loads(sent)


def test_a_map_of_a_file_that_was_cut(arrays: dict, save: Save, monkeypatch: Any) -> None:
    """Reading there would end the process by a signal; as when a file is saved again over itself."""
    monkeypatch.setattr(loading, "MAP_ABOVE", 0)
    path = save(arrays, compressed=False)
    split = load_dataset(path).train
    os.truncate(path, 5000)
    for read in (lambda: split.batch([22]), lambda: split[22], lambda: pickle.dumps(split)):
        with pytest.raises(
            DataError, match=r"own.npz: expected the file that was loaded, found a shorter one. Load it"
        ):
            read()
    mapping.check_whole(np.zeros(3))
