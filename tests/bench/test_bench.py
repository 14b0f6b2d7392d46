"""Benchmarks measure what they say; their figures are not judged here."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from qvit.bench import engines, layer, step
from qvit.bench.engines import EngineRow, bench_engines
from qvit.bench.gradients import gradient_variance
from qvit.bench.layer import LayerRow, bench_layer
from qvit.bench.peers import angle_value, installed, pennylane_layer, pennylane_node, tensorcircuit_layer
from qvit.bench.step import bench_step, make_step
from qvit.errors import ConfigError
from qvit.quantum import Circuit, Gate, QuantumLinear, X, Y, Z, expectations, get_ansatz, w, x
from qvit.quantum.circuit import Angle


@pytest.fixture
def nobody_elses() -> Iterator[None]:
    """What is drawn for a measurement is nobody else's."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


# --- peers -----------------------------------------------------------------------------------------------------

GATES = (
    *(Gate("RY", (0,), x(3) + 0.5 * w(0)), Gate("H", (1,)), Gate("CNOT", (1, 2)), Gate("RZZ", (0, 2), w(1) + 0.25)),
    *(Gate("PauliRot", (0, 2), -1 * w(2), "YX"), Gate("RX", (2,), Angle(constant=0.7)), Gate("RZ", (1,), x(4) - x(3))),
)
PLAIN = Circuit(3, 5, 3, GATES, (Z(0), -Y(1), X(2) @ Z(0)))
LOADED = Circuit(3, 5, 3, (*GATES, Gate("RBS", (2, 0), w(1))), (-Z(0), X(1) @ Y(2)), (1, 6, 4))


@pytest.mark.parametrize("circuit", [PLAIN, LOADED], ids=["plain", "loaded"])
def test_the_peer_computes_what_we_compute_and_its_gradients(circuit: Circuit) -> None:
    given = torch.randn(5, circuit.n_inputs, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(circuit.n_weights, dtype=torch.float64, requires_grad=True)
    ours, theirs = expectations(circuit, given, weights), torch.stack(pennylane_node(circuit)(given, weights), dim=-1)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    slopes = [torch.autograd.grad(values.sin().sum(), (given, weights)) for values in (ours, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=0)


def test_the_peer_is_timed_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    given, weights, factors = torch.randn(5, 5), torch.randn(3), torch.randn(5, 3)
    run, values = pennylane_layer(PLAIN, given, weights, factors)
    torch.testing.assert_close(values.double(), expectations(PLAIN, given, weights).double(), atol=1e-5, rtol=0)
    found: list[tuple[Tensor, ...]] = []
    differentiate = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: found.append(differentiate(*a, **k)))
    assert run() is None
    monkeypatch.undo()
    leaves = given.requires_grad_(), weights.requires_grad_()
    expected = torch.autograd.grad(expectations(PLAIN, *leaves), leaves, factors)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)


def test_an_angle_of_any_library() -> None:
    angle = 2.0 * x(1) - w(0) + 0.5
    assert angle_value(angle, torch.tensor([[9.0, 3.0]]), torch.tensor([4.0])).tolist() == [2 * 3.0 - 4.0 + 0.5]
    assert angle_value(Angle(), torch.zeros(1, 2), torch.zeros(1)) == 0.0


def test_whether_a_package_is_there() -> None:
    assert installed("pennylane")
    assert not installed("no_such_package")


@pytest.mark.parametrize("name", ["pyramid", "amplitude_ring", "unlu_v"])
def test_tensorcircuit_is_not_asked_for_what_it_has_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("jax", "tensorcircuit"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    circuit = get_ansatz("ry_ring").build(2, 1) if name == "unlu_v" else get_ansatz(name).build(2, 1)
    if name == "unlu_v":
        circuit = Circuit(2, 2, 2, circuit.gates, (-Z(0),))
    with pytest.raises(ConfigError) as caught:
        tensorcircuit_layer(circuit, torch.zeros(1, circuit.n_inputs), torch.zeros(circuit.n_weights), torch.zeros(1))
    assert str(caught.value) == (
        "tensorcircuit is compared on circuits of one-wire gates, CNOT, CZ and SWAP with plain Pauli strings; "
        "leave it out of --peers for this ansatz."
    )


# --- a layer ---------------------------------------------------------------------------------------------------


def peer_off_by(error: float, asked: list[Any] | None = None) -> tuple[str, Callable[..., Any]]:
    """A peer that is quick, and as wrong as this."""

    def make(circuit: Circuit, given: Tensor, weights: Tensor, grad: Tensor) -> tuple[Callable[[], None], Tensor]:
        if asked is not None:
            asked.append((given, weights, grad))
        return lambda: None, expectations(circuit, given, weights) + error

    return "torch", make


def medians(found: list[dict[str, Any]]) -> Callable[..., list[float]]:
    """Stand for measurements: 6 ms for one function; 2 ms and 4 ms for two, which are called."""

    def measure(functions: list[Callable[[], Any]], **options: Any) -> list[float]:
        found.append(options)
        for function in functions:
            function()
        return [6.0] if len(functions) == 1 else [2.0, 4.0]

    return measure


@pytest.mark.usefixtures("nobody_elses")
def test_a_layer_row_holds_ratios_of_the_peers_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(layer, "PEERS", layer.PEERS | {"pennylane": peer_off_by(1e-4, asked)})
    monkeypatch.setattr(layer, "median_milliseconds", medians(options))
    row = bench_layer("ry_ring", 2, 1, tokens=4, peers=("pennylane",))
    assert row == LayerRow("ry_ring", 2, 1, 4, "heisenberg", 2.0, pennylane=6.0, tensorcircuit=None, linear=4.0)
    assert row.as_dict() == {
        "ansatz": "ry_ring",
        "qubits": 2,
        "layers": 1,
        "tokens": 4,
        "engine": "heisenberg",
        "ours": 2.0,
        "pennylane": 6.0,
        "tensorcircuit": None,
        "linear": 4.0,
        "pennylane_ratio": 3.0,
        "tensorcircuit_ratio": None,
    }
    assert options == [{"repeats": 15, "warm_up": 2}, {"repeats": 100, "warm_up": 5}]
    assert [tuple(tensor.shape) for tensor in asked[0]] == [(4, 2), (2,), (4, 2)]
    assert 0 <= asked[0][1].min() <= asked[0][1].max() <= 6
    assert bench_layer("ry_ring", 2, 1, tokens=4, engine="unitary").engine == "unitary"


def test_a_peer_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "PEERS", {"pennylane": peer_off_by(-0.5)})
    message = r"^pennylane differs from us by 5\.0e-01 on ry_ring, 2 qubits; leave it out of --peers\.$"
    with pytest.raises(ConfigError, match=message):
        bench_layer("ry_ring", 2, 1, tokens=4, peers=("pennylane",))


def test_a_peer_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "PEERS", {"pennylane": ("no_such_package", None)})
    with pytest.raises(ConfigError, match=r"^pennylane is not installed; install it, or leave it out of --peers\.$"):
        bench_layer("ry_ring", 2, 1, tokens=4, peers=("pennylane",))


# --- engines and gradients -------------------------------------------------------------------------------------


def test_the_fastest_engine_and_the_ratio_of_the_choice() -> None:
    row = EngineRow("a", 2, 1, 1, "x", {"x": 3.0, "y": 2.0, "z": None}, {})
    assert (row.best, row.ratio) == ("y", 1.5)


@pytest.mark.usefixtures("nobody_elses")
def test_every_engine_that_can_run_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    explain = engines.explain
    monkeypatch.setattr(engines, "explain", lambda *a, **k: given.update(k) or explain(*a, **k))
    row = bench_engines("ry_ring", 2, 2, 3, dtype=torch.float64, repeats=1)
    assert (row.ansatz, row.qubits, row.layers, row.tokens) == ("ry_ring", 2, 2, 3)
    assert set(row.measured) == set(row.predicted) == {"heisenberg", "statevector", "unitary"}
    assert row.chosen == min(row.predicted, key=row.predicted.__getitem__)
    assert given == {"tokens": 3, "dtype": torch.float64, "repeats": 1}


@pytest.mark.usefixtures("nobody_elses")
def test_the_variance_of_one_layer_is_that_of_a_product_of_cosines() -> None:
    # ∂/∂w of ∏ cos has variance 2⁻ᵐ over m uniform angles, for each of the m weights; ⟨Z₀⟩ has m = n − 1.
    row = gradient_variance("ry_ring", 4, 1, samples=5_000)
    assert (row.ansatz, row.qubits, row.layers, row.samples) == ("ry_ring", 4, 1, 5_000)
    assert row.first == pytest.approx(2.0**-3, rel=0.05)
    assert row.mean == pytest.approx(2.0**-3 * 3 / 4, rel=0.05)
    few = gradient_variance("ry_ring", 4, 1, samples=50)
    assert few == gradient_variance("ry_ring", 4, 1, samples=50, seed=0)
    assert few != gradient_variance("ry_ring", 4, 1, samples=50, seed=1)
    assert gradient_variance("ry_ring", 2, 1).samples == 200


# --- a step ----------------------------------------------------------------------------------------------------


def test_a_step_trains_the_model_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    create = step.create_model
    monkeypatch.setattr(step, "create_model", lambda *a, **k: built.append(create(*a, **k)) or built[-1])
    run = make_step("qvit_4q1h", 2, n_layers=2)
    before = [parameter.detach().clone() for parameter in built[0].parameters()]
    run()
    assert any(not torch.equal(a, b) for a, b in zip(before, built[0].parameters(), strict=True))
    circuits = [module for module in built[0].modules() if isinstance(module, QuantumLinear)]
    assert circuits[0].n_layers == 2


@pytest.mark.usefixtures("nobody_elses")
def test_both_steps_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(step, "median_milliseconds", medians(options))
    row = bench_step("qvit_4q1h", "vit_4q1h", batch=2, repeats=3, n_layers=2)
    assert row == step.StepRow("qvit_4q1h", 2, "vit_4q1h", 2, 2.0, 4.0)
    assert row.ratio == 0.5
    bench_step("vit_4q1h", "vit_4q1h", batch=2)
    assert options == [{"repeats": repeats, "warm_up": 20, "budget": 60.0} for repeats in (3, 200)]
