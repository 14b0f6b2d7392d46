"""Each option of models and training on its own: what it adds in cross-validation, for a QViT and its dense twin.

    python benchmarks/options.py [--dataset breastmnist] [--only pool=all] [--repeats 3] [--json FILE] [--markdown FILE]

Inside training and validation images, five folds drawn anew for each repetition (`data.folds`): the held-out fold is
measured after the last epoch, averaged over symmetries; test images are never read. Differences from the defaults are
taken fold by fold, with the same seeds, and their standard errors allow for training images that folds have in common
(`evaluation.folds_interval`). All folds of one model are trained as one stack.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

FOLDS = 5
DATASETS = ("breastmnist", "retinamnist")
MODELS = ("qvit_4q2h", "vit_4q2h_matched")
# One option each, as `--set` takes it; the last are recipes of several.
OPTIONS: dict[str, dict[str, Any]] = {
    "features=dct": {"features": "dct"},
    "features=contrast": {"features": "contrast"},
    "pool=max": {"pool": "max"},
    "pool=meanmax": {"pool": "meanmax"},
    "pool=all": {"pool": "all"},
    "pool=cls": {"pool": "cls"},
    "pool=attention": {"pool": "attention"},
    "positions=factored": {"positions": "factored"},
    "positions=row": {"positions": "row"},
    "positions=mirror": {"positions": "mirror"},
    "positions=d4": {"positions": "d4"},
    "positions=sincos": {"positions": "sincos"},
    "attention_scale=4": {"attention_scale": 4.0},
    "learned_scale": {"learned_scale": True},
    "readout=zz": {"readout": "zz"},
    "ansatz=reupload, 2 layers": {"ansatz": "reupload", "n_layers": 2},
    "loops=2": {"loops": 2},
    "depth=2": {"depth": 2},
    "distort=1": {"distort": 1.0},
    "distort=3": {"distort": 3.0},
    "mixup=0.2": {"mixup": 0.2},
    "average=20": {"average": 20},
    "loss=ce+emd": {"loss": "ce+emd"},
    "contrast, distort, all, mixup, × 4": {
        "features": "contrast",
        "distort": 1.0,
        "pool": "all",
        "mixup": 0.2,
        "attention_scale": 4.0,
    },
}
OF_CIRCUITS = ("readout", "ansatz", "n_layers")  # a dense twin is matched to the circuits that have them


def folds_of(dataset: str, model: str, options: dict[str, Any], repeats: int, root: str, epochs: int) -> list[float]:
    """Train a model on all folds; return the AUC of each held-out fold, or raise what training raises."""
    from qvit.errors import QvitError
    from qvit.training.many import Asked, train_many
    from qvit.training.options import resolve

    common = {"keep": "last", "tta": "always", "stacked": True, "folds": FOLDS, "fold": 1, "epochs": epochs}
    first = resolve({"dataset": dataset, "model": model} | common | options)
    with tempfile.TemporaryDirectory() as folder:
        asked = [
            Asked(replace(first, seed=seed, fold=fold), Path(folder) / f"{seed}-{fold}")
            for seed in range(repeats)
            for fold in range(1, FOLDS + 1)
        ]
        done = train_many(asked, root=root, download=False)
        for one in done:
            if isinstance(one, QvitError):
                raise one
        return [one.result.val.auc for one in done]  # type: ignore[union-attr]


def parameters(dataset: str, model: str, options: dict[str, Any]) -> int:
    """Return the number of a model's parameters."""
    from qvit.data.registry import get_info
    from qvit.models import count_parameters
    from qvit.training.options import resolve

    asked = resolve({"dataset": dataset, "model": model, "keep": "last"} | options)
    return count_parameters(asked.architecture(get_info(dataset), 28))


def difference(plain: Sequence[float], changed: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference of folds and its standard error."""
    from scipy.stats import t

    from qvit.evaluation import folds_interval

    values = [after - before for before, after in zip(plain, changed, strict=True)]
    found = folds_interval(values, FOLDS)
    assert found.high is not None
    return found.value, (found.high - found.value) / float(t.ppf(0.975, len(values) - 1))


def _one(task: tuple[str, str, str, dict[str, Any], int, str, int]) -> tuple[tuple[str, str, str], Any]:
    dataset, model, name, options, repeats, root, epochs = task
    before = time.perf_counter()
    try:
        found: Any = folds_of(dataset, model, options, repeats, root, epochs)
    except Exception as error:  # one option that does not fit this data is told as such
        found = f"{type(error).__name__}: {error}"
    print(f"{dataset} {model} {name}: {time.perf_counter() - before:.0f} s", flush=True)
    return (dataset, model, name), found


def measured(datasets: Sequence[str], names: Sequence[str], repeats: int, root: str, epochs: int) -> dict[str, Any]:
    """Train all, on all cores; return the AUC of each fold."""
    tasks = []
    for dataset in datasets:
        for model in MODELS:
            for name in ("defaults", *names):
                options = OPTIONS.get(name, {})
                if "loss" in options and dataset != "retinamnist":
                    continue  # whose classes have no order
                tasks.append((dataset, model, name, options, repeats, root, epochs))
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for (dataset, model, name), values in pool.map(_one, tasks):
            found.setdefault(dataset, {}).setdefault(model, {})[name] = values
    return found


def table(found: dict[str, Any]) -> list[str]:
    """Return a table in Markdown: differences in points of AUC (hundredths), and parameters."""
    lines = []
    for dataset, models in found.items():
        plain = {model: rows["defaults"] for model, rows in models.items()}
        means = ", ".join(f"`{model}` {math.fsum(rows) / len(rows):.3f}" for model, rows in plain.items())
        heads = [f"`{model}`" for model in models]
        lines += [f"**{dataset}**, defaults: {means}", ""]
        lines += [f"| option | {' | '.join(f'{head} Δ AUC ± se | parameters' for head in heads)} |"]
        lines += ["|---|" + "---:|---:|" * len(heads)]
        for name in next(iter(models.values())):
            if name == "defaults":
                continue
            cells = []
            for model, rows in models.items():
                if isinstance(rows[name], str):
                    cells += ["–", "–"]
                    continue
                mean, error = difference(plain[model], rows[name])
                cells += [f"{mean:+.3f} ± {error:.3f}", f"{parameters(dataset, model, OPTIONS[name]):,}"]
            lines += [f"| {name} | {' | '.join(cells)} |"]
        lines.append("")
    return lines


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", action="append", choices=DATASETS)
    parser.add_argument("--only", action="append", choices=list(OPTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--root", default=os.environ.get("QVIT_DATA", ""))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    found = measured(given.dataset or DATASETS, given.only or list(OPTIONS), given.repeats, given.root, given.epochs)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    lines = table(found)
    print("\n".join(lines))
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes")
    if given.markdown:
        given.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
