"""Previews: two files that need nothing else, tell nothing of the machine, and are the same for the same dataset."""

import base64
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from qvit.data.findings import NOTHING
from qvit.errors import DataError, RunError
from qvit.report import preview as module
from qvit.report.preview import page, preview
from qvit.report.twins import twins, twins_told
from report.datasets import COUNTS, NAMES, made_findings, made_pair, make_dataset, surveyed

PAIRS = [made_pair(("train", 1), ("test", 2)), made_pair(("val", 0), ("test", 2), distance=0.125, exact=True)]
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps tags, images and the words of cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "a tag has no end"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(dataset: Any, pairs: Any = (), title: str = "Made") -> Page:
    findings = made_findings(dataset, pairs)
    return Page(page(surveyed(dataset, pairs), title, twins(dataset, findings), twins_told(findings)))


def decoded(image: dict[str, str | None]) -> Any:
    kind, _, content = (image["src"] or "").partition(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(content))))


DATASET = make_dataset("multi-label", names=NAMES[:2])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("a-folder") / "some" / "where"
    paths = preview(DATASET, folder, findings=made_findings(DATASET, PAIRS))
    assert paths == [folder / name for name in ("preview.png", "preview.html")]
    return paths


@pytest.mark.long
def test_two_files_the_same_each_time(written: list[Path], tmp_path: Path) -> None:
    assert sorted(path.name for path in written[0].parent.iterdir()) == ["preview.html", "preview.png"]
    (tmp_path / "preview.png").write_text("an earlier one")
    again = preview(DATASET, tmp_path, findings=made_findings(DATASET, PAIRS[::-1]))
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


@pytest.mark.long
def test_nothing_of_the_machine_is_told(written: list[Path]) -> None:
    assert DATASET.path is not None
    picture, text = (path.read_bytes() for path in written)
    words = text.decode()
    for svg in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", words):
        words += base64.b64decode(svg).decode()
    assert words.count("<svg") == 1
    for secret in (str(written[0].parent), str(DATASET.path.parent), str(datetime.now(UTC).year), str(Path.home())):
        assert secret not in words
    assert Pillow.open(io.BytesIO(picture)).info == {}


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of a page's time."""
    monkeypatch.setattr(module, "_histograms", lambda found: [])


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(("title", "told"), [(None, "Made"), ("Another\none", "Another one")])
def test_it_has_a_title(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, title: str | None, told: str) -> None:
    monkeypatch.setattr(module, "picture", lambda found, title, pairs, told: title.encode())
    picture, text = preview(DATASET, tmp_path, findings=made_findings(DATASET), title=title)
    assert picture.read_text() == told
    assert f"<title>{told}</title>" in text.read_text(encoding="utf-8")


@pytest.mark.long
def test_the_page_needs_nothing_else() -> None:
    found = read(make_dataset(channels=3), PAIRS)
    assert not {"script", "link", "iframe", "a"} & {tag for tag, _ in found.tags}
    assert not any(key.startswith("on") for _, attributes in found.tags for key in attributes)
    sources = [image["src"] or "" for image in found.all("img")]
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert sum(source.startswith("data:image/svg") for source in sources) == 3
    assert all(image["alt"] for image in found.all("img"))
    alts = [image["alt"] or "" for image in found.all("img")]
    red = next(alt for alt in alts if alt.startswith("Histogram"))
    assert re.fullmatch(r"Histogram of levels, red; train: mean \d+, .+; val: mean .+; test: mean .+ at 255\.", red)


@pytest.mark.usefixtures("no_charts")
def test_names_are_shown_and_not_run() -> None:
    dataset = make_dataset(names=NAMES, description="<script>alert(1)</script>")
    pair = made_pair(("train", 0), ("val", 0), turn="<u>turned</u>")
    found = read(dataset, [pair], title="<b>bold</b>")
    for name in NAMES:
        assert name.replace("\n", " ").replace("\x1b", r"\x1b") in found.words
    assert "<script>alert(1)</script>" in found.words
    assert "<u>turned</u>" in found.words
    assert not {"i", "u", "script"} & {tag for tag, _ in found.tags}
    assert len(found.all("b")) == 2, "those of the pair"


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("channels", [1, 3])
def test_its_images_are_those_of_the_dataset(channels: int) -> None:
    dataset = make_dataset("multi-label", channels=channels, size=28)
    found = read(dataset, PAIRS)
    images = {image["alt"] or "": image for image in found.all("img") if image.get("class") == "image"}
    shown = surveyed(dataset)
    places = [f"{split} {k}" for row in shown.rows for split, some in row.positions.items() for k in some]
    means = [f"mean of {title}" for title in ("0: a", "1: b", "2: c", "(no label)")]
    ends = [f"{split} {k}" for pair in PAIRS for split, k in (pair.first, pair.second)]
    assert set(images) == {*places, *means, *ends}
    for place in {*places, *ends}:
        split, position = place.split()
        image = dataset[split].images[int(position)].transpose(1, 2, 0)
        assert np.array_equal(decoded(images[place]), image.squeeze())
        assert images[place]["width"] == images[place]["height"] == ("112" if place in ends else "56")
        assert images[place]["title"] == place
    assert np.array_equal(decoded(images["mean of (no label)"]), np.squeeze(shown.rows[-1].mean))


@pytest.mark.usefixtures("no_charts")
def test_counts_are_told() -> None:
    dataset = make_dataset(names=[str(k) for k in range(23)], counts={"train": 100, "val": 40, "test": 23})
    dataset.val.labels[:] = 3
    found = read(dataset)
    shown = surveyed(dataset)
    start = len(found.cells) - 4 * 22
    assert found.cells[start : start + 4] == ["", *COUNTS]
    rows = [found.cells[k : k + 4] for k in range(start + 4, len(found.cells), 4)]
    assert [row[0] for row in rows] == [row.title for row in shown.counted]
    assert [[int(cell.split()[0]) for cell in row[1:]] for row in rows] == [
        [*row.counts.values()] for row in shown.counted
    ]
    assert rows[3][2] == "40 (100.0 %)"
    assert rows[0][2] == "0 (0 %)"
    widths = [float(re.findall(r"width: ([\d.]+)%", bar["style"] or "")[0]) for bar in found.all("span")]
    assert max(widths) == 45.0
    assert len(widths) == sum(count > 0 for row in shown.counted for count in row.counts.values())


@pytest.mark.usefixtures("no_charts")
def test_what_is_wrong_is_told_as_verify_tells_it() -> None:
    dataset = make_dataset(names=("a", "<b>"))
    dataset.val.labels[:] = 0
    dataset.test.images[4] = 9
    pairs = [made_pair(("train", 1), ("test", k)) for k in (2, 3, 4)]
    told = made_findings(dataset, pairs).told(dataset)
    assert len(told) >= 5
    found = read(dataset, pairs)
    assert all(line in found.words for line in told)
    groups = {name: np.array([f"{name}{k}" for k in range(len(split))]) for name, split in dataset.splits.items()}
    whole = replace(make_dataset(), groups=groups)
    assert NOTHING in read(whole).words


@pytest.mark.usefixtures("no_charts")
def test_pairs_are_told() -> None:
    dataset = make_dataset()
    assert "Near-duplicates" not in read(dataset).words
    found = read(dataset, PAIRS)
    assert "Near-duplicates" in found.words
    differing = sum(not pair.agree for pair in twins(dataset, made_findings(dataset, PAIRS)))
    assert found.words.count("≠ different labels") == differing
    assert found.words.count("= same label") == 2 - differing
    assert "equal, mirrored" in found.words
    assert "distance 0.25, mirrored" in found.words


@pytest.mark.parametrize("wrong", ["file", "pairs"])
def test_what_cannot_be_shown_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr(module, "survey", lambda dataset, findings: pytest.fail("nothing is read before"))
    if wrong == "file":
        (tmp_path / "out").touch()
        with pytest.raises(RunError) as caught:
            preview(DATASET, tmp_path / "out" / "here", findings=made_findings(DATASET))
        told = f"Cannot write a preview to {tmp_path / 'out' / 'here'}: Not a directory. Choose another folder."
        assert str(caught.value) == told
    else:
        larger = make_dataset("multi-label", counts={"train": 100, "val": 7, "test": 13})
        findings = made_findings(larger, [made_pair(("train", 99), ("test", 0))])
        with pytest.raises(DataError, match="Expected positions below 31, the images of this split, got 99 to 99"):
            preview(DATASET, tmp_path / "out", findings=findings)
        assert not list(tmp_path.iterdir())
