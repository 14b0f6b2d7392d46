"""How large a model may be: a bound for each of its sizes, and for what they make together, checked before building.

The bounds lie far above anything that has been trained, such as ViT-G/14 with its 1.8 billion weights: a size beyond
them is a mistake, or comes from a damaged file, and would otherwise take memory or hours before anybody noticed.
"""

from math import prod
from numbers import Integral
from typing import Any

from qvit.errors import ModelError
from qvit.quantum.ansatz import get_ansatz
from qvit.quantum.limits import in_words

LARGEST = {
    "img_size": 4096,
    "resize": 4096,
    "patch_size": 4096,
    "in_chans": 1024,
    "num_classes": 100_000,
    "dim": 16_384,
    "heads": 1024,
    "depth": 256,
    "loops": 256,
    "mlp_dim": 65_536,
    "n_layers": 256,
    "filters": 4096,
    "pooled": 65_536,
    "stages": 64,
    "trees": 10_000,
    "neighbours": 10_000,
}
MOST_TOKENS = 2**16  # in an image
MOST_WEIGHTS = 2**31
WIDEST = 8.0  # times the channels of a published ResNet
MOST_QUBITS = 256  # in a head: a ring of one layer takes a fraction of a second
MOST_ANGLES = 5000  # in a circuit of one layer: the plan of a pyramid on more than 100 qubits takes minutes
MOST_LAYERED = 1024  # qubits times layers


def check_size(name: str, value: Any) -> None:
    """Raise `ModelError` unless the size of this name is a whole number from 1 to its bound."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ModelError(f"{name} must be a whole number, got {value!r:.80}.")
    if value < 1:
        raise ModelError(f"{name} must be at least 1, got {value}.")
    check_at_most(name, int(value), LARGEST[name])


def check_at_most(what: str, value: int, most: int) -> None:
    """Raise `ModelError` if a value is larger than `most`."""
    if value > most:
        raise ModelError(
            f"{what} must be at most {most:,}, got {in_words(value)}. Models have limits, see `qvit.models.limits`."
        )


def check_circuit(ansatz: str, qubits: int, layers: Any = 1) -> None:
    """Raise `ModelError` for circuits of an attention head that cannot be simulated, or would take too long."""
    check_at_most("The width of a head with circuits, dim / heads,", qubits, MOST_QUBITS)
    angles = prod(get_ansatz(ansatz).weight_shape(qubits, 1))
    check_at_most(f"The number of angles of '{ansatz}' in a head of width {qubits}", angles, MOST_ANGLES)
    if isinstance(layers, Integral):  # anything else is refused by the circuit
        check_at_most("n_layers", int(layers), LARGEST["n_layers"])
        check_at_most("The width of a head times n_layers", qubits * int(layers), MOST_LAYERED)
