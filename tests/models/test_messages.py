"""Everything that `qvit.models` raises, its message whole; the table is checked against the code."""

import hashlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

import qvit.models
from qvit.errors import ConfigError, DataError, ModelError, QvitError
from qvit.models import BaselineConfig, DSConvConfig, Network, NetworkConfig, ViT, ViTConfig, create_model, model_config
from qvit.models.baselines import check_arrays
from qvit.models.cost import count_flops
from qvit.models.hardware_cost import shots_for
from qvit.models.pretrained import PUBLISHED, load_imagenet
from qvit.models.projections import make_projection
from qvit.models.rules import Nearest
from qvit.models.stack import stacked
from qvit.models.zoo import build_without_numbers, read_config
from suite.messages import missing, raised

Call = Callable[[Path, pytest.MonkeyPatch], object]
KNOWN = "resnet18, resnet50, densenet121, efficientnet_b0, monai_vit"
OTHERS = "dsconv, logistic, extra_trees, nearest, commonest"
RESNET = f"PLACE/{PUBLISHED['resnet18'].file}"
BY_HAND = (
    f"get it by hand from https://download.pytorch.org/models/{PUBLISHED['resnet18'].file} and save it as {RESNET}, "
    "or train from scratch, without pretrained weights."
)


def load(folder: Path, arch: str = "resnet18", **options: Any) -> None:
    """Load published weights into a network that holds no numbers."""
    load_imagenet(
        build_without_numbers(NetworkConfig(arch, img_size=32, pretrained="imagenet")), folder=folder, **options
    )


def load_file(content: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Load what was published with this content, as `resnet18-weights.pth`, whose digest is right."""
    path = folder / "resnet18-weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    patch.setitem(PUBLISHED, "resnet18", replace(PUBLISHED["resnet18"], file=path.name))
    patch.setattr("qvit.models.pretrained._digest", lambda path: "weights")
    load(folder)


def load_what_is_not_published(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("qvit.models.pretrained._download", lambda url, path: path.write_bytes(b"other"))
    load(folder)


def load_into_a_file(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("qvit.models.pretrained.why_not_writable", lambda folder: "read-only")
    load(place)


def load_a_folder(place: Path, patch: pytest.MonkeyPatch) -> None:
    (place / PUBLISHED["resnet18"].file).mkdir()
    load(place)


def with_timm(make: Callable[..., nn.Module], then: Call) -> Call:
    """Return a call with a stand-in of timm that knows one network, "net"."""

    def call(place: Path, patch: pytest.MonkeyPatch) -> object:
        fake: Any = ModuleType("timm")
        fake.create_model = lambda name, **options: make(**options)
        fake.list_models = lambda: ["net"]
        patch.setitem(sys.modules, "timm", fake)
        return then(place, patch)

    return call


def without(module: str, then: Call, error: Exception) -> Call:
    """Return a call without a module that can be imported."""

    def call(place: Path, patch: pytest.MonkeyPatch) -> object:
        def importing(name: str) -> Any:
            assert name == module
            raise error

        patch.setattr("importlib.import_module", importing)
        return then(place, patch)

    return call


class Vectors(nn.Module):
    """A network that classifies, as long as nobody asks for its published weights."""

    def __init__(self, *, pretrained: bool, **_: Any) -> None:
        super().__init__()
        if pretrained:
            raise OSError("no\nconnection")
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.weight


def failing(error: Exception) -> Callable[..., nn.Module]:
    def make(**_: object) -> nn.Module:
        raise error

    return make


class Refusing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("no\nlight")


def of(kind: Any, *arguments: Any, **options: Any) -> Call:
    """Return a call that needs neither a folder nor anything replaced."""
    return lambda place, patch: kind(*arguments, **options)


def tiny(**options: Any) -> ViT:
    return create_model("vit_2q1h", img_size=8, **options)


TIMM_NET = NetworkConfig("timm/net", img_size=8, pretrained="imagenet")
LIMITS = "Models have limits, see `qvit.models.limits`."
ONLY_RESNETS = "width is for resnet18 and resnet50 only; leave it at 1 for"
ROWS: list[tuple[Call, type[QvitError], str]] = [
    # --- sizes ---
    (of(ViTConfig, depth=2.5), ModelError, "depth must be a whole number, got 2.5."),
    (of(ViTConfig, depth=True), ModelError, "depth must be a whole number, got True."),
    (of(ViTConfig, patch_size="4"), ModelError, "patch_size must be a whole number, got '4'."),
    (of(ViTConfig, depth="d" * 99), ModelError, f"depth must be a whole number, got '{'d' * 79}."),
    (of(ViTConfig, heads=0), ModelError, "heads must be at least 1, got 0."),
    (of(ViTConfig, dim=-8), ModelError, "dim must be at least 1, got -8."),
    (of(ViTConfig, mlp_dim=65_537), ModelError, f"mlp_dim must be at most 65,536, got 65,537. {LIMITS}"),
    (
        of(ViTConfig, img_size=257, patch_size=1),
        ModelError,
        f"The number of patches of an image must be at most 65,536, got 66,049. {LIMITS}",
    ),
    (
        of(ViTConfig, dim=16384, mlp_dim=65536, depth=100),
        ModelError,
        f"The number of weights must be at most 2,147,483,648, got 322,140,602,370. {LIMITS}",
    ),
    (
        of(create_model, "qvit_257q1h"),
        ModelError,
        f"The width of a head with circuits, dim / heads, must be at most 256, got 257. {LIMITS}",
    ),
    (
        of(create_model, "givens_101q1h"),
        ModelError,
        f"The number of angles of 'pyramid' in a head of width 101 must be at most 5,000, got 5,050. {LIMITS}",
    ),
    (of(create_model, "unlu_4q1h", n_layers=257), ModelError, f"n_layers must be at most 256, got 257. {LIMITS}"),
    (
        of(create_model, "qvit_5q1h", n_layers=205),
        ModelError,
        f"The width of a head times n_layers must be at most 1,024, got 1,025. {LIMITS}",
    ),
    # --- vit ---
    (
        of(ViTConfig, img_size=29),
        ModelError,
        "No patch size suits images of 29 pixels (4 or more, dividing 29, at most 14 × 14 patches); pass patch_size, "
        "or resize the images.",
    ),
    (of(ViTConfig, dim=9), ModelError, "dim=9 cannot be split among heads=2; use a multiple."),
    (of(ViTConfig, dropout=1.0), ModelError, "dropout must be in [0, 1), got 1.0."),
    (of(ViTConfig, dropout=-0.1), ModelError, "dropout must be in [0, 1), got -0.1."),
    (of(ViTConfig, dropout=math.nan), ModelError, "dropout must be in [0, 1), got nan."),
    (
        of(ViTConfig, pool="min"),
        ModelError,
        "pool must be 'mean', 'max', 'meanmax', 'all', 'cls' or 'attention', got 'min'.",
    ),
    (
        of(ViTConfig, positions="rope"),
        ModelError,
        "positions must be 'learned', 'factored', 'row', 'mirror', 'd4' or 'sincos', got 'rope'.",
    ),
    (of(ViTConfig, features="hog"), ModelError, "features must be 'raw', 'dct' or 'contrast', got 'hog'."),
    (
        of(ViTConfig, features="dct", patch_size=2),
        ModelError,
        "features='dct' describe patches of at least 3 pixels, got patch_size=2; use larger patches, or "
        "features='raw'.",
    ),
    (of(ViTConfig, attention_scale=0.0), ModelError, "attention_scale must be positive, got 0.0."),
    (
        of(ViTConfig, patch_size=5),
        ModelError,
        "img_size=28 is not divisible by patch_size=5; patches that fit: 1, 2, 4, 7, 14, 28.",
    ),
    (lambda *_: tiny()(torch.zeros(2, 1, 8, 8)), ModelError, "Expected images (b, 3, 8, 8), got (2, 1, 8, 8)."),
    (lambda *_: tiny()(torch.zeros(3, 8, 8)), ModelError, "Expected images (b, 3, 8, 8), got (3, 8, 8)."),
    (
        lambda *_: tiny()(torch.zeros(2, 3, 8, 8, dtype=torch.int64)),
        ModelError,
        "Expected uint8 images or floats in [0, 1], got torch.int64.",
    ),
    (lambda *_: tiny().reset_classifier(-1), ModelError, "num_classes must not be negative, got -1."),
    # --- zoo and projections ---
    (
        of(model_config, "qvitt_4q2h"),
        ConfigError,
        "There is no model 'qvitt_4q2h'. Did you mean 'qvit_4q2h'? Names are {qvit|vit|cosine|identity|no_entangler|"
        f"frozen|givens|circulant|unlu}}_{{qubits}}q{{heads}}h, such as qvit_4q2h; {KNOWN}, {OTHERS}; and timm/NAME.",
    ),
    (
        of(model_config, "qvit_6q3h_matched"),
        ConfigError,
        "Other kinds are matched to the qvit, which cannot be matched itself; use vit_6q3h_matched, say.",
    ),
    (
        of(model_config, "qvit_4q2h", heads=2),
        ConfigError,
        "The name 'qvit_4q2h' already says the heads; choose another name, such as qvit_6q3h or cosine_4q2h, or build "
        "ViT(ViTConfig(…)).",
    ),
    (
        of(model_config, "resnet18", matched=True),
        ConfigError,
        "Only a ViT, such as vit_4q2h, can be matched to its qvit, not 'resnet18'.",
    ),
    (
        of(model_config, "resnet18", widht=0.5),
        ConfigError,
        "resnet18 has no option 'widht'. Did you mean 'width'? Known: img_size, in_chans, num_classes, resize, stem, "
        "width, dropout, precision, pretrained.",
    ),
    (
        of(model_config, "qvit_4q2h", dept=2),
        ConfigError,
        "Models have no option 'dept'. Did you mean 'depth'? Known: img_size, in_chans, num_classes, patch_size, "
        "depth, loops, mlp_dim, features, positions, pool, attention_scale, learned_scale, dropout, ansatz, "
        "bias, engine, n_layers, network, readout.",
    ),
    (
        of(model_config, "vit_1q4h_matched"),
        ModelError,
        "No ViT of width up to 4 with 4 head(s) and the linear projection comes within 3% of 498 parameters; choose "
        "another size.",
    ),
    (
        of(read_config, {"depht": 2}),
        ConfigError,
        "Models have no option 'depht'. It may be of another version of qvit.",
    ),
    (
        of(read_config, {"projection": {"kind": "linear", "layers": 2}}),
        ConfigError,
        "Models have no option 'projection.layers'. It may be of another version of qvit.",
    ),
    (
        of(make_projection, "linaer"),
        ConfigError,
        "There is no projection 'linaer'. Did you mean 'linear'? Known: quantum, linear, cosine, identity, "
        "no_entangler, frozen, givens, circulant, unlu.",
    ),
    (
        of(make_projection, "unlu", n_layer=2),
        ConfigError,
        "The unlu projection has no option 'n_layer' (it takes n_layers, engine). Did you mean 'n_layers'?",
    ),
    (
        of(make_projection, "cosine", bias=True),
        ConfigError,
        "The cosine projection has no option 'bias' (it takes readout).",
    ),
    (
        of(model_config, "identity_4q2h", bias=True),
        ConfigError,
        "The identity projection has no option 'bias' (it takes no options).",
    ),
    (
        of(create_model, "qvit_4q2h", ansatz="dense_ring"),
        ModelError,
        "The ansatz 'dense_ring' takes 8 feature(s) to 4 value(s) on 4 qubit(s), but attention needs 4 to 4 in heads "
        "of width 4; use another ansatz, such as 'ry_ring'.",
    ),
    # --- networks ---
    (
        of(NetworkConfig, "resnet_18"),
        ModelError,
        f"There is no network 'resnet_18'. Did you mean 'resnet18'? Known: {KNOWN}, and timm/NAME, such as "
        "timm/convnext_tiny.",
    ),
    *(
        (
            of(NetworkConfig, name),
            ModelError,
            f"There is no network '{name}'. Known: {KNOWN}, and timm/NAME, such as timm/convnext_tiny.",
        )
        for name in ("", "timm/", "timm", "timm/hf-hub:someone/something", "timm/_net")
    ),
    (of(NetworkConfig, "resnet18", resize=0), ModelError, "resize must be at least 1, got 0."),
    (of(NetworkConfig, "resnet18", img_size=None), ModelError, "img_size must be a whole number, got None."),
    (of(NetworkConfig, "resnet18", in_chans=0), ModelError, "in_chans must be at least 1, got 0."),
    (of(NetworkConfig, "resnet18", num_classes=-1), ModelError, "num_classes must be at least 1, got -1."),
    (of(NetworkConfig, "resnet18", stem="big"), ModelError, "stem must be one of auto, small, imagenet, got 'big'."),
    (
        of(NetworkConfig, "resnet18", precision="half"),
        ModelError,
        "precision must be one of float32, bfloat16, got 'half'.",
    ),
    (of(NetworkConfig, "resnet18", dropout=1.0), ModelError, "dropout must be in [0, 1), got 1.0."),
    (of(NetworkConfig, "resnet18", dropout=-0.1), ModelError, "dropout must be in [0, 1), got -0.1."),
    (of(NetworkConfig, "resnet18", dropout=math.nan), ModelError, "dropout must be in [0, 1), got nan."),
    *(
        (
            of(NetworkConfig, arch, stem="small"),
            ModelError,
            f"'{arch}' has one stem only; leave stem='auto' (got 'small').",
        )
        for arch in ("timm/resnet18", "monai_vit")
    ),
    *(
        (of(NetworkConfig, arch, width=2.0), ModelError, f"{ONLY_RESNETS} '{arch}'.")
        for arch in ("densenet121", "efficientnet_b0", "monai_vit", "timm/resnet18")
    ),
    *(
        (
            of(NetworkConfig, "resnet50", width=width),
            ModelError,
            f"width must be at least 1/64, so that one channel remains, got {width}.",
        )
        for width in (0.0156, math.nan)
    ),
    (of(NetworkConfig, "resnet18", width=8.5), ModelError, "width must be at most 8, got 8.5."),
    (
        of(NetworkConfig, "resnet18", pretrained="jft"),
        ModelError,
        "pretrained must be 'imagenet' or nothing, got 'jft'.",
    ),
    (
        of(NetworkConfig, "monai_vit", pretrained="imagenet"),
        ModelError,
        "There are no published weights of 'monai_vit'; take a ResNet, or timm/vit_tiny_patch16_224.",
    ),
    (
        of(NetworkConfig, "resnet18", pretrained="imagenet", stem="small"),
        ModelError,
        "Published weights have the stem 'imagenet', not 'small'; leave stem='auto'.",
    ),
    (
        of(NetworkConfig, "resnet18", pretrained="imagenet", width=0.5),
        ModelError,
        "Published weights have width 1, not 0.5; leave out width or pretrained.",
    ),
    (
        of(NetworkConfig, "resnet18", pretrained="imagenet", in_chans=2),
        ModelError,
        "Published weights take images of 1 or 3 channels, not 2.",
    ),
    (
        of(NetworkConfig, "monai_vit", resize=31),
        ModelError,
        "No patches of 4 pixels or more cut 31 pixels into at most 14 × 14; set resize=28, say.",
    ),
    (
        of(NetworkConfig, "densenet121", img_size=7),
        ModelError,
        "densenet121 with stem 'small' needs at least 8 pixels, got 7; use resize.",
    ),
    *(
        (
            of(NetworkConfig, "densenet121", **options),
            ModelError,
            "densenet121 with stem 'imagenet' needs at least 29 pixels, got 28; use resize.",
        )
        for options in ({"stem": "imagenet"}, {"pretrained": "imagenet"})
    ),
    (
        without("monai.networks.nets", of(Network, NetworkConfig("resnet18")), ImportError("broken")),
        ConfigError,
        "MONAI cannot be imported (broken): pip install monai, or choose a model of our own, such as vit_4q2h.",
    ),
    # --- timm ---
    (
        without("timm", of(Network, TIMM_NET), ModuleNotFoundError("no timm", name="timm")),
        ConfigError,
        f"timm is not installed: pip install 'qvit[timm]', or choose one of {KNOWN}.",
    ),
    *(
        (
            without("timm", of(Network, TIMM_NET), error),
            ConfigError,
            f"timm cannot be imported (broken): pip install 'qvit[timm]', or choose one of {KNOWN}.",
        )
        for error in (
            ModuleNotFoundError("broken", name="torchvision"),
            RuntimeError("broken"),
            AttributeError("broken"),
        )
    ),
    *(
        (
            with_timm(fails, of(Network, NetworkConfig(f"timm/{name}", img_size=8, in_chans=2))),
            ModelError,
            f"timm cannot build '{name}' for 2 × 8 × 8 pixels: {reason}.{hint} Choose another name, or set resize to "
            "the size it was made for.",
        )
        for name, fails, reason, hint in (
            ("net", failing(ValueError("too\nsmall")), "too small", ""),
            ("nett", failing(RuntimeError("Unknown model")), "Unknown model", " Did you mean 'net'?"),
            ("net", failing(KeyError()), "KeyError", ""),
        )
    ),
    (
        with_timm(lambda **_: nn.Conv2d(3, 4, 3), of(Network, TIMM_NET)),
        ModelError,
        "timm's 'net' does not give one vector per image; choose a network that classifies.",
    ),
    (
        with_timm(Vectors, lambda *_: load_imagenet(Network(TIMM_NET))),
        DataError,
        "timm could not get the weights of 'timm/net': no connection. Try again with a connection, choose a name with "
        "published weights, or train from scratch, without pretrained weights.",
    ),
    # --- published weights ---
    (
        lambda place, _: load_imagenet(build_without_numbers(NetworkConfig("resnet50")), folder=place),
        ModelError,
        "This resnet50 was not built for published weights; build it from "
        "NetworkConfig('resnet50', …, pretrained='imagenet').",
    ),
    (load_a_folder, DataError, f"{RESNET} cannot be read (a folder); delete it, or {BY_HAND}"),
    (
        lambda place, _: load(place, download=False),
        DataError,
        f"{RESNET} is not there, and nothing may be downloaded. Allow it, {BY_HAND}",
    ),
    (
        load_into_a_file,
        DataError,
        f"PLACE cannot be written (read-only): no place for {PUBLISHED['resnet18'].file}. Choose another, or {BY_HAND}",
    ),
    (
        load_what_is_not_published,
        DataError,
        f"{RESNET} is not there, and could not be downloaded: expected a SHA-256 that begins with f37072fd, got "
        f"{hashlib.sha256(b'other').hexdigest()[:8]}. Try again, {BY_HAND}",
    ),
    (
        lambda place, patch: load_file(b"", place, patch),
        DataError,
        "PLACE/resnet18-weights.pth cannot be read as weights (EOFError); delete it to have it downloaded again.",
    ),
    *(
        (
            lambda place, patch, content=content: load_file(content, place, patch),
            DataError,
            "PLACE/resnet18-weights.pth: expected a dictionary of tensors; delete the file to have it downloaded "
            "again.",
        )
        for content in ([torch.ones(2)], {"conv1.weight": 3.0})
    ),
    (
        lambda place, patch: load_file({}, place, patch),
        DataError,
        "PLACE/resnet18-weights.pth does not fit resnet18: conv1.weight is missing (and 99 more). Train from scratch, "
        "or report this.",
    ),
    # --- baselines and the small convolutional network ---
    (
        of(BaselineConfig, "extra_tree"),
        ModelError,
        "There is no baseline 'extra_tree'. Did you mean 'extra_trees'? Known: logistic, extra_trees, nearest, "
        "commonest.",
    ),
    *(
        (of(BaselineConfig, "logistic", penalty=value), ModelError, f"penalty must be positive or null, got {value}.")
        for value in (0.0, math.inf)
    ),
    (
        of(BaselineConfig, "nearest", trees=7),
        ModelError,
        "trees is for extra_trees only; leave it out for 'nearest' (got 7).",
    ),
    (
        lambda *_: check_arrays({}, BaselineConfig("nearest", in_chans=1)),
        ModelError,
        "Expected the arrays of nearest for 2 classes and 1 channels, found others. Fit it again.",
    ),
    (
        lambda *_: Nearest(5, 2).fitted({"count": torch.tensor(2)}),
        ModelError,
        "Expected the arrays of a fitted baseline, found more nearest images than there are. Fit it again.",
    ),
    (
        of(DSConvConfig, "dsconvs"),
        ModelError,
        "Expected arch='dsconv' of a depthwise separable network, got 'dsconvs'.",
    ),
    (
        lambda *_: DSConvConfig().matched(20, 0.03),
        ModelError,
        "No depthwise separable network of 2 stages comes within 3% of 20 parameters; choose another size.",
    ),
    (
        of(model_config, "dsconv_4q2h"),
        ConfigError,
        "There is no model 'dsconv_4q2h'. A dsconv has no qubits and heads: use dsconv, or dsconv_4q2h_matched, which "
        "has the parameter count of qvit_4q2h.",
    ),
    (
        of(model_config, "dsconv_4q2h_matched", filters=3),
        ConfigError,
        "The parameter count of 'dsconv_4q2h_matched' says the filters; leave it out, or use dsconv.",
    ),
    (
        of(model_config, "logistic", matched=True),
        ConfigError,
        "Only a ViT, such as vit_4q2h, can be matched to its qvit, not 'logistic'.",
    ),
    (
        of(model_config, "logistic", depth=2),
        ConfigError,
        "logistic has no option 'depth'. Known: img_size, in_chans, num_classes, penalty, trees, neighbours.",
    ),
    # --- stacks ---
    (of(stacked, []), ModelError, "Expected at least one model to stack, got none."),
    (
        lambda *_: stacked([tiny(dropout=0.1)]),
        ModelError,
        "These models cannot be stacked: dropout draws from one random stream, and models of a stack may not share "
        "one. Train them one by one.",
    ),
    (
        lambda *_: stacked([tiny(), tiny(depth=2)]),
        ModelError,
        "Expected models of one configuration to stack, got different ones; stack them separately.",
    ),
    (
        lambda *_: stacked([tiny(), tiny().requires_grad_(False)]),
        ModelError,
        "Expected models with the same layers, dtypes and frozen parameters; stack them separately.",
    ),
    (
        lambda *_: stacked([tiny(), tiny()])(torch.zeros(2, 3, 8, 8)),
        ModelError,
        "Expected images (2, b, 3, 8, 8), got (2, 3, 8, 8).",
    ),
    # --- costs ---
    (of(shots_for, 1.5), ConfigError, "The accuracy of expectation values must be in (0, 1], got 1.5."),
    (
        of(count_flops, nn.Flatten(), 0, 28),
        ModelError,
        "Expected images of at least 1 channel and 1 pixel, got 0 and 28.",
    ),
    (
        of(count_flops, Refusing(), 1, 4),
        ModelError,
        "Expected a Refusing that takes (1, 1, 4, 4) images on torch's meta device, got: no light. Check in_chans and "
        "img_size; a forward pass that looks at values cannot be counted.",
    ),
]


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """As users run the code: without the type checks of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(("call", "error", "message"), ROWS, ids=[message[:40] for *_, message in ROWS])
def test_message(
    call: Call, error: type[QvitError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error) as caught:
        call(tmp_path, monkeypatch)
    assert str(caught.value) == message.replace("PLACE", str(tmp_path))


def test_everything_that_is_raised_has_its_row() -> None:
    files = Path(qvit.models.__file__).parent.glob("*.py")
    assert missing(raised(*files), (message for *_, message in ROWS)) == []
