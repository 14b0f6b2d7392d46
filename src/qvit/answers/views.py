"""One pass through a model: its probabilities, averaged over symmetries, and the features that they are made of."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from qvit.data.augment import apply_element, group_size
from qvit.models.zoo import Model
from qvit.training.prediction import evaluating, probabilities_of_views

BATCH = 512  # views at a time


@torch.no_grad()
def answer(
    model: Model, images: UInt8[np.ndarray, "n c s s"], task: str, group: str
) -> tuple[Float[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Return the mean probabilities of the views of each image, and the pooled features of the images as they are."""
    elements = range(group_size(group))
    scores, features = [], []
    with evaluating(model):
        for part in torch.from_numpy(images).split(max(1, BATCH // len(elements))):
            views = torch.cat([apply_element(part, element, group) for element in elements])
            tokens = model.forward_features(views)
            logits = model.forward_head(tokens).unflatten(0, (len(elements), len(part)))
            scores.append(probabilities_of_views(logits, task))
            features.append(model.forward_head(tokens[: len(part)], pre_logits=True).float().numpy())
    return np.concatenate(scores), np.concatenate(features)
