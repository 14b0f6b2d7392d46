"""Quantum circuits as differentiable layers; knows tensors, nothing of images or medicine."""

from qvit.quantum.ansatz import ANSATZE, Ansatz, get_ansatz
from qvit.quantum.circuit import Angle, Circuit, Gate
from qvit.quantum.engines import ENGINES, expectations
from qvit.quantum.layer import QuantumLinear

__all__ = [
    "ANSATZE",
    "ENGINES",
    "Angle",
    "Ansatz",
    "Circuit",
    "Gate",
    "QuantumLinear",
    "expectations",
    "get_ansatz",
]
