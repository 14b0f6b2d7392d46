"""Where runs find their data."""

import json
from pathlib import Path

import pytest

from qvit.data.registry import is_path
from qvit.training import places
from qvit.training.places import located, recorded, remember, remembered, with_places


@pytest.mark.parametrize("inside", ["cells.npz", "data/cells", "../cells", "../../far/away/cells.csv", "run"])
def test_what_is_recorded_is_located(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "a" / "b" / "run"
    place = (folder / inside).resolve()
    told = recorded(place, folder)
    assert str(tmp_path) not in told
    assert is_path(told), "never read as the name of an official dataset"
    assert located(told, folder) == place


def test_moved_together_it_is_found(tmp_path: Path) -> None:
    told = recorded(tmp_path / "here" / "data.npz", tmp_path / "here" / "runs" / "1")
    assert told == "../../data.npz"
    assert located(told, tmp_path / "there" / "runs" / "1") == tmp_path / "there" / "data.npz"
    assert located("/absolute/data.npz", tmp_path) == Path("/absolute/data.npz")


@pytest.mark.parametrize("home", ["home/alice", "home/alice/ward"])
def test_no_path_leads_through_the_homes_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / home))
    assert recorded(tmp_path / "home" / "alice" / "ward" / "cells", tmp_path / "srv" / "run") == "./cells"
    assert recorded(tmp_path / "data" / "x.npz", tmp_path / "srv" / "run") == "x.npz"
    assert recorded(tmp_path / home / "cells", tmp_path / home / "run") == "../cells", "below the home"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "runs", target_is_directory=True)
    told = recorded(tmp_path / "real" / "x.npz", tmp_path / "link" / "1")
    assert told == "../../x.npz"
    assert located(told, tmp_path / "link" / "1") == tmp_path / "real" / "x.npz"


def test_each_place_of_a_configuration_is_changed() -> None:
    config = {
        "dataset": "../a.npz",
        "seed": 1,
        "origin": {"weights": "w", "found_at": "../o"},
        "guide": {"teacher": {"found_at": ["t", "u"], "dataset": "../b"}, "list": [{"found_at": "v"}, 3]},
    }
    assert with_places(config, lambda place: f"<{place}>") == {
        "dataset": "<../a.npz>",
        "seed": 1,
        "origin": {"weights": "w", "found_at": "<../o>"},
        "guide": {"teacher": {"found_at": ["<t>", "<u>"], "dataset": "<../b>"}, "list": [{"found_at": "<v>"}, 3]},
    }
    assert with_places({"dataset": "breastmnist"}, lambda place: "changed") == {"dataset": "breastmnist"}


def test_the_last_place_is_remembered_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "user_cache", lambda: tmp_path / "cache")
    assert remembered("d") == []
    for name in ("one", "two", "one"):
        remember("d", tmp_path / name)
    assert remembered("d") == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert remembered("e") == []
    monkeypatch.setattr(places, "MOST_PLACES", 2)
    remember("d", tmp_path / "three")
    assert remembered("d") == [str(tmp_path / "three"), str(tmp_path / "one")]


def test_notes_that_cannot_be_used_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "user_cache", lambda: tmp_path / "cache")
    remember("d", tmp_path)
    [note] = (tmp_path / "cache" / "places").iterdir()
    for damage in ("", "{", json.dumps({"a": 1}), json.dumps([1, None])):
        note.write_text(damage)
        assert remembered("d") == []
    monkeypatch.setattr(places, "user_cache", lambda: note)  # a file, in which no folder can be made
    remember("d", tmp_path)
    assert remembered("d") == []
