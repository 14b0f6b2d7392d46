"""The picture of an explained image: its maps and their titles."""

from itertools import pairwise

import numpy as np
import pytest

from qvit.answers.explaining import KINDS, Case, Picked
from qvit.answers.maps import Maps
from qvit.answers.predictor import Prediction
from qvit.report.explanation import Cell, draw_case, draw_sheet

RNG = np.random.default_rng(0)


def case(*, channels: int = 3, wires: bool = True, attention: bool = True) -> Case:
    found = Maps(
        RNG.random((8, 8)),
        RNG.normal(size=(2, 2)),
        RNG.random((2, 2)) if attention else None,
        RNG.random((1, 2, 2, 2)) if attention else None,
        RNG.uniform(-1, 1, (1, 3, 4, 2, 2)) if wires else None,
    )
    image = RNG.integers(0, 256, (channels, 8, 8), dtype=np.uint8)
    said = Prediction("p.png", "cyst", 0.75, True, {"cyst": 0.75, "$x$": 0.25}, ("cyst",), (), 2.0, True)
    return Case(image, said, "cyst", found)


@pytest.mark.long
def test_maps_have_titles() -> None:
    figure = draw_case([("mine", case())])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[0] == "mine"
    assert titles[1:3] == ["rollout", "saliency"]
    assert titles[3].startswith("occlusion, ±")
    assert titles[4:6] == ["block 1, head 1", "block 1, head 2"]
    assert titles[6:8] == ["queries 1, head 1 ⟨Z0⟩", "queries 1, head 1 ⟨Z1⟩"]
    assert titles[-1] == "values 1, head 2 ⟨Z1⟩"
    assert len(titles) == 6 + 12
    assert [text.get_text() for text in figure.texts] == [
        "mine: cyst with 0.750, withheld, unlike the images trained on"
    ]


@pytest.mark.long
def test_runs_are_drawn_below_each_other() -> None:
    figure = draw_case([("one", case()), ("other", case(channels=1, wires=False, attention=False))])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[18:20] == ["other", "saliency"]
    assert figure.texts[0].get_text().count("\n") == 1
    figure.canvas.draw()


def test_a_map_is_laid_over_the_image_in_grey() -> None:
    from matplotlib.figure import Figure

    axis = Figure().add_axes((0, 0, 1, 1))
    image = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Cell("map", image, np.ones((2, 2)), "PuOr", -1, 1).draw(axis)
    below, above = axis.images
    assert np.array_equal(below.get_array(), image.mean(axis=2))
    assert below.get_extent() == above.get_extent()
    assert 0.3 < above.get_alpha() < 0.9
    assert above.get_clim() == (-1, 1)
    alone = Figure().add_axes((0, 0, 1, 1))
    Cell("image", image).draw(alone)
    assert np.array_equal(alone.images[0].get_array(), image)


@pytest.mark.long
def test_a_contact_sheet_has_a_heading_for_each_kind_and_a_column_for_each_image() -> None:
    shown = [
        (Picked(kind, place, "cyst"), [("one", case()), ("other", case(attention=False, wires=False))])
        for kind, count in ((KINDS[0], 4), (KINDS[2], 2))
        for place in range(count)
    ]
    figure = draw_sheet(shown)
    assert [text.get_text() for text in figure.texts] == [KINDS[0], KINDS[2]]
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == (4 + 2) * (1 + 2 + 1)
    assert titles[0] == "p.png\ntrue: cyst"
    assert titles[4] == "one: cyst 0.75\nrollout"
    assert titles[12] == "other: cyst 0.75\nocclusion"
    boxes = [axis.get_position() for axis in figure.axes]
    for one, two in pairwise(boxes):
        assert not one.overlaps(two)
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= 1
    figure.canvas.draw()
    heading = figure.texts[0].get_window_extent()
    title = figure.axes[0].title.get_window_extent()
    assert heading.y0 > title.y1, "nothing is written over another"
