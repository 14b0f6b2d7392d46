"""Whether models of a stack become as good as the same models alone.

    python benchmarks/stacked_results.py [--models qvit_4q2h,vit_4q2h] [--seeds 5] [--epochs 100] [--chance]

The same seeds are trained as one stack and one after the other. Printed are the largest difference of a training loss
over the first three epochs, which is rounding, and the test AUC of both, paired by seed: after many epochs rounding has
made other models of them, so these differ, but not in their mean. How much two trainings of one seed may differ by
chance is what training with the images' pixels changed in their last digit says (`--chance`): one of 255 levels.
"""

import argparse
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import numpy as np

from qvit.data.arrays import Dataset, Split, load_dataset
from qvit.evaluation.metrics import auc
from qvit.models.zoo import model_config
from qvit.training.config import TrainConfig
from qvit.training.loop import fit, fit_many
from qvit.training.prediction import predict
from qvit.training.run import build_model
from qvit.training.state import Member, TrainState

EARLY = 3  # epochs in which rounding is all that differs


def models_of(name: str, data: Dataset, seeds: int) -> list[Any]:
    """Return fresh models, one for each seed."""
    like: dict[str, Any] = {"in_chans": data.info.channels, "num_classes": data.info.num_classes, "img_size": data.size}
    return [build_model(model_config(name, **like), data, seed=seed) for seed in range(seeds)]


def test_auc(model: Any, data: Dataset, state: TrainState) -> float:
    """Return the test AUC of a trained model."""
    assert state.best is not None
    scores = predict(model, data.test, data.info.task, group=state.best.record.tta)
    return auc(data.test.labels, scores, data.info.task)


def alone(name: str, data: Dataset, seeds: int, config: TrainConfig) -> tuple[list[TrainState], list[float]]:
    """Train one after the other; return their states and test AUCs."""
    models = models_of(name, data, seeds)
    states = [fit(model, data, config, seed=seed) for seed, model in enumerate(models)]
    return states, [test_auc(model, data, state) for model, state in zip(models, states, strict=True)]


def together(name: str, data: Dataset, seeds: int, config: TrainConfig) -> tuple[list[TrainState], list[float]]:
    """Train as one stack; return the same."""
    models, members = models_of(name, data, seeds), [Member(data, config, seed) for seed in range(seeds)]
    fit_many(models, members)
    found = [test_auc(model, data, one.state) for model, one in zip(models, members, strict=True)]
    return [one.state for one in members], found


def nudged(data: Dataset) -> Dataset:
    """Return data with one pixel of each training image a level brighter or darker."""
    images = data.train.images.copy()
    first = images[:, 0, 0, 0].astype(int)
    images[:, 0, 0, 0] = np.where(first < 255, first + 1, first - 1).astype(np.uint8)
    return replace(data, train=Split(images, data.train.labels))


def told(name: str, what: str, first: list[float], second: list[float]) -> None:
    """Print the paired difference."""
    each = [one - other for one, other in zip(first, second, strict=True)]
    error = stdev(each) / len(each) ** 0.5
    spread = ", ".join(f"{one:+.4f}" for one in each)
    print(
        f"{name:12} {what}: {mean(first):.4f} against {mean(second):.4f}; difference {mean(each):+.4f} "
        f"± {error:.4f} (standard error; {spread})",
        flush=True,
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="qvit_4q2h,vit_4q2h")
    parser.add_argument("--dataset", default="retinamnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--chance", action="store_true", help="also train alone on images changed by next to nothing")
    asked = parser.parse_args()
    data, config = load_dataset(asked.dataset), TrainConfig(epochs=asked.epochs)
    for name in asked.models.split(","):
        states, areas = together(name, data, asked.seeds, config)
        others, of_others = alone(name, data, asked.seeds, config)
        pairs = zip(states, others, strict=True)
        largest = max(
            abs(one.train_loss - other.train_loss)
            for ours, theirs in pairs
            for one, other in zip(ours.history[:EARLY], theirs.history[:EARLY], strict=True)
        )
        print(f"{name:12} training losses of the first {EARLY} epochs differ by {largest:.1e} at most", flush=True)
        told(name, "test AUC in a stack against alone", areas, of_others)
        if asked.chance:
            told(name, "test AUC of pixels changed", alone(name, nudged(data), asked.seeds, config)[1], of_others)


if __name__ == "__main__":
    main()
