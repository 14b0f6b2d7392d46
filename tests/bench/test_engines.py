"""Engines timed: every one that can run, and how good the choice among them is."""

from typing import Any

import pytest
import torch

from qvit.bench import engines
from qvit.bench.engines import EngineRow, bench_engines


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
