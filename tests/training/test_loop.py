"""The loop: one seed fixes everything, every option bites, the best epoch is kept, the test split stays shut.

What it trains here is two layers, for it does not know models; circuits are trained once.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import apply_element
from qvit.errors import ConfigError, TrainingError
from qvit.evaluation.metrics import auc
from qvit.models import Preprocess, ViT, create_model
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.distributed import Team
from qvit.training.loop import fit, fit_many
from qvit.training.objective import supervised
from qvit.training.optimizer import AdamW
from qvit.training.prediction import predict
from qvit.training.records import EpochRecord, Validation
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import INIT, ORDER, generator, seeded
from qvit.training.state import Member, TrainState
from qvit.training.step import train_step
from qvit.training.validation import validation_figures

pytestmark = pytest.mark.trains

TINY = TrainConfig(epochs=2, batch_size=8, tta="never")
MakeData = Callable[..., Dataset]


def build(data: Dataset, seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    with seeded(seed, INIT):
        pixels = data.info.channels * data.size**2
        layers = nn.Linear(pixels, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, data.info.num_classes)
        return nn.Sequential(Preprocess(data.info.channels), nn.Flatten(), *layers)


def trained(data: Dataset, config: TrainConfig = TINY, *, seed: int = 0, **options: Any) -> tuple[Any, TrainState]:
    model = build(data, **options)
    return model, fit(model, data, config, seed=seed)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    mine, others = first.state_dict(), second.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.fixture
def seen(make_data: MakeData) -> tuple[list[Batch], list[Tensor], Callable[[nn.Module, Batch], Tensor]]:
    """An objective that keeps the batches and losses it sees."""
    batches: list[Batch] = []
    losses: list[Tensor] = []
    plain = supervised(make_data(), TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        batches.append(batch)
        losses.append(plain(model, batch))
        return losses[-1]

    return batches, losses, objective


def test_norms_are_joined_over_batches_of_the_training_images(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes of batches decide whether each process has an image to normalise by."""
    told: list[Any] = []
    monkeypatch.setattr(
        Team, "join_norms", lambda self, model, device, batches: told.append((model, device, batches()))
    )
    data = make_data()
    model, _ = trained(data, replace(TINY, epochs=1))
    [(joined, device, batches)] = told
    assert model in joined.modules()
    assert device == "cpu"
    assert torch.cat(batches).sort().values.tolist() == list(range(len(data.train)))
    assert {len(batch) for batch in batches[:-1]} == {8}


# --- one seed fixes everything ---


def test_same_seed_same_bits_whatever_was_drawn_before(make_data: MakeData) -> None:
    data, config = make_data(), replace(TINY, augment="d4", batch_size=16)
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002 - the point is that nobody listens to it
        before = torch.random.get_rng_state()
        with seeded(0, INIT):
            model = create_model("qvit_4q1h", num_classes=4, img_size=data.size, dropout=0.3)
        results.append((model, fit(model, data, config, seed=0).history))
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    assert same_weights(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize(("augment", "dropout"), [("none", 0.0), ("d4", 0.0), ("none", 0.5)])
def test_another_seed_differs_by_order_alone_too(make_data: MakeData, augment: Any, dropout: float) -> None:
    data, config = make_data(), replace(TINY, augment=augment)
    first, first_state = trained(data, config, seed=0, dropout=dropout)
    second, second_state = trained(data, config, seed=1, dropout=dropout)
    assert not same_weights(first, second)
    assert first_state.history != second_state.history


def test_every_image_is_seen_once_an_epoch_in_a_new_order(make_data: MakeData, seen: Any) -> None:
    data, (batches, _, objective) = make_data(), seen
    fit(build(data), data, TINY, seed=0, objective=objective)
    assert [len(batch.index) for batch in batches] == [8, 8, 8, 8, 5] * 2
    first, second = (torch.cat([batch.index for batch in batches[part]]) for part in (slice(5), slice(5, 10)))
    assert torch.equal(first, torch.randperm(37, generator=generator(0, ORDER, 0)))
    assert torch.equal(second, torch.randperm(37, generator=generator(0, ORDER, 1)))
    for batch in batches:
        assert np.array_equal(batch.labels.numpy(), data.train.labels[batch.index.numpy()])
        for image, index, element in zip(batch.images, batch.index, batch.elements, strict=True):
            original = torch.from_numpy(data.train.images[int(index)])[None]
            assert torch.equal(image, apply_element(original, int(element), "d4")[0])
    assert set(torch.cat([batch.elements for batch in batches]).tolist()) == set(range(8))


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (17, 8, [8, 9]),
        (9, 8, [9]),
        (16, 8, [8, 8]),
        (18, 8, [8, 8, 2]),
        (1, 8, [1]),
        (5, 2, [2, 3]),
        (4, 1, [1, 1, 1, 1]),
        (18, None, [8, 8, 2]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(
    make_data: MakeData, seen: Any, images: int, batch_size: int | None, sizes: list[int]
) -> None:
    data, (batches, _, objective) = make_data(), seen
    few = replace(data, train=Split(data.train.images[:images], data.train.labels[:images]))
    fit(build(data), few, replace(TINY, epochs=1, batch_size=batch_size), seed=0, objective=objective)
    assert [len(batch.index) for batch in batches] == sizes
    order = torch.randperm(images, generator=generator(0, ORDER, 0))
    assert torch.equal(torch.cat([batch.index for batch in batches]), order)


def test_noise_is_drawn_anew_each_epoch(make_data: MakeData) -> None:
    data, plain = make_data(), supervised(make_data(), TINY)
    drawn: list[float] = []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        drawn.append(torch.rand(()).item())
        return plain(model, batch)

    fit(build(data), data, TINY, seed=0, objective=objective)
    assert len(set(drawn)) == len(drawn) == 10
    first, drawn = drawn, []
    fit(build(data), data, TINY, seed=0, objective=objective)
    assert drawn == first


# --- every option bites ---


def outcome(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """What a configuration can change, by name."""
    threads = set[int]()
    plain = supervised(data, config)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        threads.add(torch.get_num_threads())
        return plain(model, batch)

    objective.mixes = True  # type: ignore[attr-defined]
    try:
        state = fit(build(data), data, config, seed=0, objective=objective)
    except ConfigError as error:
        return {"refused": str(error).partition(" ")[0]}
    return {
        "refused": None,
        "weights": [value.tolist() for value in state.model.values()],
        "epochs": state.epoch,
        "kept": state.best.record.epoch,
        "weights kept": [value.tolist() for value in state.best.model.values()],
        "averaged over": [record.tta for record in state.history],
        "threads": threads,
    }


BITES: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    # field: task, what both runs have, the value of the second, and what it changes
    "epochs": ("multi-class", {}, 3, "epochs"),
    "batch_size": ("multi-class", {}, 9, "weights"),
    "lr": ("multi-class", {}, 6e-3, "weights"),
    "weight_decay": ("multi-class", {}, 0.5, "weights"),
    "schedule": ("multi-class", {}, "warmup_cosine", "weights"),
    "warmup": ("multi-class", {}, 0.5, "weights"),
    "clip_norm": ("multi-class", {}, 0.01, "weights"),
    "loss": ("ordinal", {}, "emd", "weights"),
    "label_smoothing": ("multi-class", {}, 0.3, "weights"),
    "class_weights": ("multi-label", {}, "balanced", "weights"),
    "augment": ("multi-class", {"augment": "none"}, "mirror", "weights"),
    "distort": ("multi-class", {"augment": "none"}, 1.0, "weights"),
    "mixup": ("multi-class", {}, 0.2, "weights"),
    "tta": ("multi-class", {"tta": "always"}, "never", "averaged over"),
    "keep": ("multi-class", {"lr": 1e-30}, "last", "kept"),
    "average": ("multi-class", {"keep": "last", "epochs": 2}, 2, "weights kept"),
    "patience": ("multi-class", {"lr": 1e-30}, 1, "epochs"),  # nothing moves, so that nothing gets better
    "device": ("multi-class", {}, "meta", "refused"),  # see below for one that is taken
    "threads": ("multi-class", {}, 2, "threads"),
}


def test_the_bites_of_every_option_are_tried() -> None:
    assert list(BITES) == [field.name for field in fields(TrainConfig)]


@pytest.mark.parametrize("name", BITES)
def test_every_option_bites(make_data: MakeData, name: str) -> None:
    task, common, value, changed = BITES[name]
    data, config = (
        make_data(task),
        replace(TINY, **({"epochs": 4 if name in ("keep", "patience") else 1, "batch_size": 16} | common)),
    )
    first, second = outcome(data, config), outcome(data, replace(config, **{name: value}))
    assert first[changed] != second[changed]
    if "weights" not in changed:
        expected = {"epochs": 3, "tta": ["none"], "keep": 4, "patience": 2, "device": "device='meta'", "threads": {2}}
        assert second[changed] == expected[name]


def test_no_clipping_is_an_option(make_data: MakeData) -> None:
    data = make_data()
    without, huge, tight = (trained(data, replace(TINY, clip_norm=norm))[0] for norm in (None, 1e9, 0.01))
    assert same_weights(without, huge)
    assert not same_weights(without, tight)


class Arrived(Exception):  # noqa: N818 - not an error
    pass


@pytest.mark.parametrize("options", [{}, {"distort": 1.0}, {"distort": 1.0, "mixup": 0.2}])
def test_model_and_batches_go_to_the_device(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """On torch's device without memory, which every machine has; the checks before training need numbers."""
    data = make_data()
    monkeypatch.setattr("qvit.training.loop.check_device", lambda name: None)
    monkeypatch.setattr("qvit.training.loop._check_outputs", lambda *args: None)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        for one in (batch, batch.partners or batch):
            assert {part.device.type for part in (one.images, one.labels)} == {"meta"}
            assert {part.device.type for part in (one.index, one.elements)} == {"cpu"}
        assert [None if batch.shares is None else batch.shares.device.type] == ["meta" if "mixup" in options else None]
        assert {part.device.type for part in model.state_dict().values()} == {"meta"}
        raise Arrived

    objective.mixes = True  # type: ignore[attr-defined]
    config = replace(TINY, device="meta", augment="none", **options)
    with pytest.raises(Arrived):
        fit(build(data), data, config, seed=0, objective=objective)


def test_threads_are_those_asked_for_and_restored(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data, config, validating = make_data(), replace(TINY, threads=2, epochs=1), list[int]()

    def figures(*args: Any) -> Validation:
        validating.append(torch.get_num_threads())
        return validation_figures(*args)

    def fail(model: nn.Module, batch: Batch) -> Tensor:
        assert torch.get_num_threads() == 2
        raise TrainingError("no more")

    monkeypatch.setattr("qvit.training.together.validation_figures", figures)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # not those asked for
        fit(build(data), data, config, seed=0)
        assert torch.get_num_threads() == 3
        with pytest.raises(TrainingError, match=r"^no more$"):
            fit(build(data), data, config, seed=0, objective=fail)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert validating == [2]


def test_the_state_is_told_after_each_epoch(make_data: MakeData) -> None:
    data = make_data()
    told: list[tuple[int, int, int]] = []
    config = replace(TINY, epochs=3)
    state = fit(
        build(data),
        data,
        config,
        seed=0,
        on_epoch=lambda state: told.append((state.epoch, len(state.history), len(state.seconds))),
    )
    assert told == [(epoch, epoch, epoch) for epoch in (1, 2, 3)]
    assert all(0.0 < seconds < 600.0 for seconds in state.seconds), "a duration, not a time of day"
    again = fit(build(data), data, config, seed=0, state=None)
    assert (again.history, TrainState().history, TrainState().epoch) == (state.history, [], 0)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_schedule_sets_the_rate_of_each_step(
    make_data: MakeData, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    original = AdamW.step

    def step(self: AdamW) -> None:
        used.append(self.param_groups[0]["lr"])
        assert self.param_groups[1]["lr"] == used[-1]
        original(self)

    monkeypatch.setattr(AdamW, "step", step)
    config = replace(TINY, schedule=name, lr=0.01, warmup=0.4)
    _, state = trained(make_data(), config)
    assert used == pytest.approx([0.01 * SCHEDULES[name](step / 10, 0.4) for step in range(10)], rel=1e-12)
    assert [record.lr for record in state.history] == [used[4], used[9]]


def test_each_step_is_told_its_place(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, int]] = []

    def step(*args: Any, **options: Any) -> Tensor:
        places.append((options["epoch"], options["step"]))
        return train_step(*args, **options)

    monkeypatch.setattr("qvit.training.together.train_step", step)
    trained(make_data(), replace(TINY, batch_size=16))
    assert places == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


# --- which epoch is kept ---


def figures(auc: float, loss: float = 1.0) -> Validation:
    return Validation(val_auc=auc, val_loss=loss, val_acc=0.5, tta="none")


def test_keeps_the_epoch_of_the_best_validation_auc(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data, weights = make_data(), list[dict[str, Tensor]]()
    aucs = iter([0.5, 0.8, 0.9, 0.7])
    monkeypatch.setattr("qvit.training.together.validation_figures", lambda *args: figures(next(aucs)))
    model = build(data)
    keep = lambda state: weights.append(dict(state.model))  # noqa: E731
    state = fit(model, data, replace(TINY, epochs=4), seed=2, on_epoch=keep)
    assert state.best is not None
    assert state.best.record == state.history[2]
    assert [record.epoch for record in state.history] == [1, 2, 3, 4]
    assert replace(state.history[2], lr=0, train_loss=0) == EpochRecord(3, 0, 0, **vars(figures(0.9)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[2][name])
        assert torch.equal(value, state.best.model[name])
    assert not torch.equal(weights[3]["2.weight"], weights[2]["2.weight"])
    assert not torch.equal(weights[1]["2.weight"], weights[2]["2.weight"])
    state.best.model["2.weight"].zero_()
    assert model[2].weight.abs().sum() > 0, "the model has a copy"


def test_keeps_the_last_epoch_if_asked_to(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data, aucs = make_data(), iter([0.5, 0.9, 0.7])
    monkeypatch.setattr("qvit.training.together.validation_figures", lambda *args: figures(next(aucs)))
    model, state = trained(data, replace(TINY, epochs=3, keep="last"))
    assert state.best.record == state.history[2]
    assert [record.val_auc for record in state.history] == [0.5, 0.9, 0.7]
    assert all(torch.equal(value, state.model[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("stacked", [False, True])
def test_keeps_the_mean_of_the_last_weights_if_asked_to(make_data: MakeData, stacked: bool) -> None:
    """What is chosen and said of it is found with the mean; the steps are those of a run without."""
    data, config = make_data(), TrainConfig(epochs=4, batch_size=8, tta="auto", keep="last")

    def run(average: int, on_epoch: Callable[[TrainState], None] | None = None) -> tuple[nn.Module, TrainState]:
        one = Member(data, replace(config, average=average), 2, on_epoch=on_epoch)
        if not stacked:
            model = build(data)
            return model, fit(model, data, one.config, seed=2, on_epoch=on_epoch)
        with seeded(0, INIT):
            vit = create_model("vit_4q1h", num_classes=4, img_size=data.size)
        assert isinstance(vit, ViT)
        fit_many([vit], [one])
        return vit, one.state

    weights = list[dict[str, Tensor]]()
    model, state = run(3, lambda state: weights.append(state.model))
    plain, other = run(1)
    assert not same_weights(model, plain)
    assert state.history == other.history
    assert state.best is not None
    for name, value in model.state_dict().items():
        expected = torch.stack([one[name] for one in weights[-3:]]).double().mean(0)
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(value, state.best.model[name])
    figures = validation_figures(model, data, config)
    assert state.best.record == replace(state.history[-1], **vars(figures))
    assert state.best.record.val_loss != state.history[-1].val_loss


@pytest.mark.parametrize(
    ("aucs", "losses", "kept"),
    [
        ([0.5, 0.9, 0.9, 0.8], [1.0, 0.9, 0.7, 0.1], 3),
        ([0.5, 0.9, 0.9, 0.8], [1.0, 0.7, 0.9, 0.1], 2),
        ([0.5, 0.9, 0.9, 0.9], [1.0, 0.7, 0.7, 0.7], 2),
        ([0.5, 0.4, 0.3, 0.2], [1.0, 0.7, 0.7, 0.7], 1),
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, aucs: list[float], losses: list[float], kept: int
) -> None:
    pairs = zip(aucs, losses, strict=True)
    monkeypatch.setattr("qvit.training.together.validation_figures", lambda *args: figures(*next(pairs)))
    _, state = trained(make_data(), replace(TINY, epochs=4, batch_size=64))
    assert state.best.record.epoch == kept


@pytest.mark.parametrize(
    ("patience", "aucs", "epochs"),
    [
        (1, [0.5, 0.6, 0.6, 0.5, 0.6], 3),
        (2, [0.5, 0.6, 0.6, 0.5, 0.6], 4),
        (3, [0.5, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1, 0.1], 7),
        (None, [0.5, 0.6, 0.6, 0.5, 0.6, 0.55, 0.6, 0.7, 0.6], 9),
    ],
)
def test_patience_stops(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, patience: int | None, aucs: list[float], epochs: int
) -> None:
    left = iter(aucs)
    monkeypatch.setattr("qvit.training.together.validation_figures", lambda *args: figures(next(left)))
    _, state = trained(make_data(), replace(TINY, epochs=9, batch_size=64, patience=patience))
    assert state.epoch == len(state.history) == epochs


# --- what it looks at ---


class Shut(Split):
    """A split that must not be looked at."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was touched: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was counted")


def test_never_touches_the_test_split(make_data: MakeData) -> None:
    data = make_data("multi-label")
    sealed = replace(data, test=Shut())
    config = replace(TINY, class_weights="balanced", patience=1)
    model, state = trained(sealed, config)
    assert same_weights(model, trained(data, config)[0])
    assert len(state.history) > 0


def test_validation_images_do_not_reach_the_weights(make_data: MakeData) -> None:
    data = make_data()
    other = Split(255 - data.val.images, data.val.labels)
    first, second = (fit(build(data), replace(data, val=val), TINY, seed=0) for val in (data.val, other))
    assert all(torch.equal(value, second.model[name]) for name, value in first.model.items())
    assert first.history != second.history


def test_validates_in_evaluation_mode_and_trains_in_training_mode(make_data: MakeData) -> None:
    data, modes, plain = make_data(), set[bool](), supervised(make_data(), TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        modes.add(model.training)
        return plain(model, batch)

    model = build(data, dropout=0.9).eval()
    state = fit(model, data, replace(TINY, epochs=1, tta="never"), seed=0, objective=objective)
    assert modes == {True}
    scores = predict(model, data.val, data.info.task)  # in evaluation mode, as its own test says
    assert auc(data.val.labels, scores, data.info.task) == state.history[0].val_auc


def test_the_first_loss_is_about_ln_c(make_data: MakeData) -> None:
    for task, expected in (("multi-class", np.log(4)), ("multi-label", np.log(2)), ("binary", np.log(2))):
        data = make_data(task)
        model = create_model("vit_4q1h", num_classes=data.info.num_classes, img_size=data.size)
        state = fit(model, data, TrainConfig(epochs=1, batch_size=64, lr=1e-8), seed=0)
        assert state.history[0].train_loss == pytest.approx(expected, rel=0.25)


def test_one_batch_can_be_learnt_by_heart(make_data: MakeData) -> None:
    config = replace(TINY, epochs=30, batch_size=64, lr=0.05, weight_decay=0.0, augment="none", clip_norm=None)
    _, state = trained(make_data(noise=30.0), config)
    assert state.history[-1].train_loss < 0.4 < 1.0 < state.history[0].train_loss


def test_train_loss_is_the_mean_over_images_not_over_batches(make_data: MakeData, seen: Any) -> None:
    data, (_, losses, objective) = make_data(), seen
    state = fit(build(data), data, replace(TINY, epochs=1), seed=0, objective=objective)
    expected = torch.cat([loss.detach() for loss in losses]).mean().item()
    assert state.history[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_frozen_parameters_do_not_move(make_data: MakeData) -> None:
    data = make_data()
    model, fresh = build(data), build(data)
    model[5].requires_grad_(False)
    fit(model, data, TINY, seed=0)
    assert torch.equal(model[5].weight, fresh[5].weight)
    assert not torch.equal(model[2].weight, fresh[2].weight)


# --- what it refuses ---


def test_a_loss_that_depends_on_nothing_is_said(make_data: MakeData) -> None:
    data = make_data()
    told = (
        r"^The loss at epoch 1, step 1 depends on no parameter that can be trained, so there is nothing to learn; is "
        r"the model's output detached, or computed under torch\.no_grad\?$"
    )
    with pytest.raises(TrainingError, match=told):
        fit(build(data), data, TINY, seed=0, objective=lambda model, batch: model(batch.images).detach().sum(1))
