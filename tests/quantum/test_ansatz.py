"""Named circuits: sizes, values by every engine, closed forms, and the registry."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qvit.errors import CircuitError, CircuitWarning
from qvit.quantum import (
    ANSATZE,
    Ansatz,
    Circuit,
    Gate,
    QuantumLinear,
    Z,
    analyse,
    compile_circuit,
    expectations,
    get_ansatz,
    register_ansatz,
    w,
    x,
)
from qvit.quantum.ansatz import ORTHOGONAL_NETWORKS, build_circuit
from qvit.quantum.engines.choose import auto_plan
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.engines.statevector import statevector_plan
from qvit.quantum.program import light_cones

EnginesFor = Callable[[Circuit], list[str]]

# name → wires, layers, the gates in order, written out from the sources; features x, weights w
GATES: dict[str, tuple[int, int, str]] = {
    "ry_ring": (
        3, 2, "RY0(x0) RY1(x1) RY2(x2) RY0(w0) RY1(w1) RY2(w2) CNOT01 CNOT12 CNOT20 "
        "RY0(w3) RY1(w4) RY2(w5) CNOT01 CNOT12 CNOT20",
    ),
    "rx_ring": (2, 1, "RX0(x0) RX1(x1) RX0(w0) RX1(w1) CNOT01 CNOT10"),
    "basic_entangler": (2, 1, "RY0(x0) RY1(x1) RX0(w0) RX1(w1) CNOT01 CNOT10"),
    "strongly_entangling": (
        3, 3, "RY0(x0) RY1(x1) RY2(x2) "
        "RZ0(w0) RZ1(w3) RZ2(w6) RY0(w1) RY1(w4) RY2(w7) RZ0(w2) RZ1(w5) RZ2(w8) CNOT01 CNOT12 CNOT20 "
        "RZ0(w9) RZ1(w12) RZ2(w15) RY0(w10) RY1(w13) RY2(w16) RZ0(w11) RZ1(w14) RZ2(w17) CNOT02 CNOT10 CNOT21 "
        "RZ0(w18) RZ1(w21) RZ2(w24) RY0(w19) RY1(w22) RY2(w25) RZ0(w20) RZ1(w23) RZ2(w26) CNOT01 CNOT12 CNOT20",
    ),
    "reupload": (
        2, 2, "RY0(x0) RY1(x1) RY0(w0) RY1(w2) RZ0(w1) RZ1(w3) CNOT01 CNOT10 "
        "RY0(x0) RY1(x1) RY0(w4) RY1(w6) RZ0(w5) RZ1(w7) CNOT01 CNOT10",
    ),
    "dense_ring": (
        2, 2, "RY0(x0) RY1(x1) RZ0(x2) RZ1(x3) RY0(w0) RY1(w1) CNOT01 CNOT10 RY0(w2) RY1(w3) CNOT01 CNOT10",
    ),
    "amplitude_ring": (2, 2, "RY0(w0) RY1(w1) CNOT01 CNOT10 RY0(w2) RY1(w3) CNOT01 CNOT10"),
    "unlu_v": (
        2, 2, "RX0(x0) RX1(x1) RX0(w0) RX1(w2) RY0(w1) RY1(w3) CNOT01 CNOT10 RY0(w4) RY1(w5) "
        "RX0(w6) RX1(w8) RY0(w7) RY1(w9) CNOT01 CNOT10 RY0(w10) RY1(w11)",
    ),
    "unlu_qk": (
        2, 1, "RX0(x0) RX1(x1) RX0(w0) RX1(w2) RY0(w1) RY1(w3) CNOT01 CNOT10 RY0(w4) RY1(w5) CNOT01 CNOT10 RY0(w6)",
    ),
    "no_entangler": (2, 2, "RY0(x0) RY1(x1) RY0(w0) RY1(w1) RY0(w2) RY1(w3)"),
    "pyramid": (4, 1, "RBS01(w0) RBS12(w1) RBS01(w2) RBS23(w3) RBS12(w4) RBS01(w5)"),
    "butterfly": (
        4, 2, "RBS02(w0) RBS13(w1) RBS01(w2) RBS23(w3) RBS02(w4) RBS13(w5) RBS01(w6) RBS23(w7)",
    ),
    "x": (5, 1, "RBS01(w0) RBS34(w1) RBS12(w2) RBS23(w3) RBS23(w4) RBS34(w5) RBS01(w6)"),
}  # fmt: skip
# name → shapes of weights on (2, 3), then on (5, 1), or (8, 1) for the butterfly
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "ry_ring": ((3, 2), (1, 5)),
    "rx_ring": ((3, 2), (1, 5)),
    "basic_entangler": ((3, 2), (1, 5)),
    "strongly_entangling": ((3, 2, 3), (1, 5, 3)),
    "reupload": ((3, 2, 2), (1, 5, 2)),
    "dense_ring": ((3, 2), (1, 5)),
    "amplitude_ring": ((3, 2), (1, 5)),
    "unlu_v": ((18,), (15,)),
    "unlu_qk": ((19,), (16,)),
    "no_entangler": ((3, 2), (1, 5)),
    "pyramid": ((3, 1), (1, 10)),
    "butterfly": ((3, 1), (1, 12)),
    "x": ((3, 1), (1, 7)),
}
ORTHOGONAL = ("pyramid", "butterfly", "x")


def test_every_ansatz_is_here_and_says_where_it_is_from() -> None:
    assert list(GATES) == list(SHAPES) == list(ANSATZE)
    assert all(row.name == name and row.source for name, row in ANSATZE.items())
    assert set(ORTHOGONAL) == set(ORTHOGONAL_NETWORKS)


def told(gate: Gate) -> str:
    return f"{gate.name}{''.join(map(str, gate.wires))}{(gate.angle and f'({gate.angle})') or ''}"


@pytest.mark.parametrize("name", ANSATZE)
def test_gates_by_hand(name: str) -> None:
    n, n_layers, expected = GATES[name]
    circuit = get_ansatz(name).build(n, n_layers)
    assert " ".join(map(told, circuit.gates)) == expected
    assert circuit.observables == ((Z(0),) if name == "unlu_qk" else tuple(map(Z, range(n))))
    loaded: dict[str, tuple[int, ...]] = {
        "amplitude_ring": (0, 1, 2, 3), "pyramid": (8, 4, 2, 1), "butterfly": (8, 4, 2, 1), "x": (16, 8, 4, 2, 1)
    }  # fmt: skip
    assert circuit.amplitudes == loaded.get(name, ())
    assert circuit.n_inputs == {"dense_ring": 4, "amplitude_ring": 4}.get(name, n)


@pytest.mark.parametrize("name", ANSATZE)
def test_shapes_of_weights(name: str) -> None:
    n = 8 if name == "butterfly" else 5
    row = get_ansatz(name)
    assert (row.weight_shape(2, 3), row.weight_shape(n, 1)) == SHAPES[name]
    assert [row.build(2, 3).n_weights, row.build(n, 1).n_weights] == list(map(math.prod, SHAPES[name]))


@pytest.mark.parametrize("name", ANSATZE)
def test_every_engine_gives_the_values_of_the_reference(name: str, engines_for: EnginesFor) -> None:
    smallest, uneven = ((2, 2), (4, 1)) if name == "butterfly" else ((2 if name in ORTHOGONAL else 1, 2), (5, 1))
    for n, n_layers in (smallest, uneven):
        circuit = get_ansatz(name).build(n, n_layers)
        inputs = torch.randn(2, 1, circuit.n_inputs, dtype=torch.float64)
        weights = torch.randn(2, circuit.n_weights, dtype=torch.float64)
        expected = expectations(circuit, inputs, weights, engine="reference")
        for engine in engines_for(circuit):
            values = expectations(circuit, inputs, weights, engine=engine)
            torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)


# --- closed forms --------------------------------------------------------------------------------------------


def prefix_products(angles: Tensor) -> Tensor:
    """⟨Zᵢ⟩ = ∏_{j≤i} cos θⱼ, and ∏_{j≥1} cos θⱼ for i = 0 (a single wire has no ring)."""
    cosines = angles.cos()
    if angles.shape[-1] == 1:
        return cosines
    return torch.cat((cosines[..., 1:].prod(-1, keepdim=True), cosines.cumprod(-1)[..., 1:]), dim=-1)


@pytest.mark.parametrize("engine", ["auto", "heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize(("name", "n"), [("ry_ring", 1), ("rx_ring", 2), ("ry_ring", 7)])
def test_one_ring_layer_is_prefix_products(name: str, n: int, engine: str) -> None:
    layer = QuantumLinear(n, ansatz=name, engine=engine, dtype=torch.float64)
    inputs = torch.randn(11, n, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), prefix_products(inputs + layer.weights[0]), atol=1e-12, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize("n", [70, 400])
def test_many_qubits_in_closed_form(n: int) -> None:
    """More than the bits of a machine's word; and more than strings could be opened one within another."""
    layer = QuantumLinear(n, init_method=torch.nn.init.zeros_, dtype=torch.float64)
    inputs = (torch.randn(5, n, dtype=torch.float64) / n**0.5).requires_grad_()
    values, expected = layer(inputs), prefix_products(inputs)
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
    assert values.abs().min() > 1e-3  # the products do not just vanish
    ours, theirs = (torch.autograd.grad(v.square().sum(), inputs)[0] for v in (values, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    assert len(heisenberg_plan(compile_circuit(layer.circuit)).nodes) <= 2 * n


@pytest.mark.long
def test_work_grows_with_the_square_of_the_qubits_at_most(work: Callable[..., int]) -> None:
    def lines(n: int) -> int:
        for cached in (compile_circuit, light_cones, analyse, auto_plan, heisenberg_plan, statevector_plan):
            cached.cache_clear()  # or what other tests have made would count as no work
        return work(lambda: QuantumLinear(n))

    assert lines(24) < 4 * lines(12)


def test_without_entangler_each_output_is_one_cosine() -> None:
    layer = QuantumLinear(3, n_layers=2, ansatz="no_entangler", dtype=torch.float64)
    inputs = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), (inputs + layer.weights.sum(0)).cos(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("engine", ["auto", "heisenberg", "statevector", "unitary", "reference"])
def test_single_gates_by_hand(engine: str) -> None:
    """Conventions, without any reference: which wire is which, control before target, sign and half-angle."""
    t, no_weights = 0.3, torch.zeros(0, dtype=torch.float64)
    ry, cnot = Gate("RY", (0,), 2 * x(0) + 0.1), Gate("CNOT", (0, 1))
    flipped = (Gate("X", (1,)), Gate("CNOT", (1, 2)))
    quarter = Gate("RX", (0,), 0 * x(0) + math.pi / 2)
    cases = [
        (2, (ry,), [math.cos(2 * t + 0.1), 1.0]),
        (2, (ry, cnot), [math.cos(2 * t + 0.1), math.cos(2 * t + 0.1)]),
        (3, flipped, [1.0, -1.0, -1.0]),
        (3, (*flipped, Gate("SWAP", (0, 2))), [-1.0, -1.0, 1.0]),
        # H·T·H turns T's phase of π/4 into ⟨Z⟩ = cos π/4; S of π/2 into 0
        (1, (Gate("H", (0,)), Gate("T", (0,)), Gate("H", (0,))), [math.cos(math.pi / 4)]),
        (1, (Gate("H", (0,)), Gate("S", (0,)), Gate("H", (0,))), [0.0]),
        # S then RX(π/2) tells S from its inverse: ⟨Y⟩ is read as ⟨Z⟩
        (1, (Gate("H", (0,)), Gate("S", (0,)), quarter), [1.0]),
    ]
    for n, gates, expected in cases:
        circuit = Circuit(n, 1, 0, gates)
        values = expectations(circuit, torch.tensor([t], dtype=torch.float64), no_weights, engine=engine)
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


# --- orthogonal networks -------------------------------------------------------------------------------------


def by_givens(name: str, n: int, n_layers: int, weights: Tensor) -> Tensor:
    """W, one Givens rotation a gate: |10⟩ ↦ cos θ|10⟩ + sin θ|01⟩ on wires (i, j)."""
    matrix = torch.eye(n, dtype=torch.float64)
    for gate, theta in zip(get_ansatz(name).build(n, n_layers).gates, weights, strict=True):
        i, j = gate.wires
        turn = torch.eye(n, dtype=torch.float64)
        turn[i, i] = turn[j, j] = theta.cos()
        turn[j, i], turn[i, j] = theta.sin(), -theta.sin()
        matrix = turn @ matrix
    return matrix


@pytest.mark.parametrize(("n", "n_layers"), [(4, 2), (8, 1)])
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_networks_are_orthogonal_matrices(name: str, n: int, n_layers: int) -> None:
    """⟨Zᵢ⟩ = 1 − 2(Wx/‖x‖)ᵢ², by real RBS gates on 2ⁿ amplitudes and by n alone."""
    circuit = get_ansatz(name).build(n, n_layers)
    inputs, weights = torch.randn(7, n, dtype=torch.float64), torch.randn(circuit.n_weights, dtype=torch.float64)
    matrix = by_givens(name, n, n_layers, weights)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64))
    expected = 1 - 2 * ((inputs / inputs.norm(dim=-1, keepdim=True)) @ matrix.T).square()
    for engine in ("subspace", "statevector", "unitary", "auto"):
        values = expectations(circuit, inputs, weights, engine=engine)
        torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_networks_reach_every_output_from_every_input(name: str) -> None:
    weights = torch.rand(get_ansatz(name).build(8, 1).n_weights, dtype=torch.float64) + 0.3
    reached = by_givens(name, 8, 1, weights).abs() > 1e-9
    assert reached.any(0).all()
    assert reached[:, 0].all() if name != "x" else reached[:, 0].sum() >= 2
    if name == "butterfly":
        assert reached.all()


def test_zero_features_have_no_direction() -> None:
    layer = QuantumLinear(4, ansatz="pyramid", dtype=torch.float64)
    inputs = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    values = layer(inputs)
    assert (values == 0).all()
    values.sum().backward()
    assert torch.isfinite(inputs.grad).all()  # type: ignore[arg-type]


# --- your own ------------------------------------------------------------------------------------------------


def own(name: str = "mine", *, count: int = 1) -> Ansatz:
    def build(n: int, n_layers: int) -> Circuit:
        gates = tuple(Gate("RX", (i,), x(i) + w(k)) for k in range(count) for i in range(n))
        return Circuit(n, n, count, gates)

    return Ansatz(name, lambda n, n_layers: (count,), build)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Ansatz]:
    copied = dict(ANSATZE)
    monkeypatch.setattr("qvit.quantum.ansatz.ANSATZE", copied)
    return copied


def test_register_your_own(registry: dict[str, Ansatz]) -> None:
    row = own(count=2)
    assert register_ansatz(row) is row
    assert get_ansatz("mine") is row
    layer = QuantumLinear(3, ansatz="mine")
    assert layer.weights.shape == (2,)
    assert layer(torch.randn(5, 3)).shape == (5, 3)
    assert QuantumLinear(3, ansatz=own("unknown")).ansatz == "unknown"  # a value will do, too
    with pytest.raises(CircuitError, match=r"There is an ansatz 'mine' already; .* replace=True"):
        register_ansatz(own())
    assert register_ansatz(own(), replace=True).build(2, 1).n_weights == 1
    assert get_ansatz("mine") is registry["mine"] is not row


def test_a_circuit_is_built_once_for_all_who_ask() -> None:
    asked: list[tuple[int, int]] = []

    def build(n: int, n_layers: int) -> Circuit:
        asked.append((n, n_layers))
        return Circuit(n, n, 0, tuple(Gate("RY", (wire,), x(wire)) for wire in range(n)))

    one, other = (Ansatz("mine", lambda n, layers: (0,), build) for _ in range(2))
    first = build_circuit(one, 3, 1)
    assert build_circuit(one, 3, 1) is first
    assert asked == [(3, 1)]
    for ansatz, size in ((one, (2, 1)), (one, (3, 2)), (other, (3, 1))):
        build_circuit(ansatz, *size)
    assert asked == [(3, 1), (2, 1), (3, 2), (3, 1)], "another size, or another ansatz of the same name"


@pytest.mark.long
def test_warnings_name_what_does_nothing() -> None:
    with pytest.warns(CircuitWarning) as caught:
        QuantumLinear(2, n_layers=2, ansatz="strongly_entangling")
    assert [str(one.message) for one in caught] == [
        "strongly_entangling on 2 qubit(s): 2 weight(s) cannot influence any output: 8, 11."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in set(ANSATZE) - {"strongly_entangling", "reupload"}:
            assert not analyse(QuantumLinear(4, n_layers=2, ansatz=name).circuit).complaints()
