"""Learning from a teacher: the mixture of losses, who is learned from and who is not, and that it works."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import apply_element
from qvit.data.views import Views
from qvit.distill import DistillationObjective, DistillConfig, Teacher, TeacherGuide, objectives
from qvit.distill.guide import KD_LOSSES_OF_TASK
from qvit.distill.teacher_cache import TeacherOutputs
from qvit.models.stack import part, stacked
from qvit.training.batches import Batch, load_batch
from qvit.training.checkpoint import load_state
from qvit.training.config import TrainConfig
from qvit.training.losses import LOSSES_OF_TASK, make_loss
from qvit.training.objective import stacked_objective, supervised
from qvit.training.options import resolve
from qvit.training.places import recorded, with_places
from qvit.training.run import Run, train_run
from qvit.training.seeding import ORDER, generator
from qvit.training.state import TrainState
from qvit.training.step import make_optimizer, train_step

MakeData = Callable[..., Dataset]
MakeTeacher = Callable[..., Teacher]
MakeRun = Callable[..., Run]
Build = Callable[..., Any]
TINY = TrainConfig(epochs=2, batch_size=8, lr=0.02)
EVERY = [(task, loss) for task, losses in KD_LOSSES_OF_TASK.items() for loss in losses]


@dataclass
class School:
    """A folder of teacher outputs, and what happens there."""

    build: Build
    cache: Path

    def prepare(
        self, data: Dataset, teacher: Teacher, how: DistillConfig, train: TrainConfig = TINY, **student: Any
    ) -> tuple[Any, Dataset, Any]:
        model = self.build(data, **student)
        to_learn, objective = TeacherGuide(teacher, how, cache=self.cache).prepare(model, data, train, seed=0)
        return model, to_learn, objective

    def step(self, model: Any, to_learn: Dataset, objective: Any, *, steps: int, lr: float = 0.02) -> list[float]:
        """Take steps on one batch of all images, each turned as it may be; returns the loss before each."""
        parts = [model, objective] if isinstance(objective, nn.Module) else [model]
        optimizer = make_optimizer(nn.ModuleList(parts), TINY)
        batch = load_batch(Views(to_learn.train, "d4"), torch.arange(len(to_learn.train)), generator(0, ORDER), "cpu")
        return [train_step(model.train(), batch, objective, optimizer, lr=lr).item() for _ in range(steps)]


@pytest.fixture
def school(build: Build, tmp_path: Path) -> School:
    return School(build, tmp_path / "cache")


@pytest.fixture
def run_teacher_of(make_npz: Callable[..., Path], make_run: MakeRun) -> MakeRun:
    """A teacher's run for a task."""
    return lambda task: make_run(make_npz(task), task=task, model="vit_8q1h")


def a_batch(data: Dataset, group: str = "d4", first: int = 0) -> Batch:
    return load_batch(Views(data.train, group), torch.arange(first, first + 7), generator(0, ORDER, 0), "cpu")


def parts(batch: Batch) -> tuple[Tensor, ...]:
    """What a batch whose images are not mixed is made of."""
    return batch.images, batch.labels, batch.index, batch.elements


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    mine, others = first.state_dict(), second.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def soft(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return objectives.soft_targets(student, teacher, temperature=3.0)


def per_label(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return objectives.binary_soft_targets(student, teacher, temperature=3.0)


def by_grade(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return objectives.ordinal_soft_targets(student, teacher, temperature=3.0)


def mse(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return objectives.logit_mse(student, teacher)


def decoupled(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return objectives.decoupled(student, teacher, target, temperature=3.0, beta=1.5)


# What each name stands for, at a temperature of 3 and a β of 1.5.
MEANT: dict[tuple[str, str], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    **{(task, "soft"): soft for task in ("binary", "multi-class", "ordinal")},
    ("multi-label", "soft"): per_label,
    ("ordinal", "ordinal"): by_grade,
    **{(task, "mse"): mse for task in ("binary", "multi-class", "ordinal", "multi-label")},
    **{(task, "decoupled"): decoupled for task in ("binary", "multi-class", "ordinal")},
}


# --- the mixture ---


def test_every_task_has_its_losses() -> None:
    assert KD_LOSSES_OF_TASK.keys() == LOSSES_OF_TASK.keys()
    assert set(EVERY) == MEANT.keys()
    (kind,) = [field.type for field in fields(DistillConfig) if field.name == "kd_loss"]
    assert {loss for _, loss in MEANT} | {"none"} == set(kind.__args__)


@pytest.mark.parametrize(("task", "kd_loss"), MEANT)
def test_mixes_teacher_and_labels(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any
) -> None:
    """With α = 1 labels play no part, and the target of a decoupled teacher is what the teacher takes for it."""
    data, train = make_data(task), replace(TINY, label_smoothing=0.1)
    teacher, batch = linear_teacher(data, seed=1), a_batch(make_data(task))
    for alpha in (0.3, 1.0):
        how = DistillConfig(kd_loss=kd_loss, alpha=alpha, temperature=3.0, beta=1.5)
        model, to_learn, objective = school.prepare(data, teacher, how, train)
        assert to_learn is data
        student, taught = model(batch.images), teacher.outputs(batch.images).logits
        target = batch.labels[:, 0] if alpha == 0.3 else taught.argmax(dim=1)
        assert alpha == 0.3 or not torch.equal(target, batch.labels[:, 0]), "the case is of no use if both agree"
        of_labels = make_loss(task, smoothing=0.1)(student, batch.labels)
        expected = alpha * MEANT[task, kd_loss](student, taught, target) + (1 - alpha) * of_labels
        found = objective(model, batch)
        assert found.shape == (7,)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        kinds = 2 if task == "multi-label" else data.info.num_classes
        garbled = replace(batch, labels=(batch.labels + 1) % kinds)
        assert torch.equal(objective(model, garbled), found) == (alpha == 1.0)


@pytest.mark.parametrize(("task", "kd_loss"), MEANT)
def test_mixed_images_learn_from_the_answers_to_both(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any
) -> None:
    """Those to the images without distortion, as the teacher has seen them."""
    data = make_data(task)
    teacher, views = linear_teacher(data, seed=1), Views(data.train, "d4")
    batch = load_batch(views, torch.arange(7), generator(0, ORDER, 0), "cpu", strength=2.0, alpha=0.5)
    assert batch.shares is not None
    assert batch.partners is not None
    for alpha in (0.3, 1.0):
        how = DistillConfig(kd_loss=kd_loss, alpha=alpha, temperature=3.0, beta=1.5)
        model, _, objective = school.prepare(data, teacher, how, replace(TINY, mixup=0.5))
        assert objective.mixes
        student, expected = model(batch.images), torch.zeros(7)
        for shares, one in ((batch.shares, batch), (1.0 - batch.shares, batch.partners)):
            taught = teacher.outputs(views.batch(one.index, one.elements)[0]).logits
            target = one.labels[:, 0] if alpha == 0.3 else taught.argmax(dim=1)
            of_labels = make_loss(task)(student, one.labels)
            expected = expected + shares * alpha * MEANT[task, kd_loss](student, taught, target)
            expected = expected + shares * (1 - alpha) * of_labels
        torch.testing.assert_close(objective(model, batch), expected, rtol=1e-4, atol=1e-6)


def test_weights_of_classes_are_those_of_the_labels(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School
) -> None:
    data = make_data("ordinal")
    train = replace(TINY, class_weights="balanced", loss="emd")
    objective = school.prepare(data, linear_teacher(data), DistillConfig(alpha=0.25), train)[2]
    logits, labels = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), a_batch(data).labels
    found = objective.labels.loss(logits, labels)
    torch.testing.assert_close(found, supervised(data, train).loss(logits, labels))
    assert (found - make_loss("ordinal")(logits, labels)).abs().min() > 1e-3


# A value for each option, beside the usual ones, under which the loss is another.
USUAL = DistillConfig(kd_loss="decoupled", alpha=0.5, feature_weight=1.0, attention_weight=1.0)
OTHER = {
    "kd_loss": "soft",
    "temperature": 2.5,
    "alpha": 0.6,
    "beta": 3.0,
    "feature_weight": 2.0,
    "attention_weight": 9.0,
}


def test_every_option_is_among_those_that_bite() -> None:
    assert OTHER.keys() == {field.name for field in fields(DistillConfig)}


@pytest.mark.parametrize("field", OTHER)
def test_every_option_bites(make_data: MakeData, school: School, build: Build, field: str) -> None:
    """And those that weigh a term weigh that alone: twice the difference, twice the change."""
    data = make_data()
    teacher, batch = Teacher.of_module(build(data, "vit_8q1h", seed=1)), a_batch(data)

    def loss(value: Any) -> Tensor:
        model, _, objective = school.prepare(data, teacher, replace(USUAL, **{field: value}))
        return objective(model, batch)

    usual, other = getattr(USUAL, field), OTHER[field]
    change = loss(other) - loss(usual)
    assert change.abs().min() > 1e-7
    if field not in ("kd_loss", "temperature"):
        twice = loss(usual + 2 * (other - usual)) - loss(usual)
        torch.testing.assert_close(twice, 2 * change, rtol=1e-3, atol=1e-6)


def test_without_the_teacher_it_is_plain_training(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School
) -> None:
    data, train = make_data(), replace(TINY, class_weights="balanced", label_smoothing=0.1)
    teacher, batch = linear_teacher(data), a_batch(data)
    for how in (DistillConfig(alpha=0.0), DistillConfig(kd_loss="none", alpha=0.0, beta=3.0)):
        model, to_learn, objective = school.prepare(data, teacher, how, train)
        assert to_learn is data
        assert not isinstance(objective, nn.Module)
        assert torch.equal(objective(model, batch), supervised(data, train).loss(model(batch.images), batch.labels))
    assert teacher.members[0].seen == 2, "one image each, to see whether it fits"
    assert not school.cache.exists()


@pytest.mark.parametrize(
    ("task", "kd_loss"),
    [("binary", "mse"), ("multi-class", "decoupled"), ("ordinal", "ordinal"), ("multi-label", "soft")],
)
def test_a_student_that_is_its_teacher_loses_nothing(
    make_data: MakeData, school: School, build: Build, task: str, kd_loss: Any
) -> None:
    data = make_data(task)
    teacher = Teacher.of_module(build(data, seed=5))
    how = DistillConfig(kd_loss=kd_loss, attention_weight=1.0)
    model, _, objective = school.prepare(data, teacher, how, seed=5)
    batch = a_batch(data)
    assert objective(model, batch).abs().max() < 1e-6
    other = build(data, seed=6)
    assert objective(other, batch).min() > 1e-5


# --- it works ---


@pytest.mark.parametrize(
    ("task", "kd_loss", "alpha"),
    [
        ("binary", "mse", 1.0),
        ("multi-class", "soft", 0.5),
        ("multi-class", "decoupled", 1.0),
        ("ordinal", "ordinal", 0.5),
        ("multi-label", "soft", 0.5),
    ],
)
def test_every_task_and_every_loss_learns(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any, alpha: float
) -> None:
    data = make_data(task)
    how = DistillConfig(kd_loss=kd_loss, alpha=alpha)
    losses = school.step(*school.prepare(data, linear_teacher(data), how), steps=6)
    assert losses[-1] < 0.95 * losses[0]


def test_any_module_of_grey_images_may_be_a_student(
    make_data: MakeData, school: School, linear_teacher: MakeTeacher
) -> None:
    data = make_data(channels=1)
    student = linear_teacher(data, seed=1).members[0]
    guide = TeacherGuide(linear_teacher(data), DistillConfig(), cache=school.cache)
    losses = school.step(student, *guide.prepare(student, data, TINY, seed=0), steps=3, lr=1e-3)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.long
def test_runs_end_to_end_with_an_ensemble(
    make_npz: Callable[..., Path], make_run: MakeRun, tmp_path: Path, snapshot: Callable[..., Any], one_step: None
) -> None:
    """From folders to a folder: nothing of the teacher is in it, and the teacher is as it was."""
    teacher = Teacher.of_runs([make_run(model="vit_8q1h").folder, make_run().folder])
    members = teacher.members
    members[0].blocks[0].train()
    before = snapshot(*members)
    how = DistillConfig(alpha=0.5, feature_weight=1.0)
    guide = TeacherGuide(teacher, how, cache=tmp_path / "cache")
    settings = resolve({"dataset": str(make_npz()), "model": "vit_4q1h", "epochs": 2, "batch_size": 8})
    states: list[TrainState] = []

    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        states.append(load_state(tmp_path / "run" / "state.pt"))

    run = train_run(settings, tmp_path / "run", guide=guide, on_epoch=on_epoch)
    assert snapshot(*members) == before
    assert run.config["guide"] == {
        "teacher": with_places(teacher.described, lambda place: recorded(place, run.folder)),
        "kd_loss": "soft",
        "temperature": 2.0,
        "alpha": 0.5,
        "beta": 2.0,
        "feature_weight": 1.0,
        "attention_weight": 0.0,
        "transfer_set": None,
    }
    student = run.load_model()
    saved = safetensors.torch.load((run.folder / "model.safetensors").read_bytes())
    assert saved.keys() == student.state_dict().keys()
    assert len(states) == 2
    for state in states:
        assert state.best is not None
        assert state.model.keys() == state.best.model.keys() == saved.keys()
        assert {name: tuple(value.shape) for name, value in state.objective.items()} == {
            "map.weight": (8 + 4, 4),
            "map.bias": (12,),
        }
        trained = len(list(student.parameters())) + 2
        assert len(state.optimizer["state"]) == trained
    assert not torch.equal(states[0].objective["map.weight"], states[1].objective["map.weight"])
    assert {path.suffix for path in run.folder.iterdir()} == {".json", ".jsonl", ".csv", ".safetensors"}


def test_the_teacher_is_no_part_of_student_or_objective(make_data: MakeData, school: School, build: Build) -> None:
    data = make_data()
    teacher = Teacher.of_module(build(data, "vit_8q1h", seed=1))
    model, _, objective = school.prepare(data, teacher, DistillConfig(feature_weight=1.0))
    theirs = {id(part) for part in teacher.members[0].modules()} | {id(p) for p in teacher.members[0].parameters()}
    for module in (model, objective):
        assert not theirs & ({id(part) for part in module.modules()} | {id(p) for p in module.parameters()})
    assert [name for name, _ in objective.named_parameters()] == ["map.weight", "map.bias"]
    assert list(objective.buffers()) == []
    assert list(school.prepare(data, teacher, DistillConfig())[2].state_dict()) == []


# --- features ---


class Shown(nn.Module):
    """Features that are simple sums of pixels, and two that are constant; logits that are zero."""

    def forward_features(self, images: Tensor) -> Tensor:
        pixels = images.float()
        constant = pixels.new_full((len(images), 1), 1e4)
        return torch.cat(
            [pixels[:, :, 0, 0], 1e-3 * pixels[:, :1, 0, 1], constant, pixels[:, :1, 3, 3] - 900, 0 * constant], 1
        )

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else features.new_zeros(len(features), 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def test_features_are_standardised_over_all_images_and_symmetries(make_data: MakeData, school: School) -> None:
    data, teacher = make_data(), Teacher.of_module(Shown())
    how = DistillConfig(kd_loss="none", feature_weight=2.0)
    model, _, objective = school.prepare(data, teacher, how)
    images = torch.from_numpy(data.train.images)
    every = torch.cat([Shown().forward_features(apply_element(images, element, "d4")) for element in range(8)])
    mean, deviation = every.double().mean(0), every.double().std(0, correction=0)
    assert (deviation == 0).tolist() == [False, False, False, False, True, False, True]
    deviation[[4, 6]] = 1.0
    torch.testing.assert_close(objective.mean, mean.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(objective.deviation, deviation.float(), rtol=1e-6, atol=1e-6)
    batch = a_batch(data)
    wanted = (Shown().forward_features(batch.images).double() - mean) / deviation
    mapped = objective.map(model.forward_head(model.forward_features(batch.images), pre_logits=True))
    expected = 2.0 * (mapped - wanted).square().mean(1)
    torch.testing.assert_close(objective(model, batch).double(), expected, rtol=1e-5, atol=1e-5)
    assert wanted[:, [4, 6]].abs().max() < 1e-6


def test_the_map_of_features_is_learned(make_data: MakeData, school: School) -> None:
    data, teacher = make_data(), Teacher.of_module(Shown())
    model, to_learn, objective = school.prepare(data, teacher, DistillConfig(kd_loss="none", feature_weight=1.0))
    before = [part.detach().clone() for part in (objective.map.weight, objective.map.bias)]
    losses = school.step(model, to_learn, objective, steps=5)
    assert objective.map.weight.shape == (7, 4)
    assert not torch.equal(objective.map.weight, before[0])
    assert not torch.equal(objective.map.bias, before[1])
    assert losses[-1] < 0.95 * losses[0]
    assert not same_weights(model, school.build(data))


def test_the_seed_fixes_the_map(make_data: MakeData, school: School) -> None:
    data, teacher = make_data(), Teacher.of_module(Shown())
    guide = TeacherGuide(teacher, DistillConfig(feature_weight=1.0), cache=school.cache)
    model, maps = school.build(data), []
    for seed in (0, 0, 1):
        torch.manual_seed(len(maps))
        before = torch.random.get_rng_state()
        _, objective = guide.prepare(model, data, TINY, seed=seed)
        assert isinstance(objective, DistillationObjective)
        assert torch.equal(torch.random.get_rng_state(), before)
        maps.append(objective.map.weight)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_outputs_are_read_once_for_students_of_the_same_images(make_data: MakeData, school: School) -> None:
    data, other = make_data(), make_data(seed=1)
    guide = TeacherGuide(Teacher.of_module(Shown()), DistillConfig(feature_weight=1.0), cache=school.cache)

    def taught(data: Dataset, augment: str = "d4") -> TeacherOutputs:
        objective = guide.prepare(school.build(data), data, replace(TINY, augment=augment), seed=0)[1]
        assert isinstance(objective, DistillationObjective)
        return objective.taught

    first = taught(data)
    assert taught(data) is first
    assert taught(data, "mirror").logits.shape == (2, *first.logits.shape[1:])
    assert first.features is not None
    for again, same in ((taught(other), False), (taught(data), True)):
        assert again.features is not None
        assert torch.equal(again.features, first.features) == same


# --- attention ---


@pytest.mark.parametrize(("patch", "grid"), [(3, 4), (6, 2)])
def test_attention_is_learned_from_a_teacher_of_any_grid(
    make_data: MakeData, school: School, build: Build, patch: int, grid: int
) -> None:
    data = make_data()
    teacher = Teacher.of_module(build(data, "vit_8q2h", seed=1, patch_size=patch))
    with torch.no_grad():
        for parameter in teacher.members[0].blocks[0].attention.project.parameters():
            parameter.mul_(8)  # maps that are not flat
    how = DistillConfig(kd_loss="none", attention_weight=3.0)
    model, to_learn, objective = school.prepare(data, teacher, how)
    assert objective.taught.attention.shape == (8, 21, grid, grid)
    batch = a_batch(data)
    taught = teacher.outputs(batch.images, attention=True).attention
    expected = 3.0 * objectives.attention_distance(model.forward_with_attention(batch.images)[1], taught)
    torch.testing.assert_close(objective(model, batch), expected, rtol=1e-3, atol=1e-6)
    losses = school.step(model, to_learn, objective, steps=8)
    assert losses[-1] < losses[0]


# --- other images ---


def transfer_images(data: Dataset) -> tuple[Split, str]:
    images = np.random.default_rng(9).integers(0, 256, (13, *data.train.images.shape[1:]), dtype=np.uint8)
    return Split(images, np.full((13, 1), -1, np.int64)), "others"


@pytest.mark.parametrize(
    ("task", "kd_loss"), [("binary", "decoupled"), ("ordinal", "ordinal"), ("multi-label", "soft")]
)
def test_learns_on_images_without_labels(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any
) -> None:
    data = make_data(task)
    teacher, transfer = linear_teacher(data), transfer_images(data)
    guide = TeacherGuide(teacher, DistillConfig(kd_loss=kd_loss), transfer=transfer, cache=school.cache)
    model = school.build(data)
    train = replace(TINY, class_weights="balanced")
    to_learn, objective = guide.prepare(model, data, train, seed=0)
    assert to_learn.train is transfer[0]
    assert (to_learn.val, to_learn.test, to_learn.info) == (data.val, data.test, data.info)
    assert objective.taught.logits.shape[:2] == (8, 13)
    batch = a_batch(to_learn)
    torch.testing.assert_close(
        objective.taught.of(batch).logits, teacher.outputs(batch.images).logits, rtol=1e-4, atol=1e-4
    )
    losses = school.step(model, to_learn, objective, steps=6)
    assert losses[-1] < losses[0]
    assert guide.described["transfer_set"] == "others"
    replace(guide, transfer=(transfer[0], "yet others")).prepare(model, data, train, seed=0)
    assert len(list(school.cache.iterdir())) == 2


def test_tells_how_far_the_teacher_is(make_data: MakeData, linear_teacher: MakeTeacher, school: School) -> None:
    data, told = make_data(), []
    teacher = linear_teacher(data)
    guide = TeacherGuide(teacher, DistillConfig(), cache=school.cache, on_views=lambda *views: told.append(views))
    guide.prepare(school.build(data), data, TINY, seed=0)
    assert told == [(168, 168)], "21 images under 8 symmetries"


def test_datasets_and_symmetries_have_caches_of_their_own(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School
) -> None:
    data = make_data()
    teacher = linear_teacher(data)
    for each, train in (
        (data, TINY),
        (data, replace(TINY, augment="mirror")),
        (make_data(seed=1), TINY),
        (data, replace(TINY, augment="d4")),  # what "auto" is
    ):
        school.prepare(each, teacher, DistillConfig(), train)
    assert len(list(school.cache.iterdir())) == 3


# --- stacks of students ---


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("kd_loss", ["soft", "mse", "ordinal", "decoupled", "none"])
def test_each_student_of_a_stack_has_its_own_loss(
    make_data: MakeData, run_teacher_of: MakeRun, school: School, kd_loss: Any, alpha: float
) -> None:
    """Each on images of its own, turned as they are for it, and with a map of features of its own."""
    data = make_data("ordinal")
    teacher = Teacher.of_runs([run_teacher_of("ordinal").folder])
    how = DistillConfig(kd_loss=kd_loss, alpha=alpha, feature_weight=1.0, attention_weight=1.0)
    train = replace(TINY, class_weights="balanced")
    models = [school.build(data, seed=seed) for seed in range(3)]
    guide = TeacherGuide(teacher, how, cache=school.cache)
    own = [guide.prepare(model, data, train, seed=seed)[1] for seed, model in enumerate(models)]
    batches = [a_batch(data, first=3 * seed) for seed in range(3)]
    both = Batch(*map(torch.stack, zip(*map(parts, batches), strict=True)))
    objective: Any = stacked_objective(own)
    found = objective(stacked(models), both)
    alone = torch.stack([objective(*each) for objective, *each in zip(own, models, batches, strict=True)])
    torch.testing.assert_close(found, alone)
    assert objective.taught is own[0].taught
    two = Batch(*(one[[2, 0]] for one in parts(both)))
    losses = objective.part([2, 0])(part(stacked(models), [2, 0]), two)
    torch.testing.assert_close(losses, alone[[2, 0]])
    losses.sum().backward()
    assert [bool(row.any()) for row in objective.map.weight.grad] == [True, False, True]
