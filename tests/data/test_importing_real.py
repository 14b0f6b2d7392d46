"""Real folders and tables, as people have them."""

import os
from pathlib import Path

import numpy as np
import pytest

from qvit.data.arrays import load_dataset
from qvit.data.options import ImportOptions

IMAGES = Path(os.environ.get("QVIT_IMAGES", "missing"))
pytestmark = pytest.mark.skipif(not IMAGES.is_dir(), reason="QVIT_IMAGES does not name the folder of real images")


@pytest.mark.long
def test_white_cells(tmp_path: Path) -> None:
    """JPEGs of several sizes in five very unequal classes."""
    with pytest.warns(UserWarning, match="groups are not known"):
        data = load_dataset(IMAGES / "white-cells", root=tmp_path)
    assert data.info.labels == ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
    counts = {split: np.bincount(part.labels[:, 0], minlength=5) for split, part in data.splits.items()}
    assert sum(counts.values()).tolist() == [3, 88, 33, 20, 207]
    assert counts["train"][0] == counts["val"][0] == counts["test"][0] == 1
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert np.abs(counts[split] - share * np.array([3, 88, 33, 20, 207])).max() < 1.5
    assert data.info.channels == 3


@pytest.mark.long
@pytest.mark.parametrize(("label", "classes"), [("sex", ("f", "m")), ("projection", ("ap", "pa"))])
def test_chest_views(tmp_path: Path, label: str, classes: tuple[str, str]) -> None:
    """243 radiographs of 71 patients, each of whom stands in one split."""
    options = ImportOptions(label=label, group_by="patient")
    data = load_dataset(IMAGES / "chest-views" / "data.csv", size=32, root=tmp_path, importing=options)
    assert (data.info.labels, data.info.task, data.info.channels) == (classes, "binary", 1)
    assert sum(map(len, data.splits.values())) == 243
    assert data.groups is not None
    sides = [set(groups.tolist()) for groups in data.groups.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 71
    whole = np.concatenate([part.labels for part in data.splits.values()]).mean()
    for part in data.splits.values():
        assert abs(part.labels.mean() - whole) < 0.1
