"""Options of guide and stages that cannot be, and all that is said of them; `test_wrong_inputs` checks for more."""

from collections.abc import Callable
from typing import Any

import pytest

from qvit.distill import DistillationConfig, DistillConfig, resolve_distillation
from qvit.distill.options import KD_KEYS, OWN_KEYS
from qvit.errors import ConfigError
from qvit.training.options import TRAIN_KEYS, RunConfig, option_keys

NO_LABELS = "A transfer set and mixtures have no labels, so they cannot be learned from jointly; leave --joint out."
NO_STAGES = "With --joint there are no stages to pre-train or fine-tune; set the student's options instead."
ALONE = "The first of two stages learns from the teacher alone, alpha=1, got {}; learn from both at once with --joint."
NOTHING = "kd_loss='none' leaves nothing to learn from; set feature_weight or attention_weight."
OF_STAGES = f"A stage has the options of training: {', '.join(TRAIN_KEYS)}."
KNOWN = f"Known options: {', '.join((*option_keys(), *KD_KEYS, *OWN_KEYS))}."
PAIRS = "{} must hold `key: value` options of training, such as `lr: 0.001`, got {}."
INF, NAN = float("inf"), float("nan")

OF_TEACHING: list[tuple[dict[str, Any], str]] = [
    *(({"temperature": value}, f"temperature must be positive, got {value}.") for value in (0.0, -1.0, INF, NAN)),
    *(
        ({"alpha": value}, f"alpha must be from 0 (labels alone) to 1 (the teacher alone), got {value}.")
        for value in (-0.1, 1.1, NAN)
    ),
    *(
        ({name: value}, f"{name} must be zero or more, got {value}.")
        for name in ("beta", "feature_weight", "attention_weight")
        for value in (-0.1, INF, NAN)
    ),
    ({"kd_loss": "none"}, NOTHING),
    ({"kd_loss": "none", "alpha": 0.5}, NOTHING),
]
OF_STAGE: list[tuple[dict[str, Any], str]] = [
    ({"mixtures": -1}, "mixtures must be zero or more images, got -1."),
    ({"mixtures": 1_000_001}, "mixtures must be at most 1,000,000 images, got 1000001."),
    ({"joint": True, "transfer_set": "phantom"}, NO_LABELS),
    ({"joint": True, "mixtures": 1}, NO_LABELS),
    ({"transfer_set": "phantom", "mixtures": 1}, "Both a transfer set and mixtures were asked for; use one of them."),
    ({"joint": True, "finetune": {"lr": 0.1}}, NO_STAGES),
    ({"joint": True, "pretrain": {"lr": 0.1}}, NO_STAGES),
    *(
        case
        for stage in ("pretrain", "finetune")
        for case in (
            ({stage: {"epoch": 3}}, f"There is no option 'epoch' for {stage}. Did you mean 'epochs'? {OF_STAGES}"),
            ({stage: {"1": 3}}, f"There is no option '1' for {stage}. {OF_STAGES}"),
            ({stage: {"epochs": 0}}, "epochs must be at least 1, got 0."),
        )
    ),
]
RESOLVED: list[tuple[dict[str, Any], str]] = [
    *OF_STAGE,
    ({"alpha": 0.5}, ALONE.format(0.5)),
    ({"temprature": 2}, f"There is no option 'temprature'. Did you mean 'temperature'? {KNOWN}"),
    ({"zzz": 2}, f"There is no option 'zzz'. {KNOWN}"),
    ({"pretrain": 3}, PAIRS.format("pretrain", 3)),
    ({"finetune": "lr=1"}, PAIRS.format("finetune", "'lr=1'")),
    ({"pretrain": {1: 2}}, f"There is no option '1' for pretrain. {OF_STAGES}"),
    ({"temperature": 0}, "temperature must be positive, got 0.0."),
    (
        {"folds": 5, "fold": 1, "keep": "last", "tta": "always"},
        "A student is not trained by folds: its teacher has seen the images that would be held out. Leave folds and "
        "fold out.",
    ),
    (
        {"model": "nearest"},
        "nearest is fitted to labels, so it cannot be a student; use a network, such as qvit_4q2h. It can be a "
        "teacher.",
    ),
]
# What is said by the check of types, or of a run's options: only that it is asked.
CHECKED: list[tuple[dict[str, Any], str]] = [
    ({"student": {}}, "Option model={}"),
    ({"how": {}}, "There is no option 'how'"),
    ({"temperature": "hot"}, "Option temperature='hot'.*number"),
    ({"temperature": None}, "Option temperature=None"),
    ({"alpha": True, "joint": True}, "Option alpha=True"),
    ({"kd_loss": "hard"}, "Option kd_loss='hard'.*'soft', 'ordinal', 'mse', 'decoupled' or 'none'"),
    ({"joint": "perhaps"}, "Option joint='perhaps'"),
    ({"scratch": 7}, "Option scratch=7"),
    ({"mixtures": "many"}, "Option mixtures='many'"),
    ({"mixtures": True}, "Option mixtures=True"),
    ({"transfer_set": 3}, "Option transfer_set=3"),
    ({"finetune": {"lr": "fast"}}, "Option lr='fast'"),
    ({"pretrain": {"epochs": "many"}}, "Option epochs='many'"),
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"dataset": None}, "No dataset given"),
]


def refused(make: Callable[..., Any], told: str, **options: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert str(caught.value) == told


@pytest.mark.parametrize(("options", "told"), OF_TEACHING)
def test_how_to_learn_from_a_teacher(options: dict[str, Any], told: str) -> None:
    refused(DistillConfig, told, **options)


@pytest.mark.parametrize(("options", "told"), OF_STAGE)
def test_stages_that_cannot_be_however_they_come(options: dict[str, Any], told: str) -> None:
    how = DistillConfig(alpha=0.5 if options.get("joint") else 1.0)
    refused(DistillationConfig, told, student=RunConfig("phantom"), how=how, **options)


@pytest.mark.parametrize("alpha", [0.0, 0.999])
def test_stages_have_no_labels_in_the_first(alpha: float) -> None:
    how = DistillConfig(alpha=alpha)
    refused(DistillationConfig, ALONE.format(alpha), student=RunConfig("phantom"), how=how)


@pytest.mark.parametrize(("options", "told"), RESOLVED)
def test_flat_options(options: dict[str, Any], told: str) -> None:
    refused(lambda **more: resolve_distillation({"dataset": "phantom"} | more), told, **options)


@pytest.mark.parametrize(("options", "told"), CHECKED)
def test_types_and_options_of_runs(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        resolve_distillation({"dataset": "phantom"} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e-9},
        {"alpha": 0.0},
        {"alpha": 1.0, "beta": 0.0, "feature_weight": 0.0, "attention_weight": 0.0},
        {"kd_loss": "none", "alpha": 0.0},
        {"kd_loss": "none", "feature_weight": 0.1},
        {"kd_loss": "none", "attention_weight": 0.1},
    ],
)
def test_values_at_the_bounds_are_taken(options: dict[str, Any]) -> None:
    assert {key: getattr(DistillConfig(**options), key) for key in options} == options


@pytest.mark.parametrize(
    "options",
    [
        {"mixtures": 0},
        {"mixtures": 1_000_000},
        {"mixtures": 0, "joint": True},
        {"mixtures": 0, "transfer_set": "phantom"},
        {"joint": True, "alpha": 0.0},
        {"joint": True, "finetune": {}},
    ],
)
def test_what_goes_together_is_taken(options: dict[str, Any]) -> None:
    config = resolve_distillation({"dataset": "phantom"} | options)
    assert {key: getattr(config.how if key == "alpha" else config, key) for key in options} == options
