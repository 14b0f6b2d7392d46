"""The small convolutional network: its size by hand, its match, and what each field changes."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.models import DSConv, DSConvConfig, count_parameters, create_model, model_config
from qvit.models.zoo import build, build_without_numbers, read_config

Images = Callable[..., Tensor]

# A value of each field, and whether it changes the shapes of weights or, with the same weights, the outputs.
KNOBS: dict[str, tuple[Any, str]] = {
    "img_size": (56, "outputs"),
    "in_chans": (1, "shapes"),
    "num_classes": (5, "shapes"),
    "filters": (7, "shapes"),
    "pooled": (9, "shapes"),
    "stages": (3, "shapes"),
}


def test_what_is_there_unless_said() -> None:
    assert asdict(model_config("dsconv")) == {
        "arch": "dsconv", "img_size": 28, "in_chans": 3, "num_classes": 2, "filters": 12, "pooled": 24, "stages": 2,
    }  # fmt: skip
    assert KNOBS.keys() == {field.name for field in fields(DSConvConfig)} - {"arch"}
    assert read_config(asdict(DSConvConfig(filters=5))) == DSConvConfig(filters=5)


@pytest.mark.parametrize("field", KNOBS)
def test_every_field_bites(field: str, images: Images) -> None:
    value, what = KNOBS[field]
    base, changed = DSConvConfig(), model_config("dsconv", **{field: value})
    if what == "shapes":
        before, after = (
            {name: tensor.shape for name, tensor in build_without_numbers(config).state_dict().items()}
            for config in (base, changed)
        )
        assert before != after
    assert build(changed)(images(changed)).shape == (5, changed.num_classes)


def test_the_size_by_hand() -> None:
    """3 × 3 to 12 channels; 3 × 3 each and 12 × 12; 3 × 3 each and 12 × 24; norms of two numbers a channel; a head."""
    body = 9 * 1 * 12 + (9 * 12 + 12 * 12) + (9 * 12 + 12 * 24)
    norms = 2 * (12 + 12 + 12 + 12 + 24)
    assert count_parameters(model_config("dsconv", in_chans=1)) == body + norms + 2 * (24 + 1) == 950
    assert count_parameters(model_config("dsconv", num_classes=5)) == 950 + 2 * 9 * 12 + 3 * 25 == 1241


@pytest.mark.parametrize("options", [{}, {"in_chans": 1, "filters": 3, "stages": 3}, {"num_classes": 7, "stages": 1}])
def test_the_size_is_told_without_building(options: dict[str, Any]) -> None:
    config = DSConvConfig(**options)
    assert config.parameters == sum(weight.numel() for weight in DSConv(config).parameters())


@pytest.mark.parametrize("size", ["2q1h", "4q1h", "4q2h", "8q2h"])
@pytest.mark.parametrize("task", [{"in_chans": 1}, {"num_classes": 9}, {"num_classes": 14, "img_size": 64}])
def test_matched_to_a_qvit(size: str, task: dict[str, int]) -> None:
    target = count_parameters(model_config(f"qvit_{size}", **task))
    config = model_config(f"dsconv_{size}_matched", **task)
    assert isinstance(config, DSConvConfig)
    assert abs(count_parameters(config) - target) <= 0.03 * target
    assert config == model_config(f"dsconv_{size}", matched=True, **task)


def test_options_of_a_matched_one_describe_the_qvit() -> None:
    for options in ({"depth": 2}, {"n_layers": 3}):
        target = count_parameters(model_config("qvit_4q2h", **options))
        assert abs(count_parameters(model_config("dsconv_4q2h_matched", **options)) - target) <= 0.03 * target
    deep = model_config("dsconv_4q2h_matched", stages=3)
    assert isinstance(deep, DSConvConfig)
    assert deep.stages == 3, "but its own"


def test_features_and_head(images: Images) -> None:
    model = create_model("dsconv", img_size=20, num_classes=3).eval()
    pixels = images(model.config)
    features = model.forward_features(pixels)
    assert features.shape == (5, 24)
    assert torch.equal(model.forward_head(features), model(pixels))
    assert torch.equal(model.forward_head(features, pre_logits=True), features)


def test_large_images_are_averaged_first(images: Images) -> None:
    model = create_model("dsconv", in_chans=1, img_size=90).eval()  # by 3
    small = create_model("dsconv", in_chans=1, img_size=30).eval()
    small.load_state_dict(model.state_dict())
    pixels = torch.rand(4, 1, 30, 30)
    assert torch.allclose(model(pixels.repeat_interleave(3, 2).repeat_interleave(3, 3)), small(pixels), atol=1e-5)
