"""Chromium without a window, asked through a pair of pipes by its own protocol (Chrome DevTools)."""

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATH = shutil.which("chromium")
_PATIENCE = 120  # seconds, which only end what hangs
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")


class Tab:
    """One page in the browser. All methods raise AssertionError for what the browser says is wrong."""

    def __init__(self, ask: Callable[..., dict[str, Any]]) -> None:
        target = ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask = ask

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._ask(method, session=self._session, **parameters)

    def run(self, script: str) -> Any:
        """Return what an expression is, once it is known if it is a promise."""
        told = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def open(self, address: str, width: int, height: int = 900) -> None:
        """Show a page at a width in pixels, and wait until it is there."""
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        told = self.tell("Page.navigate", url=address)
        assert "errorText" not in told, told
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address)})")

    def wait(self, script: str) -> None:
        """Wait until an expression is true."""
        self.run(f"new Promise(done => {{ const look = () => ({script}) ? done() : setTimeout(look, 20); look(); }})")

    def choose(self, path: Path) -> None:
        """Choose a file as a user does."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.tell("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop(self, path: Path) -> None:
        """Drop a file onto the page."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.tell("Input.dispatchDragEvent", type=kind, x=200, y=250, data=data)

    def picture(self, path: Path) -> None:
        """Keep a picture of the whole page."""
        told = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start the browser with an empty profile in a folder, and yield a page."""
    assert PATH is not None
    asked, told = os.pipe(), os.pipe()
    words = [PATH, *_OPTIONS, f"--user-data-dir={folder}"]
    # It reads what it is asked from the third, and writes to the fourth of its files.
    shell = f'exec 3<&{asked[0]} 4>&{told[1]}; exec "$@"'
    started = subprocess.Popen(
        ["bash", "-c", shell, "browser", *words],
        pass_fds=(asked[0], told[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": os.environ["PATH"]},
    )
    os.close(asked[0])
    os.close(told[1])
    try:
        yield Tab(_asker(asked[1], told[0]))
    finally:
        started.terminate()
        started.wait()
        os.close(asked[1])
        os.close(told[0])


def _asker(to: int, from_: int) -> Callable[..., dict[str, Any]]:
    rest, count = bytearray(), 0

    def ask(method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        message = {"id": count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in rest:
                assert select.select([from_], [], [], _PATIENCE)[0], f"no answer to {method}"
                part = os.read(from_, 2**16)
                assert part, "the browser has ended"
                rest.extend(part)
            line, _, after = bytes(rest).partition(b"\0")
            rest[:] = after
            answer = json.loads(line)
            if answer.get("id") == count:
                assert "error" not in answer, answer
                return answer["result"]

    return ask
