"""Parameters against AUC: what is drawn, where, and that all of it can be read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qvit.report import front as module
from qvit.report.drawing import drawing
from qvit.report.front import draw_front
from report.test_tuned import BEST, FIRST, PLAIN, VERDICT, standing


@pytest.mark.long
def test_the_picture_is_written_as_svg_and_png(tmp_path: Path) -> None:
    paths = draw_front(VERDICT, "breastmnist", tmp_path, 0.9)
    assert [path.name for path in paths] == ["front.svg", "front.png"]
    text = paths[0].read_text()
    for words in ("draw-7, 0.870", "defaults, 0.800", "logistic, 0.850", "156 test images, 0.900", "dropped after"):
        assert words in text, "text is text"
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    again = draw_front(VERDICT, "breastmnist", tmp_path, 0.9)
    assert again[0].read_text() == text


def drawn(verdict: Any, test: float | None = None) -> dict[str, tuple[list[float], list[float]]]:
    """Return the points of each kind, by their words in the legend, and the axis of AUC."""
    with drawing(3.9) as (figure, axes):
        module._draw(figure, axes, verdict, "title", test)
        lines = {str(line.get_label()): line for line in axes.get_lines()}
        found = {
            name: (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
            for name, line in lines.items()
        }
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1, "the legend is not cut off"
        return found | {"axis": (list(axes.get_xlim()), list(axes.get_ylim()))}


@pytest.mark.long
def test_each_kind_of_candidate_is_where_it_stands() -> None:
    found = drawn(VERDICT, 0.9)
    assert found["judged on 15 folds"] == ([818, 834], [0.87, 0.8])
    assert found["dropped after fewer than 15 folds"] == ([800], [0.7])
    assert found["logistic, 0.850"] == ([101], [0.85])
    assert found["draw-7, 0.870"] == ([818], [0.87])
    assert found["156 test images, 0.900"] == ([818], [0.9])
    (left, right), (low, high) = found["axis"]
    assert left < 101 < 834 < right
    assert low < 0.7 < 0.9 < high <= 1.0


@pytest.mark.long
def test_what_is_far_below_is_named_and_not_drawn() -> None:
    poor = standing("commonest", 0.5, 2, baseline=True)
    verdict = replace(VERDICT, chosen="defaults", standings=(BEST, FIRST, PLAIN, poor), front=("logistic", "draw-7"))
    found = drawn(verdict)
    assert found["axis"][1][0] == pytest.approx(0.75 - module.ROOM), "where the interval of the chosen one ends"
    assert "commonest, 0.500" in found
    assert "draw-7, 0.870" not in found, "only the chosen one and the first have names"
