"""`qvit circuit`: what an ansatz looks like, what it needs, and which of its parts have no effect."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import print_json, print_table, say
from qvit.cli.options import check_picture
from qvit.errors import CircuitError, ConfigError

if TYPE_CHECKING:
    from qvit.quantum.ansatz import Ansatz
    from qvit.quantum.circuit import Circuit

WIDTH = 120  # of the drawing, if the output is not a terminal
DPI, MAX_PIXELS = 150, 20000  # the longest side of a picture
MAX_SIZE = 1000  # qubits or layers
MAX_GATES, MAX_WORK = 5000, 500_000  # gates, and gates times qubits, that can be analysed within seconds


def circuit(
    ansatz: Annotated[str | None, typer.Argument(help="A circuit's name; without it, all circuits are listed.")] = None,
    qubits: Annotated[int, typer.Option(help="Number of qubits.")] = 4,
    layers: Annotated[int, typer.Option(help="Number of trainable layers.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="Write a figure to this file: .png, .svg or .pdf.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a circuit and say what it needs and which parts have no effect; without a name, list all circuits."""
    for name, value in (("qubits", qubits), ("layers", layers)):
        if not 1 <= value <= MAX_SIZE:
            raise ConfigError(f"--{name} must be from 1 to {MAX_SIZE}, got {value}.")
    if picture is not None and ansatz is None:
        raise ConfigError("--picture needs the name of a circuit.")
    check_picture(picture)
    if ansatz is None:
        _list(qubits, layers, json)
        return
    from qvit.quantum.ansatz import build_circuit, get_ansatz
    from qvit.quantum.draw import as_text

    row = get_ansatz(ansatz)
    built = build_circuit(row, qubits, layers)
    facts = _facts(row, built, qubits, layers)
    if json:
        print_json(facts)
    else:
        source = f" ({row.source})" if row.source else ""
        typer.echo(f"{row.name} on {qubits} qubit(s), {layers} layer(s){source}\n")
        typer.echo(as_text(built, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH) + "\n")
        for name, told in _summary(facts):
            typer.echo(f"{name:<18}{told}")
    if picture is not None:
        _write(built, picture)
        say(f"Picture: {picture}")


def _list(qubits: int, layers: int, json: bool) -> None:
    from qvit.quantum.ansatz import ANSATZE

    rows: list[dict[str, Any]] = []
    for row in ANSATZE.values():
        try:
            shape, problem = list(row.weight_shape(qubits, layers)), None
        except CircuitError as error:
            shape, problem = None, str(error)
        rows.append({"ansatz": row.name, "weight_shape": shape, "source": row.source, "problem": problem})
    if json:
        print_json(rows)
        return
    print_table(
        f"Circuits on {qubits} qubit(s), {layers} layer(s)",
        ["ansatz", "shape of weights", "source"],
        [[row["ansatz"], _shape(row["weight_shape"]), row["source"]] for row in rows],
        caption="qvit circuit ANSATZ draws one. –: not possible at this size.",
    )


def _shape(sizes: list[int] | None) -> str:
    return "–" if sizes is None else " × ".join(map(str, sizes))


def _facts(row: "Ansatz", built: "Circuit", qubits: int, layers: int) -> dict[str, Any]:
    """Return facts about a circuit; None stands for a fact that was not worked out."""
    from qvit.quantum.program import analyse, compile_circuit

    facts: dict[str, Any] = {
        "ansatz": row.name,
        "source": row.source,
        "qubits": qubits,
        "layers": layers,
        "inputs": built.n_inputs,
        "weights": built.n_weights,
        "weight_shape": list(row.weight_shape(qubits, layers)),
        "outputs": [str(observable) for observable in built.observables],
        "gates": len(built.gates),
        "entangling_gates": sum(len(gate.wires) > 1 for gate in built.gates),
    }
    unknown = ("pauli_rotations", "arithmetic", "entangling_matters", "dead_inputs", "dead_weights", "complaints")
    if facts["gates"] > MAX_GATES or (facts["gates"] + len(built.amplitudes)) * qubits > MAX_WORK:
        return facts | dict.fromkeys(unknown)
    analysis = analyse(built)
    return facts | {
        "pauli_rotations": len(compile_circuit(built).rotations),
        "arithmetic": "real" if analysis.real else "complex",
        "entangling_matters": analysis.entangling_matters,
        "dead_inputs": list(analysis.dead_inputs),
        "dead_weights": list(analysis.dead_weights),
        "complaints": analysis.complaints(),
    }


def _summary(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines below the drawing, as name and value."""
    entangling = "none"
    if facts["entangling_gates"]:
        effect = {True: "they matter", False: "the outputs are the same without them", None: "effect not analysed"}
        entangling = f"{facts['entangling_gates']}; {effect[facts['entangling_matters']]}"
    lines = [
        ("inputs", str(facts["inputs"])),
        ("weights", f"{facts['weights']} ({_shape(facts['weight_shape'])})"),
        ("outputs", str(len(facts["outputs"]))),
        ("gates", str(facts["gates"])),
        ("entangling gates", entangling),
    ]
    if facts["complaints"] is None:
        return [*lines, ("analysis", "left out: too large to be analysed in a moment")]
    return [
        *lines,
        ("Pauli rotations", f"{facts['pauli_rotations']} after compilation"),
        ("arithmetic", facts["arithmetic"]),
        *(("without effect", complaint) for complaint in facts["complaints"] or ["nothing found"]),
    ]


def _write(built: "Circuit", path: Path) -> None:
    import io

    from qvit.files import write_atomic
    from qvit.quantum.draw import as_figure

    figure = as_figure(built)
    buffer = io.BytesIO()
    dpi = min(DPI, MAX_PIXELS / max(figure.get_size_inches()))
    figure.savefig(buffer, format=path.suffix.lower()[1:], dpi=dpi)
    write_atomic(path, buffer.getvalue())
