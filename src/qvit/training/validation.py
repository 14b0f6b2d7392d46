"""Figures on the validation split after an epoch, by which the best epoch is chosen."""

from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.evaluation.metrics import accuracy, auc, log_loss
from qvit.training.batches import augmentation_group
from qvit.training.config import TrainConfig
from qvit.training.distributed import ALONE, Team
from qvit.training.prediction import predict_logits, probabilities_of_views
from qvit.training.records import Validation


def validation_figures(model: nn.Module, data: Dataset, config: TrainConfig, team: Team = ALONE) -> Validation:
    """Return log loss, AUC and accuracy on the validation split, and what predictions were averaged over.

    With `config.tta` "auto" that is the augmentation group or "none", whichever gives the better AUC.
    """
    logits = predict_logits(model, data.val, group=group_of_views(data, config), device=config.device, team=team)
    # One process decides for all: machines that differ in a last bit could choose, and stop, differently.
    return team.lead(lambda: figures_of_views(logits, data, config))


def group_of_views(data: Dataset, config: TrainConfig) -> str:
    """Return the name of the group under whose elements validation images are seen."""
    return "none" if config.tta == "never" else augmentation_group(data, config)


def figures_of_views(logits: Float[Tensor, "g n k"], data: Dataset, config: TrainConfig) -> Validation:
    """Return the figures of `validation_figures` from the logits of validation images under all elements."""
    labels, task, group = data.val.labels, data.info.task, group_of_views(data, config)
    views = {group: logits} | ({"none": logits[:1]} if config.tta == "auto" else {})

    def figures(tta: str) -> Validation:
        scores = probabilities_of_views(views[tta], task)
        loss, area = log_loss(labels, scores, task), auc(labels, scores, task)
        return Validation(loss, area, accuracy(labels, scores, task), tta)

    return max(map(figures, views), key=lambda found: found.merit)
