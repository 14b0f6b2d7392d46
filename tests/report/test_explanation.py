"""The picture of an explained image: its maps and their titles."""

import numpy as np
import pytest

from qvit.answers.explaining import Case
from qvit.answers.maps import Maps
from qvit.answers.predictor import Prediction
from qvit.report.explanation import draw_case

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
    assert figure.get_suptitle() == "mine: cyst with 0.750, withheld, unlike the images trained on"


@pytest.mark.long
def test_runs_are_drawn_below_each_other() -> None:
    figure = draw_case([("one", case()), ("other", case(channels=1, wires=False, attention=False))])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[18:20] == ["other", "saliency"]
    assert figure.get_suptitle().count("\n") == 1
    figure.canvas.draw()
