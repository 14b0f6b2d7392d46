"""Runs as if trained, and studies made up whole, whose runs were never trained."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.evaluation.medmnist_files import result_name
from qvit.evaluation.sampled import METRICS
from qvit.models.cost import Cost
from qvit.models.hardware_cost import HardwareCost
from qvit.report import arms, charts, forest
from qvit.report import forest as forest_module
from qvit.study import reading
from qvit.study.reading import parse_study
from qvit.study.spec import Job
from qvit.study.store import KnownCost, Store
from qvit.training.folder import flag_of
from qvit.training.records import Result
from report.made import CLASSES, TEXT, TITLES, MakeStudy
from suite.runs import few_will_do, make_npz, make_run, train_as_if  # noqa: F401 - fixtures

# --- whole studies, whose runs were never trained ---

TASKS = {
    "a": ("multi-class", 3), "b": ("binary", 2), "c": ("ordinal", 4), "d": ("multi-label", 3),
    "retinamnist": ("ordinal", 5), "breastmnist": ("binary", 2), "pathmnist": ("multi-class", 9),
}  # fmt: skip
EPOCHS = 3
QUANTUM = ("qvit", "no_entangler", "frozen", "unlu")  # kinds of models with circuits


def _parameters(model: str) -> int:
    """Return a number that grows with the sizes that a model's name says, and is the same for all kinds."""
    sizes = re.search("_([0-9]+)q([0-9]+)h", model)
    return 11000 if sizes is None else 700 + 40 * int(sizes[1]) * int(sizes[2])


def _cost(model: str) -> KnownCost:
    """Return a cost with other figures in each place."""
    number, circuits = _parameters(model), None
    if re.sub("_[0-9]+q.*", "", model) in QUANTUM:
        circuits = HardwareCost(
            circuits=1200, qubits=int(re.findall("_([0-9]+)q", model)[0]), shots_per_circuit=2000,
            shots=2_400_000, gates={"ry": 5000, "cx": 4600}, two_qubit_gates=4600, depth=17,
            depth_in_sequence=34, kinds=(),
        )  # fmt: skip
    cost = Cost(
        parameters=number, parameters_in_projections=number // 4, parameters_in_attention=number // 3,
        classical_flops=38 * number, engine="statevector" if circuits else "",
        simulation_flops=91 * number if circuits else 0, simulation_flops_by_engine={},
        flops=(129 if circuits else 38) * number, hardware=circuits,
    )  # fmt: skip
    return KnownCost(cost, "a digest")


@cache
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


@cache
def _predicted(task: str, classes: int, images: int, skill: float, seed: int) -> tuple[str, int, dict[str, float]]:
    """Return a file of predictions, the number of its columns, and their metrics."""
    labels = _labels(task, classes, images)
    scores = made_scores(labels, task, classes, skill, seed)
    lines = "".join(f"{k},{','.join(map(repr, row))}\n" for k, row in enumerate(scores.tolist()))
    return lines, len(scores[0]), {m: one.value(labels, scores, task) for m, one in METRICS.items()}


UNTOLD = {"auc_interval": [None, None], "acc_interval": [None, None]}


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are drawn as ever, but not laid out and written, which takes most of their time."""
    empty = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'
    for module in (charts, forest):
        monkeypatch.setattr(module, "svg", lambda figure: empty)


def _write_run(folder: Path, job: Job, skill: float, images: int) -> Result:
    """The folder of a run that predicts with a skill; returns its result."""
    folder.mkdir(parents=True)
    stem = Path(job.dataset).stem
    task, classes = TASKS[stem]
    lines, columns, found = _predicted(task, classes, images, skill, job.seed)
    result = {
        "parameters": _parameters(job.model.name),
        "best_epoch": 2,
        "tta": "none",
        "val": found | {"auc": 0.5 + found["auc"] / 2} | UNTOLD,
        "test": found | UNTOLD,
    }
    config = {"dataset": stem, "size": 28, "task": task, "data_digest": f"digest of {stem}", "model": job.model.name}
    config |= {"model_config": {"num_classes": columns}, "seed": job.seed, "train": {}}
    for name, content in (("config", config), ("result", result)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    epochs = range(1, EPOCHS + 1)
    others = {"lr": 0.001, "train_loss": 1.0, "val_loss": 1.0, "val_acc": 0.5, "tta": "none"}
    metrics = [{"epoch": e, "val_auc": 0.5 + 0.1 * e + 0.01 * job.seed} | others for e in epochs]
    for name, records in (("metrics", metrics), ("timings", [{"epoch": e, "seconds": 1.5} for e in epochs])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / result_name(flag_of(stem), 28, "test", found["auc"], found["acc"], "made")).write_text(lines)
    return Result.of(result)


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
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(reading, "_check_options", lambda jobs: None)  # builds every model
            patched.setattr(reading, "DEFAULT_BASELINES", "never")  # studies have the models that they name
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
            store._db.execute("PRAGMA synchronous = OFF")  # no disk is waited for
            store.plan(
                [(identities[id(job)], job) for job in study.jobs],
                {identities[id(job)]: [identities[id(teacher)] for teacher in job.teachers] for job in study.jobs},
            )
            wanted = {(job.dataset, job.model.label): job for job in study.jobs}
            store.set_costs((*key, _cost(job.model.name)) for key, job in wanted.items())
            machine = {"qvit": "0", "python": "3", "platform": "P", "processor": "one & only", "cpus": 2, "gpu": None}
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
                    if not job.teachers:
                        result = _write_run(stored.folder, job, skill(job), images)
                    else:
                        _write_run(stored.folder / "pretrain", job, skill(job), images)
                        result = _write_run(stored.folder / "finetune", job, skill(job), images)
                        (stored.folder / "distillation.json").write_text("{}")
                    store.finish(stored.identity, result, 4.5)
        return folder

    return make


EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All figures, instead of their being written."""
    figures: list[Any] = []

    def keep(figure: Any) -> str:
        figures.append(figure)
        return EMPTY

    for module in (charts, forest_module):
        monkeypatch.setattr(module, "svg", keep)
    return figures


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Intervals as quickly as they can be had."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arms, "RESAMPLES", 40)
        yield


@pytest.fixture(scope="session")
def told(make_study: MakeStudy) -> Path:
    """A study of three tasks, three kinds of models and a teacher, whose words are a trial for whoever shows them."""
    strength = {"qvit": 2.5, "vit_matched": 0.5}
    return make_study(
        TEXT,
        skill=lambda job: strength.get(job.model.kind, 1.0) + 0.4 * bool(job.teachers),
        classes=CLASSES,
        titles=TITLES,
    )


@pytest.fixture(scope="module")
def results(told: Path, few_resamples: None) -> arms.Results:
    return arms.load_results(told)
