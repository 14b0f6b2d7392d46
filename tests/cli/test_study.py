"""`qvit study`: plans, runs, status and reports, and what is told meanwhile."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvit.cli.study import _duration
from qvit.report.page import Written
from qvit.study import store
from qvit.study.driver import StudyProgress
from qvit.study.reading import shipped_studies
from qvit.study.runner import Summary
from qvit.study.store import Store

pytestmark = pytest.mark.usefixtures("untrained")
Qvit = Callable[..., Any]


@pytest.mark.long
def test_study_list(qvit: Qvit, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped_studies() == ["controls", "paper", "scaling", "smoke"]
    # To work out the runs of the large ones takes seconds.
    monkeypatch.setattr("qvit.study.reading.shipped_studies", lambda: ["smoke", str(study)])
    rows = json.loads(qvit("study", "list", "--json").out)
    assert rows == [
        {"name": "smoke", "title": "Smoke test of a study", "runs": 37 + 3 * 5},
        {"name": "mine", "title": "Mine [bold]", "runs": 8},
    ]
    monkeypatch.setattr("qvit.study.reading.shipped_studies", lambda: [str(study)])
    told = qvit("study", "list")
    assert (told.code, told.err) == (0, "")
    heads, *lines = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert heads == ["name", "what it asks", "runs"]
    assert lines == [["mine", "Mine [bold]", "8"]]


@pytest.fixture
def study(npz: Path, tmp_path: Path) -> Path:
    """Two models, one of which cannot learn, and a dataset too many."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"title: Mine [bold]\ndatasets: [{npz.name}, phantom]\nseeds: 2\nbaselines: never\noptions: {{epochs: 1}}\n"
        "models: [vit_4q1h, {name: vit_4q1h, label: wild, options: {lr: 1.0e+30}}]\n"
    )
    return path


def test_study_plan(qvit: Qvit, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvit.study.estimate._time", lambda *_: (0.01, 0.0001))
    told = qvit("study", "plan", study, "--workers", 2)
    assert told.code == 0
    assert "mine: Mine [bold]" in told.out
    for row in (r"small: vit_4q1h *│ scratch *│ *2 │ *2 │", r"phantom: wild *│ scratch *│ *2 │ *2 │"):
        assert re.search(row, told.out)
    assert re.search(r"^8 runs, .* of computing: about .* by 2 workers here, and \d+ MB of disk\.$", told.err, re.M)
    assert "Estimated from steps of 2 kinds of models, as many at once as told." in told.err
    part = json.loads(qvit("study", "plan", study, "--dataset", "small", "--seeds", 1, "--json").out)
    assert (part["runs"], [row["dataset"] for row in part["rows"]]) == (2, ["small", "small"])


@pytest.mark.processes
@pytest.mark.slow("a study's workers are processes, and each imports torch anew")
def test_study_run_status_report(qvit: Qvit, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["study", "run", study, "--dataset", "small", "--seeds", 1, "--out", out, "--workers", 1]
    told = qvit(*command)
    assert told.code == 1, "one of two has failed"
    assert told.out == ""
    assert re.search(r"^\[\d/2\] small vit_4q1h scratch seed 0: test AUC 0\.\d{3}, ACC 0\.\d{3}", told.err, re.M)
    assert "1 of 2 runs are done, 1 of them now" in told.err
    assert f"Report: qvit study report {out}" in told.err
    assert re.search(r"^Failed: small wild scratch seed 0: .+", told.err, re.M)

    told = qvit("study", "status", out)
    assert told.code == 0
    assert "Mine [bold]" in told.out
    assert "Failed: small wild scratch seed 0: " in told.err
    read = json.loads(qvit("study", "status", out, "--json").out)
    assert list(read["errors"]) == ["small wild scratch seed 0"]
    assert {key: read[key] for key in ("title", "finished", "running", "waiting", "failed")} == {
        "title": "Mine [bold]",
        "finished": 1,
        "running": 0,
        "waiting": 0,
        "failed": 1,
    }

    told = qvit("study", "report", out)
    assert told.code == 0
    assert f"Report: {out / 'report' / 'report.html'}" in told.err
    assert "Mine [bold]" in (out / "report" / "report.html").read_text()
    read = json.loads(qvit("study", "report", out, "--out", tmp_path / "there", "--json").out)
    assert read == {"report": str(tmp_path / "there" / "report.html"), "answer": []}

    [run] = (out / "runs").glob("*/result.json")
    before = run.stat().st_mtime_ns
    good = ["study", "run", tmp_path / "good.yaml", "--out", out, "--json"]
    (tmp_path / "good.yaml").write_text(study.read_text().replace(", phantom]", "]").replace("seeds: 2", "seeds: 1"))
    (tmp_path / "good.yaml").write_text((tmp_path / "good.yaml").read_text().replace(", {name", "] #"))
    told = qvit(*good)
    assert (told.code, told.err) == (0, "")
    read = json.loads(told.out)
    assert (read["total"], read["finished"], read["done_now"], read["failed"]) == (1, 1, 0, {})
    assert run.stat().st_mtime_ns == before


def test_what_is_told_of_a_study(qvit: Qvit, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not done is no success, however it came to an end; and whoever waits says so."""

    def run_study(*_: Any, on_news: Any, on_wait: Callable[[str], None], **__: Any) -> Summary:
        on_wait("Waiting for it.")
        if on_news is not None:
            for finished, failed, left, news in ((0, 0, None, ""), (1, 0, 150, "one is done"), (1, 1, 9, "two failed")):
                on_news(StudyProgress(total=2, finished=finished, failed=failed, doing={}, left=left, news=news))
        return Summary(total=2, finished=1, done_now=1, failed={"wild": "not finite"}, seconds=75.0)

    monkeypatch.setattr("qvit.study.runner.run_study", run_study)
    monkeypatch.chdir(tmp_path)
    assert qvit("study", "run", study) == (
        1,
        "",
        "Waiting for it.\n"
        "[1/2] one is done, about 2 min left\n"
        "[2/2] two failed\n"
        "1 of 2 runs are done, 1 of them now, in 75 s. Report: qvit study report runs/study-mine\n"
        "Failed: wild: not finite\n",
    )
    told = qvit("study", "run", study, "--json")
    assert (told.code, told.err) == (1, "Waiting for it.\n")
    assert json.loads(told.out) == {
        "folder": "runs/study-mine",
        "total": 2,
        "finished": 1,
        "done_now": 1,
        "failed": {"wild": "not finite"},
        "seconds": 75.0,
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (5969, "99 min"),
        (5970, "1.7 h"),
        (36_000, "10.0 h"),
    ],
)
def test_times_as_people_say_them(seconds: float, said: str) -> None:
    assert _duration(seconds) == said


def test_status_of_a_study(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was planned twice is one."""
    made = [("a", "finished"), ("b", "waiting"), ("b", "waiting"), ("c", "failed"), ("d", "running"), ("e", "waiting")]
    jobs = [SimpleNamespace(identity=name, name=f"run {name}", status=how, error=f"{name} broke") for name, how in made]
    held = SimpleNamespace(jobs=lambda: jobs, get={"title": "Mine [bold]"}.get)
    monkeypatch.setattr("qvit.study.store.Store.read", lambda *_, **__: nullcontext(held))
    told = qvit("study", "status", tmp_path)
    assert (told.code, told.err) == (0, "Failed: run c: c broke\n")
    assert told.out.startswith("Mine [bold]")
    heads, row = [re.split(" *[│┃] *", line)[1:-1] for line in told.out.splitlines() if line[0] in "│┃"]
    assert dict(zip(heads, row, strict=True)) == {"finished": "1", "running": "1", "waiting": "2", "failed": "1"}
    assert json.loads(qvit("study", "status", tmp_path, "--json").out) == {
        "title": "Mine [bold]",
        "finished": 1,
        "running": 1,
        "waiting": 2,
        "failed": 1,
        "errors": {"run c": "c broke"},
    }


def test_report_of_a_study(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_report(_folder: Path, out: Path | None, *, on_news: Any, **_: Any) -> Written:
        if on_news is not None:
            on_news("Comparing 2 arms …")
        return Written((out or Path("report")) / "report.html", Path("report.md"), ["Yes.", "By a little."])

    monkeypatch.setattr("qvit.report.page.write_report", write_report)
    told = qvit("study", "report", tmp_path)
    assert told == (0, "Yes.\nBy a little.\n", "Comparing 2 arms …\nReport: report/report.html\n")
    told = qvit("study", "report", tmp_path, "--out", "there", "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out) == {"report": "there/report.html", "answer": ["Yes.", "By a little."]}


def test_waiting_for_a_busy_study_is_told(qvit: Qvit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path):
        pass
    real = store.patiently

    def late(path: Path, action: Callable[[], Any], on_wait: Callable[[str], None]) -> Any:
        on_wait("Waiting for it.")
        return real(path, action, on_wait)

    monkeypatch.setattr(store, "patiently", late)
    told = qvit("study", "status", tmp_path)
    assert (told.code, "Waiting for it." in told.err) == (0, True)
    assert tmp_path.name in " ".join(told.out.split()), "it has no title yet"
    for how in ([], ["--json"]):  # also to whoever asks for nothing but JSON on stdout
        assert "Waiting for it." in qvit("study", "report", tmp_path, *how).err
