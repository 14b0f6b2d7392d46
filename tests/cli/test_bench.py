"""`qvit bench` on small sizes: tables, JSON, files, and what it refuses."""

import json
from pathlib import Path

import pytest

from qvit.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_layer_prints_a_table_and_writes_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sizes", "2x1,3x2", "--tokens", "5", "--threads", "1"]
    code, out, err = run(capsys, "layer", *options, "--peers", "pennylane", "--out", str(tmp_path / "b"))
    assert code == 0, err
    assert "2 × 1" in out
    assert "PennyLane" in out
    facts = json.loads((tmp_path / "b" / "layer.json").read_text())
    assert [(row["qubits"], row["layers"]) for row in facts["rows"]] == [(2, 1), (3, 2)]
    assert all(row["pennylane_ratio"] > 0 for row in facts["rows"])
    assert facts["machine"]["threads"] == 1
    assert (tmp_path / "b" / "layer.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("layer", ["--sizes", "2x1", "--tokens", "3", "--peers", "none", "--threads", "1"]),
        ("step", ["--batch", "2", "--repeats", "3"]),
        ("engines", ["--qubits", "2", "--layers", "1,2", "--tokens", "1", "--repeats", "3"]),
        ("gradients", ["--qubits", "2,3", "--layers", "1", "--samples", "5", "--threads", "1"]),
    ],
)
def test_json_is_what_a_script_can_read(
    command: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, command, *options, "--json", "--out", str(tmp_path))
    assert code == 0, err
    facts = json.loads(out)
    assert facts["benchmark"] == command
    assert facts["rows"]
    assert json.loads((tmp_path / f"{command}.json").read_text()) == facts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layer", "--sizes", "4"], "QUBITSxLAYERS"),
        (["layer", "--sizes", "0x1"], "QUBITSxLAYERS"),
        (["layer", "--peers", "penylane"], "Did you mean 'pennylane'?"),
        (["layer", "--ansatz", "ry_rin", "--sizes", "2x1"], "Did you mean 'ry_ring'?"),
        (["engines", "--qubits", "two"], "--qubits takes whole numbers"),
        (["engines", "--qubits", "1_0"], "--qubits takes whole numbers"),
        (["gradients", "--layers", "0"], "--layers takes whole numbers"),
        (["gradients", "--samples", "1"], "samples"),
        (["step", "--batch", "0"], "batch"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    code, _, err = run(capsys, "gradients", "--qubits", "2", "--layers", "1", "--samples", "3", "--out", str(taken))
    assert code == 2
    assert "Cannot use" in err
