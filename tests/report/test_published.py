"""Published figures: those of the paper's own table."""

from importlib.resources import files

import yaml

from qvit.report.published import PAPER_DATASETS, published


def test_the_papers_datasets_are_those_of_its_study() -> None:
    said = yaml.safe_load((files("qvit.study") / "shipped" / "paper.yaml").read_text(encoding="utf-8"))
    assert tuple(said["datasets"]) == PAPER_DATASETS


# Copied by hand from the papers' tables: (AUC, ACC), None where not reported.
ORACLE: dict[tuple[str, str], tuple[float | None, float | None]] = {
    ("ResNet-18 (28)", "pathmnist"): (0.983, 0.907),
    ("ResNet-18 (28)", "retinamnist"): (0.717, 0.524),
    ("ResNet-18 (28)", "chestmnist"): (0.768, 0.947),
    ("ResNet-18 (224)", "breastmnist"): (0.891, 0.833),
    ("ResNet-18 (224)", "organcmnist"): (0.994, 0.920),
    ("ResNet-50 (28)", "octmnist"): (0.952, 0.762),
    ("ResNet-50 (224)", "dermamnist"): (0.912, 0.731),
    ("ResNet-50 (224)", "retinamnist"): (0.716, 0.511),
    ("auto-sklearn", "retinamnist"): (0.690, 0.515),
    ("AutoKeras", "tissuemnist"): (0.941, 0.703),
    ("Google AutoML Vision", "pneumoniamnist"): (0.991, 0.946),
    ("Google AutoML Vision", "retinamnist"): (0.750, 0.531),
    ("MedMamba-T", "bloodmnist"): (0.999, 0.978),
    ("MedMamba-T", "tissuemnist"): (None, None),
    ("MedMamba-T", "organsmnist"): (0.982, 0.819),
    ("MedMamba-X", "retinamnist"): (0.719, 0.570),
    ("MedMamba-X", "pathmnist"): (None, None),
    ("MedViT-S", "retinamnist"): (0.773, 0.561),
    ("MedViTV2-L", "retinamnist"): (None, 0.578),
    ("MedViTV2-L", "chestmnist"): (None, 0.967),
}


def test_published_figures() -> None:
    by_name = {row.name: row for row in published()}
    assert len(by_name) == len(published())
    for (name, dataset), figures in ORACLE.items():
        found = by_name[name].on(dataset)
        assert (found.get("auc"), found.get("acc")) == figures, (name, dataset)
    for row in published()[:7]:
        assert len(row.figures) == 12
    assert all(0.4 < value <= 1 for row in published() for found in row.figures.values() for value in found.values())
