"""The page over HTTP: what it takes, what it refuses, and that it says so in words."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qvit.answers.predictor import load
from qvit.serve import app
from qvit.serve.desk import Desk
from serve.conftest import Page, as_file, picture, served

SOUND = as_file(picture())


def test_the_page_and_all_that_it_loads(page: Page) -> None:
    for path, kind, word in (
        ("/", "text/html", b"vit_4q1h"),
        ("/page.css", "text/css", b".drop"),
        ("/page.js", "text/javascript", b"fetch("),
        ("/about", "application/json", b'"bright"'),
    ):
        reply = page.ask(path)
        assert reply.status == 200
        assert reply.headers["content-type"].startswith(kind)
        assert word in reply.body
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["cache-control"] == "no-store"


def test_an_image_is_answered(page: Page, desk: Desk) -> None:
    reply = page.ask("/answer", SOUND)
    assert reply.status == 200
    [found], [expected] = reply.told["answers"], desk.answer(SOUND)["answers"]
    assert found["probabilities"] == expected["probabilities"]
    assert found["maps"] == expected["maps"]
    assert page.ask("/answer?class=red", SOUND).told["answers"][0]["explained"] == "red"


def parts(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


@pytest.mark.parametrize("whole", [True, False], ids=["with its length", "in parts"])
@pytest.mark.parametrize("length", [50_001, 400_000])
def test_a_file_that_is_too_large_is_refused(page: Page, length: int, whole: bool) -> None:
    content = SOUND + bytes(length - len(SOUND))
    reply = page.ask("/answer", content if whole else parts(content))
    assert (reply.status, reply.told) == (413, {"error": "Expected a file of at most 0.05 MB, got a larger one."})


def test_a_file_of_just_the_limit_is_taken(page: Page) -> None:
    assert page.ask("/answer", SOUND + bytes(50_000 - len(SOUND))).status == 200


def test_what_never_ends_is_not_read_for_ever(page: Page) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield bytes(100_000)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        page.ask("/answer", endless())
    assert sent < 20_000_000


def test_what_is_no_picture_is_refused_in_words(page: Page) -> None:
    reply = page.ask("/answer", b"some text")
    assert reply.status == 422
    assert reply.told["error"].startswith("Expected a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file, found text.")
    assert page.ask("/answer?class=blue", SOUND).status == 422


@pytest.mark.parametrize(("path", "content", "status"), [("/nothing", None, 404), ("/answer", None, 405)])
def test_there_is_nothing_else(page: Page, path: str, content: bytes | None, status: int) -> None:
    assert page.ask(path, content).status == status


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_pages_of_other_sites_cannot_ask(page: Page, site: str, status: int) -> None:
    reply = page.ask("/answer", SOUND, Sec_Fetch_Site=site)
    assert reply.status == status
    assert reply.told.get("error", "Another site's page cannot ask.") == "Another site's page cannot ask."


@pytest.mark.parametrize(("host", "status"), [("evil.example", 400), ("localhost", 200), ("127.0.0.1:80", 200)])
def test_a_name_that_was_made_to_lead_here_is_refused(page: Page, host: str, status: int) -> None:
    assert page.ask("/about", Host=host).status == status
    assert page.ask("/about", Host="[::1]:8000").status == 200


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("x", False)],
)
def test_on_an_address_for_others_any_name_will_do(desk: Desk, host: str, alone: bool) -> None:
    [middleware] = app.application(desk, host).user_middleware
    assert ("*" in middleware.kwargs["allowed_hosts"]) == (not alone)
    assert app.is_loopback(host) == alone


def test_who_sends_too_slowly_is_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PATIENCE", 0.05)
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as slow:
        slow.sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome")
        reply = b"".join(iter(lambda: slow.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"Expected the file within 0.05 seconds. Send it again." in reply


def test_who_goes_away_leaves_the_others_served(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port)) as gone:
        gone.sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome")
    assert page.ask("/answer", SOUND).status == 200


def test_questions_at_the_same_time_are_answered_one_by_one(trained: Callable[..., Path]) -> None:
    busy = threading.Lock()

    class Watched(Desk):
        def answer(self, content: bytes, target: str | None = None) -> dict[str, object]:
            assert busy.acquire(blocking=False), "two at once"
            time.sleep(0.02)
            busy.release()
            return super().answer(content, target)

    found: list[int] = []
    with served(Watched(load(trained()))) as page:
        asking = [threading.Thread(target=lambda: found.append(page.ask("/answer", SOUND).status)) for _ in range(6)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    assert found == [200] * 6


def test_who_comes_when_too_many_wait_is_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "WAITING", 0)
    reply = page.ask("/answer", SOUND)
    assert (reply.status, reply.told) == (503, {"error": "Too many questions at once. Ask again later."})


def test_silent_connections_keep_nobody_out(page: Page) -> None:
    silent = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(60)]
    assert page.ask("/answer", SOUND).status == 200
    for one in silent:
        one.close()


def test_names_of_classes_are_text_in_the_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told = desk.about() | {"model": "<script>alert(1)</script>", "classes": ["<b>", "&"]}
    monkeypatch.setattr(Desk, "about", lambda _: told)
    with served(desk) as page:
        body = page.ask("/").body.decode()
    assert "<script>alert" not in body
    assert "&lt;b&gt;; &amp;." in body
