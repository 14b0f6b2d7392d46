"""Layers timed against peers: the ratios of those that ran, and of those that computed the same."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from bench.medians import medians
from qvit.bench import layer
from qvit.bench.layer import LayerRow, bench_layer
from qvit.errors import ConfigError
from qvit.quantum import Circuit, expectations


def peer_off_by(error: float, asked: list[Any] | None = None) -> tuple[str, Callable[..., Any]]:
    """A peer that is quick, and as wrong as this."""

    def make(circuit: Circuit, given: Tensor, weights: Tensor, grad: Tensor) -> tuple[Callable[[], None], Tensor]:
        if asked is not None:
            asked.append((given, weights, grad))
        return lambda: None, expectations(circuit, given, weights) + error

    return "torch", make


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
