"""`qvit models`: what models there are."""

from typing import Annotated

import typer

from qvit.cli.console import print_json, print_table


def models(
    channels: Annotated[int, typer.Option(help="Channels of the images.")] = 3,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 5,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 28,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models with their parameter counts, in all and in the Q, K, V projections."""
    from qvit.models import count_parameters, list_models
    from qvit.models.zoo import KINDS, vit_config

    rows = []
    for name in list_models():
        config = vit_config(name, in_chans=channels, num_classes=classes, img_size=size)
        rows.append(
            {
                "name": name,
                "projection": config.projection.kind,
                "width": config.dim,
                "heads": config.heads,
                "mlp": config.mlp_dim,
                "parameters": count_parameters(config),
                "in_projections": count_parameters(config, within="attention.project."),
            }
        )
    if json:
        print_json(rows)
        return
    sizes = f"{{{','.join(KINDS)}}}_{{qubits}}q{{heads}}h"
    print_table(
        f"Models for {classes} classes of {channels} × {size} × {size} images",
        ["name", "projection", "width", "heads", "MLP width", "parameters", "in Q, K, V"],
        [[str(value) for value in row.values()] for row in rows],
        caption=f"Other sizes work too: {sizes}. Parameters that are not trained do not count.",
    )
