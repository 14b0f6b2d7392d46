"""Runs made on the spot: one epoch each on made-up files, kept for the whole session; and studies made up whole."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.evaluation import statistics
from qvit.evaluation.metrics import evaluate
from qvit.evaluation.results import write_result
from qvit.models.cost import cost_of
from qvit.models.zoo import count_parameters, model_config
from qvit.study.spec import Job, parse_study
from qvit.study.store import Store
from qvit.training.folder import flag_of
from qvit.training.options import model_keys, resolve
from qvit.training.run import Run, train_run

torch.set_num_threads(1)  # as runs do: on models this small, threads only wait for each other

COUNTS = {"train": 24, "val": 16, "test": 20}


@pytest.fixture(scope="session")
def make_npz(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A file of noise with as many classes (or, if `several`, labels) as asked for."""
    folder = tmp_path_factory.mktemp("data")

    def make(name: str = "first", *, classes: int = 3, channels: int = 3, several: bool = False, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        arrays = {}
        for split, n in COUNTS.items():
            shape = (n, 12, 12, 3) if channels == 3 else (n, 12, 12)
            arrays[f"{split}_images"] = rng.integers(0, 256, shape).astype(np.uint8)
            labels = rng.permutation(np.arange(n))[:, None]
            arrays[f"{split}_labels"] = labels >> np.arange(classes) & 1 if several else labels % classes
        path = folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    return make


@pytest.fixture(scope="session")
def make_run(make_npz: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished run; the same options give the same one."""
    made: dict[str, Run] = {}

    def make(npz: Path | None = None, **options: Any) -> Run:
        given = {"dataset": str(npz or make_npz()), "model": "vit_4q1h", "epochs": 2} | options
        key = repr(sorted(given.items()))
        if key not in made:
            made[key] = train_run(resolve(given), tmp_path_factory.mktemp("run") / "run")
        return made[key]

    return make


# --- whole studies, whose runs were never trained ---

TASKS = {
    "a": ("multi-class", 3), "b": ("binary", 2), "c": ("ordinal", 4), "d": ("multi-label", 3),
    "retinamnist": ("ordinal", 5), "breastmnist": ("binary", 2), "pathmnist": ("multi-class", 9),
}  # fmt: skip
EPOCHS = 3


@cache
def _cost(model: str, options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    own = {key: value for key, value in options if key in model_keys()}
    return asdict(cost_of(model_config(model, num_classes=3, **own)))


@cache
def _parameters(model: str) -> int:
    return count_parameters(model_config(model, num_classes=3))


def _labels(task: str, classes: int, images: int) -> Any:
    rng = np.random.default_rng(5)
    if task == "multi-label":
        return (rng.permuted(np.arange(images)[:, None] + np.zeros(classes, int), axis=0) % 2).astype(np.int64)
    return rng.permutation(np.arange(images) % classes).astype(np.int64)[:, None]


def made_scores(labels: Any, task: str, classes: int, skill: float, seed: int) -> Any:
    """Probabilities that know the labels the better, the larger the skill; noise of images and of seeds."""
    truth = labels if task == "multi-label" else np.eye(classes)[labels[:, 0]]
    images, own = np.random.default_rng(7), np.random.default_rng(100 + seed)
    logits = skill * truth + images.normal(size=truth.shape) + 0.3 * own.normal(size=truth.shape)
    if task == "multi-label":
        return 1 / (1 + np.exp(0.5 * skill - logits))
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True)


UNTOLD = {"auc_interval": [None, None], "acc_interval": [None, None]}


@pytest.fixture(autouse=True)
def few_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of test images is enough to compare."""
    monkeypatch.setattr(statistics, "FEWEST_OF_A_CLASS", 0)
    monkeypatch.setattr(statistics, "FEWEST_IN_ALL", 0)


def _write_run(folder: Path, job: Job, task: str, labels: Any, scores: Any) -> dict[str, Any]:
    """The folder of a run that predicts these scores; returns its result."""
    folder.mkdir(parents=True)
    stem = Path(job.dataset).stem
    measures = evaluate(labels, scores, task)
    result = {
        "parameters": _parameters(job.model.name),
        "best_epoch": 2,
        "tta": "none",
        "val": {"auc": 0.5 + measures["auc"] / 2, "acc": measures["acc"]} | UNTOLD,
        "test": measures | UNTOLD,
    }
    config = {"dataset": stem, "size": 28, "task": task, "data_digest": f"digest of {stem}", "model": job.model.name}
    config |= {"model_config": {"num_classes": len(scores[0])}, "seed": job.seed, "train": {}}
    for name, content in (("config", config), ("result", result)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    epochs = range(1, EPOCHS + 1)
    others = {"lr": 0.001, "train_loss": 1.0, "val_loss": 1.0, "val_acc": 0.5, "tta": "none"}
    metrics = [{"epoch": e, "val_auc": 0.5 + 0.1 * e + 0.01 * job.seed} | others for e in epochs]
    for name, lines in (("metrics", metrics), ("timings", [{"epoch": e, "seconds": 1.5} for e in epochs])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_result(folder, flag_of(stem), 28, "test", scores, measures["auc"], measures["acc"], "made")
    return result


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a study: runs have the skill that `skill` gives them, and `state` "finished", "failed" or others.

    Its datasets are official ones, or files a.npz to d.npz, of another task each, that need not exist: see TASKS.
    """

    def make(
        text: str,
        *,
        skill: Callable[[Job], float] = lambda job: 1.0,
        state: Callable[[Job], str] = lambda job: "finished",
        images: int = 40,
        titles: dict[str, str] | None = None,
        classes: dict[str, list[str]] | None = None,
        name: str = "study",
    ) -> Path:
        folder = tmp_path_factory.mktemp("made") / name
        folder.mkdir()
        study = parse_study(text, name=name, folder=folder.parent)
        identities = {id(job): sha256(repr((job.dataset, job.options)).encode()).hexdigest() for job in study.jobs}
        (folder / "labels").mkdir()
        for dataset in study.datasets:
            stem = Path(dataset).stem
            task, count = TASKS[stem]
            np.savez(
                folder / "labels" / f"{stem}.npz",
                val=_labels(task, count, 8),
                test=_labels(task, count, images),
                names=np.array((classes or {}).get(stem, [f"class {k}" for k in range(count)])),
                task=np.array(task),
                title=np.array((titles or {}).get(stem, f"Set {stem.upper()}")),
                images=np.array([1200, 8, images]),
                digest=np.array(f"digest of {stem}"),
                synthetic=np.array(stem == "a"),
            )
        with Store.open(folder) as store:
            store.plan(
                [(identities[id(job)], job) for job in study.jobs],
                {identities[id(job)]: [identities[id(teacher)] for teacher in job.teachers] for job in study.jobs},
            )
            wanted = {(job.dataset, job.model.label): job for job in study.jobs}
            store.set_costs(
                (*key, _cost(job.model.name, tuple(job.model.options.items()))) for key, job in wanted.items()
            )
            machine = {"qvit": "0", "python": "3", "platform": "P", "processor": "one & only", "cores": 2}
            store.put(
                name=study.name, title=study.title, description=study.description, specification=study.text,
                code="c0de" * 16, machine=machine | {"packages": {"torch": "2"}},
            )  # fmt: skip
            begun = set()
            for stored, job in zip(store.jobs(), study.jobs, strict=True):
                if stored.identity in begun or state(job) == "waiting":
                    continue
                begun.add(stored.identity)
                store.begin(stored.identity, "worker 1")
                if state(job) == "failed":
                    store.fail(stored.identity, "ran out of <luck>")
                elif state(job) == "finished":
                    task, count = TASKS[Path(job.dataset).stem]
                    labels = _labels(task, count, images)
                    scores = made_scores(labels, task, count, skill(job), job.seed)
                    if not job.teachers:
                        result = _write_run(stored.folder, job, task, labels, scores)
                    else:
                        _write_run(stored.folder / "pretrain", job, task, labels, scores)
                        result = _write_run(stored.folder / "finetune", job, task, labels, scores)
                        (stored.folder / "distillation.json").write_text("{}")
                    store.finish(stored.identity, result, 4.5)
        return folder

    return make
