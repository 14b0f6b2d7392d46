"""Models of a study: grids of kinds, sizes and layers, and what they are called."""

from pathlib import Path

import pytest

from qvit.errors import ConfigError
from qvit.study import reading
from study.made import labels, parse


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


def test_recipes_are_an_axis(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("recipe: deep\nabout: x\nmodel: vit_8q1h\ndepth: 2\nlr: 0.1\n")
    entry = "{kind: [qvit, vit], layers: [1, 2], recipe: [defaults, deep.yaml], options: {lr: 0.5}}"
    found = parse(f"datasets: phantom\nmodels: {entry}", folder=tmp_path).models
    assert [model.label for model in found] == [
        *("qvit_4q2h (defaults, lr=0.5)", "vit_4q2h (defaults, lr=0.5)", "qvit_4q2h (defaults, lr=0.5, 2 layers)"),
        *("qvit_4q2h (deep, lr=0.5)", "vit_4q2h (deep, lr=0.5)", "qvit_4q2h (deep, lr=0.5, 2 layers)"),
    ]
    assert found[0].options == {"recipe": "defaults", "lr": 0.5}
    assert found[-1].options == {"recipe": "deep", "depth": 2, "lr": 0.5, "n_layers": 2}
    assert (found[-1].name, found[-1].layers) == ("qvit_4q2h", 2)
    [named] = parse(f"datasets: phantom\nmodels: {{name: vit_4q1h, recipe: {tmp_path}/deep.yaml, label: ours}}").models
    assert (named.label, named.options["depth"]) == ("ours", 2)
    with pytest.raises(ConfigError, match=r"Study study: Cannot read the options file .*no: there is no such file"):
        parse("datasets: phantom\nmodels: {kind: qvit, recipe: no}")


def test_options_may_have_several_values_each() -> None:
    models = (
        "{kind: [qvit, cosine], layers: [1, 2], options: {distort: [0, 1.5], lr: 0.1, keep: last, average: [1, 3]}}"
    )
    found = parse(f"datasets: phantom\nmodels: {models}").models
    plain = [
        f"{name} (distort={distort}, lr=0.1, keep=last, average={average}{layers})"
        for distort in (0, 1.5)
        for average in (1, 3)
        for name, layers in (("qvit_4q2h", ""), ("cosine_4q2h", ""), ("qvit_4q2h", ", 2 layers"))
    ]
    assert [model.label for model in found] == plain
    assert found[4].options == {"distort": 0, "lr": 0.1, "keep": "last", "average": 3}
    trained = parse(f"datasets: phantom\nmodels: {models}").jobs[4].run.train
    assert (trained.distort, trained.average) == (0.0, 3)


def test_null_leaves_an_option_out() -> None:
    models = "{kind: [qvit, vit], options: {features: [null, dct], depth: 2}}"
    assert labels(models) == [
        f"{kind}_4q2h ({features}depth=2)" for features in ("", "features=dct, ") for kind in ("qvit", "vit")
    ]
    [first, *_] = parse(f"datasets: phantom\nmodels: {models}").models
    assert first.options == {"depth": 2}
