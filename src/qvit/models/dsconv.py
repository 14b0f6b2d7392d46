"""A convolutional network of about a thousand parameters: depthwise separable, pooled over the whole image.

The kind of network that is best at this size otherwise, and so what a small transformer has to be compared with. Blocks
are those of Howard et al. 2017 (MobileNets, arXiv:1704.04861, figure 3).
"""

from dataclasses import dataclass, replace
from math import log

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ModelError
from qvit.models.limits import MOST_WEIGHTS, check_at_most, check_size
from qvit.models.preprocess import Preprocess
from qvit.models.vit import Classifier, check_images

DSCONV = "dsconv"
SEEN = 28  # pixels: larger images are averaged to between so many and twice as many
WIDENING = 2  # times the filters: the channels that are pooled, by default and where there is a choice


@dataclass(frozen=True)
class DSConvConfig:
    """Everything that determines a depthwise separable network.

    A convolution to `filters` channels, `stages` of a depthwise and a pointwise one, the last to `pooled` channels,
    whose means are classified. The first convolution and every stage but the first halve the sides.
    Raises `ModelError` for sizes beyond `models.limits`.
    """

    arch: str = DSCONV
    img_size: int = 28
    in_chans: int = 3
    num_classes: int = 2
    filters: int = 12
    pooled: int = 24
    stages: int = 2

    def __post_init__(self) -> None:
        if self.arch != DSCONV:
            raise ModelError(f"Expected arch='{DSCONV}' of a depthwise separable network, got '{self.arch}'.")
        for name in ("img_size", "in_chans", "num_classes", "filters", "pooled", "stages"):
            check_size(name, getattr(self, name))
        check_at_most("The number of weights", self.parameters, MOST_WEIGHTS)

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        width, last = self.filters, self.pooled
        stages = (self.stages - 1) * (11 * width + width**2 + 2 * width) + 11 * width + width * last + 2 * last
        return 9 * self.in_chans * width + 2 * width + stages + self.num_classes * (last + 1)

    def matched(self, target: int, tolerance: float) -> "DSConvConfig":
        """Return the network of `target` parameters, up to `tolerance`, a fraction of it, with other channels.

        Of all that fit, one whose last channels are about twice as many as the others. Raises `ModelError` if none
        does.
        """
        fits = []
        for filters in range(1, 1 + int(target**0.5)):
            least = replace(self, filters=filters, pooled=1).parameters
            step = filters + 2 + self.num_classes
            pooled = 1 + round((target - least) / step)
            if pooled >= 1 and abs(least + (pooled - 1) * step - target) <= tolerance * target:
                fits.append((filters, pooled))
        if not fits:
            raise ModelError(
                f"No depthwise separable network of {self.stages} stages comes within {tolerance:.0%} of {target} "
                "parameters; choose another size."
            )
        filters, pooled = min(fits, key=lambda fit: abs(log(fit[1] / fit[0] / WIDENING)))
        return replace(self, filters=filters, pooled=pooled)


class DSConv(Classifier):
    """A depthwise separable network from images `(b, c, s, s)`, uint8 or floats in [0, 1], to logits `(b, k)`.

    The method names are timm's, as in our `ViT`.
    """

    def __init__(self, config: DSConvConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes, self.num_features = config.num_classes, config.pooled
        self.preprocess = Preprocess(config.in_chans)
        width = config.filters
        outs = [width] * (config.stages - 1) + [config.pooled]
        self.body = nn.Sequential(
            nn.Conv2d(config.in_chans, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(_stage(width, out, stride=1 if number == 0 else 2) for number, out in enumerate(outs)),
        )
        self.head = nn.Linear(config.pooled, config.num_classes)

    def forward(self, images: Tensor) -> Float[Tensor, "b k"]:
        """Return the logits of images `(b, c, s, s)`; raises `ModelError` for another shape or dtype."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Float[Tensor, "b f"]:
        """Return the features of images, pooled over all positions."""
        check_images(images, in_chans=self.config.in_chans, img_size=self.config.img_size)
        pixels, factor = self.preprocess(images), self.config.img_size // SEEN
        if factor > 1:
            pixels = F.avg_pool2d(pixels, factor)
        return self.body(pixels).mean(dim=(-2, -1))

    def forward_head(self, features: Float[Tensor, "b f"], *, pre_logits: bool = False) -> Float[Tensor, "b k"]:
        """Return the logits of features, or with `pre_logits` the features as they are."""
        return features if pre_logits else self.head(features)


def _stage(width: int, out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )
