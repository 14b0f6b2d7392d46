"""`qvit models`: what models there are."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qvit.cli.console import print_json, print_table

if TYPE_CHECKING:
    from qvit.models import ViTConfig


def models(
    channels: Annotated[int, typer.Option(help="Channels of the images.")] = 3,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 28,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models with their costs: parameters, FLOPs, and what a quantum computer would run for one image."""
    from qvit.models import list_models
    from qvit.models.cost import Cost, cost_of, si
    from qvit.models.zoo import KINDS, vit_config

    configs = {name: vit_config(name, in_chans=channels, num_classes=classes, img_size=size) for name in list_models()}
    costs = {name: cost_of(config) for name, config in configs.items()}
    if json:
        print_json([_described(name, config) | asdict(costs[name]) for name, config in configs.items()])
        return

    def line(config: "ViTConfig", cost: Cost) -> list[str]:
        needed = cost.hardware
        counts = [config.dim, config.heads, config.mlp_dim, cost.parameters, cost.parameters_in_projections]
        simulation = [si(cost.simulation_flops), f"{needed.circuits}", f"{needed.depth}"] if needed else ["–"] * 3
        return [*map(str, counts), si(cost.classical_flops), *simulation]

    sizes = f"{{{','.join(KINDS)}}}_{{qubits}}q{{heads}}h"
    print_table(
        f"Models for {classes} classes of {channels} × {size} × {size} images",
        ["name", "width", "heads", "MLP", "parameters", "in Q, K, V", "FLOPs", "simulation", "circuits", "depth"],
        [[name, *line(config, costs[name])] for name, config in configs.items()],
        caption=f"Other sizes work too: {sizes}. Parameters that are not trained do not count. "
        "FLOPs of one image without its circuits; of their simulation on the CPU; circuits of one image on a quantum "
        "computer, and layers of gates in the deepest. --json has more.",
    )


def _described(name: str, config: "ViTConfig") -> dict[str, Any]:
    return {
        "name": name,
        "projection": config.projection.kind,
        "width": config.dim,
        "heads": config.heads,
        "mlp": config.mlp_dim,
    }
