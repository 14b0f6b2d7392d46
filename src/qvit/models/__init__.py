"""Vision transformers whose attention projections are circuits or classical maps."""

from qvit.models.vit import ViT, ViTConfig
from qvit.models.zoo import count_parameters, create_model, list_models, model_config

__all__ = ["ViT", "ViTConfig", "count_parameters", "create_model", "list_models", "model_config"]
