"""Where going back through a circuit takes too many products: given up, and soon."""

from collections.abc import Callable

import pytest

from qvit.errors import CircuitError
from qvit.quantum.ansatz import build_circuit, get_ansatz
from qvit.quantum.engines.heisenberg import heisenberg_plan
from qvit.quantum.program import compile_circuit


@pytest.mark.long
def test_a_hopeless_heisenberg_plan_is_given_up_soon(work: Callable[..., int]) -> None:
    """What is done before giving up follows the limit, not the size of what there would be to do."""
    program = compile_circuit(build_circuit(get_ansatz("strongly_entangling"), 20, 3))

    def give_up(limit: int) -> None:
        with pytest.raises(CircuitError, match=f"more than {limit} products"):
            heisenberg_plan(program, limit)

    assert work(lambda: give_up(80)) < 4 * work(lambda: give_up(40))
