"""Random circuits, batches for them, and which engines take a circuit."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import Tensor

import qvit
from qvit.errors import CircuitError
from qvit.quantum import Angle, Circuit, Gate, Pauli
from qvit.quantum.circuit import GATE_WIRES, ROTATIONS
from qvit.quantum.engines import make_plan
from qvit.quantum.engines.choose import ENGINES

# Small ones mostly: the reference multiplies 2ⁿ × 2ⁿ matrices.
_WIRES = (2, 3, 4, 5, 3, 4, 2, 6, 3, 7, 4, 5, 2, 3, 8, 4, 5, 3, 6, 9)
_GATES = {2: 16, 3: 16, 4: 14, 5: 14, 6: 12, 7: 10, 8: 9, 9: 9}


def _random_angle(rng: np.random.Generator, n_inputs: int, n_weights: int) -> Angle:
    """One in four a constant, of these every other a multiple of π/2; the others with up to two terms of each kind."""
    if rng.random() < 0.25:
        constant = rng.integers(-4, 9) * math.pi / 2 if rng.random() < 0.5 else rng.normal()
        return Angle(constant=float(constant))

    def terms(count: int) -> tuple[tuple[int, float], ...]:
        picked = rng.choice(count, min(count, rng.integers(0, 3)), replace=False) if count else []
        return tuple((int(i), float(rng.choice([1.0, -1.0, rng.normal()]))) for i in sorted(picked))

    return Angle(terms(n_inputs), terms(n_weights), float(rng.normal() * rng.integers(0, 2)))


def _random_circuit(
    seed: int, *, loaded: bool = False, n: int | None = None, names: Sequence[str] = tuple(GATE_WIRES)
) -> Circuit:
    rng = np.random.default_rng(seed)
    n = n or _WIRES[seed % len(_WIRES)]
    n_inputs, n_weights = int(rng.integers(0, 5)), int(rng.integers(0, 6))
    states: tuple[int, ...] = ()
    if loaded:
        count = int(rng.integers(1, min(2**n, 6) + 1))
        states = tuple(int(state) for state in rng.choice(2**n, count, replace=False))
        n_inputs = count + int(rng.integers(0, 3))

    def wires(count: int) -> tuple[int, ...]:
        return tuple(int(wire) for wire in rng.permutation(n)[:count])

    def word(count: int) -> str:
        letters = rng.choice(list("IXYZ"), count)
        letters[rng.integers(count)] = rng.choice(list("XYZ"))
        return "".join(letters)

    def gate(name: str, on: tuple[int, ...] = ()) -> Gate:
        angle = _random_angle(rng, n_inputs, n_weights) if name in ROTATIONS else None
        if name == "PauliRot":
            on = wires(int(rng.integers(1, min(n, 4) + 1)))
            return Gate(name, on, angle, word(len(on)))
        return Gate(name, on or wires(GATE_WIRES[name]), angle)

    first = [gate(str(name), (wire,)) for wire, name in enumerate(rng.choice(["RX", "RY", "RZ", "H"], n))]
    gates = first + [gate(str(name)) for name in rng.choice(list(names), _GATES[n])]
    observables = []
    for _ in range(4):
        on = wires(int(rng.integers(1, n + 1)))
        observable = Pauli.of(word(len(on)), on)
        observables.append(-observable if rng.random() < 0.5 else observable)
    return Circuit(n, n_inputs, n_weights, tuple(gates), tuple(observables), states)


def _random_batch(circuit: Circuit, seed: int, *, tokens: int = 0, groups: int = 2) -> tuple[Tensor, Tensor]:
    """Return inputs and weights, shared among groups, apart or without groups by turns, of a float32's digits."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or (2 if circuit.n_wires < 8 else 1)
    lead, of_weights = [((tokens, 1), (groups,)), ((tokens, groups), (groups,)), ((tokens,), ())][seed % 3]
    x = torch.randn(*lead, circuit.n_inputs, generator=generator).double().requires_grad_()
    return x, torch.randn(*of_weights, circuit.n_weights, generator=generator).double().requires_grad_()


def _engines_for(circuit: Circuit) -> list[str]:
    def takes(engine: str) -> bool:
        try:
            make_plan(circuit, engine)
        except CircuitError:
            return False
        return True

    return [engine for engine in ENGINES if engine != "reference" and takes(engine)]


def _work(run: Callable[[], object]) -> int:
    """Count the lines of qvit that are executed: time, without the machine's mood."""
    lines, package = 0, str(Path(qvit.__file__).parent)

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(package):
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


@pytest.fixture(scope="session")
def work() -> Callable[[Callable[[], object]], int]:
    """`work(run)`: how many lines of the package a call takes."""
    return _work


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run the code: without the type checks of the tests."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def random_circuit() -> Callable[..., Circuit]:
    """Circuits of every gate, with `loaded=True` on amplitudes that are inputs."""
    return _random_circuit


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """Inputs and weights in float64 that ask for gradients."""
    return _random_batch


@pytest.fixture(scope="session")
def engines_for() -> Callable[[Circuit], list[str]]:
    """The engines that take a circuit, but for the reference."""
    return _engines_for
