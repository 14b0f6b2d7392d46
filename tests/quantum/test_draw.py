"""Drawings: the expected texts below are the specification; figures are measured after rendering."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from qvit.errors import CircuitError
from qvit.quantum import ANSATZE, Angle, Circuit, CircuitBuilder, Gate, Pauli, X, Y, Z, get_ansatz, w, x
from qvit.quantum.circuit import GATE_WIRES, ROTATIONS
from qvit.quantum.draw import as_figure, as_text

Work = Callable[[Callable[[], object]], int]


def one_of_each(n: int = 4) -> Circuit:
    """A circuit of every gate, each with its wires the other way round as well; angles of every kind."""
    angles = [x(0), w(0), 0.5 * x(1) - w(1), 0.25 + 0.0 * x(0)]
    builder = CircuitBuilder(n).load_amplitudes(0, 3)
    for place, (name, count) in enumerate(GATE_WIRES.items()):
        wires = [(place + 2 * k) % n for k in range(count or 2)]
        word = "" if count else "YX"
        for ordered in (wires, wires[::-1]):
            angle = angles[place % 4] if name in ROTATIONS else None
            builder.add(name, *ordered, angle=angle, word=word)
    return builder.measure(*map(Z, range(n)), X(0) @ Y(2)).build()


def lines(circuit: Circuit, **options: Any) -> list[str]:
    return as_text(circuit, **options).splitlines()


# --- text ---


def test_a_ring() -> None:
    assert lines(get_ansatz("ry_ring").build(3, 2)) == [
        "0: ─RY(x0)─RY(w0)─╭●────╭⊕─RY(w3)─╭●────╭⊕─┤ ⟨Z⟩",
        "1: ─RY(x1)─RY(w1)─╰⊕─╭●─┼──RY(w4)─╰⊕─╭●─┼──┤ ⟨Z⟩",
        "2: ─RY(x2)─RY(w2)────╰⊕─╰●─RY(w5)────╰⊕─╰●─┤ ⟨Z⟩",
    ]


def test_amplitudes_and_beam_splitters() -> None:
    assert lines(get_ansatz("pyramid").build(3, 1)) == [
        "0: ─╭ψ(x)─╭RBS(w0)──────────╭RBS(w2)─┤ ⟨Z⟩",
        "1: ─├ψ(x)─╰RBS─────╭RBS(w1)─╰RBS─────┤ ⟨Z⟩",
        "2: ─╰ψ(x)──────────╰RBS──────────────┤ ⟨Z⟩",
    ]


def test_one_readout() -> None:
    assert lines(get_ansatz("unlu_qk").build(2, 1)) == [
        "0: ─RX(x0)─RX(w0)─RY(w1)─╭●─╭⊕─RY(w4)─╭●─╭⊕─RY(w6)─┤ ⟨Z⟩",
        "1: ─RX(x1)─RX(w2)─RY(w3)─╰⊕─╰●─RY(w5)─╰⊕─╰●────────┤",
    ]


def test_no_gates() -> None:
    assert lines(CircuitBuilder(1).build()) == ["0: ─┤ ⟨Z⟩"]
    assert lines(CircuitBuilder(1).load_amplitudes(0).build()) == ["0: ─ψ(x)─┤ ⟨Z⟩"]


def test_every_kind_of_gate() -> None:
    circuit = (
        CircuitBuilder(4)
        .add("H", 0)
        .add("T", 3)
        .add("CZ", 3, 1)
        .add("SWAP", 0, 2)
        .add("CRY", 2, 0, angle=x(0) + w(3))
        .add("RXX", 3, 1, angle=2 * w(0))
        .add("PauliRot", 2, 0, 3, angle=-x(1), word="XIZ")
        .add("PauliRot", 1, angle=0.5, word="Y")
        .build()
    )
    # CZ and SWAP cross each other and need a column each; so do the last two, as the first of them crosses wire 1.
    assert lines(circuit) == [
        "0: ─H────╭×─╭RY(x0 + w3)────────────╭I─────────────┤ ⟨Z⟩",
        "1: ───╭●─┼──┼────────────╭RXX───────┼───────Y(0.5)─┤ ⟨Z⟩",
        "2: ───┼──╰×─╰●───────────┼──────────├X(-x1)────────┤ ⟨Z⟩",
        "3: ─T─╰●─────────────────╰RXX(2·w0)─╰Z─────────────┤ ⟨Z⟩",
    ]


@pytest.mark.parametrize("axis", "XYZ")
def test_a_controlled_rotation_shows_its_axis_and_angle_on_the_target(axis: str) -> None:
    circuit = CircuitBuilder(2).add(f"CR{axis}", 1, 0, angle=w(0)).build()
    assert lines(circuit) == [f"0: ─╭R{axis}(w0)─┤ ⟨Z⟩", "1: ─╰●──────┤ ⟨Z⟩"]


def test_columns_are_packed() -> None:
    """Each gate stands as far left as the wires that it acts on or crosses allow, and keeps its place on them."""
    circuit = (
        CircuitBuilder(4)
        .add("CNOT", 0, 2)
        .add("H", 1)  # crossed by the CNOT, so not in its column
        .add("X", 3)  # in the first column
        .add("Y", 3)  # in the second
        .add("CNOT", 3, 2)  # in the third, as Y stands before it
        .add("Z", 0)  # back in the second
        .build()
    )
    assert lines(circuit) == [
        "0: ─╭●─Z────┤ ⟨Z⟩",
        "1: ─┼──H────┤ ⟨Z⟩",
        "2: ─╰⊕───╭⊕─┤ ⟨Z⟩",
        "3: ──X─Y─╰●─┤ ⟨Z⟩",
    ]


def test_outputs() -> None:
    plain = CircuitBuilder(3).add("H", 0)
    assert lines(plain.measure(X(0), -Z(0), Y(2)).build()) == ["0: ─H─┤ ⟨X⟩ ⟨-Z⟩", "1: ───┤", "2: ───┤ ⟨Y⟩"]
    longer = CircuitBuilder(3).add("H", 0).measure(Z(1), X(0) @ Z(2), -(Y(0) @ Y(1)))
    assert lines(longer.build()) == [
        "0: ─H─┤", "1: ───┤ ⟨Z⟩", "2: ───┤", "", "Outputs: ⟨Z1⟩, ⟨X0·Z2⟩, ⟨-Y0·Y1⟩",
    ]  # fmt: skip
    backwards = CircuitBuilder(2).measure(Z(1), Z(0))
    assert lines(backwards.build()) == ["0: ─┤ ⟨Z⟩", "1: ─┤ ⟨Z⟩", "", "Outputs: ⟨Z1⟩, ⟨Z0⟩"]


def test_many_outputs_are_counted() -> None:
    everything = [Pauli.of("Z" * 60)] * 3 + [X(0) @ Z(k) for k in range(1, 60)]
    told = lines(CircuitBuilder(60).measure(*everything).build())
    assert max(map(len, told)) <= 120
    text = " ".join(told[61:])
    assert text.startswith("Outputs: ⟨Z0·Z1·Z2")
    assert text.endswith("⟨X0·Z21⟩ and 38 more")


def test_folding() -> None:
    builder = CircuitBuilder(2)
    for k in range(4):
        builder.add("RY", 0, angle=x(k) + 0.5 * w(k)).add("CNOT", 0, 1)
    assert lines(builder.build(), width=60) == [
        "0: ─RY(x0 + 0.5·w0)─╭●─RY(x1 + 0.5·w1)─╭●─…",
        "1: ─────────────────╰⊕─────────────────╰⊕─…",
        "",
        "0: …─RY(x2 + 0.5·w2)─╭●─RY(x3 + 0.5·w3)─╭●─┤ ⟨Z⟩",
        "1: …─────────────────╰⊕─────────────────╰⊕─┤ ⟨Z⟩",
    ]


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("name", ["ry_ring", "strongly_entangling", "amplitude_ring", "butterfly"])
def test_nothing_is_wider_than_asked(name: str, width: int) -> None:
    told = lines(get_ansatz(name).build(4, 5), width=width)
    assert max(map(len, told)) <= width
    assert all(len(line) > width / 2 for line in told if line.endswith("…")), "strips are well filled"


def test_the_width_is_used_up_but_not_exceeded() -> None:
    longest = set()
    for count in range(20, 50):
        circuit = Circuit(11, 0, 0, (Gate("H", (0,)),) * count)
        longest |= {len(line) for line in lines(circuit, width=60)}
    assert max(longest) in (59, 60)


def test_folded_strips_hold_every_gate_once() -> None:
    circuit = get_ansatz("reupload").build(5, 7)
    rows = lines(circuit, width=100)
    assert len(rows) > 12
    for gate in circuit.gates:
        if gate.angle is not None:
            named = f"─{gate.name}({gate.angle})─"
            held = [row for row in rows if named in row]
            assert all(row.startswith(f"{gate.wires[0]}: ") for row in held)
            assert sum(row.count(named) for row in held) == (7 if gate.angle.inputs else 1)
    assert sum(row.count("●") for row in rows) == sum(row.count("⊕") for row in rows) == 35


@pytest.mark.parametrize(("width", "first"), [(1, 24), (60, 24), (61, 25), (62, 25), (63, 26)])
def test_as_many_gates_as_fit_are_in_a_strip(width: int, first: int) -> None:
    """The last strip is longest: `0: …─`, two characters a gate, then `┤ ⟨Z⟩`; sixty is the least width."""
    told = lines(Circuit(1, 0, 0, (Gate("H", (0,)),) * 40), width=width)
    assert told == ["0: ─" + "H─" * first + "…", "", "0: …─" + "H─" * (40 - first) + "┤ ⟨Z⟩"]


@pytest.mark.parametrize(
    ("constant", "shown"),
    [(0.125, "x0 + x1 + x2 + x3 + x4 + 0.125"), (0.0625, "x0 + x1 + x2 + x3 + x4 + …")],
)
def test_a_long_angle_is_cut(constant: float, shown: str) -> None:
    """After thirty characters, a quarter of the width, and a whole term."""
    angle = sum((x(k) for k in range(5)), Angle(constant=constant))
    [line] = lines(CircuitBuilder(1).add("RY", 0, angle=angle).build())
    assert line == f"0: ─RY({shown})─┤ ⟨Z⟩"


def test_long_outputs_are_cut() -> None:
    five = [X(0), Y(0), Z(0), X(0), Y(0)]
    for signs, shown in ((1, "⟨-X⟩ ⟨Y⟩ ⟨Z⟩ ⟨X⟩ ⟨Y⟩"), (2, "⟨-X⟩ ⟨-Y⟩ ⟨Z⟩ ⟨X⟩ …")):
        read = [-string for string in five[:signs]] + five[signs:]
        assert lines(CircuitBuilder(1).measure(*read).build()) == [f"0: ─┤ {shown}"]
    ten = Pauli.of("Z" * 10)
    for string, shown in ((-ten, str(-ten)), (ten @ Z(10), f"{ten}…"), (-(ten @ Z(10)), f"{str(-ten)[:29]}…")):
        assert lines(CircuitBuilder(11).measure(string).build(), width=60)[-1] == f"Outputs: ⟨{shown}⟩"


@pytest.mark.parametrize(("count", "end"), [(24, "⟨-X0·Z24⟩"), (25, "⟨-X0·Z24⟩ and 1 more")])
def test_two_dozen_outputs_are_listed(count: int, end: str) -> None:
    """Lines break between outputs, never at a sign, and start under the first."""
    told = lines(CircuitBuilder(26).measure(*(-(X(0) @ Z(k + 1)) for k in range(count))).build(), width=60)[27:]
    assert told[0] == "Outputs: ⟨-X0·Z1⟩, ⟨-X0·Z2⟩, ⟨-X0·Z3⟩, ⟨-X0·Z4⟩, ⟨-X0·Z5⟩,"
    assert all(line.startswith(" " * 9 + "⟨-X0·Z") for line in told[1:])
    assert told[-1].endswith(end)


def test_every_gate_is_drawn() -> None:
    circuit = one_of_each()
    text = as_text(circuit)
    for gate in circuit.gates:
        names = {"CNOT": "●⊕", "CZ": "●", "SWAP": "×", "PauliRot": "XY"}.get(gate.name)
        for name in names or [gate.name.removeprefix("C")]:
            assert name in text, gate.name
        if gate.angle is not None:
            letter = gate.word[:1] or gate.name.removeprefix("C")
            assert text.count(f"{letter}({gate.angle})") >= 2
    assert set(GATE_WIRES) == {gate.name for gate in circuit.gates}


def test_random_circuits_are_rectangles(random_circuit: Callable[..., Circuit]) -> None:
    """Every line of a strip is as long as the others up to its end, and vertical lines have two ends."""
    for seed in range(20):
        for strip in as_text(random_circuit(seed)).split("\n\n"):
            rows = [row for row in strip.splitlines() if "─" in row]
            assert len({row.rfind("┤") if "┤" in row else row.rfind("…") for row in rows}) <= 1
            for above, below in pairwise(rows):
                shared = min(len(above), len(below))
                down = [place for place in range(shared) if above[place] in "╭├┼"]
                assert down == [place for place in range(shared) if below[place] in "╰├┼"]


def test_hundreds_of_wires(work: Work) -> None:
    some, more = get_ansatz("ry_ring").build(70, 2), get_ansatz("ry_ring").build(140, 2)
    assert work(lambda: as_text(more)) < 2.5 * work(lambda: as_text(some))
    rows = lines(get_ansatz("ry_ring").build(500, 1))
    assert max(map(len, rows)) <= 120
    assert rows[:8] == [row for row in rows if row.startswith(tuple(f"  {wire}: ─" for wire in range(8)))]
    assert rows[8].startswith("  ⋮ ")
    assert rows[9].startswith("492: ─RY(x492)─RY(w492)─")
    assert rows[-1] == "Wires 8 to 491 and the gates on them are left out."


def test_gates_that_reach_hidden_wires() -> None:
    circuit = CircuitBuilder(65).add("CNOT", 7, 8).add("CNOT", 64, 0).add("H", 30).add("CNOT", 40, 57).build()
    rows = lines(circuit)
    assert (rows[0], rows[6], rows[7]) == (
        " 0: ────╭⊕────┤ ⟨Z⟩",
        " 6: ────┼─────┤ ⟨Z⟩",
        " 7: ─╭●─┼─────┤ ⟨Z⟩",
    )
    assert rows[8].rstrip() == " ⋮   ╵  │  ╷"
    assert (rows[9], rows[16]) == ("57: ────┼──╰⊕─┤ ⟨Z⟩", "64: ────╰●────┤ ⟨Z⟩")
    assert len(rows) == 19
    assert len(lines(CircuitBuilder(64).build())) == 64


@pytest.mark.long
def test_thousands_of_gates(work: Work) -> None:
    some, more = (get_ansatz("strongly_entangling").build(3, layers) for layers in (15, 30))
    assert work(lambda: as_text(more)) < 2.5 * work(lambda: as_text(some))
    rows = lines(get_ansatz("strongly_entangling").build(5, 100))
    assert max(map(len, rows)) <= 120
    assert "RZ(w1499)" in rows[-1]


# --- figures ---


def boxes(figure: Figure) -> list[Rectangle]:
    [axes] = figure.axes
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def labels(figure: Figure) -> list[str]:
    [axes] = figure.axes
    return [text.get_text() for text in axes.texts]


def measured(figure: Figure) -> None:
    """Render; every letter lies in the axes, texts do not touch, a box holds its text, boxes do not overlap."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axes] = figure.axes
    whole = axes.get_window_extent()
    texts: list[Text] = list(axes.texts)
    extents = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    for text, extent in zip(texts, extents, strict=True):
        assert whole.x0 <= extent.x0 < extent.x1 <= whole.x1, text.get_text()
        assert whole.y0 <= extent.y0 < extent.y1 <= whole.y1, text.get_text()
    for place, extent in enumerate(extents):
        touching = [other for other in extents[place + 1 :] if extent.overlaps(other)]
        assert not touching, texts[place].get_text()
    frames = [box.get_window_extent() for box in boxes(figure)]
    for place, frame in enumerate(frames):
        assert not any(frame.overlaps(other) for other in frames[place + 1 :])
        for text, extent in zip(texts, extents, strict=True):
            if frame.overlaps(extent):
                assert frame.x0 < extent.x0 < extent.x1 < frame.x1, text.get_text()
                assert frame.y0 < extent.y0 < extent.y1 < frame.y1, text.get_text()


@pytest.mark.long
def test_a_figure_of_a_ring() -> None:
    figure = as_figure(get_ansatz("ry_ring").build(3, 2))
    assert len(boxes(figure)) == 9 + 2  # and two in the legend
    shown = labels(figure)
    assert sorted(text for text in shown if text.startswith("RY")) == sorted(
        [f"RY\nx{k}" for k in range(3)] + [f"RY\nw{k}" for k in range(6)]
    )
    assert shown.count("⟨Z⟩") == 3
    assert [text for text in shown if text.isdigit()] == ["0", "1", "2"]
    assert shown[:2] == ["inputs x", "trainable weights w"]
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert markers.count("+") == 6  # targets
    assert markers.count("o") == 12  # and their circles, and controls
    axes = figure.axes[0]
    assert sum(axes.get_xlim()) - max(float(line.get_path().vertices[-1, 0]) for line in axes.lines) < 1, (
        "little room to the right"
    )
    measured(figure)


def test_colours_tell_what_a_gate_depends_on() -> None:
    circuit = CircuitBuilder(1)
    for angle in (x(0), w(0), x(0) + w(0), 0.5):
        circuit.add("RY", 0, angle=angle)
    figure = as_figure(circuit.build())
    drawn = boxes(figure)
    legend, gates = drawn[:4], drawn[4:]
    styles = [(box.get_facecolor(), box.get_edgecolor(), box.get_linewidth()) for box in gates]
    assert len(set(styles)) == 4
    assert styles == [(box.get_facecolor(), box.get_edgecolor(), box.get_linewidth()) for box in legend]
    assert labels(figure)[:4] == ["inputs x", "trainable weights w", "inputs and weights", "fixed"]

    def grey(colour: Any) -> float:
        red, green, blue = colour[:3]
        return float(0.299 * red + 0.587 * green + 0.114 * blue)

    fills = sorted(grey(fill) for fill, _, _ in styles[:2] + styles[3:])
    assert all(later - earlier > 0.25 for earlier, later in pairwise(fills)), "told apart in grey"


@pytest.mark.parametrize("name", list(ANSATZE))
def test_figures_of_every_ansatz(name: str) -> None:
    circuit = get_ansatz(name).build(4 if name == "butterfly" else 3, 1)
    figure = as_figure(circuit)
    measured(figure)
    with_box = sum(2 if gate.name == "RBS" else gate.name not in ("CNOT", "CZ") for gate in circuit.gates)
    kinds = len(set(labels(figure)) & {"inputs x", "trainable weights w"})
    assert len(boxes(figure)) == with_box + kinds + bool(circuit.amplitudes)


@pytest.mark.long
def test_a_figure_of_every_gate() -> None:
    figure = as_figure(one_of_each())
    measured(figure)
    shown = "\n".join(labels(figure))
    for name in ("RX", "RYY", "RBS", "H", "T", "ψ(x)", "inputs and weights", "Outputs: ⟨Z0⟩"):
        assert name in shown


@pytest.mark.long
def test_random_figures(random_circuit: Callable[..., Circuit]) -> None:
    for seed in range(2):
        measured(as_figure(random_circuit(seed)))


@pytest.mark.long
def test_a_long_figure_is_folded() -> None:
    figure = as_figure(get_ansatz("strongly_entangling").build(2, 6))
    assert figure.get_size_inches()[0] < 13
    assert labels(figure).count("…") == 4  # where each of two wires is left, and where it goes on
    assert labels(figure).count("⟨Z⟩") == 2
    assert [text for text in labels(figure) if text in ("0", "1")] == ["0", "1"] * 2
    measured(figure)


def test_a_strip_of_a_figure_has_room_for_twenty_five_small_boxes() -> None:
    for count, strips in ((25, 1), (26, 2)):
        shown = labels(as_figure(Circuit(1, 0, 0, (Gate("H", (0,)),) * count)))
        assert shown.count("H") == count
        assert (shown.count("0"), shown.count("…")) == (strips, 2 * (strips - 1))


def test_a_long_angle_is_cut_in_a_figure() -> None:
    """After 26 characters, and a whole term."""
    for constant, shown in ((0.0625, "x0 + x1 + x2 + x3 + 0.0625"), (0.03125, "x0 + x1 + x2 + x3 + …")):
        angle = sum((x(k) for k in range(4)), Angle(constant=constant))
        assert f"RY\n{shown}" in labels(as_figure(CircuitBuilder(1).add("RY", 0, angle=angle).build()))


def test_a_figure_in_axes_of_ones_own() -> None:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    assert as_figure(get_ansatz("ry_ring").build(3, 1), ax=axes) is figure
    measured(figure)


def test_no_figure_is_left_to_pyplot() -> None:
    from matplotlib import pyplot as plt

    before, style = plt.get_fignums(), dict(matplotlib.rcParams)
    as_figure(get_ansatz("ry_ring").build(2, 1))
    assert (plt.get_fignums(), dict(matplotlib.rcParams)) == (before, style)


def test_a_figure_of_as_much_as_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four wires, and as many places as there is room for; what is beyond is refused (test_refusals.py)."""
    assert labels(as_figure(CircuitBuilder(64).build())).count("⟨Z⟩") == 64
    monkeypatch.setattr("qvit.quantum.draw.MAX_FIGURE_CELLS", 4)
    circuit = Circuit(2, 0, 0, (Gate("H", (0,)),) * 2)
    assert labels(as_figure(circuit)).count("H") == 2
    with pytest.raises(CircuitError, match=r"room for 4 places of gates; 2 wire\(s\) × 3 columns are 6\."):
        as_figure(replace(circuit, gates=circuit.gates[:1] * 3))
