"""Tables in every format can be read back, and awkward text is escaped."""

import csv
import io

from qvit.report.formats import Table
from report.made import check_latex

AWKWARD = Table(
    "x",
    r"A_title & 100 % of #1 {$x^2~y$} \ <b>",
    ("name", 'a "quoted", one', "⟨Z⟩ ≤ 1"),
    (
        ("a | b", "−0.5 ± 0.1", "1 · 2"),
        (r"back\slash", "5 % & _more_", "–"),
        ("[0.1, 0.2]", "* 3 × 2² → 1", "ünïcode “q”"),
        ("", ",", '"'),
    ),
    "A caption_with $ and | and &",
    frozenset({1}),
)


def test_csv_is_read_back() -> None:
    rows = list(csv.reader(io.StringIO(AWKWARD.as_csv())))
    assert rows == [list(AWKWARD.columns), *map(list, AWKWARD.rows)]


def test_latex_escapes_everything() -> None:
    text = AWKWARD.as_latex()
    check_latex(text, AWKWARD)
    assert (
        r"A\_title \& 100 \% of \#1 \{\$x\textasciicircum{}2\textasciitilde{}y\$\} \textbackslash{} $<$b$>$. " in text
    )
    assert r"A caption\_with \$ and | and \&}" in text
    assert r"a | b & $-$0.5 $\pm$ 0.1 & " in text
    assert r"back\textbackslash{}slash & 5 \% \& \_more\_ & -- \\" in text
    assert r"{}[0.1, 0.2] & * 3 $\times$ 2$^2$ $\to$ 1 & " in text
    assert r"$\langle$Z$\rangle$ $\le$ 1 \\" in text
    assert r"\begin{tabular}{lrr}" in text
    assert r"\label{tab:x}" in text


def read_markdown(text: str) -> list[list[str]]:
    """The rows as a reader of GitHub's Markdown sees them: a backslash takes the meaning of what follows."""
    rows = []
    for line in text.splitlines():
        if line.startswith("| "):
            cells, escaped = [""], False
            for character in line[2:-2]:
                if escaped or character not in "\\|":
                    cells[-1] += character
                    escaped = False
                elif character == "\\":
                    escaped = True
                else:
                    cells.append("")
            rows.append([cell.strip() for cell in cells])
    return rows


def test_markdown_escapes_pipes() -> None:
    table = Table("x", "T", ("a|b", "c"), ((r"x \| y", "1"), ("s|t", "**"), ("\\", "|")), "said", frozenset({1}))
    text = table.as_markdown()
    assert read_markdown(text) == [["a|b", "c"], [r"x \| y", "1"], ["**s|t**", "******"], ["\\", "|"]]
    assert text.startswith("### T\n\n| a")
    assert text.endswith("\nsaid\n")
    assert "\n|---|---:|\n" in text
