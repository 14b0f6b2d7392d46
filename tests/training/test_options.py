"""Options: read, checked, converted or refused; none is dropped on its way to the run."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from data.picture_folders import picture, table
from qvit.data.options import IMPORT_KEYS, ImportOptions
from qvit.distill.options import resolve_distillation
from qvit.errors import ConfigError, QvitError
from qvit.models import model_config
from qvit.models.projections import PROJECTIONS
from qvit.models.vit import ViTConfig
from qvit.training.config import TrainConfig
from qvit.training.folder import Run
from qvit.training.options import (
    GIVEN,
    RUN_KEYS,
    TRAIN_KEYS,
    RunConfig,
    option_keys,
    parse_assignment,
    read_options,
    resolve,
)
from qvit.training.run import train_run

# A value other than the default for every key but dataset, and where config.json keeps it.
VALUES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "model": ("vit_4q1h", ("model",)),
    "seed": (7, ("seed",)),
    "size": (12, ("size",)),
    "task": ("ordinal", ("task",)),
    "stacked": (True, ("stacked",)),
    "folds": (4, ("folds",)),
    "fold": (2, ("fold",)),
    "recipe": ("mine", ("recipe",)),
    "epochs": (2, ("train", "epochs")),
    "batch_size": (16, ("train", "batch_size")),
    "lr": (0.01, ("train", "lr")),
    "weight_decay": (0.5, ("train", "weight_decay")),
    "schedule": ("constant", ("train", "schedule")),
    "warmup": (0.1, ("train", "warmup")),
    "clip_norm": (None, ("train", "clip_norm")),
    "loss": ("ce", ("train", "loss")),
    "label_smoothing": (0.1, ("train", "label_smoothing")),
    "class_weights": ("balanced", ("train", "class_weights")),
    "augment": ("none", ("train", "augment")),
    "distort": (1.5, ("train", "distort")),
    "mixup": (0.2, ("train", "mixup")),
    "tta": ("never", ("train", "tta")),
    "keep": ("last", ("train", "keep")),
    "average": (3, ("train", "average")),
    "patience": (5, ("train", "patience")),
    "device": ("cpu:0", ("train", "device")),
    "threads": (2, ("train", "threads")),
    "patch_size": (6, ("model_config", "patch_size")),
    "depth": (2, ("model_config", "depth")),
    "mlp_dim": (5, ("model_config", "mlp_dim")),
    "loops": (2, ("model_config", "loops")),
    "features": ("dct", ("model_config", "features")),
    "positions": ("row", ("model_config", "positions")),
    "attention_scale": (4.0, ("model_config", "attention_scale")),
    "learned_scale": (True, ("model_config", "learned_scale")),
    "readout": ("zz", ("model_config", "projection", "readout")),
    "pool": ("cls", ("model_config", "pool")),
    "dropout": (0.25, ("model_config", "dropout")),
    "n_layers": (2, ("model_config", "projection", "n_layers")),
    "ansatz": ("rx_ring", ("model_config", "projection", "ansatz")),
    "engine": ("statevector", ("model_config", "projection", "engine")),
    "bias": (False, ("model_config", "projection", "bias")),
    "network": ("butterfly", ("model_config", "projection", "network")),
    "resize": (16, ("model_config", "resize")),
    "stem": ("imagenet", ("model_config", "stem")),
    "width": (0.0625, ("model_config", "width")),
    "precision": ("bfloat16", ("model_config", "precision")),
    "pretrained": ("imagenet", ("model_config", "pretrained")),
    "filters": (5, ("model_config", "filters")),
    "pooled": (7, ("model_config", "pooled")),
    "stages": (3, ("model_config", "stages")),
    "penalty": (0.5, ("model_config", "penalty")),
    "trees": (7, ("model_config", "trees")),
    "neighbours": (4, ("model_config", "neighbours")),
}
# A value other than the default for every option of an import.
IMPORTS: dict[str, Any] = {
    "label": "kind",
    "group_by": "patient",
    "fit": "pad",
    "channels": "grey",
    "shares": [0.4, 0.3, 0.3],
    "split_seed": 3,
    "frames": "all",
    "bits": 12,
    "max_bad": 2,
}
NOTHING_CHOSEN = {"keep": "last", "tta": "never"}
NO_STEPS = {"epochs": 100, "batch_size": None}  # as if they were left out
COMPANIONS: dict[str, dict[str, Any]] = {
    "folds": {"fold": 1} | NOTHING_CHOSEN,
    "fold": {"folds": 3} | NOTHING_CHOSEN,
    "average": {"keep": "last"},
    "bias": {"model": "vit_4q1h"},
    "network": {"model": "givens_4q1h"},
    "resize": {"model": "resnet18", "width": 0.0625},
    "stem": {"model": "resnet18", "width": 0.0625},
    "width": {"model": "resnet18"},
    "precision": {"model": "resnet18", "width": 0.0625},
    "pretrained": {"model": "resnet18"},  # published weights have full width
    **{key: {"model": "dsconv"} for key in ("filters", "pooled", "stages")},
    "penalty": {"model": "logistic"} | NO_STEPS,
    "trees": {"model": "extra_trees"} | NO_STEPS,
    "neighbours": {"model": "nearest"} | NO_STEPS,
}


def test_keys_do_not_collide() -> None:
    keys = option_keys()
    assert len(set(keys)) == len(keys)
    own = {field.name for field in fields(ViTConfig)} - set(GIVEN)
    for row in PROJECTIONS.values():
        assert not own & (set(row.__dataclass_fields__) - {"kind"})
    assert set(RUN_KEYS) == {field.name for field in fields(RunConfig)} - {"model_options", "importing", "train"}
    assert set(IMPORT_KEYS) == {field.name for field in fields(ImportOptions)} == set(IMPORTS)
    assert set(TRAIN_KEYS) == {field.name for field in fields(TrainConfig)}


def test_every_key_has_a_value_to_try() -> None:
    assert set(VALUES) == set(option_keys()) - {"dataset", *IMPORT_KEYS}


@pytest.mark.parametrize("key", VALUES)
def test_every_key_reaches_the_run(
    make_npz: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """What config.json says is what is trained: the model that was built, and the configuration given to `fit`."""

    class Arrived(Exception):  # noqa: N818 - not an error
        pass

    def arrive(model: Any, data: Any, config: TrainConfig, **options: Any) -> None:
        said = json.loads((tmp_path / "run" / "config.json").read_text())
        assert said["train"] == asdict(config)
        assert said["model_config"] == asdict(model.config)
        assert said["seed"] == options["seed"]
        assert said["task"] == data.info.task
        raise Arrived

    for name in ("load_imagenet", "imagenet_weights"):  # tests touch no network
        monkeypatch.setattr(f"qvit.training.run.{name}", lambda network, **_: None)
    for name in ("fit", "fit_baseline"):
        monkeypatch.setattr(f"qvit.training.run.{name}", arrive)
    monkeypatch.setattr(
        "qvit.training.run.fit_many",
        lambda models, members: arrive(models[0], members[0].data, members[0].config, seed=members[0].seed),
    )
    value, place = VALUES[key]
    options = {"dataset": str(make_npz()), "model": "qvit_4q1h", "epochs": 3, "batch_size": 8}
    with pytest.raises(Arrived):
        train_run(resolve(options | COMPANIONS.get(key, {}) | {key: value}), tmp_path / "run")
    found: Any = json.loads((tmp_path / "run" / "config.json").read_text())
    for part in place:
        found = found[part]
    assert found == value


@pytest.mark.parametrize("key", IMPORTS)
def test_every_option_of_an_import_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It is recorded, and the data are found again by what is recorded."""

    def arrive(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qvit.training.run.fit", arrive)
    rows = [f"{place}.png,{place % 2},{'ab'[place % 2]},{place // 2}" for place in range(18)]
    path = table(tmp_path / "t.csv", "path,label,kind,patient", rows)
    for place in range(18):
        picture(tmp_path / f"{place}.png", place)
    options = {"dataset": str(path), "model": "vit_4q1h", "size": 8, "group_by": "patient"} | {key: IMPORTS[key]}
    with pytest.raises(KeyboardInterrupt):
        train_run(resolve(options), tmp_path / "run", root=tmp_path / "root")
    run = Run(tmp_path / "run")
    assert json.loads((run.folder / "config.json").read_text())["importing"] == {"group_by": "patient"} | {
        key: IMPORTS[key]
    }
    assert run.load_data(tmp_path / "root").digest == run.config["data_digest"]
    assert len(list((tmp_path / "root" / "imported").iterdir())) == 1, "imported once"


# What each part of a run's configuration changes, of what a run leaves.
RUN_BITES: dict[str, tuple[Any, str]] = {
    "dataset": ("other.npz", "predictions"),
    "model": ("cosine_4q1h", "names of weights"),
    "seed": (1, "weights"),
    "size": (12, "size"),  # of a file of one's own, that of the file
    "task": ("ordinal", "task"),
    "stacked": (True, "stacked"),
    "folds": (4, "predictions"),
    "fold": (2, "predictions"),
    "recipe": ("mine", "nothing"),  # a name of what the other options say
    "importing": (ImportOptions(fit="pad"), "pictures"),  # not tried here: an .npz file takes none
    "model_options": ({"depth": 2}, "names of weights"),
    "train": (TrainConfig(epochs=1, lr=0.01), "weights"),
}


def test_the_bites_of_every_part_are_tried() -> None:
    assert list(RUN_BITES) == [field.name for field in fields(RunConfig)]


@pytest.mark.long
@pytest.mark.usefixtures("nudged")
@pytest.mark.parametrize("part", [part for part in RUN_BITES if part != "importing"])
def test_every_part_bites(make_npz: Callable[..., Path], tmp_path: Path, part: str) -> None:
    make_npz(name="other.npz", seed=1)
    plain = RunConfig(str(make_npz()), model="vit_4q1h", task="multi-class", train=TrainConfig(epochs=1, tta="never"))
    if "fold" in part:
        plain = replace(plain, folds=3, fold=1, train=replace(plain.train, keep="last"))
    value, changed = RUN_BITES[part]
    value = str(tmp_path / value) if part == "dataset" else value
    left = []
    for number, config in enumerate((plain, replace(plain, **{part: value}))):
        run = train_run(config, tmp_path / str(number))
        weights = run.load_model().state_dict()
        left.append(
            {
                "predictions": run.predictions("test").tolist(),
                "names of weights": list(weights),
                "weights": [weight.tolist() for weight in weights.values()],
                "size": run.config["size"],
                "task": run.load_data().info.task,
                "stacked": run.config.get("stacked"),
            }
        )
    if changed == "nothing":
        assert left[0] == left[1]
        return
    first, second = (found[changed] for found in left)
    assert (first == second) == (part == "size")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": "2"}, 2),
        ({"epochs": 2.0}, 2),
        ({"lr": "1e-3"}, 1e-3),  # YAML 1.1 reads this as text
        ({"lr": 1}, 1.0),
        ({"clip_norm": None}, None),
        ({"patience": "3"}, 3),
    ],
)
def test_converts_what_is_meant_clearly(options: dict[str, Any], expected: Any) -> None:
    [name] = options
    found = getattr(resolve({"dataset": "phantom"} | options).train, name)
    assert found == expected
    assert type(found) is type(expected)


def test_converts_the_models_options_too() -> None:
    run = resolve({"dataset": "phantom", "model": "vit_4q1h", "depth": "2", "mlp_dim": "8", "bias": "false"})
    found = model_config(run.model, **run.model_options)
    assert (found.depth, found.mlp_dim, found.projection.bias) == (2, 8, False)


INTEGER = "Input should be a valid integer, unable to parse string as an integer."
NUMBER = "Input should be a valid number"
ONE_ALONE = (
    "A run of a fold needs folds, how many there are, and fold, the one that is held out, got folds={} and fold={}. "
    "For all of them use `qvit train DATASET --folds 5`."
)
# For each option, what it does not take, and all that is said of it; the edges of what it takes.
REFUSED_VALUES: dict[str, list[tuple[Any, str]]] = {
    "dataset": [
        (3, "Option dataset=3: Input should be a valid string."),
        (None, "No dataset given; name one (see `qvit data list`), or the path of a file or folder of yours."),
        ("", "No dataset given; name one (see `qvit data list`), or the path of a file or folder of yours."),
    ],
    "model": [(5, "Option model=5: Input should be a valid string.")],
    "seed": [
        ("a", f"Option seed='a': {INTEGER}"),
        (-1, "seed must be zero or more, got -1."),
        (2**63, "seed must be at most 9223372036854775807, got 9223372036854775808."),
    ],
    "size": [
        (0, "size must be from 1 to 10,000 pixels, got 0."),
        (10_001, "size must be from 1 to 10,000 pixels, got 10001."),
        ({}, "Option size={}: Input should be a valid integer."),
    ],
    "task": [(3, "Option task=3: Input should be a valid string.")],
    "stacked": [("yes", "Option stacked='yes': Input should be true or false, found text.")],
    "folds": [
        ("five", f"Option folds='five': {INTEGER}"),
        (1, "folds must be from 2 to 100, got 1."),
        (101, "folds must be from 2 to 100, got 101."),
        (5, ONE_ALONE.format(5, None)),
    ],
    "fold": [("a", f"Option fold='a': {INTEGER}"), (1, ONE_ALONE.format(None, 1))],
    "recipe": [
        (3, "Option recipe=3: Input should be a valid string."),
        ("a b", "A run: recipe must be a name of letters, digits and -_.+, such as small-features, got 'a b'."),
    ],
    "label": [(3, "Option label=3: Input should be a valid string.")],
    "group_by": [(3, "Option group_by=3: Input should be a valid string.")],
    "fit": [("stretch", "Option fit='stretch': Input should be 'crop' or 'pad'.")],
    "channels": [(3, "Option channels=3: Input should be 'auto', 'grey' or 'rgb'.")],
    "shares": [
        ([0.5, 0.5], "Option shares=[0.5, 0.5]: Field required."),
        ([0.5, 0.5, 0.0], "shares must be three numbers above 0 with the sum 1, got (0.5, 0.5, 0.0)."),
        ([0.5, 0.3, 0.1], "shares must be three numbers above 0 with the sum 1, got (0.5, 0.3, 0.1)."),
        ([0.5, 0.6, -0.1], "shares must be three numbers above 0 with the sum 1, got (0.5, 0.6, -0.1)."),
    ],
    "split_seed": [
        (-1, "split_seed must be from 0 to 9223372036854775807, got -1."),
        (2**63, "split_seed must be from 0 to 9223372036854775807, got 9223372036854775808."),
    ],
    "frames": [("last", "Option frames='last': Input should be 'first' or 'all'.")],
    "bits": [(7, "bits must be from 8 to 16, got 7."), (17, "bits must be from 8 to 16, got 17.")],
    "max_bad": [
        (-1, "max_bad must be from 0 to 1,000,000, got -1."),
        (1_000_001, "max_bad must be from 0 to 1,000,000, got 1000001."),
    ],
    "epochs": [
        ("many", f"Option epochs='many': {INTEGER}"),
        (2.5, "Option epochs=2.5: Input should be a valid integer, got a number with a fractional part."),
        (None, "Option epochs=None: Input should be a valid integer."),
        (0, "epochs must be at least 1, got 0."),
        (100_001, "epochs must be at most 100,000, got 100001."),
        (10**30, "Option epochs: Input should be a number of at most 64 bits, found a larger one."),
    ],
    "batch_size": [
        (0, "batch_size must be at least 1, got 0."),
        (1_000_001, "batch_size must be at most 1,000,000, got 1000001."),
    ],
    "lr": [
        ([1, 2], f"Option lr=[1, 2]: {NUMBER}."),
        ("fast", f"Option lr='fast': {NUMBER}, unable to parse string as a number."),
        (0.0, "lr must be positive, got 0.0."),
        (float("inf"), "lr must be positive, got inf."),
        (float("nan"), "lr must be positive, got nan."),
        (10**400, "Option lr: Input should be a number of at most 64 bits, found a larger one."),
    ],
    "weight_decay": [
        (-0.1, "weight_decay must be zero or more, got -0.1."),
        (float("inf"), "weight_decay must be zero or more, got inf."),
        (float("nan"), "weight_decay must be zero or more, got nan."),
    ],
    "schedule": [
        ("cosine", "Option schedule='cosine': Input should be 'one_cycle', 'warmup_cosine' or 'constant'."),
    ],
    "warmup": [(1.0, "warmup must be in [0, 1), got 1.0."), (-0.1, "warmup must be in [0, 1), got -0.1.")],
    "clip_norm": [
        (0.0, "clip_norm must be positive or null, got 0.0."),
        (float("inf"), "clip_norm must be positive or null, got inf."),
    ],
    "loss": [("mse", "Option loss='mse': Input should be 'auto', 'ce', 'bce', 'emd' or 'ce+emd'.")],
    "label_smoothing": [
        (1.0, "label_smoothing must be in [0, 1), got 1.0."),
        (-0.1, "label_smoothing must be in [0, 1), got -0.1."),
    ],
    "class_weights": [("equal", "Option class_weights='equal': Input should be 'none' or 'balanced'.")],
    "augment": [("d5", "Option augment='d5': Input should be 'auto', 'none', 'mirror' or 'd4'.")],
    "distort": [
        (-0.1, "distort must be from 0 (off) to 5, got -0.1."),
        (5.1, "distort must be from 0 (off) to 5, got 5.1."),
        (float("nan"), "distort must be from 0 (off) to 5, got nan."),
    ],
    "mixup": [
        (-0.2, "mixup must be 0 (off) or from 0.001 to 100, got -0.2."),
        (0.0009, "mixup must be 0 (off) or from 0.001 to 100, got 0.0009."),
        (100.1, "mixup must be 0 (off) or from 0.001 to 100, got 100.1."),
    ],
    "tta": [
        ("maybe", "Option tta='maybe': Input should be 'auto', 'always' or 'never'."),
        (False, "Option tta=False: Input should be 'auto', 'always' or 'never'."),  # what YAML makes of `off`
    ],
    "keep": [("first", "Option keep='first': Input should be 'best' or 'last'.")],
    "average": [
        (0, "average must be at least 1, got 0."),
        (2, "average must be 1 with keep=best, as that keeps one epoch (set keep=last, too), got 2."),
    ],
    "patience": [(0, "patience must be at least 1 or null, got 0.")],
    "device": [(3, "Option device=3: Input should be a valid string.")],
    "threads": [(0, "threads must be at least 1, got 0."), (1025, "threads must be at most 1,024, got 1025.")],
}
TAKEN_VALUES: dict[str, list[Any]] = {
    "seed": [0, 2**63 - 1],
    "size": [1, 10_000],
    "folds": [2, 100],
    "shares": [(0.98, 0.01, 0.01)],
    "split_seed": [0, 2**63 - 1],
    "bits": [8, 16],
    "max_bad": [0, 1_000_000],
    "epochs": [1, 100_000],
    "batch_size": [None, 1, 1_000_000],
    "lr": [1e-300, 1e300],
    "weight_decay": [0.0, 1e300],
    "warmup": [0.0, 0.999],
    "clip_norm": [None, 1e-300, 1e300],
    "label_smoothing": [0.0, 0.999],
    "distort": [0.0, 5.0],
    "mixup": [0.0, 0.001, 100.0],
    "average": [1],
    "patience": [None, 1],
    "threads": [1, 1024],
}


def test_wrong_values_of_every_option_are_tried() -> None:
    assert list(REFUSED_VALUES) == [*RUN_KEYS, *IMPORT_KEYS, *TRAIN_KEYS]
    bounded = {
        key for key, told in REFUSED_VALUES.items() if any(text.startswith(f"{key} must be") for _, text in told)
    }
    assert set(TAKEN_VALUES) == bounded, "what has bounds is tried at its bounds"


@pytest.mark.parametrize(
    ("key", "value", "told"), [(key, *row) for key, rows in REFUSED_VALUES.items() for row in rows]
)
def test_refuses_wrong_types_and_values(key: str, value: Any, told: str) -> None:
    for resolved in (resolve, resolve_distillation):
        with pytest.raises(ConfigError) as caught:
            resolved({"dataset": "phantom", key: value})
        assert str(caught.value) == told


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in TAKEN_VALUES.items() for value in values])
def test_takes_what_is_just_within_bounds(key: str, value: Any) -> None:
    run = resolve({"dataset": "phantom"} | (COMPANIONS["folds"] if key == "folds" else {}) | {key: value})
    assert {**vars(run.train), **vars(run.importing), **vars(run)}[key] == value


FOLD = {"folds": 3, "fold": 3} | NOTHING_CHOSEN
CHOSEN = (
    "A fold that is held out is measured, so nothing may be chosen by it: set keep=last, and tta=always or tta=never, "
    "got keep={} and tta={}."
)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fold": 0}, "fold must be from 1 to 3, got 0."),
        ({"fold": 4}, "fold must be from 1 to 3, got 4."),
        ({"keep": "best"}, CHOSEN.format("best", "never")),
        ({"tta": "auto"}, CHOSEN.format("last", "auto")),
        ({"patience": 3}, "patience must be null with keep=last, as nothing is chosen then, got 3."),
    ],
)
def test_nothing_is_chosen_by_a_fold(options: dict[str, Any], told: str) -> None:
    run = resolve({"dataset": "phantom"} | FOLD)
    assert str(run.held_out) == "fold 3 of 3"
    with pytest.raises(ConfigError) as caught:
        resolve({"dataset": "phantom"} | FOLD | options)
    assert str(caught.value) == told


def test_no_more_epochs_are_averaged_than_there_are() -> None:
    for average in (7, 8):
        options = {"dataset": "phantom", "epochs": 7, "keep": "last", "average": average}
        if average == 7:
            assert resolve(options).train.average == 7
        else:
            with pytest.raises(ConfigError, match=r"^average must be at most epochs, 7, got 8\.$"):
                resolve(options)


def test_the_last_epochs_are_averaged() -> None:
    config = TrainConfig(epochs=5, keep="last", average=3)
    assert [config.averaged(epoch) for epoch in range(1, 6)] == [1, 1, 1, 2, 3]
    assert [TrainConfig(epochs=3).averaged(epoch) for epoch in range(1, 4)] == [1, 1, 1]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("key", ["epochs", "seed", "lr", "patience", "size"])
def test_yes_and_no_are_not_numbers(key: str, value: bool) -> None:
    """YAML reads `epochs: yes` as true, and Python takes true for 1."""
    with pytest.raises(ConfigError, match=rf"^Option {key}={value}: Input should be a number\.$"):
        resolve({"dataset": "phantom", key: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": "deep"}, "Option depth='deep'"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"pool": "min"}, "Option pool='min'"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"mlp_dim": 0}, "mlp_dim"),
        ({"patch_size": 5}, "img_size=12 is not divisible by patch_size=5"),
        ({"bias": False}, "The quantum projection has no option 'bias'"),
        ({"n_layers": "x"}, "Option n_layers='x'"),
        ({"n_layers": 0}, "n_layers"),
        ({"ansatz": "no_such"}, "no_such"),
        ({"engine": "no_such"}, "no_such"),
        ({"model": "qvit_4q2x"}, "There is no model 'qvit_4q2x'. Did you mean 'qvit_4q2h'"),
        ({"loss": "bce"}, "loss='bce' does not fit a multi-class task"),
        ({"task": "regression"}, "regression"),
        ({"device": "gpu"}, "gpu"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_refuses_what_the_run_cannot_do_before_it_begins(
    make_npz: Callable[..., Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"dataset": str(make_npz()), "model": "qvit_4q1h", "epochs": 1} | options
    with pytest.raises(QvitError, match=message):
        train_run(resolve(given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("n_layer", "n_layers"),
        ("qqqqqqqq", ""),
    ],
)
def test_unknown_keys_are_errors_with_the_nearest(key: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"dataset": "phantom", key: 1})
    meant = f" Did you mean '{suggestion}'?" if suggestion else ""
    assert str(caught.value) == f"There is no option '{key}'.{meant} Known options: {', '.join(option_keys())}."


@pytest.mark.parametrize("key", ["train", "importing", "model_options", "kind", *GIVEN])
def test_inner_names_and_what_the_models_name_says_are_no_options(key: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no option '{key}'"):
        resolve({"dataset": "phantom", key: {}})


def test_defaults_are_those_of_the_dataclasses() -> None:
    assert resolve({"dataset": "phantom"}) == RunConfig("phantom")


# --- YAML ---


def test_reads_yaml(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("# how\ndataset: phantom\nlr: 0.01\nclip_norm: null\npool: cls\n")
    options = read_options(path)
    assert options == {"dataset": "phantom", "lr": 0.01, "clip_norm": None, "pool": "cls"}
    assert resolve(options).train.clip_norm is None


@pytest.mark.parametrize("content", ["", "\n", "# nothing yet\n"])
def test_an_empty_file_holds_no_options(tmp_path: Path, content: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(content)
    assert read_options(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- lr\n- epochs\n", r"options\.yaml must hold `key: value` lines, such as `lr: 0\.005`\.$"),
        (b"just words", "must hold `key: value` lines"),
        (b"1: 2\n", "must hold `key: value` lines"),
        (b"lr: [1, 2\n", "is not valid YAML"),
        (b"lr: 1\n\tepochs: 2\n", "is not valid YAML"),
        (b"lr: !!python/object:os.system {}\n", "is not valid YAML"),
        (b"lr: 1\nlr: 2\n", "is not valid YAML: line 2: the key 'lr' appears twice"),
        (b"a: " + b"[" * 100, "nested too deeply|is not valid YAML"),
        (b"\xff\xfe\x00", "expected text in UTF-8"),
        (b"lr: 1e400", "the number 1e400 is too large"),
        (b"seed: " + b"9" * 5000, "is too large, of more than 64 bits"),
        (b"#" * 300_000, "expected at most 262,144 bytes, found more"),
        (b"a: \x00", "is not valid YAML"),
    ],
)
def test_refuses_other_yaml(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_options(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(tmp_path / "missing.yaml")
    assert str(caught.value) == (
        f"Cannot read the options file {tmp_path / 'missing.yaml'}: there is no such file. Give a YAML file of "
        "`key: value` lines, such as `lr: 0.005` or a recipe, one of: defaults, small-features, tiny."
    )
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"Cannot read {path}: expected a regular file"):
            read_options(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"expected a regular file, found a pipe or a device\. Give a YAML file"):
        read_options(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.01", ("lr", 0.01)),
        ("clip_norm=null", ("clip_norm", None)),
        ("pool=cls", ("pool", "cls")),
        ("bias=false", ("bias", False)),
        (" lr = 1", ("lr", 1)),
        ("dataset=a=b.npz", ("dataset", "a=b.npz")),
        ("projection={kind: linear, bias: false}", ("projection", {"kind": "linear", "bias": False})),
    ],
)
def test_assignments(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["lr", "=3", " =3", ""])
def test_refuses_what_is_no_assignment(text: str) -> None:
    for flag, more in (("--set", ()), ("--option", ("--option",))):
        with pytest.raises(ConfigError, match=rf"^{flag} takes key=value, such as lr=0\.005; got '{text}'\.$"):
            parse_assignment(text, *more)


def test_long_texts_are_cut_short() -> None:
    with pytest.raises(ConfigError, match=r"; got 'a{200}'\.$"):
        parse_assignment("a" * 300)
    with pytest.raises(ConfigError, match=r"^--set k{80}: '\[x{199}' is not a value: "):
        parse_assignment(f"{'k' * 90}=[{'x' * 300}")


@pytest.mark.parametrize("value", ["[1, 2", "!!int x", "{", "1e400", "9" * 5000, "\ud800", "{a: 1, a: 2}"])
def test_refuses_what_is_no_value(value: str) -> None:
    with pytest.raises(ConfigError, match="is not a value"):
        parse_assignment(f"lr={value}")


REFUSED = "refused by name"
# An option of each kind, and what it makes of words that YAML 1.1, or pydantic, reads as other values than text.
WORDS: dict[str, dict[str, Any]] = {
    "epochs": {"010": 10, "yes": REFUSED, "1_000": REFUSED, "1:30": REFUSED, ".inf": REFUSED, "'1_0'": REFUSED},
    "seed": {"010": 10, "on": REFUSED, "1_000": REFUSED, "1:30": REFUSED, ".inf": REFUSED, "0x10": 16, "' 1'": REFUSED},
    "batch_size": {"010": 10, "no": REFUSED, "1_0": REFUSED, "1:30": REFUSED, "null": None, "true": REFUSED},
    "lr": {
        "010": 10.0,
        "yes": REFUSED,
        "1_0": REFUSED,
        "0:30": REFUSED,
        ".inf": REFUSED,
        "1e-3": 0.001,
        "'inf'": REFUSED,
    },
    "clip_norm": {"010": 10.0, "yes": REFUSED, "1_0": REFUSED, ".inf": REFUSED, ".nan": REFUSED, "~": None},
    "loss": {"010": REFUSED, "on": REFUSED, "ce": "ce"},
    "device": {"010": REFUSED, "no": "no", "1_000": "1_000", "1:30": "1:30", ".inf": REFUSED, "'010'": "010"},
    "task": {"010": REFUSED, "yes": "yes", "2024-01-01": "2024-01-01"},
    "n_layers": {"010": 10, "yes": REFUSED, "1_0": REFUSED, "1:30": REFUSED, ".inf": REFUSED},
    "dropout": {"00.5": 0.5, "yes": REFUSED, "0_0": REFUSED, ".inf": REFUSED, "'nan'": REFUSED},
}


@pytest.mark.parametrize(("option", "word"), [(option, word) for option, words in WORDS.items() for word in words])
def test_a_word_is_what_yaml_1_2_says_or_refused_by_name(option: str, word: str) -> None:
    expected = WORDS[option][word]

    def made() -> Any:
        run = resolve({"dataset": "phantom", **dict([parse_assignment(f"{option}={word}")])})
        config = model_config(run.model, **run.model_options)
        return {**vars(run.train), **vars(run), **vars(config), **vars(config.projection)}[option]

    if expected is REFUSED:
        with pytest.raises(QvitError, match=rf"\b{option}\b"):
            made()
    else:
        assert made() == expected


@pytest.mark.parametrize(("word", "expected"), [("true", True), ("yes", REFUSED), ("on", REFUSED), ("'t'", REFUSED)])
def test_a_switch_is_true_or_false(word: str, expected: Any) -> None:
    key, value = parse_assignment(f"joint={word}")
    if expected is REFUSED:
        with pytest.raises(ConfigError, match=rf"Option joint='{value}': Input should be true or false"):
            resolve_distillation({"dataset": "phantom", key: value})
    else:
        assert resolve_distillation({"dataset": "phantom", key: value}).joint is expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({3: 1}, "There is no option '3'"),
        ({None: 1}, "There is no option 'None'"),
        ({"epochs\nlr": 1}, "There is no option 'epochs lr'"),
        ({"\x1b[2J": 1}, r"There is no option '\x1b[2J'"),
        ({"epoch\udcff": 1}, r"There is no option 'epoch\udcff'. Did you mean 'epochs'?"),
        ({"epochs": "many\nmore"}, r"Option epochs='many\nmore'"),
    ],
)
def test_strange_names_and_texts_are_shown_on_one_line(options: dict[Any, Any], told: str) -> None:
    for resolved in (resolve, resolve_distillation):
        with pytest.raises(ConfigError) as caught:
            resolved({"dataset": "phantom"} | options)
        assert told in str(caught.value)
        assert str(caught.value).isprintable()
