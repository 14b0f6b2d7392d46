"""Networks of timm, by a stand-in of it: what it is asked for, and what it cannot build."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.errors import ConfigError, ModelError
from qvit.models.networks import Network, NetworkConfig


def pixels(count: int, config: NetworkConfig) -> Tensor:
    return torch.randint(0, 256, (count, config.in_chans, config.img_size, config.img_size), dtype=torch.uint8)


class Convolutional(nn.Module):
    """A network that takes any size; its features are wider than it says."""

    num_features = 4

    def __init__(self, in_chans: int, num_classes: int) -> None:
        super().__init__()
        assert num_classes == 0
        self.conv = nn.Conv2d(in_chans, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).mean(dim=(2, 3))


class Transformer(nn.Module):
    """A network made for one size."""

    def __init__(self, in_chans: int, num_classes: int, img_size: int = 224) -> None:
        super().__init__()
        assert num_classes == 0
        self.img_size = img_size
        self.embed = nn.Linear(in_chans * img_size**2, 5)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.img_size:
            raise AssertionError(f"Input height ({images.shape[-1]}) does not match {self.img_size}")
        return self.embed(images.flatten(1))


class Fixed(Transformer):
    """A network of 224 pixels that cannot be told otherwise."""

    def __init__(self, in_chans: int, num_classes: int) -> None:
        super().__init__(in_chans, num_classes)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that behaves as timm does where we touch it."""
    models: dict[str, Callable[..., nn.Module]] = {
        "convnet": Convolutional,
        "transformer": Transformer,
        "fixed": Fixed,
        "maps": lambda in_chans, num_classes, img_size: nn.Conv2d(in_chans, 4, 3),
    }

    def create_model(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        assert pretrained is False
        if name not in models:
            raise RuntimeError(f"Unknown model ({name})")
        return models[name](**options)

    fake = ModuleType("timm")
    fake.create_model = create_model  # type: ignore[attr-defined]
    fake.list_models = lambda: list(models)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@pytest.mark.parametrize(("name", "width"), [("convnet", 6), ("transformer", 5)])
def test_networks_of_timm(timm: ModuleType, name: str, width: int) -> None:
    net = Network(NetworkConfig(f"timm/{name}", img_size=12, in_chans=2, num_classes=3, dropout=0.5))
    assert net.num_features == width
    assert net.training
    assert net.body.training
    images = pixels(4, net.config)
    net.eval()
    assert net(images).shape == (4, 3)
    features = net.forward_features(images)
    assert features.shape == (4, width)
    torch.testing.assert_close(features, net.body((images / 255.0 - 0.5) / 0.5), atol=1e-5, rtol=1e-5)


def test_timm_is_told_the_size_after_resizing(timm: ModuleType) -> None:
    net = Network(NetworkConfig("timm/transformer", img_size=12, resize=20))
    assert net.body.img_size == 20
    assert net(pixels(2, net.config)).shape == (2, 2)
    net = Network(NetworkConfig("timm/fixed", img_size=12, resize=224, in_chans=1, pretrained="imagenet"))
    assert net(pixels(1, net.config)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnett", r"timm cannot build 'convnett' for 3 × 12 × 12 pixels: Unknown model .*Did you mean 'convnet'\?"),
        (
            "fixed",
            r"cannot build 'fixed' .*: Input height \(12\) does not match 224\. Choose another name, or set re",
        ),
        ("maps", r"timm's 'maps' does not give one vector per image; choose a network that classifies"),
    ],
)
def test_networks_that_timm_cannot_build(timm: ModuleType, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Network(NetworkConfig(f"timm/{name}", img_size=12))


def test_other_type_errors_of_timm_are_not_hidden(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, **options: Any) -> nn.Module:
        if "img_size" in options:
            raise TypeError("unhashable type")
        return Convolutional(3, 0)

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(ModelError, match=r"cannot build 'convnet' .*: unhashable type\."):
        Network(NetworkConfig("timm/convnet"))


def test_a_missing_timm_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"timm is not installed: pip install 'qvit\[timm\]', or choose one of resn"):
        Network(NetworkConfig("timm/resnet18"))


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, ImportError])
def test_a_broken_timm_is_said(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "timm":
                raise error("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"timm cannot be imported \(operator torchvision::nms .*pip install 'qvit\["):
        Network(NetworkConfig("timm/resnet18"))
