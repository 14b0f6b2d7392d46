"""`qvit circuit`: drawing and facts, the list of ansätze, pictures, and mistakes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qvit.quantum import ANSATZE, Ansatz, CircuitBuilder, get_ansatz, register_ansatz, w, x
from qvit.quantum.draw import as_text

Qvit = Callable[..., Any]
Tree = Callable[[Path], dict[str, bytes | None]]

STRONG = """\
strongly_entangling on 2 qubit(s), 1 layer(s) (Schuld et al. 2018, arXiv:1804.00633)

0: ─RY(x0)─RZ(w0)─RY(w1)─RZ(w2)─╭●─╭⊕─┤ ⟨Z⟩
1: ─RY(x1)─RZ(w3)─RY(w4)─RZ(w5)─╰⊕─╰●─┤ ⟨Z⟩

inputs            2
weights           6 (1 × 2 × 3)
outputs           2
gates             10
entangling gates  2; they matter
Pauli rotations   6 after compilation
arithmetic        complex
without effect    2 weight(s) cannot influence any output: 2, 5.
"""


def facts(qvit: Qvit, *arguments: object) -> dict[str, Any]:
    told = qvit("circuit", *arguments, "--json")
    assert (told.code, told.err) == (0, "")
    return json.loads(told.out)


def test_what_it_prints(qvit: Qvit) -> None:
    assert qvit("circuit", "strongly_entangling", "--qubits", 2) == (0, STRONG, "")


def test_defaults(qvit: Qvit) -> None:
    told = qvit("circuit", "ry_ring")
    assert told == qvit("circuit", "ry_ring", "--qubits", 4, "--layers", 1)
    assert "ry_ring on 4 qubit(s), 1 layer(s) (Boucher et al. 2025" in told.out
    assert "arithmetic        real\nwithout effect    nothing found\n" in told.out


@pytest.mark.parametrize("name", list(ANSATZE))
def test_the_drawing_of_every_ansatz(qvit: Qvit, name: str) -> None:
    told = qvit("circuit", name, "--qubits", 4, "--layers", 2)
    assert as_text(get_ansatz(name).build(4, 2)) in told.out


def test_facts_as_json(qvit: Qvit) -> None:
    assert facts(qvit, "strongly_entangling", "--qubits", 2) == {
        "ansatz": "strongly_entangling",
        "source": "Schuld et al. 2018, arXiv:1804.00633",
        "qubits": 2,
        "layers": 1,
        "inputs": 2,
        "weights": 6,
        "weight_shape": [1, 2, 3],
        "outputs": ["Z0", "Z1"],
        "gates": 10,
        "entangling_gates": 2,
        "pauli_rotations": 6,
        "arithmetic": "complex",
        "entangling_matters": True,
        "dead_inputs": [],
        "dead_weights": [2, 5],
        "complaints": ["2 weight(s) cannot influence any output: 2, 5."],
    }
    assert facts(qvit, "amplitude_ring", "--qubits", 3)["inputs"] == 8


@pytest.fixture
def pointless() -> Iterator[str]:
    """A circuit in which neither the CNOT nor the second input does anything."""

    def build(n: int, n_layers: int) -> Any:
        return CircuitBuilder(2).add("RY", 0, angle=x(0) + w(0)).add("RZ", 1, angle=x(1)).add("CNOT", 1, 0).build()

    register_ansatz(Ansatz("pointless", lambda n, n_layers: (1,), build))
    yield "pointless"
    del ANSATZE["pointless"]


def test_entangling_gates_that_do_nothing(qvit: Qvit, pointless: str) -> None:
    told = qvit("circuit", pointless, "--qubits", 2).out
    assert told.startswith("pointless on 2 qubit(s), 1 layer(s)\n\n")
    assert "without effect    1 input(s) cannot influence any output: 1.\n" in told
    known = facts(qvit, pointless, "--qubits", 2)
    without = "entangling gates  1; the outputs are the same without them\n"
    assert (without in told) == (not known["entangling_matters"])
    assert "entangling gates  none\n" in qvit("circuit", "no_entangler").out
    assert facts(qvit, "no_entangler")["entangling_matters"] is False


def test_a_large_circuit_is_drawn_but_not_analysed(qvit: Qvit) -> None:
    told = qvit("circuit", "ry_ring", "--qubits", 1000)
    assert (told.code, told.err) == (0, "")
    assert "Wires 8 to 991" in told.out
    assert "entangling gates  1000; effect not analysed\nanalysis          left out" in told.out
    known = facts(qvit, "ry_ring", "--qubits", 1000)
    assert (known["gates"], known["pauli_rotations"], known["complaints"]) == (3000, None, None)


@pytest.mark.long
def test_all_ansatze(qvit: Qvit) -> None:
    told = qvit("circuit", "--qubits", 3, "--layers", 2)
    assert (told.code, told.err) == (0, "")
    lines = {line.split()[1]: line for line in told.out.splitlines() if line.startswith("│")}
    assert list(lines) == list(ANSATZE)
    for name, row in ANSATZE.items():
        assert row.source in lines[name]
    assert " 2 × 3 × 3 " in lines["strongly_entangling"]
    assert " 19 " in lines["unlu_qk"]
    assert " – " in lines["butterfly"]
    rows = json.loads(qvit("circuit", "--qubits", 3, "--layers", 2, "--json").out)
    assert [row["ansatz"] for row in rows] == list(ANSATZE)
    assert rows[0] == {
        "ansatz": "ry_ring",
        "weight_shape": [2, 3],
        "source": "Boucher et al. 2025, arXiv:2503.07294",
        "problem": None,
    }
    [butterfly] = [row for row in rows if row["ansatz"] == "butterfly"]
    assert butterfly["weight_shape"] is None
    assert "2, 4, 8" in butterfly["problem"]


# --- pictures ---


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "start", "part"),
    [("p.png", b"\x89PNG\r\n\x1a\n", b"IHDR"), ("p.svg", b"<?xml", b"<svg"), ("p.PDF", b"%PDF-", b"%%EOF")],
)
def test_a_picture(qvit: Qvit, tmp_path: Path, name: str, start: bytes, part: bytes) -> None:
    plain = qvit("circuit", "pyramid")
    told = qvit("circuit", "pyramid", "--picture", tmp_path / name)
    assert told == (0, plain.out, f"Picture: {tmp_path / name}\n")
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert part in content
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.long
def test_a_tall_picture_has_fewer_pixels_an_inch(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def height() -> int:
        assert qvit("circuit", "no_entangler", "--qubits", 20, "--picture", tmp_path / "p.png").code == 0
        return int.from_bytes((tmp_path / "p.png").read_bytes()[20:24], "big")

    assert 1500 < height() < 2000
    monkeypatch.setattr("qvit.cli.circuit.MAX_PIXELS", 1000)
    assert 990 <= height() <= 1000


def test_a_picture_and_json(qvit: Qvit, tmp_path: Path) -> None:
    told = qvit("circuit", "pyramid", "--json", "--picture", tmp_path / "p.png")
    assert json.loads(told.out)["ansatz"] == "pyramid"
    assert (tmp_path / "p.png").is_file()


# --- mistakes ---


def told_off(told: Any, *parts: str) -> None:
    assert told.code == 2, told.err
    assert told.err.startswith("Error: ")
    assert told.err.count("\n") == 1, told.err
    for part in parts:
        assert part in told.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["ry_rng"], "There is no ansatz 'ry_rng'. Did you mean 'ry_ring'?"),
        (["ry_ring", "--qubits", 0], "--qubits must be from 1 to 1000, got 0."),
        (["ry_ring", "--qubits", 1001], "--qubits must be from 1 to 1000, got 1001."),
        (["ry_ring", "--layers", -1], "--layers must be from 1 to 1000, got -1."),
        (["--qubits", 0], "--qubits must be from 1 to 1000, got 0."),
        (["ry_ring", "--qubits", "few"], "Invalid value for '--qubits'"),
        (["butterfly", "--qubits", 3], "needs 2, 4, 8"),
        (["pyramid", "--qubits", 1], "at least two wires, got 1"),
        (["ry_ring", "--picture", "p.gif"], "ends in .png, .svg, .pdf, got p.gif"),
        (["ry_ring", "--picture", "png"], "ends in .png, .svg, .pdf, got png"),
        (["--picture", "p.png"], "--picture needs the name of a circuit."),
    ],
)
def test_mistakes(
    qvit: Qvit, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = qvit("circuit", *arguments)
    told_off(told, part)
    assert told.out == ""
    assert tree(tmp_path) == {}


@pytest.mark.long
def test_pictures_that_cannot_be(qvit: Qvit, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    before = tree(tmp_path)
    for path in (tmp_path / "file" / "p.png", tmp_path / "nowhere" / "p.png", tmp_path / "folder.png"):
        told = qvit("circuit", "ry_ring", "--picture", path)
        told_off(told, f"Cannot write {path}")
        assert "⟨Z⟩" in told.out, "what was found before the mistake was noticed"
    told_off(qvit("circuit", "ry_ring", "--qubits", 65, "--picture", tmp_path / "p.png"), "up to 64 wires, got 65")
    assert tree(tmp_path) == before
