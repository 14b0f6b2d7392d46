"""Teacher outputs on disk: those of the very augmented image, computed once, whole or not at all."""

import hashlib
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qvit.data.arrays import Dataset, Split
from qvit.data.augment import apply_element, augment, group_size
from qvit.data.views import Views
from qvit.distill import CacheWarning, Teacher, TeacherOutputs, teacher_cache, teacher_outputs
from qvit.distill.fingerprint import digest_of
from qvit.distill.teacher_cache import ABANDONED, cache_folder
from qvit.errors import RunError
from qvit.models import Preprocess
from qvit.training.batches import load_batch
from qvit.training.seeding import ORDER, generator

MakeData = Callable[..., Dataset]
MakeTeacher = Callable[..., Teacher]
Build = Callable[..., Any]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # sums depend on how many images are seen together


@pytest.fixture
def data(make_data: MakeData) -> Dataset:
    return make_data()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ask(teacher: Teacher, data: Dataset, folder: Path, **options: Any) -> TeacherOutputs:
    given = {"images_digest": "these", "group": "d4"} | options
    return teacher_outputs(teacher, data.train, folder=folder, **given)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# --- what is in it ---


@pytest.mark.parametrize(("group", "views"), [("none", 1), ("mirror", 7), ("d4", 1), ("d4", 40), ("d4", 512)])
def test_holds_every_image_under_every_element(
    data: Dataset, build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, views: int
) -> None:
    monkeypatch.setattr(teacher_cache, "VIEWS", views)
    teacher = Teacher.of_module(build(data, "vit_4q1h"))
    taught = ask(teacher, data, folder, group=group, features=True, attention=True)
    assert taught.logits.shape == (group_size(group), 21, 4)
    assert taught.features is not None
    assert taught.attention is not None
    images = torch.from_numpy(data.train.images)
    for element in range(group_size(group)):
        said = teacher.outputs(apply_element(images, element, group), features=True, attention=True)
        torch.testing.assert_close(taught.logits[element], said.logits, **CLOSE)
        torch.testing.assert_close(taught.features[element], said.features, **CLOSE)
        torch.testing.assert_close(taught.attention[element], said.attention, **CLOSE)


@pytest.mark.parametrize("group", ["none", "mirror", "d4"])
def test_a_batch_of_training_gets_what_is_said_of_its_augmented_images(
    data: Dataset, build: Build, folder: Path, group: str
) -> None:
    teacher = Teacher.of_module(build(data, "vit_4q1h"))
    taught = ask(teacher, data, folder, group=group, features=True, attention=True)
    order = generator(0, ORDER, 0)
    for index in torch.randperm(21, generator=order).split(8):
        batch = load_batch(Views(data.train, group), index, order, "cpu")
        assert torch.equal(batch.images, augment(data.train.batch(index)[0], batch.elements, group))
        said, found = teacher.outputs(batch.images, features=True, attention=True), taught.of(batch)
        for mine, expected in zip(found, said, strict=True):
            torch.testing.assert_close(mine, expected, **CLOSE)
        if group != "none":
            wrong = taught.logits[0, batch.index]
            assert not torch.allclose(wrong, said.logits, **CLOSE), "the case is of no use if turning changes nothing"
        assert not torch.allclose(found.logits, said.logits.flip(0), **CLOSE)


def test_only_what_is_asked_for_is_kept(data: Dataset, build: Build, folder: Path) -> None:
    teacher = Teacher.of_module(build(data, "vit_4q1h"))
    assert ask(teacher, data, folder).of(load_batch(Views(data.train, "d4"), torch.arange(3), generator(0), "cpu"))[
        1:
    ] == (
        None,
        None,
    )
    assert [path.name for path in kept(kept(folder)[0])] == ["cache.json", "logits.npy"]
    said = json.loads((kept(folder)[0] / "cache.json").read_text())
    assert (said["teacher"], said["group"], said["images"]) == ("ViT", "d4", 21)


def test_is_mapped_and_cannot_be_written_through(data: Dataset, linear_teacher: MakeTeacher, folder: Path) -> None:
    teacher = linear_teacher(data)
    taught = ask(teacher, data, folder)
    if sys.platform == "linux":
        assert str(kept(folder)[0] / "logits.npy") in Path("/proc/self/maps").read_text()
    bytes_before = (kept(folder)[0] / "logits.npy").read_bytes()
    before = taught.logits.clone()
    taught.logits.zero_()
    assert (kept(folder)[0] / "logits.npy").read_bytes() == bytes_before
    assert torch.equal(ask(teacher, data, folder).logits, before)


def test_tells_how_far_it_is(
    data: Dataset, linear_teacher: MakeTeacher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "VIEWS", 64)
    told: list[tuple[int, int]] = []
    ask(linear_teacher(data), data, folder, on_views=lambda done, total: told.append((done, total)))
    assert told == [(64, 168), (128, 168), (168, 168)]


def test_is_in_the_users_cache_by_default(
    data: Dataset, linear_teacher: MakeTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "user_cache", lambda: tmp_path / "user")
    teacher_outputs(linear_teacher(data), data.train, images_digest="these", group="none")
    assert cache_folder() == tmp_path / "user" / "teachers"
    assert len(kept(cache_folder())) == 1


def test_leaves_the_teacher_as_it_was(data: Dataset, build: Build, folder: Path, snapshot: Callable[..., Any]) -> None:
    model = build(data, "resnet18", dropout=0.5).train()
    model.body.layer1.eval()
    model.head.bias.requires_grad_(False)
    before = snapshot(model)
    ask(Teacher.of_module(model), data, folder, features=True)
    assert snapshot(model) == before


# --- computed once ---


def test_a_second_student_asks_nobody(data: Dataset, linear_teacher: MakeTeacher, folder: Path) -> None:
    teacher = linear_teacher(data)
    first = ask(teacher, data, folder)
    assert teacher.members[0].seen == 8 * 21
    again = ask(teacher, data, folder)
    other_object = linear_teacher(data)
    from_other = ask(other_object, data, folder)
    assert (teacher.members[0].seen, other_object.members[0].seen) == (8 * 21, 0)
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.logits, from_other.logits)
    assert len(kept(folder)) == 1


@pytest.mark.long
def test_whatever_matters_is_in_the_key(data: Dataset, make_data: MakeData, build: Build, folder: Path) -> None:
    model, other = build(data, "resnet18"), build(data, "resnet18", seed=1)
    ask(Teacher.of_module(model), data, folder)

    def is_new(teacher: Teacher | None = None, of: Dataset = data, **options: Any) -> bool:
        before = len(kept(folder))
        ask(teacher or Teacher.of_module(model), of, folder, **options)
        return len(kept(folder)) == before + 1

    assert not is_new()
    assert is_new(images_digest="those")
    assert is_new(group="mirror")
    assert is_new(group="none")
    assert is_new(features=True)
    assert is_new(of=Dataset(data.info, 12, data.val, data.val, data.val)), "another number of images"
    both = (model, other)
    for members in (both, both[::-1], (model, model), (*both, model)):
        assert is_new(Teacher("many", members, digest_of(members)))
    with torch.no_grad():
        model.head.weight.view(torch.int32)[0, 0] ^= 1
    assert is_new()
    model.body.bn1.running_mean.view(torch.int32)[0] ^= 1
    assert is_new()
    assert not is_new()


# --- damage ---


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))


def change_json(**changes: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = place / "cache.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def foreign_table(header: str, values: bytes = b"") -> Callable[[Path], None]:
    """Put another table in a cache, with its checksum."""

    def change(place: Path) -> None:
        table = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + values
        (place / "logits.npy").write_bytes(table)
        said = json.loads((place / "cache.json").read_text())
        said["checksums"]["logits"] = hashlib.blake2b(table).hexdigest()
        (place / "cache.json").write_text(json.dumps(said))

    return change


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": lambda place: flip(place / "logits.npy"),
    "a flipped bit of another": lambda place: flip(place / "features.npy"),
    "cut": lambda place: os.truncate(place / "logits.npy", 200),
    "empty": lambda place: (place / "logits.npy").write_bytes(b""),
    "gone": lambda place: (place / "features.npy").unlink(),
    "no json": lambda place: (place / "cache.json").unlink(),
    "rubbish": lambda place: (place / "cache.json").write_bytes(b"\xff\x00{"),
    "half a json": lambda place: (place / "cache.json").write_text('{"key": '),
    "a list": lambda place: (place / "cache.json").write_text("[1, 2]"),
    "a number": lambda place: (place / "cache.json").write_text("7"),
    "nested": lambda place: (place / "cache.json").write_text('{"key": ' * 9000),
    "digits": lambda place: (place / "cache.json").write_text('{"key": ' + "9" * 5000 + "}"),
    "checksums of numbers": change_json(checksums={"logits": 1, "features": 2}),
    "a pipe": lambda place: ((place / "cache.json").unlink(), os.mkfifo(place / "cache.json")),
    "a pipe of outputs": lambda place: ((place / "logits.npy").unlink(), os.mkfifo(place / "logits.npy")),
    "nothing": lambda place: (place / "cache.json").write_text("null"),
    "no key": lambda place: (place / "cache.json").write_text("{}"),
    "another key": change_json(key="0" * 64),
    "checksums of a list": change_json(checksums=["logits"]),
    "no checksums": change_json(checksums={}),
    "a deep json": lambda place: (place / "cache.json").write_text("[" * 100_000),
    "a table of nothing": foreign_table("("),
    "another table": foreign_table("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 4), }", bytes(16)),
    "a file in its place": lambda place: (place.rename(place.with_name("moved")), place.write_text("file")),
    "a folder in a file's place": lambda place: ((place / "logits.npy").unlink(), (place / "logits.npy").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_made_good(
    data: Dataset, build: Build, folder: Path, snapshot: Callable[..., Any], damage: str
) -> None:
    teacher = Teacher.of_module(build(data))
    whole = ask(teacher, data, folder, features=True)
    expected = [whole.logits.clone(), whole.features.clone()]
    (place,) = kept(folder)
    DAMAGE[damage](place)
    with pytest.warns(CacheWarning, match=rf"The teacher outputs in {place} are damaged \(.*computed again") as caught:
        again = ask(teacher, data, folder, features=True)
    assert len(caught) == 1
    assert torch.equal(again.logits, expected[0])
    assert torch.equal(again.features, expected[1])
    ask(teacher, data, folder, features=True)  # without a warning
    assert [path for path in kept(folder) if path.name != "moved"] == [place]


def test_strange_files_beside_it_do_no_harm(data: Dataset, linear_teacher: MakeTeacher, folder: Path) -> None:
    teacher = linear_teacher(data)
    ask(teacher, data, folder)
    (kept(folder)[0] / "notes.txt").write_text("mine")
    change_json(checksums=json.loads((kept(folder)[0] / "cache.json").read_text())["checksums"] | {"more": "x"})(
        kept(folder)[0]
    )
    ask(teacher, data, folder)
    assert teacher.members[0].seen == 8 * 21


class Killed(BaseException):
    pass


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt, ValueError])
def test_stopped_in_the_middle_it_leaves_nothing(
    data: Dataset, linear_teacher: MakeTeacher, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type
) -> None:
    monkeypatch.setattr(teacher_cache, "VIEWS", 64)
    teacher = linear_teacher(data)

    def stop(done: int, total: int) -> None:
        if done > 64:
            raise error

    with pytest.raises(error):
        ask(teacher, data, folder, on_views=stop)
    assert kept(folder) == []
    taught = ask(teacher, data, folder)
    torch.testing.assert_close(taught.logits[0], teacher.outputs(torch.from_numpy(data.train.images)).logits, **CLOSE)


def test_leftovers_are_swept_when_they_are_old(data: Dataset, linear_teacher: MakeTeacher, folder: Path) -> None:
    folder.mkdir()
    ages = {".old.part": ABANDONED + 60, ".young.part": ABANDONED - 60, ".old": ABANDONED + 60, "old": ABANDONED + 60}
    for name, age in ages.items():
        (folder / name).mkdir()
        (folder / name / "logits.npy").write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    ask(linear_teacher(data), data, folder)
    assert {path.name for path in kept(folder)} & ages.keys() == {".young.part", ".old", "old"}
    assert ABANDONED == 24 * 3600


def test_a_leftover_that_goes_while_it_is_looked_at(
    data: Dataset, linear_teacher: MakeTeacher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.glob

    def glob(self: Path, pattern: str) -> Iterator[Path]:
        yield self / ".finished.part"
        yield from listed(self, pattern)

    monkeypatch.setattr(teacher_cache.Path, "glob", glob)
    ask(linear_teacher(data), data, folder)
    assert len(kept(folder)) == 1


# --- two at once ---


def test_who_comes_second_leaves_the_first_ones_alone(
    data: Dataset, linear_teacher: MakeTeacher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second computes, the first puts its outputs there, and reads them."""
    teacher, firsts = linear_teacher(data), []

    def meanwhile(done: int, total: int) -> None:
        if not firsts:
            taught = ask(linear_teacher(data), data, folder)
            firsts.append((taught, kept_place().stat().st_ino))

    def kept_place() -> Path:
        (place,) = [path for path in kept(folder) if not path.name.startswith(".")]
        return place

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = ask(teacher, data, folder, on_views=meanwhile)
    first, inode = firsts[0]
    assert kept_place().stat().st_ino == inode
    assert kept(folder) == [kept_place()]
    assert torch.equal(first.logits, second.logits)


def test_two_find_the_same_damage(data: Dataset, linear_teacher: MakeTeacher, folder: Path) -> None:
    teacher = linear_teacher(data)
    expected = ask(teacher, data, folder).logits.clone()
    flip(kept(folder)[0] / "logits.npy")
    found: list[Tensor] = []

    def meanwhile(done: int, total: int) -> None:
        found.append(ask(linear_teacher(data), data, folder).logits)

    with pytest.warns(CacheWarning) as caught:
        found.append(ask(teacher, data, folder, on_views=meanwhile).logits)
    assert len(caught) == 1, "the damage is gone when the other looks"
    assert len(found) == 2
    assert all(torch.equal(one, expected) for one in found)
    assert len(kept(folder)) == 1


def compute(folder: Path, told: Any, ready: Any) -> None:
    """What each of two processes does; every part is computed after the other's."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 12, 12), dtype=np.uint8)
    split = Split(images, np.zeros((300, 1), np.int64))
    teacher = Teacher.of_module(nn.Sequential(Preprocess(1), nn.Flatten(), nn.Linear(144, 4)))
    seen: list[int] = []

    def on_views(done: int, total: int) -> None:
        seen.append(done)
        ready.wait()

    ready.wait()
    taught = teacher_outputs(teacher, split, images_digest="x", group="d4", folder=folder, on_views=on_views)
    told.put((len(seen), float(taught.logits.double().sum())))


@pytest.mark.processes
def test_two_processes_at_once(folder: Path) -> None:
    """Both compute, as neither has finished when the other looks; both then read the same."""
    context = multiprocessing.get_context("fork")
    told, ready = context.Queue(), context.Barrier(2, timeout=600)
    both = [context.Process(target=compute, args=(folder, told, ready)) for _ in range(2)]
    for process in both:
        process.start()
    first, second = told.get(timeout=600), told.get(timeout=600)
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert first == second
    assert first[0] == 5, "512 of 2400 views at a time"
    assert len(kept(folder)) == 1


# --- what cannot be kept: see `test_wrong_inputs` too ---


@pytest.mark.parametrize(
    ("which", "value"), [("logits", float("nan")), ("features", float("inf")), ("attention", -float("inf"))]
)
def test_refuses_what_is_not_finite(data: Dataset, folder: Path, which: str, value: float) -> None:
    class Broken(nn.Module):
        """One value of one image is wrong."""

        def forward_features(self, images: Tensor) -> Tensor:
            features = images.float().mean(dim=(2, 3))
            where = (images == torch.from_numpy(data.train.images[20])).flatten(1).all(1)
            features[where, 1] = value if which == "features" else 1.0
            return features

        def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
            if pre_logits:
                return features
            return torch.full((len(features), 4), value if which == "logits" else 1.0)

        def forward_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
            maps = torch.full((len(images), 2, 2), 0.25)
            maps[-1, 1, 1] = value if which == "attention" else 0.25
            return self.forward_features(images), maps

    teacher = Teacher.of_module(Broken())
    with pytest.raises(RunError, match=f"The teacher Broken gives {which} that are not finite; train it again"):
        ask(teacher, data, folder, features=True, attention=True)
    assert kept(folder) == []
