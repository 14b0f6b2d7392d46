"""Whatever `qvit.distill` refuses, with the whole of what it says; that no message is left out is checked.

Each is said before anything is trained and before any teacher's output is kept.
"""

import errno
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qvit.distill
from distill.test_wrong_options import OF_TEACHING, RESOLVED
from qvit.data.arrays import Dataset, Split
from qvit.distill import (
    AskedStudent,
    CacheWarning,
    DistillationConfig,
    DistillationObjective,
    DistillConfig,
    Teacher,
    TeacherGuide,
    TeacherOutputs,
    distill,
    distill_many,
    pipeline,
    teacher_cache,
    teacher_outputs,
)
from qvit.distill.pipeline import RESULT
from qvit.errors import ConfigError, DataError, ModelError, QvitError, RunError
from qvit.training.objective import Supervised
from suite.messages import missing, raised


class Own(nn.Module):
    """A user's own network of bytes that says what it is told to."""

    def __init__(self, logits: Any = None, features: Any = None, attention: Any = None) -> None:
        super().__init__()
        self.said = logits, features, attention

    def _get(self, which: int, images: Tensor, *shape: int) -> Any:
        said = self.said[which]
        if said is None:
            return torch.ones(len(images), *shape)
        return said(images) if callable(said) else torch.full((len(images), *shape), said)

    def forward(self, images: Tensor) -> Any:
        return self._get(0, images, 4)

    def forward_features(self, images: Tensor) -> Tensor:
        return images

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, self._get(2, images, 2, 2)

    def forward_head(self, images: Tensor, pre_logits: bool = False) -> Any:
        return self._get(1, images, 3) if pre_logits else self.forward(images)


class Bare(nn.Module):
    """A network without anything but logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)[:, :4]


class Saving(nn.Module):
    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra


@dataclass
class World:
    """What the wrong inputs are made of, and where they are put."""

    tmp: Path
    make_data: Callable[..., Dataset]
    make_npz: Callable[..., Path]
    make_run: Callable[..., Any]
    build: Callable[..., Any]
    settings: Callable[..., DistillationConfig]
    run_teacher: Teacher
    patch: pytest.MonkeyPatch

    def distil(
        self, teacher: Teacher | None = None, folder: str | Path = "out", resume: bool = False, **more: Any
    ) -> None:
        cache = more.pop("cache", self.tmp / "cache")
        config = self.settings(more.pop("task", "multi-class"), **more)
        distill(config, teacher or self.run_teacher, self.tmp / folder, resume=resume, cache=cache)

    def fits(self, *members: nn.Module, data: Dataset | None = None, **wants: bool) -> None:
        Teacher("several", members, "").check_fits(data or self.make_data(), **wants)

    def guide(
        self, student: nn.Module, task: str = "multi-class", teacher: nn.Module | None = None, **how: Any
    ) -> None:
        guide = TeacherGuide(Teacher.of_module(teacher or Own()), DistillConfig(**how))
        guide.check(student, self.make_data(task))

    def transfer(self, alpha: float) -> None:
        images = Split(np.zeros((2, 3, 12, 12), np.uint8), np.full((2, 1), -1))
        TeacherGuide(Teacher.of_module(Own()), DistillConfig(alpha=alpha), transfer=(images, "these"))

    def ask(self, module: nn.Module | None = None, folder: Path | None = None, **wants: bool) -> None:
        teacher = Teacher.of_module(module or Own())
        place = folder or self.tmp / "kept"
        teacher_outputs(teacher, self.make_data().train, images_digest="these", group="none", folder=place, **wants)

    def damaged(self, change: Callable[[Path], Any]) -> None:
        self.ask()
        change(next((self.tmp / "kept").iterdir()))
        self.ask()

    def together(self, *students: DistillationConfig) -> None:
        asked = [AskedStudent(config, self.tmp / f"s{place}") for place, config in enumerate(students)]
        distill_many(asked, self.run_teacher, cache=self.tmp / "cache")

    def stack(self, *kinds: tuple[str, Any]) -> None:
        taught = torch.zeros(1, 7, 4)
        labels = Supervised("multi-class", "ce", 0.0, None)
        first, *others = [
            DistillationObjective(
                TeacherOutputs(taught, key=key), DistillConfig(loss), task="multi-class", labels=labels
            )
            for key, loss in kinds
        ]
        first.stacked(others)

    def holding(self, *names: str, folder: str = "out") -> str:
        for name in names:
            (self.tmp / folder / name).mkdir(parents=True)
        return folder

    def file(self) -> Path:
        (self.tmp / "file").write_text("mine")
        return self.tmp / "file"


@pytest.fixture
def world(
    make_data: Any, make_npz: Any, make_run: Any, build: Any, settings: Any, run_teacher: Teacher,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> World:  # fmt: skip
    monkeypatch.setattr(pipeline, "train_run", lambda *_, **__: pytest.fail("something was trained"))
    return World(tmp_path, make_data, make_npz, make_run, build, settings, run_teacher, monkeypatch)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(w: World) -> None:
    with files_no_larger_than(100):
        w.ask()


def broken_disk(w: World) -> None:
    w.patch.setattr(teacher_cache, "_read", lambda *_: None)
    w.patch.setattr(teacher_cache, "_key", lambda *_: "k" * 64)
    w.ask()


def nothing_can_be_moved(w: World) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    w.patch.setattr(teacher_cache.Path, "replace", refuse)
    w.ask()


def change_json(place: Path, **changes: Any) -> None:
    path = place / "cache.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def another_table(place: Path, shape: tuple[int, ...] = (1, 20, 4), kind: Any = np.float32) -> None:
    """With its checksum."""
    np.save(place / "logits.npy", np.zeros(shape, kind))
    change_json(place, checksums={"logits": teacher_cache._checksum(place / "logits.npy")})


FITS = "Made up has 4 classes and images (3, 12, 12): use a teacher that was trained for these."
SHOWS = (
    "Feature distillation needs pooled features, which the {} does not show; expected the methods forward_features, "
)
SHOWS += "forward_head. Set feature_weight to 0, or add them."
NO_VIT = "Attention transfer needs a ViT, and the {} is not one; set attention_weight to 0, or use one of our ViTs."
CANNOT = (
    "The teacher cannot be recognised by what it saves as 'part._extra_state': it holds a {}, which cannot be taken "
)
CANNOT += "apart. Have its get_extra_state return tensors, numbers and text."
NOT_FINITE = "The teacher Own gives {} that are not finite; train it again."
DAMAGED = "The teacher outputs in {tmp}/kept/{key} are damaged ({}); they are computed again."
RESUME = "Go on with it by --resume, or choose another folder with --out."
NO_CACHE = "Cannot write teacher outputs to {tmp}/{}. Free some space, or choose another folder with --cache."
UNLIKE = "Expected students that differ in the seed alone, one at least; distil others apart."
APART = "Expected students of a stack to learn from one teacher, on the same images and in the same way; train these "
APART += "apart."
Row = tuple[Callable[[World], Any], type[Exception], str]
ERRORS: dict[str, Row] = {
    # who cannot teach, or be taught
    "nobody": (
        lambda w: Teacher.of_runs([]),
        ConfigError,
        "No teacher given; name at least one folder of a trained run.",
    ),
    "a teacher that held out a fold": (
        lambda w: Teacher.of_runs([w.make_run(folds=3, fold=2, keep="last", tta="never").folder]),
        ConfigError,
        "The run in {fold} is of fold 2 of 3: it was trained on images by which a student is chosen. Train a teacher "
        "without folds.",
    ),
    "a teacher that saves a lock": (
        lambda w: Teacher.of_module(nn.ModuleDict({"part": Saving({"a": [threading.Lock()]})})),
        ConfigError,
        CANNOT.format("lock"),
    ),
    "a teacher that saves a lambda": (
        lambda w: Teacher.of_module(nn.ModuleDict({"part": Saving({lambda: 1})})),
        ConfigError,
        CANNOT.format("function"),
    ),
    "a teacher of other classes": (
        lambda w: w.fits(w.build(w.make_data()), w.build(w.make_data("binary"))),
        ConfigError,
        f"The teacher's logits for one image are (1, 2). {FITS}",
    ),
    "a teacher of two things": (
        lambda w: w.fits(Own(lambda images: (images, images))),
        ConfigError,
        f"The teacher's logits for one image are tuple. {FITS}",
    ),
    "a teacher of a batch": (
        lambda w: w.fits(Own(lambda images: torch.ones(2, 4))),
        ConfigError,
        f"The teacher's logits for one image are (2, 4). {FITS}",
    ),
    "a teacher of other colours": (
        lambda w: w.fits(w.build(w.make_data(channels=1))),
        ConfigError,
        f"The teacher cannot read these images (Expected images (b, 1, 12, 12), got (1, 3, 12, 12).). {FITS}",
    ),
    "a teacher of floats": (
        lambda w: w.fits(nn.Sequential(nn.Flatten(), nn.Linear(432, 4))),
        ConfigError,
        "The teacher cannot read these images (mat1 and mat2 must have the same dtype, but got Byte and Float). "
        + FITS,
    ),
    "a teacher that gives no number": (
        lambda w: w.fits(Own(float("nan"))),
        ConfigError,
        "The teacher's logits for one image are not finite; train it again.",
    ),
    "features that are not pooled": (
        lambda w: w.fits(Own(features=lambda images: images.float()), features=True),
        ConfigError,
        "The teacher's features for one image are (1, 3, 12, 12), not one vector (1, f); set feature_weight to 0, or "
        "have forward_head(…, pre_logits=True) pool them.",
    ),
    "maps of two sizes": (
        lambda w: w.fits(*(w.build(w.make_data(), patch_size=size) for size in (4, 3, 4)), attention=True),
        ConfigError,
        "The teachers' attention maps differ in size (3 × 3, 4 × 4); use ViTs of one patch size.",
    ),
    "a teacher without features": (
        lambda w: w.guide(Own(), teacher=Bare(), feature_weight=1e-9),
        ConfigError,
        SHOWS.format("teacher (Bare)"),
    ),
    "a student without features": (
        lambda w: w.guide(Bare(), feature_weight=1e-9),
        ConfigError,
        SHOWS.format("student (Bare)"),
    ),
    "a teacher without attention": (
        lambda w: w.guide(Own(), teacher=Bare(), attention_weight=1e-9),
        ConfigError,
        NO_VIT.format("teacher (Bare)"),
    ),
    "a student without attention": (
        lambda w: w.guide(Bare(), attention_weight=1e-9),
        ConfigError,
        NO_VIT.format("student (Bare)"),
    ),
    **{
        f"{loss} for {task}": (
            lambda w, task=task, loss=loss, alpha=alpha: w.guide(Own(), task, kd_loss=loss, alpha=alpha),
            ConfigError,
            f"kd_loss='{loss}' does not fit a {task} task; use {choices}.",
        )
        for task, loss, alpha, choices in (
            ("binary", "ordinal", 1.0, "soft, mse, decoupled"),
            ("multi-class", "ordinal", 0.0, "soft, mse, decoupled"),
            ("multi-label", "ordinal", 1.0, "soft, mse"),
            ("multi-label", "decoupled", 1.0, "soft, mse"),
        )
    },
    **{
        f"a transfer set and alpha={alpha}": (
            lambda w, alpha=alpha: w.transfer(alpha),
            ConfigError,
            f"A transfer set has no labels, so alpha must be 1 there, got {alpha}; learn from the teacher alone first, "
            "and from labels afterwards.",
        )
        for alpha in (0.0, 0.999)
    },
    # folders
    "a file in the folder's place": (
        lambda w: w.distil(folder=w.file()),
        RunError,
        "Cannot use {tmp}/file as a folder of runs: Not a directory. Choose another with --out.",
    ),
    "a folder in a file": (
        lambda w: w.distil(folder=w.file() / "x", resume=True),
        RunError,
        "Cannot use {tmp}/file/x as a folder of runs: Not a directory. Choose another with --out.",
    ),
    "a folder of other things": (
        lambda w: w.distil(folder=w.holding("scratch", *"ihgfedcba", "b\nc"), resume=True),
        RunError,
        "{tmp}/out holds other things ('b\\nc', a, b, c, d, e, f, g); choose another with --out.",
    ),
    "a folder of other stages": (
        lambda w: w.distil(folder=w.holding("scratch", "pretrain", "joint"), resume=True),
        RunError,
        "{tmp}/out holds a distillation of other stages (joint) than scratch, pretrain, finetune. Go on with it by the "
        "same options, or choose another folder with --out.",
    ),
    "a folder of more stages": (
        lambda w: w.distil(folder=w.holding("scratch", "finetune", "pretrain"), joint=True, scratch=False),
        RunError,
        "{tmp}/out holds a distillation of other stages (finetune, pretrain, scratch) than joint. Go on with it by the "
        "same options, or choose another folder with --out.",
    ),
    "a started distillation": (
        lambda w: w.distil(folder=w.holding("scratch")),
        RunError,
        "{tmp}/out already holds a started distillation. " + RESUME,
    ),
    "a finished distillation": (
        lambda w: w.distil(folder=w.holding("scratch", "pretrain", "finetune", RESULT)),
        RunError,
        "{tmp}/out already holds a finished distillation. " + RESUME,
    ),
    "a cache in a file": (
        lambda w: w.distil(cache=w.file() / "x"),
        RunError,
        "Cannot use {tmp}/file/x as a folder of teacher outputs: Not a directory. Choose another with --cache.",
    ),
    # students together
    "no students": (lambda w: w.together(), ConfigError, UNLIKE),
    "students of other rates": (lambda w: w.together(w.settings(), w.settings(lr=0.5)), ConfigError, UNLIKE),
    "students of one stack with two teachers": (lambda w: w.stack(("a", "soft"), ("b", "soft")), ModelError, APART),
    "students of one stack with two losses": (lambda w: w.stack(("a", "soft"), ("a", "mse")), ModelError, APART),
    # teacher outputs
    "a file in the cache's place": (
        lambda w: w.ask(folder=w.file()),
        RunError,
        NO_CACHE.replace("{}", "file: File exists"),
    ),
    "outputs in a file": (
        lambda w: w.ask(folder=w.file() / "cache"),
        RunError,
        NO_CACHE.replace("{}", "file/cache: Not a directory"),
    ),
    "a full disk": (full_disk, RunError, NO_CACHE.replace("{}", "kept: File too large")),
    "a folder that cannot be moved": (
        nothing_can_be_moved,
        RunError,
        NO_CACHE.replace("{}", "kept: Invalid cross-device link"),
    ),
    "a broken disk": (
        broken_disk,
        RunError,
        f"Teacher outputs in {{tmp}}/kept/{'k' * 32} changed while they were written; check the disk.",
    ),
    **{
        f"{name} of {value}": (
            lambda w, name=name, value=value: w.ask(Own(**{name: value}), features=True, attention=True),
            RunError,
            NOT_FINITE.format(name),
        )
        for name, value in (("logits", float("nan")), ("features", float("inf")), ("attention", -float("inf")))
    },
    "outputs of others": (
        lambda w: w.damaged(lambda place: change_json(place, key="0" * 64)),
        CacheWarning,
        DAMAGED.replace("{}", "it belongs to another teacher or other images"),
    ),
    "outputs of other contents": (
        lambda w: w.damaged(lambda place: change_json(place, checksums={"logits": "0"})),
        CacheWarning,
        DAMAGED.replace("{}", "logits.npy has other contents than were written"),
    ),
    "outputs of other images": (
        lambda w: w.damaged(another_table),
        CacheWarning,
        DAMAGED.replace("{}", "logits.npy is a table of float32 (1, 20, 4)"),
    ),
    "outputs of another type": (
        lambda w: w.damaged(lambda place: another_table(place, (1, 21, 4), np.float64)),
        CacheWarning,
        DAMAGED.replace("{}", "logits.npy is a table of float64 (1, 21, 4)"),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_is_refused_with_these_words(world: World, case: str) -> None:
    act, kind, told = ERRORS[case]
    with pytest.raises(kind) as caught:
        act(world)
    fold = str(world.make_run(folds=3, fold=2, keep="last", tta="never").folder) if "{fold}" in told else ""
    key = next(iter(kept.name for kept in (world.tmp / "kept").glob("*")), "")
    assert str(caught.value) == told.replace("{tmp}", str(world.tmp)).replace("{key}", key).replace("{fold}", fold)
    assert type(caught.value) is kind
    assert not (world.tmp / "cache").exists()
    assert all((made / "cache.json").exists() for made in (world.tmp / "kept").glob("*")), "nothing half-made is left"


def test_every_message_is_among_them() -> None:
    files = Path(qvit.distill.__file__).parent.glob("*.py")
    told = (*(message for _, _, message in ERRORS.values()), *(message for _, message in (*OF_TEACHING, *RESOLVED)))
    assert missing(raised(*files), told) == []


def test_a_teacher_that_fits_is_not_refused(world: World) -> None:
    """The nearest to what is: or the tables above might refuse whatever they are given."""
    for task in ("binary", "multi-class", "ordinal"):
        world.guide(Bare(), task, teacher=world.build(world.make_data(task)), kd_loss="decoupled")
    world.guide(Own(), feature_weight=1.0, attention_weight=1.0)
    world.guide(Bare(), teacher=Bare(), kd_loss="mse")
    world.fits(*(world.build(world.make_data(), patch_size=size) for size in (4, 3)), features=True)
    world.transfer(1.0)
    world.fits(Own(), Bare())


# --- what other packages refuse is found early too ---

EARLY: dict[str, tuple[dict[str, Any], type[QvitError], str]] = {
    "loss of a stage": ({"finetune": {"loss": "emd"}}, ConfigError, "loss='emd' does not fit a multi-class task"),
    "device": ({"finetune": {"device": "gpu"}}, ConfigError, "device='gpu' cannot be used here"),
    "student": ({"model": "qvit_4q3x"}, ConfigError, "There is no model 'qvit_4q3x'. Did you mean"),
    "option of the student": ({"model": "resnet18", "n_layers": 3}, ConfigError, "resnet18 has no option 'n_layers'"),
    "patches": ({"patch_size": 5}, QvitError, "img_size=12 is not divisible by patch_size=5"),
    "no ViT": ({"model": "resnet18", "width": 0.0625, "attention_weight": 1.0}, ConfigError, "student .* is not one"),
    "loss of teaching": ({"kd_loss": "ordinal"}, ConfigError, "kd_loss='ordinal' does not fit a multi-class task"),
    "dataset": ({"dataset": "phantm"}, ConfigError, "Did you mean 'phantom'"),
    "no images to transfer": ({"transfer_set": "nowhere.npz"}, DataError, "nowhere.npz.*nothing there"),
    "size of images to transfer": ({"transfer_set": "phantom"}, ConfigError, "12"),
}


@pytest.mark.parametrize("mistake", EARLY)
def test_mistakes_are_found_before_anything_is_trained(world: World, mistake: str) -> None:
    options, error, told = EARLY[mistake]
    with pytest.raises(error, match=told):
        world.distil(**options)
    assert list(world.tmp.iterdir()) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_the_student_is_measured_by_are_no_transfer_set(world: World, split: str) -> None:
    arrays = np.load(world.make_npz())
    images = np.concatenate([arrays["train_images"][:3], arrays[f"{split}_images"][4:5]])
    np.savez(world.tmp / "leak.npz", images=images)
    with pytest.raises(DataError, match=r"1 of 4 images to distil on are byte-identical.*leave them out"):
        world.distil(transfer_set=str(world.tmp / "leak.npz"))
    assert [path.name for path in world.tmp.iterdir()] == ["leak.npz"]


def test_a_teacher_without_its_predictions(world: World) -> None:
    """They are needed last of all, but missed first."""
    folder = world.tmp / "teacher"
    shutil.copytree(world.run_teacher.runs[0].folder, folder)
    for path in folder.glob("*_test_*.csv"):
        path.unlink()
    with pytest.raises(RunError, match="Expected one prediction file of the test split"):
        world.distil(Teacher.of_runs([folder]))
    assert list(world.tmp.iterdir()) == [folder]
