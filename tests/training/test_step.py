"""Parts of the loop by themselves: one step, its batch, its optimiser, the figures after an epoch, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.data.views import Views
from qvit.errors import ConfigError, ModelError, TrainingError
from qvit.evaluation.metrics import auc
from qvit.models import Preprocess, create_model
from qvit.training.batches import augmentation_group, default_batch_size, load_batch
from qvit.training.config import TrainConfig
from qvit.training.diagnose import check_finite
from qvit.training.loop import fit
from qvit.training.machine import check_device
from qvit.training.objective import supervised
from qvit.training.prediction import predict
from qvit.training.seeding import INIT, ORDER, generator, seeded
from qvit.training.state import TrainState
from qvit.training.step import make_optimizer, train_step
from qvit.training.validation import validation_figures

TINY = TrainConfig(epochs=2, batch_size=8)
MakeData = Callable[..., Dataset]


def build(data: Dataset, name: str = "qvit_4q1h", **options: Any) -> Any:
    with seeded(0, INIT):
        return create_model(
            name, in_chans=data.info.channels, num_classes=data.info.num_classes, img_size=data.size, **options
        )


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
    for step in range(3):
        batch = load_batch(Views(data.train, "d4"), torch.arange(8) + step, order, "cpu")
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


@pytest.mark.parametrize(("clip_norm", "norm"), [(None, 5.0), (5.1, 5.0), (5.0, 5.0), (1.0, 1.0)])
def test_gradients_are_scaled_down_to_the_largest_norm(
    make_data: MakeData, clip_norm: float | None, norm: float
) -> None:
    batch = load_batch(Views(make_data().train, "none"), torch.arange(2), generator(0), "cpu")
    model = nn.Linear(2, 1, bias=False)
    optimizer = make_optimizer(model, TINY)
    slope = torch.tensor([3.0, 4.0])
    loss = train_step(
        model, batch, lambda model, batch: (model.weight @ slope).repeat(2), optimizer, lr=0.1, clip_norm=clip_norm
    )
    torch.testing.assert_close(model.weight.grad, slope[None] * norm / 5.0, rtol=1e-5, atol=0)
    assert loss.shape == ()


class Linears(nn.Module):
    """A stack of linear models of images: the first axis of parameters and logits is theirs."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.zeros(len(weights), 1, weights[0].shape[0]))
        self.scale = nn.Parameter(torch.ones(len(weights)))

    def forward(self, images: Tensor) -> Tensor:
        flat = images.float().flatten(1) / 255.0
        return (flat @ self.weight.transpose(1, 2) + self.bias) * self.scale[:, None, None]


def test_each_model_of_a_stack_takes_its_own_step(make_data: MakeData) -> None:
    """One of them is clipped and the other is not."""
    data = make_data()
    features = data.info.channels * data.size**2
    torch.manual_seed(0)
    first, second = torch.randn(2, data.info.num_classes, features) * torch.tensor([0.001, 3.0])[:, None, None]
    stack, alone = Linears(first, second), [Linears(first), Linears(second)]
    objective, norms = supervised(data, TINY), []
    optimizers = [make_optimizer(model, TINY) for model in (stack, *alone)]
    for step in range(3):
        batch = load_batch(Views(data.train, "none"), torch.arange(8) + step, generator(0), "cpu")
        together, *singly = (
            train_step(model, batch, objective, optimizer, lr=0.01, clip_norm=8.0)
            for model, optimizer in zip((stack, *alone), optimizers, strict=True)
        )
        assert together.shape == (2,)
        torch.testing.assert_close(together, torch.cat(singly))
        for name, value in stack.named_parameters():
            torch.testing.assert_close(value, torch.cat([dict(one.named_parameters())[name] for one in alone]))
        norms.append([torch.cat([p.grad.flatten() for p in one.parameters()]).norm().item() for one in alone])
    assert [norm < 7.9 for norm in norms[0]] == [True, False], "or the case is of no use"
    assert norms[0][1] == pytest.approx(8.0, rel=1e-3)


@pytest.mark.parametrize("shape", [(8, 3), (8, 1), (2, 8)])
def test_losses_with_axes_that_are_not_those_of_models_are_refused(make_data: MakeData, shape: tuple[int, int]) -> None:
    data = make_data()
    model = build(data)
    batch = load_batch(Views(data.train, "none"), torch.arange(8), generator(0), "cpu")
    with pytest.raises(TrainingError, match=r"one loss per image, 8 in all, found losses of the shape \("):
        train_step(
            model,
            batch,
            lambda model, batch: model(batch.images).mean() * torch.ones(shape),
            make_optimizer(model, TINY),
            lr=0.1,
        )


@pytest.mark.trains
def test_a_stack_has_no_run_yet(make_data: MakeData) -> None:
    data = make_data()
    stack = Linears(*torch.zeros(2, data.info.num_classes, data.info.channels * data.size**2))

    class Looks(nn.Module):
        """Answers as one model where nothing is learned."""

        def __init__(self) -> None:
            super().__init__()
            self.stack = stack

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.stack(images)
            return logits if self.training else logits[0]

    with pytest.raises(TrainingError, match=r"found losses of \(2,\) models"):
        fit(Looks(), data, replace(TINY, epochs=1, augment="none"), seed=0)


def test_many_large_norms_are_finite(make_data: MakeData) -> None:
    """Their sum is not."""
    weight = torch.zeros(3, 432)
    check_finite(
        Linears(weight, weight), torch.zeros(1), torch.zeros(2), torch.full((2,), 2e38), epoch=1, step=1, lr=1.0
    )


def test_one_model_of_a_stack_that_is_not_finite_is_told(make_data: MakeData) -> None:
    data = make_data()
    weight = torch.zeros(data.info.num_classes, data.info.channels * data.size**2)
    stack = Linears(weight, torch.full_like(weight, torch.inf))
    batch = load_batch(Views(data.train, "none"), torch.arange(8), generator(0), "cpu")
    with pytest.raises(TrainingError, match="The loss is no longer finite"):
        train_step(stack, batch, supervised(data, TINY), make_optimizer(stack, TINY), lr=0.1)


def test_a_step_that_is_not_finite_changes_nothing(make_data: MakeData) -> None:
    data = make_data()
    model = build(data)
    optimizer = make_optimizer(model, TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = load_batch(Views(data.train, "none"), torch.arange(8), generator(0, ORDER, 0), "cpu")
    told = (
        r"^The loss is no longer finite at epoch 3, step 5, learning rate 0\.01: every layer's output is finite, so "
        r"the loss itself overflows\. Train again in another folder with a lower lr or a clip_norm, or look at the "
        r"images of this batch\.$"
    )
    with pytest.raises(TrainingError, match=told):
        train_step(
            model,
            batch,
            lambda model, batch: model(batch.images).sum(1) * torch.inf,
            optimizer,
            lr=0.01,
            clip_norm=1.0,
            epoch=3,
            step=5,
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("place", [{}, {"epoch": 2, "step": 3}])
def test_a_loss_without_parameters_is_told_with_its_place(make_data: MakeData, place: dict[str, int]) -> None:
    data = make_data()
    model = build(data)
    batch = load_batch(Views(data.train, "none"), torch.arange(2), generator(0), "cpu")
    told = f"^The loss at epoch {place.get('epoch', 1)}, step {place.get('step', 1)} depends on no parameter"
    with pytest.raises(TrainingError, match=told):
        train_step(model, batch, lambda model, batch: torch.zeros(2), make_optimizer(model, TINY), lr=0.1, **place)


# --- its batch ---


@pytest.mark.parametrize(
    ("images", "size"), [(10_000, 64), (961, 64), (960, 32), (481, 32), (480, 16), (241, 16), (240, 8), (1, 8)]
)
def test_an_epoch_has_at_least_16_steps_where_batches_of_8_allow(images: int, size: int) -> None:
    assert default_batch_size(images) == size


@pytest.mark.parametrize(("augment", "group"), [("auto", "d4"), ("none", "none"), ("mirror", "mirror"), ("d4", "d4")])
def test_the_symmetries_are_the_datasets_unless_said(make_data: MakeData, augment: Any, group: str) -> None:
    assert augmentation_group(make_data(), replace(TINY, augment=augment)) == group


def test_a_batch_holds_the_images_it_names(make_data: MakeData) -> None:
    data, index = make_data(), torch.tensor([5, 2, 36])
    plain = load_batch(Views(data.train, "none"), index, generator(0), "cpu")
    assert np.array_equal(plain.images.numpy(), data.train.images[[5, 2, 36]])
    assert np.array_equal(plain.labels.numpy(), data.train.labels[[5, 2, 36]])
    assert plain.elements.tolist() == [0, 0, 0]
    assert plain.index.tolist() == [5, 2, 36]
    mirrored = load_batch(Views(data.train, "mirror"), index.repeat(5), generator(0), "cpu")
    assert set(mirrored.elements.tolist()) == {0, 1}
    for image, at, element in zip(mirrored.images.numpy(), mirrored.index, mirrored.elements, strict=True):
        original = data.train.images[int(at)]
        assert np.array_equal(image, original[..., ::-1] if element else original)


# --- its loss and its optimiser ---


def test_the_loss_has_the_options_of_the_configuration(make_data: MakeData) -> None:
    """By hand: two logits that say p = 3/4 of the first class, three of four training labels being of the second."""
    data = make_data("binary")
    labels = np.array([[0], [1], [1], [1]])
    data = replace(data, train=replace(data.train, images=data.train.images[:4], labels=labels))
    logits, label = torch.tensor([[np.log(3.0), 0.0]]).float(), torch.tensor([[1]])
    plain = -np.log(1 / 4)
    smooth = -(0.9 * np.log(1 / 4) + 0.1 * np.log(3 / 4))
    for options, expected in (
        ({}, plain),
        ({"label_smoothing": 0.2}, smooth),
        ({"class_weights": "balanced"}, plain * 2 / 3),
    ):
        found = supervised(data, replace(TINY, **options)).loss(logits, label)
        assert found.item() == pytest.approx(expected, rel=1e-5)
    told = r"^loss='emd' does not fit a binary task; use ce, or auto\.$"
    with pytest.raises(ConfigError, match=told):
        supervised(data, replace(TINY, loss="emd"))


def test_the_plain_objective_is_the_loss_of_the_models_logits(make_data: MakeData) -> None:
    data = make_data()
    model = build(data, "vit_4q1h")
    batch = load_batch(Views(data.train, "none"), torch.arange(5), generator(0), "cpu")
    expected = nn.functional.cross_entropy(model(batch.images), batch.labels[:, 0], reduction="none")
    torch.testing.assert_close(supervised(data, TINY)(model, batch), expected)


def test_only_matrices_decay(make_data: MakeData) -> None:
    data = make_data()
    for name in ("qvit_4q1h", "vit_4q1h", "cosine_4q1h"):
        model = build(data, name, pool="cls")
        decayed, rest = make_optimizer(model, replace(TINY, weight_decay=0.2, lr=0.03)).param_groups
        assert (decayed["weight_decay"], rest["weight_decay"]) == (0.2, 0.0)
        assert (decayed["lr"], rest["lr"]) == (0.03, 0.03)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        dense = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
        assert {names[id(parameter)] for parameter in decayed["params"]} == dense
        assert {names[id(parameter)] for parameter in rest["params"]} == set(names.values()) - dense
        assert not any("pos_embed" in n or "norm" in n or "bias" in n or "weights" in n for n in dense)


def test_what_is_frozen_is_no_business_of_the_optimiser() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv3d(1, 1, 1), nn.LayerNorm(2))
    model[0].requires_grad_(False)
    decayed, rest = make_optimizer(model, TINY).param_groups
    assert [id(parameter) for parameter in decayed["params"]] == [id(model[1].weight)]
    assert [id(parameter) for parameter in rest["params"]] == [
        id(model[1].bias),
        id(model[2].weight),
        id(model[2].bias),
    ]


# --- the figures after an epoch ---


@pytest.mark.parametrize(("tta", "group"), [("never", "none"), ("always", "d4")])
def test_validation_figures(make_data: MakeData, tta: Any, group: str) -> None:
    data = make_data("ordinal")
    model = build(data)
    scores = predict(model, data.val, "ordinal", group=group)
    labels = data.val.labels[:, 0]
    figures = validation_figures(model, data, replace(TINY, tta=tta))
    assert figures.tta == group
    assert figures.val_loss == pytest.approx(-np.log(scores[np.arange(21), labels]).mean(), rel=1e-12)
    assert figures.val_acc == pytest.approx(np.mean(scores.argmax(axis=1) == labels), rel=1e-12)
    assert figures.val_auc == auc(data.val.labels, scores, "ordinal")


# --- what is refused before anything is trained ---


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("meta", r"Tensor\.item\(\) cannot be called on meta tensors"),
        ("gpu", r"Expected one of cpu, cuda, .* device type at start of device string: gpu"),
        ("cuda:99", r".+"),
    ],
)
def test_a_device_that_is_not_there(make_data: MakeData, device: str, reason: str) -> None:
    told = rf"^device='{device}' cannot be used here: {reason} Use cpu, or cuda where there is one\.$"
    with pytest.raises(ConfigError, match=told):
        check_device(device)
    with pytest.raises(ConfigError, match=told):
        fit(build(make_data()), make_data(), replace(TINY, device=device), seed=0)
    check_device("cpu")


@pytest.mark.parametrize("outputs", [3, 5])
def test_a_model_with_other_outputs_than_classes(make_data: MakeData, outputs: int) -> None:
    data = make_data()
    model = create_model("vit_4q1h", img_size=data.size, num_classes=outputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = rf"^The model has {outputs} outputs and Made up has 4 classes; build it with num_classes=4\.$"
    with pytest.raises(ModelError, match=told):
        fit(model, data, TINY, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_anything_to_train(make_data: MakeData) -> None:
    data = make_data()
    model = build(data, "vit_4q1h")
    count = len(list(model.requires_grad_(False).parameters()))

    def objective(model: nn.Module, batch: Any) -> Tensor:
        pytest.fail("a step was taken")

    constant = nn.Sequential(Preprocess(3), nn.Flatten(), nn.AdaptiveAvgPool1d(4))
    for strange, what in (
        (model, f"one whose {count} parameters are all frozen"),
        (constant, "one without parameters"),
    ):
        told = (
            rf"^There is nothing to train: expected a model with parameters that require gradients, got {what}\. "
            r"Call requires_grad_\(True\) on the parameters to train\.$"
        )
        with pytest.raises(TrainingError, match=told):
            fit(strange, data, TINY, seed=0, objective=objective)


def test_a_state_of_another_model(make_data: MakeData) -> None:
    data = make_data()
    model = build(data, "vit_4q1h")
    optimizer = make_optimizer(model, TINY).state_dict()
    good: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer}
    other = build(data, "vit_4q1h", depth=2)
    bad: list[dict[str, Any]] = [
        {"model": other.state_dict()},
        {"model": {}},
        {"optimizer": {}},
        {"optimizer": optimizer | {"state": {0: {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}}},
        {"optimizer": optimizer | {"state": {99: {}}}},
        {"optimizer": optimizer | {"param_groups": optimizer["param_groups"][:1]}},
        {"objective": {"weight": torch.ones(1)}},
    ]
    told = (
        r"^The state to go on from is not that of this model, objective and optimizer; start again from the first "
        r"epoch, for a run by deleting its state\.pt\.$"
    )
    for part in bad:
        with pytest.raises(ModelError, match=told):
            fit(model, data, TINY, seed=0, state=TrainState(**good | part))
