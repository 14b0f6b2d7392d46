"""Benchmarks measure what they say; their figures are not judged here."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from qvit.bench.engines import EngineRow, bench_engines
from qvit.bench.gradients import GradientRow, gradient_variance
from qvit.bench.layer import LayerRow, bench_layer
from qvit.bench.peers import pennylane_layer, pennylane_node
from qvit.bench.pictures import draw_engines, draw_gradients, draw_layer, save
from qvit.bench.step import bench_step, make_step
from qvit.bench.timing import median_milliseconds
from qvit.errors import ConfigError
from qvit.quantum import QuantumLinear, get_ansatz
from qvit.quantum.ansatz import build_circuit


def test_functions_take_turns_and_the_median_is_of_the_rounds_after_warm_up() -> None:
    calls: list[str] = []
    found = median_milliseconds([lambda: calls.append("a"), lambda: calls.append("b")], repeats=4, warm_up=2)
    assert "".join(calls) == "aabb" + "ab" * 4
    assert len(found) == 2
    assert all(ms >= 0 for ms in found)


def test_a_spent_budget_ends_the_measurement_after_three_rounds() -> None:
    calls: list[int] = []
    median_milliseconds([lambda: calls.append(1)], repeats=1000, warm_up=0, budget=0.0)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["ry_ring", "strongly_entangling", "amplitude_ring", "pyramid", "unlu_qk"])
def test_the_peer_computes_what_we_compute_and_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    circuit = build_circuit(get_ansatz(name), 3, 2)
    x = torch.randn(5, circuit.n_inputs, dtype=torch.float64)
    w = torch.randn(circuit.n_weights, dtype=torch.float64)
    theirs = torch.stack(pennylane_node(circuit)(x, w), dim=-1)
    from qvit.quantum import expectations

    torch.testing.assert_close(expectations(circuit, x, w), theirs, atol=1e-12, rtol=0)
    run, values = pennylane_layer(circuit, x.float(), w.float(), torch.ones(5, len(circuit.observables)))
    torch.testing.assert_close(values.double(), theirs, atol=1e-5, rtol=0)
    run()


def test_a_peer_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from qvit.bench import layer

    wrong = {"pennylane": ("pennylane", lambda *_: (lambda: None, torch.zeros(4, 2)))}
    monkeypatch.setattr(layer, "PEERS", wrong)
    with pytest.raises(ConfigError, match="pennylane differs from us"):
        bench_layer("ry_ring", 2, 1, tokens=4, peers=("pennylane",))


def test_a_layer_row_holds_ratios_of_the_peers_that_ran() -> None:
    row = bench_layer("ry_ring", 2, 1, tokens=4, peers=("pennylane",)).as_dict()
    assert row["pennylane_ratio"] == pytest.approx(row["pennylane"] / row["ours"])
    assert row["tensorcircuit_ratio"] is None
    assert row["engine"] in {"heisenberg", "statevector", "unitary"}


def test_the_fastest_engine_and_the_ratio_of_the_choice() -> None:
    row = EngineRow("a", 2, 1, 1, "x", {"x": 3.0, "y": 2.0, "z": None}, {})
    assert (row.best, row.ratio) == ("y", 1.5)
    measured = bench_engines("ry_ring", 2, 1, 3, repeats=3)
    assert measured.chosen in measured.measured
    assert measured.ratio >= 1.0


def test_the_variance_of_one_layer_is_that_of_a_product_of_cosines() -> None:
    # ∂/∂w of ∏ cos has variance 2⁻ᵐ over m uniform angles, for each of the m weights; ⟨Z₀⟩ has m = n − 1.
    row = gradient_variance("ry_ring", 4, 1, samples=20_000)
    assert row.first == pytest.approx(2.0**-3, rel=0.05)
    assert row.mean == pytest.approx(2.0**-3 * 3 / 4, rel=0.05)
    assert gradient_variance("ry_ring", 4, 1, samples=50) == gradient_variance("ry_ring", 4, 1, samples=50)


def test_a_step_trains_the_model_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from qvit.bench import step

    built = []
    create = step.create_model
    monkeypatch.setattr(step, "create_model", lambda *a, **k: built.append(create(*a, **k)) or built[-1])
    run = make_step("qvit_4q1h", 2, n_layers=2)
    before = [parameter.detach().clone() for parameter in built[0].parameters()]
    run()
    assert any(not torch.equal(a, b) for a, b in zip(before, built[0].parameters(), strict=True))
    circuits = [module for module in built[0].modules() if isinstance(module, QuantumLinear)]
    assert circuits[0].n_layers == 2
    row = bench_step("qvit_4q1h", "vit_4q1h", batch=2, repeats=3)
    assert row.ratio == pytest.approx(row.quantum_ms / row.classical_ms)


@pytest.mark.parametrize(
    "bench",
    [
        lambda: bench_step("qvit_4q1h", "vit_4q1h", batch=2, repeats=3),
        lambda: bench_layer("ry_ring", 2, 1, tokens=3),
        lambda: bench_engines("ry_ring", 2, 1, 3, repeats=1),
        lambda: gradient_variance("ry_ring", 2, 1, samples=5),
    ],
    ids=["step", "layer", "engines", "gradients"],
)
def test_what_is_drawn_is_nobody_elses(bench: Callable[[], object]) -> None:
    before = torch.get_rng_state()
    bench()
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_show_every_row(tmp_path) -> None:  # type: ignore[no-untyped-def]
    layers = [LayerRow("ry_ring", n, depth, 9, "auto", 0.1 * n, 5.0 * n) for n in (2, 4) for depth in (1, 2)]
    figure = draw_layer(layers)
    assert [panel.get_title() for panel in figure.axes] == ["1 layer", "2 layers"]
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].get_lines()]
    assert drawn == [[[2.0, 0.2], [4.0, 0.4]], [[2.0, 10.0], [4.0, 20.0]]]
    engines = [EngineRow("ry_ring", 2, 1, t, "statevector", {"statevector": 0.1, "unitary": None}, {}) for t in (1, 9)]
    assert [panel.get_title() for panel in draw_engines(engines).axes] == ["1 token", "9 tokens"]
    gradients = [GradientRow("ry_ring", n, 1, 9, 0.1, 2.0**-n) for n in (2, 3, 4)]
    assert "0.50ⁿ" in draw_gradients(gradients).axes[0].get_lines()[0].get_label()
    for suffix in ("png", "svg", "pdf"):
        save(figure, tmp_path / f"layer.{suffix}")
        assert (tmp_path / f"layer.{suffix}").stat().st_size > 1000
    assert np.isfinite(figure.get_size_inches()).all()
