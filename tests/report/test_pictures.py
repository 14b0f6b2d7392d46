"""Pictures: a PNG of sensible size for every task, with what it should show."""

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from qvit.errors import RunError
from qvit.report.compare import read_rows
from qvit.report.pictures import draw_comparison
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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures, instead of their being laid out and written."""
    figures: list[Any] = []

    def savefig(self: Figure, buffer: Any, *, format: str, dpi: int) -> None:  # noqa: A002
        figures.append(self)
        buffer.write(f"{format} at {dpi}".encode())

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def texts_of(figure: Any) -> list[str]:
    """Return all texts in a picture."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.long
def test_it_is_a_png(make_run: MakeRun, tmp_path: Path) -> None:
    assert draw([make_run(), make_run(seed=1)], tmp_path / "p.png") == (1690, 806)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 6])
def test_it_grows_with_the_number_of_runs(make_run: MakeRun, drawn: list[Any], tmp_path: Path, count: int) -> None:
    runs = [make_run(seed=seed) for seed in range(count)]
    draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    [figure] = drawn
    assert figure.get_size_inches().tolist() == pytest.approx([13, 5.4 + 0.4 * count])
    assert (tmp_path / "p.png").read_bytes() == b"png at 130"
    loss, auc, *_ = figure.axes
    colours = [line.get_color() for line in auc.lines if len(line.get_xdata()) > 1]
    assert len(set(colours)) == len(colours) == count, "each in a colour of its own"
    assert [line.get_color() for line in loss.lines] == [colour for colour in colours for _ in range(2)]


@pytest.mark.long
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
    make_run: MakeRun,
    make_npz: Callable[..., Path],
    drawn: list[Any],
    tmp_path: Path,
    shape: dict[str, Any],
    options: dict[str, Any],
) -> None:
    npz = make_npz("-".join(map(str, shape.values())) + str(len(options)), **shape)
    runs = [make_run(npz, **options), make_run(npz, model="qvit_4q1h", **options)]
    draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    grid = drawn[0].axes[2:]
    shown = [axes.get_images()[0] for axes in grid if axes.get_images()]
    assert len(shown) == len(grid) == 18
    assert {image.get_array().ndim for image in shown} == {2 if shape.get("channels") == 1 else 3}
    labels = {name: f"class {name}" for name in range(9)}
    names = {text for axes in grid for text in (axes.get_title(), *(t.get_text()[5:] for t in axes.texts))}
    assert len(names) > 1
    if not shape.get("several"):
        assert names <= {str(name) for name in labels} | set(labels.values()), names


@pytest.mark.long
def test_what_was_held_out_is_not_called_test(make_run: MakeRun, drawn: list[Any], tmp_path: Path) -> None:
    first, second = (make_run(folds=3, fold=fold, keep="last", tta="never") for fold in (1, 2))
    draw_comparison([first], read_rows([first]), tmp_path / "p.png")
    texts = texts_of(drawn[0])
    assert texts[0] == "first, fold 1 of 3"
    assert "held-out AUC" in texts
    assert any(text.startswith("Images held out, true label") for text in texts)
    assert not any("test" in text.lower() or "validation" in text for text in texts)
    for others in ([first, second], [first, make_run()]):
        with pytest.raises(RunError) as caught:
            draw_comparison(others, read_rows(others), tmp_path / "q.png")
        assert str(caught.value) == (
            "A picture compares runs on the same images; these held out several folds. Leave --picture out."
        )


@pytest.mark.long
def test_what_it_tells(make_run: MakeRun, drawn: list[Any], tmp_path: Path) -> None:
    runs = [make_run(), make_run(model="qvit_4q1h")]
    draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    texts = texts_of(drawn[0])
    assert texts[0] == "first"
    assert "Test images, true label, and predictions: ✓ right, ✗ wrong\n1: vit_4q1h   2: qvit_4q1h" in texts
    for run in runs:
        name = run.config["model"]
        shown = f"{name} ({run.result.parameters:,} parameters): test AUC {run.result.test.auc:.3f}"
        assert {shown, f"{name}, training", f"{name}, validation"} <= set(texts)
    labels = {"loss", "validation AUC", "epoch (dot: the checkpoint that was kept)"}
    assert labels <= set(texts)
    for place, run in enumerate(runs, 1):
        marks = [text[3] for text in texts if text.startswith((f"{place}: ✓", f"{place}: ✗"))]
        assert len(marks) == 18
        share = marks.count("✓") / 18
        assert abs(share - run.result.test.acc) <= 2 / 18, "18 of 20 images"


@pytest.mark.long
def test_curves_are_those_of_the_runs(make_run: MakeRun, drawn: list[Any], tmp_path: Path) -> None:
    run = make_run()
    draw_comparison([run], read_rows([run]), tmp_path / "p.png")
    loss, auc, *_ = drawn[0].axes
    training, validation = ([list(line.get_xdata()), list(line.get_ydata())] for line in loss.lines)
    assert training == [[1, 2], [1.0, 1.0]]
    assert validation == [[1, 2], [1.25, 1.25]]
    curve, best = auc.lines
    assert [list(curve.get_xdata()), list(curve.get_ydata())] == [[1, 2], [0.625, 0.5625]]
    assert [list(best.get_xdata()), list(best.get_ydata())] == [[1], [0.625]]
    assert (loss.lines[0].get_linestyle(), loss.lines[1].get_linestyle()) == ("-", ":")


@pytest.mark.long
def test_seeds_are_told_where_they_differ(make_run: MakeRun, drawn: list[Any], tmp_path: Path) -> None:
    runs = [make_run(), make_run(seed=1)]
    draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    assert {f"vit_4q1h (seed {seed}), training" for seed in (0, 1)} <= set(texts_of(drawn[0]))


@pytest.mark.long
def test_synthetic_images_are_declared(
    make_run: MakeRun, drawn: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    data = run.load_data()
    synthetic = replace(data, info=replace(data.info, synthetic=True))
    monkeypatch.setattr(Run, "load_data", lambda *_, **__: synthetic)
    draw_comparison([run], read_rows([run]), tmp_path / "p.png")
    assert texts_of(drawn[0])[0] == "first, synthetic images"


def test_a_run_whose_files_do_not_fit_each_other_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(make_run().folder, tmp_path / "run"))
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps(result | {"best_epoch": 3}))
    with pytest.raises(RunError) as caught:
        draw_comparison([Run(copied)], read_rows([Run(copied)]), tmp_path / "p.png")
    assert str(caught.value) == f"{copied} tells of 2 epochs, of which number 3 is the best."
    (copied / "result.json").write_text(json.dumps(result))
    [path] = copied.glob("*_test_*.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError) as caught:
        draw_comparison([Run(copied)], read_rows([Run(copied)]), tmp_path / "p.png")
    assert str(caught.value) == f"{copied} has predictions of 19 test images, not of 20."
    assert not (tmp_path / "p.png").exists()


def test_refuses_several_datasets(make_run: MakeRun, make_npz: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run(), make_run(make_npz("second", seed=1))]
    with pytest.raises(RunError) as caught:
        draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    assert str(caught.value) == ("A picture compares runs on one dataset; these are on several. Leave --picture out.")
    assert not list(tmp_path.iterdir())


def test_refuses_too_many(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run()] * 7
    with pytest.raises(RunError) as caught:
        draw_comparison(runs, read_rows(runs), tmp_path / "p.png")
    assert str(caught.value) == "A picture shows up to 6 runs, got 7. Leave some out."


@pytest.mark.long
def test_refuses_a_path_it_cannot_write(make_run: MakeRun, drawn: list[Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Cannot write .*no/p\.png"):
        draw_comparison([make_run()], read_rows([make_run()]), tmp_path / "no" / "p.png")
