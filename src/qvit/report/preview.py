"""A preview of a dataset: what it holds as one picture and as one HTML file, for people to look at.

dataset → survey (read once) → panels of the picture, parts of the page. The same dataset gives the same bytes.
"""

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from qvit.data.arrays import Dataset
from qvit.data.findings import Findings
from qvit.errors import printable
from qvit.files import make_folder, write_atomic
from qvit.report.drawing import Chart, drawing, svg
from qvit.report.panels import CHANNELS, histogram, picture
from qvit.report.pictures import COLOURS
from qvit.report.survey import (
    HISTOGRAM_TOLD,
    SIDE,
    SPACE,
    Image,
    Survey,
    counts_told,
    enlargement,
    facts,
    share,
    sheet_told,
    survey,
)
from qvit.report.twins import PAIR_SIDE, Twins, twins, twins_told

NAMES = ("preview.png", "preview.html")


def preview(dataset: Dataset, folder: Path, *, findings: Findings, title: str | None = None) -> list[Path]:
    """Write `preview.png` and `preview.html` into a folder and return their paths; earlier ones are replaced.

    Both show the images by class and split, the number of images in each class, mean images, intensities, what was
    found to be wrong, in the words of `qvit data verify`, and up to 20 near-duplicates. `title` stands for the
    dataset's own.

    Raises RunError if the folder cannot be written to, and DataError for findings of another dataset, or if the file
    behind mapped images was shortened.
    """
    shown, told = twins(dataset, findings), twins_told(findings)
    title = printable(dataset.info.title if title is None else title)
    make_folder(folder, f"write a preview to {folder}", "Choose another folder.")
    found = survey(dataset, findings)
    paths = [folder / name for name in NAMES]
    write_atomic(paths[0], picture(found, title, shown, told), durable=False)
    write_atomic(paths[1], page(found, title, shown, told).encode(), durable=False)
    return paths


def page(found: Survey, title: str, pairs: Sequence[Twins], told: str) -> str:
    """Return the preview as one HTML page that needs no other file; `told` is said of the pairs."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"png": _png, "svg": _svg}
    template = environment.from_string(
        (files("qvit.report") / "templates" / "preview.html").read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        found=found,
        facts=facts(found),
        sheet_told=sheet_told(found),
        counts_told=counts_told(found),
        histograms=_histograms(found),
        histogram_told=HISTOGRAM_TOLD,
        pairs=pairs,
        pairs_told=told,
        colours=dict(zip(found.images, COLOURS, strict=False)),
        most=max(row.counts[split] / total for row in found.counted for split, total in found.images.items()),
        share=share,
        enlarged=enlargement,
        side=SIDE,
        space=SPACE,
        pair_side=PAIR_SIDE,
    )


def _histograms(found: Survey) -> list[Chart]:
    charts = []
    for place, channel in enumerate(CHANNELS[found.info.channels]):
        with drawing(2.8) as (figure, axes):
            told = "; ".join(histogram(axes, found, place))
            charts.append(Chart(channel, svg(figure), f"Histogram of levels, {channel}; {told}."))
    return charts


def _png(image: Image) -> str:
    """Return an image as the address of a PNG that it holds itself."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _svg(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
