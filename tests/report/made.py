"""What charts and pages are drawn of, and what is looked for in them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvit.report.answer import Line, answer
from qvit.report.arms import Cell, Results
from qvit.report.claims import families, headline
from qvit.report.drawing import Chart
from qvit.report.formats import Table
from qvit.report.page import build_sections

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


def answers(results: Results) -> list[Line]:
    return answer(headline(families(results)), families(results), {test.name: test.title for test in results.tests})


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


def with_parameters(results: Results, sizes: list[float]) -> Results:
    """The same study of models of these numbers of parameters, in turn."""
    cells = {}
    for place, (key, cell) in enumerate(results.cells.items()):
        told = tuple(replace(result, parameters=round(sizes[place % len(sizes)])) for result in cell.results)
        cells[key] = Cell(cell.arm, cell.test, cell.seeds, cell.runs, cell.stages, told, cell.seconds)
    return replace(results, cells=cells)


def every_chart(results: Results) -> list[Chart]:
    sections = build_sections(results, families(results), headline(families(results)))
    return [chart for section in sections for chart in section.charts]


def check_latex(text: str, table: Table) -> None:
    """What makes LaTeX stop: unescaped characters, braces and environments without an end, rows of other lengths."""
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(table.rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns) - 1, line
        assert not line.startswith(("[", "*")), "an option of the line before"
        bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]", "", line)
        bare = re.sub(r"\$[^$]*\$", "", bare)
        assert not re.search(r"[%#_~^$<>]", bare), line
        assert not re.search(r"[−–×±²·≤→⟨⟩]", line), line
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")
