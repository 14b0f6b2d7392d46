"""Circuits and angles as values: what they are made of, what stands for the same, and how they are built."""

import copy
import math
import pickle

import pytest

from qvit.errors import CircuitError
from qvit.quantum import Angle, Circuit, CircuitBuilder, Gate, Z, get_ansatz, w, x


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_angles_are_finite(bad: float) -> None:
    with pytest.raises(CircuitError, match="finite"):
        Angle(constant=bad)
    with pytest.raises(CircuitError, match="finite"):
        Angle(inputs=((0, bad),))


def test_angles_behave_like_numbers() -> None:
    assert 1.0 - x(0) == Angle(inputs=((0, -1.0),), constant=1.0)
    assert x(0) / 2 == 0.5 * x(0)
    assert x(0) - x(0) == Angle()
    assert Angle(weights=((1, 2.0), (0, 1.0), (1, -2.0))) == w(0)


@pytest.mark.usefixtures("unchecked")
def test_lists_stand_for_tuples_and_plain_numbers_are_refused_as_angles() -> None:
    circuit = Circuit(2, 1, 0, [Gate("RY", [0], x(0)), Gate("CNOT", [0, 1])], [Z(1)])  # type: ignore[arg-type]
    assert circuit == CircuitBuilder(2).add("RY", 0, angle=x(0)).add("CNOT", 0, 1).measure(Z(1)).build()
    assert hash(circuit) == hash(Circuit(2, 1, 0, circuit.gates, (Z(1),)))
    with pytest.raises(CircuitError, match="must be an Angle"):
        Gate("RY", (0,), 0.3)  # type: ignore[arg-type]


H = Gate("H", (0,))


def of(*gates: Gate, n: int = 2, inputs: int = 0, weights: int = 0) -> Circuit:
    return Circuit(n, inputs, weights, gates)


def test_a_builder_counts() -> None:
    circuit = CircuitBuilder(2).load_amplitudes(0, 1, 2).add("RX", 0, angle=x(1) + w(4)).add("RZ", 1, angle=0.5).build()
    assert (circuit.n_inputs, circuit.n_weights, circuit.observables) == (3, 5, (Z(0), Z(1)))
    assert circuit.gates[1].angle == Angle(constant=0.5)
    assert (of().n_inputs, CircuitBuilder(1).extend([H]).build().gates) == (0, (H,))


def test_angles_are_sums() -> None:
    angle = 2 * x(1) + x(0) - w(2) * 0.5 - 1 + x(1) - 3 * x(1)
    assert angle == Angle(((0, 1.0),), ((2, -0.5),), -1.0)
    assert str(angle) == "x0 - 0.5·w2 - 1"
    assert str(-angle) == "-x0 + 0.5·w2 + 1"
    assert str(Angle()) == "0"
    assert 1 + x(0) == x(0) + 1
    assert 1 - x(0) / 4 == Angle(((0, -0.25),), (), 1.0)
    assert str(Angle(((1, 1 / 3), (0, 1.0)), (), 0.25)) == "x0 + 0.3333·x1 + 0.25"


def test_equal_circuits_are_one_key() -> None:
    one, other = (get_ansatz("ry_ring").build(3, 1) for _ in range(2))
    assert one is not other
    assert len({one, other, copy.deepcopy(one), pickle.loads(pickle.dumps(one))}) == 1
    assert get_ansatz("rx_ring").build(3, 1) != one
