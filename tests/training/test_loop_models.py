"""The loop with models of others: their convolutions, what they save, and batches too small for their statistics."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from qvit.data.arrays import Dataset, Split
from qvit.models import Preprocess
from qvit.training.config import TrainConfig
from qvit.training.loop import fit
from qvit.training.records import Best
from qvit.training.saved import copied
from qvit.training.state import TrainState

pytestmark = pytest.mark.trains
TINY = TrainConfig(epochs=2, batch_size=8, tta="never")
MakeData = Callable[..., Dataset]


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
    config = replace(TINY, epochs=4, lr=0.05, tta="never")
    torch.manual_seed(0)
    model = Remembering()
    twin = copy.deepcopy(model)

    def keep(state: TrainState) -> None:
        assert state.best is not None
        best = Best(state.best.record, copied(state.best.model))
        states.append(copied({name: value for name, value in vars(state).items() if name != "best"}) | {"best": best})

    done = fit(model, data, config, seed=0, on_epoch=keep)
    assert done.best is not None
    assert [state["model"]["_extra_state"]["batches"] for state in states] == [5, 10, 15, 20]
    assert model.seen["batches"] == 5 * done.best.record.epoch
    model.seen["batches"] = -1
    assert done.best.model["_extra_state"]["batches"] == 5 * done.best.record.epoch
    resumed = fit(twin, data, config, seed=0, state=TrainState(**states[1]))
    assert resumed.history == done.history
    assert torch.equal(twin.head.weight, model.head.weight)


def test_batch_normalisation_survives_a_last_batch_of_one(make_data: MakeData) -> None:
    data = make_data()
    nine = replace(data, train=Split(data.train.images[:9], data.train.labels[:9]))
    model = nn.Sequential(Preprocess(3), nn.Flatten(), nn.BatchNorm1d(432), nn.Linear(432, 4))
    state = fit(model, nine, TINY, seed=0)
    assert np.isfinite(state.history[-1].train_loss)
    assert model[2].num_batches_tracked == state.best.record.epoch
