"""How far a trained model's answers can be trusted: calibration, coverage of sets, warnings of unlike images.

    python benchmarks/trust.py --images FOLDER --out docs/results/images

Trains qvit_4q2h with its defaults on BreastMNIST and RetinaMNIST, five seeds each, and on stained white cells
(FOLDER/white-cells), one seed. FOLDER also holds chest-views/data.csv. Everything is learnt from validation images and
measured on test images.

1. Expected calibration error before and after the temperature, and risk against coverage, drawn as a picture.
2. Sets of possible classes with a coverage of 0.9, over all images and by class: mean over 100 random divisions of the
   images of validation and test (in the ratio that they have), with its Monte-Carlo error, and as validation and test
   are officially. By class, those with at least nine images of validation.
3. Warnings of unlike images at a stated rate of 0.05: false alarms on the model's own test images with a 95 % interval
   (Clopper and Pearson), and the AUROC of distances against images of another kind.

Prints tables in Markdown.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import beta

from qvit.answers.calibrated import Answering, Calibration
from qvit.answers.evidence import gathered
from qvit.answers.needs import Needs
from qvit.answers.reading import block, named
from qvit.answers.views import answer
from qvit.evaluation import calibration, conformal, novelty
from qvit.evaluation.metrics import auc, expected_calibration_error
from qvit.training.folder import Run
from qvit.training.options import resolve
from qvit.training.run import train_run

Array = np.ndarray[Any, Any]
SETS, ALARMS, DIVISIONS = 0.9, 0.05, 100


class Asked:
    """A trained run with what it says of its validation and test images."""

    def __init__(self, run: Run) -> None:
        self.run, self.needs, self.data = run, Needs.of(run), run.load_data()
        self.model, self.evidence = run.load_model(), gathered(run)
        self.scores, self.distances = self.ask(np.array(self.data.test.images))
        self.learnt = Calibration.learn([self.evidence], self.needs, Answering(sets=SETS, alarms=ALARMS))

    def ask(self, images: Array) -> tuple[Array, Array]:
        """Return probabilities and distances of images."""
        scores, features = answer(self.model, images, self.needs.task, self.needs.symmetries)
        return scores, novelty.distances(self.evidence.usual, features)

    @property
    def labels(self) -> Array:
        """The labels of the test images."""
        return self.data.test.labels


def trained(dataset: str, seed: int, folder: Path, epochs: int) -> Asked:
    """Train with the defaults, but for the number of epochs, and ask."""
    config = resolve({"dataset": dataset, "seed": seed, "epochs": epochs})
    return Asked(train_run(config, folder / f"{Path(dataset).name}-{seed}", root=folder if "/" in dataset else None))


def calibrated(asked: dict[str, list[Asked]], out: Path) -> None:
    """Print calibration errors, and draw risk against coverage."""
    print("### Calibration\n")
    print("| dataset | seed | temperature | test ECE before | after | test log loss before | after | AURC |")
    print("|---|---|---|---|---|---|---|---|")
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, len(asked), squeeze=False)[0]
    for (dataset, runs), axis in zip(asked.items(), axes, strict=True):
        rows = []
        for seed, one in enumerate(runs):
            task, told = one.needs.task, one.learnt.probabilities(one.scores)
            answers = one.learnt.decided(told)
            errors = calibration.wrong(one.labels, answers, task)
            curve = calibration.risk_coverage(calibration.confidence(told, answers, task), errors)
            gaps = [expected_calibration_error(one.labels, some, task) for some in (one.scores, told)]
            truth = [calibration.of_truth(one.labels, some, task) for some in (one.scores, told)]
            losses = [float(-np.log(some).mean()) for some in truth]
            rows.append([one.learnt.temperature, *gaps, *losses, curve.area])
            print(f"| {dataset} | {seed} | {' | '.join(f'{value:.3f}' for value in rows[-1])} |", flush=True)
            axis.step(curve.coverage, curve.risk, where="post", color="#3465a4", alpha=0.5)
        print(f"| {dataset} | mean | {' | '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))} |")
        axis.set(title=dataset, xlabel="coverage", ylim=(0, None), xlim=(0, 1))
    axes[0].set_ylabel("share of wrong answers")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "risk-coverage.png", dpi=160)


def covered(labels: Array, scores: Array, known: Array, *, by_class: bool) -> list[float]:
    """Return how often the true class is in the set, of images that are not known; by class, of each."""
    limits = conformal.thresholds(labels[known], scores[known], SETS, by_class=by_class)
    rest = ~known
    held = conformal.sets(scores[rest], limits)[np.arange(rest.sum()), labels[rest]]
    if not by_class:
        return [float(held.mean())]
    return [float(held[labels[rest] == k].mean()) for k in range(scores.shape[1])]


def sets(asked: dict[str, Asked]) -> None:
    """Print the coverage of sets."""
    print("\n### Sets of possible classes\n")
    print(
        "| dataset | over | n | promised | mean of divisions ± error | holds | official validation → test | set size |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for dataset, one in asked.items():
        val = len(one.evidence.labels)
        labels = np.concatenate([one.evidence.labels, one.labels])[:, 0]
        scores = np.concatenate([one.evidence.scores, one.scores])
        official = np.arange(len(labels)) < val
        for by_class in (False, True):
            divisions = []
            for _ in range(DIVISIONS):
                known = np.zeros(len(labels), bool)
                if by_class:  # as many of each class as officially
                    for k in range(scores.shape[1]):
                        of_class = np.flatnonzero(labels == k)
                        known[rng.permutation(of_class)[: (labels[:val] == k).sum()]] = True
                else:
                    known[rng.permutation(len(labels))[:val]] = True
                divisions.append(covered(labels, scores, known, by_class=by_class))
            counts = [int((labels[:val] == k).sum()) for k in range(scores.shape[1])] if by_class else [val]
            drawn = np.array(divisions)
            means, spread = drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(DIVISIONS)
            there = covered(labels, scores, official, by_class=by_class)
            limits = conformal.thresholds(labels[official], scores[official], SETS, by_class=by_class)
            size = conformal.sets(scores[~official], limits).sum(axis=1).mean()
            for k, n in enumerate(counts):
                name = one.needs.classes[k] if by_class else "all images"
                top = SETS + 1 / (n + 1)
                few = n < conformal.fewest(SETS)
                holds = "in every set" if few else SETS - 3 * spread[k] <= means[k] <= top + 3 * spread[k]
                promised = "1" if few else f"0.9 to {top:.3f}"
                print(
                    f"| {dataset} | {name} | {n} | {promised} | {means[k]:.3f} ± {spread[k]:.3f} "
                    f"| {holds if few else 'yes' if holds else 'no'} | {there[k]:.3f} | {size:.2f} |",
                    flush=True,
                )


def strangers(asked: dict[str, tuple[Asked, dict[str, Array]]]) -> None:
    """Print false alarms, and how well distances tell images of another kind."""
    print("\n### Images unlike those trained on\n")
    print(
        "| model of | false alarms on its test images | 95 % interval | 0.05 within | shown | AUROC | called unlike |"
    )
    print("|---|---|---|---|---|---|---|")
    for dataset, (one, others) in asked.items():
        limit = conformal.quantile(one.evidence.distances, 1 - ALARMS)
        n, k = len(one.distances), int((one.distances > limit).sum())
        low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
        high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
        for name, images in others.items():
            found = one.ask(images)[1]
            both = np.concatenate([one.distances, found])
            truth = np.arange(len(both)) >= n
            score = auc(truth[:, None].astype(int), both / both.max(), "binary")
            within = "yes" if low <= ALARMS <= high else "no"
            print(
                f"| {dataset} | {k} of {n} | {low:.3f} to {high:.3f} | {within} | {name} | {score:.3f} "
                f"| {np.mean(found > limit):.1%} |",
                flush=True,
            )


def squares(place: Path, needs: Needs, channels: Literal["grey", "rgb"]) -> Array:
    """Return pictures of another kind as a run takes its own, made grey or coloured if need be."""
    from dataclasses import replace

    taken = replace(needs, importing=replace(needs.importing, channels=channels))
    return block(taken, 0, [*named([place], ())]).squares


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path())
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # that groups are not known
    cells, chest = chosen.images / "white-cells", chosen.images / "chest-views" / "png"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {
            dataset: [trained(dataset, seed, folder, chosen.epochs) for seed in range(chosen.seeds)]
            for dataset in ("breastmnist", "retinamnist")
        }
        calibrated(runs, chosen.out)
        white = trained(str(cells), 0, folder, chosen.epochs)
        breast, retina = runs["breastmnist"][0], runs["retinamnist"][0]
        sets({"breastmnist": breast, "retinamnist": retina, "white cells": white})
        strangers(
            {
                "breastmnist": (breast, {"chest views": squares(chest, breast.needs, "grey")}),
                "retinamnist": (retina, {"white cells": squares(cells, retina.needs, "rgb")}),
                "white cells": (white, {"RetinaMNIST": np.array(retina.data.test.images)}),
            }
        )


if __name__ == "__main__":
    main()
