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
from qvit.distill import DistillationObjective, DistillConfig, Teacher, TeacherGuide, objectives
from qvit.distill.guide import KD_LOSSES_OF_TASK
from qvit.errors import ConfigError
from qvit.training.loop import Batch, TrainConfig, TrainState, fit, load_batch
from qvit.training.losses import LOSSES_OF_TASK, make_loss
from qvit.training.options import resolve
from qvit.training.run import Run, train_run
from qvit.training.seeding import ORDER, generator

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

    def train(
        self, data: Dataset, teacher: Teacher, how: DistillConfig, train: TrainConfig = TINY, **student: Any
    ) -> tuple[Any, Any, TrainState]:
        model, to_learn, objective = self.prepare(data, teacher, how, train, **student)
        return model, objective, fit(model, to_learn, train, seed=0, objective=objective)


@pytest.fixture
def school(build: Build, tmp_path: Path) -> School:
    return School(build, tmp_path / "cache")


def a_batch(data: Dataset, group: str = "d4", first: int = 0) -> Batch:
    return load_batch(data.train, torch.arange(first, first + 7), group, generator(0, ORDER, 0), "cpu")


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    mine, others = first.state_dict(), second.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def plain_kd(how: DistillConfig, task: str, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """What the configuration means, written down once more."""
    temperature = how.temperature
    if how.kd_loss == "mse":
        return objectives.logit_mse(student, teacher)
    if how.kd_loss == "ordinal":
        return objectives.ordinal_soft_targets(student, teacher, temperature=temperature)
    if how.kd_loss == "decoupled":
        target = teacher.argmax(1) if how.alpha == 1 else labels[:, 0]
        return objectives.decoupled(student, teacher, target, temperature=temperature, beta=how.beta)
    if task == "multi-label":
        return objectives.binary_soft_targets(student, teacher, temperature=temperature)
    return objectives.soft_targets(student, teacher, temperature=temperature)


# --- the mixture ---


def test_every_task_has_its_losses() -> None:
    assert KD_LOSSES_OF_TASK.keys() == LOSSES_OF_TASK.keys()
    named = {loss for losses in KD_LOSSES_OF_TASK.values() for loss in losses}
    (kind,) = [field.type for field in fields(DistillConfig) if field.name == "kd_loss"]
    assert named | {"none"} == set(kind.__args__)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize(("task", "kd_loss"), EVERY)
def test_mixes_teacher_and_labels(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any, alpha: float
) -> None:
    data = make_data(task)
    teacher, train = linear_teacher(data), replace(TINY, label_smoothing=0.1)
    how = DistillConfig(kd_loss=kd_loss, alpha=alpha, temperature=3.0, beta=1.5)
    model, to_learn, objective = school.prepare(data, teacher, how, train)
    assert to_learn is data
    batch = a_batch(data)
    student, taught = model(batch.images), teacher.outputs(batch.images).logits
    of_labels = make_loss(task, smoothing=0.1)(student, batch.labels)
    expected = alpha * plain_kd(how, task, student, taught, batch.labels) + (1 - alpha) * of_labels
    found = objective(model, batch)
    assert found.shape == (7,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("field", ["temperature", "alpha", "beta", "feature_weight", "attention_weight", "kd_loss"])
def test_every_option_bites(make_data: MakeData, school: School, build: Build, field: str) -> None:
    assert field in {one.name for one in fields(DistillConfig)}
    data = make_data()
    teacher = Teacher.of_module(build(data, "vit_8q1h", seed=1))
    common = DistillConfig(kd_loss="decoupled", alpha=0.5, feature_weight=1.0, attention_weight=1.0)
    change = "soft" if field == "kd_loss" else 0.9 * getattr(common, field)
    first, _, _ = school.train(data, teacher, common)
    second, _, _ = school.train(data, teacher, replace(common, **{field: change}))
    assert len(fields(DistillConfig)) == 6, "there is a new option: add it above"
    assert not same_weights(first, second)


def test_without_the_teacher_it_is_plain_training_bit_for_bit(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, build: Build
) -> None:
    data, train = make_data(), replace(TINY, class_weights="balanced", label_smoothing=0.1)
    teacher, plain = linear_teacher(data), build(data, dropout=0.2)
    fit(plain, data, train, seed=0)
    for how in (DistillConfig(alpha=0.0), DistillConfig(kd_loss="none", alpha=0.0, beta=3.0)):
        model, objective, _ = school.train(data, teacher, how, train, dropout=0.2)
        assert same_weights(model, plain)
        assert not isinstance(objective, nn.Module)
    assert teacher.members[0].seen == 2, "one image each, to see whether it fits"
    model, _, _ = school.train(data, teacher, DistillConfig(alpha=0.01), train, dropout=0.2)
    assert not same_weights(model, plain)


@pytest.mark.parametrize(("task", "kd_loss"), EVERY)
def test_without_labels_the_labels_play_no_part(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any
) -> None:
    data = make_data(task)
    teacher, how = linear_teacher(data), DistillConfig(kd_loss=kd_loss)
    wrong = data.train.labels[::-1].copy(), 1 - data.train.labels if task == "multi-label" else 0 * data.train.labels
    models = [school.train(data, teacher, how)[0]]
    for labels in (*wrong, np.full_like(data.train.labels, -1)):
        garbled = replace(data, train=Split(data.train.images, labels))
        models.append(school.train(garbled, teacher, how)[0])
    assert all(same_weights(models[0], model) for model in models[1:])
    garbled = replace(data, train=Split(data.train.images, wrong[0]))
    halves = [school.train(each, teacher, replace(how, alpha=0.5))[0] for each in (data, garbled)]
    assert not same_weights(*halves), "the case is of no use if labels never do"


@pytest.mark.parametrize(("task", "kd_loss"), EVERY)
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


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize(("task", "kd_loss"), EVERY)
def test_every_task_learns_by_each_of_its_losses(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any, alpha: float
) -> None:
    data = make_data(task)
    train = replace(TINY, epochs=8, schedule="constant", augment="mirror")
    how = DistillConfig(kd_loss=kd_loss, alpha=alpha)
    _, _, state = school.train(data, linear_teacher(data), how, train)
    losses = [record["train_loss"] for record in state.history]
    assert losses[-1] < 0.9 * losses[0]


def test_grey_images_and_a_network_as_a_student(
    make_data: MakeData, school: School, linear_teacher: MakeTeacher
) -> None:
    data = make_data(channels=1)
    _, _, state = school.train(data, linear_teacher(data), DistillConfig(feature_weight=0.0), name="resnet18")
    assert state.epoch == 2


def test_runs_end_to_end_with_an_ensemble(
    make_npz: Callable[..., Path], make_run: MakeRun, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    """From folders to a folder: nothing of the teacher is in it, and the teacher is as it was."""
    teacher = Teacher.of_runs([make_run(model="resnet18", width=1 / 16).folder, make_run().folder])
    members = teacher.members
    members[0].body.layer1.train()
    before = snapshot(*members)
    how = DistillConfig(alpha=0.5, feature_weight=1.0)
    guide = TeacherGuide(teacher, how, cache=tmp_path / "cache")
    settings = resolve({"dataset": str(make_npz()), "model": "qvit_4q1h", "epochs": 2, "batch_size": 8})
    states: list[dict[str, Any]] = []

    def on_epoch(record: dict[str, Any], _seconds: float) -> None:
        states.append(torch.load(tmp_path / "run" / "state.pt", weights_only=True))

    run = train_run(settings, tmp_path / "run", guide=guide, on_epoch=on_epoch)
    assert snapshot(*members) == before
    assert run.config["guide"] == {
        "teacher": teacher.described,
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
        assert state["model"].keys() == state["best"]["model"].keys() == saved.keys()
        assert {name: tuple(value.shape) for name, value in state["objective"].items()} == {
            "map.weight": (32 + 4, 4),
            "map.bias": (36,),
        }
        trained = len(list(student.parameters())) + 2
        assert len(state["optimizer"]["state"]) == trained
    assert not torch.equal(states[0]["objective"]["map.weight"], states[1]["objective"]["map.weight"])
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
    how, train = DistillConfig(kd_loss="none", feature_weight=1.0), replace(TINY, epochs=10)
    _, _, untrained = school.prepare(data, teacher, how)
    model, objective, state = school.train(data, teacher, how, train)
    assert objective.map.weight.shape == (7, 4)
    assert not torch.equal(objective.map.weight, untrained.map.weight)
    assert not torch.equal(objective.map.bias, untrained.map.bias)
    assert state.history[-1]["train_loss"] < 0.95 * state.history[0]["train_loss"]
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


# --- attention ---


@pytest.mark.parametrize(("patch", "grid"), [(3, 4), (4, 3), (6, 2), (2, 6)])
def test_attention_is_learned_from_a_teacher_of_any_grid(
    make_data: MakeData, school: School, build: Build, patch: int, grid: int
) -> None:
    data = make_data()
    teacher = Teacher.of_module(build(data, "vit_8q2h", seed=1, patch_size=patch))
    with torch.no_grad():
        teacher.members[0].blocks[0].attention.project.requires_grad_(False)
        for parameter in teacher.members[0].blocks[0].attention.project.parameters():
            parameter.mul_(8)  # maps that are not flat
    how = DistillConfig(kd_loss="none", attention_weight=3.0)
    train = replace(TINY, epochs=8)
    model, _, objective = school.prepare(data, teacher, how)
    assert objective.taught.attention.shape == (8, 21, grid, grid)
    batch = a_batch(data)
    taught = teacher.outputs(batch.images, attention=True).attention
    expected = 3.0 * objectives.attention_distance(model.forward_with_attention(batch.images)[1], taught)
    torch.testing.assert_close(objective(model, batch), expected, rtol=1e-3, atol=1e-6)
    _, _, state = school.train(data, teacher, how, train)
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"]


# --- other images ---


def transfer_images(data: Dataset) -> tuple[Split, str]:
    images = np.random.default_rng(9).integers(0, 256, (13, *data.train.images.shape[1:]), dtype=np.uint8)
    return Split(images, np.full((13, 1), -1, np.int64)), "others"


@pytest.mark.parametrize(("task", "kd_loss"), EVERY)
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
    state = fit(model, to_learn, train, seed=0, objective=objective)
    assert state.epoch == 2
    assert guide.described["transfer_set"] == "others"
    replace(guide, transfer=(transfer[0], "yet others")).prepare(model, data, train, seed=0)
    assert len(list(school.cache.iterdir())) == 2


def test_a_transfer_set_goes_with_no_labels_alone(
    make_data: MakeData, linear_teacher: MakeTeacher, tmp_path: Path
) -> None:
    data = make_data()
    for alpha in (0.0, 0.5, 0.999):
        with pytest.raises(ConfigError, match=rf"A transfer set has no labels, so alpha must be 1 there, got {alpha}"):
            TeacherGuide(linear_teacher(data), DistillConfig(alpha=alpha), transfer=transfer_images(data))


def test_datasets_and_symmetries_have_caches_of_their_own(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School
) -> None:
    data = make_data()
    teacher = linear_teacher(data)
    for each, train in (
        (data, TINY),
        (data, replace(TINY, augment="mirror")),
        (make_data(seed=1, digest="another"), TINY),
        (data, replace(TINY, augment="d4")),  # what "auto" is
    ):
        school.train(each, teacher, DistillConfig(), train)
    assert len(list(school.cache.iterdir())) == 3


# --- refusals ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"alpha": -0.1}, r"alpha must be from 0 \(labels alone\) to 1 \(the teacher alone\), got -0.1"),
        ({"alpha": 1.1}, "alpha must be from 0"),
        ({"alpha": float("nan")}, "alpha must be from 0"),
        ({"beta": -1.0}, "beta must be zero or more, got -1.0"),
        ({"beta": float("inf")}, "beta must be zero or more"),
        ({"feature_weight": -1.0}, "feature_weight must be zero or more"),
        ({"attention_weight": float("nan")}, "attention_weight must be zero or more"),
        ({"kd_loss": "none"}, "leaves nothing to learn from; set feature_weight or attention_weight"),
        ({"kd_loss": "none", "alpha": 0.5}, "leaves nothing to learn from"),
    ],
)
def test_refuses_values_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillConfig(**change)


@pytest.mark.parametrize(
    ("task", "kd_loss"),
    [(task, loss) for task in KD_LOSSES_OF_TASK for loss in ("soft", "ordinal", "mse", "decoupled", "hard")],
)
def test_refuses_a_loss_that_does_not_fit_the_task(
    make_data: MakeData, linear_teacher: MakeTeacher, school: School, task: str, kd_loss: Any
) -> None:
    data = make_data(task)
    how = DistillConfig()
    object.__setattr__(how, "kd_loss", kd_loss)
    choices = {
        "multi-label": ("soft", "mse"),
        "ordinal": ("soft", "ordinal", "mse", "decoupled"),
    }.get(task, ("soft", "mse", "decoupled"))
    if kd_loss in choices:
        school.prepare(data, linear_teacher(data), how)
        return
    message = rf"kd_loss='{kd_loss}' does not fit a {task} task; use {', '.join(choices)}\."
    for alpha in (0.0, 1.0):
        object.__setattr__(how, "alpha", alpha)
        with pytest.raises(ConfigError, match=message):
            school.prepare(data, linear_teacher(data), how)
    assert not school.cache.exists()


def test_refuses_a_student_that_shows_nothing(
    make_data: MakeData, school: School, build: Build, linear_teacher: MakeTeacher
) -> None:
    data = make_data()
    vit, bare = Teacher.of_module(build(data)), linear_teacher(data)
    attention, features = DistillConfig(attention_weight=1.0), DistillConfig(feature_weight=1.0)
    with pytest.raises(
        ConfigError, match=r"needs a ViT, and the student \(Network\) is none; set attention_weight to 0"
    ):
        school.prepare(data, vit, attention, name="resnet18")
    with pytest.raises(ConfigError, match=r"which the student \(Counting\) does not show"):
        TeacherGuide(vit, features).check(bare.members[0], data)
    with pytest.raises(ConfigError, match=r"which the teacher \(Counting\) does not show"):
        school.prepare(data, bare, features)
    with pytest.raises(ConfigError, match=r"the teacher \(Counting\) is none"):
        school.prepare(data, bare, attention)
    with pytest.raises(ConfigError, match=r"logits for one image are \(1, 5\)"):
        school.prepare(data, linear_teacher(make_data("ordinal")), DistillConfig())
    assert not school.cache.exists()
