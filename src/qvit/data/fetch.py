"""The folders of dataset files, and the download of missing ones: checked on arrival, never overwriting a file."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from qvit.data.registry import file_name, get_info
from qvit.errors import ConfigError, DataError
from qvit.files import expanded

_CHUNK = 1 << 20


def default_root() -> Path:
    """Return the folder of the official files: `$QVIT_DATA`, or the user's cache folder."""
    configured = os.environ.get("QVIT_DATA")
    return expanded(configured) if configured else user_cache()


def root_folder(root: str | Path | None) -> Path:
    """Return the folder of files that was asked for, or the default one."""
    return default_root() if root is None else expanded(root)


def user_cache() -> Path:
    """Return the user's cache folder for qvit; derived files go there if the root is read-only."""
    import pooch

    return Path(pooch.os_cache("qvit"))


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder (creating it if need be), or None if all is well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Only writing shows it: permission bits say nothing about read-only mounts, quotas or access lists.
        with tempfile.TemporaryFile(dir=folder):
            return None
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        return getattr(error, "strerror", None) or str(error)


def check_size(name: str, size: int) -> None:
    """Raise ConfigError where there is no official file of that dataset and side length in pixels."""
    info = get_info(name)
    if info.synthetic:
        raise ConfigError(f"Dataset '{name}' is made on the spot: there is no file to get or check.")
    if size not in info.sizes:
        sizes = ", ".join(map(str, info.sizes))
        raise ConfigError(f"Dataset '{name}' has no files of size {size}; expected one of {sizes}.")


def fetch(name: str, size: int = 28, root: str | Path | None = None, *, base_url: str | None = None) -> Path:
    """Return the path of an official file, downloading it first if it is not there.

    An existing file is returned as it is, damaged or not: the loader checks it, and nothing deletes it. A download is
    written beside its destination, compared with the published MD5 and then renamed, so a failed one leaves nothing
    behind and can simply be repeated. `base_url` replaces the Zenodo record.

    Raises ConfigError for an unknown name or size, DataError if the folder cannot be written or the download
    fails.
    """
    check_size(name, size)
    info = get_info(name)
    folder = root_folder(root)
    path = folder / file_name(name, size)
    if os.path.lexists(path):
        return path
    reason = why_not_writable(folder)
    if reason is not None:
        raise DataError(
            f"{folder}: expected a folder to download {path.name} to, but it cannot be written ({reason}). "
            f"Choose another with --root or the environment variable QVIT_DATA."
        )
    url = info.url(size, base_url=base_url)
    try:
        _download(url, path, info.md5[size])
    except (
        OSError,
        ValueError,
    ) as error:  # requests' errors are OSErrors; pooch's wrong hash is a ValueError
        reason = " ".join(str(error).split())
        raise DataError(
            f"Could not download {path.name}: {reason}. Try again, or get it by hand from {url} "
            f"(MD5 {info.md5[size]}) and save it as {path}."
        ) from error
    return path


def _download(url: str, path: Path, md5: str) -> None:
    import pooch

    responses: list[Any] = []
    downloader = pooch.HTTPDownloader(
        progressbar=_progress(path.name),
        chunk_size=_CHUNK,
        hooks={"response": lambda response, *args, **kwargs: responses.append(response)},
    )
    try:
        pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader)
    finally:
        for response in responses:  # pooch leaves the connection of a failed download open
            response.close()


def _progress(label: str) -> "DownloadBar | bool":
    return DownloadBar(label) if sys.stderr.isatty() else False


class DownloadBar:
    """A one-line progress display on stderr, with the methods that pooch calls."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.total = 0  # bytes, set by pooch
        self.done = 0

    def update(self, size: int) -> None:
        """Count `size` more bytes and redraw."""
        self.done += size
        shown = min(self.done, self.total) if self.total else self.done
        share = f"{100 * shown / self.total:3.0f} % of {self.total / 1e6:.1f} MB" if self.total else "received"
        sys.stderr.write(f"\r{self.label}: {shown / 1e6:.1f} MB, {share}")
        sys.stderr.flush()

    def reset(self) -> None:
        """Start counting again."""
        self.done = 0

    def close(self) -> None:
        """End the line."""
        sys.stderr.write("\n")
