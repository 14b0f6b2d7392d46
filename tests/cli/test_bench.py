"""`qvit bench`: tables, JSON and files of what was measured; what is measured is made up, but for gradients."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from qvit.bench.engines import EngineRow
from qvit.bench.gradients import GradientRow
from qvit.bench.layer import LayerRow
from qvit.bench.step import DEFAULT_PAIRS, StepRow

Qvit = Callable[..., Any]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that torch is told: the tests themselves keep theirs."""
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    return asked


def cells(out: str) -> list[list[str]]:
    """Return the lines of a table, its heads first."""
    return [re.split(" *[│┃] *", line)[1:-1] for line in out.splitlines() if line[:1] in "│┃"]


def layer_row(_ansatz: str, qubits: int, layers: int, *, tokens: int, peers: tuple[str, ...]) -> LayerRow:
    theirs = 12.0 if "pennylane" in peers else None
    return LayerRow("pyramid", qubits, layers, tokens, "heisenberg", 0.5, theirs, None, 0.125)


def engine_row(ansatz: str, qubits: int, layers: int, tokens: int, *, repeats: int) -> EngineRow:
    measured = {"unitary": 2.0 if qubits == 2 else 3.0, "heisenberg": 2.0, "statevector": None}
    return EngineRow(ansatz, qubits, layers, tokens, "unitary", measured, {"unitary": 1.5, "heisenberg": 9.0})


def test_a_table_of_layers(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are asked up to eight qubits."""
    monkeypatch.setattr("qvit.bench.layer.bench_layer", layer_row)
    options = ["--ansatz", "pyramid", "--sizes", "8x1, 9x2", "--tokens", "5", "--peers", "pennylane, tensorcircuit"]
    told = qvit("bench", "layer", *options)
    assert told.code == 0
    assert told.err == "pyramid, 8 qubits, 1 layer(s), 5 tokens …\npyramid, 9 qubits, 2 layer(s), 5 tokens …\n"
    assert told.out.startswith("pyramid, 5 tokens: forward + backward, ms")
    assert told.out.rstrip().endswith("Medians after warm-up, one run.")
    assert cells(told.out) == [
        ["qubits × layers", "engine", "qvit", "PennyLane", "ratio", "TensorCircuit", "ratio", "nn.Linear"],
        ["8 × 1", "heisenberg", "0.500", "12.000", "24×", "–", "–", "0.125"],
        ["9 × 2", "heisenberg", "0.500", "–", "–", "–", "–", "0.125"],
    ]


@pytest.mark.parametrize(
    ("asked", "installed", "peers"),
    [
        ("auto", ("pennylane",), ("pennylane",)),
        ("auto", (), ()),
        ("none", ("pennylane",), ()),
        ("tensorcircuit, pennylane,", (), ("tensorcircuit", "pennylane")),
    ],
)
def test_which_peers_are_asked(
    qvit: Qvit, monkeypatch: pytest.MonkeyPatch, asked: str, installed: tuple[str, ...], peers: tuple[str, ...]
) -> None:
    seen: list[tuple[str, ...]] = []

    def row(*of: Any, peers: tuple[str, ...], **options: Any) -> LayerRow:
        seen.append(peers)
        return layer_row(*of, peers=peers, **options)

    monkeypatch.setattr("qvit.bench.layer.bench_layer", row)
    monkeypatch.setattr("qvit.bench.peers.installed", lambda package: package in installed)
    assert qvit("bench", "layer", "--sizes", "2x1", "--peers", asked).code == 0
    assert seen == [peers]


def test_a_table_of_steps(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.bench.step.bench_step", lambda q, c, *, batch, **_: StepRow(q, 2, c, batch, 3.0, 2.0))
    told = qvit("bench", "step", "--batch", "7")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("A training step, batch 7")
    assert told.out.rstrip().endswith("Medians after warm-up, models in turn.")
    assert cells(told.out) == [
        ["quantum", "layers", "ms", "classical", "ms", "ratio"],
        *([quantum, "2", "3.000", classical, "2.000", "1.50"] for quantum, _, classical in DEFAULT_PAIRS),
    ]


def test_a_table_of_engines(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes of the grid, and the worst choice."""
    monkeypatch.setattr("qvit.bench.engines.bench_engines", engine_row)
    told = qvit("bench", "engines", "--qubits", "2,4", "--layers", "1", "--tokens", "1,64", "--ansatz", "pyramid")
    assert told.code == 0
    assert told.err.splitlines()[::3] == [
        "2 qubits, 1 layer(s), 1 tokens: unitary, 1.00 × the best (unitary)",
        "4 qubits, 1 layer(s), 64 tokens: unitary, 1.50 × the best (heisenberg)",
    ]
    assert told.out.startswith("pyramid: engines")
    assert "Worst choice: 1.50 × the best, at 4 × 1, 1 tokens." in told.out
    heads, *rows = cells(told.out)
    assert heads == ["qubits", "layers", "tokens", "chosen", "fastest", "ratio", "measured ms", "predicted ms"]
    assert [row[:3] for row in rows] == [["2", "1", "1"], ["2", "1", "64"], ["4", "1", "1"], ["4", "1", "64"]]
    assert rows[-1][3:] == ["unitary", "heisenberg", "1.50", "3.000", "1.500"]


def test_a_table_of_gradients(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "qvit.bench.gradients.gradient_variance",
        lambda ansatz, q, depth, *, samples: GradientRow(ansatz, q, depth, samples, 0.0125, 0.5),
    )
    told = qvit("bench", "gradients", "--qubits", "2, 3", "--layers", "4", "--samples", "9")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("ry_ring: variance of ∂⟨Z₀⟩/∂w over 9 random circuits")
    assert cells(told.out) == [
        ["qubits", "layers", "mean over weights", "first weight"],
        ["2", "4", "5.00e-01", "1.25e-02"],
        ["3", "4", "5.00e-01", "1.25e-02"],
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("layer", ["--sizes", "2x1", "--tokens", "3", "--peers", "none"]),
        ("step", ["--batch", "2", "--repeats", "3"]),
        ("engines", ["--qubits", "2", "--layers", "1", "--tokens", "1", "--repeats", "3"]),
        ("gradients", ["--qubits", "2,3", "--layers", "1", "--samples", "5"]),
    ],
)
def test_each_leaves_json_and_a_plot(
    qvit: Qvit, command: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: list[int]
) -> None:
    # Their measuring is tested with the benchmarks: the circuits would have to be compiled here as well.
    monkeypatch.setattr("qvit.bench.layer.bench_layer", layer_row)
    monkeypatch.setattr("qvit.bench.step.bench_step", lambda q, c, **_: StepRow(q, 2, c, 7, 3.0, 2.0))
    monkeypatch.setattr("qvit.bench.engines.bench_engines", engine_row)
    out = tmp_path / "new" / "b"
    told = qvit("bench", command, *options, "--threads", "1", "--json", "--out", out)
    assert told.code == 0, told.err
    facts = json.loads(told.out)
    assert facts["benchmark"] == command
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert len(facts["rows"]) == {"gradients": 2, "step": 4}.get(command, 1)
    assert threads == [1]
    assert json.loads((out / f"{command}.json").read_text()) == facts
    assert (out / f"{command}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [f"{command}.json", f"{command}.png"]
    assert told.err.endswith(f"Written: {out / command}.json, .png\n")


def test_json_holds_the_ratios(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.bench.step.bench_step", lambda q, c, **_: StepRow(q, 2, c, 7, 3.0, 2.0))
    monkeypatch.setattr("qvit.bench.engines.bench_engines", engine_row)
    rows = json.loads(qvit("bench", "step", "--json").out)["rows"]
    quantum, _, classical = DEFAULT_PAIRS[0]
    assert rows[0] == asdict(StepRow(quantum, 2, classical, 7, 3.0, 2.0)) | {"ratio": 1.5}
    told = qvit("bench", "engines", "--qubits", "4", "--layers", "1", "--tokens", "1", "--json")
    row = asdict(engine_row("ry_ring", 4, 1, 1, repeats=3))
    assert json.loads(told.out)["rows"] == [row | {"best": "heisenberg", "ratio": 1.5}]


@pytest.mark.parametrize(
    ("sizes", "part"), [("0x1", "0x1"), ("2x1,3x0", "3x0"), ("1001x1", "1001x1"), ("1x1001", "1x1001"), ("", "")]
)
def test_sizes_of_layers_that_there_are_not(qvit: Qvit, sizes: str, part: str) -> None:
    line = f"--sizes takes QUBITSxLAYERS, such as 4x2,8x1, each up to 1000, got '{part}'."
    assert qvit("bench", "layer", "--sizes", sizes) == (2, "", f"Error: {line}\n")


@pytest.mark.parametrize("numbers", ["0", "1001", "-1", "", "2;3"])
def test_numbers_of_qubits_that_there_are_not(qvit: Qvit, numbers: str) -> None:
    line = f"--qubits takes whole numbers from 1 to 1,000, such as 4,8, got '{numbers}'."
    assert qvit("bench", "gradients", "--qubits", numbers) == (2, "", f"Error: {line}\n")


def test_the_largest_sizes(qvit: Qvit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.bench.layer.bench_layer", layer_row)
    assert "1000 × 1000" in qvit("bench", "layer", "--sizes", "1000x1000", "--peers", "none").out
