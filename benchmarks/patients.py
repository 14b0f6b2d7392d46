"""What ignoring patients and near-duplicates would have claimed: an illustration, no claim.

    python benchmarks/patients.py --images FOLDER

1. Chest radiographs (FOLDER/chest-views), label sex, which is the same in all images of a patient: 20 random divisions
   with each patient in one split, and 20 that divide images. The mean AUC on test images, with a 95 % interval from
   drawing patients again, 1,000 times.
2. BreastMNIST, default models, with and without the test images that have a near-duplicate in train or val.

Both with `qvit_4q2h` and its defaults, but for the number of epochs. Prints tables in Markdown.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from qvit.data.arrays import Dataset, load_dataset
from qvit.evaluation.metrics import auc
from qvit.training.evaluated import evaluate_split
from qvit.training.options import resolve
from qvit.training.run import train_run

Array = np.ndarray[Any, Any]
DIVISIONS, RESAMPLES = 20, 1000


def patients_of(data: Dataset, table: Path) -> Array:
    """Return the patient of each test image, by its path in the table."""
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    known = {row[0]: row[1] for row in rows}
    assert data.path is not None
    return np.array([known[str(source)] for source in np.load(data.path)["test_sources"]])


def divided(folder: Path, root: Path, *, by_patient: bool, epochs: int, seed: int) -> tuple[Array, Array, Array]:
    """Return labels, scores and patients of the test images of one division."""
    table = folder / "chest-views" / "data.csv"
    options: dict[str, Any] = {"label": "sex", "split_seed": seed}
    if by_patient:
        options["group_by"] = "patient"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that patients are not known, which is the point
        config = resolve({"dataset": str(table), "epochs": epochs, "seed": seed} | options)
        run = train_run(config, root / f"{by_patient}-{seed}", root=root)
        data = load_dataset(table, root=root, importing=config.importing)
    return data.test.labels, run.predictions("test"), patients_of(data, table)


def interval(found: list[tuple[Array, Array, Array]]) -> tuple[float, float, float]:
    """Return the mean AUC over divisions, and its interval over patients."""
    rng = np.random.default_rng(0)
    known = np.unique(np.concatenate([patients for _, _, patients in found]))
    places = [np.searchsorted(known, patients) for _, _, patients in found]
    mean = float(np.mean([auc(labels, scores, "binary") for labels, scores, _ in found]))
    drawn = []
    for _ in range(RESAMPLES):
        values = []
        times = rng.multinomial(len(known), np.full(len(known), 1 / len(known)))
        for (labels, scores, _), place in zip(found, places, strict=True):
            again = np.repeat(np.arange(len(labels)), times[place])
            if 0 < labels[again].mean() < 1:
                values.append(auc(labels[again], scores[again], "binary"))
        drawn.append(np.mean(values))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return mean, float(low), float(high)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--divisions", type=int, default=DIVISIONS)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print(f"| 243 chest views of 71 patients, label sex | mean test AUC of {chosen.divisions} divisions |")
        print("|---|---|")
        for by_patient, words in ((True, "each patient in one split"), (False, "images divided at random")):
            found = [
                divided(chosen.images, root, by_patient=by_patient, epochs=chosen.epochs, seed=seed)
                for seed in range(chosen.divisions)
            ]
            mean, low, high = interval(found)
            print(f"| {words} | {mean:.3f} [{low:.3f}, {high:.3f}] |", flush=True)
        print("\n| BreastMNIST, seed | all test images: AUC, ACC | without near-duplicates: AUC, ACC | images left |")
        print("|---|---|---|---|")
        rows = []
        for seed in range(chosen.seeds):
            config = resolve({"dataset": "breastmnist", "seed": seed})
            evaluated = evaluate_split(train_run(config, root / f"breast-{seed}"))
            figures, apart = evaluated.measured.figures, evaluated.apart
            assert apart is not None
            assert apart.without is not None
            rows.append((figures.auc, figures.acc, apart.without.auc, apart.without.acc))
            told = "{:.3f}, {:.3f} | {:.3f}, {:.3f}".format(*rows[-1])
            print(f"| {seed} | {told} | {156 - apart.copies} of 156 |", flush=True)
        told = "{:.3f}, {:.3f} | {:.3f}, {:.3f}".format(*np.mean(rows, axis=0))
        print(f"| mean | {told} | |")


if __name__ == "__main__":
    main()
