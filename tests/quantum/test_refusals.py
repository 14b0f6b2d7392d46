"""All of `qvit.quantum`: wrong circuits, layers and inputs are refused, each with the whole of a message that helps."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit import quantum
from qvit.cpu.compiled import fingerprint
from qvit.errors import CircuitError, QvitError
from qvit.quantum import (
    Angle,
    Ansatz,
    Circuit,
    CircuitBuilder,
    Gate,
    Pauli,
    QuantumLinear,
    X,
    Y,
    Z,
    compile_circuit,
    expectations,
    get_ansatz,
    register_ansatz,
    w,
    x,
)
from qvit.quantum.ansatz import build_circuit
from qvit.quantum.draw import as_figure
from qvit.quantum.engines import make_plan
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.limits import series, whole
from suite.messages import missing, raised

Refused = list[tuple[Callable[[], Any], str]]

HALF = Angle(constant=0.5)
H = Gate("H", (0,))
MANY = "The statevector engine holds 2ⁿ real amplitudes per token, n up to 20; this circuit needs n={} or one more. Use"
MANY += " fewer qubits per head and more heads, or one ry_ring layer, which needs no amplitudes."
GATES = "Known gates: RX, RY, RZ, H, X, Y, Z, S, T, RXX, RYY, RZZ, CRX, CRY, CRZ, RBS, CNOT, CZ, SWAP, PauliRot."
NAMES = "Known ansätze: ry_ring, rx_ring, basic_entangler, strongly_entangling, reupload, dense_ring, amplitude_ring, "
NAMES += "unlu_v, unlu_qk, no_entangler, pyramid, butterfly, x."
ENGINES = "Known engines: auto, heisenberg, unitary, statevector, subspace, reference."
UNARY = "The subspace engine takes unary amplitude encoding, RBS gates that depend on weights only, and observables of "
UNARY += "I and Z; use engine='statevector' or 'auto'."


def own(name: str = "mine", shape: tuple[int, ...] = (1,), made: Any = None) -> Ansatz:
    return Ansatz(name, lambda n, layers: shape, lambda n, layers: made or Circuit(n, 0, 1, ()))


def named(name: str, n: int, n_layers: int = 1) -> Circuit:
    return get_ansatz(name).build(n, n_layers)


def of(*gates: Gate, n: int = 2, inputs: int = 0, weights: int = 0) -> Circuit:
    return Circuit(n, inputs, weights, gates)


def run(inputs: Any, weights: Any, circuit: Circuit | None = None, engine: str = "auto") -> torch.Tensor:
    return expectations(circuit or named("ry_ring", 3), inputs, weights, engine=engine)


SIZES: Refused = [
    (lambda: Circuit(0, 0, 0, ()), "The number of wires of a circuit must be from 1 to 4,096, got 0."),
    (lambda: Circuit(4097, 0, 0, ()), "The number of wires of a circuit must be from 1 to 4,096, got 4,097."),
    (lambda: Circuit(2.0, 0, 0, ()), "The number of wires of a circuit must be a whole number, got 2.0."),
    (lambda: Circuit(True, 0, 0, ()), "The number of wires of a circuit must be a whole number, got True."),
    (lambda: Circuit(2, -1, 0, ()), "n_inputs of a circuit must be from 0 to 2,097,152, got -1."),
    (lambda: Circuit(2, 0, 2**21 + 1, ()), "n_weights of a circuit must be from 0 to 2,097,152, got 2,097,153."),
    (
        lambda: Circuit(2, 2**64, 0, ()),
        "n_inputs of a circuit must be from 0 to 2,097,152, got a number of more than 64 bits.",
    ),
    (
        lambda: Circuit(2, 2**64 - 1, 0, ()),
        "n_inputs of a circuit must be from 0 to 2,097,152, got 18,446,744,073,709,551,615.",
    ),
    (lambda: Circuit(2, 0, 0, "gates"), "The gates of a circuit must be a tuple or a list, got 'gates'."),
    (lambda: Circuit(1, 0, 0, (H,) * 200_001), "The gates of a circuit must be at most 200,000, got 200,001."),
    (
        lambda: Circuit(1, 0, 0, (), (Z(0),) * 10_001),
        "The observables of a circuit must be at most 10,000, got 10,001.",
    ),
    (
        lambda: Circuit(1, 2, 0, (), (), range(2)),
        "The amplitudes of a circuit must be a tuple or a list, got range(0, 2).",
    ),
    (
        lambda: Circuit(1, 2, 0, (), (), (0,) * (2**20 + 1)),
        "The amplitudes of a circuit must be at most 1,048,576, got 1,048,577.",
    ),
    (lambda: Gate("RY", (4096,), x(0)), "A wire must be from -4096 to 4,095, got 4,096."),
    (lambda: Gate("RY", (-4097,), x(0)), "A wire must be from -4096 to 4,095, got -4,097."),
    (lambda: Gate("RY", 0, x(0)), "The wires of a gate must be a tuple or a list, got 0."),
    (lambda: Gate("RY", (0,) * 4097, x(0)), "The wires of a gate must be at most 4,096, got 4,097."),
    (lambda: Angle(inputs={0: 1.0}), "The inputs of an angle must be a tuple or a list, got {0: 1.0}."),
    (lambda: Angle(weights=((0.5, 1.0),)), "An index of an angle must be a whole number, got 0.5."),
    (
        lambda: Angle(weights=((2**21 + 1, 1.0),)),
        "An index of an angle must be from -2097152 to 2,097,152, got 2,097,153.",
    ),
    (
        lambda: Angle(inputs=((-(2**21) - 1, 1.0),)),
        "An index of an angle must be from -2097152 to 2,097,152, got -2,097,153.",
    ),
]
VALUES: Refused = [
    (
        lambda: Angle(inputs=((0, math.nan),)),
        "An angle needs pairs of an index and a finite number, got (0, nan).",
    ),
    (
        lambda: Angle(inputs=((0, 10**400),)),
        f"An angle needs pairs of an index and a finite number, got (0, 1{'0' * 75}.",
    ),
    (lambda: Angle(inputs=(0, 1.0)), "An angle needs pairs of an index and a finite number, got 0."),
    (
        lambda: Angle(weights=((0, 1.0, 2.0),)),
        "An angle needs pairs of an index and a finite number, got (0, 1.0, 2.0).",
    ),
    (lambda: 10 * Angle(((0, 1e308),)), "An angle needs pairs of an index and a finite number, got (0, inf)."),
    (lambda: Angle(constant=math.inf), "An angle needs finite numbers, got [inf]."),
    (lambda: Angle(constant="1"), "An angle needs finite numbers, got ['1']."),
    (lambda: Angle(constant=True), "An angle needs finite numbers, got [True]."),
    (lambda: Angle(constant=10**400), f"An angle needs finite numbers, got [1{'0' * 78}."),
    (lambda: Gate(3, (0,)), "Gates have names and words of letters, got 3 and ''."),
    (lambda: Gate("PauliRot", (0,), HALF, None), "Gates have names and words of letters, got 'PauliRot' and None."),
    (lambda: Gate("RY", (0,), 0.3), "The angle of RY must be an Angle such as w(0) or Angle(constant=0.5)."),
    (lambda: Circuit(2, 0, 0, ("H",)), "The gates of a circuit cannot hold 'H'."),
    (
        lambda: Circuit(2, 0, 0, (), (H,)),
        "The observables of a circuit cannot hold Gate(name='H', wires=(0,), angle=None, word='').",
    ),
    (lambda: Circuit(2, 1, 0, (), (), (True,)), "The amplitudes of a circuit cannot hold True."),
    (lambda: as_figure(of(n=65)), "A figure shows up to 64 wires, got 65. Draw the circuit as text."),
    (
        lambda: as_figure(of(*(H, Gate("H", (1,))) * 1251)),
        "A figure has room for 2500 places of gates; 2 wire(s) × 1251 columns are 2502. Draw the circuit as text, or "
        "one with fewer layers.",
    ),
]
CIRCUITS: Refused = [
    (lambda: of(Gate("RYX", (0,), HALF)), f"There is no gate 'RYX'. Did you mean 'RY'? {GATES}"),
    (lambda: of(Gate("?", (0,))), f"There is no gate '?'. {GATES}"),
    (
        lambda: CircuitBuilder(2).add("CNOTT", 0, 1).build(),
        f"There is no gate 'CNOTT'. Did you mean 'CNOT'? {GATES}",
    ),
    (lambda: of(Gate("RX", (0,), HALF, "X")), "RX takes no Pauli word; PauliRot does."),
    *(
        (
            lambda word=word: of(Gate("PauliRot", (0, 1), HALF, word)),
            "PauliRot needs a Pauli word with a letter per wire, at least one of them X, Y or Z.",
        )
        for word in ("", "II")
    ),
    (lambda: of(Gate("CNOT", (0,))), "CNOT acts on 2 wire(s), got (0,)."),
    (lambda: of(Gate("RX", (0, 1), HALF)), "RX acts on 1 wire(s), got (0, 1)."),
    (lambda: of(Gate("X", (2,))), "X acts on wires (2,); expected distinct wires from 0 to 1."),
    (lambda: of(Gate("X", (-1,))), "X acts on wires (-1,); expected distinct wires from 0 to 1."),
    (lambda: of(Gate("CNOT", (1, 1))), "CNOT acts on wires (1, 1); expected distinct wires from 0 to 1."),
    (lambda: of(Gate("RX", (0,))), "RX needs an angle."),
    (lambda: of(Gate("PauliRot", (0,), None, "X")), "PauliRot needs an angle."),
    (lambda: of(Gate("CZ", (0, 1), HALF)), "CZ takes no angle."),
    (lambda: of(Gate("RX", (0,), x(1)), inputs=1), "An angle uses input 1; this circuit has 1 input(s)."),
    (lambda: of(Gate("RX", (0,), x(-1)), inputs=1), "An angle uses input -1; this circuit has 1 input(s)."),
    (lambda: of(Gate("RX", (0,), w(3)), weights=3), "An angle uses weight 3; this circuit has 3 weight(s)."),
    (
        lambda: Circuit(2, 0, 0, (), (Z(0), Z(2))),
        "An observable acts on wires (2,); expected distinct wires from 0 to 1.",
    ),
    (
        lambda: Circuit(2, 1, 0, (), (), (0, 1)),
        "Amplitude encoding names 2 basis states, 2 of them distinct, for 1 input(s); it needs distinct states and an "
        "input for each.",
    ),
    (
        lambda: Circuit(2, 2, 0, (), (), (1, 1)),
        "Amplitude encoding names 2 basis states, 1 of them distinct, for 2 input(s); it needs distinct states and an "
        "input for each.",
    ),
    (lambda: Circuit(2, 1, 0, (), (), (4,)), "Basis states of 2 wire(s) go from 0 to 3."),
    (lambda: Circuit(2, 1, 0, (), (), (-1,)), "Basis states of 2 wire(s) go from 0 to 3."),
    (lambda: Circuit(20, 1, 0, (), (), (2**20,)), "Basis states of 20 wire(s) go from 0 to 1048575."),
    (lambda: Circuit(21, 1, 0, (), (), (2**21,)), "Basis states of 21 wire(s) go from 0 to 2^21 - 1."),
]
STRINGS: Refused = [
    (lambda: Pauli.of(3), "A Pauli word is at most 4096 letters, got 3."),
    (lambda: Pauli.of("X" * 4097), f"A Pauli word is at most 4096 letters, got '{'X' * 79}."),
    (lambda: Pauli.of("XQ"), "'Q' in the Pauli word 'XQ' is none of I, X, Y, Z."),
    (lambda: Pauli.of("x"), "'x' in the Pauli word 'x' is none of I, X, Y, Z."),
    (lambda: Pauli.of("XY", (0,)), "The Pauli word 'XY' needs 2 distinct wire(s), got (0,)."),
    (lambda: Pauli.of("X", (0, 1)), "The Pauli word 'X' needs 1 distinct wire(s), got (0, 1)."),
    (lambda: Pauli.of("XY", (1, 1)), "The Pauli word 'XY' needs 2 distinct wire(s), got (1, 1)."),
    (lambda: Pauli.of("X", (-1,)), "The Pauli word 'X' needs 1 distinct wire(s), got (-1,)."),
    (lambda: Pauli.of("X", {0}), "The wires of a Pauli word must be a tuple or a list, got {0}."),
    (lambda: Pauli.of("X", (0,) * 4097), "The wires of a Pauli word must be at most 4,096, got 4,097."),
    (lambda: Pauli.of("X", (0.5,)), "A wire must be a whole number, got 0.5."),
    (lambda: Z(4096), "A wire must be from -4096 to 4,095, got 4,096."),
    (lambda: Pauli.of("X", (-4097,)), "A wire must be from -4096 to 4,095, got -4,097."),
    (
        lambda: X(0) @ Z(1) @ Y(1),
        "X0·Z1 and Y1 share a wire; each wire of a Pauli string has one letter.",
    ),
]
ANSATZE: Refused = [
    (
        lambda: get_ansatz("strongly"),
        f"There is no ansatz 'strongly'. Did you mean 'strongly_entangling'? {NAMES}",
    ),
    (lambda: get_ansatz(3), f"There is no ansatz '3'. {NAMES}"),
    (
        lambda: register_ansatz(own("ry_ring")),
        "There is an ansatz 'ry_ring' already; choose another name or pass replace=True.",
    ),
    (
        lambda: register_ansatz(own(shape=(3, 2))),
        "The ansatz 'mine' says that 2 wires and 1 layer(s) have 6 weights, but builds 1.",
    ),
    (
        lambda: register_ansatz(own(made="no circuit")),
        "The ansatz 'mine' says that 2 wires and 1 layer(s) have 1 weights, but builds a str.",
    ),
    (
        lambda: build_circuit(own(shape=(200_000,)), 3, 2),
        "The ansatz 'mine' says that 3 wires and 2 layer(s) have 200000 weights, but builds 1.",
    ),
    (
        lambda: QuantumLinear(633, ansatz="pyramid"),
        "The ansatz 'pyramid' would have 200,028 weights on 633 wires in 1 layer(s); circuits have at most 200,000 "
        "gates.",
    ),
    (lambda: build_circuit(own(), 0, 1), "The number of qubits must be from 1 to 4,096, got 0."),
    (lambda: build_circuit(own(), 4097, 1), "The number of qubits must be from 1 to 4,096, got 4,097."),
    (lambda: build_circuit(own(), 2, 0), "The number of layers must be from 1 to 256, got 0."),
    (lambda: build_circuit(own(), 2, 257), "The number of layers must be from 1 to 256, got 257."),
    (lambda: named("amplitude_ring", 21), "amplitude_ring takes 2ⁿ features, n up to 20, got n=21."),
    (
        lambda: QuantumLinear(3, ansatz="butterfly"),
        "The butterfly network needs 2, 4, 8, … wires, got 3; pyramid and x take any number.",
    ),
    (
        lambda: QuantumLinear(1, ansatz="butterfly"),
        "The butterfly network needs 2, 4, 8, … wires, got 1; pyramid and x take any number.",
    ),
    (lambda: QuantumLinear(1, ansatz="pyramid"), "An orthogonal network needs at least two wires, got 1."),
    (lambda: named("x", 1), "An orthogonal network needs at least two wires, got 1."),
]
LAYERS: Refused = [
    (lambda: QuantumLinear(0), "n_qubits must be from 1 to 4,096, got 0."),
    (lambda: QuantumLinear(2.5), "n_qubits must be a whole number, got 2.5."),
    (lambda: QuantumLinear("4"), "n_qubits must be a whole number, got '4'."),
    (lambda: QuantumLinear(10**9), "n_qubits must be from 1 to 4,096, got 1,000,000,000."),
    (lambda: QuantumLinear(2**64 - 1), "n_qubits must be from 1 to 4,096, got 18,446,744,073,709,551,615."),
    (lambda: QuantumLinear(2**64), "n_qubits must be from 1 to 4,096, got a number of more than 64 bits."),
    (lambda: QuantumLinear(2, n_layers=0), "n_layers must be from 1 to 256, got 0."),
    (lambda: QuantumLinear(2, n_layers=257), "n_layers must be from 1 to 256, got 257."),
    (lambda: QuantumLinear(2, n_layers=True), "n_layers must be a whole number, got True."),
    (lambda: QuantumLinear(2, groups=3), "groups must be a tuple such as (3, 2), got 3."),
    (lambda: QuantumLinear(2, groups=(3, 0)), "groups must be from 1 to 65,536, got 0."),
    (lambda: QuantumLinear(2, groups=(2**16 + 1,)), "groups must be from 1 to 65,536, got 65,537."),
    (
        lambda: QuantumLinear(2, groups=(2**15, 3)),
        "The number of circuits in groups must be from 1 to 65,536, got 98,304.",
    ),
    (lambda: QuantumLinear(2, ansatz=3), "ansatz must be a name or an Ansatz, got 3."),
    (lambda: QuantumLinear(2, ansatz=["a" * 200]), f"ansatz must be a name or an Ansatz, got ['{'a' * 78}."),
    (
        lambda: QuantumLinear(2, ansatz="ry_rings"),
        f"There is no ansatz 'ry_rings'. Did you mean 'ry_ring'? {NAMES}",
    ),
    (
        lambda: QuantumLinear(2, engine="heisenburg"),
        f"There is no engine 'heisenburg'. Did you mean 'heisenberg'? {ENGINES}",
    ),
    (lambda: QuantumLinear(3)(torch.zeros(5, 4)), "Expected inputs (…, 3), got (5, 4)."),
    (lambda: QuantumLinear(3)(torch.zeros(5, 1)), "Expected inputs (…, 3), got (5, 1)."),
    (lambda: QuantumLinear(3)(torch.tensor(1.0)), "Expected inputs (…, 3), got ()."),
    *(
        (
            lambda dtype=dtype: QuantumLinear(3)(torch.zeros(5, 3, dtype=dtype)),
            f"Expected floating-point angles in radians, got {dtype}.",
        )
        for dtype in (torch.int64, torch.bool, torch.complex64)
    ),
    *(
        (
            lambda groups=groups, shape=shape: QuantumLinear(3, groups=groups)(torch.zeros(shape)),
            f"Expected inputs (…, {wanted}, 3) for groups {groups} (1 where circuits share their input), got {shape}.",
        )
        for groups, wanted, shape in (
            ((2,), "2", (3,)),
            ((2,), "2", (4, 3)),
            ((3, 2), "3, 2", (5, 3, 3, 3)),
            ((3, 2), "3, 2", (5, 2, 2, 3)),
            ((3, 2), "3, 2", (2, 3)),
        )
    ),
]
# What no engine can do is told before one is asked; a width of 1 would otherwise broadcast silently.
BATCHES: Refused = [
    (lambda: run([0.0], torch.zeros(3)), "Expected inputs as a tensor, got list."),
    (lambda: run(torch.zeros(3), None), "Expected weights as a tensor, got NoneType."),
    (lambda: run(torch.zeros(5, 1), torch.zeros(3)), "Expected inputs (…, 3) for this circuit, got (5, 1)."),
    (lambda: run(torch.zeros(5, 3), torch.zeros(1)), "Expected weights (…, 3) for this circuit, got (1,)."),
    (lambda: run(torch.tensor(0.0), torch.zeros(3)), "Expected inputs (…, 3) for this circuit, got ()."),
    (lambda: run(torch.zeros(5, 3), torch.tensor(0.0)), "Expected weights (…, 3) for this circuit, got ()."),
    (
        lambda: run(torch.zeros(5, 3, dtype=torch.int64), torch.zeros(3)),
        "Expected inputs and weights of one floating-point dtype, got torch.int64 and torch.float32.",
    ),
    (
        lambda: run(torch.zeros(3).double(), torch.zeros(3)),
        "Expected inputs and weights of one floating-point dtype, got torch.float64 and torch.float32.",
    ),
    (
        lambda: run(torch.zeros(3), torch.empty(3, device="meta")),
        "Inputs are on cpu and weights on meta; move them together.",
    ),
    (
        lambda: run(torch.zeros(5, 2, 3), torch.zeros(4, 3)),
        "Inputs (5, 2, 3) and weights (4, 3) do not broadcast over their leading dimensions; the groups of the "
        "weights must come last in those of the inputs.",
    ),
]
PLANS: Refused = [
    (lambda: make_plan(named("ry_ring", 3), None), f"There is no engine 'None'. {ENGINES}"),  # type: ignore[arg-type]
    (lambda: make_plan(named("ry_ring", 3), "dense"), f"There is no engine 'dense'. {ENGINES}"),
    *(
        (lambda circuit=circuit: make_plan(circuit, "subspace"), UNARY)
        for circuit in (
            named("ry_ring", 3),
            replace(named("pyramid", 3), observables=(X(0),)),
            replace(named("pyramid", 3), amplitudes=(1, 3)),
            replace(named("pyramid", 2), gates=(Gate("RBS", (0, 1), x(0)),)),
        )
    ),
    *(
        (
            lambda name=name: make_plan(named(name, 3), "heisenberg"),
            "The heisenberg engine starts in |0…0⟩; use engine='statevector' for loaded amplitudes.",
        )
        for name in ("pyramid", "amplitude_ring")
    ),
    (
        lambda: heisenberg_plan(compile_circuit(named("strongly_entangling", 5, 3)), 100),
        "The heisenberg engine would need more than 100 products for this circuit; use engine='statevector' or 'auto'.",
    ),
    (lambda: make_plan(named("ry_ring", 21, 2), "statevector"), MANY.format(21)),
    (lambda: make_plan(named("rx_ring", 20, 2), "statevector"), MANY.format(20)),
    (lambda: make_plan(named("ry_ring", 70, 2), "statevector"), MANY.format(70)),
    *(
        (
            lambda name=name, n=n: make_plan(named(name, n, 2), "unitary"),
            f"The unitary engine holds 2ⁿ × 2ⁿ matrices, n up to 12; this circuit needs n={n} or one more. Use "
            "engine='statevector' or 'auto'.",
        )
        for name, n in (("ry_ring", 13), ("rx_ring", 12), ("ry_ring", 70))
    ),
    (
        lambda: make_plan(named("basic_entangler", 21, 2), "auto"),
        f"No engine can run this circuit. {MANY.format(21)}",
    ),
    *(
        (
            lambda n=n, tokens=tokens: run(torch.zeros(tokens, 0), torch.zeros(0), of(H, n=n), "reference"),
            "The reference engine multiplies a matrix of 2ⁿ × 2ⁿ per token, for n up to 11 and 67,108,864 elements in "
            f"all; got n={n} and {tokens} token(s). Use engine='auto'.",
        )
        for n, tokens in ((12, 1), (11, 17))
    ),
]
REFUSED = [*SIZES, *VALUES, *CIRCUITS, *STRINGS, *ANSATZE, *LAYERS, *BATCHES, *PLANS]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_what_is_wrong_is_told(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CircuitError) as raised:
        call()
    assert str(raised.value) == message


TABLE = [1.0, 2.0]


def lookup(place: int) -> float:
    return TABLE[place]


def batch_the_code() -> Tensor:
    call = QuantumLinear(2, engine="heisenberg")._plan.call
    source = torch.zeros(1, dtype=torch.int32)
    code = torch.stack([call.code.tensor()] * 2)
    given = torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.zeros(1, 0, 3), source
    return torch.func.vmap(lambda one: call.traceable.forward(*given, one, 2, 2))(code)


OF_ENGINES = [
    (lambda: fingerprint(lookup), TypeError, "lookup refers to TABLE, a list that may change."),
    (batch_the_code, NotImplementedError, "The encoded circuit of a qvit operator cannot be batched."),
]


@pytest.mark.parametrize(("call", "kind", "message"), OF_ENGINES)
def test_what_only_those_meet_who_write_engines(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as raised:
        call()
    assert str(raised.value) == message


def test_every_message_is_in_a_table() -> None:
    found = raised(*Path(quantum.__file__).parent.rglob("*.py"))
    assert len(found) > 40
    known = [message for _, message in REFUSED] + [message for _, _, message in OF_ENGINES]
    assert missing(found, known) == []


def test_a_layer_that_is_refused_is_not_registered() -> None:
    for wrong in (own(shape=(3, 2)), own(made="no circuit")):
        with pytest.raises(CircuitError, match="but builds"):
            register_ansatz(wrong)
        with pytest.raises(CircuitError, match="no ansatz 'mine'"):
            get_ansatz("mine")


def test_bounds_themselves_are_allowed() -> None:
    assert (whole("It", 2, least=2, most=3), whole("It", 3, least=2, most=3)) == (2, 3)
    assert series("They", [1, 2], most=2) == (1, 2)
    assert Circuit(4096, 2**21, 2**21, ()).observables[-1] == Z(4095)
    assert Pauli.of("I" * 4095 + "X") == X(4095)
    assert Angle(inputs=((-(2**21), 1.0), (2**21, 1.0))).inputs == ((-(2**21), 1.0), (2**21, 1.0))
    assert Circuit(2, 1, 0, (Gate("RX", (1,), x(0)),), (Z(1),), (3,)).amplitudes == (3,)
    assert QuantumLinear(1, groups=(2**16,)).weights.shape == (2**16, 1, 1)
    assert len(build_circuit(get_ansatz("no_entangler"), 1, 256).gates) == 257


def test_the_family() -> None:
    assert issubclass(CircuitError, QvitError)
