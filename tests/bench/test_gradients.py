"""The variance of gradients, where it has a closed form."""

import pytest

from qvit.bench.gradients import gradient_variance


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
