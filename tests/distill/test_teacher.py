"""Teachers: what runs, ensembles and bare modules say, that saying it changes nothing, and who is refused."""

import copy
import io
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.distill import Teacher
from qvit.distill.fingerprint import digest_of
from qvit.distill.outputs import outputs
from qvit.errors import QvitError, RunError
from qvit.models import Network, NetworkConfig, Preprocess, ViT, ViTConfig
from qvit.models.projections import Linear
from qvit.training.config import TrainConfig
from qvit.training.options import resolve
from qvit.training.prediction import evaluating, predict
from qvit.training.run import Run, train_run

MakeData = Callable[..., Dataset]
MakeRun = Callable[..., Run]
Build = Callable[..., Any]


def some_images(data: Dataset, count: int = 5) -> Tensor:
    return data.train.batch(torch.arange(count))[0]


# --- what they say ---


def test_an_ensemble_averages_logits_and_maps_and_lays_features_side_by_side(make_data: MakeData, build: Build) -> None:
    data = make_data()
    small, large = build(data, "vit_4q1h"), build(data, "qvit_4q2h", seed=1, pool="cls")
    images = some_images(data)
    said = Teacher("both", (small, large), "").outputs(images, features=True, attention=True)
    with torch.no_grad():
        each = [outputs(member.eval(), images, features=True, attention=True) for member in (small, large)]
    torch.testing.assert_close(said.logits, (each[0].logits + each[1].logits) / 2)
    assert said.features is not None
    assert said.features.shape == (5, 4 + 8)
    assert torch.equal(said.features[:, :4], each[0].features)
    assert torch.equal(said.features[:, 4:], each[1].features)
    torch.testing.assert_close(said.attention, (each[0].attention + each[1].attention) / 2)
    assert not any(part.requires_grad for part in said if part is not None)


@pytest.mark.parametrize("name", ["vit_4q1h", "qvit_4q1h", "resnet18"])
def test_outputs_are_those_of_a_plain_pass(make_data: MakeData, build: Build, name: str) -> None:
    data = make_data()
    model, images = build(data, name).eval(), some_images(data)
    plain = outputs(model, images)
    assert (plain.features, plain.attention) == (None, None)
    assert torch.equal(plain.logits, model(images))
    said = outputs(model, images, features=True)
    assert torch.equal(said.logits, plain.logits)
    assert torch.equal(said.features, model.forward_head(model.forward_features(images), pre_logits=True))
    assert said.attention is None
    if name != "resnet18":
        said = outputs(model, images, attention=True)
        assert torch.equal(said.logits, plain.logits)
        assert torch.equal(said.attention, model.forward_with_attention(images)[1])
        assert said.features is None


def test_a_students_dropout_before_the_head_is_kept_when_features_are_asked_for(
    make_data: MakeData, build: Build
) -> None:
    data = make_data()
    model = build(data, "resnet18", dropout=0.5).eval()
    model.dropout.train()
    images = some_images(data)
    torch.manual_seed(5)
    expected = model(images)
    torch.manual_seed(5)
    assert torch.equal(outputs(model, images, features=True).logits, expected)
    assert not torch.equal(outputs(model, images, features=True).logits, expected)


@pytest.mark.long
def test_runs_are_teachers(make_data: MakeData, make_run: MakeRun) -> None:
    data = make_data()
    runs = [make_run(), make_run(seed=1), make_run(model="vit_8q1h")]
    folders = [run.folder for run in runs]
    one = Teacher.of_runs(folders[:1])
    images = some_images(data)
    with torch.no_grad():
        each = [run.load_model()(images) for run in runs]
    assert torch.equal(one.outputs(images).logits, each[0])
    torch.testing.assert_close(Teacher.of_runs(folders).outputs(images).logits, torch.stack(each).mean(0))
    assert one.name == "vit_4q1h"
    assert Teacher.of_runs(folders[:2]).name == "2 × vit_4q1h"
    assert Teacher.of_runs(folders).name == "3 × vit_4q1h + vit_8q1h"
    assert Teacher.of_runs([str(folder) for folder in folders]).described == {
        "name": "3 × vit_4q1h + vit_8q1h",
        "digest": Teacher.of_runs(folders).digest,
        "members": 3,
        "found_at": [str(folder) for folder in folders],
    }


def test_any_module_is_a_teacher(make_data: MakeData) -> None:
    data = make_data()
    floats = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 4, dtype=torch.float64))

    class Doubled(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values.double()

    teacher = Teacher.of_module(nn.Sequential(Preprocess(3), Doubled(), floats))
    images = some_images(data)
    said = teacher.outputs(images)
    expected = floats(images.double() / 127.5 - 1.0)
    assert said.logits.dtype == torch.float32
    torch.testing.assert_close(said.logits.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    teacher.check_fits(data)
    assert teacher.described == {"name": "Sequential", "digest": teacher.digest, "members": 1, "found_at": []}
    assert Teacher.of_module(floats, name="mine").name == "mine"


def test_a_module_without_parameters_is_one_too(make_data: MakeData) -> None:
    class Brightness(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float().flatten(1)[:, :4]

    data = make_data()
    Teacher.of_module(Brightness()).check_fits(data)
    assert torch.equal(
        Teacher.of_module(Brightness()).outputs(some_images(data)).logits, some_images(data).float().flatten(1)[:, :4]
    )


def test_features_of_a_module_with_the_methods(make_data: MakeData) -> None:
    class Own(nn.Module):
        def forward_features(self, images: Tensor) -> Tensor:
            return images.float().mean(dim=(2, 3))

        def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
            return features if pre_logits else torch.cat([features, features[:, :1]], dim=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.forward_head(self.forward_features(images))

    data = make_data()
    teacher, images = Teacher.of_module(Own()), some_images(data)
    teacher.check_fits(data, features=True)
    assert torch.equal(teacher.outputs(images, features=True).features, images.float().mean(dim=(2, 3)))


# --- nothing changes in them ---


class Doubtful(nn.Module):
    """Dropout and batch normalisation, some parts in training mode and some not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(Preprocess(3), nn.Flatten(), nn.BatchNorm1d(432), nn.Dropout(0.5), nn.Linear(432, 4))
        self.body[2].running_mean += torch.randn(432)
        self.body[4].bias.requires_grad_(False)
        self.train()
        self.body[3].eval()
        self.body[1].eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def test_is_asked_in_evaluation_mode_and_left_as_it_was(make_data: MakeData, snapshot: Callable[..., Any]) -> None:
    data, module = make_data(), Doubtful()
    before = snapshot(module)
    assert len(set(before[0][2].values())) == 2, "the case is of no use unless modes are mixed"
    teacher, images = Teacher.of_module(module), some_images(data)
    together = teacher.outputs(images).logits
    singles = torch.cat([teacher.outputs(image[None]).logits for image in images])
    torch.testing.assert_close(together, singles)
    with torch.no_grad():
        torch.testing.assert_close(together, copy.deepcopy(module).eval()(images))
    teacher.check_fits(data)
    teacher.scores(data, "test", TrainConfig())
    assert snapshot(module) == before


def test_modes_are_restored_after_an_error() -> None:
    module = Doubtful()
    modes = [part.training for part in module.modules()]

    def fail() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [part.training for part in module.modules()] == modes


def test_asking_leaves_the_global_generator_alone(make_data: MakeData) -> None:
    data = make_data()
    teacher = Teacher.of_module(Doubtful())
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    teacher.outputs(some_images(data))
    assert torch.equal(torch.random.get_rng_state(), before)


# --- scores ---


@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_of_runs_are_the_mean_of_their_prediction_files(
    make_data: MakeData, make_run: MakeRun, split: str
) -> None:
    runs = [make_run(tta="always"), make_run(tta="never", seed=1)]
    data = runs[0].load_data()
    teacher = Teacher.of_runs([run.folder for run in runs])
    expected = (runs[0].predictions(split) + runs[1].predictions(split)) / 2
    found = teacher.scores(data, split, TrainConfig())
    assert np.array_equal(found, expected)
    assert not np.allclose(found, runs[0].predictions(split))


def test_scores_of_runs_are_read_and_not_computed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    shutil.copytree(run.folder, tmp_path / "run")
    teacher = Teacher.of_runs([tmp_path / "run"])
    (tmp_path / "run" / "model.safetensors").unlink()
    assert np.array_equal(teacher.scores(run.load_data(), "test", TrainConfig()), run.predictions("test"))


@pytest.mark.long
def test_scores_of_runs_for_other_images_are_predicted(make_data: MakeData, make_run: MakeRun) -> None:
    runs = [make_run(tta="always", augment="d4"), make_run(tta="never", augment="d4")]
    other = make_data(seed=1)
    own = runs[0].load_data()
    for data, split in ((other, "test"), (own, "train")):
        found = Teacher.of_runs([run.folder for run in runs]).scores(data, split, TrainConfig())
        each = [
            predict(run.load_model(), data[split], "multi-class", group=group)
            for run, group in zip(runs, ("d4", "none"), strict=True)
        ]
        np.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-6)


@pytest.mark.parametrize(("tta", "augment", "group"), [("never", "d4", "none"), ("auto", "mirror", "mirror")])
def test_scores_of_a_module_are_averaged_over_symmetries(
    make_data: MakeData, linear_teacher: Callable[..., Teacher], tta: Any, augment: Any, group: str
) -> None:
    data = make_data("multi-label")
    teacher = linear_teacher(data)
    found = teacher.scores(data, "val", TrainConfig(tta=tta, augment=augment))
    expected = predict(teacher.members[0], data.val, "multi-label", group=group)
    assert np.array_equal(found, expected)
    assert found.shape == (14, 3)


# --- who they are ---


def digest(*modules: nn.Module) -> str:
    return Teacher.of_module(modules[0]).digest if len(modules) == 1 else digest_of(modules)


def test_the_digest_is_that_of_all_that_is_saved() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    same = copy.deepcopy(module)
    assert digest(module) == digest(same.eval())
    assert digest(module) == digest(same.requires_grad_(False))
    found = {digest(module)}
    for name in module.state_dict():
        other = copy.deepcopy(module)
        other.state_dict()[name].flatten().view(torch.uint8)[0] ^= 1
        found.add(digest(other))
    assert len(found) == 1 + len(module.state_dict()) == 1 + 2 + 5


def test_the_digest_is_that_of_the_network_too() -> None:
    linear = nn.Linear(4, 4)
    found = {
        digest(nn.Sequential(linear, nn.ReLU())),
        digest(nn.Sequential(linear, nn.GELU())),
        digest(nn.Sequential(linear)),
        digest(copy.deepcopy(linear).bfloat16()),
        digest(linear),
    }
    assert len(found) == 5


def test_the_digest_tells_types_and_shapes_of_the_same_bytes_apart() -> None:
    def holding(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))
        return module

    found = [holding("a", 6), holding("b", 6), holding("a", 2, 3), holding("a", 3, 2), holding("a", 0), nn.Module()]
    found += [holding("a", 6, dtype=torch.int32), holding("a", dtype=torch.bool)]
    assert len({digest(module) for module in found}) == 8


def test_the_digest_knows_neither_places_in_memory_nor_the_order_of_sets() -> None:
    """Where an object lies in memory, and in which order a set is walked through, is another in each."""

    @dataclass(frozen=True)
    class Options:
        classes: frozenset[int]
        more: Any
        hidden: float = field(default_factory=random.random, repr=False)  # as it is in the `repr` of a module

    def module(*classes: int, name: str = "scale") -> nn.Module:
        class Scaled(nn.Identity):
            def __init__(self) -> None:
                super().__init__()
                self.config = Options(frozenset(classes), {"each": [set(classes)], "by": abs})
                self.scale = lambda x: x

            def extra_repr(self) -> str:
                return f"{name}={self.scale}"

        return Scaled()

    first, again = module(0, 8), module(8, 0)
    assert repr(first) != repr(again), "or the case is of no use"
    assert repr(first.config) != repr(again.config), "or the case is of no use"
    assert digest(first) == digest(again)
    assert len({digest(first), digest(module(0, 9)), digest(module(0, 8, name="shift"))}) == 3


def test_the_digest_sees_what_neither_weights_nor_names_show() -> None:
    """As many heads as there are, or a size to enlarge images to."""
    for kind, configs in (
        (ViT, [ViTConfig(img_size=12, heads=heads, projection=Linear()) for heads in (1, 2)]),
        (Network, [NetworkConfig("resnet18", img_size=12, width=1 / 64, resize=resize) for resize in (None, 24)]),
    ):
        first, second = kind(configs[0]), kind(configs[1])
        second.load_state_dict(first.state_dict())
        assert repr(first) == repr(second), "the case is of no use if it shows"
        assert digest(first) != digest(second)


def test_the_digest_of_an_ensemble_knows_order_and_number() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    found = [digest(first), digest(second), digest(first, second), digest(second, first), digest(first, first)]
    assert len(set(found)) == 5


class Remembering(nn.Module):
    """A module that saves what it is told to."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra


@pytest.mark.filterwarnings("ignore:torch.quantize_per_:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_the_digest_sees_into_quantised_weights() -> None:
    torch.manual_seed(0)
    linear, found = nn.Sequential(nn.Linear(3, 2)), []
    found.append(digest(linear))
    for change in ("nothing", "weight", "bias", "dtype"):
        changed = copy.deepcopy(linear)
        if change in ("weight", "bias"):
            getattr(changed[0], change).data[0] *= 2
        dtype = torch.float16 if change == "dtype" else torch.qint8
        quantised = torch.ao.quantization.quantize_dynamic(changed, {nn.Linear}, dtype=dtype)
        found.append(digest(quantised))
        assert digest(copy.deepcopy(quantised)) == found[-1]
    numbers = torch.zeros(2, 2)  # the same integers by any scale
    for scale, zero in ((0.1, 0), (0.2, 0), (0.1, 1)):
        found.append(digest(Remembering(torch.quantize_per_tensor(numbers, scale, zero, torch.qint8))))
    for scales, axis in (([0.1, 0.2], 0), ([0.1, 0.2], 1), ([0.2, 0.1], 0)):
        made = torch.quantize_per_channel(numbers, torch.tensor(scales), torch.zeros(2), axis, torch.qint8)
        found.append(digest(Remembering(made)))
    assert len(set(found)) == 1 + 4 + 3 + 3


LIKE_EACH_OTHER: list[Any] = [
    None, 0, False, 0.0, "", b"", "0", "None", (), [], {}, set(), {0: 1}, {1: 0}, [0, 1], (0, 1), [[0], 1], [0, [1]],
    torch.zeros(2), (torch.zeros(2),), np.zeros(2), np.zeros((2, 1)), np.zeros(2, int),
    np.array([0, "a"], dtype=object),
    torch.zeros(2).to_sparse(), torch.float32, nn.Linear, copy.copy, io.BytesIO(b"a"), io.BytesIO(b"b"), TrainConfig(),
    TrainConfig(lr=1.0), OrderedDict(), 1j, torch.ones(2, dtype=torch.cfloat), torch.ones(2, dtype=torch.cfloat) * 1j,
    (torch.ones(2, dtype=torch.cfloat) * 1j).conj(), {"a", "b"}, frozenset({"a", "b"}), range(3), range(4),
]  # fmt: skip


def test_the_digest_tells_everything_that_a_module_saves_apart() -> None:
    found = [digest(Remembering(value)) for value in LIKE_EACH_OTHER]
    assert len(set(found)) == len(LIKE_EACH_OTHER)
    assert [digest(Remembering(copy.deepcopy(value))) for value in LIKE_EACH_OTHER] == found
    loops: list[list[Any]] = [[1], [], []]
    loops[0].append(loops[0])
    loops[1].append([loops[1]])  # back to the outer list
    inner: list[Any] = []
    inner.append(inner)  # or to the inner one
    loops[2].append(inner)
    assert len({*found, *(digest(Remembering(loop)) for loop in loops)}) == len(found) + 3


def test_the_digest_is_the_same_in_every_process() -> None:
    """Known ones: they change with neither the seed of hashes nor where objects lie, or all caches were lost."""

    class Own(nn.Module):
        def __init__(self, config: Any, extra: Any) -> None:
            super().__init__()
            self.config, self.extra = config, extra
            self.register_buffer("numbers", torch.arange(3.0))

        def get_extra_state(self) -> Any:
            return self.extra

    Own.__module__ = "somewhere"
    first = Own({"a": {"y", "x", "z"}}, None)
    second = Own((1, ["b"]), {"set": {"a", "b", "c", 1, None}, "file": io.BytesIO(b"a"), "part": [torch.int8, print]})
    assert digest(first) == "0f5356af098092583af7514c2ec6d3ade2124a3fe0684e38d2667c7942f905e9"
    assert digest(second) == "46aaeede184af131e09bd0653abc910feedd9e3f1820073e5c98eb644b190ba3"
    assert digest(first, second) == "e84da8d1c154100048f4c97f4e641978f6ffebc3949b58f9d79c218b2e59784a"


# --- who is refused: see `test_wrong_inputs` too ---


class Killed(BaseException):
    pass


def test_refuses_what_is_no_finished_run(
    make_run: MakeRun, tmp_path: Path, make_npz: Callable[..., Path], one_step: None
) -> None:
    def stop(record: dict[str, Any], _seconds: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_run(
            resolve({"dataset": str(make_npz()), "model": "vit_4q1h", "epochs": 2}), tmp_path / "half", on_epoch=stop
        )
    finished = make_run().folder
    cases: dict[str, str] = {"half": "half is not finished; go on with", "nothing": "nothing is not a run folder"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("notes")
    cases["other"] = "other is not a run folder"
    for name in ("damaged", "cut"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "damaged" / "config.json").write_text("{")
    cases["damaged"] = "config.json is damaged"
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"12345")
    cases["cut"] = "model.safetensors cannot be read as weights"
    for name, message in cases.items():
        for folders in ([tmp_path / name], [finished, tmp_path / name]):
            with pytest.raises(RunError, match=message) as caught:
                Teacher.of_runs(folders)
            assert isinstance(caught.value, QvitError)
