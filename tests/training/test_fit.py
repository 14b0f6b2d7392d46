"""The loop: one seed fixes everything, every option bites, the best epoch is kept, the test split stays shut."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from qvit.data.arrays import Dataset, Split
from qvit.errors import ConfigError, ModelError, TrainingError
from qvit.evaluation.metrics import auc
from qvit.models import Preprocess, create_model
from qvit.training.loop import (
    Batch,
    TrainConfig,
    TrainState,
    fit,
    load_batch,
    make_optimizer,
    supervised,
    train_step,
    validation_figures,
)
from qvit.training.optimizer import AdamW
from qvit.training.prediction import predict
from qvit.training.saved import copied
from qvit.training.schedules import SCHEDULES
from qvit.training.seeding import INIT, ORDER, generator, seeded

TINY = TrainConfig(epochs=2, batch_size=8)
MakeData = Callable[..., Dataset]


def build(data: Dataset, seed: int = 0, **options: Any) -> nn.Module:
    with seeded(seed, INIT):
        return create_model(
            "qvit_4q1h",
            in_chans=data.info.channels,
            num_classes=data.info.num_classes,
            img_size=data.size,
            **options,
        )


def trained(data: Dataset, config: TrainConfig = TINY, *, seed: int = 0, **options: Any) -> tuple[Any, TrainState]:
    model = build(data, **options)
    return model, fit(model, data, config, seed=seed)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    mine, others = first.state_dict(), second.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


# --- one seed fixes everything ---


def test_same_seed_same_bits_whatever_was_drawn_before(make_data: MakeData) -> None:
    data, config = make_data(), replace(TINY, augment="d4")
    torch.manual_seed(1)
    first, first_state = trained(data, config, dropout=0.3)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - the point is that nobody listens to it
    second, second_state = trained(data, config, dropout=0.3)
    assert same_weights(first, second)
    assert first_state.history == second_state.history


@pytest.mark.parametrize(("augment", "dropout"), [("none", 0.0), ("d4", 0.0), ("none", 0.5)])
def test_another_seed_differs_by_order_alone_too(make_data: MakeData, augment: Any, dropout: float) -> None:
    data, config = make_data(), replace(TINY, augment=augment)
    first, first_state = trained(data, config, seed=0, dropout=dropout)
    second, second_state = trained(data, config, seed=1, dropout=dropout)
    assert not same_weights(first, second)
    assert first_state.history != second_state.history


def test_leaves_the_global_generator_alone(make_data: MakeData) -> None:
    data = make_data()
    model = build(data, dropout=0.5)
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    fit(model, data, TINY, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_image_is_seen_once_an_epoch_in_a_new_order(make_data: MakeData) -> None:
    data = make_data()
    seen: list[Batch] = []
    plain = supervised(data, TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        seen.append(batch)
        return plain(model, batch)

    fit(build(data), data, TINY, seed=0, objective=objective)
    sizes = [len(batch.index) for batch in seen]
    assert sizes == [8, 8, 8, 8, 5] * 2
    first, second = (torch.cat([batch.index for batch in seen[part]]) for part in (slice(5), slice(5, 10)))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(37))
    assert not torch.equal(first, second)
    for batch in seen:
        assert np.array_equal(batch.labels.numpy(), data.train.labels[batch.index.numpy()])
    elements = torch.cat([batch.elements for batch in seen])
    assert set(elements.tolist()) == set(range(8))


def test_noise_is_drawn_anew_each_epoch(make_data: MakeData) -> None:
    data = make_data()
    drawn: list[float] = []
    plain = supervised(data, TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        drawn.append(torch.rand(()).item())
        return plain(model, batch)

    fit(build(data), data, TINY, seed=0, objective=objective)
    assert len(set(drawn)) == len(drawn) == 10
    first, drawn = drawn, []
    fit(build(data), data, TINY, seed=0, objective=objective)
    assert drawn == first


def test_augmented_images_are_those_of_the_elements_told(make_data: MakeData) -> None:
    from qvit.data.augment import apply_element

    data = make_data()
    batches: list[Batch] = []
    plain = supervised(data, TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        batches.append(batch)
        return plain(model, batch)

    fit(build(data), data, replace(TINY, epochs=1), seed=0, objective=objective)
    for image, index, element in zip(batches[0].images, batches[0].index, batches[0].elements, strict=True):
        original = torch.from_numpy(data.train.images[int(index)])[None]
        assert torch.equal(image, apply_element(original, int(element), "d4")[0])


# --- every option bites ---

BITES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # field: task, what both runs have, what the second has
    "epochs": ("multi-class", {}, {"epochs": 3}),
    "batch_size": ("multi-class", {}, {"batch_size": 9}),
    "lr": ("multi-class", {}, {"lr": 6e-3}),
    "weight_decay": ("multi-class", {}, {"weight_decay": 0.5}),
    "schedule": ("multi-class", {}, {"schedule": "warmup_cosine"}),
    "warmup": ("multi-class", {}, {"warmup": 0.5}),
    "clip_norm": ("multi-class", {}, {"clip_norm": 0.01}),
    "loss": ("ordinal", {}, {"loss": "emd"}),
    "label_smoothing": ("multi-class", {}, {"label_smoothing": 0.3}),
    "class_weights": ("multi-label", {}, {"class_weights": "balanced"}),
    "augment": ("multi-class", {"augment": "none"}, {"augment": "mirror"}),
}
# These do not reach the weights; each has its own test, by name.
ELSEWHERE = {
    "tta": "tests/training/test_predict.py",
    "patience": "test_patience_stops",
    "device": "test_model_and_batches_go_to_the_device",
    "threads": "test_threads_are_those_asked_for_and_restored",
}


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_every_option_bites(make_data: MakeData, name: str) -> None:
    if name in ELSEWHERE:
        return
    task, common, change = BITES[name]
    data = make_data(task)
    assert list(change) == [name]
    first, _ = trained(data, replace(TINY, **common))
    second, _ = trained(data, replace(TINY, **(common | change)))
    assert not same_weights(first, second)


def test_no_clipping_is_an_option(make_data: MakeData) -> None:
    data = make_data()
    without, huge, tight = (trained(data, replace(TINY, clip_norm=norm))[0] for norm in (None, 1e9, 0.01))
    assert same_weights(without, huge)
    assert not same_weights(without, tight)


class Arrived(Exception):  # noqa: N818 - not an error
    pass


def test_model_and_batches_go_to_the_device(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's device without memory, which every machine has; the checks before training need numbers."""
    data = make_data()
    monkeypatch.setattr("qvit.training.loop.check_device", lambda name: None)
    monkeypatch.setattr("qvit.training.loop._check_outputs", lambda *args: None)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        assert {part.device.type for part in (batch.images, batch.labels)} == {"meta"}
        assert {part.device.type for part in (batch.index, batch.elements)} == {"cpu"}
        assert {part.device.type for part in model.state_dict().values()} == {"meta"}
        raise Arrived

    with pytest.raises(Arrived):
        fit(build(data), data, replace(TINY, device="meta"), seed=0, objective=objective)


@pytest.mark.parametrize("device", ["meta", "gpu", "cuda:99"])
def test_refuses_a_device_that_is_not_there(make_data: MakeData, device: str) -> None:
    data = make_data()
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used here"):
        fit(build(data), data, replace(TINY, device=device), seed=0)


@pytest.mark.parametrize("outputs", [2, 3, 5])
def test_refuses_a_model_with_other_outputs_than_classes(make_data: MakeData, outputs: int) -> None:
    data = make_data()
    model = create_model("vit_4q1h", img_size=data.size, num_classes=outputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ModelError, match=rf"has {outputs} outputs and Made up has 4 classes; build it with num_classes=4"
    ):
        fit(model, data, TINY, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_those_asked_for_and_restored(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    data, config = make_data(), replace(TINY, threads=threads)
    training, validating = set[int](), set[int]()
    plain = supervised(data, config)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        training.add(torch.get_num_threads())
        return plain(model, batch)

    def figures(*args: Any) -> dict[str, Any]:
        validating.add(torch.get_num_threads())
        return validation_figures(*args)

    def fail(model: nn.Module, batch: Batch) -> Tensor:
        raise TrainingError("no more")

    monkeypatch.setattr("qvit.training.loop.validation_figures", figures)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # none of those asked for
        fit(build(data), data, config, seed=0, objective=objective)
        assert torch.get_num_threads() == 4
        with pytest.raises(TrainingError, match="no more"):
            fit(build(data), data, config, seed=0, objective=fail)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert training == validating == {threads}


def test_the_state_is_told_after_each_epoch(make_data: MakeData) -> None:
    data = make_data()
    told: list[tuple[int, int, int]] = []
    state = fit(
        build(data),
        data,
        replace(TINY, epochs=3),
        seed=0,
        on_epoch=lambda state: told.append((state.epoch, len(state.history), len(state.seconds))),
    )
    assert told == [(epoch, epoch, epoch) for epoch in (1, 2, 3)]
    assert all(seconds > 0 for seconds in state.seconds)
    again = fit(build(data), data, replace(TINY, epochs=3), seed=0, state=None)
    assert (again.history, TrainState().history, TrainState().epoch) == (state.history, [], 0)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_schedule_sets_the_rate_of_each_step(
    make_data: MakeData, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    original = AdamW.step

    def step(self: AdamW, *args: Any, **kwargs: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        assert self.param_groups[1]["lr"] == used[-1]
        return original(self, *args, **kwargs)

    monkeypatch.setattr(AdamW, "step", step)
    config = replace(TINY, schedule=name, lr=0.01, warmup=0.4)
    _, state = trained(make_data(), config)
    assert used == pytest.approx([0.01 * SCHEDULES[name](step / 10, 0.4) for step in range(10)], rel=1e-12)
    assert [record["lr"] for record in state.history] == [used[4], used[9]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("inf")}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"weight_decay": -0.1}, "weight_decay must be zero or more"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\)"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or null"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ({"patience": 0}, "patience must be at least 1 or null"),
    ],
)
def test_refuses_values_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)


# --- one step ---


@pytest.mark.parametrize("clip_norm", [None, 0.05, 1e6])
def test_a_step_is_the_plain_recipe(make_data: MakeData, clip_norm: float | None) -> None:
    data, config = make_data(), replace(TINY, weight_decay=0.2)
    ours, theirs = build(data), build(data)
    objective = supervised(data, config)
    optimizer = make_optimizer(ours, config)
    plain = torch.optim.AdamW(
        [{k: v for k, v in group.items() if k != "lr"} for group in make_optimizer(theirs, config).param_groups]
    )
    order = generator(0, ORDER, 0)
    for step in range(4):
        batch = load_batch(data.train, torch.arange(8) + step, "d4", order, "cpu")
        loss = train_step(ours, batch, objective, optimizer, lr=0.01 / (1 + step), clip_norm=clip_norm)
        expected = objective(theirs, batch).mean()
        plain.zero_grad()
        expected.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
        for group in plain.param_groups:
            group["lr"] = 0.01 / (1 + step)
        plain.step()
        assert not loss.requires_grad
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_a_step_that_is_not_finite_changes_nothing(make_data: MakeData) -> None:
    data = make_data()
    model = build(data)
    optimizer = make_optimizer(model, TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = load_batch(data.train, torch.arange(8), "none", generator(0, ORDER, 0), "cpu")

    def overflowing(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.images).sum(1) * torch.inf

    with pytest.raises(TrainingError, match=r"no longer finite at epoch 3, step 5, learning rate 0\.01"):
        train_step(model, batch, overflowing, optimizer, lr=0.01, clip_norm=1.0, epoch=3, step=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.state_dict()["state"] == {}


# --- what is decayed ---


def test_only_matrices_decay(make_data: MakeData) -> None:
    data = make_data()
    for name, options in (("qvit_4q1h", {"pool": "cls"}), ("vit_4q1h", {"pool": "cls"}), ("cosine_4q1h", {})):
        model = create_model(name, img_size=data.size, num_classes=4, **options)
        decayed, rest = make_optimizer(model, replace(TINY, weight_decay=0.2)).param_groups
        assert (decayed["weight_decay"], rest["weight_decay"]) == (0.2, 0.0)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        dense = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
        assert {names[id(parameter)] for parameter in decayed["params"]} == dense
        assert {names[id(parameter)] for parameter in rest["params"]} == set(names.values()) - dense
        assert not any("pos_embed" in n or "norm" in n or "bias" in n or "weights" in n for n in dense)


def test_frozen_parameters_do_not_move(make_data: MakeData) -> None:
    data = make_data()
    model = build(data)
    model.head.requires_grad_(False)
    before = model.head.weight.clone()
    fit(model, data, TINY, seed=0)
    assert torch.equal(model.head.weight, before)


# --- which epoch is kept ---


def test_keeps_the_epoch_of_the_best_validation_auc(make_data: MakeData) -> None:
    data = make_data(noise=800.0)
    weights: list[dict[str, Tensor]] = []
    model = build(data)
    config = replace(TINY, epochs=8, lr=0.03)
    state = fit(model, data, config, seed=2, on_epoch=lambda state: weights.append(dict(state.model)))
    aucs = [record["val_auc"] for record in state.history]
    best = int(np.argmax(aucs))
    assert 0 < best < 7, "the case is of no use if the best epoch is the first or the last"
    assert state.best["epoch"] == best + 1
    assert all(torch.equal(value, weights[best][name]) for name, value in model.state_dict().items())
    assert validation_figures(model, data, config) == {
        key: state.history[best][key] for key in ("val_loss", "val_auc", "val_acc", "tta")
    }
    assert state.best["tta"] == state.history[best]["tta"]
    assert [record["epoch"] for record in state.history] == list(range(1, 9))


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
    figures = iter(
        [{"val_auc": a, "val_loss": b, "val_acc": 0.5, "tta": "none"} for a, b in zip(aucs, losses, strict=True)]
    )
    monkeypatch.setattr("qvit.training.loop.validation_figures", lambda *args: next(figures))
    _, state = trained(make_data(), replace(TINY, epochs=4))
    assert state.best["epoch"] == kept


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 7), (None, 9)])
def test_patience_stops(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, patience: int | None, epochs: int
) -> None:
    aucs = iter([0.5, 0.6, 0.6, 0.5, 0.6, 0.55, 0.6, 0.7, 0.6] if patience != 3 else [0.5, 0.4, 0.4, 0.6] + [0.1] * 5)
    monkeypatch.setattr(
        "qvit.training.loop.validation_figures",
        lambda *args: {"val_auc": next(aucs), "val_loss": 1.0, "val_acc": 0.5, "tta": "none"},
    )
    _, state = trained(make_data(), replace(TINY, epochs=9, patience=patience))
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


@pytest.mark.parametrize("tta", ["auto", "always", "never"])
def test_never_touches_the_test_split(make_data: MakeData, tta: Any) -> None:
    data = make_data("multi-label")
    sealed = replace(data, test=Shut())
    config = replace(TINY, tta=tta, class_weights="balanced", patience=1)
    model, state = trained(sealed, config)
    validation_figures(model, sealed, config)
    assert same_weights(model, trained(data, config)[0])
    assert state.history


def test_validation_images_do_not_reach_the_weights(make_data: MakeData) -> None:
    data = make_data()
    other = Split(255 - data.val.images, data.val.labels)
    last = []
    for val in (data.val, other):
        state = fit(build(data), replace(data, val=val), TINY, seed=0)
        last.append(state.model)
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


def test_validates_in_evaluation_mode_and_trains_in_training_mode(make_data: MakeData) -> None:
    data = make_data()
    modes: list[bool] = []
    plain = supervised(data, TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        modes.append(model.training)
        return plain(model, batch)

    model = build(data, dropout=0.9)
    config = replace(TINY, epochs=1, tta="never")
    state = fit(model, data, config, seed=0, objective=objective)
    assert all(modes)
    scores = predict(model, data.val, data.info.task)  # in evaluation mode, as its own test says
    assert auc(data.val.labels, scores, data.info.task) == state.history[0]["val_auc"]


@pytest.mark.parametrize(("tta", "group"), [("never", "none"), ("always", "d4")])
def test_validation_figures(make_data: MakeData, tta: Any, group: str) -> None:
    data = make_data("ordinal")
    model = build(data)
    scores = predict(model, data.val, "ordinal", group=group)
    labels = data.val.labels[:, 0]
    figures = validation_figures(model, data, replace(TINY, tta=tta))
    assert figures["tta"] == group
    assert figures["val_loss"] == pytest.approx(-np.log(scores[np.arange(21), labels]).mean(), rel=1e-12)
    assert figures["val_acc"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels), rel=1e-12)
    assert figures["val_auc"] == auc(data.val.labels, scores, "ordinal")


def test_the_first_loss_is_about_ln_c(make_data: MakeData) -> None:
    for task, expected in (("multi-class", np.log(4)), ("multi-label", np.log(2)), ("binary", np.log(2))):
        _, state = trained(make_data(task), replace(TINY, epochs=1, lr=1e-8))
        assert state.history[0]["train_loss"] == pytest.approx(expected, rel=0.25)


def test_one_batch_can_be_learnt_by_heart(make_data: MakeData) -> None:
    data = make_data(noise=30.0)
    config = TrainConfig(epochs=60, batch_size=64, lr=0.05, weight_decay=0.0, augment="none")
    _, state = trained(data, config)
    assert state.history[-1]["train_loss"] < 0.2 < 1.0 < state.history[0]["train_loss"]


def test_train_loss_is_the_mean_over_images_not_over_batches(make_data: MakeData) -> None:
    data = make_data()
    losses: list[Tensor] = []
    plain = supervised(data, TINY)

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        losses.append(plain(model, batch))
        return losses[-1]

    state = fit(build(data), data, replace(TINY, epochs=1), seed=0, objective=objective)
    expected = torch.cat([loss.detach() for loss in losses]).mean().item()
    assert state.history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


# --- strange models ---


class Stranger(nn.Module):
    """Somebody's network: a layer like those whose gradients corrupt memory, and one that computes its like itself."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.preprocess = Preprocess(3)
        self.skip = nn.Conv2d(3, 4, 1, stride=2, bias=False)
        self.weight = nn.Parameter(torch.randn(5, 4, 1, 1))
        self.head = nn.Linear(5, classes)
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(self.skip(self.preprocess(images)), self.weight, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        again = self.training  # as timm's networks with grad_checkpointing
        found = checkpoint(self.features, images, use_reentrant=False) if again else self.features(images)
        return self.head(found.mean(dim=(2, 3)))


def test_a_strangers_convolutions_are_trained_without_their_stride(make_data: MakeData) -> None:
    """In a layer, in a function and in what is computed again; the model itself is left as it was."""
    data, strides = make_data(), set()
    model = Stranger()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket is torch.ops.aten.convolution_backward:
                strides.add(tuple(args[4]))
            return func(*args, **kwargs or {})

    with Watch():
        state = fit(model, data, TINY, seed=0)
    assert strides == {(1, 1)}
    assert len(state.history) == TINY.epochs
    assert type(model.skip) is nn.Conv2d
    assert model.skip.stride == (2, 2)


class Remembering(nn.Module):
    """A head of a model that is half quantised and counts in a dictionary: what it saves are not tensors alone."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess, self.head, self.seen = Preprocess(3), nn.Linear(6, 4), {"batches": 0, "mean": torch.zeros(())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 6))
            self.body = torch.ao.quantization.quantize_dynamic(body, {nn.Linear})

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen["batches"] += 1
        return self.head(self.body(self.preprocess(images)))

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


def test_what_a_model_saves_need_not_be_tensors(make_data: MakeData) -> None:
    """Also the best epoch's is kept as it was then, and it can be gone on with."""
    data, states = make_data(noise=800.0), []
    config = replace(TINY, epochs=4, lr=0.05)
    torch.manual_seed(0)
    model = Remembering()
    twin = copy.deepcopy(model)
    done = fit(model, data, config, seed=0, on_epoch=lambda state: states.append(copied(vars(state))))
    steps = math.ceil(len(data.train) / 8)
    assert [state["model"]["_extra_state"]["batches"] for state in states] == [steps, 2 * steps, 3 * steps, 4 * steps]
    assert model.seen["batches"] == steps * done.best["epoch"]
    model.seen["batches"] = -1
    assert done.best["model"]["_extra_state"]["batches"] == steps * done.best["epoch"]
    resumed = fit(twin, data, config, seed=0, state=TrainState(**states[1]))
    assert resumed.history == done.history
    assert torch.equal(twin.head.weight, model.head.weight)


def test_nothing_to_train_is_said(make_data: MakeData) -> None:
    data = make_data()
    model = build(data)
    steps: list[Any] = []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        steps.append(batch)
        return model(batch.images).sum(1)

    count = len(list(model.requires_grad_(False).parameters()))
    with pytest.raises(
        TrainingError, match=rf"nothing to train: expected .* got one whose {count} are all frozen\. Call"
    ):
        fit(model, data, TINY, seed=0, objective=objective)
    constant = nn.Sequential(Preprocess(3), nn.Flatten(), nn.AdaptiveAvgPool1d(4))
    with pytest.raises(TrainingError, match=r"nothing to train: expected .* got one without parameters"):
        fit(constant, data, TINY, seed=0, objective=objective)
    assert steps == []


def test_a_loss_that_depends_on_nothing_is_said(make_data: MakeData) -> None:
    with pytest.raises(TrainingError, match=r"The loss at epoch 1, step 1 depends on no parameter .*torch\.no_grad\?"):
        fit(
            build(make_data()),
            make_data(),
            TINY,
            seed=0,
            objective=lambda model, batch: model(batch.images).detach().sum(1),
        )
