"""Mistakes in a study's file: each answered by the whole of a message that helps."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qvit.errors import ConfigError
from qvit.study.reading import read_study
from study.made import SMALL, TEACHERS, member, models, override, parse, regime

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
        "baselines, seeds, options, teachers, regimes, overrides, stack.",
    ),
    (
        SMALL + "5: x",
        "a study has no key '5'. Known: title, description, datasets, models, baselines, seeds, options, teachers, "
        "regimes, overrides, stack.",
    ),
    (
        SMALL + '"a\\nb": x',
        "a study has no key 'a b'. Known: title, description, datasets, models, baselines, seeds, options, teachers, "
        "regimes, overrides, stack.",
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
    ("datasets: [5]\nmodels: qvit_4q2h", "datasets must be names, or paths of files and folders, got 5."),
    (
        "datasets: [[phantom]]\nmodels: qvit_4q2h",
        "datasets must be names, or paths of files and folders, got ['phantom'].",
    ),
    (
        "datasets: {phantom: 1}\nmodels: qvit_4q2h",
        "a dataset has no key 'phantom'. Did you mean 'path'? Known: path, size, task, label, group_by, fit, channels, "
        "shares, split_seed, frames, bits, max_bad.",
    ),
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
        "recipe, label, options.",
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
    (models("{kind: qvit, options: {depth: [1, 2, 1]}}"), "depth names 1 twice."),
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
    (
        models("{name: qvit_4q2h, label: ours, options: {distort: [0, 1], lr: 0.1}}"),
        "The label 'ours' would be that of 2 models; give each an entry of its own.",
    ),
    (models("{name: qvit_4q2h, options: {distort: []}}"), "distort must name at least one."),
    (
        models("{kind: qvit, qubits: [2, 4], options: {epochs: %s, lr: %s}}" % ((list(range(1, 26)),) * 2)),
        "models must be at most 1,000 in number, got 1,250; make several studies of it.",
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
    (SMALL + "baselines: no", "baselines must be auto or never, got 'no'."),
    (SMALL + "stack: always", "stack must be auto or never, got 'always'."),
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
        SMALL + "options: {folds: 5, fold: 2, keep: last, tta: always}",
        "phantom qvit_4q2h scratch seed 0: a study compares runs on test images, which a run of a fold never sees. "
        "Leave folds and fold out; for folds use `qvit train DATASET --folds 5`.",
    ),
    (
        member("folds: 5, fold: 2, keep: last, tta: always"),
        "phantom resnet18 t seed 0: a study compares runs on test images, which a run of a fold never sees. "
        "Leave folds and fold out; for folds use `qvit train DATASET --folds 5`.",
    ),
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
        "phantom qvit_4q2h scratch seed 0: There is no option 'temperature'. Did you mean 'features'? Known options: …",
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
        "Runs on phantom differ in size, task or import, teachers among them; give all of them the same, or make "
        "another study.",
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
        "label_smoothing, class_weights, augment, distort, mixup, tta, keep, average, patience, device, threads.",
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
        "phantom qvit_4q2h scratch seed 0: There is no option 'temperature'. Did you mean 'features'? Known options: …",
    ),
    (
        override("where: {regime: kd}, set: {teacher: t}"),
        "phantom qvit_4q2h kd seed 0: There is no option 'teacher'. Did you mean 'stacked'? Known options: …",
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
        "Runs on phantom differ in size, task or import, teachers among them; give all of them the same, or make "
        "another study.",
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
