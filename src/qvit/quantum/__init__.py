"""Quantum circuits as differentiable layers of tensors; nothing here knows of images or medicine."""

from qvit.quantum.ansatz import ANSATZE, Ansatz, get_ansatz, register_ansatz
from qvit.quantum.circuit import Angle, Circuit, CircuitBuilder, Gate, w, x
from qvit.quantum.engines import ENGINES, expectations, explain
from qvit.quantum.layer import QuantumLinear
from qvit.quantum.pauli import Pauli, X, Y, Z
from qvit.quantum.program import Analysis, PauliProgram, analyse, compile_circuit

__all__ = [
    "ANSATZE",
    "ENGINES",
    "Analysis",
    "Angle",
    "Ansatz",
    "Circuit",
    "CircuitBuilder",
    "Gate",
    "Pauli",
    "PauliProgram",
    "QuantumLinear",
    "X",
    "Y",
    "Z",
    "analyse",
    "compile_circuit",
    "expectations",
    "explain",
    "get_ansatz",
    "register_ansatz",
    "w",
    "x",
]
