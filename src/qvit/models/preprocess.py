"""The first layer of every network: it takes images as they are in files, so that prediction cannot forget a step."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qvit.models.embedding import normalised
from qvit.models.features import Features, count_features, patch_features
from qvit.torch_private import plain

LEAST = 1e-3  # of a deviation: what never varies is not blown up
Images = UInt8[Tensor, "*m b c y x"] | Float[Tensor, "*m b c y x"]


class Preprocess(nn.Module):
    """Normalises images of bytes 0–255 or floats 0–1.

    `mean` and `std` `(c,)` on the 0–1 scale are buffers, saved with the weights; of a stack `(m, c)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((in_chans,), 0.5))
        self.register_buffer("std", torch.full((in_chans,), 0.5))

    def set_statistics(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Normalise by these statistics of the training images from now on."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(LEAST))

    def forward(self, images: Images) -> Float[Tensor, "*m b c y x"]:
        """Return images of mean 0 and deviation 1, as far as `mean` and `std` describe them."""
        return normalised(plain(images), self.mean, self.std)  # the one place where every network takes images in


class PatchFeatures(Preprocess):
    """Makes maps of fixed features of patches (see `models.features`), normalised by statistics of their own.

    `feature_mean` and `feature_std` are buffers `(k,)`, those of all patches of the training images, labels unseen.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, in_chans: int, kind: Features, patch: int) -> None:
        super().__init__(in_chans)
        self.kind, self.patch = kind, patch
        self.count = in_chans * count_features(kind)
        self.register_buffer("feature_mean", torch.zeros(self.count))
        self.register_buffer("feature_std", torch.ones(self.count))

    def set_feature_statistics(self, mean: Float[Tensor, " k"], std: Float[Tensor, " k"]) -> None:
        """Normalise features by these statistics from now on."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std.clamp_min(LEAST))

    def features(self, images: Images) -> Float[Tensor, "*m b k v u"]:
        """Return the features of every patch as they are."""
        return patch_features(plain(images), self.kind, self.patch).to(self.feature_mean.dtype)

    def forward(self, images: Images) -> Float[Tensor, "*m b k v u"]:
        """Return the features of every patch, of mean 0 and deviation 1."""
        return normalised(self.features(images), self.feature_mean, self.feature_std)
