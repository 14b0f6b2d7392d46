"""A table of text cells, and the formats in which it is written: CSV, LaTeX and Markdown."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qvit.files import write_atomic

MISSING = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "→": r"$\to$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "<": "$<$",
    ">": "$>$",
}


@dataclass(frozen=True)
class Table:
    """A table: the name of its file, its title, columns, rows of text, and a caption that explains it.

    `strong` holds the indices of rows to emphasise, such as those in which a difference is shown.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    strong: frozenset[int] = field(default_factory=frozenset)

    def as_csv(self) -> str:
        """Return comma-separated values with a header."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.columns, *self.rows])
        return buffer.getvalue()

    def as_latex(self) -> str:
        """Return a LaTeX table; it needs the package booktabs."""
        lines = [_latex_row(row) for row in (self.columns, *self.rows)]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_escaped(self.title)}. {_escaped(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def as_markdown(self) -> str:
        """Return a Markdown table under a heading."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

        rows = [tuple(f"**{c}**" for c in row) if k in self.strong else row for k, row in enumerate(self.rows)]
        ruler = "|" + "|".join(["---"] + ["---:"] * (len(self.columns) - 1)) + "|"
        text = "\n".join([line(self.columns), ruler, *map(line, rows)])
        return f"### {self.title}\n\n{text}\n" + (f"\n{self.caption}\n" if self.caption else "")


def _latex_row(cells: Sequence[str]) -> str:
    text = " & ".join(map(_escaped, cells))
    # LaTeX reads a bracket or a star at the start of a line as an option of the line before.
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write every table as CSV and LaTeX."""
    for table in tables:
        write_atomic(folder / f"{table.name}.csv", table.as_csv().encode(), durable=False)
        write_atomic(folder / f"{table.name}.tex", table.as_latex().encode(), durable=False)
