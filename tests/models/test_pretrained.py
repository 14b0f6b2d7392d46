"""Published weights: fetched once, checked, all of them in their places or none."""

import functools
import hashlib
import http.server
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.errors import DataError
from qvit.models.networks import NETWORKS, Network, NetworkConfig
from qvit.models.preprocess import Preprocess
from qvit.models.pretrained import PUBLISHED, _matched, load_imagenet
from qvit.models.zoo import build_without_numbers

ARCHS = ("resnet18", "resnet50", "densenet121", "efficientnet_b0")
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and counts."""

    requests = 0

    def do_GET(self) -> None:
        assert " //" not in self.requestline  # which this server would forgive
        Handler.requests += 1
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server's address and the folder it serves."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Handler, "requests", 0)
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


Publish = Callable[..., Path]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """`publish(folder, arch, content)`: write what `content` is as the published file of an architecture."""

    def publish(folder: Path, arch: str, content: object, *, legacy: bool = False) -> Path:
        path = folder / "new"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = f"{arch.replace('_', '-')}-{digest[:8]}.pth"
        monkeypatch.setitem(PUBLISHED, arch, replace(PUBLISHED[arch], file=name))
        return path.rename(folder / name)

    return publish


def build(arch: str, seed: int, **options: Any) -> Network:
    """A network for published weights; of a ResNet with a sixteenth of the channels, which nobody looks at here."""
    torch.manual_seed(seed)
    config = NetworkConfig(arch, **({"img_size": 32, "num_classes": 3, "pretrained": "imagenet"} | options))
    narrow = {"width": 1 / 16, "pretrained": None, "stem": "imagenet"} if arch.startswith("resnet") else {}
    net = Network(replace(config, **narrow))
    net.config = config
    for name, value in net.body.state_dict().items():
        if "running" in name or name.endswith("bias"):
            value.uniform_(0.5, 1.5)  # all are alike at birth
        if "num_batches" in name:
            value.fill_(seed)
    return net


def as_published(net: Network) -> dict[str, Tensor]:
    """A body's weights under the names that their authors gave them, with a classifier."""
    names = {}
    if net.config.arch == "efficientnet_b0":
        blocks = [
            (stage, block) for stage, kept in net.body._blocks.named_children() for block, _ in kept.named_children()
        ]
        names = {f"_blocks.{stage}.{block}.": f"_blocks.{i}." for i, (stage, block) in enumerate(blocks)}
    weights = {}
    for name, value in net.body.state_dict().items():
        published = re.sub(r"\.layers\.(norm|conv)([12])\.", r".\1.\2.", name)
        for ours, theirs in names.items():
            if name.startswith(ours):
                published = theirs + name.removeprefix(ours)
        weights[published] = value.clone()
    classifier = {"densenet121": "classifier", "efficientnet_b0": "_fc"}.get(net.config.arch, "fc")
    return weights | {
        f"{classifier}.weight": torch.ones(1000, net.num_features),
        f"{classifier}.bias": torch.ones(1000),
    }


def published_names(arch: str) -> set[str]:
    config = NetworkConfig(arch, img_size=32, pretrained="imagenet")
    return set(as_published(build_without_numbers(config)))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name, value in first.items() if torch.equal(value, second[name])}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# --- what arrives ------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("arch", ARCHS)
def test_every_weight_arrives_and_nothing_else_changes(
    arch: str, server: tuple[str, Path], publish: Publish, tmp_path: Path
) -> None:
    source, net = build(arch, 1), build(arch, 2)
    net.preprocess.set_statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    published = publish(server[1], arch, as_published(source), legacy=arch == "densenet121")
    folder = tmp_path / "new" / "weights"
    assert load_imagenet(net, folder=folder, base_url=server[0]) is None
    assert same(net.body.state_dict(), source.body.state_dict()) == net.body.state_dict().keys()
    after = net.state_dict()
    kept = {name for name in after if not name.startswith("body.")}
    assert kept == {"head.weight", "head.bias", "preprocess.mean", "preprocess.std"}
    assert kept <= same(after, before)
    assert contents(folder) == {published.name: published.read_bytes()}
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.long
def test_the_published_names_of_some_weights() -> None:
    """As written in the files; the test above only needs its names to be as `as_published` has them."""
    assert set(ARCHS) == PUBLISHED.keys() == set(NETWORKS) - {"monai_vit"}
    assert "layer2.0.downsample.0.weight" in published_names("resnet18")
    assert "layer4.2.bn3.running_var" in published_names("resnet50")
    dense = published_names("densenet121")
    assert {"features.denseblock4.denselayer16.norm.1.weight", "features.transition3.conv.weight"} <= dense
    efficient = published_names("efficientnet_b0")
    assert {"_blocks.0._depthwise_conv.weight", "_blocks.15._project_conv.weight", "_conv_head.weight"} <= efficient
    assert "_blocks.16._project_conv.weight" not in efficient


def test_the_table_of_published_files() -> None:
    """Names as torch.hub and EfficientNet-PyTorch have them; the digest is that of the file."""
    urls = {arch: f"{published.base_url}/{published.file}" for arch, published in PUBLISHED.items()}
    github = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"
    assert urls == {
        "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "densenet121": "https://download.pytorch.org/models/densenet121-a639ec97.pth",
        "efficientnet_b0": f"{github}/efficientnet-b0-355c32eb.pth",
    }
    digests = [published.digest for published in PUBLISHED.values()]
    assert digests == ["f37072fd", "0676ba61", "a639ec97", "355c32eb"]


@pytest.mark.long
def test_present_names_of_densenet_will_do() -> None:
    """Those of torchvision's model, for the older ones of the file: each is the same tensor."""
    net = build_without_numbers(NetworkConfig("densenet121", img_size=32, pretrained="imagenet"))
    older = as_published(net)
    present = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): value for name, value in older.items()}
    assert "features.denseblock1.denselayer1.norm1.weight" in present
    first, second = (_matched(weights, net, PUBLISHED["densenet121"], Path("file")) for weights in (older, present))
    assert first.keys() == second.keys() == net.body.state_dict().keys()
    assert all(first[name] is second[name] for name in first)


def test_counts_of_batches_may_be_missing(publish: Publish, tmp_path: Path) -> None:
    source, net = build("resnet18", 1), build("resnet18", 2)
    weights = {name: value for name, value in as_published(source).items() if "num_batches" not in name}
    publish(tmp_path, "resnet18", weights)
    load_imagenet(net, folder=tmp_path, base_url=NOWHERE)
    loaded = net.body.state_dict()
    counts = {name for name in loaded if "num_batches" in name}
    assert len(counts) == 20
    assert {int(loaded[name]) for name in counts} == {0}
    assert same(loaded, source.body.state_dict()) == loaded.keys() - counts


def test_gray_images_see_the_published_first_convolution(publish: Publish, tmp_path: Path) -> None:
    source, net = build("resnet18", 1), build("resnet18", 2)
    publish(tmp_path, "resnet18", as_published(source))
    net.config = replace(net.config, in_chans=1)
    net.preprocess = Preprocess(1)
    load_imagenet(net, folder=tmp_path, base_url=NOWHERE)
    gray = torch.rand(2, 1, 32, 32)
    expected = source.eval().forward_features(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(net.eval().forward_features(gray), expected, atol=1e-4, rtol=1e-4)


# --- the file ----------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_not_asked_for_again(
    server: tuple[str, Path], publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, folder = build("resnet18", 2), tmp_path / "cache"
    publish(server[1], "resnet18", as_published(build("resnet18", 1)))
    load_imagenet(net, folder=folder, base_url=server[0] + "/")
    assert Handler.requests == 1
    # Nor is its folder written to.
    monkeypatch.setattr("qvit.models.pretrained.why_not_writable", lambda folder: "read-only")
    load_imagenet(net, folder=folder, base_url=server[0])
    load_imagenet(net, folder=folder, base_url=NOWHERE)
    assert Handler.requests == 1


def test_the_published_address_and_the_users_cache_are_the_defaults(
    server: tuple[str, Path], publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(server[1], "resnet18", as_published(build("resnet18", 1)))
    published = replace(PUBLISHED["resnet18"], base_url=server[0])
    monkeypatch.setitem(PUBLISHED, "resnet18", published)
    monkeypatch.setattr("qvit.models.pretrained.user_cache", lambda: tmp_path / "user")
    load_imagenet(build("resnet18", 2))
    assert contents(tmp_path / "user" / "weights") == {path.name: path.read_bytes()}


def test_a_damaged_file_is_replaced(server: tuple[str, Path], publish: Publish, tmp_path: Path) -> None:
    source, net = build("resnet18", 1), build("resnet18", 2)
    path = publish(server[1], "resnet18", as_published(source))
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / path.name).write_bytes(path.read_bytes()[:-1])
    load_imagenet(net, folder=folder, base_url=server[0])
    assert contents(folder) == {path.name: path.read_bytes()}
    assert same(net.body.state_dict(), source.body.state_dict()) == net.body.state_dict().keys()


def test_a_pipe_is_not_waited_for(publish: Publish, tmp_path: Path) -> None:
    path = publish(tmp_path, "resnet18", b"")
    path.unlink()
    os.mkfifo(path)
    refused(build("resnet18", 2), r"cannot be read \(a pipe or a device\); delete it", folder=tmp_path)


def refused(net: Network, message: str, error: type[BaseException] = DataError, **options: Any) -> None:
    """Loading raises and leaves the network as it was."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(error, match=message):
        load_imagenet(net, **options)
    assert same(net.state_dict(), before) == before.keys()


def test_a_damaged_file_stays_while_there_is_no_other(publish: Publish, tmp_path: Path) -> None:
    path = publish(tmp_path, "resnet18", b"whole")
    path.write_bytes(b"damaged")
    message = rf"{path} is damaged, and could not be downloaded: .* Try again, get it by hand from "
    refused(build("resnet18", 2), message, folder=tmp_path, base_url=NOWHERE)
    assert contents(tmp_path) == {path.name: b"damaged"}


def test_a_download_that_is_not_what_was_published_leaves_nothing(
    server: tuple[str, Path], publish: Publish, tmp_path: Path
) -> None:
    path = publish(server[1], "resnet18", b"published")
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()[:8]
    message = rf"could not be downloaded: expected a SHA-256 that begins with {path.stem[-8:]}, got {found}\."
    refused(build("resnet18", 2), message, folder=tmp_path / "cache", base_url=server[0])
    assert contents(tmp_path / "cache") == {}
    assert Handler.requests == 1


def test_a_file_that_the_server_does_not_have(server: tuple[str, Path], publish: Publish, tmp_path: Path) -> None:
    path = publish(server[1], "resnet18", b"published")
    path.unlink()
    folder = tmp_path / "cache"
    refused(build("resnet18", 2), r"could not be downloaded: 404 .*Try again", folder=folder, base_url=server[0])
    assert contents(folder) == {}


def test_without_a_server_it_says_what_to_do(publish: Publish, tmp_path: Path) -> None:
    name = publish(tmp_path, "resnet18", b"published").name
    folder = tmp_path / "cache"
    message = (
        rf"^{folder / name} is not there, and could not be downloaded: .*\. Try again, get it by hand from "
        rf"{NOWHERE}/{name} and save it as {folder / name}, or train from scratch, without pretrained weights\.$"
    )
    refused(build("resnet18", 2), message, folder=folder, base_url=NOWHERE)
    assert contents(folder) == {}


def test_an_address_that_is_none(publish: Publish, tmp_path: Path) -> None:
    refused(build("resnet18", 2), r"could not be downloaded: Invalid URL", folder=tmp_path, base_url="nowhere")


def test_a_folder_that_cannot_be_written(publish: Publish, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = (
        rf"{tmp_path / 'file'} cannot be written \(.*\): no place for resnet18-f37072fd\.pth\. Choose another, or get"
    )
    refused(build("resnet18", 2), message, folder=tmp_path / "file", base_url=NOWHERE)


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / PUBLISHED["resnet18"].file).mkdir()
    refused(build("resnet18", 2), r"f37072fd\.pth cannot be read \(.*\); delete it", folder=tmp_path, base_url=NOWHERE)


def test_an_interrupted_download_leaves_nothing(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, path: Path) -> None:
        path.write_bytes(b"a part")
        raise KeyboardInterrupt

    monkeypatch.setattr("qvit.models.pretrained._download", interrupted)
    refused(build("resnet18", 2), "^$", KeyboardInterrupt, folder=tmp_path, base_url=NOWHERE)
    assert contents(tmp_path) == {}


def test_nothing_but_tensors_is_unpickled(publish: Publish, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "evil"),)

    path = publish(tmp_path, "resnet18", {"fc.weight": Evil()})
    refused(build("resnet18", 2), r"cannot be read as weights \(UnpicklingError\); delete it", folder=tmp_path)
    assert contents(tmp_path).keys() == {path.name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read as weights \(EOFError\); delete it to have it downloaded again"),
        (b"no weights", r"cannot be read as weights \(UnpicklingError\)"),
        ([torch.ones(2)], r"expected a dictionary of tensors; delete the file"),
        ({"conv1.weight": 3.0}, r"expected a dictionary of tensors"),
        ({}, r"does not fit resnet18: conv1\.weight is missing \(and \d+ more\)\. Train from scratch, or report"),
    ],
    ids=["empty", "text", "list", "number", "nothing"],
)
def test_files_that_hold_no_weights(publish: Publish, tmp_path: Path, content: object, message: str) -> None:
    publish(tmp_path, "resnet18", content)
    refused(build("resnet18", 2), message, folder=tmp_path, base_url=NOWHERE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.bias": None}, r"does not fit resnet18: bn1\.bias is missing\. Train from scratch, or report this\."),
        ({"bn1.running_mean": None}, r"bn1\.running_mean is missing\. Train"),
        ({"layer1.0.bn1.weight": torch.ones(7)}, r"layer1\.0\.bn1\.weight is \(7,\), not \(4,\)\. Train"),
        ({"layer5.0.bn1.weight": torch.ones(7)}, r"layer5\.0\.bn1\.weight is unknown\. Train"),
        ({"classifier.weight": torch.ones(7)}, r"classifier\.weight is unknown\. Train"),
        ({"odd": torch.ones(7), "bn1.bias": None}, r"bn1\.bias is missing \(and 1 more\)\. Train"),
    ],
    ids=str,
)
def test_weights_of_another_network(
    publish: Publish, tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    weights = {k: v for k, v in (as_published(build("resnet18", 1)) | change).items() if v is not None}
    publish(tmp_path, "resnet18", weights)
    refused(build("resnet18", 2), message, folder=tmp_path, base_url=NOWHERE)


# --- timm, by a stand-in of it -----------------------------------------------------------------------------


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose one network has ones for weights when pretrained; offline, that fails."""

    class Body(nn.Module):
        def __init__(self, in_chans: int, num_classes: int, img_size: int, pretrained: bool) -> None:
            super().__init__()
            assert (in_chans, num_classes, img_size) == (3, 0, 20)
            self.conv = nn.Conv2d(in_chans, 5, 3)
            self.norm = nn.BatchNorm2d(5)
            if pretrained:
                if fake.offline:
                    raise OSError("We couldn't connect to\n'https://huggingface.co'")
                for value in self.state_dict().values():
                    value.fill_(1)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(self.conv(images)).mean(dim=(2, 3))

    fake: Any = ModuleType("timm")
    fake.offline = False
    fake.create_model = lambda name, **options: Body(**options)
    fake.list_models = lambda: ["net"]
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


def test_timm_gets_its_own(timm: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = Network(NetworkConfig("timm/net", img_size=12, resize=20, in_chans=1, pretrained="imagenet"))
    head, state = net.head.weight.clone(), torch.get_rng_state()
    assert not (net.body.conv.weight == 1).any()
    load_imagenet(net, folder=tmp_path)
    assert all((value == 1).all() for value in net.body.state_dict().values())
    assert torch.equal(net.head.weight, head)
    assert torch.equal(torch.get_rng_state(), state)
    assert contents(tmp_path) == {}


def test_timm_offline(timm: Any) -> None:
    net = Network(NetworkConfig("timm/net", img_size=20, pretrained="imagenet"))
    timm.offline = True
    refused(net, r"timm could not get the weights of 'timm/net': We couldn't connect to 'https://hug.*Try again with a")
