"""The first layer: what it makes of images, and that its statistics are saved with the weights."""

import torch

from qvit.models import create_model
from qvit.models.features import patch_features
from qvit.models.preprocess import PatchFeatures
from qvit.models.vit import ViT


def test_features_are_normalised_by_their_own_statistics() -> None:
    layer = PatchFeatures(2, "dct", 4)
    images = torch.randint(0, 256, (6, 2, 8, 8), dtype=torch.uint8)
    plain = patch_features(images, "dct", 4)
    assert torch.equal(layer(images), plain)
    mean, std = plain.mean((0, 2, 3)), plain.std((0, 2, 3))
    std[3] = 0.0
    layer.set_feature_statistics(mean, std)
    expected = (plain - mean[:, None, None]) / std.clamp_min(1e-3)[:, None, None]
    torch.testing.assert_close(layer(images), expected, atol=1e-4, rtol=1e-4)


def test_statistics_are_saved_with_the_weights() -> None:
    model = create_model("vit_4q1h", features="contrast", img_size=12)
    assert isinstance(model, ViT)
    assert isinstance(model.preprocess, PatchFeatures)
    state = model.state_dict()
    assert {"preprocess.mean", "preprocess.feature_mean", "preprocess.feature_std"} <= state.keys()
    assert state["preprocess.feature_std"].shape == (3 * 8,)
    assert model.patch_embed.weight.shape == (4, 24, 1, 1)
