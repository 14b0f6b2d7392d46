import functools
import http.server
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qvit.data import fetch as fetching
from qvit.data.arrays import load_dataset
from qvit.data.fetch import DownloadBar, default_root, fetch, why_not_writable
from qvit.data.registry import DATASETS, get_info
from qvit.errors import DataError


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; while `cut` is set, breaks off after that many bytes."""

    cut: int | None = None

    def copyfile(self, source: io.BufferedIOBase, outputfile: io.BufferedIOBase) -> None:
        data = source.read()
        outputfile.write(data if Handler.cut is None else data[: Handler.cut])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save: Callable[..., Path],
    arrays: dict,
    official: Callable,
) -> Iterator[tuple[str, Path]]:
    """A server that offers what the registry takes for RetinaMNIST; gives its address and the file."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Handler, "cut", None)
    path = save(arrays, "served/retinamnist.npz")
    official(path)
    handler = functools.partial(Handler, directory=str(path.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", path
        server.shutdown()
        thread.join()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}


def test_a_missing_file_is_downloaded_and_loads(served: tuple[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    path = fetch("retinamnist", 28, root, base_url=served[0])
    assert path == root / "retinamnist.npz"
    assert contents(root) == {"retinamnist.npz": served[1].read_bytes()}
    assert len(load_dataset("retinamnist", root=root).train) == 23


def test_load_downloads_only_if_allowed(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvit.data.registry.BASE_URL", served[0])
    root = tmp_path / "root"
    with pytest.raises(DataError, match=r"found nothing there. Run 'qvit data get retinamnist', or save http"):
        load_dataset("retinamnist", root=root, download=False)
    assert not root.exists()
    assert load_dataset("retinamnist", root=root).path == root / "retinamnist.npz"


def test_an_existing_file_is_left_alone_even_if_damaged(served: tuple[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "retinamnist.npz"
    path.write_bytes(b"damaged")
    assert fetch("retinamnist", 28, tmp_path, base_url=served[0]) == path
    with pytest.raises(DataError, match=r"left untouched: move it away and run 'qvit data get retinamnist'"):
        load_dataset("retinamnist", root=tmp_path)
    assert path.read_bytes() == b"damaged"


def test_not_found_says_how_to_get_it_by_hand(served: tuple[str, Path], tmp_path: Path) -> None:
    root, md5 = tmp_path / "root", get_info("breastmnist").md5[64]
    with pytest.raises(DataError) as caught:
        fetch("breastmnist", 64, root, base_url=served[0])
    message = str(caught.value)
    assert "404" in message
    assert f"{served[0]}breastmnist_64.npz?download=1" in message
    assert f"(MD5 {md5})" in message
    assert f"save it as {root / 'breastmnist_64.npz'}" in message
    assert "\n" not in message
    assert contents(root) == {}


def test_a_wrong_file_is_not_kept(served: tuple[str, Path], tmp_path: Path) -> None:
    served[1].write_bytes(b"not what was promised")
    root = tmp_path / "root"
    with pytest.raises(DataError, match=r"Could not download retinamnist.npz: .*hash.*Try again, or get it by hand"):
        fetch("retinamnist", 28, root, base_url=served[0])
    assert contents(root) == {}


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    monkeypatch.setattr(Handler, "cut", 1000)
    with pytest.raises(DataError, match=r"Could not download retinamnist.npz: .*1000 bytes read"):
        fetch("retinamnist", 28, root, base_url=served[0])
    assert contents(root) == {}
    monkeypatch.setattr(Handler, "cut", None)
    assert fetch("retinamnist", 28, root, base_url=served[0]).read_bytes() == served[1].read_bytes()


def test_a_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DataError, match=r"Could not download retinamnist.npz: .*refused.*get it by hand"):
        fetch("retinamnist", 28, tmp_path, base_url="http://127.0.0.1:9/")
    assert contents(tmp_path) == {}


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written \(.+\). Choose another with --root or .* QVIT_DATA"):
        fetch("retinamnist", 28, blocked / "root", base_url="http://127.0.0.1:9/")
    assert why_not_writable(tmp_path / "fresh") is None
    assert list((tmp_path / "fresh").iterdir()) == []
    with pytest.raises(DataError, match=r"it cannot be written .*null byte"):
        fetch("breastmnist", 28, tmp_path / "a\0b")


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QVIT_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("QVIT_DATA")
    assert default_root().name == "qvit"
    assert default_root() == fetching.user_cache()


def test_progress_is_shown_on_a_terminal_only(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        fetch("retinamnist", 28, tmp_path / str(shown), base_url=served[0])
        assert ("100 % of 0.1 MB" in stream.getvalue()) == shown


def test_progress_says_how_much_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    progress = DownloadBar("a.npz")
    progress.update(1_250_000)  # of an unknown total
    progress.total = 5_000_000
    progress.update(1_250_000)
    progress.update(9_000_000)  # more than was announced
    progress.reset()
    progress.update(500_000)
    progress.close()
    told = ["1.2 MB, received", "2.5 MB,  50 % of 5.0 MB", "5.0 MB, 100 % of 5.0 MB", "0.5 MB,  10 % of 5.0 MB"]
    assert sys.stderr.getvalue() == "".join(f"\ra.npz: {line}" for line in told) + "\n"  # type: ignore[attr-defined]


@pytest.mark.skipif("QVIT_DATA" not in os.environ, reason="QVIT_DATA does not name a folder of official files")
@pytest.mark.parametrize("name", [name for name in DATASETS if (default_root() / f"{name}.npz").exists()])
def test_the_official_file_loads(name: str) -> None:
    data = load_dataset(name, download=False)
    assert data.train.images.flags.c_contiguous
    for split, count in data.info.splits.items():
        images, labels = data[split].batch([0, count - 1])
        assert images.shape == (2, data.info.channels, 28, 28)
        assert len(data[split]) == count
        assert labels.shape == (2, data[split].labels.shape[1])
