"""Classical networks: published sizes, the interface of our ViT, every field of the configuration."""

import copy
import math
import pickle
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from qvit.errors import ConfigError, ModelError
from qvit.models.networks import NETWORKS, Network, NetworkConfig, _monai
from qvit.models.vit import check_images
from qvit.models.zoo import build_without_numbers

SIDE = 8
CONVOLUTIONAL = tuple(arch for arch in NETWORKS if arch != "monai_vit")


def config(arch: str, **options: Any) -> NetworkConfig:
    """A small one: a quarter of a ResNet, few pixels."""
    narrow = {"width": 0.25} if arch.startswith("resnet") and "pretrained" not in options else {}
    return NetworkConfig(arch, **({"img_size": SIDE, "num_classes": 3} | narrow | options))


@cache
def _network(config: NetworkConfig) -> Network:
    torch.manual_seed(1)
    net = Network(config).train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # statistics of one batch: with those of birth, EfficientNet's signal dies out
    net(pixels(8, config))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def network(arch: str, **options: Any) -> Network:
    """A network in evaluation mode, built once for all tests: not to be changed."""
    return _network(config(arch, **options))


@cache
def outline(config: NetworkConfig) -> Network:
    """A network that holds no numbers: not to be changed."""
    return build_without_numbers(config)


def pixels(count: int, config: NetworkConfig | None = None) -> Tensor:
    chans, side = (3, SIDE) if config is None else (config.in_chans, config.img_size)
    return torch.randint(0, 256, (count, chans, side, side), dtype=torch.uint8)


def entering(module: nn.Module, net: Network, images: Tensor) -> Tensor:
    """What a module inside a network is given."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    net(images)
    hook.remove()
    return seen[0]


# --- the interface of ViT ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", NETWORKS)
def test_any_number_of_images_of_bytes_or_floats(arch: str) -> None:
    """A batch is its singles, and no images have no logits."""
    net, images = network(arch), pixels(3)
    logits = net(images)
    assert logits.shape == (3, 3)
    assert logits.dtype == torch.float32
    assert torch.pdist(logits).min() > 1e-5
    torch.testing.assert_close(net.preprocess(images), net.preprocess(images / 255.0), atol=1e-5, rtol=1e-5)
    exact, values = copy.deepcopy(net).double(), images.double() / 255.0  # in float32, small variances enlarge errors
    torch.testing.assert_close(exact(values)[1:2], exact(values[1:2]), atol=1e-8, rtol=1e-6)
    assert net(images[:0]).shape == (0, 3)
    assert net.forward_features(images[:0]).shape == (0, net.num_features)
    assert net(images[:0]).dtype == torch.float32


WIDTHS = {"resnet18": 128, "resnet50": 512, "densenet121": 1024, "efficientnet_b0": 1280, "monai_vit": 192}


def test_every_network_has_its_row() -> None:
    assert WIDTHS.keys() == PUBLISHED_SIZES.keys() == set(NETWORKS)


@pytest.mark.parametrize("arch", WIDTHS)
def test_features_and_head(arch: str) -> None:
    net, images = network(arch), pixels(2)
    features = net.forward_features(images)
    assert features.shape == (2, WIDTHS[arch])
    assert net.num_features == WIDTHS[arch]
    head = net.get_classifier()
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(net.forward_head(features), features @ head.weight.T + head.bias)
    assert torch.equal(net.forward_head(features), net(images))
    assert torch.equal(net.forward_head(features, pre_logits=True), features)


def test_features_are_means_over_places() -> None:
    net = network("resnet18", img_size=16)
    maps: list[Tensor] = []
    hook = net.body.layer4.register_forward_hook(lambda module, args, out: maps.append(out))
    features = net.forward_features(pixels(3, net.config))
    hook.remove()
    assert maps[0].shape == (3, 128, 2, 2)
    torch.testing.assert_close(features, maps[0].mean(dim=(2, 3)))


def test_the_features_of_a_transformer_are_its_class_token() -> None:
    net, images = network("monai_vit"), pixels(2)
    tokens: list[Tensor] = []
    hook = net.body.vit.norm.register_forward_hook(lambda module, args, out: tokens.append(out))
    features = net.forward_features(images)
    hook.remove()
    assert tokens[0].shape == (2, 5, 192)
    assert torch.equal(features, tokens[0][:, 0])


def test_preprocess_comes_first() -> None:
    """Statistics set later are those in use: images and statistics shifted alike give the same logits."""
    net, images = copy.deepcopy(network("resnet18")).double(), torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64) / 2
    before = net(images)
    net.preprocess.set_statistics(torch.full((3,), 0.75), torch.full((3,), 0.5))
    assert (net(images) - before).abs().max() > 1e-4
    torch.testing.assert_close(net(images + 0.25), before, atol=1e-4, rtol=1e-4)


def test_classifier_can_be_replaced_and_removed() -> None:
    net = copy.deepcopy(network("resnet18")).double()
    images = pixels(2)
    assert net(images).dtype == torch.float64
    old, before = net.get_classifier(), net.config
    net.reset_classifier(7)
    assert net.get_classifier() is not old
    assert net.num_classes == 7
    assert net.config == replace(before, num_classes=7)
    assert net(images).shape == (2, 7)
    assert net(images).dtype == torch.float64
    Network(net.config).load_state_dict(net.state_dict())
    net.reset_classifier(0)
    assert (net.num_classes, net.config.num_classes) == (0, 7)
    assert torch.equal(net(images), net.forward_features(images))
    with pytest.raises(ModelError, match=r"num_classes must not be negative, got -1"):
        net.reset_classifier(-1)


# --- the networks themselves -------------------------------------------------------------------------------


# For images of 224 pixels and 1000 classes. The transformer is ours: with 192 features, 768 + 1 numbers for each to
# embed patches of 16 pixels, 196 positions, a class token, six blocks of 444,288, the last norm, and the head.
PUBLISHED_SIZES = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "efficientnet_b0": 5_288_548,
    "monai_vit": 3_044_584,
}


@pytest.mark.parametrize("arch", PUBLISHED_SIZES)
def test_published_sizes(arch: str) -> None:
    net = build_without_numbers(NetworkConfig(arch, img_size=224, num_classes=1000))
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED_SIZES[arch]
    assert {p.device.type for p in net.parameters()} == {"meta"}


def test_the_transformer_has_a_position_for_every_patch_that_it_sees() -> None:
    """Of images enlarged from 12 pixels to 28."""
    for options, patches in (({"img_size": 12}, 9), ({"img_size": 12, "resize": 28}, 49)):
        net = build_without_numbers(config("monai_vit", **options))
        assert net.body.vit.patch_embedding.position_embeddings.shape == (1, patches, 192)
        assert [block.attn.num_heads for block in net.body.vit.blocks] == [3] * 6


@pytest.mark.parametrize("arch", NETWORKS)
def test_every_parameter_gets_a_gradient(arch: str) -> None:
    net = copy.deepcopy(network(arch)).train()
    nn.functional.cross_entropy(net(pixels(6)), torch.arange(6) % 3).backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.long
@pytest.mark.parametrize(
    ("arch", "first", "imagenet", "small"),
    [
        ("resnet18", "layer1", 8, 32),
        ("resnet50", "layer1", 8, 32),
        ("densenet121", "features.denseblock1", 8, 32),
        ("efficientnet_b0", "_blocks", 16, 32),
    ],
)
def test_the_small_stem_keeps_the_resolution(arch: str, first: str, imagenet: int, small: int) -> None:
    for stem, side in (("imagenet", imagenet), ("small", small)):
        net = build_without_numbers(config(arch, img_size=32, stem=stem)).eval()
        seen = entering(net.body.get_submodule(first), net, torch.empty(1, 3, 32, 32, device="meta"))
        assert seen.shape[2:] == (side, side)


def first_convolution(net: Network) -> nn.Conv2d:
    return next(module for module in net.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_the_small_stem_is_a_convolution_of_3_by_3(arch: str) -> None:
    first = first_convolution(network(arch))
    assert (first.kernel_size, first.stride, first.in_channels, first.bias) == ((3, 3), (1, 1), 3, None)
    spread = first.weight.std().item()
    fan_out, fan_in = 9 * first.out_channels, 9 * 3
    assert spread == pytest.approx(math.sqrt(2 / (fan_in if arch == "densenet121" else fan_out)), rel=0.15)


@pytest.mark.parametrize(
    ("side", "resize", "pretrained", "small"),
    [
        (28, None, None, True),
        (63, None, None, True),
        (64, None, None, False),
        (28, 64, None, False),
        (224, 32, None, True),
        (28, None, "imagenet", False),
    ],
)
def test_auto_looks_at_the_pixels_that_the_network_sees(
    side: int, resize: int | None, pretrained: Any, small: bool
) -> None:
    options: dict[str, Any] = {"img_size": side, "resize": resize, "pretrained": pretrained}
    assert NetworkConfig("resnet18", **options).small_stem is small
    assert NetworkConfig("resnet18", **options, stem="imagenet").small_stem is False
    assert NetworkConfig("resnet18", img_size=side, resize=resize, stem="small").small_stem is True


@pytest.mark.long
@pytest.mark.parametrize(
    ("stem", "sides"), [("small", [30, 30, 15, 8, 4, 4, 2, 2]), ("imagenet", [15, 15, 8, 4, 2, 2, 1, 1])]
)
def test_efficientnet_pads_for_the_size_it_sees(stem: str, sides: list[int]) -> None:
    """As TensorFlow's "same": each stride halves and rounds up."""
    net = build_without_numbers(config("efficientnet_b0", img_size=30, stem=stem)).eval()
    seen: list[int] = []
    stages = [net.body._blocks, *net.body._blocks]
    hooks = [stages[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-1]))]
    hooks += [stage.register_forward_hook(lambda module, args, out: seen.append(out.shape[-1])) for stage in stages[1:]]
    net(torch.empty(1, 3, 30, 30, device="meta"))
    for hook in hooks:
        hook.remove()
    assert seen == sides


@pytest.mark.long
def test_efficientnet_is_monais() -> None:
    """Written out here, for MONAI's own constructor takes no size of image; where that is 224, both agree."""
    theirs = _monai().EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=3).eval()
    ours = Network(config("efficientnet_b0", img_size=224)).eval()
    weights = theirs.state_dict()
    ours.head.load_state_dict({name: weights.pop(f"_fc.{name}") for name in ("weight", "bias")})
    ours.body.load_state_dict(weights)
    images = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(ours(images), theirs((images - 0.5) / 0.5), atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_running_statistics_follow_within_an_epoch() -> None:
    """EfficientNet's own momentum of 0.01 takes hundreds of batches, more than small datasets have."""
    for arch in CONVOLUTIONAL:
        net = outline(config(arch, dropout=0.25))
        assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.long
def test_one_batch_can_be_learnt_by_heart() -> None:
    net = copy.deepcopy(network("resnet18")).train()
    images, labels = pixels(6), torch.arange(6) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(3), abs=0.6)
    assert losses[-1] < 0.2


# --- knobs, beside those of `test_knobs` ----------------------------------------------------------------------


def test_width_is_a_factor_on_channels() -> None:
    assert [network("resnet18", width=width).num_features for width in (0.25, 0.5)] == [128, 256]
    assert first_convolution(network("resnet18", width=0.5)).out_channels == 32


def test_dropout_comes_before_the_head_and_acts_in_training_only() -> None:
    net = Network(config("resnet18", dropout=1 - 1e-9)).train()
    features = torch.randn(4, net.num_features)
    assert torch.equal(net.forward_head(features), net.head.bias.expand(4, -1))
    assert torch.equal(net.forward_head(features, pre_logits=True), features)
    torch.testing.assert_close(net.eval().forward_head(features), net.head(features))


@pytest.mark.parametrize("arch", NETWORKS)
def test_there_is_no_other_dropout(arch: str) -> None:
    net = outline(config(arch, dropout=0.25))
    assert net.dropout.p == 0.25
    assert not any(module.p for module in net.body.modules() if isinstance(module, nn.Dropout))


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "monai_vit"])
def test_nothing_but_dropout_is_random(arch: str) -> None:
    net, images = copy.deepcopy(network(arch)).train(), pixels(3)
    assert torch.equal(net(images), net(images))


@pytest.mark.parametrize("arch", ["resnet18", "monai_vit"])
def test_bfloat16(arch: str) -> None:
    full = network(arch)
    half = Network(replace(full.config, precision="bfloat16")).eval()
    half.load_state_dict(full.state_dict())
    images = pixels(4)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    features = half.forward_features(images)
    assert features.dtype == half(images).dtype == torch.float32
    dtypes = set()
    for module in half.body.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    half(images)
    assert dtypes == {torch.bfloat16}
    expected = full.forward_features(images)
    assert torch.stack((features, expected)).flatten(1).corrcoef()[0, 1] > 0.99
    assert not torch.equal(features, expected)


def test_an_autocast_around_the_model_stays_in_force() -> None:
    net = network("resnet18")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert entering(net.body.bn1, net, pixels(2)).dtype == torch.bfloat16
        assert net(pixels(2)).dtype == torch.float32


def test_bfloat16_on_a_device_that_has_none() -> None:
    with torch.device("meta"):
        net = Network(config("resnet18", precision="bfloat16")).eval()
        assert net(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 3)


def test_enlarging_is_linear() -> None:
    net = network("resnet18", img_size=8, resize=16)
    ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    seen = entering(net.body, net, ramp)
    assert seen.shape == (1, 3, 16, 16)
    centres = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7) / 7  # pixels are areas, and the outermost repeat
    torch.testing.assert_close(seen[0, 0, 5], (centres - 0.5) / 0.5)


def test_shrinking_looks_at_every_pixel() -> None:
    net = network("resnet18", img_size=32, resize=8)
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::4] = 1.0  # plain bilinear sampling takes two pixels of four and misses them
    seen = entering(net.body, net, stripes) * 0.5 + 0.5
    assert seen.shape == (1, 3, 8, 8)
    torch.testing.assert_close(seen[..., 1:-1, 1:-1], torch.full((1, 3, 6, 6), 0.25), atol=0.05, rtol=0)


def test_gray_images_are_repeated_for_published_weights() -> None:
    net = Network(config("resnet18", in_chans=1, pretrained="imagenet")).eval()
    net.preprocess.set_statistics(torch.tensor([0.25]), torch.tensor([0.125]))
    images = torch.rand(2, 1, SIDE, SIDE)
    seen = entering(net.body, net, images)
    assert seen.shape == (2, 3, SIDE, SIDE)
    for channel in seen.unbind(1):
        torch.testing.assert_close(channel, (images[:, 0] - 0.25) / 0.125)


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_published_weights_take_three_channels(arch: str) -> None:
    for pretrained, channels in (("imagenet", 3), (None, 1)):
        net = build_without_numbers(config(arch, img_size=32, in_chans=1, pretrained=pretrained))
        assert first_convolution(net).in_channels == channels


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_convolutions_run_channels_last(arch: str) -> None:
    net = network(arch)
    seen = entering(net.body, net, pixels(2))
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert not seen.is_contiguous()
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


# --- like any other module ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", NETWORKS)
def test_one_seed_gives_one_network(arch: str) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return dict(Network(config(arch)).named_parameters())

    first, again, other = dict(network(arch).named_parameters()), build(1), build(6)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    body = [key for key in first if key.startswith("body.") and first[key].ndim > 1 and "cls_token" not in key]
    assert body
    assert not any(torch.equal(first[key], other[key]) for key in body)


@pytest.mark.parametrize("arch", ["resnet18", "monai_vit"])
def test_copies_and_saved_weights_are_the_same_network(arch: str) -> None:
    net, images = copy.deepcopy(network(arch)).train(), pixels(3)
    net(images)  # moves batch norm's statistics, which are part of what is saved
    net.eval()
    expected = net(images)
    saved = safetensors.torch.save({name: value.contiguous() for name, value in net.state_dict().items()})
    fresh = Network(net.config).eval()
    assert not torch.equal(fresh(images), expected)
    fresh.load_state_dict(safetensors.torch.load(saved))
    for twin in (fresh, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.config == net.config
        torch.testing.assert_close(twin(images), expected, atol=1e-6, rtol=1e-6)
    assert {"preprocess.mean", "preprocess.std"} <= net.state_dict().keys()
    if arch != "monai_vit":
        assert any(name.endswith("running_var") for name in net.state_dict())


def test_importing_monai_leaves_random_numbers_and_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> str:
        random.random()
        warnings.showwarning = print
        return name

    state, show = random.getstate(), warnings.showwarning
    monkeypatch.setattr("importlib.import_module", importing)
    assert _monai() == "monai.networks.nets"
    assert random.getstate() == state
    assert warnings.showwarning is show


@pytest.mark.processes
@pytest.mark.slow("a process imports torch and MONAI as a user's does, which takes seconds")
def test_neither_torchvision_nor_an_early_import_is_needed() -> None:
    """MONAI comes with the first network, takes no torchvision, and leaves Python's random numbers alone."""
    script = f"""
import random, sys, torch
sys.modules["torchvision"] = None
from qvit.models.networks import Network, NetworkConfig
assert not [name for name in sys.modules if name.split(".")[0] in ("monai", "timm")]
state = random.getstate()
for arch in {NETWORKS!r}:
    with torch.device("meta"):
        net = Network(NetworkConfig(arch, img_size=16))
        assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 2)
assert "monai" in sys.modules
assert random.getstate() == state
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_missing_monai_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ConfigError, match=r"MONAI cannot be imported .*: pip install monai, or choose a model of our"):
        Network(config("resnet18"))


# --- the smallest images -----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("stem", "least"), [("small", 8), ("imagenet", 29)])
def test_the_least_densenet_works(stem: str, least: int) -> None:
    """As many pixels as the configuration asks for are needed, and suffice."""
    net = build_without_numbers(config("densenet121", img_size=least, stem=stem)).eval()
    assert net(torch.empty(2, 3, least, least, device="meta")).shape == (2, 3)
    object.__setattr__(net.config, "img_size", least - 1)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        net(torch.empty(2, 3, least - 1, least - 1, device="meta"))


def test_the_least_resnet_works() -> None:
    net = network("resnet18", width=1 / 64, img_size=1)
    assert net(pixels(2, net.config)).shape == (2, 3)
    assert first_convolution(net).out_channels == 1


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, SIDE, SIDE),
        torch.zeros(2, 3, SIDE, 32),
        torch.zeros(2, 3, 32, SIDE),
        torch.zeros(3, SIDE, SIDE),
        torch.zeros(0, 3, 32, 32),
        torch.zeros(2, 3, SIDE, SIDE, dtype=torch.int64),
        torch.zeros(2, 3, SIDE, SIDE, dtype=torch.complex64),
    ],
    ids=lambda images: f"{tuple(images.shape)}-{images.dtype}",
)
def test_images_are_refused_as_by_our_vit(images: Tensor) -> None:
    with pytest.raises(ModelError) as expected:
        check_images(images, in_chans=3, img_size=SIDE)
    net = network("resnet18")
    for entry in (net.forward, net.forward_features):
        with pytest.raises(ModelError) as caught:
            entry(images)
        assert str(caught.value) == str(expected.value)
