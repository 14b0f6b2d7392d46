"""The report: one page that needs nothing else, holds what was found, and shows whatever a user called things."""

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qvit.errors import RunError
from qvit.evaluation import sampled
from qvit.evaluation.ranking import friedman
from qvit.report.arms import Results, load_results
from qvit.report.claims import families, headline
from qvit.report.controls import CONTROLS
from qvit.report.formats import MISSING
from qvit.report.page import build_sections, write_report
from qvit.report.tables import headline_table, main_table
from qvit.study.spec import Job
from report.made import TEXT, MakeStudy, answers

pytestmark = pytest.mark.usefixtures("few_resamples")

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


@pytest.fixture(scope="module")
def folder(told: Path, few_resamples: None) -> Path:
    write_report(told)
    return told


@pytest.fixture(scope="module")
def page(folder: Path, results: Results) -> Page:
    return check((folder / "report" / "report.html").read_text(encoding="utf-8"), results)


@pytest.mark.long
def test_it_is_one_page_and_its_tables(folder: Path) -> None:
    assert {path.name for path in (folder / "report").iterdir()} == {"report.html", "report.md", "tables"}
    names = {path.stem for path in (folder / "report" / "tables").iterdir()}
    assert names == {
        "main", "averages", "worth", "controls", "classical", "teachers", "distillation", "gains", "qubits", "heads",
        "layers", "cost", "runs", "classes-1", "classes-2",
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
    assert "This study has no plain baselines, such as logistic regression: whether one would do as well" in words


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
    monkeypatch.setattr(sampled, "FEWEST_OF_A_CLASS", 10)
    monkeypatch.setattr(sampled, "FEWEST_IN_ALL", 30)


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


# --- layout ---


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
@pytest.mark.usefixtures("no_pictures")
def test_names_in_other_scripts(make_study: MakeStudy) -> None:
    folder = make_study("datasets: b.npz\nmodels: [{name: qvit_4q1h, label: 量子}, {name: vit_4q1h, label: دقيق}]")
    text = write_report(folder).html.read_text(encoding="utf-8")
    assert "量子" in Page(text).words


@pytest.mark.long
@pytest.mark.usefixtures("no_pictures")
def test_models_of_one_size_gain_side_by_side(make_study: MakeStudy) -> None:
    text = (
        "datasets: b.npz\nmodels: [qvit_4q1h, {name: qvit_4q1h, label: slow, options: {lr: 0.001}}]\n"
        "teachers: {t: [{arch: vit_4q1h}]}\nregimes: {scratch: , kd: {teacher: t}}"
    )
    assert "slow" in write_report(make_study(text)).html.read_text(encoding="utf-8")
