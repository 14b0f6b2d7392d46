"""Pictures of benchmarks show every row."""

from pathlib import Path
from typing import Any

import pytest

from qvit.bench.engines import EngineRow
from qvit.bench.gradients import GradientRow
from qvit.bench.layer import LayerRow
from qvit.bench.pictures import draw_engines, draw_gradients, draw_layer, draw_steps, save
from qvit.bench.step import StepRow


def lines(panel: Any) -> list[Any]:
    return [line.get_xydata().tolist() for line in panel.get_lines()]


def labels(panel: Any) -> list[str]:
    return [text.get_text() for text in panel.get_legend().get_texts()]


def ticks(panel: Any) -> list[str]:
    return [text.get_text() for text in panel.get_xticklabels()]


def test_a_layer_against_its_peers() -> None:
    rows = [LayerRow("ry_ring", n, depth, 9, "auto", 0.1 * n, 5.0 * n) for n in (4, 2) for depth in (2, 1)]
    figure = draw_layer(rows)
    assert [panel.get_title() for panel in figure.axes] == ["1 layer", "2 layers"]
    assert lines(figure.axes[0]) == [[[2.0, 0.2], [4.0, 0.4]], [[2.0, 10.0], [4.0, 20.0]]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["qvit", "PennyLane TorchLayer, default.qubit"]
    assert figure.get_suptitle() == "ry_ring, 9 tokens"
    assert [panel.get_xlabel() for panel in figure.axes] == ["qubits", "qubits"]
    assert [panel.get_ylabel() for panel in figure.axes] == ["forward + backward, ms", ""]
    assert ticks(figure.axes[0]) == ["2", "4"]
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")
    assert figure.get_size_inches().tolist() == [4.2 * 2 + 1.0, 4.6]


def test_steps_beside_those_of_the_twins() -> None:
    rows = [StepRow("qvit_a", 2, "vit_a", 64, 6.0, 4.0), StepRow("qvit_b", 1, "vit_b", 64, 1.0, 4.0)]
    (panel,) = draw_steps(rows).axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in panel.patches]
    assert bars == [pytest.approx(bar) for bar in ((-0.2, 6.0), (0.8, 1.0), (0.2, 4.0), (1.2, 4.0))]
    assert labels(panel) == ["quantum", "classical twin"]
    assert [(text.get_text(), text.xy) for text in panel.texts] == [("1.50", (0.0, 6.0)), ("0.25", (1.0, 4.0))]
    assert ticks(panel) == ["qvit_a\nL=2", "qvit_b\nL=1"]
    assert panel.get_ylabel() == "training step, batch 64, ms"


def test_engines_with_the_choice_ringed() -> None:
    rows = [
        EngineRow("ry_ring", 2, 1, 9, "unitary", {"statevector": 0.5, "unitary": 0.25, "heisenberg": None}, {}),
        EngineRow("ry_ring", 4, 2, 1, "statevector", {"statevector": 0.1, "unitary": None, "heisenberg": None}, {}),
    ]
    figure = draw_engines(rows)
    one, nine = figure.axes
    assert [panel.get_title() for panel in (one, nine)] == ["1 token", "9 tokens"]
    assert lines(nine) == [[[2.0, 0.5]], [[pytest.approx(2.06), 0.25]]]
    assert [line.get_markeredgecolor() for line in nine.get_lines()] == ["none", "black"]
    assert [line.get_markersize() for line in nine.get_lines()] == [4, 4]
    assert lines(one)[0] == [[4.0, 0.1]]
    assert one.get_lines()[0].get_markersize() == 5
    assert one.get_lines()[0].get_markeredgecolor() == "black"
    assert labels(one) == ["statevector", "unitary", "chosen (size: layers)"]
    assert [panel.get_xlabel() for panel in (one, nine)] == ["qubits", "qubits"]
    assert ticks(one) == ticks(nine) == ["2", "4"]
    assert one.get_ylabel() == "forward + backward, ms"
    assert figure.get_suptitle() == "ry_ring: engines and the choice of the cost model"


def test_gradients_against_qubits_and_layers_with_a_fit() -> None:
    rows = [GradientRow("ry_ring", n, 1, 9, 0.1, 2.0**-n) for n in (4, 2, 3)]
    rows += [GradientRow("ry_ring", n, 2, 9, 0.1, 0.1 * n) for n in (2, 3)]
    rows += [GradientRow("ry_ring", 4, 2, 9, 0.1, 0.0)]  # nothing to be drawn on a logarithmic axis
    figure = draw_gradients(rows)
    left, right = figure.axes
    assert labels(left) == ["1 layer, ∝ 0.50ⁿ", "2 layers"]
    assert labels(right) == ["2 qubits", "3 qubits", "4 qubits"]
    assert lines(left)[0] == [[2.0, 0.25], [3.0, 0.125], [4.0, 0.0625]]
    assert lines(right) == [[[1, 0.25], [2, 0.2]], [[1, 0.125], [2, pytest.approx(0.3)]], [[1, 0.0625]]]
    assert [panel.get_xlabel() for panel in (left, right)] == ["qubits", "layers"]
    assert left.get_ylabel() == "variance of ∂⟨Z₀⟩/∂w, mean over weights"
    assert figure.get_suptitle() == "ry_ring: gradient variance over 9 random circuits"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a", b"\x89PNG")]
)
def test_a_figure_is_written_as_its_name_says(name: str, start: bytes, tmp_path: Path) -> None:
    figure = draw_gradients([GradientRow("ry_ring", 2, 1, 9, 0.1, 0.5)])
    save(figure, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]
