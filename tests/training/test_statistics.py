"""Statistics of training images and of their features, read in parts."""

from collections.abc import Callable

import pytest
import torch

from qvit.data.arrays import Dataset
from qvit.models import create_model
from qvit.models.preprocess import PatchFeatures
from qvit.training import statistics
from qvit.training.statistics import normalise_by


@pytest.mark.parametrize("part", [None, 432])  # bytes at a time: those of one image
def test_features_of_all_training_images_have_mean_0_and_deviation_1(
    make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, part: int | None
) -> None:
    if part is not None:
        monkeypatch.setattr(statistics, "_FEATURE_BYTES", part)
    data = make_data()
    layer = create_model("vit_4q1h", features="contrast", num_classes=4, img_size=12).preprocess
    assert isinstance(layer, PatchFeatures)
    normalise_by(layer, data.train)
    found = layer(torch.from_numpy(data.train.images)).double()
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(24).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(24).double(), atol=1e-4, rtol=0)
    assert not torch.equal(layer.mean, torch.full((3,), 0.5))
