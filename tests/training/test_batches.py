"""What images of a batch become: alone, in a stack and in a team's shares alike; and what mixed images lose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import apply_element, random_elements
from qvit.data.distort import distort, random_distortions
from qvit.data.mixup import mix, random_partners
from qvit.data.views import Views
from qvit.errors import ConfigError
from qvit.training.batches import Batch, Epoch, load_batch, load_together
from qvit.training.config import TrainConfig
from qvit.training.distributed import Team
from qvit.training.losses import LOSSES_OF_TASK, make_loss
from qvit.training.objective import objective_of, stacked_objective, supervised
from qvit.training.seeding import ORDER, generator
from qvit.training.state import Member

TINY = TrainConfig(epochs=2, batch_size=8)
MakeData = Callable[..., Dataset]


def order() -> torch.Generator:
    return generator(3, ORDER, 0)


def all_of(batch: Batch | None) -> Iterator[Tensor]:
    """Yield all tensors of a batch, and of its partners."""
    if batch is not None:
        yield from (batch.images, batch.labels, batch.index, batch.elements)
        yield from () if batch.shares is None else (batch.shares,)
        yield from all_of(batch.partners)


def same(first: Batch, second: Batch) -> bool:
    ours, theirs = list(all_of(first)), list(all_of(second))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def test_images_are_distorted_after_their_symmetry(make_data: MakeData) -> None:
    """By draws from one generator: all symmetries, then all distortions."""
    data, index = make_data(), torch.tensor([5, 2, 36, 5])
    batch = load_batch(Views(data.train, "d4"), index, order(), "cpu", strength=2.0)
    drawing = order()
    elements, drawn = random_elements(4, "d4", drawing), random_distortions(4, 2.0, drawing)
    assert torch.equal(batch.elements, elements)
    for image, place, element, row in zip(batch.images, index, elements, drawn, strict=True):
        turned = apply_element(torch.from_numpy(data.train.images[int(place)])[None], int(element), "d4")
        assert torch.equal(image, distort(turned, row[None])[0])
        assert not torch.equal(image, turned[0])
    assert (batch.partners, batch.shares) == (None, None)


def test_mixed_images_have_all_that_belongs_to_either(make_data: MakeData) -> None:
    data, index = make_data("multi-label"), torch.tensor([5, 2, 36, 7, 11])
    views = Views(data.train, "d4")
    batch = load_batch(views, index, order(), "cpu", strength=1.0, alpha=0.7)
    drawing = order()
    elements, rows = random_elements(5, "d4", drawing), random_distortions(5, 1.0, drawing)
    partners, shares = random_partners(5, 0.7, drawing)
    assert partners.tolist() != list(range(5)), "or the case is of no use"
    plain = distort(views.batch(index, elements)[0], rows)
    assert batch.partners is not None
    assert torch.equal(batch.images, mix(plain, plain[partners], shares))
    assert batch.partners.images is batch.images
    assert torch.equal(batch.shares, shares)
    for one, places in ((batch, index), (batch.partners, index[partners])):
        assert torch.equal(one.index, places)
        assert torch.equal(one.labels, torch.from_numpy(data.train.labels[places.numpy()]))
    assert torch.equal(batch.elements, elements)
    assert torch.equal(batch.partners.elements, elements[partners])
    assert batch.partners.partners is None


def test_what_is_off_changes_no_draw(make_data: MakeData) -> None:
    data, index = make_data(), torch.arange(6)

    def batches(**options: float) -> list[Batch]:
        drawing = order()
        return [load_batch(Views(data.train, "d4"), index, drawing, "cpu", **options) for _ in range(2)]

    assert all(map(same, batches(), batches(strength=0.0, alpha=0.0)))
    assert torch.equal(batches()[0].elements, batches(strength=1.0, alpha=1.0)[0].elements)
    assert not torch.equal(batches()[1].elements, batches(alpha=1.0)[1].elements)


@pytest.mark.parametrize("images", [7, 3, 1])  # of which the third process has a part, one, none
def test_shares_of_a_team_are_parts_of_the_batch_of_one_process(make_data: MakeData, images: int) -> None:
    """Partners too, wherever they are."""
    data = make_data()

    def load(*team: Team) -> Batch:
        views = Views(data.train, "d4")
        return load_batch(views, torch.arange(images) + 9, order(), "cpu", *team, strength=1.0, alpha=0.5)

    parts = [list(all_of(load(Team(rank, 3)))) for rank in range(3)]
    whole = list(all_of(load()))
    assert len(whole) == 9
    assert all(torch.equal(torch.cat(values), one) for *values, one in zip(*parts, whole, strict=True))


def members(data: Dataset) -> list[Member]:
    fold = replace(data, train=Split(data.train.images[:29], data.train.labels[:29]))
    options: list[dict[str, Any]] = [{}, {"distort": 1.0}, {"mixup": 0.3}, {"distort": 3.0, "mixup": 2.0}]
    data_of = (data, data, fold, data)
    return [
        Member(own, replace(TINY, **changed), seed)
        for seed, (own, changed) in enumerate(zip(data_of, options, strict=True))
    ]


def epochs_of(some: Sequence[Member]) -> list[Epoch]:
    views = {id(one.data): Views(one.data.train, "d4") for one in some}
    return [Epoch(one, views[id(one.data)]) for one in some]


@pytest.mark.parametrize("places", [(0, 1, 2, 3), (3, 1), (0, 2), (1,), (0,)])
def test_a_stack_has_the_batches_of_each_by_itself(make_data: MakeData, places: tuple[int, ...]) -> None:
    """Bit for bit, whatever the others do with their images; one that mixes nothing loses what it would."""
    some = [members(make_data())[place] for place in places]
    together, alone = epochs_of(some), epochs_of(some)
    for step in range(3):
        both = load_together(together, step)
        for place, epoch in enumerate(alone):
            one = epoch.load(step, Team())
            for ours, theirs in zip(all_of(both), all_of(one), strict=False):
                assert torch.equal(ours[place], theirs)
            if one.partners is None and both.partners is not None:
                assert both.shares is not None
                assert torch.equal(both.shares[place], torch.ones(8))
                assert torch.equal(both.partners.index[place], one.index)
    assert (both.partners is None) == (not any(one.config.mixup for one in some))


def test_losses_are_means_by_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    images, shares = torch.rand(4, 1, 2, 2, generator=generator), torch.rand(4, generator=generator)
    labels, others = torch.tensor([[1], [2], [3], [4]]), torch.tensor([[50], [60], [70], [80]])
    index = torch.arange(4)
    plain = Batch(images, labels, index, index)
    assert plain.losses(lambda one: one.labels[:, 0].float()).tolist() == [1.0, 2.0, 3.0, 4.0]
    mixed = replace(plain, shares=shares, partners=Batch(images, others, index, index))
    found = mixed.losses(lambda one: one.labels[:, 0].float())
    expected = [s * a + (1 - s) * b for s, a, b in zip(shares.tolist(), range(1, 5), range(50, 90, 10), strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, fit in LOSSES_OF_TASK.items() for name in fit])
def test_the_plain_objective_of_mixed_images(make_data: MakeData, task: str, name: str) -> None:
    """Image by image, for one model and for a stack; the model is asked once."""
    data = make_data(task)
    config = replace(TINY, loss=name, label_smoothing=0.1, class_weights="balanced", mixup=0.5)
    objective, asked = supervised(data, config), list[Tensor]()
    classes = data.info.num_classes

    class Model(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(images)
            flat = images.float().flatten(-3)
            return flat @ torch.linspace(-1e-2, 1e-2, flat.shape[-1] * classes).view(-1, classes).sin()

    batch = load_batch(Views(data.train, "d4"), torch.arange(6), order(), "cpu", alpha=0.5)
    assert batch.partners is not None
    assert batch.shares is not None
    found = objective(Model(), batch)
    assert len(asked) == 1
    plain = make_loss(task, name=name, smoothing=0.1, class_weights=objective.class_weights)
    logits = Model()(batch.images)
    for place, share in enumerate(batch.shares.tolist()):
        one, other = batch.labels[place], batch.partners.labels[place]
        expected = share * plain(logits[place][None], one[None]) + (1 - share) * plain(logits[place][None], other[None])
        assert found[place].item() == pytest.approx(expected.item(), rel=1e-5)
    some = [Member(data, config, seed) for seed in range(2)]
    both = load_together(epochs_of(some), 0)
    alone = torch.stack([objective(Model(), epoch.load(0, Team())) for epoch in epochs_of(some)])
    torch.testing.assert_close(stacked_objective([objective, objective])(Model(), both), alone)


def test_an_objective_that_knows_nothing_of_mixed_images_is_refused(make_data: MakeData) -> None:
    """It would learn them as if they were their first parts."""
    data, config = make_data(), replace(TINY, mixup=0.2)

    def plain(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.images).sum(dim=-1)

    assert objective_of(plain, data, TINY) is plain
    with pytest.raises(ConfigError, match=r"^mixup=0\.2 needs an objective that learns from both labels of a mixed im"):
        objective_of(plain, data, config)
    plain.mixes = True  # type: ignore[attr-defined]
    assert objective_of(plain, data, config) is plain
    assert objective_of(None, data, config).mixes  # type: ignore[attr-defined]
