"""Teachers: one trained run, several of them, or any module."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.distill.fingerprint import digest_of
from qvit.distill.outputs import Outputs, check_offers, outputs
from qvit.errors import ConfigError, ModelError, RunError
from qvit.files import printable
from qvit.training.batches import augmentation_group
from qvit.training.config import TrainConfig
from qvit.training.folder import Run
from qvit.training.places import FOUND_AT
from qvit.training.prediction import evaluating, predict


@dataclass(frozen=True, eq=False)
class Teacher:
    """One network or several, whose logits are averaged and whose features are concatenated.

    A mean of logits is the geometric mean of the distributions, at every temperature. Networks map uint8 images
    `(b, c, s, s)` to logits `(b, k)`; they are never changed. `digest` identifies their weights.
    """

    name: str
    members: tuple[nn.Module, ...]
    digest: str
    runs: tuple[Run, ...] = ()

    @classmethod
    def of_runs(cls, folders: Sequence[Path | str], *, device: str = "cpu") -> "Teacher":
        """Return a teacher made of trained runs; raises `RunError` for unfinished or damaged ones.

        Their paths are recorded, so paths that `printable` refuses raise `RunError` too.
        """
        if not folders:
            raise ConfigError("No teacher given; name at least one folder of a trained run.")
        runs = tuple(Run(printable(folder, raised=RunError)) for folder in folders)
        for run in runs:
            _ = run.result  # raises for an unfinished run, saying what to do
            if run.fold is not None:
                raise ConfigError(
                    f"The run in {run.folder} is of {run.fold}: it was trained on images by which a student is chosen. "
                    "Train a teacher without folds."
                )
        members = tuple(run.load_model().to(device) for run in runs)
        names = dict.fromkeys(run.config["model"] for run in runs)
        name = " + ".join(names) if len(runs) == 1 else f"{len(runs)} × {' + '.join(names)}"
        return cls(name, members, digest_of(members), runs)

    @classmethod
    def of_module(cls, module: nn.Module, *, name: str | None = None) -> "Teacher":
        """Return any module as a teacher; put `models.Preprocess` before one that takes floats, not bytes.

        It is identified by everything that it saves, its `repr`, and its `config` if it has one: change one of them if
        you change its `forward`.
        """
        return cls(name or type(module).__name__, (module,), digest_of((module,)))

    @property
    def described(self) -> dict[str, Any]:
        """What identifies the teacher, and the paths of its runs, as plain values."""
        return {
            "name": self.name,
            "digest": self.digest,
            "members": len(self.members),
            FOUND_AT: [str(run.folder.resolve()) for run in self.runs],
        }

    def outputs(self, images: Tensor, *, features: bool = False, attention: bool = False) -> Outputs:
        """Return the outputs for images `(b, c, s, s)`, on the CPU; attention maps are averaged like logits."""
        with evaluating(*self.members), torch.no_grad():
            said = [
                outputs(member, images.to(_device(member)), features=features, attention=attention)
                for member in self.members
            ]
        pooled = [one.features.float().cpu() for one in said if one.features is not None]
        maps = [one.attention.float().cpu() for one in said if one.attention is not None]
        return Outputs(
            torch.stack([one.logits.float().cpu() for one in said]).mean(dim=0),
            torch.cat(pooled, dim=1) if features else None,
            torch.stack(maps).mean(dim=0) if attention else None,
        )

    def scores(self, data: Dataset, split: str, config: TrainConfig) -> Float[np.ndarray, "n k"]:
        """Return probabilities for a split; those of runs are the mean of what each predicted with its own symmetries.

        Those of a module are averaged over the symmetries of training unless `config.tta` is "never".
        """
        if self.runs:
            return np.mean([_scores_of_run(run, data, split) for run in self.runs], axis=0)
        group = "none" if config.tta == "never" else augmentation_group(data, config)
        return predict(self.members[0], data[split], data.info.task, group=group, device=_device(self.members[0]))

    def check_fits(self, data: Dataset, *, features: bool = False, attention: bool = False) -> None:
        """Raise `ConfigError` unless every member takes the images of `data` and gives one logit per class."""
        images = data.val.batch([0])[0]
        shapes = []
        for member in self.members:
            check_offers(member, "teacher", features=features, attention=attention)
            shapes.append(_try(member, images, data, features=features, attention=attention))
        if len(set(shapes)) > 1:
            grids = ", ".join(" × ".join(map(str, shape)) for shape in dict.fromkeys(shapes))
            raise ConfigError(f"The teachers' attention maps differ in size ({grids}); use ViTs of one patch size.")


def _try(member: nn.Module, images: Tensor, data: Dataset, *, features: bool, attention: bool) -> tuple[int, ...]:
    """Return the size of a member's attention map, if asked for."""
    expected = (
        f"{data.info.title} has {data.info.num_classes} classes and images {tuple(images.shape[1:])}: "
        "use a teacher that was trained for these."
    )
    try:
        with evaluating(member), torch.no_grad():
            said = outputs(member, images.to(_device(member)), features=features, attention=attention)
    except (ModelError, RuntimeError, TypeError) as error:
        raise ConfigError(f"The teacher cannot read these images ({error}). {expected}") from error
    if not isinstance(said.logits, Tensor) or said.logits.shape != (1, data.info.num_classes):
        shape = tuple(said.logits.shape) if isinstance(said.logits, Tensor) else type(said.logits).__name__
        raise ConfigError(f"The teacher's logits for one image are {shape}. {expected}")
    if not torch.isfinite(said.logits).all():
        raise ConfigError("The teacher's logits for one image are not finite; train it again.")
    if said.features is not None and said.features.shape[:-1] != (1,):
        raise ConfigError(
            f"The teacher's features for one image are {tuple(said.features.shape)}, not one vector (1, f); "
            "set feature_weight to 0, or have forward_head(…, pre_logits=True) pool them."
        )
    return () if said.attention is None else tuple(said.attention.shape[1:])


def _scores_of_run(run: Run, data: Dataset, split: str) -> Float[np.ndarray, "n k"]:
    if run.config["data_digest"] == data.digest and split in ("val", "test"):
        return run.predictions(split)
    return predict(run.load_model(), data[split], data.info.task, group=run.result.tta)


def _device(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
