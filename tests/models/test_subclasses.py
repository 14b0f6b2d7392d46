"""Models, losses, teachers: images that are more than a tensor, such as those that a MONAI DataLoader yields."""

from collections.abc import Callable

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from torch import Tensor

from qvit.distill import Teacher
from qvit.distill.objectives import soft_targets
from qvit.models import create_model
from qvit.models.attention import attend
from qvit.models.preprocess import Preprocess
from qvit.training.losses import make_loss

MODELS = ["qvit_4q2h", "unlu_4q1h", "vit_4q2h", "cosine_4q2h", "givens_4q1h", "resnet18"]


class Named(Tensor):
    """A tensor of another name."""


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "MetaTensor": MetaTensor,
    "subclass": lambda images: images.as_subclass(Named),
    "Parameter": torch.nn.Parameter,
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **({"width": 1 / 16} if name == "resnet18" else {}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_subclasses_as_the_tensors_that_they_are(name: str, kind: str) -> None:
    plain = torch.rand(4, 3, 28, 28)
    labels = torch.tensor([[0], [2], [1], [1]])
    loss = make_loss("multi-class")
    results = []
    for images in (KINDS[kind](plain.clone()).requires_grad_(), plain.clone().requires_grad_()):
        model = built(name)
        logits = model.train()(images)
        assert type(logits) is Tensor
        loss(logits, labels).mean().backward()
        with torch.no_grad():
            evaluated = model.eval()(images)
        found = [logits.detach(), evaluated, images.grad, *(parameter.grad for parameter in model.parameters())]
        results.append([torch.as_tensor(each).as_subclass(Tensor) for each in found])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("kind", ["MetaTensor", "subclass"])
def test_attention_on_either_side_of_its_threshold(kind: str, count: int) -> None:
    plain = [torch.randn(count, 2, 49, 4) for _ in range(3)]
    leaves = [KINDS[kind](tensor.clone()).requires_grad_() for tensor in plain]
    found = attend(*leaves)
    found.square().sum().backward()
    torch.testing.assert_close(found.detach(), attend(*plain))
    assert all(float(leaf.grad.abs().sum()) > 0 for leaf in leaves)


@pytest.mark.parametrize("kind", ["MetaTensor", "subclass"])
def test_losses_take_subclasses(kind: str) -> None:
    logits, labels = torch.randn(5, 3), torch.randint(0, 3, (5, 1))
    strange = KINDS[kind](logits), KINDS[kind](labels)
    for name in ("ce", "emd"):
        loss = make_loss("ordinal", name=name)
        torch.testing.assert_close(loss(*strange).as_subclass(Tensor), loss(logits, labels))
    found = soft_targets(strange[0], logits + 1.0, temperature=2.0)
    torch.testing.assert_close(found.as_subclass(Tensor), soft_targets(logits, logits + 1.0, temperature=2.0))


def test_a_monai_loader_trains_and_a_teacher_answers() -> None:
    rows = [{"image": MetaTensor(torch.rand(3, 28, 28)), "label": number % 3} for number in range(8)]
    (batch,) = DataLoader(rows, batch_size=8)
    assert type(batch["image"]) is MetaTensor
    model = built("qvit_4q2h")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"]))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    said = Teacher.of_module(model).outputs(batch["image"], features=True, attention=True)
    assert {type(one) for one in said} == {Tensor}
    own = torch.nn.Sequential(Preprocess(3), torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 3))
    assert type(Teacher.of_module(own).outputs(batch["image"]).logits) is Tensor
