"""The same layer in PennyLane and TensorCircuit-NG, as their users would write it.

Each `…_layer` returns a function that runs forward and backward once, and the values of the forward pass.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qvit.errors import ConfigError
from qvit.quantum.circuit import Angle, Circuit, Gate

_TENSORCIRCUIT = {"RX", "RY", "RZ", "H", "X", "Y", "Z", "S", "T", "CNOT", "CZ", "SWAP"}
PENNYLANE = {
    "H": "Hadamard",
    "X": "PauliX",
    "Y": "PauliY",
    "Z": "PauliZ",
    "RXX": "IsingXX",
    "RYY": "IsingYY",
    "RZZ": "IsingZZ",
}


def installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def angle_value(angle: Angle, inputs: Any, weights: Any) -> Any:
    """Return the angle for `inputs` `(…, i)` and flat `weights` of any array library."""
    terms = [coefficient * inputs[..., index] for index, coefficient in angle.inputs]
    terms += [coefficient * weights[index] for index, coefficient in angle.weights]
    return sum(terms) + angle.constant if angle.constant or not terms else sum(terms)


def apply_in_pennylane(gate: Gate, inputs: Any, weights: Any) -> None:
    """Queue a gate in a PennyLane quantum function."""
    import pennylane as qml

    if gate.angle is None:
        getattr(qml, PENNYLANE.get(gate.name, gate.name))(wires=gate.wires)
        return
    theta = angle_value(gate.angle, inputs, weights)
    if gate.name == "PauliRot":
        qml.PauliRot(theta, gate.word, wires=gate.wires)
    elif gate.name == "RBS":
        qml.SingleExcitation(-2 * theta, wires=gate.wires)
    else:
        getattr(qml, PENNYLANE.get(gate.name, gate.name))(theta, wires=gate.wires)


def pennylane_node(circuit: Circuit) -> Callable[..., Any]:
    """Return a QNode `(inputs, weights) → values`, differentiated by backpropagation."""
    import pennylane as qml

    words = [qml.pauli.string_to_pauli_word(p.word, {w: k for k, w in enumerate(p.wires)}) for p in circuit.observables]

    @qml.qnode(qml.device("default.qubit", wires=circuit.n_wires), interface="torch", diff_method="backprop")  # type: ignore[untyped-decorator]
    def node(inputs: Any, weights: Any) -> list[Any]:
        if circuit.amplitudes:
            state = torch.zeros(*inputs.shape[:-1], 2**circuit.n_wires, dtype=inputs.dtype)
            features = inputs[..., : len(circuit.amplitudes)]
            place = torch.tensor(circuit.amplitudes)
            qml.StatePrep(state.index_copy(-1, place, features), wires=range(circuit.n_wires), normalize=True)
        for gate in circuit.gates:
            apply_in_pennylane(gate, inputs, weights)
        signs = [p.sign for p in circuit.observables]
        return [qml.expval(word if sign > 0 else -1 * word) for word, sign in zip(words, signs, strict=True)]

    return node


def pennylane_layer(
    circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Callable[[], None], Tensor]:
    """Return a function that runs PennyLane's TorchLayer on default.qubit once, and its values `(t, o)`."""
    import pennylane as qml

    layer = qml.qnn.TorchLayer(pennylane_node(circuit), {"weights": tuple(weights.shape)})
    layer.weights.data = weights.detach().clone()
    x = inputs.detach().clone().requires_grad_()

    def run() -> None:
        torch.autograd.grad(layer(x), (x, layer.weights), grad)

    return run, layer(x).detach()


def tensorcircuit_layer(
    circuit: Circuit, inputs: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Callable[[], None], Tensor]:
    """Return a function that runs TensorCircuit-NG's circuit under JAX jit and vmap once, and its values `(t, o)`."""
    import jax
    import tensorcircuit as tc

    unknown = {gate.name for gate in circuit.gates} - _TENSORCIRCUIT
    if unknown or circuit.amplitudes or any(p.sign < 0 for p in circuit.observables):
        raise ConfigError(
            "tensorcircuit is compared on circuits of one-wire gates, CNOT, CZ and SWAP with plain Pauli strings; "
            "leave it out of --peers for this ansatz."
        )
    backend = tc.set_backend("jax")

    def single(x: Any, w: Any) -> Any:
        state = tc.Circuit(circuit.n_wires)
        for gate in circuit.gates:
            options = {} if gate.angle is None else {"theta": angle_value(gate.angle, x, w)}
            getattr(state, gate.name.lower())(*gate.wires, **options)
        values = [
            state.expectation_ps(
                **{k: [w for w, c in zip(p.wires, p.word, strict=True) if c == k.upper()] for k in "xyz"}
            )
            for p in circuit.observables
        ]
        return backend.real(backend.stack(values))

    batched = backend.vmap(single, vectorized_argnums=0)
    x, w, g = (jax.numpy.asarray(t.detach().numpy()) for t in (inputs, weights, grad))
    both = jax.jit(jax.value_and_grad(lambda x, w: (batched(x, w) * g).sum(), argnums=(0, 1)))
    values = torch.from_numpy(np.asarray(jax.jit(batched)(x, w)).copy())

    def run() -> None:
        jax.block_until_ready(both(x, w))

    return run, values
