"""A run that is asked through a page, and the page on a port of its own."""

import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from answers.conftest import images, trained
from qvit.answers.predictor import load
from qvit.serve.app import application
from qvit.serve.desk import Desk, Limits
from qvit.serve.server import address_of, listen, server

__all__ = ["trained"]


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class Page(NamedTuple):
    """A page that answers: its address, and a way to ask for a path."""

    address: str
    port: int

    def ask(self, path: str, content: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("GET" if content is None else "POST", path, content, named)
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()


def as_file(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def picture(number: int = 0, *, channels: int = 3, side: int = 12) -> np.ndarray:
    return images(np.arange(3), channels, seed=9, side=side)[number].squeeze()


@pytest.fixture
def desk(trained: Callable[..., Any]) -> Desk:
    return Desk(load(trained()), Limits(megabytes=0.05, megapixels=0.01))


@contextmanager
def served(desk: Desk) -> Iterator[Page]:
    """The page on a free port, by a thread."""
    with listen("127.0.0.1", 0) as listening:
        made = server(application(desk))
        thread = threading.Thread(target=made.run, args=([listening],))
        thread.start()
        try:
            yield Page(address_of(listening), listening.getsockname()[1])
        finally:
            made.should_exit = True
            thread.join()


@pytest.fixture
def page(desk: Desk) -> Iterator[Page]:
    with served(desk) as found:
        yield found
