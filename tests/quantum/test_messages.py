"""Every refusal of layers and engines, word for word; one that is new in the source has to be added here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import qvit.quantum
from qvit.errors import CircuitError
from qvit.quantum import Circuit, Gate, QuantumLinear, expectations, get_ansatz
from qvit.quantum.engines import make_plan, reference
from qvit.quantum.engines.compiled import fingerprint
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.limits import series
from qvit.quantum.program import compile_circuit
from suite.messages import missing, raised

pytestmark = pytest.mark.usefixtures("unchecked")

FOLDER = Path(qvit.quantum.__file__).parent
SOURCES = [FOLDER / "layer.py", FOLDER / "limits.py", *sorted((FOLDER / "engines").glob("*.py"))]
RING = get_ansatz("ry_ring").build(3, 1)
PYRAMID = get_ansatz("pyramid").build(3, 1)
TABLE = [1.0, 2.0]


def lookup(place: int) -> float:
    return TABLE[place]


def run(inputs: Any, weights: Any) -> Tensor:
    return expectations(RING, inputs, weights)


def batch_the_code() -> Tensor:
    call = QuantumLinear(2, engine="heisenberg")._plan.call
    source = torch.zeros(1, dtype=torch.int32)
    code = torch.stack([call.code.tensor()] * 2)
    given = torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.zeros(1, 0, 3), source
    return torch.func.vmap(lambda one: call.traceable.forward(*given, one, 2, 2))(code)


NEEDS_QUBITS = (
    "The statevector engine holds 2ⁿ real amplitudes a token, n up to 20; this circuit needs n={} or one more. "
    "Use fewer qubits per head and more heads, or one ry_ring layer, which needs none."
)
SUBSPACE = (
    "The subspace engine takes unary amplitude encoding, RBS gates that depend on weights only, and observables of I "
    "and Z; use engine='statevector' or 'auto'."
)
ORACLE = (
    "The reference engine multiplies a matrix of 2ⁿ × 2ⁿ a token, for n up to 11 and 67,108,864 elements in all; "
    "got n={} and {} token(s). Use engine='auto'."
)


@dataclass
class Wrong:
    """A call, and what is said about it."""

    call: Callable[[], object]
    message: str


WRONG = {
    # layers
    "no tuple": Wrong(lambda: QuantumLinear(2, groups=3), "groups must be a tuple such as (3, 2), got 3."),
    "no ansatz": Wrong(lambda: QuantumLinear(2, ansatz=7), "ansatz must be a name or an Ansatz, got 7."),
    "a long one": Wrong(
        lambda: QuantumLinear(2, ansatz=["a" * 200]), f"ansatz must be a name or an Ansatz, got ['{'a' * 78}."
    ),
    "other inputs": Wrong(lambda: QuantumLinear(3)(torch.zeros(5, 4)), "Expected inputs (…, 3), got (5, 4)."),
    "whole numbers": Wrong(
        lambda: QuantumLinear(3)(torch.zeros(5, 3, dtype=torch.int64)),
        "Expected floating-point angles in radians, got torch.int64.",
    ),
    "other groups": Wrong(
        lambda: QuantumLinear(3, groups=(3, 2))(torch.zeros(5, 2, 2, 3)),
        "Expected inputs (…, 3, 2, 3) for groups (3, 2) (1 where circuits share their input), got (5, 2, 2, 3).",
    ),
    "fewer groups": Wrong(
        lambda: QuantumLinear(3, groups=(3, 2))(torch.zeros(2, 3)),
        "Expected inputs (…, 3, 2, 3) for groups (3, 2) (1 where circuits share their input), got (2, 3).",
    ),
    # sizes
    "no qubit": Wrong(lambda: QuantumLinear(0), "n_qubits must be from 1 to 4,096, got 0."),
    "too many qubits": Wrong(lambda: QuantumLinear(4097), "n_qubits must be from 1 to 4,096, got 4,097."),
    "half a qubit": Wrong(lambda: QuantumLinear(2.5), "n_qubits must be a whole number, got 2.5."),
    "a truth": Wrong(lambda: QuantumLinear(True), "n_qubits must be a whole number, got True."),
    "no layer": Wrong(lambda: QuantumLinear(2, n_layers=0), "n_layers must be from 1 to 256, got 0."),
    "too many layers": Wrong(lambda: QuantumLinear(2, n_layers=257), "n_layers must be from 1 to 256, got 257."),
    "no group": Wrong(lambda: QuantumLinear(2, groups=(3, 0)), "groups must be from 1 to 65,536, got 0."),
    "more groups": Wrong(lambda: QuantumLinear(2, groups=(65_537,)), "groups must be from 1 to 65,536, got 65,537."),
    "in all": Wrong(
        lambda: QuantumLinear(2, groups=(257, 256)),
        "The number of circuits in groups must be from 1 to 65,536, got 65,792.",
    ),
    "64 bits": Wrong(
        lambda: QuantumLinear(2**64 - 1), "n_qubits must be from 1 to 4,096, got 18,446,744,073,709,551,615."
    ),
    "more": Wrong(lambda: QuantumLinear(2**64), "n_qubits must be from 1 to 4,096, got a number of more than 64 bits."),
    "no series": Wrong(lambda: series("Gates", 3, most=2), "Gates must be a tuple or a list, got 3."),
    "a long series": Wrong(lambda: series("Gates", [0] * 1001, most=1000), "Gates must be at most 1,000, got 1,001."),
    # engines
    "a wrong name": Wrong(
        lambda: make_plan(RING, "heisenburg"),
        "There is no engine 'heisenburg'. Did you mean 'heisenberg'? Known engines: auto, heisenberg, unitary, "
        "statevector, subspace, reference.",
    ),
    "no name": Wrong(
        lambda: make_plan(RING, None),
        "There is no engine 'None'. Known engines: auto, heisenberg, unitary, statevector, subspace, reference.",
    ),
    "a list": Wrong(lambda: run([0.0], torch.zeros(3)), "Expected inputs as a tensor, got list."),
    "no weights": Wrong(lambda: run(torch.zeros(3), None), "Expected weights as a tensor, got NoneType."),
    "wide": Wrong(
        lambda: run(torch.zeros(5, 1), torch.zeros(3)), "Expected inputs (…, 3) for this circuit, got (5, 1)."
    ),
    "one weight": Wrong(
        lambda: run(torch.zeros(5, 3), torch.zeros(1)), "Expected weights (…, 3) for this circuit, got (1,)."
    ),
    "a number": Wrong(
        lambda: run(torch.zeros(5, 3), torch.tensor(0.0)), "Expected weights (…, 3) for this circuit, got ()."
    ),
    "two dtypes": Wrong(
        lambda: run(torch.zeros(3).double(), torch.zeros(3)),
        "Expected inputs and weights of one floating-point dtype, got torch.float64 and torch.float32.",
    ),
    "integers": Wrong(
        lambda: run(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
        "Expected inputs and weights of one floating-point dtype, got torch.int64 and torch.int64.",
    ),
    "two devices": Wrong(
        lambda: run(torch.zeros(3), torch.zeros(3, device="meta")),
        "Inputs are on cpu and weights on meta; move them together.",
    ),
    "no broadcast": Wrong(
        lambda: run(torch.zeros(5, 2, 3), torch.zeros(4, 3)),
        "Inputs (5, 2, 3) and weights (4, 3) do not broadcast over their leading dimensions; groups of weights come "
        "last among those of the inputs.",
    ),
    "not for the subspace": Wrong(lambda: make_plan(RING, "subspace"), SUBSPACE),
    "loaded": Wrong(
        lambda: make_plan(PYRAMID, "heisenberg"),
        "The heisenberg engine starts in |0…0⟩; use engine='statevector' for loaded amplitudes.",
    ),
    "hopeless": Wrong(
        lambda: heisenberg_plan(compile_circuit(get_ansatz("strongly_entangling").build(3, 2)), 10),
        "The heisenberg engine would need more than 10 products for this circuit; use engine='statevector' or 'auto'.",
    ),
    "a large state": Wrong(
        lambda: make_plan(get_ansatz("ry_ring").build(21, 2), "statevector"), NEEDS_QUBITS.format(21)
    ),
    "a large matrix": Wrong(
        lambda: make_plan(get_ansatz("ry_ring").build(13, 2), "unitary"),
        "The unitary engine holds 2ⁿ × 2ⁿ matrices, n up to 12; this circuit needs n=13 or one more. "
        "Use engine='statevector' or 'auto'.",
    ),
    "one wire more": Wrong(
        lambda: make_plan(get_ansatz("strongly_entangling").build(12, 2), "unitary"),
        "The unitary engine holds 2ⁿ × 2ⁿ matrices, n up to 12; this circuit needs n=12 or one more. "
        "Use engine='statevector' or 'auto'.",
    ),
    "nobody": Wrong(
        lambda: make_plan(get_ansatz("ry_ring").build(21, 2)),
        f"No engine can run this circuit. {NEEDS_QUBITS.format(21)}",
    ),
    "a large oracle": Wrong(
        lambda: expectations(
            Circuit(12, 0, 0, (Gate("H", (0,)),)), torch.zeros(0), torch.zeros(0), engine="reference"
        ),
        ORACLE.format(12, 1),
    ),
    "many tokens for the oracle": Wrong(
        lambda: expectations(Circuit(11, 0, 0, ()), torch.zeros(17, 0), torch.zeros(0), engine="reference"),
        ORACLE.format(11, 17),
    ),
    # what only who writes engines meets
    "a kernel of a list": Wrong(
        lambda: fingerprint(lookup), "lookup refers to TABLE, a list that may change."
    ),
    "a batch of circuits": Wrong(batch_the_code, "The encoded circuit of a qvit operator cannot be batched."),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_said_word_for_word(name: str) -> None:
    with pytest.raises((CircuitError, TypeError, NotImplementedError)) as caught:
        WRONG[name].call()
    assert str(caught.value) == WRONG[name].message


def test_no_message_is_left_out() -> None:
    assert missing(raised(*SOURCES), [wrong.message for wrong in WRONG.values()]) == []


def test_the_oracle_takes_all_that_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_WIRES", 2)
    monkeypatch.setattr(reference, "MOST_ELEMENTS", 3 * 4**2)
    circuit = Circuit(2, 0, 0, ())
    assert torch.equal(expectations(circuit, torch.zeros(3, 0), torch.zeros(0), engine="reference"), torch.ones(3, 2))
    with pytest.raises(CircuitError, match=r"n up to 2 and 48 elements in all; got n=2 and 4 token"):
        expectations(circuit, torch.zeros(4, 0), torch.zeros(0), engine="reference")
