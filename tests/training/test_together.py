"""Stacks in training: each model becomes what it becomes alone, and no bit of it depends on the others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.errors import ConfigError, MetricError, ModelError, TrainingError
from qvit.models import ViT, create_model
from qvit.training.batches import Batch
from qvit.training.config import TrainConfig
from qvit.training.loop import fit, fit_many
from qvit.training.objective import supervised
from qvit.training.optimizer import AdamW
from qvit.training.records import Validation
from qvit.training.seeding import INIT, seeded
from qvit.training.state import Member, TrainState
from qvit.training.step import make_optimizer
from qvit.training.together import Stack

pytestmark = pytest.mark.trains
TINY = TrainConfig(epochs=3, batch_size=8)
MakeData = Callable[..., Dataset]


def model_of(one: Member, name: str = "qvit_4q1h", **options: Any) -> ViT:
    info = one.data.info
    like = {"in_chans": info.channels, "num_classes": info.num_classes, "img_size": one.data.size}
    with seeded(one.seed, INIT):
        model = create_model(name, **like, **options)
    assert isinstance(model, ViT)
    return model


def trained(members: Sequence[Member], **options: Any) -> list[ViT]:
    models = [model_of(one, **options) for one in members]
    fit_many(models, members)
    return models


def bits(one: Member) -> list[Tensor]:
    assert one.state.best is not None
    return [*one.state.model.values(), *one.state.best.model.values()]


def same(first: Member, second: Member) -> bool:
    return first.state.history == second.state.history and all(map(torch.equal, bits(first), bits(second)))


def some(data: Dataset) -> list[Member]:
    """Members that differ in all in which they may: seed, rate, decay, norm, batches, epochs, images, what is kept."""
    fold = replace(data, train=Split(data.train.images[:29], data.train.labels[:29]), val=data.test)
    return [
        Member(data, TINY, 0),
        Member(data, replace(TINY, lr=0.02, weight_decay=0.3, clip_norm=None, epochs=2, distort=1.0), 1),
        Member(fold, replace(TINY, clip_norm=0.01, mixup=0.4), 2),
        Member(data, replace(TINY, batch_size=5, schedule="constant", epochs=4, keep="last", average=3), 3),
    ]


@pytest.mark.slow("trains four models as a stack, and each alone")
@pytest.mark.parametrize(
    ("task", "name", "options", "train"),
    [
        ("multi-class", "qvit_4q1h", {}, {}),
        ("multi-label", "vit_4q1h", {"depth": 2}, {"class_weights": "balanced"}),
        ("ordinal", "cosine_4q1h", {"pool": "cls"}, {"loss": "ce+emd", "class_weights": "balanced"}),
        ("binary", "unlu_4q1h", {}, {"label_smoothing": 0.1, "class_weights": "balanced", "tta": "never"}),
    ],
)
def test_each_model_becomes_what_it_becomes_alone(
    make_data: MakeData, task: str, name: str, options: dict[str, Any], train: dict[str, Any]
) -> None:
    data = make_data(task)
    members = [replace(one, config=replace(one.config, **train)) for one in some(data)]
    models = trained(members, name=name, **options)
    for one, model in zip(members, models, strict=True):
        alone = model_of(one, name, **options)
        state = fit(alone, one.data, one.config, seed=one.seed)
        assert [record.epoch for record in one.state.history] == list(range(1, one.config.epochs + 1))
        for ours, theirs in zip(one.state.history, state.history, strict=True):
            assert ours.lr == theirs.lr
            assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
            assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-4)
            assert ours.tta == theirs.tta
        images = torch.from_numpy(data.test.images)
        torch.testing.assert_close(model(images), alone(images), rtol=1e-2, atol=1e-2)


@pytest.mark.slow("trains thirteen models")
def test_no_bit_depends_on_the_others(make_data: MakeData) -> None:
    data = make_data()
    whole = some(data)
    trained(whole)
    for places in ((2,), (3, 2, 1, 0), (1, 3)):
        members = some(data)
        few = [members[place] for place in places]
        trained(few)
        for place, one in zip(places, few, strict=True):
            assert same(one, whole[place]), place


@pytest.mark.slow("trains eight models for up to six epochs")
def test_what_befalls_one_is_no_matter_to_the_others(make_data: MakeData) -> None:
    """One diverges in its tenth step, one is stopped by patience, one goes on from its second epoch."""
    data = make_data()
    config = replace(TINY, epochs=6)
    images = data.train.images.copy()  # the same, as others
    huge = replace(config, lr=1e38, clip_norm=None, weight_decay=0.0, schedule="warmup_cosine", warmup=0.4)
    resumed = Member(data, replace(config, epochs=2), 5)
    trained([resumed])
    begun = resumed.state

    def others() -> list[Member]:
        return [Member(data, config, 0), Member(replace(data, train=Split(images, data.train.labels)), config, 1)]

    plain = others()
    trained(plain)
    patient, failing = Member(data, replace(config, patience=1, lr=1e-30), 4), Member(data, huge, 3)
    going_on = Member(data, replace(config, schedule="constant"), 5, state=begun)
    mixed = [failing, *others(), patient, going_on]
    trained(mixed)
    assert isinstance(failing.error, TrainingError)
    assert "no longer finite at epoch" in str(failing.error)
    assert failing.state.epoch < config.epochs
    assert patient.state.epoch < config.epochs
    assert going_on.state.epoch == config.epochs
    assert all(one.error is None for one in mixed[1:])
    for one, other in zip(plain, mixed[1:3], strict=True):
        assert same(one, other)


def test_one_that_diverges_says_where_and_keeps_its_best_weights(make_data: MakeData) -> None:
    data = make_data()
    one = Member(data, replace(TINY, epochs=9, lr=1e38, clip_norm=None, schedule="warmup_cosine", warmup=0.5), 0)
    (model,) = trained([one])
    alone = model_of(one)
    with pytest.raises(TrainingError) as caught:
        fit(alone, one.data, one.config, seed=one.seed)
    assert str(one.error) == str(caught.value)
    if one.state.best is not None:
        assert all(torch.equal(value, one.state.best.model[key]) for key, value in model.state_dict().items())


def test_each_keeps_what_it_was_asked_to(make_data: MakeData) -> None:
    """Nothing moves, so that the first epoch is the best."""
    data, config = make_data(), replace(TINY, epochs=3, lr=1e-30)
    members = [Member(data, replace(config, keep=keep), seed) for seed, keep in enumerate(("best", "last", "best"))]
    trained(members)
    assert [one.state.best.record.epoch for one in members if one.state.best] == [1, 3, 1]


def test_one_whose_mean_cannot_be_judged_stops_no_other(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data, config = make_data(), replace(TINY, epochs=2, keep="last", average=2)

    def figures(model: nn.Module, data: Dataset, config: TrainConfig, *_: Any) -> Validation:
        if config.lr == 0.25:
            raise MetricError("not finite")
        return Validation(1.0, 0.5, 0.25, "mirror")

    monkeypatch.setattr("qvit.training.loop.validation_figures", figures)
    members = [Member(data, replace(config, lr=lr), seed) for seed, lr in enumerate((0.25, 0.01))]
    trained(members)
    assert [str(one.error) for one in members] == ["not finite", "None"]
    assert members[1].state.best is not None
    assert members[1].state.best.record.tta == "mirror"


def test_goes_on_bit_for_bit(make_data: MakeData) -> None:
    """Members of a stack that was stopped may have got differently far."""
    data = make_data()
    whole = [Member(data, TINY, seed) for seed in range(3)]
    trained(whole)

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(state: TrainState) -> None:
        if state.epoch == 2:
            raise Stopped

    begun = [Member(data, TINY, seed, on_epoch=stop if seed == 1 else None) for seed in range(3)]
    models = [model_of(one) for one in begun]
    with pytest.raises(Stopped):
        fit_many(models, begun)
    early = [Member(data, replace(TINY, epochs=3), 0)]
    states = [early[0].state, begun[1].state, begun[2].state]  # the first has to start again
    going_on = [Member(data, TINY, seed, state=state) for seed, state in enumerate(states)]
    trained(going_on)
    assert all(map(same, going_on, whole))


def test_the_state_of_a_member_is_that_of_a_model_alone(make_data: MakeData) -> None:
    """So that each can go on with what the other has kept."""
    data = make_data()
    one = Member(data, replace(TINY, epochs=2), 0)
    trained([one, Member(data, TINY, 1)])
    alone = model_of(one)
    optimizer = make_optimizer(alone, one.config)
    optimizer.load_state_dict(one.state.optimizer)
    state = fit(model_of(one), data, one.config, seed=0)
    assert isinstance(optimizer, AdamW)
    ours, theirs = one.state.optimizer, state.optimizer
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, values in ours["state"].items():
        for key, value in values.items():
            torch.testing.assert_close(value, theirs["state"][number][key], rtol=1e-3, atol=1e-6)
    assert fit(model_of(one), data, replace(one.config, epochs=3), seed=0, state=one.state).epoch == 3


def test_a_state_of_another_model_is_refused(make_data: MakeData) -> None:
    data = make_data()
    good = Member(data, TINY, 0)
    trained([good])
    other = Member(data, TINY, 0)
    trained([other], depth=2)
    told = r"^The state to go on from is not that of this model, objective and optimizer"
    for part in ({"model": other.state.model}, {"optimizer": {}}, {"optimizer": other.state.optimizer}):
        state = TrainState(**vars(good.state) | part)
        with pytest.raises(ModelError, match=told):
            trained([Member(data, replace(TINY, epochs=5), 0, state=state)])


@pytest.mark.parametrize(
    ("name", "value"),
    [("augment", "mirror"), ("tta", "never"), ("label_smoothing", 0.5), ("class_weights", "balanced"), ("threads", 2)],
)
def test_what_a_stack_has_once_is_the_same_for_all(make_data: MakeData, name: str, value: Any) -> None:
    data = make_data()
    members = [Member(data, TINY, 0), Member(data, replace(TINY, **{name: value}), 1)]
    told = f"^Expected models of a stack to have the same {name}, got {getattr(TINY, name)} and {value}; train them"
    with pytest.raises(ConfigError, match=told):
        trained(members)


def test_images_of_a_stack_have_the_same_symmetries(make_data: MakeData) -> None:
    data = make_data()
    other = replace(data, info=replace(data.info, augment="mirror"))
    with pytest.raises(
        ConfigError, match=r"^Expected images of a stack to be seen under the same symmetries, got d4 and"
    ):
        trained([Member(data, TINY, 0), Member(other, TINY, 1)])


def test_objectives_that_cannot_be_put_together_are_refused(make_data: MakeData) -> None:
    data = make_data()

    def plain(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.images).sum(dim=-1)

    for objectives in ((plain, plain), (supervised(data, TINY), plain)):
        with pytest.raises(ModelError, match=r"^Expected objectives of one kind, with methods `stacked` and `part`"):
            trained([Member(data, TINY, seed, objective=own) for seed, own in enumerate(objectives)])


@pytest.mark.slow("trains three models until they have learnt something")
def test_a_model_of_a_stack_learns(make_data: MakeData) -> None:
    data = make_data(noise=5.0)
    members = [Member(data, replace(TINY, epochs=25, batch_size=8), seed) for seed in range(3)]
    trained(members, name="qvit_4q1h")
    assert all(one.state.best is not None and one.state.best.record.val_auc > 0.9 for one in members)
    assert len({one.state.history[-1].train_loss for one in members}) == 3


def test_a_stack_is_that_of_its_members(make_data: MakeData) -> None:
    data = make_data()
    members = [Member(data, TINY, seed) for seed in range(2)]
    stack = Stack([model_of(one) for one in members], members)
    assert stack.module.models == (2,)
    sizes = [parameter.numel() for parameter in stack.module.parameters()]
    assert sum(sizes) == 2 * sum(parameter.numel() for parameter in model_of(members[0]).parameters())
    assert np.isfinite([figures.val_loss for figures in stack.validate()]).all()
