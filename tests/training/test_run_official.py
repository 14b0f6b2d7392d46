"""On the real files: MedMNIST's own evaluator reads our predictions and gives our figures."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from qvit.evaluation.medmnist_files import parse_result_name
from qvit.training.options import resolve
from qvit.training.run import train_run

ROOT = os.environ.get("QVIT_DATA", "")
needs_files = pytest.mark.skipif(
    not (Path(ROOT) / "retinamnist.npz").is_file(), reason="QVIT_DATA names no folder with the official files"
)


@pytest.mark.long
@needs_files
@pytest.mark.usefixtures("nudged")  # whatever it has learnt
@pytest.mark.parametrize("name", ["retinamnist", "breastmnist"])
def test_medmnist_gives_our_figures(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        medmnist = pytest.importorskip("medmnist")
    run = train_run(
        resolve({"dataset": name, "model": "vit_4q1h", "epochs": 1, "tta": "never"}), tmp_path / "run", download=False
    )
    for split in ("val", "test"):
        [path] = run.folder.glob(f"{name}_{split}_*.csv")
        table = np.loadtxt(path, delimiter=",")
        assert table[:, 0].tolist() == list(range(len(table)))
        figures = medmnist.Evaluator(name, split, root=ROOT).evaluate(table[:, 1:])
        assert pytest.approx([getattr(getattr(run.result, split), m) for m in ("auc", "acc")], abs=1e-12) == (
            figures.AUC,
            figures.ACC,
        )
        parsed = parse_result_name(path.name)
        assert (parsed.auc, parsed.acc) == (round(figures.AUC, 3), round(figures.ACC, 3))
    assert run.config["dataset"] == name
