"""A study's file: the runs that it means, and what is said of one that means none."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.data.options import ImportOptions
from qvit.distill.pipeline import DistillationConfig
from qvit.errors import ConfigError
from qvit.study import grid, reading
from qvit.study.reading import parse_study, read_study, shipped_studies
from qvit.training.options import RunConfig
from study.made import SMALL, TEACHERS, parse, students, teachers

# --- runs ---


def test_options_go_from_common_to_model_to_regime_to_override() -> None:
    study = parse(
        "datasets: phantom\nmodels: [{name: qvit_4q2h, options: {lr: 0.2, warmup: 0.2}}]\nseeds: 2\n"
        "options: {epochs: 7, lr: 0.1, warmup: 0.1, clip_norm: 1.5}\n" + TEACHERS +
        "regimes: {scratch: {warmup: 0.25}, kd: {teacher: t, warmup: 0.3, temperature: 3.0}}\n"
        "overrides: [{where: {seed: 1, regime: kd}, set: {temperature: 4, epochs: 9}}]"
    )  # fmt: skip
    first, _, second, last = students(study)
    assert first.resolved() == RunConfig(
        "phantom",
        seed=0,
        stacked=True,
        train=type(first.resolved().train)(epochs=7, lr=0.2, warmup=0.25, clip_norm=1.5),
    )
    assert isinstance(last.resolved(), DistillationConfig)
    found = [(job.seed, job.resolved().student.train.epochs, job.resolved().how.temperature) for job in (_, last)]
    assert found == [(0, 7, 3.0), (1, 9, 4.0)]
    assert (last.resolved().student.train.warmup, last.resolved().scratch) == (0.3, False)
    assert second.resolved().train.epochs == 7


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse(SMALL).seeds == (0,)
    assert parse(SMALL + "seeds: 3").seeds == (0, 1, 2)
    study = parse(SMALL + "seeds: [7, 2]")
    assert study.seeds == (7, 2)
    assert [job.options["seed"] for job in study.jobs] == [7, 2]


def test_runs_come_seed_after_seed_and_teachers_first() -> None:
    study = parse(
        "datasets: [phantom, breastmnist]\nmodels: [qvit_4q2h, vit_4q2h]\nseeds: 2\n" + TEACHERS +
        "regimes: {scratch: , kd: {teacher: t}}"
    )  # fmt: skip
    assert [(j.role, j.dataset, j.model.label, j.regime, j.seed) for j in study.jobs[:9]] == [
        ("teacher", "phantom", "vit_4q1h", "t", 0),
        ("student", "phantom", "qvit_4q2h", "scratch", 0),
        ("student", "phantom", "vit_4q2h", "scratch", 0),
        ("student", "phantom", "qvit_4q2h", "kd", 0),
        ("student", "phantom", "vit_4q2h", "kd", 0),
        ("student", "phantom", "qvit_4q2h", "scratch", 1),
        ("student", "phantom", "vit_4q2h", "scratch", 1),
        ("student", "phantom", "qvit_4q2h", "kd", 1),
        ("student", "phantom", "vit_4q2h", "kd", 1),
    ]
    assert [job.role for job in study.jobs] == 2 * [study.jobs[0].role, *8 * ["student"]]


def test_teachers_have_members_on_their_datasets_only() -> None:
    study = parse(
        "datasets: [phantom, breastmnist]\nmodels: qvit_4q2h\nregimes: {kd: {teacher: t}, hot: {teacher: u}}\n"
        "teachers:\n  t:\n    - {arch: vit_4q1h, seeds: 2, datasets: breastmnist}\n    - {arch: vit, epochs: 4}\n"
        "  u: [{arch: vit_8q1h, seeds: [5]}]\n  nobody: [{arch: vit_4q1h}]"
    )
    members = {
        (job.dataset, job.regime): [(t.model.label, t.seed) for t in job.teachers] for job in students(study)
    }  # fmt: skip
    assert members == {
        ("phantom", "kd"): [("vit_16q4h", 0)],
        ("phantom", "hot"): [("vit_8q1h", 5)],
        ("breastmnist", "kd"): [("vit_4q1h", 0), ("vit_4q1h", 1), ("vit_16q4h", 0)],
        ("breastmnist", "hot"): [("vit_8q1h", 5)],
    }
    assert len(teachers(study)) == 6, "each member once, and none that nobody learns from"
    by_label = {job.model.label: job.resolved() for job in teachers(study)}
    assert (by_label["vit_16q4h"].train.epochs, by_label["vit_16q4h"].model_options["depth"]) == (4, 4)
    assert all(job.options["dataset"] == job.dataset for job in study.jobs)


def test_members_of_one_architecture_are_told_apart() -> None:
    study = parse(
        "datasets: phantom\nmodels: qvit_4q2h\nregimes: {kd: {teacher: t}}\n"
        "teachers: {t: [{arch: vit_4q1h, seeds: 2}, {arch: vit_4q1h, depth: 2, seeds: 2}, {arch: vit_8q1h}]}"
    )
    assert [(t.model.label, t.seed) for t in teachers(study)] == [
        ("vit_4q1h", 0),
        ("vit_4q1h", 1),
        ("vit_4q1h (depth=2)", 0),
        ("vit_4q1h (depth=2)", 1),
        ("vit_8q1h", 0),
    ]


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ("{model: 'qvit_*'}", {"qvit_4q2h"}),
        ("{model: ['vit_?q2h', cosine_4q2h]}", {"vit_4q2h", "cosine_4q2h"}),
        ("{model: '[qv]*_4q2h', regime: kd}", {"qvit_4q2h", "vit_4q2h"}),
        ("{dataset: phantom, seed: 0}", {"qvit_4q2h", "vit_4q2h", "cosine_4q2h"}),
        ("{teacher: t}", {"vit_4q1h"}),
        ("{teacher: '*', model: 'vit*', seed: [0, 1]}", {"vit_4q1h"}),
    ],
)
def test_overrides_reach_what_they_name_and_nothing_else(where: str, fits: set[str]) -> None:
    study = parse(
        "datasets: phantom\nmodels: {kind: [qvit, vit, cosine]}\n" + TEACHERS +
        f"regimes: {{scratch: , kd: {{teacher: t}}}}\noverrides: [{{where: {where}, set: {{patience: 77}}}}]"
    )  # fmt: skip
    changed = [job for job in study.jobs if job.options.get("patience") == 77]
    assert {job.model.label for job in changed} == fits
    assert {job.role for job in changed} == {"teacher" if "teacher" in where else "student"}
    if "regime" in where:
        assert {job.regime for job in changed} == {"kd"}


def test_a_student_learns_from_the_teacher_as_overridden() -> None:
    study = parse(SMALL + TEACHERS + "regimes: {kd: {teacher: t}}\noverrides: {where: {teacher: t}, set: {epochs: 3}}")
    [teacher], [student] = teachers(study), students(study)
    assert teacher.options["epochs"] == 3
    assert student.teachers == (teacher,)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        f"datasets: [own.npz, {tmp_path}/other.npz]\nmodels: qvit_4q2h\n" + TEACHERS +
        "regimes: {kd: {teacher: t, transfer_set: pool.npz}, hot: {teacher: t}}\n"
        "overrides: [{where: {regime: hot}, set: {transfer_set: sub/pool.npz}}]"
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    study = read_study("there/mine.yaml")
    assert study.name == "mine"
    assert study.datasets == (str(folder / "own.npz"), str(tmp_path / "other.npz"))
    sets = {job.regime: job.options["transfer_set"] for job in students(study)}
    assert sets == {"kd": str(folder / "pool.npz"), "hot": str(folder / "sub" / "pool.npz")}


def test_a_linked_file_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "3f2a.npz").write_bytes(b"")
    (tmp_path / "own.npz").symlink_to(tmp_path / "3f2a.npz")
    assert parse("datasets: own.npz\nmodels: qvit_4q2h", folder=tmp_path).datasets == (str(tmp_path / "own.npz"),)


# --- shipped studies ---


@pytest.mark.parametrize(
    ("name", "models", "of_students", "of_teachers"),
    [
        # 9 kinds, 2 matched ones, and one of two layers; 2 datasets, 10 seeds
        ("controls", 9 + 2 + 1, 2 * 12 * 10, 0),
        # 2 kinds, 2 widths, 2 numbers of heads; 8 datasets, 2 regimes, 5 seeds; teachers 5, 3 + 2, and 1 on each of 6
        ("paper", 2 * 2 * 2, 8 * 8 * 2 * 5, 5 + 3 + 2 + 6),
        # 2 kinds at 6 widths, and 2 widths with 3 more numbers of layers; 2 datasets, 5 seeds
        ("scaling", 2 * 6 + 2 * 3, 2 * 18 * 5, 0),
        # 3 kinds with 1 and 2 heads; 2 regimes, 3 seeds
        ("smoke", 3 * 2, 6 * 2 * 3, 1),
    ],
)
def test_shipped_studies(
    monkeypatch: pytest.MonkeyPatch, name: str, models: int, of_students: int, of_teachers: int
) -> None:
    assert name in shipped_studies()
    monkeypatch.setattr(reading, "_check_options", lambda jobs: None)  # builds every model: see the next test but one
    study = read_study(name)
    assert len(study.models) == models
    assert (len(students(study)), len(teachers(study))) == (of_students, of_teachers)
    assert study.title != name
    assert study.description


def test_all_shipped_studies_are_counted_above() -> None:
    assert shipped_studies() == ["controls", "paper", "scaling", "smoke"]


@pytest.mark.parametrize("name", ["controls", "paper", "scaling", "smoke"])
def test_options_of_shipped_studies_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every model once; whether its sizes can be matched is not what is asked here, and takes seconds."""
    asked: list[str] = []
    monkeypatch.setattr(reading, "model_config", lambda model, **options: asked.append(model))
    study = read_study(name)
    assert {model.name for model in study.models} <= set(asked)
    assert len({model.label for model in study.models}) == len(study.models)


def test_a_folder_does_not_hide_a_shipped_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "_check_options", lambda jobs: None)  # builds every model
    (tmp_path / "smoke").mkdir()
    assert read_study("smoke").name == "smoke"
    (tmp_path / "paper").write_text(SMALL)
    assert len(read_study("paper").jobs) == 1, "but a file does"


# --- plain baselines ---

PLAIN = ["logistic", "extra_trees", "nearest", "commonest"]


def test_every_study_has_baselines_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    study = parse(SMALL + "seeds: 2")
    assert [model.label for model in study.models] == ["qvit_4q2h", *PLAIN, "dsconv_4q2h_matched"]
    assert [job.model.label for job in study.jobs] == 2 * ["qvit_4q2h", *PLAIN, "dsconv_4q2h_matched"]
    assert [model.label for model in parse(SMALL + "baselines: never").models] == ["qvit_4q2h"]


def test_the_convolutional_network_is_matched_to_the_first_qvit() -> None:
    study = parse(
        "datasets: phantom\nbaselines: auto\nmodels: [vit_4q1h, {name: qvit_8q1h, options: {depth: 2}}, qvit_4q1h]\n"
    )
    last = study.models[-1]
    assert (last.label, last.options) == ("dsconv_8q1h_matched (depth=2)", {"depth": 2})
    assert study.jobs[-1].options["depth"] == 2
    assert "stacked" not in study.jobs[-1].options
    assert parse("datasets: phantom\nbaselines: auto\nmodels: vit_4q1h").models[-1].label == "dsconv"


def test_a_model_that_a_study_names_is_not_given_twice() -> None:
    study = parse("datasets: phantom\nmodels: [nearest, qvit_4q2h, {name: vit_4q1h, label: logistic}]\nbaselines: auto")
    assert [model.label for model in study.models] == [
        "nearest",
        "qvit_4q2h",
        "logistic",
        "extra_trees",
        "commonest",
        "dsconv_4q2h_matched",
    ]


def test_baselines_are_from_scratch_and_take_the_options_that_they_understand() -> None:
    study = parse(
        SMALL + TEACHERS + "baselines: auto\nregimes: {scratch: {warmup: 0.25}, kd: {teacher: t}}\n"
        "options: {epochs: 3, depth: 2, tta: never, stacked: true}\n"
        "overrides: [{where: {dataset: phantom}, set: {lr: 0.25, augment: none}}]"
    )
    given = {job.model.label: job.options for job in students(study) if job.model.label != "qvit_4q2h"}
    assert list(given) == [*PLAIN, "dsconv_4q2h_matched"]
    assert len(students(study)) == 2 + 5, "of each one run"
    rest = {"dataset": "phantom", "seed": 0, "tta": "never", "augment": "none"}
    for name in PLAIN:
        assert given[name] == rest | {"model": name}
    assert given["dsconv_4q2h_matched"] == rest | {
        "model": "dsconv_4q2h_matched", "depth": 2, "epochs": 3, "warmup": 0.25, "lr": 0.25,
    }  # fmt: skip


def test_what_a_baseline_is_told_itself_is_not_dropped() -> None:
    with pytest.raises(ConfigError, match="logistic is fitted, not trained by steps, so it takes no epochs"):
        parse("datasets: phantom\nmodels: {name: logistic, options: {epochs: 3}}")


# --- any study ---

_kinds = st.lists(st.sampled_from(["qvit", "vit", "cosine", "unlu"]), min_size=1, max_size=3, unique=True)


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(
    datasets=st.lists(
        st.sampled_from(["phantom", "breastmnist", "own.npz", "sub/mine.npz"]), min_size=1, max_size=4, unique=True
    ),
    kinds=_kinds,
    qubits=st.lists(st.integers(2, 9), min_size=1, max_size=3, unique=True),
    heads=st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True),
    layers=st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True),
    seeds=st.one_of(st.integers(1, 4), st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True)),
    regimes=st.integers(0, 2),
    members=st.integers(1, 3),
)
def test_students_are_datasets_times_models_times_regimes_times_seeds(
    datasets: list[str],
    kinds: list[str],
    qubits: list[int],
    heads: list[int],
    layers: list[int],
    seeds: Any,
    regimes: int,
    members: int,
) -> None:
    said = {
        "datasets": datasets,
        "models": [{"kind": kinds, "qubits": qubits, "heads": heads, "layers": layers}],
        "seeds": seeds,
        "teachers": {"t": [{"arch": "vit_4q1h", "seeds": members}]},
        "regimes": {"scratch": None} | {f"kd{k}": {"teacher": "t", "temperature": k + 1.0} for k in range(regimes)},
    }
    study = parse(yaml.safe_dump(said))
    deep = sum(kind in ("qvit", "unlu") for kind in kinds)
    models = (deep * len(layers) + len(kinds) - deep) * len(qubits) * len(heads)
    count = seeds if isinstance(seeds, int) else len(seeds)
    assert len(study.models) == models
    assert len(students(study)) == len(datasets) * models * (1 + regimes) * count
    assert len(teachers(study)) == (len(datasets) * members if regimes else 0)
    assert len({(j.role, j.dataset, j.model.label, j.regime, j.seed) for j in study.jobs}) == len(study.jobs)


# --- every key ---

FULL = {
    "title": "One", "description": "what", "datasets": "phantom", "seeds": 2, "stack": "auto", "options": {"epochs": 3},
    "baselines": "auto",
    "models": {"kind": "qvit"}, "teachers": {"t": [{"arch": "vit_4q1h"}]},
    "regimes": {"scratch": None, "kd": {"teacher": "t"}},
    "overrides": [{"where": {"seed": 0}, "set": {"lr": 0.25}}],
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "title": "Other", "description": "other", "datasets": "breastmnist", "seeds": 3, "stack": "never",
    "baselines": "never",
    "options": {"epochs": 4}, "models": {"kind": "vit"}, "teachers": {"t": [{"arch": "vit_8q1h"}]},
    "regimes": {"scratch": None},
    "overrides": [{"where": {"seed": 0}, "set": {"lr": 0.5}}],
}  # fmt: skip
OF_MODELS: dict[str, Any] = {
    "name": {"name": "vit_4q2h"}, "kind": {"kind": "cosine"}, "qubits": {"kind": "qvit", "qubits": 6},
    "heads": {"kind": "qvit", "heads": 1}, "layers": {"kind": "qvit", "layers": 3},
    "recipe": {"kind": "qvit", "recipe": "defaults"},
    "label": {"kind": "qvit", "label": "ours"}, "options": {"kind": "qvit", "options": {"dropout": 0.5}},
}  # fmt: skip
WHERE = {"dataset": "phantom", "model": "qvit_4q2h", "regime": "kd", "seed": 0, "teacher": "t"}
NOBODY = {"dataset": "other", "model": "vit*", "regime": "hot", "seed": 9, "teacher": "u"}


def essence(said: dict[str, Any]) -> tuple[Any, ...]:
    study = parse(yaml.safe_dump(said))
    jobs = [(job.name, sorted(job.options.items())) for job in study.jobs]
    return study.title, study.description, study.datasets, study.seeds, repr(study.models), study.regimes, repr(jobs)


def test_every_key_of_a_study_bites() -> None:
    assert set(FULL) == set(CHANGES) == set(reading.KEYS)
    found = [essence(FULL), *(essence(FULL | {key: value}) for key, value in CHANGES.items())]
    assert len(set(found)) == len(found)


def test_every_key_of_a_model_bites() -> None:
    assert set(OF_MODELS) == set(grid.KEYS)
    found = [essence(FULL), *(essence(FULL | {"models": entry}) for entry in OF_MODELS.values())]
    assert len(set(found)) == len(found)


def test_every_key_of_an_override_chooses() -> None:
    assert set(WHERE) == set(NOBODY) == set(reading.WHERE_KEYS)
    for key, value in WHERE.items():
        entry = {"where": {key: value}, "set": {"patience": 77}}
        assert essence(FULL | {"overrides": [entry]}) != essence(FULL | {"overrides": []})
        where = {key: [str(NOBODY[key])]}
        with pytest.raises(ConfigError) as caught:
            parse(yaml.safe_dump(FULL | {"overrides": [entry | {"where": {key: NOBODY[key]}}]}))
        assert str(caught.value) == f"Study study: No run fits the override where {where}; check its names."


# --- scalars ---


def test_octal_and_other_scalars_of_yaml_1_1_are_what_1_2_says() -> None:
    study = parse("datasets: phantom\nmodels: qvit_4q2h\nseeds: [010]\noptions: {epochs: 017}")
    assert study.seeds == (10,)
    assert study.jobs[0].run.train.epochs == 17


def test_a_dataset_may_be_a_path_with_options(tmp_path: Path) -> None:
    text = """
    datasets:
      - phantom
      - {path: cells, size: 32, group_by: "p([0-9]+)", fit: pad}
    models: vit_4q1h
    teachers: {t: {arch: vit_8q1h}}
    regimes: {scratch: , kd: {teacher: t}}
    """
    (tmp_path / "cells").mkdir()
    study = parse_study(text.replace("path: cells", "path: ./cells"), name="own", folder=tmp_path)
    own = [job.run for job in study.jobs if job.dataset != "phantom"]
    assert len(own) == 3, "a teacher and two students"
    assert {run.dataset for run in own} == {str(tmp_path / "cells")}
    assert {(run.size, run.importing) for run in own} == {(32, ImportOptions(group_by="p([0-9]+)", fit="pad"))}
    others = [job.run for job in study.jobs if job.dataset == "phantom"]
    assert {(run.size, run.importing) for run in others} == {(28, ImportOptions())}
