"""Plain baselines: rules of scikit-learn on fixed pooled features, behind the interface of our networks.

They are fitted by `training.fitted`. What they learn is stored as arrays, and their parameters are the numbers stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from jaxtyping import Float
from torch import Tensor

from qvit.errors import ModelError, nearest
from qvit.models.limits import check_size
from qvit.models.pooled_features import number_of_features, pooled_features
from qvit.models.preprocess import Preprocess
from qvit.models.rules import Constant, Linear, Nearest, Rule, Trees
from qvit.models.vit import Classifier, check_images

RULES: dict[str, type[Rule]] = {
    "logistic": Linear,
    "extra_trees": Trees,
    "nearest": Nearest,
    "commonest": Constant,
}
BASELINES = tuple(RULES)
RULES_FREE = {name for rule in RULES.values() for name in rule.free}
# Each option with the baseline that takes it.
OWNERS = {"penalty": "logistic", "trees": "extra_trees", "neighbours": "nearest"}
DEFAULT_TREES = 100


@dataclass(frozen=True)
class BaselineConfig:
    """Everything that determines a baseline, apart from what it is fitted to.

    `arch` is one of `BASELINES`: "logistic", logistic regression; "extra_trees", extremely randomised trees; "nearest",
    the nearest training images; "commonest", the frequencies of the classes, whatever the image. `penalty` is the
    weight of half the squared weights beside the mean loss of an image, `neighbours` how many images are asked: None
    leaves them to be chosen by cross-validation within the training images. `trees` is the number of trees.
    Raises `ModelError` for other names, and for options of another baseline or out of range.
    """

    arch: str
    img_size: int = 28
    in_chans: int = 3
    num_classes: int = 2
    penalty: float | None = None
    trees: int = DEFAULT_TREES
    neighbours: int | None = None

    def __post_init__(self) -> None:
        if self.arch not in BASELINES:
            raise ModelError(
                f"There is no baseline '{self.arch}'.{nearest(self.arch, BASELINES)} Known: {', '.join(BASELINES)}."
            )
        for name in ("img_size", "in_chans", "num_classes", "trees", "neighbours"):
            value = getattr(self, name)
            if value is not None or name != "neighbours":
                check_size(name, value)
        if self.penalty is not None and not 0.0 < self.penalty < inf:
            raise ModelError(f"penalty must be positive or null, got {self.penalty}.")
        for name, owner in OWNERS.items():
            value = getattr(self, name)
            if self.arch != owner and value not in (None, DEFAULT_TREES):
                raise ModelError(f"{name} is for {owner} only; leave it out for '{self.arch}' (got {value}).")

    @property
    def counted(self) -> bool:
        """Whether the number of stored numbers is known before anything is fitted."""
        return not RULES[self.arch].free


class Baseline(Classifier):
    """A rule on fixed features, from images `(b, c, s, s)`, uint8 or floats in [0, 1], to logits `(b, num_classes)`.

    The method names are timm's, as in our `ViT`. Fresh ones know nothing; there are no parameters to train.
    """

    head: Rule

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes, self.num_features = config.num_classes, number_of_features(config.in_chans)
        self.preprocess = Preprocess(config.in_chans)
        self.head = RULES[config.arch](self.num_features, config.num_classes)

    def forward(self, images: Tensor) -> Float[Tensor, "b k"]:
        """Return the logits of images `(b, c, s, s)`; raises `ModelError` for another shape or dtype."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Float[Tensor, "b f"]:
        """Return the fixed features of images."""
        check_images(images, in_chans=self.config.in_chans, img_size=self.config.img_size)
        return pooled_features(self.preprocess(images))

    def forward_head(self, features: Float[Tensor, "b f"], *, pre_logits: bool = False) -> Float[Tensor, "b k"]:
        """Return the logits of features, or with `pre_logits` the features as they are."""
        return features if pre_logits else self.head(features)


def check_arrays(weights: Mapping[str, Tensor], config: BaselineConfig) -> None:
    """Raise `ModelError` unless arrays are those of such a baseline, and lead nowhere else; see `Rule.check`."""
    model = Baseline(config)
    own = model.state_dict()
    if own.keys() != weights.keys() or not all(_alike(name, value, weights[name]) for name, value in own.items()):
        raise ModelError(
            f"Expected the arrays of {config.arch} for {config.num_classes} classes and {config.in_chans} channels, "
            "found others. Fit it again."
        )
    model.load_state_dict(dict(weights))
    model.head.check()


def _alike(name: str, own: Tensor, value: Tensor) -> bool:
    """Return whether an array from elsewhere has the type and the shape of ours, but for what may be of any length."""
    if name == "head.labels":  # with a column, or one for each class
        return value.dtype == own.dtype and value.ndim == own.ndim
    free = name.removeprefix("head.") in RULES_FREE
    return value.dtype == own.dtype and value.ndim == own.ndim and value.shape[free:] == own.shape[free:]
