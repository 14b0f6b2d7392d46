"""What a run is: the same number for the same run, wherever and whenever, and another for any other."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvit.distill.guide import DistillConfig
from qvit.study import identity, reading
from qvit.study.identity import Identities
from qvit.study.reading import parse_study, read_study
from qvit.study.spec import Job, Study, restrict
from qvit.training.config import TrainConfig
from qvit.training.options import RunConfig

MakeNpz = Callable[..., Path]


@pytest.fixture
def of(make_npz: MakeNpz) -> Callable[..., str]:
    """The identity of a run on a made-up file, with these options."""
    npz = make_npz()

    def identify(**options: Any) -> str:
        return Identities().of(job_of({"dataset": str(npz), "model": "qvit_4q2h"} | options))

    return identify


def job_of(options: dict[str, Any], *teachers: Job) -> Job:
    study = parse_study("datasets: phantom\nmodels: qvit_4q2h", name="s")
    [job] = study.jobs
    return replace(job, options=options, teachers=teachers)


def parse(text: str, npz: Path) -> Study:
    return parse_study(f"datasets: {npz}\n{text}", name="s")


# Another value than the default of every option of training and of distillation.
OTHER_TRAIN: dict[str, Any] = {
    "epochs": 7, "batch_size": 8, "lr": 0.25, "weight_decay": 0.5, "schedule": "constant", "warmup": 0.125,
    "clip_norm": 2.0, "loss": "ce", "label_smoothing": 0.25, "class_weights": "balanced", "augment": "d4",
    "distort": 1.0, "mixup": 0.25, "tta": "never", "keep": "last", "average": 2, "patience": 3,
    "device": "meta", "threads": 2,
}  # fmt: skip
OTHER_RUN: dict[str, Any] = {"model": "qvit_4q1h", "seed": 1, "size": 12, "task": "ordinal", "depth": 2, "n_layers": 2}
OTHER_DISTILLED: dict[str, Any] = {
    "temperature": 3.0, "kd_loss": "mse", "mixtures": 10, "pretrain": {"epochs": 3}, "finetune": {"epochs": 3},
    "transfer_set": "pool.npz", "joint": True, "scratch": True,
}  # fmt: skip


def test_every_option_of_training_is_tried() -> None:
    assert set(OTHER_TRAIN) == {field.name for field in fields(TrainConfig)}


def test_every_option_of_a_run_counts(of: Callable[..., str]) -> None:
    last = {"average": {"keep": "last"}}  # which is another run than with that alone
    changed = {key: of(**last.get(key, {}) | {key: value}) for key, value in (OTHER_TRAIN | OTHER_RUN).items()}
    assert len({of(), *changed.values()}) == 1 + len(changed)


def test_the_name_of_a_recipe_does_not_count(of: Callable[..., str], make_npz: MakeNpz) -> None:
    assert of(recipe="mine") == of()
    teacher = job_of({"dataset": str(make_npz()), "model": "vit_4q1h"})
    options = {"dataset": str(make_npz()), "model": "qvit_4q2h", "scratch": False}
    named, plain = (job_of(options | more, teacher) for more in ({"recipe": "mine"}, {}))
    assert Identities().of(named) == Identities().of(plain)


def test_every_option_of_a_distillation_counts(make_npz: MakeNpz) -> None:
    base = {"dataset": str(make_npz()), "model": "qvit_4q2h", "size": 12}
    teacher = job_of(base | {"model": "vit_4q1h"})

    def taught(**options: Any) -> str:
        return Identities().of(job_of(base | {"scratch": False} | options, teacher))

    more = {"alpha": {"joint": True, "alpha": 0.75}, "transfer_set": {"transfer_set": str(make_npz("pool", seed=1))}}
    changed = {key: taught(**more.get(key, {key: value})) for key, value in (OTHER_DISTILLED | {"alpha": 0}).items()}
    for field in fields(DistillConfig):
        if field.name not in changed:  # numbers, all of them
            changed[field.name] = taught(**{field.name: 0.25})
    assert len({taught(), *changed.values()}) == 1 + len(changed)


def test_teachers_count(make_npz: MakeNpz) -> None:
    base = {"dataset": str(make_npz()), "model": "qvit_4q2h"}
    one, other = job_of(base | {"model": "vit_4q1h"}), job_of(base | {"model": "vit_4q1h", "lr": 0.125})
    groups = [(one,), (other,), (one, other), (one, one)]
    found = {Identities().of(job_of(base | {"scratch": False}, *teachers)) for teachers in groups}
    assert len({Identities().of(job_of(base)), *found}) == 5


def test_own_files_count_by_what_they_hold_and_not_by_where_they_lie(make_npz: MakeNpz, tmp_path: Path) -> None:
    npz = make_npz()
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / npz.name
    shutil.copyfile(npz, moved)
    text = "models: qvit_4q2h\nteachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"

    def all_of(path: Path) -> list[str]:
        identities = Identities()
        return [identities.of(job) for job in parse(text, path).jobs]

    first = all_of(npz)
    assert len(set(first)) == 3
    assert all_of(moved) == first
    with np.load(npz) as arrays:
        changed = dict(arrays)
    changed["test_images"] = changed["test_images"].copy()
    changed["test_images"][0, 0, 0, 0] ^= 1
    np.savez(moved, **changed)
    assert not set(all_of(moved)) & set(first)
    shutil.copyfile(npz, moved.with_name("renamed.npz"))
    assert not set(all_of(moved.with_name("renamed.npz"))) & set(first), "the name is in the files of predictions"


def test_a_transfer_set_counts_by_what_it_holds(make_npz: MakeNpz, tmp_path: Path) -> None:
    base = {"dataset": str(make_npz()), "model": "qvit_4q2h", "size": 12}

    def of(pool: Path) -> str:
        return Identities().of(job_of(base | {"transfer_set": str(pool)}, job_of(base)))

    (tmp_path / "there").mkdir()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "pool.npz", images=rng.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8))
    shutil.copyfile(tmp_path / "pool.npz", tmp_path / "there" / "pool.npz")
    first = of(tmp_path / "pool.npz")
    assert of(tmp_path / "there" / "pool.npz") == first
    np.savez(tmp_path / "pool.npz", images=rng.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8))
    assert of(tmp_path / "pool.npz") != first


def test_the_order_of_options_does_not_count(of: Callable[..., str]) -> None:
    options = OTHER_TRAIN | OTHER_RUN | {"patience": None}  # which does not go with keep=last
    assert of(**dict(reversed(options.items()))) == of(**options)


def test_data_whose_digest_is_known_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "load_data", lambda *_, **__: pytest.fail("known without reading it"))
    known = {("breastmnist", size): f"digest of {size} pixels" for size in (28, 64, 128)}
    found = {
        Identities(digests=known).of(job_of({"dataset": "breastmnist", "model": "qvit_4q2h", "size": size}))
        for size in (28, 64, 128)
    }
    assert len(found) == 3


# --- code ---


def test_code_counts(of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = of()
    monkeypatch.setattr(identity, "code_digest", lambda: "another")
    assert of() != first


# --- whole studies ---


@pytest.mark.processes
@pytest.mark.slow("starts a Python that has to import torch")
def test_another_process_finds_the_same(make_npz: MakeNpz, tmp_path: Path) -> None:
    """With other hashes, another home, clock, language and folder, and by another way to the same file.

    And it reads the study without what only training needs, so that mistakes in it are told at once.
    """
    text = (
        "datasets: data/first.npz\nmodels: {kind: [qvit, vit], options: {depth: 2, pool: cls}}\n"
        "baselines: auto\nteachers: {t: [{arch: vit_4q1h, depth: 2, dropout: 0.5}]}\n"
        "regimes: {scratch: , kd: {teacher: t, pretrain: {epochs: 3, lr: 0.25}}}"
    )
    code = (
        "import json, sys; from pathlib import Path; from qvit.study.reading import parse_study; "
        "assert not {'monai', 'matplotlib'} & set(sys.modules); "
        "from qvit.study.identity import Identities; known = Identities(); "
        "print(json.dumps([known.of(j) for j in parse_study(sys.argv[1], name='other', folder=Path('link')).jobs]))"
    )
    (tmp_path / "link").symlink_to(make_npz().parent.parent)
    text = text.replace("data/", f"{make_npz().parent.name}/")
    known = Identities()
    here = [known.of(job) for job in parse_study(text, name="s", folder=make_npz().parent.parent).jobs]
    told = subprocess.run(
        [sys.executable, "-c", code, text],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONHASHSEED": "77", "HOME": str(tmp_path), "TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8"},
    )
    assert json.loads(told.stdout) == here


def test_two_ways_to_write_a_stage_are_one(make_npz: MakeNpz) -> None:
    """What a stage's options come to counts, not how that is said."""
    plain = {"dataset": str(make_npz()), "model": "qvit_4q2h"}
    base, teacher = plain | {"scratch": False}, job_of(plain)
    default = Identities().of(job_of(base, teacher))
    for said in ({"pretrain": {"epochs": 100}}, {"finetune": {"lr": 1e-3}}, {"finetune": {"epochs": 50.0}}):
        assert Identities().of(job_of(base | said, teacher)) == default
    assert Identities().of(job_of(base | {"finetune": {"lr": 2e-3}}, teacher)) != default


def test_a_network_of_timm_counts_with_its_version(of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for number in ("1.0.1", "1.0.2"):
        monkeypatch.setattr(identity, "version", lambda name, number=number: number if name == "timm" else "1")
        found.add(of(model="timm/resnet10t"))
        found.add(of())
    assert len(found) == 3, "ours have nothing to do with it"


@pytest.mark.long
def test_no_two_runs_of_a_study_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_check_options", lambda jobs: None)  # builds every model
    known = Identities()
    jobs = restrict(read_study("smoke"), seeds=2).jobs
    assert len({known.of(job) for job in jobs}) == len(jobs) == 25


def test_the_same_run_under_two_names_is_one(make_npz: MakeNpz) -> None:
    study = parse(
        "models: [qvit_4q2h, {name: qvit_4q2h, label: again}, {name: qvit_4q2h, options: {epochs: 100}}, "
        "{name: qvit_4q2h, options: {epochs: 99}}]",
        make_npz(),
    )
    first, again, said, other = (Identities().of(job) for job in study.jobs)
    assert first == again == said != other


def test_each_is_worked_out_once(make_npz: MakeNpz, monkeypatch: pytest.MonkeyPatch) -> None:
    study = parse(
        "models: qvit_4q2h\nseeds: 4\nteachers: {t: [{arch: vit_4q1h, seeds: 3}]}\nregimes: {kd: {teacher: t}}",
        make_npz(),
    )
    known, asked = Identities(), []
    work_out = known._work_out
    monkeypatch.setattr(known, "_work_out", lambda job: asked.append(job.name) or work_out(job))
    for _ in range(2):
        for job in study.jobs:
            known.of(job)
    assert len(asked) == len(set(asked)) == len(study.jobs)


def test_a_transfer_set_is_read_once(make_npz: MakeNpz, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = [str(make_npz(f"pool{k}", seed=k)) for k in (1, 2)]
    kd = ", ".join(f"kd{k}: {{teacher: t, transfer_set: {pool}}}" for k, pool in enumerate(pools))
    teachers = "{t: [{arch: vit_4q1h, size: 12}]}"
    study = parse(
        f"models: qvit_4q2h\nseeds: 3\noptions: {{size: 12}}\nteachers: {teachers}\nregimes: {{{kd}}}", make_npz()
    )
    asked, load_images = [], identity.load_images
    monkeypatch.setattr(identity, "load_images", lambda name, **said: asked.append(name) or load_images(name, **said))
    known = Identities()
    assert len({known.of(job) for job in study.jobs}) == len(study.jobs) == 7
    assert asked == pools
