"""Vision transformers whose attention projections are circuits or classical maps, and networks to learn from."""

from qvit.models.baselines import Baseline, BaselineConfig
from qvit.models.dsconv import DSConv, DSConvConfig
from qvit.models.networks import Network, NetworkConfig
from qvit.models.preprocess import Preprocess
from qvit.models.vit import ViT, ViTConfig
from qvit.models.zoo import count_parameters, create_model, list_models, model_config

__all__ = [
    "Baseline",
    "BaselineConfig",
    "DSConv",
    "DSConvConfig",
    "Network",
    "NetworkConfig",
    "Preprocess",
    "ViT",
    "ViTConfig",
    "count_parameters",
    "create_model",
    "list_models",
    "model_config",
]
