"""Strong classical networks of MONAI and timm behind the interface of our `ViT`, as teachers and baselines."""

import importlib
import random
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ConfigError, ModelError, nearest
from qvit.models.convolutions import unstride
from qvit.models.limits import WIDEST, check_size
from qvit.models.preprocess import Preprocess
from qvit.models.vit import Classifier, check_images, default_patch_size

NETWORKS = ("resnet18", "resnet50", "densenet121", "efficientnet_b0", "monai_vit")
TIMM = "timm/"
RESNETS = ("resnet18", "resnet50")
SMALL_BELOW = 64  # pixels: smaller images would leave the published stems as 7 × 7 numbers and less

Stem = Literal["auto", "small", "imagenet"]
Precision = Literal["float32", "bfloat16"]

# Tan & Le 2019, table 1, in MONAI's notation: repeats, kernel, stride, expansion, channels in and out, squeeze.
_EFFICIENTNET_B0 = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that determines a classical network of MONAI's or timm's.

    `arch` is one of `NETWORKS`, or "timm/NAME" for any of timm's. Images have `img_size` pixels per side; with
    `resize` they are enlarged or shrunk to that many inside the model. `stem` "small" is a 3 × 3 convolution of
    stride 1 without pooling, as in MedMNIST's ResNets for 28 pixels; "imagenet" is the published one; "auto" is
    small below 64 pixels (after `resize`) unless weights are `pretrained`. `width` multiplies the channels of a
    ResNet; `dropout` is the rate before the head. `precision` is that of convolutions and matrix products: weights
    and logits are float32 either way. `pretrained` records that the weights before training are the published ones;
    building a `Network` downloads nothing, `models.pretrained.load_imagenet` does.

    Raises `ModelError` for unknown names, for options that do not fit together, and for sizes beyond `models.limits`.
    """

    arch: str
    img_size: int = 28
    in_chans: int = 3
    num_classes: int = 2
    resize: int | None = None
    stem: Stem = "auto"
    width: float = 1.0
    dropout: float = 0.0
    precision: Precision = "float32"
    pretrained: Literal["imagenet"] | None = None

    def __post_init__(self) -> None:
        # No colons: timm uses them to name places on the internet, and folders.
        if self.arch not in NETWORKS and not re.fullmatch(rf"{TIMM}[A-Za-z0-9][A-Za-z0-9_.-]*", str(self.arch)):
            raise ModelError(
                f"There is no network '{self.arch}'.{nearest(self.arch, NETWORKS)} "
                f"Known: {', '.join(NETWORKS)}, and timm/NAME, such as timm/convnext_tiny."
            )
        for name in ("img_size", "in_chans", "num_classes", "resize"):
            value = getattr(self, name)
            if value is not None or name != "resize":
                check_size(name, value)
        for name, choices in (("stem", get_args(Stem)), ("precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise ModelError(f"{name} must be one of {', '.join(choices)}, got '{getattr(self, name)}'.")
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.stem != "auto" and (self.is_timm or self.arch == "monai_vit"):
            raise ModelError(f"'{self.arch}' has one stem only; leave stem='auto' (got '{self.stem}').")
        self._check_width()
        self._check_pretrained()
        self._check_side()

    @property
    def is_timm(self) -> bool:
        """Whether the network is one of timm's."""
        return self.arch.startswith(TIMM)

    @property
    def side(self) -> int:
        """The side of the images that the network itself sees, in pixels."""
        return self.img_size if self.resize is None else self.resize

    @property
    def small_stem(self) -> bool:
        """Whether the network begins at full resolution."""
        if self.stem == "auto":
            return self.side < SMALL_BELOW and self.pretrained is None
        return self.stem == "small"

    @property
    def body_chans(self) -> int:
        """The channels that the network itself sees: published weights take three, so a gray one is repeated."""
        return self.in_chans if self.pretrained is None else 3

    def _check_width(self) -> None:
        if self.arch not in RESNETS and self.width != 1.0:
            raise ModelError(f"width is for {' and '.join(RESNETS)} only; leave it at 1 for '{self.arch}'.")
        if not self.width >= 1 / 64:
            raise ModelError(f"width must be at least 1/64, so that one channel remains, got {self.width}.")
        if self.width > WIDEST:
            raise ModelError(f"width must be at most {WIDEST:g}, got {self.width}.")

    def _check_pretrained(self) -> None:
        if self.pretrained is None:
            return
        if self.pretrained != "imagenet":
            raise ModelError(f"pretrained must be 'imagenet' or nothing, got '{self.pretrained}'.")
        if self.arch == "monai_vit":
            raise ModelError(
                "There are no published weights of 'monai_vit'; take a ResNet, or timm/vit_tiny_patch16_224."
            )
        if self.stem == "small":
            raise ModelError("Published weights have the stem 'imagenet', not 'small'; leave stem='auto'.")
        if self.width != 1.0:
            raise ModelError(f"Published weights have width 1, not {self.width}; leave out width or pretrained.")
        if self.in_chans not in (1, 3):
            raise ModelError(f"Published weights take images of 1 or 3 channels, not {self.in_chans}.")

    def _check_side(self) -> None:
        if self.arch == "monai_vit":
            try:
                default_patch_size(self.side)
            except ModelError as error:
                raise ModelError(
                    f"No patches of 4 pixels or more cut {self.side} pixels into at most 14 × 14; set resize=28, say."
                ) from error
        if self.arch == "densenet121":
            # Three poolings that round down, after a stem that divides by four and rounds up.
            least = 8 if self.small_stem else 29
            if self.side < least:
                stem = "small" if self.small_stem else "imagenet"
                raise ModelError(
                    f"densenet121 with stem '{stem}' needs at least {least} pixels, got {self.side}; use resize."
                )


class Network(Classifier):
    """A classical network from images `(b, c, s, s)`, uint8 or floats in [0, 1], to logits `(b, num_classes)`.

    The method names are timm's, as in our `ViT`. `body` is MONAI's or timm's network without its classifier. Weights
    of convolutions lie in memory as channels_last, which is faster; safetensors requires them `.contiguous()`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.draws = True  # some bodies do, such as EfficientNets
        self.preprocess = Preprocess(config.in_chans)
        body, self.num_features = _build_timm(config) if config.is_timm else _BUILDERS[config.arch](config)
        unstride(body)
        self.body = body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.num_features, config.num_classes)

    def forward(self, images: Tensor) -> Float[Tensor, "b k"]:
        """Return the logits of images `(b, c, s, s)`; raises `ModelError` for another shape or dtype."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Float[Tensor, "b f"]:
        """Return the features of images, pooled over all positions."""
        config = self.config
        check_images(images, in_chans=config.in_chans, img_size=config.img_size)
        pixels = self.preprocess(images)
        if not len(images):  # MONAI's ResNet cannot flatten nothing
            return pixels.new_zeros(0, self.num_features)
        if config.side != config.img_size:
            size, shrink = (config.side, config.side), config.side < config.img_size
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=shrink)
        pixels = pixels.expand(-1, config.body_chans, -1, -1)
        with self._autocast(pixels.device.type):
            features = self.body(pixels.contiguous(memory_format=torch.channels_last))
        return _full(features)

    def forward_head(self, features: Float[Tensor, "b f"], *, pre_logits: bool = False) -> Float[Tensor, "b k"]:
        """Return the logits of features, or with `pre_logits` the features as they are."""
        return features if pre_logits else _full(self.head(self.dropout(features)))

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        # Never switched off here: with float32 an autocast of the caller's stays in force.
        if self.config.precision == "float32" or not torch.amp.is_autocast_available(device):
            return nullcontext()
        return torch.autocast(device, dtype=torch.bfloat16)


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def create_timm(config: NetworkConfig, *, pretrained: bool = False) -> nn.Module:
    """Return timm's network without a classifier; with `pretrained`, timm downloads its weights.

    Raises `ConfigError` where timm cannot be imported, and whatever timm raises.
    """
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError) as error:  # the latter two where its torchvision is broken
        missing = isinstance(error, ModuleNotFoundError) and error.name == "timm"
        raise ConfigError(
            f"timm {'is not installed' if missing else f'cannot be imported ({error})'}: pip install 'qvit[timm]', "
            f"or choose one of {', '.join(NETWORKS)}."
        ) from error
    name = config.arch.removeprefix(TIMM)
    options = {"pretrained": pretrained, "in_chans": config.body_chans, "num_classes": 0}
    try:
        return timm.create_model(name, img_size=config.side, **options)
    except TypeError as error:
        if "img_size" not in str(error):  # convolutional networks take any size and no such option
            raise
    return timm.create_model(name, **options)


def _build_timm(config: NetworkConfig) -> tuple[nn.Module, int]:
    name = config.arch.removeprefix(TIMM)
    try:
        body = create_timm(config)
        # Features are not always as wide as timm's `num_features` says; one image shows that, and whether it fits.
        like = next(body.parameters())
        with torch.no_grad():
            features = body.eval()(like.new_zeros(1, config.body_chans, config.side, config.side))
    except ConfigError:
        raise
    except Exception as error:  # timm raises all kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        known = importlib.import_module("timm").list_models()
        hint = "" if name in known else nearest(name, known)
        raise ModelError(
            f"timm cannot build '{name}' for {config.body_chans} × {config.side} × {config.side} pixels: {reason}."
            f"{hint} Choose another name, or set resize to the size it was made for."
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ModelError(f"timm's '{name}' does not give one vector per image; choose a network that classifies.")
    return body.train(), features.shape[1]


def _monai() -> Any:
    # Imported on use, as it takes seconds. Importing it draws from Python's generator and changes how warnings are
    # shown; both are undone.
    state, show = random.getstate(), warnings.showwarning
    try:
        return importlib.import_module("monai.networks.nets")
    except ImportError as error:
        raise ConfigError(
            f"MONAI cannot be imported ({error}): pip install monai, or choose a model of our own, such as vit_4q2h."
        ) from error
    finally:
        random.setstate(state)
        warnings.showwarning = show


def _build_resnet(config: NetworkConfig) -> tuple[nn.Module, int]:
    block, layers = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}[config.arch]
    body = _monai().ResNet(
        block,
        layers,
        [64, 128, 256, 512],
        spatial_dims=2,
        n_input_channels=config.body_chans,
        conv1_t_size=3 if config.small_stem else 7,
        conv1_t_stride=1 if config.small_stem else 2,
        no_max_pool=config.small_stem,
        widen_factor=config.width,
        feed_forward=False,
        bias_downsample=False,  # as published; MONAI's default adds biases that batch norm cancels
    )
    return body, body.in_planes


def _build_densenet(config: NetworkConfig) -> tuple[nn.Module, int]:
    body = _monai().DenseNet121(spatial_dims=2, in_channels=config.body_chans, out_channels=1)
    if config.small_stem:
        old = body.features.conv0
        body.features.conv0 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(body.features.conv0.weight)  # as MONAI does with all others
        body.features.pool0 = nn.Identity()
    width = body.class_layers.out.in_features
    body.class_layers.out = nn.Identity()
    return body, width


def _build_efficientnet(config: NetworkConfig) -> tuple[nn.Module, int]:
    # MONAI fixes each convolution's padding by the size it will see. `EfficientNetBN` assumes 224 pixels; its base
    # class takes the size. With the small stem all but the first see twice what the published stem leaves.
    seen = 2 * config.side if config.small_stem else config.side
    body = _monai().EfficientNet(
        list(_EFFICIENTNET_B0),
        in_channels=config.body_chans,
        image_size=seen,
        # The published momentum of 0.01 takes hundreds of batches to find the statistics; torchvision has 0.1 as well.
        norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
    )
    if config.small_stem:
        body._conv_stem.stride = (1, 1)
        body._conv_stem_padding = nn.ConstantPad2d(1, 0.0)
    width = body._fc.in_features
    body._dropout, body._fc = nn.Identity(), nn.Identity()
    return body, width


class ClassToken(nn.Module):
    """MONAI's ViT without its list of hidden states: images to the class token of the last block `(b, f)`."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b f"]:
        """Return the class token after the last norm."""
        return self.vit(images)[0]


def _build_vit(config: NetworkConfig) -> tuple[nn.Module, int]:
    width = 192
    vit = _monai().ViT(
        in_channels=config.body_chans,
        img_size=config.side,
        patch_size=default_patch_size(config.side),
        hidden_size=width,
        mlp_dim=4 * width,
        num_layers=6,
        num_heads=3,
        spatial_dims=2,
        classification=True,
        num_classes=1,
        post_activation=None,  # else a tanh follows the head
    )
    vit.classification_head = nn.Identity()
    for block in vit.blocks:
        block.norm_cross_attn = nn.Identity()  # never called: parameters without a gradient
    return ClassToken(vit), width


_BUILDERS: dict[str, Callable[[NetworkConfig], tuple[nn.Module, int]]] = {
    "resnet18": _build_resnet,
    "resnet50": _build_resnet,
    "densenet121": _build_densenet,
    "efficientnet_b0": _build_efficientnet,
    "monai_vit": _build_vit,
}
