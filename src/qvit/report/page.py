"""Write a study's report: one HTML file that needs no network, the same in Markdown, and its tables for papers.

store and run folders → results → claims → tables and charts → pages. Models are not used here.
"""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from qvit.errors import RunError
from qvit.evaluation.sampled import METRICS
from qvit.files import write_atomic
from qvit.models.baselines import BASELINES as FITTED
from qvit.report import charts
from qvit.report.answer import Line, answer
from qvit.report.arms import Arm, Results, TestSet, load_results
from qvit.report.claims import ALPHA, NO_DIFFERENCE, PLAIN, Family, families, gain_differences, headline, ranking
from qvit.report.controls import BASELINES, CONTROLS
from qvit.report.drawing import Chart
from qvit.report.forest import forest
from qvit.report.formats import Table, write_tables
from qvit.report.tables import (
    average_table,
    class_table,
    copies_table,
    cost_table,
    family_table,
    headline_table,
    main_table,
    seeds_table,
    teacher_table,
)
from qvit.report.words import p_value
from qvit.study.database import OnWait
from qvit.study.spec import SCRATCH

MOST_ARMS = 4  # in a chart of curves
# Families of arms that differ in one thing, and what their sections are called.
ABLATIONS = {"heads": "Heads", "qubits": "Qubits", "layers": "Layers of circuits", "options": "Options"}


@dataclass(frozen=True)
class Section:
    """A part of the report: text in paragraphs, tables, charts."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Written:
    """The paths of a report, and its first box as text."""

    html: Path
    markdown: Path
    answer: list[str] = field(default_factory=list)


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    on_news: Callable[[str], None] | None = None,
    on_wait: OnWait | None = None,
) -> Written:
    """Write a study's report into `out`, by default `report` in its folder; an earlier report is replaced.

    For an unfinished study it reports the finished runs. `on_news` is called with a line on progress, `on_wait` with a
    line if another process keeps the study's file busy for long. Raises `RunError` if `folder` holds no study or no
    finished run.
    """
    say = on_news or (lambda text: None)
    results = load_results(folder, on_wait=on_wait)
    out = Path(folder) / "report" if out is None else Path(out)
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write a report to {out}: {error.strerror or error}. Choose another --out.") from error
    say(f"Comparing {len(results.cells)} arms …")
    asked = families(results)
    first = headline(asked)
    answers = answer(first, asked, _names(results))
    sections = build_sections(results, asked, first)
    tables = [table for section in sections for table in section.tables]
    write_tables(tables, out / "tables")
    markdown = out / "report.md"
    write_atomic(markdown, as_markdown(results, answers, sections).encode(), durable=False)
    page = out / "report.html"
    write_atomic(page, as_html(results, answers, sections).encode(), durable=False)
    return Written(page, markdown, [f"{one.question} {one.verdict}: {one.figures}" for one in answers])


def build_sections(results: Results, asked: list[Family], first: list[Family]) -> list[Section]:
    """Return the report's sections in order."""
    by_key = {family.key: family for family in asked}
    sections = [_main(results)]
    if first:
        sections.append(_worth(results, by_key, first))
    if "classical" in by_key:
        sections.append(_family_section(results, by_key["classical"], "Quantum and classical"))
    if PLAIN in by_key:
        sections.append(_family_section(results, by_key[PLAIN], "Plain baselines"))
    if "distillation" in by_key:
        sections.append(_distillation(results, by_key["distillation"]))
    sections += [
        _family_section(results, by_key[key], title, against=True) for key, title in ABLATIONS.items() if key in by_key
    ]
    # Numbered, since a file's name may not be usable in a link, or may be that of another section.
    sections += [_dataset(results, test, f"dataset-{k}") for k, test in enumerate(results.tests, 1)]
    sections += [section for section in (_ranks(results),) if section is not None]
    sections += [_cost(results), _provenance(results)]
    return sections


def _main(results: Results) -> Section:
    tables = [main_table(results), average_table(results)]
    begun = {name for name, arm in results.cells if arm.role == "student"}
    pictures = [
        charts.parameters_chart(results, test, metric)
        for test in results.tests
        if test.name in begun
        for metric in METRICS
    ]
    text = []
    if results.missing or results.failed:
        text.append(
            f"This study is not complete: {len(results.missing)} runs are still to be done, and {len(results.failed)} "
            "failed."
        )
    text += [
        f"{test.title}: {why}, too few to tell how much test {METRICS[metric].title} varies over images; it has no "
        "intervals, and is left out of all differences and their means."
        for test in results.tests
        for metric in METRICS
        if (why := test.untold(metric))
    ]
    if not any(arm.kind in BASELINES for arm in results.arms):
        text.append(
            "This study has no plain baselines, such as logistic regression: whether one would do as well is not known."
        )
    if any(test.synthetic for test in results.tests):
        text.append("Some images are synthetic: the figures say nothing of medicine.")
    return Section("results", "Results", tuple(text), tuple(t for t in tables if t is not None), tuple(pictures))


def _names(results: Results) -> dict[str, str]:
    return {test.name: test.title for test in results.tests}


def _worth(results: Results, by_key: dict[str, Family], first: list[Family]) -> Section:
    pooled = [f for one in first for f in (*one.of("auc"), *one.mean("auc"))]
    title = "QViT minus each control"
    pictures = [forest(title, pooled, _names(results), against=False)] if pooled else []
    tables = [headline_table(first, results)]
    if "controls" in by_key:
        tables.append(family_table(by_key["controls"], results))
    return Section(
        "worth",
        "What is the quantum part worth?",
        (
            "Each control is the same network, trained in the same way, with something else in the circuits' place. "
            "Without entangling gates a circuit is a cosine of each feature; with them, one layer is a product of "
            "cosines, and more layers are not. If the QViT is not better than these controls, its gain over a dense "
            "ViT does not come from entanglement.",
        ),
        tuple(tables),
        tuple(pictures),
    )


def _family_section(results: Results, family: Family, title: str, *, against: bool = True) -> Section:
    findings = [*family.of("auc"), *family.mean("auc")]
    pictures = (forest(family.question, findings, _names(results), against=against),) if findings else ()
    return Section(family.key, title, (), (family_table(family, results),), pictures)


def _distillation(results: Results, family: Family) -> Section:
    arms = {arm.title: arm for arm in results.arms}
    tables = [teacher_table(results), family_table(family, results)]
    gains = gain_differences(results)
    if gains is not None:
        tables.append(family_table(gains, results))
    found = family.of("auc")
    pictures = (
        (charts.gains_chart(found, arms, results), forest(family.question, found, _names(results))) if found else ()
    )
    return Section("distillation", "Knowledge distillation", (), tuple(t for t in tables if t is not None), pictures)


def _picked(results: Results, test: TestSet) -> list[Arm]:
    """Return the arms whose curves are drawn: the best of each kind and regime by validation AUC, not by test AUC."""
    best: dict[tuple[str, str], tuple[float, Arm]] = {}
    for arm in results.arms:
        cell = results.cell(test, arm)
        if cell is None:
            continue
        value = sum(result.val.auc for result in cell.results) / len(cell.results)
        key = arm.kind, arm.regime
        if key not in best or value > best[key][0]:
            best[key] = value, arm
    order = ("qvit", *CONTROLS)
    ranked = sorted(best, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[1] != SCRATCH))
    return [best[key][1] for key in ranked[:MOST_ARMS]]


def _dataset(results: Results, test: TestSet, key: str) -> Section:
    cells = [cell for arm in _picked(results, test) if (cell := results.cell(test, arm))]
    pictures = [draw(test, cells) for draw in (charts.roc_chart, charts.calibration_chart) if cells]
    if trained := [cell for cell in cells if cell.arm.kind not in FITTED]:
        pictures.append(charts.learning_chart(test, trained))
    if test.task != "multi-label":
        pictures += [charts.confusion_chart(cell) for cell in cells[:2]]
    train, val, tested = test.images
    text = (
        f"{train:,} images to train on, {val:,} to choose the checkpoint by, {tested:,} to test on, read once per run. "
        f"{len(test.classes)} classes: {'; '.join(test.classes)}. The curves show the models with the best "
        "validation AUC of each kind.",
    )
    tables = class_table(results, test), copies_table(results, test)
    return Section(key, test.title, text, tuple(table for table in tables if table is not None), tuple(pictures))


def _ranks(results: Results) -> Section | None:
    found = ranking(results, "auc")
    if found is None:
        return None
    arms, ranks, differ = found
    chart = charts.ranking_chart(arms, ranks.mean_ranks, ranks.critical_difference, ranks.cliques)
    shown = f"a difference between the {len(arms)} models" if differ.f_p < ALPHA else NO_DIFFERENCE
    text = [
        f"Ranks by test AUC on {len(results.tests)} datasets, models from scratch. Friedman's test that all models "
        f"rank alike: F = {_f(differ.f)}, p {p_value(differ.f_p, sign=True)} (Iman and Davenport): {shown}. Models "
        f"whose mean ranks are further apart than {ranks.critical_difference:.2f} differ (Nemenyi)."
    ]
    if len(results.tests) < 5:
        text.append("With so few datasets the ranks of two models cannot be told apart in this way.")
    return Section("ranks", "Ranking over datasets", tuple(text), (), (chart,))


def _f(value: float) -> str:
    return "∞" if value == math.inf else f"{value:.2f}"


def _cost(results: Results) -> Section:
    return Section("cost", "Cost", (), (cost_table(results),))


def _provenance(results: Results) -> Section:
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    jobs = {job.identity: job for job in results.jobs}.values()  # several jobs may need the same run
    seconds = sum(job.seconds or 0.0 for job in jobs)
    digests = "; ".join(f"{test.title}: digest {test.digest}" for test in results.tests)
    text = [
        f"qvit {machine['qvit']}, sources {results.code[:16]}; {packages}; Python {machine['python']}.",
        f"{machine['processor']}, {machine['cpus']} cores; {machine['platform']}.",
        f"{sum(job.status == 'finished' for job in jobs)} of {len(jobs)} runs finished, "
        f"{seconds / 3600:.1f} hours of training in all, {len(results.attempts)} attempts.",
        f"Data: {digests}.",
        "Every run keeps the checkpoint with the best validation AUC and reads the test images once, after training. "
        "Intervals are 95 %.",
        *(f"Failed: {job.name}: {job.error}" for job in results.failed),
    ]
    return Section("provenance", "Where this comes from", tuple(text), (seeds_table(results),), folded=True)


def as_markdown(results: Results, answers: list[Line], sections: list[Section]) -> str:
    """Return the report as Markdown, with tables but without charts."""
    parts = [f"# {results.title}", results.description]
    parts += ["\n".join(f"- {one.question} **{one.verdict}**; {one.figures}." for one in answers)]
    for section in sections:
        parts += [f"## {section.title}", *section.text, *(table.as_markdown() for table in section.tables)]
    parts.append(f"```yaml\n{results.specification.strip()}\n```")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def as_html(results: Results, answers: list[Line], sections: list[Section]) -> str:
    """Return the report as one HTML page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["uri"] = _uri
    template = environment.from_string((files("qvit.report") / "templates" / "report.html").read_text(encoding="utf-8"))
    context: dict[str, Any] = {
        "results": results,
        "answers": answers,
        "sections": sections,
        "models": len({arm.label for arm in results.arms}),
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seeds": max((len(cell.seeds) for cell in results.cells.values()), default=0),
    }
    return template.render(context)


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
