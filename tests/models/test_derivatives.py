"""Attention and whole models: derivatives of every order, in every mode, on both sides of every size of a kernel.

In float64, against differences. `gradgradcheck` in its fast mode compares slopes along random directions.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian, jvp
from torch.utils.checkpoint import checkpoint

from qvit.models import ViT, ViTConfig
from qvit.models.attention import attend
from qvit.models.projections import PROJECTIONS

# torch's own forward mode compiles decompositions the old way.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
# Of images, heads, tokens and features: on both sides of the fewest scores, of width 8, and of the most tokens, both
# lowered by `small`. `test_attention` has the limits themselves.
SHAPES = {
    "few scores": (1, 1, 5, 2),
    "enough scores": (1, 1, 6, 2),
    "narrow": (1, 2, 5, 8),
    "wide": (1, 2, 5, 9),
    "long": (1, 1, 7, 1),
    "too long": (1, 1, 8, 1),
}
FEWEST, LONGEST = 36, 7


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = import_module("qvit.models.attention")
    monkeypatch.setattr(attention, "FEWEST_SCORES", FEWEST)
    monkeypatch.setattr(attention, "LARGEST", LONGEST)


def projected(shape: tuple[int, int, int, int], layout: str) -> list[Tensor]:
    """Queries, keys and values with features last in memory, as matrices return them, or tokens last, as circuits."""
    b, h, n, k = shape
    if layout == "features last":
        return [torch.randn(b, h, n, k, dtype=torch.float64).requires_grad_() for _ in range(3)]
    return [torch.randn(b, h, k, n, dtype=torch.float64).mT.requires_grad_() for _ in range(3)]


def kernels(values: Tensor) -> set[str]:
    """The attention kernels in the graph of a result."""
    seen, todo = set(), [values.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    names = {type(node).__name__ for node in seen}
    return {kind for kind in ("NarrowAttention", "ScaledDotProduct") if any(kind in name for name in names)}


@pytest.mark.long
@pytest.mark.parametrize("layout", ["features last", "tokens last"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.usefixtures("small")
def test_attention_has_every_derivative(shape: tuple[int, int, int, int], layout: str) -> None:
    leaves = projected(shape, layout)
    ours = shape in [SHAPES[name] for name in ("enough scores", "narrow", "long")]
    assert ("NarrowAttention" in kernels(attend(*leaves))) is ours
    many = {"fast_mode": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(attend, leaves, check_forward_ad=True, **many)
    assert torch.autograd.gradgradcheck(attend, leaves, check_fwd_over_rev=True, **many)


@pytest.mark.parametrize("name", ["few scores", "enough scores"])
@pytest.mark.usefixtures("small")
def test_a_third_derivative_of_attention(name: str) -> None:
    leaves = projected(SHAPES[name], "features last")

    def slopes(*leaves: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*leaves).sin().sum(), leaves, create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, leaves, fast_mode=True)


class Problem:
    """The loss of a model of one block and two tokens as a function of all its parameters and of its images."""

    def __init__(self, kind: str, batch: int) -> None:
        torch.manual_seed(batch)
        config = ViTConfig(4, 1, 3, patch_size=4, dim=4, heads=2, mlp_dim=3, pool="cls", projection=PROJECTIONS[kind]())
        self.model = ViT(config).double()
        for parameter in (self.model.pos_embed, self.model.cls_token):
            nn.init.normal_(parameter)  # tokens that hardly differ are normalised by differences of nearly nothing
        self.labels = torch.randint(0, 3, (batch,))
        self.place = (
            nn.utils.parameters_to_vector(self.model.parameters()).detach().requires_grad_(),
            torch.rand(batch, 1, 4, 4, dtype=torch.float64, requires_grad=True),
        )
        self.along = tuple(scale * torch.randn_like(leaf) for leaf, scale in zip(self.place, (1.0, 0.1), strict=True))

    def logits(self, flat: Tensor, images: Tensor) -> Tensor:
        named = dict(self.model.named_parameters())
        parts = flat.split([parameter.numel() for parameter in named.values()])
        values = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
        return torch.func.functional_call(self.model, values, (images,))

    def loss(self, flat: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(flat, images), self.labels)

    def slope(self, found: Any) -> Tensor:
        return sum((one * way).sum() for one, way in zip(found, self.along, strict=True))

    def derivative(self, order: int, t: float = 0.0, *, graph: bool = True) -> Tensor:
        """Return all entries of the derivative, all but one of its places filled with `along`."""
        at = [(leaf + t * way).detach().requires_grad_() for leaf, way in zip(self.place, self.along, strict=True)]
        value = self.loss(*at)
        for k in range(order):
            found = torch.autograd.grad(value, at, create_graph=graph or k + 1 < order)
            value = self.slope(found)
        return torch.cat([one.detach().flatten() for one in found])


def difference(function: Callable[[float], Tensor], step: float = 3e-5) -> Tensor:
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


# Numbers of images below and above the fewest scores; which kernel attends is nothing to do with the projection.
PROBLEMS = pytest.mark.parametrize(
    ("kind", "batch"), [("quantum", 1), ("linear", 1), *((kind, 3) for kind in PROJECTIONS)]
)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel of our own attend from three images on."""
    monkeypatch.setattr(import_module("qvit.models.attention"), "FEWEST_SCORES", 3 * 2 * 2 * 2)


@pytest.mark.long
@PROBLEMS
@pytest.mark.usefixtures("small_batches")
def test_derivatives_of_a_whole_model(kind: str, batch: int) -> None:
    """The gradient along one direction; of second and third derivatives every entry. `benchmarks/derivatives.py`
    takes every entry of the gradient too."""
    problem = Problem(kind, batch)
    flat, images = problem.place
    assert ("NarrowAttention" in kernels(problem.loss(flat, images))) is (batch == 3)
    with torch.no_grad():
        values = difference(lambda t: problem.loss(flat + t * problem.along[0], images + t * problem.along[1]))
    gradient = problem.derivative(1, graph=False)
    along = torch.cat([way.flatten() for way in problem.along])
    torch.testing.assert_close(gradient @ along, values, rtol=1e-7, atol=0)
    for order in (2, 3):
        wanted = difference(partial(problem.derivative, order - 1, graph=False))
        off = (problem.derivative(order) - wanted).abs().max() / wanted.abs().max()
        assert off < 1e-6, f"derivatives of order {order}"


@PROBLEMS
@pytest.mark.usefixtures("small_batches")
def test_slopes_by_other_ways(kind: str, batch: int) -> None:
    problem = Problem(kind, batch)
    wanted = problem.derivative(1, graph=False) @ torch.cat([way.flatten() for way in problem.along])
    twice = jvp(problem.loss, problem.place, problem.along)[1]
    torch.testing.assert_close(twice, wanted)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, way) for leaf, way in zip(problem.place, problem.along, strict=True)]
        torch.testing.assert_close(forward_ad.unpack_dual(problem.loss(*duals)).tangent, wanted)


@PROBLEMS
@pytest.mark.usefixtures("small_batches")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_jacobians_in_one_batched_pass(kind: str, batch: int) -> None:
    problem = Problem(kind, batch)
    logits = partial(problem.logits, images=problem.place[1])
    found, wanted = (jacobian(logits, problem.place[0], vectorize=vectorize) for vectorize in (True, False))
    assert found.shape == (batch, 3, len(problem.place[0]))
    torch.testing.assert_close(found, wanted)


@PROBLEMS
@pytest.mark.usefixtures("small_batches")
def test_checkpointed_blocks_have_the_same_derivatives(kind: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(kind, batch)
    plain = problem.derivative(1, graph=False), problem.derivative(3)
    (block,) = problem.model.blocks
    monkeypatch.setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False))
    found = problem.derivative(1, graph=False), problem.derivative(3)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
