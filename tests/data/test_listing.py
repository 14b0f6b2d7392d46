"""Folders of pictures: which files count, how classes are numbered, and what is refused."""

import os
import sys
from pathlib import Path

import pytest

from data.picture_folders import class_folder, picture
from qvit.data.listing import (
    DEEPEST,
    LONGEST_NAME,
    LONGEST_PATTERN,
    MOST_CLASSES,
    check_classes,
    compile_pattern,
    list_folder,
    natural,
    side_of,
)
from qvit.errors import ConfigError, DataError


def refusal(folder: Path, **options: str) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        list_folder(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


def test_classes_are_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    class_folder(tmp_path, {"grade 10": 1, "grade 9": 2, "Zero": 1, "apple": 1})
    found = list_folder(tmp_path)
    assert found.classes == ("apple", "grade 9", "grade 10", "Zero"), "letters without case, numbers by value"
    assert found.files == ("apple/00.png", "grade 9/00.png", "grade 9/01.png", "grade 10/00.png", "Zero/00.png")
    assert found.labels.tolist() == [[0], [1], [1], [2], [3]]
    assert (found.sides, found.groups, found.folder, found.multi_label) == (None, None, tmp_path, False)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST"), ("trn", "dev", "testing")])
def test_folders_of_sides_are_known_by_several_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name in names:
        class_folder(tmp_path / name, {"b": 1, "a": 1})
    found = list_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert set(zip(found.files, found.sides or (), strict=True)) == {
        (f"{name}/{label}/00.png", side)
        for name, side in zip(names, ("train", "val", "test"), strict=True)
        for label in "ab"
    }


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    class_folder(tmp_path, {"control": 1, "test": 1})
    assert list_folder(tmp_path).classes == ("control", "test")
    assert list_folder(tmp_path).sides is None


def test_only_pictures_count_at_any_depth(tmp_path: Path) -> None:
    class_folder(tmp_path, {"a": 1, "b": 1})
    picture(tmp_path / "a" / "ward 3" / "bed" / "x.JPG")
    for name in (".hidden.png", "notes.txt", "Thumbs.db", "__MACOSX/y.png", ".git/z.png"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"-")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "b" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b" / "1.2.840.113").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b" / "LICENCE").write_bytes(b"do what you like")
    (tmp_path / "empty").mkdir()
    found = list_folder(tmp_path)
    assert found.files == ("a/00.png", "a/ward 3/bed/x.JPG", "b/00.png", "b/1.2.840.113", "b/IM0001")
    assert found.classes == ("a", "b")


def test_groups_are_read_from_paths(tmp_path: Path) -> None:
    for name in ("a/p1_left.png", "a/p1_right.png", "b/p2_left.png"):
        picture(tmp_path / name)
    assert list_folder(tmp_path, group_by="p[0-9]+").groups == ("p1", "p1", "p2")
    assert list_folder(tmp_path, group_by="p([0-9]+)_(?:left|right)").groups == ("1", "1", "2")
    assert refusal(tmp_path, group_by="left") == (
        "FOLDER: expected a group in each file's name ('left'), found none in a/p1_right.png. "
        "Change the pattern of group_by, or the file's name."
    )
    assert "found none in a/p1_left.png" in refusal(tmp_path, group_by="x*"), "an empty match is no group"
    assert refusal(tmp_path, group_by="p([0-9").startswith("group_by='p([0-9' is no regular expression (")
    assert refusal(tmp_path, group_by="p" * (LONGEST_PATTERN + 1)) == (
        f"Expected a pattern of at most {LONGEST_PATTERN} characters in group_by, got {LONGEST_PATTERN + 1}."
    )
    assert compile_pattern("p" * LONGEST_PATTERN)


LAYOUT = "Put the pictures of each class into a folder of its own: FOLDER/CLASS/picture.png."


def test_layouts_that_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty) == (
        f"FOLDER: expected a folder of pictures, found no .png or .jpg or .jpeg in it, nor a folder. {LAYOUT}"
    )
    (empty / "inner").mkdir()
    assert refusal(empty) == f"FOLDER: expected a folder of pictures, found no .png or .jpg or .jpeg in it. {LAYOUT}"
    flat = tmp_path / "flat"
    picture(flat / "x.png")
    told = "FOLDER: expected pictures in folders named after their classes, found x.png outside. "
    assert refusal(flat) == told + LAYOUT
    class_folder(flat, {"a": 1, "b": 1})
    assert refusal(flat) == told + LAYOUT
    one = class_folder(tmp_path / "one", {"only": 2})
    assert refusal(one) == (
        "FOLDER: expected at least two classes, found only 'only'. Nothing can be learnt from one class: name "
        "what tells the pictures apart."
    )
    stray = tmp_path / "stray"
    for side in ("train", "test"):
        class_folder(stray / side, {"a": 1, "b": 1})
    picture(stray / "test" / "y.png")
    assert refusal(stray) == told.replace("x.png", "test/y.png") + LAYOUT


def test_sides_that_are_missing_are_named(tmp_path: Path) -> None:
    for side in ("train", "val"):
        class_folder(tmp_path / side, {"a": 1, "b": 1})
    assert refusal(tmp_path) == (
        "FOLDER: expected pictures in test, found some in train, val. Without folders train, val and test, pictures in "
        "FOLDER/CLASS are split at random."
    )


def test_too_many_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.data.listing.MOST_CLASSES", 2)
    assert MOST_CLASSES > 2
    class_folder(tmp_path, {"a": 1, "b": 1})
    assert len(list_folder(tmp_path).classes) == 2
    class_folder(tmp_path, {"c": 1})
    assert refusal(tmp_path) == ("FOLDER: expected at most 2 classes, found 3. Check that these are classes.")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    class_folder(tmp_path / "real", {"a": 1, "b": 1})
    (tmp_path / "linked").mkdir()
    for name in "ab":
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name, target_is_directory=True)
    assert list_folder(tmp_path / "linked").files == ("a/00.png", "b/00.png")
    (tmp_path / "real" / "a" / "again").symlink_to(tmp_path / "real" / "a", target_is_directory=True)
    assert refusal(tmp_path / "real") == (
        "FOLDER: expected folders that do not hold themselves, found a/again, which is a link to a folder above it. "
        "Remove that link."
    )
    (tmp_path / "real" / "a" / "again").unlink()
    (tmp_path / "real" / "a" / "itself.png").symlink_to("itself.png")
    assert list_folder(tmp_path / "real").files == ("a/00.png", "a/itself.png", "b/00.png"), "reading it tells more"


def test_folders_too_deep_to_be_meant(tmp_path: Path) -> None:
    class_folder(tmp_path, {"a": 1, "b": 1})
    deepest = tmp_path.joinpath("a", *"x" * (DEEPEST - 1))
    deepest.mkdir(parents=True)
    list_folder(tmp_path)
    (deepest / "x").mkdir()
    assert refusal(tmp_path).startswith(f"FOLDER: expected at most {DEEPEST} folders within one another, found a/x/x")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a name cannot be made")
@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"\xff.png", "bytes that are no UTF-8 in '\\udcff.png'"),
        (b"line\nbreak.png", "the character '\\n' in 'line\\nbreak.png'"),
    ],
)
def test_names_that_cannot_be_written_down(tmp_path: Path, name: bytes, found: str) -> None:
    class_folder(tmp_path, {"a": 1, "b": 1})
    (Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/" + name))).write_bytes(b"-")
    assert refusal(tmp_path) == (
        f"FOLDER: expected names that can be written down, found {found}. Rename that file or folder."
    )


def test_names_of_classes_are_checked_before_pictures_are_read(tmp_path: Path) -> None:
    check_classes(tmp_path, ["no\u00a0break", "\u0645\u06cc\u200c\u0634", "x" * LONGEST_NAME])
    for name, found in (
        ("a\tb", "the character '\\t' in ''a\\tb''"),
        ("x" * (LONGEST_NAME + 1), "1001 characters in 'x"),
    ):
        with pytest.raises(DataError) as told:
            check_classes(tmp_path, ["a", name])
        assert f"expected names of classes on one line, of at most 1000 characters, found {found}" in str(told.value)
        assert str(told.value).endswith("Rename that class.")


def test_a_folder_beside_the_splits_makes_no_classes_of_them(tmp_path: Path) -> None:
    for side in ("train", "test"):
        class_folder(tmp_path / side, {"a": 1, "b": 1})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run.jpeg.txt").write_text("-")
    found = list_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.sides == ("test", "train", "test", "train")
    picture(tmp_path / "chest_xray" / "train" / "a" / "00.png")
    assert refusal(tmp_path) == (
        "FOLDER: expected pictures in train, val and test, found pictures in 'chest_xray' beside them. "
        "Move that folder elsewhere."
    )


def test_one_name_of_a_split_is_a_class_among_others(tmp_path: Path) -> None:
    class_folder(tmp_path, {"test": 1, "control": 1})
    found = list_folder(tmp_path)
    assert (found.classes, found.sides) == (("control", "test"), None)


def test_files_that_are_no_pictures_are_counted(tmp_path: Path) -> None:
    class_folder(tmp_path, {"a": 1, "b": 1})
    for name in ("a/x.jp2", "a/inner/y.JP2", "b/z.heic", "b/notes.txt", "b/Thumbs.db", "b/.hidden.jp2", "b/nothing"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    assert list_folder(tmp_path).left_out == ((".jp2", 2), (".heic", 1))


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folder(tmp_path, {"a": 1, "b": 1})
    real = os.scandir

    def scandir(place: Path) -> object:
        if Path(place).name == "b":
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert refusal(tmp_path) == (
        "FOLDER: expected a folder that can be read, found b: Permission denied. Check its owner and permissions."
    )


def test_names_sort_as_people_sort_them() -> None:
    names = ["B2", "a10", "a9", "a09", "", "b1", "10", "9"]
    assert sorted(names, key=natural) == ["", "9", "10", "a09", "a9", "a10", "b1", "B2"]
    assert natural("²")[0][0] == 0, "a digit that is no number to int() is a letter"
    assert (side_of(" Val "), side_of("validate")) == ("val", None)
