"""From a folder of pictures to a dataset: pixels, splits, names, and what stops, refuses or leaks."""

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.picture_folders import class_folder, picture, table
from qvit.data import blocks, importing
from qvit.data.arrays import Dataset, load_dataset
from qvit.data.importing import import_pictures, key_of, stamps_of
from qvit.data.listing import list_folder
from qvit.data.options import ImportOptions
from qvit.data.pictures import PictureError, read_pictures
from qvit.data.squares import to_square
from qvit.errors import ConfigError, DataError, RunError

# Divided pictures are groups of their own; else each place of a class is, such as all of 00.png.
PATTERN = "^(?:train|val|test)/.*|[0-9]+"
GROUPED = ImportOptions(group_by=PATTERN)


def load(place: Path, **options: Any) -> Dataset:
    """Import with `options`; files are told apart by their names, so nothing is split at random without a warning."""
    size = options.pop("size", 5)
    chosen = ImportOptions(**{"group_by": PATTERN} | options)
    return load_dataset(place, size=size, root=place.parent / "root", importing=chosen)


def refusal(place: Path, **options: Any) -> str:
    imported = place.parent / "root" / "imported"
    before = {*imported.glob("*.npz")}
    with pytest.raises((DataError, ConfigError, RunError)) as caught:
        load(place, **options)
    assert "\n" not in str(caught.value)
    assert {*imported.glob("*.npz")} == before
    return str(caught.value).replace(str(place), "PLACE")


@pytest.fixture
def sided(tmp_path: Path) -> Path:
    """Two classes in train, val and test."""
    for number, side in enumerate(("train", "val", "test")):
        class_folder(tmp_path / "cells" / side, {"b": 2, "a": number + 1})
    return tmp_path / "cells"


def test_images_are_the_pictures_in_order(sided: Path) -> None:
    data = load(sided)
    assert (data.info.labels, data.info.task, data.info.channels, data.info.name) == (("a", "b"), "binary", 3, "cells")
    for number, (side, split) in enumerate(data.splits.items()):
        files = [*(f"a/{place:02}" for place in range(number + 1)), "b/00", "b/01"]
        expected = [to_square(read_pictures(sided / side / f"{file}.png")[0].pixels, 5) for file in files]
        assert np.array_equal(split.images, np.array(expected).transpose(0, 3, 1, 2))
        assert split.labels[:, 0].tolist() == [0] * (number + 1) + [1, 1]


def test_a_folder_is_the_dataset_that_its_arrays_are(sided: Path, tmp_path: Path) -> None:
    """Wherever it lies and however it was imported, the digest is that of pixels, labels, names and splits."""
    data = load(sided)
    arrays = {
        f"{side}_{key}": value
        for side, split in data.splits.items()
        for key, value in (("images", split.images.transpose(0, 2, 3, 1)), ("labels", split.labels))
    }
    np.savez(tmp_path / "own.npz", **arrays, class_names=np.array(["a", "b"]))
    assert load_dataset(tmp_path / "own.npz").digest == data.digest
    np.savez(tmp_path / "other.npz", **arrays, class_names=np.array(["a", "c"]))
    assert load_dataset(tmp_path / "other.npz").digest != data.digest
    shutil.copytree(sided, tmp_path / "elsewhere" / "copy")
    assert load(tmp_path / "elsewhere" / "copy").digest == data.digest
    assert load(sided, max_bad=7).digest == data.digest


def test_it_is_imported_once_and_again_when_a_file_changes(sided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def count(path: Path, **options: Any) -> Any:
        read.append(path)
        return read_pictures(path, **options)

    monkeypatch.setattr(blocks, "read_pictures", count)
    first = load(sided)
    assert len(read) == 12
    assert load(sided).digest == first.digest
    assert len(read) == 12
    assert not list((sided.parent / "root" / "imported").glob(".*")), "nothing else is left"
    picture(sided / "val" / "a" / "00.png", 99)
    assert load(sided).digest != first.digest
    assert len(read) == 24
    load(sided, fit="pad")
    load(sided, size=6)
    assert len(read) == 48


def test_what_medmnist_reads(sided: Path) -> None:
    """`np.load` without pickles gives the six arrays, and names beside them."""
    data = load(sided)
    assert data.path is not None
    with np.load(data.path, allow_pickle=False) as found:
        assert found["train_images"].shape == (3, 5, 5, 3)
        assert (found["train_labels"].shape, found["train_labels"].dtype) == ((3, 1), np.uint8)
        assert found["class_names"].tolist() == ["a", "b"]
        assert found["test_sources"].tolist()[0].endswith(".png")
        assert set(found) == {"class_names"} | {
            f"{side}_{key}" for side in data.splits for key in ("images", "labels", "sources", "groups")
        }


def test_grey_stays_grey_and_colour_can_be_chosen(tmp_path: Path) -> None:
    for number, side in enumerate(("train", "val", "test")):
        class_folder(tmp_path / "x" / side, {"a": 1, "b": 1 + number}, mode="L")
    grey = load(tmp_path / "x")
    assert grey.train.images.shape == (2, 1, 5, 5)
    rgb = load(tmp_path / "x", channels="rgb")
    assert np.array_equal(rgb.train.images, grey.train.images.repeat(3, axis=1))
    # A colour picture without colours is no reason for colours.
    file = tmp_path / "x" / "train" / "a" / "00.png"
    Image.open(file).convert("RGB").save(file)
    assert np.array_equal(load(tmp_path / "x").train.images, grey.train.images)
    picture(file, 5)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x")
    assert str(caught.value) == (
        f"{tmp_path / 'x'}: expected one kind of pictures, found 8 grey (test/a/00.png, …), 1 in colour "
        "(train/a/00.png, …). Choose --channels grey or rgb (in Python channels=…)."
    )
    mixed = load(tmp_path / "x", channels="grey")
    square = to_square(read_pictures(file)[0].pixels, 5).astype(int)
    luma = (square @ [299, 587, 114] + 500) // 1000
    assert np.array_equal(mixed.train.images[0, 0], luma)


def test_a_table_with_patients(tmp_path: Path) -> None:
    rows = [f"p/{place}.png,{'mf'[place % 3 == 0]},P{place // 2}" for place in range(24)]
    for place in range(24):
        picture(tmp_path / "p" / f"{place}.png", place)
    path = table(tmp_path / "chest.csv", "path,sex,patient", rows)
    data = load(path, label="sex", group_by="patient")
    assert data.info.labels == ("f", "m")
    assert data.groups is not None
    sides = [set(groups.tolist()) for groups in data.groups.values()]
    assert sum(map(len, sides)) == 12, "no patient stands in two splits"
    assert len(set.union(*sides)) == 12
    assert not any(name.startswith("P") for name in set.union(*sides)), "names of groups are hashed"
    again = load(path, label="sex", group_by="patient", split_seed=5)
    assert again.digest != data.digest


def test_without_groups_it_says_so(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "x", {"a": 9, "b": 9})
    with pytest.warns(UserWarning, match="split at random, image by image, as groups are not known") as caught:
        data = load(folder, group_by=None)
    assert len(caught) == 1
    assert data.groups is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)


def test_a_missing_val_is_taken_from_train(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    class_folder(folder / "train", {"a": 16, "b": 16})
    class_folder(folder / "test", {"a": 1, "b": 1})
    data = load(folder)
    assert {side: len(split) for side, split in data.splits.items()} == {"train": 28, "val": 4, "test": 2}
    assert data.val.labels.sum() == 2
    assert len(load(folder, shares=(0.5, 0.3, 0.2)).val) == 12


def test_classes_that_stand_alone(sided: Path) -> None:
    picture(sided / "test" / "c" / "0.png")
    found = "PLACE: expected each class in train and in another split, found 'c' in {} alone. Divide it among them."
    assert refusal(sided) == found.format("test")
    picture(sided / "val" / "c" / "0.png")
    assert refusal(sided) == found.format("val and test")
    shutil.rmtree(sided / "test" / "c")
    shutil.rmtree(sided / "val" / "c")
    picture(sided / "train" / "c" / "0.png")
    assert refusal(sided) == found.format("train")


def spoil(path: Path) -> None:
    path.write_text("not a picture")


def test_bad_files_are_listed(sided: Path) -> None:
    spoil(sided / "train" / "b" / "00.png")
    spoil(sided / "test" / "b" / "01.png")
    told = refusal(sided)
    assert told.startswith("PLACE: expected readable pictures, found 2 of 12 that cannot be read (test/b/01.png: ")
    assert "; train/b/00.png: " in told
    assert told.endswith("). Repair or remove them, or leave so many out with --max-bad (in Python max_bad).")
    assert refusal(sided, max_bad=1).startswith("PLACE: expected at most 1 files that cannot be read, found 2 of 12")
    with pytest.warns(UserWarning, match=r"2 of 12 files were left out \(test/b/01\.png: .*; train/b/00\.png: "):
        data = load(sided, max_bad=2)
    assert {side: len(split) for side, split in data.splits.items()} == {"train": 2, "val": 4, "test": 4}


def test_many_bad_files_are_not_all_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)  # eight files at a time
    folder = class_folder(tmp_path / "x", {"a": 40, "b": 40})
    for path in folder.rglob("*.png"):
        spoil(path)
    assert refusal(folder).startswith("PLACE: expected readable pictures, found at least 8 of 80 that cannot be read (")
    for path in folder.glob("a/0*.png"):
        picture(path)
    assert "; …)" in refusal(folder)


def test_nothing_that_can_be_read(sided: Path) -> None:
    for path in sided.rglob("*.png"):
        spoil(path)
    assert refusal(sided, max_bad=12).startswith("PLACE: expected pictures that can be read, found none (")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 1)
    path = table(tmp_path / "t.csv", "path,label", ["a.png,x", "b.png,y", "gone.png,x"])
    told = refusal(path, group_by=None)
    assert told.startswith(f"{tmp_path}: expected readable pictures, found 1 of 3 that cannot be read (gone.png: ")


def test_a_folder_that_changes_while_it_is_read(sided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(path: Path, **options: Any) -> Any:
        if path.parts[-3:] == ("test", "a", "02.png"):
            picture(sided / "train" / "a" / "00.png", 77, size=(20, 20))
        return read_pictures(path, **options)

    monkeypatch.setattr(blocks, "read_pictures", change)
    assert refusal(sided) == (
        "PLACE: expected files that stay as they are, found one that changed while it was read. Import it again once "
        "nothing writes to it any more."
    )
    monkeypatch.undo()
    assert len(load(sided).train) == 3


@pytest.mark.parametrize("after", [0, 1, 9, 30])
def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    folder = class_folder(tmp_path / "x", {"a": 20, "b": 20})
    whole = load(folder).digest
    shutil.rmtree(tmp_path / "root")
    read: list[str] = []

    def stop(path: Path, **options: Any) -> Any:
        if len(read) >= after:
            raise KeyboardInterrupt
        read.append(path.name)
        return read_pictures(path, **options)

    monkeypatch.setattr(blocks, "read_pictures", stop)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    again: list[str] = []

    def count(path: Path, **options: Any) -> Any:
        again.append(path.name)
        return read_pictures(path, **options)

    monkeypatch.setattr(blocks, "read_pictures", count)
    kept = [path for path in (tmp_path / "root").rglob("*.npz") if path.parent.name.startswith(".")]
    assert len(kept) <= len(read) // 8, "each block is whole, and each thread is at one"
    assert load(folder).digest == whole
    assert len(again) == 40 - 8 * len(kept)


def test_a_damaged_part_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = class_folder(tmp_path / "x", {"a": 9, "b": 9})
    whole = load(folder).digest
    target = next((tmp_path / "root" / "imported").iterdir())
    target.unlink()
    listing = list_folder(folder, group_by="[0-9]+")
    key = key_of(listing, stamps_of(listing), size=5, options=GROUPED)
    kept = target.with_name(f".{target.stem[:40]}-{key}.part")
    kept.mkdir()
    (kept / "000000000.npz").write_bytes(b"PK\3\4 and no more")
    assert load(folder).digest == whole


def test_another_process_at_work_is_waited_for_by_nobody(sided: Path, tmp_path: Path) -> None:
    from qvit.files import sole_user

    listing = list_folder(sided, group_by=PATTERN)
    (sided / "val" / "b" / "00.png").rename(sided / "val" / "b" / "x.png")
    with pytest.raises(DataError):
        import_pictures(listing, tmp_path / "out.npz", size=5, options=GROUPED)
    [kept] = tmp_path.glob(".import-*.part")
    assert kept.stat().st_mode & 0o777 == 0o700, "nobody else reads what patients are called"
    with sole_user(kept), pytest.raises(RunError, match="is in use by another process; wait for it"):
        import_pictures(listing, tmp_path / "out.npz", size=5, options=GROUPED)


def test_a_refused_import_goes_on_with_other_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    folder = class_folder(tmp_path / "x", {"a": 12, "b": 12})
    picture(folder / "b" / "11.png", mode="L")
    assert "Choose --channels grey or rgb" in refusal(folder)
    read: list[str] = []

    def count(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return read_pictures(path, **options)

    monkeypatch.setattr(blocks, "read_pictures", count)
    load(folder, channels="grey", max_bad=1, group_by=".*", split_seed=5)
    assert read == []
    load(folder, channels="grey", fit="pad")
    assert len(read) == 24
    for changed in range(2):
        picture(folder / "a" / "00.png", 77 + changed, size=(30, 30))
        picture(folder / "b" / "11.png", mode="RGB" if changed else "L")
        if not changed:
            refusal(folder)
            read.clear()
    load(folder)
    assert sorted({*read}) == [f"{place:02}.png" for place in range(12)]
    assert len(read) == 16, "two blocks of eight"


def test_what_was_left_long_ago_is_forgotten(sided: Path, tmp_path: Path) -> None:
    from qvit.files import sole_user

    old, new, used = (tmp_path / f".import-{name}.part" for name in ("old", "new", "used"))
    for place in (old, new, used):
        place.mkdir()
        (place / "x.npz").write_bytes(b"-")
    long_ago = time.time() - importing.FORGOTTEN - 60
    for place in (old, used):
        os.utime(place, (long_ago, long_ago))
    with sole_user(used):
        import_pictures(list_folder(sided, group_by=PATTERN), tmp_path / "out.npz", size=5, options=GROUPED)
    assert [place.exists() for place in (old, new, used)] == [False, True, True]


def test_groups_that_stand_in_several_given_splits(sided: Path) -> None:
    with pytest.warns(UserWarning, match="groups stand in several of the given splits") as caught:
        data = load(sided, group_by="[0-9]+")
    assert [str(warning.message) for warning in caught] == [
        f"{sided}: 2 of 3 groups stand in several of the given splits, such as that of train/a/00.png (train) and "
        "val/a/00.png (val) and test/a/00.png (test): a model will look better than it is. Leave the splits out to "
        "keep groups together."
    ]
    assert data.groups is not None


def test_too_few_groups_to_divide(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "x", {"a": 2, "b": 2})
    assert refusal(folder) == (
        "PLACE: expected at least 3 groups, one for each split, found 2. Group by something else; --group-by '.*' "
        "makes each file a group."
    )
    (folder / "b" / "00.png").unlink()
    (folder / "b" / "01.png").rename(folder / "b" / "00.png")
    (folder / "a" / "01.png").unlink()
    with pytest.warns(UserWarning, match="groups are not known"):
        assert "expected at least 3 pictures, one for each split, found 2. Add some." in refusal(folder, group_by=None)


def deep(path: Path, highest: int) -> None:
    values = np.random.default_rng(0).integers(0, highest, (6, 6), dtype=np.uint16)
    values[0, 0] = highest
    Image.fromarray(values).save(path)


def test_pictures_that_use_fewer_bits_than_they_are_stored_with(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "x", {"a": 6, "b": 6})
    for path in folder.rglob("*.png"):
        deep(path, 900)
    deep(folder / "a" / "00.png", 4095)
    dark = "use no value above 4095 of 65535, so that all are dark. If they have 12 bits, say so: --set bits=12 (in"
    with pytest.warns(UserWarning, match=re.escape(dark)):
        assert max(int(split.images.max()) for split in load(folder).splits.values()) < 16
    data = load(folder, bits=12)
    assert max(int(split.images.max()) for split in data.splits.values()) > 200
    deep(folder / "a" / "00.png", 4096)
    assert "expected whole numbers from 0 to 4095, found" in refusal(folder, bits=12)
    with pytest.warns(UserWarning, match="no value above 4096 of 65535"):
        load(folder)
    deep(folder / "a" / "00.png", 1 << 14)
    load(folder)


def test_files_that_are_no_pictures_are_counted(sided: Path) -> None:
    for name in ("x.jp2", "y.jp2", "z.heic"):
        (sided / "test" / "a" / name).write_bytes(b"-")
    with pytest.warns(UserWarning, match="are no pictures") as caught:
        load(sided)
    assert [str(warning.message) for warning in caught] == [
        f"{sided}: files of these kinds are no pictures that can be read, and were left out: 2 .jp2, 1 .heic."
    ]


def test_nothing_private_is_kept(tmp_path: Path) -> None:
    """Neither absolute paths nor the names of groups, not even where files are named after them."""
    for number, side in enumerate(("train", "val", "test")):
        for name in ("Erika Muster", "Max Muster"):
            picture(tmp_path / "x" / side / "ab"[name[0] == "M"] / f"{name} {number}.png", number)
    with pytest.warns(UserWarning, match="2 of 2 groups stand in several"):
        data = load(tmp_path / "x", group_by="(Erika|Max) Muster")
    assert data.path is not None
    raw = data.path.read_bytes()
    text = raw.decode("utf-32-le", errors="ignore") + raw.decode("latin-1")
    names = np.load(data.path)["train_sources"].tolist()
    assert not any(name in text for name in ("Erika", "Max ", str(tmp_path)))
    assert not any("Erika" in name or "Max" in name or name.startswith("/") for name in names)
    assert [name.count("/") for name in names] == [2, 2]
    assert data.groups is not None
    with pytest.warns(UserWarning, match="2 of 2 groups stand in several"):
        again = load(tmp_path / "x", group_by="(Erika|Max) Muster", max_bad=1).groups
    assert again is not None
    assert again["train"].tolist() != data.groups["train"].tolist(), "each import has its salt"


def test_frames_of_a_file_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = class_folder(tmp_path / "x", {"a": 6, "b": 6})

    def several(path: Path, *, frames: str, bits: int) -> Any:
        [one] = read_pictures(path)
        return [one] * (3 if frames == "all" else 1)

    monkeypatch.setattr(blocks, "read_pictures", several)
    with pytest.warns(UserWarning, match="as groups are not known"):
        data = load(folder, frames="all", group_by=None)
    assert sum(map(len, data.splits.values())) == 36
    assert data.path is not None
    with np.load(data.path) as found:
        counts = [np.unique(found[f"{side}_sources"], return_counts=True) for side in data.splits]
    assert sorted(file for files, _ in counts for file in files) == [f"{c}/0{n}.png" for c in "ab" for n in range(6)]
    assert all((count == 3).all() for _, count in counts)
    assert data.groups is None, "that frames belong together says nothing of patients"


def test_patients_and_warnings_of_files_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    folder = class_folder(tmp_path / "x", {"a": 6, "b": 6})

    def told(path: Path, *, frames: str, bits: int) -> Any:
        return [replace(one, group=path.stem, warnings=("text is burnt in",)) for one in read_pictures(path)]

    monkeypatch.setattr(blocks, "read_pictures", told)
    with pytest.warns(UserWarning, match=r"x: 12 file\(s\): text is burnt in"):
        data = load(folder, group_by=None)
    assert data.groups is not None
    sides = [set(groups.tolist()) for groups in data.groups.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_files_without_a_patient_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    folder = class_folder(tmp_path / "x", {"a": 6, "b": 6})

    def told(path: Path, *, frames: str, bits: int) -> Any:
        return [replace(one, group=None if path.stem == "03" else f"P{path.stem}") for one in read_pictures(path)]

    monkeypatch.setattr(blocks, "read_pictures", told)
    with pytest.warns(
        UserWarning, match=r"2 of 12 files name no patient \(PatientID\): each counts as a patient of its"
    ):
        data = load(folder, group_by=None)
    assert data.groups is not None
    sides = [set(groups.tolist()) for groups in data.groups.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 7


def test_pictures_of_a_table_that_lie_elsewhere(tmp_path: Path) -> None:
    for place in range(12):
        picture(tmp_path / "john" / f"{place}.png", place)
    rows = [f"{tmp_path}/john/{place}.png,{'xy'[place % 2]},{place // 2}" for place in range(12)]
    data = load(table(tmp_path / "t" / "t.csv", "path,label,patient", rows), group_by="patient")
    assert data.path is not None
    with np.load(data.path) as found:
        sources = [name for side in data.splits for name in found[f"{side}_sources"].tolist()]
    assert len(sources) == 12
    assert not any("john" in name or "/" in name for name in sources)


def test_an_error_that_is_not_of_a_picture_is_not_hidden(sided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **_: Any) -> Any:
        raise ZeroDivisionError(path.name)

    monkeypatch.setattr(blocks, "read_pictures", fail)
    with pytest.raises(ZeroDivisionError):
        load(sided)


def test_a_disk_that_is_full(sided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing.Packer, "add_split", full)
    assert "No space left on device. Nothing was lost" in refusal(sided)


def test_progress_is_told(sided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    told: list[tuple[int, int]] = []
    import_pictures(
        list_folder(sided, group_by=PATTERN),
        tmp_path / "out.npz",
        size=5,
        options=GROUPED,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(8, 12), (12, 12)]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert importing.shown_on_terminal("cells") is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show = importing.shown_on_terminal("cells")
    assert show is not None
    show(1000, 2000)
    show(2000, 2000)
    assert capsys.readouterr().err == "\rcells: 1,000 of 2,000 pictures\rcells: 2,000 of 2,000 pictures\n"


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a file more": lambda folder: picture(folder / "train" / "a" / "x.png", 50),
    "a file less": lambda folder: (folder / "train" / "b" / "00.png").unlink(),
    "a file of another size": lambda folder: picture(folder / "train" / "a" / "00.png", 0, size=(30, 30)),
    "a file renamed": lambda folder: (folder / "val" / "a" / "00.png").rename(folder / "val" / "a" / "y.png"),
    "a class renamed": lambda folder: [(folder / s / "a").rename(folder / s / "c") for s in ("train", "val", "test")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_keys_tell_imports_apart(sided: Path, change: str) -> None:
    def key() -> str:
        listing = list_folder(sided)
        return key_of(listing, stamps_of(listing), size=5, options=ImportOptions())

    before = key()
    assert key() == before
    CHANGES[change](sided)
    assert key() != before


def test_a_picture_error_names_no_path() -> None:
    with pytest.raises(PictureError) as caught:
        read_pictures(Path(__file__))
    assert __file__ not in str(caught.value)
    json.dumps(str(caught.value))
