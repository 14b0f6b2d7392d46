"""A run is a folder: what is in it, what it refuses, and what it says of damage."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qvit
from qvit import files
from qvit.data.arrays import Dataset, load_dataset
from qvit.errors import QvitError, RunError, TrainingError
from qvit.evaluation.medmnist_files import parse_result_name
from qvit.evaluation.metrics import evaluate
from qvit.evaluation.statistics import bootstrap_interval
from qvit.models import model_config
from qvit.training import loop
from qvit.training.evaluated import evaluate_run, evaluate_split
from qvit.training.options import RunConfig, resolve
from qvit.training.prediction import predict
from qvit.training.records import Validation
from qvit.training.run import Run, build_model, train_run
from qvit.training.together import Together

MakeConfig = Callable[..., RunConfig]
Kept = Callable[[Path], dict[str, bytes]]
pytestmark = pytest.mark.usefixtures("nudged")  # a folder is the same whatever the steps were


class Killed(BaseException):
    pass


def stop(record: dict[str, Any], _seconds: float) -> None:
    raise Killed


@pytest.fixture
def unfinished(config: MakeConfig, tmp_path: Path) -> Path:
    with pytest.raises(Killed):
        train_run(config(), tmp_path / "unfinished", on_epoch=stop)
    return tmp_path / "unfinished"


# --- contents ---


def test_holds_what_it_says_and_nothing_else(run: Run) -> None:
    names = sorted(path.name for path in run.folder.iterdir())
    csvs = [name for name in names if name.endswith(".csv")]
    assert sorted(set(names) - set(csvs)) == [
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
        "timings.jsonl",
    ]
    parsed = sorted((parse_result_name(name) for name in csvs), key=lambda part: part.split)
    assert [(part.flag, part.size, part.split, part.run) for part in parsed] == [
        ("cells", 12, "test", "qvit_4q1h-s3"),
        ("cells", 12, "val", "qvit_4q1h-s3"),
    ]
    for part in parsed:
        assert part.auc == pytest.approx(getattr(run.result, part.split).auc, abs=5e-4)
        assert part.acc == pytest.approx(getattr(run.result, part.split).acc, abs=5e-4)


def test_history_and_timings(run: Run) -> None:
    assert [record.epoch for record in run.history] == [1, 2]
    assert [line["epoch"] for line in run.timings] == [1, 2]
    assert run.seconds == sum(line["seconds"] for line in run.timings) > 0


def test_result(run: Run) -> None:
    result = run.result
    best = max(run.history, key=lambda record: (record.val_auc, -record.val_loss))
    assert result.best_epoch == best.epoch
    assert result.parameters == sum(p.numel() for p in run.load_model().parameters()) == run.config["parameters"]
    data = run.load_data()
    for split in ("val", "test"):
        measures = evaluate(data[split].labels, run.predictions(split), data.info.task)
        found = getattr(result, split)
        assert {name: getattr(found, name) for name in measures} == measures
        for name in ("auc", "acc"):
            interval = bootstrap_interval(data[split].labels, run.predictions(split), data.info.task)[name]
            assert getattr(found, f"{name}_interval") == (interval.low, interval.high)


@pytest.mark.parametrize("tta", ["mirror", "none"])
def test_is_predicted_with_what_the_checkpoint_was_chosen_by(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tta: str
) -> None:
    figures = iter([Validation(1.0, 0.9, 0.5, tta), Validation(1.0, 0.8, 0.5, "d4")])
    monkeypatch.setattr("qvit.training.together.validation_figures", lambda *args: next(figures))
    run = train_run(config(), tmp_path / "run")
    assert (run.result.best_epoch, run.result.tta) == (1, tta)
    data, model = run.load_data(), run.load_model()
    for split in ("val", "test"):
        scores = predict(model, data[split], data.info.task, group=tta)
        np.testing.assert_allclose(scores, run.predictions(split), rtol=0, atol=1e-12)


def test_environment(run: Run) -> None:
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment.keys() == {"started", "python", "platform", "processor", "cpus", "gpu", "packages"}
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", environment["started"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[><=;\[ ]", line)[0] for line in project["dependencies"]}
    needed.add("llvmlite")  # numba's own
    assert set(environment["packages"]) <= needed, "a package that not every installation has cannot be asked for"


def test_says_which_code_and_data(run: Run, finished: Path) -> None:
    assert run.config["qvit_version"] == qvit.__version__
    assert run.config["data_digest"] == load_dataset(finished / "cells.npz").digest
    assert run.config["dataset"] == "../cells.npz"


def test_the_path_of_the_data_is_kept_whole(
    config: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_npz()
    monkeypatch.chdir(tmp_path)
    run = train_run(config(Path("madeup.npz"), epochs=1), "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(Run(tmp_path / run.folder).load_data().test) == 23


@pytest.mark.long
def test_threads_bite_and_are_restored(config: MakeConfig, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    for threads in (1, 2):
        train_run(
            config(threads=threads, epochs=1),
            tmp_path / str(threads),
            on_epoch=lambda *_: seen.append(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == before
    assert seen == [1, 2]


# --- weights and predictions agree ---


def test_loaded_weights_give_the_stored_predictions(run: Run) -> None:
    data, model = run.load_data(), run.load_model()
    assert not model.training
    for split in ("val", "test"):
        scores = predict(model, data[split], data.info.task, group=run.result.tta)
        np.testing.assert_allclose(scores, run.predictions(split), rtol=0, atol=1e-12)


def test_evaluating_again_gives_the_result(run: Run) -> None:
    for split in ("val", "test"):
        assert evaluate_run(run, split) == getattr(run.result, split)
    assert evaluate_run(run, "train").acc > 0
    with pytest.raises(QvitError, match="Unknown split 'training'"):
        evaluate_run(run, "training")


def test_normalisation_is_saved_with_the_weights(run: Run) -> None:
    data, model = run.load_data(), run.load_model()
    images = data.train.images / 255.0
    np.testing.assert_allclose(model.preprocess.mean, images.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(model.preprocess.std, images.std((0, 2, 3)), rtol=1e-5)


def test_a_fresh_model_is_fixed_by_its_seed_alone(make_data: Callable[..., Dataset]) -> None:
    data, architecture = make_data(), model_config("qvit_4q1h", num_classes=4, img_size=12)
    built = []
    for seed, drawn in ((3, 0), (3, 5), (4, 0)):
        torch.manual_seed(drawn)
        torch.rand(drawn)
        before = torch.random.get_rng_state()
        built.append(build_model(architecture, data, seed=seed).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before)
    first, same, other = built
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("part", [None, 5000, 432, 100])  # bytes at a time; an image of three channels has 432
@pytest.mark.parametrize("channels", [1, 3])
def test_a_fresh_model_normalises_as_the_training_images_need(
    make_data: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, channels: int, part: int | None
) -> None:
    data = make_data(channels=channels)
    architecture = model_config("vit_4q1h", in_chans=channels, num_classes=4, img_size=12)
    whole = build_model(architecture, data, seed=0).preprocess
    if part is not None:
        monkeypatch.setattr("qvit.training.statistics.STATISTICS_BYTES", part)
    found = build_model(architecture, data, seed=0).preprocess
    images = data.train.images.astype(np.float64) / 255.0
    np.testing.assert_allclose(found.mean.flatten(), images.mean((0, 2, 3)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.std.flatten(), images.std((0, 2, 3)), rtol=0, atol=1e-6)
    assert torch.equal(found.mean, whole.mean)
    assert torch.equal(found.std, whole.std)


# --- what it refuses ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.1}, "train.lr: 0.005 → 0.1"),
        ({"seed": 1}, "seed: 0 → 1"),
        ({"epochs": 5, "tta": "never"}, "train.epochs: 2 → 5; train.tta: auto → never"),
        ({"mlp_dim": 5, "depth": 2}, None),
        ({"model": "qvit_4q1h"}, None),
    ],
)
def test_refuses_to_resume_another_configuration(
    config: MakeConfig, unfinished: Path, kept: Kept, change: dict[str, Any], told: str | None
) -> None:
    before = kept(unfinished)
    with pytest.raises(RunError, match="holds a run with another configuration") as caught:
        train_run(config(**change), unfinished, resume=True)
    [named] = re.findall(r"another configuration \((.*)\)\. Choose another --out\.", str(caught.value))
    if told is not None:  # just what differs
        assert named == told
    else:  # and what follows from it, such as the number of parameters
        keys = {part.split(": ")[0].rpartition(".")[2] for part in named.split("; ")}
        assert set(change) < keys
        assert keys.isdisjoint({"seed", "dataset", "data_digest", "epochs", "lr", "img_size", "train", "model_config"})
    assert kept(unfinished) == before


def test_refuses_to_resume_with_other_data(
    config: MakeConfig, make_npz: Callable[..., Path], unfinished: Path, kept: Kept
) -> None:
    before = kept(unfinished)
    make_npz(seed=1)
    with pytest.raises(RunError, match=r"another configuration .*data_digest: [0-9a-f]{32} → [0-9a-f]{32}"):
        train_run(config(unfinished.parent / "madeup.npz"), unfinished, resume=True)
    assert kept(unfinished) == before


def test_refuses_to_evaluate_on_other_data(config: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run(config(epochs=1), tmp_path / "run")
    make_npz(seed=1)
    with pytest.raises(RunError, match=r"trained on other data: expected .*madeup.npz with digest [0-9a-f]{32}, found"):
        evaluate_run(run)


@pytest.mark.parametrize("state", ["finished", "started"])
def test_refuses_a_folder_with_a_run_unless_resuming(
    config: MakeConfig, run: Run, unfinished: Path, kept: Kept, state: str
) -> None:
    folder = run.folder if state == "finished" else unfinished
    before = kept(folder)
    with pytest.raises(RunError) as caught:
        train_run(config(), folder)
    assert str(caught.value) == (
        f"{folder} already holds a {state} run. Go on with it by --resume, or choose another folder with --out."
    )
    assert kept(folder) == before


@pytest.mark.parametrize("resume", [True, False])
def test_refuses_a_folder_with_other_things(config: MakeConfig, tmp_path: Path, resume: bool) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="home is not empty and not a run folder"):
        train_run(config(), folder, resume=resume)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]
    assert (folder / "letter.txt").read_text() == "dear"


def test_refuses_a_file_for_a_folder(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"Cannot use .*file.* as a run folder: .*Choose another with --out"):
            train_run(config(), folder)
    assert (tmp_path / "file").read_text() == "dear"


def test_resuming_what_has_not_begun_begins_it(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert train_run(config(epochs=1), tmp_path / "run", resume=True).finished


def test_resuming_a_finished_run_returns_it(config: MakeConfig, run: Run, finished: Path) -> None:
    shutil.copy(finished / "cells.npz", run.folder.parent / "cells.npz")  # the run was copied from beside it
    times = {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    same = config(run.folder.parent / "cells.npz", model="qvit_4q1h", seed=3, batch_size=None)
    again = train_run(same, run.folder, resume=True, on_epoch=stop)
    assert again.result == run.result
    assert {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()} == times


# --- unfinished and damaged ---


def test_an_unfinished_run_says_so(unfinished: Path) -> None:
    run = Run(unfinished)
    assert not run.finished
    with pytest.raises(RunError, match=r"unfinished is not finished; go on with `qvit train … --resume`"):
        _ = run.result
    with pytest.raises(RunError, match="not finished"):
        evaluate_run(run)
    with pytest.raises(RunError, match=r"model.safetensors cannot be read as weights"):
        run.load_model()
    with pytest.raises(RunError, match=r"Expected one prediction file of the test split .*, found 0"):
        run.predictions("test")
    assert len(run.history) == 1


@pytest.mark.parametrize("what", ["config", "result"])
def test_another_folder_is_no_run(tmp_path: Path, what: str) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: \w+\.json is missing"):
        getattr(Run(tmp_path), what)
    with pytest.raises(RunError, match=r"is not a run folder: \w+\.json is missing"):
        evaluate_run(Run(tmp_path / "nowhere"))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.long
@pytest.mark.parametrize("damage", [_cut, _empty])
def test_a_damaged_state_is_told_and_left(
    config: MakeConfig, unfinished: Path, kept: Kept, damage: Callable[[Path], None]
) -> None:
    damage(unfinished / "state.pt")
    before = kept(unfinished)
    with pytest.raises(RunError, match=r"state.pt cannot be read as a training state .* delete it to start this run"):
        train_run(config(), unfinished, resume=True)
    assert kept(unfinished) == before
    (unfinished / "state.pt").unlink()
    assert train_run(config(), unfinished, resume=True).finished


# --- faults ---


@pytest.mark.long
def test_a_full_disk_loses_nothing(
    config: MakeConfig, tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at every write in turn; each time the error says so and the run goes on afterwards."""
    settings, fsync = config(epochs=2), os.fsync
    whole = train_run(settings, tmp_path / "whole")
    room = 0

    def full(descriptor: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    folder, messages = tmp_path / "run", list[str]()
    for extra in range(20):
        room = 1 + extra
        before = kept(folder) if folder.exists() else {}
        try:
            train_run(settings, folder, resume=True)
            break
        except RunError as error:
            messages.append(str(error))
            assert before.keys() <= kept(folder).keys()
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert len(messages) >= 3
    told = r"Cannot write .*: No space left on device\. Nothing was lost; free some space"
    assert all(re.search(told, message) for message in messages)
    assert kept(folder) == kept(whole.folder)


def test_training_that_fails_keeps_its_last_epoch(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudge = loop.train_epoch

    def fail(trained: Together) -> Any:
        if trained.members[0].state.epoch == 1:
            raise TrainingError("The loss is no longer finite")
        return nudge(trained)

    with monkeypatch.context() as patch:
        patch.setattr("qvit.training.loop.train_epoch", fail)
        with pytest.raises(TrainingError, match=r"^The loss is no longer finite$"):
            train_run(config(), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert (len(run.history), run.finished) == (1, False)
    assert train_run(config(), run.folder, resume=True).finished


def test_any_file_name_will_do(config: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    run = train_run(config(make_npz(name="é@b[c]_.npz"), epochs=1), tmp_path / "run")
    assert run.predictions("test").shape == (23, 4)
    assert evaluate_run(run) == run.result.test


def test_one_process_a_folder(config: MakeConfig, tmp_path: Path) -> None:
    made = config(epochs=1)
    run = train_run(made, tmp_path / "run")
    with files.sole_user(run.folder), pytest.raises(RunError, match="in use by another process; wait for it"):
        train_run(made, run.folder, resume=True)
    assert train_run(made, run.folder, resume=True).finished  # the folder was let go of


@pytest.mark.long
def test_replaces_an_earlier_run_only_once_it_holds_the_folder(config: MakeConfig, tmp_path: Path, kept: Kept) -> None:
    earlier, made = config(), config(epochs=1)
    fresh = train_run(made, tmp_path / "fresh")
    run = train_run(earlier, tmp_path / "run")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.folder.iterdir()}
    with files.sole_user(run.folder), pytest.raises(RunError, match="in use by another process; wait for it"):
        train_run(made, run.folder, overwrite=True)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.folder.iterdir()} == before
    assert kept(train_run(made, run.folder, overwrite=True).folder) == kept(fresh.folder)
    assert len(Run(run.folder).timings) == 1
    before = kept(run.folder)
    with pytest.raises(RunError, match="already holds a finished run"):
        train_run(config(epochs=1, model="qvit_4q1h"), run.folder, overwrite=True)
    assert kept(run.folder) == before


def test_a_run_with_a_folder_of_its_users_in_it_is_not_replaced(config: MakeConfig, tmp_path: Path) -> None:
    made = config(epochs=1)
    run = train_run(made, tmp_path / "run")
    (run.folder / "notes").mkdir()
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    with pytest.raises(RunError, match="holds folders that no run makes; it was left as it is"):
        train_run(made, run.folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "qvit_4q2"}, "There is no model 'qvit_4q2'"),
        ({"model": "qvit_0q2h"}, "dim must be at least 1"),
        ({"patch_size": 5}, "patch_size"),
        ({"loss": "emd"}, "loss='emd' does not fit a binary task"),
        ({"device": "nowhere"}, "device"),
        ({"size": 29}, "has no files of size 29"),
        ({}, "expected the official file of BreastMNIST, found nothing there"),
    ],
)
def test_what_needs_no_data_is_refused_before_they_are_looked_for(
    options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(QvitError, match=told):
        train_run(resolve({"dataset": "breastmnist"} | options), tmp_path / "run", root=tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


# --- near-duplicates ---


@pytest.mark.long
def test_measures_without_near_duplicates(config: MakeConfig, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    arrays = dict(np.load(make_npz()))
    arrays["test_images"][[2, 7]] = arrays["train_images"][[3, 4]]
    arrays["val_images"][1] = arrays["train_images"][9][:, ::-1]
    np.savez(tmp_path / "copies.npz", **arrays)
    run = train_run(config(tmp_path / "copies.npz", epochs=1), tmp_path / "apart")
    evaluated = evaluate_split(run)
    assert evaluated.measured.figures == run.result.test == evaluate_run(run)
    apart = evaluated.apart
    assert apart is not None
    assert apart.copies == 2
    keep = np.setdiff1d(np.arange(len(arrays["test_labels"])), [2, 7])
    data = run.load_data()
    expected = evaluate(data.test.labels[keep], run.predictions("test")[keep], data.info.task)
    assert apart.without is not None
    assert apart.without.auc == pytest.approx(expected["auc"])
    assert apart.without.kappa == pytest.approx(expected["kappa"])
    apart = evaluate_split(run, "val").apart
    assert apart is not None
    assert apart.copies == 1
    plain = train_run(config(make_npz(), epochs=1), tmp_path / "plain")
    apart = evaluate_split(plain).apart
    assert apart is not None
    assert (apart.copies, apart.without) == (0, None)
    assert apart.exact_only, "of 24 training images nothing is learnt of what is near"
    assert evaluate_split(plain, copies=False).apart is None
