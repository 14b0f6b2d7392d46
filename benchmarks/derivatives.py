"""Derivatives of whole models against differences, in float64, on both sides of every size that picks a kernel.

    python benchmarks/derivatives.py [NAME …]

The function is the mean cross-entropy of a batch, of all parameters and of the images. Each figure is a largest
difference over the largest entry of what it is compared with:

- gradient: every parameter's entry (of networks with more than 5,000: their slope along five random directions), and
  the slope along five random directions of the images, against central differences of values;
- second: Hessian-vector products for three random directions in parameters and images at once, every entry of the
  result, against central differences of the gradient, which is the kernels';
- third: the same once more, against central differences of Hessian-vector products, one direction, up to 8 images
  (circuits then keep every state of every order: gigabytes for 64);
- jvp, forward, batched: the slope along a direction by `torch.autograd.functional.jvp` (which differentiates twice),
  by forward-mode differentiation, and Jacobians of the logits by `is_grads_batched`, against the gradient.

Where torch refuses, its error's first words stand in place of a figure.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn

from qvit.models import create_model

BATCHES = (1, 3, 4, 8, 64)
MODELS: dict[str, dict[str, Any]] = {
    "qvit_4q2h": {},
    "qvit_6q1h": {"n_layers": 2},
    "vit_4q2h": {},
    "cosine_4q2h": {},
    "resnet18": {"width": 1 / 16},
    "monai_vit": {},
}
TEACHERS = ("resnet18", "monai_vit")  # at one batch size
FEW, CLASSES, LIMIT = 5000, 3, 1e-6
COLUMNS = ("gradient", "second", "third", "jvp", "forward", "batched")


@dataclass(frozen=True)
class Problem:
    """The loss of a model as a function of its parameters in one vector, and of a batch of images."""

    model: nn.Module
    labels: Tensor

    @property
    def start(self) -> Tensor:
        """The parameters as they are."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.model.parameters()])

    def logits(self, flat: Tensor, images: Tensor) -> Tensor:
        """Return the model's logits with these parameters."""
        named = dict(self.model.named_parameters())
        parts = flat.split([parameter.numel() for parameter in named.values()])
        values = {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}
        return torch.func.functional_call(self.model, values, (images,))

    def loss(self, flat: Tensor, images: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(self.logits(flat, images), self.labels)

    def gradient(self, flat: Tensor, images: Tensor) -> Tensor:
        """Return the gradient by both, in one vector, as a step of training takes it."""
        leaves = [flat.detach().requires_grad_(), images.detach().requires_grad_()]
        return _flat(torch.autograd.grad(self.loss(*leaves), leaves))

    def products(self, flat: Tensor, images: Tensor, along: tuple[Tensor, Tensor], order: int) -> Tensor:
        """Return the derivative of that order, all but one of its places filled with the direction `along`."""
        leaves = [flat.detach().requires_grad_(), images.detach().requires_grad_()]
        found = torch.autograd.grad(self.loss(*leaves), leaves, create_graph=True)
        for _ in range(order - 1):
            slope = torch.stack([(one * way).sum() for one, way in zip(found, along, strict=True)]).sum()
            found = torch.autograd.grad(slope, leaves, create_graph=True)
        return _flat(found).detach()


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _between(function: Callable[[float], Tensor], step: float) -> Tensor:
    """Return the central difference of fourth order."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8.0 * near - far) / (12.0 * step)


def _along(
    function: Callable[[Tensor, Tensor], Tensor], place: tuple[Tensor, Tensor], way: tuple[Tensor, Tensor]
) -> Callable[[float], Tensor]:
    return lambda t: function(place[0] + t * way[0], place[1] + t * way[1])


def _direction(like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.randn_like(like[0]), 0.1 * torch.randn_like(like[1])


def by_values(problem: Problem, place: tuple[Tensor, Tensor], step: float) -> float:
    """Return how far the gradient is from differences of values."""
    flat, images = place
    gradient = problem.gradient(*place)
    of_flat, of_images = gradient[: len(flat)], gradient[len(flat) :].view_as(images)

    @torch.no_grad()
    def slope(way: Tensor, on: Tensor) -> Tensor:
        return _between(lambda t: problem.loss(flat + t * way, images + t * on), step)

    still = torch.zeros_like(flat), torch.zeros_like(images)
    if len(flat) <= FEW:
        ways = torch.eye(len(flat), dtype=flat.dtype).unbind()
        found = of_flat
    else:
        ways = torch.randn(5, len(flat), dtype=flat.dtype).unbind()
        found = torch.stack([way @ of_flat for way in ways])
    first = _off(found, torch.stack([slope(way, still[1]) for way in ways]))
    pictures = [torch.randn_like(images) for _ in range(5)]
    found = torch.stack([(way * of_images).sum() for way in pictures])
    return max(first, _off(found, torch.stack([slope(still[0], way) for way in pictures])))


def by_gradients(problem: Problem, place: tuple[Tensor, Tensor], step: float) -> float:
    """Return how far Hessian-vector products are from differences of gradients."""
    worst = 0.0
    for _ in range(3):
        way, on = _direction(place)
        wanted = _between(_along(problem.gradient, place, (way, on)), step)
        worst = max(worst, _off(problem.products(*place, (way, on), 2), wanted))
    return worst


def by_products(problem: Problem, place: tuple[Tensor, Tensor], step: float) -> float:
    """Return how far third derivatives are from differences of Hessian-vector products."""
    way, on = _direction(place)
    products = partial(problem.products, along=(way, on), order=2)
    return _off(problem.products(*place, (way, on), 3), _between(_along(products, place, (way, on)), step))


def by_jvp(problem: Problem, place: tuple[Tensor, Tensor], _step: float) -> float:
    """Return how far torch's jvp by two backward passes is from the gradient."""
    along = _direction(place)
    _, found = torch.autograd.functional.jvp(problem.loss, place, along)
    return _off(found, problem.gradient(*place) @ _flat(along))


def by_duals(problem: Problem, place: tuple[Tensor, Tensor], _step: float) -> float:
    """Return how far forward-mode differentiation is from the gradient."""
    along = _direction(place)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(tensor, way) for tensor, way in zip(place, along, strict=True)]
        found = forward_ad.unpack_dual(problem.loss(*duals)).tangent
        assert found is not None
    return _off(found, problem.gradient(*place) @ _flat(along))


def by_batches(problem: Problem, place: tuple[Tensor, Tensor], _step: float) -> float:
    """Return how far Jacobians of the first image's logits in one batched pass are from one row at a time."""
    flat, images = place[0].detach().requires_grad_(), place[1]
    logits = problem.logits(flat, images)
    rows = torch.zeros(CLASSES, *logits.shape, dtype=logits.dtype)
    rows[:, 0] = torch.eye(CLASSES, dtype=logits.dtype)
    (found,) = torch.autograd.grad(logits, flat, rows, is_grads_batched=True, retain_graph=True)
    one = [torch.autograd.grad(logits, flat, row, retain_graph=True)[0] for row in rows]
    return _off(found, torch.stack(one))


CHECKS = dict(zip(COLUMNS, (by_values, by_gradients, by_products, by_jvp, by_duals, by_batches), strict=True))


def measured(name: str, batch: int) -> list[str]:
    """Return a row of the table."""
    torch.manual_seed(batch)
    model = create_model(name, num_classes=CLASSES, **MODELS[name]).double().eval()
    problem = Problem(model, torch.randint(0, CLASSES, (batch,)))
    place = problem.start, torch.rand(batch, 3, 28, 28, dtype=torch.float64)
    # A network of ReLUs is smooth between its kinks only, which short steps seldom cross.
    step = 1e-7 if name in TEACHERS else 3e-5
    cells = []
    for column, check in CHECKS.items():
        if column == "third" and (name in TEACHERS or batch > 8):
            cells.append("–")
            continue
        try:
            off = check(problem, place, step)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            cells.append(f"refused: {' '.join(str(error).split())[:60]}")
        else:
            cells.append(f"{off:.1e}" + ("" if off <= LIMIT else " ✗"))
    return [name, str(batch), *cells]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| model | batch | " + " | ".join(COLUMNS) + " |\n|---|---" + "|---" * len(COLUMNS) + "|")
    for name in sys.argv[1:] or MODELS:
        for batch in (4,) if name in TEACHERS else BATCHES:
            print("| " + " | ".join(measured(name, batch)) + " |", flush=True)


if __name__ == "__main__":
    main()
