"""Published ImageNet weights: fetched once, checked, and put into a `Network` under MONAI's names."""

import hashlib
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qvit.data.fetch import DownloadBar, user_cache, why_not_writable
from qvit.errors import ConfigError, DataError, FileError, ModelError
from qvit.files import PART, open_regular
from qvit.models.networks import Network, create_timm

_CHUNK = 1 << 20
_TORCH = "https://download.pytorch.org/models"
_LUKEMELAS = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"


@dataclass(frozen=True)
class Published:
    """A file of weights; its name ends with the first hex digits of its SHA-256, as torch.hub's do."""

    file: str
    base_url: str
    classifier: str  # the module that is left out

    @property
    def digest(self) -> str:
        """The hex digits in the file's name."""
        return Path(self.file).stem.rpartition("-")[2]


PUBLISHED = {
    "resnet18": Published("resnet18-f37072fd.pth", _TORCH, "fc"),
    "resnet50": Published("resnet50-0676ba61.pth", _TORCH, "fc"),
    "densenet121": Published("densenet121-a639ec97.pth", _TORCH, "classifier"),
    "efficientnet_b0": Published("efficientnet-b0-355c32eb.pth", _LUKEMELAS, "_fc"),
}


def load_imagenet(
    network: Network, *, folder: Path | None = None, base_url: str | None = None, download: bool = True
) -> None:
    """Replace the weights of a network's body, including batch norm's statistics, by those trained on ImageNet.

    The head and the statistics of `preprocess` are left as they are. Files are kept in `folder` (default: `weights` in
    the user's cache folder); with `download`, missing or damaged ones are downloaded, from `base_url` instead of the
    published address if given. timm ignores all three and fetches its weights into its own cache. All weights are
    loaded or none.

    Raises `ModelError` for a network not configured as pretrained, `DataError` if the weights are not available.
    """
    network.body.load_state_dict(imagenet_weights(network, folder=folder, base_url=base_url, download=download))


def imagenet_weights(
    network: Network, *, folder: Path | None = None, base_url: str | None = None, download: bool = True
) -> dict[str, Tensor]:
    """Return the weights that `load_imagenet` loads; the network's own are not read, so it may be on the meta device.

    Arguments and errors as for `load_imagenet`.
    """
    config = network.config
    if config.pretrained != "imagenet":
        raise ModelError(
            f"This {config.arch} was not built for published weights; build it from "
            f"NetworkConfig('{config.arch}', …, pretrained='imagenet')."
        )
    if config.is_timm:
        return _timm_weights(network)
    published = PUBLISHED[config.arch]
    path = _fetch(published, folder or user_cache() / "weights", base_url or published.base_url, download=download)
    return _matched(_read(path), network, published, path)


def published_name(arch: str, name: str) -> str:
    """Return what a tensor of MONAI's body is called in the published file (DenseNet: in torchvision's own model)."""
    if arch == "densenet121":
        return name.replace(".layers.", ".")
    if arch == "efficientnet_b0":  # MONAI puts blocks, numbered throughout, into numbered stages
        return re.sub(r"^_blocks\.\d+\.", "_blocks.", name)
    return name


def _fetch(published: Published, folder: Path, base_url: str, *, download: bool) -> Path:
    """Return the path of a file whose digest is right, downloading it if need be."""
    path = folder / published.file
    url = f"{base_url.rstrip('/')}/{published.file}"
    by_hand = f"get it by hand from {url} and save it as {path}, or train from scratch, without pretrained weights."
    try:
        if path.exists() and _digest(path).startswith(published.digest):
            return path
    except (OSError, FileError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "found", None) or error
        raise DataError(f"{path} cannot be read ({reason}); delete it, or {by_hand}") from error
    state = "is damaged" if path.exists() else "is not there"
    if not download:
        raise DataError(f"{path} {state}, and nothing may be downloaded. Allow it, {by_hand}")
    reason = why_not_writable(folder)
    if reason is not None:
        raise DataError(
            f"{folder} cannot be written ({reason}): no place for {path.name}. Choose another, or {by_hand}"
        )
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        _download(url, temporary)
        found = _digest(temporary)[: len(published.digest)]
        if found != published.digest:
            raise ValueError(f"expected a SHA-256 that begins with {published.digest}, got {found}")
        temporary.replace(path)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{path} {state}, and could not be downloaded: {reason}. Try again, {by_hand}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path) -> None:
    import pooch

    responses: list[Any] = []
    downloader = pooch.HTTPDownloader(
        progressbar=DownloadBar(url.rpartition("/")[2]) if sys.stderr.isatty() else False,
        chunk_size=_CHUNK,
        hooks={"response": lambda response, *args, **kwargs: responses.append(response)},
    )
    try:
        downloader(url, str(path), None)
    finally:
        for response in responses:  # pooch leaves the connection of a failed download open
            response.close()


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises all kinds
        raise DataError(
            f"{path} cannot be read as weights ({type(error).__name__}); delete it to have it downloaded again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: expected a dictionary of tensors; delete the file to have it downloaded again.")
    return dict(found)


def _matched(found: dict[str, Tensor], network: Network, published: Published, path: Path) -> dict[str, Tensor]:
    """Return what a file holds under the names of the body; raises `DataError` unless all is there and fits."""
    # Files older than torchvision's present names say denselayer1.norm.1 for denselayer1.norm1.
    found = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): value for name, value in found.items()}
    wanted = network.body.state_dict()
    matched, problems = {}, []
    for ours, value in wanted.items():
        name = published_name(network.config.arch, ours)
        weights = found.pop(name, None)
        if weights is None and name.endswith(".num_batches_tracked"):
            weights = torch.zeros_like(value)  # newer than some files; nothing here depends on it
        if weights is None:
            problems.append(f"{name} is missing")
        elif weights.shape != value.shape:
            problems.append(f"{name} is {tuple(weights.shape)}, not {tuple(value.shape)}")
        else:
            matched[ours] = weights
    problems += [f"{name} is unknown" for name in found if name.rpartition(".")[0] != published.classifier]
    if problems:
        raise DataError(
            f"{path} does not fit {network.config.arch}: {problems[0]}"
            f"{f' (and {len(problems) - 1} more)' if problems[1:] else ''}. Train from scratch, or report this."
        )
    return matched


def _timm_weights(network: Network) -> dict[str, Tensor]:
    config = network.config
    try:
        # A second network, as timm loads weights when it builds; its random numbers must not change the caller's.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            weights = create_timm(config, pretrained=True).state_dict()
    except ConfigError:
        raise
    except Exception as error:  # timm and its hub raise all kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"timm could not get the weights of '{config.arch}': {reason}. Try again with a connection, choose a name "
            "with published weights, or train from scratch, without pretrained weights."
        ) from error
    return weights
