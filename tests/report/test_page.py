"""The report: one page that needs nothing else, holds what was found, and shows whatever a user called things."""

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.errors import RunError
from qvit.evaluation import statistics
from qvit.evaluation.ranking import friedman
from qvit.report import arms as arms_module
from qvit.report import charts
from qvit.report import forest as forest_module
from qvit.report.answer import Line, answer
from qvit.report.arms import Cell, Results, load_results
from qvit.report.axes import log_limits, log_ticks, plain
from qvit.report.claims import families, headline
from qvit.report.controls import CONTROLS
from qvit.report.drawing import Chart, drawing
from qvit.report.forest import MEAN, _style, forest
from qvit.report.page import build_sections, write_report
from qvit.report.tables import MISSING, headline_table, main_table
from qvit.study.spec import Job

MakeStudy = Callable[..., Path]
TEXT = """
title: Circuits & <script>alert("x")</script>
description: "<img src=x onerror=alert(1)> & more"
datasets: [a.npz, d.npz]
models:
  - {kind: [qvit, vit_matched], qubits: [4, 8], heads: 1}
  - {name: cosine_4q1h, label: "cos & <b>cosine</b> for $5 or $6"}
  - {kind: qvit, qubits: 4, heads: [1, 2], layers: 2}
seeds: 2
teachers: {strong: [{arch: vit_4q1h, seeds: 2}]}
regimes: {scratch: , kd: {teacher: strong}}
"""
CLASSES = {"a": ["<i>none</i> & null", "a class whose name goes on and on", "c"]}
TITLES = {"d": "Set <D> & 'so' on"}
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'
VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == [], "a tag has no end"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute comes twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings.pop()
            self.headings.append((level, text + data))

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def check(text: str, results: Results) -> Page:
    """What holds for every report."""
    assert text.startswith("<!doctype html>")
    page = Page(text)
    assert not list(page.all("script"))
    assert not list(page.all("link"))
    assert not list(page.all("iframe"))
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:image/svg+xml;base64,")), value
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert len(list(page.all("html"))) == len(list(page.all("main"))) == 1
    assert next(page.all("html")) == {"lang": "en"}
    assert {"charset": "utf-8"} in page.all("meta")
    assert page.headings[0] == (1, results.title)
    assert [level for level, _ in page.headings].count(1) == 1
    assert all(next_ <= before + 1 for (before, _), (next_, _) in pairwise(page.headings))
    ids = [attributes["id"] or "" for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][\w-]*", one) for one in ids)
    assert {a["href"] for a in page.all("a")} <= {f"#{one}" for one in ids}
    for image in page.all("img"):
        alt, source = image["alt"] or "", image["src"] or ""
        assert len(alt) > 20
        svg = base64.b64decode(source.partition("base64,")[2])
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "viewBox" in root.attrib
        assert not root.findall(".//{*}script")
        for element in root.iter():
            for key, value in element.attrib.items():
                if key.endswith(("href", "src")):
                    assert value.startswith(("#", "data:image/png;base64,")), value
    rows = main_table(results).rows
    assert all(cell in page.words for row in rows for cell in row)
    return page


@pytest.fixture(autouse=True, scope="module")
def few_resamples() -> Iterator[None]:
    """Intervals as quickly as they can be had."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arms_module, "RESAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def folder(make_study: MakeStudy) -> Path:
    strength = {"qvit": 2.5, "vit_matched": 0.5}
    folder = make_study(
        TEXT,
        skill=lambda job: strength.get(job.model.kind, 1.0) + 0.4 * bool(job.teachers),
        classes=CLASSES,
        titles=TITLES,
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load_results(folder)


@pytest.fixture(scope="module")
def page(folder: Path, results: Results) -> Page:
    return check((folder / "report" / "report.html").read_text(encoding="utf-8"), results)


def answers(results: Results) -> list[Line]:
    return answer(headline(families(results)), families(results), {test.name: test.title for test in results.tests})


@pytest.mark.long
def test_it_is_one_page_and_its_tables(folder: Path) -> None:
    assert {path.name for path in (folder / "report").iterdir()} == {"report.html", "report.md", "tables"}
    names = {path.stem for path in (folder / "report" / "tables").iterdir()}
    assert names == {
        "main", "averages", "worth", "controls", "classical", "teachers", "distillation", "gains", "qubits", "heads",
        "layers", "cost", "runs",
    }  # fmt: skip


@pytest.mark.long
def test_what_users_write_is_shown_and_not_run(page: Page, folder: Path) -> None:
    for text in (
        'Circuits & <script>alert("x")</script>',
        "<img src=x onerror=alert(1)> & more",
        "cos & <b>cosine</b> for $5 or $6",
        "<i>none</i> & null",
        "Set <D> & 'so' on",
        "one & only",
        TEXT.strip(),
    ):
        assert text in page.words
    assert len(list(page.all("b"))) == len(list(page.all("table"))), "those of captions"
    assert not list(page.all("i"))
    alts = " ".join(image["alt"] or "" for image in page.all("img"))
    assert "Set <D> & 'so' on" in alts
    assert "cos & <b>cosine</b> for $5 or $6" in alts
    pictures = [base64.b64decode((image["src"] or "").partition("base64,")[2]).decode() for image in page.all("img")]
    drawn = [
        " ".join("".join(text.itertext()) for text in ET.fromstring(svg).findall(".//{*}text")) for svg in pictures
    ]
    assert any("for $5 or $6" in " ".join(words.split()) for words in drawn), "not set as mathematics"
    assert any("<D> &" in words for words in drawn)


@pytest.mark.long
def test_sections(page: Page) -> None:
    assert [text for _, text in page.headings[1:]] == [
        "Results",
        "What is the quantum part worth?",
        "Quantum and classical",
        "Knowledge distillation",
        "Heads",
        "Qubits",
        "Layers of circuits",
        "Set A",
        "Set <D> & 'so' on",
        "Ranking over datasets",
        "Cost",
        "Where this comes from",
        "Specification",
    ]


@pytest.mark.long
def test_it_says_what_was_found(page: Page, results: Results, folder: Path) -> None:
    told = answers(results)
    assert [(one.question, one.tone) for one in told] == [
        ("Does the quantum part help?", "better"),
        (f"QViT against {CONTROLS['vit_matched'].words}:", "better"),
        (f"QViT against {CONTROLS['cosine'].words}:", "better"),
        ("Pre-training on a teacher:", "better"),
    ]
    assert told[0].verdict == f"Yes: better than {CONTROLS['cosine'].words}"
    assert {one.verdict for one in told[1:3]} == {"the QViT is better"}
    words, markdown = " ".join(page.words.split()), (folder / "report" / "report.md").read_text(encoding="utf-8")
    for one in told:
        assert f"{one.question} {one.verdict} {one.figures}" in words
        assert f"- {one.question} **{one.verdict}**; {one.figures}." in markdown
    assert [attributes["class"] for attributes in page.all("li") if "class" in attributes] == [one.tone for one in told]
    distilled = next(family for family in families(results) if family.key == "distillation")
    gains = sum(f.shown and f.comparison.difference > 0 for f in distilled.of("auc"))
    assert told[-1].verdict == f"of {len(distilled.of('auc'))} comparisons {gains} show a gain and 0 a loss"
    for family in families(results):
        for finding in family.findings:
            assert finding.verdict in words
    assert "not complete" not in words
    assert "Some images are synthetic" in words


@pytest.mark.parametrize(
    ("changes", "shown"),
    [(0, "F = ∞, p < 0.001 (Iman and Davenport): a difference between the 3 models. "), (1, "no difference shown. ")],
)
def test_ranks_are_tested(make_study: MakeStudy, changes: int, shown: str) -> None:
    """Of models that rank alike on all datasets, and of models whose order changes from one to the next."""
    text = "datasets: [a.npz, b.npz, c.npz, d.npz]\nmodels: [qvit_4q1h, vit_4q1h, cosine_4q1h]"
    kinds = ("qvit", "vit", "cosine")

    def skill(job: Job) -> float:
        return 0.5 + (kinds.index(job.model.kind) + changes * "abcd".index(Path(job.dataset).stem)) % 3

    results = load_results(make_study(text, skill=skill, images=60))
    [section] = [one for one in build_sections(results, [], []) if one.key == "ranks"]
    table = [[np.mean(results.cells[test.name, arm].values("auc")) for arm in results.arms] for test in results.tests]
    expected = friedman(table)
    assert (expected.f_p < 0.05) == (changes == 0), "or the case is of no use"
    assert shown in section.text[0]
    if changes:
        assert f"F = {expected.f:.2f}, p = {expected.f_p:.3f} (Iman and Davenport)" in section.text[0]
    assert section.text[1:] == ("With so few datasets the ranks of two models cannot be told apart in this way.",)


@pytest.mark.parametrize(("ours", "said"), [(0.2, "the QViT is worse"), (1.5, "no difference shown")])
def test_the_other_answers(make_study: MakeStudy, ours: float, said: str) -> None:
    text = "datasets: [a.npz, b.npz]\nmodels: [qvit_4q1h, vit_4q1h]\nseeds: 4"
    found = load_results(make_study(text, skill=lambda job: ours if job.model.kind == "qvit" else 1.5, images=60))
    [first, told] = answers(found)
    assert (first.verdict, first.tone) == ("This study cannot tell", "none")  # whether the quantum part helps
    assert (told.verdict, told.tone) == (said, "worse" if "worse" in said else "none")
    assert "mean over datasets" in told.figures
    assert "Set A " in told.figures


@pytest.mark.parametrize(
    ("cosine", "no_entangler", "said", "tone"),
    [
        (0.2, 0.2, "Yes: better than {cosine} and {no_entangler}", "better"),
        (0.2, 1.5, "In part: better than {cosine}; no difference shown from {no_entangler}", "better"),
        (1.5, 1.5, "Not shown: no difference shown from {cosine} and {no_entangler}", "none"),
        (3.5, 1.5, "No: worse than {cosine}; no difference shown from {no_entangler}", "worse"),
        (0.2, 3.5, "It depends: better than {cosine}; worse than {no_entangler}", "none"),
    ],
)
def test_whether_the_quantum_part_helps(
    make_study: MakeStudy, cosine: float, no_entangler: float, said: str, tone: str
) -> None:
    strength = {"qvit": 1.5, "cosine": cosine, "no_entangler": no_entangler}
    text = "datasets: a.npz\nmodels: {kind: [qvit, cosine, no_entangler]}\nseeds: 4"
    told = answers(load_results(make_study(text, skill=lambda job: strength[job.model.kind], images=60)))
    assert (told[0].question, told[0].tone) == ("Does the quantum part help?", tone)
    found = told[0].verdict
    for kind in ("cosine", "no_entangler"):
        found = found.replace(CONTROLS[kind].words, f"{{{kind}}}")
    assert sorted(re.split("[ ;:]+", found)) == sorted(re.split("[ ;:]+", said))
    assert found.partition(":")[0] == said.partition(":")[0]


@pytest.mark.long
def test_markdown(folder: Path, results: Results) -> None:
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {results.title}\n\n{results.description}\n\n- Does the quantum")
    assert main_table(results).as_markdown().strip() in text
    assert f"```yaml\n{TEXT.strip()}\n```" in text


@pytest.mark.long
def test_it_is_written_again(make_study: MakeStudy, tmp_path: Path) -> None:
    folder = make_study("datasets: b.npz\nmodels: [qvit_4q1h, vit_4q1h_matched]")
    first, news = write_report(str(folder)), list[str]()
    assert (first.html, first.markdown) == (folder / "report" / "report.html", folder / "report" / "report.md")
    out = tmp_path / "new" / "place"
    again = write_report(str(folder), out, on_news=news.append)
    assert (again.html, again.markdown, again.answer) == (out / "report.html", out / "report.md", first.answer)
    told = answers(load_results(folder))
    assert again.answer == [f"{one.question} {one.verdict}: {one.figures}" for one in told]
    assert len(told) == 2
    assert news == ["Comparing 2 arms …"]
    for path in (folder / "report").rglob("*.*"):
        other = out / path.relative_to(folder / "report")
        assert other.read_bytes() == path.read_bytes(), "the same runs give the same bytes, pictures included"
    assert not list(tmp_path.rglob("*.part"))


# --- other studies ---

STUDIES = {
    "one of everything": "datasets: c.npz\nmodels: qvit_4q1h",
    "one arm, seeds": "datasets: b.npz\nmodels: vit_4q1h\nseeds: 3",
    "one seed": "datasets: [a.npz, b.npz]\nmodels: [qvit_4q1h, vit_4q1h_matched, no_entangler_4q1h]",
    "one dataset": "datasets: d.npz\nmodels: [qvit_4q1h, vit_4q1h]\nseeds: 2",
    "teachers alone teach": "datasets: b.npz\nmodels: qvit_4q1h\nteachers: {t: [{arch: vit_4q1h}]}\n"
    "regimes: {kd: {teacher: t}}",
    "every task": "datasets: [a.npz, b.npz, c.npz, d.npz]\nmodels: [qvit_4q1h, cosine_4q1h]",
    "official": "datasets: [retinamnist, breastmnist, pathmnist]\nmodels: qvit_4q1h",
}


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", STUDIES)
def test_other_studies(make_study: MakeStudy, name: str) -> None:
    folder = make_study(STUDIES[name], name="study")
    written = write_report(folder)
    found = load_results(folder)
    page = check(written.html.read_text(encoding="utf-8"), found)
    if name == "official":
        assert "MedMamba-X" in page.words


PARTS: dict[str, Callable[[Job], str]] = {
    "a single run": lambda job: "finished" if (job.dataset[-5:], job.model.name, job.regime, job.seed) == (
        "a.npz", "qvit_4q1h", "scratch", 0
    ) else "waiting",
    "one dataset": lambda job: "finished" if "a.npz" in job.dataset else "waiting",
    "one seed of one arm": lambda job: "failed" if job.seed and job.model.kind == "qvit" else "finished",
    "no teacher": lambda job: "failed" if job.role == "teacher" or job.teachers else "finished",
    "no circuit": lambda job: "running" if job.model.kind == "qvit" else "finished",
    "teachers": lambda job: "finished" if job.role == "teacher" else "waiting",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", PARTS)
def test_studies_that_are_not_finished(make_study: MakeStudy, name: str) -> None:
    text = (
        "datasets: [a.npz, b.npz]\nmodels: [qvit_4q1h, vit_4q1h_matched]\nseeds: 2\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    folder = make_study(text, state=PARTS[name])
    written = write_report(folder)
    found = load_results(folder)
    page = check(written.html.read_text(encoding="utf-8"), found)
    words = " ".join(page.words.split())
    assert f"{len(found.missing)} runs are still to be done, and {len(found.failed)} failed" in words
    done = len(found.jobs) - len(found.missing) - len(found.failed)
    assert f"{done} of {len(found.jobs)} runs finished" in words
    for job in found.failed:
        assert f"Failed: {job.name}: ran out of <luck>" in words


def limits_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "FEWEST_OF_A_CLASS", 10)
    monkeypatch.setattr(statistics, "FEWEST_IN_ALL", 30)


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_what_few_images_cannot_tell_is_left_out_and_said(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight images of each class: enough for accuracy's spread (32 in all), not for that of the AUC."""
    limits_of_users(monkeypatch)
    folder = make_study("datasets: [a.npz, c.npz]\nmodels: [qvit_4q1h, vit_4q1h_matched]\nseeds: 2", images=32)
    words = " ".join(check(write_report(folder).html.read_text(encoding="utf-8"), load_results(folder)).words.split())
    assert "Set C: class 0 has 8 images, fewer than 10, too few to tell how much test AUC varies over images" in words
    assert "Set A: class" not in words
    found = families(load_results(folder))
    compared = {(finding.dataset, finding.metric) for family in found for finding in family.findings}
    assert ("c", "acc") in compared
    assert ("a", "auc") in compared
    assert ("c", "auc") not in compared


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("dataset", "images", "known", "missing"),
    [
        ("b.npz", 24, ["AUC", "p (AUC)", "what is shown of the AUC"], ["ACC", "p (ACC)"]),  # 12 a class, 24 in all
        ("c.npz", 32, ["ACC", "p (ACC)"], ["AUC", "p (AUC)", "what is shown of the AUC"]),  # 8 a class, 32 in all
    ],
)
def test_what_one_metric_cannot_tell_another_may(
    make_study: MakeStudy,
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
    images: int,
    known: list[str],
    missing: list[str],
) -> None:
    limits_of_users(monkeypatch)
    folder = make_study(f"datasets: {dataset}\nmodels: [qvit_4q1h, vit_4q1h_matched, cosine_4q1h]", images=images)
    results = load_results(folder)
    check(write_report(folder).html.read_text(encoding="utf-8"), results)
    table = headline_table(headline(families(results)), results)
    assert len(table.rows) == 2
    for cells in table.rows:
        row = dict(zip(table.columns, cells, strict=True))
        assert all(row[column] == MISSING for column in missing)
        assert all(row[column] != MISSING for column in known)


@pytest.mark.long
def test_a_run_that_answers_two_jobs_counts_once(make_study: MakeStudy) -> None:
    folder = make_study("datasets: b.npz\nmodels: [qvit_4q1h, {name: qvit_4q1h, label: again}]\nseeds: 2")
    [text] = [s.text for s in build_sections(load_results(folder), [], []) if s.key == "provenance"]
    assert any("2 of 2 runs finished" in line for line in text)


@pytest.mark.long
def test_folders_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no study"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunError) as caught:
        write_report(folder, tmp_path / "file")
    assert str(caught.value) == f"Cannot write a report to {tmp_path / 'file'}: Not a directory. Choose another --out."
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tables").write_text("kept")
    with pytest.raises(RunError, match="Cannot write a report"):
        write_report(folder, tmp_path / "out")
    assert (tmp_path / "file").read_text() == (tmp_path / "out" / "tables").read_text() == "kept"


# --- charts ---


def outside(figure: Any) -> list[str]:
    """The texts that are cut off: those drawn, in part, beyond the edge of the picture."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    unseen: set[int] = set()  # labels of ticks beyond the ends of an axis, which are never drawn
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = min(limits), max(limits)
            slack = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - slack <= tick.get_loc() <= high + slack:
                    unseen |= {id(tick.label1), id(tick.label2)}
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in unseen:
            box = text.get_window_extent()
            if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > figure.bbox.width + 0.5 or box.y1 > figure.bbox.height + 0.5:
                found.append(text.get_text())
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All figures, instead of their being written."""
    figures: list[Any] = []

    def keep(figure: Any) -> str:
        figures.append(figure)
        return EMPTY

    for module in (charts, forest_module):
        monkeypatch.setattr(module, "svg", keep)
    return figures


LONG = "a model that somebody has given a rather long name so that all who read it know what it is"


@pytest.mark.long
@pytest.mark.parametrize("names", ["short", "long"])
def test_no_text_is_cut_off(make_study: MakeStudy, drawn: list[Any], names: str) -> None:
    text = (
        "datasets: retinamnist\n"  # where published models are drawn, too
        "models: [qvit_4q1h, vit_4q1h_matched, {name: no_entangler_4q1h, label: three}, "
        "{kind: qvit, qubits: 4, heads: 1, layers: 2}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    more: dict[str, Any] = {}
    if names == "long":
        text = text.replace("kd:", "knowledge_distillation_from_an_ensemble:").replace("three", LONG)
        text = text.replace("datasets: retinamnist", "datasets: [a.npz, b.npz]")
        more["titles"] = {"a": "A collection of photographs with quite a long title, of many words and a half"}
        more["classes"] = {"a": ["no retinopathy to be seen at all", "x", "a" * 40]}
    strength = {"qvit": 2.0, "vit_matched": 0.7}
    folder = make_study(text, skill=lambda job: strength.get(job.model.kind, 1.2) + 0.4 * bool(job.teachers), **more)
    every_chart(load_results(folder))
    assert len(drawn) > 10
    assert {text for figure in drawn for text in outside(figure)} == set()


def test_text_that_is_cut_off_would_be_found() -> None:
    with drawing(2.0) as (figure, axes):
        axes.set_xlabel("x" * 200)
        assert outside(figure) == ["x" * 200]


@pytest.mark.long
def test_rows_of_a_forest_do_not_overlap(results: Results, drawn: list[Any]) -> None:
    names = {test.name: test.title for test in results.tests}
    for one in (one for one in families(results) if one.key in ("classical", "distillation")):
        forest(one.question, one.of("auc"), names)
    assert drawn
    for figure in drawn:
        figure.draw_without_rendering()
        boxes = sorted(
            (label.get_window_extent() for label in figure.axes[0].get_yticklabels()), key=lambda box: box.y0
        )
        assert all(below.y1 <= above.y0 + 0.5 for below, above in pairwise(boxes))


def with_parameters(results: Results, sizes: list[float]) -> Results:
    """The same study of models of these numbers of parameters, in turn."""
    cells = {}
    for place, (key, cell) in enumerate(results.cells.items()):
        told = tuple(replace(result, parameters=round(sizes[place % len(sizes)])) for result in cell.results)
        cells[key] = Cell(cell.arm, cell.test, cell.seeds, cell.runs, cell.stages, told, cell.seconds)
    return replace(results, cells=cells)


@pytest.mark.long
@pytest.mark.parametrize(
    ("least", "ratio"),
    [(793.0, 1.0), (9800.0, 1.1), (1200.0, 2.0), (793.0, 5.0), (9800.0, 30.0), (1200.0, 1000.0), (793.0, 1e6)],
)
def test_axes_have_numbers(results: Results, drawn: list[Any], ratio: float, least: float) -> None:
    """However little or much the sizes of models differ."""
    changed = with_parameters(results, [least, least * ratio])
    charts.parameters_chart(changed, changed.tests[0], "auc")
    [axes] = drawn[0].axes
    low, high = axes.get_xlim()
    assert low < least
    assert least * ratio < high
    labels = {tick.get_loc(): tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high}
    assert 3 <= len(labels) <= 6
    for place, label in labels.items():
        value = float(label.get_text().replace(",", "").replace("M", "e6"))
        assert value == pytest.approx(place)
    drawn[0].draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels.values()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), "none runs into the next"
    assert outside(drawn[0]) == []


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_there_are_numbers_for_any_range(least: float, ratio: float) -> None:
    low, high = log_limits([least, least * ratio])
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 6
    assert all(low <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert ticks == sorted(ticks)
    assert len({plain(tick) for tick in ticks}) == len(ticks)


def test_numbers_are_plain() -> None:
    told = [plain(value) for value in (3, 2.5, 800, 1000.0, 12500, 99999.99999999999, 1e6, 1.5e6, 2e9)]
    assert told == ["3", "2.5", "800", "1,000", "12,500", "100,000", "1M", "1.5M", "2,000M"]


@pytest.mark.long
def test_a_forest_has_a_row_a_question(results: Results, drawn: list[Any]) -> None:
    """And in it a mark for each dataset, in a colour of its own, and one for their mean."""
    names = {test.name: test.title for test in results.tests}
    one = next(one for one in families(results) if one.mean("auc"))
    findings = [*one.of("auc"), *one.mean("auc")]
    questions = list(dict.fromkeys((f.a, f.b) for f in findings))
    assert len(findings) == 3 * len(questions), "or the case is of no use"
    forest(one.question, findings, names)
    [figure] = drawn
    [axes] = figure.axes
    assert [" ".join(label.get_text().split()) for label in axes.get_yticklabels()] == [
        f"{a} − {b}" for a, b in questions
    ]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == [f.comparison.difference for f in findings]
    for mark, finding in zip(marks, findings, strict=True):
        assert round(float(mark.get_ydata()[0])) == questions.index((finding.a, finding.b))
        assert (mark.get_markerfacecolor() != "white") == finding.shown
    styles = {(f.dataset, mark.get_color(), mark.get_marker()) for f, mark in zip(findings, marks, strict=True)}
    assert len(styles) == len({colour for _, colour, _ in styles}) == 3
    places = sorted(float(mark.get_ydata()[0]) * figure.get_figheight() / len(questions) for mark in marks)
    assert min(b - a for a, b in pairwise(places)) > 0.05, "none covers another"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Set A", TITLES["d"], MEAN]
    assert figure.get_figheight() < 1.3 + 0.6 * len(questions)


def test_a_forest_of_many_datasets_tells_them_apart() -> None:
    sets = [f"d{number}" for number in range(12)]
    assert len({_style([*sets, None], mark) for mark in range(13)}) == 13


@pytest.mark.long
def test_tables_stay_on_the_page(page: Page, folder: Path) -> None:
    """They can be scrolled, what is wide in them can be broken, and on paper all of it is."""
    text = (folder / "report" / "report.html").read_text(encoding="utf-8")
    wrapped = re.findall(r'<div class="scroll"[^>]*>\s*<table>', text)
    assert len(wrapped) == text.count("<table>") > 5
    assert "qvit_<wbr>4q1h" in text
    intervals = re.findall(r'(?:^|>)([^<>]*) <span class="interval">(\[[^<]*\])</span></td>', text)
    assert len(intervals) > 50
    assert not re.search(r"<td>[^<]*\[", text), "each can be broken before its interval"
    screen, _, paper = text[: text.index("</style>")].partition("@media print")
    assert re.search(r"\.scroll \{ overflow-x: auto", screen)
    assert ".interval { white-space: nowrap; }" in screen
    assert re.findall(r"nowrap", screen) == ["nowrap"], "of intervals alone"
    assert ".scroll { overflow: visible" in paper
    assert ".interval { white-space: normal; }" in paper
    assert "pre-wrap" in screen
    # A file's name may be one word that is longer than a line on a phone.
    assert re.search(r"body \{[^}]*overflow-wrap: break-word;", screen)
    assert "nav li, figure { min-width: 0; }" in screen, "what a flex box or grid holds is else as wide as that word"


def every_chart(results: Results) -> list[Chart]:
    sections = build_sections(results, families(results), headline(families(results)))
    return [chart for section in sections for chart in section.charts]


@pytest.mark.long
def test_charts(page: Page) -> None:
    images = list(page.all("img"))
    assert len(images) == 20
    for image in images:
        root = ET.fromstring(base64.b64decode((image["src"] or "").partition("base64,")[2]))
        assert root.attrib["viewBox"].startswith("0 0 ")
        assert root.findall(".//{*}text"), "text is text, for those who search or magnify it"
        assert re.search(r"\d\.\d|\d %|Validation AUC by epoch", image["alt"] or ""), "it tells figures"
        assert "\n" not in (image["alt"] or "")


@pytest.mark.long
def test_every_chart_has_a_title(results: Results) -> None:
    titles = [chart.title for chart in every_chart(results)]
    other = "Set <D> & 'so' on"
    assert titles == [
        *(f"{name}: {metric} against parameters" for name in ("Set A", other) for metric in ("AUC", "ACC")),
        "QViT minus each control",
        "Is a quantum vision transformer better than a classical one of the same parameter count?",
        "Gain from a teacher against model size",
        "What is pre-training on a teacher worth?",
        "Are two heads better than one?",
        "Are more qubits better?",
        "Are more circuit layers better?",
        *("Set A: ROC curves", "Set A: calibration", "Set A: learning curves"),
        "Set A: decisions of qvit_4q1h, in % of each true class",
        "Set A: decisions of qvit_4q1h, kd, in % of each true class",
        *(f"{other}: ROC curves", f"{other}: calibration", f"{other}: learning curves"),
        "Mean ranks over datasets",
    ]


@pytest.mark.long
def test_alternatives_hold_the_figures(results: Results) -> None:
    """Whoever does not see a picture is told what it shows."""
    test, arm = results.tests[0], results.arms[0]
    cell = results.cell(test, arm)
    assert cell is not None
    value = f"{cell.intervals['auc'].value:.3f}"
    assert f"{arm.title} {value}" in charts.roc_chart(test, [cell]).alt
    assert f"{arm.title} {cell.parameters:,} parameters {value}" in charts.parameters_chart(results, test, "auc").alt
    first = test.labels[:, 0] == 0
    right = 100 * np.mean([(scores[first].argmax(axis=1) == 0).mean() for scores in cell.scores])
    confusion = charts.confusion_chart(cell)
    assert confusion.alt.startswith(f"{confusion.title}: of {test.classes[0]} {right:.0f} % are recognised; of ")
    [classical] = [one for one in families(results) if one.key == "classical"]
    findings = classical.of("auc")
    alt = forest("T", findings, {test.name: test.title for test in results.tests}).alt
    for finding in findings:
        title = {"a": "Set A", "d": TITLES["d"]}[finding.dataset or ""]
        one = finding.comparison
        assert f"{finding.a} − {finding.b}, {title}: {one.difference:+.3f} from {one.low:+.3f}" in alt
        assert finding.verdict in alt


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_as_many_kinds_as_there_are(make_study: MakeStudy) -> None:
    """Colours and markers are used again."""
    text = (
        "datasets: b.npz\nmodels: {kind: [qvit, vit, cosine, identity, no_entangler, frozen, givens, circulant, unlu], "
        "heads: 1}\nteachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    assert len(every_chart(load_results(make_study(text, images=12)))) > 5


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_names_in_other_scripts(make_study: MakeStudy) -> None:
    folder = make_study("datasets: b.npz\nmodels: [{name: qvit_4q1h, label: 量子}, {name: vit_4q1h, label: دقيق}]")
    text = write_report(folder).html.read_text(encoding="utf-8")
    assert "量子" in Page(text).words


def test_an_interval_that_begins_at_zero_is_drawn_whole(make_study: MakeStudy, drawn: list[Any]) -> None:
    found = load_results(make_study("datasets: b.npz\nmodels: qvit_4q1h", skill=lambda job: -0.8, images=8))
    [cell] = found.cells.values()
    interval = cell.intervals["acc"]
    assert interval.low == 0.0 < interval.value, "or the case is of no use"
    charts.parameters_chart(found, found.tests[0], "acc")
    [bar] = drawn[0].axes[0].containers
    [segment] = bar.lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([0.0, interval.high])


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_models_of_one_size_gain_side_by_side(make_study: MakeStudy) -> None:
    text = (
        "datasets: b.npz\nmodels: [qvit_4q1h, {name: qvit_4q1h, label: slow, options: {lr: 0.001}}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    assert "slow" in write_report(make_study(text)).html.read_text(encoding="utf-8")


@pytest.mark.long
def test_gains_of_models_of_one_size_are_drawn(make_study: MakeStudy, drawn: list[Any]) -> None:
    """As those of qvit_8q1h and qvit_4q2h, which have as many parameters."""
    text = (
        "datasets: [a.npz]\nseeds: 2\nmodels: [{kind: qvit, qubits: 4}, {kind: qvit, qubits: 4, layers: 3}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    results = load_results(make_study(text))
    [family] = [one for one in families(results) if one.key == "distillation"]
    arms = {arm.title: arm for arm in results.arms}
    chart = charts.gains_chart(family.of("auc"), arms, with_parameters(results, [1117]))
    assert "qvit_4q2h (3 layers)" in chart.alt
    assert drawn[-1].axes[0].get_title(loc="left") == "Set A"
