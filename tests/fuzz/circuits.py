"""Circuits and layers: any value in the place of any number, wire, word or name, then run forward and backward."""

import json
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz.harness import Kind
from qvit.quantum import Angle, Circuit, Gate, Pauli, QuantumLinear, expectations
from qvit.quantum.ansatz import build_circuit, get_ansatz

ENGINES = ("auto", "heisenberg", "statevector", "unitary", "reference")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "int64": torch.int64}
# None between 12 and 5000: whole circuits of such sizes take the time that they are large, and are no defect.
WHOLE = (-1, 0, 1, 2, 3, 5, 12, 5000, 2**31, 10**9, 10**18, 2**63, 10**30, 10**400)
OTHER = (None, True, False, 2.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), "", "RY", "q", "é\u2028", "9" * 300)
NESTED: tuple[Any, ...] = ([], {}, [0], [[0]], [0, 0], [1, 0, 2], ["RX"], {"a": 1}, [None], [0] * 300)


def _circuit(random: Random) -> dict[str, Any]:
    n = random.randint(1, 4)
    inputs, weights = random.randint(0, 3), random.randint(0, 3)

    def terms(count: int) -> list[list[float]]:
        return [[k, random.choice((1.0, -1.0, 0.7))] for k in range(count) if random.random() < 0.5]

    gates: list[list[Any]] = []
    for _ in range(random.randint(1, 8)):
        name = random.choice(("RX", "RY", "RZ", "H", "S", "CNOT", "CZ", "RXX", "CRY", "RBS", "PauliRot"))
        count = 1 if name in ("RX", "RY", "RZ", "H", "S") else random.randint(1, n) if name == "PauliRot" else 2
        if count > n:
            continue
        word = "".join(random.choices("XYZ", k=count)) if name == "PauliRot" else ""
        turns = name[0] == "R" or name in ("CRY", "PauliRot")
        angle = [terms(inputs), terms(weights), random.choice((0.0, 0.5))] if turns else None
        gates.append([name, random.sample(range(n), count), angle, word])
    observables = [[random.choice("XYZ"), [random.randrange(n)], random.choice((1, -1))] for _ in range(2)]
    return {"n_wires": n, "n_inputs": inputs, "n_weights": weights, "gates": gates, "observables": observables}


def _layer(random: Random) -> dict[str, Any]:
    ansatz = random.choice(("ry_ring", "basic_entangler", "reupload", "strongly_entangling", "no_entangler", "pyramid"))
    n = random.randint(2, 4)
    return {"n_qubits": n, "n_layers": 1 if ansatz == "pyramid" else random.randint(1, 3), "ansatz": ansatz}


def _valid(random: Random) -> bytes:
    said: dict[str, Any] = {"engine": random.choice(ENGINES), "lead": [random.randint(1, 5)], "dtype": "float64"}
    if random.random() < 0.5:
        said["circuit"] = _circuit(random)
    else:
        said["layer"] = _layer(random)
        said["engine"] = "auto"
    return json.dumps(said).encode()


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*at, key))
    return found


def _mutate(random: Random, content: bytes) -> bytes:
    while not _fits(said := _damaged(random, json.loads(content))):  # nothing would be tried
        pass
    return json.dumps(said).encode()


def _damaged(random: Random, said: dict[str, Any]) -> dict[str, Any]:
    for _ in range(random.randint(1, 2)):
        places = _places({key: said[key] for key in said if key in ("circuit", "layer", "engine")})
        if not places:
            break
        *way, last = random.choice(places)
        holder = said
        for key in way:
            holder = holder[key]
        action = random.random()
        if action < 0.1 and isinstance(holder, list):
            holder.insert(last, deepcopy(holder[last]))
        elif action < 0.2:
            del holder[last]
        else:
            holder[last] = deepcopy(random.choice(random.choice((WHOLE, OTHER, NESTED))))
    return said


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _built(said: dict[str, Any]) -> Circuit:
    gates = [
        Gate(name, _tuples(wires), None if angle is None else Angle(*_tuples(angle)), word)
        for name, wires, angle, word in said["gates"]
    ]
    observables = [
        Pauli.of(word, wires) if sign == 1 else -Pauli.of(word, wires) for word, wires, sign in said["observables"]
    ]
    rest = {key: value for key, value in said.items() if key not in ("gates", "observables")}
    return Circuit(gates=tuple(gates), observables=tuple(observables), **rest)


def _fits(said: Any) -> bool:
    """Return whether a call can be made at all: a missing argument or another number of them is Python's to refuse."""
    if "engine" not in said:
        return False
    if "layer" in said:
        return isinstance(said["layer"], dict) and {"n_qubits"} <= said["layer"].keys()
    circuit = said.get("circuit")
    if not isinstance(circuit, dict) or {"n_wires", "n_inputs", "n_weights", "gates", "observables"} - circuit.keys():
        return False
    gates, observables = circuit["gates"], circuit["observables"]
    return (
        isinstance(gates, list)
        and all(isinstance(gate, list) and len(gate) == 4 for gate in gates)
        and all(gate[2] is None or (isinstance(gate[2], list) and len(gate[2]) <= 3) for gate in gates)
        and isinstance(observables, list)
        and all(isinstance(one, list) and len(one) == 3 for one in observables)
    )


def _attempt(content: bytes, folder: Path) -> None:
    said = json.loads(content)
    if not _fits(said):
        return
    dtype = DTYPES[said["dtype"]]
    if "layer" in said:
        layer = QuantumLinear(engine=said["engine"], dtype=dtype, **said["layer"])
        inputs = torch.rand(*said["lead"], layer.n_inputs, dtype=dtype, requires_grad=True)
        layer(inputs).sum().backward()
        return
    circuit = _built(said["circuit"])
    operands = [
        torch.rand(*lead, count, dtype=dtype, requires_grad=True)
        for lead, count in ((said["lead"], circuit.n_inputs), ((), circuit.n_weights))
    ]
    run = partial(expectations, circuit, *operands)
    values = run(engine=said["engine"])
    assert values.shape == (*said["lead"], len(circuit.observables))
    assert values.detach().abs().max() <= 1 + 1e-9
    if values.requires_grad:
        values.sum().backward()


def _warm() -> None:
    for engine in ENGINES:
        for dtype in (torch.float32, torch.float64):
            circuit = build_circuit(get_ansatz("ry_ring"), 2, 2)
            inputs = torch.rand(3, 2, dtype=dtype, requires_grad=True)
            expectations(circuit, inputs, torch.rand(4, dtype=dtype), engine=engine).sum().backward()


KIND = Kind("circuits", 20_000, _valid, _mutate, _attempt, _warm)
