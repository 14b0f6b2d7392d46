"""Why a model says what it says of an image, as maps: attention, gradients, occlusion, and what circuits measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float64, UInt8
from scipy.stats import spearmanr
from torch import Tensor

from qvit.models.baselines import Baseline
from qvit.models.vit import Block, ViT
from qvit.models.zoo import Model, build
from qvit.training.prediction import evaluating, probabilities
from qvit.training.seeding import INIT, seeded

GRID = 7  # patches along each axis that are occluded in turn, of networks without patches
_BATCH = 256  # occluded images at a time


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one image for one class, each (y, x), of patches or of pixels.

    `rollout` is the share of each patch in the tokens that are pooled, by attention through all blocks and what each
    block leaves as it is; `saliency` the size of the logit's gradient, the largest of the colours; `occlusion` how much
    the probability falls if a patch gets the training images' mean colour. `heads` is the attention that patches
    receive, by block and head. The maps of attention are None for networks without it, the one of gradients is for
    plain baselines, which have none.

    `wires` are the expectation values of quantum projections by block, kind (queries, keys, values) and wire, of each
    patch; None for other models.
    """

    saliency: Float64[np.ndarray, "s s"] | None
    occlusion: Float64[np.ndarray, "p p"]
    rollout: Float64[np.ndarray, "y x"] | None
    heads: Float64[np.ndarray, "l h y x"] | None
    wires: Float64[np.ndarray, "l 3 d y x"] | None

    @property
    def shown(self) -> Mapping[str, Float64[np.ndarray, "_ _"]]:
        """The maps that say where the evidence is, by name."""
        found = {"rollout": self.rollout, "saliency": self.saliency, "occlusion": self.occlusion}
        return {name: value for name, value in found.items() if value is not None}


def maps_of(model: Model, image: UInt8[np.ndarray, "c s s"], task: str, target: int) -> Maps:
    """Return the maps of an image for the class, or label, with the number `target`.

    Sources: Abnar and Zuidema, 2020 (rollout); Simonyan et al., 2014 (saliency); Zeiler and Fergus, 2014 (occlusion).
    """
    images = torch.from_numpy(image[None])
    with evaluating(model):
        saliency = None if isinstance(model, Baseline) else _saliency(model, images, target)
        with torch.no_grad():
            occlusion = _occlusion(model, images, task, target)
            if not isinstance(model, ViT):
                return Maps(saliency, occlusion, None, None, None)
            weights, projected = _through(model, images)
            classes = 0 if model.cls_token is None else 1
            side = model.config.img_size // model.config.patch
            quantum = model.config.projection.kind in ("quantum", "no_entangler", "frozen")
            return Maps(
                saliency,
                occlusion,
                _rollout(weights, classes, side),
                _received(weights, classes, side),
                _wires(projected, classes, side) if quantum else None,
            )


def randomised(model: Model, *, seed: int = 0) -> Model:
    """Return a model of the same architecture with fresh weights, and the same preprocessing."""
    with seeded(seed, INIT):
        fresh = build(model.config)
    fresh.preprocess.load_state_dict(model.preprocess.state_dict())
    return fresh.eval()


def alike(found: Sequence[Maps], others: Sequence[Maps]) -> dict[str, float]:
    """Return how alike maps are to others of the same images: the mean size of their rank correlation, by map.

    Maps of a model with random weights that are alike say nothing of what was learnt (Adebayo et al., 2018). A map that
    is the same everywhere counts as unlike.
    """
    values: dict[str, list[float]] = {}
    for one, other in zip(found, others, strict=True):
        for name, map_ in one.shown.items():
            first, second = map_.reshape(-1), other.shown[name].reshape(-1)
            same = np.ptp(first) == 0 or np.ptp(second) == 0
            values.setdefault(name, []).append(0.0 if same else abs(float(spearmanr(first, second).statistic)))
    return {name: float(np.mean(each)) for name, each in values.items()}


def _saliency(model: Model, images: UInt8[Tensor, "1 c s s"], target: int) -> Float64[np.ndarray, "s s"]:
    with torch.enable_grad():
        pixels = (images.float() / 255).requires_grad_()
        [gradient] = torch.autograd.grad(model(pixels)[0, target], pixels)
    return gradient[0].abs().amax(dim=0).double().numpy()


def _occlusion(model: Model, images: UInt8[Tensor, "1 c s s"], task: str, target: int) -> Float64[np.ndarray, "p p"]:
    size = images.shape[-1]
    patch = model.config.patch if isinstance(model, ViT) else max(1, -(-size // GRID))
    starts = range(0, size, patch)
    mean = (model.preprocess.mean * 255).round().to(torch.uint8)[:, None, None]
    places = [(y, x) for y in starts for x in starts]
    before = probabilities(model(images), task)[0, target]
    falls = []
    for first in range(0, len(places), _BATCH):
        some = places[first : first + _BATCH]
        covered = images.repeat(len(some), 1, 1, 1)
        for place, (y, x) in enumerate(some):
            covered[place, :, y : y + patch, x : x + patch] = mean
        falls.append(before - probabilities(model(covered), task)[:, target])
    return torch.cat(falls).reshape(len(starts), len(starts)).numpy()


def _through(model: ViT, images: UInt8[Tensor, "1 c s s"]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the attention `(h, n, n)` of each block, and its queries, keys and values `(3, h, n, q)`."""
    tokens, weights, projected = model.embed(images), [], []
    for block in model.blocks:
        assert isinstance(block, Block)
        normal = block.norm_attention(tokens)
        weights.append(block.attention.weights(normal)[0].double())
        queries, keys, values = block.attention.project(normal)
        if queries.shape == values.shape:
            projected.append(torch.stack([queries[0], keys[0], values[0]]).double())
        tokens = block(tokens)
    return weights, projected


def _rollout(weights: Sequence[Float[Tensor, "h n n"]], classes: int, side: int) -> Float64[np.ndarray, "y x"]:
    count = weights[0].shape[-1]
    joint = torch.eye(count, dtype=torch.float64)
    for each in weights:
        joint = (each.mean(dim=0) + torch.eye(count, dtype=torch.float64)) / 2 @ joint
    pooled = joint[0, 1:] if classes else joint.mean(dim=0)
    return (pooled / pooled.sum()).reshape(side, side).numpy()


def _received(weights: Sequence[Float[Tensor, "h n n"]], classes: int, side: int) -> Float64[np.ndarray, "l h y x"]:
    received = torch.stack([each.mean(dim=1)[:, classes:] for each in weights])
    return rearrange(received, "l h (y x) -> l h y x", y=side).numpy()


def _wires(projected: Sequence[Float[Tensor, "3 h n q"]], classes: int, side: int) -> Float64[np.ndarray, "l 3 d y x"]:
    found = torch.stack([each[:, :, classes:] for each in projected])
    return rearrange(found, "l k h (y x) q -> l k (h q) y x", y=side).numpy()
