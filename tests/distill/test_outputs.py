"""What is asked of a model in one pass: logits, and features and attention where they are wanted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.data.arrays import Dataset
from qvit.distill.outputs import outputs

MakeData = Callable[..., Dataset]
Build = Callable[..., Any]


def some_images(data: Dataset, count: int = 5) -> Tensor:
    return data.train.batch(torch.arange(count))[0]


@pytest.mark.parametrize("name", ["vit_4q1h", "qvit_4q1h", "resnet18"])
def test_outputs_are_those_of_a_plain_pass(make_data: MakeData, build: Build, name: str) -> None:
    data = make_data()
    model, images = build(data, name).eval(), some_images(data)
    plain = outputs(model, images)
    assert (plain.features, plain.attention) == (None, None)
    assert torch.equal(plain.logits, model(images))
    said = outputs(model, images, features=True)
    assert torch.equal(said.logits, plain.logits)
    assert torch.equal(said.features, model.forward_head(model.forward_features(images), pre_logits=True))
    assert said.attention is None
    if name != "resnet18":
        said = outputs(model, images, attention=True)
        assert torch.equal(said.logits, plain.logits)
        assert torch.equal(said.attention, model.forward_with_attention(images)[1])
        assert said.features is None


def test_a_students_dropout_before_the_head_is_kept_when_features_are_asked_for(
    make_data: MakeData, build: Build
) -> None:
    data = make_data()
    model = build(data, "resnet18", dropout=0.5).eval()
    model.dropout.train()
    images = some_images(data)
    torch.manual_seed(5)
    expected = model(images)
    torch.manual_seed(5)
    assert torch.equal(outputs(model, images, features=True).logits, expected)
    assert not torch.equal(outputs(model, images, features=True).logits, expected)
