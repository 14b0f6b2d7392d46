"""Layer normalisation: torch's own to the last bit, with the third derivative that torch has not."""

import pytest
import torch
from torch import Tensor, nn

from qvit.models.norm import LayerNorm

# torch's own forward mode compiles decompositions the old way.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")


def test_torch_still_cannot_differentiate_layer_norm_three_times() -> None:
    """Where this fails, `models.norm` may go."""
    assert third_is_off(nn.LayerNorm(5).double()) > 1e-3


@pytest.mark.parametrize("parts", ["all", "no input", "no weight", "no bias"])
def test_layer_norm_has_a_third_derivative(parts: str) -> None:
    norm = LayerNorm(5).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    norm.weight.requires_grad_(parts != "no weight")
    norm.bias.requires_grad_(parts != "no bias")
    assert third_is_off(norm, on_input=parts != "no input") < 1e-8


def test_layer_norm_is_torchs_own_to_the_last_bit() -> None:
    ours, theirs = LayerNorm(8), nn.LayerNorm(8)
    features = torch.randn(7, 49, 8, requires_grad=True)
    results = []
    for norm in (ours, theirs):
        values = norm(features)
        results.append((values, *torch.autograd.grad(values.square().sum(), (features, norm.weight, norm.bias))))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert repr(ours) == repr(theirs), "teachers are recognised by this"


def test_layer_norm_has_no_options_that_its_derivatives_do_not_know() -> None:
    with pytest.raises(TypeError, match="elementwise_affine"):
        LayerNorm(5, elementwise_affine=False)  # type: ignore[call-arg]


@pytest.mark.parametrize("batched", [False, True])
def test_layer_norm_by_torch_func_and_in_batches(batched: bool) -> None:
    norm = LayerNorm(3).double()
    features = torch.randn(2, 3, dtype=torch.float64)

    def loss(features: Tensor) -> Tensor:
        return (norm(features) * torch.arange(3)).sin().sum()

    if batched:
        found = torch.autograd.functional.hessian(loss, features, vectorize=True)
    else:
        found = torch.func.hessian(loss)(features)
    torch.testing.assert_close(found, torch.autograd.functional.hessian(loss, features))


def third_is_off(norm: nn.Module, *, on_input: bool = True) -> float:
    """Return how far third derivatives by autograd are from differences of second ones, relative to the largest."""
    torch.manual_seed(1)
    leaves = [torch.randn(3, 5, dtype=torch.float64), *(p.detach().clone() for p in norm.parameters())]
    moves = [on_input, *(p.requires_grad for p in norm.parameters())]
    along = [torch.randn_like(leaf) * move for leaf, move in zip(leaves, moves, strict=True)]
    mixed = torch.randn(3, 5, dtype=torch.float64)

    def derivative(order: int, t: float) -> Tensor:
        at = [(leaf + t * way).requires_grad_(move) for leaf, way, move in zip(leaves, along, moves, strict=True)]
        names = [name for name, _ in norm.named_parameters()]
        values = torch.func.functional_call(norm, dict(zip(names, at[1:], strict=True)), (at[0],))
        slope = (values * mixed).sin().sum()
        free = [leaf for leaf in at if leaf.requires_grad]
        ways = [way for way, move in zip(along, moves, strict=True) if move]
        for _ in range(order):
            found = torch.autograd.grad(slope, free, create_graph=True)
            slope = sum((one * way).sum() for one, way in zip(found, ways, strict=True))
        return slope.detach()

    step = 1e-4
    near, far = (derivative(2, k * step) - derivative(2, -k * step) for k in (1, 2))
    wanted = (8 * near - far) / (12 * step)
    return float((derivative(3, 0.0) - wanted).abs() / wanted.abs())
