"""Named circuits: sizes, values by every engine, closed forms, and the registry."""

import math
import subprocess
import sys
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
from qvit.quantum.engines.heisenberg import heisenberg_plan

EnginesFor = Callable[[Circuit], list[str]]

WEIGHTS: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "ry_ring": lambda n, layers: (layers, n),
    "rx_ring": lambda n, layers: (layers, n),
    "basic_entangler": lambda n, layers: (layers, n),
    "strongly_entangling": lambda n, layers: (layers, n, 3),
    "reupload": lambda n, layers: (layers, n, 2),
    "dense_ring": lambda n, layers: (layers, n),
    "amplitude_ring": lambda n, layers: (layers, n),
    "unlu_v": lambda n, layers: (3 * n * layers,),
    "unlu_qk": lambda n, layers: (3 * n * layers + 1,),
    "no_entangler": lambda n, layers: (layers, n),
    "pyramid": lambda n, layers: (layers, n * (n - 1) // 2),
    "butterfly": lambda n, layers: (layers, n // 2 * int(math.log2(n))),
    "x": lambda n, layers: (layers, 2 * n - 3),
}
INPUTS = {"dense_ring": lambda n: 2 * n, "amplitude_ring": lambda n: 2**n}
ORTHOGONAL = ("pyramid", "butterfly", "x")
CASES = [
    (name, n, layers)
    for name in ANSATZE
    for n in ((2, 4) if name == "butterfly" else (2, 3, 4, 5) if name in ORTHOGONAL else (1, 2, 3, 4, 5))
    for layers in (1, 2, 3)
]


@pytest.mark.parametrize(("name", "n", "n_layers"), CASES)
def test_sizes_and_values(name: str, n: int, n_layers: int, engines_for: EnginesFor) -> None:
    row = get_ansatz(name)
    circuit = row.build(n, n_layers)
    assert row.weight_shape(n, n_layers) == WEIGHTS[name](n, n_layers)
    assert circuit.n_weights == math.prod(WEIGHTS[name](n, n_layers))
    assert circuit.n_inputs == INPUTS.get(name, lambda n: n)(n)
    assert circuit.observables == ((Z(0),) if name == "unlu_qk" else tuple(map(Z, range(n))))
    inputs = torch.randn(3, 1, circuit.n_inputs, dtype=torch.float64)
    weights = torch.randn(2, circuit.n_weights, dtype=torch.float64)
    expected = expectations(circuit, inputs, weights, engine="reference")
    deep = n * n_layers > 8  # heisenberg would plan thousands of products
    for engine in ("statevector", "unitary") if deep else engines_for(circuit):
        values = expectations(circuit, inputs, weights, engine=engine)
        torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)


def test_every_ansatz_is_here_and_says_where_it_is_from() -> None:
    assert set(WEIGHTS) == set(ANSATZE)
    assert all(row.name == name and row.source for name, row in ANSATZE.items())


# --- closed forms --------------------------------------------------------------------------------------------


def prefix_products(angles: Tensor) -> Tensor:
    """⟨Zᵢ⟩ = ∏_{j≤i} cos θⱼ, and ∏_{j≥1} cos θⱼ for i = 0 (a single wire has no ring)."""
    cosines = angles.cos()
    if angles.shape[-1] == 1:
        return cosines
    return torch.cat((cosines[..., 1:].prod(-1, keepdim=True), cosines.cumprod(-1)[..., 1:]), dim=-1)


@pytest.mark.parametrize("engine", ["auto", "heisenberg", "statevector", "unitary"])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["ry_ring", "rx_ring"])
def test_one_ring_layer_is_prefix_products(name: str, n: int, engine: str) -> None:
    layer = QuantumLinear(n, ansatz=name, engine=engine, dtype=torch.float64)
    inputs = torch.randn(11, n, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), prefix_products(inputs + layer.weights[0]), atol=1e-12, rtol=0)


def test_many_qubits_in_closed_form() -> None:
    layer = QuantumLinear(70, init_method=torch.nn.init.zeros_, dtype=torch.float64)
    inputs = (torch.randn(5, 70, dtype=torch.float64) / 9).requires_grad_()
    values, expected = layer(inputs), prefix_products(inputs)
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
    assert values.abs().min() > 1e-3  # the products do not just vanish
    ours, theirs = (torch.autograd.grad(v.square().sum(), inputs)[0] for v in (values, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    assert len(heisenberg_plan(compile_circuit(layer.circuit)).nodes) <= 2 * 70


THOUSAND = """
import torch
from qvit.quantum import QuantumLinear
torch.set_num_threads(1)
layer = QuantumLinear(1000, init_method=torch.nn.init.zeros_, dtype=torch.float64)
x = torch.randn(5, 1000, dtype=torch.float64) / 30
values = layer(x)
cosines = x.cos()
expected = torch.cat((cosines[:, 1:].prod(-1, keepdim=True), cosines.cumprod(-1)[:, 1:]), dim=-1)
torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
"""


def test_a_thousand_qubits() -> None:
    """In a process of its own: the checks of annotations in tests would take longer than the work."""
    done = subprocess.run([sys.executable, "-c", THOUSAND], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_work_grows_with_the_square_of_the_qubits_at_most(work: Callable[..., int]) -> None:
    def lines(n: int) -> int:
        return work(lambda: QuantumLinear(n))

    assert lines(40) < 4 * lines(20)


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


@pytest.mark.parametrize("engine", ["subspace", "statevector", "unitary", "auto"])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_networks_are_orthogonal_matrices(name: str, n: int, n_layers: int, engine: str) -> None:
    """⟨Zᵢ⟩ = 1 − 2(Wx/‖x‖)ᵢ², by real RBS gates on 2ⁿ amplitudes and by n alone."""
    circuit = get_ansatz(name).build(n, n_layers)
    inputs, weights = torch.randn(7, n, dtype=torch.float64), torch.randn(circuit.n_weights, dtype=torch.float64)
    matrix = by_givens(name, n, n_layers, weights)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64))
    expected = 1 - 2 * ((inputs / inputs.norm(dim=-1, keepdim=True)) @ matrix.T).square()
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


def own(name: str = "mine", *, count: int = 1, weights: tuple[int, ...] | None = None) -> Ansatz:
    def build(n: int, n_layers: int) -> Circuit:
        gates = tuple(Gate("RX", (i,), x(i) + w(k)) for k in range(count) for i in range(n))
        return Circuit(n, n, count, gates)

    return Ansatz(name, lambda n, n_layers: (count,) if weights is None else weights, build)


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


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (own(count=2, weights=(3, 2)), r"'mine' says that 2 wires and 1 layer\(s\) have 6 weights, but builds 2"),
        (Ansatz("mine", lambda n, n_layers: (1,), lambda n, n_layers: "no circuit"), r"but builds a str"),  # type: ignore[arg-type, return-value]
    ],
)
@pytest.mark.usefixtures("registry")
def test_what_does_not_fit_is_not_registered(row: Ansatz, message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        register_ansatz(row)
    with pytest.raises(CircuitError, match="no ansatz 'mine'"):
        get_ansatz("mine")


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
