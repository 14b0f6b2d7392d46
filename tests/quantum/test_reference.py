"""The slow reference: how much it takes, and where it stops."""

import pytest
import torch

from qvit.errors import CircuitError
from qvit.quantum import Circuit, expectations
from qvit.quantum.engines import reference


def test_the_oracle_takes_all_that_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_WIRES", 2)
    monkeypatch.setattr(reference, "MOST_ELEMENTS", 3 * 4**2)
    circuit = Circuit(2, 0, 0, ())
    assert torch.equal(expectations(circuit, torch.zeros(3, 0), torch.zeros(0), engine="reference"), torch.ones(3, 2))
    with pytest.raises(CircuitError, match=r"n up to 2 and 48 elements in all; got n=2 and 4 token"):
        expectations(circuit, torch.zeros(4, 0), torch.zeros(0), engine="reference")
