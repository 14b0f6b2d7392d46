"""Students distilled together: each becomes what it becomes by itself, and one that fails stops no other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.test_pipeline import Settings, kept
from qvit.distill import AskedStudent, Distillation, Teacher, distill, distill_many
from qvit.errors import RunError, TrainingError

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("uncounted")]
# A map of features is trained with each student, and what is drawn for it is drawn by that student's seed.
LIVELY: dict[str, Any] = {
    "stacked": True,
    "augment": "d4",
    "distort": 1.0,
    "mixup": 0.5,
    "feature_weight": 0.5,
    "attention_weight": 0.5,
}


@pytest.fixture
def students(settings: Settings, tmp_path: Path) -> Callable[..., list[AskedStudent]]:
    """Students that differ in the seed, in folders below one of the name given."""

    def make(name: str, count: int = 2, **options: Any) -> list[AskedStudent]:
        of = [settings(**LIVELY | options, seed=seed) for seed in range(count)]
        return [AskedStudent(config, tmp_path / name / f"s{seed}") for seed, config in enumerate(of)]

    return make


@pytest.mark.slow("trains three students in three stages, one of them twice")
@pytest.mark.parametrize("options", [{"mixtures": 30}, {"joint": True, "alpha": 0.5, "class_weights": "balanced"}])
def test_each_student_is_that_of_a_distillation_by_itself(
    students: Callable[..., list[AskedStudent]], run_teacher: Teacher, tmp_path: Path, options: dict[str, Any]
) -> None:
    told: list[tuple[int, str, int, int]] = []
    asked, cache = students("many", 3, **options), tmp_path / "cache"

    def on_stage(stage: str, epochs: int) -> Callable[[int, Any, float], None]:
        return lambda place, record, _seconds: told.append((place, stage, record.epoch, epochs))

    found = distill_many(asked, run_teacher, cache=cache, on_stage=on_stage)
    stages = asked[0].config.stages
    assert told == [(place, stage, 1, 1) for stage in stages for place in range(3)]
    alone = distill(asked[1].config, run_teacher, tmp_path / "alone" / "s1", cache=cache)
    assert kept(alone.folder) == kept(asked[1].folder)
    assert isinstance(found[1], Distillation)
    assert found[1].measures == alone.measures
    assert list(found[1].runs) == list(stages)
    assert len({(one.folder / stages[-1] / "model.safetensors").read_bytes() for one in asked}) == 3
    told.clear()
    again = distill_many(asked, run_teacher, cache=cache, resume=True, on_stage=on_stage)
    assert told == [], "all is done"
    assert [isinstance(one, Distillation) for one in again] == [True] * 3


@pytest.mark.slow("trains two students twice, in three stages")
def test_what_was_interrupted_goes_on_bit_for_bit(
    students: Callable[..., list[AskedStudent]], run_teacher: Teacher, tmp_path: Path
) -> None:
    """One has begun the first stage, the other has not."""
    options = {"pretrain": {"epochs": 2}, "scratch": False}
    whole, parts = students("whole", **options), students("parts", **options)
    distill_many(whole, run_teacher, cache=tmp_path / "cache")

    def stop(place: int, *_: Any) -> None:
        if place == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill_many(parts, run_teacher, cache=tmp_path / "cache", on_stage=lambda *_: stop)
    assert (parts[0].folder / "pretrain" / "state.pt").exists()
    assert not (parts[1].folder / "pretrain" / "state.pt").exists()
    distill_many(parts, run_teacher, cache=tmp_path / "cache", resume=True)
    assert [kept(one.folder) for one in parts] == [kept(one.folder) for one in whole]


@pytest.mark.long
def test_one_that_fails_stops_no_other(
    students: Callable[..., list[AskedStudent]], run_teacher: Teacher, tmp_path: Path
) -> None:
    """One has no folder, another diverges in the second of three stages and has no third one."""
    asked = students("many", 3, finetune={"lr": 1e38, "clip_norm": None, "warmup": 0.0, "epochs": 1})
    asked[0].folder.mkdir(parents=True)
    (asked[0].folder / "letter.txt").touch()
    finished = students("finished", 3)[2]
    done = distill(finished.config, run_teacher, finished.folder, cache=tmp_path / "cache")
    shutil.copytree(done.folder / "scratch", asked[2].folder / "scratch")
    first, second, third = distill_many(asked, run_teacher, cache=tmp_path / "cache", resume=True)
    assert isinstance(first, RunError)
    assert "holds other things (letter.txt)" in str(first)
    assert isinstance(second, TrainingError)
    assert isinstance(third, TrainingError)
    assert sorted(path.name for path in asked[1].folder.iterdir()) == ["finetune", "pretrain", "scratch"]
    for one in asked[1:]:
        assert (one.folder / "pretrain" / "result.json").exists()
        assert not (one.folder / "finetune" / "result.json").exists()
    [only] = distill_many(asked[:1], run_teacher, cache=tmp_path / "cache")
    assert isinstance(only, RunError)
