"""The page in a real browser, wide and narrow. Of Debian's Chromium; left out where that is not installed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from answers.conftest import NAMES
from qvit.answers.predictor import load
from qvit.serve.desk import Desk, Limits
from serve.browser import PATH, Tab, browser
from serve.conftest import Page, as_file, picture, served

pytestmark = [
    pytest.mark.skipif(PATH is None, reason="no chromium here"),
    pytest.mark.slow("a browser starts, which takes seconds"),
    pytest.mark.processes,
]
DONE = "document.querySelector('.answer') || document.querySelector('.state.wrong')"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(trained: Callable[..., Path]) -> Iterator[Page]:
    with served(Desk(load(trained()), Limits(megabytes=0.05))) as found:
        yield found


def shown(tab: Tab, selector: str) -> str:
    return tab.run(f"document.querySelector('{selector}').textContent.trim()")


@pytest.mark.parametrize("width", [1100, 412])
@pytest.mark.parametrize("how", ["choose", "drop"])
def test_an_image_is_given_and_answered(
    tab: Tab, page: Page, trained: Callable[..., Path], tmp_path: Path, width: int, how: str
) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(as_file(picture(1, side=30)))
    [expected] = load(trained()).predict(path)
    assert expected.probabilities is not None
    tab.open(page.address, width)
    assert shown(tab, "#state") == ""
    getattr(tab, how)(path)
    tab.wait(DONE)
    assert shown(tab, "h2") == expected.label
    rows = tab.run("[...document.querySelectorAll('tbody tr')].map(row => row.innerText.split(/\\s+/))")
    assert rows == [[name, f"{value:.3f}"] for name, value in expected.probabilities.items()]
    lengths = tab.run(
        "[...document.querySelectorAll('.bar i')].map(bar => bar.offsetWidth / bar.parentNode.offsetWidth)"
    )
    np.testing.assert_allclose(lengths, [*expected.probabilities.values()], atol=0.02)
    assert tab.run("document.documentElement.scrollWidth") == width, "nothing stands out to the side"
    boxes = tab.run("['.seen', '.said'].map(name => document.querySelector(name).getBoundingClientRect().top)")
    assert (boxes[0] == boxes[1]) == (width == 1100), "beside each other where there is room"
    tab.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as taken:
        assert taken.width == width


def test_maps_are_laid_over_the_image(tab: Tab, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(as_file(picture(0)))
    tab.open(page.address, 1100)
    tab.choose(path)
    tab.wait(DONE)
    seen = {}
    buttons = tab.run("[...document.querySelectorAll('.maps button')].map(button => button.textContent)")
    for place, name in enumerate(buttons):
        tab.run(f"document.querySelectorAll('.maps button')[{place}].click()")
        assert shown(tab, '.maps button[aria-pressed="true"]') == name
        seen[name] = tab.run("document.querySelector('canvas').toDataURL()")
    assert [*seen] == ["none", "rollout", "saliency", "occlusion"]
    assert len({*seen.values()}) == 4
    before = shown(tab, '.said button[aria-pressed="true"]')
    other = next(place for place, name in enumerate(NAMES) if name != before)
    tab.run(f"document.querySelectorAll('.said button')[{other}].click()")
    tab.wait(f"document.querySelectorAll('.said button')[{other}].getAttribute('aria-pressed') === 'true'")
    assert shown(tab, '.maps button[aria-pressed="true"]') == "occlusion", "the kind of map stays"
    assert tab.run("document.querySelector('canvas').toDataURL()") != seen["occlusion"]
    assert f"({NAMES[other]})" in shown(tab, ".legend")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"some text", "Expected a PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM file, found text."),
        (bytes(60_000), "Expected a file of at most 0.05 MB, got 0.1 MB."),
    ],
    ids=["no picture", "too large"],
)
def test_what_is_refused_is_told_and_no_answer_is_left(
    tab: Tab, page: Page, tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "new.png").write_bytes(as_file(picture(0)))
    (tmp_path / "wrong.png").write_bytes(content)
    tab.open(page.address, 412)
    tab.choose(tmp_path / "new.png")
    tab.wait(DONE)
    tab.choose(tmp_path / "wrong.png")
    tab.wait("document.querySelector('.state.wrong')")
    assert why in shown(tab, "#state")
    assert tab.run("document.querySelector('.answer')") is None
    tab.choose(tmp_path / "new.png")
    tab.wait("document.querySelector('.answer')")
    assert shown(tab, "#state") == ""


def test_a_server_that_is_gone_is_told(tab: Tab, trained: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "new.png").write_bytes(as_file(picture(0)))
    with served(Desk(load(trained()))) as page:
        tab.open(page.address, 412)
    tab.choose(tmp_path / "new.png")
    tab.wait(DONE)
    assert shown(tab, "#state") == "The server cannot be reached. Does it still run?"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coverage": 0.01}, "No answer: not sure enough"),
        ({"alarms": 0.9}, "unlike those that the model was trained on"),
    ],
)
def test_doubts_are_shown(
    tab: Tab, trained: Callable[..., Path], tmp_path: Path, options: dict[str, float], words: str
) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(as_file(255 - picture(2)))
    with served(Desk(load(trained(), **options))) as page:
        tab.open(page.address, 1100)
        tab.choose(path)
        tab.wait(DONE)
        assert words in shown(tab, ".said")


def test_several_labels(tab: Tab, trained: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.write_bytes(as_file(picture(1)))
    run = trained("multi-label")
    [expected] = load(run).predict(path)
    assert isinstance(expected.label, tuple)
    with served(Desk(load(run))) as page:
        tab.open(page.address, 1100)
        tab.choose(path)
        tab.wait(DONE)
        assert shown(tab, "h2") == (", ".join(expected.label) or "none of the labels")
