"""Pictures: a PNG of sensible size for every task, with what it should show."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qvit.errors import RunError
from qvit.study.compare import read_rows
from qvit.study.pictures import draw_comparison
from qvit.training.run import Run

MakeRun = Callable[..., Run]


def draw(runs: Sequence[Run], path: Path) -> tuple[int, int]:
    """Draw, and return width and height in pixels as the PNG's header tells them."""
    draw_comparison(runs, read_rows(runs), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def texts_of(runs: Sequence[Run], path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return all texts in a picture."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    drawn: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    draw(runs, path)
    [figure] = drawn
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_size(make_run: MakeRun, tmp_path: Path, count: int) -> None:
    width, height = draw([make_run(seed=seed) for seed in range(count)], tmp_path / "p.png")
    assert 1000 < width < 3000
    assert 500 < height < 2500


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ({"classes": 2}, {}),
        ({"classes": 2, "channels": 1}, {}),
        ({"classes": 5}, {"task": "ordinal", "loss": "emd"}),
        ({"classes": 4, "several": True}, {}),
        ({"classes": 4, "several": True, "channels": 1}, {}),
    ],
)
def test_every_task_in_colour_and_grey(
    make_run: MakeRun, make_npz: Callable[..., Path], tmp_path: Path, shape: dict[str, Any], options: dict[str, Any]
) -> None:
    npz = make_npz("-".join(map(str, shape.values())) + str(len(options)), **shape)
    width, height = draw([make_run(npz, **options), make_run(npz, model="qvit_4q1h", **options)], tmp_path / "p.png")
    assert width > height > 500


def test_what_it_tells(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(), make_run(model="qvit_4q1h")]
    texts = texts_of(runs, tmp_path / "p.png", monkeypatch)
    for run in runs:
        shown = f"{run.config['model']} ({run.result['parameters']:,} parameters)"
        assert any(shown in text and f"test AUC {run.result['test']['auc']:.3f}" in text for text in texts)
    verdicts = [text for text in texts if text.startswith(("1: ", "2: "))]
    ticks = sum("✓" in text for text in verdicts if text.startswith("1: "))
    images = sum(text.startswith(("1: ✓", "1: ✗")) for text in verdicts)
    assert images == 18
    assert 0 < ticks < images, "a model of noise is right about some and wrong about others"
    assert any("first" in text for text in texts), "the dataset's name"


def test_synthetic_images_are_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from qvit.data.arrays import load_dataset
    from qvit.training.options import resolve
    from qvit.training.run import train_run

    whole = load_dataset("phantom")
    parts = {name: type(split)(split.images[:60], split.labels[:60]) for name, split in whole.splits.items()}
    small = replace(whole, **parts)
    for module in ("run", "folder"):
        monkeypatch.setattr(f"qvit.training.{module}.load_dataset", lambda *args, **kwargs: small)
    run = train_run(resolve({"dataset": "phantom", "epochs": 1}), tmp_path / "run")
    assert any("synthetic" in text for text in texts_of([run], tmp_path / "p.png", monkeypatch))


def test_refuses_several_datasets(make_run: MakeRun, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run(), make_run(make_npz("second", seed=1))]
    with pytest.raises(RunError, match="runs on one dataset; these are on several"):
        draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_refuses_too_many(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run()] * 7
    with pytest.raises(RunError, match="up to 6 runs, got 7"):
        draw_comparison(runs, read_rows(runs), tmp_path / "p.png")


def test_refuses_a_path_it_cannot_write(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Cannot write .*no/p\.png"):
        draw_comparison([make_run()], read_rows([make_run()]), tmp_path / "no" / "p.png")
