"""A study's file: the runs that it means, and what is said of one that means none."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.distill.pipeline import DistillationConfig
from qvit.errors import ConfigError
from qvit.study import grid, reading, values
from qvit.study.reading import parse_study, read_study, shipped_studies
from qvit.study.spec import Job, Study, restrict
from qvit.training.options import RunConfig

SMALL = "datasets: phantom\nmodels: qvit_4q2h\n"
TEACHERS = "teachers: {t: [{arch: vit_4q1h}]}\n"


def parse(text: str, **more: Any) -> Study:
    return parse_study(text, name="study", **more)


def labels(models: str) -> list[str]:
    return [model.label for model in parse(f"datasets: phantom\nmodels: {models}").models]


def students(study: Study) -> list[Job]:
    return [job for job in study.jobs if job.role == "student"]


def teachers(study: Study) -> list[Job]:
    return [job for job in study.jobs if job.role == "teacher"]


# --- models ---


def test_a_grid_is_kind_times_qubits_times_heads_times_layers() -> None:
    found = labels("{kind: [qvit, unlu], qubits: [4, 6], heads: [1, 2], layers: [1, 3]}")
    plain = [f"{kind}_{q}q{h}h" for h in (1, 2) for q in (4, 6) for kind in ("qvit", "unlu")]
    assert found == [*plain, *(f"{name} (3 layers)" for name in plain)]


def test_kinds_without_layers_come_once() -> None:
    assert labels("{kind: [qvit, vit, cosine], qubits: 4, heads: 2, layers: [1, 2]}") == [
        "qvit_4q2h",
        "vit_4q2h",
        "cosine_4q2h",
        "qvit_4q2h (2 layers)",
    ]
    # Of several layers alone, too: a vit has no such option, and would not train with it.
    assert labels("{kind: [qvit, vit], layers: [2, 3]}") == ["qvit_4q2h (2 layers)", "vit_4q2h", "qvit_4q2h (3 layers)"]
    [vit] = parse("datasets: phantom\nmodels: {kind: vit, layers: 2}").models
    assert (vit.layers, vit.options) == (None, {})


def test_a_matched_model_has_the_layers_of_its_qvit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_check_options", lambda jobs: None)  # builds it, to match it
    found = parse("datasets: phantom\nmodels: {kind: vit_matched, qubits: 8, layers: [1, 2]}").models
    assert [(m.name, m.label, m.kind, m.layers) for m in found] == [
        ("vit_8q2h_matched", "vit_8q2h_matched", "vit_matched", 1),
        ("vit_8q2h_matched", "vit_8q2h_matched (2 layers)", "vit_matched", 2),
    ]


def test_what_a_name_says() -> None:
    qvit, resnet = parse("datasets: phantom\nmodels: [qvit_6q3h, resnet18]").models
    assert (qvit.kind, qvit.qubits, qvit.heads, qvit.layers) == ("qvit", 6, 3, 1)
    assert (resnet.kind, resnet.qubits, resnet.heads, resnet.layers) == ("resnet18", None, None, None)


def test_labels() -> None:
    models = (
        "[{name: qvit_4q2h, label: 'ours,   of old'}, {name: qvit_4q2h, options: {depth: 2, n_layers: 3, lr: 0.1}}]"
    )
    assert labels(models) == ["ours, of old", "qvit_4q2h (depth=2, 3 layers, lr=0.1)"]
    [_, other] = parse(f"datasets: phantom\nmodels: {models}").models
    assert other.layers == 3
    assert labels("{name: [qvit_4q2h, vit_4q2h], layers: [1, 2]}") == ["qvit_4q2h", "vit_4q2h", "qvit_4q2h (2 layers)"]


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


# --- a part of a study ---


def test_restrict() -> None:
    study = parse(
        "datasets: [phantom, own.npz]\nmodels: qvit_4q2h\nseeds: [4, 5, 6]\n"
        "teachers: {t: [{arch: vit_4q1h, seeds: [8, 9]}]}\nregimes: {scratch: , kd: {teacher: t}}",
        folder=Path("/data"),
    )
    assert restrict(study) == study
    part = restrict(study, datasets=["own"], seeds=2)
    assert (part.datasets, part.seeds, part.text) == (("/data/own.npz",), (4, 5), study.text)
    assert Counter((job.role, job.seed) for job in part.jobs) == {
        ("teacher", 8): 1,
        ("teacher", 9): 1,
        ("student", 4): 2,
        ("student", 5): 2,
    }
    assert restrict(study, datasets=["own.npz", "phantom"]) == study
    for wrong, told in (
        (
            {"datasets": ["phantm"]},
            "The study study has no dataset 'phantm'. Did you mean 'phantom'? It has: phantom, own.",
        ),
        ({"seeds": 0}, "The study study has 3 seeds: --seeds must be from 1 to that number, got 0."),
        ({"seeds": 4}, "The study study has 3 seeds: --seeds must be from 1 to that number, got 4."),
    ):
        with pytest.raises(ConfigError) as caught:
            restrict(study, **wrong)  # type: ignore[arg-type]
        assert str(caught.value) == told


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
    "title": "One", "description": "what", "datasets": "phantom", "seeds": 1, "options": {"epochs": 3},
    "models": {"kind": "qvit"}, "teachers": {"t": [{"arch": "vit_4q1h"}]},
    "regimes": {"scratch": None, "kd": {"teacher": "t"}},
    "overrides": [{"where": {"seed": 0}, "set": {"lr": 0.25}}],
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "title": "Other", "description": "other", "datasets": "breastmnist", "seeds": 2, "options": {"epochs": 4},
    "models": {"kind": "vit"}, "teachers": {"t": [{"arch": "vit_8q1h"}]}, "regimes": {"scratch": None},
    "overrides": [{"where": {"seed": 0}, "set": {"lr": 0.5}}],
}  # fmt: skip
OF_MODELS: dict[str, Any] = {
    "name": {"name": "vit_4q2h"}, "kind": {"kind": "cosine"}, "qubits": {"kind": "qvit", "qubits": 6},
    "heads": {"kind": "qvit", "heads": 1}, "layers": {"kind": "qvit", "layers": 3},
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


@pytest.mark.parametrize("key", values.GIVEN)
def test_what_a_study_gives_no_options_set(key: str) -> None:
    for place, said in (
        ("options", {"options": {key: 1}}),
        ("a model's options", {"models": {"kind": "qvit", "options": {key: 1}}}),
        ("teacher t", {"teachers": {"t": [{"arch": "vit_4q1h", key: 1}]}}),
        ("regime kd", {"regimes": {"kd": {"teacher": "t", key: 1}}}),
        ("set", {"overrides": [{"where": {"seed": 0}, "set": {key: 1}}]}),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(yaml.safe_dump(FULL | said))
        assert str(caught.value) == (
            f"Study study: {place} cannot set '{key}': the study's datasets, models, seeds and regimes do."
        )


# --- mistakes ---


def models(entry: str) -> str:
    return f"datasets: phantom\nmodels: {entry}"


def member(entry: str) -> str:
    return SMALL + f"teachers: {{t: [{{{entry}}}]}}\nregimes: {{kd: {{teacher: t}}}}"


def regime(options: str) -> str:
    return SMALL + TEACHERS + f"regimes: {{kd: {{{options}}}}}"


def override(entry: str) -> str:
    return SMALL + TEACHERS + f"regimes: {{scratch: , kd: {{teacher: t}}}}\noverrides: [{{{entry}}}]"


MISTAKES = [
    # the file as a whole
    ("", "a study must hold `key: value` lines, got None."),
    ("- datasets", "a study must hold `key: value` lines, got ['datasets']."),
    ("just words", "a study must hold `key: value` lines, got 'just words'."),
    ("datasets: [phantom", "The study study is not valid YAML: line 1: while parsing …"),
    ("datasets: 2024-13-45", "Unknown dataset '2024-13-45'. Expected one of: …"),
    ("datasets: x\ndatasets: y", "The study study is not valid YAML: line 2: the key 'datasets' appears twice."),
    ("datasets: [" * 70 + "]" * 70, "The study study is not valid YAML: it is nested too deeply."),
    ("? [1, 2]\n: 3", "The study study is not valid YAML: line 1: a key must be a single value."),
    ("title: !!python/object:os.system x", "The study study is not valid YAML: line 1: could not determine …"),
    (
        SMALL + "dataset: phantom",
        "a study has no key 'dataset'. Did you mean 'datasets'? Known: title, description, datasets, models, "
        "seeds, options, teachers, regimes, overrides.",
    ),
    (
        SMALL + "5: x",
        "a study has no key '5'. Known: title, description, datasets, models, seeds, options, teachers, regimes, "
        "overrides.",
    ),
    (
        SMALL + '"a\\nb": x',
        "a study has no key 'a b'. Known: title, description, datasets, models, seeds, options, teachers, regimes, "
        "overrides.",
    ),
    (SMALL + "title: 5", "title must be text, got 5."),
    (SMALL + "title: false", "title must be text, got False."),
    (SMALL + "title: ''", "title must be text, got ''."),
    (SMALL + "description: [a]", "description must be text, got ['a']."),
    # datasets
    ("models: qvit_4q2h", "datasets must name at least one."),
    ("datasets: []\nmodels: qvit_4q2h", "datasets must name at least one."),
    ("datasets: [phantom, phantom]\nmodels: qvit_4q2h", "datasets names 'phantom' twice."),
    ("datasets: [a/x.npz, b/x.npz]\nmodels: qvit_4q2h", "Two datasets are called 'x'; rename a file."),
    (
        "datasets: retinamist\nmodels: qvit_4q2h",
        "Unknown dataset 'retinamist'. Did you mean 'retinamnist'? Expected one of: …",
    ),
    ("datasets: [5]\nmodels: qvit_4q2h", "datasets must be names or paths of .npz files, got 5."),
    ("datasets: [[phantom]]\nmodels: qvit_4q2h", "datasets must be names or paths of .npz files, got ['phantom']."),
    ("datasets: {phantom: 1}\nmodels: qvit_4q2h", "datasets must be names or paths of .npz files, got {'phantom': 1}."),
    (
        "datasets: &a [*a]\nmodels: qvit_4q2h",
        "The study study is nested too deeply: more than 64 mappings or lists within one another.",
    ),
    (
        "datasets: '~nobody-here/x.npz'\nmodels: qvit_4q2h",
        "Cannot use the path ~nobody-here/x.npz: Could not determine home directory. Write the home folder in full, or "
        "./~nobody-here/x.npz for a file of this name.",
    ),
    # models
    ("datasets: phantom", "models must name at least one."),
    (models("5"), "an entry of models must hold `key: value` lines, got 5."),
    (models("[null]"), "an entry of models must hold `key: value` lines, got None."),
    (models("[[qvit_4q2h]]"), "an entry of models must hold `key: value` lines, got ['qvit_4q2h']."),
    (models("{}"), "An entry of models has either a name or a kind, got {}."),
    (
        models("{kind: qvit, name: qvit_4q2h}"),
        "An entry of models has either a name or a kind, got {'kind': 'qvit', 'name': 'qvit_4q2h'}.",
    ),
    (
        models("{kind: qvit, qubit: 4}"),
        "an entry of models has no key 'qubit'. Did you mean 'qubits'? Known: name, kind, qubits, heads, layers, "
        "label, options.",
    ),
    (
        models("{name: qvit_4q2h, qubits: 4}"),
        "The name 'qvit_4q2h' says its qubits and heads; leave them out, or use kind.",
    ),
    (
        models("qivt_4q2h"),
        "phantom qivt_4q2h scratch seed 0: There is no model 'qivt_4q2h'. Did you mean 'qvit_4q2h'? Names are …",
    ),
    (models("{name: 5}"), "name must be text, got 5."),
    (
        models("{kind: qivt}"),
        "There is no kind 'qivt'. Did you mean 'qvit'? Known: qvit, vit, cosine, identity, no_entangler, frozen, "
        "givens, circulant, unlu.",
    ),
    (models("{kind: [qvit, [vit]]}"), "kind must be text, got ['vit']."),
    (
        models("{kind: qvit_matched}"),
        "phantom qvit_4q2h_matched scratch seed 0: Other kinds are matched to the qvit, which cannot be matched "
        "itself; use vit_4q2h_matched, say.",
    ),
    (models("{kind: qvit, qubits: four}"), "qubits must be whole numbers of at least 1, got 'four'."),
    (models("{kind: qvit, qubits: '4'}"), "qubits must be whole numbers of at least 1, got '4'."),
    (models("{kind: qvit, qubits: [[4]]}"), "qubits must be whole numbers of at least 1, got [4]."),
    (models("{kind: qvit, qubits: 0}"), "qubits must be whole numbers of at least 1, got 0."),
    (models("{kind: qvit, qubits: []}"), "qubits must name at least one."),
    (models("{kind: qvit, qubits: null}"), "qubits must name at least one."),
    (models("{kind: qvit, heads: []}"), "heads must name at least one."),
    (models("{kind: qvit, layers: []}"), "layers must name at least one."),
    (models("{kind: []}"), "kind must name at least one."),
    (models("{name: []}"), "name must name at least one."),
    (models("[]"), "models must name at least one."),
    (models("{kind: qvit, heads: [2, 2]}"), "heads names 2 twice."),
    (models("{kind: qvit, heads: 1.5}"), "heads must be whole numbers of at least 1, got 1.5."),
    (models("{kind: qvit, heads: true}"), "heads must be whole numbers of at least 1, got True."),
    (models("{kind: qvit, layers: 0}"), "layers must be whole numbers of at least 1, got 0."),
    (
        models("{kind: qvit, layers: 2, options: {n_layers: 3}}"),
        "An entry of models has either layers or the option n_layers, got {'kind': 'qvit', 'layers': 2, 'options': "
        "{'n_layers': 3}}.",
    ),
    (models("{kind: qvit, options: {n_layers: many}}"), "n_layers must be whole numbers of at least 1, got 'many'."),
    (models("{kind: qvit, options: {n_layers: null}}"), "n_layers must be whole numbers of at least 1, got None."),
    (models("{kind: qvit, options: [lr]}"), "a model's options must hold `key: value` lines, got ['lr']."),
    (
        models("{kind: qvit, options: {seed: 3}}"),
        "a model's options cannot set 'seed': the study's datasets, models, seeds and regimes do.",
    ),
    (
        models("{kind: qvit, options: {student: vit_4q2h}}"),
        "a model's options cannot set 'student': the study's datasets, models, seeds and regimes do.",
    ),
    (
        models("{kind: qvit, options: {depth: many}}"),
        "phantom qvit_4q2h (depth=many) scratch seed 0: Option depth='many': Input should be …",
    ),
    (
        models("{kind: qvit, options: {depth: 2024-01-01}}"),
        "phantom qvit_4q2h (depth=2024-01-01) scratch seed 0: Option depth='2024-01-01': Input should be …",
    ),
    (
        models("{kind: vit, options: {ansatz: ry_ring}}"),
        "phantom vit_4q2h (ansatz=ry_ring) scratch seed 0: The linear projection has no option 'ansatz' (it takes "
        "bias).",
    ),
    (
        models("{name: resnet18, options: {depth: 3}}"),
        "phantom resnet18 (depth=3) scratch seed 0: resnet18 has no option 'depth'. Did you mean 'width'? Known: …",
    ),
    (models("{kind: qvit, label: 5}"), "label must be text, got 5."),
    (models("{kind: qvit, label: ' '}"), "label must be text, got ' '."),
    (
        models(f"{{kind: qvit, qubits: {list(range(1, 102))}, heads: {list(range(1, 11))}}}"),
        "models must be at most 1,000 in number, got 1,010; make several studies of it.",
    ),
    (
        models(str([f"qvit_{n}q1h" for n in range(1, 1002)])),
        "models must be at most 1,000 in number, got 1,001; make several studies of it.",
    ),
    (models("{kind: qvit, qubits: 1_0}"), "qubits must be whole numbers of at least 1, got '1_0'."),
    (
        models("{kind: qvit, qubits: 99999999999999999999}"),
        "The study study is not valid YAML: the whole number 99999999999999999999… is too large, of more than 64 bits.",
    ),
    (
        models("{kind: [qvit, vit], label: ours}"),
        "The label 'ours' would be that of 2 models; give each an entry of its own.",
    ),
    (models("[qvit_4q2h, qvit_4q2h]"), "models names 'qvit_4q2h' twice."),
    (models("[qvit_4q2h, {kind: qvit}]"), "models names 'qvit_4q2h' twice; give one a label."),
    (models("[{name: qvit_4q2h, label: a}, {name: vit_4q2h, label: a}]"), "models names 'a' twice; give one a label."),
    # seeds
    (SMALL + "seeds: 0", "seeds must be whole numbers of at least 1, got 0."),
    (SMALL + "seeds: many", "seeds must be whole numbers of at least 1, got 'many'."),
    (SMALL + "seeds: 2.0", "seeds must be whole numbers of at least 1, got 2.0."),
    (SMALL + "seeds: yes", "seeds must be whole numbers of at least 1, got 'yes'."),
    (SMALL + "seeds: 1e18", "seeds must be whole numbers of at least 1, got 1e+18."),
    (SMALL + "seeds: 1_000", "seeds must be whole numbers of at least 1, got '1_000'."),
    (
        SMALL + "seeds: 1000000000000000000",
        "seeds must be at most 10,000 in number, got 1,000,000,000,000,000,000; make several studies of it.",
    ),
    (
        SMALL.replace("qvit_4q2h", "[vit_4q1h, vit_4q2h, qvit_4q2h]") + "seeds: 7000",
        "runs must be at most 20,000 in number, got 21,000; make several studies of it.",
    ),
    (SMALL + "seeds:", "seeds must be whole numbers of at least 1, got None."),
    (SMALL + "seeds: []", "seeds must name at least one."),
    (SMALL + "seeds: [1, 1]", "seeds names 1 twice."),
    (SMALL + "seeds: [0, 9223372036854775808]", "seeds must be at most 9223372036854775807, got 9223372036854775808."),
    (SMALL + "seeds: [-1]", "seeds must be whole numbers of at least 0, got -1."),
    # options
    (SMALL + "options: []", "options must hold `key: value` lines, got []."),
    (SMALL + "options: 0", "options must hold `key: value` lines, got 0."),
    (SMALL + "options: epochs", "options must hold `key: value` lines, got 'epochs'."),
    (
        SMALL + "options: {epoch: 3}",
        "phantom qvit_4q2h scratch seed 0: There is no option 'epoch'. Did you mean 'epochs'? Known options: …",
    ),
    (SMALL + "options: {epochs: [3]}", "phantom qvit_4q2h scratch seed 0: Option epochs=[3]: Input should be …"),
    (SMALL + "options: {epochs: 0}", "phantom qvit_4q2h scratch seed 0: epochs must be at least 1, got 0."),
    (
        SMALL + "options: {dataset: phantom}",
        "options cannot set 'dataset': the study's datasets, models, seeds and regimes do.",
    ),
    (
        SMALL + "options: {n_layers: 2}",
        "options cannot set 'n_layers': the study's datasets, models, seeds and regimes do.",
    ),
    (
        SMALL + "options: {temperature: 2}",
        "phantom qvit_4q2h scratch seed 0: There is no option 'temperature'. Known options: …",
    ),
    # teachers
    (SMALL + "teachers: []", "teachers must hold `key: value` lines, got []."),
    (SMALL + "teachers: {t: resnet18}", "a member of teacher t must hold `key: value` lines, got 'resnet18'."),
    (SMALL + "teachers: {t: }", "teacher t must name at least one."),
    (SMALL + "teachers: {t: [{arch: resnet18, datasets: []}]}", "datasets of teacher t must name at least one."),
    (SMALL + "regimes: []", "regimes must name at least one."),
    (SMALL + "overrides: [{where: {regime: []}, set: {lr: 1}}]", "where regime must name at least one."),
    (
        member("arch: resnet81"),
        "phantom resnet81 t seed 0: There is no model 'resnet81'. Did you mean 'resnet18'? Names are …",
    ),
    (member("arch: [vit]"), "arch of teacher t must be text, got ['vit']."),
    (member("arch: vit_4q1h, seeds: x"), "seeds of teacher t must be whole numbers of at least 1, got 'x'."),
    (member("datasets: breastmnist"), "Teacher t is for breastmnist, which is not among the study's datasets."),
    (member("datasets: phantm"), "Unknown dataset 'phantm'. Did you mean 'phantom'? Expected one of: …"),
    (member("model: vit"), "teacher t cannot set 'model': the study's datasets, models, seeds and regimes do."),
    (
        member("widht: 2"),
        "phantom resnet18 t seed 0: There is no option 'widht'. Did you mean 'width'? Known options: …",
    ),
    (member("width: wide"), "phantom resnet18 t seed 0: Option width='wide': Input should be …"),
    (
        member("size: 64"),
        "Runs on phantom differ in size or task, teachers among them; give all of them the same, or make another "
        "study.",
    ),
    (
        member("seeds: 2000"),
        "runs of teacher t must be at most 1,000 in number, got 2,000; make several studies of it.",
    ),
    (member("seeds: 2}, {seeds: [1]"), "Teacher t names resnet18 with seed 1 twice."),
    (
        "datasets: [phantom, breastmnist]\nmodels: qvit_4q2h\nregimes: {kd: {teacher: t}}\n"
        "teachers: {t: [{arch: vit_4q1h, datasets: phantom}]}",
        "Teacher t has no member for breastmnist.",
    ),
    # regimes
    (SMALL + "regimes: kd", "regimes must hold `key: value` lines, got 'kd'."),
    (SMALL + "regimes: {null: }", "regimes has the key None, which must be text; put it in quotes or rename it."),
    (
        SMALL + TEACHERS + "regimes: {1: {teacher: t}, '1': {teacher: t}}",
        "regimes has the key 1, which must be text; put it in quotes or rename it.",
    ),
    (SMALL + "regimes: [kd]", "Regime kd needs a teacher; only 'scratch' has none."),
    (SMALL + "regimes: [[scratch]]", "a regime must be text, got ['scratch']."),
    (SMALL + "regimes: [scratch, scratch]", "regimes names 'scratch' twice."),
    (
        SMALL + TEACHERS + "regimes: {scratch: {teacher: t}}",
        "The regime 'scratch' has no teacher; give this one another name.",
    ),
    (
        SMALL + "regimes: {scratch: {alpha: 0.5}}",
        "phantom qvit_4q2h scratch seed 0: There is no option 'alpha'. Known options: …",
    ),
    (SMALL + "regimes: {scratch: 5}", "regime scratch must hold `key: value` lines, got 5."),
    (
        SMALL + "regimes: {kd: {teacher: t}}",
        "Regime kd learns from 't', which is not among the teachers (there are none).",
    ),
    (regime("teacher: null"), "Regime kd needs a teacher; only 'scratch' has none."),
    (regime("teacher: tt"), "Regime kd learns from 'tt', which is not among the teachers (t). Did you mean 't'?"),
    (regime("teacher: [t]"), "Regime kd learns from '['t']', which is not among the teachers (t)."),
    (regime("teacher: {t: 1}"), "Regime kd learns from '{'t': 1}', which is not among the teachers (t)."),
    (
        regime("teacher: t, temprature: 2"),
        "phantom qvit_4q2h kd seed 0: There is no option 'temprature'. Did you mean 'temperature'? Known options: …",
    ),
    (
        regime("teacher: t, temperature: hot"),
        "phantom qvit_4q2h kd seed 0: Option temperature='hot': Input should be …",
    ),
    (
        regime("teacher: t, alpha: 2"),
        "phantom qvit_4q2h kd seed 0: alpha must be from 0 (labels alone) to 1 (the teacher alone), got 2.0.",
    ),
    (
        regime("teacher: t, pretrain: 5"),
        "phantom qvit_4q2h kd seed 0: pretrain must hold `key: value` options of training, such as `lr: 0.001`, got 5.",
    ),
    (
        regime("teacher: t, pretrain: {epoch: 5}"),
        "phantom qvit_4q2h kd seed 0: There is no option 'epoch' for pretrain. Did you mean 'epochs'? A stage has "
        "the options of training: epochs, batch_size, lr, weight_decay, schedule, warmup, clip_norm, loss, "
        "label_smoothing, class_weights, augment, tta, patience, device, threads.",
    ),
    (
        regime("teacher: t, transfer_set: breastmnst"),
        "Unknown dataset 'breastmnst'. Did you mean 'breastmnist'? Expected one of: …",
    ),
    (
        regime("teacher: t, student: vit_4q2h"),
        "regime kd cannot set 'student': the study's datasets, models, seeds and regimes do.",
    ),
    (
        regime("teacher: t, scratch: true"),
        "regime kd cannot set 'scratch': the study's datasets, models, seeds and regimes do.",
    ),
    # overrides
    (
        SMALL + f"overrides: {list(range(201))}",
        "overrides must be at most 200 in number, got 201; make several studies of it.",
    ),
    (SMALL + "overrides: 5", "an override must hold `key: value` lines, got 5."),
    (SMALL + "overrides: words", "an override must hold `key: value` lines, got 'words'."),
    (override(""), "where must hold `key: value` lines, got None."),
    (override("where: {seed: 0}"), "An override has a `where` that names runs and a `set` of options."),
    (override("where: {}, set: {lr: 0.1}"), "An override has a `where` that names runs and a `set` of options."),
    (
        override("where: {sede: 0}, set: {lr: 0.1}"),
        "where has no key 'sede'. Did you mean 'seed'? Known: dataset, model, regime, seed, teacher.",
    ),
    (
        override("where: {seed: 0}, sets: {lr: 0.1}"),
        "an override has no key 'sets'. Did you mean 'set'? Known: where, set.",
    ),
    (override("where: {seed: 5}, set: {lr: 0.1}"), "No run fits the override where {'seed': ['5']}; check its names."),
    (
        override("where: {model: 'vit_*'}, set: {lr: 0.1}"),
        "No run fits the override where {'model': ['vit_*']}; check its names.",
    ),
    (
        override("where: {teacher: t, regime: kd}, set: {lr: 0.1}"),
        "No run fits the override where {'teacher': ['t'], 'regime': ['kd']}; check its names.",
    ),
    (
        override("where: {regime: scratch}, set: {temperature: 2}"),
        "phantom qvit_4q2h scratch seed 0: There is no option 'temperature'. Known options: …",
    ),
    (
        override("where: {regime: kd}, set: {teacher: t}"),
        "phantom qvit_4q2h kd seed 0: There is no option 'teacher'. Known options: …",
    ),
    (
        override("where: {regime: kd}, set: {model: vit_4q2h}"),
        "set cannot set 'model': the study's datasets, models, seeds and regimes do.",
    ),
    (
        override("where: {regime: kd}, set: {student: vit_4q2h}"),
        "set cannot set 'student': the study's datasets, models, seeds and regimes do.",
    ),
    (override("where: {seed: 0}, set: {lr: -1}"), "phantom qvit_4q2h scratch seed 0: lr must be positive, got -1.0."),
    (
        override("where: {regime: kd}, set: {size: 64}"),
        "Runs on phantom differ in size or task, teachers among them; give all of them the same, or make another "
        "study.",
    ),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    found = str(caught.value).removeprefix("Study study: ")
    if told.endswith(" …"):  # the rest is another package's
        assert found.startswith(told.removesuffix("…"))
    else:
        assert found == told
    assert "study" in str(caught.value), "it says which study"


def test_mistakes_in_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path, told in (
        (Path("missing.yaml"), "Cannot read the study missing.yaml: there is no such file."),
        (Path("smok"), "Cannot read the study smok: there is no such file. Did you mean 'smoke'?"),
        (tmp_path, "expected a regular file, found a folder"),
        (Path("/dev/zero"), "expected a regular file, found a pipe or a device"),
        (tmp_path / "bytes.yaml", "expected text in UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_study(path)
        found, _, rest = str(caught.value).rpartition(" Name a")
        assert f"{told} Name a{rest}" == f"{told} Name a YAML file or one of: controls, paper, scaling, smoke."
        assert told in found
        assert told == found or not told.startswith("Cannot")


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["datasets", "models", "seeds", "options", "teachers", "regimes", "overrides", "title", "x"]),
        st.recursive(
            st.one_of(
                st.none(), st.booleans(), st.integers(-2, 9), st.sampled_from([10**9, 10**18, 10**30]),
                st.floats(allow_nan=False), st.dates(),
                st.sampled_from(["phantom", "qvit_4q2h", "kd", "scratch", "t", "", "a.npz"]),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(["kind", "name", "t", "kd", "teacher", "arch", "where", "set", "lr", "seed"]),
                    inner,
                    max_size=3,
                ),
            ),
            max_leaves=6,
        ),
    )
)  # fmt: skip
def test_nothing_but_config_errors(said: dict[str, Any]) -> None:
    for text in (yaml.safe_dump(said), yaml.safe_dump({"datasets": "phantom", "models": "qvit_4q2h"} | said)):
        with suppress(ConfigError):
            parse(text)


def test_octal_and_other_scalars_of_yaml_1_1_are_what_1_2_says() -> None:
    study = parse("datasets: phantom\nmodels: qvit_4q2h\nseeds: [010]\noptions: {epochs: 017}")
    assert study.seeds == (10,)
    assert study.jobs[0].run.train.epochs == 17
