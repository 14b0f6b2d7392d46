"""All commands: a mistake is exit code 2, one line on stderr that says what is wrong, and nothing changed on disk."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

OFFICIAL = Path(os.environ.get("QVIT_DATA", "")) / "retinamnist.npz"
needs_files = pytest.mark.skipif(not OFFICIAL.is_file(), reason="QVIT_DATA names no folder with the official files")

pytestmark = pytest.mark.usefixtures("untrained", "small_phantom")
Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]
Arrays = dict[str, np.ndarray]


def check(told: Any, *parts: str, out: tuple[str, ...] = ()) -> None:
    """One line, exit code 2, no traceback; nothing on stdout, or what was found before the mistake was noticed."""
    assert told.code == 2, told.err
    assert bool(told.out) == bool(out), told.out
    for part in out:
        assert part in told.out
    assert told.err.startswith("Error: ")
    assert told.err.count("\n") == 1, told.err
    assert told.err.endswith("\n")
    assert "Traceback" not in told.err
    for part in parts:
        assert part in told.err


@pytest.fixture
def refused(qvit: Qvit, tmp_path: Path, tree: Tree) -> Callable[..., None]:
    """Call, check, and compare every byte below the temporary folder with what was there."""

    def call(arguments: list[object], *parts: str, out: tuple[str, ...] = ()) -> None:
        before = tree(tmp_path)
        check(qvit(*arguments), *parts, out=out)
        assert tree(tmp_path) == before

    return call


# --- data ---


def test_missing_file(refused: Callable[..., None], tmp_path: Path) -> None:
    for command in (["train"], ["data", "verify"], ["data", "get"]):
        refused([*command, tmp_path / "missing.npz"], "missing.npz", "nothing there")
    refused(
        ["train", "breastmnist", "--root", tmp_path, "--offline", "--out", tmp_path / "x"], "breastmnist.npz", "MD5"
    )


@needs_files
def test_flipped_byte_in_an_official_file(refused: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "retinamnist.npz"
    shutil.copyfile(OFFICIAL, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)
    for command in (["train"], ["data", "verify"], ["data", "get"]):
        out = ["--out", tmp_path / "x"] if command == ["train"] else []
        refused(
            [*command, "retinamnist", "--root", tmp_path, *out], "retinamnist.npz", "expected MD5 bd4c0672", "found"
        )


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_truncated_file(refused: Callable[..., None], npz: Path, tmp_path: Path, part: float) -> None:
    npz.write_bytes(npz.read_bytes()[: int(part * npz.stat().st_size)])
    refused(["train", npz, "--out", tmp_path / "x"], "small.npz", "expected", "found")


def _wrong(arrays: Arrays, kind: str) -> Arrays:
    images, labels = arrays["train_images"], arrays["train_labels"]
    floats = {key: value / 255.0 for key, value in arrays.items() if key.endswith("images")}
    if kind == "NaN":
        floats["val_images"][3, 2, 1, 0] = np.nan
    changes: dict[str, Arrays] = {
        "dtype": {"train_images": images.astype(np.int32)},
        "objects": {"train_labels": labels.astype(object)},
        "NaN": floats,
        "range": {"test_labels": np.full_like(arrays["test_labels"], 200)},
        "negative": {"train_labels": labels.astype(np.int16) - 1},
        "shape": {"train_images": images[:, :, :9]},
        "count": {"train_labels": labels[:-1]},
    }
    return arrays | changes[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("dtype", "expected uint8 in train_images, found int32"),
        ("objects", "pickle"),
        ("NaN", "NaN or infinity in image 3"),
        ("range", "200"),
        ("negative", "found -1"),
        ("shape", "12 x 9"),
        ("count", "23"),
    ],
)
def test_wrong_arrays(refused: Callable[..., None], arrays: Arrays, tmp_path: Path, kind: str, told: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **_wrong(arrays, kind))
    refused(["train", path, "--out", tmp_path / "x"], "wrong.npz", told)
    refused(["data", "verify", path], "wrong.npz", told)


def test_not_an_npz(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello\nworld\n")
    refused(["train", tmp_path / "text.npz", "--out", tmp_path / "x"], "text.npz")
    refused(["train", tmp_path, "--out", tmp_path / "x"], "a folder")


# --- names and options ---


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train"], "No dataset given"),
        (["train", "phantom", "--set", "epoch=3"], "There is no option 'epoch'. Did you mean 'epochs'?"),
        (["train", "phantom", "--set", "dim=8"], "There is no option 'dim'"),
        (["train", "phantom", "--set", "heads=2"], "There is no option 'heads'"),
        (["train", "phantom", "--set", "projection=linear"], "There is no option 'projection'"),
        (["train", "phantom", "--set", "tta=on"], "Option tta="),
        (["train", "RetinaMNIST"], "Did you mean 'retinamnist'?"),
        (["train", "--data", "retinamnist"], "/retinamnist: expected an .npz file, found nothing there"),
        (["train", "--data", "phantom"], "/phantom: expected an .npz file, found nothing there"),
        (["data", "info", "missing.npz"], "missing.npz: expected an .npz file, found nothing there"),
        (["data", "info", "./missing"], "missing: expected an .npz file, found nothing there"),
        (["train", "phantom", "--set", "lr=[1"], "'[1' is not a value"),
        (["train", "phantom", "--set", "epochs=many"], "Option epochs='many'"),
        (["train", "phantom", "--set", "lr=-1"], "lr must be positive, got -1"),
        (["train", "phantom", "--set", "patch_size=5"], "img_size=28 is not divisible by patch_size=5"),
        (["train", "phantom", "--set", "device=gpu"], "device='gpu'"),
        (["train", "phantom", "--set", "loss=emd"], "loss='emd' does not fit"),
        (["train", "phantom", "--size", "30", "--set", "patch_size=4"], "img_size=30 is not divisible by patch_size=4"),
        (["train", "phantom", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["train", "phantom", "--task", "binary"], "leave the task out"),
        (["trian", "phantom"], "No such command 'trian'"),
        (["evaluate"], "Missing argument"),
        (["compare"], "Missing argument"),
        (["data", "verify", "phantom"], "made on the spot"),
    ],
)
def test_names_and_options(
    refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(arguments, told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("epoch: 3\n", "There is no option 'epoch'. Did you mean 'epochs'?"),
        ("epochs: many\n", "Option epochs='many'"),
        ("epochs: [1\n", "is not valid YAML"),
        ("when: 2024-13-45\n", "There is no option 'when'"),
        ("epochs: 1_000\n", "Option epochs='1_000'"),
        ("a: 1\na: 2\n", "is not valid YAML: line 2: the key 'a' appears twice"),
        ("epochs\n", "must hold `key: value` lines"),
        ("- epochs: 3\n", "must hold `key: value` lines"),
        ("3: epochs\n", "must hold `key: value` lines"),
        ("dim: 8\n", "There is no option 'dim'"),
    ],
)
def test_options_files(refused: Callable[..., None], npz: Path, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    refused(["train", npz, "--config", tmp_path / "options.yaml", "--out", tmp_path / "x"], told)


# --- teachers and distillation ---


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder as the working directory and, what would be kept of teachers, as the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qvit.distill.teacher_cache.user_cache", lambda: tmp_path / "cache")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--arch", "timm/resnet10t"], "timm is not installed: pip install 'qvit[timm]'"),
        (["--arch", "timm/"], "timm/NAME, such as timm/"),
        (["--arch", "monai_vit", "--pretrained"], "There are no published weights of 'monai_vit'"),
        (["--arch", "vit", "--pretrained"], "Models have no option 'pretrained'"),
        (["--set", "width=0"], "width must be at least 1/64"),
        (["--set", "widht=0.5"], "There is no option 'widht'. Did you mean 'width'?"),
        (["--set", "arch=resnet18"], "There is no option 'arch'"),
        (["--arch", "densenet121", "--set", "stem=imagenet"], "densenet121 with stem 'imagenet' needs at least 29"),
    ],
)
def test_teachers(
    refused: Callable[..., None],
    here: Path,
    npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    told: str,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    refused(["teacher", npz.name, *arguments], told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--joint"], "No teacher given; name the folder of a trained run with --teacher (see `qvit teacher`)."),
        (["--teacher", "x", "--joint", "--alpha", "2"], "alpha must be from 0 (labels alone) to 1 (the teacher alone)"),
        (["--teacher", "x", "--joint", "--transfer-set", "phantom"], "A transfer set and mixtures have no labels"),
        (["--teacher", "x", "--joint", "--mixtures", "9"], "A transfer set and mixtures have no labels"),
        (["--teacher", "x", "--transfer-set", "phantom", "--mixtures", "9"], "Both a transfer set and mixtures"),
        (["--teacher", "x", "--joint", "--finetune", "lr=1"], "With --joint there are no stages"),
        (["--teacher", "x", "--temperature", "hot"], "Invalid value for '--temperature'"),
        (["--teacher", "x", "--pretrain", "lr=[1"], "--pretrain lr: '[1' is not a value"),
        (["--teacher", "x", "--finetune", "epoch=3"], "no option 'epoch' for finetune. Did you mean 'epochs'?"),
        (["--teacher", "x", "--pretrain", "lr=-1"], "lr must be positive, got -1"),
        (["--teacher", "x", "--set", "pretrain=5"], "pretrain must hold `key: value` options of training"),
        (["--teacher", "x", "--set", "pretrain=5", "--pretrain", "lr=1"], "pretrain must hold `key: value` options"),
        (["--teacher", "x", "--set", "temprature=3"], "no option 'temprature'. Did you mean 'temperature'?"),
        (["--teacher", "x", "--set", "device=gpu"], "device='gpu' cannot be used here"),
        (["--set", "teacher=5"], "teacher must be the folder of a trained run, or a list of them, got 5."),
        (["--set", "teacher={a: b}"], "or a list of them, got {'a': 'b'}."),
        (["--set", "teacher=[1, 2]"], "or a list of them, got [1, 2]."),
        (["--alpha"], "requires an argument"),
    ],
)
def test_distillation(refused: Callable[..., None], here: Path, npz: Path, arguments: list[object], told: str) -> None:
    refused(["distill", npz.name, *arguments], told)


def test_distillation_of_nothing(refused: Callable[..., None], here: Path) -> None:
    refused(["distill", "--teacher", "x"], "No dataset given")


@pytest.mark.long
def test_distillation_that_does_not_fit(
    refused: Callable[..., None], here: Path, train: Qvit, npz: Path, run: Path, arrays: Arrays
) -> None:
    """All of it is found before anything is trained."""
    two = {key: value % 2 if "labels" in key else value for key, value in arrays.items()}
    np.savez(here / "two.npz", **two)
    images = np.concatenate([arrays["train_images"][:2], arrays["test_images"][:3]])
    np.savez(here / "leak.npz", images=images)
    (here / "notes").mkdir()
    (here / "notes" / "a.txt").write_text("")
    shutil.copytree(run, here / "unfinished")
    (here / "unfinished" / "result.json").unlink()
    mistakes: list[tuple[list[object], str]] = [
        (["--kd-loss", "ordinal"], "kd_loss='ordinal' does not fit a multi-class task; use soft, mse, decoupled"),
        (["--finetune", "loss=emd"], "loss='emd' does not fit a multi-class task"),
        (["--finetune", "device=gpu"], "device='gpu' cannot be used here"),
        (["--student", "resnet18", "--set", "attention_weight=1"], "the student (Network) is not one"),
        (["--transfer-set", "nowhere.npz"], "nowhere.npz"),
        (["--transfer-set", "breastmnst"], "Did you mean 'breastmnist'?"),
        (["--transfer-set", "leak.npz"], "3 of 5 images to distil on are byte-identical"),
        (["--size", "13"], "13"),
        (["--teacher", "unfinished"], "The run in unfinished is not finished; go on with"),
        (["--out", "notes"], "notes holds other things (a.txt); choose another with --out"),
        (["--out", run, "--resume"], "run holds other things (config.json"),
        (["--out", npz], "Cannot use"),
        (["--out", npz / "x"], "Cannot use"),
        (["--cache", npz], "as a folder of teacher outputs: File exists. Choose another with --cache"),
    ]
    for arguments, told in mistakes:
        refused(["distill", npz, "--teacher", run, *arguments], told)
    refused(["distill", here / "two.npz", "--teacher", run], "The teacher's logits for one image are (1, 3)", "has 2")


# --- studies ---


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "no.yaml"], "Cannot read the study no.yaml: "),
        (["run", "smok"], "Did you mean 'smoke'?"),
        (["run", "wrong.yaml"], "Study wrong: a study has no key 'model'. Did you mean 'models'?"),
        (["run", "."], "expected a regular file, found a folder"),
        (["plan", "tiny.yaml", "--dataset", "phantom", "--dataset", "breastmnist"], "has no dataset 'breastmnist'"),
        (["plan", "tiny.yaml", "--seeds", "0"], "got 0"),
        (["plan", "tiny.yaml", "--seeds", "-1"], "got -1"),
        (["plan", "tiny.yaml", "--seeds", "many"], "Invalid value for '--seeds'"),
        (["run", "tiny.yaml", "--out", "wrong.yaml"], "Cannot use wrong.yaml as the folder of a study: "),
        (["run", "tiny.yaml", "--out", "wrong.yaml/x"], "Choose another with --out"),
        (["run"], "Missing argument"),
        (["reprot", "x"], "No such command 'reprot'"),
        (["report", "."], "holds no study (study.sqlite is missing); make one with `qvit study run`."),
        (["report", "wrong.yaml"], "wrong.yaml holds no study"),
        (["report", "damaged"], "study.sqlite cannot be used: file is not a database. It is damaged: delete it"),
        (["status", "damaged"], "study.sqlite cannot be used: file is not a database."),
    ],
)
def test_studies(
    refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("datasets: phantom\nmodel: qvit_4q2h\n")
    # Of a shipped study the runs alone take a second to work out.
    (tmp_path / "tiny.yaml").write_text("datasets: phantom\nmodels: vit_4q1h\nseeds: 3\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.sqlite").write_bytes(b"no database at all" * 99)
    refused(["study", *arguments], told)


def test_a_damaged_study_is_left_as_it_is(qvit: Qvit, tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    path.write_bytes(b"no database at all" * 99)
    (tmp_path / "runs").mkdir()
    study = tmp_path / "tiny.yaml"
    study.write_text("datasets: phantom\nmodels: vit_4q1h\nseeds: 3\n")
    check(qvit("study", "run", study, "--out", tmp_path), "finished runs in its folder are found and kept.")
    assert path.read_bytes() == b"no database at all" * 99


def test_a_study_of_files_that_are_not_there(qvit: Qvit, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("datasets: breastmnist\nmodels: qvit_4q2h\n")
    out = ["--out", tmp_path / "out"]
    check(qvit("study", "run", tmp_path / "s.yaml", "--root", tmp_path, "--offline", *out), "breastmnist.npz")
    (tmp_path / "s.yaml").write_text("datasets: missing.npz\nmodels: qvit_4q2h\n")
    check(qvit("study", "run", tmp_path / "s.yaml", *out), "missing.npz", "nothing there")
    check(qvit("study", "plan", tmp_path / "s.yaml"), "missing.npz", "nothing there")
    assert not (tmp_path / "out").exists()
    check(qvit("study", "report", tmp_path / "out"), "holds no study")


def test_a_study_without_a_finished_run(refused: Callable[..., None], tmp_path: Path) -> None:
    from qvit.study.reading import parse_study
    from qvit.study.store import Store

    jobs = parse_study("datasets: phantom\nmodels: qvit_4q2h", name="s").jobs
    with Store.open(tmp_path) as store:
        store.plan([("x" * 64, job) for job in jobs], {})
    refused(["study", "report", tmp_path], "No run of the study in", "is finished yet")


# --- folders ---


@pytest.mark.long
def test_unusable_output(refused: Callable[..., None], npz: Path, run: Path, tmp_path: Path) -> None:
    """Below a regular file nothing can be made, not even by root, whom permissions do not stop."""
    below = npz / "run"
    refused(["train", npz, "--out", below], "Cannot use", "Choose another with --out")
    refused(["train", npz, "--out", npz], "Cannot use", "Choose another with --out")
    refused(["demo", npz, "--epochs", 1, "--out", below], "Cannot use")
    refused(["compare", run, "--picture", npz / "p.png"], "Cannot write", out=("Runs", "vit_4q1h", "test AUC"))


def test_read_only_output(
    refused: Callable[..., None], npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system mounted read-only, which, unlike permissions, stops root as well."""
    folder = tmp_path / "shut"
    folder.mkdir()
    real = Path.open

    def read_only(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if folder in path.parents and mode.strip("bt") != "r":
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", read_only)
    refused(["train", npz, "--out", folder], "Cannot write", "Read-only file system. Nothing was lost")
    assert list(folder.iterdir()) == []


@pytest.mark.long
def test_existing_run(refused: Callable[..., None], npz: Path, run: Path) -> None:
    same = ["--model", "vit_4q1h", "--epochs", 1, "--out", run]
    refused(["train", npz, *same], "already holds a finished run", "--resume", "--out")
    refused(["train", npz, *same, "--resume", "--seed", 1], "another configuration (seed: 0 → 1).")
    refused(["train", npz, *same, "--resume", "--set", "lr=0.1"], "another configuration (train.lr: 0.005 → 0.1).")
    more = ["--model", "vit_4q1h", "--epochs", 2, "--out", run, "--resume"]
    refused(["train", npz, *more], "another configuration (train.epochs: 1 → 2).")
    refused(["train", npz, *more, "--seed", 1], "another configuration (seed: 0 → 1; train.epochs: 1 → 2).")


def test_existing_other_things(refused: Callable[..., None], npz: Path, tmp_path: Path) -> None:
    refused(["train", npz, "--out", tmp_path], "is not empty and not a run folder")
    refused(["train", npz, "--out", tmp_path, "--resume"], "is not empty and not a run folder")


def test_not_a_run(refused: Callable[..., None], npz: Path, run: Path, tmp_path: Path) -> None:
    for command in ("evaluate", "compare"):
        refused([command, tmp_path], "is not a run folder")
        refused([command, tmp_path / "nowhere"], "is not a run folder")
        refused([command, npz], "small.npz is not a run folder")
    refused(["evaluate", run, "--split", "training"], "Unknown split 'training'")


@pytest.mark.parametrize("name", ["config.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"model_type": "bert"}'])
def test_damaged_run(refused: Callable[..., None], run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    for command in ("evaluate", "compare"):
        refused([command, run], name)


def test_damaged_weights(refused: Callable[..., None], run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"nonsense")
    refused(["evaluate", run], "model.safetensors cannot be read as weights")


def test_data_changed_since(
    refused: Callable[..., None], run: Path, npz: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda digest: [])
    np.savez(npz, **(arrays | {"val_labels": 2 - arrays["val_labels"]}))
    refused(["evaluate", run], "trained on other data")
    npz.unlink()
    refused(["evaluate", run], "small.npz", "which is not there any more. Say where the file lies now with --data FILE")
    refused(["evaluate", run, "--data", npz], "small.npz", "nothing there")


@pytest.mark.long
def test_pictures_of_several_datasets(
    refused: Callable[..., None], qvit: Qvit, run: Path, npz: Path, arrays: Arrays, tmp_path: Path
) -> None:
    np.savez(tmp_path / "other.npz", **(arrays | {"val_labels": 2 - arrays["val_labels"]}))
    other = tmp_path / "other"
    assert qvit("train", tmp_path / "other.npz", "--model", "vit_4q1h", "--epochs", 1, "--out", other).code == 0
    arguments = ["compare", run, other, "--picture", tmp_path / "p.png"]
    refused(arguments, "on several", "--picture", out=("Runs", "vit_4q1h", "small", "other"))
    told = qvit(*arguments, "--json")
    check(told, "on several", "--picture", out=("{",))
    assert [row["dataset"] for row in json.loads(told.out)["runs"]] == [str(npz), str(tmp_path / "other.npz")]


@pytest.mark.long
def test_a_demo_that_fails_keeps_the_one_before(
    qvit: Qvit, refused: Callable[..., None], npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    assert qvit("demo", npz, "--epochs", 1, "--out", out).code == 0
    npz.write_bytes(b"damaged")
    refused(["demo", npz, "--epochs", 1, "--out", out], "small.npz")


@pytest.mark.long
def test_a_demo_does_not_replace_what_it_did_not_make(
    train: Qvit, npz: Path, refused: Callable[..., None], tmp_path: Path
) -> None:
    """A long run in a folder that happens to have the name of the model."""
    out = tmp_path / "runs"
    assert train(out / "qvit_4q2h").code == 0
    refused(["demo", npz, "--epochs", 1, "--out", out], "qvit_4q2h already holds a finished run")
