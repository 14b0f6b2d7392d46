"""Whether maps of explanations show what a model goes by: deletion and insertion curves, and random weights.

    python benchmarks/maps.py

Trains qvit_4q2h and vit_4q2h with their defaults on BreastMNIST and RetinaMNIST, and explains the likeliest class of
100 test images each. Patches are covered with the training images' mean colour, the highest of the map first
(deletion), or uncovered in that order (insertion; Petsiuk et al., 2018): the mean probability of the class over all
steps, less than for a random order is good in deletion, more in insertion. Differences from random orders (five each)
are means over images, with 95 % intervals by Student's t. Alike is the mean size of the rank correlation with the map
of random weights: from 0.5 on a map is said to tell nothing of what was learnt. Prints a table in Markdown.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from qvit.answers.explaining import CHANGED
from qvit.answers.maps import alike, maps_of, randomised
from qvit.models.vit import ViT
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.prediction import probabilities
from qvit.training.run import train_run

Array = np.ndarray[Any, Any]
RANDOM = 5


def on_patches(values: Array, side: int) -> Array:
    """Return a map by patches: of pixels, the mean over each."""
    step = values.shape[0] // side
    return values.reshape(side, step, side, step).mean(axis=(1, 3)).reshape(-1)


@torch.no_grad()
def areas(model: ViT, image: Array, task: str, target: int, order: Array) -> tuple[float, float]:
    """Return the mean probability while patches are covered in this order, and while they are uncovered."""
    patch = model.config.patch
    side = model.config.img_size // patch
    mean = (model.preprocess.mean * 255).round().to(torch.uint8)[:, None, None]
    whole = torch.from_numpy(image)
    bare = mean.expand_as(whole).clone()
    deleted, inserted = [whole.clone()], [bare.clone()]
    for place in order.tolist():
        y, x = (patch * (place // side), patch * (place % side))
        part = (slice(None), slice(y, y + patch), slice(x, x + patch))
        deleted.append(deleted[-1].clone())
        deleted[-1][part] = bare[part]
        inserted.append(inserted[-1].clone())
        inserted[-1][part] = whole[part]
    found = probabilities(model(torch.stack(deleted + inserted)), task)[:, target].numpy()
    return float(found[: len(deleted)].mean()), float(found[len(deleted) :].mean())


def shown(values: list[float]) -> str:
    """Return a mean with its interval."""
    mean, half = np.mean(values), t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def explained(run: Run, images: int) -> list[str]:
    """Return rows of the table."""
    data, model, task = run.load_data(), run.load_model(), run.config["task"]
    assert isinstance(model, ViT)
    side, rng = model.config.img_size // model.config.patch, np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(data.test))[:images])
    pixels = data.test.batch(chosen)[0].numpy()
    with torch.no_grad():
        targets = model(torch.from_numpy(pixels)).argmax(dim=1).tolist()
    found = [maps_of(model, image, task, target) for image, target in zip(pixels, targets, strict=True)]
    fresh = randomised(model)
    assert isinstance(fresh, ViT)
    others = [maps_of(fresh, image, task, target) for image, target in zip(pixels, targets, strict=True)]
    unlearnt = alike(found, others)
    chance = [
        np.mean([areas(model, image, task, target, rng.permutation(side**2)) for _ in range(RANDOM)], axis=0)
        for image, target in zip(pixels, targets, strict=True)
    ]
    rows = []
    for name in found[0].shown:
        gains: list[list[float]] = [[], []]
        for image, target, maps, base in zip(pixels, targets, found, chance, strict=True):
            order = np.argsort(-on_patches(maps.shown[name], side), kind="stable")
            for gain, value, random in zip(gains, areas(model, image, task, target, order), base, strict=True):
                gain.append(value - random)
        says = "nothing" if unlearnt[name] >= CHANGED else "something"
        rows.append(f"| {name} | {shown(gains[0])} | {shown(gains[1])} | {unlearnt[name]:.2f} | {says} |")
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=100)
    chosen = parser.parse_args()
    print(
        "| dataset | model | map | deletion less random (good: below 0) | insertion less random (good: above 0) ",
        end="",
    )
    print("| alike with random weights | tells of what was learnt |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for dataset in ("breastmnist", "retinamnist"):
            for model in ("qvit_4q2h", "vit_4q2h"):
                config = resolve({"dataset": dataset, "model": model, "epochs": chosen.epochs})
                run = train_run(config, Path(name) / f"{dataset}-{model}")
                for row in explained(run, chosen.images):
                    print(f"| {dataset} | {model} {row}", flush=True)


if __name__ == "__main__":
    main()
