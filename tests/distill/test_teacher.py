"""Teachers: what runs, ensembles and bare modules say, that saying it changes nothing, and who is refused."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset
from qvit.distill import Teacher
from qvit.distill.outputs import outputs
from qvit.errors import QvitError, RunError
from qvit.models import Preprocess
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
