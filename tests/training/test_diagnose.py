"""Numbers that are no longer finite: the error names step, rate and the place where it began."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.data.views import Views
from qvit.errors import TrainingError
from qvit.models import create_model
from qvit.training.batches import Batch, load_batch
from qvit.training.config import TrainConfig
from qvit.training.diagnose import check_finite, find_culprit
from qvit.training.objective import Objective, supervised
from qvit.training.seeding import generator
from qvit.training.step import make_optimizer, train_step

MakeData = Callable[..., Dataset]
ADVICE = r"\. Train again in another folder with a lower lr or a clip_norm, or look at the images of this batch\.$"


def take_steps(
    model: nn.Module,
    data: Dataset,
    *,
    objective: Objective | None = None,
    lr: float = 0.01,
    clip_norm: float | None = 1.0,
) -> None:
    """Three steps of a fourth epoch."""
    optimizer, plain = make_optimizer(model.train(), TrainConfig()), supervised(data, TrainConfig())
    for step in range(3):
        batch = load_batch(Views(data.train, "none"), torch.arange(8) + step, generator(0), "cpu")
        place = {"epoch": 4, "step": step + 1}
        train_step(model, batch, objective or plain, optimizer, lr=lr, clip_norm=clip_norm, **place)


def build(data: Dataset, **options: Any) -> Any:
    return create_model("vit_4q1h", img_size=data.size, num_classes=data.info.num_classes, **options)


class Poison(nn.Module):
    """Passes values on; after some calls in training, turns one of them into `value`, or its gradient."""

    def __init__(self, inner: nn.Module, after: int, value: float, *, backward: bool = False) -> None:
        super().__init__()
        self.inner, self.after, self.value, self.backward = inner, after, value, backward
        self.calls = 0

    def _spoil(self, tensor: Tensor) -> Tensor:
        spoiled = tensor.clone()
        spoiled[(0,) * spoiled.ndim] = self.value
        return spoiled

    def forward(self, tokens: Tensor) -> Tensor:
        out = self.inner(tokens)
        if not self.training:
            return out
        self.calls += 1
        if self.calls > self.after:
            if not self.backward:
                return self._spoil(out)
            if out.requires_grad:
                out.register_hook(self._spoil)
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_the_layer_step_and_rate(make_data: MakeData, value: float) -> None:
    data = make_data()
    model = build(data, depth=2)
    model.blocks[1].mlp = Poison(model.blocks[1].mlp, after=2, value=value)
    with pytest.raises(
        TrainingError,
        match=r"^The loss is no longer finite at epoch 4, step 3, learning rate 0\.01: layer 'blocks\.1\.mlp' is the "
        r"first whose output is not finite" + ADVICE,
    ):
        take_steps(model, data)


def test_names_the_first_layer_not_those_it_infects(make_data: MakeData) -> None:
    data = make_data()
    model = build(data, depth=3)
    model.blocks[1].norm_mlp = Poison(model.blocks[1].norm_mlp, after=0, value=float("nan"))
    assert "layer 'blocks.1.norm_mlp'" in find_culprit(model, torch.from_numpy(data.val.images))


def test_names_the_weights(make_data: MakeData) -> None:
    data = make_data()
    model = build(data)
    with torch.no_grad():
        model.blocks[0].attention.out.weight[0, 0] = float("nan")
    with pytest.raises(
        TrainingError,
        match=r"epoch 4, step 1.*: the weights 'blocks\.0\.attention\.out\.weight' hold NaN or infinity" + ADVICE,
    ):
        take_steps(model, data)


def test_names_the_images() -> None:
    model = create_model("vit_4q1h", img_size=12, num_classes=4)
    images = torch.rand(2, 3, 12, 12)
    images[1, 2, 3, 4] = float("nan")
    assert find_culprit(model, images) == "the images of the batch hold NaN or infinity"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_names_the_gradient(make_data: MakeData, value: float, clip_norm: float | None) -> None:
    """Spoiled on its way back, below the head and the last norm and above everything else."""
    data = make_data()
    model = build(data)
    model.blocks[0].mlp[2] = Poison(model.blocks[0].mlp[2], after=1, value=value, backward=True)
    with pytest.raises(
        TrainingError,
        match=r"^The gradient is no longer finite at epoch 4, step 2, .*: the gradient of "
        r"'blocks\.0\.mlp\.2\.inner\.\w+' is the first in the backward pass that is not finite" + ADVICE,
    ):
        take_steps(model, data, clip_norm=clip_norm)


def test_tells_a_norm_that_overflows_from_a_gradient_that_does(make_data: MakeData) -> None:
    data = make_data()
    plain = supervised(data, TrainConfig())

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        return plain(model, batch) * 1e25

    with pytest.raises(TrainingError, match="every gradient is finite, so their norm overflows" + ADVICE):
        take_steps(build(data), data, objective=objective)


def test_names_the_loss_itself(make_data: MakeData) -> None:
    data = make_data()
    plain = supervised(data, TrainConfig())

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        return plain(model, batch) * torch.tensor(float("inf"))

    with pytest.raises(TrainingError, match="every layer's output is finite, so the loss itself overflows" + ADVICE):
        take_steps(build(data), data, objective=objective)


def test_a_rate_beyond_reason_stops_with_a_reason(make_data: MakeData) -> None:
    with pytest.raises(TrainingError, match=r"no longer finite at epoch 4, step [23], learning rate 1e\+30: \w+"):
        take_steps(build(make_data()), make_data(), lr=1e30)


def test_leaves_the_model_as_it_was_before_the_bad_step(make_data: MakeData) -> None:
    """No step is taken with numbers that are not finite."""
    data = make_data()
    model = build(data)
    model.head = Poison(model.head, after=0, value=float("nan"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match="layer 'head' is the first whose output is not finite"):
        take_steps(model, data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_says_nothing_of_finite_numbers_and_leaves_no_hooks() -> None:
    model = create_model("vit_4q1h", img_size=12, num_classes=4)
    one = torch.ones(())
    check_finite(model, torch.zeros(1, 3, 12, 12), one, one, epoch=1, step=1, lr=0.1)
    find_culprit(model, torch.rand(1, 3, 12, 12))
    assert not any(module._forward_hooks for module in model.modules())
