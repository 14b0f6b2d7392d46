"""Plain baselines as models: their options, what they store, and files of arrays that are not theirs."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.errors import ConfigError, ModelError
from qvit.models import Baseline, BaselineConfig, count_parameters, create_model, model_config
from qvit.models.baselines import BASELINES, OWNERS, check_arrays
from qvit.models.cost import cost_of
from qvit.models.pooled_features import number_of_features
from qvit.models.zoo import build_without_numbers, read_config

Images = Callable[..., Tensor]


def test_what_is_there_unless_said() -> None:
    for name in BASELINES:
        assert asdict(model_config(name)) == {
            "arch": name, "img_size": 28, "in_chans": 3, "num_classes": 2, "penalty": None, "trees": 100,
            "neighbours": None,
        }  # fmt: skip
        assert read_config(asdict(model_config(name, img_size=12))) == BaselineConfig(name, img_size=12)
    assert {field.name for field in fields(BaselineConfig)} == {"arch", "img_size", "in_chans", "num_classes", *OWNERS}


@pytest.mark.parametrize("name", BASELINES)
def test_a_fresh_one_knows_nothing(name: str, images: Images) -> None:
    model = create_model(name, img_size=12, num_classes=4)
    assert isinstance(model, Baseline)
    pixels = images(model.config)
    logits = model(pixels)
    assert logits.shape == (5, 4)
    assert torch.equal(logits, logits[:1].expand(5, 4)), "the same of every image"
    features = model.forward_features(pixels)
    assert features.shape == (5, number_of_features(3)) == (5, model.num_features)
    assert torch.equal(model.forward_head(features), logits)
    assert torch.equal(model.forward_head(features, pre_logits=True), features)
    assert not [*model.parameters()]
    with pytest.raises(ModelError, match=r"^Expected images \(b, 3, 12, 12\)"):
        model(pixels[:, :1])


@pytest.mark.parametrize(("name", "count"), [("logistic", 4 * (279 + 1)), ("commonest", 4)])
def test_numbers_that_are_known_before_fitting(name: str, count: int) -> None:
    config = model_config(name, num_classes=4)
    assert isinstance(config, BaselineConfig)
    assert config.counted
    assert count_parameters(config) == count == cost_of(config).parameters
    assert cost_of(config).flops == cost_of(config).classical_flops == (2 * 4 * 279 if name == "logistic" else 0)
    assert cost_of(config).hardware is None


@pytest.mark.parametrize("name", ["extra_trees", "nearest"])
def test_numbers_that_depend_on_what_is_fitted(name: str) -> None:
    config = model_config(name)
    assert isinstance(config, BaselineConfig)
    assert not config.counted
    assert all(value.device.type == "meta" for value in build_without_numbers(config).state_dict().values())


def test_the_cost_of_nearest_images_grows_with_them() -> None:
    model = create_model("nearest", num_classes=2)
    assert isinstance(model, Baseline)
    model.head.fitted({"reference": torch.rand(9, 279), "labels": torch.zeros(9, 1)})
    assert cost_of(model).parameters == 9 * 279 + 9 + 2 * 279 + 1
    assert cost_of(model).flops == 2 * 9 * 279
    with pytest.raises(ConfigError, match="accuracy"):
        cost_of(model, accuracy=2.0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("logistic", lambda arrays: arrays.pop("head.bias")),
        ("logistic", lambda arrays: arrays.update(more=torch.zeros(1))),
        ("logistic", lambda arrays: arrays.update({"head.weight": torch.zeros(2, 278)})),
        ("nearest", lambda arrays: arrays.update({"head.reference": torch.zeros(4, 278)})),
        ("nearest", lambda arrays: arrays.update({"head.labels": torch.zeros(4, dtype=torch.int32)})),
        ("extra_trees", lambda arrays: arrays.update({"head.leaves": torch.zeros(1, 2, dtype=torch.float64)})),
        ("extra_trees", lambda arrays: arrays.update({"head.feature": torch.zeros((), dtype=torch.int32)})),
    ],
)
def test_arrays_of_something_else(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    config = BaselineConfig(name)
    arrays = dict(Baseline(config).state_dict())
    check_arrays(arrays, config)
    change(arrays)
    with pytest.raises(ModelError) as caught:
        check_arrays(arrays, config)
    assert str(caught.value) == (
        f"Expected the arrays of {name} for 2 classes and 3 channels, found others. Fit it again."
    )


@pytest.mark.parametrize("name", ["extra_trees", "nearest"])
def test_arrays_of_no_length(name: str) -> None:
    """Of which nothing can be asked."""
    config = BaselineConfig(name)
    arrays = {key: value[:0] if value.ndim else value for key, value in Baseline(config).state_dict().items()}
    arrays |= {key: value for key, value in Baseline(config).state_dict().items() if key.startswith("pre")}
    if name == "nearest":
        arrays |= {"head.center": torch.zeros(279), "head.spread": torch.ones(279)}
    with pytest.raises(ModelError, match="Expected the arrays of a fitted baseline"):
        check_arrays(arrays, config)
