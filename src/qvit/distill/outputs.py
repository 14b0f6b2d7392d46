"""Read logits, pooled features and attention maps of a network, in the same way from teachers and students."""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ConfigError

FEATURES = ("forward_features", "forward_head")
ATTENTION = "forward_with_attention"


class Outputs(NamedTuple):
    """Logits, and if asked for, pooled features and the attention map of the last block; of a stack those of each."""

    logits: Float[Tensor, "*m b c"]
    features: Float[Tensor, "*m b f"] | None = None
    attention: Float[Tensor, "*m b y x"] | None = None


def outputs(model: Any, images: Tensor, *, features: bool = False, attention: bool = False) -> Outputs:
    """Return a network's outputs for images `(*m, b, c, s, s)`, all from one pass.

    Features and attention need timm's methods, which our own networks also have; see `check_offers`.
    """
    if not (features or attention):
        return Outputs(model(images))
    tokens, maps = model.forward_with_attention(images) if attention else (model.forward_features(images), None)
    pooled = model.forward_head(tokens, pre_logits=True) if features else None
    return Outputs(model.forward_head(tokens), pooled, maps)  # runs the whole head again, as it may begin with dropout


def check_offers(model: nn.Module, who: str, *, features: bool, attention: bool) -> None:
    """Raise `ConfigError` unless a network has the methods that give features and attention."""
    if features and not all(hasattr(model, name) for name in FEATURES):
        raise ConfigError(
            f"Feature distillation needs pooled features, which the {who} ({type(model).__name__}) does not show; "
            f"expected the methods {', '.join(FEATURES)}. Set feature_weight to 0, or add them."
        )
    if attention and not hasattr(model, ATTENTION):
        raise ConfigError(
            f"Attention transfer needs a ViT, and the {who} ({type(model).__name__}) is not one; "
            "set attention_weight to 0, or use one of our ViTs."
        )
