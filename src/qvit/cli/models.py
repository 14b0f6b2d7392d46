"""`qvit models`: list the models, or say what one of them costs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import heavy_imports, print_json, print_table

CIRCUITS = (
    "Simulation is exact, on the CPU; a quantum computer runs the circuits instead, with this many shots in total "
    "for a standard deviation of 0.01 in every value. "
)

if TYPE_CHECKING:
    from qvit.models.cost import Cost
    from qvit.models.vit import ViTConfig


def models(
    channels: Annotated[int, typer.Option(help="Channels of the images.")] = 3,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 28,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Print what a model costs: FLOPs, simulation by each engine, and what a quantum computer would run.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models with their numbers of parameters, or say what one of them costs."""
    images: dict[str, Any] = {"in_chans": channels, "num_classes": classes, "img_size": size}
    with heavy_imports():
        from qvit.models.baselines import BASELINES
        from qvit.models.zoo import KINDS, count_parameters, list_models, vit_config
    if cost is not None:
        _cost(cost, images, json)
        return
    rows: list[dict[str, Any]] = []
    for name in list_models():
        config = vit_config(name, **images)
        counts = count_parameters(config), count_parameters(config, within=".attention.project.")
        rows.append(
            _described(name, config) | dict(zip(("parameters", "parameters_in_projections"), counts, strict=True))
        )
    if json:
        print_json(rows)
        return
    print_table(
        f"Models for {_images(images)}",
        ["name", "width", "heads", "MLP", "parameters", "in Q, K, V"],
        [
            [str(row[key]) for key in ("name", "width", "heads", "mlp", "parameters", "parameters_in_projections")]
            for row in rows
        ],
        caption=f"Other sizes work too: {{{','.join(KINDS)}}}_{{qubits}}q{{heads}}h. A convolutional network of about "
        f"a thousand parameters: dsconv, or dsconv_4q2h_matched. Plain baselines: {', '.join(BASELINES)}. Parameters "
        "that are not trained do not count. Cost of a model: --cost NAME.",
    )


def _cost(name: str, images: dict[str, Any], json: bool) -> None:
    from qvit.models.baselines import BaselineConfig
    from qvit.models.cost import cost_of
    from qvit.models.vit import ViTConfig
    from qvit.models.zoo import model_config

    config = model_config(name, **images)
    cost = cost_of(config)
    unknown = isinstance(config, BaselineConfig) and not config.counted
    if json:
        described = _described(name, config) if isinstance(config, ViTConfig) else {"name": name}
        costs = asdict(cost)
        print_json(described | (dict.fromkeys(costs) if unknown else costs))
        return
    print_table(
        f"{name} for {_images(images)}",
        ["of one image", "count"],
        [[told, "depends on the training images" if unknown else str(count)] for told, count in _lines(cost)],
        caption="A multiply-add is two FLOPs. " + CIRCUITS * (cost.hardware is not None) + "--json has more.",
    )


def _lines(cost: "Cost") -> list[tuple[str, object]]:
    from qvit.models.cost import si

    lines: list[tuple[str, object]] = [
        ("parameters", f"{cost.parameters:,}"),
        ("of these in Q, K, V", f"{cost.parameters_in_projections:,}"),
        ("of these in attention", f"{cost.parameters_in_attention:,}"),
        ("FLOPs without circuits", si(cost.classical_flops)),
    ]
    for engine, count in cost.simulation_flops_by_engine.items():
        lines.append((f"simulation by {engine}{' (taken)' * (engine == cost.engine)}", si(count)))
    needed = cost.hardware
    if needed is None:
        return lines
    return [
        *lines,
        ("circuits to run", f"{needed.circuits:,}"),
        ("qubits", needed.qubits),
        ("shots", si(needed.shots)),
        ("gates", si(sum(needed.gates.values()))),
        ("two-qubit gates", si(needed.two_qubit_gates)),
        ("depth of the deepest", needed.depth),
        ("depth in sequence", needed.depth_in_sequence),
    ]


def _images(images: dict[str, Any]) -> str:
    size = images["img_size"]
    return f"{images['num_classes']} classes of {images['in_chans']} × {size} × {size} images"


def _described(name: str, config: "ViTConfig") -> dict[str, Any]:
    return {
        "name": name,
        "projection": config.projection.kind,
        "width": config.dim,
        "heads": config.heads,
        "mlp": config.mlp_dim,
    }
