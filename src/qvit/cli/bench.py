"""`qvit bench`: speed against peers, the choice of engine, and gradients."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from qvit.cli.console import Group, print_json, print_table, say

HELP = "Measure speed against peers, the choice of engine, and gradients."
MAX_SIZE = 1000  # qubits or layers
MAX_TOKENS = 1_000_000
app = typer.Typer(cls=Group, help=HELP)

Ansatz = Annotated[str, typer.Option(help="An ansatz, see `qvit circuit`.")]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="CPU threads of torch, the same for all.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the table as JSON and the plot as PNG.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True, help=HELP)
def group(context: typer.Context) -> None:
    """Show the help if no command was given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _numbers(text: str, option: str, most: int = MAX_SIZE) -> tuple[int, ...]:
    from qvit.errors import ConfigError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    plain = all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts)  # Python would also read `1_0` as ten
    found = tuple(map(int, parts)) if plain else ()
    if not found or min(found) < 1 or max(found) > most:
        raise ConfigError(f"{option} takes whole numbers from 1 to {most:,}, such as 4,8, got '{text}'.")
    return found


def _sizes(text: str) -> list[tuple[int, int]]:
    """Read `4x2,8x1` as pairs of qubits and layers."""
    from qvit.errors import ConfigError

    pairs = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,4})x([0-9]{1,4})\s*", part)
        pair = (int(found[1]), int(found[2])) if found else (0, 0)
        if min(pair) < 1 or max(pair) > MAX_SIZE:
            raise ConfigError(f"--sizes takes QUBITSxLAYERS, such as 4x2,8x1, each up to {MAX_SIZE}, got '{part}'.")
        pairs.append(pair)
    return pairs


def _usable(out: Path | None) -> None:
    """Make the folder of a benchmark's files before anything is measured; raises `ConfigError` if that fails."""
    from qvit.errors import ConfigError

    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Cannot use {out}: {reason}. Choose another folder with --out.") from error


def _finish(name: str, rows: Sequence[dict[str, Any]], draw: Any, out: Path | None, json: bool) -> None:
    """Print JSON if `json`; if there is a folder `out`, write the JSON and the plot that `draw` returns to it."""
    import torch

    from qvit.training.environment import environment

    machine = environment() | {"threads": torch.get_num_threads()}
    facts = {"benchmark": name, "machine": machine, "rows": list(rows)}
    if json:
        print_json(facts)
    if out is not None:
        import json as encoder

        from qvit.files import write_atomic

        write_atomic(out / f"{name}.json", (encoder.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
        from qvit.bench.pictures import save

        save(draw(), out / f"{name}.png")
        say(f"Written: {out / name}.json, .png")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}×"


def _print_layers(rows: Sequence[Any]) -> None:
    cells = [
        [
            f"{r['qubits']} × {r['layers']}",
            r["engine"],
            _ms(r["ours"]),
            _ms(r["pennylane"]),
            _times(r["pennylane_ratio"]),
            _ms(r["tensorcircuit"]),
            _times(r["tensorcircuit_ratio"]),
            _ms(r["linear"]),
        ]
        for r in (row.as_dict() for row in rows)
    ]
    columns = ["qubits × layers", "engine", "qvit", "PennyLane", "ratio", "TensorCircuit", "ratio", "nn.Linear"]
    title = f"{rows[0].ansatz}, {rows[0].tokens} tokens: forward + backward, ms"
    print_table(title, columns, cells, caption="Medians after warm-up, one run.")


@app.command()
def layer(
    sizes: Annotated[str, typer.Option(help="Qubits x layers.")] = "4x1,4x2,8x1,8x2,8x4,12x4",
    ansatz: Ansatz = "ry_ring",
    tokens: Annotated[int, typer.Option(min=1, max=MAX_TOKENS, help="Rows of features in the batch.")] = 1568,
    peers: Annotated[
        str, typer.Option(help="pennylane, tensorcircuit, both with a comma, none, or auto (those installed).")
    ] = "auto",
    threads: Threads = 2,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time a layer, forward and backward, against PennyLane and TensorCircuit-NG in the same run.

    Peers run up to 8 qubits; the values of each must agree with ours before it is timed.
    """
    import torch

    from qvit.bench.layer import PEERS, bench_layer
    from qvit.bench.peers import installed
    from qvit.errors import ConfigError, nearest
    from qvit.quantum import get_ansatz

    get_ansatz(ansatz)
    pairs = _sizes(sizes)
    torch.set_num_threads(threads)
    chosen = [p for p, (package, _) in PEERS.items() if installed(package)] if peers == "auto" else peers.split(",")
    chosen = [] if peers == "none" else [name.strip() for name in chosen if name.strip()]
    for name in chosen:
        if name not in PEERS:
            raise ConfigError(
                f"There is no peer '{name}'.{nearest(name, PEERS)} Known: {', '.join(PEERS)}, auto, none."
            )
    _usable(out)
    rows = []
    for qubits, layers in pairs:
        asked = tuple(chosen) if qubits <= 8 else ()
        say(f"{ansatz}, {qubits} qubits, {layers} layer(s), {tokens} tokens …")
        rows.append(bench_layer(ansatz, qubits, layers, tokens=tokens, peers=asked))
    if not json:
        _print_layers(rows)

    def draw() -> Any:
        from qvit.bench.pictures import draw_layer

        return draw_layer(rows)

    _finish("layer", [row.as_dict() for row in rows], draw, out, json)


@app.command()
def step(
    batch: Annotated[int, typer.Option(min=1, max=MAX_TOKENS, help="Images per step.")] = 64,
    repeats: Annotated[int, typer.Option(min=3, help="Steps of each model.")] = 200,
    threads: Threads = 1,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time a training step of quantum models against their classical twins, in turn."""
    from dataclasses import asdict

    import torch

    from qvit.bench.step import DEFAULT_PAIRS, bench_step

    _usable(out)
    torch.set_num_threads(threads)
    rows = [bench_step(q, c, batch=batch, repeats=repeats, **options) for q, options, c in DEFAULT_PAIRS]
    if not json:
        cells = [
            [r.quantum, str(r.layers), _ms(r.quantum_ms), r.classical, _ms(r.classical_ms), f"{r.ratio:.2f}"]
            for r in rows
        ]
        columns = ["quantum", "layers", "ms", "classical", "ms", "ratio"]
        print_table(f"A training step, batch {batch}", columns, cells, caption="Medians after warm-up, models in turn.")

    def draw() -> Any:
        from qvit.bench.pictures import draw_steps

        return draw_steps(rows)

    _finish("step", [asdict(row) | {"ratio": row.ratio} for row in rows], draw, out, json)


@app.command()
def engines(
    qubits: Annotated[str, typer.Option(help="Numbers of qubits.")] = "2,4,6,8,10,12,14,16",
    layers: Annotated[str, typer.Option(help="Numbers of layers.")] = "1,2,4,8",
    tokens: Annotated[str, typer.Option(help="Batch sizes.")] = "1,64,1568,6272",
    ansatz: Ansatz = "ry_ring",
    repeats: Annotated[int, typer.Option(min=3, help="Runs of each engine.")] = 15,
    threads: Threads = 2,
    out: Out = None,
    json: Json = False,
) -> None:
    """Time every engine over a grid and see how far the cost model's choice is from the fastest."""
    from dataclasses import asdict

    import torch

    from qvit.bench.engines import bench_engines

    grid = list(
        product(_numbers(qubits, "--qubits"), _numbers(layers, "--layers"), _numbers(tokens, "--tokens", MAX_TOKENS))
    )
    _usable(out)
    torch.set_num_threads(threads)
    rows = []
    for q, depth, t in grid:
        rows.append(bench_engines(ansatz, q, depth, t, repeats=repeats))
        row = rows[-1]
        say(f"{q} qubits, {depth} layer(s), {t} tokens: {row.chosen}, {row.ratio:.2f} × the best ({row.best})")
    if not json:
        cells = [
            [str(r.qubits), str(r.layers), str(r.tokens), r.chosen, r.best, f"{r.ratio:.2f}",
             _ms(r.measured[r.chosen]), _ms(r.predicted[r.chosen])]
            for r in rows
        ]  # fmt: skip
        worst = max(rows, key=lambda r: r.ratio)
        caption = (
            f"Worst choice: {worst.ratio:.2f} × the best, at {worst.qubits} × {worst.layers}, {worst.tokens} tokens."
        )
        columns = ["qubits", "layers", "tokens", "chosen", "fastest", "ratio", "measured ms", "predicted ms"]
        print_table(f"{ansatz}: engines", columns, cells, caption=caption)

    def draw() -> Any:
        from qvit.bench.pictures import draw_engines

        return draw_engines(rows)

    _finish("engines", [asdict(r) | {"best": r.best, "ratio": r.ratio} for r in rows], draw, out, json)


@app.command()
def gradients(
    qubits: Annotated[str, typer.Option(help="Numbers of qubits.")] = "2,4,6,8,10,12",
    layers: Annotated[str, typer.Option(help="Numbers of layers.")] = "1,2,4,8,16",
    ansatz: Ansatz = "ry_ring",
    samples: Annotated[int, typer.Option(min=2, help="Random circuits for each size.")] = 200,
    threads: Threads = 2,
    out: Out = None,
    json: Json = False,
) -> None:
    """Probe for barren plateaus: the variance of the gradient of one output over random circuits."""
    from dataclasses import asdict

    import torch

    from qvit.bench.gradients import gradient_variance

    grid = list(product(_numbers(qubits, "--qubits"), _numbers(layers, "--layers")))
    _usable(out)
    torch.set_num_threads(threads)
    rows = [gradient_variance(ansatz, q, depth, samples=samples) for q, depth in grid]
    if not json:
        cells = [[str(r.qubits), str(r.layers), f"{r.mean:.2e}", f"{r.first:.2e}"] for r in rows]
        columns = ["qubits", "layers", "mean over weights", "first weight"]
        print_table(f"{ansatz}: variance of ∂⟨Z₀⟩/∂w over {samples} random circuits", columns, cells)

    def draw() -> Any:
        from qvit.bench.pictures import draw_gradients

        return draw_gradients(rows)

    _finish("gradients", [asdict(row) for row in rows], draw, out, json)
