"""What a study will take: sums of what was timed; that itself is replaced by round numbers, for a test has no clock."""

import json
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qvit.data.registry import DATASETS
from qvit.study import estimate as module
from qvit.study.driver import MOST_IN_STACK
from qvit.study.estimate import START, Planned, estimate
from qvit.study.reading import parse_study
from qvit.training.batches import default_batch_size

STEP, VIEW = 0.5, 0.001  # seconds
BREAST, RETINA = DATASETS["breastmnist"].splits, DATASETS["retinamnist"].splits
OPTIONS = "options: {epochs: 4, batch_size: 8, tta: never}\n"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Models and batch sizes as they are timed, and how many at once."""
    asked: list[tuple[str, int, int]] = []

    def time(run: Any, _architecture: Any, _info: Any, batch: int, together: int) -> tuple[float, float]:
        asked.append((run.model, batch, together))
        return STEP, VIEW

    monkeypatch.setattr(module, "_time", time)
    return asked


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No official file is there, and none can be got."""
    monkeypatch.setenv("QVIT_DATA", str(tmp_path / "nothing"))

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a plan needs no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def planned(text: str, **more: Any) -> Planned:
    return estimate(parse_study(text, name="s"), **more)


def run_seconds(splits: Any, epochs: int = 4, *, images: int | None = None, batch: int = 8, views: int = 1) -> float:
    """By hand: steps of every epoch, its validation images, and the test images once."""
    epoch = math.ceil((images or splits["train"]) / batch) * STEP + views * splits["val"] * VIEW
    return START + epochs * epoch + views * splits["test"] * VIEW


@pytest.mark.long
def test_counts(timed: list[tuple[str, int, int]]) -> None:
    found = planned(
        "datasets: [breastmnist, retinamnist]\nmodels: {kind: [qvit, vit], heads: [1, 2]}\nseeds: 3\n" + OPTIONS +
        "teachers: {t: [{arch: vit_8q1h, seeds: 2}]}\nregimes: {scratch: , kd: {teacher: t}}",
        workers=4,
    )  # fmt: skip
    assert found.runs == 2 * (2 * 2 * 2 * 3 + 2)
    assert len(found.rows) == 2 * (2 * 2 * 2 + 1)
    assert {(row.dataset, row.runs) for row in found.rows if row.regime == "t"} == {
        ("breastmnist", 2),
        ("retinamnist", 2),
    }
    assert found.seconds == pytest.approx(sum(row.runs * row.seconds for row in found.rows))
    assert (found.workers, found.wall) == (4, found.seconds / 4)
    assert found.megabytes > 0


def test_each_model_is_timed_once_a_kind_of_images(timed: list[tuple[str, int, int]]) -> None:
    told: list[tuple[int, int]] = []
    planned(
        "datasets: [breastmnist, pneumoniamnist, retinamnist]\nmodels: [qvit_4q1h, vit_4q1h]\nseeds: 5\n" + OPTIONS,
        on_timed=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    # The first two are grey and of two classes, and look alike to a model.
    assert timed == [("qvit_4q1h", 8, 5), ("vit_4q1h", 8, 5), ("qvit_4q1h", 8, 5), ("vit_4q1h", 8, 5)]
    assert told == [(k, 6) for k in range(1, 7)]


def test_what_becomes_of_images_is_timed_too(timed: list[tuple[str, int, int]]) -> None:
    models = "{name: vit_4q1h, options: {distort: [0, 1, 2], mixup: [0, 0.2]}}"
    planned(f"datasets: breastmnist\nmodels: {models}\n{OPTIONS}")
    assert len(timed) == 4, "each of the two is on or off"


def test_as_many_are_timed_at_once_as_are_trained_together(timed: list[tuple[str, int, int]]) -> None:
    def at_once(models: str, seeds: int, more: str = "", **options: Any) -> list[int]:
        timed.clear()
        found = planned(f"datasets: breastmnist\nmodels: {models}\nseeds: {seeds}\n{OPTIONS}{more}", **options)
        assert [row.together for row in found.rows] == [together for _, _, together in timed]
        return [together for _, _, together in timed]

    two = "[vit_4q1h, cosine_4q1h]"
    assert at_once(two, 6, workers=2) == [6, 6], "a model for each worker"
    assert at_once("vit_4q1h", 7, workers=2) == [4], "half for each"
    assert at_once("vit_4q1h", 200, workers=2) == [MOST_IN_STACK]
    assert at_once(two, 6, "stack: never", workers=2) == [1, 1]
    teachers = "teachers: {t: [{arch: vit_8q1h, seeds: 2}]}\nregimes: {kd: {teacher: t}}"
    assert at_once("vit_4q1h", 3, teachers, workers=1) == [1, 3], "teachers by themselves"
    big = "options: {batch_size: 4000, size: 224, epochs: 1}\nmodels: vit_4q1h\ndatasets: pathmnist\nseeds: 9"
    timed.clear()
    planned(big, workers=1)
    [(_, batch, together)] = timed
    assert batch == 4000
    assert together < 9, "more do not fit into the memory of a stack"


def test_seconds_by_hand(timed: list[tuple[str, int, int]]) -> None:
    found = planned("datasets: [breastmnist, retinamnist]\nmodels: qvit_4q1h\nseeds: 2\n" + OPTIONS)
    assert [row.seconds for row in found.rows] == pytest.approx([run_seconds(BREAST), run_seconds(RETINA)])
    assert found.rows[0].total == 2 * found.rows[0].seconds


def test_baselines_are_not_timed(timed: list[tuple[str, int, int]]) -> None:
    """What they take grows with their trees, images and views; the small network is timed as any other."""

    def found(more: str = "") -> dict[str, Any]:
        text = f"datasets: retinamnist\nmodels: vit_4q1h\nbaselines: auto\nseeds: 2\n{more}"
        return {row.model: row for row in planned(text).rows}

    usual, never = found(), found("options: {augment: none}")
    assert {model for model, _, _ in timed} == {"vit_4q1h", "dsconv"}
    plain = ("logistic", "extra_trees", "nearest", "commonest")
    assert [usual[name].together for name in plain] == [1, 1, 1, 1]
    assert usual["commonest"].seconds == START
    assert all(START < never[name].seconds < usual[name].seconds < 60 for name in plain[:3])
    alone = "datasets: retinamnist\nmodels: [{{name: extra_trees, options: {{trees: {}}}}}]"
    few, many = (planned(alone.format(trees)) for trees in (10, 1000))
    assert (few.seconds < many.seconds, few.megabytes < many.megabytes) == (True, True)
    stored = planned("datasets: retinamnist\nmodels: nearest").megabytes
    assert stored * 2**20 == pytest.approx(RETINA["train"] * 280 * 4, rel=0.1)


def test_epochs_and_images_and_views_count(timed: list[tuple[str, int, int]]) -> None:
    def seconds(options: str) -> float:
        [row] = planned(f"datasets: retinamnist\nmodels: qvit_4q1h\noptions: {{{options}}}").rows
        return row.seconds

    for epochs in (1, 40):
        assert seconds(f"epochs: {epochs}, batch_size: 8, tta: never") == pytest.approx(run_seconds(RETINA, epochs))
    for tta in ("auto", "always"):  # the symmetries of a square, each predicted
        assert seconds(f"epochs: 4, batch_size: 8, tta: {tta}, augment: d4") == pytest.approx(
            run_seconds(RETINA, views=8)
        )
    assert seconds("epochs: 4, tta: never") == pytest.approx(
        run_seconds(RETINA, batch=default_batch_size(RETINA["train"]))
    )


def kd(more: str, *, dataset: str = "retinamnist") -> float:
    found = planned(
        f"datasets: {dataset}\nmodels: qvit_4q1h\n{OPTIONS}teachers: {{t: [{{arch: vit_8q1h}}]}}\n"
        f"regimes: {{kd: {{teacher: t, {more}}}}}"
    )
    return next(row.seconds for row in found.rows if row.regime == "kd")


def test_both_stages_of_a_distillation_count(timed: list[tuple[str, int, int]]) -> None:
    stages = "pretrain: {epochs: 3}, finetune: {epochs: 6}"
    assert kd(f"mixtures: 0, {stages}") == pytest.approx(run_seconds(RETINA, 3) + run_seconds(RETINA, 6))
    assert kd("mixtures: 0") == pytest.approx(run_seconds(RETINA, 4) + run_seconds(RETINA, 50)), "50 are its own"
    assert kd("joint: true") == pytest.approx(run_seconds(RETINA, 4))


def test_the_images_to_learn_from_a_teacher_on_count(timed: list[tuple[str, int, int]], tmp_path: Path) -> None:
    np.savez(tmp_path / "pool.npz", images=np.zeros((72, 28, 28), np.uint8))
    after = run_seconds(RETINA, 6)
    for more, images in (
        ("mixtures: 160", 160),
        ("temperature: 2", 4000),  # as many mixtures where there are fewer images
        ("transfer_set: octmnist", DATASETS["octmnist"].splits["train"]),
        (f"transfer_set: {tmp_path / 'pool.npz'}", 72),
    ):
        found = kd(f"{more}, pretrain: {{epochs: 3}}, finetune: {{epochs: 6}}")
        assert found == pytest.approx(run_seconds(RETINA, 3, images=images) + after), more
    many = DATASETS["octmnist"].splits
    assert kd("finetune: {epochs: 6}", dataset="octmnist") == pytest.approx(run_seconds(many) + run_seconds(many, 6))


def test_workers_are_no_more_than_runs(timed: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 6)
    text = "datasets: breastmnist\nmodels: qvit_4q1h\nseeds: {}\noptions: {{threads: {}}}"
    assert planned(text.format(9, 1)).workers == 6
    assert planned(text.format(9, 2)).workers == 3
    assert planned(text.format(9, 8)).workers == 1
    assert planned(text.format(2, 1)).workers == 2
    assert planned(text.format(2, 1), workers=5).workers == 2
    assert planned(text.format(9, 1), workers=8).workers == 8


def test_disk(timed: list[tuple[str, int, int]]) -> None:
    def megabytes(text: str) -> float:
        return planned(text).megabytes

    one = megabytes("datasets: retinamnist\nmodels: qvit_4q1h")
    assert megabytes("datasets: retinamnist\nmodels: qvit_4q1h\nseeds: 4") == pytest.approx(4 * one)
    assert megabytes("datasets: retinamnist\nmodels: qvit_4q1h\noptions: {epochs: 200}") > one
    assert megabytes("datasets: octmnist\nmodels: qvit_4q1h") > 2 * one, "more images to predict"
    taught = (
        "datasets: octmnist\nmodels: qvit_4q1h\nteachers: {t: [{arch: qvit_4q1h, epochs: 100}]}\n"
        "regimes: {kd: {teacher: t}}"
    )
    logits = 4 * 4 * DATASETS["octmnist"].splits["train"] / 2**20  # bytes, classes, images, and a symmetry at least
    assert megabytes(taught) > megabytes("datasets: octmnist\nmodels: qvit_4q1h") + logits


def test_as_json(timed: list[tuple[str, int, int]]) -> None:
    found = planned("datasets: [breastmnist, retinamnist]\nmodels: qvit_4q1h\nseeds: 3\n" + OPTIONS, workers=2)
    told = found.as_json()
    assert json.loads(json.dumps(told)) == told
    assert {key: told[key] for key in told if key != "rows"} == {
        "runs": 6,
        "seconds": found.seconds,
        "workers": 2,
        "wall_seconds": found.seconds / 2,
        "megabytes": found.megabytes,
        "timed": 2,
    }
    assert told["rows"][1] == {
        "dataset": "retinamnist",
        "model": "qvit_4q1h",
        "regime": "scratch",
        "runs": 3,
        "together": 3,
        "seconds": found.rows[1].seconds,
        "total": 3 * found.rows[1].seconds,
    }


def test_an_own_file_is_read(timed: list[tuple[str, int, int]], make_npz: Callable[..., Path]) -> None:
    [row] = planned(f"datasets: {make_npz()}\nmodels: qvit_4q1h\noptions: {{size: 12, {OPTIONS[10:-2]}}}").rows
    assert row.dataset == "first"
    assert row.seconds == pytest.approx(run_seconds({"train": 24, "val": 16, "test": 20}))


@pytest.mark.parametrize(
    ("model", "dataset"),
    [("qvit_4q1h", "retinamnist"), ("resnet18", "breastmnist"), ("qvit_4q1h", "chestmnist")],
)
def test_models_are_timed_on_random_images(monkeypatch: pytest.MonkeyPatch, model: str, dataset: str) -> None:
    """For all tasks and any clock."""
    monkeypatch.setattr(module, "STEPS", 1)
    options = "{batch_size: 4" + (", width: 0.125}" if model == "resnet18" else "}")
    monkeypatch.setattr(module, "VIEWS", 8)
    before = torch.get_rng_state()
    [row] = planned(f"datasets: {dataset}\nmodels: {model}\noptions: {options}").rows
    assert row.seconds > START
    assert torch.equal(torch.get_rng_state(), before), "what is drawn for that is nobody else's"
