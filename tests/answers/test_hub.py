"""Runs on a hub: what is sent and what is not, the same answers after loading, and each refusal in one line."""

import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import are_progress_bars_disabled

from answers.conftest import copied, images, pictures
from answers.fake_hub import Hub, served
from qvit.answers import hub as module
from qvit.answers.card import card
from qvit.answers.choosing import calibrated
from qvit.answers.evidence import ARRAYS, RECORD
from qvit.answers.hub import FILES, HubWarning, bare, folder_of, push
from qvit.answers.members import ask_files_of, key_of
from qvit.answers.predictor import CalibrationWarning, load
from qvit.errors import ConfigError, QvitError, RunError
from qvit.training.folder import Run

pytestmark = pytest.mark.long
GIVEN = images(np.array([0, 1, 2]), seed=9)
NAME = "hf://anna/cells"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with served(tmp_path / "home", monkeypatch) as found:
        yield found


@pytest.fixture
def kept(run: Run) -> Run:
    """A run whose folder keeps what calibrates its answers."""
    calibrated(run.folder)
    return run


@pytest.mark.parametrize("large", [set(), {"model.safetensors", ARRAYS}])
def test_a_pushed_run_answers_as_it_did(kept: Run, hub: Hub, tmp_path: Path, large: set[str]) -> None:
    paths = pictures(tmp_path / "new", 3)
    model = load(kept.folder)
    expected = model.predict(GIVEN), model.predict(paths), card(kept)
    hub.large = large
    done = push(kept, "anna/cells")
    assert (done.name, done.address, done.private) == (NAME, f"{hub.endpoint}/anna/cells", True)
    assert done.commit == hub.repositories["anna/cells"].branches["main"]
    assert set(done.files) == {*FILES, "README.md"}
    assert set(hub.objects.values()) == {hub.files("anna/cells")[name] for name in large}
    shutil.rmtree(kept.folder.parent)  # data and all
    found = load(NAME)
    assert found.title == NAME
    assert (found.predict(GIVEN), found.predict(paths), card(found.members[0].run)) == expected
    hub.refuse = 500, "gone"  # other processes open the copy, and ask no hub
    there = ask_files_of(key_of(found.members), tmp_path, 0, [(str(path), None) for path in paths]).asked
    assert there is not None
    assert there.scores.shape == (3, 3)


def test_nothing_else_is_sent(kept: Run, hub: Hub, tmp_path: Path) -> None:
    path = kept.folder / "config.json"
    said = json.loads(path.read_text())
    members = [str(tmp_path / "teachers" / "one"), "../../two"]
    guide = {"name": "t", "found_at": members, "data": {"dataset": str(tmp_path / "more.npz")}}
    origin = {"weights": "w", "found_at": f"{tmp_path}/first/"}
    path.write_text(json.dumps(said | {"dataset": str(tmp_path / "mine.npz"), "guide": guide, "origin": origin}))
    (kept.folder / "README.md").write_text("not this one")
    (kept.folder / "notes.txt").write_text("secret")
    push(Run(kept.folder), "anna/cells")
    found = hub.files("anna/cells")
    assert found.keys() == {*FILES, "README.md"}
    for name in set(FILES) - {"config.json"}:
        assert found[name] == (kept.folder / name).read_bytes(), name
    assert found["README.md"].decode() == card(Run(kept.folder), place=NAME)
    config = json.loads(found["config.json"])
    assert config["dataset"] == "./mine.npz"
    assert config["guide"] == guide | {"found_at": ["./one", "./two"], "data": {"dataset": "./more.npz"}}
    assert config["origin"]["found_at"] == "./first"
    assert config | {"dataset": 0, "guide": 0, "origin": 0} == said | {"dataset": 0, "guide": 0, "origin": 0}
    sent = b"\n".join(hub.received)
    assert found["result.json"] in sent, "so that what is looked for could be found"
    for private in (str(tmp_path), str(Path.home()), os.uname().nodename, "secret", "not this one"):
        assert private.encode() not in sent


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/home/anna/cells.npz", "./cells.npz"),
        ("../cells/", "./cells"),
        ("./cells.csv", "./cells.csv"),
        ("..", "./data"),
        ("/", "./data"),
        ("./..", "./data"),
    ],
)
def test_of_a_place_the_last_name_is_told(place: str, told: str) -> None:
    assert bare(place) == bare(told) == told


def test_a_new_repository_is_private_unless_told_otherwise(run: Run, hub: Hub) -> None:
    assert push(run, "anna/cells").private is True
    assert push(run, "anna/cells", public=True).private is True, "it stays as it is"
    assert push(run, "open", public=True).name == "hf://anna/open"
    with pytest.raises(
        RunError, match=r"^anna/open is public: everyone would see what is pushed, .* Push with --public"
    ):
        push(run, "anna/open")
    assert {name: found.private for name, found in hub.repositories.items()} == {
        "anna/cells": True,
        "anna/open": False,
    }
    assert push(run, "anna/open", public=True).private is False


def test_what_is_pushed_again_is_one_more_commit(kept: Run, hub: Hub, trained: Callable[..., Path]) -> None:
    first = push(kept, "anna/cells", message="the first")
    assert push(kept, "anna/cells") == first, "nothing has changed"
    there = hub.repositories["anna/cells"]
    assert there.messages[1:] == ["the first"]
    shutil.copy(trained(seed=1) / "model.safetensors", kept.folder)
    second = push(Run(kept.folder), "anna/cells")
    assert (first.calibrated, second.calibrated) == (True, False)
    assert len(there.messages) == 3
    assert there.messages[-1].startswith("vit_4q1h, by qvit ")
    assert hub.files("anna/cells").keys() == {*FILES, "README.md"} - {RECORD, ARRAYS}, "those were of other weights"


def test_branches(run: Run, hub: Hub, trained: Callable[..., Path]) -> None:
    push(run, "anna/cells")
    shutil.copy(trained(seed=1) / "model.safetensors", run.folder)
    for _ in range(2):
        done = push(run, "anna/cells", revision="two")
    assert (done.name, done.address) == (f"{NAME}@two", f"{hub.endpoint}/anna/cells/tree/two")
    assert f'qvit.load("{NAME}@two")' in hub.files("anna/cells", "two")["README.md"].decode()
    one, two = folder_of(NAME), folder_of(f"{NAME}@two")
    assert folder_of(Path(f"{NAME}@two")) == folder_of(f"{NAME}@{done.commit}") == two
    assert (two / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match=r"^hf://anna/cells@three: .* answered 404 \(Invalid rev id\)\. Check the name"):
        folder_of(f"{NAME}@three")


def test_a_run_that_was_not_calibrated(run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.training.folder.remembered", lambda _: [])
    assert push(run, "anna/cells").calibrated is False
    shutil.move(run.folder.parent / "squares.npz", tmp_path / "elsewhere.npz")
    with pytest.warns(CalibrationWarning, match="^Not calibrated"):
        before = load(NAME).predict(GIVEN)
    found = load(NAME, data=tmp_path / "elsewhere.npz")
    assert len(found.calibration.notes) == 0
    assert before[0].unlike is None
    assert found.predict(GIVEN)[0].unlike is not None
    assert load(NAME).predict(GIVEN) == found.predict(GIVEN), "the copy keeps that"
    push(Run(folder_of(NAME)), "anna/again")
    assert load("hf://anna/again").predict(GIVEN) == found.predict(GIVEN)


def test_an_ensemble_of_runs_here_and_there(kept: Run, hub: Hub, trained: Callable[..., Path], tmp_path: Path) -> None:
    other = copied(trained(seed=1), tmp_path / "other")
    expected = load([kept.folder, other.folder]).predict(GIVEN)
    push(kept, "anna/cells")
    assert load([NAME, other.folder]).predict(GIVEN) == expected


def test_a_path_is_a_path(run: Run, hub: Hub) -> None:
    assert folder_of(run.folder) == folder_of(str(run.folder)) == run.folder
    assert folder_of("hf") == Path("hf")
    assert hub.asked == []


def test_without_a_connection_the_copy_is_used(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "anna/cells")
    folder = folder_of(NAME)
    hub.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert folder_of(NAME) == folder
        with pytest.raises(RunError, match=r"^hf://anna/none: .* cannot be reached.*offline mode is enabled"):
            folder_of("hf://anna/none")
        with pytest.raises(RunError, match=r"^hf://anna/cells: .* cannot be reached.*offline mode is enabled"):
            push(run, "anna/cells")
    assert hub.asked == []
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", nowhere)
        with pytest.warns(HubWarning, match=rf"^{nowhere} cannot be reached: the copy of {NAME} is used\.$"):
            assert folder_of(NAME) == folder
        with pytest.raises(RunError, match=rf"{nowhere} cannot be reached.*ConnectError.*Check the connection and HF_"):
            push(run, "anna/cells")


ASKED: dict[str, Callable[[Run], object]] = {
    "push": lambda run: push(run, "anna/cells"),
    "load": lambda _: load(NAME),
}


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, "Who?"), "answered 401 (Who?). Log in with `hf auth login`, or set HF_TOKEN. Check the name, too: "),
        ((403, "Not you."), "answered 403 (Not you). Its owner must allow that to your token, or choose another repo"),
        ((404, "None"), "answered 404 (None). Check the name and the revision, and whether your token may see them."),
        ((500, ""), "answered 500 (Internal Server Error). Try again later."),
        ((429, "many " * 99), f"answered 429 ({'many ' * 39}[...]). Try again later."),
        ((200, "a page"), "cannot be reached, or is no hub (JSONDecodeError: "),
        ((200, "[]"), "cannot be reached, or is no hub (TypeError: "),
    ],
)
def test_what_a_hub_refuses(run: Run, hub: Hub, ask: str, answer: tuple[int, str], told: str) -> None:
    hub.refuse = answer
    with pytest.raises(RunError) as raised:
        ASKED[ask](run)
    assert str(raised.value).startswith(f"{NAME}: {hub.endpoint} {told}")


def test_a_file_that_is_refused(run: Run, hub: Hub) -> None:
    hub.large = {"model.safetensors"}
    hub.refuse, hub.below = (403, "The storage is full."), "/objects/"
    with pytest.raises(
        RunError, match=r"^hf://anna/cells: .* answered 403 \(The storage is full\)\. Its owner must all"
    ):
        push(run, "anna/cells")
    assert hub.files("anna/cells") == {}


@pytest.mark.parametrize("ask", ASKED)
def test_a_hub_that_does_not_answer(run: Run, hub: Hub, ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    hub.wait = 0.1
    with pytest.raises(RunError, match=r"cannot be reached, or is no hub \(ReadTimeout: "):
        ASKED[ask](run)


def test_who_may_do_what(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "anna/cells")
    push(run, "anna/open", public=True)
    with pytest.raises(
        RunError, match=r"^hf://bert/cells: .* answered 403 \(anna may not create in bert\)\. Its owner"
    ):
        push(run, "bert/cells")
    monkeypatch.setenv("HF_TOKEN", "hf_bert")
    with pytest.raises(
        RunError, match=r"^hf://anna/open: .* answered 403 \(bert may not write to anna/open\)\. Its ow"
    ):
        push(run, "anna/open", public=True)
    with pytest.raises(RunError, match=r"^hf://anna/cells: .* answered 404 \(Repository not found\)\. Check the name"):
        folder_of(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(RunError, match=r" answered 401 \(Unauthorized\)\. Log in with `hf auth login`, or set HF_TOK"):
        push(run, "cells")
    monkeypatch.delenv("HF_TOKEN")
    assert folder_of("hf://anna/open").is_dir()
    hub.asked.clear()
    with pytest.raises(RunError, match=r"^A push needs a token, and none was found\. Log in with `hf auth login`, or"):
        push(run, "anna/open")
    assert hub.asked == []


def test_a_run_is_checked_before_anything_is_contacted(kept: Run, hub: Hub) -> None:
    def refused(told: str, name: str, content: bytes | None) -> None:
        path = kept.folder / name
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(RunError, match=told):
            push(Run(kept.folder), "anna/cells")
        path.write_bytes(before)

    weights = (kept.folder / "model.safetensors").read_bytes()
    refused("is not finished; go on with", "result.json", None)
    refused("model.safetensors cannot be read", "model.safetensors", weights[:-9])
    refused("calibration.json is damaged", RECORD, b"{")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "hf:", "x" * 97, "../a", "a//b"])
def test_names_that_no_repository_has(run: Run, hub: Hub, name: str) -> None:
    told = r"^Expected a repository owner/name, got '.*'\. .*\.$"
    with pytest.raises(ConfigError, match=told):
        push(run, name)
    if not name.startswith("hf:"):
        with pytest.raises(ConfigError, match=told):
            folder_of(f"hf://{name}")
    assert hub.asked == []


def test_the_library_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, name, None)
    for ask in ASKED.values():
        with pytest.raises(
            ConfigError, match=r"^Hubs need huggingface_hub, .* not installed: pip install 'qvit\[hub\]'"
        ):
            ask(run)
    assert load(run.folder).predict(GIVEN)


def test_repositories_that_hold_no_run(run: Run, hub: Hub) -> None:
    push(run, "anna/cells")
    there = hub.repositories["anna/cells"]
    files = hub.files("anna/cells")

    def refused(told: str, **changed: bytes) -> None:
        there.commit("main", {name: changed.get(name.partition(".")[0], files[name]) for name in files}, told)
        with pytest.raises(QvitError, match=told):
            load(NAME)

    config = json.loads(files["config.json"])
    for place in ("../squares.npz", "/etc/passwd", "./..", "a/../../b"):
        changed = json.dumps(config | {"dataset": place}).encode()
        refused(
            r"^Expected a run that `qvit push` made, but config\.json of hf://anna/cells says where", config=changed
        )
    refused(r"config\.json is damaged", config=b"[]")
    refused(r"result\.json is damaged", result=b"{}")
    refused(r"model\.safetensors cannot be read", model=b"\x80\x02}q\x00.")
    del files["result.json"]
    refused(r"^hf://anna/cells is not a run of qvit: result\.json is missing\. Name a repository that `qvit push` made")
    push(run, "anna/large")
    hub.sizes = {"model.safetensors": 3 << 30}
    hub.asked.clear()
    with pytest.raises(
        RunError, match=r"^Expected at most 2,147,483,648 bytes in the files of hf.*, found 3,22\d,.* If "
    ):
        folder_of("hf://anna/large")
    assert hub.asked == ["GET /api/models/anna/large"]


def test_a_disk_that_is_full(run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    push(run, "anna/cells")
    monkeypatch.setattr(HfApi, "snapshot_download", full)
    with pytest.raises(RunError, match=r"^Cannot keep a copy of hf://anna/cells: No space left on device\. Free some"):
        folder_of(NAME)

    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(HfApi, "snapshot_download", none_left)
    with pytest.raises(MemoryError):
        folder_of(NAME)


def test_the_library_says_nothing_and_is_left_as_it_was(run: Run, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("huggingface_hub")
    before = logger.level, are_progress_bars_disabled()
    push(run, "anna/cells")
    push(run, "anna/cells")
    folder_of(NAME)
    assert capfd.readouterr() == ("", "")
    assert (logger.level, are_progress_bars_disabled()) == before == (logging.WARNING, False)


def test_a_run_that_changes_while_it_is_downloaded(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, "anna/cells")
    monkeypatch.setattr("huggingface_hub.HfApi.snapshot_download", lambda *_, **__: str(tmp_path / "0123"))
    with pytest.raises(RunError, match=r"^hf://anna/cells was changed while it was downloaded\. Try again\.$"):
        folder_of("hf://anna/cells")
